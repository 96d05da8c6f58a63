"""Data set and backbone -> cache file: find or create it, tokenize, run the backbone, resume."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from spacelite import files, npz, ranks
from spacelite.backbones import tokenizer
from spacelite.backbones.files import BackboneFiles, locate
from spacelite.backbones.model import (
    Backbone,
    Forward,
    Output,
    default_budget,
    instructions,
    plan_batches,
    resolve_device,
)
from spacelite.backbones.tokenizer import UNLIMITED, Tokenized, held_tokenizer, special_ids
from spacelite.cache import reuse as reusing
from spacelite.cache import store
from spacelite.cache import texts as cached_texts
from spacelite.cache.dtypes import Rounded, Rounding, rounding_sums, stored_type
from spacelite.cache.hdf5 import SHARD
from spacelite.cache.reduction import SAMPLED, SEED, Moments, Reduction
from spacelite.cache.shards import MANIFEST, Manifest, Shard, divide
from spacelite.cache.spec import CacheSpec, Encoding, embeddings_folder
from spacelite.cache.split import DamagedCacheError, SplitIndex, offsets_of
from spacelite.cache.store import Cache, DamagedLayersError, Layout, side_file
from spacelite.cache.writing import Examples, Writer, Writing, check_finite, write_missing
from spacelite.data.splits import TextDataset
from spacelite.errors import SpaceliteError, one_line
from spacelite.pipeline import Clock
from spacelite.progress import OnProgress
from spacelite.types import Array

log = logging.getLogger(__name__)

ERROR_TEXTS = 50  # on which the error of half precision is measured
# Bytes of the weights in float32 up to which it is measured: a second model is loaded for that.
MOST_FLOAT32 = 8 * 10**9
MANY_TOKENS = 200_000  # from which `embed` measures whether half precision would be faster
FASTER = 1.5  # times as fast, from which it is said
SHARD_SIZE = 4 * 10**9  # bytes of a file, from which a cache has several
METADATA = 2**18  # bytes of a file, at most, beside what its examples take
BETWEEN_COUNTS = 0.5  # seconds between two reports of a process to the others
TEXTS_AT_ONCE = 100_000  # that are tokenized to find out how long they are
AXES = "reduction.npz"  # in the folder of a cache of several files
SMALLER = "embed fewer examples with limit=N, or leave the layer means out with layers=False"


@dataclass(frozen=True)
class Embedded:
    """What `embed` returns: the finished cache, and what the call did."""

    path: Path
    hit: bool  # whether the cache existed already
    seconds: float
    speed: Speed | None = None  # if hidden states were computed
    copied: int = 0  # examples whose hidden states were copied from other caches
    rounded: Rounded | None = None  # if it was measured for hidden states that were computed
    shard: tuple[int, int] | None = None  # that was asked for alone: its number, and of all
    others: tuple[Embedded, ...] = ()  # the same for further layers


@dataclass(frozen=True)
class Speed:
    """How fast hidden states were computed, and what it took."""

    tokens: int  # whose hidden states were computed
    seconds: float  # of the whole call
    # How many of these seconds each stage worked, the longest first. Stages overlap, so these may
    # add up to more.
    stages: dict[str, float]

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second, of the whole call."""
        return self.tokens / self.seconds

    @property
    def limit(self) -> str:
        """The stage that worked longest: only if it were faster, the whole would be."""
        return next(iter(self.stages))

    def as_json(self) -> dict[str, Any]:
        """What `embed --json` prints."""
        return {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
            "limit": self.limit,
            "stages": self.stages,
        }


