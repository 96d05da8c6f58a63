"""Plots: the same lines drawn by plotly for pages, by matplotlib as SVG and PNG files, and, of a
learning curve, in characters."""

from __future__ import annotations

import html
import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spacelite.document import Chart, Plot, decimals, figure
from spacelite.reports.analysis.comparisons import (
    Analysis,
    CalibrationFigures,
    SystemAnalysis,
    drawn_metrics,
)
from spacelite.reports.document import wording
from spacelite.tasks import known_metrics
from spacelite.types import Array
from spacelite.visible import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Marker = tuple[str | None, str | None, str]  # for plotly, matplotlib and as a character

# Distinguishable for readers with red-green colour blindness, with a contrast of at least 3:1 to
# both the light and the dark background of the page.
PALETTE = (
    "#2f7fd1", "#d9702b", "#1f9d78", "#b5519f", "#9a8a1c", "#7a6ff0", "#c94f5f", "#6f8794",
    "#3f9fb8", "#a0764f",
)  # fmt: skip
# None for the first ten systems, then one per ten.
MARKERS: tuple[Marker, ...] = (
    (None, None, ""), ("circle", "o", "●"), ("square", "s", "■"), ("diamond", "D", "◆"),
    ("triangle-up", "^", "▲"), ("cross", "P", "✚"),
)  # fmt: skip
FOR, NEUTRAL, AGAINST = "#1f9d78", "#a9b1ba", "#d9702b"
POWERS = {"exponentformat": "e"}  # 1e+12 on axes, where plotly would write 1T
MARGINS = {"l": 46, "r": 8, "t": 8, "b": 36}

ACROSS = 4  # reliability diagrams, or names in a legend, side by side
LETTER, HANDLE = 0.075, 0.5  # inches of a letter, and of a line in a legend before its name
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

# In characters.
DRAWN_WIDTH, DRAWN_HEIGHT = 76, 15  # with its axes, without the legend
MARKS = "●■▲◆○□△◇"
PLAIN = str.maketrans("●■▲◆○□△◇│└─┤┬·", "o#^%0@A&|+-++.")
LEAST_SPACE = 2  # between two numbers of an axis
STEPS = (1, 2, 2.5, 5, 10)  # of the vertical axis, times a power of 10
TICKS = 6  # of the vertical axis, at most


@dataclass(frozen=True)
class Trace:
    """A system's line in a plot."""

    colour: str
    marker: Marker
    name: str
    x: Sequence[int]
    y: Sequence[float]
    # Points, lower and upper edge of one standard deviation over seeds; None for a single seed.
    band: tuple[Sequence[int], Sequence[float], Sequence[float]] | None


def program() -> tuple[str, str]:
    """Plotly's program, which draws a page's figures: the name of its file, and its code."""
    from plotly.offline import get_plotlyjs, get_plotlyjs_version

    return f"plotly-{get_plotlyjs_version()}.min.js", get_plotlyjs()


def look_of(number: int) -> tuple[str, Marker]:
    """The colour and marker of a system, given its index; colours repeat after ten systems."""
    tens, of_ten = divmod(number, len(PALETTE))
    return PALETTE[of_ten], MARKERS[tens % len(MARKERS)]


def epoch_traces(analysis: Analysis, split: str, metric: str) -> list[Trace]:
    """A metric by epoch."""
    traces = []
    for number, curve in enumerate(analysis.curves):
        means, _ = curve.splits[split][metric]
        edges = curve.band(split, metric)
        band = None if edges is None else (curve.epochs, *edges)
        traces.append(Trace(*look_of(number), curve.name, curve.epochs, means, band))
    return traces


def chart_traces(chart: Chart) -> list[Trace]:
    """A metric by the number of training examples."""
    return [
        Trace(*look_of(number), series.name, series.sizes, series.means, series.band)
        for number, series in enumerate(chart.series)
    ]


def _opacity(systems: int) -> float:
    """The opacity of the overlapping bands of this many systems."""
    return min(0.18, 1.1 / max(systems, 1))


@dataclass(frozen=True)
class Panel:
    """One interactive figure: title, description for readers who cannot see it, and what plotly
    draws (`data` and `layout`)."""

    title: str
    summary: str
    content: dict[str, Any]


