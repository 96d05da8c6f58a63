"""Figures and findings in words."""

from __future__ import annotations

from spacelite.files import human_bytes
from spacelite.metrics.scores import METRICS
from spacelite.metrics.significance import Difference
from spacelite.reports.analysis.comparisons import MOST_SYSTEMS, Analysis, Comparison, Cost
from spacelite.reports.analysis.rows import MeanStd, Section

LARGEST = 10_000  # a longer number would break the tables
LEVEL = 0.05  # heads are called different if the corrected p-value is below this


def headings() -> dict[str, str]:
    """Every metric's name in tables."""
    return {name: metric.heading for name, metric in METRICS.items()}


def figure(value: MeanStd | None) -> str:
    """`0.6210`, `0.6210 ± 0.0030` over several seeds, or a dash."""
    return f"{mean(value)} {std(value)}".strip()


def mean(value: MeanStd | None, signed: bool = False) -> str:
    """`0.6210`, `+0.0120` or `−0.0120` when signed, or a dash."""
    if value is None:
        return "–"
    if signed and abs(value.mean) < LARGEST:
        return share(value.mean)
    return decimals(value.mean, 4)


def std(value: MeanStd | None) -> str:
    """`± 0.0030`, or nothing for a single seed."""
    return "" if value is None or value.std is None else f"± {decimals(value.std, 4)}"


def decimals(value: float, places: int) -> str:
    """`0.6210`, or `5.4e+31` for a very large loss."""
    return f"{value:.{places}f}" if abs(value) < LARGEST else f"{value:.1e}"


def share(value: float, places: int = 4) -> str:
    """`+0.0120` or `−0.0120`, and never `−0.0000`."""
    text = f"{value:+.{places}f}".replace("-", "−")
    return text if text.strip("+−0.") else text.lstrip("+−")


def number(value: float | None) -> str:
    """A count or weight, or a dash."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def p_value(value: float) -> str:
    """`p = 0.004`, or `p < 0.001`."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 1 else "p = 1"


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


def verdict(comparison: Comparison) -> str:
    """A comparison in words: first the test split's uncertainty, then that of the seeds."""
    one, other = comparison.first, comparison.second
    accuracy, f1 = comparison.accuracy, comparison.f1_macro
    if comparison.identical:
        said = f"The heads of {one} and {other} predict the same for every example."
    elif comparison.corrected < LEVEL and accuracy.value:
        better, worse = (one, other) if accuracy.value > 0 else (other, one)
        sign = 1 if accuracy.value > 0 else -1
        said = (
            f"{better} beats {worse} by {_points(accuracy, sign)} of accuracy "
            f"({_interval(accuracy, sign)}; {p_value(comparison.corrected)}), "
            f"{_points(f1, sign)} of macro F1 ({_interval(f1, sign)})."
        )
    else:
        said = (
            f"{one} and {other} cannot be told apart in accuracy: {_points(accuracy)} "
            f"({_interval(accuracy)}; {p_value(comparison.corrected)}), "
            f"{_points(f1)} of macro F1 ({_interval(f1)})."
        )
    seeds = comparison.over_seeds
    if seeds is not None and seeds.std is not None:
        by = f"{100 * abs(seeds.mean):.1f} ± {100 * seeds.std:.1f} points"
        ahead = f"{one if seeds.mean > 0 else other} is ahead by {by}"
        if by.startswith("0.0 "):
            ahead = f"neither is ahead ({by})"
        said += f" Over {comparison.seeds} seeds {ahead}."
    return said


def method(section: Section, analysis: Analysis) -> str:
    """How the comparisons of a group are computed, in words."""
    pairs = analysis.tests
    corrected = ""
    if pairs > 1:
        corrected = (
            f", corrected by Holm's method for all {pairs:,} pairs, and so for the choice of the "
            "best (the intervals are not corrected: each is for a single pair)"
        )
    examples, split = section.examples[section.split], section.split
    text = (
        f"The {split} split's uncertainty: the heads of the lowest seed on the same {examples:,} "
        f"{split} examples; 95% intervals of a paired bootstrap over examples, p of McNemar's "
        f"exact test{corrected}."
    )
    if split == "validation" and section.settings.get("patience") is not None:
        text += " The same examples chose each head's epoch: p is smaller than it should be."
    if any(one.over_seeds is not None for one in analysis.comparisons):
        text += (
            " The uncertainty over seeds is separate: mean and standard deviation of the "
            "difference in accuracy between heads of one seed"
        )
        fixed = dict.fromkeys(name for one in analysis.comparisons for name in one.fixed)
        if fixed:
            be = "is" if len(fixed) == 1 else "are"
            text += f"; {', '.join(fixed)}, without a seed, {be} compared with every seed"
        text += "."
    return text


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
    return f"{_one_place(100 * sign * difference.value)} points"


def _interval(difference: Difference, sign: int = 1) -> str:
    return f"95% interval {interval(difference, sign)}"


def interval(difference: Difference, sign: int = 1) -> str:
    """`0.4 to 2.2`, in points."""
    low, high = sorted(100 * sign * bound for bound in difference.interval)
    return f"{_one_place(low)} to {_one_place(high)}"


def _one_place(value: float) -> str:
    return share(value, 1).removeprefix("+")
