"""What reading a data set of N short texts takes, and embedding them: seconds and peak memory.

    python tests/bench/scale.py [--sizes 100000 1000000] [--forms csv jsonl parquet] [--embed]

Texts of 4 to 11 words, one of three labels each, are written to a file of each form by a seeded
generator. Each line is a process of its own: it reads the file, as `embed` does, and hashes what it
read; with `--embed` it embeds the file with a random BERT of width 16, in shards of 20 MB. Memory
is the most that the process held at once (VmHWM), less what it had held after a file of 100 texts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

LABELS, AT_ONCE = ("negative", "neutral", "positive"), 10_000
FEW, SHARD_SIZE = 100, "20MB"


def write(path: Path, count: int) -> None:
    """Write `count` texts, a few of them twice."""
    import pyarrow as pa
    from conftest import WORDS
    from pyarrow import csv, parquet

    random, writer = np.random.default_rng(0), None
    with path.open("wb") as file:
        for first in range(0, count, AT_ONCE):
            rows = range(first, min(first + AT_ONCE, count))
            words = random.choice(WORDS, (len(rows), 10)).tolist()
            lengths = random.integers(3, 11, len(rows)).tolist()
            numbers = random.integers(0, 100 * count, len(rows)).tolist()
            texts = [
                f"{' '.join(some[:length])} {number:x}"
                for some, length, number in zip(words, lengths, numbers, strict=True)
            ]
            labels = random.choice(LABELS, len(rows)).tolist()
            batch = pa.record_batch({"text": texts, "label": labels})
            if path.suffix == ".jsonl":
                lines = (json.dumps(row) + "\n" for row in batch.to_pylist())
                file.write("".join(lines).encode())
                continue
            make = csv.CSVWriter if path.suffix == ".csv" else parquet.ParquetWriter
            writer = writer or make(file, batch.schema)
            writer.write(batch)
        if writer is not None:
            writer.close()


def peak() -> float:
    """The most memory that this process has held, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def measure(path: Path, backbone: Path | None, folder: Path) -> None:
    """Print seconds and memory of the stages of one file, as JSON."""
    import spacelite
    from spacelite.data import loading

    def embed(path: Path) -> dict[str, float]:
        made = spacelite.embed(
            str(path), backbone=str(backbone), cache_dir=folder, layers=False, progress=False,
            shard_size=SHARD_SIZE,
        )  # fmt: skip
        return made.speed.stages

    def read(path: Path) -> dict[str, float]:
        started = time.perf_counter()
        data = loading.read(str(path))
        read = time.perf_counter()
        data.fingerprint  # noqa: B018
        return {"read": read - started, "hash": time.perf_counter() - read}

    run = read if backbone is None else embed
    run(path.with_name(f"{FEW}{path.suffix}"))  # imports what it needs
    held, started = peak(), time.perf_counter()
    stages = run(path)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "MB": peak() - held, "stages": stages}))


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--forms", nargs="+", default=["csv", "jsonl", "parquet"])
    parser.add_argument("--embed", action="store_true")
    parser.add_argument("--folder", type=Path, help="where files are made, and kept")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        backbone = None
        if options.embed:
            backbone = folder / "bert"
        if options.one is not None:
            with tempfile.TemporaryDirectory(dir=folder) as cache:
                measure(options.one, backbone, Path(cache))
            return
        if backbone is not None and not backbone.is_dir():
            from conftest import save_backbone

            save_backbone("bert", backbone)
        print("| file | texts | seconds | MB | stages |")
        print("| --- | ---: | ---: | ---: | --- |")
        for form in options.forms:
            for size in (FEW, *options.sizes):
                path = folder / f"{size}.{form}"
                if not path.exists():
                    write(path, size)
                if size == FEW:
                    continue
                command = [sys.executable, __file__, "--one", str(path), "--folder", str(folder)]
                command += ["--embed"] * options.embed
                found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                stages = ", ".join(f"{of} {took:.1f}" for of, took in found["stages"].items())
                cells = [
                    form,
                    f"{size:,}",
                    f"{found['seconds']:.1f}",
                    f"{found['MB']:,.0f}",
                    stages,
                ]
                print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
