"""A hub name, a path or Python objects -> one Arrow table per split.

The only importer of `datasets` and `pyarrow`. Only the names of splits are interpreted here;
columns, labels and the protocols of known data sets come later.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacelite import hub
from spacelite.data import dialect
from spacelite.data.splits import Sources
from spacelite.errors import SpaceliteError, one_line

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
SPLITS = ("train", "validation", "test")
SPLIT_ALIASES = {"valid": "validation", "val": "validation", "dev": "validation"}
# "train-00000-of-00002.parquet": how the hub names the parts of a split.
PART = re.compile(r"-\d+-of-(\d+)(-[0-9a-f]+)?$")


@dataclass(frozen=True)
class Table:
    """One split as read from its source.

    Attributes:
        rows: All rows and columns.
        class_names: Column -> names of labels 0..C-1, if the source gives them.
        origin: Where the table comes from, for messages.
        sources: Where its rows come from. Default: in this order from `origin`.
    """

    rows: pa.Table
    class_names: dict[str, tuple[str, ...]]
    origin: str
    sources: Sources | None = None

    @property
    def source_rows(self) -> Sources:
        """Where each row comes from."""
        if self.sources is not None:
            return self.sources
        return Sources.of_files([(self.origin, self.rows.num_rows)])

    def is_string(self, column: str) -> bool:
        """Whether the column's type is one of Arrow's string types."""
        from pyarrow import types

        kind = self.rows.schema.field(column).type
        tests = (types.is_string, types.is_large_string, types.is_string_view)
        return any(test(kind) for test in tests)


def table_of_dataset(dataset: Any, origin: str) -> Table:
    """Convert a `datasets.Dataset` to a table, with the names of its class labels."""
    import datasets

    kinds = {
        column: getattr(feature, "feature", feature)  # of a list: that of its values
        for column, feature in dataset.features.items()
    }
    names = {
        column: tuple(kind.names)
        for column, kind in kinds.items()
        if isinstance(kind, datasets.ClassLabel)
    }
    # Not `dataset.data`, which ignores selections and shuffles.
    return Table(dataset.with_format("arrow")[:], names, origin)


def table_of_frame(frame: Any, origin: str) -> Table:
    """Convert a pandas DataFrame to a table. Raises SpaceliteError if Arrow cannot hold it."""
    import pyarrow as pa

    try:
        return Table(pa.Table.from_pandas(frame, preserve_index=False), {}, origin)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise SpaceliteError(f"{origin}: {one_line(error)}") from error


def table_of(rows: list[dict[str, Any]], origin: str) -> Table:
    """Create a table from rows; the values of a column must have one type."""
    import pyarrow as pa

    return Table(pa.Table.from_pylist(rows), {}, origin)


def from_path(path: Path, *, training: bool = True) -> dict[str, Table]:
    """Read a file or a folder.

    Args:
        path: One file, which becomes the train split, or a folder of files named after their
            splits.
        training: Whether a train split is needed.

    Returns:
        Split name -> its table.

    Raises:
        SpaceliteError: A file is missing, empty, damaged or of an unknown type; a folder has no
            train split, has a split twice, or lacks parts of one.
    """
    if path.is_dir():
        by_split = _split_files(path, training)
        tables = {
            split: _joined(
                {file.relative_to(path).as_posix(): _read_file(file) for file in files},
                str(path / split),
            )
            for split, files in by_split.items()
        }
        dialect.say(file for files in by_split.values() for file in files)
        return tables
    rows = _read_file(path)
    dialect.say([path])
    return {"train": _as_table(rows, str(path), [(path.name, rows.num_rows)])}


def _split_files(folder: Path, training: bool) -> dict[str, list[Path]]:
    """The files of each split in `folder`, or in its `data/`, where hub clones keep them."""
    for candidate in (folder, folder / "data"):
        if not candidate.is_dir():
            continue
        found: dict[str, list[Path]] = {}
        for file in sorted(candidate.iterdir()):
            if file.suffix.lower() in SUFFIXES:
                split = standard_split(PART.sub("", file.stem))
                if split in SPLITS:
                    found.setdefault(split, []).append(file)
        for split, files in found.items():
            if len(files) > 1 and not all(PART.search(file.stem) for file in files):
                names = ", ".join(file.name for file in files)
                raise SpaceliteError(
                    f"{candidate} gives {split} more than once ({names}): keep one"
                )
            for part in filter(None, (PART.search(file.stem) for file in files)):
                if len(files) != int(part[1]):
                    raise SpaceliteError(
                        f"{candidate} holds {len(files)} of the {int(part[1])} parts of {split}: "
                        "fetch the rest"
                    )
        if "train" in found or (found and not training):
            return {split: found[split] for split in SPLITS if split in found}
    files_there = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
    if not training:
        raise SpaceliteError(
            f"{folder} has no split: it needs test.csv, .tsv, .json, .jsonl or .parquet (or train "
            f"or validation); it holds {', '.join(files_there[:8]) or 'nothing'}"
        )
    raise SpaceliteError(
        f"{folder} has no train split: it needs train.csv, .tsv, .json, .jsonl or .parquet (and "
        f"validation and test beside it); it holds {', '.join(files_there[:8]) or 'nothing'}"
    )


def _read_file(path: Path) -> pa.Table:
    import pyarrow as pa

    if path.suffix.lower() not in SUFFIXES:
        raise SpaceliteError(f"{path} is not a .csv, .tsv, .json, .jsonl or .parquet file")
    if path.is_dir():
        raise SpaceliteError(
            f"{path} is a folder named like a file: give the file inside it, or rename the folder"
        )
    try:
        if path.stat().st_size == 0:
            raise SpaceliteError(f"{path} is empty: it needs a header and at least one row")
        dialect.check_encoding(path)
        table = _READERS[path.suffix.lower()](path)
        table.validate(full=True)  # the JSON and parquet readers accept any bytes as text
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        problem = one_line(error)
        remedy = "; save it as UTF-8" if re.search("utf-?8", problem, re.IGNORECASE) else ""
        raise SpaceliteError(f"{path} cannot be read: {problem}{remedy}") from error
    names = Counter(table.column_names)
    if len(names) < table.num_columns:
        raise SpaceliteError(
            f"{path} has more than one column {names.most_common(1)[0][0]!r}: rename or remove one"
        )
    return table


def _read_csv(path: Path) -> pa.Table:
    from pyarrow import csv

    read = csv.ReadOptions(block_size=_block_size(path))
    parse = csv.ParseOptions(delimiter=dialect.delimiter(path), newlines_in_values=True)
    with csv.open_csv(path, read_options=read, parse_options=parse) as reader:
        names = reader.schema.names
    # Every column as text: a type guessed from the first rows would turn "007" into 7, or fail
    # on row 100,000. `columns` turns labels into numbers if all of them are numbers.
    convert = csv.ConvertOptions(column_types=dict.fromkeys(names, "string"))
    return csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)


def _block_size(path: Path) -> int:
    """A row has to fit into one block: texts of many megabytes are rare but real."""
    return max(1 << 20, min(path.stat().st_size, (1 << 31) - 1))


def _read_json(path: Path) -> pa.Table:
    """JSON lines, or one JSON list of objects."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    with path.open("rb") as file:
        is_list = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    if is_list:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("the list holds items that are not objects with a text and a label")
        columns = {}
        for name in dict.fromkeys(key for row in rows for key in row):
            try:
                columns[name] = pa.array([row.get(name) for row in rows])
            except (pa.ArrowException, OverflowError) as error:
                raise SpaceliteError(
                    f"{path}: column {name!r} needs values of one type ({one_line(error)})"
                ) from error
        return pa.table(columns)
    options = arrow_json.ReadOptions(block_size=_block_size(path))
    return arrow_json.read_json(path, read_options=options)


