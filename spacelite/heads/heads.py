"""The heads: parameters, forward pass and exact gradient, K heads of one shape at a time.

Formulas: Tytarenko & Amin, arXiv:2401.16638, as the README gives them. Shapes: K heads that are
trained together, C classes, L latent dimensions a concept space, d hidden width; B examples.
Gradients are written out, not recorded: all that the loss of a batch sums over is per example but
for a few counts known beforehand (`losses.Size`), so that the space heads' gradient is formed in
one pass over a batch's tokens, some examples at a time (`passes`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from spacelite.heads import losses
from spacelite.heads.losses import EPSILON, Batch, Objective, Size, Sums
from spacelite.heads.settings import HeadSettings

Parameters = dict[str, torch.Tensor]

POOLER_DROPOUT = 0.1  # of the published linear baseline on BERT's pooler
MLP_DROPOUT = 0.2  # of the published mlp baseline, between its layers


def uniform(shape: tuple[int, ...], fan_in: int, random: torch.Generator) -> torch.Tensor:
    """torch.nn.Linear's initialisation: uniform in +-1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return (torch.rand(shape, generator=random) * 2 - 1) * bound


def initial_parameters(settings: HeadSettings, classes: int, width: int) -> dict[str, torch.Tensor]:
    """One head's parameters at the start, by the names they have in `head.safetensors`.

    space: `concept_spaces` (C, L, d), `classifier.weight` (C, C L), `classifier.bias` (C,);
    linear: `classifier.weight` (C, d), `classifier.bias` (C,); mlp: before these two
    `pre_classifier.weight` (d, d), `pre_classifier.bias` (d,). A function of the seed and the
    shapes alone, whatever other heads are trained beside it.
    """
    random = torch.Generator().manual_seed(settings.seed)
    parameters = {}
    inputs = width
    if settings.latent is not None:
        shape = (classes, settings.latent, width)
        parameters["concept_spaces"] = uniform(shape, width, random)
        inputs = classes * settings.latent
    if settings.kind == "mlp":
        parameters["pre_classifier.weight"] = uniform((width, width), width, random)
        parameters["pre_classifier.bias"] = uniform((width,), width, random)
    parameters["classifier.weight"] = uniform((classes, inputs), inputs, random)
    parameters["classifier.bias"] = uniform((classes,), inputs, random)
    return parameters


@dataclass
class Heads:
    """K heads of one kind and shape, their parameters stacked along a first dimension K.

    `gradients`: of the last batch that was taken in for training; `logits` (K, B, C): of the last
    batch; `sums`: of all since `clear`.
    """

    settings: list[HeadSettings]
    parameters: dict[str, torch.Tensor]
    objective: Objective
    gradients: dict[str, torch.Tensor] = field(init=False, default_factory=dict)
    logits: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.inter, self.intra = (
            torch.tensor([weight or 0.0 for weight in weights], dtype=torch.float64)
            for weights in zip(*((s.inter, s.intra) for s in self.settings), strict=True)
        )
        self.sums = Sums.zeros(len(self.settings), self.objective)

    @property
    def latent(self) -> int:
        """L; 1 for heads without concept spaces."""
        return self.settings[0].latent or 1

    def one(self, head: int) -> dict[str, torch.Tensor]:
        """A copy of the parameters of one head, on the CPU."""
        return {name: value[head].cpu().clone() for name, value in self.parameters.items()}

    def losses(self, size: Size) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss, CE), each (K,), of what was summed since the sums were last cleared."""
        return self.sums.losses(size, self.latent, self.inter, self.intra)

    def clear(self) -> None:
        """Forget what was summed."""
        self.sums = Sums.zeros(len(self.settings), self.objective)

    def _classify(self, features: torch.Tensor) -> torch.Tensor:
        """The last, linear layer: `features` (K, B, p) -> logits (K, B, C)."""
        weight, bias = self.parameters["classifier.weight"], self.parameters["classifier.bias"]
        return torch.baddbmm(bias[:, None], features, weight.transpose(1, 2))

    def _classifier_gradients(self, gradient: torch.Tensor, features: torch.Tensor) -> None:
        """From dloss/dlogits (K, B, C) and the last layer's inputs (K, B, p)."""
        self.gradients["classifier.weight"] = torch.bmm(gradient.transpose(1, 2), features)
        self.gradients["classifier.bias"] = gradient.sum(dim=1)


