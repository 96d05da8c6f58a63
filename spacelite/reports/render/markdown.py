"""The report as markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spacelite.document import Block, Table
from spacelite.reports.render.markup import Markup


class Markdown(Markup):
    """GitHub's markdown."""

    def escaped(self, text: str) -> str:
        """Text that stays within its line and cell and is shown literally."""
        for character in "\\|<>*_`[]#~&":
            text = text.replace(character, "\\" + character)
        return " ".join(text.split())

    def heading(self, level: int, text: str) -> str:
        """One level below the title."""
        return f"{'#' * (level + 1)} {text}"

    def bullets(self, items: Sequence[str]) -> str:
        """A line per item."""
        return "\n".join(f"- {item}" for item in items)

    def strong(self, text: str) -> str:
        """Bold text."""
        return f"**{text}**"

    def table(self, table: Table) -> str:
        """A pipe table below its caption."""
        rules = (" --- |" if text else " ---: |" for text in table.text_columns)
        return "\n".join(
            [
                *([self.strong(self.escaped(table.caption)), ""] if table.captioned else []),
                _line(map(self.escaped, table.columns)),
                "|" + "".join(rules),
                *(_line(map(self.cell, line.cells)) for line in table.lines),
            ]
        )


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def render(blocks: Sequence[Block]) -> str:
    """A markdown document of all blocks except plots."""
    return "\n\n".join(["# spacelite report", *Markdown().parts(blocks)]) + "\n"
