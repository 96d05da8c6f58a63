"""The tables of a report: rows of figures, sections of rows, and sweeps.

A sweep is the systems of a group that differ only in tuned settings (learning rate, epochs, L,
...). One setting of it is chosen by its validation accuracy, the mean over seeds, and only that one
is compared with other systems: comparing the test figures of all would favour the system that was
tried with the most settings.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Hashable, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from spacelite import settings
from spacelite.heads import HeadConfig
from spacelite.metrics.scores import METRICS, Scores
from spacelite.runs.record import RunRecord
from spacelite.runs.store import Run
from spacelite.settings import shown, varying

CHOSEN_BY = "accuracy"  # metric of the validation split that chooses in a sweep


@dataclass(frozen=True)
class MeanStd:
    """A mean and standard deviation over seeds (None for a single seed)."""

    mean: float
    std: float | None = None


def mean_std(values: Sequence[float]) -> MeanStd:
    """Mean and standard deviation over seeds."""
    return MeanStd(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Row:
    """One line of a table. `--json` prints its fields."""

    system: str  # the head's name, without what the table's columns say
    # `measured` for a measured system, `published` for a published one, or `difference` for the two
    # lines above, measured minus published.
    kind: str
    train_params: int | None
    figures: dict[str, MeanStd | None]  # by metric of METRICS
    inter: float | None
    intra: float | None
    seeds: int | None  # number of runs that the figures are means of
    backbone: str
    epochs: int | None
    data: str  # data set that the figures were measured on
    train_examples: int
    runs: list[str]  # their ids, one per seed
    best: list[str] = field(default_factory=list)  # metrics in which no row of its kind is better
    # The settings that distinguish it from rows with the same title: name -> symbol.
    varied: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # all but the seed
    # Split -> metric -> figure, for the run's own splits.
    by_split: dict[str, dict[str, MeanStd | None]] = field(default_factory=dict)
    tried: int = 1  # number of settings in the system's sweep
    chosen: bool = True  # whether validation chose it among the settings of its sweep

    @property
    def title(self) -> str:
        """The system's name with the weights of its losses."""
        weights = {"inter": self.inter, "intra": self.intra}
        return " + ".join([self.system, *(f"{key} {w:g}" for key, w in weights.items() if w)])

    @property
    def details(self) -> list[str]:
        """The settings of `varied` with their values: `learning rate 0.001`."""
        return settings.details(self.varied, self.settings, self.varied)

    @property
    def name(self) -> str:
        """The title with what distinguishes the row from others with the same title."""
        return ", ".join([self.title, *self.details])

    @property
    def validation(self) -> MeanStd | None:
        """The figure that chooses among the settings of a sweep."""
        return self.by_split.get("validation", {}).get(CHOSEN_BY)


@dataclass(frozen=True)
class Section:
    """A table of systems on one split of one data set. `--json` prints its fields."""

    title: str
    subtitle: str  # what all rows have in common
    data: str
    backbone: str
    cache: str
    split: str
    examples: dict[str, int]  # by split
    settings: dict[str, Any]  # that the runs share
    average: str  # how precision and recall are averaged: `binary` or `weighted`
    rows: list[Row]
    notes: list[str]
    swept: dict[str, str] = field(default_factory=dict)  # setting that has a column -> its heading


def all_settings(record: RunRecord) -> dict[str, Any]:
    """The settings of a run, of its head and of its training, except the seed and those that have
    no effect on its kind of head."""
    idle = record.head.settings().keys() - settings.effective(record.head).keys()
    return {
        name: value
        for name, value in record.settings.items()
        if name != "seed" and name not in idle
    }


def effective(record: RunRecord) -> dict[str, Any]:
    """The settings of a run that have an effect, except the seed and the loss weights."""
    values = {**settings.effective(record.head), **settings.effective(record.training)}
    return {name: value for name, value in values.items() if name not in ("seed", "inter", "intra")}


def symbols(record: RunRecord) -> dict[str, str]:
    """How tables call each setting of a run."""
    return {**settings.symbols(record.head), **settings.symbols(record.training)}


def shared_settings(records: Sequence[RunRecord]) -> dict[str, Any]:
    """The settings that have the same value in all runs that have them."""
    values: dict[str, list[Any]] = {}
    for record in records:
        for name, value in all_settings(record).items():
            values.setdefault(name, []).append(value)
    return {
        name: of_runs[0]
        for name, of_runs in values.items()
        if all(value == of_runs[0] for value in of_runs)
    }


