"""Loss, CE and metrics of each head, over a whole split or over the batches of an epoch; and
decision thresholds, which are chosen on validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from spacelite import heads
from spacelite.cache.split import TokenRows
from spacelite.errors import SpaceliteError
from spacelite.heads.base import Head, Objective, Parameters, Totals
from spacelite.heads.config import HeadConfig
from spacelite.metrics.scores import Scores, scores
from spacelite.tasks import Task
from spacelite.training import engine
from spacelite.training.batches import TokenSplit, TrainingData
from spacelite.training.config import FitConfig
from spacelite.training.engine import Workers
from spacelite.types import Array


class Evaluated(NamedTuple):
    """A head's metrics and logits (N, C) on a split."""

    scores: Scores
    logits: torch.Tensor


class EpochMetrics:
    """Metrics over the batches of an epoch: losses as means over examples, predictions counted."""

    def __init__(self, head: Head) -> None:
        self._head = head
        self._loss, self._ce = torch.zeros(2, len(head.configs), dtype=torch.float64)
        self._correct = torch.zeros_like(head.totals.correct)
        self._confusion = torch.zeros_like(head.totals.confusion)
        self._examples: int | torch.Tensor = 0

    def add(self) -> None:
        """Add the batch that the heads' totals hold."""
        totals, (loss, ce) = self._head.totals, self._head.losses()
        self._loss += loss * totals.examples
        self._ce += ce * totals.examples
        self._confusion += totals.confusion
        self._correct += totals.correct
        self._examples = self._examples + totals.examples

    def scores(self) -> dict[HeadConfig, Scores]:
        """Each head's metrics."""
        sums = self._loss, self._ce, self._correct
        loss, ce, accuracy = (total / self._examples for total in sums)
        of_heads = _scores(self._head.objective.task, loss, ce, accuracy, self._confusion)
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
    logits = engine.run_split(split, stacks, objective, workers, progress)
    labels = split.labels.cpu().numpy()
    evaluated: dict[HeadConfig, Evaluated] = {}
    for head, of_stack in zip(stacks, logits, strict=True):
        totals = head.totals
        accuracy = totals.correct / totals.examples
        task, losses = objective.task, head.losses()
        figures = _scores(task, *losses, accuracy, totals.confusion, labels, of_stack)
        evaluated |= dict(zip(head.configs, map(Evaluated, figures, of_stack), strict=True))
    return evaluated


def _scores(
    task: Task,
    loss: torch.Tensor,
    ce: torch.Tensor,
    accuracy: torch.Tensor,
    confusion: torch.Tensor,
    labels: Array | None = None,
    logits: torch.Tensor | None = None,
) -> list[Scores]:
    """The metrics of each of K heads; those that need labels and logits are None without them."""
    figures = zip(loss.tolist(), ce.tolist(), accuracy.tolist(), confusion.numpy(), strict=True)
    return [
        scores(task.outcome(*of_head, labels, None if logits is None else logits[row].numpy()))
        for row, of_head in enumerate(figures)
    ]


def scores_of(
    logits: torch.Tensor, labels: torch.Tensor, objective: Objective, *, counts: bool = False
) -> Scores:
    """The metrics of logits (N, C) of N examples. With `counts`, those that are computed from
    counts alone, as for the training split during an epoch."""
    totals = Totals.zeros(1, objective)
    batch = objective.batch(torch.ones(len(labels), dtype=torch.int64), labels)
    totals.add(logits[None], batch)
    known = (None, None) if counts else (labels.numpy(), logits[None])
    losses, accuracy = totals.losses(), totals.correct / totals.examples
    return _scores(objective.task, *losses, accuracy, totals.confusion, *known)[0]


def predict(
    config: HeadConfig, parameters: Mapping[str, Array], objective: Objective, rows: TokenRows
) -> Array:
    """One head's logits (N, C) for texts whose hidden states are in memory."""
    shape = (len(rows), objective.classes)[: objective.task.label_dimensions]
    split = TokenSplit(replace(rows, labels=np.zeros(shape, np.int64)))  # any labels will do
    tensors = {name: torch.from_numpy(value) for name, value in parameters.items()}
    (head,) = stacked({config: tensors}, objective, "cpu")
    (logits,) = engine.run_split(split, [head], objective, Workers())
    return logits[0].numpy()


# Decision thresholds.


def decided(evaluated: Evaluated, labels: Array, task: Task, thresholds: Array | None) -> Evaluated:
    """What was evaluated, with the decisions of thresholds, (T,); None for the usual decisions."""
    if thresholds is None:
        return evaluated
    logits = evaluated.logits.numpy()
    predicted = task.decide(logits, thresholds)
    outcome = task.outcome(
        float(evaluated.scores["loss"] or 0.0),
        float(evaluated.scores["ce"] or 0.0),
        float(task.correct(predicted, labels).mean()),
        task.confusion(labels, predicted, logits.shape[1]),
        labels,
        logits,
    )
    return Evaluated(scores(outcome), evaluated.logits)


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
