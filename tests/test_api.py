"""Python: the functions, what they take, and how what they return prints and shows itself."""

import dataclasses
import json
import re
import time
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
from conftest import invoke, refusal, texts, write_dataset

import spacelite
from spacelite.api.results import TextPredictions
from spacelite.backbones.model import Backbone
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL

TEXTS = texts(40, seed=3)
LABELS = ["good" if text.count("good") % 2 else "bad" for text in TEXTS]


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def embed(bert, cache_dir):
    """`embed` with the tiny backbone."""

    def call(dataset=None, **options):
        options = {"cache_dir": cache_dir, "device": "cpu", "progress": False, **options}
        return spacelite.embed(dataset, backbone=str(bert), **options)

    return call


@pytest.fixture(scope="module")
def cache(embed, reviews):
    return embed(str(reviews))


@pytest.fixture(scope="module")
def runs(cache):
    return spacelite.train(
        cache, inter=[0, 0.2], intra=[0, 0.001], seeds=2, epochs=3, batch_size=16,
        learning_rate=0.02, progress=False,
    )  # fmt: skip


@pytest.fixture
def forward_passes(monkeypatch):
    """How many batches pass through a backbone during a test."""
    calls = []
    compute = Backbone.hidden_states

    def counted(self, *args, **kwargs):
        calls.append(1)
        return compute(self, *args, **kwargs)

    monkeypatch.setattr(Backbone, "hidden_states", counted)
    return calls


# What embed takes.


def columns(cache):
    """Everything that a cache holds, by split."""
    with cache.open() as opened:
        return {
            name: [split.read_hidden(0, len(split)).tolist(), split.labels.tolist(),
                   split.read_token_ids().tolist(), opened.label_names]
            for name, split in opened.splits.items()
        }  # fmt: skip


def test_the_same_texts_hit_the_same_cache_however_they_are_given(embed, forward_passes, tmp_path):
    import datasets

    first = embed(texts=TEXTS, labels=LABELS, name="mine")
    assert not first.hit and forward_passes
    forward_passes.clear()
    frame = pd.DataFrame({"other": range(40), "text": TEXTS, "label": LABELS})
    renamed = frame.rename(columns={"text": "opinion", "label": "verdict"})
    named = {"text_column": "opinion", "label_column": "verdict"}
    # Rows that were sorted or filtered keep a foreign index.
    shuffled = frame.sample(frac=1, random_state=0).sort_values("other")
    for again in (
        embed(texts=np.array(TEXTS), labels=pd.Series(LABELS), name="mine"),
        embed(texts=tuple(TEXTS), labels=np.array(LABELS), name="mine"),
        embed(frame, name="mine"),
        embed(shuffled, name="mine"),
        embed(renamed, name="mine", **named),
        embed({"train": (TEXTS, LABELS)}, name="mine"),
        embed({"train": frame}, name="mine"),
        embed(datasets.DatasetDict({"train": datasets.Dataset.from_pandas(frame)}), name="mine"),
        embed(datasets.Dataset.from_pandas(renamed), name="mine", **named),
    ):
        assert again.hit and again.path == first.path
    assert not forward_passes
    # The same rows as a file: the same numbers, under the file's name.
    frame[["text", "label"]].to_csv(tmp_path / "mine.csv", index=False)
    assert columns(embed(str(tmp_path / "mine.csv"))) == columns(first)
    other = embed(texts=[*TEXTS[:-1], "a dull film"], labels=LABELS, name="mine")
    assert not other.hit and other.path != first.path


def test_a_dataset_dict_brings_its_splits_and_label_names(embed):
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    given = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict(
                {"text": TEXTS[rows], "label": [label == "good" for label in LABELS[rows]]},
                features=features,
            )
            for name, rows in (("train", slice(0, 25)), ("test", slice(25, 40)))
        }
    )
    with embed(given, name="divided").open() as cache:
        assert cache.label_names == ["no", "yes"]
        assert {name: len(split) for name, split in cache.splits.items()} == {
            "train": 24, "validation": 1, "test": 15,
        }  # fmt: skip
        expected = [label == "good" for label in LABELS[25:]]
        assert cache.splits["test"].labels.tolist() == expected


