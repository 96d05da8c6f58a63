"""The heads: parameters, forward pass and exact gradient, K heads of one shape at a time.

Formulas: Tytarenko & Amin, arXiv:2401.16638, as the README gives them. Shapes: K heads that are
trained together, C classes, L latent dimensions a concept space, d hidden width; B examples
with n tokens in all. Gradients are written out, not recorded: all that the loss of a batch sums
over is per example but for a few counts known beforehand (`BatchSize`), so a batch's gradient is
formed in one pass over its tokens, some examples at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by

from spacelite.batches import segment_mean

if TYPE_CHECKING:
    from typing_extensions import Self  # typing's own from Python 3.11 on

EPSILON = 1e-9  # keeps 1 / variance finite
KINDS = ("space", "linear")
POOLER_DROPOUT = 0.1  # of the published linear baseline on BERT's pooler


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """What one head is and how it is trained, but for what a pass shares (data order, epochs)."""

    kind: str
    seed: int = 0
    learning_rate: float = 2e-4
    weight_decay: float = 0.01
    latent: int | None = None  # space only, and so are
    inter: float | None = None  # the weights of the two
    intra: float | None = None  # additional losses
    pooling: str | None = None  # linear only

    @property
    def system(self) -> str:
        """The head's name without its seed: `space`, `space L=128`, `linear (first)`."""
        if self.kind == "space":
            return "space" if self.latent == 3 else f"space L={self.latent}"
        return f"{self.kind} ({self.pooling})"

    @property
    def description(self) -> str:
        """The name with all that tells heads of one pass apart, for messages."""
        losses = f" inter {self.inter:g} intra {self.intra:g}" if self.kind == "space" else ""
        return f"{self.system}{losses} seed {self.seed} (learning rate {self.learning_rate:g})"


class BatchSize(NamedTuple):
    """The counts that a batch's loss divides by: its examples, its tokens, and its examples of at
    least two tokens (the others have no variance)."""

    examples: int
    tokens: int
    varied: int

    @classmethod
    def of(cls, lengths: torch.Tensor) -> BatchSize:
        """The size of the batch whose examples have these `lengths` (B,)."""
        return cls(len(lengths), int(lengths.sum()), int((lengths > 1).sum()))


@dataclass
class Sums:
    """What K heads' losses and metrics are computed from, summed over examples, all float64.

    `ce`, `matching`, `mismatching` (sums of 1 - s and 1 + s over coordinates) and `intra` (K,);
    `confusion` (K, C, C), true class by predicted class.
    """

    ce: torch.Tensor
    matching: torch.Tensor
    mismatching: torch.Tensor
    intra: torch.Tensor
    confusion: torch.Tensor

    @classmethod
    def zeros(cls, heads: int, classes: int) -> Sums:
        """Nothing summed yet."""
        ce, matching, mismatching, intra = torch.zeros(4, heads, dtype=torch.float64)
        confusion = torch.zeros(heads, classes, classes, dtype=torch.float64)
        return cls(ce, matching, mismatching, intra, confusion)

    def count(self, logits: torch.Tensor, labels: torch.Tensor, ce: torch.Tensor) -> None:
        """Add the predictions of `logits` (B, K, C) for `labels` (B,), and `ce` (K,)."""
        heads, classes = self.confusion.shape[:2]
        head = torch.arange(heads, device=labels.device)
        cells = (head * classes + labels[:, None]) * classes + logits.argmax(dim=2)
        counts = torch.bincount(cells.flatten(), minlength=self.confusion.numel())
        self.confusion += counts.view_as(self.confusion).cpu()
        self.ce += ce.double().cpu()

    def losses(
        self, size: BatchSize, latent: int, inter: torch.Tensor, intra: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss, CE), each (K,), of the batch of this `size`: CE + inter L_inter + intra L_intra.

        L_inter = mean(1 - s over matching) / 2 + mean(1 + s over mismatching) / 2;
        L_intra = mean over examples of sum of 1 / (var + 1e-9).
        """
        classes = self.confusion.shape[1]
        coordinates = size.tokens * latent
        ce = self.ce / size.examples
        inter_loss = self.matching / coordinates + self.mismatching / (coordinates * (classes - 1))
        intra_loss = self.intra / max(size.varied, 1)
        # A weight of 0 switches its term off, even where the term overflows.
        loss = ce + torch.where(inter > 0, inter * inter_loss / 2, 0)
        return loss + torch.where(intra > 0, intra * intra_loss, 0), ce


def uniform(shape: tuple[int, ...], fan_in: int, random: torch.Generator) -> torch.Tensor:
    """torch.nn.Linear's initialisation: uniform in +-1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return (torch.rand(shape, generator=random) * 2 - 1) * bound


