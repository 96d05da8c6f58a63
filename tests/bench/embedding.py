"""Speed of `embed` on a CPU, side by side with sentence-transformers, and of what it could be.

    pip install sentence-transformers==6.2.0
    python tests/bench/embedding.py --dataset hatexplain imdb --data-dir data --limit 800 100
    python tests/bench/embedding.py precisions --dataset hatexplain imdb --data-dir data
    python tests/bench/embedding.py profile --dataset hatexplain --data-dir data --out profile.json
    python tests/bench/embedding.py picture --profiles before.json after.json --out profile.png

In one process, in turns, on the same texts:

    sentence-transformers   its token embeddings, batches of 32; loaded beforehand, writes nothing
    embed                   the whole of `spacelite.embed`: reading the data, loading the backbone,
                            tokenizing, all layer means, checksums, writing and syncing a new cache
    computing alone         the forward passes that `embed` makes, of ready tokens
    plain batches           the same, one batch after the other and all threads on each

and once, on random numbers, the processor's own rate of float32 matrix products of the shapes that
the backbone has. What the matrix products of a token take at that rate is a bound: no float32 code
on this processor can be faster.

`precisions`: whole processes, everything counted from the start of Python, in turns:
`spacelite embed` in float32 and in bfloat16, and sentence-transformers (loading the texts and the
model, token embeddings, nothing written) in its default and in bfloat16.

`profile` embeds once and writes which stage worked when. `picture` draws such files.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

import spacelite
from spacelite.backbones.files import locate
from spacelite.backbones.model import (
    Backbone,
    Forward,
    default_budget,
    instructions,
    plan_batches,
)
from spacelite.backbones.tokenizer import tokenize
from spacelite.data import loading
from spacelite.pipeline import Clock

PLAIN_TOKENS = 4096  # of a batch that all threads share
EXCERPT = 3  # seconds
COLOURS = {
    "reading": "#9467bd", "tokenizing": "#e377c2", "loading the backbone": "#8c564b",
    "preparing": "#7f7f7f", "computing": "#1f77b4", "finishing": "#2ca02c", "writing": "#d62728",
}  # fmt: skip


def read(dataset, options, limit):
    """The texts of a data set."""
    found = loading.read(dataset, limit=limit, data_dir=options.data_dir)
    return [text for split in found.splits.values() for text in split.texts]


def matrix_rate(model, seconds=0.2):
    """Multiply-adds a second of the backbone's own matrix shapes, each on as many threads as there
    are, every thread its own product; and the multiply-adds of a token in them."""
    threads = torch.get_num_threads()
    shapes = [
        tuple(module.weight.shape)
        for name, module in model.model.named_modules()
        if isinstance(module, torch.nn.Linear) and "pooler" not in name
    ]
    torch.set_num_threads(1)

    def rate(shape):
        rows, weight = torch.randn(1024, shape[1]), torch.randn(shape).t().contiguous()
        into, best = torch.empty(1024, shape[0]), float("inf")
        stop = time.perf_counter() + seconds
        while time.perf_counter() < stop:
            started = time.perf_counter()
            torch.mm(rows, weight, out=into)
            best = min(best, time.perf_counter() - started)
        return 1024 * shape[0] * shape[1] / best

    found = {}
    with ThreadPoolExecutor(threads, initializer=lambda: torch.set_num_threads(1)) as pool:
        for shape in set(shapes):
            found[shape] = sum(pool.map(rate, [shape] * threads))
    torch.set_num_threads(threads)
    each = [rows * columns for rows, columns in shapes]
    duration = sum(size / found[shape] for size, shape in zip(each, shapes, strict=True))
    return sum(each) / duration, sum(each)


def attention(lengths, model):
    """Multiply-adds of all tokens in attention: scores and weighted sums."""
    config = model.model.config
    layers, width = config.num_hidden_layers, config.hidden_size
    return float((2 * layers * width * lengths.astype(np.float64) ** 2).sum())


def compare(dataset, limit, options):
    """Print the table of a data set."""
    from sentence_transformers import SentenceTransformer

    files = locate(options.backbone)
    texts = read(dataset, options, limit)
    tokens = tokenize(files, texts, max_length=256)
    lengths = np.array([len(ids) for ids in tokens.ids])
    total = int(lengths.sum())
    model = Backbone(files, layer=-1, device="cpu")
    other = SentenceTransformer(str(files.folder), device="cpu")
    other.max_seq_length = 256

    def theirs():
        found = other.encode(
            texts, output_value="token_embeddings", batch_size=32, show_progress_bar=False
        )
        assert sum(len(one) for one in found) == total

    def embed():
        with tempfile.TemporaryDirectory() as folder:
            done = spacelite.embed(
                dataset, backbone=options.backbone, limit=limit, data_dir=options.data_dir,
                cache_dir=folder, reuse=False, progress=False, device="cpu",
            )  # fmt: skip
            assert done.state.tokens == total

    def alone():
        run = Forward(model, tokens, lambda hidden: hidden, options.tokens_per_batch)
        plan = plan_batches(lengths, options.tokens_per_batch)
        for _ in run.batches(plan, lambda batch, output: None):
            pass

    def plain():
        for batch in plan_batches(lengths, PLAIN_TOKENS):
            ids = np.stack([tokens.ids[example] for example in batch])
            model.hidden_states(ids, np.zeros_like(ids), None)

    ways = {
        "sentence-transformers": theirs, "embed": embed, "computing alone": alone,
        "plain batches": plain,
    }  # fmt: skip
    speeds = {name: [] for name in ways}
    bounds = []
    for _ in range(options.turns):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            speeds[name].append(total / (time.perf_counter() - started))
        rate, linear = matrix_rate(model)
        bounds.append((rate, rate / (linear + attention(lengths, model) / total)))
    print(f"\n{dataset}: {len(texts):,} texts, {total:,} tokens, {options.backbone}\n")
    print_table(speeds, options.turns)
    cells = [f"{bound:,.0f}" for _, bound in bounds]
    share = statistics.median(
        one / bound for one, (_, bound) in zip(speeds["computing alone"], bounds, strict=True)
    )
    print(f"| bound of the matrix products | {' | '.join(cells)} | |")
    rates = ", ".join(f"{2 * rate / 1e9:,.0f}" for rate, _ in bounds)
    print(
        f"\nMatrix products alone: {rates} GFLOP/s. Computing alone reaches {share:.0%} of the "
        "bound (median)."
    )


THEIRS = """
import json, sys
from sentence_transformers import SentenceTransformer
texts = json.load(open(sys.argv[1]))
kind = {} if sys.argv[3] == "default" else {"model_kwargs": {"dtype": sys.argv[3]}}
model = SentenceTransformer(sys.argv[2], device="cpu", **kind)
model.max_seq_length = 256
found = model.encode(
    texts, output_value="token_embeddings", batch_size=32, show_progress_bar=False
)
print(sum(len(one) for one in found))
"""


def precisions(dataset, limit, options):
    """Print the table of a data set."""
    backbone = str(locate(options.backbone).folder)
    texts = read(dataset, options, limit)
    total = sum(map(len, tokenize(locate(options.backbone), texts, max_length=256).ids))
    speeds = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "texts.json"
        place.write_text(json.dumps(texts))
        embed = [
            sys.executable, "-c", "from spacelite_cli.app import app; app()", "embed", "--no-reuse",
            "--backbone", options.backbone, "--dataset", dataset, "--device", "cpu",
        ]  # fmt: skip
        embed += ["--data-dir", str(options.data_dir)] if options.data_dir else []
        embed += ["--limit", str(limit)] if limit else []
        theirs = [sys.executable, "-c", THEIRS, str(place), backbone]
        for turn in range(options.turns):
            ways = {
                "sentence-transformers": [*theirs, "default"],
                "sentence-transformers, bfloat16": [*theirs, "bfloat16"],
                **{
                    f"embed, {name}": [
                        *embed, "--precision", name, "--cache-dir", f"{folder}/{name}{turn}"
                    ]
                    for name in ("float32", "bfloat16")
                },
            }  # fmt: skip
            for name, command in ways.items():
                started = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                speeds.setdefault(name, []).append(total / (time.perf_counter() - started))
                shutil.rmtree(f"{folder}/{name.removeprefix('embed, ')}{turn}", ignore_errors=True)
    found = instructions("bfloat16") or "no instructions for bfloat16"
    print(f"\n{dataset}: {len(texts):,} texts, {total:,} tokens, {options.backbone}, {found}\n")
    print_table(speeds, options.turns)


def print_table(speeds, turns):
    """The tokens a second of each way in each turn, and its ratio to the first way's."""
    print("| tokens/s | " + " | ".join(f"turn {turn + 1}" for turn in range(turns)), end="")
    print(" | median ratio |\n| --- |" + " ---: |" * (turns + 1))
    first = speeds["sentence-transformers"]
    for name, own in speeds.items():
        ratios = [one / base for one, base in zip(own, first, strict=True)]
        cells = [f"{one:,.0f} ({ratio:.2f})" for one, ratio in zip(own, ratios, strict=True)]
        print(f"| {name} | {' | '.join(cells)} | {statistics.median(ratios):.2f} |", flush=True)


