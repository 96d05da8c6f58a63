"""The commands as a user types them: what they print, where, and how they end."""

import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import processes
import pytest
from conftest import invoke, write_dataset
from spacelite_cli.app import app
from spacelite_cli.options import CACHE_DIR, with_cache_dir
from test_store import byte_offset

import spacelite as library
from spacelite import files

# The arguments of commands that the function which they call does not have.
NOT_PASSED = {
    "embed": {"no_reuse"},
    "train": {"context", "no_baselines", "each_run", "sweep"},
    "cv": {"context", "no_baselines", "out"},
    "curve": {"context", "no_baselines", "out", "plot"},
    "audit": {"top", "out"},
    "sweep": {"out"},
    "eval": {"run", "cache_dir"},
    "explain": {"run", "html", "cache_dir", "pair"},
    "report": {"systems", "as_form", "out", "no_examples"},
}
CALLED = {
    "embed": library.embed, "train": library.train, "cv": library.cross_validate,
    "curve": library.learning_curve, "audit": library.audit, "sweep": library.sweep,
    "report": library.report,
    "eval": library.TrainedRun.evaluate, "explain": library.TrainedRun.explain,
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_PASSED)
def test_arguments_of_a_command_reach_the_function_that_it_calls(name):
    (function,) = (it.callback for it in app.registered_commands if it.name == name)
    arguments = inspect.signature(function).parameters.keys()
    parameters = inspect.signature(CALLED[name]).parameters.keys()
    assert arguments - parameters == NOT_PASSED[name] | {"as_json"}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, bert, reviews):
    """A cache folder in which embed and train have run, with what they printed."""
    folder = tmp_path_factory.mktemp("workplace")
    there = ["--cache-dir", folder]
    embedded = invoke("embed", "--backbone", bert, "--dataset", reviews, *there)
    trained = invoke("train", "--inter", "0,0.2", "--intra", "0.001", "--epochs", 2,
                        "--seeds", 2, "--lr", "0.01", *there)  # fmt: skip
    assert (embedded.exit_code, trained.exit_code) == (0, 0), embedded.output + trained.output
    return folder, embedded, trained


def test_embed_says_what_it_wrote(workplace):
    folder, embedded, _ = workplace
    (path,) = (folder / "embeddings").glob("*.h5")
    assert embedded.stdout.startswith(f"{path.stem} written in ")
    assert "100 examples (60 train, 20 validation, 20 test)" in embedded.stdout
    assert re.fullmatch(r"labels \(train\): 0: \d+, 1: \d+", embedded.stdout.splitlines()[1])
    assert re.fullmatch(
        r"[\d,]+ tokens/s in all, limited by [a-z ]+ \([\d.]+ of [\d.]+ s; .*\)",
        embedded.stdout.splitlines()[2],
    )
    assert embedded.stdout.count("\n") == 3
    assert "tokenizing" in embedded.stderr and "embedding" in embedded.stderr
    assert "tokens of width 16" in embedded.stderr and "free" in embedded.stderr


def test_train_uses_the_newest_cache_and_says_which(workplace):
    folder, _, trained = workplace
    (path,) = (folder / "embeddings").glob("*.h5")
    assert f"cache {path.stem}" in trained.stderr
    # Two inter weights and the linear baseline, two seeds each.
    assert "6 heads trained in" in trained.stdout
    assert len(list((folder / "runs").iterdir())) == 6
    assert "Metrics on test, ± standard deviation over seeds" in trained.stdout
    assert trained.stdout.count(" 2 seeds ") == 3
    assert " compares them, spacelite runs list " in " ".join(trained.stdout.split())


def test_each_run_is_shown_on_every_split_where_that_is_asked_for(workplace):
    folder, _, _ = workplace
    trained = invoke("train", "--head", "linear", "--epochs", 2, "--seeds", 2, "--lr", "0.01",
                        "--each-run", "--cache-dir", folder)  # fmt: skip
    table = trained.stdout[: trained.stdout.index("Always predicting")]
    for split in ("train", "validation", "test"):
        assert table.count(f" {split} ") == 2
    assert "runs list" not in trained.stdout


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(workplace, width):
    folder, _, _ = workplace
    for command in (["report"], ["cache", "list"], ["cache", "info", "tiny"], ["--help"]):
        there = [] if command == ["--help"] else ["--cache-dir", folder]
        result = invoke(*command, *there, env={"COLUMNS": str(width)})
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        # Paths and hashes, which have no spaces, are not broken.
        assert max(len(line) for line in lines if len(line.split()) > 2) <= width
        assert "…" not in result.stdout


