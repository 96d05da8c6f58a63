"""Texts -> token ids, with a backbone's own fast tokenizer; token ids -> words, and how many tokens
are unknown to the backbone."""

from __future__ import annotations

import itertools
import json
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from spacelite.backbones.files import BackboneFiles, loading_problem
from spacelite.backbones.plain_tokenizer import plain_tokenizer
from spacelite.data.splits import Pair, Text
from spacelite.errors import SpaceliteError, one_line
from spacelite.lazy import importing
from spacelite.types import Array

VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
# Model types whose positions are numbered from the padding token's id + 1.
POSITIONS_AFTER_PADDING = (
    "camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke",
    "markuplm", "mluke", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta",
    "xlm-roberta-xl", "xmod",
)  # fmt: skip
UNLIMITED = 10**9  # tokens; tokenizers without a maximum say 10**30
# What a tokenizer may use its unknown token for besides.
OTHER_TOKENS = (
    "bos_token", "eos_token", "sep_token", "pad_token", "cls_token", "mask_token"
)  # fmt: skip
TEXTS_PER_CHUNK = 1000  # tokenized in parallel between two progress events

MOSTLY = 0.5  # the share of unknown tokens from which a text counts as mostly unknown

CONTINUES = "##"  # marks a WordPiece token that continues a word; others begin one
# Pre-tokenizer -> the mark of tokens that begin a word; others continue one.
BEGINS = {"Metaspace": "▁", "ByteLevel": "Ġ"}
# Threads share the tokenizers that a process holds: one at a time sets a length and uses it.
_settings = threading.Lock()

JOINERS = "\u200c\u200d"  # between letters, and between the parts of an emoji


@dataclass(frozen=True)
class SpecialIds:
    """The token ids that stand for no words of a text."""

    # Of the token for what the vocabulary lacks, such as [UNK]; None if there is none, or if it is
    # used for something else too (the end of a text in GPT-2).
    unknown: int | None
    others: frozenset[int]  # such as [CLS] and [PAD]


@dataclass(frozen=True)
class Windows:
    """How a text of more tokens than the model takes is cut into overlapping windows: each has the
    text's special tokens around a part of its other ones. A window begins `stride` tokens after the
    one before it; the last one ends where the text does."""

    size: int  # tokens of a window, special ones included
    stride: int
    before: int  # special tokens that a text begins with
    after: int  # and ends with

    def of(self, length: int) -> tuple[Array, Array]:
        """The windows of a text of so many tokens: the tokens of each, (W, size); and for each of
        the text's tokens its place in the windows end to end, (length,): in the window where it has
        most context, which is the one whose middle is nearest."""
        if length <= self.size:
            return np.arange(length)[None], np.arange(length)
        part = self.size - self.before - self.after
        last = length - self.before - self.after - part
        starts = np.unique([*range(0, last, self.stride), last])
        edges = [np.arange(self.before), length - self.after + np.arange(self.after)]
        windows = np.stack(
            [np.concatenate([edges[0], self.before + start + np.arange(part), edges[1]])
             for start in starts]
        )  # fmt: skip
        tokens = np.arange(last + part)
        window = np.searchsorted(starts[:-1] + (np.diff(starts) + part - 1) / 2, tokens)
        places = window * self.size + self.before + tokens - starts[window]
        behind = windows.size - self.after + np.arange(self.after)
        return windows, np.concatenate([edges[0], places, behind])


@dataclass(frozen=True)
class Tokenized:
    """The tokens of N texts: one int32 array per text."""

    ids: list[Array]  # special tokens included
    type_ids: list[Array] | None  # segment ids; None if the tokenizer has no segments
    masks: list[Array] | None  # 1 for tokens and 0 for padding; None without padding
    cut_off: Array  # which texts were cut off at the maximum length, (N,) bool
    padding_side: str  # `left` for XLNet, whose classification token comes last
    special: SpecialIds
    windows: Windows | None = None  # in which longer texts are run; None if they were cut off
    skip_first: bool = False  # whether a text's first token is run, but not kept
    # Which are pairs of texts with special tokens of their own: their ids do not say where the
    # second text begins.
    unclear: frozenset[int] = frozenset()

    def skipped(self, length: int) -> int:
        """How many tokens a text of so many begins with that are not kept: an only one is."""
        return int(self.skip_first and length > 1)

    @property
    def truncated(self) -> int:
        """Number of texts that were cut off."""
        return int(self.cut_off.sum())

    @property
    def kept(self) -> list[Array]:
        """The ids of those tokens whose hidden states are kept."""
        return [ids[self.skipped(len(ids)) :] for ids in self.ids]

    @property
    def identities(self) -> list[Array]:
        """What tells each text from all others for the backbone: its ids; of unclear ones with
        segment ids."""
        if self.type_ids is None or not self.unclear:
            return self.ids
        return [
            np.concatenate([ids, self.type_ids[number]]) if number in self.unclear else ids
            for number, ids in enumerate(self.ids)
        ]


