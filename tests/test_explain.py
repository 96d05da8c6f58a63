"""Contributions of tokens to logits, words from tokens, and the explain command."""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import refusal, train_and_save, write_dataset
from spacelite_cli.app import app
from typer.testing import CliRunner

from spacelite import heads
from spacelite.backbones import Words
from spacelite.cache import Cache, embed
from spacelite.inference import explanation, prediction
from spacelite.training import TrainingConfig

HEADS = [
    heads.config("space", latent=3, inter=0.2, intra=0.001, learning_rate=0.05),
    heads.config("linear", pooling="mean", learning_rate=0.05),
    heads.config("logreg", pooling="mean"),
]
OTHERS = [
    heads.config("linear", pooling="first"),
    heads.config("mlp", pooling="mean"),
]


def spacelite(*arguments, **options):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **options)


@pytest.fixture(scope="module")
def place(tmp_path_factory, bert):
    folder = tmp_path_factory.mktemp("explain")
    data = write_dataset(folder / "data", {"train": 60, "validation": 20, "test": 1000}, classes=3)
    path = embed(backbone=str(bert), dataset=str(data), cache_dir=folder, device="cpu").path
    with Cache(path) as cache:
        training = TrainingConfig(epochs=2, batch_size=16)
        saved = train_and_save(folder, cache, HEADS + OTHERS, training)
    return folder, path, saved


def shares_and_bias(run, hidden):
    """The shares (n, C) of a text's tokens in its logits, and the bias, in float64."""
    head = explanation.Shares(run)
    shares = head.token_logits(hidden.astype(np.float64)) / len(hidden)
    return shares, head.bias.astype(np.float64)


def logits_of_means(run, hidden):
    """A text's logits from the mean over its tokens, from the weights alone, in float64."""
    weights = {name: value.astype(np.float64) for name, value in run.parameters.items()}
    features = hidden.astype(np.float64)
    if run.head.kind == "space":
        spaces = weights["concept_spaces"]
        features = np.tanh(features @ spaces.reshape(-1, spaces.shape[-1]).T)
    return weights["classifier.weight"] @ features.mean(axis=0) + weights["classifier.bias"]


@pytest.mark.parametrize("index", range(len(HEADS)), ids=[head.name for head in HEADS])
def test_contributions_add_up_for_a_thousand_cached_examples(index, place):
    run = place[2][index]
    with Cache(place[1]) as cache:
        split = cache.splits["test"]
        assert len(split) == 1000
        tokens = split.read_tokens(0, split.tokens)
        for first, last in itertools.pairwise(split.offsets):
            hidden = tokens[first:last]
            shares, bias = shares_and_bias(run, hidden)
            assert shares.shape == (last - first, 3)
            logits = logits_of_means(run, hidden)
            np.testing.assert_allclose(bias + shares.sum(axis=0), logits, atol=1e-12)
            # The head in float32, as it predicts.
            (expected,) = prediction.head_logits(run, hidden[None], None)
            np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_token_that_is_left_out_takes_its_share_along(place):
    """The share is what the formula says: removing a token leaves n - 1 parts of the rest."""
    run = place[2][0]
    with Cache(place[1]) as cache:
        hidden = explanation.cached_example(cache, "test:3").hidden
    shares, bias = shares_and_bias(run, hidden)
    without = logits_of_means(run, hidden[1:])
    n = len(hidden)
    np.testing.assert_allclose(without - bias, shares[1:].sum(axis=0) * n / (n - 1), atol=1e-9)


def test_a_text_through_the_backbone_is_explained_as_it_is_predicted(place, bert):
    folder, _, saved = place
    text = "good film but boring story"
    command = ["explain", saved[0].id, text, "--backbone", bert, "--cache-dir", folder]
    result = json.loads(spacelite(*command, "--json").stdout)
    (expected,) = prediction.predict(saved[0], [text], backbone=str(bert)).probabilities
    files = prediction.backbone_files(saved[0], str(bert))
    hidden, _, _ = prediction.one_text(saved[0], text, files)
    np.testing.assert_allclose(result["probabilities"], expected, atol=1e-5)
    total = np.array(result["bias"]) + np.sum(
        [word["contributions"] for word in result["words"]], axis=0
    )
    np.testing.assert_allclose(total, logits_of_means(saved[0], hidden), atol=1e-9)
    # The logits are the forward pass's, in float32.
    assert result["difference"] == np.abs(total - result["logits"]).max() < 1e-6
    assert [word["text"] for word in result["words"]] == ["[CLS]", *text.split(), "[SEP]"]
    assert [word["special"] for word in result["words"]] == [True, *[False] * 5, True]


