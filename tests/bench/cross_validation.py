"""What `cv` of a grid costs: every head of every fold in one pass, against training them apart.

    python tests/bench/cross_validation.py CACHE [--folds 5] [--epochs 15] [--apart 12]

12 settings of a space head (learning rate, L, inter, intra) on the train split of a cache. Each
line is measured in the same process, one after the other; `--apart` heads are trained one by one,
and the time is scaled to all of them. scikit-learn's cross_val_score fits LogisticRegression to the
means of tokens, which it is given.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spacelite import heads
from spacelite.cache.store import Cache
from spacelite.studies.cross_validation import cross_validate, divide
from spacelite.training.batches import TokenSplit
from spacelite.training.config import TrainingConfig
from spacelite.training.loop import Member, train_weighted

GRID = [
    heads.config("space", learning_rate=rate, latent=latent, inter=inter, intra=intra)
    for rate, latent, (inter, intra) in itertools.product(
        (2e-4, 1e-3, 5e-3), (3, 4), ((0.0, 0.0), (0.2, 0.001))
    )
]


def timed(call):
    """What a call returns, and its seconds."""
    started = time.perf_counter()
    return call(), time.perf_counter() - started


def main():
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cache", type=Path, help="a cache file")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--apart", type=int, default=12, help="heads that are trained one by one")
    options = parser.parse_args()
    training = TrainingConfig(epochs=options.epochs)
    with Cache(options.cache) as cache:
        labels = cache.splits["train"].labels
        ones = np.ones(len(labels), np.float32)
        whole = [Member(config, ones) for config in GRID]
        _, once = timed(lambda: train_weighted(cache, whole, training))
        found, together = timed(lambda: cross_validate(cache, GRID, training, folds=options.folds))
        fold = divide(labels, cache.task, cache.label_names, count=options.folds)[0]
        apart = [
            Member(config, (fold != number).astype(np.float32))
            for config in GRID
            for number in range(options.folds)
        ]
        chosen = apart[:: max(1, len(apart) // options.apart)]
        _, single = timed(lambda: [train_weighted(cache, [member], training) for member in chosen])
        single *= len(apart) / len(chosen)
        same = StratifiedKFold(options.folds, shuffle=True, random_state=0)
        means = TokenSplit(cache.splits["train"]).features("mean").numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=1000))
        scores, learned = timed(lambda: cross_val_score(model, means, labels, cv=same))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"{cores} cores, {len(labels):,} training examples, {options.epochs} epochs:\n")
    print("| | seconds | times one training of the grid |\n| --- | ---: | ---: |")
    for name, seconds in (
        (f"the grid once, {len(GRID)} heads", once),
        (f"cv of the grid, {len(apart)} heads in one pass", together),
        (f"the same {len(apart)} heads one by one ({len(chosen)} measured)", single),
        ("cross_val_score of LogisticRegression on the means", learned),
    ):
        print(f"| {name} | {seconds:.1f} | {seconds / once:.1f} |")
    best = found.systems[0]
    print(
        f"\nbest head: {found.name_of(best)}, accuracy {best.mean('accuracy'):.3f}; "
        f"LogisticRegression {scores.mean():.3f}"
    )


if __name__ == "__main__":
    main()
