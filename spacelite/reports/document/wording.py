"""Findings in words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from spacelite.document import SIGNIFICANT, p_value
from spacelite.files import human_bytes
from spacelite.metrics.scores import Metric
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
from spacelite.tasks import TASKS, known_metrics

FEW_SEEDS = 5  # fewer can show only large differences
MANY = 3  # systems of the same verdict that one sentence is about
# The last sentence, if some are about single heads.
SEEDS = (
    "Where a system has a single seed, one head of each is compared, not the means of the table: "
    "other seeds may turn out differently; train more of them to compare the systems."
)


def span(bounds: tuple[int, int]) -> str:
    """`18`, or `1 to 18`."""
    low, high = bounds
    return str(low) if low == high else f"{low} to {high}"


def interval(metric: str, difference: Difference) -> str:
    """`0.4 to 2.2`; a dash if it has no ends, as that of a single example."""
    if not all(map(math.isfinite, difference.interval)):
        return "–"
    return " to ".join(map(known_metrics()[metric].amount, difference.interval))


def cost(of: Cost) -> str:
    """The duration of embedding and the size of the cache."""
    embedding = "not recorded"
    if of.embedding_seconds is not None:
        embedding = f"{of.embedding_seconds:,.0f} s"
    size = "deleted or elsewhere" if of.cache_bytes is None else human_bytes(of.cache_bytes)
    caches = "cache" if of.caches == 1 else f"{of.caches} caches"
    return f"Embedding, once: {embedding}; {caches}: {size}."


def verdicts(analysis: Analysis) -> list[str]:
    """What the comparisons of a group say: first, whether a head beats the baselines; then how the
    best system compares with the others, nearest first. MANY of the same verdict are one
    sentence."""
    first, tests = analysis.against_baseline, analysis.tests
    pair = set() if first is None else {first.first, first.second}
    sentences = [] if first is None else [baseline_verdict(first, tests)]
    alike: dict[tuple[object, ...], list[Comparison]] = {}
    for comparison in sorted(analysis.comparisons, key=lambda of: abs(of.headline.value)):
        if {comparison.first, comparison.second} != pair:
            alike.setdefault(_kind(comparison), []).append(comparison)
    for members in alike.values():
        parts = [members] if len(members) >= MANY else [[comparison] for comparison in members]
        sentences += [verdict(part, tests) for part in parts]
    if any(comparison.basis == HEADS for comparison in analysis.comparisons):
        sentences.append(SEEDS)
    return sentences


def _kind(comparison: Comparison) -> tuple[object, ...]:
    """What comparisons have in common that one sentence can be about."""
    return (
        comparison.identical,
        _differs(comparison),
        comparison.p < SIGNIFICANT,
        bool(comparison.headline.value),
        comparison.second if _is_behind(comparison) else "",
        comparison.basis,
        comparison.seeds,
        comparison.heads,
    )


def of_seed(name: str, seed: int | None) -> str:
    """A system whose single head is compared: `space (seed 0)`."""
    return name if seed is None else f"{name} (seed {seed})"


def baseline_verdict(comparison: Comparison, tests: int) -> str:
    """Whether the best trained head, the first of the two, beats the best baseline, the second; p
    is corrected for `tests` pairs."""
    names = zip((comparison.first, comparison.second), comparison.heads, strict=True)
    head, baseline = itertools.starmap(of_seed, names)
    difference = comparison.headline.value
    of_heads, differs = comparison.basis == HEADS, _differs(comparison)
    accuracy, f1 = _figures([comparison], tests)
    if comparison.identical:
        finding = f"the best of them, {head}, predicts the same as {baseline} for every example"
    elif difference < 0 and differs:
        finding = f"it is significantly better than the best of them, {head}, by {accuracy}, {f1}"
    elif differs:
        better = (
            f"On these examples the head of {head} is better than" if of_heads else f"{head} beats"
        )
        return f"{better} the best baseline, {baseline}, by {accuracy}, {f1}."
    elif difference:
        ahead = f"it is ahead of the best of them, {head}, by"
        if difference > 0:
            ahead = f"the best of them, {head}, is ahead by"
        finding = f"{ahead} {accuracy}, {f1}, {_insignificant(comparison, tests)}"
    else:
        finding = f"the best of them, {head}, has the same {_name(comparison)}"
        if comparison.other.value:
            where = "behind" if comparison.other.value < 0 else "ahead"
            finding += f" and is {where} by {f1}"
    return f"No head beats the best baseline, {baseline}: {finding}."


def verdict(alike: Sequence[Comparison], tests: int) -> str:
    """What a comparison says, or several of a system that say the same: one verdict from all
    uncertainty that there is; p is corrected for `tests` pairs."""
    one, names = alike[0], [comparison.second for comparison in alike]
    of_heads, differs = one.basis == HEADS, _differs(one)
    first, second, listed = of_seed(one.first, one.heads[0]), one.second, ""
    if len(alike) > 1:
        second, listed = f"{len(alike)} systems", f": {'; '.join(names)}"
    second = of_seed(second, one.heads[1])
    ahead, behind = (second, first) if _is_behind(one) else (first, second)
    accuracy, f1 = _figures(alike, tests)
    if one.identical or not one.headline.value:
        both = f"{first} and {second}"
        if of_heads:
            both = f"The heads of {both}"
        if one.identical:
            return f"{both} predict the same for every example{listed}."
        if listed or not one.other.value:
            return f"{both} have the same {_name(one)}{listed}."
        return f"{both} have the same {_name(one)}; {ahead} is ahead by {f1}."
    if of_heads:
        ahead = f"On these examples the head of {ahead}"
        behind = f"those of {behind}" if listed else f"the head of {behind}"
    if differs:
        verb = "is better than" if of_heads else "beats"
        return f"{ahead} {verb} {behind} by {accuracy}, {f1}{listed}."
    finding = _insignificant(one, tests)
    return f"{ahead} is ahead of {behind} by {accuracy}, {f1}, {finding}{listed}."


def _name(comparison: Comparison) -> str:
    """The headline metric in words."""
    return known_metrics()[next(iter(comparison.differences))].in_words


def _differs(comparison: Comparison) -> bool:
    return comparison.corrected < SIGNIFICANT and bool(comparison.headline.value)


def _insignificant(comparison: Comparison, tests: int) -> str:
    """That a difference is not significant: `not significant after correction for 21 pairs with 3
    seeds`."""
    corrected = f" after correction for {tests:,} pairs" if comparison.p < SIGNIFICANT else ""
    seeds = f" with {comparison.seeds} seeds" if comparison.basis == SYSTEMS else ""
    return f"not significant{corrected}{seeds}"


def _is_behind(comparison: Comparison) -> bool:
    """Whether the first system is behind in the headline metric, or if equal in the second."""
    return (comparison.headline.value, comparison.other.value) < (0, 0)


def _figures(alike: Sequence[Comparison], tests: int) -> tuple[str, str]:
    """The differences in the headline metric, such as accuracy, with p, and in the second, such as
    macro F1, of the system that is ahead to the other one: `1.3 points of accuracy (95% interval
    0.4 to 2.2; corrected p = 0.004)` and `2.0 points of macro F1 (95% interval −1.0 to 5.0)`, or
    `but is behind by` these. Of several comparisons, the ranges."""
    ahead = [of.reversed() if _is_behind(of) else of for of in alike]
    in_f1 = [of.other for of in ahead]
    first, second = ahead[0].differences
    but = ""
    if all(known_metrics()[second].amount(of.value).startswith("−") for of in in_f1):
        in_f1, but = [of.reversed() for of in in_f1], "but is behind by "
    accuracy, f1 = (
        _range(known_metrics()[metric], [of.value for of in differences])
        for metric, differences in ((first, [of.headline for of in ahead]), (second, in_f1))
    )
    name, one = "corrected p" if tests > 1 else "p", ahead[0]
    f1 = f"{but}{f1}"
    if len(alike) > 1:
        choose, bound = (max, "at most") if _differs(one) else (min, "at least")
        p = p_value(choose(of.corrected for of in alike)).removeprefix("p ")
        p = p if p == "= 1" else p.replace("=", bound, 1)
        return f"{accuracy} ({name} {p})", f1
    p = f"{name} {p_value(one.corrected).removeprefix('p ')}"
    if one.p < SIGNIFICANT <= one.corrected:
        p = f"{p_value(one.p)}, {p}"
    if (between := interval(first, one.headline)) == "–":  # of a single example
        return accuracy, f1
    return (
        f"{accuracy} (95% interval {between}; {p})",
        f"{f1} (95% interval {interval(second, in_f1[0])})",
    )


def _range(metric: Metric, values: Sequence[float]) -> str:
    """`0.4 points of accuracy`, or `0.4 to 2.2 points of accuracy`."""
    ends = map(metric.amount, (min(values), max(values)))
    return " to ".join(dict.fromkeys(ends)) + metric.of_amount


def method(section: Section, analysis: Analysis) -> str:
    """How the comparisons of a group were made."""
    examples, split = section.examples[section.split], section.split
    bases = {comparison.basis for comparison in analysis.comparisons}
    sentences = []
    if examples == 1:
        return f"From a single {split} example nothing can be said of chance: no interval, no p."
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
            f"paired bootstrap over examples, p of {TASKS[analysis.task].test}."
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
            f"{'; '.join(analysis.incomplete)}: the predictions for single examples were not saved "
            f"or are damaged, so comparisons and diagrams leave them out ({remedy})."
        )
    if analysis.left_out:
        notes.append(
            f"The {MOST_SYSTEMS} systems with the best "
            f"{known_metrics()[TASKS[analysis.task].headline].in_words} are shown in detail; the "
            f"table also lists {analysis.left_out} more."
        )
    return notes
