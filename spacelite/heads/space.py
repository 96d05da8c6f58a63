"""The space head: one small concept space per class, and the losses that shape it.

Formulas: Tytarenko & Amin, arXiv:2401.16638. Shapes: K heads, C classes, L latent dimensions of a
concept space, d hidden width, B examples, n tokens in all of them together. Concept coordinates of
a token: s = tanh(W_c x), or tanh(W_c x + b_c) where concept spaces have biases; centroids: their
means over an example's tokens; logits: a linear layer on the centroids.

Gradients are computed by explicit formulas, not by autograd. The loss of a batch is a sum over
examples, apart from a few counts that are known beforehand, so the exact gradient of a group of
examples can be computed while its hidden states are in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from spacelite.heads.base import Shapes, TokenHead
from spacelite.heads.batch import Batch, Objective, Scratch, segment_sum
from spacelite.heads.config import EnsembleConfig, HeadConfig
from spacelite.heads.examples import Parameters
from spacelite.heads.penalties import EPSILON, Penalties, at_least_one, by_row, count_of
from spacelite.lazy import torch
from spacelite.settings import non_negative, setting, whole_number

LARGEST_LATENT = 10_000  # far more than anyone needs: a larger value is a typo
BIAS = "concept_spaces.bias"  # (C, L); the space head of the paper has none
NARROW = 64  # columns below which the product is faster with the result transposed

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class SpaceConfig(EnsembleConfig):
    """A space head.

    Attributes:
        latent: L, the dimensions of a concept space.
        inter: The weight of L_inter in the loss.
        intra: The weight of L_intra in the loss.
    """

    kind: ClassVar[str] = "space"
    latent: int = setting(
        3,
        check=whole_number(1, LARGEST_LATENT),
        tuned=True,
        symbol="L",
        search=(3, 16, 32),
        help="Dimension(s) of a concept space.",
    )
    inter: float = setting(0.0, check=non_negative, help="Weight(s) of the inter-space loss.")
    intra: float = setting(0.0, check=non_negative, help="Weight(s) of the intra-space loss.")

    @property
    def dimensions(self) -> int:
        """The dimensions of a concept space in which those of all members lie side by side."""
        return self.latent * self.ensemble

    @property
    @override
    def name(self) -> str:
        return "space" if self.latent == 3 else f"space L={self.latent}"

    @property
    @override
    def description(self) -> str:
        return (
            f"{self.name} inter {self.inter:g} intra {self.intra:g} seed {self.seed} "
            f"(learning rate {self.learning_rate:g})"
        )


class SpaceHead(TokenHead):
    """K space heads with the same L, those with L_intra first.

    Columns are the K C L coordinates of a token, ordered by head, then by class.

    Attributes:
        added: Logits that are added to those of the heads, (B, C), or (K, B, C) if each has its
            own; None for none.
    """

    config_type = SpaceConfig
    configs: list[Any]

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        return {
            "concept_spaces": (classes, config.dimensions, width),
            "classifier.weight": (classes, classes * config.dimensions),
            "classifier.bias": (classes,),
        }

    @classmethod
    @override
    def stack_key(cls, config: Any) -> tuple[object, ...]:
        return (config.kind, config.dimensions)

    @classmethod
    @override
    def merged(cls, members: Sequence[Parameters]) -> Parameters:
        """Its concept spaces are those of all members side by side."""
        own = dict(members[0])
        for name in ("concept_spaces", BIAS):
            if name in own:
                own[name] = torch.cat([each[name] for each in members], dim=1)
        classes = len(own["classifier.bias"])
        weights = [each["classifier.weight"].view(classes, classes, -1) for each in members]
        own["classifier.weight"] = torch.cat(weights, dim=2).flatten(1) / len(members)
        own["classifier.bias"] = torch.stack([each["classifier.bias"] for each in members]).mean(0)
        return own

    @classmethod
    def stack(
        cls,
        configs: Sequence[HeadConfig],
        parameters: Sequence[Parameters],
        objective: Objective,
        device: str = "cpu",
    ) -> SpaceHead:
        """Stack heads, those with L_intra first: only their columns need variances."""
        spaces: Sequence[Any] = configs
        order = sorted(range(len(configs)), key=lambda row: not spaces[row].intra)
        ordered = [configs[row] for row in order], [parameters[row] for row in order]
        return super().stack(*ordered, objective, device)

    # Each token's share in the logits.

    @classmethod
    @override
    def not_additive(cls, config: Any) -> str | None:
        return None

    @classmethod
    @override
    def coordinates(cls, parameters: dict[str, Array], hidden: Array) -> Array:
        spaces = parameters["concept_spaces"]
        projected = hidden @ spaces.reshape(-1, spaces.shape[-1]).T.astype(hidden.dtype)
        if BIAS in parameters:
            projected += parameters[BIAS].reshape(-1).astype(hidden.dtype)
        coordinates: Array = np.tanh(projected, out=projected)
        return coordinates

    @classmethod
    def token_logits(cls, config: Any, parameters: dict[str, Array], hidden: Array) -> Array:
        """The logits are linear in the mean of the coordinates: each token contributes V s_t."""
        coordinates = cls.coordinates(parameters, hidden)
        logits: Array = coordinates @ parameters["classifier.weight"].T.astype(hidden.dtype)
        return logits

    @classmethod
    @override
    def numbers_per_token(cls, config: Any, classes: int, width: int) -> int:
        return max(width, classes * int(config.dimensions))

    # Running K heads.

    def __init__(
        self, configs: Sequence[HeadConfig], parameters: Parameters, objective: Objective
    ) -> None:
        super().__init__(configs, parameters, objective)
        spaces = parameters["concept_spaces"]
        weights = [[config.inter, config.intra] for config in self.configs]
        self.inter, self.intra = torch.tensor(weights, dtype=torch.float64).unbind(dim=1)
        self.latent = int(spaces.shape[2])
        self.per_head = objective.classes * self.latent  # columns
        self.varied = int((self.intra > 0).sum())  # heads with L_intra
        self.added: torch.Tensor | None = None
        self._with_inter = bool(self.inter.any())
        self._inter = self.inter.to(spaces).view(1, -1, 1)
        self._intra = self.intra[: self.varied].to(spaces).repeat_interleave(self.per_head)

    @property
    @override
    def columns(self) -> int:
        return len(self.configs) * self.per_head

    @property
    def projection(self) -> torch.Tensor:
        """All concept spaces as one matrix (K C L, d)."""
        return self.parameters["concept_spaces"].flatten(0, 2)

    @property
    def shift(self) -> torch.Tensor | None:
        """The biases of all concept spaces, (K C L,), if they have any."""
        return self.parameters[BIAS].flatten() if BIAS in self.parameters else None

    @override
    def clear(self) -> None:
        super().clear()
        self.penalties = Penalties(*torch.zeros(3, len(self.configs), dtype=torch.float64))

    def losses(self) -> tuple[torch.Tensor, torch.Tensor]:
        """CE + inter L_inter + intra L_intra, with
        L_inter = mean(1 - s over matching) / 2 + mean(1 + s over mismatching) / 2;
        L_intra = mean over examples of the sum over coordinates of 1 / (variance + 1e-9)."""
        loss, ce = super().losses()
        return loss + self.penalties.weighted(self.inter, self.intra, self.latent), ce

    def begin(self, batch: Batch) -> None:
        """Prepare what the groups of a batch share, and memory for what they leave to `end`."""
        super().begin(batch)
        examples, heads, classes = len(batch.lengths), len(self.configs), self.objective.classes
        new = self.parameters["concept_spaces"].new_empty
        self._centroids = new(examples, heads * self.per_head)
        self._logit_gradients = new(heads, examples, classes)
        self._inverse = new(examples, self.varied)
        if self._with_inter:  # dL_inter/ds, the same for all coordinates of a class: (B, K, C)
            own = batch.lengths * batch.targets.sum(dim=1).long()
            self._matching = count_of(own, batch.shares)
            self._mismatching = count_of(batch.lengths * classes - own, batch.shares)
            match, other = (
                by_row(0.5 / at_least_one(count * self.latent), batch.targets)
                for count in (self._matching, self._mismatching)
            )
            each = other - (match + other) * batch.targets[:, None]
            if batch.shares is not None:
                each = each * batch.shares.T[:, :, None]
            self._inter_gradients = self._inter * each
        if self.varied:
            # An example with a single token has no variance and is left out.
            single = batch.lengths < 2
            self._varying = count_of((~single).long(), batch.shares)
            # d(1 / (var + eps)) / ds = -(var + eps)^-2 * 2 (s - mean) / (n - 1)
            varying, tokens = at_least_one(self._varying), (batch.tokens - 1).clamp_(min=1)
            if batch.shares is None:
                self._intra_scale = -2 / varying / tokens
            else:
                shares = batch.shares.T / torch.as_tensor(varying).to(batch.shares)
                scale = -2 * shares[:, : self.varied] / tokens
                self._intra_scale = scale.repeat_interleave(self.per_head, dim=1)
            self._single = single.view(-1, 1) if bool(single.any()) else None

    def zero_gradients(self) -> Parameters:
        """Only those of the concept spaces: `end` computes the classifier's gradients."""
        shift = self.shift
        zeros = {} if shift is None else {BIAS: torch.zeros_like(shift)}
        return {"concept_spaces": torch.zeros_like(self.projection), **zeros}

    @override
    def run_group(
        self,
        first: int,
        group: Batch,
        hidden: torch.Tensor,
        scratch: Scratch,
        gradients: Parameters | None,
    ) -> None:
        rows = slice(first, first + len(group.lengths))
        fresh = partial(scratch.tensor, device=hidden.device, dtype=hidden.dtype)
        coordinates = _tanh(_project(hidden, self.projection, self.shift, scratch))
        centroids = segment_sum(coordinates, group.lengths).div_(group.tokens)
        logits = self.classify(self._by_head(centroids))
        if self.added is not None:
            logits += self.added[..., rows, :]
        self._centroids[rows] = centroids
        self.logits[:, rows] = logits

        example = torch.arange(len(group.lengths), device=hidden.device)
        example = example.repeat_interleave(group.lengths, output_size=len(hidden))
        if self.varied:
            varied = slice(0, self.varied * self.per_head)
            shape = (len(hidden), varied.stop)
            centred, other = (fresh(name, shape) for name in ("centred", "other"))
            # Two passes: the mean of squares minus the square of the mean would lose precision.
            torch.index_select(centroids[:, varied], 0, example, out=centred)
            torch.sub(coordinates[:, varied], centred, out=centred)
            squares = segment_sum(torch.mul(centred, centred, out=other), group.lengths)
            variance = squares.div_((group.tokens - 1).clamp_(min=1))
            inverse = (variance + EPSILON).reciprocal_()
            if self._single is not None:
                inverse.masked_fill_(self._single[rows], 0)
            torch.sum(inverse.view(len(group.lengths), self.varied, -1), dim=2,
                      out=self._inverse[rows])  # fmt: skip
        if gradients is None:
            return

        # dloss/ds of each token: that of its example, plus a multiple of s - centroid for L_intra.
        by_example = self._coordinate_gradients(rows, group, logits)
        backward = fresh("backward", coordinates.shape)
        torch.index_select(by_example, 0, example, out=backward)
        if self.varied:
            factor = inverse.square_().mul_(self._intra_scale[rows]).mul_(self._intra)
            torch.index_select(factor, 0, example, out=other)
            backward[:, varied].addcmul_(centred, other)
        # dloss/d(W x) = dloss/ds * (1 - s^2)
        torch.ops.aten.tanh_backward.grad_input(backward, coordinates, grad_input=backward)
        _add_product(gradients["concept_spaces"], backward, hidden)
        if BIAS in gradients:
            gradients[BIAS] += backward.sum(dim=0)

    @override
    def end(self, batch: Batch, gradients: Parameters | None) -> None:
        examples, heads, classes = len(batch.lengths), len(self.configs), self.objective.classes
        self.totals.add(self.logits, batch)
        own = self.penalties
        if self._with_inter:
            # Each class's coordinates, summed over an example's tokens and L: (B, K, C).
            means = self._centroids.view(examples, heads, classes, -1).sum(dim=3)
            totals = (means * batch.tokens[:, :, None]).double()
            full = batch.lengths.to(totals).view(-1, 1, 1) * self.latent
            match = batch.targets.to(totals)[:, None]
            shares = 1 if batch.shares is None else batch.shares.double().T[:, :, None]
            own.matching += (shares * match * (full - totals)).sum(dim=(0, 2)).cpu()
            own.mismatching += (shares * (1 - match) * (full + totals)).sum(dim=(0, 2)).cpu()
            own.matching_tokens = own.matching_tokens + self._matching
            own.mismatching_tokens = own.mismatching_tokens + self._mismatching
        if self.varied:
            inverse = self._inverse.double()
            if batch.shares is not None:
                inverse *= batch.shares[: self.varied].double().T
            own.intra[: self.varied] += inverse.sum(dim=0).cpu()
            own.varying = own.varying + self._varying
        if gradients is not None:
            for name, summed in gradients.items():
                self.gradients[name] = summed.view_as(self.parameters[name])
            self.classifier_gradients(self._logit_gradients, self._by_head(self._centroids))

    def _by_head(self, columns: torch.Tensor) -> torch.Tensor:
        """(B, K C L) -> (K, B, C L)."""
        return columns.view(len(columns), len(self.configs), -1).transpose(0, 1)

    def _coordinate_gradients(
        self, rows: slice, group: Batch, logits: torch.Tensor
    ) -> torch.Tensor:
        """dloss/ds of each example's tokens, without L_intra: (B, K C L)."""
        examples, heads = len(group.lengths), len(self.configs)
        logit_gradients = group.logit_gradients(logits)
        self._logit_gradients[:, rows] = logit_gradients
        # The mean over n tokens passes 1 / n of the gradient to each of them.
        each = torch.bmm(logit_gradients / group.tokens, self.parameters["classifier.weight"])
        each = each.transpose(0, 1)
        if self._with_inter:
            shape = (examples, heads, self.objective.classes, self.latent)
            each = each.reshape(shape) + self._inter_gradients[rows, :, :, None]
        return each.reshape(examples, -1)


def _project(
    hidden: torch.Tensor, projection: torch.Tensor, shift: torch.Tensor | None, scratch: Scratch
) -> torch.Tensor:
    """(n, d) hidden states times (columns, d) transposed, plus (columns,): (n, columns)."""
    rows, columns = len(hidden), len(projection)
    fresh = partial(scratch.tensor, device=hidden.device, dtype=hidden.dtype)
    result = fresh("coordinates", (rows, columns))
    if columns < NARROW:
        turned = fresh("turned", (columns, rows))
        result.copy_(torch.mm(projection, hidden.T, out=turned).T)
    else:
        torch.mm(hidden, projection.T, out=result)
    return result if shift is None else result.add_(shift)


def _tanh(projected: torch.Tensor) -> torch.Tensor:
    """tanh, in place."""
    if projected.device.type != "cpu":
        return projected.tanh_()
    array = projected.numpy()
    np.tanh(array, out=array)  # several times as fast as torch's
    return projected


def _add_product(gradient: torch.Tensor, backward: torch.Tensor, hidden: torch.Tensor) -> None:
    """Add backward.T @ hidden to `gradient`; `backward` is dloss/d(W x) (n, columns)."""
    gradient.addmm_(backward.T, hidden)
