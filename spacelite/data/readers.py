"""Files -> rows: csv, tsv, json, jsonl and parquet tables, and files with a text per line.

`embed` takes a table whole (`Table`). `predict` takes a file row by row (`TextRows`), twice: to
find its columns, the number of its rows and what cannot be used, and then to classify them; memory
holds a part of it at a time, except for a JSON list. Both read each form in the same way.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import json
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO, Any, BinaryIO

from spacelite.data import columns
from spacelite.data.splits import SPLITS, Pair, Sources, Table, Text, named, standard_split
from spacelite.errors import SpaceliteError, one_line
from spacelite.files import writing
from spacelite.lazy import np
from spacelite.lazy import pyarrow as pa
from spacelite.settings import one_of, require

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
CSV_SUFFIXES = (".csv", ".tsv")
QUOTING: dict[str, dict[str, Any]] = {  # of csv files -> options of the csv module
    "standard": {"strict": True},
    "none": {"quoting": csv.QUOTE_NONE},
}
QUOTE_SHOWN = 30  # characters after a quote that is refused
TYPES = {
    str: "a string",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}  # of values of JSON, as messages call them
MOST_VALUES = 50  # of a column such as that of labels
FILES_NAMED = 5  # in a message
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
SNIFFED_ROWS, SNIFFED_BYTES = 20, 1 << 18  # the first of a file tell its delimiter
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
# How files of other kinds begin, whatever their names say.
PACKED = {
    b"\x1f\x8b": "gzip-compressed: unpack it (gunzip)",
    b"BZh": "compressed by bzip2: unpack it (bunzip2)",
    b"\xfd7zXZ": "compressed by xz: unpack it (unxz)",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it (unzstd)",
    b"PK\x03\x04": "a zip archive or an Excel file: unpack it, or save the table as csv",
    b"PAR1": "a parquet file: give it a name that ends in .parquet",
    b"\xd0\xcf\x11\xe0": "an Excel file: save the table as csv",
}
ROWS_PER_READ = 1000
READ_AHEAD = 2**20  # bytes of a column of a parquet file
MOST_IN_MEMORY = 2**24  # bytes of the rows of a data set
SAVE_AS_UTF8 = "save the file as UTF-8 (in Excel, as the type CSV UTF-8)"
# "train-00000-of-00002.parquet": how the hub names the parts of a split.
PART = re.compile(r"-\d+-of-(\d+)(-[0-9a-f]+)?$")

log = logging.getLogger(__name__)

Row = dict[str, Any]
Mixed = dict[str, SpaceliteError]  # as in `Table.mixed`


# Tables, whole.


def from_path(
    path: Path,
    *,
    training: bool = True,
    quoting: str = "standard",
    scratch: Path | None = None,
) -> dict[str, Table]:
    """The table of each split of a folder, whose files are named after their splits, or of a file,
    which is the train split. For `training` there must be one. `quoting` is one of QUOTING. What is
    too large for memory lies on the disk of the folder `scratch`, by default that of temporary
    files, as long as the tables are used."""
    folder = path if path.is_dir() else path.parent
    by_split = _split_files(path, training) if path.is_dir() else {"train": [path]}
    every = [file for files in by_split.values() for file in files]
    check_quoting(quoting, str(path), every)
    above = () if scratch is None else (scratch, *scratch.parents)
    usable = (one for one in above if one.is_dir() and os.access(one, os.W_OK))
    there = next(usable, Path(gettempdir()))
    mapped: tuple[mmap, ...] = ()
    # Its file has no name, and is gone with the process.
    with SpooledTemporaryFile(MOST_IN_MEMORY, dir=str(there)) as spool:
        parts = {
            split: {
                file.relative_to(folder).as_posix(): _spool(file, quoting, spool, there)
                for file in files
            }
            for split, files in by_split.items()
        }
        if spool.tell() > MOST_IN_MEMORY:
            spool.flush()
            mapped = (mmap(spool.fileno(), 0, access=ACCESS_READ),)
        spool.seek(0)
        content = pa.py_buffer(mapped[0] if mapped else spool.read())
    tables = {
        split: _joined(of_split, content, mapped, str(path / split if path.is_dir() else path))
        for split, of_split in parts.items()
    }
    log_delimiters(every, quoting)
    return tables


def _split_files(folder: Path, training: bool) -> dict[str, list[Path]]:
    """The files of each split in `folder`, or in its `data/`, where hub clones keep them."""
    for candidate in (folder, folder / "data"):
        if not candidate.is_dir():
            continue
        by_split: dict[str, list[Path]] = {}
        others = []
        for file in sorted(candidate.iterdir()):
            split = standard_split(PART.sub("", file.stem))
            if file.suffix.lower() in SUFFIXES and split in SPLITS:
                by_split.setdefault(split, []).append(file)
            elif file.is_dir() and _holds_tables(file):
                others.append(f"{file.name}/")
            elif file.suffix.lower() in SUFFIXES:
                others.append(file.name)
        for split, files in by_split.items():
            parts = [PART.search(file.stem) for file in files]
            if len(files) > 1 and not all(parts):
                names = ", ".join(file.name for file in files)
                raise SpaceliteError(
                    f"{candidate} gives {split} more than once ({names}): keep one"
                )
            for part in filter(None, parts):
                if len(files) != int(part[1]):
                    raise SpaceliteError(
                        f"{candidate} holds {len(files)} of the {int(part[1])} parts of {split}: "
                        "fetch the rest"
                    )
        if "train" in by_split or (by_split and not training):
            if others:
                log.warning(
                    "%s: not used, since their names are no splits: %s",
                    candidate, columns.listed(others, FILES_NAMED),
                )  # fmt: skip
            return {split: by_split[split] for split in SPLITS if split in by_split}
    names_there = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    train, needed = ("train ", "train") if training else ("", "test")
    raise SpaceliteError(
        f"{folder} has no {train}split: it needs {needed}.csv, .tsv, .json, .jsonl or .parquet "
        "(other splits, validation and test or train, beside it); it holds "
        f"{', '.join(names_there[:8]) or 'nothing'}"
    )


def _holds_tables(folder: Path) -> bool:
    """Whether a folder that is not hidden holds files of tables itself."""
    return not folder.name.startswith(".") and any(
        file.suffix.lower() in SUFFIXES for file in folder.iterdir()
    )


def _joined(
    parts: dict[str, tuple[int, Mixed]], content: pa.Buffer, mapped: tuple[mmap, ...], origin: str
) -> Table:
    """The table of a split, given where in `content` each of its files begins."""
    tables = {
        name: pa.ipc.open_stream(content.slice(start)).read_all()
        for name, (start, _) in parts.items()
    }
    sizes = [(name, rows.num_rows) for name, rows in tables.items()]
    mixed = {name: error for _, of_part in parts.values() for name, error in of_part.items()}
    try:
        rows = pa.concat_tables(
            rows.drop_columns([name for name in rows.column_names if name in mixed])
            for rows in tables.values()
        )
    except pa.ArrowException as error:
        raise SpaceliteError(
            f"the parts of {origin} have different columns: {one_line(error)}"
        ) from error
    return Table(rows, class_names(rows.schema), origin, Sources.of_files(sizes), mixed, mapped)


def class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """The names of the labels 0..C-1 of columns, which `datasets` writes into a schema."""
    try:
        recorded = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        features = {name: kind for name, kind in recorded.items() if isinstance(kind, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):  # not what `datasets` writes
        return {}
    # Of a list, that of its values.
    kinds = {name: kind.get("feature") or kind for name, kind in features.items()}
    return {
        name: tuple(kind.get("names") or ())
        for name, kind in kinds.items()
        if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"
    }


def _spool(path: Path, quoting: str, spool: IO[bytes], scratch: Path) -> tuple[int, Mixed]:
    """Write all rows of a file to the end of `spool`, in Arrow's form, without the columns of a
    JSON file whose values have no common type; where they begin there. `scratch` is the folder of
    `spool`, for messages."""
    mixed: Mixed = {}
    kind = path.suffix.lower()
    if kind not in SUFFIXES:
        raise SpaceliteError(f"{path} is not a .csv, .tsv, .json, .jsonl or .parquet file")
    _check_file(path)
    with _named(path):
        if kind == ".parquet":
            schema, batches = _parquet_batches(path)
        elif kind in CSV_SUFFIXES:
            # Every column as text: a type guessed from the first rows would turn "007" into 7.
            # `columns` turns labels into numbers if all of them are numbers.
            lines = _csv_lines(path, quoting)
            schema = _strings(next(lines))
            batches = (
                pa.RecordBatch.from_arrays(
                    [*map(_text_array, zip(*some, strict=True))],
                    schema=schema,
                )
                for some in _some_at_a_time(lines)
            )
        else:
            schema, batches, mixed = _json_batches(path)

    def rows() -> Iterator[pa.RecordBatch]:
        with _named(path):
            yield from batches

    start = spool.tell()
    with (
        writing(scratch, "; free some space, or choose another cache_dir"),
        pa.ipc.new_stream(pa.PythonFile(spool, mode="w"), schema) as writer,
    ):
        for batch in rows():
            writer.write_batch(batch)
    refuse_twice(str(path), schema.names)
    return start, mixed


def _text_array(texts: Sequence[str]) -> pa.Array:
    """As pa.array(texts, pa.string()), which imports pandas to see whether they are its."""
    encoded = [text.encode() for text in texts]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    buffers = pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))
    return pa.LargeStringArray.from_buffers(len(texts), *buffers).cast(pa.string())


def _some_at_a_time(rows: Iterator[Any]) -> Iterator[list[Any]]:
    while some := list(itertools.islice(rows, ROWS_PER_READ)):
        yield some


def _json_batches(path: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch], Mixed]:
    """The rows of a JSON file, which is read twice: first for the types of its columns."""
    read, types, unclear = _json_reader(path), dict[str, pa.DataType](), set[str]()
    for some in _some_at_a_time(read()):
        for name in dict.fromkeys(name for row in some for name in row):
            try:
                kind = pa.array([row.get(name) for row in some]).type
                types[name] = _common(types.get(name, pa.null()), kind)
            except (pa.ArrowException, OverflowError, UnicodeEncodeError):
                types[name] = pa.null()
                unclear.add(name)
    # Only all values together tell the type of such a column, or what is wrong with it.
    whole: dict[str, list[Any]] = {name: [] for name in types if name in unclear}
    for row in read() if whole else ():
        for name, values in whole.items():
            values.append(row.get(name))
    table, mixed = typed(str(path), whole)
    types |= {field.name: field.type for field in table.schema}
    schema = pa.schema([(name, kind) for name, kind in types.items() if name not in mixed])
    if mixed and not schema.names:
        raise next(iter(mixed.values()))

    def batches() -> Iterator[pa.RecordBatch]:
        first = 0
        for some in _some_at_a_time(read()):
            arrays = [
                table.column(name).slice(first, len(some)).combine_chunks()
                if name in whole
                else pa.array([row.get(name) for row in some], types[name])
                for name in schema.names
            ]
            first += len(some)
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    return schema, batches(), mixed


def _common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type of the values of both types together. Raises ArrowException if these do not tell."""
    if pa.types.is_null(one) or one == other:
        return other
    if pa.types.is_null(other):
        return one
    if not (pa.types.is_nested(one) and pa.types.is_nested(other)):
        raise pa.ArrowTypeError(f"{one} and {other}")  # such as whole numbers and others
    schemas = [pa.schema([("", kind)]) for kind in (one, other)]
    return pa.unify_schemas(schemas, promote_options="permissive").types[0]


