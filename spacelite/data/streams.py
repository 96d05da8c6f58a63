"""Files of texts to classify, row by row: tables with a column of texts, or a text per line.

A file is read twice: first to find its columns, the number of its rows, and rows that cannot be
used; then to yield the rows. Memory holds a part of the file at a time, except for a JSON list.
"""

from __future__ import annotations

import csv
import errno
import itertools
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from spacelite.data import columns, dialect, sources
from spacelite.errors import SpaceliteError, one_line

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_READ = 1000  # of a parquet file, and for which types are found

log = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass(frozen=True)
class TextRows:
    """The rows of a file, with a text each.

    Attributes:
        origin: Name of the file, for messages.
        columns: The names of all columns.
        text_column: The column of the texts; `text` if the file has a text per line.
        count: Number of rows; None if it is known only at the end.
        read: Yields the rows, each a dictionary of the columns that it has.
        fields: The Arrow types of the columns, if the file gives them.
        is_table: Whether the file is a table; otherwise it has a text per line.
    """

    origin: str
    columns: tuple[str, ...]
    text_column: str
    count: int | None
    read: Callable[[], Iterator[Row]]
    fields: pa.Schema | None = None
    is_table: bool = True

    def __iter__(self) -> Iterator[Row]:
        return self.read()

    def schema(self) -> pa.Schema:
        """The Arrow types of the columns: those of the file, else those that hold all its values.

        Raises:
            SpaceliteError: The values of a column have no common type.
        """
        import pyarrow as pa

        if self.fields is not None:
            return self.fields
        if not self.is_table:
            return _strings(self.columns)
        schema = pa.schema([])
        rows = iter(self)
        try:
            while some := list(itertools.islice(rows, ROWS_PER_READ)):
                names = dict.fromkeys(name for row in some for name in row)
                arrays = {name: pa.array([row.get(name) for row in some]) for name in names}
                found = pa.schema([(name, each.type) for name, each in arrays.items()])
                schema = pa.unify_schemas([schema, found], promote_options="permissive")
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise SpaceliteError(
                f"{self.origin}: a column holds values of several types, which parquet cannot hold "
                f"({one_line(error)}): choose a .jsonl or .csv file for the results"
            ) from error
        # A type for columns without any value, which other programs can read.
        return pa.schema(
            [
                pa.field(each.name, pa.string() if pa.types.is_null(each.type) else each.type)
                for each in (schema.field(name) for name in self.columns)
            ]
        )


def open_texts(path: Path, text_column: str | None = None) -> TextRows:
    """Open a file of texts. One with a suffix of `sources.SUFFIXES` is a table; every line of any
    other is a text.

    Args:
        path: The file.
        text_column: Name of a table's text column. Default: recognised automatically, as in
            `embed`, and logged.

    Raises:
        SpaceliteError: The file cannot be read, it has no rows, a text is missing, or the text
            column cannot be determined.
    """
    try:
        path.stat()
        if path.suffix.lower() in sources.SUFFIXES:
            return _table(path, text_column)
        if text_column is not None:
            raise SpaceliteError(
                f"{path} has a text per line and no columns: text_column={text_column!r} needs a "
                ".csv, .tsv, .json, .jsonl or .parquet file",
                ["text_column"],
            )
        count = None
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.is_file():
            dialect.check_encoding(path)
            count = sum(1 for _ in _lines_of_file(path))
    except OSError as error:
        raise SpaceliteError(f"{path} cannot be read: {error.strerror or error}") from error
    return _of_lines(str(path), count, lambda: _lines_of_file(path))


def open_lines(file: BinaryIO, origin: str = "standard input") -> TextRows:
    """The lines of a stream of UTF-8 bytes, each a text; they can be read once.

    Args:
        file: The stream. It is read as far as rows are asked for.
        origin: Its name, for messages.
    """
    return _of_lines(origin, None, lambda: _lines(file, origin))


