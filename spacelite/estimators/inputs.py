"""X and y as scikit-learn's users give them -> texts or hidden states, and labels.

Shapes: N examples, n tokens, d width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import validate_data

from spacelite.cache.dtypes import stored_type
from spacelite.cache.rows import TokenRows, offsets_of
from spacelite.errors import SpaceliteError, one_line

Array = npt.NDArray[Any]


def read(estimator: Any, X: Any, *, reset: bool) -> list[str] | TokenRows:
    """The texts, or the hidden states.

    Args:
        estimator: The estimator; hidden states set its `n_features_in_`.
        X: N texts (a list, an array, a Series); N arrays (n, d) of hidden states, or an array
            (N, n, d) of them; or one vector for each example, (N, d).
        reset: Whether this is `fit`; otherwise X must be as wide as what was fitted.

    Raises:
        ValueError: It is none of these; a text is missing or empty.
        TypeError: X is sparse, or neither a sequence nor an array.
    """
    if isinstance(X, str | bytes):
        raise ValueError("X is a single text: give a list of texts, such as [text]")
    if not isinstance(X, Sequence) and not any(
        hasattr(X, name) for name in ("shape", "__array__", "to_numpy", "__dataframe__")
    ):
        raise TypeError(f"X is a {type(X).__name__}: give a list of texts, such as list(X)")
    values = X
    if hasattr(X, "to_numpy") and getattr(X, "ndim", 1) == 1:  # a Series
        values = list(X)
    if isinstance(values, Sequence) or (isinstance(values, np.ndarray) and values.ndim == 1):
        first = next((one for one in values if isinstance(one, str | bytes)), None)
        if first is not None:
            return _texts(values)
        if len(values) and all(isinstance(one, np.ndarray) and one.ndim == 2 for one in values):
            return _ragged(estimator, values, reset)
    if _holds_text(values):
        shape = np.shape(values)
        raise ValueError(
            f"X has the shape {shape}: give one text for each example, such as a single column"
            if len(shape) > 1
            else "X holds no text: give strings"
        )
    if isinstance(values, np.ndarray) and values.ndim == 3:
        return _ragged(estimator, values, reset)
    vectors = validate_data(estimator, X, reset=reset, dtype=np.float32)
    return TokenRows(vectors, np.arange(len(vectors) + 1), stored_type("float32"))


def _holds_text(values: Any) -> bool:
    """Whether these are strings, in more dimensions than one."""
    array = values if isinstance(values, np.ndarray) else None
    if array is None and hasattr(values, "to_numpy"):
        array = values.to_numpy()
    if array is None or array.dtype.kind not in "OUST":
        return False
    return array.dtype.kind != "O" or any(isinstance(one, str) for one in array.ravel()[:1000])


def _texts(values: Any) -> list[str]:
    texts = list(values)
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            missing = text is None or type(text).__name__ == "NAType" or text != text
            what = "is missing" if missing else f"is no text but a {type(text).__name__}"
            raise ValueError(f"X[{number - 1}] {what} ({text!r}): give strings, or leave it out")
        if not text.strip():
            raise ValueError(f"X[{number - 1}] is empty: give at least a word, or leave it out")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"X[{number - 1}] is not valid Unicode ({one_line(error, 80)}): read it as UTF-8"
            ) from error
    return [str(text) for text in texts]


def _ragged(estimator: Any, arrays: Any, reset: bool) -> TokenRows:
    """Hidden states of all examples end to end, from an array (n, d) of each."""
    widths = {one.shape[1] for one in arrays}
    if len(widths) > 1:
        raise ValueError(f"the arrays in X differ in width: {sorted(widths)}")
    lengths = [len(one) for one in arrays]
    if not all(lengths):
        raise ValueError(f"X[{lengths.index(0)}] has no token")
    rows = check_array(np.concatenate(list(arrays)), dtype=np.float32)
    validate_data(estimator, rows, reset=reset, skip_check_array=True)
    return TokenRows(rows, offsets_of(np.array(lengths)), stored_type("float32"))


@dataclass(frozen=True)
class Labels:
    """y as it is trained on.

    Attributes:
        values: Indices into `classes`, (N,) int64; 0 and 1 in a multi-label task, (N, C).
        classes: The labels, (C,).
        several: Whether an example may have several of them.
    """

    values: Array
    classes: Array
    several: bool

    @classmethod
    def of(cls, estimator: Any, y: Any) -> Labels:
        """Read y: labels (N,), or a multi-label indicator (N, C).

        Raises:
            ValueError: y is missing, continuous, not finite, or has a single class.
        """
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
        if y.dtype.kind == "f" or (y.dtype.kind == "O" and any(one != one for one in y)):
            check_array(y, ensure_2d=False, dtype=None, input_name="y")
        check_classification_targets(y)
        classes, values = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"{name} needs examples of at least two classes, and y has one class: {classes}"
            )
        return cls(values.reshape(-1).astype(np.int64), classes, False)

    @classmethod
    def _indicators(cls, name: str, y: Any) -> Labels:
        values = check_array(y, input_name="y")
        if type_of_target(values) != "multilabel-indicator":
            raise ValueError(
                f"y has the shape {values.shape}: give one label for each example, or 0 and 1 in a "
                "column for each label"
            )
        return cls(values.astype(np.int64), np.arange(values.shape[1]), True)


@contextmanager
def as_value_error() -> Iterator[None]:
    """Raise ValueError, as scikit-learn's callers expect, for parameters that the library refuses
    with a SpaceliteError."""
    try:
        yield
    except SpaceliteError as error:
        raise ValueError(str(error)) from error
