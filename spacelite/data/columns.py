"""Arrow tables -> texts and label values: finding the columns, checking their rows."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.data import sources
from spacelite.errors import SpaceliteError

TEXT_COLUMNS = ("text", "sentence", "review", "content", "comment", "post", "tweet", "document")
FEWEST_ROWS, NEARLY_ALL = 5, 0.9  # of them have different labels: a warning
LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "sentiment")
LABELS_AS = ("auto", "text")
ROWS_NAMED = 3  # in a message
LISTS = "in multi-label data, give a list of labels for each text, [] for none"

log = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the columns of a data set are read.

    Attributes:
        text_column: Name of the text column; None to recognise it.
        label_column: Name of the label column; None to recognise it.
        labels_as: `auto` to read labels that are all whole numbers as numbers, `text` to keep every
            label as it is written.
        skip_empty: Whether rows with an empty text are left out.
    """

    text_column: str | None = None
    label_column: str | None = None
    labels_as: str = "auto"
    skip_empty: bool = False

    def __post_init__(self) -> None:
        if self.labels_as not in LABELS_AS:
            raise SpaceliteError(
                f"labels_as={self.labels_as}: choose {' or '.join(LABELS_AS)}", ["labels_as"]
            )


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
    if text is not None and text == label:
        raise SpaceliteError(
            f"text_column and label_column both name {text!r}: name two columns",
            ["text_column", "label_column"],
        )
    label = label or _by_usual_name(names, LABEL_COLUMNS, text)
    strings = [name for name in names if table.is_string(name)]
    text_name = find_text(table.origin, names, strings, text, label)
    others = [name for name in names if name != text_name]
    return text_name, _pick(table.origin, names, label, "label", others)


def find_text(
    origin: str,
    names: Sequence[str],
    strings: Sequence[str],
    text: str | None,
    label: str | None = None,
) -> str:
    """Find the name of the text column, as `find` does.

    Args:
        origin: Where the table comes from, for messages.
        names: All columns.
        strings: Those of strings.
        text: The text column, if the user has named it.
        label: The label column. Default: a column with a usual name, if there is one.

    Raises:
        SpaceliteError: The named column is missing, or the column cannot be determined.
    """
    label = label or _by_usual_name(names, LABEL_COLUMNS, text)
    text = text or _by_usual_name(names, TEXT_COLUMNS, label)
    return _pick(origin, names, text, "text", [name for name in strings if name != label])


def _by_usual_name(names: Sequence[str], usual: Sequence[str], taken: str | None) -> str | None:
    lower = {name.lower(): name for name in reversed(names) if name != taken}
    lower.update((name, name) for name in names if name in lower and name != taken)
    return next((lower[candidate] for candidate in usual if candidate in lower), None)


def _pick(
    origin: str, names: Sequence[str], wanted: str | None, role: str, others: Sequence[str]
) -> str:
    if wanted is not None:
        if wanted in names:
            return wanted
        problem = f"has no column {wanted!r}"
    else:
        if len(others) == 1:
            return others[0]
        problem = f"has no column that is clearly the {role} column"
    raise SpaceliteError(
        f"{origin} {problem}: its columns are {', '.join(map(repr, names))}; "
        f"name one with {role}_column",
        [f"{role}_column"],
    )


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


def texts(table: sources.Table, column: str, skip_empty: bool = False) -> tuple[list[str], Rows]:
    """The texts of a column.

    Args:
        table: One split.
        column: The text column.
        skip_empty: Whether rows with an empty text are left out.

    Returns:
        The texts, and the indices of their rows, int64.

    Raises:
        SpaceliteError: A text is empty or not a string, or every text is a number.
    """
    texts: list[Any] = table.rows.column(column).to_pylist()
    check_texts(table.origin, column, texts, skip_empty=skip_empty)
    rows = np.flatnonzero([text is not None and bool(text.strip()) for text in texts])
    empty = np.setdiff1d(np.arange(len(texts)), rows).tolist()
    if empty:
        left = f"{len(empty):,} row{' is' if len(empty) == 1 else 's are'} left out"
        log.info("%s: %s, because the text is empty (%s)", table.origin, left, _listed(empty))
    return [texts[row] for row in rows.tolist()], rows


