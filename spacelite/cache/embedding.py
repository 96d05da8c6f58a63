"""Data set and backbone -> cache: find or create it, as one file or several, which any number of
processes share."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from spacelite import files, npz, ranks
from spacelite.backbones.files import locate
from spacelite.backbones.model import resolve_device
from spacelite.backbones.tokenizer import UNLIMITED, held_tokenizer
from spacelite.cache import store
from spacelite.cache.dtypes import Rounded, Rounding, stored_type
from spacelite.cache.filling import (
    SMALLER,
    Call,
    Lengths,
    Part,
    Written,
    check_room,
    complete,
    complete_beside,
    fitted,
    is_finished,
    sampled,
    say_repeated,
    tokenize,
)
from spacelite.cache.reduction import Reduction
from spacelite.cache.shards import MANIFEST, Manifest, Shard, divide
from spacelite.cache.spec import CacheSpec, Encoding, embeddings_folder
from spacelite.cache.store import side_file
from spacelite.cache.writing import Examples
from spacelite.data.splits import TextDataset, joined
from spacelite.errors import SpaceliteError, one_line
from spacelite.pipeline import Clock
from spacelite.progress import OnProgress
from spacelite.types import Array

log = logging.getLogger(__name__)

SHARD_SIZE = 4 * 10**9  # bytes of a file, from which a cache has several
METADATA = 2**18  # bytes of a file, at most, beside what its examples take
BETWEEN_COUNTS = 0.5  # seconds between two reports of a process to the others
TEXTS_AT_ONCE = 100_000  # that are tokenized to find out how long they are
AXES = "reduction.npz"  # in the folder of a cache of several files


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
    with clock.measure("loading the backbone"):  # it may import torch
        resolve_device(encoding.device)
    spec = encoding.spec(
        backbone_files, data.name, data.fingerprint, data.label_names, data.task_name,
        pairs=data.are_pairs,
    )  # fmt: skip
    if spec.max_length != encoding.max_length:
        log.info("%s takes at most %d tokens: max_length is that", spec.backbone, spec.max_length)
    of_layers = [spec, *(replace(spec, layer=number) for number in further_layers)]
    specs = {spec.path(cache_dir): spec for spec in of_layers}
    call = Call(encoding, backbone_files, specs, layers, reuse, command, on_progress, clock)
    if ranks.size() > 1:
        _require_one_view(cache_dir, specs, shard)
    manifests = _divided(call, data, shard_size, shard) if ranks.rank() == 0 else {}
    divided, _ = ranks.broadcast([path.name for path in manifests])
    if ranks.rank() > 0:
        manifests = {path: Manifest.read(path) for path in specs if path.name in divided}
    _advise_ranks(manifests)
    written, tokens = dict[Path, Written](), 0
    single = {path: spec for path, spec in specs.items() if path not in manifests}
    if single and ranks.rank() == 0:
        written, tokens = complete(call, single, data)
        for path, of_path in single.items():
            if path not in written:
                complete_beside(call, path, of_path, data)
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


# Several files.


def _divided(
    call: Call, data: TextDataset, size: int | None, shard: tuple[int, int] | None
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
    with call.clock.measure("loading the backbone"):
        held_tokenizer(call.backbone_files)  # whose errors come before the model is loaded
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
        log.warning(SpaceliteError(problem, ["shard_size"]))


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


def _at_most(call: Call, data: TextDataset) -> int:
    """The bytes that hidden states may take, as the texts' bytes tell: a token has at least one."""
    spec = next(iter(call.specs.values()))
    special = (4 if spec.pairs else 2) + len(spec.prefix.encode())
    longest = spec.max_length if spec.stride is None else UNLIMITED
    tokens = sum(
        longest
        if spec.padding == "max_length"
        else min(longest, len(joined(text, "").encode()) + special)
        for split in data.splits.values()
        for text in split.texts
    )
    return tokens * stored_type(spec.dtype).row_bytes(call.model.width)