def test_lists_of_labels_are_a_multi_label_task(embed):
    labels = [sorted({"good", "bad"} & set(text.split())) for text in TEXTS]
    cache = embed(texts=TEXTS, labels=labels, name="several")
    with cache.open() as opened:
        assert opened.label_names == ["bad", "good"]
        assert opened.splits["train"].labels.shape[1] == 2
    runs = spacelite.train(cache, epochs=1, progress=False)
    row = runs[0].predict(["a good film"], progress=False)[0]
    assert isinstance(row["labels"], list)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"texts": TEXTS, "labels": LABELS[:-1]}, r"texts .*40.* labels .*39|40 texts.*39 labels"),
        ({"texts": TEXTS}, "labels"),
        ({"labels": LABELS}, "texts"),
        ({}, "dataset"),
        ({"dataset": "demo", "texts": TEXTS, "labels": LABELS}, "dataset.*texts|texts.*dataset"),
        ({"texts": "a good film", "labels": ["good"]}, "texts"),
        ({"texts": [*TEXTS[:-1], ""], "labels": LABELS}, "row 40 .*empty"),
        ({"texts": [*TEXTS[:-1], None], "labels": LABELS}, "row 40 "),
        ({"texts": [*TEXTS[:-1], 7], "labels": LABELS}, "row 40 "),
        ({"texts": TEXTS, "labels": [*LABELS[:-1], None]}, "row 40 .*label"),
        ({"texts": TEXTS, "labels": [*[0.0, 1.0] * 19, 1.0, float("nan")]}, "row 40 .*label"),
        ({"texts": TEXTS, "labels": [0.5] * 40}, "label"),
        ({"texts": TEXTS, "labels": ["good"] * 40}, "single class"),
        ({"texts": [], "labels": []}, "no |empty"),
        ({"dataset": pd.DataFrame({"a": TEXTS, "b": LABELS})}, "column.*text_column"),
        ({"dataset": pd.DataFrame({"text": TEXTS, "b": LABELS, "c": LABELS})}, "label_column"),
        ({"dataset": {"test": (TEXTS, LABELS)}}, "train"),
        ({"dataset": 17}, "dataset"),
        ({"texts": ["\ud800", *TEXTS[1:]], "labels": LABELS}, "row 1 has a 'text' that is not va"),
        ({"texts": TEXTS, "labels": [10**20, 3] * 20}, "row 1 has a whole number of more than 64"),
        ({"texts": TEXTS, "labels": ["a", 3] * 20}, "'label' needs .* row 2 has a number, those"),
        ({"texts": TEXTS, "labels": [object()] * 40}, "these are a value of type object: give st"),
        ({"dataset": pd.DataFrame({"text": TEXTS, "label": [3, "a"] * 20})}, "row 2 has a string"),
        ({"dataset": pd.DataFrame({"text": TEXTS, "label": [object()] * 40})}, "of type object"),
        ({"texts": pd.DataFrame({"text": TEXTS}), "labels": LABELS},
         "texts is a DataFrame: give one column, such as texts=df\\['text'\\]"),
        ({"texts": TEXTS, "labels": pd.DataFrame({"label": LABELS})}, "labels=df\\['label'\\]"),
        ({"texts": datasets.Dataset.from_dict({"text": TEXTS}), "labels": LABELS}, "texts is a Da"),
        ({"dataset": "demo", "max_length": 0}, "max_length=0"),
        ({"dataset": "demo", "dtype": "int3"}, "dtype=int3"),
    ],
)  # fmt: skip
def test_unusable_data_are_refused_in_pythons_words(embed, given, said):
    message = refusal(embed, **given)
    assert re.search(said, message), message
    assert "--" not in message


def test_a_nan_in_a_frame_is_named_by_its_row(embed):
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS})
    frame.loc[7, "text"] = np.nan
    assert "row 8 " in refusal(embed, frame, name="frame")


# Train, and what it gives back.


def test_train_is_the_commands_train(cache, runs, cache_dir, tmp_path):
    """The same grid from the command line: the same runs, the same table."""
    assert len(runs) == 4 * 2 + 2 and not runs.stopped
    arguments = [
        "train", "--cache", str(cache.path), "--cache-dir", str(tmp_path), "--inter", "0,0.2",
        "--intra", "0,0.001", "--seeds", "2", "--epochs", "3", "--batch-size", "16",
        "--lr", "0.02",
    ]  # fmt: skip
    done = invoke(*arguments, "--json")
    assert done.exit_code == 0, done.output
    volatile = ("seconds", "created", "cache_files")  # when, and where the cache is
    for run, record in zip(runs, json.loads(done.stdout), strict=True):
        own = json.loads(json.dumps(run.record.as_json()))
        assert {k: v for k, v in own.items() if k not in volatile} == {
            k: v for k, v in record.items() if k not in volatile
        }
    printed = invoke(*arguments, env={"COLUMNS": "120"}).stdout
    words = [line.split() for line in printed.splitlines() if line.strip(" ─")]
    *words, baseline, _ = words
    assert baseline == runs.baseline.split() and baseline[:2] == ["Always", "predicting"]
    assert [line.split() for line in str(runs).splitlines() if line.strip("-")] == words


