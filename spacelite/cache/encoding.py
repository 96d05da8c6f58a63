"""Texts -> hidden states in memory, without a data set: from the store of single texts, from the
caches of the same folder, or from the backbone, each text once.

The store holds the hidden states of every text that was embedded with the same backbone and
settings, in the order in which they came. It is a folder with three files: `settings.json`; `rows`,
the bytes of all texts end to end; and `index`, a record for each text, appended once its rows are
on disk. What a killed process leaves behind has no record, and is overwritten. Rows that have a
record never change.
"""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import threading
import zlib
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, get_type_hints

import numpy as np
from typing_extensions import override

from spacelite import files, pipeline
from spacelite.backbones.model import (
    Backbone,
    Forward,
    Output,
    default_budget,
    held_backbone,
    resolve_device,
)
from spacelite.backbones.tokenizer import held_tokenizer, tokenize
from spacelite.cache import reuse
from spacelite.cache.dtypes import Rounding, rounding_sums, stored_type
from spacelite.cache.spec import CacheSpec, Encoding, embeddings_folder, slug
from spacelite.cache.split import DIGEST_BYTES, TokenRows, digest, offsets_of, summary_token
from spacelite.cache.store import Layout
from spacelite.cache.writing import Journal, check_finite
from spacelite.data.splits import Pair, Text
from spacelite.errors import SpaceliteError, one_line
from spacelite.progress import OnProgress
from spacelite.types import Array

log = logging.getLogger(__name__)

FOLDER = "texts"  # the folder of all stores, inside cache_dir
FORMAT = 1
LAYOUT = get_type_hints(Layout)
RECORD = np.dtype(
    [
        ("digest", f"V{DIGEST_BYTES}"),  # of the text's token ids
        ("start", "<i8"),  # offset of its bytes in `rows`
        ("tokens", "<i4"),
        ("crc32", "<u4"),  # of its bytes
        ("check", "<u4"),  # CRC-32 of the record up to here
    ]
)


@dataclass(frozen=True, kw_only=True)
class Encoder(Encoding):
    """Embeds texts, and keeps their hidden states in `cache_dir`, the folder of caches and stores,
    unless it is None."""

    cache_dir: Path | None = None

    def encode(
        self,
        texts: Sequence[Text],
        on_progress: OnProgress = lambda phase, done, total: None,
        *,
        states: bool = True,
    ) -> TokenRows:
        """The hidden states of N texts, or of N pairs. Those that are neither in the store nor in a
        cache are run through the backbone, each once, and kept in the store; a second process that
        needs them meanwhile waits. Without `states`, texts are only tokenized: `rows` is (T, 0)."""
        encoding = _Encoding(self, texts, on_progress)
        if states:
            return encoding()
        return TokenRows.of_ids(encoding.tokens.kept)


