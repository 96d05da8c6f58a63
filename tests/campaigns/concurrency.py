"""Two commands at once in one cache folder, the second one a random moment after the first:

    python tests/campaigns concurrency [--trials 200] [--seed 0]

Each must finish or end with one line. Afterwards embedding and training again must give the same
answer as alone, unless something was removed; nothing partial and no lock may be left.
"""

from __future__ import annotations

import random
import time

import trials
from trials import COMMANDS, EMBED, TRAIN, Tally, World

TRIALS = 200

REPORT, PREDICT, EVAL = (COMMANDS[name].words for name in ("report", "predict", "eval"))
VERIFY, LIST = "cache verify bert--data", "cache list"
REMOVE = "cache remove bert--data --yes"
NAME = "runs name linear first"
# What is there before, and the two commands.
PAIRS = (
    ("", EMBED, EMBED),
    ("", EMBED, LIST),
    ("", EMBED, VERIFY),
    ("", EMBED, REMOVE),
    # Else the first may copy what the second, if it is faster, has computed in other batches.
    ("", f"{EMBED} --no-reuse", COMMANDS["embed reuse"].words),
    ("embed", TRAIN, TRAIN),
    ("embed", TRAIN, "train --head linear --epochs 3 --device cpu"),
    ("embed", TRAIN, REMOVE),
    ("embed", TRAIN, VERIFY),
    ("embed", TRAIN, "report"),
    ("embed", TRAIN, "runs list"),
    ("embed", COMMANDS["embed reuse"].words, REMOVE),
    ("embed", COMMANDS["cv"].words, REMOVE),
    ("embed", COMMANDS["cv"].words, COMMANDS["cv"].words),
    ("embed", COMMANDS["audit"].words, TRAIN),
    ("embed train", TRAIN, "runs remove linear --yes"),
    ("embed train", "report", "runs remove linear --yes"),
    ("embed train", "report", REMOVE),
    ("embed train", PREDICT, "runs remove linear --yes"),
    ("embed train", EVAL, EVAL),
    ("embed train", EVAL, "runs remove linear --yes"),
    ("embed train", EVAL, "cache remove more --yes"),
    ("embed train", NAME, TRAIN),
    ("embed train", NAME, "runs name linear second"),
    ("embed train", NAME, "runs remove linear --yes"),
    ("embed train", REMOVE, REMOVE),
    ("embed train", "runs remove linear --yes", "runs remove linear --yes"),
    ("", "texts", "texts"),
)


def short(words: str) -> str:
    """The name of a command in the table."""
    parts = words.split()
    return " ".join(parts[:2] if parts[0] in ("cache", "runs") else parts[:1])


def start(world: World, words: str) -> trials.processes.Process:
    """Start one of a pair."""
    command = COMMANDS["texts"]
    if words == "texts":
        return world.start(command.words, code=command.code)
    return world.start(words)


def run(world: World, chance: random.Random, count: int, tally: Tally) -> None:
    """Start both, wait, and do again what nothing disturbs."""
    world.expected("embed")
    alone = {name: world.expected(name) for name in ("train", "texts")}
    for number in range(count or len(PAIRS)):
        needs, first, second = PAIRS[number % len(PAIRS)]
        row, pause = f"{short(first)} + {short(second)}", chance.uniform(0, 0.6)
        world.ready(tuple(needs.split()))
        begun = [start(world, first)]
        time.sleep(pause)
        begun.append(start(world, second))
        for process, words in zip(begun, (first, second), strict=True):
            done = trials.waited(process)
            how = trials.ended(done)
            if words == "texts" and done is not None and how == "finished":
                how = "same" if done.stdout == alone["texts"].said else "wrong"
            tally.add(row, "same" if how == "finished" else how, f"{words} ({pause:.2f} s)", done)
        for name in ("embed", "train"):
            # Texts copied from another cache would have been computed in other batches.
            done = world.run(f"{EMBED} --no-reuse") if name == "embed" else world.does(name)
            how = trials.ended(done)
            if how == "finished" and name == "train":
                left, wanted = trials.answer(world.at), alone["train"].after
                how = "same" if wanted.items() <= nameless(left).items() else "wrong"
                if any(trials.hidden(path) for path in left):  # nothing was killed: no lock either
                    how = "left over"
            tally.add(f"{row}, then {name}" if how not in ("same", "finished") else "then again",
                      "same" if how == "finished" else how, f"{pause:.2f} s", done)  # fmt: skip


def nameless(files: dict[str, str]) -> dict[str, str]:
    """Files with runs as they are without a name."""
    return {
        path: text.replace('"name": "first"', '"name": null').replace('"name": "second"',
                                                                      '"name": null')
        for path, text in files.items()
    }  # fmt: skip
