"""Adam for a stack of heads: a learning rate and weight decay per head, clipping, schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from spacelite.lazy import torch

Moments: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"

# Name -> the factor of the learning rate at an update, counted from 0, of so many updates.
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda update, updates: 1.0,
    "cosine": lambda update, updates: (1 + math.cos(math.pi * update / updates)) / 2,
}


class Adam:
    """torch.optim.Adam's update (L2 weight decay) for parameters stacked along a dimension K.

    torch's class has only one learning rate per parameter, and it imports torch's compiler, which
    often takes longer than the training itself. `moments` are the running means of each parameter's
    gradients and of their squares.
    """

    BETAS = (0.9, 0.999)
    EPSILON = 1e-8

    def __init__(self, configs: Sequence[Any], parameters: dict[str, torch.Tensor]) -> None:
        rates, decays = zip(*((c.learning_rate, c.weight_decay) for c in configs), strict=True)
        self._rates = torch.tensor(rates, dtype=torch.float64)
        self._decays = torch.tensor(decays, dtype=torch.float64)
        self.moments: dict[str, Moments] = {
            name: (torch.zeros_like(value), torch.zeros_like(value))
            for name, value in parameters.items()
        }
        self._skipped = torch.zeros(len(self._rates), dtype=torch.int64)

    def update(
        self,
        parameters: dict[str, torch.Tensor],
        gradients: dict[str, torch.Tensor],
        number: int,
        factor: float = 1.0,
        clip_norm: float | None = None,
        idle: torch.Tensor | None = None,
    ) -> None:
        """Update the parameters, (K, ...) each, in place; `number` counts updates from 1.

        The learning rate is scaled by `factor`, a head's gradient clipped to `clip_norm`. For heads
        that are `idle`, (K,) bool, it is as if there had been no such batch.
        """
        if clip_norm is not None:
            gradients = _clipped(gradients, clip_norm)
        if idle is not None:
            self._skipped += idle.cpu()
        count = (number - self._skipped.double()).clamp(min=1)  # of each head
        first, second = (1 - beta**count for beta in self.BETAS)
        for name, (mean, square) in self.moments.items():
            parameter = parameters[name]
            state = (parameter, mean, square)
            before = [values[idle] for values in state] if idle is not None else []
            per_head = (-1, *[1] * (parameter.dim() - 1))
            rate, decay, root = (
                values.view(per_head).to(parameter)
                for values in (self._rates * factor / first, self._decays, second.sqrt())
            )
            gradient = torch.addcmul(gradients[name], parameter, decay)
            mean.lerp_(gradient, 1 - self.BETAS[0])
            square.mul_(self.BETAS[1]).addcmul_(gradient, gradient, value=1 - self.BETAS[1])
            scale = square.sqrt().div_(root).add_(self.EPSILON)
            parameter.sub_(mean.div(scale).mul_(rate))
            for values, former in zip(state, before, strict=False):
                values[idle] = former


def _clipped(gradients: dict[str, torch.Tensor], norm: float) -> dict[str, torch.Tensor]:
    """Like torch.nn.utils.clip_grad_norm_, but for each of the K heads separately."""
    squares = [value.flatten(1).square().sum(dim=1) for value in gradients.values()]
    total = torch.stack(squares).sum(dim=0).sqrt()
    scale = (norm / (total + 1e-6)).clamp(max=1)
    return {
        name: value * scale.view(-1, *[1] * (value.dim() - 1)) for name, value in gradients.items()
    }
