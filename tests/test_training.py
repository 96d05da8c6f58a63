"""The training loop against plain PyTorch; alone or among others, streamed, resumed, diverging."""

import itertools
import logging
import math
import os
import threading
import zlib

import h5py
import numpy as np
import processes
import pytest
import torch
import torch.nn.functional as F
from conftest import refusal
from sklearn import metrics as sk

from spacelite import heads
from spacelite.cache import writing
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.heads import space
from spacelite.metrics.scores import METRICS
from spacelite.training import batches, checkpoints, memory
from spacelite.training.config import TrainingConfig
from spacelite.training.loop import train

CONFIGS = [
    heads.config("space", seed=0, latent=3, inter=0.2, intra=0.001, learning_rate=0.01),
    heads.config("space", seed=1, latent=3, inter=0.0, intra=0.0, learning_rate=0.003),
    heads.config("space", seed=0, latent=5, inter=0.2, intra=0.0, learning_rate=0.01),
    heads.config("linear", seed=0, pooling="first", learning_rate=0.01, weight_decay=0.1),
    heads.config("linear", seed=2, pooling="mean", learning_rate=0.01),
    heads.config("linear", seed=1, pooling="pooler", learning_rate=0.01),
    heads.config("mlp", seed=0, pooling="first", learning_rate=0.01),
    heads.config("space", seed=2, latent=3, inter=0.0, intra=0.001, learning_rate=0.01),
    heads.config("logreg", pooling="mean"),
]
PLAIN = [0, 1, 2, 3, 4, 7]  # those without dropout, which are trained by Adam
TRAINING = TrainingConfig(epochs=3, batch_size=16, data_seed=3)


@pytest.fixture(scope="module")
def cache(cache_path):
    with Cache(cache_path) as opened:
        yield opened


def initial_parameters(config):
    return heads.kind(config.kind).initial(config, classes=2, width=16)


def checkpoint_of(cache_dir, cache, configs, training=TRAINING):
    """The file that `train` keeps its state in."""
    identity = checkpoints.identity(cache, configs, training)
    return checkpoints.checkpoint_path(cache_dir, cache, identity)


@pytest.fixture(scope="module")
def trained(cache):
    return train(cache, CONFIGS, TRAINING)


def read(path, split):
    """A split as plain numpy, without the library: a list of (n_i, d), and labels."""
    with h5py.File(path) as file:
        group = file[split]
        tokens, offsets = group["tokens"][...].astype(np.float64), group["offsets"][...]
        parts = [tokens[a:b] for a, b in itertools.pairwise(offsets)]
        return parts, group["labels"][...], group["pooled"][...]


def plain_loss(parameters, config, parts, labels, pooled):
    """Loss, CE and logits of a batch by the formulas, differentiable."""
    classifier = parameters["classifier.weight"], parameters["classifier.bias"]
    labels = torch.as_tensor(labels)
    parts = [torch.as_tensor(part) for part in parts]
    if config.kind != "space":
        pool = {"first": lambda x: x[0], "last": lambda x: x[-1], "mean": lambda x: x.mean(dim=0)}
        features = (
            torch.as_tensor(pooled) if config.pooling == "pooler"
            else torch.stack([pool[config.pooling](part) for part in parts])
        )  # fmt: skip
        features = features.to(classifier[0].dtype)
        if config.kind == "mlp":
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
    inverse = [(1 / (x.var(dim=0) + 1e-9)).sum() for x in s if len(x) > 1]
    loss = ce + config.inter * ((1 - match).mean() + (1 + other).mean()) / 2
    return loss + config.intra * sum(inverse) / max(len(inverse), 1), ce, logits


def order(examples, training, epoch):
    """The batches of an epoch: a permutation by the data's seed and the epoch's number."""
    rows = np.random.default_rng([training.data_seed, epoch]).permutation(examples)
    return torch.from_numpy(rows).split(training.batch_size)


