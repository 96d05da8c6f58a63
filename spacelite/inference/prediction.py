"""Texts -> probabilities, with a saved head and the backbone that it was trained on."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import backbones, heads
from spacelite.backbones import BackboneFiles, Output, Tokenized
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
    """

    probabilities: Array
    unknown: Array


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
    backbones.check_budget(tokens_per_batch)
    files = backbone_files(run, backbone)
    tokens = tokenized(run, files, texts, on_progress)
    offsets = np.cumsum([0, *map(len, tokens.ids)])
    ids = np.concatenate(tokens.ids)
    if reads_ids(run):
        logits = id_logits(run, ids, offsets)
        return Predicted(run.record.task.probabilities(logits), _unknown(ids, offsets, tokens))
    logits = np.empty((len(texts), len(run.record.label_names)))
    for batch, output in _hidden_states(run, files, tokens, device, tokens_per_batch, on_progress):
        own = np.stack([tokens.ids[number] for number in batch])
        logits[batch] = head_logits(run, output.hidden, output.pooled, output.means, own)
    return Predicted(run.record.task.probabilities(logits), _unknown(ids, offsets, tokens))


def _unknown(ids: Array, offsets: Array, tokens: Tokenized) -> Array:
    return backbones.unknown_shares(ids, offsets, tokens.special)


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
    from spacelite.training.batches import ArraySplit

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
    ((_, output),) = _hidden_states(run, files, tokens, device, on_progress=on_progress)
    pooled = None if output.pooled is None else output.pooled[0]
    return output.hidden[0], tokens.ids[0], pooled


def tokenized(
    run: Run,
    files: BackboneFiles,
    texts: Sequence[str],
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Tokenized:
    """Tokenize texts with the settings of the run's training data."""
    check(texts)
    spec = run.record.spec
    tokens = backbones.tokenize(
        files,
        texts,
        max_length=spec.max_length,
        padding=spec.padding,
        on_chunk=lambda done: on_progress("tokenize", done, len(texts)),
    )
    if tokens.truncated:
        log.warning(
            "%s of %s text%s longer than %s tokens: the rest is ignored",
            tokens.truncated, len(texts), " is" if len(texts) == 1 else "s are", spec.max_length,
        )  # fmt: skip
    for number, ids in enumerate(tokens.ids, 1):
        if not len(ids):
            raise SpaceliteError(
                f"text {number} has no token that {files.name} knows: leave it out"
            )
    return tokens


def _hidden_states(
    run: Run,
    files: BackboneFiles,
    tokens: Tokenized,
    device: str,
    tokens_per_batch: int | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Iterator[tuple[Array, Output]]:
    """Yield batches: indices of texts (B,), and their hidden states (B, n, d) in the stored type,
    with the means of all layers if the head reads them."""
    spec = run.record.spec
    device = backbones.resolve_device(device)
    lengths = np.array([len(ids) for ids in tokens.ids], np.int64)
    done, total = 0, int(lengths.sum())
    on_progress("embed", 0, total)  # before the backbone is loaded, which may take long
    model = backbones.Backbone(
        files, layer=spec.layer, device=device, all_layers=run.head.reads_layers
    )
    encode = stored_type(spec.dtype).encode
    limit = tokens_per_batch or backbones.default_budget(device)
    for batch in backbones.plan_batches(lengths, limit):
        output, limit = backbones.forward(model, tokens, batch, encode, limit)
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


def check(texts: Sequence[str]) -> None:
    """Raise SpaceliteError if there is no text, or an empty one."""
    for number, text in enumerate(texts, 1):
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
    empty = [number for number, text in enumerate(texts, 1) if not text.strip()]
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


def read_texts(path: Path) -> list[str]:
    """The lines of a UTF-8 file, each a text.

    Raises:
        SpaceliteError: The file cannot be read or is not UTF-8, or a line is empty.
    """
    try:
        return lines(path.read_bytes())
    except OSError as error:
        raise SpaceliteError(f"{path} cannot be read: {error.strerror}") from error


def lines(content: bytes) -> list[str]:
    """The lines of UTF-8 bytes, each a text.

    Raises:
        SpaceliteError: The bytes are not UTF-8, or a line is empty.
    """
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise SpaceliteError(
            f"the texts are not UTF-8 (byte {error.start}): convert them"
        ) from error
    # Not splitlines, which also splits at other characters.
    texts = text.removesuffix("\n").split("\n")
    empty = [number for number, text in enumerate(texts, 1) if not text.strip()]
    if empty:
        raise SpaceliteError(f"line {empty[0]} is empty: every line must hold a text; remove it")
    return texts
