"""Hidden states that another program computed -> cache file: read, identify, write.

Every source is read twice, an example at a time: to learn its sizes and what identifies it, and,
once the file is laid out, to write what is not done yet.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from spacelite import files
from spacelite.cache import store
from spacelite.cache import texts as cached_texts
from spacelite.cache.dtypes import Rounded, Rounding, StoredType, rounding_sums, stored_type
from spacelite.cache.embedding import Embedded, is_finished, lay_out
from spacelite.cache.spec import FORMAT, IMPORTED, CacheSpec
from spacelite.cache.split import NO_TOKEN, Checked, SplitIndex, digest, offsets_of
from spacelite.cache.store import ARRAY_ERRORS, Layout, few
from spacelite.cache.writing import Writer, check_finite
from spacelite.data import loading, readers
from spacelite.data.columns import STAND_IN, Reading
from spacelite.data.splits import Table
from spacelite.errors import SpaceliteError, one_line
from spacelite.lazy import torch
from spacelite.progress import OnProgress
from spacelite.settings import suggestion
from spacelite.types import Array

log = logging.getLogger(__name__)

# The usual names of arrays, datasets, tensors and columns.
STATES = ("hidden_states", "embeddings", "hidden", "embedding", "states", "vectors")
IDS, MASKS = ("token_ids", "input_ids"), ("mask", "attention_mask")
FILE_COLUMNS = ("file", "filename", "file_name", "path")
FLOATS = ("float16", "float32", "float64")
BFLOAT16 = "bfloat16"
SUFFIXES = (".npz", ".npy", ".h5", ".hdf5", ".safetensors")  # of arrays by name


class Form(NamedTuple):
    """What all examples of a source have in common."""

    precision: str  # the number type
    layers: int | None  # None where there is no dimension of layers
    width: int
    has_ids: bool


class Example(NamedTuple):
    """What a source holds of an example of n tokens."""

    name: str  # for messages
    hidden: torch.Tensor  # (n, d), or (n, L, d) of L layers
    ids: Array | None  # (n,) int32; None if they are not known

    @property
    def form(self) -> Form:
        """What all examples have to have in common."""
        layers = self.hidden.shape[1] if self.hidden.ndim == 3 else None
        kind = str(self.hidden.dtype).removeprefix("torch.")
        return Form(kind, layers, self.hidden.shape[-1], self.ids is not None)

    @property
    def digest(self) -> bytes:
        """A hash of the hidden states and token ids."""
        content = self.hidden.contiguous().view(torch.uint8).numpy()
        hashed = hashlib.sha256(f"{self.form} {self.hidden.shape}".encode())
        hashed.update(content.data)
        hashed.update(b"" if self.ids is None else self.ids.tobytes())
        return hashed.digest()

    def layer(self, number: int) -> torch.Tensor:
        """The hidden states of one of the layers, (n, d) float32."""
        return (self.hidden if self.hidden.ndim == 2 else self.hidden[:, number]).float()


class Known(NamedTuple):
    """What is kept in memory of an example."""

    digest: bytes
    ids: Array  # (n,) int32; NO_TOKEN where they are not known

    @property
    def stand_in(self) -> str:
        """What stands for the text where it is not known: texts of the same tokens are the same."""
        return (self.digest if self.ids[0] == NO_TOKEN else digest(self.ids)).hex()


@dataclass(frozen=True)
class States:
    """The N examples of a source, which can be read more than once."""

    source: Path
    count: int
    read: Callable[[], Iterator[Example]]


@dataclass(frozen=True, kw_only=True)
class Import:
    """How hidden states are imported: those settings of `spacelite.import_cache`, which explains
    them, that are not about labels."""

    source: Path
    array: str | None = None
    file_column: str | None = None
    bfloat16: bool = False
    layer: int | None = None
    causal: bool | None = None
    backbone: str | None = None
    dtype: str = "float16"


def import_states(
    settings: Import,
    labels: Path,
    reading: Reading,
    *,
    cache_dir: Path,
    test_fraction: float | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Embedded:
    """Import hidden states and, from the table at `labels`, those, as
    `spacelite.import_cache`, which explains the arguments. A finished cache of the same content is
    returned at once, and an unfinished one is continued."""
    started = time.perf_counter()
    stored = stored_type(settings.dtype)
    if not settings.source.exists():
        raise SpaceliteError(f"there is no file or folder {settings.source}")
    if labels.is_dir() or not labels.exists():
        problem = "is a folder" if labels.exists() else "does not exist"
        raise SpaceliteError(f"{labels} {problem}: the labels are read from a single file")
    table = readers.from_path(labels, quoting=reading.quoting)["train"]
    table, named = _file_names(table, settings.file_column, settings.source)
    states = _open(settings, named)
    if not states.count:
        raise SpaceliteError(f"{settings.source} holds no examples: it needs at least one")
    if states.count != table.rows.num_rows:
        raise SpaceliteError(
            f"{settings.source} holds {states.count:,} examples and {labels} "
            f"{table.rows.num_rows:,} rows: give a row for each example, in the same order"
        )
    form, known = _identify(states, settings, stored, on_progress)
    stand_ins = [example.stand_in for example in known]
    data, rows = loading.with_labels(table, labels, stand_ins, reading, test_fraction)
    causal = form.layers is not None if settings.causal is None else settings.causal
    if settings.causal is None and causal:
        problem = (
            f"{settings.source} has hidden states of layers, as language models write them: a "
            "text's last token sums it up; causal=False says that it does not"
        )
        log.info("%s", SpaceliteError(problem, ["causal"]))
    version = hashlib.sha256(b"".join(example.digest for example in known) + bytes([causal]))
    spec = CacheSpec(
        format=FORMAT,
        dataset=data.name,
        dataset_hash=data.fingerprint,
        label_names=data.label_names,
        backbone=settings.backbone or _stem(settings.source),
        backbone_version=IMPORTED + version.hexdigest(),
        tokenizer_hash="",
        max_length=max(len(example.ids) for example in known),
        layer=-1,
        padding="none",
        dtype=settings.dtype,
        precision=form.precision,
        task=data.task_name,
    )
    layers = _layers(settings.layer, form.layers)
    of_layers = [replace(spec, layer=layer if (form.layers or 1) > 1 else -1) for layer in layers]
    specs = {spec.path(cache_dir): spec for spec in of_layers}
    indexes = {
        split: SplitIndex(
            offsets_of(np.array([len(known[row].ids) for row in rows[split].tolist()])),
            part.labels,
            np.concatenate([known[row].ids for row in rows[split].tolist()]),
        )
        for split, part in data.splits.items()
    }
    layout = Layout(form.width, settings.dtype, pooled=False, layers=0, causal=causal)
    unfinished = [path for path in specs if not is_finished(path, specs[path], False)]
    rounded: dict[Path, Rounded | None] = {}
    if unfinished:
        files.make_folder(unfinished[0].parent, "choose another cache_dir")
        with ExitStack() as stack:
            for path in sorted(unfinished):  # in an order on which all processes agree
                stack.enter_context(files.lock(path))
            left = [path for path in unfinished if not is_finished(path, specs[path], False)]
            if left:
                lay_out(specs, dict.fromkeys(left, layout), indexes, "right", "or import less")
                of_path = dict(zip(specs, layers, strict=True))
                writing = {path: of_path[path] for path in left}
                rounded = _write(writing, states, known, rows, stored, on_progress)
                store.add_seconds(left, time.perf_counter() - started)
    for path in specs:
        store.keep_maker(path, "import")
        if data.text_column != STAND_IN:
            cached_texts.keep(path, specs[path].cache_key(), data)
    with suppress(OSError):  # the folder may be read-only
        os.utime(next(iter(specs)))
    seconds = time.perf_counter() - started
    main, *others = (
        Embedded(path, path not in unfinished, seconds, rounded=rounded.get(path)) for path in specs
    )
    return replace(main, others=tuple(others))


def _layers(wanted: int | None, count: int | None) -> list[int]:
    """The layers to import, the last one first: each has a cache of its own."""
    if wanted is None:
        return list(reversed(range(count or 1)))
    if count is None:
        raise SpaceliteError(
            f"layer={wanted}: the hidden states are of a single layer: leave layer out", ["layer"]
        )
    if not -count <= wanted < count:
        raise SpaceliteError(
            f"layer={wanted}: the hidden states are of {count} layers: give 0 to {count - 1}",
            ["layer"],
        )
    return [wanted % count]


def _stem(source: Path) -> str:
    """The name of a folder, or that of a file without its suffix."""
    path = source.resolve()
    return path.name if path.is_dir() else path.stem


# Twice through a source.


def _identify(
    states: States, settings: Import, stored: StoredType, on_progress: OnProgress
) -> tuple[Form, list[Known]]:
    """What all examples have in common, and what identifies each. Raises SpaceliteError if they
    differ in their form, or have numbers that the stored type cannot hold."""
    form: Form | None = None
    known: list[Known] = []
    on_progress("identify", 0, states.count)
    for example in states.read():
        form = form or example.form
        if example.form != form:
            names = ("numbers", "layers", "width", "token ids")
            pairs = zip(names, form, example.form, strict=True)
            what = ", ".join(
                f"{name} {new} and not {old}" for name, old, new in pairs if old != new
            )
            raise SpaceliteError(
                f"{states.source}: {example.name} is of another form than those before it "
                f"({what}): give all examples the same"
            )
        for layer in _layers(settings.layer, form.layers):
            hidden = example.layer(layer)
            if not bool(hidden.isfinite().all()):
                raise SpaceliteError(
                    f"{states.source}: {example.name} has hidden states that are not finite: "
                    "compute them again, or leave the example out"
                )
            check_finite(stored.encode(hidden), stored, f"{states.source}: {example.name}")
        ids = example.ids
        if ids is None:
            ids = np.full(len(example.hidden), NO_TOKEN, np.int32)
        known.append(Known(example.digest, ids))
        on_progress("identify", len(known), states.count)
    if form is None or len(known) != states.count:
        raise _changed(states.source)
    return form, known


def _write(
    layers: Mapping[Path, int],
    states: States,
    known: Sequence[Known],
    rows: Mapping[str, Array],
    stored: StoredType,
    on_progress: OnProgress,
) -> dict[Path, Rounded | None]:
    """Write what is not done into caches that were laid out, each of one of the layers; `rows` are
    the examples of each split. Returns how much the stored type rounds what was written."""
    place = {
        row: (split, index)
        for split, of_split in rows.items()
        for index, row in enumerate(of_split.tolist())
    }
    measure = rounding_sums(stored)
    roundings = {path: Rounding(stored) for path in layers}
    with ExitStack() as stack:
        writers = {path: stack.enter_context(Writer(path)) for path in layers}
        done = {path: {split: of.done(split) for split in rows} for path, of in writers.items()}
        on_progress("import", 0, states.count)
        read = 0
        for example, before in zip(states.read(), known, strict=False):
            split, index = place.get(read, ("", 0))
            missing = [path for path in writers if split and not done[path][split][index]]
            if missing and example.digest != before.digest:
                raise _changed(states.source)
            for path in missing:
                hidden = example.layer(layers[path])
                encoded = stored.to_rows(hidden)
                if measure is not None:
                    roundings[path].add(len(hidden), measure(hidden, encoded).numpy())
                writers[path].write(split, index, {"tokens": Checked.of(encoded.numpy())})
                writers[path].commit_at_times()
            read += 1
            on_progress("import", read, states.count)
        for writer in writers.values():
            writer.commit()
    if read < len(known):
        raise _changed(states.source)
    tokens = sum(len(known[row].ids) for row in place)
    return {path: rounding.log(tokens) for path, rounding in roundings.items()}


def _changed(source: Path) -> SpaceliteError:
    return SpaceliteError(f"{source} changed while it was read: import it again")


# Sources.


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in errors of the libraries that read it, and in ValueErrors about what it
    holds."""
    try:
        yield
    except (*ARRAY_ERRORS, RuntimeError, NotImplementedError) as error:
        # numpy's own message suggests unpickling the file.
        reason = "it holds Python objects" if "pickle" in str(error) else one_line(error, 160)
        raise SpaceliteError(f"{path} cannot be imported: {reason}") from error


