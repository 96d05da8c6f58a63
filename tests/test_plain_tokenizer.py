"""Tokenizers that are loaded without transformers are those that transformers loads."""

import json
import random
from pathlib import Path

import pytest
from conftest import texts, wordpiece

from spacelite.backbones.plain_tokenizer import plain_tokenizer
from spacelite.data import loading

TEXTS = [
    *texts(20), "", " ", "Good FILM", "café café naïve", "电影 good 不好", "a [MASK] b[SEP]c [unk]",
    "x" * 150,
    "good\tfilm\n\u200bwell\u00a0acted", "👍🏽 film!!! (very) good-bad", "\x00\ufffd bad",
]  # fmt: skip
SAME = (
    "special_tokens_map", "model_max_length", "padding_side", "truncation_side", "pad_token",
    "pad_token_id", "pad_token_type_id", "unk_token", "unk_token_id",
)  # fmt: skip
PAIR = [
    {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
    {"Sequence": {"id": "A", "type_id": 0}},
    {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    {"Sequence": {"id": "B", "type_id": 1}},
    {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
]
BERT = {"tokenizer_class": "BertTokenizer"}
CASED = {"clean_text": True, "handle_chinese_chars": True, "lowercase": False,
         "strip_accents": None, "type": "BertNormalizer"}  # fmt: skip


def same(folder: Path, sample: list[str]) -> bool:
    """Whether a folder's tokenizer is loaded without transformers; it is then the same."""
    from transformers import AutoTokenizer

    plain = plain_tokenizer(folder)
    if plain is None:
        return False
    other = AutoTokenizer.from_pretrained(folder)
    for name in SAME:
        assert getattr(plain, name) == getattr(other, name), name
    assert list(plain.model_input_names) == list(other.model_input_names)
    assert {*plain.all_special_ids} == {*other.all_special_ids}
    assert len(plain) == len(other)
    for pair in (False, True):
        counts = (each.num_special_tokens_to_add(pair=pair) for each in (plain, other))
        assert len({*counts}) == 1
    for given in (sample, list(zip(sample, reversed(sample), strict=True))):
        assert encoded(plain.backend_tokenizer, given) == encoded(other.backend_tokenizer, given)
    return True


def encoded(backend, sample: list):
    """All that is read of texts, or the error if the tokenizer's files do not fit together."""
    backend.no_padding()
    backend.no_truncation()
    try:
        return [
            (each.ids, each.type_ids, each.offsets, each.special_tokens_mask)
            for each in backend.encode_batch(sample)
        ]
    except Exception as error:
        return str(error)


def saved(folder: Path, changes: dict[str, dict[str, object] | None]) -> Path:
    """A tokenizer of BERT's form, its files changed: settings to add, by the name of the file; None
    takes a setting away."""
    wordpiece(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["post_processor"]["pair"] = PAIR
    (folder / "tokenizer.json").write_text(json.dumps(content))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for name, settings in changes.items():
        path = folder / f"{name}.json"
        content = json.loads(path.read_text()) if path.exists() else {}
        for key, value in settings.items():
            *inner, last = key.split(".")
            part = content
            for step in inner:
                part = part[step]
            part[last] = value
            if value is None and name != "tokenizer":
                del part[last]
        path.write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"config": {"model_type": "modernbert"}},
        {"tokenizer_config": BERT},
        {"tokenizer_config": {"tokenizer_class": "BertTokenizerFast", "model_max_length": None}},
        {"tokenizer_config": {**BERT, "model_input_names": None}},
        {"tokenizer_config": {**BERT, "model_input_names": None, "pad_token": None},
         "config": {"model_type": "electra"}},
        {"tokenizer_config": {"tokenizer_class": "DistilBertTokenizer", "model_input_names": None},
         "config": {"model_type": "distilbert"}},
        {"tokenizer_config": {**BERT, "do_lower_case": False}, "tokenizer": {"normalizer": CASED}},
        {"tokenizer_config": {**BERT, "padding_side": "left", "truncation_side": "left"}},
        {"tokenizer_config": BERT,
         "tokenizer": {"truncation": {"direction": "Right", "max_length": 3, "stride": 0,
                                      "strategy": "LongestFirst"}}},
        {"tokenizer_config": BERT, "special_tokens_map": {"unk_token": "[UNK]"}},
    ],
)  # fmt: skip
def test_plain_ones_are_those_of_transformers(changes, tmp_path):
    assert same(saved(tmp_path, changes), TEXTS)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer_config": {"tokenizer_class": "RobertaTokenizer"}},
        {"tokenizer_config": {**BERT, "do_lower_case": False}},
        {"tokenizer_config": {**BERT, "tokenize_chinese_chars": False}},
        {"tokenizer_config": {**BERT, "strip_accents": False}},
        {"tokenizer_config": {**BERT, "add_prefix_space": True}},
        {"tokenizer_config": {**BERT, "unk_token": "[MASK]"}},
        {"tokenizer_config": {**BERT, "additional_special_tokens": ["good"]}},
        {"tokenizer_config": {**BERT, "model_max_length": 1e30}},
        {"tokenizer_config": {**BERT, "auto_map": {"AutoTokenizer": ["a.B", "a.C"]}}},
        {"tokenizer_config": BERT, "config": {"model_type": "mpnet"}},
        {"tokenizer_config": BERT, "special_tokens_map": {"mask_token": "good"}},
        {"tokenizer_config": BERT, "added_tokens": {"good film": 80}},
        {"tokenizer_config": BERT, "tokenizer": {"model.max_input_chars_per_word": 5}},
        {"tokenizer_config": BERT, "tokenizer": {"pre_tokenizer": {"type": "Whitespace"}}},
        {"tokenizer_config": BERT, "tokenizer": {"post_processor": None}},
        {"tokenizer_config": BERT, "tokenizer": {"post_processor.pair": PAIR[1:]}},
        {"tokenizer_config": BERT,
         "tokenizer": {"truncation": {"direction": "Left", "max_length": 3, "stride": 0,
                                      "strategy": "LongestFirst"}}},
        {"tokenizer_config": {"model_input_names": None}},
        {"tokenizer": {"post_processor": None}},
        {"tokenizer": {"added_tokens": []}},
        {"config": {"model_type": "mistral"}},
    ],
)  # fmt: skip
def test_what_a_class_may_read_otherwise_is_left_to_transformers(changes, tmp_path):
    assert plain_tokenizer(saved(tmp_path, changes)) is None


