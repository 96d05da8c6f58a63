"""Hidden states on their first principal axes: against scikit-learn in float64, and everything that
reads a cache or a run."""

import json
import shutil

import h5py
import numpy as np
import pytest
from conftest import invoke, refusal, texts
from sklearn.decomposition import PCA
from test_embedding import digest, plain, run
from test_store import flip_byte

import spacelite
from spacelite.cache import filling
from spacelite.cache.folder import verify
from spacelite.cache.reduction import Moments, Reduction
from spacelite.cache.spec import CacheSpec
from spacelite.cache.store import Cache, side_file
from spacelite.cache.writing import Writer
from spacelite.data import loading as data

WIDTH, AXES = 16, 5


def principal(rows, count):
    """Mean (d,), axes (K, d) with the standardisation in them, and shares of the variance."""
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    found = PCA(count, svd_solver="full").fit((rows - mean) / deviation)
    return mean, found.components_ / deviation, found.explained_variance_ratio_


def same_axes(found, expected, rtol=1e-4):
    """Whether axes are the same but for their signs."""
    signs = np.sign((found * expected).sum(axis=1))[:, None]
    np.testing.assert_allclose(found * signs, expected, rtol=rtol, atol=rtol)


@pytest.fixture(scope="module")
def reduced(bert, reviews, tmp_path_factory):
    """A cache of the tiny BERT on five axes, not to be written to."""
    folder = tmp_path_factory.mktemp("reduced")
    return run(folder, bert, reviews, dtype="float32", reduce=AXES).path


def sampled(bert, reviews):
    """The hidden states of train texts in a seeded order, until there are 64 for each dimension."""
    split, rows = data.read(str(reviews)).splits["train"], []
    for i in np.random.default_rng(0).permutation(len(split.texts)):
        rows.extend(plain(bert, split.texts[i])[1].last_hidden_state[0].double().numpy())
        if len(rows) >= 64 * WIDTH:
            break
    return np.array(rows)


# The axes.


def random_rows(count=400, width=12):
    random = np.random.default_rng(0)
    return random.normal(3, 1, (count, width)) @ random.normal(size=(width, width)) * 50


@pytest.mark.parametrize("wanted", [1, 5, 12])
def test_axes_are_those_of_scikit_learn(wanted):
    rows, moments = random_rows(), Moments(12)
    for part in np.split(rows, [1, 2, 150]):
        moments.add(part.astype(np.float32))
    found = moments.reduction(str(wanted))
    mean, axes, shares = principal(rows, wanted)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5)
    same_axes(found.axes, axes)
    np.testing.assert_allclose(found.shares, shares, rtol=1e-5)
    assert found.kept == pytest.approx(shares.sum())


def test_auto_keeps_99_percent_of_the_standardised_variance():
    rows, moments = random_rows(), Moments(12)
    rows[:, 3] *= 1e4  # counts like the others
    moments.add(rows)
    found = moments.reduction("auto")
    shares = np.cumsum(principal(rows, 12)[2])
    assert shares[found.dimensions - 2] < 0.99 <= shares[found.dimensions - 1]
    assert found.kept == pytest.approx(shares[found.dimensions - 1])


def test_a_dimension_that_does_not_vary_is_left_out():
    rows = random_rows()
    rows[:, 7] = 5
    moments = Moments(12)
    moments.add(rows)
    found = moments.reduction("11")
    assert not found.axes[:, 7].any()
    same_axes(np.delete(found.axes, 7, 1), principal(np.delete(rows, 7, 1), 11)[1])
    assert found.kept == pytest.approx(1)
    message = refusal(moments.reduction, "12")
    assert message == (
        "reduce=12: 11 of the 12 dimensions of the hidden states differ from token to token: give "
        "at most 11"
    )
    constant = Moments(12)
    constant.add(np.ones((40, 12)))
    assert refusal(constant.reduction, "auto").endswith("token to token: leave it out")


# The cache.


