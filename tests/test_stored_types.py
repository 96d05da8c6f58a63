"""The number types of stored hidden states: int8 and int4 against float64, what rounding costs is
measured, and everything that reads a cache reads every type."""

import logging
import re
import textwrap
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import invoke, refusal, save_backbone, train_and_save
from safetensors.torch import load_file, save_file
from test_embedding import plain, run

from spacelite import heads
from spacelite.backbones.model import Backbone
from spacelite.cache import store
from spacelite.cache.dtypes import DTYPES, Rounding, rounding_sums, stored_type
from spacelite.cache.encoding import Encoder
from spacelite.cache.split import TokenRows
from spacelite.data import loading as data
from spacelite.heads.base import Scratch
from spacelite.inference import explanation, prediction
from spacelite.training import batches, loop, memory
from spacelite.training.config import TrainingConfig

INT8, INT4 = stored_type("int8"), stored_type("int4")
TINY, LARGEST = 2.0**-126, float(np.finfo(np.float32).max)


def in_float64(rows):
    """What rows of int8 stand for: whole numbers (n, d), scales (n, 1), values (n, d)."""
    scale = np.frombuffer(rows[:, -4:].tobytes(), "<f4").astype(np.float64)[:, None]
    whole = rows[:, :-4].astype(np.float64)
    return whole, scale, whole * scale


# int8 alone.


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e-36, 1e-38, 1e-44, 1e20, 3.4e38])
@pytest.mark.parametrize("width", [1, 3, 16, 384])
def test_int8_rounds_to_the_nearest_step(size, width):
    random = np.random.default_rng(0)
    values = random.uniform(-1, 1, (200, width)) * random.uniform(0.01, 1, (200, 1))
    values[3] = 0
    values[4] = -np.abs(values[4])  # the largest is negative
    hidden = (values * size).astype(np.float32)
    rows = INT8.encode(torch.from_numpy(hidden))
    assert rows.dtype == np.int8 and rows.shape == (200, width + 4)
    assert INT8.row_bytes(width) == width + 4
    whole, scale, found = in_float64(rows)
    largest = np.abs(hidden.astype(np.float64)).max(axis=1, keepdims=True)
    step = np.where(largest > 0, np.maximum(largest / 127, TINY), 0)
    np.testing.assert_allclose(scale, step, rtol=1e-6)
    assert np.abs(whole).max() <= 127
    assert (np.abs(found - hidden) <= 0.5 * step * (1 + 1e-4)).all()
    assert INT8.is_finite(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = INT8.decode(rows)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, found, rtol=1e-6, atol=TINY / 100)
    memory = torch.full((200, width), torch.nan)
    assert INT8.widen(torch.from_numpy(rows), memory) is memory
    np.testing.assert_array_equal(memory.numpy(), decoded)


def test_int8_rounds_ties_to_even():
    steps = np.arange(-126.5, 127, 1)
    hidden = np.concatenate([[-127.0], steps]).astype(np.float32) / 8
    rows = INT8.encode(torch.from_numpy(hidden[None]))
    whole, scale, _ = in_float64(rows)
    assert scale[0] == 1 / 8
    np.testing.assert_array_equal(whole[0, 1:], np.rint(steps))


def test_a_token_of_zeros_has_scale_0():
    rows = INT8.encode(torch.tensor([[0.0, -0.0], [0.0, 1e-45]]))
    assert not rows[0].any() and rows.shape == (2, 6)
    np.testing.assert_array_equal(INT8.decode(rows), np.zeros((2, 2)))


def test_the_largest_values_of_float32_are_held():
    hidden = torch.tensor([[LARGEST, -1.0], [-LARGEST, LARGEST / 2]])
    decoded = INT8.decode(INT8.encode(hidden))
    assert np.abs(decoded[:, 0].astype(np.float64) / hidden[:, 0].double().numpy() - 1).max() < 1e-6
    assert decoded[1, 1] == pytest.approx(LARGEST / 2, rel=0.01)


# int4 alone.


