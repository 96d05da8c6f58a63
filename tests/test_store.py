"""The cache file: its format as other programs read it, its journal, and what damage does."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import zlib
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
from conftest import refusal

from spacelite.cache import hdf5, reuse, store, texts, writing
from spacelite.cache.folder import find, newest_complete, remove, states, verify
from spacelite.cache.hdf5 import UNSEALED, seal_path
from spacelite.cache.spec import CacheSpec
from spacelite.cache.split import Checked, SplitIndex
from spacelite.errors import SpaceliteError

SPEC = {
    "format": 1, "dataset": "d", "dataset_hash": "ab12", "label_names": ["no", "yes"],
    "backbone": "b", "backbone_version": "sha256:34cd", "tokenizer_hash": "56ef",
    "max_length": 256, "layer": -1, "padding": "none", "dtype": "float16", "precision": "float32",
}  # fmt: skip


def layout(pooled=True):
    return store.Layout(width=8, dtype="float16", pooled=pooled, layers=0)


def lay_out(path, pooled=True):
    random = np.random.RandomState(0)
    splits = {}
    for name, size in (("train", 7), ("validation", 3), ("test", 4)):
        lengths = random.randint(1, 6, size)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        ids = random.randint(0, 99, offsets[-1]).astype(np.int32)
        splits[name] = SplitIndex(offsets, random.randint(0, 2, size).astype(np.int64), ids)
    path.parent.mkdir(parents=True, exist_ok=True)
    spec = CacheSpec.from_json(SPEC)
    store.lay_out(path, spec, splits, layout(pooled), "right")
    return splits


def checked(*values):
    """Rows and pooler's output with their checksums, as a writer takes them."""
    names = ("tokens", "pooled")
    return {n: Checked.of(v) for n, v in zip(names, values, strict=False) if v is not None}


def fill(path, splits, pooled=True):
    random = np.random.RandomState(1)
    written = {}
    with writing.Writer(path) as writer:
        for name, index in splits.items():
            for example, length in enumerate(np.diff(index.offsets)):
                rows = random.randn(length, 8).astype(np.float16)
                extra = random.randn(8).astype(np.float32) if pooled else None
                writer.write(name, example, checked(rows, extra))
                written[name, example] = rows, extra
        writer.commit()
    return written


@pytest.fixture
def path(tmp_path):
    return CacheSpec.from_json(SPEC).path(tmp_path)


def test_layout_is_the_documented_format(path):
    splits = lay_out(path)
    written = fill(path, splits)
    with h5py.File(path) as file:
        assert file.attrs["format"] == 1
        assert json.loads(file.attrs["spec"]) == SPEC
        assert file.attrs["spec"] == json.dumps(SPEC, sort_keys=True, separators=(",", ":"))
        assert set(file) == {"train", "validation", "test"}
        for name, index in splits.items():
            group = file[name]
            n, tokens = len(index.labels), len(index.token_ids)
            expected = {
                "tokens": ((tokens, 8), "float16"), "offsets": ((n + 1,), "int64"),
                "labels": ((n,), "int64"), "token_ids": ((tokens,), "int32"),
                "pooled": ((n, 8), "float32"), "done": ((n,), "uint8"), "crc32": ((n,), "uint32"),
                "pooled_crc32": ((n,), "uint32"),
            }  # fmt: skip
            assert {k: (v.shape, v.dtype.name) for k, v in group.items()} == expected
            assert all(v.chunks is None and v.id.get_offset() for v in group.values())
            for example in range(n):
                rows, pooled = written[name, example]
                stored = group["tokens"][index.offsets[example] : index.offsets[example + 1]]
                np.testing.assert_array_equal(stored, rows)
                np.testing.assert_array_equal(group["pooled"][example], pooled)
                assert group["crc32"][example] == zlib.crc32(rows.tobytes())
                assert group["done"][example] == 1


def test_key_is_the_hash_of_the_canonical_spec(tmp_path):
    text = (
        '{"backbone":"a/b c","backbone_version":"sha256:34cd","dataset":"x","dataset_hash":"ab12",'
        '"dtype":"float16","format":1,"label_names":["ä","o"],"layer":-1,"max_length":256,'
        '"padding":"none","precision":"float32","tokenizer_hash":"56ef"}'
    )
    changed = {"label_names": ["ä", "o"], "dataset": "x", "backbone": "a/b c"}
    spec = CacheSpec.from_json({**SPEC, **changed})
    assert spec.cache_key() == hashlib.sha256(text.encode()).hexdigest()
    name = f"a-b-c--x--{spec.cache_key()[:10]}.h5"
    assert spec.path(tmp_path) == tmp_path / "embeddings" / name


