"""The published tables from data to figures: embed, train and evaluate what is not there yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from spacelite.backbones import model as backbones
from spacelite.cache import embedding
from spacelite.cache import spec as specs
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.heads.settings import HeadSettings, PassSettings
from spacelite.inference import transfer as evaluation
from spacelite.paper import tables as paper
from spacelite.paper.tables import RowOutcome
from spacelite.runs import store as runs
from spacelite.runs.store import Run

log = logging.getLogger(__name__)

# Called with the phase (embed's, "train" or "evaluate"), how much of it is done, of how much.
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is reproduced with: `backbone` stands in for all published ones where it is given;
    the others are `embed`'s."""

    cache_dir: Path
    backbone: str | None = None
    seeds: int = 3
    limit: int | None = None
    data_dir: Path | None = None
    device: str = "auto"
    tokens_per_batch: int | None = None


def reproduce(
    table: str | None,
    options: Options,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> list[RowOutcome]:
    """Measure every row of the published tables, or of one: training data embedded, all heads of a
    number of epochs trained in one pass, zero-shot rows evaluated on their test data.

    Caches, runs and evaluations that are there already are used; an interrupted call goes on where
    it was. A backbone or data set that cannot be had leaves its rows empty, and the log says why.
    Raises SpaceliteError for an unknown table.
    """
    rows = [row for row in paper.published() if table in (None, row.table)]
    if not rows:
        known = ", ".join(dict.fromkeys(row.table for row in paper.published()))
        raise SpaceliteError(f"--table {table}: choose one of {known}")
    if options.limit is not None and options.limit < 1:
        raise SpaceliteError(f"--limit {options.limit}: give at least one example a split")
    if options.data_dir is not None and not options.data_dir.is_dir():
        raise SpaceliteError(f"--data-dir {options.data_dir}: there is no such folder")
    outcomes = [RowOutcome(row) for row in rows]
    passes: dict[tuple[str, str, int], list[RowOutcome]] = {}
    for outcome in outcomes:
        row = outcome.row
        backbone = options.backbone or paper.hub_name(row.backbone)
        passes.setdefault((backbone, row.train_on, row.epochs), []).append(outcome)
    failed: dict[tuple[str, str], str] = {}  # what could not be embedded
    for (backbone, data, epochs), members in passes.items():
        path = _embed(backbone, data, options, failed, on_progress)
        if path is not None:
            _train(path, epochs, members, options, on_progress)
        for outcome in members:
            outcome.note = outcome.note or failed.get((backbone, data))
        _transfer(backbone, members, options, failed, on_progress)
    return outcomes


def _embed(
    backbone: str,
    data: str,
    options: Options,
    failed: dict[tuple[str, str], str],
    on_progress: OnProgress,
) -> Path | None:
    """The cache of a data set; None, said once and put into `failed`, where it cannot be made."""
    if (backbone, data) in failed:
        return None
    try:
        return embedding.embed(
            backbone=backbone,
            dataset=data,
            cache_dir=options.cache_dir,
            max_length=paper.protocol()["max_length"],
            limit=options.limit,
            device=options.device,
            tokens_per_batch=options.tokens_per_batch,
            data_dir=options.data_dir,
            on_progress=on_progress,
        ).path
    except SpaceliteError as error:
        log.warning("%s on %s: %s", backbone, data, error)
        failed[backbone, data] = str(error)
        return None


def _train(
    path: Path,
    epochs: int,
    outcomes: Sequence[RowOutcome],
    options: Options,
    on_progress: OnProgress,
) -> None:
    """One pass for all rows with this cache and number of epochs."""
    protocol = paper.protocol()
    shared = PassSettings(epochs=epochs, batch_size=protocol["batch_size"])
    with Cache(path) as cache:
        wanted = {
            id(outcome): [_head(outcome, seed, cache) for seed in range(options.seeds)]
            for outcome in outcomes
        }
        heads = list(dict.fromkeys(head for own in wanted.values() for head in own))
        there = {head: _finished(options.cache_dir, cache, head, shared) for head in heads}
        missing = [head for head, run in there.items() if run is None]
        if missing:
            saved, stopped = runs.train_and_save(
                options.cache_dir,
                cache,
                missing,
                shared,
                device=backbones.resolve_device(options.device),
                resume=True,
                on_progress=lambda done, total: on_progress("train", done, total),
            )
            there.update({run.head: run for run in saved})
            if stopped:
                log.warning("diverged: %s", ", ".join(stopped))
    for outcome in outcomes:
        found = [there[head] for head in wanted[id(outcome)]]
        outcome.runs = [run for run in found if run is not None]
        if len(outcome.runs) < len(found):
            outcome.note = f"{len(found) - len(outcome.runs)} of {len(found)} seeds diverged."
        if outcome.row.test_on == outcome.row.train_on:
            outcome.scores = [run.record["metrics"][run.split] for run in outcome.runs]


def _head(outcome: RowOutcome, seed: int, cache: Cache) -> HeadSettings:
    row, protocol = outcome.row, paper.protocol()
    pooling = row.pooling
    if pooling == "pooler" and not cache.splits["train"].has_pooler:
        pooling = "first"
        outcome.note = f"{cache.spec['backbone']} has no pooler: its first token stands in."
    return HeadSettings(
        kind=row.head,
        seed=seed,
        learning_rate=protocol["learning_rate"],
        weight_decay=protocol["weight_decay"],
        latent=row.latent,
        inter=row.inter,
        intra=row.intra,
        pooling=pooling,
    )


def _finished(
    cache_dir: Path, cache: Cache, head: HeadSettings, shared: PassSettings
) -> Run | None:
    folder = runs.folder_of(cache_dir) / runs.id_of(cache, head, shared)
    if not folder.is_dir():
        return None
    try:
        return runs.load(folder)
    except SpaceliteError as error:
        log.warning("%s", error)
        return None


def _transfer(
    backbone: str,
    outcomes: Sequence[RowOutcome],
    options: Options,
    failed: dict[tuple[str, str], str],
    on_progress: OnProgress,
) -> None:
    """Evaluate the runs of zero-shot rows on the data that the row was tested on."""
    for outcome in outcomes:
        data = outcome.row.test_on
        if data == outcome.row.train_on or not outcome.runs:
            continue
        path = _embed(backbone, data, options, failed, on_progress)
        if path is None:
            outcome.runs, outcome.note = [], failed[backbone, data]
            continue
        with Cache(path) as cache:
            outcome.scores = [
                _transferred(run, cache, options, on_progress) for run in outcome.runs
            ]


def _transferred(
    run: Run, cache: Cache, options: Options, on_progress: OnProgress
) -> dict[str, float]:
    """A run's figures on the test split of another cache, labels matched by their numbers."""
    protocol = dict(zip(cache.label_names, run.record["label_names"], strict=True))
    for known in run.transfers():
        same = known["cache_key"] == specs.key_of(cache.spec) and known["labels"] == protocol
        if same and run.outputs(known) is not None:
            scores: dict[str, float] = known["metrics"]["test"]
            return scores
    made, given = evaluation.transfer(
        run,
        cache,
        protocol,
        device=backbones.resolve_device(options.device),
        on_progress=lambda done, total: on_progress("evaluate", done, total),
    )
    run.save_transfer(asdict(made), given)
    return made.metrics["test"]
