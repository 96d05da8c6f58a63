"""Golden outputs: what every command and Python call gives on small data with a tiny random
backbone, as one folder of files that two versions of the code can be compared by.

    python tests/golden.py make FOLDER      write the outputs of the code that is imported
    python tests/golden.py compare A B      say where two such folders differ
    python tests/golden.py against COMMIT   the outputs of a commit against those of this tree
    python tests/golden.py freeze FOLDER    write what no processor changes to golden.json

Times, dates and rates are masked; everything else, hidden states included, is compared to the byte.
Figures depend on the processor, so both folders come from one machine. What does not depend on it,
such as keys, ids, settings and exit codes, is frozen in golden.json, which test_golden.py compares.
"""

from __future__ import annotations

import csv
import difflib
import hashlib
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS))

COLUMNS = 110
# What differs from run to run: seconds, dates, rates, and the sizes of files that hold them.
MASKS = [
    (re.compile(r"━.*"), "<bar>"),
    (re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?"), "<date>"),
    (re.compile(r"[\d,.]+ tokens/s in all.*"), "<speed>"),
    (re.compile(r"[\d,.]+ (s\b|[kMGT]?B\b)"), "<number>"),
    (re.compile(r"\b\d+ ?(s|m|min|h)\b"), "<age>"),
    (re.compile(r'"(stages|seconds)": \{[^}]*\}'), r'"\1": <time>'),
    (re.compile(r'"(\w*seconds|modified|bytes|limit|\w+_per_second)": [^,\n]+'), r'"\1": <number>'),
    # Columns are as wide as what is masked.
    (re.compile(r" {2,}"), " "),
    (re.compile(r"─+"), "─"),
    (re.compile(r" +$", re.MULTILINE), ""),
]
LEFT_OUT = {".lock"}
# What commands import, loaded once for all of them.
PRELOADED = (
    "spacelite_cli.app", "torch", "transformers.models.bert.modeling_bert", "h5py", "pyarrow.json",
    "transformers.models.xlnet.modeling_xlnet", "transformers.models.auto.modeling_auto",
    "transformers.tokenization_utils_fast", "sklearn.linear_model", "sklearn.model_selection",
    "scipy.stats", "matplotlib.pyplot", "plotly.graph_objects", "jinja2", "pyarrow.csv",
    "pydantic.type_adapter", "spacelite.api.results", "spacelite.cache.embedding",
    "spacelite.reports.render.forms", "spacelite.runs.store", "spacelite.training.loop",
)  # fmt: skip


def _data(folder: Path) -> None:
    """Backbones and data sets below `folder`, by the names that the commands use."""
    import conftest
    import numpy as np
    from safetensors.numpy import load_file, save_file

    for kind in ("bert", "xlnet"):
        path = conftest.save_backbone(kind, folder / f"tiny-{kind}") / "model.safetensors"
        # Torch draws other normal numbers on other processors, numpy does not.
        random = np.random.RandomState(0)
        weights = {
            name: random.uniform(-0.4, 0.4, weight.shape).astype(np.float32)
            for name, weight in sorted(load_file(path).items())
        }
        save_file(weights, path, {"format": "pt"})
    sizes = {"train": 60, "validation": 24, "test": 24}
    conftest.write_dataset(folder / "reviews", sizes)
    conftest.write_dataset(folder / "topics", sizes, classes=3)
    texts = conftest.texts(50, seed=7)
    with (folder / "posts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label", "weight", "author"])
        for number, text in enumerate(texts):
            writer.writerow([number, text, "good" in text, 1 + number % 3, number % 9])
    shutil.copy(folder / "posts.csv", folder / "padded.csv")
    tags = ["plot", "acting", "music"]
    with (folder / "tags.jsonl").open("w") as file:
        for number, text in enumerate(texts):
            chosen = [tag for place, tag in enumerate(tags) if (number + place) % 3 == 0]
            file.write(json.dumps({"text": text, "labels": chosen}) + "\n")