def test_laying_out_twice_gives_the_same_bytes(path):
    lay_out(path)
    first = path.read_bytes()
    time.sleep(1.1)  # HDF5 counts time in seconds
    lay_out(path)
    assert path.read_bytes() == first


def test_estimated_size_is_the_real_one_to_within_a_few_pages(path):
    splits = lay_out(path)
    estimate = store.file_size(splits, layout().cache_shapes)
    # Every dataset may begin on a page of its own: 8 a split.
    assert abs(path.stat().st_size - estimate) <= 2 * store.PAGE * (1 + 8 * len(splits))


def test_rows_count_only_after_commit(path):
    splits = lay_out(path, pooled=False)
    with writing.Writer(path) as writer:
        first = np.ones((np.diff(splits["train"].offsets)[0], 8), np.float16)
        writer.write("train", 0, checked(first))
        with store.Cache(path) as cache:
            assert not cache.splits["train"].done.any()
        writer.commit()
        with store.Cache(path) as cache:
            assert cache.splits["train"].done.tolist() == [1, 0, 0, 0, 0, 0, 0]
            assert not cache.complete


def test_rows_are_synced_before_their_done_flags(path, monkeypatch):
    splits = lay_out(path, pooled=False)
    calls = []
    real_pwrite, real_fsync = os.pwrite, os.fsync
    monkeypatch.setattr(os, "pwrite", lambda f, b, o: calls.append(len(b)) or real_pwrite(f, b, o))
    monkeypatch.setattr(os, "fsync", lambda f: calls.append("sync") or real_fsync(f))
    with writing.Writer(path) as writer:
        rows = np.ones((np.diff(splits["train"].offsets)[0], 8), np.float16)
        writer.write("train", 0, checked(rows))
        writer.commit()
    assert calls[: len(calls) - 1] == [rows.nbytes, "sync", 4, 1]


def test_verify_of_an_intact_cache_finds_nothing(path):
    fill(path, lay_out(path))
    assert verify(path) == []


@pytest.mark.parametrize("dataset", ["tokens", "pooled"])
def test_verify_names_the_damaged_example_and_unmarks_it(path, dataset):
    splits = lay_out(path)
    fill(path, splits)
    place = byte_offset(path, "validation", dataset)
    row = int(splits["validation"].offsets[1]) * 8 * 2 if dataset == "tokens" else 1 * 8 * 4
    flip_byte(path, place + row + 5)
    assert verify(path) == [("validation", 1)]
    with store.Cache(path) as cache:
        assert cache.splits["validation"].done.tolist() == [1, 0, 1]
        assert cache.splits["train"].done.all() and not cache.complete
    assert verify(path) == []  # what is not done is not trusted anyway


@pytest.mark.parametrize("dataset", ["offsets", "labels", "token_ids"])
def test_verify_refuses_a_damaged_index(path, dataset):
    fill(path, lay_out(path))
    flip_byte(path, byte_offset(path, "test", dataset))
    sealed = {"token_ids": "of test are damaged: remove the cache"}
    with pytest.raises(SpaceliteError, match=sealed.get(dataset, "do not match their checksum")):
        verify(path)
    seal_path(path).unlink()
    with pytest.raises(
        SpaceliteError,
        match=r"of test are damaged: remove the cache|do not divide|are not those of",
    ):
        verify(path)


def byte_offset(path, split, dataset):
    """Where a dataset begins in a file, in bytes."""
    with h5py.File(path) as file:
        return file[split][dataset].id.get_offset()


def flip_byte(path, offset):
    with path.open("rb+") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))


