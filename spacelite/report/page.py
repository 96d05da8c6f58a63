"""Pages: one file of HTML that needs nothing else. The only importer of jinja2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from spacelite.report import figures
from spacelite.report.blocks import Block, Heading, Mistakes, Plot, Table

WEAK = 0.1  # of the strongest contribution: words below it are not marked
SIDE_BY_SIDE = ("confusion", "classes", "words")  # small tables


@dataclass(frozen=True)
class Marked:
    """A word of a highlighted text: `side` is for, against or "", `weight` in [0, 1] how much."""

    text: str
    side: str
    weight: float
    contribution: float


@dataclass
class Element:
    """What the template lays out at once: a block with what it needs, or tables side by side."""

    kind: str
    block: Any = None
    anchor: str = ""
    tables: list[Table] = field(default_factory=list)
    keys: list[figures.Key] = field(default_factory=list)
    panels: list[tuple[str, figures.Panel]] = field(default_factory=list)
    texts: list[list[Marked]] = field(default_factory=list)


def of_report(everything: Sequence[Block]) -> str:
    """The report's page."""
    return render("spacelite report", list(_elements(everything)))


def _elements(everything: Sequence[Block]) -> Iterable[Element]:
    small: list[Table] = []
    for number, block in enumerate(everything):
        if isinstance(block, Table) and block.kind in SIDE_BY_SIDE:
            small.append(block)
            continue
        if small:
            yield Element("tables", tables=small)
            small = []
        element = Element(type(block).__name__.lower(), block)
        if isinstance(block, Heading):
            element.anchor = f"part-{number}"
        elif isinstance(block, Plot):
            element.keys, made = figures.panels(block)
            element.panels = [(f"{block.name}-{i}", panel) for i, panel in enumerate(made)]
        elif isinstance(block, Mistakes):
            element.texts = [marked(one.words, one.shares) for one in block.items]
        yield element
    if small:
        yield Element("tables", tables=small)


def marked(words: Sequence[str], shares: Sequence[float]) -> list[Marked]:
    """A text's words with their shares in a logit, those that matter marked."""
    strongest = max(map(abs, shares), default=0.0) or 1.0
    made = []
    for word, share in zip(words, shares, strict=True):
        weight = abs(share) / strongest
        side = "" if weight <= WEAK else "for" if share > 0 else "against"
        made.append(Marked(word, side, weight, share))
    return made


def render(title: str, elements: Sequence[Element]) -> str:
    """A page of these elements."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("spacelite.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.jinja")
    return template.render(title=title, elements=elements, plotly=figures.script())
