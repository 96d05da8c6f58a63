"""Tiny random models of many architectures, each against plain transformers on each text alone.

`docs/architectures.md` lists them; `python tests/test_architectures.py` prints its table.
"""

import copy
import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import refusal, texts, wordpiece

import spacelite
from spacelite.backbones.files import locate
from spacelite.backbones.model import Backbone, Forward
from spacelite.backbones.tokenizer import SpecialIds, Tokenized, longest_input
from spacelite.cache.folder import verify
from spacelite.cache.store import Cache

PAGE = Path(__file__).parent.parent / "docs" / "architectures.md"
LENGTHS = (3, 40, 5, 100, 9, 60, 1, 100, 17, 3)  # tokens; short and long texts in turn

# The same sizes under all names that architectures have for them.
SIZES = {
    "vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "sep_token_id": 2,
    "hidden_size": 32, "d_model": 32, "n_embd": 32, "dim": 32, "embedding_size": 32, "emb_dim": 32,
    "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2,
    "encoder_layers": 2, "decoder_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "n_head": 2, "n_heads": 2, "num_heads": 2,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "head_dim": 16, "d_kv": 16,
    "intermediate_size": 48, "d_ff": 48, "d_inner": 48, "hidden_dim": 48, "ffn_dim": 48,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "max_position_embeddings": 128, "n_positions": 128, "max_seq_len": 128,
}  # fmt: skip
SPARSE = {"block_size": 4, "num_random_blocks": 1}
WINDOWS = {"attention_window": [8, 8]}
EXPERTS = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
# Model type -> its settings besides SIZES; those that are None are left out of SIZES.
ARCHITECTURES: dict[str, dict[str, object]] = {
    "albert": {}, "bart": {}, "bert": {}, "bert-generation": {}, "big_bird": SPARSE,
    "bigbird_pegasus": SPARSE, "biogpt": {}, "blenderbot": {}, "blenderbot-small": {}, "bloom": {},
    "camembert": {},
    "codegen": {"n_head": 4, "num_attention_heads": 4, "num_heads": 4, "rotary_dim": 8},
    "convbert": {}, "data2vec-text": {}, "deberta": {}, "deberta-v2": {},
    "deepseek_v4": {
        **EXPERTS, "mlp_layer_types": ["hash_moe", "moe"], "num_key_value_heads": 1,
        "layer_types": ["heavily_compressed_attention", "compressed_sparse_attention"],
        "compress_rates": {"compressed_sparse_attention": 4, "heavily_compressed_attention": 8},
        "partial_rotary_factor": 0.5, "sliding_window": 16, "q_lora_rank": 16, "o_lora_rank": 8,
        "o_groups": 1, "index_head_dim": 8, "index_n_heads": 2, "index_topk": 4,
    },
    "distilbert": {},
    "electra": {}, "ernie": {}, "esm": {"mask_token_id": 3}, "eurobert": {},
    "falcon": {"head_dim": None}, "flaubert": {}, "fnet": {},
    "funnel": {"block_sizes": [1, 1], "d_head": 16, "num_hidden_layers": None,
               "architectures": ["FunnelModel"]},
    "gemma": {}, "gemma2": {}, "gemma3_text": {}, "gpt2": {}, "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]}, "gpt_neox": {},
    "gptj": {"rotary_dim": 8}, "granite": {}, "ibert": {},
    "led": {**WINDOWS, "max_encoder_position_embeddings": 128,
            "max_decoder_position_embeddings": 128},
    "llama": {}, "longformer": WINDOWS,
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 16}, "m2m_100": {}, "mamba": {},
    "marian": {}, "markuplm": {"max_depth": 4, "xpath_unit_hidden_size": 8}, "mbart": {},
    "megatron-bert": {}, "mistral": {}, "mixtral": {"num_local_experts": 2},
    "mobilebert": {"intra_bottleneck_size": 16, "num_feedforward_networks": 1}, "modernbert": {},
    "mpnet": {}, "mpt": {}, "mra": {}, "mt5": {}, "olmo2": {}, "opt": {}, "pegasus": {}, "phi": {},
    "phi3": {}, "plbart": {}, "qwen2": {}, "qwen3": {}, "rembert": {}, "roberta": {},
    "roberta-prelayernorm": {}, "roformer": {},
    "rwkv": {"attention_hidden_size": 32, "rescale_every": 1}, "smollm3": {}, "splinter": {},
    "squeezebert": {f"{part}_groups": 1 for part in
                    ("q", "k", "v", "post_attention", "intermediate", "output")},
    "stablelm": {}, "starcoder2": {}, "t5": {}, "umt5": {}, "xglm": {}, "xlm": {},
    "xlm-roberta": {}, "xlm-roberta-xl": {}, "xlnet": {"max_position_embeddings": None},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"}, "yoso": {},
    # Variants of these.
    "bert, tuples": {"return_dict": False},
    "esm, rotary": {"mask_token_id": 3, "position_embedding_type": "rotary"},
    "llama, dynamic positions": {"rope_parameters": DYNAMIC, "max_position_embeddings": 32},
    "opt, projected": {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "t5, encoder alone": {},
}  # fmt: skip


