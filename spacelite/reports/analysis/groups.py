"""Runs -> groups: systems trained with the same settings on one cache, evaluated on one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from spacelite import heads
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.scores import Scores
from spacelite.reports.analysis.rows import (
    Row,
    Section,
    averaging,
    measured,
    section_settings,
    shared_settings,
    told_apart,
    training_words,
    with_best,
)
from spacelite.runs import Run, TransferRecord

FITTED = "logreg has no epochs and no seed: the same fit appears in every table of its cache."


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
        return not heads.in_epochs(self.runs[0].head)

    def scores(self) -> list[Scores]:
        """Each run's metrics on the group's split."""
        if self.transfers is None:
            return [run.record.metrics[run.record.split] for run in self.runs]
        return [transfer.metrics[transfer.split] for transfer in self.transfers]

    @cached_property
    def predictions(self) -> list[Predictions | None]:
        """Each run's predictions on that split; None if they are not saved."""
        if self.transfers is None:
            return [run.predictions() for run in self.runs]
        pairs = zip(self.runs, self.transfers, strict=True)
        return [run.predictions(transfer) for run, transfer in pairs]


@dataclass(frozen=True)
class Group:
    """A section of measured rows, and the system of each row."""

    section: Section
    systems: list[System]

    @property
    def named(self) -> list[tuple[Row, System]]:
        """Each row with its system."""
        return list(zip(self.section.rows, self.systems, strict=True))


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Group runs by cache and shared settings; within a group, runs that differ only in their seed
    form a row.

    A head that is fitted at once (logreg) belongs to every group of its cache whose settings
    include its own. Evaluations on other data sets form separate groups.

    Args:
        runs: Runs, in the order that their groups should have.
    """
    together: dict[tuple[Any, ...], list[Run]] = {}
    fitted = [run for run in runs if not heads.in_epochs(run.head)]
    for run in runs:
        if heads.in_epochs(run.head):
            together.setdefault(_key(run), []).append(run)
    for run in fitted:
        own = set(_key(run))
        fitting = [members for key, members in together.items() if own <= set(key)]
        for members in fitting or [together.setdefault(_key(run), [])]:
            members.append(run)
    groups: list[Group] = []
    for members in together.values():
        groups.append(_own_group(members))
        for group in _transfer_groups(members):
            # A transfer of logreg alone is the same in each group that logreg belongs to.
            if all(group.section != other.section for other in groups):
                groups.append(group)
    return groups


def _key(run: Run) -> tuple[tuple[str, Any], ...]:
    shared = shared_settings(run.record)
    return (("cache_key", run.record.cache_key), *sorted(shared.items()))


def _own_group(runs: list[Run]) -> Group:
    record = runs[0].record
    sizes = ", ".join(f"{count:,} {name}" for name, count in record.examples.items())
    data = record.spec.dataset
    return _group(
        [(run, None) for run in runs],
        title=data,
        about=f"{record.split} figures, ± over seeds; examples: {sizes}",
        data=data,
        cache=record.cache,
        split=record.split,
        examples=record.examples,
    )


def _transfer_groups(runs: list[Run]) -> list[Group]:
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
    systems = []
    # Not by creation: runs of one pass are created in the same second. Baselines come last.
    for own in sorted(alike.values(), key=lambda own: _order(own[0][0])):
        own.sort(key=lambda one: one[0].record.seed)
        transfers = [transfer for _, transfer in own if transfer is not None]
        systems.append(System([run for run, _ in own], transfers or None))
    spec, epochs = record.spec, record.epochs
    parts = [title, spec.backbone]
    if spec.layer != -1:
        parts.append(f"layer {spec.layer}")
    if spec.max_length != 256:
        parts.append(f"at most {spec.max_length} tokens")
    if spec.padding != "none":
        parts.append("padded positions counted")
    if epochs is not None:
        parts.append(f"{epochs} epoch{'s' if epochs != 1 else ''}")
    rows = [measured(one.runs, one.scores(), data) for one in systems]
    section = Section(
        title=", ".join(parts),
        subtitle=(
            f"{about}; {averaging(record.average, record.label_names)}; "
            f"{training_words(record)}cache {cache}"
        ),
        data=data,
        backbone=spec.backbone,
        cache=cache,
        split=split,
        examples=examples,
        settings=section_settings(record),
        average=record.average,
        rows=with_best(told_apart(rows, [one.runs[0].record for one in systems])),
        notes=[FITTED] if epochs is not None and any(one.fixed for one in systems) else [],
    )
    return Group(section, systems)


def _order(run: Run) -> tuple[Any, ...]:
    """Sort key: the kind of head in the order of KINDS, then its settings."""
    own = run.head.settings()
    numbers = (own.get(name) or 0 for name in ("latent", "inter", "intra"))
    return (list(heads.KINDS).index(run.head.kind), *numbers, run.record.system)
