"""Files that no spacelite wrote: HDF5 of other structure, npz with other headers, JSON of other
types, pipes, links, folders and devices in place of files:

    python tests/campaigns hostile [--trials 1000] [--seed 0]

No command may crash, hang or ask for memory by a number in a file; each gives its usual answer, or
one line. Nothing outside the cache folder may change.
"""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import trials
from trials import COMMANDS, EMBED, Tally, World

from spacelite.cache import hdf5

TRIALS = 1000

NEEDS = ("embed", "cv", "audit", "train", "eval", "texts")
READS = (
    "cache list", "cache info bert--data", "cache verify bert--data", "runs list",
    "report --no-examples", "runs show linear", COMMANDS["predict"].words,
    "train --head linear --pooling layers --epochs 1 --no-baselines --cache bert--data",
    "train --head linear --epochs 1 --no-baselines --cache bert--data", EMBED,
    COMMANDS["embed reuse"].words, "cache remove bert--data --yes", "runs remove linear --yes",
)  # fmt: skip
Change = Callable[[h5py.File], None]
HUGE, DEEP = 2**62, 100_000


def replaced(name: str, *, shape: tuple[int, ...] | None = None, kind: str | None = None,
             **options: object) -> Change:  # fmt: skip
    """A change: a dataset of train of another shape, type or storage."""

    def change(file: h5py.File) -> None:
        group, old = file["train"], file["train"][name][...]
        del group[name]
        content = old.astype(kind or old.dtype)
        if shape is None:
            group.create_dataset(name, data=content, **options)
        else:
            group.create_dataset(name, shape, kind or old.dtype, **options)

    return change


def valued(name: str, *values: tuple[int, int]) -> Change:
    """A change: other values at these places of a dataset of train."""

    def change(file: h5py.File) -> None:
        for place, value in values:
            file["train"][name][place] = value

    return change


def attribute(name: str, value: object, group: str = "/") -> Change:
    """A change: another value of an attribute; None for none."""

    def change(file: h5py.File) -> None:
        if value is None:
            del file[group].attrs[name]
        else:
            file[group].attrs[name] = value

    return change


def renamed(name: str, to: str) -> Change:
    """A change: another name."""
    return lambda file: file.move(name, to)


def linked(name: str, link: object) -> Change:
    """A change: a link in place of a dataset or group."""

    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = link

    return change


def spec(**values: object) -> Change:
    """A change: other values in the spec."""

    def change(file: h5py.File) -> None:
        content = {**json.loads(file.attrs["spec"]), **values}
        file.attrs["spec"] = json.dumps(content, sort_keys=True, separators=(",", ":"))

    return change


