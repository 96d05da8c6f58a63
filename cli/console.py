"""Standard output for results, standard error for messages and progress."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
from contextlib import AbstractContextManager
from functools import cache
from typing import TYPE_CHECKING, Any

from spacelite.errors import SpaceliteError
from spacelite.progress import OnProgress, reporting

from .options import option

if TYPE_CHECKING:
    from rich.console import Console


@cache
def _console(stderr: bool) -> Console:
    """A console, created when the first line is printed: rich takes a while to import."""
    from rich.console import Console

    class PipedConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # the application ends quietly; rich would exit with 1

    return PipedConsole(stderr=stderr, highlight=False, markup=False)


def out() -> Console:
    """The console for results."""
    return _console(stderr=False)


def err() -> Console:
    """The console for everything else."""
    return _console(stderr=True)


def print_json(content: object) -> None:
    """Print one JSON document on standard output; NaN and infinity become null."""
    json.dump(_finite(content), sys.stdout, indent=1, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content if isinstance(content, str | int | float | bool | None) else str(content)


def fail(message: str) -> None:
    """Print an error on one line on standard error."""
    from rich.text import Text

    err().print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


class _Messages(logging.Handler):
    """Prints the library's log records as plain lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        if isinstance(record.args, tuple):
            record.args = tuple(
                each.for_options(option) if isinstance(each, SpaceliteError) else each
                for each in record.args
            )
        style = "yellow" if record.levelno >= logging.WARNING else "default"
        err().print(Text(self.format(record), style=style), soft_wrap=True)


def show_messages() -> None:
    """Show what the library logs. The application's callback calls it once."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "±" shows "?"
    logger = logging.getLogger("spacelite")
    logger.handlers = [_Messages()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # These packages' own messages about retries would bury our one line.
    for noisy in ("huggingface_hub", "datasets", "transformers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def progress() -> AbstractContextManager[OnProgress]:
    """Progress bars on standard error: a context manager that yields the function to report to."""
    return reporting(True, err())
