"""The hidden states of the texts of a split, with their labels and token ids: in a cache, where
they have checksums, or in memory."""

from __future__ import annotations

import itertools
import logging
import os
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from spacelite.cache.dtypes import DTYPES, StoredType, stored_type
from spacelite.cache.hdf5 import DataFile
from spacelite.cache.spec import CacheSpec
from spacelite.data.splits import DIGEST, Digests, digests
from spacelite.errors import SpaceliteError
from spacelite.tasks import find_task
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.cache.store import Cache

log = logging.getLogger(__name__)

NO_TOKEN = -1  # in place of a token id that is not known
BEGINNING = 32  # bytes of an example that tell it from others of the same checksum
DIGEST_BYTES = DIGEST.itemsize  # of the hash of a text's token ids
DIGESTED_AT_ONCE = 2**20  # token ids in memory
CHECKERS = 2  # threads that compute checksums while further rows are read
CHECKED_AT_ONCE = 2**23  # bytes that one of them checks at a time


NO_NUMBERS: Array = np.empty(0, np.int64)
NO_VECTORS: Array = np.empty((0, 0), np.float32)


class DamagedCacheError(SpaceliteError):
    """A cache file is damaged, or none, which embedding again alone cannot repair."""


@dataclass(frozen=True)
class SplitIndex:
    """What a split holds besides hidden states, known before the backbone runs."""

    offsets: Array  # (N+1,) int64; the tokens of example i are rows offsets[i]:offsets[i+1]
    labels: Array  # (N,) int64; (N, C) int64 of 0 and 1 in a multi-label task
    token_ids: Array  # (T,) int32

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


class Checked(NamedTuple):
    """Values to be written, in one piece, with the CRC-32 of their bytes."""

    values: Array
    crc32: int

    @classmethod
    def of(cls, values: Array) -> Checked:
        """Values with their checksum; while it is computed, other threads run."""
        values = np.ascontiguousarray(values)
        return cls(values, zlib.crc32(values.data.cast("B")))

    @property
    def content(self) -> memoryview:
        """The bytes of the values."""
        return self.values.data.cast("B")


class Dataset:
    """Values of each of N examples, one example after another in a file that was laid out whole,
    with a checksum and a mark each. Nothing else knows where in the file they are.

    Attributes:
        path, cache, split, name: The file; which dataset of which split of which cache it is.
        shape: Shape of all values together.
        dtype: Their numpy type.
        crc32: The stored checksums, (N,) uint32.
        done: 1 for an example that is written, (N,) uint8.
    """

    def __init__(
        self,
        file: DataFile,
        split: str,
        name: str,
        cache: str,
        done: Array | None = None,
        offsets: Array | None = None,
    ) -> None:
        """Of an open file; `done` if others have the same marks, and `offsets` (N + 1,) if the rows
        of example i are offsets[i]:offsets[i+1], and not row i alone."""
        self.path, self.cache, self.split, self.name = file.path, cache, split, name
        self._file, self._values, place = file, f"{split}/{name}", file.places[f"{split}/{name}"]
        self.shape, self.dtype = place.shape, np.dtype(place.dtype)
        self.done = read_done(file, split) if done is None else done
        own = f"{split}/{name}_crc32"
        self._checksums = own if own in file.places else f"{split}/crc32"
        self.crc32: Array = file.read(self._checksums)
        # The values of example i are rows rows[i]:rows[i+1].
        self._rows: Array = np.arange(len(self.done) + 1) if offsets is None else offsets
        self._row_bytes = place.row_bytes

    def place(self, example: int) -> tuple[Path, int, int]:
        """The file of an example's values, where they begin in it, and their number of bytes."""
        low, high = self._rows[example : example + 2].tolist()
        file, offset = self._file.locate(self._values, low)
        return file.path, offset, (high - low) * self._row_bytes

    def checksum_mark(self, example: int, crc32: int) -> tuple[Path, int, bytes]:
        """The file, the offset and the bytes that record an example's checksum."""
        file, offset = self._file.locate(self._checksums, example)
        return file.path, offset, np.uint32(crc32).tobytes()

    def done_mark(self, example: int, done: bool) -> tuple[Path, int, bytes]:
        """The file, the offset and the byte that say whether an example is written."""
        file, offset = self._file.locate(f"{self.split}/done", example)
        return file.path, offset, bytes([done])

    def read(self, first: int, last: int) -> Array:
        """The values of examples first:last, after checking their checksums. Raises SpaceliteError
        if an example is damaged."""
        values = self._read(first, last)
        self.refuse(self.damaged(first, last, values))
        return values

    def content(self, example: int, most: int | None = None) -> bytes:
        """The bytes of an example, or the first ones; fewer, whose checksum will not match, if they
        cannot be read."""
        low, high = self._rows[example : example + 2].tolist()
        (file, offset), size = self._file.locate(self._values, low), (high - low) * self._row_bytes
        try:
            return os.pread(file.handle, size if most is None else min(size, most), offset)
        except OSError as error:
            log.info("reading %s failed: %s", file.path, error.strerror)
            return b""

    def damaged(self, first: int, last: int, values: Array | None = None) -> list[int]:
        """Which of the examples first:last, whose values may be read already, do not match their
        checksums."""
        content = (self._read(first, last) if values is None else values).data.cast("B")
        rows = self._rows[first : last + 1] - self._rows[first]
        pieces = itertools.pairwise((rows * self._row_bytes).tolist())
        return [
            example
            for example, ((low, high), crc32) in enumerate(
                zip(pieces, self.crc32[first:last].tolist(), strict=True), first
            )
            if zlib.crc32(content[low:high]) != crc32
        ]

    def refuse(self, damaged: list[int]) -> None:
        """Raise SpaceliteError if there are damaged examples."""
        if damaged:
            raise damage(self.cache, self.split, damaged[0], means=self.name == "means")

    def _read(self, first: int, last: int) -> Array:
        low, high = self._rows[[first, last]].tolist()
        return self._file.read(self._values, low, high)