class Recorder(Clock):
    """A clock that keeps every span."""

    def __init__(self):
        super().__init__()
        self.spans = []
        Recorder.last = self

    def add(self, stage, started, stopped, threads=1):
        """Keep a span, and add it."""
        self.spans.append((stage, threading.current_thread().name, started, stopped))
        super().add(stage, started, stopped, threads)


def profile(options):
    """Embed once, and write which stage worked when."""
    from importlib import import_module

    embedding = import_module("spacelite.cache.embedding")
    spacelite.embed("demo", backbone=options.backbone, limit=20, cache_dir=tempfile.mkdtemp())
    embedding.Clock = Recorder
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        done = spacelite.embed(
            options.dataset[0], backbone=options.backbone, limit=(options.limit or [None])[0],
            data_dir=options.data_dir, cache_dir=folder, reuse=False,
        )  # fmt: skip
        total, tokens = time.perf_counter() - started, done.state.tokens
    spans = [
        (stage, where, low - started, high - started)
        for stage, where, low, high in Recorder.last.spans
    ]
    content = {"tokens": tokens, "seconds": total, "spans": spans}
    Path(options.out).write_text(json.dumps(content))
    for stage, seconds in done.speed.stages.items():
        print(f"{stage:22} {seconds:7.2f} s")
    print(f"{'all':22} {total:7.2f} s, {tokens / total:,.0f} tokens/s")


