"""Attention sinks, and texts of which the first token is run with the others but not kept."""

import json

import numpy as np
import pytest
from conftest import refusal, texts, wordpiece
from test_architectures import save
from test_embedding import run
from test_windows import SIZE, STRIDE, loaded, plain

import spacelite
from spacelite.cache.folder import verify
from spacelite.cache.spec import Encoding
from spacelite.cache.store import Cache, side_file
from spacelite.data import loading as data

WINDOWS = {"windows": True, "stride": STRIDE, "max_length": SIZE}


@pytest.fixture(scope="session")
def decoder(tmp_path_factory):
    """As GPT-2: no special token in front, and the first position is a sink in the inner layers."""
    from transformers import AutoModel

    folder = tmp_path_factory.mktemp("backbones") / "tiny-gpt2"
    save("gpt2", folder, vocab_size=wordpiece(folder))
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, "post_processor": None}))
    model = AutoModel.from_pretrained(folder)
    model.wpe.weight.data[0] *= 200
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("options", [{}, WINDOWS, {"prefix": "the story: "}, {"dtype": "int8"}])
@pytest.mark.parametrize("kind", ["bert", "xlnet", "decoder"])
def test_all_but_the_first_token_are_those_of_plain_transformers(
    kind, options, request, reviews, tmp_path
):
    folder = request.getfixturevalue(kind)
    options = {"dtype": "float32", **options}
    done = run(tmp_path, folder, reviews, skip_first=True, tokens_per_batch=100, **options)
    assert verify(done.path) == []
    size, shortest = options.get("max_length", 256), 9
    with Cache(done.path) as cache:
        for name, split in data.read(str(reviews)).splits.items():
            stored = cache.splits[name]
            means = stored.layer_means.reshape(len(stored), -1, stored.width)
            shortest_text = min(range(len(split)), key=lambda i: len(split.texts[i].split()))
            for i in {shortest_text, *range(0, len(split), 5)}:
                whole = options.get("prefix", "") + split.texts[i]
                ids, hidden, of_layers, pooled = plain(folder, whole, 1, size)
                shortest = min(shortest, len(ids))
                first, last = stored.offsets[i : i + 2]
                np.testing.assert_array_equal(stored.read_token_ids(first, last), ids)
                atol = np.abs(hidden).max() / 250 if options["dtype"] == "int8" else 5e-6
                np.testing.assert_allclose(stored.read_hidden(i, i + 1), hidden, atol=atol)
                np.testing.assert_allclose(means[i], of_layers, rtol=1e-3, atol=1e-3)
                if pooled is not None:
                    np.testing.assert_allclose(stored.pooled[i], pooled[0], atol=5e-6)
        assert shortest == (1 if kind == "decoder" and "prefix" not in options else shortest)
        assert cache.pooling == "last" and Encoding.like(cache.spec, str(folder)).skip_first


@pytest.mark.parametrize("prefix", ["", "the story: "])
@pytest.mark.parametrize("kind", ["bert", "decoder"])
def test_heads_predictions_and_explanations_lack_the_first_token(kind, prefix, request, tmp_path):
    folder = request.getfixturevalue(kind)
    own = [f"film {text}" for text in texts(60, longest=20)]
    options = {"skip_first": True, "prefix": prefix}
    cache = spacelite.embed(
        texts=own, labels=[0, 1] * 30, backbone=folder, cache_dir=tmp_path, layer=-2,
        max_length=16, progress=False, **options,
    )  # fmt: skip
    runs = spacelite.train(
        cache, head=["space", "additive"], blocks="layers+ngrams", epochs=2, progress=False
    )
    validation = cache["validation"]
    for saved in runs:
        found = saved.predict(validation.texts, progress=False)
        expected = saved.record.task.probabilities(saved.run.predictions().logits)
        np.testing.assert_allclose(found.probabilities, expected, atol=2e-3)
    lost = kind == "decoder" and not prefix  # there the first token is a word of the text
    for saved in runs[:2]:
        for shown in (
            saved.explain(validation.texts[0], progress=False),
            saved.explain(example="validation:0", progress=False),
        ):
            assert shown.explanation.difference < 1e-2
            words = [word.text for word in shown.explanation.words if not word.special]
            longest = 16 - 3 * bool(prefix) - 2 * (kind == "bert")
            assert words == validation.texts[0].split()[lost:longest]
            special = [word.text for word in shown.explanation.words if word.special]
            of_prefix = {"bert": "the story:", "decoder": "story:"}[kind] if prefix else None
            ends = ["[SEP]"] if kind == "bert" else []
            assert special == [*filter(None, [of_prefix]), *ends]
    # Another data set is embedded alike.
    new = [f"film {text}" for text in texts(20, seed=3, longest=20)]
    evaluated = runs[0].evaluate({"test": (new, ["0", "1"] * 10)}, progress=False)
    given = np.ravel(runs[0].predict(new, progress=False).labels)
    accuracy = np.mean(given == np.array(["0", "1"] * 10))
    assert evaluated.metrics["test"]["accuracy"] == pytest.approx(accuracy)
    for file in ("texts", "layers"):
        side_file(cache.path, file).unlink()
    message = refusal(runs[1].explain, example="validation:0", progress=False)
    assert message.startswith("example=validation:0: ") and "give the text itself" in message


