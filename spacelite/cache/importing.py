"""Hidden states that another program computed -> cache file: read, identify, write.

Every source is read twice, an example at a time: to learn its sizes and what identifies it, and,
once the file is laid out, to write what is not done yet.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import h5py
import numpy as np
from safetensors import SafetensorError

from spacelite.cache import embedding, filling, store
from spacelite.cache import texts as cached_texts
from spacelite.cache.dtypes import Rounded, Rounding, StoredType, rounding_sums, stored_type
from spacelite.cache.embedding import Embedded
from spacelite.cache.spec import FORMAT, IMPORTED, CacheSpec
from spacelite.cache.split import NO_TOKEN, Checked, SplitIndex, digest, offsets_of
from spacelite.cache.store import MOST_NAMES, Layout, few
from spacelite.cache.writing import Writer
from spacelite.data import columns, loading, readers
from spacelite.data.splits import SPLITS
from spacelite.errors import SpaceliteError, one_line
from spacelite.lazy import torch
from spacelite.progress import OnProgress
from spacelite.settings import suggestion
from spacelite.types import Array

log = logging.getLogger(__name__)

# The usual names of arrays, datasets, tensors and columns.
STATES = ("hidden_states", "embeddings", "hidden", "embedding", "states", "vectors")
IDS, MASKS = ("token_ids", "input_ids"), ("mask", "attention_mask")
FLOATS, BFLOAT16 = ("float16", "float32", "float64"), "bfloat16"
LIBRARY_ERRORS = (
    OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error, IndexError,
    RuntimeError, SafetensorError,
)  # fmt: skip
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
    ids: Array  # (n,) int32; NO_TOKEN where they are not known
    dimensions: int  # of the hidden states in the source: 1 for a single vector

    @property
    def form(self) -> Form:
        """What all examples have to have in common."""
        layers = self.hidden.shape[1] if self.hidden.ndim == 3 else None
        has_ids = bool(self.ids[0] != NO_TOKEN)
        return Form(_kind(self.hidden), layers, self.hidden.shape[-1], has_ids)

    @property
    def digest(self) -> bytes:
        """A hash of the hidden states and token ids."""
        hashed = hashlib.sha256(f"{self.form} {self.hidden.shape}".encode())
        hashed.update(self.hidden.contiguous().view(torch.uint8).numpy().data)
        hashed.update(self.ids.tobytes() if self.form.has_ids else b"")
        return hashed.digest()

    @property
    def layers(self) -> torch.Tensor:
        """The hidden states, (n, L, d)."""
        return self.hidden.reshape(len(self.hidden), -1, self.hidden.shape[-1])


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
    reading: columns.Reading,
    *,
    cache_dir: Path,
    test_fraction: float | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Embedded:
    """Import hidden states and, from the table at `labels`, those, as
    `spacelite.import_cache`, which explains the arguments. A finished cache of the same content is
    returned at once, and an unfinished one is continued."""
    started = time.perf_counter()
    source, stored = settings.source, stored_type(settings.dtype)
    if not source.exists():
        raise SpaceliteError(f"there is no file or folder {source}")
    if labels.is_dir() or not labels.exists():
        problem = "is a folder" if labels.exists() else "does not exist"
        raise SpaceliteError(f"{labels} {problem}: the labels are read from a single file")
    table = readers.from_path(labels, quoting=reading.quoting, scratch=cache_dir)["train"]
    chosen: Sequence[Path] = ()
    if source.is_dir():
        table, named = columns.file_names(table, settings.file_column)
        chosen = _files(source, named)
    elif settings.file_column is not None:
        raise SpaceliteError(
            f"file_column={settings.file_column}: {source} is a single file: leave file_column out",
            ["file_column"],
        )
    with _opened(settings, chosen) as (count, _):
        pass
    if not count:
        raise SpaceliteError(f"{source} holds no examples: it needs at least one")
    if count != table.rows.num_rows:
        raise SpaceliteError(
            f"{source} holds {count:,} examples and {labels} {table.rows.num_rows:,} rows: give a "
            "row for each example, in the same order"
        )

    def read() -> Iterator[Example]:
        with _opened(settings, chosen) as (_, found):
            yield from found

    def examples(phase: str, before: Sequence[bytes] = ()) -> Iterator[Example]:
        """All examples, with the digests that they had `before`."""
        changed = SpaceliteError(f"{source} changed while it was read: import it again")
        done = 0
        on_progress(phase, done, count)
        for done, example in enumerate(read(), 1):
            if done > count or (before and example.digest != before[done - 1]):
                raise changed
            yield example
            on_progress(phase, done, count)
        if done < count:
            raise changed

    form, digests, ids = _identify(settings, stored, examples("identify"))
    # Without their texts, those of the same tokens are the same.
    stand_ins = [of.hex() for of in (map(digest, ids) if form.has_ids else digests)]
    data, rows = loading.with_labels(table, labels, stand_ins, reading, test_fraction)
    causal = form.layers is not None if settings.causal is None else settings.causal
    if settings.causal is None and causal:
        hint = (
            f"{source} has hidden states of layers, as language models write them: a text's last "
            "token sums it up; causal=False says that it does not"
        )
        log.info(SpaceliteError(hint, ["causal"]))
    version, path = hashlib.sha256(b"".join(digests) + bytes([causal])), source.resolve()
    spec = CacheSpec(
        format=FORMAT,
        dataset=data.name,
        dataset_hash=data.fingerprint,
        label_names=data.label_names,
        backbone=settings.backbone or (path.name if source.is_dir() else path.stem),
        backbone_version=IMPORTED + version.hexdigest(),
        tokenizer_hash="",
        max_length=max(map(len, ids)),
        layer=-1,
        padding="none",
        dtype=settings.dtype,
        precision=form.precision,
        task=data.task_name,
        pairs=data.are_pairs,
    )
    layers = form.layers or 1
    of_layers = [
        replace(spec, layer=layer if layers > 1 else -1)
        for layer in _layers(settings.layer, form.layers)
    ]
    specs = {spec.path(cache_dir): spec for spec in of_layers}
    means = None if layers > 1 else False  # of several layers kept as `embed` keeps them
    rounded: dict[Path, Rounded | None] = {}
    with filling.unfinished(specs, means) as left:
        if left:
            indexes = {
                split: SplitIndex(
                    offsets_of(np.array([len(ids[row]) for row in rows[split]])),
                    part.labels,
                    np.concatenate([ids[row] for row in rows[split]]),
                )
                for split, part in data.splits.items()
            }
            layout = Layout(form.width, settings.dtype, False, layers, causal)
            layouts = {
                path: layout if filling.keeps_layers(path, means) else replace(layout, layers=0)
                for path in left
            }
            if layers > 1:
                hint = f"pooling=layers reads the means of the {layers} layers of {source}"
                log.info(SpaceliteError(hint, ["pooling"]))
            filling.lay_out(specs, layouts, indexes, "right", "or import less")
            rounded = _write(specs, layouts, rows, examples("import", digests))
            store.add_seconds(left, time.perf_counter() - started)
    embedding.keep_maker(specs, "import")
    for path in specs:
        if data.text_column != columns.STAND_IN:
            cached_texts.keep(path, specs[path].cache_key(), data)
    seconds = time.perf_counter() - started
    main, *others = (
        Embedded(path, path not in left, seconds, rounded=rounded.get(path)) for path in specs
    )
    return replace(main, others=tuple(others))


def _layers(wanted: int | None, count: int | None) -> list[int]:
    """The layers to import, the last one first: each has a cache of its own."""
    if wanted is None:
        return [*reversed(range(count or 1))]
    if count is None or not -count <= wanted < count:
        several = f"{count} layers: give 0 to {(count or 0) - 1}"
        of = several if count else "a single layer: leave layer out"
        raise SpaceliteError(f"layer={wanted}: the hidden states are of {of}", ["layer"])
    return [wanted % count]


# Twice through a source.


def _identify(
    settings: Import, stored: StoredType, examples: Iterable[Example]
) -> tuple[Form, list[bytes], list[Array]]:
    """What all examples have in common, and of each the digest and the token ids. Raises
    SpaceliteError if they differ in their form, or have numbers that the stored type cannot
    hold."""
    first: Example | None = None
    digests, ids = list[bytes](), list[Array]()
    for example in examples:
        first = first or example
        forms = [(*of.form, of.dimensions) for of in (first, example)]
        if forms[0] != forms[1]:
            names = ("numbers", "layers", "width", "token ids", "dimensions")
            pairs = zip(names, *forms, strict=True)
            what = ", ".join(
                f"{name} {new} and not {old}" for name, old, new in pairs if old != new
            )
            raise SpaceliteError(
                f"{settings.source}: {example.name} is of another form than those before it "
                f"({what}): give all examples the same"
            )
        hidden = example.layers[:, _layers(settings.layer, first.form.layers)]
        if not bool(hidden.isfinite().all()):
            raise SpaceliteError(
                f"{settings.source}: {example.name} has hidden states that are not finite: "
                "compute them again, or leave the example out"
            )
        single = hidden.float()
        held = torch.from_numpy(stored.decode(stored.encode(single)))
        finite, zero = bool(held.isfinite().all()), not bool(held.any())
        if not finite or (zero and bool(hidden.any())):
            wider = stored.name == "float16" and bool(single.isfinite().all() and single.any())
            remedy = "use dtype=bfloat16 or float32" if wider else "scale all hidden states first"
            raise SpaceliteError(
                f"{settings.source}: {example.name} has hidden states that {stored.name} "
                f"{'rounds to 0' if finite else 'cannot hold'}: {remedy}",
                ["dtype"],
            )
        digests.append(example.digest)
        ids.append(example.ids)
    if first is None:
        raise ValueError("no examples")
    return first.form, digests, ids


def _write(
    specs: Mapping[Path, CacheSpec],
    layouts: Mapping[Path, Layout],
    rows: Mapping[str, Array],
    examples: Iterable[Example],
) -> dict[Path, Rounded | None]:
    """Write what is not done into caches that were laid out; `rows` are the examples of each split.
    Returns how much the stored type rounds what was written."""
    place = {
        row: (split, index)
        for split, of_split in rows.items()
        for index, row in enumerate(of_split.tolist())
    }
    roundings = {path: Rounding(layout.stored) for path, layout in layouts.items()}
    tokens = 0
    with ExitStack() as stack:
        writers = {
            path: stack.enter_context(Writer(path, layers=layout.layers > 0))
            for path, layout in layouts.items()
        }
        for row, example in enumerate(examples):
            if row not in place:
                continue
            layers = example.layers.float()
            means = Checked.of(layers.mean(dim=0).half().numpy())
            for path, writer in writers.items():
                hidden, stored = layers[:, specs[path].layer], layouts[path].stored
                encoded = stored.to_rows(hidden)
                if measure := rounding_sums(stored):
                    roundings[path].add(len(hidden), measure(hidden, encoded).numpy())
                values = {"tokens": Checked.of(encoded.numpy()), "means": means}
                writer.write(*place[row], values)
                writer.commit_at_times()
            tokens += len(layers)
        for writer in writers.values():
            writer.commit()
    return {path: rounding.log(tokens) for path, rounding in roundings.items()}


# Sources.


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in errors of the libraries that read it, and in ValueErrors about what it
    holds."""
    try:
        yield
    except LIBRARY_ERRORS as error:
        raise SpaceliteError(f"{path} cannot be imported: {one_line(error, 300)}") from error


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Say of a file that its library cannot open what it is, in place of the library's words."""
    try:
        yield
    except LIBRARY_ERRORS as error:
        if isinstance(error, OSError) and error.errno:  # nothing is wrong with its content
            raise
        kind, remedy = path.suffix[1:].lower(), "write it again"
        problem = f"it is cut short, or no {kind} file"
        if not path.stat().st_size or isinstance(error, EOFError):
            problem = "it is empty"
        elif re.search("(?i)object arrays|python objects", str(error)):
            problem, remedy = "it holds Python objects", "write arrays of numbers"
        raise SpaceliteError(f"{path} cannot be imported: {problem}: {remedy}") from error


