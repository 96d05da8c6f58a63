"""The processes of a job that torchrun has started: which of them this is, and what they tell each
other. Without torchrun, and outside `joined`, a process is rank 0 of 1 and talks to nobody."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from spacelite.errors import SpaceliteError, is_out_of_memory

if TYPE_CHECKING:
    import torch

# The end of a process is noticed at once; that its host is gone, or that it hangs, only by these.
JOINING = timedelta(minutes=10)  # until the processes of all hosts have begun
STEP = timedelta(minutes=30)  # until all have done a step in which each does as much as the others
LONGEST = timedelta(days=7)  # what one process does alone while the others wait, such as a fit
ENDED = "another process of the job ended, or the job was terminated"


class Job(NamedTuple):
    """A process's place in its job: its rank among `size` processes, `local_size` of them on its
    host, where its rank is `local_rank`."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


ALONE = Job()
_job = ALONE  # as far as the others have been joined
_store: Any = None  # what the processes of a job count in, held by torchrun
_counts: Counter[str] = Counter()  # what a process alone counts in
_joined = 0  # how often the others have been joined


def launched() -> Job:
    """The place of this process in a job of torchrun, joined or not."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:  # other launchers set the variables below too
        return ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Job(*(int(os.environ[name]) for name in names))


def rank() -> int:
    """The number of this process among those that work together, from 0."""
    return _job.rank


def size() -> int:
    """The number of processes that work together."""
    return _job.size


def sharing(device: str) -> int:
    """The number of processes that share the memory of a device: those of the host, or one alone
    for a GPU."""
    return 1 if device.startswith("cuda") else _job.local_size


@contextmanager
def joined() -> Iterator[None]:
    """Work together with the other processes of the job; all of them have to come here. What ends
    one of them ends the others. Raises SpaceliteError if they cannot reach each other."""
    global _job, _joined
    job = launched()
    if job.size == 1:
        yield
        return
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore

    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    with _reaching_others():
        _joined += 1
        store = PrefixStore(f"joined {_joined}", _counters(JOINING))  # without earlier keys
        dist.init_process_group(
            backend, store=store, rank=job.rank, world_size=job.size, timeout=LONGEST
        )
    before = signal.signal(signal.SIGTERM, _terminated)
    _job = job
    try:
        yield
        # Not after an error: the others are gone, or wait for this process.
        dist.destroy_process_group()
    finally:
        _job = ALONE
        signal.signal(signal.SIGTERM, before)


def device_of(device: str) -> str:
    """The device of this process, where all have asked for the same: a GPU of its own. Raises
    SpaceliteError if its host has too few."""
    if device != "cuda" or size() == 1:
        return device
    import torch

    if _job.local_size > torch.cuda.device_count():
        raise SpaceliteError(
            f"{_job.local_size} processes on a host with {torch.cuda.device_count()} GPUs: start "
            "one for each GPU, or give device=cpu",
            ["device"],
        )
    return f"cuda:{_job.local_rank}"


def count(name: str, step: int = 1) -> int:
    """Add to a number that all processes share, 0 at first: its value."""
    if launched().size == 1:
        _counts[name] += step
        return _counts[name]
    with _reaching_others():
        return int(_counters().add(name, step))


def barrier() -> None:
    """Wait until all processes are here."""
    if size() > 1:
        import torch

        add_up([torch.zeros(1)])


def add_up(tensors: Sequence[torch.Tensor], within: timedelta = LONGEST) -> None:
    """Replace tensors, which have the same shapes in all processes, by their sums over these; all
    have to come here within this time of each other."""
    if size() == 1:
        return
    import torch
    import torch.distributed as dist

    together = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _reaching_others():
        work = dist.all_reduce(together, async_op=True)
        work.wait(within)
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, summed in zip(tensors, torch.split(together, sizes), strict=True):
        tensor.copy_(summed.view_as(tensor))


def gather(values: torch.Tensor) -> torch.Tensor:
    """What each process has, in the order of their ranks: (...) -> (size, ...)."""
    of_all = values.new_zeros(size(), *values.shape)
    of_all[rank()] = values
    add_up([of_all])
    return of_all


def broadcast(
    content: Any = None, tensors: Mapping[str, torch.Tensor] | None = None
) -> tuple[Any, dict[str, torch.Tensor]]:
    """What rank 0 gives, in all processes: content that JSON can hold, and tensors by name, on the
    CPU. What others give is not read."""
    tensors = dict(tensors or {})
    if size() == 1:
        return content, tensors
    import torch
    import torch.distributed as dist

    def of_first(values: torch.Tensor) -> torch.Tensor:
        with _reaching_others():
            dist.broadcast(values, 0)
        return values

    header, parts = b"", []
    if rank() == 0:
        flat = {name: value.cpu().reshape(-1) for name, value in tensors.items()}
        parts = [value.view(torch.uint8) for value in flat.values()]
        about = {
            name: [str(value.dtype).removeprefix("torch."), *value.shape]
            for name, value in tensors.items()
        }
        header = json.dumps([content, about]).encode()
    lengths = of_first(torch.tensor([len(header), sum(map(len, parts))]))
    first = bytearray(header or int(lengths[0]))
    content, about = json.loads(bytes(of_first(torch.frombuffer(first, dtype=torch.uint8)).numpy()))
    values = torch.cat(parts) if parts else torch.empty(int(lengths[1]), dtype=torch.uint8)
    if len(values):
        of_first(values)
    start = 0
    for name, (dtype, *shape) in about.items():
        empty = torch.empty(shape, dtype=getattr(torch, dtype))
        stop = start + empty.numel() * empty.element_size()
        # A copy: the bytes of another type may begin anywhere.
        tensors[name] = values[start:stop].clone().view(empty.dtype).view(shape)
        start = stop
    return content, tensors


def speaks(last_words: str) -> bool:
    """Whether this process is the first of its job that ends by an error, and so the one to say
    why; torchrun, which lists the processes that failed, is given these words."""
    if launched().size == 1:
        return True
    try:
        first = count("ended") == 1
    except SpaceliteError:
        first = launched().rank == 0
    if first and ENDED not in last_words and (path := os.environ.get("TORCHELASTIC_ERROR_FILE")):
        Path(path).write_text(json.dumps({"message": last_words}))
    return first


def _counters(timeout: timedelta = timedelta(seconds=10)) -> Any:
    """The store that torchrun holds for the job."""
    global _store
    if _store is None:
        from torch.distributed.rendezvous import rendezvous

        _store, _, _ = next(rendezvous("env://", timeout=timeout))
    return _store


@contextmanager
def _reaching_others() -> Iterator[None]:
    """Raise SpaceliteError in place of what torch raises where another process does not answer."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise SpaceliteError(f"{ENDED}: run the same command again to continue") from error


def _terminated(*_: Any) -> None:
    raise KeyboardInterrupt(ENDED)
