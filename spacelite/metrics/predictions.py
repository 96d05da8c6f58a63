"""What a head gave for each example of a split: `predictions.npz`, described in the README."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from spacelite.errors import SpaceliteError, one_line
from spacelite.metrics import scores as metrics

Array = npt.NDArray[Any]

NAMES = ("index", "label", "logits")


@dataclass(frozen=True)
class Outputs:
    """A head's outputs on a split of N examples.

    `index` (N,) int64: the examples' numbers in the split; `labels` (N,) int64, or (N, C) of 0 and
    1 where an example can have several; `logits` (N, C) float32.
    """

    index: Array
    labels: Array
    logits: Array

    @property
    def several(self) -> bool:
        """Whether an example can have several labels."""
        return self.labels.ndim == 2

    @cached_property
    def predicted(self) -> Array:
        """(N,) labels; with several an example (N, C) of 0 and 1."""
        if self.several:
            return (self.logits > 0).astype(np.int64)
        predicted: Array = self.logits.argmax(axis=1)
        return predicted

    @cached_property
    def right(self) -> Array:
        """(N,) bool: whether the label, or all of an example's labels, are predicted."""
        same: Array = np.equal(self.predicted, self.labels)
        return np.all(same, axis=1) if self.several else same

    @cached_property
    def probabilities(self) -> Array:
        """(N, C) float64; with several labels an example each label's own."""
        return metrics.probabilities(self.logits, self.several)

    @property
    def confidence(self) -> Array:
        """(N,) the probability of what is predicted; with several labels an example, of all of them
        together."""
        chances = self.probabilities
        made: Array = self._of_each_label.prod(axis=1) if self.several else chances.max(axis=1)
        return made

    @property
    def _of_each_label(self) -> Array:
        """(N, C) with several labels an example: the probability of what is predicted of each."""
        made: Array = np.maximum(self.probabilities, 1 - self.probabilities)
        return made

    @property
    def confusion(self) -> Array:
        """Counts by true (row) and predicted (column) label, (C, C); with several labels an
        example (C, 2, 2), for each label without and with it."""
        classes = self.logits.shape[1]
        if self.several:
            counts = np.zeros((classes, 2, 2), np.int64)
            np.add.at(counts, (np.arange(classes), self.labels, self.predicted), 1)
            return counts
        cells = np.bincount(self.labels * classes + self.predicted, minlength=classes**2)
        return cells.reshape(classes, classes)

    def decisions(self) -> tuple[Array, Array]:
        """(confidence, whether it is right) of every decision: each example's predicted label;
        with several labels an example each label, there or not."""
        if self.several:
            right = np.equal(self.predicted, self.labels)
            return self._of_each_label.ravel(), right.ravel()
        return self.confidence, self.right


def save(path: Path, splits: dict[str, Outputs]) -> None:
    """Write the outputs of several splits into one file."""
    arrays: dict[str, Array] = {}
    for split, outputs in splits.items():
        values = (outputs.index, outputs.labels, outputs.logits)
        arrays |= {f"{split}/{name}": value for name, value in zip(NAMES, values, strict=True)}
    with path.open("wb") as file:  # by itself numpy would put its own ending to the name
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load(path: Path, split: str, accuracy: float) -> Outputs | None:
    """A split's outputs; None where `path` is missing, as in runs of former versions.

    Raises SpaceliteError for a damaged file, and for one whose accuracy is not the `accuracy` that
    was recorded beside it.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            outputs = Outputs(*(arrays[f"{split}/{name}"] for name in NAMES))
            found = float(outputs.right.mean())
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise SpaceliteError(f"{path} is damaged ({one_line(error, 80)})") from error
    if abs(found - accuracy) > 1e-9:
        raise SpaceliteError(f"{path} is damaged (its accuracy is {found:.4f}, not {accuracy:.4f})")
    return outputs
