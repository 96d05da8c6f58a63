"""Commands that are killed (SIGKILL) at every call that changes a file, before it or half-way
through a write, and at random moments; then the same command again:

    python tests/campaigns kills [--trials 500] [--seed 0]

A kill is followed by more in a third of the trials. After them another command looks at what is
there; then the same command must end with the same answer as without kills.
"""

from __future__ import annotations

import random
import time

import trials
from trials import COMMANDS, KILL, TEAR, Tally, World

TRIALS = 500


def points(world: World, names: list[str], chance: random.Random) -> list[tuple[str, int, float]]:
    """Every command at every call, and at as many moments: (command, call or 0, seconds)."""
    every = []
    for name in names:
        expected = world.expected(name)
        every += [(name, call, 0.0) for call in range(1, expected.calls + 1)]
        every += [(name, 0, chance.uniform(0, expected.seconds)) for _ in range(expected.calls)]
    return every


def kill(world: World, name: str, call: int, seconds: float, how: int) -> bool:
    """Start a command and kill it; whether it was still running."""
    command = COMMANDS[name]
    process = world.start(command.words, how if call else trials.COUNT, call, code=command.code)
    if not call:
        time.sleep(seconds)
        process.kill()
    done = trials.waited(process)
    return done is not None and done.returncode == -9


def run(world: World, chance: random.Random, count: int, tally: Tally) -> None:
    """Kill; look; run again."""
    names = trials.commands(count, chance)
    for name, call, seconds in trials.chosen(points(world, names, chance), count, chance):
        world.ready(COMMANDS[name].needs)
        repeat = []
        for _ in range(chance.choice((1, 1, 1, 1, 2, 3))):
            how = chance.choice((KILL, TEAR))
            killed = kill(world, name, call, seconds, how)
            tally.add("kills", "killed" if killed else "too late", "")
            at = f"call {call}" if call else f"{seconds:.2f} s"
            repeat.append(f"{at}{' torn' if call and how == TEAR else ''}")
            call = chance.randint(1, world.expected(name).calls)
        world.look_and_repeat(name, ", ".join(repeat), tally)
