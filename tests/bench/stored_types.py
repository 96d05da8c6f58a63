"""What hidden states in fewer bits or dimensions cost: speed, accuracy, macro F1, CE.

    python tests/bench/stored_types.py --dataset hatexplain imdb --data-dir data [--limit N]
    python tests/bench/stored_types.py --types "float16" "float16, computed in bfloat16" ...
    python tests/bench/stored_types.py steps --dataset hatexplain --data-dir data

Each data set is embedded anew in each stored type, with a forward pass in bfloat16, and reduced to
principal axes, in a temporary folder, and heads are trained on each cache with the same seeds:
`space` (15 epochs, the published protocol, and settings that learn faster) and `--preset best`.
Figures are of the test split, means over the seeds. Differences are to float32, paired by seed and
example, with 95% intervals over both, computed as the report does. Training speed is of `space`,
all seeds in one pass, with its validation; the types take turns, and the fastest turn counts.

`steps`: tokens are rounded to steps so many times as large as those of int8, in memory: how
large an error of the dimensions does it take to lose accuracy?
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import spacelite
from spacelite import heads
from spacelite.cache.dtypes import DTYPES, Rounding, StoredType, rounding_sums, stored_type
from spacelite.cache.split import TokenRows
from spacelite.metrics.significance import f1_values, over_seeds
from spacelite.training import loop
from spacelite.training.batches import ArrayData
from spacelite.training.config import TrainingConfig

TURNS, TURN_EPOCHS = 3, 3
SPACE = {"head": "space", "epochs": 15}
TUNED = {"latent": 16, "learning_rate": 5e-3}
HEADS = [
    ("space", SPACE),
    ("space L=16, learning rate 0.005", {**SPACE, **TUNED}),
    ("preset best", {"preset": "best"}),
]
STEPS = (1, 2, 4, 8, 16, 32)  # times those of int8
EXACT = "float32"  # what the others are held against
# Options of `embed` by what the table calls them.
TYPES = {
    EXACT: {"dtype": EXACT},
    **{name: {"dtype": name} for name in DTYPES if name != EXACT},
    "float16, computed in bfloat16": {"dtype": "float16", "precision": "bfloat16"},
    "bfloat16, computed in bfloat16": {"dtype": "bfloat16", "precision": "bfloat16"},
    **{f"float16, reduced to {axes}": {"reduce": axes} for axes in (192, 128, 64)},
    "int8, reduced to 128": {"dtype": "int8", "reduce": 128},
}


def scores(logits, labels, f1):
    """Whether each example is right, its macro F1's pseudo-value and its cross-entropy, of K heads:
    three arrays (K, N)."""
    right = np.stack([own.argmax(axis=1) == labels for own in logits]).astype(np.float64)
    shifted = [own - own.max(axis=1, keepdims=True) for own in np.asarray(logits, np.float64)]
    ce = np.stack(
        [np.log(np.exp(own).sum(axis=1)) - own[np.arange(len(labels)), labels] for own in shifted]
    )
    return {"accuracy": right, "macro F1": f1, "CE": ce}


def interval(one, other, scale, digits):
    """`+0.02 (−0.10 to +0.14)`: the difference of two tables of scores, (K, N)."""
    found = over_seeds(one, other, paired=True).difference
    value, low, high = (scale * each for each in (found.value, *found.interval))
    text = f"{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"
    return text.replace("-", "−")


def trained(cache, arguments, seeds, folder):
    """The scores of a head's seeds on test."""
    runs = spacelite.train(
        cache, **arguments, seeds=seeds, baselines=False, cache_dir=folder, progress=False
    )
    found = [run.run.predictions() for run in sorted(runs, key=lambda run: run.record.seed)]
    f1 = np.stack([f1_values(own) for own in found])
    return scores([own.logits for own in found], found[0].labels, f1)


def embedded(dataset, options, folder):
    """The caches by type, and the tokens a second of their embedding."""
    caches, speeds = {}, {}
    spacelite.embed("demo", backbone=options.backbone, limit=20, cache_dir=folder / "warm-up")
    for name in (EXACT, *options.types):
        types = TYPES[name]
        cache = spacelite.embed(
            dataset, backbone=options.backbone, **types, limit=options.limit,
            data_dir=options.data_dir, cache_dir=folder, reuse=False,
        )  # fmt: skip
        caches[name], speeds[name] = cache, cache.state.tokens / cache.seconds
    return caches, speeds


def row_bytes(cache):
    """Stored bytes of a token."""
    with cache.open() as opened:
        split = opened.splits["train"]
        return split.stored.row_bytes(split.width)


def train_speeds(caches, seeds):
    """Tokens a second of training `space`, by type."""
    configs = [heads.config("space", seed=seed) for seed in range(seeds)]
    best = dict.fromkeys(caches, 0.0)
    for _ in range(TURNS):
        for name, cache in caches.items():
            with cache.open() as opened:
                tokens = TURN_EPOCHS * opened.splits["train"].tokens
                started = time.perf_counter()
                loop.train(opened, configs, TrainingConfig(epochs=TURN_EPOCHS))
                best[name] = max(best[name], tokens / (time.perf_counter() - started))
    return best


