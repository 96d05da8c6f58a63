"""Runs -> all that a report says, whatever form it is then given."""

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
from spacelite.runs.store import Run


@dataclass(frozen=True)
class Part:
    """A group of systems: its table, what follows from their outputs, words and mistakes (None
    where they are not wanted, or cannot be told)."""

    section: Section
    analysis: Analysis
    examples: Examples | None


@dataclass(frozen=True)
class Report:
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
) -> Report:
    """Put together what is known of runs. `with_examples`: also read the caches' hidden states for
    words and mistakes; `backbone`: where the runs' lies, if it was a local folder."""
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
    return Report(published.of_groups(together), parts)
