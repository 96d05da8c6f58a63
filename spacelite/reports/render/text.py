"""Blocks -> marked-up text: what markdown and LaTeX have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spacelite.document import (
    Block,
    Bullets,
    Heading,
    Mistakes,
    Paragraph,
    Plot,
    Table,
)
from spacelite.reports.analysis.examples import Mistake


@dataclass(frozen=True)
class Markup:
    """How a markup language writes things. All but `escaped` and `table` take escaped text."""

    escaped: Callable[[str], str]
    heading: Callable[[int, str], str]
    bullets: Callable[[Sequence[str]], str]
    strong: Callable[[str], str]
    table: Callable[[Table], str]


def parts(blocks: Sequence[Block], markup: Markup) -> list[str]:
    """The text of each block except plots."""
    return [_part(block, markup) for block in blocks if not isinstance(block, Plot)]


def _part(block: Block, markup: Markup) -> str:
    escaped = markup.escaped
    if isinstance(block, Heading):
        return markup.heading(block.level, escaped(block.text))
    if isinstance(block, Paragraph):
        return escaped(block.text)
    if isinstance(block, Bullets):
        return markup.bullets([escaped(item) for item in block.items])
    if isinstance(block, Table):
        return markup.table(block)
    if isinstance(block, Mistakes):
        return markup.bullets([_mistake(mistake, markup) for mistake in block.items])
    raise TypeError(block)


def _mistake(mistake: Mistake, markup: Markup) -> str:
    """A text in which words are strong if they contribute more than half as much to the predicted
    label as the strongest word."""
    told = f"{mistake.place}, {mistake.label}, predicted {mistake.predicted}"
    limit = max(*mistake.shares, 0) / 2
    words = []
    for word, share in zip(mistake.words, mistake.shares, strict=True):
        if word:
            shown = markup.escaped(word)
            words.append(markup.strong(shown) if share > limit else shown)
    return f"{markup.escaped(told)} ({mistake.confidence:.2f}): {' '.join(words)}"
