"""Figures and findings in words."""

from __future__ import annotations

from spacelite.document import LARGEST, decimals, one_place, p_value, with_sign
from spacelite.files import human_bytes
from spacelite.metrics.scores import METRICS
from spacelite.metrics.significance import Difference
from spacelite.reports.analysis.comparisons import (
    HEADS,
    MOST_SYSTEMS,
    SYSTEMS,
    Analysis,
    Comparison,
    Cost,
)
from spacelite.reports.analysis.rows import MeanStd, Section

FEW_SEEDS = 5  # fewer can show only large differences
LEVEL = 0.05  # heads are called different if the corrected p-value is below this
# After a sentence about single heads.
SEEDS = " Other seeds may turn out differently: train more of them to compare the systems."


def headings() -> dict[str, str]:
    """Every metric's name in tables."""
    return {name: metric.heading for name, metric in METRICS.items()}


def figure(value: MeanStd | None) -> str:
    """`0.6210`, `0.6210 ± 0.0030` over several seeds, or a dash."""
    return f"{mean(value)} {std(value)}".strip()


def mean(value: MeanStd | None, signed: bool = False, places: int = 4) -> str:
    """`0.6210`, `+0.0120` or `−0.0120` when signed, or a dash."""
    if value is None:
        return "–"
    if signed and abs(value.mean) < LARGEST:
        return with_sign(value.mean, places)
    return decimals(value.mean, places)


def std(value: MeanStd | None, places: int = 4) -> str:
    """`± 0.0030`, or nothing for a single seed."""
    return "" if value is None or value.std is None else f"± {decimals(value.std, places)}"