class SpaceHeads(Heads):
    """K space heads with the same L, those with L_intra first. Concept coordinates of a token:
    s = tanh(W_c x).

    Columns: the K C L coordinates of a token, head by head, class by class. A batch is `begin`, a
    `step` for each of its parts, and `finish`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        parameter = self.parameters["concept_spaces"]
        self.per_head = self.objective.classes * self.latent
        self.varied = int((self.intra > 0).sum())  # heads with L_intra
        self._with_inter = bool(self.inter.any())
        self._inter = self.inter.to(parameter).view(1, -1, 1)
        self._intra = self.intra[: self.varied].to(parameter).repeat_interleave(self.per_head)

    @property
    def projection(self) -> torch.Tensor:
        """All concept spaces as one matrix (K C L, d)."""
        return self.parameters["concept_spaces"].flatten(0, 2)

    def begin(self, batch: Batch) -> None:
        """Prepare what the steps of a batch share, and room for what they leave for its end."""
        examples, heads, classes = len(batch.lengths), len(self.settings), self.objective.classes
        new = self.parameters["concept_spaces"].new_empty
        self._centroids = new(examples, heads * self.per_head)
        self.logits = new(heads, examples, classes)
        self._slopes = new(heads, examples, classes)
        self._inverse = new(examples, self.varied)
        if self._with_inter:  # dL_inter/ds, the same for all coordinates of a class: (B, K, C)
            size = batch.size
            match, other = (
                0.5 / max(count * self.latent, 1) for count in (size.matching, size.mismatching)
            )
            self._inter_slopes = self._inter * (other - (match + other) * batch.targets)[:, None]
        if self.varied:
            # d(1 / (var + eps)) / ds = -(var + eps)^-2 * 2 (s - mean) / (n - 1)
            self._intra_scale = -2 / max(batch.size.varied, 1) / (batch.tokens - 1).clamp_(min=1)
            single = batch.lengths < 2
            self._single = single.view(-1, 1) if bool(single.any()) else None

    def step(
        self,
        first: int,
        part: Batch,
        centroids: torch.Tensor,
        variance: torch.Tensor | None,
        train: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None] | None:
        """Take in examples of a batch, from number `first` on. Parts may be taken in at once by
        several threads: each writes rows of its own.

        `centroids` (B, K C L): means of s over each example's tokens; `variance` (B, columns of
        the heads with L_intra), unbiased, None where there is no such head. Returns, when training,
        what dloss/ds is made of for a token of example i: each_i, of all columns, and
        factor_i * (s - centroid_i) of those with a variance.
        """
        heads, examples = len(self.settings), len(part.lengths)
        rows = slice(first, first + examples)
        logits = self._classify(centroids.view(examples, heads, -1).transpose(0, 1))
        self._centroids[rows] = centroids
        self.logits[:, rows] = logits
        if variance is not None:
            inverse = (variance + EPSILON).reciprocal_()
            if self._single is not None:
                # An example of one token has no variance: it is left out.
                inverse.masked_fill_(self._single[rows], 0)
            torch.sum(inverse.view(examples, self.varied, -1), dim=2, out=self._inverse[rows])
        if not train:
            return None

        slopes = losses.slopes(logits, part)
        self._slopes[:, rows] = slopes
        # The mean over tokens passes 1 / n to each.
        each = torch.bmm(slopes / part.tokens, self.parameters["classifier.weight"])
        each = each.transpose(0, 1)
        if self._with_inter:
            shape = (examples, heads, self.objective.classes, self.latent)
            each = each.reshape(shape) + self._inter_slopes[rows, :, :, None]
        each = each.reshape(examples, -1)
        if variance is None:
            return each, None
        return each, inverse.square_().mul_(self._intra_scale[rows]).mul_(self._intra)

    def finish(self, batch: Batch, gradient: torch.Tensor | None) -> None:
        """Sum up the batch; when training, `gradient` (K C L, d) is the concept spaces'."""
        heads, classes = len(self.settings), self.objective.classes
        examples = len(batch.lengths)
        self.sums.count(self.logits, batch)
        if self._with_inter:
            means = self._centroids.view(examples, heads, classes, -1).sum(dim=3)
            self.sums.count_inter(means * batch.tokens[:, :, None], self.latent, batch)
        if self.varied:
            self.sums.intra[: self.varied] += self._inverse.double().sum(dim=0).cpu()
        if gradient is not None:
            self.gradients["concept_spaces"] = gradient.view_as(self.parameters["concept_spaces"])
            features = self._centroids.view(examples, heads, -1).transpose(0, 1)
            self._classifier_gradients(self._slopes, features)


