"""Metrics against scikit-learn."""

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from spacelite.metrics.scores import METRICS, calibration
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL


def outcome(task, confusion):
    """What the metrics of predictions with these counts are computed from."""
    return task.outcome(loss=2.0, ce=1.5, accuracy=0.25, confusion=confusion)


def scores(of):
    """Every metric of an outcome."""
    return {name: metric.compute(of) for name, metric in METRICS.items()}


def scikit_learns(labels, predicted, average):
    """The metrics of `outcome`: those that are not counted, and scikit-learn's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "loss": 2.0,
            "ce": 1.5,
            "accuracy": 0.25,
            "f1_macro": sk.f1_score(labels, predicted, average="macro"),
            "precision": sk.precision_score(labels, predicted, average=average, zero_division=0),
            "recall": sk.recall_score(labels, predicted, average=average, zero_division=0),
            "auroc": None,  # it needs probabilities
        }


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("case", ["random", "one prediction", "absent label", "perfect"])
def test_metrics_equal_scikit_learn(classes, case):
    random = np.random.RandomState(classes)
    labels = random.randint(0, classes - (case == "absent label"), 200)
    predicted = {"one prediction": np.zeros(200, int), "perfect": labels}.get(
        case, random.randint(0, classes, 200)
    )
    confusion = sk.confusion_matrix(labels, predicted, labels=range(classes))
    assert (SINGLE_LABEL.confusion(labels, predicted, classes) == confusion).all()
    average = "binary" if classes == 2 else "weighted"
    assert SINGLE_LABEL.average(classes) == average
    expected = scikit_learns(labels, predicted, average)
    assert set(expected) == set(METRICS)
    assert scores(outcome(SINGLE_LABEL, confusion)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", ["random", "no prediction", "absent label", "no label at all"])
def test_metrics_of_several_labels_equal_scikit_learn(case):
    random = np.random.RandomState(3)
    labels, predicted = random.randint(0, 2, (2, 200, 4))
    if case == "no prediction":
        predicted[:] = 0
    elif case == "absent label":
        labels[:, 2] = 0
    elif case == "no label at all":
        labels[:] = 0
    assert MULTI_LABEL.average(2) == "weighted"
    confusion = sk.multilabel_confusion_matrix(labels, predicted)
    assert (MULTI_LABEL.confusion(labels, predicted, 4) == confusion).all()
    expected = scikit_learns(labels, predicted, "weighted")
    assert scores(outcome(MULTI_LABEL, confusion)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_figures_of_each_class_equal_scikit_learn(classes):
    random = np.random.RandomState(classes)
    labels, predicted = random.randint(0, classes, (2, 300))
    found = outcome(SINGLE_LABEL, sk.confusion_matrix(labels, predicted)).per_class
    expected = sk.precision_recall_fscore_support(labels, predicted)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-12)


def test_figures_of_each_of_several_labels_equal_scikit_learn():
    labels, predicted = np.random.RandomState(5).randint(0, 2, (2, 300, 4))
    found = outcome(MULTI_LABEL, sk.multilabel_confusion_matrix(labels, predicted)).per_class
    expected = sk.precision_recall_fscore_support(labels, predicted)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-12)


def test_calibration_equals_a_count_by_hand():
    random = np.random.RandomState(1)
    confidence = np.concatenate([random.uniform(0.3, 1, 500), [0.4, 0.6, 1.0, 1 / 3]])
    correct = random.uniform(size=504) < confidence**2
    found = calibration(confidence, correct, bins=10)
    error = 0.0
    for number in range(10):
        inside = [i for i, c in enumerate(confidence) if number / 10 < c <= (number + 1) / 10]
        assert found.count[number] == len(inside)
        if inside:
            mean, share = np.mean(confidence[inside]), np.mean(correct[inside])
            assert (found.confidence[number], found.accuracy[number]) == pytest.approx(
                (mean, share)
            )
            error += abs(mean - share) * len(inside) / 504
    assert found.error == pytest.approx(error, abs=1e-12) and error > 0.05


def test_a_confidence_that_is_the_accuracy_has_no_error():
    correct = np.arange(100) < 70
    assert calibration(np.full(100, 0.7), correct).error == pytest.approx(0, abs=1e-12)
    assert calibration(np.zeros(4), np.zeros(4, bool)).error == 0


def test_probabilities_of_huge_logits_are_finite():
    logits = np.array([[1000.0, 0.0], [-1000.0, -1000.0]])
    assert SINGLE_LABEL.probabilities(logits) == pytest.approx(np.array([[1, 0], [0.5, 0.5]]))
    assert MULTI_LABEL.probabilities(logits) == pytest.approx(np.array([[1, 0.5], [0, 0]]))


def areas(has, probabilities):
    """scikit-learn's AUROC of each class that some examples have, and some do not."""
    return [
        sk.roc_auc_score(has[:, c], probabilities[:, c])
        for c in range(has.shape[1])
        if 0 < has[:, c].sum() < len(has)
    ]


@pytest.mark.parametrize("task", [SINGLE_LABEL, MULTI_LABEL])
@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("case", ["random", "ties", "absent label", "certain"])
def test_auroc_equals_scikit_learns(task, classes, case):
    random = np.random.RandomState(classes)
    labels = random.randint(0, classes - (case == "absent label"), 300)
    has = np.eye(classes, dtype=int)[labels]
    if task is MULTI_LABEL:
        has = labels = random.randint(0, 2, (300, classes)) * (np.arange(classes) > 0)
    logits = random.normal(size=(300, classes)) + has
    if case == "ties":
        logits = logits.round()
    elif case == "certain":
        logits *= 1000  # most probabilities become 0 or 1
    predicted = task.decide(logits)
    found = task.outcome(1, 1, 1, task.confusion(labels, predicted, classes), labels, logits)
    of_classes = areas(has, task.probabilities(logits))
    expected = np.mean(of_classes) if of_classes else None
    assert scores(found)["auroc"] == pytest.approx(expected, abs=1e-12)
    if task is SINGLE_LABEL and classes > 2 and case != "absent label":
        whole = sk.roc_auc_score(labels, task.probabilities(logits), multi_class="ovr")
        assert whole == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("labels", [np.zeros(4, int), np.ones((4, 2), int)])
def test_auroc_is_none_where_it_cannot_be_computed(labels):
    task = SINGLE_LABEL if labels.ndim == 1 else MULTI_LABEL
    one_kind = task.outcome(1, 1, 1, task.confusion(labels, labels, 2), labels, np.eye(4)[:, :2])
    assert scores(one_kind)["auroc"] is None
    labels = np.array([0, 1, 1, 0]) if labels.ndim == 1 else np.eye(4, dtype=int)[:, :2]
    not_a_number = np.full((4, 2), np.nan)
    with np.errstate(invalid="ignore"):
        nowhere = task.outcome(1, 1, 1, task.confusion(labels, labels, 2), labels, not_a_number)
    assert scores(nowhere)["auroc"] is None
