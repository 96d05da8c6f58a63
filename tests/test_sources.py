"""Files and folders of files, as other programs write them, read as they are or refused."""

import csv
import functools
import gzip
import itertools
import json
import logging
from pathlib import Path

import conftest
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet
from spacelite_cli.options import option

from spacelite.data import loading, readers
from spacelite.data.splits import Table
from spacelite.errors import SpaceliteError

# Texts that a careless reader turns into missing values, numbers, dates or two rows.
TEXTS = [
    "NA",
    "null",
    "007",
    "",
    "1e5",
    "2020-01-01",
    "true",
    "a, b",
    'say "no",\nor not',
    "café 👍",
]


def write(path: Path, columns: dict) -> Path:
    """Write a table the way pandas does, in the format that the suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(columns)
    if path.suffix.lower() == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=path.suffix == ".jsonl")
    return path


def column(table: Table, name: str = "text") -> list:
    return table.rows.column(name).to_pylist()


def refusal(path: Path) -> str:
    return conftest.refusal(readers.from_path, path)


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
def test_a_single_file_is_the_train_split_with_every_text_kept(tmp_path, suffix):
    path = write(tmp_path / f"d.{suffix}", {"text": TEXTS, "label": range(len(TEXTS))})
    tables = readers.from_path(path)
    assert list(tables) == ["train"]
    assert column(tables["train"]) == TEXTS
    assert list(map(str, column(tables["train"], "label"))) == list(map(str, range(len(TEXTS))))


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl"])
def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path, suffix):
    path = write(tmp_path / f"d.{suffix}", {"text": ["a", "b"], "label": [0, 1]})
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert readers.from_path(path)["train"].rows.column_names == ["text", "label"]


def test_csv_with_windows_line_ends_and_empty_lines(tmp_path):
    path = tmp_path / "d.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["text", "label"], ["a\r\nb", 0], [], ["c", 1], []])
    assert column(readers.from_path(path)["train"]) == ["a\r\nb", "c"]


@pytest.mark.parametrize(
    ("name", "content", "delimiter"),
    [
        ("d.csv", "text;label\na, b;0\nc, d;1\n", ";"),
        ("d.csv", "text\tlabel\na, b; c\t0\nd\t1\n", "\t"),
        ("d.tsv", 'text\tlabel\n"a\n; b"\t0\n\nc, d\t1\n', "\t"),
        ("D.TSV", "text,label\na;b,0\nc,1\n", ","),
        ("d.csv", "text,label\na;b,0\nc;d,1\n", ","),
        ("d.csv", "id,text;a,label;b\n1,a;b,c;d\n", ","),  # both would do
        ("d.csv", 'label;text\n0;"a;b\nc;d"\n1;e\n', ";"),
        ("d.csv", "text\na, b\nc; d\n", ","),  # a single column
        ("d.csv", "text;note\na\nb\n", ","),  # a single column, whose name holds a semicolon
        ("d.csv", "text;label\na;0\nb;0;7\nc;1\n", ";"),  # a broken row
        ("d.csv", "text;label\n" + "long " * 60_000 + ";0\nb;1\n", ";"),
        ("d.csv", "text;label\n" + "a, b;0\n" * 50_000, ";"),
        ("d.csv", "", ","),
    ],
)  # fmt: skip
def test_what_separates_the_fields_is_told_by_the_first_rows(tmp_path, name, content, delimiter):
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())
    assert readers.delimiter(path) == delimiter


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\ntext;label\na, b;x\nc;y\n",
        '\ufeff"sep=|"\r\ntext|label\r\na, b|x\r\nc|y\r\n',
        "text;label;;\na, b;x;;\nc;y; ;\n",
        'text,label,\n"a, b",x,\nc,y,\n',
    ],
    ids=["sep", "sep with a mark", "columns", "column"],
)
def test_what_excel_adds_to_a_csv_file_is_left_out(content, tmp_path):
    (tmp_path / "d.csv").write_bytes(content.encode())
    (table,) = readers.from_path(tmp_path / "d.csv").values()
    assert table.rows.to_pylist() == [{"text": "a, b", "label": "x"}, {"text": "c", "label": "y"}]
    rows = readers.open_texts(tmp_path / "d.csv")
    assert list(rows) == table.rows.to_pylist() and rows.columns == ("text", "label")


def test_columns_without_a_name_that_hold_something_stay(tmp_path):
    """An index that pandas has written, and what is left of a name that was deleted."""
    (tmp_path / "d.csv").write_text(",text,label,,\n0,a,x,,\n1,b,y,z,\n")
    with pytest.raises(SpaceliteError, match="more than one column ''"):
        readers.from_path(tmp_path / "d.csv")
    (tmp_path / "d.csv").write_text(",text,label,\n0,a,x,\n1,b,y,\n")
    (table,) = readers.from_path(tmp_path / "d.csv").values()
    assert table.rows.column_names == ["", "text", "label"]
    (tmp_path / "d.csv").write_text('sep=|\ntext|label|\n"a|x|\n')
    with pytest.raises(SpaceliteError, match=r"row 1 cannot be read: the quote of '\"a\|x\|'"):
        readers.from_path(tmp_path / "d.csv")


def test_files_with_semicolons_and_tabs_are_read_and_it_is_said_in_one_line(tmp_path, caplog):
    caplog.set_level(logging.INFO, "spacelite")
    texts = ["a, b", 'c; "d"', "e\nf\tg"]
    for name, delimiter in (("train.csv", ";"), ("validation.csv", "\t"), ("test.tsv", "\t")):
        frame = pd.DataFrame({"text": texts, "label": [0, 1, 0]})
        frame.to_csv(tmp_path / name, sep=delimiter, index=False)
    tables = readers.from_path(tmp_path)
    assert [column(table) for table in tables.values()] == [texts] * 3
    assert caplog.messages == [
        "train.csv: fields are separated by semicolons; "
        "validation.csv: fields are separated by tabs"
    ]
    readers.from_path(tmp_path / "train.csv")
    assert caplog.messages[1:] == ["train.csv: fields are separated by semicolons"]
    readers.from_path(tmp_path / "test.tsv")
    assert len(caplog.messages) == 2  # the name says it


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl"])
def test_utf16_is_refused_with_the_way_out(tmp_path, encoding, suffix):
    mark = "" if encoding == "utf-16" else "\ufeff"
    path = tmp_path / f"d.{suffix}"
    path.write_bytes((mark + "text,label\na,0\nb,1\n").encode(encoding))
    assert refusal(path) == (
        f"{path} is in UTF-16, and only UTF-8 is read: save the file as UTF-8 (in Excel, as the "
        "type CSV UTF-8)"
    )


def test_json_list_in_a_jsonl_file_and_json_lines_in_a_json_file(tmp_path):
    rows = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    (tmp_path / "list.jsonl").write_text(" \n" + json.dumps(rows, indent=1))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rows)))
    for name in ("list.jsonl", "lines.json"):
        assert readers.from_path(tmp_path / name)["train"].rows.to_pylist() == rows


@pytest.mark.parametrize(
    "content",
    [
        '{\n "text": "a",\n "label": "x"\n}\n{\n "text": "b",\n "label": "y"\n}\n',
        '{"text": "a", "label": "x"}\n{"text": "b",\n "label": "y"}',
        '\ufeff{"text": "a", "label": "x"} {"text": "b", "label": "y"}\n\n',
    ],
)
def test_json_objects_may_stand_on_several_lines_or_on_one(tmp_path, content):
    path = tmp_path / "d.jsonl"
    path.write_text(content, encoding="utf-8")
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    assert readers.from_path(path)["train"].rows.to_pylist() == rows
    assert list(readers.open_texts(path)) == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "d.csv",
            'text,label\na,0\n"b" c,1\n',
            "row 2 cannot be read: the quote of '\"b\" c,1'",
        ),
        (
            "d.tsv",
            'text\tlabel\na\t0\n"b\t1\nc\t0\n',
            "row 2 cannot be read: the quote of '\"b\\t1'",
        ),
        ("d.jsonl", '{"text": "a", "text": "b"}\n', "line 1 is not JSON (the key 'text' is given"),
    ],
)
def test_what_would_be_read_wrongly_is_refused_alike_by_embed_and_predict(
    tmp_path, name, content, message
):
    (tmp_path / name).write_text(content)
    assert message in refusal(tmp_path / name)
    assert message in conftest.refusal(readers.open_texts, tmp_path / name)


def test_json_list_whose_first_row_lacks_a_key(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps([{"text": "a"}, {"text": "b", "label": 1}]))
    assert column(readers.from_path(path)["train"], "label") == [None, 1]


@pytest.mark.parametrize("column", ["label", "id"])
def test_json_integers_above_those_of_int64_are_kept_exactly(tmp_path, column):
    path, numbers = tmp_path / "d.jsonl", [2**63 + 5000 * (i % 3) for i in range(12)]
    rows = [{"text": f"a {i}", "label": i % 3} | {column: n} for i, n in enumerate(numbers)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert readers.from_path(path)["train"].rows[column].to_pylist() == numbers
    names = sorted({str(row["label"]) for row in rows})
    assert list(loading.read(str(path)).label_names) == names


def test_json_numbers_of_which_no_float_holds_one_exactly(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a", "score": 0.5}\n{"text": "b", "score": 1152921504606846977}')
    assert readers.from_path(path)["train"].rows["score"].to_pylist() == [0.5, 2.0**60]


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
def test_a_text_larger_than_the_readers_usual_block(tmp_path, suffix):
    texts = ["short", "long " * 500_000, "short"]
    path = write(tmp_path / f"d.{suffix}", {"text": texts, "label": [0, 1, 0]})
    assert column(readers.from_path(path)["train"]) == texts


@pytest.mark.parametrize(
    "names",
    [
        {"train": "train.csv"},
        {"train": "train.csv", "test": "test.jsonl"},
        {"train": "train.json", "validation": "validation.parquet", "test": "test.csv"},
        *(
            {"train": "train.csv", "validation": f"{alias}.csv"}
            for alias in ("val", "valid", "dev")
        ),
        {"train": "Train.CSV", "test": "TEST.csv"},
        {"train": "data/train.csv", "test": "data/test.csv"},
        {
            "train": "data/train-00000-of-00001.parquet",
            "validation": "data/val-00000-of-00001.parquet",
        },
    ],
    ids=lambda names: " ".join(names.values()),
)
def test_a_folders_splits_by_file_name_in_their_usual_order(tmp_path, names):
    for split, name in reversed(names.items()):
        write(tmp_path / name, {"text": [split], "label": [0]})
    (tmp_path / "README.md").write_text("no split")
    write(tmp_path / "train_extra.csv", {"text": ["no split"], "label": [0]})
    tables = readers.from_path(tmp_path)
    assert list(tables) == list(names)
    assert all(column(table) == [split] for split, table in tables.items())


def test_shards_are_joined_in_order(tmp_path):
    for number in (1, 0, 2):
        path = tmp_path / f"train-0000{number}-of-00003.parquet"
        write(path, {"text": [f"{number}a", f"{number}b"], "label": [0, 1]})
    expected = ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert column(readers.from_path(tmp_path)["train"]) == expected


def test_shards_with_other_columns_are_refused(tmp_path):
    write(tmp_path / "train-00000-of-00002.parquet", {"text": ["a"], "label": [0]})
    write(tmp_path / "train-00001-of-00002.parquet", {"text": ["a"], "stars": [0]})
    message = refusal(tmp_path)
    assert "different columns" in message
    assert "stars" in message


@pytest.mark.parametrize(
    ("files", "split", "listed"),
    [
        (["train.csv", "train.json"], "train", "train.csv, train.json"),
        (["train.csv", "dev.csv", "val.csv"], "validation", "dev.csv, val.csv"),
        (["train.csv", "train-00000-of-00001.csv"], "train", "train-00000-of-00001.csv, train.csv"),
    ],
)
def test_a_split_given_twice_is_refused(tmp_path, files, split, listed):
    for name in files:
        write(tmp_path / name, {"text": ["a"], "label": [0]})
    assert f"gives {split} more than once ({listed}): keep one" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("files", "holds"),
    [([], "nothing"), ([".hidden"], "nothing"), (["test.csv", "notes.txt"], "notes.txt, test.csv")],
)
def test_a_folder_without_a_train_split_is_refused_with_what_it_holds(tmp_path, files, holds):
    for name in files:
        (tmp_path / name).write_text("text,label\na,0\n")
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path} has no train split: it needs train.csv")
    assert message.endswith(f"it holds {holds}")


LATIN = "text,label\n" + "caf\xe9,0\n" * 3
LINES = '{"text": "caf\xe9", "label": 0}\n' * 3


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("d.csv", b"", "is empty"),
        ("d.jsonl", b"", "is empty"),
        ("d.parquet", b"", "is empty"),
        ("d.txt", b"a\t0", "is not a .csv, .tsv, .json, .jsonl or .parquet file"),
        ("d.csv", b"text,label\na,0\nb,1,2\n", "row 2 does not have as many fields as the header"),
        (
            "d.csv",
            b'text,label\n"a,0\nb,1\n',
            "row 1 cannot be read: the quote of",
        ),
        ("d.csv", b"\n\n", "Empty CSV file"),
        ("d.csv", LATIN.encode("latin-1"), "row 1 is not UTF-8: save the file as UTF-8"),
        ("d.jsonl", LINES.encode("latin-1"), "save it as UTF-8"),
        ("d.json", f"[{LINES}]".encode("latin-1"), "save it as UTF-8"),
        ("d.csv", b"text,text,label\na,b,0\n", "more than one column 'text': rename or remove one"),
        ("d.json", b'[{"text": "a", "label": 0},', "cannot be read"),
        ("d.jsonl", b'{"text": "a", "label": 0}\n{"text": "b', "line 2 is not JSON"),
        ("d.json", b"[1, 2]", "the list holds items that are not objects"),
        ("d.json", b"5", "line 1 is not an object with a text"),
        ("d.json", b"[" * 100_000, "cannot be read"),
        ("d.json", b'[{"text": "a", "label": 0}, {"text": "b", "label": "x"}]', "column 'label'"),
        ("d.json", b'[{"text": "a", "label": 0}, {"text": 7, "label": 1}]', "column 'text'"),
        ("d.json", b'[{"text": "a", "label": 99999999999999999999}]', "column 'label'"),
        ("d.jsonl", b'{"text": "a", "label": 0}\n{"text": "b", "label": "x"}\n', "column 'label'"),
        (
            "d.jsonl",
            b'{"text": "a", "n": 0}\n\n{"text": "b", "n": []}\n',
            "row 2 has a list, those",
        ),
        (
            "d.jsonl",
            b'{"text": "a"}\n{"text": "\\ud83d"}\n',
            "row 2 has a 'text' that",
        ),
        ("d.parquet", b"text,label\na,0\n", "cannot be read"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    message = conftest.refusal(loading.read, str(path))
    assert message.startswith(str(path))
    assert expected in message


def test_a_parquet_file_cut_anywhere_is_refused(tmp_path):
    path = write(tmp_path / "d.parquet", {"text": TEXTS, "label": range(len(TEXTS))})
    whole = path.read_bytes()
    for size in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert refusal(path).startswith(f"{path} cannot be read")


def test_a_parquet_file_with_texts_that_are_no_utf8_is_refused(tmp_path):
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"caf\xe9"]).buffers())
    parquet.write_table(pa.table({"text": broken, "label": [0]}), tmp_path / "d.parquet")
    assert "save it as UTF-8" in refusal(tmp_path / "d.parquet")


def test_a_folder_named_like_a_file_is_refused(tmp_path):
    (tmp_path / "train.csv").mkdir()
    expected = f"{tmp_path / 'train.csv'} is a folder named like a file: give the file inside it"
    assert refusal(tmp_path).startswith(expected)
    assert "holds nothing" in refusal(tmp_path / "train.csv")


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.int64(), pa.binary()], ids=str
)
def test_string_columns_of_every_arrow_type_are_told(kind):
    rows = pa.table({"it": pa.array([], kind)})
    assert Table(rows, {}, "").is_string("it") == ("string" in str(kind))


def test_label_names_come_along_in_parquet_that_datasets_exported(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos"])})
    Dataset.from_dict({"text": ["a"], "label": [1]}, features).to_parquet(tmp_path / "d.parquet")
    table = readers.from_path(tmp_path / "d.parquet")["train"]
    assert table.class_names == {"label": ("neg", "pos")}


@pytest.mark.parametrize("recorded", ["{broken", "[]", "{}", '{"info": null}', '{"info": {}}'])
def test_metadata_that_only_looks_like_that_of_datasets_is_passed_over(tmp_path, recorded):
    rows = pa.table({"text": ["a"], "label": [0]}).replace_schema_metadata(
        {"huggingface": recorded}
    )
    parquet.write_table(rows, tmp_path / "d.parquet")
    assert readers.from_path(tmp_path / "d.parquet")["train"].class_names == {}


def test_json_numbers_that_would_become_one_float_are_refused_as_labels(tmp_path):
    path = tmp_path / "d.jsonl"
    labels = [2**53, 2**53 + 1, 1.0]
    path.write_text("\n".join(json.dumps({"text": "a", "label": label}) for label in labels))
    assert "column 'label' needs values of one type" in conftest.refusal(loading.read, str(path))


def test_a_json_column_without_a_common_type_is_refused_where_it_is_asked_for(tmp_path):
    path = tmp_path / "posts.jsonl"
    meta = ["x", {"a": 1}, "y", 2]
    rows = [
        {"text": f"text {i}", "label": ["neg", "pos"][i % 2], "meta": meta[i]} for i in range(4)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert loading.read(str(path)).label_names == ("neg", "pos")
    message = f"{path}: column 'meta' needs values of one type, and row 2 has an object"
    for asked in ({"label_column": "meta"}, {"text_column": "meta"}):
        assert conftest.refusal(loading.read, str(path), **asked).startswith(message)
    folder = tmp_path / "posts"
    folder.mkdir()
    for number, part in enumerate((rows[:1], rows[1:])):
        content = "".join(f"{json.dumps(row)}\n" for row in part)
        (folder / f"train-0000{number}-of-00002.jsonl").write_text(content)
    assert len(loading.read(str(folder)).splits["train"]) == 3


# Small files of the kinds that people have: what the label column is read as, or why it is not.
WORDS = [f"{adjective} {noun}" for adjective in ("fine", "dull") for noun in ("film", "plot")] * 3


def lines(labels, **further) -> str:
    """JSON lines with these labels."""
    columns = {name: itertools.cycle(values) for name, values in further.items()}
    rows = [
        {"text": text, "label": label} | {name: next(values) for name, values in columns.items()}
        for text, label in zip(WORDS, itertools.cycle(labels), strict=False)
    ]
    return "".join(f"{json.dumps(row)}\n" for row in rows)


def table(labels, mark=",", quote="{}") -> str:
    """A csv table with these labels; `quote` is what stands around a text."""
    pairs = zip(WORDS, itertools.cycle(labels), strict=False)
    return f"text{mark}label\n" + "".join(
        f"{quote.format(text)}{mark}{label}\n" for text, label in pairs
    )


def with_lone_quote(content: str) -> str:
    """The same table with a quote before the text of row 5 and before that of row 9."""
    rows = content.splitlines(keepends=True)
    return "".join(f'"{row}' if number in (5, 9) else row for number, row in enumerate(rows))


LONE = (
    "row {} cannot be read: the quote of '\"fine film{}' is not closed where the text ends: close "
    "it there, and write quotes inside the text twice; or give --quoting none if quotes are "
    "ordinary characters"
)
CASES = {
    "lone-quote.tsv": (with_lone_quote(table("ab", "\t")), {}, LONE.format(5, "\\ta")),
    "lone-quote.csv": (with_lone_quote(table("ab")), {}, LONE.format(5, ",a")),
    "inches.tsv": (table("ab", "\t", '"{}" 12 inches'), {}, LONE.format(1, '" 12 inches\\ta')),
    "lone-quote-read.tsv": (with_lone_quote(table("ab", "\t")), {"quoting": "none"}, ("a", "b")),
    "inches-read.tsv": (table("ab", "\t", '"{}" 12 inches'), {"quoting": "none"}, ("a", "b")),
    "late-string.jsonl": (
        lines([1, 2, 3, 4, 5, "6"]),
        {},
        "column 'label' needs values of one type, and row 6 has a string, those before it a "
        "number: write them alike",
    ),
    "indented.jsonl": (
        "".join(f"{json.dumps(json.loads(row), indent=2)}\n" for row in lines("ab").splitlines()),
        {},
        ("a", "b"),
    ),
    "mixed-column.jsonl": (lines("ab", meta=["x", {"a": 1}]), {}, ("a", "b")),
    "half-of-a-pair.jsonl": (
        lines("ab").replace("dull film", "dull \\ud83d film"),
        {},
        "row 3 has a 'text' that is not valid Unicode: correct or remove it",
    ),
    "above-2-53.jsonl": (
        lines([2**53, 2**53 + 1, 2**63 + 1]),
        {},
        ("9007199254740992", "9007199254740993", "9223372036854775809"),
    ),
    "three-signs.csv": (table([-1, 0, 1]), {}, ("-1", "0", "1")),
    "two-signs.csv": (table([-1, 1]), {}, ("-1", "1")),
    "tags.csv": (
        table(["a;b", "a;c", "b;c"]),
        {},
        "labels such as 'a;b' are several labels in one string: give --label-separator ';' to "
        "separate them, or --labels-as text if each is one label",
    ),
    "tags-separated.csv": (table(["a;b", "a;c"]), {"label_separator": ";"}, ("a", "b", "c")),
    "names.csv": (table(["a=b", "ü 👍", '"two\nlines"']), {}, ("a=b", "two\nlines", "ü 👍")),
    "packed.csv": (gzip.compress(table("ab").encode()), {}, "is gzip-compressed: unpack it"),
    "latin-1.csv": (
        table("ab").replace("dull film", "dull café").encode("latin-1"),
        {},
        "row 3 is not UTF-8: save the file as UTF-8 (in Excel, as the type CSV UTF-8)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_embed_eval_and_predict_read_a_file_alike(tmp_path, name):
    content, asked, expected = CASES[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    quoting = {key: value for key, value in asked.items() if key == "quoting"}
    readings = {
        "embed": functools.partial(loading.read, path, **asked),
        "eval": functools.partial(loading.read, path, training=False, **asked),
        "predict": functools.partial(readers.open_texts, path, **quoting),
    }
    if isinstance(expected, tuple):
        for reading in ("embed", "eval"):
            data = readings[reading]()
            assert data.label_names == expected
            assert sum(map(len, data.splits.values())) == len(WORDS)
        rows = readings["predict"]()
        texts = [row["text"] for row in rows]
        assert rows.count == len(WORDS) and len(texts) == len(WORDS)
        assert set(texts) == {text for split in data.splits.values() for text in split.texts}
        return
    about_labels = "label" in expected
    for reading, read in readings.items():
        if about_labels and reading == "predict":
            assert read().count == len(WORDS)  # it needs no label
            continue
        with pytest.raises(SpaceliteError) as caught:
            read()
        message = caught.value.for_options(option)
        assert expected in message and "\n" not in message
        assert "Arrow" not in message and "codec" not in message


def test_rows_that_quotes_join_are_a_warning(tmp_path, caplog):
    path = tmp_path / "d.tsv"
    joined = 'about a film\tneg\n"that of 12\tpos\nbecomes 15"\tneg\n'
    path.write_text("text\tlabel\n" + joined + "a\tneg\nb\tpos\n")
    assert readers.open_texts(path).count == 4
    message = (
        f"{path}: row 2 looks like 2 rows within quotes: give quoting='none' if quotes are "
        "ordinary characters"
    )
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.getMessage() for record in warnings] == [message]
    assert readers.open_texts(path, quoting="none").count == 5
    # Texts of several lines with commas are no rows.
    path = tmp_path / "d.csv"
    path.write_text('text,label\n"Good, but\nslow",pos\n"Dull,\nand long",neg\n"a, b",neg\n')
    caplog.clear()
    caplog.set_level(logging.WARNING)
    assert readers.from_path(path)["train"].rows.num_rows == 3
    assert not caplog.records


@pytest.mark.parametrize("given", ["d.jsonl", "d.parquet", "d.txt", "object"])
def test_quoting_is_refused_where_it_has_no_effect(tmp_path, given):
    rows = {"text": ["a", "b"], "label": [0, 1]}
    if given.startswith("d."):
        write(tmp_path / given, rows)
        given = tmp_path / given
    message = "quoting=none is about csv and tsv files, and"
    if given != tmp_path / "d.txt":
        dataset = pd.DataFrame(rows) if given == "object" else given
        assert message in conftest.refusal(loading.read, dataset, quoting="none")
    if isinstance(given, Path):
        assert message in conftest.refusal(readers.open_texts, given, quoting="none")
    path = write(tmp_path / "d.csv", rows)
    assert "choose from standard, none" in conftest.refusal(loading.read, path, quoting="all")


@pytest.mark.parametrize(
    "given",
    [
        {"text_column": "text"},
        {"label_column": "label"},
        {"labels_as": "text"},
        {"label_separator": ";"},
        {"skip_empty": True},
        {"quoting": "none"},
    ],
    ids=str,
)
def test_built_in_data_have_no_columns_to_choose(given):
    ((name, value),) = given.items()
    message = conftest.refusal(loading.read, "demo", **given)
    assert message == f"{name}={value} has no effect on demo, a built-in data set: leave it out"
