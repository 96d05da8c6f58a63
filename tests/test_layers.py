"""Layer means: against plain transformers, killed, resumed, damaged, added to a finished cache, and
read by heads."""

import json
import random
import re
import shutil
import subprocess

import h5py
import numpy as np
import processes
import pytest
import torch
from conftest import invoke, refusal, save_backbone, write_dataset
from test_embedding import EMBED, digest, mounted_small, plain, run
from test_store import byte_offset, edited, flip_byte

from spacelite.cache import folder, store
from spacelite.cache.folder import states, verify
from spacelite.cache.store import side_file
from spacelite.cache.writing import Writer
from spacelite.data import loading as data
from spacelite.errors import SpaceliteError


def digests(path):
    """Of a cache file and of its layer means."""
    return digest(path), digest(side_file(path, "layers"))


def layer_states(folder, text, max_length):
    """Plain transformers: the hidden states of all layers for one text, (layers, n, d) float64."""
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(
        text, truncation=True, max_length=max_length, return_tensors="pt"
    )
    with torch.no_grad():
        output = AutoModel.from_pretrained(folder).eval()(**inputs, output_hidden_states=True)
    return np.stack([states[0].double().numpy() for states in output.hidden_states])


@pytest.mark.parametrize("kind", ["bert", "distilbert", "xlnet"])
def test_means_equal_those_of_plain_transformers(kind, request, reviews, tmp_path):
    folder = request.getfixturevalue(kind)
    done = run(tmp_path, folder, reviews, max_length=24)
    texts = data.read(str(reviews))
    with store.Cache(done.path) as cache:
        for name, split in texts.splits.items():
            means = cache.layers.splits[name]
            assert means.shape == (len(split), 3, 16)
            for i in (0, 7, len(split) - 1):
                expected = layer_states(folder, split.texts[i], 24).mean(axis=1)
                found = means.read(i, i + 1).reshape(3, 16)
                assert found.dtype == np.float16
                error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
                assert error < 1e-3
            whole = cache.splits[name].layer_means
            assert whole.shape == (len(split), 48) and whole.dtype == np.float16
            np.testing.assert_array_equal(whole[7:8].reshape(1, 3, 16), means.read(7, 8))


def test_padded_positions_are_left_out_of_the_means(bert, xlnet, reviews, tmp_path):
    text = data.read(str(reviews)).splits["test"].texts[3]
    for backbone in (bert, xlnet):
        done = run(tmp_path, backbone, reviews, padding="max_length", max_length=40)
        with store.Cache(done.path) as cache:
            found = cache.layers.splits["test"].read(3, 4).reshape(3, 16)
        expected = layer_states(backbone, text, 40).mean(axis=1)
        assert np.linalg.norm(found - expected) / np.linalg.norm(expected) < 1e-3


def test_a_cache_has_the_same_bytes_with_and_without_layer_means(bert, reviews, tmp_path):
    for options in ({}, {"layer": 1}, {"dtype": "float32"}, {"dtype": "int8"}):
        with_layers = run(tmp_path / "with", bert, reviews, **options).path
        without = run(tmp_path / "without", bert, reviews, layers=False, **options).path
        assert with_layers.name == without.name
        assert digest(with_layers) == digest(without)
        assert (
            side_file(with_layers, "layers").is_file() and not side_file(without, "layers").exists()
        )


def test_the_file_is_the_documented_format(bert, reviews, tmp_path):
    path = run(tmp_path, bert, reviews).path
    with store.Cache(path) as cache, h5py.File(side_file(path, "layers")) as file:
        assert dict(file.attrs) == {"format": 1, "key": cache.key}
        assert set(file) == {"train", "validation", "test"}
        for name, size in (("train", 60), ("validation", 20), ("test", 20)):
            expected = {
                "means": ((size, 3, 16), "float16"), "done": ((size,), "uint8"),
                "crc32": ((size,), "uint32"),
            }  # fmt: skip
            assert {k: (v.shape, v.dtype.name) for k, v in file[name].items()} == expected
            assert all(v.chunks is None and v.id.get_offset() for v in file[name].values())
            assert file[name].attrs["index_crc32"] == cache.splits[name].index_crc32
            assert file[name]["done"][...].all()


