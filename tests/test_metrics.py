"""Metrics against scikit-learn."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from spacelite.metrics.scores import average_of, calibration, per_class, probabilities, scores


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


@pytest.mark.parametrize("classes", [2, 4])
def test_figures_of_each_class_equal_scikit_learn(classes):
    random = np.random.RandomState(classes)
    labels, guesses = random.randint(0, classes, (2, 300))
    made = per_class(sk.confusion_matrix(labels, guesses))
    for mine, theirs in zip(made, sk.precision_recall_fscore_support(labels, guesses), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-12)


def test_calibration_equals_a_count_by_hand():
    random = np.random.RandomState(1)
    confidence = np.concatenate([random.uniform(0.3, 1, 500), [0.4, 0.6, 1.0, 1 / 3]])
    right = random.uniform(size=504) < confidence**2
    made = calibration(confidence, right, bins=10)
    error = 0.0
    for number in range(10):
        inside = [i for i, c in enumerate(confidence) if number / 10 < c <= (number + 1) / 10]
        assert made.count[number] == len(inside)
        if inside:
            mean, share = np.mean(confidence[inside]), np.mean(right[inside])
            assert (made.confidence[number], made.accuracy[number]) == pytest.approx((mean, share))
            error += abs(mean - share) * len(inside) / 504
    assert made.error == pytest.approx(error, abs=1e-12) and error > 0.05


def test_a_confidence_that_is_the_accuracy_has_no_error():
    right = np.arange(100) < 70
    assert calibration(np.full(100, 0.7), right).error == pytest.approx(0, abs=1e-12)
    assert calibration(np.zeros(4), np.zeros(4, bool)).error == 0


def test_probabilities_of_huge_logits_are_finite():
    logits = np.array([[1000.0, 0.0], [-1000.0, -1000.0]])
    assert probabilities(logits, False) == pytest.approx(np.array([[1, 0], [0.5, 0.5]]))
    assert probabilities(logits, True) == pytest.approx(np.array([[1, 0.5], [0, 0]]))
