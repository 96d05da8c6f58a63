"""Data that a run is only evaluated on need not be fit for training."""

from __future__ import annotations

import json
import logging
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import invoke, refusal, texts, write_dataset
from sklearn.metrics import accuracy_score, f1_score

import spacelite

TEXTS = texts(12, seed=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory, bert):
    """A run of three labels in a folder of its own: bad, fine and good."""
    folder = tmp_path_factory.mktemp("evaluated")
    data = write_dataset(folder / "three", {"train": 60, "validation": 20, "test": 20}, classes=3)
    for path in data.iterdir():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        named = [{**row, "label": ["bad", "fine", "good"][row["label"]]} for row in rows]
        path.write_text("\n".join(map(json.dumps, named)) + "\n")
    cache = spacelite.embed(
        str(data), backbone=bert, cache_dir=folder / "cache", device="cpu", progress=False
    )
    return spacelite.train(cache, epochs=2, head="linear", pooling="mean", progress=False)[0]


def metrics(run, split, labels):
    """Accuracy and macro F1 of the predictions for TEXTS, computed by scikit-learn."""
    predicted = [row["label"] for row in run.predict(TEXTS, progress=False)]
    labels = labels[: len(predicted)]
    with np.errstate(all="ignore"):
        return {
            "accuracy": accuracy_score(labels, predicted),
            "f1_macro": f1_score(labels, predicted, average="macro", zero_division=0),
        }


@pytest.mark.parametrize(
    "labels",
    [["bad"] * 12, ["bad", "good"] * 6, ["bad", "fine", "good"] * 4],
    ids=["one label", "two of three", "all three"],
)
def test_a_test_split_alone_is_evaluated_whatever_its_labels(labels, run):
    found = run.evaluate({"test": (TEXTS, labels)}, progress=False)
    assert found.record.examples == {"test": 12}
    expected = metrics(run, "test", labels)
    for name, value in expected.items():
        assert found.metrics["test"][name] == pytest.approx(value, abs=1e-6)
    saved = run.run.predictions(found.record)
    assert [run.record.label_names[i] for i in saved.labels] == labels
    text = spacelite.report([run], examples=False, progress=False).text()
    assert text.startswith("three, ") and "three → texts" in text


def test_labels_without_an_example_are_named(run, caplog):
    with caplog.at_level(logging.WARNING, "spacelite"):
        found = run.evaluate({"test": (TEXTS, ["good"] * 12)}, progress=False)
    (said,) = [each for each in caplog.messages if "no example of" in each]
    assert said.startswith("texts has no example of 'bad', 'fine': ")
    assert found.record.labels == {"good": "good"}
    assert found.metrics["test"]["auroc"] is None


def test_a_single_example_is_a_test_split(run):
    for given in (
        {"train": (TEXTS[:1], ["bad"])},
        pd.DataFrame({"text": TEXTS[:1], "label": "bad"}),
    ):
        found = run.evaluate(given, progress=False)
        assert found.record.examples == {"test": 1}
        assert found.metrics["test"]["accuracy"] in (0, 1)


