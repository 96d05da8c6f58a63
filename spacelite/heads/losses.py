"""The loss of a batch: cross-entropy, L_inter and L_intra, their sums and their normalisers.

Formulas: Tytarenko & Amin, arXiv:2401.16638, as the README gives them. Shapes: K heads, C classes,
B examples. With several labels an example (`Objective.multilabel`) the cross-entropy is binary, one
term for each class, and every class that an example has is a matching one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by

EPSILON = 1e-9  # keeps 1 / variance finite


class Size(NamedTuple):
    """The counts that a batch's loss divides by, known before its tokens are read.

    `terms` of the cross-entropy and the sum of their `weight`s; tokens times `matching` and times
    `mismatching` classes; `varied`: examples of at least two tokens (others have no variance).
    """

    examples: int
    terms: int
    weight: float
    matching: int
    mismatching: int
    varied: int


@dataclass(frozen=True)
class Batch:
    """B examples whose loss is formed together, or a part of them.

    `lengths` (B,) in tokens, and as `tokens` (B, 1) float; `labels` (B,) or (B, C) int64; `targets`
    (B, C), 1 for the example's classes; `weights` of the cross-entropy's terms, (B, 1), or (B, C)
    with several labels; `size`: the counts of the whole.
    """

    lengths: torch.Tensor
    tokens: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    size: Size
    multilabel: bool

    def part(self, first: int, last: int) -> Batch:
        """Examples first:last of the batch, with the whole batch's counts."""
        rows = slice(first, last)
        return Batch(
            self.lengths[rows],
            self.tokens[rows],
            self.labels[rows],
            self.targets[rows],
            self.weights[rows],
            self.size,
            self.multilabel,
        )


@dataclass(frozen=True)
class Objective:
    """What the cross-entropy is over: C `classes`, one label an example or several.

    `class_weights`: (C,), or (C, 2) with several labels (of the terms of examples without and with
    the class); None weighs all alike.
    """

    classes: int
    multilabel: bool = False
    class_weights: torch.Tensor | None = None

    @classmethod
    def balanced(cls, labels: torch.Tensor, classes: int) -> Objective:
        """Weights that give each class the same sum: examples / (C * examples of the class), as
        scikit-learn's class_weight="balanced"; with several labels for each class apart, C = 2."""
        if labels.dim() == 1:
            counts = torch.bincount(labels, minlength=classes)
            return cls(classes, False, len(labels) / (classes * counts.clamp(min=1)).float())
        positive = labels.sum(dim=0)
        counts = torch.stack([len(labels) - positive, positive], dim=1)
        return cls(classes, True, len(labels) / (2 * counts.clamp(min=1)).float())

    def batch(
        self, lengths: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype = torch.float32
    ) -> Batch:
        """The examples of these `lengths` and `labels` as one batch."""
        if self.multilabel:
            targets, terms = labels.to(dtype), labels.numel()
            weights = torch.ones_like(targets)
            if self.class_weights is not None:
                absent, present = self.class_weights.to(targets).unbind(dim=1)
                weights = torch.where(labels > 0, present, absent)
        else:
            targets, terms = F.one_hot(labels, self.classes).to(dtype), len(labels)
            weights = torch.ones_like(targets[:, :1])
            if self.class_weights is not None:
                weights = self.class_weights.to(targets)[labels, None]
        # Token counts are whole numbers: float32 would round the large ones.
        matching = int((lengths * targets.sum(dim=1).long()).sum())
        size = Size(
            examples=len(lengths),
            terms=terms,
            weight=float(weights.double().sum()),
            matching=matching,
            mismatching=int(lengths.sum()) * self.classes - matching,
            varied=int((lengths > 1).sum()),
        )
        tokens = lengths.to(dtype).view(-1, 1)
        return Batch(lengths, tokens, labels, targets, weights, size, self.multilabel)


