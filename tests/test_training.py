"""The training loop against plain PyTorch; alone or among others, streamed, resumed, diverging."""

import itertools
import logging
import math

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn import metrics as sk

from spacelite.cache import journal, store
from spacelite.errors import SpaceliteError
from spacelite.heads.heads import initial_parameters
from spacelite.heads.settings import HeadSettings, PassSettings
from spacelite.metrics.scores import METRICS
from spacelite.training import batches
from spacelite.training import checkpoints as snapshots
from spacelite.training import engine as passes
from spacelite.training.loop import train

HEADS = [
    HeadSettings(kind="space", seed=0, latent=3, inter=0.2, intra=0.001, learning_rate=0.01),
    HeadSettings(kind="space", seed=1, latent=3, inter=0.0, intra=0.0, learning_rate=0.003),
    HeadSettings(kind="space", seed=0, latent=5, inter=0.2, intra=0.0, learning_rate=0.01),
    HeadSettings(kind="linear", seed=0, pooling="first", learning_rate=0.01, weight_decay=0.1),
    HeadSettings(kind="linear", seed=2, pooling="mean", learning_rate=0.01),
    HeadSettings(kind="linear", seed=1, pooling="pooler", learning_rate=0.01),
    HeadSettings(kind="mlp", seed=0, pooling="first", learning_rate=0.01),
    HeadSettings(kind="space", seed=2, latent=3, inter=0.0, intra=0.001, learning_rate=0.01),
    HeadSettings(kind="logreg", pooling="mean", learning_rate=None, weight_decay=None),
]
PLAIN = [0, 1, 2, 3, 4, 7]  # those without dropout, which are trained by Adam
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
    if settings.kind != "space":
        pool = {"first": lambda x: x[0], "last": lambda x: x[-1], "mean": lambda x: x.mean(dim=0)}
        features = (
            torch.as_tensor(pooled) if settings.pooling == "pooler"
            else torch.stack([pool[settings.pooling](part) for part in parts])
        )  # fmt: skip
        features = features.to(classifier[0].dtype)
        if settings.kind == "mlp":
            layer = parameters["pre_classifier.weight"], parameters["pre_classifier.bias"]
            features = F.relu(F.linear(features, *layer))
        logits = F.linear(features, *classifier)
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


def order(examples, shared, epoch):
    """The batches of an epoch: a permutation by the data's seed and the epoch's number."""
    rows = np.random.default_rng([shared.data_seed, epoch]).permutation(examples)
    return torch.from_numpy(rows).split(shared.batch_size)


@pytest.mark.parametrize("index", PLAIN)
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
    for epoch in range(SHARED.epochs):
        losses = []
        for rows in order(len(parts), SHARED, epoch + 1):
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
        epochs = [] if head.settings.kind == "logreg" else [1, 2, 3]
        assert [entry["epoch"] for entry in head.history] == epochs
        for entry in head.history:
            for split in ("train", "validation"):
                assert set(entry[split]) == set(METRICS)
            last = head.history[-1]["validation"]
            assert last == pytest.approx(head.metrics["validation"])


def same_heads(one, two, **tolerance):
    for first, second in zip(one, two, strict=True):
        assert first.settings == second.settings and first.parameters.keys()
        for name, value in first.parameters.items():
            torch.testing.assert_close(value, second.parameters[name], **tolerance)


@pytest.mark.parametrize("index", range(len(HEADS)))
def test_alone_or_among_others_the_same_head(index, cache, trained):
    alone = train(cache, [HEADS[index]], SHARED)
    same_heads(alone, [trained[index]], rtol=1e-4, atol=1e-6)


def test_same_settings_same_bytes(cache, trained):
    again = train(cache, HEADS, SHARED)
    same_heads(trained, again, rtol=0, atol=0)
    assert [head.metrics for head in again] == [head.metrics for head in trained]
    assert [head.history for head in again] == [head.history for head in trained]


def test_any_number_of_threads_gives_the_same_heads(cache, trained, monkeypatch):
    monkeypatch.setattr(batches, "FEWEST_TOKENS", 8)
    for count in (1, 3):
        monkeypatch.setattr(passes, "_cores", lambda count=count: count)
        same_heads(trained, train(cache, HEADS, SHARED), rtol=1e-3, atol=1e-5)


