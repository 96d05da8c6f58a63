"""Lay out the files of a cache: the cache file itself, and the file of its layer means."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from spacelite import backbones, files
from spacelite.cache import layers, reuse, store, unknown
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
    path: Path,
    spec: CacheSpec,
    splits: dict[str, SplitIndex],
    model: backbones.Backbone,
    padding_side: str,
) -> None:
    """Lay out what is missing of the cache file and, if the model keeps all layers, of the file of
    layer means."""
    own_layers = layers.layers_path(path)
    new = not path.exists()
    if new:
        # Left over from a cache that was deleted by hand, or from a process that was killed here.
        for former in (
            store.timing_path(path), store.partial_path(path), unknown.counts_path(path),
            own_layers, layers.partial_path(path), reuse.plan_path(path),
        ):  # fmt: skip
            former.unlink(missing_ok=True)
    elif model.all_layers:
        _remove_damaged_layers(path)
    parts = {}
    if new:
        tokens = sum(len(index.token_ids) for index in splits.values())
        parts[f"{tokens:,} tokens of width {model.width}"] = store.file_size(
            splits, model.width, spec.dtype, model.has_pooler
        )
    if model.all_layers and not own_layers.exists():
        parts[f"means of all {model.layers} layers"] = layers.file_size(
            splits, model.layers, model.width
        )
    if not parts:
        return
    _check_room(path, parts)
    # The layer means first: a process that is killed here leaves no cache without them.
    if model.all_layers and not own_layers.exists():
        layers.lay_out(path, spec.cache_key(), splits, model.layers, model.width)
    if new:
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
            own_layers.unlink(missing_ok=True)
            raise


def _check_room(path: Path, parts: dict[str, int]) -> None:
    """Say how large the parts of what is laid out are. Raises SpaceliteError if the disk is too
    small for them."""
    size, free = sum(parts.values()), shutil.disk_usage(path.parent).free
    listed = ", ".join(f"{part}: {files.human_bytes(own)}" for part, own in parts.items())
    log.info("%s, %s free", listed, files.human_bytes(free))
    if size > free:
        raise SpaceliteError(
            f"the cache needs {files.human_bytes(size)} and {path.parent} has "
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
