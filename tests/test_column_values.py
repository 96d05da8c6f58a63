"""Groups and weights of training examples from columns of the data that were embedded, which are
read again: against the files, and in training and cross-validation against scikit-learn."""

import csv
import json
import zlib

import numpy as np
import pandas as pd
import pytest
from conftest import invoke, refusal, texts
from sklearn.linear_model import LogisticRegression

import spacelite
from spacelite.api import columns
from spacelite.cache import texts as cached_texts
from spacelite.cache.store import side_file
from spacelite.data.loading import positions
from spacelite.data.splits import Sources
from spacelite.training import loop
from spacelite.training.config import TrainingConfig

QUIET = {"device": "cpu", "progress": False}


def rows(count, seed=0):
    """Texts with a label, an author and a weight each; text 7 stands there twice."""
    own = texts(count, seed=seed, longest=12)
    own[-1] = own[7]
    return [
        {
            "author": f"author {number % 9}",
            "text": text,
            "note": f"note {number}",
            "label": (text.count("good") + number) % 2,
            "weight": round(0.25 * (number % 5), 2),
        }
        for number, text in enumerate(own)
    ]


def write(path, content):
    if path.suffix == ".parquet":
        pd.DataFrame(content).to_parquet(path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            maker = csv.DictWriter(
                file, content[0], delimiter="\t" if path.suffix == ".tsv" else ","
            )
            maker.writeheader()
            maker.writerows(content)
    else:
        path.write_text("\n".join(map(json.dumps, content)) + "\n")
    return path


@pytest.fixture(scope="module")
def content():
    return rows(80)


@pytest.fixture(scope="module")
def made(tmp_path_factory, bert, content):
    """A cache of one csv file, a tenth of whose rows is the validation split."""
    folder = tmp_path_factory.mktemp("column-values")
    path = write(folder / "posts.csv", content)
    cache = spacelite.embed(str(path), backbone=str(bert), cache_dir=folder / "cache", **QUIET)
    with cache.open() as opened:
        _, numbers = cached_texts.files_and_rows(opened, "train")
    return cache, path, [content[number - 1] for number in numbers]


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet", "folder", "limit"])
def test_values_are_those_of_the_rows_that_were_embedded(form, tmp_path, bert, content):
    options = {"backbone": str(bert), "cache_dir": tmp_path / "cache", **QUIET}
    if form == "folder":
        data = tmp_path / "posts"
        data.mkdir()
        write(data / "validation.parquet", rows(12, seed=4))
        for part, own in enumerate((content[:50], content[50:])):
            write(data / f"train-0000{part}-of-00002.parquet", own)
    else:
        suffix = "jsonl" if form == "limit" else form
        data = write(tmp_path / f"posts.{suffix}", content)
    cache = spacelite.embed(str(data), limit=40 if form == "limit" else None, **options)
    with cache.open() as opened:
        written = cached_texts.read(opened, "train")
        weights = columns.weights(opened, "weight")
        groups = columns.groups(opened, "author")
        values, sources = columns.column_values(opened, "note", "groups")
    assert len(values) == len(weights.values) == len(groups) == len(sources)
    if form == "limit":
        assert len(values) == 40
    for number, note in enumerate(values):
        row = content[int(note.removeprefix("note "))]
        assert written.text(number) == row["text"]
        assert weights.values[number] == row["weight"] and groups[number] == row["author"]
        assert str(sources[number]).startswith(("posts.", "train-0000"))
    assert len(set(values)) == len(values), "each row once, though a text stands there twice"
    crc = zlib.crc32(weights.values.astype("<f8").tobytes())
    assert weights.name == f"weight ({crc:08x})"


def test_positions_of_rows():
    there = Sources(("b", "a"), np.array([0, 0, 1, 1]), np.array([1, 3, 2, 1]))
    wanted = Sources(("a", "b", "c"), np.array([0, 1, 1, 2, 0]), np.array([2, 1, 2, 1, 1]))
    assert positions(there, wanted).tolist() == [2, 0, -1, -1, 3]
    empty = there.take(np.array([], np.int64))
    assert positions(empty, wanted).tolist() == [-1] * 5
    assert positions(there, empty).tolist() == []


def test_known_data_sets_are_checked_by_the_texts_that_are_made_of_them(tmp_path, bert):
    """HateXplain as its hub has it: tokens and annotators, and posts without a majority."""
    data = tmp_path / "hatexplain"
    data.mkdir()
    for seed, split in enumerate(("train", "validation")):
        content = [
            {
                "id": f"{split} {number}",
                "post_tokens": text.split(),
                "annotators": {"label": [number % 3] * 2 + [(number + number % 4) % 3]}
                if number % 5
                else {"label": [0, 1, 2]},
            }
            for number, text in enumerate(texts(40, seed=seed))
        ]
        write(data / f"{split}.jsonl", content)
    cache = spacelite.embed(str(data), backbone=str(bert), cache_dir=tmp_path, **QUIET)
    with cache.open() as opened:
        groups = columns.groups(opened, "id")
    assert groups.tolist() == [f"train {number}" for number in range(40) if number % 5]


def test_training_with_a_column_is_training_with_its_weights(made):
    cache, _, own = made
    weights = np.array([row["weight"] for row in own])
    options = {"head": ["linear", "logreg"], "pooling": "mean", "epochs": 3, **QUIET}
    runs = spacelite.train(cache, sample_weight="weight", **options)
    configs = [run.record.head for run in runs]
    with cache.open() as opened:
        expected = loop.train(opened, configs, TrainingConfig(epochs=3), weights=weights)
    for run, one in zip(runs, expected, strict=True):
        for name, value in one.parameters.items():
            np.testing.assert_allclose(run.run.parameters[name], value.numpy(), atol=1e-6)
        assert run.record.training.sample_weight.startswith("weight (")
        assert spacelite.load_run(run.id, cache.cache_dir).record == run.record
    plain = spacelite.train(cache, **options)
    given = spacelite.train(cache, sample_weight=weights, **options)
    doubled = spacelite.train(cache, sample_weight=pd.Series(2 * weights), **options)
    ids = {run.id for each in (runs, plain, given, doubled) for run in each}
    assert len(ids) == 8, "other weights are other runs"
    for run, one in zip(given, runs, strict=True):
        assert run.metrics == one.metrics
        assert run.record.training.sample_weight == one.record.training.sample_weight.replace(
            "weight", "given"
        )
    assert "weights: weight (" in spacelite.report([*runs, *plain], progress=False).text()


def test_without_weights_nothing_changes():
    plain = TrainingConfig()
    assert "sample_weight" not in {**plain.hashed(), **plain.saved()}
    assert TrainingConfig(sample_weight="w (1)").hashed()["sample_weight"] == "w (1)"
    assert TrainingConfig(sample_weight="w (1)").for_fitting().sample_weight == "w (1)"


def test_baselines_have_the_same_weights(made, with_baselines):
    cache, _, _ = made
    runs = spacelite.train(cache, head="linear", epochs=1, sample_weight="weight", **QUIET)
    assert {run.record.head.kind for run in runs} == {"linear", "tfidf", "logreg"}
    assert len({run.record.training.sample_weight for run in runs}) == 1


def test_cross_validation_in_groups_of_a_column(made):
    cache, _, own = made
    options = {"head": "logreg", "folds": 3, "baselines": False, **QUIET}
    found = spacelite.cross_validate(cache, groups="author", **options)
    authors = [row["author"] for row in own]
    expected = spacelite.cross_validate(cache, groups=authors, **options)
    assert np.array_equal(found.result.fold, expected.result.fold)
    for author in set(authors):
        assert len(set(found.result.fold[0][np.array(authors) == author])) == 1


def test_cross_validation_with_weights_against_scikit_learn(made):
    cache, _, own = made
    weights = np.array([row["weight"] for row in own])
    found = spacelite.cross_validate(
        cache, head=["logreg", "linear"], pooling="mean", C=0.5, folds=3, epochs=2, baselines=False,
        sample_weight="weight", **QUIET,
    )  # fmt: skip
    with cache.open() as opened:
        split = opened.splits["train"]
        hidden, labels = split.read_hidden(0, len(split)).astype(np.float64), split.labels
        bounds = zip(split.offsets[:-1], split.offsets[1:], strict=True)
        means = np.array([hidden[low:high].mean(axis=0) for low, high in bounds])
    (system,) = [one for one in found.result.systems if one.head.kind == "logreg"]
    for fold in range(3):
        held = found.result.fold[0] == fold
        model = LogisticRegression(C=0.5, max_iter=5000, tol=1e-8)
        model.fit(means[~held], labels[~held], weights[~held])
        logits = system.logits[0, held]
        expected = model.decision_function(means[held])
        np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-2)
        # Figures count each example once.
        accuracy = (logits.argmax(axis=1) == labels[held]).mean()
        assert system.figures["accuracy"][0, fold] == pytest.approx(accuracy)
    assert found.as_json()["sample_weight"].startswith("weight (")
    assert "count each held-out example once" in str(found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda own: [*own[:4], {**own[4], "text": "another"}, *own[5:]],
         "posts.csv, row 5 does not hold the text that was embedded: the file has changed since"),
        (lambda own: own[::-1], "row 1 (and 7"),
        (lambda own: own[:-5], "does not hold the text that was embedded"),
        (lambda own: [{**row, "authors": row["author"]} for row in own],
         None),
        (lambda own: [{key: row[key] for key in ("text", "label", "weight")} for row in own],
         "has no such column: choose from text, label, weight"),
        (lambda own: [{("Author" if key == "author" else key): row[key] for key in row}
                      for row in own], "(did you mean Author?)"),
        (lambda own: [{**row, "author": " " if row is own[9] else row["author"]} for row in own],
         "posts.csv, row 10 has no group: every training example needs one"),
    ],
    ids=["text", "order", "shorter", "more columns", "no column", "near", "missing"],
)  # fmt: skip
def test_files_that_have_changed_since(tmp_path, bert, content, change, said):
    # With a validation file, all rows of the other are training examples.
    data = tmp_path / "posts"
    data.mkdir()
    write(data / "validation.csv", rows(12, seed=4))
    write(data / "train.csv", content)
    options = {"backbone": str(bert), "cache_dir": tmp_path, **QUIET}
    cache = spacelite.embed(str(data), **options)
    write(data / "train.csv", change(content))
    with cache.open() as opened:
        if said is None:
            assert len(columns.groups(opened, "author")) == 80
            return
        message = refusal(columns.groups, opened, "author")
    assert message.startswith("groups=author: ")
    assert said.replace("posts.csv", "train.csv") in message


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "is missing: a weight is a number of at least 0"),
        ("-1", "is -1: a weight is"),
        ("inf", "is inf: a weight is"),
        ("nan", "is nan: a weight is"),
        ("much", "is 'much', not a number: a weight is"),
    ],
)
def test_values_that_are_no_weights(tmp_path, bert, content, value, said):
    data = write(tmp_path / "posts.csv", [
        {**row, "weight": value if number % 40 == 3 else 1} for number, row in enumerate(content)
    ])  # fmt: skip
    cache = spacelite.embed(str(data), backbone=str(bert), cache_dir=tmp_path, **QUIET)
    message = refusal(spacelite.train, cache, head="linear", sample_weight="weight", **QUIET)
    assert message.startswith("sample_weight=weight: posts.csv, row ")
    assert said in message


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([1.0, 2.0], "sample_weight: there are 77 training examples (of 80 rows of data) and 2 v"),
        ([0.0] * 77, "sample_weight: all are 0, so there is nothing to learn"),
        ([1.0] * 76 + [None], "sample_weight: value 77 is missing"),
        ([1.0] * 76 + [True], "sample_weight: value 77 is True, not a number"),
        ([1.0] * 76 + [-0.5], "sample_weight: value 77 is -0.5: a weight is"),
        ([1.0] * 76 + ["x"], "sample_weight: value 77 is 'x', not a number"),
        ([1.0] * 76 + [10**400], "not a number"),
        (np.ones((77, 2)), "not a number"),
        (3, "sample_weight=3: give a list with the weight of each row or training example, or"),
        ({"a": 1}, "sample_weight={'a': 1}: give a list"),
        ("", "sample_weight='': give a list"),
        ("nowhere", "sample_weight=nowhere: "),
        ([1.0] * 76 + [pd.NA], "sample_weight: value 77 is missing"),
    ],
    ids=lambda value: str(value)[-20:],
)
def test_lists_that_are_no_weights(made, given, said):
    for call in (spacelite.train, spacelite.cross_validate):
        assert said in refusal(call, made[0], head="linear", sample_weight=given, **QUIET)


