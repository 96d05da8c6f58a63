"""Logistic regressions with their logits for held-out examples, against scikit-learn."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.linear_model import LogisticRegression
from test_baselines import scikit_learns, some

from spacelite.heads import logistic
from spacelite.heads.logistic import FOLDS, Features, Fit, Problems, cross_fit
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL

AMONG = (0.003, 0.03, 0.3, 3.0, 30.0)
KINDS = {
    "float64": lambda inputs: inputs,
    "float32": lambda inputs: inputs.astype(np.float32),
    "sparse": csr_array,
}


@pytest.fixture(autouse=True)
def closely(monkeypatch):
    """The search as exact as scikit-learn's."""
    monkeypatch.setattr(logistic, "ROUGHLY", 1e-12)
    monkeypatch.setattr(logistic, "CLOSELY", 1e-12)


def log_odds(model, inputs):
    """What a model of scikit-learn decides by, (N, C), with mean 0 over the classes."""
    values = model.decision_function(inputs)
    values = np.stack([-values, values], axis=1) / 2 if values.ndim == 1 else values
    return values - values.mean(axis=1, keepdims=True)


def centred(logits):
    return logits - logits.mean(axis=1, keepdims=True)


def test_the_minimum_of_several_functions_is_that_of_each():
    random = np.random.RandomState(0)
    squares = [np.diag(random.uniform(0.1, 9, 4)) for _ in range(3)]
    targets = [random.normal(size=(4, 2)) for _ in range(3)]
    asked = []

    def losses(numbers, points):
        asked.append(list(numbers))
        return [
            (0.5 * ((at - targets[n]) * (squares[n] @ (at - targets[n]))).sum(),
             squares[n] @ (at - targets[n]))
            for n, at in zip(numbers, points, strict=True)
        ]  # fmt: skip

    start = [np.zeros((4, 2)), np.zeros((4, 2)), targets[2]]
    found = logistic.minima(losses, [logistic.lbfgs(lambda step: step, at, 1e-14) for at in start])
    for own, target in zip(found, targets, strict=True):
        np.testing.assert_allclose(own, target, atol=1e-5)
    assert asked[0] == [0, 1, 2] and 2 not in asked[-1]  # that one was there from the start


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize("classes", [2, 3])
def test_each_fold_is_fitted_without_what_it_holds_out(classes, class_weights, kind):
    inputs, labels = some(classes, count=203)
    given = KINDS[kind](inputs)
    problems = SINGLE_LABEL.problems(labels, classes)
    found = cross_fit(given, Problems(problems, classes, class_weights), (0.3,))
    fold = logistic.folds(labels[:, None], FOLDS)
    for number in range(FOLDS):
        held = fold == number
        model = scikit_learns(inputs[~held], labels[~held], 0.3, class_weights)
        np.testing.assert_allclose(
            centred(found.held[held]), log_odds(model, inputs[held]), atol=2e-3
        )
    model = scikit_learns(inputs, labels, 0.3, class_weights)
    whole = inputs @ found.weight.T + found.bias
    np.testing.assert_allclose(centred(whole), log_odds(model, inputs), atol=2e-3)
    assert found.strength == 0.3


@pytest.mark.parametrize("several", [False, True])
def test_the_best_strength_is_found_from_the_middle(several):
    inputs, labels = some(3, count=400)
    task, classes = SINGLE_LABEL, 3
    if several:
        labels = np.stack([labels == 0, labels != 1], axis=1).astype(int)
        task, classes = MULTI_LABEL, 2
    problems = task.problems(labels, classes)
    fold = logistic.folds(np.stack([own for _, own in problems], axis=1), FOLDS)
    losses = []
    for C in AMONG:
        total = 0.0
        for number in range(FOLDS):
            held = fold == number
            for _, own in problems:
                model = scikit_learns(inputs[~held], own[~held], C)
                chances = model.predict_proba(inputs[held])
                total -= np.log(chances[np.arange(held.sum()), own[held]]).sum()
        losses.append(total)
    best = int(np.argmin(losses))
    for first in range(3):  # begin on either side of it
        among = AMONG[max(0, best - first) : best + 3]
        found = cross_fit(inputs, Problems(problems, classes), among)
        assert found.strength == AMONG[best]
    held = found.held
    for columns, own in problems:
        assert logistic.cross_entropy(held[:, columns], own, np.ones(len(own))) < 400 * np.log(
            len(columns) + 1
        )