def int4_in_float64(rows, width):
    """What rows of int4 stand for: whole numbers (n, d), scales (n, d), values (n, d)."""
    half = width // 2
    codes = rows[:, :half].view(np.uint8).astype(int)
    whole = np.concatenate([codes % 16, codes // 16], axis=1)
    whole = np.where(whole > 7, whole - 16, whole).astype(np.float64)
    bits = np.frombuffer(rows[:, half:].tobytes(), "<u2").astype("<u4") << 16
    scales = np.frombuffer(bits.astype("<u4").tobytes(), "<f4").astype(np.float64)
    scale = np.repeat(scales.reshape(len(rows), -1), 64, axis=1)[:, :width]
    return whole, scale, whole * scale


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e-36, 1e-38, 1e-44, 1e20, 3.4e38])
@pytest.mark.parametrize("width", [2, 16, 64, 66, 130, 384])
def test_int4_rounds_to_the_nearest_step_of_its_group(size, width):
    random = np.random.default_rng(0)
    values = random.uniform(-1, 1, (200, width)) * random.uniform(0.01, 1, (200, 1))
    values[3] = 0
    values[:, :64] *= 0.1  # other groups have other scales
    hidden = (values * size).astype(np.float32)
    rows = INT4.encode(torch.from_numpy(hidden))
    groups = -(-width // 64)
    assert rows.dtype == np.int8 and rows.shape == (200, width // 2 + 2 * groups)
    assert not rows[3].any()
    assert INT4.row_bytes(width) == width // 2 + 2 * groups
    whole, scale, found = int4_in_float64(rows, width)
    for first in range(0, width, 64):
        of_group = slice(first, first + 64)
        exact = hidden[:, of_group].astype(np.float64)
        least, most = exact.min(axis=1, keepdims=True), exact.max(axis=1, keepdims=True)
        largest = np.where(-least > most, least, most)
        step = np.where(largest != 0, np.maximum(np.abs(largest) / 8, TINY), 0) * -np.sign(largest)
        own = scale[:, of_group]
        np.testing.assert_allclose(own, np.broadcast_to(step, own.shape), rtol=2**-8)
        quotients = np.divide(exact, own, out=np.zeros_like(exact), where=own != 0)
        np.testing.assert_array_equal(whole[:, of_group], np.rint(quotients).clip(-8, 7))
    assert INT4.is_finite(rows)
    decoded = INT4.decode(rows)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, found, rtol=1e-6, atol=TINY / 100)
    memory = torch.full((200, width), torch.nan)
    assert INT4.widen(torch.from_numpy(rows), memory) is memory
    np.testing.assert_array_equal(memory.numpy(), decoded)


def test_int4_rounds_ties_to_even_and_has_one_step_more_on_the_side_of_the_largest():
    hidden = np.array([[-8.0, 7.5, 6.5, -0.5, 0.5, 1.5, -7.5, 7.0]], np.float32)
    for sign in (1, -1):
        whole, scale, _ = int4_in_float64(INT4.encode(torch.from_numpy(sign * hidden)), 8)
        assert (scale == sign).all()
        np.testing.assert_array_equal(whole, [[-8, 7, 6, 0, 0, 2, -8, 7]])


def test_the_width_of_int4_is_that_of_its_rows_or_there_is_none():
    widths = {INT4.row_values(width): width for width in range(2, 2000, 2)}
    assert len(widths) == 999
    for values in range(1, 1000):
        width = INT4.hidden_width(values)
        assert width == widths[values] if values in widths else INT4.row_values(width) != values


def test_an_odd_width_has_no_int4(bert, reviews, tmp_path):
    said = refusal(run, tmp_path, bert, reviews, dtype="int4", reduce=3)
    assert said == (
        "dtype=int4: two dimensions share a byte, and hidden states have 3: give them an even "
        "number, or choose another number type"
    )
    assert not list(tmp_path.glob("embeddings/*.h5"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", DTYPES)
def test_a_value_that_is_not_finite_is_seen_in_every_type(name, value):
    stored = stored_type(name)
    hidden = torch.ones(2, 3, 4)
    assert stored.is_finite(stored.encode(hidden))
    hidden[1, 2, 3] = value
    rows = stored.encode(hidden)
    assert not stored.is_finite(rows)
    assert stored.is_finite(rows[0]) and not stored.is_finite(rows[1])


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", DTYPES)
def test_numpy_and_torch_read_the_same(name, count):
    """Rows of any shape and number, into memory that is given or not."""
    stored = stored_type(name)
    hidden = torch.randn(count, 5, 8, generator=torch.Generator().manual_seed(0))
    rows = stored.encode(hidden)
    decoded = stored.decode(rows)
    assert decoded.shape == (count, 5, 8)
    limit = {"float32": 0, "float16": 2e-3, "bfloat16": 0.02, "int8": 0.02, "int4": 0.4}[name]
    np.testing.assert_allclose(decoded, hidden, atol=limit)
    flat = rows.reshape(5 * count, -1)
    into = np.empty((5 * count, 8), np.float32)
    assert stored.decode(flat, into) is into
    np.testing.assert_array_equal(into, decoded.reshape(-1, 8))
    wide = stored.widen(torch.from_numpy(flat), torch.empty(5 * count, 8))
    np.testing.assert_array_equal(wide.numpy(), into)
    for row in range(5):
        alone = stored.widen(torch.from_numpy(flat[row : row + 1]), torch.empty(1, 8))
        np.testing.assert_array_equal(alone.numpy(), into[row : row + 1])


# The engine.


def examples_of(rows, stored, lengths, labels):
    return TokenRows(
        rows=rows, offsets=np.concatenate([[0], np.cumsum(lengths)]), labels=labels,
        stored=stored,
    )  # fmt: skip


@pytest.mark.parametrize("name", DTYPES)
def test_training_on_a_type_equals_training_on_what_it_holds(name):
    random = np.random.default_rng(1)
    stored, given, plainly = stored_type(name), {}, {}
    for split, count in (("train", 60), ("validation", 20)):
        lengths, labels = random.integers(1, 9, count), random.integers(0, 2, count)
        hidden = random.normal(size=(int(lengths.sum()), 12)).astype(np.float32)
        rows = stored.encode(torch.from_numpy(hidden))
        given[split] = examples_of(rows, stored, lengths, labels)
        plainly[split] = examples_of(stored.decode(rows), stored_type("float32"), lengths, labels)
    configs = [
        heads.config("space", learning_rate=0.05),
        heads.config("linear", pooling="mean", learning_rate=0.05),
        heads.config("linear", pooling="last", learning_rate=0.05),
    ]
    training = TrainingConfig(epochs=2, batch_size=16)
    one, other = (
        loop.train(batches.ArrayData(splits, ["a", "b"]), configs, training)
        for splits in (given, plainly)
    )
    for trained, same in zip(one, other, strict=True):
        assert trained.metrics == same.metrics
        for key, value in trained.parameters.items():
            np.testing.assert_array_equal(value, same.parameters[key])


# Caches of every type.


@pytest.fixture(scope="module", params=DTYPES)
def made(request, tmp_path_factory, bert, reviews):
    """A cache folder, a cache of each type, and the type."""
    folder = tmp_path_factory.mktemp(request.param)
    return folder, run(folder, bert, reviews, dtype=request.param), stored_type(request.param)


def test_the_file_holds_what_plain_transformers_give(made, bert, reviews):
    _, done, stored = made
    texts = data.read(str(reviews)).splits["test"].texts
    with store.Cache(done.path) as cache:
        split = cache.splits["test"]
        assert split.width == 16 and split.datasets["tokens"].dtype == stored.numpy
        for i in (0, 7, len(split) - 1):
            _, output = plain(bert, texts[i])
            expected = output.last_hidden_state[0].numpy()
            found = split.read_hidden(i, i + 1)
            largest = np.abs(expected).max(axis=1, keepdims=True)
            share = {
                "float16": 1e-3, "float32": 1e-5, "bfloat16": 5e-3, "int8": 0.5 / 127 + 1e-4,
                "int4": 1 / 8 + 5e-3,  # a value of the other sign may be a whole step off
            }[stored.name]  # fmt: skip
            assert (np.abs(found - expected) <= share * largest).all()


@pytest.mark.parametrize("dtype", ["int8", "int4", "bfloat16"])
def test_types_are_read_as_the_formats_say(dtype, bert, reviews, tmp_path):
    """With h5py and numpy alone, by the code on the page."""
    page = (Path(__file__).parents[1] / "docs" / "formats.md").read_text("utf-8")
    stored = "uint16" if dtype == "bfloat16" else dtype
    code = re.search(rf"\n\n( +rows = train\S+ +# {stored}\n.*?)\n\n", page, re.DOTALL)[1]
    path = run(tmp_path, bert, reviews, dtype=dtype, layers=False).path
    listed = invoke("cache", "list", "--cache-dir", tmp_path).stdout
    assert f"{path.stem} ({dtype})" in listed
    with h5py.File(path) as file, store.Cache(path) as cache:
        first, last = file["train"]["offsets"][7:9]
        names = {"train": file["train"], "first": first, "last": last, "np": np, "d": 16}
        exec(textwrap.dedent(code), names)
        np.testing.assert_array_equal(
            names["hidden_states"], cache.splits["train"].read_hidden(7, 8)
        )


@pytest.mark.parametrize("budget", [np.inf, 0], ids=["resident", "streamed"])
def test_gathered_tokens_are_what_the_file_holds(made, budget, monkeypatch):
    """In any order, in memory that is used again, from windows of a few examples."""
    _, done, stored = made
    monkeypatch.setattr(memory, "WINDOW", 200 * stored.row_bytes(16))
    with store.Cache(done.path) as cache:
        split = cache.splits["train"]
        decoded = np.split(split.read_hidden(0, len(split)), split.offsets[1:-1])
        tokens, scratch = batches.TokenSplit(split, budget=budget), Scratch()
        order = tokens.shuffled(0, 0)
        for examples in np.split(order, [3, 4, 31]):
            tokens.load(examples)
            found = tokens.gather(examples, scratch)
            expected = np.concatenate([decoded[example] for example in examples])
            np.testing.assert_array_equal(found.numpy(), expected)


def test_predict_and_explain_give_what_the_cache_gives(made, bert, reviews):
    folder, done, _ = made
    texts = data.read(str(reviews)).splits["test"].texts
    configs = [
        heads.config("space", learning_rate=0.05),
        heads.config("linear", pooling="mean", learning_rate=0.05),
    ]
    with store.Cache(done.path) as cache:
        saved = train_and_save(folder, cache, configs, TrainingConfig(epochs=2, batch_size=16))
        for trained in saved:
            logits = trained.predictions().logits
            expected = trained.record.task.probabilities(logits)
            # One text at a time has other last bits, which may move a value by a step of int8.
            found = prediction.Predictor(trained, str(bert), device="cpu").predict(texts)
            np.testing.assert_allclose(found.probabilities, expected, atol=2e-3)
            for i in (0, 7):
                example = explanation.explain_example(
                    trained, cache, f"test:{i}", backbone=str(bert), device="cpu"
                )
                np.testing.assert_allclose(example.logits, logits[i], atol=1e-5)
                assert example.difference < 1e-5
                own = explanation.explain_text(trained, texts[i], backbone=str(bert), device="cpu")
                np.testing.assert_allclose(own.logits, logits[i], atol=5e-3)


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_values_that_are_not_finite_are_refused(made, bert, reviews, tmp_path, monkeypatch, value):
    """And nothing of the text that has them is trusted."""
    _, _, stored = made
    real = Backbone.hidden_states

    def broken(self, ids, type_ids, mask):
        found = real(self, ids, type_ids, mask)
        hidden = found.hidden.clone()
        hidden[0, 1, 2] = float(value)
        return found._replace(hidden=hidden)

    monkeypatch.setattr(Backbone, "hidden_states", broken)
    message = refusal(run, tmp_path, bert, reviews, dtype=stored.name, layers=False)
    remedy = (
        "use dtype=bfloat16 or float32" if stored.name == "float16" else "choose another backbone"
    )
    problem = f"{stored.name} cannot hold: {remedy}"
    if value == "nan" and not stored.measured:  # whose scales are NaN for both
        problem = "are not numbers (NaN): choose another backbone, layer or precision"
    assert f"has hidden states that {problem}" in message
    encoder = Encoder(backbone=str(bert), dtype=stored.name)
    assert "text 1 has hidden states that" in refusal(encoder.encode, ["a film"])


# What is lost.


def figures(hidden, stored):
    """Root mean square error over deviation of each dimension, in float64."""
    hidden = np.asarray(hidden, np.float64)
    decoded = stored.decode(stored.encode(torch.from_numpy(hidden.astype(np.float32))))
    return np.sqrt(((decoded - hidden) ** 2).mean(axis=0)) / hidden.std(axis=0)


def test_errors_of_many_batches_are_those_of_all_tokens_at_once():
    random = np.random.default_rng(5)
    hidden = random.normal(size=(700, 6)) * [1, 1, 5, 0.1, 1, 1] + [0, 40, 0, 0, 0, 0]
    hidden[:, 4] = 3  # constant
    hidden[:, 5] *= 1e-9  # what float32 leaves of zeros
    hidden = hidden.astype(np.float32)
    rounding, sums = Rounding(INT8), rounding_sums(INT8)
    for part in np.split(hidden, [1, 3, 400, 401]):
        given = torch.from_numpy(part.reshape(len(part), 1, 6))
        rounding.add(len(part), sums(given, INT8.to_rows(given)).numpy())
    found = rounding.result()
    expected = figures(hidden[:, :4], INT8)
    np.testing.assert_allclose(found.errors[:4], expected, rtol=1e-4)
    assert np.isnan(found.errors[4:]).all() and found.tokens == 700
    assert found.median == pytest.approx(np.median(expected), rel=1e-4)
    assert found.worst == pytest.approx(expected.max(), rel=1e-4)
    assert found.dimension == expected.argmax() == 3


def test_nothing_is_measured_of_floats_or_of_nothing():
    assert rounding_sums(stored_type("float16")) is None
    assert Rounding(INT8).result() is None and Rounding(INT8).log(5) is None
    one, given = Rounding(INT8), torch.ones(1, 3)
    one.add(1, rounding_sums(INT8)(given, INT8.to_rows(given)).numpy())
    assert one.result() is None  # of one token no dimension has a deviation


def all_hidden(cache_dir, backbone, reviews, **options):
    """The hidden states of all tokens of a data set, float32."""
    path = run(cache_dir, backbone, reviews, dtype="float32", reuse=False, **options).path
    with store.Cache(path) as cache:
        return np.concatenate([one.read_hidden(0, len(one)) for one in cache.splits.values()])


def test_embed_says_what_int8_rounds_off(bert, reviews, tmp_path, caplog):
    caplog.set_level(logging.INFO, "spacelite")
    done = run(tmp_path / "cache", bert, reviews, dtype="int8", reuse=False)
    expected = figures(all_hidden(tmp_path / "exact", bert, reviews), INT8)
    np.testing.assert_allclose(done.rounded.errors, expected, rtol=1e-3)
    assert (
        "int8: error of each dimension relative to its deviation: median "
        f"{100 * np.median(expected):.1f}%, worst {100 * expected.max():.1f}% (dimension "
        f"{expected.argmax()})"
    ) in caplog.text
    assert "int8 rounds" not in caplog.text
    assert run(tmp_path / "cache", bert, reviews, dtype="int8").rounded is None  # a hit
    caplog.clear()
    assert run(tmp_path / "cache", bert, reviews).rounded is None
    assert "error of each dimension" not in caplog.text


def test_a_resumed_call_says_how_much_it_measured(bert, reviews, tmp_path, caplog):
    def interrupt(phase, done, total):
        if phase == "embed" and done > total / 2:
            raise KeyboardInterrupt

    options = {"dtype": "int8", "reuse": False, "tokens_per_batch": 100}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, bert, reviews, on_progress=interrupt, **options)
    caplog.set_level(logging.INFO, "spacelite")
    done = run(tmp_path, bert, reviews, **options)
    with store.Cache(done.path) as cache:
        assert 0 < done.rounded.tokens < cache.tokens
        expected = f"deviation ({done.rounded.tokens:,} of {cache.tokens:,} tokens): median"
    assert expected in caplog.text


@pytest.fixture(scope="module")
def dominated(tmp_path_factory):
    """A backbone one of whose dimensions is a thousand times as large as the others."""
    folder = save_backbone("bert", tmp_path_factory.mktemp("backbones") / "dominated")
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"][5] *= 1000
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_dimension_that_destroys_the_others_is_no_secret(dominated, reviews, tmp_path, caplog):
    hidden = all_hidden(tmp_path / "exact", dominated, reviews)
    caplog.clear()
    done = run(tmp_path / "cache", dominated, reviews, dtype="int8", reuse=False)
    expected = figures(hidden, INT8)
    np.testing.assert_allclose(done.rounded.errors, expected, rtol=1e-3, atol=1e-5)
    # The error of all dimensions together says nothing.
    lost = INT8.decode(INT8.encode(torch.from_numpy(hidden))) - hidden
    assert np.linalg.norm(lost) < 0.02 * np.linalg.norm(hidden)
    assert np.median(expected) > 0.5
    worst = expected.argmax()
    assert (
        "int8 rounds 15 of 16 dimensions by more than 20% of their deviation, the worst (dimension "
        f"{worst}) by {100 * expected[worst]:.0f}%: heads may be less accurate; use dtype=float16"
    ) in caplog.text
    # The remedy works: float16 loses a thousandth of every value.
    assert figures(hidden, stored_type("float16")).max() < 0.01


def test_estimators_warn_of_it_too(dominated, caplog):
    Encoder(backbone=str(dominated), dtype="int8").encode(["a good film", "the story was dull"])
    assert "int8 rounds 15 of 16 dimensions" in caplog.text


def test_the_command_says_it_in_its_own_words(dominated, reviews, tmp_path):
    there = ["--dataset", str(reviews), "--device", "cpu", "--cache-dir", str(tmp_path)]
    done = invoke("embed", "--backbone", dominated, "--dtype", "int8", *there)
    assert done.exit_code == 0
    assert "int8: error of each dimension relative to its deviation: median " in done.stderr
    assert "heads may be less accurate; use --dtype float16" in done.stderr
