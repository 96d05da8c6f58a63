"""What the defaults and "auto" reach on small training sets:
python tests/bench/small_data.py --dataset data/hatexplain [--sizes 100,300,1000,3000]

Stratified samples of the training split are embedded with MiniLM, each with the whole validation
split; space and linear (mean) heads are trained on them with three seeds. Figures on validation.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from sklearn.model_selection import train_test_split

import spacelite
from spacelite.data import loading as data

SEEDS = 3
AUTO = {"epochs": "auto", "batch_size": "auto", "learning_rate": "auto"}


def spread(runs, metric):
    """`0.479 ± 0.004` over seeds, on validation."""
    values = [run.metrics["validation"][metric] for run in runs]
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"


def lines(folder, dataset, size):
    """A line of the table for each kind of head."""
    train, validation = dataset.splits["train"], dataset.splits["validation"]
    texts, labels = list(train.texts), train.labels
    if size < len(texts):
        texts, _, labels, _ = train_test_split(
            texts, labels, train_size=size, stratify=labels, random_state=0
        )
    named = [[dataset.label_names[number] for number in own] for own in (labels, validation.labels)]
    splits = {"train": (texts, named[0]), "validation": (list(validation.texts), named[1])}
    cache = spacelite.embed(splits, backbone="minilm", name=f"sample-{size}", cache_dir=folder)
    for head in ("space", "linear"):
        options = {"head": head, "pooling": "mean", "seeds": SEEDS, "baselines": False}
        usual, auto = (spacelite.train(cache, **options, **more) for more in ({}, AUTO))
        updates = [
            run[0].record.epochs * -(-len(texts) // run[0].record.training.batch_size)
            for run in (usual, auto)
        ]
        chosen = auto[0].record.training
        cells = (
            f"{len(texts):,}", usual[0].record.system, updates[0], spread(usual, "f1_macro"),
            spread(usual, "accuracy"), f"{chosen.epochs}, {chosen.batch_size}, {updates[1]}",
            spread(auto, "f1_macro"), spread(auto, "accuracy"),
        )  # fmt: skip
        yield f"| {' | '.join(map(str, cells))} |"


def main():
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="hatexplain", help="name or folder of the data set")
    parser.add_argument("--sizes", default="100,300,1000,3000,1000000")
    options = parser.parse_args()
    dataset = data.read(options.dataset)
    print(
        "| examples | head | defaults: updates | macro F1 | accuracy "
        "| auto: epochs, batch, updates | macro F1 | accuracy |"
    )
    print("| ---: | --- | ---: | ---: | ---: | --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for size in map(int, options.sizes.split(",")):
            for line in lines(Path(folder), dataset, size):
                print(line, flush=True)


if __name__ == "__main__":
    main()
