"""The tables of an audit: labels that are probably wrong, near-duplicates whose labels differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spacelite.document import Cell, Line, Table

if TYPE_CHECKING:
    from spacelite.studies import Audit

MOST_GROUPS, MOST_MEMBERS = 5, 4  # groups of near-duplicates, and members of one, that are listed


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


def groups_table(found: Audit, most: int = MOST_GROUPS) -> Table:
    """The first groups of texts that are nearly the same, a line for each of the first members."""
    lines = [
        Line([Cell(each.where), Cell(each.label), Cell(each.text)], "continued" if number else "")
        for group in found.groups[:most]
        for number, each in enumerate(group[:MOST_MEMBERS])
    ]
    title = "Near-duplicates with different labels"
    return Table(title, ["Example", "Label", "Text"], lines, "groups")


def audit_summary(found: Audit) -> list[str]:
    """What was done and found, in sentences."""
    count, share = len(found.findings), len(found.findings) / found.examples
    examples = len({each.index for group in found.groups for each in group})
    duplicates = (
        f"{len(found.groups):,} groups of texts, {examples:,} in all, are nearly the same and have "
        "different labels."
    )
    return [
        f"{count:,} of {found.examples:,} training examples ({share:.1%}) may have another label: "
        f"{found.head.name}, fitted to the other {found.folds - 1} of {found.folds} folds, is "
        "confident of it (confident learning). Look at them before you change anything: the head "
        f"agrees with {found.accuracy:.1%} of all labels.",
        *([duplicates] if found.groups else []),
    ]
