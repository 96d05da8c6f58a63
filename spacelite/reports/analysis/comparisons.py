"""Analysis of a group of systems: which differences are real, curves, confusion, calibration and
cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.cache import store
from spacelite.cache.spec import embeddings_folder
from spacelite.metrics.calibration import calibration
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.scores import METRICS, PerClass
from spacelite.reports.analysis.differences import (
    Comparison,
    Pair,
    tested_pairs,
    with_best,
)
from spacelite.reports.analysis.groups import Group, System
from spacelite.reports.analysis.rows import MeanStd, Row, mean_std

MOST_SYSTEMS = 24  # systems of a group that are shown in detail

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ClassFigures:
    """Precision, recall and F1 of a class over seeds, and `support`, its number of examples."""

    label: str
    precision: MeanStd
    recall: MeanStd
    f1: MeanStd
    support: int


@dataclass(frozen=True)
class Calibration:
    """How far a system's confidence can be trusted.

    Attributes:
        error: Expected calibration error over seeds.
        own_error: Expected calibration error of the head with the lowest seed.
        confidence: That head's mean confidence in each non-empty bin.
        accuracy: Its accuracy in each of these bins.
        count: Its number of decisions in each of these bins.
    """

    error: MeanStd
    own_error: float
    confidence: list[float]
    accuracy: list[float]
    count: list[int]


@dataclass(frozen=True)
class SystemAnalysis:
    """A system on the group's split.

    Attributes:
        name: Name of the system.
        run: Id of the run with the lowest seed.
        seed: That seed.
        confusion: That run's counts by true and predicted label, as the task lays them out.
        classes: Figures of each class, over seeds.
        calibration: Calibration over seeds and of that run.
    """

    name: str
    run: str
    seed: int
    confusion: list[Any]
    classes: list[ClassFigures]
    calibration: Calibration


@dataclass(frozen=True)
class Curve:
    """A system's metrics by epoch.

    Attributes:
        name: Name of the system.
        epochs: Numbers of the epochs, from 1.
        splits: Split -> metric -> means and standard deviations over seeds; the latter are None
            for a single seed.
    """

    name: str
    epochs: list[int]
    splits: dict[str, dict[str, tuple[list[float], list[float] | None]]]

    def band(self, split: str, metric: str) -> tuple[list[float], list[float]] | None:
        """One standard deviation below and above the means, within the metric's range."""
        means, stds = self.splits[split][metric]
        if stds is None:
            return None
        most = METRICS[metric].most
        pairs = list(zip(means, stds, strict=True))
        return [max(m - s, 0.0) for m, s in pairs], [min(m + s, most) for m, s in pairs]


@dataclass(frozen=True)
class TrainingCost:
    """Duration of a system's training pass, over seeds, and the minimum and maximum number of heads
    that shared it, since seeds may have been trained in several passes."""

    name: str
    seconds: MeanStd
    heads_in_pass: tuple[int, int]


@dataclass(frozen=True)
class Cost:
    """What a group cost: training each system, seconds of embedding (None if unknown), and bytes of
    the cache (None if it no longer exists)."""

    training: list[TrainingCost]
    embedding_seconds: float | None
    cache_bytes: int | None


@dataclass(frozen=True)
class Analysis:
    """Everything that a report says about a group besides its table, for the MOST_SYSTEMS systems
    with the best accuracy. Of a sweep only the setting that validation chose counts.

    Attributes:
        label_names: The names of labels 0..C-1.
        task: Name of the labels' task.
        transferred: Whether the runs are evaluated on another data set.
        left_out: Number of systems that are not shown in detail.
        tests: Number of pairs of systems that p is corrected for.
        comparisons: The best system compared with each other one.
        against_baseline: The best head that is no baseline compared with the best baseline; None
            without one of them.
        pairs: All pairs of systems.
        systems: Confusion, classes and calibration of each system.
        incomplete: Names of systems without saved predictions.
        curves: Metrics by epoch; empty if `transferred`.
        cost: Cost of the group; None if `transferred`.
    """

    label_names: list[str]
    task: str
    transferred: bool
    left_out: int
    tests: int
    comparisons: list[Comparison]
    against_baseline: Comparison | None
    pairs: list[Pair]
    systems: list[SystemAnalysis]
    incomplete: list[str]
    curves: list[Curve]
    cost: Cost | None


