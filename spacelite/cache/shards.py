"""Caches of several files.

A cache that is larger than a shard is a folder, at the path that the file would have: of shards,
each a cache file of some of the examples, in their order, and of a manifest that says which. The
division is a function of the texts and settings alone. It is written first, as `plan.json`; each
shard is then computed on its own, by any process, in any order; and the manifest is written once
all are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spacelite import files
from spacelite.cache.hdf5 import SHARD, DataFile, JoinedFile
from spacelite.cache.spec import CacheSpec
from spacelite.errors import SpaceliteError, one_line
from spacelite.types import Array

FORMAT = 1  # of manifests
MANIFEST, PLAN = "manifest.json", "plan.json"


class UnfinishedCacheError(SpaceliteError):
    """A cache of several shards has no manifest yet."""


@dataclass(frozen=True)
class Shard:
    """Some of the examples of a cache, in a file of their own."""

    number: int  # from 1
    count: int  # of all shards
    examples: Mapping[str, tuple[int, int]]  # of each split, those from the first to the last
    tokens: int
    bytes: int | None = None  # size of the file; None before the cache is finished
    crc32: str | None = None  # of its metadata, labels and offsets, as `bytes`

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"shard-{self.number:05}.h5"

    @property
    def before(self) -> dict[str, int]:
        """How many examples of each split lie in earlier shards."""
        return {name: first for name, (first, _) in self.examples.items()}

    @property
    def sizes(self) -> dict[str, int]:
        """The number of its examples of each split."""
        return {name: last - first for name, (first, last) in self.examples.items()}

    @property
    def label(self) -> str:
        """Which shard it is, as its file says it: `3/8`."""
        return f"{self.number}/{self.count}"


@dataclass(frozen=True)
class Manifest:
    """Which examples of a cache are in which of its files.

    Attributes:
        spec: Of the cache.
        shards: In the order of their examples.
        size: What a file was to have at most, in bytes; None if their number was given.
        layers: Whether each file has one of layer means beside it, or is to have it.
    """

    spec: CacheSpec
    shards: tuple[Shard, ...]
    size: int | None = None
    layers: bool = False

    @property
    def splits(self) -> dict[str, int]:
        """The number of examples of each split."""
        return {name: last for shard in self.shards for name, (_, last) in shard.examples.items()}

    @property
    def tokens(self) -> int:
        """Number of tokens of all shards."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def is_finished(self) -> bool:
        """Whether every file was written."""
        return all(shard.crc32 is not None for shard in self.shards)

    @property
    def parts(self) -> list[Mapping[str, tuple[int, int]]]:
        """The examples of each shard."""
        return [shard.examples for shard in self.shards]

    def write(self, folder: Path) -> None:
        """Write the plan, or the manifest of a finished cache in its place. Raises
        SpaceliteError."""
        path = folder / (MANIFEST if self.is_finished else PLAN)
        content = {
            "format": FORMAT,
            "spec": self.spec.as_json(),
            "shard_size": self.size,
            "layers": self.layers,
            "shards": [
                {
                    "file": shard.name,
                    "examples": {name: [*part] for name, part in shard.examples.items()},
                    "tokens": shard.tokens,
                    "bytes": shard.bytes,
                    "crc32": shard.crc32,
                }
                for shard in self.shards
            ],
        }
        with files.writing(path, "; fix that, and run the command again to continue"):
            files.write_json(path, content)
            if self.is_finished:
                (folder / PLAN).unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a cache, or, before it is finished, its plan. Raises SpaceliteError if
        there is neither, or if it is damaged or of a later version."""
        path = folder / MANIFEST
        if not path.exists():
            path = folder / PLAN
        try:
            content = files.read_json(path)
            files.require_format(path, content["format"], FORMAT)
            if files.CHECKSUM not in content:
                raise ValueError("it has no checksum")
            shards = tuple(
                Shard(
                    number,
                    len(content["shards"]),
                    {name: (int(low), int(high)) for name, (low, high) in of["examples"].items()},
                    int(of["tokens"]),
                    of["bytes"],
                    of["crc32"],
                )
                for number, of in enumerate(content["shards"], 1)
            )
            named = [of["file"] for of in content["shards"]]
            manifest = cls(
                CacheSpec.from_json(content["spec"]),
                shards,
                content["shard_size"],
                content["layers"],
            )
            if not shards or named != [shard.name for shard in shards] or not manifest._tiles():
                raise ValueError("its shards are not parts of a cache")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpaceliteError(
                f"{path} is missing or damaged ({one_line(error, 80)}): remove the cache "
                f"(spacelite cache remove {folder.stem}) and embed again"
            ) from error
        return manifest

    def _tiles(self) -> bool:
        """Whether each example of a split is in one shard, in their order."""
        ends: dict[str, int] = {}
        for shard in self.shards:
            for name, (first, last) in shard.examples.items():
                if first != ends.get(name, 0) or last <= first:
                    return False
                ends[name] = last
        return bool(ends)

    def finished(self, folder: Path, *, layers: bool) -> Manifest:
        """The same, once all files are there. Raises as `DataFile`."""
        shards = []
        for shard in self.shards:
            with DataFile(folder / shard.name) as file:
                size = file.path.stat().st_size
                shards.append(replace(shard, bytes=size, crc32=file.crc32))
        return replace(self, shards=tuple(shards), layers=layers)

    @property
    def words(self) -> str:
        """How the cache is divided: `8 shards of about 4.0 GB`."""
        size = "" if self.size is None else f" of at most {files.human_bytes(self.size)}"
        return f"{len(self.shards):,} shard{'s' * (len(self.shards) > 1)}{size}"


def divide(
    spec: CacheSpec,
    splits: Mapping[str, int],
    lengths: Array,
    example_bytes: Array,
    *,
    size: int | None = None,
    count: int | None = None,
    layers: bool = False,
) -> Manifest:
    """Divide N examples of all splits, in one sequence, among `count` files of about the same size,
    or among as few as hold at most `size` bytes each.

    Args:
        splits: The number of examples of each split, in order.
        lengths: Tokens of each example, (N,) int64.
        example_bytes: What each takes in its file, (N,) int64.

    Raises SpaceliteError if there are fewer examples than files, or one is larger than `size`.
    """
    examples, ends = len(lengths), np.cumsum(example_bytes)
    if count is not None and count > examples:
        raise SpaceliteError(
            f"shard: {count:,} shards for {examples:,} texts: give at most as many", ["shard"]
        )
    if size is not None and (largest := int(example_bytes.max())) > size:
        raise SpaceliteError(
            f"shard_size={files.human_bytes(size)}: the longest text needs "
            f"{files.human_bytes(largest)}: give at least that",
            ["shard_size"],
        )
    shards = count or max(1, -(-int(ends[-1]) // (size or 1)))
    while True:
        limits = ends[-1] * np.arange(1, shards) // shards
        # At least one example in each.
        cuts = np.maximum.accumulate(np.searchsorted(ends, limits) + 1 - np.arange(1, shards))
        cuts = np.minimum(cuts + np.arange(1, shards), examples - shards + np.arange(1, shards))
        bounds = np.concatenate([[0], cuts, [examples]]).astype(np.int64)
        sizes = np.diff(np.concatenate([[0], ends])[bounds])
        if size is None or sizes.max() <= size:
            break
        shards += 1
    starts = np.cumsum([0, *splits.values()])
    tokens = np.diff(np.concatenate([[0], np.cumsum(lengths)])[bounds])
    return Manifest(
        spec,
        tuple(
            Shard(
                number + 1,
                shards,
                {
                    name: (max(low, start) - start, min(high, stop) - start)
                    for name, start, stop in zip(
                        splits, starts[:-1].tolist(), starts[1:].tolist(), strict=True
                    )
                    if max(low, start) < min(high, stop)
                },
                int(tokens[number]),
            )
            for number, (low, high) in enumerate(
                zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
            )
        ),
        size,
        layers,
    )


def open_joined(folder: Path, suffix: str, common: Sequence[str] = ()) -> JoinedFile:
    """The files of a cache's shards that end in `suffix`, read as one. Raises SpaceliteError if the
    cache is not finished, or names a file that is missing, damaged, or another one."""
    manifest = Manifest.read(folder)
    if not manifest.is_finished:
        raise UnfinishedCacheError(
            f"cache {folder.stem} is unfinished: run its embed command again, without shard=...",
            ["shard"],
        )
    with ExitStack() as stack:
        parts = [
            stack.enter_context(_open_part(folder, manifest.spec, shard, suffix))
            for shard in manifest.shards
        ]
        joined = JoinedFile(folder, parts, common)
        stack.pop_all()
    return joined


def _open_part(folder: Path, spec: CacheSpec, shard: Shard, suffix: str) -> DataFile:
    path = (folder / shard.name).with_suffix(suffix)
    again = "run the cache's embed command again to compute it"
    try:
        file = DataFile(path)
    except FileNotFoundError:
        raise SpaceliteError(f"{path} is missing: {again}") from None
    except (ValueError, OSError) as error:
        raise SpaceliteError(f"{path} is damaged ({one_line(error, 80)}): {again}") from error
    said = tuple(file.attributes[""].get(name) for name in ("spec", SHARD))
    expected = spec.canonical(), shard.label, shard.crc32
    if path.name == shard.name and (*said, file.crc32) != expected:
        file.close()
        raise SpaceliteError(
            f"{path} is not the shard {shard.label} that the cache's manifest names: put that "
            f"back, or {again}"
        )
    return file
