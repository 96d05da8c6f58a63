"""Classifies texts with the files beside this one, which `spacelite export` wrote.

    python classify.py "a text" "another"
    python classify.py --explain "a text"
    python classify.py --file posts.csv --text-column body --out classified.csv

    from classify import Classifier
    Classifier("folder").predict(["a text"])

It needs numpy, tokenizers and, for model.onnx, onnxruntime (requirements.txt), and not spacelite.
Every text gets the probabilities that `spacelite predict` gives. Shapes: N texts, C labels, T
tokens of all texts end to end, n tokens of one.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import re
import sys
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

Array = npt.NDArray[Any]

FORMAT = 1  # of classifier.json
BATCH = 1024  # tokens of a forward pass
TEXTS = 1000  # of a file, that are in memory at a time

# The key of an n-gram: of a 1-gram its id; of a 2-gram (first id + 1) << FIRST | second id; of a
# 3-gram LONGER | its ids, PLACE bits each.
FIRST, PLACE, LONGER = 32, 20, 1 << 62

CONTINUES = "##"  # marks a WordPiece token that continues a word; others begin one
# Pre-tokenizer -> the mark of tokens that begin a word; others continue one.
BEGINS = {"Metaspace": "▁", "ByteLevel": "Ġ"}
JOINERS = "\u200c\u200d"  # between letters, and between the parts of an emoji
# What a terminal would obey.
HOSTILE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class ClassifierError(Exception):
    """What is wrong, and what to do about it, in one line."""


class Classifier:
    """A classifier of texts. Any number of threads may use it at once.

    Attributes:
        labels: The names of the C labels.
        settings: The content of classifier.json.
    """

    def __init__(self, folder: str | Path | None = None, *, threads: int | None = None) -> None:
        """From the files in a folder, by default that of this file. `threads` is how many the
        forward pass takes, by default one for each core."""
        self.folder = Path(__file__).parent if folder is None else Path(folder)
        self.settings = sealed(self.folder)
        try:
            written = (self.folder / "tokenizer.json").read_text("utf-8")
            self._tokenizer = self._configured(Tokenizer.from_str(written))
            self._words = Words(json.loads(written), self._tokenizer, self.settings)
            with np.load(self.folder / "arrays.npz", allow_pickle=False) as arrays:
                self._ngrams = NGrams(arrays, self.settings) if self.settings["ngrams"] else None
        except Exception as error:  # of the libraries, which may be too old for what they read
            raise ClassifierError(
                f"{self.folder} cannot be loaded ({_one_line(error)}): install what its "
                "requirements.txt names, or export it again"
            ) from error
        self.labels: list[str] = self.settings["labels"]
        self._multi_label = self.settings["task"] == "multi_label"
        self._bias = np.array(self.settings["bias"], np.float64)
        self._session: Any = None
        if self.settings["model"] is not None:
            self._session = _session(self.folder / self.settings["model"], threads)
            self._inputs = {given.name for given in self._session.get_inputs()}

    def predict(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Of each text its `label`, or `labels` where it may have several, the `probabilities`, and
        the share of its tokens that are `unknown` to the backbone."""
        return self.predict_with_cuts(texts)[0]

    def predict_with_cuts(self, texts: Sequence[str]) -> tuple[list[dict[str, Any]], list[bool]]:
        """As `predict`; and of each text whether it is longer than the classifier reads: its rest
        is ignored."""
        tokens = self._tokenize(texts)
        probabilities = self._probabilities(self._logits(tokens))
        predictions = [
            self._prediction(text, values, tokens.unknown(self.settings, number))
            for number, (text, values) in enumerate(zip(texts, probabilities, strict=True))
        ]
        return predictions, tokens.cut_off

    def probabilities(self, texts: Sequence[str]) -> Array:
        """The probability of each label, (N, C) float64."""
        return self._probabilities(self._logits(self._tokenize(texts)))

    def explain(self, text: str) -> dict[str, Any]:
        """What each word adds to each label's logit. With the bias, the shares of all words add up
        to the logits but for `difference`. Raises ClassifierError if the logits are not a sum over
        words."""
        if not self.settings["additive"]:
            raise ClassifierError(
                "this classifier cannot explain: its logits are not a sum over words"
            )
        tokens = self._tokenize([text])
        logits = self._logits(tokens)[0]
        shares = self._shares(tokens)
        spans = self._tokenizer.encode(self.settings["prefix"] + text).offsets
        (ids,) = tokens.kept
        words = self._words.of(ids.tolist(), self.settings["prefix"] + text, spans[-len(ids) :])
        explained = [
            {**word, "contributions": shares[word["tokens"]].sum(axis=0).tolist()} for word in words
        ]
        total = self._bias + np.sum([word["contributions"] for word in explained], axis=0)
        probabilities = self._probabilities(logits[None])[0]
        return {
            **self._prediction(text, probabilities, tokens.unknown(self.settings, 0)),
            "predicted": self._given(probabilities),
            "logits": logits.tolist(),
            "bias": self._bias.tolist(),
            "words": explained,
            "difference": float(np.abs(total - logits).max()),
        }

    # Texts -> tokens.

    def _configured(self, tokenizer: Tokenizer) -> Tokenizer:
        settings, pad = self.settings, self.settings["pad"]
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if settings["windows"] is None:
            tokenizer.enable_truncation(
                settings["max_length"], direction=settings["truncation_side"]
            )
        if settings["padding"] == "max_length":
            tokenizer.enable_padding(
                direction=pad["side"], pad_id=pad["id"], pad_type_id=pad["type_id"],
                pad_token=pad["token"], length=settings["max_length"],
            )  # fmt: skip
        return tokenizer

    def _tokenize(self, texts: Sequence[str]) -> Tokens:
        if not texts:
            raise ClassifierError("there is no text: give at least one")
        for number, text in enumerate(texts, 1):
            if problem := _problem(text):
                raise ClassifierError(f"text {number} {problem}")
        prefix = self.settings["prefix"]
        encoded = self._tokenizer.encode_batch_fast([prefix + text for text in texts])
        for number, encoding in enumerate(encoded, 1):
            if not encoding.ids:
                raise ClassifierError(f"text {number} has no known token: leave it out")
        return Tokens(encoded, self.settings["skip_first"])

    # Tokens -> logits.

    def _logits(self, tokens: Tokens) -> Array:
        """The logits of N texts, (N, C) float64."""
        of_ngrams = np.zeros((len(tokens.kept), len(self.labels)))
        if self._ngrams is not None:
            of_ngrams = self._ngrams.logits(*tokens.end_to_end)
        if self._session is None:
            return of_ngrams + self._bias
        logits = np.empty_like(of_ngrams)
        for batch in tokens.batches():
            (logits[batch],) = self._run(["logits"], tokens, batch, of_ngrams)
        return logits

    def _shares(self, tokens: Tokens) -> Array:
        """What each token of a single text adds to the logits, (n, C) float64."""
        (ids,) = tokens.kept
        shares = np.zeros((len(ids), len(self.labels)))
        if self._ngrams is not None:
            shares += self._ngrams.shares(*tokens.end_to_end)
        if self._session is not None:
            (of_tokens,) = self._run(
                ["shares"], tokens, np.arange(1), np.zeros((1, len(self.labels)))
            )
            shares += of_tokens[0, -len(ids) :]
        return shares

    def _run(self, names: list[str], tokens: Tokens, batch: Array, of_ngrams: Array) -> list[Array]:
        """Outputs of the graph for texts of equal length, which need no padding."""
        windows, places = np.arange(tokens.length(batch))[None], None
        if (how := self.settings["windows"]) is not None:
            windows, places = windows_of(tokens.length(batch), **how)
            places = places[tokens.skipped(len(places)) :]
        texts, (count, size) = len(batch), windows.shape

        def rows(values: list[Array]) -> Array:
            return np.stack([values[text] for text in batch])[:, windows].reshape(-1, size)

        given = {
            "input_ids": rows(tokens.ids),
            "attention_mask": rows(tokens.masks),
            "token_type_ids": rows(tokens.type_ids),
            "ngram_logits": of_ngrams[batch].astype(np.float32),
        }
        if places is not None:
            first = np.arange(texts, dtype=np.int64)[:, None] * (count * size)
            given["places"] = first + places
        wanted = {name: value for name, value in given.items() if name in self._inputs}
        outputs: list[Array] = self._session.run(names, wanted)
        return outputs

    # Logits -> labels.

    def _probabilities(self, logits: Array) -> Array:
        if self._multi_label:
            return np.exp(-np.logaddexp(0, -logits))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        normalised: Array = powers / powers.sum(axis=1, keepdims=True)
        return normalised

    def _given(self, probabilities: Array) -> list[str]:
        """The names of the labels that a text is given, from its probabilities (C,)."""
        thresholds = self.settings["thresholds"]
        if self._multi_label:
            chances = zip(self.labels, probabilities, strict=True)
            return [name for name, value in chances if value > thresholds.get(name, 0.5)]
        if thresholds:
            return [self.labels[int(probabilities[1] > thresholds[self.labels[1]])]]
        return [self.labels[int(probabilities.argmax())]]

    def _prediction(self, text: str, probabilities: Array, unknown: float) -> dict[str, Any]:
        given = self._given(probabilities)
        label = {"labels": given} if self._multi_label else {"label": given[0]}
        chances = dict(zip(self.labels, probabilities.tolist(), strict=True))
        thresholds = self.settings["thresholds"]
        return {
            "text": text,
            **label,
            "unknown": unknown,
            "probabilities": chances,
            **({"thresholds": thresholds} if thresholds else {}),
        }