STRUCTURES: dict[str, Change] = {
    **{f"no attribute {name}": attribute(name, None)
       for name in ("format", "spec", "padding_side")},
    "no index_crc32": attribute("index_crc32", None, "train"),
    **{f"format {value!r}": attribute("format", value)
       for value in ("one", 1.5, -1, 99, [1, 2], np.float64("nan"))},
    "index_crc32 of text": attribute("index_crc32", "12", "train"),
    "index_crc32 of many": attribute("index_crc32", [1, 2], "train"),
    **{f"spec {value!r:.20}": attribute("spec", value)
       for value in ("", "{}", "[]", "{", 5, b"\xff\xfe", "[" * 50_000, [1.5])},
    **{f"spec {name} {value!r:.20}": spec(**{name: value})
       for name in ("label_names", "dtype", "max_length", "backbone", "layer", "dataset")
       for value in (None, [], {}, -1, 10**30, "x\0y", "../../x", "\ud800")},
    "padding_side of bytes": attribute("padding_side", b"\xff"),
    "split renamed": renamed("test", "tset"),
    "split a dataset": linked("test", np.arange(3)),
    "split soft link to itself": linked("test", h5py.SoftLink("/test")),
    "split in another file": linked("test", h5py.ExternalLink("/etc/passwd", "/")),
    "split in no file": linked("test", h5py.ExternalLink("nowhere.h5", "/train")),
    "pooled renamed": renamed("train/pooled", "train/deeloop"),
    **{f"{name} missing": (lambda file, name=name: file["train"].__delitem__(name))
       for name in ("tokens", "offsets", "labels", "token_ids", "done", "crc32")},
    **{f"{name} chunked": replaced(name, chunks=True, compression="gzip")
       for name in ("tokens", "offsets", "done", "crc32")},
    **{f"{name} of 2^50 chunked": replaced(name, shape=(2**50,), chunks=(1024,))
       for name in ("tokens", "offsets", "labels", "done", "crc32", "token_ids")},
    **{f"{name} too short": replaced(name, shape=(3,))
       for name in ("offsets", "labels", "done", "crc32", "token_ids", "pooled_crc32")},
    **{f"{name} empty": replaced(name, shape=(0,)) for name in ("offsets", "done", "labels")},
    **{f"{name} as {kind}": replaced(name, kind=kind)
       for name in ("tokens", "offsets", "labels", "done") for kind in ("float64", "int8", ">i8")},
    "tokens of strings": replaced("tokens", shape=(5, 16), kind=h5py.string_dtype()),
    "tokens external": replaced("tokens", shape=(100,), kind="int8",
                                external=[("/etc/passwd", 0, 100)]),
    "tokens of width 0": replaced("tokens", shape=(5, 0)),
    **{f"offset {place} {value}": valued("offsets", (place, value))
       for place, value in ((1, HUGE), (1, -1), (0, 5), (3, 0), (-1, 10**9), (1, -HUGE))},
    **{f"labels {value}": valued("labels", (0, value)) for value in (-1, 2, 99, HUGE, -HUGE)},
    "done of 7": valued("done", (0, 7)),
    "token ids beyond the vocabulary": valued("token_ids", (0, 2**31 - 1), (1, -2**31)),
    "a group more": lambda file: file.create_group("train/more"),
    "a named type for tokens": linked("train/tokens", np.dtype("f4")),
}  # fmt: skip


def header(text: str, version: bytes = b"\1\0", length: int | None = None) -> bytes:
    """An npy file with this header and a few bytes."""
    content = text.encode()
    size = (len(content) if length is None else length).to_bytes(
        2 if version < b"\2" else 4, "little"
    )
    return b"\x93NUMPY" + version + size + content + bytes(64)


NPY = {
    "header of 4 GB": header("{}", b"\2\0", 2**32 - 1),
    "shape of 2^62": header(f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({HUGE},), }}\n"),
    "shape -1": header("{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }\n"),
    "objects": header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"),
    "no tokens": header("{'descr': '<i8', 'fortran_order': False, 'shape': ((((\n"),
    "other keys": header("{'descr': '<i8'}\n"),
    "a type of 2 GB": header("{'descr': '<U500000000', 'fortran_order': False, 'shape': (1,), }\n"),
    "version 9": header("{}", b"\x09\0"),
    "nothing": b"",
    "no magic": b"hello",
}


def archive(source: Path, change: Callable[[zipfile.ZipInfo, bytes], bytes | None]) -> bytes:
    """An npz file with other members; None leaves one out."""
    content = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(content, "w") as new:
        for info in old.infolist():
            changed = change(info, old.read(info))
            if changed is not None:
                new.writestr(info, changed)
    return content.getvalue()


