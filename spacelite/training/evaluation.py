"""What stacks of heads have summed -> each head's loss, CE and metrics: of a split, of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from spacelite.heads.heads import Heads
from spacelite.heads.losses import Objective, Size
from spacelite.heads.settings import HeadSettings
from spacelite.metrics import scores as metrics
from spacelite.training import engine as passes
from spacelite.training.batches import TokenSplit
from spacelite.training.engine import Workers

Scores = dict[str, float]


class Evaluated(NamedTuple):
    """A head on a split: its figures, and its logits (N, C) for each example."""

    scores: Scores
    logits: torch.Tensor


class Seen:
    """The figures of an epoch's batches: losses as means over examples, predictions summed."""

    def __init__(self, stack: Heads) -> None:
        self._stack = stack
        self._loss, self._ce = torch.zeros(2, len(stack.settings), dtype=torch.float64)
        self._confusion = torch.zeros_like(stack.sums.confusion)
        self._right = torch.zeros_like(stack.sums.right)
        self._examples = 0

    def add(self, size: Size) -> None:
        """Count what the stack has summed over a batch."""
        loss, ce = self._stack.losses(size)
        self._loss += loss * size.examples
        self._ce += ce * size.examples
        self._confusion += self._stack.sums.confusion
        self._right += self._stack.sums.right
        self._examples += size.examples

    def scores(self) -> list[tuple[HeadSettings, Scores]]:
        """Each head's figures."""
        accuracy = self._right / self._examples
        figures = (self._loss / self._examples, self._ce / self._examples, accuracy)
        return _scores(self._stack, *figures, self._confusion)


def evaluate(
    split: TokenSplit,
    stacks: Sequence[Heads],
    objective: Objective,
    crew: Workers,
    progress: Callable[[int], None] = lambda tokens: None,
) -> dict[HeadSettings, Evaluated]:
    """Loss, CE, metrics and logits of every head on a split, which counts as one batch: L_inter
    and L_intra are means over the whole split."""
    size, logits = passes.sum_up(split, stacks, objective, crew, progress)
    evaluated = {}
    for stack, of_stack in zip(stacks, logits, strict=True):
        figures = (*stack.losses(size), stack.sums.right / size.examples, stack.sums.confusion)
        for row, (head, scores) in enumerate(_scores(stack, *figures)):
            evaluated[head] = Evaluated(scores, of_stack[row])
    return evaluated


def _scores(
    stack: Heads,
    loss: torch.Tensor,
    ce: torch.Tensor,
    accuracy: torch.Tensor,
    confusion: torch.Tensor,
) -> list[tuple[HeadSettings, Scores]]:
    return [
        (
            head,
            {
                "loss": float(loss[row]),
                "ce": float(ce[row]),
                "accuracy": float(accuracy[row]),
                **metrics.scores(confusion[row].numpy()),
            },
        )
        for row, head in enumerate(stack.settings)
    ]
