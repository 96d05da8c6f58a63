"""Time an epoch of training: spacelite against the floor, and against what a user would write.

    python tests/bench/training.py CACHE [--dataset DATASET] [--json]

CACHE is a complete cache file of MiniLM's hidden states, DATASET what it was made from (for the
original loop, which runs the backbone; left out without it). Every line is measured in a process of
its own, one after the other in the same run, and its peak memory is the process's.

The floor touches every token of the train split once and does only the arithmetic that no
implementation can skip: for each 2,048 tokens it reads the stored rows, widens them to float32,
multiplies them with one matrix of as many columns as the heads have, and forms one gradient of that
matrix. No tanh, no pooling, no loss, no optimiser, no shuffling. Floor and spacelite are measured
in turns, and the best of each counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

HEADS = (1, 8, 24, 64)
LATENT = 3
LOSSES = [(0.2, 0.001), (0.0, 0.0), (0.2, 0.0), (0.0, 0.001)]  # inter, intra: in turn
ORIGINAL_STEPS = 2
PLAIN_STEPS = 20
ROUNDS = 3
PARTS = (
    "batches", "read", "widen", "product", "tanh", "pooling", "loss gradients", "gradient", "sums",
    "optimiser",
)  # fmt: skip


def floor(cache, heads, repeat):
    """Seconds for one sweep over the train split, as described above."""
    import h5py
    import torch

    with h5py.File(cache) as file:
        tokens = file["train/tokens"]
        classes = len(json.loads(file.attrs["spec"])["label_names"])
        columns = heads * classes * LATENT
        count, width = tokens.shape
        matrix, slopes = torch.randn(columns, width), torch.randn(columns, 2048)
        stored = np.empty((2048, width), tokens.dtype)
        seconds = []
        for _ in range(repeat):
            gradient = torch.zeros(columns, width)
            started = time.perf_counter()
            for start in range(0, count, 2048):
                size = min(2048, count - start)
                tokens.read_direct(stored, np.s_[start : start + size], np.s_[:size])
                hidden = torch.from_numpy(stored[:size]).float()
                torch.nn.functional.linear(hidden, matrix)
                gradient.addmm_(slopes[:, :size], hidden)
            seconds.append(time.perf_counter() - started)
    return {"seconds": min(seconds)}


def configs(count):
    from spacelite import heads

    return [
        heads.config("space", seed=i // 4, latent=LATENT, inter=inter, intra=intra)
        for i, (inter, intra) in ((i, LOSSES[i % 4]) for i in range(count))
    ]


class Stopwatch:
    """Adds up the seconds spent in functions, each without those it calls among them."""

    def __init__(self):
        self.seconds, self._inner = {}, [0.0]

    def watch(self, owner, name, part):
        function = getattr(owner, name)

        def timed(*arguments, **options):
            self._inner.append(0.0)
            started = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.perf_counter() - started
                own = spent - self._inner.pop()
                self._inner[-1] += spent
                self.seconds[part] = self.seconds.get(part, 0.0) + own

        setattr(owner, name, timed)


def watched():
    from spacelite.heads import base, space
    from spacelite.training import batches, optimizer

    watch = Stopwatch()
    for owner, name, part in (
        (batches, "take", "read"),
        (batches, "_to_float32", "widen"),
        (space, "_project", "product"),
        (space, "_tanh", "tanh"),
        (space, "segment_sum", "pooling"),
        (space.SpaceHead, "run_group", "loss gradients"),
        (space, "_add_product", "gradient"),
        (optimizer.Adam, "update", "optimiser"),
        (space.SpaceHead, "end", "sums"),
        (base.Objective, "batch", "batches"),
        (batches.TokenSplit, "groups", "batches"),
    ):
        watch.watch(owner, name, part)
    return watch


def spacelite(cache, count, epochs, breakdown=False):
    """Best seconds of a training pass over the train split, and of a whole epoch with validation.
    With `breakdown`, seconds by part, of one pass on one thread."""
    from spacelite.cache.store import Cache
    from spacelite.training import engine, loop, memory
    from spacelite.training.config import TrainingConfig

    watch = watched() if breakdown else None
    if breakdown:
        memory.MAX_THREADS = 1
    with Cache(cache) as opened, engine.workers("cpu") as workers:
        training = loop._Training(
            opened,
            configs(count),
            TrainingConfig(epochs=epochs),
            "cpu",
            workers,
            lambda done, total: None,
        )
        passed, whole = [], []
        evaluate = engine.evaluate

        def evaluated(*arguments):
            passed.append(time.perf_counter() - started)
            return evaluate(*arguments)

        engine.evaluate = evaluated
        for epoch in range(1, epochs + 1):
            if watch is not None:
                watch.seconds.clear()
            started = time.perf_counter()
            training._epoch(epoch)
            whole.append(time.perf_counter() - started)
    result = {"seconds": min(passed), "with_validation": min(whole)}
    if watch is not None:
        parts = {part: watch.seconds[part] for part in PARTS}
        parts["rest"] = whole[-1] - sum(parts.values())
        result = {"seconds": whole[-1], "parts": parts}
    return result


def plain(cache, positions=None):
    """A plain PyTorch loop: padded batches of cached hidden states from a DataLoader, one head
    with both additional losses, autograd, torch's Adam. Some steps, scaled to an epoch.

    Texts are padded to the longest of a batch or, if that is given, to so many positions."""
    import h5py
    import torch

    with h5py.File(cache) as file:
        train = file["train"]
        hidden, offsets = torch.from_numpy(train["tokens"][...]), train["offsets"][...]
        labels = torch.from_numpy(train["labels"][...])
        classes = len(json.loads(file.attrs["spec"])["label_names"])
    examples = [(hidden[a:b], y) for a, b, y in zip(offsets[:-1], offsets[1:], labels, strict=True)]

    def collate(rows):
        texts = [row[0].float() for row in rows]
        lengths = torch.tensor([len(text) for text in texts])
        padded = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
        if positions is not None:
            missing = positions - padded.shape[1]
            padded = torch.nn.functional.pad(padded, (0, 0, 0, missing))
        return padded, torch.arange(padded.shape[1]) < lengths[:, None], torch.stack(
            [row[1] for row in rows]
        )  # fmt: skip

    loader = torch.utils.data.DataLoader(examples, 256, shuffle=True, collate_fn=collate)
    spaces = torch.nn.Linear(hidden.shape[1], classes * LATENT, bias=False)
    classifier = torch.nn.Linear(classes * LATENT, classes)
    adam = torch.optim.Adam([*spaces.parameters(), *classifier.parameters()], 2e-4,
                            weight_decay=0.01)  # fmt: skip

    def step(x, mask, y):
        s = torch.tanh(spaces(x))
        real = mask[..., None]
        count = mask.sum(dim=1, keepdim=True)
        centroid = (s * real).sum(dim=1) / count
        loss = torch.nn.functional.cross_entropy(classifier(centroid), y)
        by_class = s.unflatten(2, (classes, LATENT))
        match = torch.nn.functional.one_hot(y, classes)[:, None, :, None] * real[..., None]
        other = (1 - torch.nn.functional.one_hot(y, classes))[:, None, :, None] * real[..., None]
        inter = ((1 - by_class) * match).sum() / (match.sum() * LATENT)
        inter = inter + ((1 + by_class) * other).sum() / (other.sum() * LATENT)
        variance = ((s - centroid[:, None]) ** 2 * real).sum(dim=1) / (count - 1).clamp(min=1)
        intra = (1 / (variance + 1e-9)).sum(dim=1)[count[:, 0] > 1].mean()
        adam.zero_grad()
        (loss + 0.1 * inter + 0.001 * intra).backward()
        adam.step()

    batches = iter(loader)
    step(*next(batches))  # warm
    steps = min(PLAIN_STEPS, len(loader) - 1)
    started = time.perf_counter()
    for _ in range(steps):
        step(*next(batches))
    return {"seconds": (time.perf_counter() - started) / steps * len(loader)}


def original(dataset):
    """The original's loop: the frozen backbone runs for every batch, padded to 256 positions, and
    the head averages over all of them. Some steps, scaled to an epoch."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from spacelite.backbones.files import locate
    from spacelite.data import loading as data

    texts = data.read(dataset).splits["train"]
    folder = locate("minilm").folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    classes = int(texts.labels.max()) + 1
    spaces = torch.nn.Linear(model.config.hidden_size, classes * LATENT, bias=False)
    classifier = torch.nn.Linear(classes * LATENT, classes)
    adam = torch.optim.Adam([*spaces.parameters(), *classifier.parameters()], 2e-4)
    order = np.random.default_rng(0).permutation(len(texts))
    started = time.perf_counter()
    for number in range(ORIGINAL_STEPS):
        rows = order[number * 256 : (number + 1) * 256]
        inputs = tokenizer([texts.texts[i] for i in rows], padding="max_length", truncation=True,
                           max_length=256, return_tensors="pt")  # fmt: skip
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state
        logits = classifier(torch.tanh(spaces(hidden)).mean(dim=1))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(texts.labels[rows]))
        adam.zero_grad()
        loss.backward()
        adam.step()
    steps = -(-len(texts) // 256)
    return {"seconds": (time.perf_counter() - started) / ORIGINAL_STEPS * steps}


def fifteen_epochs(cache, kind):
    """The whole of a training with its evaluation on all splits: 24 space heads for 15 epochs, or
    scikit-learn's LogisticRegression on the means of tokens. Seconds, and mean test accuracy."""
    from spacelite import heads
    from spacelite.cache.store import Cache
    from spacelite.training.config import TrainingConfig
    from spacelite.training.loop import train

    chosen = configs(24) if kind == "space" else [heads.config(kind, pooling="mean")]
    with Cache(cache) as opened:
        started = time.perf_counter()
        trained = train(opened, chosen, TrainingConfig(epochs=15))
        seconds = time.perf_counter() - started
    plain = [
        head for head in trained if kind != "space" or not (head.config.inter or head.config.intra)
    ]
    accuracy = np.mean([head.metrics["test"]["accuracy"] for head in plain])
    return {"seconds": seconds, "accuracy": float(accuracy)}


MEASURES = {
    "floor": lambda args: floor(args.cache, args.heads, args.repeat),
    "spacelite": lambda args: spacelite(args.cache, args.heads, args.repeat),
    "breakdown": lambda args: spacelite(args.cache, args.heads, 2, breakdown=True),
    "plain": lambda args: plain(args.cache),
    "padded": lambda args: plain(args.cache, positions=256),
    "original": lambda args: original(args.dataset),
    "space": lambda args: fifteen_epochs(args.cache, "space"),
    "logreg": lambda args: fifteen_epochs(args.cache, "logreg"),
}


def measured(args, name, heads=1):
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, str(args.cache), "--measure", name, "--heads", str(heads),
               "--repeat", str(args.repeat)]  # fmt: skip
    if args.dataset:
        command += ["--dataset", args.dataset]
    print(f"{name} {heads} ...", file=sys.stderr)
    return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def machine():
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0].partition(":")[2].strip() if models else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores, {platform.system()}, Python {platform.python_version()}"


