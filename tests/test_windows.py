"""Texts of more tokens than the model takes: run in overlapping windows, each token once."""

import functools
import itertools

import numpy as np
import pytest
import torch
from conftest import refusal, texts
from test_embedding import run

import spacelite
from spacelite.backbones.files import locate
from spacelite.backbones.tokenizer import Windows, load_tokenizer, tokenize
from spacelite.cache.folder import verify
from spacelite.cache.spec import Encoding
from spacelite.cache.store import Cache
from spacelite.data import loading as data

SIZE, STRIDE = 12, 4


def expected_windows(length, before, after, size, stride):
    """The windows of a text, and for each token the window and its place there, token by token:
    the window with the most tokens of context on the side that has less, where the ends of the text
    hide none."""
    part, body = size - before - after, length - before - after
    starts = [0]
    while starts[-1] + part < body:
        starts.append(min(starts[-1] + stride, body - part))
    windows = [
        [*range(before), *range(before + s, before + s + part), *range(length - after, length)]
        for s in starts
    ]
    places = [(0, token) for token in range(before)]
    for token in range(body):
        best = None
        for number, start in enumerate(starts):
            if start <= token < start + part:
                left = np.inf if start == 0 else token - start
                right = np.inf if start + part == body else start + part - 1 - token
                if best is None or min(left, right) > best[0]:
                    best = min(left, right), (number, before + token - start)
        places.append(best[1])
    return windows, [*places, *((len(starts) - 1, size - after + t) for t in range(after))]


@pytest.mark.parametrize(("before", "after"), [(1, 1), (0, 2), (0, 0), (1, 0)])
def test_each_token_is_read_where_it_has_most_context(before, after):
    for size, length in itertools.product((5, 12, 13), range(13, 60)):
        for stride in range(1, size - before - after + 1):
            found, places = Windows(size, stride, before, after).of(length)
            windows, expected = expected_windows(length, before, after, size, stride)
            assert found.tolist() == windows
            assert [divmod(int(place), size) for place in places] == expected
    alone, places = Windows(12, 4, before, after).of(12)
    assert alone.tolist() == [[*range(12)]] and places.tolist() == [*range(12)]


@functools.cache
def loaded(folder):
    from transformers import AutoModel, AutoTokenizer

    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def plain(folder, text, skipped=0, size=SIZE):
    """The token ids, hidden states, layer means and pooled output of a text, but for the first
    tokens that are skipped: its windows one by one in plain transformers."""
    tokenizer, model = loaded(folder)
    encoded = tokenizer(text, return_special_tokens_mask=True)
    special = encoded.special_tokens_mask
    before, after = special.index(0), special[::-1].index(0)
    ids, types = np.array(encoded.input_ids), np.array(encoded.token_type_ids)
    if len(ids) <= size:
        windows, places = [[*range(len(ids))]], [(0, token) for token in range(len(ids))]
    else:
        windows, places = expected_windows(len(ids), before, after, size, STRIDE)
    layers, pooled = [], []
    for window in windows:
        with torch.no_grad():
            output = model(
                input_ids=torch.tensor(ids[window])[None],
                token_type_ids=torch.tensor(types[window])[None],
                output_hidden_states=True,
            )
        layers.append(torch.stack(output.hidden_states)[:, 0].numpy())
        pooled.append(getattr(output, "pooler_output", None))
    kept = places[skipped:] or places  # an only token is
    whole = np.stack([layers[window][:, place] for window, place in kept], axis=1)
    return ids[-len(kept) :], whole[-1], whole.astype(np.float64).mean(axis=1), pooled[0]


@pytest.mark.parametrize("budget", [None, 20])
@pytest.mark.parametrize("kind", ["bert", "xlnet"])
def test_whole_texts_are_those_of_plain_transformers(kind, budget, request, reviews, tmp_path):
    folder = request.getfixturevalue(kind)
    options = {"windows": True, "stride": STRIDE, "max_length": SIZE, "dtype": "float32"}
    done = run(tmp_path, folder, reviews, **options, tokens_per_batch=budget)
    assert verify(done.path) == []
    longest = 0
    with Cache(done.path) as cache:
        for name, split in data.read(str(reviews)).splits.items():
            stored = cache.splits[name]
            means = stored.layer_means.reshape(len(stored), -1, stored.width)
            for i, text in enumerate(split.texts[:10]):
                ids, hidden, of_layers, pooled = plain(folder, text)
                longest = max(longest, len(ids))
                first, last = stored.offsets[i : i + 2]
                np.testing.assert_array_equal(stored.read_token_ids(first, last), ids)
                np.testing.assert_allclose(stored.read_hidden(i, i + 1), hidden, atol=5e-6)
                np.testing.assert_allclose(means[i], of_layers, atol=2e-3)
                if pooled is not None:
                    np.testing.assert_allclose(stored.pooled[i], pooled[0], atol=5e-6)
        assert longest > 2 * SIZE
        like = Encoding.like(cache.spec, str(folder))
        assert (like.windows, like.stride) == (True, STRIDE)


def test_heads_predictions_and_explanations_are_of_whole_texts(bert, tmp_path):
    own = [" ".join(texts(4, seed=i, longest=30)) for i in range(60)]
    options = {"backbone": bert, "cache_dir": tmp_path, "max_length": 16, "progress": False}
    whole = spacelite.embed(texts=own, labels=[0, 1] * 30, windows=True, **options)
    cut = spacelite.embed(texts=own, labels=[0, 1] * 30, **options)
    assert whole.name != cut.name and whole.state.tokens > 2 * cut.state.tokens
    runs = spacelite.train(
        whole, head=["space", "additive"], blocks="layers+ngrams", epochs=2, progress=False
    )
    for run_ in runs:
        validation = whole["validation"]
        found = run_.predict(validation.texts)
        saved = run_.run.predictions()
        expected = run_.record.task.probabilities(saved.logits)
        np.testing.assert_allclose(found.probabilities, expected, atol=2e-3)
        if run_.record.head.kind not in ("space", "additive"):
            continue
        for shown in (run_.explain(validation.texts[0]), run_.explain(example="validation:0")):
            assert shown.explanation.difference < 1e-2
            words = [word.text for word in shown.explanation.words if not word.special]
            assert words == validation.texts[0].split()
    assert len(tokenize(locate(str(bert)), own[:1], max_length=16, stride=4).ids[0]) > 16


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stride": 3}, "stride=3 has no effect without windows=True"),
        ({"windows": True, "stride": 11}, "stride=11: windows of 12 tokens have 10 of the text"),
        ({"windows": True, "stride": 0}, "stride=0: give a whole number"),
        ({"windows": True, "padding": "max_length"}, "windows=True: padding=max_length would make"),
    ],
)
def test_windows_that_cannot_be_are_refused(options, said, bert, reviews, tmp_path):
    assert refusal(run, tmp_path, bert, reviews, max_length=12, **options).startswith(said)


def test_texts_of_one_window_keep_their_bytes(bert, reviews, tmp_path):
    caches = [
        run(tmp_path / name, bert, reviews, max_length=64, windows=name == "windows").path
        for name in ("windows", "cut")
    ]
    assert len({path.name for path in caches}) == 2
    with Cache(caches[0]) as one, Cache(caches[1]) as other:
        for name, split in one.splits.items():
            assert split.lengths.max() <= 64
            rows = [own.splits[name].read_tokens(0, split.tokens) for own in (one, other)]
            np.testing.assert_array_equal(*rows)
    assert load_tokenizer(locate(str(bert))).model_max_length > 64
