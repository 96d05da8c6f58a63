"""One pass over the tokens of a batch for all heads: groups of examples are distributed over
threads, and every head runs forward and backward on a group while its hidden states are in the
processor's cache. Then the metrics of each head, over a whole split or the batches of an epoch.

Several ranks each run the groups of the examples that they hold, and add up what these leave: the
gradients, and what there is of each example. From there on all of them compute the same.

Each thread runs torch's operations on one core. They are so short that splitting each of them over
several cores gains little on an idle machine, and on a busy one every single operation would wait
for the slowest core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from spacelite import heads, ranks
from spacelite.cache.split import TokenRows
from spacelite.errors import SpaceliteError
from spacelite.heads.base import Batch, Head, Objective, Parameters, Scratch, TokenHead, Totals
from spacelite.heads.config import HeadConfig
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.scores import Scores
from spacelite.tasks import Task
from spacelite.tasks.base import Unit
from spacelite.training import memory
from spacelite.training.batches import TokenSplit, TrainingData
from spacelite.training.config import FitConfig
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
    dealt, held, several = rows, slice(0, len(rows)), ranks.size() > 1
    if several:
        order, held = split.dealt(rows)
        dealt, to_dealt = rows[order], torch.from_numpy(order).to(split.device)
    for head in heads:
        seen = batch
        if train is not None and head.sample_weights is not None:
            index = torch.from_numpy(rows).to(head.sample_weights.device)
            seen = batch.weighted(head.sample_weights[:, index], head.class_weights)
        if head.unit is not None:
            seen = seen.standardised(head.unit)
        of_head = rows
        if several and head.of_tokens is not None:
            of_head, seen = dealt, seen.some(to_dealt)
        task = head.plan(split, of_head, seen, train)
        if task is not None:
            tasks.append(task)
        if head.of_tokens is not None:
            of_tokens.append((head.of_tokens, seen))
    first_share = len(tasks)
    if of_tokens:
        if len(dealt[held]):
            split.load(dealt[held])
        for part, seen in of_tokens:
            part.begin(seen)
            for values in part.of_examples if several else ():
                values.zero_()
        columns = sum(part.columns for part, _ in of_tokens)
        groups = [
            (held.start + first, held.start + last)
            for first, last in split.groups(dealt[held], workers.count, columns)
        ]
        tasks += [
            partial(_run_groups, split, of_tokens, dealt, share, scratch, train is not None)
            for number, scratch in enumerate(workers.scratch)
            if (share := groups[number :: workers.count])
        ]
    results = workers.run(tasks)
    of_threads = [by_part for by_part in results[first_share:] if by_part is not None]
    if several and train is not None and not of_threads:  # this rank holds none of the examples
        of_threads = [[part.zero_gradients() for part, _ in of_tokens]]
    gradients = [_added(of_part) for of_part in zip(*of_threads, strict=True)]
    if several and of_tokens:
        summed = [values for part, _ in of_tokens for values in part.of_examples]
        summed += [values for of_part in gradients for values in of_part.values()]
        ranks.add_up(summed, ranks.STEP)
    for number, (part, seen) in enumerate(of_tokens):
        part.end(seen, gradients[number] if gradients else None)
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
    for head in heads:
        head.clear()
    chunks = split.chunks(memory.EVALUATION_TOKENS)
    logits: list[list[torch.Tensor]] = [[] for _ in heads]
    for chunk in chunks:
        run_batch(split, heads, chunk, batch_of(split, chunk, objective), workers, None)
        for parts, head in zip(logits, heads, strict=True):
            parts.append(head.logits.cpu())
        progress(int(split.lengths[chunk].sum()))
    split.release()
    joined = [torch.cat(parts, dim=1) for parts in logits]
    if ranks.size() == 1:
        return joined
    order = torch.from_numpy(np.argsort(np.concatenate(chunks)))
    return [of_head[:, order] for of_head in joined]


# Metrics of what was run.


class Evaluated(NamedTuple):
    """A head's metrics and logits (N, C) on a split."""

    scores: Scores
    logits: torch.Tensor


class EpochMetrics:
    """Metrics over the batches of an epoch: losses as means over examples, predictions counted."""

    def __init__(self, head: Head) -> None:
        self._head, heads = head, len(head.configs)
        self._loss, self._ce = torch.zeros(2, heads, dtype=torch.float64)
        self._counts = Totals.zeros(heads, head.objective)

    def add(self) -> None:
        """Add the batch that the heads' totals hold."""
        counts, totals, (loss, ce) = self._counts, self._head.totals, self._head.losses()
        self._loss += loss * totals.examples
        self._ce += ce * totals.examples
        counts.confusion += totals.confusion
        counts.correct += totals.correct
        counts.examples += totals.examples

    def scores(self) -> dict[HeadConfig, Scores]:
        """Each head's metrics."""
        losses = self._loss / self._counts.examples, self._ce / self._counts.examples
        of_heads = _scores(self._head.objective.task, losses, self._counts, self._head.unit)
        return dict(zip(self._head.configs, of_heads, strict=True))


def stacked(
    parameters: Mapping[HeadConfig, Parameters], objective: Objective, device: str
) -> list[Head]:
    """Stacks of these heads; those with the same `stack_key` share one."""
    to_stack = list(parameters)
    stacks = []
    for numbers in heads.alike(to_stack):
        configs = [to_stack[number] for number in numbers]
        of_heads = [parameters[config] for config in configs]
        stacks.append(heads.kind(configs[0].kind).stack(configs, of_heads, objective, device))
    return stacks