def save(architecture: str, folder: Path, **settings: object) -> None:
    from transformers import CONFIG_MAPPING, AutoModel, T5EncoderModel

    wanted = {**SIZES, **ARCHITECTURES[architecture], **settings}
    config = CONFIG_MAPPING[architecture.partition(",")[0]](
        **{name: value for name, value in wanted.items() if value is not None}
    )
    torch.manual_seed(0)
    if architecture == "t5, encoder alone":
        config.is_encoder_decoder = False
        model: Any = T5EncoderModel(config)
    else:
        model = AutoModel.from_config(config)
    assert sum(weight.numel() for weight in model.parameters()) < 100_000, "models stay tiny"
    model.save_pretrained(folder)


def compared(
    folder: Path, layer: int = -1, precision: str = "float32"
) -> tuple[Backbone, float, list]:
    """The model, the largest relative difference of a text's hidden states, run with the others,
    from plain transformers on it alone in float32, and the texts that those cannot run."""
    from transformers import AutoModel, T5EncoderModel

    kind = T5EncoderModel if "T5EncoderModel" in (folder / "config.json").read_text() else AutoModel
    plain = kind.from_pretrained(folder, dtype=torch.float32).eval()
    plain.config.return_dict = True
    if plain.config.is_encoder_decoder:
        plain = plain.get_encoder()
    random = np.random.default_rng(0)
    ids = [random.integers(5, 60, length).astype(np.int32) for length in LENGTHS]
    whole, special = np.zeros(len(ids), bool), SpecialIds(None, frozenset())
    tokens = Tokenized(ids, None, None, whole, "right", special)
    model = Backbone(locate(str(folder)), layer=layer, device="cpu", precision=precision)
    # All layers, as long as they are alike.
    others = tuple(range(model.layers - 1)) if layer == -1 else ()
    model = model.reading(layer=layer, others=others)
    forward = Forward(model, tokens, lambda hidden: hidden, 128)
    ours: dict[int, list[np.ndarray]] = {}

    def finish(batch, output):
        ours[int(batch[0])] = [states[0] for states in output.states]

    for _ in forward.batches([np.array([text]) for text in range(len(ids))], finish):
        pass
    largest, refused = 0.0, []
    for text, layers in ours.items():
        alone = copy.deepcopy(plain)
        try:
            with torch.inference_mode():
                output = alone(
                    input_ids=torch.from_numpy(ids[text])[None].long(), output_hidden_states=True
                )
        except Exception:  # Funnel's pooling needs several tokens
            refused.append(text)
            continue
        for number, hidden in zip((layer, *others), layers, strict=True):
            expected = output.last_hidden_state if number == -1 else output.hidden_states[number]
            expected = expected[0].numpy().astype(np.float64)
            assert hidden.shape == expected.shape
            difference = np.linalg.norm(hidden - expected) / np.linalg.norm(expected)
            largest = max(largest, float(difference))
    return model, largest, refused


