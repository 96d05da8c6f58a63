"""Progress bars, with rate and time left, on standard error and in notebooks.

The only module of the library that imports rich; the command line uses the same bars.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

# Called with the phase, the amount done, and the total, 0 if that is not known.
OnProgress = Callable[[str, int, int], None]
# What the Python functions take: True for bars, False for none, or a function to call.
Progress = bool | OnProgress

SECONDS_BETWEEN = 0.1  # two updates of a notebook's bars

# Phase -> (description, unit).
PHASES = {
    "tokenize": ("tokenizing", "texts"),
    "copy": ("copying", "tokens"),
    "reduce": ("fitting axes", "tokens"),
    "embed": ("embedding", "tokens"),
    "identify": ("reading", "examples"),
    "import": ("importing", "examples"),
    "train": ("training", "tokens"),
    "curve": ("training", "examples"),
    "fit": ("fitting", "heads"),
    "predict": ("predicting", "texts"),
    "evaluate": ("evaluating", "tokens"),
    "explain": ("explaining", "texts"),
    "erase": ("removing words", "texts"),
    "verify": ("verifying", "tokens"),
    "export": ("exporting", "steps"),
    "report": ("analysing", "tables"),
    "draw": ("drawing", "figures"),
}


@contextmanager
def reporting(progress: Progress, console: Any = None) -> Iterator[OnProgress]:
    """Yield the callback that long-running work reports its progress to: for bars on a rich console
    (default: standard error, or the cell of a notebook), for nothing, or the callback that was
    given."""
    if notebook := _in_notebook():
        _import_bars_of_others()
    if progress is True:
        with _bars(console, in_cell=notebook and console is None) as advance:
            yield advance
    elif progress is False:
        yield lambda phase, done, total: None
    else:
        yield progress


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _import_bars_of_others() -> None:
    """Import the bars of transformers and datasets, which warn of it if the notebook lacks
    ipywidgets: they are lines of text then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tqdm.auto  # type: ignore[import-untyped] # noqa: F401


@contextmanager
def _bars(console: Any, in_cell: bool) -> Iterator[OnProgress]:
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
    cell = _Cell(bar) if in_cell else None

    def advance(phase: str, done: int, total: int) -> None:
        # No earlier: an error before the first report would leave an empty line.
        if not tasks and cell is None:
            bar.start()
        if phase not in tasks:
            description, unit = PHASES[phase]
            start: dict[str, Any] = {"total": total or None, "completed": done, "unit": unit}
            tasks[phase] = bar.add_task(description, **start)
        bar.update(tasks[phase], completed=done, total=total or None)
        if cell is not None:
            cell.show(at_once=done == total)

    try:
        yield advance
    finally:
        if cell is not None and tasks:
            cell.show(at_once=True)
        elif tasks:
            bar.stop()


class _Cell:
    """Bars as an output of a notebook's cell, which is replaced as they advance. IPython does that
    alone; rich would need ipywidgets, and their state is not saved with the notebook."""

    def __init__(self, bars: Any) -> None:
        self._bars, self._output, self._shown = bars, None, 0.0

    def show(self, *, at_once: bool) -> None:
        """Show the bars as they are now, unless they were shown just before."""
        from IPython.display import display

        if not at_once and time.monotonic() < self._shown + SECONDS_BETWEEN:
            return
        self._shown = time.monotonic()
        if self._output is None:
            self._output = display(self._bars, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._output.update(self._bars)
