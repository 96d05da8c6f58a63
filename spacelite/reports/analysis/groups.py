"""Runs -> groups: which runs a report is of, and the systems that were trained on one cache,
evaluated on one split."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from spacelite import heads, settings
from spacelite.errors import SpaceliteError
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.scores import METRICS, Scores
from spacelite.reports.analysis.rows import (
    Row,
    Section,
    averaging,
    choice_notes,
    effective,
    measured,
    shared_settings,
    sweep_key,
    sweep_note,
    swept_settings,
    system_name,
    training_words,
    with_best,
    with_choice,
    with_varied,
)
from spacelite.runs.record import RunRecord, TransferRecord
from spacelite.runs.store import Run, matching
from spacelite.settings import OTHER_NAMES, shown

MOST_NAMES = 8  # that a message lists

OnData = tuple[Run, TransferRecord | None]  # a run on its own data, or on another data set


@dataclass(frozen=True)
class SeedRuns:
    """Runs that differ only in their seed, the lowest first; `transfers` is the evaluation of each
    on another data set, if the group is about those, else None."""

    runs: list[Run]
    transfers: list[TransferRecord] | None

    @property
    def record(self) -> RunRecord:
        """The record of the run with the lowest seed."""
        return self.runs[0].record

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
        wanted = [name for name, metric in METRICS.items() if metric.from_predictions]
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


def _completed(scores: Scores, predictions: Predictions | None, wanted: Sequence[str]) -> Scores:
    """A run's metrics with those of `wanted` that it lacks."""
    lacking = [name for name in wanted if name not in scores]
    if predictions is None or not lacking:
        return scores
    outcome = predictions.task.outcome(
        0.0, 0.0, 0.0, predictions.confusion, predictions.labels, predictions.logits
    )
    return {**scores, **{name: METRICS[name].compute(outcome) for name in lacking}}