def check_texts(
    origin: str,
    column: str,
    texts: Iterable[Any],
    *,
    refuse_numbers: bool = True,
    skip_empty: bool | None = None,
) -> int:
    """Check that all texts of a column are strings that are not empty, and return their number.

    Args:
        origin: Where the table comes from, for messages.
        column: The text column.
        texts: The values of its rows.
        refuse_numbers: Whether texts that are all numbers are refused.
        skip_empty: True if empty texts are left out later; False if they could be, which the
            message then says.

    Raises:
        SpaceliteError: A text is empty or not a string, or every text is a number.
    """
    no_string: list[int] = []
    empty: list[int] = []
    rows, numbers = 0, refuse_numbers
    for row, text in enumerate(texts):
        rows = row + 1
        if text is None or (type(text) is str and not text.strip()):
            empty.append(row)
        elif type(text) is not str:
            no_string.append(row)
        elif numbers:
            numbers = _is_number(text)
    if no_string:
        _refuse_rows(origin, no_string, f"a {column!r} that is not a string", "text_column")
    if empty and not skip_empty:
        way_out = ", or give skip_empty=True" if skip_empty is False else ""
        _refuse_rows(origin, empty, f"an empty {column!r}", "text_column", way_out)
    if rows and len(empty) == rows:
        raise SpaceliteError(f"{origin}: every {column!r} is empty: there is nothing to read")
    if rows and numbers:
        raise SpaceliteError(
            f"{origin}: every {column!r} is a number: name the column that holds the texts with "
            "text_column",
            ["text_column"],
        )
    return rows


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def label_values(table: sources.Table, column: str, rows: Rows) -> list[Any]:
    """The values of a label column in some rows.

    Args:
        table: One split.
        column: The label column.
        rows: The indices of the rows.

    Returns:
        One value per row, none missing, strings without surrounding spaces; in a multi-label data
        set a list per row.

    Raises:
        SpaceliteError: Labels are missing or are records, or only some rows hold lists.
    """
    every: list[Any] = table.rows.column(column).to_pylist()
    values = [every[row] for row in rows.tolist()]
    missing = [
        row
        for row, value in zip(rows.tolist(), values, strict=True)
        if value is None or value != value or (isinstance(value, str) and not value.strip())
    ]
    if missing:
        several = any(
            isinstance(value, list) or (isinstance(value, str) and "," in value) for value in values
        )
        _refuse_rows(
            table.origin,
            missing,
            f"no {column!r}",
            "label_column",
            f" ({LISTS})" if several else "",
        )
    if all(isinstance(value, list) for value in values):
        return values
    if any(isinstance(value, list | dict) for value in values):
        raise SpaceliteError(
            f"{table.origin}: column {column!r} holds records, or lists in some rows only: give a "
            "label for each text, or a list of labels for each text, [] for none (or name another "
            "column with label_column)",
            ["label_column"],
        )
    return [value.strip() if isinstance(value, str) else value for value in values]


def _listed(rows: Sequence[int]) -> str:
    """Rows as messages name them: `row 5`, `rows 5 and 7`, `rows 5, 7, 9 and 20 more`."""
    named = [str(row + 1) for row in rows[:ROWS_NAMED]]
    if len(rows) > ROWS_NAMED:
        named.append(f"{len(rows) - ROWS_NAMED:,} more")
    if len(named) == 1:
        return f"row {named[0]}"
    return f"rows {', '.join(named[:-1])} and {named[-1]}"


def _refuse_rows(
    origin: str, rows: list[int], problem: str, argument: str, way_out: str = ""
) -> None:
    have, them = ("has", "it") if len(rows) == 1 else ("have", "them")
    raise SpaceliteError(
        f"{origin}: {_listed(rows)} {have} {problem}: correct or remove {them}, or name "
        f"another column with {argument}{way_out}",
        [argument, "skip_empty"],
    )
