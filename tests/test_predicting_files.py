"""Files of texts in every form, as a stream: what is kept, added, refused, and how much is held."""

import csv
import dataclasses
import datetime
import gzip
import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import processes
import pyarrow as pa
import pytest
from conftest import WORDS, invoke, refusal
from pyarrow import parquet

import spacelite
from spacelite.backbones import files as backbone_files
from spacelite.backbones import model, tokenizer
from spacelite.data import writers
from spacelite.data.readers import open_texts
from spacelite.inference import prediction

TEXTS = [
    "good film,\nwell acted",
    'a "dull" plot',
    "the story;\r\nvery slow",
    "fine\ttabs",
    "bad\r",
]
FORMS = ["csv", "tsv", "jsonl", "json", "parquet"]


@pytest.fixture(scope="module")
def fast(run):
    """A head that reads token ids alone, so that no backbone runs."""
    return spacelite.train(
        run.record.cache, cache_dir=run.cache_dir, head="tfidf", progress=False
    )[0]  # fmt: skip


def rows_of(texts):
    return [{"id": f"0{i}", "text": text, "stars": i / 2} for i, text in enumerate(texts)]


def write(path, rows):
    kind = path.suffix
    if kind == ".parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif kind == ".json":
        path.write_text(json.dumps(rows))
    elif kind == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0], delimiter="\t" if kind == ".tsv" else ",")
            table.writeheader()
            table.writerows(rows)
    return path


def read(path):
    if path.suffix == ".parquet":
        return parquet.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("out", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_and_written_with_all_columns(form, out, run, tmp_path):
    given = write(tmp_path / f"posts.{form}", rows_of(TEXTS))
    done = run.predict_file(given, tmp_path / f"out.{out}", progress=False)
    found = read(tmp_path / f"out.{out}")
    expected = run.predict(TEXTS, progress=False)
    names = ["id", "text", "stars", "label", "unknown", "probability_0", "probability_1"]
    assert list(found[0]) == names
    assert [row["text"] for row in found] == TEXTS
    assert [row["id"] for row in found] == [f"0{i}" for i in range(5)]
    assert [float(row["stars"]) for row in found] == [i / 2 for i in range(5)]
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    got = [[float(row["probability_0"]), float(row["probability_1"])] for row in found]
    np.testing.assert_allclose(got, expected.probabilities, atol=1e-6)
    assert done.texts == 5 and sum(done.labels.values()) == 5
    assert str(done).startswith(f"5 texts classified, written to {tmp_path}")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {f"posts.{form}", f"out.{out}"}
    )


@pytest.mark.parametrize("out", ["csv", "tsv", "jsonl", "parquet"])
def test_what_people_read_has_six_digits_and_the_rest_all(out, run, tmp_path):
    rows = [{"text": text, "price": 1234.56789012345} for text in TEXTS]
    run.predict_file(write(tmp_path / "p.jsonl", rows), tmp_path / f"o.{out}", progress=False)
    expected = run.predict(TEXTS, progress=False).probabilities[:, 1]
    found = [row["probability_1"] for row in read(tmp_path / f"o.{out}")]
    if out in ("csv", "tsv"):
        assert max(len(value.strip("0.")) for value in found) <= 6
        assert [float(value) for value in found] == [float(f"{value:.5e}") for value in expected]
    else:
        assert found == pytest.approx(expected.tolist(), abs=1e-12)
        assert max(len(repr(value)) for value in found) > 12
    assert {float(row["price"]) for row in read(tmp_path / f"o.{out}")} == {1234.56789012345}
    assert writers.rounded({"p": 1 / 3e9, "n": 7, "t": "0.123456789"}) == {
        "p": 3.33333e-10, "n": 7, "t": "0.123456789"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "warned"),
    [
        ("a.csv", "a good film\na bad plot\n", "a good film"),
        ("a.tsv", "good\nbad\n", "good"),
        ("a.csv", "Text\na bad plot\n", None),
        ("a.jsonl", '{"opinion": "a bad plot"}\n', None),
    ],
    ids=["text", "word", "known", "keys"],
)
def test_a_first_line_that_may_be_a_text_is_said(name, content, warned, tmp_path, caplog):
    path = tmp_path / name
    path.write_text(content)
    assert open_texts(path).count == 1
    expected = (
        f"{name}: the texts are column {warned!r}, which is its first line: if that is a text"
    )
    assert [expected in line for line in caplog.messages] == [True] * bool(warned)
    caplog.clear()
    open_texts(path, open_texts(path).text_columns)
    assert len(caplog.messages) == bool(warned)


