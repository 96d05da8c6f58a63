"""The spec of a cache: what its numbers depend on, its key, and the file it names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FOLDER = "embeddings"  # where the cache files lie, below the cache folder


@dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """Everything that the numbers of a cache depend on. The cache's key is its hash.

    A field that is added later must have a default, and enters the JSON only where it differs from
    it, so that present caches keep their keys: `as_json` is the place.

    Attributes:
        format: Of the cache file.
        dataset: The data set's name; `dataset_hash`: SHA-256 of its texts and labels.
        label_names: The C names, by label number.
        backbone: Its name; `backbone_version`: hub commit, or hash of configuration and weights.
        tokenizer_hash: SHA-256 of the tokenizer's files.
        max_length: Tokens per text at most.
        layer: Which hidden states, -1 the last layer's.
        padding: `none`, or `max_length` where padded positions are cached and counted.
        dtype: The stored number type.
        precision: Of the forward pass.
    """

    format: int
    dataset: str
    dataset_hash: str
    label_names: tuple[str, ...]
    backbone: str
    backbone_version: str
    tokenizer_hash: str
    max_length: int
    layer: int
    padding: str
    dtype: str
    precision: str

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CacheSpec:
        """Read a spec. Raises KeyError or TypeError for what is none."""
        known = {each.name: content[each.name] for each in fields(cls)}
        return cls(**{**known, "label_names": tuple(content["label_names"])})

    def as_json(self) -> dict[str, Any]:
        """The spec as a JSON object."""
        return {**asdict(self), "label_names": list(self.label_names)}

    def canonical(self) -> str:
        """The spec as canonical JSON: sorted keys, no spaces."""
        return canonical(self.as_json())

    def cache_key(self) -> str:
        """SHA-256 of the canonical spec, hexadecimal."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def path(self, cache_dir: Path) -> Path:
        """`<cache-dir>/embeddings/<backbone>--<dataset>--<first 10 of key>.h5`."""
        name = f"{slug(self.backbone)}--{slug(self.dataset)}--{self.cache_key()[:10]}.h5"
        return embeddings_folder(cache_dir) / name

    def differences(self, other: CacheSpec) -> list[str]:
        """The fields in which this spec differs from another one, each with both values."""
        return [
            f"{each.name} ({_short(getattr(self, each.name))} there, "
            f"{_short(getattr(other, each.name))} asked)"
            for each in sorted(fields(self), key=lambda each: each.name)
            if getattr(self, each.name) != getattr(other, each.name)
        ]


def canonical(content: Mapping[str, Any]) -> str:
    """Canonical JSON: sorted keys, no spaces. What is hashed into keys and ids."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def embeddings_folder(cache_dir: Path) -> Path:
    """Where the cache files of `cache_dir` lie."""
    return cache_dir / FOLDER


def slug(name: str) -> str:
    """A name as part of a file name: letters, digits, dots and single dashes."""
    return re.sub(r"[^\w.]+", "-", name, flags=re.ASCII).strip("-.") or "unnamed"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:16] + "…"
