"""A flipped bit in a cache: what train, eval, explain and report do when they read it."""

import shutil
import zipfile

import pytest
from conftest import embed, invoke, refusal, train_and_save
from test_store import byte_offset, flip_byte

from spacelite import heads
from spacelite.cache import split as splits
from spacelite.cache.dtypes import DTYPES
from spacelite.cache.folder import verify
from spacelite.cache.store import Cache, side_file
from spacelite.training import loop, memory
from spacelite.training.config import TrainingConfig

SPACE = heads.config("space", learning_rate=0.01)
POOLER = heads.config("linear", pooling="pooler", learning_rate=0.01)
TRAINING = TrainingConfig(epochs=2, batch_size=16)


@pytest.fixture
def cache_dir(cache_path, tmp_path):
    """A cache folder with a complete cache of its own."""
    shutil.copytree(cache_path.parent, tmp_path / "embeddings")
    return tmp_path


@pytest.fixture
def path(cache_dir, cache_path):
    return cache_dir / "embeddings" / cache_path.name


@pytest.fixture
def run(cache_dir, path):
    with Cache(path) as cache:
        return train_and_save(cache_dir, cache, [SPACE], TRAINING)[0]


def damage(path, split, dataset, example=0):
    """Flip one bit of an example."""
    with Cache(path) as cache:
        start, stored = byte_offset(path, split, dataset), cache.splits[split]
        row, bytes_ = int(stored.offsets[example]), stored.stored.row_bytes(stored.width)
        size = {"tokens": row * bytes_, "pooled": example * stored.width * 4,
                "token_ids": row * 4, "labels": example * 8, "offsets": example * 8}  # fmt: skip
    flip_byte(path, start + size[dataset] + 2)