def streamed(monkeypatch, cache, window_tokens, blocks):
    """Let no split fit into memory, and windows hold about so many tokens."""
    size = window_tokens * cache.splits["train"].width * 4
    monkeypatch.setattr(batches, "RESIDENT_SHARE", 0.0)
    monkeypatch.setattr(batches, "WINDOW", size)
    monkeypatch.setattr(batches, "BLOCKS_PER_WINDOW", blocks)


@pytest.mark.parametrize("index", range(len(HEADS)))
def test_from_memory_or_in_one_window_of_the_file_the_same_head(
    index, cache, trained, monkeypatch, caplog
):
    """With all of a split in one window only the order of the examples differs; that is fixed
    here, so that not a bit may."""
    streamed(monkeypatch, cache, 10**6, 4)
    monkeypatch.setattr(
        batches._Stream, "shuffled",
        lambda self, random: self.in_order() or random.permutation(len(self._split)),
    )  # fmt: skip
    with caplog.at_level(logging.INFO, "spacelite"):
        heads = train(cache, HEADS, SHARED)
    assert "hidden states streamed from the file in shuffled blocks: train 0 MB" in caplog.text
    same_heads([trained[index]], [heads[index]], rtol=0, atol=0)


def test_a_streamed_epoch_takes_in_every_example_once_in_shuffled_blocks(cache, monkeypatch):
    streamed(monkeypatch, cache, 200, 4)
    split = batches.TokenSplit(cache, "train")
    assert not split.resident
    tokens = cache.splits["train"].read_tokens(0, cache.splits["train"].tokens)
    parts = np.split(tokens, split._starts[1:])
    orders = []
    for epoch in (1, 2):
        rows = split.shuffled(0, epoch)
        assert sorted(rows) == list(range(60)) and rows.tolist() != list(range(60))
        assert len(split._stream._windows) > 3
        for batch in np.split(rows, range(16, 60, 16)):
            split.load(batch)
            assert 1 <= len(split._stream._loaded) < len(split._stream._windows)
            gathered = split.gather(batch, batches.Scratch()).numpy()
            np.testing.assert_array_equal(gathered, np.concatenate([parts[i] for i in batch]))
        orders.append(rows.tolist())
    assert orders[0] != orders[1] == split.shuffled(0, 2).tolist()


