"""Speed of `embed` and `train` on a GPU, against what the card can do.

    python tests/bench/gpu.py [--device cuda] [--imdb 50000] [--hatexplain 100000]

Backbones are DistilBERT-base and BERT-base, built from their configs with random weights; texts are
random words with the lengths of IMDB's and HateXplain's texts (at most 256 tokens). Printed are

    embed       tokens a second of the whole command, without reading the data and tokenizing, and
                which stage was the limit
    forward     tokens a second of the same batches, ready on the device, nothing copied back
    share       of the card's own rate of matrix products in the forward pass's number type, counted
                on the forward passes alone
    disk        bytes a second of writing and syncing a file as large as the cache
    train       seconds an epoch of 1 and of 24 space heads, beside the time in which the card reads
                the hidden states once
    difference  of the same heads' test cross-entropy, trained on the device and on the CPU

On a CPU (`--device cpu --imdb 60 --hatexplain 200`) it only shows that it works.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import spacelite
from spacelite import heads
from spacelite.backbones.files import locate
from spacelite.backbones.model import Backbone, default_budget, plan_batches
from spacelite.backbones.tokenizer import tokenize
from spacelite.training import loop
from spacelite.training.config import TrainingConfig

# Tokens at 0, 5, 10, 20, ... 90, 95 and 100% of the texts, as MiniLM's tokenizer counts them.
PERCENT = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100)
LENGTHS = {
    "imdb": (32, 85, 121, 159, 181, 207, 243, 256, 256, 256, 256, 256, 256),
    "hatexplain": (5, 9, 12, 15, 19, 23, 27, 31, 37, 46, 54, 58, 105),
}
VOCABULARY = 30522
EPOCHS = 3


def backbone(kind, folder):
    """A base model with random weights, and a tokenizer of as many words, in the hub's layout."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        BertConfig,
        BertModel,
        DistilBertConfig,
        DistilBertModel,
        PreTrainedTokenizerFast,
    )

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = special + [f"w{number}" for number in range(VOCABULARY - len(special))]
    own = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "[UNK]"))
    own.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    own.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=own, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", model_max_length=512,
    ).save_pretrained(folder)  # fmt: skip
    torch.manual_seed(0)
    model = BertModel(BertConfig()) if kind == "bert" else DistilBertModel(DistilBertConfig())
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def texts(lengths, count):
    """Random texts with these lengths, and random labels."""
    random = np.random.default_rng(0)
    sizes = np.interp(random.uniform(0, 100, count), PERCENT, LENGTHS[lengths]).round().astype(int)
    found = [
        " ".join(f"w{word}" for word in random.integers(0, VOCABULARY - 4, max(1, size - 2)))
        for size in sizes
    ]
    return found, random.integers(0, 2, count).tolist()


def synchronize(device):
    """Wait for the device."""
    if device != "cpu":
        torch.cuda.synchronize(device)


def timed(device, work, repeat=3):
    """The fewest seconds of some turns."""
    best = float("inf")
    for _ in range(repeat):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best


def matrix_rate(device, precision):
    """Floating-point operations a second of square matrix products."""
    size = 1024 if device == "cpu" else 8192
    one, two = (
        torch.randn(size, size, device=device, dtype=getattr(torch, precision)) for _ in range(2)
    )
    return 2 * size**3 / timed(device, lambda: one @ two, 10)


def bandwidth(device):
    """Bytes a second that the device reads of its own memory."""
    values = torch.ones(2**24 if device == "cpu" else 2**29, device=device)
    return values.nbytes / timed(device, values.sum, 10)


