"""Regression: a text has a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from spacelite.document import figure, of_label
from spacelite.lazy import np, torch
from spacelite.metrics.scores import METRICS as OF_CLASSES
from spacelite.metrics.scores import Metric, PerClass, Scores
from spacelite.tasks.base import Problem, Task, Unit
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.metrics.predictions import Predictions
    from spacelite.metrics.significance import Difference, Interval, Test

BINS = 10  # quantiles of the labels, by which samples and folds are stratified
LEAST_IN_BIN = 20


@dataclass(frozen=True)
class Numbers:
    """What metrics are computed from: sums over N examples with the labels y and predictions p."""

    loss: float
    # N, and the sums of (p - y)^2, |p - y|, p, p^2, y, y^2 and p y.
    sums: Array
    labels: Array | None = None  # (N,)
    predicted: Array | None = None  # (N,)

    @property
    def mse(self) -> float:
        """The mean squared error."""
        return float(self.sums[1] / self.sums[0])

    @property
    def moments(self) -> tuple[float, float, float]:
        """N times the variances of predictions and labels, and N times their covariance."""
        count, _, _, p, pp, y, yy, py = map(float, self.sums)
        return pp - p * p / count, yy - y * y / count, py - p * y / count

    @property
    def r2(self) -> float | None:
        """The share of the labels' variance that is explained; None if they do not vary."""
        of_labels = self.moments[1]
        return None if of_labels <= 0 else 1 - float(self.sums[1]) / of_labels

    @property
    def pearson(self) -> float | None:
        """The correlation of predictions and labels; None if one of them does not vary."""
        of_predicted, of_labels, together = self.moments
        product = of_predicted * of_labels
        return together / math.sqrt(product) if min(of_predicted, of_labels) > 0 else None

    @property
    def spearman(self) -> float | None:
        """The correlation of their ranks, of which equal values share the mean; None also if only
        sums are known."""
        if self.labels is None or self.predicted is None:
            return None
        if not np.isfinite(self.predicted).all():
            return None
        return Numbers(0.0, sums_of(ranks(self.labels), ranks(self.predicted))).pearson


def sums_of(labels: Array, predicted: Array) -> Array:
    """The sums of `Numbers`, (8,) float64, from labels and predictions (N,)."""
    y, p = labels.astype(np.float64), predicted.astype(np.float64)
    error = p - y
    # The correlations and R2 do not depend on where the numbers begin: large ones lose digits, and
    # those that do not vary are 0 exactly.
    y, p = y - y[:1], p - p[:1]
    sums = (error @ error, np.abs(error).sum(), p.sum(), p @ p, y.sum(), y @ y, p @ y)
    return np.array([len(y), *sums])


