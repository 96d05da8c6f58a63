"""A group of systems, example by example: which differences are real, curves, confusion,
calibration and cost."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.cache import store
from spacelite.cache.spec import embeddings_folder
from spacelite.metrics import significance
from spacelite.metrics.calibration import calibration
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.scores import METRICS, PerClass
from spacelite.metrics.significance import Difference
from spacelite.reports.analysis.groups import Group, System
from spacelite.reports.analysis.rows import MeanStd, Row, mean_std

MOST_SYSTEMS = 24  # of a group in detail: who reads more?

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same examples, the first less the second.

    Of the test split's uncertainty: the heads of the lowest seeds, their differences in `accuracy`
    and `f1_macro` with intervals, and McNemar's p, by Holm's method `corrected` for all pairs of
    the group. Of the seeds': `over_seeds`, the difference in accuracy between heads of the same
    seed; `fixed`, the systems (logreg) that have none.
    """

    first: str
    second: str
    accuracy: Difference
    f1_macro: Difference
    identical: bool
    corrected: float
    fixed: list[str]
    over_seeds: MeanStd | None
    seeds: int


@dataclass(frozen=True)
class Pair:
    """The heads of two systems, first less second: their difference in accuracy, how many examples
    only one of them predicts correctly, McNemar's `p`, and by Holm's method `corrected` for all
    pairs."""

    first: str
    second: str
    accuracy: Difference
    only_first: int
    only_second: int
    p: float
    corrected: float


@dataclass(frozen=True)
class ClassFigures:
    """A class' precision, recall and F1 over seeds, and how many examples have it."""

    label: str
    precision: MeanStd
    recall: MeanStd
    f1: MeanStd
    support: int


@dataclass(frozen=True)
class Calibration:
    """How far a system's confidence can be trusted: the expected calibration error over seeds; and
    of one head its own error and, for each bin of confidence, the mean, the accuracy and the number
    of decisions."""

    error: MeanStd
    own_error: float
    confidence: list[float]
    accuracy: list[float]
    count: list[int]


@dataclass(frozen=True)
class SystemAnalysis:
    """A system on the group's split. `confusion`, by true and predicted label, and the reliability
    diagram are of the head `run` with the lowest `seed`; all else is over seeds."""

    name: str
    run: str
    seed: int
    confusion: list[Any]
    classes: list[ClassFigures]
    calibration: Calibration


@dataclass(frozen=True)
class Curve:
    """A system's metrics by epoch over seeds: {split: {metric: (means, standard deviations)}}, the
    latter None with one seed."""

    name: str
    epochs: list[int]
    splits: dict[str, dict[str, tuple[list[float], list[float] | None]]]

    def band(self, split: str, metric: str) -> tuple[list[float], list[float]] | None:
        """A standard deviation below and above the means, within what a metric can be."""
        means, stds = self.splits[split][metric]
        if stds is None:
            return None
        most = METRICS[metric].most
        pairs = list(zip(means, stds, strict=True))
        return [max(m - s, 0.0) for m, s in pairs], [min(m + s, most) for m, s in pairs]


@dataclass(frozen=True)
class TrainingCost:
    """Seconds of the pass that a system's heads were trained in, and how many shared it, at
    least and at most: seeds may have been trained in several."""

    name: str
    seconds: MeanStd
    heads_in_pass: tuple[int, int]


@dataclass(frozen=True)
class Cost:
    """What a group cost: its training, seconds of embedding and bytes of the cache (None where
    they are not known, or the cache is gone)."""

    training: list[TrainingCost]
    embedding_seconds: float | None
    cache_bytes: int | None


@dataclass(frozen=True)
class Analysis:
    """All that a report says of a group beside its table: of the systems with the best accuracy, 24
    at most. `transferred`: it is of evaluations on another data set; `left_out`: how many systems
    more there are; `incomplete`: systems without saved predictions; `tests`: how many pairs
    of systems p is corrected for."""

    label_names: list[str]
    task: str
    transferred: bool
    left_out: int
    tests: int
    comparisons: list[Comparison]
    pairs: list[Pair]
    systems: list[SystemAnalysis]
    incomplete: list[str]
    curves: list[Curve]
    cost: Cost | None


def analyse(cache_dir: Path, group: Group) -> Analysis:
    """Analyse a group from its runs' predictions and histories."""
    predictions: dict[str, list[Predictions]] = {}
    incomplete = []
    for row, system in group.named:
        known = [one for one in system.predictions if one is not None]
        if len(known) == len(system.runs):
            predictions[row.name] = known
        else:
            incomplete.append(row.name)
    record = group.systems[0].runs[0].record
    labels = list(record.label_names)
    ranked = [row.name for row in sorted(group.section.rows, key=_worst_first, reverse=True)]
    shown = ranked[:MOST_SYSTEMS]
    pairs, tests = _pairs(predictions, set(shown))
    predictions = {name: own for name, own in predictions.items() if name in shown}
    systems = {row.name: system for row, system in group.named if row.name in shown}
    best = next((name for name in shown if name in predictions), None)
    transferred = group.systems[0].transfers is not None
    return Analysis(
        label_names=labels,
        task=record.task.name,
        transferred=transferred,
        left_out=len(ranked) - len(shown),
        tests=tests,
        comparisons=_comparisons(best, systems, predictions, pairs),
        pairs=pairs,
        systems=[_system(name, systems[name], own, labels) for name, own in predictions.items()],
        incomplete=incomplete,
        # Those of a transfer are of the same training, and stand with it.
        curves=[] if transferred else _curves(systems),
        cost=None if transferred else _cost(cache_dir, group.section.cache, systems),
    )


