"""The store of single texts: the hidden states of every text that was embedded with the same
backbone and settings, in the order in which they came, so that none is embedded twice.

A folder with three files: `settings.json`; `rows`, the bytes of all texts end to end; and `index`,
a record for each text, appended once its rows are on disk. What a killed process leaves behind has
no record, and is overwritten. Rows that have a record never change.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spacelite import files
from spacelite.cache.rows import TokenRows
from spacelite.cache.spec import CacheSpec, slug
from spacelite.cache.split import DIGEST_BYTES
from spacelite.cache.store import Layout
from spacelite.cache.writing import Journal
from spacelite.errors import SpaceliteError

FOLDER = "texts"  # the folder of all stores, inside cache_dir
FORMAT = 1
RECORD = np.dtype(
    [
        ("digest", f"V{DIGEST_BYTES}"),  # of the text's token ids
        ("start", "<i8"),  # offset of its bytes in `rows`
        ("tokens", "<i4"),
        ("crc32", "<u4"),  # of its bytes
        ("check", "<u4"),  # CRC-32 of the record up to here
    ]
)

Array = npt.NDArray[Any]


class Entry(NamedTuple):
    """Where the bytes of a text are."""

    start: int
    tokens: int
    crc32: int


def _content(text: TokenRows) -> bytes:
    """The bytes of a text."""
    parts = (text.rows, text.pooled, text.layer_means)
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


def _text(content: bytes, tokens: int, layout: Layout) -> TokenRows:
    """A text from its bytes."""
    stored, width = layout.stored, layout.width
    hidden = np.frombuffer(content, stored.numpy, tokens * stored.row_values(width))
    start, pooled, means = hidden.nbytes, None, None
    if layout.pooled:
        pooled = np.frombuffer(content, np.float32, width, start)[None]
        start += pooled.nbytes
    if layout.layers:
        means = np.frombuffer(content, np.float16, width * layout.layers, start)
    return TokenRows.of_batch(
        stored, hidden.reshape(1, tokens, -1), pooled, None if means is None else means[None]
    )


def store_folder(cache_dir: Path, spec: CacheSpec) -> Path:
    """The folder of a store: `<cache_dir>/texts/<backbone>--<10 digits of the key>`."""
    return cache_dir / FOLDER / f"{slug(spec.backbone)}--{spec.cache_key()[:10]}"


class TextStore:
    """A store of texts. Several processes may read it while one of them writes."""

    def __init__(self, folder: Path, spec: CacheSpec) -> None:
        """In a folder that need not exist; the data set of the spec is empty."""
        self.folder, self.spec = folder, spec
        self._rows, self._index = folder / "rows", folder / "index"
        self._entries: dict[bytes, Entry] = {}
        self._read = 0  # bytes of the index that have been read
        self._file: tuple[int, int] | None = None  # device and inode of the index that was read
        self._reading = threading.Lock()

    def layout(self) -> Layout | None:
        """What the bytes of a text are; None before the first text. Raises SpaceliteError if the
        store is damaged or of a later version."""
        path = self.folder / "settings.json"
        try:
            content = json.loads(path.read_text("utf-8"))
            if content["format"] > FORMAT:
                raise SpaceliteError(
                    f"{self.folder} has format {content['format']}, this spacelite reads {FORMAT}: "
                    "upgrade spacelite"
                )
            return Layout(**content["layout"])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SpaceliteError(
                f"{path} is damaged: delete the folder {self.folder}, and texts are embedded again"
            ) from error

    def entries(self) -> dict[bytes, Entry]:
        """The texts that are there, by the digest of their token ids. A damaged record is left out:
        its text is embedded again."""
        with self._reading:
            return dict(self._refreshed())

    def _refreshed(self) -> dict[bytes, Entry]:
        try:
            with self._index.open("rb") as file:
                state = os.fstat(file.fileno())
                if (state.st_dev, state.st_ino) != self._file or state.st_size < self._read:
                    self._entries, self._read = {}, 0
                    self._file = state.st_dev, state.st_ino
                file.seek(self._read)
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            self._entries, self._read, self._file = {}, 0, None
            return self._entries
        except OSError as error:
            raise SpaceliteError(f"{self._index} cannot be read: {error.strerror}") from error
        count = len(content) // RECORD.itemsize  # the last record may be half written
        records = np.frombuffer(content, RECORD, count)
        for number, record in enumerate(records.tolist()):
            digest, start, tokens, crc32, check = record
            if zlib.crc32(content[number * RECORD.itemsize :][: RECORD.itemsize - 4]) == check:
                self._entries[bytes(digest)] = Entry(start, tokens, crc32)
        self._read += count * RECORD.itemsize
        return self._entries

    def take(self, entries: list[Entry], layout: Layout) -> Iterator[TokenRows | None]:
        """Read texts, as plain bytes; None for one that is damaged."""
        try:
            file = os.open(self._rows, os.O_RDONLY)
        except OSError as error:
            raise SpaceliteError(f"{self._rows} cannot be read: {error.strerror}") from error
        try:
            for start, tokens, crc32 in entries:
                content = os.pread(file, layout.bytes(tokens), start)
                intact = zlib.crc32(content) == crc32
                yield _text(content, tokens, layout) if intact else None
        except OSError as error:
            raise SpaceliteError(f"{self._rows} cannot be read: {error.strerror}") from error
        finally:
            os.close(file)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Lock the store for appending. Raises SpaceliteError if it cannot be written."""
        files.make_folder(self.folder, "choose another cache_dir")
        with files.lock(self._rows, doing=f"embedding texts into {self.folder.name}"):
            yield

    def begin(self, layout: Layout) -> Appender:
        """Append texts; only while `writing`."""
        try:
            if self.layout() is None:
                content = {"format": FORMAT, "spec": self.spec.as_json(), "layout": asdict(layout)}
                files.write_json(self.folder / "settings.json", content)
            entries = self.entries()
            for path in (self._rows, self._index):
                path.touch()
            os.truncate(self._index, self._read)  # the last record may be half written
        except OSError as error:
            raise _unwritable(self._index, error) from error
        end = max(
            (entry.start + layout.bytes(entry.tokens) for entry in entries.values()), default=0
        )
        return Appender(self._rows, end, self._index, self._read)