def analyse(cache_dir: Path, group: Group) -> Analysis:
    """Analyse a group from its runs' predictions and histories."""
    predictions: dict[str, list[Predictions]] = {}
    incomplete = []
    named = [(row, system) for row, system in group.named if row.chosen]
    for row, system in named:
        known = [one for one in system.predictions if one is not None]
        if len(known) == len(system.runs):
            predictions[row.name] = known
        else:
            incomplete.append(row.name)
    record = group.systems[0].runs[0].record
    labels = list(record.label_names)
    ranked = [row.name for row, _ in sorted(named, key=lambda one: -_accuracy(one[0]))]
    shown = ranked[:MOST_SYSTEMS]
    systems = {row.name: system for row, system in named}
    pairs, tests = tested_pairs(systems, predictions, set(shown))
    predictions = {name: own for name, own in predictions.items() if name in shown}
    systems = {name: system for name, system in systems.items() if name in shown}
    best = next((name for name in shown if name in predictions), None)
    transferred = group.systems[0].transfers is not None
    compared = with_best(best, systems, predictions, pairs)
    return Analysis(
        label_names=labels,
        task=record.task.name,
        transferred=transferred,
        left_out=len(ranked) - len(shown),
        tests=tests,
        comparisons=compared,
        against_baseline=_against_baseline(
            compared, [name for name in shown if name in predictions], systems
        ),
        pairs=pairs,
        systems=[_system(name, systems[name], own, labels) for name, own in predictions.items()],
        incomplete=incomplete,
        # A transfer has no training of its own: curves and cost are shown with the original one.
        curves=[] if transferred else _curves(systems),
        cost=None if transferred else _cost(cache_dir, group.section.cache, systems),
    )


def _against_baseline(
    compared: Sequence[Comparison], ranked: Sequence[str], systems: dict[str, System]
) -> Comparison | None:
    """The best trained head compared with the best baseline; one of the two is the best system,
    which is compared with all others. `ranked` are the systems, best first."""
    baseline = next((name for name in ranked if systems[name].is_baseline), None)
    head = next((name for name in ranked if not systems[name].is_baseline), None)
    for one in compared:
        if {one.first, one.second} == {head, baseline}:
            return one if one.first == head else one.turned()
    return None


def _accuracy(row: Row) -> float:
    figure = row.figures["accuracy"]
    return -1.0 if figure is None else figure.mean


def curve_metrics() -> list[str]:
    """The metrics that are drawn by epoch."""
    return [name for name, metric in METRICS.items() if metric.curve]


def drawn_metrics(curves: Sequence[Curve]) -> list[str]:
    """The curve metrics that all `curves` have, on train and validation."""
    known = [metrics.keys() for curve in curves for metrics in curve.splits.values()]
    return [name for name in curve_metrics() if all(name in names for names in known)]


def _per_class(one: Predictions) -> PerClass:
    return one.task.outcome(0.0, 0.0, 0.0, one.confusion).per_class


def _system(
    name: str, system: System, predictions: Sequence[Predictions], labels: Sequence[str]
) -> SystemAnalysis:
    every = [_per_class(one) for one in predictions]
    classes = []
    diagrams = [calibration(*one.decisions()) for one in predictions]
    first = diagrams[0]
    filled = np.flatnonzero(first.count)
    for c, label in enumerate(labels):
        precision, recall, f1 = (
            mean_std([float(figures[which][c]) for figures in every]) for which in range(3)
        )
        classes.append(ClassFigures(label, precision, recall, f1, int(every[0].support[c])))
    return SystemAnalysis(
        name=name,
        run=system.runs[0].id,
        seed=system.runs[0].record.seed,
        confusion=predictions[0].confusion.tolist(),
        classes=classes,
        calibration=Calibration(
            error=mean_std([diagram.error for diagram in diagrams]),
            own_error=first.error,
            confidence=first.confidence[filled].tolist(),
            accuracy=first.accuracy[filled].tolist(),
            count=first.count[filled].tolist(),
        ),
    )


def _curves(systems: dict[str, System]) -> list[Curve]:
    """One curve per system that was trained in epochs and has a saved history."""
    made = []
    for name, system in systems.items():
        histories = [one for run in system.runs if (one := run.history())]
        if not histories:
            continue
        # A head that stopped early does not count in later epochs.
        longest = max(len(history) for history in histories)
        splits: dict[str, dict[str, tuple[list[float], list[float] | None]]] = {}
        for split in ("train", "validation"):
            splits[split] = {}
            for metric in (*curve_metrics(), "ce"):  # CE is not drawn, but tells if it still falls
                by_epoch = [
                    [history[e][split].get(metric) for history in histories if len(history) > e]
                    for e in range(longest)
                ]
                if any(value is None for values in by_epoch for value in values):
                    continue  # some run is older than the metric, or the metric needs predictions
                means = [statistics.fmean(values) for values in by_epoch]
                stds = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in by_epoch]
                splits[split][metric] = (means, stds if len(histories) > 1 else None)
        # Epoch 0 is there for a head that is trained on top of another.
        epochs = [int(entry["epoch"]) for entry in max(histories, key=len)]
        made.append(Curve(name, epochs, splits))
    return made


def _cost(cache_dir: Path, cache: str, systems: dict[str, System]) -> Cost:
    path = embeddings_folder(cache_dir) / f"{cache}.h5"
    training = []
    for name, system in systems.items():
        seconds = mean_std([run.record.seconds for run in system.runs])
        heads = [run.record.heads_in_pass for run in system.runs]
        training.append(TrainingCost(name, seconds, (min(heads), max(heads))))
    return Cost(
        training=training,
        embedding_seconds=store.embedding_seconds(path),
        cache_bytes=path.stat().st_size if path.is_file() else None,
    )
