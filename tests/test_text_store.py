"""The store of single texts: every text is embedded once, whatever asks for it and in however many
processes; and what is there survives kills, full disks and damaged bytes."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import processes
import pytest
from conftest import invoke, refusal, texts
from sklearn.model_selection import GridSearchCV, cross_val_score

import spacelite
from spacelite import FrozenEncoder, SpaceClassifier, SpaceSearchCV, files
from spacelite.backbones.model import Backbone, held_backbone
from spacelite.cache import encoding
from spacelite.cache.dtypes import DTYPES
from spacelite.cache.encoding import RECORD, Encoder
from spacelite.cache.store import Layout


@pytest.fixture
def encoder(bert, tmp_path):
    return Encoder(backbone=str(bert), cache_dir=tmp_path)


of_every_type = pytest.mark.parametrize("dtype", DTYPES)


def assert_same(found, expected):
    """The same hidden states, computed in other batches: a value may be rounded to the next one."""
    found, expected = found.stored.decode(found.rows), expected.stored.decode(expected.rows)
    step = np.abs(expected).max(axis=1, keepdims=True) / 127
    assert (np.abs(found - expected) < 1.01 * step).all()
    assert (np.abs(found - expected) < 2e-3).mean() > 0.99


def files_of(tmp_path):
    (folder,) = (tmp_path / "texts").iterdir()
    return folder / "rows", folder / "index"


class Counting(SpaceClassifier):
    """Notes each text that the backbone runs, in whatever process, in a file of the store."""

    def fit(self, X, y, sample_weight=None):
        count_calls(self.cache_dir)
        return super().fit(X, y, sample_weight)

    def _logits(self, X):
        count_calls(self.cache_dir)
        return super()._logits(X)


def count_calls(folder):
    if not hasattr(Backbone, "counted"):
        Backbone.counted = real = Backbone.hidden_states

        def counting(self, ids, type_ids, mask):
            with (Path(Backbone.counted_in) / "run.txt").open("a") as file:
                file.writelines(" ".join(map(str, row)) + "\n" for row in ids.tolist())
            return real(self, ids, type_ids, mask)

        Backbone.hidden_states = counting
    Backbone.counted_in = folder


@pytest.fixture
def uncounted():
    yield
    if hasattr(Backbone, "counted"):
        Backbone.hidden_states = Backbone.counted
        del Backbone.counted


@pytest.mark.parametrize(
    ("jobs", "count"),
    [
        (1, 300),
        pytest.param(1, 2000, marks=pytest.mark.slow),
        pytest.param(2, 300, marks=pytest.mark.slow),
    ],
)
def test_a_grid_search_embeds_each_text_once(jobs, count, bert, tmp_path, uncounted):
    """Five folds, 12 settings: 60 trainings and one more, on as many texts."""
    own, labels = texts(count, seed=3, longest=6), np.arange(count) % 2
    head = Counting(
        epochs=1, batch_size=500, backbone=str(bert), cache_dir=str(tmp_path), max_length=16
    )
    grid = {"latent": [2, 3], "inter": [0, 0.1, 0.2], "random_state": [0, 1]}
    GridSearchCV(head, grid, cv=5, n_jobs=jobs).fit(own, labels)
    run = (tmp_path / "run.txt").read_text().splitlines()
    encoded = Encoder(backbone=str(bert), max_length=16).encode(own, states=False)
    ids = np.split(encoded.token_ids, encoded.offsets[1:-1])
    assert sorted(run) == sorted({" ".join(map(str, one.tolist())) for one in ids})
    SpaceSearchCV(head, grid, cv=5).fit(own, labels)
    cross_val_score(head, own[::-1], labels, n_jobs=jobs)
    assert len((tmp_path / "run.txt").read_text().splitlines()) == len(run)


@of_every_type
def test_hidden_states_against_a_cache(dtype, bert, tmp_path):
    """What `embed` writes, for texts of different lengths, and each repeated text the same."""
    encoder = Encoder(backbone=str(bert), cache_dir=tmp_path, dtype=dtype)
    own = texts(50, seed=1)
    own += own[:10]
    found = encoder.encode(own)
    cache = spacelite.embed(
        texts=own * 2, labels=[0, 1] * 60, backbone=bert, cache_dir=tmp_path / "other",
        reuse=False, progress=False, dtype="float32",
    )  # fmt: skip
    with cache.open() as opened:
        rows = {
            tuple(ids.tolist()): split.read_hidden(row, row + 1)
            for split in opened.splits.values()
            for row, ids in enumerate(np.split(split.read_token_ids(), split.offsets[1:-1]))
        }
    hidden = found.stored.decode(found.rows)
    for low, high in zip(found.offsets[:-1], found.offsets[1:], strict=True):
        expected = rows[tuple(found.token_ids[low:high].tolist())]
        largest = np.abs(expected).max()
        limits = {"int4": largest / 7, "int8": largest / 254 + 1e-5, "bfloat16": largest / 256}
        limit = limits.get(dtype, 2e-3)
        np.testing.assert_allclose(hidden[low:high], expected, atol=limit)
    np.testing.assert_array_equal(found.rows[: found.offsets[10]], found.rows[found.offsets[50] :])
    assert found.pooled.shape == (60, 16) and found.layer_means.shape == (60, 48)
    assert_same(Encoder(backbone=str(bert), dtype=dtype).encode(own), found)


def test_caches_of_the_same_folder_are_used(bert, tmp_path, calls):
    """A data set that was embedded is not embedded again by an estimator."""
    own = list(dict.fromkeys(texts(60, seed=2)))
    spacelite.embed(
        texts=own, labels=np.arange(len(own)) % 2, backbone=bert, cache_dir=tmp_path, progress=False
    )
    calls.clear()
    encoder = Encoder(backbone=str(bert), cache_dir=tmp_path)
    found = encoder.encode([*own, "a text that is new"])
    assert sum(calls) == 1
    fresh = Encoder(backbone=str(bert)).encode([*own, "a text that is new"])
    np.testing.assert_allclose(found.rows, fresh.rows, atol=2e-3)


def test_other_settings_have_a_store_of_their_own(bert, tmp_path, calls):
    base = {"backbone": str(bert), "cache_dir": tmp_path}
    for given in (
        {},
        {"layer": 1},
        {"max_length": 8},
        {"dtype": "float32"},
        {"dtype": "int8"},
        {"padding": "max_length", "max_length": 8},
    ):
        Encoder(**base, **given).encode(["a good film", "a bad film"])
    assert len(list((tmp_path / "texts").iterdir())) == 6
    assert sorted(texts for _, texts, _ in encoding.stores(tmp_path)) == [2] * 6


KILLED = """
import sys
from pathlib import Path
from spacelite.backbones.model import Backbone
from spacelite.cache import writing
from spacelite.cache.encoding import Encoder
writing.COMMIT_SECONDS = 0
real, count = Backbone.hidden_states, [0]
def slow(self, *given):
    count[0] += 1
    if count[0] == 6:
        import time
        while not files_of(Path(sys.argv[2]))[1].stat().st_size:
            time.sleep(0.01)  # until the first batches are written
        print("now", flush=True)
        time.sleep(600)  # it is killed before
    return real(self, *given)
