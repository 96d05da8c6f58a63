"""The published numbers of trainable parameters, out of the published architectures: built from
their configurations with random weights, through embed and train. A single layer, on which they do
not depend."""

import json

import pytest
from conftest import _xlnet_tokenizer, invoke, wordpiece, write_dataset


def spacelite(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def architecture(name, folder):
    """The base-sized model (width 768) with one layer and the tests' own vocabulary."""
    import transformers

    size = (_xlnet_tokenizer if name == "XLNet" else wordpiece)(folder)
    # XLNet's configuration defaults to the large model; these are the base model's sizes.
    sizes = {
        "DistilBert": {"n_layers": 1},
        "Bert": {"num_hidden_layers": 1},
        "XLNet": {"d_model": 768, "n_layer": 1, "n_head": 12, "d_inner": 3072},
    }[name]
    config = getattr(transformers, f"{name}Config")(vocab_size=size, **sizes)
    model = getattr(transformers, f"{name}Model")(config)
    model.save_pretrained(folder, safe_serialization=True)
    assert (config.hidden_size, config.num_hidden_layers) == (768, 1)
    return folder


@pytest.mark.parametrize(
    ("name", "classes", "options", "published"),
    [
        ("DistilBert", 2, ["--latent", "3,128", "--head", "space,mlp"], [4622, 197122, 592130]),
        pytest.param(
            "Bert", 2, ["--head", "linear", "--pooling", "pooler"], [1538], marks=pytest.mark.slow
        ),
        pytest.param("Bert", 3, ["--pooling", "pooler"], [6942, 2307], marks=pytest.mark.slow),
        # Linear on the last token, as it pads on the left.
        pytest.param("XLNet", 2, [], [4622, 1538], marks=pytest.mark.slow),
    ],
)
def test_published_numbers_of_parameters(name, classes, options, published, tmp_path):
    backbone = architecture(name, tmp_path / name)
    sizes = {"train": 8, "validation": 4, "test": 4}
    data = write_dataset(tmp_path / "data", sizes, classes, longest=6)
    there = ["--cache-dir", tmp_path, "--json"]
    made = spacelite("embed", "--backbone", backbone, "--dataset", data, *there)
    assert made["complete"]
    runs = spacelite("train", "--epochs", 1, *options, *there)
    assert [run["train_params"] for run in runs] == published
    if name == "XLNet":
        assert runs[1]["settings"]["pooling"] == "last"
