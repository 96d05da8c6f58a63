"""A head after training: what the training loop returns of each."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spacelite.heads import HeadConfig
from spacelite.heads.base import Parameters
from spacelite.metrics.scores import Scores

if TYPE_CHECKING:
    import torch

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
    seconds: float = 0.0
    heads_in_pass: int = 1

    @property
    def kept(self) -> bool:
        """Whether the head is there to be saved: it neither diverged nor was dropped."""
        return self.stopped is None and self.dropped is None


def stop_if_diverged(result: TrainedHead, by_split: dict[str, Scores], when: str) -> bool:
    """Stop a head, with a warning, if its loss on any split is not finite; True if so."""
    losses = {split: float(scores["loss"] or 0.0) for split, scores in by_split.items()}
    if all(map(math.isfinite, losses.values())):
        return False
    figures = ", ".join(f"{loss:g} ({split})" for split, loss in losses.items())
    result.stopped, result.parameters = f"its loss is {figures} {when}", {}
    log.warning("%s was stopped: %s", result.config.description, result.stopped)
    return True
