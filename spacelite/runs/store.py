"""Trained heads on disk: save, load, find. docs/formats.md describes the format."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spacelite import files, heads
from spacelite.cache.spec import embeddings_folder
from spacelite.errors import SpaceliteError, one_line
from spacelite.heads import HeadConfig
from spacelite.metrics import predictions
from spacelite.metrics.predictions import Predictions
from spacelite.runs.reading import UNREADABLE, read, read_json
from spacelite.runs.record import EpochRecord, RunRecord, SearchRecord, TransferRecord, run_id
from spacelite.tasks import task_of
from spacelite.training.config import FitConfig, TrainingConfig
from spacelite.training.plan import AUTO

if TYPE_CHECKING:
    from spacelite.cache.store import Cache
    from spacelite.training.trained import TrainedHead

log = logging.getLogger(__name__)

RECORD, HISTORY, PARAMETERS = "run.json", "history.json", "head.safetensors"
PREDICTIONS = "predictions.npz"
TRANSFERS = "transfer"  # subfolder of a run: evaluations on other data sets
OWN_FILES = (RECORD, HISTORY, PARAMETERS, PREDICTIONS, TRANSFERS)
PACKAGES = ("spacelite", "torch", "transformers", "datasets", "h5py", "numpy", "safetensors")
OTHERWISE = "choose another cache_dir"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Run:
    """A saved run: its folder and its record."""

    folder: Path
    record: RunRecord

    def __post_init__(self) -> None:
        # A run stays usable when the program changes its working folder.
        object.__setattr__(self, "folder", files.absolute(self.folder))

    @classmethod
    def in_memory(cls, record: RunRecord, parameters: Mapping[str, Array]) -> Run:
        """A run that is not on disk. Only what needs its record and its parameters works."""
        run = cls(Path(record.id), record)
        run.__dict__["parameters"] = dict(parameters)  # in place of the cached property
        return run

    @property
    def id(self) -> str:
        """The run's id: the name of its folder."""
        return self.folder.name

    @property
    def name(self) -> str | None:
        """The run's own name; None if it was given none."""
        return self.record.name

    @property
    def bytes(self) -> int:
        """The size of all files of the run."""
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    @property
    def head(self) -> HeadConfig:
        """The head's config."""
        return self.record.head

    @cached_property
    def parameters(self) -> dict[str, Array]:
        """The head's parameters by name.

        Raises:
            SpaceliteError: The file is damaged, or belongs to a different head.
        """
        from safetensors.numpy import load

        path = self.folder / PARAMETERS
        if not path.is_file():
            raise SpaceliteError(f"{path} is missing: train the head again")
        try:
            content = path.read_bytes()
            arrays: dict[str, Array] = load(content)
        except Exception as error:  # safetensors' own errors, and the system's
            raise SpaceliteError(
                f"{path} is damaged ({one_line(error, 80)}): train the head again"
            ) from error
        checksum = files.checksum(content)
        if self.record.checksums.get(PARAMETERS, checksum) != checksum:
            raise SpaceliteError(
                f"{path} is damaged (it does not match its checksum): train the head again"
            )
        if not all(np.isfinite(value).all() for value in arrays.values()):
            raise SpaceliteError(
                f"{path} is damaged (a number in it is not finite): train the head again"
            )
        if not self._fits(arrays):
            raise SpaceliteError(
                f"{path} is damaged (its tensors do not fit a {self.record.system} head with "
                f"{len(self.record.label_names)} labels): train the head again"
            )
        return arrays

    @property
    def width(self) -> int:
        """d, the width of what the head reads: of hidden states, or the number of n-grams."""
        return _width(self.record, self.parameters)

    def _fits(self, arrays: Mapping[str, Array]) -> bool:
        """Whether parameters have the shapes that they should have, given their own width."""
        kind, classes = heads.kind(self.head.kind), len(self.record.label_names)
        wanted = kind.shapes(self.head, classes, _width(self.record, arrays))
        own = {name: value.shape for name, value in arrays.items()}
        if {name: len(shape) for name, shape in own.items()} != {
            name: len(shape) for name, shape in wanted.items()
        }:
            return False
        pairs = [pair for name in own for pair in zip(wanted[name], own[name], strict=True)]
        known: dict[int, int] = {}  # lengths that only the parameters tell
        return all(
            length == (needed if needed >= 0 else known.setdefault(needed, length))
            for needed, length in pairs
        )

    def history(self) -> list[dict[str, Any]]:
        """The metrics after every epoch; empty, with a log warning, if the file is damaged."""
        path = self.folder / HISTORY
        try:
            history: list[dict[str, Any]] = read_json(path)
            read(list[EpochRecord], history, "it")
            return history
        except FileNotFoundError:
            log.warning("%s is missing: train again", path)
        except UNREADABLE as error:
            log.warning("%s is damaged (%s): train again", path, one_line(error, 80))
        return []

    def predictions(self, transfer: TransferRecord | None = None) -> Predictions | None:
        """The head's predictions on the split that reports show.

        Args:
            transfer: An evaluation on another data set; None for the run's own data set.

        Returns:
            The predictions; None if there is no file, or, with a warning in the log, if it is
                damaged.
        """
        path, record = self.folder / PREDICTIONS, self.record
        split, metrics = record.split, record.metrics
        if transfer is not None:
            path = self.folder / TRANSFERS / f"{transfer.cache}.npz"
            split, metrics = transfer.split, transfer.metrics
        try:
            accuracy = metrics[split]["accuracy"]
            limits = record.decision_thresholds
            return predictions.load(path, split, record.task, accuracy or 0.0, limits)
        except SpaceliteError as error:
            log.warning("%s: %s again", error, "train" if transfer is None else "run its eval")
            return None

    def transfers(self) -> list[TransferRecord]:
        """The run's evaluations on other data sets, sorted by the names of their caches."""
        found = []
        for path in sorted((self.folder / TRANSFERS).glob("[!.]*.json")):
            try:
                record = TransferRecord.from_json(read_json(path))
                if record.cache != path.stem:
                    raise ValueError(f"its cache is {record.cache!r}")
                found.append(record)
            except UNREADABLE as error:
                log.warning("%s is damaged (%s): run its eval again", path, one_line(error, 80))
        return found

    def save_transfer(self, record: TransferRecord, splits: dict[str, Predictions]) -> None:
        """Save an evaluation on another data set with the run; an earlier one is replaced.

        Raises:
            SpaceliteError: The files cannot be written.
        """
        path = self.folder / TRANSFERS / f"{record.cache}.json"
        files.make_folder(path.parent, OTHERWISE)
        try:
            with files.lock(self.folder):
                predictions.save(path.with_suffix(".npz"), splits)
                files.write_json(path, asdict(record))
        except OSError as error:
            raise SpaceliteError(f"{path} cannot be written: {error.strerror or error}") from error


