"""Text for terminals: control characters become visible, and long texts short.

Texts, labels and the names of files come from anywhere. A terminal would obey the control
characters in them: change its title, move the cursor, or reverse the order of letters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# Controls but tab and line feed (C0, DEL, C1), line and paragraph separators, and what changes the
# direction of writing.
HOSTILE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""The text with each control character written out: `\x1b` or `\u202e`."""

    def written(match: re.Match[str]) -> str:
        code = ord(match[0])
        return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

    return HOSTILE.sub(written, text)


def visible_name(name: str) -> str:
    r"""A name on one line: with line feeds and tabs written out too."""
    return visible(name.replace("\n", r"\n").replace("\t", r"\t"))


def as_meant(name: str, known: Iterable[str]) -> str:
    """The one of the known names that is given as it is or as it is shown; else the name itself."""
    known = list(known)
    shown = (one for one in known if visible_name(one) == name)
    return name if name in known else next(shown, name)


def json_escaped(document: str) -> str:
    r"""A JSON document in which control characters are escapes (`\u001b`): the same document, since
    such characters can stand in its strings alone."""
    return HOSTILE.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def shortened(text: str, most: int) -> str:
    """A text on one line of at most `most` characters: an ellipsis stands for the rest."""
    line = visible(re.sub(r"[ \t\r\n]+", " ", text[: 8 * most]).strip())
    cut = len(line) > most or len(text) > 8 * most
    return f"{line[: most - 1].rstrip()}…" if cut else line