def _open(settings: Import, named: Sequence[str] | None) -> States:
    """The examples of a source; of a folder the files that are `named`, or all of them in natural
    order."""
    source = settings.source
    if source.is_dir():
        chosen = _files(source, named)
        return States(source, len(chosen), lambda: _of_files(chosen, settings))
    if source.suffix.lower() == ".parquet":
        with _reading(source):
            count, columns, read = readers.parquet_lists(source)
            names = dict.fromkeys(columns)
            states, ids = _choose(names, settings.array, source), _usual(names, IDS)
        chosen_columns = [states, *([] if ids is None else [ids])]
        return States(source, count, lambda: _of_rows(source, read(chosen_columns), settings))
    if source.suffix.lower() not in SUFFIXES:
        raise SpaceliteError(
            f"{source}: hidden states are imported from .npz, .npy, .h5, .hdf5, .safetensors and "
            ".parquet files, and from folders with a file of these for each example"
        )
    with _reading(source), _arrays(source) as arrays:
        count, _ = _examples(arrays, settings)
    return States(source, count, lambda: _of_file(source, settings))


def _files(folder: Path, named: Sequence[str] | None) -> list[Path]:
    there = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES]
    there.sort(key=lambda file: _natural(file.name))
    if not there:
        raise SpaceliteError(f"{folder} holds no {', '.join(SUFFIXES)} file")
    if named is None:
        return there
    by_name = {file.stem: file for file in there} | {file.name: file for file in there}
    for row, name in enumerate(named, 1):
        if name not in by_name:
            raise SpaceliteError(
                f"row {row:,} names the file {name!r}, and {folder} holds no such file, but "
                f"{few([file.name for file in there], name)}"
            )
    chosen = [by_name[name] for name in named]
    used = {*chosen}
    if left := [file.name for file in there if file not in used]:
        log.warning("%s: no row names %s: left out", folder, few(left))
    return chosen


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts `2` before `10`."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _of_files(chosen: Sequence[Path], settings: Import) -> Iterator[Example]:
    for path in chosen:
        with _reading(path), _arrays(path) as arrays:
            yield _one(path.name, arrays, settings)


