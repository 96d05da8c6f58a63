"""The files of a cache: the hidden states themselves, and what is kept beside them.

The whole HDF5 file is laid out, and its handle closed, before the first hidden state is computed.
Hidden states are then written as plain bytes at known offsets (`writing`), so that no HDF5 metadata
is ever half-written, however the process ends. The means of all layers lie in a second file of this
kind: neither the cache's spec and key nor its bytes depend on it, and caches of older versions do
not have it.
"""

from __future__ import annotations

import difflib
import errno
import itertools
import json
import logging
import os
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np

from spacelite import files, npz
from spacelite.cache import hdf5, shards
from spacelite.cache.dtypes import DTYPES, StoredType, stored_type
from spacelite.cache.hdf5 import PAGE, SHARD, DataFile
from spacelite.cache.reduction import Reduction
from spacelite.cache.spec import FORMAT, CacheSpec
from spacelite.cache.split import (
    NO_NUMBERS,
    CachedSplit,
    DamagedCacheError,
    Dataset,
    SplitIndex,
    summary_token,
)
from spacelite.data.splits import SPLITS
from spacelite.errors import SpaceliteError, one_line
from spacelite.tasks import Task, find_task
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.backbones.model import Backbone

log = logging.getLogger(__name__)

LAYERS_FORMAT = 1  # of the file of layer means
REDUCTION = "reduction"  # the group of a cache file with what hidden states were reduced by
SUFFIX = ".h5"
MOST_NAMES = 3  # of caches in a message
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)  # errors of a folder that is
MAKERS = ("embed", "eval", "import")  # the commands that make caches

# What is kept beside a cache file: its name -> what takes the place of `.h5`.
SIDE_FILES = {
    "seconds": ".seconds.json",  # how long its embedding took
    "unknown": ".unknown.json",  # how many tokens are unknown to the backbone
    "texts": ".texts.npz",
    "layers": ".layers.hdf5",  # means of all layers
    "precision": ".precision.json",  # how exact its forward pass was
    "reuse": ".reuse.npz",  # what was copied from which cache
    "made": ".made.json",  # by which command
    "seal": ".seal.json",  # of the cache file
    "layers_seal": ".layers.seal.json",
}

Shapes = dict[str, tuple[Any, str]]  # a dataset's name -> (shape, dtype), in the order of the file


class DamagedLayersError(SpaceliteError):
    """The file of layer means is damaged or belongs to another cache: embed can rewrite it."""


def side_file(path: Path, name: str) -> Path:
    """The file beside a cache file that has this name in SIDE_FILES."""
    return path.with_suffix(SIDE_FILES[name])


def side_files(path: Path) -> list[Path]:
    """The files beside a cache file, whether they exist or not."""
    return [side_file(path, name) for name in SIDE_FILES]


def parts(path: Path) -> list[Path]:
    """The files of a cache, whether they exist or not: itself, or its shards. Raises SpaceliteError
    if their manifest is damaged."""
    if not is_divided(path):
        return [path]
    return [path / shard.name for shard in shards.Manifest.read(path).shards]


def cache_of(path: Path) -> Path:
    """The cache of a file: itself, or the folder of which it is a shard."""
    return path.parent if path.parent.suffix == SUFFIX else path


def is_cache(path: Path) -> bool:
    """Whether a cache is there, damaged or not: a file, or several."""
    return path.is_file() or is_divided(path)


def is_divided(path: Path) -> bool:
    """Whether a cache is a folder of several files, with a manifest or a plan."""
    return any((path / name).exists() for name in (shards.MANIFEST, shards.PLAN))


def written(path: Path) -> Path:
    """The file whose time says when a cache was written, or asked for by `embed`, last."""
    manifest, plan = path / shards.MANIFEST, path / shards.PLAN
    return next((file for file in (manifest, plan) if file.exists()), path)


def clear(path: Path) -> None:
    """Delete what is beside a cache file that is not there. Raises SpaceliteError if that fails."""
    partial = [partial_path(file) for file in (path, side_file(path, "layers"))]
    for file in [*partial, *side_files(path)]:
        files.clear_away(file)


