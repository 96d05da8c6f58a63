"""Ordinal regression: a text has a whole number whose order counts, such as stars from 1 to 5."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from typing_extensions import override

from spacelite.document import decimals
from spacelite.lazy import np
from spacelite.metrics.scores import Metric
from spacelite.tasks.base import Task
from spacelite.tasks.regression import HuberRegression, Numbers, Regression
from spacelite.types import Array


def quadratic_kappa(labels: Array, predicted: Array) -> float:
    """Cohen's kappa with quadratic weights (Cohen 1968): 1 less the mean squared error in units of
    that of independent draws from both; 0 where there is nothing to agree on."""
    of_chance = labels.var() + predicted.var() + (labels.mean() - predicted.mean()) ** 2
    return float(1 - np.mean((labels - predicted) ** 2) / of_chance) if of_chance else 0.0


class Ordinal(Regression):
    """The numbers are learned as in regression. What is predicted is the nearest whole number on
    the scale of the training labels; runs of older versions do not know it. The metrics of
    regression are those of the numbers before that."""

    name = "ordinal"
    phrase = "a whole number per text"
    rounds = True
    listed: Sequence[str] = ("rmse", "rounded_accuracy", "kappa")
    in_studies: Sequence[str] = ("rmse", "rounded_accuracy", "kappa")

    def __init__(self, scale: tuple[float, float] | None = None) -> None:
        self.scale = scale

    @override
    def trained_on(self, labels: Array) -> Task:
        return type(self)((float(labels.min()), float(labels.max())))

    def rounded(self, numbers: Array) -> Array:
        """Numbers as whole ones on the scale. That depends on the labels of training alone: those
        of the data that are evaluated would tell something of the truth."""
        whole: Array = np.round(numbers)
        return whole if self.scale is None else np.clip(whole, *self.scale)

    def _of_rounded(
        self, figure: Callable[[Array, Array], float]
    ) -> Callable[[Numbers], float | None]:
        """A metric of labels (N,) and rounded predictions (N,); None if only sums are known, or a
        prediction is not a number."""

        def compute(of: Numbers) -> float | None:
            if of.labels is None or of.predicted is None or not np.isfinite(of.predicted).all():
                return None
            return figure(of.labels, self.rounded(of.predicted))

        return compute

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """Those of regression, and of what is rounded."""
        right = self._of_rounded(lambda labels, rounded: float((labels == rounded).mean()))
        near = self._of_rounded(
            lambda labels, rounded: float((np.abs(labels - rounded) <= 1).mean())
        )
        return {
            **super().metrics,
            "rounded_accuracy": Metric("Accuracy (rounded)", "Acc.", right, best_marked=True),
            "within_one": Metric("Within one (rounded)", "±1", near, best_marked=True),
            "kappa": Metric(
                "Quadratic kappa (rounded)", "Kappa", self._of_rounded(quadratic_kappa),
                best_marked=True, least=-1.0,
            ),
        }  # fmt: skip

    @property
    @override
    def losses(self) -> Mapping[str, Task]:
        return {"squared": self, "huber": HuberOrdinal(self.scale)}

    @override
    def given(
        self,
        probabilities: Array,
        names: Sequence[str],
        minimum: float | None = None,
        thresholds: Array | None = None,
    ) -> list[list[str]]:
        """The predicted whole number of each text."""
        return [[f"{number:.0f}"] for number in self.rounded(probabilities[:, 0]).tolist()]

    @override
    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        number = float(names[0]) if names else None
        return {"value": int(number) if number is not None and number.is_integer() else number}

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
