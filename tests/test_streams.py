"""Data sets that do not fit into memory: files are read a few rows at a time, and texts stay on
disk."""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import logging
import os
import sys
from pathlib import Path
from tempfile import SpooledTemporaryFile

import numpy as np
import pyarrow as pa
import pytest
from conftest import refusal
from pyarrow import parquet

from spacelite.data import loading as data
from spacelite.data import readers, splits

ROWS = [
    ("two\nlines", "pos"),
    ("three\r\nlines, and\n\nmore", "neg"),
    ('a "quoted" word', "pos"),
    ("a\0b", "pos"),
    ("naïve 日本 😀", "neg"),
    ("\ufefftext", "pos"),
    (" spaces ", "neg"),
    ("A good film", "neg"),
    ("a  GOOD film", "neg"),
    *((f"text {i}", ("pos", "neg")[i % 2]) for i in range(20)),
]
TEXTS, LABELS = map(list, zip(*ROWS, strict=True))


@pytest.fixture
def few(monkeypatch):
    """A few rows at a time, all on disk."""
    monkeypatch.setattr(readers, "ROWS_PER_READ", 2)
    monkeypatch.setattr(readers, "MOST_IN_MEMORY", 1)
    monkeypatch.setattr(splits, "AT_ONCE", 3)


def write(path, **columns):
    """A table in the form that the file's suffix names."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(columns), path, row_group_size=3)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), "utf-8-sig")
    else:
        with io.StringIO(newline="") as file:
            writer = csv.writer(file, lineterminator="\r\n")
            writer.writerows([columns, *zip(*columns.values(), strict=True)])
            path.write_bytes(file.getvalue().encode("utf-8-sig"))
    return path


def content(dataset):
    """All that a data set holds."""
    return dataset.fingerprint, dataset.label_names, {
        name: (
            [*split.texts], split.labels.tolist(), split.sources.files,
            split.sources.file.tolist(), split.sources.row.tolist(), split.sources.sizes,
        )
        for name, split in dataset.splits.items()
    }  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    "how",
    [{}, {"limit": 6}, {"test_fraction": 0.3}, {"labels_as": "text"}],
    ids=["whole", "limit", "test", "text"],
)
def test_a_few_rows_at_a_time_give_the_same_data(tmp_path, request, suffix, how):
    path = write(tmp_path / f"data{suffix}", text=TEXTS, label=LABELS)
    whole = data.read(str(path), **how)
    request.getfixturevalue("few")
    read = data.read(str(path), **how)
    assert content(read) == content(whole)
    of_path = {(text, row) for row, text in enumerate(TEXTS, 1)}
    for split in read.splits.values():
        assert split.texts.mapped and {*zip(split.texts, split.sources.row, strict=True)} <= of_path
    if "limit" not in how:
        assert sum(map(len, read.splits.values())) == len(TEXTS)


def test_rows_of_a_folder_and_of_named_splits(tmp_path, few):
    """Parts of a split, and splits that alternate row by row."""
    halves = [TEXTS[:14], TEXTS[14:]]
    for number, texts in enumerate(halves):
        path = tmp_path / "folder" / f"train-0000{number}-of-00002.csv"
        path.parent.mkdir(exist_ok=True)
        write(path, text=texts, label=LABELS[: len(texts)])
    write(tmp_path / "folder" / "dev.csv", text=["x", "y"], label=["pos", "neg"])
    read = data.read(str(tmp_path / "folder")).splits
    assert read["train"].texts == TEXTS and read["validation"].texts == ["x", "y"]
    assert read["train"].sources.file.tolist() == [0] * 14 + [1] * 15
    assert read["train"].sources.row.tolist() == [*range(1, 15), *range(1, 16)]
    names = [("train", "Dev", "test")[row % 3] for row in range(len(TEXTS))]
    path = write(tmp_path / "one.parquet", text=TEXTS, label=LABELS, split=names)
    read = data.read(str(path)).splits
    for number, split in enumerate(("train", "validation", "test")):
        assert read[split].texts == TEXTS[number::3]
        assert read[split].labels.tolist() == [label == "pos" for label in LABELS[number::3]]
        assert read[split].sources.row.tolist() == [*range(number + 1, len(TEXTS) + 1, 3)]


def test_empty_texts_are_named_by_their_rows(tmp_path, few, caplog):
    caplog.set_level(logging.INFO)
    texts = [text if row % 5 else " \n" for row, text in enumerate(TEXTS)]
    path = write(tmp_path / "data.csv", text=texts, label=LABELS)
    assert "rows 1, 6, 11 and 3 more have an empty 'text'" in refusal(data.read, str(path))
    read = data.read(str(path), skip_empty=True)
    assert sum(map(len, read.splits.values())) == len(TEXTS) - 6
    assert (
        "6 rows are left out, because the text is empty (rows 1, 6, 11 and 3 more)" in caplog.text
    )


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ([1, 2.5, 1, 2], [1.0, 2.5, 1.0, 2.0]),  # whole numbers, then others
        ([None, None, "a", "b"], [None, None, "a", "b"]),
        ([[], [], ["a"], [None]], [[], [], ["a"], [None]]),
        ([[1], [1], [2.5], []], [[1.0], [1.0], [2.5], []]),
        ([{"a": 1}, None, {"b": "x"}, {}], [
            {"a": 1, "b": None}, None, {"a": None, "b": "x"}, {"a": None, "b": None},
        ]),
        ([1, 2, 2**63, 4], [1, 2, 2**63, 4]),
        ([0.5, 2.0, 2**60 + 1, 1], [0.5, 2.0, float(2**60 + 1), 1.0]),
    ],
    ids=["numbers", "missing", "empty lists", "lists", "records", "large", "inexact"],
)  # fmt: skip
def test_types_of_json_columns_are_those_of_all_rows(tmp_path, few, column, expected):
    path = write(tmp_path / "data.jsonl", text=["a", "b", "c", "d"], other=column)
    table = readers.from_path(path)["train"]
    assert [*table.column("other")] == expected and table.names == ["text", "other"]
    assert [*map(type, table.column("other"))] == [*map(type, expected)]


def test_values_of_no_common_type_are_named_if_they_are_asked_for(tmp_path, few):
    path = write(
        tmp_path / "data.jsonl",
        text=[*TEXTS[:6]], label=[*LABELS[:6]], other=["a", "b", "c", "d", 5, None],
        half=["a", "b", "c", "\ud83d", "d", "e"],
    )  # fmt: skip
    assert len(data.read(str(path)).splits["train"]) == 5
    found = refusal(data.read, str(path), label_column="other")
    assert "column 'other' needs values of one type, and row 5 has a number" in found
    found = refusal(data.read, str(path), label_column="half")
    assert "row 4 has a 'half' that is not valid Unicode" in found


def test_texts_on_disk_are_a_sequence(tmp_path, few):
    path = write(tmp_path / "data.parquet", text=TEXTS, label=LABELS)
    texts = readers.from_path(path)["train"].column("text")
    assert len(texts) == len(TEXTS) and [*texts] == TEXTS and texts == TEXTS
    assert texts != TEXTS[:-1] and texts != [*TEXTS[:-1], "other"]
    for at in (0, 7, -1, -len(TEXTS), np.int64(3)):
        assert texts[at] == TEXTS[at]
    for at in (slice(3, 11), slice(None), slice(20, 2, -3), slice(5, 5), slice(-4, 99)):
        assert texts[at] == TEXTS[at]
    with pytest.raises(IndexError):
        texts[len(TEXTS)]
    rows = np.array([28, 0, 0, 13, 5])
    assert texts.take(rows) == [TEXTS[row] for row in rows]
    assert texts.take(rows).take(np.array([3, 0])) == [TEXTS[13], TEXTS[28]]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_what_is_on_disk_has_no_name_and_lies_beside_the_cache(tmp_path, few):
    path = write(tmp_path / "data.jsonl", text=TEXTS, label=LABELS)
    folder = tmp_path / "beside"
    folder.mkdir()

    def mapped():
        return Path("/proc/self/maps").read_text().count(str(folder))

    read = data.read(str(path), scratch=folder / "cache" / "new")
    assert mapped() == 1 and not [*folder.iterdir()]
    assert read.splits["train"].texts[0] in TEXTS
    del read
    assert mapped() == 0


def test_a_full_disk_is_said_in_one_line(tmp_path, few, monkeypatch):
    class Full(SpooledTemporaryFile):
        def write(self, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = write(tmp_path / "data.csv", text=TEXTS, label=LABELS)
    monkeypatch.setattr(readers, "SpooledTemporaryFile", Full)
    assert refusal(data.read, str(path), scratch=tmp_path) == (
        f"{tmp_path} cannot be written: No space left on device; free some space, or choose "
        "another cache_dir"
    )


def test_digests_are_grouped_as_a_dictionary_does_it():
    """Those that end in zeros too, which numpy's strings do not tell apart by their length."""
    some = [bytes([number, 0, 7, *[0] * 13]) for number in range(4)]
    some += [bytes([1, *[0] * 15]), bytes(16), bytes([*[0] * 15, 1])]
    order = np.random.default_rng(0).integers(0, len(some), 60).tolist()
    of = [some[number] for number in order]
    first = {key: number for number, key in enumerate(dict.fromkeys(of))}
    array = np.frombuffer(b"".join(of), splits.DIGEST)
    assert splits.groups(array).tolist() == [first[key] for key in of]
    assert splits.occur_in(array, array[:5]).tolist() == [key in of[:5] for key in of]
    nothing = splits.digests([])
    assert not len(splits.groups(nothing)) and not splits.occur_in(array, nothing).any()
    assert (
        splits.digests([b"a", b"b"])[1].tobytes() == hashlib.blake2b(b"b", digest_size=16).digest()
    )
