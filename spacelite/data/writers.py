"""Rows -> a csv, tsv, jsonl or parquet file, which is complete or not there at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spacelite import files
from spacelite.errors import SpaceliteError, one_line
from spacelite.lazy import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
ROUNDED = (".csv", ".tsv")  # forms whose numbers people read
ROWS_PER_GROUP = 10_000  # of a parquet file

Row = dict[str, Any]
Write = Callable[[Sequence[Row]], object]


def check(path: Path, source: str | None = None, suffixes: Sequence[str] = SUFFIXES) -> None:
    """Raise SpaceliteError unless a file can be written at this path, in the form that its suffix
    names, one of these, and it is not the file `source`, which is read."""
    if path.suffix.lower() not in suffixes:
        one_of = " or ".join(filter(None, [", ".join(suffixes[:-1]), suffixes[-1]]))
        raise SpaceliteError(f"{path} cannot be written: its name must end in {one_of}")
    if source is not None and path.exists() and Path(source).exists() and path.samefile(source):
        raise SpaceliteError(f"{path} is the file that is read: write to another")
    check_place(path)


def check_place(path: Path) -> None:
    """Raise SpaceliteError if there can be no file at this path."""
    if path.is_dir():
        raise SpaceliteError(f"{path} is a folder: give the name of a file")
    if not path.parent.is_dir():
        raise SpaceliteError(f"{path} cannot be written: there is no folder {path.parent}")


@contextmanager
def writing(path: Path, columns: Sequence[str], schema: Callable[[], pa.Schema]) -> Iterator[Write]:
    """Write a file, whose suffix names the form: yield a function to call with rows.

    The file appears once all are written; until then they are in a hidden file beside it, which
    goes if writing fails. `schema` returns the columns' Arrow types, for parquet.
    """
    check(path)
    with files.writing(path), files.atomic_write(path) as partial:
        if path.suffix.lower() == ".parquet":
            with _parquet(partial, path, schema()) as write:
                yield write
            return
        with partial.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
            if path.suffix.lower() == ".jsonl":
                yield lambda rows: file.writelines(map(json_line, rows))
            else:
                delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
                file.write(csv_lines([columns], delimiter))
                yield lambda rows: file.write(
                    csv_lines([[row.get(name) for name in columns] for row in rows], delimiter)
                )


@contextmanager
def _parquet(partial: Path, path: Path, schema: pa.Schema) -> Iterator[Write]:
    from pyarrow import parquet

    waiting: list[Row] = []
    with parquet.ParquetWriter(partial, schema) as writer:

        def flush() -> None:
            try:
                writer.write_table(pa.Table.from_pylist(waiting, schema))
            except (pa.ArrowException, TypeError, OverflowError, UnicodeEncodeError) as error:
                raise SpaceliteError(
                    f"{path} cannot hold these rows ({one_line(error)}): choose a .jsonl or .csv "
                    "file"
                ) from error
            waiting.clear()

        def write(rows: Sequence[Row]) -> None:
            waiting.extend(rows)
            if len(waiting) >= ROWS_PER_GROUP:
                flush()

        yield write
        if waiting:
            flush()


def extended(schema: pa.Schema, added: dict[str, Any]) -> pa.Schema:
    """Arrow types with those of more columns: the name of a type, or (its name,) for a list."""
    for name, kind in added.items():
        is_list = not isinstance(kind, str)
        alias = pa.type_for_alias(kind[0] if is_list else kind)
        schema = schema.append(pa.field(name, pa.list_(alias) if is_list else alias))
    return schema


def json_line(row: Row) -> str:
    """A row as a line of a JSON-lines file; NaN and infinity, which JSON lacks, become null."""
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:
        text = json.dumps(files.finite(row), ensure_ascii=False, default=str)
    return f"{text}\n"


def rounded(value: Any) -> Any:
    """A computed number as csv and tsv files have it, with six significant digits; of a record, its
    numbers. JSON and parquet keep all digits."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    return float(f"{value:.6g}") if isinstance(value, float) else value


def csv_lines(lines: Sequence[Sequence[Any]], delimiter: str = ",") -> str:
    """Lines of a csv file. Missing values are empty; lists of strings stand with semicolons between
    them, other lists and records as JSON."""
    written: list[str] = []
    table = io.StringIO()
    # A field with a carriage return is only quoted if lines end in one.
    writer = csv.writer(table, delimiter=delimiter, lineterminator="\r\n")
    for line in lines:
        writer.writerow(map(_cell, line))
        written.append(table.getvalue()[:-2])
        table.seek(0)
        table.truncate()
    return "".join(f"{line}\n" for line in written)


def _cell(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ";".join(value)
    if isinstance(value, list | tuple | dict):
        return json.dumps(files.finite(value), ensure_ascii=False, default=str)
    return str(value).lower() if isinstance(value, bool) else value
