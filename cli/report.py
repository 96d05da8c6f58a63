"""spacelite report."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

import spacelite
from spacelite.document import Line, Table
from spacelite.errors import SpaceliteError
from spacelite.files import make_folder
from spacelite.settings import choose_from

from . import console
from .options import CACHE_DIR, with_cache_dir

if TYPE_CHECKING:
    from spacelite.reports.analysis.content import Findings, GroupFindings
    from spacelite.reports.analysis.groups import Section

TERMINAL = "terminal"  # the one format that only the command line has
WIDE = 100  # columns of a terminal that has room for gaps and four decimals
LEAST_NAME = 14  # columns for the names of systems
# Left out first on narrow terminals.
DISPENSABLE = ("Rec.", "Prec.", "Loss", "MSE", "Params", "AUROC", "Pearson", "Spearman")
# Of lines.
STYLES = {"published": "dim italic", "difference": "dim", "split": "dim", "tried": "dim"}


class Names(textwrap.TextWrapper):
    """Wraps names of systems after spaces, hyphens (rich does not) and the + of blocks."""

    wordsep_re = re.compile(r"(\s+)|(?<=\w[-+])(?=\w)")


def report(
    systems: list[str] | None = None,
    *,
    compare: list[str] | None = None,
    cache: str | None = None,
    dataset: str | None = None,
    head: list[str] | None = None,
    where: list[str] | None = None,
    split: str | None = None,
    as_form: str = TERMINAL,
    out: Path | None = None,
    no_examples: bool = False,
    backbone: str | None = None,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Compare runs with each other and with the published figures.

    Options:
        systems [SYSTEM]...: More systems for --compare.
        compare SYSTEM: Compare only these systems: names as in the tables, or ids of runs, one
            after another: --compare space "linear (first)".
        cache: Only runs on this cache.
        dataset: Only runs on this data set.
        head: Only heads of this kind; may be repeated.
        where SETTING=VALUE: Only runs with this setting, such as lr=0.002 or epochs=5,15; may be
            repeated. Heads that lack the setting are kept.
        split: Also show the figures of another split: train or validation.
        as_form: terminal, markdown, latex, html, json or text.
        out: Folder for the page and its figures, or for the single file; or a file that ends in
            .html, .md, .tex, .json or .txt.
        no_examples: Leave out words and example texts from the data.
    """
    arguments = locals()
    from spacelite.reports.render.forms import FORMS, form_of_file
    from spacelite.runs import store

    formats = (TERMINAL, *FORMS)
    of_file = None if out is None else form_of_file(out)
    form = as_form
    if form not in formats:
        raise SpaceliteError(f"--format {form or repr('')}: {choose_from(form, formats)}")
    if as_json and form not in (TERMINAL, "json"):
        raise SpaceliteError(f"give either --json or --format {form}, not both")
    if as_json and out is not None:
        raise SpaceliteError(
            "--json prints to standard output: to write a file, give --format json and --out"
        )
    if as_json:
        form = "json"
    if form == TERMINAL and of_file is not None:
        form = of_file
    if of_file not in (None, form):
        raise SpaceliteError(f"--format {form}: {out} is the name of a file of format {of_file}")
    if out is None and form != TERMINAL and FORMS[form].parts is not None:
        raise SpaceliteError(f"--format {form}: name a folder for its files with --out")
    if form == TERMINAL and out is not None:
        raise SpaceliteError(f"--out: choose --format {', '.join(formats[1:-1])} or {formats[-1]}")
    if form == TERMINAL and (no_examples or backbone is not None):
        given = "--no-examples" if no_examples else "--backbone"
        raise SpaceliteError(
            f"{given} is about words and example texts, which the terminal does not show: leave it "
            "out, or choose another --format"
        )
    named = [*(compare or []), *(systems or [])]
    if systems and not compare:
        raise SpaceliteError(f"{systems[0]}: to compare systems, put --compare before the first")
    conditions = _conditions(where or [])
    runs = spacelite.load_runs(cache_dir)
    if not runs:
        raise store.no_run(cache_dir)
    if out is not None:
        make_folder(out if of_file is None else out.parent)  # before the long part
    report = console.call(
        spacelite.report,
        arguments,
        runs=runs,
        compare=named,
        head=head or [],
        where=conditions,
        examples=form != TERMINAL and not no_examples,
    )
    if form == TERMINAL:
        print_report(report.findings, cache_dir)
    elif out is None:
        console.write(report.text(form), form)
    else:
        with console.progress() as on_progress:
            path = report.save(out, form, lambda done, total: on_progress("draw", done, total))
        console.note(f"{path} written")


def _conditions(where: Sequence[str]) -> dict[str, list[str]]:
    """`lr=0.002,0.01` -> {"lr": ["0.002", "0.01"]}."""
    conditions: dict[str, list[str]] = {}
    for condition in where:
        name, equals, values = condition.partition("=")
        if not (name and equals and values):
            raise SpaceliteError(
                f"--where {condition or repr('')}: give a setting and its value: lr=0.002"
            )
        choices = [value.strip() for value in values.split(",")]
        conditions.setdefault(name.strip().lstrip("-").replace("-", "_"), []).extend(choices)
    return conditions