def _of_rows(path: Path, rows: Iterator[list[Any]], settings: Import) -> Iterator[Example]:
    with _reading(path):
        for number, (hidden, *ids) in enumerate(rows, 1):
            if hidden is None:
                raise ValueError(f"row {number:,} has no hidden states")
            yield _example(f"row {number:,}", _tensor(hidden, settings), *ids)


def _of_file(path: Path, settings: Import) -> Iterator[Example]:
    with _reading(path), _arrays(path) as arrays:
        count, get = _examples(arrays, settings)
        for number in range(count):
            yield get(number)


@contextmanager
def _arrays(path: Path) -> Iterator[Mapping[str, Any]]:
    """What a file holds by name: arrays, or tensors, or datasets and groups of them."""
    kind = path.suffix.lower()
    if kind == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            yield load_file(path)
        except SafetensorError as error:
            raise ValueError(one_line(error)) from error
    elif kind in (".h5", ".hdf5"):
        with h5py.File(path, "r") as file:
            yield file
    else:
        loaded = np.load(path, mmap_mode="r" if kind == ".npy" else None, allow_pickle=False)
        yield {STATES[0]: loaded} if isinstance(loaded, np.ndarray) else dict(loaded)


def _examples(arrays: Mapping[str, Any], settings: Import) -> tuple[int, Callable[[int], Example]]:
    """The number of examples, and a function that reads one of them."""
    name = settings.array or _usual(arrays, STATES)
    group: Any = None if name is None else arrays.get(name)
    if name is None and isinstance(arrays, h5py.File):
        several = len([key for key in arrays if getattr(arrays[key], "ndim", 0) > 1]) != 1
        group = arrays if several else None
    if isinstance(group, h5py.Group):
        return _datasets(group, arrays, settings)
    hidden = arrays[_choose(arrays, settings.array, settings.source)]
    ids, mask = (
        None if name is None else arrays[name]
        for name in (_usual(arrays, IDS), _usual(arrays, MASKS))
    )
    if mask is not None:
        if tuple(mask.shape) != tuple(hidden.shape[:2]):
            raise ValueError(
                f"the mask has the shape {tuple(mask.shape)} and the hidden states have "
                f"{tuple(hidden.shape)}"
            )

        def padded(number: int) -> Example:
            real = np.asarray(mask[number]) != 0
            states = _tensor(hidden[number], settings, hidden)[torch.from_numpy(real)]
            own = None if ids is None else np.asarray(ids[number])[real]
            return _example(f"example {number + 1:,}", states, own)

        return len(hidden), padded
    offsets = _offsets(arrays)
    if offsets is None and hidden.ndim == 2:
        offsets = np.arange(len(hidden) + 1)
    if offsets is None:
        raise ValueError(
            "padded hidden states need a mask (N, n), and those of all tokens end to end need "
            "offsets (N + 1,) or lengths (N,)"
        )
    if [*offsets[:1], *offsets[-1:]] != [0, len(hidden)] or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets (or lengths) do not divide {len(hidden):,} tokens")

    def flat(number: int) -> Example:
        first, last = offsets[number : number + 2].tolist()
        end = last if number < len(offsets) - 2 else None  # ids that are left over are noticed
        own = None if ids is None else ids[first:end]
        states = _tensor(hidden[first:last], settings, hidden)
        return _example(f"example {number + 1:,}", states, own)

    return len(offsets) - 1, flat


