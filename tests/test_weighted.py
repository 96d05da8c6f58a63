"""Heads of one pass with weights of their own over the examples: against float64 autograd, against
training alone, and against leaving examples out of the data."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import in_memory, refusal

from spacelite import heads
from spacelite.cache.store import Cache
from spacelite.heads.base import Objective
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL
from spacelite.training import batches, loop
from spacelite.training.batches import ArrayData
from spacelite.training.config import TrainingConfig
from spacelite.training.loop import Member, train_weighted

TRAINING = TrainingConfig(epochs=3, batch_size=16, schedule="cosine")
SPACE = {"learning_rate": 0.02, "latent": 3}


@pytest.fixture(scope="module")
def cache(cache_path):
    with Cache(cache_path) as opened:
        yield opened


def space(**settings):
    return heads.config("space", **{**SPACE, **settings})


CONFIGS = [
    space(), space(inter=0.2), space(intra=0.01), space(inter=0.1, intra=0.02, seed=1),
    heads.config("linear", learning_rate=0.02, pooling="mean"),
    heads.config("mlp", learning_rate=0.01, pooling="mean", seed=2),
]  # fmt: skip


def masks(count, seed=0):
    """Folds, general weights, a bootstrap, a head that sees almost nothing, everything."""
    random = np.random.default_rng(seed)
    fold = random.integers(0, 3, count)
    few = np.zeros(count)
    few[random.choice(count, 5, replace=False)] = 1
    return [
        (fold != 0).astype(float), random.uniform(0, 2, count),
        np.bincount(random.integers(0, count, count), minlength=count).astype(float),
        few, np.ones(count), np.where(fold == 1, 0.5, 0),
    ]  # fmt: skip


def by_hand(cache, config, weights, training):
    """A space head that is trained in float64 by autograd on the examples of each batch that have a
    weight. Returns its parameters."""
    split = cache.splits["train"]
    hidden = split.read_hidden(0, len(split)).astype(np.float64)
    tokens = [
        torch.from_numpy(hidden[low:high])
        for low, high in zip(split.offsets[:-1], split.offsets[1:], strict=True)
    ]
    labels, classes = torch.from_numpy(split.labels), len(cache.label_names)
    start = heads.kind("space").initial(config, classes, split.width)
    own = {name: value.double().requires_grad_() for name, value in start.items()}
    optimizer = torch.optim.Adam(
        own.values(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    order = batches.open_splits(cache, "cpu")["train"]
    steps = -(-len(split) // training.batch_size)
    for epoch in range(1, training.epochs + 1):
        rows = order.shuffled(training.data_seed, epoch)
        for number in range(steps):
            chosen = rows[number * training.batch_size : (number + 1) * training.batch_size]
            chosen = [row for row in chosen.tolist() if weights[row] > 0]
            if not chosen:
                continue
            update = (epoch - 1) * steps + number
            factor = (1 + np.cos(np.pi * update / (training.epochs * steps))) / 2
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * factor
            weight = torch.tensor(weights[chosen])
            terms, match, other = [], [], []
            counts, intra, varying = [0.0, 0.0], [], 0.0
            for row, w in zip(chosen, weight, strict=True):
                s = torch.tanh(torch.einsum("cld,td->tcl", own["concept_spaces"], tokens[row]))
                logits = own["classifier.weight"] @ s.mean(dim=0).flatten()
                logits = logits + own["classifier.bias"]
                terms.append(w * F.cross_entropy(logits[None], labels[row][None]))
                mine = F.one_hot(labels[row], classes).bool()
                match.append(w * (1 - s[:, mine]).sum())
                other.append(w * (1 + s[:, ~mine]).sum())
                counts[0] += float(w) * s[:, mine].numel()
                counts[1] += float(w) * s[:, ~mine].numel()
                if len(s) > 1:
                    intra.append(w * (1 / (s.flatten(1).var(dim=0) + 1e-9)).sum())
                    varying += float(w)
            loss = torch.stack(terms).sum() / weight.sum()
            inter = sum(match) / counts[0] + sum(other) / counts[1]
            loss = loss + config.inter * inter / 2
            if config.intra and varying:
                loss = loss + config.intra * torch.stack(intra).sum() / varying
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: value.detach() for name, value in own.items()}


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("config", [space(inter=0.2), space(inter=0.1, intra=1e-4, seed=3)])
def test_against_float64_autograd(config, index, cache):
    count = len(cache.splits["train"])
    weights = masks(count)[index]
    members = [Member(space(seed=9), masks(count, 5)[2]), Member(config, weights)]
    found = train_weighted(cache, members, TRAINING)[1]
    expected = by_hand(cache, config, weights, TRAINING)
    for name, value in expected.items():
        torch.testing.assert_close(found.parameters[name].double(), value, rtol=2e-3, atol=2e-4)


def test_together_as_alone(cache):
    weights = masks(len(cache.splits["train"]))
    members = [Member(config, own) for config in CONFIGS for own in weights]
    members += [Member(CONFIGS[1], weights[0])]  # the same head twice
    together = train_weighted(cache, members, TRAINING)
    for number in (*range(0, len(members), 5), len(members) - 1):
        (alone,) = train_weighted(cache, [members[number]], TRAINING)
        np.testing.assert_allclose(together[number].logits, alone.logits, rtol=1e-3, atol=1e-4)
        for name, value in alone.parameters.items():
            torch.testing.assert_close(
                together[number].parameters[name], value, rtol=1e-3, atol=1e-5
            )
    np.testing.assert_array_equal(together[-1].logits, together[6].logits)


def test_with_all_weights_1_it_is_an_ordinary_training(cache):
    from spacelite.training.loop import train

    ones = np.ones(len(cache.splits["train"]))
    found = train_weighted(cache, [Member(config, ones) for config in CONFIGS], TRAINING)
    for own, head in zip(found, train(cache, CONFIGS, TRAINING), strict=True):
        for name, value in head.parameters.items():
            torch.testing.assert_close(own.parameters[name], value, rtol=1e-4, atol=1e-5)


def test_only_the_proportions_of_weights_count(cache):
    weights = masks(len(cache.splits["train"]))[1]
    one, other = train_weighted(
        cache, [Member(CONFIGS[3], weights), Member(CONFIGS[3], weights * 7)], TRAINING
    )
    np.testing.assert_allclose(one.logits, other.logits, rtol=1e-3, atol=1e-4)


def test_a_whole_number_is_as_many_copies(cache):
    """In one batch of all examples: weight 2 is the same as an example that stands there twice."""
    from spacelite.training.engine import batch_of, run_batch, workers

    split = batches.open_splits(cache, "cpu")["train"]
    objective = Objective(SINGLE_LABEL, 2)
    config = space(inter=0.2, intra=0.01)
    kind = heads.kind("space")
    start = kind.initial(config, 2, split.width)
    counts = np.random.default_rng(1).integers(0, 3, len(split))
    copied = np.repeat(np.arange(len(split)), counts)
    found = []
    with workers("cpu") as own:
        for rows, shares in ((np.arange(len(split)), counts), (copied, None)):
            head = kind.stack([config], [start], objective)
            if shares is not None:
                head.sample_weights = torch.from_numpy(shares[None].astype(np.float32))
            head.clear()
            run_batch(split, [head], rows, batch_of(split, rows, objective), own, (1, 0))
            found.append((head.gradients, head.losses(), head.totals))
    (gradients, losses, totals), (expected, expected_losses, expected_totals) = found
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-4, atol=1e-6)
    for one, other in zip(losses, expected_losses, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    assert float(totals.examples[0]) == expected_totals.examples == counts.sum()
    torch.testing.assert_close(totals.confusion, expected_totals.confusion)
    torch.testing.assert_close(totals.correct.double(), expected_totals.correct.double())


def test_weighted_counts_of_several_labels():
    random = np.random.default_rng(2)
    logits = torch.from_numpy(random.normal(size=(3, 50, 4)))
    labels = torch.from_numpy(random.integers(0, 2, (50, 4)))
    counts = torch.from_numpy(random.integers(0, 3, (3, 50)))
    correct, confusion = MULTI_LABEL.count(logits, labels, labels, counts)
    for head in range(3):
        rows = np.repeat(np.arange(50), counts[head].numpy())
        own_correct, own = MULTI_LABEL.count(
            logits[head : head + 1, rows], labels[rows], labels[rows], torch.ones(1, len(rows))
        )
        assert float(correct[head]) == float(own_correct[0])
        torch.testing.assert_close(confusion[head], own[0].double())


@pytest.mark.parametrize(
    ("config", "weights", "training", "said"),
    [
        (space(), [1.0], TRAINING, "training examples, and weights of the shape (1,)"),
        (space(), "negative", TRAINING, "must be at least 0, finite, and not all 0"),
        (space(), "zero", TRAINING, "must be at least 0, finite, and not all 0"),
        (space(), "nan", TRAINING, "must be at least 0, finite, and not all 0"),
    ],
)
def test_bad_weights_are_refused(config, weights, training, said, cache):
    count = len(cache.splits["train"])
    made = {
        "negative": np.full(count, -1.0), "zero": np.zeros(count), "nan": np.full(count, np.nan),
    }  # fmt: skip
    own = made[weights] if isinstance(weights, str) else np.array(weights)
    assert said in refusal(train_weighted, cache, [Member(config, own)], training)


ADDITIVE = {"learning_rate": 0.01, "latent": 2}


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize(
    "config",
    [
        space(inter=0.1), space(ensemble=2), heads.config("linear", pooling="mean"),
        heads.config("additive", blocks="space", **ADDITIVE),
        heads.config("additive", blocks="mean+ngrams+space", ensemble=2, **ADDITIVE),
    ],
    ids=lambda config: config.name,
)  # fmt: skip
def test_a_mask_is_as_good_as_leaving_examples_out(config, class_weights, cache):
    """Starts, standardisation, penalties, class weights come from the head's own examples. With one
    batch an epoch, the updates are the same too."""
    split = cache.splits["train"]
    random = np.random.default_rng(4)
    # More of one class, so that balanced weights differ from those of all examples.
    mask = (random.random(len(split)) < np.where(split.labels == 1, 0.9, 0.5)).astype(float)
    training = TrainingConfig(epochs=3, batch_size=1000, class_weights=class_weights)
    other = Member(space(seed=5), np.ones(len(split)))
    found = train_weighted(cache, [other, Member(config, mask)], training)[1]
    kept = np.flatnonzero(mask)
    data = ArrayData({"train": in_memory(split, kept), "test": in_memory(split)}, ["0", "1"])
    (expected,) = loop.train(data, [config], training)
    assert {name: value.shape for name, value in found.parameters.items()} == {
        name: value.shape for name, value in expected.parameters.items()
    }
    held = np.flatnonzero(mask == 0)
    np.testing.assert_allclose(
        found.logits[held], expected.logits["test"].numpy()[held], rtol=2e-3, atol=4e-3
    )


def test_progress_counts_every_token(cache):
    seen = []
    member = Member(space(), np.ones(len(cache.splits["train"])))
    train_weighted(cache, [member], TRAINING, on_progress=lambda *at: seen.append(at))
    assert seen[-1] == ("train", *[4 * cache.splits["train"].tokens] * 2)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
