"""A text's tokens in concept spaces."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import heads
from spacelite.runs import Run

Array = npt.NDArray[Any]


def concept_points(run: Run, hidden: Array, most: int = 3) -> list[Array]:
    """A text's tokens in the concept space of each label.

    If a space has more than `most` dimensions, the tokens are projected onto their first principal
    axes; the origin stays where it is.

    Args:
        run: The run.
        hidden: The text's hidden states (n, d).
        most: Maximum dimensions of a space.

    Returns:
        C arrays (n, min(L, most)); an empty list for a head without concept spaces.
    """
    kind = heads.kind(run.head.kind)
    coordinates = kind.coordinates(run.parameters, hidden.astype(np.float64))
    if coordinates is None:
        return []
    spaces = np.split(coordinates, len(run.record.label_names), axis=1)
    return [space if space.shape[1] <= most else _principal(space, most) for space in spaces]


def _principal(points: Array, count: int) -> Array:
    """Project points (n, L) onto their first `count` principal axes, (n, count)."""
    _, _, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=len(points) < count)
    axes = axes[:count]
    # The sign of an axis is arbitrary: make its largest component positive.
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    projected: Array = points @ (axes * np.sign(largest)[:, None]).T
    return projected