def given_texts(texts: Sequence[str], origin: str) -> TextRows:
    """Texts in memory, as those of a file."""
    return _of_lines(origin, len(texts), lambda: ({"text": text} for text in texts))


def _of_lines(origin: str, count: int | None, read: Callable[[], Iterator[Row]]) -> TextRows:
    return TextRows(origin, ("text",), "text", count, read, is_table=False)


# Lines.


def _lines_of_file(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        yield from _lines(file, str(path))


def _lines(file: BinaryIO, origin: str) -> Iterator[Row]:
    texts = _decoded(file)
    first = list(itertools.islice(texts, 2))
    _refuse_tables(first, origin)
    for text in itertools.chain(first, texts):
        yield {"text": text}


def _decoded(file: BinaryIO) -> Iterator[str]:
    """The lines of UTF-8 bytes. Not splitlines, which also splits at other characters."""
    before, number = 0, 0
    for number, line in enumerate(file, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise SpaceliteError(
                f"the texts are not UTF-8 (byte {before + error.start}): convert them"
            ) from error
        before += len(line)
        text = text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
        if not text.strip():
            raise _empty_line(number)
        yield text
    if not number:
        raise _empty_line(1)


def _empty_line(number: int) -> SpaceliteError:
    return SpaceliteError(f"line {number} is empty: every line must hold a text; remove it")


def _refuse_tables(first: list[str], origin: str) -> None:
    """Raise SpaceliteError if the first lines are clearly those of a csv or JSON-lines file."""
    kind = ""
    if first and first[0].startswith("{"):
        try:
            kind = "jsonl" if isinstance(json.loads(first[0]), dict) else ""
        except ValueError:
            kind = ""
    for delimiter in dialect.DELIMITERS:
        rows = list(csv.reader(first, delimiter=delimiter))
        header = [name.strip() for name in rows[0]] if rows else []
        usual = {name.lower() for name in header} & {*columns.TEXT_COLUMNS}
        words = all(name.isidentifier() for name in header) and len(header) > 1
        if words and usual and len(rows) > 1 and len(rows[1]) >= len(header):
            kind = "tsv" if delimiter == "\t" else "csv"
    if kind:
        name = {"jsonl": "JSON lines", "csv": "a csv table", "tsv": "a csv table"}[kind]
        raise SpaceliteError(
            f"{origin} looks like {name}, not like a text per line (its first line is "
            f"{first[0][:60]!r}): give a file whose name ends in .{kind}, which is read as a "
            "table, or remove that line"
        )


# Tables.


def _table(path: Path, text_column: str | None) -> TextRows:
    if not path.is_file():
        raise SpaceliteError(f"{path} is not a file: give a file with a table of texts")
    if path.stat().st_size == 0:
        raise SpaceliteError(f"{path} is empty: it needs a text column and at least one row")
    kind = path.suffix.lower()
    fields = None
    if kind == ".parquet":
        fields, read = _parquet(path)
        names = list(fields.names)
        strings = [name for name in names if _is_string(fields, name)]
    else:
        dialect.check_encoding(path)
        if kind in dialect.CSV_SUFFIXES:
            dialect.say([path])
            names = strings = _header(path)
            read = lambda: _csv_rows(path)  # noqa: E731
        else:
            read = _json_reader(path)
            names, strings = _json_columns(read())
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SpaceliteError(f"{path} has more than one column {twice[0]!r}: rename or remove one")
    origin = str(path)
    text = columns.find_text(origin, names, strings, text_column)
    if text_column is None and len(names) > 1:
        log.info("%s: the texts are column %r", path.name, text)
    texts = (row.get(text) for row in read())
    if kind == ".parquet":
        texts = (row[text] for row in _parquet(path, [text])[1]())
    count = columns.check_texts(origin, text, texts, refuse_numbers=text_column is None)
    if not count:
        raise SpaceliteError(f"{path} has no rows: it needs at least one text")
    if fields is None and kind in dialect.CSV_SUFFIXES:
        fields = _strings(names)
    return TextRows(origin, tuple(names), text, count, read, fields)


def _strings(names: Iterable[str]) -> pa.Schema:
    import pyarrow as pa

    return pa.schema([(name, pa.string()) for name in names])


def _is_string(fields: pa.Schema, name: str) -> bool:
    return sources.Table(fields.empty_table(), {}, "").is_string(name)


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return next(_csv_lines(path, file), [])


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = _csv_lines(path, file)
        header = next(lines, [])
        for number, row in enumerate(lines, 1):
            if len(row) != len(header):
                raise SpaceliteError(
                    f"{path}: row {number} does not have as many fields as the header ({len(row)}, "
                    f"not {len(header)}): correct or remove it"
                )
            yield dict(zip(header, row, strict=True))


def _csv_lines(path: Path, file: Iterable[str]) -> Iterator[list[str]]:
    """The header and rows of a csv file, all values as text; empty lines are left out."""
    # The csv module's own limit is 128 KB for a text.
    csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, (1 << 31) - 1)))
    rows = csv.reader(file, delimiter=dialect.delimiter(path), strict=True)
    number = -1  # the header
    try:
        for row in rows:
            if row:
                number += 1
                yield row
    except csv.Error as error:
        where = f"row {number + 1}" if number >= 0 else "the header"
        raise SpaceliteError(
            f"{path}: {where} cannot be read ({one_line(error)}): check its quotes; a quote "
            "inside a quoted text is written twice"
        ) from error
    except UnicodeDecodeError as error:
        raise SpaceliteError(
            f"{path} is not UTF-8 (near row {max(1, number + 1)}): save it as UTF-8"
        ) from error


