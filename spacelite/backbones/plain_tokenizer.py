"""A backbone's tokenizer by the tokenizers library alone, without the seconds that importing
transformers takes, where its files leave nothing to transformers.

Most tokenizer classes of transformers do not take tokenizer.json as it is: they set parts of it
again, from tokenizer_config.json and from defaults of their own, other parts in each version. Where
the file has these parts as any version sets them, and no setting is one that a class may read
otherwise, the file alone gives the same tokenizer. `tokenizer.load_tokenizer` loads all others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKENS = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"
)  # fmt: skip
BERT_TOKENS = {
    "unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}  # fmt: skip
# BERT's classes, and what a model is given by them.
INPUTS = ("input_ids", "token_type_ids", "attention_mask")
BERT_INPUTS = {
    "BertTokenizer": INPUTS,
    "DistilBertTokenizer": ("input_ids", "attention_mask"),
}
BERT_MODELS = ("bert", "distilbert", "electra")
GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")  # the file as it is
OWN_FORMAT = ("stral", "xtral")  # model types such as mistral have files of their own
MOST_GENERIC = 100_000  # tokens, from which transformers may correct the file
UNLIMITED = int(1e30)  # tokens, as transformers has it
# Settings that are read below, and those that no class reads when it makes a tokenizer.
READ = {
    *TOKENS, "tokenizer_class", "model_max_length", "model_input_names", "padding_side",
    "truncation_side", "pad_token_type_id", "added_tokens_decoder", "do_lower_case",
    "tokenize_chinese_chars", "strip_accents",
}  # fmt: skip
UNREAD = {
    "backend", "clean_up_tokenization_spaces", "do_basic_tokenize", "is_local", "local_files_only",
    "max_length", "name_or_path", "never_split", "pad_to_multiple_of", "special_tokens_map_file",
    "stride", "truncation_strategy",
}  # fmt: skip
# What may be there without content.
EMPTY: dict[str, object] = {"additional_special_tokens": [], "extra_special_tokens": {}}


@dataclass(frozen=True)
class PlainTokenizer:
    """What is used of a tokenizer of transformers, by the same names."""

    backend_tokenizer: Any  # tokenizers.Tokenizer
    special_tokens_map: Mapping[str, str]  # by the names in TOKENS
    model_input_names: tuple[str, ...]
    model_max_length: int
    padding_side: str
    truncation_side: str
    pad_token_type_id: int = 0

    def __len__(self) -> int:
        return int(self.backend_tokenizer.get_vocab_size())

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens a text gets, or a pair of texts."""
        return int(self.backend_tokenizer.num_special_tokens_to_add(pair))

    @property
    def pad_token(self) -> str | None:
        """The padding token."""
        return self.special_tokens_map.get("pad_token")

    @property
    def unk_token(self) -> str | None:
        """The token for what the vocabulary lacks."""
        return self.special_tokens_map.get("unk_token")

    @property
    def pad_token_id(self) -> int | None:
        """The id of the padding token."""
        return self._id(self.pad_token)

    @property
    def unk_token_id(self) -> int | None:
        """The id of the token for what the vocabulary lacks."""
        return self._id(self.unk_token)

    @property
    def all_special_ids(self) -> list[int | None]:
        """The ids of all special tokens."""
        return [self._id(token) for token in dict.fromkeys(self.special_tokens_map.values())]

    def _id(self, token: str | None) -> int | None:
        return None if token is None else self.backend_tokenizer.token_to_id(token)


def plain_tokenizer(folder: Path) -> PlainTokenizer | None:
    """The tokenizer of a backbone's folder; None if it is left to transformers."""
    try:
        return _plain(folder)
    except Exception:  # tokenizers has none of its own; transformers says what is wrong
        return None


def _plain(folder: Path) -> PlainTokenizer | None:
    from tokenizers import Tokenizer

    names = ("config", "tokenizer_config", "tokenizer")
    config, settings, content = (_json(folder / f"{name}.json") for name in names)
    named = folder / "special_tokens_map.json"
    kind, model_type = str(settings["tokenizer_class"]), str(config["model_type"])
    inputs = BERT_INPUTS.get(kind.removesuffix("Fast"))
    is_bert = inputs is not None and model_type in BERT_MODELS
    is_generic = kind in GENERIC and not any(name in model_type for name in OWN_FORMAT)
    tokens = _named_tokens(
        settings, _json(named) if named.is_file() else {}, BERT_TOKENS if is_bert else {}
    )
    if (
        not (is_bert or is_generic)
        or tokens is None
        or "auto_map" in config
        or (folder / "added_tokens.json").exists()
        or not settings.keys() <= READ | UNREAD | EMPTY.keys()
        or any(not _equal(settings.get(name, empty), empty) for name, empty in EMPTY.items())
        or not _same_added_tokens(settings, content, tokens)
        or (is_bert and not _is_berts(settings, content, tokens))
    ):
        return None
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if is_generic and not (
        backend.get_vocab_size() <= MOST_GENERIC and content["post_processor"] is not None
    ):
        return None
    longest = settings.get("model_max_length")
    found = PlainTokenizer(
        backend,
        tokens,
        # The default of generic ones is another one in each version.
        tuple(settings.get("model_input_names", inputs or ())),
        UNLIMITED if longest is None else longest,
        settings.get("padding_side", "right"),
        settings.get("truncation_side", "right"),
    )
    usual = (
        type(found.model_max_length) is int
        and found.model_input_names
        and {*found.model_input_names} <= {*INPUTS}
        and _equal(settings.get("pad_token_type_id", 0), 0)  # others are not kept
        and _keeps_sides(found, settings)
    )
    return found if usual else None


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8")))


