"""Whether two heads differ by more than the random choice of test examples can explain.

The variation between seeds is a separate source of uncertainty, and not part of these tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spacelite.errors import SpaceliteError
from spacelite.metrics.predictions import Predictions

if TYPE_CHECKING:
    from spacelite.tasks import Task

RESAMPLES, FEWEST = 10_000, 1_000
LEVEL = 0.95  # confidence level of the intervals
MOST_CELLS = 20_000_000  # in all resampled tables together: a second or two
CELLS_AT_ONCE = 2_000_000  # 16 MB

Array = npt.NDArray[Any]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """A metric of one head minus that of a second head on the same examples, with the 95% interval
    of a paired bootstrap over examples."""

    value: float
    interval: Interval

    def turned(self) -> Difference:
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
    label, one, other = (
        first.task.indicators(part, first.logits.shape[1]) for part in np.split(cells, 3, axis=1)
    )

    def difference(tables: Array) -> Array:
        scores = [_macro_f1(tables, label, guess, first.task) for guess in (one, other)]
        return scores[0] - scores[1]

    random = np.random.default_rng(seed)
    resamples = min(max(MOST_CELLS // len(counts), FEWEST), RESAMPLES)
    size = max(1, CELLS_AT_ONCE // len(counts))
    share = counts / counts.sum()
    values = [
        difference(random.multinomial(counts.sum(), share, min(size, resamples - done)))
        for done in range(0, resamples, size)
    ]
    return Difference(float(difference(counts[None])[0]), _interval(np.concatenate(values)))


def _interval(values: Array) -> Interval:
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def _macro_f1(counts: Array, label: Array, predicted: Array, task: Task) -> Array:
    """Macro F1 (R,) of R tables of `counts` (R, cells); `label` and `predicted` are (cells, C)."""
    there = counts @ (predicted + label)  # (R, C): predicted + actual
    hits = 2 * (counts @ (predicted * label))
    f1 = np.divide(hits, there, out=np.zeros_like(there), where=there > 0)
    counted = task.in_macro(there > 0)
    means: Array = (f1 * counted).sum(axis=1) / counted.sum(axis=1)
    return means
