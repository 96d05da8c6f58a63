"""The additive head: blocks that each read something else of a text, added up.

The blocks that are linear are fitted at once (`blocks`). The block `space`, concept spaces, is
trained in epochs on top of their logits for examples that they were not fitted to. All blocks are
sums over tokens, and so is their sum.

Shapes: N examples, p features, C classes, M n-grams, L dimensions of a concept space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from spacelite.heads import blocks
from spacelite.heads.base import ANY, ANY_OTHER, Head, Shapes, TokenHead
from spacelite.heads.batch import Batch, Objective
from spacelite.heads.config import EnsembleConfig, HeadConfig
from spacelite.heads.examples import Examples, Fitted, Parameters, Tokens
from spacelite.heads.ids import ngram_logits
from spacelite.heads.ngrams import LONGEST, NGrams
from spacelite.heads.pooling import POOLINGS
from spacelite.heads.space import BIAS, LARGEST_LATENT, SpaceHead
from spacelite.heads.space_block import SpaceBlock
from spacelite.lazy import torch
from spacelite.settings import setting, whole_number

SPACE = "space"
BLOCKS = (*blocks.BLOCKS, SPACE)
OF_EPOCHS = ("latent", "seed", "learning_rate", "weight_decay", "ensemble")  # settings

Array = npt.NDArray[Any]


def known_blocks(value: object) -> str | None:
    """Check of a setting: names of blocks, joined by +."""
    names = value.split("+") if isinstance(value, str) else []
    if not names or len(set(names)) < len(names) or not set(names) <= set(BLOCKS):
        return f"give {', '.join(BLOCKS[:-1])} or {BLOCKS[-1]}, or several as in layers+ngrams"
    if {"layers", "mean"} <= set(names):
        return "layers holds the mean already: leave mean out"
    return None


@dataclass(frozen=True, kw_only=True)
class AdditiveConfig(EnsembleConfig):
    """Blocks, added up. Only the block `space` is trained in epochs: without it, all other settings
    have no effect.

    Attributes:
        blocks: What is added up, joined by `+` in any order: `layers` (a linear layer on the means
            of all layers), `mean` (the same on the mean of the cached layer), `ngrams` (on TF-IDF
            of n-grams of token ids), `space` (concept spaces on standardised tokens).
        max_ngram: Tokens of the longest n-grams, 2 or 3; without `ngrams` it has no effect.
        latent: L, the dimensions of a concept space.
    """

    kind: ClassVar[str] = "additive"
    # The weights of L_inter and L_intra, which additive heads do not have.
    inter: ClassVar[float] = 0.0
    intra: ClassVar[float] = 0.0

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
        ),
        help="What additive heads add up, joined by +: layers, mean, ngrams, space; several "
        "combinations: a comma list.",
    )
    max_ngram: int = setting(
        2,
        check=whole_number(2, LONGEST),
        words="up to {}-grams",
        tuned=True,
        help="Tokens of the longest n-grams of the block ngrams: 2 or 3.",
    )
    latent: int = setting(3, check=whole_number(1, LARGEST_LATENT), tuned=True, symbol="L")

    def __post_init__(self) -> None:
        super().__post_init__()
        if known_blocks(self.blocks) is not None:
            return  # `check` reports it
        # In one order and without settings that have no effect, so that equal heads are equal.
        object.__setattr__(self, "blocks", "+".join(sorted(self.blocks.split("+"))))
        for name in self._without_effect:
            object.__setattr__(self, name, type(self).__dataclass_fields__[name].default)

    @override
    def settings(self) -> dict[str, Any]:
        return {**super().settings(), **dict.fromkeys(self._without_effect)}

    @property
    def _without_effect(self) -> list[str]:
        """The settings that have no effect."""
        epochs = [] if self.is_iterative else list(OF_EPOCHS)
        return epochs + ([] if self.reads_ngrams else ["max_ngram"])

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
    def fitted_names(self) -> list[str]:
        """The blocks that are fitted at once."""
        return [name for name in self.names if name != SPACE]

    @property
    @override
    def is_iterative(self) -> bool:
        return SPACE in self.names

    @property
    @override
    def start(self) -> HeadConfig | None:
        if not self.is_iterative or not self.fitted_names:
            return None
        return AdditiveConfig(blocks="+".join(self.fitted_names), max_ngram=self.max_ngram)

    @property
    def reads_ngrams(self) -> bool:
        """Whether a block reads token ids."""
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
    configs: list[Any]

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        shapes: Shapes = {f"{name}.weight": (classes, width) for name in config.poolings}
        if config.is_iterative:
            # What all layers together are wide does not tell how wide one is.
            own = ANY_OTHER if config.reads_layers else width
            shapes["concept_spaces"] = (classes, config.dimensions, own)
            shapes[BIAS] = (classes, config.dimensions)
            shapes["classifier.weight"] = (classes, classes * config.dimensions)
        if config.reads_ngrams:
            shapes["ngrams.weight"] = (classes, width if config.reads_only_ids else ANY)
            shapes["ngrams.keys"] = shapes["ngrams.idf"] = shapes["ngrams.weight"][1:]
        return {**shapes, "classifier.bias": (classes,)}

    @classmethod
    @override
    def in_training(cls) -> type[Head]:
        return SpaceBlock

    @classmethod
    @override
    def joined(cls, config: Any, trained: Parameters, start: Parameters | None) -> Parameters:
        own = SpaceBlock.folded(trained)
        if start is not None:
            own["classifier.bias"] = own["classifier.bias"] + start["classifier.bias"]
        return {**(start or {}), **own}

    @classmethod
    @override
    def fit(cls, config: Any, train: Examples, objective: Objective, class_weights: str) -> Fitted:
        return blocks.fit(config.fitted_names, train, objective, class_weights, config.max_ngram)

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
    def coordinates(cls, parameters: dict[str, Array], hidden: Array) -> Array | None:
        if "concept_spaces" not in parameters:
            return None
        return SpaceHead.coordinates(parameters, hidden)

    @classmethod
    @override
    def numbers_per_token(cls, config: Any, classes: int, width: int) -> int:
        if config.reads_only_ids:
            return classes
        return max(width, classes * int(config.dimensions) if config.is_iterative else 0)

    @classmethod
    @override
    def token_shares(cls, config: Any, parameters: dict[str, Array], tokens: Tokens) -> Array:
        shares: Array = sum(cls.block_shares(config, parameters, tokens).values(), np.zeros(()))
        return shares

    @classmethod
    @override
    def block_shares(
        cls, config: Any, parameters: dict[str, Array], tokens: Tokens
    ) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for name in config.names:
            if name == "ngrams":
                table, weight = _table(parameters), parameters["ngrams.weight"]
                found[name] = table.parts(tokens.ids, tokens.offsets, weight)
            elif name == SPACE:
                found[name] = tokens.averaged(
                    SpaceHead.token_logits(config, parameters, tokens.hidden)
                )
            else:
                hidden = tokens.read(POOLINGS[name].from_layers)
                weight = parameters[f"{name}.weight"].astype(hidden.dtype)
                found[name] = tokens.averaged(hidden @ weight.T)
        return found

    # Running K heads.

    def __init__(
        self, configs: Sequence[HeadConfig], parameters: Parameters, objective: Objective
    ) -> None:
        self._space: SpaceHead | None = None
        if "concept_spaces" in parameters:
            names = ("concept_spaces", BIAS, "classifier.weight")
            own = {name: parameters[name] for name in names}
            own["classifier.bias"] = torch.zeros_like(parameters["classifier.bias"])
            self._space = SpaceHead(configs, own, objective)
        super().__init__(configs, parameters, objective)

    @property
    def poolings(self) -> tuple[str, ...]:
        """The poolings that the blocks read."""
        poolings: tuple[str, ...] = self.configs[0].poolings
        return poolings

    @property
    def reads_ngrams(self) -> bool:
        """Whether a block reads token ids."""
        return bool(self.configs[0].reads_ngrams)

    @property
    @override
    def of_tokens(self) -> TokenHead | None:
        return self._space

    @override
    def clear(self) -> None:
        super().clear()
        if self._space is not None:
            self._space.clear()

    def forward(
        self, ids: Array, offsets: Array, features: Sequence[torch.Tensor] = ()
    ) -> torch.Tensor:
        """Logits (K, B, C) of B texts, without those of the block `space`.

        Args:
            ids: Their token ids end to end, (T,); used if `reads_ngrams`.
            offsets: Index of each text's first token, and at the end T, (B + 1,).
            features: A vector per text for each of `poolings`, (B, p) each.
        """
        logits = []
        for head in range(len(self.configs)):
            own = {name: value[head] for name, value in self.parameters.items()}
            found = own["classifier.bias"].double().expand(len(offsets) - 1, -1)
            for name, vectors in zip(self.poolings, features, strict=True):
                # In double precision: the weights of dimensions that hardly vary are large, and
                # what they add to the logits nearly cancels out.
                found = found + vectors.double() @ own[f"{name}.weight"].double().T
            if self.reads_ngrams:
                table = _table({name: own[name].cpu().numpy() for name in self.TABLES})
                found = found + ngram_logits(table, own["ngrams.weight"].double(), ids, offsets)
            logits.append(found.float())
        return torch.stack(logits)

    def run_batch(self, ids: Array, offsets: Array, features: Sequence[torch.Tensor]) -> None:
        """Run forward on a batch, without the block `space`."""
        self.logits = self.forward(ids, offsets, features)

    def finish(self, batch: Batch) -> None:
        """Add the block `space`, which has been run on the tokens, and count the batch."""
        if self._space is not None:
            self.logits = self.logits + self._space.logits
        self.totals.add(self.logits, batch)


def _table(parameters: dict[str, Array]) -> NGrams:
    return NGrams(parameters["ngrams.keys"], parameters["ngrams.idf"], sublinear=True)
