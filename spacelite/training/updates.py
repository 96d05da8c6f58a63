"""The updates of one epoch, and how far a training is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy.typing as npt
import torch

from spacelite.heads import Head
from spacelite.heads.base import Objective
from spacelite.training import engine
from spacelite.training.batches import TokenSplit
from spacelite.training.config import TrainingConfig
from spacelite.training.engine import Workers
from spacelite.training.optimizer import Adam, schedule_factor

Array = npt.NDArray[Any]
# Called with the number of tokens done, and the total.
OnProgress = Callable[[int, int], None]


class Progress:
    """Counts the tokens that are done, and reports them with the total."""

    def __init__(self, report: OnProgress, total: int) -> None:
        self._report, self._total, self._done = report, total, 0

    def __call__(self, tokens: int) -> None:
        """Add tokens."""
        self._done += tokens
        self._report(self._done, self._total)


def updates(
    split: TokenSplit,
    rows: Array,
    stacks: Sequence[Head],
    optimizers: Sequence[Adam],
    training: TrainingConfig,
    objective: Objective,
    workers: Workers,
    epoch: int,
) -> Iterator[int]:
    """Update the heads once for each batch of an epoch.

    Args:
        split: The train split.
        rows: Its examples in the order of the epoch.
        stacks: The heads. Where they have weights over the examples, a batch in which all weights
            of a head are 0 is no update of it.
        optimizers: The optimiser of each stack.
        training: Settings that the heads share.
        objective: What is minimised.
        workers: Threads that run the groups.
        epoch: Number of the epoch, counted from 1.

    Yields:
        The number of tokens of a batch, once it is done; the totals of the heads are its.
    """
    starts = range(0, len(rows), training.batch_size)
    for number, start in enumerate(starts):
        chosen = rows[start : start + training.batch_size]
        batch = engine.batch_of(split, chosen, objective)
        for stack in stacks:
            stack.clear()
        engine.run_batch(split, stacks, chosen, batch, workers, (epoch, number))
        update = (epoch - 1) * len(starts) + number
        factor = schedule_factor(training.schedule, update, training.epochs * len(starts))
        for stack, optimizer in zip(stacks, optimizers, strict=True):
            idle = _idle(stack, chosen)
            optimizer.update(
                stack.parameters, stack.gradients, update + 1, factor, training.clip_norm, idle
            )
        yield int(split.lengths[chosen].sum())
    split.release()


def _idle(stack: Head, examples: Array) -> torch.Tensor | None:
    """Which heads of a stack give all these examples a weight of 0, (K,) bool; None if none."""
    weights = stack.sample_weights
    if weights is None:
        return None
    idle = ~(weights[:, torch.from_numpy(examples).to(weights.device)] > 0).any(dim=1)
    return idle if idle.any() else None