def initial_parameters(settings: HeadSettings, classes: int, width: int) -> dict[str, torch.Tensor]:
    """One head's parameters at the start, by the names they have in `head.safetensors`.

    space: `concept_spaces` (C, L, d), `classifier.weight` (C, C L), `classifier.bias` (C,);
    linear: `classifier.weight` (C, d), `classifier.bias` (C,). A function of the seed and the
    shapes alone, whatever other heads are trained beside it.
    """
    random = torch.Generator().manual_seed(settings.seed)
    parameters = {}
    inputs = width
    if settings.latent is not None:
        shape = (classes, settings.latent, width)
        parameters["concept_spaces"] = uniform(shape, width, random)
        inputs = classes * settings.latent
    parameters["classifier.weight"] = uniform((classes, inputs), inputs, random)
    parameters["classifier.bias"] = uniform((classes,), inputs, random)
    return parameters


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, examples: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums of the cross-entropy (K,) and the gradient of its mean over `examples`: (B, K, C)."""
    log_probabilities = F.log_softmax(logits, dim=2)
    chosen = labels.view(-1, 1, 1).expand(-1, logits.shape[1], 1)
    ce = -log_probabilities.gather(2, chosen).sum(dim=(0, 2))
    gradient = log_probabilities.exp()
    gradient.scatter_add_(2, chosen, torch.full_like(chosen, -1, dtype=logits.dtype))
    return ce, gradient / examples


@dataclass
class Heads:
    """K heads of one kind and shape, their parameters stacked along a first dimension K."""

    settings: list[HeadSettings]
    parameters: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor] = field(init=False)
    sums: Sums = field(init=False)

    def __post_init__(self) -> None:
        self.gradients = {name: torch.zeros_like(value) for name, value in self.parameters.items()}
        self.inter, self.intra = (
            torch.tensor([weight or 0.0 for weight in weights], dtype=torch.float64)
            for weights in zip(*((s.inter, s.intra) for s in self.settings), strict=True)
        )
        self.reset()

    @property
    def classes(self) -> int:
        """C."""
        return self.parameters["classifier.bias"].shape[1]

    @property
    def latent(self) -> int:
        """L; 1 for heads without concept spaces."""
        return self.settings[0].latent or 1

    def reset(self) -> None:
        """Forget gradients and sums: a new batch begins."""
        for gradient in self.gradients.values():
            gradient.zero_()
        self.sums = Sums.zeros(len(self.settings), self.classes)

    def subset(self, rows: list[int]) -> Self:
        """Some of the heads, as they stand."""
        parameters = {name: value[rows] for name, value in self.parameters.items()}
        return type(self)([self.settings[row] for row in rows], parameters)

    def one(self, head: int) -> dict[str, torch.Tensor]:
        """The parameters of one head, on the CPU."""
        return {name: value[head].detach().cpu() for name, value in self.parameters.items()}

    def _classify(
        self, features: torch.Tensor, labels: torch.Tensor, size: BatchSize, train: bool
    ) -> torch.Tensor:
        """The last, linear layer on `features` (B, K, p): sums, and when training its gradients.
        Returns the gradient of the batch's mean CE by the logits (B, K, C)."""
        weight, bias = self.parameters["classifier.weight"], self.parameters["classifier.bias"]
        logits = torch.einsum("bkp,kcp->bkc", features, weight) + bias
        ce, gradient = cross_entropy(logits, labels, size.examples)
        self.sums.count(logits, labels, ce)
        if train:
            self.gradients["classifier.weight"] += torch.einsum("bkc,bkp->kcp", gradient, features)
            self.gradients["classifier.bias"] += gradient.sum(dim=0)
        return gradient