def number(value: float | None) -> str:
    """A count or weight, or a dash."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def span(bounds: tuple[int, int]) -> str:
    """`18`, or `1 to 18`."""
    low, high = bounds
    return str(low) if low == high else f"{low} to {high}"


def seconds(value: MeanStd) -> str:
    """`12.3 s`, or `12.3 ± 0.4 s` if seeds were trained in separate passes."""
    std = f" ± {value.std:.1f}" if value.std and value.std >= 0.05 else ""
    return f"{value.mean:,.1f}{std} s"


def cost(of: Cost) -> str:
    """The duration of embedding and the size of the cache, in words."""
    embedding = "not recorded"
    if of.embedding_seconds is not None:
        embedding = f"{of.embedding_seconds:,.0f} s"
    size = "deleted or elsewhere" if of.cache_bytes is None else human_bytes(of.cache_bytes)
    return f"Embedding, once: {embedding}; cache: {size}."


def verdicts(analysis: Analysis) -> list[str]:
    """What the comparisons of a group say, in words; first, whether a head beats the baselines."""
    first = analysis.against_baseline
    pair = set() if first is None else {first.first, first.second}
    said = [] if first is None else [baseline_verdict(first, analysis.tests)]
    others = [one for one in analysis.comparisons if {one.first, one.second} != pair]
    return said + [verdict(one, analysis.tests) for one in others]


def baseline_verdict(comparison: Comparison, tests: int) -> str:
    """Whether the best trained head, the first of the two, beats the best baseline, the second.

    Args:
        comparison: The comparison.
        tests: Number of pairs that its p is corrected for.
    """
    head, baseline = comparison.first, comparison.second
    accuracy = comparison.accuracy
    one = comparison.basis == HEADS
    sign = -1 if accuracy.value < 0 else 1
    differs = _differs(comparison)
    figures = (
        f"{_points(accuracy, sign)} of accuracy {_within(comparison, sign, tests)}, "
        f"{_f1(comparison, sign)}"
    )
    if comparison.identical:
        said = f"the best of them, {head}, predicts the same for every example"
    elif sign < 0:
        how = "is significantly better than" if differs else "is ahead of"
        said = f"it {how} the best of them, {head}, by {figures}"
    elif differs:
        verb = "is on these examples better than" if one else "beats"
        name = f"The head of {head}" if one else head
        said = f"{name} {verb} the best baseline, {baseline}, by {figures}."
    elif accuracy.value:
        said = f"the best of them, {head}, is ahead by {figures}, which may be chance"
    else:
        said = (
            f"the best of them, {head}, has the same accuracy and is ahead by {_f1(comparison, 1)}"
        )
    if not differs or sign < 0 or comparison.identical:
        said = f"No head beats the best baseline, {baseline}: {said}."
    return said + SEEDS if one else said


def verdict(comparison: Comparison, tests: int) -> str:
    """What a comparison says, in words: one verdict from all uncertainty that there is.

    Args:
        comparison: The comparison.
        tests: Number of pairs that its p is corrected for.
    """
    one, other = comparison.first, comparison.second
    accuracy = comparison.accuracy
    heads = comparison.basis == HEADS
    between = f"the heads of {one} and {other}" if heads else f"{one} and {other}"
    if comparison.identical:
        return f"{_capital(between)} predict the same for every example."
    sign = -1 if accuracy.value < 0 else 1
    ahead, behind = (one, other) if sign > 0 else (other, one)
    points = f"{_points(accuracy, sign)} of accuracy"
    within, f1_too = _within(comparison, sign, tests), _f1(comparison, sign)
    if _differs(comparison):
        if heads:
            said = (
                f"On these examples the head of {ahead} is better than the head of {behind} by "
                f"{points} {within}, {f1_too}."
            )
        else:
            said = f"{ahead} beats {behind} by {points} {within}, {f1_too}."
    else:
        figures = (
            f"{ahead} is ahead by {_points(accuracy, sign)} {within}, by {f1_too}"
            if accuracy.value
            else f"neither is ahead {within}; {one} is ahead by {f1_too}"
        )
        said = f"{_capital(between)} cannot be told apart in accuracy: {figures}."
    return said + SEEDS if heads else said


def _differs(comparison: Comparison) -> bool:
    return comparison.corrected < LEVEL and bool(comparison.accuracy.value)


def _within(comparison: Comparison, sign: int, tests: int) -> str:
    """`(95% interval 0.4 to 2.2; corrected p = 0.004)`."""
    corrected = "corrected " if tests > 1 else ""
    chance = f"{corrected}{p_value(comparison.corrected)}"
    return f"({_interval(comparison.accuracy, sign)}; {chance})"


def _f1(comparison: Comparison, sign: int) -> str:
    """`2.0 points of macro F1 (95% interval -1.0 to 5.0)`."""
    f1 = comparison.f1_macro
    return f"{_points(f1, sign)} of macro F1 ({_interval(f1, sign)})"


def _capital(text: str) -> str:
    """A sentence's first letter, where it begins with an article and not with a system's name."""
    return f"T{text[1:]}" if text.startswith("the heads of ") else text


def method(section: Section, analysis: Analysis) -> str:
    """How the comparisons of a group were made."""
    examples, split = section.examples[section.split], section.split
    bases = {one.basis for one in analysis.comparisons}
    parts = []
    if SYSTEMS in bases:
        counts = [one.seeds for one in analysis.comparisons if one.basis == SYSTEMS]
        seeds = span((min(counts), max(counts)))
        parts.append(
            f"Differences are means over {seeds} seeds; their 95% intervals and p allow for both "
            f"the choice of seeds and of the {examples:,} {split} examples (crossed random "
            "effects; a system without a seed adds no variance of seeds)."
        )
    if bases - {SYSTEMS}:
        what = "Single heads" if HEADS in bases else "Systems without a seed"
        parts.append(
            f"{what} are compared on the {examples:,} {split} examples alone: 95% intervals of a "
            "paired bootstrap over examples, p of McNemar's exact test."
        )
    if analysis.tests > 1:
        parts.append(
            f"Each p is corrected by Holm's method for all {analysis.tests:,} pairs, since the "
            "best system was picked by looking at them; the intervals are not corrected."
        )
    if SYSTEMS in bases and min(counts) < FEW_SEEDS:
        parts.append(
            f"With {seeds} seeds only large differences can be shown: more seeds cost little, "
            "since all heads train in one pass."
        )
    if split == "validation" and section.settings.get("patience") is not None:
        parts.append("The same examples chose each head's epoch: p is smaller than it should be.")
    return " ".join(parts)


def left_out(analysis: Analysis) -> str:
    """A note that only the best systems are shown in detail."""
    shown = MOST_SYSTEMS
    return (
        f"The {shown} systems with the best accuracy are shown in detail; the table also lists "
        f"{analysis.left_out} more."
    )


def incomplete(analysis: Analysis) -> str:
    """A note on which systems have no saved predictions, and what to do."""
    mend = "run eval again" if analysis.transferred else "train again"
    return (
        f"{', '.join(analysis.incomplete)}: the predictions for single examples were not saved or "
        f"are damaged, so comparisons and diagrams leave them out ({mend})."
    )


def _points(difference: Difference, sign: int = 1) -> str:
    return f"{one_place(100 * sign * difference.value)} points"


def _interval(difference: Difference, sign: int = 1) -> str:
    return f"95% interval {interval(difference, sign)}"


def interval(difference: Difference, sign: int = 1) -> str:
    """`0.4 to 2.2`, in points."""
    low, high = sorted(100 * sign * bound for bound in difference.interval)
    return f"{one_place(low)} to {one_place(high)}"
