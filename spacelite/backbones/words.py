"""Token ids -> words, with the backbone's own tokenizer file. The only importer of `tokenizers`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.errors import SpaceliteError, one_line

GOES_ON = "##"  # of a WordPiece that goes on with a word; others begin one
# By pre-tokenizer: what begins a word, where most pieces go on with one.
BEGINS = {"Metaspace": "▁", "ByteLevel": "Ġ"}

Array = npt.NDArray[Any]


class Words:
    """The words that token ids spell, by the tokenizer.json in a backbone's `folder`.

    Raises SpaceliteError where that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
            content = json.loads(path.read_text("utf-8"))
            self._special = {entry["id"] for entry in content["added_tokens"] if entry["special"]}
            splitter = json.dumps(content["pre_tokenizer"])
        except Exception as error:  # tokenizers has no exception of its own
            raise SpaceliteError(f"{path} cannot be read: {one_line(error, 80)}") from error
        self._kind = next((name for name in BEGINS if name in splitter), "WordPiece")

    def of(self, ids: Sequence[int]) -> list[tuple[str, bool, list[int]]]:
        """The words of one text: (word, whether it is a special token, the numbers of its
        tokens)."""
        array = np.asarray(ids)
        starts = self.starts(array, np.array([0, len(array)]))
        bounds = [*starts.tolist(), len(array)]
        return [
            (self.spelled(ids[first:last]), self.is_special(ids[first]), list(range(first, last)))
            for first, last in itertools.pairwise(bounds)
        ]

    def starts(self, ids: Array, offsets: Array) -> Array:
        """Where words begin, (W,), in the token `ids` (T,) of texts that begin at
        `offsets` (N+1,)."""
        known, place = np.unique(ids, return_inverse=True)
        goes_on = np.array([self._goes_on(int(number)) for number in known], bool)[place]
        special = np.array([self.is_special(number) for number in known], bool)[place]
        begins = ~goes_on | special
        begins[1:] |= special[:-1]
        begins[offsets[:-1][offsets[:-1] < len(ids)]] = True
        return np.flatnonzero(begins)

    def is_special(self, number: int) -> bool:
        """Whether a token stands for no text."""
        return int(number) in self._special

    def spelled(self, ids: Sequence[int]) -> str:
        """The word that tokens spell."""
        if self._kind == "ByteLevel":  # its pieces are bytes: only together are they characters
            word: str = self._tokenizer.decode(list(map(int, ids)), skip_special_tokens=False)
            return word.strip()
        pieces = [self._piece(number) for number in ids]
        if self._kind == "Metaspace":
            return "".join(pieces).replace(BEGINS[self._kind], " ").strip()
        return "".join(piece.removeprefix(GOES_ON) for piece in pieces).strip()

    def _piece(self, number: int) -> str:
        return self._tokenizer.id_to_token(int(number)) or ""

    def _goes_on(self, number: int) -> bool:
        piece = self._piece(number)
        if self._kind in BEGINS:
            return not piece.startswith(BEGINS[self._kind])
        return piece.startswith(GOES_ON)
