"""What `train` searches, and what it says and records of a search."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacelite import runs
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.runs import SearchRecord
from spacelite.settings import details, shown, symbols
from spacelite.training import TrainingConfig
from spacelite.training.search import Search
from spacelite.training.trained import TrainedHead

log = logging.getLogger(__name__)

# Arguments of `train` -> what stands for one that is not given: without a search, and with one.
DEFAULTS: dict[str, Any] = {
    "latent": 3,
    "learning_rate": 2e-4,
    "weight_decay": 0.01,
    "max_ngram": 2,
}
LISTS: dict[str, Sequence[Any]] = {
    "latent": (3, 16, 32),
    "learning_rate": (5e-4, 2e-3, 5e-3),
    "weight_decay": (0.0, 0.01),
    "blocks": (
        "mean",
        "layers",
        "ngrams",
        "mean+ngrams",
        "layers+ngrams",
        "layers+ngrams+space",
    ),
}


def filled(
    given: Mapping[str, Any], kinds: Sequence[str], cache: Cache, *, search: bool
) -> dict[str, Any]:
    """The arguments that a search may choose, each as it was given, or with what stands for one
    that was not.

    Args:
        given: The arguments that were given.
        kinds: Kinds of heads.
        cache: The cache to train on.
        search: Whether there is a search.
    """
    if not search:
        return {**DEFAULTS, **given}
    lists = dict(LISTS)
    if "additive" not in kinds:
        del lists["blocks"]
    elif "blocks" not in given and (cache.layers is None or not cache.layers.complete):
        reading = [name for name in lists["blocks"] if "layers" in name.split("+")]
        lists["blocks"] = [name for name in lists["blocks"] if name not in reading]
        left_out = SpaceliteError(
            f"the search leaves out {' and '.join(reading)}: the cache has no layer means; embed "
            "again with layers=True to add them",
            ["layers"],
        )
        log.warning("%s", left_out)
    return {**DEFAULTS, **lists, **given}


@dataclass(frozen=True)
class Searching:
    """A search that `train` makes, on a cache and with settings that all heads share."""

    search: Search
    training: TrainingConfig

    @property
    def record(self) -> SearchRecord:
        """The search as `run.json` records it."""
        monitor, tried = self.training.monitor, len(self.search.candidates)
        return SearchRecord(tried=tried, monitor=monitor, settings=self.search.settings())

    def of(self, head: HeadConfig) -> SearchRecord | None:
        """The record for the run of a head; None for one that is no candidate."""
        return self.record if head in self.search.heads else None

    def names(self, folder: Path, cache: Cache, name: str | None) -> dict[HeadConfig, str | None]:
        """The name of each head if its candidate is chosen: `name`, or one for each seed, as in
        `runs.names_for`. A candidate has none if a run of another candidate has its name: the same
        search may be made again.

        Raises:
            SpaceliteError: No candidate can have such a name.
        """
        names: dict[HeadConfig, str | None] = {}
        refused: SpaceliteError | None = None
        for candidate in self.search.candidates:
            try:
                names |= runs.names_for(folder, cache.spec, candidate, self.training, name)
            except SpaceliteError as error:
                refused = error
        if refused is not None and not names:
            raise refused
        return names

    def sentence(self, results: Sequence[TrainedHead]) -> str:
        """What was chosen from what, and how much of the training that took; "" if all heads
        diverged."""
        by_head = {result.config: result for result in results}
        chosen = self.search.chosen(by_head)
        if any(by_head[head].stopped is not None for head in chosen):
            return ""
        first, record = chosen[0], self.record
        own, called = first.settings(), symbols(first)
        unsaid = [
            name
            for name in record.settings
            if name in own and not _in_name(first, called[name], own[name])
        ]
        figure = self.search.figure(chosen, by_head, self.training)
        seeds = f", a mean over {len(chosen)} seeds" if len(chosen) > 1 else ""
        share = self.search.trained_share(by_head, self.training)
        spared = "" if share is None else f"; this took {share:.0%} of the epochs of all"
        name = ", ".join([first.name, *details(called, own, unsaid)])
        return f"{name}: {record.words(figure)}{seeds}{spared}"


def _in_name(head: HeadConfig, symbol: str, value: Any) -> bool:
    """Whether a head's name says a setting: `space L=16`, `linear (mean)`."""
    said = value if isinstance(value, str) else f"{symbol}={shown(value)}"
    return said in head.name