def test_the_command_writes_and_prints_the_same(run, tmp_path):
    given = write(tmp_path / "posts.csv", rows_of(TEXTS))
    there = ["predict", run.id, "--file", given, "--cache-dir", run.cache_dir]
    there += ["--backbone", run.backbone]
    done = invoke(*there, "--out", tmp_path / "out.csv")
    assert done.exit_code == 0, done.output
    assert "posts.csv: the texts are column 'text'" in done.stderr
    assert "5 texts classified, written to" in done.stdout
    assert invoke(*there, "--csv").stdout_bytes == (tmp_path / "out.csv").read_bytes()
    invoke(*there, "--out", tmp_path / "out.jsonl")
    printed = json.loads(invoke(*there, "--json").stdout)
    assert printed == read(tmp_path / "out.jsonl")
    counts = json.loads(invoke(*there, "--out", tmp_path / "o.csv", "--json").stdout)
    assert counts["texts"] == 5 and counts["path"] == str(tmp_path / "o.csv")
    assert "fine" in invoke(*there).stdout  # the table


def test_semicolons_are_detected_and_a_plain_file_is_a_text_per_line(run, tmp_path):
    (tmp_path / "posts.csv").write_text("nr;text\n1;good film, well acted\n2;dull plot\n")
    run.predict_file(tmp_path / "posts.csv", tmp_path / "out.csv", progress=False)
    assert [row["nr"] for row in read(tmp_path / "out.csv")] == ["1", "2"]
    (tmp_path / "posts.txt").write_text("good film, well acted\ndull plot\n")
    run.predict_file(tmp_path / "posts.txt", tmp_path / "lines.parquet", progress=False)
    (one, two) = read(tmp_path / "lines.parquet")
    assert one["text"] == "good film, well acted" and two["text"] == "dull plot"


def test_values_keep_their_types_and_rows_their_own_keys(run, tmp_path):
    when = datetime.datetime(2024, 1, 2, 3, 4, 5, 678901)
    table = pa.table(
        {
            "text": ["good film", "bad plot"],
            "when": pa.array([when, None], pa.timestamp("us")),
            "n": pa.array([1, None], pa.int16()),
            "tags": [["a", "b"], []],
        }
    )
    parquet.write_table(table, tmp_path / "posts.parquet")
    run.predict_file(tmp_path / "posts.parquet", tmp_path / "out.parquet", progress=False)
    assert parquet.read_table(tmp_path / "out.parquet").select(table.column_names).equals(table)
    run.predict_file(tmp_path / "posts.parquet", tmp_path / "out.csv", progress=False)
    first, second = read(tmp_path / "out.csv")
    assert (first["tags"], first["n"], second["n"]) == ("a;b", "1", "")
    rows = [{"text": "good film", "n": 1, "more": {"x": [1, None]}}, {"text": "bad", "n": "two"}]
    write(tmp_path / "posts.jsonl", rows)
    run.predict_file(tmp_path / "posts.jsonl", tmp_path / "out.jsonl", progress=False)
    found = read(tmp_path / "out.jsonl")
    assert [
        {key: row[key] for key in given} for given, row in zip(rows, found, strict=True)
    ] == rows
    assert "more" not in found[1]
    run.predict_file(tmp_path / "posts.jsonl", tmp_path / "out.csv", progress=False)
    assert read(tmp_path / "out.csv")[0]["more"] == '{"x": [1, null]}'
    message = refusal(run.predict_file, tmp_path / "posts.jsonl", tmp_path / "o.parquet",
                      progress=False)  # fmt: skip
    assert "values of several types" in message and "choose a .jsonl or .csv file" in message


