"""spacelite demo and reproduce: from data to a report in one command."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from spacelite.errors import SpaceliteError

from . import console, options
from .options import opt
from .report import print_report, show
from .train import refuse_stopped

# The demo's data set is a tenth of a published one: smaller batches and a higher learning rate
# make up for the fewer updates per epoch.
INTER, INTRA = [0.0, 0.2], [0.0, 0.001]
EPOCHS, BATCH_SIZE, LEARNING_RATE = 15, 32, 2e-3


def demo(
    seeds: options.Seeds = "3",
    cache_dir: options.CacheDir = options.CACHE_DIR,
    as_json: options.Json = False,
) -> None:
    """Embed, train and report on built-in data, offline."""
    import spacelite
    from spacelite.training.plan import seed_list

    numbers = seed_list(seeds)  # before the long part
    weights = [",".join(f"{value:g}" for value in values) for values in (INTER, INTRA)]
    _announce("spacelite embed --backbone minilm --dataset demo", cache_dir)
    with console.progress() as on_progress:
        cache = spacelite.embed(
            "demo", backbone="minilm", cache_dir=cache_dir, progress=on_progress
        )
    _announce(
        f"spacelite train --inter {weights[0]} --intra {weights[1]} --epochs {EPOCHS} "
        f"--seeds {seeds} --batch-size {BATCH_SIZE} --lr {LEARNING_RATE:g}",
        cache_dir,
    )
    with console.progress() as on_progress:
        published = spacelite.train(
            cache,
            inter=INTER,
            intra=INTRA,
            learning_rate=LEARNING_RATE,
            seeds=numbers,
            epochs=EPOCHS,
            batch_size=BATCH_SIZE,
            progress=on_progress,
        )
    _announce(f"spacelite train --preset best --seeds {seeds}", cache_dir)
    with console.progress() as on_progress:
        recommended = spacelite.train(  # the baselines are there already
            cache, preset="best", seeds=numbers, baselines=False, progress=on_progress
        )
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
    console.note(f"$ {options.with_cache_dir(command, cache_dir)}", style="bold")


def reproduce(
    table: Annotated[
        str | None,
        opt("Only the table with this id, as printed in brackets.  [default: all]"),
    ] = None,
    backbone: Annotated[
        str | None,
        opt("Use this backbone in place of the published ones: hub name, folder or minilm."),
    ] = None,
    seeds: options.Seeds = "3",
    limit: options.Limit = None,
    device: options.Device = "auto",
    tokens_per_batch: options.TokensPerBatch = None,
    data_dir: options.DataDir = None,
    cache_dir: options.CacheDir = options.CACHE_DIR,
    as_json: options.Json = False,
) -> None:
    """Measure the published tables, from embedding to report."""
    from spacelite.paper.reproduction import ReproduceOptions
    from spacelite.paper.reproduction import reproduce as measure
    from spacelite.reports.analysis import published
    from spacelite.training.plan import seed_list

    wanted = ReproduceOptions(
        cache_dir=cache_dir,
        backbone=backbone,
        seeds=tuple(seed_list(seeds)),
        limit=limit,
        data_dir=data_dir,
        device=device,
        tokens_per_batch=tokens_per_batch,
    )
    with console.progress() as on_progress:
        outcomes = measure(table, wanted, on_progress)
    for outcome in outcomes:
        if outcome.error is not None:
            outcome.note = outcome.error.for_options(options.option)
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
