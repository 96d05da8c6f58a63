"""Sweeps: systems of a group that differ only in tuned settings (learning rate, epochs, L, ...).

One setting of a sweep is chosen by its validation accuracy, the mean over seeds, and only that one
is compared with other systems: comparing the test figures of all would favour the system that was
tried with the most settings.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

from spacelite import settings
from spacelite.heads import HeadConfig
from spacelite.metrics.scores import METRICS
from spacelite.reports.analysis.rows import Row, all_settings
from spacelite.runs import RunRecord
from spacelite.settings import shown, varying

CHOSEN_BY = "accuracy"  # metric of the validation split


def sweep_key(record: RunRecord) -> tuple[Any, ...]:
    """A key that is equal for runs of a cache that differ only in their seed and in tuned
    settings."""
    tuned = {*settings.tuned(record.head), *settings.tuned(record.training)}
    kept = {name: value for name, value in all_settings(record).items() if name not in tuned}
    return (record.head.kind, *sorted(kept.items()))


def swept_settings(records: Sequence[RunRecord], sweeps: Sequence[Hashable]) -> dict[str, str]:
    """The tuned settings that differ within a sweep, each with its heading in tables.

    Args:
        records: R records.
        sweeps: The sweep of each, (R,): equal keys for those of one sweep.
    """
    tuned = {
        name: symbol[0].upper() + symbol[1:]
        for record in records
        for config in (record.head, record.training)
        for name, symbol in settings.symbols(config).items()
        if name in settings.tuned(config)
    }
    members: dict[Hashable, list[dict[str, Any]]] = {}
    for record, key in zip(records, sweeps, strict=True):
        members.setdefault(key, []).append(effective(record))
    differing = {name for own in members.values() for name in varying(own)}
    return {name: heading for name, heading in tuned.items() if name in differing}


def effective(record: RunRecord) -> dict[str, Any]:
    """The settings of a run that have an effect, except the seed and the loss weights."""
    values = {**settings.effective(record.head), **settings.effective(record.training)}
    return {name: value for name, value in values.items() if name not in ("seed", "inter", "intra")}


def system_name(head: HeadConfig, swept: Collection[str]) -> str:
    """A head's name without the settings that have a column: as if they had their defaults."""
    usual = {
        each.name: each.default
        for each in fields(head)
        if each.name in swept and each.default is not MISSING
    }
    return replace(head, **usual).name


def with_varied(rows: Sequence[Row], records: Sequence[RunRecord]) -> list[Row]:
    """Give rows with the same title the settings in which they differ (`varied`)."""
    alike: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        alike.setdefault(row.title, []).append(number)
    made = list(rows)
    for numbers in alike.values():
        own = [effective(records[number]) for number in numbers]
        names = varying(own)
        for number, values in zip(numbers, own, strict=True):
            record = records[number]
            symbols = {**settings.symbols(record.head), **settings.symbols(record.training)}
            varied = {name: symbols[name] for name in names if name in values}
            made[number] = replace(rows[number], varied=varied)
    return made


def with_choice(rows: Sequence[Row], sweeps: Sequence[Hashable]) -> list[Row]:
    """Mark in each sweep the row with the best validation accuracy; of equal ones the first.

    Args:
        rows: R rows.
        sweeps: The sweep of each row, (R,): equal keys for rows of one sweep.
    """
    best: dict[Hashable, int] = {}
    for number, key in enumerate(sweeps):
        if key not in best or _validation(rows[number]) > _validation(rows[best[key]]):
            best[key] = number
    return [
        replace(row, tried=sweeps.count(key), chosen=best[key] == number)
        for number, (row, key) in enumerate(zip(rows, sweeps, strict=True))
    ]


def notes(rows: Sequence[Row], sweeps: Sequence[Hashable], split: str) -> list[str]:
    """What was tried in each sweep, and what validation chose.

    Args:
        rows: R rows.
        sweeps: The sweep of each row, (R,).
        split: The split whose figures the table shows.
    """
    made = [
        note(row, [each for each, other in zip(rows, sweeps, strict=True) if other == key])
        for row, key in zip(rows, sweeps, strict=True)
        if row.tried > 1 and row.chosen
    ]
    if made:
        made.append(
            "Only the chosen settings are compared with other systems: the best of many test "
            "figures would be too good by chance."
        )
        if split == "validation":
            made.append(
                "The settings were chosen on the examples that the table shows, so the figures of "
                "the chosen ones are too optimistic."
            )
    return made


def searched(rows: Sequence[Row], records: Sequence[Sequence[RunRecord]], split: str) -> list[str]:
    """The searches that chose the settings of rows: what was tried is not in the table.

    Args:
        rows: R rows.
        records: The runs of each row, (R, ...).
        split: The split whose figures the table shows; "" if it is of other data than the search.
    """
    made = []
    for row, own in zip(rows, records, strict=True):
        words = [record.search.words() for record in own if record.search is not None]
        made += [f"{row.name}: {each}." for each in dict.fromkeys(words)]
    if made and split == "validation":
        made.append(
            "A search chose on the examples that the table shows, so the figures of what it chose "
            "are too optimistic."
        )
    return made


def decided(rows: Sequence[Row], records: Sequence[Sequence[RunRecord]], split: str) -> list[str]:
    """A note on systems whose decision thresholds were chosen on validation. The arguments are
    those of `searched`."""
    names: dict[str, list[str]] = {}
    for row, own in zip(rows, records, strict=True):
        if (metric := own[0].training.threshold) is not None:
            names.setdefault(METRICS[metric].in_words, []).append(row.name)
    made = [
        f"Decision thresholds of {', '.join(own)} were chosen on validation for {metric}."
        for metric, own in names.items()
    ]
    if made and split == "validation":
        made.append(
            "Thresholds were chosen on the examples that the table shows, so the figures of those "
            "systems are too optimistic."
        )
    return made


def note(row: Row, sweep: Sequence[Row]) -> str:
    """What was tried in a row's sweep, and what validation chose.

    Args:
        row: A row of the sweep.
        sweep: All rows of the sweep, at least two.
    """
    words = "; ".join(f"{symbol} {_span(values)}" for symbol, values in _varied(sweep).items())
    (best,) = [", ".join(each.details) for each in sweep if each.chosen]
    if row.chosen:
        return (
            f"{row.title}: {len(sweep)} settings were tried ({words}). Validation accuracy chose "
            f"{best}."
        )
    return (
        f"{row.name} is one of {len(sweep)} settings that were tried ({words}). Validation "
        f"accuracy chose {best}."
    )


def _varied(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The settings that differ within a sweep, by symbol, with their values in order."""
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, symbol in row.varied.items():
            values.setdefault(symbol, []).append(row.settings[name])
    return {symbol: own for symbol, own in values.items() if len(set(map(str, own))) > 1}


def _span(values: Sequence[Any]) -> str:
    """`0.0001 to 0.01`, or `cosine, constant`."""
    if all(isinstance(value, int | float) for value in values):
        return f"{shown(min(values))} to {shown(max(values))}"
    return ", ".join(dict.fromkeys(shown(value) for value in values))


def _validation(row: Row) -> float:
    figure = row.by_split.get("validation", {}).get(CHOSEN_BY)
    return -1.0 if figure is None else figure.mean
