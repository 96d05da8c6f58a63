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
# Their position numbers begin behind the padding token's id.
POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet")
TEXTS_PER_CHUNK = 1000  # tokenized in parallel between two progress events

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tokenized:
    """Token ids of N texts, special tokens included: int32 arrays, one a text.

    `type_ids`: the same shape, where the tokenizer distinguishes segments, else None.
    `masks`: 1 for the text's own tokens, 0 for padding; None without padding.
    `truncated`: how many texts were longer than the maximum. `padding_side`: the tokenizer's,
    `left` for XLNet, whose classification token comes last.
    """

    ids: list[Array]
    type_ids: list[Array] | None
    masks: list[Array] | None
    truncated: int
    padding_side: str


def tokenize(
    files: BackboneFiles,
    texts: Sequence[str],
    *,
    max_length: int,
    padding: str = "none",
    on_chunk: Callable[[int], None] = lambda done: None,
) -> Tokenized:
    """Token ids of `texts` with the backbone's own fast tokenizer, in parallel.

    `max_length`: tokens a text at most, special tokens included; the rest is cut off.
    `padding`: `none`, or `max_length` to fill every text up to `max_length` on the tokenizer's
    own side. `on_chunk` is told how many texts are done.

    Raises SpaceliteError without a fast tokenizer, and for a `max_length` beyond the backbone's.
    """
    tokenizer = _load_tokenizer(files)
    config = json.loads((files.folder / "config.json").read_text())
    longest = _longest_input(config, tokenizer)
    special = tokenizer.num_special_tokens_to_add()
    if not special < max_length <= longest:
        # Without a bound of its own, a tokenizer's maximum is 10**30.
        bounds = f"{special + 1} to {longest}" if longest < 10**9 else f"at least {special + 1}"
        raise SpaceliteError(
            f"max_length={max_length}: {files.name} reads {bounds} tokens", ["max_length"]
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
        except TypeError as error:  # half of a surrogate pair, as an argument in Latin-1 leaves it
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
    )


def _load_tokenizer(files: BackboneFiles) -> Any:
    from transformers import AutoTokenizer

    problem = f"{files.name} has no fast tokenizer"
    # transformers makes an empty vocabulary up where it finds none: every word is unknown.
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
    """The most tokens the backbone takes; relative positions (XLNet, T5) set no bound."""
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    bounds = [tokenizer.model_max_length]
    if isinstance(positions, int) and positions > 0:
        if config.get("model_type") in POSITIONS_AFTER_PADDING:
            positions -= config.get("pad_token_id", 1) + 1
        bounds.append(positions)
    return int(min(bounds))