def tokenize(
    files: BackboneFiles,
    texts: Sequence[Text],
    *,
    max_length: int,
    padding: str = "none",
    prefix: str = "",
    stride: int | None = None,
    skip_first: bool = False,
    pairs: bool = False,
    tokenizer: Any = None,
    on_chunk: Callable[[int], None] = lambda done: None,
    first: int | None = None,
) -> Tokenized:
    """Tokenize texts with the backbone's own fast tokenizer, in parallel: to at most `max_length`
    tokens, special tokens and those of the `prefix` included, which each text is read with, or with
    `padding="max_length"` to exactly as many; with a `stride`, whole, to be run in `Windows` of
    that many. With `skip_first`, the first token of each is not `kept`. `pairs` of texts get what
    the tokenizer puts around and between them, and the longer one is cut off first. Given the
    number of the `first` text, for messages, raises SpaceliteError if a text has no token."""
    tokenizer = quick_tokenizer(files) if tokenizer is None else tokenizer
    longest = min(longest_input(files), tokenizer.model_max_length)
    special = tokenizer.num_special_tokens_to_add(pair=pairs)
    if prefix:
        with _encoding(files):
            special += len(_encoded(tokenizer, prefix, special=False).ids)
    least = special + 1 + pairs  # a token of each text
    if least > longest:
        whose = "special tokens and the prefix" if prefix else "special tokens"
        remedy = "shorten the prefix" if prefix else "choose another backbone"
        raise SpaceliteError(
            f"{files.name} takes at most {longest} tokens, and its {whose} need {special}: {remedy}"
        )
    if not least <= max_length <= longest:
        bounds = f"{least} to {longest}" if longest < UNLIMITED else f"at least {least}"
        raise SpaceliteError(
            f"max_length={max_length}: {files.name} takes {bounds} tokens", ["max_length"]
        )
    if padding == "max_length" and tokenizer.pad_token_id is None:
        raise SpaceliteError(f"padding=max_length: {files.name} has no padding token", ["padding"])
    backend = tokenizer.backend_tokenizer
    ids: list[Array] = []
    type_ids: list[Array] = []
    masks: list[Array] = []
    cut_off: list[bool] = []
    unclear: set[int] = set()
    others = special_ids(tokenizer).others
    for start in range(0, len(texts), TEXTS_PER_CHUNK):
        with _encoding(files), _settings:
            _set(tokenizer, max_length if stride is None else None, padding)
            chunk: Sequence[Any] = texts[start : start + TEXTS_PER_CHUNK]
            if not pairs:
                chunk = [prefix + text for text in chunk]
            encodings = backend.encode_batch_fast(chunk)
        for encoding in encodings:
            if pairs and not others.isdisjoint(
                itertools.compress(encoding.ids, map((0).__eq__, encoding.special_tokens_mask))
            ):
                unclear.add(len(ids))
            ids.append(np.array(encoding.ids, np.int32))
            type_ids.append(np.array(encoding.type_ids, np.int32))
            masks.append(np.array(encoding.attention_mask, np.int32))
            cut_off.append(bool(encoding.overflowing))
        on_chunk(len(ids))
    empty = next((number for number, row in enumerate(ids) if not len(row)), None)
    if first is not None and empty is not None:
        raise SpaceliteError(
            f"text {first + empty} has no token that {files.name} knows: leave it out"
        )
    vocabulary = _text_config(files).get("vocab_size")
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
        cut_off=np.array(cut_off, bool),
        padding_side=tokenizer.padding_side,
        special=special_ids(tokenizer),
        windows=None if stride is None else _windows(tokenizer, max_length, stride, skip_first),
        skip_first=skip_first,
        unclear=frozenset(unclear),
    )