def test_columns_of_the_results_never_replace_those_of_the_file(run, tmp_path, caplog):
    given = [{"text": "good film", "Label": "gold", "predicted_label": "old", "probability_0": "p"}]
    write(tmp_path / "posts.csv", given)
    with caplog.at_level("INFO", logger="spacelite"):
        run.predict_file(tmp_path / "posts.csv", tmp_path / "out.csv", progress=False)
    (row,) = read(tmp_path / "out.csv")
    assert {key: row[key] for key in given[0]} == given[0]
    assert list(row)[4:] == [
        "predicted_label_2", "unknown", "predicted_probability_0", "probability_1",
    ]  # fmt: skip
    said = "these have others: 'label': 'predicted_label_2', 'probability_0': "
    assert said + "'predicted_probability_0'" in caplog.text


def test_several_labels_are_a_list_in_jsonl_and_parquet(bert, tmp_path):
    texts = ["good film", "bad plot", "good plot", "dull"] * 10
    labels = [["fine", "long"], ["long"], ["fine"], []] * 10
    cache = spacelite.embed(texts=texts, labels=labels, backbone=str(bert), cache_dir=tmp_path,
                            progress=False)  # fmt: skip
    run = spacelite.train(cache, head="logreg", pooling="mean", progress=False)[0]
    given = run.predict(texts[:4], progress=False).labels
    assert any(len(each) == 2 for each in given) and [] in given
    write(tmp_path / "posts.csv", [{"text": text} for text in texts[:4]])
    for out in ("out.jsonl", "out.parquet", "out.csv"):
        run.predict_file(tmp_path / "posts.csv", tmp_path / out, progress=False)
        found = [row["labels"] for row in read(tmp_path / out)]
        assert found == ([";".join(each) for each in given] if out == "out.csv" else given)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "id,title,body\n1,a,b\n", "no column that is clearly the text column"),
        ("a.csv", "text,id\ngood,1\n ,2\n,3\n", "rows 2 and 3 have an empty 'text'"),
        ("a.csv", "text,id\ngood,1\nbad,2,3\nfine,3\n", "row 2 does not have as many fields"),
        ("a.csv", 'text,id\ngood,1\n"bad,2\nfine,3\n', "row 2 cannot be read: the quote of"),
        ("a.csv", "text,text\na,b\n", "has more than one column 'text'"),
        ("a.csv", "text,id\n", "has no rows"),
        ("a.csv", "", "is empty"),
        ("a.csv", b"text,id\ncaf\xe9,1\n", "row 1 is not UTF-8: save the file as UTF-8"),
        ("a.csv", "text,id\ngood,1\n".encode("utf-16"), "is in UTF-16"),
        ("a.csv", gzip.compress(b"text,id\ngood,1\n", mtime=0), "is gzip-compressed: unpack it"),
        ("a.csv", b"PK\x03\x04\0\0\0", "is a zip archive or an Excel file: unpack it, or save"),
        ("a.jsonl", '{"text": "good"}\n{"text": \n', "line 2 is not JSON"),
        ("a.jsonl", '{"text": "good"}\n["bad"]\n', "line 2 is not an object"),
        ("a.jsonl", '{"text": "good"}\n{"id": 1}\n', "row 2 has an empty 'text'"),
        ("a.jsonl", '{"text": "good"}\n{"text": 7}\n', "row 2 has a 'text' that is not a string"),
        ("a.json", '["good"]', "holds items that are not objects"),
        ("a.json", '[{"text": "good"', "cannot be read"),
        ("a.parquet", "PAR1 no", "cannot be read"),
        ("a.txt", "good\n\nbad\n", "line 2 is empty"),
        ("a.txt", "text,label\ngood film,1\n", "looks like a csv table, not like a text per line"),
        ("a.txt", "id\ttext\n1\tgood film\n", "ends in .tsv, which is read as a table"),
        ("a.txt", '{"text": "good"}\n', "looks like JSON lines"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_in_one_line_before_anything_runs(
    name, content, words, run, tmp_path
):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    there = ["--cache-dir", run.cache_dir, "--backbone", run.backbone]
    file = tmp_path / name
    done = invoke("predict", run.id, "--file", file, "--out", tmp_path / "out.csv", *there)
    assert done.exit_code == 1 and done.stdout == "" and done.stderr.count("error: ") == 1
    assert words in done.stderr.splitlines()[-1], done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "text", ["text, and more\nof it, too\n", "label this, please\nand, that\n", "plot,film\na,b\n"]
)
def test_lines_with_commas_are_texts_unless_it_is_clear(text, tmp_path):
    (tmp_path / "a.txt").write_text(text)
    assert open_texts(tmp_path / "a.txt").count == 2


