"""Texts -> token ids, with a backbone's own fast tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.backbones.files import BackboneFiles, loading_problem
from spacelite.errors import SpaceliteError

VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
# Model types whose positions are numbered from the padding token's id + 1.
POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet")
# What a tokenizer may use its unknown token for besides.
OTHER_TOKENS = (
    "bos_token", "eos_token", "sep_token", "pad_token", "cls_token", "mask_token"
)  # fmt: skip
TEXTS_PER_CHUNK = 1000  # tokenized in parallel between two progress events

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SpecialIds:
    """The token ids that stand for no words of a text.

    Attributes:
        unknown: Id of the token that stands for what the vocabulary lacks, such as [UNK]; None if
            there is none, or if it is used for something else too (the end of a text in GPT-2).
        others: Ids of the other special tokens, such as [CLS] and [PAD].
    """

    unknown: int | None
    others: frozenset[int]


@dataclass(frozen=True)
class Tokenized:
    """The tokens of N texts.

    Attributes:
        ids: Token ids, special tokens included: one int32 array per text.
        type_ids: Segment ids of the same shapes; None if the tokenizer has no segments.
        masks: 1 for tokens and 0 for padding, of the same shapes; None without padding.
        truncated: Number of texts that were cut off at the maximum length.
        padding_side: Side on which the tokenizer pads: `left` for XLNet, whose classification token
            comes last.
        special: The tokenizer's special ids.
    """

    ids: list[Array]
    type_ids: list[Array] | None
    masks: list[Array] | None
    truncated: int
    padding_side: str
    special: SpecialIds


def tokenize(
    files: BackboneFiles,
    texts: Sequence[str],
    *,
    max_length: int,
    padding: str = "none",
    tokenizer: Any = None,
    on_chunk: Callable[[int], None] = lambda done: None,
) -> Tokenized:
    """Tokenize texts with the backbone's own fast tokenizer, in parallel.

    Args:
        files: The backbone's files.
        texts: N texts.
        max_length: Maximum tokens per text, special tokens included; the rest is cut off.
        padding: `none`, or `max_length` to pad every text to `max_length`, on the tokenizer's side.
        tokenizer: The backbone's tokenizer, if `load_tokenizer` has loaded it.
        on_chunk: Called with the number of texts done so far.

    Returns:
        The tokens of the texts.

    Raises:
        SpaceliteError: There is no usable fast tokenizer, `max_length` is out of range, the
            tokenizer cannot pad, or a text is not valid Unicode.
    """
    tokenizer = load_tokenizer(files) if tokenizer is None else tokenizer
    config = json.loads((files.folder / "config.json").read_text())
    longest = _longest_input(config, tokenizer)
    special = tokenizer.num_special_tokens_to_add()
    if not special < max_length <= longest:
        # A tokenizer without a maximum of its own reports 10**30.
        bounds = f"{special + 1} to {longest}" if longest < 10**9 else f"at least {special + 1}"
        raise SpaceliteError(
            f"max_length={max_length}: {files.name} takes {bounds} tokens", ["max_length"]
        )
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    if padding == "max_length":
        if tokenizer.pad_token_id is None:
            raise SpaceliteError(
                f"padding=max_length: {files.name} has no padding token", ["padding"]
            )
        backend.enable_padding(
            direction=tokenizer.padding_side,
            pad_id=tokenizer.pad_token_id,
            pad_type_id=tokenizer.pad_token_type_id,
            pad_token=tokenizer.pad_token,
            length=max_length,
        )
    else:
        backend.no_padding()
    ids: list[Array] = []
    type_ids: list[Array] = []
    masks: list[Array] = []
    truncated = 0
    for start in range(0, len(texts), TEXTS_PER_CHUNK):
        try:
            encodings = backend.encode_batch_fast(list(texts[start : start + TEXTS_PER_CHUNK]))
        except TypeError as error:  # a lone surrogate, e.g. from a Latin-1 argument
            raise SpaceliteError("a text is not valid Unicode: give it as UTF-8") from error
        for encoding in encodings:
            ids.append(np.array(encoding.ids, np.int32))
            type_ids.append(np.array(encoding.type_ids, np.int32))
            masks.append(np.array(encoding.attention_mask, np.int32))
            truncated += bool(encoding.overflowing)
        on_chunk(len(ids))
    vocabulary = config.get("vocab_size")
    highest = max((int(row.max(initial=0)) for row in ids), default=0)
    if isinstance(vocabulary, int) and highest >= vocabulary:
        raise SpaceliteError(
            f"the tokenizer of {files.name} gives token id {highest}, its model has {vocabulary} "
            "tokens: they do not belong together, fetch or save both again"
        )
    return Tokenized(
        ids=ids,
        type_ids=type_ids if "token_type_ids" in tokenizer.model_input_names else None,
        masks=masks if padding == "max_length" else None,
        truncated=truncated,
        padding_side=tokenizer.padding_side,
        special=_special_ids(tokenizer),
    )


def from_ids(files: BackboneFiles, ids: Array, *, max_length: int, padding: str) -> Tokenized:
    """The tokens of one text whose ids are known, with segments and mask as `tokenize` gives them.

    Args:
        files: The backbone's files.
        ids: Token ids of the text, (n,).
        max_length: As in `tokenize`.
        padding: As in `tokenize`.

    Raises:
        SpaceliteError: There is no usable fast tokenizer.
    """
    # A token's segment depends only on whether it is a special one, and on which.
    sample = tokenize(files, ["a"], max_length=max_length, padding=padding)
    special = sample.special.others
    type_ids = masks = None
    if sample.type_ids is not None:
        segments = dict(zip(sample.ids[0].tolist(), sample.type_ids[0].tolist(), strict=True))
        of_words = next((kind for one, kind in segments.items() if one not in special), 0)
        type_ids = [np.array([segments.get(one, of_words) for one in ids.tolist()], np.int32)]
    if sample.masks is not None:
        padded = sample.ids[0][sample.masks[0] == 0][:1]
        own = np.flatnonzero(~np.isin(ids, padded))
        first, last = (0, own[-1]) if sample.padding_side == "right" else (own[0], len(ids) - 1)
        masks = [((np.arange(len(ids)) >= first) & (np.arange(len(ids)) <= last)).astype(np.int32)]
    return Tokenized([ids], type_ids, masks, 0, sample.padding_side, sample.special)


def special_ids(files: BackboneFiles) -> SpecialIds:
    """The special ids of a backbone's tokenizer. Raises SpaceliteError without a usable one."""
    return _special_ids(load_tokenizer(files))


