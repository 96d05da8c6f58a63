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

from typing_extensions import override

from spacelite.heads.base import (
    Batch,
    Head,
    Objective,
    Parameters,
    Scratch,
    Shapes,
    TokenBlock,
    TokenHead,
    Tokens,
    at_least_one,
    segment_sum,
)
from spacelite.heads.config import EnsembleConfig, HeadConfig
from spacelite.lazy import np, torch
from spacelite.settings import non_negative, one_of, setting, whole_number
from spacelite.types import Array

LARGEST_LATENT = 10_000  # far more than anyone needs: a larger value is a typo
BIAS = "concept_spaces.bias"  # (C, L); the space head of the paper has none
NARROW = 64  # columns below which the product is faster with the result transposed
STANDARD = "standard"
EPSILON = 1e-9  # keeps 1 / variance finite


@dataclass
class Penalties:
    """Sums over examples, from which L_inter and L_intra of K heads are computed: (K,) float64
    each, of the weights that each head gives the examples."""

    matching: torch.Tensor  # of 1 - s in the spaces of an example's own classes
    mismatching: torch.Tensor  # of 1 + s in all other spaces
    intra: torch.Tensor  # of 1 / (variance + EPSILON)
    matching_tokens: torch.Tensor  # tokens times classes in `matching`
    mismatching_tokens: torch.Tensor  # and in `mismatching`
    varying: torch.Tensor  # examples in `intra`: those with more than one token

    def weighted(self, inter: torch.Tensor, intra: torch.Tensor, latent: int) -> torch.Tensor:
        """inter L_inter + intra L_intra, (K,), with weights (K,) and L = `latent`."""
        matching, mismatching = (
            total / at_least_one(tokens * latent)  # a mean of no coordinates counts as 0
            for total, tokens in (
                (self.matching, self.matching_tokens),
                (self.mismatching, self.mismatching_tokens),
            )
        )
        # A weight of 0 switches its term off, even where the term overflows.
        inter_loss = torch.where(inter > 0, inter * (matching + mismatching) / 2, 0)
        intra_loss = torch.where(intra > 0, intra * self.intra / at_least_one(self.varying), 0)
        return inter_loss + intra_loss


