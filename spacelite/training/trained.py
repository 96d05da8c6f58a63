"""A head in training and after it: its weights, metrics and history, and whether it diverged."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.heads.base import Parameters
from spacelite.metrics.scores import METRICS, Scores

log = logging.getLogger(__name__)


@dataclass
class TrainedHead:
    """A head after training.

    Attributes:
        config: Config of the head.
        parameters: Parameters by name; none if the head diverged.
        metrics: Metrics by split, with the final weights.
        history: One {"epoch", "train": metrics, "validation": metrics} per epoch; the train metrics
            are accumulated while the weights change.
        logits: Logits (N, C) by split, for all splits but train.
        best_epoch: Epoch whose weights were kept, if early stopping was on.
        stopped: Why the head was stopped, if it diverged; else None.
        dropped: The epoch after which a search dropped the head, if it did; else None. It has no
            parameters then, and no metrics of the test split.
        cross_validated: The settings that cross-validation chose, by name.
        thresholds: The decision thresholds that were chosen on validation, by label; none if none
            were.
        seconds: Duration of the whole training, shared by its `heads_in_pass` heads.
    """

    config: HeadConfig
    parameters: Parameters = field(default_factory=dict)
    metrics: dict[str, Scores] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    logits: dict[str, torch.Tensor] = field(default_factory=dict)
    best_epoch: int | None = None
    stopped: str | None = None
    dropped: int | None = None
    cross_validated: dict[str, float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    heads_in_pass: int = 1

    @property
    def kept(self) -> bool:
        """Whether the head is there to be saved: it neither diverged nor was dropped."""
        return self.stopped is None and self.dropped is None

    def drop(self, epoch: int) -> None:
        """Drop the head after an epoch, in a search."""
        self.dropped, self.parameters = epoch, {}

    def stop_if_diverged(self, by_split: dict[str, Scores], when: str) -> bool:
        """Stop the head, with a warning, if its loss on any split is not finite; True if so."""
        losses = {split: float(scores["loss"] or 0.0) for split, scores in by_split.items()}
        if all(map(math.isfinite, losses.values())):
            return False
        figures = ", ".join(f"{loss:g} ({split})" for split, loss in losses.items())
        self.stopped, self.parameters = f"its loss is {figures} {when}", {}
        log.warning("%s was stopped: %s", self.config.description, self.stopped)
        return True


def monitored(scores: Scores, monitor: str) -> float:
    """The value of the monitored metric. Raises SpaceliteError if it has none."""
    value = scores[monitor]
    if value is None:
        raise SpaceliteError(
            f"monitor={monitor}: it has no value on the validation split: choose another metric",
            ["monitor"],
        )
    return value


def best_entry(history: Sequence[dict[str, Any]], monitor: str) -> dict[str, Any]:
    """The entry of the first epoch with the best value of `monitor` on the validation split."""
    values = [monitored(entry["validation"], monitor) for entry in history]
    best = max(values) if METRICS[monitor].higher_is_better else min(values)
    return history[values.index(best)]


def mean_history(histories: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The history of an ensemble: the means of its members' metrics, for as many epochs as all of
    them were trained; None for a metric that a member lacks."""
    return [
        {
            "epoch": entries[0]["epoch"],
            **{
                split: _mean([entry[split] for entry in entries])
                for split in ("train", "validation")
                if split in entries[0]
            },
        }
        for entries in zip(*histories, strict=False)
    ]


def _mean(scores: Sequence[Scores]) -> Scores:
    means: Scores = {}
    for name in scores[0]:
        values = [each[name] for each in scores]
        known = [value for value in values if value is not None]
        means[name] = sum(known) / len(known) if len(known) == len(values) else None
    return means
