"""The report as markdown."""

from __future__ import annotations

from collections.abc import Sequence

from spacelite import metrics
from spacelite.report.summary import Figure, Row, Section

HEADINGS = {
    "loss": "Loss",
    "ce": "CE",
    "accuracy": "Accuracy",
    "f1_macro": "Macro F1",
    "precision": "Precision",
    "recall": "Recall",
}
LARGEST = 10_000  # a longer number would break the tables
COLUMNS = (
    "System", "Parameters", *HEADINGS.values(),
    "Inter", "Intra", "Epochs", "Backbone", "Data", "Seeds",
)  # fmt: skip


def render(sections: Sequence[Section]) -> str:
    """One heading, table and notes a section."""
    return "\n".join(_section(section) for section in sections)


def _section(section: Section) -> str:
    lines = [f"## {_cell(section.title)}", "", _cell(section.subtitle), ""]
    lines += ["| " + " | ".join(COLUMNS) + " |"]
    lines += ["| --- |" + " ---: |" * (len(COLUMNS) - 1)]
    lines += ["| " + " | ".join(map(_cell, _row(row))) + " |" for row in section.rows]
    lines += [""]
    for note in section.notes:
        lines += [_cell(note), ""]
    return "\n".join(lines)


def _row(row: Row) -> list[str]:
    figures = [figure(row.figures[name]) for name in metrics.METRICS]
    return [
        row.system,
        number(row.train_params),
        *figures,
        number(row.inter),
        number(row.intra),
        str(row.epochs),
        row.backbone,
        row.data,
        number(row.seeds),
    ]


def _cell(text: str) -> str:
    """Text that stays within its cell and is shown as it is."""
    for character in "\\|<>*_`[]":
        text = text.replace(character, "\\" + character)
    return text


def figure(value: Figure | None) -> str:
    """`0.6210`, `0.6210 ± 0.0030` over several seeds, or a dash."""
    if value is None:
        return "–"
    spread = "" if value.spread is None else f" ± {decimals(value.spread, 4)}"
    return f"{decimals(value.mean, 4)}{spread}"


def decimals(value: float, places: int) -> str:
    """`0.6210`; a loss that is beyond all bounds as `5.4e+31`."""
    return f"{value:.{places}f}" if abs(value) < LARGEST else f"{value:.1e}"


def number(value: float | None) -> str:
    """A count or weight, or a dash."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"
