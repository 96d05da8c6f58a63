"""The mlp head: Linear(d, d), ReLU, dropout 0.2, Linear(d, C), the published mlp baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from spacelite.heads.base import Shapes
from spacelite.heads.config import TrainedHeadConfig
from spacelite.heads.pooled import PooledConfig, PooledHead
from spacelite.lazy import torch


@dataclass(frozen=True, kw_only=True)
class MLPConfig(TrainedHeadConfig, PooledConfig):
    """Two linear layers on one vector per example."""

    kind: ClassVar[str] = "mlp"


class MLPHead(PooledHead):
    """Linear(d, d), ReLU, dropout 0.2, Linear(d, C) on one vector per example."""

    config_type = MLPConfig

    @property
    @override
    def dropout(self) -> float:
        return 0.2  # as published, whatever the pooling

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        return {
            "pre_classifier.weight": (width, width),
            "pre_classifier.bias": (width,),
            "classifier.weight": (classes, width),
            "classifier.bias": (classes,),
        }

    @override
    def inputs(self, features: torch.Tensor) -> torch.Tensor:
        examples, width = features.shape
        weight = self.parameters["pre_classifier.weight"]
        hidden = torch.mm(features, weight.flatten(0, 1).T)
        hidden = hidden.view(examples, len(self.configs), width)
        return (hidden + self.parameters["pre_classifier.bias"]).relu_().transpose(0, 1)

    @override
    def inputs_gradients(
        self, logit_gradients: torch.Tensor, inputs: torch.Tensor, features: torch.Tensor
    ) -> None:
        back = torch.bmm(logit_gradients, self.parameters["classifier.weight"])
        # An input is 0 where dropout or ReLU set it to 0.
        back = back.div_(1 - self.dropout).masked_fill_(inputs == 0, 0)
        self.gradients["pre_classifier.bias"] = back.sum(dim=1)
        self.gradients["pre_classifier.weight"] = back.transpose(1, 2) @ features