@pytest.mark.parametrize("index", range(len(OTHERS)), ids=[head.name for head in OTHERS])
def test_heads_that_are_no_sum_over_tokens_are_refused(index, place):
    folder, _, saved = place
    run = saved[len(HEADS) + index]
    result = spacelite("explain", run.id, "good film", "--cache-dir", folder)
    assert result.exit_code == 1
    refused = f"the logits of {OTHERS[index].name} are not a sum over tokens; explain a space head"
    assert refused in result.stderr and result.stdout == ""


def test_pieces_become_words(bert, xlnet):
    from tokenizers import Tokenizer

    for folder, text, expected in (
        (bert, "good zzz, film", ["[CLS]", "good", "zzz", "[UNK]", "film", "[SEP]"]),
        (bert, "bad abc film", ["[CLS]", "bad", "abc", "film", "[SEP]"]),  # a ##b ##c
        (xlnet, "good film", ["good", "film", "<sep>", "<cls>"]),
    ):
        ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
        made = Words(folder).of(ids)
        assert [word for word, _, _ in made] == expected
        assert [n for _, _, numbers in made for n in numbers] == list(range(len(ids)))
        assert any(len(numbers) == 3 for *_, numbers in made) == (folder == bert)


def test_bytes_become_words(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>"], initial_alphabet=alphabet)
    backend.train_from_iterator(["a film, the film"], trainer)
    backend.save(str(tmp_path / "tokenizer.json"))
    for text in ("the café film", "café"):
        made = Words(tmp_path).of([0, *backend.encode(text).ids])
        assert [word for word, _, _ in made] == ["<s>", *text.split()]
        assert [special for _, special, _ in made] == [True, *[False] * len(text.split())]


def test_a_broken_tokenizer_is_one_line(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    assert "tokenizer.json cannot be read" in refusal(Words, tmp_path)


def test_a_cached_example_is_explained_without_torch(place, bert):
    folder, path, saved = place
    arguments = ["explain", saved[0].id, "--example", "test:17", "--backbone", str(bert),
                 "--cache-dir", str(folder)]  # fmt: skip
    code = (
        f"import sys\nfrom spacelite_cli.app import app\ntry:\n    app({arguments!r})\n"
        "finally:\n    print('imported:', *sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    shown, _, imported = done.stdout.partition("imported: ")
    assert not {"torch", "transformers", "datasets"} & set(imported.split()), done.stderr
    assert "add up to the logit" in shown
    result = json.loads(spacelite(*arguments, "--json").stdout)
    with Cache(path) as cache:
        assert result["example"] == [cache.label_names[cache.splits["test"].labels[17]]]
        assert f"labelled {result['example'][0]}" in shown
    assert f"for {result['labels'][int(np.argmax(result['probabilities']))]}" in shown
    strongest = max(result["words"], key=lambda w: abs(w["contributions"][0]))
    shown = spacelite(*arguments, "--label", "0").stdout  # without colours
    assert f"{strongest['text']}({strongest['contributions'][0]:+.2f})" in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "give a text or --example"),
        (["text", "--example", "test:0"], "give either a text or --example ..., not both"),
        (["--example", "test:1000"], "give one of train:0 to train:59"),
        (["--example", "test"], "give one of train:0 to train:59"),
        (["--example", "dev:1"], "test:0 to test:999"),
        (["text", "--label", "9"], "--label 9: choose from 0, 1, 2"),
        ([" "], "text 1 is empty"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments, expected, place, bert):
    folder, _, saved = place
    there = ["--backbone", bert, "--cache-dir", folder]
    result = spacelite("explain", saved[0].id, *arguments, *there)
    assert result.exit_code == 1 and result.stderr.startswith("error: ")
    assert expected in result.stderr and result.stderr.count("\n") == 1