def test_weights_that_leave_a_single_label(made):
    cache, _, own = made
    single = [float(row["label"]) for row in own]
    for call in (spacelite.train, spacelite.cross_validate):
        message = refusal(call, cache, head="logreg", sample_weight=single, **QUIET)
        assert "all examples of more than 0 have the same label" in message
    few = [1.0 if number in (0, 1, 2, 3) else 0.0 for number in range(len(own))]
    message = refusal(
        spacelite.cross_validate, cache, head="logreg", sample_weight=few, folds=20, **QUIET
    )
    assert "folds=20" in message or "use fewer folds" in message


def test_data_that_were_not_read_from_a_file(tmp_path, bert, content):
    options = {"backbone": str(bert), "cache_dir": tmp_path, **QUIET}
    for given in (pd.DataFrame(content), {"train": pd.DataFrame(content)}):
        cache = spacelite.embed(given, **options)
        message = refusal(spacelite.cross_validate, cache, groups="author", folds=3, **QUIET)
        assert message == (
            f"groups=author: cache {cache.name} was not embedded from a file: give the values "
            "as a list in Python, one for each row of the data or each training example"
        )


@pytest.mark.parametrize("form", ["frame", "lists", "limit", "empty", "split", "file"])
def test_values_of_all_rows(form, tmp_path, bert, content):
    """A value for each row of what was embedded, also where some rows are no training examples."""
    frame = pd.DataFrame(content).set_index(pd.Index(range(100, 180)))
    frame["weight"] = frame["weight"] + 0.1
    options, data = {}, {"dataset": frame}
    if form == "lists":
        data = {"texts": frame["text"], "labels": frame["label"]}
    elif form == "limit":
        options = {"limit": 30}
    elif form == "empty":  # the last row, too
        frame.loc[[100, 179], "text"] = ""
        options = {"skip_empty": True}
    elif form == "split":
        frame["split"] = ["test" if number % 3 else "train" for number in range(80)]
    elif form == "file":
        data = {"dataset": str(write(tmp_path / "posts.jsonl", content))}
    cache = spacelite.embed(
        **data, **options, backbone=str(bert), cache_dir=tmp_path / "cache", **QUIET
    )
    with cache.open() as opened:
        written = cached_texts.read(opened, "train")
        own = frame.iloc[[row - 1 for row in written.sources.row.tolist()]]
        assert [written.text(number) for number in range(len(own))] == list(own["text"])
        assert len(own) < 80
        for of_rows, of_examples in (
            (frame["author"], own["author"]),
            (list(frame["author"]), own["author"].to_numpy()),
        ):
            for given in (of_rows, of_examples):
                assert columns.groups(opened, given).tolist() == list(own["author"])
        for given in (frame["weight"], own["weight"].tolist()):
            assert columns.weights(opened, given).values.tolist() == list(own["weight"])
        for call in (columns.groups, columns.weights):
            said = refusal(call, opened, [1.0] * 81)
            assert f"{len(own)} training examples (of 80 rows of data) and 81 values: give" in said
        row = int(written.sources.row[0])
        missing = [None if number + 1 == row else 1.0 for number in range(80)]
        assert f", row {row} is missing: a weight" in refusal(columns.weights, opened, missing)
        assert f", row {row} has no group: every" in refusal(columns.groups, opened, missing)
    found = spacelite.cross_validate(
        cache, groups=frame["author"], sample_weight=frame["weight"], head="logreg", folds=2,
        baselines=False, **QUIET,
    )  # fmt: skip
    for author in set(own["author"]):
        assert len({*found.result.fold[0][(own["author"] == author).to_numpy()]}) == 1
    (run,) = spacelite.train(cache, sample_weight=frame["weight"], head="logreg", **QUIET)
    assert run.settings["sample_weight"].startswith("given (")


