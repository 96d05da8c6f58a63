"""Embedding end to end on tiny backbones: against plain transformers, killed, resumed, refused."""

import errno
import hashlib
import itertools
import json
import logging
import os
import random
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import processes
import pytest
import torch
from conftest import embed, refusal, save_backbone, write_dataset
from test_store import byte_offset, flip_byte

from spacelite import files
from spacelite.backbones import tokenizer
from spacelite.backbones.model import Backbone, plan_batches
from spacelite.backbones.tokenizer import Words, tokenize
from spacelite.cache import filling, store
from spacelite.cache.dtypes import DTYPES
from spacelite.cache.folder import cache_files, remove, states, verify
from spacelite.cache.spec import Encoding
from spacelite.cache.split import Checked
from spacelite.cache.store import side_file
from spacelite.cache.writing import Writer
from spacelite.data import loading as data
from spacelite.errors import SpaceliteError


def run(cache_dir, backbone, dataset, **options):
    return embed(
        backbone=str(backbone), dataset=str(dataset), cache_dir=cache_dir, device="cpu", **options
    )


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def plain(folder, text, max_length=256):
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(
        text, truncation=True, max_length=max_length, return_tensors="pt"
    )
    with torch.no_grad():
        return inputs["input_ids"][0], AutoModel.from_pretrained(folder).eval()(**inputs)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "xlnet"])
def test_every_example_equals_plain_transformers_on_that_text_alone(
    kind, request, reviews, tmp_path
):
    folder = request.getfixturevalue(kind)
    done = run(tmp_path, folder, reviews, max_length=24)
    texts = data.read(str(reviews))
    with store.Cache(done.path) as cache, h5py.File(done.path) as file:
        assert cache.complete and not done.hit
        assert cache.pooling == ("last" if kind == "xlnet" else "first")
        for name, split in texts.splits.items():
            stored = cache.splits[name]
            np.testing.assert_array_equal(stored.labels, split.labels)
            assert ("pooled" in file[name]) == (kind == "bert")
            for i in (0, 7, len(split) - 1):
                ids, output = plain(folder, split.texts[i], 24)
                rows = stored.read_tokens(*stored.offsets[i : i + 2])
                np.testing.assert_array_equal(
                    stored.read_token_ids(*stored.offsets[i : i + 2]), ids
                )
                expected = output.last_hidden_state[0].numpy()
                error = np.abs(rows - expected).max() / np.abs(expected).max()
                assert error < 1e-3
                if kind == "bert":
                    np.testing.assert_allclose(stored.pooled[i], output.pooler_output[0], atol=1e-5)


def test_batches_hold_one_length_longest_first_within_the_budget():
    lengths = np.random.RandomState(0).randint(1, 40, 500)
    batches = list(plan_batches(lengths, 100))
    assert sorted(np.concatenate(batches)) == list(range(500))
    firsts = [lengths[batch[0]] for batch in batches]
    assert firsts == sorted(firsts, reverse=True)
    for batch in batches:
        assert len(set(lengths[batch])) == 1
        assert len(batch) == 1 or lengths[batch].sum() <= 100
    # No two batches of one length could have been one.
    for one, two in itertools.pairwise(batches):
        if lengths[one[0]] == lengths[two[0]]:
            assert (len(one) + 1) * lengths[one[0]] > 100


def test_same_command_again_is_a_hit_that_never_loads_the_backbone(
    bert, reviews, tmp_path, monkeypatch
):
    first = run(tmp_path, bert, reviews)
    before = digest(first.path)
    monkeypatch.setattr("spacelite.cache.filling.Backbone", None)
    monkeypatch.setattr(tokenizer, "tokenize", None)
    again = run(tmp_path, bert, reviews)
    assert again.hit and again.path == first.path and digest(again.path) == before


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 16}, {"dtype": "float32"}, {"dtype": "int8"}, {"layer": 0}, {"limit": 30},
        {"padding": "max_length", "max_length": 40},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_whatever_changes_the_numbers_makes_another_cache(change, bert, reviews, tmp_path, caplog):
    first = run(tmp_path, bert, reviews)
    with caplog.at_level(logging.INFO, "spacelite"):
        other = run(tmp_path, bert, reviews, **change)
    assert not other.hit and other.path != first.path and first.path.exists()
    field = "dataset_hash" if "limit" in change else next(iter(change))
    assert f"{first.path.stem} has other settings (" in caplog.text and field in caplog.text