def in_half(folder: Path) -> Backbone | None:
    """The model in bfloat16, near plain transformers in float32; None if it does not run."""
    if folder.name == "fnet":  # a Fourier transform
        message = refusal(Backbone, locate(str(folder)), layer=-1, device="cpu",
                          precision="bfloat16")  # fmt: skip
        assert message.startswith("fnet does not run with precision=bfloat16: ")
        assert message.endswith("; use precision=float32")
        return None
    model, rounded, _ = compared(folder, precision="bfloat16")
    assert 1e-4 < rounded < 0.05, folder.name
    return model


def row(architecture: str, model: Backbone, half: Backbone | None) -> str:
    """The row of the page's table."""
    notes = {
        "decoder": model.is_causal,
        "each batch runs on a copy, since texts change the model": model._changes,
        f"texts of fewer than {model._shortest} tokens are padded": model._shortest > 1,
        "layers differ in shape: no means of all layers": not model.layers,
        "half precision by autocast": half is not None and half._mixed,
        "no half precision": half is None,
        "all layers are in memory at once": model._layers is None,
    }
    listed = "; ".join(note for note, is_true in notes.items() if is_true)
    return f"| {architecture} | {type(model.model).__name__} | {listed} |"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_architecture_gives_what_plain_transformers_gives_on_each_text_alone(tmp_path):
    rows = []
    for name in ARCHITECTURES:
        save(name, tmp_path / name)
        model, largest, refused = compared(tmp_path / name)
        assert largest < 1e-5, name
        assert refused == ([LENGTHS.index(1)] if name == "funnel" else []), name
        rows.append(row(name, model, in_half(tmp_path / name)))
    page = PAGE.read_text("utf-8")
    begin = page.index("| --- |")
    assert page[begin:].splitlines()[1:] == rows


ALONE = ["big_bird", "funnel", "llama, dynamic positions", "rwkv"]


@pytest.mark.parametrize("name", ALONE)
def test_texts_do_not_change_the_model_for_later_ones(name, tmp_path):
    save(name, tmp_path)
    assert compared(tmp_path)[1] < 1e-5


@pytest.mark.parametrize("layer", [-1, 0, 1, -2])
def test_a_layer_of_another_width_is_read_whole(layer, tmp_path):
    save("opt, projected", tmp_path)
    model, largest, _ = compared(tmp_path, layer)
    assert largest < 1e-5
    assert model.width == (16 if layer == -1 else 32)


def test_layers_of_different_widths_have_a_cache_each(tmp_path):
    save("opt, projected", tmp_path / "opt", vocab_size=wordpiece(tmp_path / "opt"))
    first = spacelite.embed(
        texts=texts(12), labels=[0, 1] * 6, backbone=tmp_path / "opt", layer=[-1, 1],
        cache_dir=tmp_path / "cache", dtype="float32", max_length=32, progress=False,
    )  # fmt: skip
    for cache, width in ((first, 16), (*first.others, 32)):
        with Cache(cache.path) as opened:
            assert {split.width for split in opened.splits.values()} == {width}
        assert not verify(cache.path)


def test_a_model_that_gives_no_hidden_states_of_texts_is_refused_in_one_line(tmp_path):
    from transformers import CLIPConfig, CLIPModel

    wordpiece(tmp_path)
    small = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}
    config = CLIPConfig(text_config=small, vision_config={**small, "image_size": 32})
    model = CLIPModel(config)
    model.save_pretrained(tmp_path)
    with pytest.raises((AttributeError, ValueError)) as own:
        model(input_ids=torch.zeros(1, 3, dtype=torch.long))
    message = refusal(Backbone, locate(str(tmp_path)), layer=-1, device="cpu")
    assert message == (
        f"{tmp_path.name} gives no hidden states of texts: a CLIPModel needs more than token ids, "
        f"or returns something else ({own.value}); choose another backbone"
    )


@pytest.mark.parametrize(("name", "layer"), [("funnel", 2), ("deepseek_v4", 1)])
def test_a_layer_without_one_row_for_each_token_is_refused(name, layer, tmp_path):
    save(name, tmp_path / name)
    assert compared(tmp_path / name)[1] < 1e-5  # the last layer has them
    message = refusal(Backbone, locate(str(tmp_path / name)), layer=layer, device="cpu")
    assert message == (
        f"layer={layer} of {name} does not have one hidden state for each token: choose another "
        "layer"
    )


