"""spacelite train."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spacelite.errors import SpaceliteError

from . import console
from .options import CACHE_DIR, CacheDir, Device, Json, comma_list

if TYPE_CHECKING:
    from spacelite.cache.store import Cache
    from spacelite.heads.settings import HeadSettings, PassSettings
    from spacelite.runs.store import Run

MOST_SEEDS = 10_000  # far beyond use
PHASES = {"train": ("training", "tokens")}


def train(
    inter: Annotated[str, typer.Option(help="Weight(s) of the inter-space loss.")] = "0",
    intra: Annotated[str, typer.Option(help="Weight(s) of the intra-space loss.")] = "0",
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 15,
    cache: Annotated[
        str | None,
        typer.Option(help="A cache's name or path. [default: the newest complete one]"),
    ] = None,
    head: Annotated[
        str, typer.Option(help="Kind(s): space, linear, mlp, logreg.")
    ] = "space,linear",
    latent: Annotated[str, typer.Option(help="Dimension(s) of a concept space.")] = "3",
    seeds: Annotated[int, typer.Option(help="How many seeds: 0 to K-1.")] = 1,
    data_seed: Annotated[int, typer.Option(help="Seed of the order of the data.")] = 0,
    lr: Annotated[str, typer.Option(help="Learning rate(s).")] = "2e-4",
    batch_size: Annotated[int, typer.Option(help="Examples a batch.")] = 256,
    weight_decay: Annotated[str, typer.Option(help="Adam's L2 weight decay(s).")] = "0.01",
    pooling: Annotated[
        str | None,
        typer.Option(
            help="The baselines' vector(s): first, last, mean or pooler.  [default: first; "
            "last where the tokenizer pads on the left]",
            show_default=False,
        ),
    ] = None,
    schedule: Annotated[str, typer.Option(help="Learning rate: constant or cosine.")] = "constant",
    clip_norm: Annotated[
        float | None, typer.Option(help="Largest norm of a head's gradient.")
    ] = None,
    class_weights: Annotated[str, typer.Option(help="none or balanced.")] = "none",
    patience: Annotated[
        int | None,
        typer.Option(help="End a head after so many epochs without a better --monitor."),
    ] = None,
    monitor: Annotated[
        str, typer.Option(help="Validation figure that --patience watches.")
    ] = "f1_macro",
    device: Device = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted training.")
    ] = False,
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Train heads on a cache, all in one pass.

    Options with (s) take comma lists: every combination is trained.
    """
    from spacelite.cache import folder as caches
    from spacelite.cache import store

    grid = Grid(
        kinds=comma_list("--head", head, str),
        space=list(
            itertools.product(
                comma_list("--inter", inter, float),
                comma_list("--intra", intra, float),
                comma_list("--latent", latent, int),
            )
        ),
        rates=comma_list("--lr", lr, float),
        decays=comma_list("--weight-decay", weight_decay, float),
        seeds=check_seeds(seeds),
    )
    path = caches.find(cache_dir, cache) if cache else caches.newest_complete(cache_dir)

    from spacelite.heads.settings import PassSettings

    shared = PassSettings(
        epochs=epochs,
        batch_size=batch_size,
        data_seed=data_seed,
        schedule=schedule,
        clip_norm=clip_norm,
        class_weights=class_weights,
        patience=patience,
        monitor=monitor,
    )
    with store.Cache(path) as opened:
        if cache is None:
            console.err().print(f"cache {opened.name}", soft_wrap=True)
        poolings = comma_list("--pooling", pooling or default_pooling(opened), str)
        settings = grid.heads(poolings)
        saved, stopped = train_and_save(
            cache_dir, opened, settings, shared, device=device, resume=resume
        )
    if as_json:
        console.print_json([run.record for run in saved])
    elif saved:
        _print(saved)
    refuse_stopped(stopped, len(settings))


