"""Memory that is free on a device, within the limits of this process, and what libraries need of
its address space."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from spacelite.errors import SpaceliteError

CONTROL_GROUPS = Path("/sys/fs/cgroup")
# MB of address space that a library takes with its threads, on the smallest data, and more for each
# core. Without them it ends the process, or waits for a thread that has not begun.
ADDRESS_SPACE = {
    "pydantic": (20, 0),
    "numpy": (60, 40),
    "scipy": (30, 30),
    "pyarrow": (200, 60),
    "torch": (500, 100),
    "sklearn": (400, 100),
    "transformers.modeling_utils": (500, 120),
}


def cores() -> int:
    """Number of cores that this process may use: no more than OMP_NUM_THREADS, which joblib sets in
    processes that share the cores."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, max(1, int(limit))) if limit.isdecimal() else count


def free_memory(device: str) -> int:
    """Bytes of memory that are free on a device.

    On a CPU, this is what psutil calls available, or what is left of the limit of a control group
    (of a container, or a job of a cluster) or of the address space, if that is less.
    """
    if device.startswith("cuda"):
        import torch

        # Freed memory that torch keeps for reuse is free as well.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    import psutil

    left = (int(psutil.virtual_memory().available), left_in_control_group(), address_space_left())
    return min(size for size in left if size is not None)


def address_space_left() -> int | None:
    """Bytes that the limit of this process's address space (`ulimit -v`) leaves; None without a
    limit, or where there are none."""
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):  # not Linux
        return None
    if limit == resource.RLIM_INFINITY:
        return None
    return max(0, limit - pages * resource.getpagesize())


def left_in_control_group(
    root: Path = CONTROL_GROUPS, process: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Bytes that this process's control groups still allow, by version 2 or 1 of their interface;
    None without a limit. Cached files do not count: they are dropped when memory is needed.
    Control groups are mounted at `root`; the file `process` names those of this process."""
    try:
        lines = [line.split(":", 2) for line in process.read_text().splitlines()]
    except OSError:
        return None  # not Linux
    left = []
    for _, controllers, path in (line for line in lines if len(line) == 3):
        version_2 = not controllers
        if not version_2 and "memory" not in controllers.split(","):
            continue
        base = root if version_2 else root / "memory"
        folder = base / path.lstrip("/")
        # Every group above counts too. Inside a container, the path may not be there: its own
        # group is then the root.
        groups = [group for group in (folder, *folder.parents) if base in (group, *group.parents)]
        left += [_left(group, version_2) for group in groups]
    return min((size for size in left if size is not None), default=None)


def _left(group: Path, version_2: bool) -> int | None:
    names = ("memory.max", "memory.current", "inactive_file")
    if not version_2:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    try:
        limit, used = (int((group / name).read_text()) for name in names[:2])
        statistics = (group / "memory.stat").read_text().splitlines()
        cached = dict(line.split(maxsplit=1) for line in statistics).get(names[2], "0")
        return max(0, limit - used + int(cached))
    except (OSError, ValueError):  # no such group, or a limit of "max"
        return None


def require_address_space(what: str, needed: float) -> None:
    """Raise SpaceliteError if the limit of the address space leaves less than `needed` MB."""
    left = address_space_left()
    if left is not None and left < needed * 10**6:
        raise SpaceliteError(
            f"{what} needs about {needed:,} MB of address space, and the limit (ulimit -v) leaves "
            f"{left / 1e6:,.0f} MB: raise it"
        )


class Room:
    """Refuses to import a library for which the address space is too small: most of them cannot
    say so, and end the process in native code."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Raise SpaceliteError if the limit of the address space leaves too little."""
        if fullname in ADDRESS_SPACE:
            base, more = ADDRESS_SPACE[fullname]
            require_address_space(fullname.partition(".")[0], base + more * cores())


def watch_imports() -> None:
    """Check from now on whether the limit of the address space has room for libraries."""
    if address_space_left() is not None:
        # Its own pool reserves 1 GB at once.
        os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
        sys.meta_path.insert(0, Room())
