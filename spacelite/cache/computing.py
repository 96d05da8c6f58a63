"""Write the hidden states of every example into a cache that was laid out: copied from other caches
or computed, whatever is not done yet."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import backbones
from spacelite.backbones import Output
from spacelite.cache import journal, reuse
from spacelite.cache.dtypes import StoredType, is_finite, stored_type
from spacelite.cache.folder import few
from spacelite.cache.journal import Checked
from spacelite.cache.reuse import Plan, Source, Taken
from spacelite.cache.rounding import Rounded, Rounding, measure
from spacelite.cache.spec import CacheSpec
from spacelite.cache.tokenizing import Examples, OnProgress
from spacelite.errors import SpaceliteError
from spacelite.files import human_bytes
from spacelite.pipeline import Clock

log = logging.getLogger(__name__)

COMMIT_SECONDS = 2.0  # most work that can be lost if the machine loses power

Array = npt.NDArray[Any]


class Run:
    """Writes the hidden states of every example that is not done yet.

    Args:
        path: The cache file, which has been laid out.
        spec: Its spec.
        model: The backbone.
        examples: The tokens of all N examples.
        plan: Where the hidden states of each come from.
        layers_required: Whether layer means that cannot be stored are an error.
        on_progress: Called with the phase (`copy` or `embed`), the number of tokens and the total.
        clock: Measures the stages.

    Attributes:
        copied: The number of examples that were copied from other caches.
        tokens: The number of tokens whose hidden states were computed.
        rounded: How much the stored type rounds the dimensions of the hidden states that were
            computed; None if that is not measured.
    """

    def __init__(
        self,
        path: Path,
        spec: CacheSpec,
        model: backbones.Backbone,
        examples: Examples,
        plan: Plan,
        layers_required: bool,
        on_progress: OnProgress,
        clock: Clock,
    ) -> None:
        self.path, self.spec, self.model = path, spec, model
        self.examples, self.plan = examples, plan
        self.layers_required, self.on_progress = layers_required, on_progress
        self.stored = stored_type(spec.dtype)
        self.clock = clock
        self.copied = self.tokens = 0
        self.rounded: Rounded | None = None
        self._committed = time.monotonic()

    def __call__(self, tokens_per_batch: int) -> None:
        """Copy, then compute in batches of at most so many tokens. Raises SpaceliteError if a file
        cannot be written, memory is too small, or numbers are too large for the stored type."""
        with journal.Writers(self.path, self.model.all_layers) as writers:
            if count := self._tokens(np.flatnonzero(self._done(writers))):
                total = int(self.examples.lengths.sum())
                log.info("continuing: %s of %s tokens are done", f"{count:,}", f"{total:,}")
            try:
                self._copy(writers)
                self._compute(writers, tokens_per_batch)
            finally:
                with self.clock.measure("writing"):
                    writers.commit()

    def _done(self, writers: journal.Writers) -> Array:
        """Which examples are done, (N,) bool."""
        return np.concatenate([writers.done(split) for split in self.examples.splits])

    def _tokens(self, examples: Array) -> int:
        return int(self.examples.lengths[examples].sum())

    def _commit_at_times(self, writers: journal.Writers) -> None:
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            writers.commit()
            self._committed = time.monotonic()

    # Copying.

    def _copy(self, writers: journal.Writers) -> None:
        """Copy what the plan says. What cannot be copied any more is computed; the plan is changed
        before anything is, so that a run that is continued forms the same batches."""
        wanted = self.plan.copied[~self._done(writers)[self.plan.copied]]
        if not len(wanted):
            return
        progress = _Progress("copy", self._tokens(wanted), 0, self.on_progress)
        missing: list[int] = []
        size = 0
        for number, name in enumerate(self.plan.caches):
            own = wanted[self.plan.cache[wanted] == number]
            # In the order of the other file.
            order = np.lexsort((self.plan.row[own], self.plan.split[own]))
            with ExitStack() as stack:
                try:
                    other = self.path.with_name(f"{name}.h5")
                    source = stack.enter_context(
                        Source(other, self.spec, with_layers=self.model.all_layers)
                    )
                except SpaceliteError as error:
                    log.info("%s", error)
                    missing += own.tolist()
                    continue
                for example in own[order].tolist():
                    taken = self._take(source, example)
                    if taken is None:
                        missing.append(example)
                        continue
                    self._put(writers, [example], taken)
                    size += sum(part.values.nbytes for part in taken if part is not None)
                    self._commit_at_times(writers)
                    progress.add(int(self.examples.lengths[example]))
        writers.commit()
        self.copied = len(wanted) - len(missing)
        if self.copied:
            log.info(
                "%s of %s texts are there already: %s copied from %s",
                f"{self.copied:,}", f"{len(self.examples.lengths):,}", human_bytes(size),
                few(self.plan.caches),
            )  # fmt: skip
        if missing:
            log.info("%s texts cannot be copied: they are computed", f"{len(missing):,}")
            self.plan = self.plan.without(missing)
            reuse.write(self.path, self.spec.cache_key(), self.plan)

    def _take(self, source: Source, example: int) -> Taken | None:
        return source.take(
            reuse.SPLITS[self.plan.split[example]],
            int(self.plan.row[example]),
            self.examples.tokens.ids[example],
        )

    # Computing.

    def _compute(self, writers: journal.Writers, tokens_per_batch: int) -> None:
        """Run what is left through the backbone, each text once."""
        computed, same = self.plan.computed, self.plan.same()
        if repeated := len(self.plan.repeated):
            log.info(
                "%s of %s texts repeat another one and are not run again",
                f"{repeated:,}", f"{len(self.examples.lengths):,}",
            )  # fmt: skip
        if not len(computed):
            return
        lengths, done = self.examples.lengths[computed], self._done(writers)
        left = np.array([not done[same[one]].all() for one in computed.tolist()], bool)
        done_before = int(lengths[~left].sum())
        progress = _Progress("embed", int(lengths.sum()), done_before, self.on_progress)
        # The whole batch is computed even if part of it is done: the last bit of an example's
        # numbers depends on the batch that it is computed in.
        plan = [
            (computed[batch], int(lengths[batch[left[batch]]].sum()))
            for batch in backbones.plan_batches(lengths, tokens_per_batch)
            if left[batch].any()
        ]
        with_rows = writers.tokens is not None
        rounding = Rounding(self.stored)
        forward = backbones.Forward(
            self.model,
            self.examples.tokens,
            self.stored.to_rows,
            tokens_per_batch,
            measure=measure(self.stored) if with_rows else None,
            clock=self.clock,
        )

        def finish(batch: Array, output: Output) -> tuple[list[Taken], Output]:
            return [
                self._checked(one, row, output, with_rows) for row, one in enumerate(batch)
            ], output

        results = forward.batches([batch for batch, _ in plan], finish)
        for (batch, tokens), (found, output) in zip(plan, results, strict=True):
            with self.clock.measure("writing"):
                for example, taken in zip(batch.tolist(), found, strict=True):
                    self._put(writers, same[example], taken)
                self._commit_at_times(writers)
            rounding.add(output.measured)
            self.tokens += tokens
            progress.add(tokens)
        once = self._tokens(np.concatenate([computed, self.plan.copied]))
        self.rounded = rounding.log(once)

    def _checked(self, example: int, row: int, output: Output, with_rows: bool) -> Taken:
        """What is written for an example, which is a row of a batch. Raises SpaceliteError if the
        stored type cannot hold it."""
        if with_rows:
            split, index = self.examples.location(example)
            check_finite(output.hidden[row], self.stored, f"{split} example {index}")
        pooled, means = (
            None if values is None else Checked.of(values[row])
            for values in (output.pooled, output.means)
        )
        return Taken(Checked.of(output.hidden[row]), pooled, means)

    # Writing.

    def _put(self, writers: journal.Writers, examples: Sequence[int], taken: Taken) -> None:
        """Write the same values for some examples, where they are not done."""
        for example in examples:
            split, index = self.examples.location(example)
            if writers.tokens is not None and not writers.tokens.done[split][index]:
                writers.tokens.write(split, index, taken.rows, taken.pooled)
            if taken.means is None or writers.layers is None or writers.layers.done[split][index]:
                continue
            if is_finite(taken.means.values):
                writers.layers.write(split, index, taken.means)
            else:
                self._drop_layers(writers, split, index)

    def _drop_layers(self, writers: journal.Writers, split: str, index: int) -> None:
        found = f"{split} example {index} has layer means that float16 cannot hold"
        if self.layers_required:
            raise SpaceliteError(f"{found}: leave layers=True out", ["layers"])
        log.warning("%s: the layer means are left out", found)
        writers.drop_layers()
        self.model.all_layers = False


class _Progress:
    """Counts tokens up to a total."""

    def __init__(self, phase: str, total: int, done: int, on_progress: OnProgress) -> None:
        self._phase, self._total, self._on_progress = phase, total, on_progress
        self._count = 0
        self.add(done)

    def add(self, tokens: int) -> None:
        """Report so many tokens more."""
        self._count += tokens
        if self._total:
            self._on_progress(self._phase, self._count, self._total)


def check_finite(rows: Array, stored: StoredType, whose: str) -> None:
    """Raise SpaceliteError if rows in the stored type are not those of finite hidden states.

    Args:
        rows: The rows.
        stored: How hidden states are stored.
        whose: What they are of, for the message.
    """
    if not stored.is_finite(rows):
        # A type with a scale holds what float32 does.
        wider = stored.plain and stored.dtype != "float32"
        remedy = "use dtype=float32" if wider else "choose another backbone or layer"
        raise SpaceliteError(
            f"{whose} has hidden states that {stored.dtype} cannot hold: {remedy}",
            ["dtype", "backbone", "layer"],
        )
