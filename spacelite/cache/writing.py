"""One cache that `embed` writes: what is copied from other caches, and what was computed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.cache import journal, reuse
from spacelite.cache.dtypes import StoredType, is_finite, stored_type
from spacelite.cache.folder import few
from spacelite.cache.reuse import Plan, Source, Taken
from spacelite.cache.rounding import Rounded, Rounding
from spacelite.cache.spec import CacheSpec
from spacelite.cache.tokenizing import Examples
from spacelite.errors import SpaceliteError
from spacelite.files import human_bytes

log = logging.getLogger(__name__)

COMMIT_SECONDS = 2.0  # most work that can be lost if the machine loses power

Array = npt.NDArray[Any]


@dataclass
class Target:
    """A cache that has been laid out and is to be written.

    Attributes:
        path: The cache file.
        spec: Its spec.
        plan: Where the hidden states of each example come from.
        with_layers: Whether layer means are written too.
        prefix: What comes before messages about this cache: its layer, if there are several.
    """

    path: Path
    spec: CacheSpec
    plan: Plan
    with_layers: bool
    prefix: str = ""


class Writing:
    """Writes the examples of a cache that are not done yet.

    Args:
        target: The cache.
        writers: Its files.
        examples: The tokens of all N examples.
        layers_required: Whether layer means that cannot be stored are an error.

    Attributes:
        copied: The number of examples that were copied from other caches.
        rounding: Adds up how much the stored type rounds what is computed.
        rounded: What it found; None if that is not measured.
    """

    def __init__(
        self, target: Target, writers: journal.Writers, examples: Examples, layers_required: bool
    ) -> None:
        self.target, self.writers, self.examples = target, writers, examples
        self.layers_required = layers_required
        self.stored = stored_type(target.spec.dtype)
        self.rounding = Rounding(self.stored)
        self.rounded: Rounded | None = None
        self.copied = 0
        self._committed = time.monotonic()

    @property
    def with_rows(self) -> bool:
        """Whether hidden states are written, not layer means alone."""
        return self.writers.tokens is not None

    def done(self) -> Array:
        """Which examples are done, (N,) bool."""
        return np.concatenate([self.writers.done(split) for split in self.examples.splits])

    def left(self) -> Array:
        """Which examples have to be computed, (N,) bool: of those with the same tokens the first,
        if one of them is not done."""
        plan, left = self.target.plan, np.zeros(len(self.examples.lengths), bool)
        left[plan.first[(plan.cache < 0) & ~self.done()]] = True
        return left

    def log_continuing(self) -> None:
        """Say how much is done already, if anything is."""
        lengths = self.examples.lengths
        if count := int(lengths[self.done()].sum()):
            log.info(
                "%scontinuing: %s of %s tokens are done",
                self.target.prefix, f"{count:,}", f"{int(lengths.sum()):,}",
            )  # fmt: skip

    def log_rounding(self) -> None:
        """Say how much the stored type rounds what was computed."""
        plan = self.target.plan
        once = self.examples.lengths[np.concatenate([plan.computed, plan.copied])].sum()
        self.rounded = self.rounding.log(int(once), self.target.prefix)

    def commit_at_times(self) -> None:
        """Commit what was written, unless that was done a moment ago."""
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.writers.commit()
            self._committed = time.monotonic()

    # Copying.

    def to_copy(self) -> Array:
        """The examples that the plan copies and that are not done, in order."""
        copied = self.target.plan.copied
        return copied[~self.done()[copied]]

    def copy(self, add: Callable[[int], None]) -> None:
        """Copy what the plan says. What cannot be copied any more is computed; the plan is changed
        before anything is, so that a run that is continued forms the same batches.

        Args:
            add: Called with the number of tokens of each example.
        """
        wanted, plan = self.to_copy(), self.target.plan
        missing: list[int] = []
        size = 0
        for number, name in enumerate(plan.caches):
            own = wanted[plan.cache[wanted] == number]
            # In the order of the other file.
            order = np.lexsort((plan.row[own], plan.split[own]))
            with ExitStack() as stack:
                try:
                    other = self.target.path.with_name(f"{name}.h5")
                    source = stack.enter_context(
                        Source(other, self.target.spec, with_layers=self.writers.layers is not None)
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
                    self._put([example], taken)
                    size += sum(part.values.nbytes for part in taken if part is not None)
                    self.commit_at_times()
                    add(int(self.examples.lengths[example]))
        self.writers.commit()
        self.copied = len(wanted) - len(missing)
        if self.copied:
            log.info(
                "%s%s of %s texts are there already: %s copied from %s",
                self.target.prefix, f"{self.copied:,}", f"{len(self.examples.lengths):,}",
                human_bytes(size), few(plan.caches),
            )  # fmt: skip
        if missing:
            log.info(
                "%s%s texts cannot be copied: they are computed",
                self.target.prefix, f"{len(missing):,}",
            )  # fmt: skip
            self.target.plan = plan.without(missing)
            reuse.write(self.target.path, self.target.spec.cache_key(), self.target.plan)

    def _take(self, source: Source, example: int) -> Taken | None:
        plan = self.target.plan
        return source.take(
            reuse.SPLITS[plan.split[example]],
            int(plan.row[example]),
            self.examples.tokens.ids[example],
        )

    # Writing.

    def check(self, example: int, rows: Array) -> None:
        """Raise SpaceliteError if the stored type cannot hold an example's hidden states."""
        split, index = self.examples.location(example)
        check_finite(rows, self.stored, f"{split} example {index}")

    def computed(self, example: int, taken: Taken) -> None:
        """Write an example that was computed, for all texts with the same tokens."""
        self._put(self._same[example], taken)

    @cached_property
    def _same(self) -> dict[int, list[int]]:
        return self.target.plan.same()

    def _put(self, examples: list[int], taken: Taken) -> None:
        """Write the same values for some examples, where they are not done."""
        writers = self.writers
        for example in examples:
            split, index = self.examples.location(example)
            if writers.tokens is not None and not writers.tokens.done[split][index]:
                writers.tokens.write(split, index, taken.rows, taken.pooled)
            if taken.means is None or writers.layers is None or writers.layers.done[split][index]:
                continue
            if is_finite(taken.means.values):
                writers.layers.write(split, index, taken.means)
            else:
                self._drop_layers(split, index)

    def _drop_layers(self, split: str, index: int) -> None:
        found = f"{split} example {index} has layer means that float16 cannot hold"
        if self.layers_required:
            raise SpaceliteError(f"{found}: leave layers=True out", ["layers"])
        log.warning("%s: the layer means are left out", found)
        self.writers.drop_layers()


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
