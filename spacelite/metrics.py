"""Classification metrics of K heads at once, from their confusion matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

METRICS = ("loss", "ce", "accuracy", "f1_macro", "precision", "recall")


def average_of(classes: int) -> str:
    """How precision and recall are averaged, as in the published tables: `binary` (those of
    class 1) with two classes, else `weighted` (by support)."""
    return "binary" if classes == 2 else "weighted"


def scores(confusion: Array) -> dict[str, float]:
    """Accuracy, macro F1, precision and recall of a confusion matrix.

    `confusion` (C, C): counts by true class (row) and predicted class (column). A ratio without
    cases counts as 0, as in scikit-learn; its macro F1 averages over the classes that occur, as
    label or as prediction.
    """
    confusion = np.asarray(confusion, np.float64)
    right = np.diag(confusion)
    predicted, actual = confusion.sum(axis=0), confusion.sum(axis=1)
    precision, recall = _ratio(right, predicted), _ratio(right, actual)
    f1 = _ratio(2 * right, predicted + actual)
    occurs = predicted + actual > 0
    if average_of(len(confusion)) == "binary":
        precision_mean, recall_mean = precision[1], recall[1]
    else:
        share = actual / actual.sum()
        precision_mean, recall_mean = (precision * share).sum(), (recall * share).sum()
    return {
        "accuracy": float(right.sum() / confusion.sum()),
        "f1_macro": float(f1[occurs].mean()),
        "precision": float(precision_mean),
        "recall": float(recall_mean),
    }


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
