"""Lock files: one holder at a time although they are deleted, and none is left behind."""

import errno
import fcntl
import os

import processes
import pytest
from conftest import invoke, refusal, save_backbone

import spacelite
from spacelite import files
from spacelite.cache import folder as caches
from spacelite.cache.store import side_file
from spacelite.runs import store as runs
from spacelite.training import checkpoints

# Takes the lock many times; says so if another process is inside at the same time.
TAKE = """
import os, sys, time
from pathlib import Path
from spacelite import files
path = Path(sys.argv[1])
for number in range(150):
    with files.lock(path):
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            print("two holders")
        time.sleep(0.0005)
        path.unlink()
"""


def hidden(folder):
    return sorted(path.name for path in folder.rglob("*.lock"))


def test_one_process_at_a_time_holds_a_lock_that_is_deleted_each_time(tmp_path):
    three = [processes.start(TAKE, tmp_path / "x") for _ in range(3)]
    for process in three:
        done = process.wait()
        assert done.returncode == 0 and "Traceback" not in done.stderr and done.stdout == ""
    assert hidden(tmp_path) == []


def test_a_lock_is_deleted_even_if_the_work_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), files.lock(tmp_path / "x"):
        assert hidden(tmp_path) == [".x.lock"]
        _ = 1 / 0
    assert hidden(tmp_path) == []


def test_no_command_leaves_a_lock_file_behind(tmp_path, bert, reviews):
    def command(*arguments):
        everything = [*map(str, arguments), "--cache-dir", str(tmp_path)]
        return invoke(*everything)

    embed = ["embed", "--dataset", reviews, "--device", "cpu", "--backbone"]
    assert command(*embed, bert).exit_code == 0
    refused = save_backbone("bert", tmp_path / "refused")
    (refused / "model.safetensors").write_bytes(b"damaged")
    assert command(*embed, refused).exit_code == 1
    assert command("train", "--epochs", 1).exit_code == 0
    assert command("train", "--epochs", 1, "--head", "linear", "--lr", "1e30").exit_code in (0, 1)
    assert hidden(tmp_path) == []
    (name,) = [path.stem for path in (tmp_path / "embeddings").glob("*.h5")]
    # Left behind by a process that was killed.
    (tmp_path / "embeddings" / f".{name}.h5.lock").touch()
    assert command("cache", "remove", name, "--yes").exit_code == 0
    assert hidden(tmp_path) == []


def command(folder, *arguments):
    return invoke(*arguments, "--cache-dir", folder)


@pytest.fixture
def small(tmp_path, bert, reviews):
    return spacelite.embed(backbone=bert, dataset=str(reviews), cache_dir=tmp_path, progress=False)


def test_a_cache_in_use_is_not_removed(small, tmp_path):
    training = tmp_path / "unfinished" / f"{small.name}--0123456789.safetensors"
    training.parent.mkdir()
    for path, doing in ((small.path, f"writing {small.name}.h5"), (training, "training on cache")):
        with files.lock(path):
            done = command(tmp_path, "cache", "remove", small.name, "--yes")
            assert done.exit_code == 1
            assert f"error: another spacelite process is {doing}" in " ".join(done.stderr.split())
            assert small.path.exists() and files.lock_path(path).exists()
    files.lock_path(training).touch()  # left behind by a process that was killed
    assert command(tmp_path, "cache", "remove", small.name, "--yes").exit_code == 0
    assert hidden(tmp_path) == [] and not small.path.exists()
    assert "another process has removed it" in refusal(caches.state, small.path)


def test_a_training_killed_after_its_last_run_is_cleared(small, tmp_path, monkeypatch):
    """As if the process had ended between saving and deleting: before the last run, after it."""
    save, left = runs.save, []

    def killed(*arguments):
        if len(left) == 1:
            raise KeyboardInterrupt
        left.append(save(*arguments))
        return left[-1]

    def train(**options):
        spacelite.train(small, head=["space", "linear"], epochs=1, baselines=False,
                        device="cpu", progress=False, **options)  # fmt: skip

    train()  # the runs are there already: those of the killed training are others
    with monkeypatch.context() as patch:
        patch.setattr(runs, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train()
    (path,) = (tmp_path / "unfinished").glob("*.safetensors")
    files.lock_path(path).touch()
    assert checkpoints.unfinished(tmp_path).keys() == {small.name} and hidden(tmp_path) == []
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "remove", lambda path: None)
        train()
    files.lock_path(path).touch()
    assert path.exists()
    assert command(tmp_path, "cache", "list").exit_code == 0
    assert [*(tmp_path / "unfinished").iterdir()] == []


