"""Labels that are numbers, text or lists: how they are read, refused and spoken of."""

import json
import logging

import pandas as pd
import pytest
from conftest import invoke, refusal

import spacelite
from spacelite.data import loading as data
from spacelite.visible import visible_name


def frame(labels, **columns):
    return pd.DataFrame(
        {"text": [f"text {i}" for i in range(len(labels))], "label": labels, **columns}
    )


def names(labels, **options):
    """The label names of a data set whose three splits have these labels."""
    own = frame(labels)
    return data.read({"train": own, "validation": own, "test": own}, **options).label_names


@pytest.mark.parametrize(
    ("labels", "auto", "text"),
    [
        (["10", "9", "10"], ("9", "10"), ("10", "9")),
        (["01", "2", "01"], ("1", "2"), ("01", "2")),
        ([1, 2, 1], ("1", "2"), ("1", "2")),
        ([True, False], ("false", "true"), ("false", "true")),
        ([" b", "a"], ("a", "b"), (" b", "a")),
        (["007", "1.0", "+2"], ("1", "2", "7"), ("+2", "007", "1.0")),
        ([["a"], ["a "], ["b"]], ("a", "b"), ("a", "a ", "b")),
        ([[1, 2], [2], []], ("1", "2"), ("1", "2")),
        ([[0, 1], [1, 0]], ("0", "1"), ("0", "1")),
    ],
    ids=str,
)
def test_labels_as_text_are_kept_as_they_are_written(labels, auto, text):
    assert names(labels) == auto
    assert names(labels, labels_as="text") == text


@pytest.mark.parametrize("labels", [["1.1", "1.2", "1.10"], ["1.0", "1", "01"], ["1.1", "a"]])
def test_any_string_is_a_label_as_text(labels):
    assert names(labels, labels_as="text") == tuple(sorted(labels))
    assert names([1.5, 2.5], labels_as="text") == ("1.5", "2.5")


def test_fractions_are_refused_with_the_option():
    assert "or give labels_as='text'" in refusal(names, ["1.1", "1.2"], task="single-label")


def test_two_spellings_that_would_become_one_number_are_refused_over_all_splits(caplog):
    message = (
        "the labels '01' and '1' would become one number, 1: give labels_as='text' to keep them "
        "apart, or write them alike"
    )
    assert refusal(names, ["01", "1", "2"]) == f"texts: {message}"
    splits = {"train": frame(["1", "2"]), "test": frame(["01", "2"]), "validation": frame(["1"])}
    assert refusal(data.read, splits) == f"texts: {message}"
    assert refusal(data.read, {**splits, "train": frame([1, 2])}) == f"texts: {message}"
    assert data.read(splits, labels_as="text").label_names == ("01", "1", "2")
    assert "one number" not in caplog.text
    # A number with and without a decimal point is one, which is said.
    assert names(["1", "1.0", "2"]) == ("1", "2")
    assert "the labels '1' and '1.0' are one number, 1: give labels_as='text'" in caplog.text


@pytest.mark.parametrize("labels", [[-1, 0, 1], ["-1", "1"], [-1.0, 1.0], [[-1, 1], [1]]], ids=str)
def test_negative_labels_beside_others_are_labels(labels, caplog):
    caplog.set_level(logging.INFO)
    in_order = sorted({int(label) for of_text in labels for label in
                       (of_text if isinstance(of_text, list) else [of_text])})  # fmt: skip
    assert names(labels) == tuple(map(str, in_order))
    assert "-1 is a label like the others; if it marks missing labels" in caplog.text


def test_negative_labels_that_a_split_lacks_or_has_alone_are_refused():
    splits = {"train": frame([0, 1]), "validation": frame([1, 0]), "test": frame([-1, -1])}
    assert refusal(data.read, splits) == (
        "texts test: row 1 has label -1, which marks a hidden or missing label (2 such rows): "
        "remove them, or the whole split"
    )
    splits = {"train": frame([0, -1, 1]), "validation": frame([1, 0])}
    assert refusal(data.read, splits) == (
        "texts train: row 2 has label -1, which marks a hidden or missing label (1 such rows): "
        "remove them, or give labels_as='text' if it is a label that another split lacks"
    )
    assert data.read(splits, labels_as="text").label_names == ("-1", "0", "1")


def test_a_name_is_shown_on_one_line():
    assert visible_name("new\nline\t\x1b[1m") == r"new\nline\t\x1b[1m"


def test_a_word_for_a_missing_value_beside_numbers_is_refused():
    assert refusal(names, ["1", "nan", "0", "nan"]) == (
        "texts: the labels are numbers, but for 'nan' in 6 rows: correct or remove these, or give "
        "labels_as='text' if it is a label"
    )
    assert names(["1", "nan", "0"], labels_as="text") == ("0", "1", "nan")
    assert names(["naan", "nan"]) == ("naan", "nan")


