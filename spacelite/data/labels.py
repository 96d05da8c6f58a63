"""Label values -> numbered labels and their names."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.data.columns import LISTS
from spacelite.errors import SpaceliteError

log = logging.getLogger(__name__)

Labels = npt.NDArray[np.int64]
Values = Mapping[str, Sequence[Any]]  # the label values by split

WHOLE, FRACTION = r"[+-]?\d+(\.0+)?", r"[+-]?\d*\.\d+"


def as_text(values: Values, *, named: bool) -> dict[str, list[Any]]:
    """Labels as they are written. Where the names of labels 0, 1, ... are known (`named`), numbers
    stay numbers, which stand for these names."""

    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [convert(each) for each in value]
        if isinstance(value, bool) and not named:
            return str(value).lower()
        return value if named or isinstance(value, str | bytes | dict | None) else str(value)

    return {split: [convert(value) for value in own] for split, own in values.items()}


def as_numbers(values: Values, name: str) -> dict[str, list[Any]]:
    """Labels as numbers, if all that are strings are numbers: in csv files every label is a string.

    Args:
        values: The label values by split.
        name: The data set's name, for messages.

    Raises:
        SpaceliteError: Two labels, such as 01 and 1, would become one number.
    """
    converted = {split: list(own) for split, own in values.items()}
    for split, own in values.items():
        if not all(isinstance(value, str) for value in own):
            continue
        for pattern, convert in ((WHOLE, _whole), (FRACTION, float)):
            if all(re.fullmatch(pattern, value) for value in own):
                converted[split] = [convert(value) for value in own]
                break
        else:
            if all(isinstance(value, str) for every in values.values() for value in every):
                return {split: list(own) for split, own in values.items()}
    _check_spellings(values, converted, name)
    return converted


def _whole(text: str) -> int:
    return int(text.split(".")[0])


def _check_spellings(values: Values, converted: Values, name: str) -> None:
    """Refuse labels that are written differently and would become one number; 1, +1 and 1.0 are one
    number, which is said."""
    written: dict[int, set[str]] = defaultdict(set)
    for split, own in values.items():
        for value, number in zip(own, converted[split], strict=True):
            if type(number) is int:
                written[number].add(str(value))
    for number, spellings in sorted(written.items()):
        if len(spellings) == 1:
            continue
        one, other = sorted(spellings)[:2]
        if len({re.sub(r"^\+|\.0+$", "", each) for each in spellings}) > 1:
            raise SpaceliteError(
                f"{name}: the labels {one!r} and {other!r} would become one number, {number}: give "
                "labels_as='text' to keep them apart, or write them alike",
                ["labels_as"],
            )
        log.warning(
            "%s: the labels %r and %r are one number, %d: give labels_as='text' to keep them apart",
            name, one, other, number,
        )  # fmt: skip


def refuse_joined(values: Values, name: str) -> None:
    """Raise SpaceliteError if most labels with a comma consist of labels that occur elsewhere too,
    as `joy,fear` beside `joy` and `fear, anger`: they are several labels in one string."""
    distinct = {value for own in values.values() for value in own if isinstance(value, str)}
    parts = {label: [part.strip() for part in label.split(",")] for label in distinct}
    count = Counter(part for own in parts.values() for part in set(own))
    joined = sorted(label for label, own in parts.items() if len(own) > 1)
    known = [label for label in joined if all(count[part] > 1 for part in parts[label])]
    if known and len(known) > len(joined) / 2:
        raise SpaceliteError(
            f"{name}: labels such as {known[0]!r} are several labels in one string: {LISTS} (as "
            "json or parquet, or in Python); or give labels_as='text' if each is one label",
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
    values: dict[str, list[Any]],
    class_names: Sequence[str],
    name: str,
    rows: Mapping[str, npt.NDArray[np.int64]],
) -> tuple[dict[str, Labels], tuple[str, ...]]:
    """Number the labels of all splits together.

    Args:
        values: Each split's label values, as `as_numbers` or `as_text` returns them.
        class_names: The names of labels 0..C-1 if they are known, else empty.
        name: The data set's name, for messages.
        rows: The index of each value's row, by split, for messages.

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
        return _multi_label(values, class_names, name, rows)
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
        raise SpaceliteError(
            f"{name}: labels of mixed types ({', '.join(kinds)}): use one type, or give "
            "labels_as='text'",
            ["labels_as"],
        )

    for split, numbers in values.items():
        for row, value in zip(rows[split].tolist(), numbers, strict=True):
            if not isinstance(value, int) and not (isinstance(value, float) and value.is_integer()):
                raise SpaceliteError(
                    f"{name} {split}: row {row + 1} has label {value!r}: classes need whole "
                    "numbers or strings (or name another column with label_column, or give "
                    "labels_as='text')",
                    ["label_column", "labels_as"],
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
    values: dict[str, list[Any]],
    class_names: Sequence[str],
    name: str,
    rows: Mapping[str, npt.NDArray[np.int64]],
) -> tuple[dict[str, Labels], tuple[str, ...]]:
    flat = {split: [label for row in rows for label in row] for split, rows in values.items()}
    every = [label for row in flat.values() for label in row]
    if not every:
        raise SpaceliteError(
            f"{name}: no text has a label: name another column with label_column", ["label_column"]
        )
    if any(label is None or isinstance(label, list | dict) for label in every):
        raise SpaceliteError(
            f"{name}: its lists hold records or missing values: give lists of numbers or strings, "
            "[] for a text without a label"
        )
    widths = {len(row) for rows in values.values() for row in rows}
    if len(widths) == 1 and widths != {1} and {*every} <= {0, 1}:
        # One column of zeros and ones (or booleans) per label.
        (count,) = widths
        names = tuple(class_names) if len(class_names) == count else tuple(map(str, range(count)))
        return {
            split: np.array(rows, np.int64).reshape(-1, count) for split, rows in values.items()
        }, names
    owners = {
        split: np.repeat(np.arange(len(own)), [len(row) for row in own])
        for split, own in values.items()
    }
    flat_rows = {split: rows[split][owner] for split, owner in owners.items()}
    numbers, names = numbered(flat, class_names, name, flat_rows)
    labels = {}
    for split, owner in owners.items():
        labels[split] = np.zeros((len(values[split]), len(names)), np.int64)
        labels[split][owner, numbers[split]] = 1
    return labels, names


def _int64(values: Iterable[int]) -> Labels:
    return np.fromiter(values, np.int64)
