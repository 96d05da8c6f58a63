"""Backbones and tokenizers that a process loads once, whoever needs them."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from spacelite.backbones.files import BackboneFiles, locate
from spacelite.backbones.model import Backbone
from spacelite.backbones.tokenizer import load_tokenizer

MOST = 2  # backbones that are held; each takes the memory of its weights


def located(name: str, revision: str | None = None) -> BackboneFiles:
    """As `locate`, which hashes the weights: done once, and again if files of a local folder have
    changed."""
    return _located(name, revision, _state(name))


def loaded(files: BackboneFiles, *, layer: int, device: str, all_layers: bool) -> Backbone:
    """The backbone; arguments as for `Backbone`. With `all_layers`, only if these are alike in
    width."""
    model = _loaded(files, device)
    return model.reading(layer=layer, all_layers=all_layers and model.layers > 0)


def tokenizer(files: BackboneFiles) -> Any:
    """The backbone's tokenizer."""
    return _tokenizer(files)


def forget() -> None:
    """Free the backbones and tokenizers that are held."""
    for cached in (_located, _loaded, _tokenizer):
        cached.cache_clear()


def _state(name: str) -> tuple[tuple[str, int, int], ...]:
    """The files of a local folder, each with its size and when it was written."""
    folder = Path(os.path.expanduser(name))  # noqa: PTH111 - Path's own raises for ~nobody
    try:
        found = [(one.name, one.stat()) for one in folder.iterdir()]
    except OSError:
        return ()  # no folder
    return tuple(sorted((name, state.st_size, state.st_mtime_ns) for name, state in found))


@lru_cache(maxsize=8)
def _located(name: str, revision: str | None, state: object) -> BackboneFiles:
    return locate(name, revision)


@lru_cache(maxsize=MOST)
def _loaded(files: BackboneFiles, device: str) -> Backbone:
    return Backbone(files, layer=-1, device=device)


@lru_cache(maxsize=MOST)
def _tokenizer(files: BackboneFiles) -> Any:
    return load_tokenizer(files)
