"""The table of a section: its systems with their settings and figures."""

from __future__ import annotations

from spacelite.document import Cell, Line, Table
from spacelite.metrics.scores import METRICS
from spacelite.reports.analysis.rows import CHOSEN_BY, MeanStd, Row, Section
from spacelite.reports.document import wording
from spacelite.settings import shown

# Kinds of lines: the figures of another split; a setting of a sweep that validation did not choose.
SPLIT, TRIED = "split", "tried"


def systems_table(
    section: Section, also: str | None = None, *, places: int = 4, short: bool = False
) -> Table:
    """A section's table: a line per system. Settings that differ have columns; a sweep also has one
    for the validation accuracy that chose among its settings.

    Args:
        section: The section.
        also: Another split, whose figures stand below each system's if the runs have them.
        places: Decimals of figures.
        short: Whether headings are abbreviated, for narrow terminals.
    """
    of_published = any(row.kind == "published" for row in section.rows)
    swept, sweep = list(section.swept), any(row.tried > 1 for row in section.rows)
    lines = []
    for row in section.rows:
        signed = row.kind == "difference"
        lines.append(
            Line(
                [
                    Cell(_name(section, row)),
                    *(Cell(shown(row.settings[name]) if name in row.settings else "–")
                      for name in swept),
                    Cell("" if signed else wording.number(row.train_params)),
                    *([_chosen_by(row, places)] if sweep else []),
                    *(figure_cell(row.figures[name], best=name in row.best, signed=signed,
                                  places=places) for name in METRICS),
                    *(Cell("" if signed else wording.number(value))
                      for value in ((row.inter, row.intra) if of_published else ())),
                    Cell("" if signed else wording.number(row.seeds)),
                ],
                row.kind if row.chosen else TRIED,
            )
        )  # fmt: skip
        other = row.by_split.get(also or "")
        if other is not None and also != section.split:
            before = [Cell("")] * (len(swept) + 1 + sweep)
            after = [Cell("")] * (3 if of_published else 1)
            figures = [figure_cell(other[name], places=places) for name in METRICS]
            lines.append(Line([Cell(f"on {also}"), *before, *figures, *after], SPLIT))
    columns = [
        "System",
        *section.swept.values(),
        "Params" if short else "Parameters",
        *([f"Val. {METRICS[CHOSEN_BY].short}" if short else f"Validation {CHOSEN_BY}"]
          if sweep else []),
        *(metric.short if short else metric.heading for metric in METRICS.values()),
        *(("Inter", "Intra") if of_published else ()),
        "Seeds",
    ]  # fmt: skip
    return Table(section.title, columns, lines, "systems")


def _name(section: Section, row: Row) -> str:
    """What the table calls a system: what its columns say is left out."""
    if row.kind != "measured" or "published" in {each.kind for each in section.rows}:
        return row.system
    apart = [
        detail
        for name, detail in zip(row.varied, row.details, strict=True)
        if name not in section.swept
    ]
    chosen = " (chosen)" if row.tried > 1 and row.chosen else ""
    return ", ".join([row.title, *apart]) + chosen


def _chosen_by(row: Row, places: int) -> Cell:
    return figure_cell(row.validation, best=row.tried > 1 and row.chosen, places=places)


def figure_cell(
    value: MeanStd | None, *, best: bool = False, signed: bool = False, places: int = 4
) -> Cell:
    """A figure with its standard deviation over seeds, or a dash."""
    return Cell(
        wording.mean(value, signed, places=places), wording.std(value, places=places), best=best
    )