def test_whatever_files_say_a_plain_one_is_the_same(tmp_path):
    """Values of the files, changed at random."""
    chance, plain = random.Random(0), 0
    kinds = ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "TokenizersBackend"]
    values = [None, True, False, 0, 1, "", "left", "right", "[PAD]", "[SEP]", "good", [], {}]
    for number in range(400):
        folder = saved(
            tmp_path / str(number),
            {
                "config": {"model_type": chance.choice(["bert", "distilbert", "electra"])},
                "tokenizer_config": {"tokenizer_class": chance.choice(kinds)},
            },
        )
        file = chance.choice(["tokenizer", "tokenizer_config", "special_tokens_map"])
        path = folder / f"{file}.json"
        content = json.loads(path.read_text()) if path.exists() else {}
        part, key = content, None
        while isinstance(part, dict):
            keys = [*part, *(["do_lower_case", "strip_accents"] if part is content else [])]
            keys.remove("vocab") if "vocab" in keys else None
            if not keys:
                break
            key = chance.choice(keys)
            if not isinstance(part.get(key), dict) or chance.random() < 0.3:
                part[key] = chance.choice(values)
                break
            part = part[key]
        path.write_text(json.dumps(content))
        plain += same(folder, TEXTS[15:])
    assert plain > 20


@pytest.mark.slow
@pytest.mark.minilm
def test_minilm_reads_real_texts_alike(real_data):
    from spacelite.backbones.files import locate

    for name in ("hatexplain", "imdb"):
        splits = loading.read(str(real_data / name), limit=None).splits.values()
        sample = [text for split in splits for text in split.texts][::7]
        assert same(locate("minilm").folder, sample)
