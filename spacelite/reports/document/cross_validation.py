"""The table of a cross-validation: figures of each head over folds, and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spacelite.document import Cell, Line, Table, decimals, one_place, p_value
from spacelite.metrics.scores import METRICS

if TYPE_CHECKING:
    from spacelite.studies.cross_validation import CrossValidation, System

SHOWN = ("accuracy", "f1_macro", "ce")


def table(found: CrossValidation) -> Table:
    """A line per head, best accuracy first: metrics as means over folds with their standard
    deviations, and the difference in accuracy to the best baseline with its 95% interval."""
    lines, baseline = [], found.baseline
    for name, system in found.named.items():
        cells = [Cell(name)]
        for metric in SHOWN:
            mean, deviation = system.mean(metric), system.deviation(metric)
            spread = "" if metric == "ce" else f"± {decimals(deviation, 3)}"
            cells.append(Cell(decimals(mean, 3), spread))
        if baseline is not None:
            cells.append(Cell("–" if system is baseline else _points(found, system, baseline)))
        lines.append(Line(cells))
    more = [] if baseline is None else [f"Points more than {found.name_of(baseline)}"]
    return Table(
        "Cross-validation",
        ["System", *(METRICS[metric].short for metric in SHOWN), *more],
        lines,
        "cross-validation",
    )


def summary(found: CrossValidation) -> list[str]:
    """What was done, and whether the best head beats the best baseline, in sentences."""
    times = "" if found.repeats == 1 else f" {found.repeats} times"
    count = found.folds * found.repeats
    said = [
        f"Means ± standard deviations over {count} held-out folds: {found.examples:,} training "
        f"examples, divided into {found.folds} folds{times}."
    ]
    if found.sample_weight is not None:
        said.append(
            f"Heads were trained with weights of the examples, {found.sample_weight}; the figures "
            "count each held-out example once."
        )
    baseline = found.baseline
    head = next((one for one in found.systems if not one.head.is_baseline), None)
    if baseline is None or head is None:
        return said
    difference, p = found.difference(head, baseline)
    low, high = (one_place(100 * end) for end in difference.interval)
    name, other = found.name_of(head), found.name_of(baseline)
    points = one_place(100 * abs(difference.value))
    which = "the best head" if len(found.systems) > 2 else "the head"
    if p < 0.05:
        verb = "beats" if difference.value > 0 else "is worse than"
        verdict = (
            f"{name}, {which}, {verb} the best baseline, {other}, by {points} points of accuracy"
        )
    else:
        where = "ahead of" if difference.value > 0 else "behind"
        verdict = (
            f"{name}, {which}, is {where} the best baseline, {other}, by {points} points of "
            "accuracy, which may be chance"
        )
    said.append(
        f"{verdict} (95% interval {low} to {high}, {p_value(p)}; corrected resampled "
        "t-test of Nadeau and Bengio, which allows for the overlap of training sets)."
    )
    tried = sum(not one.head.is_baseline for one in found.systems)
    if tried > 1:
        said.append(
            f"It is the best of {tried} heads by these same figures, which are therefore slightly "
            "too good."
        )
    return said


def _points(found: CrossValidation, first: System, second: System) -> str:
    difference, _ = found.difference(first, second)
    value, low, high = (one_place(100 * each) for each in (difference.value, *difference.interval))
    return f"{value} ({low} to {high})"
