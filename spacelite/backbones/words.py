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

CONTINUES = "##"  # marks a WordPiece token that continues a word; others begin one
# Pre-tokenizer -> the mark of tokens that begin a word; others continue one.
BEGINS = {"Metaspace": "▁", "ByteLevel": "Ġ"}

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
            content = json.loads(path.read_text("utf-8"))
            self._special = {entry["id"] for entry in content["added_tokens"] if entry["special"]}
            splitter = json.dumps(content["pre_tokenizer"])
        except Exception as error:  # tokenizers has no exception of its own
            raise SpaceliteError(f"{path} cannot be read: {one_line(error, 80)}") from error
        self._kind = next((name for name in BEGINS if name in splitter), "WordPiece")

    def of(self, ids: Sequence[int]) -> list[tuple[str, bool, list[int]]]:
        """The words of a text.

        Args:
            ids: The text's n token ids.

        Returns:
            For each word: its spelling, whether it is a special token, and the indices of its
                tokens in `ids`.
        """
        array = np.asarray(ids)
        starts = self.starts(array, np.array([0, len(array)]))
        bounds = [*starts.tolist(), len(array)]
        return [
            (self.spelled(ids[first:last]), self.is_special(ids[first]), list(range(first, last)))
            for first, last in itertools.pairwise(bounds)
        ]

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