def measured(runs: Sequence[Run], scores: Sequence[Scores], data: str) -> Row:
    """A row for runs that differ only in their seed, with their `scores` on data set `data`."""
    record = runs[0].record
    return Row(
        system=record.system,
        kind="measured",
        train_params=record.train_params,
        figures=_over_seeds(scores),
        inter=record.head.settings().get("inter"),
        intra=record.head.settings().get("intra"),
        seeds=len(runs),
        backbone=record.spec.backbone,
        epochs=record.epochs,
        data=data,
        train_examples=record.examples["train"],
        runs=[run.id for run in runs],
        settings=all_settings(record),
        by_split={
            split: _over_seeds([run.record.metrics[split] for run in runs])
            for split in record.metrics
            if all(split in run.record.metrics for run in runs)
        },
    )


def _over_seeds(scores: Sequence[Scores]) -> dict[str, MeanStd | None]:
    """Every metric over seeds; None if a run does not have it."""
    figures: dict[str, MeanStd | None] = {}
    for metric in METRICS:
        values = [value for of_run in scores if (value := of_run.get(metric)) is not None]
        figures[metric] = mean_std(values) if len(values) == len(scores) else None
    return figures


def with_best(rows: Sequence[Row]) -> list[Row]:
    """Mark the best figures of the measured and of the published rows, compared at the four
    decimals that are printed; a single row of a kind has no best figures, and rows of a sweep
    that validation did not choose do not count. A table of published rows marks only what these
    have figures of."""
    published = [row for row in rows if row.kind == "published"]
    best: list[list[str]] = [[] for _ in rows]
    for name, metric in METRICS.items():
        if not metric.best_marked:
            continue
        if published and all(row.figures[name] is None for row in published):
            continue
        for kind in ("measured", "published"):
            means = {
                number: round(value.mean, 4)
                for number, row in enumerate(rows)
                if row.kind == kind and row.chosen and (value := row.figures[name]) is not None
            }
            if len(means) > 1:
                extreme = (max if metric.higher_is_better else min)(means.values())
                for number, mean in means.items():
                    if mean == extreme:
                        best[number].append(name)
    return [replace(row, best=names) for row, names in zip(rows, best, strict=True)]


def averaging(average: str, labels: Sequence[str]) -> str:
    """How precision and recall are averaged, in words."""
    if average == "binary":
        return f"precision and recall of {labels[1]}"
    return "precision and recall weighted by support"


def training_words(records: Sequence[RunRecord], swept: Collection[str] = ()) -> str:
    """`batch 256, learning rate 0.0002, weight decay 0.01; `, and what is not the default, as far
    as all runs share it. The first record is of an iterative head, if any is; settings that are
    `swept` have a column."""
    shared, first = shared_settings(records), records[0]
    differing = [name for name in all_settings(first) if name not in shared or name in swept]
    words = [*settings.words(first.training, differing), *settings.words(first.head, differing)]
    return f"{', '.join(words)}; " if words else ""


def sweep_key(record: RunRecord) -> tuple[Any, ...]:
    """A key that is equal for runs of a cache that differ only in their seed and in tuned
    settings."""
    tuned = {*settings.tuned(record.head), *settings.tuned(record.training)}
    kept = {name: value for name, value in all_settings(record).items() if name not in tuned}
    return (record.head.kind, *sorted(kept.items()))


def swept_settings(records: Sequence[RunRecord], sweeps: Sequence[Hashable]) -> dict[str, str]:
    """The tuned settings that differ within a sweep, each with its heading in tables. `sweeps`
    holds the key of each record's sweep, (R,)."""
    headings = {
        name: symbol[0].upper() + symbol[1:]
        for record in records
        for config in (record.head, record.training)
        for name, symbol in settings.symbols(config).items()
        if name in settings.tuned(config)
    }
    members: dict[Hashable, list[dict[str, Any]]] = {}
    for record, key in zip(records, sweeps, strict=True):
        members.setdefault(key, []).append(effective(record))
    differing = {name for values in members.values() for name in varying(values)}
    return {name: heading for name, heading in headings.items() if name in differing}


def system_name(head: HeadConfig, swept: Collection[str]) -> str:
    """A head's name without the settings that have a column: as if they had their defaults."""
    usual = {
        setting.name: setting.default
        for setting in fields(head)
        if setting.name in swept and setting.default is not MISSING
    }
    return replace(head, **usual).name