def typed(origin: str, values: Mapping[str, list[Any]]) -> tuple[pa.Table, Mixed]:
    """The columns of JSON or of Python objects as a table, without those whose values have no
    common type."""
    arrays, mixed = {}, {}
    for name, of_column in values.items():
        try:
            arrays[name] = _as_array(origin, name, of_column)
        except SpaceliteError as error:
            mixed[name] = error
    return pa.table(arrays), mixed


def _as_array(origin: str, name: str, values: list[Any]) -> pa.Array:
    """The values of a column. Raises SpaceliteError, which names the row, if they are of no single
    type that Arrow has."""
    try:
        return pa.array(values)
    except UnicodeEncodeError as error:
        texts = (json.dumps(value, ensure_ascii=False, default=repr) for value in values)
        row = next(i for i, text in enumerate(texts, 1) if columns.SURROGATE.search(text))
        raise SpaceliteError(
            f"{origin}: row {row:,} has a {name!r} that is not valid Unicode: correct or remove it"
        ) from error
    except (pa.ArrowException, OverflowError) as error:
        kinds = [float if type(value) is int else type(value) for value in values]
        with suppress(pa.ArrowException, OverflowError):
            types = {type(value) for value in values if value is not None}
            if types == {int}:
                return pa.array(values, pa.uint64())
            if types == {int, float}:  # an integer that no float holds exactly
                floats = [None if value is None else float(value) for value in values]
                if len({*floats}) == len({*values}):  # otherwise two numbers would become one
                    return pa.array(floats)
        usual = next((kind for kind in kinds if kind is not type(None)), None)
        other = next((i for i, kind in enumerate(kinds, 1) if kind not in (usual, type(None))), 0)
        large = (type(value) is int and not -(2**63) <= value < 2**63 for value in values)
        problem, remedy = one_line(error), "write them alike"
        if other and usual is not None:
            problem = f"row {other:,} has {_of(kinds[other - 1])}, those before it {_of(usual)}"
        elif number := next((i for i, is_large in enumerate(large, 1) if is_large), 0):
            problem = f"row {number:,} has a whole number of more than 64 bits"
            remedy = "write them as strings"
        elif usual is not None and usual not in TYPES:
            problem, remedy = f"these are {_of(usual)}", "give strings or numbers"
        raise SpaceliteError(
            f"{origin}: column {name!r} needs values of one type, and {problem}: {remedy}"
        ) from error


