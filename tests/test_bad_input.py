"""Every bad input that the command line promises to answer with one line, exit 1 and nothing
half-written."""

import json
import shutil

import pytest
from conftest import invoke, write_dataset

from spacelite.cache import store


def refused(result, *words):
    """One line on standard error, which begins with `error: `, and nothing else anywhere."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0] == result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in lines[0], lines[0]


def nothing_written(cache_dir):
    left = [
        path for path in cache_dir.rglob("*") if path.is_file() and not path.name.endswith(".lock")
    ]
    assert left == []


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(*labels_and_texts):
    return "\n".join(json.dumps({"text": t, "label": y}) for y, t in labels_and_texts) + "\n"


GOOD = [(0, "bad film"), (1, "good film"), (0, "dull plot"), (1, "fine story")]

# name -> (file name, its content, words of the error)
FILES = {
    "missing file": ("absent.csv", None, ["there is no file or folder", "absent.csv"]),
    "empty file": ("a.csv", "", ["a.csv is empty"]),
    "directory with a file's name": ("a.csv/x.txt", "x", ["a.csv has no train split"]),
    "directory without data": ("folder/notes.txt", "x", ["folder has no train split", "notes.txt"]),
    "another kind of file": ("a.txt", "x", ["is not a .csv, .tsv, .json, .jsonl or .parquet file"]),
    "broken csv": ("a.csv", "text,label\ngood,1\nbad,0,7\n", ["a.csv: row 2 does not", "3, not 2"]),
    "broken json lines": ("a.jsonl", '{"text": "good"}\n{"te\n', ["a.jsonl: line 2 is not JSON"]),
    "broken json list": ("a.json", '[{"text": "good", "label": 1}, ', ["a.json cannot be read"]),
    "broken parquet": ("a.parquet", b"PAR1 and then nothing", ["a.parquet cannot be read"]),
    "no text column": ("a.csv", "who,x,label\na,c,1\nb,d,0\n",
                       ["'who', 'x', 'label'", "--text-column"]),
    "no label column": ("a.csv", "text,x,y\na,1,1\nb,2,0\n", ["'x', 'y'", "--label-column"]),
    "empty text": ("a.jsonl", rows(*GOOD, (0, "  "), (1, "")),
                   ["rows 5 and 6 have an empty 'text'", "or give --skip-empty"]),
    "text that is no string": ("a.jsonl", '{"text": 1, "label": 0}\n{"text": 2, "label": 1}\n',
                               ["rows 1 and 2 have a 'text' that is not a string"]),
    "missing label": ("a.jsonl", rows(*GOOD, (None, "good")), ["row 5", "has no 'label'"]),
    "labels that are hidden": ("a.jsonl", rows(*[(-1, "good")] * 4), ["row 1 has label -1"]),
    "labels that are no classes": ("a.jsonl", rows(*[(i, "good") for i in range(80)]),
                                   ["80 different labels in 80 rows are not classes"]),
    "one number": ("a.csv", "text,label\ngood,1.5\nbad,1.5\n", ["label 1.5 everywhere"]),
    "a name too long for a file": ("x" * 300, None, ["x" * 300]),
    "single class": ("a.jsonl", rows((1, "good"), (1, "fine"), (1, "great")), ["single class"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_bad_data(case, tmp_path, bert):
    name, content, words = FILES[case]
    if content is not None:
        write(tmp_path / name, content)
    result = invoke(
        "embed", "--backbone", bert, "--dataset", tmp_path / name.split("/")[0],
        "--cache-dir", tmp_path / "cache",
    )  # fmt: skip
    refused(result, *words)
    nothing_written(tmp_path / "cache")


def test_unknown_hub_names_without_a_network(tmp_path, bert, reviews):
    there = ["--cache-dir", tmp_path / "cache"]
    result = invoke("embed", "--backbone", "no/such-model", "--dataset", reviews, *there)
    refused(result, "no/such-model", "--backbone minilm", "local folder", "HF_HOME")
    result = invoke("embed", "--backbone", bert, "--dataset", "no/such-data", *there)
    refused(result, "no/such-data", "--dataset demo", "local folder", "HF_HOME")
    nothing_written(tmp_path / "cache")


def test_bad_backbone_folders(tmp_path, bert, reviews):
    empty = tmp_path / "empty"
    empty.mkdir()
    without_tokenizer = tmp_path / "slow"
    shutil.copytree(bert, without_tokenizer)
    for file in without_tokenizer.glob("*token*"):
        file.unlink()
    config = json.loads((without_tokenizer / "config.json").read_text())
    write(without_tokenizer / "tokenizer_config.json", '{"tokenizer_class": "CanineTokenizer"}')
    write(without_tokenizer / "config.json", json.dumps({**config, "model_type": "canine"}))
    for folder, word in (
        (empty, "has no model"),
        (tmp_path / "absent", "there is no backbone folder"),
        (without_tokenizer, "no fast tokenizer"),
    ):
        result = invoke(
            "embed", "--backbone", folder, "--dataset", reviews, "--cache-dir", tmp_path / "cache"
        )
        refused(result, word)
    nothing_written(tmp_path / "cache")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[: len(data) // 2], ["or damaged", "spacelite cache remove"]),
        (
            lambda data: b"this is no HDF5 file",
            ["damaged (it is not an HDF5 file"],
        ),
    ],
    ids=["truncated", "not HDF5"],
)
def test_bad_cache_files(damage, words, tmp_path, cache_path, bert, reviews):
    copy = write(tmp_path / "embeddings" / cache_path.name, damage(cache_path.read_bytes()))
    again = ["embed", "--backbone", bert, "--dataset", reviews, "--dtype", "float32"]
    name = copy.stem
    for command in (["train", "--cache", name], ["cache", "info", name],
                    ["cache", "verify", name], again):  # fmt: skip
        refused(invoke(*command, "--cache-dir", tmp_path), *words)
    listed = invoke("cache", "list", "--cache-dir", tmp_path, "--json")
    assert listed.exit_code == 0
    assert json.loads(listed.stdout)[0]["complete"] is False
    assert invoke("cache", "remove", copy.stem, "--yes", "--cache-dir", tmp_path).exit_code == 0
    assert not copy.exists()


def test_cache_of_a_newer_format(tmp_path, cache_path, monkeypatch):
    copy = write(tmp_path / "embeddings" / cache_path.name, cache_path.read_bytes())
    monkeypatch.setattr(store, "FORMAT", 0)
    refused(invoke("train", "--cache", copy.stem, "--cache-dir", tmp_path), "format 1", "upgrade")


def test_train_without_a_cache(tmp_path):
    refused(invoke("train", "--cache-dir", tmp_path), "holds no cache", "embed a data set first")
    refused(invoke("train", "--cache", "x", "--cache-dir", tmp_path), "has no cache 'x'")


def test_report_without_runs(tmp_path):
    refused(invoke("report", "--cache-dir", tmp_path), "holds no run", "train one first")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--inter", "abc"], ["--inter abc: 'abc' is not a number"]),
        (["--inter", "0.1,,0.2"], ["'' is not a number"]),
        (["--intra", "-1"], ["--intra -1"]),
        (["--latent", "2.5"], ["'2.5' is not a whole number"]),
        (["--lr", "nan"], ["--lr nan"]),
        (["--head", "tree"], ["--head tree: choose from space, linear"]),
        (
            ["--pooling", "rms"],
            ["--pooling rms: choose from first, last, mean, max, pooler, layers"],
        ),
        (["--seeds", "0"], ["--seeds 0"]),
        (["--epochs", "0"], ["--epochs 0"]),
        (["--head", ""], ["--head '': choose from space, linear"]),
        (["--head", "space,"], ["--head '': choose from space, linear"]),
        (["--pooling", ""], ["--pooling '': choose from first, last"]),
        (["--intra", ""], ["--intra '': '' is not a number; give one"]),
        (["--batch-size", ""], ["--batch-size '': give a whole number, or auto"]),
        (["--blocks", ""], ["--blocks '' has no effect"]),
        (["--preset", ""], ["--preset '': choose from best"]),
        (["--loss", ""], ["--loss ''"]),
        (["--sweep", ""], ["not over '': choose from layers, pooling"]),
    ],
)
def test_bad_training_options(options, words, tmp_path, cache_path):
    result = invoke("train", "--cache", cache_path, "--cache-dir", tmp_path, *options)
    refused(result, *words)
    nothing_written(tmp_path)


def test_a_head_that_diverges_is_named_and_the_others_are_saved(tmp_path, cache_path):
    result = invoke(
        "train", "--cache", cache_path, "--cache-dir", tmp_path, "--epochs", "2", "--json",
        "--lr", "0.001,1e38", "--batch-size", "16", "--head", "linear",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "1 of 2 heads diverged and were not saved (linear (first) seed 0" in result.stderr
    (run,) = json.loads(result.stdout)
    assert run["settings"]["learning_rate"] == 0.001
    assert [path.name for path in (tmp_path / "runs").glob("[!.]*")] == [run["id"]]


def test_unusable_data_folder_splits(tmp_path, bert):
    folder = write_dataset(tmp_path / "only-test", {"test": 5})
    result = invoke(
        "embed", "--backbone", bert, "--dataset", folder, "--cache-dir", tmp_path / "cache"
    )
    refused(result, "has no train split", "test.jsonl")
    nothing_written(tmp_path / "cache")
