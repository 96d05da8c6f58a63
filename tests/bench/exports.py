"""What handing a run on costs and saves: its size, its start-up, its rate and its metrics as
spacelite predicts with it, as an ONNX graph in float32 and in int8, and beside it a tfidf run.

    python tests/bench/exports.py RUN TFIDF_RUN --cache-dir DIR [--texts 320] [--rounds 5] [--json]

`files` are the bytes of what is handed on: the head and its backbone, or the folder of the export.
`environment` are the bytes of the Python packages that it needs, as they are installed here, with
all that they need. `start` is the time from starting a process to the answer for one text: the
median of ROUNDS runs, in seconds of the clock and of the processor. Rates are of texts of the
test split, one by one and 32 at a time; accuracy and cross-entropy are of its whole. One process,
all cores.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement

import spacelite
from spacelite.cache import texts
from spacelite.cache.store import Cache
from spacelite.export.classify import Classifier
from spacelite.inference.prediction import Predictor
from spacelite.runs.store import find_cache

BATCH = 32
COMMAND = "from spacelite_cli import main; main()"
RUNNER = ("onnxruntime", "tokenizers", "numpy")


def installed(*packages):
    """The bytes of packages and of all that they need."""
    seen, left = set(), [name.lower() for name in packages]
    while left:
        name = left.pop()
        if name in seen:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # needed on other systems only
        seen.add(name)
        for line in distribution.requires or []:
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                left.append(needed.name.lower().replace("_", "-"))
    paths = {
        file.locate() for name in seen for file in importlib.metadata.distribution(name).files or []
    }
    return sum(path.stat().st_size for path in map(Path, paths) if path.is_file())


def started(command, rounds):
    """Seconds of the clock and of the processor to answer one text."""
    clock, processor = [], []
    for _ in range(rounds):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        clock.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(clock), statistics.median(processor)


def rate(classify, some, size):
    """Texts a second, `size` at a time."""
    classify(some[:size])
    began = time.perf_counter()
    for first in range(0, len(some), size):
        classify(some[first : first + size])
    return len(some) / (time.perf_counter() - began)


def metrics(probabilities, labels):
    """Accuracy and cross-entropy of single labels."""
    own = probabilities[np.arange(len(labels)), labels]
    return float((probabilities.argmax(axis=1) == labels).mean()), float(-np.log(own).mean())


def size_of(folder):
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("tfidf_run")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache"))
    parser.add_argument("--texts", type=int, default=320)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    head, tfidf = (
        spacelite.load_run(run, options.cache_dir) for run in (options.run, options.tfidf_run)
    )
    with Cache(find_cache(head.run, options.cache_dir)) as cache:
        written, labels = texts.read(cache, "test"), np.asarray(cache.splits["test"].labels)
        every = [written.text(number) for number in range(len(labels))]
    some = every[: options.texts]
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for run, kinds in ((head, ("spacelite", "float32", "int8")), (tfidf, ("tfidf", "runner"))):
            for kind in kinds:
                if kind in ("spacelite", "tfidf"):
                    predictor = Predictor(run.run, device="cpu")
                    path = run.run.folder / "head.safetensors"
                    size = path.stat().st_size
                    if kind == "spacelite":
                        size += sum(file.stat().st_size for file in weights_of(predictor))
                    command = [
                        sys.executable, "-c", COMMAND, "predict", run.run.id, every[0], "--json",
                        "--cache-dir", options.cache_dir,
                    ]  # fmt: skip
                    classify = lambda part, of=predictor: of.predict(part).probabilities  # noqa: E731
                    needed = installed("spacelite")
                else:
                    out = Path(folder) / kind
                    quantize = "int8" if kind == "int8" else None
                    run.export("onnx", out, quantize=quantize, progress=False)
                    size, needed = size_of(out), installed(*RUNNER[(kind == "runner") :])
                    command = [sys.executable, out / "classify.py", every[0]]
                    classify = Classifier(out).probabilities
                accuracy, ce = metrics(classify(every), labels)
                one, many = (rate(classify, some, size) for size in (1, BATCH))
                clock, processor = started(command, options.rounds)
                lines.append(
                    {
                        "kind": kind, "run": run.run.id, "files": size, "environment": needed,
                        "start": clock, "processor": processor, "one by one": one,
                        f"{BATCH} at a time": many, "accuracy": accuracy, "ce": ce,
                    }
                )  # fmt: skip
    if options.json:
        return print(json.dumps(lines, indent=1))
    names = {
        "spacelite": "`spacelite predict`", "float32": "ONNX, float32", "int8": "ONNX, int8",
        "tfidf": "tfidf, `spacelite predict`", "runner": "tfidf, `classify.py`",
    }  # fmt: skip
    print(f"| | files | environment | start (processor) | texts/s, 1 and {BATCH} at a time | "
          "accuracy | CE |")  # fmt: skip
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for line in lines:
        print(
            f"| {names[line['kind']]} | {line['files'] / 1e6:,.1f} MB | "
            f"{line['environment'] / 1e6:,.0f} MB | {line['start']:.2f} s "
            f"({line['processor']:.2f}) | {line['one by one']:,.0f}, "
            f"{line[f'{BATCH} at a time']:,.0f} | {line['accuracy']:.4f} | {line['ce']:.4f} |"
        )
    return None


def weights_of(predictor):
    """The files of a backbone that predictions read."""
    folder = predictor.files.folder
    return [
        path for path in folder.iterdir()
        if path.suffix == ".safetensors" or path.name.startswith(("tokenizer", "config", "special"))
    ]  # fmt: skip


if __name__ == "__main__":
    main()
