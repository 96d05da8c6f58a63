"""Runs -> groups: the systems that were trained on one cache, evaluated on one split."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from spacelite import heads, settings
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.scores import METRICS, Scores
from spacelite.reports.analysis.rows import (
    Row,
    Section,
    averaging,
    measured,
    shared_settings,
    training_words,
    with_best,
)
from spacelite.reports.analysis.sweeps import (
    decided,
    effective,
    notes,
    searched,
    sweep_key,
    swept_settings,
    system_name,
    with_choice,
    with_varied,
)
from spacelite.runs import Run, RunRecord, TransferRecord

Alone = Collection[tuple[Any, ...]]  # `same_but_seed` of systems that belong to no sweep


@dataclass(frozen=True)
class System:
    """Runs that differ only in their seed.

    Attributes:
        runs: The runs, lowest seed first.
        transfers: The evaluation of each run on another data set, if the group is about those,
            else None.
    """

    runs: list[Run]
    transfers: list[TransferRecord] | None

    @property
    def fixed(self) -> bool:
        """Whether it is fitted at once (logreg): no seed and no epochs."""
        return not self.runs[0].head.is_iterative

    @property
    def is_baseline(self) -> bool:
        """Whether other heads are compared with it, as the simple thing to beat."""
        return self.runs[0].head.is_baseline

    def scores(self) -> list[Scores]:
        """Each run's metrics on the group's split. Those that an older run lacks are computed from
        its predictions, where these are enough."""
        if self.transfers is None:
            saved = [run.record.metrics[run.record.split] for run in self.runs]
        else:
            saved = [transfer.metrics[transfer.split] for transfer in self.transfers]
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
        if self.transfers is None:
            return [run.predictions() for run in self.runs]
        pairs = zip(self.runs, self.transfers, strict=True)
        return [run.predictions(transfer) for run, transfer in pairs]


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
    """A section of measured rows, and the system of each row."""

    section: Section
    systems: list[System]

    @property
    def named(self) -> list[tuple[Row, System]]:
        """Each row with its system."""
        return list(zip(self.section.rows, self.systems, strict=True))


def grouped(runs: Sequence[Run], named: Sequence[RunRecord] = ()) -> list[Group]:
    """Group runs by cache; within a group, runs that differ only in their seed form a row.
    Evaluations on other data sets form separate groups.

    Args:
        runs: Runs, in the order that their groups should have.
        named: Runs whose systems are compared with the others even if they belong to a sweep.
    """
    together: dict[str, list[Run]] = {}
    for run in runs:
        together.setdefault(run.record.cache_key, []).append(run)
    alone = {record.same_but_seed() for record in named}
    groups = []
    for members in together.values():
        # A head that is fitted at once lacks the settings that describe the group.
        members.sort(key=lambda run: not run.head.is_iterative)
        groups += [_own_group(members, alone), *_transfer_groups(members, alone)]
    return _with_titles(groups)


def _own_group(runs: list[Run], alone: Alone) -> Group:
    record = runs[0].record
    sizes = ", ".join(f"{count:,} {name}" for name, count in record.examples.items())
    data = record.spec.dataset
    return _group(
        [(run, None) for run in runs],
        alone,
        title=data,
        about=f"{record.split} figures, ± over seeds; examples: {sizes}",
        data=data,
        cache=record.cache,
        split=record.split,
        examples=record.examples,
    )


def _transfer_groups(runs: list[Run], alone: Alone) -> list[Group]:
    by_cache: dict[tuple[str, ...], list[tuple[Run, TransferRecord]]] = {}
    for run in runs:
        for transfer in run.transfers():
            # Figures with a different mapping of labels are not comparable.
            named = (f"{there} as {here}" for there, here in transfer.labels.items())
            by_cache.setdefault((transfer.cache, *named), []).append((run, transfer))
    groups = []
    for (cache, *labels), members in by_cache.items():
        first = members[0][1]
        split = first.split
        examples = {"train": runs[0].record.examples["train"], split: first.examples[split]}
        about = (
            f"zero-shot transfer ({', '.join(labels)}); {examples['train']:,} training examples, "
            f"{examples[split]:,} {split} examples of {first.dataset}"
        )
        groups.append(
            _group(
                members,
                alone,
                title=f"{runs[0].record.spec.dataset} → {first.dataset}",
                about=about,
                data=first.dataset,
                cache=cache,
                split=split,
                examples=examples,
            )
        )
    return groups


def _group(
    members: Sequence[tuple[Run, TransferRecord | None]],
    alone: Alone,
    *,
    title: str,
    about: str,
    data: str,
    cache: str,
    split: str,
    examples: dict[str, int],
) -> Group:
    record = members[0][0].record
    alike: dict[tuple[Any, ...], list[tuple[Run, TransferRecord | None]]] = {}
    for run, transfer in members:
        alike.setdefault(run.record.same_but_seed(), []).append((run, transfer))
    ordered = _in_sweeps(list(alike.values()))
    systems = []
    for own in ordered:
        own.sort(key=lambda one: one[0].record.seed)
        transfers = [transfer for _, transfer in own if transfer is not None]
        systems.append(System([run for run, _ in own], transfers or None))
    records = [run.record for run, _ in members]
    firsts = [one.runs[0].record for one in systems]
    sweeps = [
        own.same_but_seed() if own.same_but_seed() in alone else sweep_key(own) for own in firsts
    ]
    swept = swept_settings(firsts, sweeps)
    rows = with_varied([_row(one, data, swept) for one in systems], firsts)
    rows = with_best(with_choice(rows, sweeps))
    own_data = members[0][1] is None
    of_rows = [[run.record for run in one.runs] for one in systems]
    spec, epochs = record.spec, record.epochs
    parts = [title, spec.backbone]
    if spec.layer != -1:
        parts.append(f"layer {spec.layer}")
    if spec.max_length != 256:
        parts.append(f"at most {spec.max_length} tokens")
    if spec.padding != "none":
        parts.append("padded positions counted")
    shared = shared_settings(records)
    if epochs is not None and "epochs" in shared and "epochs" not in swept:
        parts.append(f"{epochs} epoch{'s' if epochs != 1 else ''}")
    section = Section(
        title=", ".join(parts),
        subtitle=(
            f"{about}; {averaging(record.average, record.label_names)}; "
            f"{training_words(records, swept)}cache {cache}"
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
            *_trained_with(rows, firsts, {*shared, *swept}),
            *notes(rows, sweeps, split),
            *searched(rows, of_rows, split if own_data else ""),
            *decided(rows, of_rows, split if own_data else ""),
            *_cross_validated(rows, systems),
        ],
        swept=swept,
    )
    return Group(section, systems)


def _trained_with(
    rows: Sequence[Row], records: Sequence[RunRecord], known: Collection[str]
) -> list[str]:
    """A note on how systems were trained that were not all trained alike.

    Args:
        rows: R rows.
        records: A record of each, (R,).
        known: Settings that the table or its subtitle show.
    """
    ways: dict[str, list[str]] = {}
    for row, record in zip(rows, records, strict=True):
        without = {*known, *row.varied, "latent"}  # names have L
        words = [
            *settings.words(record.training, without),
            *settings.words(record.head, without),
        ]
        if record.epochs is not None and "epochs" not in without:
            words.insert(0, f"{record.epochs} epoch{'s' if record.epochs != 1 else ''}")
        if words:
            ways.setdefault(", ".join(words), []).append(row.title)
    if not ways:
        return []
    said = [f"{', '.join(dict.fromkeys(own))}: {words}" for words, own in ways.items()]
    return [f"Trained with: {'; '.join(said)}."]


def _cross_validated(rows: Sequence[Row], systems: Sequence[System]) -> list[str]:
    """A note on the settings that cross-validation chose."""
    chosen: dict[str, dict[float, list[str]]] = {}
    for row, system in zip(rows, systems, strict=True):
        for name, value in system.runs[0].record.cross_validated.items():
            chosen.setdefault(name, {}).setdefault(value, []).append(row.title)
    return [
        f"Cross-validation on train chose {name}: "
        + "; ".join(f"{c:g} for {', '.join(dict.fromkeys(own))}" for c, own in values.items())
        + "."
        for name, values in chosen.items()
    ]


def _row(system: System, data: str, swept: Collection[str]) -> Row:
    row = measured(system.runs, system.scores(), data)
    return replace(row, system=system_name(system.runs[0].head, swept))


def _in_sweeps(systems: list[list[tuple[Run, TransferRecord | None]]]) -> list[Any]:
    """Systems in the order of a table: by kind of head, in the order of KINDS, then settings, with
    those of one sweep together.

    Not by creation: runs of one pass are created in the same second. Baselines come last.
    """
    sweeps: dict[Any, list[Any]] = {}
    for own in sorted(systems, key=lambda own: _order(own[0][0])):
        sweeps.setdefault(sweep_key(own[0][0].record), []).append(own)
    return [own for sweep in sweeps.values() for own in sweep]


def _order(run: Run) -> tuple[Any, ...]:
    """Sort key: the kind of head in the order of KINDS, then its settings."""
    own = run.head.settings()
    numbers = (own.get(name) or 0 for name in ("latent", "inter", "intra"))
    rest = (
        (0 if value is None or isinstance(value, str) else value, str(value))
        for value in effective(run.record).values()
    )
    return (list(heads.KINDS).index(run.head.kind), *numbers, run.record.system, *rest)


def _with_titles(groups: Sequence[Group]) -> list[Group]:
    """Add to equal titles what their caches differ in."""
    alike: dict[str, list[int]] = {}
    for number, group in enumerate(groups):
        alike.setdefault(group.section.title, []).append(number)
    titled = list(groups)
    for title, numbers in alike.items():
        about = [_about(groups[number]) for number in numbers]
        kept: list[int] = []  # what tells all of them apart, or as many as possible
        for at in range(len(about[0])):
            so_far = {tuple(own[index] for index in kept) for own in about}
            with_it = {tuple(own[index] for index in (*kept, at)) for own in about}
            kept += [at] if len(with_it) > len(so_far) else []
        for number, own in zip(numbers, about, strict=True):
            heading = ", ".join([title, *(own[index] for index in kept)])
            titled[number] = replace(
                groups[number], section=replace(groups[number].section, title=heading)
            )
    return titled


def _about(group: Group) -> list[str]:
    """What headings say of groups that have the same title otherwise."""
    section, record = group.section, group.systems[0].runs[0].record
    return [
        *(f"{count:,} {name} examples" for name, count in section.examples.items()),
        record.spec.dtype,
        f"{record.spec.precision} precision",
        f"backbone {record.spec.backbone_version[:10]}",
        f"cache {section.cache}",
    ]
