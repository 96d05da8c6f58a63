"""What hidden states in fewer bits or dimensions cost: bytes, speed, accuracy, macro F1, CE.

    python tests/bench/stored_types.py --dataset hatexplain imdb --data-dir data [--limit N]
    python tests/bench/stored_types.py --backbone FOLDER --types int4 "float16, reduced to 256" ...
    python tests/bench/stored_types.py --types "float16, computed in bfloat16" --heads space ...
    python tests/bench/stored_types.py join PART.jsonl ...
    python tests/bench/stored_types.py steps --dataset hatexplain --data-dir data

Each data set is embedded in each of `--types`, which may be reduced to principal axes or have a
forward pass in bfloat16, in a temporary folder, and heads are trained on each with the same seeds:
`space` (15 epochs, the published protocol, and settings that learn faster) and `--preset best`.
Figures are of the test split, means over the seeds. Differences are to float32, paired by seed and
example, with 95% intervals over both, computed as the report does.

The backbone runs on a text once for all types that compute alike. Therefore embedding speed is
measured before, of `--timed` examples per split: tokens a second of the whole command, without
loading the backbone. Training speed is of `space`, all seeds in one pass, with its validation. The
types take turns, and the fastest turn counts.

Each line of the table is appended to the file `--json` too, as an object with its data set,
backbone, sizes and settings: `join` prints one table of those of several runs.

`steps`: tokens are rounded to steps so many times as large as those of int8, in memory: how
large an error of the dimensions does it take to lose accuracy?
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

import spacelite
from spacelite import heads
from spacelite.backbones.model import Backbone, HiddenStates
from spacelite.cache.dtypes import DTYPES, Rounding, StoredType, rounding_sums, stored_type
from spacelite.cache.split import TokenRows
from spacelite.metrics.significance import f1_values, over_seeds
from spacelite.training import loop
from spacelite.training.batches import ArrayData
from spacelite.training.config import TrainingConfig

TURNS, TURN_EPOCHS = 3, 3
SPACE = {"head": "space", "epochs": 15}
TUNED = {"latent": 16, "learning_rate": 5e-3}
HEADS = {
    "space": SPACE,
    "space L=16, learning rate 0.005": {**SPACE, **TUNED},
    "preset best": {"preset": "best"},
}
STEPS = (1, 2, 4, 8, 16, 32)  # times those of int8
EXACT = "float32"  # what the others are held against
OTHERS = [name for name in DTYPES if name != EXACT]
REDUCED = [f"float16, reduced to {axes}" for axes in (192, 128, 64)]
TYPE = re.compile(  # with the options of `embed`
    r"(?P<dtype>\w+)(, reduced to (?P<reduce>\d+))?(, computed in (?P<precision>\w+))?"
)
# What a row is about, and what two runs that are joined have to have in common.
DATA = ("dataset", "backbone", "sizes", "seeds")
# Of each metric the factor and the digits in which its difference is printed.
METRICS = {"accuracy": (100, 2), "macro F1": (100, 2), "CE": (1, 5)}


def stored_as(name):
    """What the table calls a type, if it is one other than EXACT."""
    found = TYPE.fullmatch(name)
    if not found or found["dtype"] not in OTHERS:
        raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(OTHERS + REDUCED)}, ...")
    return name


def embed_options(name):
    """The options of `embed` for what the table calls so."""
    given = {key: value for key, value in TYPE.fullmatch(name).groupdict().items() if value}
    return {**given, **({"reduce": int(given["reduce"])} if "reduce" in given else {})}


def scores(logits, labels, f1):
    """Whether each example is right, its macro F1's pseudo-value and its cross-entropy, of K heads:
    three arrays (K, N)."""
    right = np.stack([own.argmax(axis=1) == labels for own in logits]).astype(np.float64)
    shifted = [own - own.max(axis=1, keepdims=True) for own in np.asarray(logits, np.float64)]
    ce = np.stack(
        [np.log(np.exp(own).sum(axis=1)) - own[np.arange(len(labels)), labels] for own in shifted]
    )
    return {"accuracy": right, "macro F1": f1, "CE": ce}


def difference(one, other):
    """Of two tables of scores, (K, N), with the ends of its interval."""
    found = over_seeds(one, other, paired=True).difference
    return [found.value, *found.interval]


def interval(values, scale, digits):
    """`+0.02 (−0.10 to +0.14)`."""
    value, low, high = (scale * each for each in values)
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


def embedded(dataset, name, options, folder, limit):
    """A cache in a type of the table."""
    return spacelite.embed(
        dataset, backbone=options.backbone, **embed_options(name), limit=limit,
        data_dir=options.data_dir, cache_dir=folder, reuse=False, progress=False,
    )  # fmt: skip


def embed_speeds(dataset, options):
    """Tokens a second of embedding `options.timed` examples, by type."""
    best = dict.fromkeys((EXACT, *options.types), 0.0)
    for _ in range(TURNS):
        for name in best:
            with tempfile.TemporaryDirectory() as place:
                speed = embedded(dataset, name, options, place, options.timed).speed
            seconds = speed.seconds - speed.stages["loading the backbone"]
            best[name] = max(best[name], speed.tokens / seconds)
    return best


@contextmanager
def remembered():
    """Texts that the backbone was run on are not run again. Layers are those of one text at a
    time, whatever batch it is in: their last bits alone depend on that."""
    known, run = {}, Backbone.hidden_states

    def hidden_states(self, ids, type_ids, mask, weights=None):
        kind = str(next(self.model.parameters()).dtype)
        keys = [(kind, row.tobytes()) for row in np.asarray(ids, np.int64)]
        if not all(key in known for key in keys):
            found = run(self, ids, type_ids, mask, weights)
            parts = (found.hidden, found.pooled, found.means)
            for row, key in enumerate(keys):
                known[key] = [None if part is None else part[row].clone() for part in parts]
        parts = zip(*(known[key] for key in keys), strict=True)
        return HiddenStates(*(None if part[0] is None else torch.stack(part) for part in parts))

    Backbone.hidden_states = hidden_states
    try:
        yield
    finally:
        Backbone.hidden_states = run


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


def measured(dataset, options):
    """The rows of a data set, one for each head and type."""
    speeds = embed_speeds(dataset, options)
    with tempfile.TemporaryDirectory() as place, remembered():
        caches = {
            name: embedded(dataset, name, options, Path(place), options.limit) for name in speeds
        }
        training = train_speeds(caches, options.seeds)
        with caches[EXACT].open() as opened:
            sizes = {name: len(split) for name, split in opened.splits.items()}
        data = (dataset, Path(options.backbone).name, sizes, options.seeds)
        for head in options.heads:
            exact = None
            for name, cache in caches.items():
                found = trained(cache, HEADS[head], options.seeds, place)
                exact = exact or found
                yield {
                    **dict(zip(DATA, data, strict=True)), "head": head, "type": name,
                    "bytes per token": row_bytes(cache), "embed": speeds[name],
                    "train": training[name],
                    **{metric: own.mean() for metric, own in found.items()},
                    "differences": {
                        metric: difference(own, exact[metric])
                        for metric, own in found.items() if name != EXACT
                    },
                }  # fmt: skip


def line(row):
    """A row as a line of markdown."""
    cells = [row["head"], row["type"], f"{row['bytes per token']:,}", f"{row['embed']:,.0f}"]
    cells += [f"{row['train']:,.0f}", *(f"{row[metric]:.4f}" for metric in METRICS)]
    for metric, how in METRICS.items():
        cells.append(interval(row["differences"][metric], *how) if row["differences"] else "")
    return f"| {' | '.join(cells)} |"


def tables(rows):
    """The lines of tables, one for each data set and backbone, as rows come. What was measured
    twice, as float32 is in every part, is there once."""
    title, printed = None, set()
    for row in rows:
        of_data = [row[name] for name in DATA]
        key = json.dumps([of_data, row["head"], row["type"]])
        if key in printed:
            continue
        printed.add(key)
        if of_data != title:
            title = of_data
            sizes = ", ".join(f"{count:,} {split}" for split, count in row["sizes"].items())
            yield f"\n{row['dataset']}, {row['backbone']}: {sizes}; {row['seeds']} seeds\n"
            yield (
                "| head | type | bytes per token | embed: tokens/s | train: tokens/s | accuracy | "
                "macro F1 | CE | accuracy − float32, points | macro F1 − float32, points | "
                "CE − float32 |"
            )
            yield "| --- | --- |" + " ---: |" * 9
        yield line(row)


def saved(rows, path):
    """The rows, each appended to a file as it comes."""
    for row in rows:
        if path:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        yield row


def joined(paths):
    """The rows of files, those of a data set and a head together."""
    lines = [line for path in paths for line in path.read_text("utf-8").splitlines()]
    rows = [json.loads(line) for line in lines]
    order = list(dict.fromkeys(json.dumps([row[name] for name in DATA]) for row in rows))
    return sorted(
        rows,
        key=lambda row: (
            order.index(json.dumps([row[name] for name in DATA])), [*HEADS].index(row["head"])
        ),
    )  # fmt: skip


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
                    cells.append(interval(difference(ce, exact[name]), 1, 4) if factor else "")
                if factor:
                    of = f"{errors.median:.1%} | {errors.worst:.1%}"
                    yield f"| {factor} | {of} | {' | '.join(cells)} |"


def main():
    """Print markdown tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=("types", "join", "steps"), default="types")
    parser.add_argument("parts", nargs="*", type=Path, help="files of `--json` to join")
    parser.add_argument("--dataset", nargs="+", default=["hatexplain", "imdb"])
    parser.add_argument("--data-dir", type=Path, help="folder of local data sets")
    parser.add_argument("--limit", type=int, help="most examples per split")
    parser.add_argument("--timed", type=int, default=500, help="the same for embedding speed")
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=[*HEADS])
    parser.add_argument("--types", nargs="+", type=stored_as, default=OTHERS + REDUCED)
    parser.add_argument("--json", type=Path, metavar="FILE", help="append the rows to a file too")
    options = parser.parse_args()
    if options.what == "join":
        lines = tables(joined(options.parts))
    elif options.what == "steps":
        lines = (line for dataset in options.dataset for line in coarser(dataset, options))
    else:
        rows = (row for dataset in options.dataset for row in measured(dataset, options))
        lines = tables(saved(rows, options.json))
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
