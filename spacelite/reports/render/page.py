"""Pages: HTML files that hold all they need, or have the files of their figures beside them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spacelite.document import (
    Block,
    Bullets,
    Cell,
    Heading,
    Line,
    Mistakes,
    Paragraph,
    Plot,
    Table,
    decimals,
    with_sign,
)
from spacelite.heads.additive import SPACE
from spacelite.inference.explanation import Explanation, Marked
from spacelite.reports.render import plots
from spacelite.types import Array
from spacelite.visible import visible_name

if TYPE_CHECKING:
    from spacelite.studies.learning_curve import Curve

SIDE_BY_SIDE = ("confusion", "classes", "words")  # small tables
# Ids and names of caches, such as `minilm--posts--4240b47bbb`, which a line does not break.
IDS = re.compile(r"([\w.-]+--[\w.-]*\w)")
MOST_SPACES = 6  # browsers limit the number of three-dimensional figures on a page


@dataclass
class Element:
    """One unit of the template: a block with its figures or texts, or tables side by side."""

    kind: str
    block: Any = None
    anchor: str = ""
    tables: list[Block] = field(default_factory=list)
    keys: list[plots.Trace] = field(default_factory=list)
    panels: list[tuple[str, plots.Panel]] = field(default_factory=list)
    texts: list[list[Marked]] = field(default_factory=list)

    @classmethod
    def of(cls, block: Block) -> Element:
        """The element of a block, with what is drawn or marked in it."""
        element = cls(type(block).__name__.lower(), block)
        if isinstance(block, Plot):
            element.keys, panels = plots.panels(block)
            element.panels = [(f"{block.name}-{i}", panel) for i, panel in enumerate(panels)]
        elif isinstance(block, Mistakes):
            element.texts = [mistake.marked for mistake in block.items]
        return element


def report_page(everything: Sequence[Block], *, files_beside: bool = True) -> str:
    """The report as an HTML page, as `render` makes it."""
    return render("spacelite report", list(_elements(everything)), files_beside=files_beside)


def _elements(everything: Sequence[Block]) -> Iterable[Element]:

    def is_small(block: Block) -> bool:
        return isinstance(block, Table) and block.kind in SIDE_BY_SIDE

    for small, blocks in itertools.groupby(everything, is_small):
        if small:
            yield Element("tables", tables=list(blocks))
        else:
            yield from map(Element.of, blocks)


def render(title: str, elements: Sequence[Element], *, files_beside: bool = False) -> str:
    """An HTML page of these elements; with `files_beside` it reads `plots.program`'s file, and
    links to the files of its plots. A page without figures has no program."""
    for number, element in enumerate(elements):
        element.anchor = f"part-{number}"
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("spacelite.reports.render"),
        autoescape=True,
        undefined=StrictUndefined,
        # Texts and names come from anywhere; a browser obeys marks that turn the direction around.
        finalize=lambda value: visible_name(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["parts"] = IDS.split
    template = environment.get_template("page.html.jinja")
    drawn = any(element.panels for element in elements)
    return template.render(
        title=title,
        elements=elements,
        program=plots.program() if drawn else None,
        files_beside=files_beside,
    )


def explanation_page(
    explanation: Explanation, labels: Sequence[int], latent: int | None, about: str
) -> str:
    """The page of an explained text: the prediction, the text with each word's share in the logits
    of some labels, its tokens as points in concept spaces, if any, and every word's share in every
    logit, as in `Explanation.shares`. `latent` is L of a space head, None for other heads; `about`
    names the head and the text."""
    name = ", ".join(explanation.labels[label] for label in labels)
    prediction = f"Predicted: {explanation.prediction}. {explanation.decided}".rstrip()
    if explanation.example is not None:
        prediction += f" Labelled {', '.join(explanation.example) or 'with nothing'}."
    blocks: list[Block | Element] = [
        Paragraph(about),
        Heading(1, "Prediction"),
        Paragraph(prediction),
        *([_probabilities(explanation)] if explanation.task.has_probabilities else []),
        Heading(1, "The text"),
        *(block for label in labels for block in _of_label(explanation, label)),
    ]
    if explanation.unknown:
        blocks.append(Paragraph(explanation.unknown))
    if explanation.spaces:
        blocks += _spaces(explanation, labels[0], latent)
    blocks += [Heading(1, "Every word"), _every_word(explanation)]
    if explanation.block_names:
        blocks += [_head_blocks(explanation, label) for label in labels]
    elements = [block if isinstance(block, Element) else Element.of(block) for block in blocks]
    return render(f"What contributes to {name}", elements)


def _of_label(explanation: Explanation, label: int) -> list[Block | Element]:
    """The text with each word's share in a label's logit."""
    words, bias, total = (
        explanation.written(value)
        for value in (
            explanation.shares[:, label].sum(),
            explanation.bias_shown[label],
            explanation.logits_shown[label],
        )
    )
    sum_of_shares = (
        f"Words {words} and bias {bias} add up to the {explanation.task.output} {total}, to within "
        f"{explanation.exact}. {explanation.recomputed}"
    ).rstrip()
    return [
        Paragraph(explanation.legend(label)),
        Element("explained", explanation, texts=[explanation.marked(label)]),
        Paragraph(sum_of_shares),
    ]


def learning_curve_page(curve: Curve) -> str:
    """The page of a learning curve: drawing, table and sentences."""
    chart = curve.chart()
    blocks: list[Block] = [
        Heading(1, chart.heading),
        Bullets(curve.sentences),
        Plot("learning-curve", chart.name, chart.text, chart),
        curve.table(),
    ]
    return render("Learning curve", list(map(Element.of, blocks)))


def _probabilities(explanation: Explanation) -> Table:
    rows = zip(explanation.labels, explanation.probabilities, explanation.logits, strict=True)
    lines = [
        Line.of(label, Cell(decimals(chance, 3), weight=chance), with_sign(logit))
        for label, chance, logit in rows
    ]
    return Table("Probabilities", ["Label", "Probability", "Logit"], lines, "probabilities")


def _spaces(explanation: Explanation, label: int, latent: int | None) -> list[Block | Element]:
    spaces, name = explanation.spaces, explanation.labels[label]
    shown = sorted(
        sorted(range(len(spaces)), key=lambda c: -explanation.probabilities[c])[:MOST_SPACES]
    )
    against = "count against it" if explanation.number is None else "lower it"
    colours = f"Green points contribute to {name}, orange ones {against}"
    output, be = ("logits", "are") if explanation.number is None else ("prediction", "is")
    use = f"the {output} {be}"
    shares = explanation.shares[:, label]
    if SPACE in explanation.block_names:
        shares = explanation.block_shares(SPACE)[:, label]
        colours = f"Green points contribute to {name} through this block, orange ones {against}"
        use = f"the block's part of the {output} is"
    of_tokens = sorted(
        (index, word.text, share)
        for word, share in zip(explanation.words, shares.tolist(), strict=True)
        for index in word.tokens
    )
    _, words, of_words = zip(*of_tokens, strict=True)
    panels = [
        plots.concept_space(
            explanation.labels[c],
            spaces[c],
            words,
            of_words,
            list(map(explanation.written, of_words)),
            explanation.column(label),
        )
        for c in shown
    ]
    text = (
        f"Every token is a point; hovering shows its word. {colours}; the diamond is "
        f"their centroid, from which {use} computed."
    )
    axes = spaces[0].shape[1]
    if latent is not None and latent > axes:
        text += f" Of {latent} dimensions the first {axes} principal axes of the text are shown."
    if len(shown) < len(spaces):
        text += f" Of {len(spaces)} spaces those of the {len(shown)} most probable labels."
    return [
        Heading(1, "Concept spaces"),
        Paragraph(text),
        Element("spaces", panels=[(f"space-{i}", panel) for i, panel in enumerate(panels)]),
    ]


def _share_lines(explanation: Explanation, shares: Array) -> list[Line]:
    """A line per word with its shares, (n, k), shaded by their size."""
    strongest = float(np.abs(shares).max(initial=0.0)) or 1.0
    return [
        Line.of(
            word.name,
            *(Cell(explanation.written(share), weight=abs(share) / strongest) for share in of_word),
        )
        for word, of_word in zip(explanation.words, shares.tolist(), strict=True)
    ]


def _head_blocks(explanation: Explanation, label: int) -> Table:
    """Each word's share in a label's logit from each block of the head."""
    names = explanation.block_names
    parts = np.stack([explanation.block_shares(name)[:, label] for name in names], axis=1)
    of = f"{explanation.task.output} of {explanation.labels[label]}"
    title = f"Shares of words in the {of}, by block of the head"
    columns = ["Word", *(f"From {name}" for name in names)]
    return Table(title, columns, _share_lines(explanation, parts), "blocks")


def _every_word(explanation: Explanation) -> Table:
    lines, output = _share_lines(explanation, explanation.shares), explanation.task.output
    for name, kind, values in (
        ("bias", "bias", explanation.bias_shown),
        (output, "logit", explanation.logits_shown),
    ):
        cells = (explanation.written(value) for value in values)
        lines.append(Line.of(name, *cells, kind=kind))
    columns = ["Word", *explanation.labels]
    return Table(f"Shares of words in the {output}s", columns, lines, "shares")
