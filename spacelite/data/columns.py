"""Arrow tables -> texts and numbered labels: finding the columns, checking their rows, and what
the values of the label column mean."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.data.splits import (
    PAIR,
    SPLIT_ALIASES,
    SPLITS,
    Labels,
    Pair,
    Table,
    standard_split,
)
from spacelite.errors import SpaceliteError
from spacelite.settings import one_of, optional, require, suggestion
from spacelite.tasks import TASKS, Task, find_task

TEXT_COLUMNS = ("text", "sentence", "review", "content", "comment", "post", "tweet", "document")
STAND_IN = "what stands for the texts"  # the name of a column where a table has no texts
FEW = 20  # different numbers, some written without a point: classes
FEWEST_ROWS, NEARLY_ALL = 5, 0.9  # of them have different labels: a warning
LABEL_COLUMNS = (
    "label", "labels", "class", "category", "target", "sentiment", "rating", "score", "stars",
)  # fmt: skip
SPLIT_COLUMN = "split"
FILE_COLUMNS = ("file", "filename", "file_name", "path")
LABELS_AS = ("auto", "text")
ROWS_NAMED = 3  # in a message
LISTS = "in multi-label data, give a list of labels for each text, [] for none"
KINDS = {1: "single texts", 2: "pairs of texts"}  # of examples, by the number of their columns
NO_LABEL = "in multi-label data, give label_separator={!r}, with which an empty string is no label"
SEPARATORS = (",", ";", "|")  # of several labels in one string
MISSING = {"nan", "<na>", "null"}  # how programs write a missing value

log = logging.getLogger(__name__)

Rows = npt.NDArray[np.int64]

SURROGATE = re.compile("[\ud800-\udfff]")  # half of a pair, which no encoding can hold
# Labels that are numbers: `float` also takes 1_000 and the digits of other scripts.
WHOLE, FRACTION = r"[+-]?[0-9]+(\.0+)?", r"[+-]?[0-9]*\.[0-9]+"
NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?"
WITH_COMMA = r"[+-]?[0-9]+,[0-9]+"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the columns of a data set are read; `spacelite.embed` says what its fields mean."""

    text_column: str | tuple[str, ...] | None = None
    label_column: str | None = None
    labels_as: str = "auto"
    label_separator: str | None = None
    task: str | None = None  # in TASKS; None: found by the labels
    split_column: str | None = None
    skip_empty: bool = False
    quoting: str = "standard"  # one of `readers.QUOTING`

    def __post_init__(self) -> None:
        require("labels_as", self.labels_as, one_of(*LABELS_AS))
        require("task", self.task, optional(one_of(*TASKS)))
        for role in ("text_column", "label_column"):
            if self.split_column is not None and getattr(self, role) == self.split_column:
                raise SpaceliteError(
                    f"split_column and {role} name {self.split_column!r}: name two columns",
                    ["split_column", role],
                )


@dataclass(frozen=True)
class Labelled:
    """The labels of N rows."""

    values: list[Any]  # the K different ones, or lists of labels, in the order of their first rows
    index: Rows  # of each row's label in `values`, (N,)
    split: npt.NDArray[np.int8]  # of each row, an index in SPLITS, (N,)
    row: Rows  # each row's number in its split, as messages give it, (N,)

    @property
    def counts(self) -> list[int]:
        """How many rows have each of the values."""
        counts: list[int] = np.bincount(self.index, minlength=len(self.values)).tolist()
        return counts

    def take(self, rows: Rows | npt.NDArray[np.bool_]) -> Labelled:
        """The labels of the rows at the indices `rows`, in that order, or where these are True."""
        return replace(self, index=self.index[rows], split=self.split[rows], row=self.row[rows])

    @classmethod
    def joined(cls, parts: Sequence[Labelled]) -> Labelled:
        """The labels of several splits, one after another."""
        if len(parts) == 1:
            return parts[0]
        values, index = distinct(itertools.chain.from_iterable(part.values for part in parts))
        bounds = np.cumsum([len(part.values) for part in parts])[:-1]
        return cls(
            values,
            np.concatenate(
                [
                    of_part[part.index]
                    for part, of_part in zip(parts, np.split(index, bounds), strict=True)
                ]
            ),
            np.concatenate([part.split for part in parts]),
            np.concatenate([part.row for part in parts]),
        )


def distinct(values: Iterable[Any]) -> tuple[list[Any], Rows]:
    """The different values, of which equal ones of two types are two, in the order in which they
    first occur; and the index of each of the N values among them, (N,)."""
    numbers: dict[Any, int] = {}
    different: list[Any] = []

    def number(value: Any) -> int:
        key = value if type(value) is str else _key(value)
        found = numbers.setdefault(key, len(different))
        if found == len(different):
            different.append(value)
        return found

    return different, np.fromiter(map(number, values), np.int64)


def _key(value: Any) -> Any:
    """What only values that are equal and of the same type share."""
    if isinstance(value, list | tuple):
        return (type(value), *map(_key, value))
    return (type(value), str(value) if isinstance(value, dict) else value)


