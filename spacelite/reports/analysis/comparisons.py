"""A group of systems, example by example: which differences are real, curves, confusion,
calibration and cost."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.cache import spec as specs
from spacelite.cache import store
from spacelite.metrics import scores as metrics
from spacelite.metrics import significance
from spacelite.metrics.predictions import Outputs
from spacelite.metrics.significance import Difference
from spacelite.reports.analysis.groups import Group, System
from spacelite.reports.analysis.rows import Figure, Row, pooled

MOST_SYSTEMS = 24  # of a group in detail: who reads more?
CURVES = ("loss", "accuracy", "f1_macro", "recall", "precision")

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
    over_seeds: Figure | None
    seeds: int


@dataclass(frozen=True)
class Pair:
    """The heads of two systems, first less second: their difference in accuracy, how many examples
    only one of them has right, McNemar's `p`, and by Holm's method `corrected` for all pairs."""

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
    precision: Figure
    recall: Figure
    f1: Figure
    support: int


@dataclass(frozen=True)
class Calibration:
    """How far a system's confidence can be trusted: the expected calibration error over seeds; and
    of one head its own error and, for each bin of confidence, the mean, the accuracy and the number
    of decisions."""

    error: Figure
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
    """A system's metrics by epoch over seeds: {split: {metric: (means, spreads)}}, spreads None
    with one seed."""

    name: str
    epochs: list[int]
    splits: dict[str, dict[str, tuple[list[float], list[float] | None]]]

    def band(self, split: str, metric: str) -> tuple[list[float], list[float]] | None:
        """A standard deviation below and above the means, within what a metric can be."""
        means, spreads = self.splits[split][metric]
        if spreads is None:
            return None
        most = math.inf if metric == "loss" else 1.0
        pairs = list(zip(means, spreads, strict=True))
        return [max(m - s, 0.0) for m, s in pairs], [min(m + s, most) for m, s in pairs]


@dataclass(frozen=True)
class TrainingCost:
    """Seconds of the pass that a system's heads were trained in, and how many shared it, at
    least and at most: seeds may have been trained in several."""

    name: str
    seconds: Figure
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
    more there are; `incomplete`: systems of which no outputs are known; `tests`: how many pairs
    of systems p is corrected for."""

    label_names: list[str]
    multilabel: bool
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
    """Analyse a group from its runs' outputs and histories."""
    outputs: dict[str, list[Outputs]] = {}
    incomplete = []
    for row, system in group.named:
        known = [one for one in system.outputs if one is not None]
        if len(known) == len(system.runs):
            outputs[row.name] = known
        else:
            incomplete.append(row.name)
    record = group.systems[0].runs[0].record
    labels: list[str] = record["label_names"]
    ranked = [row.name for row in sorted(group.section.rows, key=_worst_first, reverse=True)]
    shown = ranked[:MOST_SYSTEMS]
    pairs, tests = _pairs(outputs, set(shown))
    outputs = {name: own for name, own in outputs.items() if name in shown}
    systems = {row.name: system for row, system in group.named if row.name in shown}
    best = next((name for name in shown if name in outputs), None)
    transferred = group.systems[0].transfers is not None
    return Analysis(
        label_names=labels,
        multilabel=bool(record.get("multilabel")),
        transferred=transferred,
        left_out=len(ranked) - len(shown),
        tests=tests,
        comparisons=_comparisons(best, systems, outputs, pairs),
        pairs=pairs,
        systems=[_system(name, systems[name], own, labels) for name, own in outputs.items()],
        incomplete=incomplete,
        # Those of a transfer are of the same training, and stand with it.
        curves=[] if transferred else _curves(systems),
        cost=None if transferred else _cost(cache_dir, group.section.cache, systems),
    )