# Laying out.


@dataclass(frozen=True)
class Layout:
    """What is kept of each text: its hidden states, the pooler's output, its layer means. Where
    hidden states are reduced, layer means are not, for other layers have other axes; and the
    pooler's output, which has none, is left out."""

    width: int  # d, of the backbone's hidden states
    dtype: str  # in which hidden states are stored
    pooled: bool  # whether the backbone has a pooler
    layers: int  # whose means are kept, the embedding layer included; 0 for none
    causal: bool = False  # whether tokens see none after them, so that the last sums up a text
    reduction: Reduction | None = None  # that hidden states are stored with

    @classmethod
    def of(cls, model: Backbone, dtype: str, reduction: Reduction | None = None) -> Layout:
        """What is kept of the output of a backbone."""
        pooled, layers = model.has_pooler, model.layers if model.all_layers else 0
        return cls(
            model.width, dtype, pooled and reduction is None, layers, model.is_causal, reduction
        )

    @property
    def kept_width(self) -> int:
        """The width of hidden states as they are stored: d, or K of the reduction."""
        return self.width if self.reduction is None else self.reduction.dimensions

    @property
    def stored(self) -> StoredType:
        """How hidden states are stored."""
        return stored_type(self.dtype)

    def bytes(self, tokens: int) -> int:
        """Number of bytes of a text of so many tokens."""
        after = 4 * self.width * self.pooled + 2 * self.width * self.layers
        return tokens * self.stored.row_bytes(self.width) + after

    def cache_shapes(self, index: SplitIndex) -> Shapes:
        """The datasets of a split in the cache file."""
        examples, tokens = len(index.labels), len(index.token_ids)
        shapes: Shapes = {
            "offsets": ((examples + 1,), "int64"),
            "labels": (index.labels.shape, str(np.promote_types(index.labels.dtype, "int64"))),
            "token_ids": ((tokens,), "int32"),
            "done": ((examples,), "uint8"),
            "crc32": ((examples,), "uint32"),
        }
        if self.pooled:
            shapes["pooled_crc32"] = ((examples,), "uint32")
            shapes["pooled"] = ((examples, self.width), "float32")
        shapes["tokens"] = ((tokens, self.stored.row_values(self.kept_width)), self.stored.dtype)
        return shapes

    def example_bytes(self, lengths: Array, labels: Array) -> Array:
        """What each example takes in the cache file, given its tokens (N,) and some labels, (N,)
        int64."""
        shapes = self.cache_shapes(SplitIndex(NO_NUMBERS, labels[:1], NO_NUMBERS))
        sizes = {
            name: int(np.prod(shape[1:])) * np.dtype(kind).itemsize
            for name, (shape, kind) in shapes.items()
        }
        of_token = sizes.pop("tokens") + sizes.pop("token_ids")
        return lengths * of_token + sum(sizes.values())

    def layer_shapes(self, index: SplitIndex | CachedSplit) -> Shapes:
        """The datasets of a split in the file of layer means."""
        examples = len(index.labels)
        return {
            "done": ((examples,), "uint8"),
            "crc32": ((examples,), "uint32"),
            "means": ((examples, self.layers, self.width), "float16"),
        }


def file_size(splits: Mapping[str, SplitIndex], shapes: Callable[[SplitIndex], Shapes]) -> int:
    """Size of a file that is laid out with these datasets, in bytes, to within a few kilobytes."""
    total = 2 * PAGE
    for index in splits.values():
        for shape, kind in shapes(index).values():
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            total += size + (PAGE if size >= PAGE else 300)  # 300: the dataset's header
    return total


def _reduction_shapes(dimensions: int, width: int) -> Shapes:
    """The datasets of a reduction from d to K dimensions."""
    return {
        "mean": ((width,), "float32"),
        "axes": ((dimensions, width), "float32"),
        "shares": ((dimensions,), "float64"),
    }