@pytest.mark.parametrize("width", [80, 120])
def test_published_rows_fit_the_terminal(workplace, tmp_path, width):
    folder, _, _ = workplace
    found = (folder / "runs").glob("*--space--*/run.json")
    record = json.loads(next(found).read_text())
    record["spec"]["dataset"] = "imdb"
    record["settings"].update(epochs=5, inter=0.0, intra=0.0, learning_rate=2e-4)
    del record["id"]  # as if it had been trained like that
    (tmp_path / "runs" / "x").mkdir(parents=True)
    files.write_json(tmp_path / "runs" / "x" / "run.json", record)
    result = invoke("report", "--cache-dir", tmp_path, env={"COLUMNS": str(width)})
    lines = result.stdout.splitlines()
    assert "* Published with another backbone than tiny-bert." in result.stdout
    for shown in ("published,", "distilbert-", "0.488"):  # 0.4883 is that row's loss
        assert shown in result.stdout
    assert max(map(len, lines)) <= width and not any("…" in line for line in lines)


def test_report_shows_mean_and_spread(workplace):
    folder, _, _ = workplace
    shown = invoke("report", "--cache-dir", folder, env={"COLUMNS": "120"}).stdout
    assert re.search(r"space \+ inter 0\.2 \+ intra 0\.001 +110 +\d\.\d{4} .* 2", shown)
    assert re.search(r"±\.\d{4}", shown)
    content = json.loads(invoke("report", "--cache-dir", folder, "--json").stdout)
    again = invoke("report", "--cache-dir", folder, "--format", "json").stdout
    assert json.loads(again) == content
    rows = {(row["system"], row["inter"]): row for row in content["parts"][0]["section"]["rows"]}
    runs = [json.loads(p.read_text()) for p in (folder / "runs").glob("*/run.json")]
    for (system, inter), row in rows.items():
        values = [
            run["metrics"]["test"]["accuracy"] for run in runs
            if run["system"] == system and run["settings"]["inter"] == inter
        ]  # fmt: skip
        assert len(values) == row["seeds"] == 2
        assert row["figures"]["accuracy"]["mean"] == pytest.approx(sum(values) / 2)
    markdown = invoke("report", "--cache-dir", folder, "--format", "markdown").stdout
    assert markdown.startswith("# spacelite report\n\n## reviews, tiny-bert, 2 epochs\n")


def test_json_is_one_document_and_nothing_else(workplace, bert, reviews):
    folder, _, _ = workplace
    there = ["--json", "--cache-dir", folder]
    again = json.loads(invoke("embed", "--backbone", bert, "--dataset", reviews, *there).stdout)
    assert again["hit"] is True and again["complete"] is True
    (listed,) = json.loads(invoke("cache", "list", *there).stdout)
    for key in ("name", "path", "complete", "examples", "tokens", "bytes", "splits"):
        assert listed[key] == again[key]
    assert listed["splits"] == {"train": 60, "validation": 20, "test": 20}
    info = json.loads(invoke("cache", "info", listed["name"], *there).stdout)
    assert info["spec"]["max_length"] == 256
    assert sum(split["tokens"] for split in info["splits"].values()) == listed["tokens"]
    verified = json.loads(invoke("cache", "verify", listed["name"], *there).stdout)
    assert verified["damaged"] == []
    runs = json.loads(invoke("train", "--epochs", 1, *there).stdout)
    assert [run["head"] for run in runs] == ["space", "linear"]


def test_verify_names_damage_and_embed_mends_it(bert, reviews, tmp_path):
    there = ["--cache-dir", tmp_path]
    command = ["embed", "--backbone", bert, "--dataset", reviews, *there]
    invoke(*command)
    (path,) = (tmp_path / "embeddings").glob("*.h5")
    good = path.read_bytes()
    place = byte_offset(path, "validation", "tokens")
    path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
    result = invoke("cache", "verify", path.stem, *there)
    assert result.exit_code == 1 and "damaged: validation example 0" in result.stdout
    assert "1 damaged example in" in result.stderr
    assert "% done" in invoke("cache", "list", *there).stdout
    assert "is unfinished" in invoke("train", "--cache", path.stem, *there).stderr
    assert invoke(*command).exit_code == 0
    assert path.read_bytes() == good
    assert invoke("cache", "verify", path.stem, *there).exit_code == 0


