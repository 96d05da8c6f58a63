"""Python objects -> a data set: lists, arrays, DataFrames, and `datasets` objects.

Objects of pandas and datasets are recognised by the names of their classes, without an import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spacelite.data import sources
from spacelite.data.loading import from_tables, load
from spacelite.data.sources import SPLITS, Table, standard_split
from spacelite.data.splits import Sources, TextDataset
from spacelite.errors import SpaceliteError, one_line

NAME = "texts"  # default name of data passed as objects
SPLIT_COLUMN = "split"


def read(
    dataset: Any = None,
    *,
    texts: Sequence[str] | None = None,
    labels: Sequence[Any] | None = None,
    name: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    data_dir: Path | None = None,
    labels_as: str = "auto",
    skip_empty: bool = False,
    drop_leaks: bool = False,
    training: bool = True,
) -> TextDataset:
    """Read a data set from a name, a path or Python objects.

    Args:
        dataset: A name or path as in `load`; a pandas DataFrame, whose column `split`, if any,
            names each row's split; a `datasets.Dataset` or `DatasetDict`; or a dictionary of
            splits, each a pair of texts and labels, a DataFrame or a Dataset:
            `{"train": (texts, labels), "test": (texts, labels)}`.
        texts: N texts in place of `dataset`, all of them training data.
        labels: N labels of `texts`: numbers, strings, or lists of these (multi-label).
        name: Name of data passed as objects. Default: `texts`.
        text_column: Name of the text column. Default: recognised automatically.
        label_column: Name of the label column. Default: recognised automatically.
        limit: Maximum examples per split: a seeded, stratified sample.
        data_dir: Folder of local data sets, searched by name before the hub.
        labels_as: `auto` to read labels that are all whole numbers as numbers, `text` to keep every
            label as it is written.
        skip_empty: Whether rows with an empty text are left out.
        drop_leaks: Whether training texts that also stand in validation or test are left out.
        training: Whether the data are to be trained on, as in `load`.

    Returns:
        The data set, with the splits train, validation and, if there is one, test.

    Raises:
        SpaceliteError: The data cannot be read or trained on; the message says where and why.
    """
    if (dataset is None) == (texts is None):
        raise SpaceliteError("give either dataset or texts", ["dataset", "texts"])
    if (texts is None) != (labels is None):
        problem = "labels go with texts" if texts is None else "texts need labels, one for each"
        raise SpaceliteError(f"{problem}: give both, or a dataset", ["dataset", "texts", "labels"])
    if isinstance(dataset, str | Path):
        if name is not None:
            raise SpaceliteError(
                f"name={name}: {dataset} has a name of its own; leave name out", ["name"]
            )
        return load(
            str(dataset),
            text_column=text_column,
            label_column=label_column,
            limit=limit,
            data_dir=data_dir,
            labels_as=labels_as,
            skip_empty=skip_empty,
            drop_leaks=drop_leaks,
            training=training,
        )
    name = name or NAME
    tables = (
        _tables(dataset, name, training) if texts is None else {"train": _pair(texts, labels, name)}
    )
    return from_tables(
        name,
        tables,
        text_column=text_column,
        label_column=label_column,
        limit=limit,
        labels_as=labels_as,
        skip_empty=skip_empty,
        drop_leaks=drop_leaks,
        training=training,
    )


def _tables(dataset: Any, name: str, training: bool) -> dict[str, Table]:
    if _is(dataset, "datasets.DatasetDict"):
        return sources.tables_of_datasets(dataset, name, training=training)
    if isinstance(dataset, Mapping):
        own_tables = {str(key): _table(own, f"{name} ({key})") for key, own in dataset.items()}
        return _by_split(own_tables, training)
    if _is(dataset, "pandas.DataFrame") and SPLIT_COLUMN in dataset.columns:
        return _by_split(
            {
                key: replace(_table(rows, f"{name} ({key})"), sources=of_rows)
                for key, (rows, of_rows) in _frame_by_split(dataset, name).items()
            },
            training,
        )
    return {"train": _table(dataset, name)}


def _table(own: Any, origin: str) -> Table:
    """Convert one split from any of the supported objects."""
    if _is(own, "pandas.DataFrame"):
        _check_columns(own, origin)
        return sources.table_of_frame(own.rename(columns=str), origin)
    if _is(own, "datasets.Dataset"):
        return sources.table_of_dataset(own, origin)
    if isinstance(own, tuple | list) and len(own) == 2:
        return _pair(own[0], own[1], origin)
    raise SpaceliteError(
        f"{origin} cannot be read from a {type(own).__name__}: give a name or path, texts=[...] "
        "with labels=[...], a pandas DataFrame, a datasets.DatasetDict, or "
        '{"train": (texts, labels)}',
        ["texts", "labels"],
    )


def _is(value: Any, kind: str) -> bool:
    """Whether a value is an instance of the class `package.Name`, without importing the package."""
    package, _, name = kind.partition(".")
    return any(
        cls.__name__ == name and cls.__module__.partition(".")[0] == package
        for cls in type(value).__mro__
    )


def _check_columns(frame: Any, origin: str) -> None:
    names = [str(name) for name in frame.columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SpaceliteError(f"{origin} has more than one column {twice!r}: rename or remove one")


def _frame_by_split(frame: Any, name: str) -> dict[str, tuple[Any, Sources]]:
    """The rows of each split, without the column `split`, and their numbers in the frame."""
    _check_columns(frame, name)
    splits = frame[SPLIT_COLUMN].astype(str)
    rows = frame.drop(columns=SPLIT_COLUMN)
    whole = Sources.of_files([(name, len(frame))])
    return {
        key: (rows[splits == key], whole.take(np.flatnonzero(splits == key)))
        for key in dict.fromkeys(splits)
    }


def _by_split(tables: dict[str, Table], training: bool) -> dict[str, Table]:
    """Tables by the standard names of their splits, in the usual order."""
    found: dict[str, Table] = {}
    for key, table in tables.items():
        split = standard_split(key)
        if split not in SPLITS or split in found:
            problem = "is given twice" if split in found else "is unknown"
            raise SpaceliteError(
                f"split {key!r} {problem}: the splits are train, validation and test, each once"
            )
        found[split] = table
    if not found or (training and "train" not in found):
        there = ", ".join(found) or "nothing"
        raise SpaceliteError(f"there is no train split, only {there}: add one")
    return {split: found[split] for split in SPLITS if split in found}


def _pair(texts: Any, labels: Any, origin: str) -> Table:
    texts, labels = _listed(texts, "texts", origin), _listed(labels, "labels", origin)
    if len(texts) != len(labels):
        raise SpaceliteError(
            f"{origin}: {len(texts):,} texts and {len(labels):,} labels: give one label (or list "
            "of labels) for each text"
        )
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    bad = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if bad is not None:
        raise SpaceliteError(
            f"{origin}: row {bad + 1} has a text that is not a string: correct or remove it"
        )
    try:
        return sources.table_of(rows, origin)
    except Exception as error:  # Arrow raises various errors for values of mixed types
        raise SpaceliteError(
            f"{origin}: labels need values of one type ({one_line(error)})"
        ) from error


def _listed(values: Any, what: str, origin: str) -> list[Any]:
    """Convert a sequence, array or Series to a list of plain Python objects."""
    listable = hasattr(values, "__len__") and not isinstance(values, str | bytes | Mapping | type)
    if not listable:
        raise SpaceliteError(
            f"{origin}: {what} must be a list or an array, not a {type(values).__name__}"
        )
    listed = values.tolist() if hasattr(values, "tolist") else values
    return [_plain(value) for value in listed]


def _plain(value: Any) -> Any:
    if _is(value, "pandas.NAType"):
        return None
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return list(value) if isinstance(value, tuple | set | frozenset) else value
