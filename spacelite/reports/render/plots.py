"""Plots as files, SVG and PNG. The only importer of matplotlib."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from spacelite.document import Chart, Plot
from spacelite.metrics.scores import METRICS
from spacelite.reports.analysis.comparisons import Analysis, drawn_metrics
from spacelite.reports.render.colours import MARKERS_OF_FILES, band, colour_of, marker_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ACROSS = 4  # reliability diagrams, or names in a legend, side by side
PIXELS_PER_INCH = 130
# The same figures give the same bytes; text stays text, in a font that exists everywhere.
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "spacelite", "svg.fonttype": "none", "font.family": "sans-serif",
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#dddddd", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "text.parse_math": False,  # names from data are not formulas
}  # fmt: skip

# Form -> metadata of a file, without what differs between two drawings of the same figures.
ABOUT: dict[str, dict[Any, Any]] = {"svg": {"Date": None}, "png": {"Software": None}}


def draw(plot: Plot) -> dict[str, bytes]:
    """Draw a plot: file name -> content, for an SVG and a PNG file."""
    from matplotlib import rc_context

    if plot.chart is not None:
        chart = plot.chart
        return {f"{plot.name}.{form}": learning_curve(chart, form) for form in ABOUT}
    if plot.analysis is None:
        raise ValueError(f"there is nothing to plot: {plot.name}")
    of = plot.analysis
    with rc_context(STYLE):
        figure = _curves(of) if plot.kind == "curves" else _reliability(of)
        # Laid out once, not again for each format.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        return {f"{plot.name}.{form}": _file(figure, form) for form in ABOUT}


def learning_curve(chart: Chart, form: str) -> bytes:
    """Draw a learning curve as a file of this form, `svg` or `png`: a line per system with a band
    of one standard deviation over seeds, the fitted power law dashed."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as NewFigure

    with rc_context(STYLE):
        figure = NewFigure(figsize=(6.4, 4.2), layout="constrained")
        panel: Axes = figure.subplots()
        for number, series in enumerate(chart.series):
            colour, marker = colour_of(number), MARKERS_OF_FILES[marker_of(number)] or "o"
            panel.plot(
                series.sizes, series.means, label=series.name, color=colour, marker=marker,
                markersize=4, linewidth=1.4,
            )  # fmt: skip
            edges = series.band
            if edges is not None:
                sizes, low, high = edges
                alpha = band(len(chart.series))
                panel.fill_between(sizes, low, high, color=colour, alpha=alpha, lw=0)
            if series.line:
                panel.plot(*zip(*series.line, strict=True), color=colour, lw=1, ls="--")
            if series.ahead is not None:
                size, value, low_end, high_end = series.ahead
                errors = [[max(value - low_end, 0)], [max(high_end - value, 0)]]
                panel.errorbar(
                    [size], [value], None if math.isnan(low_end) else errors, fmt=marker,
                    color=colour, mfc="white", markersize=4, capsize=3, lw=1,
                )  # fmt: skip
        panel.set(xscale="log", xlabel="training examples", ylabel=chart.heading)
        panel.set_xticks(chart.sizes, chart.ticks)
        panel.minorticks_off()
        panel.legend(frameon=False, loc="lower right")
        return _file(figure, form)


def _file(figure: Figure, form: str) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=form, metadata=ABOUT[form], dpi=PIXELS_PER_INCH)
    return content.getvalue()


def _curves(analysis: Analysis) -> Figure:
    """One column per metric, train above validation; one line per system, with a band of one
    standard deviation over seeds."""
    from matplotlib.figure import Figure as NewFigure
    from matplotlib.ticker import MaxNLocator

    drawn = drawn_metrics(analysis.curves)
    legend = 0.19 * math.ceil(len(analysis.curves) / ACROSS)
    figure = NewFigure(figsize=(3 * len(drawn), 5.2 + legend), layout="constrained")
    panels = figure.subplots(2, len(drawn), sharex=True, squeeze=False)
    for row, split in enumerate(("train", "validation")):
        for column, metric in enumerate(drawn):
            panel: Axes = panels[row][column]
            for number, curve in enumerate(analysis.curves):
                means, _ = curve.splits[split][metric]
                edges = curve.band(split, metric)
                colour = colour_of(number)
                marker = MARKERS_OF_FILES[marker_of(number)]
                panel.plot(
                    curve.epochs, means, label=curve.name, color=colour, marker=marker,
                    markersize=4, linewidth=1.4,
                )  # fmt: skip
                if edges is not None:
                    alpha = band(len(analysis.curves))
                    panel.fill_between(curve.epochs, *edges, color=colour, alpha=alpha, lw=0)
            if row == 0:
                panel.set_title(METRICS[metric].heading)
            else:
                panel.set_xlabel("epoch")
                panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            if column == 0:
                panel.set_ylabel(split)
    # The two rows share a metric's scale: the gap between train and validation is what counts.
    for column in range(len(drawn)):
        limits = [panels[row][column].get_ylim() for row in range(2)]
        for row in range(2):
            panels[row][column].set_ylim(min(low for low, _ in limits), max(h for _, h in limits))
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=ACROSS, frameon=False)
    return figure


def _reliability(analysis: Analysis) -> Figure:
    """One diagram per system: accuracy against confidence."""
    from matplotlib.figure import Figure as NewFigure

    systems = analysis.systems
    across = min(ACROSS, len(systems))
    down = math.ceil(len(systems) / across)
    figure = NewFigure(figsize=(3 * across, 3 * down), layout="constrained")
    panels: Any = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for number, panel in enumerate(panels.flat):
        if number >= len(systems):
            panel.set_axis_off()
            continue
        of = systems[number].calibration
        colour = colour_of(number)
        panel.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, linestyle="--")
        panel.plot(of.confidence, of.accuracy, color=colour, linewidth=1)
        panel.scatter(of.confidence, of.accuracy, s=sizes(of.count, 8), color=colour)
        panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence", ylabel="accuracy")
        panel.set_title(
            f"{systems[number].name}\nECE {of.own_error:.4f} (seed {systems[number].seed})",
            fontsize=8,
        )
        panel.label_outer()
    return figure


def sizes(counts: list[int], largest: float) -> list[float]:
    """Areas of dots that stand for counts; the largest dot has a diameter of `largest`."""
    most = max(counts, default=1)
    return [max(4.0, largest**2 * count / most) for count in counts]