def _named_tokens(
    settings: Mapping[str, Any], named: Mapping[str, Any], default: Mapping[str, str]
) -> dict[str, str] | None:
    """The special tokens by name; None if a file says otherwise, or has some of other names."""
    tokens = {}
    for name in TOKENS:
        own = settings.get(name, default.get(name))
        if isinstance(own, dict) and own.get("__type") != "AddedToken":
            return None
        token = _text(own)
        if _text(named.get(name, own)) != token or (name in default and token is None):
            return None
        if token is not None:
            tokens[name] = token
    others = {name: value for name, value in named.items() if name not in TOKENS}
    return tokens if others in ({}, {"additional_special_tokens": []}) else None


def _text(token: str | Mapping[str, Any] | None) -> str | None:
    return token["content"] if isinstance(token, Mapping) else token


def _same_added_tokens(
    settings: Mapping[str, Any], content: Mapping[str, Any], tokens: Mapping[str, str]
) -> bool:
    """Whether tokenizer.json has the special tokens, and no others than the settings."""
    added = _by_id(content["added_tokens"])
    special = {entry["content"] for entry in added.values() if entry["special"] is True}
    if "added_tokens_decoder" in settings:
        listed = settings["added_tokens_decoder"].items()
        entries = [{"id": int(number), **entry} for number, entry in listed]
        if not _equal(added, _by_id(entries)):
            return False
    return special >= {*tokens.values()}


def _is_berts(
    settings: Mapping[str, Any], content: Mapping[str, Any], tokens: Mapping[str, str]
) -> bool:
    """Whether all parts of tokenizer.json are those that BERT's classes set."""
    vocabulary, processor = content["model"]["vocab"], content["post_processor"]
    first, last = tokens["cls_token"], tokens["sep_token"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": vocabulary[token], "content": token, "special": True, **flags}
        for token in tokens.values()
    ]
    of_one = [
        {"SpecialToken": {"id": first, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": last, "type_id": 0}},
    ]
    found = {
        "model": {name: value for name, value in content["model"].items() if name != "vocab"},
        "normalizer": content["normalizer"],
        "pre_tokenizer": content["pre_tokenizer"],
        "post_processor": processor,
        "added_tokens": _by_id(content["added_tokens"]),
    }
    set_by_class = {
        "model": {
            "type": "WordPiece",
            "unk_token": tokens["unk_token"],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": settings.get("tokenize_chinese_chars", True),
            "strip_accents": settings.get("strip_accents"),
            "lowercase": settings.get("do_lower_case", True),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": of_one,
            "pair": [
                *of_one,
                {"Sequence": {"id": "B", "type_id": 1}},
                {"SpecialToken": {"id": last, "type_id": 1}},
            ],
            "special_tokens": {
                token: {"id": token, "ids": [vocabulary[token]], "tokens": [token]}
                for token in (first, last)
            },
        },
        "added_tokens": _by_id(added),
    }
    return _equal(found, set_by_class)


def _by_id(entries: Iterable[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    return {int(entry["id"]): entry for entry in entries}


def _equal(one: object, other: object) -> bool:
    """Whether both are the same JSON: 1 is not true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _keeps_sides(found: PlainTokenizer, settings: Mapping[str, Any]) -> bool:
    """Whether tokenizer.json, which says in place of absent settings how texts are cut off and
    padded, says what the defaults are."""
    cut, padded = found.backend_tokenizer.truncation, found.backend_tokenizer.padding
    sides = {found.padding_side, found.truncation_side} <= {"left", "right"}
    as_cut = cut is None or cut["direction"] == found.truncation_side
    return (
        sides
        and (as_cut or "truncation_side" in settings)
        and (
            padded is None
            or (padded["direction"], padded["pad_type_id"], padded["pad_token"])
            == (found.padding_side, found.pad_token_type_id, found.pad_token)
        )
    )