def test_changed_text_weights_or_tokenizer_make_another_cache(bert, tmp_path):
    folder = write_dataset(tmp_path / "set", {"train": 20, "test": 5})
    paths = {run(tmp_path, bert, folder).path}
    file = folder / "test.jsonl"
    file.write_text(file.read_text().replace("the", "this", 1))
    paths.add(run(tmp_path, bert, folder).path)
    other = save_backbone("bert", tmp_path / "tiny-bert", seed=1)
    paths.add(run(tmp_path, other, folder).path)
    for name in ("tokenizer.json",):
        tokenizer = other / name
        tokenizer.write_text(tokenizer.read_text() + "\n")
    paths.add(run(tmp_path, other, folder).path)
    assert len(paths) == 4


def test_file_of_the_right_name_and_another_spec_is_never_used(bert, reviews, tmp_path):
    first = run(tmp_path, bert, reviews)
    second = run(tmp_path, bert, reviews, max_length=12)
    for name in (".h5", ".seal.json"):
        shutil.copy(second.path.with_suffix(name), first.path.with_suffix(name))
    with pytest.raises(SpaceliteError, match=f"holds the cache {second.path.name}: if .*renamed"):
        run(tmp_path, bert, reviews)


EMBED = """
import sys
from pathlib import Path
from conftest import embed
import spacelite.cache.writing
spacelite.cache.writing.COMMIT_SECONDS = 0.0
embed(backbone=sys.argv[1], dataset=sys.argv[2], cache_dir=Path(sys.argv[3]), device="cpu",
      tokens_per_batch=100)
"""


@pytest.mark.parametrize(
    ("dtype", "attempts"),
    [("float16", 4), ("float32", 2), ("int8", 3), ("bfloat16", 1), ("int4", 1)],
)
def test_killed_at_any_step_the_finished_file_is_the_same(dtype, attempts, bert, reviews, tmp_path):
    options = {"tokens_per_batch": 100, "dtype": dtype}
    whole = run(tmp_path / "whole", bert, reviews, **options).path
    code = EMBED.replace("batch=100)", f"batch=100, dtype={dtype!r})")
    chance = random.Random(7)
    died = 0
    for attempt in range(attempts):
        folder = tmp_path / f"killed{attempt}"
        # 100 examples take about 4 such calls each: die within the first three quarters.
        died += processes.killed_at(chance.randint(1, 300), code, bert, reviews, folder)
        again = run(folder, bert, reviews, **options)
        assert digest(again.path) == digest(whole)
    assert died == attempts


def test_every_stored_type_is_killed():
    (marked,) = test_killed_at_any_step_the_finished_file_is_the_same.pytestmark
    assert {dtype for dtype, _ in marked.args[1]} == DTYPES.keys()


def test_killed_while_laying_out_nothing_is_trusted(bert, reviews, tmp_path, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "posix_fallocate", killed)
        run(tmp_path, bert, reviews)
    assert cache_files(tmp_path) == []
    assert not run(tmp_path, bert, reviews).hit


@pytest.mark.parametrize("dtype", DTYPES)
def test_after_ctrl_c_it_continues_where_it_stopped(dtype, bert, reviews, tmp_path, calls):
    options = {"reuse": False, "tokens_per_batch": 100, "dtype": dtype}
    seen = []

    def interrupt(phase, done, total):
        if phase == "embed":
            seen.append(done)
            if done > total / 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, bert, reviews, on_progress=interrupt, **options)
    assert not [one for one in threading.enumerate() if one.name.startswith("computing")]
    state = states(tmp_path)[0]
    assert state.tokens_done == seen[-1] and not state.complete
    with store.Cache(state.path) as cache:
        written = sum(int(split.done.sum()) for split in cache.splits.values())
    calls.clear()
    progress = []
    done = run(tmp_path, bert, reviews, **options,
               on_progress=lambda *event: progress.append(event))  # fmt: skip
    assert written + sum(calls) == 100, "what was counted is not computed again"
    assert next(event for event in progress if event[0] == "embed")[1] == seen[-1]
    whole = run(tmp_path / "whole", bert, reviews, **options)
    assert digest(done.path) == digest(whole.path)


