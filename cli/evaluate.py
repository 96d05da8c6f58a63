"""spacelite eval."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import spacelite
from spacelite.metrics.rationales import tables

from . import console
from .options import CACHE_DIR


def evaluate(
    run: str,
    *,
    dataset: str | None = None,
    cache: str | None = None,
    labels: list[str] | None = None,
    backbone: str | None = None,
    limit: int | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    labels_as: str = "auto",
    label_separator: str | None = None,
    split_column: str | None = None,
    skip_empty: bool = False,
    quoting: str = "standard",
    rationales: str | None = None,
    rationales_as: str = "auto",
    against: str | None = None,
    rationales_top: int | None = None,
    rationales_spread: float = 0.0,
    data_dir: Path | None = None,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Evaluate a run on another data set: zero-shot transfer.

    Options:
        dataset: Data set to embed and evaluate on, as in embed.
        cache: Name or path of a cache to use instead of --dataset.
        labels: A label of the data set and the run's label for it, such as hate=negative, or none
            (neutral=) to leave out its texts; repeat this for each label of the data set.
        rationales COLUMN: Compare explanations with the words that people marked: for each text 0
            or 1 for each word, or spans [[start, end], ...].
        rationales_as: mask, or spans of words or of characters; auto: spans are of words if all end
            within the texts' words.
        against: The run's label that marked words speak against, such as normal. [default: they
            speak for the predicted label]
        rationales_top K: Words that the F1s take, and that are removed or kept at once. [default:
            as many as are marked on average]
        rationales_spread P: A word also counts P times what its neighbours count, P squared times
            what the next words count, and so on: people mark spans.
    """
    arguments = locals()

    result = console.call(spacelite.load_run(run, cache_dir).evaluate, arguments)
    if as_json:
        # Those of this evaluation: the record keeps earlier ones of the same data.
        compared = None if result.rationales is None else asdict(result.rationales)
        content = {**asdict(result.record), "rationales": compared}
        console.print_json({"run": result.run.id, **content})
    else:
        _print(result)


def _print(result: spacelite.Evaluation) -> None:
    record = result.run.record
    console.say(f"{record.system}, trained on {record.spec.dataset}", style="bold")
    console.say(f"on {result.record.dataset} ({result.record.mapping})", style="dim")
    console.show(result.table())
    if result.rationales is not None:
        for table in tables({"": result.rationales}):
            console.say(table.caption)
            console.show(table)
        for sentence in result.rationales.sentences:
            console.say(sentence)