def test_a_line_per_system_has_means_and_deviations_over_seeds(runs):
    lines = runs.table().lines
    assert len(lines) == 4 + 1 and len(str(runs).splitlines()) == 1 + 2 + 5
    assert str(runs).startswith("Metrics on test, ± standard deviation over seeds\nSystem ")
    for line in lines:
        inter = 0.2 if "inter 0.2" in line.cells[0].text else 0
        intra = 0.001 if "intra 0.001" in line.cells[0].text else 0
        linear = line.cells[0].text == "linear (first)"
        values = [
            run.metrics["test"]["accuracy"]
            for run in runs
            if linear == (run.record.head.kind == "linear")
            and (linear or (run.settings["inter"], run.settings["intra"]) == (inter, intra))
        ]
        assert len(values) == 2 and line.cells[1].text == "2 seeds"
        accuracy = line.cells[-2]
        assert accuracy.text == f"{np.mean(values):.4f}"
        assert accuracy.std == f"± {np.std(values, ddof=1):.4f}"
    assert len(runs.table(places=2).lines[0].cells[-1].text) == len("0.12")
    # A run that is listed twice is one seed, and has its id there.
    (line,) = (runs[:1] + runs[:1]).table().lines
    assert line.cells[1].text == runs[0].id[-8:] and not line.cells[-1].std
    each = runs.table(each_run=True)
    assert len(each.lines) == 3 * len(runs)
    assert [line.cells[1].text for line in each.lines[:3]] == ["0", "", ""]


def test_systems_of_several_caches_are_told_apart(embed, runs, reviews, tmp_path):
    texts = [f"{word} film" for word in ("good", "bad", "fine", "dull")] * 5
    other = embed(texts=texts, labels=["a", "b"] * 10, cache_dir=tmp_path)
    more = spacelite.train(other, head="linear", epochs=1, baselines=False, progress=False)
    table = (runs + more).table()
    assert "on test, or on validation where there is no test split" in table.caption
    assert table.columns[:3] == ["System", "Cache", "Run"]
    found = [[cell.text for cell in line.cells[:2]] for line in table.lines[-2:]]
    assert found == [["linear (first)", runs[0].record.cache], ["linear (first)", other.name]]
    # Also where they were tested on the same examples.
    longer = embed(str(reviews), max_length=9, cache_dir=tmp_path)
    alike = spacelite.train(longer, head="linear", epochs=1, baselines=False, progress=False)
    caches = [line.cells[1].text for line in (runs[-2:] + alike).table().lines]
    assert sorted(caches) == sorted([runs[0].record.cache, longer.name])


def test_best_goes_by_validation(runs):
    for metric, choose in (("f1_macro", max), ("accuracy", max), ("ce", min), ("loss", min)):
        best = runs.best(metric)
        values = [run.metrics["validation"][metric] for run in runs]
        assert best.metrics["validation"][metric] == choose(values)
    assert refusal(runs.best, "f2").startswith(
        "metric=f2: for one label per text, choose from loss, ce, acc"
    )
    assert "no run" in refusal(runs[:0].best)


def test_runs_are_a_sequence(runs, cache_dir):
    assert [run.id for run in runs[2:4]] == [runs[2].id, runs[3].id]
    loaded = spacelite.load_runs(cache_dir)
    assert {run.id for run in runs} <= {run.id for run in loaded}
    assert spacelite.load_run(runs[0].id[-8:], cache_dir).record == runs[0].record
    assert refusal(spacelite.load_run, "nothing", cache_dir)


def test_runs_are_a_frame(runs):
    frame = runs.to_frame()
    assert list(frame["id"]) == [run.id for run in runs]
    for row, run in zip(frame.to_dict("records"), runs, strict=True):
        assert row["test_accuracy"] == run.metrics["test"]["accuracy"]
        assert {row[name] for name in ("epochs", "batch_size")} == {
            run.settings["epochs"], run.settings["batch_size"],
        }  # fmt: skip
        epochs = [entry["epoch"] for entry in run.history]
        assert epochs == [*range(1, 1 + len(epochs))] and run.labels == ("0", "1")


def test_whole_numbers_stay_whole_in_a_frame_of_runs(cache, tmp_path):
    trained = spacelite.train(
        cache, head=["space", "logreg", "tfidf"], epochs=2, seeds=2, cache_dir=tmp_path,
        progress=False,
    )  # fmt: skip
    frame = trained.to_frame().set_index("system")
    assert {*frame.dtypes[["seed", "epochs", "batch_size", "latent"]].map(str)} == {"Int64"}
    assert frame.loc["space", "seed"].tolist() == [0, 1]
    assert (
        frame.loc[["tfidf", "logreg (first)"], ["seed", "epochs", "latent"]].isna().all(axis=None)
    )
    assert frame.loc["space", "learning_rate"].tolist() == [2e-4] * 2