class Appender(Journal):
    """Appends texts to a store: `add` them, then `commit`, which makes them visible."""

    def __init__(self, rows: Path, rows_end: int, index: Path, index_end: int) -> None:
        super().__init__(_unwritable)
        self._rows, self._rows_end, self._index, self._index_end = rows, rows_end, index, index_end

    def add(self, digest: bytes, text: TokenRows) -> None:
        """Write the bytes of a text. Raises SpaceliteError if the disk is full."""
        content = _content(text)
        self.put(self._rows, self._rows_end, content)
        record = np.zeros(1, RECORD)
        record["digest"] = np.frombuffer(digest, RECORD["digest"])
        record["start"], record["tokens"] = self._rows_end, text.tokens
        record["crc32"] = zlib.crc32(content)
        record["check"] = zlib.crc32(record.tobytes()[:-4])
        self.mark(self._index, self._index_end, record.tobytes())
        self._rows_end += len(content)
        self._index_end += RECORD.itemsize


def _unwritable(path: Path, error: OSError) -> SpaceliteError:
    return SpaceliteError(
        f"writing to {path.parent} failed: {error.strerror or error}; fix that, or choose another "
        "cache_dir, and try again (what is there already is kept)",
        ["cache_dir"],
    )


class StoreState(NamedTuple):
    """A store as listings show it: its folder, its number of texts, its size in bytes."""

    folder: Path
    texts: int
    bytes: int


def stores(cache_dir: Path) -> list[StoreState]:
    """The stores of a folder, by name."""
    states = []
    for path in sorted((cache_dir / FOLDER).glob("*/settings.json")):
        size = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
        index = path.parent / "index"
        texts = index.stat().st_size // RECORD.itemsize if index.exists() else 0
        states.append(StoreState(path.parent, texts, size))
    return states


def remove_store(folder: Path) -> None:
    """Delete a store, once no other process is writing to it. Raises SpaceliteError if it cannot be
    deleted."""
    try:
        with files.lock(folder / "rows"):
            for name in ("index", "rows", "settings.json"):
                (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise SpaceliteError(f"{folder} cannot be removed: {error.strerror}") from error
