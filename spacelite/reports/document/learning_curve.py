"""A learning curve as a table, a chart, and in sentences."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from spacelite.document import Cell, Chart, Line, Series, Table, decimals, one_place, p_value
from spacelite.metrics.power_law import FEWEST_SIZES
from spacelite.metrics.scores import METRICS

if TYPE_CHECKING:
    from spacelite.metrics.power_law import Extrapolation
    from spacelite.studies.learning_curves import Curve, System

HARDLY = 0.005  # a gain that is at most this large is not worth twice the labels
ROUNDED = 0.0005  # what is shown as 0.0 points
MISFIT = 0.01  # p below which figures do not follow a power law
CLEARLY = 2.0  # standard errors by which figures fall
POINTS = 150  # of a drawn power law


def chart(found: Curve) -> Chart:
    """What is drawn of a learning curve: the systems' figures, and the power law of the head that
    the sentences are about."""
    heading = f"{METRICS[found.metric].heading} on validation"
    series = []
    for name, system in found.named.items():
        means, deviations = system.mean(found.metric), system.deviation(found.metric)
        line: list[tuple[float, float]] = []
        ahead, of = None, found.extrapolations[name]
        if of is not None and system is found.chosen and followed(of):
            most = METRICS[found.metric].most
            sizes = np.geomspace(of.smallest, of.to, POINTS)
            line = list(zip(sizes.tolist(), (most - of.law.error(sizes)).tolist(), strict=True))
            now = float(means[-1])
            low, high = of.gain.interval
            ahead = (of.to, now + of.gain.value, now + low, now + high)
        series.append(Series(name, found.sizes, means.tolist(), deviations.tolist(), line, ahead))
    text = (
        f"{heading} by number of training examples: means over seeds, bands of one standard "
        "deviation"
    )
    if any(one.line for one in series):
        text += "; dashed, the power law, extrapolated to twice the examples with its 95% interval"
    return Chart("learning-curve", heading, f"{text}.", series)


def table(found: Curve) -> Table:
    """A line per size, a column per system: the mean over seeds and its standard deviation; at
    last what is extrapolated to twice the largest size."""
    named, metric = found.named, found.metric
    lines = []
    for number, size in enumerate(found.sizes):
        cells = [Cell(f"{size:,}")]
        for system in named.values():
            mean = float(system.mean(metric)[number])
            deviation = float(system.deviation(metric)[number])
            spread = "" if math.isnan(deviation) else f"± {decimals(deviation, 3)}"
            known = not math.isnan(mean)
            cells.append(Cell(decimals(mean, 3) if known else "–", spread if known else ""))
        lines.append(Line(cells))
    ahead = [_ahead(found, name, system) for name, system in named.items()]
    if any(value != "–" for value in ahead):
        lines.append(
            Line([Cell(f"{2 * found.sizes[-1]:,} (extrapolated)"), *map(Cell, ahead)], "ahead")
        )
    caption = f"{METRICS[metric].heading} on validation by number of training examples"
    return Table(caption, ["Examples", *named], lines, "learning-curve")


def _ahead(found: Curve, name: str, system: System) -> str:
    of = found.extrapolations[name]
    if of is None or not followed(of):
        return "–"
    return decimals(float(system.mean(found.metric)[-1]) + of.gain.value, 3)


def followed(of: Extrapolation) -> bool:
    """Whether figures follow the power law that was fitted to them, for all that is known."""
    return not of.p < MISFIT


def summary(found: Curve) -> list[str]:
    """What was measured, and what more labels would be worth, in sentences."""
    metric, system = METRICS[found.metric], found.chosen
    name = next(name for name, own in found.named.items() if own is system)
    return [
        _measured(found),
        _worth(found, name, system),
        *_left_out(found, name),
        *_falls(found, name, system),
        *_last_step(found, name, system, metric.in_words),
        *_better_baseline(found, name, system),
    ]


def _measured(found: Curve) -> str:
    seeds = len(found.seeds)
    over = "the seed" if seeds == 1 else f"the {seeds} seeds"
    means = f"{METRICS[found.metric].heading} on {found.validation:,} validation examples"
    spread = "" if seeds == 1 else ", means ± standard deviations over seeds"
    return (
        f"{means}{spread}: for each of {over}, stratified subsets of the {found.examples:,} "
        "training examples, each a part of the next. Test was not read."
    )


def _worth(found: Curve, name: str, system: System) -> str:
    """What twice the labels would be worth."""
    of, most = found.extrapolations[name], found.sizes[-1]
    twice = f"Twice the labels ({2 * most:,} in place of {most:,})"
    if of is None:
        known = int(np.isfinite(system.mean(found.metric)).sum())
        return (
            f"What more labels would be worth to {name} is not extrapolated: that takes figures at "
            f"{FEWEST_SIZES} sizes or more, the largest among them, and there are {known}."
        )
    if not followed(of):
        return (
            f"The figures of {name} do not follow a power law ({p_value(of.p)}), so "
            "nothing is extrapolated from them: what more labels would be worth remains open."
        )
    what = METRICS[found.metric].in_words
    now = float(system.mean(found.metric)[-1])
    low, high = of.gain.interval
    step = f"{decimals(now, 3)} → {decimals(now + of.gain.value, 3)}, extrapolated"
    about = f"about {one_place(100 * of.gain.value)} points of {what}"
    if math.isnan(low):
        return (
            f"{twice} would be worth {about} to {name}: {step}. With fewer than 3 seeds there is "
            "no telling how sure this is."
        )
    within = f"(95% interval {one_place(100 * low)} to {one_place(100 * high)})"
    if high <= HARDLY:
        return f"{twice} would hardly help {name}: {about} {within}, {step}."
    if low < ROUNDED:
        return (
            f"{twice} may be worth nothing to {name}, or up to {one_place(100 * high)} "
            f"points of {what}: {about} {within}, {step}."
        )
    return f"{twice} would be worth {about} {within} to {name}: {step}."


def _left_out(found: Curve, name: str) -> list[str]:
    of = found.extrapolations[name]
    if of is None or not followed(of) or of.smallest == found.sizes[0]:
        return []
    return [f"The power law was fitted from {of.smallest:,} examples on: fewer do not follow it."]


def _falls(found: Curve, name: str, system: System) -> list[str]:
    """Where more examples made the head clearly worse."""
    means, errors = system.mean(found.metric), found.standard_errors(system)
    if errors is None:
        return []
    for number in range(len(means) - 1):
        fall = float(means[number] - means[number + 1])
        if fall > CLEARLY * math.hypot(errors[number], errors[number + 1]):
            first, second = found.sizes[number : number + 2]
            return [
                f"From {first:,} to {second:,} examples, {name} got worse by "
                f"{one_place(100 * fall)} points: that more labels never hurt, as the "
                "extrapolation assumes, is not sure here."
            ]
    return []


def _last_step(found: Curve, name: str, system: System, what: str) -> list[str]:
    means = system.mean(found.metric)
    if len(means) < 2 or not np.isfinite(means[-2:]).all():
        return []
    first, second = found.sizes[-2:]
    gain = 100 * float(means[-1] - means[-2])
    verb = "brought" if gain >= 0 else "cost"
    return [
        f"The last step measured, from {first:,} to {second:,} examples, {verb} it "
        f"{one_place(abs(gain))} points."
    ]


def _better_baseline(found: Curve, name: str, system: System) -> list[str]:
    best = found.systems[0]
    if best is system:
        return []
    other = next(own for own, each in found.named.items() if each is best)
    figures = [decimals(float(each.mean(found.metric)[-1]), 3) for each in (best, system)]
    return [
        f"{other}, a baseline, is better than {name} at {found.sizes[-1]:,} examples: {figures[0]} "
        f"to {figures[1]}."
    ]
