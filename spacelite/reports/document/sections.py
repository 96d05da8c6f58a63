"""Findings -> the blocks of a report, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
    figure,
    p_value,
    with_sign,
)
from spacelite.metrics import rationales
from spacelite.metrics.rationales import Rationales
from spacelite.metrics.significance import Difference
from spacelite.reports.analysis.comparisons import SystemAnalysis, drawn_metrics
from spacelite.reports.analysis.content import Findings, GroupFindings
from spacelite.reports.analysis.groups import MeanStd, Section
from spacelite.reports.document import wording
from spacelite.reports.document.tables import figure_cell, short_id, systems_table
from spacelite.studies import answers
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL, TASKS, Task, known_metrics

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
                "compared across rows."
            )
        )
        for section in report.published:
            blocks += section_blocks(section, 2)
    for number, part in enumerate(report.parts, 1):
        blocks += section_blocks(part.section, 1, report.also)
        for part_section in SECTIONS.values():
            blocks += part_section(part, number)
    return blocks


def section_blocks(section: Section, level: int, also: str | None = None) -> list[Block]:
    """The heading, the table of systems and the notes of a section; `also` as in
    `systems_table`."""
    blocks: list[Block] = [Heading(level, section.title), Paragraph(section.subtitle)]
    blocks.append(systems_table(section, also))
    if section.notes:
        blocks.append(Bullets(section.notes))
    return blocks


def _comparisons(part: GroupFindings, number: int) -> list[Block]:
    analysis = part.analysis
    if not analysis.comparisons:
        return []
    metric = TASKS[analysis.task].headline
    lines = [
        Line.of(
            wording.of_seed(pair.first, pair.heads[0]),
            wording.of_seed(pair.second, pair.heads[1]),
            *_signed(metric, pair.headline),
            p_value(pair.corrected).removeprefix("p ").removeprefix("= "),
        )
        for pair in analysis.pairs
    ]
    of = known_metrics()[metric]
    heading = f"{of.heading} difference{' (points)' if of.in_points else ''}"
    caption = "All pairs, first minus second"
    if not of.higher_is_better:
        caption += f" (below 0: the first has the lower {of.in_words}, which is better)"
    columns = ["First", "Second", heading, "95% interval", "p (Holm)"]
    return [
        Heading(2, "Is the difference real?"),
        Paragraph(wording.method(part.section, analysis)),
        Bullets(wording.verdicts(analysis)),
        Table(caption, columns, lines, "pairs", folded=True),
    ]


def _signed(metric: str, difference: Difference) -> tuple[str, str]:
    """A difference of the metric with its sign, and its interval."""
    of = known_metrics()[metric]
    if not of.higher_is_better:  # by how much the first is better, so far
        difference = difference.reversed()
    amount = of.amount(difference.value)
    above = difference.value > 0 and amount.strip("0.")
    return f"{'+' if above else ''}{amount}", wording.interval(metric, difference)


def _curves(part: GroupFindings, number: int) -> list[Block]:
    analysis = part.analysis
    if not analysis.curves:
        return []
    lines, drawn, of = [], drawn_metrics(analysis.curves), TASKS[analysis.task].metrics
    for curve in analysis.curves:
        for split, figures in curve.splits.items():
            last = {
                metric: MeanStd(means[-1], None if stds is None else stds[-1])
                for metric, (means, stds) in figures.items()
            }
            cells = [figure_cell(last[metric], of[metric]) for metric in drawn]
            lines.append(Line.of(f"{curve.name}, {split}", *cells))
    columns = ["System", *(of[metric].heading for metric in drawn)]
    text = (
        "Figures after every epoch, mean over seeds; the band is one standard deviation over "
        "seeds. Solid: validation; dotted: train, accumulated while the weights move."
    )
    return [
        Heading(2, "Curves"),
        Plot("curves", f"curves-{number}", text, analysis),
        Table("After the last epoch", columns, lines, "curves", folded=True),
    ]


def _confusion(part: GroupFindings, number: int) -> list[Block]:
    analysis = part.analysis
    if not any(system.classes for system in analysis.systems):
        return []
    blocks: list[Block] = [
        Heading(2, "Which labels are confused"),
        Paragraph(
            "Rows are the true labels, columns the predicted ones; counts of the head with the "
            "lowest seed. Each class's figures are means over seeds."
        ),
    ]
    for system in analysis.systems:
        if analysis.task in CONFUSIONS:
            blocks.append(CONFUSIONS[analysis.task](system, analysis.label_names))
        lines = [
            Line.of(
                figures.label,
                *map(figure_cell, (figures.precision, figures.recall, figures.f1)),
                f"{figures.support:,}",
            )
            for figures in system.classes
        ]
        columns = ["Class", "Precision", "Recall", "F1", "Examples"]
        blocks.append(Table(f"{system.name}, by class", columns, lines, "classes"))
    return blocks


def _matrix(system: SystemAnalysis, names: Sequence[str]) -> Table:
    """Counts by true and predicted label."""
    if len(names) > LARGEST_MATRIX:
        return _most_confused(system, names)
    lines = []
    for name, counts in zip(names, system.confusion, strict=True):
        total = max(sum(counts), 1)
        shaded = (Cell(f"{count:,}", weight=count / total) for count in counts)
        lines.append(Line.of(name, *shaded))
    return Table(system.name, ["True \\ predicted", *names], lines, "confusion")


def _per_label(system: SystemAnalysis, names: Sequence[str]) -> Table:
    """Counts of false and true negatives and positives of each label."""
    columns = ["Label", "True negative", "False positive", "False negative", "True positive"]
    lines = [
        Line.of(name, *(f"{count:,}" for count in np.ravel(counts).tolist()))
        for name, counts in zip(names, system.confusion, strict=True)
    ]
    return Table(system.name, columns, lines, "confusion")


# Task -> the table of its confusions, if it has one.
CONFUSIONS = {SINGLE_LABEL.name: _matrix, MULTI_LABEL.name: _per_label}


def _most_confused(system: SystemAnalysis, names: Sequence[str]) -> Table:
    """The most frequent confusions, in place of a matrix too large for a page."""
    counts = np.array(system.confusion)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:MOST_CONFUSIONS].tolist()
    cells = [divmod(index, len(names)) for index in order]
    lines = [
        Line.of(names[true], names[guess], f"{counts[true, guess]:,}")
        for true, guess in cells
        if counts[true, guess]
    ]
    caption = f"{system.name}, the most frequent confusions"
    return Table(caption, ["True", "Predicted", "Examples"], lines, "confusion")


def _calibration(part: GroupFindings, number: int) -> list[Block]:
    analysis = part.analysis
    lines = [
        Line.of(system.name, figure_cell(system.calibration.error))
        for system in analysis.systems
        if system.calibration is not None
    ]
    if not lines:
        return []
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


def _intervals(part: GroupFindings, number: int) -> list[Block]:
    """Metrics of single heads with their intervals over examples, where the task has these."""
    systems = [system for system in part.analysis.systems if system.intervals]
    if not systems:
        return []
    metrics = TASKS[part.analysis.task].metrics
    lines = [
        Line.of(
            wording.of_seed(system.name, system.seed),
            *(
                Cell(
                    of.written(value),
                    f"({of.written(low)} to {of.written(high)})" if low < high else "",
                )
                for of, (value, (low, high)) in (
                    (metrics[name], figures) for name, figures in system.intervals.items()
                )
            ),
        )
        for system in systems
    ]
    split = part.section.split
    return [
        Heading(2, "How sure the figures are"),
        Paragraph(
            "Of the head with the lowest seed, with 95% intervals of a bootstrap over the "
            f"{part.section.examples[split]:,} {split} examples."
        ),
        Table(
            "Figures",
            ["System", *(metrics[name].heading for name in systems[0].intervals)],
            lines,
            "intervals",
        ),
    ]


def _words(part: GroupFindings, number: int) -> list[Block]:
    examples = part.examples
    if examples is None or not examples.words:
        return []
    task = TASKS[examples.task]
    blocks: list[Block] = [
        Heading(2, "Which words matter"),
        Paragraph(
            f"Of the head {examples.run} ({examples.name}): the words that {task.listed_words}"
            f"{task.beyond}, over the {part.section.split} split. Per text: all its "
            "occurrences together, divided by the number of texts; each time: for one occurrence. "
            f"The shares are exact. {examples.better}".rstrip()
        ),
    ]
    for label, words in examples.words.items():
        if not words:
            none = f"{label}: none." if task.of_numbers else f"No word contributes to {label}."
            blocks.append(Paragraph(none))
            continue
        means, each = ([getattr(word, name) for word in words] for name in ("mean", "each"))
        lines = [
            Line.of(
                word.word,
                Cell(_share(task, word.mean, means), weight=word.mean / words[0].mean),
                _share(task, word.each, each),
                f"{word.count:,}",
            )
            for word in words
        ]
        blocks.append(Table(label, ["Word", "Per text", "Each time", "Count"], lines, "words"))
    return blocks


def _share(task: Task, value: float, column: Sequence[float]) -> str:
    """What a word adds, in a column of such figures."""
    if not task.of_numbers:
        return with_sign(value)
    return figure(value, max(map(abs, column)), signed=True)


def _rationales(part: GroupFindings, number: int) -> list[Block]:
    alike: dict[tuple[Any, ...], dict[str, Rationales]] = {}
    for name, of in part.rationales.items():
        alike.setdefault(of.measured, {})[name] = of
    blocks: list[Block] = []
    for systems in alike.values():
        sentences = dict.fromkeys(sentence for of in systems.values() for sentence in of.sentences)
        blocks += [*rationales.tables(systems), Bullets([*sentences])]
    text = "Figures and the bounds of their intervals are means over seeds."
    return [Heading(2, "Explanations against people"), Paragraph(text), *blocks] if blocks else []


def _mistakes(part: GroupFindings, number: int) -> list[Block]:
    examples = part.examples
    if examples is None or not examples.mistakes:
        return []
    task = TASKS[examples.task]
    heading, adds_to = task.worst
    beyond = task.beyond.replace("their", "its")
    example = examples.mistakes[0].example
    command = f"spacelite explain {short_id(examples.run)} --example {example}"
    in_full = f"; {command} shows one in full" if examples.words else ""
    return [
        Heading(2, heading),
        Paragraph(
            f"Of the same head. The marks show what each word adds to {adds_to}{beyond}{in_full}."
        ),
        Mistakes(examples.mistakes),
    ]


def _cost(part: GroupFindings, number: int) -> list[Block]:
    if part.analysis.cost is None:
        return []
    lines = []
    for system in part.analysis.cost.training:
        mean, std = system.seconds.mean, system.seconds.std or 0.0
        # Seeds may have been trained in separate passes.
        seconds = f"{mean:,.1f} ± {std:.1f} s" if std >= 0.05 else f"{mean:,.1f} s"
        lines.append(Line.of(system.name, seconds, wording.span(system.heads_in_pass)))
    return [
        Heading(2, "Cost"),
        Paragraph(wording.cost(part.analysis.cost)),
        Table(
            "Seconds of the pass that a head was trained in, and how many heads shared it",
            ["System", "Training", "Heads in the pass"],
            lines,
            "cost",
        ),
    ]


# What a report says about a group below its table, in order: the group's findings and its number ->
# blocks, none if there is nothing to say.
SECTIONS: dict[str, Callable[[GroupFindings, int], list[Block]]] = {
    "missing": lambda part, number: [Paragraph(note) for note in wording.missing(part.analysis)],
    "comparisons": _comparisons,
    "curves": _curves,
    "confusion": _confusion,
    "calibration": _calibration,
    "intervals": _intervals,
    "words": _words,
    "mistakes": _mistakes,
    "rationales": _rationales,
    "studies": lambda part, number: answers.report_blocks(part.answers, number),
    "cost": _cost,
}
