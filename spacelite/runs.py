"""One finished head on disk: save, load, list. The run format is described in the README."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacelite import metrics, specs, store
from spacelite.errors import SpaceliteError, one_line

if TYPE_CHECKING:
    from spacelite.training import PassSettings, TrainedHead

log = logging.getLogger(__name__)

FORMAT = 1
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
    def split(self) -> str:
        """The split that reports show: `test` where there is one, else `validation`."""
        return "test" if "test" in self.record["metrics"] else "validation"


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


def save(
    cache_dir: Path, cache: store.Cache, head: TrainedHead, shared: PassSettings, heads_in_pass: int
) -> Run:
    """Write a trained head to `<cache-dir>/runs/<id>/`, whole or not at all.

    The id is a function of the cache and the settings: the same training replaces its former run.
    Raises SpaceliteError when it cannot be written.
    """
    from safetensors.numpy import save_file

    settings = {**asdict(head.settings), **asdict(shared)}
    kind = settings.pop("kind")
    identity = specs.canonical({"cache": specs.key_of(cache.spec), "head": kind, **settings})
    digest = hashlib.sha256(identity.encode()).hexdigest()
    about = [specs.slug(cache.spec[name]) for name in ("backbone", "dataset")]
    name = "--".join([*about, kind, digest[:8]])
    record = {
        "format": FORMAT,
        "id": name,
        "head": kind,
        "system": head.settings.system,
        "settings": settings,
        "cache": cache.name,
        "cache_key": specs.key_of(cache.spec),
        "spec": cache.spec,
        "label_names": cache.label_names,
        "examples": {name: len(split) for name, split in cache.splits.items()},
        "average": metrics.average_of(len(cache.label_names)),
        "train_params": sum(value.numel() for value in head.parameters.values()),
        "metrics": head.metrics,
        "seconds": head.seconds,
        "heads_in_pass": heads_in_pass,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {package: _version(package) for package in PACKAGES},
    }
    folder = folder_of(cache_dir) / name
    partial, former = (folder.with_name(f".{name}.{state}") for state in ("partial", "former"))
    try:
        with store.lock(prepare(cache_dir)):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            save_file(
                {key: value.numpy() for key, value in head.parameters.items()},
                partial / "head.safetensors",
            )
            _write_json(partial / "history.json", head.history)
            _write_json(partial / "run.json", record)
            if folder.exists():
                folder.rename(former)
            partial.rename(folder)
            shutil.rmtree(former, ignore_errors=True)
    except OSError as error:
        raise SpaceliteError(
            f"run {name} cannot be saved in {folder.parent}: {error.strerror or error}"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Run(folder, record)


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
        for key in ("head", "settings", "spec", "metrics", "examples", "created", "train_params"):
            record[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SpaceliteError(f"run {folder} is damaged ({one_line(error, 80)}): {mend}") from error
    return Run(folder, record)