def _special_ids(tokenizer: Any) -> SpecialIds:
    unknown = tokenizer.unk_token_id
    named = [tokenizer.special_tokens_map.get(name) for name in OTHER_TOKENS]
    shared = tokenizer.unk_token in named
    others = frozenset(tokenizer.all_special_ids) - {unknown}
    if unknown is None or shared:
        return SpecialIds(None, others if unknown is None else others | {unknown})
    return SpecialIds(unknown, others)


def load_tokenizer(files: BackboneFiles) -> Any:
    """Load a backbone's tokenizer. Raises SpaceliteError if there is no usable fast one."""
    from transformers import AutoTokenizer

    problem = f"{files.name} has no fast tokenizer"
    # Without these files transformers creates an empty vocabulary, in which no word is known.
    if not any((files.folder / name).is_file() for name in VOCABULARY_FILES):
        raise SpaceliteError(
            f"{problem}: {files.folder} needs tokenizer.json (PreTrainedTokenizerFast."
            "save_pretrained writes it), or choose another backbone"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            files.folder, use_fast=True, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # whatever the tokenizer's own class raises
        raise SpaceliteError(
            f"{problem} that can be loaded from {files.folder}: {loading_problem(error)}"
        ) from error
    if not tokenizer.is_fast:
        raise SpaceliteError(
            f"{problem} (tokenizer.json): choose a backbone with one, or save one with "
            "PreTrainedTokenizerFast.save_pretrained"
        )
    return tokenizer


def _longest_input(config: dict[str, Any], tokenizer: Any) -> int:
    """The maximum tokens that the backbone takes; relative positions (XLNet, T5) set no limit."""
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    bounds = [tokenizer.model_max_length]
    if isinstance(positions, int) and positions > 0:
        if config.get("model_type") in POSITIONS_AFTER_PADDING:
            positions -= config.get("pad_token_id", 1) + 1
        bounds.append(positions)
    return int(min(bounds))