def test_truncated_file_is_refused(path):
    fill(path, lay_out(path))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(SpaceliteError, match=rf"damaged .*spacelite cache remove {path.stem}"):
        store.Cache(path)


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + b"x" * 600])
def test_foreign_file_is_refused(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(SpaceliteError, match="run embed again") as caught:
        store.Cache(path)
    assert "\n" not in str(caught.value)


def test_hdf5_file_of_another_program_is_refused(path):
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["x"] = 1
    with pytest.raises(SpaceliteError, match="not a spacelite cache"):
        store.Cache(path)


@contextmanager
def edited(path):
    """The file, to be changed, without its seal, as an older version would have written it."""
    seal_path(path).unlink(missing_ok=True)
    with h5py.File(path, "r+") as file:
        yield file


def test_newer_format_is_refused(path):
    lay_out(path)
    with edited(path) as file:
        file.attrs["format"] = 2
    with pytest.raises(SpaceliteError, match="has format 2, this spacelite reads 1: upgrade"):
        store.Cache(path)


@pytest.mark.parametrize("later", [{"dtype": "int3"}, {"quantization": "none"}], ids=str)
def test_a_type_or_setting_of_a_later_version_is_refused(path, later):
    lay_out(path)
    with edited(path) as file:
        file.attrs["spec"] = json.dumps({**SPEC, **later})
    with pytest.raises(SpaceliteError, match=r"upgrade spacelite$"):
        store.Cache(path)


def test_full_disk_while_laying_out_leaves_nothing(path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SpaceliteError, match="No space left on device; free some space"):
        lay_out(path)
    assert list(path.parent.iterdir()) == []


def test_full_disk_while_writing_keeps_the_journal_true(path, monkeypatch):
    splits = lay_out(path, pooled=False)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    rows = np.ones((np.diff(splits["train"].offsets)[0], 8), np.float16)
    with writing.Writer(path) as writer, monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(
            SpaceliteError, match="run the command again to continue: what is written is kept"
        ):
            writer.write("train", 0, checked(rows))
        writer.commit()
    with store.Cache(path) as cache:
        assert not cache.splits["train"].done.any()


def test_rows_whose_sync_failed_never_count(path, monkeypatch):
    """After a failed sync the rows may be gone although the next sync succeeds."""
    splits = lay_out(path, pooled=False)
    rows = np.ones((np.diff(splits["train"].offsets)[0], 8), np.float16)
    with writing.Writer(path) as writer:
        writer.write("train", 0, checked(rows))
        with monkeypatch.context() as patch, pytest.raises(SpaceliteError, match="writing"):
            patch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError(5, "I/O error")))
            writer.commit()
        writer.commit()
    with store.Cache(path) as cache:
        assert not cache.splits["train"].done.any()


def test_rows_of_another_length_are_never_written(path):
    splits = lay_out(path, pooled=False)
    rows = np.ones((np.diff(splits["train"].offsets)[0] + 1, 8), np.float16)
    with (
        writing.Writer(path) as writer,
        pytest.raises(ValueError, match="bytes of tokens for train example 0"),
    ):
        writer.write("train", 0, checked(rows))


def test_remove_deletes_caches_only(path, tmp_path):
    lay_out(path)
    notes = tmp_path / "notes.txt"
    notes.write_text("x")
    with pytest.raises(SpaceliteError, match="has no cache"):
        find(tmp_path, str(notes), exact=True)
    foreign = tmp_path / "foreign.h5"
    foreign.write_bytes(b"x")
    with pytest.raises(SpaceliteError, match="not an HDF5 file"):
        remove(find(tmp_path, str(foreign), exact=True))
    assert foreign.exists()
    remove(find(tmp_path, path.stem, exact=True))
    assert not path.exists()


def test_what_is_no_file_is_passed_over(path):
    lay_out(path)
    path.with_name("dangling.h5").symlink_to("/nowhere")
    path.with_name("folder.h5").mkdir()
    assert [state.name for state in states(path.parent.parent)] == [path.stem]


def test_states_list_every_file_and_survive_a_broken_one(path):
    splits = lay_out(path)
    fill(path, splits)
    half = path.with_name("b--half--0.h5")
    lay_out(half)
    broken = path.with_name("broken.h5")
    broken.write_bytes(b"nonsense")
    by_name = {state.name: state for state in states(path.parent.parent)}
    assert set(by_name) == {path.stem, half.stem, "broken"}
    tokens = sum(len(index.token_ids) for index in splits.values())
    complete = by_name[path.stem]
    assert (complete.complete, complete.examples, complete.tokens) == (True, 14, tokens)
    assert dict(complete.splits) == {"train": 7, "validation": 3, "test": 4}
    assert not by_name[half.stem].complete and by_name[half.stem].tokens_done == 0
    assert "damaged (it is not an HDF5 file" in by_name["broken"].problem
    assert "problem" not in complete.as_json() and complete.as_json()["path"] == str(path)


