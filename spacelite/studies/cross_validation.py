"""Cross-validation: every head is trained on all folds but one and evaluated on that one, all heads
of all folds in one pass over the tokens.

Shapes: R repeats, F folds, N training examples, C classes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spacelite import heads
from spacelite.cache import texts
from spacelite.cache.store import Cache
from spacelite.data.writers import rounded
from spacelite.document import (
    SIGNIFICANT,
    Cell,
    Line,
    Table,
    p_value,
)
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.heads.config import system_names
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.significance import Difference, resampled
from spacelite.progress import OnProgress
from spacelite.runs.record import read_fields
from spacelite.settings import LARGEST_SEED, require, whole_number
from spacelite.studies.study import Study
from spacelite.tasks import Task, scored_by
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.training.batches import TrainingData
    from spacelite.training.config import TrainingConfig

log = logging.getLogger(__name__)

MOST = 1000  # folds, and repeats
MOST_SKLEARN_SEED = 2**32


@dataclass(frozen=True)
class HeadScores:
    """How good a head is on examples that it did not see."""

    head: HeadConfig
    figures: dict[str, Array]  # metric -> its value on each held-out fold, (R, F); NaN if undefined
    # For each training example by the head that did not see it, (R, N, C) float32; not saved.
    logits: Array = field(default_factory=lambda: np.empty(0))

    def mean(self, metric: str) -> float:
        """The mean of a metric over repeats and folds; NaN if it is undefined everywhere."""
        values = self.figures[metric]
        return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan

    def deviation(self, metric: str) -> float:
        """The standard deviation of a metric over repeats and folds."""
        values = self.figures[metric]
        return float(np.nanstd(values, ddof=1)) if np.isfinite(values).any() else math.nan


@dataclass(frozen=True)
class CrossValidation(Study):
    """The result of a cross-validation, the best system first."""

    title = "Cross-validation"

    folds: int
    repeats: int
    examples: int
    systems: list[HeadScores]
    seconds: float
    sample_weight: str | None = None  # the weights that heads were trained with
    groups: int | None = None  # their number, if each was kept in one fold
    # The fold of each example in each repeat, (R, N), and the labels; not saved.
    fold: Array = field(default_factory=lambda: np.empty((0, 0), np.int64))
    labels: Array = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def task(self) -> Task:
        """What the labels mean."""
        return scored_by(self.systems[0].figures)

    @property
    def named(self) -> dict[str, HeadScores]:
        """The heads by name: what tells them apart is part of it."""
        names = system_names([system.head for system in self.systems], seeds=True)
        return dict(zip(names, self.systems, strict=True))

    def name_of(self, system: HeadScores) -> str:
        """The name of one of the heads."""
        return next(name for name, other in self.named.items() if other is system)

    @property
    def baseline(self) -> HeadScores | None:
        """The best system that is a baseline."""
        return next((system for system in self.systems if system.head.is_baseline), None)

    def difference(
        self, first: HeadScores, second: HeadScores, metric: str | None = None
    ) -> tuple[Difference, float]:
        """A metric, by default accuracy or the RMSE, of one system minus that of another, with its
        95% interval, and the p-value of the corrected resampled t-test
        (`metrics.significance.resampled`)."""
        metric = metric or self.task.headline
        values = (first.figures[metric] - second.figures[metric]).flatten()
        return resampled(values, held_out=1 / self.folds)

    def _better(self, first: HeadScores, second: HeadScores) -> tuple[Difference, float]:
        """By how much one system is better than another, as `difference`."""
        difference, p = self.difference(first, second)
        higher = self.task.metrics[self.task.headline].higher_is_better
        return (difference if higher else difference.reversed()), p

    # As JSON, and as csv.

    def as_json(self) -> dict[str, Any]:
        """The figures as a JSON object: of each head by metric, in repeats and folds."""
        baseline = self.baseline
        systems = []
        for name, system in self.named.items():
            content: dict[str, Any] = {
                "system": name,
                "head": system.head.kind,
                "settings": system.head.settings(),
                "mean": {metric: system.mean(metric) for metric in system.figures},
                "deviation": {metric: system.deviation(metric) for metric in system.figures},
                "folds": {metric: values.tolist() for metric, values in system.figures.items()},
            }
            if baseline is not None and system is not baseline:
                difference, p = self.difference(system, baseline)
                content["more_than_baseline"] = {
                    self.task.headline: difference.value,
                    "interval": list(difference.interval),
                    "p": p,
                }
            systems.append(content)
        return {
            "folds": self.folds,
            "repeats": self.repeats,
            "examples": self.examples,
            "baseline": None if baseline is None else self.name_of(baseline),
            "seconds": self.seconds,
            **({} if self.sample_weight is None else {"sample_weight": self.sample_weight}),
            **({} if self.groups is None else {"groups": self.groups}),
            "systems": systems,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CrossValidation:
        """What `as_json` returned. Raises ValueError, KeyError or TypeError for anything else."""
        systems = [
            HeadScores(
                heads.config_from(system["head"], system["settings"]),
                # null becomes NaN.
                {metric: np.array(values, float) for metric, values in system["folds"].items()},
            )
            for system in content["systems"]
        ]
        saved = read_fields(cls, content, but=("systems", "fold", "labels"))
        return cls(systems=systems, **saved)

    def csv_rows(self, cache: Cache) -> list[Sequence[Any]]:
        """The predictions for the training examples, by the heads that did not see them, below a
        row of headings."""
        task, names = cache.task, cache.label_names
        (label,) = task.as_json([])
        columns: dict[str, Sequence[Any]] = {"index": range(len(self.labels))}
        sources = texts.files_and_rows(cache, "train")
        for name, values in zip(("file", "row"), sources, strict=True):
            columns[name] = [None] * len(self.labels) if values is None else values.tolist()
        columns[label] = [task.label_names(row, names) for row in self.labels]
        for repeat, fold in enumerate(self.fold):
            suffix = f" (repeat {repeat + 1})" if self.repeats > 1 else ""
            columns[f"fold{suffix}"] = fold.tolist()
            for head, system in self.named.items():
                probabilities = task.probabilities(system.logits[repeat])
                predicted: list[list[str]] = [[]] * len(fold)
                for number in range(self.folds):
                    held = fold == number
                    of_fold = task.trained_on(self.labels[~held])
                    given = of_fold.given(probabilities[held], names)
                    for row, of_row in zip(np.flatnonzero(held).tolist(), given, strict=True):
                        predicted[row] = of_row
                columns[f"{head}{suffix} predicted"] = predicted
                if not task.has_probabilities:
                    continue
                for name, of_label in zip(names, probabilities.T.tolist(), strict=True):
                    columns[f"{head}{suffix} probability_{name}"] = list(map(rounded, of_label))
        return [list(columns), *zip(*columns.values(), strict=True)]

    # For readers.

    def table(self) -> Table:
        """A line per head, the best first: metrics as means over folds with their standard
        deviations, and the difference to the best baseline, with its 95% interval."""
        lines, baseline, task = [], self.baseline, self.task
        headline = task.metrics[task.headline]
        for name, system in self.named.items():
            cells: list[str | Cell] = [name]
            for metric in task.in_studies:
                mean, write = system.mean(metric), task.metrics[metric].written
                std = f"± {write(system.deviation(metric), 3, mean)}"
                std = "" if metric == "ce" or math.isnan(mean) else std
                cells.append(Cell(write(mean, 3), std))
            if system is baseline:
                cells.append("–")
            elif baseline is not None:
                difference, _ = self.difference(system, baseline)
                value, low, high = map(headline.amount, (difference.value, *difference.interval))
                cells.append(f"{value} ({low} to {high})")
            lines.append(Line.of(*cells))
        more = []
        if baseline is not None:
            what = "Points more than" if headline.in_points else f"{headline.short} minus that of"
            more = [f"{what} {self.name_of(baseline)}"]
        headings = ["System", *(task.metrics[metric].short for metric in task.in_studies), *more]
        caption = "Figures on held-out folds, mean ± standard deviation"
        return Table(caption, headings, lines, "cross-validation")

    def tables(self) -> list[Table]:
        """The one table."""
        return [self.table()]

    @property
    def sentences(self) -> list[str]:
        """What was done, and whether the best head beats the best baseline."""
        times = "" if self.repeats == 1 else f" {self.repeats} times"
        whole = f", each of {self.groups:,} groups in one fold" if self.groups else ""
        sentences = [
            f"Means ± standard deviations over {self.folds * self.repeats} held-out folds: "
            f"{self.examples:,} training examples, divided into {self.folds} folds{times}{whole}."
        ]
        if self.sample_weight is not None:
            sentences.append(
                f"Heads were trained with weights of the examples, {self.sample_weight}; the "
                "figures count each held-out example once."
            )
        baseline = self.baseline
        trained = [system for system in self.systems if not system.head.is_baseline]
        if baseline is None or not trained:
            return sentences
        difference, p = self._better(trained[0], baseline)
        metric = self.task.metrics[self.task.headline]
        ahead = difference.value > 0
        by = difference if ahead else difference.reversed()
        low, high = map(metric.amount, by.interval)
        chance = ""
        if p < SIGNIFICANT:
            verb = "beats" if ahead else "is worse than"
        else:
            verb = "is ahead of" if ahead else "is behind"
            chance = ", which may be chance"
        which = "the best head" if len(self.systems) > 2 else "the head"
        by_how_much = f", by {metric.amount(by.value)}{metric.of_amount}{chance}"
        if not difference.value:
            verb, by_how_much = "is on average as good as", ""
        sentences.append(
            f"{self.name_of(trained[0])}, {which}, {verb} the best baseline, "
            f"{self.name_of(baseline)}{by_how_much} (95% interval {low} to {high}, {p_value(p)}; "
            "corrected resampled t-test of Nadeau and Bengio, which allows for the overlap of "
            "training sets)."
        )
        if len(trained) > 1:
            sentences.append(
                f"It is the best of {len(trained)} heads by these same figures, which are "
                "therefore slightly too good."
            )
        return sentences


def divide(
    labels: Array,
    task: Task,
    label_names: Sequence[str],
    *,
    count: int = 5,
    repeats: int = 1,
    seed: int = 0,
    groups: Array | None = None,
    same: Array | None = None,
) -> Array:
    """The fold of each example in each repeat, (R, N) int64: by scikit-learn's StratifiedKFold, or
    StratifiedGroupKFold where there are groups (N,), which are in one fold each, or texts repeat,
    whose numbers are `same` (N,). Raises SpaceliteError if there are too few examples of a label,
    or groups, for so many folds."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    require("folds", count, whole_number(2, MOST))
    require("repeats", repeats, whole_number(1, MOST))
    require("seed", seed, whole_number(0, LARGEST_SEED))
    if task.stratified:
        counts = task.label_counts(labels, len(label_names)).tolist()
        fewest, rare = min(
            (number, name) for number, name in zip(counts, label_names, strict=True) if number
        )
        if fewest < count:
            examples, way_out = "examples", "use fewer folds, or give more examples of it"
            if fewest == 1:  # there are at least two folds
                examples = "example"
                way_out = "give more examples of it, merge it with another label, or remove it"
            raise SpaceliteError(
                f"folds={count}: label {rare!r} has {fewest} training {examples}, and each fold "
                f"needs one: {way_out}",
                ["folds"],
            )
    elif len(labels) < count:
        raise SpaceliteError(f"folds={count}: there are {len(labels)} examples", ["folds"])
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != (len(labels),):
            raise SpaceliteError(
                f"there are {len(labels):,} training examples and {len(groups):,} groups",
                ["groups"],
            )
        if len(np.unique(groups)) == len(groups):
            warning = SpaceliteError(
                "every training example has a group of its own, so groups keep nothing together: "
                "give groups that several examples share",
                ["groups"],
            )
            log.warning(warning)
    same = np.arange(len(labels)) if same is None else same
    repeated = len(same) - len(np.unique(same))
    if repeated:
        log.info(
            "%s of %s training texts repeat%s another one and %s kept in one fold with it",
            f"{repeated:,}", f"{len(same):,}", *(("s", "is") if repeated == 1 else ("", "are")),
        )  # fmt: skip
    whole = _joined(same, groups) if repeated and groups is not None else groups
    whole = same if repeated and whole is None else whole
    if whole is not None and (number := len(np.unique(whole))) < count:
        raise SpaceliteError(
            f"folds={count}: the examples have {number} "
            f"{'different texts' if groups is None else 'groups'}, and each fold needs one",
            ["folds", "groups"],
        )
    strata = task.strata(labels)
    kind = StratifiedKFold if whole is None else StratifiedGroupKFold
    fold = np.empty((repeats, len(labels)), np.int64)
    for repeat in range(repeats):
        divider = kind(count, shuffle=True, random_state=(seed + repeat) % MOST_SKLEARN_SEED)
        for number, (_, held) in enumerate(divider.split(strata, strata, whole)):
            fold[repeat, held] = number
        # What is kept together may leave a fold empty, or a head with a single label.
        for number in range(count):
            held = fold[repeat] == number
            if not held.any():
                what = "repeated texts" if groups is None else "groups"
                raise SpaceliteError(
                    f"folds={count}: the {what} are too unequal, and a fold is empty: use fewer "
                    "folds",
                    ["folds", "groups"],
                )
            if not task.learnable(labels[~held]):
                remedy = "more folds" if groups is None else "other groups, or more folds"
                raise SpaceliteError(
                    f"folds={count}: outside of a fold all examples have the same label, of which "
                    f"its head would learn nothing: use {remedy}",
                    ["folds", "groups"],
                )
    return fold


