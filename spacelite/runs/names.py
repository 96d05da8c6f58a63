"""What users call a run: its id, a part of the id, a name of its own, or its folder."""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spacelite import files
from spacelite.cache.spec import CacheSpec
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.runs.reading import UNREADABLE, read_json
from spacelite.runs.record import run_id
from spacelite.runs.store import OWN_FILES, RECORD, Run, load, runs_folder, saved_name
from spacelite.training.config import TrainingConfig

LONGEST = 60
LISTED = 10  # most runs that a message lists


def check_name(name: str) -> str:
    """The name, if a run can have it.

    Raises:
        SpaceliteError: It has other characters than letters, digits, dots, underscores and single
            dashes, is too long, or could be taken for an id or a path.
    """
    about = f"a run cannot be named {name!r}: "
    if not re.fullmatch(r"\w[\w.-]*", name) or name.endswith(".") or len(name) > LONGEST:
        raise SpaceliteError(
            f"{about}use letters, digits, dots, underscores and dashes, {LONGEST} at most, with a "
            "letter or digit first"
        )
    if "--" in name or re.fullmatch(r"[0-9a-f]{8}", name):
        raise SpaceliteError(
            f"{about}it looks like the id of a run; use no double dash, and not eight of the "
            "characters 0-9 and a-f alone"
        )
    return name


def names(runs: Path) -> dict[str, str]:
    """Id -> name of the runs in a folder that have a name of their own."""
    found = {}
    for folder in sorted(runs.glob("[!.]*")):
        if name := saved_name(folder):
            found[folder.name] = name
    return found


def check_free(runs: Path, name: str, run: str) -> None:
    """Raise SpaceliteError if another run in the folder than the one of id `run` has the name."""
    for other, taken in names(runs).items():
        if taken == name and other != run:
            raise SpaceliteError(
                f"run {other} is named {name} already: choose another name, or clear that one first"
            )


def names_for(
    cache_dir: Path,
    spec: CacheSpec,
    configs: Sequence[HeadConfig],
    training: TrainingConfig,
    name: str | None,
) -> dict[HeadConfig, str | None]:
    """The name of each head that is going to be trained: `name` if it is a single one, otherwise
    `name-1`, `name-2`, ... in the order of the heads.

    Args:
        cache_dir: Folder of caches and runs.
        spec: Spec of the cache.
        configs: The heads.
        training: Training settings.
        name: The name; None for none.

    Raises:
        SpaceliteError: A run cannot have such a name, or another run has it.
    """
    if name is None:
        return dict.fromkeys(configs)
    check_name(name)
    several = len(configs) > 1
    own = {
        config: check_name(f"{name}-{number}" if several else name)
        for number, config in enumerate(configs, 1)
    }
    taken = {name: run for run, name in names(runs_folder(cache_dir)).items()}
    for config, each in own.items():
        fitted = training if config.is_iterative else training.for_fitting()
        if taken.get(each, run := run_id(spec, config, fitted)) != run:
            check_free(runs_folder(cache_dir), each, run)
    return dict(own)


def rename(run: Run, name: str | None) -> Run:
    """Give a run a name of its own, in place of the one that it has; None takes its name away.

    Returns:
        The renamed run.

    Raises:
        SpaceliteError: A run cannot have such a name, another run has it, or it cannot be saved.
    """
    if name is not None:
        check_name(name)
    with files.lock(run.folder.parent):
        if name is not None:
            check_free(run.folder.parent, name, run.id)
        try:
            content = {**read_json(run.folder / RECORD), "name": name}
            files.write_json(run.folder / RECORD, content)
        except UNREADABLE as error:
            raise SpaceliteError(f"{run.folder / RECORD} cannot be written: {error}") from error
    return replace(run, record=replace(run.record, name=name))


def matching(ids: Sequence[str], named: Mapping[str, str], name: str) -> list[str]:
    """The ids that a name can mean: that id, else those of runs with this name, else those that it
    is a part of.

    Args:
        ids: Ids of runs.
        named: Id -> name, of the runs that have one.
        name: What was given.
    """
    if name in ids:
        return [name]
    own = [each for each in ids if named.get(each) == name]
    return own or [each for each in ids if name in each]


def folder_of(cache_dir: Path, name: str) -> Path:
    """The folder of a run, damaged or not.

    Args:
        cache_dir: Folder of caches and runs.
        name: The run's id, its name, a part of its id that no other id has, or its folder. An id
            or a name comes before a folder of the same name.

    Raises:
        SpaceliteError: No run matches, or more than one.
    """
    if not name:
        raise SpaceliteError("a run's name is empty: give its id, its name or its folder")
    runs = runs_folder(cache_dir)
    ids = sorted(path.name for path in runs.glob("[!.]*") if path.is_dir())
    named = names(runs)
    fitting = matching(ids, named, name)
    exact = name in ids or name in named.values()
    path = Path(name)
    if not exact and (path / RECORD).is_file():
        return path
    if not exact and ("/" in name or path.is_absolute()):
        if path.is_dir():
            raise SpaceliteError(
                f"folder {path} has no {RECORD}: it is not a run, or a part of one"
            )
        raise SpaceliteError(f"there is no folder {path}: give a run's id, its name or its folder")
    if len(fitting) == 1:
        return runs / fitting[0]
    if fitting:
        raise SpaceliteError(
            f"{len(fitting)} runs have {name!r} in their id ({_listed(fitting, named)}): give a "
            "longer part of it"
        )
    if not ids:
        raise SpaceliteError(f"{cache_dir} holds no run: train one first")
    known = [*named.values(), *(each.rpartition("--")[2] for each in ids), *ids]
    if close := difflib.get_close_matches(name, known, n=3):
        raise SpaceliteError(
            f"there is no run {name!r} in {runs}: did you mean {' or '.join(close)}? (spacelite "
            "runs list shows all)"
        )
    raise SpaceliteError(f"there is no run {name!r} in {runs}, which holds {_listed(ids, named)}")


def find(cache_dir: Path, name: str) -> Run:
    """Load the run that `name` means. Arguments and errors as of `folder_of` and `load`."""
    return load(folder_of(cache_dir, name))


def remove(folder: Path) -> None:
    """Delete a run, damaged or not.

    Raises:
        SpaceliteError: The folder is no run, is not in a folder of runs and holds other files too,
            or cannot be deleted.
    """
    others = sorted(
        path.name for path in folder.iterdir() if path.name not in OWN_FILES and path.name[0] != "."
    )
    if others and folder.parent.name != runs_folder(Path()).name:
        raise SpaceliteError(
            f"{folder} also holds {', '.join(others[:LISTED])}: move this away first, or delete "
            "the folder yourself"
        )
    removed = folder.with_name(f".{folder.name}.removed")
    try:
        with files.lock(folder.parent):
            if removed.exists():
                shutil.rmtree(removed)
            folder.rename(removed)  # a run is there as a whole or not at all
            shutil.rmtree(removed)
            files.lock_path(folder).unlink(missing_ok=True)
    except OSError as error:
        raise SpaceliteError(f"{folder} cannot be removed: {error.strerror or error}") from error


def _listed(ids: Sequence[str], named: dict[str, str]) -> str:
    shown = [f"{each} named {named[each]}" if each in named else each for each in ids[:LISTED]]
    return ", ".join(shown) + (f" and {len(ids) - LISTED} more" if len(ids) > LISTED else "")