class _Encoding:
    """One call of `encode`."""

    def __init__(self, encoder: Encoder, texts: Sequence[Text], on_progress: OnProgress) -> None:
        encoder.check()
        self.encoder, self.files, self.on_progress = encoder, encoder.files, on_progress
        self.spec = encoder.spec(self.files, pairs=isinstance(texts[0], Pair))
        self.tokens = tokenize(
            self.files,
            texts,
            **self.spec.tokenizing,
            tokenizer=held_tokenizer(self.files),
            on_chunk=lambda done: on_progress("tokenize", done, len(texts)),
            first=1,
        )
        self.lengths = np.array([len(ids) for ids in self.tokens.kept], np.int64)
        self.digests = [*map(digest, self.tokens.identities)]
        # The first text with the same token ids stands for all of them.
        self.first: dict[bytes, int] = {}
        for number, key in enumerate(self.digests):
            self.first.setdefault(key, number)

    def __call__(self) -> TokenRows:
        if self.encoder.cache_dir is None:
            model = self._model()
            texts = dict(self._computed(model, self.first))
            return self._joined(texts, Layout.of(model, self.encoder.dtype))
        store = _store(self.encoder.cache_dir, self.spec)
        lengths = {key: int(self.lengths[number]) for key, number in self.first.items()}
        texts = store.read(lengths)
        if len(texts) < len(self.first):
            files.make_folder(store.folder, "choose another cache_dir")
            with files.lock(store.rows, doing=f"embedding texts into {store.folder.name}"):
                # Another process may have written some while this one waited.
                texts |= store.read(lengths)
                if left := [key for key in self.first if key not in texts]:
                    texts |= self._added(store, left)
        layout = store.layout()
        assert layout is not None  # noqa: S101 - a text was written, or was there
        return self._joined(texts, layout)

    def _model(self) -> Backbone:
        self._embedded(0)
        device = resolve_device(self.encoder.device)
        return held_backbone(
            self.files,
            layer=self.spec.layer,
            device=device,
            precision=self.spec.precision,
            all_layers=True,
        )

    def _embedded(self, share: int) -> None:
        """Report that of all texts none or all (0 or 1) are embedded."""
        total = int(self.lengths[list(self.first.values())].sum())
        self.on_progress("embed", share * total, total)

    def _added(self, store: TextStore, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Add texts to the store, while it is locked for writing."""
        model = self._model()
        layout = Layout.of(model, self.encoder.dtype)
        texts: dict[bytes, bytes] = {}
        missing = (key for key in keys if key not in texts)  # after those that are copied
        computing = pipeline.reading(self._computed(model, missing))
        with computing as computed, Appender(store, layout) as appender:
            try:
                for key, text in itertools.chain(self._copied(keys, layout), computed):
                    texts[key] = text
                    appender.add(key, text, int(self.lengths[self.first[key]]))
                    appender.commit_at_times()
            finally:
                appender.commit()
        return texts

    def _copied(self, keys: Sequence[bytes], layout: Layout) -> Iterator[tuple[bytes, bytes]]:
        """The texts that finished caches of the same folder hold."""
        folder = embeddings_folder(self.encoder.cache_dir or Path())
        chosen, with_layers = [self.first[key] for key in keys], layout.layers > 0
        identities, ids = (
            [of_texts[example] for example in chosen]
            for of_texts in (self.tokens.identities, self.tokens.ids)
        )
        plan, copied = reuse.find(folder / ".h5", self.spec, identities, with_layers=with_layers), 0
        for row, values in reuse.copies(
            folder, self.spec, plan, plan.copied, ids, with_layers=with_layers
        ):
            if values is not None:
                parts = (values.get(name) for name in ("tokens", "pooled", "means"))
                yield keys[row], b"".join(part.content for part in parts if part)
                copied += 1
        if copied:
            log.info("%s of %s texts are in a cache already", copied, len(self.first))

    def _computed(self, model: Backbone, keys: Iterable[bytes]) -> Generator[tuple[bytes, bytes]]:
        """Run texts through the backbone."""
        examples = np.array([self.first[key] for key in keys], np.int64)
        if not len(examples):
            self._embedded(1)
            return
        stored = stored_type(self.encoder.dtype)
        rounding = Rounding(stored)
        limit = self.encoder.tokens_per_batch or default_budget(model.device)
        forward = Forward(model, self.tokens, stored.to_rows, limit, measure=rounding_sums(stored))

        def finish(batch: Array, output: Output) -> tuple[dict[bytes, bytes], Output]:
            texts = {}
            for row, example in enumerate(batch.tolist()):
                check_finite(output.hidden[row], stored, f"text {example + 1}")
                parts = (output.hidden, output.pooled, output.means)
                content = b"".join(part[row].tobytes() for part in parts if part is not None)
                texts[self.digests[example]] = content
            return texts, output

        with pipeline.reading(forward.texts(examples, finish, self.on_progress)) as results:
            for texts, output in results:
                for count, (measured,) in output.measured:
                    rounding.add(count, measured)
                yield from texts.items()
        rounding.warn()

    def _joined(self, by_digest: dict[bytes, bytes], layout: Layout) -> TokenRows:
        """The texts from their bytes: of each its hidden states as they are stored, the pooler's
        output and the layer means."""
        stored, pooled_bytes = layout.stored, 4 * layout.width * layout.pooled
        rows_end = (self.lengths * stored.row_bytes(layout.width)).tolist()
        texts = [np.frombuffer(by_digest[key], np.uint8) for key in self.digests]
        pairs = list(zip(texts, rows_end, strict=True))
        rows = np.concatenate([text[:end] for text, end in pairs]).view(stored.numpy)
        pooled = np.concatenate([text[end : end + pooled_bytes] for text, end in pairs])
        means = np.concatenate([text[end + pooled_bytes :] for text, end in pairs])
        return TokenRows(
            rows.reshape(-1, stored.row_values(layout.width)),
            offsets_of(self.lengths),
            stored,
            np.concatenate(self.tokens.kept),
            pooled.view(np.float32).reshape(len(texts), -1),
            means.view(np.float16).reshape(len(texts), -1),
            pooling=summary_token(
                self.tokens.padding_side, causal=layout.causal, skip_first=self.spec.skip_first
            ),
        )


@lru_cache(maxsize=8)
def _store(cache_dir: Path, spec: CacheSpec) -> TextStore:
    """The store of texts in `<cache_dir>/texts/<backbone>--<10 digits of the key>`, with the index
    that this process has read."""
    name = f"{slug(spec.backbone)}--{spec.cache_key()[:10]}"
    return TextStore(cache_dir / FOLDER / name, spec)


# The store.


class Entry(NamedTuple):
    """Where the bytes of a text are."""

    start: int
    tokens: int
    crc32: int


class TextStore:
    """A store of texts. Several processes may read it while one of them writes."""

    def __init__(self, folder: Path, spec: CacheSpec) -> None:
        """In a folder that need not exist; the data set of the spec is empty."""
        self.folder, self.spec = folder, spec
        self.rows, self.index = folder / "rows", folder / "index"
        self.index_end = 0  # bytes of the index that have been read
        self._entries: dict[bytes, Entry] = {}
        self._file: tuple[int, int] | None = None  # device and inode of the index that was read
        self._reading = threading.Lock()

    def layout(self) -> Layout | None:
        """What the bytes of a text are; None before the first text. Raises SpaceliteError if the
        store is damaged or of a later version."""
        path = self.folder / "settings.json"
        try:
            content = files.read_json(path)
            files.require_format(self.folder, content["format"], FORMAT)
            layout = Layout(**content["layout"])
            if content["spec"] != self.spec.as_json() or layout.dtype != self.spec.dtype:
                raise ValueError("it is of other settings")
            of_types = (type(value) is LAYOUT[name] for name, value in content["layout"].items())
            if not all(of_types) or min(layout.width - 1, layout.layers) < 0:
                raise ValueError("its sizes are damaged")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self.damage(path, one_line(error, 80)) from error
        return layout

    def damage(self, path: Path, reason: str) -> SpaceliteError:
        """What is raised if a file of the store cannot be used."""
        return SpaceliteError(
            f"{path} is damaged ({reason}): delete the folder {self.folder}, and texts are "
            "embedded again"
        )

    def entries(self) -> dict[bytes, Entry]:
        """The texts that are there, by the digest of their token ids. A damaged record is left out:
        its text is embedded again."""
        with self._reading:
            return dict(self._refreshed())

    def _refreshed(self) -> dict[bytes, Entry]:
        try:
            with files.open_regular(self.index) as file:
                state = os.fstat(file.fileno())
                if (state.st_dev, state.st_ino) != self._file or state.st_size < self.index_end:
                    self._entries, self.index_end = {}, 0
                    self._file = state.st_dev, state.st_ino
                file.seek(self.index_end)
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            self._entries, self.index_end, self._file = {}, 0, None
            return self._entries
        except (OSError, ValueError) as error:
            raise self.damage(self.index, one_line(error, 80)) from error
        count = len(content) // RECORD.itemsize  # the last record may be half written
        records = np.frombuffer(content, RECORD, count)
        for number, record in enumerate(records.tolist()):
            digest, start, tokens, crc32, check = record
            if zlib.crc32(content[number * RECORD.itemsize :][: RECORD.itemsize - 4]) == check:
                self._entries[bytes(digest)] = Entry(start, tokens, crc32)
        self.index_end += count * RECORD.itemsize
        return self._entries

    def read(self, lengths: Mapping[bytes, int]) -> dict[bytes, bytes]:
        """The bytes of those texts that are there and intact, by the digest of their token ids,
        whose number is given."""
        layout, entries = self.layout(), self.entries()
        wanted = [(entries[key], key) for key in lengths if key in entries]
        if layout is None or not wanted:
            return {}
        texts = {}
        try:
            with files.open_regular(self.rows) as file:
                size = os.fstat(file.fileno()).st_size
                for (start, tokens, crc32), key in sorted(wanted):  # in the order of the file
                    bytes_ = layout.bytes(tokens)
                    if start < 0 or tokens != lengths[key] or start + bytes_ > size:
                        continue
                    content = os.pread(file.fileno(), bytes_, start)
                    if zlib.crc32(content) == crc32:
                        texts[key] = content
        except (OSError, ValueError) as error:
            raise self.damage(self.rows, one_line(error, 80)) from error
        return texts


class Appender(Journal):
    """Appends texts to a store that is locked: `add` them, then `commit`, which makes them
    visible."""

    def __init__(self, store: TextStore, layout: Layout) -> None:
        super().__init__(_unwritable)
        self._rows, self._index = store.rows, store.index
        try:
            known = store.layout()
            # Older versions did not record `causal`.
            if known is not None and replace(known, causal=layout.causal) != layout:
                raise store.damage(store.folder / "settings.json", "it is of another backbone")
            if known is None:
                of_layout = asdict(layout)
                del of_layout["reduction"]  # a store has none
                content = {"format": FORMAT, "spec": store.spec.as_json(), "layout": of_layout}
                files.write_json(store.folder / "settings.json", content)
            ends = [entry.start + layout.bytes(entry.tokens) for entry in store.entries().values()]
            for path in (self._rows, self._index):
                path.touch()
            os.truncate(self._index, store.index_end)  # the last record may be half written
        except OSError as error:
            raise _unwritable(self._index, error) from error
        self._rows_end, self._index_end = max(ends, default=0), store.index_end

    def add(self, digest: bytes, content: bytes, tokens: int) -> None:
        """Write the bytes of a text. Raises SpaceliteError if the disk is full."""
        self.put(self._rows, self._rows_end, content)
        record = np.zeros(1, RECORD)
        record["digest"] = np.frombuffer(digest, RECORD["digest"])
        record["start"], record["tokens"] = self._rows_end, tokens
        record["crc32"] = zlib.crc32(content)
        record["check"] = zlib.crc32(record.tobytes()[:-4])
        self.mark(self._index, self._index_end, record.tobytes())
        self._rows_end += len(content)
        self._index_end += RECORD.itemsize

    @override
    def commit(self) -> None:
        """Sync the texts, then append their records and sync these: a loss of power costs no text
        that was committed."""
        marked = bool(self._marks)
        super().commit()
        if marked:
            self._sync(self._index)


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
    deleted, or is a link to a folder, which stays as it is."""
    if folder.is_symlink():
        raise SpaceliteError(f"{folder} is a link to {folder.resolve()}: delete the link itself")
    try:
        with files.lock(folder / "rows"):
            for name in ("index", "rows", "settings.json"):
                (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise SpaceliteError(f"{folder} cannot be removed: {error.strerror}") from error
