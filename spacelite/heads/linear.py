"""The linear head: one linear layer on one vector per example, the published linear baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from spacelite.heads.base import Shapes
from spacelite.heads.config import HeadConfig, TrainedHeadConfig
from spacelite.heads.pooled import PooledConfig, PooledHead
from spacelite.heads.pooling import POOLINGS

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class LinearConfig(TrainedHeadConfig, PooledConfig):
    """A linear layer on one vector per example."""

    kind: ClassVar[str] = "linear"


class LinearHead(PooledHead):
    """Linear(d, C) on one vector per example; the pooling determines the dropout rate."""

    config_type: ClassVar[type[HeadConfig]] = LinearConfig

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        return {"classifier.weight": (classes, width), "classifier.bias": (classes,)}

    @classmethod
    @override
    def not_additive(cls, config: Any) -> str | None:
        return None if POOLINGS[config.pooling].is_mean else super().not_additive(config)

    @classmethod
    def token_logits(cls, config: Any, parameters: dict[str, Array], hidden: Array) -> Array:
        """With mean pooling, each token contributes W x_t; `hidden` are the hidden states of all
        layers side by side if the head reads these."""
        logits: Array = hidden @ parameters["classifier.weight"].T.astype(hidden.dtype)
        return np.asarray(logits)
