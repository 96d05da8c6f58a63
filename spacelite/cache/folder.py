"""The caches of a folder: list, find, verify, remove."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from spacelite import files
from spacelite.backbones.model import check_layer
from spacelite.cache import store, texts
from spacelite.cache.shards import MANIFEST, PLAN, Manifest, UnfinishedCacheError
from spacelite.cache.spec import FOLDER, embeddings_folder, slug
from spacelite.cache.split import spans
from spacelite.cache.writing import Writer
from spacelite.errors import SpaceliteError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardStates:
    """How far the shards of a cache are."""

    count: int
    complete: int
    writing: int = 0  # that processes are writing now
    missing: int = 0  # whose file is not there
    problems: dict[str, str] = field(default_factory=dict)  # why a file cannot be read, by its name
    # Of one process, as the complete shards were written; None if that is not known.
    tokens_per_second: float | None = None

    def seconds_left(self, tokens: int) -> float | None:
        """How long those who write now take for so many tokens; None if that is not known."""
        rate = self.writing * (self.tokens_per_second or 0)
        return tokens / rate if rate else None


@dataclass(frozen=True)
class CacheState:
    """The state of one cache file, as listings of caches show it."""

    name: str
    path: Path
    bytes: int  # of the file and of the files beside it that belong to it
    modified: float  # in seconds since 1970
    examples: int = 0  # in all splits, as `tokens`
    tokens: int = 0
    tokens_done: int = 0  # whose hidden states are written
    complete: bool = False  # whether all hidden states are written
    splits: tuple[tuple[str, int], ...] = ()  # name and number of examples of each
    layer_means: int | None = None  # examples that have theirs; None without a file of them
    problem: str | None = None  # why the file cannot be read, in which case the counts are 0
    layer: int | None = None  # of the hidden states; None if the file cannot be read
    dtype: str | None = None  # in which they are stored; None if the file cannot be read
    reduced: int | None = None  # to how many dimensions; None if they are whole
    shards: ShardStates | None = None  # None of a single file

    def as_json(self) -> dict[str, Any]:
        """The state as a JSON object."""
        content = {**asdict(self), "path": str(self.path), "splits": dict(self.splits)}
        for name in ("problem", "shards"):
            if content[name] is None:
                del content[name]
        return content


def states(cache_dir: Path) -> list[CacheState]:
    """The state of every cache file, newest first."""
    return [state(path) for path in cache_files(cache_dir)]


def state(path: Path) -> CacheState:
    """The state of one cache file, readable or not. Raises SpaceliteError if it is not there."""
    try:
        modified = store.written(path).stat().st_mtime
        own = [*path.iterdir()] if path.is_dir() else [path]
    except FileNotFoundError as error:
        raise SpaceliteError(
            f"{path} is not there any more: another process has removed it; embed again"
        ) from error
    size = sum(map(_size, (*own, *store.side_files(path))))
    try:
        if store.is_divided(path):
            return _state_of_shards(path, size, modified)
        with store.Cache(path) as cache:
            return _state_of(cache, size, modified)
    except SpaceliteError as error:
        return CacheState(path.stem, path, size, modified, problem=str(error))


def _size(path: Path) -> int:
    """The size of a file, 0 if there is none: processes that write make and delete some."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _state_of(
    cache: store.Cache, size: int, modified: float, shards: ShardStates | None = None
) -> CacheState:
    return CacheState(
        cache.name,
        cache.path,
        size,
        modified,
        sum(len(split) for split in cache.splits.values()),
        cache.tokens,
        cache.tokens_done,
        cache.complete,
        tuple((name, len(split)) for name, split in cache.splits.items()),
        _layers_done(cache),
        layer=cache.spec.layer,
        dtype=cache.spec.dtype,
        reduced=None if cache.reduction is None else cache.reduction.dimensions,
        shards=shards,
    )


