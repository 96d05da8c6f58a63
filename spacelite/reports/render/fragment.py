"""Blocks as a small piece of HTML for notebooks: no script, readable on light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from spacelite.document import Block, Cell, Table
from spacelite.inference.explanation import Marked, marked
from spacelite.reports.analysis.examples import Mistake
from spacelite.reports.render.markup import Markup

CELL = "padding:2px 8px;text-align:{};white-space:nowrap;border-bottom:1px solid #8884"
CAPTION = "caption-side:top;text-align:left;font-weight:bold;padding:8px 8px 2px"
COLOURS = {"for": "31,157,120", "against": "217,112,43"}


class Fragment(Markup):
    """HTML without a page around it; folded tables open with a click."""

    STRONG = "<b>{}</b>"
    SMALL = "<small>{}</small>"

    def escaped(self, text: str) -> str:
        """Text with HTML's marks as entities."""
        return escape(text)

    def heading(self, level: int, text: str) -> str:
        """A heading below those of a notebook."""
        tag = f"h{min(level + 2, 6)}"
        return f"<{tag}>{text}</{tag}>"

    def paragraph(self, text: str) -> str:
        """A paragraph."""
        return f"<p>{text}</p>"

    def bullets(self, items: Sequence[str]) -> str:
        """A list."""
        return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"

    def table(self, table: Table) -> str:
        """A table below its caption, unless something above it says that."""
        if table.folded:
            summary = self.escaped(table.caption)
            return f"<details><summary>{summary}</summary>{self.columns(table)}</details>"
        return self.columns(table, table.caption if table.captioned else "")

    def columns(self, table: Table, caption: str = "") -> str:
        """A table below this caption, if there is one."""
        head = self._cells("th", map(Cell, table.columns), table.text_columns)
        body = "".join(
            f"<tr>{self._cells('td', line.cells, table.text_columns)}</tr>" for line in table.lines
        )
        above = f'<caption style="{CAPTION}">{escape(caption)}</caption>' if caption else ""
        return (
            f'<div style="overflow-x:auto"><table style="border-collapse:collapse">{above}'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    def _cells(self, tag: str, cells: Iterable[Cell], left: Sequence[bool]) -> str:
        styles = (CELL.format("left" if is_text else "right") for is_text in left)
        return "".join(
            f'<{tag} style="{style}">{self.cell(cell)}</{tag}>'
            for cell, style in zip(cells, styles, strict=True)
        )

    def mistakes(self, mistakes: Sequence[Mistake]) -> str:
        """Texts one below the other, each highlighted."""
        return "".join(map(self.mistake, mistakes))

    def mistake(self, mistake: Mistake) -> str:
        """What was predicted, above the text."""
        about = escape(f"{mistake.place}, {mistake.label}, predicted {mistake.predicted}")
        text = marked_text(marked(mistake.words, mistake.shares))
        return f"<p><b>{about}</b> ({mistake.confidence:.2f})</p>{text}"


def render(blocks: Sequence[Block]) -> str:
    """All blocks except plots as HTML."""
    return "<div>" + "".join(Fragment().parts(blocks)) + "</div>"


def table(block: Table) -> str:
    """A table as HTML, without its caption."""
    return Fragment().columns(block)


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
