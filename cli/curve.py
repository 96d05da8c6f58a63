"""spacelite curve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import console, tables
from .options import (
    CACHE_DIR,
    CacheDir,
    CacheName,
    ClipNorm,
    DataSeed,
    Device,
    Inter,
    Intra,
    Json,
    Latent,
    MaxNgram,
    Seeds,
    WeightDecays,
    comma_list,
    number_or_auto,
    optional_list,
    or_auto,
)


def curve(
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
    inter: Inter = "0",
    intra: Intra = "0",
    latent: Latent = None,
    lr: Annotated[
        str | None,
        typer.Option(help="Learning rate(s).  [default: auto, 0.001]", show_default=False),
    ] = None,
    weight_decay: WeightDecays = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            help="Pooling(s) of the baselines.  [default: the classification token]",
            show_default=False,
        ),
    ] = None,
    c: Annotated[
        str,
        typer.Option(
            "--C",
            help="Strength(s) of the L2 penalty of logreg and tfidf; auto: chosen by "
            "cross-validation on a subset.",
            metavar="<float|auto>",
        ),
    ] = "auto",
    blocks: Annotated[
        str | None,
        typer.Option(
            help="What additive heads add up, joined by +.  [default: layers+ngrams]",
            show_default=False,
        ),
    ] = None,
    max_ngram: MaxNgram = None,
    epochs: Annotated[
        str | None,
        typer.Option(
            help="Passes over a subset.  [default: auto, by its size]",
            metavar="<int|auto>",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        str | None,
        typer.Option(
            help="Examples per batch.  [default: auto, by the size of a subset]",
            metavar="<int|auto>",
            show_default=False,
        ),
    ] = None,
    data_seed: DataSeed = 0,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="Schedule of the learning rate: constant or cosine.  [default: constant]",
            show_default=False,
        ),
    ] = None,
    clip_norm: ClipNorm = None,
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
    grid: dict[str, Any] = {
        "head": optional_list("--head", head, str),
        "inter": comma_list("--inter", inter, float),
        "intra": comma_list("--intra", intra, float),
        "latent": optional_list("--latent", latent, int),
        "learning_rate": optional_list("--lr", lr, or_auto(float)),
        "weight_decay": optional_list("--weight-decay", weight_decay, float),
        "pooling": optional_list("--pooling", pooling, str),
        "C": comma_list("--C", c, or_auto(float)),
        "blocks": optional_list("--blocks", blocks, str),
        "max_ngram": optional_list("--max-ngram", max_ngram, int),
    }
    wanted = optional_list("--sizes", sizes, _size)
    numbers = seed_list(seeds)
    chosen = console.chosen_cache(cache, cache_dir)
    with console.progress() as on_progress:
        found = api.learning_curve(
            chosen,
            sizes=wanted,
            seeds=numbers,
            metric=metric,
            preset=preset,
            **grid,
            epochs=None if epochs is None else number_or_auto("--epochs", epochs),
            batch_size=None if batch_size is None else number_or_auto("--batch-size", batch_size),
            data_seed=data_seed,
            schedule=schedule,
            clip_norm=clip_norm,
            baselines=not no_baselines,
            device=device,
            cache_dir=cache_dir,
            progress=on_progress,
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