def _of(kind: type) -> str:
    return TYPES.get(kind, f"a value of type {kind.__name__}")


# Tables and texts, row by row.


@dataclass(frozen=True)
class TextRows:
    """The rows of a file, with a text each."""

    origin: str  # the file, for messages
    count: int | None  # None if it is known only at the end
    read: Callable[[], Iterator[Row]]  # yields rows, dictionaries of the columns that each has
    columns: tuple[str, ...] = ("text",)
    text_columns: tuple[str, ...] = ("text",)  # two of pairs
    fields: pa.Schema | None = None  # the types of the columns, if the file gives them
    is_table: bool = False  # otherwise a text per line

    def __iter__(self) -> Iterator[Row]:
        return self.read()

    @property
    def are_pairs(self) -> bool:
        """Whether each row has two texts."""
        return len(self.text_columns) > 1

    def text(self, row: Row) -> Text:
        """The text of a row, or the pair."""
        first, *second = (row[name] for name in self.text_columns)
        return Pair(first, *second) if second else first

    def schema(self) -> pa.Schema:
        """The Arrow types of the columns: of the file, else those that hold all its values."""
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
                types = pa.schema([(name, array.type) for name, array in arrays.items()])
                schema = pa.unify_schemas([schema, types], promote_options="permissive")
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            raise SpaceliteError(
                f"{self.origin}: a column holds values of several types, which parquet cannot hold "
                f"({one_line(error)}): choose a .jsonl or .csv file for the results"
            ) from error
        # A type for columns without any value, which other programs can read.
        return pa.schema(
            [
                pa.field(field.name, pa.string() if pa.types.is_null(field.type) else field.type)
                for field in map(schema.field, self.columns)
            ]
        )


