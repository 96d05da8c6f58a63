"""Whether two systems differ by more than the choice of test examples, and of seeds, can explain.

Two heads (one seed each, or heads that have no seed) are compared on the examples alone: McNemar's
exact test, and a paired bootstrap over examples. Two systems trained with several seeds are
compared with seeds and examples as crossed random effects (`over_seeds`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spacelite.errors import SpaceliteError
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.scores import ratio
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.tasks import Task

RESAMPLES, FEWEST = 10_000, 1_000
LEVEL = 0.95  # confidence level of the intervals
Z = 1.959963984540054  # the normal distribution's quantile for it
MOST_CELLS = 20_000_000  # in all resampled tables together: a second or two
CELLS_AT_ONCE = 2_000_000  # 16 MB

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """A metric of one head or system minus that of a second one on the same examples, with its 95%
    interval."""

    value: float
    interval: Interval

    def reversed(self) -> Difference:
        """The same difference, as the second head minus the first."""
        low, high = self.interval
        return Difference(-self.value, (-high, -low))


def mcnemar(only_first: Array, only_second: Array) -> Array:
    """The exact McNemar test (two-sided p-values), from the numbers of examples that only the
    first head, or only the second, predicts correctly.

    Under the null hypothesis that both are correct equally often, each such example is a coin toss:
    2 P(X <= min(b, c)) with X ~ Binomial(b + c, 1/2), at most 1.
    """
    from scipy.special import bdtr

    fewer, both = np.minimum(only_first, only_second), np.add(only_first, only_second)
    p_values: Array = np.minimum(1.0, 2 * bdtr(fewer.astype(float), both, 0.5))
    return p_values


class Test(NamedTuple):
    """A difference, and the two-sided p-value of its being 0."""

    difference: Difference
    p: float


def resampled(differences: Array, held_out: float) -> tuple[Difference, float]:
    """The mean difference between two systems over the folds of a cross-validation, its 95%
    interval, and the two-sided p-value of its being 0: the corrected resampled t-test of Nadeau and
    Bengio (Machine Learning 52, 2003).

    The training sets of folds overlap, so the differences are not independent. Their variance s^2
    is therefore multiplied by 1 / J + n_2 / n_1 in place of 1 / J, with n_1 training and n_2
    held-out examples; Student's t has J - 1 degrees of freedom. `differences` (J,) are those of all
    folds and repeats, at least 2; `held_out` is n_2 / (n_1 + n_2).
    """
    from scipy.special import stdtr, stdtrit

    count, mean = len(differences), float(np.mean(differences))
    variance = float(np.var(differences, ddof=1)) * (1 / count + held_out / (1 - held_out))
    error = math.sqrt(variance)
    if error == 0:
        return Difference(mean, (mean, mean)), float(mean == 0)
    width = float(stdtrit(count - 1, (1 + LEVEL) / 2)) * error
    p = 2 * float(stdtr(count - 1, -abs(mean) / error))
    return Difference(mean, (mean - width, mean + width)), p


def over_seeds(first: Array, second: Array, paired: bool) -> Test:
    """The difference between two systems over seeds and examples, both random.

    With scores d of K seeds and N examples (first minus second), the mean squares of seeds,
    examples and residuals, MS_S, MS_E and MS_R, estimate the variance of the mean difference as
    (MS_S + max(MS_E - MS_R, 0)) / (K N): the analysis of several readers (here seeds) who read the
    same cases (here examples) by Dorfman, Berbaum and Metz (1992). The difference in units of its
    standard error is held against a mean of two quantiles of Student's t, with K - 1 and with N - 1
    degrees of freedom, weighted by the two parts of the variance (Cochran 1964). The usual
    approximations of the degrees of freedom (Satterthwaite, Hillis) err too often with 3 seeds.
    `tests/bench/verdicts.py` simulates error rates and power.

    The scores (K, N) of a system have a row per seed, or a single one for a system without a seed,
    which has no variance of that kind. `paired` rows belong together: both systems have the same
    seeds. If not, the variances of the two systems' seeds are added, and the fewer seeds count.
    A single example says nothing: p is 1.
    """
    examples = first.shape[1]
    value = float(first.mean() - second.mean())
    if examples < 2:
        return _unknown(value)
    together = paired or 1 in (len(first), len(second))
    by_seed, residual, seeds = 0.0, 0.0, max(len(first), len(second))
    for table in [first - second] if together else [first, second]:
        count = len(table)
        means = table.mean(axis=1, keepdims=True)
        by_seed += float(means.var(ddof=1)) / count  # MS_S / (K N)
        left = table - table.mean(axis=0) - means + table.mean()
        mean_square = float((left**2).sum()) / ((count - 1) * (examples - 1))
        residual += mean_square / (count * examples)  # MS_R / (K N)
        seeds = min(seeds, count)
    differences = first.mean(axis=0) - second.mean(axis=0)  # of each example
    by_example = max(
        float(differences.var(ddof=1)) / examples - residual, 0.0
    )  # (MS_E - MS_R) / (K N)
    return _tested(value, (by_seed, by_example), (seeds - 1, examples - 1))


def _unknown(value: float) -> Test:
    """A difference on a single example."""
    return Test(Difference(value, (-math.inf, math.inf)), 1.0)


def _tested(value: float, parts: tuple[float, float], freedoms: tuple[int, int]) -> Test:
    """A difference whose variance has two parts, each estimated with its degrees of freedom."""
    from scipy.optimize import brentq
    from scipy.special import stdtr, stdtrit

    variance = sum(parts)
    if variance <= 0:  # the same for every seed and example
        return Test(Difference(value, (value, value)), 1.0 if value == 0 else 0.0)
    weights = [part / variance for part in parts]
    error = variance**0.5
    ratio = abs(value) / error

    def quantile(tail: float) -> float:
        return -sum(
            weight * float(stdtrit(freedom, tail))
            for weight, freedom in zip(weights, freedoms, strict=True)
            if weight > 0
        )

    half = quantile((1 - LEVEL) / 2) * error
    # One tail's probability is between those of the two t distributions alone.
    tails = [float(stdtr(freedom, -ratio)) for freedom in freedoms]
    low, high = (float(np.log(max(tail, 1e-300))) for tail in (min(tails), max(tails)))
    if high > low:
        # A little beyond both, where rounding leaves no change of sign between them.
        low, high = max(low - 1e-6, -690.0), min(high + 1e-6, -0.69)
        high = brentq(lambda log: quantile(float(np.exp(log))) - ratio, low, high)
    p = min(1.0, 2 * float(np.exp(high)))
    return Test(Difference(value, (value - half, value + half)), p)


def paired(differences: Array) -> Test:
    """The mean of a difference per example, (N,), between two heads, with the 95% interval of a
    paired bootstrap and the p-value of a paired t-test. A single example says nothing: p is 1."""
    from scipy.special import stdtr

    count, value = len(differences), float(differences.mean())
    if count < 2:
        return _unknown(value)
    error = float(differences.std(ddof=1)) / math.sqrt(count)
    p = 2 * float(stdtr(count - 1, -abs(value) / error)) if error else float(value == 0)
    return Test(Difference(value, resampled_mean(differences)), p)


def f1_values(predictions: Predictions) -> Array:
    """A value per example, (N,), whose mean is macro F1 and whose variation over examples is that
    of macro F1 to first order: the pseudo-values of the infinitesimal jackknife (Efron 1982)."""
    task, classes = predictions.task, predictions.logits.shape[1]
    label = task.indicators(predictions.labels, classes)
    guess = task.indicators(predictions.predicted, classes)
    correct, either = label * guess, label + guess
    total = either.sum(axis=0)
    inverse = np.divide(1.0, total, out=np.zeros(classes), where=total > 0)
    f1 = 2 * correct.sum(axis=0) * inverse
    of_class = f1 + len(label) * inverse * (2 * correct - f1 * either)
    values: Array = of_class[:, task.in_macro(total > 0)].mean(axis=1)
    return values


def holm(p_values: Array) -> Array:
    """p-values (M,) corrected for M tests by Holm's step-down method (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return corrected


