"""Texts -> probabilities, with a saved head and the backbone that it was trained on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import backbones, heads
from spacelite.backbones import BackboneFiles, Output, Tokenized, shared
from spacelite.cache.dtypes import stored_type
from spacelite.cache.embedding import backbone_settings
from spacelite.errors import SpaceliteError
from spacelite.runs import Run

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
# Called with the phase ("tokenize" or "embed"), the amount done and the total.
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Predicted:
    """What `predict` returns for N texts.

    Attributes:
        probabilities: The probability of each label, (N, C) float64; independent per label in a
            multi-label run.
        unknown: The share of each text's tokens that are unknown to the backbone, (N,) float64.
        truncated: Number of texts that were cut off at the maximum length.
    """

    probabilities: Array
    unknown: Array
    truncated: int


def predict(
    run: Run,
    texts: Sequence[str],
    *,
    backbone: str | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Predicted:
    """The probability of each label for each text, and how much of the text is unknown.

    Texts pass through the backbone as the run's training data did, with hidden states rounded to
    the stored type, so that a text of the cache gets the same result as its cached hidden states.

    Args:
        run: The run.
        texts: N texts.
        backbone: Folder of the run's backbone, if it was a local one.
        device: Device of the backbone: `auto`, `cpu`, `cuda`, ...
        tokens_per_batch: Maximum tokens per forward pass.
        on_progress: Called with the phase, the amount done and the total.

    Returns:
        The probabilities, and the shares of unknown tokens.

    Raises:
        SpaceliteError: A text is empty, or the backbone is not the run's.
    """
    predictor = Predictor(run, backbone=backbone, device=device, tokens_per_batch=tokens_per_batch)
    found = predictor.predict(texts, on_progress)
    warn_of_truncated(run, found.truncated, len(texts))
    return found


class Predictor:
    """A run's head and its backbone, which are loaded once for any number of texts.

    Args:
        run: The run.
        backbone: Folder of the run's backbone, if it was a local one.
        device: Device of the backbone: `auto`, `cpu`, `cuda`, ...
        tokens_per_batch: Maximum tokens per forward pass.

    Raises:
        SpaceliteError: The backbone is not found, or not the run's.
    """

    def __init__(
        self,
        run: Run,
        *,
        backbone: str | None = None,
        device: str = "auto",
        tokens_per_batch: int | None = None,
    ) -> None:
        backbones.check_budget(tokens_per_batch)
        self.run, self.device, self.tokens_per_batch = run, device, tokens_per_batch
        self.files = backbone_files(run, backbone)

    @cached_property
    def _tokenizer(self) -> Any:
        return backbones.load_tokenizer(self.files)

    @cached_property
    def _model(self) -> backbones.Backbone:
        return _backbone(self.run, self.files, backbones.resolve_device(self.device))

    def predict(
        self,
        texts: Sequence[str],
        on_progress: OnProgress = lambda phase, done, total: None,
        before: int = 0,
    ) -> Predicted:
        """Classify N texts.

        Args:
            texts: N texts.
            on_progress: Called with the phase, the amount done and the total.
            before: How many texts have come before, for messages.

        Raises:
            SpaceliteError: A text is empty.
        """
        run = self.run
        check(texts, before)
        tokens = _tokens(run, self.files, texts, on_progress, before, self._tokenizer)
        offsets = np.cumsum([0, *map(len, tokens.ids)])
        ids = np.concatenate(tokens.ids)
        if reads_ids(run):
            logits = id_logits(run, ids, offsets)
        else:
            logits = np.empty((len(texts), len(run.record.label_names)))
            # Before the backbone is loaded, which may take long.
            on_progress("embed", 0, len(ids))
            for batch, output in _hidden_states(
                run, self._model, tokens, self.tokens_per_batch, on_progress
            ):
                own = np.stack([tokens.ids[number] for number in batch])
                logits[batch] = head_logits(run, output.hidden, output.pooled, output.means, own)
        unknown = backbones.unknown_shares(ids, offsets, tokens.special)
        return Predicted(run.record.task.probabilities(logits), unknown, tokens.truncated)


def reads_ids(run: Run) -> bool:
    """Whether a run's head reads token ids alone, so that no text needs the backbone."""
    return issubclass(heads.kind(run.head.kind), heads.IdHead) or run.head.reads_only_ids


