"""Heads on the means of all layers: against scikit-learn and torch, resumed, saved, predicted,
evaluated on other data, and refused where there are no means."""

import numpy as np
import pytest
import torch
from conftest import invoke, refusal, write_dataset
from test_embedding import run as embed
from test_layers import layer_states

import spacelite
from spacelite import heads
from spacelite.backbones.files import locate
from spacelite.backbones.tokenizer import from_ids, tokenize
from spacelite.cache import store
from spacelite.cache.split import Dataset
from spacelite.data import loading as data
from spacelite.heads.base import Objective
from spacelite.tasks import SINGLE_LABEL
from spacelite.training import loop, memory
from spacelite.training.config import TrainingConfig

LINEAR = heads.config("linear", pooling="layers", learning_rate=0.01)
LOGREG = heads.config("logreg", pooling="layers")
MLP = heads.config("mlp", pooling="layers")
TRAINING = TrainingConfig(epochs=3, batch_size=16)
QUIET = {"progress": False, "device": "cpu"}


@pytest.fixture
def without(bert, reviews, tmp_path):
    """A cache without layer means."""
    return embed(tmp_path, bert, reviews, layers=False).path


def means(path, split):
    """(N, layers * d) float64."""
    with store.Cache(path) as cache:
        return cache.splits[split].layer_means.astype(np.float64)


def test_logits_are_one_linear_layer_on_the_stored_means(cache_path):
    with store.Cache(cache_path) as cache:
        results = loop.train(cache, [LINEAR, LOGREG, MLP], TRAINING)
    for result in results[:2]:
        weight, bias = (result.parameters[f"classifier.{name}"] for name in ("weight", "bias"))
        assert weight.shape == (2, 48)
        expected = means(cache_path, "test") @ weight.double().numpy().T + bias.double().numpy()
        np.testing.assert_allclose(result.logits["test"], expected, atol=1e-4)
    assert results[2].parameters["pre_classifier.weight"].shape == (48, 48)


def test_logreg_is_that_of_scikit_learn(cache_path):
    from sklearn.linear_model import LogisticRegression

    with store.Cache(cache_path) as cache:
        (result,) = loop.train(cache, [LOGREG], TRAINING)
        labels = cache.splits["train"].labels
    model = LogisticRegression(max_iter=1000).fit(means(cache_path, "train"), labels)
    expected = model.predict_proba(means(cache_path, "test"))
    found = SINGLE_LABEL.probabilities(result.logits["test"].numpy())
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_one_epoch_equals_plain_torch(cache_path):
    config = heads.config("linear", pooling="layers", learning_rate=0.01, weight_decay=0.0)
    training = TrainingConfig(epochs=1, batch_size=60)
    with store.Cache(cache_path) as cache:
        (result,) = loop.train(cache, [config], training)
        labels = torch.from_numpy(cache.splits["train"].labels)
    start = heads.kind("linear").initial(config, 2, 48)
    weight = start["classifier.weight"].double().requires_grad_()
    bias = start["classifier.bias"].double().requires_grad_()
    adam = torch.optim.Adam([weight, bias], lr=0.01)
    logits = torch.from_numpy(means(cache_path, "train")) @ weight.T + bias
    torch.nn.functional.cross_entropy(logits, labels).backward()
    adam.step()
    found = result.parameters
    np.testing.assert_allclose(found["classifier.weight"], weight.detach(), atol=1e-5)
    np.testing.assert_allclose(found["classifier.bias"], bias.detach(), atol=1e-5)


def test_means_are_read_once_and_their_checksums_checked(cache_path, monkeypatch):
    reads = []
    real = Dataset.read
    monkeypatch.setattr(
        Dataset, "read", lambda *arguments: reads.append(arguments) or real(*arguments)
    )
    with store.Cache(cache_path) as cache:
        configs = [LINEAR, LOGREG, heads.config("linear", pooling="layers", seed=1)]
        loop.train(cache, configs, TRAINING)
    assert len(reads) == 3  # one for each split


def test_other_heads_read_no_means(cache_path, monkeypatch):
    monkeypatch.setattr(Dataset, "read", None)
    with store.Cache(cache_path) as cache:
        loop.train(cache, [heads.config("linear", pooling="mean")], TRAINING)