def sealed(folder: Path) -> dict[str, Any]:
    """The content of classifier.json, if it and all files that it names are as they were exported.
    Raises ClassifierError."""
    path = folder / "classifier.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if content["format"] > FORMAT:
            raise ClassifierError(
                f"{folder} has format {content['format']}, this classify.py reads {FORMAT}: use "
                "the one in the folder"
            )
        rest = {key: value for key, value in content.items() if key != "checksum"}
        text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        whole = content.get("checksum") == f"{zlib.crc32(text.encode()):08x}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ClassifierError(
            f"{folder} has no classifier that can be read ({_one_line(error)}): export it again"
        ) from error
    needed = content.get("files", {})
    if not whole or content["model"] not in (None, *needed):
        raise ClassifierError(f"{path} is damaged, or was changed: export it again")
    for name, written in needed.items():
        if problem := _damage(folder, name, written):
            raise ClassifierError(f"{folder / name} {problem}: export it again")
    return content


def _damage(folder: Path, name: str, written: dict[str, Any]) -> str:
    """What is wrong with a file of the folder; "" if it is as it was exported."""
    path = folder / name
    if Path(name).name != name:
        return "is no file of the folder"
    try:
        if not path.is_file():
            return "is missing"
        if (size := path.stat().st_size) != written["bytes"]:
            return f"has {size:,} bytes rather than {written['bytes']:,}"
        return "" if crc32(path) == written["crc32"] else "is damaged, or was changed"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def crc32(path: Path) -> str:
    """CRC-32 of a file, eight hexadecimal digits."""
    value = 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            value = zlib.crc32(piece, value)
    return f"{value:08x}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _session(path: Path, threads: int | None) -> Any:
    """The graph, ready to run."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported
    try:
        import onnxruntime
    except ImportError as error:
        raise ClassifierError(f"{path.name} needs onnxruntime: pip install onnxruntime") from error
    onnxruntime.set_default_logger_severity(3)  # errors
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own errors, and the system's
        raise ClassifierError(
            f"{path} cannot be loaded ({_one_line(error)}): install what requirements.txt names, "
            "or export it again"
        ) from error


def _problem(text: Any) -> str:
    """Why a value is no text; "" for a text."""
    if not isinstance(text, str):
        return f"is no string but of the type {type(text).__name__}: give strings"
    if re.search("[\ud800-\udfff]", text):
        return "is not valid Unicode: read it again as UTF-8"
    return "" if text.strip() else "is empty: give at least a word, or leave it out"


class Tokens:
    """The tokens of N texts: one array per text, special tokens included."""

    def __init__(self, encoded: Sequence[Any], skip_first: bool) -> None:
        self.skip_first = skip_first
        self.ids = [np.array(one.ids, np.int64) for one in encoded]
        self.type_ids = [np.array(one.type_ids, np.int64) for one in encoded]
        self.masks = [np.array(one.attention_mask, np.int64) for one in encoded]
        self.cut_off = [bool(one.overflowing) for one in encoded]
        # Those whose hidden states are read.
        self.kept = [ids[self.skipped(len(ids)) :] for ids in self.ids]

    def skipped(self, length: int) -> int:
        """How many tokens of a text of so many are not read: the first, but for an only one."""
        return int(self.skip_first and length > 1)

    def length(self, batch: Array) -> int:
        """The tokens of each text of a batch."""
        return len(self.ids[batch[0]])

    @property
    def end_to_end(self) -> tuple[Array, Array]:
        """The ids that are read, (T,), and the index of each text's first, and T, (N + 1,)."""
        lengths = [len(ids) for ids in self.kept]
        return np.concatenate(self.kept), np.concatenate([[0], np.cumsum(lengths)])

    def batches(self) -> Iterator[Array]:
        """The indices of texts of equal length, which need no padding, longest first."""
        lengths = np.array([len(ids) for ids in self.ids])
        order = np.argsort(-lengths, kind="stable")
        for alike in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
            size = max(1, BATCH // int(lengths[alike[0]]))
            for start in range(0, len(alike), size):
                yield alike[start : start + size]

    def unknown(self, settings: dict[str, Any], text: int) -> float:
        """The share of a text's tokens, but special ones, that the backbone does not know."""
        ordinary = self.kept[text][~np.isin(self.kept[text], settings["special_ids"])]
        if not len(ordinary):
            return 1.0
        return float((ordinary == settings["unknown_id"]).mean())


def windows_of(length: int, size: int, stride: int, before: int, after: int) -> tuple[Array, Array]:
    """The overlapping windows in which a long text is run: the tokens of each, (W, size), and for
    each token of the text its place in the windows end to end, (length,): in the window where it
    has most context. Each has the text's special tokens, `before` and `after` it."""
    if length <= size:
        return np.arange(length)[None], np.arange(length)
    part = size - before - after
    last = length - before - after - part
    starts = np.unique([*range(0, last, stride), last])
    ends = [np.arange(before), length - after + np.arange(after)]
    windows = np.stack(
        [np.concatenate([ends[0], before + start + np.arange(part), ends[1]]) for start in starts]
    )
    tokens = np.arange(last + part)
    window = np.searchsorted(starts[:-1] + (np.diff(starts) + part - 1) / 2, tokens)
    places = window * size + before + tokens - starts[window]
    behind = windows.size - after + np.arange(after)
    return windows, np.concatenate([ends[0], places, behind])


class NGrams:
    """A linear layer on TF-IDF of n-grams of token ids."""

    def __init__(self, arrays: Any, settings: dict[str, Any]) -> None:
        self.keys: Array = arrays["ngrams.keys"]  # in ascending order, (M,) int64
        self.idf = arrays["ngrams.idf"].astype(np.float64)  # (M,)
        self.weight = arrays["ngrams.weight"].astype(np.float64)  # (C, M)
        self.longest = int(settings["ngrams"]["longest"])
        self.sublinear = bool(settings["ngrams"]["sublinear"])

    def logits(self, ids: Array, offsets: Array) -> Array:
        """What n-grams add to the logits of N texts, (N, C)."""
        text, column, _, _, added, lengths = self._weighed(ids, offsets)
        logits = np.zeros((len(offsets) - 1, len(self.weight)))
        np.add.at(logits, text, (added / lengths[text])[:, None] * self.weight.T[column])
        return logits

    def shares(self, ids: Array, offsets: Array) -> Array:
        """What each token adds, (T, C): each time that an n-gram occurs, an equal part of what it
        adds to its text's logits, in equal parts for its tokens."""
        text, column, first, length, added, lengths = self._weighed(ids, offsets)
        of_labels = (added / lengths[text] / length)[:, None] * self.weight.T[column]
        shares = np.zeros((len(ids), len(self.weight)))
        for position in range(self.longest):
            long = length > position
            np.add.at(shares, first[long] + position, of_labels[long])
        return shares

    def _weighed(self, ids: Array, offsets: Array) -> tuple[Array, ...]:
        """Of each time that a known n-gram occurs its text, its column, its first token, its number
        of tokens and what it adds to the TF-IDF of the n-gram; and the length of the TF-IDF of each
        text, (N,)."""
        text, key, first, length = self._occurrences(ids, offsets)
        column = np.searchsorted(self.keys, key).clip(max=max(0, len(self.keys) - 1))
        known = self.keys[column] == key if len(self.keys) else np.zeros(len(key), bool)
        text, column, first, length = (part[known] for part in (text, column, first, length))
        cells, cell, counts = np.unique(
            text * np.int64(len(self.keys) or 1) + column, return_inverse=True, return_counts=True
        )
        of_text, of_column = np.divmod(cells, len(self.keys) or 1)
        values = (1 + np.log(counts) if self.sublinear else counts) * self.idf[of_column]
        lengths = np.sqrt(np.bincount(of_text, values**2, minlength=len(offsets) - 1))
        return text, column, first, length, (values / counts)[cell], lengths

    def _occurrences(self, ids: Array, offsets: Array) -> tuple[Array, Array, Array, Array]:
        """The text, key, first token and number of tokens of each n-gram."""
        text = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
        pair = np.flatnonzero(text[1:] == text[:-1])
        firsts, keys = [np.arange(len(ids)), pair], [ids, (ids[pair] + 1) << FIRST | ids[pair + 1]]
        if self.longest > 2:
            triple = np.flatnonzero(text[2:] == text[:-2])
            fits = ids < 1 << PLACE
            triple = triple[fits[triple] & fits[triple + 1] & fits[triple + 2]]
            firsts.append(triple)
            three = ids[triple] << 2 * PLACE | ids[triple + 1] << PLACE | ids[triple + 2]
            keys.append(three | LONGER)
        first = np.concatenate(firsts)
        length = np.repeat(np.arange(len(firsts)) + 1, [len(one) for one in firsts])
        return text[first], np.concatenate(keys), first, length


class Words:
    """Combines tokens into words, as tokenizer.json defines them. The prefix that all texts are
    read with is one word."""

    def __init__(self, content: Any, tokenizer: Tokenizer, settings: dict[str, Any]) -> None:
        self._tokenizer, self._unknown = tokenizer, settings["unknown_id"]
        self._special = {entry["id"] for entry in content["added_tokens"] if entry["special"]}
        splitter = json.dumps(content["pre_tokenizer"])
        self._kind = next((name for name in BEGINS if name in splitter), "WordPiece")
        encoded = tokenizer.encode(settings["prefix"].rstrip())
        kept = [*zip(encoded.ids, encoded.special_tokens_mask, strict=True)]
        self._prefix = [token for token, added in kept[settings["skip_first"] :] if not added]

    def of(
        self, ids: list[int], text: str, spans: Sequence[tuple[int, int]]
    ) -> list[dict[str, Any]]:
        """The words of a text: how each is written, whether it is a special token, the indices of
        its tokens, and whether the backbone does not know it."""
        bounds = [*self._starts(ids), len(ids)]
        words = []
        for first, last in itertools.pairwise(bounds):
            written = _written(text, spans[first:last])
            word = written or self._spelled(ids[first:last])
            unknown = any(
                ids[index] == self._unknown and word != self._piece(ids[index])
                for index in range(first, last)
            )
            special = ids[first] in self._special or ids[first:last] == self._prefix
            indices = list(range(first, last))
            words.append({"text": word, "special": special, "tokens": indices, "unknown": unknown})
        return words

    def _starts(self, ids: list[int]) -> list[int]:
        special = [token in self._special for token in ids]
        begins = [
            index == 0 or special[index] or special[index - 1] or not self._continues(token)
            for index, token in enumerate(ids)
        ]
        if self._prefix:
            first = special.index(False) if False in special else 0
            after = first + len(self._prefix)
            if ids[first:after] == self._prefix:
                begins[first:after] = [False] * len(self._prefix)
                begins[first] = begins[min(after, len(ids) - 1)] = True
        return [index for index, begin in enumerate(begins) if begin]

    def _continues(self, token: int) -> bool:
        if self._kind in BEGINS:
            return not self._piece(token).startswith(BEGINS[self._kind])
        return self._piece(token).startswith(CONTINUES)

    def _spelled(self, ids: list[int]) -> str:
        if self._kind == "ByteLevel":  # pieces are bytes, which may form characters only together
            word: str = self._tokenizer.decode(ids, skip_special_tokens=False)
            return word.strip()
        pieces = [self._piece(token) for token in ids]
        if self._kind == "Metaspace":
            return "".join(pieces).replace(BEGINS[self._kind], " ").strip()
        return "".join(piece.removeprefix(CONTINUES) for piece in pieces).strip()

    def _piece(self, token: int) -> str:
        return self._tokenizer.id_to_token(token) or ""


def _written(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The part of a text that some tokens stand for; empty if they stand for none of it."""
    spans = [span for span in spans if span[0] < span[1]]
    if not spans:
        return ""
    first, last = min(start for start, _ in spans), max(stop for _, stop in spans)
    # Accents that are characters of their own belong to the letter before them.
    while last < len(text) and unicodedata.category(text[last]) in ("Mn", "Me"):
        last += 1
    return "".join(map(_shown, text[first:last])).strip()


def _shown(character: str) -> str:
    """A character as it can be shown: spaces of any kind as one, no control characters."""
    category = unicodedata.category(character)
    if category.startswith("Z") or character in "\t\n\r":
        return " "
    return "" if category in ("Cc", "Cf") and character not in JOINERS else character


# The command line.


def main() -> int:
    """Classify what the command line names; the exit status."""
    parser = argparse.ArgumentParser(
        prog="classify.py", description="Classify texts with the files in this folder."
    )
    parser.add_argument("texts", nargs="*", help="texts (default: the lines of standard input)")
    parser.add_argument("--explain", action="store_true", help="show which words mattered")
    parser.add_argument("--file", type=Path, help="a csv or tsv table, or a file of lines")
    parser.add_argument("--text-column", help="the column of the texts")
    parser.add_argument(
        "--out", type=Path, help="write a csv or tsv table: the file's columns and the predictions"
    )
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    parser.add_argument("--folder", type=Path, help="the folder of another classifier")
    parser.add_argument("--threads", type=int, help="threads of the forward pass")
    options = parser.parse_args()
    try:
        _classify(options)
        sys.stdout.flush()
    except ClassifierError as error:
        print(f"error: {_safe(str(error))}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of a pipe (head, less) has ended
        _drop_output()
    except OSError as error:  # all others are ClassifierErrors
        print(f"error: standard output cannot be written: {error.strerror}", file=sys.stderr)
        _drop_output()
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _drop_output() -> None:
    """Let what is left of standard output be lost, which Python would write when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _classify(options: Any) -> None:
    if options.texts and options.file:
        raise ClassifierError("give texts or --file, not both")
    if options.text_column and not options.file:
        raise ClassifierError("--text-column needs --file with a table")
    if options.out and (options.explain or options.json):
        raise ClassifierError("give --out without --explain and --json")
    if options.threads is not None and options.threads < 1:
        raise ClassifierError(f"--threads {options.threads}: give at least 1")
    if options.out and options.out.suffix.lower() not in DELIMITERS:
        raise ClassifierError(f"--out {options.out}: give a name that ends in .csv or .tsv")
    classifier = Classifier(options.folder, threads=options.threads)
    column, rows = _rows(options)
    if options.out:
        _write(classifier, column, rows, options.out)
        return
    texts = [row[column] for row in rows]
    found, cut_off = classifier.predict_with_cuts(texts)
    if options.explain:
        found = [classifier.explain(text) for text in texts]
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
    elif options.explain:
        print("\n\n".join(_explanation(one) for one in found))
    else:
        print("\n".join(_line(one) for one in found))
    _say_truncated(classifier, sum(cut_off))


DELIMITERS = {".csv": ",", ".tsv": "\t"}
NO_LINES = (".json", ".jsonl", ".parquet")  # files of texts that are neither tables nor lines


def _rows(options: Any) -> tuple[str, Iterable[dict[str, str]]]:
    """The name of the text column, and rows as they are read."""
    if not options.file:
        if not options.texts and sys.stdin.isatty():
            raise ClassifierError("give texts, --file, or lines on standard input")
        lines = _lines(sys.stdin.buffer, "standard input")
        return "text", ({"text": text} for text in options.texts or lines)
    suffix = options.file.suffix.lower()
    if suffix in NO_LINES:
        raise ClassifierError(
            f"{options.file}: give a table (.csv or .tsv), or a file with a text per line"
        )
    if suffix not in DELIMITERS:
        if options.text_column:
            raise ClassifierError(
                f"{options.file} has lines and no columns: leave --text-column out"
            )
        with _reading(options.file):
            file = options.file.open("rb")
        return "text", ({"text": line} for line in _lines(file, options.file))
    csv.field_size_limit(2**31 - 1)
    with _reading(options.file):
        table = csv.DictReader(
            options.file.open(encoding="utf-8-sig", newline=""),
            delimiter=DELIMITERS[suffix],
            strict=True,
        )
        columns = list(table.fieldnames or [])
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise ClassifierError(
            f"{options.file} has more than one column {twice[0]!r}: rename or remove one"
        )
    column = options.text_column or ("text" if "text" in columns else None)
    if column is None and len(columns) == 1:
        (column,) = columns
    if column not in columns:
        listed = ", ".join(columns) or "none"
        wanted = f"there is no column {column!r}" if column else "no column is called text"
        raise ClassifierError(
            f"{options.file}: {wanted}: name one of its columns as --text-column: {listed}"
        )

    def rows() -> Iterator[dict[str, str]]:
        with _reading(options.file):
            for number, row in enumerate(table, 1):
                if None in row or None in row.values():
                    raise ClassifierError(
                        f"{options.file}: row {number} does not have {len(columns)} fields"
                    )
                if problem := _problem(row[column]):
                    raise ClassifierError(f"{options.file}: the text of row {number} {problem}")
                yield row

    return column, rows()


@contextmanager
def _reading(what: Path | str) -> Iterator[None]:
    """What may go wrong while something is read, as ClassifierError."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise ClassifierError(f"{what} is not UTF-8: save it as UTF-8") from error
    except csv.Error as error:
        raise ClassifierError(f"{what} is no such table: {error}") from error
    except OSError as error:
        raise ClassifierError(f"{what} cannot be read: {error.strerror}") from error


def _lines(file: Any, what: Path | str) -> Iterator[str]:
    with _reading(what):
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ClassifierError(f"line {number} is not UTF-8: give UTF-8") from error
            if problem := _problem(text):
                raise ClassifierError(f"line {number} {problem}")
            yield text


def _write(classifier: Classifier, column: str, rows: Iterable[dict[str, str]], out: Path) -> None:
    """Write rows with their predictions, a few in memory at a time; rename the file last."""
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    count = truncated = 0
    rows = iter(rows)
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter=DELIMITERS[out.suffix.lower()], lineterminator="\n")
            while batch := list(itertools.islice(rows, TEXTS)):
                texts = [row[column] for row in batch]
                found, cut_off = classifier.predict_with_cuts(texts)
                predicted = [_columns(one) for one in found]
                names = _free(list(batch[0]), list(predicted[0]))
                if not count:
                    table.writerow([*batch[0], *names])
                for row, given in zip(batch, predicted, strict=True):
                    table.writerow([*row.values(), *given.values()])
                count, truncated = count + len(batch), truncated + sum(cut_off)
        if not count:
            raise ClassifierError("there is no text: give at least one")
        partial.replace(out)
    except OSError as error:
        raise ClassifierError(f"--out {out} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):  # as where there is no such folder
            partial.unlink(missing_ok=True)
    _say_truncated(classifier, truncated)
    print(f"{count:,} text{'s' * (count != 1)} classified, written to {_safe(str(out))}")


def _columns(prediction: dict[str, Any]) -> dict[str, str]:
    """The columns of a prediction."""
    (name,) = {"label", "labels"} & prediction.keys()
    given = prediction[name]
    return {
        name: given if name == "label" else ";".join(given),
        "unknown": f"{prediction['unknown']:.6g}",
        **{
            f"probability_{label}": f"{value:.6g}"
            for label, value in prediction["probabilities"].items()
        },
    }


def _free(taken: list[str], names: list[str]) -> list[str]:
    """Names of columns that the table does not have: `label` becomes `predicted_label`."""
    used, free = {name.casefold() for name in taken}, []
    for name in names:
        tries = itertools.chain(
            [name, f"predicted_{name}"], (f"predicted_{name}_{n}" for n in itertools.count(2))
        )
        free.append(next(one for one in tries if one.casefold() not in used))
        used.add(free[-1].casefold())
    return free


def _line(prediction: dict[str, Any]) -> str:
    """A prediction on one line: label and probability, or each of several, and the text."""
    given = prediction.get("labels", [prediction.get("label")])
    chances = ", ".join(f"{name} {prediction['probabilities'][name]:.3f}" for name in given)
    return f"{_safe(chances or 'no label')}\t{_safe(prediction['text'])}"


def _explanation(explained: dict[str, Any]) -> str:
    """The words of a text by what they add to the logit of the label; with one label per text less
    the mean of what they add to the logits of all labels, because only differences matter."""
    single = "label" in explained
    shares = np.array([word["contributions"] for word in explained["words"]])
    bias, logits = np.array(explained["bias"]), np.array(explained["logits"])
    if single:
        shares, bias, logits = (
            values - values.mean(axis=-1, keepdims=True) for values in (shares, bias, logits)
        )
    chances = explained["probabilities"]
    given = explained["predicted"] or [max(chances, key=lambda name: chances[name])]
    lines = [_line(explained)]
    for name in given:
        label = list(chances).index(name)
        rows = [
            (word["text"], share)
            for word, share in zip(explained["words"], shares[:, label], strict=True)
        ]
        rows.sort(key=lambda row: -abs(row[1]))
        rows += [("(bias)", bias[label]), ("(logit)", logits[label])]
        lines += [
            "",
            f"for {_safe(name)}:",
            *(f"{share:+9.4f}  {_safe(word)}" for word, share in rows),
        ]
    return "\n".join(lines)


def _say_truncated(classifier: Classifier, count: int) -> None:
    if count:
        limit = classifier.settings["max_length"]
        print(
            f"texts of more than {limit} tokens, which were cut off: {count:,}",
            file=sys.stderr,
        )


def _safe(text: str) -> str:
    """A text for terminals, which would obey the control characters in it."""
    return HOSTILE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


if __name__ == "__main__":
    sys.exit(main())
