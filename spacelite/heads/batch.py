"""Ragged batches: the tokens of several examples end to end, never padded, with what their loss
needs. Shapes: K heads, B examples, n tokens in all of them together, C classes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from spacelite.lazy import torch
from spacelite.tasks import Task, task_of


@dataclass(frozen=True)
class Batch:
    """B examples whose loss is computed together, or a part of them.

    Attributes:
        lengths: Tokens per example, (B,) int64.
        tokens: The same as floats, (B, 1).
        labels: Labels, (B,) or (B, C) int64.
        targets: 1 for the classes that an example has, else 0, (B, C).
        weights: Weights of the cross-entropy's terms, (B, 1) or (B, C); (K, B, ...) if each head
            has its own.
        weight: Sum of the weights over the whole batch; with `shares` that of each head, (K, 1, 1).
        task: Task of the labels.
        shares: The weight of each example for each head, (K, B); None if all are 1.
    """

    lengths: torch.Tensor
    tokens: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor
    weight: float | torch.Tensor
    task: Task
    shares: torch.Tensor | None = None

    def shared_out(self, shares: torch.Tensor, class_weights: torch.Tensor | None = None) -> Batch:
        """The batch as K heads see it.

        Args:
            shares: The weight that each head gives to each example, (K, B).
            class_weights: The class weights of each head, (K, ...), as `Task.weights` takes them;
                None if all have those of the batch.
        """
        weights = self.weights
        if class_weights is not None:
            own = [self.task.weights(self.labels, self.targets, one) for one in class_weights]
            weights = torch.stack(own)
        total = (shares.double() * weights.double().sum(dim=-1)).sum(dim=1)
        weight = torch.where(total > 0, total, 1).to(weights).view(-1, 1, 1)
        return replace(self, shares=shares, weights=weights, weight=weight)

    def part(self, first: int, last: int) -> Batch:
        """Examples first:last; `weight` is still that of the whole batch."""
        rows = slice(first, last)
        return Batch(
            self.lengths[rows],
            self.tokens[rows],
            self.labels[rows],
            self.targets[rows],
            self.weights[..., rows, :],
            self.weight,
            self.task,
            None if self.shares is None else self.shares[:, rows],
        )

    def logit_gradients(self, logits: torch.Tensor) -> torch.Tensor:
        """The gradient of the batch's weighted mean cross-entropy with respect to `logits`
        (K, B, C)."""
        residuals = self.task.activation(logits).sub_(self.targets).mul_(self.weights)
        if self.shares is not None:
            residuals.mul_(self.shares[:, :, None])
        return residuals.div_(self.weight)


@dataclass(frozen=True)
class Objective:
    """What is minimised: the cross-entropy of a task.

    Attributes:
        task: Task of the labels.
        classes: Number of classes, C.
        class_weights: Class weights as `Task.weights` takes them; None if all classes weigh the
            same.
    """

    task: Task
    classes: int
    class_weights: torch.Tensor | None = None

    @classmethod
    def balanced(
        cls, labels: torch.Tensor, classes: int, weights: torch.Tensor | None = None
    ) -> Objective:
        """The objective with class weights that give every class the same total weight, the
        examples having `weights` (N,), by default 1."""
        task = task_of(labels)
        return cls(task, classes, task.balanced_weights(labels, classes, weights))

    def batch(
        self, lengths: torch.Tensor, labels: torch.Tensor, dtype: torch.dtype | None = None
    ) -> Batch:
        """One batch of examples with these `lengths` and `labels` (default `dtype`: float32)."""
        dtype = dtype or torch.float32
        targets = self.task.targets(labels, self.classes, dtype)
        weights = self.task.weights(labels, targets, self.class_weights)
        return Batch(
            lengths=lengths,
            tokens=lengths.to(dtype).view(-1, 1),
            labels=labels,
            targets=targets,
            weights=weights,
            weight=float(weights.double().sum()),
            task=self.task,
        )


class Scratch:
    """A thread's working memory, reused for every group: fresh memory costs a page fault for every
    four kilobytes, which takes longer than most operations on it."""

    def __init__(self) -> None:
        self._memory: dict[str, torch.Tensor] = {}

    def tensor(
        self, name: str, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype
    ) -> torch.Tensor:
        """An uninitialised tensor, valid until the same name is requested again."""
        size = math.prod(shape)
        memory = self._memory.get(name)
        if memory is None or len(memory) < size or memory.dtype != dtype:
            memory = torch.empty(size + size // 8, dtype=dtype, device=device)
            self._memory[name] = memory
        return memory[:size].view(shape)


def segment_sum(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Sums of consecutive runs of rows: (n, p) values, (B,) lengths >= 1 with sum n -> (B, p).

    embedding_bag, applied to the rows in order, has by far the fastest CPU kernel for this. It is
    called directly because its wrapper in torch.nn.functional takes longer than the kernel.
    """
    rows = torch.arange(len(values), device=values.device)
    sums: torch.Tensor = torch.embedding_bag(values, rows, lengths.cumsum(0).sub_(lengths))[0]
    return sums
