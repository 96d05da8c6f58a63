"""Classification metrics of K heads at once, from their confusion matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

METRICS = ("loss", "ce", "accuracy", "f1_macro", "precision", "recall")


def average_of(classes: int, multilabel: bool = False) -> str:
    """How precision and recall are averaged, as in the published tables: `binary` (those of
    class 1) with two classes, else, and with several labels an example, `weighted` (by support).
    """
    return "binary" if classes == 2 and not multilabel else "weighted"


def scores(confusion: Array) -> dict[str, float]:
    """Macro F1, precision and recall from counts by true (row) and predicted (column) class.

    `confusion` (C, C), or (C, 2, 2) with several labels an example: for each class without and
    with it. A ratio without cases counts as 0, as in scikit-learn; with one label an example its
    macro F1 averages over the classes that occur, as label or as prediction.
    """
    confusion = np.asarray(confusion, np.float64)
    if confusion.ndim == 3:
        right, predicted, actual = (
            confusion[:, 1, 1],
            confusion[:, :, 1].sum(1),
            confusion[:, 1].sum(1),
        )
        average, occurs = "weighted", np.ones(len(confusion), bool)
    else:
        right, predicted, actual = np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
        average, occurs = average_of(len(confusion)), predicted + actual > 0
    precision, recall = _ratio(right, predicted), _ratio(right, actual)
    f1 = _ratio(2 * right, predicted + actual)
    if average == "binary":
        precision_mean, recall_mean = precision[1], recall[1]
    else:
        share = _ratio(actual, np.full_like(actual, actual.sum()))
        precision_mean, recall_mean = (precision * share).sum(), (recall * share).sum()
    return {
        "f1_macro": float(f1[occurs].mean()),
        "precision": float(precision_mean),
        "recall": float(recall_mean),
    }


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
