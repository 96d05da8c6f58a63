"""One pass over the tokens of a batch for all heads: groups of examples are distributed over
threads, and every head runs forward and backward on a group while its hidden states are in the
processor's cache.

Each thread runs torch's operations on one core. They are so short that splitting each of them over
several cores gains little on an idle machine, and on a busy one every single operation would wait
for the slowest core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
import torch

from spacelite.errors import SpaceliteError
from spacelite.heads.base import Batch, Head, Objective, Parameters, Scratch, TokenHead
from spacelite.training import memory
from spacelite.training.batches import TokenSplit
from spacelite.types import Array

T = TypeVar("T")


class Workers:
    """Threads that run the groups of a batch; torch's own multithreading is off meanwhile."""

    def __init__(self, pool: ThreadPoolExecutor | None = None, count: int = 1) -> None:
        self._pool = pool
        self.count = count
        self.scratch = [Scratch() for _ in range(count)]

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Run all tasks and return their results in order. Re-raises the first exception."""
        if self._pool is None:
            return [task() for task in tasks]
        futures = [self._pool.submit(task) for task in tasks]
        return [future.result() for future in futures]


@contextmanager
def workers(device: str) -> Iterator[Workers]:
    """As many workers as `memory.threads` says. Raises SpaceliteError if the device is neither a
    CPU nor a CUDA GPU."""
    if not device.startswith(("cpu", "cuda")):
        raise SpaceliteError(f"device={device}: heads are trained on cpu or cuda", ["device"])
    count = memory.threads(device)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if count == 1:
            yield Workers()
        else:
            with ThreadPoolExecutor(
                count, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                yield Workers(pool, count)
    finally:
        torch.set_num_threads(before)


def batch_of(split: TokenSplit, rows: Array, objective: Objective) -> Batch:
    """The examples `rows` of a split as one batch."""
    index = torch.from_numpy(rows).to(split.device)
    lengths = torch.from_numpy(split.lengths[rows]).to(split.device)
    return objective.batch(lengths, split.labels[index])


def run_batch(
    split: TokenSplit,
    heads: Sequence[Head],
    rows: Array,
    batch: Batch,
    workers: Workers,
    train: tuple[int, int] | None,
) -> None:
    """Run stacks of heads on the examples `rows` of a split, as a batch. Afterwards their `logits`
    are those of the batch, their `totals` include it, and in training their `gradients` are set.
    `train` are the numbers of the epoch and of the batch, for dropout; None in evaluation."""
    tasks: list[Callable[[], list[Parameters] | None]] = []
    of_tokens = []
    for head in heads:
        seen = batch
        if train is not None and head.sample_weights is not None:
            index = torch.from_numpy(rows).to(head.sample_weights.device)
            seen = batch.weighted(head.sample_weights[:, index], head.class_weights)
        task = head.plan(split, rows, seen, train)
        if task is not None:
            tasks.append(task)
        if head.of_tokens is not None:
            of_tokens.append((head.of_tokens, seen))
    first_share = len(tasks)
    if of_tokens:
        split.load(rows)
        for part, seen in of_tokens:
            part.begin(seen)
        groups = split.groups(rows, workers.count, sum(part.columns for part, _ in of_tokens))
        tasks += [
            partial(_run_groups, split, of_tokens, rows, share, scratch, train is not None)
            for number, scratch in enumerate(workers.scratch)
            if (share := groups[number :: workers.count])
        ]
    results = workers.run(tasks)
    of_threads = [by_part for by_part in results[first_share:] if by_part is not None]
    for number, (part, seen) in enumerate(of_tokens):
        gradients = [by_part[number] for by_part in of_threads]
        part.end(seen, _added(gradients) if gradients else None)
    for head in heads:
        head.finish(batch)


def _run_groups(
    split: TokenSplit,
    heads: Sequence[tuple[TokenHead, Batch]],
    rows: Array,
    groups: Sequence[tuple[int, int]],
    scratch: Scratch,
    train: bool,
) -> list[Parameters] | None:
    """Run some of a batch's groups in one thread; in training, return each stack's gradients.
    `heads` are the stacks, each with the batch as it sees it."""
    gradients = [head.zero_gradients() for head, _ in heads] if train else None
    for first, last in groups:
        hidden = split.gather(rows[first:last], scratch)
        for number, (head, batch) in enumerate(heads):
            of_head = None if gradients is None else gradients[number]
            head.run_group(first, batch.part(first, last), hidden, scratch, of_head)
    return gradients


def _added(parts: Sequence[Parameters]) -> Parameters:
    return {name: torch.stack([part[name] for part in parts]).sum(dim=0) for name in parts[0]}


def run_split(
    split: TokenSplit,
    heads: Sequence[Head],
    objective: Objective,
    workers: Workers,
    progress: Callable[[int], None] = lambda tokens: None,
) -> list[torch.Tensor]:
    """Run stacks of heads on a whole split as if it were one batch: all means are over all of it.
    Return each stack's logits (K, N, C) on the CPU; their `totals` are those of the split.
    `progress` is called with the number of tokens processed since the last call."""
    rows = split.in_order()
    for head in heads:
        head.clear()
    ends = np.cumsum(split.lengths)
    step = memory.EVALUATION_TOKENS
    chunks = np.searchsorted(ends, np.arange(step, ends[-1], step))
    logits: list[list[torch.Tensor]] = [[] for _ in heads]
    for chunk in np.split(rows, np.unique(chunks)):
        if len(chunk):
            run_batch(split, heads, chunk, batch_of(split, chunk, objective), workers, None)
            for parts, head in zip(logits, heads, strict=True):
                parts.append(head.logits.cpu())
            progress(int(split.lengths[chunk].sum()))
    split.release()
    return [torch.cat(parts, dim=1) for parts in logits]
