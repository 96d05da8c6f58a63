"""classify.py, the program in an export: what it reads, prints and refuses."""

import csv
import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from conftest import texts, write_dataset

import spacelite
from spacelite import files
from spacelite.export.onnx import loaded

# A table as spreadsheets write it: a byte order mark, quotes, a line break in a text.
TABLE = '\ufeffid,text,label\n1,"a good film, well acted",x\n2,"bad\nand dull",y\n3,中文 🎉,z\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bert):
    sizes = {"train": 60, "validation": 20, "test": 20}
    data = write_dataset(tmp_path_factory.mktemp("runner") / "data", sizes, classes=3)
    cache = spacelite.embed(
        str(data), backbone=bert, cache_dir=data.parent / "cache", device="cpu", max_length=20,
        progress=False,
    )  # fmt: skip
    (run,) = spacelite.train(cache, head="tfidf", progress=False)
    return run.export("onnx", data.parent / "out", progress=False).path


@pytest.fixture
def classify(folder, monkeypatch, capsys):
    """Run the program: its exit status, output and messages."""
    module = loaded(folder / "classify.py")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["classify.py", *map(str, arguments)])
        status = module.main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return status, captured.out, captured.err

    return call


def refused(answer):
    """The line that the program ended with."""
    status, out, err = answer
    assert status == 1 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_texts_are_classified_one_per_line(classify):
    status, out, err = classify("a good film", "bad\x1b[2J\nplot")
    first, second = out.splitlines()
    label, chance = first.split("\t")[0].rsplit(" ", 1)
    assert status == 0 and err == "" and label in ("0", "1", "2") and 0 < float(chance) < 1
    assert second.endswith(r"bad\x1b[2J\nplot")


def test_json_holds_all_probabilities(classify):
    _, out, _ = classify("--json", "a good film", "naïve 中文 🎉")
    documents = json.loads(out)
    assert [document["text"] for document in documents] == ["a good film", "naïve 中文 🎉"]
    for document in documents:
        assert sum(document["probabilities"].values()) == pytest.approx(1)
        assert document["label"] == max(
            document["probabilities"], key=document["probabilities"].get
        )
    assert documents[0]["unknown"] == 0 and documents[1]["unknown"] > 0


def test_words_add_up_to_the_logit(classify):
    _, out, _ = classify("--explain", "a good film was not good")
    lines = [line.split() for line in out.splitlines() if line[:1] in " +-" and line.strip()]
    numbers = {word: float(share) for share, word in lines if word in ("(bias)", "(logit)")}
    shares = [float(share) for share, word in lines if word not in numbers]
    assert len(shares) == 8 and abs(shares[0]) >= abs(shares[1])
    assert sum(shares) + numbers["(bias)"] == pytest.approx(numbers["(logit)"], abs=1e-3)
    _, out, _ = classify("--explain", "--json", "a good film")
    (document,) = json.loads(out)
    assert [word["text"] for word in document["words"]] == ["[CLS]", "a", "good", "film", "[SEP]"]


