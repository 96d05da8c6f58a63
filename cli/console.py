"""Standard output for results and their tables, standard error for messages and progress."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from inspect import signature
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from rich.text import Text

from spacelite import ranks
from spacelite.document import Cell, Table
from spacelite.errors import SpaceliteError
from spacelite.files import finite
from spacelite.progress import OnProgress, reporting
from spacelite.visible import HOSTILE, json_escaped, visible, visible_name

from .options import option

T = TypeVar("T")

NO_BREAK = "\xa0"  # a space at which no line is broken
LEAST_NAME = 15  # characters of the first column, before figures and intervals are on lines apart
LEAST_ROOM = 24  # characters of a line of text, even if the table gets too wide

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as RichTable


@cache
def _console(stderr: bool) -> Console:
    """A console, created when the first line is printed: rich takes a while to import."""
    from rich.console import Console

    class PipedConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # the application ends quietly; rich would exit with 1

        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*map(_safe, objects), **options)

    return PipedConsole(stderr=stderr, highlight=False, markup=False, emoji=False)


def _safe(content: Any) -> Any:
    """A text or table in which control characters are visible: whatever is printed comes here."""
    from rich.table import Table

    if isinstance(content, str):
        return visible(content)
    if isinstance(content, Text):
        return _safe_text(content)
    if isinstance(content, Table):
        for column in content.columns:
            column.header = _safe(column.header)
            column._cells = [_safe(cell) for cell in column._cells]
    return content


def _safe_text(text: Text) -> Text:
    """The same text with the same styles; what is written out has the style of its character."""
    places = [match.start() for match in HOSTILE.finditer(text.plain)]
    if not places:
        return text
    whole = text.blank_copy()
    for part in text.divide(sorted({end for at in places for end in (at, at + 1)})):
        shown = visible(part.plain)
        if shown != part.plain:
            spans = [span._replace(end=len(shown)) for span in part.spans]
            part.plain = shown
            part.spans = spans
        whole.append_text(part)
    return whole


def out() -> Console:
    """The console for results."""
    return _console(stderr=False)


def err() -> Console:
    """The console for everything else."""
    return _console(stderr=True)


def say(text: str | Text, style: str | None = None) -> None:
    """Print a result on a line of its own, which a terminal gets broken at spaces."""
    _print(out(), text, style)


def note(text: str | Text, style: str | None = None) -> None:
    """Print something beside the results on a line of its own, as `say` does."""
    _print(err(), text, style)


def _print(console: Console, text: str | Text, style: str | None = None) -> None:
    """Print a line. For a terminal it is broken at spaces alone: paths and ids stay whole, which a
    terminal would break anywhere. Other programs get it whole."""
    from rich.cells import cell_len

    line: Text = _safe(Text(text) if isinstance(text, str) else text)
    breaks, column = [], 0
    for word in re.finditer(r"\n|[^\s]+|[^\S\n]+", line.plain if console.is_terminal else ""):
        column += cell_len(word[0])
        if word[0] == "\n":
            column = 0
        elif column > console.width and not word[0].isspace() and column > cell_len(word[0]):
            breaks.append(word.start())
            column = cell_len(word[0])
    parts = line.divide(breaks)
    for part in parts[:-1]:
        part.rstrip()
    console.print(Text("\n").join(parts), style=style, soft_wrap=True)


def print_json(content: object) -> None:
    """Print one JSON document on standard output; NaN and infinity become null."""
    sys.stdout.write(f"{json_escaped(json_text(content))}\n")


def result(found: Any, as_json: bool) -> None:
    """Print what a function of the library returned: its figures as JSON, or its own words."""
    if as_json:
        print_json(found.as_json())
    else:
        say(str(found))


def json_text(content: object) -> str:
    """One JSON document; NaN and infinity become null."""
    # An ascii terminal would show "?" for "±": here it is an escape, which keeps the content.
    ascii_only = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    return json.dumps(finite(content), indent=1, ensure_ascii=ascii_only, allow_nan=False)


def write(text: str, form: str, stream: TextIO | None = None) -> None:
    """Write a document on standard output, or on `stream` if it has been replaced. Control
    characters are escaped in `json` and made visible in other forms; `csv` stays as it is unless a
    terminal shows it."""
    stream = stream or sys.stdout
    if form == "json":
        text = json_escaped(text)
    elif form != "csv" or stream.isatty():
        text = visible(text)
    stream.write(text)


def confirm(names: Sequence[str], size: str, yes: bool, as_json: bool) -> None:
    """Ask before things with these names are deleted, which frees bytes of this size, unless `yes`.
    Raises SpaceliteError without a yes, or if nobody can be asked."""
    if yes or not names:
        return
    freed = f" ({size} in all)" if len(names) > 1 and size else ""
    if as_json or not sys.stdin.isatty():
        raise SpaceliteError(
            f"{', '.join(names)} would be deleted{freed}: give --yes if that is what you want"
        )
    for name in names:
        note(name)
    import typer

    if not typer.confirm(f"Delete{freed}?", err=True):
        raise SpaceliteError("nothing was deleted")


def fail(message: str) -> None:
    """Print an error on one line on standard error."""
    end(Text.assemble(("error: ", "bold red"), visible(message)))


def end(line: Text) -> None:
    """Print why a command ends, on standard error. Of the processes of a job the first one does,
    and those that end because of it are silent."""
    if ranks.speaks(line.plain):
        if ranks.launched().rank > 0:  # it was silent so far
            sys.stderr = sys.__stderr__
        note(line)


class _Messages(logging.Handler):
    """Prints the library's log records as plain lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, SpaceliteError):
            record.msg = record.msg.for_options(option)
        if isinstance(record.args, tuple):
            record.args = tuple(
                value.for_options(option) if isinstance(value, SpaceliteError) else value
                for value in record.args
            )
        style = "yellow" if record.levelno >= logging.WARNING else "default"
        note(Text(visible_name(self.format(record)), style=style))


