"""The texts of a data set -> the token ids of its cache."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.backbones import tokenizer
from spacelite.backbones.files import BackboneFiles
from spacelite.backbones.tokenizer import Tokenized
from spacelite.cache.split import SplitIndex
from spacelite.data.splits import TextDataset
from spacelite.errors import SpaceliteError

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Examples:
    """The examples of all splits in one sequence, in file order: the batch plan indexes this
    sequence."""

    splits: list[str]
    starts: list[int]  # index of each split's first example
    tokens: Tokenized
    lengths: Array

    def location(self, example: int) -> tuple[str, int]:
        """The split of an example and its index in that split."""
        split = int(np.searchsorted(self.starts, example, side="right")) - 1
        return self.splits[split], example - self.starts[split]


def tokenize(
    backbone_files: BackboneFiles,
    texts: TextDataset,
    max_length: int,
    padding: str,
    on_progress: OnProgress,
) -> Examples:
    """Tokenize a data set. Raises SpaceliteError if a text has no token."""
    everything = [text for split in texts.splits.values() for text in split.texts]
    on_progress("tokenize", 0, len(everything))
    tokens = tokenizer.tokenize(
        backbone_files,
        everything,
        max_length=max_length,
        padding=padding,
        on_chunk=lambda done: on_progress("tokenize", done, len(everything)),
    )
    sizes = [len(split) for split in texts.splits.values()]
    starts = np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(int).tolist()
    lengths = np.array([len(ids) for ids in tokens.ids], np.int64)
    examples = Examples(list(texts.splits), starts, tokens, lengths)
    if not lengths.all():
        split, row = examples.location(int(np.argmin(lengths)))
        raise SpaceliteError(
            f"{texts.name} {split}: text {row + 1} has no token that {backbone_files.name} "
            "knows: remove it"
        )
    if tokens.truncated:
        log.info(
            "%s of %s texts %s longer than %s tokens and %s cut off there",
            f"{tokens.truncated:,}", f"{len(everything):,}",
            *(("is", max_length, "was") if tokens.truncated == 1 else ("are", max_length, "were")),
        )  # fmt: skip
    return examples


def index(texts: TextDataset, examples: Examples) -> dict[str, SplitIndex]:
    """The offsets, labels and token ids of each split."""
    splits = {}
    for (name, split), start in zip(texts.splits.items(), examples.starts, strict=True):
        stop = start + len(split)
        splits[name] = SplitIndex(
            np.concatenate([[0], np.cumsum(examples.lengths[start:stop])]).astype(np.int64),
            split.labels,
            np.concatenate(examples.tokens.ids[start:stop]),
        )
    return splits
