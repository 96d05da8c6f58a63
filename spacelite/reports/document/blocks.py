"""What a report consists of: headings, paragraphs, lists, tables and plots. Every format renders
these."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from spacelite.reports.analysis.comparisons import Analysis
from spacelite.reports.analysis.examples import Mistake
from spacelite.reports.document.chart import Chart

# A number with its sign and unit, as the tables write it; two of them for an interval or a range.
_ONE = r"[<>≈]?\s*[+\-−–±]?\s*(\d[\d,]*\.?\d*|\.\d+)(e[+\-−]?\d+)?\s*(%|s|ms|min|h|[kMGT]?i?B)?"
NUMBER = re.compile(
    rf"[\[(]?{_ONE}((\s*(,|to|–|-|±|/)\s*|\s+){_ONE})*[\])]?|[-−–—]|nan|[+\-−]?inf|"
)


@dataclass(frozen=True)
class Heading:
    """A heading of level 1 to 3, below the report's title."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: list[str]


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: The figure or other text.
        std: The figure's standard deviation over seeds.
        best: Whether the figure is the best of its column.
        weight: How strongly the cell is shaded, in [0, 1]; None for no shading.
    """

    text: str
    std: str = ""
    best: bool = False
    weight: float | None = None


@dataclass(frozen=True)
class Line:
    """A row of a table; its first cell is its heading. `kind` is that of a `rows.Row`, or ""."""

    cells: list[Cell]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: The caption.
        columns: Headings of the columns.
        lines: The rows.
        kind: What the table shows, such as `systems` or `confusion`; decides on its layout.
        folded: Whether the table is hidden until the reader opens it, in formats that allow this.
    """

    caption: str
    columns: list[str]
    lines: list[Line]
    kind: str = ""
    folded: bool = False

    @property
    def captioned(self) -> bool:
        """Whether text and notebooks show the caption: nothing above the table says it."""
        return self.kind not in ("systems", "predictions")

    @cached_property
    def text_columns(self) -> list[bool]:
        """Whether each column holds text, which stands left; numbers stand right.

        The first column holds text, and any with a cell that is not a number or a dash.
        """
        return [
            number == 0 or not all(_is_number(line.cells[number].text) for line in self.lines)
            for number in range(len(self.columns))
        ]


def _is_number(text: str) -> bool:
    """Whether a cell holds a number, an interval, a dash or nothing."""
    return NUMBER.fullmatch(text.strip()) is not None


@dataclass(frozen=True)
class Plot:
    """A plot of an analysis, or of a learning curve.

    Attributes:
        kind: `curves`, `reliability` or `learning-curve`.
        name: Name of the plot's files, without suffix.
        text: Description of what the plot shows.
        analysis: The analysis to plot; None for a learning curve.
        chart: The learning curve.
    """

    kind: str
    name: str
    text: str
    analysis: Analysis | None
    chart: Chart | None = None


@dataclass(frozen=True)
class Mistakes:
    """Wrongly predicted texts, with the contribution of each word."""

    items: list[Mistake]


Block = Heading | Paragraph | Bullets | Table | Plot | Mistakes
