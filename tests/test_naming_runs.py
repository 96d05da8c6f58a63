"""Runs under ids, names and folders: found alike everywhere, listed, removed, handed over."""

import json
import os
import pty
import shutil
from pathlib import Path

import processes
import pytest
from conftest import invoke, refusal
from test_report import run_with

import spacelite
from spacelite import files
from spacelite.api.results import EmbeddedDataset
from spacelite.runs import store as runs


@pytest.fixture(scope="module")
def prepared(cache_path, tmp_path_factory):
    """A cache folder with four space heads and a baseline, one of which is evaluated elsewhere."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "embeddings").mkdir()
    shutil.copy(cache_path, folder / "embeddings")
    spacelite.train(
        EmbeddedDataset(folder / "embeddings" / cache_path.name, folder),
        inter=[0, 0.2], seeds=2, epochs=1, head="space", progress=False,
    )  # fmt: skip
    spacelite.train(
        cache_path.stem, cache_dir=folder, head="linear", epochs=2, progress=False, name="base"
    )
    return folder


@pytest.fixture
def cache_dir(prepared, tmp_path):
    return Path(shutil.copytree(prepared, tmp_path / "cache"))


def ids(cache_dir):
    return [run.id for run in runs.load_all(cache_dir)]


# Names.


def test_a_name_stands_for_the_id_everywhere(cache_dir, cache_path, bert):
    one = next(run for run in ids(cache_dir) if "--space--" in run)
    there = ["--cache-dir", cache_dir]
    named = invoke("runs", "name", one[-8:], "best", *there)
    assert named.exit_code == 0 and named.stdout == f"{one} is named best\n"
    folder = cache_dir / "runs" / one
    for called in (one, one[-8:], one[-7:-2], "best", str(folder), f"{folder}/"):
        assert runs.find(cache_dir, called).id == one
        assert spacelite.load_run(called, cache_dir).name == "best"
        assert spacelite.report(called, cache_dir=cache_dir, progress=False).findings.parts
        shown = json.loads(invoke("runs", "show", called, *there, "--json").stdout)
        assert (shown["id"], shown["name"]) == (one, "best")
        predicted = invoke("predict", called, "a good film", "--backbone", bert, *there)
        assert predicted.exit_code == 0, predicted.stderr
        explained = invoke("explain", called, "--example", "test:1", "--backbone", bert,
                                "--json", *there)  # fmt: skip
        assert json.loads(explained.stdout)["run"] == one
        evaluated = invoke("eval", called, "--cache", cache_path.stem, "--json", *there)
        assert json.loads(evaluated.stdout)["run"] == one
    assert invoke("runs", "name", "best", "--clear", *there).exit_code == 0
    assert runs.load(folder).name is None
    assert "there is no run 'best'" in refusal(runs.find, cache_dir, "best")


def test_an_earlier_version_reads_a_run_with_a_name(cache_dir):
    """It knows neither of the new keys, and no key that it knows has changed."""
    file = cache_dir / "runs" / runs.find(cache_dir, "base").id / "run.json"
    content = json.loads(file.read_text())
    assert content["name"] == "base" and content["cache_files"] == []
    del content["name"], content["cache_files"]
    files.write_json(file, content)
    assert runs.load(file.parent).name is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "letter or digit first"),
        ("a b", "letter or digit first"),
        ("-x", "letter or digit first"),
        ("..", "letter or digit first"),
        ("x/y", "letter or digit first"),
        ("x" * 61, "60 at most"),
        ("dead12ef", "looks like the id"),
        ("minilm--imdb", "looks like the id"),
        ("base", "is named base already"),
        ("\x1b[31mred", "letter or digit first"),
    ],
)
def test_names_that_a_run_cannot_have(name, words, cache_dir):
    one = next(run for run in runs.load_all(cache_dir) if run.name is None)
    before = (one.folder / "run.json").read_bytes()
    assert words in refusal(runs.rename, one, name)
    assert (one.folder / "run.json").read_bytes() == before


def test_renaming_in_python_returns_the_renamed_run(cache_dir):
    run = spacelite.load_run("base", cache_dir)
    assert run.rename("base").name == "base"  # its own name is free
    renamed = run.rename("Größe_1.5")
    assert run.name == "Größe_1.5" == renamed.name
    assert renamed.name == "Größe_1.5" and renamed == run
    assert spacelite.load_run("Größe_1.5", cache_dir).id == run.id
    assert renamed.rename(None).name is None


# train(name=).


def test_heads_that_are_trained_together_are_numbered(cache_dir, cache_path):
    done = invoke(
        "train", "--cache", cache_path.stem, "--cache-dir", cache_dir, "--name", "grid",
        "--inter", "0,0.3", "--epochs", 1,
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "saved in " in done.stdout and "as grid-1 to grid-3;" in done.stdout
    named = {run.name: run for run in runs.load_all(cache_dir) if run.name}
    assert sorted(named) == ["base", "grid-1", "grid-2", "grid-3"]
    heads = [named[f"grid-{number}"].record for number in (1, 2, 3)]
    assert [getattr(one.head, "inter", None) for one in heads] == [0.0, 0.3, None]


def test_a_training_that_is_repeated_keeps_its_name(cache_dir, cache_path):
    again = {"cache_dir": cache_dir, "head": "linear", "epochs": 2, "progress": False}
    (run,) = spacelite.train(cache_path.stem, **again)
    assert run.name == "base"
    (run,) = spacelite.train(cache_path.stem, name="base", **again)
    assert run.name == "base"
    (run,) = spacelite.train(cache_path.stem, name="line", **again)
    assert run.name == "line"


def test_a_name_that_is_taken_is_refused_before_anything_is_trained(cache_dir, cache_path):
    before = ids(cache_dir)
    there = {"cache_dir": cache_dir, "epochs": 3, "progress": False}
    message = refusal(spacelite.train, cache_path.stem, name="base", head="linear", **there)
    assert "is named base already: choose another name, or give replace=True to take it" in message
    # One name moves to one run.
    several = {"head": "linear", "name": "base", "replace": True, "seeds": 2}
    assert refusal(spacelite.train, cache_path.stem, **several, **there) == (
        "replace=True gives one run the name base, and 2 heads are going to be base-1 to base-2: "
        "train a single one, or choose another name"
    )
    assert "cannot be named 'x/y'" in refusal(spacelite.train, cache_path.stem, name="x/y", **there)
    assert ids(cache_dir) == before


def test_a_name_moves_to_the_new_run_on_request(cache_dir, cache_path, caplog):
    caplog.set_level("INFO", "spacelite")
    there = {"cache_dir": cache_dir, "head": "linear", "name": "weekly", "progress": False}
    (old,) = spacelite.train(cache_path.stem, epochs=1, **there)
    second = {"replace": True, "epochs": 2, "seeds": [3], **there}
    (new,) = spacelite.train(cache_path.stem, **second)
    assert runs.find(cache_dir, "weekly").id == new.id != old.id
    assert runs.find(cache_dir, old.id).name is None
    assert f"weekly is run {new.id} now; the earlier one stays as {old.id}" in caplog.messages
    # The same again: nothing moves.
    caplog.clear()
    again = spacelite.train(cache_path.stem, **second)
    assert [run.name for run in again] == ["weekly"] and "stays as" not in caplog.text
    # A training that saves nothing leaves the name where it is.
    assert not spacelite.train(cache_path.stem, **{**second, "seeds": [4], "learning_rate": 1e38})
    assert runs.find(cache_dir, "weekly").id == new.id
    result = invoke(
        "train", "--cache", cache_path.stem, "--head", "linear", "--epochs", 1, "--name", "weekly",
        "--replace", "--no-baselines", "--cache-dir", cache_dir,
    )  # fmt: skip
    assert result.exit_code == 0 and f"the earlier one stays as {new.id}" in result.stderr
    assert runs.find(cache_dir, "weekly").id == old.id
    without = {**second, "name": None}
    assert "give name too" in refusal(spacelite.train, cache_path.stem, **without)


# What is not found.


def test_several_runs_that_fit_are_listed(cache_dir):
    message = refusal(runs.find, cache_dir, "--space--")
    assert message.startswith("4 runs have '--space--' in their id (")
    for run in ids(cache_dir):
        assert (run in message) == ("--space--" in run)
    assert "named base" in refusal(runs.find, cache_dir, "tiny")


def test_the_nearest_name_is_suggested(cache_dir):
    one = ids(cache_dir)[0]
    assert "did you mean base?" in refusal(runs.find, cache_dir, "bse")
    wrong = one[:-1] + ("0" if one[-1] != "0" else "1")
    assert f"did you mean {one}" in refusal(runs.find, cache_dir, wrong)
    assert "which holds tiny-bert--" in refusal(runs.find, cache_dir, "@@@")


def test_a_run_that_cannot_be_read_may_be_the_one_that_is_named(cache_dir):
    (named,) = (run for run in runs.load_all(cache_dir) if run.name == "base")
    record = named.folder / "run.json"
    record.write_bytes(record.read_bytes().replace(b'"base"', b'"bas\xff"'))
    message = refusal(runs.find, cache_dir, "base")
    assert "one that cannot be read" in message and named.id in message and "mean" not in message


def test_a_folder_that_is_missing_is_not_called_damaged(cache_dir, tmp_path):
    assert "there is no folder" in refusal(runs.find, cache_dir, str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    assert "has no run.json" in refusal(runs.find, cache_dir, str(tmp_path / "empty"))
    assert "holds no run" in refusal(runs.find, tmp_path / "empty", "x")


def test_a_cache_file_that_is_missing_is_not_sought_among_the_names(cache_dir):
    message = refusal(spacelite.train, "../data/mine.h5", cache_dir=cache_dir)
    assert message == "there is no cache file ../data/mine.h5: give a cache's name, or its .h5 file"


# The list.


@pytest.mark.parametrize("width", [80, 120])
def test_the_list_has_a_line_per_run_and_shows_what_differs(width, cache_dir):
    shown = invoke("runs", "list", "--cache-dir", cache_dir, env={"COLUMNS": str(width)})
    lines = shown.stdout.splitlines()
    assert shown.exit_code == 0 and max(map(len, lines)) <= width and "…" not in shown.stdout
    for word in ("Run", "System", "Seed", "Val.", "Test", "Saved"):
        assert word in shown.stdout
    assert "learning rate" not in shown.stdout  # all runs have the same
    saved = runs.load_all(cache_dir)
    (rule,) = [number for number, line in enumerate(lines) if "──" in line]
    table = [line for line in lines[rule + 1 :] if line.strip() and line.startswith(" ")]
    assert len(table) == len(saved)
    for run in saved:
        (line,) = [line for line in lines if f" {run.name or run.id[-8:]} " in line]
        assert f" {run.record.system} " in line
        places = 4 if width == 120 else 3
        for split in ("validation", "test"):
            for metric in ("accuracy", "f1_macro"):
                assert f"{run.record.metrics[split][metric]:.{places}f}" in line


@pytest.mark.parametrize("width", [80, 200])
def test_long_names_of_systems_take_the_room_of_other_columns(width, cache_dir, cache_path):
    spacelite.train(
        cache_path.stem, cache_dir=cache_dir, head="space", learning_rate=[0.001, 0.01], intra=0.5,
        weight_decay=[0, 0.1], class_weights="balanced", epochs=1, progress=False,
    )  # fmt: skip
    shown = invoke("runs", "list", "--cache-dir", cache_dir, env={"COLUMNS": str(width)})
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= width
    left_out = "Left out for lack of room: Val. acc., Val. F1, Test acc., Saved, Size."
    assert (left_out in lines) == (width == 80)
    for run in runs.load_all(cache_dir):
        (line,) = [line for line in lines if f" {run.name or run.id[-8:]} " in line]
        figure = f" {run.record.metrics['test']['f1_macro']:.{3 if width == 80 else 4}f} "
        assert figure in line and ("kB" in line) == (width == 200)
    if width == 200:
        assert shown.stdout.count(", learning rate 0.01, weight decay 0.1 ") == 1


def test_only_heads_of_the_grid_are_said_to_have_its_names(cache_dir, cache_path, with_baselines):
    options = ["--cache", cache_path.stem, "--cache-dir", cache_dir, "--epochs", "1"]
    done = invoke("train", "--head", "linear", "--seeds", "2", "--name", "grid", *options)
    assert "4 heads trained in" in done.stdout, done.output
    assert ", 2 of them as grid-1 to grid-2; " in " ".join(done.stdout.split())


def test_the_list_is_of_the_runs_that_were_asked_for(cache_dir, cache_path):
    def listed(*filters):
        done = invoke("runs", "list", *filters, "--json", "--cache-dir", cache_dir)
        return {one["id"] for one in json.loads(done.stdout)}

    saved = runs.load_all(cache_dir)
    assert listed("--head", "linear") == {run.id for run in saved if run.head.kind == "linear"}
    assert listed("--cache", cache_path.stem[:12]) == {run.id for run in saved} == listed(
        "--dataset", saved[0].record.spec.dataset
    )  # fmt: skip
    for option, known in (
        ("--cache", cache_path.stem), ("--dataset", saved[0].record.spec.dataset),
        ("--head", "linear"),
    ):  # fmt: skip
        refused = invoke("runs", "list", option, "none", "--cache-dir", cache_dir)
        assert refused.exit_code == 1
        assert refused.stderr.startswith(f"error: {option} none: no run has this ")
        assert known in refused.stderr


def test_the_runs_of_one_training_stand_in_the_order_of_their_names():
    def saved(at, name, cache="minilm--imdb--0"):
        return run_with(created=f"2026-01-01T00:{at}Z", name=name, cache=cache)

    grid = [saved(f"01:{number:02}", f"grid-{number}") for number in range(1, 13)]
    later = [saved("05:00", "b"), saved("05:01", "a"), saved("05:03", "c")]
    elsewhere = [saved("05:02", "other", "minilm--imdb--1")]
    found = runs.newest_first([*later[::-1], *elsewhere, *grid[::-1]])
    assert [run.name for run in found] == ["c", "other", "a", "b", *(run.name for run in grid)]
    odd = [saved("01:00", "x"), run_with(created="once", name="y")]
    assert {run.name for run in runs.newest_first(odd)} == {"x", "y"}


def test_the_list_as_json_and_of_no_runs(cache_dir, tmp_path):
    there = ["--cache-dir", cache_dir]
    listed = json.loads(invoke("runs", "list", "--json", *there).stdout)
    assert sorted(one["id"] for one in listed) == sorted(ids(cache_dir))
    for one in listed:
        run = runs.find(cache_dir, one["id"])
        assert one["name"] == run.name and one["metrics"] == run.record.metrics
        assert one["bytes"] == sum(p.stat().st_size for p in run.folder.iterdir())
    created = [one["created"][:16] for one in listed]
    assert created == sorted(created, reverse=True)
    empty = invoke("runs", "list", "--cache-dir", tmp_path / "empty")
    assert empty.exit_code == 0 and "spacelite train saves some" in empty.stdout
    assert json.loads(invoke("runs", "list", "--json", "--cache-dir", tmp_path).stdout) == []


def test_a_damaged_run_is_left_out_of_the_list_and_can_be_removed(cache_dir):
    broken = cache_dir / "runs" / runs.find(cache_dir, "base").id
    (broken / "run.json").write_text('{"metrics": {}}')
    listed = invoke("runs", "list", "--cache-dir", cache_dir)
    assert listed.exit_code == 0 and broken.name not in listed.stdout
    assert listed.stderr.count(broken.name) == 1 and "is damaged" in listed.stderr
    removed = invoke("runs", "remove", broken.name, "--yes", "--cache-dir", cache_dir)
    assert removed.exit_code == 0 and not broken.exists()


def test_show_prints_everything(cache_dir, cache_path):
    shown = invoke("runs", "show", "base", "--cache-dir", cache_dir, env={"COLUMNS": "200"})
    for word in ("linear (first)", "base", cache_path.stem, "learning rate 0.0002", "epochs 2",
                 "tiny-bert", "validation", "torch"):  # fmt: skip
        assert word in shown.stdout, word
    assert str(cache_dir / "embeddings") in shown.stdout


# Removing.


def test_remove_asks_first(cache_dir, monkeypatch):
    there = ["--cache-dir", cache_dir]
    run = runs.find(cache_dir, "base")
    refused = invoke("runs", "remove", "base", *there)  # standard input is no terminal
    assert refused.exit_code == 1 and "would be deleted: give --yes" in refused.stderr
    several = invoke("runs", "remove", "--yes", *there, "tiny")
    assert several.exit_code == 1 and "5 runs have 'tiny'" in several.stderr
    assert run.folder.exists() and len(ids(cache_dir)) == 5
    removed = invoke("runs", "remove", "base", "--yes", "--json", *there)
    assert json.loads(removed.stdout) == [{"id": run.id, "path": str(run.folder)}]
    assert not run.folder.exists() and len(ids(cache_dir)) == 4
    assert not [path for path in run.folder.parent.iterdir() if run.id in path.name]
    spacelite.load_run(ids(cache_dir)[0], cache_dir).remove()
    assert len(ids(cache_dir)) == 3


def test_in_a_terminal_nothing_is_removed_without_a_yes(cache_dir):
    run = runs.find(cache_dir, "base")
    for answer, left in ((b"n\n", True), (b"y\n", False)):
        keyboard, terminal = pty.openpty()
        os.write(keyboard, answer)
        done = processes.spacelite(
            "runs", "remove", "base", "--cache-dir", cache_dir, stdin=terminal
        ).wait()
        os.close(keyboard)
        os.close(terminal)
        assert done.returncode == int(left) and run.id in done.stderr
        assert run.folder.exists() == left
        assert ("nothing was deleted" in done.stderr) == left


def test_a_folder_elsewhere_with_other_files_is_not_removed(cache_dir, tmp_path):
    folder = shutil.copytree(runs.find(cache_dir, "base").folder, tmp_path / "mine")
    (folder / "thesis.txt").write_text("all of it")
    assert "also holds thesis.txt" in refusal(runs.remove, folder)
    assert (folder / "run.json").exists()


# Where things are.


def test_everything_works_after_the_working_folder_has_changed(
    cache_dir, cache_path, bert, tmp_path, monkeypatch
):
    monkeypatch.chdir(cache_dir.parent)
    backbone = shutil.copytree(bert, "model")
    cache = spacelite.embed(
        texts=["good film", "bad plot", "good scene", "bad story"] * 6, labels=[1, 0] * 12,
        backbone="model", cache_dir="cache", device="cpu", progress=False,
    )  # fmt: skip
    assert backbone == "model"
    run = spacelite.load_run("base", "cache")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cache.state.complete
    (trained,) = spacelite.train(cache, head="space", epochs=1, progress=False)
    assert trained.predict("good film", progress=False).labels
    assert trained.explain(example="train:1").words
    assert trained.evaluate(cache=cache, progress=False).metrics
    assert run.run.history() and run.run.parameters
    assert run.evaluate(cache=cache_path.stem, progress=False).metrics
    assert list(Path().iterdir()) == []


def test_a_run_finds_the_cache_of_another_folder(cache_path, bert, tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    shutil.copy(cache_path, project / "data" / "mine.h5")
    (project / "work").mkdir()
    monkeypatch.chdir(project / "work")
    (run,) = spacelite.train("../data/mine.h5", head="space", epochs=1, progress=False)
    assert run.cache_dir == project / "work" / "cache"
    expected = run.explain(example="test:2", backbone=str(bert)).words
    assert run.record.cache_files == ("../../../../data/mine.h5", str(project / "data" / "mine.h5"))
    # Moved with its cache, without it, and with it gone.
    project.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    moved = spacelite.load_run(run.id, "moved/work/cache")
    assert moved.explain(example="test:2", backbone=str(bert)).words == expected
    report = spacelite.report(moved, backbone=str(bert), progress=False)
    (part,) = report.findings.parts
    assert part.examples is not None and any("Always predicting" in n for n in part.section.notes)
    (tmp_path / "moved" / "data").rename(tmp_path / "data")
    message = refusal(moved.explain, example="test:2", backbone=str(bert))
    assert "is neither beside the run nor in" in message and "cache_dir" in message


def test_a_cache_that_took_the_place_of_the_run_s_is_not_used(cache_dir, cache_path, bert):
    from conftest import embed

    other = embed(
        texts=["good film", "bad plot", "good scene", "bad story"] * 6, labels=[1, 0] * 12,
        backbone=str(bert), cache_dir=cache_dir, device="cpu",
    ).path  # fmt: skip
    taken = cache_dir / "embeddings" / cache_path.name
    for suffix in (".h5", ".seal.json"):
        shutil.copy(other.with_suffix(suffix), taken.with_suffix(suffix))
    run = next(run for run in spacelite.load_runs(cache_dir) if run.record.head.kind == "space")
    said = refusal(run.explain, example="test:1", backbone=str(bert))
    assert f"{taken} holds the cache {other.name}: " in said


def test_a_colleague_gets_the_folder_of_a_run(
    cache_dir, cache_path, bert, reviews, tmp_path, monkeypatch
):
    """Nothing else of the first machine is there: neither its cache, nor its other runs."""
    one = next(run for run in runs.load_all(cache_dir) if run.head.kind == "space")
    there = tmp_path / "desk"
    there.mkdir()
    shutil.copytree(one.folder, there / "run")
    monkeypatch.chdir(there)
    expected = invoke("predict", one.id, "a good film", "--backbone", bert, "--json",
                           "--cache-dir", cache_dir)  # fmt: skip
    shutil.rmtree(cache_dir)
    predicted = invoke("predict", "./run", "a good film", "--backbone", bert, "--json")
    assert predicted.exit_code == 0 and predicted.stdout == expected.stdout
    assert invoke("explain", "run", "good film", "--backbone", bert).exit_code == 0
    assert invoke("runs", "show", "run").exit_code == 0
    example = invoke("explain", "run", "--example", "test:1", "--backbone", bert)
    assert example.exit_code == 1 and "is neither beside the run nor in" in example.stderr
    assert "--cache-dir" in example.stderr
    done = invoke("eval", "./run", "--dataset", reviews, "--backbone", bert, "--json")
    assert json.loads(done.stdout)["metrics"] == one.record.metrics
    example = invoke("explain", "run", "--example", "test:1", "--backbone", bert)
    assert example.exit_code == 0  # eval has embedded the data set of the run
    report = spacelite.report("run", progress=False)
    assert len(report.findings.parts) == 2


def test_an_empty_name_means_no_run(cache_dir):
    assert "a run's name is empty" in refusal(runs.find, cache_dir, "")