def _joined(first: Array, second: Array) -> Array:
    """Groups (N,) that keep together what either of two divisions into groups does."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = (np.unique(each, return_inverse=True)[1] for each in (first, second))
    columns = columns + len(rows)
    pairs = coo_array((np.ones(len(rows)), (rows, columns)), shape=(2 * len(rows),) * 2)
    joined: Array = connected_components(pairs, directed=False)[1][rows]
    return joined


def weights_outside(fold: Array, count: int) -> list[Array]:
    """The weight of each training example for the head of each repeat and fold, R * F times (N,):
    0 in the fold, else 1."""
    return [np.asarray(row != number, np.float32) for row in fold for number in range(count)]


def train_on_each(
    data: TrainingData,
    configs: Sequence[HeadConfig],
    weights: Sequence[Array],
    training: TrainingConfig,
    *,
    device: str,
    on_progress: OnProgress,
) -> dict[HeadConfig, list[Array]]:
    """Train every head with each of the `weights` (N,) of the training examples, the iterative ones
    in one pass: each config's logits for all training examples, (N, C) for each of the weights."""
    from spacelite.training.loop import Member, train_weighted

    for config in configs:
        if not config.is_iterative:
            log.info("fitting %s on each fold", config.name)
    members = [Member(config, row) for config in configs for row in weights]
    learned = iter(train_weighted(data, members, training, device=device, on_progress=on_progress))
    return {config: [next(learned).logits for _ in weights] for config in configs}


