"""Blocks as plain text with aligned columns: what `print` shows."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from spacelite.document import (
    Block,
    Bullets,
    Cell,
    Heading,
    Mistakes,
    Paragraph,
    Table,
)
from spacelite.inference.explanation import marked
from spacelite.reports.analysis.examples import Mistake
from spacelite.visible import visible

WIDTH = 100


def render(blocks: Sequence[Block]) -> str:
    """All blocks except plots, as plain text."""
    parts = (_part(block) for block in blocks)
    return visible("\n\n".join(part for part in parts if part) + "\n")


def _part(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{block.text}\n{'=-~'[min(block.level, 3) - 1] * len(block.text)}"
    if isinstance(block, Paragraph):
        return textwrap.fill(block.text, WIDTH)
    if isinstance(block, Bullets):
        return "\n".join(_bullet(item) for item in block.items)
    if isinstance(block, Table):
        return f"{_caption(block)}\n\n{table(block)}" if block.captioned else table(block)
    if isinstance(block, Mistakes):
        return "\n".join(_bullet(_mistake(one)) for one in block.items)
    return ""


def _caption(block: Table) -> str:
    return textwrap.fill(f"Table: {block.caption}", WIDTH)


def _mistake(mistake: Mistake) -> str:
    """A text in which words that matter at least half as much as the strongest have their share
    beside them: `dull(+0.12)`."""
    words = (
        f"{word.text}({word.contribution:+.2f})" if word.weight >= 0.5 else word.text
        for word in marked(mistake.words, mistake.shares)
        if word.text
    )
    about = f"{mistake.place}, {mistake.label}, predicted {mistake.predicted}"
    return f"{about} ({mistake.confidence:.2f}): {' '.join(words)}"


def _bullet(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="- ", subsequent_indent="  ")


def table(block: Table) -> str:
    """A table as text: text columns are left-aligned, number columns right-aligned."""
    rows = [[_text(cell) for cell in line.cells] for line in block.lines]
    headings = [visible(" ".join(heading.split())) for heading in block.columns]
    columns = list(zip(headings, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(cells, widths, block.text_columns, strict=True)
        )
        return "  ".join(padded).rstrip()

    rule = "-" * len(line(["x" * width for width in widths]))
    return "\n".join([line(headings), rule, *map(line, rows)])


def _text(cell: Cell) -> str:
    return visible(" ".join(f"{cell.text} {cell.std}".split()))
