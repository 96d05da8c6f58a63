"""The HDF5 cache file: lay out, lock, read. The only importer of `h5py`.

The file is laid out whole before the first hidden state exists, and the HDF5 handle closed. Hidden
states are then plain bytes at known offsets (`journal` writes them), so that no HDF5 metadata is
ever half-written, however the process ends. The format is described in the README.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from spacelite import files
from spacelite.cache.spec import CacheSpec
from spacelite.errors import SpaceliteError, one_line
from spacelite.tasks import Task, task_of

log = logging.getLogger(__name__)

FORMAT = 1
PAGE = 4096  # large arrays start on a page of their own

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SplitIndex:
    """What a split holds besides hidden states, known before the backbone runs.

    `offsets` (N+1,) int64: example i is rows offsets[i]:offsets[i+1]; `labels` (N,) int64, or
    (N, C) of 0/1 where an example can have several; `token_ids` (T,) int32.
    """

    offsets: Array
    labels: Array
    token_ids: Array

    @property
    def crc32(self) -> int:
        """CRC-32 of the three arrays' bytes, in the order above."""
        value = 0
        for array in (self.offsets, self.labels, self.token_ids):
            value = zlib.crc32(np.ascontiguousarray(array).data, value)
        return value


def _shapes(index: SplitIndex, width: int, dtype: str, pooled: bool) -> dict[str, tuple[Any, str]]:
    """Name -> (shape, dtype) of a split's datasets, in the order they lie in the file."""
    examples, tokens = len(index.labels), len(index.token_ids)
    shapes: dict[str, tuple[Any, str]] = {
        "offsets": ((examples + 1,), "int64"),
        "labels": (index.labels.shape, "int64"),
        "token_ids": ((tokens,), "int32"),
        "done": ((examples,), "uint8"),
        "crc32": ((examples,), "uint32"),
    }
    if pooled:
        shapes["pooled_crc32"] = ((examples,), "uint32")
        shapes["pooled"] = ((examples, width), "float32")
    shapes["tokens"] = ((tokens, width), dtype)
    return shapes


def file_size(splits: dict[str, SplitIndex], width: int, dtype: str, pooled: bool) -> int:
    """Bytes that `lay_out` takes on disk, to within a few kilobytes."""
    total = 2 * PAGE
    for index in splits.values():
        for shape, kind in _shapes(index, width, dtype, pooled).values():
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            total += size + (PAGE if size >= PAGE else 300)  # 300: the dataset's header
    return total


def partial_path(path: Path) -> Path:
    """Where `lay_out` makes the file before it gets its name."""
    return path.with_name(f".{path.name}.partial")


