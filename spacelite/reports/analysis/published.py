"""The published tables, each row below the measured one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spacelite import paper
from spacelite.metrics.scores import METRICS
from spacelite.paper.tables import RowOutcome
from spacelite.reports.analysis.groups import Group
from spacelite.reports.analysis.rows import (
    Row,
    Section,
    averaging,
    difference,
    measured,
    published,
    shared_settings,
    training_words,
    with_best,
)


def of_groups(groups: Sequence[Group]) -> list[Section]:
    """The published tables of which at least one row was measured, in published order.

    If several groups have rows of a table, one of them is compared with it: one with the published
    backbone if possible, then the one with the most rows, the most training examples, and the
    newest runs.
    """
    found: dict[str, list[tuple[tuple[Any, ...], Group, list[RowOutcome]]]] = {}
    for number, group in enumerate(groups):
        # The published figures are of the test split.
        outcomes = _outcomes(group) if group.section.split == "test" else {}
        for table, members in outcomes.items():
            same = paper.same_backbone(members[0].row.backbone, group.section.backbone)
            rank = (same, len(members), group.section.examples["train"], number)
            found.setdefault(table, []).append((rank, group, members))
    sections = []
    for table in dict.fromkeys(row.table for row in paper.published()):
        if table in found:
            ranked = sorted(found[table], key=lambda one: one[0], reverse=True)
            by_row = {id(outcome.row): outcome for outcome in ranked[0][2]}
            rows = [row for row in paper.published() if row.table == table]
            section = _section([by_row.get(id(row), RowOutcome(row)) for row in rows])
            if others := [group.section.cache for _, group, _ in ranked[1:]]:
                section = replace(section, notes=[*section.notes, _other_caches(others)])
            sections.append(section)
    return sections


def _other_caches(names: Sequence[str]) -> str:
    """A note on the caches whose runs fit a table as well."""
    return (
        f"Runs on other caches fit this table too ({', '.join(names)}). The table shows the cache "
        "with the published backbone if there is one, otherwise the one with the most rows, then "
        "the most training examples, then the newest runs."
    )


def _outcomes(group: Group) -> dict[str, list[RowOutcome]]:
    """The published rows that a group has measured, by table. All runs that fit a row count: they
    differ in their seeds and in the order of the examples (`data_seed`)."""
    by_row: dict[int, RowOutcome] = {}
    for system in group.systems:
        if system.transfers is not None and any(
            # Labels were matched differently than for the published figures.
            tuple(transfer.labels.values()) != run.record.label_names
            for run, transfer in zip(system.runs, system.transfers, strict=True)
        ):
            continue
        for row in paper.matching(system.runs[0].record, group.section.data):
            outcome = by_row.setdefault(id(row), RowOutcome(row))
            outcome.runs = [*outcome.runs, *system.runs]
            outcome.scores = [*outcome.scores, *system.scores()]
    by_table: dict[str, list[RowOutcome]] = {}
    for outcome in by_row.values():
        by_table.setdefault(outcome.row.table, []).append(outcome)
    return by_table


def sections(outcomes: Sequence[RowOutcome]) -> list[Section]:
    """One section per published table, in order; rows that could not be measured are empty."""
    tables: dict[str, list[RowOutcome]] = {}
    for outcome in outcomes:
        tables.setdefault(outcome.row.table, []).append(outcome)
    return [_section(members) for members in tables.values()]


def _section(outcomes: Sequence[RowOutcome]) -> Section:
    row = outcomes[0].row
    rows: list[Row] = []
    notes: list[str] = []
    done = [outcome for outcome in outcomes if outcome.runs]
    for outcome in outcomes:
        above, below = _measured(outcome), published(outcome.row)
        if outcome.runs:
            marks = paper.differences(outcome.row, outcome.runs[0].record)
            notes += [f"{mark} {note}" for mark, note in marks.items()]
            below = replace(below, system=" ".join([below.system, *marks]))
        rows += [above, below]
        if outcome.runs:
            rows.append(difference(above, below))
            notes += _pooled(outcome)
        if outcome.note is not None:
            notes.append(outcome.note)
    record = done[0].runs[0].record if done else None
    arrow = "" if row.train_on == row.test_on else f" → {row.test_on}"
    about = "test figures, ± over seeds"
    if record:
        about += f"; {averaging(paper.average_of_table(row.table), record.label_names)}"
        examples = f"{record.examples['train']:,} training examples"
        records = [run.record for outcome in done for run in outcome.runs]
        records.sort(key=lambda one: one.epochs is None)
        about = f"{about}; {examples}; {training_words(records)}cache {record.cache}"
    return Section(
        title=f"{row.title} [{row.table}]",
        subtitle=f"{row.train_on}{arrow}, {row.epochs} epochs; {about}",
        data=row.test_on,
        backbone=record.spec.backbone if record else row.backbone,
        cache=record.cache if record else "",
        split="test",
        examples=record.examples if record else {},
        settings=shared_settings([run.record for one in done for run in one.runs]),
        average=paper.average_of_table(row.table),
        rows=with_best(rows),
        notes=list(dict.fromkeys(notes)),
    )


def _pooled(outcome: RowOutcome) -> list[str]:
    """A note on a row whose runs saw the examples in different orders."""
    seeds = sorted({getattr(run.record.training, "data_seed", 0) for run in outcome.runs})
    if len(seeds) < 2:
        return []
    return [
        f"{outcome.row.system}: the mean over all {len(outcome.runs)} runs with the published "
        f"settings, of every order of the examples (data seeds {', '.join(map(str, seeds))})."
    ]


def _measured(outcome: RowOutcome) -> Row:
    if outcome.runs:
        return measured(outcome.runs, outcome.scores, outcome.row.test_on)
    row = outcome.row
    return Row(
        system=f"{row.system}, not measured",
        kind="measured",
        train_params=None,
        figures=dict.fromkeys(METRICS),
        inter=row.inter,
        intra=row.intra,
        seeds=0,
        backbone=row.backbone,
        epochs=row.epochs,
        data=row.test_on,
        train_examples=0,
        runs=[],
        best=[],
    )
