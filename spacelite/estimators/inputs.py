"""X, y and parameters as scikit-learn's users give them -> what is trained, and how.

Shapes: N examples, n tokens, d width, C classes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.utils import (
    check_array,
    check_consistent_length,
    check_random_state,
    column_or_1d,
)
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, validate_data

from spacelite.api import arguments
from spacelite.backbones.model import resolve_device
from spacelite.cache.dtypes import stored_type
from spacelite.cache.encoding import Encoder
from spacelite.cache.split import TokenRows, offsets_of
from spacelite.data.columns import as_pair, is_missing, text_problem
from spacelite.data.splits import Pair, Text
from spacelite.errors import SpaceliteError
from spacelite.progress import reporting
from spacelite.settings import LARGEST_SEED
from spacelite.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task
from spacelite.training.batches import ArrayData
from spacelite.types import Array


def _state(value: Any) -> Any:
    if isinstance(value, int | np.integer) and not 0 <= value <= LARGEST_SEED:
        raise TypeError(value)
    try:
        return value if isinstance(value, int) else check_random_state(value)
    except ValueError as error:
        raise TypeError(value) from error


KINDS = {
    **arguments.KINDS,
    "precision": arguments.NAME,
    "monitor": arguments.NAME,
    "validation_fraction": arguments.Kind(
        "give a number between 0 and 1, or None", arguments.fraction(1)
    ),
    "random_state": arguments.Kind(
        "give a whole number from 0 to 2^63 - 1, a RandomState or None", _state
    ),
}


def read(estimator: Any, X: Any, *, reset: bool) -> list[Text] | TokenRows:
    """The texts, or the hidden states, whose width `fit` (reset) remembers as `n_features_in_`.

    X is N texts (a list, an array, a Series, or a single column of them, (N, 1)), or pairs of them
    (a list of tuples, or two columns, (N, 2)); N arrays (n, d)
    of hidden states, or an array (N, n, d) of them; or one vector for each example, (N, d). Raises
    ValueError if it is none of these, or a text is missing or empty, and TypeError if it is sparse,
    or no sequence or array.
    """
    if isinstance(X, str | bytes):
        raise ValueError("X is a single text: give a list of texts, such as [text]")
    if not isinstance(X, Sequence) and not any(
        hasattr(X, name) for name in ("shape", "__array__", "to_numpy", "__dataframe__")
    ):
        raise TypeError(f"X is a {type(X).__name__}: give a list of texts, such as list(X)")
    values = X
    is_array = isinstance(X, np.ndarray) and X.dtype.kind in "OUST"
    if getattr(X, "ndim", 1) == 1 and (hasattr(X, "to_numpy") or is_array):  # a Series, or an array
        values = list(X)
    elif _holds_text(X):
        shape = np.shape(X)
        if shape[1:] not in ((1,), (2,)):
            raise ValueError(
                f"X has the shape {shape}: give one text for each example, such as a single "
                "column, or two"
            )
        values = np.asarray(X).tolist()
        values = [text for (text,) in values] if shape[1:] == (1,) else [*map(as_pair, values)]
    if isinstance(values, Sequence):
        if not len(values):
            raise ValueError("X is empty (0 samples): a minimum of 1 text is required")
        if all(isinstance(value, np.ndarray) and value.ndim == 2 for value in values):
            return _ragged(estimator, values, reset)
        if not all(hasattr(value, "__len__") for value in values) or any(
            isinstance(value, str | bytes) or _has_text(value) for value in values
        ):
            return _texts(values)
    if isinstance(values, np.ndarray) and values.ndim == 1:
        raise ValueError(
            f"X has the shape {values.shape}: give strings, or a vector for each example. Reshape "
            "your data with X.reshape(1, -1) if it is the vector of one"
        )
    if isinstance(values, np.ndarray) and values.ndim == 3:
        return _ragged(estimator, values, reset)
    vectors = validate_data(estimator, X, reset=reset, dtype=np.float32)
    return TokenRows(vectors, np.arange(len(vectors) + 1), stored_type("float32"))


def _holds_text(values: Any) -> bool:
    """Whether an array or a DataFrame has strings, or nothing but missing values in a column."""
    array = values.to_numpy() if hasattr(values, "to_numpy") else values
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "OUST":
        return False
    some = array.ravel()[:1000].tolist()
    if array.dtype.kind != "O" or any(isinstance(value, str) for value in some):
        return True
    return array.shape[1:] == (1,) and all(map(is_missing, some))


def _has_text(value: Any) -> bool:
    """Whether a value is a list, tuple or array of two with a string."""
    pair = as_pair(value)
    return isinstance(pair, Pair) and any(isinstance(text, str) for text in pair)


def _texts(values: Any) -> list[Text]:
    texts = [as_pair(value) if _has_text(value) else value for value in values]
    of_pairs = any(isinstance(text, Pair) for text in texts)
    for number, text in enumerate(texts):
        if problem := text_problem(text, of_pairs=of_pairs):
            raise ValueError(f"X[{number}] {problem}")
    return [Pair(*map(str, text)) if of_pairs else str(text) for text in texts]


def _ragged(estimator: Any, arrays: Any, reset: bool) -> TokenRows:
    """Hidden states of all examples end to end, from an array (n, d) of each."""
    widths = {array.shape[1] for array in arrays}
    if len(widths) > 1:
        raise ValueError(f"the arrays in X differ in width: {sorted(widths)}")
    lengths = [len(array) for array in arrays]
    if not all(lengths):
        raise ValueError(f"X[{lengths.index(0)}] has no token")
    rows = check_array(np.concatenate(list(arrays)), dtype=np.float32)
    validate_data(estimator, rows, reset=reset, skip_check_array=True)
    return TokenRows(rows, offsets_of(np.array(lengths)), stored_type("float32"))


@dataclass(frozen=True)
class Labels:
    """y as it is trained on: indices (N,) int64 into `classes` (C,); where an example may have
    several of them, 0 and 1, (N, C); numbers (N,) float64, of which `classes` has the name."""

    values: Array
    classes: Array
    task: Task

    @property
    def several(self) -> bool:
        """Whether an example may have several labels."""
        return self.task is MULTI_LABEL

    @classmethod
    def of_numbers(cls, estimator: Any, y: Any) -> Labels:
        """Read y: numbers (N,). Raises ValueError if it is missing, not finite, or one number."""
        if y is None:
            name = type(estimator).__name__
            raise ValueError(f"{name} requires y to be passed, but the target y is None")
        values = check_array(y, ensure_2d=False, dtype=np.float64, copy=True, input_name="y")
        labels = cls(
            column_or_1d(values, warn=True), np.array([getattr(y, "name", None) or "y"]), REGRESSION
        )
        labels.require_two(estimator, np.arange(len(values)), "y has")
        return labels

    def require_two(self, estimator: Any, rows: Array, have: str) -> None:
        """Raise ValueError if these examples all have one class, or one number."""
        values = self.values[rows]
        if self.several or len(np.unique(values)) > 1:
            return
        numbers = self.task is REGRESSION
        only = values[0] if numbers else self.classes[values[0]]
        what = "two different numbers" if numbers else "examples of at least two classes"
        raise ValueError(
            f"{type(estimator).__name__} needs {what}, and {have} one "
            f"{'number' if numbers else 'class'}: {only} (n_samples={len(rows)})"
        )

    @classmethod
    def of(cls, estimator: Any, y: Any) -> Labels:
        """Read y: labels (N,), or a multi-label indicator (N, C). Raises ValueError if it is
        missing, continuous, not finite, or has a single class."""
        name = type(estimator).__name__
        if y is None:
            raise ValueError(f"{name} requires y to be passed, but the target y is None")
        if hasattr(y, "toarray"):
            y = y.toarray()
        if hasattr(y, "to_numpy"):
            y = y.to_numpy()
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] > 1:
            return cls._indicators(name, y)
        y = column_or_1d(y, warn=True)
        if y.dtype.kind == "f" or (y.dtype.kind == "O" and any(label != label for label in y)):
            check_array(y, ensure_2d=False, dtype=None, input_name="y")
        check_classification_targets(y)
        classes, values = np.unique(y, return_inverse=True)
        labels = cls(values.reshape(-1).astype(np.int64), classes, SINGLE_LABEL)
        labels.require_two(estimator, np.arange(len(values)), "y has")
        return labels

    @classmethod
    def _indicators(cls, name: str, y: Any) -> Labels:
        values = check_array(y, input_name="y")
        if type_of_target(values) != "multilabel-indicator":
            raise ValueError(
                f"y has the shape {values.shape}: give one label for each example, or 0 and 1 in a "
                "column for each label"
            )
        return cls(values.astype(np.int64), np.arange(values.shape[1]), MULTI_LABEL)


def check_parameters(estimator: Any) -> None:
    """Raise ValueError for parameters of the wrong kind, before anything is computed with them."""
    defaults = inspect.signature(type(estimator)).parameters
    with as_value_error():
        for name, value in estimator.get_params(deep=False).items():
            usual = value is defaults[name].default or (name == "cache_dir" and value is None)
            if name in KINDS and not usual:
                arguments.read(name, value, KINDS[name])


@contextmanager
def as_value_error() -> Iterator[None]:
    """Raise ValueError, as scikit-learn's callers expect, for parameters that the library refuses
    with a SpaceliteError."""
    try:
        yield
    except SpaceliteError as error:
        raise ValueError(str(error)) from error


class Prepared:
    """What an estimator is fitted to: its examples, of which those of weight 0 are left out unless
    all are kept. Raises ValueError if X, y or a weight cannot be used, and SpaceliteError if the
    backbone cannot be used, or disk or memory are full.

    `labels` are those of all examples, `rows` the indices in X of those that are kept, `weights`
    theirs (None if all are 1); `encoder` is how texts are embedded, None for hidden states, and
    `of_pairs` whether they are pairs; `split` has the examples, and `data` has them as they are
    trained on.
    """

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        keep_all: bool = False,
    ) -> None:
        check_parameters(estimator)
        inputs = read(estimator, X, reset=True)
        self.labels = labels = estimator._labels(y)
        count = len(inputs)
        check_consistent_length(range(count), labels.values)
        self.rows, self.weights = np.arange(count), None
        if sample_weight is not None:
            self._weigh(estimator, sample_weight, keep_all)
        self.encoder: Encoder | None = None
        self.of_pairs = not isinstance(inputs, TokenRows) and isinstance(inputs[0], Pair)
        self.device = resolve_device(estimator.device)
        if isinstance(inputs, TokenRows):
            rows = inputs
        else:
            self.encoder = estimator._encoder()
            with reporting(estimator.progress) as on_progress:
                rows = estimator._embed(inputs, self.encoder, on_progress)
        self.pooling = rows.pooling
        split = replace(rows, labels=labels.values)
        if len(self.rows) < count:
            split = split.part(self.rows)
        names = [str(name) for name in labels.classes]
        self.split = split
        self.data = ArrayData({"train": split}, names, rows.layer_means.shape[1], labels.task.name)

    def _weigh(self, estimator: Any, sample_weight: Any, keep_all: bool) -> None:
        weights = _check_sample_weight(
            sample_weight, self.rows, dtype=np.float64, ensure_non_negative=True
        )
        if not weights.any():
            raise ValueError("sample_weight: all weights are zero")
        seen = np.flatnonzero(weights)
        self.labels.require_two(estimator, seen, "those with a weight above 0 have")
        if not keep_all:
            self.rows, weights = seen, weights[seen]
        self.weights = None if (weights == 1).all() else weights

    def divided(self, share: float, seed: int) -> tuple[Array, Array]:
        """Divide the examples into a part to train on and one to validate on, stratified. Raises
        ValueError if a part would lack a label."""
        values = self.data.splits["train"].labels
        stratify = values if self.labels.task is SINGLE_LABEL else None
        needed = 1 if stratify is None else len(np.unique(values))
        held_out = math.ceil(share * len(values))
        if not needed <= held_out <= len(values) - needed:
            raise ValueError(
                f"validation_fraction={share:g} holds out {held_out:,} of {len(values):,} "
                f"examples: each part needs at least {needed:,}"
            )
        counts = np.bincount(values) if stratify is not None else np.array([2])
        if 1 in counts:
            single = self.labels.classes[np.flatnonzero(counts == 1)[0]]
            raise ValueError(
                f"validation_fraction={share:g}: label {single} has a single example, and each "
                "part needs one: leave validation_fraction out, or give more examples of it"
            )
        kept, held = train_test_split(
            np.arange(len(values)), test_size=share, stratify=stratify, random_state=seed
        )
        return np.sort(kept), np.sort(held)
