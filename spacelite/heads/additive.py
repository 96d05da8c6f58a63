"""The additive head: blocks that each read something else of a text, added up.

The blocks that are linear are fitted directly, each with a penalty chosen by cross-validation. How
they are weighted against each other is fitted to their logits of examples that they were not fitted
to (stacking, Wolpert 1992): for those that they were fitted to, n-grams look better than they are.
A block that reads every token, `space` or `attention`, is trained in epochs on top of these logits.
All blocks are sums over tokens, and so is their sum.

Shapes: N examples, p features, C classes, M n-grams, L dimensions of a concept space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from typing_extensions import override

from spacelite.heads import logistic
from spacelite.heads.attention import AttentionBlock
from spacelite.heads.base import (
    ANY,
    ANY_OTHER,
    Batch,
    Examples,
    Fitted,
    Head,
    Objective,
    Parameters,
    Shapes,
    Split,
    TokenBlock,
    TokenHead,
    Tokens,
    vectors_of,
)
from spacelite.heads.config import EnsembleConfig, HeadConfig
from spacelite.heads.logistic import CrossFit
from spacelite.heads.ngrams import LONGEST, NGrams
from spacelite.heads.pooling import POOLINGS
from spacelite.heads.space import SpaceBlock, dimensions_of_a_space
from spacelite.lazy import np, torch
from spacelite.settings import setting, whole_number
from spacelite.types import Array

# Strengths C of the penalties among which cross-validation chooses.
DENSE = (1 / 8000, 1 / 4000, 1 / 2000, 1 / 1000, 1 / 500, 1 / 250, 1 / 125)
SPARSE = (1.25, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0)
STACKED = 1.0  # C of the layer that weighs the blocks
FEW = 2  # dimensions per example from which on examples are few
# A weight of an n-gram is penalised the less, the more its log-count ratio tells the class from
# the others (NBSVM, Wang & Manning 2012; numbers have no such ratio): counts start at SMOOTHING,
# and the size that a weight may have is LEAST plus the size of its ratio.
SMOOTHING, LEAST = 10.0, 0.05


SPACE, ATTENTION = "space", "attention"
# The blocks that are trained in epochs on top of the others. A head has at most one.
TOKEN_BLOCKS: dict[str, type[TokenBlock]] = {SPACE: SpaceBlock, ATTENTION: AttentionBlock}
OF_EPOCHS = ("latent", "seed", "learning_rate", "weight_decay", "ensemble")  # settings

# The blocks that are fitted directly.


class Block(NamedTuple):
    """What a linear block is fitted to, and how its weights are stored."""

    inputs: Any  # features, (N, p), dense or sparse
    among: Sequence[float]  # strengths C of the penalty among which cross-validation chooses
    scales: logistic.Scales | None  # how large each weight may be
    # Weights (C, p) in the head -> parameters by name, and what they add to the biases, (C,).
    parameters: Callable[[Array], tuple[dict[str, Array], Array]]


def dense(name: str, train: Examples, max_ngram: int) -> Block:
    """Logistic regression on the standardised vectors of a pooling."""
    inputs = train.features(name).cpu().numpy().astype(np.float32)
    mean, scale = logistic.standardise(inputs)
    # The optimum's weights are sums of multiples of the examples' vectors: coordinates in the space
    # of few examples give the same head much sooner.
    basis: Array | None = None
    if FEW * len(inputs) <= inputs.shape[1]:
        basis, coordinates = np.linalg.qr(inputs.T)
        inputs = np.ascontiguousarray(coordinates.T)

    def parameters(weight: Array) -> tuple[dict[str, Array], Array]:
        folded = (weight if basis is None else weight @ basis.T) * scale
        return {f"{name}.weight": folded}, -folded @ mean

    return Block(inputs, DENSE, None, parameters)


def ngrams(name: str, train: Examples, max_ngram: int) -> Block:
    """Logistic regression on TF-IDF, with the penalties of NBSVM."""
    ids, offsets = train.token_ids()
    table = NGrams.of(ids, offsets, sublinear=True, longest=max_ngram)
    inputs = table.matrix(ids, offsets).astype(np.float32)
    transposed = inputs.T.tocsr()
    transposed.data[:] = 1  # where an example has an n-gram

    def scales(sample: Array, goal: Array) -> Array:
        return LEAST + np.abs(log_count_ratios(transposed, sample, goal))

    def parameters(weight: Array) -> tuple[dict[str, Array], Array]:
        tables = {f"{name}.keys": table.keys, f"{name}.idf": table.idf}
        return {**tables, f"{name}.weight": weight}, np.zeros(len(weight))

    return Block(inputs, SPARSE, scales, parameters)


LINEAR_BLOCKS: dict[str, Callable[[str, Examples, int], Block]] = {
    "layers": dense,
    "mean": dense,
    "ngrams": ngrams,
}


def log_count_ratios(transposed: Any, sample: Array, goal: Array) -> Array:
    """Log-count ratios (Wang & Manning 2012), (p, K): how much more often each feature occurs in a
    class than in the others. `transposed` is 1 where an example has a feature, else 0, sparse
    (p, N); `sample` is the weight of each example, (N,); `goal` 1 for its class, else 0, (N, K)."""
    inside, outside = (
        SMOOTHING + transposed @ np.asarray(of * sample[:, None], transposed.dtype)
        for of in (goal, 1 - goal)
    )
    ratios: Array = np.log((inside / inside.sum(axis=0)) / (outside / outside.sum(axis=0)))
    return ratios


# The head.


def known_blocks(value: object) -> str | None:
    """Check of a setting: names of blocks, joined by +."""
    names = value.split("+") if isinstance(value, str) else []
    known = (*LINEAR_BLOCKS, *TOKEN_BLOCKS)
    if not names or len(set(names)) < len(names) or not {*names} <= {*known}:
        return f"give {', '.join(known[:-1])} or {known[-1]}, or several as in layers+ngrams"
    if {*TOKEN_BLOCKS} <= {*names}:
        return f"give {' or '.join(TOKEN_BLOCKS)}, not both"
    if {"layers", "mean"} <= set(names):
        return "layers holds the mean already: leave mean out"
    return None


@dataclass(frozen=True, kw_only=True)
class AdditiveConfig(EnsembleConfig):
    """Blocks, added up. Only `space` and `attention` are trained in epochs: without one of them,
    all other settings have no effect.
    """

    kind: ClassVar[str] = "additive"
    # The weights of L_inter and L_intra, which additive heads do not have.
    inter: ClassVar[float] = 0.0
    intra: ClassVar[float] = 0.0

    # `layers` is a linear layer on the means of all layers, `mean` the same on the mean of the
    # cached layer, `ngrams` on TF-IDF of n-grams of token ids, `space` concept spaces, `attention`
    # units on tokens, averaged by attention. They stand in any order.
    blocks: str = setting(
        "layers+ngrams",
        check=known_blocks,
        search=(
            "mean",
            "layers",
            "ngrams",
            "mean+ngrams",
            "layers+ngrams",
            "layers+ngrams+space",
            "layers+ngrams+attention",
        ),
        help="What additive heads add up, joined by +: layers, mean, ngrams, space or attention; "
        "several combinations: a comma list.",
    )
    max_ngram: int = setting(
        2,
        check=whole_number(2, LONGEST),
        words="up to {}-grams",
        tuned=True,
        help="Tokens of the longest n-grams of the block ngrams: 2 or 3.",
    )
    latent: int = dimensions_of_a_space()

    def __post_init__(self) -> None:
        super().__post_init__()
        if known_blocks(self.blocks) is not None:
            return  # `check` reports it
        # In one order and without settings that have no effect, so that equal heads are equal.
        names = sorted(self.blocks.split("+"), key=[*LINEAR_BLOCKS, *TOKEN_BLOCKS].index)
        object.__setattr__(self, "blocks", "+".join(names))
        for name in self.without_effect:
            object.__setattr__(self, name, type(self).__dataclass_fields__[name].default)

    @override
    def settings(self) -> dict[str, Any]:
        return {**super().settings(), **dict.fromkeys(self.without_effect)}

    @property
    @override
    def without_effect(self) -> list[str]:
        epochs = [] if self.is_iterative else list(OF_EPOCHS)
        return epochs + ([] if self.reads_ids else ["max_ngram"])

    @property
    def dimensions(self) -> int:
        """As in SpaceConfig."""
        return self.latent * self.ensemble

    @property
    @override
    def name(self) -> str:
        large = f" L={self.latent}" if self.is_iterative and self.latent != 3 else ""
        return f"additive ({self.blocks}){large}"

    @property
    @override
    def description(self) -> str:
        return super().description if self.is_iterative else self.name

    @property
    def names(self) -> list[str]:
        """The blocks."""
        return self.blocks.split("+")

    @property
    def token_block(self) -> str | None:
        """The block that is trained in epochs, if there is one."""
        return next((name for name in self.names if name in TOKEN_BLOCKS), None)

    @property
    def fitted_names(self) -> list[str]:
        """The blocks that are fitted directly."""
        return [name for name in self.names if name not in TOKEN_BLOCKS]

    @property
    @override
    def is_iterative(self) -> bool:
        return self.token_block is not None

    @property
    @override
    def start(self) -> HeadConfig | None:
        if not self.is_iterative or not self.fitted_names:
            return None
        return AdditiveConfig(blocks="+".join(self.fitted_names), max_ngram=self.max_ngram)

    @property
    @override
    def reads_ids(self) -> bool:
        return "ngrams" in self.names

    @property
    @override
    def poolings(self) -> tuple[str, ...]:
        return tuple(name for name in self.fitted_names if name != "ngrams")

    @property
    @override
    def reads_only_ids(self) -> bool:
        return self.names == ["ngrams"]

    @property
    @override
    def reads_layers(self) -> bool:
        return "layers" in self.names


class AdditiveHead(Head):
    """Logits that are a sum over blocks, and in each block over tokens."""

    config_type: ClassVar[type[HeadConfig]] = AdditiveConfig
    TABLES: ClassVar[tuple[str, ...]] = ("ngrams.keys", "ngrams.idf")
    ADDITIVE: ClassVar[bool] = True

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        shapes: Shapes = {f"{name}.weight": (classes, width) for name in config.poolings}
        if config.is_iterative:
            # What all layers together are wide does not tell how wide one is.
            layer_width = ANY_OTHER if config.reads_layers else width
            shapes |= TOKEN_BLOCKS[config.token_block].saved(config, classes, layer_width)
        if config.reads_ids:
            shapes["ngrams.weight"] = (classes, width if config.reads_only_ids else ANY)
            shapes["ngrams.keys"] = shapes["ngrams.idf"] = shapes["ngrams.weight"][1:]
        return {**shapes, "classifier.bias": (classes,)}

    @classmethod
    @override
    def in_training(cls, config: Any) -> type[Head]:
        return TOKEN_BLOCKS.get(config.token_block, cls)

    @classmethod
    def fit(cls, config: Any, train: Examples, objective: Objective, class_weights: str) -> Fitted:
        """Fit the linear blocks, and what each weighs."""
        centre = objective.task.centred
        problems = logistic.Problems.of(train, objective, class_weights)

        def fitted(name: str) -> tuple[CrossFit, Callable[[Array], tuple[dict[str, Array], Array]]]:
            block = LINEAR_BLOCKS[name](name, train, config.max_ngram)
            fit = logistic.cross_fit(block.inputs, problems, block.among, block.scales)
            return fit, block.parameters

        # Side by side, each on one core.
        names = config.fitted_names
        with logistic.pool_of(len(names)) as pool:
            blocks = dict(zip(names, pool.map(fitted, names), strict=True))
        held = [fit.held for fit, _ in blocks.values()]
        side_by_side = np.concatenate([centre(logits) for logits in held], axis=1)
        stacked = logistic.fit(side_by_side / problems.spread, problems, STACKED)
        # What the logits of each block weigh, (C, C).
        identity = centre(np.eye(objective.classes))
        of_blocks = np.split(stacked.weight / problems.spread, len(held), 1)
        weights = [part @ identity for part in of_blocks]
        parameters: dict[str, Array] = {}
        bias = stacked.bias
        logits = np.zeros_like(held[0]) + stacked.bias
        for weight, (fit, named) in zip(weights, blocks.values(), strict=True):
            of_block, added = named(weight @ fit.weight)
            bias = bias + weight @ fit.bias + added
            logits += fit.held @ weight.T
            parameters |= of_block
        parameters["classifier.bias"] = bias
        tensors = {}
        for name, value in parameters.items():
            tensor = torch.from_numpy(np.ascontiguousarray(value))
            tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
        return Fitted(
            tensors,
            {f"C of {name}": fit.strength for name, (fit, _) in blocks.items()},
            torch.from_numpy(logits).float(),
        )

    @classmethod
    @override
    def fitting_bytes(cls, config: Any, examples: int, width: int) -> int:
        # Vectors and a temporary copy of them; a random projection of their products with each
        # other, which is factored.
        rank = min(width, logistic.RANK)
        return 4 * width * (2 * examples + 4 * rank) if config.poolings else 0

    @classmethod
    @override
    def coordinates(cls, parameters: dict[str, Array], hidden: Array) -> Array | None:
        if "concept_spaces" not in parameters:
            return None
        return SpaceBlock.coordinates(parameters, hidden)

    @classmethod
    @override
    def numbers_per_token(cls, config: Any, classes: int, width: int) -> int:
        if config.reads_only_ids:
            return classes
        return max(width, classes * int(config.dimensions) if config.is_iterative else 0)

    @classmethod
    @override
    def token_shares(cls, config: Any, parameters: dict[str, Array], tokens: Tokens) -> Array:
        return sum(cls.block_shares(config, parameters, tokens).values(), np.zeros(()))

    @classmethod
    @override
    def block_shares(
        cls, config: Any, parameters: dict[str, Array], tokens: Tokens
    ) -> dict[str, Array]:
        shares: dict[str, Array] = {}
        for name in config.names:
            if name == "ngrams":
                table = NGrams.from_head(parameters, sublinear=True)
                weight = parameters["ngrams.weight"]
                shares[name] = table.parts(tokens.ids, tokens.offsets, weight)
            elif name in TOKEN_BLOCKS:
                shares[name] = TOKEN_BLOCKS[name].token_shares(config, parameters, tokens)
            else:
                hidden = tokens.read(POOLINGS[name].from_layers)
                weight = parameters[f"{name}.weight"].astype(hidden.dtype)
                shares[name] = tokens.averaged(hidden @ weight.T)
        return shares

    @classmethod
    @override
    def logits_of_ids(
        cls, config: Any, parameters: dict[str, Array], ids: Array, offsets: Array
    ) -> Array:
        table = NGrams.from_head(parameters, sublinear=True)
        logits: Array = table.logits(ids, offsets, parameters["ngrams.weight"])
        return (parameters["classifier.bias"] + logits).astype(np.float32)

    # Running K heads.

    def __init__(
        self, configs: Sequence[HeadConfig], parameters: Parameters, objective: Objective
    ) -> None:
        self._tokens: TokenBlock | None = None
        config: Any = configs[0]
        if config.is_iterative:
            kind = TOKEN_BLOCKS[config.token_block]
            of_block = {name: parameters[name] for name in kind.saved(config, 0, 0)}
            of_block["classifier.bias"] = torch.zeros_like(parameters["classifier.bias"])
            self._tokens = kind(configs, of_block, objective)
        super().__init__(configs, parameters, objective)

    @property
    @override
    def of_tokens(self) -> TokenHead | None:
        return self._tokens

    @override
    def clear(self) -> None:
        super().clear()
        if self._tokens is not None:
            self._tokens.clear()

    def forward(
        self, ids: Array, offsets: Array, features: Sequence[torch.Tensor] = ()
    ) -> torch.Tensor:
        """Logits (K, B, C) of B texts, without those of a block that reads tokens, from their ids
        end to end with offsets (B + 1,), and a vector per text for each pooling, (B, p)."""
        config, logits = self.configs[0], []
        for head in range(len(self.configs)):
            parameters = {name: value[head] for name, value in self.parameters.items()}
            total = parameters["classifier.bias"].double().expand(len(offsets) - 1, -1)
            for name, vectors in zip(config.poolings, features, strict=True):
                # In double precision: the weights of dimensions that hardly vary are large, and
                # what they add to the logits nearly cancels out.
                total = total + vectors.double() @ parameters[f"{name}.weight"].double().T
            if config.reads_ids:
                table = NGrams.from_head(parameters, sublinear=True)
                summed = table.logits(ids, offsets, parameters["ngrams.weight"].cpu().numpy())
                total = total + torch.from_numpy(summed).to(total.device)
            logits.append(total.float())
        return torch.stack(logits)

    @override
    def plan(
        self, split: Split, rows: Array, batch: Batch, train: tuple[int, int] | None
    ) -> Callable[[], None]:
        config = self.configs[0]
        vectors = [vectors_of(split, name, rows) for name in config.poolings]
        ids, offsets = np.zeros(0, np.int64), np.zeros(len(rows) + 1, np.int64)
        if config.reads_ids:
            ids, offsets = split.token_ids(rows)

        def run() -> None:
            if config.reads_only_ids:
                self.logits = self.forward_ids(ids, offsets)
            else:
                self.logits = self.forward(ids, offsets, vectors)

        return run

    @override
    def finish(self, batch: Batch) -> None:
        """Add the block that has been run on the tokens, and count the batch."""
        if self._tokens is not None:
            self.logits = self.logits + self._tokens.logits
        self.totals.add(self.logits, batch)
