"""The blocks of an additive head that are fitted at once: linear classifiers, each of one kind of
features, and how they are weighted against each other.

Each block is fitted on its own, with a penalty chosen by cross-validation. How blocks are weighted
against each other is fitted to their logits of examples that they were not fitted to (stacking,
Wolpert 1992): for those that they were fitted to, n-grams look better than they are.

Shapes: N examples, p features, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.heads import logistic
from spacelite.heads.batch import Objective
from spacelite.heads.crossfit import CrossFitted, cross_fit, single_threaded
from spacelite.heads.examples import Examples, Fitted
from spacelite.heads.ngrams import NGrams
from spacelite.lazy import torch
from spacelite.tasks.base import Problem

# Strengths C of the penalties among which cross-validation chooses.
DENSE = (1 / 8000, 1 / 4000, 1 / 2000, 1 / 1000, 1 / 500, 1 / 250, 1 / 125)
SPARSE = (1.25, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
STACKED = 1.0  # C of the layer that weighs the blocks
FEW = 2  # dimensions per example from which on examples are few
CONSTANT = 1e-6  # a dimension with a smaller deviation differs only by rounding: its weight is 0
# A weight of an n-gram is penalised the less, the more its log-count ratio tells the class from
# the others (NBSVM, Wang & Manning 2012): counts start at SMOOTHING, and the size that a weight may
# have is LEAST plus the size of its ratio.
SMOOTHING, LEAST = 10.0, 0.05

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Block:
    """A block that was fitted on its own.

    Attributes:
        fitted: Its weights (C, p) and biases, and the logits of held-out examples.
        parameters: Weights (C, p) that it gets in the head -> its parameters by name, and what they
            add to the biases, (C,).
    """

    fitted: CrossFitted
    parameters: Callable[[Array], tuple[dict[str, Array], Array]]


@dataclass(frozen=True)
class Task:
    """What all blocks are fitted to, and how."""

    problems: Sequence[Problem]
    classes: int
    class_weights: str
    centre: Callable[[Array], Array]
    max_ngram: int
    weights: Array | None = None

    def cross_fit(self, inputs: Any, among: Sequence[float], **arguments: Any) -> CrossFitted:
        """Fit a block; see `crossfit.cross_fit`."""
        return cross_fit(
            inputs, self.problems, self.classes, among, self.class_weights,
            weights=self.weights, **arguments,
        )  # fmt: skip

    def stack(self, held: Sequence[Array]) -> tuple[list[Array], Array]:
        """Weigh blocks against each other, given their logits (N, C) of held-out examples: the
        weights (C, C) of the logits of each block, and the biases (C,)."""
        inputs = np.concatenate([self.centre(own) for own in held], axis=1)
        found = logistic.fit(
            inputs, self.problems, self.classes, STACKED, (), self.class_weights, self.weights
        )
        parts = np.split(found.weight, len(held), axis=1)
        return [part @ self.centre(np.eye(self.classes)) for part in parts], found.bias


def weighed(held: Sequence[Array], weights: Sequence[Array], bias: Array) -> Array:
    """The logits (N, C) of a stack of blocks, from theirs (N, C)."""
    logits = np.zeros_like(held[0]) + bias
    for own, weight in zip(held, weights, strict=True):
        logits += own @ weight.T
    return logits


def fit(
    names: Sequence[str],
    train: Examples,
    objective: Objective,
    class_weights: str,
    max_ngram: int = 2,
) -> Fitted:
    """Fit blocks, and what each weighs.

    Args:
        names: The blocks, from BLOCKS.
        train: The training examples.
        objective: Task and number of classes.
        class_weights: `none` or `balanced`.
        max_ngram: Tokens of the longest n-grams.
    """
    task = Task(
        objective.task.problems(train.labels.cpu().numpy(), objective.classes),
        objective.classes,
        class_weights,
        objective.task.centred,
        max_ngram,
        train.weights,
    )
    # Side by side, each on one core.
    with single_threaded(), ThreadPoolExecutor(len(names)) as pool:
        fits = [pool.submit(BLOCKS[name], name, train, task) for name in names]
    blocks = {name: fit.result() for name, fit in zip(names, fits, strict=True)}
    held = [block.fitted.held for block in blocks.values()]
    weights, bias = task.stack(held)
    parameters: dict[str, Array] = {}
    folded = bias
    for weight, block in zip(weights, blocks.values(), strict=True):
        own, added = block.parameters(weight @ block.fitted.weight)
        folded = folded + weight @ block.fitted.bias + added
        parameters |= own
    parameters["classifier.bias"] = folded
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in parameters.items()
    }
    for name, value in tensors.items():
        tensors[name] = value.float() if value.is_floating_point() else value
    return Fitted(
        tensors,
        {f"C of {name}": block.fitted.strength for name, block in blocks.items()},
        torch.from_numpy(weighed(held, weights, bias)).float(),
    )


def dense(name: str, train: Examples, task: Task) -> Block:
    """Logistic regression on the standardised vectors of a pooling."""
    inputs = train.features(name).cpu().numpy().astype(np.float32)
    mean = inputs.mean(axis=0, dtype=np.float64)
    inputs -= mean.astype(np.float32)
    deviation = np.sqrt(np.einsum("ij,ij->j", inputs, inputs, dtype=np.float64) / len(inputs))
    varies = deviation > CONSTANT * (1 + np.abs(mean))
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=varies)
    inputs *= scale.astype(np.float32)
    # The optimum's weights are sums of multiples of the examples' vectors: coordinates in the space
    # of few examples give the same head much sooner.
    basis: Array | None = None
    if FEW * len(inputs) <= inputs.shape[1]:
        basis, turned = np.linalg.qr(inputs.T)
        inputs = np.ascontiguousarray(turned.T)

    def parameters(weight: Array) -> tuple[dict[str, Array], Array]:
        folded = (weight if basis is None else weight @ basis.T) * scale
        return {f"{name}.weight": folded}, -folded @ mean

    return Block(task.cross_fit(inputs, DENSE), parameters)


def ngrams(name: str, train: Examples, task: Task) -> Block:
    """Logistic regression on TF-IDF, with the penalties of NBSVM."""
    ids, offsets = train.token_ids()
    table = NGrams.of(ids, offsets, sublinear=True, longest=task.max_ngram)
    rows = table.rows(ids, offsets)
    values = rows.values.astype(np.float32)
    inputs = logistic.sparse(rows.starts, rows.columns, values, len(table.keys))
    has = logistic.sparse(rows.starts, rows.columns, np.ones_like(values), len(table.keys))
    turned = has.T.tocsr()

    def scales(sample: Array, goal: Array) -> Array:
        return LEAST + np.abs(log_count_ratios(turned, sample, goal))

    def parameters(weight: Array) -> tuple[dict[str, Array], Array]:
        own = {f"{name}.keys": table.keys, f"{name}.idf": table.idf, f"{name}.weight": weight}
        return own, np.zeros(len(weight))

    return Block(task.cross_fit(inputs, SPARSE, scales=scales), parameters)


def log_count_ratios(turned: Any, sample: Array, goal: Array) -> Array:
    """Log-count ratios (Wang & Manning 2012): how much more often each feature occurs in a class
    than in the others.

    Args:
        turned: 1 where an example has a feature, else 0, sparse (p, N).
        sample: The weight of each example, (N,).
        goal: 1 for the class that an example has, else 0, (N, K).

    Returns:
        (p, K).
    """
    own = np.asarray(goal * sample[:, None], turned.dtype)
    others = np.asarray((1 - goal) * sample[:, None], turned.dtype)
    inside, outside = SMOOTHING + turned @ own, SMOOTHING + turned @ others
    ratios: Array = np.log((inside / inside.sum(axis=0)) / (outside / outside.sum(axis=0)))
    return ratios


# Name -> how the block is fitted.
BLOCKS: dict[str, Callable[[str, Examples, Task], Block]] = {
    "layers": dense,
    "mean": dense,
    "ngrams": ngrams,
}