def table(dataset, options):
    """The lines of a data set."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        caches, embed_speeds = embedded(dataset, options, folder)
        speeds = train_speeds(caches, options.seeds)
        with caches[EXACT].open() as opened:
            sizes = ", ".join(f"{len(own):,} {name}" for name, own in opened.splits.items())
        yield f"\n{dataset}, {options.backbone}: {sizes}\n"
        yield (
            "| head | type | bytes per token | embed: tokens/s | train: tokens/s | accuracy | "
            "macro F1 | CE | accuracy − float32, points | macro F1 − float32, points | "
            "CE − float32 |"
        )
        yield "| --- | --- |" + " ---: |" * 9
        for title, arguments in HEADS:
            found = {
                name: trained(cache, arguments, options.seeds, folder)
                for name, cache in caches.items()
            }
            for name, own in found.items():
                exact = found[EXACT]
                yield "| " + " | ".join(
                    [
                        title, name, f"{row_bytes(caches[name]):,}",
                        f"{embed_speeds[name]:,.0f}",
                        f"{speeds[name]:,.0f}" if title == "space" else "",
                        *(f"{own[metric].mean():.4f}" for metric in own),
                        *(
                            "" if name == EXACT else interval(own[metric], exact[metric], *how)
                            for metric, how in (
                                ("accuracy", (100, 2)), ("macro F1", (100, 2)), ("CE", (1, 5)),
                            )
                        ),
                    ]
                ) + " |"  # fmt: skip


def coarse(factor):
    """A type whose steps are `factor` times those of int8; its rows are float32."""

    def to_rows(hidden):
        step = hidden.abs().amax(dim=-1, keepdim=True) * (factor / 127)
        return (hidden / step).round_().mul_(step)

    exact = stored_type(EXACT)
    return StoredType(EXACT, to_rows, widen=exact.widen, read=exact.read, measured=True)


def rounded(opened, stored):
    """The splits of a cache as a type would store them, and the errors of the train split."""
    splits, errors = {}, None
    for name, split in opened.splits.items():
        hidden = torch.from_numpy(split.read_hidden(0, len(split)))
        rows = stored.encode(hidden)
        measure = rounding_sums(stored)
        if name == "train" and measure is not None:
            rounding = Rounding(stored)
            rounding.add(len(hidden), measure(hidden, torch.from_numpy(rows)).numpy())
            errors = rounding.result()
        splits[name] = TokenRows(
            rows=rows, offsets=split.offsets, labels=split.labels,
            stored=stored_type(EXACT),
        )  # fmt: skip
    return ArrayData(splits, opened.label_names), errors


def coarser(dataset, options):
    """The lines of what larger steps cost."""
    with tempfile.TemporaryDirectory() as place:
        cache = spacelite.embed(
            dataset, backbone=options.backbone, dtype=EXACT, limit=options.limit, layers=False,
            data_dir=options.data_dir, cache_dir=Path(place),
        )  # fmt: skip
        kinds = {"space": {}, "space L=16, learning rate 0.005": TUNED}
        yield f"\n{dataset}, {options.backbone}\n"
        yield (
            "| steps of int8 times | error of a dimension: median | worst | "
            + " | ".join(f"{name}: CE − float32" for name in kinds) + " |"
        )  # fmt: skip
        yield "| ---: |" + " ---: |" * (2 + len(kinds))
        with cache.open() as opened:
            labels, exact = opened.splits["test"].labels, {}
            for factor in (0, *STEPS):
                stored = coarse(factor) if factor else stored_type(EXACT)
                data, errors = rounded(opened, stored)
                cells = []
                for name, settings in kinds.items():
                    configs = [
                        heads.config("space", seed=seed, **settings)
                        for seed in range(options.seeds)
                    ]
                    found = loop.train(data, configs, TrainingConfig(epochs=15))
                    logits = [own.logits["test"].numpy() for own in found]
                    ce = scores(logits, labels, None)["CE"]
                    exact.setdefault(name, ce)
                    cells.append(interval(ce, exact[name], 1, 4) if factor else "")
                if factor:
                    of = f"{errors.median:.1%} | {errors.worst:.1%}"
                    yield f"| {factor} | {of} | {' | '.join(cells)} |"


def main():
    """Print markdown tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("types", "steps"), default="types")
    parser.add_argument("--dataset", nargs="+", default=["hatexplain", "imdb"])
    parser.add_argument("--data-dir", type=Path, help="folder of local data sets")
    parser.add_argument("--limit", type=int, help="most examples per split")
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--seeds", type=int, default=3)
    others = [name for name in TYPES if name != EXACT]
    parser.add_argument("--types", nargs="+", choices=others, default=others)
    options = parser.parse_args()
    for dataset in options.dataset:
        for line in (
            table(dataset, options) if options.what == "types" else coarser(dataset, options)
        ):
            print(line, flush=True)


if __name__ == "__main__":
    main()