def test_several_labels():
    inputs, _ = some(2, count=300)
    labels = (inputs[:, :2] + np.random.RandomState(1).normal(size=(300, 2)) > 0.5).astype(int)
    labels = np.concatenate([labels, np.zeros((300, 1), int)], axis=1)
    found = cross_fit(inputs, Problems(MULTI_LABEL.problems(labels, 3), 3), (0.5,))
    fold = logistic.folds(labels, FOLDS)
    for c in range(2):
        for number in range(FOLDS):
            held = fold == number
            model = scikit_learns(inputs[~held], labels[~held, c], 0.5)
            np.testing.assert_allclose(
                found.held[held, c], model.decision_function(inputs[held]), atol=2e-3
            )
    assert not found.weight[2].any() and (found.held[:, 2] < -4).all()


def test_scales_are_those_of_scaled_columns():
    """Penalising W / s is fitting the features times s with the plain penalty."""
    inputs, labels = some(3, count=203)
    inputs *= np.abs(inputs) > 0.4
    problems = Problems(SINGLE_LABEL.problems(labels, 3), 3)

    def scales(sample, goal):
        assert goal.shape == (203, 3) and set(sample) <= {0, 1}
        # The same for all classes, so that scikit-learn can do it, but of the fitted ones alone.
        return np.abs(inputs[sample > 0]).sum(axis=0)[:, None] / sample.sum() * np.ones((1, 3))

    found = cross_fit(csr_array(inputs), problems, (2.0,), scales)
    fold = logistic.folds(labels[:, None], FOLDS)
    for number in range(FOLDS):
        held = fold == number
        own = np.abs(inputs[~held]).mean(axis=0)
        model = scikit_learns(inputs[~held] * own, labels[~held], 2.0)
        np.testing.assert_allclose(
            centred(found.held[held]), log_odds(model, inputs[held] * own), atol=2e-3
        )


def test_scales_of_each_class_minimise_what_they_should():
    """Each class has scales of its own: against the gradient of the written-out objective."""
    inputs, labels = some(3)
    own = np.random.RandomState(3).uniform(0.1, 2, (6, 3))
    ones = np.ones(len(labels))
    fit = Fit(Features(csr_array(inputs)), labels, 3, "none", ones, lambda sample, goal: own)
    logistic.optimise([fit], 2.0, 1e-14)
    weight, bias = fit.solution()
    logits = inputs @ weight.T + bias
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    residuals = chances - np.eye(3)[labels]
    gradient = inputs.T @ residuals + weight.T / own**2 / 2.0
    assert np.abs(gradient).max() < 1e-4 and np.abs(residuals.sum(axis=0)).max() < 1e-4


def test_a_class_that_a_fold_lacks():
    inputs, labels = some(2, count=60)
    labels[7] = 2  # the only example of its class
    found = cross_fit(inputs, Problems(SINGLE_LABEL.problems(labels, 4), 4), AMONG)
    assert np.isfinite(found.held).all() and np.isfinite(found.weight).all()
    # It is never held out, where its class would not be known; that of no example is not.
    assert found.held[7, 2] > found.held[7, 3] == found.held[7].min()
    assert found.bias[3] < found.bias[:3].min() - 15


@pytest.mark.parametrize("count", [1, 2, 5, 9])
def test_too_few_examples_to_hold_any_out(count):
    inputs, labels = some(2, count=count)
    labels[:2] = [0, 1][: len(labels)]
    found = cross_fit(inputs, Problems(SINGLE_LABEL.problems(labels, 2), 2), AMONG)
    assert found.strength == AMONG[2] and np.isfinite(found.held).all()
    if count > 1:
        model = LogisticRegression(C=AMONG[2], tol=1e-10).fit(inputs, labels)
        np.testing.assert_allclose(centred(found.held), log_odds(model, inputs), atol=2e-3)
