"""How often the report says "beats" of systems that are equally good, and of better ones.

    python tests/bench/verdicts.py [--families N] [--examples N] [--cell SYSTEMS SEEDS VARIANCE]

Simulates families of systems: each system's heads, one per seed, are right or wrong on the same
test examples. An example's difficulty is shared by all systems, partly by the heads of one system,
and partly a head's own; the true accuracy of a head varies over seeds. `seed variance` is the
variance that seeds add to the difference of two heads, relative to what the examples add. A family
counts as an error if the system with the best accuracy is said to beat any other although all are
equally good: Holm's correction over all pairs, as in the report. The power is the share of pairs in
which a system that is better by so many points of accuracy is said to beat the other.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np
from scipy.stats import norm

from spacelite.metrics.significance import holm, over_seeds

ACCURACY = 0.65
SHARED, SYSTEM = 0.6, 0.15  # shares of an example's difficulty; the rest is a head's own
RATIOS = (0.0, 0.5, 1.0, 2.0, 8.0)
SEEDS = (3, 5, 10)
POINTS = (2, 4, 8)


def family(random, systems, seeds, examples, seed_deviation, better=0.0):
    """Whether each head is right on each example: (systems, seeds, N) of 0 and 1."""
    own = 1 - SHARED - SYSTEM
    difficulty = (
        SHARED**0.5 * random.normal(size=(1, 1, examples))
        + SYSTEM**0.5 * random.normal(size=(systems, 1, examples))
        + own**0.5 * random.normal(size=(systems, seeds, examples))
    )
    accuracy = ACCURACY + seed_deviation * random.normal(size=(systems, seeds, 1))
    accuracy[0] += better
    return (difficulty < norm.ppf(accuracy.clip(0.01, 0.99))).astype(float)


def beaten(scores):
    """Whether the best system is said to beat each other one."""
    pairs = list(itertools.combinations(range(len(scores)), 2))
    tests = [over_seeds(scores[one], scores[other], paired=True) for one, other in pairs]
    corrected = holm(np.array([test.p for test in tests]))
    best = int(scores.mean(axis=(1, 2)).argmax())
    return [p < 0.05 for pair, p in zip(pairs, corrected, strict=True) if best in pair]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", type=int, default=2000)
    parser.add_argument("--examples", type=int, default=1924)
    parser.add_argument("--cell", nargs=3, type=float, help="only this cell of the first table")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    sample = family(random, 2, 1, 1_000_000, 0.0)
    by_examples = (sample[0, 0] - sample[1, 0]).var() / options.examples
    print(f"{options.examples:,} examples; {options.families:,} families a cell")
    print(f"one head's difference varies by {100 * by_examples**0.5:.2f} points over examples\n")

    def errors(systems, seeds, deviation, families):
        """Families in which an equally good system is said to be beaten."""
        return sum(
            any(beaten(family(random, systems, seeds, options.examples, deviation)))
            for _ in range(families)
        )

    if options.cell is not None:
        systems, seeds, ratio = int(options.cell[0]), int(options.cell[1]), options.cell[2]
        deviation = (ratio * by_examples / 2) ** 0.5
        rate = errors(systems, seeds, deviation, options.families) / options.families
        error = 2 * (rate * (1 - rate) / options.families) ** 0.5
        print(f"{systems} systems, {seeds} seeds, seed variance {ratio:g}: "
              f"{100 * rate:.1f} ± {100 * error:.1f} % of families")  # fmt: skip
        return
    print("Said to beat although equally good, % of families")
    print("| systems | seeds |" + "".join(f" seed variance {ratio:g} |" for ratio in RATIOS))
    print("| ---: | ---: |" + " ---: |" * len(RATIOS))
    deviations = [(ratio * by_examples / 2) ** 0.5 for ratio in RATIOS]
    for systems, seeds in itertools.product((2, 10), SEEDS):
        families = options.families if systems == 2 else options.families // 4
        cells = []
        for deviation in deviations:
            wrong = errors(systems, seeds, deviation, families)
            cells.append(f"{100 * wrong / families:.1f}")
        print(f"| {systems} | {seeds} | " + " | ".join(cells) + " |", flush=True)
    print("\nPower with two systems, %")
    print("| points better | seeds |" + "".join(f" seed variance {r:g} |" for r in RATIOS))
    print("| ---: | ---: |" + " ---: |" * len(RATIOS))
    for points, seeds in itertools.product(POINTS, SEEDS):
        cells = []
        for deviation in deviations:
            families = options.families // 4
            found = 0
            for _ in range(families):
                scores = family(random, 2, seeds, options.examples, deviation, points / 100)
                found += beaten(scores)[0] and scores[0].mean() > scores[1].mean()
            cells.append(f"{100 * found / families:.0f}")
        print(f"| {points} | {seeds} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