@contextmanager
def _encoding(files: BackboneFiles) -> Iterator[None]:
    """What the tokenizers library raises while it encodes, as SpaceliteError."""
    try:
        yield
    except TypeError as error:  # a lone surrogate, e.g. from a Latin-1 argument
        raise SpaceliteError("a text is not valid Unicode: give it as UTF-8") from error
    except Exception as error:
        if type(error) is not Exception:  # tokenizers has no exception of its own
            raise
        raise SpaceliteError(
            f"the tokenizer of {files.name} cannot encode texts ({one_line(error)}): its files do "
            "not belong together, fetch or save them again"
        ) from error


def _windows(tokenizer: Any, size: int, stride: int, skip_first: bool) -> Windows:
    mask = np.array(_encoded(tokenizer, "a").special_tokens_mask)
    before = int(np.argmin(mask))
    after = len(mask) - before - int((mask == 0).sum())
    # Without a special token in front, the first of each window is like that of the text.
    part = size - before - after - (skip_first and not before)
    if stride > part:
        raise SpaceliteError(
            f"stride={stride}: windows of {size} tokens have {part} of the text, so that longer "
            f"strides would leave some out: give 1 to {part}",
            ["stride"],
        )
    return Windows(size, stride, before, after)


def _encoded(tokenizer: Any, text: str, *, special: bool = True) -> Any:
    """A text as it is, with the `special` tokens around it or without."""
    with _settings:
        _set(tokenizer, None, "none")
        return tokenizer.backend_tokenizer.encode(text, add_special_tokens=special)


def _set(tokenizer: Any, max_length: int | None, padding: str) -> None:
    """Set the length of a tokenizer, which `tokenize` may have been told to be another before."""
    backend = tokenizer.backend_tokenizer
    if max_length is None:
        backend.no_truncation()
    else:
        backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    if padding == "max_length":
        backend.enable_padding(
            direction=tokenizer.padding_side,
            pad_id=tokenizer.pad_token_id,
            pad_type_id=tokenizer.pad_token_type_id,
            pad_token=tokenizer.pad_token,
            length=max_length,
        )
    else:
        backend.no_padding()


def from_ids(
    files: BackboneFiles, ids: Array, *, max_length: int, padding: str, stride: int | None = None
) -> Tokenized:
    """The tokens of one text whose ids (n,) are known, with segments and mask as in `tokenize`."""
    # A token's segment depends only on whether it is a special one, and on which.
    sample = tokenize(files, ["a"], max_length=max_length, padding=padding, stride=stride)
    special = sample.special.others
    type_ids = masks = None
    if sample.type_ids is not None:
        segments = dict(zip(sample.ids[0].tolist(), sample.type_ids[0].tolist(), strict=True))
        of_words = next((kind for token, kind in segments.items() if token not in special), 0)
        type_ids = [np.array([segments.get(token, of_words) for token in ids.tolist()], np.int32)]
    if sample.masks is not None:
        padded = sample.ids[0][sample.masks[0] == 0][:1]
        real = np.flatnonzero(~np.isin(ids, padded))
        first, last = (0, real[-1]) if sample.padding_side == "right" else (real[0], len(ids) - 1)
        masks = [((np.arange(len(ids)) >= first) & (np.arange(len(ids)) <= last)).astype(np.int32)]
    whole = np.zeros(1, bool)
    return Tokenized(
        [ids], type_ids, masks, whole, sample.padding_side, sample.special, sample.windows
    )


def special_ids(tokenizer: Any) -> SpecialIds:
    """The special ids of a tokenizer."""
    unknown = tokenizer.unk_token_id
    named = [tokenizer.special_tokens_map.get(name) for name in OTHER_TOKENS]
    shared = tokenizer.unk_token in named
    others = frozenset(tokenizer.all_special_ids) - {unknown}
    if unknown is None or shared:
        return SpecialIds(None, others if unknown is None else others | {unknown})
    return SpecialIds(unknown, others)