def _pairs(outputs: dict[str, list[Outputs]], shown: set[str]) -> tuple[list[Pair], int]:
    """Every two of the systems `shown` on the same examples; and how many pairs of all systems
    there are, for which p is corrected."""
    names = list(outputs)
    every = [
        (one, other)
        for one, other in itertools.combinations(names, 2)
        if np.array_equal(outputs[one][0].labels, outputs[other][0].labels)
    ]
    if not every:
        return [], 0
    right = {name: own[0].right for name, own in outputs.items()}
    only = np.array(
        [
            ((right[one] & ~right[other]).sum(), (right[other] & ~right[one]).sum())
            for one, other in every
        ]
    )
    p_values = significance.mcnemar(only[:, 0], only[:, 1])
    corrected = significance.holm(p_values)
    made = []
    for (one, other), counts, p, after in zip(every, only, p_values, corrected, strict=True):
        if {one, other} <= shown:
            first, second = counts.tolist()
            accuracy = significance.accuracy_difference(first, second, len(right[one]))
            made.append(Pair(one, other, accuracy, first, second, float(p), float(after)))
    return made, len(every)


def _comparisons(
    best: str | None,
    systems: dict[str, System],
    outputs: dict[str, list[Outputs]],
    pairs: Sequence[Pair],
) -> list[Comparison]:
    """Of the systems whose outputs are known, the one with the highest accuracy in the table
    (`best`) against the others."""
    made = []
    for pair in pairs:
        if best is None or best not in (pair.first, pair.second):
            continue
        turned = pair.second == best
        name = pair.first if turned else pair.second
        first, second = outputs[best][0], outputs[name][0]
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
                over_seeds=pooled(over_seeds) if len(over_seeds) > 1 else None,
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
        accuracies = [one["accuracy"] for one in system.scores()]
        seeds = [None if system.fixed else run.settings["seed"] for run in system.runs]
        scores.append(dict(zip(seeds, accuracies, strict=True)))
    one, other = scores
    if None in one:
        one = dict.fromkeys(other, one[None])
    if None in other:
        other = dict.fromkeys(one, other[None])
    return [value - other[seed] for seed, value in one.items() if seed in other]


def _system(
    name: str, system: System, outputs: Sequence[Outputs], labels: Sequence[str]
) -> SystemAnalysis:
    every = [metrics.per_class(one.confusion) for one in outputs]
    classes = []
    diagrams = [metrics.calibration(*one.decisions()) for one in outputs]
    first = diagrams[0]
    filled = np.flatnonzero(first.count)
    for c, label in enumerate(labels):
        precision, recall, f1 = (
            pooled([float(figures[which][c]) for figures in every]) for which in range(3)
        )
        classes.append(ClassFigures(label, precision, recall, f1, int(every[0].support[c])))
    return SystemAnalysis(
        name=name,
        run=system.runs[0].id,
        seed=system.runs[0].settings["seed"],
        confusion=outputs[0].confusion.tolist(),
        classes=classes,
        calibration=Calibration(
            error=pooled([diagram.error for diagram in diagrams]),
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
            for metric in CURVES:
                by_epoch = [
                    [history[e][split][metric] for history in histories if len(history) > e]
                    for e in range(longest)
                ]
                means = [statistics.fmean(values) for values in by_epoch]
                spreads = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in by_epoch]
                splits[split][metric] = (means, spreads if len(histories) > 1 else None)
        made.append(Curve(name, list(range(1, longest + 1)), splits))
    return made


def _cost(cache_dir: Path, cache: str, systems: dict[str, System]) -> Cost:
    path = cache_dir / specs.FOLDER / f"{cache}.h5"
    training = []
    for name, system in systems.items():
        seconds = pooled([run.record["seconds"] for run in system.runs])
        heads = [run.record.get("heads_in_pass", 1) for run in system.runs]
        training.append(TrainingCost(name, seconds, (min(heads), max(heads))))
    return Cost(
        training=training,
        embedding_seconds=store.seconds_of(path),
        cache_bytes=path.stat().st_size if path.is_file() else None,
    )