def test_arguments_that_cannot_be_met_are_refused(run, tmp_path):
    file = write(tmp_path / "posts.csv", rows_of(TEXTS))
    lines = tmp_path / "posts.txt"
    lines.write_text("good\n")

    def refused(*arguments):
        done = invoke("predict", run.id, *arguments, "--cache-dir", run.cache_dir,
                                 "--backbone", run.backbone)  # fmt: skip
        assert done.exit_code == 1 and done.stdout == ""
        return done.stderr.splitlines()[-1]

    assert "must end in .csv, .tsv, .jsonl or .parquet" in refused("x", "--out", "out.xlsx")
    assert "there is no folder" in refused("x", "--out", tmp_path / "none" / "out.csv")
    assert "give --csv or --out, not both" in refused("x", "--csv", "--out", tmp_path / "o.csv")
    assert "is the file that is read" in refused("--file", file, "--out", file)
    assert "--text-column needs --file" in refused("x", "--text-column", "text")
    assert "has a text per line and no columns: --text-column text needs" in refused(
        "--file", lines, "--text-column", "text"
    )
    assert "name one with --text-column" in refused("--file", file, "--text-column", "none")
    assert "looks like a csv table" in invoke(
        "predict", run.id, "--cache-dir", run.cache_dir, input="text,label\ngood,1\n"
    ).stderr  # fmt: skip
    assert file.read_text() == write(file, rows_of(TEXTS)).read_text()


def test_an_existing_file_stays_until_the_new_one_is_complete(run, tmp_path, monkeypatch):
    given = write(tmp_path / "posts.csv", rows_of(["good film"] * 150))
    out = tmp_path / "out.csv"
    out.write_text("before")

    def fails_later(self, texts, *rest, calls=[], **more):  # noqa: B006 - kept on purpose
        calls.append(len(texts))
        if len(calls) == 2:
            raise spacelite.SpaceliteError("the second batch fails")
        return predict(self, texts, *rest, **more)

    predict = prediction.Predictor.predict
    monkeypatch.setattr(prediction.Predictor, "predict", fails_later)
    assert "second batch" in refusal(run.predict_file, given, out, progress=False)
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "posts.csv"]


KILLED = """
import sys, time
import spacelite
from spacelite.inference import prediction
predict = prediction.Predictor.predict
def slow(self, texts, *rest, **more):
    found = predict(self, texts, *rest, **more)
    print("batch", flush=True)
    if len(texts) > 100: time.sleep(600)  # it is killed before
    return found
prediction.Predictor.predict = slow
run, cache_dir, backbone, given, out = sys.argv[1:]
spacelite.load_run(run, cache_dir).predict_file(given, out, backbone=backbone, progress=False)
"""


def test_a_killed_predict_leaves_no_file_that_looks_whole(run, tmp_path):
    given = write(tmp_path / "posts.csv", rows_of(["good film"] * 300))
    out = tmp_path / "out.csv"
    arguments = [run.id, run.cache_dir, run.backbone, given, out]
    process = processes.start(KILLED, *arguments)
    assert process.line() == "batch" and process.line() == "batch"
    assert process.kill().returncode == -signal.SIGKILL
    assert not out.exists()
    run.predict_file(given, out, progress=False)
    assert len(read(out)) == 300
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "posts.csv"]


