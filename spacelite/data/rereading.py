"""A column that was not read when a data set was embedded: its values in rows that are known, which
must still hold the same texts.

Shapes: N examples.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.data import sources
from spacelite.data.known import KNOWN
from spacelite.data.sources import Table
from spacelite.data.splits import Sources
from spacelite.errors import SpaceliteError

Rows = npt.NDArray[np.int64]


def column_of_rows(
    path: Path, name: str, column: str, of: Sources, texts: Sequence[str], argument: str
) -> list[Any]:
    """The values of a column in the rows that examples come from.

    Args:
        path: The file or folder that the data set was read from.
        name: The data set's name.
        column: Name of the column.
        of: Where the N examples come from.
        texts: Their texts, which the rows must still hold.
        argument: The argument that names the column, for messages.

    Returns:
        N values as the file has them, None for a missing one. Those of csv files are strings.

    Raises:
        SpaceliteError: The data are not there or cannot be read, lack the column, or have changed
            since they were embedded.
    """
    given = f"{argument}={column}"
    if not os.path.exists(path):  # noqa: PTH110 - Path's own raises for over-long names
        raise SpaceliteError(
            f"{given}: {path}, from which {name} was embedded, is not there: put it back, or run "
            "embed with the place where it is now (what is embedded is found again)",
            [argument],
        )
    values: list[Any] = [None] * len(of)
    seen = np.zeros(len(of), bool)
    for table, prepared in _tables(path, name):
        at = positions(table.source_rows, of)
        examples = np.flatnonzero(at >= 0)
        if not len(examples):
            continue
        own = [texts[example] for example in examples.tolist()]
        _check_texts(given, argument, prepared, of.take(examples), own)
        _check_column(given, argument, table, column)
        found = table.rows.column(column).take(at[examples]).to_pylist()
        for example, value in zip(examples.tolist(), found, strict=True):
            values[example] = value
        seen[examples] = True
    _refuse_changed(given, argument, of.take(np.flatnonzero(~seen)))
    return values


def positions(there: Sources, wanted: Sources) -> Rows:
    """The index in `there` of each row of `wanted`, (N,); -1 for a row that is not there."""
    if not len(there) or not len(wanted):
        return np.full(len(wanted), -1, np.int64)
    numbers = {name: number for number, name in enumerate(there.files)}
    file = np.array([numbers.get(name, -1) for name in wanted.files], np.int64)[wanted.file]
    most = 1 + max(int(there.row.max()), int(wanted.row.max()))
    keys, asked = there.file * most + there.row, file * most + wanted.row
    order = np.argsort(keys, kind="stable")
    at = order[np.minimum(np.searchsorted(keys, asked, sorter=order), len(keys) - 1)]
    found: Rows = np.where((file >= 0) & (keys[at] == asked), at, -1)
    return found


def _tables(path: Path, name: str) -> list[tuple[Table, Table]]:
    """The tables of all splits as they are, and as their texts are read from them."""
    known = KNOWN.get(name)
    if known is not None and known.of is not None:
        known = KNOWN[known.of]
    prepare = known.prepare if known is not None else None
    tables: Mapping[str, Table] = sources.from_path(path, training=False)
    return [(table, prepare(table) if prepare else table) for table in tables.values()]


def _check_texts(
    given: str, argument: str, table: Table, of: Sources, texts: Sequence[str]
) -> None:
    """Raise SpaceliteError unless a column of the table holds these texts in these rows. Which
    column the texts were read from need not be known: no other holds them all."""
    at = positions(table.source_rows, of)
    _refuse_changed(given, argument, of.take(np.flatnonzero(at < 0)))
    changed = np.arange(len(texts))  # what differs in the column that is most like the texts
    for column in filter(table.is_string, table.rows.column_names):
        there = table.rows.column(column).take(at).to_pylist()
        differing = [row for row, pair in enumerate(zip(there, texts, strict=True))
                     if pair[0] != pair[1]]  # fmt: skip
        if len(differing) < len(changed):
            changed = np.array(differing, np.int64)
    _refuse_changed(given, argument, of.take(changed))


def _refuse_changed(given: str, argument: str, changed: Sources) -> None:
    if not len(changed):
        return
    more = f" (and {len(changed) - 1:,} more)" if len(changed) > 1 else ""
    raise SpaceliteError(
        f"{given}: {changed[0]}{more} does not hold the text that was embedded: the file has "
        "changed since; embed it again, or give the values as a list in Python",
        [argument],
    )


def _check_column(given: str, argument: str, table: Table, column: str) -> None:
    names: list[str] = list(table.rows.column_names)
    if column in names:
        return
    near = difflib.get_close_matches(column, names, 1)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    raise SpaceliteError(
        f"{given}: {table.origin} has no such column{meant}: its columns are "
        f"{', '.join(map(repr, names))}",
        [argument],
    )
