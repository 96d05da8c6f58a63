"""Classification metrics from confusion matrices, and how far confidence can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

METRICS = ("loss", "ce", "accuracy", "f1_macro", "precision", "recall")
BINS = 15  # of a reliability diagram, as in Guo et al. 2017


class PerClass(NamedTuple):
    """Precision, recall, F1 and the number of examples of each class, (C,) each."""

    precision: Array
    recall: Array
    f1: Array
    support: Array


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram: for each of B equal bins of confidence its mean confidence, accuracy
    and number of decisions, (B,) each (NaN where there is none); and the expected calibration
    error, the mean of |accuracy - confidence| over all decisions' bins."""

    confidence: Array
    accuracy: Array
    count: Array
    error: float


def average_of(classes: int, multilabel: bool = False) -> str:
    """How precision and recall are averaged, as in the published tables: `binary` (those of
    class 1) with two classes, else, and with several labels an example, `weighted` (by support).
    """
    return "binary" if classes == 2 and not multilabel else "weighted"


def per_class(confusion: Array) -> PerClass:
    """Each class' figures from counts by true (row) and predicted (column) class.

    `confusion` (C, C), or (C, 2, 2) with several labels an example: for each class without and
    with it. A ratio without cases counts as 0, as in scikit-learn.
    """
    right, predicted, actual = _counts(confusion)
    return PerClass(
        _ratio(right, predicted),
        _ratio(right, actual),
        _ratio(2 * right, predicted + actual),
        actual.astype(np.int64),
    )


def scores(confusion: Array) -> dict[str, float]:
    """Macro F1, precision and recall from a `confusion` as in `per_class`.

    With one label an example macro F1 averages over the classes that occur, as label or as
    prediction, as in scikit-learn.
    """
    confusion = np.asarray(confusion)
    _, predicted, actual = _counts(confusion)
    multilabel = confusion.ndim == 3
    occurs = np.ones(len(confusion), bool) if multilabel else predicted + actual > 0
    precision, recall, f1, _ = per_class(confusion)
    if average_of(len(confusion), multilabel) == "binary":
        precision_mean, recall_mean = precision[1], recall[1]
    else:
        share = _ratio(actual, np.full_like(actual, actual.sum()))
        precision_mean, recall_mean = (precision * share).sum(), (recall * share).sum()
    return {
        "f1_macro": float(f1[occurs].mean()),
        "precision": float(precision_mean),
        "recall": float(recall_mean),
    }


def probabilities(logits: Array, multilabel: bool) -> Array:
    """Of logits (..., C), float64: a softmax, or each label's own with several labels a text."""
    logits = np.asarray(logits, np.float64)
    if multilabel:
        return np.exp(-np.logaddexp(0, -logits))  # the sigmoid
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    made: Array = powers / powers.sum(axis=-1, keepdims=True)
    return made


def calibration(confidence: Array, right: Array, bins: int = BINS) -> Calibration:
    """The reliability diagram of decisions: `confidence` (N,) in [0, 1], `right` (N,) bool.

    Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599; bins are (a, b].
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = np.bincount(place, confidence, bins) / count
        accuracy = np.bincount(place, right, bins) / count
    gaps = np.nan_to_num(np.abs(accuracy - means))
    return Calibration(means, accuracy, count, float((gaps * count).sum() / count.sum()))


def _counts(confusion: Array) -> tuple[Array, Array, Array]:
    """Of each class how often it is rightly predicted, predicted, and there; (C,) float64 each."""
    confusion = np.asarray(confusion, np.float64)
    if confusion.ndim == 3:
        return confusion[:, 1, 1], confusion[:, :, 1].sum(1), confusion[:, 1].sum(1)
    return np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1)


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
