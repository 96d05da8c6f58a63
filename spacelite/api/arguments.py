"""Arguments of the public functions: which values each takes, and what is said about others.

Only the kind of a value is checked here, and converted where that is harmless: a path for a
string, numpy's numbers for Python's. Whether a folder exists or a number is in range is checked
where it is used.
"""

from __future__ import annotations

import functools
import inspect
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from spacelite.data import loading
from spacelite.data.columns import as_pair
from spacelite.data.splits import VALIDATION_SHARE
from spacelite.errors import SpaceliteError
from spacelite.files import bytes_of
from spacelite.settings import BOOLEANS, choose_from, suggestion
from spacelite.visible import as_meant

LONGEST_NAME = 255  # of one file or folder, on every system in use

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Kind:
    """A kind of value: what messages say is needed, and how it is read. `read` raises TypeError for
    another kind, and ValueError with what is needed for a value that cannot be used."""

    needed: str
    read: Callable[[Any], Any]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise TypeError(value)
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it is not valid Unicode: give another string") from error
    return value


def _path(value: Any) -> str:
    path = os.fspath(value)
    if not isinstance(path, str) or not path or "\0" in path:
        raise TypeError(value)
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in Path(path).parts):
        raise ValueError(f"names of files and folders have at most {LONGEST_NAME} characters")
    return path


def _whole_number(value: Any) -> int:
    if type(value).__name__ in BOOLEANS:
        raise TypeError(value)
    return operator.index(value)


def _whole_numbers(value: Any) -> int | list[int]:
    """A whole number, or a list of them."""
    try:
        return _whole_number(value)
    except TypeError:
        if isinstance(value, str | bytes | set | frozenset) or hasattr(value, "keys"):
            raise  # a set has no order
        return [_whole_number(item) for item in value]


def _flag(value: Any) -> bool:
    if type(value).__name__ not in BOOLEANS:
        raise TypeError(value)
    return bool(value)


def _names(value: Any) -> list[str]:
    names = [value] if isinstance(value, str) else list(value)
    return [_string(name) for name in names]