def test_a_table_keeps_its_columns(classify, tmp_path):
    (tmp_path / "posts.csv").write_text(TABLE)
    out = tmp_path / "classified.tsv"
    status, said, _ = classify("--file", tmp_path / "posts.csv", "--out", out)
    assert status == 0 and said == f"3 texts classified, written to {out}\n"
    rows = list(csv.DictReader(out.open(newline=""), delimiter="\t"))
    assert list(rows[0]) == [
        "id", "text", "label", "predicted_label", "unknown",
        "probability_0", "probability_1", "probability_2",
    ]  # fmt: skip
    assert [row["text"] for row in rows] == ["a good film, well acted", "bad\nand dull", "中文 🎉"]
    _, given, _ = classify("--json", *(row["text"] for row in rows))
    for row, prediction in zip(rows, json.loads(given), strict=True):
        assert row["predicted_label"] == prediction["label"]
        for name, value in prediction["probabilities"].items():
            assert float(row[f"probability_{name}"]) == pytest.approx(value, rel=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classified.tsv", "posts.csv"]


def test_names_in_capitals_are_of_tables_too(classify, tmp_path):
    (tmp_path / "POSTS.CSV").write_text("id,text\n1,a good film\n")
    out = tmp_path / "OUT.TSV"
    status, said, _ = classify("--file", tmp_path / "POSTS.CSV", "--out", out)
    assert status == 0 and said == f"1 text classified, written to {out}\n"
    (row,) = csv.DictReader(out.open(newline=""), delimiter="\t")
    assert (row["id"], row["text"]) == ("1", "a good film")


def test_a_full_disk_is_said_in_one_line(folder):
    device = Path("/dev/full")
    if not device.exists():
        pytest.skip("there is no such device")
    for given in (["a"], ["--json", "a"], ["--json", *["a good film"] * 300]):
        with device.open("w") as full:
            done = subprocess.run(
                [sys.executable, "-B", str(folder / "classify.py"), *given],
                stdout=full, stderr=subprocess.PIPE, text=True, check=False,
            )  # fmt: skip
        problem = "error: standard output cannot be written: No space left on device\n"
        assert (done.returncode, done.stderr) == (1, problem)


def test_a_file_of_lines(classify, tmp_path):
    (tmp_path / "lines.txt").write_text("good film\r\nbad plot\n")
    _, out, _ = classify("--file", tmp_path / "lines.txt")
    assert [line.split("\t")[1] for line in out.splitlines()] == ["good film", "bad plot"]


def test_long_texts_are_counted(classify):
    status, _, err = classify(" ".join(texts(30, seed=1)), "short")
    assert status == 0 and err == "texts of more than 20 tokens, which were cut off: 1\n"


def test_bad_input_is_one_line(classify, tmp_path):
    table = tmp_path / "posts.csv"
    table.write_text("id,body\n1,good\n2,\n")
    (tmp_path / "short.csv").write_text("text,id\ngood\n")
    (tmp_path / "latin.csv").write_bytes("text\ncaf\xe9\n".encode("latin-1"))
    (tmp_path / "quote.csv").write_text('text\n"good\n')
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "none.csv").write_text("text\n")
    (tmp_path / "lines.txt").write_text("good\n\nbad\n")
    (tmp_path / "twice.csv").write_text("text,id,text\ngood,1,bad\n")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "taken.csv").mkdir()
    for name in ("a.json", "a.jsonl", "a.JSONL", "a.parquet"):
        (tmp_path / name).write_text('{"text": "good"}\n')
        message = refused(classify("--file", tmp_path / name))
        assert f"{name}: give a table (.csv or .tsv), or a file with a text per line" in message
    out = tmp_path / "out.csv"
    wanted = {
        ("", "good"): "text 1 is empty",
        ("a", "\ud800"): "text 2 is not valid Unicode",
        ("a", "--file", table): "texts or --file, not both",
        ("--file", table): "name one of its columns as --text-column: id, body",
        ("--file", table, "--text-column", "title"): "there is no column 'title'",
        ("--file", table, "--text-column", "body", "--out", out): "the text of row 2 is empty",
        ("--file", tmp_path / "short.csv"): "row 1 does not have 2 fields",
        ("--file", tmp_path / "latin.csv"): "is not UTF-8",
        ("--file", tmp_path / "quote.csv"): "is no such table",
        ("--file", tmp_path / "empty.csv"): "no column is called text",
        ("--file", tmp_path / "none.csv", "--out", out): "there is no text",
        ("--file", tmp_path / "none.csv"): "there is no text",
        ("--file", tmp_path / "lines.txt"): "line 2 is empty",
        ("--file", tmp_path / "absent.csv"): "No such file",
        ("--file", tmp_path / "lines.txt", "--text-column", "a"): "no columns: leave",
        ("--text-column", "a", "text"): "--text-column needs --file",
        ("--out", tmp_path / "out.xlsx", "text"): "ends in .csv or .tsv",
        ("--out", out, "--json", "text"): "without --explain and --json",
        ("--file", tmp_path / "twice.csv"): "twice.csv has more than one column 'text': rename",
        ("--file", tmp_path / "folder.txt"): "folder.txt cannot be read: Is a directory",
        (
            "--out",
            tmp_path / "no" / "out.csv",
            "text",
        ): "no/out.csv cannot be written: No such file",
        ("--out", tmp_path / "taken.csv", "text"): "/taken.csv cannot be written: Is a directory",
        ("--threads", "0", "text"): "give at least 1",
        ("--folder", tmp_path, "text"): "has no classifier that can be read",
    }
    for arguments, message in wanted.items():
        assert message in refused(classify(*arguments)), arguments
    assert not out.exists() and not [*tmp_path.glob(".*")]