def _state_of_shards(path: Path, size: int, modified: float) -> CacheState:
    """The state of a cache of several files: of one that is not complete, from what each file
    says."""
    manifest, problem = Manifest.read(path), None
    if manifest.is_finished:
        try:
            with store.Cache(path) as cache:
                if cache.complete:
                    count = len(manifest.shards)
                    return _state_of(cache, size, modified, ShardStates(count, count))
        except SpaceliteError as error:
            problem = str(error)
    there = {
        shard.name: state(path / shard.name)
        for shard in manifest.shards
        if (path / shard.name).exists()
    }
    readable = {name: of for name, of in there.items() if of.problem is None}
    complete = [of for of in readable.values() if of.complete]
    seconds = store.embedding_seconds([of.path for of in complete])
    means = [of.layer_means for of in readable.values() if of.layer_means is not None]
    spec = manifest.spec
    shards = ShardStates(
        len(manifest.shards),
        len(complete),
        sum(files.is_locked(path / shard.name) for shard in manifest.shards),
        len(manifest.shards) - len(there),
        {name: of.problem for name, of in there.items() if of.problem is not None},
        sum(of.tokens for of in complete) / seconds if seconds else None,
    )
    return CacheState(
        path.stem,
        path,
        size,
        modified,
        sum(manifest.splits.values()),
        manifest.tokens,
        sum(of.tokens_done for of in readable.values()),
        False,
        tuple(manifest.splits.items()),
        sum(means) if means else None,
        problem,
        spec.layer,
        spec.dtype,
        next((of.reduced for of in readable.values()), None),
        shards,
    )


def _layers_done(cache: store.Cache) -> int | None:
    try:
        return None if cache.layers is None else cache.layers.examples_done
    except SpaceliteError as error:
        log.warning("%s", error)
        return 0


def cache_files(cache_dir: Path) -> list[Path]:
    """Every cache file of `cache_dir`, newest first."""
    paths = [path for path in embeddings_folder(cache_dir).glob("*.h5") if store.is_cache(path)]
    return sorted(paths, key=lambda path: store.written(path).stat().st_mtime, reverse=True)


def find(cache_dir: Path, name: str, *, exact: bool = False) -> Path:
    """The cache file of this name or at this path; unless it is to be `exact`, also that of the
    data set of this name, or of a name with this part. Raises SpaceliteError if none matches, or
    more than one."""
    if not name:
        raise SpaceliteError("a cache's name is empty: give its name or its path")
    paths = cache_files(cache_dir)
    matches = [path for path in paths if name in (path.stem, path.name)]
    if not matches and not exact:
        named = [path for path in paths if f"--{slug(name)}--" in path.stem]
        matches = named or [path for path in paths if name in path.stem]
    if len(matches) == 1:
        return matches[0]
    if not matches and name.endswith(".h5") and store.is_cache(Path(name)):
        return Path(name)
    if not matches and "/" in name and not Path(name).exists():
        raise SpaceliteError(f"there is no cache file {name}: give a cache's name, or its .h5 file")
    if matches:
        raise several(cache_dir, name, [path.stem for path in matches])
    if not paths:
        raise SpaceliteError(
            f"{files.absolute(cache_dir)} has no cache {name!r}; it holds no cache: embed a data "
            "set first, or name the folder that holds the cache with cache_dir",
            ["cache_dir"],
        )
    raise SpaceliteError(
        f"{cache_dir} has no cache {name!r}; it holds "
        f"{store.few([path.stem for path in paths], name)}; "
        "if the cache is in another folder, name that with cache_dir",
        ["cache_dir"],
    )


def several(cache_dir: Path, name: str, fitting: Sequence[str]) -> SpaceliteError:
    """The error about a part of the names of several caches."""
    return SpaceliteError(
        f"{len(fitting)} caches of {cache_dir} have {name!r} in their name "
        f"({store.few(fitting)}): give a longer part of it"
    )


def newest_complete(cache_dir: Path) -> Path:
    """The complete cache that was written most recently. Raises SpaceliteError if there is none."""
    unfinished = []
    for path in cache_files(cache_dir):
        try:
            with store.Cache(path) as cache:
                if cache.complete:
                    return path
                unfinished.append(path.stem)
        except UnfinishedCacheError:
            unfinished.append(path.stem)
        except SpaceliteError as error:
            log.warning("%s", error)
    if unfinished:
        be = "is" if len(unfinished) == 1 else "are"
        raise SpaceliteError(
            f"{cache_dir} holds no complete cache ({store.few(unfinished)} {be} unfinished): embed "
            "again to complete it"
        )
    raise SpaceliteError(
        f"{files.absolute(cache_dir)} holds no cache: embed a data set first (or choose another "
        "cache_dir)",
        ["cache_dir"],
    )


