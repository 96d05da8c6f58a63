"""Tests and intervals against scipy, statsmodels and counting by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from conftest import refusal
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests

from spacelite.metrics.predictions import Predictions
from spacelite.metrics.significance import (
    accuracy_difference,
    f1_difference,
    f1_values,
    holm,
    mcnemar,
    over_seeds,
)
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


def macro_f1(labels, guessed):
    """That of scikit-learn, without its checks, which take a thousand times longer."""
    of_class = [
        2 * (one & other).sum() / (one.sum() + other.sum())
        for one, other in ((labels == k, guessed == k) for k in np.unique([labels, guessed]))
    ]
    return np.mean(of_class)


@pytest.mark.parametrize("classes", [2, 3])
def test_intervals_equal_scipys_paired_bootstrap(classes):
    labels, (first, second) = heads(400, classes)
    for head in (first, second):
        expected = f1_score(labels, head.predicted, average="macro")
        assert macro_f1(labels, head.predicted) == pytest.approx(expected)
        assert np.mean(labels == head.predicted) == accuracy_score(labels, head.predicted)
    figures = (lambda y, guess: np.mean(y == guess), macro_f1)
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


def crossed(tables, value, seeds, examples):
    """(p, half width) of a difference with the variances of statsmodels' analysis of variance, held
    against Cochran's mean of two t distributions, whose tail is found by halving."""
    by_seed = residual = 0.0
    for table in tables:
        count = len(table)
        frame = pd.DataFrame(
            {
                "score": table.ravel(),
                "seed": np.repeat(np.arange(count), examples),
                "example": np.tile(np.arange(examples), count),
            }
        )
        squares = anova_lm(ols("score ~ C(seed) + C(example)", frame).fit())["mean_sq"]
        by_seed += squares["C(seed)"] / (count * examples)
        residual += squares["Residual"] / (count * examples)
    each = tables[0] if len(tables) == 1 else tables[0].mean(axis=0) - tables[1].mean(axis=0)
    each = each.mean(axis=0) if each.ndim == 2 else each
    by_example = max(np.var(each, ddof=1) / examples - residual, 0)
    error = np.sqrt(by_seed + by_example)
    weight = by_seed / (by_seed + by_example)

    def quantile(p):
        one, other = (stats.t.isf(p / 2, freedom) for freedom in (seeds - 1, examples - 1))
        return weight * one + (1 - weight) * other

    low, high = 1e-12, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if quantile(middle) > abs(value) / error else (low, middle)
    return low, quantile(0.05) * error


@pytest.mark.parametrize("seeds", [2, 3, 6])
@pytest.mark.parametrize("kind", ["paired", "apart", "fixed"])
def test_seeds_and_examples_are_crossed_random_effects(seeds, kind):
    random = np.random.default_rng(seeds)
    examples = 60
    common = random.normal(size=examples)
    first, second = (
        (common + random.normal(size=(count, examples)) + random.normal(size=(count, 1)) / 4 > -0.5)
        * 1.0
        for count in (seeds, {"paired": seeds, "apart": seeds + 2, "fixed": 1}[kind])
    )
    found = over_seeds(first, second, kind == "paired")
    tables = [first, second] if kind == "apart" else [first - second]
    value = first.mean() - second.mean()
    p, half = crossed(tables, value, seeds, examples)
    assert found.difference.value == pytest.approx(value)
    assert found.p == pytest.approx(p, rel=1e-6, abs=1e-9)
    assert found.difference.interval == pytest.approx((value - half, value + half), rel=1e-6)
    turned = over_seeds(second, first, kind == "paired")
    assert turned.p == pytest.approx(found.p)
    assert turned.difference.value == pytest.approx(-value)


def test_systems_that_never_differ_have_no_difference():
    same = (np.random.default_rng(0).random((3, 50)) < 0.6) * 1.0
    found = over_seeds(same, same, paired=True)
    assert found.p == 1 and found.difference.interval == (0, 0)
    always = over_seeds(np.ones((3, 50)), np.zeros((3, 50)), paired=True)
    assert always.p == 0 and always.difference.value == 1


def test_beats_is_rarely_said_of_systems_that_are_equally_good():
    """Three seeds whose variance is that of the examples, where usual approximations err most."""
    random = np.random.default_rng(1)
    found = 0
    for _ in range(600):
        accuracy = 0.65 + 0.012 * random.normal(size=(2, 3, 1))
        first, second = (random.random((2, 3, 500)) < accuracy) * 1.0
        found += over_seeds(first, second, paired=True).p < 0.05
    assert found <= 45  # 5% of 600 and three standard deviations


@pytest.mark.parametrize("classes", [2, 3])
def test_values_of_examples_have_macro_f1_as_their_mean_and_its_variation(classes):
    labels, (first, _) = heads(400, classes, seed=3)
    values = f1_values(first)
    guessed = first.predicted
    assert values.mean() == pytest.approx(f1_score(labels, guessed, average="macro"))
    # The jackknife: macro F1 without each example in turn.
    left_out = np.array(
        [macro_f1(np.delete(labels, i), np.delete(guessed, i)) for i in range(len(labels))]
    )
    jackknife = (len(labels) - 1) ** 2 / len(labels) * left_out.var(ddof=1)
    assert values.var(ddof=1) / len(labels) == pytest.approx(jackknife, rel=0.02)


def test_values_of_examples_with_several_labels():
    random = np.random.RandomState(0)
    labels, logits = random.randint(0, 2, (80, 3)), random.normal(size=(80, 3))
    one = Predictions(np.arange(80), labels, logits, MULTI_LABEL)
    expected = f1_score(labels, (logits > 0).astype(int), average="macro")
    assert f1_values(one).mean() == pytest.approx(expected)