def id_logits(run: Run, ids: Array, offsets: Array) -> Array:
    """The logits (N, C) of a head on token ids, for N texts.

    Args:
        run: The run.
        ids: Token ids of the texts end to end, (T,).
        offsets: Index of each text's first token, and at the end T, (N + 1,).
    """
    import torch

    from spacelite.heads.batch import Objective

    parameters = {name: torch.from_numpy(value) for name, value in run.parameters.items()}
    objective = Objective(run.record.task, len(run.record.label_names))
    kind: Any = heads.kind(run.head.kind)
    logits: Array = kind.stack([run.head], [parameters], objective).forward(ids, offsets)[0].numpy()
    return logits


def head_logits(
    run: Run,
    hidden: Array,
    pooled: Array | None,
    means: Array | None = None,
    ids: Array | None = None,
) -> Array:
    """The head's logits (B, C) for B texts of equal length.

    Args:
        run: The run.
        hidden: Hidden states (B, n, d), in the stored type.
        pooled: The pooler's outputs (B, d); None without a pooler.
        means: The means of all layers, (B, layers, d); None if the head does not read them.
        ids: The token ids, (B, n); None if the head does not read them.
    """
    import torch

    from spacelite.heads.batch import Objective
    from spacelite.training import evaluation
    from spacelite.training.stream import ArraySplit

    record = run.record
    examples, length, width = hidden.shape
    classes = len(record.label_names)
    split = ArraySplit(
        rows=hidden.reshape(-1, width),
        offsets=np.arange(examples + 1) * length,
        labels=np.zeros((examples, classes)[: record.task.label_dimensions], np.int64),
        pooled=np.empty((examples, 0)) if pooled is None else pooled,
        stored=stored_type(record.spec.dtype),
        layer_means=np.empty((examples, 0)) if means is None else means.reshape(examples, -1),
        token_ids=np.empty(0, np.int64) if ids is None else ids.reshape(-1),
    )
    parameters = {name: torch.from_numpy(value) for name, value in run.parameters.items()}
    return evaluation.predict(run.head, parameters, Objective(record.task, classes), split)


