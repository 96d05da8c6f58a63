"""Decision thresholds of trained heads: chosen on validation, and used on every split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.tasks import Task, task_of
from spacelite.training.batches import TokenSplit, TrainingData
from spacelite.training.config import FitConfig
from spacelite.training.evaluation import Evaluated, decided

Array = npt.NDArray[Any]


def check(data: TrainingData, training: FitConfig) -> None:
    """Raise SpaceliteError if thresholds are to be chosen where decisions have none, or where there
    is no validation split."""
    if training.threshold is None:
        return
    if "validation" not in data.splits:
        raise SpaceliteError(
            f"threshold={training.threshold}: there is no validation split to choose thresholds "
            "on: leave threshold out, or hold examples out",
            ["threshold"],
        )
    names = data.label_names
    if not task_of(data.splits["train"].labels).threshold_labels(names):
        raise SpaceliteError(
            f"threshold={training.threshold}: a text has one of {len(names)} labels, and a "
            "threshold decides between two: leave threshold out",
            ["threshold"],
        )


class Thresholds:
    """The decision thresholds of a training.

    Args:
        metric: Metric that they are chosen for; None if there are none.
        task: The task.
        label_names: The names of labels 0..C-1.
    """

    def __init__(self, metric: str | None, task: Task, label_names: Sequence[str]) -> None:
        self._metric, self._task = metric, task
        self._labels = task.threshold_labels(label_names)
        self._chosen: dict[HeadConfig, Array] = {}

    def of(self, head: HeadConfig) -> dict[str, float]:
        """The thresholds of a head, by label; none if none are chosen."""
        if head not in self._chosen:
            return {}
        return dict(zip(self._labels, self._chosen[head].tolist(), strict=True))

    def order(self, splits: Iterable[str]) -> list[str]:
        """The order in which splits must be evaluated: first the one that chooses."""
        return sorted(splits, key=lambda name: self._metric is not None and name != "validation")

    def applied(
        self, name: str, split: TokenSplit, evaluated: Mapping[HeadConfig, Evaluated]
    ) -> Mapping[HeadConfig, Evaluated]:
        """What was evaluated on a split, with the thresholds' decisions; on validation they are
        chosen first."""
        if self._metric is None:
            return evaluated
        labels = split.labels.cpu().numpy()
        if name == "validation":
            for head, own in evaluated.items():
                chances = self._task.probabilities(own.logits.cpu().numpy())
                self._chosen[head] = self._task.best_thresholds(chances, labels, self._metric)
        return {
            head: decided(own, labels, self._task, self._chosen[head])
            for head, own in evaluated.items()
        }
