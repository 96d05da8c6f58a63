"""Tries to break what docs/guarantees.md promises:

    python tests/campaigns kills flips [--trials 500] [--seed 0]

Prints a table for each campaign, and a line for each broken promise, which repeats it.
"""

from __future__ import annotations

import argparse
import importlib
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import trials

NAMES = ("kills", "power_cut", "full_disk", "flips", "concurrency", "hostile", "fuzz", "memory")


def main() -> int:
    """Run the campaigns that are named; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=NAMES, metavar="name", help=", ".join(NAMES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, help="of each campaign; 0: all; by default its own")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the table so far is printed
    broken = 0
    # What a process that is being killed still writes may stay.
    with tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as folder:
        world = trials.World(Path(folder))
        for name in options.names:
            campaign, tally, begun = importlib.import_module(name), trials.Tally(), time.monotonic()
            count = campaign.TRIALS if options.trials is None else options.trials
            try:
                campaign.run(world, random.Random(options.seed), count, tally)
            finally:
                world.reader.close()
                broken += len(tally.broken)
                seconds = time.monotonic() - begun
                print(f"{name}, seed {options.seed}, {seconds:.0f} s, broken: {len(tally.broken)}")
                tally.print()
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
