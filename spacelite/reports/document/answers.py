"""The answers to questions about a cache (cross-validation, audit, ...) as parts of a report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from spacelite.document import Block, Bullets, Heading, Plot
from spacelite.errors import one_line
from spacelite.reports.document import learning_curve
from spacelite.reports.document.audit import audit_summary, findings_table, groups_table
from spacelite.reports.document.cross_validation import summary, table
from spacelite.studies.answers import Answer

log = logging.getLogger(__name__)

MOST_FINDINGS = 20  # of an audit, that a report lists


def answer_blocks(answers: Sequence[Answer], number: int) -> list[Block]:
    """The blocks of all answers, each under its own heading. One that cannot be read is left out
    with a warning.

    Args:
        answers: The answers.
        number: Number of the report's part that they stand in.
    """
    blocks: list[Block] = []
    # What a later version of spacelite may have answered is left out.
    for answer in sorted(
        (one for one in answers if one.kind in ANSWERS),
        key=lambda one: list(ANSWERS).index(one.kind),
    ):
        try:
            blocks += ANSWERS[answer.kind](answer, number)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            log.warning("the last %s is left out: %s", answer.kind, one_line(error, 80))
    return blocks


def _cross_validation(answer: Answer, number: int) -> list[Block]:
    from spacelite.studies import CrossValidation  # torch, which other reports do not need

    found = CrossValidation.from_json(answer.content)
    caption = "Figures on held-out folds, mean ± standard deviation"
    return [
        Heading(2, "Cross-validation"),
        replace(table(found), caption=caption),
        Bullets([_asked(answer), *summary(found)]),
    ]


def _learning_curve(answer: Answer, number: int) -> list[Block]:
    from spacelite.studies import Curve

    found = Curve.from_json(answer.content)
    drawn = learning_curve.chart(found)
    return [
        Heading(2, "What more labels would be worth"),
        Plot("learning-curve", f"learning-curve-{number}", drawn.text, None, drawn),
        learning_curve.table(found),
        Bullets([_asked(answer), *learning_curve.summary(found)]),
    ]


def _audit(answer: Answer, number: int) -> list[Block]:
    from spacelite.studies import Audit

    found = Audit.from_json(answer.content)
    blocks: list[Block] = [Heading(2, "Labels that are probably wrong")]
    if found.findings:
        of_all = "" if len(found.findings) <= MOST_FINDINGS else f" of {len(found.findings):,}"
        caption = f"The most probable{of_all}: label, and what it probably should be"
        blocks.append(replace(findings_table(found, MOST_FINDINGS), caption=caption))
    if found.pairs:
        blocks.append(groups_table(found))
    return [*blocks, Bullets([_asked(answer), *audit_summary(found)])]


def _asked(answer: Answer) -> str:
    return f"By spacelite {answer.kind}, last run on {answer.created[:10]}."


# Kind of an answer -> its blocks.
ANSWERS: dict[str, Callable[[Answer, int], list[Block]]] = {
    "cv": _cross_validation,
    "curve": _learning_curve,
    "audit": _audit,
}
