"""spacelite audit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacelite.visible import visible

from . import console, tables
from .options import CACHE_DIR, CacheDir, CacheName, Device, Json

if TYPE_CHECKING:
    from spacelite.studies.audit import Finding


def audit(
    cache: CacheName = None,
    head: Annotated[
        str, typer.Option(help="additive (means and n-grams), tfidf, or logreg (on the mean).")
    ] = "additive",
    folds: Annotated[
        int,
        typer.Option(help="Number of folds: a label is judged by a head fitted to the others."),
    ] = 5,
    repeats: Annotated[int, typer.Option(help="How often the examples are divided anew.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the divisions.")] = 0,
    top: Annotated[int, typer.Option(help="Print at most this many.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option(help="Write all findings to this csv file.", metavar="FILE"),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="The folder of the backbone, if that was a local folder."),
    ] = None,
    device: Device = "auto",
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Find labels of the train split that are probably wrong."""
    from spacelite import api
    from spacelite.data import writers

    if out is not None:
        writers.check_place(out)  # before the work
    chosen = console.chosen_cache(cache, cache_dir)
    with console.progress() as on_progress:
        found = api.audit(
            chosen, head=head, folds=folds, repeats=repeats, seed=seed, backbone=backbone,
            device=device, cache_dir=cache_dir, progress=on_progress,
        )  # fmt: skip
    if out is not None:
        found.save(out)
    if as_json:
        console.print_json(found.as_json())
        return
    for number, one in enumerate(found.findings[:top], 1):
        _print(number, one)
    if found.result.pairs:
        tables.show(found.result.groups_table(), ruled=False)
    for sentence in found.result.sentences:
        console.out().print(sentence, markup=False)
    if out is not None:
        console.out().print(f"all written to {out}", soft_wrap=True, markup=False)


def _print(number: int, one: Finding) -> None:
    """Print a finding: what is suspected and why, and the beginning of the text below it."""
    from rich.padding import Padding
    from rich.text import Text

    words = f"; words: {', '.join(one.words)}" if one.words else ""
    title = Text(f"{number}. ")
    title.append(visible(one.suggested), style="bold")
    title.append(f" ({one.probability:.3f}) in place of {visible(one.label)}")
    title.append(f"; {visible(one.where)}{visible(words)}", style="dim")
    console.out().print(title)
    width = console.out().width - 3
    text = tables.two_lines(Text(visible(one.text)), width)
    console.out().print(Padding(text, (0, 0, 0, 3)))
