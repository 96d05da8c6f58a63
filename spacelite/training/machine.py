"""What this process may use of its machine: memory, of the computer or of a GPU, and cores."""

from __future__ import annotations

import os
from pathlib import Path

import torch

CONTROL_GROUPS = Path("/sys/fs/cgroup")


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
    (of a container, or a job of a cluster), if that is less.
    """
    if device.startswith("cuda"):
        # Freed memory that torch keeps for reuse is free as well.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    import psutil

    available = int(psutil.virtual_memory().available)
    left = left_in_control_group()
    return available if left is None else min(available, left)


def left_in_control_group(
    root: Path = CONTROL_GROUPS, own: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Bytes that this process's control groups still allow, by version 2 or 1 of their interface;
    None without a limit. Cached files do not count: they are dropped when memory is needed.

    Args:
        root: Where control groups are mounted.
        own: The file that names this process's groups.
    """
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
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
        groups = [each for each in (folder, *folder.parents) if base in (each, *each.parents)]
        left += [_left(group, version_2) for group in groups]
    return min((each for each in left if each is not None), default=None)


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
