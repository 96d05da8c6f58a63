"""spacelite report."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from spacelite.errors import SpaceliteError

from . import console
from .options import CACHE_DIR, CacheDir, Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spacelite.report.summary import Figure, Row, Section

HEADINGS = {
    "loss": "Loss",
    "ce": "CE",
    "accuracy": "Acc.",
    "f1_macro": "F1",
    "precision": "Prec.",
    "recall": "Rec.",
}


def report(
    form: Annotated[str, typer.Option("--format", help="terminal, markdown or json.")] = "terminal",
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Compare runs, and the published figures with them."""
    from spacelite import runs
    from spacelite.report import markdown, summary

    if form not in ("terminal", "markdown", "json"):
        raise SpaceliteError(f"--format {form}: choose terminal, markdown or json")
    found = runs.load_all(cache_dir)
    if not found:
        raise SpaceliteError(f"{cache_dir} holds no run: run spacelite train first")
    sections = summary.summarize(found)
    if as_json or form == "json":
        console.print_json([asdict(section) for section in sections])
    elif form == "markdown":
        sys.stdout.write(markdown.render(sections))
    else:
        show(sections)


def show(sections: Sequence[Section]) -> None:
    """The sections as tables in the terminal, four decimals where they fit into its width."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from spacelite.report.markdown import number

    wide = console.out().width >= 100
    places, gap = (4, 2) if wide else (3, 1)
    for section in sections:
        console.out().print(Text(section.title, style="bold"))
        console.out().print(Text(section.subtitle, style="dim"))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap - 1, 0, 0))
        table.add_column("System", min_width=14)
        for column in ("Params", *HEADINGS.values(), "Inter", "Intra", "Seeds"):
            table.add_column(column, justify="right", no_wrap=True)
        for row in section.rows:
            table.add_row(
                Text(_system(row, wide)),
                number(row.train_params),
                *[_figure(row.figures[name], places) for name in HEADINGS],
                number(row.inter),
                number(row.intra),
                number(row.seeds),
                style="dim italic" if row.published else None,
            )
        console.out().print(table)
        for note in section.notes:
            console.out().print(Text(note, style="dim"))
        console.out().print()


def _system(row: Row, wide: bool) -> str:
    """The system's name; on a narrow terminal broken at spaces and hyphens, which rich does not."""
    indented = ("  " if row.published else "") + row.system
    return indented if wide else "\n".join(textwrap.wrap(row.system, 15))


def _figure(value: Figure | None, places: int) -> str:
    """The mean and, on a line of its own, the standard deviation over seeds."""
    from spacelite.report.markdown import decimals

    if value is None:
        return "–"
    mean = decimals(value.mean, places)
    if value.spread is None:
        return mean
    spread = decimals(value.spread, places)
    return f"{mean}\n±{spread.removeprefix('0')}"
