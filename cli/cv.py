"""spacelite cv."""

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
    Preset,
    Seeds,
    SettingsCommand,
    comma_list,
)


class CvCommand(SettingsCommand):
    """`spacelite cv` with an option for each setting."""

    FUNCTION = "cross_validate"
    ORDER = (
        "folds repeats seed group_column sample_weight cache preset head inter intra latent "
        "learning_rate weight_decay pooling C blocks max_ngram ensemble ... seeds epochs "
        "batch_size data_seed schedule clip_norm class_weights no_baselines out device cache_dir "
        "as_json"
    )
    HELP: ClassVar[Mapping[str, str]] = {
        "pooling": "Pooling(s) of the baselines.  [default: the classification token]",
        "C": "Strength(s) of the L2 penalty of logreg and tfidf; auto: chosen by cross-validation "
        "on what a head sees.",
        "blocks": "What additive heads add up, joined by +.",
        "epochs": "Passes over the training split, or auto.",
        "batch_size": "Examples per batch, or auto.",
    }


def cv(
    context: typer.Context,
    folds: Annotated[int, typer.Option(help="Number of folds, stratified by label.")] = 5,
    repeats: Annotated[int, typer.Option(help="How often the examples are divided anew.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the divisions.")] = 0,
    group_column: Annotated[
        str | None,
        typer.Option(
            help="Column with the group of each training example, such as its author, which is in "
            "one fold as a whole: the data that were embedded are read again."
        ),
    ] = None,
    cache: CacheName = None,
    preset: Preset = None,
    head: Annotated[
        str, typer.Option(help="Kind(s): space, linear, mlp, additive, logreg, tfidf.")
    ] = "space,linear",
    seeds: Seeds = "1",
    no_baselines: Annotated[
        bool,
        typer.Option(
            "--no-baselines", help="Leave out tfidf and logreg on the mean on the same folds."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the predictions for each training example, by the heads that did not see "
            "it, to this csv file.",
            metavar="FILE",
        ),
    ] = None,
    device: Device = "auto",
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Cross-validate heads on the train split of a cache, all folds in one pass.

    Options with (s) take comma lists: every combination is cross-validated.
    """
    from spacelite import api
    from spacelite.data import writers
    from spacelite.heads.grid import seed_list

    numbers = seed_list(seeds)
    if out is not None:
        writers.check_place(out)  # before the work
    chosen = console.chosen_cache(cache, cache_dir)
    with console.progress() as on_progress:
        found = api.cross_validate(
            chosen,
            folds=folds,
            repeats=repeats,
            seed=seed,
            groups=group_column,
            preset=preset,
            head=comma_list("--head", head, str),
            seeds=numbers,
            baselines=not no_baselines,
            device=device,
            cache_dir=cache_dir,
            progress=on_progress,
            **context.obj,
        )
    if out is not None:
        found.save(out)
    if as_json:
        console.print_json(found.as_json())
        return
    tables.show(found.table())
    for sentence in found.result.sentences:
        console.out().print(sentence, markup=False)
    if out is not None:
        console.out().print(f"predictions written to {out}", soft_wrap=True, markup=False)
