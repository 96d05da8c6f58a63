"""npz files: arrays by name. A file that is read may be damaged or made to do harm: nothing in it
is unpickled, no memory is taken for more than it can hold, and each array is checked against its
checksum."""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np

from spacelite import files
from spacelite.types import Array

# What numpy writes before an array of numbers or strings.
HEADER = re.compile(
    rb"\{'descr': '([<|][iufU]\d{1,8})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n"
)
MAGIC = b"\x93NUMPY\x01\x00"  # version 1
DEFLATED_MOST = 1040  # bytes that become one at most
LAST_CHARACTER = 0x10FFFF
UTF8_NAME = 0x800  # the only flag of a member
ERRORS = (BadZipFile, RuntimeError, EOFError, OverflowError, struct.error, zlib.error)


class Arrays:
    """The arrays of an open file, read when they are asked for."""

    def __init__(self, archive: ZipFile, size: int) -> None:
        self._archive, self._size = archive, size
        self._members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        if len(self._members) < len(archive.infolist()):
            raise ValueError("it holds an array twice")

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> set[str]:
        """The names of all arrays."""
        return {*self._members}

    def read(self, name: str, kinds: str, *shape: int | None) -> Array:
        """An array of one of these kinds of numpy's types (`i`, `u`, `f`, `U`) and of this shape,
        with None for any size. Raises ValueError if it is not that, or damaged."""
        if name not in self:
            raise ValueError(f"it holds no {name}")
        array = self._array(self._members[name])
        if (
            array.dtype.kind not in kinds
            or array.ndim != len(shape)
            or any(size not in (None, of) for size, of in zip(shape, array.shape, strict=True))
        ):
            raise ValueError(f"{name} is of another type or shape")
        return array

    def _array(self, info: ZipInfo) -> Array:
        largest = info.compress_size * (DEFLATED_MOST if info.compress_type == ZIP_DEFLATED else 1)
        if (
            info.flag_bits & ~UTF8_NAME
            or info.compress_type not in (ZIP_STORED, ZIP_DEFLATED)
            or not 0 <= info.header_offset < self._size
            or info.compress_size > self._size
            or info.file_size > largest
        ):
            raise ValueError(f"{info.filename} is not stored as an array is")
        content = self._archive.read(info)  # to its end, where its checksum is compared
        start = len(MAGIC) + 2 + int.from_bytes(content[len(MAGIC) :][:2], "little")
        header = HEADER.fullmatch(content[len(MAGIC) + 2 : start])
        if not content.startswith(MAGIC) or header is None:
            raise ValueError(f"{info.filename} is not an array of numbers or strings")
        kind = np.dtype(header[1].decode())
        shape = tuple(int(size) for size in re.findall(rb"\d+", header[3]))
        if math.prod(shape) * kind.itemsize != len(content) - start:
            raise ValueError(f"{info.filename} is not as large as its shape")
        if kind.kind == "U" and len(content) > start:
            characters = np.frombuffer(content, "<u4", offset=start)
            if characters.max() > LAST_CHARACTER:
                raise ValueError(f"{info.filename} holds what is no character")
        order: Literal["C", "F"] = "F" if header[2] == b"True" else "C"
        array: Array = np.ndarray(shape, kind, content, start, order=order).copy(order)
        return array


@contextmanager
def opened(source: Path | bytes, known: str) -> Iterator[Arrays]:
    """The arrays of a file, or of its content, whose names match the regular expression `known`.
    Raises OSError, and ValueError, which says what is wrong, if it is damaged or another file."""
    try:
        with (
            files.open_regular(source) if isinstance(source, Path) else io.BytesIO(source) as file,
            ZipFile(file) as archive,
        ):
            arrays = Arrays(archive, file.seek(0, io.SEEK_END))
            if unknown := [name for name in arrays.names if not re.fullmatch(known, name)]:
                raise ValueError(f"it holds the unknown array {min(unknown)!r}")
            yield arrays
    except ERRORS as error:
        raise ValueError(f"it is not an npz file, or damaged: {error}") from error


def write(path: Path, arrays: Mapping[str, Array], *, compressed: bool = True) -> None:
    """Write arrays atomically. Raises OSError."""
    # Opened here, because numpy would append .npz to the temporary file's name.
    with files.atomic_write(path) as partial, partial.open("wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]
