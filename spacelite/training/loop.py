"""The training loop: K heads, one pass over the tokens per epoch, history, early stopping."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spacelite import heads, settings
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.heads import Head, HeadConfig
from spacelite.heads.base import Objective, Parameters
from spacelite.tasks import task_of
from spacelite.training import checkpoints, engine, memory, thresholds
from spacelite.training.assembly import assembled
from spacelite.training.batches import (
    TrainingData,
    check_ready,
    input_width,
    open_splits,
)
from spacelite.training.checkpoints import Checkpoint
from spacelite.training.config import TrainingConfig
from spacelite.training.engine import Workers
from spacelite.training.evaluation import EpochMetrics, evaluate, stacked
from spacelite.training.fits import Fits, require_weights
from spacelite.training.optimizer import Adam, Moments
from spacelite.training.search import Search
from spacelite.training.trained import TrainedHead, best_entry
from spacelite.training.updates import OnProgress, Progress, updates

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
HeadMoments = dict[tuple[HeadConfig, str], Moments]  # by head and parameter name
OF_EPOCH = ("train", "validation")  # the splits that each epoch reads


def check(configs: Sequence[HeadConfig], training: TrainingConfig) -> None:
    """Raise SpaceliteError if a setting is invalid, or if there are no heads or duplicate ones."""
    settings.check(training)
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
    on_progress: OnProgress = lambda done, total: None,
) -> list[TrainedHead]:
    """Train heads, all in one pass over the tokens per epoch.

    A head whose loss becomes NaN or infinite is stopped; the others continue.

    Args:
        data: An open, complete cache, or examples in memory. Without a validation split, all epochs
            are trained and histories lack it.
        configs: Configs of the heads, without duplicates.
        training: Settings that the heads share.
        device: `cpu` or `cuda`.
        weights: The weight of each training example in the losses, (N,), at least 0. An example of
            weight 0 is left out. None: all weigh 1.
        search: A search among some of the heads: all but the chosen ones are dropped on the way.
            None: all heads are trained to the end.
        cache_dir: Folder of caches and runs. A checkpoint there keeps the state after each epoch
            until all heads are saved, and an interrupted training of the same settings continues
            from it: the weights will be as without the interruption. None: no checkpoint, and
            there is none for examples in memory.
        resume: Fail if there is a checkpoint that cannot be continued, rather than start anew.
        fresh: Delete the checkpoint and train from the start.
        save: Called with each head that neither diverged nor was dropped, before the checkpoint is
            deleted.
        on_progress: Called with the number of tokens done, and the total.

    Returns:
        The heads in the order of `configs`.

    Raises:
        SpaceliteError: Unfinished cache, invalid setting or weight, too little memory, unusable
            checkpoint.
    """
    check(configs, training)
    check_ready(data, configs)
    thresholds.check(data, training)
    if weights is not None:
        require_weights(weights, len(data.splits["train"]))
    memory.require(data, configs, training, device)
    checkpoint, identity, apart = None, "", contextlib.ExitStack()
    if cache_dir is not None and isinstance(data, Cache):
        searched = search.heads if search is not None else ()
        identity = checkpoints.identity(data, configs, training, searched)
        checkpoint = checkpoints.checkpoint_path(cache_dir, data, configs, training, searched)
        apart.enter_context(checkpoints.locked(checkpoint, data, len(configs)))
        if fresh:
            checkpoint.unlink(missing_ok=True)
    with apart, memory.shortage_explained(len(configs)):
        with engine.workers(device) as workers:
            run = _Training(data, configs, training, device, workers, on_progress, search, weights)
            results = run.run(checkpoint, identity, resume)
        if save is not None:
            for result in results:
                if result.kept:
                    save(result)
            if checkpoint is not None:
                checkpoint.unlink(missing_ok=True)
    return results


class _Training:
    """A training in progress: the splits, the heads still in training, and what became of all of
    them. Those are the members of the heads that are wanted: an ensemble has several."""

    def __init__(
        self,
        data: TrainingData,
        configs: Sequence[HeadConfig],
        training: TrainingConfig,
        device: str,
        workers: Workers,
        on_progress: OnProgress,
        search: Search | None,
        weights: Array | None,
    ) -> None:
        self.config, self.device, self.workers = training, device, workers
        self.search = search
        self.started = time.perf_counter()
        self.configs = list(configs)
        members = dict.fromkeys(member for config in configs for member in config.members)
        is_iterative = [config for config in members if config.is_iterative]
        epochs = training.epochs if is_iterative else 0
        per_epoch = sum(data.splits[name].tokens for name in OF_EPOCH if name in data.splits)
        self.progress = Progress(on_progress, epochs * per_epoch + data.tokens)
        self.progress(0)  # reading a large cache takes a while
        self.splits = open_splits(data, device)
        self.validation = self.splits.get("validation")
        self.weights = None if weights is None else np.asarray(weights, np.float64)
        self.by_head = {config: TrainedHead(config) for config in members}
        pooled = [pooling for config in configs for pooling in config.poolings]
        for pooling in dict.fromkeys(pooled):
            for split in self.splits.values():
                split.features(pooling)
        labels = self.splits["train"].labels
        classes = len(data.label_names)
        if training.class_weights == "balanced":
            shares = None if self.weights is None else torch.from_numpy(self.weights).float()
            self.objective = Objective.balanced(labels, classes, shares)
        else:
            self.objective = Objective(task_of(labels), classes)
        self.thresholds = thresholds.Thresholds(
            training.threshold, self.objective.task, data.label_names
        )
        self.stacks: list[Head] = []
        self.optimizers: list[Adam] = []
        self.fits = Fits(self.splits, self.objective, training.class_weights, self.weights)
        initial = {}
        for config in is_iterative:
            kind = heads.kind(config.kind).in_training()
            part = kind is not heads.kind(config.kind)  # of a head, which reads one layer
            width = self.splits["train"].width if part else input_width(config, data)
            own = kind.initial(config, classes, width)
            initial[config] = kind.filled(own, self.fits.examples)
            if config.start is not None:
                self.fits.begin(config.start, workers)
                self.by_head[config].history.append({"epoch": 0, **self.fits.starts[config.start]})
        self._compose(initial)
        if training.patience is not None and self.validation is not None:
            self._keep_start()

    def _keep_start(self) -> None:
        """Heads on top of others have an epoch 0, which may remain their best one."""
        for stack in self.stacks:
            for row, head in enumerate(stack.configs):
                if head.start is not None:
                    result = self.by_head[head]
                    result.best_epoch, result.parameters = 0, stack.head_parameters(row)

    def run(self, checkpoint: Path | None, identity: str, resume: bool) -> list[TrainedHead]:
        """Run all epochs, then compute the final metrics of every head on every split."""
        done = self._restore(checkpoint, identity, resume) if checkpoint is not None else 0
        tokens = sum(self.splits[name].lengths.sum() for name in OF_EPOCH if name in self.splits)
        self.progress(int(done * tokens))
        for epoch in range(done + 1, self.config.epochs + 1):
            if not self.stacks:  # all heads have stopped, or none is trained in epochs
                self.progress(int(tokens) * (self.config.epochs - epoch + 1))
                break
            self._epoch(epoch)
            if checkpoint is not None:
                checkpoints.save(checkpoint, self._checkpoint(identity, epoch))
        for stack in self.stacks:
            for row, head in enumerate(stack.configs):
                # With early stopping, the best epoch's parameters are there already.
                self.by_head[head].parameters = self.by_head[
                    head
                ].parameters or stack.head_parameters(row)
        spent = self._seconds()
        results = [assembled(config, self.by_head, self.fits, spent) for config in self.configs]
        is_iterative = sum(config.is_iterative for config in self.configs)
        for result in results:
            result.heads_in_pass = is_iterative if result.config.is_iterative else 1
        if self.search is not None:
            self._choose(self.search, results)
        self._final_metrics(results)
        return results

    def _seconds(self) -> float:
        """How long the epochs have taken."""
        return time.perf_counter() - self.started - self.fits.total_seconds

    def _epoch(self, epoch: int) -> None:
        train, validation = self.splits["train"], self.validation
        rows = train.shuffled(self.config.data_seed, epoch)
        if self.weights is not None:
            rows = rows[self.weights[rows] > 0]
        metrics = [EpochMetrics(stack) for stack in self.stacks]
        for tokens in updates(
            train, rows, self.stacks, self.optimizers, self.config, self.objective, self.workers,
            epoch,
        ):  # fmt: skip
            for of_epoch in metrics:
                of_epoch.add()
            self.progress(tokens)
        trained = {head: own for of_epoch in metrics for head, own in of_epoch.scores().items()}
        validated = (
            evaluate(validation, self.stacks, self.objective, self.workers, self.progress)
            if validation is not None
            else {}
        )
        for head, scores in trained.items():
            entry: dict[str, Any] = {"epoch": epoch, "train": scores}
            if head in validated:
                entry["validation"] = validated[head].scores
            self.by_head[head].history.append(entry)
        self._end_heads(epoch)

    def _end_heads(self, epoch: int) -> None:
        """Stop the heads that diverged, or have not improved for `patience` epochs."""
        remaining: dict[HeadConfig, Parameters] = {}
        ended = False
        for stack in self.stacks:
            for row, head in enumerate(stack.configs):
                result = self.by_head[head]
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
                            head.description, epoch, best,
                        )  # fmt: skip
                        ended = True
                        continue
                remaining[head] = stack.head_parameters(row)
        if self.search is not None:
            self.search.after_epoch(epoch, self.by_head, self.config)
            kept = {head: own for head, own in remaining.items() if self.by_head[head].kept}
            ended, remaining = ended or len(kept) < len(remaining), kept
        if ended:
            self._compose(remaining, self._moments())

    def _compose(
        self, parameters: dict[HeadConfig, Parameters], moments: HeadMoments | None = None
    ) -> None:
        """Stack the heads to be trained, with their moments in Adam (default: zero)."""
        self.stacks = stacked(parameters, self.objective, self.device, training=True)
        self.optimizers = [Adam(stack.configs, stack.trained) for stack in self.stacks]
        if self.weights is not None:
            own = torch.from_numpy(self.weights).float().to(self.device)
            for stack in self.stacks:
                stack.sample_weights = own.expand(len(stack.configs), -1)
        for stack in self.stacks:
            if stack.configs[0].start is not None:
                stack.starts = self.fits.start_logits[stack.configs[0].start]
        if moments is None:
            return
        for stack, optimizer in zip(self.stacks, self.optimizers, strict=True):
            for name, (mean, square) in optimizer.moments.items():
                for row, head in enumerate(stack.configs):
                    mean[row], square[row] = moments[head, name]

    def _moments(self) -> HeadMoments:
        """Each head's moments in Adam."""
        return {
            (head, name): (mean[row], square[row])
            for stack, optimizer in zip(self.stacks, self.optimizers, strict=True)
            for name, (mean, square) in optimizer.moments.items()
            for row, head in enumerate(stack.configs)
        }

    def _choose(self, search: Search, results: Sequence[TrainedHead]) -> None:
        """Choose among the candidates of a search, on validation alone."""
        by_head = {result.config: result for result in results}
        candidates = [head for head in search.heads if by_head[head].kept]
        own = {head: by_head[head].parameters for head in candidates}
        stacks = stacked(own, self.objective, self.device)
        validation = self.splits["validation"]
        plain = evaluate(validation, stacks, self.objective, self.workers)
        found = self.thresholds.applied("validation", validation, plain)
        for head in candidates:
            by_head[head].metrics["validation"] = found[head].scores
            by_head[head].stop_if_diverged(by_head[head].metrics, "after the last epoch")
        search.choose(by_head, self.config)

    def _final_metrics(self, results: Sequence[TrainedHead]) -> None:
        by_head = {result.config: result for result in results if result.kept}
        final = {config: result.parameters for config, result in by_head.items()}
        stacks = stacked(final, self.objective, self.device)
        for name in self.thresholds.order(self.splits):
            split = self.splits[name]
            plain = evaluate(split, stacks, self.objective, self.workers, self.progress)
            evaluated = self.thresholds.applied(name, split, plain)
            for head, (scores, logits) in evaluated.items():
                by_head[head].metrics[name] = scores
                if name != "train":
                    by_head[head].logits[name] = logits
        for result in by_head.values():
            result.metrics = {name: result.metrics[name] for name in self.splits}
            result.thresholds = self.thresholds.of(result.config)
            result.stop_if_diverged(result.metrics, "after the last epoch")

    def _checkpoint(self, identity: str, epoch: int) -> Checkpoint:
        tensors: Parameters = {}
        results = list(self.by_head.values())
        number = {result.config: i for i, result in enumerate(results)}
        for stack in self.stacks:
            for name, values in stack.parameters.items():
                for row, head in enumerate(stack.configs):
                    tensors[f"{number[head]}/now/{name}"] = values[row]
        for (head, name), (mean, square) in self._moments().items():
            tensors[f"{number[head]}/mean/{name}"] = mean
            tensors[f"{number[head]}/square/{name}"] = square
        for i, result in enumerate(results):
            for name, value in result.parameters.items():
                tensors[f"{i}/best/{name}"] = value
        record = [
            {
                "history": r.history,
                "best_epoch": r.best_epoch,
                "stopped": r.stopped,
                "dropped": r.dropped,
            }
            for r in results
        ]
        about = {
            "heads": record,
            "resident": self.splits["train"].resident,
            "seconds": self._seconds(),
        }
        return Checkpoint(identity, epoch, tensors, about)

    def _restore(self, path: Path, identity: str, resume: bool) -> int:
        """Restore the state from a checkpoint, if any; return the number of finished epochs."""
        resident = self.splits["train"].resident
        found = checkpoints.find(path, identity, resident=resident, resume=resume)
        if found is None:
            return 0
        self.started -= found.record["seconds"]
        log.info("continuing after epoch %s of %s", found.epoch, self.config.epochs)
        results = list(self.by_head.values())
        parts: dict[str, dict[HeadConfig, Parameters]] = {
            part: {} for part in ("now", "mean", "square", "best")
        }
        for key, tensor in found.tensors.items():
            number, part, name = key.split("/")
            parts[part].setdefault(results[int(number)].config, {})[name] = tensor
        for result, record in zip(results, found.record["heads"], strict=True):
            result.history, result.best_epoch = record["history"], record["best_epoch"]
            result.stopped = record["stopped"]
            result.dropped = record.get("dropped")  # older checkpoints know no search
            result.parameters = parts["best"].get(result.config, {})
        moments = {
            (head, name): (mean, parts["square"][head][name])
            for head, means in parts["mean"].items()
            for name, mean in means.items()
        }
        self._compose(parts["now"], moments)
        return found.epoch