CASES: list[tuple[str, ...]] = [
    ("embed", "--backbone", "tiny-bert", "--dataset", "reviews", "--dtype", "float32"),
    ("embed", "--backbone", "tiny-bert", "--dataset", "reviews", "--dtype", "float32", "--json"),
    ("embed", "--backbone", "tiny-bert", "--dataset", "topics", "--layer=-1,1", "--json"),
    ("embed", "--backbone", "tiny-xlnet", "--dataset", "topics", "--dtype", "int8", "--json"),
    ("embed", "--backbone", "tiny-bert", "--dataset", "tags.jsonl", "--json"),
    ("embed", "--backbone", "tiny-bert", "--dataset", "padded.csv", "--max-length", "12",
     "--limit", "40", "--padding", "max_length", "--json"),
    ("embed", "--backbone", "tiny-bert", "--dataset", "posts.csv", "--json"),
    ("cache", "list"),
    ("cache", "list", "--json"),
    ("cache", "info", "tiny-bert--reviews", "--json"),
    ("cache", "info", "tiny-bert--reviews"),
    ("cache", "verify", "tiny-bert--reviews", "--json"),
    ("cache", "verify", "tiny-xlnet"),
    ("train", "--cache", "tiny-bert--reviews", "--inter", "0,0.2", "--intra", "0.001",
     "--seeds", "2", "--epochs", "3", "--name", "grid"),
    ("train", "--cache", "tiny-bert--reviews", "--preset", "best", "--json"),
    ("train", "--cache", "tiny-bert--reviews", "--head", "space,linear,mlp,additive,logreg,tfidf",
     "--epochs", "2", "--pooling", "mean,first", "--lr", "auto", "--batch-size", "auto",
     "--threshold", "f1", "--schedule", "cosine", "--class-weights", "balanced", "--clip-norm", "1",
     "--no-baselines", "--json"),
    ("train", "--cache", "tiny-bert--reviews", "--head", "additive", "--search", "--epochs", "8",
     "--latent", "3,4", "--blocks", "layers,layers+ngrams+space", "--no-baselines", "--json"),
    ("train", "--cache", "tiny-xlnet--topics", "--ensemble", "2", "--patience", "1",
     "--epochs", "4"),
    ("train", "--cache", "tiny-bert--tags", "--epochs", "2", "--json"),
    ("train", "--cache", "tiny-bert--posts", "--sample-weight-column", "weight", "--epochs", "2",
     "--json"),
    ("runs", "list"),
    ("runs", "list", "--json"),
    ("runs", "show", "grid-1"),
    ("runs", "show", "grid-1", "--json"),
    ("predict", "grid-1", "a good film", "a dull story"),
    ("predict", "grid-1", "--file", "posts.csv", "--json"),
    ("predict", "grid-2", "--file", "posts.csv", "--out", "classified.csv"),
    ("explain", "grid-1", "a good film , not dull", "--html", "explained.html"),
    ("explain", "grid-1", "a good film , not dull", "--json"),
    ("explain", "grid-1", "--example", "test:3", "--json"),
    ("eval", "grid-1", "--dataset", "topics", "--map", "0=0", "--map", "1=1", "--map", "2=1",
     "--json"),
    ("cv", "--cache", "tiny-bert--reviews", "--folds", "3", "--epochs", "2", "--seeds", "2"),
    ("cv", "--cache", "tiny-bert--posts", "--folds", "3", "--repeats", "2", "--epochs", "2",
     "--head", "space,additive", "--group-column", "author", "--json"),
    ("curve", "--cache", "tiny-bert--reviews", "--sizes", "10,20,40", "--json", "--plot",
     "curve.svg"),
    ("curve", "--cache", "tiny-bert--reviews", "--sizes", "10,20,40"),
    ("audit", "--cache", "tiny-bert--reviews", "--folds", "3", "--json"),
    ("audit", "--cache", "tiny-bert--reviews", "--folds", "3", "--out", "audit.csv"),
    ("report",),
    *(("report", "--backbone", "tiny-bert", "--format", form, "--out", f"report-{form}")
      for form in ("text", "markdown", "latex", "html", "json")),
    ("report", "--cache", "tiny-bert--reviews", "--compare", "linear (first), learning rate 0.001",
     "linear (first), learning rate 0.0002", "--no-examples", "--json"),
    ("embed", "--backbone", "nowhere", "--dataset", "reviews"),
    ("train", "--cache", "tiny-bert--reviews", "--epochs", "0"),
    ("train", "--cache", "nothing"),
    ("predict", "grid-1", "--file", "missing.csv"),
]  # fmt: skip


