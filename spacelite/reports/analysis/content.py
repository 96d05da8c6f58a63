"""Runs -> everything that a report says, in whatever form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spacelite.reports.analysis import comparisons as analysis
from spacelite.reports.analysis import examples, groups, published
from spacelite.reports.analysis.comparisons import Analysis
from spacelite.reports.analysis.examples import Examples
from spacelite.reports.analysis.rows import Section
from spacelite.runs import Run


@dataclass(frozen=True)
class Part:
    """A group of systems: its table, its analysis, words and mistakes (None where
    they are not wanted, or not to be had)."""

    section: Section
    analysis: Analysis
    examples: Examples | None


@dataclass(frozen=True)
class Findings:
    """The published tables with what was measured of them, and every group of runs."""

    published: list[Section]
    parts: list[Part]

    def as_json(self) -> dict[str, Any]:
        """For programs: dictionaries, lists, strings and numbers."""
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
        cache_dir: The folder of caches and runs.
        runs: In the order that their groups are to have.
        with_examples: Also read the caches' hidden states, for words and mistakes.
        backbone: Where the runs' backbone lies, if it was a local folder.
        on_progress: Called with the groups that are done, and all of them.
    """
    together = groups.grouped(runs)
    parts = []
    for number, group in enumerate(together):
        on_progress(number, len(together))
        parts.append(
            Part(
                group.section,
                analysis.analyse(cache_dir, group),
                examples.of_group(cache_dir, group, backbone) if with_examples else None,
            )
        )
    on_progress(len(together), len(together))
    return Findings(published.of_groups(together), parts)
