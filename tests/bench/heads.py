"""What each step of the recommended head adds to the baselines, on one cache.

    python tests/bench/heads.py [--cache NAME_OR_PATH] [--cache-dir FOLDER] [--seeds 5]
    python tests/bench/heads.py --dataset data/hatexplain [--limit N] [--backbone minilm]

Without a data set it reads an existing cache, by default the newest one. Every head is trained
anew, in a folder of its own, so that seconds are those of this machine. Differences are in points
of accuracy on the test split, with 95% intervals, computed as the report does. The best baseline is
the one with the higher accuracy on validation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

import spacelite
from spacelite.metrics.scores import calibration
from spacelite.metrics.significance import accuracy_difference
from spacelite.reports.analysis.comparisons import tested_pairs
from spacelite.reports.analysis.groups import SeedRuns
from spacelite.tasks import majority
from spacelite.training.plan import PRESETS

SPACE = {"head": "space", "latent": 3, "epochs": 15, "learning_rate": 2e-4}
TUNED = {
    "head": "space", "latent": 16, "epochs": 12, "learning_rate": 5e-3, "schedule": "cosine",
    "weight_decay": 0.0,
}  # fmt: skip
FIXED = "logreg (mean)"
BASELINES = [
    (FIXED, {"head": "logreg", "pooling": "mean"}),
    ("tfidf", {"head": "tfidf"}),
]
# Name, arguments of `train`; a row for each. Settings were chosen on validation splits.
STEPS = [
    ("space, published protocol", SPACE),
    ("space L=16, tuned", TUNED),
    ("space L=16, tuned, ensemble of 4", {**TUNED, "ensemble": 4}),
    ("logreg (layers)", {"head": "logreg", "pooling": "layers"}),
    ("additive (mean)", {"head": "additive", "blocks": "mean"}),
    ("additive (layers)", {"head": "additive", "blocks": "layers"}),
    ("additive (ngrams)", {"head": "additive", "blocks": "ngrams"}),
    ("additive (mean+ngrams)", {"head": "additive", "blocks": "mean+ngrams"}),
    ("additive (layers+ngrams)", {"head": "additive", "blocks": "layers+ngrams"}),
    ("the same, up to 3-grams", {"head": "additive", "blocks": "layers+ngrams", "max_ngram": 3}),
    ("and space L=32", {**PRESETS["best"], "blocks": "layers+ngrams+space", "learning_rate": 2e-3}),
    ("preset best: and attention L=32", {"preset": "best"}),
]
METRICS = {"accuracy": "accuracy", "f1_macro": "macro F1", "auroc": "AUROC", "ce": "CE"}


def trained(cache, name, arguments, seeds, folder):
    """The system that a step trains, and the predictions of each of its runs on the shown split."""
    print(f"training {name}", file=sys.stderr, flush=True)
    if {"epochs", "preset"} & {*arguments}:  # the others are fitted directly and have no seed
        arguments = {**arguments, "seeds": seeds}
    runs = spacelite.train(cache, **arguments, baselines=False, cache_dir=folder, progress=False)
    if runs.stopped:
        raise SystemExit(f"{name}: diverged: {', '.join(runs.stopped)}")
    ordered = sorted((each.run for each in runs), key=lambda run: run.record.seed)
    system = SeedRuns(ordered, None)
    return system, system.predictions


def measured(name, arguments, system, predictions):
    """The row of a system: values by seed."""
    records = [run.record for run in system.runs]
    return {
        "system": name,
        "arguments": arguments,
        "seeds": None if system.fixed else [record.seed for record in records],
        **{f"validation_{metric}": [record.metrics["validation"][metric] for record in records]
           for metric in METRICS},
        **{metric: [record.metrics[record.split][metric] for record in records]
           for metric in METRICS},
        "ece": [calibration(*own.decisions()).error for own in predictions],
        "seconds": max(record.seconds for record in records),
        "heads_in_pass": max(record.heads_in_pass for record in records),
        "parameters": records[0].train_params,
        "differences": {},
    }  # fmt: skip


def majority_row(opened, split, references):
    """The row of always predicting what is most frequent in training. It gives no probabilities: it
    ranks no example before another, and has neither CE nor ECE."""
    training, labels = opened.splits["train"].labels, opened.splits[split].labels
    test, validation = (
        majority(opened.task, training, opened.splits[of].labels, opened.label_names)
        for of in (split, "validation")
    )
    values, counts = np.unique(training, axis=0, return_counts=True)
    guess = np.broadcast_to(values[counts.argmax()], labels.shape)
    right = opened.task.correct(guess, labels)
    differences = {}
    for name, (_, predictions) in references.items():
        other = predictions[0].correct
        only = [int((a & ~b).sum()) for a, b in ((right, other), (other, right))]
        differences[name] = as_points(accuracy_difference(*only, len(labels)))
    return {
        "system": "majority class", "arguments": {}, "seeds": None,
        "validation_accuracy": [validation.accuracy], "accuracy": [test.accuracy],
        "f1_macro": [test.f1_macro], "auroc": [0.5], "ce": [None], "ece": [None],
        "seconds": None, "heads_in_pass": None, "parameters": 0, "differences": differences,
    }  # fmt: skip


def difference(name, own, other_name, other):
    """A system's accuracy minus that of another, as the report computes it."""
    systems, predictions = ({name: own[part], other_name: other[part]} for part in range(2))
    (pair,), _ = tested_pairs(systems, predictions, {name, other_name})
    return as_points(pair.differences["accuracy"])


