"""Blocks as a small piece of HTML for notebooks: no script, readable on light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from spacelite.document import (
    Block,
    Bullets,
    Cell,
    Heading,
    Mistakes,
    Paragraph,
    Table,
)
from spacelite.inference.explanation import Marked, marked
from spacelite.reports.analysis.examples import Mistake

CELL = "padding:2px 8px;text-align:{};white-space:nowrap;border-bottom:1px solid #8884"
CAPTION = "caption-side:top;text-align:left;font-weight:bold;padding:8px 8px 2px"
COLOURS = {"for": "31,157,120", "against": "217,112,43"}


def render(blocks: Sequence[Block]) -> str:
    """All blocks except plots as HTML; folded tables open with a click."""
    return "<div>" + "".join(_part(block) for block in blocks) + "</div>"


def _part(block: Block) -> str:
    if isinstance(block, Heading):
        level = min(block.level + 2, 6)
        return f"<h{level}>{escape(block.text)}</h{level}>"
    if isinstance(block, Paragraph):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Bullets):
        return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in block.items) + "</ul>"
    if isinstance(block, Table):
        if block.folded:
            return f"<details><summary>{escape(block.caption)}</summary>{table(block)}</details>"
        return table(block, block.caption if block.captioned else "")
    if isinstance(block, Mistakes):
        return "".join(map(_mistake, block.items))
    return ""


def _mistake(mistake: Mistake) -> str:
    about = f"{mistake.place}, {mistake.label}, predicted {mistake.predicted}"
    text = marked_text(marked(mistake.words, mistake.shares))
    return f"<p><b>{escape(about)}</b> ({mistake.confidence:.2f})</p>{text}"


def table(block: Table, caption: str = "") -> str:
    """A table as HTML, below its caption if one is given."""
    left = block.text_columns
    head = _cells("th", map(Cell, block.columns), left)
    body = "".join(f"<tr>{_cells('td', line.cells, left)}</tr>" for line in block.lines)
    above = f'<caption style="{CAPTION}">{escape(caption)}</caption>' if caption else ""
    return (
        f'<div style="overflow-x:auto"><table style="border-collapse:collapse">{above}'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(tag: str, cells: Iterable[Cell], left: Sequence[bool]) -> str:
    return "".join(_cell(tag, cell, to_left) for cell, to_left in zip(cells, left, strict=True))


def _cell(tag: str, cell: Cell, left: bool) -> str:
    text = f"<b>{escape(cell.text)}</b>" if cell.best else escape(cell.text)
    std = f" <small>{escape(cell.std)}</small>" if cell.std else ""
    return f'<{tag} style="{CELL.format("left" if left else "right")}">{text}{std}</{tag}>'


def marked_text(words: Sequence[Marked]) -> str:
    """A highlighted text: words for a label on green, words against it on orange."""
    parts = []
    for word in words:
        text = escape(word.text)
        if word.side:
            style = f"background:rgba({COLOURS[word.side]},{0.15 + 0.45 * word.weight:.2f})"
            text = (
                f'<span style="{style};border-radius:3px;padding:0 2px" '
                f'title="{word.contribution:+.4f}">{text}</span>'
            )
        parts.append(text)
    return f'<p style="line-height:1.8">{" ".join(parts)}</p>'
