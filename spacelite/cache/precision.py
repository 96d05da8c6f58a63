"""What a forward pass in half precision costs: measured once, and kept beside the cache."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import files
from spacelite.backbones.model import Backbone, Forward, Output, default_budget
from spacelite.backbones.tokenizer import Tokenized

log = logging.getLogger(__name__)

TEXTS = 50

Array = npt.NDArray[Any]


def precision_path(path: Path) -> Path:
    """The file beside a cache that says how exact its forward pass was."""
    return path.with_suffix(".precision.json")


def measure(model: Backbone, tokens: Tokenized) -> float:
    """The relative error of the model's hidden states against those of float32: the norm of the
    differences divided by the norm of float32's, over TEXTS texts from all lengths.

    Args:
        model: A backbone whose forward pass is in half precision.
        tokens: The tokens of the data set's texts.
    """
    order = np.argsort([len(ids) for ids in tokens.ids], kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, TEXTS).astype(np.int64))]
    own, exact = (
        _hidden_states(one, tokens, chosen) for one in (model, model.with_precision("float32"))
    )
    return float(np.linalg.norm(own - exact) / np.linalg.norm(exact))


def _hidden_states(model: Backbone, tokens: Tokenized, texts: Array) -> Array:
    """The hidden states of some texts, one a batch, end to end as float64."""

    def finish(batch: Array, output: Output) -> Array:
        return output.hidden.reshape(-1).astype(np.float64)

    limit = default_budget(model.device)
    forward = Forward(model, tokens, lambda hidden: hidden, limit)
    return np.concatenate(list(forward.batches(texts[:, None], finish)))


def keep(path: Path, model: Backbone, tokens: Tokenized) -> None:
    """Measure the error, log it and write it beside a cache, unless that was done or the forward
    pass is in float32."""
    own = precision_path(path)
    if model.precision == "float32" or own.exists():
        return
    error, texts = measure(model, tokens), min(TEXTS, len(tokens.ids))
    log.info(
        "%s: the hidden states of %d texts differ from float32 by %.2g of their size",
        model.precision, texts, error,
    )  # fmt: skip
    content = {"precision": model.precision, "texts": texts, "relative_error": error}
    try:
        files.write_bytes(own, f"{json.dumps(content)}\n".encode())
    except OSError as problem:  # a full disk: if it matters, the embedding itself fails
        log.warning("%s cannot be written: %s", own, problem.strerror)