def test_tokens_are_projected_on_the_axes_of_train(reduced, bert, reviews):
    mean, axes, shares = principal(sampled(bert, reviews), AXES)
    assert verify(reduced) == []
    with Cache(reduced) as cache:
        found = cache.reduction
        np.testing.assert_allclose(found.mean, mean, atol=1e-5)
        same_axes(found.axes, axes, rtol=1e-3)
        np.testing.assert_allclose(found.shares, shares, rtol=1e-3)
        signs = np.sign((found.axes * axes).sum(axis=1))
        for name, split in data.read(str(reviews)).splits.items():
            stored = cache.splits[name]
            assert stored.width == AXES and not stored.has_pooler
            means = stored.layer_means.reshape(len(stored), -1, WIDTH)
            for i, text in enumerate(split.texts):
                hidden = plain(bert, text)[1].last_hidden_state[0].double().numpy()
                expected = (hidden - mean) @ axes.T * signs
                np.testing.assert_allclose(stored.read_hidden(i, i + 1), expected, atol=2e-4)
                np.testing.assert_allclose(means[i, -1], hidden.mean(axis=0), atol=2e-3)
    with h5py.File(reduced) as file:
        assert file["reduction/axes"].shape == (AXES, WIDTH)
        assert json.loads(file.attrs["spec"])["reduce"] == str(AXES)


def test_axes_are_fitted_on_a_sample(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(filling, "SAMPLED", 4)
    asked = []
    monkeypatch.setattr(Moments, "add", lambda self, rows: asked.append(len(rows)))
    monkeypatch.setattr(Moments, "reduction", lambda self, wanted: 1 / 0)
    own = {"texts": texts(200, longest=20), "labels": [0, 1] * 100}
    with pytest.raises(ZeroDivisionError):
        spacelite.embed(backbone=bert, cache_dir=tmp_path, reduce=2, progress=False, **own)
    assert 4 * WIDTH <= sum(asked) < 4 * WIDTH + 22
    assert not list(tmp_path.glob("embeddings/*.h5"))


def test_an_interrupted_cache_keeps_its_axes(reduced, bert, reviews, tmp_path, monkeypatch):
    again = run(tmp_path / "again", bert, reviews, dtype="float32", reduce=AXES)
    assert digest(again.path) == digest(reduced)
    with Cache(again.path) as cache:
        layers = cache.layers.file.path
    before = digest(layers)
    monkeypatch.setattr(filling, "fitted", lambda *arguments: 1 / 0)
    with Writer(again.path, layers=True) as writer:
        for example in range(0, 60, 7):
            writer.unmark("train", example)
            writer.unmark("train", example, "means")
    done = run(tmp_path / "again", bert, reviews, dtype="float32", reduce=AXES)
    assert not done.hit and digest(done.path) == digest(reduced) and digest(layers) == before
    assert run(tmp_path / "again", bert, reviews, dtype="float32", reduce=AXES).hit


def test_each_layer_has_axes_of_its_own(bert, reviews, tmp_path):
    several = run(tmp_path / "a", bert, reviews, layer=[-1, 1], reduce=3)
    alone = [run(tmp_path / "b", bert, reviews, layer=layer, reduce=3) for layer in (-1, 1)]
    paths = [several.path, several.others[0].path]
    assert [*map(digest, paths)] == [digest(done.path) for done in alone]
    with Cache(paths[0]) as last, Cache(paths[1]) as inner:
        assert str(last.reduction) != str(inner.reduction)


def test_nothing_is_copied_from_a_cache_with_other_axes(reduced, bert, reviews, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(reduced.parent.parent, folder)
    split = data.read(str(reviews)).splits["train"]
    own = {"texts": split.texts[:40], "labels": split.labels[:40].tolist()}
    options = {"cache_dir": folder, "dtype": "float32", "progress": False}
    other = spacelite.embed(backbone=bert, reduce=AXES, **own, **options)
    assert not other.copied
    with other.open() as cache, Cache(reduced) as first:
        assert str(cache.reduction) != str(first.reduction)


def test_specs_without_a_reduction_are_as_before(cache_path):
    with Cache(cache_path) as cache:
        assert cache.reduction is None and "reduce" not in cache.spec.as_json()
        assert CacheSpec.from_json(cache.spec.as_json()) == cache.spec


@pytest.mark.parametrize("dtype", ["int4", "int8", "float16", "bfloat16"])
def test_every_stored_type_holds_them(dtype, reduced, bert, reviews, tmp_path):
    axes = AXES - (dtype == "int4")  # which needs an even number
    done = run(tmp_path, bert, reviews, dtype=dtype, reduce=axes, layers=False)
    assert (done.rounded is not None) == (dtype in ("int4", "int8"))
    with Cache(done.path) as cache, Cache(reduced) as exact:
        found, expected = (c.splits["test"].read_hidden(0, 20) for c in (cache, exact))
        limit = np.abs(expected).max() / (7 if dtype == "int4" else 120)
        np.testing.assert_allclose(found, expected[:, :axes], atol=limit)


# Refusals and damage.


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "reduce=0: give a whole number of at least 1, or auto"),
        (17, "reduce=17: the hidden states of tiny-bert have 16 dimensions: give a smaller number"),
        ("many", "reduce='many': give a whole number, or 'auto'"),
        (2.5, "reduce=2.5: give a whole number, or 'auto'"),
    ],
)
def test_numbers_that_cannot_be_are_refused(value, expected, bert, reviews, tmp_path):
    options = {"backbone": bert, "cache_dir": tmp_path, "progress": False}
    assert refusal(spacelite.embed, str(reviews), reduce=value, **options) == expected
    assert not list(tmp_path.glob("embeddings/*.h5"))


