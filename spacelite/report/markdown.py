"""The report as markdown."""

from __future__ import annotations

from collections.abc import Sequence

from spacelite.report.blocks import (
    Block,
    Bullets,
    Cell,
    Heading,
    Line,
    Mistakes,
    Paragraph,
    Plot,
    Table,
)
from spacelite.report.examples import Mistake


def render(blocks: Sequence[Block]) -> str:
    """All blocks but plots, which only the page has."""
    parts = [_block(block) for block in blocks if not isinstance(block, Plot)]
    return "\n\n".join(["# spacelite report", *parts]) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * (block.level + 1)} {escaped(block.text)}"
    if isinstance(block, Paragraph):
        return escaped(block.text)
    if isinstance(block, Bullets):
        return "\n".join(f"- {escaped(item)}" for item in block.items)
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Mistakes):
        return "\n".join(f"- {_mistake(mistake)}" for mistake in block.items)
    raise TypeError(block)


def _table(table: Table) -> str:
    lines = [] if table.kind == "systems" else [f"**{escaped(table.caption)}**", ""]
    lines += ["| " + " | ".join(map(escaped, table.columns)) + " |"]
    lines += ["| --- |" + " ---: |" * (len(table.columns) - 1)]
    return "\n".join([*lines, *map(_line, table.lines)])


def _line(line: Line) -> str:
    return "| " + " | ".join(map(_cell, line.cells)) + " |"


def _cell(cell: Cell) -> str:
    text = f"**{escaped(cell.text)}**" if cell.best else escaped(cell.text)
    return f"{text} {cell.spread}".strip()


def _mistake(mistake: Mistake) -> str:
    told = f"{mistake.example}, {mistake.label}, predicted {mistake.predicted}"
    words = [
        f"**{escaped(word)}**" if strong else escaped(word) for word, strong in marked(mistake)
    ]
    return f"{escaped(told)} ({mistake.confidence:.2f}): {' '.join(words)}"


def marked(mistake: Mistake) -> list[tuple[str, bool]]:
    """The words of a text, and whether one speaks for the predicted label at least half as strongly
    as the strongest."""
    limit = max(*mistake.shares, 0) / 2
    pairs = zip(mistake.words, mistake.shares, strict=True)
    return [(word, share > limit) for word, share in pairs if word]


def escaped(text: str) -> str:
    """Text that stays within its line and cell and is shown as it is."""
    for character in "\\|<>*_`[]#~&":
        text = text.replace(character, "\\" + character)
    return " ".join(text.split())
