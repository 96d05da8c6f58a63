"""Findings -> the blocks of a report, in order."""

from __future__ import annotations

from collections.abc import Sequence

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
    p_value,
    with_sign,
)
from spacelite.metrics.scores import METRICS
from spacelite.reports.analysis.comparisons import Analysis, Cost, SystemAnalysis, drawn_metrics
from spacelite.reports.analysis.content import Findings, GroupFindings
from spacelite.reports.analysis.examples import WordsAndMistakes
from spacelite.reports.analysis.rows import MeanStd, Section
from spacelite.reports.document import wording
from spacelite.reports.document.systems_table import figure_cell, systems_table
from spacelite.studies import answers
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL, TASKS

LARGEST_MATRIX = 20  # labels
MOST_CONFUSIONS = 30


def report_blocks(report: Findings) -> list[Block]:
    """The whole report as blocks, in order."""
    blocks: list[Block] = []
    if report.published:
        blocks.append(Heading(1, "Published tables"))
        blocks.append(
            Paragraph(
                "Each measured row, the published one and their difference (measured minus "
                "published). Loss is the full loss with its weighted terms: only CE can be "
                "compared across rows. The best accuracy, F1, precision and recall are bold."
            )
        )
        for section in report.published:
            blocks += section_blocks(section, 2)
    for number, part in enumerate(report.parts, 1):
        blocks += _part(part, number, report.also)
    return blocks


def section_blocks(section: Section, level: int, also: str | None = None) -> list[Block]:
    """The heading, the table of systems and the notes of a section; `also` as in
    `systems_table`."""
    blocks: list[Block] = [Heading(level, section.title), Paragraph(section.subtitle)]
    blocks.append(systems_table(section, also))
    if section.notes:
        blocks.append(Bullets(section.notes))
    return blocks


def _part(part: GroupFindings, number: int, also: str | None) -> list[Block]:
    blocks = section_blocks(part.section, 1, also)
    analysis = part.analysis
    if analysis.incomplete:
        blocks.append(Paragraph(wording.incomplete(analysis)))
    if analysis.left_out:
        blocks.append(Paragraph(wording.left_out(analysis)))
    if analysis.comparisons:
        blocks.append(Heading(2, "Is the difference real?"))
        blocks.append(Paragraph(wording.method(part.section, analysis)))
        blocks.append(Bullets(wording.verdicts(analysis)))
        blocks.append(_pairs(analysis))
    if analysis.curves:
        blocks.append(Heading(2, "Curves"))
        text = (
            "Figures after every epoch, mean over seeds; the band is one standard deviation over "
            "seeds. Solid: validation; dotted: train, accumulated while the weights move."
        )
        blocks += [Plot("curves", f"curves-{number}", text, analysis), _last_epoch(analysis)]
    if analysis.systems:
        blocks.append(Heading(2, "Which labels are confused"))
        blocks.append(
            Paragraph(
                "Rows are the true labels, columns the predicted ones; counts of the head with the "
                "lowest seed. Each class's figures are means over seeds."
            )
        )
        for system in analysis.systems:
            blocks.append(CONFUSIONS[analysis.task](system, analysis.label_names))
            blocks.append(_classes(system))
        blocks += _calibration(analysis, number)
    if part.examples is not None:
        blocks += _examples(part.examples, part.section)
    blocks += answers.report_blocks(part.answers, number)
    if analysis.cost is not None:
        blocks += _cost(analysis.cost)
    return blocks


def _last_epoch(analysis: Analysis) -> Table:
    lines, drawn = [], drawn_metrics(analysis.curves)
    for curve in analysis.curves:
        for split, figures in curve.splits.items():
            cells = [
                figure_cell(MeanStd(means[-1], None if stds is None else stds[-1]))
                for means, stds in (figures[metric] for metric in drawn)
            ]
            lines.append(Line([Cell(f"{curve.name}, {split}"), *cells]))
    columns = ["System", *(METRICS[metric].heading for metric in drawn)]
    return Table("After the last epoch", columns, lines, "curves", folded=True)


def _pairs(analysis: Analysis) -> Table:
    lines = [
        Line(
            [
                Cell(pair.first),
                Cell(pair.second),
                Cell(with_sign(100 * pair.accuracy.value, 1)),
                Cell(wording.interval(pair.accuracy)),
                Cell(p_value(pair.corrected).removeprefix("p ").removeprefix("= ")),
            ]
        )
        for pair in analysis.pairs
    ]
    columns = ["First", "Second", "Accuracy difference (points)", "95% interval", "p (Holm)"]
    return Table("All pairs, first minus second", columns, lines, "pairs", folded=True)


def _matrix(system: SystemAnalysis, names: Sequence[str]) -> Table:
    """Counts by true and predicted label."""
    if len(names) > LARGEST_MATRIX:
        return _most_confused(system, names)
    rows = zip(names, system.confusion, strict=True)
    lines = [Line([Cell(name), *_shaded(counts)]) for name, counts in rows]
    return Table(system.name, ["True \\ predicted", *names], lines, "confusion")


