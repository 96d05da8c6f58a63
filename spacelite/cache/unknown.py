"""How many tokens of a cached data set are unknown to the backbone: counted once, kept in a side
file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import files
from spacelite.backbones.tokenizer import MOSTLY, SpecialIds, unknown_counts, unknown_shares

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

# A split with more than this share of unknown tokens, or of mostly unknown texts, is mentioned.
MANY_TOKENS, MANY_TEXTS = 0.05, 0.01
MEANING = (
    "all unknown words look the same to {}; a backbone for the language and script of the texts "
    "knows more of them"
)


@dataclass(frozen=True)
class SplitCounts:
    """Counts of a split.

    Attributes:
        tokens: Its tokens, without special ones such as [CLS].
        unknown: Those of them that are unknown.
        texts: Its texts.
        mostly_unknown: Those of them whose tokens are unknown by half or more.
    """

    tokens: int
    unknown: int
    texts: int
    mostly_unknown: int

    @property
    def percent(self) -> str:
        """The percentage of its tokens that are unknown."""
        return f"{100 * self.unknown / max(self.tokens, 1):.0f}"

    @property
    def many(self) -> bool:
        """Whether so much is unknown that the reader should know."""
        return (
            self.unknown > MANY_TOKENS * self.tokens
            or self.mostly_unknown > MANY_TEXTS * self.texts
        )


@dataclass(frozen=True)
class UnknownTokens:
    """How many tokens of a data set are unknown to the backbone.

    Attributes:
        splits: The counts by split; empty if they are not known.
    """

    splits: dict[str, SplitCounts]

    def as_json(self) -> dict[str, dict[str, int]]:
        """The counts as `embed --json` prints them, by split."""
        return {name: asdict(counts) for name, counts in self.splits.items()}

    @property
    def lines(self) -> list[str]:
        """Where much is unknown, a line for each split, and what it means for the reader; none
        where little is."""
        found = [
            f"{name}: {one.percent}% of the tokens are unknown to the backbone "
            f"({one.mostly_unknown:,} of {one.texts:,} texts mostly)"
            for name, one in self.splits.items()
            if one.many
        ]
        return [*found, MEANING.format("the backbone")] if found else []

    @property
    def sentence(self) -> str:
        """The same in one sentence; "" where little is unknown."""
        found = [
            f"{one.percent}% of the tokens of {name} are unknown to the backbone "
            f"({one.mostly_unknown:,} of {one.texts:,} texts mostly)"
            for name, one in self.splits.items()
            if one.many
        ]
        return f"{', '.join(found)}: {MEANING.format('it')}" if found else ""


def count(splits: Iterable[tuple[str, Array, Array]], special: SpecialIds) -> UnknownTokens:
    """Count unknown tokens.

    Args:
        splits: The name, token ids (T,) and offsets (N+1,) of each split.
        special: The tokenizer's special ids.
    """
    counts = {}
    for name, ids, offsets in splits:
        unknown, tokens = unknown_counts(ids, offsets, special)
        mostly = unknown_shares(ids, offsets, special) >= MOSTLY
        counts[name] = SplitCounts(
            int(tokens.sum()), int(unknown.sum()), len(tokens), int(np.sum(mostly))
        )
    return UnknownTokens(counts)


def counts_path(path: Path) -> Path:
    """The file beside a cache that holds its counts."""
    return path.with_suffix(".unknown.json")


def write(path: Path, counts: UnknownTokens) -> None:
    """Keep the counts of a cache. In a folder that cannot be written they are not kept."""
    try:
        files.write_json(counts_path(path), counts.as_json())
    except OSError as error:
        log.info("%s cannot be written: %s", counts_path(path), error.strerror)


def read(path: Path) -> UnknownTokens | None:
    """The counts of a cache; None if they were not kept, or their file is damaged."""
    try:
        content = json.loads(counts_path(path).read_text("utf-8"))
        splits = {name: SplitCounts(**counts) for name, counts in content.items()}
        if not all(map(_possible, splits.values())):
            return None
        return UnknownTokens(splits)
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _possible(counts: SplitCounts) -> bool:
    """Whether counts that were read from a file can be those of a split."""
    values = (counts.tokens, counts.unknown, counts.texts, counts.mostly_unknown)
    return (
        all(type(value) is int and value >= 0 for value in values)
        and counts.unknown <= counts.tokens
        and counts.mostly_unknown <= counts.texts
    )