@pytest.mark.parametrize("dtype", DTYPES)
def test_damaged_examples_are_mended_and_nothing_else_is_computed(
    dtype, bert, reviews, tmp_path, calls
):
    options = {"tokens_per_batch": 1, "dtype": dtype}
    path = run(tmp_path, bert, reviews, **options).path
    before = digest(path)
    with store.Cache(path) as cache:
        split = cache.splits["test"]
        place = byte_offset(path, "test", "tokens")
        offset = place + int(split.offsets[4]) * split.stored.row_bytes(split.width)
    flip_byte(path, offset + split.stored.row_bytes(split.width) - 1)  # int8: of a scale
    assert verify(path) == [("test", 4)]
    calls.clear()
    again = run(tmp_path, bert, reviews, **options)
    assert not again.hit and calls == [1]
    assert digest(path) == before


def test_out_of_memory_halves_the_batch_and_continues(bert, reviews, tmp_path, monkeypatch, caplog):
    real = Backbone.hidden_states

    def small_memory(self, ids, type_ids, mask):
        if ids.size > 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, ids, type_ids, mask)

    monkeypatch.setattr(Backbone, "hidden_states", small_memory)
    path = run(tmp_path / "small", bert, reviews, dtype="float32").path
    assert "out of memory: continuing with" in caplog.text
    monkeypatch.undo()
    whole = run(tmp_path / "whole", bert, reviews, dtype="float32").path
    with store.Cache(path) as one, store.Cache(whole) as two:
        assert one.complete
        for name, split in two.splits.items():
            rows = one.splits[name].read_tokens(0, split.tokens)
            np.testing.assert_allclose(rows, split.read_tokens(0, split.tokens), atol=2e-5)


def test_half_precision_is_another_cache_of_nearly_the_same_numbers(
    bert, reviews, tmp_path, caplog
):
    caplog.set_level(logging.INFO, "spacelite")
    full = run(tmp_path, bert, reviews, dtype="float32").path
    assert "differ from float32" not in caplog.text and not side_file(full, "precision").exists()
    half = run(tmp_path, bert, reviews, dtype="float32", precision="bfloat16").path
    with store.Cache(full) as one, store.Cache(half) as two:
        assert (one.spec.precision, two.spec.precision) == ("float32", "bfloat16")
        tokens = one.splits["test"].tokens
        expected, rows = (c.splits["test"].read_tokens(0, tokens).astype(float) for c in (one, two))
    error = np.linalg.norm(rows - expected) / np.linalg.norm(expected)
    assert 1e-4 < error < 0.05
    # What was measured on 50 texts is near that of a whole split.
    content = json.loads(side_file(half, "precision").read_text())
    assert (content["precision"], content["texts"]) == ("bfloat16", 50)
    assert content["relative_error"] == pytest.approx(error, rel=0.2)
    said = f"bfloat16: the hidden states of 50 texts differ from float32 by {error:.1g}"
    assert said in caplog.text.replace(f"{content['relative_error']:.2g}", f"{error:.1g}")
    caplog.clear()
    again = run(tmp_path, bert, reviews, dtype="float32", precision="bfloat16")
    assert again.hit and "differ" not in caplog.text
    remove(half)
    assert not side_file(half, "precision").exists()