def test_a_folder_of_a_later_version_is_refused(classify, folder, tmp_path):
    content = json.loads((folder / "classifier.json").read_text())
    (tmp_path / "classifier.json").write_text(json.dumps({**content, "format": 2}))
    assert "has format 2, this classify.py reads 1" in refused(classify("--folder", tmp_path, "a"))


def test_a_damaged_export_is_refused_in_one_line_that_names_the_file(classify, folder, tmp_path):
    """Every byte of what it reads is covered: files cut short or emptied, a flipped bit in each,
    and settings that would give other numbers in silence."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = json.loads((folder / "classifier.json").read_text())
    assert set(content["files"]) == {"arrays.npz", "tokenizer.json"}

    def refusal(path, damaged):
        whole = path.read_bytes()
        path.write_bytes(damaged)
        message = refused(classify("--folder", copy, "a"))
        path.write_bytes(whole)
        return message

    for name, written in content["files"].items():
        path = copy / name
        whole = path.read_bytes()
        assert written == {"bytes": len(whole), "crc32": f"{zlib.crc32(whole):08x}"}
        for damaged in (b"", whole[:-100], whole + b" "):
            assert f"{name} has {len(damaged):,} bytes rather than" in refusal(path, damaged)
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        assert f"{name} is damaged, or was changed: export it again" in refusal(path, flipped)
        path.rename(tmp_path / "away")
        assert f"{name} is missing: export it again" in refused(classify("--folder", copy, "a"))
        (tmp_path / "away").rename(path)
    path = copy / "classifier.json"
    for name, value in (
        ("ngrams", None), ("task", "multi_label"), ("thresholds", {"1": 0.9}), ("max_length", 3),
        ("files", {}), ("labels", ["2", "1", "0"]), ("model", "/etc/passwd"), ("checksum", None),
    ):  # fmt: skip
        changed = json.dumps({**content, name: value}).encode()
        assert "classifier.json is damaged, or was changed: export" in refusal(path, changed), name
    for text in (b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, path.read_bytes()[:-9]):
        assert "has no classifier that can be read (" in refusal(path, text), text[:9]
    assert classify("--folder", copy, "a")[0] == 0


def test_no_file_outside_the_folder_is_opened(classify, folder, tmp_path):
    """By settings that somebody else wrote, and sealed."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = json.loads((folder / "classifier.json").read_text())
    (tmp_path / "model.onnx").write_text("x")
    for name in ("../model.onnx", str(tmp_path / "model.onnx"), "..", "sub/model.onnx"):
        written = {**content["files"], name: {"bytes": 1, "crc32": "8cdc1683"}}
        files.write_json(copy / "classifier.json", {**content, "model": name, "files": written})
        assert "export it again" in refused(classify("--folder", copy, "a"))
        files.write_json(copy / "classifier.json", {**content, "model": name})
        assert "is damaged" in refused(classify("--folder", copy, "a"))


def test_what_a_library_cannot_read_is_one_line(classify, folder, tmp_path):
    """As of a tokenizer that is newer than the library."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = json.loads((folder / "classifier.json").read_text())
    for name, text in (("tokenizer.json", b"[" * 9999), ("arrays.npz", b"PK"), ("arrays.npz", b"")):
        (copy / name).write_bytes(text)
        seal = {"bytes": len(text), "crc32": f"{zlib.crc32(text):08x}"}
        written = {"files": {**content["files"], name: seal}}
        files.write_json(copy / "classifier.json", {**content, **written})
        assert "install what its requirements.txt names" in refused(classify("--folder", copy, "a"))
        shutil.copy(folder / name, copy)


def test_lines_of_standard_input_and_a_closed_pipe(folder):
    lines = "good film\nbad plot\n" * 3000
    program = [sys.executable, "-B", str(folder / "classify.py")]
    done = subprocess.run(program, input=lines, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 6000 and done.stderr == ""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        program, input=lines, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_heads_that_are_no_sum_over_words_are_not_explained(folder, tmp_path, classify):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    content = json.loads((folder / "classifier.json").read_text())
    files.write_json(tmp_path / "classifier.json", {**content, "additive": False})
    message = refused(classify("--folder", tmp_path, "--explain", "a"))
    assert "cannot explain: its logits are not a sum over words" in message
