"""spacelite report."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spacelite.errors import SpaceliteError

from . import console
from .options import CACHE_DIR, CacheDir, Json, RunBackbone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from spacelite.reports.analysis.content import Findings, Part
    from spacelite.reports.analysis.rows import MeanStd, Row, Section

TERMINAL = "terminal"  # the one format that only the command line has


def report(
    form: Annotated[
        str, typer.Option("--format", help="terminal, markdown, latex, html, json or text.")
    ] = "terminal",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write the page and its figures, or the one file, into."),
    ] = None,
    no_examples: Annotated[
        bool, typer.Option("--no-examples", help="Leave out words and example texts from the data.")
    ] = False,
    backbone: RunBackbone = None,
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Compare runs with each other and with the published figures."""
    from spacelite import api
    from spacelite.files import make_folder
    from spacelite.reports.render.forms import FORMS

    formats = (TERMINAL, *FORMS)
    if form not in formats:
        raise SpaceliteError(f"--format {form}: choose {', '.join(formats[:-1])} or {formats[-1]}")
    if as_json and form not in (TERMINAL, "json"):
        raise SpaceliteError(f"give either --json or --format {form}, not both")
    if as_json and out is not None:
        raise SpaceliteError(
            "--json prints to standard output: to write a file, give --format json and --out"
        )
    if as_json:
        form = "json"
    if out is None and form != TERMINAL and FORMS[form].text is None:
        raise SpaceliteError(f"--format {form}: name a folder for its files with --out")
    if form == TERMINAL and out is not None:
        raise SpaceliteError(f"--out: choose --format {', '.join(formats[1:-1])} or {formats[-1]}")
    runs = api.load_runs(cache_dir)
    if out is not None and runs:
        make_folder(out)  # before the long part
    with console.progress() as on_progress:
        report = api.report(
            runs,
            cache_dir=cache_dir,
            examples=form != TERMINAL and not no_examples,
            backbone=backbone,
            progress=on_progress,
        )
    if form == TERMINAL:
        print_report(report.findings)
    elif out is None:
        sys.stdout.write(report.text(form))
    else:
        with console.progress() as on_progress:
            path = report.save(out, form, lambda done, total: on_progress("draw", done, total))
        console.err().print(f"{path} written", soft_wrap=True)


def print_report(findings: Findings) -> None:
    """Print a report to the terminal: tables, which differences are real, cost."""
    show(findings.published)
    for part in findings.parts:
        show([part.section], end="")
        _findings(part)
        console.out().print()
    console.out().print(
        "spacelite report --format html --out DIR adds curves, confusion, calibration and the "
        "words that matter",
        style="dim",
    )


def _findings(part: Part) -> None:
    """Print which differences are real, and what the group cost."""
    from rich.table import Table
    from rich.text import Text

    from spacelite.reports.document import wording

    analysis, say = part.analysis, console.out().print
    if analysis.incomplete:
        say(Text(wording.incomplete(analysis)))
    if analysis.left_out:
        say(Text(wording.left_out(analysis)))
    if analysis.comparisons:
        findings = Table.grid(padding=(0, 1, 0, 0))
        for one in analysis.comparisons:
            findings.add_row(" •", Text(wording.verdict(one)))
        say(findings)
        say(Text(wording.method(part.section, analysis), style="dim"))
    if analysis.cost is not None:
        say(Text(wording.cost(analysis.cost), style="dim"))


def show(sections: Sequence[Section], end: str = "\n") -> None:
    """Print sections as tables, with four decimals if the terminal is wide enough."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from spacelite.metrics.scores import METRICS
    from spacelite.reports.document.wording import number

    wide = console.out().width >= 100
    places, gap = (4, 2) if wide else (3, 1)
    for section in sections:
        console.out().print(Text(section.title, style="bold"))
        console.out().print(Text(section.subtitle, style="dim"))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap - 1, 0, 0))
        table.add_column("System", min_width=14)
        for column in (
            "Params",
            *(metric.short for metric in METRICS.values()),
            "Inter",
            "Intra",
            "Seeds",
        ):
            table.add_column(column, justify="right", no_wrap=True)
        for row in section.rows:
            difference = row.kind == "difference"
            weights = [row.inter, row.intra, row.seeds]
            table.add_row(
                Text(_system(row, wide)),
                "" if difference else number(row.train_params),
                *[_figure(row, name, places) for name in METRICS],
                *["" if difference else number(value) for value in weights],
                style={"published": "dim italic", "difference": "dim"}.get(row.kind),
            )
        console.out().print(table)
        for note in section.notes:
            console.out().print(Text(note, style="dim"))
        console.out().print(end=end)


def _system(row: Row, wide: bool) -> str:
    """The system's name, wrapped at spaces and hyphens on narrow terminals (rich does not)."""
    indented = row.system if row.kind == "measured" else f"  {row.system}"
    return indented if wide else "\n".join(textwrap.wrap(indented, 14))


def _figure(row: Row, name: str, places: int) -> Text:
    """The mean, bold if it is the best, and on a second line the standard deviation over seeds."""
    from rich.text import Text

    from spacelite.reports.document.wording import decimals

    value: MeanStd | None = row.figures[name]
    if value is None:
        return Text("–")
    mean = decimals(value.mean, places)
    if row.kind == "difference":
        digits = decimals(abs(value.mean), places).removeprefix("0")
        mean = f"{'−' if value.mean < 0 else '+'}{digits}"
    shown = Text(mean, style="bold" if name in row.best else "")
    if value.std is not None:
        std = decimals(value.std, places)
        shown.append(f"\n±{std.removeprefix('0')}", style="not bold")
    return shown