@pytest.mark.parametrize(("found", "said"), [
    ({}, "this processor has no instructions for bfloat16: float32 is faster here"),
    ({"amx_bf16": True}, None),
])  # fmt: skip
def test_half_precision_without_instructions_is_slow_and_said(
    found, said, bert, reviews, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    path = run(tmp_path, bert, reviews, precision="bfloat16").path
    assert [line for line in caplog.messages if "instructions" in line] == [said] * bool(said)
    with store.Cache(path) as opened:  # texts are embedded alike later, if that is not slow
        like = Encoding.like(opened.spec, str(bert), device="cpu")
    assert like.precision == ("float32" if said else "bfloat16")


@pytest.mark.parametrize("found", [{}, {"avx512_bf16": True}])
def test_a_processor_that_is_faster_in_half_precision_is_named(
    found, bert, reviews, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO, "spacelite")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    monkeypatch.setattr(filling, "MANY_TOKENS", 100)
    monkeypatch.setattr(filling, "FASTER", 0)
    run(tmp_path, bert, reviews)
    said = [line for line in caplog.messages if "this processor (its AVX-512) runs" in line]
    assert len(said) == len(found)


def test_a_hit_counts_as_the_newest_and_writes_nothing_else(bert, reviews, tmp_path, monkeypatch):
    """The folder may be read-only by then."""
    first = run(tmp_path, bert, reviews).path
    run(tmp_path, bert, reviews, max_length=8)
    for guard in (tmp_path / "embeddings").glob(".*"):
        guard.unlink()
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    assert cache_files(tmp_path)[0] != first
    with monkeypatch.context() as read_only:
        read_only.setattr(os, "utime", lambda *_: (_ for _ in ()).throw(PermissionError))
        assert run(tmp_path, bert, reviews).hit and cache_files(tmp_path)[0] != first
    assert run(tmp_path, bert, reviews).hit and cache_files(tmp_path)[0] == first
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("prefix", ["good film: ", "the story "])
@pytest.mark.parametrize("kind", ["bert", "xlnet"])
def test_texts_are_read_with_a_prefix(kind, prefix, request, reviews, tmp_path):
    folder = request.getfixturevalue(kind)
    path = run(tmp_path, folder, reviews, prefix=prefix, dtype="float32").path
    text = data.read(str(reviews)).splits["test"].texts[0]
    ids, output = plain(folder, prefix + text)
    with store.Cache(path) as cache:
        stored = cache.splits["test"]
        np.testing.assert_array_equal(stored.read_token_ids(0, len(ids)), ids)
        expected = output.last_hidden_state[0].numpy()
        np.testing.assert_allclose(stored.read_tokens(0, len(ids)), expected, atol=2e-6)
        assert Encoding.like(cache.spec).prefix == prefix
    # It is one word that stands for none of the text, with the text at hand or without.
    alone, _ = plain(folder, text)
    for written in (text, None):
        words = Words(folder, prefix).of(ids.tolist(), written)
        at = 1 if kind == "bert" else 0  # behind [CLS], which comes last in XLNet
        assert words[at][1] and (written is None or words[at][0] == prefix.rstrip())
        others = [word for word, *_ in words[:at] + words[at + 1 :]]
        assert others == [word for word, *_ in Words(folder).of(alone.tolist(), written)]
    run(tmp_path, folder, reviews)
    assert len(cache_files(tmp_path)) == 2  # it is in the key
    message = refusal(run, tmp_path, folder, reviews, prefix=prefix, max_length=4)
    assert "max_length=4" in message


def test_continuing_with_another_tokenization_is_refused(bert, reviews, tmp_path, monkeypatch):
    """Another version of the tokenizers package may cut texts differently: rows would no longer
    fit between those of their neighbours."""
    path = run(tmp_path, bert, reviews).path
    with Writer(path) as writer:
        writer.unmark("train", 0)
    before = digest(path)
    real = tokenize

    def one_more(*arguments, **options):
        tokens = real(*arguments, **options)
        tokens.ids[0] = np.append(tokens.ids[0], 5).astype(np.int32)
        return tokens

    monkeypatch.setattr(tokenizer, "tokenize", one_more)
    with pytest.raises(SpaceliteError, match="holds other tokens for train than the data have now"):
        run(tmp_path, bert, reviews)
    assert digest(path) == before


def test_memory_errors_of_the_cpu_are_told_from_others():
    from spacelite.errors import is_out_of_memory

    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)
    with pytest.raises(RuntimeError) as caught:
        torch.ones(2) @ torch.ones(3)
    assert not is_out_of_memory(caught.value)


def test_a_folder_that_cannot_be_synced_has_no_cache_without_what_is_beside_it(
    bert, reviews, tmp_path, monkeypatch
):
    def failed(path):
        if [*path.glob("*.h5")]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    options = {"backbone": str(bert), "dataset": str(reviews), "cache_dir": tmp_path}
    with monkeypatch.context() as patch:
        patch.setattr(files, "sync", failed)
        assert "cannot be laid out in" in refusal(embed, **options)
    assert [path.name for path in (tmp_path / "embeddings").iterdir()] == []
    path = embed(**options).path
    assert side_file(path, "layers").exists() and side_file(path, "seal").exists()


