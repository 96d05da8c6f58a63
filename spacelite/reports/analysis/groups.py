"""Runs -> groups: the systems that were trained alike on one cache, on one split of test data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from spacelite.metrics.predictions import Outputs
from spacelite.reports.analysis.rows import (
    SHARED,
    Row,
    Section,
    averaging,
    measured,
    training_settings,
    with_best,
)
from spacelite.runs.store import Run, split_of

FITTED = "logreg has no epochs and no seed: the same fit stands in every table of its cache."


@dataclass(frozen=True)
class System:
    """Runs that differ in their seed alone, lowest seed first, and the evaluations (`transfer`) on
    another data set, one a run, where the group is of those."""

    runs: list[Run]
    transfers: list[dict[str, Any]] | None

    @property
    def fixed(self) -> bool:
        """Whether it is fitted (logreg), not trained: no seed and no epochs."""
        return bool(self.runs[0].record["head"] == "logreg")

    def scores(self) -> list[dict[str, float]]:
        """Each run's figures on the group's split."""
        if self.transfers is None:
            return [run.record["metrics"][run.split] for run in self.runs]
        return [made["metrics"][split_of(made["metrics"])] for made in self.transfers]

    @cached_property
    def outputs(self) -> list[Outputs | None]:
        """What each run's head gave for each example of that split, where it is known."""
        if self.transfers is None:
            return [run.outputs() for run in self.runs]
        return [run.outputs(made) for run, made in zip(self.runs, self.transfers, strict=True)]


@dataclass(frozen=True)
class Group:
    """A section of measured rows, and the system of each."""

    section: Section
    systems: list[System]

    @property
    def named(self) -> list[tuple[Row, System]]:
        """Rows and their systems."""
        return list(zip(self.section.rows, self.systems, strict=True))


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Runs grouped by cache and settings of the training and, within, seeds into rows; in the order
    of the runs.

    logreg, which has no epochs, stands in every group of its cache. Evaluations on other data sets
    have groups of their own.
    """
    together: dict[tuple[Any, ...], list[Run]] = {}
    fitted = [run for run in runs if run.record["head"] == "logreg"]
    for run in runs:
        if run.record["head"] != "logreg":
            key = (
                *_fitted_key(run),
                *(run.settings.get(name, usual) for name, usual in SHARED.items()),
            )
            together.setdefault(key, []).append(run)
    for run in fitted:
        key = _fitted_key(run)
        fitting = [members for known, members in together.items() if known[: len(key)] == key]
        for members in fitting or [together.setdefault(key, [])]:
            members.append(run)
    groups: list[Group] = []
    for members in together.values():
        groups.append(_own_group(members))
        for group in _transfer_groups(members):
            # Of logreg alone it is the same in each group that logreg stands in.
            if all(group.section != other.section for other in groups):
                groups.append(group)
    return groups


def _fitted_key(run: Run) -> tuple[Any, ...]:
    return (run.record["cache_key"], run.settings.get("class_weights", "none"))


def _own_group(runs: list[Run]) -> Group:
    record = runs[0].record
    sizes = ", ".join(f"{count:,} {name}" for name, count in record["examples"].items())
    data = record["spec"]["dataset"]
    return _group(
        [(run, None) for run in runs],
        title=data,
        about=f"{runs[0].split} figures, ± over seeds; examples: {sizes}",
        data=data,
        cache=record["cache"],
        split=runs[0].split,
        examples=record["examples"],
    )


def _transfer_groups(runs: list[Run]) -> list[Group]:
    by_cache: dict[tuple[str, ...], list[tuple[Run, dict[str, Any]]]] = {}
    for run in runs:
        for transfer in run.transfers():
            # Figures under another map of the labels are not comparable.
            named = (f"{there} as {here}" for there, here in transfer["labels"].items())
            by_cache.setdefault((transfer["cache"], *named), []).append((run, transfer))
    groups = []
    for (cache, *labels), members in by_cache.items():
        first = members[0][1]
        split = split_of(first["metrics"])
        examples = {"train": runs[0].record["examples"]["train"], split: first["examples"][split]}
        about = (
            f"zero-shot transfer ({', '.join(labels)}); {examples['train']:,} training examples, "
            f"{examples[split]:,} {split} examples of {first['dataset']}"
        )
        groups.append(
            _group(
                members,
                title=f"{runs[0].record['spec']['dataset']} → {first['dataset']}",
                about=about,
                data=first["dataset"],
                cache=cache,
                split=split,
                examples=examples,
            )
        )
    return groups


def _group(
    members: Sequence[tuple[Run, dict[str, Any] | None]],
    *,
    title: str,
    about: str,
    data: str,
    cache: str,
    split: str,
    examples: dict[str, int],
) -> Group:
    record, settings = members[0][0].record, members[0][0].settings
    alike: dict[tuple[Any, ...], list[tuple[Run, dict[str, Any] | None]]] = {}
    for run, transfer in members:
        key = (run.record["system"], run.settings["inter"], run.settings["intra"])
        alike.setdefault(key, []).append((run, transfer))
    systems = []
    # Baselines last; runs of one pass are created within the same second, in no order.
    for own in sorted(alike.values(), key=lambda own: _order(own[0][0])):
        own.sort(key=lambda one: one[0].settings["seed"])
        transfers = [transfer for _, transfer in own if transfer is not None]
        systems.append(System([run for run, _ in own], transfers or None))
    backbone, epochs = record["spec"]["backbone"], settings["epochs"]
    spec = record["spec"]
    parts = [title, backbone]
    if spec.get("layer", -1) != -1:
        parts.append(f"layer {spec['layer']}")
    if spec.get("max_length", 256) != 256:
        parts.append(f"at most {spec['max_length']} tokens")
    if spec.get("padding", "none") != "none":
        parts.append("padded positions counted")
    if epochs is not None:
        parts.append(f"{epochs} epoch{'s' if epochs != 1 else ''}")
    section = Section(
        title=", ".join(parts),
        subtitle=(
            f"{about}; {averaging(record['average'], record['label_names'])}; "
            f"{training_settings(settings)}cache {cache}"
        ),
        data=data,
        backbone=backbone,
        cache=cache,
        split=split,
        examples=examples,
        settings={name: settings.get(name, usual) for name, usual in SHARED.items()},
        average=record["average"],
        rows=with_best([measured(one.runs, one.scores(), data) for one in systems]),
        notes=[FITTED] if epochs is not None and any(one.fixed for one in systems) else [],
    )
    return Group(section, systems)


def _order(run: Run) -> tuple[Any, ...]:
    settings = run.settings
    weights = (settings["inter"] or 0, settings["intra"] or 0)
    kinds = ("space", "linear", "mlp", "logreg")
    kind = run.record["head"]
    return (kinds.index(kind), settings["latent"] or 0, *weights, run.record["system"])
