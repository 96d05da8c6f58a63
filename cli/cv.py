"""spacelite cv."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import console, tables
from .options import (
    CACHE_DIR,
    CacheDir,
    CacheName,
    ClassWeights,
    ClipNorm,
    DataSeed,
    Device,
    Ensemble,
    Inter,
    Intra,
    Json,
    Latent,
    LearningRates,
    MaxNgram,
    Preset,
    SampleWeightColumn,
    Schedule,
    Seeds,
    WeightDecays,
    comma_list,
    number_or_auto,
    optional_list,
    or_auto,
)

HEADS = "space,linear"


def cv(
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
    sample_weight_column: SampleWeightColumn = None,
    cache: CacheName = None,
    preset: Preset = None,
    head: Annotated[
        str, typer.Option(help="Kind(s): space, linear, mlp, additive, logreg, tfidf.")
    ] = HEADS,
    inter: Inter = "0",
    intra: Intra = "0",
    latent: Latent = None,
    lr: LearningRates = None,
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
    max_ngram: MaxNgram = None,
    ensemble: Ensemble = "1",
    seeds: Seeds = "1",
    epochs: Annotated[
        str,
        typer.Option(help="Passes over the training split, or auto.", metavar="<int|auto>"),
    ] = "15",
    batch_size: Annotated[
        str, typer.Option(help="Examples per batch, or auto.", metavar="<int|auto>")
    ] = "256",
    data_seed: DataSeed = 0,
    schedule: Schedule = "constant",
    clip_norm: ClipNorm = None,
    class_weights: ClassWeights = "none",
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
        "ensemble": comma_list("--ensemble", ensemble, int),
    }
    if head == HEADS:
        del grid["head"]  # the default, which a preset may replace
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
            sample_weight=sample_weight_column,
            **grid,
            preset=preset,
            seeds=numbers,
            epochs=number_or_auto("--epochs", epochs),
            batch_size=number_or_auto("--batch-size", batch_size),
            data_seed=data_seed,
            schedule=schedule,
            clip_norm=clip_norm,
            class_weights=class_weights,
            baselines=not no_baselines,
            device=device,
            cache_dir=cache_dir,
            progress=on_progress,
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
