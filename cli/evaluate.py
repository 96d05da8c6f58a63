"""spacelite eval."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from . import console, options
from .options import opt

if TYPE_CHECKING:
    from spacelite.api.results import Evaluation


def evaluate(
    run: options.RunName,
    dataset: Annotated[str | None, opt("Data set to embed and evaluate on, as in embed.")] = None,
    cache: Annotated[
        str | None, opt("Name or path of a cache to use instead of --dataset.")
    ] = None,
    map_labels: Annotated[
        list[str] | None,
        opt(
            "A label of the data set and the run's label for it, as hate=negative; give "
            "it once for each label of the data set.",
            "--map",
        ),
    ] = None,
    backbone: options.RunBackbone = None,
    limit: options.Limit = None,
    device: options.Device = "auto",
    tokens_per_batch: options.TokensPerBatch = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    labels_as: options.LabelsAs = "auto",
    skip_empty: options.SkipEmpty = False,
    data_dir: options.DataDir = None,
    cache_dir: options.CacheDir = options.CACHE_DIR,
    as_json: options.Json = False,
) -> None:
    """Evaluate a run on another data set: zero-shot transfer."""
    arguments = dict(locals())  # those of a run's `evaluate`, but for four
    for name in ("run", "map_labels", "cache_dir", "as_json"):
        del arguments[name]
    import spacelite

    with console.progress() as on_progress:
        result = spacelite.load_run(run, cache_dir).evaluate(
            **arguments, labels=map_labels, progress=on_progress
        )
    if as_json:
        console.print_json({"run": result.run.id, **asdict(result.record)})
    else:
        _print(result)


def _print(result: Evaluation) -> None:
    from rich.text import Text

    record = result.run.record
    about = f"{record.system}, trained on {record.spec.dataset}"
    console.out().print(Text(about, style="bold"))
    labels = ", ".join(f"{there} as {here}" for there, here in result.record.labels.items())
    console.out().print(Text(f"on {result.record.dataset} ({labels})", style="dim"))
    console.show(result.table())