def test_a_cache_that_does_not_know_the_number_of_rows(tmp_path, bert, content):
    """As one of an older version: `embed` again adds it."""
    options = {"backbone": str(bert), "cache_dir": tmp_path, **QUIET}
    cache = spacelite.embed(pd.DataFrame(content), **options)
    own = side_file(cache.path, "texts")
    with np.load(own) as arrays:
        np.savez(own, **{name: of for name, of in arrays.items() if not name.endswith("/sizes")})
    with cache.open() as opened:
        assert "77 training examples and 80 values" in refusal(columns.weights, opened, [1.0] * 80)
    assert spacelite.embed(pd.DataFrame(content), **options).hit
    with cache.open() as opened:
        assert len(columns.weights(opened, [1.0] * 80).values) == 77


def test_a_file_that_is_gone_and_one_that_has_moved(tmp_path, bert, content):
    options = {"backbone": str(bert), "cache_dir": tmp_path, **QUIET}
    path = write(tmp_path / "posts.csv", content)
    cache = spacelite.embed(str(path), **options)
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "posts.csv")
    message = refusal(spacelite.train, cache, head="linear", sample_weight="weight", **QUIET)
    assert f"{path}, from which posts was embedded, is not there" in message
    again = spacelite.embed(str(moved), **options)
    assert again.hit and again.path == cache.path
    spacelite.train(cache, head="logreg", sample_weight="weight", **QUIET)
    assert cached_texts.recorded(cache.path, "data") == str(moved)


