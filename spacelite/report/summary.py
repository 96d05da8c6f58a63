"""Runs -> sections of rows: seeds pooled, published figures beside the measured ones."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spacelite import metrics, paper
from spacelite.runs import Run

SHARED = ("epochs", "batch_size", "learning_rate", "weight_decay", "data_seed")


@dataclass(frozen=True)
class Figure:
    """A mean over seeds, and their standard deviation (None with one seed)."""

    mean: float
    spread: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table: a measured system, or a published one under it.

    `figures`: the names of `metrics.METRICS`; None where a published table has no such figure.
    """

    system: str
    train_params: int | None
    figures: dict[str, Figure | None]
    inter: float | None
    intra: float | None
    seeds: int | None
    published: bool
    backbone: str
    epochs: int
    data: str
    train_examples: int


@dataclass(frozen=True)
class Section:
    """The runs of one cache under the same training settings.

    `settings`: those settings; `split`: the split the figures are of; `notes`: what to know when
    holding the published figures against the measured ones.
    """

    data: str
    backbone: str
    cache: str
    split: str
    examples: dict[str, int]
    settings: dict[str, Any]
    average: str
    rows: list[Row]
    notes: list[str]

    @property
    def title(self) -> str:
        """`hatexplain, minilm, 15 epochs`."""
        epochs = self.settings["epochs"]
        return f"{self.data}, {self.backbone}, {epochs} epoch{'s' if epochs != 1 else ''}"

    @property
    def subtitle(self) -> str:
        """The rest of the setting, in one line."""
        sizes = ", ".join(f"{count:,} {split}" for split, count in self.examples.items())
        rest = self.settings
        return (
            f"{self.split} figures; examples: {sizes}; batch {rest['batch_size']}, learning rate "
            f"{rest['learning_rate']:g}, weight decay {rest['weight_decay']:g}; cache {self.cache}"
        )


def summarize(runs: Sequence[Run]) -> list[Section]:
    """Runs grouped into sections and, within them, seeds into rows; in the order of the runs."""
    grouped: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        key = (run.record["cache_key"], *(run.settings[name] for name in SHARED))
        grouped.setdefault(key, []).append(run)
    return [_section(members) for members in grouped.values()]


def _section(runs: list[Run]) -> Section:
    first = runs[0].record
    data, backbone = first["spec"]["dataset"], first["spec"]["backbone"]
    systems: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        settings = run.settings
        systems.setdefault((run.record["system"], settings["inter"], settings["intra"]), []).append(
            run
        )
    rows, notes = [], []
    # Baselines last; runs of one pass are created within the same second, in no order.
    for _, members in sorted(systems.items(), key=lambda item: _order(item[1][0])):
        rows.append(_measured(members))
        head = members[0].record["head"]
        for row in paper.matching(head, members[0].settings, data, backbone):
            rows.append(_published(row))
            if not paper.same_backbone(row.backbone, backbone):
                notes.append(f"Published rows are of another backbone than {backbone}.")
            if first["examples"]["train"] != row.train_examples:
                notes.append(
                    f"Published rows were trained on {row.train_examples:,} examples, these on "
                    f"{first['examples']['train']:,}."
                )
    return Section(
        data=data,
        backbone=backbone,
        cache=first["cache"],
        split=runs[0].split,
        examples=first["examples"],
        settings={name: first["settings"][name] for name in SHARED},
        average=first["average"],
        rows=rows,
        notes=list(dict.fromkeys(notes)),
    )


def _order(run: Run) -> tuple[Any, ...]:
    settings = run.settings
    weights = (settings["inter"] or 0, settings["intra"] or 0)
    return (run.record["head"] != "space", settings["latent"] or 0, *weights, run.record["system"])


def _measured(runs: list[Run]) -> Row:
    record, settings = runs[0].record, runs[0].settings
    figures: dict[str, Figure | None] = {}
    for name in metrics.METRICS:
        values = [run.record["metrics"][run.split][name] for run in runs]
        spread = statistics.stdev(values) if len(values) > 1 else None
        figures[name] = Figure(statistics.fmean(values), spread)
    return Row(
        system=record["system"],
        train_params=record["train_params"],
        figures=figures,
        inter=settings["inter"],
        intra=settings["intra"],
        seeds=len(runs),
        published=False,
        backbone=record["spec"]["backbone"],
        epochs=settings["epochs"],
        data=record["spec"]["dataset"],
        train_examples=record["examples"]["train"],
    )


def _published(row: paper.PublishedRow) -> Row:
    params = row.figures["train_params"]
    values = {name: row.figures.get(name) for name in metrics.METRICS}
    return Row(
        system=f"published, {row.backbone}",
        train_params=None if params is None else int(params),
        figures={name: None if v is None else Figure(v) for name, v in values.items()},
        inter=row.inter,
        intra=row.intra,
        seeds=None,
        published=True,
        backbone=row.backbone,
        epochs=row.epochs,
        data=row.test_on,
        train_examples=row.train_examples,
    )
