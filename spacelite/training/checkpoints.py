"""Checkpoints of unfinished trainings: written after every epoch, so that they can be resumed."""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
    heads among which a search chooses, if there is one. Heads that are fitted directly have no part
    in the state: a killed training that had saved its baselines is continued without them."""
    configs = [config for config in configs if config.is_iterative] or configs
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
    """The size in bytes of each unfinished training's checkpoint, by the name of its cache. What
    killed trainings left behind is deleted: locks, and the checkpoints of those that had saved all
    of their runs."""
    for left in (cache_dir / FOLDER).glob(".*--*.lock"):
        path = left.with_name(left.name[1:].removesuffix(".lock"))
        with suppress(SpaceliteError), files.lock(path, wait=False):  # which deletes the lock
            if _all_saved(path):
                remove(path)
    sizes: dict[str, list[int]] = {}
    for path in sorted((cache_dir / FOLDER).glob("[!.]*--*.safetensors")):
        with suppress(OSError):  # the training has just ended, or it is no checkpoint
            sizes.setdefault(path.stem.rpartition("--")[0], []).append(path.stat().st_size)
    return sizes


def begin_saving(path: Path, records: Iterable[Path]) -> None:
    """Note beside a checkpoint what the `run.json` of each of its runs is before they are saved: a
    training that is killed then is finished once all have changed. On a full disk it is not
    noted."""
    if path.exists():
        with suppress(OSError):
            states = {os.path.relpath(record, path.parent): _state(record) for record in records}
            files.write_json(path.with_suffix(".json"), {"runs": states})


def _all_saved(path: Path) -> bool:
    """Whether all runs of a checkpoint have been saved since `begin_saving`."""
    try:
        states = files.read_json(path.with_suffix(".json"))["runs"]
        return all(_state(path.parent / run) not in (None, states[run]) for run in states)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _state(record: Path) -> str | None:
    """A checksum of a run's record; None if there is none."""
    return files.checksum(record.read_bytes()) if record.is_file() else None


def remove(path: Path) -> None:
    """Delete a checkpoint, and what is noted beside it. Raises SpaceliteError if that fails."""
    for file in (path, path.with_suffix(".json")):
        files.clear_away(file)


@contextmanager
def no_training(cache_dir: Path, cache_name: str) -> Iterator[None]:
    """Keep trainings on a cache from being continued while it is removed. Raises SpaceliteError if
    one is running."""
    with ExitStack() as stack:
        for left in (cache_dir / FOLDER).glob(f".{glob.escape(cache_name)}--*.lock"):
            path = left.with_name(left.name[1:].removesuffix(".lock"))
            stack.enter_context(files.lock(path, f"training on cache {cache_name}", wait=False))
        yield


def remove_all(cache_dir: Path, cache_name: str) -> int:
    """Delete the checkpoints of all unfinished trainings on a cache; return how many there were."""
    count = len(unfinished(cache_dir).get(cache_name, []))
    for path in (cache_dir / FOLDER).glob("*--*"):
        # The lock of a training that is running is its own to delete.
        ours = path.name.removeprefix(".").startswith(f"{cache_name}--")
        if ours and path.suffix != ".lock":
            files.clear_away(path)
    return count


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically. Raises SpaceliteError if it cannot be written."""
    from safetensors.torch import save

    tensors = {
        name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()
    }
    known = {"identity": checkpoint.identity, "epoch": checkpoint.epoch}
    state = json.dumps({**known, **checkpoint.record})
    metadata = {"state": state, files.CHECKSUM: _checksum(state, tensors)}
    files.make_folder(path.parent, "choose another cache_dir")
    try:
        # Not save_file, whose own temporary file stays behind if the process is killed.
        files.write_bytes(path, save(tensors, metadata))
    except OSError as error:
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
        problem = f"{path} {checkpoint}"
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
    """The checkpoint in a file, or what is wrong with it. One of an older version is not read: its
    damage would be trained on."""
    from safetensors import safe_open

    if not path.is_file():  # a pipe would never be opened
        return "is not a regular file"
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if files.CHECKSUM not in metadata:
                return "has no checksum: an older version wrote it"
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata[files.CHECKSUM] != _checksum(metadata["state"], tensors):
            return f"is damaged ({files.CHANGED})"
        record = json.loads(metadata["state"])
        return Checkpoint(record.pop("identity"), record.pop("epoch"), tensors, record)
    except Exception as error:
        return f"is damaged ({one_line(error, 80)})"


def _checksum(state: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """CRC-32 of everything in a checkpoint: the state, and each tensor's name, type, shape and
    values; eight hexadecimal digits."""
    import torch

    crc = zlib.crc32(state.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {[*tensor.shape]}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return f"{crc:08x}"
