"""How well `audit` finds labels that were flipped.

    python tests/bench/audit.py --dataset data/hatexplain [--limit N] [--share 0.05] [--cache-dir F]

5% of the training labels of a data set are replaced by another label at random. The hidden states
are copied from a cache of the same texts, if there is one in the folder. Precision: the share of
the first K findings, and of all, that were flipped, with K flipped labels; recall: the share of
flipped labels that is among them. The data's own mistakes count against precision.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import spacelite
from spacelite.data import loading as data


def main():
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="hatexplain")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    parser.add_argument("--backbone", default="minilm")
    options = parser.parse_args()
    dataset = data.read(options.dataset, limit=options.limit)
    train, names = dataset.splits["train"], dataset.label_names
    random = np.random.default_rng(0)
    flipped = random.choice(len(train), round(options.share * len(train)), replace=False)
    labels = train.labels.copy()
    labels[flipped] += random.integers(1, len(names), len(flipped))
    labels %= len(names)
    splits = {
        "train": (list(train.texts), [names[number] for number in labels]),
        "validation": (
            list(dataset.splits["validation"].texts),
            [names[number] for number in dataset.splits["validation"].labels],
        ),
    }
    cache = spacelite.embed(
        splits, backbone=options.backbone, name=f"{dataset.name}-flipped",
        cache_dir=options.cache_dir,
    )  # fmt: skip
    wrong = set(flipped.tolist())
    print(f"{len(train):,} training examples, {len(wrong):,} labels flipped:\n")
    print("| head | seconds | agrees with labels | findings | precision | recall "
          "| of the first K: precision = recall |")  # fmt: skip
    print("| --- |" + " ---: |" * 6)
    for head in ("additive", "tfidf", "logreg"):
        started = time.perf_counter()
        found = spacelite.audit(cache, head=head)
        seconds = time.perf_counter() - started
        every = {one.index for one in found.findings}
        first = {one.index for one in found.findings[: len(wrong)]}
        print(
            f"| {head} | {seconds:.1f} | {found.result.accuracy:.3f} | {len(every):,} "
            f"| {len(every & wrong) / len(every):.3f} | {len(every & wrong) / len(wrong):.3f} "
            f"| {len(first & wrong) / len(wrong):.3f} |"
        )


if __name__ == "__main__":
    main()
