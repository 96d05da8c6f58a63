"""Training on hidden states that do not fit into memory: what a pass over the file costs, and what
it changes that only the examples of a window are shuffled.

    python tests/bench/streaming.py CACHE [--heads 1] [--seeds 3] [--epochs 15]

CACHE is a complete cache file. A window holds a tenth of the training split. Passes are over the
training split; in turns, the median of ROUNDS counts. `cold`: the system has dropped the file from
its memory before each pass. `plain read` reads the bytes of the hidden states in order. A block of
these passes has as many bytes as one of a window of the usual size. Then heads are trained for all
epochs with the full shuffle and with windows of as many blocks as usual, with the same seeds, and
the difference of their means is given with its interval (t, paired).
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import numpy as np
from scipy import stats

from spacelite import heads
from spacelite.cache.store import Cache
from spacelite.training import batches, engine, loop, memory
from spacelite.training.config import TrainingConfig

ROUNDS, PIECE, SHARE = 5, 2**23, 10
RESIDENT = memory.RESIDENT_SHARE
BLOCKS, BLOCK = batches.BLOCKS_PER_WINDOW, memory.WINDOW // batches.BLOCKS_PER_WINDOW
free_for_window = memory.free_for_window


def drop(path: Path) -> None:
    """Let the system forget what it holds of a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def plain_read(cache: Cache) -> float:
    """Seconds to read the bytes of the hidden states of train."""
    split = cache.splits["train"]
    place = cache.file.places["train/tokens"]
    left = split.tokens * split.stored.row_bytes(split.width)
    buffer = memoryview(bytearray(PIECE))
    started = time.perf_counter()
    with cache.path.open("rb", buffering=0) as file:
        file.seek(place.offset)
        while left > 0:
            left -= file.readinto(buffer[: min(PIECE, left)])
    return time.perf_counter() - started


def training(cache: Cache, workers: engine.Workers, count: int) -> loop._Training:
    """A training of some heads whose passes can be timed."""
    configs = [heads.config("space", seed=seed) for seed in range(count)]
    settings = TrainingConfig(epochs=100)
    return loop._Training(cache, configs, settings, "cpu", workers, lambda done, total: None)


def one_pass(of: loop._Training, epoch: int) -> float:
    """Seconds of a pass over train with its updates, without validation."""
    started = time.perf_counter()
    rows = of.splits["train"].shuffled(of.config.data_seed, epoch)
    for _ in of.heads.epoch(epoch, rows):
        pass
    return time.perf_counter() - started


def passes(cache: Cache, count: int) -> None:
    """Print what passes cost."""
    kinds = {
        "from memory": (RESIDENT, True),
        "streamed": (0.0, True),
        "streamed, not read ahead": (0.0, False),
    }
    found: dict[tuple[str, str], list[float]] = {}
    with engine.workers("cpu") as workers:
        trainings = {}
        for name, (share, _) in kinds.items():
            memory.RESIDENT_SHARE = share
            trainings[name] = training(cache, workers, count)
        for epoch in range(1, ROUNDS + 1):
            for state in ("cold", "warm"):
                for name in ("plain read", *kinds):
                    if state == "cold":
                        drop(cache.path)
                    if name == "plain read":
                        seconds = plain_read(cache)
                    else:
                        memory.free_for_window = lambda ahead=kinds[name][1]: ahead
                        seconds = one_pass(trainings[name], epoch)
                    found.setdefault((name, state), []).append(seconds)
    memory.free_for_window = free_for_window
    print(f"| {count} head{'s' * (count > 1)}, seconds a pass | cold | of a plain read | warm |")
    print("| --- | ---: | ---: | ---: |")
    for name in ("plain read", *kinds):
        cold, warm = (statistics.median(found[name, state]) for state in ("cold", "warm"))
        read = statistics.median(found["plain read", "cold"])
        print(f"| {name} | {cold:.2f} | {cold / read:.2f} | {warm:.2f} |")


def accuracy(cache: Cache, seeds: int, epochs: int) -> None:
    """Print what windows change."""
    print(f"\n| test, {epochs} epochs, {seeds} seeds: mean (from, to) | CE | accuracy |")
    print("| --- | ---: | ---: |")
    found = []
    for name, share in (("full shuffle", RESIDENT), ("shuffled in windows", 0.0)):
        memory.RESIDENT_SHARE = share
        metrics = []
        for seed in range(seeds):
            config = TrainingConfig(epochs=epochs, data_seed=seed)
            (head,) = loop.train(cache, [heads.config("space", seed=seed)], config)
            metrics.append(head.metrics["test"])
        cells = []
        for metric in ("ce", "accuracy"):
            values = [of[metric] for of in metrics]
            cells.append(f"{np.mean(values):.4f} ({min(values):.4f}, {max(values):.4f})")
            found.append(values)
        print(f"| {name} | {' | '.join(cells)} |")
    cells = []
    for before, after in zip(found[:2], found[2:], strict=True):
        differences = np.subtract(after, before)
        half = stats.t.ppf(0.975, seeds - 1) * stats.sem(differences)
        mean = differences.mean()
        cells.append(f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})")
    print(f"| difference for the same seed, 95% interval | {' | '.join(cells)} |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    parser.add_argument("--heads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    with Cache(options.cache) as cache:
        split = cache.splits["train"]
        memory.WINDOW = split.tokens * split.stored.row_bytes(split.width) // SHARE
        batches.BLOCKS_PER_WINDOW = memory.WINDOW // BLOCK
        passes(cache, options.heads)
        batches.BLOCKS_PER_WINDOW = BLOCKS
        accuracy(cache, options.seeds, options.epochs)


if __name__ == "__main__":
    main()
