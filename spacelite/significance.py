"""Whether two heads differ by more than the chance of which examples are in the test split.

The spread over seeds is another uncertainty, and no part of what is computed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.errors import SpaceliteError
from spacelite.outputs import Outputs

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


def mcnemar(only_first: Array, only_second: Array) -> Array:
    """The exact McNemar test (two-sided p-values) from the numbers of examples that only the first
    head and only the second head has right.

    Under the hypothesis that both are right equally often each such example is a coin's toss:
    2 P(X <= min(b, c)) with X ~ Binomial(b + c, 1/2), at most 1.
    """
    from scipy.special import bdtr

    fewer, both = np.minimum(only_first, only_second), np.add(only_first, only_second)
    made: Array = np.minimum(1.0, 2 * bdtr(fewer.astype(float), both, 0.5))
    return made


def holm(p_values: Array) -> Array:
    """p-values (M,) corrected for M tests by Holm's step-down method (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return corrected


def differences(first: Outputs, second: Outputs, seed: int = 0) -> tuple[Difference, Difference]:
    """The differences in accuracy and in macro F1 of two heads on the same examples.

    Both figures depend on counts alone: how many examples have which label and which two
    predictions. Drawing N of N examples with replacement is drawing those counts from a
    multinomial distribution; each of 10,000 tables of counts is one resample of the paired
    bootstrap (of 1,000 at least, where there are over 2,000 different counts), and the interval
    lies between their 2.5 and 97.5 percentiles.

    Raises SpaceliteError for outputs of other examples.
    """
    if not np.array_equal(first.labels, second.labels):
        raise SpaceliteError("two heads can only be compared on the same examples")
    columns = [first.labels, first.predicted, second.predicted]
    rows = np.concatenate([column.reshape(len(first.labels), -1) for column in columns], axis=1)
    cells, counts = np.unique(rows, axis=0, return_counts=True)
    # Which labels each cell has, is predicted, and is rightly predicted: (cells, C) of 0 and 1.
    label, one, other = (_indicators(part, first) for part in np.split(cells, 3, axis=1))
    tables = _Tables(label, one, other, several=first.several)
    random = np.random.default_rng(seed)
    resamples = min(max(MOST_CELLS // len(counts), FEWEST), RESAMPLES)
    size = max(1, CELLS_AT_ONCE // len(counts))
    share = counts / counts.sum()
    resampled = [
        tables.differences(random.multinomial(counts.sum(), share, min(size, resamples - done)))
        for done in range(0, resamples, size)
    ]
    values = tables.differences(counts[None])[:, 0]
    tail = 50 * (1 - LEVEL)
    bounds = np.percentile(np.concatenate(resampled, axis=1), [tail, 100 - tail], axis=1)
    accuracy, f1 = (
        Difference(float(value), (float(low), float(high)))
        for value, low, high in zip(values, *bounds, strict=True)
    )
    return accuracy, f1


def _indicators(part: Array, outputs: Outputs) -> Array:
    if outputs.several:
        return part.astype(np.float64)
    return np.eye(outputs.logits.shape[1])[part[:, 0]]


@dataclass(frozen=True)
class _Tables:
    """What the cells of a table of counts mean: labels and predictions, (cells, C) each."""

    label: Array
    one: Array
    other: Array
    several: bool

    def differences(self, counts: Array) -> Array:
        """Of tables `counts` (R, cells): accuracy and macro F1 of the first less the second,
        (2, R)."""
        pairs = [self._figures(counts, predicted) for predicted in (self.one, self.other)]
        return pairs[0] - pairs[1]

    def _figures(self, counts: Array, predicted: Array) -> Array:
        right = (predicted == self.label).all(axis=1).astype(np.float64)
        accuracy = counts @ right / counts.sum(axis=1)
        there = counts @ (predicted + self.label)  # (R, C): predicted + actual
        hits = 2 * (counts @ (predicted * self.label))
        f1 = np.divide(hits, there, out=np.zeros_like(there), where=there > 0)
        occurs = np.ones_like(there, bool) if self.several else there > 0
        return np.stack([accuracy, f1.sum(axis=1) / occurs.sum(axis=1)])