def _pairs(predictions: dict[str, list[Predictions]], shown: set[str]) -> tuple[list[Pair], int]:
    """Every two of the systems `shown` on the same examples; and how many pairs of all systems
    there are, for which p is corrected."""
    names = list(predictions)
    every = [
        (one, other)
        for one, other in itertools.combinations(names, 2)
        if np.array_equal(predictions[one][0].labels, predictions[other][0].labels)
    ]
    if not every:
        return [], 0
    correct = {name: own[0].correct for name, own in predictions.items()}
    only = np.array(
        [
            ((correct[one] & ~correct[other]).sum(), (correct[other] & ~correct[one]).sum())
            for one, other in every
        ]
    )
    p_values = significance.mcnemar(only[:, 0], only[:, 1])
    corrected = significance.holm(p_values)
    made = []
    for (one, other), counts, p, after in zip(every, only, p_values, corrected, strict=True):
        if {one, other} <= shown:
            first, second = counts.tolist()
            accuracy = significance.accuracy_difference(first, second, len(correct[one]))
            made.append(Pair(one, other, accuracy, first, second, float(p), float(after)))
    return made, len(every)


def _comparisons(
    best: str | None,
    systems: dict[str, System],
    predictions: dict[str, list[Predictions]],
    pairs: Sequence[Pair],
) -> list[Comparison]:
    """Of the systems with saved predictions, the one with the highest accuracy in the table
    (`best`) against the others."""
    made = []
    for pair in pairs:
        if best is None or best not in (pair.first, pair.second):
            continue
        turned = pair.second == best
        name = pair.first if turned else pair.second
        first, second = predictions[best][0], predictions[name][0]
        over_seeds = _over_seeds(systems[best], systems[name])
        made.append(
            Comparison(
                first=best,
                second=name,
                accuracy=pair.accuracy.turned() if turned else pair.accuracy,
                f1_macro=significance.f1_difference(first, second),
                identical=bool(np.array_equal(first.predicted, second.predicted)),
                corrected=pair.corrected,
                fixed=[one for one in (best, name) if systems[one].fixed],
                over_seeds=mean_std(over_seeds) if len(over_seeds) > 1 else None,
                seeds=len(over_seeds),
            )
        )
    return made


def _worst_first(row: Row) -> float:
    figure = row.figures["accuracy"]
    return -1.0 if figure is None else figure.mean


def _over_seeds(first: System, second: System) -> list[float]:
    """Differences in accuracy between heads of the same seed; logreg has none, and stands against
    each."""
    scores: list[dict[Any, float]] = []
    for system in (first, second):
        accuracies = [one["accuracy"] or 0.0 for one in system.scores()]
        seeds = [None if system.fixed else run.record.seed for run in system.runs]
        scores.append(dict(zip(seeds, accuracies, strict=True)))
    one, other = scores
    if None in one:
        one = dict.fromkeys(other, one[None])
    if None in other:
        other = dict.fromkeys(one, other[None])
    return [value - other[seed] for seed, value in one.items() if seed in other]


def curve_metrics() -> list[str]:
    """The metrics that are drawn by epoch."""
    return [name for name, metric in METRICS.items() if metric.curve]


def drawn_metrics(curves: Sequence[Curve]) -> list[str]:
    """Those of them that all `curves` have, on train and validation."""
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
    """One for each system that was trained in epochs and whose history is whole."""
    made = []
    for name, system in systems.items():
        histories = [one for run in system.runs if (one := run.history())]
        if not histories:
            continue
        # A head that ended early has no say in later epochs.
        longest = max(len(history) for history in histories)
        splits: dict[str, dict[str, tuple[list[float], list[float] | None]]] = {}
        for split in ("train", "validation"):
            splits[split] = {}
            for metric in curve_metrics():
                by_epoch = [
                    [history[e][split].get(metric) for history in histories if len(history) > e]
                    for e in range(longest)
                ]
                if any(value is None for values in by_epoch for value in values):
                    continue  # runs that are older than the metric, or it needs predictions
                means = [statistics.fmean(values) for values in by_epoch]
                stds = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in by_epoch]
                splits[split][metric] = (means, stds if len(histories) > 1 else None)
        made.append(Curve(name, list(range(1, longest + 1)), splits))
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