@pytest.mark.parametrize("form", ["file", "frame", "texts"])
def test_data_without_named_splits_are_evaluated_whole(form, run, tmp_path, caplog):
    """All 30 rows are one test split, with a figure for those that are new to the run."""
    own = [*TEXTS, *texts(18, seed=6)]
    labels = ["bad", "good", "fine"] * 10
    data = pd.DataFrame({"text": own, "label": labels})
    if form == "file":
        data.to_csv(tmp_path / "whole.csv", index=False)
        data = str(tmp_path / "whole.csv")
    elif form == "texts":
        data = (own, labels)
    found = run.evaluate(data, progress=False)
    assert found.record.examples == {"test": 30} and found.metrics_unseen.keys() <= {"test"}
    predicted = [row["label"] for row in run.predict(own, progress=False)]
    assert found.metrics["test"]["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert "training examples" not in caplog.text and "no test split" not in caplog.text


def test_frames_folders_and_files_need_no_train_split(run, tmp_path):
    frame = pd.DataFrame({"text": TEXTS, "label": ["bad", "good"] * 6, "split": "test"})
    assert run.evaluate(frame, progress=False).record.examples == {"test": 12}
    folder = write_dataset(tmp_path / "only", {"test": 9})
    for path in folder.iterdir():
        path.write_text(path.read_text().replace('"label": 0', '"label": "bad"'))
        path.write_text(path.read_text().replace('"label": 1', '"label": "good"'))
    cache_dir = str(run.cache_dir)
    arguments = ["eval", run.id, "--cache-dir", cache_dir, "--dataset", str(folder)]
    done = invoke(*arguments, "--backbone", run.backbone, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["examples"] == {"test": 9}
    one_label = tmp_path / "one.csv"
    one_label.write_text("text,label\n" + "".join(f"{text},good\n" for text in TEXTS))
    found = run.evaluate(str(one_label), progress=False)
    assert found.record.examples == {"test": 12}
    (tmp_path / "empty").mkdir()
    said = refusal(run.evaluate, str(tmp_path / "empty"), progress=False)
    assert "has no split: it needs test.csv" in said
    assert refusal(run.evaluate, {"other": (TEXTS, TEXTS)}, progress=False).startswith("split 'oth")


def test_a_label_that_the_run_lacks_is_still_refused(run):
    said = refusal(run.evaluate, {"test": (TEXTS, ["awful"] * 12)}, progress=False)
    assert "give the run's label for each of awful" in said


def test_such_data_are_no_cache_to_train_on(run, tmp_path):
    own = tmp_path / "cache"
    shutil.copytree(run.cache_dir, own)
    copied = spacelite.load_run(run.id, own)
    for given, said in (
        ({"test": (TEXTS, ["bad", "good"] * 6)}, "has no train split"),
        ({"train": (TEXTS, ["bad"] * 12)}, "its training examples have a single label"),
    ):
        evaluated = copied.evaluate(given, backbone=run.backbone, progress=False)
        message = refusal(spacelite.train, evaluated.record.cache, cache_dir=own, progress=False)
        assert said in message and message.endswith(": embed data to train on")
    assert invoke("cache", "list", "--cache-dir", own).exit_code == 0
    shown = invoke("cache", "info", evaluated.record.cache, "--cache-dir", own, "--json")
    assert json.loads(shown.stdout)["width"] == 16


def test_several_labels_per_text_may_be_fewer_than_the_runs(bert, tmp_path):
    labels = [["a", "b"], ["b"], ["c"], []] * 3
    cache = spacelite.embed(
        texts=TEXTS, labels=labels, backbone=bert, cache_dir=tmp_path, progress=False
    )
    run = spacelite.train(cache, epochs=1, head="linear", progress=False)[0]
    own = [["c"], [], ["a", "c"], ["a"]] * 3
    found = run.evaluate({"test": (TEXTS, own)}, progress=False)
    saved = run.run.predictions(found.record)
    assert saved.labels.tolist() == [[int(name in row) for name in "abc"] for row in own]
    assert refusal(run.evaluate, {"test": (TEXTS, [["d"]] * 12)}, progress=False)


@pytest.mark.parametrize("form", ["labels", "mapped", "separated"])
def test_texts_of_one_label_each_do_for_a_run_of_several(form, bert, tmp_path):
    labels = [["a", "b"], ["b"], ["c"], []] * 3
    cache = spacelite.embed(
        texts=TEXTS, labels=labels, backbone=bert, cache_dir=tmp_path, progress=False
    )
    run = spacelite.train(cache, epochs=1, head="linear", progress=False)[0]
    frame = pd.DataFrame({"text": TEXTS, "label": ["A" if form == "mapped" else "a", "c"] * 6})
    options = {"separated": {"label_separator": ";"}, "mapped": {"labels": {"A": "a", "c": None}}}
    found = run.evaluate(frame, **options.get(form, {}), progress=False)
    saved = run.run.predictions(found.record)
    own = ["a", "c"] * 6 if form != "mapped" else ["a"] * 6
    assert saved.labels.tolist() == [[int(name == label) for name in "abc"] for label in own]
    assert run.evaluate(frame, progress=False).record.labels.keys() == {*frame["label"]}


def test_training_data_keep_their_rules(bert, tmp_path):
    for given in ({"test": (TEXTS, ["bad", "good"] * 6)}, {"train": (TEXTS, ["bad"] * 12)}):
        assert refusal(spacelite.embed, given, backbone=bert, cache_dir=tmp_path, progress=False)
