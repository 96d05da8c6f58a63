"""Weights of examples in a training: against scikit-learn, against repeating examples, and against
heads with weights of their own; and trainings on examples in memory, without a validation split."""

import numpy as np
import pytest
import torch
from conftest import in_memory, refusal
from sklearn.linear_model import LogisticRegression

from spacelite import heads
from spacelite.cache.store import Cache
from spacelite.heads import logistic
from spacelite.heads.base import Objective
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL
from spacelite.training import loop
from spacelite.training.batches import ArrayData, TokenSplit
from spacelite.training.config import TrainingConfig
from spacelite.training.loop import Member, Part, train_weighted

TRAINING = TrainingConfig(epochs=3, batch_size=16)
SPACE = heads.config("space", learning_rate=0.02, inter=0.1, intra=1e-4)


@pytest.fixture(scope="module")
def cache(cache_path):
    with Cache(cache_path) as opened:
        yield opened


@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("several", [False, True])
def test_logistic_regression_against_scikit_learn(kind, several):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(150, 6)) * (random.random((150, 6)) < 0.6)
    weights = random.uniform(0, 3, 150)
    weights[random.random(150) < 0.3] = 0
    labels = random.integers(0, 2, (150, 3)) if several else random.integers(0, 3, 150)
    task = MULTI_LABEL if several else SINGLE_LABEL
    from scipy.sparse import csr_array

    own = csr_array(inputs) if kind == "sparse" else inputs
    problems = logistic.Problems(task.problems(labels, 3), 3, weights=weights)
    found = logistic.fit(own, problems, 0.7)
    columns = labels.T if several else [labels]
    models = [
        LogisticRegression(C=0.7, tol=1e-10, max_iter=5000).fit(inputs, one, weights)
        for one in columns
    ]
    expected = np.concatenate([model.coef_ for model in models])
    np.testing.assert_allclose(found.weight, expected, atol=2e-4)
    biases = np.concatenate([model.intercept_ for model in models])
    np.testing.assert_allclose(found.bias - found.bias.mean(), biases - biases.mean(), atol=5e-4)


@pytest.mark.parametrize(
    "config",
    [
        heads.config("logreg", pooling="mean", C=0.5),
        heads.config("logreg", pooling="mean", C="auto"),
        heads.config("tfidf", C=3.0),
        heads.config("additive", blocks="mean+ngrams"),
    ],
    ids=lambda config: config.name,
)
def test_heads_that_are_fitted_at_once(config, cache):
    """A weight of 0 leaves an example out: so does leaving it out of the data. Other weights
    change what is found."""
    split = cache.splits["train"]
    weights = (np.arange(len(split)) % 3 != 0).astype(float)
    objective, kind = Objective(SINGLE_LABEL, 2), heads.kind(config.kind)
    (masked,) = loop.train(cache, [config], TRAINING, weights=weights)
    smaller = TokenSplit(in_memory(split, np.flatnonzero(weights)))
    expected = kind.fit(config, smaller, objective, "none")
    for name, value in expected.parameters.items():
        torch.testing.assert_close(masked.parameters[name], value, rtol=1e-4, atol=1e-5)
    (heavy,) = loop.train(
        cache, [config], TRAINING, weights=weights * (1 + 9 * (split.labels == 1))
    )
    assert (heavy.logits["validation"][:, 1] - heavy.logits["validation"][:, 0]).mean() > (
        masked.logits["validation"][:, 1] - masked.logits["validation"][:, 0]
    ).mean()


def test_double_weights_are_examples_twice(cache):
    """With a penalty that is given, and without what counts texts."""
    split = cache.splits["train"]
    config = heads.config("logreg", pooling="mean", C=0.5)
    weights = 1.0 + (np.arange(len(split)) % 4 == 0)
    twice = np.repeat(np.arange(len(split)), weights.astype(int))
    objective = Objective(SINGLE_LABEL, 2)
    kind = heads.kind("logreg")
    found = kind.fit(config, Part(TokenSplit(in_memory(split)), weights), objective, "balanced")
    expected = kind.fit(config, TokenSplit(in_memory(split, twice)), objective, "balanced")
    for name, value in expected.parameters.items():
        torch.testing.assert_close(found.parameters[name], value, rtol=2e-2, atol=1e-3)


