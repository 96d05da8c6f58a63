"""The training loop against plain PyTorch; alone or among others, diverging, streamed."""

import itertools
import logging
import math

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as sk

from spacelite import batches, store, training
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadSettings, initial_parameters
from spacelite.training import PassSettings, train

HEADS = [
    HeadSettings(kind="space", seed=0, latent=3, inter=0.2, intra=0.001, learning_rate=0.01),
    HeadSettings(kind="space", seed=1, latent=3, inter=0.0, intra=0.0, learning_rate=0.003),
    HeadSettings(kind="space", seed=0, latent=5, inter=0.2, intra=0.0, learning_rate=0.01),
    HeadSettings(kind="linear", seed=0, pooling="first", learning_rate=0.01, weight_decay=0.1),
    HeadSettings(kind="linear", seed=2, pooling="mean", learning_rate=0.01),
    HeadSettings(kind="linear", seed=1, pooling="pooler", learning_rate=0.01),
]
SHARED = PassSettings(epochs=3, batch_size=16, data_seed=3)


@pytest.fixture(scope="module")
def cache(cache_path):
    with store.Cache(cache_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def trained(cache):
    return train(cache, HEADS, SHARED)


def read(path, split):
    """A split as plain numpy, without the library: a list of (n_i, d), and labels."""
    with h5py.File(path) as file:
        group = file[split]
        tokens, offsets = group["tokens"][...].astype(np.float64), group["offsets"][...]
        parts = [tokens[a:b] for a, b in itertools.pairwise(offsets)]
        return parts, group["labels"][...], group["pooled"][...]


def plain_loss(parameters, settings, parts, labels, pooled):
    """Loss, CE and logits of a batch by the formulas, differentiable."""
    classifier = parameters["classifier.weight"], parameters["classifier.bias"]
    labels = torch.as_tensor(labels)
    parts = [torch.as_tensor(part) for part in parts]
    if settings.kind == "linear":
        pool = {"first": lambda x: x[0], "last": lambda x: x[-1], "mean": lambda x: x.mean(dim=0)}
        features = (
            torch.as_tensor(pooled) if settings.pooling == "pooler"
            else torch.stack([pool[settings.pooling](part) for part in parts])
        )  # fmt: skip
        logits = F.linear(features.to(classifier[0].dtype), *classifier)
        ce = F.cross_entropy(logits, labels)
        return ce, ce, logits
    s = [torch.tanh(torch.einsum("cld,td->tcl", parameters["concept_spaces"], x)) for x in parts]
    logits = F.linear(torch.stack([x.mean(dim=0).flatten() for x in s]), *classifier)
    ce = F.cross_entropy(logits, labels)
    match = torch.cat([x[:, y].flatten() for x, y in zip(s, labels, strict=True)])
    other = torch.cat([
        x[:, c].flatten() for x, y in zip(s, labels, strict=True)
        for c in range(x.shape[1]) if c != y
    ])  # fmt: skip
    spread = [(1 / (x.var(dim=0) + 1e-9)).sum() for x in s if len(x) > 1]
    loss = ce + settings.inter * ((1 - match).mean() + (1 + other).mean()) / 2
    return loss + settings.intra * sum(spread) / max(len(spread), 1), ce, logits


@pytest.mark.parametrize("index", [0, 1, 2, 3, 4])
def test_training_equals_a_plain_loop_with_autograd_and_torch_adam(index, cache, trained):
    """The whole protocol again in float64: order of the data, loss, Adam, weight decay."""
    settings = HEADS[index]
    parts, labels, pooled = read(cache.path, "train")
    parameters = {
        name: value.double().requires_grad_()
        for name, value in initial_parameters(settings, 2, 16).items()
    }
    adam = torch.optim.Adam(
        parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    order = torch.Generator().manual_seed(SHARED.data_seed)
    for epoch in range(SHARED.epochs):
        losses = []
        for rows in torch.randperm(len(parts), generator=order).split(SHARED.batch_size):
            loss, _, _ = plain_loss(
                parameters, settings, [parts[i] for i in rows], labels[rows], pooled[rows]
            )
            adam.zero_grad()
            loss.backward()
            adam.step()
            losses.append(loss.item() * len(rows))
        measured = trained[index].history[epoch]["train"]["loss"]
        assert measured == pytest.approx(sum(losses) / len(parts), rel=1e-4)
    for name, value in parameters.items():
        torch.testing.assert_close(
            trained[index].parameters[name].double(), value.detach(), rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("index", range(len(HEADS)))
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_final_metrics_follow_from_the_weights_and_the_file(index, split, cache, trained):
    head = trained[index]
    parameters = {name: value.double() for name, value in head.parameters.items()}
    parts, labels, pooled = read(cache.path, split)
    loss, ce, logits = plain_loss(parameters, head.settings, parts, labels, pooled)
    guesses = logits.argmax(dim=1)
    expected = {
        "loss": loss.item(),
        "ce": ce.item(),
        "accuracy": sk.accuracy_score(labels, guesses),
        "f1_macro": sk.f1_score(labels, guesses, average="macro"),
        "precision": sk.precision_score(labels, guesses, zero_division=0),
        "recall": sk.recall_score(labels, guesses),
    }
    assert head.metrics[split] == pytest.approx(expected, abs=1e-4)


def test_history_has_train_and_validation_metrics_after_every_epoch(trained):
    for head in trained:
        assert [entry["epoch"] for entry in head.history] == [1, 2, 3]
        for entry in head.history:
            for split in ("train", "validation"):
                assert set(entry[split]) == set(training.metrics.METRICS)
        assert head.history[-1]["validation"] == pytest.approx(head.metrics["validation"])


@pytest.mark.parametrize("index", range(len(HEADS)))
def test_alone_or_among_others_the_same_head(index, cache, trained):
    (alone,) = train(cache, [HEADS[index]], SHARED)
    for name, value in alone.parameters.items():
        torch.testing.assert_close(value, trained[index].parameters[name], rtol=1e-4, atol=1e-6)


def test_same_settings_same_bytes(cache, trained):
    again = train(cache, HEADS, SHARED)
    for one, two in zip(trained, again, strict=True):
        assert all(torch.equal(one.parameters[k], two.parameters[k]) for k in one.parameters)
        assert one.metrics == two.metrics and one.history == two.history


def test_from_memory_or_from_the_file_the_same_heads(cache, trained, monkeypatch, caplog):
    monkeypatch.setattr(batches, "_free_memory", lambda device: 0)
    streamed = train(cache, HEADS, SHARED)
    assert "train does not fit into memory" in caplog.text
    for one, two in zip(trained, streamed, strict=True):
        assert all(torch.equal(one.parameters[k], two.parameters[k]) for k in one.parameters)


def test_groups_of_any_size_give_the_same_heads(cache, trained, monkeypatch):
    monkeypatch.setattr(batches, "TOKENS_PER_GROUP", 20)
    grouped = train(cache, HEADS, SHARED)
    for one, two in zip(trained, grouped, strict=True):
        for name, value in one.parameters.items():
            torch.testing.assert_close(value, two.parameters[name], rtol=1e-3, atol=1e-5)


def test_a_diverging_head_is_stopped_and_named_and_the_others_stay_as_they_are(
    cache, trained, caplog
):
    wild = [
        HeadSettings(kind="space", seed=9, latent=3, inter=0.2, intra=0.0, learning_rate=1e38),
        HeadSettings(kind="linear", seed=9, pooling="pooler", learning_rate=1e38),
    ]
    with caplog.at_level(logging.WARNING, "spacelite"):
        heads = train(cache, [wild[0], *HEADS, wild[1]], SHARED)
    for head in (heads[0], heads[-1]):
        assert "its loss is" in head.stopped and not head.parameters
        assert f"{head.settings.description} is stopped" in caplog.text
        assert len(head.history) < SHARED.epochs + 1
    for one, two in zip(trained, heads[1:-1], strict=True):
        assert two.stopped is None
        for name, value in one.parameters.items():
            torch.testing.assert_close(value, two.parameters[name], rtol=1e-4, atol=1e-6)


def test_when_every_head_diverges_training_ends(cache):
    head = HeadSettings(kind="linear", pooling="mean", learning_rate=1e38)
    (stopped,) = train(cache, [head], SHARED)
    assert stopped.stopped and not stopped.metrics


@pytest.mark.parametrize("pooling", ["first", "last", "mean", "pooler"])
def test_features_are_the_pooled_tokens(pooling, cache):
    parts, _, pooled = read(cache.path, "test")
    expected = {
        "first": [x[0] for x in parts], "last": [x[-1] for x in parts],
        "mean": [x.mean(axis=0) for x in parts], "pooler": pooled,
    }[pooling]  # fmt: skip
    features = batches.TokenSplit(cache, "test").features(pooling)
    np.testing.assert_allclose(features, np.array(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("head", "shared", "problem"),
    [
        ({"learning_rate": 0.0}, {}, "--lr 0: give a number above 0"),
        ({"learning_rate": math.nan}, {}, "--lr nan: give a number above 0"),
        ({"weight_decay": -1.0}, {}, "--weight-decay -1: give 0 or a positive number"),
        ({"inter": -0.2}, {}, "--inter -0.2: give 0 or a positive number"),
        ({"intra": math.inf}, {}, "--intra inf: give 0 or a positive number"),
        ({"latent": 0}, {}, "--latent 0: give 1 to 10,000"),
        ({"kind": "forest"}, {}, "--head forest: choose from space, linear"),
        ({}, {"epochs": 0}, "--epochs 0: give at least 1"),
        ({}, {"data_seed": 10**20}, "--data-seed 100000000000000000000: give a number from 0"),
        ({}, {"batch_size": 0}, "--batch-size 0: give at least 1"),
    ],
)
def test_bad_settings_are_refused(head, shared, problem, cache):
    settings = HeadSettings(**{"kind": "space", "latent": 3, "inter": 0.0, "intra": 0.0, **head})
    with pytest.raises(SpaceliteError, match=problem):
        train(cache, [settings], PassSettings(**shared))


def test_unknown_pooling_and_missing_pooler_are_refused(cache, distilbert, reviews, tmp_path):
    from spacelite.embedding import embed

    with pytest.raises(SpaceliteError, match="--pooling max: choose from first, last, mean"):
        train(cache, [HeadSettings(kind="linear", pooling="max")], SHARED)
    path = embed(backbone=str(distilbert), dataset=str(reviews), cache_dir=tmp_path).path
    with store.Cache(path) as without, pytest.raises(SpaceliteError, match="has no pooler"):
        train(without, [HeadSettings(kind="linear", pooling="pooler")], SHARED)


def test_an_unfinished_cache_is_refused(cache_path, tmp_path):
    copy = tmp_path / cache_path.name
    copy.write_bytes(cache_path.read_bytes())
    with store.Writer(copy) as writer:
        writer.unmark("train", 3)
    with store.Cache(copy) as opened, pytest.raises(SpaceliteError, match="is unfinished"):
        train(opened, HEADS, SHARED)


def test_a_head_that_is_no_number_on_one_split_only_is_stopped(cache_path, tmp_path):
    copy = tmp_path / cache_path.name
    copy.write_bytes(cache_path.read_bytes())
    with h5py.File(copy, "r+") as file:
        file["test"]["tokens"][3, 0] = np.nan
    with store.Cache(copy) as opened:
        heads = train(opened, HEADS[:1], PassSettings(epochs=1))
    assert "nan (test) in the end" in heads[0].stopped


def test_progress_counts_every_token_that_is_read(cache):
    events = []
    train(cache, HEADS[:1], SHARED, on_progress=lambda *event: events.append(event))
    assert events[-1][0] == events[-1][1] and len({total for _, total in events}) == 1