def lay_out(
    path: Path,
    spec: CacheSpec,
    splits: Mapping[str, SplitIndex],
    layout: Layout,
    padding_side: str,
    shard: str | None = None,
) -> None:
    """Create a whole cache file, with no example done; `shard` says which of several it is. Raises
    SpaceliteError if the disk is full or broken; nothing is left behind."""
    attributes = {"format": FORMAT, "spec": spec.canonical(), "padding_side": padding_side}
    if layout.causal:
        attributes["causal"] = True
    if shard is not None:
        attributes[SHARD] = shard
    _create(
        path, "the cache file", attributes, splits, layout.cache_shapes, layout.stored.values,
        layout.reduction,
    )  # fmt: skip


def lay_out_layers(path: Path, key: str, splits: Mapping[str, SplitIndex], layout: Layout) -> None:
    """Create the whole file of the layer means of a cache, as `lay_out`."""
    attributes = {"format": LAYERS_FORMAT, "key": key}
    layers = side_file(path, "layers")
    _create(layers, "the file of layer means", attributes, splits, layout.layer_shapes)


def partial_path(path: Path) -> Path:
    """The temporary path at which a file is laid out before it is renamed."""
    return path.with_name(f".{path.name}.partial")


def _create(
    path: Path,
    what: str,
    attributes: Mapping[str, Any],
    splits: Mapping[str, SplitIndex],
    shapes: Callable[[SplitIndex], Shapes],
    token_values: str | None = None,
    reduction: Reduction | None = None,
) -> None:
    partial = partial_path(path)
    of_paths: dict[str, Mapping[str, Any]] = {"": attributes}
    datasets: Shapes = {}
    values: dict[str, Array] = {}
    for split, index in splits.items():
        of_paths[split] = {"index_crc32": np.uint32(index.crc32)}
        of_split = shapes(index)
        datasets |= {f"{split}/{name}": shape for name, shape in of_split.items()}
        values |= {
            f"{split}/{name}": getattr(index, name)
            for name in ("offsets", "labels", "token_ids")
            if name in of_split
        }
        if token_values is not None:
            of_paths[f"{split}/tokens"] = {"values": token_values}
    if reduction is not None:
        datasets |= {
            f"{REDUCTION}/{name}": shape
            for name, shape in _reduction_shapes(reduction.dimensions, reduction.width).items()
        }
        values |= {f"{REDUCTION}/{name}": array for name, array in reduction.arrays.items()}
    try:
        contents = hdf5.lay_out(partial, of_paths, datasets, values)
        hdf5.write_seal(path, partial, contents)
        partial.replace(path)
        files.sync(path.parent)
    except OSError as error:
        # The HDF5 library says more than fits into a line.
        reason = os.strerror(error.errno) if error.errno else "the disk is full or broken"
        raise SpaceliteError(
            f"{what} cannot be laid out in {path.parent}: {reason}; "
            "free some space or choose another cache_dir",
            ["cache_dir"],
        ) from error
    finally:
        with suppress(OSError):  # the next one that is laid out removes it
            partial.unlink(missing_ok=True)


# Reading.