LIMITED = """
import resource, signal, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from conftest import embed
from spacelite.errors import SpaceliteError
try:
    embed(backbone=sys.argv[1], dataset=sys.argv[2], cache_dir=Path(sys.argv[3]), device="cpu")
except SpaceliteError as error:
    print(error)
"""


def test_a_file_that_may_not_grow_is_refused_in_good_order(bert, reviews, tmp_path):
    done = processes.run(LIMITED, bert, reviews, tmp_path)
    assert done.returncode == 0 and "File too large; free some space" in done.stdout
    assert not list(tmp_path.rglob("*.h5*l"))  # neither the file nor a .partial


def test_a_single_text_beyond_memory_is_an_error(bert, reviews, tmp_path, monkeypatch):
    def no_memory(self, ids, type_ids, mask):
        torch.empty(10**15)

    monkeypatch.setattr(Backbone, "hidden_states", no_memory)
    with pytest.raises(SpaceliteError, match="memory is too small for one text of"):
        run(tmp_path, bert, reviews)


def test_too_small_a_disk_is_refused_before_anything_is_written(
    bert, reviews, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SpaceliteError, match=r"the cache needs .* and .* has 10\.0 kB free"):
        run(tmp_path, bert, reviews)
    assert not list((tmp_path / "embeddings").glob("*.h5"))
    assert not list((tmp_path / "embeddings").glob("*.partial"))


def test_tokens_bytes_and_free_disk_are_said(bert, reviews, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "spacelite"):
        done = run(tmp_path, bert, reviews, max_length=10)
    with store.Cache(done.path) as cache:
        assert f"{cache.tokens:,} tokens of width 16: " in caplog.text
    assert "free" in caplog.text
    assert "of 100 texts are longer than 10 tokens and were cut off there" in caplog.text


def test_a_text_of_a_million_characters_is_cut_and_counted(bert, tmp_path, caplog):
    folder = write_dataset(tmp_path / "set", {"train": 10, "validation": 4, "test": 4})
    with (folder / "train.jsonl").open("a") as file:
        file.write('{"text": "' + "good film " * 100_000 + '", "label": 1}\n')
    with caplog.at_level(logging.INFO, "spacelite"):
        done = run(tmp_path, bert, folder, max_length=40)
    assert "1 of 19 texts is longer than 40 tokens and was cut off there" in caplog.text
    with store.Cache(done.path) as cache:
        assert cache.splits["train"].lengths[-1] == 40


def test_hidden_states_beyond_float16_are_refused_with_the_remedy(tmp_path, reviews):
    folder = save_backbone("distilbert", tmp_path / "loud")
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    name = "transformer.layer.1.output_layer_norm.weight"
    weights[name] *= 1e6
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SpaceliteError, match="that float16 cannot hold: use dtype=bfloat16"):
        run(tmp_path, folder, reviews)
    assert not states(tmp_path)[0].complete
    loud = [run(tmp_path, folder, reviews, dtype=dtype) for dtype in ("float32", "bfloat16")]
    with store.Cache(loud[0].path) as exact, store.Cache(loud[1].path) as rounded:
        tokens = exact.splits["test"].tokens
        expected = exact.splits["test"].read_tokens(0, tokens)
        assert np.abs(expected).max() > 65_504
        rows = rounded.splits["test"].read_tokens(0, tokens)
        np.testing.assert_allclose(DTYPES["bfloat16"].decode(rows), expected, rtol=2**-8)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dtype": "int2"}, "dtype=int2: choose from float16, float32, bfloat16, int8, int4"),
        ({"padding": "left"}, "padding=left: choose from none, max_length"),
        ({"tokens_per_batch": 0}, "tokens_per_batch=0: give a whole number of at least 1"),
        ({"max_length": 2}, "max_length=2: tiny-bert takes 3 to 512 tokens"),
        ({"layer": 5}, "layer=5: tiny-bert has hidden states -3 to 2"),
    ],
)
def test_bad_settings_leave_nothing_behind(options, problem, bert, reviews, tmp_path):
    with pytest.raises(SpaceliteError, match=problem):
        run(tmp_path, bert, reviews, **{"max_length": 20, **options})
    assert cache_files(tmp_path) == []