def _per_label(system: SystemAnalysis, names: Sequence[str]) -> Table:
    """Counts of false and true negatives and positives of each label."""
    columns = ["Label", "True negative", "False positive", "False negative", "True positive"]
    lines = [
        Line([Cell(name), *(Cell(f"{count:,}") for count in np.ravel(counts).tolist())])
        for name, counts in zip(names, system.confusion, strict=True)
    ]
    return Table(system.name, columns, lines, "confusion")


# Task -> the table of its confusions.
CONFUSIONS = {SINGLE_LABEL.name: _matrix, MULTI_LABEL.name: _per_label}


def _most_confused(system: SystemAnalysis, names: Sequence[str]) -> Table:
    """The most frequent confusions, in place of a matrix too large for a page."""
    counts = np.array(system.confusion)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:MOST_CONFUSIONS].tolist()
    cells = [divmod(index, len(names)) for index in order]
    lines = [
        Line([Cell(names[true]), Cell(names[guess]), Cell(f"{counts[true, guess]:,}")])
        for true, guess in cells
        if counts[true, guess]
    ]
    caption = f"{system.name}, the most frequent confusions"
    return Table(caption, ["True", "Predicted", "Examples"], lines, "confusion")


def _shaded(counts: Sequence[int]) -> list[Cell]:
    total = max(sum(counts), 1)
    return [Cell(f"{count:,}", weight=count / total) for count in counts]


def _classes(system: SystemAnalysis) -> Table:
    lines = [
        Line(
            [
                Cell(one.label),
                *(figure_cell(value) for value in (one.precision, one.recall, one.f1)),
                Cell(f"{one.support:,}"),
            ]
        )
        for one in system.classes
    ]
    columns = ["Class", "Precision", "Recall", "F1", "Examples"]
    return Table(f"{system.name}, by class", columns, lines, "classes")


def _calibration(analysis: Analysis, number: int) -> list[Block]:
    lines = [
        Line([Cell(system.name), figure_cell(system.calibration.error)])
        for system in analysis.systems
    ]
    about = (
        "Predictions in 15 bins of confidence, the probability of what is predicted: the expected "
        "calibration error (ECE) is the mean distance of the bins' accuracy from their confidence."
    )
    text = (
        "The diagrams are of the head with the lowest seed, as is the error above each; larger "
        "dots are of more examples. On the diagonal confidence equals accuracy; above it a head is "
        "underconfident, below it overconfident."
    )
    columns = ["System", "Expected calibration error"]
    return [
        Heading(2, "How far confidence can be trusted"),
        Paragraph(about),
        Plot("reliability", f"reliability-{number}", text, analysis),
        Table("Expected calibration error, mean over seeds", columns, lines, "calibration"),
    ]


def _examples(examples: WordsAndMistakes, section: Section) -> list[Block]:
    beyond = TASKS[examples.task].beyond
    blocks: list[Block] = [
        Heading(2, "Which words matter"),
        Paragraph(
            f"Of the head {examples.run} ({examples.name}): the words that add most to each "
            f"label's logit{beyond}, over the {section.split} split. Per text: all its occurrences "
            "together, divided by the number of texts; each time: for one occurrence. The shares "
            "are exact."
        ),
    ]
    for label, words in examples.words.items():
        if not words:
            blocks.append(Paragraph(f"No word contributes to {label}."))
            continue
        strongest = words[0].mean
        lines = [
            Line(
                [
                    Cell(word.word),
                    Cell(with_sign(word.mean), weight=word.mean / strongest),
                    Cell(with_sign(word.each)),
                    Cell(f"{word.count:,}"),
                ]
            )
            for word in words
        ]
        blocks.append(Table(label, ["Word", "Per text", "Each time", "Count"], lines, "words"))
    if examples.mistakes:
        run, example = examples.run.rpartition("--")[2], examples.mistakes[0].example
        command = f"spacelite explain {run} --example {example}"
        blocks.append(Heading(2, "The most confident mistakes"))
        blocks.append(
            Paragraph(
                "Of the same head. Marked is what a word adds to the most probable label's logit"
                f"{beyond.replace('their', 'its')}; {command} shows one in full."
            )
        )
        blocks.append(Mistakes(examples.mistakes))
    return blocks


def _cost(cost: Cost) -> list[Block]:
    lines = [
        Line(
            [
                Cell(one.name),
                Cell(wording.seconds(one.seconds)),
                Cell(wording.span(one.heads_in_pass)),
            ]
        )
        for one in cost.training
    ]
    return [
        Heading(2, "Cost"),
        Paragraph(wording.cost(cost)),
        Table(
            "Seconds of the pass that a head was trained in, and how many heads shared it",
            ["System", "Training", "Heads in the pass"],
            lines,
            "cost",
        ),
    ]
