"""What the tables of a report are made of: rows of figures, and sections of rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from spacelite.metrics import scores as metrics
from spacelite.paper import tables as paper
from spacelite.runs.store import Run

# The settings that a table's runs share, with what they are in runs of former versions.
SHARED: dict[str, Any] = {
    "epochs": None, "batch_size": None, "learning_rate": None, "weight_decay": None,
    "data_seed": None, "schedule": "constant", "clip_norm": None, "class_weights": "none",
    "patience": None, "monitor": None,
}  # fmt: skip
COMPARED = ("accuracy", "f1_macro", "precision", "recall")  # whose best is marked, as published

Scores = dict[str, float]


@dataclass(frozen=True)
class Figure:
    """A mean over seeds, and their standard deviation (None with one seed)."""

    mean: float
    spread: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table. `kind`: a `measured` system, a `published` one, or the `difference` of
    the two lines above, measured less published.

    `figures`: the names of `metrics.METRICS`; None where there is no such figure. `best`: those of
    them that no other row of its kind surpasses. `runs`: the ids of the runs, one a seed.
    """

    system: str
    kind: str
    train_params: int | None
    figures: dict[str, Figure | None]
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

    `settings`: those of the training that its runs share; `split`: the split the figures are of;
    `notes`: what to know when holding published figures against measured ones.
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


def pooled(values: Sequence[float]) -> Figure:
    """A figure over seeds."""
    return Figure(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def measured(runs: Sequence[Run], scores: Sequence[Scores], data: str) -> Row:
    """Runs that differ in their seed alone as a row: their `scores` on data set `data`."""
    record, settings = runs[0].record, runs[0].settings
    return Row(
        system=record["system"],
        kind="measured",
        train_params=record["train_params"],
        figures={name: pooled([one[name] for one in scores]) for name in metrics.METRICS},
        inter=settings["inter"],
        intra=settings["intra"],
        seeds=len(runs),
        backbone=record["spec"]["backbone"],
        epochs=settings["epochs"],
        data=data,
        train_examples=record["examples"]["train"],
        runs=[run.id for run in runs],
        best=[],
    )


def published(row: paper.PublishedRow) -> Row:
    """A row of a published table."""
    params = row.figures["train_params"]
    values = {name: row.figures.get(name) for name in metrics.METRICS}
    return Row(
        system=f"published, {row.backbone}",
        kind="published",
        train_params=None if params is None else int(params),
        figures={name: None if v is None else Figure(v) for name, v in values.items()},
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
    figures: dict[str, Figure | None] = {}
    for name, there in published.figures.items():
        here = measured.figures[name]
        if here is None or there is None:
            figures[name] = None
        else:
            figures[name] = Figure(here.mean - there.mean)
    return replace(
        published, system="difference", kind="difference", train_params=None, figures=figures
    )


def with_best(rows: Sequence[Row]) -> list[Row]:
    """The rows, the best figures of the measured and of the published ones marked, to the four
    decimals that are printed; with a single row of a kind there is no best one."""
    made = list(rows)
    for kind in ("measured", "published"):
        own = [number for number, row in enumerate(rows) if row.kind == kind]
        best: dict[int, list[str]] = {number: [] for number in own}
        for name in COMPARED:
            figures = {number: rows[number].figures[name] for number in own}
            known = {number: round(f.mean, 4) for number, f in figures.items() if f is not None}
            for number, value in known.items():
                if len(known) > 1 and value == max(known.values()):
                    best[number].append(name)
        for number, names in best.items():
            made[number] = replace(rows[number], best=names)
    return made


def averaging(average: str, labels: Sequence[str]) -> str:
    """What precision and recall are of."""
    if average == "binary":
        return f"precision and recall of {labels[1]}"
    return "precision and recall weighted by support"


def training_settings(settings: dict[str, Any]) -> str:
    """`batch 256, learning rate 0.0002, weight decay 0.01; `, and what is not the protocol's."""
    if settings["epochs"] is None:
        return ""
    parts = [
        f"batch {settings['batch_size']}",
        f"learning rate {settings['learning_rate']:g}",
        f"weight decay {settings['weight_decay']:g}",
    ]
    if settings.get("schedule", "constant") != "constant":
        parts.append(f"{settings['schedule']} schedule")
    if settings.get("clip_norm") is not None:
        parts.append(f"gradients clipped at {settings['clip_norm']:g}")
    if settings.get("class_weights", "none") != "none":
        parts.append(f"{settings['class_weights']} class weights")
    if settings.get("patience") is not None:
        parts.append(f"best {settings['monitor']}, patience {settings['patience']}")
    return ", ".join(parts) + "; "