@pytest.mark.parametrize("index", range(len(HEADS)))
def test_streamed_heads_are_evaluated_as_they_are(index, cache, monkeypatch):
    """Streaming changes the order of the examples, nothing else: the metrics follow from the
    weights and the file."""
    streamed(monkeypatch, cache, 200, 4)
    (head,) = train(cache, [HEADS[index]], PassSettings(epochs=2, batch_size=16))
    parameters = {name: value.double() for name, value in head.parameters.items()}
    for name in cache.splits:
        parts, labels, pooled = read(cache.path, name)
        loss, ce, _ = plain_loss(parameters, head.settings, parts, labels, pooled)
        assert head.metrics[name]["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert head.metrics[name]["ce"] == pytest.approx(ce.item(), rel=1e-4)


class Interrupted(Exception):
    pass


def interrupt_after(tokens):
    def on_progress(done, total):
        if done >= tokens:
            raise Interrupted

    return on_progress


@pytest.mark.parametrize("index", range(len(HEADS)))
def test_resumed_or_not_the_same_head(index, cache, trained, tmp_path):
    file = tmp_path / "state.safetensors"
    per_epoch = cache.splits["train"].tokens + cache.splits["validation"].tokens
    heads = [HEADS[index]]
    if HEADS[index].kind != "logreg":
        with pytest.raises(Interrupted):  # in the middle of the last epoch
            train(cache, heads, SHARED, snapshot=file,
                  on_progress=interrupt_after(2 * per_epoch + 100))  # fmt: skip
        assert file.exists()
    done = []
    resumed = train(cache, heads, SHARED, snapshot=file, resume=True,
                    on_progress=lambda tokens, total: done.append(tokens))  # fmt: skip
    if HEADS[index].kind != "logreg":
        assert done[1] == 2 * per_epoch
    uninterrupted = train(cache, heads, SHARED)
    same_heads(resumed, uninterrupted, rtol=0, atol=0)
    assert resumed[0].history == uninterrupted[0].history
    assert resumed[0].metrics == uninterrupted[0].metrics
    assert not list(tmp_path.glob(".*"))


def test_resuming_all_kinds_at_once_with_heads_that_ended(cache, tmp_path):
    """Of heads that diverged or stopped early before the interruption nothing is lost."""
    wild = HeadSettings(kind="linear", seed=9, pooling="first", learning_rate=1e38)
    heads = [wild, *HEADS]
    shared = PassSettings(epochs=8, batch_size=16, patience=1, monitor="loss", schedule="cosine")
    file = tmp_path / "state.safetensors"
    per_epoch = cache.splits["train"].tokens + cache.splits["validation"].tokens
    with pytest.raises(Interrupted):
        train(cache, heads, shared, snapshot=file, on_progress=interrupt_after(4.5 * per_epoch))
    resumed = train(cache, heads, shared, snapshot=file, resume=True)
    uninterrupted = train(cache, heads, shared)
    assert resumed[0].stopped and not resumed[0].parameters
    ended = [head for head in resumed[1:] if head.history and len(head.history) <= 4]
    assert ended and len(ended) < len(HEADS) - 1
    assert [head.metrics for head in resumed] == [head.metrics for head in uninterrupted]
    same_heads(resumed[1:], uninterrupted[1:], rtol=0, atol=0)
    assert resumed[0].stopped == uninterrupted[0].stopped
    for one, two in zip(resumed[1:], uninterrupted[1:], strict=True):
        assert (one.history, one.best_epoch, one.stopped) == (two.history, two.best_epoch,
                                                              two.stopped)  # fmt: skip


def test_a_damaged_state_is_refused(cache, tmp_path):
    file = tmp_path / "state.safetensors"
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(SpaceliteError, match=r"is damaged .*: remove it to train"):
        train(cache, HEADS[:1], SHARED, snapshot=file, resume=True)


@pytest.mark.parametrize("heads", [HEADS[1::-1], HEADS[:1]], ids=["other order", "fewer"])
def test_the_state_of_another_training_is_refused(heads, cache, tmp_path):
    file = tmp_path / "state.safetensors"
    train(cache, HEADS[:2], PassSettings(epochs=1), snapshot=file)
    with pytest.raises(SpaceliteError, match="is of another training: remove it"):
        train(cache, heads, PassSettings(epochs=1), snapshot=file, resume=True)


def test_resuming_where_the_order_would_be_another_is_refused(cache, tmp_path, monkeypatch):
    file = tmp_path / "state.safetensors"
    train(cache, HEADS[:2], SHARED, snapshot=file)
    streamed(monkeypatch, cache, 200, 4)
    with pytest.raises(SpaceliteError, match="had another amount of free memory"):
        train(cache, HEADS[:2], SHARED, snapshot=file, resume=True)


def test_splits_share_the_memory_and_train_comes_first(cache, monkeypatch):
    sizes = {name: split.tokens * split.width * 4 for name, split in cache.splits.items()}
    monkeypatch.setattr(batches, "RESIDENT_SHARE", 1.0)
    for free, resident in (
        (sum(sizes.values()), [True, True, True]),
        (sizes["train"] + sizes["test"], [True, True, False]),
        (sizes["train"], [True, False, False]),
        (sizes["train"] - 1, [False, True, True]),
    ):
        monkeypatch.setattr(batches, "_free_memory", lambda device, free=free: free)
        found = [split.resident for split in batches.open_splits(cache, "cpu").values()]
        if resident == [True, True, False] and sizes["validation"] > sizes["test"]:
            resident = [True, False, True]
        assert found == resident


def test_removing_a_cache_removes_the_states_of_its_trainings(cache, tmp_path):
    files = [tmp_path / "unfinished" / f"{name}--0.safetensors" for name in (cache.name, "other")]
    for file in files:
        train(cache, HEADS[:1], PassSettings(epochs=1), snapshot=file)
    snapshots.remove_all(tmp_path, cache.name)
    assert [file.exists() for file in files] == [False, True]


def test_running_out_of_memory_is_one_line(cache, monkeypatch):
    def full(*arguments):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate")

    monkeypatch.setattr(passes, "_project", full)
    with pytest.raises(SpaceliteError, match="memory does not suffice for 9 heads at once"):
        train(cache, HEADS, SHARED)


def test_other_devices_are_refused(cache):
    with pytest.raises(SpaceliteError, match="--device meta: heads are trained on cpu or cuda"):
        train(cache, HEADS, SHARED, device="meta")


@pytest.mark.parametrize("wrong", [
    {"kind": "linear"}, {"kind": "space", "inter": 0.0, "intra": 0.0},
    {"kind": "linear", "pooling": "first", "latent": 3},
    {"kind": "mlp", "pooling": "first", "learning_rate": None},
    {"kind": "logreg", "pooling": "first"},
], ids=str)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused(wrong, cache):
    with pytest.raises(ValueError, match="space needs latent, inter and intra"):
        train(cache, [HeadSettings(**wrong)], SHARED)


def test_early_stopping_keeps_the_best_epochs_weights(cache):
    shared = PassSettings(epochs=12, batch_size=16, patience=2, monitor="loss")
    heads = train(cache, HEADS, shared)
    stopped_early = 0
    for head in heads:
        if head.settings.kind == "logreg":
            assert head.best_epoch is None
            continue
        losses = [entry["validation"]["loss"] for entry in head.history]
        assert head.best_epoch == int(np.argmin(losses)) + 1
        assert len(losses) == min(12, head.best_epoch + 2)
        stopped_early += len(losses) < 12
        assert head.metrics["validation"]["loss"] == pytest.approx(min(losses))
        (alone,) = train(cache, [head.settings], PassSettings(epochs=head.best_epoch,
                                                              batch_size=16))  # fmt: skip
        same_heads([head], [alone], rtol=1e-4, atol=1e-6)
    assert stopped_early


@pytest.mark.parametrize(("schedule", "clip"), [("cosine", None), ("constant", 0.05)])
def test_schedule_and_clipping_equal_torchs(schedule, clip, cache):
    shared = PassSettings(epochs=2, batch_size=16, schedule=schedule, clip_norm=clip)
    head = HEADS[0]
    (trained_head,) = train(cache, [head], shared)
    parts, labels, pooled = read(cache.path, "train")
    parameters = {
        name: value.double().requires_grad_()
        for name, value in initial_parameters(head, 2, 16).items()
    }
    adam = torch.optim.Adam(parameters.values(), lr=head.learning_rate, weight_decay=0.01)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=2 * 4)
    for epoch in range(2):
        for rows in order(len(parts), shared, epoch + 1):
            loss, _, _ = plain_loss(
                parameters, head, [parts[i] for i in rows], labels[rows], pooled[rows]
            )
            adam.zero_grad()
            loss.backward()
            if clip is not None:
                norm = torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
                assert norm > clip  # there is something to clip
            adam.step()
            if schedule == "cosine":
                cosine.step()
    for name, value in parameters.items():
        torch.testing.assert_close(
            trained_head.parameters[name].double(), value.detach(), rtol=1e-3, atol=1e-4
        )


