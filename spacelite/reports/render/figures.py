"""Interactive plots for pages. The only importer of plotly."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from spacelite.document import Chart, Plot, with_sign
from spacelite.metrics.scores import METRICS
from spacelite.reports.analysis.comparisons import Analysis, EpochCurve, drawn_metrics
from spacelite.reports.render.colours import (
    CHARACTERS,
    MARKERS,
    band,
    colour_of,
    marker_of,
    translucent,
)

FOR, NEUTRAL, AGAINST = "#1f9d78", "#a9b1ba", "#d9702b"
MARGINS = {"l": 46, "r": 8, "t": 8, "b": 36}


Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Panel:
    """One interactive figure.

    Attributes:
        title: The title.
        summary: Description for readers who cannot see the figure.
        content: What plotly draws: `data` and `layout`.
    """

    title: str
    summary: str
    content: dict[str, Any]


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    name: str
    colour: str
    marker: str


def script() -> str:
    """plotly's JavaScript."""
    from plotly.offline import get_plotlyjs

    program: str = get_plotlyjs()
    return program


def panels(plot: Plot) -> tuple[list[Key], list[Panel]]:
    """A plot's legend and its panels: one per metric, or one per system."""
    if plot.chart is not None:
        keys, panel = learning_curve(plot.chart)
        return keys, [panel]
    if plot.analysis is None:
        raise ValueError(f"there is nothing to plot: {plot.name}")
    if plot.kind == "curves":
        curves = plot.analysis.curves
        keys = [
            Key(curve.name, colour_of(number), CHARACTERS[marker_of(number)])
            for number, curve in enumerate(curves)
        ]
        return keys, [_curves(metric, curves) for metric in drawn_metrics(curves)]
    return [], _reliability(plot.analysis)


