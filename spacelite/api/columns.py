"""Groups and weights of training examples, and words that people marked: given as values, or as the
name of a column of the data that were embedded. Shapes: N examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spacelite import files
from spacelite.cache import texts
from spacelite.cache.store import Cache
from spacelite.data.columns import is_missing
from spacelite.data.loading import column_of_rows
from spacelite.data.readers import SUFFIXES
from spacelite.data.splits import Source
from spacelite.errors import SpaceliteError
from spacelite.tasks import Task
from spacelite.types import Array

AS_LIST = (
    "give the values as a list in Python, one for each row of the data or each training example"
)


class Weights(NamedTuple):
    """Weights of the training examples; None where none are given."""

    values: Array | None = None  # (N,) float64
    name: str | None = None  # of settings: the column, or `given`, with the values' CRC-32


def groups(cache: Cache, given: Sequence[Any] | str | None) -> Array | None:
    """The group of each training example, (N,) of strings, given as such or as a column's name."""
    if given is None:
        return None
    values, wheres = _values(cache, given, "groups")
    for where, value in zip(wheres, values, strict=True):
        if _is_missing(value):
            name = f"={given}" if isinstance(given, str) else ""
            raise SpaceliteError(
                f"groups{name}: {where} has no group: every training example needs one", ["groups"]
            )
    return np.array([str(value) for value in values])


def weights(cache: Cache, given: Sequence[Any] | str | None) -> Weights:
    """The weight of each training example, given as such or as the name of a column."""
    if given is None:
        return Weights()
    raw, wheres = _values(cache, given, "sample_weight")
    is_column = isinstance(given, str)
    name, about = (given, f"sample_weight={given}") if is_column else ("given", "sample_weight")
    pairs = zip(raw, wheres, strict=True)
    values = np.array([_number(value, f"{about}: {where}") for value, where in pairs], np.float64)
    require_labels(cache.task, cache.splits["train"].labels, values)
    return Weights(values, f"{name} ({files.checksum(values.astype('<f8').tobytes())})")


def require_labels(task: Task, labels: Array, values: Array) -> None:
    """Raise SpaceliteError unless the examples with a weight above 0 have more than one label."""
    left = labels[values > 0]
    if task.learnable(left):
        return
    which = "all are 0" if not len(left) else "all examples of more than 0 have the same label"
    raise SpaceliteError(
        f"sample_weight: {which}, so there is nothing to learn: give other weights",
        ["sample_weight"],
    )


def _values(
    cache: Cache, given: Sequence[Any] | str, argument: str
) -> tuple[list[Any], Sequence[Source | str]]:
    """The values of the N training examples, and where each comes from: of a column, or of a list
    with one for each of them or for each row of the data that were embedded."""
    if isinstance(given, str):
        return column_values(cache, given, argument)
    values, wanted = list(given), len(cache.splits["train"])
    if len(values) == wanted:
        return values, [f"value {number:,}" for number in range(1, wanted + 1)]
    written = texts.read(cache, "train")
    sources = None if written is None else written.sources
    rows = 0 if sources is None else sum(sources.sizes)
    if sources is not None and rows and len(values) == rows:
        wheres = [sources[number] for number in range(wanted)]
        return [values[index] for index in sources.index.tolist()], wheres
    of_rows = f" (of {rows:,} rows of data)" if rows else ""
    raise SpaceliteError(
        f"{argument}: there are {wanted:,} training examples{of_rows} and {len(values):,} values: "
        "give one for each example, or for each row of the data",
        [argument],
    )


def column_values(
    cache: Cache, name: str, argument: str, split: str = "train", as_list: str = AS_LIST
) -> tuple[list[Any], Sequence[Source]]:
    """A column of the data that a cache was embedded from, at the examples of a split: N values as
    the files have them, and where each comes from. `as_list` says what else can be given."""
    written = texts.read(cache, split)
    sources = None if written is None else written.sources
    path, quoting = (texts.recorded(cache.path, name) for name in ("data", "quoting"))
    if written is None or sources is None or path is None:
        problem = f"cache {cache.name} was not embedded from a file: "
        if sources is None or any(Path(file).suffix in SUFFIXES for file in sources.files):
            problem = (
                f"cache {cache.name} does not say where its data are: run its embed command again "
                "(what has been embedded is reused), or "
            )
        raise SpaceliteError(f"{argument}={name}: {problem}{as_list}", [argument])
    every = [written.text(number) for number in range(len(sources))]
    values = column_of_rows(
        Path(path), cache.spec.dataset, name, sources, every, argument,
        quoting=quoting or "standard",
    )  # fmt: skip
    return values, [sources[number] for number in range(len(sources))]


def _is_missing(value: Any) -> bool:
    return is_missing(value) or (isinstance(value, str) and not value.strip())


def _number(value: Any, where: str) -> float:
    """A weight, from the row `where`."""
    problem = ""
    if _is_missing(value):
        problem = "is missing"
    elif isinstance(value, bool | np.bool_):
        problem = f"is {value}, not a number"
    else:
        try:
            number = float(value)
            if not np.isfinite(number) or number < 0:
                problem = f"is {value}"
        except (TypeError, ValueError, OverflowError):
            problem = f"is {str(value)[:40]!r}, not a number"
    if problem:
        raise SpaceliteError(
            f"{where} {problem}: a weight is a number of at least 0", ["sample_weight"]
        )
    return number
