"""spacelite predict."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacelite.errors import SpaceliteError

from . import console
from .embed import PHASES
from .options import CACHE_DIR, CacheDir, Device, Json, RunBackbone, RunName, TokensPerBatch

if TYPE_CHECKING:
    from spacelite.runs.store import Run

THRESHOLD = 0.5  # of a label's own probability, where a text can have several


def predict(
    run: RunName,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts. [default: the lines of standard input]")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="In place of texts: a file with one on each line.")
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
    from spacelite.inference import prediction
    from spacelite.runs import store as runs

    if texts and file is not None:
        raise SpaceliteError("give texts or --file, not both")
    if as_csv and as_json:
        raise SpaceliteError("give --csv or --json, not both")
    found = runs.find(cache_dir, run)
    if file is not None:
        texts = prediction.read_texts(file)
    elif not texts:
        if sys.stdin.isatty():
            raise SpaceliteError("give texts, --file, or lines on standard input")
        texts = prediction.lines(sys.stdin.buffer.read())
    with console.progress(PHASES) as on_progress:
        probabilities = prediction.predict(
            found,
            texts,
            backbone=backbone,
            device=device,
            tokens_per_batch=tokens_per_batch,
            on_progress=on_progress,
        )
    names: list[str] = found.record["label_names"]
    rows = [
        {"text": text, **_labels(found, row), "probabilities": dict(zip(names, row, strict=True))}
        for text, row in zip(texts, probabilities.tolist(), strict=True)
    ]
    if as_json:
        console.print_json(rows)
    elif as_csv:
        _print_csv(rows, names)
    else:
        _print(rows)


def _labels(run: Run, probabilities: list[float]) -> dict[str, Any]:
    """{"label": the most probable}, or {"labels": those of at least even chances}."""
    names = run.record["label_names"]
    if run.record.get("multilabel"):
        pairs = zip(names, probabilities, strict=True)
        return {"labels": [name for name, value in pairs if value >= THRESHOLD]}
    return {"label": names[probabilities.index(max(probabilities))]}


def _label_text(row: dict[str, Any]) -> str:
    return str(row["label"]) if "label" in row else ", ".join(row["labels"]) or "–"


def _print_csv(rows: list[dict[str, Any]], names: list[str]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["text", "label" if "label" in rows[0] else "labels", *names])
    for row in rows:
        label = row["label"] if "label" in row else ";".join(row["labels"])
        writer.writerow([row["text"], label, *row["probabilities"].values()])


def _print(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Label", no_wrap=True, style="bold")
    table.add_column("Probability", justify="right")
    table.add_column("Text", overflow="fold")
    for row in rows:
        chosen = row["labels"] if "labels" in row else [row["label"]]
        values = ", ".join(f"{row['probabilities'][name]:.3f}" for name in chosen)
        table.add_row(Text(_label_text(row)), values or "–", Text(row["text"]))
    console.out().print(table)
