"""The metrics of a split: one entry each in METRICS, computed from what was counted there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Scores = dict[str, float | None]  # by metric; None where it is not known


@dataclass(frozen=True)
class Outcome:
    """What a head's metrics on a split are computed from.

    Attributes:
        loss: The full loss, its weighted terms included.
        ce: The cross-entropy alone, without class weights.
        accuracy: The share of examples that are predicted correctly.
        correct: How often each class is predicted correctly, (C,) float64.
        predicted: How often each class is predicted, (C,).
        actual: How many examples have each class, (C,).
        average: How precision and recall are averaged: `binary` (those of class 1) or `weighted`
            (by support).
        counted: Which classes macro averages are over, (C,) bool.
        labels: The examples' labels, (N,) or (N, C), where they are known one by one.
        probabilities: Those of the labels, (N, C), where they are known; None while weights move.
    """

    loss: float
    ce: float
    accuracy: float
    correct: Array
    predicted: Array
    actual: Array
    average: str
    counted: Array
    labels: Array | None = None
    probabilities: Array | None = None

    @property
    def per_class(self) -> PerClass:
        """Precision, recall and F1 of each class."""
        return PerClass(
            ratio(self.correct, self.predicted),
            ratio(self.correct, self.actual),
            ratio(2 * self.correct, self.predicted + self.actual),
            self.actual.astype(np.int64),
        )

    def averaged(self, values: Array) -> float:
        """A figure of each class (C,) as one, the way that `average` says."""
        if self.average == "binary":
            return float(values[1])
        share = ratio(self.actual, np.full_like(self.actual, self.actual.sum()))
        return float((values * share).sum())


class PerClass(NamedTuple):
    """Precision, recall, F1 and the number of examples of each class, (C,) each."""

    precision: Array
    recall: Array
    f1: Array
    support: Array


@dataclass(frozen=True)
class Metric:
    """A figure of a head on a split.

    Attributes:
        heading: Its name in tables.
        short: The same where there is little room.
        compute: From what was counted; None where that does not suffice.
        higher_is_better: False for losses.
        best_marked: Whether tables mark a column's best, as the published ones do.
        curve: Whether reports draw it by epoch.
        most: The largest value that it can have.
    """

    heading: str
    short: str
    compute: Callable[[Outcome], float | None]
    higher_is_better: bool = True
    best_marked: bool = False
    curve: bool = False
    most: float = 1.0


# In the order of the tables' columns. Precision and recall as in the published tables; a ratio
# without cases counts as 0, as in scikit-learn.
METRICS: dict[str, Metric] = {
    "loss": Metric(
        "Loss",
        "Loss",
        lambda outcome: outcome.loss,
        higher_is_better=False,
        curve=True,
        most=np.inf,
    ),
    "ce": Metric("CE", "CE", lambda outcome: outcome.ce, higher_is_better=False, most=np.inf),
    "accuracy": Metric(
        "Accuracy", "Acc.", lambda outcome: outcome.accuracy, best_marked=True, curve=True
    ),
    "f1_macro": Metric(
        "Macro F1",
        "F1",
        lambda outcome: float(outcome.per_class.f1[outcome.counted].mean()),
        best_marked=True,
        curve=True,
    ),
    "precision": Metric(
        "Precision",
        "Prec.",
        lambda outcome: outcome.averaged(outcome.per_class.precision),
        best_marked=True,
        curve=True,
    ),
    "recall": Metric(
        "Recall",
        "Rec.",
        lambda outcome: outcome.averaged(outcome.per_class.recall),
        best_marked=True,
        curve=True,
    ),
}


def scores(outcome: Outcome) -> Scores:
    """Every metric of a split, by its name in METRICS."""
    return {name: metric.compute(outcome) for name, metric in METRICS.items()}


def ratio(part: Array, whole: Array) -> Array:
    """part / whole, 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
