"""Heads on one vector per example: the common base of linear, mlp and logreg."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from spacelite.heads.base import Head, dropout_masks
from spacelite.heads.batch import Batch
from spacelite.heads.config import HeadConfig
from spacelite.heads.pooling import POOLINGS, known_pooling
from spacelite.lazy import torch
from spacelite.settings import setting


@dataclass(frozen=True, kw_only=True)
class PooledConfig(HeadConfig):
    """A head on one vector per example.

    Attributes:
        pooling: How the example's tokens become that vector, one of POOLINGS.
    """

    pooling: str = setting(
        "first",
        check=known_pooling,
        help="Pooling(s) of the baselines: first, last, mean, pooler or layers.",
        help_default="first; last where the tokenizer pads on the left",
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

    configs: list[Any]

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
        """Logits (K, B, C) and the last layer's inputs (K, B, p).

        Args:
            features: One vector per example, (B, d).
            dropout: Numbers of the epoch and of the batch in training; None for no dropout.
        """
        inputs = self.inputs(features)
        if dropout is not None and self.dropout:
            shape = (len(features), inputs.shape[-1])
            masks = dropout_masks(self.configs, self.dropout, shape, dropout)
            inputs = inputs * masks.to(features.device)
        return self.classify(inputs), inputs

    def run_batch(
        self, features: torch.Tensor, batch: Batch, train: tuple[int, int] | None
    ) -> None:
        """Run forward and, in training, backward on a batch.

        Args:
            features: One vector per example, (B, d).
            batch: The examples.
            train: Numbers of the epoch and of the batch; None in evaluation.
        """
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
