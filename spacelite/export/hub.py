"""Runs on the Hugging Face hub: push one to a repository of models, and pull it from there.

What is pulled may come from anybody: only the files of a run are fetched, under their own names, up
to sizes that runs do not reach, and they are checked as a whole before the run is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from spacelite import files, hub
from spacelite.backbones.files import weight_files
from spacelite.errors import SpaceliteError
from spacelite.export.export import export
from spacelite.inference.prediction import backbone_files
from spacelite.progress import OnProgress
from spacelite.runs import store
from spacelite.runs.store import EXPORTED, HISTORY, PARAMETERS, PREDICTIONS, RECORD, Run
from spacelite.visible import visible_name

FORM = "safetensors"  # that is pushed unless another is asked for
# The files of a run -> the most bytes that one has. A table of ten million n-grams takes 1 GB.
MOST_BYTES = {RECORD: 10**7, HISTORY: 10**8, PARAMETERS: 4 * 10**9, PREDICTIONS: 4 * 10**9}
NEEDED = (RECORD, HISTORY, PARAMETERS)
LISTED = 5  # most files that a message lists


@dataclass(frozen=True)
class Pushed:
    """A run on the hub, or, of a dry run, what would be there.

    Attributes:
        name: The repository, OWNER/NAME.
        form: The form that was pushed.
        files: Bytes by name.
        address: Of its page; None for a dry run.
        notes: What to know of it, in sentences.
    """

    name: str
    form: str
    files: dict[str, int]
    address: str | None
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(self.files.values())

    def as_json(self) -> dict[str, Any]:
        """What `push --json` prints."""
        return {**asdict(self), "bytes": self.bytes}

    def __str__(self) -> str:
        """The files, and where they are."""
        width = max(map(len, self.files))
        lines = [
            f"{file.ljust(width)}  {files.human_bytes(size):>10}"
            for file, size in self.files.items()
        ]
        what = f"{len(lines)} files, {files.human_bytes(self.bytes)}"
        if self.address is None:
            return "\n".join([*lines, f"would be pushed to {self.name}: {what}", *self.notes])
        return "\n".join([*lines, f"pushed to {self.address}: {what}", *self.notes])


@dataclass(frozen=True)
class Pulled:
    """A run that was pulled, and what to know of it, in sentences."""

    run: Run
    notes: tuple[str, ...]


def check_repository(name: str) -> str:
    """The name of a repository, if it can be one. Raises SpaceliteError."""
    owner, _, rest = name.partition("/")
    if not owner or not rest or "/" in rest:
        raise SpaceliteError(
            f"{visible_name(name)!r} is no name of a repository on the hub: give OWNER/NAME"
        )
    return name


def push(
    run: Run,
    name: str,
    *,
    form: str = FORM,
    private: bool = False,
    dry_run: bool = False,
    cache_dir: Path | None = None,
    backbone: str | None = None,
    known_backbone: str | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Pushed:
    """Push a run in a form of export, with its model card, to the repository `name`, which is
    created if there is none; with `dry_run`, only say what would be pushed."""
    check_repository(name)
    with TemporaryDirectory(prefix="spacelite-push-") as temporary:
        try:
            exported = export(
                run,
                form,
                Path(temporary) / "export",
                cache_dir=cache_dir,
                backbone=backbone,
                known_backbone=known_backbone,
                on_progress=on_progress,
                repository=name,
            )
        except SpaceliteError as error:  # which names the argument of `export`
            about = str(error).replace(f"to={form}", f"form={form}")
            raise SpaceliteError(about, ["form", *error.arguments]) from error
        if dry_run:
            return Pushed(name, form, exported.files, None, exported.notes)
        contents = {file: exported.path / file for file in exported.files}
        message = f"Run {run.id} as {form}"
        address = hub.upload(name, contents, private=private, message=message)
        others = hub.repository(name).sizes.keys() - contents.keys() - {".gitattributes"}
        notes = exported.notes
        if others:
            shown = ", ".join(map(visible_name, sorted(others)[:LISTED]))
            more = ", ..." if len(others) > LISTED else ""
            notes += (f"files that were in {name} before are still there: {shown}{more}",)
        return Pushed(name, form, exported.files, address, notes)


def pull(
    name: str, cache_dir: Path, *, revision: str | None = None, run_name: str | None = None
) -> Pulled:
    """Fetch the run of a repository into `<cache_dir>/runs/`. Raises SpaceliteError if there is no
    such repository, it holds no run, a file of it was changed, or another run has its id or
    name."""
    check_repository(name)
    if run_name is not None:
        store.check_name(run_name)
    found = hub.repository(name, revision)
    _require_run(name, found)
    runs = store.prepare(cache_dir)
    with TemporaryDirectory(prefix="spacelite-pull-") as temporary, _beside(runs) as folder:
        for file, most in MOST_BYTES.items():
            if file in found.sizes:
                fetched = hub.download(name, found.commit, file, Path(temporary))
                with files.writing(runs), _of_hub(name, file):
                    files.write_bytes(folder / file, files.read_bytes(fetched, most=most))
        run, was_there = store.adopt(_checked(folder, name), cache_dir, run_name)
    notes = []
    if was_there:
        notes.append("it was there already")
    if (missing := missing_backbone(run)) is not None:
        notes.append(missing)
    return Pulled(run, tuple(notes))


def _checked(folder: Path, name: str) -> Run:
    """The run in a folder, to which the repository `name` was fetched. Raises SpaceliteError if
    anything in it is damaged or was changed."""
    try:
        run = store.load(folder)
        problems = run.problems()
        if not run.sealed:
            problems = ["its files have no checksums: save it"]
    except SpaceliteError as error:
        problems = [str(error)]
    if not problems:
        return run
    what, _, remedy = (
        problems[0].replace(f"run {folder}", "it").replace(f"{folder}/", "").rpartition(": ")
    )
    what = what.removeprefix("it: ")
    raise SpaceliteError(
        f"the run in {name} cannot be used: {what}"
        + (f": {remedy}" if "upgrade" in remedy else "; ask its owner to push it again")
    )


def _require_run(name: str, found: hub.Repository) -> None:
    """Raise SpaceliteError unless a repository holds the files of a run, none of them too large."""
    if missing := [file for file in NEEDED if file not in found.sizes]:
        what = f"it lacks {', '.join(missing)}"
        if EXPORTED in found.sizes and RECORD in missing:
            raise SpaceliteError(
                f"{name} holds a run in a form for other programs, which cannot be pulled: fetch "
                f"it with `hf download {name}`, or push the run with form={FORM}",
                ["form"],
            )
        raise SpaceliteError(f"{name} holds no run of spacelite: {what}")
    for file, most in MOST_BYTES.items():
        if found.sizes.get(file, 0) > most:
            raise SpaceliteError(
                f"{name} holds no run of spacelite: {file} has "
                f"{files.human_bytes(found.sizes[file])}, and no run has more than "
                f"{files.human_bytes(most)} there"
            )


@contextmanager
def _beside(runs: Path) -> Iterator[Path]:
    """An empty hidden folder among the runs, which is deleted unless it was moved."""
    with files.writing(runs), TemporaryDirectory(prefix=".pulled-", dir=runs) as folder:
        inner = Path(folder) / "run"
        inner.mkdir()
        yield inner


@contextmanager
def _of_hub(name: str, file: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise SpaceliteError(f"{file} of {name} cannot be used: {error}") from error


def missing_backbone(run: Run) -> str | None:
    """What fetches the backbone of a run, as a sentence; None if it is on this machine. The hub is
    not asked."""
    spec = run.record.spec
    kind, _, version = spec.backbone_version.partition(":")
    if kind == "revision":
        folder = hub.local_backbone(spec.backbone, version)
        try:
            if folder is not None and weight_files(folder):
                return None
        except SpaceliteError:
            pass  # only a part of it is there
        return (
            f"its backbone is not on this machine: the first spacelite predict {run.id} fetches "
            f"it, and so does hf download {spec.backbone} --revision {version}"
        )
    try:
        backbone_files(run)
    except SpaceliteError as error:
        if spec.backbone == "minilm":
            return f"its backbone is not on this machine: {error}"
        return (
            f"its backbone was the local folder {visible_name(spec.backbone)}: name it in every "
            f"prediction (spacelite predict {run.id} --backbone FOLDER)"
        )
    return None
