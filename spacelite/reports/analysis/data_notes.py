"""What a group's data mean for its figures: the majority baseline, texts that occur twice."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from spacelite.cache import duplicates, store, texts, unknown
from spacelite.cache import folder as caches
from spacelite.errors import SpaceliteError
from spacelite.reports.analysis.groups import Group
from spacelite.runs import find_cache
from spacelite.tasks import majority

log = logging.getLogger(__name__)


def of_group(cache_dir: Path, group: Group) -> list[str]:
    """Notes under a group's table. They need the labels and token ids in its caches: without these
    there are no notes.

    Args:
        cache_dir: Folder of caches and runs.
        group: The group.
    """
    run, transfers = group.systems[0].runs[0], group.systems[0].transfers
    record = run.record
    try:
        with store.Cache(find_cache(run, cache_dir)) as own:
            _check(own)
            if transfers is None:
                found = duplicates.of_cache(own)
                first = majority_note(own, group.section.split)
                return [first, *_sentences(found.leaked, found.contradicted, _unknown(own))]
            split = transfers[0].split
            with _cache(cache_dir, transfers[0].cache, transfers[0].cache_key) as other:
                # Of the other data set's splits only this one counts: its train split was not used.
                pair = {"train": own.splits["train"], split: other.splits[split]}
                found = duplicates.find(
                    pair,
                    {"train": texts.read(own, "train"), split: texts.read(other, split)},
                    max_length=own.spec.max_length,
                    compare_labels=False,
                )
                # In the run's numbering.
                names = record.label_names
                numbers = [names.index(transfers[0].labels[name]) for name in other.label_names]
                labels = other.splits[split].labels
                mapped = record.task.map_labels(labels, np.array(numbers), len(names))
                baseline = majority(record.task, own.splits["train"].labels, mapped, names)
                return [
                    f"{baseline.sentence} on {split} of {transfers[0].dataset}.",
                    *_sentences(
                        _leaked_into(found, split, transfers[0].dataset), _unknown(other, split)
                    ),
                ]
    except (SpaceliteError, KeyError, ValueError):
        return []  # why words and mistakes are missing is said elsewhere


def majority_note(cache: store.Cache, split: str) -> str:
    """What always predicting the most frequent training label achieves on a split of a cache."""
    training, labels = cache.splits["train"].labels, cache.splits[split].labels
    return f"{majority(cache.task, training, labels, cache.label_names).sentence} on {split}."


@contextmanager
def _cache(cache_dir: Path, name: str, key: str) -> Iterator[store.Cache]:
    """The cache of this name and key. Raises SpaceliteError if there is none."""
    with store.Cache(caches.find(cache_dir, name, exact=True)) as cache:
        if cache.key != key:
            raise SpaceliteError(f"cache {name} is another one now: train again")
        _check(cache)
        yield cache


def _check(cache: store.Cache) -> None:
    """Log and raise SpaceliteError if the labels or token ids of a cache are damaged."""
    try:
        cache.check_index()
    except SpaceliteError as error:
        log.warning("%s", error)
        raise


def _leaked_into(found: duplicates.Duplicates, split: str, data: str) -> str:
    count = found.shared["train", split]
    if not count:
        return ""
    return (
        f"{count:,} of {found.examples[split]:,} {split} examples of {data} "
        f"{'has' if count == 1 else 'have'} {found.what} of the runs' training data: these "
        "were seen in training, so the metrics are too optimistic"
    )


def _unknown(cache: store.Cache, split: str | None = None) -> str:
    """Where many tokens of a cache, or of one of its splits, are unknown to the backbone."""
    counts = unknown.read(cache.path)
    if counts is None:
        return ""
    chosen = {n: one for n, one in counts.splits.items() if split in (None, n)}
    return unknown.UnknownTokens(chosen).sentence


def _sentences(*clauses: str) -> list[str]:
    return [f"{clause[0].upper()}{clause[1:]}." for clause in clauses if clause]