@contextmanager
def _opened(
    path: Path, suffix: str, latest: int, damaged: Callable[[str], SpaceliteError]
) -> Iterator[DataFile]:
    """The file of a cache that ends in `suffix`, or those of its shards, of at most this format,
    which stay open unless the block fails. `damaged` is what is raised for a reason why it cannot
    be read."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(
                shards.open_joined(path, suffix, [REDUCTION])
                if is_divided(path)
                else DataFile(path.with_suffix(suffix))
            )
            files.require_format(path, file.attributes[""]["format"], latest)
            yield file
        except FileNotFoundError as error:
            missing = path.with_suffix(suffix)
            raise SpaceliteError(f"there is no cache file {missing}") from error
        except (KeyError, ValueError, TypeError, OSError, RuntimeError) as error:
            raise damaged(one_line(error, 80)) from error
        stack.pop_all()


def _check_form(
    file: DataFile,
    attributes: Mapping[str, Mapping[str, Any]],
    shapes: Mapping[str, Shapes],
) -> None:
    """Raise ValueError unless a file has these attributes, and in each split these datasets, and no
    others."""
    if file.attributes != attributes:
        paths = sorted({*file.attributes, *attributes})
        wrong = next(path for path in paths if file.attributes.get(path) != attributes.get(path))
        raise ValueError(f"the attributes of {wrong or 'the file'} are not those of a cache")
    expected = {
        f"{split}/{name}": form for split, of in shapes.items() for name, form in of.items()
    }
    there = {name: (place.shape, place.dtype) for name, place in file.places.items()}
    if there != expected:
        wrong = min(name for name in {*there, *expected} if there.get(name) != expected.get(name))
        raise ValueError(f"{wrong} is not there, or not as large as it has to be")


def _read_spec(text: str) -> CacheSpec:
    """The spec in its attribute. Raises ValueError if it has values of another type."""
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("its settings are no object")
    spec = CacheSpec.from_json(content)
    for name, kind in get_type_hints(CacheSpec).items():
        value = getattr(spec, name)
        if name == "label_names":
            fits = all(isinstance(label, str) for label in value)
        else:
            fits = isinstance(value, kind)
        if not fits:
            raise ValueError(f"{name} of its settings is {str(value)[:20]!r}")
    return spec


class Cache:
    """A cache, open for reading: its file, or those of its shards. Use it as a context manager.

    Attributes:
        splits: The splits by name: train, validation and, if the data set has one, test. A data set
            that a run was evaluated on may have any of them.
        pooling: The token that sums a text up, `first` or `last`.
    """

    def __init__(self, path: Path) -> None:
        """Raises SpaceliteError if the file is missing, damaged, not a cache, or of a later
        version."""

        def damaged(reason: str) -> SpaceliteError:
            return DamagedCacheError(
                f"{path} is not a spacelite cache, or damaged ({reason}): remove it (spacelite "
                f"cache remove {path.stem}) and run embed again"
            )

        self.path = path
        with _opened(path, path.suffix, FORMAT, damaged) as self.file:
            of_file = self.file.attributes[""]
            self.spec = _read_spec(of_file["spec"])
            if self.spec.dtype not in DTYPES:
                raise SpaceliteError(
                    f"{path} stores {self.spec.dtype} numbers, which this spacelite cannot read: "
                    "upgrade spacelite"
                )
            self._check_name()
            self._check_form()
            self.pooling = summary_token(
                of_file["padding_side"],
                causal="causal" in of_file,
                skip_first=self.spec.skip_first,
            )
            self.splits = {name: CachedSplit(self, name) for name in self._names}
            self._check_reduction()
        if not self.file.is_sealed:
            self.check_index()

    def _check_name(self) -> None:
        """Raise SpaceliteError if the file's name ends in another key."""
        digits = re.search(r"--([0-9a-f]{10})$", self.path.stem)
        if digits and digits[1] != self.key[:10]:
            proper = self.spec.path(self.path.parent).name
            raise SpaceliteError(
                f"{self.path} holds the cache {proper}: if the file was renamed, give it that name "
                "and the files beside it theirs; else it is damaged: remove it and embed again"
            )

    def _check_form(self) -> None:
        """Raise ValueError unless the file has the attributes and datasets of its spec."""
        places, attributes = self.file.places, self.file.attributes
        of_file, stored = attributes[""], DTYPES[self.spec.dtype]
        if not self._names:
            raise ValueError("it has no splits")
        form: dict[str, dict[str, Any]] = {
            "": {"format": FORMAT, "spec": of_file["spec"], "padding_side": "left"}
        }
        if of_file["padding_side"] == "right":
            form[""]["padding_side"] = "right"
        if "causal" in of_file:
            form[""]["causal"] = True
        if SHARD in of_file:
            form[""][SHARD] = str(of_file[SHARD])
        shapes = {}
        for name in self._names:
            examples, labels = places[f"{name}/done"].shape[0], places[f"{name}/labels"]
            tokens, values = places[f"{name}/tokens"].shape
            layout = Layout(
                stored.hidden_width(values), self.spec.dtype, f"{name}/pooled" in places, 0
            )
            of_labels = (examples, *((len(self.spec.label_names),) * (len(labels.shape) > 1)))
            dtype = find_task(self.spec.task, np.empty((0,) * len(labels.shape))).label_type
            shapes[name] = layout.cache_shapes(
                # Of these sizes, without memory.
                SplitIndex(
                    NO_NUMBERS,
                    np.broadcast_to(np.zeros((), dtype), of_labels),
                    np.broadcast_to(np.int32(0), tokens),
                )
            )
            form[name] = {"index_crc32": int(attributes[name]["index_crc32"])}
            if stored.values is not None:
                form[f"{name}/tokens"] = {"values": stored.values}
        if self.spec.reduce is not None:
            count, width = places[f"{REDUCTION}/axes"].shape
            shapes[REDUCTION] = _reduction_shapes(count, width)
        _check_form(self.file, form, shapes)

    def _check_reduction(self) -> None:
        """Raise ValueError unless the reduction is that of the spec and of the hidden states."""
        if self.reduction is None:
            return
        known = {"auto", str(self.reduction.dimensions), str(self.reduction)}
        widths = {split.width for split in self.splits.values()}
        if self.spec.reduce not in known or widths != {self.reduction.dimensions}:
            raise ValueError("its reduction is not that of its settings")

    @property
    def _names(self) -> list[str]:
        """The names of its splits, in order."""
        return [name for name in SPLITS if f"{name}/done" in self.file.places]

    @property
    def name(self) -> str:
        """The cache's name: its file name without the suffix."""
        return self.path.stem

    @property
    def label_names(self) -> list[str]:
        """The names of labels 0..C-1."""
        return list(self.spec.label_names)

    @property
    def key(self) -> str:
        """The cache's key: the hash of its spec."""
        return self.spec.cache_key()

    @property
    def task(self) -> Task:
        """What the labels mean."""
        task = find_task(self.spec.task, next(iter(self.splits.values())).labels)
        return task.trained_on(self.splits["train"].labels) if "train" in self.splits else task

    def require_training(self) -> None:
        """Raise SpaceliteError if there is nothing to train on: a split is missing, or all training
        examples have one label."""
        origin = f"cache {self.name} was made to evaluate a run"
        for name in ("train", "validation"):
            if name not in self.splits:
                raise SpaceliteError(f"{origin} and has no {name} split: embed data to train on")
        labels = self.splits["train"].labels
        counts = self.task.label_counts(labels, len(self.label_names))
        if (counts > 0).sum() < self.task.fewest_present:
            raise SpaceliteError(
                f"{origin}, and its training examples have a single label: embed data to train on"
            )

    @property
    def complete(self) -> bool:
        """Whether every example is done. Only the marks record this."""
        return all(bool(split.done.all()) for split in self.splits.values())

    def require_complete(self) -> None:
        """Raise SpaceliteError if an example is not done."""
        if not self.complete:
            raise SpaceliteError(
                f"cache {self.name} is unfinished ({self.tokens_done:,} of {self.tokens:,} "
                f"tokens): run its {self.spec.command} command again"
            )

    @property
    def tokens(self) -> int:
        """Number of tokens in all splits."""
        return sum(split.tokens for split in self.splits.values())

    @property
    def tokens_done(self) -> int:
        """Number of tokens of the examples that are done."""
        return sum(int(split.lengths[split.done == 1].sum()) for split in self.splits.values())

    def check_index(self, *names: str) -> None:
        """Raise SpaceliteError if the offsets, labels or token ids of some splits (default: all)
        are damaged, which embedding again cannot repair."""
        for name in names or self.splits:
            self.splits[name].check_index()

    def keep_seals(self) -> None:
        """Write the seals of those of its files that an older version wrote, and say so. Raises
        SpaceliteError as `layers`."""
        for file in (self.file, *([] if self.layers is None else [self.layers.file])):
            if file.is_sealed:
                continue
            try:
                hdf5.write_seal(file.path)
            except OSError as error:
                log.warning("%s cannot be sealed: %s", file.path, error.strerror)
            else:
                log.info("%s is of an older version: its metadata are sealed now", file.path.name)

    @cached_property
    def reduction(self) -> Reduction | None:
        """What hidden states were reduced by; None if they are whole."""
        if self.spec.reduce is None:
            return None
        names = [name for name in self.file.places if name.startswith(f"{REDUCTION}/")]
        return Reduction.of({name.rpartition("/")[2]: self.file.read(name) for name in names})

    @cached_property
    def layers(self) -> LayerFile | None:
        """The file of layer means; None if the cache has none. Raises SpaceliteError if it is
        damaged."""
        if is_divided(self.path):
            return LayerFile(self) if shards.Manifest.read(self.path).layers else None
        return LayerFile(self) if side_file(self.path, "layers").exists() else None

    def require_layers(self, *, complete: bool = True) -> LayerFile:
        """The file of layer means. Raises SpaceliteError if there is none, or, if it has to be
        `complete`, an unfinished one."""
        if self.layers is None and self.spec.is_imported:
            raise SpaceliteError(
                f"cache {self.name} was imported, without the means of all layers: choose another "
                "pooling, or blocks=mean+space",
                ["pooling", "blocks"],
            )
        if self.layers is None:
            raise SpaceliteError(
                f"cache {self.name} has no layer means: run its embed command again with "
                "layers=True to add them",
                ["layers"],
            )
        if complete and not self.layers.complete:
            raise SpaceliteError(
                f"cache {self.name} has the layer means of {self.layers.examples_done:,} of "
                f"{sum(map(len, self.splits.values())):,} examples: run its {self.spec.command} "
                "command again to complete them"
            )
        return self.layers

    def require_token_ids(self, kind: str) -> None:
        """Raise SpaceliteError if the token ids, which this kind of heads reads, are not known."""
        if not self.has_token_ids:
            raise SpaceliteError(
                f"cache {self.name} was imported without token ids, of which {kind} is made: "
                "choose another head, such as logreg, or blocks=mean+space",
                ["head", "blocks"],
            )

    @property
    def has_token_ids(self) -> bool:
        """Whether the token ids are known."""
        return all(split.has_token_ids for split in self.splits.values())

    def layers_width(self) -> int:
        """The width of the means of all layers side by side. Raises SpaceliteError as
        `require_layers`."""
        _, layers, width = next(iter(self.require_layers().splits.values())).shape
        return layers * width

    def datasets(self, *, layers: bool) -> dict[str, dict[str, Dataset]]:
        """What is written of each example, by split and name; with its layer means, whose file
        there has to be, or without."""
        means = self.require_layers(complete=False).splits if layers else {}
        return {
            name: {**split.datasets, **({"means": means[name]} if layers else {})}
            for name, split in self.splits.items()
        }

    def close(self) -> None:
        """Close the file, and that of the layer means."""
        self.file.close()
        if "layers" in vars(self) and self.layers is not None:
            self.layers.file.close()

    def __repr__(self) -> str:
        splits = ", ".join(f"{len(split):,} {name}" for name, split in self.splits.items())
        return f"<cache {self.path}: {splits}, {self.tokens:,} tokens>"

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class LayerFile:
    """The layer means of an open cache: `splits` are (N, layers, d) float16 each."""

    def __init__(self, cache: Cache) -> None:
        """Raises DamagedLayersError, or SpaceliteError if the file is of a later version."""
        path, suffix = side_file(cache.path, "layers"), SIDE_FILES["layers"]

        def damaged(reason: str) -> SpaceliteError:
            return DamagedLayersError(
                f"{path} is damaged ({reason}): run the {cache.spec.command} command of cache "
                f"{cache.name} again to rewrite it"
            )

        self.splits: dict[str, Dataset] = {}
        with _opened(cache.path, suffix, LAYERS_FORMAT, damaged) as self.file:
            form: dict[str, dict[str, Any]] = {"": {"format": LAYERS_FORMAT, "key": cache.key}}
            shapes = {}
            for name, split in cache.splits.items():
                layers = self.file.places[f"{name}/means"].shape[1]
                width = cache.reduction.width if cache.reduction else split.width
                layout = Layout(width, cache.spec.dtype, split.has_pooler, layers)
                shapes[name] = layout.layer_shapes(split)
                form[name] = {"index_crc32": split.index_crc32}
            _check_form(self.file, form, shapes)
            for name in cache.splits:
                self.splits[name] = Dataset(self.file, name, "means", cache.name)

    @property
    def layers(self) -> int:
        """Number of layers, the embedding layer included."""
        return next(iter(self.splits.values())).shape[1]

    @property
    def examples_done(self) -> int:
        """Number of examples whose means are written."""
        return sum(int(split.done.sum()) for split in self.splits.values())

    @property
    def complete(self) -> bool:
        """Whether the means of every example are written."""
        return all(bool(split.done.all()) for split in self.splits.values())