def test_estimators_leave_the_first_token_out(decoder, tmp_path):
    encoder = spacelite.FrozenEncoder(
        backbone=str(decoder), skip_first=True, pooling="mean", dtype="float32", cache_dir=tmp_path
    )
    own = ["good", "the good film", "a good film"]
    expected = [plain(decoder, text, 1, 256)[1].mean(axis=0) for text in own]
    for _ in range(2):  # computed, and from the store
        np.testing.assert_allclose(encoder.transform(own), expected, atol=5e-6)


def test_texts_that_differ_in_the_first_token_alone_are_not_confused(decoder, tmp_path, caplog):
    caplog.set_level("INFO")
    options = {"backbone": decoder, "cache_dir": tmp_path, "dtype": "float32", "progress": False}
    own = ["the good film", "a good film", "good film", "the good film", *texts(8)]
    labels = [0, 1] * 6

    def check(cache):
        for split in ("train", "validation"):
            for i, text in enumerate(cache[split].texts):
                hidden = plain(decoder, text, 1, 256)[1]
                np.testing.assert_allclose(cache[split].tokens(i), hidden, atol=5e-6)

    spacelite.embed(texts=own, labels=labels, **options)
    cache = spacelite.embed(texts=own, labels=labels, skip_first=True, **options)
    assert not cache.copied
    check(cache)
    assert "1 of 12 texts have the same tokens as another one" in caplog.text
    others = ["very good film", "film", *own[:3], *texts(7)]
    other = spacelite.embed(texts=others, labels=labels, skip_first=True, **options)
    assert not other.copied
    check(other)


def test_a_sink_is_reported_with_its_figure_where_the_kept_layer_has_one(
    decoder, bert, tmp_path, caplog
):
    own = texts(30, longest=12)
    options = {"texts": own, "labels": [0, 1] * 15, "cache_dir": tmp_path, "progress": False}
    for backbone, more in ((decoder, {}), (decoder, {"layer": -2, "skip_first": True}), (bert, {})):
        spacelite.embed(backbone=backbone, **more, **options)
    assert "attention sink" not in caplog.text  # the last layer is normalised
    settings = {"backbone": decoder, "layer": [1, -1], "tokens_per_batch": 1, **options}
    spacelite.embed(name="own", **settings)
    tokenizer, model = loaded(decoder)
    norms = []
    for text in own:
        output = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        hidden = output.hidden_states[1][0].detach().double()
        if len(hidden) > 1:
            norms.append([hidden[0].norm(), hidden[1:].norm(dim=1).quantile(0.5)])
    first, others = np.median(norms, axis=0)
    said = (
        f"layer 1: the first token's hidden states are {first / others:,.0f} times as long as the "
        "others' (an attention sink): skip_first=True leaves it out, and with it the beginning of "
        "each text"
    )
    assert first > 30 * others
    assert [record.message for record in caplog.records if "sink" in record.message] == [said]
    caplog.clear()
    spacelite.embed(name="own", **settings)  # it is there already
    spacelite.embed(prefix="the ", name="own", **settings)
    (said,) = (record.message for record in caplog.records if "sink" in record.message)
    assert said.endswith("skip_first=True leaves it out")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"padding": "max_length"}, "skip_first=True: with padding=max_length a text may begin"),
        ({**WINDOWS, "stride": 12}, "stride=12: windows of 12 tokens have 11 of the text"),
    ],
)
def test_what_does_not_go_with_it_is_refused(options, said, decoder, reviews, tmp_path):
    message = refusal(run, tmp_path, decoder, reviews, skip_first=True, **options)
    assert message.startswith(said)


def test_a_first_token_that_is_not_there_is_not_read(bert, reviews, tmp_path):
    cache = spacelite.embed(
        reviews, backbone=bert, skip_first=True, cache_dir=tmp_path, progress=False
    )
    message = refusal(spacelite.train, cache, head="linear", pooling="first", progress=False)
    assert message.startswith(f"pooling=first: cache {cache.name} was embedded with skip_first=")
    (head,) = spacelite.train(cache, head="linear", epochs=1, baselines=False, progress=False)
    assert head.settings["pooling"] == "last"
