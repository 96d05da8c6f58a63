"""The space block of an additive head: concept spaces on standardised hidden states, trained on top
of the logits of the other blocks.

Shapes: as in `space`.
"""

from __future__ import annotations

from typing import Any, ClassVar

from typing_extensions import override

from spacelite.heads.base import Shapes
from spacelite.heads.batch import Batch
from spacelite.heads.examples import Examples, Parameters
from spacelite.heads.space import BIAS, SpaceHead
from spacelite.lazy import torch

MEAN, SCALE = "tokens.mean", "tokens.scale"


class SpaceBlock(SpaceHead):
    """K space blocks in training, with the same L, on top of the same logits.

    Their concept coordinates are tanh(W_c z + b_c) of standardised hidden states
    z = (x - mean) * scale: Adam moves all weights by steps of one size, which suits only dimensions
    of one size. What is saved reads hidden states as they are (`folded`).

    Attributes:
        starts: The logits of the training examples on top of which each is trained, (K, N, C);
            None if all are trained on top of those that the split holds.
    """

    TABLES: ClassVar[tuple[str, ...]] = (MEAN, SCALE)
    starts: torch.Tensor | None = None

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        return {
            "concept_spaces": (classes, config.dimensions, width),
            BIAS: (classes, config.dimensions),
            "classifier.weight": (classes, classes * config.dimensions),
            "classifier.bias": (classes,),
            MEAN: (width,),
            SCALE: (width,),
        }

    @classmethod
    @override
    def initial(cls, config: Any, classes: int, width: int) -> Parameters:
        """As for any head, but without biases and with a classifier of 0: before training, the
        logits are those of the other blocks. `MEAN` and `SCALE` are left to be filled in."""
        own = super().initial(config, classes, width)
        return {
            name: value if name == "concept_spaces" else torch.zeros_like(value)
            for name, value in own.items()
        }

    @classmethod
    @override
    def filled(cls, parameters: Parameters, train: Examples) -> Parameters:
        mean, scale = train.standardisation()
        return {**parameters, MEAN: mean.cpu(), SCALE: scale.cpu()}

    @classmethod
    def folded(cls, parameters: Parameters) -> Parameters:
        """The parameters of one trained block (no dimension K), so that its concept spaces read
        hidden states that are not standardised."""
        mean, scale = parameters[MEAN].double(), parameters[SCALE].double()
        spaces = parameters["concept_spaces"].double() * scale
        shift = parameters[BIAS].double() - spaces @ mean
        return {
            "concept_spaces": spaces.float(),
            BIAS: shift.float(),
            "classifier.weight": parameters["classifier.weight"],
            "classifier.bias": parameters["classifier.bias"],
        }

    @property
    @override
    def projection(self) -> torch.Tensor:
        return self._projection

    @property
    @override
    def shift(self) -> torch.Tensor:
        return self._shift

    @override
    def begin(self, batch: Batch) -> None:
        """Fold the standardisation into the weights: that costs less than to standardise tokens."""
        super().begin(batch)
        spaces = self.parameters["concept_spaces"] * self.parameters[SCALE][:, None, None]
        means = torch.einsum("kcld,kd->kcl", spaces, self.parameters[MEAN])
        self._projection = spaces.flatten(0, 2)
        self._shift = (self.parameters[BIAS] - means).flatten()

    @override
    def end(self, batch: Batch, gradients: Parameters | None) -> None:
        super().end(batch, gradients)
        if gradients is None:
            return
        # Through the folding: the projection is W * scale, the shift b - W * scale . mean.
        mean, scale = (self.parameters[name][:, None, None] for name in (MEAN, SCALE))
        spaces, shift = self.gradients["concept_spaces"], self.gradients[BIAS]
        self.gradients["concept_spaces"] = (spaces - shift[..., None] * mean) * scale
