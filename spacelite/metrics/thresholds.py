"""Decision thresholds: the probability above which a label is given, chosen for the best figure of
a metric, or for a figure that is wished.

In: probabilities and labels of examples that the head was not trained on. Out: a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacelite.document import decimals
from spacelite.lazy import np
from spacelite.metrics.scores import METRICS, ratio
from spacelite.types import Array
from spacelite.visible import visible_name

if TYPE_CHECKING:
    from spacelite.tasks import Task

USUAL = 0.5  # the threshold where none is chosen
MOST_LABELS = 8  # whose thresholds are said
ROUNDING = 1e-12  # figures that differ by less are equal
FEWEST = 10  # examples of which a wished figure is the share: fewer say too little
SHORT_NAMES = {"f1": "f1_macro"}
OPTIMISTIC = (
    "figures on validation are therefore optimistic (the thresholds fit those examples), figures "
    "on test are not"
)
EXTREME = {
    "precision": "it is highest where hardly any example is given the label",
    "recall": "it is highest where every example is given the label",
}


@dataclass(frozen=True)
class Cuts:
    """What M thresholds decide on N examples of one label. An example is given the label if its
    probability is above the threshold."""

    correct: Array  # how many examples are given the label and have it, (M,)
    given: Array  # how many are given it, (M,)
    actual: int  # how many have it
    examples: int  # N

    @classmethod
    def at(cls, thresholds: Array, probabilities: Array, has: Array) -> Cuts:
        """The cuts of thresholds (M,), given the label's probabilities (N,) and which examples have
        it, (N,)."""
        order = np.argsort(probabilities, kind="stable")
        first = np.searchsorted(probabilities[order], thresholds, side="right")
        having = np.concatenate([np.cumsum(has[order][::-1])[::-1], [0]])
        return cls(having[first], len(order) - first, int(having[0]), len(order))

    @property
    def precision(self) -> Array:
        """The share of the examples given the label that have it, (M,); 0 / 0 counts as 0."""
        return ratio(self.correct.astype(np.float64), self.given.astype(np.float64))

    @property
    def recall(self) -> Array:
        """The share of the examples with the label that are given it, (M,); 0 / 0 counts as 0."""
        return ratio(
            self.correct.astype(np.float64), np.full(len(self.correct), float(self.actual))
        )

    @property
    def accuracy(self) -> Array:
        """The share of examples that are decided correctly, (M,)."""
        wrong = self.given + self.actual - 2 * self.correct
        share: Array = 1 - wrong / self.examples
        return share

    @property
    def f1(self) -> Array:
        """F1 of the label, (M,); 0 / 0 counts as 0."""
        return ratio(2.0 * self.correct, (self.given + self.actual).astype(np.float64))

    @property
    def f1_macro(self) -> Array:
        """The mean of F1 of the label and of its absence, (M,); one that neither occurs nor is
        decided on does not count, as in scikit-learn."""
        rest = Cuts(
            self.examples - self.given - self.actual + self.correct,
            self.examples - self.given,
            self.examples - self.actual,
            self.examples,
        )
        counted = np.stack([part.given + part.actual > 0 for part in (self, rest)])
        means: Array = (np.stack([self.f1, rest.f1]) * counted).sum(axis=0) / counted.sum(axis=0)
        return means


@dataclass(frozen=True)
class Criterion:
    """What a threshold is chosen for: the figures of M thresholds, (M,)."""

    of_two: Callable[[Cuts], Array]  # between two labels
    of_one: Callable[[Cuts], Array]  # of a label that is decided on by itself


# By the metric's name in METRICS.
CRITERIA: dict[str, Criterion] = {
    "f1_macro": Criterion(lambda cuts: cuts.f1_macro, lambda cuts: cuts.f1),
    "accuracy": Criterion(lambda cuts: cuts.accuracy, lambda cuts: cuts.accuracy),
}


def in_words(thresholds: Mapping[str, float], wish: str | None = None) -> str:
    """Which labels thresholds give, as a sentence; "" for none: `Decided by the run's threshold:
    positive above 0.3120.` With a `wish`, they were chosen for that after the training."""
    if not thresholds:
        return ""
    # No probability is above 1.
    above = [
        f"{name} above {decimals(value, 4)}" if value < 1 else f"{name} never"
        for name, value in zip(map(visible_name, thresholds), thresholds.values(), strict=True)
    ]
    more = ", ..." if above[MOST_LABELS:] else ""
    which = "threshold" if len(above) == 1 else "thresholds"
    whose = f"the run's {which}" if wish is None else f"the {which} chosen for {wish}"
    return f"Decided by {whose}: {', '.join(above[:MOST_LABELS])}{more}."


def in_order(thresholds: Mapping[str, float], task: Task, labels: Sequence[str]) -> Array | None:
    """Thresholds by label in the order of the labels, (T,), as tasks take them; None for none."""
    if not thresholds:
        return None
    return np.array([thresholds[name] for name in task.threshold_labels(labels)])


def full_name(metric: Any) -> Any:
    """A metric's name in METRICS, for its name or a shorter one: `f1` -> `f1_macro`."""
    return SHORT_NAMES.get(metric, metric) if isinstance(metric, str) else metric