Found = tuple[tuple[str, ...], str]  # the text column, or the two of pairs; the label column


def find(
    table: Table, text: str | Sequence[str] | None, label: str | None, like: Found | None = None
) -> Found:
    """The text columns and the label column: as named, else those of another split (`like`), else a
    usual name, else, of a single split, the only candidate."""
    names = table.names
    texts = PAIR if text is None and table.are_pairs else named_columns(names, text)
    if like is not None:
        texts = like[0] if not texts and {*like[0]} <= {*names} else texts
        label = like[1] if label is None and like[1] in names else label
    if label in texts:
        raise SpaceliteError(
            f"text_column and label_column both name {label!r}: name two columns",
            ["text_column", "label_column"],
        )
    label = label or _by_usual_name(names, LABEL_COLUMNS, texts)
    strings = [name for name in names if table.is_string(name)]
    text_names = find_texts(table.origin, names, strings, texts, label)
    others = [name for name in names if name not in text_names]
    label_name = _pick(table.origin, names, label, "label", others)
    if like is not None:
        if len(text_names) != len(like[0]):
            raise SpaceliteError(
                f"{table.origin} has {KINDS[len(text_names)]}, another split has "
                f"{KINDS[len(like[0])]}: give all splits alike"
            )
        found, usual = (*text_names, label_name), [TEXT_COLUMNS] * len(text_names)
        for name, of_other, usually in zip(
            found, (*like[0], like[1]), [*usual, LABEL_COLUMNS], strict=True
        ):
            named = name in (*texts, label)
            if of_other not in names and not named and name.lower() not in usually:
                raise SpaceliteError(
                    f"{table.source_rows.files[0]} has no column {of_other!r}, which another split "
                    f"has: its columns are {', '.join(map(repr, names))}; add it, or leave the "
                    "split out"
                )
    return text_names, label_name


def named_columns(names: Sequence[str], wanted: str | Sequence[str] | None) -> tuple[str, ...]:
    """The columns, of which there are these `names`, that `text_column` means: one, or the two of
    pairs, as a sequence or with a comma between them, unless a column has that name; none for
    None."""
    if not isinstance(wanted, str):
        return tuple(wanted or ())
    parts = wanted.split(",")
    if wanted in names or len(parts) == 1:
        return (wanted,)
    ways = (
        (",".join(parts[:at]).strip(), ",".join(parts[at:]).strip()) for at in range(1, len(parts))
    )
    return next((way for way in ways if {*way} <= {*names}), tuple(map(str.strip, parts)))


def wanted_columns(
    names: Sequence[str], text_column: str | Sequence[str] | None, remembered: str | None
) -> tuple[tuple[str, ...], bool]:
    """The columns of texts that are asked for, by default those that are `remembered` if they are
    among these names; and whether they were remembered."""
    known = named_columns(names, remembered)
    if text_column is None and known and {*known} <= {*names}:
        return known, True
    return named_columns(names, text_column), False


def find_texts(
    origin: str,
    names: Sequence[str],
    strings: Sequence[str],
    texts: tuple[str, ...],
    label: str | None = None,
) -> tuple[str, ...]:
    """The text column, or the two of pairs, as `find` does, given all columns and those of strings;
    `label` is by default a column with a usual name, if there is one."""
    if len(texts) > 1:
        if len(texts) > 2 or len({*texts}) < len(texts):
            raise SpaceliteError(
                f"text_column={','.join(texts)}: name one column of texts, or two different ones, "
                "of pairs",
                ["text_column"],
            )
        return tuple(_pick(origin, names, name, "text") for name in texts)
    label = label or _by_usual_name(names, LABEL_COLUMNS, texts)
    text = next(iter(texts), None) or _by_usual_name(names, TEXT_COLUMNS, [label])
    return (_pick(origin, names, text, "text", [name for name in strings if name != label]),)


def has_texts(table: Table) -> bool:
    """Whether a column has a usual name of texts."""
    return _by_usual_name(table.names, TEXT_COLUMNS, ()) is not None


def _by_usual_name(
    names: Sequence[str], usual: Sequence[str], taken: Collection[str | None]
) -> str | None:
    lower = {name.lower(): name for name in reversed(names) if name not in taken}
    lower.update((name, name) for name in names if name in lower and name not in taken)
    return next((lower[candidate] for candidate in usual if candidate in lower), None)


def _pick(
    origin: str, names: Sequence[str], wanted: str | None, role: str, others: Sequence[str] = ()
) -> str:
    if wanted is not None and wanted in names:
        return wanted
    if wanted is None and len(others) == 1:
        return others[0]
    problem = f"no column that is clearly the {role} column"
    if wanted is not None:
        meant = suggestion(wanted, names)
        problem = f"no column {wanted!r}{f' (did you mean {meant!r}?)' if meant else ''}"
    raise SpaceliteError(
        f"{origin} has {problem}: its columns are {', '.join(map(repr, names))}; "
        f"name one with {role}_column",
        [f"{role}_column"],
    )


