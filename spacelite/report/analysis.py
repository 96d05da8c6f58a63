"""A group of systems, example by example: which differences are real, curves, confusion,
calibration and cost."""

from __future__ import annotations

import itertools
import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import metrics, significance, specs, store
from spacelite.outputs import Outputs
from spacelite.report.groups import Group, System
from spacelite.report.rows import Figure, pooled
from spacelite.significance import Difference

log = logging.getLogger(__name__)

MOST_COMPARED = 20  # with the best, in words: who reads more?
CURVES = ("loss", "accuracy", "f1_macro", "recall", "precision")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same examples, the first less the second.

    Of the test split's uncertainty: the heads of the lowest seeds, their differences in `accuracy`
    and `f1_macro` with intervals, how many examples only one of them has right, and McNemar's
    `p`, by Holm's method `corrected` for all pairs of the group. Of the seeds': `over_seeds`, the
    difference in accuracy between heads of the same seed.
    """

    first: str
    second: str
    accuracy: Difference
    f1_macro: Difference
    only_first: int
    only_second: int
    identical: bool
    p: float
    corrected: float
    over_seeds: Figure | None
    seeds: int


@dataclass(frozen=True)
class Pair:
    """The accuracy of the heads of two systems, first less second, and McNemar's corrected p."""

    first: str
    second: str
    difference: float
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
    """How far a system's confidence can be trusted: the expected calibration error over seeds, and
    for each bin of one head's confidence its mean, the accuracy and the number of decisions."""

    error: Figure
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
    """All that a report says of a group beside its table. `transferred`: it is of evaluations on
    another data set; `incomplete`: systems of which no outputs are known."""

    label_names: list[str]
    multilabel: bool
    transferred: bool
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
    systems = {row.name: system for row, system in group.named}
    pairs = _pairs(outputs)
    transferred = group.systems[0].transfers is not None
    return Analysis(
        label_names=labels,
        multilabel=bool(record.get("multilabel")),
        transferred=transferred,
        comparisons=_comparisons(group, systems, outputs, pairs),
        pairs=pairs,
        systems=[_system(name, systems[name], own, labels) for name, own in outputs.items()],
        incomplete=incomplete,
        # Those of a transfer are of the same training, and stand with it.
        curves=[] if transferred else _curves(systems),
        cost=None if transferred else _cost(cache_dir, group),
    )


def _pairs(outputs: dict[str, list[Outputs]]) -> list[Pair]:
    """Every two systems of the same examples."""
    names = list(outputs)
    every = [
        (one, other)
        for one, other in itertools.combinations(names, 2)
        if np.array_equal(outputs[one][0].labels, outputs[other][0].labels)
    ]
    if not every:
        return []
    right = {name: own[0].right for name, own in outputs.items()}
    only = np.array([_only(right[one], right[other]) for one, other in every])
    corrected = significance.holm(significance.mcnemar(only[:, 0], only[:, 1]))
    return [
        Pair(one, other, float((first - second) / len(right[one])), float(p))
        for (one, other), (first, second), p in zip(every, only, corrected, strict=True)
    ]


def _only(first: Array, second: Array) -> tuple[int, int]:
    """How many examples only the first, and only the second, has right."""
    return int((first & ~second).sum()), int((second & ~first).sum())


def _comparisons(
    group: Group,
    systems: dict[str, System],
    outputs: dict[str, list[Outputs]],
    pairs: Sequence[Pair],
) -> list[Comparison]:
    """Of the systems whose outputs are known, the one with the highest accuracy in the table
    against the next best."""
    known = [row for row in group.section.rows if row.name in outputs]
    ranked = sorted(known, key=lambda row: -_mean(row.figures["accuracy"]))
    if len(ranked) < 2:
        return []
    best, others = ranked[0].name, {row.name for row in ranked[1 : MOST_COMPARED + 1]}
    corrected = {frozenset((pair.first, pair.second)): pair.corrected for pair in pairs}
    made = []
    for name, own in outputs.items():
        if name not in others or frozenset((best, name)) not in corrected:
            continue
        first, second = outputs[best][0], own[0]
        accuracy, f1 = significance.differences(first, second)
        b, c = _only(first.right, second.right)
        over_seeds = _over_seeds(systems[best], systems[name])
        made.append(
            Comparison(
                first=best,
                second=name,
                accuracy=accuracy,
                f1_macro=f1,
                only_first=b,
                only_second=c,
                identical=bool(np.array_equal(first.predicted, second.predicted)),
                p=float(significance.mcnemar(np.array(b), np.array(c))),
                corrected=corrected[frozenset((best, name))],
                over_seeds=pooled(over_seeds) if len(over_seeds) > 1 else None,
                seeds=len(over_seeds),
            )
        )
    return made


def _mean(figure: Figure | None) -> float:
    return -1.0 if figure is None else figure.mean


def _over_seeds(first: System, second: System) -> list[float]:
    """Differences in accuracy between heads of the same seed; logreg has none, and stands against
    each."""
    scores: list[dict[Any, float]] = []
    for system in (first, second):
        fixed = system.runs[0].record["head"] == "logreg"
        accuracies = [one["accuracy"] for one in system.scores()]
        seeds = [None if fixed else run.settings["seed"] for run in system.runs]
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


def _span(values: Sequence[int]) -> tuple[int, int]:
    return min(values), max(values)


def _cost(cache_dir: Path, group: Group) -> Cost:
    path = cache_dir / specs.FOLDER / f"{group.section.cache}.h5"
    return Cost(
        training=[
            TrainingCost(
                row.name,
                pooled([run.record["seconds"] for run in system.runs]),
                _span([run.record.get("heads_in_pass", 1) for run in system.runs]),
            )
            for row, system in group.named
        ],
        embedding_seconds=store.seconds_of(path),
        cache_bytes=path.stat().st_size if path.is_file() else None,
    )
