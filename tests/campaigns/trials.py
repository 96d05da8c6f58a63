"""What campaigns share: a small world to try things in, how a trial ended, and the table.

A trial runs a command in a fork of a process that has imported everything, on a cache of a tiny
BERT, and takes a fraction of a second. It is judged by what is on disk afterwards. `writes.c`,
preloaded, lets it stop or fail at any call that changes a file, and logs all of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

import conftest
import processes
from processes import Done
from rich.console import Console
from rich.progress import track
from typer.testing import CliRunner

COUNT, KILL, TEAR, FULL, FAIL = range(5)  # as in writes.c
# How a trial ends that keeps the promises. `noise`: one line among others of a library.
FINE = (
    "same", "finished", "refused", "noise", "told", "partial", "killed", "too late", "lock left"
)  # fmt: skip
PATIENCE = 60  # seconds after which a command hangs
MEMORY = 2**33  # bytes of address space that a command may take
SHOWN = 20  # most broken promises that are printed
# What differs between two runs of the same command.
TIMES = {"created", "seconds", "checksum", "checksums", "shared", "modified", "generated"}

# Every batch is committed, where usually seconds pass in between: more moments to stop at.
ARMED = """
import atexit, ctypes, sys
from pathlib import Path
from spacelite.cache import writing
writing.COMMIT_SECONDS = 0
how, call, log, folder, counted = sys.argv[1:6]
del sys.argv[1:6]
tool = ctypes.CDLL(None)
tool.count.restype = ctypes.c_long
tool.arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p]
atexit.register(lambda: Path(counted).write_text(str(tool.count())))
tool.arm(folder.encode(), int(how), int(call), log.encode())
"""
TEXTS = """
import json, sys
from spacelite import LinearClassifier, SpaceliteError
words = [f"{a} {b} film" for a in ("good", "bad", "dull") for b in ("plot", "story", "the")]
model = LinearClassifier(backbone=sys.argv[1], cache_dir=sys.argv[2], epochs=2, device="cpu")
try:
    model.fit(words, [i % 2 for i in range(len(words))])
    print(json.dumps([[round(float(p), 4) for p in row] for row in model.predict_proba(words)]))
except SpaceliteError as error:
    sys.exit(f"error: {error}")
"""

# Runs commands one after another in one process for each request, on a fresh copy of a template
# with one bit flipped, or on the folder of the trial as it is.
READER = """
import json, os, shutil, sys
from pathlib import Path
world, campaigns = map(Path, sys.argv[1:])
sys.path[:0] = [str(campaigns), str(campaigns.parent)]
import trials
from spacelite.cache import encoding
from spacelite_cli import console
from spacelite_cli.app import app
at = world / "trial"
sys.argv[1:] = [str(world / "bert"), str(at / "cache")]  # of TEXTS
for line in sys.stdin:
    template, name, offset, bit, commands, stop = json.loads(line)
    if template:
        shutil.rmtree(at, ignore_errors=True)
        shutil.copytree(template, at)
    if name:
        with (at / name).open("rb+") as file:
            byte = os.pread(file.fileno(), 1, offset)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), offset)
    encoding._store.cache_clear()  # which knows files by their inodes
    for command in commands:
        console._console.cache_clear()
        done = trials.in_process(app, command, at, world)
        print(json.dumps(done), flush=True)
        if template and (command == "texts" or "--json" in command):
            (at / f"said {command.split()[0]}.json").write_text(done.stdout)
        if stop and trials.ended(done) != "finished":
            break
    print(json.dumps(trials.answer(at, name) if template else {}), flush=True)