def test_epochs_with_weights(cache):
    """As a head with weights of its own, which is tested against autograd."""
    weights = np.random.default_rng(1).uniform(0.1, 3, len(cache.splits["train"]))
    (found,) = loop.train(cache, [SPACE], TRAINING, weights=weights)
    (expected,) = train_weighted(cache, [Member(SPACE, weights)], TRAINING)
    for name, value in expected.parameters.items():
        torch.testing.assert_close(found.parameters[name], value)
    # Figures count each example once.
    (plain,) = loop.train(cache, [SPACE], TRAINING)
    assert found.metrics["test"]["accuracy"] is not None
    assert found.metrics["train"] != plain.metrics["train"]


def test_the_scale_of_weights_is_a_strength_or_nothing(cache):
    weights = np.random.default_rng(1).uniform(0.1, 3, len(cache.splits["train"]))

    def trained(config, scale):
        (head,) = loop.train(cache, [config], TRAINING, weights=scale * weights)
        return head.parameters

    def logreg(strength):
        return heads.config("logreg", pooling="mean", C=strength)

    for one, other in (
        (trained(SPACE, 1), trained(SPACE, 4)),
        (trained(logreg(2.0), 1), trained(logreg(0.5), 4)),
    ):
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-5)
    assert any(
        not torch.allclose(value, trained(logreg(2.0), 4)[name], rtol=0.05)
        for name, value in trained(logreg(2.0), 1).items()
    )


def test_weights_of_one_change_nothing(cache):
    (plain,) = loop.train(cache, [SPACE], TRAINING)
    (ones,) = loop.train(cache, [SPACE], TRAINING, weights=np.ones(len(cache.splits["train"])))
    for name, value in plain.parameters.items():
        torch.testing.assert_close(ones.parameters[name], value)


def test_examples_of_weight_0_are_in_no_batch(cache):
    """As if they had been left out of every epoch's order."""
    split = cache.splits["train"]
    weights = (np.arange(len(split)) % 3 != 0).astype(float)
    kept = np.flatnonzero(weights)
    (found,) = loop.train(
        cache, [SPACE], TrainingConfig(epochs=2, batch_size=1000), weights=weights
    )
    data = ArrayData({"train": in_memory(split, kept)}, cache.label_names)
    (expected,) = loop.train(data, [SPACE], TrainingConfig(epochs=2, batch_size=1000))
    for name, value in expected.parameters.items():
        torch.testing.assert_close(found.parameters[name], value, rtol=1e-3, atol=1e-5)


SPACE_ON_OTHERS = heads.config(
    "additive", blocks="mean+ngrams+space", ensemble=2, learning_rate=0.01
)


@pytest.mark.parametrize("config", [SPACE, SPACE_ON_OTHERS], ids=["space", "additive"])
def test_without_a_validation_split(config, cache):
    """All epochs are trained, with the result of a training that has one."""
    data = ArrayData({"train": in_memory(cache.splits["train"])}, cache.label_names)
    (found,) = loop.train(data, [config], TRAINING)
    (expected,) = loop.train(cache, [config], TRAINING)
    assert all("validation" not in entry for entry in found.history)
    assert len(found.history) == len(expected.history)
    for name, value in expected.parameters.items():
        torch.testing.assert_close(found.parameters[name], value)


def test_a_head_on_others_with_weights(cache):
    weights = np.where(np.arange(len(cache.splits["train"])) % 3 == 0, 0, 1.0)
    (found,) = loop.train(cache, [SPACE_ON_OTHERS], TRAINING, weights=weights)
    (plain,) = loop.train(cache, [SPACE_ON_OTHERS], TRAINING)
    assert np.isfinite(found.logits["test"].numpy()).all()
    assert not np.allclose(found.logits["test"].numpy(), plain.logits["test"].numpy())


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_bad_weights(value, cache):
    weights = np.full(len(cache.splits["train"]), value, float)
    message = refusal(loop.train, cache, [SPACE], TRAINING, weights=weights)
    assert "at least 0" in message


@pytest.mark.parametrize("shape", [(3,), (60, 1), ()])
def test_weights_of_another_shape(shape, cache):
    message = refusal(loop.train, cache, [SPACE], TRAINING, weights=np.ones(shape))
    assert str(shape) in message
