"""The additive head: linear classifiers of several kinds of features of a text, added up. It is
fitted at once.

Each block is fitted on its own, with a penalty chosen by cross-validation. How blocks are weighted
against each other is fitted to their logits of examples that they were not fitted to (stacking,
Wolpert 1992): for those that they were fitted to, n-grams look better than they are. The result is
one linear layer on everything that the blocks read, so that a logit is a sum over tokens.

Shapes: N examples, p features, C classes, M n-grams.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from spacelite.heads import logistic
from spacelite.heads.base import ANY, Examples, Fitted, Head, Shapes
from spacelite.heads.batch import Batch, Objective
from spacelite.heads.config import HeadConfig
from spacelite.heads.crossfit import CrossFitted, Judge, cross_fit
from spacelite.heads.ids import ngram_logits
from spacelite.heads.ngrams import NGrams
from spacelite.lazy import torch
from spacelite.settings import setting
from spacelite.tasks.base import Problem

BLOCKS = ("layers", "mean", "ngrams")
# Strengths C of the penalties among which cross-validation chooses.
DENSE = (1 / 8000, 1 / 4000, 1 / 2000, 1 / 1000, 1 / 500, 1 / 250, 1 / 125)
SPARSE = (1.25, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
STACKED = 1.0  # C of the layer that weighs the blocks
CONSTANT = 1e-6  # a dimension with a smaller deviation differs only by rounding: its weight is 0
# A weight of an n-gram is penalised the less, the more its log-count ratio tells the class from
# the others (NBSVM, Wang & Manning 2012): counts start at SMOOTHING, and the size that a weight may
# have is LEAST plus the size of its ratio.
SMOOTHING, LEAST = 10.0, 0.05

Array = npt.NDArray[Any]


def known_blocks(value: object) -> str | None:
    """Check of a setting: names of blocks, joined by +."""
    names = value.split("+") if isinstance(value, str) else []
    if not names or len(set(names)) < len(names) or not set(names) <= set(BLOCKS):
        return f"give {', '.join(BLOCKS[:-1])} or {BLOCKS[-1]}, or two of them as in layers+ngrams"
    if {"layers", "mean"} <= set(names):
        return "layers holds the mean already: leave mean out"
    return None


@dataclass(frozen=True, kw_only=True)
class AdditiveConfig(HeadConfig):
    """Linear classifiers of several kinds of features, added up.

    Attributes:
        blocks: Kinds of features, joined by `+` in any order: `layers` (the means of all layers),
            `mean` (the mean of the cached layer), `ngrams` (TF-IDF of 1- and 2-grams of token ids).
    """

    kind: ClassVar[str] = "additive"

    blocks: str = setting("layers+ngrams", check=known_blocks)

    def __post_init__(self) -> None:
        super().__post_init__()
        if known_blocks(self.blocks) is None:  # in one order, so that equal heads have one id
            object.__setattr__(self, "blocks", "+".join(sorted(self.blocks.split("+"))))

    @property
    @override
    def name(self) -> str:
        return f"additive ({self.blocks})"

    @property
    def reads_ngrams(self) -> bool:
        """Whether a block reads token ids."""
        return "ngrams" in self.blocks.split("+")

    @property
    @override
    def poolings(self) -> tuple[str, ...]:
        return tuple(name for name in self.blocks.split("+") if name != "ngrams")

    @property
    @override
    def reads_only_ids(self) -> bool:
        return not self.poolings

    @property
    @override
    def reads_layers(self) -> bool:
        return "layers" in self.poolings


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
    """What all blocks are fitted to."""

    problems: Sequence[Problem]
    classes: int
    class_weights: str
    centre: Callable[[Array], Array]

    def cross_fit(self, inputs: Any, among: Sequence[float], **arguments: Any) -> CrossFitted:
        """Fit a block; see `crossfit.cross_fit`."""
        return cross_fit(
            inputs, self.problems, self.classes, among, self.class_weights, **arguments
        )

    def stack(self, held: Sequence[Array]) -> tuple[list[Array], Array]:
        """Weigh blocks against each other, given their logits (N, C) of held-out examples: the
        weights (C, C) of the logits of each block, and the biases (C,)."""
        inputs = np.concatenate([self.centre(own) for own in held], axis=1)
        found = logistic.fit(inputs, self.problems, self.classes, STACKED, (), self.class_weights)
        parts = np.split(found.weight, len(held), axis=1)
        return [part @ self.centre(np.eye(self.classes)) for part in parts], found.bias

    def judge(self, before: Sequence[Array]) -> Judge:
        """The cross-entropy of a stack of blocks, given the logits of the last one; those `before`
        it are fixed."""

        def loss(held: Array) -> float:
            weights, bias = self.stack([*before, held])
            logits = bias + sum(
                own @ weight.T for own, weight in zip([*before, held], weights, strict=True)
            )
            return float(
                sum(logistic.cross_entropy(logits[:, of], own) for of, own in self.problems)
            )

        return loss


def _dense(name: str, train: Examples, task: Task, judge: Judge) -> Block:
    """Logistic regression on the standardised vectors of a pooling."""
    inputs = train.features(name).cpu().numpy().astype(np.float32)
    mean = inputs.mean(axis=0, dtype=np.float64)
    inputs -= mean.astype(np.float32)
    deviation = np.sqrt(np.einsum("ij,ij->j", inputs, inputs, dtype=np.float64) / len(inputs))
    varies = deviation > CONSTANT * (1 + np.abs(mean))
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=varies)
    inputs *= scale.astype(np.float32)

    def parameters(weight: Array) -> tuple[dict[str, Array], Array]:
        folded = weight * scale
        return {f"{name}.weight": folded}, -folded @ mean

    return Block(task.cross_fit(inputs, DENSE, judge=judge), parameters)


def _ngrams(name: str, train: Examples, task: Task, judge: Judge) -> Block:
    """Logistic regression on TF-IDF, with the penalties of NBSVM."""
    ids, offsets = train.token_ids()
    ngrams = NGrams.of(ids, offsets, sublinear=True)
    rows = ngrams.rows(ids, offsets)
    values = rows.values.astype(np.float32)
    inputs = logistic.sparse(rows.starts, rows.columns, values, len(ngrams.keys))
    has = logistic.sparse(rows.starts, rows.columns, np.ones_like(values), len(ngrams.keys))
    turned = has.T.tocsr()

    def scales(sample: Array, goal: Array) -> Array:
        return LEAST + np.abs(log_count_ratios(turned, sample, goal))

    def parameters(weight: Array) -> tuple[dict[str, Array], Array]:
        table = {f"{name}.keys": ngrams.keys, f"{name}.idf": ngrams.idf}
        return {**table, f"{name}.weight": weight}, np.zeros(len(weight))

    return Block(task.cross_fit(inputs, SPARSE, scales=scales, judge=judge), parameters)


def log_count_ratios(turned: Any, sample: Array, goal: Array) -> Array:
    """Log-count ratios (Wang & Manning 2012): how much more often each feature occurs in a class
    than in the others.

    Args:
        turned: 1 where an example has a feature, else 0, sparse (p, N).
        sample: Which examples count, (N,).
        goal: 1 for the class that an example has, else 0, (N, K).

    Returns:
        (p, K).
    """
    own = np.asarray(goal * sample[:, None], turned.dtype)
    others = np.asarray((1 - goal) * sample[:, None], turned.dtype)
    inside, outside = SMOOTHING + turned @ own, SMOOTHING + turned @ others
    ratios: Array = np.log((inside / inside.sum(axis=0)) / (outside / outside.sum(axis=0)))
    return ratios


class AdditiveHead(Head):
    """Logits that are a sum over blocks, and in each block over tokens."""

    config_type: ClassVar[type[HeadConfig]] = AdditiveConfig
    TABLES: ClassVar[tuple[str, ...]] = ("ngrams.keys", "ngrams.idf")
    configs: list[Any]

    @property
    def poolings(self) -> tuple[str, ...]:
        """The poolings that the blocks read."""
        poolings: tuple[str, ...] = self.configs[0].poolings
        return poolings

    @property
    def reads_ngrams(self) -> bool:
        """Whether a block reads token ids."""
        return bool(self.configs[0].reads_ngrams)

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        shapes: Shapes = {f"{name}.weight": (classes, width) for name in config.poolings}
        if config.reads_ngrams:
            shapes["ngrams.weight"] = (classes, ANY if config.poolings else width)
            shapes["ngrams.keys"] = shapes["ngrams.idf"] = shapes["ngrams.weight"][1:]
        return {**shapes, "classifier.bias": (classes,)}

    @classmethod
    @override
    def fit(cls, config: Any, train: Examples, objective: Objective, class_weights: str) -> Fitted:
        task = Task(
            objective.task.problems(train.labels.cpu().numpy(), objective.classes),
            objective.classes,
            class_weights,
            objective.task.centred,
        )
        blocks: dict[str, Block] = {}
        for name in config.blocks.split("+"):
            fit = _ngrams if name == "ngrams" else _dense
            before = [block.fitted.held for block in blocks.values()]
            blocks[name] = fit(name, train, task, task.judge(before))
        weights, bias = task.stack([block.fitted.held for block in blocks.values()])
        parameters: dict[str, Array] = {}
        for weight, block in zip(weights, blocks.values(), strict=True):
            own, added = block.parameters(weight @ block.fitted.weight)
            bias = bias + weight @ block.fitted.bias + added
            parameters |= own
        parameters["classifier.bias"] = bias
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(value))
            for name, value in parameters.items()
        }
        for name, value in tensors.items():
            tensors[name] = value.float() if value.is_floating_point() else value
        return Fitted(
            tensors, {f"C of {name}": block.fitted.strength for name, block in blocks.items()}
        )

    @classmethod
    @override
    def fitting_bytes(cls, config: Any, examples: int, width: int) -> int:
        # Vectors and a temporary copy of them; their products with each other, which are factored.
        return 4 * width * (2 * examples + 3 * width) if config.poolings else 0

    @classmethod
    @override
    def not_additive(cls, config: Any) -> str | None:
        return None

    @classmethod
    @override
    def token_logits(cls, config: Any, parameters: dict[str, Array], hidden: Array) -> Array:
        """Of the blocks that read hidden states."""
        found = np.zeros((len(hidden), len(parameters["classifier.bias"])), hidden.dtype)
        for name in config.poolings:
            found += hidden @ parameters[f"{name}.weight"].T.astype(hidden.dtype)
        return found

    @classmethod
    @override
    def numbers_per_token(cls, config: Any, classes: int, width: int) -> int:
        return classes if config.reads_only_ids else width

    @classmethod
    @override
    def token_shares(
        cls, config: Any, parameters: dict[str, Array], hidden: Array, ids: Array, offsets: Array
    ) -> Array:
        shares = super().token_shares(config, parameters, hidden, ids, offsets)
        if config.reads_ngrams:
            parts = _table(parameters).parts(ids, offsets, parameters["ngrams.weight"])
            shares = shares + parts
        return shares

    def forward(
        self, ids: Array, offsets: Array, features: Sequence[torch.Tensor] = ()
    ) -> torch.Tensor:
        """Logits (K, B, C) of B texts.

        Args:
            ids: Their token ids end to end, (T,); used if `reads_ngrams`.
            offsets: Index of each text's first token, and at the end T, (B + 1,).
            features: A vector per text for each of `poolings`, (B, p) each.
        """
        logits = []
        for head in range(len(self.configs)):
            own = {name: value[head] for name, value in self.parameters.items()}
            found = own["classifier.bias"].double()
            for name, vectors in zip(self.poolings, features, strict=True):
                # In double precision: the weights of dimensions that hardly vary are large, and
                # what they add to the logits nearly cancels out.
                found = found + vectors.double() @ own[f"{name}.weight"].double().T
            if self.reads_ngrams:
                table = _table({name: own[name].cpu().numpy() for name in self.TABLES})
                found = found + ngram_logits(table, own["ngrams.weight"].double(), ids, offsets)
            logits.append(found.float())
        return torch.stack(logits)

    def run_batch(
        self, ids: Array, offsets: Array, features: Sequence[torch.Tensor], batch: Batch
    ) -> None:
        """Run forward on a batch."""
        self.logits = self.forward(ids, offsets, features)
        self.totals.add(self.logits, batch)


def _table(parameters: dict[str, Array]) -> NGrams:
    return NGrams(parameters["ngrams.keys"], parameters["ngrams.idf"], sublinear=True)
