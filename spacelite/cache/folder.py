"""The caches of a folder: list, find, verify, remove."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spacelite import files
from spacelite.backbones.model import check_layer
from spacelite.cache import journal, layers, precision, reuse, store, texts, unknown
from spacelite.cache.spec import FOLDER, embeddings_folder
from spacelite.cache.split import spans
from spacelite.errors import SpaceliteError

log = logging.getLogger(__name__)

MOST_NAMES = 3  # of caches in a message


@dataclass(frozen=True)
class CacheState:
    """The state of one cache file, as listings of caches show it.

    Attributes:
        name: The cache's name.
        path: Its file.
        bytes: The size of the file and of the files beside it that belong to it.
        modified: When it was last written, in seconds since 1970.
        examples: Number of examples in all splits.
        tokens: Number of tokens in all splits.
        tokens_done: Number of tokens whose hidden states are written.
        complete: Whether all hidden states are written.
        splits: The name and number of examples of each split.
        layer_means: Number of examples whose layer means are written; None without a file of them.
        problem: Why the file cannot be read, in which case the counts are 0; None if it can be.
        layer: The layer of the hidden states; None if the file cannot be read.
    """

    name: str
    path: Path
    bytes: int
    modified: float
    examples: int = 0
    tokens: int = 0
    tokens_done: int = 0
    complete: bool = False
    splits: tuple[tuple[str, int], ...] = ()
    layer_means: int | None = None
    problem: str | None = None
    layer: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The state as a JSON object."""
        content = {**asdict(self), "path": str(self.path), "splits": dict(self.splits)}
        if self.problem is None:
            del content["problem"]
        return content


def states(cache_dir: Path) -> list[CacheState]:
    """The state of every cache file, newest first."""
    return [state(path) for path in cache_files(cache_dir)]


def state(path: Path) -> CacheState:
    """The state of one cache file, readable or not."""
    stat = path.stat()
    size = stat.st_size + sum(one.stat().st_size for one in files_beside(path) if one.exists())
    try:
        with store.Cache(path) as cache:
            return CacheState(
                cache.name,
                path,
                size,
                stat.st_mtime,
                sum(len(split) for split in cache.splits.values()),
                cache.tokens,
                cache.tokens_done,
                cache.complete,
                tuple((name, len(split)) for name, split in cache.splits.items()),
                _layers_done(cache),
                layer=cache.spec.layer,
            )
    except SpaceliteError as error:
        return CacheState(path.stem, path, size, stat.st_mtime, problem=str(error))


def _layers_done(cache: store.Cache) -> int | None:
    try:
        return None if cache.layers is None else cache.layers.examples_done
    except SpaceliteError as error:
        log.warning("%s", error)
        return 0


def files_beside(path: Path) -> list[Path]:
    """The files beside a cache file that belong to it, whether they exist or not."""
    return [
        store.timing_path(path),
        unknown.counts_path(path),
        texts.texts_path(path),
        layers.layers_path(path),
        precision.precision_path(path),
        reuse.plan_path(path),
    ]


def cache_files(cache_dir: Path) -> list[Path]:
    """Every cache file of `cache_dir`, newest first."""
    found = [path for path in embeddings_folder(cache_dir).glob("*.h5") if path.is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)