def test_balanced_class_weights_change_the_loss_and_not_the_reported_ce(cache):
    shared = PassSettings(epochs=1, batch_size=16, class_weights="balanced")
    parts, labels, pooled = read(cache.path, "train")
    weights = torch.tensor([len(labels) / (2 * (labels == c).sum()) for c in (0, 1)])
    for head in train(cache, HEADS, shared):
        parameters = {name: value.double() for name, value in head.parameters.items()}
        loss, ce, logits = plain_loss(parameters, head.settings, parts, labels, pooled)
        weighted = F.cross_entropy(logits, torch.as_tensor(labels), weight=weights.double())
        assert head.metrics["train"]["ce"] == pytest.approx(ce.item(), rel=1e-4)
        expected = (loss - ce + weighted).item()
        assert head.metrics["train"]["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_logreg_is_scikit_learns(class_weights, cache):
    from sklearn.linear_model import LogisticRegression

    head = HeadSettings(kind="logreg", pooling="mean", learning_rate=None, weight_decay=None)
    (made,) = train(cache, [head], PassSettings(class_weights=class_weights))
    parts, labels, _ = read(cache.path, "train")
    weights = None if class_weights == "none" else class_weights
    model = LogisticRegression(max_iter=1000, class_weight=weights).fit(
        [part.mean(axis=0) for part in parts], labels
    )
    tests, test_labels, _ = read(cache.path, "test")
    probabilities = model.predict_proba([part.mean(axis=0) for part in tests])
    ce = sk.log_loss(test_labels, probabilities)
    assert made.metrics["test"]["ce"] == pytest.approx(ce, rel=1e-3)
    guesses = probabilities.argmax(axis=1)
    assert made.metrics["test"]["accuracy"] == sk.accuracy_score(test_labels, guesses)


def test_groups_of_any_size_give_the_same_heads(cache, trained, monkeypatch):
    monkeypatch.setattr(batches, "TOKENS_PER_GROUP", 20)
    grouped = train(cache, HEADS, SHARED)
    same_heads(trained, grouped, rtol=1e-3, atol=1e-5)


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
        assert len(head.history) < SHARED.epochs
    assert all(head.stopped is None for head in heads[1:-1])
    same_heads(trained, heads[1:-1], rtol=1e-4, atol=1e-6)


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
        ({"kind": "forest"}, {}, "--head forest: choose from space, linear, mlp, logreg"),
        ({}, {"epochs": 0}, "--epochs 0: give at least 1"),
        ({}, {"data_seed": 10**20}, "--data-seed 100000000000000000000: give a number from 0"),
        ({}, {"batch_size": 0}, "--batch-size 0: give at least 1"),
        ({}, {"patience": 0}, "--patience 0: give at least 1"),
        ({}, {"clip_norm": 0.0}, "--clip-norm 0: give a number above 0"),
        ({}, {"schedule": "linear"}, "--schedule linear: choose from constant, cosine"),
        ({}, {"class_weights": "inverse"}, "--class-weights inverse: choose from none, balanced"),
        ({}, {"monitor": "auc"}, "--monitor auc: choose from loss, ce, accuracy"),
    ],
)
def test_bad_settings_are_refused(head, shared, problem, cache):
    settings = HeadSettings(**{"kind": "space", "latent": 3, "inter": 0.0, "intra": 0.0, **head})
    with pytest.raises(SpaceliteError, match=problem):
        train(cache, [settings], PassSettings(**shared))