def report(result):
    """The tables, in markdown."""
    yield f"Machine: {result['machine']}."
    yield ""
    yield "| space heads | seconds a pass | floor | times the floor | with validation | memory |"
    yield "| ---: | ---: | ---: | ---: | ---: | ---: |"
    for heads in HEADS:
        ours, least = result["spacelite"][heads], result["floor"][heads]
        yield (
            f"| {heads} | {ours['seconds']:.2f} | {least['seconds']:.2f} | "
            f"{ours['seconds'] / least['seconds']:.2f} | {ours['with_validation']:.2f} | "
            f"{ours['memory']:.0f} MB |"
        )
    yield ""
    one, many = result["spacelite"][1]["seconds"], result["spacelite"][24]["seconds"]
    yield f"24 heads take {many / one:.1f} times as long as one."
    yield ""
    parts = list(result["breakdown"][1]["parts"])
    yield "| one epoch on one thread, seconds | " + " | ".join(parts) + " | all |"
    yield "| --- |" + " ---: |" * (len(parts) + 1)
    for heads, found in result["breakdown"].items():
        values = [f"{found['parts'][part]:.2f}" for part in parts]
        yield (
            f"| {heads} head{'s' if heads != 1 else ''} | "
            + " | ".join(values)
            + f" | {found['seconds']:.2f} |"
        )
    yield ""
    yield "| in place of spacelite | seconds an epoch | spacelite is faster | memory |"
    yield "| --- | ---: | ---: | ---: |"
    if "original" in result:
        found = result["original"]
        yield (
            "| original loop, the backbone in every batch of 256 padded to 256 positions, one head "
            f"({ORIGINAL_STEPS} steps, scaled) | {found['seconds']:.0f} | "
            f"{found['seconds'] / one:,.0f} times, one head | {found['memory']:.0f} MB |"
        )
    for name, how in (("padded", "256 positions"), ("plain", "the longest text of a batch")):
        found = result[name]
        yield (
            f"| plain PyTorch loop on cached hidden states padded to {how}: DataLoader, autograd "
            f"({PLAIN_STEPS} steps of one head, scaled) | {found['seconds']:.1f} | "
            f"{found['seconds'] / one:.1f} times, one head; {24 * found['seconds'] / many:.0f} "
            f"times, 24 heads one at a time | {found['memory']:.0f} MB |"
        )
    yield ""
    yield "| whole training | seconds | test accuracy | memory |"
    yield "| --- | ---: | ---: | ---: |"
    for name, title in (
        ("space", "24 space heads, 15 epochs (accuracy: mean of those of CE alone)"),
        ("logreg", "scikit-learn LogisticRegression on the means of tokens"),
    ):
        found = result[name]
        yield (
            f"| {title} | {found['seconds']:.1f} | {found['accuracy']:.3f} | "
            f"{found['memory']:.0f} MB |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    parser.add_argument("--dataset")
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    parser.add_argument("--heads", type=int, default=1, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        result = MEASURES[args.measure](args)
        result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        print(json.dumps(result))
        return
    result = {"machine": machine(), "floor": {}, "spacelite": {}, "breakdown": {}}
    for heads in HEADS:  # the floor right beside what is held against it
        found = [
            {name: measured(args, name, heads) for name in ("floor", "spacelite")}
            for _ in range(ROUNDS)
        ]
        for name in ("floor", "spacelite"):
            best = [one[name] for one in found]
            result[name][heads] = {key: min(one[key] for one in best) for key in best[0]}
    for heads in (1, 24):
        result["breakdown"][heads] = measured(args, "breakdown", heads)
    for name in ("plain", "padded", "space", "logreg", *(["original"] if args.dataset else [])):
        result[name] = measured(args, name)
    print(json.dumps(result, indent=1) if args.json else "\n".join(report(result)))


if __name__ == "__main__":
    main()