def streamed(monkeypatch):
    monkeypatch.setattr(memory, "RESIDENT_SHARE", 0.0)
    monkeypatch.setattr(memory, "WINDOW", 2**15)


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_train_names_the_damaged_example_and_saves_no_run(
    split, resident, cache_dir, path, monkeypatch
):
    if not resident:
        streamed(monkeypatch)
    damage(path, split, "tokens", 7)
    result = invoke("train", "--cache-dir", cache_dir, "--epochs", 1)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        f"error: {split} example 7 of cache {path.stem} is damaged: run spacelite cache verify "
        f"{path.stem}, then embed again to compute only what is damaged"
    )
    assert not list((cache_dir / "runs").glob("[!.]*"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_the_message_advises_repairs_the_cache(dtype, tmp_path, bert, reviews):
    options = {"backbone": str(bert), "dataset": str(reviews), "cache_dir": tmp_path,
               "dtype": dtype, "device": "cpu"}  # fmt: skip
    path = embed(**options).path
    intact = path.read_bytes()
    damage(path, "train", "tokens", 3)
    damage(path, "test", "pooled", 5)
    with Cache(path) as cache:
        assert "train example 3 of" in refusal(loop.train, cache, [SPACE, POOLER], TRAINING)
    assert verify(path) == [("train", 3), ("test", 5)]
    made = embed(**options)
    assert made.path == path and not made.hit and path.read_bytes() == intact
    with Cache(path) as cache:
        loop.train(cache, [SPACE, POOLER], TRAINING)


def test_the_pooled_output_is_checked_where_it_is_used(path):
    damage(path, "validation", "pooled", 2)
    with Cache(path) as cache:
        loop.train(cache, [SPACE], TRAINING)  # reads no pooled output
        assert "validation example 2 of" in refusal(loop.train, cache, [POOLER], TRAINING)


@pytest.mark.parametrize("dataset", ["offsets", "labels", "token_ids"])
def test_every_command_refuses_damaged_labels_offsets_and_token_ids(
    dataset, cache_dir, path, run, bert
):
    damage(path, "test", dataset, 1)
    found = "its metadata do not match their checksum"
    if dataset == "token_ids":
        found = "the offsets, labels or token ids of test are damaged"
    there = ["--cache-dir", cache_dir, "--backbone", bert]
    for arguments in (
        ["train", "--cache-dir", cache_dir, "--cache", path.stem],
        ["explain", run.id, "--example", "train:0", *there],
    ):
        result = invoke(*arguments)
        assert result.exit_code == 1 and "Traceback" not in result.stderr
        assert f"(spacelite cache remove {path.stem}) and run embed again" in result.stderr
        assert found in result.stderr
    result = invoke("report", "--cache-dir", cache_dir)
    assert result.exit_code == 0 and found in result.stderr
    assert "Always predicting" not in result.stdout
    assert "space" in result.stdout


def test_eval_refuses_damaged_data_and_keeps_the_former_result(cache_dir, path, run, bert, reviews):
    arguments = ["eval", run.id, "--dataset", reviews, "--cache-dir", cache_dir,
                 "--backbone", bert, "--device", "cpu"]  # fmt: skip
    assert invoke(*arguments).exit_code == 0
    (result,) = run.transfers()
    saved = (run.folder / "transfer" / f"{result.cache}.json").read_bytes()
    other = path.with_name(f"{result.cache}.h5")
    damage(other, "train", "tokens", 4)
    done = invoke(*arguments)
    assert done.exit_code == 1
    assert f"train example 4 of cache {result.cache} is damaged: " in done.stderr
    assert (run.folder / "transfer" / f"{result.cache}.json").read_bytes() == saved


def test_explain_refuses_the_damaged_example_alone(cache_dir, path, run, bert):
    damage(path, "test", "tokens", 4)
    damage(path, "test", "pooled", 6)
    there = ["--cache-dir", cache_dir, "--backbone", bert]
    for number, code in ((3, 0), (4, 1), (5, 0), (6, 1)):
        result = invoke("explain", run.id, "--example", f"test:{number}", *there)
        assert result.exit_code == code
        assert (f"test example {number} of cache" in result.stderr) == bool(code)


def test_a_report_leaves_out_words_that_it_would_compute_from_damage(cache_dir, path, run, bert):
    report = ["report", "--cache-dir", cache_dir, "--backbone", bert, "--json"]
    damage(path, "train", "tokens", 4)  # which a report does not read
    assert "damaged" not in invoke(*report).stderr
    damage(path, "test", "tokens", 4)
    result = invoke(*report)
    assert result.exit_code == 0
    assert "no words for" in result.stderr and "test example 4 of cache" in result.stderr


@pytest.mark.parametrize("resident", [True, False], ids=["resident", "streamed"])
def test_each_example_is_checked_once_in_a_training(resident, path, monkeypatch):
    if not resident:
        streamed(monkeypatch)
    checked = []
    real = splits.Dataset.damaged
    monkeypatch.setattr(splits, "CHECKED_AT_ONCE", 2**13)
    monkeypatch.setattr(
        splits.Dataset,
        "damaged",
        lambda self, first, last, rows: (
            checked.extend((self.split, number) for number in range(first, last))
            or real(self, first, last, rows)
        ),
    )
    with Cache(path) as cache:
        loop.train(cache, [SPACE], TRAINING)
        every = [(name, i) for name, split in cache.splits.items() for i in range(len(split))]
    assert sorted(checked) == sorted(every)


def test_a_damaged_note_about_the_data_is_named(cache_dir, path, caplog):
    """Which columns and folders it names cannot be told then; nothing is left out in silence."""
    own = side_file(path, "texts")
    with zipfile.ZipFile(own) as archive:
        member = archive.getinfo("text_column.npy")
        after = min(
            i.header_offset for i in archive.infolist() if i.header_offset > member.header_offset
        )
    flip_byte(own, after - 1)
    assert verify(path) == []  # which computes again what is in the cache
    assert f"{own} is damaged (Bad CRC-32" in caplog.text
    assert "the embed command of the cache rewrites it" in caplog.text
    flip_byte(own, after - 2)
    caplog.clear()
    with Cache(path) as cache:
        (run,) = train_and_save(cache_dir, cache, [SPACE], TRAINING)
    assert f"{own} is damaged" in caplog.text
    assert run.record.text_column is None
