"""The training loop: K heads, one pass over the tokens per epoch.

`train` trains heads on a whole data set: history, early stopping, search, checkpoints, metrics.
`train_weighted` trains heads that each give the training examples weights of their own: folds,
subsets, sample weights, bootstraps. Both are a `Pass`, which updates all heads batch by batch.

Several ranks go through the same steps with the same numbers; only rank 0 reads and writes files
but the cache, and fits heads directly.

Shapes: K heads, N training examples, C classes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from spacelite import heads, ranks, settings
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.heads.base import Examples, Fitted, Head, Objective, Parameters, TokenHead
from spacelite.heads.config import HeadConfig
from spacelite.metrics.scores import Scores
from spacelite.progress import OnProgress as OnPhase
from spacelite.tasks import Task, known_metrics
from spacelite.tasks.base import Unit
from spacelite.training import checkpoints, engine, memory
from spacelite.training.batches import (
    ArrayData,
    TokenSplit,
    TrainingData,
    check_ready,
    input_width,
    open_splits,
)
from spacelite.training.checkpoints import Checkpoint
from spacelite.training.config import TrainingConfig
from spacelite.training.optimizer import SCHEDULES, Adam, Moments
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.training.search import Search

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]  # called with the number of tokens done, and the total
OF_EPOCH = ("train", "validation")  # the splits that each epoch reads
HELD = "held"  # a fit's logits of held-out examples, sent beside its parameters


# Training on a whole data set.


@dataclass
class TrainedHead:
    """A head after training."""

    config: HeadConfig
    parameters: Parameters = field(default_factory=dict)  # none if it diverged or was dropped
    metrics: dict[str, Scores] = field(default_factory=dict)  # by split, with the final weights
    # One {"epoch", "train": metrics, "validation": metrics} per epoch; the train metrics are
    # accumulated while the weights change.
    history: list[dict[str, Any]] = field(default_factory=list)
    logits: dict[str, torch.Tensor] = field(default_factory=dict)  # (N, C) by split but train
    best_epoch: int | None = None  # whose weights were kept, if early stopping was on
    stopped: str | None = None  # why, if the head diverged
    dropped: int | None = None  # the epoch after which a search dropped the head
    cross_validated: dict[str, float] = field(default_factory=dict)  # what that chose, by setting
    thresholds: dict[str, float] = field(default_factory=dict)  # chosen on validation, by label
    seconds: float = 0.0  # of the whole training, shared by its `heads_in_pass` heads
    heads_in_pass: int = 1

    @property
    def kept(self) -> bool:
        """Whether the head is there to be saved: it neither diverged nor was dropped."""
        return self.stopped is None and self.dropped is None

    def drop(self, epoch: int) -> None:
        """Drop the head after an epoch, in a search."""
        self.dropped, self.parameters = epoch, {}

    def stop_if_diverged(self, by_split: dict[str, Scores], when: str) -> bool:
        """Stop the head, with a warning, if its loss on any split is not finite; True if so."""
        losses = {
            split: next((value for value in scores.values() if value is not None), 0.0)
            for split, scores in by_split.items()
        }
        if all(map(math.isfinite, losses.values())):
            return False
        figures = ", ".join(f"{loss:g} ({split})" for split, loss in losses.items())
        self.stopped, self.parameters = f"its loss is {figures} {when}", {}
        log.warning("%s was stopped: %s", self.config.description, self.stopped)
        return True


def monitored(scores: Scores, monitor: str) -> float:
    """The value of the monitored metric. Raises SpaceliteError if it has none."""
    value = scores[monitor]
    if value is None:
        raise SpaceliteError(
            f"monitor={monitor}: it has no value on the validation split: choose another metric",
            ["monitor"],
        )
    return value


def best_entry(history: Sequence[dict[str, Any]], monitor: str) -> dict[str, Any]:
    """The entry of the first epoch with the best value of `monitor` on the validation split."""
    best = max if known_metrics()[monitor].higher_is_better else min
    return best(history, key=lambda entry: monitored(entry["validation"], monitor))


def check(configs: Sequence[HeadConfig], training: TrainingConfig, task: Task) -> None:
    """Raise SpaceliteError if a setting is invalid or has no effect on labels of the task, or if
    there are no heads, duplicate ones, or some that do not learn such labels."""
    settings.check(training)
    for config in (training, *configs):
        for name, reason in task.refused.items():
            default = getattr(type(config), name, None)
            if (value := getattr(config, name, default)) != default:
                raise SpaceliteError(
                    f"{name}={settings.shown(value)} has no effect on {task.phrase}: {reason}; "
                    "leave it out",
                    [name],
                )
    for config in configs:
        if config.kind in task.counterparts:
            raise SpaceliteError(
                f"head={config.kind} does not learn from {task.phrase}: train "
                f"{task.counterparts[config.kind]}",
                ["head"],
            )
    if not configs:
        raise SpaceliteError(f"there is no head to train: choose from {', '.join(heads.KINDS)}")
    if len(set(configs)) < len(configs):
        raise SpaceliteError("a head is listed twice: give each combination of settings once")
    for config in configs:
        settings.check(config)


def train(
    data: TrainingData,
    configs: Sequence[HeadConfig],
    training: TrainingConfig,
    *,
    device: str = "cpu",
    weights: Array | None = None,
    search: Search | None = None,
    cache_dir: Path | None = None,
    resume: bool = False,
    fresh: bool = False,
    save: Callable[[TrainedHead], object] | None = None,
    record: Callable[[HeadConfig], Path] | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> list[TrainedHead]:
    """Train heads on an open, complete cache or on examples in memory, all in one pass over the
    tokens per epoch; return them in the order of `configs`. A head whose loss becomes NaN or
    infinite is stopped; the others continue.

    Training examples may have `weights` (N,); those of weight 0 are left out. Below `cache_dir`, a
    checkpoint keeps the state after each epoch until all heads are saved, and an interrupted
    training of the same settings continues from it: the weights will be as without the
    interruption. `resume` fails if there is one that cannot be continued, `fresh` deletes it. Each
    head that neither diverged nor was dropped by the `search` is given to `save`, before the
    checkpoint is deleted; `record` says which file that writes, by which later commands see that a
    training which was killed in between had saved all.
    """
    check(configs, training, data.task)
    check_ready(data, configs)
    engine.check_threshold(data, training)
    if ranks.size() > 1:
        log.info("%s", _shared(configs))
    if weights is not None:
        require_weights(weights, len(data.splits["train"]))
    memory.require(data, configs, training, device)
    checkpoint, identity, apart = None, "", contextlib.ExitStack()
    if cache_dir is not None and isinstance(data, Cache):
        searched = search.heads if search is not None else ()
        identity = checkpoints.identity(data, configs, training, searched)
        checkpoint = checkpoints.checkpoint_path(cache_dir, data, identity)
        if ranks.rank() == 0:
            apart.enter_context(checkpoints.locked(checkpoint, data, len(configs)))
            if fresh:
                checkpoints.remove(checkpoint)
        ranks.broadcast()  # until rank 0 has the lock
    with apart, memory.shortage_explained(len(configs)):
        with engine.workers(device) as workers:
            run = _Training(data, configs, training, device, workers, on_progress, search, weights)
            results = run.run(checkpoint, identity, resume)
        if save is not None and ranks.rank() == 0:
            kept = [result for result in results if result.kept]
            if checkpoint is not None and record is not None:
                checkpoints.begin_saving(checkpoint, [record(result.config) for result in kept])
            for result in kept:
                save(result)
            if checkpoint is not None:
                checkpoints.remove(checkpoint)
    return results


def _shared(configs: Sequence[HeadConfig]) -> str:
    """What several ranks share, in words."""
    members = [member for config in configs for member in config.members]
    members += [config.start for config in members if config.start is not None]
    whole = {
        config.kind: None
        for config in members
        if config.is_iterative
        and not issubclass(heads.kind(config.kind).in_training(config), TokenHead)
    }
    fitted = {config.kind: None for config in members if not config.is_iterative}
    words = [f"{ranks.size()} processes share the tokens of each pass"]
    words += [f"each of them trains {', '.join(whole)}"] if whole else []
    words += [f"process 0 fits {', '.join(fitted)}"] if fitted else []
    return "; ".join(words)


@dataclass(eq=False)
class _Training:
    """A training in progress: the splits, the heads still in training, and what became of all of
    them. Those are the members of the heads that are wanted: an ensemble has several."""

    data: TrainingData
    configs: Sequence[HeadConfig]
    config: TrainingConfig
    device: str
    workers: engine.Workers
    on_progress: OnProgress
    search: Search | None = None
    weights: Array | None = None

    def __post_init__(self) -> None:
        data, configs, training = self.data, self.configs, self.config
        self.started = time.perf_counter()
        self.fit_seconds: dict[HeadConfig, float] = {}
        members = dict.fromkeys(member for config in configs for member in config.members)
        iterative = [config for config in members if config.is_iterative]
        epochs = training.epochs if iterative else 0
        per_epoch = sum(data.splits[name].tokens for name in OF_EPOCH if name in data.splits)
        self.progress = Progress(self.on_progress, epochs * per_epoch + data.tokens)
        self.progress(0)  # reading a large cache takes a while
        self.splits = open_splits(data, self.device)
        self.validation = self.splits.get("validation")
        if self.weights is not None:
            self.weights = np.asarray(self.weights, np.float64)
        self.members = {config: Member(config, self.weights) for config in iterative}
        self.by_head = {config: TrainedHead(config) for config in members}
        pooled = [pooling for config in configs for pooling in config.poolings]
        for pooling in dict.fromkeys(pooled):
            for split in self.splits.values():
                split.features(pooling)
        labels = self.splits["train"].labels
        objective = objective_of(data, training)
        if training.class_weights == "balanced":
            given = None if self.weights is None else torch.from_numpy(self.weights).float()
            objective = Objective.balanced(objective.task, labels, objective.classes, given)
        self.thresholds: dict[HeadConfig, Array] = {}  # chosen for decisions on validation
        self.heads = Pass(data, self.splits, training, objective, self.device, self.workers)
        initial = {}
        for config, member in self.members.items():
            initial[member] = self.heads.initial(member)
            if config.start is not None:
                self._fitted(config.start)
                start = self.heads.start(config.start, self.weights)
                scores = {name: evaluated.scores for name, evaluated in start.items()}
                self.by_head[config].history.append({"epoch": 0, **scores})
        self.heads.compose(initial)
        if training.patience is not None and self.validation is not None:
            # Heads on top of others have an epoch 0, which may remain their best one.
            for member, stack, row in self.heads.in_training:
                if member.config.start is not None:
                    result = self.by_head[member.config]
                    result.best_epoch, result.parameters = 0, stack.head_parameters(row)

    def _fitted(self, config: HeadConfig) -> Fitted:
        """A head that is fitted directly; it reports no progress of its own."""
        if config not in self.fit_seconds:
            log.info("fitting %s", config.name)
            started = time.perf_counter()
            fitted = self.heads.fit(config, self.weights)
            for name, value in fitted.cross_validated.items():
                log.info("%s: cross-validation chose %s = %g", config.name, name, value)
            self.fit_seconds[config] = time.perf_counter() - started
        return self.heads.fit(config, self.weights)

    def _seconds(self) -> float:
        """How long the epochs have taken."""
        return time.perf_counter() - self.started - sum(self.fit_seconds.values())

    def run(self, checkpoint: Path | None, identity: str, resume: bool) -> list[TrainedHead]:
        """Run all epochs, then compute the final metrics of every head on every split."""
        done = self._restore(checkpoint, identity, resume) if checkpoint is not None else 0
        tokens = sum(self.splits[name].lengths.sum() for name in OF_EPOCH if name in self.splits)
        self.progress(int(done * tokens))
        for epoch in range(done + 1, self.config.epochs + 1):
            if not self.heads.stacks:  # all heads have stopped, or none is trained in epochs
                self.progress(int(tokens) * (self.config.epochs - epoch + 1))
                break
            self._epoch(epoch)
            self._compare_ranks(epoch)
            if checkpoint is not None and ranks.rank() == 0:
                checkpoints.save(checkpoint, self._checkpoint(identity, epoch))
        for member, stack, row in self.heads.in_training:
            # With early stopping, the best epoch's parameters are there already.
            result = self.by_head[member.config]
            result.parameters = result.parameters or stack.head_parameters(row)
        seconds = self._seconds()
        results = [self._wanted(config, seconds) for config in self.configs]
        if self.search is not None:
            self._choose(self.search, results)
        self._final_metrics(results)
        return results

    def _epoch(self, epoch: int) -> None:
        train, validation = self.splits["train"], self.validation
        rows = train.shuffled(self.config.data_seed, epoch)
        if self.weights is not None:
            rows = rows[self.weights[rows] > 0]
        metrics = [engine.EpochMetrics(stack) for stack in self.heads.stacks]
        for tokens in self.heads.epoch(epoch, rows):
            for of_epoch in metrics:
                of_epoch.add()
            self.progress(tokens)
        trained = {
            head: scores for of_epoch in metrics for head, scores in of_epoch.scores().items()
        }
        validated = {}
        if validation is not None:
            validated = self.heads.evaluate(validation, self.heads.stacks, self.progress)
        for head, scores in trained.items():
            entry: dict[str, Any] = {"epoch": epoch, "train": scores}
            if head in validated:
                entry["validation"] = validated[head].scores
            self.by_head[head].history.append(entry)
        self._end_heads(epoch)

    def _compare_ranks(self, epoch: int) -> None:
        """Raise SpaceliteError if the ranks have different weights: each computes them itself."""
        if ranks.size() == 1:
            return
        crc = 0
        for stack in self.heads.stacks:
            for value in stack.parameters.values():
                crc = zlib.crc32(value.cpu().numpy().data, crc)
        of_ranks = ranks.gather(torch.tensor([crc])).flatten().tolist()
        if others := [rank for rank, other in enumerate(of_ranks) if other != of_ranks[0]]:
            raise SpaceliteError(
                f"after epoch {epoch}, the weights in the processes {', '.join(map(str, others))} "
                "are not those in process 0: start processes only on machines of the same kind, "
                "with the same versions of torch and numpy"
            )

    def _end_heads(self, epoch: int) -> None:
        """Stop the heads that diverged, or have not improved for `patience` epochs."""
        remaining: dict[Member, Parameters] = {}
        ended = False
        for member, stack, row in self.heads.in_training:
            result = self.by_head[member.config]
            last = result.history[-1]
            entry = {split: last[split] for split in OF_EPOCH if split in last}
            if result.stop_if_diverged(entry, f"after epoch {epoch}"):
                ended = True
                continue
            if self.config.patience is not None and self.validation is not None:
                best = best_entry(result.history, self.config.monitor)["epoch"]
                if best == epoch:
                    result.best_epoch, result.parameters = epoch, stack.head_parameters(row)
                if epoch - best >= self.config.patience:
                    log.info(
                        "%s stopped after epoch %s: epoch %s was its best",
                        member.config.description, epoch, best,
                    )  # fmt: skip
                    ended = True
                    continue
            remaining[member] = stack.head_parameters(row)
        if self.search is not None:
            self.search.after_epoch(epoch, self.by_head, self.config)
            kept = {
                member: parameters
                for member, parameters in remaining.items()
                if self.by_head[member.config].kept
            }
            ended, remaining = ended or len(kept) < len(remaining), kept
        if ended:
            self.heads.compose(remaining, self.heads.moments())

    def _wanted(self, config: HeadConfig, seconds: float) -> TrainedHead:
        """A head that is wanted, from what was trained for it in so many seconds: the members of an
        ensemble, a part on top of a start, or the head itself."""
        if not config.is_iterative:
            fitted = self._fitted(config)
            return TrainedHead(
                config,
                fitted.parameters,
                cross_validated=fitted.cross_validated,
                seconds=self.fit_seconds[config],
            )
        members = [self.by_head[member] for member in config.members]
        alone = len(members) == 1
        histories = [member.history for member in members]
        wanted = TrainedHead(
            config,
            history=histories[0] if alone else _mean_history(histories),
            best_epoch=members[0].best_epoch if alone else None,
            stopped=next((m.stopped for m in members if m.stopped is not None), None),
            dropped=next((m.dropped for m in members if m.dropped is not None), None),
            seconds=seconds,
            heads_in_pass=sum(config.is_iterative for config in self.configs),
        )
        if config.start is not None:
            wanted.cross_validated = self._fitted(config.start).cross_validated
            wanted.seconds += self.fit_seconds[config.start]
        if wanted.kept:
            parameters = [member.parameters for member in members]
            wanted.parameters = self.heads.joined(config, parameters, self.weights)
        return wanted

    def _choose(self, search: Search, results: Sequence[TrainedHead]) -> None:
        """Choose among the candidates of a search, on validation alone."""
        by_head = {result.config: result for result in results}
        candidates = [head for head in search.heads if by_head[head].kept]
        parameters = {head: by_head[head].parameters for head in candidates}
        stacks = self.heads.stacked(parameters)
        evaluated = self._evaluated(stacks, "validation", lambda tokens: None)
        for head in candidates:
            by_head[head].metrics["validation"] = evaluated[head].scores
            by_head[head].stop_if_diverged(by_head[head].metrics, "after the last epoch")
        search.choose(by_head, self.config)

    def _evaluated(
        self, stacks: Sequence[Head], name: str, progress: Callable[[int], None]
    ) -> dict[HeadConfig, engine.Evaluated]:
        """Metrics and logits of trained heads on a split. Where decision thresholds are wanted,
        those of each head are chosen on validation."""
        split, task, metric = self.splits[name], self.data.task, self.config.threshold
        evaluated = self.heads.evaluate(split, stacks, progress)
        if metric is None:
            return evaluated
        labels = split.labels.cpu().numpy()
        if name == "validation":
            for head, plain in evaluated.items():
                probabilities = task.probabilities(plain.logits.numpy())
                self.thresholds[head] = task.best_thresholds(probabilities, labels, metric)
        return {
            head: engine.decided(plain, labels, task, self.thresholds[head])
            for head, plain in evaluated.items()
        }

    def _final_metrics(self, results: Sequence[TrainedHead]) -> None:
        by_head = {result.config: result for result in results if result.kept}
        parameters = {config: result.parameters for config, result in by_head.items()}
        stacks = self.heads.stacked(parameters)
        first = "train" if self.config.threshold is None else "validation"  # chooses thresholds
        for name in sorted(self.splits, key=lambda name: name != first):
            evaluated = self._evaluated(stacks, name, self.progress)
            for head, (scores, logits) in evaluated.items():
                by_head[head].metrics[name] = scores
                if name != "train":
                    by_head[head].logits[name] = logits
        for result in by_head.values():
            result.metrics = {name: result.metrics[name] for name in self.splits}
            if result.config in self.thresholds:
                labels = self.data.task.threshold_labels(self.data.label_names)
                chosen = self.thresholds[result.config].tolist()
                result.thresholds = dict(zip(labels, chosen, strict=True))
            result.stop_if_diverged(result.metrics, "after the last epoch")

    def _checkpoint(self, identity: str, epoch: int) -> Checkpoint:
        tensors: Parameters = {}
        number = {config: i for i, config in enumerate(self.members)}
        for member, stack, row in self.heads.in_training:
            for name, values in stack.parameters.items():
                tensors[f"{number[member.config]}/now/{name}"] = values[row]
        for (member, name), (mean, square) in self.heads.moments().items():
            tensors[f"{number[member.config]}/mean/{name}"] = mean
            tensors[f"{number[member.config]}/square/{name}"] = square
        results = [self.by_head[config] for config in self.members]
        for i, result in enumerate(results):
            for name, value in result.parameters.items():
                tensors[f"{i}/best/{name}"] = value
        kept = ("history", "best_epoch", "stopped", "dropped")
        about = {
            "heads": [{name: getattr(result, name) for name in kept} for result in results],
            "resident": self.splits["train"].resident,
            "seconds": self._seconds(),
        }
        return Checkpoint(identity, epoch, tensors, about)

    def _restore(self, path: Path, identity: str, resume: bool) -> int:
        """Restore the state from a checkpoint, if any; return the number of finished epochs."""
        resident, checkpoint = self.splits["train"].resident, None
        if ranks.rank() == 0:
            checkpoint = checkpoints.find(path, identity, resident=resident, resume=resume)
        if checkpoint is None:
            state, tensors = ranks.broadcast()
        else:
            about = (checkpoint.epoch, checkpoint.record)
            state, tensors = ranks.broadcast(about, checkpoint.tensors)
        if state is None:
            return 0
        epoch, record = state
        self.started -= record["seconds"]
        log.info("continuing after epoch %s of %s", epoch, self.config.epochs)
        members = list(self.members.values())
        parts: dict[str, dict[Member, Parameters]] = {
            part: {} for part in ("now", "mean", "square", "best")
        }
        for key, tensor in tensors.items():
            number, part, name = key.split("/")
            parts[part].setdefault(members[int(number)], {})[name] = tensor
        for member, of_head in zip(members, record["heads"], strict=True):
            result = self.by_head[member.config]
            result.history, result.best_epoch = of_head["history"], of_head["best_epoch"]
            result.stopped = of_head["stopped"]
            result.dropped = of_head.get("dropped")  # older checkpoints know no search
            result.parameters = parts["best"].get(member, {})
        moments = {
            (member, name): (mean, parts["square"][member][name])
            for member, means in parts["mean"].items()
            for name, mean in means.items()
        }
        self.heads.compose(parts["now"], moments)
        return int(epoch)


def _mean_history(histories: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The history of an ensemble: the means of its members' metrics, for as many epochs as all of
    them were trained; None for a metric that a member lacks."""
    return [
        {
            "epoch": entries[0]["epoch"],
            **{
                split: _mean([entry[split] for entry in entries])
                for split in OF_EPOCH
                if split in entries[0]
            },
        }
        for entries in zip(*histories, strict=False)
    ]