def archives(source: Path) -> Iterator[tuple[str, bytes]]:
    """Hostile contents in place of an npz file."""
    names = zipfile.ZipFile(source).namelist()
    for name, npy in NPY.items():
        for member in {names[0], names[-1]}:
            yield f"{member}: {name}", archive(
                source, lambda info, old, npy=npy, member=member:
                npy if info.filename == member else old)  # fmt: skip
    whole = archive(source, lambda info, old: old)
    yield (
        "a member missing",
        archive(source, lambda info, old: old if info.filename != names[0] else None),
    )
    for name, place, value in (
        ("encrypted", 6, 1),
        ("compression 99", 8, 99),
        ("needs version 99", 4, 99),
    ):
        content = bytearray(whole)
        for magic, shift in ((b"PK\3\4", 0), (b"PK\1\2", 2)):
            start = content.find(magic)
            content[start + place + shift] = value
        yield name, bytes(content)
    # Sizes in the central directory, and where it is.
    for at in range(whole.rfind(b"PK\1\2") + 16, len(whole) - 2, 4):
        yield f"0xFF at {at}", whole[:at] + b"\xff\xff\xff\x7f" + whole[at + 4 :]
    yield "cut", whole[: len(whole) // 2]
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as file:
        for name in names:
            file.writestr(name, bytes(50_000_000))
    yield "a bomb", bomb.getvalue()


def documents(source: Path) -> Iterator[tuple[str, bytes]]:
    """Hostile contents in place of a JSON file."""
    for text in (
        *("", "null", "5", "[]", "{}", '"x"', "NaN", "\ufeff{}", "\0", "1" * 10_000),
        *("[" * DEEP, '{"a":' * DEEP, '{"format": 1e999}', '{"format": 1, "format": 2}'),
    ):
        yield f"JSON {text[:12]!r}", text.encode()
    yield "not UTF-8", b'{"a": "\xff"}'
    content = json.loads(source.read_text())
    if isinstance(content, dict):
        content.pop("checksum", None)
        for key in content:
            for value in (None, [], {}, -1, 10**18, "\ud800", "../../x", [[]], {"x": {}}):
                yield f"{key}: {value!r}", json.dumps({**content, key: value}).encode()
        for key in content:
            yield f"no {key}", json.dumps({k: v for k, v in content.items() if k != key}).encode()


def places(path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """What else can have the name of a file."""
    outside = path.parents[-1]
    yield "a pipe", lambda: os.mkfifo(path)
    yield "a folder", lambda: path.mkdir()
    yield "a folder with a file", lambda: (path.mkdir(), (path / "x").write_text("x"))
    yield "a link to nothing", lambda: path.symlink_to(outside / "nowhere")
    yield "a link to itself", lambda: path.symlink_to(path)
    yield "a link to /dev/zero", lambda: path.symlink_to("/dev/zero")
    yield "a link to a folder", lambda: path.symlink_to(path.parent)
    yield "an empty file", lambda: path.write_bytes(b"")
    yield "a sparse file of 1 TB", lambda: (path.write_bytes(b"x"), os.truncate(path, 10**12))
    yield "nothing", lambda: None


def trials_of(folder: Path) -> Iterator[tuple[str, str, Callable[[Path], None]]]:
    """Row of the table, what is tried, and what does it to a fresh copy of a folder."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.name.startswith(".") or not path.is_relative_to(folder / "cache"):
            continue
        name, file = str(path.relative_to(folder)), path.suffix

        def put(content: bytes, name: str = name) -> Callable[[Path], None]:
            return lambda at: ((at / name).write_bytes(content), None)[1]

        for what, _ in places(path):

            def make(at: Path, name: str = name, what: str = what) -> None:
                (at / name).unlink()
                dict(places(at / name))[what]()

            yield "pipes, links, folders", f"{name}: {what}", make
        contents = {".npz": archives, ".json": documents}.get(file)
        for what, content in contents(path) if contents else ():
            yield f"other {file}", f"{name}: {what}", put(content)
    for path in sorted((folder / "cache" / "embeddings").glob("*data--*.h5")):
        for sealed in (False, True):
            for what, change in STRUCTURES.items():

                def alter(at: Path, change: Change = change, sealed: bool = sealed,
                          name: str = path.name) -> None:  # fmt: skip
                    changed = at / "cache" / "embeddings" / name
                    with h5py.File(changed, "r+") as file:
                        change(file)
                    hdf5.seal_path(changed).unlink(missing_ok=True)
                    if sealed:
                        hdf5.write_seal(changed)

                yield f"other structures, {'sealed' if sealed else 'no seal'}", what, alter


def run(world: World, chance: random.Random, count: int, tally: Tally) -> None:
    """Make a file, and let commands read it."""
    folder = world.template(NEEDS)
    reader, outside = world.reader, world.folder / "outside"
    outside.mkdir()
    (outside / "x").write_text("outside")
    for row, what, make in trials.chosen([*trials_of(folder)], count, chance):
        shutil.rmtree(world.at, ignore_errors=True)
        shutil.copytree(folder, world.at)
        try:
            make(world.at)
        except (OSError, ValueError, TypeError, RuntimeError, KeyError):
            continue  # h5py or the system does not make such a thing
        for command, done in zip(READS, reader.ask(READS)[0], strict=False):
            how = trials.ended(done)
            how = "same" if how == "finished" else how
            if (outside / "x").read_text() != "outside":
                how = "wrong"
            tally.add(row, how, f"{what}: {command}", done)