Backbone.hidden_states = slow
sys.path.insert(0, sys.argv[3])
from conftest import texts
from test_text_store import files_of
Encoder(backbone=sys.argv[1], cache_dir=Path(sys.argv[2]), tokens_per_batch=64).encode(texts(60))
"""


@pytest.mark.parametrize("dtype", ["float16", "int4"])  # whose rows have a scale, too
def test_kill_9(dtype, bert, tmp_path, calls):
    """What was committed stays; the rest is embedded by the next one, and nothing twice."""
    folder = Path(__file__).parent
    script = KILLED.replace("batch=64)", f"batch=64, dtype={dtype!r})")
    process = processes.start(script, bert, tmp_path, folder)
    assert process.line() == "now"
    assert process.kill().returncode == -signal.SIGKILL
    rows, index = files_of(tmp_path)
    before = index.stat().st_size // RECORD.itemsize
    assert before > 0
    with rows.open("ab") as file:  # bytes of a text that has no record
        file.write(b"half")
    found = Encoder(backbone=str(bert), cache_dir=tmp_path, dtype=dtype).encode(texts(60))
    ids = np.split(found.token_ids, found.offsets[1:-1])
    assert sum(calls) == len({one.tobytes() for one in ids}) - before
    fresh = Encoder(backbone=str(bert), dtype=dtype).encode(texts(60))
    assert_same(found, fresh)


def test_a_half_written_record(encoder, tmp_path, calls):
    own = texts(20)
    first = encoder.encode(own)
    _, index = files_of(tmp_path)
    with index.open("ab") as file:
        file.write(b"\1" * (RECORD.itemsize // 2))
    calls.clear()
    np.testing.assert_array_equal(encoder.encode(own).rows, first.rows)
    assert not calls
    encoder.encode([*own, "a new film"])
    assert index.stat().st_size % RECORD.itemsize == 0
    np.testing.assert_array_equal(
        Encoder(backbone=encoder.backbone, cache_dir=tmp_path).encode(own).rows, first.rows
    )


@of_every_type
@pytest.mark.parametrize("name", ["rows", "index"])
def test_a_damaged_byte(name, dtype, bert, tmp_path, calls):
    """The text that it belongs to is embedded again."""
    encoder = Encoder(backbone=str(bert), cache_dir=tmp_path, dtype=dtype)
    own = list(dict.fromkeys(texts(20)))
    first = encoder.encode(own)
    path = dict(zip(("rows", "index"), files_of(tmp_path), strict=True))[name]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))
    forget_indexes()
    calls.clear()
    again = encoder.encode(own)
    assert sum(calls) == 1
    assert_same(again, first)
    calls.clear()
    encoder.encode(own)
    assert not calls


def forget_indexes():
    from spacelite.cache import encoding

    encoding._store.cache_clear()


def test_damaged_settings(encoder, tmp_path):
    encoder.encode(["a film"])
    rows, _ = files_of(tmp_path)
    (rows.parent / "settings.json").write_text("{")
    assert "delete the folder" in refusal(encoder.encode, ["a film"])
    (rows.parent / "settings.json").write_text('{"format": 9, "layout": {}}')
    assert "upgrade spacelite" in refusal(encoder.encode, ["a film"])


@pytest.mark.parametrize("change", [{"width": 16.5}, {"pooled": "x"}, {"layers": None}])
def test_settings_of_other_types_are_damage(change, encoder, tmp_path):
    encoder.encode(["a film"])
    path = files_of(tmp_path)[0].parent / "settings.json"
    content = json.loads(path.read_text())
    files.write_json(path, {**content, "layout": {**content["layout"], **change}})
    assert "its sizes are damaged" in refusal(encoder.encode, ["a film"])


def test_a_link_to_a_store_is_not_removed(encoder, tmp_path):
    encoder.encode(["a film"])
    folder = files_of(tmp_path)[0].parent
    elsewhere = folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(elsewhere)
    assert f"is a link to {elsewhere}" in refusal(encoding.remove_store, folder)
    assert sorted(path.name for path in elsewhere.iterdir()) == ["index", "rows", "settings.json"]


def test_texts_are_synced_before_their_records_and_these_at_each_commit(
    tmp_path, bert, monkeypatch
):
    """A loss of power costs no text that was committed, whenever the process ends."""
    store = encoding.TextStore(tmp_path, Encoder(backbone=str(bert)).spec())
    calls, real = [], os.pwrite
    with encoding.Appender(store, Layout(1, "float16", False, 0)) as appender:
        monkeypatch.setattr(os, "pwrite", lambda f, b, o: calls.append(len(b)) or real(f, b, o))
        monkeypatch.setattr(os, "fsync", lambda file: calls.append("sync"))
        appender.add(b"a" * 16, b"abc", 1)
        appender.add(b"b" * 16, b"defg", 1)
        appender.commit()
        size = RECORD.itemsize
        assert calls == [3, 4, "sync", size, size, "sync"]
        appender.commit()
        assert calls[6:] == []  # nothing new


def test_a_deleted_store_is_begun_anew(encoder, tmp_path):
    import shutil

    own = texts(10)
    first = encoder.encode(own)
    shutil.rmtree(tmp_path / "texts")
    np.testing.assert_array_equal(encoder.encode(own).rows, first.rows)


def test_a_full_disk(encoder, tmp_path, monkeypatch, calls):
    """One line; what was written stays, and nothing half written is trusted."""
    own = texts(40)
    encoder.encode(own[:10])
    real, left = os.pwrite, [5]

    def full(file, content, offset):
        left[0] -= 1
        if left[0] < 0:
            real(file, content[: len(content) // 2], offset)
            raise OSError(28, "No space left on device")
        return real(file, content, offset)

    with monkeypatch.context() as patch:
        patch.setattr(encoding.os, "pwrite", full)
        message = refusal(encoder.encode, own)
    assert "No space left on device" in message and "cache_dir" in message
    forget_indexes()
    fresh = Encoder(backbone=encoder.backbone).encode(own)
    np.testing.assert_allclose(encoder.encode(own).rows, fresh.rows, atol=2e-3)


def test_a_folder_that_cannot_be_written(bert, tmp_path):
    (tmp_path / "file").write_text("")
    encoder = Encoder(backbone=str(bert), cache_dir=tmp_path / "file")
    assert "cannot be written" in refusal(encoder.encode, ["a film"])


def test_two_threads_at_once(bert, tmp_path, calls):
    """The second waits for the first, and finds its texts."""
    own, found = list(dict.fromkeys(texts(40))), []

    def encode():
        found.append(Encoder(backbone=str(bert), cache_dir=tmp_path).encode(own).rows)

    held_backbone(Encoder(backbone=str(bert)).files, layer=-1, device="cpu",
                  precision="float32", all_layers=True)  # fmt: skip
    calls.clear()
    threads = [threading.Thread(target=encode) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(calls) == len(own)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_a_changed_backbone_has_another_store(tmp_path, bert):
    """A local folder whose weights were replaced, in the same process."""
    import shutil

    from conftest import save_backbone

    folder = tmp_path / "backbone"
    shutil.copytree(bert, folder)
    encoder = FrozenEncoder(backbone=str(folder), cache_dir=tmp_path / "cache")
    before = encoder.transform(["a good film"])
    time.sleep(0.01)
    shutil.rmtree(folder)
    save_backbone("bert", folder, seed=1)
    after = encoder.transform(["a good film"])
    assert np.abs(before - after).max() > 0.01
    assert len(list((tmp_path / "cache" / "texts").iterdir())) == 2


def test_stores_are_listed_and_removed(bert, tmp_path):

    Encoder(backbone=str(bert), cache_dir=tmp_path).encode(["a good film", "a bad film"])
    (store,) = encoding.stores(tmp_path)
    run = lambda *words: invoke("cache", *words, "--cache-dir", tmp_path)  # noqa: E731
    assert f"{store.folder.name}: 2 texts of estimators" in run("list").output
    assert "removed" in run("remove", store.folder.name, "--yes").output
    assert not store.folder.exists() and "texts of" not in run("list").output