def test_unknown_pooling_and_missing_pooler_are_refused(cache, distilbert, reviews, tmp_path):
    from spacelite.cache.embedding import embed

    with pytest.raises(SpaceliteError, match="--pooling max: choose from first, last, mean"):
        train(cache, [HeadSettings(kind="linear", pooling="max")], SHARED)
    path = embed(backbone=str(distilbert), dataset=str(reviews), cache_dir=tmp_path).path
    with store.Cache(path) as without, pytest.raises(SpaceliteError, match="has no pooler"):
        train(without, [HeadSettings(kind="linear", pooling="pooler")], SHARED)


def test_an_unfinished_cache_is_refused(cache_path, tmp_path):
    copy = tmp_path / cache_path.name
    copy.write_bytes(cache_path.read_bytes())
    with journal.Writer(copy) as writer:
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


def test_a_head_listed_twice_is_refused(cache):
    with pytest.raises(SpaceliteError, match="a head is listed twice"):
        train(cache, [HEADS[0], HEADS[1], HEADS[0]], SHARED)


def test_streamed_and_resumed_the_same_heads(cache, tmp_path, monkeypatch):
    streamed(monkeypatch, cache, 200, 4)
    file = tmp_path / "state.safetensors"
    per_epoch = cache.splits["train"].tokens + cache.splits["validation"].tokens
    with pytest.raises(Interrupted):
        train(cache, HEADS, SHARED, snapshot=file, on_progress=interrupt_after(1.5 * per_epoch))
    resumed = train(cache, HEADS, SHARED, snapshot=file, resume=True)
    same_heads(resumed, train(cache, HEADS, SHARED), rtol=0, atol=0)
