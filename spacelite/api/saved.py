"""Saved runs: load them, and compare them in a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spacelite import runs as saved_runs
from spacelite.api.arguments import CONDITIONS, NAME, NAME_OR_PATH, NAMES, checked, unusable
from spacelite.api.embedding import CACHE_DIR
from spacelite.api.lists import Runs
from spacelite.api.runs import TrainedRun
from spacelite.errors import SpaceliteError
from spacelite.progress import Progress, reporting
from spacelite.reports.analysis import content
from spacelite.reports.report import Report


@checked(name=replace(NAME_OR_PATH, needed="give a run's id or its folder"))
def load_run(name: str | Path, cache_dir: str | Path = CACHE_DIR) -> TrainedRun:
    """Load a saved run.

    Args:
        name: The run's id, a part of it that no other run has, its name, or its folder.
        cache_dir: Folder of caches and runs.

    Raises:
        SpaceliteError: No run matches, or more than one.
    """
    return TrainedRun(saved_runs.find(Path(cache_dir), str(name)), Path(cache_dir))


@checked()
def load_runs(cache_dir: str | Path = CACHE_DIR) -> Runs:
    """Load all saved runs, oldest first.

    Args:
        cache_dir: Folder of caches and runs.
    """
    return Runs([TrainedRun(run, Path(cache_dir)) for run in saved_runs.load_all(Path(cache_dir))])


@checked(compare=NAMES, cache=NAME, dataset=NAME, head=NAMES, where=CONDITIONS, split=NAME)
def report(
    runs: Sequence[TrainedRun | str | Path] | TrainedRun | str | Path | None = None,
    *,
    compare: Sequence[str] = (),
    cache: str | None = None,
    dataset: str | None = None,
    head: str | Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
    split: str | None = None,
    cache_dir: str | Path = CACHE_DIR,
    examples: bool = True,
    backbone: str | Path | None = None,
    progress: Progress = True,
) -> Report:
    """Compare runs with each other and with the published figures.

    Args:
        runs: Runs to compare, or their ids. Default: all runs of `cache_dir`.
        compare: Names of the systems to compare, as the report's tables call them, or ids of runs.
            Default: all. Every p is corrected for all pairs of them.
        cache: Name of a cache: only the runs on it.
        dataset: Name of a data set: only the runs on it.
        head: Kind(s) of heads: only these.
        where: Setting -> value(s): only runs with these. Heads that lack the setting are kept.
        split: Another split whose figures are shown too: `train` or `validation`.
        cache_dir: Folder of caches and runs, used if no runs are given, or ids.
        examples: Whether to show words and texts of the data.
        backbone: Folder of the runs' backbone, if it was a local one.
        progress: True for bars, False for none, or a function called with (phase, done, total).

    Returns:
        The report: print it, or `save` it as a page.

    Raises:
        SpaceliteError: There is no run, none fits the conditions, or the systems cannot be
            compared.
    """
    chosen = list(load_runs(cache_dir)) if runs is None else _chosen(runs, cache_dir)
    if not chosen:
        raise SpaceliteError(f"{cache_dir} holds no run: train one first")
    with reporting(progress) as on_progress:
        findings = content.build(
            chosen[0].cache_dir,
            [run.run for run in chosen],
            with_examples=examples,
            cache=cache,
            dataset=dataset,
            head=head,
            where=where,
            compare=compare,
            split=split,
            backbone=chosen[0].backbone if backbone is None else str(backbone),
            on_progress=lambda done, total: on_progress("report", done, total),
        )
    return Report(findings)


def _chosen(runs: Any, cache_dir: str | Path) -> list[TrainedRun]:
    """The runs that `report` is given. One that is given twice is one run, not two seeds."""
    needed = "give runs or their ids"
    if isinstance(runs, TrainedRun | str | Path):
        runs = [runs]
    if isinstance(runs, type) or not hasattr(runs, "__iter__"):
        raise unusable("runs", runs, needed)
    found: dict[TrainedRun, None] = {}
    for one in runs:
        if not isinstance(one, TrainedRun | str | Path):
            raise unusable("runs", one, needed)
        found[one if isinstance(one, TrainedRun) else load_run(one, cache_dir)] = None
    if not found:
        raise SpaceliteError(
            "runs is empty: give at least one run, or leave runs out to compare all of cache_dir",
            ["runs", "cache_dir"],
        )
    return list(found)
