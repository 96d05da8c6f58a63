"""The HDF5 cache file: lay out and read.

The whole file is laid out, and its HDF5 handle closed, before the first hidden state is computed.
Hidden states are then written as plain bytes at known offsets (by `journal`).
"""

from __future__ import annotations

import json
import logging
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import files
from spacelite.cache import hdf5
from spacelite.cache.dtypes import DTYPES, StoredType, stored_type
from spacelite.cache.layers import LayerFile, LayerMeans, layers_path
from spacelite.cache.spec import CacheSpec
from spacelite.cache.split import CachedSplit, SplitIndex
from spacelite.errors import SpaceliteError, one_line
from spacelite.tasks import Task, task_of

log = logging.getLogger(__name__)

FORMAT = 1
PAGE = hdf5.PAGE

Array = npt.NDArray[Any]


def _shapes(
    index: SplitIndex, width: int, stored: StoredType, pooled: bool
) -> dict[str, tuple[Any, str]]:
    """Name -> (shape, dtype) of a split's datasets, in the order of the file."""
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
    shapes["tokens"] = ((tokens, width + stored.extra), stored.dtype)
    return shapes


def file_size(splits: dict[str, SplitIndex], width: int, dtype: str, pooled: bool) -> int:
    """Size of the file that `lay_out` creates, in bytes, to within a few kilobytes."""
    stored = stored_type(dtype)
    return hdf5.file_size(_shapes(index, width, stored, pooled) for index in splits.values())


def partial_path(path: Path) -> Path:
    """The temporary path to which `lay_out` writes the file before renaming it."""
    return path.with_name(f".{path.name}.partial")


def lay_out(
    path: Path,
    spec: CacheSpec,
    splits: dict[str, SplitIndex],
    *,
    width: int,
    pooled: bool,
    padding_side: str,
) -> None:
    """Create the whole cache file, with no example done. It is renamed to `path` once complete.

    Args:
        path: Path of the file.
        spec: Spec of the cache.
        splits: The offsets, labels and token ids of each split.
        width: d, the hidden width.
        pooled: Whether the backbone has a pooler, whose outputs are cached as well.
        padding_side: Side on which the tokenizer pads, `left` or `right`.

    Raises:
        SpaceliteError: The disk is full or broken; nothing is left behind.
    """
    stored = stored_type(spec.dtype)

    def fill(file: Any) -> None:
        file.attrs["format"] = FORMAT
        file.attrs["spec"] = spec.canonical()
        file.attrs["padding_side"] = padding_side
        for name, index in splits.items():
            group = file.create_group(name)
            group.attrs["index_crc32"] = np.uint32(index.crc32)
            hdf5.create_datasets(group, _shapes(index, width, stored, pooled))
            group["offsets"][...] = index.offsets
            group["labels"][...] = index.labels
            group["token_ids"][...] = index.token_ids
            for key in ("done", "crc32", "pooled_crc32"):
                if key in group:
                    group[key][...] = 0

    size = file_size(splits, width, spec.dtype, pooled)
    hdf5.create(path, partial_path(path), "the cache file", size, fill)


def timing_path(path: Path) -> Path:
    """The file beside a cache that records how long its embedding took."""
    return path.with_suffix(".seconds.json")


