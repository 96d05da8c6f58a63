"""The learning curve: how good heads are that were trained on fewer examples, and what more labels
would be worth.

Shapes: M sizes, S seeds, N training and V validation examples, n examples of a subset, C labels.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from spacelite import heads
from spacelite.cache.split import CachedSplit, TokenRows, offsets_of, spans, tokens_of
from spacelite.cache.store import Cache
from spacelite.data.writers import rounded
from spacelite.document import (
    Cell,
    Chart,
    Line,
    Series,
    Table,
    p_value,
)
from spacelite.errors import SpaceliteError
from spacelite.heads import POOLINGS, HeadConfig
from spacelite.heads.config import system_names
from spacelite.metrics import power_law
from spacelite.metrics.power_law import FEWEST_SIZES, Extrapolation
from spacelite.metrics.scores import Metric
from spacelite.progress import OnProgress
from spacelite.runs.record import read_fields
from spacelite.studies.study import Study
from spacelite.tasks import Task, known_metrics
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.training.config import TrainingConfig
    from spacelite.training.engine import Evaluated

ALL = "all"  # the whole train split, as a size
FIRST, TIMES = 16, 4  # the smallest of the default sizes, and what each is of the one before
NEARLY_ALL = 0.8  # share of all examples
ROWS_AT_ONCE = 2**17  # tokens
GROUPS = 40  # of validation examples, each left out once
WELL = 0.1  # p from which on figures follow a power law well
MISFIT = 0.01  # p below which figures do not follow a power law
FEWEST_SEEDS = 3  # fewer say too little about how much figures vary
HARDLY = 0.005  # a gain that is at most this large is not worth twice the labels
ROUNDED = 0.0005  # what is shown as 0.0 points
CLEARLY = 2.0  # standard errors by which figures fall
POINTS = 150  # of a drawn power law


@dataclass(frozen=True, eq=False)
class HeadCurve:
    """How good a head is that was trained on subsets of each size."""

    head: HeadConfig  # with seed 0
    # Metric -> its value on validation, (M, S); NaN if undefined, or if the head diverged.
    figures: dict[str, Array]
    # The covariance of the mean values of the curve's metric at each size, over the choice of
    # validation examples, (M, M).
    of_validation: Array
    # How many different heads there are at each size, (M,): one on all examples, without a seed.
    drawn: Array

    def mean(self, metric: str) -> Array:
        """The mean of a metric over seeds, (M,)."""
        mean: Array = self.figures[metric].mean(axis=1)
        return mean

    def deviation(self, metric: str) -> Array:
        """The standard deviation of a metric over seeds, (M,); NaN where there is one head."""
        if self.figures[metric].shape[1] < 2:
            return np.full(len(self.drawn), np.nan)
        deviation = self.figures[metric].std(axis=1, ddof=1)
        return np.where(self.drawn > 1, deviation, np.nan)


@dataclass(frozen=True, eq=False)
class Curve(Study):
    """A learning curve, by `sizes` in ascending order; the best head at the largest size first."""

    title = "What more labels would be worth"

    sizes: list[int]
    seeds: list[int]
    examples: int  # N, all examples of the train split
    validation: int  # V
    metric: str  # that is extrapolated
    systems: list[HeadCurve]
    seconds: float

    @property
    def of(self) -> Metric:
        """The metric."""
        return known_metrics()[self.metric]

    @cached_property
    def named(self) -> dict[str, HeadCurve]:
        """The heads by name: what tells them apart is part of it."""
        names = system_names([system.head for system in self.systems], seeds=True)
        return dict(zip(names, self.systems, strict=True))

    @property
    def chosen(self) -> HeadCurve:
        """The system that a reader would use: the best one that is no baseline, if there is one."""
        trained = (system for system in self.systems if not system.head.is_baseline)
        return next(trained, self.systems[0])

    @cached_property
    def extrapolations(self) -> dict[str, Extrapolation | None]:
        """What twice as many examples as in the largest subset would be worth, by system; None with
        too few sizes. With a few examples, heads may still be close to chance: the smallest sizes
        are left out for as long as the others follow no power law, down to four sizes."""
        return {name: self._extrapolation(system) for name, system in self.named.items()}

    def _extrapolation(self, system: HeadCurve) -> Extrapolation | None:
        errors = self.of.error(system.mean(self.metric))
        known = np.flatnonzero(np.isfinite(errors))
        if len(known) < FEWEST_SIZES or known[-1] != len(self.sizes) - 1:
            return None
        deviations = self.standard_errors(system)
        parts = sum(size < self.examples for size in self.sizes)
        while True:
            extrapolation = power_law.extrapolate(
                np.array(self.sizes)[known],
                errors[known],
                None if deviations is None else deviations[known],
                shared=system.of_validation[np.ix_(known, known)],
                freedom=parts * (len(self.seeds) - 1) - 2.0,  # two are spent on smoothing
            )
            if not extrapolation.p < WELL or len(known) == FEWEST_SIZES:
                return extrapolation
            known = known[1:]

    def standard_errors(self, system: HeadCurve) -> Array | None:
        """The standard error of the mean at each size, over the choice of training examples and
        seeds, (M,); None if too few seeds say nothing about it.

        Two subsets of n out of N examples have a share n / N in common, so that S of them vary less
        than S new draws would: their variance s^2 is about (1 - n / N) v, with v that of new draws,
        and that of their mean is v ((1 - n / N) / S + n / N), as Nadeau and Bengio (2003) correct
        the variance over folds. v is smoothed over sizes, and that of all N examples, of which
        there is one draw, is v there. Different sizes count as independent: nested subsets are
        alike, which makes differences between sizes vary a little less.
        """
        sizes, seeds = np.array(self.sizes), len(self.seeds)
        fraction = sizes / self.examples
        values = system.figures[self.metric]
        used = np.isfinite(values).all(axis=1) & (fraction < 1)
        if seeds < FEWEST_SEEDS or used.sum() < 2:
            return None
        variances = values[used].var(axis=1, ddof=1) / (1 - fraction[used])
        smoothed = power_law.smoothed(sizes, variances, sizes[used])
        deviations: Array = np.sqrt(smoothed * ((1 - fraction) / seeds + fraction))
        return deviations

    # As JSON, and as csv.

    def as_json(self) -> dict[str, Any]:
        """The figures as a JSON object: of each head by metric, over sizes and seeds."""
        systems = []
        for name, system in self.named.items():
            law = self.extrapolations[name]
            systems.append(
                {
                    "system": name,
                    "head": system.head.kind,
                    "settings": system.head.settings(),
                    "mean": {name: system.mean(name).tolist() for name in system.figures},
                    "deviation": {name: system.deviation(name).tolist() for name in system.figures},
                    "seeds": {name: values.tolist() for name, values in system.figures.items()},
                    "of_validation": system.of_validation.tolist(),
                    "drawn": np.asarray(system.drawn).tolist(),
                    "extrapolation": None if law is None else law.as_json(),
                }
            )
        names = ("sizes", "seeds", "examples", "validation", "metric", "seconds")
        return {**{name: getattr(self, name) for name in names}, "systems": systems}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Curve:
        """What `as_json` returned. Raises ValueError, KeyError or TypeError for anything else."""
        systems = [
            HeadCurve(
                heads.config_from(system["head"], system["settings"]),
                # null becomes NaN.
                {metric: np.array(values, float) for metric, values in system["seeds"].items()},
                np.array(system["of_validation"], float),
                np.array(system["drawn"], np.int64),
            )
            for system in content["systems"]
        ]
        return cls(systems=systems, **read_fields(cls, content, but=("systems",)))

    def csv_rows(self) -> list[Sequence[Any]]:
        """A row for each system, size and seed, below a row of headings."""
        metrics = list(self.systems[0].figures)
        rows: list[Sequence[Any]] = [("system", "size", "seed", *metrics)]
        for name, system in self.named.items():
            for i, j in np.ndindex(len(self.sizes), len(self.seeds)):
                values = (float(system.figures[metric][i, j]) for metric in metrics)
                figures = [None if math.isnan(value) else rounded(value) for value in values]
                rows.append([name, self.sizes[i], self.seeds[j], *figures])
        return rows

    # For readers.

    def table(self) -> Table:
        """A line per size, a column per system: the mean over seeds and its standard deviation; at
        last what is extrapolated to twice the largest size."""
        lines = []
        for number, size in enumerate(self.sizes):
            cells: list[str | Cell] = [f"{size:,}"]
            for system in self.named.values():
                mean = float(system.mean(self.metric)[number])
                deviation = float(system.deviation(self.metric)[number])
                if math.isnan(mean):
                    cells.append("–")
                else:
                    write = self.of.written
                    std = "" if math.isnan(deviation) else f"± {write(deviation, 3, mean)}"
                    cells.append(Cell(write(mean, 3), std))
            lines.append(Line.of(*cells))
        ahead = []
        for name, system in self.named.items():
            law = self.extrapolations[name]
            if followed(law):
                value = float(system.mean(self.metric)[-1]) + self.of.sign * law.gain.value
                ahead.append(self.of.written(value, 3))
            else:
                ahead.append("–")
        if any(value != "–" for value in ahead):
            twice = f"{2 * self.sizes[-1]:,} (extrapolated)"
            lines.append(Line.of(twice, *ahead, kind="ahead"))
        caption = f"{self.of.heading} on validation by number of training examples"
        return Table(caption, ["Examples", *self.named], lines, "learning-curve")

    def tables(self) -> list[Table]:
        """The one table."""
        return [self.table()]

    def chart(self) -> Chart:
        """What is drawn: the systems' figures, and the power law of the head that the sentences are
        about."""
        heading = f"{self.of.heading} on validation"
        series = []
        for name, system in self.named.items():
            means, deviations = system.mean(self.metric), system.deviation(self.metric)
            line: list[tuple[float, float]] = []
            ahead, law = None, self.extrapolations[name]
            if system is self.chosen and followed(law):
                sizes = np.geomspace(law.smallest, law.to, POINTS)
                errors = law.law.error(sizes)
                best = self.of.most if self.of.higher_is_better else self.of.least
                values = best - self.of.sign * errors
                line = list(zip(sizes.tolist(), values.tolist(), strict=True))
                now = float(means[-1])
                value, low, high = (
                    now + self.of.sign * end for end in (law.gain.value, *law.gain.interval)
                )
                ahead = (law.to, value, low, high)
            series.append(
                Series(name, self.sizes, means.tolist(), deviations.tolist(), line, ahead)
            )
        text = (
            f"{heading} by number of training examples: means over seeds, bands of one standard "
            "deviation"
        )
        if any(curve.line for curve in series):
            text += (
                "; dashed, the power law, extrapolated to twice the examples with its 95% interval"
            )
        return Chart("learning-curve", heading, f"{text}.", series)

    @property
    def sentences(self) -> list[str]:
        """What was measured, and what more labels would be worth."""
        system, metric = self.chosen, self.of
        name = next(name for name, other in self.named.items() if other is system)
        law, means = self.extrapolations[name], system.mean(self.metric)
        seeds = len(self.seeds)
        over = "" if seeds == 1 else f"for each of the {seeds} seeds, "
        averaged = "" if seeds == 1 else ", means ± standard deviations over seeds"
        sentences = [
            f"{metric.heading} on {self.validation:,} validation examples{averaged}: "
            f"{over}stratified subsets of the {self.examples:,} training examples, each a part "
            "of the next. Test was not read.",
            self._worth(name, system, law),
        ]
        if followed(law) and law.smallest != self.sizes[0]:
            sentences.append(
                f"The power law was fitted from {law.smallest:,} examples on: fewer do not follow "
                "it."
            )
        sentences += self._falls(name, system)
        if len(means) > 1 and np.isfinite(means[-2:]).all():
            gain = metric.sign * float(means[-1] - means[-2])
            sentences.append(
                f"The last step measured, from {self.sizes[-2]:,} to {self.sizes[-1]:,} examples, "
                f"{'brought' if gain >= 0 else 'cost'} it {metric.amount(abs(gain))}"
                f"{' points' if metric.in_points else metric.of_amount}."
            )
        best_name, best = next(iter(self.named.items()))
        if best is not system:
            figures = [metric.written(float(of.mean(self.metric)[-1]), 3) for of in (best, system)]
            sentences.append(
                f"{best_name}, a baseline, is better than {name} at {self.sizes[-1]:,} examples: "
                f"{figures[0]} to {figures[1]}."
            )
        return sentences

    def _worth(self, name: str, system: HeadCurve, law: Extrapolation | None) -> str:
        """What twice the labels would be worth."""
        means, most = system.mean(self.metric), self.sizes[-1]
        if law is None:
            known = int(np.isfinite(means).sum())
            return (
                f"What more labels would be worth to {name} is not extrapolated: that takes "
                f"figures at {FEWEST_SIZES} sizes or more, the largest among them, and there are "
                f"{known}."
            )
        if not followed(law):
            return (
                f"The figures of {name} do not follow a power law ({p_value(law.p)}), so nothing "
                "is extrapolated from them: what more labels would be worth remains open."
            )
        twice = f"Twice the labels ({2 * most:,} in place of {most:,})"
        metric, now, gain = self.of, float(means[-1]), law.gain.value
        low, high = law.gain.interval
        after = metric.written(now + metric.sign * gain, 3, now)
        step = f"{metric.written(now, 3)} → {after}, extrapolated"
        about = f"about {metric.amount(gain)}{metric.of_amount}"
        unit = now if metric.power else 1.0  # shares of a figure that has a unit
        if math.isnan(low):
            return (
                f"{twice} would be worth {about} to {name}: {step}. With fewer than 3 seeds there "
                "is no telling how sure this is."
            )
        within = f"(95% interval {metric.amount(low)} to {metric.amount(high)})"
        if high <= HARDLY * unit:
            return f"{twice} would hardly help {name}: {about} {within}, {step}."
        if low < ROUNDED * unit:
            return (
                f"{twice} may be worth nothing to {name}, or up to {metric.amount(high)}"
                f"{metric.of_amount}: {about} {within}, {step}."
            )
        return f"{twice} would be worth {about} {within} to {name}: {step}."

    def _falls(self, name: str, system: HeadCurve) -> list[str]:
        """Where more examples first made the head clearly worse, as a sentence."""
        means, errors = system.mean(self.metric), self.standard_errors(system)
        points = " points" if self.of.in_points else self.of.of_amount
        if errors is None:
            return []
        for number in range(len(means) - 1):
            fall = self.of.sign * float(means[number] - means[number + 1])
            if fall > CLEARLY * math.hypot(errors[number], errors[number + 1]):
                first, second = self.sizes[number : number + 2]
                return [
                    f"From {first:,} to {second:,} examples, {name} got worse by "
                    f"{self.of.amount(fall)}{points}: that more labels never hurt, as the "
                    "extrapolation assumes, is not sure here."
                ]
        return []


def followed(law: Extrapolation | None) -> TypeGuard[Extrapolation]:
    """Whether figures follow the power law that was fitted to them, if any was, for all that is
    known."""
    return law is not None and not law.p < MISFIT


def curve_metric(metric: str | None, task: Task) -> str:
    """A metric of a task, by default the headline, as `Task.metric`. Raises SpaceliteError unless
    it has a best value, from which errors are counted."""
    choices = [name for name, of in task.metrics.items() if np.isfinite(of.most) or of.power == 1]
    return task.metric(metric, task.headline, among=choices)


# Subsets of the train split: stratified, nested, and held in memory.


def sizes_of(sizes: Sequence[int | str] | None, cache: Cache) -> list[int]:
    """Sizes in ascending order, "all" as the number of examples; by default 16, 64, 256, ... and
    all. Raises SpaceliteError for what is no whole number, larger than the train split, or smaller
    than the number of labels, of each of which a subset needs an example."""
    examples = len(cache.splits["train"])
    counts = cache.task.label_counts(cache.splits["train"].labels, len(cache.label_names))
    least = int((counts > 0).sum())
    if sizes is None:
        return default_sizes(examples, least)
    numbers = set()
    for size in sizes:
        if size == ALL:
            numbers.add(examples)
            continue
        if isinstance(size, bool) or not hasattr(size, "__index__"):
            raise SpaceliteError(f"sizes={size!r}: give whole numbers, or {ALL!r}", ["sizes"])
        number = int(size)
        if number > examples:
            raise SpaceliteError(
                f"sizes={number}: the train split has {examples:,} examples; {ALL!r} means all of "
                "them",
                ["sizes"],
            )
        if number < least:
            raise SpaceliteError(
                f"sizes={number}: the examples have {least} labels, and a subset needs one of "
                f"each: give {least} or more",
                ["sizes"],
            )
        numbers.add(number)
    if not numbers:
        raise SpaceliteError(f"sizes=[]: give whole numbers, or {ALL!r}", ["sizes"])
    return sorted(numbers)


def default_sizes(examples: int, least: int) -> list[int]:
    """16, 64, 256, ... from `least` on and below the number of examples, and at last all of them;
    one that is nearly all of them is halved."""
    sizes, size = [], FIRST
    while size < examples:
        sizes.append(size if size <= NEARLY_ALL * examples else size // 2)
        size *= TIMES
    return [*(size for size in sizes if size >= least), examples]


def nested(labels: Array, task: Task, sizes: Sequence[int], seed: int) -> list[Array]:
    """Draw a subset of each size (in ascending order), each a part of the next: the indices of its
    examples, in ascending order. Strata keep their proportions as far as whole numbers allow
    (largest remainders), and have at least one example each."""
    random = np.random.default_rng([seed, 1])
    strata = task.fine_strata(labels)
    numbers, counts = np.unique(strata, return_counts=True)
    orders = [random.permutation(np.flatnonzero(strata == number)) for number in numbers]
    taken, subsets = np.zeros(len(numbers), np.int64), []
    for size in sizes:
        taken = apportioned(counts, size, taken)
        parts = [order[:count] for order, count in zip(orders, taken.tolist(), strict=True)]
        subsets.append(np.sort(np.concatenate(parts)))
    return subsets


def apportioned(counts: Array, size: int, least: Array) -> Array:
    """How many examples of each of K strata a subset of `size` has, (K,), from those that there
    are, `counts` (K,): proportional by largest remainders, at least one of each if the size allows,
    and no fewer than the next smaller subset has, `least` (K,)."""
    quotas = size * counts / counts.sum()
    least = np.maximum(least, 1) if size >= len(counts) else least
    taken: Array = np.clip(np.floor(quotas + 1e-9).astype(np.int64), least, counts)
    while taken.sum() > size:
        taken[np.where(taken > least, taken - quotas, -np.inf).argmax()] -= 1
    while taken.sum() < size:
        taken[np.where(taken < counts, quotas - taken, -np.inf).argmax()] += 1
    return taken


def in_memory(
    split: CachedSplit | TokenRows, configs: Sequence[HeadConfig], rows: Array | None = None
) -> TokenRows:
    """Examples of a split (`rows`, in ascending order; by default all), with what heads read of
    them."""
    if isinstance(split, TokenRows):
        return split if rows is None else split.part(rows)
    rows = np.arange(len(split)) if rows is None else rows
    index = tokens_of(split.offsets, rows)
    examples = TokenRows(
        rows=_hidden(split, rows, index),
        offsets=offsets_of(split.lengths[rows]),
        stored=split.stored,
        token_ids=split.read_token_ids()[index],
        labels=split.labels[rows],
    )
    if any(POOLINGS[name].from_backbone for config in configs for name in config.poolings):
        examples = replace(examples, pooled=split.pooled[rows])
    if any(config.reads_layers for config in configs):
        examples = replace(examples, layer_means=split.layer_means[rows])
    return examples


def _hidden(split: CachedSplit, rows: Array, index: Array) -> Array:
    """The hidden states of some examples as they are stored, read in one pass over the file: single
    examples would take longer."""
    if len(rows) == len(split):
        return split.read_examples(0, len(split))
    hidden = split.stored.memory(len(index), split.width)
    done = 0
    for first, last in spans(split.offsets, ROWS_AT_ONCE):
        low, high = np.searchsorted(rows, [first, last])
        if low == high:
            continue
        block = split.read_examples(first, last)
        start, stop = int(split.offsets[first]), int(split.offsets[last])
        tokens = index[np.searchsorted(index, start) : np.searchsorted(index, stop)] - start
        hidden[done : done + len(tokens)] = block[tokens]
        done += len(tokens)
    return hidden


# Measuring.


def learning_curve(
    cache: Cache,
    configs: Sequence[HeadConfig],
    training: Callable[[int], TrainingConfig],
    *,
    sizes: Sequence[int],
    seeds: Sequence[int],
    metric: str = "accuracy",
    device: str = "cpu",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Curve:
    """Train heads (without duplicates) on stratified, nested subsets of the train split of an open,
    complete cache and evaluate them on validation. All heads of a subset train in one pass, with
    the settings of `training` for as many examples; on the whole train split, the heads of all
    seeds do. Each of the `seeds` draws subsets, and is the seed of the heads that are trained on
    them. Progress (`curve`) is counted in examples of the subsets."""
    from spacelite.training import loop
    from spacelite.training.batches import check_ready

    started = time.perf_counter()
    for size in sizes:
        loop.check(configs, training(size), cache.task)
    check_ready(cache, configs)
    labels, of_validation = cache.splits["train"].labels, cache.splits["validation"].labels
    shape = len(configs), len(sizes), len(seeds)
    logits = np.full((*shape, len(of_validation), len(cache.label_names)), np.nan, np.float32)
    task = cache.task
    figures = [{name: np.full(shape[1:], np.nan) for name in task.metrics} for _ in configs]
    whole = len(labels)
    total = sum(size if size == whole else size * len(seeds) for size in sizes)
    done = 0
    trainer = _Trainer(cache, configs, device)
    parts = [size for size in sizes if size < whole]
    subsets = [
        (subset, row, [seed])
        for seed in seeds
        for row, subset in enumerate(nested(labels, cache.task, parts, seed))
    ]
    if len(parts) < len(sizes):
        subsets.append((np.arange(whole), len(parts), list(seeds)))
    for subset, row, subset_seeds in subsets:
        size = len(subset)

        def on_part(part: int, parts: int, before: int = done, size: int = size) -> None:
            on_progress("curve", before + size * min(part, parts) // max(parts, 1), total)

        on_part(0, 1)
        with_seeds = {
            (number, seed): config.with_seed(seed)
            for number, config in enumerate(configs)
            for seed in subset_seeds
        }
        unlike = list(dict.fromkeys(with_seeds.values()))
        evaluated = trainer.train(subset, unlike, training(size), on_part)
        for (number, seed), config in with_seeds.items():
            if config in evaluated:
                column = list(seeds).index(seed)
                logits[number, row, column] = evaluated[config].logits.numpy()
                for name, value in evaluated[config].scores.items():
                    figures[number][name][row, column] = np.nan if value is None else value
        done += size
        on_progress("curve", done, total)
    systems = [
        HeadCurve(
            config,
            values,
            validation_covariance(metric, task, of_validation, of_head),
            np.array([1 if n == whole and not config.is_iterative else len(seeds) for n in sizes]),
        )
        for config, values, of_head in zip(configs, figures, logits, strict=True)
    ]
    of = task.metrics[metric]
    systems.sort(key=lambda system: np.nan_to_num(of.error(system.mean(metric))[-1], nan=np.inf))
    return Curve(
        list(sizes), list(seeds), whole, len(of_validation), metric, systems,
        time.perf_counter() - started,
    )  # fmt: skip


class _Trainer:
    """Trains heads on subsets and evaluates them on the validation split, which is read once. So is
    the train split, where both take no more than the memory for hidden states."""

    def __init__(self, cache: Cache, configs: Sequence[HeadConfig], device: str) -> None:
        from spacelite.training.batches import TokenSplit
        from spacelite.training.memory import resident_budget

        self._cache, self._configs, self._device = cache, configs, device
        reads_layers = any(config.reads_layers for config in configs)
        self._layers_width = cache.layers_width() if reads_layers else 0
        budget = resident_budget("cpu")
        held: dict[str, Any] = {}
        for name in ("validation", "train"):
            split = cache.splits[name]
            size = split.tokens * split.stored.row_bytes(split.width)
            held[name] = in_memory(split, configs) if size <= budget else split
            budget -= size if size <= budget else 0
        self._train, self._held = held["train"], held["validation"]
        self._validation = TokenSplit(
            self._held, "validation", device,
            np.inf if isinstance(self._held, TokenRows) else resident_budget(device),
        )  # fmt: skip

    def train(
        self,
        subset: Array,
        configs: Sequence[HeadConfig],
        training: TrainingConfig,
        on_part: Callable[[int, int], None],
    ) -> dict[HeadConfig, Evaluated]:
        """Train heads on a subset: the metrics and logits on validation of those that did not
        diverge."""
        from spacelite.heads.base import Objective
        from spacelite.training import engine, loop
        from spacelite.training.batches import ArrayData
        from spacelite.training.engine import Evaluated, evaluate, stacked

        whole = len(subset) == len(self._train)
        train = self._train if whole else in_memory(self._train, self._configs, subset)
        # Validation is evaluated once, at the end, unless each epoch needs it.
        watched = {} if training.patience is None else {"validation": self._held}
        names, task = self._cache.label_names, self._cache.spec.task
        data = ArrayData({"train": train, **watched}, names, self._layers_width, task)
        with _warnings_only():
            results = loop.train(data, configs, training, device=self._device, on_progress=on_part)
        kept = {result.config: result for result in results if result.kept}
        if watched:
            return {
                config: Evaluated(result.metrics["validation"], result.logits["validation"])
                for config, result in kept.items()
            }
        if not kept:
            return {}
        objective = Objective(data.task, len(names))
        parameters = {config: result.parameters for config, result in kept.items()}
        with engine.workers(self._device) as workers:
            stacks = stacked(parameters, objective, self._device)
            return evaluate(self._validation, stacks, objective, workers)


@contextmanager
def _warnings_only() -> Iterator[None]:
    """What trainings say of each fit would be said for each subset."""
    logger = logging.getLogger("spacelite.training")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def validation_covariance(metric: str, task: Task, labels: Array, logits: Array) -> Array:
    """The covariance (M, M), over the choice of validation examples, of the means of a metric over
    seeds, from logits (M, S, V, C), NaN for a head that diverged: the jackknife that leaves out one
    of 40 groups at a time. All sizes share the examples, and most of what these vary by they vary
    by alike; only the rest matters to differences between sizes."""
    sizes, seeds, examples, _ = logits.shape
    values = np.full((min(GROUPS, examples), sizes, seeds), np.nan)
    for size, seed in np.ndindex(sizes, seeds):
        if np.isfinite(logits[size, seed]).all():
            values[:, size, seed] = left_out(metric, task, labels, logits[size, seed])
    means = np.nan_to_num(values.mean(axis=2))
    apart = means - means.mean(axis=0)
    covariance: Array = (len(apart) - 1) / len(apart) * apart.T @ apart
    return covariance


def left_out(metric: str, task: Task, labels: Array, logits: Array) -> Array:
    """A metric of V examples, from logits (V, C), without each of 40 groups of them, or without
    each example if there are fewer, (G,); NaN if undefined."""
    groups = min(GROUPS, len(labels))
    if groups < 2:  # nothing is left
        return np.full(groups, np.nan)
    group = np.random.default_rng(0).permutation(len(labels)) % groups
    return np.array([figure(metric, task, labels, logits, group != one) for one in range(groups)])


def figure(
    metric: str, task: Task, labels: Array, logits: Array, rows: Array | slice = slice(None)
) -> float:
    """A metric of the examples `rows`, from the logits (V, C) of all; NaN if undefined."""
    labels, logits = labels[rows], logits[rows].astype(np.float64)
    predicted = task.decide(logits)
    outcome = task.outcome(
        np.nan, np.nan, float(task.correct(predicted, labels).mean()),
        task.confusion(labels, predicted, logits.shape[1]), labels, logits,
    )  # fmt: skip
    value = task.metrics[metric].compute(outcome)
    return np.nan if value is None else value
