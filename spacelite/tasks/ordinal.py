"""Ordinal regression: a text has a whole number whose order counts, such as stars from 1 to 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from typing_extensions import override

from spacelite.document import decimals
from spacelite.lazy import np
from spacelite.metrics.scores import Metric
from spacelite.tasks.base import Task
from spacelite.tasks.regression import HuberRegression, Numbers, Regression
from spacelite.types import Array


def _of_rounded(figure: Callable[[Array, Array], float]) -> Callable[[Numbers], float | None]:
    """A metric of labels (N,) and predictions, rounded to whole numbers, (N,); None if only sums
    are known, or a prediction is not a number. They are not moved to labels that occur in the data:
    those would tell the metric something of the truth."""

    def compute(of: Numbers) -> float | None:
        if of.labels is None or of.predicted is None or not np.isfinite(of.predicted).all():
            return None
        return figure(of.labels, np.round(of.predicted))

    return compute


def quadratic_kappa(labels: Array, predicted: Array) -> float:
    """Cohen's kappa with quadratic weights (Cohen 1968): 1 less the mean squared error in units of
    that of independent draws from both; 0 where there is nothing to agree on."""
    of_chance = labels.var() + predicted.var() + (labels.mean() - predicted.mean()) ** 2
    return float(1 - np.mean((labels - predicted) ** 2) / of_chance) if of_chance else 0.0


class Ordinal(Regression):
    """The numbers are learned and predicted as in regression. Metrics also read each prediction as
    the nearest whole number."""

    name = "ordinal"
    phrase = "a whole number per text"
    listed: Sequence[str] = ("rmse", "rounded_accuracy", "kappa")
    in_studies: Sequence[str] = ("rmse", "rounded_accuracy", "kappa")

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """Those of regression, and of what is rounded."""
        right = _of_rounded(lambda labels, rounded: float((labels == rounded).mean()))
        near = _of_rounded(lambda labels, rounded: float((np.abs(labels - rounded) <= 1).mean()))
        return {
            **super().metrics,
            "rounded_accuracy": Metric("Accuracy (rounded)", "Acc.", right, best_marked=True),
            "within_one": Metric("Within one (rounded)", "±1", near, best_marked=True),
            "kappa": Metric(
                "Quadratic kappa (rounded)", "Kappa", _of_rounded(quadratic_kappa),
                best_marked=True, least=-1.0,
            ),
        }  # fmt: skip

    @property
    @override
    def losses(self) -> Mapping[str, Task]:
        return {"squared": self, "huber": HuberOrdinal()}

    @override
    def problem_of(self, number: float) -> str:
        return "" if float(number).is_integer() else "which is no whole number"

    @override
    def check(self, labels: Array, classes: int) -> bool:
        return super().check(labels, classes) and bool((labels % 1 == 0).all())

    def simple_baseline(self, training: Array, labels: Array, names: Sequence[str]) -> str:
        """Of the mean, and of the most frequent label."""
        values, counts = np.unique(training, return_counts=True)
        most = values[counts.argmax()]
        return (
            f"{super().simple_baseline(training, labels, names)}; {most:g}, the most frequent "
            f"label, is right for {decimals(float((labels == most).mean()), 4)} of the texts"
        )


class HuberOrdinal(Ordinal):
    """The same, trained with the loss of `HuberRegression`."""

    loss_terms = HuberRegression.loss_terms
    residuals = HuberRegression.residuals
