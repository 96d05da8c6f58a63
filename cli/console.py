"""Standard output for results, standard error for messages and progress."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


@cache
def _console(stderr: bool) -> Console:
    """Made when the first line is printed: rich takes a while to import."""
    from rich.console import Console

    class PipedConsole(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # the application ends quietly; rich would exit with 1

    return PipedConsole(stderr=stderr, highlight=False, markup=False)


def out() -> Console:
    """Where results go."""
    return _console(stderr=False)


def err() -> Console:
    """Where everything else goes."""
    return _console(stderr=True)


def print_json(content: object) -> None:
    """One JSON document on standard output; what is not a number (NaN) becomes null."""
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
    """One line on standard error: what is wrong, what to do."""
    from rich.text import Text

    err().print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


class _Messages(logging.Handler):
    """The library's log records as plain lines on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        style = "yellow" if record.levelno >= logging.WARNING else "default"
        err().print(Text(self.format(record), style=style), soft_wrap=True)


def show_messages() -> None:
    """Show what the library logs. Called once, by the application's callback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no "±" shows "?"
    logger = logging.getLogger("spacelite")
    logger.handlers = [_Messages()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    # One line an error is enough: the clients' own retry notices would bury it.
    for noisy in ("huggingface_hub", "datasets", "transformers"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@contextmanager
def progress(labels: dict[str, tuple[str, str]]) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar a phase, with rate and time left, on standard error.

    `labels`: phase -> (what is done, the unit it is counted in). Yields the callback
    (phase, done, total). The rate counts only what this process did.
    """
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "", style="cyan")

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=err(),
        speed_estimate_period=60,
    )
    tasks: dict[str, Any] = {}

    def advance(phase: str, done: int, total: int) -> None:
        if phase not in tasks:
            description, unit = labels[phase]
            tasks[phase] = bar.add_task(description, total=total, completed=done, unit=unit)
        bar.update(tasks[phase], completed=done, total=total)

    with bar:
        yield advance
