"""The training loop: K heads, one pass over the tokens an epoch, history, early stopping."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError, is_out_of_memory
from spacelite.heads import heads, logreg, settings
from spacelite.heads.heads import Heads, Parameters, stacked
from spacelite.heads.losses import Objective
from spacelite.heads.settings import HeadSettings, PassSettings
from spacelite.training import checkpoints as snapshots
from spacelite.training import engine as passes
from spacelite.training.batches import TokenSplit, open_splits
from spacelite.training.checkpoints import Snapshot
from spacelite.training.engine import Workers
from spacelite.training.evaluation import Scores, Seen, evaluate
from spacelite.training.optimizer import Adam, Moments, schedule_factor

log = logging.getLogger(__name__)

HeadMoments = dict[tuple[HeadSettings, str], Moments]  # by head and name of the parameter
# Called with how many tokens are done, of how many.
OnProgress = Callable[[int, int], None]


@dataclass
class TrainedHead:
    """A finished head: parameters by name, metrics by split, and the history of its epochs.

    `history`: one entry an epoch, {"epoch", "train": metrics, "validation": metrics}; the train
    figures are accumulated while the weights move. `logits`: (N, C) by split, of all but train.
    `best_epoch`: the epoch of the weights, where
    early stopping chose it. `stopped` says why a head failed. `seconds`: of the whole pass, which
    `heads_in_pass` heads shared.
    """

    settings: HeadSettings
    parameters: Parameters = field(default_factory=dict)
    metrics: dict[str, Scores] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    logits: dict[str, torch.Tensor] = field(default_factory=dict)
    best_epoch: int | None = None
    stopped: str | None = None
    seconds: float = 0.0
    heads_in_pass: int = 1


def train(
    cache: Cache,
    head_settings: Sequence[HeadSettings],
    shared: PassSettings,
    *,
    device: str = "cpu",
    snapshot: Path | None = None,
    resume: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> list[TrainedHead]:
    """Train heads on a complete cache, all in one pass an epoch.

    A head whose loss becomes NaN or infinite is stopped and the others go on. The state after each
    epoch is kept in the file `snapshot`, where one is named; with `resume` training goes on from
    there, to the same weights as without an interruption. Returns the heads in the order of
    `head_settings`.

    Raises SpaceliteError for an unfinished cache and for settings that nothing can be trained on.
    """
    settings.check(head_settings, shared)
    if not cache.complete:
        raise SpaceliteError(
            f"cache {cache.name} is unfinished ({cache.tokens_done:,} of {cache.tokens:,} tokens): "
            "run its embed command again"
        )
    for head in head_settings:
        if head.pooling == "pooler":
            cache.splits["train"].require_pooler()
    try:
        with passes.workers(device) as crew:
            training = _Training(cache, head_settings, shared, device, crew, on_progress)
            training.run(snapshot, resume)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise SpaceliteError(
            f"memory does not suffice for {len(head_settings)} heads at once: train fewer in one "
            "command, or with a smaller --latent or --batch-size"
        ) from error
    return training.results


class _Training:
    """A training underway: the splits, the heads that are still trained, and what came of all."""

    def __init__(
        self,
        cache: Cache,
        head_settings: Sequence[HeadSettings],
        shared: PassSettings,
        device: str,
        crew: Workers,
        on_progress: OnProgress,
    ) -> None:
        self.shared, self.device, self.crew = shared, device, crew
        self.started = time.perf_counter()
        iterated = [head for head in head_settings if head.kind != "logreg"]
        per_epoch = cache.splits["train"].tokens + cache.splits["validation"].tokens
        epochs = shared.epochs if iterated else 0
        self.progress = _Progress(on_progress, epochs * per_epoch + cache.tokens)
        self.progress(0)  # reading a large cache takes a while
        self.identity = snapshots.identity_of(cache, head_settings, shared)
        self.splits = open_splits(cache, device)
        _say_where(self.splits.values())
        self.results = [TrainedHead(head, heads_in_pass=len(iterated)) for head in head_settings]
        self.by_head = {result.settings: result for result in self.results}
        for pooling in dict.fromkeys(str(head.pooling) for head in head_settings if head.pooling):
            for split in self.splits.values():
                split.features(pooling)
        labels = self.splits["train"].labels
        classes = len(cache.label_names)
        if shared.class_weights == "balanced":
            self.objective = Objective.balanced(labels, classes)
        else:
            self.objective = Objective(classes, multilabel=labels.dim() == 2)
        self.stacks: list[Heads] = []
        self.optimizers: list[Adam] = []
        width = self.splits["train"].width
        self._compose({head: heads.initial_parameters(head, classes, width) for head in iterated})

    def run(self, snapshot: Path | None, resume: bool) -> None:
        """All epochs, then the final metrics of every head on every split."""
        done = self._restore(snapshot) if resume and snapshot is not None else 0
        tokens = self.splits["train"].lengths.sum() + self.splits["validation"].lengths.sum()
        self.progress(int(done * tokens))
        for epoch in range(done + 1, self.shared.epochs + 1):
            if not self.stacks:  # all ended before
                self.progress(int(tokens))
                continue
            self._epoch(epoch)
            if snapshot is not None:
                snapshots.save(snapshot, self._snapshot(epoch))
        for stack in self.stacks:
            for row, head in enumerate(stack.settings):
                # Early stopping has kept the best epoch's already.
                self.by_head[head].parameters = self.by_head[head].parameters or stack.one(row)
        for result in self.results:
            result.seconds = time.perf_counter() - self.started
        self._fit_logreg()
        self._final_metrics()

    def _epoch(self, epoch: int) -> None:
        train, validation = self.splits["train"], self.splits["validation"]
        rows = train.shuffled(self.shared.data_seed, epoch)
        size = self.shared.batch_size
        starts = range(0, len(rows), size)
        seen = [Seen(stack) for stack in self.stacks]
        for number, start in enumerate(starts):
            chosen = rows[start : start + size]
            batch = passes.batch_of(train, chosen, self.objective)
            for stack in self.stacks:
                stack.clear()
            passes.take_in(train, self.stacks, chosen, batch, self.crew, (epoch, number))
            update = (epoch - 1) * len(starts) + number
            factor = schedule_factor(self.shared.schedule, update, self.shared.epochs * len(starts))
            for stack, optimizer, figures in zip(self.stacks, self.optimizers, seen, strict=True):
                figures.add(batch.size)
                optimizer.update(
                    stack.parameters, stack.gradients, update + 1, factor, self.shared.clip_norm
                )
            self.progress(int(train.lengths[chosen].sum()))
        train.release()
        trained = {head: scores for figures in seen for head, scores in figures.scores()}
        validated = evaluate(validation, self.stacks, self.objective, self.crew, self.progress)
        for head, scores in trained.items():
            entry = {"epoch": epoch, "train": scores, "validation": validated[head].scores}
            self.by_head[head].history.append(entry)
        self._end_heads(epoch)

    def _end_heads(self, epoch: int) -> None:
        """Take out the heads that diverged, or have not become better for long enough."""
        remaining: dict[HeadSettings, Parameters] = {}
        ended = False
        for stack in self.stacks:
            for row, head in enumerate(stack.settings):
                result = self.by_head[head]
                entry = {split: result.history[-1][split] for split in ("train", "validation")}
                if _stop_if_diverged(result, entry, f"after epoch {epoch}"):
                    ended = True
                    continue
                if self.shared.patience is not None:
                    best = _best_epoch(result.history, self.shared.monitor)
                    if best == epoch:
                        result.best_epoch, result.parameters = epoch, stack.one(row)
                    if epoch - best >= self.shared.patience:
                        log.info(
                            "%s ends after epoch %s: its best was %s",
                            head.description, epoch, best,
                        )  # fmt: skip
                        ended = True
                        continue
                remaining[head] = stack.one(row)
        if ended:
            self._compose(remaining, self._moments())

    def _compose(
        self, parameters: dict[HeadSettings, Parameters], moments: HeadMoments | None = None
    ) -> None:
        """Stack the heads that are to be trained, with the state of Adam that they have."""
        self.stacks = stacked(parameters, self.objective, self.device)
        self.optimizers = [Adam(stack.settings, stack.parameters) for stack in self.stacks]
        if moments is None:
            return
        for stack, optimizer in zip(self.stacks, self.optimizers, strict=True):
            for name, (mean, square) in optimizer.moments.items():
                for row, head in enumerate(stack.settings):
                    mean[row], square[row] = moments[head, name]

    def _moments(self) -> HeadMoments:
        """Each head's state of Adam."""
        return {
            (head, name): (mean[row], square[row])
            for stack, optimizer in zip(self.stacks, self.optimizers, strict=True)
            for name, (mean, square) in optimizer.moments.items()
            for row, head in enumerate(stack.settings)
        }

    def _fit_logreg(self) -> None:
        for result in self.results:
            if result.settings.kind == "logreg":
                log.info("fitting %s", result.settings.system)  # it knows no progress of its own
                started = time.perf_counter()
                train = self.splits["train"]
                result.parameters = logreg.fit(
                    train.features(str(result.settings.pooling)).cpu().numpy(),
                    train.labels.cpu().numpy(),
                    self.objective.classes,
                    self.shared.class_weights,
                )
                result.seconds, result.heads_in_pass = time.perf_counter() - started, 1

    def _final_metrics(self) -> None:
        final = {r.settings: r.parameters for r in self.results if r.stopped is None}
        stacks = stacked(final, self.objective, self.device)
        for name, split in self.splits.items():
            evaluated = evaluate(split, stacks, self.objective, self.crew, self.progress)
            for head, result in evaluated.items():
                self.by_head[head].metrics[name] = result.scores
                if name != "train":
                    self.by_head[head].logits[name] = result.logits
        for head in final:
            _stop_if_diverged(self.by_head[head], self.by_head[head].metrics, "in the end")

    def _snapshot(self, epoch: int) -> Snapshot:
        tensors: Parameters = {}
        number = {result.settings: i for i, result in enumerate(self.results)}
        for stack in self.stacks:
            for name, values in stack.parameters.items():
                for row, head in enumerate(stack.settings):
                    tensors[f"{number[head]}/now/{name}"] = values[row]
        for (head, name), (mean, square) in self._moments().items():
            tensors[f"{number[head]}/mean/{name}"] = mean
            tensors[f"{number[head]}/square/{name}"] = square
        for i, result in enumerate(self.results):
            for name, value in result.parameters.items():
                tensors[f"{i}/best/{name}"] = value
        record = [
            {"history": r.history, "best_epoch": r.best_epoch, "stopped": r.stopped}
            for r in self.results
        ]
        about = {
            "heads": record,
            "resident": self.splits["train"].resident,
            "seconds": time.perf_counter() - self.started,
        }
        return Snapshot(self.identity, epoch, tensors, about)

    def _restore(self, path: Path) -> int:
        """Take up the state of a snapshot; the number of epochs that are done."""
        found = snapshots.load(path, self.identity)
        if found is None:
            return 0
        if found.record["resident"] != self.splits["train"].resident:
            raise SpaceliteError(
                "the interrupted training had another amount of free memory, and took the examples "
                "in another order: free as much, or train without --resume"
            )
        self.started -= found.record["seconds"]
        log.info("going on after epoch %s of %s", found.epoch, self.shared.epochs)
        parts: dict[str, dict[HeadSettings, Parameters]] = {
            part: {} for part in ("now", "mean", "square", "best")
        }
        for key, tensor in found.tensors.items():
            number, part, name = key.split("/")
            parts[part].setdefault(self.results[int(number)].settings, {})[name] = tensor
        for result, record in zip(self.results, found.record["heads"], strict=True):
            result.history, result.best_epoch = record["history"], record["best_epoch"]
            result.stopped = record["stopped"]
            result.parameters = parts["best"].get(result.settings, {})
        moments = {
            (head, name): (mean, parts["square"][head][name])
            for head, means in parts["mean"].items()
            for name, mean in means.items()
        }
        self._compose(parts["now"], moments)
        return found.epoch


