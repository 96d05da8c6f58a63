"""Tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from spacelite.visible import visible

from . import console

LEAST_ROOM = 24  # characters of a line of text, even if the table gets too wide

if TYPE_CHECKING:
    from rich.text import Text as RichText

    from spacelite.document import Cell, Table


def show(table: Table, *, ruled: bool = True) -> None:
    """Print a table on standard output.

    Args:
        table: The table.
        ruled: True for a rule under the headings; False for an empty line, and one between groups
            of lines that belong together.
    """
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(
        box=box.SIMPLE_HEAD if ruled else box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0)
    )
    columns = zip(table.columns, table.text_columns, strict=True)
    for number, (heading, text) in enumerate(columns):
        left: Any = "left" if text else "right"
        # On narrow terminals headings and names wrap at spaces; figures do not.
        parts = heading.split() + [_text(line.cells[number]) for line in table.lines]
        least = 0 if number == 0 or heading == "Text" else max(map(len, parts))
        shown.add_column(heading, justify=left, min_width=least, overflow="fold")
    # Each column has a space on its right and a separator; the table has an edge on both sides.
    room = (
        console.out().width
        - 2
        - sum(
            max([len(heading), *(len(_text(line.cells[number])) for line in table.lines)]) + 2
            for number, heading in enumerate(table.columns)
            if heading != "Text"
        )
    )
    for number, line in enumerate(table.lines):
        if number and not ruled and not line.kind:
            shown.add_section()
        cells = [Text(visible(_text(cell))) for cell in line.cells]
        if "Text" in table.columns:
            number = table.columns.index("Text")
            cells[number] = two_lines(cells[number], max(room, LEAST_ROOM))
        shown.add_row(*cells)
    console.out().print(shown)


def _text(cell: Cell) -> str:
    return f"{cell.text} {cell.std}".rstrip()


def two_lines(text: RichText, width: int) -> RichText:
    """The beginning of a text, on at most two lines of this width or a little more."""
    from rich.text import Text

    lines = text.wrap(console.out(), width)
    if len(lines) > 2:
        lines[1].rstrip()
        lines[1].truncate(width - 1)
        lines[1].append("…")
    return Text("\n").join(lines[:2])