def with_varied(rows: Sequence[Row], records: Sequence[RunRecord]) -> list[Row]:
    """Give rows with the same title the settings in which they differ (`varied`)."""
    apart = settings.told_apart([row.title for row in rows], list(map(effective, records)))
    known = map(symbols, records)
    return [
        replace(row, varied={name: of_row[name] for name in names})
        for row, of_row, names in zip(rows, known, apart, strict=True)
    ]


def with_choice(rows: Sequence[Row], sweeps: Sequence[Hashable]) -> list[Row]:
    """Mark in each sweep the row with the best validation accuracy; of equal ones the first.
    `sweeps` holds the key of each row's sweep, (R,)."""
    best: dict[Hashable, int] = {}
    accuracies = [-1.0 if row.validation is None else row.validation.mean for row in rows]
    for number, key in enumerate(sweeps):
        if key not in best or accuracies[number] > accuracies[best[key]]:
            best[key] = number
    return [
        replace(row, tried=sweeps.count(key), chosen=best[key] == number)
        for number, (row, key) in enumerate(zip(rows, sweeps, strict=True))
    ]


def choice_notes(
    rows: Sequence[Row],
    records: Sequence[Sequence[RunRecord]],
    sweeps: Sequence[Hashable],
    split: str,
    of_run: bool,
) -> list[str]:
    """What was tried in each sweep and search, and what validation chose, thresholds included.

    `records` holds the runs of each row, (R, ...), `sweeps` the key of its sweep, (R,). The table
    shows `split`; `of_run` says whether it is one of the runs' own data.
    """
    tried = [
        sweep_note(row, [other for other, of_other in zip(rows, sweeps, strict=True)
                         if of_other == key])
        for row, key in zip(rows, sweeps, strict=True)
        if row.tried > 1 and row.chosen
    ]  # fmt: skip
    if tried:
        tried.append(
            "Only the chosen settings are compared with other systems: the best of many test "
            "figures would be too good by chance."
        )
        if split == "validation":
            tried.append(
                "The settings were chosen on the examples that the table shows, so the figures of "
                "the chosen ones are too optimistic."
            )
    on_validation = of_run and split == "validation"
    searched: list[str] = []
    thresholds: dict[str, list[str]] = {}
    for row, of_row in zip(rows, records, strict=True):
        words = [record.search.words() for record in of_row if record.search is not None]
        searched += [f"{row.name}: {search}." for search in dict.fromkeys(words)]
        if (metric := of_row[0].training.threshold) is not None:
            thresholds.setdefault(METRICS[metric].in_words, []).append(row.name)
    decided = [
        f"Decision thresholds of {', '.join(names)} were chosen on validation for {metric}."
        for metric, names in thresholds.items()
    ]
    if searched and on_validation:
        searched.append(
            "A search chose on the examples that the table shows, so the figures of what it chose "
            "are too optimistic."
        )
    if decided and on_validation:
        decided.append(
            "Thresholds were chosen on the examples that the table shows, so the figures of those "
            "systems are too optimistic."
        )
    return [*tried, *searched, *decided]


def sweep_note(row: Row, sweep: Sequence[Row]) -> str:
    """What was tried in a row's sweep, of at least two rows, and what validation chose."""
    values: dict[str, list[Any]] = {}
    for other in sweep:
        for name, symbol in other.varied.items():
            values.setdefault(symbol, []).append(other.settings[name])
    words = "; ".join(
        f"{symbol} {_span(tried)}"
        for symbol, tried in values.items()
        if len(set(map(str, tried))) > 1
    )
    (best,) = [", ".join(other.details) for other in sweep if other.chosen]
    if row.chosen:
        return (
            f"{row.title}: {len(sweep)} settings were tried ({words}). Validation accuracy chose "
            f"{best}."
        )
    return (
        f"{row.name} is one of {len(sweep)} settings that were tried ({words}). Validation "
        f"accuracy chose {best}."
    )


def _span(values: Sequence[Any]) -> str:
    """`0.0001 to 0.01`, or `cosine, constant`."""
    if all(isinstance(value, int | float) for value in values):
        return f"{shown(min(values))} to {shown(max(values))}"
    return ", ".join(dict.fromkeys(shown(value) for value in values))
