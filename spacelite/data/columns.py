"""Arrow tables -> texts and numbered labels: finding the columns, checking their values."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.data import sources
from spacelite.errors import SpaceliteError

TEXT_COLUMNS = ("text", "sentence", "review", "content", "comment", "post", "tweet", "document")
FEWEST_ROWS, NEARLY_ALL = 5, 0.9  # of them have different labels: a warning
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment")

log = logging.getLogger(__name__)

Labels = npt.NDArray[np.int64]


def find(table: sources.Table, text: str | None, label: str | None) -> tuple[str, str]:
    """Find the names of the text and label columns.

    Args:
        table: One split.
        text: The text column, if the user has named it.
        label: The label column, if the user has named it.

    Returns:
        The text and the label column: as named, else a usual name, else the only candidate.

    Raises:
        SpaceliteError: A named column is missing, both names are the same, or a column cannot be
            determined.
    """
    names: list[str] = list(table.rows.column_names)

    def by_usual_name(usual: Sequence[str], taken: str | None) -> str | None:
        lower = {name.lower(): name for name in reversed(names) if name != taken}
        return next((lower[candidate] for candidate in usual if candidate in lower), None)

    def pick(wanted: str | None, role: str, others: Sequence[str]) -> str:
        if wanted is not None:
            if wanted in names:
                return wanted
            problem = f"has no column {wanted!r}"
        else:
            if len(others) == 1:
                return others[0]
            problem = f"has no column that is clearly the {role} column"
        raise SpaceliteError(
            f"{table.origin} {problem}: its columns are {', '.join(map(repr, names))}; "
            f"name one with {role}_column",
            [f"{role}_column"],
        )

    if text is not None and text == label:
        raise SpaceliteError(
            f"text_column and label_column both name {text!r}: name two columns",
            ["text_column", "label_column"],
        )
    label = label or by_usual_name(LABEL_COLUMNS, text)
    text = text or by_usual_name(TEXT_COLUMNS, label)
    strings = [name for name in names if table.is_string(name) and name != label]
    text_name = pick(text, "text", strings)
    return text_name, pick(label, "label", [name for name in names if name != text_name])


def say_choice(
    name: str, names: Sequence[str], text: str, label: str, values: Sequence[Any], named: bool
) -> None:
    """Log which columns were chosen, and warn if the label column does not look like one.

    Args:
        name: The data set's name.
        names: All columns.
        text: The chosen text column.
        label: The chosen label column.
        values: The label values of all splits.
        named: Whether the user has named the label column.
    """
    if set(names) != {"text", "label"}:
        log.info("%s: the texts are column %r, the labels column %r", name, text, label)
    if named or label.lower() in LABEL_COLUMNS or any(isinstance(one, list) for one in values):
        return
    distinct = len(set(values))
    if len(values) >= FEWEST_ROWS and distinct >= NEARLY_ALL * len(values):
        log.warning(
            "%s: column %r was taken for the labels, as the only one left, but it has %s different "
            "values in %s rows: name the right one with label_column if it holds no labels",
            name, label, f"{distinct:,}", f"{len(values):,}",
        )  # fmt: skip


def texts(table: sources.Table, column: str) -> list[str]:
    """The texts of a column.

    Raises:
        SpaceliteError: A text is empty or not a string, or every text is a number.
    """
    texts: list[Any] = table.rows.column(column).to_pylist()
    no_string = [i for i, text in enumerate(texts) if text is not None and type(text) is not str]
    if no_string:
        _refuse_rows(table, no_string, f"a {column!r} that is not a string", "text_column")
    empty = [i for i, text in enumerate(texts) if text is None or not text.strip()]
    if empty:
        _refuse_rows(table, empty, f"an empty {column!r}", "text_column")
    if all(_is_number(text) for text in texts):
        raise SpaceliteError(
            f"{table.origin}: every {column!r} is a number: name the column that holds the texts "
            "with text_column",
            ["text_column"],
        )
    return texts


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def label_values(table: sources.Table, column: str) -> list[Any]:
    """The values of a label column; if all are numbers written as strings, they become numbers.

    Returns:
        One value per row, none missing; in a multi-label data set a list per row.

    Raises:
        SpaceliteError: Labels are missing or are records, or only some rows hold lists.
    """
    values: list[Any] = table.rows.column(column).to_pylist()
    missing = [
        i
        for i, value in enumerate(values)
        if value is None or value != value or (isinstance(value, str) and not value.strip())
    ]
    if missing:
        _refuse_rows(table, missing, f"no {column!r}", "label_column")
    if all(isinstance(value, list) for value in values):
        return values
    if any(isinstance(value, list | dict) for value in values):
        raise SpaceliteError(
            f"{table.origin}: column {column!r} holds records, or lists in some rows only: give a "
            "label per text, or a list of labels per text (or name another with label_column)",
            ["label_column"],
        )
    values = [value.strip() if isinstance(value, str) else value for value in values]
    # Numbers in quotes, and all numbers in csv files, arrive as strings.
    for pattern, convert in ((r"[+-]?\d+(\.0+)?", _whole), (r"[+-]?\d*\.\d+", float)):
        if all(isinstance(value, str) and re.fullmatch(pattern, value) for value in values):
            return [convert(value) for value in values]
    return values


def _whole(text: str) -> int:
    return int(text.split(".")[0])


def _refuse_rows(table: sources.Table, rows: list[int], problem: str, argument: str) -> None:
    more = f" (and {len(rows) - 1} more rows)" if len(rows) > 1 else ""
    raise SpaceliteError(
        f"{table.origin}: row {rows[0] + 1}{more} has {problem}: correct or remove it, or name "
        f"another column with {argument}",
        [argument],
    )


def numbered(
    values: dict[str, list[Any]], class_names: Sequence[str], name: str
) -> tuple[dict[str, Labels], tuple[str, ...]]:
    """Number the labels of all splits together.

    Args:
        values: Each split's label values, as `label_values` returns them.
        class_names: The names of labels 0..C-1 if they are known, else empty.
        name: The data set's name, for messages.

    Returns:
        Each split's labels, (N,) int64 of 0..C-1, or (N, C) int64 of 0 and 1 if the values are
            lists; and the C label names. Labels with known names are numbered as those names are,
            others in sorted order.

    Raises:
        SpaceliteError: The values cannot be classes.
    """
    are_lists = [isinstance(value, list) for rows in values.values() for value in rows]
    if any(are_lists):
        if not all(are_lists):
            raise SpaceliteError(
                f"{name}: some rows have a list of labels, others a single one: give lists only"
            )
        return _multi_label(values, class_names, name)
    pooled = [value for split in values.values() for value in split]
    distinct_values = len(set(pooled))
    if distinct_values > 50 and distinct_values > len(pooled) / 2:
        raise SpaceliteError(
            f"{name}: {distinct_values:,} different labels in {len(pooled):,} rows are not "
            "classes: name another column with label_column",
            ["label_column"],
        )
    if all(isinstance(value, str) for value in pooled):
        known = class_names if set(class_names) >= set(pooled) else ()
        order = tuple(known or sorted(set(pooled)))
        number = {value: i for i, value in enumerate(order)}
        return {key: _int64(number[v] for v in split) for key, split in values.items()}, order
    if all(isinstance(value, bool) for value in pooled):
        return {key: _int64(map(int, split)) for key, split in values.items()}, ("false", "true")
    if any(isinstance(value, str | bool) for value in pooled):
        kinds = sorted({type(value).__name__ for value in pooled})
        raise SpaceliteError(f"{name}: labels of mixed types ({', '.join(kinds)}): use one type")

    for split, numbers in values.items():
        for row, value in enumerate(numbers):
            if not isinstance(value, int) and not (isinstance(value, float) and value.is_integer()):
                raise SpaceliteError(
                    f"{name} {split}: row {row + 1} has label {value!r}: classes need whole "
                    "numbers or strings (or name another column with label_column)",
                    ["label_column"],
                )
            if value < 0:
                count = sum(number < 0 for number in numbers)
                raise SpaceliteError(
                    f"{name} {split}: row {row + 1} has label {int(value)}, which marks a hidden "
                    f"or missing label ({count} such rows): remove them, or the whole split"
                )
    whole = {key: [int(value) for value in split] for key, split in values.items()}
    distinct = sorted({value for split in whole.values() for value in split})
    if class_names:
        if distinct[-1] >= len(class_names):
            raise SpaceliteError(
                f"{name} has label {distinct[-1]}, but its labels are 0 to {len(class_names) - 1} "
                f"({', '.join(class_names)})"
            )
        return {key: _int64(split) for key, split in whole.items()}, tuple(class_names)
    index = {value: i for i, value in enumerate(distinct)}
    return (
        {key: _int64(index[value] for value in split) for key, split in whole.items()},
        tuple(str(value) for value in distinct),
    )


def _multi_label(
    values: dict[str, list[Any]], class_names: Sequence[str], name: str
) -> tuple[dict[str, Labels], tuple[str, ...]]:
    flat = {split: [label for row in rows for label in row] for split, rows in values.items()}
    every = [label for row in flat.values() for label in row]
    if not every:
        raise SpaceliteError(
            f"{name}: no text has a label: name another column with label_column", ["label_column"]
        )
    if any(label is None or isinstance(label, list | dict) for label in every):
        raise SpaceliteError(
            f"{name}: its lists hold records or missing values: give lists of numbers or strings"
        )
    widths = {len(row) for rows in values.values() for row in rows}
    if len(widths) == 1 and widths != {1} and {*every} <= {0, 1}:
        # One column of zeros and ones (or booleans) per label.
        (count,) = widths
        names = tuple(class_names) if len(class_names) == count else tuple(map(str, range(count)))
        return {
            split: np.array(rows, np.int64).reshape(-1, count) for split, rows in values.items()
        }, names
    numbers, names = numbered(flat, class_names, name)
    labels = {}
    for split, rows in values.items():
        labels[split] = np.zeros((len(rows), len(names)), np.int64)
        owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        labels[split][owner, numbers[split]] = 1
    return labels, names


def _int64(values: Iterable[int]) -> Labels:
    return np.fromiter(values, np.int64)
