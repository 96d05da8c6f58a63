"""The texts of a cached data set as the user wrote them, and where each comes from: a file beside
the cache.

Nothing that is computed depends on this file. It is no part of the cache's spec and key, and caches
of older versions do not have it.
"""

from __future__ import annotations

import errno
import logging
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from spacelite import files
from spacelite.cache.store import Cache
from spacelite.data.splits import Source, Sources, Split, TextDataset
from spacelite.errors import SpaceliteError, one_line

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]

READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class CachedTexts:
    """The N texts of a split.

    Attributes:
        content: The texts end to end, in UTF-8.
        offsets: (N+1,) int64; text i is bytes offsets[i]:offsets[i+1] of `content`.
        sources: Where the texts come from; None if that is not known.
    """

    content: bytes
    offsets: Array
    sources: Sources | None

    def text(self, example: int) -> str:
        """The text of an example."""
        first, last = self.offsets[example : example + 2].tolist()
        return self.content[first:last].decode()

    def source(self, example: int) -> Source | None:
        """Where an example comes from; None if that is not known."""
        return None if self.sources is None else self.sources[example]


def texts_path(path: Path) -> Path:
    """The file beside a cache that holds its texts."""
    return path.with_suffix(".texts.npz")


def keep(path: Path, key: str, dataset: TextDataset) -> None:
    """Write the texts of a cache, unless its file holds them and their sources already.

    If the file cannot be written, this is logged: the cache can be used without it.

    Args:
        path: The cache file.
        key: Its key.
        dataset: The data set, of which the key says that it is the cached one.
    """
    own, splits = texts_path(path), dataset.splits
    # The same data may be passed as objects later: where they were read from stays known.
    place = dataset.path or _data_path(own)
    try:
        if own.exists() and place == _data_path(own) and _holds(own, key, splits):
            return
        arrays: dict[str, Array] = {"key": np.array(key)}
        if place is not None:
            arrays["data"] = np.array(place)
        for name, split in splits.items():
            encoded = [text.encode() for text in split.texts]
            sizes = [len(text) for text in encoded]
            arrays[f"{name}/texts"] = np.frombuffer(b"".join(encoded), np.uint8)
            arrays[f"{name}/offsets"] = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
            if split.sources is not None:
                arrays[f"{name}/files"] = np.array(split.sources.files)
                arrays[f"{name}/file"] = split.sources.file.astype(np.int32)
                arrays[f"{name}/row"] = split.sources.row
        # Opened here, because numpy would append .npz to the temporary file's name.
        with files.atomic_write(own) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        level = logging.INFO if error.errno in READ_ONLY else logging.WARNING
        log.log(
            level,
            "%s cannot be written (%s): the cache works, but explain and report show neither "
            "texts as they were written nor where they come from",
            own, error.strerror or error,
        )  # fmt: skip


def _holds(own: Path, key: str, splits: Mapping[str, Split]) -> bool:
    """Whether a file holds these texts, which `key` stands for, and their sources."""
    try:
        for name, split in splits.items():
            there = _load(own, key, name, len(split)).sources
            if (there is None) != (split.sources is None):
                return False
            if there is not None and split.sources is not None:
                same = there.files == split.sources.files
                same &= np.array_equal(there.file, split.sources.file)
                if not same or not np.array_equal(there.row, split.sources.row):
                    return False
    except SpaceliteError:
        return False
    return True


def data_path(cache: Cache) -> Path | None:
    """The file or folder that a cached data set was read from; None if it was read from none, or if
    that is not known, as for caches of older versions."""
    place = _data_path(texts_path(cache.path))
    return None if place is None else Path(place)


def _data_path(own: Path) -> str | None:
    try:
        with np.load(own, allow_pickle=False) as arrays:
            return str(arrays["data"])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error):
        return None


def files_and_rows(cache: Cache, split: str) -> tuple[Array, Array] | tuple[None, None]:
    """The file's name (N,) and row (N,) of each example of a split, as predictions record them;
    None if they are not known."""
    found = read(cache, split)
    if found is None or found.sources is None:
        return None, None
    return np.array(found.sources.files)[found.sources.file], found.sources.row


def read(cache: Cache, split: str) -> CachedTexts | None:
    """The texts of a split.

    Args:
        cache: The cache, open for reading.
        split: Name of the split.

    Returns:
        The texts; None if the cache has no such file, as those of older versions, or, with a
            warning in the log, if it is damaged.
    """
    own = texts_path(cache.path)
    try:
        stat = own.stat()
    except OSError:
        return None
    examples = len(cache.splits[split])
    return _read(own, cache.key, split, examples, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _read(
    own: Path, key: str, split: str, examples: int, modified: int, size: int
) -> CachedTexts | None:
    """The texts of a split. `modified` and `size` stand for the file's content, so that many
    examples of a file are read once, and a damaged file is named once."""
    try:
        return _load(own, key, split, examples)
    except SpaceliteError as error:
        log.warning("%s", error)
        return None


def _load(own: Path, key: str, split: str, examples: int) -> CachedTexts:
    """Raises SpaceliteError if the file is damaged or belongs to another cache."""
    try:
        with np.load(own, allow_pickle=False) as arrays:
            if str(arrays["key"]) != key:
                raise ValueError("it belongs to another cache")
            content = arrays[f"{split}/texts"].tobytes()
            offsets = arrays[f"{split}/offsets"]
            sources = None
            if f"{split}/row" in arrays:
                names = tuple(arrays[f"{split}/files"].tolist())
                file = arrays[f"{split}/file"].astype(np.int64)
                sources = Sources(names, file, arrays[f"{split}/row"])
        if len(offsets) != examples + 1 or offsets[-1] != len(content):
            raise ValueError("it holds other texts")
        if sources is not None and not len(sources) == len(sources.file) == examples:
            raise ValueError("it holds the sources of other texts")
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        # numpy's own message suggests unpickling the file.
        reason = "it is not an npz file" if "pickle" in str(error) else one_line(error, 80)
        raise SpaceliteError(
            f"{own} is damaged ({reason}): it is not used; run the embed command of the cache "
            "again to write it anew"
        ) from error
    return CachedTexts(content, offsets, sources)
