"""The training loop: K heads, one pass over the tokens of each batch, history, final metrics."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by

from spacelite import heads, metrics
from spacelite.batches import POOLINGS, TokenSplit
from spacelite.errors import SpaceliteError
from spacelite.heads import BatchSize, Heads, HeadSettings, LinearHeads, SpaceHeads
from spacelite.store import Cache

log = logging.getLogger(__name__)

MOST_LATENT = 10_000  # far beyond use: a slip of the finger, not a setting

Array = npt.NDArray[Any]
Scores = dict[str, float]
# Called with how many tokens are done, of how many.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class PassSettings:
    """What all heads of one training pass share. `data_seed` orders the examples."""

    epochs: int = 15
    batch_size: int = 256
    data_seed: int = 0


@dataclass
class TrainedHead:
    """A finished head: parameters by name, metrics by split, and the history of its epochs.

    `history`: one entry an epoch, {"epoch", "train": metrics, "validation": metrics}; the train
    figures are accumulated while the weights move. `stopped` says why a head ended early.
    """

    settings: HeadSettings
    parameters: dict[str, torch.Tensor] = field(default_factory=dict)
    metrics: dict[str, Scores] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str | None = None


def train(
    cache: Cache,
    settings: Sequence[HeadSettings],
    shared: PassSettings,
    *,
    device: str = "cpu",
    on_progress: OnProgress = lambda done, total: None,
) -> list[TrainedHead]:
    """Train heads on a complete cache, all in one pass an epoch, the last epoch's weights kept.

    Adam with L2 weight decay, constant learning rate, no clipping: the published protocol. A head
    whose loss becomes NaN or infinite is stopped and the others go on. Returns the heads in the
    order of `settings`; `seconds` is the whole pass's, which the heads share.

    Raises SpaceliteError for an unfinished cache and for settings that nothing can be trained on.
    """
    _check(cache, settings, shared)
    with _one_thread():
        return _train(cache, settings, shared, device, on_progress)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch's operations on one thread each.

    Those on a group of tokens are so short that a second thread gains little on an idle machine,
    and on a busy one every operation waits for the slower of the two.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(
    cache: Cache,
    settings: Sequence[HeadSettings],
    shared: PassSettings,
    device: str,
    on_progress: OnProgress,
) -> list[TrainedHead]:
    started = time.perf_counter()
    per_epoch = cache.splits["train"].tokens + cache.splits["validation"].tokens
    progress = _Progress(on_progress, shared.epochs * per_epoch + cache.tokens)
    progress(0)  # reading a large cache takes a while
    splits = {name: TokenSplit(cache, name, device) for name in cache.splits}
    for split in splits.values():
        if not split.resident:
            log.warning("%s does not fit into memory: it is read from the file", split.name)
    results = {head: TrainedHead(head) for head in settings}
    width = cache.splits["train"].width
    classes = len(cache.label_names)
    stacks = [_Stack(group, classes, width, device) for group in _alike(settings)]

    order = torch.Generator().manual_seed(shared.data_seed)
    for epoch in range(1, shared.epochs + 1):
        rows = torch.randperm(len(splits["train"]), generator=order).numpy()
        trained = _train_epoch(splits["train"], stacks, rows, shared.batch_size, progress)
        validated = evaluate(splits["validation"], [s.heads for s in stacks], progress)
        for head in trained:
            entry = {"epoch": epoch, "train": trained[head], "validation": validated[head]}
            results[head].history.append(entry)
        stacks = _without_diverged(stacks, results, epoch)
        if not stacks:
            break
    for name, split in splits.items():
        for head, scores in evaluate(split, [s.heads for s in stacks], progress).items():
            results[head].metrics[name] = scores
    for stack in stacks:
        for index, head in enumerate(stack.heads.settings):
            results[head].parameters = stack.heads.one(index)
            _stop_if_diverged(results[head], results[head].metrics, "in the end")
    for result in results.values():
        result.seconds = time.perf_counter() - started
    return [results[head] for head in settings]


def evaluate(
    split: TokenSplit, stacks: Sequence[Heads], progress: Callable[[int], None] = lambda done: None
) -> dict[HeadSettings, Scores]:
    """Loss, CE and metrics of every head on a split, which counts as one batch: L_inter and
    L_intra are means over the whole split."""
    rows = np.arange(len(split))
    size = _forward(split, stacks, rows, train=False, progress=progress)
    return {
        head: scores for stack in stacks for head, scores in _scores(stack, [(stack.sums, size)])
    }


class _Progress:
    def __init__(self, report: OnProgress, total: int) -> None:
        self._report, self._total, self._done = report, total, 0

    def __call__(self, tokens: int) -> None:
        self._done += tokens
        self._report(self._done, self._total)


class _Stack:
    """Heads of one shape and their Adam state.

    The update is torch.optim.Adam's (L2 weight decay), with a learning rate and weight decay of
    each head's own; torch's class would also import its compiler, which takes longer than many a
    training.
    """

    BETAS = (0.9, 0.999)
    EPSILON = 1e-8

    def __init__(self, settings: list[HeadSettings], classes: int, width: int, device: str) -> None:
        self.heads: Heads = heads.stack(settings, classes, width, device)
        self.updates = 0
        self.moments = {
            name: (torch.zeros_like(value), torch.zeros_like(value))
            for name, value in self.heads.parameters.items()
        }

    def update(self) -> None:
        """One step of Adam with the gradients of the batch."""
        self.updates += 1
        settings = self.heads.settings
        rates = torch.tensor([head.learning_rate for head in settings], dtype=torch.float64)
        decays = torch.tensor([head.weight_decay for head in settings], dtype=torch.float64)
        first, second = (1 - beta**self.updates for beta in self.BETAS)
        for name, parameter in self.heads.parameters.items():
            each = (-1, *[1] * (parameter.dim() - 1))
            rate, decay = ((x.view(each).to(parameter)) for x in (rates / first, decays))
            gradient = torch.addcmul(self.heads.gradients[name], parameter, decay)
            mean, square = self.moments[name]
            mean.lerp_(gradient, 1 - self.BETAS[0])
            square.mul_(self.BETAS[1]).addcmul_(gradient, gradient, value=1 - self.BETAS[1])
            scale = square.sqrt().div_(math.sqrt(second)).add_(self.EPSILON)
            parameter.sub_(mean.div(scale).mul_(rate))

    def keep(self, rows: list[int]) -> None:
        """Go on with some of the heads only, their parameters and Adam state unchanged."""
        self.heads = self.heads.subset(rows)
        self.moments = {name: (m[rows], v[rows]) for name, (m, v) in self.moments.items()}


def _check(cache: Cache, settings: Sequence[HeadSettings], shared: PassSettings) -> None:
    if not cache.complete:
        raise SpaceliteError(
            f"cache {cache.name} is unfinished ({cache.tokens_done:,} of {cache.tokens:,} tokens): "
            "run its embed command again"
        )
    for option, value in (("epochs", shared.epochs), ("batch-size", shared.batch_size)):
        if value < 1:
            raise SpaceliteError(f"--{option} {value}: give at least 1")
    if not 0 <= shared.data_seed < 2**63:
        raise SpaceliteError(f"--data-seed {shared.data_seed}: give a number from 0 to 2^63 - 1")
    if not settings:
        raise SpaceliteError("no head to train: choose --head space, linear or both")
    for head in settings:
        if head.kind not in heads.KINDS:
            raise SpaceliteError(f"--head {head.kind}: choose from {', '.join(heads.KINDS)}")
        if head.pooling is not None and head.pooling not in POOLINGS:
            raise SpaceliteError(f"--pooling {head.pooling}: choose from {', '.join(POOLINGS)}")
        if head.pooling == "pooler":
            cache.splits["train"].require_pooler()
        if head.latent is not None and not 1 <= head.latent <= MOST_LATENT:
            raise SpaceliteError(f"--latent {head.latent}: give 1 to {MOST_LATENT:,}")
        for option, number, least in (
            ("inter", head.inter, 0.0),
            ("intra", head.intra, 0.0),
            ("weight-decay", head.weight_decay, 0.0),
            ("lr", head.learning_rate, math.nextafter(0, 1)),
        ):
            if number is not None and not least <= number < math.inf:
                needed = "a number above 0" if least else "0 or a positive number"
                raise SpaceliteError(f"--{option} {number:g}: give {needed}")


def _alike(settings: Sequence[HeadSettings]) -> list[list[HeadSettings]]:
    """The heads grouped by what a stack has in common: kind, shapes and inputs."""
    groups: dict[tuple[Any, ...], list[HeadSettings]] = {}
    for head in settings:
        groups.setdefault((head.kind, head.latent, head.pooling), []).append(head)
    return list(groups.values())


def _train_epoch(
    split: TokenSplit, stacks: list[_Stack], rows: Array, batch_size: int, progress: _Progress
) -> dict[HeadSettings, Scores]:
    seen: dict[int, list[tuple[heads.Sums, BatchSize]]] = {i: [] for i in range(len(stacks))}
    everything = [stack.heads for stack in stacks]
    for start in range(0, len(rows), batch_size):
        size = _forward(
            split, everything, rows[start : start + batch_size], train=True, progress=progress
        )
        for index, stack in enumerate(stacks):
            stack.update()
            seen[index].append((stack.heads.sums, size))
    return {
        head: scores
        for index, stack in enumerate(stacks)
        for head, scores in _scores(stack.heads, seen[index])
    }


def _forward(
    split: TokenSplit,
    stacks: Sequence[Heads],
    rows: Array,
    *,
    train: bool,
    progress: Callable[[int], None],
) -> BatchSize:
    """Take the examples `rows` as one batch: each stack's sums and, when training, gradients.

    Each group of tokens is read and widened once, and all concept spaces are one product with it.
    """
    size = BatchSize.of(torch.from_numpy(split.lengths[rows]))
    for stack in stacks:
        stack.reset()
        if isinstance(stack, LinearHeads):
            pooling = stack.settings[0].pooling
            features = split.features(str(pooling))[torch.from_numpy(rows).to(split.device)]
            labels = torch.from_numpy(split.labels[rows]).to(split.device)
            stack.step(features, labels, size, train)
    spaces = [stack for stack in stacks if isinstance(stack, SpaceHeads)]
    if not spaces:
        progress(size.tokens)
        return size
    projection = torch.cat([stack.projection for stack in spaces])
    gradient = torch.zeros_like(projection)
    columns = [len(stack.projection) for stack in spaces]
    for group in split.groups(rows):
        tokens = split.gather(group)
        coordinates = F.linear(tokens.hidden, projection).tanh_()
        parts = [
            stack.step(part, tokens.lengths, tokens.labels, size, train)
            for stack, part in zip(spaces, torch.split(coordinates, columns, dim=1), strict=True)
        ]
        if train:
            slopes = torch.cat([part for part in parts if part is not None], dim=1)
            gradient.addmm_(slopes.T, tokens.hidden)
        progress(len(tokens.hidden))
    for stack, part in zip(spaces, torch.split(gradient, columns), strict=True):
        stack.gradients["concept_spaces"] = part.view_as(stack.parameters["concept_spaces"])
    return size


def _scores(
    stack: Heads, batches: list[tuple[heads.Sums, BatchSize]]
) -> list[tuple[HeadSettings, Scores]]:
    """Each head's loss and CE as means over examples of the batches', and its metrics."""
    examples = sum(size.examples for _, size in batches)
    loss = ce = torch.zeros(len(stack.settings), dtype=torch.float64)
    for sums, size in batches:
        batch_loss, batch_ce = sums.losses(size, stack.latent, stack.inter, stack.intra)
        loss = loss + batch_loss * size.examples / examples
        ce = ce + batch_ce * size.examples / examples
    confusion = torch.stack([sums.confusion for sums, _ in batches]).sum(dim=0).numpy()
    return [
        (
            head,
            {"loss": float(loss[i]), "ce": float(ce[i]), **metrics.scores(confusion[i])},
        )
        for i, head in enumerate(stack.settings)
    ]


def _stop_if_diverged(result: TrainedHead, by_split: dict[str, Scores], when: str) -> bool:
    """Stop a head, and say so, where the loss on one of the splits is no finite number."""
    losses = {split: scores["loss"] for split, scores in by_split.items()}
    if all(map(math.isfinite, losses.values())):
        return False
    figures = ", ".join(f"{loss:g} ({split})" for split, loss in losses.items())
    result.stopped = f"its loss is {figures} {when}"
    log.warning("%s is stopped: %s", result.settings.description, result.stopped)
    return True


def _without_diverged(
    stacks: list[_Stack], results: dict[HeadSettings, TrainedHead], epoch: int
) -> list[_Stack]:
    """The stacks without the heads whose loss is no longer a finite number."""
    remaining = []
    for stack in stacks:
        keep = []
        for row, head in enumerate(stack.heads.settings):
            entry = results[head].history[-1]
            scores = {split: entry[split] for split in ("train", "validation")}
            if not _stop_if_diverged(results[head], scores, f"after epoch {epoch}"):
                keep.append(row)
        if len(keep) == len(stack.heads.settings):
            remaining.append(stack)
        elif keep:
            stack.keep(keep)
            remaining.append(stack)
    return remaining
