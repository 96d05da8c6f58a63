"""Texts and labels that are Python objects -> a data set: lists, DataFrames, `datasets`' own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spacelite.data import sources
from spacelite.data.loading import from_tables, load
from spacelite.data.sources import SPLIT_ALIASES, SPLITS, Table
from spacelite.data.splits import TextDataset
from spacelite.errors import SpaceliteError

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
) -> TextDataset:
    """Read a data set, whatever it is given as.

    Args:
        dataset: A name or path as in `load`; a pandas DataFrame (its column `split`, where it has
            one, names the splits); a `datasets.Dataset` or `DatasetDict`; or a dictionary of splits
            `{"train": (texts, labels), ...}`.
        texts: In place of `dataset`: N texts, all of them training data.
        labels: Their N labels: numbers or strings, or lists of them (multi-label).
        name: What the data set is called; `texts` unless given. Not for names and paths.
        text_column: The column of the texts, where its name does not show it.
        label_column: The column of the labels, where its name does not show it.
        limit: Examples per split at most.
        data_dir: A folder with data sets by name, searched before the hub.

    Raises:
        SpaceliteError: It cannot be read or trained on.
    """
    if (dataset is None) == (texts is None):
        raise SpaceliteError("give one of dataset and texts", ["dataset", "texts"])
    if texts is None and labels is not None:
        raise SpaceliteError("labels go with texts, not with dataset", ["dataset"])
    if isinstance(dataset, str | Path):
        if name is not None:
            raise SpaceliteError("name is for data that have none: not for a name or path")
        return load(
            str(dataset),
            text_column=text_column,
            label_column=label_column,
            limit=limit,
            data_dir=data_dir,
        )
    name = name or "texts"
    if texts is not None:
        if labels is None:
            raise SpaceliteError("give labels with texts: one for each text", ["texts"])
        tables = {"train": _table(texts, labels, name)}
    else:
        tables = _tables(dataset, name)
    return from_tables(
        name, tables, text_column=text_column, label_column=label_column, limit=limit
    )


def _tables(dataset: Any, name: str) -> dict[str, Table]:
    kind = f"{type(dataset).__module__.partition('.')[0]}.{type(dataset).__name__}"
    if kind == "pandas.DataFrame":
        return _from_frame(dataset, name)
    if kind == "datasets.Dataset":
        return {"train": sources.table_of_dataset(dataset, name)}
    if kind == "datasets.DatasetDict":
        return _by_split(
            {key: sources.table_of_dataset(own, f"{name} ({key})") for key, own in dataset.items()}
        )
    if isinstance(dataset, Mapping):
        tables = {}
        for key, pair in dataset.items():
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise SpaceliteError(f"{name} ({key}): give a pair of texts and labels")
            tables[str(key)] = _table(pair[0], pair[1], f"{name} ({key})")
        return _by_split(tables)
    raise SpaceliteError(
        f"a data set cannot be a {type(dataset).__name__}: give a name or path, texts and labels, "
        "a DataFrame, or a datasets.DatasetDict"
    )


def _from_frame(frame: Any, name: str) -> dict[str, Table]:
    if len(set(frame.columns)) < len(frame.columns):
        raise SpaceliteError(f"{name}: two columns have the same name: rename one")
    frame = frame.rename(columns=str)
    if SPLIT_COLUMN not in frame.columns:
        return {"train": sources.table_of_frame(frame, name)}
    own = frame.drop(columns=SPLIT_COLUMN)
    groups = frame[SPLIT_COLUMN].astype(str)
    return _by_split(
        {
            key: sources.table_of_frame(own[groups == key], f"{name} ({key})")
            for key in dict.fromkeys(groups)
        }
    )


def _by_split(tables: dict[str, Table]) -> dict[str, Table]:
    """Tables by the usual names of splits; SpaceliteError where none is train."""
    found = {SPLIT_ALIASES.get(key.lower(), key.lower()): table for key, table in tables.items()}
    unknown = [key for key in found if key not in SPLITS]
    if "train" not in found or unknown:
        raise SpaceliteError(
            f"the splits are {', '.join(tables) or 'none'}: name them train, validation and test, "
            "of which train must be there"
        )
    return {split: found[split] for split in SPLITS if split in found}


def _table(texts: Any, labels: Any, origin: str) -> Table:
    texts, labels = _listed(texts, "texts", origin), _listed(labels, "labels", origin)
    if len(texts) != len(labels):
        raise SpaceliteError(
            f"{origin}: {len(texts):,} texts and {len(labels):,} labels: give one for each text"
        )
    rows = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]
    bad = next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)
    if bad is not None:
        raise SpaceliteError(f"{origin}: row {bad + 1} has a text that is not a string")
    try:
        return sources.table_of(rows, origin)
    except Exception as error:  # Arrow's, for values of several types
        raise SpaceliteError(
            f"{origin}: labels need values of one type ({' '.join(str(error).split())})"
        ) from error


def _listed(values: Any, what: str, origin: str) -> list[Any]:
    """A list of plain Python values, of any sequence, array or Series."""
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise SpaceliteError(f"{origin}: {what} need a list, not a {type(values).__name__}")
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    return [
        value.tolist() if isinstance(value, np.ndarray | np.generic)
        else list(value) if isinstance(value, tuple | set) else value
        for value in listed
    ]  # fmt: skip
