"""`cache["train"]`: the examples of a split for programs of one's own."""

import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from conftest import refusal, texts
from test_store import flip_byte
from torch.utils.data import DataLoader

import spacelite
from spacelite.cache.dtypes import DTYPES
from spacelite.cache.store import Cache, side_file


@pytest.fixture(scope="module", params=[*DTYPES, "several"])
def cache(request, bert, tmp_path_factory):
    several = request.param == "several"
    labels = [[["bad"], [], ["bad", "good"]][i % 3] if several else i % 3 for i in range(60)]
    return spacelite.embed(
        texts=texts(60), labels=labels, backbone=bert, dtype="int8" if several else request.param,
        cache_dir=tmp_path_factory.mktemp("examples"), progress=False,
    )  # fmt: skip


def same(examples, split):
    """Whether examples are those that the cache reads with HDF5."""
    assert len(examples) == len(split) and examples.width == split.width
    for i, (tokens, label) in enumerate(examples):
        np.testing.assert_array_equal(tokens, split.read_hidden(i, i + 1))
        np.testing.assert_array_equal(label, split.labels[i])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_examples_are_those_of_the_cache(split, cache):
    examples = cache[split]
    with cache.open() as opened:
        own = opened.splits[split]
        same(examples, own)
        same(pickle.loads(pickle.dumps(examples)), own)
        hidden, offsets, labels = examples.to_numpy()
        np.testing.assert_array_equal(hidden, own.read_hidden(0, len(own)))
        np.testing.assert_array_equal(offsets, own.offsets)
        np.testing.assert_array_equal(labels, own.labels)
        np.testing.assert_array_equal(examples.token_ids, own.read_token_ids())
        tensors = examples.to_torch()
        assert [tensor.dtype for tensor in tensors] == [torch.float32, torch.int64, torch.int64]
        np.testing.assert_array_equal(tensors[0], hidden)
    assert {*examples.texts} <= {*texts(60)} and len(examples.texts) == len(examples)
    np.testing.assert_array_equal(examples.tokens(-1), examples.tokens(len(examples) - 1))
    with pytest.raises(IndexError):
        examples[len(examples)]
    assert repr(examples) == f"<{len(examples)} examples of {split} in {cache.name}>"


@pytest.mark.parametrize("cache", ["int8", "several"], indirect=True)
@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_loaders_read_them_in_processes_of_their_own(start, cache):
    examples = cache["train"]
    first = examples.tokens(0)  # the file is open when the process is copied
    loader = DataLoader(
        examples, batch_size=7, num_workers=2, collate_fn=examples.collate,
        multiprocessing_context=multiprocessing.get_context(start),
    )  # fmt: skip
    hidden, lengths, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    whole, offsets, expected = examples.to_numpy()
    np.testing.assert_array_equal(hidden, whole)
    np.testing.assert_array_equal(lengths, np.diff(offsets))
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(first, examples.tokens(0))


def test_what_is_not_there_or_damaged_is_one_line(bert, tmp_path):
    cache = spacelite.embed(
        texts=texts(40), labels=[0, 1] * 20, backbone=bert, cache_dir=tmp_path, progress=False
    )
    assert refusal(cache.__getitem__, "test") == (
        f"{cache.name} has no split 'test': choose from train, validation"
    )
    with Cache(cache.path) as opened:
        path, offset, _ = opened.splits["train"].datasets["tokens"].place(3)
    flip_byte(path, offset)
    examples = cache["train"]
    examples.tokens(2)
    for read in (lambda: examples.tokens(3), examples.to_numpy):
        assert f"train example 3 of cache {cache.name} is damaged" in refusal(read)
    side_file(cache.path, "texts").unlink()
    assert "was written without its texts" in refusal(lambda: examples.texts)