def test_remove_deletes_the_file_and_keeps_the_runs(bert, reviews, tmp_path):
    there = ["--cache-dir", tmp_path]
    invoke("embed", "--backbone", bert, "--dataset", reviews, *there)
    invoke("train", "--epochs", 1, *there)
    (path,) = (tmp_path / "embeddings").glob("*.h5")
    removed = invoke("cache", "remove", path.stem, "--yes", *there)
    assert removed.exit_code == 0 and removed.stdout.startswith(f"removed {path.stem} (")
    assert "no caches in" in invoke("cache", "list", *there).stdout
    assert invoke("report", *there).exit_code == 0


@pytest.fixture
def caches(cache_path, tmp_path):
    """A folder of four caches: `new`, `old`, `older`, and one with a run; and what removes some."""
    folder = tmp_path / "embeddings"
    folder.mkdir()
    shutil.copy(cache_path, folder)
    there = ["--cache-dir", tmp_path]
    trained = invoke("train", "--head", "tfidf", "--no-baselines", *there)
    assert trained.exit_code == 0, trained.output
    for days, name in ((1, "new--a--1"), (40, "old--a--2"), (90, "older--b--3")):
        path = folder / f"{name}.h5"
        shutil.copy(cache_path, path)
        os.utime(path, (time.time() - days * 86400,) * 2)

    def remove(*arguments):
        result = invoke("cache", "remove", *arguments, *there)
        return result, {path.stem for path in folder.glob("*.h5")} - {cache_path.stem}

    return remove


EVERY = {"new--a--1", "old--a--2", "older--b--3"}


@pytest.mark.parametrize(
    ("arguments", "removed"),
    [
        (["older"], {"older--b--3"}),
        (["new--a--1", "older--b"], {"new--a--1", "older--b--3"}),
        (["--unused"], EVERY),
        (["--older-than", "30d"], {"old--a--2", "older--b--3"}),
        (["--older-than", "8w"], {"older--b--3"}),
        (["--unused", "--older-than", "1000h"], {"older--b--3"}),
        (["--older-than", "365d"], set()),
    ],
    ids=lambda value: " ".join(sorted(value)),
)
def test_caches_are_removed_by_parts_of_names_use_and_age(caches, arguments, removed):
    refused, left = caches(*arguments)  # standard input is no terminal
    assert left == EVERY
    if removed:
        assert refused.exit_code == 1 and "give --yes if that is what you want" in refused.stderr
        assert all(f"{name} (" in refused.stderr for name in removed)
        assert ("B in all)" in refused.stderr) == (len(removed) > 1)
    result, left = caches(*arguments, "--yes", "--json")
    assert left == EVERY - removed
    content = json.loads(result.stdout)
    assert {one["name"] for one in content} == removed
    assert all(one["bytes"] > 10_000 for one in content)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give names of caches, or --unused or --older-than"),
        (["new", "--unused"], "give names of caches, or --unused or --older-than"),
        (["a--"], "2 caches of"),
        (["nothing"], "has no cache 'nothing'"),
        (["--older-than", "30"], "--older-than 30: give a time such as 30d, 12h or 8w"),
        (["--older-than", "-1d"], "--older-than -1d: give a time such as 30d, 12h or 8w"),
    ],
    ids=str,
)
def test_what_cannot_be_removed_is_refused_in_one_line(caches, arguments, said):
    result, left = caches(*arguments, "--yes")
    assert left == EVERY and result.exit_code == 1
    assert said in result.stderr and result.stderr.count("\n") == 1


def test_linear_baseline_takes_the_last_token_of_a_left_padding_backbone(xlnet, reviews, tmp_path):
    there = ["--cache-dir", tmp_path, "--json"]
    invoke("embed", "--backbone", xlnet, "--dataset", reviews, *there)
    trained = json.loads(invoke("train", "--epochs", 1, *there).stdout)
    assert [run["settings"]["pooling"] for run in trained] == [None, "last"]


def test_the_environment_moves_everything(bert, reviews, tmp_path):
    environment = {"SPACELITE_CACHE": str(tmp_path / "elsewhere")}
    invoke("embed", "--backbone", bert, "--dataset", reviews, env=environment)
    assert list((tmp_path / "elsewhere" / "embeddings").glob("*.h5"))
    unknown = invoke("train", "--sweep", "layers", "--cache", "none", env=environment)
    assert str(tmp_path / "elsewhere") in unknown.stderr


