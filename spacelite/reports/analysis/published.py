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
    section_settings,
    training_words,
    with_best,
)


def of_groups(groups: Sequence[Group]) -> list[Section]:
    """The published tables of which at least one row was measured, in published order.

    If several groups have rows of a table, one of them is compared with it: one with the published
    backbone if possible, then the one with the most rows, the most training examples, and the
    newest runs.
    """
    found: dict[str, tuple[tuple[Any, ...], list[RowOutcome]]] = {}
    for number, group in enumerate(groups):
        # The published figures are of the test split.
        outcomes = _outcomes(group) if group.section.split == "test" else {}
        for table, members in outcomes.items():
            same = paper.same_backbone(members[0].row.backbone, group.section.backbone)
            rank = (same, len(members), group.section.examples["train"], number)
            if table not in found or rank > found[table][0]:
                found[table] = (rank, members)
    sections = []
    for table in dict.fromkeys(row.table for row in paper.published()):
        if table in found:
            by_row = {id(outcome.row): outcome for outcome in found[table][1]}
            rows = [row for row in paper.published() if row.table == table]
            sections.append(_section([by_row.get(id(row), RowOutcome(row)) for row in rows]))
    return sections


def _outcomes(group: Group) -> dict[str, list[RowOutcome]]:
    """The published rows that a group has measured, by table."""
    by_table: dict[str, list[RowOutcome]] = {}
    for system in group.systems:
        if system.transfers is not None and any(
            # Labels were matched differently than for the published figures.
            tuple(transfer.labels.values()) != run.record.label_names
            for run, transfer in zip(system.runs, system.transfers, strict=True)
        ):
            continue
        for row in paper.matching(system.runs[0].record, group.section.data):
            outcome = RowOutcome(row, system.runs, system.scores())
            by_table.setdefault(row.table, []).append(outcome)
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
        if outcome.note is not None:
            notes.append(outcome.note)
    record = done[0].runs[0].record if done else None
    arrow = "" if row.train_on == row.test_on else f" → {row.test_on}"
    about = "test figures, ± over seeds"
    if record:
        about += f"; {averaging(paper.average_of_table(row.table), record.label_names)}"
        examples = f"{record.examples['train']:,} training examples"
        about = f"{about}; {examples}; {training_words(record)}cache {record.cache}"
    return Section(
        title=f"{row.title} [{row.table}]",
        subtitle=f"{row.train_on}{arrow}, {row.epochs} epochs; {about}",
        data=row.test_on,
        backbone=record.spec.backbone if record else row.backbone,
        cache=record.cache if record else "",
        split="test",
        examples=record.examples if record else {},
        settings=section_settings(record),
        average=paper.average_of_table(row.table),
        rows=with_best(rows),
        notes=list(dict.fromkeys(notes)),
    )


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
