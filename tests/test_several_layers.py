"""Several layers of one pass: a cache each, the same as one made alone."""

import json
import shutil

import numpy as np
import pytest
from conftest import invoke, refusal
from test_embedding import digest, run

import spacelite
from spacelite.backbones.model import Backbone
from spacelite.cache import store
from spacelite.cache.folder import newest_complete, states, verify
from spacelite.cache.store import side_file
from spacelite.errors import SpaceliteError


@pytest.fixture
def passes(monkeypatch):
    """The number of texts of each forward pass."""
    seen, real = [], Backbone.hidden_states

    def counted(self, ids, *others):
        seen.append(len(ids))
        return real(self, ids, *others)

    monkeypatch.setattr(Backbone, "hidden_states", counted)
    return seen


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_each_cache_has_the_bytes_of_one_made_alone(dtype, bert, reviews, tmp_path, passes):
    options = {"dtype": dtype, "reuse": False, "tokens_per_batch": 100}
    done = run(tmp_path / "both", bert, reviews, layer=(-1, 0, -2), **options)
    assert sum(passes) == 100, "all layers are of one pass"
    paths = [done.path, *(one.path for one in done.others)]
    for layer, path in zip((-1, 0, -2), paths, strict=True):
        alone = run(tmp_path / "alone", bert, reviews, layer=layer, **options).path
        assert alone.name == path.name and digest(alone) == digest(path)
        assert digest(side_file(alone, "layers")) == digest(side_file(path, "layers"))
        assert verify(path) == []
    again = run(tmp_path / "both", bert, reviews, layer=(-1, 0, -2), **options)
    assert [(one.path, one.hit) for one in (again, *again.others)] == [(p, True) for p in paths]
    assert run(tmp_path / "both", bert, reviews, layer=0, **options).hit


def test_the_seconds_of_one_pass_count_once(tmp_path):
    one, two, three = (tmp_path / f"{name}.h5" for name in "abc")
    store.add_seconds([one, two], 10.0)
    store.add_seconds([one], 2.5)
    store.add_seconds([one, three], 1.5)
    assert [store.embedding_seconds([path]) for path in (one, two, three)] == [14.0, 10.0, 1.5]
    assert store.embedding_seconds([one, two]) == store.embedding_seconds([one, two, three]) == 14.0
    assert store.embedding_seconds([two, three]) == 11.5
    # As older versions wrote it.
    side_file(two, "seconds").write_text('{"seconds": 10.0}')
    assert store.embedding_seconds([one, two]) == 24.0
    assert store.embedding_seconds([one, tmp_path / "d.h5"]) is None


def test_only_what_is_missing_is_computed(bert, reviews, tmp_path, passes):
    first = run(tmp_path, bert, reviews, tokens_per_batch=100).path
    before = digest(first)
    passes.clear()
    done = run(tmp_path, bert, reviews, layer=(-1, -2), tokens_per_batch=100)
    assert done.hit and done.path == first and digest(first) == before
    assert not done.others[0].hit and done.others[0].speed.tokens > 0
    assert newest_complete(tmp_path) == first, "the first layer is the default"
    alone = run(tmp_path / "alone", bert, reviews, layer=-2, tokens_per_batch=100).path
    assert digest(alone) == digest(done.others[0].path)


def test_an_interrupted_pass_is_continued_to_the_same_bytes(bert, reviews, tmp_path):
    options = {"layer": (-1, -2), "tokens_per_batch": 50}
    whole = run(tmp_path / "whole", bert, reviews, **options)

    def interrupt(phase, done, total):
        if phase == "embed" and done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, bert, reviews, on_progress=interrupt, **options)
    assert [0 < state.tokens_done < state.tokens for state in states(tmp_path)] == [True, True]
    # One of them alone, then both: the second has only the other left.
    run(tmp_path, bert, reviews, layer=-2, tokens_per_batch=50)
    done = run(tmp_path, bert, reviews, **options)
    assert digest(done.path) == digest(whole.path)
    assert digest(done.others[0].path) == digest(whole.others[0].path)


