"""Runs on disk: format, whole or not at all, damage."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from spacelite.cache import spec as specs
from spacelite.cache import store
from spacelite.errors import SpaceliteError
from spacelite.heads.settings import HeadSettings, PassSettings
from spacelite.runs import store as runs
from spacelite.training.loop import train

HEADS = [
    HeadSettings(kind="space", latent=3, inter=0.2, intra=0.001),
    HeadSettings(kind="linear", pooling="mean"),
]
SHARED = PassSettings(epochs=2, batch_size=32)


@pytest.fixture(scope="module")
def trained(cache_path):
    with store.Cache(cache_path) as cache:
        return train(cache, HEADS, SHARED)


@pytest.fixture
def saved(cache_path, trained, tmp_path):
    with store.Cache(cache_path) as cache:
        return [runs.save(tmp_path, cache, head, SHARED) for head in trained]


def test_run_is_the_documented_format(saved, trained, cache_path):
    shapes = [
        {"concept_spaces": (2, 3, 16), "classifier.weight": (2, 6), "classifier.bias": (2,)},
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
        with store.Cache(cache_path) as cache:
            assert record["cache_key"] == specs.key_of(cache.spec)
            assert record["spec"] == cache.spec
            assert record["label_names"] == cache.label_names == ["0", "1"]
        assert record["id"] == run.folder.name
        assert record["head"] == head.settings.kind
        assert record["train_params"] == sum(value.size for value in weights.values())
        assert record["metrics"] == head.metrics
        assert record["versions"]["torch"] and record["seconds"] > 0
        settings = record["settings"]
        assert (settings["epochs"], settings["batch_size"], settings["data_seed"]) == (2, 32, 0)
        assert settings["learning_rate"] == 2e-4 and settings["weight_decay"] == 0.01
        assert json.loads((run.folder / "history.json").read_text()) == head.history


def test_same_training_replaces_its_run_and_other_settings_do_not(cache_path, trained, tmp_path):
    with store.Cache(cache_path) as cache:
        first = runs.save(tmp_path, cache, trained[0], SHARED)
        assert runs.save(tmp_path, cache, trained[0], SHARED).folder == first.folder
        other = runs.save(tmp_path, cache, trained[0], PassSettings(epochs=3))
    assert other.folder != first.folder
    assert {run.id for run in runs.load_all(tmp_path)} == {first.id, other.id}
    assert not list(runs.folder_of(tmp_path).glob(".*"))


def test_many_at_once_save_whole_runs(cache_path, trained, tmp_path):
    with store.Cache(cache_path) as cache, ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(runs.save, tmp_path, cache, trained[i % 2], SHARED) for i in range(24)]
        assert len({job.result().id for job in jobs}) == 2
    assert len(runs.load_all(tmp_path)) == 2
    assert not list(runs.folder_of(tmp_path).glob(".*"))


def test_a_failing_write_leaves_the_former_run(cache_path, trained, tmp_path, monkeypatch):
    with store.Cache(cache_path) as cache:
        first = runs.save(tmp_path, cache, trained[0], SHARED)

        def full(path, content):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(runs, "_write_json", full)
        with pytest.raises(SpaceliteError, match=r"cannot be saved in .*: No space left on device"):
            runs.save(tmp_path, cache, trained[0], SHARED)
    assert [run.record for run in runs.load_all(tmp_path)] == [first.record]
    assert not list(runs.folder_of(tmp_path).glob(".*"))


def test_a_save_that_was_killed_between_two_steps_is_mended(cache_path, trained, tmp_path):
    with store.Cache(cache_path) as cache:
        first = runs.save(tmp_path, cache, trained[0], SHARED)
        former = first.folder.with_name(f".{first.id}.former")
        first.folder.rename(former)  # killed before the new run got its name
        runs.save(tmp_path, cache, trained[0], SHARED)
        shutil.copytree(first.folder, former)  # killed before the former was deleted
        runs.save(tmp_path, cache, trained[0], SHARED)
    assert [path.name for path in runs.folder_of(tmp_path).iterdir()] == [first.id]


def test_a_run_whose_successor_cannot_take_its_name_stays(
    cache_path, trained, tmp_path, monkeypatch
):
    with store.Cache(cache_path) as cache:
        first = runs.save(tmp_path, cache, trained[0], SHARED)
        real = Path.rename

        def rename(self, target):
            if self.name.endswith(".partial"):
                raise OSError(5, "Input/output error")
            return real(self, target)

        monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(SpaceliteError, match="Input/output error"):
            runs.save(tmp_path, cache, trained[0], SHARED)
    assert [run.record for run in runs.load_all(tmp_path)] == [first.record]
    assert [path.name for path in runs.folder_of(tmp_path).iterdir()] == [first.id]


def test_a_disk_that_is_full_for_the_weights_is_one_line(
    cache_path, trained, tmp_path, monkeypatch
):
    import safetensors.numpy

    def full(*arguments):
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with store.Cache(cache_path) as cache, pytest.raises(SpaceliteError, match="No space left"):
        runs.save(tmp_path, cache, trained[0], SHARED)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}'])
def test_a_damaged_run_is_named_and_left_out(content, saved, tmp_path, caplog):
    (saved[0].folder / "run.json").write_text(content)
    assert [run.id for run in runs.load_all(tmp_path)] == [saved[1].id]
    assert f"run {saved[0].folder} is damaged" in caplog.text


def test_a_newer_run_is_refused(saved):
    file = saved[0].folder / "run.json"
    file.write_text(file.read_text().replace('"format": 1,', '"format": 2,', 1))
    with pytest.raises(SpaceliteError, match="has format 2, this spacelite reads 1: upgrade"):
        runs.load(saved[0].folder)
