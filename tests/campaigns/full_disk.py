"""The disk fails: from each call on that needs space it is full (ENOSPC), or each call fails alone
(EIO); then a real file system of growing size:

    python tests/campaigns full_disk [--trials 400] [--seed 0]

The command must end with one line, or finish without what may be left out, and say so; nothing
partial may be taken for whole; the same command must then give its usual answer. The small file
system (tmpfs) is tried where this process may mount one.
"""

from __future__ import annotations

import errno
import random
import shutil
import subprocess

import trials
from trials import COMMANDS, FAIL, FULL, Tally, World

TRIALS = 400

PAGE = 4096  # bytes by which the small file system grows from trial to trial
ROOM = "64m"  # enough for everything


def points(world: World, names: list[str]) -> list[tuple[str, int, int]]:
    """Every command, each way to fail, every call."""
    return [
        (name, how, call)
        for name in names
        for how in (FULL, FAIL)
        for call in range(1, world.expected(name).calls + 1)
    ]


def mount(world: World, size: str, *options: str) -> bool:
    """Mount a file system of this size at the folder of the trial: whether that is possible."""
    words = ["mount", "-t", "tmpfs", "-o", ",".join([*options, f"size={size}"]), "tmpfs", world.at]
    return subprocess.run(words, capture_output=True).returncode == 0


def small(world: World, name: str, chance: random.Random, tally: Tally) -> bool:
    """A command on a small file system, and again once that has grown: whether there is one."""
    needs = COMMANDS[name].needs
    world.expected(name)
    folder = world.template(needs)
    shutil.rmtree(world.at)
    world.at.mkdir()
    if not mount(world, ROOM):
        return False
    try:
        shutil.copytree(folder, world.at, dirs_exist_ok=True, symlinks=True)
        used = shutil.disk_usage(world.at).used
        size = used + PAGE * chance.randint(0, 60)
        mount(world, str(size), "remount")
        done = world.does(name)
        mount(world, ROOM, "remount")
        judge(world, name, f"tmpfs of {size} bytes", done, tally)
    finally:
        subprocess.run(["umount", "-l", world.at], check=True)
    return True


def judge(world: World, name: str, repeat: str, done: trials.Done | None, tally: Tally) -> None:
    """How the command ended, what another one sees, and how it ends the next time."""
    how = trials.ended(done)
    tally.add(name, "told" if how == "finished" else how, repeat, done)
    lacking = how == "finished" and "cannot be written" in done.stderr
    world.look_and_repeat(name, repeat, tally, lacking=lacking)


def run(world: World, chance: random.Random, count: int, tally: Tally) -> None:
    """Fail, look, run again."""
    names = trials.commands(count, chance)
    for name, how, call in trials.chosen(points(world, names), count, chance):
        world.ready(COMMANDS[name].needs)
        error = errno.ENOSPC if how == FULL else errno.EIO
        repeat = f"{errno.errorcode[error]} at call {call}"
        judge(world, name, repeat, world.does(name, how, call), tally)
    for number in range((count or TRIALS) // 4):
        name = names[number % len(names)]
        if not small(world, name, chance, tally):
            print("no small file system: this process may not mount one")
            break