@contextmanager
def _opened(settings: Import, chosen: Sequence[Path]) -> Iterator[tuple[int, Iterator[Example]]]:
    """The number of examples of a source, and all of them; of a folder those in `chosen` files."""
    source, kind = settings.source, settings.source.suffix.lower()
    if source.is_dir():
        yield len(chosen), (_of_file(settings, path) for path in chosen)
    elif kind == ".parquet":
        with _reading(source):
            with _opening(source):
                count, types, read = readers.parquet_lists(source)
            lists = {
                name: np.empty((0, 0))
                for name, kind in types.items()
                if re.match("(large_|fixed_size_)?list<", kind)
            }
            wanted = settings.array or next((name for name in STATES if name in types), None)
            others = [
                f"column {name!r} holds {kind}s"
                for name, kind in types.items()
                if name not in lists and (name == wanted or not lists)
            ]
            if others:
                raise ValueError(f"give a column of lists of numbers: {few(others)}")
            names = [_choose(settings, lists), *(name for name in IDS if name in lists)]
            rows = (dict(zip(names, row, strict=True)) for row in read(names))
            named = ((f"row {number:,}", row) for number, row in enumerate(rows, 1))
            yield count, (_example(settings, name, row) for name, row in named)
    elif kind in SUFFIXES:
        with _arrays(source) as arrays:
            yield _examples(settings, arrays)
    else:
        raise SpaceliteError(
            f"{source}: hidden states are imported from .npz, .npy, .h5, .hdf5, .safetensors and "
            ".parquet files, and from folders with a file of these for each example"
        )


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