@pytest.mark.parametrize("several", [False, True])
def test_studies_are_frames_of_rows_of_the_data(embed, several, tmp_path):
    labels = [int(label == "good") for label in LABELS]
    labels[3] = 1 - labels[3]
    frame = pd.DataFrame(
        {"text": TEXTS, "label": [[label] for label in labels] if several else labels}
    )
    frame.index += 70
    frame.loc[70, "text"] = ""
    frame["label"] = frame["label"].map(lambda label: label)
    cache = embed(frame, name=f"studied {several}", skip_empty=True)
    checked = spacelite.cross_validate(
        cache, head="logreg", baselines=False, folds=2, progress=False
    )
    table = checked.to_frame()
    own = frame.iloc[table["row"] - 1]
    column = "labels" if several else "label"
    assert table[column].tolist() == own["label"].tolist() and table["row"].dtype == "Int64"
    predicted = checked.probabilities()["logreg (first)"][0]
    given = [[0, 1][row.argmax()] for row in predicted]
    if not several:
        assert table["logreg (first) predicted"].tolist() == given
    assert checked.save(tmp_path / "held.csv") == tmp_path / "held.csv"
    assert list(pd.read_csv(tmp_path / "held.csv")) == list(table)
    if several:
        return
    found = spacelite.audit(cache, head="tfidf", folds=2, progress=False)
    suspects = found.to_frame()
    assert len(suspects) == len(found.findings) > 0
    own = frame.iloc[suspects["row"] - 1]
    assert suspects["text"].tolist() == own["text"].tolist()
    assert suspects["label"].tolist() == own["label"].tolist()
    assert (suspects["suggested"] == 1 - suspects["label"]).all()


def test_files_of_other_kinds_are_refused(cache, runs, tmp_path):
    explained = next(run for run in runs if run.record.head.kind == "space").explain("a good film")
    report = spacelite.report(runs[:2], examples=False, progress=False)
    curve = spacelite.learning_curve(
        cache, head="logreg", baselines=False, sizes=[8], seeds=2, progress=False
    )
    for save, name, said in (
        (curve.save, "curve.xlsx", "cannot be written: its name must end in .csv"),
        (explained.save, "x.txt", "cannot be written: its name must end in .html"),
        (report.save, "rep.pdf", ": a report is written to a folder, or to a file whose name ends"),
    ):
        message = refusal(save, tmp_path / name)
        assert message.startswith(f"{tmp_path / name}{said if said[0] == ':' else ' ' + said}")
    assert refusal(report.save, 4).startswith(
        "a report is saved to a folder or a file, not to a int"
    )
    assert not list(tmp_path.iterdir())
    assert curve.save(tmp_path / "c.CSV") == tmp_path / "c.CSV"
    assert curve.save_plot(str(tmp_path / "c.svg")) == tmp_path / "c.svg"
    table = curve.to_frame()
    assert table["system"].unique().tolist() == ["logreg (first)"] and len(table) == 2


def test_the_newest_complete_cache_is_the_default(cache, tmp_path, embed, reviews, caplog):
    assert "embed a data set first" in refusal(spacelite.train, cache_dir=tmp_path, progress=False)
    own = embed(str(reviews), cache_dir=tmp_path)
    runs = spacelite.train(cache_dir=tmp_path, head="logreg", progress=False)
    assert [run.record.cache for run in runs] == [own.name]
    assert spacelite.find_cache(cache_dir=tmp_path).path == own.path
    assert "chooses another" not in caplog.text
    embed(str(reviews), cache_dir=tmp_path, max_length=9)
    other = spacelite.find_cache(cache_dir=tmp_path)
    spacelite.train(cache_dir=tmp_path, head="logreg", progress=False)
    assert f"cache {other.name}, one of 2: cache=... chooses another" in caplog.text
    named = embed(texts=TEXTS, labels=LABELS, name="My posts", cache_dir=tmp_path)
    assert spacelite.find_cache("My posts", tmp_path).path == named.path
    (run,) = spacelite.train("My posts", cache_dir=tmp_path, head="logreg", progress=False)
    assert run.record.cache == named.name
    assert "tiny-bert--My-posts" in refusal(spacelite.train, "My pots", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 0}, "epochs=0: give a whole number of at least 1"),
        ({"inter": -1}, "inter=-1: give 0 or a positive number"),
        ({"inter": [0, float("nan")]}, "inter=nan: give 0 or a positive number"),
        ({"intra": "x"}, "intra='x': give 0 or a positive number"),
        ({"learning_rate": 0}, "learning_rate=0: give a number above 0"),
        ({"seeds": 0}, "seeds=0: give a number of seeds, 1 to 10,000, or a list of them"),
        ({"seeds": [0, -1]}, r"seeds=0,-1: -1 is not a whole number from 0 to 2\^63 - 1"),
        ({"latent": 2.5}, "latent=2.5: "),
        ({"head": "tree"}, "head=tree: choose from space, linear, mlp, additive"),
        ({"schedule": "step"}, "schedule=step: choose from constant, cosine"),
        ({"monitor": "auc", "patience": 2}, "monitor=auc: for one label per text, choose from "),
        ({"device": "cuda:99"}, "device=cuda:99"),
    ],
)
def test_unusable_settings_are_refused_in_pythons_words(cache, tmp_path, settings, said):
    message = refusal(spacelite.train, cache, cache_dir=tmp_path, progress=False, **settings)
    assert re.match(said, message), message
    assert "--" not in message
    assert not (tmp_path / "runs").exists()