@dataclass(frozen=True)
class Group:
    """A section of measured rows, and the runs of each row."""

    section: Section
    systems: list[SeedRuns]

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
    """The runs that fit all conditions: on a cache (or the beginning of its name), on a data set,
    of these kinds of heads, with these settings (one value, or several). A head that lacks a
    setting, such as a baseline without learning rate, is kept.

    Raises SpaceliteError if a condition fits no run, or there is no such setting.
    """
    chosen = list(runs)
    if cache is not None:
        fits = [run for run in chosen if run.record.cache.startswith(cache)]
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
            names = ", ".join(dict.fromkeys(key for run in chosen for key in run.record.settings))
            raise SpaceliteError(
                f"where={given_name}: no run has this setting; choose one of {names}", ["where"]
            )
        is_single = isinstance(condition, str) or not hasattr(condition, "__iter__")
        wanted = [condition] if is_single else list(condition)
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
        choices = " or ".join(dict.fromkeys(known))
        argument = condition.partition("=")[0]
        raise SpaceliteError(f"{condition}: there is no such run; choose {choices}", [argument])
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

    A name is one as in the report's tables, or a run's name, id or part of its id, which stands for
    all seeds of its system. The name of a sweep means the setting that validation chose. Raises
    SpaceliteError if a name fits no system, or no two systems are of the same data.
    """
    everything = [group for group in grouped(runs) if group.systems[0].transfers is None]
    wanted = {
        record.same_but_seed(): record
        for name in dict.fromkeys(names)
        for record in _named(everything, runs, name)
    }
    if len(wanted) < 2:
        raise SpaceliteError(
            f"compare={', '.join(names)}: this is one system; name at least two", ["compare"]
        )
    of = [run for run in runs if run.record.same_but_seed() in wanted]
    groups = [group for group in grouped(of, list(wanted.values())) if len(group.systems) > 1]
    if not groups:
        caches = ", ".join(dict.fromkeys(run.record.cache for run in of))
        raise SpaceliteError(
            f"compare={', '.join(names)}: these systems were trained on different caches "
            f"({caches}); only systems of the same test examples can be compared",
            ["compare"],
        )
    return [_with_searches(group, everything) for group in groups]


def _named(groups: Sequence[Group], runs: Sequence[Run], name: str) -> list[RunRecord]:
    """The systems that a name stands for, one in each group at most."""
    key = name.casefold()
    rows = [(row, system) for group in groups for row, system in group.named]
    exact = [system for row, system in rows if row.name.casefold() == key]
    titled = [system for row, system in rows if row.chosen and row.title.casefold() == key]
    if systems := exact or titled:
        return [system.record for system in systems]
    by_id = {run.id.casefold(): run for run in runs}
    names = {run_id: run.name.casefold() for run_id, run in by_id.items() if run.name}
    ids = matching(list(by_id), names, key)
    if len(ids) == 1:
        return [by_id[ids[0]].record]
    known = list(dict.fromkeys(row.title for row, _ in rows))
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:MOST_NAMES]
    problem = f"fits {len(ids)} runs" if ids else "no system has this name"
    raise SpaceliteError(
        f"compare={name}: {problem}; give a system's name ({'; '.join(near)}) or a run's id",
        ["compare"],
    )


def _with_searches(group: Group, everything: Sequence[Group]) -> Group:
    """Note under a group what else was tried in the sweeps that its systems come from."""
    members = {system.record.same_but_seed() for system in group.systems}
    notes = list(group.section.notes)
    for other in everything:
        keys = [sweep_key(system.record) for system in other.systems]
        for (row, system), key in zip(other.named, keys, strict=True):
            if row.tried > 1 and system.record.same_but_seed() in members:
                sweep = [other.section.rows[n] for n, of_row in enumerate(keys) if of_row == key]
                notes.append(sweep_note(row, sweep))
    return replace(group, section=replace(group.section, notes=notes))


def grouped(runs: Sequence[Run], named: Sequence[RunRecord] = ()) -> list[Group]:
    """Group runs by cache, in their order; within a group, runs that differ only in their seed form
    a row. Evaluations on other data sets form separate groups. The systems of `named` runs are
    compared with the others even if they belong to a sweep."""
    by_cache: dict[str, list[Run]] = {}
    for run in runs:
        by_cache.setdefault(run.record.cache_key, []).append(run)
    alone = {record.same_but_seed() for record in named}
    groups = []
    for members in by_cache.values():
        # A head that is fitted directly lacks the settings that describe the group.
        members.sort(key=lambda run: not run.head.is_iterative)
        evaluations: dict[tuple[str, ...], list[OnData]] = {(): [(run, None) for run in members]}
        for run in members:
            for transfer in run.transfers():
                # Figures with a different mapping of labels are not comparable.
                mapping = (f"{there} as {here}" for there, here in transfer.labels.items())
                evaluations.setdefault((transfer.cache, *mapping), []).append((run, transfer))
        groups += [_group(pairs, alone, key[1:]) for key, pairs in evaluations.items()]
    return _with_titles(groups)


def _group(
    members: Sequence[OnData], alone: Collection[tuple[Any, ...]], mapping: Sequence[str]
) -> Group:
    """The group of these runs, on other data with this `mapping` of labels. Systems whose
    `same_but_seed` is in `alone` belong to no sweep."""
    record, transfer = members[0][0].record, members[0][1]
    if transfer is None:
        title = data = record.spec.dataset
        cache, split, examples = record.cache, record.split, record.examples
        sizes = ", ".join(f"{count:,} {name}" for name, count in examples.items())
        about = f"{split} figures, ± over seeds; examples: {sizes}"
    else:
        cache, split, data = transfer.cache, transfer.split, transfer.dataset
        examples = {"train": record.examples["train"], split: transfer.examples[split]}
        title = f"{record.spec.dataset} → {data}"
        about = (
            f"zero-shot transfer ({', '.join(mapping)}); {examples['train']:,} training examples, "
            f"{examples[split]:,} {split} examples of {data}"
        )
    alike: dict[tuple[Any, ...], list[OnData]] = {}
    for member in members:
        alike.setdefault(member[0].record.same_but_seed(), []).append(member)
    # By kind of head, in the order of KINDS, then settings, with those of one sweep together. Not
    # by creation: runs of one pass are created in the same second. Baselines come last.
    together: dict[Any, list[list[OnData]]] = {}
    for of_system in sorted(alike.values(), key=lambda pairs: _order(pairs[0][0])):
        together.setdefault(sweep_key(of_system[0][0].record), []).append(of_system)
    systems = []
    for pairs in (pairs for sweep in together.values() for pairs in sweep):
        pairs.sort(key=lambda pair: pair[0].record.seed)
        transfers = [on_other for _, on_other in pairs if on_other is not None]
        systems.append(SeedRuns([run for run, _ in pairs], transfers or None))
    records = [system.record for system in systems]
    sweeps = [
        first.same_but_seed() if first.same_but_seed() in alone else sweep_key(first)
        for first in records
    ]
    swept = swept_settings(records, sweeps)
    rows = [
        replace(
            measured(system.runs, system.scores(), data),
            system=system_name(system.record.head, swept),
        )
        for system in systems
    ]
    rows = with_best(with_choice(with_varied(rows, records), sweeps))
    spec, epochs = record.spec, record.epochs
    parts = [title, spec.backbone]
    if spec.layer != -1:
        parts.append(f"layer {spec.layer}")
    if spec.max_length != 256:
        parts.append(f"at most {spec.max_length} tokens")
    if spec.padding != "none":
        parts.append("padded positions counted")
    of_members = [run.record for run, _ in members]
    shared = shared_settings(of_members)
    if epochs is not None and "epochs" in shared and "epochs" not in swept:
        parts.append(_epochs(epochs))
    of_rows = [[run.record for run in system.runs] for system in systems]
    section = Section(
        title=", ".join(parts),
        subtitle=(
            f"{about}; {averaging(record.average, record.label_names)}; "
            f"{training_words(of_members, swept)}cache {cache}"
        ),
        data=data,
        backbone=spec.backbone,
        cache=cache,
        split=split,
        examples=examples,
        settings=shared,
        average=record.average,
        rows=rows,
        notes=[
            *_trained_with(rows, records, {*shared, *swept}),
            *choice_notes(rows, of_rows, sweeps, split, transfer is None),
            *_cross_validated(rows, records),
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
    return (list(heads.KINDS).index(run.head.kind), *numbers, run.record.system, *rest)


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' if count != 1 else ''}"


def _trained_with(
    rows: Sequence[Row], records: Sequence[RunRecord], known: Collection[str]
) -> list[str]:
    """A note on how systems were trained that were not all trained alike; the table or its subtitle
    show the `known` settings."""
    ways: dict[str, list[str]] = {}
    for row, record in zip(rows, records, strict=True):
        without = {*known, *row.varied, "latent"}  # names have L
        words = [*settings.words(record.training, without), *settings.words(record.head, without)]
        if record.epochs is not None and "epochs" not in without:
            words.insert(0, _epochs(record.epochs))
        if words:
            ways.setdefault(", ".join(words), []).append(row.title)
    if not ways:
        return []
    clauses = [f"{', '.join(dict.fromkeys(titles))}: {words}" for words, titles in ways.items()]
    return [f"Trained with: {'; '.join(clauses)}."]


def _cross_validated(rows: Sequence[Row], records: Sequence[RunRecord]) -> list[str]:
    """A note on the settings that cross-validation chose."""
    chosen: dict[str, dict[float, list[str]]] = {}
    for row, record in zip(rows, records, strict=True):
        for name, value in record.cross_validated.items():
            chosen.setdefault(name, {}).setdefault(value, []).append(row.title)
    return [
        f"Cross-validation on train chose {name}: "
        + "; ".join(f"{c:g} for {', '.join(dict.fromkeys(titles))}" for c, titles in values.items())
        + "."
        for name, values in chosen.items()
    ]


def _with_titles(groups: Sequence[Group]) -> list[Group]:
    """Add to equal titles what their caches differ in."""
    alike: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        alike.setdefault(group.section.title, []).append(number)
    titled = list(groups)
    for title, numbers in alike.items():
        about = {number: _about(groups[number]) for number in numbers}
        kept: list[int] = []  # what tells all of them apart, or as many as possible
        for at in range(len(about[numbers[0]])):
            so_far = {tuple(words[index] for index in kept) for words in about.values()}
            with_it = {tuple(words[index] for index in (*kept, at)) for words in about.values()}
            kept += [at] if len(with_it) > len(so_far) else []
        for number, words in about.items():
            section = groups[number].section
            heading = ", ".join([title, *(words[index] for index in kept)])
            titled[number] = replace(groups[number], section=replace(section, title=heading))
    return titled


def _about(group: Group) -> list[str]:
    """What headings say of groups that have the same title otherwise."""
    spec = group.systems[0].record.spec
    return [
        *(f"{count:,} {name} examples" for name, count in group.section.examples.items()),
        spec.dtype,
        f"{spec.precision} precision",
        f"backbone {spec.backbone_version[:10]}",
        f"cache {group.section.cache}",
    ]
