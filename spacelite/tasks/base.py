"""What every kind of task can do. Shapes: N or B examples, C classes, K heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

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
    def class_counts(self, confusion: Array) -> tuple[Array, Array, Array]:
        """How often each class is predicted correctly, predicted, and there, (C,) each, of a
        `confusion` of this task."""

    def outcome(
        self,
        loss: float,
        ce: float,
        accuracy: float,
        confusion: Array,
        labels: Array | None = None,
        logits: Array | None = None,
    ) -> Outcome:
        """What metrics are computed from.

        Args:
            loss: The full loss, its weighted terms included.
            ce: The cross-entropy alone.
            accuracy: The share of examples that are predicted correctly.
            confusion: Counts as `confusion` gives them.
            labels: The examples' labels, where they are known one by one.
            logits: Theirs, (N, C).
        """
        correct, predicted, actual = self.class_counts(np.asarray(confusion, np.float64))
        return Outcome(
            loss=loss,
            ce=ce,
            accuracy=accuracy,
            correct=correct,
            predicted=predicted,
            actual=actual,
            average=self.average(len(actual)),
            counted=self.in_macro(predicted + actual > 0),
            labels=labels,
            probabilities=None if logits is None else self.probabilities(logits),
        )

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


def indexes(names: Sequence[str], among: Sequence[str]) -> Array:
    """The numbers of names among others, int64."""
    return np.array([list(among).index(name) for name in names], np.int64)
