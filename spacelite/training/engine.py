"""One pass over the tokens of a batch: all space heads' coordinates as one product, forward and
backward while a group's hidden states are in the processor's cache.

Groups are shared out over threads, each of which runs torch's operations on one core: these are so
short that splitting each over cores gains little on an idle machine, and on a busy one every single
operation would wait for the slower core.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from spacelite.errors import SpaceliteError
from spacelite.heads.heads import Heads, PooledHeads, SpaceHeads
from spacelite.heads.losses import Batch, Objective, Size
from spacelite.training.batches import Scratch, TokenSplit, segment_sum

MOST_WORKERS = 8  # a batch has only so many groups
EVALUATION_TOKENS = 2**18  # tokens between two reports of progress
NARROW = 64  # columns below which the product is faster with the result transposed

Array = npt.NDArray[Any]
T = TypeVar("T")


class Workers:
    """Threads that work on the groups of a batch, torch's own threads switched off meanwhile."""

    def __init__(self, pool: ThreadPoolExecutor | None, count: int) -> None:
        self._pool = pool
        self.count = count
        self.scratch = [Scratch() for _ in range(count)]

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """The results of all tasks, in their order. The first exception is raised again."""
        if self._pool is None:
            return [task() for task in tasks]
        futures = [self._pool.submit(task) for task in tasks]
        return [future.result() for future in futures]