def _of_file(settings: Import, path: Path) -> Example:
    with _arrays(path) as arrays:  # its errors name the file
        return _example(settings, "it", arrays)._replace(name=path.name)


@contextmanager
def _arrays(path: Path) -> Iterator[Mapping[str, Any]]:
    """What a file holds by name: arrays, or tensors, or datasets and groups of them."""
    kind = path.suffix.lower()
    with _reading(path), ExitStack() as stack:
        with _opening(path):
            if kind == ".safetensors":
                from safetensors.torch import load_file

                arrays: Mapping[str, Any] = load_file(path)
            elif kind in (".h5", ".hdf5"):
                arrays = stack.enter_context(h5py.File(path, "r", locking=False))
            else:
                loaded = np.load(path, "r" if kind == ".npy" else None, allow_pickle=False)
                single = isinstance(loaded, np.ndarray)
                arrays = {STATES[0]: loaded} if single else dict(loaded)
            if not len(arrays):  # an open HDF5 file is true
                raise EOFError
        yield arrays


def _examples(settings: Import, arrays: Mapping[str, Any]) -> tuple[int, Iterator[Example]]:
    """The number of examples in a file of all of them, and these."""
    name, ids = _name(settings, arrays), _usual(arrays, IDS)
    group: Any = arrays if name is None else arrays.get(name)
    if isinstance(group, h5py.Group):  # with a dataset, or a group, for each example
        names = sorted((key for key in group if key not in IDS), key=_natural)
        if names and {*names} <= {*SPLITS}:
            raise ValueError(
                f"its groups are splits ({', '.join(names)}), and each would be read as an "
                "example: give one for each text; a cache that spacelite made needs no import"
            )

        def of_name(key: str) -> Example:
            called = f"example {key!r}"
            if isinstance(group[key], h5py.Group):
                return _example(settings, called, group[key])
            own = {} if ids is None else {IDS[0]: ids[key]}
            return _example(settings, called, {name or STATES[0]: group[key], **own})

        return len(names), map(of_name, names)
    name = _choose(settings, arrays)
    hidden = arrays[name]
    count, part = _division(hidden, ids, arrays)

    def of_number(number: int) -> Example:
        own = {} if ids is None else {IDS[0]: part(ids, number)}
        of_text = {name: part(hidden, number), **own}
        return _example(settings, f"example {number + 1:,}", of_text, hidden)

    return count, map(of_number, range(count))