def test_find_takes_names_their_parts_and_paths(path):
    lay_out(path)
    other = path.with_name("b--e--1.h5")
    shutil.copy(path, other)
    cache_dir = path.parent.parent
    assert find(cache_dir, path.stem) == path
    assert find(cache_dir, "b--d") == find(cache_dir, "--d") == find(cache_dir, "d") == path
    assert find(cache_dir, str(other)) == other
    with pytest.raises(SpaceliteError, match=r"2 caches of .* have 'b--' in their name .*longer"):
        find(cache_dir, "b--")
    with pytest.raises(SpaceliteError, match=r"has no cache 'nothing'; it holds b--"):
        find(cache_dir, "nothing")
    with pytest.raises(SpaceliteError, match="has no cache"):
        find(cache_dir, "b--d", exact=True)


def test_newest_complete_passes_over_unfinished_and_broken_caches(path):
    fill(path, lay_out(path))
    os.utime(path, (1, 1))
    lay_out(path.with_name("b--half--0.h5"))
    path.with_name("broken.h5").write_bytes(b"nonsense")
    assert newest_complete(path.parent.parent) == path


def test_without_a_cache_the_error_says_what_to_run(tmp_path, path):
    with pytest.raises(SpaceliteError, match="holds no cache: embed a data set first"):
        newest_complete(tmp_path)
    lay_out(path)
    with pytest.raises(SpaceliteError, match=r"is unfinished\): embed again to complete it"):
        newest_complete(path.parent.parent)


def test_pooled_rows_are_refused_where_there_is_no_pooler(path):
    lay_out(path, pooled=False)
    with store.Cache(path) as cache, pytest.raises(SpaceliteError, match="has no pooler"):
        _ = cache.splits["train"].pooled


def test_a_flipped_bit_in_the_metadata_is_always_refused(path):
    """Every byte of the seal, and of the file those around what is not sealed and some of the
    others."""
    fill(path, lay_out(path))
    with store.Cache(path) as cache:
        others = [p for n, p in cache.file.places.items() if n.split("/")[1] in UNSEALED]
    values = {at for place in others for at in range(place.offset, place.stop)}
    edges = {at for place in others for at in (place.offset - 1, place.stop)}
    for file, left_out, step in ((path, values, 5), (seal_path(path), set(), 1)):
        content = file.read_bytes()
        for at, byte in enumerate(content):
            if at in left_out or (at not in edges and at % (step if byte else 97)):
                continue
            file.write_bytes(content[:at] + bytes([byte ^ 1 << at % 8]) + content[at + 1 :])
            with pytest.raises(SpaceliteError, match=r"damaged \(.*(remove|delete)"):
                store.Cache(path)
        file.write_bytes(content)
    store.Cache(path).close()


def replaced(group, name, values, **options):
    del group[name]
    group.create_dataset(name, data=values, **options)


HOSTILE = {
    "chunks": lambda file: replaced(file["train"], "labels", np.zeros(7, np.int64), chunks=(2,)),
    "external": lambda file: file["train"].create_dataset(
        "pooled2", (7,), "i8", external=[("/etc/passwd", 0, 56)]
    ),
    "link": lambda file: file["train"].__setitem__("pooled", h5py.SoftLink("/test/pooled")),
    "other file": lambda file: file.__setitem__("test", h5py.ExternalLink("/etc/x.h5", "test")),
    "split": lambda file: file.move("test", "tesu"),
    "pooled": lambda file: file["test"].move("pooled", "oooled"),
    "group": lambda file: file["train"].create_group("more"),
    "no done": lambda file: file["train"].__delitem__("done"),
    "long done": lambda file: replaced(file["train"], "done", np.ones(9, np.uint8)),
    "crc32": lambda file: replaced(file["train"], "crc32", np.ones(6, np.uint32)),
    "order": lambda file: replaced(file["train"], "labels", np.zeros(7, ">i8")),
    "objects": lambda file: replaced(file["train"], "labels", ["a"] * 7),
    "scalar": lambda file: replaced(file["train"], "labels", np.int64(1)),
    "label": lambda file: file["train"]["labels"].__setitem__(2, 2**40),
    "no label": lambda file: file["train"]["labels"].__setitem__(2, -1),
    "offset": lambda file: file["train"]["offsets"].__setitem__(3, 2**60),
    "back": lambda file: file["train"]["offsets"].__setitem__(3, 1),
    "begin": lambda file: file["train"]["offsets"].__setitem__(0, -1),
    "padding": lambda file: file.attrs.__setitem__("padding_side", "righu"),
    "attribute": lambda file: file.attrs.__setitem__("causam", True),
    "no attribute": lambda file: file.attrs.__delitem__("padding_side"),
    "format": lambda file: file.attrs.__setitem__("format", "one"),
    "bytes": lambda file: file.attrs.__setitem__("spec", b"\xff{"),
    "deep": lambda file: file.attrs.__setitem__("spec", "[" * 60_000),
    "type": lambda file: file.attrs.__setitem__("spec", json.dumps({**SPEC, "layer": "-1"})),
    "many": lambda file: [file.create_group(f"{number}") for number in range(200)],
}  # fmt: skip


