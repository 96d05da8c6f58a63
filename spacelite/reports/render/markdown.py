"""The report as markdown."""

from __future__ import annotations

from collections.abc import Sequence

from spacelite.document import Block, Cell, Line, Table
from spacelite.reports.render.text import Markup, parts


def render(blocks: Sequence[Block]) -> str:
    """A markdown document of all blocks except plots."""
    markup = Markup(escaped, _heading, _bullets, _strong, _table)
    return "\n\n".join(["# spacelite report", *parts(blocks, markup)]) + "\n"


def _heading(level: int, text: str) -> str:
    return f"{'#' * (level + 1)} {text}"


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _strong(text: str) -> str:
    return f"**{text}**"


def _table(table: Table) -> str:
    lines = [_strong(escaped(table.caption)), ""] if table.captioned else []
    lines += ["| " + " | ".join(map(escaped, table.columns)) + " |"]
    lines += ["|" + "".join(" --- |" if text else " ---: |" for text in table.text_columns)]
    return "\n".join([*lines, *map(_line, table.lines)])


def _line(line: Line) -> str:
    return "| " + " | ".join(map(_cell, line.cells)) + " |"


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    text = _strong(text) if cell.best else text
    return f"{text} {cell.std}".strip()


def escaped(text: str) -> str:
    """Escape text so that it stays within its line and cell and is shown literally."""
    for character in "\\|<>*_`[]#~&":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