def _division(
    hidden: Any, ids: Any, arrays: Mapping[str, Any]
) -> tuple[int, Callable[[Any, int], Any]]:
    """The number of examples in the hidden states and token ids of all of them, and a function
    that takes one out of either, as the arrays beside them say."""
    mask, shape = _usual(arrays, MASKS), tuple(hidden.shape)
    lengths, offsets = _whole(arrays, "lengths"), _whole(arrays, "offsets")
    if lengths is not None:
        if offsets is not None and not np.array_equal(offsets_of(lengths), offsets):
            raise ValueError("its lengths and offsets contradict each other: leave one out")
        offsets = offsets_of(lengths)
        padded = len(shape) > 2 and len(lengths) == shape[0] != offsets[-1]
        if mask is None and padded and ((lengths > 0) & (lengths <= shape[1])).all():
            mask = np.arange(shape[1]) < lengths[:, None]
    elif offsets is None and mask is None and len(shape) == 2:
        offsets = np.arange(len(hidden) + 1)
    if mask is not None and len(shape) in (3, 4):
        for what, array in (("mask", mask), ("array of token ids", ids)):
            own = tuple(getattr(array, "shape", ()))  # () of a group
            if array is not None and own != shape[:2]:
                raise ValueError(
                    f"the {what} has the shape {own} and the hidden states have {shape}"
                )

        def kept(values: Any, i: int) -> Any:
            row = mask[i]
            real, wrong = np.asarray(row != 0), row[(row != 0) & (row != 1)]
            if len(wrong) or not real.any():
                holds = wrong[0].item() if len(wrong) else "0 alone"
                raise ValueError(
                    f"the mask of example {i + 1:,} holds {holds}: give 1 for tokens and 0 for "
                    "padding"
                )
            if lengths is not None and [*lengths[i : i + 1]] != [real.sum()]:
                raise ValueError("its mask and lengths contradict each other: leave one out")
            return values[i][real]

        return len(hidden), kept
    if mask is not None or offsets is None or len(shape) not in (2, 3):
        raise ValueError(
            f"it has hidden states of the shape {shape}: give (N, d); (N, n, d), with a mask "
            "(N, n), or with lengths (N,) if padding is on the right; or (T, d), all tokens end to "
            "end, with offsets (N + 1,) or lengths (N,)"
        )
    if [*offsets[:1], *offsets[-1:]] != [0, len(hidden)] or (np.diff(offsets) < 0).any():
        raise ValueError(f"its offsets or lengths do not fit hidden states of the shape {shape}")
    bounds = [*offsets[:-1].tolist(), None]  # ids that are left over are noticed
    return len(offsets) - 1, lambda values, i: values[bounds[i] : bounds[i + 1]]