def panels(plot: Plot) -> tuple[list[Trace], list[Panel]]:
    """A plot's legend, as a line of each of its entries, and its panels: one per metric, or one per
    system."""
    if isinstance(plot.content, Chart):
        keys, panel = learning_curve_panel(plot.content)
        return keys, [panel]
    if plot.kind != "curves":
        return [], _reliability_panels(plot.content)
    drawn = drawn_metrics(plot.content.curves)
    keys = epoch_traces(plot.content, "validation", drawn[0])
    return keys, [_epoch_panel(plot.content, metric) for metric in drawn]


def _epoch_panel(analysis: Analysis, metric: str) -> Panel:
    from plotly import graph_objects

    figure = graph_objects.Figure()
    of_splits = [epoch_traces(analysis, split, metric) for split in ("train", "validation")]
    for pair in zip(*of_splits, strict=True):
        for trace, split, dash in zip(pair, ("train", "validation"), ("dot", "solid"), strict=True):
            name = html.escape(trace.name)
            _add(
                figure, trace, len(analysis.curves), name=f"{name}, {split}",
                symbol=trace.marker[0], dash=dash, hover=f"{name}<br>{split}, epoch %{{x}}",
            )  # fmt: skip
    step = max(1, max(len(curve.epochs) for curve in analysis.curves) // 5)
    axis = {"title": "epoch", "dtick": step, "tick0": 0}
    of = known_metrics()[metric]
    ranges = "; ".join(
        f"{trace.name} from {of.written(trace.y[0], 3)} to {of.written(trace.y[-1], 3)}"
        for trace in of_splits[1]
    )
    summary = f"{of.heading} on validation by epoch: {ranges}."
    return _panel(of.heading, summary, figure, margin=MARGINS, xaxis=axis, yaxis=POWERS, height=250)


def _add(
    figure: Any,
    trace: Trace,
    systems: int,
    *,
    symbol: str | None,
    hover: str,
    name: str | None = None,
    dash: str | None = None,
) -> None:
    """Add a line and its band to plotly's figure."""
    if trace.band is not None:
        x, low, high = trace.band
        red, green, blue = (int(trace.colour[i : i + 2], 16) for i in (1, 3, 5))
        figure.add_scatter(
            x=[*x, *reversed(x)], y=_short([*high, *reversed(low)]), fill="toself",
            fillcolor=f"rgba({red},{green},{blue},{_opacity(systems):g})", mode="lines",
            line={"width": 0}, hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=trace.x, y=[None if math.isnan(y) else y for y in _short(trace.y)], name=name,
        mode="lines+markers" if symbol else "lines", marker={"symbol": symbol},
        line={"color": trace.colour, "dash": dash, "width": 1.8},
        hovertemplate=f"{hover}: %{{y:.4~g}}<extra></extra>",
    )  # fmt: skip


def learning_curve_panel(chart: Chart) -> tuple[list[Trace], Panel]:
    """The legend and the panel of a learning curve."""
    from plotly import graph_objects

    figure, traces = graph_objects.Figure(), chart_traces(chart)
    for trace, series in zip(traces, chart.series, strict=True):
        hover = f"{html.escape(trace.name)}<br>{chart.axis}: %{{x:,}}"
        _add(figure, trace, len(chart.series), symbol=trace.marker[0] or "circle", hover=hover)
        if series.line:
            sizes, values = zip(*series.line, strict=True)
            figure.add_scatter(
                x=[round(size, 1) for size in sizes], y=_short(values), mode="lines",
                line={"color": trace.colour, "dash": "dash", "width": 1.2}, hoverinfo="skip",
            )  # fmt: skip
        if series.ahead is not None:
            size, value, low, high = series.ahead
            whiskers = {
                "type": "data", "symmetric": False, "array": _short([high - value]),
                "arrayminus": _short([value - low]),
            }  # fmt: skip
            figure.add_scatter(
                x=[size], y=_short([value]), mode="markers",
                marker={"symbol": "circle-open", "color": trace.colour, "size": 8},
                error_y=None if math.isnan(low) else whiskers,
                hovertemplate=f"{hover}: %{{y:.4~g}}, extrapolated<extra></extra>",
            )  # fmt: skip
    ticks = {"tickvals": chart.sizes, "ticktext": chart.ticks, "tickangle": 0}
    axis = {"type": "log" if chart.logarithmic else "linear", "title": chart.axis, **ticks}
    panel = _panel(
        chart.heading, chart.text, figure, margin=MARGINS, height=420, xaxis=axis, yaxis=POWERS
    )
    return traces, panel


def _reliability_panels(analysis: Analysis) -> list[Panel]:
    from plotly import graph_objects

    panels = []
    for number, system in enumerate(analysis.systems):
        of, (colour, _) = system.calibration, look_of(number)
        if of is None:
            continue
        most = max(of.count, default=1)
        figure = graph_objects.Figure()
        figure.add_scatter(
            x=[0, 1], y=[0, 1], mode="lines", hoverinfo="skip",
            line={"color": "#8a8f98", "dash": "dash", "width": 1},
        )  # fmt: skip
        figure.add_scatter(
            x=_short(of.confidence), y=_short(of.accuracy), customdata=of.count,
            mode="lines+markers",
            line={"color": colour, "width": 1.2},
            marker={"size": _short([5 + 13 * (n / most) ** 0.5 for n in of.count]), "opacity": 1},
            hovertemplate="confidence %{x:.3f}<br>accuracy %{y:.3f}<br>%{customdata:,} predictions"
            "<extra></extra>",
        )  # fmt: skip
        bins = "; ".join(
            f"{accuracy:.2f} at {confidence:.2f}"
            for confidence, accuracy in zip(of.confidence, of.accuracy, strict=True)
        )
        panels.append(
            _panel(
                f"{system.name}: {_own_error(system, of)}",
                f"{system.name}, accuracy by confidence: {bins}.",
                figure,
                margin=MARGINS,
                height=270,
                xaxis={"title": "confidence", "range": [0, 1.02]},
                yaxis={"title": "accuracy", "range": [0, 1.02]},
            )
        )
    return panels


def _own_error(system: SystemAnalysis, of: CalibrationFigures) -> str:
    """The error of the head that a diagram shows: `ECE 0.0312 (seed 0)`."""
    return wording.of_seed(f"ECE {decimals(of.own_error, 4)}", system.seed)


def concept_space(
    label: str,
    points: Array,
    words: Sequence[str],
    shares: Sequence[float],
    written: Sequence[str],
    about: str,
) -> Panel:
    """The concept space of a label: the n tokens of a text as points, (n, 1 to 3), and their
    centroid. Hovering shows a token's word and its share, as `written`, in the logit that `about`
    names (`for positive`); the share gives its colour."""
    from plotly import graph_objects

    axes = points.shape[1]
    centroid = points.mean(axis=0)
    strongest = max(map(abs, shares), default=0.0) or 1.0
    shown = [
        f"{html.escape(w)}<br>{share} {html.escape(about)}"
        for w, share in zip(words, written, strict=True)
    ]
    marker = {
        "color": list(shares), "cmin": -strongest, "cmax": strongest, "size": 4,
        "colorscale": [[0, AGAINST], [0.5, NEUTRAL], [1, FOR]],
    }  # fmt: skip
    common = {"mode": "markers", "hovertemplate": "%{text}<extra></extra>"}
    diamond = {"symbol": "diamond", "size": 6, "color": PALETTE[0]}
    figure = graph_objects.Figure()
    add = figure.add_scatter3d if axes == 3 else figure.add_scatter
    for location, text, look in (
        (points.T, shown, marker),
        (centroid[:, None], ["centroid: the mean of all tokens"], diamond),
    ):
        rows = [_short(row) for row in location] + [[0.0] * location.shape[1]] * (2 - axes)
        add(**dict(zip("xyz", rows, strict=False)), **common, text=text, marker=look)
    names: dict[str, Any] = {
        f"{axis}axis": {"title": name} for axis, name in zip("xyz", "123", strict=True)
    }
    names |= {"camera": {"eye": {"x": 1.75, "y": 1.75, "z": 1.05}}} if axes == 3 else {}
    layout = {"scene": names} if axes == 3 else {k: names[k] for k in ("xaxis", "yaxis")}
    centre = ", ".join(f"{value:.2f}" for value in centroid)
    summary = f"Concept space of {label}: {len(points)} tokens, their centroid at {centre}."
    margin = dict.fromkeys("lrtb", 6)
    return _panel(f"Concept space of {label}", summary, figure, height=360, margin=margin, **layout)


def _short(values: Iterable[float]) -> list[float]:
    """Rounded: digits too small to see would make up half of the page."""
    return [float(f"{value:.5g}") for value in values]


def _panel(title: str, summary: str, figure: Any, **layout: Any) -> Panel:
    """A panel of what plotly's JavaScript reads, without the default template, which would be half
    of it."""
    figure.update_layout(showlegend=False, **layout, template="none")
    content: dict[str, Any] = figure.to_plotly_json()
    content["layout"].pop("template", None)
    return Panel(title, summary, content)


def draw(plot: Plot) -> dict[str, bytes]:
    """Draw a plot: file name -> content, for an SVG and a PNG file."""
    from matplotlib import rc_context

    if isinstance(plot.content, Chart):
        return {f"{plot.name}.{form}": learning_curve(plot.content, form) for form in ABOUT}
    with rc_context(STYLE):
        figure = (_curves if plot.kind == "curves" else _reliability)(plot.content)
        # Laid out once, not again for each format.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        return {f"{plot.name}.{form}": _file(figure, form) for form in ABOUT}


def _file(figure: Figure, form: str) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=form, metadata=ABOUT[form], dpi=PIXELS_PER_INCH)
    return content.getvalue()


