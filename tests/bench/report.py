"""How long reports of 200 runs and explanations of cached examples take, as whole commands:
python tests/bench/report.py CACHE.h5 [--rounds 3]

Trains 20 settings of the losses with 10 seeds each on the cache, in a folder of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPACELITE = Path(sys.executable).with_name("spacelite")
TRAIN = (
    "train --head space --inter 0,0.1,0.2,0.3,0.4 --intra 0,0.0005,0.001,0.002 --seeds 10 "
    "--epochs 3"
)


def run(*words: object) -> float:
    """Seconds that a command took."""
    started = time.perf_counter()
    subprocess.run(
        [str(SPACELITE), *map(str, words)], check=True, capture_output=True
    )  # fmt: skip
    return time.perf_counter() - started


def main() -> None:
    """Print a markdown table: the fastest and the slowest of each command's rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "embeddings").mkdir()
        path = options.cache.resolve()
        (place / "embeddings" / path.name).symlink_to(path)
        there = ("--cache-dir", place)
        run(*TRAIN.split(), *there)
        names = sorted(found.name for found in (place / "runs").glob("[!.]*"))
        commands: dict[str, tuple[object, ...]] = {
            "report": ("report", *there),
            "report --json": ("report", "--json", *there),
            "report --format markdown": ("report", "--format", "markdown", *there),
            "report --format html": ("report", "--format", "html", "--out", place / "o", *there),
            "explain RUN --example test:17": ("explain", names[0], "--example", "test:17", *there),
        }
        print(f"| {len(names)} runs | seconds, fastest | slowest of {options.rounds} |")
        print("| --- | ---: | ---: |")
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, words in commands.items():
                seconds[name].append(run(*words))
        for name, values in seconds.items():
            print(f"| `{name}` | {min(values):.1f} | {max(values):.1f} |")
        page = (place / "o" / "index.html").stat().st_size
        print(f"\nThe page: {page / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
