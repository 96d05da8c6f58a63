"""What the tables of a report are made of: rows of figures, and sections of rows."""

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
    """A mean over seeds, and their standard deviation (None with one seed)."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        system: The head's name, with whatever else tells it from others of its table.
        kind: A `measured` system, a `published` one, or the `difference` of the two lines above,
            measured less published.
        train_params: The number of trained parameters.
        figures: By the names of METRICS; None where there is no such figure.
        inter: The weight of L_inter; `intra`: of L_intra.
        seeds: How many runs it is the mean of.
        backbone: The backbone's name.
        epochs: How many it was trained for.
        data: The data set that the figures are of.
        train_examples: How many it was trained on.
        runs: The ids of the runs, one per seed.
        best: Those of the figures that no other row of its kind surpasses.
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
        """The system in words, with the weights of its losses."""
        weights = {"inter": self.inter, "intra": self.intra}
        return " + ".join([self.system, *(f"{key} {w:g}" for key, w in weights.items() if w)])


@dataclass(frozen=True)
class Section:
    """A table of systems on one split of one data set.

    Attributes:
        title: The heading; `subtitle`: what is common to all rows.
        data: The data set; `backbone`, `cache`: the names of its hidden states.
        split: The split that the figures are of.
        examples: How many there are, by split.
        settings: Those of the training that its runs share.
        average: How precision and recall are averaged.
        rows: The lines.
        notes: What to know when comparing published figures with measured ones.
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
    """A figure over seeds."""
    return MeanStd(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def shared_settings(record: RunRecord) -> dict[str, Any]:
    """The settings that the systems of a table share: all of the training's, and those of the head
    that tables mention in words rather than in columns or names."""
    names = [each.name for each in fields(record.head) if each.metadata["words"] is not None]
    return {**{name: getattr(record.head, name) for name in names}, **record.training.settings()}


def section_settings(record: RunRecord | None) -> dict[str, Any]:
    """The shared settings as a section holds them: None for those that a run has not."""
    usual = dict.fromkeys((*TrainingConfig.FIRST, "learning_rate", "weight_decay"))
    return {**usual, **(shared_settings(record) if record is not None else {})}


def measured(runs: Sequence[Run], scores: Sequence[Scores], data: str) -> Row:
    """Runs that differ in their seed alone as a row: their `scores` on data set `data`."""
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
    """None where a run has no such figure."""
    values = [value for one in scores if (value := figure(one, metric)) is not None]
    return mean_std(values) if len(values) == len(scores) else None


def published(row: paper.PublishedRow) -> Row:
    """A row of a published table."""
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
    """The figures of a measured row less those of a published one."""
    figures: dict[str, MeanStd | None] = {}
    for name, there in published.figures.items():
        here = measured.figures[name]
        both = here is not None and there is not None
        figures[name] = MeanStd(here.mean - there.mean) if both else None  # type: ignore[union-attr]
    return replace(
        published, system="difference", kind="difference", train_params=None, figures=figures
    )


def with_best(rows: Sequence[Row]) -> list[Row]:
    """The rows, the best figures of the measured and of the published ones marked, to the four
    decimals that are printed; with a single row of a kind there is no best one."""
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
    """Rows of one name get whatever else their runs differ in into their names."""
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
    """What precision and recall are of."""
    if average == "binary":
        return f"precision and recall of {labels[1]}"
    return "precision and recall weighted by support"


def training_words(record: RunRecord) -> str:
    """`batch 256, learning rate 0.0002, weight decay 0.01; `, and what is not the default."""
    said = ", ".join([*settings.words(record.training), *settings.words(record.head)])
    return f"{said}; " if said else ""
