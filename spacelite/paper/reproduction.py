"""The published tables from data to figures: embed, train and evaluate what does not exist yet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from spacelite import heads
from spacelite.backbones.model import PRECISIONS, resolve_device
from spacelite.cache import embedding
from spacelite.cache.spec import Encoding
from spacelite.cache.store import Cache
from spacelite.data import loading
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.inference import transfer
from spacelite.metrics.scores import Scores
from spacelite.paper import RowOutcome, hub_name, protocol, published
from spacelite.progress import OnProgress
from spacelite.runs import store
from spacelite.runs.record import run_id
from spacelite.runs.store import Run
from spacelite.settings import one_of, require
from spacelite.training import loop
from spacelite.training.config import TrainingConfig
from spacelite.training.plan import seed_list

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """How the tables are measured; the rest as in `embed`."""

    cache_dir: Path
    backbone: str | None = None  # in place of the published ones
    seeds: int | Sequence[int] = 3  # per row
    limit: int | None = None
    data_dir: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    tokens_per_batch: int | None = None


def reproduce(
    table: str | None,
    options: ReproduceOptions,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> list[RowOutcome]:
    """Measure every row of the published tables, or of one table.

    Training data are embedded, heads with the same number of epochs are trained in one pass, and
    zero-shot rows are evaluated on their test data. Existing caches, runs and evaluations are
    reused; after an interruption the same call continues. If a backbone or data set is not
    available, its rows stay empty, and the log says why.
    """
    rows = [row for row in published() if table in (None, row.table)]
    if not rows:
        known = ", ".join(dict.fromkeys(row.table for row in published()))
        raise SpaceliteError(f"table={table}: choose one of {known}", ["table"])
    if options.limit is not None and options.limit < 1:
        raise SpaceliteError(
            f"limit={options.limit}: give at least one example per split", ["limit"]
        )
    if options.data_dir is not None and not options.data_dir.is_dir():
        raise SpaceliteError(f"data_dir={options.data_dir}: there is no such folder", ["data_dir"])
    require("precision", options.precision, one_of(*PRECISIONS))
    outcomes, measuring = [RowOutcome(row) for row in rows], _Measuring(options, on_progress)
    passes: dict[tuple[str, str, int], list[RowOutcome]] = {}
    for outcome in outcomes:
        row = outcome.row
        backbone = options.backbone or hub_name(row.backbone)
        passes.setdefault((backbone, row.train_on, row.epochs), []).append(outcome)
    for (backbone, data, epochs), members in passes.items():
        path = measuring.embed(backbone, data)
        if isinstance(path, SpaceliteError):
            for outcome in members:
                outcome.refused(path)
            continue
        measuring.train(path, epochs, members)
        for outcome in members:
            if outcome.row.test_on == data or not outcome.runs:
                continue
            path = measuring.embed(backbone, outcome.row.test_on)
            if isinstance(path, SpaceliteError):
                outcome.refused(path)
                continue
            with Cache(path) as cache:
                outcome.scores = [measuring.transferred(run, cache) for run in outcome.runs]
    return outcomes


@dataclass
class _Measuring:
    """The steps of a reproduction, and what could not be embedded in it."""

    options: ReproduceOptions
    on_progress: OnProgress
    failed: dict[tuple[str, str], SpaceliteError] = field(default_factory=dict)

    def embed(self, backbone: str, data: str) -> Path | SpaceliteError:
        """The cache of a data set, or why it cannot be created: logged once."""
        options = self.options
        if (backbone, data) in self.failed:
            return self.failed[backbone, data]
        try:
            encoding = Encoding(
                backbone=backbone,
                max_length=protocol()["max_length"],
                device=options.device,
                precision=options.precision,
                tokens_per_batch=options.tokens_per_batch,
            )
            return embedding.embed(
                encoding,
                lambda: loading.read(data, limit=options.limit, data_dir=options.data_dir),
                cache_dir=options.cache_dir,
                on_progress=self.on_progress,
            ).path
        except SpaceliteError as error:
            log.warning("%s on %s: %s", backbone, data, error)
            self.failed[backbone, data] = error
            return error

    def train(self, path: Path, epochs: int, outcomes: Sequence[RowOutcome]) -> None:
        """Train the heads of all rows with this cache and number of epochs in one pass and save
        each; heads that diverge are named in the log."""
        training = TrainingConfig(epochs=epochs, batch_size=protocol()["batch_size"])
        seeds, cache_dir = seed_list(self.options.seeds), self.options.cache_dir
        with Cache(path) as cache:
            wanted = {of: [_head(of, seed, cache) for seed in seeds] for of in outcomes}
            configs = [config for of_row in wanted.values() for config in of_row]
            run_of = {config: _finished(cache_dir, cache, config, training) for config in configs}
            missing = [config for config, run in run_of.items() if run is None]
            if missing:
                saved: list[Run] = []
                results = loop.train(
                    cache,
                    missing,
                    training,
                    device=resolve_device(self.options.device),
                    cache_dir=cache_dir,
                    save=lambda head: saved.append(store.save(cache_dir, cache, head, training)),
                    on_progress=partial(self.on_progress, "train"),
                )
                run_of |= {run.head: run for run in saved}
                stopped = [head.config.description for head in results if head.stopped is not None]
                if stopped:
                    log.warning("diverged: %s", ", ".join(stopped))
        for outcome, of_row in wanted.items():
            outcome.runs = [run for config in of_row if (run := run_of[config]) is not None]
            if diverged := len(of_row) - len(outcome.runs):
                outcome.note = f"{diverged} of {len(of_row)} seeds diverged."
            if outcome.row.test_on == outcome.row.train_on:
                outcome.scores = [run.record.metrics[run.record.split] for run in outcome.runs]

    def transferred(self, run: Run, cache: Cache) -> Scores:
        """A run's metrics on the test split of another cache, with labels matched by number."""
        by_number = dict(zip(cache.label_names, run.record.label_names, strict=True))
        for known in run.transfers():
            same = known.cache_key == cache.spec.cache_key() and known.labels == by_number
            if same and run.predictions(known) is not None:
                return dict(known.metrics["test"])
        record, predictions = transfer.evaluate(
            run,
            cache,
            by_number,
            device=resolve_device(self.options.device),
            on_progress=partial(self.on_progress, "evaluate"),
        )
        run.save_transfer(record, predictions)
        return dict(record.metrics["test"])


def _head(outcome: RowOutcome, seed: int, cache: Cache) -> HeadConfig:
    row, shared = outcome.row, protocol()
    pooling = row.pooling
    if pooling == "pooler" and not cache.splits["train"].has_pooler:
        pooling = "first"
        outcome.note = f"{cache.spec.backbone} has no pooler: its first token is used instead."
    settings = {"latent": row.latent, "inter": row.inter, "intra": row.intra, "pooling": pooling}
    return heads.config(
        row.head,
        seed=seed,
        learning_rate=shared["learning_rate"],
        weight_decay=shared["weight_decay"],
        **{name: value for name, value in settings.items() if value is not None},
    )


def _finished(
    cache_dir: Path, cache: Cache, config: HeadConfig, training: TrainingConfig
) -> Run | None:
    folder = store.runs_folder(cache_dir) / run_id(cache.spec, config, training)
    if not folder.is_dir():
        return None
    try:
        return store.load(folder)
    except SpaceliteError as error:
        log.warning("%s", error)
        return None