"""


class Command(NamedTuple):
    """A command, what it needs to have been run before, and what looks at what it leaves. In
    arguments, `@` is the folder of a trial and `~` that of the world."""

    words: str
    needs: tuple[str, ...] = ()
    look: str = "report --json"
    code: str = processes.COMMAND
    says: bool = False  # whether what it prints is part of its answer


EMBED = "embed --backbone ~/bert --dataset ~/data --device cpu"
TRAIN = "train --cache data --head linear,space --epochs 3 --device cpu"
LOOK = "train --head linear --pooling layers --epochs 1 --no-baselines"
COMMANDS = {
    "embed": Command(EMBED, look=LOOK),
    "embed int8": Command(f"{EMBED} --dtype int8", look=LOOK.replace("layers", "mean")),
    "embed shards": Command(f"{EMBED} --shard-size 3kB", look=LOOK),
    "embed reuse": Command(EMBED.replace("~/data", "~/more"), ("embed",), f"{LOOK} --cache more"),
    "train": Command(TRAIN, ("embed",)),
    "report": Command("report --format json --out @/report.json", ("embed", "train")),
    "predict": Command("predict linear --file ~/posts.csv --out @/posts.csv --backbone ~/bert "
                       "--device cpu", ("embed", "train")),
    "eval": Command("eval linear --dataset ~/more --backbone ~/bert --device cpu",
                    ("embed", "train")),
    "cv": Command("cv --head linear --epochs 2 --folds 3 --no-baselines --out @/cv.csv",
                  ("embed",)),
    "audit": Command("audit --head logreg --folds 3 --out @/audit.csv", ("embed",)),
    "texts": Command("~/bert @/cache", look="cache list", code=TEXTS, says=True),
}  # fmt: skip


class World:
    """A folder with a tiny BERT, two small data sets that share texts, and templates: what is there
    after commands have been run."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.at = folder, folder / "trial"
        # Of all processes: who believes a number in a file fails in place of the machine.
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.RLIM_INFINITY))
        self._preload()
        self.reader = Reader(self)
        conftest.save_backbone("bert", folder / "bert")
        sizes = {"train": 12, "validation": 4, "test": 4}
        conftest.write_dataset(folder / "data", sizes, longest=8)
        conftest.write_dataset(folder / "more", {**sizes, "train": 15}, longest=8)
        rows = [f"{number},{text}" for number, text in enumerate(conftest.texts(12, 5, 8))]
        (folder / "posts.csv").write_text("\n".join(["number,text", *rows]) + "\n")
        self.extra: list[str] = []  # files that the last command left beside its answer
        self._templates: dict[tuple[str, ...], Path] = {}
        self._expected: dict[str, Expected] = {}

    def _preload(self) -> None:
        """Start the process that forks, with `writes.c`."""
        library = self.folder / "writes.so"
        source = Path(__file__).with_name("writes.c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl", "-pthread"],
                       check=True)  # fmt: skip
        processes.PATIENCE = PATIENCE
        with contextlib.ExitStack() as stack:
            for name, value in (("LD_PRELOAD", str(library)), ("OMP_NUM_THREADS", "1")):
                stack.callback(os.environ.pop, name, None)
                os.environ[name] = value
            processes.serve()

    def start(self, words: str, how: int = COUNT, call: int = 0, log: str = "",
              code: str = processes.COMMAND) -> processes.Process:  # fmt: skip
        """Start a command in the folder of the trial."""
        given = [word.replace("@", str(self.at)).replace("~", str(self.folder))
                 for word in words.split()]  # fmt: skip
        if code is processes.COMMAND:
            given += ["--cache-dir", str(self.at / "cache")]
        armed = (how, call, log, self.at, self.folder / "count")
        return processes.start(ARMED + code, *armed, *given, env={"OMP_NUM_THREADS": "1"})

    def run(self, words: str, *options: object, **others: object) -> Done | None:
        """Run a command; None if it hangs."""
        return waited(self.start(words, *options, **others))

    def does(self, name: str, *options: object) -> Done | None:
        """Run one of COMMANDS."""
        return self.run(COMMANDS[name].words, *options, code=COMMANDS[name].code)

    def template(self, needs: tuple[str, ...]) -> Path:
        """A folder as these commands leave it, not to be written to."""
        self.ready(needs)
        return self._templates[needs]

    def ready(self, needs: tuple[str, ...]) -> None:
        """The folder of a new trial, as these commands leave it."""
        shutil.rmtree(self.at, ignore_errors=True)
        if needs in self._templates:
            shutil.copytree(self._templates[needs], self.at, symlinks=True)
            return
        self.at.mkdir()
        if needs:
            self.ready(needs[:-1])
            done = self.does(needs[-1])
            assert done is not None and done.returncode == 0, done
        self._templates[needs] = self.folder / "templates" / str(len(self._templates))
        shutil.copytree(self.at, self._templates[needs])

    def expected(self, name: str) -> Expected:
        """What one of COMMANDS does when nothing happens to it; twice the same."""
        if name not in self._expected:
            runs = []
            for _ in range(2):
                self.ready(COMMANDS[name].needs)
                before, begun = answer(self.at), time.monotonic()
                done = self.does(name)
                assert done is not None and ended(done) == "finished", done
                seconds, calls = time.monotonic() - begun, (self.folder / "count").read_text()
                said = done.stdout if COMMANDS[name].says else ""
                runs.append(Expected(before, answer(self.at), said, int(calls), seconds))
            assert runs[0].after == runs[1].after and runs[0].said == runs[1].said, (
                name,
                set(runs[0].after.items()) ^ set(runs[1].after.items()),
            )
            self._expected[name] = runs[1]
        return self._expected[name]

    def verdict(self, name: str, done: Done | None) -> str:
        """How one of COMMANDS ended that was to finish: with its usual answer?"""
        how, expected = ended(done), self.expected(name)
        if how != "finished" or done is None:
            return how
        if COMMANDS[name].says and done.stdout != expected.said:
            return "wrong"
        left = answer(self.at)
        self.extra = extra = [path for path in left if path not in expected.after]
        if {path: left.get(path) for path in expected.after} != expected.after or any(
            not hidden(path) for path in extra
        ):
            return "wrong"
        if not extra:
            return "same"
        # A lock is released by the kernel: its empty file locks nothing.
        return "lock left" if all(path.endswith(".lock") for path in extra) else "left over"

    def look_and_repeat(
        self, name: str, repeat: str, tally: Tally, *, lacking: bool = False
    ) -> None:
        """After one of COMMANDS was interrupted, or finished with a warning what is `lacking`:
        another command looks at what is there, and the same one is run again."""
        looked = self.reader.ask((COMMANDS[name].look,))[0][-1]
        how = self._partly(name, looked)
        how = "told" if how == "wrong" and lacking else how
        tally.add(f"{name}: looked at", how, repeat, looked)
        words = "texts" if name == "texts" else COMMANDS[name].words
        again = self.reader.ask((words,))[0][-1]
        how = self.verdict(name, again)
        how = "not again" if how == "refused" else how  # nothing is in its way any more
        more = f", {self.extra}" if how in ("left over", "wrong") else ""
        tally.add(f"{name}: again", how, repeat + more, again)

    def _partly(self, name: str, done: Done | None) -> str:
        """How a command ended that looked at what an interrupted one left: nothing that a reader
        takes for whole may be another answer than before or after."""
        how, expected, left = ended(done), self.expected(name), answer(self.at)
        look = COMMANDS[name].look
        if look.startswith("train"):  # made a run if the cache is complete
            shutil.rmtree(self.at / "cache" / "runs", ignore_errors=True)
        if how not in ("finished", "refused"):
            return how
        for path, content in left.items():
            known = {expected.before.get(path), expected.after.get(path)}
            if path.startswith("cache/embeddings/"):
                read = path.endswith(".h5") or (path.endswith(".hdf5") and "layers" in look)
                if read and look.startswith("train") and how == "finished" and content not in known:
                    return "wrong"
            elif not hidden(path) and not path.startswith("cache/unfinished/"):
                made = look.startswith("train") and path.startswith("cache/runs/")
                if content not in known and not made:
                    return "wrong"
        return "partial" if how == "finished" else "refused"