@pytest.mark.parametrize("what", [["report"], ["report", "--json"], ["cache", "list"]], ids=str)
def test_a_reader_that_leaves_early_is_no_error(what, workplace):
    folder, _, _ = workplace
    reading, writing = os.pipe()
    os.close(reading)
    process = processes.spacelite(
        *what, "--cache-dir", folder, stdout=writing, fresh=what == ["cache", "list"]
    )
    os.close(writing)
    code, _, errors = process.wait()
    assert code == 0 and "Traceback" not in errors and "error" not in errors


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["runs list", "runs list --json", "--help", "runs list --help"])
def test_a_full_disk_behind_the_output_is_one_line(command, tmp_path):
    environment = {"SPACELITE_CACHE": str(tmp_path)}
    with Path("/dev/full").open("w") as full:
        to_full = {"stdout": full.fileno(), "env": environment}
        done = processes.spacelite(*command.split(), **to_full).wait()
        assert done.returncode == 1
        assert done.stderr == "error: the output cannot be written: No space left on device\n"
        environment["SPACELITE_DEBUG"] = "1"
        done = processes.spacelite(*command.split(), **to_full).wait()
    assert done.returncode != 0 and "Traceback" in done.stderr


@pytest.mark.parametrize("command", ["runs list", "--help"])
def test_a_closed_output_is_no_error(command, tmp_path):
    run = [sys.executable, "-c", processes.COMMAND, *command.split()]
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *run],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SPACELITE_CACHE": str(tmp_path)},
    )
    assert (closed.returncode, closed.stderr) == (0, "")


def test_names_are_shown_as_they_are(workplace, tmp_path):
    folder, _, _ = workplace
    (path,) = (folder / "embeddings").glob("*.h5")
    (tmp_path / "embeddings").mkdir()
    (tmp_path / "embeddings" / "a [red]b.h5").write_bytes(path.read_bytes())
    assert "a [red]b" in invoke("cache", "list", "--cache-dir", tmp_path).stdout
    removed = invoke("cache", "remove", "a [red]b", "--yes", "--cache-dir", tmp_path)
    assert removed.stdout.startswith("removed a [red]b (")


def test_usage_errors_exit_2():
    assert processes.spacelite("train", "--no-such-option", fresh=True).wait().returncode == 2


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["train", "--inter", "0", "0.2"], "--inter 0,0.2"),
        (["train", "--epochs", "3", "--head", "space,", "linear", "--seeds", "3"],
         "--head space,linear"),
        (["train", "--lr", "0.1,", "0.2", "0.3"], "--lr 0.1,0.2,0.3"),
        (["demo", "--seeds", "1", "2"], "--seeds 1,2"),
        (["train", "else"], None),
        (["train", "--epochs", "3", "5"], None),
        (["cache", "list", "a", "b"], None),
    ],
)  # fmt: skip
def test_lists_with_spaces_are_refused_with_what_to_write(arguments, hint):
    result = invoke(*arguments)
    assert result.exit_code == 2 and "unexpected extra argument" in result.stderr
    last = " ".join(result.stderr.split())
    if hint is None:
        assert "commas" not in last
    else:
        assert f"; write several values with commas: {hint}" in last


def test_hints_name_the_folder_where_it_is_not_the_default(workplace, tmp_path, monkeypatch):
    folder, *_ = workplace
    there = ["--cache-dir", tmp_path]
    (path,) = (folder / "embeddings").glob("*.h5")
    arguments = ["train", "--cache", path, "--epochs", "1", "--no-baselines", *there]
    hint = f"spacelite report --cache-dir {tmp_path}"
    assert invoke(*arguments).stdout.rstrip().endswith(f"; {hint} compares them")
    shown = " ".join(invoke("report", *there).stdout.split())
    assert f"{hint} --format html --out DIR adds curves" in shown
    assert "and the last answers of cv, curve, audit and sweep; --format markdown prints" in shown
    monkeypatch.setenv("SPACELITE_CACHE", str(tmp_path))
    assert invoke(*arguments).stdout.rstrip().endswith("; spacelite report compares them")
    assert "spacelite report --format html" in " ".join(invoke("report").stdout.split())