def _command(arguments: tuple[str, ...], folder: Path, stem: Path, second: int) -> None:
    """Run one command in a forked process, its output in files. What it saves bears a time of its
    own, by which reports order runs."""
    child = os.fork()
    if child == 0:
        time.strftime = lambda *_: f"2026-01-01T00:00:{second:02}Z"
        os.chdir(folder)
        for number, kind in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{stem}.{kind}", os.O_WRONLY | os.O_CREAT), number)
        from spacelite_cli import main

        sys.argv = ["spacelite", *arguments]
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    _, status = os.waitpid(child, 0)
    Path(f"{stem}.code").write_text(f"{os.waitstatus_to_exitcode(status)}\n")


def _python() -> None:
    """Estimators and the functions of the README, whose results are printed."""
    import numpy as np
    from conftest import texts

    import spacelite

    few, labels = texts(40, seed=3), np.arange(40) % 2
    for kind in ("SpaceClassifier", "LinearClassifier", "AdditiveClassifier", "TfidfClassifier",
                 "LogregClassifier", "MLPClassifier"):  # fmt: skip
        estimator = getattr(spacelite, kind)()
        print(kind, estimator.get_params())
        if kind != "TfidfClassifier":
            estimator.set_params(backbone="tiny-bert", cache_dir="estimators")
        if "epochs" in estimator.get_params():
            estimator.set_params(epochs=2)
        print(estimator.fit(few, labels).predict_proba(few[:5]).tolist())
    search = spacelite.SpaceSearchCV(
        spacelite.SpaceClassifier(backbone="tiny-bert", cache_dir="estimators", epochs=2),
        {"latent": [2, 3], "inter": [0, 0.2]}, cv=3,
    ).fit(few, labels)  # fmt: skip
    print(search.best_params_, search.cv_results_["mean_test_score"].tolist())
    cache = spacelite.embed(texts=few, labels=labels.tolist(), backbone="tiny-bert",
                            cache_dir="python", progress=False)  # fmt: skip
    runs = spacelite.train(cache, inter=[0, 0.2], seeds=2, epochs=2, progress=False)
    print(runs)
    best = runs.best("f1_macro")
    print(best, best.predict(few[:3]), best.explain(few[0]), sep="\n")
    print(runs._repr_html_())


def make(folder: Path) -> None:
    """Write the outputs of the code that is imported into a new folder."""
    os.environ |= {
        "COLUMNS": str(COLUMNS), "HF_HUB_OFFLINE": "1", "SPACELITE_CACHE": "cache",
        "PYTHONHASHSEED": "0", "TERM": "dumb",
    }  # fmt: skip
    for module in PRELOADED:
        importlib.import_module(module)

    folder.mkdir(parents=True)
    # At the same place for every version: names of files occur in what is written.
    work = Path(tempfile.gettempdir()) / "spacelite-golden"
    work.mkdir()
    child = os.fork()  # no process that runs torch is forked
    if child == 0:
        _data(work)
        os._exit(0)
    os.waitpid(child, 0)
    for number, arguments in enumerate(CASES):
        name = re.sub(r"[^\w.-]+", "_", " ".join(arguments))[:80]
        _command(arguments, work, folder.resolve() / f"{number:02}-{name}", number)
    child = os.fork()
    if child == 0:
        os.chdir(work)
        os.dup2(os.open(folder.resolve() / "python.out", os.O_WRONLY | os.O_CREAT), 1)
        os.dup2(os.open(folder.resolve() / "python.err", os.O_WRONLY | os.O_CREAT), 2)
        code = 1
        try:
            _python()
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.waitpid(child, 0)
    shutil.move(work, folder / "work")