def print_report(findings: Findings, cache_dir: Path) -> None:
    """Print a report to the terminal: tables, which differences are real, cost."""
    show(findings.published)
    for part in findings.parts:
        show([part.section], also=findings.also, end="")
        _findings(part)
        console.out().print()
    systems = [system for part in findings.parts for system in part.analysis.systems]
    also = [
        *(["confusion"] if any(system.classes for system in systems) else []),
        *(["calibration"] if any(system.calibration is not None for system in systems) else []),
        *(["intervals"] if any(system.intervals for system in systems) else []),
    ]
    command = with_cache_dir("spacelite report", cache_dir)
    console.out().print(
        f"{command} --format html --out DIR adds {', '.join(['curves', *also])}, the words that "
        "matter, and the last answers of cv, curve, audit and sweep; --format markdown prints all "
        "but the figures",
        style="dim",
    )


def _findings(part: GroupFindings) -> None:
    """Print which differences are real, and what the group cost."""
    from rich.table import Table

    from spacelite.reports.document import wording

    analysis, say = part.analysis, console.out().print
    for note in wording.missing(analysis):
        say(Text(note))
    if analysis.comparisons:
        findings = Table.grid(padding=(0, 1, 0, 0))
        for sentence in wording.verdicts(analysis):
            findings.add_row(" •", Text(sentence))
        say(findings)
        say(Text(wording.method(part.section, analysis), style="dim"))
    if analysis.cost is not None:
        say(Text(wording.cost(analysis.cost), style="dim"))


def show(sections: Sequence[Section], also: str | None = None, end: str = "\n") -> None:
    """Print sections as tables, with the figures of the split `also` too; `end` follows each
    section."""
    from spacelite.reports.document.tables import systems_table

    say = console.out().print
    for section in sections:
        say(Text(section.title, style="bold"))
        say(Text(section.subtitle, style="dim"))
        show_systems(systems_table(section, also, places=places(), short=True))
        for note in section.notes:
            say(Text(note, style="dim"))
        say(end=end)


def places() -> int:
    """Decimals of the figures in tables of systems: four if the terminal is wide enough."""
    return 4 if console.out().width >= WIDE else 3


def show_systems(table: Table) -> None:
    """Print a table of systems, and the headings of the columns that did not fit. Standard
    deviations stand below their figures where the terminal is too narrow for them beside these."""
    gap = 2 if console.out().width >= WIDE else 1
    columns = list(range(len(table.columns)))

    def widths_of(cells: Callable[[Line, int], str]) -> list[int]:
        return [
            max(map(len, [*table.columns[at].split(), *(cells(line, at) for line in table.lines)]))
            for at in columns
        ]

    def room() -> int:
        """Columns that are left for names, beside figures, gaps and the rule's ends."""
        return console.out().width - sum(widths[at] + gap for at in columns[1:]) - gap - 1

    widths = widths_of(lambda line, at: f"{_figure(line, at)} {line.cells[at].std}".rstrip())
    longest = max(len(_name(line)) for line in table.lines)
    beside = room() >= longest
    if not beside:
        below = widths_of(lambda line, at: _below(line.cells[at].std))
        widths = list(map(max, widths_of(_figure), below))
    for heading in DISPENSABLE:
        if room() < LEAST_NAME:
            columns = [at for at in columns if table.columns[at] != heading]
    names = max(room(), LEAST_NAME)
    shown = console.new_table(gap=gap - 1)
    shown.add_column(table.columns[0], min_width=LEAST_NAME, max_width=names)
    for at in columns[1:]:
        left: Any = "left" if table.text_columns[at] else "right"
        shown.add_column(table.columns[at], justify=left, width=widths[at])
    for line in table.lines:
        cells = [Text("\n".join(Names(names, subsequent_indent="  ").wrap(_name(line))))]
        for at in columns[1:]:
            cell = line.cells[at]
            text = Text(_figure(line, at), style="bold" if cell.best else "")
            if cell.std:
                std = f" {cell.std}" if beside else f"\n{_below(cell.std)}"
                text.append(std, style="not bold")
            cells.append(text)
        shown.add_row(*cells, style=STYLES.get(line.kind))
    console.out().print(shown)
    console.say_left_out([heading for at, heading in enumerate(table.columns) if at not in columns])


def _name(line: Line) -> str:
    """A system's name; what belongs to the line above is indented."""
    below = line.kind not in ("measured", "tried")
    return f"  {line.cells[0].text}" if below else line.cells[0].text


def _below(std: str) -> str:
    """A standard deviation below its figure, which is as wide."""
    return std.replace("± 0.", "±.").replace("± ", "±")


def _figure(line: Line, at: int) -> str:
    """A cell's text; of a difference without the zero before the point, which saves a column."""
    text = line.cells[at].text
    return text.replace("0.", ".", 1) if line.kind == "difference" else text
