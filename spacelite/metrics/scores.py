"""The metrics of a split: each is one entry in METRICS, computed from an `Outcome`; and how far
confidence can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from spacelite.document import decimals, figure, one_place, with_sign
from spacelite.lazy import np
from spacelite.types import Array

Scores = dict[str, float | None]  # by metric; None if it could not be computed

BINS = 15  # of a reliability diagram, as in Guo et al. 2017


@dataclass(frozen=True)
class Outcome:
    """What a head's metrics on a split are computed from. Labels and probabilities are None if only
    counts are known, as for the metrics of a training epoch."""

    loss: float  # cross-entropy with class weights, plus the head's weighted penalties
    ce: float  # cross-entropy alone, without class weights
    accuracy: float  # share of examples that are predicted correctly
    correct: Array  # how often each class is predicted correctly, (C,) float64
    predicted: Array  # how often each class is predicted, (C,)
    actual: Array  # how many examples have each class, (C,)
    average: str  # of precision and recall: `binary` (those of class 1) or `weighted` (by support)
    counted: Array  # which classes macro averages include, (C,) bool
    labels: Array | None = None  # (N,) or (N, C)
    probabilities: Array | None = None  # of each class, (N, C)

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
        """The average over classes of per-class `values` (C,), computed as `average` says."""
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
    """A metric of a head on a split.

    Attributes:
        heading: Column heading in tables.
        short: Shorter heading, for narrow tables.
        compute: Computes the metric from an `Outcome`, or what a task has in its place; None if
            that lacks what the metric needs.
        higher_is_better: False for losses.
        best_marked: Whether tables mark the best value, as the published tables do.
        curve: Whether reports plot the metric by epoch.
        least: Smallest possible value.
        most: Largest possible value.
        from_predictions: Whether saved predictions are enough to compute the metric, as reports do
            for runs that were saved before the metric existed.
        power: Of the labels' unit in that of the metric: 2 for a squared error.
    """

    heading: str
    short: str
    compute: Callable[[Any], float | None]
    higher_is_better: bool = True
    best_marked: bool = False
    curve: bool = False
    least: float = 0.0
    most: float = 1.0
    from_predictions: bool = False
    power: int = 0

    @property
    def sign(self) -> int:
        """1 if higher is better, else -1."""
        return 1 if self.higher_is_better else -1

    def error(self, values: Array) -> Array:
        """How far values are from the best possible one."""
        return self.most - values if self.higher_is_better else values - self.least

    def written(self, value: float, places: int = 4, scale: float | None = None) -> str:
        """A value as tables and sentences show it: with decimals, or in the unit of the labels as
        `figure` writes it, beside the value `scale`."""
        return figure(value, scale) if self.power else decimals(value, places)

    @property
    def in_points(self) -> bool:
        """Whether differences are in points: the metric is a share."""
        return (self.least, self.most) == (0.0, 1.0)

    def amount(self, difference: float) -> str:
        """A difference: `1.3`, in points, `0.0123` in the unit of the labels, or `0.012` of R²."""
        if self.in_points:
            return one_place(100 * difference)
        return figure(difference) if self.power else with_sign(difference, 3).removeprefix("+")

    @property
    def of_amount(self) -> str:
        """What follows an amount: ` points of accuracy`, or ` in RMSE`."""
        return f" points of {self.in_words}" if self.in_points else f" in {self.in_words}"

    @property
    def in_words(self) -> str:
        """The metric inside a sentence: `macro F1`, `AUROC`."""
        first = self.heading.split(" ", 1)[0]
        return self.heading if first.isupper() else self.heading[0].lower() + self.heading[1:]


def auroc(outcome: Outcome) -> float | None:
    """The area under the ROC curve, a mean over classes: the probability that an example which has
    the class gets a higher probability of it than one which does not; equal ones count one half.

    Classes that all examples have, or none, are left out. None if no class is left, if only counts
    are known, or if a probability is not a number.
    """
    if outcome.labels is None or outcome.probabilities is None:
        return None
    values = np.asarray(outcome.probabilities, np.float64)
    if not np.isfinite(values).all():
        return None
    has = outcome.labels
    if has.ndim == 1:
        has = np.equal(has[:, None], np.arange(values.shape[1]))
    areas = [
        _area(values[has[:, c] > 0, c], values[has[:, c] == 0, c]) for c in range(values.shape[1])
    ]
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None


def _area(having: Array, others: Array) -> float | None:
    """The share of pairs in which the value of `having` is higher, from its rank among `others`."""
    if not len(having) or not len(others):
        return None
    others = np.sort(others)
    below, not_above = (np.searchsorted(others, having, side) for side in ("left", "right"))
    return float((below + not_above).sum() / 2 / (len(having) * len(others)))


# In the order of the tables' columns. Precision and recall follow the published tables; 0 / 0
# counts as 0, as in scikit-learn.
METRICS: dict[str, Metric] = {
    "loss": Metric(
        "Loss",
        "Loss",
        lambda outcome: outcome.loss,
        higher_is_better=False,
        curve=True,
        most=math.inf,
    ),
    "ce": Metric("CE", "CE", lambda outcome: outcome.ce, higher_is_better=False, most=math.inf),
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
    "auroc": Metric("AUROC", "AUROC", auroc, best_marked=True, from_predictions=True),
}


def ratio(part: Array, whole: Array) -> Array:
    """part / whole, or 0 where `whole` is 0."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram: mean confidence, accuracy and number of decisions in each of B bins of
    equal width, (B,), NaN for an empty bin; and the expected calibration error, the mean of
    |accuracy - confidence| over bins, weighted by `count`."""

    confidence: Array
    accuracy: Array
    count: Array
    error: float


def calibration(confidence: Array, correct: Array, bins: int = BINS) -> Calibration:
    """The reliability diagram of N decisions from their confidence (N,) in [0, 1] and whether each
    is correct (N,); bins are (a, b]. Guo et al., "On Calibration of Modern Neural Networks",
    arXiv:1706.04599."""
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = np.bincount(index, confidence, bins) / count
        accuracy = np.bincount(index, correct, bins) / count
    gaps = np.nan_to_num(np.abs(accuracy - means))
    return Calibration(means, accuracy, count, float((gaps * count).sum() / count.sum()))
