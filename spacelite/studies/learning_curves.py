"""The learning curve: how good heads are that were trained on fewer examples, and what more labels
would be worth.

Shapes: M sizes, S seeds, N training and V validation examples, C classes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import heads
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.metrics import power_law
from spacelite.metrics.power_law import Extrapolation
from spacelite.metrics.scores import METRICS
from spacelite.progress import OnProgress
from spacelite.studies import subsets
from spacelite.studies.cross_validation import names_of
from spacelite.studies.on_subsets import Trainer
from spacelite.tasks import task_of
from spacelite.training import TrainingConfig, loop
from spacelite.training.batches import check_ready

GROUPS = 40  # of validation examples, each left out once
WELL = 0.1  # p from which on figures follow a power law well
FEWEST_SEEDS = 3  # fewer say too little about how much figures vary

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class System:
    """A head that was trained on subsets of each size.

    Attributes:
        head: Its config, with seed 0.
        figures: Metric -> its value on validation, (M, S); NaN where it is not defined, or where
            the head diverged.
        of_validation: The covariance of the mean values of the metric of the curve at each size,
            over the choice of validation examples, (M, M).
        drawn: How many different heads there are at each size, (M,): one on all examples, if the
            head has no seed.
    """

    head: HeadConfig
    figures: dict[str, Array]
    of_validation: Array
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
class Curve:
    """What was measured.

    Attributes:
        sizes: The numbers of training examples, in ascending order, M.
        seeds: The seeds, S.
        examples: N, all examples of the train split.
        validation: V.
        metric: The metric that is extrapolated.
        systems: The heads, the best at the largest size first.
        seconds: How long it took.
    """

    sizes: list[int]
    seeds: list[int]
    examples: int
    validation: int
    metric: str
    systems: list[System]
    seconds: float

    @property
    def named(self) -> dict[str, System]:
        """The heads by name: what tells them apart is part of it."""
        return dict(zip(names_of([one.head for one in self.systems]), self.systems, strict=True))

    @property
    def chosen(self) -> System:
        """The system that a reader would use: the best one that is no baseline, if there is one."""
        heads = (system for system in self.systems if not system.head.is_baseline)
        return next(heads, self.systems[0])

    @cached_property
    def extrapolations(self) -> dict[str, Extrapolation | None]:
        """What twice as many examples as in the largest subset would be worth, by system; None with
        too few sizes. With a few examples, heads may still be close to chance: the smallest sizes
        are left out for as long as the others follow no power law, down to four sizes."""
        return {name: self._extrapolation(system) for name, system in self.named.items()}

    def _extrapolation(self, system: System) -> Extrapolation | None:
        errors = METRICS[self.metric].most - system.mean(self.metric)
        known = np.flatnonzero(np.isfinite(errors))
        if len(known) < power_law.FEWEST_SIZES or known[-1] != len(self.sizes) - 1:
            return None
        deviations = self.standard_errors(system)
        parts = sum(size < self.examples for size in self.sizes)
        while True:
            found = power_law.extrapolate(
                np.array(self.sizes)[known],
                errors[known],
                None if deviations is None else deviations[known],
                shared=system.of_validation[np.ix_(known, known)],
                freedom=parts * (len(self.seeds) - 1) - 2.0,  # two are spent on smoothing
                at=self.sizes[-1],
                to=2 * self.sizes[-1],
            )
            if not found.p < WELL or len(known) == power_law.FEWEST_SIZES:
                return found
            known = known[1:]

    def standard_errors(self, system: System) -> Array | None:
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
        share = sizes / self.examples
        values = system.figures[self.metric]
        used = np.isfinite(values).all(axis=1) & (share < 1)
        if seeds < FEWEST_SEEDS or used.sum() < 2:
            return None
        variances = values[used].var(axis=1, ddof=1) / (1 - share[used])
        own = power_law.smoothed(sizes, variances, sizes[used])
        deviations: Array = np.sqrt(own * ((1 - share) / seeds + share))
        return deviations

    def as_json(self) -> dict[str, Any]:
        """The figures as a JSON object: of each head by metric, over sizes and seeds."""
        systems = []
        for name, system in self.named.items():
            systems.append(
                {
                    "system": name,
                    "head": system.head.kind,
                    "settings": system.head.settings(),
                    "mean": {metric: system.mean(metric).tolist() for metric in METRICS},
                    "deviation": {metric: system.deviation(metric).tolist() for metric in METRICS},
                    "seeds": {metric: own.tolist() for metric, own in system.figures.items()},
                    "of_validation": system.of_validation.tolist(),
                    "drawn": np.asarray(system.drawn).tolist(),
                    "extrapolation": _as_json(self.extrapolations[name]),
                }
            )
        return {
            "sizes": self.sizes,
            "seeds": self.seeds,
            "examples": self.examples,
            "validation": self.validation,
            "metric": self.metric,
            "seconds": self.seconds,
            "systems": systems,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Curve:
        """What `as_json` made. Raises ValueError, KeyError or TypeError for anything else."""
        systems = [
            System(
                heads.config_from(own["head"], own["settings"]),
                # null becomes NaN.
                {metric: np.array(values, float) for metric, values in own["seeds"].items()},
                np.array(own["of_validation"], float),
                np.array(own["drawn"], np.int64),
            )
            for own in content["systems"]
        ]
        counts = {name: int(content[name]) for name in ("examples", "validation")}
        return cls(
            list(content["sizes"]), list(content["seeds"]), **counts, metric=content["metric"],
            systems=systems, seconds=float(content["seconds"]),
        )  # fmt: skip


def _as_json(found: Extrapolation | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "floor": found.law.floor,
        "scale": found.law.scale,
        "exponent": found.law.exponent,
        "smallest": found.smallest,
        "from": found.at,
        "to": found.to,
        "gain": found.gain.value,
        "interval": list(found.gain.interval),
        "p": found.p,
    }


def require_metric(metric: str) -> None:
    """Raise SpaceliteError unless a metric has a largest value, from which errors are counted."""
    choices = [name for name, one in METRICS.items() if np.isfinite(one.most)]
    if metric not in choices:
        raise SpaceliteError(f"metric={metric}: choose from {', '.join(choices)}", ["metric"])


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
    """Train heads on stratified, nested subsets of the train split and evaluate them on validation.

    All heads of a subset train in one pass, as `loop.train` trains them on that many examples; on
    the whole train split, the heads of all seeds do.

    Args:
        cache: An open, complete cache.
        configs: The heads, without duplicates; their seeds are replaced.
        training: The settings that heads share, by the number of training examples.
        sizes: Numbers of training examples, as `subsets.checked_sizes` returns them.
        seeds: Each seed draws subsets, and is the seed of the heads that are trained on them.
        metric: The metric that is extrapolated.
        device: `cpu` or `cuda`.
        on_progress: Called with the phase (`curve`), the number of examples of the subsets that
            heads were trained on, and the total.

    Raises:
        SpaceliteError: A setting is invalid, the cache cannot be used, or memory is too small.
    """
    started = time.perf_counter()
    require_metric(metric)
    for size in sizes:
        loop.check(configs, training(size))
    check_ready(cache, configs)
    labels, classes = cache.splits["train"].labels, len(cache.label_names)
    logits = np.full(
        (len(configs), len(sizes), len(seeds), len(cache.splits["validation"]), classes),
        np.nan, np.float32,
    )  # fmt: skip
    figures = [
        {name: np.full((len(sizes), len(seeds)), np.nan) for name in METRICS} for _ in configs
    ]
    whole = len(labels)
    total = sum(size if size == whole else size * len(seeds) for size in sizes)
    done = 0
    trainer = Trainer(cache, configs, training, device)
    for subset, of_size, own_seeds in _subsets(labels, sizes, seeds):
        size, before = len(subset), done

        def on_part(part: int, of: int, before: int = before, size: int = size) -> None:
            on_progress("curve", before + size * min(part, of) // max(of, 1), total)

        on_part(0, 1)
        for number, seed, found in trainer(subset, own_seeds, on_part):
            column = list(seeds).index(seed)
            logits[number, of_size, column] = found.logits.numpy()
            for name, value in found.scores.items():
                figures[number][name][of_size, column] = np.nan if value is None else value
        done += size
        on_progress("curve", done, total)
    systems = [
        System(
            config,
            own,
            of_validation(metric, cache.splits["validation"].labels, logits[number]),
            np.array([1 if s == whole and not config.is_iterative else len(seeds) for s in sizes]),
        )
        for number, (config, own) in enumerate(zip(configs, figures, strict=True))
    ]
    systems.sort(key=lambda one: -np.nan_to_num(one.mean(metric)[-1], nan=-1))
    return Curve(
        list(sizes), list(seeds), whole, logits.shape[3], metric, systems,
        time.perf_counter() - started,
    )  # fmt: skip


def _subsets(
    labels: Array, sizes: Sequence[int], seeds: Sequence[int]
) -> Iterator[tuple[Array, int, list[int]]]:
    """Each subset, the index of its size, and the seeds of its heads; the whole split last."""
    parts = [size for size in sizes if size < len(labels)]
    for seed in seeds:
        for of_size, subset in enumerate(subsets.nested(labels, parts, seed)):
            yield subset, of_size, [seed]
    if len(parts) < len(sizes):
        yield np.arange(len(labels)), len(parts), list(seeds)


def of_validation(metric: str, labels: Array, logits: Array) -> Array:
    """The covariance, over the choice of validation examples, of the means of a metric over seeds:
    the jackknife that leaves out one of 40 groups at a time. All sizes share the examples, and most
    of what these vary by they vary by alike; only the rest matters to differences between sizes.

    Args:
        metric: The metric.
        labels: The labels of validation, (V,) or (V, C).
        logits: Logits of the heads of each size and seed, (M, S, V, C); NaN for a head that
            diverged.

    Returns:
        (M, M).
    """
    sizes, seeds, examples, classes = logits.shape
    task, compute = task_of(labels), METRICS[metric].compute
    groups = min(GROUPS, examples)
    group = np.random.default_rng(0).permutation(examples) % groups
    found = np.full((groups, sizes, seeds), np.nan)
    for size, seed in np.ndindex(sizes, seeds):
        own = logits[size, seed].astype(np.float64)
        if not np.isfinite(own).all():
            continue
        predicted = task.decide(own)
        for left_out in range(groups):
            kept = group != left_out
            outcome = task.outcome(
                np.nan, np.nan, float(task.correct(predicted[kept], labels[kept]).mean()),
                task.confusion(labels[kept], predicted[kept], classes), labels[kept], own[kept],
            )  # fmt: skip
            value = compute(outcome)
            found[left_out, size, seed] = np.nan if value is None else value
    means = np.nan_to_num(found.mean(axis=2))
    apart = means - means.mean(axis=0)
    covariance: Array = (groups - 1) / groups * apart.T @ apart
    return covariance