def test_padded_positions_are_cached_and_counted(bert, xlnet, reviews, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    texts = [*data.read(str(reviews)).splits["test"].texts]
    for folder in (bert, xlnet):
        done = run(tmp_path, folder, reviews, padding="max_length", max_length=20, dtype="float32")
        inputs = AutoTokenizer.from_pretrained(folder)(
            texts, truncation=True, max_length=20, padding="max_length", return_tensors="pt"
        )
        with torch.no_grad():
            expected = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
        with store.Cache(done.path) as cache:
            split = cache.splits["test"]
            assert set(split.lengths) == {20}
            rows = split.read_tokens(0, split.tokens).reshape(len(texts), 20, -1)
        np.testing.assert_allclose(rows, expected, atol=2e-5)


def test_an_unwritable_cache_folder_is_an_error(bert, reviews, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpaceliteError, match=r"cannot be written: .*choose another cache_dir"):
        run(tmp_path / "file" / "cache", bert, reviews)


HOLD = """
import sys, time
from pathlib import Path
from spacelite import files
with files.lock(Path(sys.argv[1])):
    print("held", flush=True)
    while not Path(sys.argv[2]).exists():
        time.sleep(0.01)
"""


def test_a_second_writer_waits_and_says_so(bert, reviews, tmp_path, caplog):
    path = run(tmp_path, bert, reviews).path
    with Writer(path) as writer:
        writer.unmark("train", 0)
    holder = processes.start(HOLD, path, tmp_path / "let go")
    assert holder.line() == "held"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(run, tmp_path, bert, reviews)
        try:
            processes.until(lambda: f"is writing {path.name}: waiting" in caplog.text)
            assert not waiting.done()
        finally:
            (tmp_path / "let go").touch()
        assert not waiting.result().hit
    assert f"another spacelite process is writing {path.name}: waiting" in caplog.text
    assert holder.wait().returncode == 0


def test_a_killed_writer_holds_nobody_up(bert, reviews, tmp_path):
    path = run(tmp_path, bert, reviews).path
    holder = processes.start(HOLD, path, tmp_path / "never")
    assert holder.line() == "held"
    holder.kill()
    with Writer(path) as writer:
        writer.unmark("train", 0)
    assert not run(tmp_path, bert, reviews).hit


def test_two_commands_at_once_write_one_whole_cache(bert, reviews, tmp_path):
    code = (
        "import sys; from pathlib import Path; import spacelite;"
        "spacelite.embed(sys.argv[2], backbone=sys.argv[1], cache_dir=Path(sys.argv[3]), "
        "device='cpu', tokens_per_batch=50, progress=False)"
    )
    both = [processes.start(code, bert, reviews, tmp_path / "both") for _ in range(2)]
    assert [process.wait().returncode for process in both] == [0, 0]
    whole = run(tmp_path / "whole", bert, reviews, tokens_per_batch=50).path
    assert [digest(path) for path in cache_files(tmp_path / "both")] == [digest(whole)]


def mounted_small(folder, size):
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system here")


def test_a_really_full_disk_is_refused_and_once_it_is_not_the_same_command_works(
    bert, reviews, tmp_path
):
    small = tmp_path / "small"
    mounted_small(small, "400k")
    try:
        ballast = small / "ballast"
        ballast.write_bytes(b"\0" * 330_000)
        with pytest.raises(SpaceliteError, match="free some space"):
            run(small, bert, reviews, dtype="float32")
        assert cache_files(small) == []
        ballast.unlink()
        assert run(small, bert, reviews, dtype="float32").path.exists()
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_a_cache_that_is_removed_meanwhile_is_an_error_of_one_line(tmp_path, bert, reviews):
    path = run(tmp_path, bert, reviews).path
    with store.Cache(path) as cache:
        values = np.frombuffer(cache.splits["train"].datasets["tokens"].content(0), np.uint8)
    with Writer(path) as writer:
        writer.unmark("train", 0)

    def write():
        with Writer(path) as writer:
            path.unlink()
            try:
                writer.write("train", 0, {"tokens": Checked.of(values)})
            finally:  # as `write_missing` does
                writer.commit()

    assert f"writing {path} failed: No such file or directory" in refusal(write)