def test_layers_are_added_to_a_finished_cache_and_nothing_else_is_written(
    bert, reviews, tmp_path, calls
):
    path = run(tmp_path, bert, reviews, layers=False).path
    before = digest(path)
    calls.clear()
    assert run(tmp_path, bert, reviews).hit, "a plain embed leaves it as it is"
    assert not side_file(path, "layers").exists() and not calls
    added = run(tmp_path, bert, reviews, layers=True)
    assert not added.hit and added.path == path and sum(calls) == 99  # one text stands twice
    assert digest(path) == before
    whole = run(tmp_path / "whole", bert, reviews).path
    assert digests(path) == digests(whole)
    for layers in (None, True, False):
        assert run(tmp_path, bert, reviews, layers=layers).hit


def test_a_hit_with_layers_writes_nothing(bert, reviews, tmp_path):
    run(tmp_path, bert, reviews)
    before = sorted(tmp_path.rglob("*"))
    assert run(tmp_path, bert, reviews, layers=True).hit
    assert sorted(tmp_path.rglob("*")) == before


ADDED = EMBED.replace("tokens_per_batch=100)", "tokens_per_batch=100, layers=True)")


@pytest.mark.parametrize("begun", ["both", "layers"])
def test_killed_at_any_step_both_files_are_the_same(begun, bert, reviews, tmp_path):
    """`both`: while a new cache is written; `layers`: while they are added to a finished one."""
    whole = run(tmp_path / "whole", bert, reviews, tokens_per_batch=100).path
    plainly = run(tmp_path / "plain", bert, reviews, tokens_per_batch=100, layers=False).path
    chance = random.Random(3)
    died = 0
    for attempt in range(3):
        place = tmp_path / f"killed{attempt}"
        if begun == "layers":
            shutil.copytree(plainly.parent, place / "embeddings")
        # 100 examples take about 8 such calls each, or 4: die within the first three quarters.
        step = chance.randint(1, 600 if begun == "both" else 230)
        died += processes.killed_at(step, ADDED, bert, reviews, place)
        path = run(place, bert, reviews, tokens_per_batch=100).path
        with store.Cache(path) as cache:
            assert cache.complete and cache.layers.complete
        assert digests(path) == digests(whole)
    assert died == 3


def test_rows_that_one_file_lacks_are_computed_again_for_it_alone(bert, reviews, tmp_path, calls):
    path = run(tmp_path, bert, reviews, tokens_per_batch=1).path
    before = digests(path)
    with Writer(path) as writer:
        writer.unmark("train", 3)
    with Writer(path, layers=True) as writer:
        writer.unmark("test", 5, "means")
    assert states(tmp_path)[0].layer_means == 99
    listed = invoke("cache", "list", "--cache-dir", tmp_path).stdout
    assert "99% done, layer means" in " ".join(listed.split())
    calls.clear()
    assert not run(tmp_path, bert, reviews, tokens_per_batch=1).hit
    assert calls == [1, 1] and digests(path) == before
    listed = invoke("cache", "list", "--cache-dir", tmp_path).stdout
    assert "complete" in listed and "layer" not in listed


