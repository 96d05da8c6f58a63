"""spacelite reproduce."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from spacelite.errors import SpaceliteError

from . import console
from .options import (
    CACHE_DIR,
    CacheDir,
    DataDir,
    Device,
    Json,
    Limit,
    Seeds,
    TokensPerBatch,
    option,
)
from .report import show


def reproduce(
    table: Annotated[
        str | None,
        typer.Option(help="Only the table with this id, as printed in brackets.  [default: all]"),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Use this backbone in place of the published ones: hub name, folder or minilm."
        ),
    ] = None,
    seeds: Seeds = "3",
    limit: Limit = None,
    device: Device = "auto",
    tokens_per_batch: TokensPerBatch = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Measure the published tables, from embedding to report."""
    from spacelite.heads.grid import seed_list
    from spacelite.paper.reproduction import ReproduceOptions
    from spacelite.paper.reproduction import reproduce as measure
    from spacelite.reports.analysis import published

    options = ReproduceOptions(
        cache_dir=cache_dir,
        backbone=backbone,
        seeds=tuple(seed_list(seeds)),
        limit=limit,
        data_dir=data_dir,
        device=device,
        tokens_per_batch=tokens_per_batch,
    )
    with console.progress() as on_progress:
        outcomes = measure(table, options, on_progress)
    for outcome in outcomes:
        if outcome.error is not None:
            outcome.note = outcome.error.for_options(option)
    sections = published.sections(outcomes)
    if as_json:
        console.print_json([asdict(section) for section in sections])
    else:
        show(sections)
    empty = sum(not outcome.runs for outcome in outcomes)
    if empty:
        raise SpaceliteError(
            f"{empty} of {len(outcomes)} rows could not be measured (the messages above say "
            "why); --backbone minilm replaces backbones that cannot be downloaded, --data-dir "
            "names a folder with the data"
        )