def test_a_folder_with_a_space_is_quoted_in_hints():
    assert with_cache_dir("spacelite report", Path("my runs")).endswith("--cache-dir 'my runs'")
    assert with_cache_dir("spacelite report", CACHE_DIR) == "spacelite report"


def test_an_error_is_a_traceback_only_for_debugging(tmp_path):
    for debug, expected in (("", False), ("1", True)):
        code, _, errors = processes.spacelite(
            "report", "--cache-dir", tmp_path, env={"SPACELITE_DEBUG": debug}
        ).wait()
        assert code == 1 and ("Traceback" in errors) == expected
        assert "holds no run" in errors


def test_interrupted_embed_exits_130_and_says_how_to_continue(bert, reviews, tmp_path):
    (tmp_path / "embeddings").mkdir()
    slow = (
        "import time, torch\nfrom spacelite.backbones.model import Backbone\n"
        "torch.set_num_threads(1)\n"  # one batch at a time
        "real = Backbone.hidden_states\n"
        "def hidden_states(*a):\n    print('computing', flush=True); time.sleep(0.2)\n"
        "    return real(*a)\nBackbone.hidden_states = hidden_states\n"
        f"{processes.COMMAND}"
    )
    process = processes.start(
        slow, "embed", "--backbone", bert, "--dataset", reviews, "--cache-dir", tmp_path
    )
    for _ in range(5):  # the fifth batch: the first is written by now
        assert process.line() == "computing"
    process.send_signal(signal.SIGINT)
    code, _, errors = process.wait()
    assert code == 130
    assert errors.splitlines()[-1] == "interrupted: run the same command again to continue"
    assert "Traceback" not in errors
    result = invoke("embed", "--backbone", bert, "--dataset", reviews, "--cache-dir", tmp_path)
    assert result.exit_code == 0 and "continuing: " in result.stderr


@pytest.mark.parametrize(
    ("delays", "interrupted"),
    [
        ((0.0, 0.1), 1),
        pytest.param((0.01, 0.02, 0.04, 0.07, 0.2, 0.4, 0.8, 1.5), 4, marks=pytest.mark.slow),
    ],
    ids=["two", "many"],
)
def test_ctrl_c_in_the_first_moment_ends_without_a_traceback(
    delays, interrupted, bert, reviews, tmp_path
):
    """While modules are imported, arguments are parsed, or the command begins."""
    code = (
        # A shell starts what runs in the background with Ctrl-C ignored, and so would its children.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import spacelite_cli\nset_handler = signal.signal\n"
        "def told(*a):\n    set_handler(*a); print('set', flush=True)\n"
        "signal.signal = told\nspacelite_cli.main()"
    )
    arguments = ["embed", "--backbone", bert, "--dataset", reviews, "--device", "cpu"]
    codes = []
    for number, delay in enumerate(delays):
        process = processes.start(
            code, *arguments, "--cache-dir", tmp_path / str(number), fresh=True
        )
        assert process.line() == "set"  # the interpreter is up: the command's part
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        done = process.wait()
        codes.append(done.returncode)
        assert done.returncode in (0, 130) and "Traceback" not in done.stderr, (delay, done)
        if done.returncode == 130:
            assert done.stderr.splitlines()[-1].startswith("interrupted")
    assert codes.count(130) >= interrupted


def test_an_interrupt_that_a_callback_swallows_comes_again():
    code = (
        "import sys, time, spacelite_cli\n"
        "sys.unraisablehook = spacelite_cli.repeat_interrupt\n"
        "class Swallows:\n    def __del__(self):\n        raise KeyboardInterrupt\n"
        "class Fails:\n    def __del__(self):\n        raise ValueError('shown')\n"
        "Fails()\n"
        "try:\n    Swallows()\n    for _ in range(2000):\n        time.sleep(0.01)\n"
        "except KeyboardInterrupt:\n    print('again')"
    )
    done = processes.run(code)
    assert done.returncode == 0 and done.stdout == "again\n"
    assert "KeyboardInterrupt" not in done.stderr and "ValueError: shown" in done.stderr


