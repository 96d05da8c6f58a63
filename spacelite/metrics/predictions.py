"""A head's predictions on a split, example by example, and their file (docs: `predictions.npz`)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from spacelite import files
from spacelite.errors import SpaceliteError, one_line

if TYPE_CHECKING:
    from spacelite.tasks import Task

Array = npt.NDArray[Any]

NAMES = ("index", "label", "logits")


@dataclass(frozen=True)
class Predictions:
    """A head's predictions for the N examples of a split.

    Attributes:
        index: The examples' numbers in the split, (N,) int64.
        labels: What they are labelled with, (N,) int64, or (N, C) of 0 and 1 (multi-label).
        logits: (N, C) float32.
        task: What a label is, and so what follows from logits.
    """

    index: Array
    labels: Array
    logits: Array
    task: Task

    @cached_property
    def predicted(self) -> Array:
        """What is predicted, of the shape of `labels`."""
        return self.task.decide(self.logits)

    @cached_property
    def correct(self) -> Array:
        """(N,) bool: whether an example's label, or every one of its labels, is predicted."""
        return self.task.correct(self.predicted, self.labels)

    @cached_property
    def probabilities(self) -> Array:
        """(N, C) float64."""
        return self.task.probabilities(self.logits)

    @property
    def confidence(self) -> Array:
        """(N,) the probability of what is predicted of an example."""
        return self.task.confidence(self.probabilities)

    @property
    def confusion(self) -> Array:
        """Counts by true and predicted label, as the task lays them out."""
        return self.task.confusion(self.labels, self.predicted, self.logits.shape[1])

    def decisions(self) -> tuple[Array, Array]:
        """(confidence, whether it is correct) of every single decision."""
        return self.task.decisions(self.probabilities, self.predicted, self.labels)


def save(path: Path, splits: dict[str, Predictions]) -> None:
    """Write the predictions of several splits into one file, whole or not at all."""
    arrays: dict[str, Array] = {}
    for split, own in splits.items():
        values = (own.index, own.labels, own.logits)
        arrays |= {f"{split}/{name}": value for name, value in zip(NAMES, values, strict=True)}
    # Opened here: by itself numpy would add its own ending to the name.
    with files.whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load(path: Path, split: str, task: Task, accuracy: float) -> Predictions | None:
    """A split's predictions.

    Args:
        path: The file.
        split: Which split.
        task: What its labels are.
        accuracy: The accuracy that was recorded beside the file.

    Returns:
        None where there is no such file, as in runs of former versions.

    Raises:
        SpaceliteError: The file is damaged, or its accuracy is another.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            index, labels, logits = (arrays[f"{split}/{name}"] for name in NAMES)
            found = Predictions(index, labels, logits, task)
            share = float(found.correct.mean())
    except ValueError as error:  # numpy's own message advises to unpickle what is no npz file
        raise SpaceliteError(f"{path} is damaged (it is not an npz file of arrays)") from error
    except (OSError, KeyError, EOFError, BadZipFile, zlib.error) as error:
        raise SpaceliteError(f"{path} is damaged ({one_line(error, 80)})") from error
    if abs(share - accuracy) > 1e-9:
        raise SpaceliteError(f"{path} is damaged (its accuracy is {share:.4f}, not {accuracy:.4f})")
    return found
