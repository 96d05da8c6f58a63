"""Commands whose address space is limited, from too little to import anything up to enough:

    python tests/campaigns memory [--trials 80] [--seed 0]

Each finishes, or ends with one line. Prints a line for each trial; `noise` is an error of one line
with others of a library around it.
"""

from __future__ import annotations

import random
import shutil

import trials
from trials import Done, Tally, World

TRIALS = 80
LEAST, STEP = 24, 8  # MB of address space: an interpreter has about 16
NEEDS = ("embed", "train")
COMMANDS = {
    "embed": "embed --backbone ~/bert --dataset ~/data --windows --max-length 16 --no-reuse "
             "--dtype float32",
    "train": "train --epochs 2 --head space,linear --inter 0,0.2 --fresh",
    "report": "report",
    "predict": "predict bert--data--linear film plot",
    "cv": "cv --head linear --epochs 1",
    "audit": "audit --head logreg --folds 3",
    "list": "cache list",
    "verify": "cache verify bert",
}  # fmt: skip
FOREIGN = ("OpenBLAS", "terminate called", "libgomp", "OMP:", "Exception", "Warning")
# An interpreter runs this: limits come after it has started, and before anything is imported.
LIMITED = """
import resource, sys
limit = int(sys.argv.pop(1)) << 20
resource.setrlimit(resource.RLIMIT_AS, (limit or resource.RLIM_INFINITY,) * 2)
from spacelite_cli import main
try:
    main()
finally:
    if not limit:
        print("peak", open("/proc/self/status").read().split("VmPeak:")[1].split()[0])
"""


def limited(world: World, name: str, limit: int) -> Done | None:
    """Run a command in a fresh folder with so many MB, 0 for all there are; None if it hangs."""
    world.ready(NEEDS)
    if name == "embed":
        shutil.rmtree(world.at / "cache")
    words = [limit, *COMMANDS[name].replace("~", str(world.folder)).split()]
    return trials.waited(
        trials.processes.start(LIMITED, *words, "--cache-dir", world.at / "cache", fresh=True)
    )


def ended(done: Done | None) -> str:
    """How a command ended."""
    how = trials.ended(done)
    noisy = done is not None and how == "refused" and any(word in done.stderr for word in FOREIGN)
    return "noise" if noisy else how


def run(world: World, chance: random.Random, count: int, tally: Tally) -> None:
    """Find out what each command needs, then give it less."""
    count = count or TRIALS
    names = list(COMMANDS)[:: max(1, len(COMMANDS) // count)]
    peaks = {}
    for name in names:
        done = limited(world, name, 0)
        assert done is not None and done.returncode == 0, (name, done)
        peaks[name] = int(done.stdout.rsplit("peak", 1)[1]) >> 10
    for number in range(count):
        name = names[number % len(names)]
        limit = chance.randrange(LEAST, peaks[name] + 2 * STEP, STEP)
        done = limited(world, name, limit)
        said = (done.stderr.strip().splitlines() or [""])[-1] if done else ""
        print(f"{name:8} {limit:6,} of {peaks[name]:6,} MB  {ended(done):10}  {said[:150]}")
        tally.add(name, ended(done), f"{limit} MB", done)
