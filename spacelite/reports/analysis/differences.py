"""Which differences between the systems of a group are more than chance: one test per pair."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.metrics import significance
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.significance import Difference
from spacelite.reports.analysis.groups import System

SYSTEMS, FITS, HEADS = "systems", "fits", "heads"  # what a comparison is of

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same examples; differences are the first minus the second.

    Attributes:
        first: Name of the first system.
        second: Name of the second system.
        accuracy: Difference in accuracy, with its interval.
        f1_macro: Difference in macro F1, with its interval.
        identical: Whether all compared heads make the same predictions.
        corrected: p of the difference in accuracy, corrected for all pairs of the group (Holm).
        basis: What is compared: SYSTEMS over their seeds, FITS (neither has a seed), or the HEADS
            of the lowest seeds, where a system has a single one.
        seeds: Number of seeds of the system that has fewer; 1 for FITS and HEADS.
    """

    first: str
    second: str
    accuracy: Difference
    f1_macro: Difference
    identical: bool
    corrected: float
    basis: str
    seeds: int

    def turned(self) -> Comparison:
        """The second system minus the first."""
        return replace(
            self,
            first=self.second,
            second=self.first,
            accuracy=self.accuracy.turned(),
            f1_macro=self.f1_macro.turned(),
        )


@dataclass(frozen=True)
class Pair:
    """Two systems: their difference in `accuracy` (first minus second), its `p`, and the same
    `corrected` for all pairs of the group (Holm); `basis` as in Comparison."""

    first: str
    second: str
    accuracy: Difference
    p: float
    corrected: float
    basis: str


def tested_pairs(
    systems: dict[str, System], predictions: dict[str, list[Predictions]], shown: set[str]
) -> tuple[list[Pair], int]:
    """All pairs of `shown` systems that predict the same examples, and the number of such pairs
    among all systems, for which p is corrected."""
    every = [
        (one, other)
        for one, other in itertools.combinations(predictions, 2)
        if np.array_equal(predictions[one][0].labels, predictions[other][0].labels)
    ]
    correct = {
        name: np.array([each.correct for each in own], np.float64)
        for name, own in predictions.items()
    }
    tests, bases = [], []
    for one, other in every:
        basis = _basis(systems[one], systems[other])
        tests.append(
            _accuracy_test(basis, systems[one], systems[other], correct[one], correct[other])
        )
        bases.append(basis)
    corrected = significance.holm(np.array([test.p for test in tests]))
    made = [
        Pair(one, other, test.difference, test.p, float(after), basis)
        for (one, other), test, after, basis in zip(every, tests, corrected, bases, strict=True)
        if {one, other} <= shown
    ]
    return made, len(every)


def _basis(first: System, second: System) -> str:
    if first.fixed and second.fixed:
        return FITS
    several = all(system.fixed or len(system.runs) > 1 for system in (first, second))
    return SYSTEMS if several else HEADS


def _accuracy_test(
    basis: str, first: System, second: System, one: Array, other: Array
) -> significance.Test:
    """The difference in accuracy, from whether each head is right on each example, (K, N)."""
    if basis == SYSTEMS:
        return significance.over_seeds(one, other, _same_seeds(first, second))
    only = [int((a > b).sum()) for a, b in ((one[0], other[0]), (other[0], one[0]))]
    p = float(significance.mcnemar(np.array(only[0]), np.array(only[1])))
    difference = significance.accuracy_difference(only[0], only[1], one.shape[1])
    return significance.Test(difference, p)


def _same_seeds(first: System, second: System) -> bool:
    seeds = [[run.record.seed for run in system.runs] for system in (first, second)]
    return not (first.fixed or second.fixed) and seeds[0] == seeds[1]


def with_best(
    best: str | None,
    systems: dict[str, System],
    predictions: dict[str, list[Predictions]],
    pairs: Sequence[Pair],
) -> list[Comparison]:
    """Compare `best`, the system with the highest accuracy among those with saved predictions,
    with each of the others."""
    made = []
    for pair in pairs:
        if best is None or best not in (pair.first, pair.second):
            continue
        turned = pair.second == best
        name = pair.first if turned else pair.second
        first, second = predictions[best], predictions[name]
        if pair.basis == SYSTEMS:
            values = [np.array([significance.f1_values(each) for each in own])
                      for own in (first, second)]  # fmt: skip
            paired = _same_seeds(systems[best], systems[name])
            f1 = significance.over_seeds(values[0], values[1], paired).difference
        else:
            first, second = first[:1], second[:1]
            f1 = significance.f1_difference(first[0], second[0])
        made.append(
            Comparison(
                first=best,
                second=name,
                accuracy=pair.accuracy.turned() if turned else pair.accuracy,
                f1_macro=f1,
                identical=all(
                    np.array_equal(a.predicted, b.predicted) for a, b in _together(first, second)
                ),
                corrected=pair.corrected,
                basis=pair.basis,
                seeds=_fewest_seeds(systems[best], systems[name]) if pair.basis == SYSTEMS else 1,
            )
        )
    return made


def _together(
    first: Sequence[Predictions], second: Sequence[Predictions]
) -> list[tuple[Predictions, Predictions]]:
    """Heads that are compared: those of one seed, or each with each."""
    if len(first) == len(second):
        return list(zip(first, second, strict=True))
    return list(itertools.product(first, second))


def _fewest_seeds(first: System, second: System) -> int:
    return min(len(system.runs) for system in (first, second) if not system.fixed)