def is_criterion(value: Any) -> str | None:
    """Check that thresholds can be chosen for the metric of this name."""
    name = full_name(value)
    if isinstance(name, str) and name in CRITERIA:
        return None
    short = {full: name for name, full in SHORT_NAMES.items()}
    choose = f"choose {' or '.join(short.get(full, full) for full in CRITERIA)}"
    if not isinstance(name, str) or name not in METRICS:
        return choose
    if name in EXTREME:
        return f"{EXTREME[name]}, which is of no use; {choose}"
    return f"no threshold changes it, or none can be chosen for it; {choose}"


def best_threshold(probabilities: Array, has: Array, metric: str, *, alone: bool = False) -> float:
    """The threshold with the best figure; of equally good ones the nearest to 0.5.

    All that differ on these examples are tried: one between every two probabilities that follow
    each other (their midpoint, or 0.5 if that lies between them), one below all and one above all.
    Of N examples, `probabilities` (N,) are those of the label and `has` (N,) says which have it;
    `alone` whether it is decided on by itself (multi-label), and not against one other. 0.5 if a
    probability is not a number.
    """
    if not np.isfinite(probabilities).all():
        return USUAL
    tried = candidates(probabilities)
    cuts = Cuts.at(tried, probabilities, has)
    criterion = CRITERIA[metric]
    figures = (criterion.of_one if alone else criterion.of_two)(cuts)
    best = tried[figures >= figures.max() - ROUNDING]
    return float(best[np.abs(best - USUAL).argmin()])


def reaching(probabilities: Array, has: Array, metric: str, wish: float) -> float | None:
    """The threshold with the wished precision that gives the label to most examples, or with the
    wished recall to fewest; arguments as in `best_threshold`. None if there is none, or the figure
    would be a share of fewer than FEWEST examples."""
    if not np.isfinite(probabilities).all():
        return None
    tried = candidates(probabilities)
    cuts = Cuts.at(tried, probabilities, has)
    if metric == "recall":
        fitting = tried[(cuts.recall >= wish - ROUNDING) & (cuts.actual >= FEWEST)]
        return float(fitting[-1]) if len(fitting) else None
    fitting = tried[(cuts.precision >= wish - ROUNDING) & (cuts.given >= FEWEST)]
    return float(fitting[0]) if len(fitting) else None


def candidates(probabilities: Array) -> Array:
    """The thresholds that are tried for N probabilities, (M,), in ascending order."""
    values = np.unique(probabilities)
    low, high = np.concatenate([[0.0], values]), np.concatenate([values, [1.0]])
    between = (low + high) / 2
    between = np.where(between < high, between, low)  # of two neighbouring floats, the lower
    return np.unique(np.where((low <= USUAL) & (high > USUAL), USUAL, between))