def open_texts(
    path: Path,
    text_column: str | Sequence[str] | None = None,
    *,
    quoting: str = "standard",
    remembered: str | None = None,
) -> TextRows:
    """Open a file of texts: a table if its suffix is one of SUFFIXES, else a text per line.

    The text column is `text_column`, which may name the two of pairs, else that of the `remembered`
    name, else it is recognised as in `embed`; it is logged. A file that lacks a text is refused.
    """
    try:
        path.stat()
        check_quoting(quoting, str(path), [path])
        if path.suffix.lower() in SUFFIXES:
            return _open_table(path, text_column, quoting, remembered)
        if text_column is not None:
            raise SpaceliteError(
                f"{path} has a text per line and no columns: text_column={text_column!r} needs a "
                ".csv, .tsv, .json, .jsonl or .parquet file",
                ["text_column"],
            )
        count = None
        if path.is_file() or path.is_dir():  # a pipe can be read only once
            _check_encoding(path)
            count = sum(1 for _ in _lines_of_file(path))
    except OSError as error:
        raise SpaceliteError(f"{path} cannot be read: {error.strerror or error}") from error
    return TextRows(str(path), count, lambda: _lines_of_file(path))


def _open_table(
    path: Path, text_column: str | Sequence[str] | None, quoting: str, remembered: str | None
) -> TextRows:
    _check_file(path)
    fields, kind = None, path.suffix.lower()
    if kind == ".parquet":
        fields, read = _parquet(path)
        names = list(fields.names)
        table = Table(fields.empty_table(), {}, "")
        strings = [name for name in names if table.is_string(name)]
    elif kind in CSV_SUFFIXES:
        log_delimiters([path], quoting)
        names = strings = next(_csv_lines(path, quoting))
        fields, read = _strings(names), functools.partial(_csv_rows, path, quoting, warn=False)
    else:
        read = _json_reader(path)
        kinds: dict[str, set[type]] = {}
        for row in read():
            for name, value in row.items():
                kinds.setdefault(name, set()).add(type(value))
        names = list(kinds)
        strings = [name for name in names if {str} <= kinds[name] <= {str, type(None)}]
    refuse_twice(str(path), names)
    origin = str(path)
    wanted, same = columns.wanted_columns(names, text_column, remembered)
    texts = text, *_ = columns.find_texts(origin, names, strings, wanted)
    if text_column is None and len(names) > 1:
        known = ", as in the run's data" if same else ""
        log.info("%s: %s%s", path.name, columns.texts_are(texts), known)
    elif not wanted and kind in CSV_SUFFIXES and text.lower() not in columns.TEXT_COLUMNS:
        log.warning(
            "%s: the texts are column %r, which is its first line: if that is a text too, put a "
            "line with the column's name, text, above it",
            path.name, text,
        )  # fmt: skip
    for name in texts:
        of_texts = read
        if kind == ".parquet":
            of_texts = _parquet(path, [name])[1]
        elif kind in CSV_SUFFIXES and name == text:  # later readings do not repeat what is said
            of_texts = functools.partial(_csv_rows, path, quoting, warn=True)
        values = (row.get(name) for row in of_texts())
        count = columns.check_texts(origin, name, values, refuse_numbers=not wanted)
        if not count:
            raise SpaceliteError(f"{path} has no rows: it needs at least one text")
    return TextRows(origin, count, read, tuple(names), texts, fields, is_table=True)


