"""spacelite predict."""

from __future__ import annotations

import csv
import io
import os
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
        bool,
        typer.Option(
            "--csv",
            help="Print a csv table: text, label, share of unknown tokens, each probability.",
        ),
    ] = False,
    min_probability: Annotated[
        float | None,
        typer.Option(help="Give no label that has a lower probability than this, from 0 to 1."),
    ] = None,
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
    if texts and len(texts) == 1 and os.path.isfile(texts[0]):  # noqa: PTH113 - Path's own raises
        raise SpaceliteError(
            f"{texts[0]} is a file: give --file {texts[0]} to classify its lines (the name itself "
            "can be given on standard input)"
        )
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
            min_probability=min_probability,
            progress=on_progress,
        )
    if as_json:
        console.print_json(predictions.rows)
    elif as_csv:
        _print_csv(predictions)
    else:
        tables.show(predictions.table())
    # Documents for other programs stay whole: what is said of them goes to standard error.
    say = console.err() if as_json or as_csv else console.out()
    for note in predictions.notes:
        say.print(note, soft_wrap=True)


def _print_csv(predictions: TextPredictions) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    for number, (row, labels) in enumerate(zip(predictions.rows, predictions.labels, strict=True)):
        text, label = row["text"], next(key for key in row if key.startswith("label"))
        if number == 0:
            writer.writerow(["text", label, "unknown", *row["probabilities"]])
        shown = [text, ";".join(labels), row["unknown"]]
        writer.writerow([*shown, *row["probabilities"].values()])
    console.write(table.getvalue(), "csv")