class PooledHeads(Heads):
    """K heads on one vector an example: linear layers, or mlp (Linear, ReLU, dropout, Linear)."""

    def step(self, features: torch.Tensor, batch: Batch, dropout: tuple[int, int] | None) -> None:
        """Take in a batch: `features` (B, d) by the heads' pooling. `dropout` when training, the
        numbers of the epoch and of the batch: the masks are a function of them and the seed."""
        heads, (examples, width) = len(self.settings), features.shape
        mlp = self.settings[0].kind == "mlp"
        inputs = features.expand(heads, -1, -1)
        rate = MLP_DROPOUT
        if mlp:
            weight = self.parameters["pre_classifier.weight"]
            hidden = torch.mm(features, weight.flatten(0, 1).T).view(examples, heads, width)
            inputs = (hidden + self.parameters["pre_classifier.bias"]).relu_().transpose(0, 1)
        elif self.settings[0].pooling == "pooler":
            rate = POOLER_DROPOUT
        else:
            rate = 0.0
        if dropout is not None and rate:
            inputs = inputs * self._dropout(rate, examples, width, dropout).to(features.device)
        self.logits = self._classify(inputs)
        self.sums.count(self.logits, batch)
        if dropout is None:
            return
        slopes = losses.slopes(self.logits, batch)
        self._classifier_gradients(slopes, inputs)
        if mlp:
            back = torch.bmm(slopes, self.parameters["classifier.weight"])
            back = back.div_(1 - rate).masked_fill_(inputs == 0, 0)  # dropped, or below ReLU's 0
            self.gradients["pre_classifier.bias"] = back.sum(dim=1)
            self.gradients["pre_classifier.weight"] = back.transpose(1, 2) @ features

    def _dropout(
        self, rate: float, examples: int, width: int, batch: tuple[int, int]
    ) -> torch.Tensor:
        """Masks (K, B, d) of 0 and 1 / (1 - rate), each head's from its own seed."""
        masks = []
        for head in self.settings:
            random = np.random.default_rng([head.seed, *batch])
            keep = random.random((examples, width), np.float32) >= rate
            masks.append(torch.from_numpy(keep))
        return torch.stack(masks) / (1 - rate)


def stack(
    settings: Sequence[HeadSettings],
    parameters: Sequence[dict[str, torch.Tensor]],
    objective: Objective,
    device: str = "cpu",
) -> SpaceHeads | PooledHeads:
    """Heads of one kind and shape, each with its parameters, as one stack. Space heads with L_intra
    come first."""
    order = sorted(range(len(settings)), key=lambda row: not settings[row].intra)
    settings, parameters = [settings[row] for row in order], [parameters[row] for row in order]
    stacked = {
        name: torch.stack([own[name] for own in parameters]).to(device) for name in parameters[0]
    }
    kind = SpaceHeads if settings[0].kind == "space" else PooledHeads
    return kind(settings, stacked, objective)


def stacked(
    parameters: dict[HeadSettings, Parameters], objective: Objective, device: str
) -> list[Heads]:
    """Heads with their parameters as stacks of those that are alike."""
    groups: dict[tuple[object, ...], list[HeadSettings]] = {}
    for head in parameters:
        groups.setdefault(head.shape, []).append(head)
    return [
        stack(group, [parameters[head] for head in group], objective, device)
        for group in groups.values()
    ]
