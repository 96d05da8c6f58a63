"""The published tables, each row below the measured one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from spacelite import paper
from spacelite.metrics.scores import METRICS
from spacelite.paper import PublishedRow, RowOutcome
from spacelite.reports.analysis.groups import (
    Group,
    MeanStd,
    Row,
    Section,
    SeedRuns,
    averaging,
    bold_note,
    by_key,
    measured,
    shared_settings,
    training_words,
    with_best,
)


def published_sections(groups: Sequence[Group]) -> list[Section]:
    """The published tables of which at least one row was measured, in published order.

    If several groups have rows of a table, one of them is compared with it: one with the published
    backbone if possible, then the one with the most rows, the most training examples, and the
    newest runs.
    """
    candidates: dict[str, list[tuple[tuple[Any, ...], str, list[RowOutcome]]]] = {}
    # The published figures are of the test split.
    by_cache: dict[tuple[str, str, str], list[SeedRuns]] = {}
    for group in groups:
        for system in group.systems if group.section.split == "test" else []:
            record, data, cache = system.record, group.section.data, group.section.cache
            if system.transfers is None:
                data, cache = record.spec.dataset, record.cache
            by_cache.setdefault((record.cache_key, data, cache), []).append(system)
    for number, ((_, data, cache), systems) in enumerate(by_cache.items()):
        record = systems[0].record
        newest = max(run.record.created for system in systems for run in system.runs)
        for table, members in _outcomes(systems, data).items():
            same = paper.same_backbone(members[0].row.backbone, record.spec.backbone)
            rank = (same, len(members), record.examples["train"], newest, number)
            candidates.setdefault(table, []).append((rank, cache, members))
    sections = []
    for table in dict.fromkeys(row.table for row in paper.published()):
        if table in candidates:
            ranked = sorted(candidates[table], key=lambda candidate: candidate[0], reverse=True)
            by_row = {outcome.row: outcome for outcome in ranked[0][2]}
            rows = [row for row in paper.published() if row.table == table]
            section = _section([by_row.get(row, RowOutcome(row)) for row in rows])
            if others := [cache for _, cache, _ in ranked[1:]]:
                note = (
                    f"Runs on other caches fit this table too ({', '.join(others)}). The table "
                    "shows the cache with the published backbone if there is one, otherwise the "
                    "one with the most rows, then the most training examples, then the newest runs."
                )
                section = replace(section, notes=[*section.notes, note])
            sections.append(section)
    return sections


def _outcomes(systems: Sequence[SeedRuns], data: str) -> dict[str, list[RowOutcome]]:
    """The published rows that systems have measured, by table. All runs that fit a row count: they
    differ in their seeds and in the order of the examples (`data_seed`)."""
    by_row: dict[PublishedRow, RowOutcome] = {}
    for system in systems:
        if system.transfers is not None and any(
            # Labels were matched differently than for the published figures.
            tuple(transfer.labels.values()) != run.record.label_names
            for run, transfer in zip(system.runs, system.transfers, strict=True)
        ):
            continue
        for row in paper.matching(system.record, data):
            outcome = by_row.setdefault(row, RowOutcome(row))
            outcome.runs = [*outcome.runs, *system.runs]
            outcome.scores = [*outcome.scores, *system.scores()]
    return by_key(by_row.values(), lambda outcome: outcome.row.table)


def sections(outcomes: Sequence[RowOutcome]) -> list[Section]:
    """One section per published table, in order; rows that could not be measured are empty."""
    by_table = by_key(outcomes, lambda outcome: outcome.row.table)
    return [_section(members) for members in by_table.values()]


def _section(outcomes: Sequence[RowOutcome]) -> Section:
    row = outcomes[0].row
    rows: list[Row] = []
    notes: list[str] = []
    done = [outcome for outcome in outcomes if outcome.runs]
    for outcome in outcomes:
        above, below = _measured(outcome), _published(outcome.row)
        if outcome.runs:
            marks = paper.differences(outcome.row, outcome.runs[0].record)
            notes += [f"{mark} {note}" for mark, note in marks.items()]
            below = replace(below, system=" ".join([below.system, *marks]))
        rows += [above, below]
        if outcome.runs:
            rows.append(_difference(above, below))
            # Runs that saw the examples in different orders.
            seeds = sorted({getattr(run.record.training, "data_seed", 0) for run in outcome.runs})
            if len(seeds) > 1:
                notes.append(
                    f"{outcome.row.system}: the mean over all {len(outcome.runs)} runs with the "
                    "published settings, of every order of the examples (data seeds "
                    f"{', '.join(map(str, seeds))})."
                )
        if outcome.note is not None:
            notes.append(outcome.note)
    record = done[0].runs[0].record if done else None
    arrow = "" if row.train_on == row.test_on else f" → {row.test_on}"
    about = "test figures, ± over seeds"
    records = [run.record for outcome in done for run in outcome.runs]
    if record:
        precision = record.spec.precision
        iterative_first = sorted(records, key=lambda record: record.epochs is None)
        about += (
            f"; {averaging(row.average, record.label_names)}"
            f"; {record.examples['train']:,} training examples"
            f"{'' if precision == 'float32' else f'; backbone in {precision}'}"
            f"; {training_words(iterative_first)}cache {record.cache}"
        )
    marked = with_best(rows)
    return Section(
        title=f"{row.title} [{row.table}]",
        subtitle=f"{row.train_on}{arrow}, {row.epochs} epochs; {about}",
        data=row.test_on,
        backbone=record.spec.backbone if record else row.backbone,
        cache=record.cache if record else "",
        split="test",
        examples=record.examples if record else {},
        settings=shared_settings(records),
        average=row.average,
        rows=marked,
        notes=[*dict.fromkeys(notes), *bold_note(marked)],
    )


def _measured(outcome: RowOutcome) -> Row:
    if outcome.runs:
        return measured(outcome.runs, outcome.scores, outcome.row.test_on)
    return replace(
        _published(outcome.row),
        system=f"{outcome.row.system}, not measured",
        kind="measured",
        train_params=None,
        figures=dict.fromkeys(METRICS),
        seeds=0,
        train_examples=0,
    )


def _published(row: PublishedRow) -> Row:
    params = row.figures["train_params"]
    values = {name: row.figures.get(name) for name in METRICS}
    return Row(
        system=f"published, {row.backbone}",
        kind="published",
        train_params=None if params is None else int(params),
        figures={name: None if v is None else MeanStd(v) for name, v in values.items()},
        inter=row.inter,
        intra=row.intra,
        seeds=None,
        backbone=row.backbone,
        epochs=row.epochs,
        data=row.test_on,
        train_examples=row.train_examples,
        runs=[],
    )


def _difference(measured: Row, published: Row) -> Row:
    """The figures of a measured row minus those of a published one."""
    figures: dict[str, MeanStd | None] = {}
    for name, there in published.figures.items():
        here = measured.figures[name]
        figures[name] = None if here is None or there is None else MeanStd(here.mean - there.mean)
    return replace(
        published, system="difference", kind="difference", train_params=None, figures=figures
    )