def few(names: Sequence[str], like: str | None = None) -> str:
    """A few of many names, for a message: the first ones, or those nearest to `like`."""
    near = difflib.get_close_matches(like, names, MOST_NAMES, 0.3) if like else []
    shown = [*near, *(name for name in names if name not in near)][:MOST_NAMES]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more


@contextmanager
def read_arrays(file: Path, key: str, known: str, damage: str) -> Iterator[npz.Arrays]:
    """The arrays of an npz file beside the cache with this key, whose names match the regular
    expression `known`. What goes wrong in reading them, or a ValueError about what they are, is
    raised as SpaceliteError: `damage`, a message with gaps for the file and the reason."""
    try:
        with npz.opened(file, known) as arrays:
            if str(arrays.read("key", "U")) != key:
                raise ValueError("it belongs to another cache")
            yield arrays
    except (OSError, ValueError) as error:
        raise SpaceliteError(damage.format(file, one_line(error, 80))) from error


def keep_json(path: Path, name: str, content: Mapping[str, Any]) -> None:
    """Write a file beside a cache. On a full disk this is only logged: if it matters, the embedding
    itself fails."""
    file = side_file(path, name)
    try:
        files.write_json(file, content)
    except OSError as error:
        log.warning("%s cannot be written: %s", file, error.strerror)