def test_a_split_without_the_labels_that_are_no_numbers_is_no_mixture_of_types():
    splits = {"train": frame(["1", "2", "none"]), "validation": frame(["1"]), "test": frame(["2"])}
    assert data.read(splits).label_names == ("1", "2", "none")


def test_labels_as_text_keep_the_names_that_are_known(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, 1]}, features)
    assert data.read({"train": rows, "validation": rows}, labels_as="text").label_names == (
        "neg", "pos",
    )  # fmt: skip


def test_the_choice_changes_the_data_only_where_it_changes_the_labels():
    own = {"train": frame(["a", "b"]), "validation": frame(["a", "b"])}
    assert data.read(own).fingerprint == data.read(own, labels_as="text").fingerprint
    assert refusal(data.read, own, labels_as="words") == "labels_as=words: choose from auto, text"


def test_columns_whose_names_differ_only_in_case():
    rows = frame(["a", "b"], Text=["x", "y"], Label=["c", "d"])
    upper_first = rows[["Text", "Label", "text", "label"]]
    for own in (rows, upper_first):
        assert data.read({"train": own, "validation": own}).splits["train"].texts == [
            "text 0",
            "text 1",
        ]
        found = data.read(
            {"train": own, "validation": own}, text_column="Text", label_column="Label"
        )
        assert found.splits["train"].texts == ["x", "y"] and found.label_names == ("c", "d")


def command(path, bert, *options):
    return invoke(
        "embed", "--dataset", path, "--backbone", bert, "--device", "cpu",
        "--cache-dir", path.parent / "cache", *options,
    )  # fmt: skip


def test_the_command_names_its_option_and_takes_it(bert, tmp_path):
    path = tmp_path / "d.csv"
    path.write_text(
        "text,label\n" + "".join(f"film {i},{'01' if i % 2 else 1}\n" for i in range(20))
    )
    refused = command(path, bert)
    assert refused.exit_code == 1 and "give --labels-as text to keep them apart" in refused.stderr
    done = command(path, bert, "--labels-as", "text", "--json")
    counts = json.loads(done.stdout)["labels"]
    assert [*counts] == ["01", "1"] and 10 < sum(counts.values()) < 20


def test_a_run_of_labels_as_text_is_evaluated_on_such_labels(bert, tmp_path):
    texts = ["good film", "bad film", "", "good plot", "bad plot", ""] * 4
    rows = pd.DataFrame({"text": texts, "label": ["01", "1", "1"] * 8})
    as_text = {"labels_as": "text", "skip_empty": True, "progress": False, "device": "cpu"}
    cache = spacelite.embed(rows, backbone=str(bert), cache_dir=tmp_path, **as_text)
    (run,) = spacelite.train(
        cache, head="linear", epochs=1, baselines=False, device="cpu", progress=False
    )
    other = {"test": rows[:9]}
    found = run.evaluate(other, backbone=str(bert), **as_text).record
    assert found.labels == {"01": "01", "1": "1"} and found.examples == {"test": 6}
    refused = refusal(run.evaluate, other, backbone=str(bert), progress=False, skip_empty=True)
    assert "would become one number" in refused


# What is said of the labels


def test_labels_and_their_counts_are_printed(bert, tmp_path):
    path = tmp_path / "d.csv"
    lines = "good film,pos,train\nbad film,neg,train\na plot,neg,train\n" * 10
    path.write_text("text,label,split\n" + lines + "a scene,pos,val\n")
    done = command(path, bert)
    assert done.stdout.splitlines()[1] == "labels (train): neg: 20, pos: 10"
    assert json.loads(command(path, bert, "--json").stdout)["labels"] == {"neg": 20, "pos": 10}
    tags = tmp_path / "tags.jsonl"
    tags.write_text("".join(
        json.dumps({"text": f"film {i}", "label": ["a", "b"][: i % 3], "split": split}) + "\n"
        for i in range(10) for split in ("train", "val")
    ))  # fmt: skip
    assert command(tags, bert).stdout.splitlines()[1] == "labels (train): a: 6, b: 3; 4 have none"
    assert json.loads(command(tags, bert, "--json").stdout)["unlabelled"] == 4
    rows = [f"good film {i},label {i:02},train\n" * (9 if i == 7 else 2) for i in range(12)]
    path.write_text("text,label,split\n" + "".join(rows) + "a scene,label 00,val\n")
    last = command(path, bert).stdout.splitlines()[1]
    assert last.startswith("labels (train): label 07: 9, label 0") and last.endswith(", and 2 more")


