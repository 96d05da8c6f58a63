"""Runs -> groups: which runs a report is of, and the table of the systems that were trained on one
cache, evaluated on one split.

A sweep is the systems of a group that differ only in tuned settings (learning rate, epochs, L,
...). One setting of it is chosen by its validation accuracy, the mean over seeds, and only that one
is compared with other systems: comparing the test figures of all would favour the system that was
tried with the most settings.
"""

from __future__ import annotations

import difflib
import math
import statistics
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeVar

from spacelite import heads, settings
from spacelite.cache.store import Cache
from spacelite.cache.texts import split_digest
from spacelite.errors import SpaceliteError
from spacelite.heads.config import system_names
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.scores import METRICS, Scores
from spacelite.metrics.thresholds import full_name
from spacelite.runs.record import RunRecord, TransferRecord
from spacelite.runs.store import Run, find_cache, matching
from spacelite.settings import OTHER_NAMES, choose_from, shown, varying
from spacelite.tasks import Task, known_metrics, scored_by
from spacelite.visible import visible_name

CHOSEN = " (chosen)"  # what tables write behind the name of what validation chose
MOST_NAMES = 8  # that a message lists

OnData = tuple[Run, TransferRecord | None]  # a run on its own data, or on another data set
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def by_key(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    """The items that have the same key, together."""
    alike: dict[K, list[T]] = {}
    for item in items:
        alike.setdefault(key(item), []).append(item)
    return alike


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

    system: str  # its name in tables, sentences and figures (`system_names`)
    # `measured` for a measured system, `published` for a published one, or `difference` for the two
    # lines above, measured minus published.
    kind: str
    train_params: int | None
    figures: dict[str, MeanStd | None]  # by metric of METRICS
    inter: float | None
    intra: float | None
    # Number of runs that the figures are means of; None for a head without a seed.
    seeds: int | None
    backbone: str
    epochs: int | None
    data: str  # data set that the figures were measured on
    train_examples: int
    runs: list[str]  # their ids, one per seed
    best: list[str] = field(default_factory=list)  # metrics in which no row of its kind is better
    settings: dict[str, Any] = field(default_factory=dict)  # all but the seed
    # Split -> metric -> figure, for the run's own splits.
    by_split: dict[str, dict[str, MeanStd | None]] = field(default_factory=dict)
    tried: int = 1  # number of settings in the system's sweep
    chosen: bool = True  # whether validation chose it among the settings of its sweep
    sweep: str = ""  # the name of the sweep: the system's, as if what differs in it were default

    @property
    def headline(self) -> str:
        """The metric that ranks systems, and on validation chooses among the settings of a
        sweep."""
        return scored_by(self.figures).headline

    @property
    def validation(self) -> MeanStd | None:
        """The figure that chooses among the settings of a sweep."""
        return self.by_split.get("validation", {}).get(self.headline)

    def goodness(self, figure: MeanStd | None) -> float:
        """A number that is the higher, the better a figure of the headline metric is."""
        if figure is None:
            return -math.inf
        return figure.mean if known_metrics()[self.headline].higher_is_better else -figure.mean


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
    average: str  # how precision and recall are averaged: `binary` or `weighted`; "" without
    rows: list[Row]
    notes: list[str]
    swept: dict[str, str] = field(default_factory=dict)  # settings of sweeps -> symbols


def all_settings(record: RunRecord) -> dict[str, Any]:
    """The settings of a run, of its head and of its training, except the seed and those that have
    no effect on its kind of head."""
    values = {**settings.effective(record.head), **record.training.settings()}
    return {name: value for name, value in values.items() if name != "seed"}


def effective(record: RunRecord) -> dict[str, Any]:
    """The settings of a run that have an effect, except the seed and the loss weights."""
    values = {**settings.effective(record.head), **settings.effective(record.training)}
    return {name: value for name, value in values.items() if name not in ("seed", "inter", "intra")}


def shared_settings(records: Sequence[RunRecord]) -> dict[str, Any]:
    """The settings that have the same value in all runs that have them."""
    values = [all_settings(record) for record in records]
    differing = varying(values)
    return {name: of[name] for of in values for name in of if name not in differing}


def measured(runs: Sequence[Run], scores: Sequence[Scores], data: str) -> Row:
    """A row for runs that differ only in their seed, with their `scores` on data set `data`."""
    record = runs[0].record
    return Row(
        system=record.system,
        kind="measured",
        train_params=record.train_params,
        figures=_over_seeds(scores, record.task),
        inter=record.head.settings().get("inter"),
        intra=record.head.settings().get("intra"),
        seeds=None if record.seed is None else len(runs),
        backbone=record.spec.backbone,
        epochs=record.epochs,
        data=data,
        train_examples=record.examples["train"],
        runs=[run.id for run in runs],
        settings=all_settings(record),
        by_split={
            split: _over_seeds([run.record.metrics[split] for run in runs], record.task)
            for split in record.metrics
            if all(split in run.record.metrics for run in runs)
        },
    )


def _over_seeds(scores: Sequence[Scores], task: Task) -> dict[str, MeanStd | None]:
    """Every metric over seeds; None if a run does not have it."""
    figures: dict[str, MeanStd | None] = {}
    for metric in task.metrics:
        values = [value for of_run in scores if (value := of_run.get(metric)) is not None]
        figures[metric] = mean_std(values) if len(values) == len(scores) else None
    return figures


def with_best(rows: Sequence[Row]) -> list[Row]:
    """Mark the best figures of the measured and of the published rows, compared as
    they are printed; a single row of a kind has no best figures, and rows of a sweep
    that validation did not choose do not count. A table of published rows marks only what these
    have figures of."""
    published = [row for row in rows if row.kind == "published"]
    best: list[list[str]] = [[] for _ in rows]
    for name, metric in known_metrics().items():
        if not metric.best_marked or any(name not in row.figures for row in rows):
            continue
        if published and all(row.figures[name] is None for row in published):
            continue
        for kind in ("measured", "published"):
            means = {
                number: float(metric.written(value.mean).replace(",", ""))
                for number, row in enumerate(rows)
                if row.kind == kind and row.chosen and (value := row.figures[name]) is not None
            }
            if len(means) > 1:
                extreme = (max if metric.higher_is_better else min)(means.values())
                for number, mean in means.items():
                    if mean == extreme:
                        best[number].append(name)
    return [replace(row, best=names) for row, names in zip(rows, best, strict=True)]


def bold_note(rows: Sequence[Row]) -> list[str]:
    """A note on what is bold in a table, if anything is."""
    kinds = sorted({row.kind for row in rows if row.best})
    if not kinds:
        return []
    if "published" in kinds:
        return [f"Bold: the best of the {' rows, and of the '.join(kinds)} rows."]
    but = (
        " without the settings that were not chosen" if any(not row.chosen for row in rows) else ""
    )
    return [f"Bold: the best of a column{but}."]


def undefined_note(rows: Sequence[Row]) -> list[str]:
    """Why figures of numbers are dashes, if any are."""
    names = ("r2", "pearson")
    if all(row.figures.get(name, 0) is not None for row in rows for name in names):
        return []
    return [
        "–: R² and correlations do not exist where the labels, or the predictions, are all the "
        "same number."
    ]


def averaging(average: str, labels: Sequence[str]) -> str:
    """How precision and recall are averaged, in words; "" without classes."""
    if average == "binary":
        return f"precision and recall of {visible_name(labels[1])}"
    return "precision and recall weighted by support" if average else ""


def training_words(records: Sequence[RunRecord]) -> str:
    """`batch 256, learning rate 0.0002, weight decay 0.01; `, and what is not the default, as far
    as all runs share it. The first record is of an iterative head, if any is."""
    shared, first = shared_settings(records), records[0]
    differing = [name for name in all_settings(first) if name not in shared]
    words = [*settings.words(first.training, differing), *settings.words(first.head, differing)]
    return f"{', '.join(words)}; " if words else ""


def sweep_key(record: RunRecord) -> tuple[Any, ...]:
    """A key that is equal for runs of a cache that differ only in their seed and in tuned
    settings."""
    tuned = {*settings.tuned(record.head), *settings.tuned(record.training)}
    kept = {name: value for name, value in all_settings(record).items() if name not in tuned}
    return (record.same_but_seed()[0], record.head.kind, *sorted(kept.items()))


def swept_settings(systems: Sequence[SeedRuns]) -> dict[str, str]:
    """The tuned settings that differ within a sweep, each with its symbol."""
    differing = {
        name
        for members in by_key(systems, lambda system: system.sweep).values()
        for name in varying([effective(system.record) for system in members])
    }
    return {
        name: symbol
        for system in systems
        for config in (system.record.head, system.record.training)
        for name, symbol in settings.symbols(config).items()
        if name in settings.tuned(config) and name in differing
    }


def _rows(
    systems: Sequence[SeedRuns],
    named: Mapping[tuple[Any, ...], str],
    swept: Collection[str],
    data: str,
) -> list[Row]:
    """The rows of systems. In each sweep the one with the best figure on validation is chosen, of
    equal ones the first; `named` as in `grouped`."""
    records = [system.record for system in systems]
    names = system_names(
        [of.head for of in records], [of.training for of in records], origins(records)
    )
    rows = [measured(system.runs, system.scores(), data) for system in systems]
    sweeps = by_key(range(len(systems)), lambda number: systems[number].sweep)

    def goodness(number: int) -> float:
        return rows[number].goodness(rows[number].validation)

    chosen = {max(members, key=goodness) for members in sweeps.values()}
    for number, (system, name) in enumerate(zip(systems, names, strict=True)):
        head = system.record.head
        usual = {
            setting.name: setting.default
            for setting in fields(head)
            if setting.name in swept and setting.default is not MISSING
        }
        rows[number] = replace(
            rows[number],
            system=named.get(system.key, name),
            tried=len(sweeps[system.sweep]),
            chosen=number in chosen,
            sweep=replace(head, **usual).system,
        )
    return rows


def choice_notes(
    named: Sequence[tuple[Row, SeedRuns]], swept: Mapping[str, str], split: str
) -> list[str]:
    """What was tried in each sweep and search, and what validation chose, thresholds included. The
    table shows `split`."""
    notes = [
        sweep_note(row, swept, _same_sweep(system, named))
        for row, system in named
        if row.tried > 1 and row.chosen
    ]
    if notes:
        notes.append(
            "Only the chosen settings are compared with other systems: the best of many test "
            "figures would be too good by chance."
        )
    thresholds: dict[str, list[str]] = {}
    for row, system in named:
        words = [search.words() for run in system.runs if (search := run.record.search) is not None]
        notes += [f"{row.system}: {search}." for search in dict.fromkeys(words)]
        if (metric := system.record.training.threshold) is not None:
            thresholds.setdefault(METRICS[metric].in_words, []).append(row.system)
    notes += [
        f"Decision thresholds of {'; '.join(names)} were chosen on validation for {metric}."
        for metric, names in thresholds.items()
    ]
    if notes and split == "validation" and named[0][1].transfers is None:
        notes.append(
            "These choices were made on the examples that the table shows, so the figures of what "
            "was chosen are too optimistic."
        )
    return notes


def _same_sweep(system: SeedRuns, named: Sequence[tuple[Row, SeedRuns]]) -> list[Row]:
    """The rows of a system's sweep."""
    return [row for row, other in named if other.sweep == system.sweep]


def sweep_note(row: Row, swept: Mapping[str, str], sweep: Sequence[Row]) -> str:
    """What was tried in a row's sweep, of at least two rows, and what validation chose. `swept` has
    the symbols of the settings of sweeps."""
    values = {
        symbol: [other.settings[name] for other in sweep if name in other.settings]
        for name, symbol in swept.items()
    }
    words = "; ".join(
        f"{symbol} {_span(tried)}"
        for symbol, tried in values.items()
        if len(set(map(str, tried))) > 1
    )
    (best,) = [other.system for other in sweep if other.chosen]
    count = f"{len(sweep)} settings"
    tried = f"{row.sweep}: {count}" if row.chosen else f"{row.system} is one of {count} that"
    by = known_metrics()[row.headline].in_words
    return f"{tried} were tried ({words}). Validation {by} chose {best}."


def _span(values: Sequence[Any]) -> str:
    """`0.0001 to 0.01`, or `cosine, constant`."""
    if all(isinstance(value, int | float) for value in values):
        return f"{shown(min(values))} to {shown(max(values))}"
    return ", ".join(dict.fromkeys(shown(value) for value in values))


@dataclass(frozen=True)
class SeedRuns:
    """Runs that differ only in their seed, the lowest first; `transfers` is the evaluation of each
    on another data set, if the group is about those, else None. Systems of one `sweep` have the
    same key."""

    runs: list[Run]
    transfers: list[TransferRecord] | None
    sweep: Hashable = None

    @property
    def record(self) -> RunRecord:
        """The record of the run with the lowest seed."""
        return self.runs[0].record

    @property
    def key(self) -> tuple[Any, ...]:
        """What the records have in common."""
        return self.record.same_but_seed()

    @property
    def fixed(self) -> bool:
        """Whether it is fitted directly (logreg): no seed and no epochs."""
        return not self.runs[0].head.is_iterative

    def scores(self) -> list[Scores]:
        """Each run's metrics on the group's split. Those that an older run lacks are computed from
        its predictions, where these are enough."""
        records: Sequence[RunRecord | TransferRecord]
        records = self.transfers or [run.record for run in self.runs]
        saved = [record.metrics[record.split] for record in records]
        metrics = self.record.task.metrics
        wanted = [name for name, metric in metrics.items() if metric.from_predictions]
        if all(name in scores for scores in saved for name in wanted):
            return saved
        return [
            _completed(scores, predictions, wanted)
            for scores, predictions in zip(saved, self.predictions, strict=True)
        ]

    @cached_property
    def predictions(self) -> list[Predictions | None]:
        """Each run's predictions on that split; None if they are not saved."""
        transfers: Sequence[TransferRecord | None] = self.transfers or [None] * len(self.runs)
        return [run.predictions(of) for run, of in zip(self.runs, transfers, strict=True)]

    @cached_property
    def histories(self) -> list[list[dict[str, Any]]]:
        """Each run's history, read once, so that damage is said once."""
        return [run.history() for run in self.runs]


def _completed(scores: Scores, predictions: Predictions | None, wanted: Sequence[str]) -> Scores:
    """A run's metrics with those of `wanted` that it lacks."""
    lacking = [name for name in wanted if name not in scores]
    if predictions is None or not lacking:
        return scores
    outcome = predictions.task.outcome(
        0.0, 0.0, 0.0, predictions.confusion, predictions.labels, predictions.logits
    )
    metrics = predictions.task.metrics
    return {**scores, **{name: metrics[name].compute(outcome) for name in lacking}}


@dataclass(frozen=True)
class Group:
    """A section of measured rows, and the runs of each row."""

    section: Section
    systems: list[SeedRuns]

    @property
    def caches(self) -> dict[str, SeedRuns]:
        """The first system of each cache that systems were trained on, by the cache's name."""
        return {system.record.cache: system for system in reversed(self.systems)}

    @property
    def named(self) -> list[tuple[Row, SeedRuns]]:
        """Each row with its runs."""
        return list(zip(self.section.rows, self.systems, strict=True))


def select(
    runs: Sequence[Run],
    *,
    cache: str | None = None,
    dataset: str | None = None,
    head: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
) -> list[Run]:
    """The runs that fit all conditions: on a cache (or those with this part in their names), on a
    data set, of these kinds of heads, with these settings (one value, or several). A head that
    lacks a setting, such as a baseline without learning rate, is kept."""
    chosen = list(runs)
    if cache is not None:
        exact = [run for run in chosen if run.record.cache == cache]
        fits = exact or [run for run in chosen if cache in run.record.cache]
        chosen = _some(fits, f"cache={cache}", (run.record.cache for run in chosen))
    if dataset is not None:
        fits = [run for run in chosen if run.record.spec.dataset == dataset]
        chosen = _some(fits, f"dataset={dataset}", (run.record.spec.dataset for run in chosen))
    for kind in head:
        fits = [run for run in chosen if run.head.kind == kind]
        _some(fits, f"head={kind}", (run.head.kind for run in chosen))
    chosen = [run for run in chosen if not head or run.head.kind in head]
    for given_name, condition in (where or {}).items():
        name = OTHER_NAMES.get(given_name, given_name)
        values = [known[name] for run in chosen if name in (known := run.record.settings)]
        if not values:
            names = dict.fromkeys(key for run in chosen for key in run.record.settings)
            raise SpaceliteError(
                f"where={given_name}: no run has this setting; {choose_from(given_name, names)}",
                ["where"],
            )
        is_single = isinstance(condition, str) or not hasattr(condition, "__iter__")
        wanted = [condition] if is_single else list(condition)
        if name == "threshold":
            wanted = list(map(full_name, wanted))
        if not any(_is_one_of(value, wanted) for value in values):
            known_values = map(shown, sorted(values, key=_numbers_first))
            _some([], f"where={given_name}={', '.join(map(shown, wanted))}", known_values)
        chosen = [
            run
            for run in chosen
            if name not in run.record.settings or _is_one_of(run.record.settings[name], wanted)
        ]
    return chosen


def _some(fits: list[Run], condition: str, known: Iterable[str]) -> list[Run]:
    if not fits:
        argument, _, value = condition.partition("=")
        choices = choose_from(value, dict.fromkeys(known))
        what = {"where": "setting", "dataset": "data set"}.get(argument, argument)
        raise SpaceliteError(f"{condition}: no run has this {what}; {choices}", [argument])
    return fits


def _numbers_first(value: Any) -> tuple[bool, float, str]:
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))


