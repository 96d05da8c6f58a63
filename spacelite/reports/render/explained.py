"""The page that explains the prediction for one text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.document import Cell, Heading, Line, Paragraph, Table, with_sign
from spacelite.heads.additive import SPACE
from spacelite.inference.explanation import Explanation
from spacelite.reports.render import figures
from spacelite.reports.render.page import Element, render

MOST_SPACES = 6  # browsers limit the number of three-dimensional figures on a page

Array = npt.NDArray[Any]


def page(
    explanation: Explanation,
    label: int,
    latent: int | None,
    about: str,
) -> str:
    """The page of an explained text: the prediction, the text with each word's share in a label's
    logit, its tokens as points in the concept spaces, and every word's share in every logit.
    Shares are shown as in `Explanation.shares`.

    Args:
        explanation: The explanation to show.
        label: Index of the label to explain.
        latent: L of a space head; None for other heads.
        about: A sentence that names the head and the text.
    """
    name = explanation.labels[label]
    elements = [
        Element.of(Paragraph(about)),
        Element.of(Heading(1, "Prediction")),
        Element.of(Paragraph(_prediction(explanation))),
        Element.of(_probabilities(explanation)),
        Element.of(Heading(1, "The text")),
        Element.of(Paragraph(explanation.legend(label))),
        Element("explained", texts=[explanation.marked(label)]),
        Element.of(Paragraph(_sum(explanation, label))),
    ]
    if explanation.unknown:
        elements.append(Element.of(Paragraph(explanation.unknown)))
    if explanation.spaces:
        elements += _spaces(explanation, label, explanation.spaces, latent)
    elements += [Element.of(Heading(1, "Every word")), Element.of(_every_word(explanation))]
    if explanation.block_names:
        elements.append(Element.of(_blocks(explanation, label)))
    return render(f"What contributes to {name}", elements)


def _prediction(explanation: Explanation) -> str:
    said = f"Predicted: {explanation.said}. {explanation.decided}".rstrip()
    if explanation.example is not None:
        said += f" Labelled {', '.join(explanation.example) or 'with nothing'}."
    return said


def _probabilities(explanation: Explanation) -> Table:
    rows = zip(explanation.labels, explanation.probabilities, explanation.logits, strict=True)
    lines = [
        Line([Cell(label), Cell(f"{chance:.3f}", weight=chance), Cell(with_sign(logit))])
        for label, chance, logit in rows
    ]
    return Table("Probabilities", ["Label", "Probability", "Logit"], lines, "probabilities")


def _sum(explanation: Explanation, label: int) -> str:
    total = explanation.shares[:, label].sum()
    return (
        f"Words {with_sign(total)} and bias {with_sign(explanation.bias_shown[label])} add "
        f"up to the logit {with_sign(explanation.logits_shown[label])}, to within "
        f"{max(explanation.difference, 1e-16):.0e}. {explanation.recomputed}"
    ).rstrip()


def _spaces(
    explanation: Explanation, label: int, spaces: Sequence[Array], latent: int | None
) -> list[Element]:
    shown = sorted(
        sorted(range(len(spaces)), key=lambda c: -explanation.probabilities[c])[:MOST_SPACES]
    )
    among_others = SPACE in explanation.block_names
    own = explanation.block_shares(SPACE) if among_others else explanation.shares
    of_tokens = [
        (word.text, float(share), index)
        for word, share in zip(explanation.words, own[:, label], strict=True)
        for index in word.tokens
    ]
    of_tokens.sort(key=lambda one: one[2])
    words, shares, _ = zip(*of_tokens, strict=True)
    about = f"for {explanation.labels[label]}"
    panels = [
        figures.concept_space(explanation.labels[c], spaces[c], words, shares, about) for c in shown
    ]
    axes = spaces[0].shape[1]
    name = explanation.labels[label]
    if among_others:
        colours = f"Green points contribute to {name} through this block, orange ones count"
        use = "the block's part of the logits is"
    else:
        colours, use = f"Green points contribute to {name}, orange ones count", "the logits are"
    text = (
        f"Every token is a point; hovering shows its word. {colours} against it; the diamond is "
        f"their centroid, from which {use} computed."
    )
    if latent is not None and latent > axes:
        text += f" Of {latent} dimensions the first {axes} principal axes of the text are shown."
    if len(shown) < len(spaces):
        text += f" Of {len(spaces)} spaces those of the {len(shown)} most probable labels."
    return [
        Element.of(Heading(1, "Concept spaces")),
        Element.of(Paragraph(text)),
        Element("spaces", panels=[(f"space-{i}", panel) for i, panel in enumerate(panels)]),
    ]


def _blocks(explanation: Explanation, label: int) -> Table:
    """Each word's share in a label's logit from each block of the head."""
    names = explanation.block_names
    parts = np.stack([explanation.block_shares(name)[:, label] for name in names], axis=1)
    strongest = float(np.abs(parts).max(initial=0.0)) or 1.0
    lines = [
        Line(
            [
                Cell(word.text),
                *(Cell(with_sign(one), weight=abs(one) / strongest) for one in own.tolist()),
            ]
        )
        for word, own in zip(explanation.words, parts, strict=True)
    ]
    title = f"Shares of words in the logit of {explanation.labels[label]}, by block of the head"
    return Table(title, ["Word", *(f"From {name}" for name in names)], lines, "blocks")


def _every_word(explanation: Explanation) -> Table:
    strongest = float(np.abs(explanation.shares).max(initial=0.0)) or 1.0
    lines = [
        Line(
            [
                Cell(word.text),
                *(
                    Cell(with_sign(share), weight=abs(share) / strongest)
                    for share in shares.tolist()
                ),
            ]
        )
        for word, shares in zip(explanation.words, explanation.shares, strict=True)
    ]
    for name, values in (("bias", explanation.bias_shown), ("logit", explanation.logits_shown)):
        lines.append(Line([Cell(name), *(Cell(with_sign(value)) for value in values)], name))
    columns = ["Word", *explanation.labels]
    return Table("Shares of words in the logits", columns, lines, "shares")