def at_layer(path: Path, layer: int) -> Path:
    """The finished cache that differs from another in the layer alone. Raises SpaceliteError if
    there is none."""
    with store.Cache(path) as cache:
        spec, layers = cache.spec, 0 if cache.layers is None else cache.layers.layers
    if layers:
        check_layer(layer, layers, spec.backbone)
    # 6 and -1 are the same layer of a backbone with 7.
    for same in dict.fromkeys((layer, layer - layers, layer + layers)):
        other = path.with_name(replace(spec, layer=same).path(path.parent).name)
        if other == path or (other.exists() and state(other).complete):
            return other
    raise SpaceliteError(
        f"there is no finished cache like {path.stem} with layer={layer} (it has layer "
        f"{spec.layer}): run its embed command with layer={layer}",
        ["layer"],
    )


def verify(
    path: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> list[tuple[str, int]]:
    """Recompute the checksum of every example that is done, in the cache and in the file of its
    layer means, and mark damaged ones as not done: embedding again recomputes only these. Files of
    older versions are sealed. A damaged file of texts is named in the log.

    Returns the split and index of each. Raises SpaceliteError if a file cannot be read, or offsets,
    labels or token ids are damaged, which embedding again cannot repair. `on_progress` is called
    with the number of tokens checked and the total.
    """
    if path.is_dir():
        return _verify_shards(path, on_progress)
    damaged: list[tuple[str, int, str]] = []
    with store.Cache(path) as cache:
        checked, total = 0, cache.tokens
        cache.check_index()
        cache.keep_seals()
        texts.check(cache)
        with_layers = cache.layers is not None
        for split, datasets in cache.datasets(layers=with_layers).items():
            offsets = cache.splits[split].offsets
            for first, last in spans(offsets):
                damaged += [
                    (split, example, name)
                    for name, dataset in datasets.items()
                    for example in dataset.damaged(first, last)
                    if dataset.done[example]
                ]
                checked += int(offsets[last] - offsets[first])
                on_progress(checked, total)
        order = list(cache.splits)
    if damaged:
        with files.lock(path), Writer(path, layers=with_layers) as writer:
            for split, example, name in damaged:
                writer.unmark(split, example, name)
    examples = {(split, example) for split, example, _ in damaged}
    return sorted(examples, key=lambda pair: (order.index(pair[0]), pair[1]))


def _verify_shards(path: Path, on_progress: Callable[[int, int], None]) -> list[tuple[str, int]]:
    """`verify` each file of a cache. Those that are missing or cannot be read are named in one
    error, after the others were verified."""
    manifest = Manifest.read(path)
    damaged: list[tuple[str, int]] = []
    unreadable: list[str] = []
    done = 0
    for shard in manifest.shards:

        def progress(part: int, of: int, before: int = done) -> None:
            on_progress(before + part, manifest.tokens)

        try:
            of_shard = verify(path / shard.name, progress)
        except SpaceliteError as error:
            if manifest.is_finished or (path / shard.name).exists():
                log.warning("%s", error)
                unreadable.append(shard.name)
            continue
        damaged += [(split, shard.examples[split][0] + example) for split, example in of_shard]
        done += shard.tokens
        on_progress(done, manifest.tokens)
    if unreadable:
        them = "this shard" if len(unreadable) == 1 else "these shards"
        raise SpaceliteError(
            f"cache {path.stem}: {store.few(unreadable)} cannot be read: run its embed command "
            f"again to compute {them}"
        )
    if manifest.is_finished:
        store.Cache(path).close()  # a file may be another one's
    order = [*manifest.splits]
    return sorted(damaged, key=lambda pair: (order.index(pair[0]), pair[1]))


def remove(path: Path) -> None:
    """Delete a cache, complete or not. Raises SpaceliteError if that fails, if another process is
    writing it, or if the file is outside a cache folder and not a cache."""
    if path.parent.name != FOLDER and not path.is_dir():
        store.Cache(path).close()
    try:
        with ExitStack() as stack:
            stack.enter_context(files.lock(path, wait=False))
            if path.is_dir():
                for shard in path.glob("shard-*.h5"):
                    stack.enter_context(files.lock(shard, wait=False))
                # Without its plan, it is no cache, if the process is killed here.
                for name in (MANIFEST, PLAN):
                    (path / name).unlink(missing_ok=True)
            files.delete(path)
            for beside in store.side_files(path):
                beside.unlink(missing_ok=True)
    except OSError as error:
        raise SpaceliteError(f"{path} cannot be removed: {error.strerror}") from error