def test_a_training_killed_between_its_baselines_is_continued(
    small, with_baselines, tmp_path, monkeypatch, caplog
):
    save, saved = runs.save, []

    def killed(folder, data, done, *others):
        if done.config.name.startswith("logreg"):
            raise KeyboardInterrupt
        saved.append(done.config.name)
        return save(folder, data, done, *others)

    def train():
        return spacelite.train(small, head="space", epochs=2, device="cpu", progress=False)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train()
    assert saved == ["space", "tfidf"]
    with caplog.at_level("INFO"):
        train()
    assert "continuing after epoch 2 of 2" in caplog.text
    assert [*(tmp_path / "unfinished").iterdir()] == []


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"runs": 1}', '{"runs": [1]}', '{"runs": {"a\\u0000b": "0"}}']
)
def test_what_no_training_has_noted_clears_no_checkpoint(content, tmp_path):
    path = tmp_path / "unfinished" / "cache--0123456789.safetensors"
    path.parent.mkdir()
    path.write_text("x")
    path.with_suffix(".json").write_text(content)
    files.lock_path(path).touch()
    path.with_name("cache--loop.safetensors").symlink_to("cache--loop.safetensors")
    assert checkpoints.unfinished(tmp_path) == {"cache": [1]}


def test_a_folder_in_the_place_of_a_checkpoint_is_named(small, tmp_path):
    path = tmp_path / "unfinished" / f"{small.name}--0123456789.json"
    path.mkdir(parents=True)
    done = command(tmp_path, "cache", "remove", small.name, "--yes")
    assert done.exit_code == 1 and "is in the way and cannot" in done.stderr


def test_files_that_are_removed_during_a_training_are_said(small, tmp_path, caplog):
    texts = side_file(small.path, "texts")
    (run,) = spacelite.train(
        small, head="linear", epochs=1, baselines=False, device="cpu",
        progress=lambda phase, done, total: texts.unlink(missing_ok=True),
    )  # fmt: skip
    assert run.run.predictions().rows is None
    assert f"removed since the training began: {texts.name}; the runs lack" in caplog.text


def test_a_link_to_a_run_is_not_removed(small, tmp_path):
    (run,) = spacelite.train(small, head="linear", epochs=1, baselines=False, device="cpu",
                             progress=False)  # fmt: skip
    folder = run.run.folder
    elsewhere = folder.rename(tmp_path / folder.name)
    folder.symlink_to(elsewhere)
    before = sorted(path.name for path in folder.parent.iterdir())
    done = command(tmp_path, "runs", "remove", folder.name, "--yes")
    assert done.exit_code == 1 and f"is a link to {elsewhere}" in done.stderr.replace("\n", "")
    assert sorted(path.name for path in folder.parent.iterdir()) == before
    assert runs.load(folder).problems() == []


@pytest.mark.parametrize("missing", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_read_and_not_written(missing, small, tmp_path, monkeypatch):
    """As some NFS and Lustre mounts are."""

    def flock(*arguments):
        raise OSError(missing, os.strerror(missing))

    spacelite.train(small, head="linear", epochs=1, device="cpu", progress=False)
    monkeypatch.setattr(fcntl, "flock", flock)
    said = refusal(spacelite.train, small, head="space", epochs=1, device="cpu", progress=False)
    assert f"has no locks ({os.strerror(missing)})" in said and hidden(tmp_path) == []
    embed = ("embed", "--backbone", small.backbone, "--dataset", "demo")
    for words in (embed, ("train", "--head", "linear")):
        done = command(tmp_path, *words)
        assert done.exit_code == 1 and done.stderr.count("error: ") == 1
        assert "choose another --cache-dir" in " ".join(done.stderr.split())
    for words in ("cache list", "cache info bert", "cache verify bert", "runs list", "report"):
        done = command(tmp_path, *words.split())
        assert done.exit_code == 0, done.stderr


def test_hdf5_takes_no_locks(small, tmp_path):
    """Neither in laying out nor in reading what older versions or other programs wrote."""
    seal = side_file(small.path, "seal")
    seal.unlink()
    with small.path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # a library that locks would fail
        with caches.store.Cache(small.path) as cache:
            assert cache.complete
