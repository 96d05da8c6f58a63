"""Tables of systems, and of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spacelite.document import LARGEST, Cell, Line, Table, with_sign
from spacelite.heads.config import system_names
from spacelite.metrics.scores import METRICS, Metric
from spacelite.reports.analysis.groups import CHOSEN, MeanStd, Section, grouped
from spacelite.runs.store import Run
from spacelite.tasks import known_metrics, scored_by

# Kinds of lines: the figures of another split; a setting of a sweep that validation did not choose;
# one that belongs to the same run as the line above.
SPLIT, TRIED, CONTINUED = "split", "tried", "continued"


def systems_table(
    section: Section, also: str | None = None, *, places: int = 4, short: bool = False
) -> Table:
    """A section's table: a line per system, with the figures of another split (`also`) below it if
    the runs have them, and a column for the figure on validation that chose among the settings of a
    sweep. Figures have `places` decimals; `short` abbreviates
    headings, for narrow terminals."""
    of_published = any(row.kind == "published" for row in section.rows)
    is_sweep = any(row.tried > 1 for row in section.rows)
    lines, metrics = [], shown_metrics([row.figures for row in section.rows])
    for row in section.rows:
        signed = row.kind == "difference"
        best = row.tried > 1 and row.chosen
        of = metrics[row.headline]
        chosen_by = [figure_cell(row.validation, of, places=places)] if is_sweep else []
        figures = [
            figure_cell(
                row.figures[name], metric, best=name in row.best, signed=signed, places=places
            )
            for name, metric in metrics.items()
        ]
        weights = (row.inter, row.intra) if of_published else ()
        params, *counts = (
            "" if signed else number(count) for count in (row.train_params, *weights, row.seeds)
        )
        kind = row.kind if row.chosen else TRIED
        name = row.system + (CHOSEN if best else "")
        lines.append(Line.of(name, params, *chosen_by, *figures, *counts, kind=kind))
        other = row.by_split.get(also or "")
        if other is not None and also != section.split:
            before, after = [""] * len([params, *chosen_by]), [""] * len(counts)
            figures = [figure_cell(other[name], of, places=places) for name, of in metrics.items()]
            lines.append(Line.of(f"on {also}", *before, *figures, *after, kind=SPLIT))
    of = metrics[section.rows[0].headline]
    chosen_by_heading = f"Val. {of.short}" if short else f"Validation {of.in_words}"
    columns = [
        "System",
        "Params" if short else "Parameters",
        *([chosen_by_heading] if is_sweep else []),
        *(metric.short if short else metric.heading for metric in metrics.values()),
        *(("Inter", "Intra") if of_published else ()),
        "Seeds",
    ]
    return Table(section.title, columns, lines, "systems")


def shown_metrics(figures: Sequence[Mapping[str, Any]]) -> dict[str, Metric]:
    """The metrics that systems of a task have, by name; without the loss where none has it."""
    of_task = scored_by(figures[0]).metrics
    return {
        name: of_task.get(name, metric)
        for name, metric in known_metrics().items()
        if any(name in of for of in figures)
        and (name != "loss" or any(of.get(name) is not None for of in figures))
    }


def _listed_metrics(runs: Sequence[Run], figures: Sequence[Mapping[str, Any]]) -> dict[str, Metric]:
    """The metrics that lists of runs show, given all their figures: the loss only where it is not
    the plain loss."""
    tasks = dict.fromkeys(run.record.task for run in runs)
    same = all(of.get("loss") in (None, of.get(task.plain_loss)) for of in figures for task in tasks
               if task.headline in of)  # fmt: skip
    return {
        name: task.metrics[name]
        for task in tasks
        for name in task.listed
        if not (same and name == "loss")
    }


def figure_cell(
    value: MeanStd | None,
    of: Metric = METRICS["accuracy"],
    *,
    best: bool = False,
    signed: bool = False,
    places: int = 4,
) -> Cell:
    """A figure of a metric with its standard deviation over seeds, or a dash: `0.6210`, `+0.0120`
    or `−0.0120` when signed, and `± 0.0030`."""
    if value is None:
        return Cell("–", best=best)
    mean = of.written(value.mean, places)
    if signed and abs(value.mean) < LARGEST:
        mean = with_sign(value.mean, places)
    std = "" if value.std is None else f"± {of.written(value.std, places, value.mean)}"
    return Cell(mean, std, best=best)


def number(value: float | None) -> str:
    """A count or weight, or a dash."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def trained_table(runs: Sequence[Run], places: int = 4) -> Table:
    """A table of at least one run with a line per system: means and standard deviations over seeds,
    with `places` decimals, on the split that reports show. A system's only run has its name or id
    there. Systems of several caches have a column that tells them apart."""
    every = {run.folder: run for run in runs}  # a run that is listed twice is no second seed
    groups = [group for group in grouped(list(every.values())) if not group.systems[0].transfers]
    rows = [(group.section, *pair) for group in groups for pair in group.named]
    metrics = _listed_metrics(runs, [row.figures for _, row, _ in rows])
    caches = len({of_row.record.cache for *_, of_row in rows})
    lines = []
    for _, row, of_row in rows:
        (run, *others) = of_row.runs
        of_run = f"{1 + len(others)} seeds" if others else run.name or short_id(run.id)
        cache = [run.record.cache] if caches > 1 else []
        figures = [
            figure_cell(row.figures.get(name), of, places=places) for name, of in metrics.items()
        ]
        lines.append(Line.of(row.system, *cache, of_run, *figures, kind=row.kind))
    splits = sorted({section.split for section, *_ in rows})
    on = ", or on ".join(splits) + (" where there is no test split" if len(splits) > 1 else "")
    spread = any((row.seeds or 1) > 1 for _, row, _ in rows)
    caption = f"Metrics on {on}" + (", ± standard deviation over seeds" if spread else "")
    headings = ["System", *(["Cache"] if caches > 1 else []), "Run"]
    return Table(
        caption, [*headings, *(metric.short for metric in metrics.values())], lines, "trained"
    )


def runs_table(runs: Sequence[Run]) -> Table:
    """A table of at least one run with a line per split: a run's first line begins with the
    system's name, its second with the run's name or id. Seeds have a column, where a run has one.
    The loss is left out if it is each run's cross-entropy."""
    seeds = [run.record.seed for run in runs]
    seeded = any(seed is not None for seed in seeds)
    every = [scores for run in runs for scores in run.record.metrics.values()]
    metrics = _listed_metrics(runs, every)
    lines = []
    names = system_names([run.head for run in runs], [run.record.training for run in runs])
    for run, system, seed in zip(runs, names, seeds, strict=True):
        for index, (split, scores) in enumerate(run.record.metrics.items()):
            name = [system, run.record.name or short_id(run.id), ""][min(index, 2)]
            of_run = [number(seed) if index == 0 else ""] if seeded else []
            figures = [(metric, scores.get(name)) for name, metric in metrics.items()]
            texts = ("–" if value is None else of.written(value) for of, value in figures)
            kind = CONTINUED if index else ""
            lines.append(Line.of(name, *of_run, split, *texts, kind=kind))
    headings = ["Seed"] if seeded else []
    return Table(
        "Runs",
        ["System, run", *headings, "Split", *(metric.short for metric in metrics.values())],
        lines,
        "runs",
    )


def short_id(name: str) -> str:
    """The last part of a run's id, which is enough to identify it."""
    return name.rpartition("--")[2]