def disk_rate(folder, size):
    """Bytes a second of writing and syncing a file."""
    block = os.urandom(2**24)
    started = time.perf_counter()
    with (folder / "disk").open("wb") as file:
        for _ in range(max(1, size // len(block))):
            file.write(block)
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    written = (folder / "disk").stat().st_size
    (folder / "disk").unlink()
    return written / seconds


def forward_rate(model, tokens, lengths, limit):
    """Tokens a second of the forward passes alone, and their floating-point operations a token."""
    plan = list(plan_batches(lengths, limit))
    kept = plan[:: max(1, len(plan) // 40)]  # of all lengths
    ready = [
        torch.from_numpy(np.stack([tokens.ids[one] for one in batch]).astype(np.int64)).to(
            model.device
        )
        for batch in kept
    ]
    count = sum(ids.numel() for ids in ready)

    def passes():
        for ids in ready:
            model.hidden_states(ids, None, None)

    rate = count / timed(model.device, passes)
    config = model.model.config
    width, layers = config.hidden_size, config.num_hidden_layers
    linear = sum(
        2 * module.weight.numel()
        for name, module in model.model.named_modules()
        if isinstance(module, torch.nn.Linear) and "pooler" not in name
    )
    attention = 4 * layers * width * float(np.mean(lengths**2) / np.mean(lengths))
    return rate, linear + attention


def embedding(kind, lengths, count, options, folder):
    """Embed, print a row, and return the cache."""
    own = backbone(kind, folder / kind)
    files = locate(str(own))
    found, labels = texts(lengths, count)
    cut = max(2, count // 10)
    data = {"train": (found[cut:], labels[cut:]), "test": (found[:cut], labels[:cut])}
    if options.device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    done = spacelite.embed(
        data, name=lengths, backbone=str(own), cache_dir=folder / kind / lengths,
        device=options.device, layers=False, reuse=False,
    )  # fmt: skip
    before = sum(done.speed.stages.get(stage, 0) for stage in ("reading", "tokenizing"))
    rate = done.speed.tokens / (done.speed.seconds - before)
    memory = 0 if options.device == "cpu" else torch.cuda.max_memory_allocated()
    model = Backbone(files, layer=-1, device=options.device)
    tokens = tokenize(files, found[: min(count, 20000)], max_length=256)
    sizes = np.array([len(ids) for ids in tokens.ids])
    alone, operations = forward_rate(model, tokens, sizes, default_budget(options.device))
    share = alone * operations / matrix_rate(options.device, model.precision)
    disk = disk_rate(folder, min(done.state.bytes, 2**33))
    print(
        f"| {kind}, {lengths} | {done.speed.tokens:,} | {rate:,.0f} | {done.speed.limit} | "
        f"{alone:,.0f} | {rate / alone:.0%} | {share:.0%} | {model.precision} | "
        f"{disk / 1e9:.2f} | {memory / 1e9:.1f} |",
        flush=True,
    )
    return done


def training(name, cache, options):
    """Print the rows of training."""
    speed = bandwidth(options.device)
    for count in (1, 24):
        configs = [heads.config("space", seed=seed) for seed in range(count)]
        ce = {}
        for device in dict.fromkeys((options.device, "cpu")):
            with cache.open() as opened:
                split = opened.splits["train"]
                size = split.tokens * split.stored.row_bytes(split.width)
                spans = []
                for epochs in (1, 1 + EPOCHS):
                    synchronize(options.device)
                    started = time.perf_counter()
                    found = loop.train(
                        opened, configs, TrainingConfig(epochs=epochs), device=device
                    )
                    synchronize(options.device)
                    spans.append(time.perf_counter() - started)
                ce[device] = np.array([one.history[-1]["validation"]["ce"] for one in found])
                if device == options.device:
                    seconds = (spans[1] - spans[0]) / EPOCHS
        difference = np.abs(ce[options.device] - ce["cpu"]).max()
        print(
            f"| {name} | {count} | {seconds:.3f} | {size / speed:.3f} | "
            f"{seconds / (size / speed):.1f} | {difference:.1e} |",
            flush=True,
        )


def main():
    """Print two markdown tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--imdb", type=int, default=50000, help="texts of IMDB's lengths")
    parser.add_argument("--hatexplain", type=int, default=100000)
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        parser.exit(1, "there is no GPU here: --device cpu runs the same code on the CPU\n")
    where = "CPU" if options.device == "cpu" else torch.cuda.get_device_name(options.device)
    print(f"{where}, PyTorch {torch.__version__}\n")
    print(
        "| | tokens | embed: tokens/s | limited by | forward: tokens/s | embed / forward | share "
        "of the matrix rate | in | disk: GB/s | peak memory: GB |\n| --- |" + " ---: |" * 9
    )
    with tempfile.TemporaryDirectory() as place:
        caches = {
            f"{kind}, {lengths}": embedding(kind, lengths, count, options, Path(place))
            for kind in ("distilbert", "bert")
            for lengths, count in (("imdb", options.imdb), ("hatexplain", options.hatexplain))
        }
        print(
            "\n| | heads | seconds an epoch | reading the hidden states once | times that | "
            "difference of CE to the CPU |\n| --- |" + " ---: |" * 5
        )
        for name, cache in caches.items():
            if name.startswith("distilbert"):
                training(name, cache, options)


if __name__ == "__main__":
    main()