def test_a_cache_without_means_is_refused_with_the_way_out(without, bert, reviews, tmp_path):
    with store.Cache(without) as cache:
        message = refusal(loop.train, cache, [LINEAR], TRAINING)
        loop.train(cache, [heads.config("space")], TRAINING)
    assert message == (
        f"cache {without.stem} has no layer means: run its embed command again with layers=True "
        "to add them"
    )
    arguments = ["--cache-dir", tmp_path, "--head", "linear,logreg", "--pooling", "layers",
                 "--epochs", 2]  # fmt: skip
    result = invoke("train", *arguments)
    assert result.exit_code == 1 and "embed command again with --layers to add" in result.stderr
    added = invoke(
        "embed", "--backbone", bert, "--dataset", reviews, "--cache-dir", tmp_path, "--layers"
    )
    assert added.exit_code == 0
    result = invoke("train", *arguments, "--json")  # the table breaks long names
    assert result.exit_code == 0, result.stderr
    assert "linear (layers)" in result.stdout and "logreg (layers)" in result.stdout
    report = invoke("report", "--cache-dir", tmp_path, "--backbone", bert, "--json")
    assert report.exit_code == 0 and "linear (layers)" in report.stdout


def test_interrupted_training_ends_with_the_same_weights(cache_path, tmp_path):
    class Stop(Exception):
        pass

    configs, ticks = [LINEAR, MLP], []

    def interrupt(done, total):
        ticks.append(done)
        if done > 0.5 * total:
            raise Stop

    with store.Cache(cache_path) as cache:
        whole = loop.train(cache, configs, TRAINING)
        with pytest.raises(Stop):
            loop.train(cache, configs, TRAINING, cache_dir=tmp_path, on_progress=interrupt)
        again = loop.train(cache, configs, TRAINING, cache_dir=tmp_path, resume=True)
    for one, other in zip(whole, again, strict=True):
        for name, value in one.parameters.items():
            assert torch.equal(value, other.parameters[name])


@pytest.mark.parametrize("padding", ["none", "max_length"])
def test_texts_get_the_logits_of_their_cached_means(padding, bert, reviews, tmp_path):
    cache = spacelite.embed(
        reviews, backbone=bert, cache_dir=tmp_path, padding=padding, max_length=40, **QUIET
    )
    runs = spacelite.train(cache, head=["linear", "logreg", "mlp"], pooling="layers", epochs=2,
                           **QUIET)  # fmt: skip
    texts = data.read(str(reviews)).splits["test"].texts
    for run in runs:
        loaded = spacelite.load_run(run.id, tmp_path)
        found = loaded.predict(texts, backbone=bert, **QUIET).probabilities
        logits = run.run.predictions().logits
        np.testing.assert_allclose(found, SINGLE_LABEL.probabilities(logits), atol=1e-4)
        one = loaded.predict(texts[3:4], backbone=bert, **QUIET).probabilities
        np.testing.assert_allclose(one, found[3:4], atol=1e-4)
        shortest = loaded.predict(["film"], backbone=bert, **QUIET).probabilities
        assert np.isfinite(shortest).all()


def test_eval_embeds_other_data_with_their_means(bert, reviews, tmp_path):
    cache = spacelite.embed(reviews, backbone=bert, cache_dir=tmp_path, **QUIET)
    (run,) = spacelite.train(cache, head="logreg", pooling="layers", **QUIET)
    other = write_dataset(tmp_path / "other", {"train": 30, "validation": 10, "test": 10})
    bare = spacelite.embed(other, backbone=bert, cache_dir=tmp_path, layers=False, **QUIET)
    message = refusal(run.evaluate, cache=bare, **QUIET)
    assert message.startswith(f"cache {bare.name} has no layer means")
    result = run.evaluate(other, backbone=bert, **QUIET)
    with bare.open() as opened:
        labels = opened.splits["test"].labels
    weight, bias = (run.run.parameters[f"classifier.{name}"] for name in ("weight", "bias"))
    predicted = (means(bare.path, "test") @ weight.T + bias).argmax(axis=1)
    assert result.metrics["test"]["accuracy"] == pytest.approx((predicted == labels).mean())


