"""A bit flips in a file of a cache, a run, a checkpoint, a study or a store of texts, which is then
read:

    python tests/campaigns flips [--trials 12000] [--seed 0]

In HDF5 files every nonzero byte outside the values is flipped, then a sample of all other bytes of
all files. Commands must give the answer that they give without the flip, or one line that says what
is damaged.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import h5py
import trials
from trials import COMMANDS, KILL, TRAIN, Tally, World

TRIALS = 12_000  # enough for every one of these bytes

# What a command says that leaves out or makes again what is damaged.
TELLS = ("damaged", "cannot be", "missing", "does not match", "not used", "left out")
REPORT = COMMANDS["report"].words


class Target(NamedTuple):
    """Files, the commands that make them (the last one killed at this share of its calls), and
    those that read them."""

    files: str
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    until: float = 0


TARGETS = {
    "cache": Target(
        "cache/embeddings/*", ("embed",),
        ("cache list --json", "cache verify bert", "cache info bert --json",
         "train --head space --epochs 1 --device cpu", trials.LOOK, f"{REPORT} --backbone ~/bert"),
    ),
    "shards": Target("cache/embeddings/*.h5/*", ("embed shards",),
                     ("cache list --json", "cache verify bert", trials.LOOK)),
    "cache, unfinished": Target("cache/embeddings/*more*", ("embed", "embed reuse"),
                                (COMMANDS["embed reuse"].words,), 0.6),
    "run": Target("cache/runs/**/*", ("embed", "train", "eval"),
                  ("runs list --json", REPORT, COMMANDS["predict"].words)),
    "checkpoint": Target("cache/unfinished/*", ("embed", "train"), (TRAIN,), 0.4),
    "study": Target("cache/questions/*", ("embed", "cv", "audit", "train"), (REPORT,)),
    "store of texts": Target("cache/texts/**/*", ("texts",), ("cache list", "texts")),
}  # fmt: skip


class Flip(NamedTuple):
    """A place in a file of a target."""

    target: str
    file: str
    part: str  # the row of the table
    offset: int


def template(world: World, target: Target) -> Path:
    """The folder with the files of a target."""
    if not target.until:
        return world.template(target.needs)
    *before, last = target.needs
    folder = world.folder / f"killed {last}"
    if not folder.exists():
        calls = world.expected(last).calls
        world.ready(tuple(before))
        world.does(last, KILL, int(calls * target.until))
        world.at.rename(folder)
    return folder


def values(path: Path) -> list[tuple[int, int]]:
    """Where the values of an HDF5 file begin and end."""
    places: list[tuple[int, int]] = []

    def note(_: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            start = item.id.get_offset()
            places.append((start, start + item.nbytes))

    with h5py.File(path) as file:
        file.visititems(note)
    return places


def places(name: str, folder: Path) -> tuple[list[Flip], list[Flip]]:
    """All nonzero bytes of metadata, and all other bytes."""
    metadata, others = [], []
    for path in sorted(folder.glob(TARGETS[name].files)):
        if not path.is_file() or path.name.startswith("."):
            continue
        file, content = str(path.relative_to(folder)), path.read_bytes()
        kind = path.name if name in ("run", "store of texts") else "".join(path.suffixes[-2:])
        if "transfer" in file:
            kind = f"transfer {path.suffix}"
        part, inside = f"{name}: {kind}", bytearray(len(content))
        if path.suffix in (".h5", ".hdf5"):
            for start, end in values(path):
                inside[start:end] = b"\1" * (end - start)
            part += " values"
        for offset, byte in enumerate(content):
            if path.suffix in (".h5", ".hdf5") and not inside[offset] and byte:
                metadata.append(Flip(name, file, part.replace("values", "metadata"), offset))
            else:
                others.append(Flip(name, file, part, offset))
    return metadata, others


def run(world: World, chance: random.Random, count: int, tally: Tally) -> None:
    """Flip and read."""
    folders = {name: template(world, target) for name, target in TARGETS.items()}
    metadata: list[Flip] = []
    sampled: dict[str, list[Flip]] = {}  # by row of the table
    for name, folder in folders.items():
        every, others = places(name, folder)
        metadata += every
        for flip in others:
            sampled.setdefault(flip.part, []).append(flip)
    chance.shuffle(metadata)
    rows = sorted(sampled)
    share = 0.5 if count < 2 * len(metadata) else len(metadata) / count
    chosen = metadata[: int(count * share) or None]
    chosen += [chance.choice(sampled[rows[i % len(rows)]]) for i in range(count - len(chosen))]
    reader = world.reader
    usual = {name: reader.ask(TARGETS[name].reads, folder) for name, folder in folders.items()}
    for flip in trials.shown(chosen):
        bit, (before, expected) = chance.randrange(8), usual[flip.target]
        ends, left = reader.ask(
            TARGETS[flip.target].reads, folders[flip.target], flip.file, flip.offset, bit
        )
        how = trials.ended(ends[-1])
        if how == "finished":
            expected = {path: text for path, text in expected.items() if path != flip.file}
            new = {*lines(ends)} - {*lines(before)}
            durations = ".seconds." in flip.file  # which are no answer
            how = "same" if durations or left == expected else "wrong"
            if how == "wrong" and any(word in line for line in new for word in TELLS):
                how = "told"
        other = {path for path in {*left, *expected} if left.get(path) != expected.get(path)}
        where = f"{flip.file} byte {flip.offset} bit {bit}, other files: {sorted(other)[:5]}"
        tally.add(flip.part, how, where, ends[-1])


def lines(ends: list[trials.Done | None]) -> list[str]:
    """All messages of commands."""
    return [line for done in ends if done is not None for line in done.stderr.splitlines()]
