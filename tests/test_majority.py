"""The baseline that always predicts what is most frequent in training."""

import numpy as np
import pytest
from conftest import invoke
from sklearn import metrics as sk
from sklearn.dummy import DummyClassifier

import spacelite
from spacelite.cache.store import Cache
from spacelite.inference.transfer import evaluate
from spacelite.reports.analysis import content
from spacelite.runs import store as runs
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL, majority


def test_figures_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    training, labels = random.choice(3, 100, p=[0.2, 0.5, 0.3]), random.integers(0, 3, 40)
    found = majority(SINGLE_LABEL, training, labels, ["a", "b", "c"])
    theirs = DummyClassifier(strategy="most_frequent").fit(training, training).predict(labels)
    assert found.labels == ["b"]
    assert found.accuracy == sk.accuracy_score(labels, theirs)
    f1 = sk.f1_score(labels, theirs, average="macro", zero_division=0)
    assert found.f1_macro == pytest.approx(f1)


@pytest.mark.parametrize(("often", "words"), [([0, 0], "no label"), ([1, 1], "'a', 'b'")])
def test_of_several_labels_a_text_the_most_frequent_set_is_predicted(often, words):
    training = np.array([often] * 3 + [[1, 0]] * 2)
    labels = np.array([[1, 1], [0, 0], [1, 0], [1, 1]])
    found = majority(MULTI_LABEL, training, labels, ["a", "b"])
    predicted = np.array([often] * 4)
    assert found.accuracy == sk.accuracy_score(labels, predicted)
    f1 = sk.f1_score(labels, predicted, average="macro", zero_division=0)
    assert found.f1_macro == pytest.approx(f1)
    assert found.sentence.startswith(f"Always predicting {words}, the most frequent in training")


def test_of_equally_frequent_labels_one_is_said_to_be_one_of_them():
    for training, ties in ([0, 0, 1, 1, 2], 1), ([0, 1, 2], 2):
        found = majority(SINGLE_LABEL, np.array(training), np.array([0, 1]), ["a", "b", "c"])
        assert found.sentence.startswith(f"Always predicting 'a', one of the {ties + 1} most freq")


NOTE = (
    "Always predicting 'bad', the most frequent in training, gives accuracy 0.5000 and macro F1 "
    "0.3333 on test."
)


def test_train_and_report_say_it_also_of_transfers(bert, tmp_path):
    def embed(name, labels):
        texts = ["good film", "bad film", "the plot", "a scene"]
        splits = {
            split: ([f"{text} {word}" for text in texts], labels)
            for split, word in (("train", "a"), ("validation", "an"), ("test", "and"))
        }
        splits["test"] = (splits["test"][0][:2], ["bad", "good"])
        return spacelite.embed(
            splits, name=name, backbone=str(bert), cache_dir=tmp_path, device="cpu", progress=False
        )

    cache = embed("here", ["bad", "bad", "good", "bad"])
    there = ["--cache", cache.name, "--cache-dir", str(tmp_path), "--epochs", "1"]
    done = invoke("train", "--head", "linear", *there)
    assert NOTE in done.stdout.splitlines()
    (run,) = runs.load_all(tmp_path)
    with Cache(embed("there", ["good", "good", "good", "bad"]).path) as other:
        run.save_transfer(*evaluate(run, other))
    own, transfer = content.build(tmp_path, [run], with_examples=False).parts
    assert own.section.notes[0] == NOTE
    assert transfer.section.notes[0] == NOTE.replace("on test.", "on test of there.")