def test_the_same_error_names_the_option_on_the_command_line(cache, tmp_path):
    arguments = ["train", "--cache", str(cache.path), "--cache-dir", str(tmp_path)]
    for options, said in (
        (["--lr", "0"], "error: --lr 0: give a number above 0"),
        (["--seeds", "0"], "error: --seeds 0: give a number of seeds, 1 to 10,000"),
        (["--head", "tree"], "error: --head tree: choose from space, linear, mlp, additive"),
        (["--batch-size", "0"], "error: --batch-size 0: give a whole number of at least 1"),
        (["--device", "cuda:99"], "error: --device cuda:99"),
    ):
        done = invoke(*arguments, *options)
        assert done.exit_code == 1 and said in done.stderr, done.stderr


# Use a run.


def test_a_local_backbone_is_found_where_it_was(runs, cache_dir, bert):
    loaded = spacelite.load_run(runs[0].id, cache_dir)
    found = loaded.predict(["a good film"], progress=False)
    here = runs[0].predict(["a good film"], progress=False)
    named = loaded.predict(["a good film"], backbone=str(bert), progress=False)
    assert (here.probabilities == named.probabilities).all()
    assert (found.probabilities == named.probabilities).all()


def test_predict_gives_rows_labels_and_probabilities(runs, bert):
    best = runs.best()
    given = ["a good film", "the plot was dull"]
    predictions = best.predict(given, progress=False)
    assert predictions.probabilities.shape == (2, 2)
    assert [row["text"] for row in predictions] == given
    for row, chances in zip(predictions, predictions.probabilities, strict=True):
        assert list(row["probabilities"].values()) == chances.tolist()
        assert row["label"] == best.record.label_names[chances.argmax()]
    assert [row["label"] for row in predictions] == [label for (label,) in predictions.labels]
    frame = predictions.to_frame()
    assert list(frame["text"]) == given and list(frame["label"]) == [
        int(row["label"]) for row in predictions
    ]
    chances = frame[[f"probability_{name}" for name in best.labels]].to_numpy()
    assert (chances == predictions.probabilities).all()
    single = best.predict("a good film", progress=False)
    assert len(single) == 1 and np.allclose(single.probabilities[0], predictions.probabilities[0])
    assert "text 2 is empty" in refusal(best.predict, ["a", " "], progress=False)


@pytest.mark.parametrize(
    ("names", "found", "undecided"),
    [
        (("0", "7"), [7, 0], "Int64"),
        (("-1", "10"), [10, -1], "Int64"),
        (("false", "true"), [True, False], "boolean"),
        (("no", "yes"), ["yes", "no"], None),
        (("01", "2"), ["2", "01"], None),
        (("1.0", "2"), ["2", "1.0"], None),
    ],
    ids=str,
)
@pytest.mark.parametrize("several", [False, True])
def test_labels_are_compared_with_those_of_a_frame(runs, names, found, undecided, several):
    """Labels that are numbers or booleans in the data are so in the frame of predictions."""
    task = MULTI_LABEL if several else SINGLE_LABEL
    record = dataclasses.replace(runs[0].record, label_names=names, task=task)
    predicted = TextPredictions(
        ["a", "b"], np.array([[0.2, 0.8], [0.6, 0.4]]), np.zeros(2), record, index=[5, 3]
    )
    frame = predicted.to_frame()
    if several:
        assert list(frame["labels"]) == [[label] for label in found]
        return
    assert (frame["label"] == pd.Series(found, index=[5, 3])).mean() == 1
    assert [row["label"] for row in predicted] == [names[1], names[0]]
    some = dataclasses.replace(predicted, min_probability=0.7).to_frame()["label"]
    assert some.isna().tolist() == [False, True] and some[5] == found[0]
    assert undecided is None or some.dtype == undecided


def test_numbers_are_names_of_labels(runs, embed):
    space = next(run for run in runs if run.record.head.kind == "space")
    for label in (1, np.int64(1), "1"):
        assert space.explain("a good film", label=label).label == 1
        assert list(space.threshold(precision=0.1, label=label).values) == ["1"]
    assert refusal(space.explain, "a", label=True).startswith("label=true: choose from 0, 1")
    assert refusal(space.explain, "a", label=1.5) == "label=1.5: give a label's name, or its number"
    frame = pd.DataFrame({"text": TEXTS, "label": [label == "good" for label in LABELS]})
    mapped = space.evaluate(frame, labels={True: 1, np.False_: 0}, progress=False)
    assert mapped.record.labels == {"false": "0", "true": "1"}