def open_lines(file: BinaryIO, origin: str = "standard input") -> TextRows:
    """The lines of a stream of UTF-8 bytes, each a text, which are read once and as asked for."""
    return TextRows(origin, None, lambda: _lines(file, origin))


def given_texts(texts: Sequence[Text], origin: str) -> TextRows:
    """Texts in memory, all single or all pairs, as those of a file."""
    names = tuple(named(texts[0]))
    return TextRows(origin, len(texts), lambda: map(named, texts), names, names)


# The forms of tables.


def _check_file(path: Path) -> None:
    """Raise SpaceliteError if a file cannot be a table, or is not in UTF-8."""
    if path.is_dir():
        raise SpaceliteError(
            f"{path} is a folder named like a file: give the file inside it, or rename the folder"
        )
    if not path.is_file():
        raise SpaceliteError(f"{path} is not a file: give a file with a table of texts")
    if path.stat().st_size == 0:
        raise SpaceliteError(f"{path} is empty: it needs a header and at least one row")
    _check_encoding(path)


def _check_encoding(path: Path) -> None:
    """Raise SpaceliteError if a file begins with the byte order mark of UTF-16, or as a compressed
    file or a workbook does."""
    with path.open("rb") as file:
        start = file.read(8)
    for beginning, kind in PACKED.items():
        if start.startswith(beginning) and path.suffix.lower() != ".parquet":
            raise SpaceliteError(f"{path} is {kind}")
    if start[:2] in UTF16_MARKS:
        raise SpaceliteError(f"{path} is in UTF-16, and only UTF-8 is read: {SAVE_AS_UTF8}")


def check_quoting(quoting: str, origin: str, files: Iterable[Path] = ()) -> None:
    """Raise SpaceliteError if there is no such quoting, or if it has no effect on these files."""
    require("quoting", quoting, one_of(*QUOTING))
    if quoting != "standard" and not any(file.suffix.lower() in CSV_SUFFIXES for file in files):
        raise SpaceliteError(
            f"quoting={quoting} is about csv and tsv files, and {origin} is not one: leave it out",
            ["quoting"],
        )