def _json_reader(path: Path) -> Callable[[], Iterator[Row]]:
    with path.open("rb") as file:
        is_list = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    if not is_list:
        return lambda: _json_lines(path)
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SpaceliteError(f"{path} cannot be read: {one_line(error)}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise SpaceliteError(
            f"{path} holds items that are not objects: give objects with a text each"
        )
    return lambda: iter(rows)


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise SpaceliteError(
                    f"{path} is not UTF-8 (line {number}): save it as UTF-8"
                ) from error
            except (ValueError, RecursionError) as error:
                raise SpaceliteError(
                    f"{path}: line {number} is not JSON ({one_line(error)}): correct or remove it"
                ) from error
            if not isinstance(row, dict):
                raise SpaceliteError(
                    f"{path}: line {number} is not an object with a text: correct or remove it"
                )
            yield row


def _json_columns(rows: Iterable[Row]) -> tuple[list[str], list[str]]:
    """The names of all columns, and of those that hold strings alone."""
    kinds: dict[str, set[type]] = {}
    for row in rows:
        for name, value in row.items():
            kinds.setdefault(name, set()).add(type(value))
    strings = [name for name, found in kinds.items() if {str} <= found <= {str, type(None)}]
    return list(kinds), strings


def _parquet(
    path: Path, names: list[str] | None = None
) -> tuple[pa.Schema, Callable[[], Iterator[Row]]]:
    """The columns of a parquet file, and a function that yields its rows (only these columns)."""
    import pyarrow as pa
    from pyarrow import parquet

    def read() -> Iterator[Row]:
        try:
            with parquet.ParquetFile(path, pre_buffer=False) as file:
                for batch in file.iter_batches(ROWS_PER_READ, columns=names):
                    batch.validate(full=True)  # any bytes are accepted as text before
                    yield from batch.to_pylist()
        except (pa.ArrowException, ValueError) as error:
            raise SpaceliteError(f"{path} cannot be read: {one_line(error)}") from error

    try:
        with parquet.ParquetFile(path) as file:
            return file.schema_arrow.remove_metadata(), read
    except (pa.ArrowException, ValueError) as error:
        raise SpaceliteError(f"{path} cannot be read: {one_line(error)}") from error
