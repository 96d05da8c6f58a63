"""spacelite predict."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacelite.errors import SpaceliteError

from . import console, tables
from .options import CACHE_DIR, CacheDir, Device, Json, RunBackbone, RunName, TokensPerBatch

if TYPE_CHECKING:
    from spacelite.api import TextPredictions


def predict(
    run: RunName,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts. [default: the lines of standard input]")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Read the texts from this file, one per line.")
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a csv table: text, label, each probability.")
    ] = False,
    backbone: RunBackbone = None,
    device: Device = "auto",
    tokens_per_batch: TokensPerBatch = None,
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Classify texts with a run's head."""
    from spacelite import api
    from spacelite.inference import lines, read_texts

    if texts and file is not None:
        raise SpaceliteError("give texts or --file, not both")
    if as_csv and as_json:
        raise SpaceliteError("give --csv or --json, not both")
    found = api.load_run(run, cache_dir)
    if file is not None:
        texts = read_texts(file)
    elif not texts:
        if sys.stdin.isatty():
            raise SpaceliteError("give texts, --file, or lines on standard input")
        texts = lines(sys.stdin.buffer.read())
    with console.progress() as on_progress:
        predictions = found.predict(
            texts,
            backbone=backbone,
            device=device,
            tokens_per_batch=tokens_per_batch,
            progress=on_progress,
        )
    if as_json:
        console.print_json(predictions.rows)
    elif as_csv:
        _print_csv(predictions)
    else:
        tables.show(predictions.table())


def _print_csv(predictions: TextPredictions) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for number, (row, labels) in enumerate(zip(predictions.rows, predictions.labels, strict=True)):
        text, label = row["text"], next(key for key in row if key.startswith("label"))
        if number == 0:
            writer.writerow(["text", label, *row["probabilities"]])
        writer.writerow([text, ";".join(labels), *row["probabilities"].values()])
