"""Write examples into a cache file: first their rows and, once these are on disk, their marks.

The journal (the datasets `done` and `crc32`) records which examples can be trusted. Everything is
written with `os.pwrite` at the offsets of the datasets' bytes, never through HDF5.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError

Array = npt.NDArray[Any]


class Writer:
    """Writes examples into a cache file. Use it as a context manager, while holding `files.lock`.

    Args:
        path: A cache file that has been laid out.

    Attributes:
        done: Split -> (N,) uint8, 1 for examples that are marked done.

    Raises:
        SpaceliteError: The file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with Cache(path) as cache:
            self._offsets = cache.byte_offsets()
            self._rows = {name: split.offsets for name, split in cache.splits.items()}
            self._row_bytes = {
                name: split.stored.row_bytes(split.width) for name, split in cache.splits.items()
            }
            self.done = {name: split.done for name, split in cache.splits.items()}
        self._pending: list[tuple[str, int, int, int | None]] = []
        try:
            self._file = os.open(path, os.O_RDWR)
        except OSError as error:
            raise self._failure(error) from error

    def write(self, split: str, example: int, rows: Array, pooled: Array | None) -> None:
        """Write an example. It counts only once `commit` has returned.

        Args:
            split: Name of the example's split.
            example: Index of the example in that split.
            rows: The example's n rows of hidden states, in the stored type.
            pooled: The pooler's output, (d,) float32; None without a pooler.

        Raises:
            SpaceliteError: The file cannot be written.
        """
        offsets = self._offsets[split]
        first, last = self._rows[split][example : example + 2]
        if len(rows) != last - first:
            raise ValueError(f"{len(rows)} rows for {split} example {example}, not {last - first}")
        start = offsets["tokens"] + int(first) * self._row_bytes[split]
        content = np.ascontiguousarray(rows).data.cast("B")
        self._pwrite(content, start)
        pooled_crc = None
        if pooled is not None:
            pooled_content = np.ascontiguousarray(pooled).data.cast("B")
            self._pwrite(pooled_content, offsets["pooled"] + example * pooled.nbytes)
            pooled_crc = zlib.crc32(pooled_content)
        self._pending.append((split, example, zlib.crc32(content), pooled_crc))

    def commit(self) -> None:
        """Sync the rows written so far to disk, then mark their examples done."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        try:
            os.fsync(self._file)
        except OSError as error:
            # The rows may be lost even if a second sync succeeds: never mark them done.
            raise self._failure(error) from error
        for split, example, crc, pooled_crc in pending:
            offsets = self._offsets[split]
            self._pwrite(np.uint32(crc).tobytes(), offsets["crc32"] + 4 * example)
            if pooled_crc is not None:
                self._pwrite(np.uint32(pooled_crc).tobytes(), offsets["pooled_crc32"] + 4 * example)
            self._pwrite(b"\x01", offsets["done"] + example)
            self.done[split][example] = 1

    def unmark(self, split: str, example: int) -> None:
        """Mark an example as not done, so that the next embed computes it again."""
        self._pwrite(b"\x00", self._offsets[split]["done"] + example)
        self.done[split][example] = 0

    def close(self) -> None:
        """Sync and close the file. Rows that were not committed do not count."""
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

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
