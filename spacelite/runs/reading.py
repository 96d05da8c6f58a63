"""Reading the JSON files of runs: whatever is not of the type that a dataclass says is named.

In: a path, or a JSON value and the type that it should have. Out: a value of that type.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

# What a damaged file may raise while it is read.
UNREADABLE = (OSError, ValueError, OverflowError, RecursionError)
WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
LARGEST = 2**63 - 1


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        OSError: The file cannot be read.
        ValueError, RecursionError: It is not JSON in UTF-8, or holds a number that is not finite or
            a whole number of more than 64 bits.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("its text is not UTF-8") from None
    content = json.loads(text, parse_constant=_not_finite, parse_float=_number, parse_int=_whole)
    if "\\u" in text:  # half a character can be written as an escape, and never printed
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("it holds half of a character") from None
    return content


def _not_finite(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a finite number")


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(text)


def _whole(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > LARGEST:
        raise ValueError(f"{text[:20]}… is too large a number")
    return int(text)


def read(kind: Any, value: Any, name: str) -> Any:
    """A JSON value as a value of a type.

    Args:
        kind: `str`, `int`, `float`, `bool`, `None`, a dataclass, `tuple[X, ...]`, `list[X]`,
            `dict[str, X]` or a union of these; a value of any other type is returned as it is.
        value: The JSON value.
        name: What messages call the value: `metrics.test.accuracy`.

    Raises:
        ValueError: The value is of another type. The message names it.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (kind,) = [each for each in inner if each is not type(None)]
        return read(kind, value, name)
    if origin in (tuple, list):
        items = _of_type(list, value, name, "a list")
        return origin(read(inner[0], item, f"{name}[{at}]") for at, item in enumerate(items))
    if origin is dict:
        items = _of_type(dict, value, name, "an object")
        return {key: read(inner[1], item, f"{name}.{key}") for key, item in items.items()}
    if is_dataclass(kind):
        content = _of_type(dict, value, name, "an object")
        values = read_fields(kind, content, f"{name}.")
        return kind(**values)  # type: ignore[operator]
    if kind is float and type(value) is int:
        return float(value)
    return _of_type(kind, value, name, WORDS[kind]) if kind in WORDS else value


def read_fields(
    kind: Any, content: Mapping[str, Any], prefix: str = "", but: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The fields of a dataclass, by name, from a JSON object. A field that is missing takes its
    default; what is no field is left out.

    Args:
        kind: The dataclass.
        content: The JSON object.
        prefix: What messages write before the name of a field.
        but: Names of fields that are not read.

    Raises:
        ValueError: A field without a default is missing, or a value is of another type.
    """
    values = {}
    for each in fields(kind):
        if each.name in but:
            continue
        if each.name in content:
            values[each.name] = read(
                _hints(kind)[each.name], content[each.name], prefix + each.name
            )
        elif each.default is MISSING and each.default_factory is MISSING:
            raise ValueError(f"{prefix}{each.name} is missing")
    return values


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _of_type(kind: type, value: Any, name: str, words: str) -> Any:
    if type(value) is not kind:
        shown = json.dumps(value, ensure_ascii=False)
        shown = shown if len(shown) <= 20 else f"{shown[:19]}…"
        raise ValueError(f"{name} is {shown}, not {words}")
    return value
