"""The means of all layers: a file beside the cache, with one mean per example and layer.

It is laid out, written and checked as the cache itself. Neither the cache's spec and key nor its
bytes depend on it, and caches of older versions do not have it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.cache import hdf5
from spacelite.cache.split import SplitIndex, mismatches
from spacelite.errors import SpaceliteError, one_line

log = logging.getLogger(__name__)

FORMAT = 1
DTYPE = "float16"

Array = npt.NDArray[Any]


class DamagedLayersError(SpaceliteError):
    """The file of layer means is damaged or belongs to another cache: embed can write it anew."""


def layers_path(path: Path) -> Path:
    """The file beside a cache that holds its layer means."""
    return path.with_name(f"{path.stem}.layers.hdf5")


def partial_path(path: Path) -> Path:
    """The temporary path to which `lay_out` writes the file before renaming it."""
    return path.with_name(f".{path.stem}.layers.partial")


def _shapes(examples: int, layers: int, width: int) -> hdf5.Shapes:
    return {
        "done": ((examples,), "uint8"),
        "crc32": ((examples,), "uint32"),
        "means": ((examples, layers, width), DTYPE),
    }


def file_size(splits: Mapping[str, SplitIndex], layers: int, width: int) -> int:
    """Size of the file that `lay_out` creates, in bytes, to within a few kilobytes."""
    return hdf5.file_size(_shapes(len(one.labels), layers, width) for one in splits.values())


def lay_out(
    path: Path, key: str, splits: Mapping[str, SplitIndex], layers: int, width: int
) -> None:
    """Create the whole file, with no example done. It is renamed once complete.

    Args:
        path: The cache file.
        key: Its key.
        splits: Its offsets, labels and token ids.
        layers: Number of layers, the embedding layer included.
        width: d, the hidden width.

    Raises:
        SpaceliteError: The disk is full or broken; nothing is left behind.
    """

    def fill(file: Any) -> None:
        file.attrs["format"] = FORMAT
        file.attrs["key"] = key
        for name, index in splits.items():
            group = file.create_group(name)
            group.attrs["index_crc32"] = np.uint32(index.crc32)
            hdf5.create_datasets(group, _shapes(len(index.labels), layers, width))
            group["done"][...] = 0
            group["crc32"][...] = 0

    size = file_size(splits, layers, width)
    hdf5.create(layers_path(path), partial_path(path), "the file of layer means", size, fill)


class LayerMeans:
    """The layer means of one split: N examples, the embedding layer and all others.

    Attributes:
        layers: Number of layers.
        width: d, the hidden width.
        done: (N,) uint8; 1 if the example's means are written.
        crc32: (N,) uint32; the stored checksum of each example's means.
    """

    def __init__(self, group: Any, name: str, cache: str) -> None:
        self._group, self._name, self._cache = group, name, cache
        self.layers: int = group["means"].shape[1]
        self.width: int = group["means"].shape[2]
        self.done: Array = group["done"][...]
        self.crc32: Array = group["crc32"][...]

    def __len__(self) -> int:
        return len(self.done)

    def read(self, first: int, last: int) -> Array:
        """The means of examples first:last, all layers side by side, (n, layers * d) float16, after
        checking their checksums. Raises SpaceliteError if an example is damaged."""
        means: Array = self._group["means"][first:last]
        damaged = self._damaged(first, means)
        if damaged:
            raise SpaceliteError(
                f"the layer means of {self._name} example {damaged[0]} of cache {self._cache} are "
                f"damaged: run spacelite cache verify {self._cache}, then embed again to compute "
                "only what is damaged"
            )
        return means.reshape(len(means), -1)

    def damaged(self, first: int, last: int) -> list[int]:
        """Which of the examples first:last are done and no longer match their checksums."""
        found = self._damaged(first, self._group["means"][first:last])
        return [example for example in found if self.done[example]]

    def _damaged(self, first: int, means: Array) -> list[int]:
        ends = np.arange(len(means) + 1) * math.prod(means.shape[1:]) * means.itemsize
        return mismatches(first, means, ends, self.crc32[first : first + len(means)])


class LayerFile:
    """The layer means of a cache, open for reading. Use it as a context manager.

    Args:
        path: The cache file.
        key: Its key.
        indexes: The checksum of offsets, labels and token ids by split.

    Attributes:
        path: The file of layer means.
        splits: The layer means by split.
        byte_offsets: Where each dataset of each split begins in the file, in bytes.

    Raises:
        SpaceliteError: The file is of a later version; DamagedLayersError if it is damaged.
    """

    def __init__(self, path: Path, key: str, indexes: Mapping[str, int]) -> None:
        self.path = layers_path(path)
        try:
            self._file = hdf5.open_file(self.path)
        except OSError as error:
            raise self._damage(path, "it is not an HDF5 file, or incomplete") from error
        try:
            version = int(self._file.attrs["format"])
            if version > FORMAT:
                raise SpaceliteError(
                    f"{self.path} has format {version}, this spacelite reads {FORMAT}: upgrade "
                    "spacelite"
                )
            if str(self._file.attrs["key"]) != key:
                raise ValueError("it belongs to another cache")
            self.splits: dict[str, LayerMeans] = {}
            for name, index_crc32 in indexes.items():
                if int(self._file[name].attrs["index_crc32"]) != index_crc32:
                    raise ValueError(f"it belongs to other tokens of {name}")
                self.splits[name] = LayerMeans(self._file[name], name, path.stem)
            self.byte_offsets = {name: hdf5.byte_offsets(self._file[name]) for name in indexes}
        except SpaceliteError:
            self._file.close()
            raise
        except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
            self._file.close()
            raise self._damage(path, one_line(error, 80)) from error

    def _damage(self, path: Path, reason: str) -> DamagedLayersError:
        return DamagedLayersError(
            f"{self.path} is damaged ({reason}): run the embed command of cache {path.stem} again "
            "to write it anew"
        )

    @property
    def layers(self) -> int:
        """Number of layers, the embedding layer included."""
        return next(iter(self.splits.values())).layers

    @property
    def width(self) -> int:
        """d, the hidden width."""
        return next(iter(self.splits.values())).width

    @property
    def examples(self) -> int:
        """Number of examples in all splits."""
        return sum(len(split) for split in self.splits.values())

    @property
    def examples_done(self) -> int:
        """Number of examples whose means are written."""
        return sum(int(split.done.sum()) for split in self.splits.values())

    @property
    def complete(self) -> bool:
        """Whether the means of every example are written."""
        return self.examples_done == self.examples

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> LayerFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
