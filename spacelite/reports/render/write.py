"""A report in one of its forms, as text or as files of a folder."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

from spacelite.errors import SpaceliteError
from spacelite.reports.analysis.content import Report

FILES = {"markdown": "report.md", "latex": "report.tex", "json": "report.json"}


def as_text(report: Report, form: str) -> str:
    """A report as `markdown`, `latex` or `json`."""
    if form == "json":
        return json.dumps(report.as_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    from spacelite.reports.document import blocks

    everything = blocks.of_report(report)
    if form == "markdown":
        from spacelite.reports.render import markdown

        return markdown.render(everything)
    from spacelite.reports.render import latex

    return latex.render(everything)


def prepare(folder: Path) -> None:
    """Make a folder where it is missing. Raises SpaceliteError where nothing can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SpaceliteError(
            f"{folder} cannot be written: {error.strerror or error}; choose another folder"
        ) from error


def to_folder(
    report: Report,
    form: str,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write a report into a folder, made where it is missing: one file, or for `html` the page
    `index.html` and its figures as SVG and PNG. Returns the file to open.

    Each file is written whole or not at all. Raises SpaceliteError where it cannot be.
    """
    prepare(folder)
    try:
        if form != "html":
            path = folder / FILES[form]
            _whole(path, as_text(report, form).encode())
            return path
        from spacelite.reports.document import blocks
        from spacelite.reports.render import page, plots

        everything = blocks.of_report(report)
        drawn = [block for block in everything if isinstance(block, blocks.Plot)]
        written = set()
        for number, plot in enumerate(drawn):
            on_progress(number, len(drawn) + 1)
            for name, content in plots.draw(plot).items():
                _whole(folder / name, content)
                written.add(name)
        path = folder / "index.html"
        _whole(path, page.of_report(everything).encode())
        for kind in ("curves", "reliability"):
            for figure in folder.glob(f"{kind}-*"):
                if figure.name not in written:
                    figure.unlink()  # of a former report, which the page no longer names
        on_progress(len(drawn) + 1, len(drawn) + 1)
        return path
    except OSError as error:
        raise SpaceliteError(
            f"{folder} cannot be written: {error.strerror or error}; choose another folder"
        ) from error


def page(path: Path, content: str) -> None:
    """Write a single page. Raises SpaceliteError where it cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _whole(path, content.encode())
    except OSError as error:
        raise SpaceliteError(
            f"{path} cannot be written: {error.strerror or error}; choose another file"
        ) from error


def _whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