def embedding_seconds(path: Path) -> float | None:
    """Total seconds of all `embed` calls that wrote to a cache; None if unknown."""
    try:
        return float(json.loads(timing_path(path).read_text("utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # reports show it, and nothing depends on it


def add_seconds(path: Path, seconds: float) -> None:
    """Record the seconds of a call that wrote to a cache, while its lock is held. The cache itself
    contains no times: the same settings give the same bytes."""
    timing = timing_path(path)
    content = json.dumps({"seconds": (embedding_seconds(path) or 0.0) + seconds})
    try:
        files.write_bytes(timing, f"{content}\n".encode())
    except OSError as error:  # a full disk: if it matters, the embedding itself has failed
        log.warning("%s cannot be written: %s", timing, error.strerror)


class Cache:
    """A cache file, open for reading. Use it as a context manager.

    Args:
        path: The file.

    Attributes:
        path: The file.
        spec: Everything that the contents of the cache depend on.
        splits: The splits by name: train, validation and, if the data set has one, test. A data set
            that a run was evaluated on may have any of them.
        padding_side: Side on which the tokenizer pads, `left` or `right`.

    Raises:
        SpaceliteError: The file is missing, damaged, not a cache, or of a later version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        remedy = f"remove it (spacelite cache remove {path.stem}) and run embed again"
        try:
            self._file = hdf5.open_file(path)
        except FileNotFoundError as error:
            raise SpaceliteError(f"there is no cache file {path}") from error
        except OSError as error:
            raise SpaceliteError(f"{path} is damaged or not an HDF5 file: {remedy}") from error
        try:
            version = int(self._file.attrs["format"])
            if version > FORMAT:
                raise SpaceliteError(
                    f"{path} has cache format {version}, this spacelite reads {FORMAT}: upgrade "
                    "spacelite"
                )
            self.spec = CacheSpec.from_json(json.loads(self._file.attrs["spec"]))
            if self.spec.dtype not in DTYPES:
                raise SpaceliteError(
                    f"{path} stores {self.spec.dtype} numbers, which this spacelite cannot read: "
                    "upgrade spacelite"
                )
            self.padding_side = str(self._file.attrs["padding_side"])
            self.splits = {
                name: CachedSplit(
                    self._file[name],
                    DTYPES[self.spec.dtype],
                    name,
                    path.stem,
                    partial(self._layer_means, name),
                )
                for name in ("train", "validation", "test")
                if name in self._file
            }
        except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
            self._file.close()
            raise SpaceliteError(
                f"{path} is not a spacelite cache, or damaged ({one_line(error, 120)}): {remedy}"
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
        """The names of labels 0..C-1."""
        return list(self.spec.label_names)

    @property
    def key(self) -> str:
        """The cache's key: the hash of its spec."""
        return self.spec.cache_key()

    @property
    def task(self) -> Task:
        """The task of the labels: single-label or multi-label."""
        return task_of(next(iter(self.splits.values())).labels)

    def require_training(self) -> None:
        """Raise SpaceliteError if there is nothing to train on: a split is missing, or all training
        examples have one label."""
        made = f"cache {self.name} was made to evaluate a run"
        for name in ("train", "validation"):
            if name not in self.splits:
                raise SpaceliteError(f"{made} and has no {name} split: embed data to train on")
        labels = self.splits["train"].labels
        if (self.task.label_counts(labels, len(self.label_names)) > 0).sum() < 2:
            raise SpaceliteError(
                f"{made}, and its training examples have a single label: embed data to train on"
            )

    @property
    def complete(self) -> bool:
        """Whether every example is done. Only the journal records this."""
        return all(bool(split.done.all()) for split in self.splits.values())

    @property
    def tokens(self) -> int:
        """Number of tokens in all splits."""
        return sum(split.tokens for split in self.splits.values())

    @property
    def tokens_done(self) -> int:
        """Number of tokens of the examples that are done."""
        return sum(int(split.lengths[split.done == 1].sum()) for split in self.splits.values())

    def check_index(self, *names: str) -> None:
        """Check the checksums of the offsets, labels and token ids of some splits (default: all).

        Raises:
            SpaceliteError: They are damaged, which embedding again cannot repair.
        """
        for name in names or self.splits:
            if not self.splits[name].index_is_intact():
                raise SpaceliteError(
                    f"{self.path}: the offsets, labels or token ids of {name} are damaged: remove "
                    f"the cache (spacelite cache remove {self.name}) and run embed again"
                )

    @cached_property
    def layers(self) -> LayerFile | None:
        """The file of layer means; None if the cache has none. Raises SpaceliteError if it is
        damaged."""
        if not layers_path(self.path).exists():
            return None
        indexes = {name: split.index_crc32 for name, split in self.splits.items()}
        return LayerFile(self.path, self.key, indexes)

    def require_layers(self, *, complete: bool = True) -> LayerFile:
        """The file of layer means. Raises SpaceliteError if there is none, or, if it has to be
        `complete`, an unfinished one."""
        if self.layers is None:
            raise SpaceliteError(
                f"cache {self.name} has no layer means: run its embed command again with "
                "layers=True to add them",
                ["layers"],
            )
        if complete and not self.layers.complete:
            raise SpaceliteError(
                f"cache {self.name} has the layer means of {self.layers.examples_done:,} of "
                f"{self.layers.examples:,} examples: run its embed command again to complete them"
            )
        return self.layers

    def layer_count(self) -> int:
        """Number of layers whose means are kept, the embedding layer included. Raises
        SpaceliteError as `require_layers`."""
        return self.require_layers().layers

    def _layer_means(self, split: str) -> LayerMeans:
        return self.require_layers().splits[split]

    def byte_offsets(self) -> dict[str, dict[str, int]]:
        """Where each dataset of each split begins in the file, in bytes."""
        return {split: hdf5.byte_offsets(self._file[split]) for split in self.splits}

    def close(self) -> None:
        """Close the file, and that of the layer means."""
        self._file.close()
        layers = self.__dict__.get("layers")
        if layers is not None:
            layers.close()

    def __repr__(self) -> str:
        splits = ", ".join(f"{len(split):,} {name}" for name, split in self.splits.items())
        return f"<cache {self.path}: {splits}, {self.tokens:,} tokens>"

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
