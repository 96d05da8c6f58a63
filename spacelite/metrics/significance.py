"""Whether two heads differ by more than the chance of which examples are in the test split.

The uncertainty over seeds is another one, and no part of what is computed here.
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
LEVEL = 0.95  # of the intervals
MOST_CELLS = 20_000_000  # of all resampled tables: a second or two
CELLS_AT_ONCE = 2_000_000  # 16 MB

Array = npt.NDArray[Any]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """The figure of a first head less a second's on the same examples, with the 95% interval of a
    paired bootstrap over examples."""

    value: float
    interval: Interval

    def turned(self) -> Difference:
        """The second less the first."""
        low, high = self.interval
        return Difference(-self.value, (-high, -low))


def mcnemar(only_first: Array, only_second: Array) -> Array:
    """The exact McNemar test (two-sided p-values) from the numbers of examples that only the
    first head and only the second head predicts correctly.

    Under the hypothesis that both are correct equally often, each such example is a coin toss:
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
    """The difference in accuracy of two heads, from the numbers of examples that only the first and
    only the second predicts correctly.

    Drawing N of N examples with replacement is drawing these two counts (and the rest) from a
    multinomial distribution: each draw is one resample of the paired bootstrap, and the interval
    lies between the 2.5 and 97.5 percentiles of 10,000.
    """
    counts = np.array([only_first, only_second, examples - only_first - only_second])
    drawn = np.random.default_rng(seed).multinomial(examples, counts / examples, RESAMPLES)
    values = (drawn[:, 0] - drawn[:, 1]) / examples
    return Difference((only_first - only_second) / examples, _interval(values))


def f1_difference(first: Predictions, second: Predictions, seed: int = 0) -> Difference:
    """The difference in macro F1 of two heads on the same examples.

    It depends on counts alone: how many examples have which label and which two predictions. These
    are drawn as in `accuracy_difference`, 10,000 times (1,000 at least, where there are over 2,000
    different counts).

    Raises SpaceliteError where the two are predictions for different examples.
    """
    if not np.array_equal(first.labels, second.labels):
        raise SpaceliteError("two heads can only be compared on the same examples")
    columns = [first.labels, first.predicted, second.predicted]
    rows = np.concatenate([column.reshape(len(first.labels), -1) for column in columns], axis=1)
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    # Which labels each cell has, and is predicted: (cells, C) of 0 and 1.
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
    """Of R tables of `counts` (R, cells), (R,); `label` and `predicted` (cells, C)."""
    there = counts @ (predicted + label)  # (R, C): predicted + actual
    hits = 2 * (counts @ (predicted * label))
    f1 = np.divide(hits, there, out=np.zeros_like(there), where=there > 0)
    counted = task.in_macro(there > 0)
    means: Array = (f1 * counted).sum(axis=1) / counted.sum(axis=1)
    return means