def _width(record: RunRecord, arrays: Mapping[str, Array]) -> int:
    """The hidden width: the last dimension of a head's first parameter."""
    kind = heads.kind(record.head.kind)
    first = next(iter(kind.shapes(record.head, len(record.label_names), 1)))
    return int(arrays[first].shape[-1]) if first in arrays and arrays[first].ndim else 0


def runs_folder(cache_dir: Path) -> Path:
    """The folder of runs inside `cache_dir`."""
    return cache_dir / "runs"


def prepare(cache_dir: Path) -> Path:
    """Return the folder of runs, created if missing. Raises SpaceliteError if it cannot be
    written."""
    return files.make_folder(runs_folder(cache_dir), OTHERWISE)


def save(
    cache_dir: Path,
    cache: Cache,
    head: TrainedHead,
    training: TrainingConfig,
    name: str | None = None,
    chosen: Mapping[str, float] | None = None,
    search: SearchRecord | None = None,
) -> Run:
    """Write a trained head to `<cache_dir>/runs/<id>/`, whole or not at all; an earlier run of
    the same id is replaced.

    Args:
        cache_dir: Folder of caches and runs.
        cache: The cache that the head was trained on.
        head: The trained head.
        training: Training settings, shared by all heads of the pass.
        name: A name of the run's own. Default: that of the earlier run of the same id, if any.
        chosen: The values that the size of the training set chose, by setting.
        search: The search that chose the head's settings.

    Returns:
        The saved run.

    Raises:
        SpaceliteError: The run cannot be written.
    """
    from safetensors.numpy import save

    own: FitConfig = training if head.config.is_iterative else training.for_fitting()
    task = task_of(cache.splits["train"].labels)
    run = run_id(cache.spec, head.config, own)
    folder = files.absolute(runs_folder(cache_dir) / run)
    parameters = {key: value.numpy() for key, value in head.parameters.items()}
    values = {**head.config.settings(), **own.settings()}
    by_size = {key: AUTO for key, value in (chosen or {}).items() if values.get(key) == value}
    record = RunRecord(
        id=run,
        name=name or saved_name(folder),
        head=head.config,
        training=own,
        chosen=by_size,
        cache=cache.name,
        cache_key=cache.spec.cache_key(),
        cache_files=_cache_files(cache.path, cache_dir, folder),
        spec=cache.spec,
        label_names=tuple(cache.label_names),
        task=task,
        examples={split: len(stored) for split, stored in cache.splits.items()},
        average=task.average(len(cache.label_names)),
        train_params=sum(
            value.size
            for key, value in parameters.items()
            if key not in heads.kind(head.config.kind).TABLES
        ),
        metrics=head.metrics,
        cross_validated=head.cross_validated,
        search=search,
        thresholds=head.thresholds,
        best_epoch=head.best_epoch,
        seconds=head.seconds,
        heads_in_pass=head.heads_in_pass,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        versions={package: _version(package) for package in PACKAGES},
    )
    partial, former = (folder.with_name(f".{run}.{state}") for state in ("partial", "former"))
    prepare(cache_dir)
    try:
        with files.lock(folder.parent):
            _tidy(folder, partial, former)  # an earlier process may have been killed here
            try:
                partial.mkdir()
                content = save(parameters)
                # Not by save_file of safetensors: only the file's owner could read it.
                files.write_bytes(partial / PARAMETERS, content)
                files.write_json(partial / HISTORY, head.history)
                predictions.save(partial / PREDICTIONS, predictions_of(cache, head.logits))
                checksums = {PARAMETERS: files.checksum(content)}
                record = replace(record, checksums=checksums)
                files.write_json(partial / RECORD, record.as_json())
                if folder.exists():
                    folder.rename(former)
                partial.rename(folder)
            finally:  # still under the lock: the next process may use the same names
                _tidy(folder, partial, former)
    except SpaceliteError:
        raise
    except OSError as error:
        raise SpaceliteError(
            f"run {run} cannot be saved in {folder.parent}: {error.strerror or one_line(error, 80)}"
        ) from error
    return Run(folder, record)


