"""Subsets of the train split: stratified by label, nested, and held in memory.

Shapes: N training examples, n examples of a subset, M sizes, K strata, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.cache.rows import TokenRows, offsets_of, tokens_of
from spacelite.cache.split import CachedSplit, spans
from spacelite.errors import SpaceliteError
from spacelite.heads import POOLINGS, HeadConfig
from spacelite.tasks import task_of

ALL = "all"  # the whole train split, as a size
FIRST, TIMES = 16, 4  # the smallest of the default sizes, and what each is of the one before
ROWS_AT_ONCE = 2**17  # tokens

Array = npt.NDArray[Any]


def default_sizes(examples: int, least: int) -> list[int]:
    """16, 64, 256, ... below the number of examples, and at last all of them.

    Args:
        examples: N.
        least: Number of labels: a subset has at least as many examples.
    """
    sizes, size = [], FIRST
    while size < examples:
        sizes += [size] if size >= least else []
        size *= TIMES
    return [*sizes, examples]


def checked_sizes(
    sizes: Sequence[int | str], labels: Array, label_names: Sequence[str]
) -> list[int]:
    """Sizes in ascending order, "all" as the number of examples.

    Args:
        sizes: Numbers of examples, or "all".
        labels: The labels of the train split, (N,) or (N, C).
        label_names: The C label names.

    Raises:
        SpaceliteError: A size is no whole number, larger than the train split, or smaller than the
            number of labels.
    """
    counts = task_of(labels).label_counts(labels, len(label_names))
    least, found = int((counts > 0).sum()), []
    for size in sizes:
        if size == ALL:
            found.append(len(labels))
            continue
        if isinstance(size, bool) or not hasattr(size, "__index__"):
            raise SpaceliteError(f"sizes={size!r}: give whole numbers, or {ALL!r}", ["sizes"])
        number = int(size)
        if number > len(labels):
            raise SpaceliteError(
                f"sizes={number}: the train split has {len(labels):,} examples; {ALL!r} means all "
                "of them",
                ["sizes"],
            )
        if number < least:
            raise SpaceliteError(
                f"sizes={number}: the examples have {least} labels, and a subset needs one of "
                f"each: give {least} or more",
                ["sizes"],
            )
        found.append(number)
    if not found:
        raise SpaceliteError(f"sizes=[]: give whole numbers, or {ALL!r}", ["sizes"])
    return sorted(set(found))


def nested(labels: Array, sizes: Sequence[int], seed: int) -> list[Array]:
    """Draw a subset of each size, each a part of the next.

    Strata keep their shares as far as whole numbers allow (largest remainders), and have at least
    one example each. They are the labels; where texts have several, the rarest label of each.

    Args:
        labels: (N,) or (N, C).
        sizes: In ascending order.
        seed: Seed of the draw.

    Returns:
        The indices of each subset, in ascending order.
    """
    random = np.random.default_rng([seed, 1])
    strata = rarest(labels) if labels.ndim == 2 else labels
    numbers, counts = np.unique(strata, return_counts=True)
    orders = [random.permutation(np.flatnonzero(strata == number)) for number in numbers]
    taken, subsets = np.zeros(len(numbers), np.int64), []
    for size in sizes:
        taken = apportioned(counts, size, taken)
        parts = [own[:count] for own, count in zip(orders, taken.tolist(), strict=True)]
        subsets.append(np.sort(np.concatenate(parts)))
    return subsets


def rarest(labels: Array) -> Array:
    """The rarest label of each example, (N,), from (N, C); C for an example without labels."""
    counts = labels.sum(axis=0)
    order = np.argsort(counts, kind="stable")
    found = order[labels[:, order].argmax(axis=1)]
    return np.asarray(np.where(labels.any(axis=1), found, labels.shape[1]))


def apportioned(counts: Array, size: int, least: Array) -> Array:
    """How many examples of each stratum a subset has, (K,): proportional by largest remainders, at
    least one of each if the size allows, and no fewer than the smaller subset.

    Args:
        counts: Examples of each stratum, (K,).
        size: Examples of the subset, at most all.
        least: Examples of each stratum in the next smaller subset, (K,).
    """
    quotas = size * counts / counts.sum()
    least = np.maximum(least, 1) if size >= len(counts) else least
    taken: Array = np.clip(np.floor(quotas + 1e-9).astype(np.int64), least, counts)
    while taken.sum() > size:
        taken[np.where(taken > least, taken - quotas, -np.inf).argmax()] -= 1
    while taken.sum() < size:
        taken[np.where(taken < counts, quotas - taken, -np.inf).argmax()] += 1
    return taken


def in_memory(
    split: CachedSplit | TokenRows, configs: Sequence[HeadConfig], rows: Array | None = None
) -> TokenRows:
    """Examples of a split, with what heads read of them.

    Args:
        split: The split.
        configs: The heads.
        rows: Indices of the examples, in ascending order; None for all.

    Raises:
        SpaceliteError: Hidden states are damaged, or heads read what the split lacks.
    """
    rows = np.arange(len(split)) if rows is None else rows
    index = tokens_of(split.offsets, rows)
    chosen = TokenRows(
        rows=_hidden(split, rows, index),
        offsets=offsets_of(split.lengths[rows]),
        stored=split.stored,
        token_ids=split.read_token_ids()[index],
        labels=split.labels[rows],
    )
    poolings = {pooling for config in configs for pooling in config.poolings}
    if any(POOLINGS[name].from_backbone for name in poolings):
        chosen = replace(chosen, pooled=split.pooled[rows])
    if any(config.reads_layers for config in configs):
        chosen = replace(chosen, layer_means=split.layer_means[rows])
    return chosen


def _hidden(split: CachedSplit | TokenRows, rows: Array, index: Array) -> Array:
    """The hidden states of some examples as they are stored. A file is read in one pass: single
    examples would take longer."""
    if len(rows) == len(split):
        return split.read_examples(0, len(split))
    if isinstance(split, TokenRows):
        chosen: Array = split.rows[index]
        return chosen
    found = np.empty((len(index), split.stored.row_values(split.width)), split.dtype)
    done = 0
    for first, last in spans(split.offsets, ROWS_AT_ONCE):
        low, high = np.searchsorted(rows, [first, last])
        if low == high:
            continue
        block = split.read_examples(first, last)
        start, stop = int(split.offsets[first]), int(split.offsets[last])
        own = index[np.searchsorted(index, start) : np.searchsorted(index, stop)] - start
        found[done : done + len(own)] = block[own]
        done += len(own)
    return found
