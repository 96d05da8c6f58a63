"""Decision thresholds of trained heads: chosen on validation, and used on every split."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import numpy.typing as npt

from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.metrics.scores import METRICS
from spacelite.metrics.thresholds import OPTIMISTIC
from spacelite.training.batches import TokenSplit
from spacelite.training.config import FitConfig
from spacelite.training.evaluation import Evaluated, decided

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]


def check(cache: Cache, training: FitConfig) -> None:
    """Raise SpaceliteError if thresholds are to be chosen where decisions have none; say in the log
    what follows from choosing them."""
    if training.threshold is None:
        return
    if not cache.task.threshold_labels(cache.label_names):
        raise SpaceliteError(
            f"threshold={training.threshold}: cache {cache.name} has {len(cache.label_names)} "
            "labels of which a text has one, and a threshold decides between two: leave threshold "
            "out",
            ["threshold"],
        )
    log.info(
        "decision thresholds are chosen on validation for %s: %s",
        METRICS[training.threshold].in_words, OPTIMISTIC,
    )  # fmt: skip


class Thresholds:
    """The decision thresholds of a training.

    Args:
        metric: Metric that they are chosen for; None if there are none.
        cache: The cache.
    """

    def __init__(self, metric: str | None, cache: Cache) -> None:
        self._metric, self._task = metric, cache.task
        self._labels = self._task.threshold_labels(cache.label_names)
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
