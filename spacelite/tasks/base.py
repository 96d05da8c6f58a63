"""The interface of all tasks. Shapes: N or B examples, C classes, K heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from spacelite.document import decimals
from spacelite.lazy import np, torch
from spacelite.metrics.scores import METRICS, Outcome
from spacelite.types import Array


class Problem(NamedTuple):
    """One of the ordinary classification problems that a task consists of."""

    columns: list[int]  # its classes; a single one makes it binary: that class against the rest
    targets: Array  # indexes into `columns`, (N,); 0 or 1 in a binary problem


class Task(ABC):
    """What the labels of a data set mean. Instances have no state: compare them with `is`."""

    name: str
    phrase: str  # "one label per text"
    label_dimensions: int  # number of dimensions of a label array
    # What becomes of a text where labels below a probability are not given, with braces for it.
    undecided: str = "left undecided: no label has a probability of at least {}"
    # The same where thresholds of the run decide.
    undecided_at_threshold: str = "left undecided: the predicted label has a probability below {}"
    label_type: str = "int64"  # number type of label arrays
    fewest_classes: int = 1  # label names that a run has
    fewest_present: int = 2  # labels that training examples have
    stratified: bool = False  # whether folds have each label in the same proportion
    beyond: str  # says how contributions are `centred`, after "label's logit" in reports

    # Labels of a data set, numpy.

    @abstractmethod
    def label_counts(self, labels: Array, classes: int) -> Array:
        """How many examples have each of the C labels, (C,) int64."""

    def unlabelled(self, labels: Array) -> int:
        """How many examples have no label."""
        return 0

    @abstractmethod
    def strata(self, labels: Array) -> Array:
        """Stratum of each example for stratified sampling, (N,) int64."""

    def fine_strata(self, labels: Array) -> Array:
        """Stratum of each example, (N,) int64, for subsets that should hold every label."""
        return self.strata(labels)

    def learnable(self, labels: Array) -> bool:
        """Whether these labels of examples are enough to learn from."""
        return len(labels) > 0

    @abstractmethod
    def label_names(self, label: Any, names: Sequence[str]) -> list[str]:
        """Names of one example's labels; `label` is its row of a label array."""

    @abstractmethod
    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """One example's label names in JSON output: {"label": ...} or {"labels": [...]}. A label
        that is not given is None."""

    # Loss, torch.

    @abstractmethod
    def targets(self, labels: torch.Tensor, classes: int, dtype: torch.dtype) -> torch.Tensor:
        """(B, C): 1 for the classes that an example has, else 0."""

    @abstractmethod
    def balanced_weights(
        self, labels: torch.Tensor, classes: int, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Class weights, for `weights`, that give every class the same total weight, the examples
        having `weights` (N,), by default 1."""

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
        """Probabilities from `logits` (..., C). Minus the targets, they are the gradient of the
        cross-entropy terms with respect to the logits."""

    @abstractmethod
    def count(
        self, logits: torch.Tensor, labels: torch.Tensor, sample_weights: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """How many examples each head predicts correctly, (K,), from `logits` (K, B, C), and each
        head's confusion matrix, (K, *confusion_shape) int64; on the CPU. With `sample_weights` of
        each head, (K, B), both are float64."""

    @abstractmethod
    def confusion_shape(self, classes: int) -> tuple[int, ...]:
        """The shape of `confusion`."""

    # Predictions, numpy.

    @abstractmethod
    def probabilities(self, logits: Array) -> Array:
        """Probabilities from logits (..., C), float64."""

    @abstractmethod
    def decide(self, logits: Array, thresholds: Array | None = None) -> Array:
        """Predicted labels from logits (..., C), in the form of a label array. `thresholds` as in
        `decide_from_probabilities`."""

    @abstractmethod
    def decide_from_probabilities(
        self, probabilities: Array, thresholds: Array | None = None
    ) -> Array:
        """Predicted labels from probabilities (..., C), in the form of a label array. `thresholds`
        are the probabilities above which each of `threshold_labels` is given, (T,); None for the
        usual decision: the most probable label, or those above one half."""

    @abstractmethod
    def threshold_labels(self, names: Sequence[str]) -> list[str]:
        """Which of the C labels have a decision threshold, T names; none if there is no such thing
        among so many labels."""

    @abstractmethod
    def best_thresholds(self, probabilities: Array, labels: Array, metric: str) -> Array:
        """The decision thresholds with the best figures on N examples, (T,) float64, for a metric
        of `metrics.thresholds.CRITERIA`; probabilities are (N, C)."""

    def given(
        self,
        probabilities: Array,
        names: Sequence[str],
        minimum: float | None = None,
        thresholds: Array | None = None,
    ) -> list[list[str]]:
        """The label names that are given to each of N texts, from probabilities (N, C), without
        those of a probability below the `minimum`; `thresholds` as in
        `decide_from_probabilities`."""
        decided = self.decide_from_probabilities(probabilities, thresholds)
        labels = [self.label_names(row, names) for row in decided]
        if minimum is None:
            return labels
        by_name = [dict(zip(names, row, strict=True)) for row in probabilities.tolist()]
        return [
            [name for name in row if probability[name] >= minimum]
            for row, probability in zip(labels, by_name, strict=True)
        ]

    @abstractmethod
    def correct(self, predicted: Array, labels: Array) -> Array:
        """Whether an example's labels are all predicted correctly, (N,) bool."""

    @abstractmethod
    def confidence(self, probabilities: Array, predicted: Array) -> Array:
        """Probability of each example's prediction, (N,), from `probabilities` (N, C) and what is
        `predicted` from them."""

    def decisions(
        self, probabilities: Array, predicted: Array, labels: Array
    ) -> tuple[Array, Array]:
        """Confidence and correctness of every single decision, (D,) each: one per example, unless
        each label of an example is decided on by itself."""
        return self.confidence(probabilities, predicted), self.correct(predicted, labels)

    @abstractmethod
    def confusion(self, labels: Array, predicted: Array, classes: int) -> Array:
        """Counts of examples by true and predicted label."""

    @abstractmethod
    def indicators(self, labels: Array, classes: int) -> Array:
        """(N, C) float64: 1 for the classes that an example has, else 0, from a label array."""

    @abstractmethod
    def in_macro(self, occurs: Array) -> Array:
        """Which classes macro averages include, (..., C) bool, given which occur as a label or a
        prediction."""

    @abstractmethod
    def centred(self, contributions: Array) -> Array:
        """The part of contributions to logits (..., C) that affects the prediction."""

    # Metrics.

    @abstractmethod
    def average(self, classes: int) -> str:
        """How precision and recall are averaged: `binary` or `weighted`."""

    @abstractmethod
    def class_counts(self, confusion: Array) -> tuple[Array, Array, Array]:
        """From a `confusion` of this task, how many examples have each class correctly predicted,
        predicted, and as a label: (C,) each."""

    def outcome(
        self,
        loss: float,
        ce: float,
        accuracy: float,
        confusion: Array,
        labels: Array | None = None,
        logits: Array | None = None,
    ) -> Outcome:
        """What metrics are computed from, as in `Outcome`; `confusion` has the layout of that of
        the task, and logits are (N, C)."""
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

    # For fitting a classifier, and for the labels of a different data set.

    @abstractmethod
    def problems(self, labels: Array, classes: int) -> list[Problem]:
        """The ordinary classification problems that make up this task."""

    @abstractmethod
    def map_labels(self, labels: Array, numbers: Array, classes: int) -> Array:
        """Renumbered labels: label i becomes label `numbers[i]` of `classes` labels."""

    def takes(self, other: Task) -> bool:
        """Whether a run of this task can be evaluated on data of another one."""
        return other is self

    def renumbered(self, labels: Array, numbers: Array, classes: int) -> tuple[Array, Array]:
        """The rows (M,) of N examples of a data set that have a label of this task's run, and their
        labels in its numbering: label i of the data is its label `numbers[i]`, or none if that is
        negative. Data for a task of several labels may have one label per text, (N,)."""
        rows = np.arange(len(labels))
        if labels.ndim == 1:
            rows = np.flatnonzero(numbers[labels] >= 0)
            labels = labels[rows]
            if self.label_dimensions == 2:
                return rows, np.eye(classes, dtype=np.int64)[numbers[labels]]
        return rows, self.map_labels(labels, numbers, classes)

    @abstractmethod
    def match(
        self, there: Sequence[str], here: Sequence[str], mapping: dict[str, str] | None
    ) -> Array | str:
        """The number, int64, of one of a run's labels (`here`) for each label of a data set
        (`there`), or a message that says why they do not match: by a `mapping` that the user gave,
        in which "" stands for no label, -1; else as `matched`. The data may lack some of the run's
        labels."""


def matched(there: Sequence[str], here: Sequence[str]) -> Array | None:
    """The index in `here` of each label of `there`, int64, by name, if only but for case and
    spaces; or by number, where no name is in both and one side has numbers for names. None if they
    do not match."""
    for form in (str, same_name):
        theirs, ours = ([form(name) for name in names] for names in (there, here))
        distinct = len({*theirs}) == len(theirs) and len({*ours}) == len(ours)
        if distinct and {*theirs} <= {*ours}:
            return indexes(theirs, ours)
    numbers = all(map(str.isdecimal, there)) or all(map(str.isdecimal, here))
    if len(there) != len(here) or {*theirs} & {*ours} or not numbers:
        return None
    return np.arange(len(here))


def same_name(name: str) -> str:
    """What labels that differ in case and spaces alone have in common."""
    return "".join(name.casefold().split())


def indexes(names: Sequence[str], among: Sequence[str]) -> Array:
    """The index in `among` of each name, int64."""
    return np.array([list(among).index(name) for name in names], np.int64)


@dataclass(frozen=True)
class Majority:
    """What always predicting the most frequent labels, or none, achieves on a split."""

    labels: list[str]
    accuracy: float
    f1_macro: float
    ties: int = 0  # how many others are as frequent

    @property
    def sentence(self) -> str:
        """The baseline in words, without the split."""
        what = ", ".join(f"{name!r}" for name in self.labels) if self.labels else "no label"
        which = f"one of the {1 + self.ties}" if self.ties else "the"
        return (
            f"Always predicting {what}, {which} most frequent in training, gives accuracy "
            f"{decimals(self.accuracy, 4)} and macro F1 {decimals(self.f1_macro, 4)}"
        )


def majority(task: Task, training: Array, labels: Array, names: Sequence[str]) -> Majority:
    """Predict for every example the label (in a multi-label task: the set of labels) that is most
    frequent in training; of equally frequent ones, the first."""
    values, counts = np.unique(training, axis=0, return_counts=True)
    chosen = values[counts.argmax()]
    predicted = np.broadcast_to(chosen, labels.shape)
    accuracy = float(task.correct(predicted, labels).mean())
    outcome = task.outcome(
        np.nan, np.nan, accuracy, task.confusion(labels, predicted, len(names)), labels
    )
    f1 = METRICS["f1_macro"].compute(outcome)
    ties = int((counts == counts.max()).sum()) - 1
    return Majority(task.label_names(chosen, names), accuracy, float(f1 or 0.0), ties)
