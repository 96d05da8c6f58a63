"""Power is cut: what a command had not synced is lost, after every call that changes a file:

    python tests/campaigns power_cut [--trials 600] [--seed 0]

All calls of one run are logged. For a point of the log, a folder is made as the disk may hold it:
synced bytes are there; of all others none, or each with an even chance; folders lose the entries
that were not synced, or keep all, or those up to some point, in order. Another command looks at it,
and the same command is run again.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import trials
from trials import COMMANDS, COUNT, Tally, World

TRIALS = 600

SECTOR = 512  # bytes that a disk writes whole or not at all
WAYS = ("nothing", "names", "chance")  # what survives of that which is not synced


class Call(NamedTuple):
    """A logged call: what, on which file, a new name, offset, size, bytes."""

    what: str
    path: str
    to: str
    offset: int
    size: int
    content: bytes


def read_log(path: Path) -> Iterator[Call]:
    """The calls that `writes.c` logged."""
    with path.open("rb") as file:
        while line := file.readline():
            what, name, to, offset, size = line.decode().rstrip("\n").split("\t")
            content = file.read(int(size)) if what == "write" else b""
            yield Call(what, name, to, int(offset), int(size), content)


class File:
    """The bytes of a file: as processes see it, and as they surely are on disk."""

    def __init__(self, content: bytes = b"") -> None:
        self.seen, self.synced = bytearray(content), bytes(content)

    def write(self, offset: int, content: bytes) -> None:
        """Change what processes see."""
        self.seen.extend(bytes(max(0, offset - len(self.seen))))
        self.seen[offset : offset + len(content)] = content

    def after(self, way: str, chance: random.Random) -> bytes:
        """What the disk holds after a power cut."""
        if way != "chance":
            return self.synced
        size = chance.choice((len(self.synced), len(self.seen)))
        found = bytearray(self.synced[:size].ljust(size, b"\0"))
        for start in range(0, min(size, len(self.seen)), SECTOR):
            if chance.random() < 0.5:
                part = self.seen[start : min(start + SECTOR, size)]
                found[start : start + len(part)] = part
        return bytes(found)


class Disk:
    """A folder as processes see it, and as it surely is on disk. Files are `File`, folders None."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.names: dict[str, File | None] = {
            str(path): File(path.read_bytes()) if path.is_file() else None
            for path in sorted(folder.rglob("*"))
        }
        self.synced = dict(self.names)
        self.steps: list[dict[str, File | None]] = []  # since then, in order

    def apply(self, call: Call) -> None:
        """What a call does."""
        file, names = self.names.get(call.path), dict(self.names)
        if call.what == "open":
            file = names.setdefault(call.path, File())
            if call.size and file is not None:
                del file.seen[:]
        elif call.what == "folder":
            names[call.path] = None
        elif call.what == "remove":
            names.pop(call.path, None)
        elif call.what == "rename":
            for path in [path for path in names if path == call.path
                         or path.startswith(call.path + "/")]:  # fmt: skip
                names[call.to + path.removeprefix(call.path)] = names.pop(path)
        elif call.what == "sync" and file is None:  # entries of a folder, and, in order, all before
            self.synced, self.steps = names, []
        elif file is not None and call.what == "sync":
            file.synced = bytes(file.seen)
            self.synced = {**self.synced, **{path: other for path, other in names.items()
                                             if other is file}}  # fmt: skip
        elif file is not None and call.what == "write":
            file.write(call.offset, call.content)
        elif file is not None:  # its size: grow, or change
            grown = file.seen[: call.size] if call.what == "size" else file.seen
            file.seen = bytearray(grown.ljust(call.size, b"\0"))
        if names != self.names:
            self.names = names
            self.steps.append(names)

    def cut(self, way: str, chance: random.Random) -> None:
        """Make the folder that the disk may hold after a power cut."""
        kept = {"nothing": self.synced, "names": self.names}.get(way)
        kept = chance.choice([self.synced, *self.steps]) if kept is None else kept
        shutil.rmtree(self.root)
        self.root.mkdir()
        for path, file in sorted(kept.items()):
            if file is None:
                Path(path).mkdir(parents=True, exist_ok=True)
            else:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
                Path(path).write_bytes(file.after(way, chance))


def run(world: World, chance: random.Random, count: int, tally: Tally) -> None:
    """Cut, look, run again."""
    logs = {}
    for name in trials.commands(count, chance):
        world.expected(name)
        world.ready(COMMANDS[name].needs)
        log = world.folder / f"{name}.log"
        world.does(name, COUNT, 0, str(log))
        logs[name] = list(read_log(log))
    points = [
        (name, point, way)
        for name, log in logs.items()
        for point in range(1, len(log) + 1)
        for way in WAYS
    ]
    for name, point, way in trials.chosen(points, count, chance):
        world.ready(COMMANDS[name].needs)
        disk = Disk(world.at)
        for call in logs[name][:point]:
            disk.apply(call)
        disk.cut(way, chance)
        world.look_and_repeat(name, f"after call {point}, kept: {way}", tally)