def test_labels_that_look_the_same_are_a_warning(caplog):
    assert names(["pos", "neg", "Pos", "POS"]) == ("POS", "Pos", "neg", "pos")
    assert names([["a"], ["a "], ["b"]], labels_as="text") == ("a", "a ", "b")
    assert [line for line in caplog.messages if "differ" in line] == [
        f"texts: the labels {these} differ only in case or surrounding spaces: they count as "
        "different labels; correct them if they are meant to be one"
        for these in ("'POS' and 'Pos' and 'pos'", "'a' and 'a '")
    ]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["pos", " pos", "neg"], "labels are read without the spaces around them, ' pos' as "
         "'pos' (and 2 more): labels_as='text' keeps them"),
        ([["pos", "a\t"], ["b"]], "labels are read without the spaces around them, 'a\\t' as "
         "'a' (and 2 more): labels_as='text' keeps them"),
        (["007", "1.0", "2"], "labels are read as numbers, '1.0' as 1 (and 1 more): "
         "labels_as='text' keeps them as they are written"),
        (["١", "2"], "labels such as '١' are read as text, and so are all others: numbers are"),
        (["1_000", "2.5", "3"], "labels such as '1_000' are read as text"),
        (["pos", "neg"], ""), (["1", "2"], ""), ([1.0, 2.0], ""), ([["a"], ["b"]], ""),
    ],
    ids=str,
)  # fmt: skip
def test_labels_whose_text_changes_are_a_warning(labels, said, caplog):
    names(labels)
    spoken = [line for line in caplog.messages if " read " in line]
    assert len(spoken) == bool(said) and said in "".join(spoken)
    caplog.clear()
    names(labels, labels_as="text")
    assert " read " not in caplog.text


def test_decimal_commas_and_other_forms_of_numbers_are_said(caplog):
    for labels in (["2,21", "3,5", "1,75"], ["2,0", "2,0", "0,5", "0,5", "3"], ["1.5", "2,5"]):
        assert f"labels such as '{min(of for of in labels if ',' in of)}' have a comma" in (
            said := refusal(names, labels)
        )
        assert f"with a point ({min(of for of in labels if ',' in of).replace(',', '.')})" in said
        assert names(labels, labels_as="text") == tuple(sorted({*labels}))
        assert "whose comma must be a point (" in refusal(names, labels, task="regression")
    assert names(["1,2", "2,0"], label_separator=",") == ("0", "1", "2")
    assert "several labels in one string" in refusal(names, ["1,2,3", "1,2", "3"])
    for odd in ("1_000", "٣"):
        assert "which is not a number" in refusal(names, ["1", "2.5", odd], task="regression")
        assert names(["1", "2", odd]) == tuple(sorted(("1", "2", odd)))


def test_that_whole_numbers_become_classes_is_said_in_one_line(caplog):
    """In Python as on the command line, if more than two differ, unless the user chose."""
    line = (
        "texts: the labels are whole numbers, 3 different ones, which become classes: "
        "task='regression' predicts them as numbers, task='ordinal' as whole numbers whose order "
        "counts"
    )
    for labels in (["1", "2", "3"], [1, 2, 3], ["1", "2.0", "3"]):
        caplog.clear()
        assert names(labels) == ("1", "2", "3")
        assert line == next(of.getMessage() for of in caplog.records if of.levelno > logging.INFO)
    chosen = {"task": "single-label"}, {"labels_as": "text"}, {"task": "ordinal"}
    for labels, options in (([0, 1], {}), *(([1, 2, 3], of) for of in chosen)):
        caplog.clear()
        names(labels, **options)
        assert "become classes" not in caplog.text
    data.read(frame([1, 2, 3]), training=False)
    assert "become classes" not in caplog.text
    names(["1.25", "2.5", "3.75"])
    assert [of.levelname for of in caplog.records if "are numbers, which" in of.getMessage()] == [
        "WARNING"
    ]


def test_ratings_scores_and_stars_are_names_of_label_columns():
    own = frame([0, 1]).rename(columns={"label": "Rating"}).assign(id=["a", "b"], stars=[1, 1])
    assert data.read({"train": own, "validation": own}).label_names == ("0", "1")
    own = own.assign(target=["x", "y"])  # a name that was known before comes first
    assert data.read({"train": own, "validation": own}).label_names == ("x", "y")


def test_labels_with_a_single_training_example_are_a_warning_said_once(caplog):
    own = frame(["a", "a", "b", "b", "c"])
    data.read({"train": own, "validation": own}, limit=5)
    said = "too few to learn from; add more if you can"
    one = f"texts: the label 'c' has a single training example: {said}"
    assert [line for line in caplog.messages if said in line] == [one]
    own = frame(list("aabcdefgh"))
    data.read({"train": own, "validation": own})
    assert caplog.messages[-1] == (
        "texts: the labels 'b', 'c', 'd', 'e', 'f' and 2 more have a single training example each: "
        f"{said}"
    )
    count = len(caplog.messages)
    data.read({"train": frame(["a", "a", "b", "b"]), "validation": own[1:3], "test": own[1:3]})
    assert len(caplog.messages) == count