def show_messages() -> None:
    """Show what the library logs. The application's callback calls it once."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "±" shows "?"
    logger = logging.getLogger("spacelite")
    logger.handlers = [_Messages()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # These packages' own messages about retries would bury our one line.
    for noisy in ("huggingface_hub", "datasets", "transformers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def progress() -> AbstractContextManager[OnProgress]:
    """Progress bars on standard error: a context manager that yields the function to report to."""
    return reporting(True, err())


def call(function: Callable[..., T], arguments: Mapping[str, Any], **others: Any) -> T:
    """Call a function of the library with progress bars: with those of a command's arguments that
    it has by name, and with all others."""
    taken = signature(function).parameters.keys() & arguments.keys()
    with progress() as on_progress:
        return function(
            **{**{name: arguments[name] for name in taken}, **others}, progress=on_progress
        )


def new_table(*headings: str, gap: int = 1) -> RichTable:
    """A table without lines. Headings with a `>` before them are those of figures, on the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0))
    for heading in headings:
        if heading.startswith(">"):
            table.add_column(heading[1:], justify="right")
        else:
            table.add_column(heading, overflow="fold")
    return table


def say_left_out(headings: Sequence[str]) -> None:
    """Say which columns of a table the terminal has no room for, if any."""
    if headings:
        names = ", ".join(" ".join(heading.split()) for heading in headings)
        say(f"Left out for lack of room: {names.rstrip('.')}.", style="dim")


def show_fields(title: str, content: Mapping[str, Any]) -> None:
    """Print names with their values, of which some are lists, below a title. Paths, and whatever
    else has no spaces, stay whole."""
    say(Text(title, style="bold"))
    width = 2 + max(map(len, content))
    wrap = textwrap.TextWrapper(
        max(out().width - width, LEAST_ROOM), break_long_words=False, break_on_hyphens=False
    ).wrap
    for name, value in content.items():
        items = value if isinstance(value, list) else [value]
        whole = isinstance(value, list | Path)  # items of a list are not broken either
        names = (visible_name(str(item)) for item in items)
        text = ", ".join(name.replace(" ", NO_BREAK if whole else " ") for name in names)
        for heading, line in zip_longest([name], wrap(text) or [""], fillvalue=""):
            say(Text.assemble((heading.ljust(width), "dim"), line.replace(NO_BREAK, " ")))


def fits(table: RichTable) -> bool:
    """Whether the terminal has room for a table without breaking its lines."""
    from rich.measure import Measurement

    unlimited = out().options.update(max_width=10_000)
    return Measurement.get(out(), unlimited, table).maximum <= out().width


def show(table: Table, *, ruled: bool = True) -> None:
    """Print a table of a document, with a rule under the headings; unless `ruled` with an empty
    line there, and between groups of lines that belong together."""
    from rich import box

    shown = new_table()
    shown.box = box.SIMPLE_HEAD if ruled else box.SIMPLE
    columns = [
        [visible(_text(line.cells[number])) for line in table.lines]
        for number in range(len(table.columns))
    ]
    # Each column has a space on its right and a separator; the table has an edge on both sides.
    widths = {
        heading: max(map(len, [heading, *texts])) + 2
        for heading, texts in zip(table.columns, columns, strict=True)
    }
    room = out().width - 2 - sum(widths.values()) + widths.get("Text", 0)
    least = []
    for number, heading in enumerate(table.columns):
        # On narrow terminals headings and names wrap at spaces; figures do not, unless there is no
        # room for them even so: then deviations and intervals are below them.
        if number and heading != "Text" and room + widths[table.columns[0]] < LEAST_NAME:
            columns[number] = [re.sub(" (?=[(±])", "\n", cell) for cell in columns[number]]
        cells = "\n".join(columns[number])
        parts = [*heading.split(), *(cells.split("\n") if number else cells.split())]
        least.append(0 if heading == "Text" else max(map(len, parts)))
    # What the other columns leave to the first one, which rich would take from them.
    names = (
        None if "Text" in widths else max(out().width - 4 - sum(least[1:]) - 2 * len(least[1:]), 1)
    )
    for number, (heading, text) in enumerate(zip(table.columns, table.text_columns, strict=True)):
        left: Any = "left" if text else "right"
        first = number == 0
        shown.add_column(
            heading,
            justify=left,
            min_width=min(least[0], LEAST_ROOM, names or LEAST_ROOM) if first else least[number],
            max_width=names if first else None,
            overflow="fold",
        )
    for number, (line, *texts) in enumerate(zip(table.lines, *columns, strict=True)):
        if number and not ruled and not line.kind:
            shown.add_section()
        row = list(map(Text, texts))
        if "Text" in table.columns:
            index = table.columns.index("Text")
            row[index] = two_lines(row[index], max(room, LEAST_ROOM))
        shown.add_row(*row)
    out().print(shown)


def _text(cell: Cell) -> str:
    return f"{cell.text} {cell.std}".rstrip()


def two_lines(text: Text, width: int) -> Text:
    """The beginning of a text, on at most two lines of this width or a little more."""
    lines = text.wrap(out(), width)
    if len(lines) > 2:
        lines[1].rstrip()
        lines[1].truncate(width - 1)
        lines[1].append("…")
    return Text("\n").join(lines[:2])
