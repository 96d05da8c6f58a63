"""What short commands take as whole processes: most of it is importing.

    python tests/bench/startup.py --dataset data/hatexplain [--backbone minilm] [--limit 500]
        [--runs 5] [--against TREE]

Embeds and trains in a folder of its own, then runs each command several times and prints medians:
seconds on the clock, seconds of processor time (of all cores), and which large packages were
imported. `--against` names the folder of another version, whose commands run in turn with these, on
the same caches and runs.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
MAIN = "from spacelite_cli import main; main()"
LARGE = ("torch", "transformers", "scipy", "sklearn", "pandas", "pyarrow", "h5py", "numpy")
# At the end of the process, since importing them is what is asked about.
NAMES = (
    f"import atexit, sys; atexit.register(lambda: print(*[m for m in {LARGE} if m in sys.modules]))"
)


def modules(tree: Path, folder: Path) -> Path:
    """A folder of modules with the library and the command line of a source tree."""
    folder.mkdir()
    (folder / "spacelite").symlink_to(tree / "spacelite")
    (folder / "spacelite_cli").symlink_to(tree / "cli")
    return folder


def run(path: Path, code: str, arguments: list[str]) -> tuple[float, float, str]:
    """Seconds on the clock and of processor time of a process, and the last line that it prints."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(path)}, cwd=path,  # before which Python looks here
    )  # fmt: skip
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {done.stderr}")
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return wall, used, (done.stdout.splitlines() or [""])[-1]


def commands(data: list[str], cache_dir: str) -> dict[str, list[str]]:
    """The commands that are timed, by what they are called in the table."""
    there, text = ["--cache-dir", cache_dir], "what a great day for all of you"
    return {
        "`spacelite --help`": ["--help"],
        "`runs list`": ["runs", "list", *there],
        "`cache list`": ["cache", "list", *there],
        "`embed` of a finished cache": ["embed", *data, *there],
        "`predict`, tfidf": ["predict", "run-2", text, *there],
        "`explain`, tfidf": ["explain", "run-2", text, *there],
        "`explain --example`, space": ["explain", "run-1", "--example", "test:1", *there],
        "`report`": ["report", *there],
        "`predict`, space": ["predict", "run-1", text, *there],
        "`explain`, space": ["explain", "run-1", text, *there],
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--dataset", required=True, help="a file or folder")
    parser.add_argument("--backbone", default="minilm")
    parser.add_argument("--limit", default="500")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    dataset = str(Path(options.dataset).absolute())
    data = ["--dataset", dataset, "--backbone", options.backbone, "--limit", options.limit]
    trees = {"now": ROOT} | ({"before": options.against} if options.against else {})
    with tempfile.TemporaryDirectory() as temporary:
        folder, cache_dir = Path(temporary), f"{temporary}/cache"
        paths = {name: modules(tree, folder / name) for name, tree in trees.items()}
        there = ["--cache-dir", cache_dir]
        run(paths["now"], MAIN, ["embed", *data, *there])
        run(paths["now"], MAIN, ["train", "--head", "space,tfidf", "--epochs", "2", "--name", "run",
                                 "--no-baselines", *there])  # fmt: skip
        columns = [f"{name}: {what}" for name in trees for what in ("seconds", "processor seconds")]
        print(f"| command | {' | '.join(columns)} | imported |")
        print(f"| --- |{' ---: |' * len(columns)} --- |")
        for title, arguments in commands(data, cache_dir).items():
            times: dict[str, list[tuple[float, float, str]]] = {name: [] for name in trees}
            for turn in range(options.runs + 1):
                for name, path in paths.items():
                    timed = run(path, MAIN, arguments)
                    times[name] += [timed] if turn else []  # the first one warms the disk's cache
            cells = [
                f"{statistics.median(of):.2f}"
                for name in trees
                for of in list(zip(*times[name], strict=True))[:2]
            ]
            _, _, imported = run(paths["now"], f"{NAMES}; {MAIN}", arguments)
            print(f"| {title} | {' | '.join(cells)} | {imported} |", flush=True)


if __name__ == "__main__":
    main()