def _draw(panel: Axes, trace: Trace, systems: int, marker: str | None) -> None:
    """Draw a line and its band with matplotlib."""
    panel.plot(
        trace.x, trace.y, label=trace.name, color=trace.colour, marker=marker,
        markersize=4, linewidth=1.4,
    )  # fmt: skip
    if trace.band is not None:
        panel.fill_between(*trace.band, color=trace.colour, alpha=_opacity(systems), lw=0)


def learning_curve(chart: Chart, form: str) -> bytes:
    """Draw a learning curve as a file of this form, `svg` or `png`: a line per system with a band
    of one standard deviation over seeds, the fitted power law dashed."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as NewFigure

    with rc_context(STYLE):
        figure = NewFigure(figsize=(6.4, 4.2), layout="constrained")
        panel: Axes = figure.subplots()
        for trace, series in zip(chart_traces(chart), chart.series, strict=True):
            colour, marker = trace.colour, trace.marker[1] or "o"
            _draw(panel, trace, len(chart.series), marker)
            if series.line:
                panel.plot(*zip(*series.line, strict=True), color=colour, lw=1, ls="--")
            if series.ahead is not None:
                size, value, low, high = series.ahead
                errors = [[max(value - low, 0)], [max(high - value, 0)]]
                panel.errorbar(
                    [size], [value], None if math.isnan(low) else errors, fmt=marker,
                    color=colour, mfc="white", markersize=4, capsize=3, lw=1,
                )  # fmt: skip
        scale = "log" if chart.logarithmic else "linear"
        panel.set(xscale=scale, xlabel=chart.axis, ylabel=chart.heading)
        panel.set_xticks(chart.sizes, chart.ticks)
        panel.minorticks_off()
        handles, names = panel.get_legend_handles_labels()
        corner: Any = "lower right" if chart.logarithmic else "best"  # learning curves rise
        panel.legend(handles, _in_lines(names, 3.0), frameon=False, loc=corner)
        return _file(figure, form)


def _curves(analysis: Analysis) -> Figure:
    """One column per metric, train above validation; one line per system, with a band of one
    standard deviation over seeds."""
    from matplotlib.figure import Figure as NewFigure
    from matplotlib.ticker import MaxNLocator

    drawn = drawn_metrics(analysis.curves)
    width = 3 * len(drawn)
    longest = max(len(curve.name) for curve in analysis.curves)
    across = max(1, min(ACROSS, int(width / (HANDLE + LETTER * longest))))
    names = _in_lines([curve.name for curve in analysis.curves], width / across - HANDLE)
    of_name = max(name.count("\n") + 1 for name in names)
    legend = 0.19 * math.ceil(len(names) / across) * of_name
    figure = NewFigure(figsize=(width, 5.2 + legend), layout="constrained")
    panels = figure.subplots(2, len(drawn), sharex=True, squeeze=False)
    for row, split in enumerate(("train", "validation")):
        for column, metric in enumerate(drawn):
            panel: Axes = panels[row][column]
            for trace in epoch_traces(analysis, split, metric):
                _draw(panel, trace, len(analysis.curves), trace.marker[1])
            if row == 0:
                panel.set_title(known_metrics()[metric].heading)
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
    handles, _ = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=across, frameon=False)
    return figure


def _in_lines(names: Iterable[str], width: float) -> list[str]:
    """Names on as many lines as they need in so many inches."""
    return [textwrap.fill(name, max(int(width / LETTER), 10)) for name in names]


def _reliability(analysis: Analysis) -> Figure:
    """One diagram per system: accuracy against confidence."""
    from matplotlib.figure import Figure as NewFigure

    systems = analysis.systems
    across = min(ACROSS, len(systems))
    down = math.ceil(len(systems) / across)
    titles = _in_lines([system.name for system in systems], 2.8)
    more = 0.25 * max(title.count("\n") for title in titles)
    figure = NewFigure(figsize=(3 * across, (3 + more) * down), layout="constrained")
    panels: Any = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for number, panel in enumerate(panels.flat):
        of = systems[number].calibration if number < len(systems) else None
        if of is None:
            panel.set_axis_off()
            continue
        colour, _ = look_of(number)
        # Of dots that stand for counts; the largest has a diameter of 8.
        areas = [max(4.0, 64 * count / max(of.count, default=1)) for count in of.count]
        panel.plot([0, 1], [0, 1], color="#888888", linewidth=0.8, linestyle="--")
        panel.plot(of.confidence, of.accuracy, color=colour, linewidth=1)
        panel.scatter(of.confidence, of.accuracy, s=areas, color=colour)
        panel.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence", ylabel="accuracy")
        panel.set_title(
            f"{titles[number]}\n{_own_error(systems[number], of)}",
            fontsize=8,
        )
        panel.label_outer()
    return figure


def in_characters(chart: Chart, *, width: int = DRAWN_WIDTH, plain: bool = False) -> str:
    """Draw a chart: numbers of examples on a logarithmic axis, or layers, a mark for each system,
    dots for the power law; at most `width` characters a line. `plain` uses ASCII alone."""
    points = [
        (size, value)
        for series in chart.series
        for size, value in [*zip(series.sizes, series.means, strict=True), *series.line]
        if not math.isnan(value)
    ]
    if not points:
        return ""
    ticks, low, high, places = _ticks([value for _, value in points])
    largest = max(abs(low), abs(high))
    labels = {
        tick: f"{tick:.{places}f}" if 1e-4 < largest < 1e7 else figure(tick, largest)
        for tick in ticks
    }
    left = max(map(len, labels.values())) + 1
    columns, rows = width - left - 3, DRAWN_HEIGHT - 3
    scale = math.log if chart.logarithmic else float
    first, last = (scale(end) for end in (min(points)[0], max(points)[0]))

    def column(size: float) -> int:
        share = (scale(size) - first) / (last - first) if last > first else 0.5
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
    legend = []
    for number, series in enumerate(chart.series):
        mark, marked = MARKS[number % len(MARKS)], zip(series.sizes, series.means, strict=True)
        over = {cells[row(of)][column(size)] for size, of in marked if not math.isnan(of)}
        behind = f" (behind {' '.join(sorted(over))})" if over and mark not in over else ""
        legend.append(f"{mark} {visible(series.name)}{behind}")
    if any(series.line for series in chart.series):
        legend.append("· power law, extrapolated")
    text = "\n".join([*lines, *_wrapped(legend, width)])
    return text.translate(PLAIN) if plain else text


def _ticks(values: list[float]) -> tuple[list[float], float, float, int]:
    """Round numbers for the vertical axis, its ends, and the decimals of the numbers."""
    least, most = min(values), max(values)
    size = max(abs(least), abs(most)) or 1.0
    if most - least < 1e-9 * size:
        least, most = least - 0.05 * size, most + 0.05 * size
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
