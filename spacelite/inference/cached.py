"""An example of a cache: its hidden states, and what is known of its text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from spacelite.cache import texts
from spacelite.cache.store import Cache
from spacelite.data.splits import Source
from spacelite.errors import SpaceliteError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class CachedExample:
    """An example of a cache.

    Attributes:
        hidden: Hidden states in the stored type, n rows.
        token_ids: Token ids, (n,).
        pooled: The pooler's output, (d,); None without a pooler.
        labels: The example's label names.
        text: The text as it was written; None if the cache does not have it.
        source: Where the example comes from; None if the cache does not have it.
    """

    hidden: Array
    token_ids: Array
    pooled: Array | None
    labels: list[str]
    text: str | None = None
    source: Source | None = None


def cached_example(cache: Cache, location: str) -> CachedExample:
    """Read an example of a cache.

    Args:
        cache: The cache, open for reading.
        location: The example's split and index, such as `test:17`.

    Raises:
        SpaceliteError: There is no such example, or it is not embedded yet.
    """
    name, _, number = location.partition(":")
    split = cache.splits.get(name)
    if split is None or not number.isdecimal() or int(number) >= len(split):
        known = ", ".join(f"{key}:0 to {key}:{len(one) - 1}" for key, one in cache.splits.items())
        raise SpaceliteError(f"example={location}: give one of {known}", ["example"])
    row = int(number)
    if not split.done[row]:
        raise SpaceliteError(
            f"example={location} is not embedded in cache {cache.name}: run its embed command "
            "again",
            ["example"],
        )
    first, last = split.offsets[row : row + 2].tolist()
    written = texts.read(cache, name)
    return CachedExample(
        hidden=split.read_examples(row, row + 1),
        token_ids=split.read_token_ids(first, last),
        pooled=split.read_pooled(row, row + 1)[0] if split.has_pooler else None,
        labels=cache.task.label_names(split.labels[row], cache.label_names),
        text=None if written is None else written.text(row),
        source=None if written is None else written.source(row),
    )