@pytest.mark.parametrize("padding", ["none", "max_length"])
@pytest.mark.parametrize("kind", ["bert", "xlnet"])
def test_shares_are_exact(kind, padding, request, reviews, tmp_path):
    """Against plain transformers: W x_t / n for the hidden states of all layers side by side."""
    backbone = request.getfixturevalue(kind)
    cache = spacelite.embed(
        reviews, backbone=backbone, cache_dir=tmp_path, padding=padding, max_length=40, **QUIET
    )
    runs = spacelite.train(cache, head=["linear", "logreg"], pooling="layers", epochs=2,
                           learning_rate=0.05, **QUIET)  # fmt: skip
    texts = data.read(str(reviews)).splits["test"].texts
    for run in runs:
        weight, bias = (
            run.run.parameters[f"classifier.{name}"].astype(np.float64)
            for name in ("weight", "bias")
        )
        for number in (0, 3, 7):
            states = np.concatenate(layer_states(backbone, texts[number], 40), axis=1)
            expected = states @ weight.T / len(states)
            of_text = run.explain(texts[number], backbone=backbone, device="cpu").explanation
            cached = run.explain(
                example=f"test:{number}", backbone=backbone, device="cpu"
            ).explanation
            for found in (of_text, cached):
                assert found.difference < 1e-5
                shares = np.zeros((sum(len(word.tokens) for word in found.words), 2))
                for word in found.words:
                    of_word = np.array(word.contributions)
                    shares[word.tokens] = of_word / len(word.tokens)
                assert np.allclose(shares.sum(axis=0) + bias, found.logits, atol=1e-5)
                own = np.flatnonzero(np.abs(shares).sum(axis=1))
                assert len(own) == len(states)
                np.testing.assert_allclose(shares.sum(axis=0), expected.sum(axis=0), atol=1e-4)
                single = [word.tokens[0] for word in found.words if len(word.tokens) == 1]
                single = [one for one in single if one in own]
                np.testing.assert_allclose(
                    shares[single], expected[np.array(single) - own[0]], atol=1e-4
                )
            np.testing.assert_allclose(of_text.logits, cached.logits, atol=1e-5)
            saved = run.run.predictions().logits[number]
            assert cached.layer_difference == pytest.approx(np.abs(saved - cached.logits).max())
            assert 0 < of_text.layer_difference < 0.02


def test_explain_says_what_was_computed_again(bert, reviews, tmp_path):
    cache = spacelite.embed(reviews, backbone=bert, cache_dir=tmp_path, **QUIET)
    (run,) = spacelite.train(cache, head="linear", pooling="layers", epochs=1, **QUIET)
    options = ["--cache-dir", tmp_path, "--backbone", bert]
    again = "The hidden states of all layers were computed again; logits from means"
    for what in (["a good film"], ["--example", "test:3"]):
        result = invoke("explain", run.id, *what, *options, "--html", tmp_path / "page.html")
        assert result.exit_code == 0, result.stderr
        assert again in " ".join(result.stdout.split())
        assert again in " ".join((tmp_path / "page.html").read_text().split())
    # A report would have to compute them for a whole split: it leaves words out.
    report = spacelite.report(run, backbone=bert, progress=False)
    assert "linear (layers)" in str(report)


def test_segments_and_masks_of_known_ids_are_those_of_the_tokenizer(bert, xlnet, reviews):
    texts = data.read(str(reviews)).splits["test"].texts
    for folder in (bert, xlnet):
        files = locate(str(folder))
        for padding in ("none", "max_length"):
            tokens = tokenize(files, texts, max_length=40, padding=padding)
            for number, ids in enumerate(tokens.ids):
                found = from_ids(files, ids, max_length=40, padding=padding)
                np.testing.assert_array_equal(found.type_ids[0], tokens.type_ids[number])
                if padding == "none":
                    assert found.masks is None
                else:
                    np.testing.assert_array_equal(found.masks[0], tokens.masks[number])


def test_the_memory_of_the_means_is_estimated(cache_path):
    with store.Cache(cache_path) as cache:
        mean = heads.config("linear", pooling="mean")
        few = memory.needed([mean], cache, TRAINING, "cpu")
        many = memory.needed([mean], cache, TRAINING, "cpu", 48)
        assert many - few >= 100 * 48 * 2
        wide = memory.needed([LINEAR], cache, TRAINING, "cpu", 48)
    assert wide > many


def test_the_objective_is_the_same_for_any_width():
    """A head's width is that of what it reads, not of the hidden states."""
    assert LINEAR.reads_layers and LINEAR.input_width(16, 112) == 112
    assert not MLP.__class__(pooling="mean").reads_layers
    assert heads.config("space").input_width(16, 112) == 16
    assert Objective(SINGLE_LABEL, 2).classes == 2