@pytest.mark.parametrize("name", ["roberta", "longformer", "data2vec-text", "esm", "luke", "mpnet"])
def test_positions_counted_from_the_padding_id_are_not_taken_for_tokens(name, tmp_path):
    # The position of token n is the padding id + 1 + n: 30 positions are for 28 tokens.
    size = wordpiece(tmp_path)
    save(name, tmp_path, vocab_size=size, max_position_embeddings=30, pad_token_id=1)
    files = locate(str(tmp_path))
    assert longest_input(files) == 28
    model = Backbone(files, layer=-1, device="cpu")
    ids = np.full((1, 28), 5)
    assert model.hidden_states(ids, None, None).hidden.shape == (1, 28, 32)
    if name != "longformer":  # which pads by itself
        with pytest.raises((IndexError, RuntimeError)):
            model.hidden_states(np.full((1, 29), 5), None, None)


def test_a_limit_below_the_default_max_length_is_used_and_said(tmp_path, caplog):
    caplog.set_level("INFO")
    save("bert", tmp_path / "small", vocab_size=wordpiece(tmp_path / "small"))
    settings = {"backbone": tmp_path / "small", "cache_dir": tmp_path, "progress": False}
    cache = spacelite.embed(texts=texts(12), labels=[0, 1] * 6, **settings)
    with Cache(cache.path) as opened:
        assert opened.spec.max_length == 128
    assert "small takes at most 128 tokens: max_length is that" in caplog.text
    message = refusal(
        spacelite.embed, texts=texts(12), labels=[0, 1] * 6, max_length=129, **settings
    )
    assert message == "max_length=129: small takes 3 to 128 tokens"


@pytest.mark.parametrize(("name", "expected"), [("llama", "last"), ("bert", "first")])
def test_the_last_token_of_a_decoder_stands_for_the_text(name, expected, tmp_path):
    """The others have not seen the whole text."""
    save(name, tmp_path / name, vocab_size=wordpiece(tmp_path / name))
    assert Backbone(locate(str(tmp_path / name)), layer=-1, device="cpu").is_causal == (
        expected == "last"
    )
    settings = {"backbone": tmp_path / name, "cache_dir": tmp_path, "progress": False}
    cache = spacelite.embed(texts=texts(40), labels=[0, 1] * 20, max_length=24, **settings)
    with Cache(cache.path) as opened:
        assert opened.pooling == expected
    (run,) = spacelite.train(cache, head="linear", epochs=1, baselines=False, progress=False)
    assert run.settings["pooling"] == expected
    head = spacelite.LinearClassifier(
        backbone=str(tmp_path / name), cache_dir=tmp_path, max_length=24, epochs=1
    )
    assert head.fit(texts(40), [0, 1] * 20).config_.pooling == expected


@pytest.mark.parametrize("name", ["deberta", "fnet", "mra"])
def test_half_precision_or_a_line_that_names_the_remedy(name, tmp_path):
    save(name, tmp_path / name)
    model = in_half(tmp_path / name)
    assert (model is None) == (name == "fnet")
    assert model is None or model._mixed == (name == "mra")


@pytest.mark.parametrize("depth", [3, 12])
def test_no_more_layers_are_in_memory_than_are_wanted(depth, tmp_path):
    save("bert", tmp_path, num_hidden_layers=depth)
    model = Backbone(locate(str(tmp_path)), layer=-1, others=(1,), device="cpu", all_layers=True)
    alive, most = weakref.WeakSet(), []

    def note(module, arguments, output):
        alive.add(output if isinstance(output, torch.Tensor) else output[0])
        most.append(len(alive))

    for layer in model.model.encoder.layer:
        layer.register_forward_hook(note)
    output = model.hidden_states(np.full((2, 20), 5), None, None)
    # What a layer takes and gives, and layer 1.
    assert max(most) <= 3 and len(most) == depth
    assert output.means.shape == (2, depth + 1, 32)


if __name__ == "__main__":
    for architecture in sys.argv[1:] or ARCHITECTURES:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / architecture
            save(architecture, place)
            print(row(architecture, compared(place)[0], in_half(place)))
