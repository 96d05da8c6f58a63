"""Metrics against scikit-learn."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from spacelite.metrics import average_of, scores


def scikit_learns(labels, guesses, average):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "f1_macro": sk.f1_score(labels, guesses, average="macro"),
            "precision": sk.precision_score(labels, guesses, average=average, zero_division=0),
            "recall": sk.recall_score(labels, guesses, average=average, zero_division=0),
        }


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("case", ["random", "one guess", "absent label", "perfect"])
def test_metrics_equal_scikit_learn(classes, case):
    random = np.random.RandomState(classes)
    labels = random.randint(0, classes - (case == "absent label"), 200)
    guesses = {"one guess": np.zeros(200, int), "perfect": labels}.get(
        case, random.randint(0, classes, 200)
    )
    confusion = sk.confusion_matrix(labels, guesses, labels=range(classes))
    average = "binary" if classes == 2 else "weighted"
    assert average_of(classes) == average
    assert scores(confusion) == pytest.approx(scikit_learns(labels, guesses, average), abs=1e-12)


@pytest.mark.parametrize("case", ["random", "no guess", "absent label", "no label at all"])
def test_metrics_of_several_labels_equal_scikit_learn(case):
    random = np.random.RandomState(3)
    labels, guesses = random.randint(0, 2, (2, 200, 4))
    if case == "no guess":
        guesses[:] = 0
    elif case == "absent label":
        labels[:, 2] = 0
    elif case == "no label at all":
        labels[:] = 0
    assert average_of(2, multilabel=True) == "weighted"
    confusion = sk.multilabel_confusion_matrix(labels, guesses)
    expected = scikit_learns(labels, guesses, "weighted")
    assert scores(confusion) == pytest.approx(expected, abs=1e-12)
