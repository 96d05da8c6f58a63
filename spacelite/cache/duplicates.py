"""Texts that stand in a data set more than once: in two splits, or with different labels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.cache import texts as cached_texts
from spacelite.cache.split import CachedSplit
from spacelite.cache.store import Cache
from spacelite.cache.texts import CachedTexts
from spacelite.data.splits import folded

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Duplicates:
    """How many texts stand in a data set more than once.

    Attributes:
        shared: For two splits, such as ("train", "test"): how many examples of the second have a
            text of the first.
        examples: The number of examples, by split.
        contradictory: The number of different texts that have more than one label, within each
            split and, as `all`, within and across the splits; empty if labels were not compared.
        by_text: Whether the texts themselves were compared, or only their token ids.
    """

    shared: dict[tuple[str, str], int]
    examples: dict[str, int]
    contradictory: dict[str, int]
    by_text: bool = True

    def as_json(self) -> dict[str, Any]:
        """The counts as `embed --json` prints them: {"shared": {"train/test": 3, ...}, ...}."""
        shared = {"/".join(pair): count for pair, count in self.shared.items()}
        return {"shared": shared, "contradictory": dict(self.contradictory)}

    @property
    def what(self) -> str:
        """What examples share, in words."""
        return "a text" if self.by_text else "the same tokens as a text"

    @property
    def leaked(self) -> str:
        """What the texts in two splits mean for the reader; "" if there are none."""
        found = [
            f"{count:,} of {self.examples[later]:,} {later} examples "
            f"{'has' if count == 1 else 'have'} {self.what} of {earlier}"
            for (earlier, later), count in self.shared.items()
            if count
        ]
        if not found:
            return ""
        seen = any(earlier == "train" and n for (earlier, _), n in self.shared.items())
        when = "in training" if seen else "when settings were chosen"
        return f"{', '.join(found)}: these were seen {when}, so the metrics are too optimistic"

    @property
    def contradicted(self) -> str:
        """What texts with more than one label mean for the reader; "" if there are none."""
        count = self.contradictory.get("all", 0)
        if not count:
            return ""
        have = "text has" if count == 1 else "texts have"
        if not self.by_text:
            have = f"{'text' if count == 1 else 'texts'} of the same tokens {have.split()[1]}"
        return (
            f"{count:,} {have} more than one label, each in another example: no classifier can get "
            "all of these examples right"
        )


def of_cache(cache: Cache) -> Duplicates:
    """Count the texts of a cache that stand in two of its splits, and those that have more than one
    label."""
    texts = {name: cached_texts.read(cache, name) for name in cache.splits}
    return find(cache.splits, texts, max_length=cache.spec.max_length)


def find(
    splits: Mapping[str, CachedSplit],
    texts: Mapping[str, CachedTexts | None] | None = None,
    *,
    max_length: int = 0,
    compare_labels: bool = True,
) -> Duplicates:
    """Count the texts that stand in two splits, and those that have more than one label.

    Two texts are the same if their token ids are, which is all that the backbone sees of them, and,
    where the texts are known, if they differ at most in case, accents and spaces: texts of unknown
    words have the same token ids without being the same.

    Args:
        splits: The splits by name, in order; they may come from caches with the same tokenizer.
        texts: The texts by split; None, or None for a split, if they are not known.
        max_length: Maximum tokens per text; of texts with as many, only the beginning is compared.
        compare_labels: Whether the splits number their labels in the same way.
    """
    numbers: dict[bytes, int] = {}
    found = {name: _numbered(split, numbers) for name, split in splits.items()}
    known = {name: own for name, own in (texts or {}).items() if own is not None}
    by_text = len(known) == len(splits)
    if by_text:
        found = _told_apart(found, splits, known, max_length)
    contradictory = {}
    if compare_labels:
        labels = _label_numbers([split.labels for split in splits.values()])
        by_split = dict(zip(splits, labels, strict=True))
        contradictory = {name: _several(found[name], by_split[name]) for name in splits}
        contradictory["all"] = _several(
            np.concatenate(list(found.values())), np.concatenate(labels)
        )
    return Duplicates(
        shared={
            (one, other): int(np.isin(found[other], found[one]).sum())
            for one, other in itertools.combinations(splits, 2)
        },
        examples={name: len(split) for name, split in splits.items()},
        contradictory=contradictory,
        by_text=by_text,
    )


def _told_apart(
    numbers: dict[str, Array],
    splits: Mapping[str, CachedSplit],
    texts: Mapping[str, CachedTexts],
    max_length: int,
) -> dict[str, Array]:
    """The numbers of the texts, a different one for each different text of the same tokens."""
    every = np.concatenate(list(numbers.values()))
    several = np.bincount(every) > 1
    own_numbers: dict[tuple[int, str], int] = {}
    first_free = len(several)
    told_apart = {}
    for name, own in numbers.items():
        told_apart[name] = own.copy()
        lengths = np.diff(splits[name].offsets)
        for example in np.flatnonzero(several[own]).tolist():
            text = folded(texts[name].text(example))
            if lengths[example] >= max_length:
                text = text[: max_length // 2]  # of which every character stands before the cut
            key = (int(own[example]), text)
            number = own_numbers.setdefault(key, first_free + len(own_numbers))
            told_apart[name][example] = number
    return told_apart


def _numbered(split: CachedSplit, numbers: dict[bytes, int]) -> Array:
    """The number of each example's text, (N,) int64; texts that are not in `numbers` are added."""
    found = [numbers.setdefault(digest, len(numbers)) for digest in split.digests()]
    return np.array(found, np.int64)


def _label_numbers(labels: list[Array]) -> list[Array]:
    """The number of each example's label or set of labels, one array per split."""
    together = np.concatenate(labels)
    _, found = np.unique(together, axis=0, return_inverse=True)
    return np.split(found.reshape(-1), np.cumsum([len(one) for one in labels])[:-1])


def _several(texts: Array, labels: Array) -> int:
    """How many different texts have more than one label."""
    pairs = np.unique(np.stack([texts, labels], axis=1), axis=0)
    return int((np.unique(pairs[:, 0], return_counts=True)[1] > 1).sum())