def picture(options):
    """Draw profiles one above the other, each with an excerpt of a few seconds."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    profiles = [json.loads(Path(one).read_text()) for one in options.profiles]
    rows = [sorted({where for _, where, _, _ in one["spans"]}, key=_row) for one in profiles]
    figure, axes = pyplot.subplots(
        len(profiles), 2, figsize=(11, 1.1 + 0.34 * sum(map(len, rows))), squeeze=False,
        gridspec_kw={"width_ratios": [2, 1], "height_ratios": [len(own) for own in rows]},
        layout="constrained",
    )  # fmt: skip
    longest = max(one["seconds"] for one in profiles)
    for (whole, part), one, own, path in zip(axes, profiles, rows, options.profiles, strict=True):
        bars = {}
        for stage, where, low, high in one["spans"]:
            bars.setdefault((own.index(where), stage), []).append((low, high - low))
        for (row, stage), spans in bars.items():
            for axis in (whole, part):
                axis.broken_barh(spans, (row - 0.4, 0.8), color=COLOURS[stage])
        middle = one["seconds"] / 2
        for axis, limits in ((whole, (0, longest)), (part, (middle, middle + EXCERPT))):
            axis.set(xlim=limits, ylim=(len(own) - 0.5, -0.5), xlabel="seconds")
            axis.set_yticks(range(len(own)), map(_named, own) if axis is whole else [])
        rate = one["tokens"] / one["seconds"]
        whole.set_title(
            f"{Path(path).stem}: {one['seconds']:.0f} s, {rate:,.0f} tokens/s", loc="left"
        )
        part.set_title(f"{EXCERPT} seconds of it", loc="left")
    there = {stage for one in profiles for stage, *_ in one["spans"]}
    handles = [
        pyplot.Rectangle((0, 0), 1, 1, color=colour, label=stage)
        for stage, colour in COLOURS.items()
        if stage in there
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(options.out, dpi=110)


def _row(where):
    """The order of threads: as items go through them, what starts and writes first."""
    name = where.partition("_")[0]
    return (where != "MainThread", list(COLOURS).index(name) if name in COLOURS else 0, where)


def _named(where):
    name, _, number = where.partition("_")
    return "main thread" if where == "MainThread" else f"{name} {int(number) + 1}"


def main():
    """Print markdown tables, or write a profile or a picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("compare", "precisions", "profile", "picture"),
        default="compare",
    )
    parser.add_argument("--dataset", nargs="+", default=["hatexplain", "imdb"])
    parser.add_argument("--limit", nargs="+", type=int, help="most examples per split, of each")
    parser.add_argument("--data-dir", type=Path, help="folder of local data sets")
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--tokens-per-batch", type=int, default=default_budget("cpu"))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--profiles", nargs="+", help="what `profile` wrote")
    parser.add_argument("--out", default="profile.json")
    options = parser.parse_args()
    if options.what in ("profile", "picture"):
        profile(options) if options.what == "profile" else picture(options)
        return
    spacelite.embed("demo", backbone=options.backbone, limit=20, cache_dir=tempfile.mkdtemp())
    for dataset, limit in zip(
        options.dataset, options.limit or [None] * len(options.dataset), strict=True
    ):
        measure = compare if options.what == "compare" else precisions
        measure(dataset, limit, options)


if __name__ == "__main__":
    main()