@contextmanager
def workers(device: str) -> Iterator[Workers]:
    """As many workers as there are cores for this process; on a GPU one, which drives it."""
    if not device.startswith(("cpu", "cuda")):
        raise SpaceliteError(f"--device {device}: heads are trained on cpu or cuda")
    count = 1 if device != "cpu" else min(MOST_WORKERS, _cores())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if count == 1:
            yield Workers(None, 1)
        else:
            with ThreadPoolExecutor(
                count, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                yield Workers(pool, count)
    finally:
        torch.set_num_threads(threads)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def batch_of(split: TokenSplit, rows: Array, objective: Objective) -> Batch:
    """The examples `rows` of a split as one batch."""
    index = torch.from_numpy(rows).to(split.device)
    lengths = torch.from_numpy(split.lengths[rows]).to(split.device)
    return objective.batch(lengths, split.labels[index])


def take_in(
    split: TokenSplit,
    stacks: Sequence[Heads],
    rows: Array,
    batch: Batch,
    crew: Workers,
    train: tuple[int, int] | None,
) -> None:
    """Add the examples `rows`, which are `batch`, to each stack's sums and, when training, leave
    each its gradients. `train`: the numbers of the epoch and of the batch, for dropout."""
    spaces = [stack for stack in stacks if isinstance(stack, SpaceHeads)]
    tasks: list[Callable[[], torch.Tensor | None]] = []
    for stack in stacks:
        if isinstance(stack, PooledHeads):
            features = split.features(str(stack.settings[0].pooling))
            index = torch.from_numpy(rows).to(split.device)
            tasks.append(partial(stack.step, features[index], batch, train))
    first_share = len(tasks)
    if spaces:
        split.load(rows)
        projection = torch.cat([stack.projection for stack in spaces])
        for stack in spaces:
            stack.begin(batch)
        groups = split.groups(rows, crew.count, len(projection))
        tasks += [
            partial(
                _work, split, spaces, projection, rows, batch, share, scratch, train is not None
            )
            for number, scratch in enumerate(crew.scratch)
            if (share := groups[number :: crew.count])
        ]
    results = crew.run(tasks)
    if spaces:
        gradients = [part for part in results[first_share:] if part is not None]
        gradient = torch.stack(gradients).sum(dim=0) if gradients else None
        first = 0
        for stack in spaces:
            last = first + len(stack.projection)
            stack.finish(batch, None if gradient is None else gradient[first:last])
            first = last


def _work(
    split: TokenSplit,
    spaces: Sequence[SpaceHeads],
    projection: torch.Tensor,
    rows: Array,
    batch: Batch,
    groups: Sequence[tuple[int, int]],
    scratch: Scratch,
    train: bool,
) -> torch.Tensor | None:
    """Work on some of a batch's groups; their gradient of the projection (columns, d)."""
    gradient = torch.zeros_like(projection) if train else None
    for first, last in groups:
        hidden = split.gather(rows[first:last], scratch)
        _group(spaces, projection, hidden, first, batch.part(first, last), scratch, gradient)
    return gradient


def _group(
    spaces: Sequence[SpaceHeads],
    projection: torch.Tensor,
    hidden: torch.Tensor,
    first: int,
    part: Batch,
    scratch: Scratch,
    gradient: torch.Tensor | None,
) -> None:
    """Forward and, with a `gradient` to add to, backward of a group: `hidden` (n, d)."""
    coordinates = _tanh(_project(hidden, projection, scratch))
    centroids = segment_sum(coordinates, part.lengths).div_(part.tokens)
    numbers = torch.arange(len(part.lengths), device=hidden.device)
    example = numbers.repeat_interleave(part.lengths, output_size=len(hidden))
    fresh = partial(scratch.tensor, device=hidden.device, dtype=hidden.dtype)
    # What dloss/ds is made of: of each example, and of each token of the heads with L_intra.
    examples, tokens = [], []
    column = 0
    for stack in spaces:
        columns = len(stack.settings) * stack.per_head
        own = slice(column, column + columns)
        varied = slice(column, column + stack.varied * stack.per_head)
        column += columns
        if not stack.varied:
            made = stack.step(first, part, centroids[:, own], None, gradient is not None)
        else:
            shape = (len(hidden), stack.varied * stack.per_head)
            centred, other = (fresh(f"{name} {column}", shape) for name in ("centred", "other"))
            # Two passes, since the mean of squares less the square of the mean cancels.
            torch.index_select(centroids[:, varied], 0, example, out=centred)
            torch.sub(coordinates[:, varied], centred, out=centred)
            squares = segment_sum(torch.mul(centred, centred, out=other), part.lengths)
            variance = squares.div_((part.tokens - 1).clamp_(min=1))
            made = stack.step(first, part, centroids[:, own], variance, gradient is not None)
            if made is not None and made[1] is not None:
                torch.index_select(made[1], 0, example, out=other)
                tokens.append((varied, centred, other))
        if made is not None:
            examples.append(made[0])
    if gradient is None:
        return
    slopes = fresh("slopes", coordinates.shape)
    torch.index_select(torch.cat(examples, dim=1), 0, example, out=slopes)
    for varied, centred, factor in tokens:
        slopes[:, varied].addcmul_(centred, factor)
    # dloss/d(W x) = dloss/ds * (1 - s^2)
    torch.ops.aten.tanh_backward.grad_input(slopes, coordinates, grad_input=slopes)
    _add_gradient(gradient, slopes, hidden)


def _add_gradient(gradient: torch.Tensor, slopes: torch.Tensor, hidden: torch.Tensor) -> None:
    gradient.addmm_(slopes.T, hidden)


def _project(hidden: torch.Tensor, projection: torch.Tensor, scratch: Scratch) -> torch.Tensor:
    """(n, d) hidden states times (columns, d) transposed: (n, columns)."""
    rows, columns = len(hidden), len(projection)
    fresh = partial(scratch.tensor, device=hidden.device, dtype=hidden.dtype)
    result = fresh("coordinates", (rows, columns))
    if columns < NARROW:
        turned = fresh("turned", (columns, rows))
        result.copy_(torch.mm(projection, hidden.T, out=turned).T)
    else:
        torch.mm(hidden, projection.T, out=result)
    return result


def _tanh(projected: torch.Tensor) -> torch.Tensor:
    """tanh, in place."""
    if projected.device.type != "cpu":
        return projected.tanh_()
    array = projected.numpy()
    np.tanh(array, out=array)  # several times as fast as torch's
    return projected


def sum_up(
    split: TokenSplit,
    stacks: Sequence[Heads],
    objective: Objective,
    crew: Workers,
    progress: Callable[[int], None] = lambda tokens: None,
) -> tuple[Size, list[torch.Tensor]]:
    """Sum up a split, which counts as one batch: L_inter and L_intra are means over all of it.
    Returns the counts to form the losses with, and each stack's logits (K, N, C) on the CPU."""
    rows = split.in_order()
    size = batch_of(split, rows, objective).size
    for stack in stacks:
        stack.clear()
    ends = np.cumsum(split.lengths)
    chunks = np.searchsorted(ends, np.arange(EVALUATION_TOKENS, ends[-1], EVALUATION_TOKENS))
    logits: list[list[torch.Tensor]] = [[] for _ in stacks]
    for chunk in np.split(rows, np.unique(chunks)):
        if len(chunk):
            take_in(split, stacks, chunk, batch_of(split, chunk, objective), crew, None)
            for parts, stack in zip(logits, stacks, strict=True):
                parts.append(stack.logits.cpu())
            progress(int(split.lengths[chunk].sum()))
    split.release()
    return size, [torch.cat(parts, dim=1) for parts in logits]
