"""The form `safetensors`: the head alone, as `runs/` holds it, with the backbone named by its
revision. It is what `push` sends and `pull` fetches."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from typing_extensions import override

from spacelite import files
from spacelite.errors import SpaceliteError
from spacelite.export.card import base_model, sentence
from spacelite.export.form import Form, Source
from spacelite.metrics import predictions
from spacelite.reports.render.markup import Markdown
from spacelite.runs import store
from spacelite.runs.store import HISTORY, PARAMETERS, PREDICTIONS, RECORD, Run
from spacelite.types import Array
from spacelite.visible import visible_name


class SafetensorsForm(Form):
    """A run's own files."""

    name = "safetensors"
    library = "spacelite"
    is_copy = True

    @override
    def refusal(self, run: Run) -> str | None:
        if run.record.spec.is_imported:
            return (
                "its hidden states were imported, and nobody could classify a text without the "
                "model that computed them"
            )
        return None

    @override
    def write(self, source: Source, folder: Path) -> list[str]:
        write(source.run, folder)
        if not is_the_same(source.run, folder):
            raise SpaceliteError(f"run {source.run.id} was changed while it was read: try again")
        return needs_folder(source.run)

    @override
    def use(self, run: Run, name: str, folder: Path) -> str:
        quoted, needed = shlex.quote(visible_name(name)), needs_folder(run)
        fetched = "/" in name  # from a repository
        named = run.id if fetched else quoted
        load = f"spacelite predict {named} 'a text'"
        if run.record.spec.pairs:
            load = f"spacelite predict {named} 'a text' --pair 'another'"
        if needed:
            _, _, given = load.partition(named)
            load = f"spacelite predict {named} --backbone FOLDER{given}"
        if fetched:
            load = f"spacelite pull {quoted}\n{load}"
        code = f"```bash\npip install spacelite\n{load}\n```"
        return "\n\n".join([code, *map(Markdown().escaped, map(sentence, needed))])

    @override
    def probabilities(self, source: Source, folder: Path, texts: Sequence[str]) -> Array:
        return source.expected  # of the same head


def needs_folder(run: Run) -> list[str]:
    """That whoever has the head needs the files of its backbone too, if that was a local folder."""
    spec = run.record.spec
    if base_model(spec) is not None:
        return []
    return [
        f"the backbone {visible_name(spec.backbone)} was a local folder and is not in this form: "
        f"whoever uses the run needs the files of that folder ({spec.backbone_version}), and names "
        "it in each prediction"
    ]


def write(run: Run, folder: Path) -> None:
    """Write a run's files into an empty folder, without what is about this machine or names files
    of the data: folders, and where each predicted example comes from. Raises OSError."""
    contents = {name: files.read_bytes(run.folder / name) for name in (PARAMETERS, HISTORY)}
    checksums = {name: files.write_bytes(folder / name, whole) for name, whole in contents.items()}
    splits = [split for split in run.record.metrics if split != "train"]
    saved = {split: run.predictions(split=split) for split in splits}
    known = {
        split: replace(of_split, files=None, rows=None)
        for split, of_split in saved.items()
        if of_split is not None
    }
    if known:
        checksums[PREDICTIONS] = predictions.save(folder / PREDICTIONS, known)
    record = replace(run.record, cache_files=(), backbone_folder=None, checksums=checksums)
    files.write_json(folder / RECORD, record.as_json())


def is_the_same(run: Run, folder: Path) -> bool:
    """Whether the head in a folder is the run's, bit for bit."""
    other = store.load(folder)
    ours, theirs = run.parameters, other.parameters
    return ours.keys() == theirs.keys() and all(
        np.array_equal(ours[name], theirs[name]) for name in ours
    )
