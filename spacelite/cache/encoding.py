"""Texts -> hidden states in memory, without a data set: from the store of single texts, from the
caches of the same folder, or from the backbone, each text once."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.backbones.files import BackboneFiles, located
from spacelite.backbones.model import (
    Backbone,
    Forward,
    Output,
    check_budget,
    default_budget,
    forward_precision,
    held_backbone,
    plan_batches,
    resolve_device,
)
from spacelite.backbones.tokenizer import Tokenized, held_tokenizer, tokenize
from spacelite.cache import reuse, store
from spacelite.cache.dtypes import stored_type
from spacelite.cache.embedding import PADDINGS
from spacelite.cache.reuse import Source
from spacelite.cache.rounding import Rounding, measure
from spacelite.cache.rows import TokenRows, offsets_of
from spacelite.cache.spec import CacheSpec, embeddings_folder
from spacelite.cache.split import digest
from spacelite.cache.text_store import Appender, Layout, TextStore, store_folder
from spacelite.cache.tokenizing import OnProgress
from spacelite.cache.writing import COMMIT_SECONDS, check_finite
from spacelite.errors import SpaceliteError

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Encoder:
    """How texts are embedded, as in `embed`.

    Attributes:
        backbone: A hub name, a local folder, or `minilm`.
        revision: Commit, branch or tag of a hub backbone.
        layer: Layer of the hidden states: -1 the last, 0 the embedding layer.
        max_length: Maximum tokens per text.
        dtype: Number type in which hidden states are stored.
        padding: `none` or `max_length`.
        device: Device of the backbone.
        tokens_per_batch: Maximum tokens per forward pass; None for the default.
        cache_dir: Folder of caches and stores; None to keep nothing on disk.
    """

    backbone: str = "minilm"
    revision: str | None = None
    layer: int = -1
    max_length: int = 256
    dtype: str = "float16"
    padding: str = "none"
    device: str = "auto"
    tokens_per_batch: int | None = None
    cache_dir: Path | None = None

    @property
    def files(self) -> BackboneFiles:
        """The backbone's files. Raises SpaceliteError if they are not found."""
        return located(self.backbone, self.revision)

    def spec(self) -> CacheSpec:
        """Everything that the hidden states of a text depend on; its data set is empty.

        Raises:
            SpaceliteError: There is no such backbone or number type, or the device does not work.
        """
        stored_type(self.dtype)
        if self.padding not in PADDINGS:
            raise SpaceliteError(
                f"padding={self.padding}: choose {' or '.join(PADDINGS)}", ["padding"]
            )
        check_budget(self.tokens_per_batch)
        own = self.files
        return CacheSpec(
            format=store.FORMAT,
            dataset="texts",
            dataset_hash="",
            label_names=(),
            backbone=own.name,
            backbone_version=own.version,
            tokenizer_hash=own.tokenizer_hash,
            max_length=self.max_length,
            layer=self.layer,
            padding=self.padding,
            dtype=self.dtype,
            precision=forward_precision(resolve_device(self.device)),
        )

    def encode(
        self,
        texts: Sequence[str],
        on_progress: OnProgress = lambda phase, done, total: None,
        *,
        states: bool = True,
    ) -> TokenRows:
        """The hidden states of N texts. Those that are neither in the store nor in a cache are run
        through the backbone, each once, and kept in the store; a second process that needs them
        meanwhile waits.

        Args:
            texts: N texts, none of them empty.
            on_progress: Called with the phase (`tokenize`, `embed`), the amount done and the total.
            states: Whether hidden states are needed; otherwise texts are only tokenized, and
                `rows` is (T, 0).

        Raises:
            SpaceliteError: The backbone or a setting cannot be used, a text has no token, or disk
                or memory are full.
        """
        encoding = _Encoding(self, texts, on_progress)
        return encoding() if states else encoding.tokens_only()


