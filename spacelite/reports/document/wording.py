"""Findings in words."""

from __future__ import annotations

from spacelite.document import one_place, p_value
from spacelite.files import human_bytes
from spacelite.metrics.significance import Difference
from spacelite.reports.analysis.comparisons import (
    HEADS,
    MOST_SYSTEMS,
    SYSTEMS,
    Analysis,
    Comparison,
    Cost,
)
from spacelite.reports.analysis.groups import Section

FEW_SEEDS = 5  # fewer can show only large differences
LEVEL = 0.05  # heads are called different if the corrected p-value is below this
# After a sentence about single heads.
SEEDS = " Other seeds may turn out differently: train more of them to compare the systems."


def span(bounds: tuple[int, int]) -> str:
    """`18`, or `1 to 18`."""
    low, high = bounds
    return str(low) if low == high else f"{low} to {high}"


def interval(difference: Difference) -> str:
    """`0.4 to 2.2`, in points."""
    return " to ".join(one_place(100 * bound) for bound in difference.interval)


def cost(of: Cost) -> str:
    """The duration of embedding and the size of the cache."""
    embedding = "not recorded"
    if of.embedding_seconds is not None:
        embedding = f"{of.embedding_seconds:,.0f} s"
    size = "deleted or elsewhere" if of.cache_bytes is None else human_bytes(of.cache_bytes)
    return f"Embedding, once: {embedding}; cache: {size}."


def verdicts(analysis: Analysis) -> list[str]:
    """What the comparisons of a group say; first, whether a head beats the baselines."""
    first = analysis.against_baseline
    pair = set() if first is None else {first.first, first.second}
    sentences = [] if first is None else [baseline_verdict(first, analysis.tests)]
    return sentences + [
        verdict(comparison, analysis.tests)
        for comparison in analysis.comparisons
        if {comparison.first, comparison.second} != pair
    ]


def baseline_verdict(comparison: Comparison, tests: int) -> str:
    """Whether the best trained head, the first of the two, beats the best baseline, the second; p
    is corrected for `tests` pairs."""
    head, baseline = comparison.first, comparison.second
    difference = comparison.accuracy.value
    of_heads, differs = comparison.basis == HEADS, _differs(comparison)
    points, within, f1 = _figures(comparison, tests)
    figures = f"{points} of accuracy {within}, {f1}"
    seeds = SEEDS if of_heads else ""
    if comparison.identical:
        finding = f"the best of them, {head}, predicts the same for every example"
    elif difference < 0:
        how = "is significantly better than" if differs else "is ahead of"
        finding = f"it {how} the best of them, {head}, by {figures}"
    elif differs:
        better = (
            f"On these examples the head of {head} is better than" if of_heads else f"{head} beats"
        )
        return f"{better} the best baseline, {baseline}, by {figures}." + seeds
    elif difference:
        finding = f"the best of them, {head}, is ahead by {figures}, which may be chance"
    else:
        where = "behind" if comparison.f1_macro.value < 0 else "ahead"
        finding = f"the best of them, {head}, has the same accuracy and is {where} by {f1}"
    return f"No head beats the best baseline, {baseline}: {finding}." + seeds


def verdict(comparison: Comparison, tests: int) -> str:
    """What a comparison says: one verdict from all uncertainty that there is; p is corrected for
    `tests` pairs."""
    first, second = comparison.first, comparison.second
    of_heads, difference = comparison.basis == HEADS, comparison.accuracy.value
    both = f"The heads of {first} and {second}" if of_heads else f"{first} and {second}"
    if comparison.identical:
        return f"{both} predict the same for every example."
    ahead, behind = (second, first) if _is_behind(comparison) else (first, second)
    points, within, f1 = _figures(comparison, tests)
    if _differs(comparison):
        better = f"{ahead} beats {behind}"
        if of_heads:
            better = f"On these examples the head of {ahead} is better than the head of {behind}"
        finding = f"{better} by {points} of accuracy {within}, {f1}."
    else:
        figures = f"neither is ahead {within}; {ahead} is ahead by {f1}"
        if difference:
            figures = f"{ahead} is ahead by {points} {within}, by {f1}"
        finding = f"{both} cannot be told apart in accuracy: {figures}."
    return finding + SEEDS if of_heads else finding


def _differs(comparison: Comparison) -> bool:
    return comparison.corrected < LEVEL and bool(comparison.accuracy.value)


def _is_behind(comparison: Comparison) -> bool:
    """Whether the first system is behind in accuracy, or with equal accuracy in macro F1."""
    return (comparison.accuracy.value, comparison.f1_macro.value) < (0, 0)


def _figures(comparison: Comparison, tests: int) -> tuple[str, str, str]:
    """The difference in accuracy, its interval with p, and the difference in macro F1, each of the
    system that is ahead minus the other one: `1.3 points`, `(95% interval 0.4 to 2.2; corrected p =
    0.004)`, `2.0 points of macro F1 (95% interval −1.0 to 5.0)`."""
    ahead = comparison.reversed() if _is_behind(comparison) else comparison
    accuracy, f1, p = ahead.accuracy, ahead.f1_macro, p_value(ahead.corrected)
    return (
        f"{one_place(100 * accuracy.value)} points",
        f"(95% interval {interval(accuracy)}; {'corrected ' if tests > 1 else ''}{p})",
        f"{one_place(100 * f1.value)} points of macro F1 (95% interval {interval(f1)})",
    )


def method(section: Section, analysis: Analysis) -> str:
    """How the comparisons of a group were made."""
    examples, split = section.examples[section.split], section.split
    bases = {comparison.basis for comparison in analysis.comparisons}
    sentences = []
    if SYSTEMS in bases:
        counts = [pair.seeds for pair in analysis.comparisons if pair.basis == SYSTEMS]
        seeds = span((min(counts), max(counts)))
        sentences.append(
            f"Differences are means over {seeds} seeds; their 95% intervals and p allow for both "
            f"the choice of seeds and of the {examples:,} {split} examples (crossed random "
            "effects; a system without a seed adds no variance of seeds)."
        )
    if bases - {SYSTEMS}:
        what = "Single heads" if HEADS in bases else "Systems without a seed"
        sentences.append(
            f"{what} are compared on the {examples:,} {split} examples alone: 95% intervals of a "
            "paired bootstrap over examples, p of McNemar's exact test."
        )
    if analysis.tests > 1:
        sentences.append(
            f"Each p is corrected by Holm's method for all {analysis.tests:,} pairs, since the "
            "best system was picked by looking at them; the intervals are not corrected."
        )
    if SYSTEMS in bases and min(counts) < FEW_SEEDS:
        sentences.append(
            f"With {seeds} seeds only large differences can be shown: more seeds cost little, "
            "since all heads train in one pass."
        )
    if split == "validation" and section.settings.get("patience") is not None:
        sentences.append(
            "The same examples chose each head's epoch: p is smaller than it should be."
        )
    return " ".join(sentences)


def missing(analysis: Analysis) -> list[str]:
    """Which systems have no saved predictions, and what to do; that only the best systems are shown
    in detail."""
    notes = []
    if analysis.incomplete:
        remedy = "run eval again" if analysis.transferred else "train again"
        notes.append(
            f"{', '.join(analysis.incomplete)}: the predictions for single examples were not saved "
            f"or are damaged, so comparisons and diagrams leave them out ({remedy})."
        )
    if analysis.left_out:
        notes.append(
            f"The {MOST_SYSTEMS} systems with the best accuracy are shown in detail; the table "
            f"also lists {analysis.left_out} more."
        )
    return notes
