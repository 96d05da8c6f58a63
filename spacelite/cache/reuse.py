"""Hidden states that need not be computed: those of texts that another cache of the same backbone
and settings holds, and of texts that stand in a data set more than once.

Two texts are the same here if their token ids are: the backbone sees nothing else. A file beside
the cache records what was copied from where, so that a run that is continued keeps its plan.
"""

from __future__ import annotations

import logging
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from spacelite import files
from spacelite.cache.journal import Checked
from spacelite.cache.spec import CacheSpec
from spacelite.cache.split import digest
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError, one_line

log = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Plan:
    """Where the hidden states of the N examples of a cache come from, all splits in one sequence.

    Attributes:
        caches: Names of the caches that hidden states are copied from.
        cache: Index in `caches` for each example, (N,) int64; -1 for one that is not copied from
            another cache.
        split: The split of its text there, an index in SPLITS, (N,) int64.
        row: The index of its text in that split, (N,) int64.
        first: Index of the first example with the same token ids, (N,) int64: the only one of them
            that is computed.
    """

    caches: tuple[str, ...]
    cache: Array
    split: Array
    row: Array
    first: Array

    @classmethod
    def of_all(cls, examples: int) -> Plan:
        """Every example is computed."""
        none = np.full(examples, -1, np.int64)
        return cls((), none, none, none, np.arange(examples))

    @property
    def computed(self) -> Array:
        """The examples that are run through the backbone, in order."""
        return np.flatnonzero((self.cache < 0) & (self.first == np.arange(len(self.first))))

    @property
    def copied(self) -> Array:
        """The examples that are copied from other caches, in order."""
        return np.flatnonzero(self.cache >= 0)

    @property
    def repeated(self) -> Array:
        """The examples that are copies of an earlier example of the same cache, in order."""
        return np.flatnonzero((self.cache < 0) & (self.first < np.arange(len(self.first))))

    @property
    def reuses(self) -> bool:
        """Whether any example is not computed."""
        return len(self.computed) < len(self.first)

    @property
    def sources(self) -> dict[str, int]:
        """How many examples are copied from each cache."""
        counts = np.bincount(self.cache[self.copied], minlength=len(self.caches)).tolist()
        return {name: count for name, count in zip(self.caches, counts, strict=True) if count}

    def same(self) -> dict[int, list[int]]:
        """The examples that are written with each computed one, itself first."""
        found = {example: [example] for example in self.computed.tolist()}
        for example in self.repeated.tolist():
            found[int(self.first[example])].append(example)
        return found

    def without(self, examples: Sequence[int]) -> Plan:
        """The plan in which these examples are computed: they could not be copied."""
        cache = self.cache.copy()
        cache[list(examples)] = -1
        # An example that is computed must be the first of its kind that is.
        chosen: dict[int, int] = {}
        first = self.first.copy()
        for example in np.flatnonzero(cache < 0).tolist():
            first[example] = chosen.setdefault(int(self.first[example]), example)
        return replace(self, cache=cache, first=first)


def find(path: Path, spec: CacheSpec, ids: Sequence[Array], *, with_layers: bool) -> Plan:
    """Find the texts of a cache in the finished part of the other caches of its folder.

    Args:
        path: The cache file.
        spec: Its spec: other caches count if theirs is the same but for the data set.
        ids: The token ids of its N texts.
        with_layers: Whether the layer means are needed too.
    """
    plan = Plan.of_all(len(ids))
    first: dict[bytes, int] = {}
    for example, own in enumerate(ids):
        plan.first[example] = first.setdefault(digest(own), example)
    names: list[str] = []
    source: dict[int, tuple[int, int, int]] = {}  # first example -> cache, split, row
    others = [other for other in path.parent.glob("*.h5") if other != path and other.is_file()]
    for other in sorted(others, key=lambda one: (-one.stat().st_mtime, one.name)):
        if len(source) == len(first):
            break
        try:
            with Cache(other) as cache:
                if not cache.spec.embeds_like(spec):
                    continue
                found = {
                    first[key]: (len(names), SPLITS.index(split), row)
                    for split, row, key in _held(cache, with_layers)
                    if key in first and first[key] not in source
                }
        except SpaceliteError as error:
            log.info("%s", error)
            continue
        if found:
            names.append(other.stem)
            source |= found
    if not source:
        return plan
    none = (-1, -1, -1)
    columns = np.array([source.get(one, none) for one in plan.first.tolist()], np.int64).T
    return replace(
        plan, caches=tuple(names), **dict(zip(("cache", "split", "row"), columns, strict=True))
    )


def _held(cache: Cache, with_layers: bool) -> Iterator[tuple[str, int, bytes]]:
    """The texts of a cache whose hidden states are there: split, index and digest."""
    for name, split in cache.splits.items():
        done = split.done == 1
        if with_layers:
            means = None if cache.layers is None else cache.layers.splits[name]
            done = done & (means.done == 1) if means is not None else np.zeros(len(split), bool)
        if not done.any():
            continue
        if not split.index_is_intact():
            continue  # other token ids than those that were embedded
        for row, (key, there) in enumerate(zip(split.digests(), done.tolist(), strict=True)):
            if there:
                yield name, row, key


class Taken(NamedTuple):
    """An example of another cache whose checksums hold.

    Attributes:
        rows: Its hidden states as they are stored, n rows.
        pooled: The pooler's output, (d,) float32; None without a pooler.
        means: Its layer means, (layers, d) float16; None if they were not asked for.
    """

    rows: Checked
    pooled: Checked | None
    means: Checked | None