def test_too_few_tokens_are_refused(bert, tmp_path):
    own = {"train": (["good", "bad", "film"], [0, 1, 0]), "validation": (["a", "the"], [0, 1])}
    options = {"backbone": bert, "cache_dir": tmp_path, "progress": False}
    message = refusal(spacelite.embed, own, reduce=2, **options)
    assert "train tokens are too few for the axes of 16 dimensions: leave it out" in message


def test_a_damaged_axis_is_seen(reduced, tmp_path):
    path = tmp_path / reduced.name
    for name in ("", "seal"):
        shutil.copy(side_file(reduced, name) if name else reduced, tmp_path)
    with h5py.File(path) as file:
        offset = file["reduction/axes"].id.get_offset()
    flip_byte(path, offset + 5)
    assert "do not match their checksum" in refusal(Cache, path)


# Heads.


@pytest.fixture(scope="module")
def trained(bert, tmp_path_factory):
    """A cache on four axes, and runs of it."""
    own = [f"film {text}" for text in texts(80, longest=20)]
    cache = spacelite.embed(
        texts=own, labels=[0, 1] * 40, backbone=bert, cache_dir=tmp_path_factory.mktemp("runs"),
        reduce=4, progress=False,
    )  # fmt: skip
    runs = spacelite.train(
        cache, head=["space", "additive", "logreg", "tfidf"], blocks="layers+ngrams+space",
        epochs=2, progress=False,
    )  # fmt: skip
    return cache, runs


def test_runs_apply_the_axes_to_new_texts(trained, tmp_path):
    cache, runs = trained
    validation = cache["validation"]
    for saved in runs:
        found = saved.predict(validation.texts, progress=False)
        expected = saved.record.task.probabilities(saved.run.predictions().logits)
        np.testing.assert_allclose(found.probabilities, expected, atol=2e-3)
        assert (saved.run.reduction is None) == (saved.record.head.kind == "tfidf")
    for saved in [saved for saved in runs if saved.record.head.kind in ("space", "additive")]:
        for shown in (
            saved.explain(validation.texts[0], progress=False),
            saved.explain(example="validation:0", progress=False),
        ):
            assert shown.explanation.difference < 1e-2
    # A run's folder is all that a prediction needs.
    moved = spacelite.load_run(shutil.copytree(runs[0].run.folder, tmp_path / runs[0].id))
    before = runs[0].predict(["film good"], progress=False).probabilities
    np.testing.assert_array_equal(
        moved.predict(["film good"], progress=False).probabilities, before
    )


