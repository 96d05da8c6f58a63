"""Lay out the files of a cache: the cache file itself, and the file of its layer means."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from spacelite import files
from spacelite.backbones.model import Backbone
from spacelite.cache import layers, precision, reuse, store, unknown
from spacelite.cache.spec import CacheSpec
from spacelite.cache.split import SplitIndex
from spacelite.errors import SpaceliteError

log = logging.getLogger(__name__)


def check_index(path: Path, splits: dict[str, SplitIndex]) -> None:
    """Raise SpaceliteError if an unfinished file was laid out for different tokens."""
    with store.Cache(path) as cache:
        for name, index in splits.items():
            stored = cache.splits[name]
            if index.crc32 != stored.index_crc32 or not stored.index_is_intact():
                raise SpaceliteError(
                    f"{path} holds other tokens for {name} than the data have now (it is damaged "
                    "or begun with another version of transformers): remove it (spacelite cache "
                    f"remove {path.stem}) and embed again"
                )


def lay_out(
    specs: Mapping[Path, CacheSpec],
    with_layers: Mapping[Path, bool],
    splits: dict[str, SplitIndex],
    model: Backbone,
    padding_side: str,
) -> None:
    """Lay out what is missing of cache files and of their files of layer means.

    Args:
        specs: The spec of each cache file. They differ in the layer alone.
        with_layers: Which of them have a file of layer means.
        splits: The offsets, labels and token ids of each split.
        model: The backbone.
        padding_side: Side on which the tokenizer pads, `left` or `right`.

    Raises:
        SpaceliteError: The disk is full or too small for all of them, or broken.
    """
    new = [path for path in specs if not path.exists()]
    for path in specs:
        _remove_leftovers(path, path in new, with_layers[path])
    means = [path for path in specs if with_layers[path] and not layers.layers_path(path).exists()]
    tokens = sum(len(index.token_ids) for index in splits.values())
    sizes = {
        f"{tokens:,} tokens of width {model.width}": [
            store.file_size(splits, model.width, specs[path].dtype, model.has_pooler)
            for path in new
        ],
        f"means of all {model.layers} layers": [
            layers.file_size(splits, model.layers, model.width) for _ in means
        ],
    }
    _check_room(next(iter(specs)).parent, sizes)
    for path, spec in specs.items():
        # The layer means first: a process that is killed here leaves no cache without them.
        if path in means:
            layers.lay_out(path, spec.cache_key(), splits, model.layers, model.width)
        if path not in new:
            continue
        try:
            store.lay_out(
                path,
                spec,
                splits,
                width=model.width,
                pooled=model.has_pooler,
                padding_side=padding_side,
            )
        except BaseException:  # Ctrl-C too
            layers.layers_path(path).unlink(missing_ok=True)
            raise


def _remove_leftovers(path: Path, new: bool, with_layers: bool) -> None:
    """Remove what is left over from a cache that was deleted by hand, or from a process that was
    killed while it laid one out; and layer means that are damaged."""
    if new:
        for former in (
            store.timing_path(path), store.partial_path(path), unknown.counts_path(path),
            layers.layers_path(path), layers.partial_path(path), reuse.plan_path(path),
            precision.precision_path(path),
        ):  # fmt: skip
            former.unlink(missing_ok=True)
    elif with_layers:
        _remove_damaged_layers(path)


def _check_room(folder: Path, parts: Mapping[str, Sequence[int]]) -> None:
    """Say how large what is laid out is. Raises SpaceliteError if the disk is too small for it.

    Args:
        folder: The folder of the caches.
        parts: What is laid out -> its bytes, for each cache that lacks it.
    """
    size, free = sum(map(sum, parts.values())), shutil.disk_usage(folder).free
    if not size:
        return
    listed = ", ".join(
        f"{part}{f' in {len(own)} caches' if len(own) > 1 else ''}: {files.human_bytes(sum(own))}"
        for part, own in parts.items()
        if own
    )
    log.info("%s, %s free", listed, files.human_bytes(free))
    if size > free:
        raise SpaceliteError(
            f"the cache needs {files.human_bytes(size)} and {folder} has "
            f"{files.human_bytes(free)} free: free some space, choose another cache_dir, embed "
            "fewer examples with limit=N, or leave the layer means out with layers=False",
            ["cache_dir", "limit", "layers"],
        )


def _remove_damaged_layers(path: Path) -> None:
    """Delete the file of layer means if it is damaged: it is laid out anew."""
    with store.Cache(path) as cache:
        try:
            if cache.layers is not None:
                return
        except layers.DamagedLayersError:
            log.warning("%s is damaged: it is written anew", layers.layers_path(path))
            layers.layers_path(path).unlink()