@pytest.mark.parametrize("change", HOSTILE)
def test_a_file_of_another_structure_is_refused_in_one_line(path, change):
    fill(path, lay_out(path))
    with edited(path) as file:
        if change in ("link", "other file"):
            del file[{"link": "train/pooled", "other file": "test"}[change]]
        HOSTILE[change](file)
    assert re.search(r"damaged( \(.*| index.*): remove .*embed again", refusal(store.Cache, path))


def test_a_mark_that_is_neither_0_nor_1_marks_nothing(path):
    fill(path, lay_out(path))
    flip_byte(path, byte_offset(path, "train", "done"))  # 1 becomes 65
    with store.Cache(path) as cache:
        assert cache.splits["train"].done.tolist() == [0, 1, 1, 1, 1, 1, 1]


@pytest.mark.slow
def test_a_file_that_ends_the_process_or_never_does_is_refused_alone(path, monkeypatch):
    """Files of older versions are read in a process of its own, one of them for the whole
    folder."""
    fill(path, lay_out(path))
    seal_path(path).unlink()
    for name in ("aborts", "hangs"):
        shutil.copy(path, path.with_name(f"{name}.h5"))
    started, real = [], subprocess.Popen
    begins, reads = hdf5.READER.split("from ")
    monkeypatch.setattr(hdf5, "SECONDS", 5)
    monkeypatch.setattr(
        hdf5,
        "READER",
        f"{begins}\nimport os, time; from spacelite.cache import hdf5; real = hdf5.contents_of\n"
        "def damaged(path):\n"
        "    if path.stem == 'aborts': os.abort()\n"
        "    while path.stem == 'hangs': time.sleep(1)\n"
        "    return real(path)\n"
        f"hdf5.contents_of = damaged\nfrom {reads}",
    )
    monkeypatch.setattr(
        subprocess, "Popen", lambda *given, **named: started.append(given) or real(*given, **named)
    )
    found = {state.name: state for state in states(path.parent.parent)}
    assert found[path.stem].complete and 1 <= len(started) <= 3
    for name in ("aborts", "hangs"):
        assert "damaged (its metadata cannot be read): remove it" in found[name].problem
    assert len(states(path.parent.parent)) == 3 and len(started) <= 3, "answers are remembered"


def test_the_process_that_reads_such_files_runs_no_code_of_the_working_directory(
    path, tmp_path, monkeypatch
):
    fill(path, lay_out(path))
    seal_path(path).unlink()
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "json.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(hdf5.sys, "path", [entry for entry in hdf5.sys.path if entry])
    store.Cache(path).close()
    assert not (folder / "imported").exists()


def test_a_process_that_does_not_start_is_no_fault_of_the_file(path, monkeypatch):
    fill(path, lay_out(path))
    seal_path(path).unlink()
    reader = hdf5.READER
    for begins in ("raise SystemExit", "import os; os.kill(os.getpid(), 9)"):
        monkeypatch.setattr(hdf5, "READER", begins)
        message = refusal(store.Cache, path)
        assert "cannot be started: it ended before it read one; try again" in message
        assert "remove" not in message
    monkeypatch.setattr(hdf5, "READER", f"print('of another package'); {reader}")
    store.Cache(path).close()


def test_verify_seals_a_cache_of_an_older_version_and_says_so_once(path, caplog):
    caplog.set_level("INFO")
    fill(path, lay_out(path))
    seal = seal_path(path).read_bytes()
    seal_path(path).unlink()
    store.Cache(path).close()
    assert not caplog.messages
    assert verify(path) == verify(path) == []
    assert caplog.messages == [f"{path.name} is of an older version: its metadata are sealed now"]
    assert seal_path(path).read_bytes() == seal