def _mean(scores: Sequence[Scores]) -> Scores:
    means: Scores = {}
    for name in scores[0]:
        values = [of_member[name] for of_member in scores]
        known = [value for value in values if value is not None]
        means[name] = sum(known) / len(known) if len(known) == len(values) else None
    return means


# Training heads with weights of their own.


@dataclass(frozen=True, eq=False)
class Member:
    """A head of a pass, and the weight of each training example, (N,): 0 for one that it does not
    see; None if all weigh 1. Several members may have the same config."""

    config: HeadConfig
    weights: Array | None = None


@dataclass(frozen=True)
class Learned:
    """A head's parameters after the last epoch, and its logits for every training example, seen or
    not, (N, C) float32."""

    parameters: Parameters
    logits: Array


def train_weighted(
    data: TrainingData,
    members: Sequence[Member],
    training: TrainingConfig,
    *,
    device: str = "cpu",
    split: TokenSplit | None = None,
    on_progress: OnPhase = lambda phase, done, total: None,
) -> list[Learned]:
    """Train heads with weights on a train split, those that are trained in epochs in one pass over
    the tokens per epoch; the others are fitted.

    Each is the head that it would be if trained alone on the same batches with these weights; a
    batch in which all its weights are 0 is no update of it. A fit knows the examples of weight 0
    in nothing, from the IDF to the penalty. `split` is the train split, if `open_train` has opened
    it already. Progress is counted in tokens (`train`) and fits (`fit`).
    """
    settings.check(training)
    for member in members:
        settings.check(member.config)
        require_weights(member.weights, len(data.splits["train"]))
    configs = [member.config for member in members]
    iterative = [member for member in members if member.config.is_iterative]
    direct = [member for member in members if not member.config.is_iterative]
    memory.require(data, configs, training, device)
    objective = objective_of(data, training)
    learned: dict[Member, Learned] = {}
    with memory.shortage_explained(len(members)), engine.workers(device) as workers:
        split = split if split is not None else open_train(data, configs, device)
        one_pass = Pass(data, {split.name: split}, training, objective, device, workers)
        if iterative:
            report = partial(on_progress, "train")
            learned |= zip(iterative, _in_one_pass(one_pass, split, iterative, report), strict=True)
        for number, member in enumerate(direct):
            on_progress("fit", number, len(direct))
            part = Part(split, np.asarray(member.weights))
            kind = heads.kind(member.config.kind)
            fitted = kind.fit(member.config, part, objective, training.class_weights)
            stacks = engine.stacked({member.config: fitted.parameters}, objective, device)
            ((logits,),) = engine.run_split(split, stacks, objective, workers)
            learned[member] = Learned(fitted.parameters, logits.numpy())
            on_progress("fit", number + 1, len(direct))
    return [learned[member] for member in members]


