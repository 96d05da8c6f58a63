"""Tests and intervals against scipy, statsmodels and counting by hand."""

import itertools

import numpy as np
import pytest
from conftest import refusal
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from spacelite.metrics.predictions import Predictions
from spacelite.metrics.significance import accuracy_difference, f1_difference, holm, mcnemar
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL


def predicting(labels, predicted, classes):
    return Predictions(np.arange(len(labels)), labels, np.eye(classes)[predicted], SINGLE_LABEL)


def differences(first, second, seed=0):
    only = [(a.correct & ~b.correct).sum() for a, b in ((first, second), (second, first))]
    accuracy = accuracy_difference(*map(int, only), len(first.labels), seed)
    return accuracy, f1_difference(first, second, seed)


def heads(count, classes, seed=0, skill=(0.6, 0.5)):
    """Two heads of some skill on the same random labels."""
    random = np.random.RandomState(seed)
    labels = random.randint(0, classes, count)
    guesses = [
        np.where(random.uniform(size=count) < share, labels, random.randint(0, classes, count))
        for share in skill
    ]
    return labels, [predicting(labels, guess, classes) for guess in guesses]


def test_mcnemar_equals_statsmodels():
    for b, c in itertools.product([0, 1, 2, 5, 9, 40, 300], repeat=2):
        expected = statsmodels_mcnemar([[7, b], [c, 3]], exact=True).pvalue if b + c else 1.0
        assert mcnemar(np.array(b), np.array(c)) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_equals_counting_every_outcome():
    b, c = 2, 7
    tosses = list(itertools.product([0, 1], repeat=b + c))
    as_far = [t for t in tosses if min(sum(t), b + c - sum(t)) <= min(b, c)]
    assert mcnemar(np.array(b), np.array(c)) == pytest.approx(len(as_far) / len(tosses))


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_holm_equals_statsmodels(count):
    p_values = np.random.RandomState(count).uniform(0, 0.2, count)
    p_values[0] = p_values[-1]  # a tie
    expected = multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_intervals_equal_scipys_paired_bootstrap(classes):
    labels, (first, second) = heads(400, classes)
    figures = (
        lambda y, guess: accuracy_score(y, guess),
        lambda y, guess: f1_score(y, guess, average="macro"),
    )
    for made, figure in zip(differences(first, second), figures, strict=True):

        def difference(y, one, other, figure=figure):
            return figure(y, one) - figure(y, other)

        data = (labels, first.predicted, second.predicted)
        assert made.value == pytest.approx(difference(*data), abs=1e-12)
        expected = stats.bootstrap(
            data, difference, paired=True, vectorized=False, n_resamples=700,
            method="percentile", random_state=np.random.default_rng(1),
        ).confidence_interval  # fmt: skip
        # Of 0.17, to within the noise of scipy's 700 resamples.
        assert made.interval == pytest.approx(tuple(expected), abs=0.02)
        assert made.interval[1] - made.interval[0] > 0.1


def test_accuracys_interval_equals_the_exact_distribution():
    """Of 6 examples all 6^6 resamples, one by one."""
    labels = np.zeros(6, int)
    first = predicting(labels, np.array([0, 0, 0, 0, 1, 1]), 2)
    second = predicting(labels, np.array([0, 1, 1, 1, 1, 0]), 2)
    each = first.correct.astype(int) - second.correct.astype(int)
    every = [each[list(rows)].mean() for rows in itertools.product(range(6), repeat=6)]
    accuracy, _ = differences(first, second)
    assert accuracy.interval == pytest.approx(np.percentile(every, [2.5, 97.5]), abs=1e-9)


def test_identical_heads_are_never_called_different():
    for seed in range(20):
        labels, (first, _) = heads(50 + seed, 3, seed)
        again = predicting(labels, first.predicted, 3)
        for made in differences(first, again, seed):
            assert made.value == 0 and made.interval == (0, 0)
        assert mcnemar(np.array(0), np.array(0)) == 1


def test_heads_of_equal_skill_are_seldom_called_different():
    """The test's level holds: p < 0.05 in at most a twentieth of cases, but for chance."""
    found = 0
    for seed in range(400):
        _, (first, second) = heads(200, 2, seed, skill=(0.5, 0.5))
        b = (first.correct & ~second.correct).sum()
        c = (second.correct & ~first.correct).sum()
        found += mcnemar(b, c) < 0.05
    assert found <= stats.binom.ppf(0.999, 400, 0.05)


def test_several_labels_an_example():
    random = np.random.RandomState(0)
    labels = random.randint(0, 2, (300, 3))
    logits = [labels - 0.5 + random.normal(size=(300, 3)) * s for s in (0.5, 0.8)]
    first, second = (Predictions(np.arange(300), labels, values, MULTI_LABEL) for values in logits)
    accuracy, f1 = differences(first, second)
    scores = [accuracy_score(labels, one.predicted) for one in (first, second)]
    assert accuracy.value == pytest.approx(scores[0] - scores[1], abs=1e-12)
    scores = [f1_score(labels, one.predicted, average="macro") for one in (first, second)]
    assert f1.value == pytest.approx(scores[0] - scores[1], abs=1e-12)
    assert accuracy.interval[0] > 0 and f1.interval[0] > 0


def test_heads_on_other_examples_are_refused():
    _, (first, _) = heads(50, 2, 0)
    _, (_, second) = heads(50, 2, 1)
    assert "same examples" in refusal(f1_difference, first, second)
