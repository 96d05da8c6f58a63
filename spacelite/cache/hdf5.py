"""HDF5 files that are laid out whole before anything is written into them. The only importer of
`h5py`.

Values are written later as plain bytes at known offsets (by `journal`), so that no HDF5 metadata is
ever half-written, however the process ends.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spacelite import files
from spacelite.errors import SpaceliteError

PAGE = 4096  # bytes; large arrays start at a multiple of this

Shapes = dict[str, tuple[Any, str]]  # a dataset's name -> (shape, dtype), in the order of the file


def file_size(groups: Iterable[Shapes]) -> int:
    """Size of a file with these datasets, in bytes, to within a few kilobytes."""
    total = 2 * PAGE
    for shapes in groups:
        for shape, kind in shapes.values():
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            total += size + (PAGE if size >= PAGE else 300)  # 300: the dataset's header
    return total


def create(path: Path, partial: Path, what: str, size: int, lay_out: Callable[[Any], None]) -> None:
    """Create a whole file. It is renamed to `path` once complete.

    Args:
        path: Path of the file.
        partial: The temporary path that it is written to.
        what: The file in words, for the error message.
        size: Its size as `file_size` estimates it.
        lay_out: Called with the open file: creates its attributes and datasets.

    Raises:
        SpaceliteError: The disk is full or broken; nothing is left behind.
    """
    try:
        # Reserved before HDF5 writes anything, since HDF5 does not handle a full disk well.
        with partial.open("wb") as raw:
            _reserve(raw.fileno(), size)
        with h5py.File(partial, "w", alignment_threshold=PAGE, alignment_interval=PAGE) as file:
            lay_out(file)
        with partial.open("rb+") as raw:
            _reserve(raw.fileno(), partial.stat().st_size)
            os.fsync(raw.fileno())
        partial.replace(path)
        files.sync(path.parent)
    except (OSError, RuntimeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "the disk is full or broken"
        raise SpaceliteError(
            f"{what} cannot be laid out in {path.parent}: {reason}; "
            "free some space or choose another cache_dir",
            ["cache_dir"],
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def open_file(path: Path) -> Any:
    """Open a file for reading. Raises OSError."""
    return h5py.File(path, "r")


def byte_offsets(group: Any) -> dict[str, int]:
    """Where each dataset of a group begins in the file, in bytes."""
    return {name: group[name].id.get_offset() for name in group}


def _reserve(handle: int, size: int) -> None:
    """Reserve the file's space on disk, if the system can: a disk that fills up later then cannot
    stop the run half-way."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise


def create_datasets(group: Any, shapes: Shapes) -> None:
    """Create contiguous datasets; their values are arbitrary until they are written."""
    for name, (shape, kind) in shapes.items():
        _create_contiguous(group, name, shape, kind)


def _create_contiguous(group: Any, name: str, shape: tuple[int, ...], dtype: str) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_layout(h5py.h5d.CONTIGUOUS)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    # Without creation times, the same embedding is the same file, byte for byte.
    creation.set_obj_track_times(False)
    kind = h5py.h5t.py_create(np.dtype(dtype), logical=True)
    h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create_simple(shape), creation)