def lay_out(
    path: Path,
    spec: CacheSpec,
    splits: dict[str, SplitIndex],
    *,
    width: int,
    dtype: str,
    pooled: bool,
    padding_side: str,
) -> None:
    """Create the whole cache file, no example done. It appears under its name only when whole.

    Raises SpaceliteError when the disk is full; nothing is left behind then.
    """
    partial = partial_path(path)
    try:
        # Tried before HDF5 writes anything: it does not survive a full disk in good order.
        with partial.open("wb") as raw:
            _reserve(raw.fileno(), file_size(splits, width, dtype, pooled))
        with h5py.File(partial, "w", alignment_threshold=PAGE, alignment_interval=PAGE) as file:
            file.attrs["format"] = FORMAT
            file.attrs["spec"] = spec.canonical()
            file.attrs["padding_side"] = padding_side
            for name, index in splits.items():
                group = file.create_group(name)
                group.attrs["index_crc32"] = np.uint32(index.crc32)
                for key, (shape, kind) in _shapes(index, width, dtype, pooled).items():
                    _create_contiguous(group, key, shape, kind)
                group["offsets"][...] = index.offsets
                group["labels"][...] = index.labels
                group["token_ids"][...] = index.token_ids
                for key in ("done", "crc32", "pooled_crc32"):
                    if key in group:
                        group[key][...] = 0
        with partial.open("rb+") as raw:
            _reserve(raw.fileno(), partial.stat().st_size)
            os.fsync(raw.fileno())
        partial.replace(path)
        files.sync(path.parent)
    except (OSError, RuntimeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "the disk is full or broken"
        raise SpaceliteError(
            f"the cache file cannot be laid out in {path.parent}: {reason}; "
            "free some space or choose another cache_dir",
            ["cache_dir"],
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _reserve(handle: int, size: int) -> None:
    """Take the file's space on disk now, where the system can: a disk that fills up later then
    cannot stop the run half-way."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise


def _create_contiguous(group: Any, name: str, shape: tuple[int, ...], dtype: str) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    # No time of creation: the same embedding is the same file, byte for byte.
    creation.set_obj_track_times(False)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create_simple(shape), creation)


def timing_path(path: Path) -> Path:
    """The file beside a cache that holds how long its embedding took."""
    return path.with_suffix(".seconds.json")


def embedding_seconds(path: Path) -> float | None:
    """Seconds of all `embed` calls that wrote a cache; None where they are not known."""
    try:
        return float(json.loads(timing_path(path).read_text("utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a figure of the report, which nothing depends on


def add_seconds(path: Path, seconds: float) -> None:
    """Count the seconds of a call that wrote a cache, whose lock is held. The cache itself holds
    no times: the same settings give the same bytes."""
    timing = timing_path(path)
    content = json.dumps({"seconds": (embedding_seconds(path) or 0.0) + seconds})
    try:
        files.write_bytes(timing, f"{content}\n".encode())
    except OSError as error:  # a full disk: the embedding itself has said so, or is whole
        log.warning("%s cannot be written: %s", timing, error.strerror)


class CachedSplit:
    """One split of an open cache: N examples, T tokens of width d."""

    def __init__(self, group: Any) -> None:
        self._group = group
        self.offsets: Array = group["offsets"][...]
        self.labels: Array = group["labels"][...]
        self.done: Array = group["done"][...]
        self.tokens, self.width = group["tokens"].shape
        self.dtype: Any = group["tokens"].dtype
        self.has_pooler = "pooled" in group

    @property
    def lengths(self) -> Array:
        """Tokens of each example, (N,) int64."""
        return np.diff(self.offsets)

    def label_counts(self, classes: int) -> Array:
        """How many examples have each of the C labels, (C,) int64."""
        return task_of(self.labels).label_counts(self.labels, classes)

    def read_token_ids(self, first: int = 0, last: int | None = None) -> Array:
        """Those of rows first:last, int32; of all rows unless told."""
        ids: Array = self._group["token_ids"][first:last]
        return ids

    @property
    def pooled(self) -> Array:
        """The pooler's outputs, (N, d) float32. Raises SpaceliteError where there is no pooler."""
        self.require_pooler()
        pooled: Array = self._group["pooled"][...]
        return pooled

    def require_pooler(self) -> None:
        """Raise SpaceliteError where the backbone has no pooler."""
        if not self.has_pooler:
            raise SpaceliteError(
                "this cache's backbone has no pooler: use pooling first, last or mean", ["pooling"]
            )

    def read_tokens(self, first: int, last: int, into: Array | None = None) -> Array:
        """Stored rows first:last of the hidden states, (last - first, d) in the stored dtype, in
        new memory or in that of `into`."""
        rows = np.empty((last - first, self.width), self.dtype) if into is None else into
        if last > first:
            self._group["tokens"].read_direct(rows, np.s_[first:last])
        return rows

    def __len__(self) -> int:
        return len(self.labels)


class Cache:
    """An open cache file, for reading. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Raises SpaceliteError for a file that is missing, damaged, foreign or too new."""
        self.path = path
        mend = f"remove it (spacelite cache remove {path.stem}) and run embed again"
        try:
            self._file = h5py.File(path, "r")
        except FileNotFoundError as error:
            raise SpaceliteError(f"there is no cache file {path}") from error
        except OSError as error:
            raise SpaceliteError(f"{path} is damaged or no HDF5 file: {mend}") from error
        try:
            version = int(self._file.attrs["format"])
            if version > FORMAT:
                raise SpaceliteError(
                    f"{path} has cache format {version}, this spacelite reads {FORMAT}: upgrade "
                    "spacelite"
                )
            self.spec = CacheSpec.from_json(json.loads(self._file.attrs["spec"]))
            # On which side the tokenizer pads: a left-padding one puts what it sums up last.
            self.padding_side = str(self._file.attrs["padding_side"])
            self.splits = {
                name: CachedSplit(self._file[name])
                for name in ("train", "validation", "test")
                if name in self._file
            }
        except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
            self._file.close()
            raise SpaceliteError(
                f"{path} is not a spacelite cache, or damaged ({one_line(error, 120)}): {mend}"
            ) from error
        except SpaceliteError:
            self._file.close()
            raise

    @property
    def name(self) -> str:
        """The cache's name: its file name without the suffix."""
        return self.path.stem

    @property
    def label_names(self) -> list[str]:
        """The C label names, by label number."""
        return list(self.spec.label_names)

    @property
    def task(self) -> Task:
        """What a label is."""
        return task_of(self.splits["train"].labels)

    @property
    def complete(self) -> bool:
        """Whether every example is done: derived from the journal, stored nowhere else."""
        return all(bool(split.done.all()) for split in self.splits.values())

    @property
    def tokens(self) -> int:
        """Tokens of all splits together."""
        return sum(split.tokens for split in self.splits.values())

    @property
    def tokens_done(self) -> int:
        """Tokens of the examples that are done."""
        return sum(int(split.lengths[split.done == 1].sum()) for split in self.splits.values())

    def index_crc32(self, split: str) -> int:
        """The checksum that offsets, labels and token ids were written with."""
        return int(self._file[split].attrs["index_crc32"])

    def index_is_intact(self, split: str) -> bool:
        """Whether offsets, labels and token ids still have the checksum they were written with."""
        stored = self.splits[split]
        index = SplitIndex(stored.offsets, stored.labels, stored.read_token_ids())
        return index.crc32 == self.index_crc32(split)

    def checksums(self, split: str) -> tuple[Array, Array | None]:
        """The journal's CRC-32 of each example's rows and, with a pooler, of its pooled row."""
        group = self._file[split]
        return group["crc32"][...], group["pooled_crc32"][...] if "pooled" in group else None

    def byte_offsets(self) -> dict[str, dict[str, int]]:
        """Where each dataset of each split begins in the file, in bytes."""
        return {
            split: {name: self._file[split][name].id.get_offset() for name in self._file[split]}
            for split in self.splits
        }

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
