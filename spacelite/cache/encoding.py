"""Texts -> hidden states in memory, without a data set: from the store of single texts, from the
caches of the same folder, or from the backbone, each text once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.backbones.model import (
    Backbone,
    Forward,
    Output,
    default_budget,
    held_backbone,
    plan_batches,
    resolve_device,
)
from spacelite.backbones.tokenizer import Tokenized, held_tokenizer, tokenize
from spacelite.cache import reuse
from spacelite.cache.dtypes import Rounding, rounding_sums, stored_type
from spacelite.cache.reuse import Source
from spacelite.cache.rows import TokenRows, offsets_of
from spacelite.cache.spec import CacheSpec, Encoding, embeddings_folder
from spacelite.cache.split import digest
from spacelite.cache.store import Layout
from spacelite.cache.text_store import TextStore, store_folder
from spacelite.cache.writing import check_finite
from spacelite.errors import SpaceliteError
from spacelite.progress import OnProgress

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Encoder(Encoding):
    """Embeds texts, and keeps their hidden states in `cache_dir`, the folder of caches and stores,
    unless it is None."""

    cache_dir: Path | None = None

    def encode(
        self,
        texts: Sequence[str],
        on_progress: OnProgress = lambda phase, done, total: None,
        *,
        states: bool = True,
    ) -> TokenRows:
        """The hidden states of N texts. Those that are neither in the store nor in a cache are run
        through the backbone, each once, and kept in the store; a second process that needs them
        meanwhile waits. Without `states`, texts are only tokenized, and `rows` is (T, 0)."""
        encoding = _Encoding(self, texts, on_progress)
        return encoding() if states else encoding.tokens_only()


class _Encoding:
    """One call of `encode`."""

    def __init__(self, encoder: Encoder, texts: Sequence[str], on_progress: OnProgress) -> None:
        encoder.check()
        self.encoder, self.files, self.on_progress = encoder, encoder.files, on_progress
        self.spec = encoder.spec(self.files)
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
            return self._joined(dict(self._computed(self._model(), list(self.first))))
        kept = _store(store_folder(self.encoder.cache_dir, self.spec), self.spec)
        texts = self._stored(kept, self.first)
        if len(texts) < len(self.first):
            with kept.writing():
                # Another process may have written some while this one waited.
                texts |= self._stored(kept, [key for key in self.first if key not in texts])
                if left := [key for key in self.first if key not in texts]:
                    texts |= self._added(kept, left)
        return self._joined(texts)

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

    def _stored(self, kept: TextStore, keys: Iterable[bytes]) -> dict[bytes, TokenRows]:
        """The texts that the store holds, by digest."""
        layout, entries = kept.layout(), kept.entries()
        known = [key for key in keys if key in entries]
        if layout is None or not known:
            return {}
        # In the order of the file.
        known.sort(key=lambda key: entries[key].start)
        texts = kept.take([entries[key] for key in known], layout)
        return {key: text for key, text in zip(known, texts, strict=True) if text is not None}

    def _model(self) -> Backbone:
        total = sum(len(self.tokens.ids[example]) for example in self.first.values())
        self.on_progress("embed", 0, total)
        device = resolve_device(self.encoder.device)
        return held_backbone(self.files, layer=self.encoder.layer, device=device, all_layers=True)

    def _added(self, kept: TextStore, keys: Sequence[bytes]) -> dict[bytes, TokenRows]:
        """Add texts to the store, while it is locked for writing."""
        model = self._model()
        layout = Layout.of(model, self.encoder.dtype)
        texts: dict[bytes, TokenRows] = {}
        with kept.begin(layout) as appender:
            try:
                for key, text in self._copied(keys, layout):
                    texts[key] = text
                    appender.add(key, text)
                if texts:
                    log.info("%s of %s texts are in a cache already", len(texts), len(self.first))
                for key, text in self._computed(model, [key for key in keys if key not in texts]):
                    texts[key] = text
                    appender.add(key, text)
                    appender.commit_at_times()
            finally:
                appender.commit()
        return texts

    def _copied(self, keys: Sequence[bytes], layout: Layout) -> Iterator[tuple[bytes, TokenRows]]:
        """The texts that finished caches of the same folder hold."""
        folder = embeddings_folder(self.encoder.cache_dir or Path())
        ids, with_layers = [self.tokens.ids[self.first[key]] for key in keys], layout.layers > 0
        plan = reuse.find(folder / ".h5", self.spec, ids, with_layers=with_layers)
        for number, name in enumerate(plan.caches):
            with Source(folder / f"{name}.h5", self.spec, with_layers=with_layers) as source:
                for row in np.flatnonzero(plan.cache == number).tolist():
                    values = source.take(*plan.place(row), ids[row])
                    if values is not None:
                        pooled, means = (
                            values[name].values if name in values else None
                            for name in ("pooled", "means")
                        )
                        hidden = values["tokens"].values[None]
                        yield keys[row], TokenRows.of_batch(layout.stored, hidden, pooled, means)

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
        forward = Forward(model, self.tokens, stored.to_rows, limit, measure=rounding_sums(stored))
        key_of = dict(zip(examples.tolist(), keys, strict=True))
        plan = (examples[batch] for batch in plan_batches(lengths, limit))
        done, total = 0, int(lengths.sum())
        for batch, output in forward.batches(plan, finish, sharing=True):
            for count, (measured,) in output.measured:
                rounding.add(count, measured)
            for row, example in enumerate(batch.tolist()):
                text = slice(row, row + 1)
                pooled, means = (
                    None if values is None else values[text]
                    for values in (output.pooled, output.means)
                )
                yield (
                    key_of[example],
                    TokenRows.of_batch(stored, output.hidden[text], pooled, means),
                )
            done += len(batch) * len(self.tokens.ids[batch[0]])
            self.on_progress("embed", done, total)
        rounding.warn()

    def _joined(self, by_digest: dict[bytes, TokenRows]) -> TokenRows:
        texts = TokenRows.joined([by_digest[key] for key in self.digests])
        ids, side = np.concatenate(self.tokens.ids), self.tokens.padding_side
        return replace(texts, token_ids=ids, padding_side=side)


@lru_cache(maxsize=8)
def _store(folder: Path, spec: CacheSpec) -> TextStore:
    """The store, with the index that this process has read."""
    return TextStore(folder, spec)