def by_split(table: Table, reading: Reading) -> dict[str, Table]:
    """Divide a table by the column that names each row's split: the one that was named, else
    `split`, in any case, if names of splits are all that it holds. Empty if there is none."""
    column = reading.split_column or _split_column(table, reading)
    if column is None:
        return {}
    _pick(table.origin, table.names, column, "split")
    written = ("" if value is None else str(value).strip() for value in table.column(column))
    names, index = distinct(written)
    splits = [standard_split(name) for name in names]
    unknown = [name for name, split in zip(names, splits, strict=True) if split not in SPLITS]
    if unknown and reading.split_column is None and len(unknown) == len(splits):
        log.warning(
            "%s: column %r names no splits (one value is %r): it is not used",
            table.origin, column, unknown[0],
        )  # fmt: skip
        return {}
    if unknown:
        _refuse_rows(
            table.origin,
            table.row_numbers[np.array([split not in SPLITS for split in splits])[index]],
            f"a {column!r} that is no split, such as {unknown[0]!r}",
            "split_column",
            f" (splits are {', '.join(SPLITS)}; {', '.join(SPLIT_ALIASES)} mean validation)",
        )
    parts = {
        split: np.flatnonzero(np.array([of == split for of in splits])[index])
        for split in SPLITS
        if split in splits
    }
    log.info(
        "%s: column %r names the split of each row: %s",
        table.origin, column, ", ".join(f"{len(rows):,} {split}" for split, rows in parts.items()),
    )  # fmt: skip
    left = replace(table, rows=table.rows.drop_columns([column]))
    return {split: left.take(rows) for split, rows in parts.items()}


def file_names(table: Table, column: str | None) -> tuple[Table, list[str] | None]:
    """The table without the column that names a file for each row, as named or by a usual name, and
    these names; None if there is none."""
    column = column or _by_usual_name(table.names, FILE_COLUMNS, ())
    if column is None:
        return table, None
    _pick(table.origin, table.names, column, "file", [])
    log.info("%s: column %r names the file of each row", table.origin, column)
    names = [str(value) for value in table.column(column)]
    return replace(table, rows=table.rows.drop_columns([column])), names


def _split_column(table: Table, reading: Reading) -> str | None:
    """The column whose name says that it holds the split of each row, unless it is chosen for
    something else."""
    column = _by_usual_name(table.names, [SPLIT_COLUMN], ())
    texts = named_columns(table.names, reading.text_column)
    return None if column in (*texts, reading.label_column) else column


def warn_of_splits(tables: Mapping[str, Table], reading: Reading) -> None:
    """Log a warning for tables of a split each that have a column with other names of splits."""
    for split, table in tables.items():
        column = _split_column(table, reading)
        if column is None or column in table.mixed:
            continue
        strings = {value for value in table.column(column) if isinstance(value, str)}
        others = {standard_split(value.strip()) for value in strings}
        if others & {*SPLITS} - {split}:
            log.warning(
                "%s: column %r names splits too, and is not used: these rows are all %s",
                table.source_rows.files[0], column, split,
            )  # fmt: skip


def log_choice(
    name: str,
    names: Sequence[str],
    texts: tuple[str, ...],
    label: str,
    labels: Labelled,
    named: bool,
) -> None:
    """Log which columns were chosen, and warn if the label column, which the user has not `named`,
    does not look like one."""
    values = [value for value, count in zip(labels.values, labels.counts, strict=True) if count]
    examples = len(labels.index)
    if texts == (STAND_IN,):
        log.info("%s: the labels are column %r; the texts are not kept", name, label)
    elif set(names) != {"text", "label"} and {*names} != {*PAIR, "label"}:
        log.info("%s: %s, the labels column %r", name, texts_are(texts), label)
    if named or label.lower() in LABEL_COLUMNS or any(isinstance(value, list) for value in values):
        return
    different = len(set(values))
    if examples >= FEWEST_ROWS and different >= NEARLY_ALL * examples:
        problem = (
            f"{name}: column {label!r} was taken for the labels, as the only one left, but it has "
            f"{different:,} different values in {examples:,} rows: name the right one with "
            "label_column if it holds no labels"
        )
        log.warning(SpaceliteError(problem, ["label_column"]))


def texts_are(names: Sequence[str]) -> str:
    """In which columns the texts are, as messages say it."""
    if len(names) == 1:
        return f"the texts are column {names[0]!r}"
    return f"the texts are pairs of the columns {' and '.join(map(repr, names))}"


