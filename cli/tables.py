"""Tables in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import console

if TYPE_CHECKING:
    from spacelite.reports.document.blocks import Table


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
        parts = heading.split() + [line.cells[number].text for line in table.lines]
        least = 0 if number == 0 or heading == "Text" else max(map(len, parts))
        shown.add_column(heading, justify=left, min_width=least, overflow="fold")
    for number, line in enumerate(table.lines):
        if number and not ruled and not line.kind:
            shown.add_section()
        shown.add_row(*[Text(cell.text) for cell in line.cells])
    console.out().print(shown)