def test_caches_of_older_versions_say_what_to_do(tmp_path, bert, content):
    options = {"backbone": str(bert), "cache_dir": tmp_path, **QUIET}
    path = write(tmp_path / "posts.csv", content)
    cache = spacelite.embed(str(path), **options)
    own = side_file(cache.path, "texts")
    with np.load(own) as arrays:
        older = {name: value for name, value in arrays.items() if name != "data"}
    np.savez(own, **older)
    message = refusal(spacelite.train, cache, head="linear", sample_weight="weight", **QUIET)
    assert "does not say where its data are: run its embed command again" in message
    assert spacelite.embed(str(path), **options).hit
    spacelite.train(cache, head="logreg", sample_weight="weight", **QUIET)
    own.unlink()
    message = refusal(spacelite.train, cache, head="linear", sample_weight="weight", **QUIET)
    assert "does not say where its data are" in message


def test_the_commands_name_columns(made, tmp_path):
    cache, path, own = made
    there = ["--cache", str(cache.path), "--cache-dir", str(tmp_path), "--head", "logreg"]

    def spacelite_command(*arguments):
        return invoke(*arguments)

    done = spacelite_command("train", *there, "--sample-weight-column", "weight", "--json")
    assert done.exit_code == 0, done.output
    (run,) = json.loads(done.stdout)
    crc = zlib.crc32(np.array([row["weight"] for row in own]).astype("<f8").tobytes())
    assert run["settings"]["sample_weight"] == f"weight ({crc:08x})"
    done = spacelite_command("cv", *there, "--folds", "3", "--group-column", "author",
                             "--sample-weight-column", "weight", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["sample_weight"] == f"weight ({crc:08x})"
    refused = spacelite_command("cv", *there, "--group-column", "writer")
    assert refused.exit_code == 1
    assert f"--group-column writer: {path} has no such column" in refused.stderr
    refused = spacelite_command("train", *there, "--sample-weight-column", "author")
    assert "--sample-weight-column author: posts.csv, row " in refused.stderr


def test_columns_are_read_with_the_quoting_of_the_data(tmp_path, bert, content):
    path = tmp_path / "posts.tsv"
    lines = [
        f'"{row["text"]}" ({row["author"]})\t{row["label"]}\t{row["weight"]}' for row in content
    ]
    path.write_text("\n".join(["text\tlabel\tweight", *lines]) + "\n")
    options = {"backbone": str(bert), "cache_dir": tmp_path / "cache", **QUIET}
    cache = spacelite.embed(str(path), quoting="none", **options)
    with cache.open() as opened:
        weights = columns.weights(opened, "weight")
        _, numbers = cached_texts.files_and_rows(opened, "train")
        assert cached_texts.read(opened, "train").text(0).startswith('"')
    assert weights.values.tolist() == [content[number - 1]["weight"] for number in numbers]
