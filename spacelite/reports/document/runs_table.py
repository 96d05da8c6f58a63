"""The table of runs that `train` prints: each run's metrics on every split."""

from __future__ import annotations

from collections.abc import Sequence

from spacelite.metrics.scores import METRICS
from spacelite.reports.document.blocks import Cell, Line, Table
from spacelite.reports.document.wording import decimals, number
from spacelite.runs import Run, figure
from spacelite.runs.listing import varying

SHOWN = ("loss", "ce", "accuracy", "f1_macro")
CONTINUED = "continued"  # kind of a line that belongs to the same run as the line above
ALWAYS = ("inter", "intra", "seed")  # settings that have a column even if they do not differ


def runs_table(runs: Sequence[Run], metrics: Sequence[str] = SHOWN) -> Table:
    """A table of runs with a line per split: a run's first line begins with the system's name, its
    second with the run's name or id. Settings that differ between the runs have columns.

    Args:
        runs: The runs, at least one.
        metrics: Metrics to show.
    """
    settings = [run.record.settings for run in runs]
    in_name = ("pooling", "latent", "monitor")
    differing = [name for name in varying(settings) if name not in (*ALWAYS, *in_name)]
    columns = (*ALWAYS, *differing)
    lines = []
    for run, own in zip(runs, settings, strict=True):
        shown = [own.get(name) for name in columns]
        for index, (split, scores) in enumerate(run.record.metrics.items()):
            name = [run.record.system, run.record.name or short_id(run), ""][min(index, 2)]
            values = [_setting(value) if index == 0 else "" for value in shown]
            figures = [_metric(figure(scores, metric)) for metric in metrics]
            cells = [Cell(text) for text in (name, *values, split, *figures)]
            lines.append(Line(cells, CONTINUED if index else ""))
    headings = [name.replace("_", " ").capitalize() for name in columns]
    return Table(
        "Runs",
        ["System, run", *headings, "Split", *(METRICS[name].short for name in metrics)],
        lines,
        "runs",
    )


def short_id(run: Run) -> str:
    """The last part of a run's id, which is enough to identify it."""
    return run.id.rpartition("--")[2]


def _setting(value: object) -> str:
    return number(value) if isinstance(value, int | float) or value is None else str(value)


def _metric(value: float | None) -> str:
    return "–" if value is None else decimals(value, 4)
