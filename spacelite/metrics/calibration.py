"""How far confidence can be trusted: reliability diagrams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BINS = 15  # of a reliability diagram, as in Guo et al. 2017


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram.

    Attributes:
        confidence: Mean confidence in each of B equal-width bins, (B,); NaN for an empty bin.
        accuracy: Accuracy in each bin, (B,); NaN for an empty bin.
        count: Number of decisions in each bin, (B,).
        error: Expected calibration error: the mean of |accuracy - confidence| over bins, weighted
            by `count`.
    """

    confidence: Array
    accuracy: Array
    count: Array
    error: float


def calibration(confidence: Array, correct: Array, bins: int = BINS) -> Calibration:
    """The reliability diagram of N decisions; bins are (a, b].

    Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599.

    Args:
        confidence: Confidence of each decision, (N,), in [0, 1].
        correct: Whether each decision is correct, (N,) bool.
        bins: Number of bins.
    """
    index = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = np.bincount(index, confidence, bins) / count
        accuracy = np.bincount(index, correct, bins) / count
    gaps = np.nan_to_num(np.abs(accuracy - means))
    return Calibration(means, accuracy, count, float((gaps * count).sum() / count.sum()))