def read_done(file: DataFile, split: str) -> Array:
    """1 for each example of a split that is written, else 0, (N,) uint8."""
    # What is neither was damaged.
    return np.equal(file.read(f"{split}/done"), 1).astype(np.uint8)


def damage(cache: str, split: str, example: int, *, means: bool = False) -> SpaceliteError:
    """What is raised if the hidden states of an example, or its layer means, are damaged."""
    what = f"{split} example {example} of cache {cache}"
    return SpaceliteError(
        f"{f'the layer means of {what} are' if means else f'{what} is'} damaged: run spacelite "
        f"cache verify {cache}, then embed again to compute only what is damaged"
    )


class CachedSplit:
    """One split of an open cache: N examples, T tokens of width d. Offsets and labels are those of
    its `SplitIndex`."""

    def __init__(self, cache: Cache, name: str) -> None:
        self._open, self.cache, self.name = cache, cache.name, name
        self._file = file = cache.file
        self.stored = DTYPES[cache.spec.dtype]
        self.offsets: Array = file.read(f"{name}/offsets")
        self.labels: Array = file.read(f"{name}/labels")
        # 1 for an example whose hidden states are written, (N,) uint8.
        self.done: Array = read_done(file, name)
        self.tokens, values = file.places[f"{name}/tokens"].shape
        self.width = self.stored.hidden_width(values)
        self.has_pooler = f"{name}/pooled" in file.places
        # The stored checksum of offsets, labels and token ids.
        self.index_crc32: int = file.attributes[name]["index_crc32"]
        self._check(cache.spec)
        # What is written of each example.
        self.datasets = {
            of: Dataset(file, name, of, self.cache, self.done, offsets)
            for of, offsets in (("tokens", self.offsets), ("pooled", None))
            if of == "tokens" or self.has_pooler
        }
        self._unchecked = np.ones(len(self.labels), bool)  # examples that `read_examples` checks
        self._index_is_intact = False  # what `index_is_intact` found

    def _check(self, spec: CacheSpec) -> None:
        """Raise ValueError if offsets do not divide the tokens, or labels have no name."""
        ends = (int(self.offsets[0]), int(self.offsets[-1]))
        if ends != (0, self.tokens) or (self.offsets[1:] <= self.offsets[:-1]).any():
            raise ValueError(f"the offsets of {self.name} do not divide its tokens")
        if not find_task(spec.task, self.labels).check(self.labels, len(spec.label_names)):
            raise ValueError(f"the labels of {self.name} are not those of its settings")

    @property
    def lengths(self) -> Array:
        """Number of tokens of each example, (N,) int64."""
        return np.diff(self.offsets)

    @property
    def has_token_ids(self) -> bool:
        """Whether its token ids are known: those of hidden states that were imported need not
        be."""
        return bool((self.read_token_ids(0, 1) != NO_TOKEN).all())

    def digests(self) -> Digests:
        """What identifies each example, (N,): the `digest` of its token ids, or, where these are
        not known, one of its checksum and its first numbers."""
        if not self.has_token_ids:
            tokens = self.datasets["tokens"]
            return digests(
                crc32.tobytes() + tokens.content(example, BEGINNING)
                for example, crc32 in enumerate(tokens.crc32)
            )
        return digests(self._token_ids_of_each())

    def _token_ids_of_each(self) -> Iterator[memoryview]:
        for first, last in spans(self.offsets, DIGESTED_AT_ONCE):
            bounds = self.offsets[first : last + 1].tolist()
            ids = self.read_token_ids(bounds[0], bounds[-1])
            for start, stop in itertools.pairwise(bounds):
                yield ids[start - bounds[0] : stop - bounds[0]].data

    def read_token_ids(self, first: int = 0, last: int | None = None) -> Array:
        """Token ids of rows first:last (of all rows by default), int32. Raises SpaceliteError if
        they are damaged."""
        self.check_index()
        return self._file.read(f"{self.name}/token_ids", first, last)

    def index_is_intact(self) -> bool:
        """Whether offsets, labels and token ids match their stored checksum. If so, they are not
        read again to find out."""
        if not self._index_is_intact:
            self._index_is_intact = all(
                self._index_of(file).crc32 == file.attributes[self.name]["index_crc32"]
                for file in self._file.of_split(self.name)
            )
        return self._index_is_intact

    def _index_of(self, file: DataFile) -> SplitIndex:
        """What a file of the cache holds of the split besides hidden states."""
        names = ("offsets", "labels", "token_ids")
        return SplitIndex(*(file.read(f"{self.name}/{name}") for name in names))

    def check_index(self) -> None:
        """Raise SpaceliteError if offsets, labels or token ids are damaged, which embedding again
        cannot repair."""
        if not self.index_is_intact():
            raise DamagedCacheError(
                f"{self._file.path}: the offsets, labels or token ids of {self.name} are damaged: "
                f"remove the cache (spacelite cache remove {self.cache}) and run embed again"
            )

    def read_index(self) -> SplitIndex:
        """Offsets, labels and token ids."""
        return SplitIndex(self.offsets, self.labels, self.read_token_ids())

    @property
    def pooled(self) -> Array:
        """The pooler's outputs, (N, d) float32, as `read_pooled` reads them."""
        return self.read_pooled(0, len(self))

    def read_pooled(self, first: int, last: int) -> Array:
        """The pooler's outputs of examples first:last, after checking their checksums, (n, d)
        float32. Raises SpaceliteError if one is damaged, or if the backbone has no pooler."""
        self.require_pooler()
        return self.datasets["pooled"].read(first, last)

    @property
    def layer_means(self) -> Array:
        """The means of all layers side by side, (N, layers * d) float16, after checking their
        checksums. Raises SpaceliteError if one is damaged, or if the cache has none."""
        means = self._open.require_layers().splits[self.name]
        return means.read(0, len(self)).reshape(len(self), -1)

    def require_pooler(self) -> None:
        """Raise SpaceliteError if the pooler's outputs are not there."""
        if not self.has_pooler:
            whose = "this cache's backbone has no pooler"
            if self._open.spec.reduce is not None:
                whose = "this cache, which is reduced, has no pooler's outputs"
            raise SpaceliteError(f"{whose}: use pooling=first, last or mean", ["pooling"])

    def read_tokens(self, first: int, last: int, into: Array | None = None) -> Array:
        """Read rows first:last as they are stored, into `into` or (by default) new memory. Their
        checksums are not checked."""
        rows = self.stored.memory(last - first, self.width) if into is None else into
        self._file.read_into(f"{self.name}/tokens", first, rows)
        return rows

    def read_examples(self, first: int, last: int, into: Array | None = None) -> Array:
        """As `read_parts`, of the examples first:last."""
        return self.read_parts([(first, last)], into)

    def read_parts(self, parts: Sequence[tuple[int, int]], into: Array | None = None) -> Array:
        """Read the rows of the examples first:last of each part end to end as they are stored, into
        `into` or (by default) new memory, and check the checksum of each example that this object
        has not read before. Raises SpaceliteError if one is damaged."""
        bounds = [tuple(self.offsets[[first, last]].tolist()) for first, last in parts]
        count = sum(stop - start for start, stop in bounds)
        rows = self.stored.memory(count, self.width) if into is None else into
        if len(parts) > 1:
            for start, stop in bounds:
                self._file.advise(f"{self.name}/tokens", start, stop)
        most = max(1, CHECKED_AT_ONCE // self.stored.row_bytes(self.width))
        tokens, checks = self.datasets["tokens"], list[Future[list[int]]]()
        end = 0
        with ThreadPoolExecutor(CHECKERS) as pool:  # crc32 lets other threads run meanwhile
            for first, last in parts:
                for low, high in spans(self.offsets[first : last + 1], most):
                    low, high = first + low, first + high
                    start, stop = self.offsets[[low, high]].tolist()
                    begin, end = end, end + stop - start
                    read = self.read_tokens(start, stop, rows[begin:end])
                    if self._unchecked[low:high].any():
                        checks.append(pool.submit(tokens.damaged, low, high, read))
        for check in checks:
            tokens.refuse(check.result())
        for first, last in parts:
            self._unchecked[first:last] = False
        return rows

    def read_hidden(
        self, first: int, last: int, rows: Array | None = None, into: Array | None = None
    ) -> Array:
        """Hidden states of the tokens of examples first:last, (n, d) float32; `rows` and `into` are
        memory for the rows as they are stored and for the result."""
        return self.stored.decode(self.read_examples(first, last, rows), into)

    def __len__(self) -> int:
        return len(self.labels)


def summary_token(padding_side: str, *, causal: bool, skip_first: bool) -> str:
    """The token that sums a text up: the `last` if no other has seen the whole text, if the first
    is not kept, or if the tokenizer pads on the left (as XLNet's does, whose classification token
    comes last), else the `first`."""
    return "last" if causal or skip_first or padding_side == "left" else "first"


@dataclass(frozen=True)
class TokenRows:
    """N texts of T tokens in all, in memory; read like a split of a cache. What is not known is
    empty. Layers lie side by side."""

    rows: Array  # hidden states of all texts end to end as they are stored, (T, r)
    offsets: Array  # the rows of text i are offsets[i]:offsets[i+1], (N + 1,)
    stored: StoredType  # of `rows`
    token_ids: Array = field(default_factory=lambda: NO_NUMBERS)  # (T,)
    pooled: Array = field(default_factory=lambda: NO_VECTORS)  # the pooler's, (N, d) float32
    layer_means: Array = field(default_factory=lambda: NO_VECTORS)  # (N, layers * d)
    layer_states: Array = field(default_factory=lambda: NO_VECTORS)  # (T, layers * d)
    labels: Array = field(default_factory=lambda: NO_NUMBERS)  # (N,) or (N, C) int64
    pooling: str = "first"  # the token that sums a text up: `first` or `last`

    @classmethod
    def of_batch(
        cls,
        stored: StoredType,
        hidden: Array,
        pooled: Array | None = None,
        means: Array | None = None,
        token_ids: Array | None = None,
    ) -> TokenRows:
        """B texts of n tokens each: hidden states (B, n, r) as they are stored,
        the pooler's outputs (B, d), layer means (B, layers, d) and token ids (B, n)."""
        count, length, values = hidden.shape
        return cls(
            hidden.reshape(-1, values),
            np.arange(0, (count + 1) * length, length),
            stored,
            NO_NUMBERS if token_ids is None else token_ids.reshape(-1),
            NO_VECTORS if pooled is None else pooled,
            NO_VECTORS if means is None else means.reshape(count, -1),
        )

    @classmethod
    def of_ids(cls, kept: Sequence[Array]) -> TokenRows:
        """N texts by their token ids alone: their hidden states have no dimension."""
        ids, stored = np.concatenate(kept), stored_type("float32")
        offsets = offsets_of(np.array([len(of_text) for of_text in kept]))
        return cls(np.empty((len(ids), 0), stored.numpy), offsets, stored, ids)

    @property
    def tokens(self) -> int:
        """Number of tokens, T."""
        return len(self.rows)

    @property
    def width(self) -> int:
        """Hidden width, d."""
        return self.stored.hidden_width(self.rows.shape[1])

    @property
    def lengths(self) -> Array:
        """Tokens of each text, (N,)."""
        return np.diff(self.offsets)

    def require_pooler(self) -> None:
        """Raise SpaceliteError if there are no outputs of a pooler."""
        if not self.pooled.shape[1]:
            raise SpaceliteError(
                "pooling=pooler: these hidden states come without a pooler's outputs: choose "
                "another pooling",
                ["pooling"],
            )

    def read_token_ids(self) -> Array:
        """The token ids, (T,)."""
        return self.token_ids

    def read_examples(self, first: int, last: int) -> Array:
        """Rows of texts first:last."""
        return self.rows[self.offsets[first] : self.offsets[last]]

    def part(self, examples: Array) -> TokenRows:
        """Some of the texts, (n,) indices, copied."""
        index = tokens_of(self.offsets, examples)

        def some(values: Array, at: Array) -> Array:
            return values[at] if len(values) else values

        return replace(
            self,
            rows=self.rows[index],
            offsets=offsets_of(self.lengths[examples]),
            token_ids=some(self.token_ids, index),
            pooled=some(self.pooled, examples),
            layer_means=some(self.layer_means, examples),
            layer_states=some(self.layer_states, index),
            labels=some(self.labels, examples),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1


def spans(offsets: npt.NDArray[np.int64], rows: int = 1 << 15) -> Iterator[tuple[int, int]]:
    """Divide examples into spans first:last of at most `rows` tokens, or one longer example."""
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + rows, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def offsets_of(lengths: Array) -> Array:
    """The index of each text's first token, and at the end T, (N + 1,) int64."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def tokens_of(offsets: Array, examples: Array) -> Array:
    """The rows of the tokens of some examples end to end, (n,)."""
    lengths = np.diff(offsets)[examples]
    ends = np.cumsum(lengths)
    first = offsets[:-1][examples] - (ends - lengths)
    return np.repeat(first, lengths) + np.arange(int(lengths.sum()))