def test_train_never_imports_what_only_embed_needs(workplace):
    folder, _, _ = workplace
    code = (
        "import sys\nfrom spacelite_cli.app import app\n"
        "try:\n    app(['train', '--epochs', '1', '--head', 'space,linear,mlp', '--no-baselines', "
        f"'--cache-dir', {str(folder)!r}])\nfinally:\n    print('imported:', *sorted(sys.modules))"
    )
    done = processes.run(code, fresh=True)
    assert "3 heads trained" in done.stdout, done.stderr
    imported = done.stdout.rpartition("imported: ")[2].split()
    assert "torch" in imported
    for package in ("transformers", "datasets", "tokenizers", "sklearn", "pyarrow", "pandas",
                    "huggingface_hub", "torch._dynamo"):  # fmt: skip
        assert package not in imported, package


def test_commands_work_without_docstrings():
    main = "import sys; from spacelite_cli import main; sys.argv[1:] = ['cv', '--help']; main()"
    result = subprocess.run([sys.executable, "-OO", "-c", main], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "--folds" in result.stdout


def test_interrupted_train_continues_by_itself(bert, reviews, tmp_path):
    there = ["--cache-dir", tmp_path, "--head", "space", "--epochs", "4", "--lr", "0.01",
             "--no-baselines"]  # fmt: skip
    invoke("embed", "--backbone", bert, "--dataset", reviews, "--cache-dir", tmp_path)
    slow = (
        "import time\nfrom spacelite.training import checkpoints\n"
        "real = checkpoints.save\n"
        "def save(*a):\n    real(*a); print('saved', flush=True); time.sleep(0.5)\n"
        f"checkpoints.save = save\n{processes.COMMAND}"
    )
    process = processes.start(slow, "train", *there)
    for _ in range(2):
        assert process.line() == "saved"
    process.send_signal(signal.SIGINT)
    code, _, errors = process.wait()
    assert code == 130 and "Traceback" not in errors
    message = "interrupted: run the same command again to continue after the last "
    assert errors.splitlines()[-1] == message + "finished epoch"
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").glob("[!.]*"))
    resumed = invoke("train", *there)
    assert resumed.exit_code == 0 and "continuing after epoch 2 of 4" in resumed.stderr
    (weights,) = (tmp_path / "runs").glob("*/head.safetensors")
    content = weights.read_bytes()
    assert not list((tmp_path / "unfinished").iterdir())
    again = invoke("train", "--resume", *there)
    assert "nothing to resume: training from the start" in again.stderr
    assert weights.read_bytes() == content
    both = invoke("train", "--resume", "--fresh", *there)
    assert both.exit_code == 1
    assert "--resume and --fresh contradict each other: give one of them" in both.stderr


def test_list_shows_unfinished_trainings_and_remove_counts_them(bert, reviews, tmp_path):
    there = ["--cache-dir", tmp_path]
    invoke("embed", "--backbone", bert, "--dataset", reviews, *there)
    name = json.loads(invoke("cache", "list", "--json", *there).stdout)[0]["name"]
    folder = tmp_path / "unfinished"
    folder.mkdir()
    for training, size in (("0123456789", 1500), ("1123456789", 500)):
        (folder / f"{name}--{training}.safetensors").write_bytes(bytes(size))
    other = folder / f"x{name}--0123456789.safetensors"  # of a cache whose name only ends alike
    other.write_bytes(bytes(10))
    listed = invoke("cache", "list", *there).stdout
    assert f"2 unfinished trainings on {name} (2.0 kB): run the same train command" in listed
    assert f"1 unfinished training on x{name} (10 bytes)" in listed
    (state,) = json.loads(invoke("cache", "list", "--json", *there).stdout)
    assert (state["unfinished_trainings"], state["unfinished_bytes"]) == (2, 2000)
    removed = invoke("cache", "remove", name, "--yes", *there).stdout
    assert "and 2 unfinished trainings on it" in removed
    assert list(folder.iterdir()) == [other]


def test_train_does_not_take_a_cache_that_only_eval_used(bert, reviews, tmp_path):
    there = ["--cache-dir", tmp_path]
    data = write_dataset(tmp_path / "other", {"train": 20, "test": 15})
    invoke("embed", "--backbone", bert, "--dataset", reviews, *there)
    trained = invoke("train", "--epochs", 1, "--head", "linear", "--json", *there)
    run = json.loads(trained.stdout)[0]
    evaluated = invoke("eval", run["id"], "--dataset", data, "--backbone", bert, *there)
    assert evaluated.exit_code == 0, evaluated.output
    new, old = [state["name"] for state in
                json.loads(invoke("cache", "list", "--json", *there).stdout)]  # fmt: skip
    plain = invoke("train", "--epochs", 1, "--head", "linear", "--json", *there)
    assert plain.exit_code == 0 and old == run["cache"]
    assert f"cache {old}, one of 2: --cache ... chooses another\n" in plain.stderr
    assert json.loads(plain.stdout)[0]["cache"] == old
    said = f"{new} is newer than {old}, but has only been used to evaluate a run: --cache {new}"
    assert said in plain.stderr
    chosen = invoke("train", "--epochs", 1, "--head", "linear", "--cache", new, *there)
    assert chosen.exit_code == 0
    # Now it has been trained on.
    plain = invoke("train", "--epochs", 1, "--head", "linear", *there)
    assert f"cache {new}, one of 2: --cache" in plain.stderr and "is newer" not in plain.stderr


def test_train_takes_what_was_embedded_last_whatever_was_evaluated(bert, reviews, tmp_path):
    """Neither a run that is removed nor a head that is trained again makes a cache of `eval` one to
    train on; `embed` does. The evaluations of a head that stays the same are kept."""
    there = ["--cache-dir", tmp_path]
    data = write_dataset(tmp_path / "other", {"train": 20, "test": 15})

    def embed(*options):
        done = invoke("embed", "--backbone", bert, *options, "--json", *there)
        return json.loads(done.stdout)["name"]

    def trained(*options):
        done = invoke("train", "--epochs", 1, "--head", "linear", "--json", *options, *there)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)[0], done.stderr

    own = embed("--dataset", reviews)
    run, _ = trained()
    evaluated = invoke("eval", run["id"], "--dataset", data, "--json", "--backbone", bert, *there)
    cache = json.loads(evaluated.stdout)["cache"]
    transfers = [tmp_path / "runs" / run["id"] / "transfer" / f"{cache}{kind}"
                 for kind in (".json", ".npz")]  # fmt: skip
    again, said = trained()
    assert again["cache"] == own and "dropped" not in said
    assert all(path.is_file() for path in transfers)
    path = transfers[0].parents[1] / "head.safetensors"
    record = json.loads((path.parent / "run.json").read_text())
    record["checksums"]["head.safetensors"] = 1
    files.write_json(path.parent / "run.json", record)
    _, said = trained()
    assert "the evaluation of the earlier run" in said and "is dropped" in said
    assert not any(path.exists() for path in transfers)
    assert invoke("runs", "remove", run["id"], "--yes", *there).exit_code == 0
    run, said = trained()
    assert run["cache"] == own and f"{cache} is newer than {own}" in said
    other = embed("--dataset", reviews, "--max-length", "9")
    assert trained()[0]["cache"] == other
    assert embed("--dataset", reviews) == own and trained()[0]["cache"] == own
    assert embed("--dataset", data) == cache and trained()[0]["cache"] == cache


