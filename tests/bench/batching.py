"""Embedding speed of batches of one length against padded batches, in one process.

    python tests/bench/batching.py FOLDER [--texts 2000] [--tokens-per-batch 4096] [--repeat 3]

FOLDER holds a data set (train.parquet or the like); the backbone is minilm. "one length" is what
`spacelite embed` does: no padding, no attention mask. "padded" sorts by length as well, fills
batches up to the same number of positions and pads to the longest text of each.
"""

import argparse
import time

import numpy as np

from spacelite import backbones, data


def padded_plan(lengths, budget):
    """Batches by position budget, longest first, of mixed lengths."""
    batch = []
    for example in np.argsort(-lengths, kind="stable"):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield np.array(batch)
            batch = []
        batch.append(example)
    yield np.array(batch)


def run(model, tokens, plan, padded):
    """Seconds of all forward passes of a plan."""
    started = time.perf_counter()
    for batch in plan:
        width = len(tokens.ids[batch[0]])
        ids = np.zeros((len(batch), width), np.int32)
        mask = np.zeros_like(ids)
        for row, example in enumerate(batch):
            ids[row, : len(tokens.ids[example])] = tokens.ids[example]
            mask[row, : len(tokens.ids[example])] = 1
        model.hidden_states(ids, np.zeros_like(ids), mask if padded else None)
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--tokens-per-batch", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()

    files = backbones.locate("minilm")
    model = backbones.Backbone(files, layer=-1, device="cpu")
    texts = data.load(options.folder, limit=options.texts).splits["train"].texts
    tokens = backbones.tokenize(files, texts, max_length=256)
    lengths = np.array([len(ids) for ids in tokens.ids])
    plans = {
        "padded": list(padded_plan(lengths, options.tokens_per_batch)),
        "one length": list(backbones.plan_batches(lengths, options.tokens_per_batch)),
    }
    best = dict.fromkeys(plans, float("inf"))
    for _ in range(options.repeat):  # in turn, so that a busy machine slows both
        for name, plan in plans.items():
            best[name] = min(best[name], run(model, tokens, plan, name == "padded"))
    total = int(lengths.sum())
    print(f"{len(texts):,} texts, {total:,} tokens, {options.tokens_per_batch:,} tokens a batch")
    for name, plan in plans.items():
        positions = sum(len(batch) * int(lengths[batch[0]]) for batch in plan)
        print(
            f"{name:10}  {len(plan):4} batches  {positions / total - 1:6.1%} padding  "
            f"{total / best[name]:8,.0f} tokens/s  {best['padded'] / best[name]:.2f}x"
        )


if __name__ == "__main__":
    main()
