"""The tables of an audit: labels that are probably wrong, near-duplicates whose labels differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spacelite.reports.document.blocks import Cell, Line, Table

if TYPE_CHECKING:
    from spacelite.questions import Audit

MOST_PAIRS = 10  # near-duplicates that are listed


def findings_table(found: Audit, most: int) -> Table:
    """A line for each of the first findings."""
    lines = [
        Line(
            [
                Cell(one.where),
                Cell(one.label),
                Cell(one.suggested),
                Cell(f"{one.probability:.3f}"),
                Cell(", ".join(one.words)),
                Cell(one.text),
            ]
        )
        for one in found.findings[:most]
    ]
    columns = ["Example", "Label", "Suggested", "Prob.", "Words", "Text"]
    return Table("Labels that are probably wrong", columns, lines, "audit")


def pairs_table(found: Audit, most: int = MOST_PAIRS) -> Table:
    """Two lines for each of the first pairs."""
    lines = [
        Line([Cell(each.where), Cell(each.label), Cell(f"{cosine:.3f}"), Cell(each.text)],
             "continued" if number else "")
        for one, other, cosine in found.pairs[:most]
        for number, each in enumerate((one, other))
    ]  # fmt: skip
    return Table(
        "Near-duplicates with different labels", ["Example", "Label", "Cosine", "Text"], lines,
        "pairs",
    )  # fmt: skip


def audit_summary(found: Audit) -> list[str]:
    """What was done and found, in sentences."""
    count, share = len(found.findings), len(found.findings) / found.examples
    return [
        f"{count:,} of {found.examples:,} training examples ({share:.1%}) probably have another "
        f"label: {found.head.name}, fitted to the other {found.folds - 1} of {found.folds} folds, "
        "is confident of it (confident learning). Look at them before you change anything: the "
        f"head itself agrees with {found.accuracy:.1%} of all labels.",
        f"{len(found.pairs):,} pairs of texts are nearly the same and have different labels.",
    ]
