"""Heads that are fitted at once: each of them once, whether it is wanted for itself or as the start
of others."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from spacelite import heads
from spacelite.heads import HeadConfig
from spacelite.heads.batch import Objective
from spacelite.heads.examples import Fitted
from spacelite.metrics.scores import Scores
from spacelite.training.batches import TokenSplit
from spacelite.training.engine import Workers
from spacelite.training.evaluation import evaluate, scores_of, stacked

log = logging.getLogger(__name__)


class Fits:
    """The heads that have been fitted.

    Args:
        splits: All splits, train first.
        objective: Task, number of classes and class weights.
        class_weights: `none` or `balanced`.

    Attributes:
        seconds: How long each fit took, by head.
        starts: The metrics of each start on train and validation, by head; those on train are of
            logits for examples that were held out.
    """

    def __init__(
        self, splits: Mapping[str, TokenSplit], objective: Objective, class_weights: str
    ) -> None:
        self._splits, self._objective, self._class_weights = splits, objective, class_weights
        self._fitted: dict[HeadConfig, Fitted] = {}
        self.seconds: dict[HeadConfig, float] = {}
        self.starts: dict[HeadConfig, dict[str, Scores]] = {}

    @property
    def total_seconds(self) -> float:
        """How long all fits took."""
        return sum(self.seconds.values())

    def of(self, config: HeadConfig) -> Fitted:
        """The fitted head."""
        if config not in self._fitted:
            log.info("fitting %s", config.name)  # it reports no progress of its own
            started = time.perf_counter()
            fitted = heads.kind(config.kind).fit(
                config, self._splits["train"], self._objective, self._class_weights
            )
            for name, value in fitted.cross_validated.items():
                log.info("%s: cross-validation chose %s = %g", config.name, name, value)
            self._fitted[config] = fitted
            self.seconds[config] = time.perf_counter() - started
        return self._fitted[config]

    def begin(self, config: HeadConfig, workers: Workers) -> None:
        """Give the splits the logits of a head on top of which others are trained.

        On train, they are of fits that the example was held out of: logits of examples that n-grams
        were fitted to look so sure that nothing would be left to learn.
        """
        if config in self.starts:
            return
        fitted, train, validation = self.of(config), *map(self._splits.get, ("train", "validation"))
        if fitted.held is None or train is None or validation is None:
            raise ValueError(f"{config.name} is no start of another head")
        train.add_start(config, fitted.held)
        stacks = stacked({config: fitted.parameters}, self._objective, train.device)
        evaluated = evaluate(validation, stacks, self._objective, workers)[config]
        validation.add_start(config, evaluated.logits)
        labels, held = train.labels.cpu(), fitted.held
        self.starts[config] = {
            "train": scores_of(held, labels, self._objective, counts=True),
            "validation": evaluated.scores,
        }