def refuse_twice(origin: str, names: Sequence[str]) -> None:
    """Raise SpaceliteError if two columns have the same name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SpaceliteError(
            f"{origin} has more than one column {twice[0]!r}: rename or remove one"
        )


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What goes wrong in reading a file, as an error that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        problem = one_line(error)
        if re.search("utf-?8", problem, re.IGNORECASE):
            raise SpaceliteError(
                f"{path} holds text that is not UTF-8: save it as UTF-8"
            ) from error
        raise SpaceliteError(f"{path} cannot be read: {problem}") from error


def _strings(names: Iterable[str]) -> pa.Schema:
    return pa.schema([(name, pa.string()) for name in names])


def _csv_rows(path: Path, quoting: str, *, warn: bool) -> Iterator[Row]:
    lines = _csv_lines(path, quoting, warn=warn)
    header = next(lines)
    return (dict(zip(header, row, strict=True)) for row in lines)


def _csv_lines(path: Path, quoting: str, *, warn: bool = True) -> Iterator[list[str]]:
    """The header and rows of a csv file, all values as text; empty lines are left out. Rows that
    are probably several rows, joined by a quote that is not meant as one, are a warning at the end.
    """
    # The csv module's own limit is 128 KB for a text.
    csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, (1 << 31) - 1)))
    number, fields, kept = -1, 0, 0  # of the header
    mark = delimiter(path, quoting)
    values: dict[int, set[str]] = {}  # of the columns that have few, by the column's number
    joined: dict[int, list[list[str]]] = {}  # what the lines of a row would be as rows
    with _from_header(path) as file:
        reader, read = csv.reader(file, delimiter=mark, **QUOTING[quoting]), 0
        try:
            for row in reader:
                first, read = read + 1, reader.line_num
                if not row:
                    continue
                number += 1
                fields = fields or len(row)
                if len(row) != fields:
                    raise SpaceliteError(
                        f"{path}: row {number} does not have as many fields as the header "
                        f"({len(row)}, not {fields}): correct or remove it"
                    )
                if not number:
                    kept = fields if row[-1].strip() else _named_fields(path, mark, quoting, row)
                yield row[:kept]
                if not number:
                    values = {column: set() for column in range(fields)} if warn else {}
                elif values and read > first:
                    lines = [line.rstrip("\r").split(mark) for line in mark.join(row).split("\n")]
                    if {*map(len, lines)} == {fields}:
                        joined[number] = lines
                elif values:
                    for column in [*values]:
                        values[column].add(row[column])
                        if len(values[column]) > MOST_VALUES:
                            del values[column]
        except csv.Error as error:
            where = f"row {number + 1}" if number >= 0 else "the header"
            raise SpaceliteError(
                f"{path}: {where} cannot be read: {_quote(path, read, mark)} is not closed where "
                "the text ends: close it there, and write quotes inside the text twice; or give "
                "quoting='none' if quotes are ordinary characters",
                ["quoting"],
            ) from error
        except UnicodeDecodeError as error:
            where = _undecodable_row(path, mark, quoting)
            raise SpaceliteError(f"{path}: {where} is not UTF-8: {SAVE_AS_UTF8}") from error
    if number < 0:
        raise SpaceliteError(f"{path} cannot be read: Empty CSV file")
    rows = [
        row
        for row, lines in joined.items()
        if any(all(line[column] in values[column] for line in lines) for column in values)
    ]
    if rows:
        problem = (
            f"{path}: row {rows[0]}{columns.and_more(rows)} looks like {len(joined[rows[0]]):,} "
            "rows within quotes: give quoting='none' if quotes are ordinary characters"
        )
        log.warning(SpaceliteError(problem, ["quoting"]))


def _from_header(path: Path, errors: str = "strict") -> io.TextIOWrapper:
    """A csv file from its header on, without a first line that names its separator."""
    file, declared = path.open("rb"), _declared(path)
    file.seek(0 if declared is None else declared.end())
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors=errors, newline="")


def _declared(path: Path) -> re.Match[bytes] | None:
    """The first line of a csv file if it names the separator, as Excel reads and writes it."""
    with path.open("rb") as file:
        return re.match(rb'(?:\xef\xbb\xbf)?"?sep=([!-~\t])"?\r?\n', file.read(16))


def _named_fields(path: Path, mark: str, quoting: str, header: list[str]) -> int:
    """The number of columns of a csv file but for the last ones if these have neither names nor
    values, as Excel writes them."""
    last = 0
    with _from_header(path) as file, suppress(csv.Error, UnicodeDecodeError):  # said later
        for row in csv.reader(file, delimiter=mark, **QUOTING[quoting]):
            last = max(last, *(i for i, value in enumerate(row, 1) if value.strip()), 0)
    return min(last, len(header)) or len(header)


def _undecodable_row(path: Path, mark: str, quoting: str) -> str:
    """The first row of a csv file that is not UTF-8, in words."""
    options, number = {**QUOTING[quoting], "strict": False}, -1
    with _from_header(path, "surrogateescape") as file:
        for row in filter(None, csv.reader(file, delimiter=mark, **options)):
            number += 1
            if re.search("[\udc80-\udcff]", "".join(row)):
                break
    return f"row {number}" if number else "the header"


def _quote(path: Path, before: int, delimiter: str) -> str:
    """The quote of a csv file that is not closed where its text ends, `the quote of '"It was'`: in
    the line that has so many `before` it."""
    with _from_header(path) as file:
        line = next(itertools.islice(file, before, None), "").rstrip("\r\n")
    delimiter = re.escape(delimiter)
    opening = rf'(?:^|{delimiter})"(?=(?:[^"]|"")*(?:"(?!"|{delimiter}|$)|$))'
    at = re.search(opening, line) or re.search('"', line)
    text = line[at.end() - 1 :] if at else line  # of a text of several lines, the first
    shown = text if len(text) <= QUOTE_SHOWN else f"{text[:QUOTE_SHOWN]}…"
    return f"the quote of {shown!r}"


def delimiter(path: Path, quoting: str = "standard") -> str:
    """What separates the fields of a csv file: a comma, a semicolon or a tab.

    It is the one that a first line such as `sep=;` names, whatever it is; else the one that splits
    the header and the first rows into the same number of fields, at least two; that of the file's
    name if several do. If none does, as in a file with a broken row, it is one that splits the
    header and a row alike; in a file with a single column, that of its name.
    """
    if (declared := _declared(path)) is not None:
        return declared[1].decode()
    with path.open("rb") as file:
        start = file.read(SNIFFED_BYTES)
        whole = not file.read(1)
    text = start.decode("utf-8-sig", errors="replace")
    usual = _usual_delimiter(path)
    order = [usual, *(other for other in DELIMITERS if other != usual)]
    counts = {mark: _field_counts(text, mark, whole, quoting) for mark in order}
    several = {mark: fields for mark, fields in counts.items() if fields and fields[0] > 1}
    alike = (mark for mark, fields in several.items() if len(set(fields)) == 1)
    some = (mark for mark, fields in several.items() if fields[0] in fields[1:])
    return next(itertools.chain(alike, some), usual)


def _usual_delimiter(path: Path) -> str:
    return "\t" if path.suffix.lower() == ".tsv" else ","


def _field_counts(text: str, delimiter: str, whole: bool, quoting: str) -> list[int]:
    """The number of fields of the first rows; a row that the text may have cut is left out."""
    counts = []
    try:
        options = {**QUOTING[quoting], "strict": False}
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, **options):
            if row:
                counts.append(len(row))
            if len(counts) > SNIFFED_ROWS:
                return counts[:SNIFFED_ROWS]
    except csv.Error:  # a field of more than 128 KB
        return counts
    return counts if whole or len(counts) < 2 else counts[:-1]


def log_delimiters(paths: Iterable[Path], quoting: str) -> None:
    """Log, in one line, which csv files have separators that their names do not say."""
    unusual: dict[str, list[str]] = {}
    for path in paths:
        if path.suffix.lower() in CSV_SUFFIXES and path.is_file():
            mark = delimiter(path, quoting)
            if mark != _usual_delimiter(path):
                unusual.setdefault(mark, []).append(path.name)
    if unusual:
        parts = [
            f"{', '.join(names)}: fields are separated by {DELIMITERS.get(mark, repr(mark))}"
            for mark, names in unusual.items()
        ]
        log.info("%s", "; ".join(parts))


def _json_reader(path: Path) -> Callable[[], Iterator[Row]]:
    """Yields the objects of a JSON file: of a list, or one after another, mostly a line each."""
    with path.open("rb") as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start.startswith(b"["):
        return functools.partial(_json_lines, path)
    with _named(path):
        rows = JSON.decode(path.read_text(encoding="utf-8-sig"))
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("the list holds items that are not objects with a text")
    return lambda: iter(rows)


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip(" \t\r\n")
                try:
                    value, stop = JSON.raw_decode(text)
                    if stop < len(text):
                        raise json.JSONDecodeError("Extra data", text, stop)
                    values = [value]
                except ValueError as error:  # of objects on several lines, or several on a line
                    values = _json_values(f"{text}\n{file.read().decode()}", error)
            except UnicodeDecodeError as error:
                raise SpaceliteError(
                    f"{path} is not UTF-8 (line {number}): save it as UTF-8"
                ) from error
            except (ValueError, RecursionError) as error:
                raise SpaceliteError(
                    f"{path}: line {number} is not JSON ({one_line(error)}): correct or remove it"
                ) from error
            for value in values:
                if not isinstance(value, dict):
                    raise SpaceliteError(
                        f"{path}: line {number} is not an object with a text: correct or remove it"
                    )
                yield value


def _json_values(text: str, otherwise: ValueError) -> list[Any]:
    """All JSON values of a text. Raises the error `otherwise` if it holds anything else."""
    values, stop = [], 0
    try:
        while following := re.compile(r"\S").search(text, stop):
            value, stop = JSON.raw_decode(text, following.start())
            values.append(value)
    except ValueError:
        raise otherwise from None
    return values


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    """An object of JSON, whose keys must differ."""
    row = dict(pairs)
    if len(row) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} is given twice")
    return row


JSON = json.JSONDecoder(object_pairs_hook=_unique)


def _parquet(
    path: Path, names: list[str] | None = None
) -> tuple[pa.Schema, Callable[[], Iterator[Row]]]:
    """The columns of a parquet file, and a function that yields its rows (only these columns)."""

    def read() -> Iterator[Row]:
        with _named(path):
            for batch in _parquet_batches(path, names)[1]:
                yield from batch.to_pylist()

    with _named(path):
        return _parquet_batches(path)[0].remove_metadata(), read


def _parquet_batches(
    path: Path, names: list[str] | None = None
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The columns of a parquet file, and its rows (only these columns)."""
    from pyarrow import parquet

    def batches() -> Iterator[pa.RecordBatch]:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=READ_AHEAD) as file:
            for batch in file.iter_batches(ROWS_PER_READ, columns=names):
                batch.validate(full=True)  # any bytes are accepted as text before
                yield batch

    with parquet.ParquetFile(path) as file:
        return file.schema_arrow, batches()


