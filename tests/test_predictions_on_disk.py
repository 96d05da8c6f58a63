"""Saved predictions: against the head computed anew in float64, and against scikit-learn."""

import json
import zipfile

import numpy as np
import pytest
from conftest import refusal, train_and_save
from sklearn import metrics as sk

from spacelite import heads
from spacelite.cache.store import Cache
from spacelite.metrics import predictions
from spacelite.metrics.predictions import Predictions
from spacelite.runs.store import Run
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL
from spacelite.training.config import TrainingConfig

CONFIGS = [
    heads.config("space", latent=3, inter=0.2, intra=0.001),
    heads.config("linear", pooling="mean"),
    heads.config("logreg", pooling="mean"),
]


@pytest.fixture(scope="module")
def saved(cache_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictions")
    with Cache(cache_path) as cache:
        runs = train_and_save(folder, cache, CONFIGS, TrainingConfig(epochs=2, batch_size=32))
    assert {run.head for run in runs} == set(CONFIGS)
    return runs


def test_logits_are_those_of_the_saved_head(saved, cache_path):
    for run in saved:
        weights = {name: value.astype(np.float64) for name, value in run.parameters.items()}
        with np.load(run.folder / "predictions.npz") as arrays, Cache(cache_path) as cache:
            assert {key.split("/")[0] for key in arrays} == {"validation", "test"}
            for name in ("validation", "test"):
                split = cache.splits[name]
                assert (arrays[f"{name}/index"] == np.arange(20)).all()
                assert (arrays[f"{name}/label"] == split.labels).all()
                for number, given in enumerate(arrays[f"{name}/logits"]):
                    x = split.read_tokens(*split.offsets[number : number + 2]).astype(np.float64)
                    if "concept_spaces" in weights:
                        x = np.tanh(x @ weights["concept_spaces"].reshape(6, 16).T)
                    logits = weights["classifier.weight"] @ x.mean(axis=0)
                    assert given == pytest.approx(logits + weights["classifier.bias"], abs=1e-4)


def test_metrics_of_the_run_follow_from_its_predictions(saved):
    for run in saved:
        given, figures = run.predictions(), run.record.metrics["test"]
        assert sk.accuracy_score(given.labels, given.predicted) == figures["accuracy"]
        macro = sk.f1_score(given.labels, given.predicted, average="macro")
        assert macro == pytest.approx(figures["f1_macro"])
        assert sk.log_loss(given.labels, given.probabilities) == pytest.approx(figures["ce"])
        assert (given.confusion == sk.confusion_matrix(given.labels, given.predicted)).all()


def test_several_labels_an_example():
    random = np.random.RandomState(0)
    labels, logits = random.randint(0, 2, (50, 3)), random.normal(size=(50, 3))
    given = Predictions(np.arange(50), labels, logits, MULTI_LABEL)
    assert sk.accuracy_score(given.labels, given.predicted) == given.correct.mean()
    assert (given.confusion == sk.multilabel_confusion_matrix(given.labels, given.predicted)).all()
    confidence, correct = given.decisions()
    assert len(confidence) == len(correct) == 150 and confidence.min() >= 0.5
    for chances, guess, both in zip(given.probabilities, given.predicted, given.confidence,
                                    strict=True):  # fmt: skip
        assert both == pytest.approx(
            np.prod([p if g else 1 - p for p, g in zip(chances, guess, strict=True)])
        )


def test_damage_and_files_that_do_not_belong_are_named(saved, tmp_path, caplog):
    path = tmp_path / "predictions.npz"
    assert predictions.load(path, "test", SINGLE_LABEL, 0.5) is None  # of a former version
    content = bytearray((saved[0].folder / "predictions.npz").read_bytes())
    accuracy = saved[0].record.metrics["test"]["accuracy"]
    path.write_bytes(content)
    there = (path, "test", SINGLE_LABEL)
    assert predictions.load(*there, accuracy) is not None
    assert "its accuracy is" in refusal(predictions.load, *there, accuracy + 0.1)
    with zipfile.ZipFile(path) as archive:
        logits = archive.getinfo("test/logits.npy")
    content[logits.header_offset + 30 + len(logits.filename) + logits.compress_size // 2] ^= 1
    path.write_bytes(content)
    assert "is damaged" in refusal(predictions.load, *there, accuracy)
    path.write_bytes(content[:100])
    assert "is damaged" in refusal(predictions.load, *there, accuracy)


def test_a_damaged_history_is_named(saved, tmp_path, caplog):
    (tmp_path / "history.json").write_text("[{")
    assert Run(tmp_path, saved[0].record).history() == []
    assert "history.json is damaged" in caplog.text
    assert saved[0].history() == json.loads((saved[0].folder / "history.json").read_text())
