"""The spec of a cache: what its numbers depend on, its key, and the file it names."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

Spec = dict[str, Any]

FOLDER = "embeddings"  # where the cache files lie, below the cache folder


def canonical(spec: Spec) -> str:
    """The spec as canonical JSON: sorted keys, no spaces. The cache key is its SHA-256."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def key_of(spec: Spec) -> str:
    """The cache key: SHA-256 of the canonical spec, hexadecimal."""
    return hashlib.sha256(canonical(spec).encode()).hexdigest()


def folder_of(cache_dir: Path) -> Path:
    """Where the cache files of `cache_dir` lie."""
    return cache_dir / FOLDER


def path_of(cache_dir: Path, spec: Spec) -> Path:
    """`<cache-dir>/embeddings/<backbone>--<dataset>--<first 10 of key>.h5`."""
    backbone, dataset = slug(spec["backbone"]), slug(spec["dataset"])
    return folder_of(cache_dir) / f"{backbone}--{dataset}--{key_of(spec)[:10]}.h5"


def slug(name: str) -> str:
    """A name as part of a file name: letters, digits, dots and single dashes."""
    return re.sub(r"[^\w.]+", "-", name, flags=re.ASCII).strip("-.") or "unnamed"


def differing_fields(one: Spec, other: Spec) -> list[str]:
    """The names of the fields in which two specs differ, each with both values."""
    return [
        f"{field} ({_short(one.get(field))} there, {_short(other.get(field))} asked)"
        for field in sorted(one.keys() | other.keys())
        if one.get(field) != other.get(field)
    ]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:16] + "…"