def test_texts_of_other_caches_are_copied_for_each_layer(bert, reviews, tmp_path, passes):
    """One layer is there already, the other is not: each text is run once, for the layer that
    lacks it."""
    run(tmp_path, bert, reviews, layer=-1)
    other = shutil.copytree(reviews, tmp_path / "again")
    train = other / "train.jsonl"
    train.write_text(train.read_text().splitlines(keepends=True)[0] + train.read_text())
    passes.clear()
    done = run(tmp_path, bert, other, layer=(-1, -2))
    assert (done.copied, done.others[0].copied) == (101, 0)
    assert sum(passes) == 99  # two are the same
    alone = run(tmp_path / "alone", bert, other, layer=-2)
    with store.Cache(done.others[0].path) as one, store.Cache(alone.path) as two:
        for name, split in two.splits.items():
            np.testing.assert_array_equal(
                one.splits[name].read_hidden(0, len(split)), split.read_hidden(0, len(split))
            )


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        ((-1, -1), "layer=-1,-1: give one layer, or several different ones"),
        ((), r"layer=\[\]: give one layer, or several different ones"),
        ((-1, 2), "layers -1 and 2 of tiny-bert are the same: leave one out"),
        ((-1, 7), "layer=7: tiny-bert has hidden states -3 to 2"),
    ],
)
def test_layers_that_cannot_be_read_are_refused(layer, problem, bert, reviews, tmp_path):
    with pytest.raises(SpaceliteError, match=problem):
        run(tmp_path, bert, reviews, layer=layer)
    assert states(tmp_path) == []


def test_a_layer_that_is_another_one_is_seen_although_that_is_finished(bert, reviews, tmp_path):
    run(tmp_path, bert, reviews)
    assert "are the same" in refusal(run, tmp_path, bert, reviews, layer=(-1, 2))
    assert len(states(tmp_path)) == 1


def test_train_chooses_the_layer(bert, reviews, tmp_path):
    options = {"backbone": bert, "cache_dir": tmp_path, "progress": False}
    both = spacelite.embed(str(reviews), layer=[-1, -2], **options)
    settings = {"epochs": 1, "head": "space", "baselines": False, "progress": False}
    (own,) = spacelite.train(both, layer=-2, **settings)
    (expected,) = spacelite.train(both.others[0], **settings)
    assert own.record.spec.layer == -2 and own.id == expected.id
    assert both.at_layer(-1) is both and both.at_layer(2).path == both.path
    assert both.at_layer(1).path == both.others[0].path
    (last,) = spacelite.train(cache_dir=tmp_path, **settings)
    assert last.record.spec.layer == -1, "the first layer is the default"
    assert "layer -2, 100 examples" in repr(both.others[0]) and "layer" not in repr(both)
    for wrong, problem in (("x", "give a whole number"), (9, "has hidden states -3 to 2")):
        assert problem in refusal(both.at_layer, wrong)
    assert both.at_layer(np.int64(-2)).path == both.others[0].path
    message = refusal(spacelite.train, both, layer=0, **settings)
    assert f"no finished cache like {both.name} with layer=0 (it has layer -1)" in message


def test_the_commands(bert, reviews, tmp_path):
    shared = ["--cache-dir", tmp_path]
    arguments = ["embed", "--backbone", bert, "--dataset", reviews, *shared]
    result = invoke(*arguments, "--layer", "-1,-2", "--json")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    (other,) = content["others"]
    assert (other["layer"], other["hit"], content["hit"]) == (-2, False, False)
    assert content["speed"]["limit"] in content["speed"]["stages"]
    shown = invoke(*arguments, "--layer", "-1,-2").stdout
    assert f"layer -1: {content['name']} was there already: 100 examples" in shown
    assert f"layer -2: {other['name']} was there already" in shown
    listed = invoke("cache", "list", *shared).stdout.replace("\n", " ")
    assert "(layer -2)" in listed and "(layer -1)" not in listed
    result = invoke("train", "--layer", "-2", "--epochs", "1", "--no-baselines", *shared, "--json")
    assert result.exit_code == 0, result.stderr
    assert {one["cache"] for one in json.loads(result.stdout)} == {other["name"]}
    assert f"cache {other['name']} (layer -2)" in result.stderr
    assert "--layer -1,-1: give one layer" in invoke(*arguments, "--layer", "-1,-1").stderr
    assert "with --layer 0" in invoke("train", "--layer", "0", *shared).stderr
