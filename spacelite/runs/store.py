"""Trained heads on disk: save, load, find, name, list, remove; docs/formats.md has the files."""

from __future__ import annotations

import difflib
import importlib.metadata
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from spacelite import files, heads
from spacelite.cache.reduction import Reduction
from spacelite.cache.spec import CacheSpec, embeddings_folder
from spacelite.errors import SpaceliteError, one_line
from spacelite.heads import HeadConfig
from spacelite.metrics import predictions
from spacelite.metrics.predictions import Predictions
from spacelite.runs.record import (
    UNREADABLE,
    EpochRecord,
    RunRecord,
    SearchRecord,
    TransferRecord,
    read,
    run_id,
)
from spacelite.training.config import FitConfig, TrainingConfig
from spacelite.training.plan import AUTO
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.cache.store import Cache
    from spacelite.training.loop import TrainedHead

log = logging.getLogger(__name__)

RECORD, HISTORY, PARAMETERS = "run.json", "history.json", "head.safetensors"
PREDICTIONS = "predictions.npz"
EXPORTED, CLASSIFIER = "verified.json", "classifier.json"  # in exports, which may be no run
REDUCTION = "reduction."  # begins the names of what hidden states are reduced by, in PARAMETERS
TRANSFERS = "transfer"  # subfolder of a run: evaluations on other data sets
RUN_FILES = (RECORD, HISTORY, PARAMETERS, PREDICTIONS, TRANSFERS)
PACKAGES = ("spacelite", "torch", "transformers", "datasets", "h5py", "numpy", "safetensors")
OTHERWISE = "choose another cache_dir"
LONGEST = 60  # characters of a name
SAVING = timedelta(seconds=1)  # between two heads of a training
LISTED = 10  # most runs that a message lists
TOLERANCE = 1e-4  # of metrics that are computed again: sums differ in their rounding

