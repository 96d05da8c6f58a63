"""spacelite demo."""

from __future__ import annotations

from typing import Annotated

import typer

from . import console
from .embed import PHASES
from .options import CACHE_DIR, CacheDir, Json
from .report import print_report
from .train import Grid, check_seeds, refuse_stopped, train_and_save

# The demo's data set is a tenth of a published one: smaller batches and a higher learning rate
# make up for the fewer steps an epoch.
EPOCHS, BATCH_SIZE, LEARNING_RATE = 15, 32, 2e-3


def demo(
    seeds: Annotated[int, typer.Option(help="How many seeds: 0 to K-1.")] = 3,
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Embed, train and report on built-in data, offline."""
    from spacelite.cache import embedding, store
    from spacelite.reports.analysis import content

    check_seeds(seeds)
    lines = [
        "spacelite embed --backbone minilm --dataset demo",
        f"spacelite train --inter 0,0.2 --intra 0,0.001 --epochs {EPOCHS} --seeds {seeds} "
        f"--batch-size {BATCH_SIZE} --lr {LEARNING_RATE:g}",
        "spacelite report",
    ]
    say = console.err().print
    say(f"$ {lines[0]}", style="bold", soft_wrap=True)
    with console.progress(PHASES) as on_progress:
        done = embedding.embed(
            backbone="minilm", dataset="demo", cache_dir=cache_dir, on_progress=on_progress
        )

    from spacelite.heads.settings import PassSettings

    say(f"$ {lines[1]}", style="bold", soft_wrap=True)
    grid = Grid(
        kinds=["space", "linear"],
        space=[(inter, intra, 3) for inter in (0.0, 0.2) for intra in (0.0, 0.001)],
        rates=[LEARNING_RATE],
        decays=[0.01],
        seeds=seeds,
    )
    settings = grid.heads(["first"])
    with store.Cache(done.path) as cache:
        shared = PassSettings(epochs=EPOCHS, batch_size=BATCH_SIZE)
        saved, stopped = train_and_save(cache_dir, cache, settings, shared)
    say(f"$ {lines[2]}", style="bold", soft_wrap=True)
    made = content.build(cache_dir, saved, with_examples=False)
    if as_json:
        console.print_json(made.as_json())
    else:
        print_report(made)
    refuse_stopped(stopped, len(settings))