def _whole(arrays: Mapping[str, Any], name: str) -> Array | None:
    """The whole numbers (N,) int64 of this name, if they are there."""
    if name not in arrays:
        return None
    values = np.asarray(arrays[name]).reshape(-1)
    with np.errstate(invalid="ignore"):
        whole: Array = values.astype(np.int64)
    if not np.array_equal(whole, values):
        raise ValueError(f"its {name} have to be whole numbers")
    return whole


def _example(settings: Import, name: str, arrays: Mapping[str, Any], whole: Any = None) -> Example:
    """The example that these arrays are of, with one token if there is a single vector; its hidden
    states may be a part of a `whole`."""
    hidden, ids = arrays[_choose(settings, arrays)], _usual(arrays, IDS)
    if hidden is None:
        raise ValueError(f"{name} has no hidden states")
    hidden = _tensor(settings, hidden[...], hidden if whole is None else whole)
    dimensions = hidden.ndim
    hidden = hidden if dimensions > 1 else hidden[None]
    if dimensions not in (1, 2, 3) or not hidden.numel():
        raise ValueError(f"{name} has hidden states of the shape {tuple(hidden.shape)}")
    if ids is None:
        return Example(name, hidden, np.full(len(hidden), NO_TOKEN, np.int32), dimensions)
    ids = np.asarray(ids).reshape(-1)
    if len(ids) != len(hidden):
        raise ValueError(
            f"{name} has hidden states of length {len(hidden):,} and token ids of {len(ids):,}"
        )
    most = np.iinfo(np.int32).max
    if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() > most:
        raise ValueError(f"{name} has token ids that are no whole numbers from 0 to {most:,}")
    return Example(name, hidden, ids.astype(np.int32), dimensions)