def as_points(found):
    """A difference in points."""
    return {"points": 100 * found.value, "interval": [100 * end for end in found.interval]}


def spread(values):
    """`0.479 ± 0.004` over seeds; without ± for a single value."""
    if None in values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{deviation}"


def line(row, references):
    """The line of a row in the table."""
    seconds = "–" if row["seconds"] is None else f"{row['seconds']:.1f}"
    if (row["heads_in_pass"] or 1) > 1:
        seconds += f" ({row['heads_in_pass']} heads)"
    cells = [
        row["system"],
        *(spread(row[key]) for key in ("validation_accuracy", *METRICS, "ece")),
        seconds,
        f"{row['parameters']:,}",
    ]
    for name in references:
        found = row["differences"].get(name)
        if found is None:
            cells.append("–")
            continue
        value, (low, high) = found["points"], found["interval"]
        cells.append(f"{value:+.1f} ({low:+.1f} to {high:+.1f})".replace("-", "−"))
    return f"| {' | '.join(cells)} |"


def main():
    """Print a markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", help="a cache's name or path; default: the newest complete one")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    parser.add_argument("--dataset", help="embed this, unless it is embedded already")
    parser.add_argument("--limit", type=int, help="most examples per split of the data set")
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--seeds", default="5", help="seeds of heads that have one: 5, or 1,7,42")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to a file too")
    options = parser.parse_args()
    if options.dataset and options.cache:
        parser.error("give either --dataset or --cache")
    if options.limit is not None and not options.dataset:
        parser.error("--limit works with --dataset only")
    try:
        report(options)
    except spacelite.SpaceliteError as error:
        raise SystemExit(f"error: {error}") from None


def report(options):
    """Train, and print each row once it is known."""
    if options.dataset:
        cache = spacelite.embed(
            options.dataset, backbone=options.backbone, limit=options.limit, layers=True,
            cache_dir=options.cache_dir,
        )  # fmt: skip
    else:
        cache = spacelite.find_cache(options.cache, options.cache_dir)
    with tempfile.TemporaryDirectory() as folder, cache.open() as opened:
        split = "test" if "test" in opened.splits else "validation"

        def step(name, arguments):
            # In a folder of its own: two steps may be the same head.
            place = Path(tempfile.mkdtemp(dir=folder))
            system, predictions = trained(cache, name, arguments, options.seeds, place)
            return (system, predictions), measured(name, arguments, system, predictions)

        found = {name: step(name, arguments) for name, arguments in BASELINES}
        best = max(found, key=lambda name: found[name][1]["validation_accuracy"][0])
        references = {name: found[name][0] for name in dict.fromkeys((best, FIXED))}
        heading = [
            "head", "validation: accuracy", *(f"{split}: {each}" for each in METRICS.values()),
            f"{split}: ECE", "seconds", "parameters",
            *(f"points of accuracy more than `{name}`" for name in references),
        ]  # fmt: skip
        print(f"| {' | '.join(heading)} |")
        print("| --- |" + " ---: |" * (len(heading) - 1))
        rows = [majority_row(opened, split, references)]
        print(line(rows[0], references), flush=True)
        for name, arguments in (*BASELINES, *STEPS):
            own, row = found[name] if name in found else step(name, arguments)
            row["differences"] = {
                reference: difference(name, own, reference, other)
                for reference, other in references.items()
                if reference != name
            }
            rows.append(row)
            print(line(row, references), flush=True)
        counts = {name: len(own) for name, own in opened.splits.items()}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    sizes = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    print(
        f"\nBest baseline on validation: `{best}`. {cache.name} ({sizes}); {cores} cores, "
        f"spacelite {spacelite.__version__}."
    )
    if options.json:
        content = {
            "cache": cache.name, "examples": counts, "split": split, "best_baseline": best,
            "cores": cores, "spacelite": spacelite.__version__, "rows": rows,
        }  # fmt: skip
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
