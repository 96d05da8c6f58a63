"""Metrics against scikit-learn."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from spacelite.metrics import average_of, scores


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": sk.accuracy_score(labels, guesses),
            "f1_macro": sk.f1_score(labels, guesses, average="macro"),
            "precision": sk.precision_score(labels, guesses, average=average, zero_division=0),
            "recall": sk.recall_score(labels, guesses, average=average, zero_division=0),
        }
    assert scores(confusion) == pytest.approx(expected, abs=1e-12)
