"""Which words of a text are marked, for or against a label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WEAK = 0.1  # words at or below this share of the strongest contribution are not marked


@dataclass(frozen=True)
class Marked:
    """A word of a highlighted text.

    Attributes:
        text: The word.
        side: `for` or `against` the label; empty for a word that hardly matters.
        weight: The size of its contribution relative to the largest one, in [0, 1].
        contribution: The word's share in the label's logit, as in `Explanation.shares`.
    """

    text: str
    side: str
    weight: float
    contribution: float


def marked(words: Sequence[str], shares: Sequence[float]) -> list[Marked]:
    """Mark the words of a text that matter, given each word's share in a logit."""
    strongest = max(map(abs, shares), default=0.0) or 1.0
    text = []
    for word, share in zip(words, shares, strict=True):
        weight = abs(share) / strongest
        side = "" if weight <= WEAK else "for" if share > 0 else "against"
        text.append(Marked(word, side, weight, share))
    return text