def with_texts(table: Table, names: Sequence[str], skip_empty: bool = False) -> Table:
    """The table, whose texts are columns of these names; with `skip_empty`, without the rows in
    which one is empty."""
    of_columns: dict[str, npt.NDArray[np.bool_]] = {}
    for name in names:
        texts, later = table.column(name), skip_empty or len(names) > 1
        check_texts(table.origin, name, texts, table.row_numbers, skip_empty=later)
        if later:
            has = (text is not None and bool(text.strip()) for text in texts)
            of_columns[name] = np.fromiter(has, bool, len(table))
    filled = np.logical_and.reduce([np.ones(len(table), bool), *of_columns.values()])
    if filled.all():
        return table
    if not skip_empty:
        rows = table.row_numbers[~filled]
        halves = [f"{name!r}: {(~of).sum():,}" for name, of in of_columns.items() if not of.all()]
        have, them = ("pair lacks", "it") if len(rows) == 1 else ("pairs lack", "them")
        raise SpaceliteError(
            f"{table.origin}: {len(rows):,} {have} a text (empty {', '.join(halves)}), the first "
            f"in row {rows[0]:,}: correct or remove {them}, name other columns with text_column, "
            "or give skip_empty=True",
            ["text_column", "skip_empty"],
        )
    empty = table.row_numbers[~filled]
    left = f"{len(empty):,} row{' is' if len(empty) == 1 else 's are'} left out"
    why = "because the text is empty" if len(names) == 1 else "because one of the texts is empty"
    log.info("%s: %s, %s (%s)", table.origin, left, why, _rows(empty))
    if not filled.any():
        raise SpaceliteError(
            f"{table.origin}: every row has an empty text: there is nothing to read"
        )
    return table.take(np.flatnonzero(filled))


