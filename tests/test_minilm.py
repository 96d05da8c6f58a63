"""The real MiniLM backbone on a few hundred real texts, from embed to report."""

import json

import numpy as np
import pytest
import torch
from conftest import invoke
from safetensors.numpy import load_file

from spacelite.backbones import files as checkpoints
from spacelite.cache import store
from spacelite.data import loading as data

pytestmark = [pytest.mark.slow, pytest.mark.minilm]


def spacelite(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory, real_data):
    folder = tmp_path_factory.mktemp("minilm")
    spacelite(
        "embed", "--backbone", "minilm", "--dataset", real_data / "hatexplain", "--limit", 150,
        "--cache-dir", folder,
    )  # fmt: skip
    return folder


def test_cached_hidden_states_equal_plain_transformers_text_by_text(cache_dir, real_data):
    from transformers import AutoModel, AutoTokenizer

    folder = checkpoints.locate("minilm").folder
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    texts = data.read(str(real_data / "hatexplain"), limit=150)
    (path,) = (cache_dir / "embeddings").glob("*.h5")
    random = np.random.RandomState(0)
    with store.Cache(path) as cache:
        assert cache.label_names == ["hatespeech", "normal", "offensive"]
        for name, split in texts.splits.items():
            stored = cache.splits[name]
            for i in random.choice(len(split), 10, replace=False):
                inputs = tokenizer(split.texts[i], truncation=True, max_length=256,
                                   return_tensors="pt")  # fmt: skip
                with torch.no_grad():
                    output = model.eval()(**inputs)
                expected = output.last_hidden_state[0].numpy()
                rows = stored.read_tokens(*stored.offsets[i : i + 2])
                assert rows.dtype == np.float16 and rows.shape == expected.shape
                assert np.abs(rows - expected).max() / np.abs(expected).max() < 1e-3
                np.testing.assert_allclose(stored.pooled[i], output.pooler_output[0], atol=1e-4)


def test_heads_learn_and_the_report_shows_what_the_weights_say(cache_dir):
    there = ["--cache-dir", cache_dir]
    runs = json.loads(
        spacelite("train", "--inter", 0.2, "--intra", 0.001, "--epochs", 8, "--lr", 0.005,
                  "--batch-size", 32, "--json", *there)
    )  # fmt: skip
    (path,) = (cache_dir / "embeddings").glob("*.h5")
    for run in runs:
        weights = load_file(cache_dir / "runs" / run["id"] / "head.safetensors")
        with store.Cache(path) as cache:
            split = cache.splits["test"]
            tokens = split.read_tokens(0, split.tokens).astype(np.float64)
            parts = np.split(tokens, split.offsets[1:-1])
            labels = split.labels
        if run["head"] == "space":
            spaces = weights["concept_spaces"]
            features = [np.tanh(np.einsum("cld,td->tcl", spaces, x)).mean(0).ravel() for x in parts]
        else:
            features = [x[0] for x in parts]
        logits = np.array(features) @ weights["classifier.weight"].T + weights["classifier.bias"]
        accuracy = (logits.argmax(axis=1) == labels).mean()
        assert run["metrics"]["test"]["accuracy"] == pytest.approx(accuracy, abs=1e-6)
        shifted = logits - logits.max(axis=1, keepdims=True)
        ce = (np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels]).mean()
        assert run["metrics"]["test"]["ce"] == pytest.approx(ce, abs=1e-4)
        assert run["metrics"]["train"]["accuracy"] > 0.45  # of three classes
    shown = spacelite("report", *there)
    assert "hatexplain, minilm, 8 epochs" in shown and "space" in shown
