"""Commands whose address space is limited, from too little to import anything up to enough:

    python tests/campaigns/memory.py [--trials 40] [--seed 0] [--commands embed,train]

Prints a line for each trial and how many ended in which way: finished; one line, an error with
nothing else around it; noise, such a line and others of a library; unexpected, traceback, abort,
hang. The last four fail the campaign.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import conftest

HANGS = 120  # seconds
LEAST, STEP = 24, 8  # MB of address space: an interpreter has about 16
BAD = ("unexpected", "traceback", "abort", "hang")
# Python runs this: limits come after the interpreter has started, and before anything is imported.
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


def commands(backbone: Path, data: Path) -> dict[str, list[object]]:
    """The arguments of each command, to which a cache folder is added."""
    return {
        "embed": ["embed", "--backbone", backbone, "--dataset", data, "--windows",
                  "--max-length", 16, "--no-reuse", "--dtype", "float32"],
        "train": ["train", "--epochs", 2, "--head", "space,linear", "--inter", "0,0.2"],
        "report": ["report"],
        "predict": ["predict", "data--linear", "a good film", "a dull plot"],
        "cv": ["cv", "--head", "linear", "--epochs", 1],
        "audit": ["audit", "--head", "logreg", "--folds", 3],
        "list": ["cache", "list"],
        "verify": ["cache", "verify", "bert"],
    }  # fmt: skip


def ended(done: subprocess.CompletedProcess[str] | None) -> str:
    """How a command ended."""
    if done is None:
        return "hang"
    if done.returncode < 0:
        return "abort"
    if done.returncode == 0:
        return "finished"
    if "this is a bug" in done.stderr:
        return "unexpected"
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    if "Traceback" in done.stderr or len(errors) != 1 or done.returncode != 1:
        return "traceback"
    foreign = ("OpenBLAS", "terminate called", "libgomp", "OMP:", "Exception", "Warning")
    return "noise" if any(word in done.stderr for word in foreign) else "one line"


def run(arguments: list[object], limit: int) -> subprocess.CompletedProcess[str] | None:
    """Run a command with so many MB, 0 for all there are; None if it does not end."""
    words = [sys.executable, "-c", LIMITED, str(limit), *map(str, arguments)]
    try:
        return subprocess.run(
            words, capture_output=True, text=True, timeout=HANGS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return None


def main() -> int:
    """Print the table; 1 if a trial failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default="", help="some of them, with commas")
    options = parser.parse_args()
    chance, counts = random.Random(options.seed), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        folder = Path(name)
        backbone = conftest.save_backbone("bert", folder / "bert")
        data = conftest.write_dataset(folder / "data", {"train": 60, "validation": 20, "test": 20})
        every = commands(backbone, data)
        chosen = options.commands.split(",") if options.commands else list(every)
        ready = ["--cache-dir", folder / "ready"]
        peaks = {}
        for command, arguments in every.items():  # each needs what the former one made
            if command in chosen or command in ("embed", "train"):
                done = run([*arguments, *ready], 0)
                assert done is not None and done.returncode == 0, (command, done)
                peaks[command] = int(done.stdout.rsplit("peak", 1)[1]) >> 10
        print(f"{'command':8} {'limit MB':>8} {'of':>6}  ended       said")
        for trial in range(options.trials):
            command = chosen[trial % len(chosen)]
            limit = chance.randrange(LEAST, peaks[command] + 2 * STEP, STEP)
            copy = folder / "copy"
            if command != "embed":
                shutil.copytree(folder / "ready", copy)
            done = run([*every[command], "--cache-dir", copy], limit)
            shutil.rmtree(copy, ignore_errors=True)
            how = ended(done)
            counts[how] += 1
            said = (done.stderr.strip().splitlines() or [""])[-1] if done else ""
            print(f"{command:8} {limit:8,} {peaks[command]:6,}  {how:10}  {said[:150]}", flush=True)
            if done and how in (*BAD, "noise") and os.environ.get("SPACELITE_DEBUG_CAMPAIGN"):
                print(done.stderr)
    print(", ".join(f"{how}: {count}" for how, count in counts.most_common()))
    return int(any(counts[how] for how in BAD))


if __name__ == "__main__":
    sys.exit(main())