def test_what_a_run_gives_is_a_copy(runs):
    evaluation = runs[0].evaluate(cache=runs[0].record.cache, progress=False)
    for one in (runs[0], evaluation):
        before = one.metrics["test"]["accuracy"]
        one.metrics["test"]["accuracy"] = 7
        one.metrics.clear()
        assert one.metrics["test"]["accuracy"] == before
    evaluation.seen_in_training.clear()
    assert evaluation.seen_in_training


def test_a_run_that_was_removed_is_not_used(cache, tmp_path):
    options = {"head": "tfidf", "cache_dir": tmp_path, "progress": False}
    (run,) = spacelite.train(cache, **options)
    run.remove()
    for call in (
        lambda: run.evaluate(cache=cache, progress=False),
        lambda: run.predict(["a good film"], progress=False),
        lambda: run.rename("good"),
        run.remove,
    ):
        assert refusal(call).startswith(f"run {run.id} was removed ("), call
    assert not run.run.folder.exists()


def test_explain_names_the_label_and_the_words(runs, tmp_path):
    run = next(run for run in runs if run.record.head.kind == "space")
    explanation = run.explain("a good film")
    assert [word for word, _ in explanation.words] == ["[CLS]", "a", "good", "film", "[SEP]"]
    found = explanation.explanation
    assert len(found.logits) == 2  # less their mean: half the difference
    bias, logit = ((x[explanation.label] - x[1 - explanation.label]) / 2
                   for x in (found.bias, found.logits))  # fmt: skip
    total = sum(share for _, share in explanation.words) + bias
    assert total == pytest.approx(logit, abs=1e-5)
    other = run.explain("a good film", label=run.record.label_names[1 - explanation.label])
    assert other.label == 1 - explanation.label
    page = explanation.save(tmp_path / "page.html").read_text()
    assert "good" in page and run.id in page
    example = run.explain(example="test:3")
    assert example.example == "test:3" and "example test:3" in example.save(
        tmp_path / "example.html"
    ).read_text()  # fmt: skip
    assert refusal(run.explain, "a", label="neutral").startswith("label=neutral: choose from ")
    assert refusal(run.explain).startswith("give either a text to explain, or example=")
    both = refusal(run.explain, "a text", example="test:0")
    assert both.startswith("give either a text to explain, or example=")
    assert refusal(run.explain, example="test:99").startswith("example=test:99: give one of ")
    linear = next(run for run in runs if run.record.head.kind == "linear")
    assert "not a sum over tokens" in refusal(linear.explain, "a")


def test_evaluate_takes_names_data_and_caches(runs, embed, tmp_path):
    run = runs[0]
    other = write_dataset(tmp_path / "other", {"train": 20, "validation": 10, "test": 12})
    evaluation = run.evaluate(str(other), progress=False)
    assert evaluation.record.examples == {"train": 20, "validation": 10, "test": 12}
    same = run.evaluate(cache=embed(str(other)), progress=False)
    assert same.metrics == evaluation.metrics
    frame = pd.DataFrame({"text": TEXTS, "label": LABELS})
    mapping = {"good": "1", "bad": "0"}
    mapped = run.evaluate(frame, labels=mapping, progress=False)
    assert mapped.record.labels == mapping
    turned = run.evaluate(frame, labels={"good": "0", "bad": "1"}, progress=False)
    accuracy = [each.metrics["test"]["accuracy"] for each in (mapped, turned)]
    assert sum(accuracy) == pytest.approx(1)
    assert "Macro F1" in str(evaluation)
    named = run.evaluate(frame, labels=mapping, name="other posts", progress=False)
    assert named.record.dataset == "other posts" and named.metrics == mapped.metrics
    assert refusal(run.evaluate, str(other), name="x").startswith("name=x: ")
    assert refusal(run.evaluate, cache=embed(str(other)), name="x").startswith("name=x works with")
    message = refusal(run.evaluate, frame, labels={"good": "fine"}, progress=False)
    assert message.endswith("which leaves its texts out") and "fine" in message
    assert "give either a data set to evaluate on, or cache=..." in refusal(run.evaluate)
    assert refusal(run.evaluate, cache=embed(str(other)), limit=3).startswith("limit")


def test_a_report_of_chosen_runs(runs, tmp_path, bert):
    report = spacelite.report(runs[:4], progress=False)
    text = report.text()
    cache = spacelite.find_cache(runs[0].record.cache, runs[0].cache_dir)
    assert spacelite.report(runs[:4], cache=cache, progress=False).text() == text
    listed = runs.to_frame()
    assert "not a value of type DataFrame" in refusal(spacelite.report, listed)
    ids = listed["id"][:4]
    there = spacelite.report(ids, cache_dir=runs[0].cache_dir, progress=False)
    assert there.text() == text
    assert "space" in text and "linear (first)" not in text
    assert str(report) == text
    page = report.save(tmp_path / "page")
    assert page.name == "index.html" and page.read_text().startswith("<!doctype html>")
    saved = json.loads(report.save(tmp_path / "data", "json").read_text())
    assert saved == json.loads(json.dumps(report.as_json()))
    assert refusal(report.save, tmp_path, "pdf").startswith("format=pdf: choose from ")
    assert "run" in refusal(spacelite.report, cache_dir=tmp_path, progress=False)


