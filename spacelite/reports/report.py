"""A report: its findings, and the formats that it can be written in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from spacelite.document import Block
from spacelite.reports.analysis.content import Findings
from spacelite.reports.document.sections import report_blocks
from spacelite.reports.render import forms, markup
from spacelite.visible import visible

MOST_TITLES = 3  # in the short form of a report


class Report:
    """A comparison of runs: tables, which differences are real, curves, words. `findings` holds
    everything as data."""

    def __init__(self, findings: Findings) -> None:
        self.findings = findings

    def blocks(self) -> list[Block]:
        """Headings, paragraphs, tables and plots, in order."""
        return report_blocks(self.findings)

    def as_json(self) -> dict[str, Any]:
        """The findings as JSON data: dictionaries, lists, strings and numbers."""
        return self.findings.as_json()

    def text(self, format: str = "text") -> str:
        """The report as a single text.

        Args:
            format: `text`, `markdown`, `latex` or `json`.
        """
        return forms.as_text(self.findings, format)

    def save(
        self,
        folder: str | Path,
        format: str | None = None,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Path:
        """Write the report into a folder, or as a single file.

        Args:
            folder: Folder to write to, created if missing. A path that ends in .html, .md, .tex,
                .json or .txt is written as that single file; a page then has its figures inside.
            format: `html` (a page with its figures), `markdown`, `latex`, `json` or `text`.
                Default: `html`, or what the name of the file says.
            on_progress: Called with the number of figures and pages done and the total.

        Returns:
            The file to open.

        Raises:
            SpaceliteError: There is no such format, it is another one than the file's, or the
                folder or file cannot be written.
        """
        return forms.save(self.findings, format, Path(folder), on_progress)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        titles = [part.section.title for part in self.findings.parts]
        shown = "; ".join(titles[:MOST_TITLES]) + ("; ..." if titles[MOST_TITLES:] else "")
        systems = sum(len(part.section.rows) for part in self.findings.parts)
        return visible(f"<report of {systems} system{'' if systems == 1 else 's'}: {shown}>")

    def _repr_html_(self) -> str:
        return markup.fragment(self.blocks())