def _is_one_of(value: Any, wanted: Sequence[Any]) -> bool:
    """Whether a setting has one of the wanted values, which may be given as text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        for other in wanted:
            try:
                if float(value) == float(other):
                    return True
            except (TypeError, ValueError):
                continue
        return False
    return any(shown(value).casefold() == shown(other).casefold() for other in wanted)


def compared(runs: Sequence[Run], names: Sequence[str]) -> list[Group]:
    """The groups that hold at least two of the systems that are named for a comparison, with no
    others.

    A name is one as in any table, or a part of it that no other has; or a run's name, id or part of
    its id, which stands for all seeds of its system. What several settings of a sweep have in their
    names means the one that validation chose.
    """
    everything = [group for group in grouped(runs) if group.systems[0].transfers is None]
    by_name = {name: _named(everything, runs, name) for name in names}
    wanted = {record.same_but_seed() for records in by_name.values() for record in records}
    if len(wanted) < 2:
        raise SpaceliteError(
            f"compare={', '.join(names)}: this is one system; name at least two", ["compare"]
        )
    of = [run for run in runs if run.record.same_but_seed() in wanted]
    # As in the report of all runs.
    called = {system.key: row.system for group in everything for row, system in group.named}
    named = {key: called[key] for key in wanted}
    groups = [group for group in grouped(of, named) if len(group.systems) > 1]
    there = {system.key for group in groups for system in group.systems}
    if any(
        there.isdisjoint(record.same_but_seed() for record in records)
        for records in by_name.values()
    ):
        tested = {run.record.cache: run for run in of}
        records = [run.record for run in tested.values()]
        examples = "; ".join(
            f"{record.examples[record.split]:,} {record.split} examples of {record.spec.dataset} "
            f"(cache {record.cache})"
            for record in records
        )
        gone = [cache for cache, run in tested.items() if _test_digest(run) is None]
        unknown = f"; the texts of {', '.join(gone)} are not there to be compared" if gone else ""
        raise SpaceliteError(
            f"compare={', '.join(names)}: only systems that were tested on the same texts and "
            f"labels, in the same order, can be compared: {examples}{unknown}",
            ["compare"],
        )
    return [_with_searches(group, everything) for group in groups]


def _named(groups: Sequence[Group], runs: Sequence[Run], name: str) -> list[RunRecord]:
    """The systems that a name stands for, one of each cache at most: those with this name; with it
    but for what tells apart caches and settings of a sweep; a run's; those of whose name it is a
    part."""
    key = name.casefold().removesuffix(CHOSEN)
    rows = [(row, system.record) for group in groups for row, system in group.named]
    by_id = {run.id.casefold(): run for run in runs}
    names = {run_id: run.name.casefold() for run_id, run in by_id.items() if run.name}
    ids = matching(list(by_id), names, key)
    exact = [record for row, record in rows if row.system.casefold() == key]
    swept = [record for row, record in rows if row.chosen and row.sweep.casefold() == key]
    of_run = [by_id[ids[0]].record] if len(ids) == 1 else []
    parts = [(row, record) for row, record in rows if key and _is_part(key, row.system.casefold())]
    # Of the settings of a sweep, the chosen one.
    part_of = [record for row, record in parts if row.chosen] or [record for _, record in parts]
    for systems in (exact, swept, of_run, part_of):
        if systems and len({record.cache_key for record in systems}) == len(systems):
            return systems
    known = list(dict.fromkeys(row.system for row, _ in rows))
    if parts:
        fits = list(dict.fromkeys(row.system for row, _ in parts))
        problem, listed = f"it is part of {len(fits)} systems' names; choose one", fits
    else:
        problem = f"fits {len(ids)} runs" if ids else "no system has this name"
        near = {system.casefold(): system for system in known}
        listed = [near[close] for close in difflib.get_close_matches(key, near, n=3, cutoff=0.5)]
        problem += "; did you mean" if listed else "; give a system's name or a run's id"
    shown = "; ".join((listed or known)[:MOST_NAMES])
    more = len(listed or known) - MOST_NAMES
    raise SpaceliteError(
        f"compare={name}: {problem}: {shown}{f'; and {more} more' if more > 0 else ''}", ["compare"]
    )


def _is_part(key: str, name: str) -> bool:
    """Whether a name has another one in it, or each of its parts: `space, epochs 5` is a part of
    `space, learning rate 0.001, epochs 5`."""
    return key in name or {*key.split(", ")} <= {*name.split(", ")}


def _with_searches(group: Group, everything: Sequence[Group]) -> Group:
    """Note under a group what else was tried in the sweeps that its systems come from."""
    members = {system.key for system in group.systems}
    notes = list(group.section.notes)
    for other in everything:
        for row, system in other.named:
            if row.tried > 1 and system.key in members:
                sweep = _same_sweep(system, other.named)
                notes.append(sweep_note(row, other.section.swept, sweep))
    return replace(group, section=replace(group.section, notes=notes))


def grouped(runs: Sequence[Run], named: Mapping[tuple[Any, ...], str] | None = None) -> list[Group]:
    """Group runs by the examples that they were tested on, in their order, whatever their caches;
    within a group, runs that differ only in their seed form a row. Evaluations on other data sets
    form separate groups. `named` systems, by `same_but_seed`, have these names, and are compared
    with the others even if they belong to a sweep."""
    groups = []
    pairs = zip(runs, _tested_on(runs), strict=True)
    for same_examples in by_key(pairs, lambda pair: pair[1]).values():
        # A head that is fitted directly lacks the settings that describe the group.
        members = sorted(
            (run for run, _ in same_examples), key=lambda run: not run.head.is_iterative
        )
        groups.append(_group([(run, None) for run in members], named or {}))
        # Figures with a different mapping of labels are not comparable.
        transfers = by_key(
            ((run, transfer) for run in members for transfer in run.transfers()),
            lambda pair: (pair[0].record.cache_key, pair[1].cache, pair[1].mapping),
        )
        groups += [_group(of_data, named or {}) for of_data in transfers.values()]
    return _with_titles(groups)


def _tested_on(runs: Sequence[Run]) -> list[Hashable]:
    """A key for each run that is equal for those tested on the same texts and labels, in the same
    order: they are parts of equal data sets, or, as far as the runs' caches are there, equal parts
    of different ones."""
    data: dict[Hashable, dict[str, Run]] = {}
    kinds = []
    for run in runs:
        record = run.record
        kind = (record.split, record.examples[record.split], record.task.name, record.label_names)
        kinds.append(kind)
        data.setdefault(kind, {}).setdefault(record.spec.dataset_hash, run)
    digests = {
        run.record.spec.dataset_hash: _test_digest(run) or name
        for of_kind in data.values()
        if len(of_kind) > 1
        for name, run in of_kind.items()
    }
    hashes = [run.record.spec.dataset_hash for run in runs]
    return [(*kind, digests.get(name, name)) for kind, name in zip(kinds, hashes, strict=True)]


def _test_digest(run: Run) -> str | None:
    """The hash of the texts and labels that a run was tested on; None if its cache is not there."""
    try:
        with Cache(find_cache(run, run.folder.parent.parent)) as cache:
            return split_digest(cache, run.record.split)
    except (SpaceliteError, KeyError):
        return None


def origins(records: Sequence[RunRecord]) -> list[list[str]]:
    """What each of R systems was trained on, in words, as far as they differ in it: `layer 3`."""
    ids_alone = [record.head.reads_only_ids for record in records]
    same_ids = len({record.spec.tokenizer_hash for record in records}) == 1
    values = []
    for record, only_ids in zip(records, ids_alone, strict=True):
        spec = record.spec
        hidden = {"layer": spec.layer, "dtype": spec.dtype, "precision": spec.precision}
        hidden["dimensions"] = spec.reduce or "all"
        values.append({
            "data": spec.dataset,
            "train examples": record.examples["train"],
            **({} if only_ids and same_ids else {"backbone": spec.backbone}),
            **({} if only_ids else hidden),
            "max length": spec.max_length,
            "padding": spec.padding,
        })  # fmt: skip
    names = settings.varying(values)
    words = [[f"{name} {shown(of[name])}" for name in names if name in of] for of in values]
    caches: dict[tuple[str, ...], set[str]] = {}
    for of_record, record, only_ids in zip(words, records, ids_alone, strict=True):
        if not only_ids:
            caches.setdefault(tuple(of_record), set()).add(record.cache)
    return [
        [*of_record, f"cache {record.cache}"]
        if len(caches.get(tuple(of_record), ())) > 1
        else of_record
        for of_record, record in zip(words, records, strict=True)
    ]


def _group(members: Sequence[OnData], named: Mapping[tuple[Any, ...], str]) -> Group:
    """The group of these runs; `named` as in `grouped`."""
    record, transfer = members[0][0].record, members[0][1]
    of_members = [run.record for run, _ in members]
    specs = [of.spec for of in of_members]
    if transfer is None:
        title = data = _listed(spec.dataset for spec in specs)
        cache = _listed(of.cache for of in of_members)
        split, examples = record.split, record.examples
        counts = {name: {of.examples.get(name, 0) for of in of_members} for name in examples}
        sizes = ", ".join(
            f"{' to '.join(f'{n:,}' for n in sorted({min(of), max(of)}))} {name}"
            for name, of in counts.items()
        )
        about = f"{split} figures, ± over seeds; examples: {sizes}"
    else:
        cache, split, data = transfer.cache, transfer.split, transfer.dataset
        examples = {"train": record.examples["train"], split: transfer.examples[split]}
        title = f"{record.spec.dataset} → {data}"
        what = (
            "not a transfer, but the runs' own data"
            if transfer.is_own(record)
            else ("zero-shot transfer")
        )
        about = (
            f"{what} ({transfer.mapping}); {examples['train']:,} training examples, "
            f"{examples[split]:,} {split} examples of {data}"
        )
    alike: dict[tuple[Any, ...], list[OnData]] = {}
    for member in members:
        of_system = alike.setdefault(member[0].record.same_but_seed(), [])
        # Heads that read token ids alone are the same on other hidden states.
        if all(run.record.seed != member[0].record.seed for run, _ in of_system):
            of_system.append(member)
    # By kind of head, in the order of KINDS, then settings, with those of one sweep together. Not
    # by creation: runs of one pass are created in the same second. Baselines come last.
    systems = []
    for pairs in sorted(alike.values(), key=lambda pairs: _order(pairs[0][0])):
        pairs.sort(key=lambda pair: pair[0].record.seed or 0)
        transfers = [on_other for _, on_other in pairs if on_other is not None]
        runs = [run for run, _ in pairs]
        key, sweep = runs[0].record.same_but_seed(), sweep_key(runs[0].record)
        systems.append(SeedRuns(runs, transfers or None, key if key in named else sweep))
    together = by_key(systems, lambda system: sweep_key(system.record))
    systems = [system for sweep in together.values() for system in sweep]
    records = [system.record for system in systems]
    swept = swept_settings(systems)
    rows = with_best(_rows(systems, named, swept, data))
    spec, epochs, shared = record.spec, record.epochs, shared_settings(of_members)
    titles = {
        "backbone": spec.backbone,
        "layer": "" if spec.layer == -1 else f"layer {spec.layer}",
        "max_length": "" if spec.max_length == 256 else f"at most {spec.max_length} tokens",
        "padding": "" if spec.padding == "none" else "padded positions counted",
    }
    parts = [title]
    for name, words in titles.items():
        parts += [words] if words and len({getattr(of, name) for of in specs}) == 1 else []
    if epochs is not None and "epochs" in shared:
        parts.append(_epochs(epochs))
    averaged = averaging(record.average, record.label_names)
    section = Section(
        title=", ".join(parts),
        subtitle=(
            f"{about}; {f'{averaged}; ' if averaged else ''}"
            f"{training_words(of_members)}{'caches' if ', ' in cache else 'cache'} {cache}"
        ),
        data=data,
        backbone=_listed(of.backbone for of in specs),
        cache=cache,
        split=split,
        examples=examples,
        settings=shared,
        average=record.average,
        rows=rows,
        notes=[
            *_trained_with(records, shared),
            *choice_notes([*zip(rows, systems, strict=True)], swept, split),
            *_cross_validated(records),
        ],
        swept=swept,
    )
    return Group(section, systems)


def _order(run: Run) -> tuple[Any, ...]:
    """Sort key: the kind of head in the order of KINDS, then its settings."""
    values = run.head.settings()
    numbers = (values.get(name) or 0 for name in ("latent", "inter", "intra"))
    rest = (
        (0 if value is None or isinstance(value, str) else value, str(value))
        for value in effective(run.record).values()
    )
    spec = run.record.spec
    cache = (spec.backbone, spec.layer, spec.dtype, run.record.examples["train"], run.record.cache)
    return (list(heads.KINDS).index(run.head.kind), *numbers, run.record.system, *rest, *cache)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' if count != 1 else ''}"


def _trained_with(records: Sequence[RunRecord], known: Collection[str]) -> list[str]:
    """A note on how systems were trained that were not all trained alike; the table or its subtitle
    show the `known` settings."""
    ways: dict[str, list[str]] = {}
    titles = [record.system for record in records]
    named = settings.told_apart(titles, list(map(effective, records)))  # as names do
    for record, in_name in zip(records, named, strict=True):
        without = {*known, *in_name, "latent"}  # names have L
        words = [*settings.words(record.training, without), *settings.words(record.head, without)]
        if record.epochs is not None and "epochs" not in without:
            words.insert(0, _epochs(record.epochs))
        if words:
            ways.setdefault(", ".join(words), []).append(record.system)
    if not ways:
        return []
    clauses = [f"{', '.join(dict.fromkeys(titles))}: {words}" for words, titles in ways.items()]
    return [f"Trained with: {'; '.join(clauses)}."]


def _cross_validated(records: Sequence[RunRecord]) -> list[str]:
    """A note on the settings that cross-validation chose."""
    chosen: dict[str, dict[float, list[str]]] = {}
    for record, origin in zip(records, origins(records), strict=True):
        title = ", ".join([record.system, *origin])
        for name, value in record.cross_validated.items():
            chosen.setdefault(name, {}).setdefault(value, []).append(title)
    return [
        f"Cross-validation on train chose {name}: {c:g} for {'; '.join(dict.fromkeys(titles))}."
        for name, values in chosen.items()
        for c, titles in values.items()
    ]


def _with_titles(groups: Sequence[Group]) -> list[Group]:
    """Add to equal titles what their caches differ in."""
    titles = {}
    for alike in by_key(groups, lambda group: group.section.title).values():
        about = [_about(group) for group in alike]
        kept: list[int] = []  # what tells all of them apart, or as many as possible
        for at in range(len(about[0])):
            without, with_it = (
                len({tuple(words[index] for index in indexes) for words in about})
                for indexes in (kept, [*kept, at])
            )
            kept += [at] if with_it > without else []
        for group, words in zip(alike, about, strict=True):
            parts = [group.section.title, *(words[index] for index in kept)]
            titles[id(group)] = ", ".join(parts)
    return [
        replace(group, section=replace(group.section, title=titles[id(group)])) for group in groups
    ]


def _about(group: Group) -> list[str]:
    """What headings say of groups that have the same title otherwise."""
    spec = group.systems[0].record.spec
    return [
        *(f"{count:,} {name} examples" for name, count in group.section.examples.items()),
        spec.dtype,
        f"{spec.reduce or 'all'} dimensions",
        f"{spec.precision} precision",
        f"backbone {spec.backbone_version.partition(':')[2][:10]}",
        f"cache {group.section.cache}",
    ]
