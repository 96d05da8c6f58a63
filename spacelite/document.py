"""What studies and reports consist of: headings, paragraphs, lists, tables and plots, which every
format renders, and how numbers are written in them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING

from spacelite.visible import visible_name

if TYPE_CHECKING:
    from spacelite.reports.analysis.comparisons import Analysis
    from spacelite.reports.analysis.examples import Mistake

LARGEST = 10_000  # a longer number would break the tables
SIGNIFICANT = 0.05  # a difference is called significant if its p is below this
# A number with its sign and unit, as the tables write it; two of them for an interval or a range.
_FIGURE = r"[<>≈]?\s*[+\-−–±]?\s*(\d[\d,]*\.?\d*|\.\d+)(e[+\-−]?\d+)?\s*(%|s|ms|min|h|[kMGT]?i?B)?"
NUMBER = re.compile(
    rf"[\[(]?{_FIGURE}((\s*(,|to|–|-|±|/)\s*|\s+){_FIGURE})*[\])]?|[-−–—]|nan|[+\-−]?inf|"
)


@dataclass(frozen=True)
class _Written:
    """A part of a document, all of whose texts are on one line: names are written out."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, str):
                object.__setattr__(self, item.name, visible_name(value))
            elif isinstance(value, list) and all(isinstance(one, str) for one in value):
                object.__setattr__(self, item.name, list(map(visible_name, value)))


@dataclass(frozen=True)
class Heading(_Written):
    """A heading of level 1 to 3, below the report's title."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph(_Written):
    """Running text."""

    text: str


@dataclass(frozen=True)
class Bullets(_Written):
    """A list of sentences."""

    items: list[str]


@dataclass(frozen=True)
class Cell(_Written):
    """A cell of a table: a figure or other text."""

    text: str
    std: str = ""  # the figure's standard deviation over seeds
    best: bool = False  # of its column
    weight: float | None = None  # how strongly it is shaded, in [0, 1]


@dataclass(frozen=True)
class Line:
    """A row of a table; its first cell is its heading. `kind` is that of a `groups.Row`, or ""."""

    cells: list[Cell]
    kind: str = ""

    @classmethod
    def of(cls, *cells: str | Cell, kind: str = "") -> Line:
        """A row of cells, of which most are texts."""
        return cls([Cell(cell) if isinstance(cell, str) else cell for cell in cells], kind)


@dataclass(frozen=True)
class Table(_Written):
    """A table."""

    caption: str
    columns: list[str]  # their headings
    lines: list[Line]
    kind: str = ""  # what it shows, such as `systems` or `confusion`; decides on its layout
    folded: bool = False  # hidden until the reader opens it, in formats that allow this

    @property
    def captioned(self) -> bool:
        """Whether text and notebooks show the caption: nothing above the table says it."""
        return self.kind not in ("systems", "predictions")

    @cached_property
    def text_columns(self) -> list[bool]:
        """Whether each column holds text, which is left-aligned; numbers are right-aligned. The
        first column holds text, and so does any with a cell that is neither a number nor a dash."""
        return [
            number == 0 or not all(_is_number(line.cells[number].text) for line in self.lines)
            for number in range(len(self.columns))
        ]


def _is_number(text: str) -> bool:
    """Whether a cell holds a number, an interval, a dash or nothing."""
    return NUMBER.fullmatch(text.strip()) is not None


@dataclass(frozen=True)
class Series:
    """The curve of a system: the metric at numbers of training examples, as mean and standard
    deviation over seeds, or at layers, as figure and half of its interval; NaN where there is
    none."""

    name: str
    sizes: list[int]
    means: list[float]
    deviations: list[float]
    # The fitted power law as points (size, metric), up to twice the largest size.
    line: list[tuple[float, float]] = field(default_factory=list)
    # What is extrapolated: the size, the metric there, and its 95% interval, NaN if not known.
    ahead: tuple[int, float, float, float] | None = None

    @property
    def band(self) -> tuple[list[int], list[float], list[float]] | None:
        """The sizes with a standard deviation, and the mean less and plus one; None if there are
        none."""
        known = [
            (size, mean - std, mean + std)
            for size, mean, std in zip(self.sizes, self.means, self.deviations, strict=True)
            if not math.isnan(mean - std)
        ]
        if not known:
            return None
        sizes, low, high = zip(*known, strict=True)
        return list(sizes), list(low), list(high)


@dataclass(frozen=True)
class Chart:
    """A learning curve, or a metric by layer, as it is drawn, best system first."""

    name: str  # of its files, without suffix
    heading: str
    text: str  # what is drawn, for those who cannot see it
    series: list[Series]
    axis: str = "training examples"  # what lies along the horizontal axis
    logarithmic: bool = True

    @property
    def sizes(self) -> list[int]:
        """All numbers of examples that are drawn, what is extrapolated last."""
        ahead = [curve.ahead[0] for curve in self.series if curve.ahead is not None]
        return list(dict.fromkeys([*self.series[0].sizes, *ahead]))

    @property
    def ticks(self) -> list[str]:
        """The label at each of the sizes; twice the largest is too close to it for a number."""
        measured = self.series[0].sizes
        return [f"{size:,}" if size in measured else "×2" for size in self.sizes]


@dataclass(frozen=True)
class Plot:
    """A plot of an analysis, or a chart."""

    kind: str  # `curves`, `reliability`, `learning-curve` or `layers`
    name: str  # of its files, without suffix
    text: str  # what it shows
    content: Analysis | Chart


@dataclass(frozen=True)
class Mistakes:
    """Wrongly predicted texts, with the contribution of each word."""

    items: list[Mistake]


Block = Heading | Paragraph | Bullets | Table | Plot | Mistakes


def decimals(value: float, places: int) -> str:
    """`0.6210`, or `5.4e+31` for a very large loss; never `-0.0000`, and a dash for NaN."""
    if math.isnan(value):
        return "–"
    if abs(value) >= LARGEST:
        return f"{value:.1e}"
    return f"{round(_exact(value), places) + 0.0:.{places}f}"


def figure(
    value: float,
    scale: float | None = None,
    largest: float = 0.0,
    *,
    signed: bool = False,
) -> str:
    """A figure in the unit of the labels, of which nothing is known, with three or four significant
    digits: `0.885`, `12.35`, `45,230`, `7.21e11`, or a dash for NaN.

    Figures that are read together have the same decimals: those that `scale` needs (of a standard
    deviation its mean, in a column of shares the largest share), and a power of ten only if the
    `largest` of them needs it."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else f"{value:.0f}".replace("-", "−")
    size = max(abs(value), abs(scale or 0.0), abs(largest))
    power = 0 if -5 < _exponent(size) < 7 else _exponent(size)
    first = max(_exponent(scale or (size if scale == 0 else value)) - power, -8)
    places = 2 - first if first < 0 else max((2 if power else 3) - first, 0)
    shown = Decimal(value).scaleb(-power)
    text = f"{shown:{'+' if signed else ''},.{places}f}".replace("-", "−")
    text = text if text.strip("+−0.") else text.lstrip("+−")
    return f"{text}e{power}" if power else text


