"""Analysis of a group of systems: which differences are more than chance, curves, confusion,
calibration and cost."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Self

from spacelite.cache import folder, store
from spacelite.cache.spec import embeddings_folder
from spacelite.metrics import significance
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.scores import calibration
from spacelite.metrics.significance import Difference
from spacelite.reports.analysis.groups import Group, MeanStd, SeedRuns, mean_std
from spacelite.tasks import known_metrics
from spacelite.types import Array

MOST_SYSTEMS = 24  # systems of a group that are shown in detail
SYSTEMS, FITS, HEADS = "systems", "fits", "heads"  # what a comparison is of
# The seeds of the two heads that HEADS compares; None for a head without one, and for others.
HeadSeeds = tuple[int | None, int | None]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two systems on the same examples, and by how much the first is better than the second in
    metrics, with intervals: in the headline metric of the task, and of a `Comparison` in a second
    one."""

    first: str
    second: str
    differences: dict[str, Difference]  # by metric, the headline first
    p: float  # of that difference
    corrected: float  # the same, corrected for all pairs of the group (Holm)
    # SYSTEMS over their seeds, FITS (neither has a seed), or the HEADS of the lowest seeds, where a
    # system has a single one.
    basis: str
    heads: HeadSeeds = (None, None)

    @property
    def headline(self) -> Difference:
        """The difference in the headline metric."""
        return next(iter(self.differences.values()))

    def reversed(self) -> Self:
        """The second system beside the first."""
        return replace(
            self,
            first=self.second,
            second=self.first,
            differences={name: of.reversed() for name, of in self.differences.items()},
            heads=self.heads[::-1],
        )


@dataclass(frozen=True, kw_only=True)
class Comparison(Pair):
    """A pair with the best system, compared in more detail."""

    identical: bool  # whether all compared heads make the same predictions
    seeds: int  # of the system that has fewer; 1 for FITS and HEADS

    @property
    def other(self) -> Difference:
        """The difference in the second metric."""
        return list(self.differences.values())[1]


@dataclass(frozen=True)
class ClassFigures:
    """Precision, recall and F1 of a class over seeds, and `support`, its number of examples."""

    label: str
    precision: MeanStd
    recall: MeanStd
    f1: MeanStd
    support: int


@dataclass(frozen=True)
class CalibrationFigures:
    """How far a system's confidence can be trusted."""

    error: MeanStd  # expected calibration error over seeds
    own_error: float  # that of the head with the lowest seed, which the rest is about
    confidence: list[float]  # mean in each non-empty bin
    accuracy: list[float]
    count: list[int]  # decisions in each of these bins


