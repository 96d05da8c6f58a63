"""Runs -> the findings of a report, whatever its form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spacelite.reports.analysis import comparisons as analysis
from spacelite.reports.analysis import data_notes, examples, groups, published
from spacelite.reports.analysis.comparisons import Analysis
from spacelite.reports.analysis.examples import Examples
from spacelite.reports.analysis.rows import Section
from spacelite.runs import Run


@dataclass(frozen=True)
class Part:
    """A group of systems: its table, its analysis, and its words and mistakes (None if they are
    not wanted or not available)."""

    section: Section
    analysis: Analysis
    examples: Examples | None


@dataclass(frozen=True)
class Findings:
    """The published tables with the measured figures, and every group of runs."""

    published: list[Section]
    parts: list[Part]

    def as_json(self) -> dict[str, Any]:
        """The findings as JSON data: dictionaries, lists, strings and numbers."""
        return asdict(self)


def build(
    cache_dir: Path,
    runs: Sequence[Run],
    *,
    with_examples: bool,
    backbone: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Analyse runs.

    Args:
        cache_dir: Folder of caches and runs.
        runs: Runs, in the order that their groups should have.
        with_examples: Whether to read the caches' hidden states, for words and mistakes.
        backbone: Folder of the runs' backbone, if it was a local one.
        on_progress: Called with the number of groups done and the total.
    """
    together = groups.grouped(runs)
    parts = []
    for number, group in enumerate(together):
        on_progress(number, len(together))
        notes = group.section.notes + data_notes.of_group(cache_dir, group)
        parts.append(
            Part(
                replace(group.section, notes=notes),
                analysis.analyse(cache_dir, group),
                examples.of_group(cache_dir, group, backbone) if with_examples else None,
            )
        )
    on_progress(len(together), len(together))
    return Findings(published.of_groups(together), parts)
