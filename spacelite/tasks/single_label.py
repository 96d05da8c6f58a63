"""Single-label classification: a text has exactly one label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from spacelite.lazy import np, torch
from spacelite.metrics.thresholds import best_threshold
from spacelite.tasks.base import Problem, Task, matched
from spacelite.types import Array


class SingleLabel(Task):
    """Every text has one of C labels: a softmax, and the most probable label is predicted."""

    name = "single-label"
    phrase = "one label per text"
    label_dimensions = 1
    fewest_classes = 2
    stratified = True
    beyond = ", relative to their mean over the labels"

    @override
    def label_counts(self, labels: Array, classes: int) -> Array:
        return np.bincount(labels, minlength=classes)

    @override
    def strata(self, labels: Array) -> Array:
        return labels

    @override
    def learnable(self, labels: Array) -> bool:
        """More than one label."""
        return len(np.unique(labels)) > 1

    @override
    def label_names(self, label: Any, names: Sequence[str]) -> list[str]:
        return [names[int(label)]]

    @override
    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        return {"label": names[0] if names else None}

    @override
    def targets(self, labels: torch.Tensor, classes: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.nn.functional.one_hot(labels, classes).to(dtype)

    @override
    def balanced_weights(
        self, labels: torch.Tensor, classes: int, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """examples / (C * examples of the class), (C,), like scikit-learn's "balanced"."""
        weights = torch.ones_like(labels) if weights is None else weights.to(labels.device)
        counts = torch.zeros(classes, dtype=weights.dtype, device=weights.device).index_add_(
            0, labels, weights
        )
        return weights.sum() / (classes * torch.where(counts > 0, counts, 1)).float()

    @override
    def weights(
        self, labels: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None
    ) -> torch.Tensor:
        if class_weights is None:
            return torch.ones_like(targets[:, :1])
        return class_weights.to(targets)[labels, None]

    @override
    def loss_terms(
        self, logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        chosen = labels[None, :, None].expand(len(logits), -1, 1)
        return -torch.log_softmax(logits, dim=2).gather(2, chosen)

    @override
    def residuals(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.softmax(logits, dim=-1).sub_(targets)

    @override
    def count(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        targets: torch.Tensor,
        sample_weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        heads, _, classes = logits.shape
        head = torch.arange(heads, device=logits.device)[:, None]
        cells = (head * classes + labels) * classes + logits.argmax(dim=2)
        weights = sample_weights.double().expand_as(cells).flatten()
        counts = torch.bincount(cells.flatten(), weights, minlength=heads * classes**2)
        confusion = counts.view(heads, classes, classes).cpu()
        return confusion.diagonal(dim1=1, dim2=2).sum(dim=1), confusion

    def confusion_shape(self, classes: int) -> tuple[int, ...]:
        """(C, C), by true (row) and predicted (column) label."""
        return classes, classes

    def probabilities(self, logits: Array) -> Array:
        """The softmax."""
        logits = np.asarray(logits, np.float64)
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        normalised: Array = powers / powers.sum(axis=-1, keepdims=True)
        return normalised

    def decide(self, logits: Array, thresholds: Array | None = None) -> Array:
        """The most probable label, or with a threshold class 1 where its probability is above."""
        if thresholds is not None:
            return self.decide_from_probabilities(self.probabilities(logits), thresholds)
        predicted: Array = logits.argmax(axis=-1)
        return predicted

    @override
    def decide_from_probabilities(
        self, probabilities: Array, thresholds: Array | None = None
    ) -> Array:
        if thresholds is None:
            return self.decide(probabilities)
        above: Array = probabilities[..., 1] > thresholds[0]
        return above.astype(np.int64)

    @override
    def threshold_labels(self, names: Sequence[str]) -> list[str]:
        """Class 1 if there are two classes."""
        return [names[1]] if len(names) == 2 else []

    @override
    def best_thresholds(self, probabilities: Array, labels: Array, metric: str) -> Array:
        return np.array([best_threshold(probabilities[:, 1], labels == 1, metric)])

    @override
    def correct(self, predicted: Array, labels: Array) -> Array:
        return np.equal(predicted, labels)

    @override
    def confidence(self, probabilities: Array, predicted: Array) -> Array:
        return np.take_along_axis(probabilities, predicted[..., None], axis=-1)[..., 0]

    def confusion(self, labels: Array, predicted: Array, classes: int) -> Array:
        """(C, C), laid out as `confusion_shape` says."""
        cells = np.bincount(labels * classes + predicted, minlength=classes**2)
        return cells.reshape(classes, classes)

    @override
    def indicators(self, labels: Array, classes: int) -> Array:
        return np.eye(classes)[labels.reshape(-1)]

    @override
    def in_macro(self, occurs: Array) -> Array:
        """The classes that occur, as in scikit-learn."""
        return occurs

    def centred(self, contributions: Array) -> Array:
        """Only differences between logits matter, so the mean over the labels is subtracted."""
        beyond: Array = contributions - contributions.mean(axis=-1, keepdims=True)
        return beyond

    @override
    def average(self, classes: int) -> str:
        """As in the published tables: of class 1 if there are two classes, else by support."""
        return "binary" if classes == 2 else "weighted"

    @override
    def class_counts(self, confusion: Array) -> tuple[Array, Array, Array]:
        return np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)

    def problems(self, labels: Array, classes: int) -> list[Problem]:
        """One problem with all classes."""
        return [Problem(list(range(classes)), labels)]

    @override
    def map_labels(self, labels: Array, numbers: Array, classes: int) -> Array:
        return numbers[labels]

    @override
    def match(
        self, there: Sequence[str], here: Sequence[str], mapping: dict[str, str] | None
    ) -> Array | str:
        if mapping is not None:
            unknown = [name for name in mapping if name not in there]
            unknown += [name for name in mapping.values() if name and name not in here]
            missing = [name for name in there if name not in mapping]
            if unknown or missing:
                known = (
                    f"map each label of the data ({', '.join(there)}) to one of the run's "
                    f"({', '.join(here)}) with labels=..., or to none, which leaves its texts out"
                )
                if unknown:
                    return f"there is no label {unknown[0]!r}; {known}"
                return f"{missing[0]!r} is not mapped; {known}"
            numbers = {name: number for number, name in enumerate(here)}
            return np.array([numbers.get(mapping[name], -1) for name in there], np.int64)
        found = matched(there, here)
        if found is None:
            return (
                f"the data have {len(there)} labels ({', '.join(there)}), the run has {len(here)} "
                f"({', '.join(here)}): give the run's label for each of {', '.join(there)} "
                "with labels=..., or none, which leaves its texts out"
            )
        return found