def one_text(
    run: Run,
    text: str,
    files: BackboneFiles,
    *,
    device: str = "auto",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> tuple[Array, Array, Array | None]:
    """Run one text through the backbone.

    Args:
        run: The run.
        text: The text.
        files: Files of the run's backbone.
        device: Device of the backbone.
        on_progress: Called with the phase, the amount done and the total.

    Returns:
        The hidden states (n, d) in the stored type, the token ids (n,), and the pooler's output
            (d,), None without a pooler.

    Raises:
        SpaceliteError: The text is empty.
    """
    tokens = tokenized(run, files, [text], on_progress)
    on_progress("embed", 0, len(tokens.ids[0]))  # before the backbone is loaded
    model = _backbone(run, files, backbones.resolve_device(device))
    ((_, output),) = _hidden_states(run, model, tokens, on_progress=on_progress)
    pooled = None if output.pooled is None else output.pooled[0]
    return output.hidden[0], tokens.ids[0], pooled


def tokenized(
    run: Run,
    files: BackboneFiles,
    texts: Sequence[str],
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Tokenized:
    """Tokenize texts with the settings of the run's training data; warn of those cut off."""
    check(texts)
    tokens = _tokens(run, files, texts, on_progress)
    warn_of_truncated(run, tokens.truncated, len(texts))
    return tokens


def _tokens(
    run: Run,
    files: BackboneFiles,
    texts: Sequence[str],
    on_progress: OnProgress,
    before: int = 0,
    tokenizer: Any = None,
) -> Tokenized:
    spec = run.record.spec
    tokens = backbones.tokenize(
        files,
        texts,
        max_length=spec.max_length,
        padding=spec.padding,
        tokenizer=tokenizer,
        on_chunk=lambda done: on_progress("tokenize", done, len(texts)),
    )
    for number, ids in enumerate(tokens.ids, before + 1):
        if not len(ids):
            raise SpaceliteError(
                f"text {number} has no token that {files.name} knows: leave it out"
            )
    return tokens


def warn_of_truncated(run: Run, truncated: int, count: int) -> None:
    """Warn if some of `count` texts were cut off at the maximum length."""
    if truncated:
        log.warning(
            "%s of %s text%s longer than %s tokens: the rest is ignored",
            truncated, count, " is" if count == 1 else "s are", run.record.spec.max_length,
        )  # fmt: skip


def _backbone(run: Run, files: BackboneFiles, device: str) -> backbones.Backbone:
    layer, every = run.record.spec.layer, run.head.reads_layers
    return shared.loaded(files, layer=layer, device=device, all_layers=every)


def _hidden_states(
    run: Run,
    model: backbones.Backbone,
    tokens: Tokenized,
    tokens_per_batch: int | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Iterator[tuple[Array, Output]]:
    """Yield batches: indices of texts (B,), and their hidden states (B, n, d) in the stored type,
    with the means of all layers if the head reads them."""
    lengths = np.array([len(ids) for ids in tokens.ids], np.int64)
    done, total = 0, int(lengths.sum())
    to_rows = stored_type(run.record.spec.dtype).to_rows
    limit = tokens_per_batch or backbones.default_budget(model.device)
    forward = backbones.Forward(model, tokens, to_rows, limit)
    plan = backbones.plan_batches(lengths, limit)
    for batch, output in forward.batches(plan, lambda *found: found, sharing=True):
        yield batch, output
        done += int(lengths[batch].sum())
        on_progress("embed", done, total)


def check_minimum(min_probability: float | None) -> float | None:
    """The minimum probability of labels that are given, as a float, or None.

    Raises:
        SpaceliteError: It is not a probability above 0.
    """
    if min_probability is None:
        return None
    try:
        number = float("nan" if isinstance(min_probability, str | bool) else min_probability)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number <= 1:
        raise SpaceliteError(
            f"min_probability={min_probability}: give a number above 0 and at most 1",
            ["min_probability"],
        )
    return number


def refuse_path(texts: Any) -> None:
    """Raise SpaceliteError for a path, or a single text that is the name of a file."""
    if isinstance(texts, os.PathLike):
        raise SpaceliteError(f"{os.fspath(texts)} is a path: read the file and give its texts")
    if isinstance(texts, str) and os.path.isfile(texts):  # noqa: PTH113 - Path's own raises
        raise SpaceliteError(
            f"{texts} is a file: read it and give its texts (to classify the name itself, give it "
            "in a list)"
        )


def check(texts: Sequence[str], before: int = 0) -> None:
    """Raise SpaceliteError if there is no text, or an empty one; `before` texts came before."""
    for number, text in enumerate(texts, before + 1):
        if not isinstance(text, str):
            raise SpaceliteError(
                f"text {number} is not a string but a {type(text).__name__}: give strings"
                + (" (text.decode() makes one of bytes)" if isinstance(text, bytes) else "")
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise SpaceliteError(
                f"text {number} is not valid Unicode: its character {error.start + 1} is half of a "
                f"pair (U+{ord(text[error.start]):04X}); read the text again as UTF-8, or remove it"
            ) from error
    empty = [number for number, text in enumerate(texts, before + 1) if not text.strip()]
    if not texts or empty:
        what = f"text {empty[0]} is empty" if empty else "there is no text"
        raise SpaceliteError(f"{what}: give at least a word")


def backbone_files(run: Run, backbone: str | None = None) -> BackboneFiles:
    """The files of the backbone that a run was trained on.

    Args:
        run: The run.
        backbone: Folder of the backbone, if it was a local one.

    Raises:
        SpaceliteError: The files are not found, or belong to a different backbone.
    """
    spec = run.record.spec
    wanted = backbone_settings(spec, backbone)
    try:
        files = backbones.locate(wanted["backbone"], wanted["revision"])
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
