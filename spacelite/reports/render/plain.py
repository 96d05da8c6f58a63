"""Blocks as plain text with aligned columns, which `print` shows, and a learning curve drawn in
characters."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from spacelite.document import Block, Chart, Table
from spacelite.inference.explanation import marked
from spacelite.reports.analysis.examples import Mistake
from spacelite.reports.render.markup import Markup
from spacelite.visible import visible

WIDTH = 100  # of running text
DRAWN_WIDTH, DRAWN_HEIGHT = 76, 15  # of a drawing, with its axes, without the legend
MARKS = "●■▲◆○□△◇"
PLAIN = str.maketrans("●■▲◆○□△◇│└─┤┬·", "o#^%0@A&|+-++.")
LEAST_SPACE = 2  # between two numbers of an axis
STEPS = (1, 2, 2.5, 5, 10)  # of the vertical axis, times a power of 10
TICKS = 6  # of the vertical axis, at most


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


def draw(chart: Chart, *, width: int = DRAWN_WIDTH, plain: bool = False) -> str:
    """Draw a chart: numbers of examples on a logarithmic axis, a mark for each system, dots for the
    power law; at most `width` characters a line. `plain` uses ASCII alone."""
    points = [
        (size, value)
        for series in chart.series
        for size, value in [*zip(series.sizes, series.means, strict=True), *series.line]
        if not math.isnan(value)
    ]
    if not points:
        return ""
    ticks, low, high, places = _ticks([value for _, value in points])
    labels = {tick: f"{tick:.{places}f}" for tick in ticks}
    left = max(map(len, labels.values())) + 1
    columns, rows = width - left - 3, DRAWN_HEIGHT - 3
    first, last = (math.log(end) for end in (min(points)[0], max(points)[0]))

    def column(size: float) -> int:
        share = (math.log(size) - first) / (last - first) if last > first else 0.5
        return round(share * (columns - 3)) + 1

    def row(value: float) -> int:
        return round((high - value) / (high - low) * (rows - 1))

    cells = [[" "] * columns for _ in range(rows)]
    for series in chart.series:
        for size, value in series.line:
            cells[row(value)][column(size)] = "·"
    for number, series in reversed(list(enumerate(chart.series))):
        for size, value in zip(series.sizes, series.means, strict=True):
            if not math.isnan(value):
                cells[row(value)][column(size)] = MARKS[number % len(MARKS)]
    of_row = {row(tick): labels[tick] for tick in ticks}
    lines = [f" {chart.heading}"]
    for number, content in enumerate(cells):
        label, edge = of_row.get(number, ""), "┤" if number in of_row else "│"
        lines.append(f"{label:>{left}} {edge}{''.join(content)}".rstrip())
    axis, below = ["─"] * columns, [" "] * (columns + left + 2)
    end = 0
    for size in chart.sizes:
        text, at = f"{size:,}", column(size)
        axis[at] = "┬"
        start = min(max(at + left + 2 - len(text) // 2, 0), len(below) - len(text))
        if start >= end:
            below[start : start + len(text)] = text
            end = start + len(text) + LEAST_SPACE
    lines += [f"{'':>{left}} └{''.join(axis)}", "".join(below).rstrip()]
    legend = [
        f"{MARKS[number % len(MARKS)]} {visible(series.name)}"
        for number, series in enumerate(chart.series)
    ]
    if any(series.line for series in chart.series):
        legend.append("· power law, extrapolated")
    text = "\n".join([*lines, *_wrapped(legend, width)])
    return text.translate(PLAIN) if plain else text


def _ticks(values: list[float]) -> tuple[list[float], float, float, int]:
    """Round numbers for the vertical axis, its ends, and the decimals of the numbers."""
    least, most = min(values), max(values)
    if most - least < 1e-9:
        least, most = least - 0.05, most + 0.05
    power = 10 ** math.floor(math.log10((most - least) / TICKS))
    step = next(s * power for s in STEPS if (most - least) / (s * power) <= TICKS)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    places += abs(round(step, places) - step) > 1e-9
    numbers = range(math.ceil(least / step - 1e-9), math.floor(most / step + 1e-9) + 1)
    return [number * step for number in numbers], least, most, places


def _wrapped(entries: list[str], width: int) -> list[str]:
    """The entries of a legend, as many in a line as fit."""
    lines: list[str] = []
    for entry in entries:
        if lines and len(lines[-1]) + 3 + len(entry) <= width:
            lines[-1] += f"   {entry}"
        else:
            lines.append(f" {entry}")
    return lines
