"""The simplest baseline: always predict what is most frequent in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spacelite.metrics.scores import METRICS
from spacelite.tasks.base import Array, Task


@dataclass(frozen=True)
class Majority:
    """What the baseline achieves on a split.

    Attributes:
        labels: Names of what it predicts: one label, or any number in a multi-label task.
        accuracy: Its accuracy.
        f1_macro: Its macro F1.
    """

    labels: list[str]
    accuracy: float
    f1_macro: float

    @property
    def sentence(self) -> str:
        """The baseline in words, without the split."""
        what = ", ".join(f"{name!r}" for name in self.labels) if self.labels else "no label"
        return (
            f"Always predicting {what}, the most frequent in training, gives accuracy "
            f"{self.accuracy:.4f} and macro F1 {self.f1_macro:.4f}"
        )


def majority(task: Task, training: Array, labels: Array, names: Sequence[str]) -> Majority:
    """Predict for every example the label (in a multi-label task: the set of labels) that is most
    frequent in training; of equally frequent ones, the first.

    Args:
        task: The task.
        training: Labels of the training split.
        labels: Labels of the N examples to predict.
        names: Label names.
    """
    values, counts = np.unique(training, axis=0, return_counts=True)
    chosen = values[counts.argmax()]
    predicted = np.broadcast_to(chosen, labels.shape)
    accuracy = float(task.correct(predicted, labels).mean())
    outcome = task.outcome(
        np.nan, np.nan, accuracy, task.confusion(labels, predicted, len(names)), labels
    )
    f1 = METRICS["f1_macro"].compute(outcome)
    return Majority(task.label_names(chosen, names), accuracy, float(f1 or 0.0))
