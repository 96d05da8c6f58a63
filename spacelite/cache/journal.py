"""Write examples into a cache file or the file of its layer means: first their values and, once
these are on disk, their marks.

The journal (the datasets `done` and `crc32`) records which examples can be trusted. Everything is
written with `os.pwrite` at the offsets of the datasets' bytes, never through HDF5.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from spacelite.cache.layers import LayerFile
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError

Array = npt.NDArray[Any]


class Checked(NamedTuple):
    """Values to be written, with the checksum of their bytes.

    Attributes:
        values: The values, in one piece.
        crc32: The checksum.
    """

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


class Journal:
    """Writes examples into a file that has been laid out. Use it as a context manager, while
    holding `files.lock`.

    Args:
        path: The file.
        offsets: Where each dataset of each split begins in the file, in bytes.
        done: Split -> (N,) uint8, 1 for examples that are marked done.

    Raises:
        SpaceliteError: The file cannot be written.
    """

    def __init__(
        self, path: Path, offsets: dict[str, dict[str, int]], done: dict[str, Array]
    ) -> None:
        self.path, self.done = path, done
        self._offsets = offsets
        self._pending: list[tuple[str, int, dict[str, int]]] = []
        try:
            self._file = os.open(path, os.O_RDWR)
        except OSError as error:
            raise self._failure(error) from error

    def _put(self, split: str, dataset: str, offset: int, values: Checked) -> int:
        """Write values at an offset of a dataset; return their checksum."""
        self._pwrite(values.content, self._offsets[split][dataset] + offset)
        return values.crc32

    def commit(self) -> None:
        """Sync the values written so far to disk, then mark their examples done."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        try:
            os.fsync(self._file)
        except OSError as error:
            # The values may be lost even if a second sync succeeds: never mark them done.
            raise self._failure(error) from error
        for split, example, checksums in pending:
            offsets = self._offsets[split]
            for dataset, crc in checksums.items():
                self._pwrite(np.uint32(crc).tobytes(), offsets[dataset] + 4 * example)
            self._pwrite(b"\x01", offsets["done"] + example)
            self.done[split][example] = 1

    def unmark(self, split: str, example: int) -> None:
        """Mark an example as not done, so that the next embed computes it again."""
        self._pwrite(b"\x00", self._offsets[split]["done"] + example)
        self.done[split][example] = 0

    def close(self) -> None:
        """Sync and close the file. Values that were not committed do not count."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise self._failure(error) from error
        finally:
            os.close(self._file)

    def _pwrite(self, content: bytes | memoryview, offset: int) -> None:
        view = memoryview(content)
        try:
            while len(view):
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written
        except OSError as error:
            raise self._failure(error) from error

    def _failure(self, error: OSError) -> SpaceliteError:
        return SpaceliteError(
            f"writing {self.path} failed: {error.strerror}; fix that and embed again to continue: "
            "what is written is kept"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Writer(Journal):
    """Writes hidden states into a cache file.

    Args:
        path: A cache file that has been laid out.

    Attributes:
        done: Split -> (N,) uint8, 1 for examples that are marked done.

    Raises:
        SpaceliteError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        with Cache(path) as cache:
            self._rows = {name: split.offsets for name, split in cache.splits.items()}
            self._row_bytes = {
                name: split.stored.row_bytes(split.width) for name, split in cache.splits.items()
            }
            done = {name: split.done for name, split in cache.splits.items()}
            super().__init__(path, cache.byte_offsets(), done)

    def write(self, split: str, example: int, rows: Checked, pooled: Checked | None) -> None:
        """Write an example. It counts only once `commit` has returned.

        Args:
            split: Name of the example's split.
            example: Index of the example in that split.
            rows: The example's n rows of hidden states, in the stored type.
            pooled: The pooler's output, (d,) float32; None without a pooler.

        Raises:
            SpaceliteError: The file cannot be written.
        """
        first, last = self._rows[split][example : example + 2]
        count = len(rows.values)
        if count != last - first:
            raise ValueError(f"{count} rows for {split} example {example}, not {last - first}")
        start = int(first) * self._row_bytes[split]
        checksums = {"crc32": self._put(split, "tokens", start, rows)}
        if pooled is not None:
            start = example * pooled.values.nbytes
            checksums["pooled_crc32"] = self._put(split, "pooled", start, pooled)
        self._pending.append((split, example, checksums))


class LayerWriter(Journal):
    """Writes layer means into the file beside a cache.

    Args:
        file: The file, open for reading; it may be closed afterwards.

    Attributes:
        done: Split -> (N,) uint8, 1 for examples that are marked done.

    Raises:
        SpaceliteError: The file cannot be written.
    """

    def __init__(self, file: LayerFile) -> None:
        done = {name: split.done for name, split in file.splits.items()}
        super().__init__(file.path, file.byte_offsets, done)

    def write(self, split: str, example: int, means: Checked) -> None:
        """Write the means of an example, (layers, d) float16. It counts only once `commit` has
        returned. Raises SpaceliteError if the file cannot be written."""
        crc = self._put(split, "means", example * means.values.nbytes, means)
        self._pending.append((split, example, {"crc32": crc}))


class Writers:
    """Writes examples into a cache file and the file of its layer means, into whichever is not
    complete. Use it as a context manager, while holding `files.lock`.

    Args:
        path: A cache file that has been laid out.
        with_layers: Whether layer means are written; their file has been laid out.

    Attributes:
        tokens: Writes hidden states; None if the cache is complete.
        layers: Writes layer means; None if they are complete or not to be written.

    Raises:
        SpaceliteError: A file cannot be written.
    """

    def __init__(self, path: Path, with_layers: bool) -> None:
        self.tokens: Writer | None = None
        self.layers: LayerWriter | None = None
        with Cache(path) as cache:
            self._examples = {name: len(split) for name, split in cache.splits.items()}
            if not cache.complete:
                self.tokens = Writer(path)
            if with_layers and not (file := cache.require_layers(complete=False)).complete:
                self.layers = LayerWriter(file)

    @property
    def both(self) -> list[Writer | LayerWriter]:
        """The writers that there are."""
        return [writer for writer in (self.tokens, self.layers) if writer is not None]

    def done(self, split: str) -> Array:
        """Which examples of a split are done in both files, (N,) bool."""
        done = np.ones(self._examples[split], bool)
        for writer in self.both:
            done &= writer.done[split] == 1
        return done

    def commit(self) -> None:
        """Sync what was written so far to disk, then mark its examples done."""
        for writer in self.both:
            writer.commit()

    def drop_layers(self) -> None:
        """Delete the file of layer means and write no more of them."""
        if self.layers is not None:
            layers, self.layers = self.layers, None
            layers.close()
            layers.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for writer in self.both:
            writer.close()