# Notebooks, progress, start-up.


def test_everything_shows_itself_in_a_notebook(cache, runs, embed):
    from html.parser import HTMLParser

    class Balanced(HTMLParser):
        open: list

        def handle_starttag(self, tag, attrs):
            if tag not in ("br", "meta"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    best = next(run for run in runs if run.record.head.kind == "space")
    hostile = "a <script>alert(1)</script> good & bad film"
    shown = {
        "cache": cache,
        "runs": runs,
        "run": best,
        "predictions": best.predict([hostile], progress=False),
        "explanation": best.explain(hostile),
        "evaluation": best.evaluate(cache=cache, progress=False),
        "report": spacelite.report(runs, progress=False),
    }
    for name, each in shown.items():
        html = each._repr_html_()
        parser = Balanced()
        parser.open = []
        parser.feed(html)
        assert parser.open == [], name
        assert "<script" not in html, name
    assert "background:rgba(" in shown["explanation"]._repr_html_()
    assert shown["runs"]._repr_html_().count("<tr>") == 1 + 4 + 1  # headings, space, linear
    assert best.record.system in shown["run"]._repr_html_()
    assert cache.name in repr(cache)


def test_progress_is_bars_nothing_or_a_function(embed, cache, cache_dir, capfd, tmp_path):
    calls = []

    def count(phase, done, total):
        calls.append((phase, done, total))

    data = {"texts": TEXTS[:20], "labels": LABELS[:20]}
    embed(**data, name="silent", progress=False)
    assert capfd.readouterr() == ("", "")
    embed(**data, name="counted", progress=count, reuse=False)
    assert {phase for phase, _, _ in calls} == {"tokenize", "embed"}
    last = [call for call in calls if call[0] == "embed"][-1]
    assert last[1] == last[2] > 0
    embed(**data, name="bars", progress=True, reuse=False)
    out, err = capfd.readouterr()
    assert out == "" and "embedding" in err and "100%" in err
    calls.clear()
    embed(**data, name="copied", progress=count)
    assert {phase for phase, _, _ in calls} == {"tokenize", "copy"}
    assert calls[-1][1] == calls[-1][2] == last[2]
    spacelite.train(cache, epochs=1, head="linear", cache_dir=tmp_path, progress=False)
    assert capfd.readouterr() == ("", "")


def test_every_public_name_is_there_and_has_a_docstring():
    for name in spacelite.__all__:
        assert getattr(spacelite, name) is not None
        if name != "__version__":
            assert getattr(spacelite, name).__doc__
    with pytest.raises(AttributeError):
        spacelite.nothing  # noqa: B018
    assert {*spacelite.__all__} <= {*dir(spacelite)}


def test_unknown_arguments_name_the_function(runs):
    for call, said in (
        (
            lambda: runs[0].predict(txt=["a"]),
            r"TrainedRun.predict\(\) got an .* 'txt' \(did you mean 'texts'\?\)$",
        ),
        (lambda: runs[0].predict(), r"TrainedRun.predict\(\) missing .*'texts'$"),
        (
            lambda: spacelite.embed("demo", model="x"),
            r"embed\(\) got .*'model' \(did you mean 'backb",
        ),
        (lambda: spacelite.load_runs(1, 2), r"load_runs\(\) too many positional"),
    ):
        with pytest.raises(TypeError, match=said):
            call()


def test_a_cache_from_the_command_line_is_found_from_python(tmp_path, bert, reviews):
    done = invoke(
        "embed", "--backbone", bert, "--dataset", reviews, "--device", "cpu",
        "--cache-dir", tmp_path, "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    found = spacelite.embed(
        str(reviews), backbone=str(bert), cache_dir=tmp_path, device="cpu", progress=False
    )
    assert found.hit and found.path == Path(json.loads(done.stdout)["path"])
    assert time.time() > found.state.modified


def test_a_single_seed_is_asked_for_as_seeds(cache):
    assert "use seeds" in refusal(spacelite.train, cache, seed=7, progress=False)


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (pd.DataFrame({"text": ["a", None]}), "the DataFrame: row 2 has an empty 'text'"),
        (pd.DataFrame({"x": ["a"], "y": ["b"]}), "the DataFrame has no column that is clearly"),
        (pd.DataFrame({"x": [1.5], "y": [2]}), "the DataFrame has no column that is clearly"),
        (datasets.DatasetDict({"test": datasets.Dataset.from_dict({"text": ["a"]})}),
         "not a DatasetDict"),
        ({"text": "a"}, "not a dict"),
        (b"abc", "not a bytes"),
        (None, "not a NoneType"),
        ([None], "text 1 is missing (None): leave it out"),
        (["a", float("nan")], "text 2 is missing (nan): leave it out"),
        (pd.Series(["a", pd.NA], dtype=object), "text 2 is missing (<NA>): leave it out"),
        (pd.DataFrame({"text": ["a", "b"]})[:0], "there is no text: give at least one"),
        ([5], "text 1 is no string but of the type int"),
        ([["a", "b"]], "was trained on single texts, and text 1 is a pair"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_texts_is_not_classified(runs, texts, said):
    assert said in refusal(runs[0].predict, texts, progress=False)
    assert said in refusal(lambda: list(runs[0].predict_batches(texts, progress=False)))


@pytest.mark.parametrize(
    "kind", ["usual", "named", "remembered", "only", "dataset", "series", "array"]
)
def test_the_texts_of_a_table_are_classified_and_its_index_stays(runs, kind):
    given, index = ["a good film", "the plot was dull"], ["second", "first"]
    frame = pd.DataFrame({"id": [7, 9], "text": given, "other": ["x", "y"]}, index=index)
    named, kept, run = None, index, runs[0]
    if kind == "named":
        frame, named = frame.rename(columns={"text": "body"}), "body"
    elif kind == "remembered":  # that of the run's data, though another has a usual name
        frame = frame.rename(columns={"text": "body", "other": "review"})
        record = dataclasses.replace(run.record, text_column="body")
        run = dataclasses.replace(run, run=dataclasses.replace(run.run, record=record))
    elif kind == "only":
        frame = frame.drop(columns="other").rename(columns={"text": "body"})
    elif kind == "dataset":
        both = pd.concat([frame.iloc[::-1], frame])
        frame, kept = datasets.Dataset.from_pandas(both).select([1, 0]), [0, 1]
    elif kind in ("series", "array"):
        frame = frame["text"].to_numpy() if kind == "array" else frame["text"]
        kept = [0, 1] if kind == "array" else index
    expected = run.predict(given, progress=False)
    found = run.predict(frame, text_column=named, progress=False)
    assert found.texts == given and np.allclose(found.probabilities, expected.probabilities)
    assert list(found.to_frame().index) == kept
    (batch,) = run.predict_batches(frame, text_column=named, progress=False)
    assert batch.texts == given
    other = refusal(run.predict, frame, text_column="none such", progress=False)
    assert ("have no columns" if kind in ("series", "array") else "no column 'none such'") in other


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (["a", "b"], "was trained on single texts, and text 1 is a pair"),
        (["a", "b", "c"], "give one text (a string)"),
        (5, "give one text (a string)"),
        (float("nan"), "give one text (a string)"),
    ],
)
def test_what_is_no_text_is_not_explained(runs, text, message):
    assert message in refusal(runs[0].explain, text)