def _in_one_pass(
    one_pass: Pass, split: TokenSplit, members: Sequence[Member], on_progress: OnProgress
) -> list[Learned]:
    """Train heads in epochs."""
    epochs = one_pass.training.epochs
    for pooling in dict.fromkeys(name for member in members for name in member.config.poolings):
        split.features(pooling)
    progress = Progress(on_progress, (epochs + 1) * int(split.lengths.sum()))
    progress(0)
    parts = [
        [Member(config, member.weights) for config in member.config.members] for member in members
    ]
    in_pass = itertools.chain.from_iterable(parts)
    one_pass.compose({member: one_pass.initial(member) for member in in_pass})
    for epoch in range(1, epochs + 1):
        for tokens in one_pass.epoch(epoch, split.shuffled(one_pass.training.data_seed, epoch)):
            progress(tokens)
    logits = engine.run_split(
        split, one_pass.stacks, one_pass.objective, one_pass.workers, progress
    )
    logits = [
        of_stack if stack.unit is None else stack.unit.restored(of_stack)
        for stack, of_stack in zip(one_pass.stacks, logits, strict=True)
    ]
    of_stack = dict(zip(one_pass.stacks, logits, strict=True))
    trained = {
        member: (stack.head_parameters(row), of_stack[stack][row])
        for member, stack, row in one_pass.in_training
    }
    return [
        Learned(
            one_pass.joined(member.config, [trained[part][0] for part in of], member.weights),
            torch.stack([trained[part][1] for part in of]).mean(dim=0).numpy(),
        )
        for member, of in zip(members, parts, strict=True)
    ]