def cross_validate(
    cache: Cache,
    configs: Sequence[HeadConfig],
    training: TrainingConfig,
    *,
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    groups: Array | None = None,
    weights: Array | None = None,
    device: str = "cpu",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> CrossValidation:
    """Cross-validate heads (without duplicates) on the train split of an open, complete cache.
    `weights` (N,) are those of the training examples in the losses; figures count each held-out
    example once. Progress is counted in tokens (`train`) and fits (`fit`)."""
    from spacelite.training import loop

    started = time.perf_counter()
    loop.check(configs, training, cache.task)
    labels = cache.splits["train"].labels
    fold = divide(
        labels, cache.task, cache.label_names, count=folds, repeats=repeats, seed=seed,
        groups=groups, same=texts.numbered(cache, "train"),
    )  # fmt: skip
    seen = weights_outside(fold, folds)
    if weights is not None:
        seen = [outside * weights for outside in seen]
        if not all(cache.task.learnable(labels[outside > 0]) for outside in seen):
            raise SpaceliteError(
                "sample_weight: outside of a fold, the examples with a weight above 0 are none or "
                "have a single label: give other weights, or use fewer folds",
                ["sample_weight", "folds"],
            )
    logits = train_on_each(cache, configs, seen, training, device=device, on_progress=on_progress)
    systems = [_scored(cache, config, logits[config], fold, folds) for config in configs]
    headline = cache.task.metrics[cache.task.headline]
    systems.sort(key=lambda system: -headline.sign * system.mean(cache.task.headline))
    seconds = time.perf_counter() - started
    return CrossValidation(
        folds, repeats, len(labels), systems, seconds, training.sample_weight,
        None if groups is None else len(np.unique(groups)), fold, labels,
    )  # fmt: skip


def _scored(
    cache: Cache, config: HeadConfig, logits: Sequence[Array], fold: Array, folds: int
) -> HeadScores:
    """A head's scores on held-out folds, from the logits (N, C) of its R * F heads."""
    from spacelite.training.engine import metrics_of

    repeats, examples = fold.shape
    labels = cache.splits["train"].labels
    held_out = np.empty((repeats, examples, len(cache.label_names)), np.float32)
    figures = {name: np.full((repeats, folds), np.nan) for name in cache.task.metrics}
    for repeat, number in np.ndindex(repeats, folds):
        held = fold[repeat] == number
        of_fold = logits[repeat * folds + number][held]
        held_out[repeat, held] = of_fold
        task = cache.task.trained_on(labels[~held])
        predictions = Predictions(np.flatnonzero(held), labels[held], of_fold, task)
        for name, value in metrics_of(predictions).items():
            figures[name][repeat, number] = np.nan if value is None else value
    return HeadScores(config, figures, held_out)