def test_other_data_are_evaluated_on_the_axes_of_the_run(trained):
    cache, runs = trained
    new = [f"film {text}" for text in texts(20, seed=3, longest=20)]
    for saved in runs:
        evaluated = saved.evaluate({"test": (new, ["0", "1"] * 10)}, progress=False)
        given = np.ravel(saved.predict(new, progress=False).labels)
        accuracy = np.mean(given == np.array(["0", "1"] * 10))
        assert evaluated.metrics["test"]["accuracy"] == pytest.approx(accuracy)
    options = {"backbone": cache.backbone, "cache_dir": cache.cache_dir, "progress": False}
    others = {"texts": texts(60, seed=5), "labels": [0, 1] * 30, "name": "others"}
    for reduce, words in ((4, "reduced to 4 of 16 dimensions, which keep "), (None, "whole")):
        other = spacelite.embed(reduce=reduce, **others, **options)
        message = refusal(runs[0].evaluate, cache=other, progress=False)
        assert "have different hidden states: those of the run are reduced to 4 of 16" in message
        assert f"those of the cache {words}" in message


def test_a_run_without_its_axes_is_damaged(trained, tmp_path):
    from safetensors.numpy import load_file, save_file

    _, runs = trained
    folder = shutil.copytree(runs[0].run.folder, tmp_path / runs[0].id)
    arrays = load_file(folder / "head.safetensors")
    del arrays["reduction.axes"]
    save_file(arrays, folder / "head.safetensors")
    content = json.loads((folder / "run.json").read_text())
    del content["checksum"], content["checksums"]
    (folder / "run.json").write_text(json.dumps(content))
    message = refusal(spacelite.load_run(folder).predict, ["good"], progress=False)
    assert "head.safetensors is damaged (" in message and "axes" in message


def test_the_pooler_is_refused_and_studies_work(trained):
    cache, _ = trained
    message = refusal(spacelite.train, cache, head="linear", pooling="pooler", progress=False)
    assert message == (
        "this cache, which is reduced, has no pooler's outputs: use pooling=first, last or mean"
    )
    crossed = spacelite.cross_validate(
        cache, head=["space", "logreg"], folds=2, epochs=1, progress=False
    )
    assert "space" in str(crossed)
    curve = spacelite.learning_curve(
        cache, head="logreg", pooling="layers", sizes=[20, 40], progress=False
    )
    assert "logreg" in str(curve)


# The command line.


def test_the_command_line_reduces_and_says_so(bert, reviews, tmp_path):
    def command(*arguments):
        done = invoke(*arguments, "--cache-dir", tmp_path)
        return done.exit_code, " ".join(done.output.split())

    embed = ("embed", "--backbone", bert, "--dataset", reviews)
    code, output = command(*embed, "--reduce", "auto")
    assert code == 0, output
    (path,) = tmp_path.glob("embeddings/*.h5")
    with Cache(path) as cache:
        words, count = cache.reduction.words, cache.reduction.dimensions
        kept = cache.reduction.kept
    assert f"reduced to {words}" in output and kept >= 0.99
    assert f"reduced to {words}" in command("cache", "info", path.stem)[1]
    shown = json.loads(command("cache", "info", path.stem, "--json")[1])
    assert shown["reduced"] == {"dimensions": count, "of": WIDTH, "kept": kept}
    assert f"({count} dimensions)" in command("cache", "list")[1]
    assert command("train", "--epochs", 1, "--no-baselines")[0] == 0
    assert f"Hidden states are reduced to {words}." in command("report")[1]
    code, output = command(*embed, "--reduce", "many")
    assert code == 1 and "--reduce many: give a whole number, or 'auto'" in output


def test_a_reduction_of_other_arrays_is_refused():
    good = {"mean": np.zeros(4), "axes": np.ones((2, 4)), "shares": np.ones(2)}
    assert Reduction.of(good).dimensions == 2
    for name, value in (
        ("mean", np.zeros(3)), ("shares", np.ones(4)), ("axes", np.full((2, 4), np.inf)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="of its reduction"):
            Reduction.of({**good, name: value})