def embed(
    encoding: Encoding,
    read: Callable[[], TextDataset],
    *,
    cache_dir: Path,
    further_layers: Sequence[int] = (),
    layers: bool | None = None,
    reuse: bool = True,
    shard_size: int | None = None,
    shard: tuple[int, int] | None = None,
    command: str = "embed",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Embedded:
    """Run a frozen backbone once over a data set and keep every token's hidden state, as
    `spacelite.embed`, which explains the arguments. `read` reads the data set, before anything is
    computed; it may raise. Each of `further_layers` has a cache of its own. `shard` is the number
    of a shard, from 1, and of all of them. `command` is `embed`, after which the cache counts as
    the newest, or `eval`, after which it is none to train on.

    A finished cache with the same spec is returned at once. An unfinished one is continued, and
    ends with the same bytes as if it had never been interrupted.
    """
    started, clock = time.perf_counter(), Clock()
    encoding.check()
    with clock.measure("loading the backbone"):
        backbone_files = locate(encoding.backbone, encoding.revision)
    with clock.measure("reading"):
        data = read()
    with clock.measure("loading the backbone"):  # it imports torch
        resolve_device(encoding.device)
    spec = encoding.spec(
        backbone_files, data.name, data.fingerprint, data.label_names, data.task_name
    )
    if spec.max_length != encoding.max_length:
        log.info("%s takes at most %d tokens: max_length is that", spec.backbone, spec.max_length)
    of_layers = [spec, *(replace(spec, layer=number) for number in further_layers)]
    specs = {spec.path(cache_dir): spec for spec in of_layers}
    call = _Call(encoding, backbone_files, specs, layers, reuse, command, on_progress, clock)
    if ranks.size() > 1:
        _require_one_view(cache_dir, specs, shard)
    manifests = _divided(call, data, shard_size, shard) if ranks.rank() == 0 else {}
    divided, _ = ranks.broadcast([path.name for path in manifests])
    if ranks.rank() > 0:
        manifests = {path: Manifest.read(path) for path in specs if path.name in divided}
    _advise_ranks(manifests)
    written, tokens = dict[Path, _Written](), 0
    single = {path: spec for path, spec in specs.items() if path not in manifests}
    if single and ranks.rank() == 0:
        written, tokens = _complete(call, single, data)
        for path, of_path in single.items():
            if path not in written:
                _complete_beside(call, path, of_path, data)
    for alike in _alike(manifests):
        of_shards, more = _complete_shards(call, alike, data, shard)
        written, tokens = written | of_shards, tokens + more
    if command == "embed" and shard is None and ranks.rank() == 0:
        keep_maker(specs, command)
    if ranks.size() > 1:
        tokens = _of_all_ranks(call, written, tokens)
    seconds = time.perf_counter() - started
    speed = Speed(tokens, seconds, clock.busy) if tokens else None
    first, *others = (
        Embedded(
            path, False, seconds, speed, written[path].copied, written[path].rounding.result(),
            shard=shard,
        )
        if path in written
        else Embedded(path, True, seconds, speed, shard=shard)
        for path in specs
    )  # fmt: skip
    return replace(first, others=tuple(others))


@dataclass(frozen=True)
class _Call:
    """One call of `embed`."""

    encoding: Encoding
    backbone_files: BackboneFiles
    specs: Mapping[Path, CacheSpec]
    layers: bool | None
    reuse: bool
    command: str
    on_progress: OnProgress
    clock: Clock

    @cached_property
    def model(self) -> Backbone:
        """The backbone, loaded once."""
        spec = next(iter(self.specs.values()))
        with self.clock.measure("loading the backbone"):
            model = Backbone(
                self.backbone_files,
                layer=spec.layer,
                device=ranks.device_of(resolve_device(self.encoding.device)),
                precision=spec.precision,
            )
        model.check_layers(*(spec.layer for spec in self.specs.values()))
        return model

    def layout(self, spec: CacheSpec, reduction: Reduction | None, *, layers: bool) -> Layout:
        """What is kept of each text in the cache of a layer."""
        read = self.model.reading(layer=spec.layer, all_layers=layers and self.model.layers > 0)
        return Layout.of(read, spec.dtype, reduction)


@dataclass
class _Written:
    """What was written into a cache."""

    copied: int
    rounding: Rounding
    repeated: int = 0  # texts with the tokens of another one of the same file


# One file.


def _complete(
    call: _Call,
    specs: Mapping[Path, CacheSpec],
    data: TextDataset,
    part: _Part | None = None,
) -> tuple[dict[Path, _Written], int]:
    """Write what cache files lack that differ in the layer alone, and hold all of the data or one
    `part` of it.

    Returns what was written into each, and the number of tokens that were run through the backbone.
    """
    encoding, clock, layers = call.encoding, call.clock, call.layers
    on_progress = call.on_progress
    if part is not None:
        layers, on_progress = part.layers, part.on_progress
    with unfinished(specs, layers, part) as left, ExitStack() as stack:
        locked = time.perf_counter()
        if not left:
            return {}, 0
        spec = specs[left[0]]
        if part is None:
            _log_differences(left[0], spec, specs)
        with clock.measure("tokenizing"):
            before = {} if part is None else part.shard.before
            examples = tokenize(
                call.backbone_files, data, spec, on_progress, before,
                None if part is None else _Lengths(),
            )  # fmt: skip
        with_layers = {path: keeps_layers(path, layers) for path in left}
        if not call.model.layers and any(with_layers.values()):
            if layers:
                raise SpaceliteError(
                    f"layers=True: the layers of {call.model.name} differ in width: leave "
                    "layers=True out",
                    ["layers"],
                )
            with_layers = dict.fromkeys(left, False)
        model = call.model.reading(
            layer=spec.layer,
            others=tuple(specs[path].layer for path in left[1:]),
            all_layers=any(with_layers.values()),
        )
        splits = examples.indexes
        reductions: Mapping[Path, Reduction] = {}
        if part is not None:
            reductions = part.reductions
        elif spec.reduce is not None:
            with clock.measure("fitting axes"):
                reductions = _reductions(call, {path: specs[path] for path in left}, examples)
        layouts = {
            path: call.layout(specs[path], reductions.get(path), layers=with_layers[path])
            for path in left
        }
        plans: dict[Path, reusing.Plan] = {}

        def keep_plan(path: Path) -> None:
            """What a run that continues the cache has to know."""
            if part is None:
                store.keep_maker(path, call.command)
            if call.reuse:
                key, ids = specs[path].cache_key(), examples.tokens.ids
                with_means = layouts[path].layers > 0
                plans[path] = reusing.find(path, specs[path], ids, with_layers=with_means)
                if plans[path].reuses:
                    reusing.write(path, key, plans[path])

        lay_out(
            specs, layouts, splits, examples.tokens.padding_side, first=keep_plan,
            shard=None if part is None else part.shard.label,
        )  # fmt: skip
        counts = cached_texts.count_unknown(splits, examples.tokens.special)
        writings = []
        for path in left:
            key, ids, spec = specs[path].cache_key(), examples.tokens.ids, specs[path]
            cached_texts.keep(path, key, data, encoding.folder)
            cached_texts.write_unknown(path, counts)
            plan = plans[path] if path in plans else reusing.read(path, key, len(ids))
            prefix = f"layer {spec.layer}: " if len(specs) > 1 else ""
            writings.append(
                Writing(
                    path,
                    spec,
                    plan,
                    stack.enter_context(
                        Writer(
                            path, layers=layouts[path].layers > 0, layers_required=layers is True
                        )
                    ),
                    examples,
                    f"{'' if part is None else f'{part.shard.name}: '}{prefix}",
                    Rounding(stored_type(spec.dtype)) if part is None else part.roundings[path],
                )
            )
        repeated = max(len(writing.plan.repeated) for writing in writings)
        if part is None:
            _say_repeated(repeated, len(examples.lengths))
        first = part is None or part.is_first
        if model.precision != "float32":
            if first and model.device == "cpu" and instructions(model.precision) is None:
                log.warning(
                    "this processor has no instructions for %s: float32 is faster here",
                    model.precision,
                )
            _keep_half_precision_error(left, model, call.backbone_files, examples.tokens)
        elif first and encoding.precision == "auto" and examples.lengths.sum() >= MANY_TOKENS:
            _compare_half_precision(model, call.backbone_files, examples.tokens)
        stored, budget = stored_type(spec.dtype), encoding.tokens_per_batch
        with_rows = any("tokens" in writing.writer.missing for writing in writings)
        forward = Forward(
            model,
            examples.tokens,
            stored.to_rows,
            budget or default_budget(model.device),
            measure=rounding_sums(stored) if with_rows else None,
            reduce=[reductions[path].on(model.device) for path in left if reductions],
            clock=clock,
        )
        try:
            tokens = write_missing(writings, forward, on_progress)
            for writing in writings:
                if part is None:
                    writing.rounding.log(writing.distinct, writing.prefix)
                if first and call.command == "embed":  # `eval` has no choice
                    writing.report_sink()
        finally:
            store.add_seconds(left, time.perf_counter() - locked)
        written = {
            writing.path: _Written(writing.copied, writing.rounding, repeated)
            for writing in writings
        }
        return written, tokens


def _say_repeated(texts: int, of: int, where: str = "") -> None:
    """Say how many texts are copies of an earlier one."""
    if texts:
        log.info(
            "%s of %s texts have the same tokens as another one%s and are not run again",
            f"{texts:,}", f"{of:,}", where,
        )  # fmt: skip


def _complete_beside(call: _Call, path: Path, spec: CacheSpec, data: TextDataset) -> None:
    """Write what a finished cache file lacks beside it: an older version wrote it."""
    _count_unknown(path, call.backbone_files)
    cached_texts.keep(path, spec.cache_key(), data, call.encoding.folder)


# Several files.


@dataclass(frozen=True)
class _Part:
    """The part of the data set that is written into a shard."""

    shard: Shard
    layers: bool | None
    wait: bool  # for another process that writes it, rather than raise LockedError
    specs: Mapping[Path, CacheSpec]  # by the paths of the shard's files, as what follows
    reductions: Mapping[Path, Reduction]
    roundings: Mapping[Path, Rounding]
    on_progress: OnProgress
    is_first: bool = False  # that this call computes: it is the one to say what is true of all

    def is_that_of(self, cache: Cache) -> bool:
        """Whether an open file is the one to be written."""
        sizes = {name: len(split) for name, split in cache.splits.items()}
        return (
            cache.spec == self.specs[cache.path]
            and cache.file.attributes[""].get(SHARD) == self.shard.label
            and (sizes, cache.tokens) == (self.shard.sizes, self.shard.tokens)
            and self.shard.crc32 in (None, cache.file.crc32)
        )

    def remove_others(self, path: Path) -> None:
        """Delete a file that is damaged, or another one, and say so."""
        try:
            with Cache(path) as cache:
                if self.is_that_of(cache):
                    return
            problem = f"{path} is not shard {self.shard.label} of its cache"
        except DamagedCacheError as error:
            problem = f"{path} is damaged ({one_line(error, 80)})"
        log.warning("%s: it is computed again", problem)
        files.clear_away(path)


def _divided(
    call: _Call, data: TextDataset, size: int | None, shard: tuple[int, int] | None
) -> dict[Path, Manifest]:
    """How those caches are divided that have several files: as it was written down before, or,
    of new ones, as `size` or the number of shards says. A new cache that is no larger than a shard
    is a single file. Raises SpaceliteError if a cache is divided otherwise."""
    manifests = {}
    for path in call.specs:
        if store.is_divided(path):
            manifests[path] = _same_division(Manifest.read(path), path, size, shard)
        elif path.exists():
            _as_single(path, size, shard)
    new = [path for path in call.specs if not path.exists()]
    if not new:
        return manifests
    held_tokenizer(call.backbone_files)  # what is wrong with it is said before the model is loaded
    if shard is None and _at_most(call, data) <= (size or SHARD_SIZE):
        return manifests
    with ExitStack() as stack:
        for path in sorted(new):
            files.make_folder(path.parent, "choose another cache_dir")
            stack.enter_context(files.lock(path, f"dividing {path.stem} into shards"))
        # Another process may have divided some while this one waited.
        appeared = any(path.exists() for path in new)
        new = [path for path in new if not path.exists()]
        divided = _divide(call, new, data, size, shard) if new else {}
    return _divided(call, data, size, shard) if appeared else manifests | divided


def _as_single(path: Path, size: int | None, shard: tuple[int, int] | None) -> None:
    """Say so if a cache that is there as a single file was to have several."""
    kept = f"cache {path.stem} is there as a single file"
    if shard is not None:
        raise SpaceliteError(
            f"shard={shard[0]}/{shard[1]}: {kept}: leave it out, or remove the cache (spacelite "
            f"cache remove {path.stem})",
            ["shard"],
        )
    larger = path.stat().st_size
    if size is not None and larger > size + METADATA:
        given = f"shard_size={files.human_bytes(size)} has no effect"
        problem = f"{given}: {kept} of {files.human_bytes(larger)}"
        log.warning("%s", SpaceliteError(problem, ["shard_size"]))


def _same_division(
    manifest: Manifest, path: Path, size: int | None, shard: tuple[int, int] | None
) -> Manifest:
    """The manifest, unless another division is asked for."""
    asked = None if shard is None else f"shard={shard[0]}/{shard[1]}"
    same = shard is None or shard[1] == len(manifest.shards)
    if same and size is not None and size != manifest.size:
        asked, same = f"shard_size={files.human_bytes(size)}", False
    if not same:
        raise SpaceliteError(
            f"{asked}: cache {path.stem} is divided into {manifest.words}: ask for the same, or "
            f"remove the cache (spacelite cache remove {path.stem})",
            ["shard_size", "shard"],
        )
    return manifest


def _at_most(call: _Call, data: TextDataset) -> int:
    """The bytes that hidden states may take, as the texts' bytes tell: a token has at least one."""
    spec = next(iter(call.specs.values()))
    special = 2 + len(spec.prefix.encode())
    longest = spec.max_length if spec.stride is None else UNLIMITED
    tokens = sum(
        longest if spec.padding == "max_length" else min(longest, len(text.encode()) + special)
        for split in data.splits.values()
        for text in split.texts
    )
    return tokens * stored_type(spec.dtype).row_bytes(call.model.width)


def _divide(
    call: _Call,
    paths: Sequence[Path],
    data: TextDataset,
    size: int | None,
    shard: tuple[int, int] | None,
) -> dict[Path, Manifest]:
    """Divide new caches, which are locked, unless each fits into a single file, and write down
    how."""
    spec = call.specs[paths[0]]
    with call.clock.measure("tokenizing"):
        lengths = _lengths(call, data)
    reductions: Mapping[Path, Reduction] = {}
    if spec.reduce is not None:
        with call.clock.measure("fitting axes"):
            reductions = _reductions_of_shards(call, paths, data, lengths)
    with_layers = call.layers is not False and call.model.layers > 0
    layouts = [
        call.layout(call.specs[path], reductions.get(path), layers=with_layers) for path in paths
    ]
    labels = next(iter(data.splits.values())).labels
    example_bytes = np.max([layout.example_bytes(lengths, labels) for layout in layouts], axis=0)
    total = int(example_bytes.sum())
    if shard is None and total <= (size or SHARD_SIZE):
        return {}
    count = None if shard is None else shard[1]
    manifests = {
        path: divide(
            call.specs[path],
            {name: len(split) for name, split in data.splits.items()},
            lengths,
            example_bytes,
            size=None if count else size or SHARD_SIZE,
            count=count,
            layers=with_layers,
        )
        for path in paths
    }
    means = 2 * layouts[0].layers * layouts[0].width * len(lengths)
    part = f"{int(lengths.sum()):,} tokens in {manifests[paths[0]].words}"
    # A single shard may find the room that all of them would not.
    refuse = shard is None
    _check_room(paths[0].parent, {part: [total + means] * len(paths)}, SMALLER, refuse=refuse)
    for path, manifest in manifests.items():
        store.clear(path)
        store.keep_maker(path, call.command)
        partial = path.with_name(f".{path.name}.divided")
        with files.writing(path, "; free some space, or choose another cache_dir"):
            files.delete(partial)  # left by a killed process
            partial.mkdir()
            if path in reductions:
                npz.write(partial / AXES, reductions[path].arrays)
            manifest.write(partial)
            partial.rename(path)
            files.sync(path.parent)
    return manifests


def _lengths(call: _Call, data: TextDataset) -> Array:
    """The tokens that are kept of each text, (N,) int64. Raises SpaceliteError if a text has
    none."""
    spec, lengths, done = next(iter(call.specs.values())), list[Array](), 0
    total, counted = sum(map(len, data.splits.values())), _Lengths()
    for name, split in data.splits.items():
        for first in range(0, len(split), TEXTS_AT_ONCE):
            part = replace(data, splits={name: split.part(first, first + TEXTS_AT_ONCE)})
            examples = tokenize(
                call.backbone_files, part, spec, lambda *of: None, {name: first}, counted
            )
            lengths.append(examples.lengths)
            done += len(examples.lengths)
            call.on_progress("tokenize", done, total)
    counted.log(spec.max_length)
    return np.concatenate(lengths)


def _alike(manifests: Mapping[Path, Manifest]) -> list[dict[Path, Manifest]]:
    """The caches whose examples are divided alike, with layer means or without."""
    groups: list[dict[Path, Manifest]] = []
    for path, manifest in manifests.items():
        for group in groups:
            first = next(iter(group.values()))
            if first.layers == manifest.layers and first.parts == manifest.parts:
                group[path] = manifest
                break
        else:
            groups.append({path: manifest})
    return groups


def _complete_shards(
    call: _Call,
    manifests: Mapping[Path, Manifest],
    data: TextDataset,
    only: tuple[int, int] | None,
) -> tuple[dict[Path, _Written], int]:
    """Write what caches lack that are divided alike and differ in the layer alone: one shard, or
    all, the largest first, those last that other processes are writing; and then their
    manifests."""
    path, manifest = next(iter(manifests.items()))
    chosen = sorted(manifest.shards, key=lambda shard: -shard.tokens)
    if only is not None:
        chosen = [manifest.shards[only[0] - 1]]
    progress = _SharedProgress(call, path.stem, sum(shard.tokens for shard in chosen))
    roundings = {path: Rounding(stored_type(of.spec.dtype)) for path, of in manifests.items()}
    reductions = {
        path: _read_axes(path) for path, of in manifests.items() if of.spec.reduce is not None
    }
    parts, left = dict[int, _Part](), list[Shard]()
    for shard in chosen:
        parts[shard.number] = part = _Part(
            shard,
            _layers_of(call, manifests, shard),
            only is not None,
            {path / shard.name: of.spec for path, of in manifests.items()},
            {path / shard.name: reduction for path, reduction in reductions.items()},
            {path / shard.name: rounding for path, rounding in roundings.items()},
            partial(progress.report, shard.tokens),
        )
        if not all(is_finished(file, spec, part.layers, part) for file, spec in part.specs.items()):
            left.append(shard)
        elif ranks.rank() == 0:
            progress.known += shard.tokens
            for file, spec in part.specs.items():
                _complete_beside(call, file, spec, _part_of(data, shard))
    written, tokens = dict[Path, _Written](), 0
    for wait in (False, True):
        busy = []
        for shard in left:
            part = replace(parts[shard.number], wait=wait or only is not None, is_first=not written)
            try:
                of_shard, run = _complete(call, part.specs, _part_of(data, shard), part)
            except files.LockedError:
                busy.append(shard)
                continue
            tokens += run
            progress.end_shard(shard.tokens, of_shard)
            for file, new in of_shard.items():
                before = written.get(file.parent, _Written(0, new.rounding))
                written[file.parent] = _Written(
                    before.copied + new.copied, new.rounding, before.repeated + new.repeated
                )
        # Those that no process of the job writes, others do.
        with progress.shown():
            ranks.barrier()
        left = busy if ranks.rank() == 0 else []
    repeated = max((of.repeated for of in written.values()), default=0)
    _say_repeated(repeated, sum(manifest.splits.values()), " of their shard")
    for path in written:
        prefix = f"layer {manifests[path].spec.layer}: " if len(call.specs) > 1 else ""
        roundings[path].log(manifests[path].tokens, prefix)
    if only is None and ranks.rank() == 0:
        for path, of in manifests.items():
            _finish(path, of)
    return written, tokens


class _SharedProgress:
    """How many tokens of a cache of several files are done, by all processes of the job; the first
    one reports it."""

    def __init__(self, call: _Call, name: str, total: int) -> None:
        self._on_progress, self._total = call.on_progress, total
        self._counter = f"{name} {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"
        self.known = 0  # tokens that were done before, as the first process finds
        self._done = self._of_shard = 0  # of this process, in all and of its present shard
        self._counted, self._time = 0, time.monotonic()  # what the others know of, and since when

    def report(self, tokens: int, phase: str, done: int, total: int) -> None:
        """Report what is done of a shard of so many tokens."""
        if phase == "embed":
            self._advance(tokens * done // max(total, 1))

    def end_shard(self, tokens: int, written: Collection[Path]) -> None:
        """Report that a shard is complete, and what this process has written of it; the process
        that wrote the rest tells of that."""
        if written or ranks.size() == 1:
            self._advance(tokens)
            self._tell()
        self._of_shard = 0

    def _advance(self, of_shard: int) -> None:
        self._done += of_shard - self._of_shard
        self._of_shard = of_shard
        if ranks.size() == 1 or time.monotonic() > self._time + BETWEEN_COUNTS:
            self._tell()

    def _tell(self) -> None:
        done = self._done
        if ranks.size() > 1:
            done = ranks.count(self._counter, self._done - self._counted)
            self._counted, self._time = self._done, time.monotonic()
        if ranks.rank() == 0:
            self._on_progress("embed", min(self.known + done, self._total), self._total)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Report what the others do while the first process waits for them."""
        ended = threading.Event()

        def show() -> None:
            while not ended.wait(BETWEEN_COUNTS):
                self._tell()

        waiting = ranks.rank() == 0 and ranks.size() > 1
        thread = threading.Thread(target=show, daemon=True)
        if waiting:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if waiting:
                thread.join()


def _require_one_view(
    cache_dir: Path, specs: Mapping[Path, CacheSpec], shard: tuple[int, int] | None
) -> None:
    """Raise SpaceliteError unless all processes of a job read the same data and see one folder."""
    if shard is not None:
        raise SpaceliteError(
            f"shard={shard[0]}/{shard[1]}: the processes of a job share all shards: leave it out",
            ["shard"],
        )
    probe = embeddings_folder(cache_dir) / f".{uuid.uuid4().hex}.probe"
    names = [path.name for path in specs]
    if ranks.rank() == 0:
        files.make_folder(probe.parent, "choose another cache_dir")
        with files.writing(probe, "; choose another cache_dir"):
            probe.touch()
    (their_names, their_probe), _ = ranks.broadcast([names, probe.name])
    here = f"process {ranks.rank()}, on {socket.gethostname()},"
    if names != their_names:
        raise SpaceliteError(
            f"{here} has other data, another backbone or other settings than process 0 (its cache "
            f"would be {names[0]}, not {their_names[0]}): give all the same"
        )
    if not (probe.parent / their_probe).exists():
        raise SpaceliteError(
            f"{here} does not see the files of process 0 in {files.absolute(cache_dir)}: choose a "
            "cache_dir that all hosts share",
            ["cache_dir"],
        )
    ranks.barrier()
    if ranks.rank() == 0:
        files.clear_away(probe)


def _of_all_ranks(call: _Call, written: dict[Path, _Written], tokens: int) -> int:
    """Wait for all processes of the job: the tokens that they have run; what each has `written` is
    replaced by what all have."""
    import torch

    counts = torch.tensor(
        [[tokens, 0], *([path in written, _copied(written, path)] for path in call.specs)]
    )
    ranks.add_up([counts])
    (tokens, _), *of_paths = counts.tolist()
    for (path, spec), (writers, copied) in zip(call.specs.items(), of_paths, strict=True):
        if writers:
            none = _Written(0, Rounding(stored_type(spec.dtype)))
            written[path] = replace(written.get(path, none), copied=copied)
    return int(tokens)


def _copied(written: Mapping[Path, _Written], path: Path) -> int:
    return written[path].copied if path in written else 0


def _advise_ranks(manifests: Mapping[Path, Manifest]) -> None:
    """Say so if there are fewer shards than processes."""
    shards = min((len(of.shards) for of in manifests.values()), default=1)
    if shards < ranks.size():
        problem = (
            f"{shards} shard{'s' * (shards > 1)} for {ranks.size()} processes, each of which "
            "writes one at a time: for a new cache, give a smaller shard_size"
        )
        log.warning("%s", SpaceliteError(problem, ["shard_size"]))


def _read_axes(path: Path) -> Reduction:
    """The reduction that all shards of a cache share."""
    try:
        with npz.opened(path / AXES, "mean|axes|shares") as arrays:
            of_sizes = {"mean": (None,), "axes": (None, None), "shares": (None,)}
            return Reduction.of(
                {name: arrays.read(name, "f", *sizes) for name, sizes in of_sizes.items()}
            )
    except (OSError, ValueError) as error:
        raise SpaceliteError(
            f"{path / AXES} is missing or damaged ({one_line(error, 80)}): remove the cache "
            f"(spacelite cache remove {path.stem}) and embed again"
        ) from error


def _layers_of(call: _Call, manifests: Mapping[Path, Manifest], shard: Shard) -> bool | None:
    """Whether a shard is to have layer means: as was asked, or as its cache has them."""
    if call.layers is not None or not next(iter(manifests.values())).layers:
        return call.layers or False
    here = [path / shard.name for path in manifests]
    lost = any(file.exists() and not side_file(file, "layers").exists() for file in here)
    return True if lost else None


def _part_of(data: TextDataset, shard: Shard) -> TextDataset:
    splits = {name: data.splits[name].part(*rows) for name, rows in shard.examples.items()}
    return replace(data, splits=splits)


def _finish(path: Path, manifest: Manifest) -> None:
    """Write the manifest of a cache whose shards are all written."""
    beside = [side_file(path / shard.name, "layers") for shard in manifest.shards]
    layers = all(file.exists() for file in beside)
    finished = manifest.finished(path, layers=layers)
    if finished == manifest and (path / MANIFEST).exists():
        return
    with files.lock(path):
        finished.write(path)
    store.Cache(path).close()  # the shards fit together


# Tokens.


@dataclass
class _Lengths:
    """How many texts are longer than what is run at once."""

    texts: int = 0
    windowed: int = 0
    truncated: int = 0

    def add(self, tokens: Tokenized, spec: CacheSpec) -> None:
        """Count some more texts."""
        self.texts += len(tokens.ids)
        self.truncated += tokens.truncated
        if spec.stride is not None:
            self.windowed += sum(len(ids) > spec.max_length for ids in tokens.ids)

    def log(self, longest: int) -> None:
        """Say what became of them."""
        if self.windowed:
            log.info(
                "%s of %s texts %s longer than %s tokens and run in windows of as many",
                f"{self.windowed:,}", f"{self.texts:,}", "is" if self.windowed == 1 else "are",
                longest,
            )  # fmt: skip
        if self.truncated:
            log.info(
                "%s of %s texts %s longer than %s tokens and %s cut off there",
                f"{self.truncated:,}", f"{self.texts:,}",
                *(("is", longest, "was") if self.truncated == 1 else ("are", longest, "were")),
            )  # fmt: skip


def tokenize(
    backbone_files: BackboneFiles,
    texts: TextDataset,
    spec: CacheSpec,
    on_progress: OnProgress,
    before: Mapping[str, int] | None = None,
    counted: _Lengths | None = None,
) -> Examples:
    """The token ids of a data set, or of a part of it, `before` which there are so many examples of
    each split. Raises SpaceliteError if a text has no token. That texts are cut off is said, or
    `counted`."""
    everything = [text for split in texts.splits.values() for text in split.texts]
    on_progress("tokenize", 0, len(everything))
    tokens = tokenizer.tokenize(
        backbone_files,
        everything,
        **spec.tokenizing,
        tokenizer=held_tokenizer(backbone_files),
        on_chunk=lambda done: on_progress("tokenize", done, len(everything)),
    )
    kept = tokens.kept
    lengths = np.array([len(ids) for ids in kept], np.int64)
    starts, indexes, start = {}, {}, 0
    for name, part in texts.splits.items():
        stop = start + len(part)
        offsets = offsets_of(lengths[start:stop])
        token_ids = np.concatenate(kept[start:stop])
        starts[name], indexes[name] = start, SplitIndex(offsets, part.labels, token_ids)
        start = stop
    examples = Examples(starts, indexes, tokens, lengths, before or {})
    if not lengths.all():
        split, row = examples.location(int(np.argmin(lengths)))
        raise SpaceliteError(
            f"{texts.name} {split}: text {examples.before.get(split, 0) + row + 1} has no token "
            f"that {backbone_files.name} knows: remove it"
        )
    here = counted or _Lengths()
    here.add(tokens, spec)
    if counted is None:
        here.log(spec.max_length)
    return examples


# Axes.


def _reductions(
    call: _Call, specs: Mapping[Path, CacheSpec], examples: Examples
) -> dict[Path, Reduction]:
    """What the hidden states of caches that differ in the layer alone are reduced by: what a cache
    that was laid out holds, what was given, or the axes of a sample of train tokens."""
    reductions: dict[Path, Reduction] = {}
    for path in specs:
        if path.exists():
            with Cache(path) as cache:
                if cache.reduction is not None:
                    reductions[path] = cache.reduction
    if new := [path for path in specs if path not in reductions]:

        def sample() -> tuple[Examples, Array]:
            first = examples.splits["train"]
            of_train = examples.lengths[first : first + len(examples.indexes["train"].labels)]
            return examples, first + _sampled(call, new, of_train)

        reductions |= _fitted(call, new, sample)
    return {path: reductions[path] for path in specs}


def _reductions_of_shards(
    call: _Call, paths: Sequence[Path], data: TextDataset, lengths: Array
) -> dict[Path, Reduction]:
    """As `_reductions`, of new caches of several files, given the tokens of each text."""

    def sample() -> tuple[Examples, Array]:
        first = sum(len(data.splits[name]) for name in takewhile("train".__ne__, data.splits))
        of_train = lengths[first : first + len(data.splits["train"])]
        texts = data.splits["train"].take(_sampled(call, paths, of_train))
        examples = tokenize(
            call.backbone_files, replace(data, splits={"train": texts}),
            call.specs[paths[0]], lambda *of: None, counted=_Lengths(),
        )  # fmt: skip
        return examples, np.arange(len(texts))

    return _fitted(call, paths, sample)


def _sampled(call: _Call, paths: Sequence[Path], lengths: Array) -> Array:
    """The train texts, of so many tokens each, that axes are fitted on: in a seeded order, until
    they have SAMPLED tokens for each dimension."""
    widths = [call.layout(call.specs[path], None, layers=False).width for path in paths]
    order = np.random.default_rng(SEED).permutation(len(lengths))
    last = int(np.searchsorted(np.cumsum(lengths[order]), SAMPLED * max(widths)))
    chosen: Array = order[: last + 1]
    return chosen


def _fitted(
    call: _Call, paths: Sequence[Path], sample: Callable[[], tuple[Examples, Array]]
) -> dict[Path, Reduction]:
    """What was given, or the principal axes of the layers of some caches: of some examples, which
    `sample` gives. Raises SpaceliteError as `Moments.reduction`."""
    wanted, layers = call.encoding.reduce, [call.specs[path].layer for path in paths]
    if isinstance(wanted, Reduction):
        return dict.fromkeys(paths, wanted)
    widths = [call.model.reading(layer=layer).width for layer in layers]
    if isinstance(wanted, int) and wanted > min(widths):
        raise SpaceliteError(
            f"reduce={wanted}: the hidden states of {call.model.name} have {min(widths):,} "
            "dimensions: give a smaller number",
            ["reduce"],
        )
    model = call.model.reading(layer=layers[0], others=tuple(layers[1:]))
    examples, chosen = sample()
    lengths = np.array([len(examples.tokens.ids[example]) for example in chosen], np.int64)
    budget = call.encoding.tokens_per_batch or default_budget(model.device)
    plan = [chosen[batch] for batch in plan_batches(lengths, budget)]
    forward = Forward(model, examples.tokens, lambda hidden: hidden, budget)
    moments, exact = [Moments(width) for width in widths], stored_type("float32")
    done, total = 0, int(examples.lengths[chosen].sum())
    call.on_progress("reduce", 0, total)
    for batch, output in forward.batches(plan, lambda *pair: pair):
        for of_layer, states in zip(moments, output.states, strict=True):
            for row, example in enumerate(batch.tolist()):
                check_finite(states[row], exact, examples.called(example))
            of_layer.add(states.reshape(-1, states.shape[-1]))
        done += int(examples.lengths[batch].sum())
        call.on_progress("reduce", done, total)
    reductions = {}
    for path, of_layer in zip(paths, moments, strict=True):
        reductions[path] = of_layer.reduction(str(wanted))
        prefix = f"layer {call.specs[path].layer}: " if len(call.specs) > 1 else ""
        log.info("%sreduced to %s", prefix, reductions[path].words)
    return reductions


# Laying out.


def lay_out(
    specs: Mapping[Path, CacheSpec],
    layouts: Mapping[Path, Layout],
    splits: Mapping[str, SplitIndex],
    padding_side: str,
    smaller: str = SMALLER,
    first: Callable[[Path], None] = lambda path: None,
    shard: str | None = None,
) -> None:
    """Lay out what is missing of caches that differ in the layer alone, and of their files of layer
    means. Raises SpaceliteError if the disk is full, too small for all of them, or broken;
    `smaller` says how they would take less of it. `first` is called for each new cache before it is
    there: what it keeps beside the cache a killed process does not lack. `shard` says which of
    several files of their caches these are."""
    new = [path for path in layouts if not path.exists()]
    for path, layout in layouts.items():
        if path not in new:
            _check_laid_out(path, splits, layout)
            continue
        # Left by a cache that was deleted by hand, or a process that was killed while it laid one
        # out.
        store.clear(path)
    means = [
        path
        for path, layout in layouts.items()
        if layout.layers and not side_file(path, "layers").exists()
    ]
    tokens = sum(len(index.token_ids) for index in splits.values())
    sizes: dict[str, list[int]] = {}
    for path in new:
        part = f"{tokens:,} tokens of width {layouts[path].kept_width}"
        sizes.setdefault(part, []).append(store.file_size(splits, layouts[path].cache_shapes))
    for path in means:
        part = f"means of all {layouts[path].layers} layers"
        sizes.setdefault(part, []).append(store.file_size(splits, layouts[path].layer_shapes))
    _check_room(next(iter(layouts)).parent, sizes, smaller, say=shard is None)  # else it was said
    for path, layout in layouts.items():
        # The cache last: a process that is killed here leaves none without what is beside it.
        try:
            if path in new:
                first(path)
            if path in means:
                store.lay_out_layers(path, specs[path].cache_key(), splits, layout)
            if path in new:
                store.lay_out(path, specs[path], splits, layout, padding_side, shard)
        except BaseException:  # Ctrl-C too
            if path in new:
                files.clear_away(path)  # it is there if only its folder could not be synced
                store.clear(path)
            raise


def _check_laid_out(path: Path, splits: Mapping[str, SplitIndex], layout: Layout) -> None:
    """Raise SpaceliteError if an unfinished file was laid out for different tokens or another
    width, and delete the file of its layer means if it is damaged."""
    with Cache(path) as cache:
        remove = f"remove it (spacelite cache remove {path.stem}) and embed again"
        for name, index in splits.items():
            stored = cache.splits[name]
            if index.crc32 != stored.index_crc32 or not stored.index_is_intact():
                raise SpaceliteError(
                    f"{path} holds other tokens for {name} than the data have now (it is damaged "
                    f"or begun with another version of transformers): {remove}"
                )
            if stored.width != layout.kept_width:
                raise SpaceliteError(
                    f"{path} holds hidden states of width {stored.width} for {name}, not "
                    f"{layout.kept_width}: {remove}"
                )
        try:
            _ = cache.layers if layout.layers else None
        except DamagedLayersError:
            layers = side_file(path, "layers")
            log.warning("%s is damaged: it is rewritten", layers)
            files.clear_away(layers)


def _check_room(
    folder: Path,
    parts: Mapping[str, Sequence[int]],
    smaller: str,
    *,
    say: bool = True,
    refuse: bool = True,
) -> None:
    """Say how large what is laid out is: for each part its bytes in every cache that lacks it.
    Raises SpaceliteError if the disk is too small."""
    size, free = sum(map(sum, parts.values())), shutil.disk_usage(folder).free
    if not size:
        return
    listed = ", ".join(
        f"{part}{f' in {len(sizes)} caches' if len(sizes) > 1 else ''}: "
        f"{files.human_bytes(sum(sizes))}"
        for part, sizes in parts.items()
    )
    log.log(logging.INFO if say else logging.DEBUG, "%s, %s free", listed, files.human_bytes(free))
    if refuse and size > free:
        raise SpaceliteError(
            f"the cache needs {files.human_bytes(size)} and {folder} has "
            f"{files.human_bytes(free)} free: free some space, choose another cache_dir, {smaller}",
            ["cache_dir", "limit", "layers"],
        )


def _keep_half_precision_error(
    paths: Sequence[Path], model: Backbone, backbone_files: BackboneFiles, tokens: Tokenized
) -> None:
    """What a forward pass in half precision costs: measure the relative error of the hidden states
    against those of float32 over ERROR_TEXTS texts from all lengths (the norm of the differences
    divided by the norm of float32's), log it and keep it beside the caches, which `model` reads the
    layers of, in this order; of several files, beside their folder, by the first."""
    paths = [store.cache_of(path) for path in paths]
    if all(side_file(path, "precision").exists() for path in paths):
        return
    weights = 4 * sum(weight.numel() for weight in model.model.parameters())
    if weights > MOST_FLOAT32:
        log.info(
            "%s: its error is not measured, since weights in float32 would take %s",
            model.precision, files.human_bytes(weights),
        )  # fmt: skip
        return
    order = np.argsort([len(ids) for ids in tokens.ids], kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, ERROR_TEXTS).astype(np.int64))]

    def finish(batch: Array, output: Output) -> list[Array]:
        return [states.reshape(-1).astype(np.float64) for states in output.states]

    precise = Backbone(
        backbone_files,
        layer=model.layer,
        others=model.others,
        device=model.device,
        precision="float32",
    )
    half, exact = (
        [
            np.concatenate(layer)
            for layer in zip(*forward.batches(chosen[:, None], finish), strict=True)
        ]
        for forward in (
            Forward(run, tokens, lambda hidden: hidden, default_budget(model.device))
            for run in (model, precise)
        )
    )
    texts = min(ERROR_TEXTS, len(tokens.ids))
    for path, rounded, layer in zip(paths, half, exact, strict=True):
        error = float(np.linalg.norm(rounded - layer) / np.linalg.norm(layer))
        log.info(
            "%s: the hidden states of %d texts differ from float32 by %.2g of their size",
            model.precision, texts, error,
        )  # fmt: skip
        content = {"precision": model.precision, "texts": texts, "relative_error": error}
        store.keep_json(path, "precision", content)


def _compare_half_precision(
    model: Backbone, backbone_files: BackboneFiles, tokens: Tokenized
) -> None:
    """Say how much faster this processor would run a model in half precision, if it is much."""
    precision = "bfloat16"
    if model.device != "cpu" or not (found := instructions(precision)):
        return
    half = Backbone(backbone_files, layer=-1, device="cpu", precision=precision)
    budget = default_budget("cpu")
    plan = list(plan_batches(np.array([len(ids) for ids in tokens.ids], np.int64), budget))
    typical = [plan[len(plan) // 3], plan[2 * len(plan) // 3]]  # long and short texts
    seconds = {}
    for run in (half, model):
        forward = Forward(run, tokens, lambda hidden: hidden, budget)
        for batches in ([typical[0][:1]], typical):  # the first one prepares
            started = time.perf_counter()
            for _ in forward.batches(batches, lambda batch, output: None):
                pass
            seconds[run.precision] = time.perf_counter() - started
    ratio = seconds["float32"] / seconds[precision]
    if ratio > FASTER:
        log.info(
            "%s",
            SpaceliteError(
                f"this processor (its {found}) runs {model.name} {ratio:.1f} times as fast with "
                f"precision={precision}; embed then says how far hidden states move",
                ["precision"],
            ),
        )


def read_layers(layer: int | Sequence[int]) -> tuple[int, ...]:
    """One layer or several. Raises SpaceliteError if there is none, or one of them twice."""
    layers = (layer,) if isinstance(layer, int) else tuple(layer)
    if not layers or len(set(layers)) < len(layers):
        listed = ",".join(map(str, layers)) or "[]"
        raise SpaceliteError(
            f"layer={listed}: give one layer, or several different ones", ["layer"]
        )
    return layers


@contextmanager
def unfinished(
    specs: Mapping[Path, CacheSpec], layers: bool | None, part: _Part | None = None
) -> Iterator[list[Path]]:
    """Those of some cache files that lack something, or their layer means if they are wanted, which
    are locked meanwhile. Raises SpaceliteError if the spec of one differs; a shard that is damaged,
    or another one, is removed."""
    # Looked for before anything is written: the folder may be read-only.
    left = [path for path in specs if not is_finished(path, specs[path], layers, part)]
    with ExitStack() as stack:
        for path in sorted(left):  # in an order on which all processes agree
            files.make_folder(path.parent, "choose another cache_dir")
            stack.enter_context(files.lock(path, wait=part is None or part.wait))
        # Another process may have written some while this one waited.
        left = [path for path in left if not is_finished(path, specs[path], layers, part)]
        if part is not None:
            for path in filter(Path.exists, left):
                part.remove_others(path)
        yield left


def keep_maker(paths: Iterable[Path], command: str) -> None:
    """Record the command that finished caches are for; the first then counts as the newest."""
    for path in paths:
        store.keep_maker(path, command)
    with suppress(OSError):  # the folder may be read-only
        os.utime(store.written(next(iter(paths))))


def is_finished(
    path: Path, spec: CacheSpec, layers: bool | None, part: _Part | None = None
) -> bool:
    """Whether a cache file exists and is complete, with its layer means if they are wanted. Raises
    SpaceliteError if its spec differs, unless it is a shard."""
    if not path.exists():
        return False
    try:
        cache = Cache(path)
    except DamagedCacheError:
        if part is None:
            raise
        return False
    with cache:
        if part is not None and not part.is_that_of(cache):
            return False
        if cache.spec != spec:
            differences = ", ".join(cache.spec.differences(spec))
            raise SpaceliteError(
                f"{path} was created with other settings: {differences}; remove it (spacelite "
                f"cache remove {path.stem}) or choose another cache_dir",
                ["cache_dir"],
            )
        if not cache.complete or not keeps_layers(path, layers):
            return cache.complete
        try:
            return cache.layers is not None and cache.layers.complete
        except DamagedLayersError:
            return False


def keeps_layers(path: Path, layers: bool | None) -> bool:
    """Whether layer means are to be completed: by default, for a new cache and for one that has a
    file of them."""
    if layers is None:
        return not path.exists() or side_file(path, "layers").exists()
    return layers


def _count_unknown(path: Path, backbone_files: BackboneFiles) -> None:
    """Count the unknown tokens of a cache file that has no counts."""
    if not cached_texts.read_unknown(path).splits:
        special = special_ids(held_tokenizer(backbone_files))
        with Cache(path) as cache:
            splits = {name: split.read_index() for name, split in cache.splits.items()}
        cached_texts.write_unknown(path, cached_texts.count_unknown(splits, special))


def _log_differences(path: Path, spec: CacheSpec, asked: Collection[Path]) -> None:
    """Say why other caches of the same backbone and data set, which were not asked for, are not
    used."""
    if path.exists():
        return
    family = path.stem.rpartition("--")[0]
    for other in sorted({*path.parent.glob(f"{family}--*.h5")} - {*asked}):
        try:
            with Cache(other) as cache:
                differences = ", ".join(cache.spec.differences(spec))
        except SpaceliteError:
            continue  # `cache list` shows damaged files
        log.info("%s has other settings (%s): embedding into a new cache", other.stem, differences)