def _offsets(arrays: Mapping[str, Any]) -> Array | None:
    if "lengths" in arrays:
        return offsets_of(np.asarray(arrays["lengths"]).reshape(-1))
    if "offsets" in arrays:
        return np.asarray(arrays["offsets"]).reshape(-1).astype(np.int64)
    return None


def _datasets(
    group: Any, arrays: Mapping[str, Any], settings: Import
) -> tuple[int, Callable[[int], Example]]:
    """A dataset, or a group, for each example, in natural order; token ids in a group beside
    them, under the same names."""
    name = _usual(arrays, IDS)
    every = {} if name is None else arrays[name]
    names = sorted((key for key in group if group[key] != every), key=_natural)

    def get(number: int) -> Example:
        key = names[number]
        if isinstance(group[key], h5py.Group):
            return _one(key, group[key], settings)
        own = None if name is None else every[key][...]
        return _example(key, _tensor(group[key][...], settings, group[key]), own)

    return len(names), get


def _one(name: str, arrays: Mapping[str, Any], settings: Import) -> Example:
    """The example that a file or a group holds."""
    hidden, ids = arrays[_choose(arrays, settings.array, settings.source)], _usual(arrays, IDS)
    own = None if ids is None else arrays[ids][...]
    return _example(name, _tensor(hidden[...], settings, hidden), own)


