"""Lock files: one holder at a time although they are deleted, and none is left behind."""

import processes
import pytest
from conftest import save_backbone
from spacelite_cli.app import app
from typer.testing import CliRunner

from spacelite import files

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
        return CliRunner().invoke(app, everything)

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