def _conditions(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise TypeError(value)
    return dict(value)


def _size(value: Any) -> int:
    """A number of bytes: a whole number, or one with a unit such as `500MB`."""
    number = _whole_number(value) if not isinstance(value, str) else bytes_of(value)
    if number < 1:
        raise TypeError(value)
    return number


def _shard(value: Any) -> tuple[int, int]:
    """The number of a shard, from 1, and of all of them: `3/8`."""
    numbers = re.fullmatch(r"(\d{1,9})/(\d{1,9})", _text(value))
    number, count = (int(part) for part in numbers.groups()) if numbers else (0, 0)
    if not 1 <= number <= count:
        raise TypeError(value)
    return number, count


def _label(value: Any) -> str:
    """A label's name. Labels that are whole numbers have their digits as names, and those that are
    True and False `true` and `false`."""
    if type(value).__name__ in BOOLEANS:
        return str(bool(value)).lower()
    return _text(value) if isinstance(value, str) else str(operator.index(value))


def _pairs(value: Any) -> dict[str, str] | list[str]:
    """The labels of other data and what they mean: a dictionary, or pairs "data=run". None is no
    label."""
    if isinstance(value, Mapping):
        return {
            _label(theirs): "" if ours in (None, "") else _label(ours)
            for theirs, ours in value.items()
        }
    return [_text(pair) for pair in ([value] if isinstance(value, str) else list(value))]


def _column(value: Any) -> str:
    """A column's name. The columns of a DataFrame may have numbers for names."""
    return _text(value) if isinstance(value, str) else str(_whole_number(value))


def _text_columns(value: Any) -> str | tuple[str, ...]:
    """A column's name, or the names of two, those of pairs."""
    return tuple(map(_column, value)) if isinstance(value, list | tuple) else _column(value)


def _values(value: Any) -> list[Any] | str:
    """A value of each example, or the name of the column that holds them."""
    if isinstance(value, str):
        return _text(value)
    if not is_list(value):
        raise TypeError(value)
    return list(value)


def fraction(limit: float) -> Callable[[Any], float]:
    """A reader of numbers above 0 and below `limit`."""

    def read(value: Any) -> float:
        if isinstance(value, str | bytes | bool) or not 0 < float(value) < limit:
            raise TypeError(value)
        return float(value)

    return read


NAME = Kind("give a name (a string)", _text)
STRING = Kind("give a string", _string)
CHOICE = Kind("give a name (a string)", _string)  # one of those that its function then lists
REPOSITORY = Kind("give the name of a repository on the hub, OWNER/NAME", _text)
NAME_OR_PATH = Kind("give a name or a path", _path)
PATH = Kind("give the path of a folder", lambda value: Path(_path(value)))
FILE = Kind("give the path of a file", lambda value: Path(_path(value)))
SOURCE = Kind("give the path of a file or a folder", lambda value: Path(_path(value)))
WHOLE_NUMBER = Kind("give a whole number", _whole_number)
WHOLE_NUMBERS = Kind("give a whole number or a list of them", _whole_numbers)
FLAG = Kind("give True or False", _flag)
NAMES = Kind("give a name or a list of names", _names)
COLUMN = Kind("give the name of a column", _column)
TEXT_COLUMNS = Kind("give the name of a column, or of two (pairs of texts)", _text_columns)
LABELS = Kind('give {"their label": "the run\'s label"}, or a list of "theirs=the run\'s"', _pairs)

# Argument -> its kind in every function that has no other kind for it.
KINDS: dict[str, Kind] = {
    **dict.fromkeys(("revision", "name", "label_separator"), NAME),
    **dict.fromkeys(("dtype", "padding", "preset", "metric", "split", "labels_as"), CHOICE),
    **dict.fromkeys(("quoting", "task", "loss"), CHOICE),
    **dict.fromkeys(("head", "compare"), NAMES),
    **dict.fromkeys(("cache_dir", "data_dir"), PATH),
    **dict.fromkeys(("path", "file", "out"), FILE),
    "text_column": TEXT_COLUMNS,
    **dict.fromkeys(("label_column", "split_column", "file_column"), COLUMN),
    **dict.fromkeys(
        ("limit", "max_length", "layer", "stride", "tokens_per_batch", "total"), WHOLE_NUMBER
    ),
    **dict.fromkeys(("folds", "repeats", "seed"), WHOLE_NUMBER),
    **dict.fromkeys(("layers", "examples", "baselines", "search", "drop_leaks", "windows"), FLAG),
    **dict.fromkeys(("reuse", "replace", "resume", "fresh", "skip_empty", "skip_first"), FLAG),
    **dict.fromkeys(("bfloat16", "causal", "private", "dry_run"), FLAG),
    "array": NAME,
    "shard_size": Kind("give a number of bytes, or a size such as 2GB or 500MB", _size),
    "shard": Kind("give the number of a shard and of all of them, such as 3/8", _shard),
    "reduce": Kind(
        "give a whole number, or 'auto'",
        lambda value: value if isinstance(value, str) and value == "auto" else _whole_number(value),
    ),
    "backbone": NAME_OR_PATH,
    "device": Kind("give 'auto', 'cpu' or 'cuda'", _text),
    "example": replace(
        NAME, needed="give the split and the number of an example: example='test:17'"
    ),
    "label": Kind("give a label's name, or its number", _label),
    "groups": Kind(
        "give a list with the group of each row or training example, or the name of a column",
        _values,
    ),
    "sample_weight": Kind(
        "give a list with the weight of each row or training example, or the name of a column",
        _values,
    ),
    # Some texts are left for training.
    "test_fraction": Kind(
        f"give a number between 0 and {1 - VALIDATION_SHARE:g}", fraction(1 - VALIDATION_SHARE)
    ),
    "where": Kind('give {"setting": value}', _conditions),
    "progress": Kind(
        "give True, False or a function of (phase, done, total)",
        lambda value: value if callable(value) else _flag(value),
    ),
}


def is_list(value: Any) -> bool:
    """Whether a value holds others, one after another. A dictionary and a DataFrame hold names."""
    is_table = hasattr(value, "keys") and not hasattr(value, "tolist")
    return hasattr(value, "__iter__") and not (is_table or isinstance(value, str | bytes | type))


def stream_of_texts(
    texts: Any, text_column: str | Sequence[str] | None = None, remembered: str | None = None
) -> Iterable[Any]:
    """One text, or those of a DataFrame, a `datasets.Dataset`, a list, an array, a Series or a
    generator, where two texts are a pair. Raises SpaceliteError for others, such as dictionaries,
    whose items are names, and if a column is named of what has none."""
    if isinstance(texts, os.PathLike) or (isinstance(texts, str) and os.path.isfile(texts)):  # noqa: PTH113 - Path's own raises
        raise SpaceliteError(
            f"{os.fspath(texts)} is a file: read it and give its texts (to classify the name "
            "itself, give it in a list)"
        )
    if isinstance(texts, str):
        texts = [texts]
    elif (of_column := loading.texts_of(texts, text_column, remembered)) is not None:
        return of_column
    if text_column is not None:
        raise SpaceliteError(
            f"text_column={text_column!r}: the texts are no DataFrame and no datasets.Dataset, and "
            "have no columns: leave it out",
            ["text_column"],
        )
    if not is_list(texts):
        raise SpaceliteError(
            "texts must be a list or a column of strings, a DataFrame or a datasets.Dataset, not a "
            f"{type(texts).__name__}"
        )
    return map(as_pair, texts)


def known_label(label: str, names: Sequence[str]) -> str:
    """The one of a run's labels that is meant. Raises SpaceliteError if there is none."""
    meant = as_meant(label, names)
    if meant not in names:
        raise SpaceliteError(f"label={label}: {choose_from(label, names)}", ["label"])
    return meant


def checked(**kinds: Kind) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Check a function's arguments when it is called, and convert them; not those that are left out
    or given as their default. Arguments without a kind here or in KINDS the function checks."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                bound = parameters.bind(*args, **kwargs)
            except TypeError as error:
                problem = _unknown(kwargs, parameters) or error
                raise TypeError(f"{function.__qualname__}() {problem}") from None
            for name, value in bound.arguments.items():
                kind = kinds.get(name) or KINDS.get(name)
                if kind is not None and value is not parameters.parameters[name].default:
                    bound.arguments[name] = read(name, value, kind)
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


def _unknown(given: Iterable[str], signature: inspect.Signature) -> str:
    """What is wrong with keyword arguments that a function does not have; "" if there are none."""
    known = signature.parameters
    unknown = next((name for name in given if name not in known), None)
    if unknown is None or any(each.kind == each.VAR_KEYWORD for each in known.values()):
        return ""
    meant = suggestion(unknown, known)
    did_you = f" (did you mean {meant!r}?)" if meant else ""
    return f"got an unexpected keyword argument {unknown!r}{did_you}"


def read(name: str, value: Any, kind: Kind) -> Any:
    """An argument's value as the library uses it. Raises SpaceliteError for another kind."""
    try:
        return kind.read(value)
    except TypeError as error:
        raise unusable(name, value, kind.needed) from error
    except ValueError as error:
        raise unusable(name, value, str(error)) from error


def unusable(name: str, value: Any, needed: str) -> SpaceliteError:
    """The error about a value of the wrong kind: `limit='5': give a whole number`."""
    shown = repr(value) if isinstance(value, _SHOWN) else ""
    if not shown:
        return SpaceliteError(
            f"{name}: {needed}, not a value of type {type(value).__name__}", [name]
        )
    shown = shown if len(shown) <= 60 else f"{shown[:59]}…"
    return SpaceliteError(f"{name}={shown}: {needed}", [name])


_SHOWN = (str, bytes, int, float, list, tuple, set, Mapping, Path, type(None))