def _contents(path: Path) -> str:
    """A file as it is compared: masked text, or the digest of its bytes."""
    content = path.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return hashlib.sha256(content).hexdigest()
    # Plotly's program.
    text = re.sub(
        r"<script[^>]*>(.*?)</script>",
        lambda script: "<script></script>" if len(script[1]) > 20_000 else script[0],
        text,
        flags=re.DOTALL,
    )
    for mask, stand_in in MASKS:
        text = mask.sub(stand_in, text)
    return text


def _arrays(path: Path) -> str:
    """The arrays of an .npz file, whose own bytes hold the time of writing."""
    import numpy as np

    with np.load(path) as arrays:
        return "".join(
            f"{name} {arrays[name].dtype} {arrays[name].shape} "
            f"{hashlib.sha256(np.ascontiguousarray(arrays[name]).tobytes()).hexdigest()}\n"
            for name in sorted(arrays)
        )


def outputs(folder: Path) -> dict[str, str]:
    """All outputs in a folder that `make` wrote, by name."""
    return {
        str(path.relative_to(folder)): (_arrays(path) if path.suffix == ".npz" else _contents(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in LEFT_OUT
    }


def compare(before: Path, after: Path, say: Callable[[str], None] = print) -> int:
    """Say where two folders differ, and return in how many files."""
    first, second = outputs(before), outputs(after)
    different = 0
    for name in sorted(first.keys() | second.keys()):
        if name not in first or name not in second:
            say(f"only in {'the second' if name not in first else 'the first'}: {name}")
        elif first[name] != second[name]:
            say(f"differs: {name}")
            lines = difflib.unified_diff(
                first[name].splitlines(), second[name].splitlines(), lineterm="", n=0
            )
            for line in list(lines)[2:14]:
                say(f"    {line[:200]}")
        else:
            continue
        different += 1
    say(f"{len(first)} files, {different} differ")
    return different


def frozen(folder: Path) -> dict[str, object]:
    """What no processor changes in the outputs in a folder: the names of all files, in which cache
    keys and run ids occur, exit codes, errors, and the records of runs without their figures."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    errors = [
        line
        for path in files
        if path.suffix == ".err"
        for line in path.read_text().splitlines()
        if line.startswith("error: ")
    ]
    return {
        "files": [str(path.relative_to(folder)) for path in files if path.suffix not in LEFT_OUT],
        "codes": {path.stem: int(path.read_text()) for path in files if path.suffix == ".code"},
        "errors": errors,
        "runs": {
            path.parent.name: _record(json.loads(path.read_text()))
            for path in files
            if path.name == "run.json"
        },
    }


def _record(run: dict[str, object]) -> dict[str, object]:
    """What no processor changes in the record of a run."""
    return {"fields": " ".join(sorted(run)), "key": run["cache_key"], "settings": run["settings"]}


def against(commit: str) -> int:
    """Compare the outputs of a commit with those of this tree."""
    root = TESTS.parent
    with tempfile.TemporaryDirectory() as temporary:
        tree, folders = Path(temporary) / "tree", [Path(temporary) / name for name in "ab"]
        subprocess.run(
            ["git", "worktree", "add", "-q", "--detach", tree, commit], cwd=root, check=True
        )
        try:
            for source, folder in zip((tree, root), folders, strict=True):
                modules = Path(temporary) / f"{folder.name}-modules"
                modules.mkdir()
                (modules / "spacelite").symlink_to(source / "spacelite")
                (modules / "spacelite_cli").symlink_to(source / "cli")
                subprocess.run(
                    [sys.executable, __file__, "make", str(folder)], check=True,
                    env=os.environ | {"PYTHONPATH": str(modules)},
                )  # fmt: skip
            return compare(*folders)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=root, check=True)
            shutil.rmtree(tree, ignore_errors=True)


if __name__ == "__main__":
    verb, *names = sys.argv[1:]
    if verb == "make":
        make(Path(names[0]))
    elif verb == "freeze":
        text = json.dumps(frozen(Path(names[0])), indent=1, sort_keys=True)
        (TESTS / "golden.json").write_text(text + "\n")
    else:
        sys.exit(bool(compare(*map(Path, names)) if verb == "compare" else against(*names)))