def embedding_seconds(paths: Iterable[Path]) -> float | None:
    """Total seconds of all `embed` calls that wrote to any of these caches; None if unknown."""
    seconds, shared = 0.0, dict[str, float]()
    try:
        for path in itertools.chain.from_iterable(map(parts, paths)):
            content = files.read_json(side_file(path, "seconds"))
            of_several = {str(name): float(of) for name, of in content.get("shared", {}).items()}
            seconds += float(content["seconds"]) - sum(of_several.values())
            shared |= of_several
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SpaceliteError):
        return None  # reports show it, and nothing depends on it
    return seconds + sum(shared.values())


def add_seconds(paths: Collection[Path], seconds: float) -> None:
    """Record the seconds of a call that wrote to caches, while their locks are held; of several,
    so that it counts once for all of them. The caches themselves contain no times: the same
    settings give the same bytes."""
    shared = {uuid.uuid4().hex[:8]: seconds} if len(paths) > 1 else {}
    for path in paths:
        before = embedding_seconds([path])
        content = {} if before is None else files.read_json(side_file(path, "seconds"))
        content["seconds"] = (before or 0.0) + seconds
        if shared:
            content["shared"] = {**content.get("shared", {}), **shared}
        keep_json(path, "seconds", content)


def made_by(path: Path) -> str | None:
    """The command that a cache is for: `eval` if that alone embedded it, else `embed` or `import`;
    None if that is not known, as for caches of older versions or, with a warning in the log, if its
    file is damaged."""
    file = side_file(path, "made")
    try:
        content = files.read_json(file)
        if not isinstance(content, dict) or content.get("by") not in MAKERS:
            raise ValueError("it names no command")
        return str(content["by"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning(
            "%s is damaged (%s): which cache is trained on by default may change; the embed "
            "command of the cache rewrites it",
            file, one_line(error, 80),
        )  # fmt: skip
        return None


def keep_maker(path: Path, command: str) -> None:
    """Record the command that a cache is for. Skipped in read-only folders; raises SpaceliteError
    if it fails otherwise, since which cache is trained on by default depends on it."""
    if made_by(path) == command:
        return
    file = side_file(path, "made")
    try:
        files.write_json(file, {"by": command})
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise SpaceliteError(f"{file} cannot be written: {error.strerror}") from error