class _Progress:
    def __init__(self, report: OnProgress, total: int) -> None:
        self._report, self._total, self._done = report, total, 0

    def __call__(self, tokens: int) -> None:
        self._done += tokens
        self._report(self._done, self._total)


def _best_epoch(history: list[dict[str, Any]], monitor: str) -> int:
    """The first epoch with the best validation figure."""
    sign = -1 if monitor in ("loss", "ce") else 1
    best = max(history, key=lambda entry: (sign * entry["validation"][monitor], -entry["epoch"]))
    return int(best["epoch"])


def _stop_if_diverged(result: TrainedHead, by_split: dict[str, Scores], when: str) -> bool:
    """Stop a head, and say so, where the loss on one of the splits is no finite number."""
    losses = {split: scores["loss"] for split, scores in by_split.items()}
    if all(map(math.isfinite, losses.values())):
        return False
    figures = ", ".join(f"{loss:g} ({split})" for split, loss in losses.items())
    result.stopped, result.parameters = f"its loss is {figures} {when}", {}
    log.warning("%s is stopped: %s", result.settings.description, result.stopped)
    return True


def _say_where(splits: Iterable[TokenSplit]) -> None:
    """Say where the hidden states are while training."""
    places: dict[bool, list[str]] = {}
    for split in splits:
        places.setdefault(split.resident, []).append(f"{split.name} {split.bytes / 1e6:,.0f} MB")
    for resident, named in places.items():
        where = "in memory" if resident else "streamed from the file in shuffled blocks"
        log.info("hidden states %s: %s", where, ", ".join(named))
