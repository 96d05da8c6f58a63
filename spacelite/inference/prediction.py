"""Texts -> probabilities, with a saved head and the backbone that it was trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spacelite.backbones import files as checkpoints
from spacelite.backbones import model as backbones
from spacelite.cache import embedding
from spacelite.errors import SpaceliteError
from spacelite.metrics import scores as metrics
from spacelite.runs.store import Run

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
# Called with the phase ("tokenize" or "embed"), how much of it is done, and how much there is.
OnProgress = Callable[[str, int, int], None]


def predict(
    run: Run,
    texts: Sequence[str],
    *,
    backbone: str | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Array:
    """The probability of each label for each text, (N, C) float64; with several labels a text each
    label's own.

    The texts pass through the backbone as the run's training data did, hidden states rounded to
    the stored type, so that a text of the cache gets what its cached hidden states give.
    `backbone`: where the run's lies, if it was a local folder. `tokens_per_batch`: as in `embed`.

    Raises SpaceliteError for empty texts, and where the backbone is not the run's.
    """
    import torch

    files = backbone_of(run, backbone)
    tokens = _tokenized(run, files, texts, on_progress)
    parameters = run.parameters()
    logits = np.empty((len(texts), len(run.record["label_names"])))
    for batch, hidden, pooled in _hidden_states(
        run, files, tokens, device, tokens_per_batch, on_progress
    ):
        pooler = None if pooled is None else torch.from_numpy(pooled)
        widened = torch.from_numpy(hidden).float()
        logits[batch] = _logits(run, parameters, widened, pooler).double().numpy()
    return metrics.probabilities(logits, bool(run.record.get("multilabel")))


def one_text(
    run: Run, text: str, files: checkpoints.Checkpoint, *, device: str = "auto"
) -> tuple[Array, Array]:
    """One text's hidden states (n, d) in the stored type, and its token ids (n,); `files`: the
    run's backbone. Raises as `predict` does."""
    tokens = _tokenized(run, files, [text])
    ((_, hidden, _),) = _hidden_states(run, files, tokens, device)
    return hidden[0], tokens.ids[0]


def _tokenized(
    run: Run,
    files: checkpoints.Checkpoint,
    texts: Sequence[str],
    on_progress: OnProgress = lambda phase, done, total: None,
) -> backbones.Tokenized:
    """The texts' tokens, as the run's training data had them."""
    check(texts)
    spec = run.record["spec"]
    tokens = backbones.tokenize(
        files,
        texts,
        max_length=spec["max_length"],
        padding=spec["padding"],
        on_chunk=lambda done: on_progress("tokenize", done, len(texts)),
    )
    if tokens.truncated:
        log.warning(
            "%s of %s text%s longer than %s tokens: the rest is not read",
            tokens.truncated, len(texts), " is" if len(texts) == 1 else "s are", spec["max_length"],
        )  # fmt: skip
    for number, ids in enumerate(tokens.ids, 1):
        if not len(ids):
            raise SpaceliteError(
                f"text {number} has no token that {files.name} knows: leave it out"
            )
    return tokens


def _hidden_states(
    run: Run,
    files: checkpoints.Checkpoint,
    tokens: backbones.Tokenized,
    device: str,
    tokens_per_batch: int | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Iterator[tuple[Array, Array, Array | None]]:
    """Batches of text numbers (B,), their hidden states (B, n, d) in the stored type, and pooled
    outputs (B, d) where there are any."""
    spec = run.record["spec"]
    device = backbones.resolve_device(device)
    model = backbones.Backbone(files, layer=spec["layer"], device=device)
    lengths = np.array([len(ids) for ids in tokens.ids], np.int64)
    done, total = 0, int(lengths.sum())
    on_progress("embed", 0, total)
    limit = tokens_per_batch or embedding.default_budget(device)
    for batch in embedding.plan_batches(lengths, limit):
        hidden, pooled, limit = embedding.forward(
            model, tokens, batch, np.dtype(spec["dtype"]), limit
        )
        yield batch, hidden, pooled
        done += int(lengths[batch].sum())
        on_progress("embed", done, total)


def check(texts: Sequence[str]) -> None:
    """Raise SpaceliteError where there is no text, or an empty one."""
    empty = [number for number, text in enumerate(texts, 1) if not text.strip()]
    if not texts or empty:
        what = f"text {empty[0]} is empty" if empty else "there is no text"
        raise SpaceliteError(f"{what}: give at least a word")


def backbone_of(run: Run, backbone: str | None = None) -> checkpoints.Checkpoint:
    """The files of the backbone that a run was trained on. `backbone`: where they lie, if it was a
    local folder. Raises SpaceliteError where they are others."""
    spec = run.record["spec"]
    wanted = embedding.backbone_settings(spec, backbone)
    files = checkpoints.locate(wanted["backbone"], wanted["revision"])
    same = (files.version, files.tokenizer_hash)
    if same != (spec["backbone_version"], spec["tokenizer_hash"]):
        raise SpaceliteError(
            f"{files.folder} is not the backbone that run {run.id} was trained on "
            f"({spec['backbone']}): name its folder with --backbone"
        )
    return files


def _logits(
    run: Run,
    parameters: dict[str, torch.Tensor],
    hidden: torch.Tensor,
    pooled: torch.Tensor | None,
) -> torch.Tensor:
    """The head on hidden states (B, n, d) and pooled outputs (B, d): (B, C)."""
    import torch.nn.functional as F  # noqa: N812  the name everybody knows it by

    kind, pooling = run.record["head"], run.settings["pooling"]
    if kind == "space":
        coordinates = F.linear(hidden, parameters["concept_spaces"].flatten(0, 1)).tanh()
        features = coordinates.mean(dim=1)
    elif pooling == "pooler" and pooled is not None:
        features = pooled
    else:
        vectors = {"first": hidden[:, 0], "last": hidden[:, -1], "mean": hidden.mean(dim=1)}
        features = vectors[pooling]
    if kind == "mlp":
        layer = parameters["pre_classifier.weight"], parameters["pre_classifier.bias"]
        features = F.linear(features, *layer).relu()
    return F.linear(features, parameters["classifier.weight"], parameters["classifier.bias"])


def read_texts(path: Path) -> list[str]:
    """The lines of a UTF-8 file, a text each. Raises SpaceliteError for what cannot be read, and
    names empty lines."""
    try:
        return lines(path.read_bytes())
    except OSError as error:
        raise SpaceliteError(f"{path} cannot be read: {error.strerror}") from error


def lines(content: bytes) -> list[str]:
    """The lines of UTF-8 bytes. Raises SpaceliteError for other encodings and for empty lines."""
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise SpaceliteError(
            f"the texts are not UTF-8 (byte {error.start}): convert them"
        ) from error
    # Not splitlines, to which other characters end lines as well.
    texts = text.removesuffix("\n").split("\n")
    empty = [number for number, text in enumerate(texts, 1) if not text.strip()]
    if empty:
        raise SpaceliteError(f"line {empty[0]} is empty: every line is a text, leave it out")
    return texts
