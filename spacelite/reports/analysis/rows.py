"""The tables of a report: rows of figures, and sections of rows."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from spacelite import paper, settings
from spacelite.metrics.scores import METRICS, Scores
from spacelite.runs import Run, RunRecord, figure
from spacelite.training import TrainingConfig


@dataclass(frozen=True)
class MeanStd:
    """A mean and standard deviation over seeds (None for a single seed)."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        system: The head's name, with the settings that distinguish it from others in its table.
        kind: `measured` for a measured system, `published` for a published one, or `difference`
            for the two lines above, measured minus published.
        train_params: Number of trained parameters.
        figures: Metric (of METRICS) -> figure; None if there is no such figure.
        inter: Weight of L_inter.
        intra: Weight of L_intra.
        seeds: Number of runs that the figures are means of.
        backbone: Name of the backbone.
        epochs: Number of training epochs.
        data: Data set that the figures were measured on.
        train_examples: Number of training examples.
        runs: Ids of the runs, one per seed.
        best: Metrics in which no other row of the same kind is better.
    """

    system: str
    kind: str
    train_params: int | None
    figures: dict[str, MeanStd | None]
    inter: float | None
    intra: float | None
    seeds: int | None
    backbone: str
    epochs: int | None
    data: str
    train_examples: int
    runs: list[str]
    best: list[str]

    @property
    def name(self) -> str:
        """The system's name with the weights of its losses."""
        weights = {"inter": self.inter, "intra": self.intra}
        return " + ".join([self.system, *(f"{key} {w:g}" for key, w in weights.items() if w)])


@dataclass(frozen=True)
class Section:
    """A table of systems on one split of one data set.

    Attributes:
        title: Heading of the table.
        subtitle: What all rows have in common.
        data: Name of the data set.
        backbone: Name of the backbone.
        cache: Name of the cache.
        split: Split that the figures were measured on.
        examples: Number of examples, by split.
        settings: Settings that the runs share.
        average: How precision and recall are averaged: `binary` or `weighted`.
        rows: Rows of the table.
        notes: Footnotes, such as how published and measured rows differ.
    """

    title: str
    subtitle: str
    data: str
    backbone: str
    cache: str
    split: str
    examples: dict[str, int]
    settings: dict[str, Any]
    average: str
    rows: list[Row]
    notes: list[str]


def mean_std(values: Sequence[float]) -> MeanStd:
    """Mean and standard deviation over seeds."""
    return MeanStd(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def shared_settings(record: RunRecord) -> dict[str, Any]:
    """The settings that the systems of a table share: all training settings, and the head settings
    that tables mention in words rather than in columns or names."""
    names = [each.name for each in fields(record.head) if each.metadata["words"] is not None]
    return {**{name: getattr(record.head, name) for name in names}, **record.training.settings()}


def section_settings(record: RunRecord | None) -> dict[str, Any]:
    """The shared settings of a section; None for those that a run does not have."""
    usual = dict.fromkeys((*TrainingConfig.ALWAYS_HASHED, "learning_rate", "weight_decay"))
    return {**usual, **(shared_settings(record) if record is not None else {})}


def measured(runs: Sequence[Run], scores: Sequence[Scores], data: str) -> Row:
    """A row for runs that differ only in their seed, with their `scores` on data set `data`."""
    record = runs[0].record
    own = record.head.settings()
    return Row(
        system=record.system,
        kind="measured",
        train_params=record.train_params,
        figures={name: _over_seeds(scores, name) for name in METRICS},
        inter=own.get("inter"),
        intra=own.get("intra"),
        seeds=len(runs),
        backbone=record.spec.backbone,
        epochs=record.epochs,
        data=data,
        train_examples=record.examples["train"],
        runs=[run.id for run in runs],
        best=[],
    )


def _over_seeds(scores: Sequence[Scores], metric: str) -> MeanStd | None:
    """A metric over seeds; None if a run does not have it."""
    values = [value for one in scores if (value := figure(one, metric)) is not None]
    return mean_std(values) if len(values) == len(scores) else None


def published(row: paper.PublishedRow) -> Row:
    """The row for a row of a published table."""
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
        best=[],
    )


def difference(measured: Row, published: Row) -> Row:
    """The figures of a measured row minus those of a published one."""
    figures: dict[str, MeanStd | None] = {}
    for name, there in published.figures.items():
        here = measured.figures[name]
        both = here is not None and there is not None
        figures[name] = MeanStd(here.mean - there.mean) if both else None  # type: ignore[union-attr]
    return replace(
        published, system="difference", kind="difference", train_params=None, figures=figures
    )


def with_best(rows: Sequence[Row]) -> list[Row]:
    """Mark the best figures of the measured and of the published rows, compared at the four
    decimals that are printed; a single row of a kind has no best figures."""
    marked = list(rows)
    for kind in ("measured", "published"):
        own = [number for number, row in enumerate(rows) if row.kind == kind]
        best: dict[int, list[str]] = {number: [] for number in own}
        for name, metric in METRICS.items():
            figures = {number: rows[number].figures[name] for number in own}
            known = {number: round(f.mean, 4) for number, f in figures.items() if f is not None}
            choose = max if metric.higher_is_better else min
            for number, value in known.items():
                if metric.best_marked and len(known) > 1 and value == choose(known.values()):
                    best[number].append(name)
        for number, names in best.items():
            marked[number] = replace(rows[number], best=names)
    return marked


def told_apart(rows: Sequence[Row], records: Sequence[RunRecord]) -> list[Row]:
    """Add to the names of rows with equal names the settings in which their runs differ."""
    alike: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        alike.setdefault(row.name, []).append(number)
    apart = list(rows)
    for numbers in alike.values():
        own = [_own_settings(records[number]) for number in numbers]
        names = [name for name in own[0] if len({str(one.get(name)) for one in own}) > 1]
        for number, values in zip(numbers, own, strict=True):
            words = ", ".join(f"{name.replace('_', ' ')} {values[name]}" for name in names)
            if words:
                apart[number] = replace(rows[number], system=f"{rows[number].system}, {words}")
    return apart


def _own_settings(record: RunRecord) -> Mapping[str, Any]:
    values = {**record.head.settings(), **record.training.settings()}
    return {name: value for name, value in values.items() if name not in ("seed", "inter", "intra")}


def averaging(average: str, labels: Sequence[str]) -> str:
    """How precision and recall are averaged, in words."""
    if average == "binary":
        return f"precision and recall of {labels[1]}"
    return "precision and recall weighted by support"


def training_words(record: RunRecord) -> str:
    """`batch 256, learning rate 0.0002, weight decay 0.01; `, and what is not the default."""
    said = ", ".join([*settings.words(record.training), *settings.words(record.head)])
    return f"{said}; " if said else ""