def accuracy_difference(
    only_first: int, only_second: int, examples: int, seed: int = 0
) -> Difference:
    """The difference in accuracy between two heads, from the numbers of examples that only the
    first head, or only the second, predicts correctly.

    Resampling the N examples with replacement is equivalent to drawing these two counts (and the
    rest) from a multinomial distribution. Each draw is one resample of the paired bootstrap; the
    interval runs from the 2.5th to the 97.5th percentile of 10,000 resamples.
    """
    counts = np.array([only_first, only_second, examples - only_first - only_second])
    drawn = np.random.default_rng(seed).multinomial(examples, counts / examples, RESAMPLES)
    values = (drawn[:, 0] - drawn[:, 1]) / examples
    return Difference((only_first - only_second) / examples, _interval(values))


def f1_difference(first: Predictions, second: Predictions, seed: int = 0) -> Difference:
    """The difference in macro F1 between two heads on the same examples.

    It depends only on how many examples have each combination of true label, first prediction and
    second prediction. These counts are drawn as in `accuracy_difference`, 10,000 times (fewer, but
    at least 1,000, if there are more than 2,000 combinations).

    Raises SpaceliteError if the labels differ: the predictions are for different examples.
    """
    if not np.array_equal(first.labels, second.labels):
        raise SpaceliteError("two heads can only be compared on the same examples")
    columns = [first.labels, first.predicted, second.predicted]
    rows = np.concatenate([column.reshape(len(first.labels), -1) for column in columns], axis=1)
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    # True labels and the two predictions of each cell: (cells, C) of 0 and 1.
    label, *guesses = (
        first.task.indicators(part, first.logits.shape[1]) for part in np.split(cells, 3, axis=1)
    )

    def difference(tables: Array) -> Array:
        scores = [_macro_f1(tables, label, guess, first.task) for guess in guesses]
        return scores[0] - scores[1]

    random = np.random.default_rng(seed)
    resamples = min(max(MOST_CELLS // len(counts), FEWEST), RESAMPLES)
    size = max(1, CELLS_AT_ONCE // len(counts))
    fractions = counts / counts.sum()
    values = [
        difference(random.multinomial(counts.sum(), fractions, min(size, resamples - done)))
        for done in range(0, resamples, size)
    ]
    return Difference(float(difference(counts[None])[0]), _interval(np.concatenate(values)))


def of_proportion(count: int, total: int) -> Interval:
    """The 95% interval of a proportion, such as an accuracy (Wilson 1927); 0 to 1 for none of
    none."""
    if not total:
        return 0.0, 1.0
    share, width = count / total, Z * Z / total
    middle = share + width / 2
    half = Z * math.sqrt(share * (1 - share) / total + width / (4 * total))
    return max(0.0, (middle - half) / (1 + width)), min(1.0, (middle + half) / (1 + width))


def of_mean(values: Array) -> Interval:
    """The 95% interval of the mean of a value per example, (N,), by its standard error."""
    mean = float(values.mean())
    half = Z * float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return mean - half, mean + half


def resampled_mean(values: Array, seed: int = 0) -> Interval:
    """The 95% interval of the mean of a value per example, (N,), from the 2.5th to the 97.5th
    percentile of the means of 10,000 resamples (fewer, but at least 1,000, of more than 2,000
    examples). Unlike that of `of_mean`, it stays between the smallest and the largest value, and is
    as skewed as they are. A single example says nothing of it: both ends are infinite."""
    count = len(values)
    if count < 2:
        return -math.inf, math.inf
    random = np.random.default_rng(seed)
    resamples = min(max(MOST_CELLS // count, FEWEST), RESAMPLES)
    size = max(1, CELLS_AT_ONCE // count)
    means = [
        values[random.integers(0, count, (min(size, resamples - done), count))].mean(axis=1)
        for done in range(0, resamples, size)
    ]
    return _interval(np.concatenate(means))


def bootstrap(figures: Callable[[Array], Sequence[float]], examples: int) -> list[Interval]:
    """The 95% interval of each figure of some examples, from 1,000 resamples of them: `figures` is
    given the indices of the examples, (N,). Resamples in which a figure is NaN are left out."""
    random = np.random.default_rng(0)
    values = np.array([
        figures(random.integers(0, examples, examples)) for _ in range(FEWEST)
    ])  # fmt: skip
    return [_interval(of[np.isfinite(of)]) if np.isfinite(of).any() else (math.nan, math.nan)
            for of in values.T]  # fmt: skip


def _interval(values: Array) -> Interval:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _macro_f1(counts: Array, label: Array, predicted: Array, task: Task) -> Array:
    """Macro F1 (R,) of R tables of `counts` (R, cells); `label` and `predicted` are (cells, C)."""
    either = counts @ (predicted + label)  # (R, C): predicted + actual
    hits = 2 * (counts @ (predicted * label))
    f1 = ratio(hits, either)
    counted = task.in_macro(either > 0)
    means: Array = (f1 * counted).sum(axis=1) / counted.sum(axis=1)
    return means
