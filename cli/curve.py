"""spacelite curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from . import console, tables
from .options import (
    CACHE_DIR,
    CacheDir,
    CacheName,
    Device,
    Json,
    Seeds,
    SettingsCommand,
    comma_list,
)


class CurveCommand(SettingsCommand):
    """`spacelite curve` with an option for each setting."""

    FUNCTION = "learning_curve"
    ORDER = (
        "sizes seeds metric cache preset head inter intra latent learning_rate weight_decay "
        "pooling C blocks max_ngram ... epochs batch_size data_seed schedule clip_norm "
        "no_baselines out plot device cache_dir as_json"
    )
    HELP: ClassVar[Mapping[str, str]] = {
        "learning_rate": "Learning rate(s).  [default: auto, 0.001]",
        "pooling": "Pooling(s) of the baselines.  [default: the classification token]",
        "C": "Strength(s) of the L2 penalty of logreg and tfidf; auto: chosen by cross-validation "
        "on a subset.",
        "blocks": "What additive heads add up, joined by +.",
        "epochs": "Passes over a subset.  [default: auto, by its size]",
        "batch_size": "Examples per batch.  [default: auto, by the size of a subset]",
    }


def curve(
    context: typer.Context,
    sizes: Annotated[
        str | None,
        typer.Option(
            help="Number(s) of training examples; all means all of them.  [default: 16, 64, 256, "
            "... and all]",
            metavar="<int|all>",
            show_default=False,
        ),
    ] = None,
    seeds: Seeds = "5",
    metric: Annotated[
        str,
        typer.Option(
            help="What is shown and extrapolated: accuracy, f1_macro, precision, recall or auroc."
        ),
    ] = "accuracy",
    cache: CacheName = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings that are recommended together: best.")
    ] = None,
    head: Annotated[
        str | None,
        typer.Option(
            help="Kind(s): space, linear, mlp, additive, logreg, tfidf.  [default: additive]",
            show_default=False,
        ),
    ] = None,
    no_baselines: Annotated[
        bool,
        typer.Option(
            "--no-baselines", help="Leave out tfidf and logreg on the mean on the same subsets."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the figures of every system, size and seed to this csv file.",
            metavar="FILE",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the curve into this .svg, .png or .html file.", metavar="FILE"),
    ] = None,
    device: Device = "auto",
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Measure heads trained on fewer examples, and what more labels would be worth.

    Heads are trained on stratified subsets of the train split and evaluated on validation.
    """
    from spacelite import api
    from spacelite.data import writers
    from spacelite.heads.grid import seed_list
    from spacelite.reports.render import characters, charts

    for path in (out, plot):
        if path is not None:
            writers.check_place(path)  # before the work
    if plot is not None:
        charts.check(plot)
    wanted = None if sizes is None else comma_list("--sizes", sizes, _size)
    numbers = seed_list(seeds)
    chosen = console.chosen_cache(cache, cache_dir)
    with console.progress() as on_progress:
        found = api.learning_curve(
            chosen,
            sizes=wanted,
            seeds=numbers,
            metric=metric,
            preset=preset,
            head=None if head is None else comma_list("--head", head, str),
            baselines=not no_baselines,
            device=device,
            cache_dir=cache_dir,
            progress=on_progress,
            **context.obj,
        )
    if out is not None:
        found.save(out)
    if plot is not None:
        found.save_plot(plot)
    if as_json:
        console.print_json(found.as_json())
        return
    tables.show(found.table())
    screen = console.out()
    width = min(characters.WIDTH, screen.width)
    drawn = characters.draw(found.chart(), width=width, plain=screen.options.ascii_only)
    screen.print(drawn, soft_wrap=True, markup=False)
    screen.print()
    for sentence in found.sentences:
        screen.print(sentence, markup=False)
    for path in (out, plot):
        if path is not None:
            screen.print(f"written to {path}", soft_wrap=True, markup=False)


def _size(text: str) -> int | str:
    return text if text == "all" else int(text)
