"""A csv file -> what separates its fields, and whether its encoding can be read."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterable
from pathlib import Path

from spacelite.errors import SpaceliteError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
CSV_SUFFIXES = (".csv", ".tsv")
ROWS, BYTES = 20, 1 << 18  # the first of a file, which are looked at
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")

log = logging.getLogger(__name__)


def expected(path: Path) -> str:
    """What separates the fields of a file, by its name: a tab in .tsv files, else a comma."""
    return "\t" if path.suffix.lower() == ".tsv" else ","


def delimiter(path: Path) -> str:
    """What separates the fields of a csv file: a comma, a semicolon or a tab.

    It is the one that splits the header and the first rows into the same number of fields, at least
    two; that of the file's name if several do. If none does, as in a file with a broken row, it is
    one that splits the header and a row alike; in a file with a single column, that of its name.

    Args:
        path: The file, in UTF-8, with or without a byte order mark.
    """
    with path.open("rb") as file:
        start = file.read(BYTES)
        whole = not file.read(1)
    text = start.decode("utf-8-sig", errors="replace")
    usual = expected(path)
    order = [usual, *(each for each in DELIMITERS if each != usual)]
    counts = {each: _fields(text, each, whole) for each in order}
    for each, found in counts.items():
        if found and found[0] > 1 and len(set(found)) == 1:
            return each
    for each, found in counts.items():
        if found and found[0] > 1 and found[0] in found[1:]:
            return each
    return usual


def _fields(text: str, delimiter: str, whole: bool) -> list[int]:
    """The number of fields of the first rows; a row that the text may have cut is left out."""
    counts = []
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter):
            if row:
                counts.append(len(row))
            if len(counts) > ROWS:
                return counts[:ROWS]
    except csv.Error:  # a field of more than 128 KB
        return counts
    return counts if whole or len(counts) < 2 else counts[:-1]


def say(paths: Iterable[Path]) -> None:
    """Log, in one line, which csv files have separators that their names do not say."""
    unusual: dict[str, list[str]] = {}
    for path in paths:
        if path.suffix.lower() in CSV_SUFFIXES and path.is_file():
            found = delimiter(path)
            if found != expected(path):
                unusual.setdefault(found, []).append(path.name)
    if unusual:
        said = [
            f"{', '.join(names)}: fields are separated by {DELIMITERS[each]}"
            for each, names in unusual.items()
        ]
        log.info("%s", "; ".join(said))


def check_encoding(path: Path) -> None:
    """Raise SpaceliteError if a file begins with the byte order mark of UTF-16: only UTF-8 is
    read."""
    with path.open("rb") as file:
        start = file.read(2)
    if start in UTF16_MARKS:
        raise SpaceliteError(
            f"{path} is in UTF-16, and only UTF-8 is read: save it as UTF-8 (in Excel, as the type "
            "CSV UTF-8)"
        )