def test_results_come_before_the_last_text_is_read(run):
    """Standard input is a pipe that stays open."""
    there = ["--cache-dir", run.cache_dir, "--backbone", run.backbone]
    reading, writing = os.pipe()
    process = processes.spacelite("predict", run.id, "--csv", *there, stdin=reading)
    os.close(reading)
    with os.fdopen(writing, "w") as texts:
        texts.write("good film\n" * 100)
        texts.flush()
        assert process.line() == "text,label,unknown,0,1"
        assert process.line().startswith("good film,")
        texts.write("bad plot\n")
    code, printed, _ = process.wait()
    lines = printed.splitlines()[2:]
    assert code == 0 and len(lines) == 100 and lines[-1].startswith("bad plot,")


def test_the_backbone_and_its_tokenizer_are_loaded_once(run, monkeypatch):
    loaded = []
    model.forget()
    for module, name in ((model, "Backbone"), (tokenizer, "quick_tokenizer")):
        one = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, n=name, o=one, **k: (loaded.append(n), o(*a, **k))[1]
        )
    asked, seen = iter(["good film"] * 1300), []
    batches = run.predict_batches(asked, total=1300, progress=lambda *event: seen.append(event))
    assert len(next(batches)) == 100 and len(list(asked)) == 1200  # the rest is not read yet
    assert list(batches) == [] and sorted(loaded) == ["Backbone", "quick_tokenizer"]
    sizes = [len(each) for each in run.predict_batches(["bad"] * 2300, progress=False)]
    assert sizes == [100, 1000, 1000, 200]
    assert loaded.count("Backbone") == 1  # a process keeps it
    assert seen[-1] == ("predict", 100, 1300)


@pytest.fixture
def copied(run, bert, tmp_path):
    """The run with a copy of its backbone, of which the process holds nothing."""
    model.forget()
    return dataclasses.replace(run, backbone=str(shutil.copytree(bert, tmp_path / "copy")))


def test_the_files_of_a_backbone_are_hashed_once_and_again_if_they_change(copied, monkeypatch):
    hashed, sha256 = [], backbone_files._sha256
    monkeypatch.setattr(
        backbone_files, "_sha256", lambda path: (hashed.append(path.name), sha256(path))[1]
    )
    first = copied.predict(["good film"], progress=False)
    assert hashed.count("model.safetensors") == 1
    again = copied.predict(["good film"], progress=False)
    copied.explain("good film", progress=False)
    assert hashed.count("model.safetensors") == 1
    assert (again.probabilities == first.probabilities).all()
    weights = Path(copied.backbone) / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "is not the backbone that run" in refusal(copied.predict, ["good film"], progress=False)
    assert hashed.count("model.safetensors") == 2


def test_a_run_that_is_loaded_loads_nothing_when_it_predicts(copied, monkeypatch):
    assert copied.load() == copied
    for module, name in (
        (model, "Backbone"), (tokenizer, "quick_tokenizer"), (backbone_files, "locate"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, None)
    assert len(copied.predict(["good film"], progress=False)) == 1


def test_threads_share_a_tokenizer_and_keep_their_own_lengths(bert):
    files = backbone_files.locate(str(bert))
    held = tokenizer.held_tokenizer(files)

    def lengths(most):
        padding = "max_length" if most == 7 else "none"
        how = {"max_length": most, "padding": padding, "tokenizer": held}
        every = [tokenizer.tokenize(files, ["good film " * 9], **how) for _ in range(200)]
        return {len(tokens.ids[0]) for tokens in every}

    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(lengths, (7, 5, 40))) == [{7}, {5}, {20}]


def test_streams_give_what_lists_give_and_count_their_texts(run):
    texts = [" ".join(np.random.RandomState(i).choice(WORDS, 1 + i % 9)) for i in range(130)]
    found = list(run.predict_batches(texts, progress=False))
    expected = run.predict(texts, progress=False)
    got = np.concatenate([each.probabilities for each in found])
    np.testing.assert_allclose(got, expected.probabilities, atol=1e-6)
    assert "text 113 is empty" in refusal(
        list, run.predict_batches([*texts[:112], " "], progress=False)
    )
    assert "there is no text" in refusal(list, run.predict_batches([], progress=False))


