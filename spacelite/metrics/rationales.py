"""How well an order of a text's words agrees with the words that people marked, as ERASER measures
it (DeYoung et al., ACL 2020), and intervals over texts.

Shapes: W words of a text, N texts, M figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from spacelite.types import Array

LEAST_IOU = 0.5  # of a span of words that counts as one that people marked
RESAMPLES, LEVEL = 10_000, 0.95
COUNTS_AT_ONCE = 2_000_000  # 16 MB


class Estimate(NamedTuple):
    """A figure over texts, with its 95% interval."""

    value: float
    low: float
    high: float


def top(scores: Array, count: int) -> Array:
    """Which `count` words have the highest scores (W,), as (W,) bool; of equal ones the first."""
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(-scores, kind="stable")[:count]] = True
    return chosen


def average_precision(scores: Array, marked: Array) -> float:
    """The area below the steps of the curve of precision over recall, of scores (W,) for words of
    which at least one is `marked` (W,). Words with equal scores are taken together."""
    gained, precision = _curve(scores, marked)
    return float(gained @ precision)


def auprc(scores: Array, marked: Array) -> float:
    """The area below straight lines between the points of the same curve, which begins at a
    precision of 1, as ERASER computes it. Equal scores for all words give (1 + the share of marked
    words) / 2: straight lines are too high there (Davis & Goadrich, ICML 2006)."""
    gained, precision = _curve(scores, marked)
    before = np.concatenate([[1.0], precision[:-1]])
    return float(gained @ (before + precision) / 2)


def _curve(scores: Array, marked: Array) -> tuple[Array, Array]:
    """The recall that each group of words with equal scores adds, the highest first, and the
    precision of all words up to it."""
    _, group = np.unique(-scores, return_inverse=True)
    hits = np.bincount(group, weights=marked)
    return hits / hits.sum(), np.cumsum(hits) / np.cumsum(np.bincount(group))


def token_f1(chosen: Array, marked: Array) -> float:
    """F1 of the chosen words (W,) bool, of which the marked ones are right."""
    return float(2 * (chosen & marked).sum() / (chosen.sum() + marked.sum()))


def runs_of(mask: Array) -> list[tuple[int, int]]:
    """The first word of each run of words in a mask (W,), and the one after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(first, last) for first, last in edges.reshape(-1, 2).tolist()]


def span_matches(chosen: Array, marked: Array) -> tuple[float, float]:
    """Precision and recall of the runs of chosen words: one counts if a run of marked words has an
    intersection over union of at least 0.5 with it."""
    found, wanted = runs_of(chosen), runs_of(marked)
    hits = sum(
        max(_overlap(span, other) for other in wanted) >= LEAST_IOU for span in found if wanted
    )
    return hits / max(1, len(found)), hits / max(1, len(wanted))


def _overlap(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Intersection over union of two spans."""
    common = max(0, min(first[1], second[1]) - max(first[0], second[0]))
    return common / (first[1] - first[0] + second[1] - second[0] - common)


def f1(precision: Array, recall: Array) -> Array:
    """Their harmonic mean, 0 where both are 0."""
    total = precision + recall
    both: Array = np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1), 0.0)
    return both


def estimates(
    values: Array, seed: int, figures: Callable[[Array], Array] = lambda means: means
) -> list[Estimate]:
    """Figures of the means over N texts of `values` (N, K), with the interval from the 2.5th to the
    97.5th percentile of 10,000 resamples of the texts. `figures` makes (R, M) of means (R, K)."""
    count, random = len(values), np.random.default_rng(seed)
    size = max(1, COUNTS_AT_ONCE // count)
    means = np.concatenate(
        [
            random.multinomial(count, np.full(count, 1 / count), min(size, RESAMPLES - done))
            @ values / count
            for done in range(0, RESAMPLES, size)
        ]
    )  # fmt: skip
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(figures(means), [tail, 100 - tail], axis=0)
    (value,) = figures(values.mean(axis=0, keepdims=True))
    return [Estimate(*map(float, of)) for of in zip(value, low, high, strict=True)]