@pytest.mark.parametrize("index", PLAIN)
def test_training_equals_a_plain_loop_with_autograd_and_torch_adam(index, cache, trained):
    """The whole protocol again in float64: order of the data, loss, Adam, weight decay."""
    config = CONFIGS[index]
    parts, labels, pooled = read(cache.path, "train")
    parameters = {
        name: value.double().requires_grad_() for name, value in initial_parameters(config).items()
    }
    adam = torch.optim.Adam(
        parameters.values(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    for epoch in range(TRAINING.epochs):
        losses = []
        for rows in order(len(parts), TRAINING, epoch + 1):
            loss, _, _ = plain_loss(
                parameters, config, [parts[i] for i in rows], labels[rows], pooled[rows]
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


@pytest.mark.parametrize("index", range(len(CONFIGS)))
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_final_metrics_follow_from_the_weights_and_the_file(index, split, cache, trained):
    head = trained[index]
    parameters = {name: value.double() for name, value in head.parameters.items()}
    parts, labels, pooled = read(cache.path, split)
    loss, ce, logits = plain_loss(parameters, head.config, parts, labels, pooled)
    guesses = logits.argmax(dim=1)
    expected = {
        "loss": loss.item(),
        "ce": ce.item(),
        "accuracy": sk.accuracy_score(labels, guesses),
        "f1_macro": sk.f1_score(labels, guesses, average="macro"),
        "precision": sk.precision_score(labels, guesses, zero_division=0),
        "recall": sk.recall_score(labels, guesses),
        "auroc": sk.roc_auc_score(labels, torch.softmax(logits, dim=1)[:, 1]),
    }
    assert head.metrics[split] == pytest.approx(expected, abs=1e-4)


def test_history_has_train_and_validation_metrics_after_every_epoch(trained):
    for head in trained:
        epochs = [] if head.config.kind == "logreg" else [1, 2, 3]
        assert [entry["epoch"] for entry in head.history] == epochs
        for entry in head.history:
            for split in ("train", "validation"):
                assert set(entry[split]) == set(METRICS)
            last = head.history[-1]["validation"]
            assert last == pytest.approx(head.metrics["validation"])


def same_heads(one, two, **tolerance):
    for first, second in zip(one, two, strict=True):
        assert first.config == second.config and first.parameters.keys()
        for name, value in first.parameters.items():
            torch.testing.assert_close(value, second.parameters[name], **tolerance)


@pytest.mark.parametrize("index", range(len(CONFIGS)))
def test_alone_or_among_others_the_same_head(index, cache, trained):
    alone = train(cache, [CONFIGS[index]], TRAINING)
    same_heads(alone, [trained[index]], rtol=1e-4, atol=1e-6)


def test_same_settings_same_bytes(cache, trained):
    again = train(cache, CONFIGS, TRAINING)
    same_heads(trained, again, rtol=0, atol=0)
    assert [head.metrics for head in again] == [head.metrics for head in trained]
    assert [head.history for head in again] == [head.history for head in trained]


def test_any_number_of_threads_gives_the_same_heads(cache, trained, monkeypatch):
    monkeypatch.setattr(memory, "FEWEST_TOKENS", 8)
    for count in (1, 3):
        monkeypatch.setattr(memory, "cores", lambda count=count: count)
        same_heads(trained, train(cache, CONFIGS, TRAINING), rtol=1e-3, atol=1e-5)


def streamed(monkeypatch, cache, window_tokens, blocks):
    """Let no split fit into memory, and windows hold about so many tokens."""
    size = window_tokens * cache.splits["train"].width * 4
    monkeypatch.setattr(memory, "RESIDENT_SHARE", 0.0)
    monkeypatch.setattr(memory, "WINDOW", size)
    monkeypatch.setattr(batches, "BLOCKS_PER_WINDOW", blocks)


@pytest.mark.parametrize("index", range(len(CONFIGS)))
def test_from_memory_or_in_one_window_of_the_file_the_same_head(
    index, cache, trained, monkeypatch, caplog
):
    """With all of a split in one window only the order of the examples differs; that is fixed
    here, so that not a bit may."""
    streamed(monkeypatch, cache, 10**6, 4)
    monkeypatch.setattr(
        batches.Stream, "shuffled",
        lambda self, random: self.in_order() or random.permutation(len(self._split)),
    )  # fmt: skip
    with caplog.at_level(logging.INFO, "spacelite"):
        streamed_heads = train(cache, CONFIGS, TRAINING)
    assert "hidden states streamed from the file in shuffled blocks: train 0 MB" in caplog.text
    same_heads([trained[index]], [streamed_heads[index]], rtol=0, atol=0)


@pytest.mark.parametrize("ahead", [True, False])
def test_a_streamed_epoch_takes_in_every_example_once_in_shuffled_blocks(ahead, cache, monkeypatch):
    """Whether there is memory to read windows ahead changes nothing."""
    streamed(monkeypatch, cache, 200, 4)
    monkeypatch.setattr(memory, "free_for_window", lambda: ahead)
    split = batches.open_splits(cache, "cpu")["train"]
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
            last = max(split._stream._loaded) + 1 == len(split._stream._windows)
            assert len(split._stream._ahead) == (ahead and not last)
            gathered = split.gather(batch, batches.Scratch()).numpy()
            np.testing.assert_array_equal(gathered, np.concatenate([parts[i] for i in batch]))
        orders.append(rows.tolist())
    assert orders[0] != orders[1] == split.shuffled(0, 2).tolist()


@pytest.mark.parametrize("index", range(len(CONFIGS)))
def test_streamed_heads_are_evaluated_as_they_are(index, cache, monkeypatch):
    """Streaming changes the order of the examples, nothing else: the metrics follow from the
    weights and the file."""
    streamed(monkeypatch, cache, 200, 4)
    (head,) = train(cache, [CONFIGS[index]], TrainingConfig(epochs=2, batch_size=16))
    parameters = {name: value.double() for name, value in head.parameters.items()}
    for name in cache.splits:
        parts, labels, pooled = read(cache.path, name)
        loss, ce, _ = plain_loss(parameters, head.config, parts, labels, pooled)
        assert head.metrics[name]["loss"] == pytest.approx(loss.item(), rel=1e-4)
        assert head.metrics[name]["ce"] == pytest.approx(ce.item(), rel=1e-4)


class Interrupted(Exception):
    pass


def interrupt_after(tokens):
    def on_progress(done, total):
        if done >= tokens:
            raise Interrupted

    return on_progress


@pytest.mark.parametrize("index", range(len(CONFIGS)))
def test_resumed_or_not_the_same_head(index, cache, trained, tmp_path):
    configs = [CONFIGS[index]]
    file = checkpoint_of(tmp_path, cache, configs)
    per_epoch = cache.splits["train"].tokens + cache.splits["validation"].tokens
    if configs[0].kind != "logreg":
        with pytest.raises(Interrupted):  # in the middle of the last epoch
            train(cache, configs, TRAINING, cache_dir=tmp_path,
                  on_progress=interrupt_after(2 * per_epoch + 100))  # fmt: skip
        assert file.exists()
    done = []
    resumed = train(cache, configs, TRAINING, cache_dir=tmp_path, resume=True,
                    on_progress=lambda tokens, total: done.append(tokens))  # fmt: skip
    if configs[0].kind != "logreg":
        assert done[1] == 2 * per_epoch
    uninterrupted = train(cache, configs, TRAINING)
    same_heads(resumed, uninterrupted, rtol=0, atol=0)
    assert resumed[0].history == uninterrupted[0].history
    assert resumed[0].metrics == uninterrupted[0].metrics
    assert not list(file.parent.glob(".*"))


def test_resuming_all_kinds_at_once_with_heads_that_ended(cache, tmp_path):
    """Of heads that diverged or stopped early before the interruption nothing is lost."""
    wild = heads.config("linear", seed=9, pooling="first", learning_rate=1e38)
    configs = [wild, *CONFIGS]
    training = TrainingConfig(
        epochs=8, batch_size=16, patience=1, monitor="loss", schedule="cosine"
    )
    per_epoch = cache.splits["train"].tokens + cache.splits["validation"].tokens
    with pytest.raises(Interrupted):
        train(cache, configs, training, cache_dir=tmp_path,
              on_progress=interrupt_after(4.5 * per_epoch))  # fmt: skip
    resumed = train(cache, configs, training, cache_dir=tmp_path, resume=True)
    uninterrupted = train(cache, configs, training)
    assert resumed[0].stopped and not resumed[0].parameters
    ended = [head for head in resumed[1:] if head.history and len(head.history) <= 4]
    assert ended and len(ended) < len(CONFIGS) - 1
    assert [head.metrics for head in resumed] == [head.metrics for head in uninterrupted]
    same_heads(resumed[1:], uninterrupted[1:], rtol=0, atol=0)
    assert resumed[0].stopped == uninterrupted[0].stopped
    for one, two in zip(resumed[1:], uninterrupted[1:], strict=True):
        assert (one.history, one.best_epoch, one.stopped) == (two.history, two.best_epoch,
                                                              two.stopped)  # fmt: skip


def test_the_checkpoint_is_there_until_every_head_is_saved(cache, tmp_path):
    wild = heads.config("linear", seed=9, pooling="first", learning_rate=1e38)
    configs = [wild, *CONFIGS[:2]]
    file = checkpoint_of(tmp_path, cache, configs)

    def fail(head):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        train(cache, configs, TRAINING, cache_dir=tmp_path, save=fail)
    assert file.exists()
    saved = []
    train(cache, configs, TRAINING, cache_dir=tmp_path, resume=True,
          save=lambda head: saved.append((head.config, file.exists())))  # fmt: skip
    assert saved == [(config, True) for config in CONFIGS[:2]]
    assert not file.exists()


def test_a_damaged_checkpoint_is_refused(cache, tmp_path):
    file = checkpoint_of(tmp_path, cache, CONFIGS[:1])
    file.parent.mkdir()
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(SpaceliteError, match=r"is damaged .*: remove it to train"):
        train(cache, CONFIGS[:1], TRAINING, cache_dir=tmp_path, resume=True)


OTHER_TRAININGS = {
    "other order": (CONFIGS[1::-1], TRAINING),
    "fewer": (CONFIGS[:1], TRAINING),
    "other training": (CONFIGS[:2], TrainingConfig(epochs=4, batch_size=16, data_seed=3)),
    "other monitor": (
        CONFIGS[:2], TrainingConfig(epochs=3, batch_size=16, data_seed=3, monitor="loss")
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("configs", "training"), OTHER_TRAININGS.values(), ids=OTHER_TRAININGS.keys()
)
def test_the_checkpoint_of_another_training_is_refused(configs, training, cache, tmp_path):
    train(cache, CONFIGS[:2], TRAINING, cache_dir=tmp_path)
    own = checkpoint_of(tmp_path, cache, CONFIGS[:2])
    other = checkpoint_of(tmp_path, cache, configs, training)
    assert other != own  # another name, and whoever gives it that name is told
    own.rename(other)
    with pytest.raises(SpaceliteError, match="belongs to another training: remove it"):
        train(cache, configs, training, cache_dir=tmp_path, resume=True)


def test_resuming_where_the_order_would_be_another_is_refused(cache, tmp_path, monkeypatch):
    train(cache, CONFIGS[:2], TRAINING, cache_dir=tmp_path)
    streamed(monkeypatch, cache, 200, 4)
    with pytest.raises(SpaceliteError, match="had a different amount of free memory"):
        train(cache, CONFIGS[:2], TRAINING, cache_dir=tmp_path, resume=True)


def test_where_the_order_would_be_another_training_starts_anew(
    cache, tmp_path, monkeypatch, caplog
):
    train(cache, CONFIGS[:2], TRAINING, cache_dir=tmp_path)
    streamed(monkeypatch, cache, 200, 4)
    anew = train(cache, CONFIGS[:2], TRAINING, cache_dir=tmp_path)
    assert "it cannot be continued, training from the start" in caplog.text
    same_heads(anew, train(cache, CONFIGS[:2], TRAINING), rtol=0, atol=0)


def test_a_damaged_checkpoint_is_named_and_training_starts_anew(cache, tmp_path, caplog):
    file = checkpoint_of(tmp_path, cache, CONFIGS[:1])
    file.parent.mkdir()
    file.write_bytes(b"nothing of the kind")
    train(cache, CONFIGS[:1], TRAINING, cache_dir=tmp_path)
    assert f"{file} is damaged" in caplog.text


def test_no_changed_byte_of_a_checkpoint_is_trained_on(tmp_path, caplog):
    """Nor one without a checksum, as older versions wrote it, in which changes are not seen."""
    from safetensors.torch import load_file, save_file

    path = tmp_path / "one.safetensors"
    tensors = {"0/now/bias": torch.arange(3.0), "0/mean/bias": torch.zeros(2, 2)}
    about = {"heads": [{"history": [], "stopped": None}], "resident": True, "seconds": 1.5}
    checkpoints.save(path, checkpoints.Checkpoint("ab", 2, tensors, about))
    good = path.read_bytes()

    def found():
        return checkpoints.find(path, "ab", resident=True)

    whole = found()
    assert (whole.epoch, whole.record) == (2, about) and whole.tensors.keys() == tensors.keys()
    for at, byte in enumerate(good):
        path.write_bytes(good[:at] + bytes([byte ^ 1 << at % 8]) + good[at + 1 :])
        caplog.clear()
        assert found() is None and "it cannot be continued, training from" in caplog.text
    path.write_bytes(good)
    save_file(load_file(path), path, metadata={"state": "{}"})
    assert found() is None and "has no checksum: an older version wrote it" in caplog.text
    path.unlink()
    os.mkfifo(path)
    assert found() is None and "is not a regular file" in caplog.text


def test_the_same_training_continues_by_itself_and_fresh_starts_anew(cache, tmp_path, caplog):
    per_epoch = cache.splits["train"].tokens + cache.splits["validation"].tokens
    file = checkpoint_of(tmp_path, cache, CONFIGS[:2])
    with pytest.raises(Interrupted):
        train(cache, CONFIGS[:2], TRAINING, cache_dir=tmp_path,
              on_progress=interrupt_after(1.5 * per_epoch))  # fmt: skip
    kept = file.read_bytes()
    with caplog.at_level(logging.INFO, "spacelite"):
        continued = train(cache, CONFIGS[:2], TRAINING, cache_dir=tmp_path, save=lambda head: None)
    assert "continuing after epoch 1 of 3" in caplog.text and not file.exists()
    whole = train(cache, CONFIGS[:2], TRAINING)
    same_heads(continued, whole, rtol=0, atol=0)
    file.write_bytes(kept)
    caplog.clear()
    with pytest.raises(Interrupted), caplog.at_level(logging.INFO, "spacelite"):
        train(cache, CONFIGS[:2], TRAINING, cache_dir=tmp_path, fresh=True,
              on_progress=interrupt_after(1))  # fmt: skip
    assert "continuing" not in caplog.text and not file.exists()


def test_two_trainings_of_the_same_settings_are_kept_apart(cache, tmp_path, caplog):
    file = checkpoint_of(tmp_path, cache, CONFIGS[:2])
    events = []
    other = threading.Thread(
        target=train, args=(cache, CONFIGS[:2], TRAINING),
        kwargs={"cache_dir": tmp_path, "save": lambda head: events.append("second")},
    )  # fmt: skip
    with checkpoints.locked(file, cache, 2):
        other.start()
        processes.until(lambda: "waiting" in caplog.text)
        events.append("first")
    other.join()
    assert events == ["first", "second", "second"]
    message = f"another spacelite process is training the same 2 heads on cache {cache.name}"
    assert message in caplog.text


def test_splits_share_the_memory_and_train_comes_first(cache, monkeypatch):
    sizes = {name: split.tokens * split.width * 4 for name, split in cache.splits.items()}
    monkeypatch.setattr(memory, "RESIDENT_SHARE", 1.0)
    for free, resident in (
        (sum(sizes.values()), [True, True, True]),
        (sizes["train"] + sizes["test"], [True, True, False]),
        (sizes["train"], [True, False, False]),
        (sizes["train"] - 1, [False, True, True]),
    ):
        monkeypatch.setattr(memory, "free_memory", lambda device, free=free: free)
        found = [split.resident for split in batches.open_splits(cache, "cpu").values()]
        if resident == [True, True, False] and sizes["validation"] > sizes["test"]:
            resident = [True, False, True]
        assert found == resident


def test_removing_a_cache_removes_the_checkpoints_of_its_trainings(cache, tmp_path):
    for configs in (CONFIGS[:1], CONFIGS[:2]):
        train(cache, configs, TrainingConfig(epochs=1), cache_dir=tmp_path)
    files = list((tmp_path / checkpoints.FOLDER).iterdir())
    assert len(files) == 2
    other = files[0].with_name("other--0123456789.safetensors")
    other.write_bytes(files[0].read_bytes())
    checkpoints.remove_all(tmp_path, cache.name)
    assert list((tmp_path / checkpoints.FOLDER).iterdir()) == [other]


def test_running_out_of_memory_is_one_line(cache, monkeypatch):
    def full(*arguments):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate")

    monkeypatch.setattr(space, "_project", full)
    said = refusal(train, cache, CONFIGS, TRAINING)
    assert "not enough memory for 9 heads at once: train fewer at a time" in said


def test_other_devices_are_refused(cache):
    said = refusal(train, cache, CONFIGS, TRAINING, device="meta")
    assert said == "device=meta: heads are trained on cpu or cuda"


@pytest.mark.parametrize(("kind", "setting"), [
    ("linear", {"latent": 3}), ("linear", {"inter": 0.2}), ("mlp", {"intra": 0.1}),
    ("space", {"pooling": "first"}), ("logreg", {"learning_rate": 0.01}),
    ("logreg", {"weight_decay": 0.01}), ("logreg", {"seed": 1}),
], ids=str)  # fmt: skip
def test_a_kind_of_head_has_its_own_settings_alone(kind, setting):
    (name,) = setting
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        heads.config(kind, **setting)


@pytest.mark.parametrize(("kind", "setting", "problem"), [
    ("mlp", {"learning_rate": None}, "learning_rate=None: give a number above 0"),
    ("linear", {"weight_decay": None}, "weight_decay=None: give 0 or a positive number"),
    ("space", {"latent": None}, "latent=None: give a whole number from 1 to 10,000"),
    ("space", {"inter": None}, "inter=None: give 0 or a positive number"),
    ("space", {"intra": None}, "intra=None: give 0 or a positive number"),
    ("logreg", {"pooling": None},
     "pooling=None: choose from first, last, mean, max, pooler, layers"),
], ids=str)  # fmt: skip
def test_a_setting_that_a_kind_of_head_needs_cannot_be_none(kind, setting, problem, cache):
    assert refusal(train, cache, [heads.config(kind, **setting)], TRAINING) == problem


def test_early_stopping_keeps_the_best_epochs_weights(cache):
    training = TrainingConfig(epochs=12, batch_size=16, patience=2, monitor="loss")
    stopped_early = 0
    for head in train(cache, CONFIGS, training):
        if head.config.kind == "logreg":
            assert head.best_epoch is None
            continue
        losses = [entry["validation"]["loss"] for entry in head.history]
        assert head.best_epoch == int(np.argmin(losses)) + 1
        assert len(losses) == min(12, head.best_epoch + 2)
        stopped_early += len(losses) < 12
        assert head.metrics["validation"]["loss"] == pytest.approx(min(losses))
        (alone,) = train(cache, [head.config], TrainingConfig(epochs=head.best_epoch,
                                                              batch_size=16))  # fmt: skip
        same_heads([head], [alone], rtol=1e-4, atol=1e-6)
    assert stopped_early


@pytest.mark.parametrize(("schedule", "clip"), [("cosine", None), ("constant", 0.05)])
def test_schedule_and_clipping_equal_torchs(schedule, clip, cache):
    training = TrainingConfig(epochs=2, batch_size=16, schedule=schedule, clip_norm=clip)
    config = CONFIGS[0]
    (trained_head,) = train(cache, [config], training)
    parts, labels, pooled = read(cache.path, "train")
    parameters = {
        name: value.double().requires_grad_() for name, value in initial_parameters(config).items()
    }
    adam = torch.optim.Adam(parameters.values(), lr=config.learning_rate, weight_decay=0.01)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=2 * 4)
    for epoch in range(2):
        for rows in order(len(parts), training, epoch + 1):
            loss, _, _ = plain_loss(
                parameters, config, [parts[i] for i in rows], labels[rows], pooled[rows]
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
    training = TrainingConfig(epochs=1, batch_size=16, class_weights="balanced")
    parts, labels, pooled = read(cache.path, "train")
    weights = torch.tensor([len(labels) / (2 * (labels == c).sum()) for c in (0, 1)])
    for head in train(cache, CONFIGS, training):
        parameters = {name: value.double() for name, value in head.parameters.items()}
        loss, ce, logits = plain_loss(parameters, head.config, parts, labels, pooled)
        weighted = F.cross_entropy(logits, torch.as_tensor(labels), weight=weights.double())
        assert head.metrics["train"]["ce"] == pytest.approx(ce.item(), rel=1e-4)
        expected = (loss - ce + weighted).item()
        assert head.metrics["train"]["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
def test_logreg_is_scikit_learns(class_weights, cache):
    from sklearn.linear_model import LogisticRegression

    config = heads.config("logreg", pooling="mean")
    (head,) = train(cache, [config], TrainingConfig(class_weights=class_weights))
    parts, labels, _ = read(cache.path, "train")
    weights = None if class_weights == "none" else class_weights
    model = LogisticRegression(max_iter=1000, class_weight=weights).fit(
        [part.mean(axis=0) for part in parts], labels
    )
    tests, test_labels, _ = read(cache.path, "test")
    probabilities = model.predict_proba([part.mean(axis=0) for part in tests])
    ce = sk.log_loss(test_labels, probabilities)
    assert head.metrics["test"]["ce"] == pytest.approx(ce, rel=1e-3)
    guesses = probabilities.argmax(axis=1)
    assert head.metrics["test"]["accuracy"] == sk.accuracy_score(test_labels, guesses)


def test_groups_of_any_size_give_the_same_heads(cache, trained, monkeypatch):
    monkeypatch.setattr(memory, "TOKENS_PER_GROUP", 20)
    grouped = train(cache, CONFIGS, TRAINING)
    same_heads(trained, grouped, rtol=1e-3, atol=1e-5)


def test_a_split_counts_as_one_batch_however_it_is_cut(cache, trained, monkeypatch):
    monkeypatch.setattr(memory, "EVALUATION_TOKENS", 40)
    for one, two in zip(train(cache, CONFIGS, TRAINING), trained, strict=True):
        for split, metrics in two.metrics.items():
            assert one.metrics[split] == pytest.approx(metrics, rel=1e-5)
        for mine, other in zip(one.history, two.history, strict=True):
            assert mine["validation"] == pytest.approx(other["validation"], rel=1e-5)


def test_a_diverging_head_is_stopped_and_named_and_the_others_stay_as_they_are(
    cache, trained, caplog
):
    wild = [
        heads.config("space", seed=9, latent=3, inter=0.2, intra=0.0, learning_rate=1e38),
        heads.config("linear", seed=9, pooling="pooler", learning_rate=1e38),
    ]
    with caplog.at_level(logging.WARNING, "spacelite"):
        first, *others, last = train(cache, [wild[0], *CONFIGS, wild[1]], TRAINING)
    for head in (first, last):
        assert "its loss is" in head.stopped and not head.parameters
        assert f"{head.config.description} was stopped" in caplog.text
        assert len(head.history) < TRAINING.epochs
    assert all(head.stopped is None for head in others)
    same_heads(trained, others, rtol=1e-4, atol=1e-6)


def test_when_every_head_diverges_training_ends(cache):
    config = heads.config("linear", pooling="mean", learning_rate=1e38)
    (stopped,) = train(cache, [config], TRAINING)
    assert stopped.stopped and not stopped.metrics


@pytest.mark.parametrize("pooling", ["first", "last", "mean", "pooler"])
def test_features_are_the_pooled_tokens(pooling, cache):
    parts, _, pooled = read(cache.path, "test")
    expected = {
        "first": [x[0] for x in parts], "last": [x[-1] for x in parts],
        "mean": [x.mean(axis=0) for x in parts], "pooler": pooled,
    }[pooling]  # fmt: skip
    features = batches.TokenSplit(cache.splits["test"]).features(pooling)
    np.testing.assert_allclose(features, np.array(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("head", "training", "problem"),
    [
        ({"learning_rate": 0.0}, {}, "learning_rate=0: give a number above 0"),
        ({"learning_rate": math.nan}, {}, "learning_rate=nan: give a number above 0"),
        ({"weight_decay": -1.0}, {}, "weight_decay=-1: give 0 or a positive number"),
        ({"inter": -0.2}, {}, "inter=-0.2: give 0 or a positive number"),
        ({"intra": math.inf}, {}, "intra=inf: give 0 or a positive number"),
        ({"latent": 0}, {}, "latent=0: give a whole number from 1 to 10,000"),
        ({"latent": 10_001}, {}, "latent=10001: give a whole number from 1 to 10,000"),
        ({"seed": -1}, {}, r"seed=-1: give a whole number from 0 to 2^63 - 1"),
        (
            {"kind": "forest"},
            {},
            "head=forest: choose from space, linear, mlp, additive, ",
        ),
        ({}, {"epochs": 0}, "epochs=0: give a whole number of at least 1"),
        ({}, {"data_seed": 10**20}, "data_seed=100000000000000000000: give a whole number from 0"),
        ({}, {"batch_size": 0}, "batch_size=0: give a whole number of at least 1"),
        ({}, {"patience": 0}, "patience=0: give a whole number of at least 1"),
        ({}, {"clip_norm": 0.0}, "clip_norm=0: give a number above 0"),
        ({}, {"schedule": "linear"}, "schedule=linear: choose from constant, cosine"),
        ({}, {"class_weights": "inverse"}, "class_weights=inverse: choose from none, balanced"),
        ({}, {"monitor": "auc"}, "monitor=auc: choose from loss, ce, accuracy"),
    ],
)
def test_bad_settings_are_refused(head, training, problem, cache):
    settings = {"latent": 3, "inter": 0.0, "intra": 0.0, **head}
    kind = settings.pop("kind", "space")

    def attempt():
        train(cache, [heads.config(kind, **settings)], TrainingConfig(**training))

    assert refusal(attempt).startswith(problem)


def test_no_head_at_all_is_refused(cache):
    said = refusal(train, cache, [], TRAINING)
    assert said == f"there is no head to train: choose from {', '.join(heads.KINDS)}"


def test_unknown_pooling_and_missing_pooler_are_refused(cache, distilbert, reviews, tmp_path):
    from conftest import embed

    with pytest.raises(SpaceliteError, match="pooling=rms: choose from first, last, mean"):
        train(cache, [heads.config("linear", pooling="rms")], TRAINING)
    path = embed(backbone=str(distilbert), dataset=str(reviews), cache_dir=tmp_path).path
    with Cache(path) as without, pytest.raises(SpaceliteError, match="has no pooler"):
        train(without, [heads.config("linear", pooling="pooler")], TRAINING)


def test_an_unfinished_cache_is_refused(cache_path, tmp_path):
    copy = tmp_path / cache_path.name
    copy.write_bytes(cache_path.read_bytes())
    with writing.Writer(copy) as writer:
        writer.unmark("train", 3)
    with Cache(copy) as opened, pytest.raises(SpaceliteError, match="is unfinished"):
        train(opened, CONFIGS, TRAINING)


def test_a_head_that_is_no_number_on_one_split_only_is_stopped(cache_path, tmp_path):
    copy = tmp_path / cache_path.name
    copy.write_bytes(cache_path.read_bytes())
    with h5py.File(copy, "r+") as file:
        split = file["test"]
        split["tokens"][3, 0] = np.nan
        example = int(np.searchsorted(split["offsets"][:], 3, side="right")) - 1
        first, last = split["offsets"][example : example + 2]
        split["crc32"][example] = zlib.crc32(split["tokens"][first:last].tobytes())
    with Cache(copy) as opened:
        (head,) = train(opened, CONFIGS[:1], TrainingConfig(epochs=1))
    assert "nan (test) after the last epoch" in head.stopped


def test_progress_counts_every_token_that_is_read(cache):
    events = []
    train(cache, CONFIGS[:1], TRAINING, on_progress=lambda *event: events.append(event))
    assert events[-1][0] == events[-1][1] and len({total for _, total in events}) == 1


def test_a_head_listed_twice_is_refused(cache):
    with pytest.raises(SpaceliteError, match="a head is listed twice"):
        train(cache, [CONFIGS[0], CONFIGS[1], CONFIGS[0]], TRAINING)


def test_streamed_and_resumed_the_same_heads(cache, tmp_path, monkeypatch):
    streamed(monkeypatch, cache, 200, 4)
    per_epoch = cache.splits["train"].tokens + cache.splits["validation"].tokens
    with pytest.raises(Interrupted):
        train(cache, CONFIGS, TRAINING, cache_dir=tmp_path,
              on_progress=interrupt_after(1.5 * per_epoch))  # fmt: skip
    resumed = train(cache, CONFIGS, TRAINING, cache_dir=tmp_path, resume=True)
    same_heads(resumed, train(cache, CONFIGS, TRAINING), rtol=0, atol=0)
