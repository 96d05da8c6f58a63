"""Token ids -> words, with the backbone's own tokenizer file. The only importer of `tokenizers`."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.errors import SpaceliteError, one_line

CONTINUES = "##"  # marks a WordPiece token that continues a word; others begin one
# Pre-tokenizer -> the mark of tokens that begin a word; others continue one.
BEGINS = {"Metaspace": "▁", "ByteLevel": "Ġ"}

JOINERS = "\u200c\u200d"  # between letters, and between the parts of an emoji

Array = npt.NDArray[Any]


class Words:
    """Combines tokens into words, as a backbone's tokenizer.json defines them.

    Args:
        folder: The backbone's folder.

    Raises:
        SpaceliteError: tokenizer.json cannot be read.
    """

    def __init__(self, folder: Path) -> None:
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

    def of(self, ids: Sequence[int], text: str | None = None) -> list[tuple[str, bool, list[int]]]:
        """The words of a text.

        Args:
            ids: The text's n token ids.
            text: The text as it was written, if it is known.

        Returns:
            For each word: how it stands in `text` (without `text`, or if these are not its tokens:
                what its tokens spell), whether it is a special token, and the indices of its tokens
                in `ids`.
        """
        array = np.asarray(ids)
        starts = self.starts(array, np.array([0, len(array)]))
        bounds = [*starts.tolist(), len(array)]
        spans = None if text is None else self._spans(list(map(int, ids)), text)
        words = []
        for first, last in itertools.pairwise(bounds):
            written = _written(text, spans[first:last]) if text is not None and spans else ""
            word = written or self.spelled(ids[first:last])
            words.append((word, self.is_special(ids[first]), list(range(first, last))))
        return words

    def _spans(self, ids: list[int], text: str) -> list[tuple[int, int]] | None:
        """The first character of each token in a text, and the one after its last; equal for tokens
        that stand for none. None if the text has other tokens."""
        if len(ids) <= self._tokenizer.num_special_tokens_to_add(is_pair=False):
            return None
        for side in ("right", "left"):  # a long text was cut off on one of them
            self._tokenizer.enable_truncation(len(ids), direction=side)
            encoded = self._tokenizer.encode(text)
            found, spans = encoded.ids, encoded.offsets
            padding = [(0, 0)] * (len(ids) - len(found))
            if ids[: len(found)] == found and all(map(self.is_special, ids[len(found) :])):
                return [*spans, *padding]
            if ids[len(padding) :] == found and all(map(self.is_special, ids[: len(padding)])):
                return [*padding, *spans]
        return None

    def starts(self, ids: Array, offsets: Array) -> Array:
        """Where words begin.

        Args:
            ids: The concatenated token ids of N texts, (T,).
            offsets: The index of each text's first token, and at the end T, (N+1,).

        Returns:
            The indices of the first tokens of all W words, (W,).
        """
        distinct, index = np.unique(ids, return_inverse=True)
        continues = np.array([self._continues(int(token)) for token in distinct], bool)[index]
        special = np.array([self.is_special(token) for token in distinct], bool)[index]
        begins = ~continues | special
        begins[1:] |= special[:-1]
        begins[offsets[:-1][offsets[:-1] < len(ids)]] = True
        return np.flatnonzero(begins)

    def unknown(
        self, ids: Sequence[int], words: Sequence[tuple[str, bool, list[int]]]
    ) -> list[int]:
        """The indices of the tokens that stand for whatever the vocabulary lacks, such as [UNK], in
        words (as `of` returns them) that are shown as they were written."""
        return [
            index
            for word, _, tokens in words
            for index in tokens
            if ids[index] == self._unknown and word != self._piece(ids[index])
        ]

    def is_special(self, token: int) -> bool:
        """Whether a token is special, such as [CLS], and stands for no text."""
        return int(token) in self._special

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


def _written(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The part of a text that some tokens stand for; empty if they stand for none of it."""
    own = [span for span in spans if span[0] < span[1]]
    if not own:
        return ""
    first, last = min(start for start, _ in own), max(stop for _, stop in own)
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
