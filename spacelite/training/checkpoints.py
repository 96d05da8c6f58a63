"""Checkpoints of unfinished trainings: written after every epoch, so that they can be resumed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacelite import files
from spacelite.errors import SpaceliteError, one_line
from spacelite.heads.config import HeadConfig
from spacelite.training.config import TrainingConfig

if TYPE_CHECKING:
    import torch

    from spacelite.cache.store import Cache

log = logging.getLogger(__name__)

FOLDER = "unfinished"  # below the cache folder
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """The state that a training is resumed from."""

    identity: str  # of the training
    epoch: int  # the last finished one
    tensors: dict[str, torch.Tensor]  # parameters and Adam's moments by name
    record: dict[str, Any]  # everything else, such as histories, as JSON


def identity(
    cache: Cache,
    configs: Sequence[HeadConfig],
    training: TrainingConfig,
    searched: Collection[HeadConfig] = (),
) -> str:
    """A hash that identifies a training: cache, heads in their order, shared settings, and the
    heads among which a search chooses, if there is one."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "cache": cache.spec.cache_key(),
        "heads": [{"kind": config.kind, **config.hashed()} for config in configs],
        "shared": {**training.hashed(), "monitor": training.monitor},
    }
    if searched:
        candidates = set(searched)
        content["search"] = [i for i, config in enumerate(configs) if config in candidates]
    return hashlib.sha256(files.canonical(content).encode()).hexdigest()


def checkpoint_path(cache_dir: Path, cache: Cache, identity: str) -> Path:
    """Where the training of this identity on a cache keeps its checkpoint."""
    return cache_dir / FOLDER / f"{cache.name}--{identity[:10]}.safetensors"


@contextmanager
def locked(path: Path, cache: Cache, heads: int) -> Iterator[None]:
    """Keep two trainings of the same settings apart, by the path of their checkpoint: the second
    waits for the first."""
    files.make_folder(path.parent, "choose another cache_dir")
    plural = "head" if heads == 1 else f"{heads} heads"
    with files.lock(path, doing=f"training the same {plural} on cache {cache.name}"):
        yield


def unfinished(cache_dir: Path) -> dict[str, list[int]]:
    """The size in bytes of each unfinished training's checkpoint, by the name of its cache."""
    sizes: dict[str, list[int]] = {}
    for path in sorted((cache_dir / FOLDER).glob("[!.]*--*.safetensors")):
        with suppress(FileNotFoundError):  # the training has just ended
            sizes.setdefault(path.stem.rpartition("--")[0], []).append(path.stat().st_size)
    return sizes


def remove_all(cache_dir: Path, cache_name: str) -> int:
    """Delete the checkpoints of all unfinished trainings on a cache; return how many there were."""
    count = len(unfinished(cache_dir).get(cache_name, []))
    for path in (cache_dir / FOLDER).glob("*--*"):
        # The lock of a training that is running is its own to delete.
        ours = path.name.removeprefix(".").startswith(f"{cache_name}--")
        if ours and path.suffix != ".lock":
            path.unlink(missing_ok=True)
    return count


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically. Raises SpaceliteError if it cannot be written."""
    from safetensors.torch import save_file

    tensors = {
        name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()
    }
    known = {"identity": checkpoint.identity, "epoch": checkpoint.epoch}
    state = json.dumps({**known, **checkpoint.record})
    files.make_folder(path.parent, "choose another cache_dir")
    try:
        with files.atomic_write(path) as partial:
            save_file(tensors, partial, metadata={"state": state})
    except Exception as error:  # safetensors raises its own exception for a full disk
        raise SpaceliteError(
            f"the checkpoint of the training cannot be saved in {path.parent}: {one_line(error)}"
        ) from error


def find(path: Path, identity: str, *, resident: bool, resume: bool = False) -> Checkpoint | None:
    """The checkpoint to continue from; None, which the log explains, to train from the start.

    Raises SpaceliteError, if the user asked to `resume`, where the checkpoint is damaged, belongs
    to another training, or was made with another order of the examples, which depends on whether
    the training split is `resident` in memory.
    """
    if not path.exists():
        if resume:
            log.info("nothing to resume: training from the start")
        return None
    checkpoint, remedy = _read(path), "remove it to train from the start"
    if isinstance(checkpoint, str):
        problem = f"{path} is damaged ({checkpoint})"
    elif checkpoint.identity != identity:
        problem = f"{path} belongs to another training"
    elif checkpoint.record["resident"] != resident:
        problem = (
            "the interrupted training had a different amount of free memory, and so another order "
            "of the examples"
        )
        remedy = "free as much memory, or train from the start (fresh=True)"
    else:
        return checkpoint
    if resume:
        raise SpaceliteError(f"{problem}: {remedy}", ["fresh"])
    log.warning("%s: it cannot be continued, training from the start", problem)
    return None


def _read(path: Path) -> Checkpoint | str:
    """The checkpoint in a file, or why it cannot be read."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return Checkpoint(record.pop("identity"), record.pop("epoch"), tensors, record)
    except Exception as error:
        return one_line(error, 80)
