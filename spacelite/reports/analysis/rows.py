"""The tables of a report: rows of figures, and sections of rows."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from spacelite import paper, settings
from spacelite.metrics.scores import METRICS, Scores
from spacelite.runs import Run, RunRecord, figure


@dataclass(frozen=True)
class MeanStd:
    """A mean and standard deviation over seeds (None for a single seed)."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        system: The head's name, without what the table's columns say.
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
        varied: The settings that distinguish it from rows with the same title: name -> symbol.
        settings: All settings but the seed.
        by_split: Split -> metric -> figure, for the run's own splits.
        tried: Number of settings in the system's sweep, 1 for a system without one.
        chosen: Whether validation chose it among the settings of its sweep.
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
    varied: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    by_split: dict[str, dict[str, MeanStd | None]] = field(default_factory=dict)
    tried: int = 1
    chosen: bool = True

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
        swept: Setting -> its heading, for the settings that have a column since they differ.
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
    swept: dict[str, str] = field(default_factory=dict)


def mean_std(values: Sequence[float]) -> MeanStd:
    """Mean and standard deviation over seeds."""
    return MeanStd(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def all_settings(record: RunRecord) -> dict[str, Any]:
    """The settings of a run, of its head and of its training, except the seed and those that have
    no effect on its kind of head."""
    idle = record.head.settings().keys() - settings.effective(record.head).keys()
    return {
        name: value
        for name, value in record.settings.items()
        if name != "seed" and name not in idle
    }


def shared_settings(records: Sequence[RunRecord]) -> dict[str, Any]:
    """The settings that have the same value in all runs that have them."""
    values: dict[str, list[Any]] = {}
    for record in records:
        for name, value in all_settings(record).items():
            values.setdefault(name, []).append(value)
    return {name: own[0] for name, own in values.items() if all(one == own[0] for one in own)}


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
        settings=all_settings(record),
        by_split={
            split: {
                name: _over_seeds([run.record.metrics[split] for run in runs], name)
                for name in METRICS
            }
            for split in record.metrics
            if all(split in run.record.metrics for run in runs)
        },
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
    decimals that are printed; a single row of a kind has no best figures, and rows of a sweep
    that validation did not choose do not count. A table of published rows marks only what these
    have figures of."""
    marked = list(rows)
    of_published = [row for row in rows if row.kind == "published"]
    names = [
        name
        for name, metric in METRICS.items()
        if metric.best_marked
        and (not of_published or any(row.figures[name] is not None for row in of_published))
    ]
    for kind in ("measured", "published"):
        own = [number for number, row in enumerate(rows) if row.kind == kind and row.chosen]
        best: dict[int, list[str]] = {number: [] for number in own}
        for name in names:
            figures = {number: rows[number].figures[name] for number in own}
            known = {number: round(f.mean, 4) for number, f in figures.items() if f is not None}
            choose = max if METRICS[name].higher_is_better else min
            for number, value in known.items():
                if len(known) > 1 and value == choose(known.values()):
                    best[number].append(name)
        for number, own_best in best.items():
            marked[number] = replace(rows[number], best=own_best)
    return marked


def averaging(average: str, labels: Sequence[str]) -> str:
    """How precision and recall are averaged, in words."""
    if average == "binary":
        return f"precision and recall of {labels[1]}"
    return "precision and recall weighted by support"


def training_words(records: Sequence[RunRecord], swept: Collection[str] = ()) -> str:
    """`batch 256, learning rate 0.0002, weight decay 0.01; `, and what is not the default, as far
    as all runs share it.

    Args:
        records: The runs' records; the first is one of a head that is trained in epochs, if any is.
        swept: Settings that have a column.
    """
    shared, first = shared_settings(records), records[0]
    differing = [name for name in all_settings(first) if name not in shared or name in swept]
    said = [*settings.words(first.training, differing), *settings.words(first.head, differing)]
    return f"{', '.join(said)}; " if said else ""
