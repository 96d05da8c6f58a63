"""The hidden states of every example -> caches that were laid out: copied from other caches or
computed, whatever is not done yet."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from typing_extensions import Self

from spacelite import pipeline
from spacelite.backbones.model import Forward, Output, plan_batches
from spacelite.backbones.tokenizer import Tokenized
from spacelite.cache import reuse
from spacelite.cache.dtypes import (
    Rounding,
    StoredType,
    is_finite,
    stored_type,
)
from spacelite.cache.hdf5 import seal_path
from spacelite.cache.reuse import Plan
from spacelite.cache.spec import CacheSpec
from spacelite.cache.split import Checked, SplitIndex
from spacelite.cache.store import Cache, cache_of, few
from spacelite.errors import SpaceliteError
from spacelite.files import human_bytes, write_at
from spacelite.progress import OnProgress
from spacelite.types import Array

log = logging.getLogger(__name__)

COMMIT_SECONDS = 2.0  # most work that can be lost if the machine loses power
# Times as long as the others, from which the hidden states of first tokens are an attention sink:
# in a text of as many tokens, half of the mean is then the sink's. MiniLM's [CLS] is 0.7 to 1.2
# times as long as the others.
SINK = 10


class Journal:
    """Writes values into files and, once these are on disk, the marks that say so: a process that
    is killed at any point leaves no mark of values that are not there. Use it as a context manager,
    while holding `files.lock`."""

    def __init__(self, failure: Callable[[Path, OSError], SpaceliteError]) -> None:
        """`failure` is what is raised if a file, which has to exist, cannot be written."""
        self._failure = failure
        self._files: dict[Path, int] = {}
        self._changed: set[Path] = set()  # files with values that are not synced
        self._marks: list[tuple[Path, int, bytes]] = []  # of these values, in order
        self._committed = time.monotonic()

    def put(self, path: Path, offset: int, content: bytes | memoryview) -> None:
        """Write values at an offset of a file. They count only once `commit` has returned."""
        self._pwrite(path, offset, content)
        self._changed.add(path)

    def mark(self, path: Path, offset: int, content: bytes) -> None:
        """Write the mark of values at the next `commit`."""
        self._marks.append((path, offset, content))

    def commit(self) -> None:
        """Sync the values written so far to disk, then write their marks."""
        changed, self._changed = self._changed, set()
        marks, self._marks = self._marks, []
        for path in changed:
            # If this fails, the values may be lost even if a second sync succeeds: never mark them.
            self._sync(path)
        for path, offset, content in marks:
            self._pwrite(path, offset, content)
        self._committed = time.monotonic()

    def commit_at_times(self) -> None:
        """Commit what was written, unless that was done a moment ago."""
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def remove(self, path: Path) -> None:
        """Delete a file, and forget what was written into it."""
        if path in self._files:
            os.close(self._files.pop(path))
        self._changed.discard(path)
        self._marks = [mark for mark in self._marks if mark[0] != path]
        path.unlink()

    def close(self) -> None:
        """Sync and close the files. Values that were not committed do not count."""
        with ExitStack() as stack:
            for path, file in self._files.items():
                stack.callback(os.close, file)
                stack.callback(self._sync, path)

    def _sync(self, path: Path) -> None:
        try:
            os.fsync(self._files[path])
        except OSError as error:
            raise self._failure(path, error) from error

    def _pwrite(self, path: Path, offset: int, content: bytes | memoryview) -> None:
        try:
            file = self._files.get(path)
            if file is None:
                file = self._files[path] = os.open(path, os.O_RDWR)
            write_at(file, content, offset)
        except OSError as error:
            raise self._failure(path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Writer(Journal):
    """Writes examples into those files of a cache that lack some."""

    def __init__(self, path: Path, *, layers: bool = False, layers_required: bool = False) -> None:
        """Of a cache that was laid out, with the file of its layer means or without; these may be
        `layers_required`, or be left out if they cannot be stored."""
        super().__init__(_unwritable)
        self._layers_required = layers_required
        with Cache(path) as cache:
            self._datasets = cache.datasets(layers=layers)
        # Names of the datasets that lack examples: `tokens`, `pooled`, `means`.
        self.missing = {
            name
            for split in self._datasets.values()
            for name, dataset in split.items()
            if not dataset.done.all()
        }

    def done(self, split: str) -> Array:
        """Which examples of a split are done in all that is `missing`, (N,) bool."""
        datasets = self._datasets[split]
        done = np.ones(len(datasets["tokens"].done), bool)
        for name in self.missing:
            done &= datasets[name].done == 1
        return done

    def write(self, split: str, example: int, values: Mapping[str, Checked]) -> None:
        """Write those values of an example that are `missing`, by the names of their datasets.
        They count only once `commit` has returned."""
        if "means" in self.missing and not is_finite(values["means"].values):
            problem = f"{split} example {example} has layer means that float16 cannot hold"
            if self._layers_required:
                raise SpaceliteError(f"{problem}: leave layers=True out", ["layers"])
            log.warning("%s: the layer means are left out", problem)
            self._drop_layers()
        datasets = self._datasets[split]
        new = [
            (datasets[name], checked)
            for name, checked in values.items()
            if name in self.missing and not datasets[name].done[example]
        ]
        for dataset, checked in new:
            path, offset, size = dataset.place(example)
            if len(checked.content) != size:
                raise ValueError(
                    f"{len(checked.content)} bytes of {dataset.name} for {split} example "
                    f"{example}, not {size}"
                )
            self.put(path, offset, checked.content)
            self.mark(*dataset.checksum_mark(example, checked.crc32))
        for dataset, _ in new:
            if not dataset.done[example]:  # hidden states and pooler's output have one mark
                self.mark(*dataset.done_mark(example, True))
                dataset.done[example] = 1

    def unmark(self, split: str, example: int, name: str = "tokens") -> None:
        """Mark an example as not done, so that the next embed computes it again."""
        dataset = self._datasets[split][name]
        self._pwrite(*dataset.done_mark(example, False))
        dataset.done[example] = 0

    def _drop_layers(self) -> None:
        """Delete the file of layer means and write no more of them."""
        self.missing.discard("means")
        path = next(iter(self._datasets.values()))["means"].path
        self.remove(path)
        seal_path(path).unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> SpaceliteError:
    return SpaceliteError(
        f"writing {path} failed: {error.strerror}; fix that and run the command again to continue: "
        "what is written is kept"
    )


@dataclass(frozen=True)
class Examples:
    """The N examples of all splits in one sequence, in file order, which the batch plan indexes."""

    splits: dict[str, int]  # name -> index of the first example
    indexes: dict[str, SplitIndex]
    tokens: Tokenized
    lengths: Array  # tokens of each example, (N,) int64
    # How many examples of a split come before the first of these, which may be those of a shard.
    before: Mapping[str, int] = field(default_factory=dict)

    def called(self, example: int) -> str:
        """An example in messages: its split, and its index there."""
        split, index = self.location(example)
        return f"{split} example {index + self.before.get(split, 0)}"

    def location(self, example: int) -> tuple[str, int]:
        """The split of an example and its index in that split."""
        split = [name for name, start in self.splits.items() if start <= example][-1]
        return split, example - self.splits[split]


@dataclass
class Writing:
    """Writes the examples of one cache, which was laid out, that are not done yet."""

    path: Path
    spec: CacheSpec
    plan: Plan
    writer: Writer
    examples: Examples
    prefix: str  # of messages about the cache
    rounding: Rounding  # of those that are computed
    copied: int = 0  # examples that were copied from other caches
    # Of some of those, the norm of the first hidden state and the median norm of the others.
    norms: list[tuple[float, float]] = field(default_factory=list)

    def done(self) -> Array:
        """Which examples are done, (N,) bool."""
        return np.concatenate([self.writer.done(split) for split in self.examples.splits])

    def left(self) -> Array:
        """Which examples have to be computed, (N,) bool: of those with the same tokens the first,
        if one of them is not done."""
        left = np.zeros(len(self.examples.lengths), bool)
        left[self.plan.first[(self.plan.cache < 0) & ~self.done()]] = True
        return left

    def to_copy(self) -> Array:
        """The examples that the plan copies and that are not done, in order."""
        copied = self.plan.copied
        return copied[~self.done()[copied]]

    def copy(self, on_tokens: Callable[[int], None]) -> None:
        """Copy what the plan says. What cannot be copied any more is computed; the plan is changed
        before anything is, so that a run that is continued forms the same batches. `on_tokens` is
        called with the number of tokens of each example."""
        wanted, plan, ids = self.to_copy(), self.plan, self.examples.tokens.ids
        missing: list[int] = []
        size, with_layers = 0, "means" in self.writer.missing
        for example, values in reuse.copies(
            cache_of(self.path).parent, self.spec, plan, wanted, ids, with_layers=with_layers
        ):
            if values is None:
                missing.append(example)
                continue
            self.put(example, values)
            size += sum(len(checked.content) for checked in values.values())
            self.writer.commit_at_times()
            on_tokens(len(ids[example]))
        self.writer.commit()
        self.copied = len(wanted) - len(missing)
        if self.copied:
            log.info(
                "%s%s of %s texts %s there already: %s copied from %s",
                self.prefix, f"{self.copied:,}", f"{len(ids):,}",
                "is" if self.copied == 1 else "are", human_bytes(size), few(plan.caches),
            )  # fmt: skip
        if missing:
            log.info(
                "%s%s of the texts cannot be copied and %s computed",
                self.prefix,
                f"{len(missing):,}",
                "is" if len(missing) == 1 else "are",
            )
            self.plan = plan.without(missing)
            reuse.write(self.path, self.spec.cache_key(), self.plan)

    @property
    def distinct(self) -> int:
        """Tokens of the examples without those that repeat an earlier one."""
        once = np.concatenate([self.plan.computed, self.plan.copied])
        return int(self.examples.lengths[once].sum())

    def report_sink(self) -> None:
        """Say so if the first tokens that were computed are an attention sink."""
        tokens = self.examples.tokens
        if tokens.skip_first or not self.norms:
            return
        first, others = np.median(self.norms, axis=0)
        if first > SINK * others:
            in_text = tokens.ids[0][0] not in tokens.special.others and not self.spec.prefix
            sink = SpaceliteError(
                f"the first token's hidden states are {first / others:,.0f} times as long as the "
                "others' (an attention sink): skip_first=True leaves it out"
                + (", and with it the beginning of each text" if in_text else ""),
                ["skip_first"],
            )
            log.warning("%s%s", self.prefix, sink)

    def put(self, example: int, values: Mapping[str, Checked]) -> None:
        """Write an example where it is not done."""
        self.writer.write(*self.examples.location(example), values)


def check_finite(rows: Array, stored: StoredType, whose: str) -> None:
    """Raise SpaceliteError if rows in the stored type are not those of finite hidden states."""
    if not stored.is_finite(rows):
        # All other types hold what float32 does.
        wider = stored.name == "float16"
        remedy = "use dtype=bfloat16 or float32" if wider else "choose another backbone or layer"
        problem = f"{stored.name} cannot hold"
        # Types that are measured have scales: NaN for all that is not finite.
        if not stored.measured and np.isnan(stored.decode(rows)).any():
            problem, remedy = "are not numbers (NaN)", "choose another backbone, layer or precision"
        raise SpaceliteError(
            f"{whose} has hidden states that {problem}: {remedy}",
            ["dtype", "backbone", "layer"],
        )


def write_missing(writings: Sequence[Writing], forward: Forward, on_progress: OnProgress) -> int:
    """Write all examples that are not done into caches that differ in the layer alone, one for each
    layer that the model reads, in the same order: copy, then compute in batches.

    Returns the number of tokens that were run through the backbone. Raises SpaceliteError if a file
    cannot be written, memory is too small, or numbers are too large for the stored type.
    """
    lengths = writings[0].examples.lengths
    for writing in writings:
        if count := int(lengths[writing.done()].sum()):
            log.info(
                "%scontinuing: %s of %s tokens are done",
                writing.prefix, f"{count:,}", f"{int(lengths.sum()):,}",
            )  # fmt: skip
    done, total = 0, sum(int(lengths[writing.to_copy()].sum()) for writing in writings)

    def copied(tokens: int) -> None:
        nonlocal done
        done += tokens
        on_progress("copy", done, total)

    try:
        if total:
            copied(0)
            with forward.clock.measure("copying"):
                for writing in writings:
                    writing.copy(copied)
        return _compute(writings, forward, on_progress)
    finally:
        with forward.clock.measure("writing"):
            for writing in writings:
                writing.writer.commit()


def _compute(writings: Sequence[Writing], forward: Forward, on_progress: OnProgress) -> int:
    """Run what is left through the backbone, each text once."""
    examples, stored = writings[0].examples, stored_type(writings[0].spec.dtype)
    plans = [writing.plan for writing in writings]
    computed = np.unique(np.concatenate([plan.computed for plan in plans]))
    if not len(computed):
        return 0
    lengths = np.array([len(ids) for ids in examples.tokens.ids], np.int64)[computed]
    left_in_each = [writing.left() for writing in writings]
    left = np.logical_or.reduce(left_in_each)[computed]
    # The whole batch is computed even if part of it is done: the last bit of an example's numbers
    # depends on the batch that it is computed in.
    plan = [
        (computed[batch], int(lengths[batch[left[batch]]].sum()))
        for batch in plan_batches(lengths, forward.limit)
        if left[batch].any()
    ]

    def finish(batch: Array, output: Output) -> tuple[list[list[dict[str, Checked]]], Output]:
        """The values of each text, with their checksums, for each cache that lacks them."""
        texts = []
        for row, example in enumerate(batch.tolist()):
            others = {
                name: Checked.of(values[row])
                for name, values in (("pooled", output.pooled), ("means", output.means))
                if values is not None
            }
            text: list[dict[str, Checked]] = []
            for writing, wanted, rows in zip(writings, left_in_each, output.states, strict=True):
                if not wanted[example]:
                    text.append({})
                    continue
                if "tokens" in writing.writer.missing:
                    check_finite(rows[row], stored, examples.called(example))
                text.append({"tokens": Checked.of(rows[row]), **others})
            texts.append(text)
        # One text of each batch is enough. Padding may come first.
        if output.hidden.shape[1] > 1 and forward.tokens.masks is None:
            for writing, rows in zip(writings, output.states, strict=True):
                norms = np.linalg.norm(stored.decode(rows[0]), axis=1)
                writing.norms.append((float(norms[0]), float(np.median(norms[1:]))))
        return texts, output

    same = [writing.plan.same() for writing in writings]
    run, done, total = 0, int(lengths[~left].sum()), int(lengths.sum())
    on_progress("embed", done, total)
    with pipeline.reading(forward.batches([batch for batch, _ in plan], finish)) as results:
        for (batch, tokens), (texts, output) in zip(plan, results, strict=True):
            with forward.clock.measure("writing"):
                for example, text in zip(batch.tolist(), texts, strict=True):
                    for writing, values, alike in zip(writings, text, same, strict=True):
                        for written in alike[example] if values else ():
                            writing.put(written, values)
                for writing in writings:
                    writing.writer.commit_at_times()
            # Means are not computed any more once no file can hold them.
            missing = [writing.writer.missing for writing in writings]
            forward.model.all_layers &= any("means" in of_file for of_file in missing)
            for count, measured in output.measured:
                for writing, sums in zip(writings, measured, strict=True):
                    writing.rounding.add(count, sums)
            run += tokens
            on_progress("embed", done + run, total)
    return run