T = TypeVar("T")


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
        run.__dict__["_trained"] = dict(parameters), None  # in place of the cached property
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

    def require(self) -> None:
        """Raise SpaceliteError if the run was removed."""
        if not self.folder.is_dir():
            raise SpaceliteError(f"run {self.id} was removed ({self.folder}): train it again")

    @property
    def parameters(self) -> dict[str, Array]:
        """The head's parameters by name."""
        return self._trained[0]

    @property
    def reduction(self) -> Reduction | None:
        """What hidden states were reduced by before the head read them; None if they were whole, or
        if it reads token ids alone."""
        return self._trained[1]

    @cached_property
    def _trained(self) -> tuple[dict[str, Array], Reduction | None]:
        """What the file of parameters holds."""
        from safetensors.numpy import load

        self.require()
        path, problem = self.folder / PARAMETERS, ""
        try:
            content = files.read_bytes(path, self.record.checksums.get(PARAMETERS))
            arrays: dict[str, Array] = load(content)
            reduction = None
            if self.record.reads_reduced:
                names = [name for name in arrays if name.startswith(REDUCTION)]
                reduction = Reduction.of(
                    {name.removeprefix(REDUCTION): arrays.pop(name) for name in names}
                )
        except FileNotFoundError as error:
            raise SpaceliteError(f"{path} is missing: train the head again") from error
        except Exception as error:  # safetensors' own errors, and the system's
            raise SpaceliteError(
                f"{path} is damaged ({one_line(error, 80)}): train the head again"
            ) from error
        if not all(np.isfinite(value).all() for value in arrays.values()):
            problem = "a number in it is not finite"
        elif not self._fits(arrays):
            labels = len(self.record.label_names)
            problem = f"its tensors do not fit a {self.record.system} head with {labels} labels"
        if problem:
            raise SpaceliteError(f"{path} is damaged ({problem}): train the head again")
        return arrays, reduction

    @property
    def width(self) -> int:
        """The width of what the head reads: d, or K of reduced ones, of hidden states; or the
        number of n-grams."""
        return _width(self.record, self.parameters)

    def _fits(self, arrays: Mapping[str, Array]) -> bool:
        """Whether parameters have the shapes that they should have, given their own width."""
        kind, classes = heads.kind(self.head.kind), len(self.record.label_names)
        wanted = kind.shapes(self.head, classes, _width(self.record, arrays))
        known: dict[int, int] = {}  # lengths that only the parameters tell
        return wanted.keys() == arrays.keys() and all(
            len(shape) == arrays[name].ndim
            and all(
                length == (needed if needed >= 0 else known.setdefault(needed, length))
                for needed, length in zip(shape, arrays[name].shape, strict=True)
            )
            for name, shape in wanted.items()
        )

    def history(self) -> list[dict[str, Any]]:
        """The metrics after every epoch; empty, with a log warning, if the file is damaged."""
        return _or_logged(self._history) or []

    def _history(self) -> list[dict[str, Any]]:
        path = self.folder / HISTORY
        try:
            history: list[dict[str, Any]]
            history = files.read_json(path, self.record.checksums.get(HISTORY))
            read(list[EpochRecord], history, "it")
            return history
        except FileNotFoundError as error:
            raise SpaceliteError(f"{path} is missing: train again") from error
        except UNREADABLE as error:
            raise SpaceliteError(
                f"{path} is damaged ({one_line(error, 80)}): train again"
            ) from error

    def predictions(
        self, transfer: TransferRecord | None = None, split: str | None = None
    ) -> Predictions | None:
        """The head's predictions on a split, by default the one that reports show, of its own data
        set, or of an evaluation on another one; None if there is no file, or, with a warning in the
        log, if it is damaged."""
        return _or_logged(self._predictions, transfer, split)

    def _predictions(
        self, transfer: TransferRecord | None, split: str | None
    ) -> Predictions | None:
        name, record = PREDICTIONS, self.record
        of: RunRecord | TransferRecord = transfer or record
        if transfer is not None:
            name = f"{TRANSFERS}/{transfer.cache}.npz"
        split = split or of.split
        try:
            return predictions.load(
                self.folder / name,
                split,
                record.task,
                of.metrics[split].get(record.task.headline) or 0.0,
                record.decision_thresholds,
                of.checksums.get(name),
            )
        except SpaceliteError as error:
            remedy = "train" if transfer is None else "run its eval"
            raise SpaceliteError(f"{error}: {remedy} again") from error

    def transfers(self) -> list[TransferRecord]:
        """The run's evaluations on other data sets, sorted by the names of their caches; damaged
        ones are logged and left out."""
        records = (_or_logged(_transfer, path) for path in self._transfer_files)
        return [record for record in records if record is not None]

    @property
    def _transfer_files(self) -> list[Path]:
        return sorted((self.folder / TRANSFERS).glob("[!.]*.json"))

    def save_transfer(
        self, record: TransferRecord, splits: dict[str, Predictions]
    ) -> TransferRecord:
        """Save an evaluation on another data set with the run, and return its record with the
        checksum of its predictions; an earlier one is replaced, but for the comparison with marked
        words of the same texts and labels if this one has none."""
        path = self.folder / TRANSFERS / f"{record.cache}.json"
        npz = path.with_suffix(".npz")
        try:
            with files.lock(self.folder):
                self.require()
                files.make_folder(path.parent, OTHERWISE)
                earlier = _or_logged(_transfer, path) if path.is_file() else None
                if record.rationales is None and earlier is not None:
                    same = (earlier.cache_key, earlier.labels) == (record.cache_key, record.labels)
                    record = replace(record, rationales=earlier.rationales if same else None)
                checksums = {f"{TRANSFERS}/{npz.name}": predictions.save(npz, splits)}
                record = replace(record, checksums=checksums)
                files.write_json(path, asdict(record))
        except OSError as error:
            raise SpaceliteError(f"{path} cannot be written: {error.strerror or error}") from error
        return record

    @property
    def sealed(self) -> bool:
        """Whether all files have checksums, as older versions did not write them."""
        return HISTORY in self.record.checksums

    def problems(self) -> list[str]:
        """What is damaged in the run's files but `run.json`, a line each that says what to do. What
        has a checksum is compared with it; metrics are computed from the predictions again."""
        found: list[str] = []

        def check(read: Callable[..., T], *arguments: Any) -> T | None:
            try:
                return read(*arguments)
            except SpaceliteError as error:
                found.append(str(error))
                return None

        check(getattr, self, "parameters")
        check(self._history)
        transfers = [check(_transfer, path) for path in self._transfer_files]
        for transfer in (None, *filter(None, transfers)):
            for split in (transfer or self.record).metrics:
                if split != "train":
                    check(self._check_metrics, transfer, split)
        return list(dict.fromkeys(found))

    def _check_metrics(self, transfer: TransferRecord | None, split: str) -> None:
        """Raise SpaceliteError if predictions are damaged, or their metrics are not the recorded
        ones."""
        from spacelite.training import engine

        of, saved = transfer or self.record, self._predictions(transfer, split)
        if saved is None:
            return
        scores = engine.metrics_of(saved)
        for name, recorded in of.metrics[split].items():
            actual = scores.get(name)
            if name == "loss" or recorded is None or actual is None:
                continue
            if not math.isclose(actual, recorded, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
                file = RECORD if transfer is None else f"{TRANSFERS}/{transfer.cache}.json"
                raise SpaceliteError(
                    f"{self.folder / file} is damaged (its {name} on {split} is {recorded:.4f}, "
                    f"that of its predictions {actual:.4f}): "
                    + ("train again" if transfer is None else "run its eval again")
                )


def _or_logged(read: Callable[..., T], *arguments: Any) -> T | None:
    """What `read` returns; None, with the error as a warning in the log, if it fails."""
    try:
        return read(*arguments)
    except SpaceliteError as error:
        log.warning("%s", error)
        return None


def _transfer(path: Path) -> TransferRecord:
    """Read the file of an evaluation. Raises SpaceliteError if it is damaged."""
    try:
        content = files.read_json(path)
        record = TransferRecord.from_json(content)
        _require_seal(content, record.checksums)
        if record.cache != path.stem:
            raise ValueError(f"its cache is {record.cache!r}")
        return record
    except UNREADABLE as error:
        raise SpaceliteError(
            f"{path} is damaged ({one_line(error, 80)}): run its eval again"
        ) from error


def _require_seal(content: Mapping[str, Any], checksums: Mapping[str, str]) -> None:
    """Raise ValueError if a record lacks the checksum that it was written with."""
    if files.CHECKSUM not in content and checksums.keys() - {PARAMETERS}:
        raise ValueError("its checksum is missing")


def _width(record: RunRecord, arrays: Mapping[str, Array]) -> int:
    """The hidden width: the last dimension of a head's first parameter."""
    kind = heads.kind(record.head.kind)
    first = next(iter(kind.shapes(record.head, len(record.label_names), 1)))
    return int(arrays[first].shape[-1]) if first in arrays and arrays[first].ndim else 0


def runs_folder(cache_dir: Path) -> Path:
    """The folder of runs inside `cache_dir`."""
    return cache_dir / "runs"


def prepare(cache_dir: Path) -> Path:
    """Return the folder of runs, created if missing."""
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
    """Write a trained head to `<cache_dir>/runs/<id>/`, whole or not at all; an earlier run of the
    same id is replaced, and keeps its name unless there is a new one. Another run that has the new
    name loses it. `chosen` are the values that the size of the training set chose, by setting."""
    from safetensors.numpy import save

    from spacelite.cache import texts

    trained: FitConfig = training if head.config.is_iterative else training.for_fitting()
    task = cache.task
    run = run_id(cache.spec, head.config, trained)
    folder = files.absolute(runs_folder(cache_dir) / run)
    parameters = {key: value.numpy() for key, value in head.parameters.items()}
    values = {**head.config.settings(), **trained.settings()}
    by_size = {key: AUTO for key, value in (chosen or {}).items() if values.get(key) == value}
    record = RunRecord(
        id=run,
        name=name or saved_name(folder),
        head=head.config,
        training=trained,
        chosen=by_size,
        cache=cache.name,
        cache_key=cache.spec.cache_key(),
        cache_files=_cache_files(cache.path, cache_dir, folder),
        text_column=texts.recorded(cache.path, "text_column"),
        backbone_folder=texts.recorded(cache.path, "backbone"),
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
        versions={package: version(package) for package in PACKAGES},
    )
    if record.reads_reduced and cache.reduction is not None:
        arrays = cache.reduction.arrays.items()
        parameters |= {f"{REDUCTION}{name}": array for name, array in arrays}
    content = save(parameters)  # not save_file: only the file's owner could read it
    partial, former = (folder.with_name(f".{run}.{state}") for state in ("partial", "former"))
    prepare(cache_dir)
    try:
        with files.lock(folder.parent):
            _tidy(folder, partial, former)  # an earlier process may have been killed here
            try:
                partial.mkdir()
                checksums = {
                    PARAMETERS: files.write_bytes(partial / PARAMETERS, content),
                    HISTORY: files.write_json(partial / HISTORY, head.history),
                    PREDICTIONS: predictions.save(
                        partial / PREDICTIONS, predictions_of(cache, head.logits)
                    ),
                }
                record = replace(record, checksums=checksums)
                files.write_json(partial / RECORD, record.as_json())
                _keep_transfers(folder, partial, record)
                if folder.exists():
                    if name is None and record.name is not None:
                        _warn_of_name(folder, record.name)
                    folder.rename(former)
                partial.rename(folder)
            finally:  # still under the lock: the next process may use the same names
                _tidy(folder, partial, former)
            named = {} if name is None else names(folder.parent)
            for other in [other for other in named if named[other] == name and other != run]:
                _write_name(folder.parent / other, None)
                log.info("%s is run %s now; the earlier one stays as %s", name, run, other)
    except OSError as error:
        raise SpaceliteError(
            f"run {run} cannot be saved in {folder.parent}: {error.strerror or one_line(error, 80)}"
        ) from error
    return Run(folder, record)


def _warn_of_name(former: Path, name: str) -> None:
    """Log a warning if the name that a new run takes over from a former one may be damaged."""
    try:
        load(former)
    except SpaceliteError:
        log.warning("run %s was damaged; the new one keeps its name, %s", former.name, name)


def _keep_transfers(former: Path, folder: Path, record: RunRecord) -> None:
    """Copy the evaluations of a former run of the same id, if they are of the same head; what is
    dropped is logged."""
    evaluations = len([*(former / TRANSFERS).glob("[!.]*.json")])
    if not evaluations:
        return
    try:
        same = _same_head(load(former).record, record)
    except SpaceliteError:
        same = False
    if same:
        shutil.copytree(former / TRANSFERS, folder / TRANSFERS)
        return
    of = "the evaluation" if evaluations == 1 else f"the {evaluations} evaluations"
    log.warning(
        "%s of the earlier run %s on other data %s dropped, since its head is another one now: run "
        "eval again",
        of, record.id, "is" if evaluations == 1 else "are",
    )  # fmt: skip


def adopt(run: Run, cache_dir: Path, name: str | None = None) -> tuple[Run, bool]:
    """Move a run that was checked to `<cache_dir>/runs/<id>/`, under `name` or, if no other run has
    it, the name that it was given. Returns it, and whether it was there already. Raises
    SpaceliteError if a run of the same id with another head is there, or another run has `name`."""
    identity = run.record.identity
    target = files.absolute(prepare(cache_dir) / identity)
    if name is not None:
        check_name(name)
    with files.writing(target), files.lock(target.parent):
        named = names(target.parent)
        if name is not None:
            check_free(named, name, identity)
        if target.exists():
            there = load(target)
            if not _same_head(there.record, run.record):
                raise SpaceliteError(
                    f"there is a run {identity} with another head in {target.parent}: remove it "
                    "first, or choose another cache_dir",
                    ["cache_dir"],
                )
            if name is not None:
                _write_name(target, name)
            return load(target), True
        others = {given for of_run, given in named.items() if of_run != identity}
        _write_name(run.folder, name or _usable(run.record.name, others))
        run.folder.rename(target)
    return load(target), False


def _same_head(one: RunRecord, other: RunRecord) -> bool:
    """Whether two records of runs are of the same parameters, labels and thresholds."""
    same = one.checksums.get(PARAMETERS) == other.checksums.get(PARAMETERS)
    return same and (one.label_names, one.thresholds) == (other.label_names, other.thresholds)


def _usable(name: str | None, taken: set[str]) -> str | None:
    """A name that a run was given elsewhere, if it is one here and no other run has it."""
    if name is None or name in taken:
        return None
    try:
        return check_name(name)
    except SpaceliteError:
        return None


def predictions_of(cache: Cache, logits: Mapping[str, Any]) -> dict[str, Predictions]:
    """Combine logits (N, C), by split, with the labels and sources of the cache's examples."""
    from spacelite.cache import texts

    return {
        name: Predictions(
            np.arange(len(values)),
            cache.splits[name].labels,
            np.asarray(values),
            cache.task,
            *texts.files_and_rows(cache, name),
        )
        for name, values in logits.items()
    }


def saved_name(folder: Path) -> str | None:
    """The name that a run was given, damaged or not; None if it has none."""
    try:
        text = files.read_bytes(folder / RECORD, most=files.LARGEST_JSON).decode()
        name = json.loads(text).get("name") if '"name"' in text else None
    except (*UNREADABLE, AttributeError, RecursionError):
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
        with suppress(OSError):
            files.delete(left)


@lru_cache
def version(package: str) -> str | None:
    """The version of an installed package; None if it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def folders(cache_dir: Path) -> list[Path]:
    """The folders of all runs of `cache_dir`, damaged or not, by name."""
    return sorted(folder for folder in runs_folder(cache_dir).glob("[!.]*") if folder.is_dir())


def load_all(cache_dir: Path) -> list[Run]:
    """Load every run of `cache_dir`, oldest first. Damaged ones are logged and left out, and so are
    copies of the folder of a run: they would count as more seeds."""
    runs: dict[str, Run] = {}
    for folder in folders(cache_dir):
        if (run := _or_logged(load, folder)) is None:
            continue
        identity = run.record.identity
        copies = [run] if identity not in runs else [runs[identity], run]
        copies.sort(key=lambda run: (run.id != identity, run.id))
        runs[identity] = copies[0]
        for copy in copies[1:]:
            log.warning("run %s is a copy of %s and is left out", copy.folder, copies[0].id)
    return sorted(runs.values(), key=lambda run: (run.record.created, run.id))


def load(folder: Path) -> Run:
    """Load the run in `folder`. Raises SpaceliteError, which names the folder, if it is damaged."""
    folder = files.absolute(folder)
    try:
        content = files.read_json(folder / RECORD)
        record = RunRecord.from_json(content, folder.name)
        _require_seal(content, record.checksums)
        return Run(folder, record)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SpaceliteError(
            f"run {folder} has no {RECORD}: it is not a run, or only part of one"
        ) from error
    except UNREADABLE as error:
        raise SpaceliteError(
            f"run {folder} is damaged ({one_line(error, 80)}): remove the folder and train again"
        ) from error
    except SpaceliteError as error:
        raise SpaceliteError(f"run {folder}: {error}") from error


def check_name(name: str) -> str:
    """The name, if it can be a run's: neither an id nor a path, and of plain characters."""
    about = f"a run cannot be named {name!r}: "
    if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(".") or len(name) > LONGEST:
        raise SpaceliteError(
            f"{about}use letters, digits, dots, underscores and dashes, {LONGEST} at most, with a "
            "letter or digit first"
        )
    if "--" in name or re.fullmatch(r"[0-9a-f]{8}", name):
        raise SpaceliteError(
            f"{about}it looks like the id of a run; use no double dash, and not eight of the "
            "characters 0-9 and a-f alone"
        )
    return name


def names(runs: Path) -> dict[str, str]:
    """Id -> name of the runs in a folder that have a name of their own."""
    folders = sorted(runs.glob("[!.]*"))
    return {folder.name: name for folder in folders if (name := saved_name(folder))}


def check_free(
    named: Mapping[str, str], name: str, run: str, way_out: str = "clear that one first"
) -> None:
    """Raise SpaceliteError if a run other than the one of id `run` has the name; `named` has the
    names of runs, by id."""
    for other, taken in named.items():
        if taken == name and other != run:
            raise SpaceliteError(
                f"run {other} is named {name} already: choose another name, or {way_out}",
                ["replace"],
            )


def names_for(
    cache_dir: Path,
    spec: CacheSpec,
    configs: Sequence[HeadConfig],
    training: TrainingConfig,
    name: str | None,
    *,
    replace: bool = False,
) -> dict[HeadConfig, str | None]:
    """The name of each head that is going to be trained: `name` if it is a single one, otherwise
    `name-1`, `name-2`, ... in the order of the heads. No other run may have it, unless it is to be
    taken from that (`replace`)."""
    if name is None:
        return dict.fromkeys(configs)
    check_name(name)
    named = names(runs_folder(cache_dir))
    if replace and len(configs) > 1 and name in named.values():
        raise SpaceliteError(
            f"replace=True gives one run the name {name}, and {len(configs)} heads are going to be "
            f"{name}-1 to {name}-{len(configs)}: train a single one, or choose another name",
            ["replace"],
        )
    of_heads: dict[HeadConfig, str | None] = {}
    for number, config in enumerate(configs, 1):
        of_heads[config] = numbered = check_name(f"{name}-{number}" if len(configs) > 1 else name)
        run = run_id(spec, config, training if config.is_iterative else training.for_fitting())
        if not replace:
            check_free(named, numbered, run, "give replace=True to take it from that run")
    return of_heads


def rename(run: Run, name: str | None) -> Run:
    """The run with another name; None takes its name away."""
    if name is not None:
        check_name(name)
    run.require()
    with files.lock(run.folder.parent):
        if name is not None:
            check_free(names(run.folder.parent), name, run.id)
        _write_name(run.folder, name)
    return replace(run, record=replace(run.record, name=name))


def _write_name(folder: Path, name: str | None) -> None:
    try:
        content = files.read_json(folder / RECORD)
        # A run of an older version stays without a checksum: it might be damaged already.
        sealed = files.CHECKSUM in content
        files.write_json(folder / RECORD, {**content, "name": name}, sealed=sealed)
    except UNREADABLE as error:
        raise SpaceliteError(f"{folder / RECORD} cannot be written: {error}") from error


def matching(ids: Sequence[str], named: Mapping[str, str], name: str) -> list[str]:
    """The ids that a name can mean: that id, else those of runs with this name, else those that it
    is a part of. `named` has the names of runs, by id."""
    if name in ids:
        return [name]
    return [run for run in ids if named.get(run) == name] or [run for run in ids if name in run]


def folder_of(cache_dir: Path, name: str) -> Path:
    """The folder of a run, damaged or not, from its id, its name, a part of its id that no other id
    has, or its folder. An id or a name comes before a folder of the same name."""
    if not name:
        raise SpaceliteError("a run's name is empty: give its id, its name or its folder")
    runs = runs_folder(cache_dir)
    ids = [path.name for path in folders(cache_dir)]
    named = names(runs)
    fitting = matching(ids, named, name)
    exact = name in ids or name in named.values()
    path = Path(name)
    if not exact and (path / RECORD).is_file():
        return path
    if not exact and path.is_dir():
        _require_no_export(path)
    if not exact and ("/" in name or path.is_absolute()):
        if path.is_dir():
            raise SpaceliteError(
                f"folder {path} has no {RECORD}: it is not a run, or only part of one"
            )
        raise SpaceliteError(f"there is no folder {path}: give a run's id, its name or its folder")
    if len(fitting) == 1:
        return runs / fitting[0]
    if fitting:
        raise SpaceliteError(
            f"{len(fitting)} runs have {name!r} in their id ({_listed(fitting, named)}): give a "
            "longer part of it"
        )
    if not ids:
        raise no_run(cache_dir)
    if unreadable := [run for run in ids if not _is_readable(runs / run)]:
        raise SpaceliteError(
            f"there is no run {name!r} in {runs}, unless it is the name of one that cannot be read "
            f"({_listed(unreadable, {})}): spacelite runs verify says why"
        )
    known = [*named.values(), *(run.rpartition("--")[2] for run in ids), *ids]
    if close := difflib.get_close_matches(name, known, n=3):
        raise SpaceliteError(
            f"there is no run {name!r} in {runs}: did you mean {' or '.join(close)}? (spacelite "
            "runs list shows all)"
        )
    raise SpaceliteError(f"there is no run {name!r} in {runs}, which holds {_listed(ids, named)}")


def _is_readable(folder: Path) -> bool:
    try:
        load(folder)
    except SpaceliteError:
        return False
    return True


def _require_no_export(folder: Path) -> None:
    """Raise SpaceliteError, with what can be done, if a folder is an export in a form that is no
    run."""
    try:
        content = files.read_json(folder / EXPORTED)
        form, run = str(content["form"]), str(content["run"])
    except (*UNREADABLE, LookupError, TypeError):
        if not (folder / CLASSIFIER).is_file():
            return
        form, run = "onnx", ""
    ways = f"load it with the library {form}"
    if form == "onnx":
        ways = (
            f"classify with python {folder / 'classify.py'}, or answer requests with spacelite "
            f"serve {folder}"
        )
    which = f" ({run})" if run else ""
    raise SpaceliteError(
        f"{folder} is an export of the form {form}, and no run: {ways}; for everything else name "
        f"the run that it was made of{which}"
    )


def no_run(cache_dir: Path) -> SpaceliteError:
    """The error about a folder without runs."""
    return SpaceliteError(
        f"{files.absolute(cache_dir)} holds no run: train one first (or choose another cache_dir)",
        ["cache_dir"],
    )


def find(cache_dir: Path, name: str) -> Run:
    """Load the run that `name` means, as `folder_of` reads it."""
    return load(folder_of(cache_dir, name))


def remove(folder: Path) -> None:
    """Delete a run, damaged or not; refused where other files would be deleted too, and for a link
    to a run, which stays as it is."""
    if folder.is_symlink():
        raise SpaceliteError(
            f"{folder} is a link to {folder.resolve()}: delete the link itself, or give that folder"
        )
    others = sorted(
        path.name for path in folder.iterdir() if path.name not in RUN_FILES and path.name[0] != "."
    )
    if others and folder.parent.name != runs_folder(Path()).name:
        raise SpaceliteError(
            f"{folder} also holds {', '.join(others[:LISTED])}: move this away first, or delete "
            "the folder yourself"
        )
    removed = folder.with_name(f".{folder.name}.removed")
    try:
        with files.lock(folder.parent):
            files.delete(removed)
            folder.rename(removed)  # a run is there as a whole or not at all
            files.delete(removed)
            files.lock_path(folder).unlink(missing_ok=True)
    except OSError as error:
        left = f"; what is left of it is in {removed}: delete that" if removed.exists() else ""
        raise SpaceliteError(
            f"{folder} cannot be removed: {error.strerror or error}{left}"
        ) from error


def _listed(ids: Sequence[str], named: dict[str, str]) -> str:
    shown = [f"{run} named {named[run]}" if run in named else run for run in ids[:LISTED]]
    return ", ".join(shown) + (f" and {len(ids) - LISTED} more" if len(ids) > LISTED else "")


def find_cache(run: Run, cache_dir: Path) -> Path:
    """The file of the cache that a run was trained on, which is looked for beside the run, in
    `cache_dir`, and where it was when the run was trained."""
    from spacelite.cache.store import Cache, is_cache

    record, name = run.record, f"{run.record.cache}.h5"
    here = embeddings_folder(run.folder.parent.parent) / name
    places = [here, embeddings_folder(cache_dir) / name]
    places += [run.folder / file for file in record.cache_files]
    problem = SpaceliteError(
        f"the cache of run {run.id}, {record.cache}, is neither beside the run nor in {cache_dir}: "
        "embed its data set again, or name the folder that holds it with cache_dir",
        ["cache_dir"],
    )
    for path in dict.fromkeys(files.absolute(place) for place in places):
        try:
            if not is_cache(path):
                continue
            with Cache(path) as cache:
                if cache.key == record.cache_key:
                    return path
            problem = SpaceliteError(
                f"cache {path} is not the one that run {run.id} was trained on: embed the "
                "run's data set again"
            )
        except SpaceliteError as error:
            problem = error
        except OSError as error:  # of a folder that may not be searched
            problem = SpaceliteError(f"cache {path} cannot be read: {error.strerror}")
    raise problem


def newest_first(runs: Sequence[Run]) -> list[Run]:
    """Runs, newest first; those of one training, which are saved one after another, by name, kind
    of head, settings and seed."""

    def order(run: Run) -> tuple[Any, ...]:
        settings = run.record.settings
        values = [settings.get(name) or 0 for name in ("latent", "inter", "intra", "seed")]
        # Of grid-2 and grid-10 the first comes first.
        parts = re.split(r"(\d+)", run.name or "")
        natural = [int(part) if at % 2 else part for at, part in enumerate(parts)]
        kind = list(heads.KINDS).index(run.head.kind)
        return (run.name is None, natural, kind, run.record.system, *values, run.id)

    trainings: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: (run.record.cache, run.record.created)):
        if trainings and _one_training(trainings[-1][-1], run):
            trainings[-1].append(run)
        else:
            trainings.append([run])
    trainings.sort(key=lambda members: members[-1].record.created, reverse=True)
    return [run for members in trainings for run in sorted(members, key=order)]


def _one_training(first: Run, then: Run) -> bool:
    """Whether two runs, of which no other was saved in between, are of one training."""
    try:
        one, other = (
            datetime.fromisoformat(run.record.created[:19]).replace(tzinfo=None)
            for run in (first, then)
        )
    except ValueError:
        return first.record.created == then.record.created
    return first.record.cache == then.record.cache and other - one <= SAVING


def rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What a list shows of each run, newest run first, as JSON objects."""
    return [
        {
            "id": run.id,
            "name": run.name,
            "path": str(run.folder),
            "cache": run.record.cache,
            "dataset": run.record.spec.dataset,
            "backbone": run.record.spec.backbone,
            "head": run.head.kind,
            "system": run.record.system,
            "settings": run.record.settings,
            "seed": run.record.seed,
            "epochs": run.record.epochs,
            "metrics": run.record.metrics,
            "created": run.record.created,
            "bytes": run.bytes,
        }
        for run in newest_first(runs)
    ]
