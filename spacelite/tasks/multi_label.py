"""Multi-label classification: a text has any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from spacelite.lazy import np, torch
from spacelite.metrics.thresholds import best_threshold
from spacelite.tasks.base import Problem, Task, matched
from spacelite.types import Array


class MultiLabel(Task):
    """A text has any number of C labels: one sigmoid and one decision per label."""

    name = "multi-label"
    phrase = "several labels per text"
    label_dimensions = 2
    column_type = ("string",)
    undecided = "left without a label that has a probability above one half but below {}"
    undecided_at_threshold = (
        "left without a label that has a probability above its threshold but below {}"
    )
    beyond = ""

    @override
    def label_counts(self, labels: Array, classes: int) -> Array:
        counts: Array = labels.sum(axis=0)
        return counts

    @override
    def unlabelled(self, labels: Array) -> int:
        return int((~labels.any(axis=1)).sum())

    def strata(self, labels: Array) -> Array:
        """A single stratum: combinations of labels may be too rare for proportional sampling."""
        return np.zeros(len(labels), np.int64)

    @override
    def fine_strata(self, labels: Array) -> Array:
        """The rarest label of each example; C for an example without labels."""
        order = np.argsort(labels.sum(axis=0), kind="stable")
        rarest = order[labels[:, order].argmax(axis=1)]
        return np.asarray(np.where(labels.any(axis=1), rarest, labels.shape[1]))

    @override
    def label_names(self, label: Any, names: Sequence[str]) -> list[str]:
        return [names[int(number)] for number in np.flatnonzero(label)]

    @override
    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        return {"labels": list(names)}

    @override
    def targets(self, labels: torch.Tensor, classes: int, dtype: torch.dtype) -> torch.Tensor:
        return labels.to(dtype)

    @override
    def balanced_weights(
        self, labels: torch.Tensor, classes: int, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Weights of each class separately, (C, 2): for examples without it, and with it."""
        weights = torch.ones_like(labels[:, 0]) if weights is None else weights.to(labels.device)
        positive = weights @ labels.to(weights)
        counts = torch.stack([weights.sum() - positive, positive], dim=1)
        return weights.sum() / (2 * torch.where(counts > 0, counts, 1)).float()

    @override
    def weights(
        self, labels: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None
    ) -> torch.Tensor:
        if class_weights is None:
            return torch.ones_like(targets)
        absent, present = class_weights.to(targets).unbind(dim=1)
        return torch.where(labels > 0, present, absent)

    def loss_terms(
        self, logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Binary cross-entropy, one term per class."""
        terms: torch.Tensor = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, targets.expand_as(logits), reduction="none"
        )
        return terms

    @override
    def residuals(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits).sub_(targets)

    @override
    def count(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        targets: torch.Tensor,
        sample_weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        heads, _, classes = logits.shape
        head = torch.arange(heads, device=logits.device)[:, None, None]
        label = torch.arange(classes, device=logits.device)
        predicted = (logits > 0).long()
        cells = ((head * classes + label) * 2 + labels) * 2 + predicted
        weights = sample_weights.double()
        correct = (predicted == labels).all(dim=2) * weights
        of_cells = weights[:, :, None].expand_as(cells).flatten()
        counts = torch.bincount(cells.flatten(), of_cells, minlength=heads * classes * 4)
        return correct.sum(dim=1).cpu(), counts.view(heads, classes, 2, 2).cpu()

    def confusion_shape(self, classes: int) -> tuple[int, ...]:
        """(C, 2, 2): for each label, absent and present, by true (row) and predicted (column)."""
        return classes, 2, 2

    def probabilities(self, logits: Array) -> Array:
        """The sigmoid of each logit."""
        return np.exp(-np.logaddexp(0, -np.asarray(logits, np.float64)))

    def decide(self, logits: Array, thresholds: Array | None = None) -> Array:
        """Every label with a probability above one half, or above its threshold."""
        if thresholds is not None:
            return self.decide_from_probabilities(self.probabilities(logits), thresholds)
        return (logits > 0).astype(np.int64)

    @override
    def decide_from_probabilities(
        self, probabilities: Array, thresholds: Array | None = None
    ) -> Array:
        above: Array = probabilities > (0.5 if thresholds is None else thresholds)
        return above.astype(np.int64)

    @override
    def threshold_labels(self, names: Sequence[str]) -> list[str]:
        """All labels."""
        return list(names)

    @override
    def best_thresholds(self, probabilities: Array, labels: Array, metric: str) -> Array:
        """Of each label by itself: the thresholds for F1 have the best macro F1 together. Those for
        accuracy decide most of all single labels correctly; whether all labels of a text are
        correct depends on the thresholds of all labels at a time, and is not what is maximised."""
        return np.array(
            [
                best_threshold(of_label, has > 0, metric, alone=True)
                for of_label, has in zip(probabilities.T, labels.T, strict=True)
            ]
        )

    def correct(self, predicted: Array, labels: Array) -> Array:
        """Whether all of an example's labels, and no others, are predicted."""
        same: Array = np.all(np.equal(predicted, labels), axis=1)
        return same

    @override
    def confidence(self, probabilities: Array, predicted: Array) -> Array:
        """The product of the confidences of all of an example's decisions."""
        together: Array = np.where(predicted > 0, probabilities, 1 - probabilities).prod(axis=-1)
        return together

    @override
    def decisions(
        self, probabilities: Array, predicted: Array, labels: Array
    ) -> tuple[Array, Array]:
        """One decision for each label of each example."""
        confidence = np.where(predicted > 0, probabilities, 1 - probabilities)
        return confidence.ravel(), np.equal(predicted, labels).ravel()

    def confusion(self, labels: Array, predicted: Array, classes: int) -> Array:
        """(C, 2, 2), laid out as `confusion_shape` says."""
        counts = np.zeros((classes, 2, 2), np.int64)
        np.add.at(counts, (np.arange(classes), labels, predicted), 1)
        return counts

    @override
    def indicators(self, labels: Array, classes: int) -> Array:
        return labels.astype(np.float64)

    @override
    def in_macro(self, occurs: Array) -> Array:
        """All classes."""
        return np.ones_like(occurs)

    def centred(self, contributions: Array) -> Array:
        """Every logit is a separate decision, so contributions stay as they are."""
        return contributions

    @override
    def average(self, classes: int) -> str:
        return "weighted"

    @override
    def class_counts(self, confusion: Array) -> tuple[Array, Array, Array]:
        present, predicted = confusion[:, 1], confusion[:, :, 1]
        return present[:, 1], predicted.sum(axis=1), present.sum(axis=1)

    def problems(self, labels: Array, classes: int) -> list[Problem]:
        """One binary problem per label."""
        return [Problem([c], labels[:, c]) for c in range(classes)]

    @override
    def takes(self, other: Task) -> bool:
        return other is self or other.label_dimensions == 1

    @override
    def map_labels(self, labels: Array, numbers: Array, classes: int) -> Array:
        mapped = np.zeros((len(labels), classes), np.int64)
        mapped[:, numbers] = labels
        return mapped

    @override
    def match(
        self, there: Sequence[str], here: Sequence[str], mapping: dict[str, str] | None
    ) -> Array | str:
        if mapping is not None:
            return "labels can only be mapped in data with one label per text"
        found = matched(there, here)
        if found is None:
            return (
                f"the data have the labels {', '.join(there)}, the run has {', '.join(here)}: with "
                "several labels per text the two must have the same"
            )
        return found
