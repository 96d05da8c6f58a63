"""Columns, texts and labels checked; the published protocols; samples; fingerprints."""

import datetime
import hashlib
import json
import logging
from pathlib import Path

import conftest
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.model_selection import train_test_split

import spacelite
from spacelite.data import demo as demo_corpus
from spacelite.data import loading as data
from spacelite.errors import SpaceliteError
from spacelite.tasks import SINGLE_LABEL

# Texts that a careless reader turns into missing values, numbers, dates or two rows.
ODD_TEXTS = ["NA", "null", "007", "2020-01-01", "a, b", 'say "no",\nor not', "café 👍", " b "]


def write(folder: Path, **splits: dict) -> Path:
    """A folder of parquet files, one a split, as plain pyarrow writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, columns in splits.items():
        parquet.write_table(pa.table(columns), folder / f"{split}.parquet")
    return folder


def columns(labels: list, prefix: str = "text") -> dict:
    return {"text": [f"{prefix} {i}" for i in range(len(labels))], "label": labels}


def everywhere(folder: Path, labels: list) -> Path:
    """A data set with the same labels in all three splits."""
    return write(folder, **{split: columns(labels) for split in ("train", "validation", "test")})


def refusal(name: object, **options: object) -> str:
    return conftest.refusal(data.read, str(name), **options)


# Which columns


@pytest.mark.parametrize(
    ("header", "options", "expected"),
    [
        ("id,text,label", {}, ("text", "label")),
        ("id,Review,Sentiment", {}, ("Review", "Sentiment")),
        ("label,body", {}, ("body", "label")),  # the only ones left
        ("text,stars", {}, ("text", "stars")),
        ("text,sentence,label,class", {}, ("text", "label")),  # by rank of the usual names
        ("text,body,label", {"text_column": "body"}, ("body", "label")),
        ("text,label,mood", {"label_column": "mood"}, ("text", "mood")),
        ("text,body", {"label_column": "text"}, ("body", "text")),  # its usual name is taken
        ("label,mood", {"text_column": "label"}, ("label", "mood")),
        ("a,b,c", {"text_column": "c", "label_column": "a"}, ("c", "a")),
    ],
)
def test_columns_are_found_by_name_or_as_the_only_ones_or_named(
    tmp_path, header, options, expected
):
    names = header.split(",")
    rows = [{name: f"{name}{i % 2}" for name in names} for i in range(8)]
    for split in ("train", "validation", "test"):
        pd.DataFrame(rows).to_csv(tmp_path / f"{split}.csv", index=False)
    dataset = data.read(str(tmp_path), **options)
    text, label = expected
    assert dataset.splits["test"].texts == [f"{text}{i % 2}" for i in range(8)]
    assert dataset.label_names == (f"{label}0", f"{label}1")


def test_a_lone_text_column_is_recognised_by_its_type(tmp_path):
    rows = {"id": [1, 2, 3, 4], "body": ["a", "b", "c", "d"], "label": [0, 1, 0, 1]}
    folder = write(tmp_path / "d", train=rows, test=rows)
    assert data.read(str(folder)).splits["test"].texts == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("header", "options", "problem", "argument"),
    [
        ("foo,bar,baz", {}, "has no column that is clearly the text column", "text_column"),
        ("text,bar,baz", {}, "has no column that is clearly the label column", "label_column"),
        ("text", {}, "has no column that is clearly the label column", "label_column"),
        ("text,label", {"text_column": "body"}, "has no column 'body'", "text_column"),
        ("text,label", {"label_column": "mood"}, "has no column 'mood'", "label_column"),
    ],
)
def test_a_missing_column_is_refused_with_the_columns_there(
    tmp_path, header, options, problem, argument
):
    path = tmp_path / "d.csv"
    path.write_text(f"{header}\n{header}\n")
    message = refusal(path, **options)
    assert message.startswith(f"{path} {problem}")
    assert f"its columns are {', '.join(map(repr, header.split(',')))};" in message
    assert message.endswith(f"name one with {argument}")


def test_one_column_cannot_be_text_and_label(tmp_path):
    folder = everywhere(tmp_path, ["a", "b"])
    assert "both name 'text'" in refusal(folder, text_column="text", label_column="text")


# Labels


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        (["pos", "neg", "neg", "pos"], [1, 0, 0, 1], ("neg", "pos")),
        ([1, 2, 3, 4, 5], [0, 1, 2, 3, 4], ("1", "2", "3", "4", "5")),
        ([1.0, 3.0, 1.0], [0, 1, 0], ("1", "3")),
        ([True, False, False], [1, 0, 0], ("false", "true")),
        (["10", " 9", "10"], [1, 0, 1], ("9", "10")),  # numbers, as csv holds them
        (["1.0", "0.0", "+1"], [1, 0, 1], ("0", "1")),
        (
            ["9007199254740993", "9007199254740992"],
            [1, 0],
            ("9007199254740992", "9007199254740993"),
        ),
        (["1" + "0" * 30, "2"], [1, 0], ("2", "1" + "0" * 30)),
        (["10", "9", "none"], [0, 1, 2], ("10", "9", "none")),  # strings
        (["1.5", "2", "2"], [0, 1, 1], ("1.5", "2")),
    ],
)
def test_labels_are_numbered_in_sorted_order_and_keep_their_names(tmp_path, labels, numbers, names):
    dataset = data.read(str(everywhere(tmp_path, labels)))
    assert dataset.label_names == names
    for split in dataset.splits.values():
        assert split.labels.dtype == np.int64
        assert split.labels.tolist() == numbers


def test_labels_are_numbered_over_all_splits_together(tmp_path):
    folder = write(
        tmp_path, train=columns(["b", "d"]), validation=columns(["c"]), test=columns(["a", "d"])
    )
    dataset = data.read(str(folder))
    assert dataset.label_names == ("a", "b", "c", "d")
    assert {name: split.labels.tolist() for name, split in dataset.splits.items()} == {
        "train": [1, 3],
        "validation": [2],
        "test": [0, 3],
    }


def test_lists_of_labels_become_zeros_and_ones_per_label(tmp_path):
    folder = write(
        tmp_path,
        train=columns([["joy", "fear"], [], ["joy"]]),
        validation=columns([["anger"]]),
        test=columns([["fear", "fear", "anger"]]),
    )
    dataset = data.read(str(folder))
    assert dataset.label_names == ("anger", "fear", "joy")
    assert {name: split.labels.tolist() for name, split in dataset.splits.items()} == {
        "train": [[0, 1, 1], [0, 0, 0], [0, 0, 1]],
        "validation": [[1, 0, 0]],
        "test": [[1, 1, 0]],
    }
    assert all(split.labels.dtype == np.int64 for split in dataset.splits.values())
    limited = data.read(str(folder), limit=2)
    assert [len(split) for split in limited.splits.values()] == [2, 1, 1]
    assert limited.splits["train"].labels.shape == (2, 3)


@pytest.mark.parametrize("values", [(0, 1), (False, True), (0.0, 1.0)], ids=str)
def test_zeros_and_ones_for_each_label_are_columns(tmp_path, values):
    rows = [[values[i] for i in row] for row in ([0, 1, 0], [0, 0, 0], [1, 1, 0])]
    dataset = data.read(str(everywhere(tmp_path, rows)))
    assert dataset.label_names == ("0", "1", "2")
    assert dataset.splits["train"].labels.tolist() == [[0, 1, 0], [0, 0, 0], [1, 1, 0]]


def test_lists_of_class_labels_keep_their_names(tmp_path):
    from datasets import ClassLabel, Dataset, Features, List, Value

    names = ["joy", "fear", "anger"]
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=names))})
    rows = {"text": ["a", "b", "c"], "labels": [[0, 2], [], [1]]}
    for split in ("train", "validation", "test"):
        Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}.parquet")
    dataset = data.read(str(tmp_path))
    assert dataset.label_names == ("joy", "fear", "anger")
    assert dataset.splits["test"].labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_lists_in_some_splits_only_are_refused(tmp_path):
    folder = write(tmp_path / "d", train=columns([[0], [1]]), test=columns([0, 1]))
    assert "some rows have a list of labels, others a single one" in refusal(folder)


def test_a_folder_of_data_sets_is_looked_into_before_the_hub(tmp_path):
    everywhere(tmp_path / "hatexplain", [0, 1, 2])
    everywhere(tmp_path / "mine", ["a", "b"])
    for name in ("hatexplain", "hatexplain:2", "mine"):
        assert data.read(name, data_dir=tmp_path).name == name
    assert "cannot be reached" in refusal("imdb", data_dir=tmp_path)
    path = everywhere(tmp_path / "elsewhere", ["a", "b"])
    assert data.read(str(path), data_dir=tmp_path / "mine").name == "elsewhere"
    assert "data_dir" in refusal("imdb", data_dir=tmp_path / "absent")


def export(folder: Path, names: list[str], labels: list[int], splits: tuple[str, ...]) -> Path:
    from datasets import ClassLabel, Dataset, Features, Value

    folder.mkdir(exist_ok=True)
    features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
    for split in splits:
        Dataset.from_dict(columns(labels), features).to_parquet(folder / f"{split}.parquet")
    return folder


def test_label_names_exported_by_datasets_are_kept_in_their_order(tmp_path, caplog):
    splits = ("train", "validation", "test")
    folder = export(tmp_path / "d", ["zero", "never", "also"], [2, 0, 2], splits)
    dataset = data.read(str(folder))
    assert dataset.label_names == ("zero", "never", "also")
    assert dataset.splits["train"].labels.tolist() == [2, 0, 2]
    assert "no training example has label 'never'" in caplog.text


def test_splits_that_number_their_label_names_differently_are_refused(tmp_path):
    export(tmp_path / "d", ["neg", "pos"], [0, 1], ("train",))
    folder = export(tmp_path / "d", ["pos", "neg"], [0, 1], ("test",))
    assert "give all splits the same label names" in refusal(folder)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([-1, -1, -1], "train: row 1 has label -1, which marks a hidden or missing label (3 such"),
        ([0, None, 1, None], "rows 2 and 4 have no 'label'"),
        (["a", "b", " "], "row 3 has no 'label'"),
        ([0.0, 1.0, float("nan")], "row 3 has no 'label'"),
        ([0.0, float("inf")], "train: row 2 has label inf: classes need whole numbers or strings"),
        ([{"a": 0}, {"a": 1}], "column 'label' holds records, or lists in some rows only"),
        ([[], []], "no text has a label: name another column"),
        ([[0], [None]], "its lists hold records or missing values"),
        ([[[0]], [[1]]], "its lists hold records or missing values"),
        ([[3], [3, 3]], "holds a single class ('3'): a classifier needs at least two"),
        ([datetime.date(2020, 1, 1)] * 2, "classes need whole numbers or strings"),
        ([b"a", b"b"], "classes need whole numbers or strings"),
        ([3, 3, 3], "holds a single class ('3'): a classifier needs at least two"),
        (["a\nb"] * 3, r"holds a single class ('a\nb'): a classifier needs at least two"),
    ],
    ids=str,
)
def test_labels_that_cannot_be_trained_on_are_refused(tmp_path, labels, expected):
    assert expected in refusal(everywhere(tmp_path / "d", labels))


@pytest.mark.parametrize("other", [["a", "b"], [True, False]])
def test_labels_of_mixed_types_are_refused(tmp_path, other):
    folder = write(tmp_path / "d", train=columns([0, 1]), test=columns(other))
    kinds = ", ".join(sorted({"int", type(other[0]).__name__}))
    assert f"labels of mixed types ({kinds}): use one type" in refusal(folder)


def test_a_label_beyond_a_known_data_sets_is_refused(tmp_path):
    message = refusal(everywhere(tmp_path / "imdb", [0, 1, 2]))
    assert "imdb has label 2, but its labels are 0 to 1 (negative, positive)" in message


# Texts


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
def test_texts_are_kept_as_they_are(tmp_path, suffix):
    frame = pd.DataFrame({"text": ODD_TEXTS, "label": [0, 1] * 4})
    for split in ("train", "test"):
        path = tmp_path / f"{split}.{suffix}"
        if suffix == "csv":
            frame.to_csv(path, index=False)
        elif suffix == "parquet":
            frame.to_parquet(path)
        else:
            frame.to_json(path, orient="records", lines=suffix == "jsonl")
    assert data.read(str(tmp_path)).splits["test"].texts == ODD_TEXTS


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["a", "", "b", ""], "rows 2 and 4 have an empty 'text'"),
        (["a", "b", " \t\n\u3000"], "row 3 has an empty 'text'"),
        (["a", None, "b"], "row 2 has an empty 'text'"),
        ([1, 2], "rows 1 and 2 have a 'text' that is not a string"),
        ([b"a", b"b"], "rows 1 and 2 have a 'text' that is not a string"),
        ([["a"], ["b"]], "rows 1 and 2 have a 'text' that is not a string"),
        (["1", "2.5", "-3e5"], "every 'text' is a number"),
    ],
    ids=str,
)
def test_texts_that_cannot_be_embedded_are_refused(tmp_path, texts, expected):
    rows = {"text": texts, "label": [0, 1, 0, 1][: len(texts)]}
    folder = write(tmp_path / "d", train=columns([0, 1]), test=rows)
    message = refusal(folder)
    assert message.startswith(f"{folder / 'test'}:")
    assert expected in message
    assert "text_column" in message


def test_numbers_in_json_texts_are_refused(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": 7, "label": 0}\n{"text": 8, "label": 1}\n')
    assert "rows 1 and 2 have a 'text' that is not a string" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [("d.csv", "text,label\n"), ("d.json", "[]"), ("d.jsonl", "\n\n")],
)
def test_no_rows_is_refused(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    expected = f"{tmp_path / name} has no rows: it needs at least one text"
    assert refusal(tmp_path / name) == expected


def test_a_parquet_split_without_rows_is_refused(tmp_path):
    none = {"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())}
    folder = write(tmp_path / "d", train=columns([0, 1]), test=none)
    assert refusal(folder) == f"{folder / 'test'} has no rows: it needs at least one text"


@pytest.mark.parametrize("name", ["gone.csv", "./gone", "/gone/imdb", "~nobody-at-all/imdb"])
def test_a_path_that_leads_nowhere_is_not_looked_up_on_the_hub(name):
    assert refusal(name) == f"there is no file or folder {name}"


# The published protocols


def test_imdb_splits_its_test_reviews_as_scikit_learn_does(tmp_path, caplog):
    train, test = columns([0] * 10 + [1] * 11), columns([0] * 18 + [1] * 19, prefix="test")
    dataset = data.read(str(write(tmp_path / "imdb", train=train, test=test)))
    kept, validation, kept_labels, validation_labels = train_test_split(
        test["text"], test["label"], test_size=0.2, random_state=42
    )
    assert list(dataset.splits) == ["train", "validation", "test"]
    assert dataset.splits["train"].texts == train["text"]
    assert dataset.splits["test"].texts == kept
    assert dataset.splits["test"].labels.tolist() == kept_labels
    assert dataset.splits["validation"].texts == validation
    assert dataset.splits["validation"].labels.tolist() == validation_labels
    assert dataset.label_names == ("negative", "positive")
    assert not caplog.records


def test_imdb_with_a_validation_split_keeps_it(tmp_path):
    dataset = data.read(str(everywhere(tmp_path / "imdb", [0, 1, 1])))
    assert [len(split) for split in dataset.splits.values()] == [3, 3, 3]


@pytest.mark.parametrize(
    "labels", [[0, 1, 2, 1], ["hatespeech", "normal", "offensive", "normal"]], ids=["ints", "names"]
)
def test_a_local_hatexplain_with_three_and_with_two_labels(tmp_path, labels):
    folder = everywhere(tmp_path / "hatexplain", labels)
    three, two = data.read(str(folder)), data.read(f"{folder}:2")
    assert (three.name, two.name) == ("hatexplain", "hatexplain:2")
    assert three.label_names == ("hatespeech", "normal", "offensive")
    assert two.label_names == ("hateful or offensive", "normal")
    for split in ("train", "validation", "test"):
        assert three.splits[split].labels.tolist() == [0, 1, 2, 1]
        assert two.splits[split].labels.tolist() == [0, 1, 0, 1]
        assert two.splits[split].texts == three.splits[split].texts


def test_a_known_label_that_does_not_occur_keeps_its_number(tmp_path, caplog):
    dataset = data.read(str(everywhere(tmp_path / "hatexplain", ["offensive", "hatespeech"])))
    assert dataset.splits["train"].labels.tolist() == [2, 0]
    assert dataset.label_names == ("hatespeech", "normal", "offensive")
    assert "no training example has label 'normal'" in caplog.text


def test_the_demo_is_its_built_in_corpus():
    dataset = data.read("demo")
    assert list(dataset.splits) == ["train", "validation", "test"]
    for split, (texts, labels) in demo_corpus.splits().items():
        assert dataset.splits[split].texts == texts
        assert dataset.splits[split].labels.tolist() == labels
    assert dataset.label_names == demo_corpus.LABEL_NAMES


def number(text: str) -> float:
    """The number by which a text is drawn."""
    folded = text.replace(" ", "").lower()
    digest = hashlib.blake2b(f"42 {folded}".encode(), digest_size=8).hexdigest()
    return int(digest, 16) / 2**64


def divided(texts: list, labels: list, **options: object) -> dict:
    """The texts of each split."""
    read = data.read(texts=texts, labels=labels, **options)
    return {name: split.texts for name, split in read.splits.items()}


def test_other_data_give_a_tenth_of_train_for_validation_by_each_text_alone(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    rows = columns([0] * 100 + [1] * 60 + [2] * 40)
    dataset = data.read(str(write(tmp_path / "d", train=rows)))
    held_out = [text for text in rows["text"] if number(text) < 0.1]
    assert 10 < len(held_out) < 30
    assert "3 different ones, which become classes: task='regression'" in caplog.messages[0]
    assert caplog.messages[1:] == [
        f"d has no validation split: of its 200 training examples, {len(held_out)} are used for "
        "validation; each text alone decides (seed 42), so that added rows move none",
        "d has no test split: reports show validation metrics",
    ]
    assert list(dataset.splits) == ["train", "validation"]
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    assert validation.texts == held_out
    assert train.texts == [text for text in rows["text"] if text not in held_out]
    label_of = dict(zip(rows["text"], rows["label"], strict=True))
    for split in (train, validation):
        assert [label_of[text] for text in split.texts] == split.labels.tolist()


def test_rows_that_are_added_reordered_or_written_otherwise_move_no_text():
    texts, labels = [f"Text {i}" for i in range(300)], [0, 1, 2] * 100
    before = divided(texts, labels)
    order = np.random.RandomState(0).permutation(300)
    after = divided(
        [f"new {i}" for i in range(90)] + [f" TEXT  {i}" for i in order], [2, 1, 0] * 30 + labels
    )
    for split in before:
        old = [int(text.split()[1]) for text in after[split] if "TEXT" in text]
        assert sorted(old) == sorted(int(text.split()[1]) for text in before[split])
    assert {*after["validation"]} - {f" TEXT  {i}" for i in range(300)}, "new ones are drawn too"


def test_texts_that_repeat_stay_together():
    texts = [f"{way} {i % 60}" for i, way in enumerate(["a film", "A  film", "a FILM"] * 60)]
    splits = data.read(texts=texts, labels=[0, 1] * 90).splits
    train, validation = ({text.split()[-1] for text in splits[name].texts} for name in splits)
    assert train and validation and not train & validation


def test_every_label_keeps_a_training_text(caplog):
    texts = [f"text {i}" for i in range(100)]
    low = sorted(texts, key=number)[:4]
    assert number(low[3]) < 0.1
    # All texts of a label have numbers of validation: the highest stays.
    labels = ["rare" if text in low[1:4] else "usual" for text in texts]
    drawn = divided(texts, labels)
    assert {*low} - {*drawn["validation"]} == {low[3]} and low[3] in drawn["train"]
    assert "each text alone decides (seed 42), but for 1 that a label needs in train" in caplog.text
    # The same where a text has several labels: each of two labels has one text.
    several = [{low[0]: ["a", "b"], low[1]: ["b", "c"]}.get(text, ["b"]) for text in texts]
    drawn = divided(texts, several)
    assert {*low[:2]} <= {*drawn["train"]} and {*low[2:]} <= {*drawn["validation"]}


def test_no_split_is_empty():
    texts = [f"text {i}" for i in range(400)]
    middle = [text for text in texts if 0.15 < number(text) < 0.7][:7]
    in_order = sorted(middle, key=number)
    drawn = divided(middle, [0, 1, 1, 1, 1, 0, 0], test_fraction=0.2)
    assert drawn["validation"] == in_order[:1] and drawn["test"] == in_order[-1:]
    # The first one is the only one of its label: the next one goes.
    drawn = divided(middle, [int(text != in_order[0]) for text in middle])
    assert drawn["validation"] == in_order[1:2]


def test_a_test_split_is_drawn_on_request_and_moves_no_validation_text(tmp_path, caplog):
    texts, labels = [f"text {i}" for i in range(200)], [0, 1] * 100
    without, with_test = divided(texts, labels), divided(texts, labels, test_fraction=0.25)
    assert with_test["validation"] == without["validation"]
    assert with_test["test"] == [x for x in texts if number(x) >= 0.75]
    assert sum(map(len, with_test.values())) == 200
    of_each = [len(with_test[split]) for split in ("validation", "test")]
    assert (
        "texts has no validation and no test split: of its 200 training examples, {} are used for "
        "validation and {} are used for test; each text alone".format(*of_each)
        in caplog.text
    )
    own = write(tmp_path / "own", train=columns([0, 1] * 50), validation=columns([0, 1], "other"))
    dataset = data.read(str(own), test_fraction=0.5)
    assert [*dataset.splits] == ["train", "validation", "test"]
    assert dataset.splits["validation"].texts == ["other 0", "other 1"]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 0.9, float("nan"), "0.2", True, [0.2]])
def test_a_fraction_that_leaves_no_training_data_is_refused(fraction):
    said = conftest.refusal(
        spacelite.embed, texts=["a", "b"], labels=[0, 1], test_fraction=fraction
    )
    assert said == f"test_fraction={fraction!r}: give a number between 0 and 0.9"


def test_a_fraction_of_data_with_a_test_split_is_refused(tmp_path):
    for name in (everywhere(tmp_path / "d", [0, 1]), "demo"):
        assert refusal(name, test_fraction=0.2).endswith(
            "has a test split: leave test_fraction out"
        )


# A column that names the split


NAMED = ["Train", "test", "train", " dev ", "TRAIN", "train", "test", "dev"]
MIXED = pd.DataFrame(
    {"text": list("abcdefgh"), "label": [0, 1] * 4, "part": NAMED, "split": NAMED}
)  # fmt: skip
BY_SPLIT = {"train": ["a", "c", "e", "f"], "validation": ["d", "h"], "test": ["b", "g"]}
ROWS = {"train": [1, 3, 5, 6], "validation": [4, 8], "test": [2, 7]}


@pytest.mark.parametrize("column", ["part", "split"])
@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "json", "parquet", "frame"])
def test_a_column_names_the_split_of_each_row(form, column, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    frame, path = MIXED.drop(columns={"part": "split", "split": "part"}[column]), tmp_path / "d"
    path = path.with_suffix(f".{form}")
    if form in ("csv", "tsv"):
        frame.to_csv(path, index=False, sep="," if form == "csv" else "\t")
    elif form in ("json", "jsonl"):
        frame.to_json(path, orient="records", lines=form == "jsonl")
    elif form == "parquet":
        frame.to_parquet(path)
    given = {} if column == "split" else {"split_column": column}
    dataset = data.read(frame if form == "frame" else str(path), **given)
    assert {name: split.texts for name, split in dataset.splits.items()} == BY_SPLIT
    assert {name: split.sources.row.tolist() for name, split in dataset.splits.items()} == ROWS
    assert {file for split in dataset.splits.values() for file in split.sources.files} == {
        "texts" if form == "frame" else path.name
    }
    (said,) = (line for line in caplog.messages if "split" in line)
    origin = "texts" if form == "frame" else path
    assert said == (
        f"{origin}: column {column!r} names the split of each row: 4 train, 2 validation, 2 test"
    )
    # The same data as a folder of files, in whatever form.
    folder = {
        name: columns([0, 1] * 4) | {"text": list("abcdefgh"), "label": [0, 1] * 4}
        for name in ("train", "validation", "test")
    }
    for name, rows in folder.items():
        at = [row - 1 for row in ROWS[name]]
        folder[name] = {key: [values[i] for i in at] for key, values in rows.items()}
    same = data.read(str(write(tmp_path / "folder", **folder)))
    assert same.fingerprint == dataset.fingerprint


def test_a_split_column_of_other_values_is_not_used_and_said(tmp_path, caplog):
    rows = columns([0, 1] * 20) | {"split": ["left", "right"] * 20}
    pd.DataFrame(rows).to_csv(tmp_path / "d.csv", index=False)
    for given in (str(tmp_path / "d.csv"), pd.DataFrame(rows)):
        caplog.clear()
        assert sum(map(len, data.read(given).splits.values())) == 40
        assert "column 'split' names no splits (one value is 'left'): it is not used" in caplog.text
    # Chosen for something else, it is that.
    dataset = data.read(str(tmp_path / "d.csv"), label_column="split")
    assert dataset.label_names == ("left", "right")


def test_rows_of_unknown_splits_are_refused_by_their_numbers(tmp_path):
    names = ["train"] * 5 + ["tets", "test", "", "train"]
    frame = pd.DataFrame(columns([0, 1] * 4 + [0]) | {"split": names})
    path = tmp_path / "d.csv"
    frame.to_csv(path, index=False)
    said = (
        "{}: rows 6 and 8 have a 'split' that is no split, such as 'tets': correct or remove them, "
        "or name another column with split_column (splits are train, validation, test; valid, val, "
        "dev mean validation)"
    )
    assert refusal(path) == said.format(path)
    assert conftest.refusal(data.read, frame) == said.format("texts")
    assert "rows 1, 2, 3 and 6 more have a 'label' that" in refusal(path, split_column="label")


def test_messages_about_a_divided_file_name_its_rows(tmp_path):
    frame = MIXED.drop(columns="part")
    path = tmp_path / "d.csv"
    frame.assign(text=["a", "b", "c", "d", "e", "f", " ", "h"]).to_csv(path, index=False)
    assert refusal(path).startswith(f"{path}: row 7 has an empty 'text'")
    frame.assign(label=[0, 1, 0, 1, 0, 1, 0, None]).to_parquet(tmp_path / "d.parquet")
    assert "d.parquet: row 8 has no 'label'" in refusal(tmp_path / "d.parquet")
    frame.assign(label=[0, 1, 1, 1, 0, 1, -1, 0]).to_csv(path, index=False)
    assert "d test: row 7 has label -1" in refusal(path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"split_column": "fold"}, "has no column 'fold': its columns are 'text', 'label', 'part'"),
        ({"split_column": "part", "text_column": "part"}, "split_column and text_column name 'par"),
        ({"split_column": "part", "test_fraction": 0.5}, "has a test split: leave test_fraction"),
    ],
)
def test_split_columns_that_cannot_be_used(options, expected, tmp_path):
    MIXED.to_csv(tmp_path / "d.csv", index=False)
    assert expected in refusal(tmp_path / "d.csv", **options)


def test_data_that_come_in_splits_have_no_split_column(tmp_path):
    folder = everywhere(tmp_path / "d", [0, 1])
    frames = {"train": MIXED, "test": MIXED}
    for given, name in ((str(folder), "d"), (frames, "texts")):
        said = conftest.refusal(data.read, given, split_column="part")
        assert said.startswith(f"split_column=part: {name} is no single table: a file or a Data")
    said = conftest.refusal(data.read, "demo", split_column="part")
    assert said.startswith("split_column=part has no effect on demo, a built-in data set")
    test_only = MIXED.assign(split="test")
    assert "has no train split, only test: add one" in conftest.refusal(data.read, test_only)
    assert [*data.read(test_only, training=False).splits] == ["test"]


def test_complete_data_give_no_warning(reviews, caplog):
    assert [len(split) for split in data.read(str(reviews)).splits.values()] == [60, 20, 20]
    assert not caplog.records


@pytest.mark.parametrize("labels", [[0], [0, 1]])
def test_too_few_examples_to_give_one_for_validation(tmp_path, labels):
    assert refusal(write(tmp_path / "d", train=columns(labels))) == (
        "d has too few different training texts to draw a validation split from them: a label must "
        "keep one; add texts, or give a validation split"
    )


# Samples


@pytest.mark.parametrize("seed", range(40))
def test_a_sample_holds_every_label_in_proportion(seed):
    random = np.random.RandomState(seed)
    classes = random.randint(2, 12)
    labels = random.choice(classes, random.randint(1, 300), p=random.dirichlet([0.3] * classes))
    size = random.randint(1, len(labels) + 1)
    rows = data.stratified_sample(labels, SINGLE_LABEL, size)
    assert len(rows) == size
    assert (np.diff(rows) > 0).all()
    share = np.bincount(labels, minlength=classes) * size / len(labels)
    assert (np.abs(np.bincount(labels[rows], minlength=classes) - share) < 1).all()
    assert (rows == data.stratified_sample(labels, SINGLE_LABEL, size)).all()


def test_a_sample_is_drawn_from_everywhere():
    labels = np.arange(1000) % 2
    rows = data.stratified_sample(labels, SINGLE_LABEL, 100)
    assert set(rows) != set(range(100))
    assert (np.histogram(rows, bins=4, range=(0, 1000))[0] > 10).all()


def test_labels_that_occur_once_can_be_sampled():
    labels = np.arange(50)
    for size in (1, 7, 49, 50):
        assert len(data.stratified_sample(labels, SINGLE_LABEL, size)) == size


def test_limit_samples_every_split(tmp_path, reviews):
    whole, sample = data.read(str(reviews)), data.read(str(reviews), limit=12)
    assert sample.label_names == whole.label_names
    for name, split in sample.splits.items():
        everything = list(zip(whole.splits[name].texts, whole.splits[name].labels, strict=True))
        assert len(split) == 12
        assert split.texts != whole.splits[name].texts[:12]
        rows = [everything.index(pair) for pair in zip(split.texts, split.labels, strict=True)]
        assert rows == sorted(rows)
    assert sample.fingerprint == data.read(str(reviews), limit=12).fingerprint
    assert sample.fingerprint != whole.fingerprint


def test_a_limit_beyond_the_split_takes_everything(reviews):
    limited = data.read(str(reviews), limit=30)
    assert [len(split) for split in limited.splits.values()] == [30, 20, 20]
    assert data.read(str(reviews), limit=1000).fingerprint == data.read(str(reviews)).fingerprint


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (0, "limit=0: give at least one example per split"),
        (-5, "limit=-5: give at least one example per split"),
        (1, "single class ('1') with limit=1"),
    ],
)
def test_a_limit_that_leaves_nothing_to_train_on_is_refused(tmp_path, limit, expected):
    assert expected in refusal(everywhere(tmp_path / "d", [0, 1, 1]), limit=limit)


# Fingerprints

BASE = {"train": (["ab", "c", "de"], [0, 1, 1]), "test": (["f", "g"], [0, 1])}


def fingerprint(splits: dict) -> str:
    read = {
        name: data.Split(list(texts), np.array(labels, np.int64))
        for name, (texts, labels) in splits.items()
    }
    return data.TextDataset("any", read, ("0", "1")).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"train": (["aB", "c", "de"], [0, 1, 1])},
        {"train": (["a", "bc", "de"], [0, 1, 1])},  # the same letters, cut elsewhere
        {"train": (["ab", "c", "de"], [0, 0, 1])},
        {"train": (["c", "ab", "de"], [1, 0, 1])},
        {"train": (["ab", "c"], [0, 1]), "test": (["de", "f", "g"], [1, 0, 1])},
        {"train": BASE["test"], "test": BASE["train"]},
        {"test": (["f", "g "], [0, 1])},
        {"test": (["f", "g", "g"], [0, 1, 1])},
    ],
    ids=str,
)
def test_any_change_of_texts_labels_order_or_splits_changes_the_fingerprint(change):
    assert fingerprint(BASE | change) != fingerprint(BASE)


def test_the_split_names_count():
    renamed = {"train": BASE["train"], "validation": BASE["test"]}
    assert fingerprint(renamed) != fingerprint(BASE)


def test_the_same_content_has_one_fingerprint_wherever_it_is_read_from(tmp_path):
    frame = pd.DataFrame({"text": ODD_TEXTS, "label": [3, 4] * 4})
    extra = frame.assign(id=range(8))[["id", "label", "text"]]
    rows = [
        {"review": text, "class": label} for text, label in zip(ODD_TEXTS, [3, 4] * 4, strict=True)
    ]
    for folder in ("csv", "parquet", "columns", "jsonl", "shards/data"):
        (tmp_path / folder).mkdir(parents=True)
    for split in ("train", "validation"):
        frame.to_csv(tmp_path / "csv" / f"{split}.csv", index=False)
        frame.to_parquet(tmp_path / "parquet" / f"{split}.parquet")
        extra.to_csv(tmp_path / "columns" / f"{split}.csv", index=False)
        (tmp_path / "jsonl" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        for part in (0, 1):
            name = f"{split}-0000{part}-of-00002.parquet"
            frame[part * 4 : part * 4 + 4].to_parquet(tmp_path / "shards" / "data" / name)
    sources = ("csv", "parquet", "columns", "jsonl", "shards")
    found = {data.read(str(tmp_path / source)).fingerprint for source in sources}
    assert len(found) == 1
    (tmp_path / "csv" / "validation.csv").unlink()
    assert data.read(str(tmp_path / "csv")).fingerprint not in found


def test_label_strings_are_stripped_and_numbers_in_quotes_are_numbers(tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    (folder / "train.jsonl").write_text(
        "\n".join(json.dumps({"text": t, "label": y}) for t, y in [("a", 1), ("b", 0), ("c", 1)])
    )
    (folder / "validation.csv").write_text("text,label\nd, 1\ne,0\n")
    dataset = data.read(str(folder))
    assert dataset.splits["validation"].labels.tolist() == [1, 0]
    (tmp_path / "x.csv").write_text("text,label\na,pos\nb, pos\nc,neg\nd,neg \ne,pos\n")
    assert data.read(str(tmp_path / "x.csv")).label_names == ("neg", "pos")


def test_a_missing_part_of_a_split_is_noticed(tmp_path):
    for name in ("train-00000-of-00002.csv", "train-00000-of-00001-0a1b2c3d.csv"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text("text,label\na,1\nb,0\nc,1\n")
    with pytest.raises(SpaceliteError, match="holds 1 of the 2 parts of train: fetch the rest"):
        data.read(str(tmp_path / "train-00000-of-00002.csv"))
    assert len(data.read(str(tmp_path / "train-00000-of-00001-0a1b2c3d.csv")).splits) == 2


def test_two_labels_need_the_three_of_hatexplain(tmp_path):
    folder = tmp_path / "hatexplain"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\na,abusive\nb,hate\nc,normal\nd,normal\n")
    with pytest.raises(SpaceliteError, match="its labels are abusive, hate, normal, not hates"):
        data.read(f"{folder}:2")
