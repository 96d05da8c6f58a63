"""Poolings: how the tokens of an example become one vector, one entry each in POOLINGS; and heads
on one vector per example, the common base of linear, mlp and logreg."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from typing_extensions import override

from spacelite.heads.base import Batch, Head, Split, dropout_masks, segment_sum, vectors_of
from spacelite.heads.config import HeadConfig
from spacelite.lazy import torch
from spacelite.settings import choose_from, setting
from spacelite.types import Array


@dataclass(frozen=True)
class Pooling:
    """How the tokens of an example become one vector. Exactly one of the first four attributes is
    set.

    Attributes:
        pool: Tokens (n, d) of B examples end to end, and their lengths (B,) -> vectors (B, d).
        position: Index of the only token that is read: 0 for the first, -1 for the last.
        from_backbone: Whether the vector is the output of the backbone's own pooler.
        from_layers: Whether the vector is the means of all layers side by side, (layers * d,).
        is_mean: Whether the vector is the mean of the tokens, so that a linear layer on it is a
            sum over tokens.
        dropout: Dropout rate of a linear layer on the vector, in training.
    """

    pool: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    position: int | None = None
    from_backbone: bool = False
    from_layers: bool = False
    is_mean: bool = False
    dropout: float = 0.0


def mean(tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The mean of each example's tokens: (n, d), (B,) -> (B, d)."""
    return segment_sum(tokens, lengths) / lengths.view(-1, 1)


def largest(tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The largest value of each dimension of each example's tokens: (n, d), (B,) -> (B, d)."""
    return torch.segment_reduce(tokens, "max", lengths=lengths, axis=0)


POOLINGS: dict[str, Pooling] = {
    "first": Pooling(position=0),
    "last": Pooling(position=-1),
    "mean": Pooling(pool=mean, is_mean=True),
    "max": Pooling(pool=largest),
    "pooler": Pooling(from_backbone=True, dropout=0.1),  # as in the published baseline on BERT
    "layers": Pooling(from_layers=True, is_mean=True),
}


def known_pooling(value: object) -> str | None:
    """Check of a setting: its value is one of POOLINGS."""
    return None if value in POOLINGS else choose_from(value, POOLINGS)


@dataclass(frozen=True, kw_only=True)
class PooledConfig(HeadConfig):
    """A head on one vector per example."""

    pooling: str = setting(
        "first",
        check=known_pooling,
        help="Pooling(s) of the baselines: first, last, mean, max, pooler or layers.",
        help_default="first; last for decoders and where the tokenizer pads on the left",
    )

    @property
    @override
    def name(self) -> str:
        return f"{self.kind} ({self.pooling})"

    @property
    @override
    def poolings(self) -> tuple[str, ...]:
        return (self.pooling,)

    @property
    @override
    def reads_layers(self) -> bool:
        return POOLINGS[self.pooling].from_layers


class PooledHead(Head):
    """Heads on one vector per example: `inputs` transforms it, and a linear layer comes last."""

    @property
    def pooling(self) -> str:
        """How an example's tokens become the vector."""
        return str(self.configs[0].pooling)

    @property
    def dropout(self) -> float:
        """Dropout rate of the last layer's inputs during training."""
        return POOLINGS[self.pooling].dropout

    def inputs(self, features: torch.Tensor) -> torch.Tensor:
        """The last layer's inputs (K, B, p), from one vector per example (B, d)."""
        return features.expand(len(self.configs), -1, -1)

    def forward(
        self, features: torch.Tensor, dropout: tuple[int, int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (K, B, C) and the last layer's inputs (K, B, p), from one vector per example
        (B, d); `dropout` are the numbers of the epoch and of the batch in training."""
        inputs = self.inputs(features)
        if dropout is not None and self.dropout:
            shape = (len(features), inputs.shape[-1])
            masks = dropout_masks(self.configs, self.dropout, shape, dropout)
            inputs = inputs * masks.to(features.device)
        return self.classify(inputs), inputs

    @override
    def plan(
        self, split: Split, rows: Array, batch: Batch, train: tuple[int, int] | None
    ) -> Callable[[], None]:
        return partial(self.run_batch, vectors_of(split, self.pooling, rows), batch, train)

    def run_batch(
        self, features: torch.Tensor, batch: Batch, train: tuple[int, int] | None
    ) -> None:
        """Run forward and, in training, backward on a batch, given its vectors (B, d)."""
        self.logits, inputs = self.forward(features, train)
        self.totals.add(self.logits, batch)
        if train is not None:
            logit_gradients = batch.logit_gradients(self.logits)
            self.classifier_gradients(logit_gradients, inputs)
            self.inputs_gradients(logit_gradients, inputs, features)

    def inputs_gradients(
        self, logit_gradients: torch.Tensor, inputs: torch.Tensor, features: torch.Tensor
    ) -> None:
        """Set the gradients of the parameters that `inputs` uses; by default, it uses none."""
