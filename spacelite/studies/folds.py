"""Which examples each head of a cross-validation is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.errors import SpaceliteError
from spacelite.settings import LARGEST_SEED, require, whole_number
from spacelite.tasks import task_of

Array = npt.NDArray[Any]

MOST = 1000  # folds, and repeats
MOST_SKLEARN_SEED = 2**32


def folds(
    labels: Array,
    label_names: Sequence[str],
    *,
    count: int = 5,
    repeats: int = 1,
    seed: int = 0,
    groups: Array | None = None,
) -> Array:
    """Divide N examples into folds, several times anew: by scikit-learn's StratifiedKFold, or
    StratifiedGroupKFold where there are groups. Folds have each label in the same proportion, as
    far as groups allow; those of a multi-label task are not stratified.

    Args:
        labels: (N,), or (N, C) in a multi-label task.
        label_names: The C label names.
        count: Number of folds.
        repeats: How often.
        seed: Seed of the divisions.
        groups: The group of each example, (N,): all examples of a group are in one fold.

    Returns:
        The fold of each example in each repeat, (repeats, N) int64.

    Raises:
        SpaceliteError: There are too few examples of a label, or groups, for so many folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    require("folds", count, whole_number(2, MOST))
    require("repeats", repeats, whole_number(1, MOST))
    require("seed", seed, whole_number(0, LARGEST_SEED))
    if labels.ndim == 1:
        counts = task_of(labels).label_counts(labels, len(label_names)).tolist()
        there = [(number, name) for number, name in zip(counts, label_names, strict=True) if number]
        fewest, rare = min(there)
        if fewest < count:
            raise SpaceliteError(
                f"folds={count}: label {rare!r} has {fewest} training examples, and each fold "
                "needs one: use fewer folds, or give more examples of it",
                ["folds"],
            )
    elif len(labels) < count:
        raise SpaceliteError(f"folds={count}: there are {len(labels)} examples", ["folds"])
    if groups is not None:
        groups = np.asarray(groups)
        if groups.shape != (len(labels),):
            raise SpaceliteError(
                f"there are {len(labels):,} training examples and {len(groups):,} groups",
                ["groups"],
            )
        if (number := len(np.unique(groups))) < count:
            raise SpaceliteError(
                f"folds={count}: the examples have {number} groups, and each fold needs one",
                ["folds", "groups"],
            )
    strata = task_of(labels).strata(labels)
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    found = np.empty((repeats, len(labels)), np.int64)
    for repeat in range(repeats):
        state = (seed + repeat) % MOST_SKLEARN_SEED
        divided = kind(count, shuffle=True, random_state=state).split(strata, strata, groups)
        for number, (_, held) in enumerate(divided):
            found[repeat, held] = number
        _check_training(found[repeat], labels, count)
    return found


def _check_training(fold: Array, labels: Array, count: int) -> None:
    """Raise SpaceliteError if a fold is empty, or a head would be trained on a single label: groups
    may bring that about."""
    for number in range(count):
        held = fold == number
        if not held.any():
            raise SpaceliteError(
                f"folds={count}: the groups are too unequal, and a fold is empty: use fewer folds",
                ["folds", "groups"],
            )
        if labels.ndim == 1 and len(np.unique(labels[~held])) < 2:
            raise SpaceliteError(
                "a fold holds all examples of a label but one: its head would be trained on a "
                "single label; use other groups",
                ["groups"],
            )
