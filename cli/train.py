"""spacelite train."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacelite.errors import SpaceliteError

from . import console
from .options import CACHE_DIR, CacheDir, Json, comma_list

if TYPE_CHECKING:
    from spacelite.heads import HeadSettings
    from spacelite.runs import Run
    from spacelite.store import Cache

PHASES = {"train": ("training", "tokens")}


def train(
    inter: Annotated[str, typer.Option(help="Weight(s) of the inter-space loss.")] = "0",
    intra: Annotated[str, typer.Option(help="Weight(s) of the intra-space loss.")] = "0",
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 15,
    cache: Annotated[
        str | None,
        typer.Option(help="A cache's name or path. [default: the newest complete one]"),
    ] = None,
    head: Annotated[str, typer.Option(help="Kind(s): space, linear.")] = "space,linear",
    latent: Annotated[str, typer.Option(help="Dimension(s) of a concept space.")] = "3",
    seeds: Annotated[int, typer.Option(help="How many seeds: 0 to K-1.")] = 1,
    data_seed: Annotated[int, typer.Option(help="Seed of the order of the data.")] = 0,
    lr: Annotated[str, typer.Option(help="Learning rate(s).")] = "2e-4",
    batch_size: Annotated[int, typer.Option(help="Examples a batch.")] = 256,
    weight_decay: Annotated[float, typer.Option(help="Adam's L2 weight decay.")] = 0.01,
    pooling: Annotated[
        str | None,
        typer.Option(
            help="The linear baseline's vector(s): first, last, mean or pooler.  [default: first; "
            "last where the tokenizer pads on the left]",
            show_default=False,
        ),
    ] = None,
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Train heads on a cache, all in one pass.

    Options with (s) take comma lists: every combination is trained.
    """
    from spacelite import caches, store

    inters, intras = comma_list("--inter", inter, float), comma_list("--intra", intra, float)
    latents, rates = comma_list("--latent", latent, int), comma_list("--lr", lr, float)
    kinds = comma_list("--head", head, str)
    check_seeds(seeds)
    path = caches.find(cache_dir, cache) if cache else caches.newest_complete(cache_dir)

    from spacelite.heads import HeadSettings

    with store.Cache(path) as opened:
        if cache is None:
            console.err().print(f"cache {opened.name}", soft_wrap=True)
        poolings = comma_list("--pooling", pooling or default_pooling(opened), str)
        space = itertools.product(inters, intras, latents)
        variants: dict[str, list[dict[str, Any]]] = {
            "space": [{"inter": a, "intra": b, "latent": size} for a, b, size in space],
            "linear": [{"pooling": name} for name in poolings],
        }
        settings = [
            HeadSettings(
                kind=kind, seed=seed, learning_rate=rate, weight_decay=weight_decay, **variant
            )
            for kind in kinds
            for variant in variants.get(kind, [{}])
            for rate in rates
            for seed in range(seeds)
        ]
        saved, stopped = train_and_save(
            cache_dir, opened, settings, epochs=epochs, batch_size=batch_size, data_seed=data_seed
        )
    if as_json:
        console.print_json([run.record for run in saved])
    elif saved:
        _print(saved)
    refuse_stopped(stopped, len(settings))


def check_seeds(seeds: int) -> None:
    """Raise SpaceliteError for a number of seeds that trains nothing."""
    if seeds < 1:
        raise SpaceliteError(f"--seeds {seeds}: give at least 1")


def refuse_stopped(stopped: list[str], heads: int) -> None:
    """Raise SpaceliteError where heads diverged: what was asked for is not all there."""
    if stopped:
        raise SpaceliteError(
            f"{len(stopped)} of {heads} heads diverged and were not saved ({'; '.join(stopped)}): "
            "try a smaller --lr"
        )


def default_pooling(cache: Cache) -> str:
    """`last` where the backbone's tokenizer pads on the left (XLNet), else `first`."""
    return "last" if cache.padding_side == "left" else "first"


def train_and_save(
    cache_dir: Path,
    cache: Cache,
    settings: list[HeadSettings],
    *,
    epochs: int,
    batch_size: int,
    data_seed: int,
) -> tuple[list[Run], list[str]]:
    """Train the heads with a progress bar and save each: the runs, and who was stopped."""
    from spacelite import runs, training

    runs.prepare(cache_dir)
    shared = training.PassSettings(epochs=epochs, batch_size=batch_size, data_seed=data_seed)
    with console.progress(PHASES) as advance:
        trained = training.train(
            cache,
            settings,
            shared,
            on_progress=lambda done, total: advance("train", done, total),
        )
    saved = [
        runs.save(cache_dir, cache, head, shared, len(settings))
        for head in trained
        if head.stopped is None
    ]
    return saved, [head.settings.description for head in trained if head.stopped is not None]


def _print(saved: list[Run]) -> None:
    from rich import box
    from rich.table import Table

    from spacelite.report.markdown import number

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("System", "Inter", "Intra", "Seed", "Split", "Loss", "Accuracy", "Macro F1"):
        justify: Any = "left" if column in ("System", "Split") else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for run in saved:
        settings = run.settings
        weights = [number(settings[name]) for name in ("inter", "intra", "seed")]
        first = [run.record["system"], *weights]
        for split, scores in run.record["metrics"].items():
            figures = [f"{scores[name]:.4f}" for name in ("loss", "accuracy", "f1_macro")]
            table.add_row(*first, split, *figures)
            first = ["", "", "", ""]
        table.add_section()
    console.out().print(table)
    seconds = saved[0].record["seconds"]
    plural = "s" if len(saved) != 1 else ""
    console.out().print(
        f"{len(saved)} head{plural} trained in {seconds:.1f} s, saved in "
        f"{saved[0].folder.parent}; spacelite report compares them",
        soft_wrap=True,
    )