def test_damaged_means_are_named_and_mended(bert, reviews, tmp_path, calls):
    path = run(tmp_path, bert, reviews, tokens_per_batch=1).path
    before = digests(path)
    offset = byte_offset(side_file(path, "layers"), "test", "means")
    flip_byte(side_file(path, "layers"), offset + 4 * 3 * 16 * 2 + 5)
    with store.Cache(path) as cache:
        message = refusal(lambda: cache.splits["test"].layer_means)
        assert message == (
            f"the layer means of test example 4 of cache {path.stem} are damaged: run spacelite "
            f"cache verify {path.stem}, then embed again to compute only what is damaged"
        )
        assert cache.splits["train"].layer_means.shape == (60, 48)
    result = invoke("cache", "verify", path.stem, "--cache-dir", tmp_path)
    assert result.exit_code == 1 and "damaged: test example 4\n" in result.stdout
    with store.Cache(path) as cache:
        assert "has the layer means of 99 of 100 examples: run its embed command again" in refusal(
            cache.require_layers
        )
    calls.clear()
    assert not run(tmp_path, bert, reviews, tokens_per_batch=1).hit
    assert calls == [1] and digests(path) == before and verify(path) == []


@pytest.mark.parametrize("damage", ["truncated", "empty", "nonsense", "key", "index"])
def test_an_unusable_file_is_said_and_written_anew(damage, bert, reviews, tmp_path, caplog):
    path = run(tmp_path, bert, reviews).path
    own, before = side_file(path, "layers"), digests(path)
    if damage in ("key", "index"):
        with edited(own) as file:
            if damage == "key":
                file.attrs["key"] = "0" * 64
            else:
                file["train"].attrs["index_crc32"] = 1
    else:
        content = {"truncated": own.read_bytes()[:-100], "empty": b"", "nonsense": b"x" * 999}
        own.write_bytes(content[damage])
    with store.Cache(path) as cache:
        assert cache.complete
        assert cache.splits["test"].read_examples(0, 3).shape[1] == 16, "tokens can be read"
        assert f"{own} is damaged (" in refusal(lambda: cache.layers)
    assert "is damaged (" in refusal(verify, path)
    assert states(tmp_path)[0].layer_means == 0 and states(tmp_path)[0].problem is None
    assert run(tmp_path, bert, reviews, layers=False).hit
    assert not run(tmp_path, bert, reviews).hit
    assert f"{own} is damaged: it is rewritten" in caplog.text
    assert digests(path) == before


def test_a_file_of_a_later_version_is_left_alone(bert, reviews, tmp_path):
    path = run(tmp_path, bert, reviews).path
    with edited(side_file(path, "layers")) as file:
        file.attrs["format"] = 9
    before = digests(path)
    assert "has format 9, this spacelite reads 1: upgrade" in refusal(run, tmp_path, bert, reviews)
    assert digests(path) == before


def test_two_commands_at_once_write_both_files_once(bert, reviews, tmp_path):
    code = (
        "import sys; from pathlib import Path; import spacelite;"
        "spacelite.embed(sys.argv[2], backbone=sys.argv[1], cache_dir=Path(sys.argv[3]), "
        "device='cpu', tokens_per_batch=50, layers=True, progress=False)"
    )
    both = [processes.start(code, bert, reviews, tmp_path / "both") for _ in range(2)]
    assert [process.wait().returncode for process in both] == [0, 0]
    whole = run(tmp_path / "whole", bert, reviews, tokens_per_batch=50).path
    (path,) = folder.cache_files(tmp_path / "both")
    assert digests(path) == digests(whole)


def test_too_small_a_disk_is_refused_with_the_layers_counted(bert, reviews, tmp_path, monkeypatch):
    path = run(tmp_path / "done", bert, reviews, layers=False).path
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = refusal(run, tmp_path / "new", bert, reviews)
    assert "the cache needs" in message and "leave the layer means out with layers=False" in message
    assert not list((tmp_path / "new" / "embeddings").glob("*.*"))
    before = digest(path)
    assert "has 1.0 kB free" in refusal(run, tmp_path / "done", bert, reviews, layers=True)
    assert not side_file(path, "layers").exists() and digest(path) == before
    monkeypatch.undo()
    assert not run(tmp_path / "done", bert, reviews, layers=True).hit


