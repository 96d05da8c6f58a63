"""Token ids -> words, with the backbone's own tokenizer file. The only importer of `tokenizers`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from spacelite.errors import SpaceliteError, one_line

GOES_ON = "##"  # of a WordPiece that goes on with a word; others begin one
# By pre-tokenizer: what begins a word, where most pieces go on with one.
BEGINS = {"Metaspace": "▁", "ByteLevel": "Ġ"}


def words_of(folder: Path, ids: Sequence[int]) -> list[tuple[str, bool, list[int]]]:
    """The words that a text's token `ids` spell: (word, whether it is a special token, the numbers
    of its tokens). `folder`: the backbone's, with its tokenizer.json.

    Raises SpaceliteError where that cannot be read.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
        content = json.loads(path.read_text("utf-8"))
        special = {entry["id"] for entry in content["added_tokens"] if entry["special"]}
        splitter = json.dumps(content["pre_tokenizer"])
    except Exception as error:  # tokenizers has no exception of its own
        raise SpaceliteError(f"{path} cannot be read: {one_line(error, 80)}") from error
    kind = next((name for name in BEGINS if name in splitter), "WordPiece")
    pieces = [tokenizer.id_to_token(int(number)) or "" for number in ids]
    words: list[tuple[bool, list[int]]] = []
    for number, piece in enumerate(pieces):
        is_special = int(ids[number]) in special
        goes_on = (
            not piece.startswith(BEGINS[kind]) if kind in BEGINS else piece.startswith(GOES_ON)
        )
        if goes_on and words and not is_special and not words[-1][0]:
            words[-1][1].append(number)
        else:
            words.append((is_special, [number]))

    def spelled(numbers: list[int]) -> str:
        if kind == "ByteLevel":  # its pieces are bytes: only together are they characters
            return tokenizer.decode([int(ids[n]) for n in numbers], skip_special_tokens=False)
        if kind == "Metaspace":
            return "".join(pieces[n] for n in numbers).replace(BEGINS[kind], " ")
        return "".join(pieces[n].removeprefix(GOES_ON) for n in numbers)

    return [(spelled(numbers).strip(), is_special, numbers) for is_special, numbers in words]