PEAK = """
import resource, sys
import spacelite
run, cache_dir, backbone, given, out = sys.argv[1:]
spacelite.load_run(run, cache_dir).predict_file(given, out, backbone=backbone, progress=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_texts(run, fast, tmp_path):
    peaks = []
    for count in (10_000, 100_000):
        given = tmp_path / f"{count}.csv"
        with given.open("w") as file:
            file.write("id,text\n")
            file.writelines(f"{i},a good film number {i}\n" for i in range(count))
        arguments = [fast.id, fast.cache_dir, run.backbone, given, tmp_path / f"{count}.parquet"]
        done = processes.run(PEAK, *arguments, fresh=True)
        peaks.append(int(done.stdout) / 1024)
    assert parquet.read_metadata(tmp_path / "100000.parquet").num_rows == 100_000
    assert peaks[1] - peaks[0] < 40, peaks  # MB


def test_bars_on_a_terminal_and_results_in_a_file_do_not_mix(run, tmp_path):
    """Bars replace `sys.stdout` while they are shown on a terminal."""
    given = write(tmp_path / "posts.csv", rows_of(TEXTS))
    there = ["--cache-dir", run.cache_dir, "--backbone", run.backbone]
    with (tmp_path / "out.csv").open("wb") as file, processes.terminal() as (terminal, shown):
        process = processes.spacelite(
            "predict", run.id, "--csv", "--file", given, *there, stdout=file.fileno(),
            stderr=terminal,
        )  # fmt: skip
    assert process.wait().returncode == 0
    assert [row["text"] for row in read(tmp_path / "out.csv")] == TEXTS
    assert "predict" in shown.all() and "well acted" not in shown.all()


def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spacelite.files.sync", full)
    out = tmp_path / "out.csv"

    def attempt():
        with writers.writing(out, ["a"], dict) as put:
            put([{"a": 1}])

    assert refusal(attempt) == f"{out} cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_the_text_column_of_the_run_s_data_is_remembered(form, bert, tmp_path, caplog):
    caplog.set_level("INFO", "spacelite")
    rows = [
        {"text": f"no {i}", "body": f"{word} film", "label": i % 2} for i, word in enumerate(WORDS)
    ]
    data = write(tmp_path / f"posts.{form}", rows)
    there = {"cache_dir": tmp_path / "cache", "progress": False}
    cache = spacelite.embed(str(data), backbone=str(bert), text_column="body", **there)
    (run,) = spacelite.train(cache, head="tfidf", progress=False)
    assert run.record.text_column == "body"
    assert spacelite.load_run(run.id, tmp_path / "cache").record.text_column == "body"

    def predict(file, **options):
        caplog.clear()
        run.predict_file(file, tmp_path / "out.jsonl", progress=False, **options)
        said = [line for line in caplog.messages if "the texts are" in line]
        return read(tmp_path / "out.jsonl"), said

    new = [{"text": f"no {i}", "body": text} for i, text in enumerate(["good film", "bad plot"])]
    file = write(tmp_path / f"new.{form}", new)
    predicted, said = predict(file)
    assert said == [f"new.{form}: the texts are column 'body', as in the run's data"]
    assert predicted == predict(file, text_column="body")[0]
    assert predicted != predict(file, text_column="text")[0]
    # Where it is not there, the usual line.
    file = write(tmp_path / f"other.{form}", [{"id": 1, "body": "good film"}])
    said = [f"other.{form}: the texts are column 'body', as in the run's data"]
    assert predict(file)[1] == said
    file = write(tmp_path / f"lacks.{form}", [{"id": 1, "text": "good film"}])
    assert predict(file)[1] == [f"lacks.{form}: the texts are column 'text'"]
    result = invoke(
        "predict", run.id, "--file", tmp_path / f"new.{form}", "--json", "--cache-dir",
        tmp_path / "cache", "--backbone", bert,
    )  # fmt: skip
    assert result.exit_code == 0 and "column 'body', as in the run's data" in result.stderr


def test_data_given_as_objects_remember_their_column_too(bert, tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"text": ["a", "b"] * 9, "body": WORDS[:18], "label": [0, 1] * 9})
    there = {"cache_dir": tmp_path / "cache", "progress": False}
    cache = spacelite.embed(frame, backbone=str(bert), text_column="body", **there)
    (run,) = spacelite.train(cache, head="tfidf", progress=False)
    assert run.record.text_column == "body"
