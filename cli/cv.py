"""spacelite cv."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import console, tables
from .options import (
    CACHE_DIR,
    CacheDir,
    Device,
    Json,
    Seeds,
    comma_list,
    number_or_auto,
    optional_list,
    or_auto,
)


def cv(
    folds: Annotated[int, typer.Option(help="Number of folds, stratified by label.")] = 5,
    repeats: Annotated[int, typer.Option(help="How often the examples are divided anew.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the divisions.")] = 0,
    cache: Annotated[
        str | None,
        typer.Option(help="A cache's name or path. [default: the newest complete one]"),
    ] = None,
    head: Annotated[
        str,
        typer.Option(
            help="Kind(s): space, linear, mlp, additive (without the block space), logreg, tfidf."
        ),
    ] = "space,linear",
    inter: Annotated[str, typer.Option(help="Weight(s) of the inter-space loss.")] = "0",
    intra: Annotated[str, typer.Option(help="Weight(s) of the intra-space loss.")] = "0",
    latent: Annotated[
        str | None,
        typer.Option(help="Dimension(s) of a concept space.  [default: 3]", show_default=False),
    ] = None,
    lr: Annotated[
        str | None,
        typer.Option(
            help="Learning rate(s); auto means 0.001.  [default: 2e-4]", show_default=False
        ),
    ] = None,
    weight_decay: Annotated[
        str | None,
        typer.Option(help="Adam's L2 weight decay(s).  [default: 0.01]", show_default=False),
    ] = None,
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
            "cross-validation on what a head sees.",
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
    max_ngram: Annotated[
        str | None,
        typer.Option(
            help="Tokens of the longest n-grams of the block ngrams: 2 or 3.  [default: 2]",
            show_default=False,
        ),
    ] = None,
    seeds: Seeds = "1",
    epochs: Annotated[
        str,
        typer.Option(help="Passes over the training split, or auto.", metavar="<int|auto>"),
    ] = "15",
    batch_size: Annotated[
        str, typer.Option(help="Examples per batch, or auto.", metavar="<int|auto>")
    ] = "256",
    data_seed: Annotated[int, typer.Option(help="Seed of the order of the examples.")] = 0,
    schedule: Annotated[
        str, typer.Option(help="Schedule of the learning rate: constant or cosine.")
    ] = "constant",
    clip_norm: Annotated[
        float | None, typer.Option(help="Clip a head's gradient to this norm.")
    ] = None,
    no_baselines: Annotated[
        bool,
        typer.Option(
            "--no-baselines", help="Leave out tfidf and logreg on the mean on the same folds."
        ),
    ] = False,
    device: Device = "auto",
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Cross-validate heads on the train split of a cache, all folds in one pass.

    Options with (s) take comma lists: every combination is cross-validated.
    """
    from spacelite import api
    from spacelite.heads.grid import seed_list
    from spacelite.reports.document.cross_validation import summary

    grid: dict[str, Any] = {
        "head": comma_list("--head", head, str),
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
    numbers = seed_list(seeds)
    chosen = api.find_cache(cache, cache_dir)
    if cache is None:
        console.err().print(f"cache {chosen.name}", soft_wrap=True)
    with console.progress() as on_progress:
        found = api.cross_validate(
            chosen,
            folds=folds,
            repeats=repeats,
            seed=seed,
            **grid,
            seeds=numbers,
            epochs=number_or_auto("--epochs", epochs),
            batch_size=number_or_auto("--batch-size", batch_size),
            data_seed=data_seed,
            schedule=schedule,
            clip_norm=clip_norm,
            baselines=not no_baselines,
            device=device,
            cache_dir=cache_dir,
            progress=on_progress,
        )
    if as_json:
        console.print_json(found.as_json())
        return
    tables.show(found.table())
    for sentence in summary(found.result):
        console.out().print(sentence, markup=False)