def load_tokenizer(files: BackboneFiles) -> Any:
    """Load a backbone's tokenizer by transformers; it must be a fast one."""
    with importing():
        from transformers import AutoConfig, AutoTokenizer

    problem = f"{files.name} has no fast tokenizer"
    # Without these files transformers creates an empty vocabulary, in which no word is known.
    if not any((files.folder / name).is_file() for name in VOCABULARY_FILES):
        raise SpaceliteError(
            f"{problem}: {files.folder} needs tokenizer.json (PreTrainedTokenizerFast."
            "save_pretrained writes it), or choose another backbone"
        )
    local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(files.folder, use_fast=True, **local)
    except Exception as error:  # whatever the tokenizer's own class raises
        try:
            AutoConfig.from_pretrained(files.folder, **local)
        except Exception as wrong:  # as above
            raise SpaceliteError(
                f"{files.folder / 'config.json'} cannot be read: {loading_problem(wrong)}"
            ) from wrong
        raise SpaceliteError(
            f"{problem} that can be loaded from {files.folder}: {loading_problem(error)}"
        ) from error
    if not tokenizer.is_fast:
        raise SpaceliteError(
            f"{problem} (tokenizer.json): choose a backbone with one, or save one with "
            "PreTrainedTokenizerFast.save_pretrained"
        )
    return tokenizer


def quick_tokenizer(files: BackboneFiles) -> Any:
    """Load a backbone's tokenizer, without transformers if that gives the same one."""
    return plain_tokenizer(files.folder) or load_tokenizer(files)


@lru_cache(maxsize=2)
def held_tokenizer(files: BackboneFiles) -> Any:
    """As `quick_tokenizer`, once in a process."""
    return quick_tokenizer(files)


@lru_cache(maxsize=8)
def longest_input(files: BackboneFiles) -> int:
    """The maximum tokens that the backbone's files name; relative positions (XLNet, T5) set no
    limit."""
    try:
        return _longest_input(files)
    except (TypeError, ValueError, OverflowError) as error:
        raise SpaceliteError(
            f"the longest text of {files.name} cannot be read from config.json and "
            f"tokenizer_config.json in {files.folder} ({one_line(error, 80)}): fetch the backbone "
            "again"
        ) from error


def _longest_input(files: BackboneFiles) -> int:
    config, bounds = _text_config(files), [UNLIMITED]
    tokenizer = files.folder / "tokenizer_config.json"
    if tokenizer.is_file():
        bounds.append(int(_json(tokenizer).get("model_max_length") or UNLIMITED))
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if isinstance(positions, int) and positions > 0:
        if config.get("model_type") in POSITIONS_AFTER_PADDING:
            positions -= (config.get("pad_token_id", 1) or 0) + 1
        bounds.append(positions)
    return min(bounds)


@lru_cache(maxsize=8)
def _text_config(files: BackboneFiles) -> dict[str, Any]:
    """config.json, with what a model of texts and images says of its texts."""
    config = _json(files.folder / "config.json")
    return {**config, **(config.get("text_config") or {})}


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise SpaceliteError(
            f"{path} cannot be read ({one_line(error, 80)}): fetch the backbone again"
        ) from error


def unknown_counts(ids: Array, offsets: Array, special: SpecialIds) -> tuple[Array, Array]:
    """The number of unknown tokens and of all tokens but special ones, each (N,) int64, of N texts
    whose ids (T,) begin at `offsets` (N+1,)."""
    ordinary = ~np.isin(ids, list(special.others))
    unknown = np.zeros(len(ids), bool) if special.unknown is None else ids == special.unknown

    def per_text(tokens: Array) -> Array:
        counts: Array = np.diff(np.concatenate([[0], np.cumsum(tokens)])[offsets])
        return counts

    return per_text(unknown), per_text(ordinary)


def unknown_shares(ids: Array, offsets: Array, special: SpecialIds) -> Array:
    """The share of each text's tokens that are unknown, (N,) float64, by `unknown_counts`; 1 for a
    text that the tokenizer reduces to nothing."""
    unknown, tokens = unknown_counts(ids, offsets, special)
    fractions: Array = np.where(tokens > 0, unknown / np.maximum(tokens, 1), 1.0)
    return fractions