def test_a_run_that_is_given_twice_is_one_run(runs):
    one = spacelite.report(runs[0], examples=False, progress=False).as_json()
    twice = spacelite.report([runs[0], runs[0]], examples=False, progress=False).as_json()
    assert twice == one and one["parts"][0]["section"]["rows"][0]["seeds"] == 1


# The folder of caches and runs.


def test_the_environment_says_where_caches_and_data_are(bert, reviews, tmp_path, monkeypatch):
    folder, data, elsewhere = (tmp_path / name for name in ("of all", "data", "elsewhere"))
    elsewhere.mkdir()
    data.mkdir()
    (data / "mine").symlink_to(reviews)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("SPACELITE_CACHE", str(folder))
    monkeypatch.setenv("SPACELITE_DATA", str(data))
    assert str(spacelite.load_runs()) == f"no runs in {folder}"
    assert repr(spacelite.load_runs()) == f"<0 runs in {folder}>"
    assert refusal(spacelite.report).startswith(f"{folder} holds no run: ")
    assert refusal(spacelite.load_run, "x").startswith(f"{folder} holds no run: ")
    assert refusal(spacelite.find_cache).startswith(f"{folder} holds no cache: ")
    quiet = {"device": "cpu", "progress": False}
    spacelite.embed("mine", backbone=str(bert), **quiet)
    spacelite.train(head="linear", epochs=1, baselines=False, progress=False)
    assert [run.cache_dir for run in spacelite.load_runs()] == [folder]
    head = spacelite.LogregClassifier(backbone=str(bert), **quiet).fit(TEXTS, LABELS)
    assert list((folder / "texts").iterdir()) and head.get_params()["cache_dir"] == "auto"
    assert list(elsewhere.iterdir()) == []
    monkeypatch.delenv("SPACELITE_CACHE")
    assert str(spacelite.load_runs()) == f"no runs in {elsewhere / 'cache'}"
    assert len(spacelite.load_runs(folder)) == 1
