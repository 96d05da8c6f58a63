"""Heads that are fitted at once: each of them once, whether it is wanted for itself or as the start
of others.

Shapes: N training examples.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spacelite import heads
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.heads.base import Examples, Fitted, Objective
from spacelite.metrics.scores import Scores
from spacelite.training import engine
from spacelite.training.batches import TokenSplit
from spacelite.training.engine import Workers
from spacelite.training.evaluation import evaluate, scores_of, stacked

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]


def require_weights(weights: Array, examples: int) -> None:
    """Raise SpaceliteError unless these are weights of so many training examples."""
    if np.shape(weights) != (examples,):
        raise SpaceliteError(
            f"there are {examples:,} training examples, and weights of the shape "
            f"{np.shape(weights)}"
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise SpaceliteError("weights of examples must be at least 0, finite, and not all 0")


class Part:
    """The examples of a split that have a weight above 0, as `Examples`.

    Args:
        split: The split.
        weights: The weight of each of its examples, (N,).

    Attributes:
        rows: Their indices in the split.
        labels: Their labels.
        weights: Their weights, float64; None if all are 1.
    """

    def __init__(self, split: TokenSplit, weights: Array) -> None:
        self._split, self.rows = split, np.flatnonzero(weights)
        self._index = torch.from_numpy(self.rows).to(split.device)
        self.labels = split.labels[self._index]
        own = np.asarray(weights, np.float64)[self.rows]
        self.weights = None if (own == 1).all() else own
        self._standardisation: tuple[torch.Tensor, torch.Tensor] | None = None

    def features(self, pooling: str) -> torch.Tensor:
        """One vector per example, by a pooling."""
        return self._split.features(pooling)[self._index]

    def token_ids(self) -> tuple[Array, Array]:
        """The token ids of all examples end to end, and their offsets."""
        return self._split.token_ids(self.rows)

    def standardisation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """As `TokenSplit.standardisation`, of these examples; computed once."""
        if self._standardisation is None:
            self._standardisation = self._split.standardisation(self.rows)
        return self._standardisation

    def held(self, fitted: Fitted, others: torch.Tensor) -> torch.Tensor:
        """Logits of all examples of the split by fits that they were held out of, (N, C).

        Args:
            fitted: A head that was fitted to these examples.
            others: The logits of that head for all examples of the split, (N, C).
        """
        if fitted.held is None:
            raise ValueError("this kind of head is no start of another")
        logits = others.clone()
        logits[torch.from_numpy(self.rows)] = fitted.held
        return logits


class Fits:
    """The heads that have been fitted.

    Args:
        splits: All splits, train first.
        objective: Task, number of classes and class weights.
        class_weights: `none` or `balanced`.
        weights: The weight of each training example, (N,); None if all are 1.

    Attributes:
        examples: The training examples that heads are fitted to.
        seconds: How long each fit took, by head.
        starts: The metrics of each start by split, by head; those on train are of logits for
            examples that were held out.
    """

    def __init__(
        self,
        splits: Mapping[str, TokenSplit],
        objective: Objective,
        class_weights: str,
        weights: Array | None = None,
    ) -> None:
        self._splits, self._objective, self._class_weights = splits, objective, class_weights
        train = splits["train"]
        self._part = None if weights is None else Part(train, weights)
        self.examples: Examples = train if self._part is None else self._part
        self._fitted: dict[HeadConfig, Fitted] = {}
        self.seconds: dict[HeadConfig, float] = {}
        self.starts: dict[HeadConfig, dict[str, Scores]] = {}
        self.start_logits: dict[HeadConfig, dict[str, torch.Tensor]] = {}

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
                config, self.examples, self._objective, self._class_weights
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
        fitted, train = self.of(config), self._splits["train"]
        stacks = stacked({config: fitted.parameters}, self._objective, train.device)
        held = fitted.held
        if self._part is not None:
            (logits,) = engine.run_split(train, stacks, self._objective, workers)
            held = self._part.held(fitted, logits[0])
        if held is None:
            raise ValueError(f"{config.name} is no start of another head")
        self.start_logits[config] = {train.name: held.to(train.device)}
        self.starts[config] = {
            "train": scores_of(held, train.labels.cpu(), self._objective, counts=True)
        }
        if (validation := self._splits.get("validation")) is not None:
            evaluated = evaluate(validation, stacks, self._objective, workers)[config]
            self.start_logits[config][validation.name] = evaluated.logits.to(validation.device)
            self.starts[config]["validation"] = evaluated.scores