class Words:
    """Combines tokens into words, as tokenizer.json in a backbone's folder defines them. The prefix
    that all texts were read with is one word. With `skip_first`, token ids are those of texts
    without their first token."""

    def __init__(self, folder: Path, prefix: str = "", skip_first: bool = False) -> None:
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
            self._tokenizer.no_padding()  # some files ask for it
            content = json.loads(path.read_text("utf-8"))
            self._special = {entry["id"] for entry in content["added_tokens"] if entry["special"]}
            splitter = json.dumps(content["pre_tokenizer"])
            model = content["model"]
            unknown = model.get("unk_token")
            self._unknown = (
                model.get("unk_id") if unknown is None else self._tokenizer.token_to_id(unknown)
            )
        except Exception as error:  # tokenizers has no exception of its own
            raise SpaceliteError(f"{path} cannot be read: {one_line(error, 80)}") from error
        self._kind = next((name for name in BEGINS if name in splitter), "WordPiece")
        self._prefix, self._skipped = prefix, int(skip_first)
        encoded = self._tokenizer.encode(prefix.rstrip())
        kept = zip(encoded.ids, encoded.special_tokens_mask, strict=True)
        self._prefix_ids = [token for token, added in [*kept][self._skipped :] if not added]

    def of(self, ids: Sequence[int], text: Text | None = None) -> list[tuple[str, bool, list[int]]]:
        """The words of a text: how each is written in `text` (what its tokens spell, without `text`
        or if it has other tokens), whether it is a special token, and its tokens' indices."""
        array = np.asarray(ids)
        starts = self.starts(array, np.array([0, len(array)]))
        spans = None if text is None else self.spans(list(map(int, ids)), text)
        if spans is not None:  # where the second of a pair begins, if no separator says it
            of_text = np.array([which for which, _ in spans])
            starts = np.union1d(starts, np.flatnonzero(np.diff(of_text)) + 1)
        texts = [self._prefix + text] if isinstance(text, str) else text or ()
        words = []
        for first, last in itertools.pairwise([*starts.tolist(), len(array)]):
            written = ""
            if spans is not None:
                written = _written(texts[spans[first][0]], [of for _, of in spans[first:last]])
            word = written or self.spelled(ids[first:last])
            words.append((word, self.no_text(ids[first:last]), list(range(first, last))))
        return words

    def spans(self, ids: list[int], text: Text) -> list[tuple[int, tuple[int, int]]] | None:
        """Which of a pair's texts each token is in, 0 or 1, and its first character there, the
        prefix included, and the one after its last; equal for tokens that stand for none. None if
        the text has other tokens."""
        longest, pair = len(ids) + self._skipped, isinstance(text, Pair)
        if longest <= self._tokenizer.num_special_tokens_to_add(is_pair=pair):
            return None
        texts = text if isinstance(text, Pair) else (self._prefix + text,)
        for side in ("right", "left"):  # a long text was cut off on one of them
            with _settings:
                self._tokenizer.enable_truncation(longest, direction=side)
                encoded = self._tokenizer.encode(*texts)
            skipped = self._skipped if len(encoded.ids) > 1 else 0
            cut = encoded.ids[skipped:]
            in_text = (which or 0 for which in encoded.sequence_ids)
            spans = [*zip(in_text, encoded.offsets, strict=True)][skipped:]
            padding = [(0, (0, 0))] * (len(ids) - len(cut))
            if ids[: len(cut)] == cut and all(map(self.is_special, ids[len(cut) :])):
                return [*spans, *padding]
            if ids[len(padding) :] == cut and all(map(self.is_special, ids[: len(padding)])):
                return [*padding, *spans]
        return None

    def second(self, ids: Sequence[int], text: Text | None) -> int | None:
        """The index of the first token of a pair's second text, their number if none is left of it;
        None for a single text, or if the pair has other tokens."""
        spans = self.spans(list(map(int, ids)), text) if isinstance(text, Pair) else None
        if spans is None:
            return None
        return next((index for index, (which, _) in enumerate(spans) if which), len(ids))

    def starts(self, ids: Array, offsets: Array) -> Array:
        """The indices of the first tokens of all W words, (W,), of N texts whose ids (T,) begin at
        `offsets` (N+1,)."""
        distinct, index = np.unique(ids, return_inverse=True)
        continues = np.array([self._continues(int(token)) for token in distinct], bool)[index]
        special = np.array([self.is_special(token) for token in distinct], bool)[index]
        begins = ~continues | special
        begins[1:] |= special[:-1]
        begins[offsets[:-1][offsets[:-1] < len(ids)]] = True
        if self._prefix_ids:
            for first, last in itertools.pairwise(offsets.tolist()):
                first += int(np.argmin(special[first:last]))  # behind [CLS], or padding
                after = first + len(self._prefix_ids)
                if ids[first:after].tolist() == self._prefix_ids:
                    begins[first:after] = False
                    begins[[first, min(after, last - 1)]] = True
        return np.flatnonzero(begins)

    def unknown(
        self, ids: Sequence[int], words: Sequence[tuple[str, bool, list[int]]]
    ) -> list[int]:
        """The indices of unknown tokens, in words (of `of`) that are shown as they were written."""
        return [
            index
            for word, _, tokens in words
            for index in tokens
            if ids[index] == self._unknown and word != self._piece(ids[index])
        ]

    def is_special(self, token: int) -> bool:
        """Whether a token stands for no text, such as [CLS]."""
        return int(token) in self._special

    def no_text(self, ids: Sequence[int]) -> bool:
        """Whether the tokens of a word stand for no text: a special token, or the prefix."""
        return self.is_special(ids[0]) or list(ids) == self._prefix_ids

    def spelled(self, ids: Sequence[int]) -> str:
        """The word that token ids spell."""
        if self._kind == "ByteLevel":  # pieces are bytes, which may form characters only together
            word: str = self._tokenizer.decode(list(map(int, ids)), skip_special_tokens=False)
            return word.strip()
        pieces = [self._piece(token) for token in ids]
        if self._kind == "Metaspace":
            return "".join(pieces).replace(BEGINS[self._kind], " ").strip()
        return "".join(piece.removeprefix(CONTINUES) for piece in pieces).strip()

    def _piece(self, token: int) -> str:
        return self._tokenizer.id_to_token(int(token)) or ""

    def _continues(self, token: int) -> bool:
        piece = self._piece(token)
        if self._kind in BEGINS:
            return not piece.startswith(BEGINS[self._kind])
        return piece.startswith(CONTINUES)


