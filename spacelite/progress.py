"""Progress bars, with rate and time left, on standard error and in notebooks.

The only module of the library that imports rich; the command line uses the same bars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Called with the phase, the amount done, and the total, 0 if that is not known.
OnProgress = Callable[[str, int, int], None]
# What the Python functions take: True for bars, False for none, or a function to call.
Progress = bool | OnProgress

# Phase -> (description, unit).
PHASES = {
    "tokenize": ("tokenizing", "texts"),
    "copy": ("copying", "tokens"),
    "embed": ("embedding", "tokens"),
    "train": ("training", "tokens"),
    "curve": ("training", "examples"),
    "fit": ("fitting", "heads"),
    "predict": ("predicting", "texts"),
    "evaluate": ("evaluating", "tokens"),
    "verify": ("verifying", "tokens"),
    "report": ("analysing", "tables"),
    "draw": ("drawing", "figures"),
}


@contextmanager
def reporting(progress: Progress, console: Any = None) -> Iterator[OnProgress]:
    """Yield the callback that long-running work reports its progress to: for bars on a rich console
    (default: standard error), for nothing, or the callback that was given."""
    if progress is True:
        with _bars(console) as advance:
            yield advance
    elif progress is False:
        yield lambda phase, done, total: None
    else:
        yield progress


@contextmanager
def _bars(console: Any) -> Iterator[OnProgress]:
    """One bar per phase. The rate counts only what this process has done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            speed = task.finished_speed or task.speed
            shown = f"{speed:,.0f}" if speed and speed >= 10 else f"{speed or 0:.1f}"
            return Text(f"{shown} {task.fields['unit']}/s" if speed else "", style="cyan")

    class Done(ProgressColumn):
        def render(self, task: Any) -> Text:
            known = task.total is not None
            return Text(f"{task.percentage:>3.0f}%" if known else f"{task.completed:,.0f}")

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        Done(),
        Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console or Console(stderr=True),
        speed_estimate_period=60,
    )
    tasks: dict[str, Any] = {}

    def advance(phase: str, done: int, total: int) -> None:
        if not tasks:
            bar.start()  # no earlier: an error before the first report would leave an empty line
        if phase not in tasks:
            description, unit = PHASES[phase]
            start: dict[str, Any] = {"total": total or None, "completed": done, "unit": unit}
            tasks[phase] = bar.add_task(description, **start)
        bar.update(tasks[phase], completed=done, total=total or None)

    try:
        yield advance
    finally:
        if tasks:
            bar.stop()
