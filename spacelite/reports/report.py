"""A report: its findings, and the formats that it can be written in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from spacelite import files
from spacelite.document import Block
from spacelite.errors import SpaceliteError
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
        chosen = forms.form(format)
        if chosen.parts is not None:
            raise SpaceliteError(
                f"format={format} is several files: save the report into a folder", ["format"]
            )
        return chosen.text(self.findings)

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
        if not isinstance(folder, str | Path):
            raise SpaceliteError(
                f"a report is saved to a folder or a file, not to a {type(folder).__name__}: give "
                "its path"
            )
        folder = Path(folder)
        of_file = forms.form_of_file(folder)
        name = format or of_file or "html"
        chosen = forms.form(name)
        if of_file not in (None, name):
            raise SpaceliteError(
                f"format={name}: {folder.name} is the name of a file of format {of_file}: leave "
                "format out, or name a folder",
                ["format"],
            )
        if of_file is not None:
            forms.save_page(folder, chosen.text(self.findings))
            on_progress(1, 1)
            return folder
        files.make_folder(folder)
        with files.writing(folder, "; choose another folder"):
            if chosen.parts is None:
                files.write_bytes(folder / chosen.file, self.text(name).encode())
                return folder / chosen.file
            written = set()
            for part, content in chosen.parts(self.findings, on_progress):
                files.write_bytes(folder / part, content)
                written.add(part)
            for pattern in chosen.replaces:
                for former in folder.glob(pattern):
                    if former.name not in written:
                        former.unlink()  # from an earlier report; the page no longer refers to it
        return folder / chosen.file

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        titles = [part.section.title for part in self.findings.parts]
        shown = "; ".join(titles[:MOST_TITLES]) + ("; ..." if titles[MOST_TITLES:] else "")
        systems = sum(len(part.section.rows) for part in self.findings.parts)
        return visible(f"<report of {systems} system{'' if systems == 1 else 's'}: {shown}>")

    def _repr_html_(self) -> str:
        return markup.fragment(self.blocks())
