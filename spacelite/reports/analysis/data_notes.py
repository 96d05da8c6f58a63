"""What a group's data mean for its figures: texts in two splits, texts with several labels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spacelite.cache import duplicates, store
from spacelite.cache import folder as caches
from spacelite.errors import SpaceliteError
from spacelite.reports.analysis.groups import Group


def of_group(cache_dir: Path, group: Group) -> list[str]:
    """Notes under a group's table. They need the token ids in its caches: without these there are
    no notes.

    Args:
        cache_dir: Folder of caches and runs.
        group: The group.
    """
    record, transfers = group.systems[0].runs[0].record, group.systems[0].transfers
    try:
        with _cache(cache_dir, record.cache, record.cache_key) as own:
            if transfers is None:
                found = duplicates.find(own.splits)
                return _sentences(found.leaked, found.contradicted)
            split = transfers[0].split
            with _cache(cache_dir, transfers[0].cache, transfers[0].cache_key) as other:
                # Of the other data set's splits only this one counts: its train split was not used.
                pair = {"train": own.splits["train"], split: other.splits[split]}
                found = duplicates.find(pair, compare_labels=False)
                return _sentences(_leaked_into(found, split, transfers[0].dataset))
    except (SpaceliteError, KeyError):
        return []  # why words and mistakes are missing is said elsewhere


@contextmanager
def _cache(cache_dir: Path, name: str, key: str) -> Iterator[store.Cache]:
    """The cache of this name and key. Raises SpaceliteError if there is none."""
    with store.Cache(caches.find(cache_dir, name, exact=True)) as cache:
        if cache.key != key:
            raise SpaceliteError(f"cache {name} is another one now: train again")
        yield cache


def _leaked_into(found: duplicates.Duplicates, split: str, data: str) -> str:
    count = found.shared["train", split]
    if not count:
        return ""
    return (
        f"{count:,} of {found.examples[split]:,} {split} examples of {data} have a text of the "
        "runs' training data: the figures are too good by the examples that were seen in training"
    )


def _sentences(*clauses: str) -> list[str]:
    return [f"{clause[0].upper()}{clause[1:]}." for clause in clauses if clause]
