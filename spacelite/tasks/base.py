"""The interface of all tasks. Shapes: N or B examples, C classes, K heads."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from spacelite.document import decimals
from spacelite.errors import SpaceliteError
from spacelite.lazy import np, torch
from spacelite.metrics.scores import METRICS, Metric, Outcome, PerClass, Scores
from spacelite.settings import choose_from
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.metrics.predictions import Predictions
    from spacelite.metrics.significance import Difference, Interval, Test


LARGEST_NUMBER = 1e100  # as a label: sums of squares are finite


class Problem(NamedTuple):
    """One of the ordinary problems that a task consists of: a classification, or a regression."""

    columns: list[int]  # its classes; a single one makes it binary: that class against the rest
    targets: Array  # indexes into `columns`, (N,); 0 or 1 in a binary problem; or numbers, float64

    @property
    def is_regression(self) -> bool:
        """Whether the targets are numbers."""
        return self.targets.dtype.kind == "f"


class Unit(NamedTuple):
    """What targets are standardised by while K heads are trained, (K,) float64 each: the head's
    outputs are (label - mean) / deviation then."""

    mean: torch.Tensor
    deviation: torch.Tensor

    def standardised(self, values: torch.Tensor) -> torch.Tensor:
        """Values (N,), (N, C) or (K, N, C) in the unit of each head, (K, N, 1) or (K, N, C)."""
        values = values[:, None] if values.ndim == 1 else values
        mean, deviation = (part.to(values.device)[:, None, None] for part in self)
        return (values.double() - mean) / deviation

    def restored(self, values: torch.Tensor) -> torch.Tensor:
        """Outputs of the heads (K, N, C) in the unit of the labels."""
        mean, deviation = (part.to(values.device)[:, None, None] for part in self)
        return (values.double() * deviation + mean).to(values.dtype)


class Task(ABC):
    """What the labels of a data set mean. Instances have no state but for the `scale` of some;
    others are compared with `is`."""

    name: str
    phrase: str  # "one label per text"
    label_dimensions: int  # number of dimensions of a label array
    # What becomes of a text where labels below a probability are not given, with braces for it.
    undecided: str = "left undecided: no label has a probability of at least {}"
    # The same where thresholds of the run decide.
    undecided_at_threshold: str = "left undecided: the predicted label has a probability below {}"
    label_type: str = "int64"  # number type of label arrays
    has_probabilities: bool = True
    column_type: Any = "string"  # of what `as_json` gives, in files of predictions
    of_numbers: bool = False  # whether labels are read as numbers, and not as names of classes
    rounds: bool = False  # whether predicted numbers are rounded, and explanations have both
    fewest_classes: int = 1  # label names that a run has
    fewest_present: int = 2  # labels that training examples have
    stratified: bool = False  # whether folds have each label in the same proportion
    # The lowest and the highest label of training, in which predictions are kept, if that is known.
    scale: tuple[float, float] | None = None
    beyond: str  # says how contributions are `centred`, after `listed_words` in reports
    output: str = "logit"  # what the shares of words add up to, in explanations
    listed_words: str = "add most to each label's logit"  # what these do, in reports
    # The words that reports list, with braces for the label: those whose share has this sign.
    word_lists: Mapping[str, int] = {"{}": 1}
    # The heading of the examples that are predicted worst, and what their words add to.
    worst: tuple[str, str] = ("The most confident mistakes", "the most probable label's logit")
    # Kinds of heads that do not learn such labels, each with the one that does instead.
    counterparts: Mapping[str, str] = {"ridge": "logreg"}
    # Settings without effect on such labels, each with the reason, which follows a colon.
    refused: Mapping[str, str] = {"loss": "labels that are classes have one loss, cross-entropy"}

    # Labels of a data set, numpy.

    @abstractmethod
    def label_counts(self, labels: Array, classes: int) -> Array:
        """How many examples have each of the C labels, (C,) int64."""

    def spread(self, labels: Array) -> str:
        """Where the labels of examples lie, in words; "" if their counts say it."""
        return ""

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

    def trained_on(self, labels: Array) -> Task:
        """The task of heads that are trained on these labels, (N,): it has their `scale`, if it is
        one of whole numbers."""
        return self

    def problem_of(self, number: float) -> str:
        """What is wrong with a number as a label, of a task of numbers; "" for a good one."""
        if not math.isfinite(number):
            return "which is not finite"
        return "which is too large to square" if abs(number) > LARGEST_NUMBER else ""

    def check(self, labels: Array, classes: int) -> bool:
        """Whether an array that was read can hold labels of this task."""
        most = classes - 1 if labels.ndim == 1 else 1
        return bool(0 <= labels.min() <= labels.max() <= most)

    @abstractmethod
    def label_names(self, label: Any, names: Sequence[str]) -> list[str]:
        """Names of one example's labels; `label` is its row of a label array."""

    def in_words(self, label: Any, names: Sequence[str]) -> str:
        """What is predicted for an example, for readers: a number has few digits."""
        return ", ".join(self.label_names(label, names)) or "none"

    @abstractmethod
    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """One example's label names in JSON output: {"label": ...} or {"labels": [...]}. A label
        that is not given is None."""

    # Loss, torch.

    @abstractmethod
    def targets(self, labels: torch.Tensor, classes: int, dtype: torch.dtype) -> torch.Tensor:
        """(B, C): 1 for the classes that an example has, else 0."""

    def balanced_weights(
        self, labels: torch.Tensor, classes: int, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Class weights, for `weights`, that give every class the same total weight, the examples
        having `weights` (N,), by default 1."""
        raise NotImplementedError(f"{self.name} labels are no classes")

    @abstractmethod
    def weights(
        self, labels: torch.Tensor, targets: torch.Tensor, class_weights: torch.Tensor | None
    ) -> torch.Tensor:
        """The weight of every term of the cross-entropy, (B, 1) or (B, C)."""

    @abstractmethod
    def loss_terms(
        self, logits: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """The terms of the loss of `logits` (K, B, C), in classification the cross-entropy:
        (K, B, 1) or (K, B, C). Targets are (B, C), or (K, B, C) in a `Unit` of each head."""

    @abstractmethod
    def residuals(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The gradient of the loss terms with respect to `logits` (K, B, C), as a new tensor."""

    @abstractmethod
    def count(
        self,
        logits: torch.Tensor,
        labels: torch.Tensor,
        targets: torch.Tensor,
        sample_weights: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """How many examples each head predicts correctly, (K,), from `logits` (K, B, C), and each
        head's confusion matrix, or other sums over examples that metrics are computed from,
        (K, *confusion_shape); float64 on the CPU. An example counts as much as its weight for each
        head, (K, B), or for all, (1, B)."""

    @abstractmethod
    def confusion_shape(self, classes: int) -> tuple[int, ...]:
        """The shape of `confusion`."""

    @property
    def losses(self) -> Mapping[str, Task]:
        """What the setting `loss` may name, as tasks to train with, the default first; empty if
        there is a single loss, which has no name."""
        return {}

    def unit(self, labels: torch.Tensor, weights: Sequence[torch.Tensor | None]) -> Unit | None:
        """What targets are standardised by in the training of K heads, from the labels of the
        training examples and the weights (N,) that each head gives them, None for 1; None if they
        are not standardised."""
        return None

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

    def threshold_labels(self, names: Sequence[str]) -> list[str]:
        """Which of the C labels have a decision threshold, T names; none if there is no such thing
        among so many labels."""
        return []

    def best_thresholds(self, probabilities: Array, labels: Array, metric: str) -> Array:
        """The decision thresholds with the best figures on N examples, (T,) float64, for a metric
        of `metrics.thresholds.CRITERIA`; probabilities are (N, C)."""
        raise NotImplementedError(f"{self.name} labels are no classes")

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

    def confidence(self, probabilities: Array, predicted: Array) -> Array:
        """Probability of each example's prediction, (N,), from `probabilities` (N, C) and what is
        `predicted` from them."""
        raise NotImplementedError(f"{self.name} labels are no classes")

    def decisions(
        self, probabilities: Array, predicted: Array, labels: Array
    ) -> tuple[Array, Array] | None:
        """Confidence and correctness of every single decision, (D,) each: one per example, unless
        each label of an example is decided on by itself. None if predictions have no
        probability."""
        return self.confidence(probabilities, predicted), self.correct(predicted, labels)

    @abstractmethod
    def confusion(self, labels: Array, predicted: Array, classes: int) -> Array:
        """Counts of examples by true and predicted label, or other sums, as `count` has them."""

    def indicators(self, labels: Array, classes: int) -> Array:
        """(N, C) float64: 1 for the classes that an example has, else 0, from a label array."""
        raise NotImplementedError(f"{self.name} labels are no classes")

    def in_macro(self, occurs: Array) -> Array:
        """Which classes macro averages include, (..., C) bool, given which occur as a label or a
        prediction."""
        raise NotImplementedError(f"{self.name} labels are no classes")

    @abstractmethod
    def centred(self, contributions: Array) -> Array:
        """The part of contributions to logits (..., C) that affects the prediction."""

    # Metrics.

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Every metric by name, in the order of the tables' columns."""
        return METRICS

    # Names of metrics. Systems are ranked and compared by the `headline`, then by the `second`;
    # `plain_loss` is the loss without weights of classes and of other terms.
    headline: str = "accuracy"
    second: str = "f1_macro"
    plain_loss: str = "ce"
    loss_in_words: str = "cross-entropy"
    in_studies: Sequence[str] = ("accuracy", "f1_macro", "ce")
    listed: Sequence[str] = ("loss", "ce", "accuracy", "f1_macro")  # in lists of runs
    # Metric of classification, as defaults and presets name them -> the one in its place.
    instead: Mapping[str, str] = {}

    def metric(
        self,
        named: str | None,
        default: str,
        argument: str = "metric",
        among: Iterable[str] | None = None,
    ) -> str:
        """The metric that a user has named; None for the `default`, or what this task has in its
        place. Raises SpaceliteError, which names the `argument` and the metrics to choose from, all
        or those `among` them, if the named one is none of these."""
        if named is None:
            return self.instead.get(default, default)
        choices = [*(self.metrics if among is None else among)]
        if named not in choices:
            raise SpaceliteError(
                f"{argument}={named}: for {self.phrase}, {choose_from(named, choices)}",
                [argument],
            )
        return named

    def scores(self, *of: Any) -> Scores:
        """Every metric by name, from the arguments of `outcome`."""
        outcome = self.outcome(*of)
        return {name: metric.compute(outcome) for name, metric in self.metrics.items()}

    def in_unit(self, scores: Scores, deviation: float | None) -> Scores:
        """Metrics in the unit of the labels, where they were computed in units of a deviation;
        None if they were computed in that of the labels."""
        return scores

    def values(self, metric: str, predictions: Predictions) -> Array:
        """A value per example, (N,), the higher the better the prediction: their mean and its
        variation over examples are those of the `headline` or `second` metric, which is negated if
        lower is better."""
        from spacelite.metrics import significance

        if metric == "accuracy":
            return predictions.correct.astype(np.float64)
        return significance.f1_values(predictions)

    def figure(self, predictions: Predictions) -> float:
        """The headline metric."""
        value = float(self.values(self.headline, predictions).mean())
        return value if self.metrics[self.headline].higher_is_better else -value

    test = "McNemar's exact test"  # of `compare`

    def compare(self, first: Predictions, second: Predictions) -> Test:
        """Whether one head is better than a second on the same examples by the headline metric:
        the difference of the means of `values`, and the p-value of its being 0."""
        from spacelite.metrics import significance

        right, other = first.correct, second.correct
        only = int((right > other).sum()), int((other > right).sum())
        p = float(significance.mcnemar(np.array(only[0]), np.array(only[1])))
        return significance.Test(significance.accuracy_difference(*only, len(right)), p)

    def second_difference(self, first: Predictions, second: Predictions) -> Difference:
        """The same difference in the second metric."""
        from spacelite.metrics import significance

        return significance.f1_difference(first, second)

    def intervals(self, predictions: Predictions) -> dict[str, tuple[float, Interval]]:
        """Metrics with their 95% intervals over examples, where reports show these."""
        return {}

    def badness(self, predictions: Predictions) -> Array:
        """How bad each prediction is, (N,), 0 for a good one: the confidence of a wrong one."""
        return np.where(predictions.correct, 0.0, predictions.confidence)

    def per_class(self, confusion: Array) -> PerClass | None:
        """Figures of each class; None if labels are no classes."""
        figures: PerClass = self.outcome(0.0, 0.0, 0.0, confusion).per_class
        return figures

    def simple_baseline(self, training: Array, labels: Array, names: Sequence[str]) -> str:
        """What a prediction achieves that is the same for all texts, in words, without the
        split."""
        return majority(self, training, labels, names).sentence

    def average(self, classes: int) -> str:
        """How precision and recall are averaged: `binary` or `weighted`; "" without classes."""
        return ""

    def class_counts(self, confusion: Array) -> tuple[Array, Array, Array]:
        """From a `confusion` of this task, how many examples have each class correctly predicted,
        predicted, and as a label: (C,) each."""
        raise NotImplementedError(f"{self.name} labels are no classes")

    def outcome(
        self,
        loss: float,
        ce: float,
        accuracy: float,
        confusion: Array,
        labels: Array | None = None,
        logits: Array | None = None,
    ) -> Any:
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