def _read_parquet(path: Path) -> pa.Table:
    from pyarrow import parquet

    return parquet.read_table(path)


_READERS = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_json,
    ".parquet": _read_parquet,
}


def _joined(parts: dict[str, pa.Table], origin: str) -> Table:
    """The table of a split, given its files' names and rows."""
    import pyarrow as pa

    sizes = [(name, rows.num_rows) for name, rows in parts.items()]
    try:
        return _as_table(pa.concat_tables(parts.values()), origin, sizes)
    except pa.ArrowException as error:
        raise SpaceliteError(
            f"the parts of {origin} have different columns: {one_line(error)}"
        ) from error


def _as_table(rows: pa.Table, origin: str, sizes: list[tuple[str, int]]) -> Table:
    """The table of a local file; parquet files written by `datasets` contain their label names."""
    names: dict[str, tuple[str, ...]] = {}
    recorded = (rows.schema.metadata or {}).get(b"huggingface")
    if recorded:
        try:
            features = dict(json.loads(recorded)["info"]["features"])
        except (ValueError, KeyError, TypeError):  # not what `datasets` writes
            features = {}
        for column, feature in features.items():
            if isinstance(feature, dict):
                feature = feature.get("feature") or feature  # of a list: that of its values
                if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
                    names[column] = tuple(feature.get("names") or ())
    return Table(rows, names, origin, Sources.of_files(sizes))


def from_hub(
    name: str, config: str | None = None, revision: str | None = None, *, training: bool = True
) -> dict[str, Table]:
    """Load a data set from the hub, or from the local hub cache if there is no network.

    Args:
        name: `owner/name`.
        config: The configuration, if the data set has several.
        revision: Commit, branch or tag; None for the latest.
        training: Whether a train split is needed.

    Returns:
        Split name -> its table: those of train, validation and test that exist.

    Raises:
        SpaceliteError: The data set does not exist, needs a configuration, cannot be reached, or
            has no train split.
    """
    if hub.data_set_is_online(name, revision):
        location, revision_there = name, revision
    else:
        location, revision_there = str(hub.cached_data_set_folder(name, revision)), None

    import datasets

    try:
        loaded = datasets.load_dataset(location, config, revision=revision_there)
    except Exception as error:  # the builders raise whatever their formats raise
        problem = one_line(error).partition(" Example of usage: ")[0]  # of `datasets`, not ours
        remedy = f": dataset={name}:CONFIGURATION" if "Config name is missing" in problem else ""
        raise SpaceliteError(
            f"data set {name!r} cannot be loaded: {problem}{remedy}",
            ["dataset"] if remedy else [],
        ) from error
    return tables_of_datasets(loaded, name, training=training)


def tables_of_datasets(
    loaded: Mapping[str, Any], name: str, *, training: bool = True
) -> dict[str, Table]:
    """Convert a `datasets.DatasetDict` to tables of train, validation and test; other splits
    (imdb's `unsupervised`) are left out. Raises SpaceliteError if there is none of them, or, for
    `training`, no train split."""
    found: dict[str, Table] = {}
    for key, split in loaded.items():
        standard = standard_split(str(key))
        if standard in SPLITS:
            found[standard] = table_of_dataset(split, f"{name} ({key})")
    if not found or (training and "train" not in found):
        there = ", ".join(map(str, loaded)) or "no split at all"
        raise SpaceliteError(f"data set {name!r} has no train split, only {there}")
    return {split: found[split] for split in SPLITS if split in found}


def standard_split(name: str) -> str:
    """The standard name of a split: validation for val, valid and dev; others in lower case."""
    return SPLIT_ALIASES.get(name.lower(), name.lower())
