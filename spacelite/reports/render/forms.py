"""The forms (formats) of a report, one entry each in FORMS: a single text, or files in a folder;
and a learning curve as a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spacelite import files
from spacelite.document import Block, Plot
from spacelite.errors import SpaceliteError
from spacelite.reports.analysis.content import Findings
from spacelite.reports.document.sections import report_blocks
from spacelite.reports.render import markup, page, plots
from spacelite.settings import one_of, require

if TYPE_CHECKING:
    from spacelite.studies.learning_curve import Curve

DRAWINGS = (".svg", ".png", ".html")  # suffixes of a learning curve's file
# Suffixes that no folder of a report is meant to have.
OTHER_FILES = (
    ".csv", ".doc", ".docx", ".htm", ".ipynb", ".jpg", ".ods", ".odt", ".pdf", ".png", ".rst",
    ".svg", ".tsv", ".xls", ".xlsx", ".yaml", ".zip",
)  # fmt: skip

# Called with the number of figures and pages done and the total.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Form:
    """A form of the report: a text, or several files."""

    file: str  # its name; of several files, that of the one to open
    text: Callable[[Findings], str]  # the report as one; of several files, without the others
    # Yields the files of a form of several, the one to open last.
    parts: Callable[[Findings, OnProgress], Iterator[tuple[str, bytes]]] | None = None
    # Patterns of files that earlier reports of this form may have left in the folder.
    replaces: tuple[str, ...] = ()


def _json(report: Findings) -> str:
    return json.dumps(report.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _from_blocks(render: Callable[[Sequence[Block]], str]) -> Callable[[Findings], str]:
    return lambda report: render(report_blocks(report))


def _page(report: Findings, on_progress: OnProgress) -> Iterator[tuple[str, bytes]]:
    """The page `index.html`, its figures as SVG and PNG, and the program that draws them there."""
    blocks = report_blocks(report)
    drawn = [block for block in blocks if isinstance(block, Plot)]
    for number, plot in enumerate(drawn):
        on_progress(number, len(drawn) + 1)
        yield from plots.draw(plot).items()
    if drawn:
        name, code = plots.program()
        yield name, code.encode()
    yield FORMS["html"].file, page.report_page(blocks).encode()
    on_progress(len(drawn) + 1, len(drawn) + 1)


FORMS: dict[str, Form] = {
    "markdown": Form("report.md", _from_blocks(markup.markdown)),
    "latex": Form("report.tex", _from_blocks(markup.latex)),
    "html": Form(
        "index.html",
        _from_blocks(partial(page.report_page, files_beside=False)),
        parts=_page,
        replaces=("curves-*", "reliability-*", "plotly-*.min.js"),
    ),
    "json": Form("report.json", _json),
    "text": Form("report.txt", _from_blocks(markup.plain)),
}


def form(name: str) -> Form:
    """A form by its name."""
    require("format", name, one_of(*FORMS))
    return FORMS[name]


def form_of_file(path: Path) -> str | None:
    """The name of the form that a path names a file of, by its suffix: `page.html` is of `html`.
    None if it names a folder. Raises SpaceliteError for a file of another kind."""
    suffix = path.suffix.lower()
    if not suffix or path.is_dir():
        return None
    if suffix in OTHER_FILES:
        raise SpaceliteError(
            f"{path}: a report is written to a folder, or to a file whose name ends in "
            f"{', '.join(Path(form.file).suffix for form in FORMS.values())}"
        )
    return next((name for name, form in FORMS.items() if form.file.endswith(suffix)), None)


def check_page(path: Path) -> None:
    """Raise SpaceliteError unless the suffix of a path is that of a page."""
    if path.suffix.lower() != ".html":
        raise SpaceliteError(f"{path} cannot be written: its name must end in .html")


def save_page(path: Path, content: str) -> None:
    """Write a single file, whole or not at all."""
    files.make_folder(path.parent)
    with files.writing(path, "; choose another file"):
        files.write_bytes(path, content.encode())


def check_drawing(path: Path) -> None:
    """Raise SpaceliteError unless the suffix of a path names a form of drawings."""
    if path.suffix.lower() not in DRAWINGS:
        raise SpaceliteError(f"{path} cannot be drawn: its name must end in .svg, .png or .html")


def save_drawing(curve: Curve, path: Path) -> None:
    """Write a learning curve: a drawing, or a page with drawing, table and sentences."""
    check_drawing(path)
    if path.suffix.lower() == ".html":
        content = page.learning_curve_page(curve).encode()
    else:
        content = plots.learning_curve(curve.chart(), path.suffix.lower()[1:])
    with files.writing(path):
        files.write_bytes(path, content)
