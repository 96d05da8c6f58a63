"""Runs on disk: format, whole or not at all, damage."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from spacelite import files, heads
from spacelite.cache.spec import CacheSpec
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.runs import store as runs
from spacelite.training.config import TrainingConfig
from spacelite.training.loop import train

CONFIGS = [
    heads.config("space", latent=3, inter=0.2, intra=0.001),
    heads.config("linear", pooling="mean"),
    heads.config("logreg", pooling="first"),
]
TRAINING = TrainingConfig(epochs=2, batch_size=32)


@pytest.fixture(scope="module")
def trained(cache_path):
    with Cache(cache_path) as cache:
        return train(cache, CONFIGS, TRAINING)


@pytest.fixture
def saved(cache_path, trained, tmp_path):
    with Cache(cache_path) as cache:
        return [runs.save(tmp_path, cache, head, TRAINING) for head in trained]


def test_run_is_the_documented_format(saved, trained, cache_path):
    shapes = [
        {"concept_spaces": (2, 3, 16), "classifier.weight": (2, 6), "classifier.bias": (2,)},
        {"classifier.weight": (2, 16), "classifier.bias": (2,)},
        {"classifier.weight": (2, 16), "classifier.bias": (2,)},
    ]
    for run, head, shape in zip(saved, trained, shapes, strict=True):
        assert sorted(p.name for p in run.folder.iterdir()) == [
            "head.safetensors", "history.json", "predictions.npz", "run.json",
        ]  # fmt: skip
        weights = load_file(run.folder / "head.safetensors")
        assert {name: value.shape for name, value in weights.items()} == shape
        for name, value in weights.items():
            np.testing.assert_array_equal(value, head.parameters[name].numpy())
        record = json.loads((run.folder / "run.json").read_text())
        with Cache(cache_path) as cache:
            assert record["cache_key"] == cache.spec.cache_key()
            assert record["spec"] == cache.spec.as_json()
            assert record["label_names"] == cache.label_names == ["0", "1"]
        assert record["id"] == run.folder.name
        assert record["head"] == head.config.kind
        assert record["train_params"] == sum(value.size for value in weights.values())
        assert record["metrics"] == head.metrics
        assert record["versions"]["torch"] and record["seconds"] > 0
        settings = record["settings"]
        epochs = (settings["epochs"], settings["batch_size"], settings["data_seed"])
        adam = (settings["learning_rate"], settings["weight_decay"])
        if head.config.kind == "logreg":
            assert epochs == (None, None, None) and adam == (None, None)
        else:
            assert epochs == (2, 32, 0) and adam == (2e-4, 0.01)
        own = {"logreg": {"C"}, "space": {"ensemble", "scaling"}}.get(head.config.kind, set())
        assert set(settings) == own | {
            "seed", "learning_rate", "weight_decay", "latent", "inter", "intra", "pooling",
            "epochs", "batch_size", "data_seed", "schedule", "clip_norm", "class_weights",
            "patience", "monitor",
        }  # fmt: skip
        assert json.loads((run.folder / "history.json").read_text()) == head.history


def test_a_run_is_readable_for_everyone_whom_the_umask_lets(cache_path, trained, tmp_path):
    """Several people may share a cache folder: no file is for its owner alone."""
    before = os.umask(0o022)
    try:
        with Cache(cache_path) as cache:
            folder = runs.save(tmp_path, cache, trained[0], TRAINING).folder
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_a_loaded_run_is_the_saved_one(saved, trained):
    for run, head in zip(saved, trained, strict=True):
        loaded = runs.load(run.folder)
        assert loaded == run and loaded.head == head.config
        assert loaded.history() == head.history
        for name, value in loaded.parameters.items():
            np.testing.assert_array_equal(value, head.parameters[name].numpy())
        np.testing.assert_array_equal(loaded.predictions().logits, head.logits["test"].numpy())


def test_a_run_of_a_former_version_is_read(saved):
    """It lacks what later versions have added."""
    file = saved[0].folder / "run.json"
    record = json.loads(file.read_text())
    for added in ("multilabel", "heads_in_pass", "best_epoch", "versions"):
        del record[added]
    files.write_json(file, record)
    expected = replace(saved[0].record, heads_in_pass=1, versions={})
    assert runs.load(saved[0].folder).record == expected


SPEC = CacheSpec(
    format=1,
    dataset="imdb",
    dataset_hash="ab" * 32,
    label_names=("neg", "pos"),
    backbone="minilm",
    backbone_version="sha256:" + "cd" * 32,
    tokenizer_hash="ef" * 32,
    max_length=256,
    layer=-1,
    padding="none",
    dtype="float16",
    precision="float32",
)
IDS = {  # as they were before heads had configs
    "space--b86778f2": (heads.config("space"), TrainingConfig()),
    "space--aa7d5b7c": (
        heads.config("space", latent=128, inter=0.2, intra=0.001, seed=4, learning_rate=0.01,
                     weight_decay=0.0),
        TrainingConfig(epochs=3, batch_size=32, data_seed=7),
    ),
    "linear--103836e1": (heads.config("linear", pooling="first"), TrainingConfig()),
    "linear--269d61a2": (
        heads.config("linear", pooling="pooler", seed=1),
        TrainingConfig(schedule="cosine", clip_norm=1.0, class_weights="balanced"),
    ),
    "mlp--afff0761": (
        heads.config("mlp", pooling="last"), TrainingConfig(patience=2, monitor="loss")
    ),
    # Without patience nothing is monitored.
    "mlp--18c9ed2e": (heads.config("mlp", pooling="last"), TrainingConfig(monitor="loss")),
    # Of a training's settings logreg has the class weights alone.
    "logreg--6216ab7d": (
        heads.config("logreg", pooling="mean"), TrainingConfig(epochs=3).for_fitting()
    ),
    "logreg--4d12600c": (
        heads.config("logreg", pooling="mean"),
        TrainingConfig(class_weights="balanced").for_fitting(),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "settings"), IDS.items(), ids=IDS.keys())
def test_the_ids_of_runs_never_change(name, settings):
    assert runs.run_id(SPEC, *settings) == f"minilm--imdb--{name}"


def test_same_training_replaces_its_run_and_other_settings_do_not(cache_path, trained, tmp_path):
    with Cache(cache_path) as cache:
        first = runs.save(tmp_path, cache, trained[0], TRAINING)
        assert runs.save(tmp_path, cache, trained[0], TRAINING).folder == first.folder
        other = runs.save(tmp_path, cache, trained[0], TrainingConfig(epochs=3))
    assert other.folder != first.folder
    assert {run.id for run in runs.load_all(tmp_path)} == {first.id, other.id}
    assert not list(runs.runs_folder(tmp_path).glob(".*"))


def test_many_at_once_save_whole_runs(cache_path, trained, tmp_path):
    with Cache(cache_path) as cache, ThreadPoolExecutor(8) as pool:
        jobs = [
            pool.submit(runs.save, tmp_path, cache, trained[i % 2], TRAINING) for i in range(24)
        ]
        assert len({job.result().id for job in jobs}) == 2
    assert len(runs.load_all(tmp_path)) == 2
    assert not list(runs.runs_folder(tmp_path).glob(".*"))


def test_a_failing_write_leaves_the_former_run(cache_path, trained, tmp_path, monkeypatch):
    with Cache(cache_path) as cache:
        first = runs.save(tmp_path, cache, trained[0], TRAINING)

        def full(path, content):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(files, "write_json", full)
        with pytest.raises(SpaceliteError, match=r"cannot be saved in .*: No space left on device"):
            runs.save(tmp_path, cache, trained[0], TRAINING)
    assert [run.record for run in runs.load_all(tmp_path)] == [first.record]
    assert not list(runs.runs_folder(tmp_path).glob(".*"))


def test_a_save_that_was_killed_between_two_steps_is_mended(cache_path, trained, tmp_path):
    with Cache(cache_path) as cache:
        first = runs.save(tmp_path, cache, trained[0], TRAINING)
        former = first.folder.with_name(f".{first.id}.former")
        first.folder.rename(former)  # killed before the new run got its name
        runs.save(tmp_path, cache, trained[0], TRAINING)
        shutil.copytree(first.folder, former)  # killed before the former was deleted
        runs.save(tmp_path, cache, trained[0], TRAINING)
    assert [path.name for path in runs.runs_folder(tmp_path).iterdir()] == [first.id]


def test_a_run_whose_successor_cannot_take_its_name_stays(
    cache_path, trained, tmp_path, monkeypatch
):
    with Cache(cache_path) as cache:
        first = runs.save(tmp_path, cache, trained[0], TRAINING)
        real = Path.rename

        def rename(self, target):
            if self.name.endswith(".partial"):
                raise OSError(5, "Input/output error")
            return real(self, target)

        monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(SpaceliteError, match="Input/output error"):
            runs.save(tmp_path, cache, trained[0], TRAINING)
    assert [run.record for run in runs.load_all(tmp_path)] == [first.record]
    assert [path.name for path in runs.runs_folder(tmp_path).iterdir()] == [first.id]


def test_a_disk_that_is_full_for_the_weights_is_one_line(
    cache_path, trained, tmp_path, monkeypatch
):
    real = files.write_bytes

    def full(path, content):
        if path.name == "head.safetensors":
            path.write_bytes(content[:10])
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(files, "write_bytes", full)
    with Cache(cache_path) as cache, pytest.raises(SpaceliteError, match="No space left"):
        runs.save(tmp_path, cache, trained[0], TRAINING)
    assert not list(runs.runs_folder(tmp_path).glob("*/")) and runs.load_all(tmp_path) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}'])
def test_a_damaged_run_is_named_and_left_out(content, saved, tmp_path, caplog):
    (saved[0].folder / "run.json").write_text(content)
    assert [run.id for run in runs.load_all(tmp_path)] == [run.id for run in saved[1:]]
    assert f"run {saved[0].folder} is damaged" in caplog.text


def test_a_newer_run_is_refused(saved):
    file = saved[0].folder / "run.json"
    files.write_json(file, {**json.loads(file.read_text()), "format": 2})
    with pytest.raises(SpaceliteError, match="has format 2, this spacelite reads 1: upgrade"):
        runs.load(saved[0].folder)


def test_no_changed_byte_of_a_sealed_document_changes_what_is_read(tmp_path):
    """Whichever bit of an object is flipped: it is refused, or is what it was."""
    path = tmp_path / "one.json"
    content = {"name": "näher", "metrics": {"test": {"f1": 0.25}}, "epochs": [1, 2], "best": None}
    files.write_json(path, {**content, "checksum": "of before"})
    good = path.read_bytes()
    assert json.loads(good) == {**content, "checksum": files.checksum(
        b'{"best":null,"epochs":[1,2],"metrics":{"test":{"f1":0.25}},"name":"n\xc3\xa4her"}'
    )}  # fmt: skip
    accepted = 0
    for at in range(len(good)):
        for bit in range(8):
            path.write_bytes(good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :])
            try:
                found = files.read_json(path)
            except ValueError:
                continue
            assert {name: found[name] for name in content} == content
            accepted += 1
    assert accepted < len(good)  # spaces of one kind for another, and the name of the checksum


def test_only_regular_files_are_read_as_documents(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "pipe", tmp_path / "folder", Path("/dev/zero")):
        with pytest.raises(ValueError, match="it is not a regular file"):
            files.read_json(path)
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 2**40)
    with pytest.raises(ValueError, match=r"it has 1\.1 TB"):
        files.read_json(tmp_path / "large")