def _curves(metric: str, curves: Sequence[EpochCurve]) -> Panel:
    from plotly import graph_objects

    figure = graph_objects.Figure()
    said = []
    for number, curve in enumerate(curves):
        colour, name = colour_of(number), html.escape(curve.name)
        marker = MARKERS[marker_of(number)]
        for split, dash in (("train", "dot"), ("validation", "solid")):
            means, _ = curve.splits[split][metric]
            edges = curve.band(split, metric)
            if edges is not None:
                around = _short([*edges[1], *reversed(edges[0])])
                figure.add_scatter(
                    x=[*curve.epochs, *reversed(curve.epochs)], y=around, fill="toself",
                    fillcolor=translucent(colour, band(len(curves))), mode="lines",
                    line={"width": 0}, hoverinfo="skip",
                )  # fmt: skip
            figure.add_scatter(
                x=curve.epochs, y=_short(means), name=f"{name}, {split}",
                mode="lines+markers" if marker else "lines", marker={"symbol": marker},
                line={"color": colour, "dash": dash, "width": 1.8},
                hovertemplate=f"{name}<br>{split}, epoch %{{x}}: %{{y:.4f}}<extra></extra>",
            )  # fmt: skip
        means, _ = curve.splits["validation"][metric]
        said.append(f"{curve.name} from {means[0]:.3f} to {means[-1]:.3f}")
    step = max(1, max(len(curve.epochs) for curve in curves) // 5)
    axis = {"title": "epoch", "dtick": step, "tick0": 0}
    figure.update_layout(showlegend=False, margin=MARGINS, xaxis=axis, height=250)
    title = METRICS[metric].heading
    return Panel(title, f"{title} on validation by epoch: {'; '.join(said)}.", _plain(figure))


def learning_curve(chart: Chart) -> tuple[list[Key], Panel]:
    """The legend and the panel of a learning curve."""
    from plotly import graph_objects

    figure, keys = graph_objects.Figure(), []
    for number, series in enumerate(chart.series):
        colour, name = colour_of(number), html.escape(series.name)
        keys.append(Key(series.name, colour, CHARACTERS[marker_of(number)]))
        if series.band is not None:
            sizes, low, high = series.band
            figure.add_scatter(
                x=[*sizes, *reversed(sizes)], y=_short([*high, *reversed(low)]), fill="toself",
                fillcolor=translucent(colour, band(len(chart.series))), mode="lines",
                line={"width": 0}, hoverinfo="skip",
            )  # fmt: skip
        figure.add_scatter(
            x=series.sizes, y=[None if math.isnan(y) else y for y in _short(series.means)],
            mode="lines+markers",
            marker={"symbol": MARKERS[marker_of(number)] or "circle"},
            line={"color": colour, "width": 1.8},
            hovertemplate=f"{name}<br>%{{x:,}} examples: %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
        if series.line:
            sizes_drawn, values = zip(*series.line, strict=True)
            figure.add_scatter(
                x=[round(size, 1) for size in sizes_drawn], y=_short(values), mode="lines",
                line={"color": colour, "dash": "dash", "width": 1.2}, hoverinfo="skip",
            )  # fmt: skip
        if series.ahead is not None:
            size, value, low_end, high_end = series.ahead
            whiskers = {
                "type": "data", "symmetric": False, "array": _short([high_end - value]),
                "arrayminus": _short([value - low_end]),
            }  # fmt: skip
            figure.add_scatter(
                x=[size], y=_short([value]), mode="markers",
                marker={"symbol": "circle-open", "color": colour, "size": 8},
                error_y=None if math.isnan(low_end) else whiskers,
                hovertemplate=f"{name}<br>%{{x:,}} examples: %{{y:.4f}}, extrapolated"
                "<extra></extra>",
            )  # fmt: skip
    ticks = {"tickvals": chart.sizes, "ticktext": chart.ticks, "tickangle": 0}
    figure.update_layout(
        showlegend=False, margin=MARGINS, height=420,
        xaxis={"type": "log", "title": "training examples", **ticks},
    )  # fmt: skip
    return keys, Panel(chart.heading, chart.text, _plain(figure))


def _reliability(analysis: Analysis) -> list[Panel]:
    from plotly import graph_objects

    made = []
    for number, system in enumerate(analysis.systems):
        of, colour = system.calibration, colour_of(number)
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
        figure.update_layout(
            showlegend=False, margin=MARGINS, height=270,
            xaxis={"title": "confidence", "range": [0, 1.02]},
            yaxis={"title": "accuracy", "range": [0, 1.02]},
        )  # fmt: skip
        bins = "; ".join(
            f"{accuracy:.2f} at {confidence:.2f}"
            for confidence, accuracy in zip(of.confidence, of.accuracy, strict=True)
        )
        error = f"{of.own_error:.4f} (seed {system.seed})"
        made.append(
            Panel(
                f"{system.name}: ECE {error}",
                f"{system.name}, accuracy by confidence: {bins}.",
                _plain(figure),
            )
        )
    return made


def concept_space(
    label: str, points: Array, words: Sequence[str], shares: Sequence[float], about: str
) -> Panel:
    """The concept space of a label: the tokens of a text as points, and their centroid.

    Args:
        label: Name of the label.
        points: Coordinates of the n tokens, (n, 1 to 3).
        words: The word of each token, shown on hovering.
        shares: The share of that word in a logit, which gives the colour.
        about: Names the logit, such as `for positive`.
    """
    from plotly import graph_objects

    axes = points.shape[1]
    centroid = points.mean(axis=0)
    strongest = max(map(abs, shares), default=0.0) or 1.0
    shown = [
        f"{html.escape(w)}<br>{with_sign(s)} {html.escape(about)}"
        for w, s in zip(words, shares, strict=True)
    ]
    marker = {
        "color": list(shares), "cmin": -strongest, "cmax": strongest, "size": 4,
        "colorscale": [[0, AGAINST], [0.5, NEUTRAL], [1, FOR]],
    }  # fmt: skip
    common = {"mode": "markers", "hovertemplate": "%{text}<extra></extra>"}
    locations = [points.T, centroid[:, None]]
    looks = [{"text": shown, "marker": marker}, {"text": ["centroid: the mean of all tokens"],
             "marker": {"symbol": "diamond", "size": 6, "color": colour_of(0)}}]  # fmt: skip
    figure = graph_objects.Figure()
    for location, look in zip(locations, looks, strict=True):
        rows = [_short(row) for row in location] + [[0.0] * location.shape[1]] * (2 - axes)
        named = dict(zip("xyz", rows, strict=False))
        if axes == 3:
            figure.add_scatter3d(**named, **common, **look)
        else:
            figure.add_scatter(**named, **common, **look)
    names: dict[str, Any] = {
        f"{axis}axis": {"title": name} for axis, name in zip("xyz", "123", strict=True)
    }
    names |= {"camera": {"eye": {"x": 1.75, "y": 1.75, "z": 1.05}}} if axes == 3 else {}
    layout = {"scene": names} if axes == 3 else {k: names[k] for k in ("xaxis", "yaxis")}
    figure.update_layout(showlegend=False, height=360, margin=dict.fromkeys("lrtb", 6), **layout)
    centre = ", ".join(f"{value:.2f}" for value in centroid)
    summary = f"Concept space of {label}: {len(points)} tokens, their centroid at {centre}."
    return Panel(f"Concept space of {label}", summary, _plain(figure))


def _short(values: Iterable[float]) -> list[float]:
    """Rounded: digits too small to see would make up half of the page."""
    return [round(float(value), 5) for value in values]


def _plain(figure: Any) -> dict[str, Any]:
    """What plotly's JavaScript reads, without the default template, which would be half of it."""
    figure.update_layout(template="none")
    content: dict[str, Any] = figure.to_plotly_json()
    content["layout"].pop("template", None)
    return content
