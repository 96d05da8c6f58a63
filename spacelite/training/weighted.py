"""Heads of one pass that each give the training examples weights of their own: folds, subsets,
sample weights, bootstraps.

Such a head is the head that it would be if trained alone on the same batches with these weights. A
batch in which all its weights are 0 is no update of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spacelite import heads, settings
from spacelite.errors import SpaceliteError
from spacelite.heads import Head, HeadConfig
from spacelite.heads.batch import Objective
from spacelite.heads.examples import Parameters
from spacelite.tasks import task_of
from spacelite.training import engine, memory
from spacelite.training.batches import (
    TokenSplit,
    TrainingData,
    check_ready,
    free_budget,
    input_width,
)
from spacelite.training.config import TrainingConfig
from spacelite.training.engine import Workers
from spacelite.training.fits import Part, require_weights
from spacelite.training.optimizer import Adam
from spacelite.training.stream import ArrayData
from spacelite.training.updates import updates

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Member:
    """A head of the pass.

    Attributes:
        config: Its config. Several members may have the same one.
        weights: The weight of each training example, (N,): 0 for one that it does not see.
    """

    config: HeadConfig
    weights: Array


@dataclass(frozen=True)
class Learned:
    """What became of a head.

    Attributes:
        parameters: Its parameters, after the last epoch.
        logits: Its logits for every training example, seen or not, (N, C) float32.
    """

    parameters: Parameters
    logits: Array


def train_weighted(
    data: TrainingData,
    members: Sequence[Member],
    training: TrainingConfig,
    *,
    device: str = "cpu",
    split: TokenSplit | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Learned]:
    """Train heads on a train split, all in one pass over the tokens per epoch.

    Args:
        data: An open, complete cache, or examples in memory.
        members: The heads, each with its weights.
        training: Settings that they share; all epochs are trained.
        device: `cpu` or `cuda`.
        split: The train split, if `open_train` has opened it already.
        on_progress: Called with the number of tokens done, and the total.

    Returns:
        What became of each member, in the same order.

    Raises:
        SpaceliteError: A setting or weight is invalid, a head is not trained in epochs, or memory
            is too small.
    """
    settings.check(training)
    labels = data.splits["train"].labels
    for member in members:
        _check(member, len(labels), training)
    configs = [member.config for member in members]
    memory.require(data, configs, training, device)
    with memory.shortage_explained(len(members)), engine.workers(device) as workers:
        split = split if split is not None else open_train(data, configs, device)
        for pooling in dict.fromkeys(name for config in configs for name in config.poolings):
            split.features(pooling)
        objective = Objective(task_of(split.labels), len(data.label_names))
        stacks = list(_stacks(data, members, split, objective, device))
        total = (training.epochs + 1) * int(split.lengths.sum())
        done = 0

        def progress(tokens: int) -> None:
            nonlocal done
            done += tokens
            on_progress(done, total)

        _run_epochs(split, [head for _, head in stacks], training, objective, workers, progress)
        logits = engine.run_split(split, [head for _, head in stacks], objective, workers, progress)
    found: dict[int, Learned] = {}
    for (numbers, head), own in zip(stacks, logits, strict=True):
        for row, number in enumerate(numbers):
            found[number] = Learned(head.head_parameters(row), own[row].numpy())
    return [found[number] for number in range(len(members))]


def fit_on(
    data: TrainingData,
    config: HeadConfig,
    seen: Sequence[Array],
    class_weights: str = "none",
    *,
    device: str = "cpu",
    split: TokenSplit | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Learned]:
    """Fit a head that is fitted at once to parts of the training examples: everything, from the
    IDF to the penalty, comes from the part alone.

    Args:
        data: An open, complete cache, or examples in memory.
        config: The head.
        seen: For each fit, the weight of each example, (N,): 0 for those that it does not see.
        class_weights: `none` or `balanced`.
        device: `cpu` or `cuda`.
        split: The train split, if `open_train` has opened it already.
        on_progress: Called with the number of fits done, and the total.

    Returns:
        What became of each fit.
    """
    settings.check(config)
    kind = heads.kind(config.kind)
    split = split if split is not None else open_train(data, [config], device)
    objective = Objective(task_of(split.labels), len(data.label_names))
    found: list[Learned] = []
    on_progress(0, len(seen))
    for own in seen:
        fitted = kind.fit(config, Part(split, own), objective, class_weights)
        with engine.workers(device) as workers:
            head = kind.stack([config], [fitted.parameters], objective, device)
            (logits,) = engine.run_split(split, [head], objective, workers)
        found.append(Learned(fitted.parameters, logits[0].numpy()))
        on_progress(len(found), len(seen))
    return found


def open_train(data: TrainingData, configs: Sequence[HeadConfig], device: str) -> TokenSplit:
    """The train split, for these heads. Raises SpaceliteError if it is unfinished or damaged, or
    lacks what they read."""
    check_ready(data, configs)
    if isinstance(data, ArrayData):
        return TokenSplit(data.splits["train"], "train", device)
    return TokenSplit(data.splits["train"], "train", device, free_budget(device))


def _check(member: Member, examples: int, training: TrainingConfig) -> None:
    """Raise SpaceliteError if a member cannot be trained in this way."""
    config, weights = member.config, np.asarray(member.weights)
    settings.check(config)
    if not config.in_epochs or config.start is not None or len(config.members) > 1:
        raise SpaceliteError(
            f"{config.name} cannot be trained with weights of its own: choose space, linear or mlp"
        )
    if training.class_weights != "none":
        raise SpaceliteError(
            "class_weights do not go with weights of examples: multiply these instead",
            ["class_weights"],
        )
    require_weights(weights, examples)


def _stacks(
    data: TrainingData,
    members: Sequence[Member],
    split: TokenSplit,
    objective: Objective,
    device: str,
) -> Iterator[tuple[list[int], Head]]:
    """Each stack, with the numbers of its members."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for number, member in enumerate(members):
        kind = heads.kind(member.config.kind)
        alike.setdefault(kind.stack_key(member.config), []).append(number)
    for numbers in alike.values():
        kind = heads.kind(members[numbers[0]].config.kind)
        # In the order that a stack gives its heads: those with L_intra first.
        numbers.sort(key=lambda number: not getattr(members[number].config, "intra", 0))
        own = [members[number].config for number in numbers]
        parameters = [
            kind.initial(config, objective.classes, input_width(config, data)) for config in own
        ]
        head = kind.stack(own, parameters, objective, device)
        shares = np.stack([members[number].weights for number in numbers]).astype(np.float32)
        head.shares = torch.from_numpy(shares).to(device)
        yield numbers, head


def _run_epochs(
    split: TokenSplit,
    stacks: Sequence[Head],
    training: TrainingConfig,
    objective: Objective,
    workers: Workers,
    progress: Callable[[int], None],
) -> None:
    optimizers = [Adam(head.configs, head.trained) for head in stacks]
    for epoch in range(1, training.epochs + 1):
        rows = split.shuffled(training.data_seed, epoch)
        for tokens in updates(split, rows, stacks, optimizers, training, objective, workers, epoch):
            progress(tokens)