class SpaceHeads(Heads):
    """K space heads with the same L. Concept coordinates of a token: s = tanh(W_c x)."""

    @property
    def projection(self) -> torch.Tensor:
        """All concept spaces as one matrix (K C L, d)."""
        return self.parameters["concept_spaces"].flatten(0, 2)

    def step(
        self,
        coordinates: torch.Tensor,
        lengths: torch.Tensor,
        labels: torch.Tensor,
        size: BatchSize,
        train: bool,
    ) -> torch.Tensor | None:
        """Take in some examples of a batch of `size`: add to the sums and, when training, to the
        classifier's gradients.

        `coordinates` (n, K C L): s of the examples' tokens; `lengths`, `labels` (B,). Returns,
        when training, dloss/d(W x) (n, K C L): its product with the tokens is the gradient of the
        concept spaces.
        """
        heads, classes, latent = len(self.settings), self.classes, self.latent
        shape = (len(lengths), heads, classes, latent)
        tokens = lengths.to(coordinates.dtype).view(-1, 1)
        centroids = segment_mean(coordinates, lengths)

        gradient = self._classify(centroids.view(len(lengths), heads, -1), labels, size, train)
        matches = F.one_hot(labels, classes).to(torch.bool)
        with_inter, with_intra = bool(self.inter.any()), bool(self.intra.any())
        if with_inter:
            # Sums over tokens of each coordinate: (B, K, C), then split by matching class.
            totals = (centroids * tokens).view(shape).sum(dim=3)
            full = tokens.view(-1, 1, 1) * latent
            matching = torch.where(matches[:, None], full - totals, 0).sum(dim=(0, 2))
            mismatching = torch.where(matches[:, None], 0, full + totals).sum(dim=(0, 2))
            self.sums.matching += matching.double().cpu()
            self.sums.mismatching += mismatching.double().cpu()
        if with_intra:
            centred = coordinates - centroids.repeat_interleave(lengths, dim=0)
            squares = segment_mean(centred.square(), lengths) * tokens
            variance = squares / (tokens - 1).clamp(min=1)
            varied = lengths.view(-1, 1) > 1
            inverse = torch.where(varied, 1 / (variance + EPSILON), 0)
            self.sums.intra += inverse.view(len(lengths), heads, -1).sum(dim=(0, 2)).double().cpu()
        if not train:
            return None

        weight = self.parameters["classifier.weight"]
        each = torch.einsum("bkc,kcp->bkp", gradient, weight).flatten(1)
        each /= tokens  # the same for all tokens of an example
        if with_inter:
            count = size.tokens * latent
            other = 0.5 / (count * (classes - 1))
            sign = matches.to(coordinates.dtype) * (-0.5 / count - other) + other
            inter = self.inter.to(coordinates).view(1, -1, 1, 1)
            each += (inter * sign[:, None, :, None]).expand(shape).reshape(each.shape)
        result = each.repeat_interleave(lengths, dim=0)
        if with_intra:
            # d(1 / (var + eps)) / ds = -(var + eps)^-2 * 2 (s - mean) / (n - 1)
            intra = self.intra.to(coordinates).repeat_interleave(classes * latent)
            factor = -2 * intra * inverse.square() / (tokens - 1).clamp(min=1)
            factor = torch.where(intra > 0, factor / max(size.varied, 1), 0)
            result += centred.mul_(factor.repeat_interleave(lengths, dim=0))
        return result.mul_(1 - coordinates.square())


class LinearHeads(Heads):
    """K linear layers on one vector an example."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # Dropout draws from the head's own seed, apart from its initialisation's stream.
        self.random = [torch.Generator().manual_seed(s.seed + 2**32) for s in self.settings]

    def step(
        self, features: torch.Tensor, labels: torch.Tensor, size: BatchSize, train: bool
    ) -> None:
        """Take in a batch: `features` (B, d) by the heads' pooling, `labels` (B,)."""
        stacked = features[:, None].expand(-1, len(self.settings), -1)
        if train and self.settings[0].pooling == "pooler":
            keep = [
                torch.rand(features.shape, generator=random) >= POOLER_DROPOUT
                for random in self.random
            ]
            mask = torch.stack(keep, dim=1).to(features.device)
            stacked = stacked * mask / (1 - POOLER_DROPOUT)
        self._classify(stacked, labels, size, train)

    def subset(self, rows: list[int]) -> Self:
        """Some of the heads, as they stand, going on with their streams of dropout."""
        kept = super().subset(rows)
        kept.random = [self.random[row] for row in rows]
        return kept


def stack(
    heads: list[HeadSettings], classes: int, width: int, device: str
) -> SpaceHeads | LinearHeads:
    """Heads of one kind and shape, freshly initialised, as one stack."""
    parts = [initial_parameters(settings, classes, width) for settings in heads]
    parameters = {name: torch.stack([part[name] for part in parts]).to(device) for name in parts[0]}
    return (SpaceHeads if heads[0].kind == "space" else LinearHeads)(heads, parameters)
