"""Poolings: how the tokens of an example become one vector. One entry each in POOLINGS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spacelite.heads.batch import segment_sum
from spacelite.lazy import torch


@dataclass(frozen=True)
class Pooling:
    """How the n tokens of an example become one vector (d,). Exactly one of the first three.

    Attributes:
        pool: (n, d) tokens of B examples end to end and their lengths (B,) -> (B, d).
        position: Which single token it is, 0 the first, -1 the last: only that one is read.
        from_backbone: Whether it is the output of the backbone's own pooler.
        is_mean: Whether it is the mean of the tokens, so that a linear layer on it is a sum over
            tokens.
        dropout: Of a linear layer on it, while it is trained.
    """

    pool: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    position: int | None = None
    from_backbone: bool = False
    is_mean: bool = False
    dropout: float = 0.0


def mean(tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The mean of each example's tokens: (n, d), (B,) -> (B, d)."""
    return segment_sum(tokens, lengths) / lengths.view(-1, 1)


POOLINGS: dict[str, Pooling] = {
    "first": Pooling(position=0),
    "last": Pooling(position=-1),
    "mean": Pooling(pool=mean, is_mean=True),
    "pooler": Pooling(from_backbone=True, dropout=0.1),  # the published baseline's on BERT
}


def default_pooling(padding_side: str) -> str:
    """The single token that stands for a text: the last where the tokenizer pads on the left, as
    XLNet's does, whose classification token comes last; else the first."""
    return "last" if padding_side == "left" else "first"


def known_pooling(value: object) -> str | None:
    """A setting's check: the pooling is one of POOLINGS."""
    return None if value in POOLINGS else f"choose from {', '.join(POOLINGS)}"
