"""Texts -> probabilities, with a saved head and the backbone that it was trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from spacelite import heads, pipeline
from spacelite.backbones.files import BackboneFiles
from spacelite.backbones.model import (
    Backbone,
    Forward,
    default_budget,
    held_backbone,
    precision_here,
    resolve_device,
)
from spacelite.backbones.tokenizer import Tokenized, held_tokenizer, tokenize, unknown_shares
from spacelite.cache.dtypes import stored_type
from spacelite.cache.spec import Encoding
from spacelite.cache.split import TokenRows
from spacelite.data.columns import text_problem
from spacelite.data.splits import Pair, Text, joined
from spacelite.errors import SpaceliteError
from spacelite.lazy import torch
from spacelite.progress import OnProgress
from spacelite.runs.store import Run
from spacelite.settings import optional, require, whole_number
from spacelite.types import Array

log = logging.getLogger(__name__)

# The first batch of a stream is small, so that the first results come soon.
FIRST_TEXTS, TEXTS = 100, 1000
CHARACTERS = 4_000_000  # with which a batch is full, too


@dataclass(frozen=True)
class Predicted:
    """What is predicted for N texts."""

    probabilities: Array  # of each label, (N, C) float64; independent in a multi-label run
    unknown: Array  # share of each text's tokens that the backbone does not know, (N,) float64
    cut_off: Array  # which texts were cut off at the maximum length, (N,) bool

    @property
    def truncated(self) -> int:
        """Number of texts that were cut off."""
        return int(self.cut_off.sum())


class Predictor:
    """A run's head and its backbone, which are loaded once for any number of texts.

    Texts pass through the backbone as the run's training data did, with hidden states rounded to
    the stored type, so that a text of the cache gets the same result as its cached hidden states.
    Raises SpaceliteError if the backbone is not found, or not the run's.
    """

    def __init__(
        self,
        run: Run,
        backbone: str | None = None,
        *,
        device: str = "auto",
        tokens_per_batch: int | None = None,
        precision: str | None = None,
    ) -> None:
        """`precision` is the number type of the forward pass, by default that of the run's data."""
        require("tokens_per_batch", tokens_per_batch, optional(whole_number(1)))
        self.run, self.device, self.tokens_per_batch = run, device, tokens_per_batch
        self.precision = precision or run.record.spec.precision
        self.files = backbone_files(run, backbone)

    @cached_property
    def model(self) -> Backbone:
        """The backbone; of all layers if the head reads them."""
        spec, device = self.run.record.spec, resolve_device(self.device)
        return held_backbone(
            self.files,
            layer=spec.layer,
            device=device,
            precision=precision_here(self.precision, device),
            all_layers=self.run.head.reads_layers,
        )

    @property
    def reduce(self) -> list[Callable[[torch.Tensor], torch.Tensor]]:
        """What reduces hidden states as those that the run was trained on, if they were."""
        reduction = self.run.reduction
        return [] if reduction is None else [reduction.on(self.model.device)]

    def load(self) -> None:
        """Load all that predictions need: the head, the tokenizer, and the backbone if the head
        reads its hidden states."""
        _ = self.run.parameters
        held_tokenizer(self.files)
        if not self.run.head.reads_only_ids:
            _ = self.model

    def tokenize(
        self,
        texts: Sequence[Text],
        on_progress: OnProgress = lambda phase, done, total: None,
        before: int = 0,
    ) -> Tokenized:
        """Tokenize texts as the run's training data; `before` texts came before, for messages."""
        check(self.run, texts, before)
        return tokenize(
            self.files,
            texts,
            **self.run.record.spec.tokenizing,
            tokenizer=held_tokenizer(self.files),
            on_chunk=lambda done: on_progress("tokenize", done, len(texts)),
            first=before + 1,
        )

    def hidden_states(
        self, tokens: Tokenized, on_progress: OnProgress = lambda phase, done, total: None
    ) -> Generator[tuple[Array, TokenRows]]:
        """Yield batches of texts of equal length: their indices (B,) and hidden states."""
        # Before the backbone is loaded, which may take long.
        on_progress("embed", 0, sum(map(len, tokens.ids)))
        stored = stored_type(self.run.record.spec.dtype)
        limit = self.tokens_per_batch or default_budget(self.model.device)
        forward = Forward(self.model, tokens, stored.to_rows, limit, reduce=self.reduce)
        kept = tokens.kept
        every = np.arange(len(kept))
        with pipeline.reading(forward.texts(every, lambda *pair: pair, on_progress)) as results:
            for batch, output in results:
                ids = np.stack([kept[number] for number in batch])
                rows = TokenRows.of_batch(stored, output.hidden, output.pooled, output.means, ids)
                yield batch, rows

    def predict(
        self,
        texts: Sequence[Text],
        on_progress: OnProgress = lambda phase, done, total: None,
        before: int = 0,
    ) -> Predicted:
        """Classify N texts; `before` texts came before, for messages."""
        run = self.run
        tokens = self.tokenize(texts, on_progress, before)
        of_ids = TokenRows.of_ids(tokens.kept)
        if run.head.reads_only_ids:
            logits = head_logits(run, of_ids)
        else:
            logits = np.empty((len(texts), len(run.record.label_names)))
            with pipeline.reading(self.hidden_states(tokens, on_progress)) as batches:
                for batch, rows in batches:
                    logits[batch] = head_logits(run, rows)
        unknown = unknown_shares(of_ids.token_ids, of_ids.offsets, tokens.special)
        return Predicted(run.record.task.probabilities(logits), unknown, tokens.cut_off)

    def predict_batches(
        self,
        texts: Iterable[Text],
        *,
        total: int | None = None,
        on_progress: OnProgress = lambda phase, done, total: None,
    ) -> Iterator[tuple[list[Text], Predicted]]:
        """Classify a stream of texts, which is read only as far as results are asked for: memory
        holds one batch at a time. `total` is their number, if known, for the progress."""
        done = truncated = 0
        for batch in _batches(texts):

            def advance(
                phase: str, part: int, whole: int, before: int = done, size: int = len(batch)
            ) -> None:
                if phase == "embed":
                    on_progress("predict", before + size * part // max(1, whole), total or 0)

            predicted = self.predict(batch, advance, before=done)
            done, truncated = done + len(batch), truncated + predicted.truncated
            on_progress("predict", done, total or 0)
            yield batch, predicted
        if not done:
            raise SpaceliteError("there is no text: give at least one")
        warn_of_truncated(self.run, truncated, done)


def head_logits(run: Run, rows: TokenRows) -> Array:
    """The logits (N, C) of a run's head for texts in memory."""
    if run.head.reads_only_ids:  # which needs no torch
        kind = heads.kind(run.head.kind)
        return kind.logits_of_ids(run.head, run.parameters, rows.token_ids, rows.offsets)
    from spacelite.heads.base import Objective
    from spacelite.training import engine

    objective = Objective(run.record.task, len(run.record.label_names))
    return engine.predict(run.head, run.parameters, objective, rows)


def _batches(texts: Iterable[Text]) -> Iterator[list[Text]]:
    batch: list[Text] = []
    characters, most = 0, FIRST_TEXTS
    for text in texts:
        batch.append(text)
        characters += len(joined(text, "")) if isinstance(text, str | Pair) else 0
        if len(batch) >= most or characters >= CHARACTERS:
            yield batch
            batch, characters, most = [], 0, TEXTS
    if batch:
        yield batch


def warn_of_truncated(run: Run, truncated: int, count: int) -> None:
    """Warn if some of `count` texts were cut off at the maximum length."""
    spec = run.record.spec
    if truncated:
        log.warning(
            "%s of %s %s%s longer than %s tokens: the rest is ignored%s",
            truncated, count, "pair" if spec.pairs else "text", " is" if count == 1 else "s are",
            spec.max_length, ", of the longer text first" if spec.pairs else "",
        )  # fmt: skip


def check_share(name: str, value: Any) -> float:
    """A share that is above 0, such as the minimum probability of labels, as a float."""
    try:
        number = float("nan" if isinstance(value, str | bool) else value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number <= 1:
        raise SpaceliteError(f"{name}={value}: give a number above 0 and at most 1", [name])
    return number


def check(run: Run, texts: Sequence[Any], before: int = 0) -> None:
    """Raise SpaceliteError if there is no text, or one that the run cannot read: an empty one, or a
    pair of texts if it reads single ones. `before` texts came before."""
    if not texts:
        raise SpaceliteError("there is no text: give at least one")
    pairs = run.record.spec.pairs
    for number, text in enumerate(texts, before + 1):
        if isinstance(text, str | Pair):
            is_pair = isinstance(text, Pair)
            given = f"text {number} is {'a pair' if is_pair else 'a single one'}"
            require_kind(run, given, pairs=is_pair)
        if problem := text_problem(text, of_pairs=pairs):
            raise SpaceliteError(f"text {number} {problem}")


def require_kind(run: Run, given: str, *, pairs: bool) -> None:
    """Raise SpaceliteError for `pairs` of texts if a run reads single ones, and the other way
    round; `given` says what has them."""
    if pairs == run.record.spec.pairs:
        return
    kind = "single texts" if pairs else "pairs of texts"
    remedy = "a single text for each example"
    if not pairs:
        remedy = "two for each example, as (first, second) or in two columns (text_column=A,B)"
    raise SpaceliteError(
        f"run {run.id} was trained on {kind}, and {given}: give {remedy}", ["text_column"]
    )


def backbone_files(run: Run, backbone: str | None = None) -> BackboneFiles:
    """The files of the backbone that a run was trained on; `backbone` is its folder, if it was a
    local one."""
    spec = run.record.spec
    spec.require_model()
    try:
        files = Encoding.like(spec, backbone, run.record.backbone_folder).files
    except SpaceliteError as error:
        if backbone is not None:
            raise
        raise SpaceliteError(
            f"the backbone of run {run.id} is not found; if it is a local folder, name it with "
            f"backbone=FOLDER ({error})",
            ["backbone", *error.arguments],
        ) from error
    if (files.version, files.tokenizer_hash) != (spec.backbone_version, spec.tokenizer_hash):
        raise SpaceliteError(
            f"{files.folder} is not the backbone that run {run.id} was trained on "
            f"({spec.backbone}): name its folder with backbone=FOLDER",
            ["backbone"],
        )
    return files
