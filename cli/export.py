"""spacelite export."""

from __future__ import annotations

from pathlib import Path

import spacelite

from . import cleaned_up, console
from .options import CACHE_DIR


def export(
    run: str,
    *,
    to: str,
    out: Path,
    quantize: str | None = None,
    backbone: str | None = None,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Write a run in a form that other programs load, and compare it with predict.

    Options:
        to FORM: onnx: a graph and a small program that classifies with it, without torch;
            sentence-transformers or transformers: a model of that library; safetensors: the head
            alone.
        out FOLDER: The folder to write, which must not exist.
        quantize: int8: round the weights of the graph, and measure what that costs.
    """
    arguments = locals()
    with cleaned_up():
        exported = console.call(spacelite.load_run(run, cache_dir).export, arguments)
    console.result(exported, as_json)
