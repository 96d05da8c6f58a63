"""How explanations of saved HateXplain runs do against the words that people marked:
python tests/bench/rationales.py --dataset hatexplain-rationales --cache-dir cache [--seeds 5]
    [--spread 0.5] [--limit 200] [--head additive,space]

A table for each cache of the folders: a line for each system and order of words, means over the
runs with the lowest seeds, and means of the bounds of their 95% intervals over posts. Mathew et al.
(AAAI 2021) take the first 5 words.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import spacelite
from spacelite.metrics import rationales as metrics

LABELS = {"0": "hatespeech", "2": "offensive"}


def words(figure):
    """`0.793 (0.779 to 0.805)`."""
    if figure is None:
        return "–"
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def lines(runs, options):
    """A line of the table for each order of words, means over runs that differ in their seed."""
    found = []
    for run in runs:
        evaluated = run.evaluate(
            options.dataset, labels=LABELS, rationales="rationale", against="normal",
            rationales_top=5, rationales_spread=options.spread, limit=options.limit,
            device="cpu", progress=False,
        )  # fmt: skip
        found.append(evaluated.rationales)
    system = f"{runs[0].record.system}, {len(runs)} seed{'s' if len(runs) > 1 else ''}"
    for order, figures in metrics.mean(found).figures.items():
        cells = (system, metrics.ORDERS[order], *map(words, figures.values()))
        yield f"| {' | '.join(cells)} |"


def main():
    """Print a markdown table for each cache."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="hatexplain-rationales", help="folder of marked posts")
    parser.add_argument("--cache-dir", type=Path, nargs="+", default=[Path("cache")])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--spread", type=float, default=0.0, help="over neighbouring words")
    parser.add_argument("--limit", type=int, help="posts per split")
    parser.add_argument("--head", default="additive,logreg,space,tfidf", help="kinds of heads")
    options = parser.parse_args()
    systems = defaultdict(list)
    for folder in options.cache_dir:
        for run in spacelite.load_runs(folder):
            if run.record.head.kind in options.head.split(","):
                systems[run.record.cache, run.record.system].append(run)
    names = [*[*metrics.FIGURES.values()][:-2], "Compr. of 5", "Suff. of 5"]
    for cache in dict.fromkeys(cache for cache, _ in systems):
        print(f"\n{cache}\n\n| predictions of | words in order of | {' | '.join(names)} |")
        print(f"| --- | --- |{' ---: |' * len(names)}")
        for (of, _), runs in systems.items():
            runs.sort(key=lambda run: run.record.settings.get("seed") or 0)
            for line in lines(runs[: options.seeds], options) if of == cache else ():
                print(line, flush=True)


if __name__ == "__main__":
    main()
