"""Blocks as plain text with aligned columns: what `print` shows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from spacelite.document import Block, Table
from spacelite.inference.explanation import marked
from spacelite.reports.analysis.examples import Mistake
from spacelite.reports.render.markup import Markup
from spacelite.visible import visible

WIDTH = 100


class Plain(Markup):
    """Wrapped text; tables and lists in characters."""

    def heading(self, level: int, text: str) -> str:
        """A line, underlined."""
        return f"{text}\n{'=-~'[min(level, 3) - 1] * len(text)}"

    def paragraph(self, text: str) -> str:
        """Wrapped lines."""
        return textwrap.fill(text, WIDTH)

    def bullets(self, items: Sequence[str]) -> str:
        """Wrapped lines, each item after a dash."""
        return "\n".join(
            textwrap.fill(item, WIDTH, initial_indent="- ", subsequent_indent="  ")
            for item in items
        )

    def table(self, block: Table) -> str:
        """Columns below the caption, unless something above the table says it."""
        caption = textwrap.fill(f"Table: {block.caption}", WIDTH)
        return f"{caption}\n\n{table(block)}" if block.captioned else table(block)

    def words(self, mistake: Mistake) -> str:
        """A text in which words that matter at least half as much as the strongest have their share
        beside them: `dull(+0.12)`."""
        return " ".join(
            f"{word.text}({word.contribution:+.2f})" if word.weight >= 0.5 else word.text
            for word in marked(mistake.words, mistake.shares)
            if word.text
        )


def table(block: Table) -> str:
    """A table without its caption: text columns are left-aligned, number columns right-aligned."""
    rows = [
        [visible(" ".join(f"{cell.text} {cell.std}".split())) for cell in line.cells]
        for line in block.lines
    ]
    headings = [visible(" ".join(heading.split())) for heading in block.columns]
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(cells, widths, block.text_columns, strict=True)
        )
        return "  ".join(padded).rstrip()

    rule = "-" * len(line(["x" * width for width in widths]))
    return "\n".join([line(headings), rule, *map(line, rows)])


def render(blocks: Sequence[Block]) -> str:
    """All blocks except plots, as plain text."""
    return visible("\n\n".join(Plain().parts(blocks)) + "\n")
