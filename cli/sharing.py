"""spacelite push and spacelite pull."""

from __future__ import annotations

from pathlib import Path

import spacelite

from . import cleaned_up, console
from .options import CACHE_DIR


def push(
    run: str,
    repository: str,
    *,
    form: str = "safetensors",
    private: bool = False,
    dry_run: bool = False,
    backbone: str | None = None,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Push a run with its model card to the Hugging Face hub.

    Options:
        repository: The repository of models, OWNER/NAME, which is created if there is none.
        form FORM: safetensors: the head alone, which pull fetches; or another form of export.
        private: Make a new repository private.
        dry_run: Only show which files would go, and how large they are.
    """
    arguments = locals()
    with cleaned_up():
        pushed = console.call(spacelite.load_run(run, cache_dir).push, arguments)
    console.result(pushed, as_json)


def pull(
    repository: str,
    *,
    revision: str | None = None,
    name: str | None = None,
    cache_dir: Path = CACHE_DIR,
    as_json: bool = False,
) -> None:
    """Fetch a run that was pushed to the Hugging Face hub.

    Options:
        repository: The repository, OWNER/NAME.
        revision: A commit, branch or tag of it. [default: the newest]
        name: A name for the run. [default: the one that it was given, if no run here has it]
    """
    with cleaned_up():
        run = spacelite.pull(repository, revision=revision, name=name, cache_dir=cache_dir)
    if as_json:
        console.print_json({"id": run.id, "name": run.name, "path": str(run.run.folder)})
        return
    named = f", named {run.name}" if run.name else ""
    console.say(f"run {run.id}{named} is in {run.run.folder}: {run.record.system}")