class Grid:
    """All combinations of what can differ between the heads of a pass."""

    def __init__(
        self,
        *,
        kinds: list[str],
        space: list[tuple[float, float, int]],
        rates: list[float],
        decays: list[float],
        seeds: int,
    ) -> None:
        self._kinds, self._space, self._seeds = kinds, space, seeds
        self._rates, self._decays = rates, decays

    def heads(self, poolings: list[str]) -> list[HeadSettings]:
        """The settings of every head; `logreg`, which neither rate nor seed changes, once for each
        pooling."""
        from spacelite.heads.settings import HeadSettings

        pooled: list[dict[str, Any]] = [{"pooling": name} for name in poolings]
        space = [{"inter": a, "intra": b, "latent": size} for a, b, size in self._space]
        optimized = [
            {"learning_rate": rate, "weight_decay": decay, "seed": seed}
            for rate, decay in itertools.product(self._rates, self._decays)
            for seed in range(self._seeds)
        ]
        fitted = [{"learning_rate": None, "weight_decay": None}]
        return [
            HeadSettings(kind=kind, **variant, **how)
            for kind in self._kinds
            for variant in (space if kind == "space" else pooled)
            for how in (fitted if kind == "logreg" else optimized)
        ]


def check_seeds(seeds: int) -> int:
    """The number of seeds; SpaceliteError for one that trains nothing."""
    if not 1 <= seeds <= MOST_SEEDS:
        raise SpaceliteError(f"--seeds {seeds}: give 1 to {MOST_SEEDS:,}")
    return seeds


def refuse_stopped(stopped: list[str], heads: int) -> None:
    """Raise SpaceliteError where heads diverged: what was asked for is not all there."""
    if stopped:
        raise SpaceliteError(
            f"{len(stopped)} of {heads} heads diverged and were not saved ({'; '.join(stopped)}): "
            "try a smaller --lr; if that does not help, spacelite cache verify tells whether the "
            "hidden states are damaged"
        )


def default_pooling(cache: Cache) -> str:
    """`last` where the backbone's tokenizer pads on the left (XLNet), else `first`."""
    return "last" if cache.padding_side == "left" else "first"


def train_and_save(
    cache_dir: Path,
    cache: Cache,
    settings: list[HeadSettings],
    shared: PassSettings,
    *,
    device: str = "auto",
    resume: bool = False,
) -> tuple[list[Run], list[str]]:
    """Train the heads with a progress bar and save each: the runs, and who was stopped."""
    from spacelite.backbones import model as backbone
    from spacelite.runs import store as runs
    from spacelite.training import checkpoints as snapshots

    identity = snapshots.identity_of(cache, settings, shared)
    if resume and not snapshots.path_of(cache_dir, cache.name, identity).exists():
        console.err().print("nothing to resume: starting from the first epoch")
    with console.progress(PHASES) as advance:
        return runs.train_and_save(
            cache_dir,
            cache,
            settings,
            shared,
            device=backbone.resolve_device(device),
            resume=resume,
            on_progress=lambda done, total: advance("train", done, total),
        )


def _print(saved: list[Run]) -> None:
    from rich import box
    from rich.table import Table

    from spacelite.reports.document.wording import decimals, number

    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0))
    left = ("System, run", "Split")
    for column in (*left[:1], "Inter", "Intra", "Seed", *left[1:], "Loss", "Accuracy", "Macro F1"):
        justify: Any = "left" if column in left else "right"
        table.add_column(column, justify=justify, no_wrap=True)
    for run in saved:
        settings = run.settings
        weights = [number(settings[name]) for name in ("inter", "intra", "seed")]
        # The last part of a run's id is enough to name it.
        names = iter([run.record["system"], run.id.rpartition("--")[2]])
        for split, scores in run.record["metrics"].items():
            figures = [decimals(scores[name], 4) for name in ("loss", "accuracy", "f1_macro")]
            table.add_row(next(names, ""), *weights, split, *figures)
            weights = ["", "", ""]
        table.add_section()
    console.out().print(table)
    seconds = max(run.record["seconds"] for run in saved)
    plural = "s" if len(saved) != 1 else ""
    console.out().print(
        f"{len(saved)} head{plural} trained in {seconds:.1f} s, saved in "
        f"{saved[0].folder.parent}; spacelite report compares them",
        soft_wrap=True,
    )
