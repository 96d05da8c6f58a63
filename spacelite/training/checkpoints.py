"""The state of an unfinished training on disk, written after every epoch, to go on from."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacelite.cache import spec as specs
from spacelite.cache import store
from spacelite.errors import SpaceliteError, one_line
from spacelite.heads.settings import HeadSettings, PassSettings

if TYPE_CHECKING:
    import torch

FOLDER = "unfinished"  # below the cache folder


FORMAT = 1


@dataclass(frozen=True)
class Snapshot:
    """What training goes on from: which training it is, the epochs done, tensors by name, and a
    record (JSON)."""

    identity: str
    epoch: int
    tensors: dict[str, torch.Tensor]
    record: dict[str, Any]


def identity_of(cache: store.Cache, settings: Sequence[HeadSettings], shared: PassSettings) -> str:
    """What tells one training from another: cache, heads in their order, what they share."""
    identity = {
        "format": FORMAT,
        "cache": specs.key_of(cache.spec),
        "heads": [asdict(head) for head in settings],
        "shared": asdict(shared),
    }
    return specs.key_of(identity)


def path_of(cache_dir: Path, cache_name: str, identity: str) -> Path:
    """Where a training of a cache keeps its state."""
    return cache_dir / FOLDER / f"{cache_name}--{identity[:10]}.safetensors"


def remove_all(cache_dir: Path, cache_name: str) -> None:
    """Delete what unfinished trainings of a cache have left."""
    for path in (cache_dir / FOLDER).glob(f"*{cache_name}--*"):
        path.unlink(missing_ok=True)


def save(path: Path, snapshot: Snapshot) -> None:
    """Write the state, whole or not at all. Raises SpaceliteError when it cannot be written."""
    from safetensors.torch import save_file

    # The process's own: two may train the same at once.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    tensors = {name: value.detach().cpu().contiguous() for name, value in snapshot.tensors.items()}
    known = {"identity": snapshot.identity, "epoch": snapshot.epoch}
    state = json.dumps({**known, **snapshot.record})
    try:
        store.make_folder(path.parent)
        save_file(tensors, partial, metadata={"state": state})
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except SpaceliteError:
        raise
    except Exception as error:  # safetensors has one of its own for a full disk
        raise SpaceliteError(
            f"the state of the training cannot be saved in {path.parent}: {one_line(error)}"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def load(path: Path, identity: str) -> Snapshot | None:
    """The state at `path`, None where there is none. Raises SpaceliteError for a damaged one, and
    for one of another training."""
    from safetensors import safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        found = Snapshot(record.pop("identity"), record.pop("epoch"), tensors, record)
    except Exception as error:
        raise SpaceliteError(
            f"{path} is damaged ({one_line(error, 80)}): remove it to train from the start"
        ) from error
    if found.identity != identity:
        raise SpaceliteError(f"{path} is of another training: remove it to train from the start")
    return found