def find(cache_dir: Path, name: str, *, exact: bool = False) -> Path:
    """Find a cache file.

    Args:
        cache_dir: Folder of caches and runs.
        name: A cache's name, a prefix of it, or the path of an .h5 file.
        exact: Whether the full name is required.

    Returns:
        The file.

    Raises:
        SpaceliteError: No cache matches, or more than one.
    """
    if not name:
        raise SpaceliteError("a cache's name is empty: give its name or its path")
    there = cache_files(cache_dir)
    matches = [path for path in there if name in (path.stem, path.name)]
    if not matches and not exact:
        matches = [path for path in there if path.stem.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    if not matches and name.endswith(".h5") and Path(name).is_file():
        return Path(name)
    if not matches and "/" in name and not Path(name).exists():
        raise SpaceliteError(f"there is no cache file {name}: give a cache's name, or its .h5 file")
    if matches:
        several = few([path.stem for path in matches])
        raise SpaceliteError(f"{name!r} matches several caches of {cache_dir}: {several}")
    if not there:
        raise SpaceliteError(
            f"{cache_dir} has no cache {name!r}; it holds no cache: embed a data set first, or "
            "name the folder that holds the cache with cache_dir",
            ["cache_dir"],
        )
    raise SpaceliteError(
        f"{cache_dir} has no cache {name!r}; it holds {few([path.stem for path in there], name)}; "
        "if the cache is in another folder, name that with cache_dir",
        ["cache_dir"],
    )


def few(names: Sequence[str], like: str | None = None) -> str:
    """A few of many names, for a message: the first ones, or those nearest to `like`."""
    near = difflib.get_close_matches(like, names, MOST_NAMES, 0.3) if like else []
    shown = [*near, *(name for name in names if name not in near)][:MOST_NAMES]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return ", ".join(shown) + more


def newest_complete(cache_dir: Path) -> Path:
    """The complete cache that was written most recently.

    Args:
        cache_dir: Folder of caches and runs.

    Raises:
        SpaceliteError: There is no complete cache.
    """
    unfinished = []
    for path in cache_files(cache_dir):
        try:
            with store.Cache(path) as cache:
                if cache.complete:
                    return path
                unfinished.append(path.stem)
        except SpaceliteError as error:
            log.warning("%s", error)
    if unfinished:
        be = "is" if len(unfinished) == 1 else "are"
        raise SpaceliteError(
            f"{cache_dir} holds no complete cache ({few(unfinished)} {be} unfinished): embed "
            "again to complete it"
        )
    raise SpaceliteError(
        f"{cache_dir} holds no cache: embed a data set first (or choose another cache_dir)",
        ["cache_dir"],
    )


def at_layer(path: Path, layer: int) -> Path:
    """The finished cache that differs from another in the layer alone.

    Args:
        path: The other cache.
        layer: The layer: -1 the last, 0 the embedding layer.

    Raises:
        SpaceliteError: There is none.
    """
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
    layer means, and mark damaged ones as not done.

    Args:
        path: The cache file.
        on_progress: Called with the number of tokens checked and the total.

    Returns:
        The split and index of each damaged example; embedding again recomputes only these.

    Raises:
        SpaceliteError: A file cannot be read, or offsets, labels or token ids are damaged, which
            embedding again cannot repair.
    """
    damaged: list[tuple[str, int]] = []
    damaged_means: list[tuple[str, int]] = []
    with store.Cache(path) as cache:
        checked, total = 0, cache.tokens
        cache.check_index()
        means = {} if cache.layers is None else cache.layers.splits
        for name, split in cache.splits.items():
            for first, last in spans(split.offsets):
                found = split.damaged(first, last)
                damaged += [(name, example) for example in found if split.done[example]]
                if name in means:
                    damaged_means += [(name, one) for one in means[name].damaged(first, last)]
                checked += int(split.offsets[last] - split.offsets[first])
                on_progress(checked, total)
        if damaged:
            with files.lock(path), journal.Writer(path) as writer:
                for name, example in damaged:
                    writer.unmark(name, example)
        if damaged_means and cache.layers is not None:
            with files.lock(path), journal.LayerWriter(cache.layers) as layer_writer:
                for name, example in damaged_means:
                    layer_writer.unmark(name, example)
        order = list(cache.splits)
    every = {*damaged, *damaged_means}
    return sorted(every, key=lambda one: (order.index(one[0]), one[1]))


def remove(path: Path) -> None:
    """Delete a cache file, complete or not, once no other process is writing it.

    Args:
        path: The file.

    Raises:
        SpaceliteError: The file cannot be deleted, or is outside a cache folder and not a cache.
    """
    if path.parent.name != FOLDER:
        store.Cache(path).close()
    try:
        with files.lock(path):
            path.unlink()
            for beside in files_beside(path):
                beside.unlink(missing_ok=True)
    except OSError as error:
        raise SpaceliteError(f"{path} cannot be removed: {error.strerror}") from error
