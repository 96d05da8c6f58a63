"""The table of runs that `train` prints: each run's metrics on every split."""

from __future__ import annotations

from collections.abc import Sequence

from spacelite import settings
from spacelite.document import Cell, Line, Table, decimals
from spacelite.metrics.scores import METRICS
from spacelite.reports.analysis.rows import effective
from spacelite.reports.document.wording import number
from spacelite.runs import Run, figure

SHOWN = ("loss", "ce", "accuracy", "f1_macro")
LOSS_WEIGHTS = ("inter", "intra")
CONTINUED = "continued"  # kind of a line that belongs to the same run as the line above
IN_NAME = ("pooling", "latent", "blocks", "monitor")  # settings that a system's name says


def runs_table(runs: Sequence[Run], metrics: Sequence[str] = SHOWN) -> Table:
    """A table of runs with a line per split: a run's first line begins with the system's name and
    the settings that differ between the runs, its second with the run's name or id. Weights of
    losses and seeds have columns, where a run has them.

    Args:
        runs: The runs, at least one.
        metrics: Metrics to show. The loss is left out if it is each run's cross-entropy.
    """
    own = [run.record.settings for run in runs]
    weighted = any(each.get(name) for each in own for name in LOSS_WEIGHTS)
    seeded = any(each.get("seed") is not None for each in own)
    columns = [*(LOSS_WEIGHTS if weighted else ()), *(["seed"] if seeded else [])]
    every = [scores for run in runs for scores in run.record.metrics.values()]
    if all(figure(scores, "loss") == figure(scores, "ce") for scores in every):
        metrics = [name for name in metrics if name != "loss"]
    lines = []
    for run, system, given in zip(runs, _systems(runs), own, strict=True):
        for index, (split, scores) in enumerate(run.record.metrics.items()):
            name = [system, run.record.name or short_id(run.id), ""][min(index, 2)]
            values = [number(given.get(column)) if index == 0 else "" for column in columns]
            figures = [_metric(figure(scores, metric)) for metric in metrics]
            cells = [Cell(text) for text in (name, *values, split, *figures)]
            lines.append(Line(cells, CONTINUED if index else ""))
    headings = [name.capitalize() for name in columns]
    return Table(
        "Runs",
        ["System, run", *headings, "Split", *(METRICS[name].short for name in metrics)],
        lines,
        "runs",
    )


def _systems(runs: Sequence[Run]) -> list[str]:
    """Each run's system with the settings that differ: `space L=16, learning rate 0.001`."""
    records = [run.record for run in runs]
    own = [effective(record) for record in records]
    names = [name for name in settings.varying(own) if name not in IN_NAME]
    made = []
    for record, values in zip(records, own, strict=True):
        symbols = {**settings.symbols(record.head), **settings.symbols(record.training)}
        made.append(", ".join([record.system, *settings.details(symbols, values, names)]))
    return made


def short_id(name: str) -> str:
    """The last part of a run's id, which is enough to identify it."""
    return name.rpartition("--")[2]


def _metric(value: float | None) -> str:
    return "–" if value is None else decimals(value, 4)
