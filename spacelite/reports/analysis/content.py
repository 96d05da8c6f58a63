"""Runs -> the findings of a report, whatever its form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from spacelite.errors import SpaceliteError
from spacelite.reports.analysis import comparisons as analysis
from spacelite.reports.analysis import (
    data_notes,
    examples,
    groups,
    published,
    selection,
    training_notes,
)
from spacelite.reports.analysis.comparisons import Analysis
from spacelite.reports.analysis.examples import Examples
from spacelite.reports.analysis.rows import Section
from spacelite.runs import Run
from spacelite.studies import answers
from spacelite.studies.answers import Answer

SPLITS = ("train", "validation")  # that a report can show beside its own


@dataclass(frozen=True)
class Part:
    """A group of systems: its table, its analysis, its words and mistakes (None if they are not
    wanted or not available), and the answers to questions about its cache."""

    section: Section
    analysis: Analysis
    examples: Examples | None
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class Findings:
    """The published tables with the measured figures, and every group of runs. `also` names another
    split whose figures the tables show."""

    published: list[Section]
    parts: list[Part]
    also: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The findings as JSON data: dictionaries, lists, strings and numbers."""
        return asdict(self)


def build(
    cache_dir: Path,
    runs: Sequence[Run],
    *,
    with_examples: bool = True,
    backbone: str | None = None,
    cache: str | None = None,
    dataset: str | None = None,
    head: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
    compare: Sequence[str] = (),
    split: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Analyse runs.

    Args:
        cache_dir: Folder of caches and runs.
        runs: Runs, in the order that their groups should have.
        with_examples: Whether to read the caches' hidden states, for words and mistakes.
        backbone: Folder of the runs' backbone, if it was a local one.
        cache: Only runs on the cache of this name.
        dataset: Only runs on this data set.
        head: Only heads of these kinds.
        where: Only runs with these settings; arguments as in `selection.select`.
        compare: Only these systems, as in `selection.compared`. The published tables are left out.
        split: Another split whose figures the tables show too: `train` or `validation`.
        on_progress: Called with the number of groups done and the total.

    Raises:
        SpaceliteError: A condition fits no run, or the systems cannot be compared.
    """
    if split not in (None, *SPLITS):
        raise SpaceliteError(f"split={split}: choose {' or '.join(SPLITS)}", ["split"])
    runs = selection.select(runs, cache=cache, dataset=dataset, head=head, where=where)
    together = selection.compared(runs, compare) if compare else groups.grouped(runs)
    parts = []
    asked: set[str] = set()  # the caches whose answers are there already
    for number, group in enumerate(together):
        on_progress(number, len(together))
        analysed = analysis.analyse(cache_dir, group)
        notes = [
            *group.section.notes,
            *data_notes.of_group(cache_dir, group),
            *training_notes.of_group(group, analysed.curves),
        ]
        parts.append(
            Part(
                replace(group.section, notes=notes),
                analysed,
                examples.of_group(cache_dir, group, backbone) if with_examples else None,
                [] if compare else _answers(cache_dir, group, asked, with_examples),
            )
        )
    on_progress(len(together), len(together))
    return Findings([] if compare else published.of_groups(together), parts, split)


def _answers(
    cache_dir: Path, group: groups.Group, asked: set[str], with_texts: bool
) -> list[Answer]:
    """The answers about the cache that a group was trained on, if it is the first on that cache;
    those that show texts only if these are wanted."""
    system = group.systems[0]
    record = system.runs[0].record
    if system.transfers is not None or record.cache_key in asked:
        return []
    asked.add(record.cache_key)
    found = answers.of_cache(cache_dir, record.cache, record.cache_key)
    return [one for one in found if with_texts or one.kind != "audit"]
