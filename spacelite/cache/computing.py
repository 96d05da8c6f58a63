"""Write the hidden states of every example into caches that were laid out: copied from other caches
or computed, whatever is not done yet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.backbones.model import Backbone, Forward, Output, plan_batches
from spacelite.cache import journal
from spacelite.cache.journal import Checked
from spacelite.cache.reuse import Taken
from spacelite.cache.rounding import measure
from spacelite.cache.tokenizing import Examples, OnProgress
from spacelite.cache.writing import Target, Writing
from spacelite.pipeline import Clock

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]


class Run:
    """Writes the hidden states of every example that is not done yet.

    Args:
        targets: The caches, one for each layer that the model reads, in the same order. They differ
            in nothing else.
        model: The backbone.
        examples: The tokens of all N examples.
        layers_required: Whether layer means that cannot be stored are an error.
        on_progress: Called with the phase (`copy` or `embed`), the number of tokens and the total.
        clock: Measures the stages.

    Attributes:
        tokens: The number of tokens that were run through the backbone.
        written: What was written into each target, once the run is finished.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        model: Backbone,
        examples: Examples,
        layers_required: bool,
        on_progress: OnProgress,
        clock: Clock,
    ) -> None:
        self.targets, self.model, self.examples = targets, model, examples
        self.layers_required, self.on_progress = layers_required, on_progress
        self.clock = clock
        self.tokens = 0
        self.written: list[Writing] = []

    def __call__(self, tokens_per_batch: int) -> None:
        """Copy, then compute in batches of at most so many tokens. Raises SpaceliteError if a file
        cannot be written, memory is too small, or numbers are too large for the stored type."""
        with ExitStack() as stack:
            self.written = written = [
                Writing(
                    target,
                    stack.enter_context(journal.Writers(target.path, target.with_layers)),
                    self.examples,
                    self.layers_required,
                )
                for target in self.targets
            ]
            for one in written:
                one.log_continuing()
            try:
                self._copy(written)
                self._compute(written, tokens_per_batch)
            finally:
                with self.clock.measure("writing"):
                    for one in written:
                        one.writers.commit()

    def _tokens(self, examples: Array) -> int:
        return int(self.examples.lengths[examples].sum())

    def _copy(self, written: Sequence[Writing]) -> None:
        total = sum(self._tokens(one.to_copy()) for one in written)
        if not total:
            return
        progress = _Progress("copy", total, 0, self.on_progress)
        with self.clock.measure("copying"):
            for one in written:
                one.copy(progress.add)

    def _compute(self, written: Sequence[Writing], tokens_per_batch: int) -> None:
        """Run what is left through the backbone, each text once."""
        plans = [one.target.plan for one in written]
        if repeated := max(len(plan.repeated) for plan in plans):
            log.info(
                "%s of %s texts repeat another one and are not run again",
                f"{repeated:,}", f"{len(self.examples.lengths):,}",
            )  # fmt: skip
        computed = np.unique(np.concatenate([plan.computed for plan in plans]))
        if not len(computed):
            return
        lengths = self.examples.lengths[computed]
        of_each = [one.left() for one in written]
        left = np.logical_or.reduce(of_each)[computed]
        done_before = int(lengths[~left].sum())
        progress = _Progress("embed", int(lengths.sum()), done_before, self.on_progress)
        # The whole batch is computed even if part of it is done: the last bit of an example's
        # numbers depends on the batch that it is computed in.
        plan = [
            (computed[batch], int(lengths[batch[left[batch]]].sum()))
            for batch in plan_batches(lengths, tokens_per_batch)
            if left[batch].any()
        ]
        stored = written[0].stored
        forward = Forward(
            self.model,
            self.examples.tokens,
            stored.to_rows,
            tokens_per_batch,
            measure=measure(stored) if any(one.with_rows for one in written) else None,
            clock=self.clock,
        )

        def finish(batch: Array, output: Output) -> tuple[list[list[Taken | None]], Output]:
            found = []
            for row, example in enumerate(batch.tolist()):
                wanted = [bool(own[example]) for own in of_each]
                found.append(_checked(written, wanted, example, row, output))
            return found, output

        results = forward.batches([batch for batch, _ in plan], finish)
        for (batch, tokens), (found, output) in zip(plan, results, strict=True):
            with self.clock.measure("writing"):
                for example, each in zip(batch.tolist(), found, strict=True):
                    for one, taken in zip(written, each, strict=True):
                        if taken is not None:
                            one.computed(example, taken)
                for one in written:
                    one.commit_at_times()
            # Means are not computed any more once no file can hold them.
            self.model.all_layers &= any(one.writers.layers is not None for one in written)
            for count, arrays in output.measured:
                for one, array in zip(written, arrays, strict=True):
                    one.rounding.add(count, array)
            self.tokens += tokens
            progress.add(tokens)
        for one in written:
            one.log_rounding()


def _checked(
    written: Sequence[Writing], wanted: Sequence[bool], example: int, row: int, output: Output
) -> list[Taken | None]:
    """What each cache is given of an example, which is a row of a batch; None for one that has it.
    Raises SpaceliteError if the stored type cannot hold it."""
    pooled, means = (
        None if values is None else Checked.of(values[row])
        for values in (output.pooled, output.means)
    )
    found: list[Taken | None] = []
    for one, needed, hidden in zip(written, wanted, output.states, strict=True):
        if not needed:
            found.append(None)
            continue
        if one.with_rows:
            one.check(example, hidden[row])
        found.append(Taken(Checked.of(hidden[row]), pooled, means))
    return found


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