def test_a_file_with_another_key_in_its_name_is_refused(path):
    lay_out(path)
    other = path.with_name("b--d--0123456789.h5")
    for file in (path, seal_path(path)):
        file.rename(other.with_name(file.name.replace(path.stem, other.stem)))
    assert f"{other} holds the cache {path.name}: if the file was renamed" in refusal(
        store.Cache, other
    )
    free = path.with_name("mine.h5")
    other.rename(free)
    store.Cache(free).close()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda file: file.attrs.__setitem__("spec", "[]"), "its settings are no object"),
        (lambda file: with_labels(file, "float64"), "train/labels is not there, or not as large"),
        (lambda file: with_labels(file, "int32"), "train/labels is not there, or not as large"),
    ],
    ids=["spec", "float labels", "short labels"],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_other_contents_with_their_own_seal_are_refused(path, change, reason, sealed):
    lay_out(path)
    with h5py.File(path, "r+") as file:
        change(file)
    seal_path(path).unlink()
    if sealed:
        hdf5.write_seal(path)
    assert f"or damaged ({reason}" in refusal(store.Cache, path)


def with_labels(file, kind):
    labels = file["train/labels"][...]
    del file["train/labels"]
    file["train/labels"] = labels.astype(kind)


def test_a_draft_needs_little_room_and_leaves_nothing(tmp_path, monkeypatch):
    """HDF5 never writes to the cache folder: a write that fails would crash it."""
    monkeypatch.setattr(hdf5, "DRAFTS", str(tmp_path))
    attributes = {"": {"format": 1}, "train": {"index_crc32": 5}}
    shapes = {"train/done": ((5,), "uint8"), "train/tokens": ((2**32, 384), "float16")}
    with hdf5._drafted(attributes, shapes) as (draft, contents):
        state = os.fstat(draft)
        assert state.st_size > 2**41 and 512 * state.st_blocks < 2**17
        assert contents["attributes"] == attributes
        assert contents["datasets"]["train/tokens"][1:] == ["float16", 2**32, 384]
        assert [*tmp_path.iterdir()] == []
    with (
        pytest.raises((ValueError, TypeError)),
        hdf5._drafted(attributes, {"train/done": ((5,), "no type")}),
    ):
        pass
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_has_the_name_under_which_a_file_is_laid_out(path, kind, tmp_path):
    outside, partial = tmp_path / "outside", store.partial_path(path)
    outside.write_text("x")
    partial.parent.mkdir(exist_ok=True)
    if kind == "folder":
        partial.mkdir()
        assert "is in the way and cannot be removed" in refusal(store.clear, path)
        assert "cannot be laid out" in refusal(lay_out, path)
    else:
        os.mkfifo(partial) if kind == "pipe" else partial.symlink_to(outside)
        lay_out(path)
        assert path.is_file() and not partial.is_symlink() and not partial.exists()
    assert outside.read_text() == "x"


@pytest.mark.parametrize("content", ['{"by": "evil"}', "[]", "{"])
def test_a_damaged_note_of_the_command_is_said(content, path, caplog):
    lay_out(path)
    assert store.made_by(path) is None and not caplog.records
    store.keep_maker(path, "eval")
    assert store.made_by(path) == "eval" and not caplog.records
    store.side_file(path, "made").write_text(content)
    assert store.made_by(path) is None and "made.json is damaged" in caplog.text


@pytest.mark.parametrize("name", ["cache", *store.SIDE_FILES])
@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_is_no_file_is_never_waited_for(path, kind, name):
    fill(path, lay_out(path))
    file = path if name == "cache" else store.side_file(path, name)
    file.unlink(missing_ok=True)
    os.mkfifo(file) if kind == "pipe" else file.mkdir()
    needed = name in ("cache", "seal")
    if needed:
        assert "it is not a regular file" in refusal(store.Cache, path)
    else:
        with store.Cache(path) as cache:
            if name == "layers":
                assert "it is not a regular file" in refusal(lambda: cache.layers)
            assert texts.read(cache, "train") is None
            assert texts.read_unknown(path).splits == {} and store.made_by(path) is None
            assert store.embedding_seconds([path]) is None
            assert reuse.read(path, cache.key, 14).computed.tolist() == list(range(14))
    assert [bool(state.problem) for state in states(path.parent.parent)] == [needed] * (
        name != "cache"
    )
