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
from spacelite.heads.base import Fitted, Objective, Parameters
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
    examples = len(data.splits["train"])
    for member in members:
        _check(member, examples)
    configs = [member.config for member in members]
    memory.require(data, configs, training, device)
    with memory.shortage_explained(len(members)), engine.workers(device) as workers:
        split = split if split is not None else open_train(data, configs, device)
        for pooling in dict.fromkeys(name for config in configs for name in config.poolings):
            split.features(pooling)
        return _Pass(data, members, training, device, split, workers)(on_progress)


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


def _check(member: Member, examples: int) -> None:
    """Raise SpaceliteError if a member cannot be trained in this way."""
    settings.check(member.config)
    if not member.config.is_iterative:
        raise SpaceliteError(f"{member.config.name} is not trained in epochs: fit it")
    require_weights(np.asarray(member.weights), examples)


class _Pass:
    """Members in training. An ensemble is trained as several heads; a head on top of another, which
    is fitted to the same examples, as the part that is trained."""

    def __init__(
        self,
        data: TrainingData,
        members: Sequence[Member],
        training: TrainingConfig,
        device: str,
        split: TokenSplit,
        workers: Workers,
    ) -> None:
        self.data, self.members, self.training = data, members, training
        self.device, self.split, self.workers = device, split, workers
        self.objective = Objective(task_of(split.labels), len(data.label_names))
        # Members with the same weights share what depends on these alone.
        self.parts: dict[bytes, Part] = {}
        self.fits: dict[tuple[HeadConfig, bytes], tuple[Fitted, torch.Tensor]] = {}
        # The heads that are trained: number of the member, and config.
        self.trained = [
            (number, config)
            for number, member in enumerate(members)
            for config in member.config.members
        ]

    def __call__(self, on_progress: Callable[[int, int], None]) -> list[Learned]:
        total, done = (self.training.epochs + 1) * int(self.split.lengths.sum()), 0

        def progress(tokens: int) -> None:
            nonlocal done
            done += tokens
            on_progress(done, total)

        progress(0)
        stacks = list(self._stacks())
        every = [head for _, head in stacks]
        optimizers = [Adam(head.configs, head.trained) for head in every]
        for epoch in range(1, self.training.epochs + 1):
            rows = self.split.shuffled(self.training.data_seed, epoch)
            for tokens in updates(
                self.split, rows, every, optimizers, self.training, self.objective,
                self.workers, epoch,
            ):  # fmt: skip
                progress(tokens)
        logits = engine.run_split(self.split, every, self.objective, self.workers, progress)
        found: dict[int, list[tuple[Parameters, torch.Tensor]]] = {}
        for (numbers, head), own in zip(stacks, logits, strict=True):
            for row, number in enumerate(numbers):
                member = self.trained[number][0]
                found.setdefault(member, []).append((head.head_parameters(row), own[row]))
        return [self._learned(number, found[number]) for number in range(len(self.members))]

    def _learned(self, number: int, own: Sequence[tuple[Parameters, torch.Tensor]]) -> Learned:
        config = self.members[number].config
        kind = heads.kind(config.kind)
        parameters = [one for one, _ in own]
        merged = kind.in_training().merged(parameters) if len(own) > 1 else parameters[0]
        start = None if config.start is None else self._start(number, config.start)[0].parameters
        logits = torch.stack([one for _, one in own]).mean(dim=0)
        return Learned(kind.joined(config, merged, start), logits.numpy())

    def _stacks(self) -> Iterator[tuple[list[int], Head]]:
        """Each stack, with the numbers of its heads in `trained`."""
        alike: dict[tuple[object, ...], list[int]] = {}
        for number, (_, config) in enumerate(self.trained):
            alike.setdefault(heads.kind(config.kind).stack_key(config), []).append(number)
        for numbers in alike.values():
            kind = heads.kind(self.trained[numbers[0]][1].kind).in_training()
            # In the order that a stack gives its heads: those with L_intra first.
            numbers.sort(key=lambda number: not getattr(self.trained[number][1], "intra", 0))
            own = [self.trained[number] for number in numbers]
            head = kind.stack(
                [config for _, config in own],
                [self._initial(member, config) for member, config in own],
                self.objective,
                self.device,
            )
            weights = np.stack([self.members[member].weights for member, _ in own])
            head.sample_weights = torch.from_numpy(weights.astype(np.float32)).to(self.device)
            if self.training.class_weights == "balanced":
                task, labels = self.objective.task, self.split.labels
                classes = self.objective.classes
                head.class_weights = torch.stack(
                    [task.balanced_weights(labels, classes, one) for one in head.sample_weights]
                )
            if own[0][1].start is not None:
                starts = [self._start(member, config.start)[1] for member, config in own]
                head.starts = {self.split.name: torch.stack(starts).to(self.device)}
            yield numbers, head

    def _initial(self, member: int, config: HeadConfig) -> Parameters:
        whole = heads.kind(config.kind)
        kind = whole.in_training()
        if kind is whole:
            return kind.initial(config, self.objective.classes, input_width(config, self.data))
        own = kind.initial(config, self.objective.classes, self.split.width)
        return kind.filled(own, self._part(member))

    def _part(self, member: int) -> Part:
        """The examples that a member sees."""
        weights = self.members[member].weights
        key = np.asarray(weights, np.float64).tobytes()
        if key not in self.parts:
            self.parts[key] = Part(self.split, weights)
        return self.parts[key]

    def _start(self, member: int, config: HeadConfig | None) -> tuple[Fitted, torch.Tensor]:
        """The head on top of which a member is trained, fitted to its examples, and the logits of
        all training examples by fits that they were held out of."""
        if config is None:
            raise ValueError("heads on top of others do not share a stack with those that are not")
        key = config, np.asarray(self.members[member].weights, np.float64).tobytes()
        if key not in self.fits:
            part, kind = self._part(member), heads.kind(config.kind)
            fitted = kind.fit(config, part, self.objective, self.training.class_weights)
            head = kind.stack([config], [fitted.parameters], self.objective, self.device)
            (logits,) = engine.run_split(self.split, [head], self.objective, self.workers)
            self.fits[key] = fitted, part.held(fitted, logits[0])
        return self.fits[key]