def check_texts(
    origin: str,
    column: str,
    texts: Iterable[Any],
    row_numbers: Iterable[int] | None = None,
    *,
    refuse_numbers: bool = True,
    skip_empty: bool | None = None,
) -> int:
    """Check that all texts of a column are strings that are not empty, and return their number.

    Messages name rows by `row_numbers`, by default from 1. `skip_empty` is True if empty texts are
    left out later, and False if they could be, which the message then says.
    """
    no_string: list[int] = []
    empty: list[int] = []
    rows, numbers = 0, refuse_numbers
    numbers_of = itertools.count(1) if row_numbers is None else row_numbers
    for row, text in zip(numbers_of, texts, strict=False):
        rows += 1
        if text is None or (type(text) is str and not text.strip()):
            empty.append(row)
        elif type(text) is not str:
            no_string.append(row)
        elif not text.isascii() and SURROGATE.search(text):
            raise SpaceliteError(
                f"{origin}: row {rows:,} has a {column!r} that is not valid Unicode: correct or "
                "remove it"
            )
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


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or what pandas has for these."""
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):  # pandas.NA has no truth value, and arrays have several
        return not np.ndim(value)


def as_pair(value: Any) -> Any:
    """A list, tuple or array of two as a pair of texts; other values as they are."""
    two = isinstance(value, list | tuple | np.ndarray) and len(value) == 2
    return Pair(*value) if two else value


def text_problem(text: Any, *, of_pairs: bool = False) -> str:
    """Why a value is no text to embed, or, `of_pairs`, no pair of them, and what to do about it; ""
    for a text."""
    if isinstance(text, Pair) != of_pairs:
        if of_pairs and not is_missing(text):
            return "is no pair of texts: give two for each example"
        if not of_pairs:
            return "is a pair of texts: give a single text for each example"
    elif isinstance(text, Pair):
        problems = zip(("first", "second"), map(text_problem, text), strict=True)
        return next((f"is a pair whose {which} text {why}" for which, why in problems if why), "")
    if is_missing(text):
        return f"is missing ({text!r}): leave it out"
    if not isinstance(text, str):
        hint = " (text.decode() makes one of bytes)" if isinstance(text, bytes) else ""
        return f"is no string but of the type {type(text).__name__}: give strings{hint}"
    if half := SURROGATE.search(text):
        return (
            f"is not valid Unicode: its character {half.start() + 1} is half of a pair "
            f"(U+{ord(half[0]):04X}); read the text again as UTF-8, or remove it"
        )
    return "" if text.strip() else "is empty: give at least a word, or leave it out"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def label_values(table: Table, split: str, column: str, separator: str | None) -> Labelled:
    """The labels of the rows of a split, none missing; in a multi-label data set their values are
    lists. With a separator, an empty string is no label."""
    values, index = distinct(table.column(column))
    numbers = table.row_numbers
    missing = [
        value is None
        or value != value
        or (isinstance(value, str) and not value.strip() and separator is None)
        for value in values
    ]
    if any(missing):
        strings = " ".join(value for value in values if isinstance(value, str))
        marks = [mark for mark in SEPARATORS if mark in strings]
        way_out = f" ({NO_LABEL.format(marks[0])})" if marks else ""
        if any(isinstance(value, list) for value in values):
            way_out = f" ({LISTS})"
        without = numbers[np.array(missing)[index]]
        _refuse_rows(table.origin, without, f"no {column!r}", "label_column", way_out)
    are_lists = [isinstance(value, list) for value in values]
    if not all(are_lists) and any(isinstance(value, list | dict) for value in values):
        raise SpaceliteError(
            f"{table.origin}: column {column!r} holds records, or lists in some rows only: give a "
            "label for each text, or a list of labels for each text, [] for none (or name another "
            "column with label_column)",
            ["label_column"],
        )
    of_split = np.full(len(table), SPLITS.index(split), np.int8)
    return Labelled(values, index, of_split, numbers)


def listed(names: Sequence[str], most: int) -> str:
    """Names as messages list them: `5`, `5 and 7`, `5, 7, 9 and 20 more`."""
    shown = [*names[:most], *([f"{len(names) - most:,} more"] if len(names) > most else [])]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def and_more(found: Sized) -> str:
    """What a message says after the first of what was found: ` (and 3 more)`."""
    return f" (and {len(found) - 1:,} more)" if len(found) > 1 else ""


def _rows(rows: Sequence[int] | Rows) -> str:
    named = listed([*map(str, rows)], ROWS_NAMED)
    return f"row{'s' if len(rows) > 1 else ''} {named}"


def _refuse_rows(
    origin: str, rows: Sequence[int] | Rows, problem: str, argument: str, way_out: str = ""
) -> None:
    have, them = ("has", "it") if len(rows) == 1 else ("have", "them")
    raise SpaceliteError(
        f"{origin}: {_rows(rows)} {have} {problem}: correct or remove {them}, or name "
        f"another column with {argument}{way_out}",
        [argument, "skip_empty", "label_separator"],
    )


# Label values -> numbered labels and their names.


def _each(values: list[Any], convert: Callable[[Any], Any]) -> list[Any]:
    """The labels converted; those of a list one by one."""
    return [
        _each(value, convert) if isinstance(value, list) else convert(value) for value in values
    ]


def as_text(labels: Labelled, *, named: bool) -> Labelled:
    """Labels as they are written. Where the names of labels 0, 1, ... are known (`named`), numbers
    stay numbers, which stand for these names."""

    def convert(value: Any) -> Any:
        if named or isinstance(value, str | bytes | dict | None):
            return value
        return str(value).lower() if isinstance(value, bool) else str(value)

    return replace(labels, values=_each(labels.values, convert))


def stripped(labels: Labelled, name: str) -> Labelled:
    """Labels without surrounding spaces; that some had any is a warning."""
    changed: list[str] = []

    def convert(value: Any) -> Any:
        if not isinstance(value, str) or value == value.strip():
            return value
        changed.append(value)
        return value.strip()

    plain, rows = list[Any](), 0
    for value, count in zip(labels.values, labels.counts, strict=True):
        before = len(changed)
        plain += _each([value], convert)
        rows += count * (len(changed) - before)
    if changed:
        _warn(
            f"{name}: labels are read without the spaces around them, {changed[0]!r} as "
            f"{changed[0].strip()!r}{and_more(range(rows))}: labels_as='text' keeps them"
        )
    return replace(labels, values=plain)


def _warn(message: str) -> None:
    """Log a warning that names `labels_as`."""
    log.warning(SpaceliteError(message, ["labels_as"]))


def as_numbers(labels: Labelled, name: str) -> Labelled:
    """Labels as numbers, if all that are strings are numbers: in csv files every label is a string.
    Two labels that would become one number, such as 01 and 1, are refused."""
    values = labels.values
    strings = {value for value in values if isinstance(value, str)}
    plain = {value for value in strings if re.fullmatch(NUMBER, value)}
    other = sorted(value for value in strings - plain if re.search(r"\d", value))
    if other and len(plain) + len(other) == len(strings) and all(map(_is_number, other)):
        _warn(
            f"{name}: labels such as {other[0]!r} are read as text, and so are all others: numbers "
            "are written with the digits 0 to 9 and a point"
        )
        return labels
    if all(re.fullmatch(WHOLE, value) for value in strings):
        number_of: dict[str, float] = {value: int(value.split(".")[0]) for value in strings}
    elif all(re.fullmatch(FRACTION, value) for value in strings):
        number_of = {value: float(value) for value in strings}
    else:
        return labels
    converted = [number_of[value] if isinstance(value, str) else value for value in values]
    _check_spellings(values, converted, name)
    return replace(labels, values=converted)


def _check_spellings(values: list[Any], converted: list[Any], name: str) -> None:
    """Refuse labels that are written differently and would become one number. 1, +1 and 1.0 are one
    number, which is said, as is what else a number does not keep, such as the zeros of 007."""
    written: dict[int, set[str]] = defaultdict(set)
    for value, number in zip(values, converted, strict=True):
        if type(number) is int:
            written[number].add(str(value))
    for number, spellings in sorted(written.items()):
        if len(spellings) == 1:
            continue
        first, second = sorted(spellings)[:2]
        if len({re.sub(r"^\+|\.0+$", "", spelling) for spelling in spellings}) > 1:
            raise SpaceliteError(
                f"{name}: the labels {first!r} and {second!r} would become one number, {number}: "
                "give labels_as='text' to keep them apart, or write them alike",
                ["labels_as"],
            )
        _warn(
            f"{name}: the labels {first!r} and {second!r} are one number, {number}: give "
            "labels_as='text' to keep them apart"
        )
    lost = [
        (spelling, number)
        for number, (spelling, *others) in sorted(written.items())
        if not others and spelling != str(number)
    ]
    if lost:
        spelling, number = lost[0]
        _warn(
            f"{name}: labels are read as numbers, {spelling!r} as {number}{and_more(lost)}: "
            "labels_as='text' keeps them as they are written"
        )


def is_fraction(value: Any) -> bool:
    """Whether a label is a number that is not whole, or the text of one."""
    if isinstance(value, str):
        return bool(re.fullmatch(NUMBER, value.strip())) and not float(value).is_integer()
    return isinstance(value, float) and math.isfinite(value) and not value.is_integer()


def task_of_numbers(
    labels: Labelled,
    reading: Reading,
    class_names: Sequence[str],
    name: str,
    *,
    training: bool = True,
) -> str | None:
    """The task whose labels are numbers to predict, and not classes: the one that is named, else
    the first if all labels are numbers and one is not whole. None for classes, such as FEW that a
    file writes as 1.5 and 2, and whole numbers. What was not named is a warning, which Python shows
    too; of whole numbers if there are more than two, in data for `training`.
    Raises SpaceliteError if the task that is named does not fit."""
    used = [value for value, count in zip(labels.values, labels.counts, strict=True) if count]
    if reading.task is not None:
        if not TASKS[reading.task].of_numbers:
            return None
        for option in ("labels_as", "label_separator"):
            if (value := getattr(reading, option)) != getattr(Reading, option):
                raise SpaceliteError(
                    f"{option}={value} has no effect on numbers (task={reading.task}): leave one "
                    "of them out",
                    [option, "task"],
                )
        if class_names:
            raise SpaceliteError(
                f"task={reading.task}: the labels of {name} are classes "
                f"({', '.join(class_names)}): leave task out, or name another column with "
                "label_column",
                ["task", "label_column"],
            )
        return reading.task
    if reading.labels_as == "text" or reading.label_separator is not None or class_names:
        return None
    numbers = [
        not isinstance(value, bool)
        and (isinstance(value, int | float) or bool(re.fullmatch(NUMBER, str(value).strip())))
        for value in used
    ]
    first = next(filter(is_fraction, used), None)
    known = next((task.name for task in TASKS.values() if task.of_numbers), None)
    if known is None or not all(numbers):
        return None
    if first is None:
        if training and len({float(value) for value in used}) > 2:
            hint = (
                f"{name}: the labels are whole numbers, {len(used)} different ones, which become "
                f"classes: task={known!r} predicts them as numbers, task='ordinal' as whole "
                "numbers whose order counts"
            )
            log.warning(SpaceliteError(hint, ["task"]))
        return None
    written = [value.strip() for value in used if isinstance(value, str)]
    if len(used) <= FEW and not all(re.fullmatch(FRACTION, value) for value in written):
        hint = (
            f"{name}: its {len(used)} different labels are read as classes; task={known!r} "
            "predicts them as numbers"
        )
        log.warning(SpaceliteError(hint, ["task"]))
        return None
    hint = (
        f"{name}: labels such as {first} are numbers, which heads learn to predict "
        f"(task={known!r}); labels_as='text' makes classes of them"
    )
    log.warning(SpaceliteError(hint, ["task", "labels_as"]))
    return known


def targets(labels: Labelled, task: Task, name: str) -> npt.NDArray[np.float64]:
    """The numbers of N rows, (N,). Raises SpaceliteError, which names the row, for what is no
    number of the task."""
    numbers = np.empty(len(labels.values))
    for at, (value, count) in enumerate(zip(labels.values, labels.counts, strict=True)):
        try:
            is_text = isinstance(value, str)
            if isinstance(value, bool | list) or (
                is_text and not re.fullmatch(f"{NUMBER}|[+-]?(nan|inf)", value.strip(), re.I)
            ):
                raise ValueError(value)
            numbers[at] = float(value)
            problem = task.problem_of(numbers[at])
        except (TypeError, ValueError, OverflowError):
            problem = "which is not a number"
            if is_text and re.fullmatch(WITH_COMMA, value.strip()):
                problem = f"whose comma must be a point ({value.strip().replace(',', '.')})"
        if problem and count:
            example = int(np.flatnonzero(labels.index == at)[0])
            split = SPLITS[labels.split[example]]
            raise SpaceliteError(
                f"{name} {split}: row {labels.row[example]:,} has label {str(value)[:40]!r}, "
                f"{problem}: correct or remove it, or name another column with label_column",
                ["label_column"],
            )
    return numbers[labels.index]


def classes(
    labels: Labelled,
    reading: Reading,
    class_names: Sequence[str],
    name: str,
    *,
    required: bool = True,
) -> tuple[Labels, tuple[str, ...]]:
    """The numbered classes of N rows, and their names, as `numbered` returns them. If `required`,
    a separator that is given occurs in a label."""
    if reading.label_separator is not None:
        labels = divided(labels, reading.label_separator, name, required=required)
    if reading.labels_as == "text":
        labels = as_text(labels, named=bool(class_names))
    else:
        labels = stripped(labels, name)
        refuse_joined(labels, name)
        refuse_missing_words(labels, name)
        labels = as_numbers(labels, name)
    numbers, names = numbered(labels, class_names, name)
    warn_of_similar(names, name)
    found = find_task(None, numbers)
    if reading.task not in (None, found.name):
        raise SpaceliteError(
            f"task={reading.task}: {name} is a data set of {found.phrase}: leave task out, or name "
            "another column with label_column",
            ["task", "label_column"],
        )
    return numbers, names


def divided(labels: Labelled, separator: str, name: str, *, required: bool = True) -> Labelled:
    """The labels of each string, whose parts are separated; if `required`, at least once."""
    values = labels.values
    if not all(isinstance(value, str) for value in values):
        raise SpaceliteError(
            f"label_separator={separator!r}: the labels of {name} are not strings: leave it out",
            ["label_separator"],
        )
    if required and not any(separator in value for value in values):
        raise SpaceliteError(
            f"label_separator={separator!r}: no label of {name} contains it: leave it out, or give "
            "the one that the labels have",
            ["label_separator"],
        )
    parts = [[*filter(None, map(str.strip, value.split(separator)))] for value in values]
    return replace(labels, values=parts)


def refuse_joined(labels: Labelled, name: str) -> None:
    """Raise SpaceliteError if most labels with a comma, semicolon or bar consist of labels that
    occur elsewhere too, as `joy,fear` beside `joy` and `fear, anger`: they are several labels in
    one string."""
    strings = {value for value in labels.values if isinstance(value, str)}
    commas = sorted(label for label in strings if re.fullmatch(WITH_COMMA, label))
    if commas and all(re.fullmatch(f"{NUMBER}|{WITH_COMMA}", label) for label in strings):
        raise SpaceliteError(
            f"{name}: labels such as {commas[0]!r} have a comma: numbers are written with a point "
            f"({commas[0].replace(',', '.')}); give label_separator=',' if they are several labels "
            "each, or labels_as='text' if each is one",
            ["label_separator", "labels_as"],
        )
    for separator in SEPARATORS:
        parts = {label: [part.strip() for part in label.split(separator)] for label in strings}
        count = Counter(part for label in strings for part in set(parts[label]))
        joined = sorted(label for label in strings if len(parts[label]) > 1)
        known = [label for label in joined if all(count[part] > 1 for part in parts[label])]
        if known and len(known) > len(joined) / 2:
            raise SpaceliteError(
                f"{name}: labels such as {known[0]!r} are several labels in one string: give "
                f"label_separator={separator!r} to separate them, or labels_as='text' if each is "
                "one label",
                ["label_separator", "labels_as"],
            )


def refuse_missing_words(labels: Labelled, name: str) -> None:
    """Raise SpaceliteError if all labels are numbers but for a word such as `nan`."""
    count = Counter[str]()
    for value, rows in zip(labels.values, labels.counts, strict=True):
        if isinstance(value, str):
            count[value] += rows
    words = [label for label in count if label.lower() in MISSING]
    numbers = [label for label in count if re.fullmatch(f"{WHOLE}|{FRACTION}", label)]
    if words and numbers and len(words) + len(numbers) == len(count):
        raise SpaceliteError(
            f"{name}: the labels are numbers, but for {words[0]!r} in "
            f"{count[words[0]]:,} rows: correct or remove these, or give labels_as='text' if it is "
            "a label",
            ["labels_as"],
        )


def warn_of_similar(names: Sequence[str], name: str) -> None:
    """Log a warning for labels that differ only in case or in surrounding spaces."""
    similar: dict[str, list[str]] = defaultdict(list)
    for label in names:
        similar[label.strip().casefold()].append(label)
    for labels in similar.values():
        if len(labels) > 1:
            log.warning(
                "%s: the labels %s differ only in case or surrounding spaces: they count as "
                "different labels; correct them if they are meant to be one",
                name, " and ".join(map(repr, labels)),
            )  # fmt: skip


def numbered(
    labels: Labelled, class_names: Sequence[str], name: str
) -> tuple[Labels, tuple[str, ...]]:
    """Number the labels of N rows of all splits, as the known `class_names` are or else in sorted
    order.

    Returns the labels, (N,) int64 of 0..C-1, or (N, C) int64 of 0 and 1 if the values are lists,
    and the C label names.
    """
    values, rows = labels.values, len(labels.index)
    are_lists = [isinstance(value, list) for value in values]
    if any(are_lists):
        if not all(are_lists):
            raise SpaceliteError(
                f"{name}: some rows have a list of labels, others a single one: give lists only"
            )
        return _multi_label(labels, class_names, name)
    different = set(values)
    if len(different) > 50 and len(different) > rows / 2:
        raise SpaceliteError(
            f"{name}: {len(different):,} different labels in {rows:,} rows are not "
            "classes: name another column with label_column, or give task='regression' if they "
            "are numbers to predict",
            ["label_column", "task"],
        )
    order: Sequence[Any]
    kinds = sorted({type(value).__name__ for value in values})
    if kinds == ["str"]:
        known = class_names if set(class_names) >= different else ()
        order = names = tuple(known or sorted(different))
    elif kinds == ["bool"]:
        order, names = (False, True), ("false", "true")
    elif {"str", "bool"} & {*kinds}:
        raise SpaceliteError(
            f"{name}: labels of mixed types ({', '.join(kinds)}): use one type, or give "
            "labels_as='text'",
            ["labels_as"],
        )
    else:
        _check_whole(labels, name, named=bool(class_names))
        order = sorted({int(value) for value in different})
        if order[0] < 0:
            log.info(
                "%s: %d is a label like the others; if it marks missing labels, remove these rows",
                name, order[0],
            )  # fmt: skip
        names = tuple(class_names) or tuple(map(str, order))
        if class_names:
            if order[-1] >= len(class_names):
                raise SpaceliteError(
                    f"{name} has label {order[-1]}, but its labels are 0 to {len(names) - 1} "
                    f"({', '.join(names)})"
                )
            order = range(len(class_names))
    number = {value: i for i, value in enumerate(order)}
    return np.array([number[value] for value in values], np.int64)[labels.index], names


def _check_whole(labels: Labelled, name: str, *, named: bool) -> None:
    """Raise SpaceliteError unless all label values are whole numbers. A negative one is a label
    where every split has some beside others; elsewhere it marks hidden or missing labels, as it
    does where labels 0, 1, ... are `named`."""
    whole = np.array(
        [
            isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            for value in labels.values
        ]
    )
    negative = np.array([isinstance(of, int | float) and of < 0 for of in labels.values])
    splits = [labels.take(labels.split == number) for number in np.unique(labels.split)]
    negative_labels = not named and all(
        len({labels.values[number] for number in np.unique(part.index)}) > 1
        and negative[part.index].any()
        for part in splits
    )
    for part in splits:
        wrong = np.flatnonzero((~whole | (negative & (not negative_labels)))[part.index])
        if not len(wrong):
            continue
        number, row = part.index[wrong[0]], part.row[wrong[0]]
        value, split = labels.values[number], SPLITS[part.split[0]]
        if not whole[number]:
            raise SpaceliteError(
                f"{name} {split}: row {row} has label {value!r}: classes need whole "
                "numbers or strings (or name another column with label_column, or give "
                "labels_as='text')",
                ["label_column", "labels_as"],
            )
        count = int(negative[part.index].sum())
        way_out = "the whole split"
        if not named and count < len(part.index):
            way_out = "give labels_as='text' if it is a label that another split lacks"
        raise SpaceliteError(
            f"{name} {split}: row {row} has label {int(value)}, which marks a hidden "
            f"or missing label ({count} such rows): remove them, or {way_out}",
            ["labels_as"] if "labels_as" in way_out else [],
        )


def _multi_label(
    labels: Labelled, class_names: Sequence[str], name: str
) -> tuple[Labels, tuple[str, ...]]:
    lists = labels.values
    flat = list(itertools.chain.from_iterable(lists))
    if not flat:
        raise SpaceliteError(
            f"{name}: no text has a label: name another column with label_column", ["label_column"]
        )
    if any(label is None or isinstance(label, list | dict) for label in flat):
        raise SpaceliteError(
            f"{name}: its lists hold records or missing values: give lists of numbers or strings, "
            "[] for a text without a label"
        )
    lengths = np.array([*map(len, lists)])
    (count, *others) = {*lengths.tolist()}
    if not others and count != 1 and {*flat} <= {0, 1}:
        # One column of zeros and ones (or booleans) per label.
        names = tuple(class_names) if len(class_names) == count else tuple(map(str, range(count)))
        return np.array(lists, np.int64)[labels.index], names
    # The labels of all rows end to end: each stands in `flat` at its row's first one, and further.
    of_row = lengths[labels.index]
    owner = np.repeat(np.arange(len(of_row)), of_row)
    first = (np.cumsum(lengths) - lengths)[labels.index] - (np.cumsum(of_row) - of_row)
    values, index = distinct(flat)
    every = replace(
        labels.take(owner), values=values, index=index[first[owner] + np.arange(len(owner))]
    )
    numbers, names = numbered(every, class_names, name)
    labels_of_rows = np.zeros((len(of_row), len(names)), np.int64)
    labels_of_rows[owner, numbers] = 1
    return labels_of_rows, names
