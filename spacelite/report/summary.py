"""Runs -> sections of rows: seeds pooled, published figures beside the measured ones."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spacelite import metrics, paper
from spacelite.runs import Run

SHARED = (
    "epochs", "batch_size", "learning_rate", "weight_decay", "data_seed", "schedule", "clip_norm",
    "class_weights", "patience", "monitor",
)  # fmt: skip

Scores = dict[str, float]


@dataclass(frozen=True)
class Figure:
    """A mean over seeds, and their standard deviation (None with one seed)."""

    mean: float
    spread: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a table: a measured system, or a published one under it.

    `figures`: the names of `metrics.METRICS`; None where a published table has no such figure.
    `runs`: the ids of the runs, one a seed.
    """

    system: str
    train_params: int | None
    figures: dict[str, Figure | None]
    inter: float | None
    intra: float | None
    seeds: int | None
    published: bool
    backbone: str
    epochs: int | None
    data: str
    train_examples: int
    runs: list[str]


@dataclass(frozen=True)
class Section:
    """The runs of one cache under the same training settings, on one data set.

    `settings`: those settings; `split`: the split the figures are of; `notes`: what to know when
    holding the published figures against the measured ones.
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


def summarize(runs: Sequence[Run]) -> list[Section]:
    """Runs grouped into sections and, within them, seeds into rows; in the order of the runs.

    logreg, which has no epochs, stands in every section of its cache. Evaluations on other data
    sets have sections of their own.
    """
    grouped: dict[tuple[Any, ...], list[Run]] = {}
    fitted = [run for run in runs if run.record["head"] == "logreg"]
    for run in runs:
        if run.record["head"] != "logreg":
            key = (*_fitted_key(run), *(run.settings.get(name) for name in SHARED))
            grouped.setdefault(key, []).append(run)
    for run in fitted:
        key = _fitted_key(run)
        fitting = [members for known, members in grouped.items() if known[: len(key)] == key]
        for members in fitting or [grouped.setdefault(key, [])]:
            members.append(run)
    sections = []
    for members in grouped.values():
        sections.append(_own_section(members))
        sections += _transfer_sections(members)
    return sections


def measured(runs: Sequence[Run], scores: Sequence[Scores], data: str) -> Row:
    """Runs that differ in their seed alone as a row: their `scores` on data set `data`."""
    record, settings = runs[0].record, runs[0].settings
    figures: dict[str, Figure | None] = {}
    for name in metrics.METRICS:
        values = [of_run[name] for of_run in scores]
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
        data=data,
        train_examples=record["examples"]["train"],
        runs=[run.id for run in runs],
    )


def published(row: paper.PublishedRow) -> Row:
    """A row of a published table."""
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
        runs=[],
    )


def differences(row: paper.PublishedRow, record: dict[str, Any]) -> list[str]:
    """In which respects a run (its `record`) is not what a published row was made with."""
    notes = []
    backbone, examples = record["spec"]["backbone"], record["examples"]["train"]
    if not paper.same_backbone(row.backbone, backbone):
        notes.append(f"Published rows are of another backbone than {backbone}.")
    if examples != row.train_examples:
        notes.append(
            f"Published rows were trained on {row.train_examples:,} examples, these on "
            f"{examples:,}."
        )
    return notes


def _fitted_key(run: Run) -> tuple[Any, ...]:
    return (run.record["cache_key"], run.settings.get("class_weights", "none"))


def _own_section(runs: list[Run]) -> Section:
    record = runs[0].record
    split = runs[0].split
    scores = [run.record["metrics"][split] for run in runs]
    sizes = ", ".join(f"{count:,} {name}" for name, count in record["examples"].items())
    about = f"{split} figures; examples: {sizes}"
    data = record["spec"]["dataset"]
    return _section(runs, scores, data, record["cache"], split, record["examples"], data, about)


def _transfer_sections(runs: list[Run]) -> list[Section]:
    by_cache: dict[tuple[str, ...], list[tuple[Run, dict[str, Any]]]] = {}
    for run in runs:
        for transfer in run.transfers():
            # Figures under another map of the labels are not comparable.
            named = (f"{there} as {here}" for there, here in transfer["labels"].items())
            by_cache.setdefault((transfer["cache"], *named), []).append((run, transfer))
    sections = []
    for (cache, *labels), members in by_cache.items():
        first = members[0][1]
        split = "test" if "test" in first["metrics"] else "validation"
        scores = [transfer["metrics"][split] for _, transfer in members]
        examples = {"train": runs[0].record["examples"]["train"], split: first["examples"][split]}
        title = f"{runs[0].record['spec']['dataset']} → {first['dataset']}"
        about = (
            f"zero-shot transfer ({', '.join(labels)}); {examples['train']:,} training examples, "
            f"{examples[split]:,} {split} examples of {first['dataset']}"
        )
        own = [run for run, _ in members]
        sections.append(
            _section(own, scores, first["dataset"], cache, split, examples, title, about)
        )
    return sections


def _section(
    runs: list[Run],
    scores: list[Scores],
    data: str,
    cache: str,
    split: str,
    examples: dict[str, int],
    title: str,
    about: str,
) -> Section:
    record, settings = runs[0].record, runs[0].settings
    systems: dict[tuple[Any, ...], list[int]] = {}
    for number, run in enumerate(runs):
        key = (run.record["system"], run.settings["inter"], run.settings["intra"])
        systems.setdefault(key, []).append(number)
    rows, notes = [], []
    # Baselines last; runs of one pass are created within the same second, in no order.
    for numbers in sorted(systems.values(), key=lambda numbers: _order(runs[numbers[0]])):
        members = [runs[number] for number in numbers]
        rows.append(measured(members, [scores[number] for number in numbers], data))
        for row in paper.matching(members[0].record, data):
            rows.append(published(row))
            notes += differences(row, members[0].record)
    backbone, epochs = record["spec"]["backbone"], settings["epochs"]
    parts = [title, backbone]
    if record["spec"].get("padding", "none") != "none":
        parts.append("padded positions counted")
    if epochs is not None:
        parts.append(f"{epochs} epoch{'s' if epochs != 1 else ''}")
    return Section(
        title=", ".join(parts),
        subtitle=f"{about}; {training_settings(settings)}cache {cache}",
        data=data,
        backbone=backbone,
        cache=cache,
        split=split,
        examples=examples,
        settings={name: settings.get(name) for name in SHARED},
        average=record["average"],
        rows=rows,
        notes=list(dict.fromkeys(notes)),
    )


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


def _order(run: Run) -> tuple[Any, ...]:
    settings = run.settings
    weights = (settings["inter"] or 0, settings["intra"] or 0)
    kinds = ("space", "linear", "mlp", "logreg")
    kind = run.record["head"]
    return (kinds.index(kind), settings["latent"] or 0, *weights, run.record["system"])