def _tensor(settings: Import, values: Any, whole: Any) -> torch.Tensor:
    """Numbers, a part of `whole`, as a tensor of their type."""
    if isinstance(values, torch.Tensor):
        kind = _kind(values)
    else:
        values = np.asarray(values)
        values = values.astype(values.dtype.newbyteorder("="))
        kind = values.dtype.name
    attributes = {str(value) for value in getattr(whole, "attrs", {}).values()}
    bits, known = kind == "uint16", kind in (*FLOATS, BFLOAT16)
    if known and settings.bfloat16:
        raise SpaceliteError(
            f"bfloat16=True: the hidden states of {settings.source} are {kind} and not uint16: "
            "leave bfloat16 out",
            ["bfloat16"],
        )
    if not known and not (bits and (settings.bfloat16 or BFLOAT16 in attributes)):
        remedy = f"give {', '.join(FLOATS)}, or uint16 with bfloat16=True"
        if kind == "void16":  # as numpy writes those of ml_dtypes
            kind = "of 2 bytes and no known type"
            remedy = 'if they are bfloat16, write array.view("uint16") and give bfloat16=True'
        elif kind.startswith(("str", "bytes", "object")):
            kind = "text, or Python objects"
        raise SpaceliteError(
            f"{settings.source} has hidden states that are {kind}: {remedy}", ["bfloat16"]
        )
    tensor: torch.Tensor = values if isinstance(values, torch.Tensor) else torch.from_numpy(values)
    return tensor.view(torch.bfloat16) if bits else tensor


def _kind(values: torch.Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


def _usual(arrays: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The array of the first of these names that is there."""
    return next((arrays[name] for name in names if name in arrays), None)


def _name(settings: Import, arrays: Mapping[str, Any]) -> str | None:
    """The name of the hidden states: as given, a usual one, or that of the only array of two or
    more dimensions."""
    matrices = [name for name in arrays if getattr(arrays[name], "ndim", 0) > 1]
    others = [name for name in matrices if name not in (*IDS, *MASKS)]
    usual = [name for name in STATES if name in arrays] or others[: len(others) == 1]
    return settings.array or next(iter(usual), None)


def _choose(settings: Import, arrays: Mapping[str, Any]) -> str:
    name = _name(settings, arrays)
    if name is None or name not in arrays:
        meant = suggestion(name, [*arrays]) if name else None
        likely = sorted(arrays, key=lambda key: getattr(arrays[key], "ndim", 0) < 2)
        many = ", or, if each is of one text, write a file for each text, or HDF5"
        raise SpaceliteError(
            f"{settings.source} holds {few([*map(repr, likely)], name) or 'nothing'}"
            f"{f', and no {name!r}' if name else ''}"
            f"{f' (did you mean {meant!r}?)' if meant else ''}: name the hidden states with "
            f"array=NAME{many if not name and len(arrays) > MOST_NAMES else ''}",
            ["array"],
        )
    return name
