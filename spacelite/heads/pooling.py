"""Poolings: how the tokens of an example become one vector. One entry each in POOLINGS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spacelite.heads.batch import segment_sum
from spacelite.lazy import torch


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


POOLINGS: dict[str, Pooling] = {
    "first": Pooling(position=0),
    "last": Pooling(position=-1),
    "mean": Pooling(pool=mean, is_mean=True),
    "pooler": Pooling(from_backbone=True, dropout=0.1),  # as in the published baseline on BERT
    "layers": Pooling(from_layers=True, is_mean=True),
}


def default_pooling(padding_side: str) -> str:
    """The token that represents a text: the last if the tokenizer pads on the left (as XLNet's
    does, whose classification token comes last), else the first."""
    return "last" if padding_side == "left" else "first"


def known_pooling(value: object) -> str | None:
    """Check of a setting: its value is one of POOLINGS."""
    return None if value in POOLINGS else f"choose from {', '.join(POOLINGS)}"
