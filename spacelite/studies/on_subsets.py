"""Heads trained on subsets of the train split, and evaluated on validation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.cache.rows import TokenRows
from spacelite.cache.store import Cache
from spacelite.heads import HeadConfig
from spacelite.heads.base import Objective
from spacelite.studies import subsets
from spacelite.tasks import task_of
from spacelite.training import TrainingConfig, engine, loop
from spacelite.training.batches import TokenSplit, free_budget
from spacelite.training.evaluation import Evaluated, evaluate, stacked
from spacelite.training.stream import ArrayData

Array = npt.NDArray[Any]


class Trainer:
    """Trains heads on subsets and evaluates them on the validation split, which is read once. So is
    the train split, where both take no more than the memory for hidden states."""

    def __init__(
        self,
        cache: Cache,
        configs: Sequence[HeadConfig],
        training: Callable[[int], TrainingConfig],
        device: str,
    ) -> None:
        self._configs, self._training, self._device = configs, training, device
        self._label_names = cache.label_names
        self._layers = cache.layer_count() if any(one.reads_layers for one in configs) else 0
        budget = free_budget("cpu")
        held: dict[str, Any] = {}
        for name in ("validation", "train"):
            split = cache.splits[name]
            size = split.tokens * split.stored.row_bytes(split.width)
            held[name] = subsets.in_memory(split, configs) if size <= budget else split
            budget -= size if size <= budget else 0
        self._train, self._held = held["train"], held["validation"]
        self._validation = TokenSplit(
            self._held, "validation", device,
            np.inf if isinstance(self._held, TokenRows) else free_budget(device),
        )  # fmt: skip

    def __call__(
        self, subset: Array, seeds: Sequence[int], on_part: Callable[[int, int], None]
    ) -> Iterator[tuple[int, int, Evaluated]]:
        """Train the heads of these seeds: the number of each config, a seed, and its metrics and
        logits on validation."""
        training = self._training(len(subset))
        of_seed = {
            (number, seed): _seeded(config, seed)
            for number, config in enumerate(self._configs)
            for seed in seeds
        }
        whole = len(subset) == len(self._train)
        own = self._train if whole else subsets.in_memory(self._train, self._configs, subset)
        # Validation is evaluated once, at the end, unless each epoch needs it.
        watched = {} if training.patience is None else {"validation": self._held}
        data = ArrayData({"train": own, **watched}, self._label_names, self._layers)
        with _warnings_only():
            results = loop.train(
                data, list(dict.fromkeys(of_seed.values())), training, device=self._device,
                on_progress=on_part,
            )  # fmt: skip
        kept = {result.config: result for result in results if result.kept}
        if watched:
            found = {
                config: Evaluated(result.metrics["validation"], result.logits["validation"])
                for config, result in kept.items()
            }
        elif kept:
            objective = Objective(task_of(own.labels), len(self._label_names))
            parameters = {config: result.parameters for config, result in kept.items()}
            with engine.workers(self._device) as workers:
                stacks = stacked(parameters, objective, self._device)
                found = evaluate(self._validation, stacks, objective, workers)
        else:
            found = {}
        for (number, seed), config in of_seed.items():
            if config in found:
                yield number, seed, found[config]


def _seeded(config: HeadConfig, seed: int) -> HeadConfig:
    """The head with another seed, if it has one."""
    if any(each.name == "seed" for each in fields(config)):
        return replace(config, seed=seed)  # type: ignore[call-arg]
    return config


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
