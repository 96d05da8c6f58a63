"""spacelite eval."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from spacelite.errors import SpaceliteError

from . import console
from .embed import PHASES
from .options import (
    CACHE_DIR,
    CacheDir,
    DataDir,
    Device,
    Json,
    LabelColumn,
    Limit,
    RunBackbone,
    RunName,
    TextColumn,
    TokensPerBatch,
)

if TYPE_CHECKING:
    from spacelite.inference.transfer import Transfer
    from spacelite.runs.store import Run

EVALUATE = {"evaluate": ("evaluating", "tokens")}


def evaluate(
    run: RunName,
    dataset: Annotated[
        str | None, typer.Option(help="Data set to embed and evaluate on, as in embed.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="In place of --dataset: a cache that is there already.")
    ] = None,
    map_labels: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            help="A label of the data set as one of the run's (hate=negative); one for each.",
        ),
    ] = None,
    backbone: RunBackbone = None,
    limit: Limit = None,
    device: Device = "auto",
    tokens_per_batch: TokensPerBatch = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    data_dir: DataDir = None,
    cache_dir: CacheDir = CACHE_DIR,
    as_json: Json = False,
) -> None:
    """Evaluate a run on another data set: zero-shot transfer."""
    from spacelite.cache import embedding, store
    from spacelite.cache import folder as caches
    from spacelite.runs import store as runs

    if (dataset is None) == (cache is None):
        raise SpaceliteError("give one of --dataset and --cache")
    if cache is not None and limit is not None:
        raise SpaceliteError("--limit is for --dataset: a cache has the examples that it has")
    found = runs.find(cache_dir, run)
    if dataset is not None:
        with console.progress(PHASES) as on_progress:
            path = embedding.embed(
                dataset=dataset,
                cache_dir=cache_dir,
                limit=limit,
                device=device,
                tokens_per_batch=tokens_per_batch,
                text_column=text_column,
                label_column=label_column,
                data_dir=data_dir,
                on_progress=on_progress,
                **embedding.backbone_settings(found.record["spec"], backbone),
            ).path
    else:
        path = caches.find(cache_dir, str(cache))

    from spacelite.backbones.model import resolve_device
    from spacelite.inference import transfer as evaluation

    with store.Cache(path) as opened, console.progress(EVALUATE) as advance:
        mapping = None
        if map_labels:
            names = found.record["label_names"]
            mapping = evaluation.parse_map(map_labels, opened.label_names, names)
        result, given = evaluation.transfer(
            found,
            opened,
            mapping,
            device=resolve_device(device),
            on_progress=lambda done, total: advance("evaluate", done, total),
        )
    found.save_transfer(asdict(result), given)
    if as_json:
        console.print_json({"run": found.id, **asdict(result)})
    else:
        _print(found, result)


def _print(run: Run, result: Transfer) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from spacelite.reports.document.wording import decimals

    console.out().print(
        Text(f"{run.record['system']}, trained on {run.record['spec']['dataset']}", style="bold")
    )
    labels = ", ".join(f"{there} as {here}" for there, here in result.labels.items())
    console.out().print(Text(f"on {result.dataset} ({labels})", style="dim"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Split")
    for column in ("Examples", "Loss", "CE", "Accuracy", "Macro F1", "Precision", "Recall"):
        table.add_column(column, justify="right", no_wrap=True)
    for split, scores in result.metrics.items():
        figures = [decimals(value, 4) for value in scores.values()]
        table.add_row(split, f"{result.examples[split]:,}", *figures)
    console.out().print(table)