def test_labels_that_a_split_lacks_are_named_in_one_line(caplog):
    data.read({"train": frame(["a", "b", "c"] * 2), "validation": frame(["a"]),
               "test": frame(["a", "b"])})  # fmt: skip
    assert caplog.messages == [
        "texts: validation has no example of 'b', 'c'; test has no example of 'c': its figures say "
        "nothing of such a label"
    ]
    caplog.clear()
    lists = frame([["a"], ["b"], ["a", "b"]])
    data.read({"train": lists, "validation": lists[:1], "test": lists})
    assert "texts: validation has no example of 'b': its" in caplog.text


def test_training_names_labels_that_a_split_lacks(bert, tmp_path, caplog):
    own = {"train": frame(["a", "b"] * 4), "validation": frame(["a", "a"])}
    options = {"progress": False, "device": "cpu"}
    cache = spacelite.embed(own, backbone=str(bert), cache_dir=tmp_path, **options)
    caplog.clear()
    spacelite.train(cache, head="linear", epochs=1, baselines=False, **options)
    assert "validation has no example of 'b': its figures say nothing" in caplog.text


# Rows with empty texts


def test_empty_texts_are_named_and_left_out_on_request(caplog):
    caplog.set_level(logging.INFO, "spacelite")
    rows = pd.DataFrame(
        {"text": ["a", "", "b", None, " ", "c", "", "\n", "d"],
         "label": ["x", None, "y", "x", "x", "x", "y", "y", "y"]}
    )  # fmt: skip
    message = refusal(data.read, rows)
    assert message == (
        "texts: rows 2, 4, 5 and 2 more have an empty 'text': correct or remove them, or name "
        "another column with text_column, or give skip_empty=True"
    )
    found = data.read({"train": rows, "validation": rows}, skip_empty=True)
    assert found.splits["train"].texts == ["a", "b", "c", "d"]
    assert found.splits["train"].labels.tolist() == [0, 1, 0, 1]
    assert found.splits["train"].sources.row.tolist() == [1, 3, 6, 9]
    assert caplog.messages[0] == (
        "texts (train): 5 rows are left out, because the text is empty (rows 2, 4, 5 and 2 more)"
    )
    rows.loc[8, "label"] = None
    assert "row 9 has no 'label'" in refusal(data.read, rows, skip_empty=True)
    assert "every 'text' is empty" in refusal(
        data.read, frame(["a"]).assign(text=""), skip_empty=True
    )


def test_rows_are_named_as_they_stand_in_the_data():
    rows = pd.DataFrame({"text": ["a", "", "b"], "label": [0, 0, 0.5]})
    of_classes = {"skip_empty": True, "task": "single-label"}
    assert "row 3 has label 0.5" in refusal(data.read, rows, **of_classes)
    lists = frame([[0, 1], [], [1, 0.5]])
    assert "row 3 has label 0.5" in refusal(data.read, lists)


# Several labels in one string

LISTS = "in multi-label data, give a list of labels for each text, [] for none"


def test_several_labels_in_one_string_are_refused():
    for mark in (",", ";", "|"):
        message = refusal(names, ["joy", f"joy{mark}fear", "fear", f"fear{mark} anger", "anger"])
        assert message == (
            f"texts: labels such as 'fear{mark} anger' are several labels in one string: give "
            f"label_separator={mark!r} to separate them, or labels_as='text' if each is one label"
        )
    assert len(names(["joy", "joy,fear", "fear"], labels_as="text")) == 3
    assert len(names(["Paris, France", "Lyon, France", "Rome, Italy"])) == 3


def test_several_labels_in_one_string_are_separated():
    rows = frame(["joy; fear", "fear", "", "anger;joy;"])
    read = data.read({"train": rows, "validation": rows}, label_separator=";")
    assert read.label_names == ("anger", "fear", "joy")
    assert read.splits["train"].labels.tolist() == [[0, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert names(["1|2", "2"], label_separator="|") == ("1", "2")
    assert "no label of texts contains it" in refusal(names, ["a", "b"], label_separator=";")
    assert "are not strings" in refusal(names, [0, 1], label_separator=";")
    assert "are not strings" in refusal(names, [["a"], ["b"]], label_separator=";")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["joy;fear", "", "joy"], "in multi-label data, give label_separator=';', with which an "
         "empty string is no label"),
        ([["joy"], None, ["fear"]], LISTS),
    ],
    ids=str,
)  # fmt: skip
def test_a_missing_list_of_labels_is_refused_with_what_to_give(labels, said):
    message = refusal(names, labels)
    assert "row 2 has no 'label'" in message and message.endswith(f"({said})")
    assert LISTS not in refusal(names, ["joy", "", "fear"])
