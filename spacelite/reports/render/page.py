"""Pages: single, self-contained HTML files. The only importer of jinja2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from spacelite.document import Block, Mistakes, Plot, Table
from spacelite.inference.explanation import Marked, marked
from spacelite.reports.render import figures
from spacelite.visible import visible

SIDE_BY_SIDE = ("confusion", "classes", "words")  # small tables


@dataclass
class Element:
    """One unit of the template: a block with its figures or texts, or tables side by side."""

    kind: str
    block: Any = None
    anchor: str = ""
    tables: list[Table] = field(default_factory=list)
    keys: list[figures.Key] = field(default_factory=list)
    panels: list[tuple[str, figures.Panel]] = field(default_factory=list)
    texts: list[list[Marked]] = field(default_factory=list)

    @classmethod
    def of(cls, block: Block) -> Element:
        """The element of a block that needs nothing else."""
        return cls(type(block).__name__.lower(), block)


def report_page(everything: Sequence[Block], *, files_beside: bool = True) -> str:
    """The report as an HTML page; `files_beside` links to the files of its figures."""
    return render("spacelite report", list(_elements(everything)), files_beside=files_beside)


def _elements(everything: Sequence[Block]) -> Iterable[Element]:
    small: list[Table] = []
    for block in everything:
        if isinstance(block, Table) and block.kind in SIDE_BY_SIDE:
            small.append(block)
            continue
        if small:
            yield Element("tables", tables=small)
            small = []
        element = Element.of(block)
        if isinstance(block, Plot):
            element.keys, made = figures.panels(block)
            element.panels = [(f"{block.name}-{i}", panel) for i, panel in enumerate(made)]
        elif isinstance(block, Mistakes):
            element.texts = [marked(one.words, one.shares) for one in block.items]
        yield element
    if small:
        yield Element("tables", tables=small)


def render(title: str, elements: Sequence[Element], *, files_beside: bool = False) -> str:
    """An HTML page of these elements; `files_beside` links to the files of its plots."""
    for number, element in enumerate(elements):
        element.anchor = f"part-{number}"
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("spacelite.reports.render"),
        autoescape=True,
        undefined=StrictUndefined,
        # Texts and names come from anywhere; a browser obeys marks that turn the direction around.
        finalize=lambda value: visible(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.jinja")
    return template.render(
        title=title, elements=elements, plotly=figures.script(), files_beside=files_beside
    )
