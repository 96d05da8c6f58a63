"""A learning curve as a file: a drawing, or a page with drawing, table and sentences."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spacelite import files
from spacelite.document import Bullets, Heading
from spacelite.errors import SpaceliteError

if TYPE_CHECKING:
    from spacelite.studies.learning_curve import Curve

SUFFIXES = (".svg", ".png", ".html")


def check(path: Path) -> None:
    """Raise SpaceliteError unless the suffix of a path names a form of drawings."""
    if path.suffix.lower() not in SUFFIXES:
        raise SpaceliteError(f"{path} cannot be drawn: its name must end in .svg, .png or .html")


def save(found: Curve, path: Path) -> None:
    """Draw a learning curve. Raises SpaceliteError if the file cannot be written."""
    check(path)
    form = path.suffix.lower()[1:]
    content = _page(found).encode() if form == "html" else _drawing(found, form)
    try:
        files.write_bytes(path, content)
    except OSError as error:
        raise SpaceliteError(f"{path} cannot be written: {error.strerror or error}") from error


def _drawing(found: Curve, form: str) -> bytes:
    from spacelite.reports.render import plots

    return plots.learning_curve(found.chart(), form)


def _page(found: Curve) -> str:
    from spacelite.reports.render import page, plots

    drawn = found.chart()
    keys, panel = plots.learning_curve_panel(drawn)
    drawing = page.Element("plot", drawn, keys=keys, panels=[(drawn.name, panel)])
    elements = [
        page.Element.of(Heading(1, drawn.heading)),
        page.Element.of(Bullets(found.sentences)),
        drawing,
        page.Element.of(found.table()),
    ]
    return page.render("Learning curve", elements)