def _example(name: str, hidden: torch.Tensor, ids: Any = None) -> Example:
    """An example, of one token if there is a single vector."""
    hidden = hidden if hidden.ndim > 1 else hidden[None]
    if hidden.ndim > 3 or not hidden.numel():
        raise ValueError(f"{name} has hidden states of the shape {tuple(hidden.shape)}")
    if ids is not None:
        ids = np.asarray(ids).reshape(-1)
        if len(ids) != len(hidden):
            raise ValueError(
                f"{name} has {len(ids):,} token ids and hidden states of {len(hidden):,} tokens"
            )
        if ids.dtype.kind not in "iu" or (len(ids) and ids.min() < 0):
            raise ValueError(f"{name} has token ids that are no whole numbers from 0")
    return Example(name, hidden, None if ids is None else ids.astype(np.int32))


def _tensor(values: Any, settings: Import, dataset: Any = None) -> torch.Tensor:
    """Numbers as a tensor of their type; `dataset` is what they are part of."""
    if isinstance(values, torch.Tensor):
        kind = str(values.dtype).removeprefix("torch.")
    else:
        values = np.asarray(values)
        values, kind = values.astype(values.dtype.newbyteorder("=")), values.dtype.name
        said = {str(value) for value in getattr(dataset, "attrs", {}).values()}
        if kind == "uint16" and (settings.bfloat16 or BFLOAT16 in said):
            return torch.from_numpy(values).view(torch.bfloat16)
    if kind not in (*FLOATS, BFLOAT16):
        raise SpaceliteError(
            f"{settings.source} has hidden states that are {kind} numbers: give "
            f"{', '.join(FLOATS)}, or uint16 with bfloat16=True",
            ["bfloat16"],
        )
    return torch.as_tensor(values)


def _usual(names: Mapping[str, Any], usual: Sequence[str]) -> str | None:
    """The first usual name that is there."""
    return next((name for name in usual if name in names), None)


def _choose(arrays: Mapping[str, Any], wanted: str | None, source: Path) -> str:
    """The name of the hidden states: as given, a usual one, or that of the only array of two or
    more dimensions."""
    if wanted is None:
        wanted = _usual(arrays, STATES)
        left = [
            name
            for name in arrays
            if name not in (*IDS, *MASKS) and getattr(arrays[name], "ndim", 2) >= 2
        ]
        if wanted is None and len(left) == 1:
            (wanted,) = left
    if wanted is None or wanted not in arrays:
        meant = suggestion(wanted, [*arrays]) if wanted else None
        raise SpaceliteError(
            f"{source} holds {', '.join(map(repr, arrays)) or 'nothing'}"
            f"{f', and no {wanted!r}' if wanted else ''}"
            f"{f' (did you mean {meant!r}?)' if meant else ''}: name the hidden states with "
            "array=NAME",
            ["array"],
        )
    return wanted


def _file_names(table: Table, column: str | None, source: Path) -> tuple[Table, list[str] | None]:
    """The table without the column that names each example's file, and its values; None without
    such a column."""
    if not source.is_dir():
        if column is not None:
            raise SpaceliteError(
                f"file_column={column}: {source} is a single file: leave file_column out",
                ["file_column"],
            )
        return table, None
    column = column or _usual(dict.fromkeys(table.names), FILE_COLUMNS)
    if column is None:
        return table, None
    if column not in table.names:
        raise SpaceliteError(
            f"file_column={column}: {table.origin} has no such column, but "
            f"{', '.join(map(repr, table.names))}",
            ["file_column"],
        )
    log.info("%s: column %r names the file of each row", table.origin, column)
    names = [str(value) for value in table.rows.column(column).to_pylist()]
    return replace(table, rows=table.rows.drop_columns([column])), names