def objective_of(data: TrainingData, training: TrainingConfig) -> Objective:
    """What training minimises, without weights of classes."""
    return Objective(data.task.losses.get(training.loss or "", data.task), len(data.label_names))


def open_train(data: TrainingData, configs: Sequence[HeadConfig], device: str) -> TokenSplit:
    """The train split, for these heads. Raises SpaceliteError if it is unfinished or damaged, or
    lacks what they read."""
    check_ready(data, configs)
    budget = math.inf if isinstance(data, ArrayData) else memory.resident_budget(device)
    return TokenSplit(data.splits["train"], "train", device, budget)


def require_weights(weights: Array | None, examples: int) -> None:
    """Raise SpaceliteError unless these are weights of so many training examples."""
    weights = np.asarray(weights)
    if weights.shape != (examples,):
        raise SpaceliteError(
            f"there are {examples:,} training examples, and weights of the shape {weights.shape}"
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise SpaceliteError("weights of examples must be at least 0, finite, and not all 0")


# What both have in common.


class Progress:
    """Counts the tokens that are done, and reports them with the total."""

    def __init__(self, report: OnProgress, total: int) -> None:
        self._report, self._total, self._done = report, total, 0

    def __call__(self, tokens: int) -> None:
        """Add tokens."""
        self._done += tokens
        self._report(self._done, self._total)


class Part:
    """The examples of a split that have a weight above 0, as `Examples`; `rows` are their indices
    in the split."""

    def __init__(self, split: TokenSplit, weights: Array) -> None:
        self._split, self.rows = split, np.flatnonzero(weights)
        self._index = torch.from_numpy(self.rows).to(split.device)
        self.labels = split.labels[self._index]
        above = np.asarray(weights, np.float64)[self.rows]
        self.weights = None if (above == 1).all() else above

    def features(self, pooling: str) -> torch.Tensor:
        """One vector per example, by a pooling."""
        return self._split.features(pooling)[self._index]

    def token_ids(self) -> tuple[Array, Array]:
        """The token ids of all examples end to end, and their offsets."""
        return self._split.token_ids(self.rows)

    @cached_property
    def standardisation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """As that of `TokenSplit`, of these examples."""
        return self._split.standardised(self.rows)


@dataclass(eq=False)
class Pass:
    """Heads that are trained in one pass over the tokens per epoch. An ensemble is trained as
    several heads; a head on top of another, which is fitted to the same examples, as the part that
    is trained in epochs. `stacks` are the heads in training.
    """

    data: TrainingData
    splits: Mapping[str, TokenSplit]
    training: TrainingConfig
    objective: Objective
    device: str
    workers: engine.Workers

    def __post_init__(self) -> None:
        self._train = self.splits["train"]
        self.stacks: list[Head] = []
        # All heads that are trained, each with its stack and its row there.
        self.in_training: list[tuple[Member, Head, int]] = []
        self._optimizers: dict[Head, Adam] = {}
        # Members with the same weights share what depends on these alone.
        self._parts: dict[bytes, Part] = {}
        self._fits: dict[tuple[HeadConfig, bytes], Fitted] = {}
        self._starts: dict[tuple[HeadConfig, bytes], dict[str, engine.Evaluated]] = {}

    # What heads begin with.

    def examples(self, weights: Array | None) -> Examples:
        """The training examples that have a weight above 0."""
        if weights is None:
            return self._train
        key = _key(weights)
        if key not in self._parts:
            self._parts[key] = Part(self._train, weights)
        return self._parts[key]

    def initial(self, member: Member) -> Parameters:
        """The parameters of a head, or of the part that is trained in epochs, before training."""
        whole = heads.kind(member.config.kind)
        kind = whole.in_training(member.config)
        # A part of a head reads one layer.
        width = input_width(member.config, self.data) if kind is whole else self._train.width
        parameters = kind.initial(member.config, self.objective.classes, width)
        return kind.filled(parameters, self.examples(member.weights)) if kind.TABLES else parameters

    def fit(self, config: HeadConfig, weights: Array | None) -> Fitted:
        """A head that is fitted to the training examples directly, by rank 0."""
        key = config, _key(weights)
        if key not in self._fits:
            chosen, tensors = None, {}
            if ranks.rank() == 0:
                fitted = heads.kind(config.kind).fit(
                    config, self.examples(weights), self.objective, self.training.class_weights
                )
                chosen, tensors = fitted.cross_validated, dict(fitted.parameters)
                if fitted.held is not None:
                    tensors[HELD] = fitted.held
            chosen, tensors = ranks.broadcast(chosen, tensors)
            held = tensors.pop(HELD, None)
            self._fits[key] = Fitted(tensors, chosen, held)
        return self._fits[key]

    def start(self, config: HeadConfig, weights: Array | None) -> dict[str, engine.Evaluated]:
        """Metrics and logits, by split, of a fitted head on top of which others are trained.

        On train, they are of fits that the example was held out of: logits of examples that n-grams
        were fitted to look so sure that nothing would be left to learn.
        """
        key = config, _key(weights)
        if key not in self._starts:
            fitted, train = self.fit(config, weights), self._train
            if fitted.held is None:
                raise ValueError(f"{config.name} is no start of another head")
            stacks, logits = self.stacked({config: fitted.parameters}), fitted.held
            if weights is not None:
                ((logits,),) = engine.run_split(train, stacks, self.objective, self.workers)
                logits[torch.from_numpy(np.flatnonzero(weights))] = fitted.held
            scores = engine.scores_of(logits, train.labels.cpu(), self.objective, counts=True)
            self._starts[key] = {"train": engine.Evaluated(scores, logits)}
            if (validation := self.splits.get("validation")) is not None:
                self._starts[key]["validation"] = self.evaluate(validation, stacks)[config]
        return self._starts[key]

    # Trained heads.

    def stacked(self, parameters: Mapping[HeadConfig, Parameters]) -> list[Head]:
        """Stacks of heads with these parameters."""
        return engine.stacked(parameters, self.objective, self.device)

    def evaluate(
        self,
        split: TokenSplit,
        stacks: Sequence[Head],
        progress: Callable[[int], None] = lambda tokens: None,
    ) -> dict[HeadConfig, engine.Evaluated]:
        """Metrics and logits on a split."""
        return engine.evaluate(split, stacks, self.objective, self.workers, progress)

    # Training.

    def compose(
        self,
        parameters: Mapping[Member, Parameters],
        moments: Mapping[tuple[Member, str], Moments] | None = None,
    ) -> None:
        """Stack the heads to be trained, with their moments in Adam (default: zero)."""
        to_train = list(parameters)
        self.stacks, self.in_training = [], []
        for numbers in heads.alike([member.config for member in to_train]):
            members = [to_train[number] for number in numbers]
            configs = [member.config for member in members]
            kind = heads.kind(configs[0].kind).in_training(configs[0])
            of_members = [parameters[member] for member in members]
            stack = kind.stack(configs, of_members, self.objective, self.device)
            self._weigh(stack, members)
            stack.unit = self._unit([member.weights for member in members])
            self._put_on_top(stack, members)
            self.stacks.append(stack)
            self.in_training += [(member, stack, row) for row, member in enumerate(members)]
        self._optimizers = {stack: Adam(stack.configs, stack.trained) for stack in self.stacks}
        if moments is not None:
            for key, (mean, square) in self.moments().items():
                mean[...], square[...] = moments[key]

    def _weigh(self, stack: Head, members: Sequence[Member]) -> None:
        """Give a stack the weights of the examples, and the class weights that follow from them."""
        weights = [member.weights for member in members]
        if weights[0] is None:
            return
        shared = all(of_member is weights[0] for of_member in weights)
        rows = np.asarray(weights[:1] if shared else weights).astype(np.float32)
        stack.sample_weights = torch.from_numpy(rows).to(self.device).expand(len(members), -1)
        # Where all heads have the same weights, the objective has the class weights.
        if self.training.class_weights == "balanced" and self.objective.class_weights is None:
            task, classes = self.objective.task, self.objective.classes
            stack.class_weights = torch.stack(
                [
                    task.balanced_weights(self._train.labels, classes, of_member)
                    for of_member in stack.sample_weights
                ]
            )

    def _unit(self, weights: Sequence[Array | None]) -> Unit | None:
        """What the targets of heads are standardised by that give the examples these weights."""
        tensors = [None if of_head is None else torch.from_numpy(of_head) for of_head in weights]
        return self.objective.task.unit(self._train.labels, tensors)

    def _put_on_top(self, stack: Head, members: Sequence[Member]) -> None:
        """Give a stack the logits of the heads on top of which its heads are trained."""
        if members[0].config.start is None:
            return
        starts = [self.start(members[0].config.start, member.weights) for member in members]
        for name, first in starts[0].items():
            logits = [start[name].logits for start in starts]
            shared = all(of_member is first.logits for of_member in logits)
            together = first.logits if shared else torch.stack(logits)
            if stack.unit is not None:
                together = stack.unit.standardised(together).to(together.dtype)
            stack.starts[name] = together.to(self.device)

    def moments(self) -> dict[tuple[Member, str], Moments]:
        """Each head's moments in Adam by parameter name, as views."""
        return {
            (member, name): (mean[row], square[row])
            for member, stack, row in self.in_training
            for name, (mean, square) in self._optimizers[stack].moments.items()
        }

    def epoch(self, epoch: int, rows: Array) -> Iterator[int]:
        """Update the heads once for each batch of an epoch, counted from 1, that reads the examples
        `rows` in this order; yield the number of tokens of each batch when it is done and the
        totals of the heads are its."""
        training, split = self.training, self._train
        starts = range(0, len(rows), training.batch_size)
        for number, start in enumerate(starts):
            chosen = rows[start : start + training.batch_size]
            batch = engine.batch_of(split, chosen, self.objective)
            for stack in self.stacks:
                stack.clear()
            engine.run_batch(split, self.stacks, chosen, batch, self.workers, (epoch, number))
            update = (epoch - 1) * len(starts) + number
            factor = SCHEDULES[training.schedule](update, training.epochs * len(starts))
            for stack, optimizer in self._optimizers.items():
                idle = _idle(stack, chosen)
                optimizer.update(
                    stack.parameters, stack.gradients, update + 1, factor, training.clip_norm, idle
                )
            yield int(split.lengths[chosen].sum())
        split.release()

    def joined(
        self, config: HeadConfig, trained: Sequence[Parameters], weights: Array | None
    ) -> Parameters:
        """The parameters of a head, from those of its trained members, and of its start."""
        start = None if config.start is None else self.fit(config.start, weights).parameters
        kind = heads.kind(config.kind).in_training(config)
        if (unit := self._unit([weights])) is not None:
            deviation = float(unit.deviation[0])
            shift = float(unit.mean[0]) if start is None else 0.0  # else the start has it
            trained = [kind.rescaled(of_member, deviation, shift) for of_member in trained]
        joined = kind.joined(trained)
        if start is None:
            return joined
        bias = start["classifier.bias"] + joined["classifier.bias"]
        return {**start, **joined, "classifier.bias": bias}


def _key(weights: Array | None) -> bytes:
    """What tells weights apart."""
    return b"" if weights is None else np.asarray(weights, np.float64).tobytes()


def _idle(stack: Head, examples: Array) -> torch.Tensor | None:
    """Which heads of a stack give all these examples a weight of 0, (K,) bool; None if none."""
    weights = stack.sample_weights
    if weights is None:
        return None
    idle = ~(weights[:, torch.from_numpy(examples).to(weights.device)] > 0).any(dim=1)
    return idle if idle.any() else None
