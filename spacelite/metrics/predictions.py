"""A head's predictions on a split, example by example, and their file (docs: `predictions.npz`)."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spacelite import files, npz
from spacelite.errors import SpaceliteError, one_line
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.tasks import Task


NAMES = ("index", "label", "logits")
SOURCES = ("file", "row")  # left out where they are not known


@dataclass(frozen=True)
class Predictions:
    """A head's predictions for the N examples of a split."""

    index: Array  # of each example in the split, (N,) int64
    labels: Array  # the true ones, in the form of the task
    logits: Array  # (N, C) float32
    task: Task
    files: Array | None = None  # the file of each example, (N,) of strings, if known
    rows: Array | None = None  # its row in the file, counted from 1, (N,) int64, if known
    thresholds: Array | None = None  # the run's decision thresholds, (T,), if it has any

    @cached_property
    def predicted(self) -> Array:
        """Predicted labels, in the shape of `labels`."""
        return self.task.decide(self.logits, self.thresholds)

    @cached_property
    def correct(self) -> Array:
        """Whether each example's label, or the exact set of its labels, is predicted, (N,) bool."""
        return self.task.correct(self.predicted, self.labels)

    @cached_property
    def probabilities(self) -> Array:
        """Probability of each class, (N, C) float64."""
        return self.task.probabilities(self.logits)

    @property
    def confidence(self) -> Array:
        """Probability of each example's prediction, (N,)."""
        return self.task.confidence(self.probabilities, self.predicted)

    @property
    def confusion(self) -> Array:
        """Counts by true and predicted label, in the task's layout (`Task.confusion_shape`)."""
        return self.task.confusion(self.labels, self.predicted, self.logits.shape[1])

    def decisions(self) -> tuple[Array, Array] | None:
        """Confidence and correctness of every single decision, (D,) each; None if predictions have
        no probability."""
        return self.task.decisions(self.probabilities, self.predicted, self.labels)


def save(path: Path, splits: dict[str, Predictions]) -> str:
    """Write the predictions of several splits to one file, atomically; return its checksum."""
    arrays: dict[str, Array] = {}
    for split, part in splits.items():
        values = (part.index, part.labels, part.logits, part.files, part.rows)
        arrays |= {
            f"{split}/{name}": value
            for name, value in zip((*NAMES, *SOURCES), values, strict=True)
            if value is not None
        }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    return files.write_bytes(path, content.getvalue())


def load(
    path: Path,
    split: str,
    task: Task,
    headline: float,
    thresholds: Array | None = None,
    checksum: str | None = None,
) -> Predictions | None:
    """A split's predictions; None if there is no such file, as in runs of older versions, which
    have no `checksum` of it. Raises SpaceliteError if the file is damaged, or does not have the
    `headline` metric of the run's record."""
    try:
        content = files.read_bytes(path, checksum)
    except FileNotFoundError:
        if checksum is None:
            return None
        raise SpaceliteError(f"{path} is missing") from None
    except (OSError, ValueError) as error:
        raise SpaceliteError(f"{path} is damaged ({one_line(error, 80)})") from error
    try:
        with npz.opened(content, rf"\w+/({'|'.join((*NAMES, *SOURCES))})") as arrays:
            logits = arrays.read(f"{split}/logits", "f", None, None)
            examples, of_label = len(logits), task.decide(logits[:1], thresholds).shape[1:]
            origin, rows = (
                arrays.read(f"{split}/{name}", kind, examples)
                if f"{split}/{name}" in arrays
                else None
                for name, kind in zip(SOURCES, "Ui", strict=True)
            )
            predictions = Predictions(
                arrays.read(f"{split}/index", "i", examples),
                arrays.read(f"{split}/label", "iuf", examples, *of_label),
                logits,
                task,
                origin,
                rows,
                thresholds,
            )
            actual = task.figure(predictions)
    except ValueError as error:
        raise SpaceliteError(f"{path} is damaged ({one_line(error, 80)})") from error
    if not math.isclose(actual, headline, rel_tol=1e-9, abs_tol=1e-9):
        raise SpaceliteError(
            f"{path} is damaged (its {task.metrics[task.headline].in_words} is {actual:.4f}, not "
            f"{headline:.4f})"
        )
    return predictions