@dataclass(frozen=True)
class SystemAnalysis:
    """A system on the group's split."""

    name: str
    run: str  # id of the run with the lowest seed
    seed: int | None
    confusion: list[Any]  # that run's counts by true and predicted label, as the task has them
    classes: list[ClassFigures]  # none if labels are no classes
    calibration: CalibrationFigures | None  # None if predictions have no probability
    # That run's metrics with their 95% intervals over examples, where the task has these.
    intervals: dict[str, tuple[float, tuple[float, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochCurve:
    """A system's metrics by epoch."""

    name: str
    epochs: list[int]
    # Split -> metric -> means and standard deviations over seeds; None for a single seed.
    splits: dict[str, dict[str, tuple[list[float], list[float] | None]]]

    def band(self, split: str, metric: str) -> tuple[list[float], list[float]] | None:
        """One standard deviation below and above the means, within the metric's range."""
        means, stds = self.splits[split][metric]
        if stds is None:
            return None
        of = known_metrics()[metric]
        pairs = list(zip(means, stds, strict=True))
        return [max(m - s, of.least) for m, s in pairs], [min(m + s, of.most) for m, s in pairs]


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
    its caches (None if one no longer exists)."""

    training: list[TrainingCost]
    embedding_seconds: float | None
    cache_bytes: int | None
    caches: int = 1  # number of them


@dataclass(frozen=True)
class Analysis:
    """Everything that a report says about a group besides its table, for the MOST_SYSTEMS systems
    that are best. Of a sweep only the setting that validation chose counts."""

    label_names: list[str]
    task: str
    transferred: bool  # whether the runs are evaluated on another data set
    left_out: int  # number of systems that are not shown in detail
    tests: int  # number of pairs of systems that p is corrected for
    comparisons: list[Comparison]  # the best system with each other one
    # The best head that is no baseline with the best baseline; None without one of them.
    against_baseline: Comparison | None
    pairs: list[Pair]
    systems: list[SystemAnalysis]
    incomplete: list[str]  # names of systems without saved predictions
    curves: list[EpochCurve]  # empty if `transferred`
    cost: Cost | None  # None if `transferred`


def analyse(cache_dir: Path, group: Group) -> Analysis:
    """Analyse a group from its runs' predictions and histories."""
    named = [(row, system) for row, system in group.named if row.chosen]
    systems = {row.system: system for row, system in named}
    predictions: dict[str, list[Predictions]] = {}
    for name, system in systems.items():
        known = [of_run for of_run in system.predictions if of_run is not None]
        if len(known) == len(system.runs):
            predictions[name] = known
    incomplete = [name for name in systems if name not in predictions]
    record = group.systems[0].record
    labels = list(record.label_names)
    ranked = [
        row.system
        for row, _ in sorted(
            named, key=lambda pair: -pair[0].goodness(pair[0].figures[record.task.headline])
        )
    ]
    shown = ranked[:MOST_SYSTEMS]
    pairs, tests = tested_pairs(systems, predictions, set(shown))
    predictions = {name: of_runs for name, of_runs in predictions.items() if name in shown}
    systems = {name: system for name, system in systems.items() if name in shown}
    best_first = [name for name in shown if name in predictions]
    transferred = group.systems[0].transfers is not None
    comparisons = _with_best(best_first[0], systems, predictions, pairs) if best_first else []
    return Analysis(
        label_names=labels,
        task=record.task.name,
        transferred=transferred,
        left_out=len(ranked) - len(shown),
        tests=tests,
        comparisons=comparisons,
        against_baseline=_against_baseline(comparisons, best_first, systems),
        pairs=pairs,
        systems=[
            _system(name, systems[name], of_runs, labels) for name, of_runs in predictions.items()
        ],
        incomplete=incomplete,
        # A transfer has no training of its own: curves and cost are shown with the original one.
        curves=[] if transferred else epoch_curves(systems),
        cost=None if transferred else _cost(cache_dir, group, systems),
    )


def tested_pairs(
    systems: dict[str, SeedRuns], predictions: dict[str, list[Predictions]], shown: set[str]
) -> tuple[list[Pair], int]:
    """All pairs of `shown` systems that predict the same examples, and the number of such pairs
    among all systems, for which p is corrected."""
    # How good each head is on each example, (K, N).
    values = {
        name: np.array([of_run.task.values(of_run.task.headline, of_run) for of_run in of_runs])
        for name, of_runs in predictions.items()
    }
    pairs = []
    for first, second in itertools.combinations(predictions, 2):
        if not np.array_equal(predictions[first][0].labels, predictions[second][0].labels):
            continue
        basis, task = _basis(systems[first], systems[second]), predictions[first][0].task
        if basis == SYSTEMS:
            paired = _same_seeds(systems[first], systems[second])
            test = significance.over_seeds(values[first], values[second], paired)
        else:
            test = task.compare(predictions[first][0], predictions[second][0])
        seeds = (systems[first].record.seed, systems[second].record.seed)
        pairs.append(
            Pair(
                first=first,
                second=second,
                differences={task.headline: test.difference},
                p=test.p,
                corrected=test.p,
                basis=basis,
                heads=seeds if basis == HEADS else (None, None),
            )
        )
    corrected = significance.holm(np.array([pair.p for pair in pairs]))
    return [
        replace(pair, corrected=float(p))
        for pair, p in zip(pairs, corrected, strict=True)
        if shown.issuperset((pair.first, pair.second))
    ], len(pairs)


def _basis(first: SeedRuns, second: SeedRuns) -> str:
    if first.fixed and second.fixed:
        return FITS
    several = all(system.fixed or len(system.runs) > 1 for system in (first, second))
    return SYSTEMS if several else HEADS


def _same_seeds(first: SeedRuns, second: SeedRuns) -> bool:
    seeds = [[run.record.seed for run in system.runs] for system in (first, second)]
    return not (first.fixed or second.fixed) and seeds[0] == seeds[1]


def _with_best(
    best: str,
    systems: dict[str, SeedRuns],
    predictions: dict[str, list[Predictions]],
    pairs: Sequence[Pair],
) -> list[Comparison]:
    """Compare `best`, the best system among those with saved predictions, with each of the
    others."""
    comparisons, task = [], predictions[best][0].task
    for pair in pairs:
        if best not in (pair.first, pair.second):
            continue
        pair = pair if pair.first == best else pair.reversed()
        first, second, seeds = predictions[best], predictions[pair.second], 1
        if pair.basis == SYSTEMS:
            values = [np.array([task.values(task.second, of_run) for of_run in of_runs])
                      for of_runs in (first, second)]  # fmt: skip
            both = systems[best], systems[pair.second]
            paired = _same_seeds(*both)
            other = significance.over_seeds(values[0], values[1], paired).difference
            seeds = min(len(s.runs) for s in both if not s.fixed)
        else:
            first, second = first[:1], second[:1]
            other = task.second_difference(first[0], second[0])
        # Heads that are compared: those of one seed, or each with each.
        combine = zip if len(first) == len(second) else itertools.product
        same = [np.array_equal(a.predicted, b.predicted) for a, b in combine(first, second)]
        both_metrics = {**pair.differences, task.second: other}
        pair = replace(pair, differences=both_metrics)
        comparisons.append(Comparison(**vars(pair), identical=all(same), seeds=seeds))
    return comparisons


def _against_baseline(
    comparisons: Sequence[Comparison], best_first: Sequence[str], systems: dict[str, SeedRuns]
) -> Comparison | None:
    """The best trained head compared with the best baseline; one of the two is the best system,
    which is compared with all others."""
    is_baseline = {name: systems[name].record.head.is_baseline for name in best_first}
    baseline = next((name for name in best_first if is_baseline[name]), None)
    head = next((name for name in best_first if not is_baseline[name]), None)
    for comparison in comparisons:
        if {comparison.first, comparison.second} == {head, baseline}:
            return comparison if comparison.first == head else comparison.reversed()
    return None


def _system(
    name: str, system: SeedRuns, predictions: Sequence[Predictions], labels: Sequence[str]
) -> SystemAnalysis:
    per_class = [
        figures
        for of_run in predictions
        if (figures := of_run.task.per_class(of_run.confusion)) is not None
    ]
    classes = []
    for c, label in enumerate(labels if per_class else ()):
        precision, recall, f1 = (
            mean_std([float(figures[which][c]) for figures in per_class]) for which in range(3)
        )
        classes.append(ClassFigures(label, precision, recall, f1, int(per_class[0].support[c])))
    decisions = [made for of_run in predictions if (made := of_run.decisions()) is not None]
    return SystemAnalysis(
        name=name,
        run=system.runs[0].id,
        seed=system.record.seed,
        confusion=predictions[0].confusion.tolist(),
        classes=classes,
        calibration=_calibration(decisions) if decisions else None,
        intervals=predictions[0].task.intervals(predictions[0]),
    )


def _calibration(decisions: Sequence[tuple[Array, Array]]) -> CalibrationFigures:
    """From confidence and correctness of the decisions of each run."""
    diagrams = [calibration(*of_run) for of_run in decisions]
    first = diagrams[0]
    filled = np.flatnonzero(first.count)
    return CalibrationFigures(
        error=mean_std([diagram.error for diagram in diagrams]),
        own_error=first.error,
        confidence=first.confidence[filled].tolist(),
        accuracy=first.accuracy[filled].tolist(),
        count=first.count[filled].tolist(),
    )


def curve_metrics() -> list[str]:
    """The metrics that are drawn by epoch."""
    return [name for name, metric in known_metrics().items() if metric.curve]


def drawn_metrics(curves: Sequence[EpochCurve]) -> list[str]:
    """The curve metrics that all `curves` have, on train and validation."""
    known = [metrics.keys() for curve in curves for metrics in curve.splits.values()]
    return [name for name in curve_metrics() if all(name in names for names in known)]


def epoch_curves(systems: dict[str, SeedRuns]) -> list[EpochCurve]:
    """One curve per system that is iterative and has a saved history."""
    curves = []
    for name, system in systems.items():
        histories = [history for history in system.histories if history]
        if not histories:
            continue
        longest = max(histories, key=len)
        splits: dict[str, dict[str, tuple[list[float], list[float] | None]]] = {}
        for split in ("train", "validation"):
            splits[split] = {}
            plain = system.record.task.plain_loss  # not drawn, but tells if it still falls
            for metric in dict.fromkeys((*curve_metrics(), plain)):
                # A head that stopped early does not count in later epochs.
                by_epoch = [
                    [history[e][split].get(metric) for history in histories if len(history) > e]
                    for e in range(len(longest))
                ]
                if any(value is None for values in by_epoch for value in values):
                    continue  # some run is older than the metric, or the metric needs predictions
                means = [statistics.fmean(values) for values in by_epoch]
                stds = [statistics.stdev(v) if len(v) > 1 else 0.0 for v in by_epoch]
                splits[split][metric] = (means, stds if len(histories) > 1 else None)
        # Epoch 0 is there for a head that is trained on top of another.
        curves.append(EpochCurve(name, [int(entry["epoch"]) for entry in longest], splits))
    return curves


def _cost(cache_dir: Path, group: Group, systems: dict[str, SeedRuns]) -> Cost:
    paths = [embeddings_folder(cache_dir) / f"{name}.h5" for name in group.caches]
    there = all(store.is_cache(path) for path in paths)
    training = []
    for name, system in systems.items():
        seconds = mean_std([run.record.seconds for run in system.runs])
        heads = [run.record.heads_in_pass for run in system.runs]
        training.append(TrainingCost(name, seconds, (min(heads), max(heads))))
    return Cost(
        training=training,
        embedding_seconds=store.embedding_seconds(paths),
        cache_bytes=sum(folder.state(path).bytes for path in paths) if there else None,
        caches=len(paths),
    )