def evaluate(
    split: TokenSplit,
    stacks: Sequence[Head],
    objective: Objective,
    workers: Workers,
    progress: Callable[[int], None] = lambda tokens: None,
) -> dict[HeadConfig, Evaluated]:
    """Metrics and logits of heads on a split, evaluated as if it were one batch; `progress` is
    called with the number of tokens processed since the last call."""
    logits = run_split(split, stacks, objective, workers, progress)
    labels = split.labels.cpu().numpy()
    evaluated: dict[HeadConfig, Evaluated] = {}
    for head, of_stack in zip(stacks, logits, strict=True):
        figures = _scores(objective.task, head.losses(), head.totals, head.unit, labels, of_stack)
        evaluated |= dict(zip(head.configs, map(Evaluated, figures, of_stack), strict=True))
    return evaluated


def _scores(
    task: Task,
    losses: tuple[torch.Tensor, torch.Tensor],
    counts: Totals,
    unit: Unit | None = None,
    labels: Array | None = None,
    logits: torch.Tensor | None = None,
) -> list[Scores]:
    """The metrics of each of K heads, from loss and CE (K,) and what was counted; those that need
    labels and logits are None without them. Logits, and what was counted, are in the `unit` of
    each head."""
    (loss, ce), accuracy = losses, counts.correct / counts.examples
    figures = zip(
        loss.tolist(), ce.tolist(), accuracy.tolist(), counts.confusion.numpy(), strict=True
    )
    of_heads = []
    for row, of_head in enumerate(figures):
        of_row = None if logits is None else logits[row].numpy()
        if unit is None:
            of_heads.append(task.in_unit(task.scores(*of_head, labels, of_row), None))
            continue
        deviation = float(unit.deviation[row])
        if of_row is not None:
            of_row = of_row.astype(np.float64) * deviation + float(unit.mean[row])
        of_task = task.scores(*of_head, labels, of_row)
        # Figures of labels and logits are in the unit of the labels, all but the loss.
        counted = of_task if of_row is None else {"loss": of_task["loss"]}
        of_heads.append({**of_task, **task.in_unit(counted, deviation)})
    return of_heads


def scores_of(
    logits: torch.Tensor, labels: torch.Tensor, objective: Objective, *, counts: bool = False
) -> Scores:
    """The metrics of logits (N, C) of N examples. With `counts`, those that are computed from
    counts alone, as for the training split during an epoch."""
    totals = Totals.zeros(1, objective)
    batch = objective.batch(torch.ones(len(labels), dtype=torch.int64), labels)
    totals.add(logits[None], batch)
    known = (None, None) if counts else (labels.numpy(), logits[None])
    return _scores(objective.task, totals.losses(), totals, None, *known)[0]


def metrics_of(predictions: Predictions) -> Scores:
    """The metrics of predictions. The loss is without the head's penalties, which need hidden
    states."""
    task, labels = predictions.task, predictions.labels
    logits = torch.from_numpy(predictions.logits)
    objective = Objective(task, logits.shape[1])
    plain = Evaluated(scores_of(logits, torch.from_numpy(labels), objective), logits)
    return decided(plain, labels, task, predictions.thresholds).scores


def predict(
    config: HeadConfig, parameters: Mapping[str, Array], objective: Objective, rows: TokenRows
) -> Array:
    """One head's logits (N, C) for texts whose hidden states are in memory."""
    task = objective.task
    labels = np.zeros((len(rows), objective.classes)[: task.label_dimensions], task.label_type)
    split = TokenSplit(replace(rows, labels=labels))  # any labels will do
    # A stack of one head, without a copy of its tables, which would take longer than the rest.
    stack = {name: torch.from_numpy(value)[None] for name, value in parameters.items()}
    head = heads.kind(config.kind)([config], stack, objective)
    (logits,) = run_split(split, [head], objective, Workers())
    return logits[0].numpy()


# Decision thresholds.


def decided(evaluated: Evaluated, labels: Array, task: Task, thresholds: Array | None) -> Evaluated:
    """What was evaluated, with the decisions of thresholds, (T,); None for the usual decisions."""
    if thresholds is None:
        return evaluated
    logits = evaluated.logits.numpy()
    predicted = task.decide(logits, thresholds)
    of_decided = task.scores(
        float(evaluated.scores["loss"] or 0.0),
        float(evaluated.scores["ce"] or 0.0),
        float(task.correct(predicted, labels).mean()),
        task.confusion(labels, predicted, logits.shape[1]),
        labels,
        logits,
    )
    return Evaluated(of_decided, evaluated.logits)


def check_threshold(data: TrainingData, training: FitConfig) -> None:
    """Raise SpaceliteError if thresholds are to be chosen where decisions have none, or where there
    is no validation split."""
    if training.threshold is None:
        return
    if "validation" not in data.splits:
        raise SpaceliteError(
            f"threshold={training.threshold}: there is no validation split to choose thresholds "
            "on: leave threshold out, or hold examples out",
            ["threshold"],
        )
    names = data.label_names
    if not data.task.threshold_labels(names):
        raise SpaceliteError(
            f"threshold={training.threshold}: a text has one of {len(names)} labels, and a "
            "threshold decides between two: leave threshold out",
            ["threshold"],
        )