def parquet_lists(
    path: Path,
) -> tuple[int, dict[str, str], Callable[[list[str]], Iterator[list[Any]]]]:
    """The number of rows of a parquet file, the type of each column, and a function that yields the
    rows of some columns of lists: of a list of numbers (n,), of a list of lists of n numbers each
    (m, n), None for a missing one. It raises ValueError for lists of different lengths."""
    from pyarrow import ListScalar, parquet

    def array(scalar: ListScalar) -> Any:
        values = scalar.values
        if values is None or not hasattr(values, "value_lengths"):
            return None if values is None else values.to_numpy(zero_copy_only=False)
        if len({*values.value_lengths().to_pylist()}) > 1:
            raise ValueError("the lists of a row have different lengths")
        return values.flatten().to_numpy(zero_copy_only=False).reshape(len(values), -1)

    def read(names: list[str]) -> Iterator[list[Any]]:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(ROWS_PER_READ, columns=names):
                for row in range(batch.num_rows):
                    yield [array(batch.column(name)[row]) for name in names]

    with parquet.ParquetFile(path) as file:
        types = {field.name: str(field.type) for field in file.schema_arrow}
        return file.metadata.num_rows, types, read


# A text per line.


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
    before = 0
    # A file without a line has an empty one.
    for number, line in enumerate(itertools.chain([next(file, b"")], file), 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise SpaceliteError(
                f"the texts are not UTF-8 (byte {before + error.start}): convert them"
            ) from error
        before += len(line)
        text = text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
        if not text.strip():
            raise SpaceliteError(f"line {number} is empty: every line must hold a text; remove it")
        yield text


def _refuse_tables(first: list[str], origin: str) -> None:
    """Raise SpaceliteError if the first lines are clearly those of a csv or JSON-lines file."""
    kind = ""
    if first and first[0].startswith("{"):
        with suppress(ValueError):
            kind = "jsonl" if isinstance(json.loads(first[0]), dict) else ""
    for mark in DELIMITERS:
        rows = list(csv.reader(first, delimiter=mark))
        header = [name.strip() for name in rows[0]] if rows else []
        usual = {name.lower() for name in header} & {*columns.TEXT_COLUMNS}
        words = all(name.isidentifier() for name in header) and len(header) > 1
        if words and usual and len(rows) > 1 and len(rows[1]) >= len(header):
            kind = "tsv" if mark == "\t" else "csv"
    if kind:
        name = "JSON lines" if kind == "jsonl" else "a csv table"
        raise SpaceliteError(
            f"{origin} looks like {name}, not like a text per line (its first line is "
            f"{first[0][:60]!r}): give a file whose name ends in .{kind}, which is read as a "
            "table, or remove that line"
        )
