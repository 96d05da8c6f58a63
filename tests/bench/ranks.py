"""Time an epoch of training on several processes, and what they wait for each other.

    python tests/bench/ranks.py CACHE_DIR [--heads 1 8 64] [--rounds 5] [--json]

CACHE_DIR has a complete cache. One process of one thread, one of two threads, and two of one thread
are measured in turns, each started by torchrun; of all epochs but the first, which reads memory for
the first time, the median counts. `processor` is the processor time of the process that needs most:
on a busy machine it says more than the clock. `adding up` is the share of an epoch that process 0
spends in all-reduce: waiting for the other, and sending. `sending` is what the same sums take while
both processes do nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

WAYS = [(1, 1), (1, 2), (2, 1)]  # processes, threads of each
EPOCHS = 4
LOSSES = [(0.2, 0.001), (0.0, 0.0), (0.2, 0.0), (0.0, 0.001)]  # inter, intra: in turn


def measured(cache_dir, heads):
    """In a process of torchrun: of each epoch the seconds, those of the processor, and those of
    adding up; and the seconds of sending alone."""
    import torch
    import torch.distributed as dist

    import spacelite
    from spacelite import heads as kinds
    from spacelite import ranks
    from spacelite.cache.store import Cache
    from spacelite.training import loop
    from spacelite.training.config import TrainingConfig

    sums, real, epochs, sizes = [], dist.all_reduce, [], []

    def all_reduce(values, async_op):
        started = time.perf_counter()
        real(values)
        sums.append(time.perf_counter() - started)
        sizes.append(values.numel())
        return Done()

    class Done:
        def wait(self, timeout):
            pass

    def epoch(self, number):
        sums.clear(), sizes.clear()
        started, used = time.perf_counter(), time.process_time()
        of_epoch(self, number)
        seconds, used = time.perf_counter() - started, time.process_time() - used
        adding = sum(sums)
        epochs.append((seconds, float(ranks.gather(torch.tensor([used])).max()), adding))

    dist.all_reduce = all_reduce
    of_epoch, loop._Training._epoch = loop._Training._epoch, epoch
    configs = [
        kinds.config("space", seed=number, inter=inter, intra=intra)
        for number in range(heads)
        for inter, intra in [LOSSES[number % len(LOSSES)]]
    ]
    path = spacelite.find_cache(cache_dir=cache_dir).path
    with ranks.joined(), Cache(path) as cache:
        loop.train(cache, configs, TrainingConfig(epochs=EPOCHS))
        sending = 0.0
        if ranks.size() > 1:
            parts = [torch.zeros(size) for size in sizes]
            ranks.barrier()
            started = time.perf_counter()
            for part in parts:
                real(part)
            sending = time.perf_counter() - started
    if ranks.launched().rank == 0:
        print(json.dumps([epochs[1:], sending]))


def run(cache_dir, heads, processes, threads):
    """The epochs of one training, and the seconds of sending alone."""
    command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *command, __file__, cache_dir, "--measure", str(heads)],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache_dir")
    parser.add_argument("--heads", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measured(options.cache_dir, options.measure)
    lines = []
    for heads in options.heads:
        runs = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way in WAYS:
                runs[way].append(run(options.cache_dir, heads, *way))
        for (processes, threads), of_way in runs.items():
            epochs = [epoch for of_run, _ in of_way for epoch in of_run]
            seconds = statistics.median(epoch for epoch, _, _ in epochs)
            lines.append(
                {
                    "heads": heads, "processes": processes, "threads": threads,
                    "seconds": seconds, "fastest": min(epoch for epoch, _, _ in epochs),
                    "processor": statistics.median(used for _, used, _ in epochs),
                    "adding up": statistics.median(adding / epoch for epoch, _, adding in epochs),
                    "sending": statistics.median(sending for _, sending in of_way) / seconds,
                }
            )  # fmt: skip
    if options.json:
        return print(json.dumps(lines, indent=1))
    print("heads  processes x threads  s an epoch (fastest)  processor  adding up  sending")
    for line in lines:
        way = f"{line['processes']} x {line['threads']}"
        seconds = f"{line['seconds']:.3f} ({line['fastest']:.3f})"
        print(f"{line['heads']:5}  {way:>19}  {seconds:>20}  {line['processor']:9.3f}  "
              f"{line['adding up']:9.0%}  {line['sending']:7.0%}")  # fmt: skip
    return None


if __name__ == "__main__":
    main()