def of_label(value: float, digits: int = 6) -> str:
    """A label that is a number, or one that is predicted: `3.7`, `1234567`, `1.02836e12`."""
    if 10**digits <= abs(value) < 1e10:
        return f"{value:.0f}"
    return rounded(value, digits)


def rounded(value: float, digits: int = 1) -> str:
    """A number with so many significant digits: `5e-8`, `0.003`, `4e4`."""
    return re.sub(r"e\+?(-?)0*", r"e\1", f"{value:.{digits}g}")


def _exponent(value: float) -> int:
    """Of ten, in scientific notation with four digits; 0 of 0."""
    return int(f"{value:.3e}".partition("e")[2])


def _exact(value: float) -> float:
    """Without the rounding of arithmetic: 0.6675 and 0.6675000000000001 are the same figure."""
    return round(value, 9)


def with_sign(value: float, places: int = 4) -> str:
    """`+0.0120` or `−0.0120`, and never `−0.0000`."""
    text = f"{_exact(value):+.{places}f}".replace("-", "−")
    return text if text.strip("+−0.") else text.lstrip("+−")


def one_place(value: float) -> str:
    """`0.4`, or `−1.2`."""
    return with_sign(value, 1).removeprefix("+")


def p_value(value: float) -> str:
    """`p = 0.004`, or `p < 0.001`; with more digits where three would be those of the limit:
    `p = 0.0497`."""
    if value < 0.001 or value >= 1:
        return "p < 0.001" if value < 1 else "p = 1"
    shown = [f"{value:.{places}f}" for places in range(3, 13)]
    return f"p = {next((text for text in shown if float(text) != SIGNIFICANT), shown[0])}"