def slopes(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The gradient of the batch's weighted mean cross-entropy by `logits` (K, B, C)."""
    guesses = torch.sigmoid(logits) if batch.multilabel else torch.softmax(logits, dim=2)
    return guesses.sub_(batch.targets).mul_(batch.weights).div_(batch.size.weight)


@dataclass
class Sums:
    """What K heads' losses and metrics are computed from, summed over examples, all float64.

    `ce`, `weighted_ce`, `matching`, `mismatching` (sums of 1 - s and 1 + s over coordinates),
    `intra` and `right` (examples predicted without fault): (K,). `confusion`: true by predicted,
    (K, C, C), or (K, C, 2, 2) with several labels.
    """

    ce: torch.Tensor
    weighted_ce: torch.Tensor
    matching: torch.Tensor
    mismatching: torch.Tensor
    intra: torch.Tensor
    right: torch.Tensor
    confusion: torch.Tensor

    @classmethod
    def zeros(cls, heads: int, objective: Objective) -> Sums:
        """Nothing summed yet."""
        classes = objective.classes
        cells = (classes, 2, 2) if objective.multilabel else (classes, classes)
        ce, weighted_ce, matching, mismatching, intra, right = torch.zeros(
            6, heads, dtype=torch.float64
        )
        confusion = torch.zeros(heads, *cells, dtype=torch.float64)
        return cls(ce, weighted_ce, matching, mismatching, intra, right, confusion)

    def count(self, logits: torch.Tensor, batch: Batch) -> None:
        """Add the cross-entropy and the predictions of `logits` (K, B, C)."""
        heads, _, classes = logits.shape
        head = torch.arange(heads, device=logits.device)[:, None]
        if batch.multilabel:
            targets = batch.targets.expand_as(logits)
            terms = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").double()
            guessed = (logits > 0).long()
            self.right += (guessed == batch.labels).all(dim=2).sum(dim=1).cpu()
            label = torch.arange(classes, device=logits.device)
            cells = ((head[..., None] * classes + label) * 2 + batch.labels) * 2 + guessed
        else:
            chosen = batch.labels[None, :, None].expand(heads, -1, 1)
            terms = -F.log_softmax(logits, dim=2).gather(2, chosen).double()
            guessed = logits.argmax(dim=2)
            self.right += (guessed == batch.labels).sum(dim=1).cpu()
            cells = (head * classes + batch.labels) * classes + guessed
        counts = torch.bincount(cells.flatten(), minlength=self.confusion.numel())
        self.confusion += counts.view_as(self.confusion).cpu()
        self.ce += terms.sum(dim=(1, 2)).cpu()
        self.weighted_ce += (terms * batch.weights).sum(dim=(1, 2)).cpu()

    def count_inter(self, totals: torch.Tensor, latent: int, batch: Batch) -> None:
        """Add to the sums of L_inter: `totals` (B, K, C), each class's coordinates summed over an
        example's tokens and the `latent` dimensions."""
        totals = totals.double()
        full = batch.lengths.to(totals).view(-1, 1, 1) * latent
        match = batch.targets.to(totals)[:, None]
        self.matching += (match * (full - totals)).sum(dim=(0, 2)).cpu()
        self.mismatching += ((1 - match) * (full + totals)).sum(dim=(0, 2)).cpu()

    def losses(
        self, size: Size, latent: int, inter: torch.Tensor, intra: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(loss, CE), each (K,), of a batch of this `size`: CE + inter L_inter + intra L_intra.

        L_inter = mean(1 - s over matching) / 2 + mean(1 + s over mismatching) / 2;
        L_intra = mean over examples of sum of 1 / (var + 1e-9). The loss weighs the cross-entropy
        with the class weights, the CE beside it never does.
        """
        matching, mismatching = (
            total / max(count * latent, 1)  # a mean over no coordinates counts as 0
            for total, count in (
                (self.matching, size.matching),
                (self.mismatching, size.mismatching),
            )
        )
        intra_loss = self.intra / max(size.varied, 1)
        # A weight of 0 switches its term off, even where the term overflows.
        loss = self.weighted_ce / size.weight
        loss = loss + torch.where(inter > 0, inter * (matching + mismatching) / 2, 0)
        return loss + torch.where(intra > 0, intra * intra_loss, 0), self.ce / size.terms
