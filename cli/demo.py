"""spacelite demo and reproduce: from data to a report in one command."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import spacelite
from spacelite.errors import SpaceliteError
from spacelite.settings import among

from . import console
from .options import CACHE_DIR, option, with_cache_dir
from .report import print_report, show
from .train import refuse_stopped

# The demo's data set is a tenth of a published one: smaller batches and a higher learning rate
# make up for the fewer updates per epoch.
SETTINGS = {
    "inter": [0.0, 0.2], "intra": [0.0, 0.001], "epochs": 15, "batch_size": 32,
    "learning_rate": 2e-3,
}  # fmt: skip
TRAIN = "spacelite train --inter 0,0.2 --intra 0,0.001 --epochs 15 --batch-size 32 --lr 0.002"


def demo(*, seeds: str = "3", cache_dir: Path = CACHE_DIR, as_json: bool = False) -> None:
    """Embed, train and report on built-in data, offline."""
    from spacelite.training.plan import seed_list

    numbers = seed_list(seeds)  # before the long part
    _announce("spacelite embed --backbone minilm --dataset demo", cache_dir)
    cache = console.call(
        spacelite.embed, {}, dataset="demo", backbone="minilm", cache_dir=cache_dir
    )
    of_both = {"cache": cache, "seeds": numbers}
    _announce(f"{TRAIN} --seeds {seeds}", cache_dir)
    published = console.call(spacelite.train, {**of_both, **SETTINGS})
    _announce(f"spacelite train --preset best --seeds {seeds}", cache_dir)
    # The baselines are there already.
    recommended = console.call(spacelite.train, of_both, preset="best", baselines=False)
    runs = published + recommended
    _announce("spacelite report", cache_dir)
    if runs:
        report = spacelite.report(runs, examples=False, progress=False)
        if as_json:
            console.print_json(report.as_json())
        else:
            print_report(report.findings, cache_dir)
    for trained in (published, recommended):
        refuse_stopped(trained)


def _announce(command: str, cache_dir: Path) -> None:
    console.note(f"$ {with_cache_dir(command, cache_dir)}", style="bold")


def reproduce(
    *,
    table: str | None = None,
    backbone: str | None = None,
    seeds: str = "3",
    limit: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    tokens_per_batch: int | None = None,
    data_dir: Path | None = None,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Reproduce the published tables, from embedding to report.

    Options:
        table: Only the table with this id, as printed in brackets. [default: all]
        backbone: Use this backbone in place of the published ones: hub name, folder or minilm.
    """
    arguments = locals()
    from spacelite.paper.reproduction import ReproduceOptions
    from spacelite.paper.reproduction import reproduce as measure
    from spacelite.reports.analysis import published
    from spacelite.training.plan import seed_list

    arguments["seeds"] = tuple(seed_list(seeds))
    wanted = ReproduceOptions(**among(arguments, ReproduceOptions))
    with console.progress() as on_progress:
        outcomes = measure(table, wanted, on_progress)
    for outcome in outcomes:
        if outcome.error is not None:
            outcome.note = outcome.error.for_options(option)
    sections = published.sections(outcomes)
    if as_json:
        console.print_json([asdict(section) for section in sections])
    else:
        show(sections)
    empty = sum(not outcome.runs for outcome in outcomes)
    if empty:
        raise SpaceliteError(
            f"{empty} of {len(outcomes)} rows could not be measured (the messages above say "
            "why); --backbone minilm replaces backbones that cannot be downloaded, --data-dir "
            "names a folder with the data"
        )