class Expected(NamedTuple):
    """What a command finds and leaves, prints, how often it changes a file, and how long it
    takes."""

    before: dict[str, str]
    after: dict[str, str]
    said: str
    calls: int
    seconds: float


def hidden(path: str) -> bool:
    """Whether a file is hidden: no reader takes it for a result."""
    return any(part.startswith(".") for part in Path(path).parts)


def answer(folder: Path, without: str = "") -> dict[str, str]:
    """The content of every file of a folder but one, without times and what is in stores of
    texts."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        others = name == without or name.startswith("cache/texts/") or ".seconds." in name
        if path.is_file() and not others:
            found[name] = _content(path)
    return found


def _content(path: Path) -> str:
    try:
        if path.suffix == ".json":
            return json.dumps(_timeless(json.loads(path.read_text())), sort_keys=True)
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as file:
                return str({name: file.read(name) for name in sorted(file.namelist())})
    except (ValueError, zipfile.BadZipFile):
        pass
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _timeless(content: object) -> object:
    if isinstance(content, Mapping):
        return {key: _timeless(value) for key, value in content.items() if key not in TIMES}
    return [_timeless(value) for value in content] if isinstance(content, list) else content


class Reader:
    """Runs commands in one process as long as that lives: several times as fast as in forks."""

    def __init__(self, world: World) -> None:
        self._world, self._process = world, None

    def ask(
        self, commands: tuple[str, ...], template: Path | None = None, file: str = "",
        offset: int = 0, bit: int = 0,
    ) -> tuple[list[Done | None], dict[str, str]]:  # fmt: skip
        """How these commands ended, on the folder of the trial; or up to the first error, on a
        template with a bit of a file flipped, and all other files then."""
        if self._process is None:
            reading, self._requests = os.pipe()
            self._process = processes.start(
                READER, self._world.folder, Path(__file__).parent, stdin=reading
            )
            os.close(reading)
        request = (template and str(template), file, offset, bit, commands, template is not None)
        os.write(self._requests, json.dumps(request).encode() + b"\n")
        ends: list[Done | None] = []
        try:
            while line := self._process.line():
                said = json.loads(line)
                if isinstance(said, dict):
                    return ends, said
                ends.append(Done(*said))
            ends.append(self._process.wait())  # a command ended the process
        except TimeoutError:
            ends.append(None)
        self.close()
        return ends, {}

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            os.close(self._requests)
            self._process.kill()
            self._process = None


def in_process(app: object, command: str, at: Path, world: Path) -> Done:
    """Run a command in this process."""
    if command == "texts":
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                exec(TEXTS, {})
        except SystemExit as end:
            return Done(1, "", str(end.code))
        return Done(0, said.getvalue(), "")
    words = command.replace("@", str(at)).replace("~", str(world)).split()
    result = CliRunner().invoke(app, [*words, "--cache-dir", str(at / "cache")])
    problem = None if isinstance(result.exception, SystemExit) else result.exception
    trace = "".join(traceback.format_exception(problem)) if problem else ""
    return Done(result.exit_code, result.stdout, result.stderr + trace)


def waited(process: processes.Process) -> Done | None:
    """How a process ended; None if it hangs."""
    try:
        return process.wait()
    except TimeoutError:
        return None


def ended(done: Done | None) -> str:
    """How a command ended: finished; refused, with one line; or in a way that is a fault."""
    if done is None:
        return "hang"
    if done.returncode < 0:
        return "signal"
    if "this is a bug" in done.stderr:
        return "unexpected"
    if "Traceback" in done.stderr or done.returncode not in (0, 1):
        return "traceback"
    if done.returncode == 0:
        return "finished"
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return "refused" if len(errors) == 1 else "traceback"


class Tally:
    """Counts how trials ended, and keeps what is needed to repeat those that broke a promise."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self.broken: list[str] = []

    def add(self, row: str, how: str, repeat: str, done: Done | None = None) -> None:
        """A trial of a row of the table, and what it was."""
        self.counts.setdefault(row, Counter())[how] += 1
        if how not in FINE:
            said = (done.stderr.strip().splitlines() or [""])[-1] if done else ""
            self.broken.append(f"{row}: {how}: {repeat}: {said[:300]}")
            if len(self.broken) <= SHOWN:
                print(self.broken[-1], flush=True)

    def print(self) -> None:
        """The table."""
        kinds = sorted({how for row in self.counts.values() for how in row},
                       key=lambda how: (how not in FINE, how))  # fmt: skip
        width = max(map(len, [*self.counts, "all"]))
        total = sum(self.counts.values(), Counter())
        print(f"{'':{width}} {'trials':>7}", *(f"{how:>10}" for how in kinds))
        for name, row in [*self.counts.items(), ("all", total)]:
            print(f"{name:{width}} {sum(row.values()):7,}", *(f"{row[how]:10,}" for how in kinds))


def commands(count: int, chance: random.Random) -> list[str]:
    """The names of COMMANDS to try: all of them, or as many as there are trials."""
    return chance.sample(list(COMMANDS), min(count or len(COMMANDS), len(COMMANDS)))


def chosen(points: list[Any], trials: int, chance: random.Random) -> Iterable[Any]:
    """So many of the points in random order, 0 for all of them; those of each command, which they
    begin with, in turn."""
    chance.shuffle(points)
    seen = Counter[str]()
    turns = []
    for point in points:
        seen[point[0]] += 1
        turns.append(seen[point[0]])
    order = sorted(range(len(points)), key=turns.__getitem__)[: trials or None]
    return shown([points[number] for number in order])


def shown(trials: list[Any]) -> Iterable[Any]:
    """The trials, with a progress bar."""
    return track(trials, "trials", console=Console(stderr=True))
