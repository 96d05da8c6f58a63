"""The state of an unfinished training on disk, written after every epoch, to go on from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from spacelite import specs, store
from spacelite.errors import SpaceliteError, one_line
from spacelite.settings import HeadSettings, PassSettings

FOLDER = "unfinished"  # below the cache folder


@dataclass(frozen=True)
class Snapshot:
    """What training goes on from: the epochs done, tensors by name, and a record (JSON)."""

    epoch: int
    tensors: dict[str, torch.Tensor]
    record: dict[str, Any]


def path_of(
    cache_dir: Path, cache: store.Cache, settings: Sequence[HeadSettings], shared: PassSettings
) -> Path:
    """Where this training of this cache keeps its state: a function of all its settings."""
    identity = {
        "cache": specs.key_of(cache.spec),
        "heads": [asdict(head) for head in settings],
        "shared": asdict(shared),
    }
    return cache_dir / FOLDER / f"{cache.name}--{specs.key_of(identity)[:10]}.safetensors"


def save(path: Path, snapshot: Snapshot) -> None:
    """Write the state, whole or not at all. Raises SpaceliteError when it cannot be written."""
    from safetensors.torch import save_file

    partial = path.with_name(f".{path.name}.partial")
    tensors = {name: value.detach().cpu().contiguous() for name, value in snapshot.tensors.items()}
    state = json.dumps({"epoch": snapshot.epoch, **snapshot.record})
    try:
        store.make_folder(path.parent)
        save_file(tensors, partial, metadata={"state": state})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except Exception as error:
        # safetensors has an exception of its own for a full disk.
        partial.unlink(missing_ok=True)
        if isinstance(error, SpaceliteError):
            raise
        raise SpaceliteError(
            f"the state of the training cannot be saved in {path.parent}: {one_line(error)}"
        ) from error


def load(path: Path) -> Snapshot | None:
    """The state at `path`, None where there is none. Raises SpaceliteError for a damaged one."""
    from safetensors import safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Snapshot(record.pop("epoch"), tensors, record)
    except Exception as error:
        raise SpaceliteError(
            f"{path} is damaged ({one_line(error, 80)}): remove it and train without --resume"
        ) from error
