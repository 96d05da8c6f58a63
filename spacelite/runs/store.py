"""One finished head on disk: save, load, list. The run format is described in the README."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spacelite.cache import spec as specs
from spacelite.cache import store
from spacelite.errors import SpaceliteError, one_line
from spacelite.heads.settings import HeadSettings, PassSettings
from spacelite.metrics import predictions as outputs
from spacelite.metrics import scores as metrics
from spacelite.metrics.predictions import Outputs

if TYPE_CHECKING:
    import torch

    from spacelite.training.loop import TrainedHead

log = logging.getLogger(__name__)

FORMAT = 1
# Whose last dimension is the hidden width; of other heads it is the classifier.
FIRST_LAYERS = {"space": "concept_spaces", "mlp": "pre_classifier.weight"}
NEEDED = (
    "head", "system", "settings", "cache", "cache_key", "spec", "label_names", "examples",
    "average", "train_params", "metrics", "seconds", "created",
)  # fmt: skip
OUTPUTS = "predictions.npz"
TRANSFERS = "transfer"  # a folder in the run's: evaluations on other data sets
PACKAGES = ("spacelite", "torch", "transformers", "datasets", "h5py", "numpy", "safetensors")


@dataclass(frozen=True)
class Run:
    """A saved run: its folder, and its `run.json` as it stands."""

    folder: Path
    record: dict[str, Any]

    @property
    def id(self) -> str:
        """The run's name: that of its folder."""
        return self.folder.name

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting of the head and of the pass it was trained in."""
        settings: dict[str, Any] = self.record["settings"]
        return settings

    @property
    def head(self) -> HeadSettings:
        """The head's settings, as it was trained with."""
        names = {field.name for field in fields(HeadSettings)} - {"kind"}
        own = {name: value for name, value in self.settings.items() if name in names}
        return HeadSettings(kind=self.record["head"], **own)

    def parameters(self) -> dict[str, torch.Tensor]:
        """The head's parameters by name. Raises SpaceliteError for a damaged file."""
        import torch

        return {name: torch.from_numpy(value) for name, value in self.arrays().items()}

    def arrays(self) -> dict[str, Any]:
        """The head's parameters as numpy arrays. Raises SpaceliteError for a damaged file, and for
        one of another head."""
        from safetensors.numpy import load_file

        path = self.folder / "head.safetensors"
        try:
            arrays: dict[str, Any] = load_file(path)
        except Exception as error:  # safetensors' own, and the system's
            raise SpaceliteError(
                f"{path} is damaged ({one_line(error, 80)}): train the head again"
            ) from error
        if {name: value.shape for name, value in arrays.items()} != self._shapes(arrays):
            labels = len(self.record["label_names"])
            raise SpaceliteError(
                f"{path} is damaged (it is no {self.record['system']} head of {labels} labels): "
                "train the head again"
            )
        return arrays

    def _shapes(self, arrays: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        """The shapes that the parameters should have, of the hidden width that they do have."""
        classes = len(self.record["label_names"])
        first = FIRST_LAYERS.get(self.record["head"], "classifier.weight")
        width = arrays[first].shape[-1] if first in arrays and arrays[first].ndim else 0
        shapes: dict[str, tuple[int, ...]] = {"classifier.bias": (classes,)}
        inputs = width
        if self.record["head"] == "space":
            latent = self.settings["latent"]
            shapes["concept_spaces"] = (classes, latent, width)
            inputs = classes * latent
        elif self.record["head"] == "mlp":
            shapes |= {"pre_classifier.weight": (width, width), "pre_classifier.bias": (width,)}
        return {**shapes, "classifier.weight": (classes, inputs)}

    def transfers(self) -> list[dict[str, Any]]:
        """The run's evaluations on other caches, by the caches' names."""
        found = []
        for path in sorted((self.folder / TRANSFERS).glob("[!.]*.json")):
            try:
                found.append(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError) as error:
                log.warning("%s is damaged (%s): run its eval again", path, one_line(error, 80))
        return found

    def save_transfer(self, record: dict[str, Any], splits: dict[str, Outputs]) -> None:
        """Keep an evaluation on another cache (its name under "cache") and its outputs by split
        with the run, in the place of a former one. Raises SpaceliteError when it cannot be
        written."""
        path = self.folder / TRANSFERS / f"{record['cache']}.json"
        arrays = path.with_suffix(".npz")
        partials = [path.with_name(f".{file.name}.partial") for file in (path, arrays)]
        store.make_folder(path.parent)
        try:
            with store.lock(path.parent):
                try:
                    _write_json(partials[0], record)
                    outputs.save(partials[1], splits)
                    partials[1].replace(arrays)
                    partials[0].replace(path)
                finally:
                    for partial in partials:
                        partial.unlink(missing_ok=True)
        except OSError as error:
            raise SpaceliteError(f"{path} cannot be written: {error.strerror or error}") from error

    def outputs(self, transfer: dict[str, Any] | None = None) -> Outputs | None:
        """What the head gave for each example of the split that reports show, of its own cache or
        of a `transfer`. None, and a damaged file is named in the log, where there is nothing."""
        path = self.folder / OUTPUTS
        if transfer is not None:
            path = self.folder / TRANSFERS / f"{transfer['cache']}.npz"
        figures = (transfer or self.record)["metrics"]
        split = split_of(figures)
        try:
            return outputs.load(path, split, figures[split]["accuracy"])
        except SpaceliteError as error:
            log.warning("%s: %s again", error, "train" if transfer is None else "run its eval")
            return None

    def history(self) -> list[dict[str, Any]]:
        """The metrics after every epoch; none, and it is named in the log, for a damaged file."""
        path = self.folder / "history.json"
        try:
            history: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            return history
        except (OSError, ValueError) as error:
            log.warning("%s is damaged (%s): train again", path, one_line(error, 80))
            return []

    @property
    def split(self) -> str:
        """The split that reports show."""
        return split_of(self.record["metrics"])


def split_of(by_split: Mapping[str, Any]) -> str:
    """The split that reports show: `test` where there is one, else `validation`."""
    return "test" if "test" in by_split else "validation"


def folder_of(cache_dir: Path) -> Path:
    """Where the runs of `cache_dir` lie."""
    return cache_dir / "runs"


def prepare(cache_dir: Path) -> Path:
    """The folder of runs, made where it is missing; SpaceliteError where it cannot be written."""
    folder = folder_of(cache_dir)
    store.make_folder(folder)
    if not os.access(folder, os.W_OK):
        raise SpaceliteError(f"{folder} cannot be written; choose another --cache-dir")
    return folder


def settings_of(head: HeadSettings, shared: PassSettings) -> dict[str, Any]:
    """Every setting of a run, but for the kind of head: None where it plays no part."""
    settings = {**asdict(head), **asdict(shared)}
    del settings["kind"]
    unused = [] if shared.patience is not None else ["monitor"]
    if head.kind == "logreg":  # it is not trained in epochs
        unused = [name for name in asdict(shared) if name != "class_weights"]
    return {name: None if name in unused else value for name, value in settings.items()}


def id_of(cache: store.Cache, head: HeadSettings, shared: PassSettings) -> str:
    """The id of a run: a function of the cache and the settings alone."""
    settings = settings_of(head, shared)
    identity = specs.canonical({"cache": specs.key_of(cache.spec), "head": head.kind, **settings})
    digest = hashlib.sha256(identity.encode()).hexdigest()
    about = [specs.slug(cache.spec[name]) for name in ("backbone", "dataset")]
    return "--".join([*about, head.kind, digest[:8]])


def save(cache_dir: Path, cache: store.Cache, head: TrainedHead, shared: PassSettings) -> Run:
    """Write a trained head to `<cache-dir>/runs/<id>/`, whole or not at all; the same training
    replaces its former run. Raises SpaceliteError when it cannot be written."""
    from safetensors.numpy import save_file

    name = id_of(cache, head.settings, shared)
    labels = cache.splits["train"].labels
    multilabel = labels.ndim == 2
    record = {
        "format": FORMAT,
        "id": name,
        "head": head.settings.kind,
        "system": head.settings.system,
        "settings": settings_of(head.settings, shared),
        "best_epoch": head.best_epoch,
        "cache": cache.name,
        "cache_key": specs.key_of(cache.spec),
        "spec": cache.spec,
        "label_names": cache.label_names,
        "multilabel": multilabel,
        "examples": {name: len(split) for name, split in cache.splits.items()},
        "average": metrics.average_of(len(cache.label_names), multilabel),
        "train_params": sum(value.numel() for value in head.parameters.values()),
        "metrics": head.metrics,
        "seconds": head.seconds,
        "heads_in_pass": head.heads_in_pass,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {package: _version(package) for package in PACKAGES},
    }
    folder = folder_of(cache_dir) / name
    partial, former = (folder.with_name(f".{name}.{state}") for state in ("partial", "former"))
    try:
        with store.lock(prepare(cache_dir)):
            _tidy(folder, partial, former)  # a process may have been killed in here
            try:
                partial.mkdir()
                save_file(
                    {key: value.numpy() for key, value in head.parameters.items()},
                    partial / "head.safetensors",
                )
                _write_json(partial / "history.json", head.history)
                outputs.save(partial / OUTPUTS, outputs_of(cache, head.logits))
                _write_json(partial / "run.json", record)
                if folder.exists():
                    folder.rename(former)
                partial.rename(folder)
            finally:  # still under the lock: the next to save makes a folder of the same name
                _tidy(folder, partial, former)
    except SpaceliteError:
        raise
    except Exception as error:  # safetensors has one of its own for a full disk
        reason = (isinstance(error, OSError) and error.strerror) or one_line(error, 80)
        raise SpaceliteError(f"run {name} cannot be saved in {folder.parent}: {reason}") from error
    return Run(folder, record)


def outputs_of(cache: store.Cache, logits: dict[str, torch.Tensor]) -> dict[str, Outputs]:
    """Logits (N, C) by split, beside the labels of the cache."""
    return {
        name: Outputs(np.arange(len(values)), cache.splits[name].labels, values.numpy())
        for name, values in logits.items()
    }


def _tidy(folder: Path, partial: Path, former: Path) -> None:
    """Bring the former run back where no new one has taken its name; leave nothing else behind."""
    if former.exists() and not folder.exists():
        former.rename(folder)
    for left in (partial, former):
        shutil.rmtree(left, ignore_errors=True)


def train_and_save(
    cache_dir: Path,
    cache: store.Cache,
    heads: Sequence[HeadSettings],
    shared: PassSettings,
    *,
    device: str = "cpu",
    resume: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Run], list[str]]:
    """Train heads in one pass and save each; what an interrupted training needs to be resumed is
    kept in `cache_dir` until then. The runs, and descriptions of the heads that diverged."""
    from spacelite.training import checkpoints as snapshots
    from spacelite.training import loop as training

    prepare(cache_dir)
    identity = snapshots.identity_of(cache, heads, shared)
    state = snapshots.path_of(cache_dir, cache.name, identity)
    trained = training.train(
        cache,
        heads,
        shared,
        device=device,
        snapshot=state,
        resume=resume,
        on_progress=on_progress,
    )
    saved = [save(cache_dir, cache, head, shared) for head in trained if head.stopped is None]
    state.unlink(missing_ok=True)
    return saved, [head.settings.description for head in trained if head.stopped is not None]


