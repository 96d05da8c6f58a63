"""Blocks -> text: the one walk over a document. A form overrides what it writes in its own way, as
markdown does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from spacelite.document import Block, Bullets, Cell, Heading, Mistakes, Paragraph, Table
from spacelite.reports.analysis.examples import Mistake


class Markup(ABC):
    """How a form writes each kind of block. Text is escaped, except that of tables and cells."""

    STRONG = "{}"  # emphasised text
    SMALL = "{}"  # a standard deviation, after its figure

    def parts(self, blocks: Sequence[Block]) -> list[str]:
        """The text of each block; plots have none."""
        return [text for block in blocks if (text := self._block(block))]

    def _block(self, block: Block) -> str:
        if isinstance(block, Heading):
            return self.heading(block.level, self.escaped(block.text))
        if isinstance(block, Paragraph):
            return self.paragraph(self.escaped(block.text))
        if isinstance(block, Bullets):
            return self.bullets([self.escaped(item) for item in block.items])
        if isinstance(block, Table):
            return self.table(block)
        if isinstance(block, Mistakes):
            return self.mistakes(block.items)
        return ""

    def escaped(self, text: str) -> str:
        """Text so that it is shown literally."""
        return text

    @abstractmethod
    def heading(self, level: int, text: str) -> str:
        """A heading of level 1 to 3."""

    def paragraph(self, text: str) -> str:
        """Running text."""
        return text

    @abstractmethod
    def bullets(self, items: Sequence[str]) -> str:
        """A list of sentences."""

    @abstractmethod
    def table(self, table: Table) -> str:
        """A table with its caption."""

    def strong(self, text: str) -> str:
        """Emphasised text."""
        return self.STRONG.format(text)

    def cell(self, cell: Cell) -> str:
        """A cell; the best figure of a column is strong."""
        text = self.escaped(cell.text)
        text = self.strong(text) if cell.best else text
        return f"{text} {self.SMALL.format(self.escaped(cell.std))}" if cell.std else text

    def mistakes(self, mistakes: Sequence[Mistake]) -> str:
        """Wrongly predicted texts: a list of them."""
        return self.bullets([self.mistake(mistake) for mistake in mistakes])

    def mistake(self, mistake: Mistake) -> str:
        """What was predicted, and the text."""
        about = self.escaped(f"{mistake.place}, {mistake.label}, predicted {mistake.predicted}")
        return f"{about} ({mistake.confidence:.2f}): {self.words(mistake)}"

    def words(self, mistake: Mistake) -> str:
        """A text in which words are strong if they contribute more than half as much to the
        predicted label as the strongest word."""
        limit = max(*mistake.shares, 0) / 2
        return " ".join(
            self.strong(self.escaped(word)) if share > limit else self.escaped(word)
            for word, share in zip(mistake.words, mistake.shares, strict=True)
            if word
        )


class Markdown(Markup):
    """GitHub's markdown."""

    STRONG = "**{}**"

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


def markdown(blocks: Sequence[Block]) -> str:
    """A markdown document of all blocks except plots."""
    return "\n\n".join(["# spacelite report", *Markdown().parts(blocks)]) + "\n"