class WordsOfIds(Words):
    """In place of words where the tokenizer is not known: a text is one word as a whole, and its
    tokens are words by their ids."""

    def __init__(self) -> None:
        self._unknown = None

    @override
    def of(self, ids: Sequence[int], text: Text | None = None) -> list[tuple[str, bool, list[int]]]:
        if isinstance(text, str):
            return [(_written(text, [(0, len(text))]), False, list(range(len(ids))))]
        return [
            (self.spelled([token]), self.no_text([token]), [index])
            for index, token in enumerate(ids)
        ]

    @override
    def starts(self, ids: Array, offsets: Array) -> Array:
        return np.arange(len(ids))

    @override
    def no_text(self, ids: Sequence[int]) -> bool:
        return ids[0] < 0  # it is not known

    @override
    def spelled(self, ids: Sequence[int]) -> str:
        return "?" if self.no_text(ids) else f"token {ids[0]}"


@lru_cache(maxsize=2)
def held_words(files: BackboneFiles, prefix: str, skip_first: bool) -> Words:
    """The words of a backbone's tokens, loaded once in a process."""
    return Words(files.folder, prefix, skip_first)


def _written(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The part of a text that some tokens stand for; empty if they stand for none of it."""
    spans = [span for span in spans if span[0] < span[1]]
    if not spans:
        return ""
    first, last = min(start for start, _ in spans), max(stop for _, stop in spans)
    # Accents that are characters of their own belong to the letter before them.
    while last < len(text) and unicodedata.category(text[last]) in ("Mn", "Me"):
        last += 1
    return "".join(map(_visible, text[first:last])).strip()


def _visible(character: str) -> str:
    """A character as it can be shown: spaces of any kind as one, no control characters."""
    category = unicodedata.category(character)
    if category.startswith("Z") or character in "\t\n\r":
        return " "
    return "" if category in ("Cc", "Cf") and character not in JOINERS else character