def ranks(values: Array) -> Array:
    """The rank of each of N values, (N,); equal ones share the mean."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[index.reshape(-1)]


METRICS: dict[str, Metric] = {
    "loss": replace(OF_CLASSES["loss"], power=2),
    "mse": Metric(
        "MSE", "MSE", lambda of: of.mse, higher_is_better=False, most=math.inf, power=2
    ),
    "rmse": Metric(
        "RMSE", "RMSE", lambda of: math.sqrt(of.mse), higher_is_better=False, best_marked=True,
        curve=True, most=math.inf, power=1,
    ),
    "mae": Metric(
        "MAE", "MAE", lambda of: float(of.sums[2] / of.sums[0]), higher_is_better=False,
        best_marked=True, curve=True, most=math.inf, power=1,
    ),
    "r2": Metric(
        "R²", "R²", lambda of: of.r2, best_marked=True, curve=True, least=-math.inf,
    ),
    "pearson": Metric(
        "Correlation (Pearson)", "Pearson", lambda of: of.pearson, best_marked=True, least=-1.0
    ),
    "spearman": Metric(
        "Rank correlation (Spearman)", "Spearman", lambda of: of.spearman, best_marked=True,
        least=-1.0,
    ),
}  # fmt: skip


class Regression(Task):
    """A text has a number, which is the only output of a head. In training, numbers are
    standardised by the mean and standard deviation of the training labels; a saved head predicts
    in the unit of the labels. The loss is the squared error."""

    name = "regression"
    phrase = "a number per text"
    label_dimensions = 1
    label_type = "float64"
    has_probabilities = False
    column_type = "double"
    of_numbers = True
    fewest_present = 1
    beyond = ""
    output = "prediction"
    listed_words = "raise and lower the prediction most"
    word_lists: Mapping[str, int] = {"Words that raise {}": 1, "Words that lower {}": -1}
    worst = ("The largest errors", "the prediction")
    counterparts: Mapping[str, str] = {"logreg": "ridge"}
    refused: Mapping[str, str] = {
        "class_weights": "numbers have no classes",
        "threshold": "numbers have no probability",
        "inter": "there is a single concept space, and L_inter is about several",
    }
    headline, second, plain_loss, loss_in_words = "rmse", "mae", "mse", "squared error"
    listed: Sequence[str] = ("rmse", "mae", "r2")
    in_studies = listed
    instead: Mapping[str, str] = {"accuracy": "rmse", "f1_macro": "rmse", "ce": "mse"}
    test = "a paired t-test"

    @property
    @override
    def metrics(self) -> Mapping[str, Metric]:
        return METRICS

    # Labels.

    def label_counts(self, labels: Array, classes: int) -> Array:
        """Every example has a number."""
        return np.array([len(labels)])

    @override
    def spread(self, labels: Array) -> str:
        return (
            f"{of_label(labels.min())} to {of_label(labels.max())}, mean "
            f"{of_label(labels.mean())}, standard deviation {figure(labels.std())}"
        )

    def strata(self, labels: Array) -> Array:
        """The quantile of each label, out of BINS or as many as have LEAST_IN_BIN examples."""
        bins = max(1, min(BINS, len(labels) // LEAST_IN_BIN))
        cuts = np.quantile(labels, np.arange(1, bins) / bins)
        return np.searchsorted(cuts, labels, side="right").astype(np.int64)

    def learnable(self, labels: Array) -> bool:
        """More than one number."""
        return len(np.unique(labels)) > 1

    @override
    def check(self, labels: Array, classes: int) -> bool:
        return classes == 1 and bool(np.isfinite(labels).all())

    @override
    def label_names(self, label: Any, names: Sequence[str]) -> list[str]:
        return [of_label(float(label), 8)]

    @override
    def in_words(self, label: Any, names: Sequence[str]) -> str:
        return of_label(float(label), 4)

    @override
    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        return {"value": float(names[0]) if names else None}

    # Loss.

    @override
    def targets(self, labels: torch.Tensor, classes: int, dtype: torch.dtype) -> torch.Tensor:
        return labels[:, None].to(dtype)

    @override
    def weights(
        self, labels: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None
    ) -> torch.Tensor:
        return torch.ones_like(targets)

    @override
    def loss_terms(
        self, logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        return (logits - targets) ** 2

    @override
    def residuals(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return 2 * (logits - targets)

    @override
    def count(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        targets: torch.Tensor,
        sample_weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        p = logits[..., 0].double()
        y = targets[..., 0].double().expand_as(p)
        weights = sample_weights.double()
        error = p - y
        sums = [
            (weights * values).sum(dim=1)
            for values in (torch.ones_like(p), error**2, error.abs(), p, p * p, y, y * y, p * y)
        ]
        right = (weights * (error == 0)).sum(dim=1)
        return right.cpu(), torch.stack(sums, dim=1).cpu()

    def confusion_shape(self, classes: int) -> tuple[int, ...]:
        """(8,), the sums of `Numbers`."""
        return (8,)

    @property
    @override
    def losses(self) -> Mapping[str, Task]:
        return {"squared": self, "huber": HuberRegression()}

    @override
    def unit(self, labels: torch.Tensor, weights: Sequence[torch.Tensor | None]) -> Unit:
        means, deviations = [], []
        for of_head in weights:
            share = torch.ones_like(labels) if of_head is None else of_head.to(labels)
            share = share / share.sum()
            means.append(share @ labels)
            deviations.append(torch.sqrt(share @ (labels - means[-1]) ** 2))
        mean, deviation = torch.stack(means), torch.stack(deviations)
        return Unit(mean, torch.where(deviation > 0, deviation, 1))

    # Predictions.

    def probabilities(self, logits: Array) -> Array:
        """The predicted numbers, (..., 1)."""
        return np.asarray(logits, np.float64)

    @override
    def decide(self, logits: Array, thresholds: Array | None = None) -> Array:
        return self.decide_from_probabilities(np.asarray(logits, np.float64))

    @override
    def decide_from_probabilities(
        self, probabilities: Array, thresholds: Array | None = None
    ) -> Array:
        numbers: Array = probabilities[..., 0]
        return numbers

    def given(
        self,
        probabilities: Array,
        names: Sequence[str],
        minimum: float | None = None,
        thresholds: Array | None = None,
    ) -> list[list[str]]:
        """The predicted number of each text, with all its digits."""
        return [[repr(number)] for number in probabilities[:, 0].tolist()]

    def correct(self, predicted: Array, labels: Array) -> Array:
        """Whether a number is predicted exactly."""
        return np.equal(predicted, labels)

    @override
    def decisions(self, probabilities: Array, predicted: Array, labels: Array) -> None:
        return None

    @override
    def confusion(self, labels: Array, predicted: Array, classes: int) -> Array:
        return sums_of(labels, predicted)

    @override
    def centred(self, contributions: Array) -> Array:
        return contributions

    # Metrics.

    @override
    def outcome(
        self,
        loss: float,
        ce: float,
        accuracy: float,
        confusion: Array,
        labels: Array | None = None,
        logits: Array | None = None,
    ) -> Numbers:
        if labels is None or logits is None:
            return Numbers(loss, confusion)
        predicted = self.decide(logits)
        return Numbers(loss, sums_of(labels, predicted), labels, predicted)

    def in_unit(self, scores: Scores, deviation: float | None) -> Scores:
        """Without a deviation, the loss is not known: its terms are weighted in units of one."""
        if deviation is None:
            return {**scores, "loss": None}
        return {
            name: None if value is None else value * deviation ** self.metrics[name].power
            for name, value in scores.items()
        }

    def values(self, metric: str, predictions: Predictions) -> Array:
        """Of the RMSE, the pseudo-values of the infinitesimal jackknife (Efron 1982)."""
        error: Array = predictions.predicted - predictions.labels
        if metric == "mae":
            return -np.abs(error)
        rmse = float(np.sqrt(np.mean(error**2)))
        if not rmse:
            return np.zeros(len(error))
        return -(rmse + (error**2 - rmse**2) / (2 * rmse))

    @override
    def compare(self, first: Predictions, second: Predictions) -> Test:
        from spacelite.metrics import significance

        name = self.headline
        return significance.paired(self.values(name, first) - self.values(name, second))

    @override
    def second_difference(self, first: Predictions, second: Predictions) -> Difference:
        from spacelite.metrics import significance

        name = self.second
        return significance.paired(self.values(name, first) - self.values(name, second)).difference

    def intervals(self, predictions: Predictions) -> dict[str, tuple[float, Interval]]:
        """By a bootstrap over examples."""
        from spacelite.metrics import significance

        labels, predicted = predictions.labels, predictions.predicted
        names = [name for name in self.metrics if name not in ("loss", "mse")]

        def figures(rows: Array) -> list[float]:
            of = Numbers(0.0, sums_of(labels[rows], predicted[rows]), labels[rows], predicted[rows])
            values = [self.metrics[name].compute(of) for name in names]
            return [math.nan if value is None else value for value in values]

        every = np.arange(len(labels))
        resampled = significance.bootstrap(figures, len(labels))
        return dict(zip(names, zip(figures(every), resampled, strict=True), strict=True))

    def badness(self, predictions: Predictions) -> Array:
        """The absolute error."""
        return -self.values("mae", predictions)

    @override
    def per_class(self, confusion: Array) -> PerClass | None:
        return None

    @override
    def simple_baseline(self, training: Array, labels: Array, names: Sequence[str]) -> str:
        mean = float(training.mean())
        of = Numbers(0.0, sums_of(labels, np.full(len(labels), mean)))
        rmse, mae = (figure(METRICS[name].compute(of) or 0.0) for name in ("rmse", "mae"))
        return (
            f"Always predicting {of_label(mean)}, the mean of training, gives RMSE {rmse} and MAE "
            f"{mae}"
        )

    # For fitting, and for the labels of a different data set.

    @override
    def problems(self, labels: Array, classes: int) -> list[Problem]:
        return [Problem([0], labels.astype(np.float64))]

    @override
    def map_labels(self, labels: Array, numbers: Array, classes: int) -> Array:
        return labels

    @override
    def renumbered(self, labels: Array, numbers: Array, classes: int) -> tuple[Array, Array]:
        return np.arange(len(labels)), labels

    def takes(self, other: Task) -> bool:
        """Data of numbers."""
        return other.of_numbers

    @override
    def match(
        self, there: Sequence[str], here: Sequence[str], mapping: dict[str, str] | None
    ) -> Array | str:
        if mapping is not None:
            return "its labels are numbers, and labels=... is for names of classes: leave it out"
        return np.zeros(1, np.int64)


class HuberRegression(Regression):
    """The same, trained with twice the Huber loss (Huber 1964): the squared error up to a standard
    deviation of the training labels, and linear beyond."""

    @override
    def loss_terms(
        self, logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        error = (logits - targets).abs()
        return torch.where(error <= 1, error**2, 2 * error - 1)

    @override
    def residuals(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return 2 * (logits - targets).clamp(-1, 1)