def _write_json(path: Path, content: object) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def load_all(cache_dir: Path) -> list[Run]:
    """Every run of `cache_dir`, oldest first. A damaged one is named in the log and left out."""
    found = []
    for folder in sorted(folder_of(cache_dir).glob("[!.]*")):
        if folder.is_dir():
            try:
                found.append(load(folder))
            except SpaceliteError as error:
                log.warning("%s", error)
    return sorted(found, key=lambda run: (run.record["created"], run.id))


def find(cache_dir: Path, name: str) -> Run:
    """The run of this id, or of the only id that holds `name`, or the run in the folder `name`.
    Raises SpaceliteError when there is none, or more than one."""
    if (Path(name) / "run.json").is_file():
        return load(Path(name))
    names = [path.name for path in folder_of(cache_dir).glob("[!.]*") if path.is_dir()]
    matching = [name] if name in names else sorted(other for other in names if name in other)
    if len(matching) == 1:
        return load(folder_of(cache_dir) / matching[0])
    if matching:
        listed = ", ".join(matching[:5]) + (", ..." if len(matching) > 5 else "")
        raise SpaceliteError(f"{len(matching)} runs have {name!r} in their id ({listed}): say more")
    raise SpaceliteError(
        f"there is no run {name!r} in {folder_of(cache_dir)}: spacelite train shows their ids, and "
        "report --json"
        if names
        else f"{cache_dir} holds no run: run spacelite train first"
    )


def load(folder: Path) -> Run:
    """The run in `folder`. Raises SpaceliteError for one that is damaged or too new."""
    mend = "remove the folder and train again"
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        if record["format"] > FORMAT:
            raise SpaceliteError(
                f"run {folder} has format {record['format']}, this spacelite reads {FORMAT}: "
                "upgrade spacelite"
            )
        for key in NEEDED:
            record[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpaceliteError(f"run {folder} is damaged ({one_line(error, 80)}): {mend}") from error
    return Run(folder, record)
