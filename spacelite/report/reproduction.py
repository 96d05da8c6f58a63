"""The published tables with what was measured above each of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from spacelite import paper
from spacelite.metrics import METRICS
from spacelite.report import summary
from spacelite.report.summary import Row, Section

if TYPE_CHECKING:
    from spacelite.reproduce import RowOutcome


def sections(outcomes: Sequence[RowOutcome]) -> list[Section]:
    """A section a published table, in their order; rows that could not be measured are empty."""
    tables: dict[str, list[RowOutcome]] = {}
    for outcome in outcomes:
        tables.setdefault(outcome.row.table, []).append(outcome)
    return [_section(members) for members in tables.values()]


def _section(outcomes: list[RowOutcome]) -> Section:
    row = outcomes[0].row
    rows: list[Row] = []
    notes: list[str] = []
    done = [outcome for outcome in outcomes if outcome.runs]
    for outcome in outcomes:
        rows += [_measured(outcome), summary.published(outcome.row)]
        if outcome.runs:
            notes += summary.differences(outcome.row, outcome.runs[0].record)
        if outcome.note is not None:
            notes.append(outcome.note)
    record = done[0].runs[0].record if done else None
    settings: dict[str, Any] = record["settings"] if record else {}
    arrow = "" if row.train_on == row.test_on else f" → {row.test_on}"
    about = "test figures"
    if record:
        examples = f"{record['examples']['train']:,} training examples"
        about = f"{about}; {examples}; {summary.training_settings(settings)}cache {record['cache']}"
    return Section(
        title=f"{row.title} [{row.table}]",
        subtitle=f"{row.train_on}{arrow}, {row.epochs} epochs; {about}",
        data=row.test_on,
        backbone=record["spec"]["backbone"] if record else row.backbone,
        cache=record["cache"] if record else "",
        split="test",
        examples=record["examples"] if record else {},
        settings={name: settings.get(name) for name in summary.SHARED},
        average=paper.average_of_table(row.table),
        rows=rows,
        notes=list(dict.fromkeys(notes)),
    )


def _measured(outcome: RowOutcome) -> Row:
    if outcome.runs:
        return summary.measured(outcome.runs, outcome.scores, outcome.row.test_on)
    row = outcome.row
    return Row(
        system=row.system,
        train_params=None,
        figures=dict.fromkeys(METRICS),
        inter=row.inter,
        intra=row.intra,
        seeds=0,
        published=False,
        backbone=row.backbone,
        epochs=row.epochs,
        data=row.test_on,
        train_examples=0,
        runs=[],
    )
