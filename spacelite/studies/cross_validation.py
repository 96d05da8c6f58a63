"""Cross-validation: every head is trained on all folds but one and evaluated on that one, all heads
of all folds in one pass over the tokens.

Shapes: R repeats, F folds, N training examples, C classes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import heads, settings
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.metrics.scores import METRICS
from spacelite.metrics.significance import Difference, resampled
from spacelite.progress import OnProgress
from spacelite.studies.folds import folds as divided
from spacelite.tasks import task_of
from spacelite.training import TrainingConfig, loop
from spacelite.training.weighted import Member, fit_on, open_train, train_weighted

log = logging.getLogger(__name__)

LOSS_WEIGHTS = ("inter", "intra")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class System:
    """A head that was cross-validated.

    Attributes:
        head: Its config.
        figures: Metric -> its value on each held-out fold, (R, F); NaN where it is not defined.
        logits: Its logits for each training example, by the head that did not see it, (R, N, C)
            float32; empty if they are not known any more.
    """

    head: HeadConfig
    figures: dict[str, Array]
    logits: Array = field(default_factory=lambda: np.empty(0))

    def mean(self, metric: str) -> float:
        """The mean of a metric over repeats and folds."""
        return float(np.nanmean(self.figures[metric]))

    def deviation(self, metric: str) -> float:
        """The standard deviation of a metric over repeats and folds."""
        return float(np.nanstd(self.figures[metric], ddof=1))


@dataclass(frozen=True)
class CrossValidation:
    """What a cross-validation found.

    Attributes:
        folds: Number of folds, F.
        repeats: How often the examples were divided anew, R.
        examples: Number of training examples, N.
        systems: The heads, best accuracy first.
        seconds: How long it took.
        sample_weight: The weights that heads were trained with; None if all examples weighed 1.
        fold: The fold of each training example in each repeat, (R, N); empty if that is not known
            any more.
        labels: The labels, (N,) or (N, C); empty if they are not known any more.
    """

    folds: int
    repeats: int
    examples: int
    systems: list[System]
    seconds: float
    sample_weight: str | None = None
    fold: Array = field(default_factory=lambda: np.empty((0, 0), np.int64))
    labels: Array = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def named(self) -> dict[str, System]:
        """The heads by name: what tells them apart is part of it."""
        names = names_of([system.head for system in self.systems])
        return dict(zip(names, self.systems, strict=True))

    def name_of(self, system: System) -> str:
        """The name of one of the heads."""
        return next(name for name, own in self.named.items() if own is system)

    @property
    def baseline(self) -> System | None:
        """The best system that is a baseline."""
        return next((system for system in self.systems if system.head.is_baseline), None)

    def difference(
        self, first: System, second: System, metric: str = "accuracy"
    ) -> tuple[Difference, float]:
        """A metric of one system minus that of another, with its 95% interval, and the p-value of
        the corrected resampled t-test (`metrics.significance.resampled`)."""
        values = (first.figures[metric] - second.figures[metric]).flatten()
        return resampled(values, held_out=1 / self.folds)

    def as_json(self) -> dict[str, Any]:
        """The figures as a JSON object: of each head by metric, in repeats and folds."""
        baseline = self.baseline
        systems = []
        for name, system in self.named.items():
            content: dict[str, Any] = {
                "system": name,
                "head": system.head.kind,
                "settings": system.head.settings(),
                "mean": {metric: system.mean(metric) for metric in METRICS},
                "deviation": {metric: system.deviation(metric) for metric in METRICS},
                "folds": {metric: own.tolist() for metric, own in system.figures.items()},
            }
            if baseline is not None and system is not baseline:
                difference, p = self.difference(system, baseline)
                content["more_than_baseline"] = {
                    "accuracy": difference.value, "interval": list(difference.interval), "p": p,
                }  # fmt: skip
            systems.append(content)
        return {
            "folds": self.folds,
            "repeats": self.repeats,
            "examples": self.examples,
            "baseline": None if baseline is None else self.name_of(baseline),
            "seconds": self.seconds,
            **({} if self.sample_weight is None else {"sample_weight": self.sample_weight}),
            "systems": systems,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CrossValidation:
        """What `as_json` made. Raises ValueError, KeyError or TypeError for anything else."""
        systems = [
            System(
                heads.config_from(own["head"], own["settings"]),
                # null becomes NaN.
                {metric: np.array(values, float) for metric, values in own["folds"].items()},
            )
            for own in content["systems"]
        ]
        return cls(
            int(content["folds"]), int(content["repeats"]), int(content["examples"]), systems,
            float(content["seconds"]), content.get("sample_weight"),
        )  # fmt: skip


def names_of(configs: Sequence[HeadConfig]) -> list[str]:
    """Names that tell heads apart: `space + inter 0.2, learning rate 0.001`."""
    own = [settings.effective(head) for head in configs]
    titles = [
        " + ".join([head.name, *(f"{key} {each[key]:g}" for key in LOSS_WEIGHTS if each.get(key))])
        for head, each in zip(configs, own, strict=True)
    ]
    made = []
    for title, head, each in zip(titles, configs, own, strict=True):
        alike = [other for other, name in zip(own, titles, strict=True) if name == title]
        differing = settings.varying(alike)
        made.append(", ".join([title, *settings.details(settings.symbols(head), each, differing)]))
    return made


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
    """Cross-validate heads on the train split of a cache.

    Args:
        cache: An open, complete cache.
        configs: The heads, without duplicates.
        training: Settings that heads that are trained in epochs share; all epochs are trained.
        folds: Number of folds, F.
        repeats: How often the examples are divided anew, R.
        seed: Seed of the divisions.
        groups: The group of each training example, (N,); those of a group are in one fold.
        weights: The weight of each training example in the losses, (N,); None if all are 1. Figures
            count each held-out example once.
        device: `cpu` or `cuda`.
        on_progress: Called with the phase (`train`, counted in tokens, or `fit`, counted in fits),
            the amount done and the total.

    Raises:
        SpaceliteError: A setting is invalid, a head cannot be trained in this way, or there are too
            few examples for so many folds.
    """
    started = time.perf_counter()
    loop.check(configs, training)
    labels = cache.splits["train"].labels
    fold = divided(
        labels, cache.label_names, count=folds, repeats=repeats, seed=seed, groups=groups
    )
    seen = [np.asarray(own != number, np.float32) for own in fold for number in range(folds)]
    if weights is not None:
        seen = [own * weights for own in seen]
        _check_weighted(labels, seen)
    is_iterative = [config for config in configs if config.is_iterative]
    members = [Member(config, weights) for config in is_iterative for weights in seen]
    at_once = [config for config in configs if not config.is_iterative]
    logits: dict[HeadConfig, list[Array]] = {}
    split = open_train(cache, configs, device)
    if members:
        learned = train_weighted(
            cache, members, training, device=device, split=split,
            on_progress=lambda done, total: on_progress("train", done, total),
        )  # fmt: skip
        for number, config in enumerate(is_iterative):
            own = learned[number * len(seen) : (number + 1) * len(seen)]
            logits[config] = [each.logits for each in own]
    total, fitted = len(at_once) * len(seen), 0

    def on_fit(done: int, _: int) -> None:
        on_progress("fit", fitted + done, total)

    for config in at_once:
        log.info("fitting %s on each fold", config.name)
        fits = fit_on(
            cache, config, seen, training.class_weights,
            device=device, split=split, on_progress=on_fit,
        )  # fmt: skip
        fitted += len(fits)
        logits[config] = [each.logits for each in fits]
    systems = [_system(cache, config, logits[config], fold, labels, folds) for config in configs]
    systems.sort(key=lambda system: -system.mean("accuracy"))
    seconds = time.perf_counter() - started
    return CrossValidation(
        folds, repeats, len(labels), systems, seconds, training.sample_weight, fold, labels
    )


def _check_weighted(labels: Array, seen: Sequence[Array]) -> None:
    """Raise SpaceliteError if a head would learn from no example, or from those of one label."""
    for own in seen:
        left = labels[own > 0]
        if not len(left) or (labels.ndim == 1 and len(np.unique(left)) < 2):
            raise SpaceliteError(
                "sample_weight: outside of a fold, the examples with a weight above 0 are none or "
                "have a single label: give other weights, or use fewer folds",
                ["sample_weight", "folds"],
            )


def _system(
    cache: Cache,
    config: HeadConfig,
    logits: Sequence[Array],
    fold: Array,
    labels: Array,
    folds: int,
) -> System:
    repeats, examples = fold.shape
    together = np.empty((repeats, examples, len(cache.label_names)), np.float32)
    figures = {name: np.full((repeats, folds), np.nan) for name in METRICS}
    for repeat in range(repeats):
        for number in range(folds):
            held = fold[repeat] == number
            own = logits[repeat * folds + number][held]
            together[repeat, held] = own
            for name, value in _scores(cache, own, labels[held]).items():
                figures[name][repeat, number] = np.nan if value is None else value
    return System(config, figures, together)


def _scores(cache: Cache, logits: Array, labels: Array) -> dict[str, float | None]:
    """The metrics of logits (n, C) of n examples."""
    import torch

    from spacelite.heads.base import Objective
    from spacelite.training.evaluation import scores_of

    objective = Objective(task_of(labels), len(cache.label_names))
    return scores_of(torch.from_numpy(logits), torch.from_numpy(labels), objective)