def count_of(counts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The weighted sum of counts of examples, (B,) int64, of each head, (K,) float64 on the CPU,
    from weights (K, B). Counted exactly: float32 would round large sums."""
    return (weights.double() @ counts.double()).cpu()


def dimensions_of_a_space() -> Any:
    """The setting `latent` of heads with concept spaces."""
    return setting(
        3,
        check=whole_number(1, LARGEST_LATENT),
        tuned=True,
        symbol="L",
        search=(3, 16, 32),
        help="Dimension(s) of a concept space, or units of the block attention.",
    )


@dataclass(frozen=True, kw_only=True)
class SpaceConfig(EnsembleConfig):
    """A space head: L, the weights of L_inter and L_intra in the loss, and whether tokens are
    standardised."""

    kind: ClassVar[str] = "space"
    latent: int = dimensions_of_a_space()
    inter: float = setting(0.0, check=non_negative, help="Weight(s) of the inter-space loss.")
    intra: float = setting(0.0, check=non_negative, help="Weight(s) of the intra-space loss.")
    scaling: str = setting(
        "none",
        check=one_of("none", STANDARD),
        words="{} scaling",
        help="Scaling of hidden states that space heads read: none, as published, or standard, to "
        "mean 0 and variance 1 over train's tokens.",
    )

    @property
    def dimensions(self) -> int:
        """The dimensions of a concept space in which those of all members lie side by side."""
        return self.latent * self.ensemble

    @property
    @override
    def name(self) -> str:
        return "space" if self.latent == 3 else f"space L={self.latent}"


class SpaceHead(TokenHead):
    """K space heads with the same L, those with L_intra first.

    Columns are the K C L coordinates of a token, ordered by head, then by class.
    """

    config_type = SpaceConfig
    ADDITIVE: ClassVar[bool] = True

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        biases: Shapes = {BIAS: (classes, config.dimensions)}
        return {
            "concept_spaces": (classes, config.dimensions, width),
            **(biases if config.scaling == STANDARD else {}),
            "classifier.weight": (classes, classes * config.dimensions),
            "classifier.bias": (classes,),
        }

    @classmethod
    @override
    def in_training(cls, config: Any) -> type[Head]:
        return SpaceBlock if config.scaling == STANDARD else cls

    @classmethod
    @override
    def stack_key(cls, config: Any) -> tuple[object, ...]:
        return (config.kind, config.dimensions, config.scaling)

    @classmethod
    @override
    def stack_order(cls, config: Any) -> int:
        """Those with L_intra first: only their columns need variances."""
        return not config.intra

    # Each token's share in the logits.

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
        self._with_inter = bool(self.inter.any())
        self._inter = self.inter.to(spaces).view(1, -1, 1)
        self._intra = self.intra[: self.varied].to(spaces)

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
        self.penalties = Penalties(*torch.zeros(6, len(self.configs), dtype=torch.float64))

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
            matching = batch.lengths * batch.targets.sum(dim=1).long()
            self._matching = count_of(matching, batch.sample_weights)
            self._mismatching = count_of(batch.lengths * classes - matching, batch.sample_weights)
            match, other = (
                (0.5 / at_least_one(count * self.latent)).to(batch.targets).view(1, -1, 1)
                for count in (self._matching, self._mismatching)
            )
            gradients = other - (match + other) * batch.targets[:, None]
            self._inter_gradients = self._inter * gradients * batch.sample_weights.T[:, :, None]
        if self.varied:
            # An example with a single token has no variance and is left out.
            single = batch.lengths < 2
            self._varying = count_of((~single).long(), batch.sample_weights)
            # d(1 / (var + eps)) / ds = -(var + eps)^-2 * 2 (s - mean) / (n - 1)
            weights = batch.sample_weights.T / at_least_one(self._varying).to(batch.tokens)
            tokens = (batch.tokens - 1).clamp_(min=1)
            self._intra_scale = -2 * self._intra * weights[:, : self.varied] / tokens  # (B, K)
            self._single = single.view(-1, 1) if bool(single.any()) else None

    @property
    @override
    def of_examples(self) -> list[torch.Tensor]:
        return [self.logits, self._centroids, self._logit_gradients, self._inverse]

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
        logits = self.logits_of(centroids, rows)
        self._centroids[rows] = centroids
        self.logits[:, rows] = logits

        example = group.examples_of(len(hidden))
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
            by_head = inverse.square_().view(len(group.lengths), self.varied, -1)
            factor = by_head.mul_(self._intra_scale[rows, :, None]).flatten(1)
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
        sums = self.penalties
        if self._with_inter:
            # Each class's coordinates, summed over an example's tokens and L: (B, K, C).
            means = self._centroids.view(examples, heads, classes, -1).sum(dim=3)
            totals = (means * batch.tokens[:, :, None]).double()
            full = batch.lengths.to(totals).view(-1, 1, 1) * self.latent
            match = batch.targets.to(totals)[:, None]
            weights = batch.sample_weights.double().T[:, :, None]
            sums.matching += (weights * match * (full - totals)).sum(dim=(0, 2)).cpu()
            sums.mismatching += (weights * (1 - match) * (full + totals)).sum(dim=(0, 2)).cpu()
            sums.matching_tokens += self._matching
            sums.mismatching_tokens += self._mismatching
        if self.varied:
            weights = batch.sample_weights[: self.varied].double().T
            sums.intra[: self.varied] += (self._inverse.double() * weights).sum(dim=0).cpu()
            sums.varying += self._varying
        if gradients is not None:
            for name, summed in gradients.items():
                self.gradients[name] = summed.view_as(self.parameters[name])
            self.classifier_gradients(self._logit_gradients, self.by_head(self._centroids))

    def _coordinate_gradients(
        self, rows: slice, group: Batch, logits: torch.Tensor
    ) -> torch.Tensor:
        """dloss/ds of each example's tokens, without L_intra: (B, K C L)."""
        examples, heads = len(group.lengths), len(self.configs)
        logit_gradients = group.logit_gradients(logits)
        self._logit_gradients[:, rows] = logit_gradients
        # The mean over n tokens passes 1 / n of the gradient to each of them.
        gradients = torch.bmm(logit_gradients / group.tokens, self.parameters["classifier.weight"])
        gradients = gradients.transpose(0, 1)
        if self._with_inter:
            shape = (examples, heads, self.objective.classes, self.latent)
            gradients = gradients.reshape(shape) + self._inter_gradients[rows, :, :, None]
        return gradients.reshape(examples, -1)


def _project(
    hidden: torch.Tensor, projection: torch.Tensor, shift: torch.Tensor | None, scratch: Scratch
) -> torch.Tensor:
    """(n, d) hidden states times (columns, d) transposed, plus (columns,): (n, columns)."""
    rows, columns = len(hidden), len(projection)
    fresh = partial(scratch.tensor, device=hidden.device, dtype=hidden.dtype)
    result = fresh("coordinates", (rows, columns))
    if columns < NARROW:
        transposed = fresh("transposed", (columns, rows))
        result.copy_(torch.mm(projection, hidden.T, out=transposed).T)
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


class SpaceBlock(TokenBlock, SpaceHead):
    """K blocks of concept spaces, or space heads whose tokens are standardised: coordinates are
    tanh(W_c x + b_c)."""

    READING: ClassVar[dict[str, str | None]] = {"concept_spaces": BIAS}

    @classmethod
    @override
    def saved(cls, config: Any, classes: int, width: int) -> Shapes:
        return {
            "concept_spaces": (classes, config.dimensions, width),
            BIAS: (classes, config.dimensions),
            "classifier.weight": (classes, classes * config.dimensions),
        }

    @classmethod
    @override
    def token_shares(cls, config: Any, parameters: dict[str, Array], tokens: Tokens) -> Array:
        return tokens.averaged(cls.token_logits(config, parameters, tokens.hidden))

    @property
    @override
    def projection(self) -> torch.Tensor:
        return self.reading["concept_spaces"].flatten(0, 2)

    @property
    @override
    def shift(self) -> torch.Tensor:
        return self.reading[BIAS].flatten()