def predictions_of(cache: Cache, logits: Mapping[str, Any]) -> dict[str, Predictions]:
    """Combine logits (N, C), by split, with the labels and sources of the cache's examples."""
    from spacelite.cache import texts

    return {
        name: Predictions(
            np.arange(len(values)),
            cache.splits[name].labels,
            np.asarray(values),
            task_of(cache.splits[name].labels),
            *texts.files_and_rows(cache, name),
        )
        for name, values in logits.items()
    }


def saved_name(folder: Path) -> str | None:
    """The name that a run was given, damaged or not; None if it has none."""
    try:
        text = (folder / RECORD).read_text(encoding="utf-8")
        name = json.loads(text).get("name") if '"name"' in text else None
    except (*UNREADABLE, AttributeError):
        return None
    return name if isinstance(name, str) else None


def _cache_files(path: Path, cache_dir: Path, folder: Path) -> tuple[str, ...]:
    """Where a cache file outside `cache_dir` is: seen from the run's folder, and in full."""
    path = files.absolute(path)
    if path == files.absolute(embeddings_folder(cache_dir) / path.name):
        return ()
    return os.path.relpath(path, folder), str(path)


def _tidy(folder: Path, partial: Path, former: Path) -> None:
    """Restore the former run if no new one has taken its name; delete what else is left over."""
    if former.exists() and not folder.exists():
        former.rename(folder)
    for left in (partial, former):
        shutil.rmtree(left, ignore_errors=True)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def load_all(cache_dir: Path) -> list[Run]:
    """Load every run of `cache_dir`, oldest first. Damaged ones are logged and left out, and so are
    copies of the folder of a run: they would count as more seeds."""
    found: dict[str, Run] = {}
    folders = [folder for folder in runs_folder(cache_dir).glob("[!.]*") if folder.is_dir()]
    for folder in sorted(folders):
        try:
            run = load(folder)
        except SpaceliteError as error:
            log.warning("%s", error)
            continue
        own = run.record.identity
        copies = [run] if own not in found else [found[own], run]
        copies.sort(key=lambda each: (each.id != own, each.id))
        found[own] = copies[0]
        for copy in copies[1:]:
            log.warning("run %s is a copy of %s and is left out", copy.folder, copies[0].id)
    return sorted(found.values(), key=lambda run: (run.record.created, run.id))


def load(folder: Path) -> Run:
    """Load the run in `folder`.

    Raises:
        SpaceliteError: The run is missing or damaged, or was written by a later version. The
            message names the folder.
    """
    folder = files.absolute(folder)
    try:
        return Run(folder, RunRecord.from_json(read_json(folder / RECORD), folder.name))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SpaceliteError(
            f"run {folder} has no {RECORD}: it is not a run, or a part of one"
        ) from error
    except UNREADABLE as error:
        raise SpaceliteError(
            f"run {folder} is damaged ({one_line(error, 80)}): remove the folder and train again"
        ) from error
    except SpaceliteError as error:
        raise SpaceliteError(f"run {folder}: {error}") from error