def test_info_counts_the_labels_of_texts_with_several(bert, tmp_path):
    rows = [{"text": f"film {i}", "label": [[], ["a"], ["a", "c"]][i % 3]} for i in range(9)]
    (tmp_path / "data").mkdir()
    for split in ("train", "validation", "test"):
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    there = ["--cache-dir", tmp_path, "--json"]
    invoke("embed", "--backbone", bert, "--dataset", tmp_path / "data", *there)
    info = json.loads(invoke("cache", "info", "tiny", *there).stdout)
    assert info["splits"]["test"]["labels"] == {"a": 6, "c": 3}
    heads = ["--head", "space,linear,mlp,logreg", "--inter", "0,0.2", "--intra", "0.001"]
    trained = json.loads(invoke("train", "--epochs", 2, *heads, *there).stdout)
    assert len(trained) == 5 and all(run["multilabel"] for run in trained)
    assert {run["average"] for run in trained} == {"weighted"}


def test_losses_beyond_all_bounds_do_not_break_the_tables(workplace, tmp_path):
    folder, _, _ = workplace
    there = ["--cache-dir", tmp_path]
    (tmp_path / "embeddings").symlink_to(folder / "embeddings")
    options = {"env": {"COLUMNS": "80"}}
    trained = invoke("train", "--epochs", 1, "--lr", "1e12", *there, **options)
    shown = invoke("report", *there, **options)
    for result in (trained, shown):
        assert re.search(r"\de\+\d\d", result.stdout), result.output
        assert "…" not in result.stdout  # a cell that was cut
