"""spacelite train."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacelite.errors import SpaceliteError

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
    with_cache_dir,
)

if TYPE_CHECKING:
    from pathlib import Path

    from spacelite.api import Runs


HEADS = "space,linear"


def train(
    inter: Inter = "0",
    intra: Intra = "0",
    epochs: Annotated[
        str,
        typer.Option(
            help="Passes over the training split; auto for 600 updates, in 15 to 300 passes.",
            metavar="<int|auto>",
        ),
    ] = "15",
    cache: CacheName = None,
    layer: Annotated[
        int | None,
        typer.Option(help="Layer, for data embedded with several.", show_default="the cache's"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="A name for the run, to use in place of its id; several runs are named NAME-1, "
            "NAME-2, ..."
        ),
    ] = None,
    head: Annotated[
        str, typer.Option(help="Kind(s): space, linear, mlp, additive, logreg, tfidf.")
    ] = HEADS,
    latent: Latent = None,
    c: Annotated[
        str,
        typer.Option(
            "--C",
            help="Strength(s) of the L2 penalty of logreg and tfidf: the smaller, the stronger; "
            "auto: chosen by cross-validation on train.",
            metavar="<float|auto>",
        ),
    ] = "auto",
    blocks: Annotated[
        str | None,
        typer.Option(
            help="What additive heads add up, joined by +: layers, mean, ngrams, space; several "
            "combinations: a comma list.  [default: layers+ngrams]",
            show_default=False,
        ),
    ] = None,
    max_ngram: MaxNgram = None,
    ensemble: Ensemble = "1",
    preset: Preset = None,
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Keep only the best combination of settings by --monitor on validation: the worse "
            "half is dropped after an eighth, a quarter and a half of the epochs. --lr, --latent, "
            "--weight-decay and --blocks are lists then, where they are not given.",
        ),
    ] = False,
    seeds: Seeds = "1",
    data_seed: DataSeed = 0,
    lr: LearningRates = None,
    batch_size: Annotated[
        str,
        typer.Option(
            help="Examples per batch; auto for a twentieth of the training examples, 16 to 256.",
            metavar="<int|auto>",
        ),
    ] = "256",
    weight_decay: WeightDecays = None,
    pooling: Annotated[
        str | None,
        typer.Option(
            help="Pooling(s) of the baselines: first, last, mean, pooler or layers.  [default: "
            "first; last where the tokenizer pads on the left]",
            show_default=False,
        ),
    ] = None,
    schedule: Schedule = "constant",
    clip_norm: ClipNorm = None,
    class_weights: ClassWeights = "none",
    sample_weight_column: SampleWeightColumn = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop a head after this many epochs without a better --monitor."),
    ] = None,
    monitor: Annotated[
        str, typer.Option(help="Validation metric that --patience watches and --search compares.")
    ] = "f1_macro",
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Choose each head's decision threshold on validation for f1 (macro F1) or "
            "accuracy, where a text has one of two labels or any number of labels.  [default: "
            "the most probable label, or those above one half]",
            show_default=False,
        ),
    ] = None,
    no_baselines: Annotated[
        bool,
        typer.Option(
            "--no-baselines",
            help="Leave out the baselines that show what a head is worth: tfidf and logreg on the "
            "mean, fitted once for a cache.",
        ),
    ] = False,
    device: Device = "auto",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Fail if an interrupted training cannot be continued. (Where it can, it is "
            "continued in any case.)",
        ),
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Train from the start, and delete what an interrupted training left."
        ),
    ] = False,
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Train heads on a cache, all in one pass.

    Options with (s) take comma lists: every combination is trained.
    """
    grid: dict[str, Any] = {
        "head": comma_list("--head", head, str),
        "inter": comma_list("--inter", inter, float),
        "intra": comma_list("--intra", intra, float),
        "latent": optional_list("--latent", latent, int),
        "learning_rate": optional_list("--lr", lr, or_auto(float)),
        "weight_decay": optional_list("--weight-decay", weight_decay, float),
        "pooling": optional_list("--pooling", pooling, str),
        "C": comma_list("--C", c, or_auto(float)),
        "max_ngram": optional_list("--max-ngram", max_ngram, int),
        "ensemble": comma_list("--ensemble", ensemble, int),
        "blocks": optional_list("--blocks", blocks, str),
    }
    if head == HEADS:
        del grid["head"]  # the default, which a preset may replace
    from spacelite import api
    from spacelite.heads.grid import seed_list

    numbers = seed_list(seeds)
    chosen = console.chosen_cache(cache, cache_dir, layer)
    started = time.perf_counter()
    with console.progress() as on_progress:
        runs = api.train(
            chosen,
            name=name,
            **grid,
            preset=preset,
            search=search,
            seeds=numbers,
            epochs=number_or_auto("--epochs", epochs),
            batch_size=number_or_auto("--batch-size", batch_size),
            data_seed=data_seed,
            schedule=schedule,
            clip_norm=clip_norm,
            class_weights=class_weights,
            sample_weight=sample_weight_column,
            patience=patience,
            monitor=monitor,
            threshold=threshold,
            baselines=not no_baselines,
            device=device,
            resume=resume,
            fresh=fresh,
            cache_dir=cache_dir,
            progress=on_progress,
        )
    if as_json:
        console.print_json([run.record.as_json() for run in runs])
    elif runs:
        _print(runs, cache_dir, time.perf_counter() - started)
    refuse_stopped(runs)


def refuse_stopped(runs: Runs) -> None:
    """Raise SpaceliteError if heads diverged: part of what was asked for is missing."""
    if runs.stopped:
        raise SpaceliteError(
            f"{len(runs.stopped)} of {len(runs) + len(runs.stopped)} heads diverged and were not "
            f"saved ({'; '.join(runs.stopped)}): try a smaller learning_rate; if that does not "
            "help, spacelite cache verify checks the hidden states for damage",
            ["learning_rate"],
        )


def _print(runs: Runs, cache_dir: Path, seconds: float) -> None:
    from spacelite.runs import runs_folder

    tables.show(runs.table(), ruled=False)
    if runs.baseline:
        console.out().print(runs.baseline, soft_wrap=True, markup=False)
    if runs.thresholds:
        console.out().print(runs.thresholds, soft_wrap=True, markup=False)
    if runs.search:
        console.out().print(runs.search, soft_wrap=True, markup=False)
    trained = len(runs) - runs.before
    plural = "s" if trained != 1 else ""
    kept = "the baseline is" if runs.before == 1 else "the baselines are"
    earlier = f" ({kept} of an earlier training)" if runs.before else ""
    console.out().print(
        f"{trained} head{plural} trained in {seconds:.1f} s, saved in "
        f"{runs_folder(cache_dir)}{_named(runs)}{earlier}; "
        f"{with_cache_dir('spacelite report', cache_dir)} compares them",
        soft_wrap=True,
    )


def _named(runs: Runs) -> str:
    names = [run.name for run in runs if run.name]
    if len(names) < 2:
        return "".join(f" as {name}" for name in names)
    return f" as {names[0]} to {names[-1]}"