class _Encoding:
    """One call of `encode`."""

    def __init__(self, encoder: Encoder, texts: Sequence[str], on_progress: OnProgress) -> None:
        self.encoder, self.spec, self.on_progress = encoder, encoder.spec(), on_progress
        self.files = encoder.files
        self.tokens = self._tokenized(texts)
        self.digests = [digest(ids) for ids in self.tokens.ids]
        # The first text with the same token ids stands for all of them.
        self.first: dict[bytes, int] = {}
        for number, key in enumerate(self.digests):
            self.first.setdefault(key, number)

    def _tokenized(self, texts: Sequence[str]) -> Tokenized:
        tokens = tokenize(
            self.files,
            texts,
            max_length=self.encoder.max_length,
            padding=self.encoder.padding,
            tokenizer=held_tokenizer(self.files),
            on_chunk=lambda done: self.on_progress("tokenize", done, len(texts)),
        )
        for number, ids in enumerate(tokens.ids, 1):
            if not len(ids):
                raise SpaceliteError(
                    f"text {number} has no token that {self.files.name} knows: leave it out"
                )
        return tokens

    def __call__(self) -> TokenRows:
        if self.encoder.cache_dir is None:
            model = self._model()
            found = dict(self._computed(model, list(self.first)))
            return self._joined(found)
        kept = _store(store_folder(self.encoder.cache_dir, self.spec), self.spec)
        found = self._there(kept, self.first)
        if len(found) < len(self.first):
            with kept.writing():
                # Another process may have written some while this one waited.
                missing = {key: 0 for key in self.first if key not in found}
                found |= self._there(kept, missing)
                left = [key for key in missing if key not in found]
                if left:
                    found |= self._added(kept, left)
        return self._joined(found)

    def tokens_only(self) -> TokenRows:
        """The token ids, without hidden states."""
        stored = stored_type(self.encoder.dtype)
        ids = self.tokens.ids
        return TokenRows(
            np.empty((sum(map(len, ids)), 0), stored.numpy),
            offsets_of(np.array(list(map(len, ids)))),
            stored,
            np.concatenate(ids),
            padding_side=self.tokens.padding_side,
        )

    def _there(self, kept: TextStore, keys: dict[bytes, int]) -> dict[bytes, TokenRows]:
        """The texts that the store holds, by digest."""
        layout, entries = kept.layout(), kept.entries()
        known = [key for key in keys if key in entries]
        if layout is None or not known:
            return {}
        # In the order of the file.
        known.sort(key=lambda key: entries[key].start)
        read = kept.take([entries[key] for key in known], layout)
        return {key: one for key, one in zip(known, read, strict=True) if one is not None}

    def _model(self) -> Backbone:
        self.on_progress("embed", 0, sum(len(self.tokens.ids[one]) for one in self.first.values()))
        device = resolve_device(self.encoder.device)
        return held_backbone(self.files, layer=self.encoder.layer, device=device, all_layers=True)

    def _added(self, kept: TextStore, keys: Sequence[bytes]) -> dict[bytes, TokenRows]:
        """Add texts to the store, while it is locked for writing."""
        model = self._model()
        layout = _layout(model, self.encoder.dtype)
        found: dict[bytes, TokenRows] = {}
        appender = kept.begin(layout)
        try:
            for key, states in self._copied(keys, layout):
                found[key] = states
                appender.add(key, states)
            if found:
                log.info("%s of %s texts are in a cache already", len(found), len(self.first))
            self._append(appender, model, [key for key in keys if key not in found], found)
        finally:
            appender.close()
        return found

    def _append(
        self,
        appender: Appender,
        model: Backbone,
        keys: Sequence[bytes],
        found: dict[bytes, TokenRows],
    ) -> None:
        committed = time.monotonic()
        try:
            for key, states in self._computed(model, keys):
                appender.add(key, states)
                found[key] = states
                if time.monotonic() - committed > COMMIT_SECONDS:
                    appender.commit()
                    committed = time.monotonic()
        finally:
            appender.commit()

    def _copied(self, keys: Sequence[bytes], layout: Layout) -> list[tuple[bytes, TokenRows]]:
        """The texts that finished caches of the same folder hold."""
        folder = embeddings_folder(self.encoder.cache_dir or Path())
        ids = [self.tokens.ids[self.first[key]] for key in keys]
        plan = reuse.find(folder / ".h5", self.spec, ids, with_layers=layout.layers > 0)
        found = []
        with ExitStack() as stack:
            for number, name in enumerate(plan.caches):
                source = stack.enter_context(
                    Source(folder / f"{name}.h5", self.spec, with_layers=layout.layers > 0)
                )
                for row in np.flatnonzero(plan.cache == number).tolist():
                    split = reuse.SPLITS[plan.split[row]]
                    taken = source.take(split, int(plan.row[row]), ids[row])
                    if taken is not None:
                        hidden = taken.rows.values[None]
                        pooled, means = (part and part.values[None] for part in taken[1:])
                        text = TokenRows.of_batch(layout.stored, hidden, pooled, means)
                        found.append((keys[row], text))
        return found

    def _computed(
        self, model: Backbone, keys: Sequence[bytes]
    ) -> Iterator[tuple[bytes, TokenRows]]:
        """Run texts through the backbone."""
        examples = np.array([self.first[key] for key in keys], np.int64)
        if not len(examples):
            return
        stored = stored_type(self.encoder.dtype)
        rounding = Rounding(stored)

        def finish(batch: Array, output: Output) -> tuple[Array, Output]:
            for row, example in enumerate(batch.tolist()):
                check_finite(output.hidden[row], stored, f"text {example + 1}")
            return batch, output

        lengths = np.array([len(self.tokens.ids[example]) for example in examples], np.int64)
        limit = self.encoder.tokens_per_batch or default_budget(model.device)
        forward = Forward(model, self.tokens, stored.to_rows, limit, measure=measure(stored))
        key_of = dict(zip(examples.tolist(), keys, strict=True))
        plan = (examples[batch] for batch in plan_batches(lengths, limit))
        done, total = 0, int(lengths.sum())
        for batch, output in forward.batches(plan, finish, sharing=True):
            for count, (measured,) in output.measured:
                rounding.add(count, measured)
            for row, example in enumerate(batch.tolist()):
                one = slice(row, row + 1)
                yield (
                    key_of[example],
                    TokenRows.of_batch(
                        stored,
                        output.hidden[one],
                        None if output.pooled is None else output.pooled[one],
                        None if output.means is None else output.means[one],
                    ),
                )
            done += len(batch) * len(self.tokens.ids[batch[0]])
            self.on_progress("embed", done, total)
        rounding.warn()

    def _joined(self, found: dict[bytes, TokenRows]) -> TokenRows:
        texts = TokenRows.joined([found[key] for key in self.digests])
        ids, side = np.concatenate(self.tokens.ids), self.tokens.padding_side
        return replace(texts, token_ids=ids, padding_side=side)


def _layout(model: Backbone, dtype: str) -> Layout:
    layers = model.layers if model.all_layers else 0
    return Layout(model.width, dtype, model.has_pooler, layers)


@lru_cache(maxsize=8)
def _store(folder: Path, spec: CacheSpec) -> TextStore:
    """The store, with the index that this process has read."""
    return TextStore(folder, spec)
