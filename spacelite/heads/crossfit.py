"""Logistic regressions with their logits for examples that they were not fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.heads.logistic import (
    ROUGHLY,
    Features,
    Fit,
    Fitted,
    Scales,
    cross_entropy,
    folds,
    optima,
)
from spacelite.tasks.base import Problem

FOLDS = 5
CLOSELY = 1e-7  # the last step's decrease of the loss per example, in the final fit

Array = npt.NDArray[Any]


@contextmanager
def single_threaded() -> Iterator[None]:
    """Linear algebra on one core: on a busy machine, several threads of one product wait for each
    other, and it takes ten times as long."""
    import scipy.linalg  # noqa: F401 - what is not loaded yet cannot be limited
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


@dataclass(frozen=True)
class CrossFitted(Fitted):
    """What `cross_fit` returns.

    Attributes:
        held: The logits of each example by the fit that it was held out of, (N, C).
    """

    held: Array


def cross_fit(
    inputs: Any,
    problems: Sequence[Problem],
    classes: int,
    among: Sequence[float],
    class_weights: str = "none",
    scales: Scales | None = None,
    weights: Array | None = None,
) -> CrossFitted:
    """Fit all problems that make up a task, with the C that has the lowest cross-entropy in
    cross-validation, and keep the logits of held-out examples.

    The search for C begins in the middle and goes on, first to larger values and then to smaller
    ones, for as long as it helps.

    Args:
        inputs: Features, (N, p): an array, or a sparse matrix of scipy.
        problems: The problems.
        classes: Number of classes.
        among: The values that C is chosen from, in ascending order.
        class_weights: `none` or `balanced`.
        scales: How large each weight may be, computed from the examples that are fitted: the
            penalty is |W / scales|^2 / (2 C). Only for sparse features.
        weights: The weight of each example, (N,); None if all are 1.
    """
    features = Features(inputs)
    targets = np.stack([own for _, own in problems], axis=1)
    weights = np.ones(len(targets)) if weights is None else weights
    middle = len(among) // 2
    too_few = len(targets) < 2 * FOLDS
    fold = np.zeros(len(targets), int) if too_few else folds(targets, FOLDS)

    def fits(sample: Array) -> list[Fit]:
        return [
            Fit(features, own, len(columns), class_weights, sample, scales)
            for columns, own in problems
        ]

    def joined(of: Sequence[Fit], at: Sequence[Array]) -> tuple[Array, Array]:
        """Weights (C, p) and biases (C,) of all problems."""
        weight, bias = np.zeros((classes, features.width)), np.zeros(classes)
        for (columns, _), problem, own in zip(problems, of, at, strict=True):
            weight[columns], bias[columns] = problem.spread(own)
        return weight, bias

    whole = fits(weights)
    if too_few:  # to hold any out
        weight, bias = joined(whole, optima(whole, among[middle], [None] * len(whole), CLOSELY))
        return CrossFitted(weight, bias, among[middle], features.times(weight.T) + bias)
    parts = [one for number in range(FOLDS) for one in fits(weights * (fold != number))]
    last: list[Array | None] = [None] * len(parts)
    tried: dict[int, tuple[float, Array]] = {}

    def attempt(number: int) -> float:
        """The loss with a C; what is found is kept in `tried`."""
        if number in tried:
            return tried[number][0]
        found = optima(parts, among[number], last, ROUGHLY)
        last[:] = found
        count = len(problems)
        of_folds = [
            joined(parts[first : first + count], found[first : first + count])
            for first in range(0, len(parts), count)
        ]
        side_by_side = np.concatenate([weight.T for weight, _ in of_folds], axis=1)
        logits = features.times(side_by_side).reshape(len(targets), FOLDS, classes)
        logits = logits + np.array([bias for _, bias in of_folds])
        held = logits[np.arange(len(targets)), fold]
        loss = sum(cross_entropy(held[:, columns], own, weights) for columns, own in problems)
        tried[number] = loss, held
        return loss

    best, least = middle, attempt(middle)
    for way in (1, -1):
        while 0 <= best + way < len(among) and attempt(best + way) < least:
            best += way
            least = attempt(best)
    starts = last[: len(whole)]
    weight, bias = joined(whole, optima(whole, among[best], starts, CLOSELY))
    return CrossFitted(weight, bias, among[best], tried[best][1])