def _divide(
    call: Call,
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
    check_room(paths[0].parent, {part: [total + means] * len(paths)}, SMALLER, refuse=refuse)
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


def _lengths(call: Call, data: TextDataset) -> Array:
    """The tokens that are kept of each text, (N,) int64. Raises SpaceliteError if a text has
    none."""
    spec, lengths, done = next(iter(call.specs.values())), list[Array](), 0
    total, counted = sum(map(len, data.splits.values())), Lengths()
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
    call: Call,
    manifests: Mapping[Path, Manifest],
    data: TextDataset,
    only: tuple[int, int] | None,
) -> tuple[dict[Path, Written], int]:
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
    parts, left = dict[int, Part](), list[Shard]()
    for shard in chosen:
        parts[shard.number] = part = Part(
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
                complete_beside(call, file, spec, _part_of(data, shard))
    written, tokens = dict[Path, Written](), 0
    for wait in (False, True):
        busy = []
        for shard in left:
            part = replace(parts[shard.number], wait=wait or only is not None, is_first=not written)
            try:
                of_shard, run = complete(call, part.specs, _part_of(data, shard), part)
            except files.LockedError:
                busy.append(shard)
                continue
            tokens += run
            progress.end_shard(shard.tokens, of_shard)
            for file, new in of_shard.items():
                before = written.get(file.parent, Written(0, new.rounding))
                written[file.parent] = Written(
                    before.copied + new.copied, new.rounding, before.repeated + new.repeated
                )
        # Those that no process of the job writes, others do.
        with progress.shown():
            ranks.barrier()
        left = busy if ranks.rank() == 0 else []
    repeated = max((of.repeated for of in written.values()), default=0)
    say_repeated(repeated, sum(manifest.splits.values()), " of their shard")
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

    def __init__(self, call: Call, name: str, total: int) -> None:
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


def _of_all_ranks(call: Call, written: dict[Path, Written], tokens: int) -> int:
    """Wait for all processes of the job: the tokens that they have run; what each has `written` is
    replaced by what all have."""
    import torch

    none = {path: Written(0, Rounding(stored_type(of.dtype))) for path, of in call.specs.items()}
    known = none | written
    counts = torch.tensor([[tokens, 0], *([path in written, known[path].copied] for path in none)])
    ranks.add_up([counts])
    (tokens, _), *of_paths = counts.tolist()
    for path, (writers, copied) in zip(none, of_paths, strict=True):
        if writers:
            written[path] = replace(known[path], copied=copied)
    return int(tokens)


def _advise_ranks(manifests: Mapping[Path, Manifest]) -> None:
    """Say so if there are fewer shards than processes."""
    shards = min((len(of.shards) for of in manifests.values()), default=1)
    if shards < ranks.size():
        problem = (
            f"{shards} shard{'s' * (shards > 1)} for {ranks.size()} processes, each of which "
            "writes one at a time: for a new cache, give a smaller shard_size"
        )
        log.warning(SpaceliteError(problem, ["shard_size"]))


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


def _layers_of(call: Call, manifests: Mapping[Path, Manifest], shard: Shard) -> bool | None:
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


def _reductions_of_shards(
    call: Call, paths: Sequence[Path], data: TextDataset, lengths: Array
) -> dict[Path, Reduction]:
    """As `_reductions`, of new caches of several files, given the tokens of each text."""

    def sample() -> tuple[Examples, Array]:
        first = sum(len(data.splits[name]) for name in takewhile("train".__ne__, data.splits))
        of_train = lengths[first : first + len(data.splits["train"])]
        texts = data.splits["train"].take(sampled(call, paths, of_train))
        examples = tokenize(
            call.backbone_files, replace(data, splits={"train": texts}),
            call.specs[paths[0]], lambda *of: None, counted=Lengths(),
        )  # fmt: skip
        return examples, np.arange(len(texts))

    return fitted(call, paths, sample)


def read_layers(layer: int | Sequence[int]) -> tuple[int, ...]:
    """One layer or several. Raises SpaceliteError if there is none, or one of them twice."""
    layers = (layer,) if isinstance(layer, int) else tuple(layer)
    if not layers or len(set(layers)) < len(layers):
        listed = ",".join(map(str, layers)) or "[]"
        raise SpaceliteError(
            f"layer={listed}: give one layer, or several different ones", ["layer"]
        )
    return layers


def keep_maker(paths: Iterable[Path], command: str) -> None:
    """Record the command that finished caches are for; the first then counts as the newest."""
    for path in paths:
        store.keep_maker(path, command)
    with suppress(OSError):  # the folder may be read-only
        os.utime(store.written(next(iter(paths))))