class Source:
    """Another cache, open for copying: reads examples one by one, as plain bytes at the offsets of
    the datasets, which is several times as fast as through HDF5. Use it as a context manager.

    Args:
        path: The cache file.
        spec: The spec of the cache that is copied into.
        with_layers: Whether layer means are copied too.

    Raises:
        SpaceliteError: The cache is not there any more, or another one.
    """

    def __init__(self, path: Path, spec: CacheSpec, with_layers: bool) -> None:
        with ExitStack() as stack:
            self._cache = stack.enter_context(Cache(path))
            if not self._cache.spec.embeds_like(spec):
                raise SpaceliteError(f"{path} was embedded with other settings")
            self._tokens = self._opened(path, stack), self._cache.byte_offsets()
            self._layers = self._cache.require_layers(complete=False) if with_layers else None
            if self._layers is not None:
                means = self._opened(self._layers.path, stack)
                self._means = means, self._layers.byte_offsets
            self._ids = {
                name: (split.offsets.tolist(), split.read_token_ids())
                for name, split in self._cache.splits.items()
            }
            self._files = stack.pop_all()

    @staticmethod
    def _opened(path: Path, stack: ExitStack) -> int:
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise SpaceliteError(f"{path} cannot be read: {error.strerror}") from error
        stack.callback(os.close, file)
        return file

    def take(self, split: str, row: int, ids: Array) -> Taken | None:
        """An example; None if it is not there any more, or damaged.

        Args:
            split: Its split.
            row: Its index in that split.
            ids: Its token ids, (n,).
        """
        own = self._cache.splits.get(split)
        if own is None or row >= len(own) or not own.done[row]:
            return None
        offsets, known = self._ids[split]
        low, high = offsets[row : row + 2]
        if not np.array_equal(known[low:high], ids):
            return None
        size = own.stored.row_bytes(own.width)
        rows = self._read(self._tokens, split, "tokens", low * size, (high - low) * size)
        if zlib.crc32(rows) != own.crc32[row]:
            return None
        pooled = means = None
        if own.pooled_crc32 is not None:
            size = 4 * own.width
            content = self._read(self._tokens, split, "pooled", row * size, size)
            if zlib.crc32(content) != own.pooled_crc32[row]:
                return None
            pooled = Checked(np.frombuffer(content, np.float32), int(own.pooled_crc32[row]))
        if self._layers is not None:
            of_layers = self._layers.splits[split]
            shape = (of_layers.layers, of_layers.width)
            size = 2 * math.prod(shape)
            content = self._read(self._means, split, "means", row * size, size)
            if not of_layers.done[row] or zlib.crc32(content) != of_layers.crc32[row]:
                return None
            crc32 = int(of_layers.crc32[row])
            means = Checked(np.frombuffer(content, np.float16).reshape(shape), crc32)
        return Taken(
            Checked(np.frombuffer(rows, own.dtype).reshape(high - low, -1), int(own.crc32[row])),
            pooled,
            means,
        )

    @staticmethod
    def _read(
        file: tuple[int, dict[str, dict[str, int]]], split: str, dataset: str, start: int, size: int
    ) -> bytes:
        """Bytes of a dataset; fewer, whose checksum will not match, if they cannot be read."""
        opened, offsets = file
        try:
            return os.pread(opened, size, offsets[split][dataset] + start)
        except OSError as error:
            log.info("reading %s %s failed: %s", split, dataset, error.strerror)
            return b""

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exception: object) -> None:
        self._files.close()


def plan_path(path: Path) -> Path:
    """The file beside a cache that records what was copied from where."""
    return path.with_suffix(".reuse.npz")


def write(path: Path, key: str, plan: Plan) -> None:
    """Record the plan of a cache. Raises SpaceliteError if the file cannot be written."""
    own = plan_path(path)
    try:
        with files.atomic_write(own) as partial, partial.open("wb") as file:
            np.savez_compressed(
                file,
                key=np.array(key),
                caches=np.array(plan.caches, np.str_),
                sources=np.stack([plan.cache, plan.split, plan.row, plan.first]),
            )
    except OSError as error:
        raise SpaceliteError(
            f"writing {own} failed: {error.strerror}; fix that and embed again"
        ) from error


def read(path: Path, key: str, examples: int) -> Plan:
    """The plan of a cache of N examples. A cache without one was computed as a whole; if the file
    is damaged, that is assumed and logged."""
    own = plan_path(path)
    if not own.exists():
        return Plan.of_all(examples)
    try:
        with np.load(own, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                raise ValueError("it belongs to another cache")
            plan = Plan(tuple(arrays["caches"].tolist()), *arrays["sources"].astype(np.int64))
        _check(plan, examples)
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        # numpy's own message suggests unpickling the file.
        reason = "it is not an npz file" if "pickle" in str(error) else one_line(error, 80)
        log.warning("%s is damaged (%s): what is missing is computed", own, reason)
        return Plan.of_all(examples)
    return plan


def _check(plan: Plan, examples: int) -> None:
    """Raise ValueError if a plan that was read cannot be that of N examples."""
    order = np.arange(examples)
    if any(len(column) != examples for column in (plan.cache, plan.split, plan.row, plan.first)):
        raise ValueError("it is of other texts")
    copied = plan.cache >= 0
    if (
        (plan.cache >= len(plan.caches)).any()
        or not np.isin(plan.split[copied], range(len(SPLITS))).all()
        or (plan.row[copied] < 0).any()
        or (plan.first < 0).any()
        or (plan.first > order).any()
        or not np.isin(plan.first[plan.repeated], plan.computed).all()
    ):
        raise ValueError("it names examples that there are not")