def test_a_disk_that_is_full_for_the_second_file_leaves_neither(bert, tmp_path):
    small = tmp_path / "small"
    texts = write_dataset(tmp_path / "set", {"train": 600, "test": 10})
    mounted_small(small, "700k")
    try:
        ballast = small / "ballast"
        ballast.write_bytes(b"\0" * 300_000)
        with pytest.raises(SpaceliteError, match="free some space"):
            run(small, bert, texts)
        assert not [one for one in (small / "embeddings").iterdir() if one.suffix != ".lock"]
        ballast.unlink()
        with store.Cache(run(small, bert, texts).path) as cache:
            assert cache.complete and cache.layers.complete
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_means_beyond_float16_are_left_out_unless_they_were_asked_for(tmp_path, reviews, caplog):
    backbone = save_backbone("distilbert", tmp_path / "loud")
    from safetensors.torch import load_file, save_file

    weights = load_file(backbone / "model.safetensors")
    weights["transformer.layer.1.output_layer_norm.weight"] *= 1e6
    save_file(weights, backbone / "model.safetensors", metadata={"format": "pt"})
    path = run(tmp_path, backbone, reviews, dtype="float32").path
    assert "has layer means that float16 cannot hold: the layer means are left out" in caplog.text
    assert not side_file(path, "layers").exists() and states(tmp_path)[0].complete
    assert "float16 cannot hold: leave layers=True out" in refusal(
        run, tmp_path, backbone, reviews, dtype="float32", layers=True
    )


def test_lists_count_and_remove_deletes_the_layer_means(bert, reviews, tmp_path):
    arguments = ["--backbone", bert, "--dataset", reviews, "--cache-dir", tmp_path]
    result = invoke("embed", *arguments, "--no-layers")
    assert result.exit_code == 0 and "layers" not in result.stderr
    (state,) = states(tmp_path)
    assert state.layer_means is None
    result = invoke("embed", *arguments, "--layers")
    assert result.exit_code == 0, result.stderr
    assert re.search(r"^means of all 3 layers: [\d.]+ kB, [\d.]+ GB free$", result.stderr, re.M)
    assert result.stderr.count("kB") == 1  # their size is said once
    (with_layers,) = states(tmp_path)
    both = ("layers", "layers_seal")
    size = sum(side_file(state.path, name).stat().st_size for name in both)
    assert with_layers.layer_means == with_layers.as_json()["layer_means"] == 100
    assert with_layers.bytes - state.bytes == pytest.approx(size, abs=20)  # seconds.json
    for name, layers in (("info", 3), ("list", None)):
        result = invoke(
            "cache", name, *[state.name][: name == "info"], "--cache-dir", tmp_path, "--json"
        )
        content = json.loads(result.stdout)
        assert content["layers"] == 3 if layers else content[0]["layer_means"] == 100
    shown = invoke("cache", "info", state.name, "--cache-dir", tmp_path).stdout
    assert re.search(r"^layers +3", shown, re.M)
    result = invoke("cache", "verify", state.name, "--cache-dir", tmp_path)
    assert "tokens and all layer means are intact" in " ".join(result.stdout.split())
    result = invoke("cache", "remove", state.name, "--yes", "--cache-dir", tmp_path)
    assert result.exit_code == 0
    assert not list((tmp_path / "embeddings").iterdir())


def test_plain_transformers_agree_on_the_last_layer(bert, reviews, tmp_path):
    """The last layer's mean is the mean of the cached tokens."""
    path = run(tmp_path, bert, reviews, dtype="float32").path
    _, output = plain(bert, data.read(str(reviews)).splits["test"].texts[0])
    with store.Cache(path) as cache:
        last = cache.layers.splits["test"].read(0, 1).reshape(3, 16)[-1]
        tokens = cache.splits["test"].read_hidden(0, 1).mean(axis=0)
    np.testing.assert_allclose(last, tokens, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(tokens, output.last_hidden_state[0].mean(dim=0), rtol=1e-4)
