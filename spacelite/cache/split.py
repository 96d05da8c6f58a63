"""One split of a cache: its labels and token ids, and its hidden states with their checksums."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spacelite.cache.dtypes import StoredType
from spacelite.errors import SpaceliteError
from spacelite.tasks import task_of

if TYPE_CHECKING:
    from spacelite.cache.layers import LayerMeans

DIGEST_BYTES = 16  # of the hash of a text's token ids
CHECKERS = 2  # threads that compute checksums while further rows are read
CHECKED_AT_ONCE = 2**23  # bytes that one of them checks at a time

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SplitIndex:
    """What a split holds besides hidden states, known before the backbone runs.

    Attributes:
        offsets: (N+1,) int64; the tokens of example i are rows offsets[i]:offsets[i+1].
        labels: (N,) int64; (N, C) int64 of 0 and 1 in a multi-label task.
        token_ids: (T,) int32.
    """

    offsets: Array
    labels: Array
    token_ids: Array

    @property
    def crc32(self) -> int:
        """CRC-32 of the bytes of offsets, labels and token ids, in this order."""
        value = 0
        for array in (self.offsets, self.labels, self.token_ids):
            value = zlib.crc32(np.ascontiguousarray(array).data, value)
        return value


def digest(ids: Array) -> bytes:
    """What identifies a text for the backbone: a hash of its token ids (n,)."""
    content = np.ascontiguousarray(ids, np.int32).data
    return blake2b(content, digest_size=DIGEST_BYTES).digest()


class CachedSplit:
    """One split of an open cache: N examples, T tokens.

    Attributes:
        name: Name of the split.
        cache: Name of the cache.
        offsets: (N+1,) int64; the tokens of example i are rows offsets[i]:offsets[i+1].
        labels: (N,) int64; (N, C) int64 of 0 and 1 in a multi-label task.
        done: (N,) uint8; 1 if the example's hidden states are written.
        tokens: T, the number of tokens.
        width: d, the hidden width.
        dtype: numpy type of the stored values; `stored` encodes and decodes them.
        has_pooler: Whether the pooler's outputs are cached.
        crc32: (N,) uint32; the stored checksum of each example's hidden states.
        pooled_crc32: (N,) uint32; that of its pooler's output; None without a pooler.
    """

    def __init__(
        self,
        group: Any,
        stored: StoredType,
        name: str,
        cache: str,
        layers: Callable[[], LayerMeans],
    ) -> None:
        self._group = group
        self._layers = layers
        self.stored = stored
        self.name, self.cache = name, cache
        self.offsets: Array = group["offsets"][...]
        self.labels: Array = group["labels"][...]
        self.done: Array = group["done"][...]
        self.tokens, self._row_values = group["tokens"].shape
        self.width = self._row_values - stored.extra
        self.dtype: Any = group["tokens"].dtype
        self.has_pooler = "pooled" in group
        self.crc32: Array = group["crc32"][...]
        self.pooled_crc32: Array | None = group["pooled_crc32"][...] if self.has_pooler else None
        self._unchecked = np.ones(len(self.labels), bool)  # examples that `read_examples` checks

    @property
    def lengths(self) -> Array:
        """Number of tokens of each example, (N,) int64."""
        return np.diff(self.offsets)

    def label_counts(self, classes: int) -> Array:
        """The number of examples with each of C labels, (C,) int64."""
        return task_of(self.labels).label_counts(self.labels, classes)

    def digests(self) -> list[bytes]:
        """The `digest` of each example, N."""
        ids = self.read_token_ids()
        bounds = itertools.pairwise(self.offsets.tolist())
        return [digest(ids[start:stop]) for start, stop in bounds]

    def read_token_ids(self, first: int = 0, last: int | None = None) -> Array:
        """Token ids of rows first:last (of all rows by default), int32."""
        ids: Array = self._group["token_ids"][first:last]
        return ids

    @property
    def index_crc32(self) -> int:
        """The stored checksum of offsets, labels and token ids."""
        return int(self._group.attrs["index_crc32"])

    def index_is_intact(self) -> bool:
        """Whether offsets, labels and token ids still match their stored checksum."""
        found = SplitIndex(self.offsets, self.labels, self.read_token_ids())
        return found.crc32 == self.index_crc32

    @property
    def pooled(self) -> Array:
        """The pooler's outputs, (N, d) float32, as `read_pooled` reads them."""
        return self.read_pooled(0, len(self))

    def read_pooled(self, first: int, last: int) -> Array:
        """The pooler's outputs of examples first:last, after checking their checksums, (n, d)
        float32. Raises SpaceliteError if one is damaged, or if the backbone has no pooler."""
        self.require_pooler()
        pooled: Array = self._group["pooled"][first:last]
        self._refuse(self._damaged_pooled(first, pooled))
        return pooled

    @property
    def layer_means(self) -> Array:
        """The means of all layers side by side, (N, layers * d) float16, after checking their
        checksums. Raises SpaceliteError if one is damaged, or if the cache has none."""
        return self._layers().read(0, len(self))

    def require_pooler(self) -> None:
        """Raise SpaceliteError if the backbone has no pooler."""
        if not self.has_pooler:
            raise SpaceliteError(
                "this cache's backbone has no pooler: use pooling=first, last or mean", ["pooling"]
            )

    def read_tokens(self, first: int, last: int, into: Array | None = None) -> Array:
        """Read rows first:last as they are stored, into `into` or (by default) new memory. Their
        checksums are not checked."""
        rows = np.empty((last - first, self._row_values), self.dtype) if into is None else into
        if last > first:
            self._group["tokens"].read_direct(rows, np.s_[first:last])
        return rows

    def read_examples(self, first: int, last: int, into: Array | None = None) -> Array:
        """Read the rows of examples first:last as they are stored, and check the checksum of each
        example that this object has not read before.

        Args:
            first: Index of the first example.
            last: Index after the last example.
            into: Memory for the rows; by default new.

        Raises:
            SpaceliteError: An example is damaged.
        """
        start, stop = int(self.offsets[first]), int(self.offsets[last])
        rows = np.empty((stop - start, self._row_values), self.dtype) if into is None else into
        most = max(1, CHECKED_AT_ONCE // self.stored.row_bytes(self.width))
        checks: list[Future[list[int]]] = []
        with ThreadPoolExecutor(CHECKERS) as pool:  # crc32 lets other threads run meanwhile
            for low, high in spans(self.offsets[first : last + 1], most):
                low, high = first + low, first + high
                begin, end = int(self.offsets[low]), int(self.offsets[high])
                part = self.read_tokens(begin, end, rows[begin - start : end - start])
                if self._unchecked[low:high].any():
                    checks.append(pool.submit(self._damaged_rows, low, high, part))
        for check in checks:
            self._refuse(check.result())
        self._unchecked[first:last] = False
        return rows

    def damaged(self, first: int, last: int) -> list[int]:
        """Which of the examples first:last no longer match their checksums."""
        rows = self.read_tokens(int(self.offsets[first]), int(self.offsets[last]))
        found = self._damaged_rows(first, last, rows)
        if self.has_pooler:
            found += self._damaged_pooled(first, self._group["pooled"][first:last])
        return sorted(set(found))

    def _damaged_rows(self, first: int, last: int, rows: Array) -> list[int]:
        size = self.stored.row_bytes(self.width)
        ends = (self.offsets[first : last + 1] - self.offsets[first]) * size
        return mismatches(first, rows, ends, self.crc32[first:last])

    def _damaged_pooled(self, first: int, pooled: Array) -> list[int]:
        ends = np.arange(len(pooled) + 1) * self.width * pooled.itemsize
        expected = self._group["pooled_crc32"][first : first + len(pooled)]
        return mismatches(first, pooled, ends, expected)

    def _refuse(self, damaged: list[int]) -> None:
        if damaged:
            raise SpaceliteError(
                f"{self.name} example {damaged[0]} of cache {self.cache} is damaged: run spacelite "
                f"cache verify {self.cache}, then embed again to compute only what is damaged"
            )

    def read_hidden(
        self, first: int, last: int, rows: Array | None = None, into: Array | None = None
    ) -> Array:
        """Hidden states of the tokens of examples first:last, (n, d) float32.

        Args:
            first: Index of the first example.
            last: Index after the last example.
            rows: Memory for the rows as they are stored; by default new.
            into: Memory for the hidden states; by default new.

        Raises:
            SpaceliteError: An example is damaged.
        """
        return self.stored.decode(self.read_examples(first, last, rows), into)

    def __len__(self) -> int:
        return len(self.labels)


def mismatches(first: int, values: Array, bounds: Array, expected: Array) -> list[int]:
    """The examples, numbered from `first`, whose bytes do not have the expected checksum; those of
    the i-th are bounds[i]:bounds[i+1]."""
    content = values.data.cast("B")
    pieces = itertools.pairwise(bounds.tolist())
    return [
        number
        for number, ((low, high), crc32) in enumerate(
            zip(pieces, expected.tolist(), strict=True), first
        )
        if zlib.crc32(content[low:high]) != crc32
    ]


def spans(offsets: npt.NDArray[np.int64], rows: int = 1 << 15) -> Iterator[tuple[int, int]]:
    """Divide examples into spans first:last of at most `rows` tokens, or one longer example."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + rows, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last
