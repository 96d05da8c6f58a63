"""What a label is: targets, decision, loss, metrics, and the matching of two data sets' labels.

One object a kind of task; nothing else in the code asks whether a text has one label or several.
A new kind (regression, say) is a class here and a line in TASKS. Shapes: N or B examples, C
classes, K heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from spacelite.errors import SpaceliteError
from spacelite.lazy import torch
from spacelite.metrics.scores import Outcome

Array = npt.NDArray[Any]


class Problem(NamedTuple):
    """A plain classification that a task's labels hold: `targets` (N,), numbered from 0, whose
    classes are the task's `columns`."""

    columns: list[int]
    targets: Array


class Task(ABC):
    """What the labels of a data set are. Instances have no state: compare them with `is`."""

    name: str
    phrase: str  # "one label per text"
    label_dimensions: int  # of an array of labels
    beyond: str  # what `centred` shares are, as words after "the shares"

    # Labels of a data set, numpy.

    @abstractmethod
    def label_counts(self, labels: Array, classes: int) -> Array:
        """How many examples have each of the C labels, (C,) int64."""

    @abstractmethod
    def strata(self, labels: Array) -> Array:
        """Which stratum each example belongs to where samples are stratified, (N,) int64."""

    @abstractmethod
    def label_names(self, label: Any, names: Sequence[str]) -> list[str]:
        """The names of what one example is labelled with; of a row of `labels`."""

    @abstractmethod
    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """One example's label names as programs get them: {"label": ...} or {"labels": [...]}."""

    # Loss, torch.

    @abstractmethod
    def targets(self, labels: torch.Tensor, classes: int, dtype: torch.dtype) -> torch.Tensor:
        """(B, C): 1 for the classes that an example has, else 0."""

    @abstractmethod
    def balanced_weights(self, labels: torch.Tensor, classes: int) -> torch.Tensor:
        """Class weights that give every class the same sum, for `weights`."""

    @abstractmethod
    def weights(
        self, labels: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None
    ) -> torch.Tensor:
        """The weight of every term of the cross-entropy, (B, 1) or (B, C)."""

    @abstractmethod
    def cross_entropy(
        self, logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """The terms of the cross-entropy of `logits` (K, B, C): (K, B, 1) or (K, B, C)."""

    @abstractmethod
    def activation(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities of `logits` (..., C); less the targets, they are the gradient of the
        cross-entropy's terms by the logits."""

    @abstractmethod
    def count_confusion(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Confusion matrices of `logits` (K, B, C): (K, *confusion_shape) int64, on the CPU."""

    @abstractmethod
    def confusion_shape(self, classes: int) -> tuple[int, ...]:
        """The shape of `confusion`."""

    @abstractmethod
    def count_correct(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """How many examples of `logits` (K, B, C) are predicted correctly, (K,) on the CPU."""

    # Predictions, numpy.

    @abstractmethod
    def probabilities(self, logits: Array) -> Array:
        """Of logits (..., C), float64."""

    @abstractmethod
    def decide(self, logits: Array) -> Array:
        """What is predicted from logits (..., C): arrays as labels are."""

    @abstractmethod
    def decide_probable(self, probabilities: Array) -> Array:
        """What is predicted from probabilities (N, C): arrays as labels are."""

    @abstractmethod
    def correct(self, predicted: Array, labels: Array) -> Array:
        """(N,) bool: whether everything is predicted correctly of an example."""

    @abstractmethod
    def confidence(self, probabilities: Array) -> Array:
        """(N,) the probability of what is predicted of an example, from (N, C)."""

    @abstractmethod
    def decisions(
        self, probabilities: Array, predicted: Array, labels: Array
    ) -> tuple[Array, Array]:
        """(confidence, whether it is correct) of every single decision, (D,) each."""

    @abstractmethod
    def confusion(self, labels: Array, predicted: Array, classes: int) -> Array:
        """Counts of examples by what they are labelled with and what is predicted."""

    @abstractmethod
    def indicators(self, labels: Array, classes: int) -> Array:
        """(N, C) float64: 1 for the classes that an example has, of labels as they are stored."""

    @abstractmethod
    def in_macro(self, occurs: Array) -> Array:
        """Which classes macro averages are over, of which occur (..., C) as label or prediction."""

    @abstractmethod
    def centred(self, shares: Array) -> Array:
        """Shares in logits (..., C) as far as they matter for what is predicted."""

    # Metrics.

    @abstractmethod
    def average(self, classes: int) -> str:
        """How precision and recall are averaged: `binary` or `weighted`."""

    @abstractmethod
    def outcome(
        self,
        loss: float,
        ce: float,
        accuracy: float,
        confusion: Array,
        labels: Array | None = None,
        logits: Array | None = None,
    ) -> Outcome:
        """What metrics are computed from, from a `confusion` of this task."""

    # What a fitted classifier and another data set's labels need.

    @abstractmethod
    def problems(self, labels: Array, classes: int) -> list[Problem]:
        """The plain classifications that make up this task."""

    @abstractmethod
    def map_labels(self, labels: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Labels under other numbers: `numbers` (C,) by the present ones."""

    @abstractmethod
    def match(
        self, there: Sequence[str], here: Sequence[str], mapping: dict[str, str] | None
    ) -> Array | str:
        """Which of a run's labels (`here`) each label of another data set (`there`) is.

        Args:
            there: The data set's label names.
            here: The run's.
            mapping: `there` -> `here`, as the user says; None to match them by name, and by number
                where no name is in both.

        Returns:
            The run's label numbers, (C,) int64; or, in words, why the labels do not fit.
        """


class SingleLabel(Task):
    """Every text has one of C labels: softmax, the most probable label is predicted."""

    name = "single-label"
    phrase = "one label per text"
    label_dimensions = 1
    beyond = ", beyond their mean over the labels"

    @override
    def label_counts(self, labels: Array, classes: int) -> Array:
        return np.bincount(labels, minlength=classes)

    @override
    def strata(self, labels: Array) -> Array:
        return labels

    @override
    def label_names(self, label: Any, names: Sequence[str]) -> list[str]:
        return [names[int(label)]]

    @override
    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        return {"label": names[0]}

    @override
    def targets(self, labels: torch.Tensor, classes: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.nn.functional.one_hot(labels, classes).to(dtype)

    def balanced_weights(self, labels: torch.Tensor, classes: int) -> torch.Tensor:
        """examples / (C * examples of the class), (C,), as scikit-learn's "balanced"."""
        counts = torch.bincount(labels, minlength=classes)
        return len(labels) / (classes * counts.clamp(min=1)).float()

    @override
    def weights(
        self, labels: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None
    ) -> torch.Tensor:
        if class_weights is None:
            return torch.ones_like(targets[:, :1])
        return class_weights.to(targets)[labels, None]

    @override
    def cross_entropy(
        self, logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        chosen = labels[None, :, None].expand(len(logits), -1, 1)
        return -torch.log_softmax(logits, dim=2).gather(2, chosen)

    @override
    def activation(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.softmax(logits, dim=-1)

    @override
    def count_confusion(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        heads, _, classes = logits.shape
        head = torch.arange(heads, device=logits.device)[:, None]
        cells = (head * classes + labels) * classes + logits.argmax(dim=2)
        counts = torch.bincount(cells.flatten(), minlength=heads * classes**2)
        return counts.view(heads, classes, classes).cpu()

    def confusion_shape(self, classes: int) -> tuple[int, ...]:
        """(C, C): by true (row) and predicted (column) label."""
        return classes, classes

    @override
    def count_correct(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits.argmax(dim=2) == labels).sum(dim=1).cpu()

    def probabilities(self, logits: Array) -> Array:
        """The softmax."""
        logits = np.asarray(logits, np.float64)
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        normalised: Array = powers / powers.sum(axis=-1, keepdims=True)
        return normalised

    def decide(self, logits: Array) -> Array:
        """The most probable label."""
        predicted: Array = logits.argmax(axis=-1)
        return predicted

    @override
    def decide_probable(self, probabilities: Array) -> Array:
        return self.decide(probabilities)

    @override
    def correct(self, predicted: Array, labels: Array) -> Array:
        same: Array = np.equal(predicted, labels)
        return same

    @override
    def confidence(self, probabilities: Array) -> Array:
        highest: Array = probabilities.max(axis=-1)
        return highest

    def decisions(
        self, probabilities: Array, predicted: Array, labels: Array
    ) -> tuple[Array, Array]:
        """One for each example."""
        return self.confidence(probabilities), np.equal(predicted, labels)

    def confusion(self, labels: Array, predicted: Array, classes: int) -> Array:
        """(C, C) by true (row) and predicted (column) label."""
        cells = np.bincount(labels * classes + predicted, minlength=classes**2)
        return cells.reshape(classes, classes)

    @override
    def indicators(self, labels: Array, classes: int) -> Array:
        return np.eye(classes)[labels.reshape(-1)]

    @override
    def in_macro(self, occurs: Array) -> Array:
        """Those that occur, as in scikit-learn."""
        return occurs

    def centred(self, shares: Array) -> Array:
        """Only differences between logits matter: less the mean over the labels."""
        beyond: Array = shares - shares.mean(axis=-1, keepdims=True)
        return beyond

    def average(self, classes: int) -> str:
        """As in the published tables: those of class 1 with two classes, else by support."""
        return "binary" if classes == 2 else "weighted"

    def outcome(
        self,
        loss: float,
        ce: float,
        accuracy: float,
        confusion: Array,
        labels: Array | None = None,
        logits: Array | None = None,
    ) -> Outcome:
        """Macro averages are over the classes that occur, as label or as prediction, as in
        scikit-learn."""
        confusion = np.asarray(confusion, np.float64)
        predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
        return Outcome(
            loss=loss,
            ce=ce,
            accuracy=accuracy,
            correct=np.diag(confusion),
            predicted=predicted,
            actual=actual,
            average=self.average(len(confusion)),
            counted=self.in_macro(predicted + actual > 0),
            labels=labels,
            probabilities=None if logits is None else self.probabilities(logits),
        )

    def problems(self, labels: Array, classes: int) -> list[Problem]:
        """One over all classes."""
        return [Problem(list(range(classes)), labels)]

    @override
    def map_labels(self, labels: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return numbers[labels]

    @override
    def match(
        self, there: Sequence[str], here: Sequence[str], mapping: dict[str, str] | None
    ) -> Array | str:
        if mapping is not None:
            unknown = [name for name in mapping if name not in there]
            unknown += [name for name in mapping.values() if name not in here]
            missing = [name for name in there if name not in mapping]
            if unknown or missing:
                known = f"give each of {', '.join(there)} one of {', '.join(here)}"
                if unknown:
                    return f"there is no label {unknown[0]!r}; {known}"
                return f"{missing[0]!r} is missing; {known}"
            return _indexes([mapping[name] for name in there], here)
        if set(there) == set(here):
            return _indexes(there, here)
        if len(there) != len(here) or set(there) & set(here):
            return (
                f"the data have {len(there)} labels ({', '.join(there)}), the run has {len(here)} "
                f"({', '.join(here)}): say which is which, for each of {', '.join(there)}"
            )
        return np.arange(len(here))


class MultiLabel(Task):
    """A text has several of C labels, or none: a sigmoid and a decision for each label."""

    name = "multi-label"
    phrase = "several labels per text"
    label_dimensions = 2
    beyond = ""

    @override
    def label_counts(self, labels: Array, classes: int) -> Array:
        counts: Array = labels.sum(axis=0)
        return counts

    def strata(self, labels: Array) -> Array:
        """All one: combinations of labels may be too rare to be sampled in proportion."""
        return np.zeros(len(labels), np.int64)

    @override
    def label_names(self, label: Any, names: Sequence[str]) -> list[str]:
        return [names[int(number)] for number in np.flatnonzero(label)]

    @override
    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        return {"labels": list(names)}

    @override
    def targets(self, labels: torch.Tensor, classes: int, dtype: torch.dtype) -> torch.Tensor:
        return labels.to(dtype)

    def balanced_weights(self, labels: torch.Tensor, classes: int) -> torch.Tensor:
        """For each class apart, (C, 2): of the terms of examples without it and with it."""
        positive = labels.sum(dim=0)
        counts = torch.stack([len(labels) - positive, positive], dim=1)
        return len(labels) / (2 * counts.clamp(min=1)).float()

    @override
    def weights(
        self, labels: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None
    ) -> torch.Tensor:
        if class_weights is None:
            return torch.ones_like(targets)
        absent, present = class_weights.to(targets).unbind(dim=1)
        return torch.where(labels > 0, present, absent)

    def cross_entropy(
        self, logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Binary, one term for each class."""
        terms: torch.Tensor = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, targets.expand_as(logits), reduction="none"
        )
        return terms

    @override
    def activation(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits)

    @override
    def count_confusion(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        heads, _, classes = logits.shape
        head = torch.arange(heads, device=logits.device)[:, None, None]
        label = torch.arange(classes, device=logits.device)
        cells = ((head * classes + label) * 2 + labels) * 2 + (logits > 0).long()
        counts = torch.bincount(cells.flatten(), minlength=heads * classes * 4)
        return counts.view(heads, classes, 2, 2).cpu()

    def confusion_shape(self, classes: int) -> tuple[int, ...]:
        """(C, 2, 2): for each label without it and with it, true (row) and predicted (column)."""
        return classes, 2, 2

    @override
    def count_correct(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return ((logits > 0) == labels).all(dim=2).sum(dim=1).cpu()

    def probabilities(self, logits: Array) -> Array:
        """The sigmoid, each label's own."""
        probabilities: Array = np.exp(-np.logaddexp(0, -np.asarray(logits, np.float64)))
        return probabilities

    def decide(self, logits: Array) -> Array:
        """Every label of a probability above one half."""
        return (logits > 0).astype(np.int64)

    @override
    def decide_probable(self, probabilities: Array) -> Array:
        return (probabilities >= 0.5).astype(np.int64)

    def correct(self, predicted: Array, labels: Array) -> Array:
        """Whether all of an example's labels, and no others, are predicted."""
        same: Array = np.all(np.equal(predicted, labels), axis=1)
        return same

    def confidence(self, probabilities: Array) -> Array:
        """Of all of an example's decisions together."""
        together: Array = np.maximum(probabilities, 1 - probabilities).prod(axis=-1)
        return together

    def decisions(
        self, probabilities: Array, predicted: Array, labels: Array
    ) -> tuple[Array, Array]:
        """One for each label of each example."""
        confidence = np.maximum(probabilities, 1 - probabilities)
        return confidence.ravel(), np.equal(predicted, labels).ravel()

    def confusion(self, labels: Array, predicted: Array, classes: int) -> Array:
        """(C, 2, 2): for each label, without it and with it, by true and predicted."""
        counts = np.zeros((classes, 2, 2), np.int64)
        np.add.at(counts, (np.arange(classes), labels, predicted), 1)
        return counts

    @override
    def indicators(self, labels: Array, classes: int) -> Array:
        return labels.astype(np.float64)

    @override
    def in_macro(self, occurs: Array) -> Array:
        """All of them."""
        return np.ones_like(occurs)

    def centred(self, shares: Array) -> Array:
        """Every logit is a decision of its own: as they are."""
        return shares

    @override
    def average(self, classes: int) -> str:
        return "weighted"

    def outcome(
        self,
        loss: float,
        ce: float,
        accuracy: float,
        confusion: Array,
        labels: Array | None = None,
        logits: Array | None = None,
    ) -> Outcome:
        """Macro averages are over all labels."""
        confusion = np.asarray(confusion, np.float64)
        predicted, actual = confusion[:, :, 1].sum(axis=1), confusion[:, 1].sum(axis=1)
        return Outcome(
            loss=loss,
            ce=ce,
            accuracy=accuracy,
            correct=confusion[:, 1, 1],
            predicted=predicted,
            actual=actual,
            average=self.average(len(confusion)),
            counted=self.in_macro(predicted + actual > 0),
            labels=labels,
            probabilities=None if logits is None else self.probabilities(logits),
        )

    def problems(self, labels: Array, classes: int) -> list[Problem]:
        """A binary one for each label."""
        return [Problem([c], labels[:, c]) for c in range(classes)]

    @override
    def map_labels(self, labels: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        return labels[:, numbers.argsort()]

    @override
    def match(
        self, there: Sequence[str], here: Sequence[str], mapping: dict[str, str] | None
    ) -> Array | str:
        if set(there) == set(here):
            numbers: Array | str = _indexes(there, here)
        elif set(there) & set(here) or len(there) != len(here):
            return (
                f"the data have the labels {', '.join(there)}, the run has {', '.join(here)}: with "
                "several labels per text the two must have the same"
            )
        else:
            numbers = np.arange(len(here))
        if mapping is not None:
            return "labels can only be mapped in data with one label per text"
        return numbers


SINGLE_LABEL, MULTI_LABEL = SingleLabel(), MultiLabel()
TASKS: dict[str, Task] = {task.name: task for task in (SINGLE_LABEL, MULTI_LABEL)}


def task_of(labels: Array | torch.Tensor) -> Task:
    """The task that an array of labels is of, by its shape: (N,) or (N, C)."""
    return next(task for task in TASKS.values() if task.label_dimensions == labels.ndim)


def check_same(data: Task, run: Task, about: str) -> None:
    """Raise SpaceliteError where a data set's task is not a run's; `about` names the two."""
    if data is not run:
        raise SpaceliteError(f"{about}: the data have {data.phrase}, the run has {run.phrase}")


def _indexes(names: Sequence[str], among: Sequence[str]) -> Array:
    return np.array([list(among).index(name) for name in names], np.int64)
