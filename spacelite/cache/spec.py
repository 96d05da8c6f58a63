"""How texts are embedded, and the spec of a cache: everything its contents depend on, its key, and
its file name."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from spacelite import files
from spacelite.backbones.files import RANDOM, BackboneFiles, located
from spacelite.backbones.model import (
    PRECISIONS,
    forward_precision,
    precision_here,
    resolve_device,
)
from spacelite.backbones.tokenizer import UNLIMITED, longest_input
from spacelite.cache.dtypes import stored_type
from spacelite.cache.reduction import AUTO, Reduction
from spacelite.errors import SpaceliteError
from spacelite.settings import one_of, optional, require, whole_number

FORMAT = 1  # of cache files
PADDINGS = ("none", "max_length")
LONGEST_NAME = 220  # of a cache file: 255 less what names of files beside it add
FOLDER = "embeddings"  # the folder of cache files, inside cache_dir
SHARED = ("layer", "padding", "dtype", "prefix", "skip_first")  # in a spec as they are asked for
IMPORTED = "imported:"  # in place of a backbone's version, before the hash of the hidden states


@dataclass(frozen=True, kw_only=True)
class CacheSpec:
    """Everything that the contents of a cache depend on. Its hash is the cache's key.

    A field that is added later needs a default that never changes. Fields with their default value
    are left out of the JSON, and so of the key: existing caches keep their keys.
    """

    format: int  # of the cache file
    dataset: str  # its name
    dataset_hash: str  # SHA-256 of its texts and labels
    label_names: tuple[str, ...]  # of labels 0..C-1
    backbone: str  # its name
    # Its hub commit, or the hash of its configuration and weights, or that of what was imported.
    backbone_version: str
    tokenizer_hash: str  # SHA-256 of the tokenizer's files; empty for what was imported
    max_length: int  # tokens per text
    layer: int  # of the hidden states: -1 the last, 0 the embedding layer
    padding: str  # one of PADDINGS; with `max_length`, padded positions are cached as tokens
    dtype: str  # in which hidden states are stored, one of DTYPES
    precision: str  # number type of the forward pass
    task: str | None = None  # in TASKS; None for classification
    prefix: str = ""  # that each text was read with, such as `query: `
    # Tokens between the beginnings of the windows of `max_length` tokens in which longer texts were
    # run; None if they were cut off.
    stride: int | None = None
    skip_first: bool = False  # whether the first token of each text was run, but is not kept
    # To how many principal axes of its train tokens hidden states are reduced, or AUTO, or, as a
    # hash, which reduction of another cache; None if they are kept whole.
    reduce: str | None = None
    pairs: bool = False  # whether each example is a pair of texts

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> CacheSpec:
        """Read a spec. Raises KeyError or TypeError if the JSON object is none, and SpaceliteError
        if it has fields of a later version."""
        if unknown := content.keys() - {field.name for field in fields(cls)}:
            raise SpaceliteError(
                f"the cache has settings that this spacelite does not know "
                f"({', '.join(sorted(unknown))}): upgrade spacelite"
            )
        return cls(**{**content, "label_names": tuple(content["label_names"])})

    @property
    def cut_at(self) -> int:
        """The number of tokens that are kept of texts that were cut off, more than any has if none
        were, or if that is not known."""
        whole = self.is_imported or self.stride is not None
        return UNLIMITED if whole else self.max_length - self.skip_first

    @property
    def tokenizing(self) -> dict[str, Any]:
        """How texts become token ids: arguments of `tokenize`."""
        names = ("max_length", "padding", "prefix", "stride", "skip_first", "pairs")
        return {name: getattr(self, name) for name in names}

    @property
    def is_imported(self) -> bool:
        """Whether another program computed the hidden states, with a model that is not known."""
        return self.backbone_version.startswith(IMPORTED)

    @property
    def revision(self) -> str | None:
        """The commit of the hub that the backbone is of; None if it is not from there."""
        return self.backbone_version.partition("revision:")[2] or None

    @property
    def command(self) -> str:
        """The command that makes the cache, and continues it."""
        return "import" if self.is_imported else "embed"

    def require_model(self) -> None:
        """Raise SpaceliteError if the model that computed the hidden states is not known."""
        if self.is_imported:
            raise SpaceliteError(
                f"the hidden states of {self.backbone} were imported, and the model that computed "
                "them is not known here: texts cannot be embedded with it, nor tokens be spelled"
            )

    def as_json(self) -> dict[str, Any]:
        """The spec as a JSON object."""
        content = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) != field.default
        }
        return {**content, "label_names": list(self.label_names)}

    def canonical(self) -> str:
        """The spec as canonical JSON: sorted keys, no spaces."""
        return files.canonical(self.as_json())

    def cache_key(self) -> str:
        """SHA-256 of the canonical spec, hexadecimal."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

    def path(self, cache_dir: Path) -> Path:
        """The path: `<cache_dir>/embeddings/<backbone>--<dataset>--<10 digits of the key>.h5`."""
        name = f"{slug(self.backbone)}--{slug(self.dataset)}--{self.cache_key()[:10]}.h5"
        if len(name) > LONGEST_NAME:
            raise SpaceliteError(
                f"the cache's name would have {len(name)} characters, and file systems take at "
                f"most {LONGEST_NAME}: give the data set or the backbone a shorter name"
            )
        return embeddings_folder(cache_dir) / name

    def embeds_like(self, other: CacheSpec) -> bool:
        """Whether a text has the same hidden states in both caches: everything but the data set is
        the same, and they are not reduced, each cache on axes of its own."""
        data = ("dataset", "dataset_hash", "label_names", "task")
        alike = self == replace(other, **{name: getattr(self, name) for name in data})
        return alike and self.reduce is None

    def differences(self, other: CacheSpec) -> list[str]:
        """The fields in which this spec differs from `other`: `max_length 12 instead of 256`."""
        return [
            f"{name} {_short(getattr(self, name))} instead of {_short(getattr(other, name))}"
            for name in sorted(field.name for field in fields(self))
            if getattr(self, name) != getattr(other, name)
        ]


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How texts become hidden states: those settings of `spacelite.embed`, which explains them,
    that are not about its data."""

    backbone: str = "minilm"
    revision: str | None = None
    layer: int = -1
    max_length: int = 256
    dtype: str = "float16"
    padding: str = "none"
    prefix: str = ""
    windows: bool = False
    stride: int | None = None
    skip_first: bool = False
    reduce: int | str | Reduction | None = None  # that of another cache, or as `embed` takes it
    precision: str = "auto"
    device: str = "auto"
    tokens_per_batch: int | None = None

    @classmethod
    def like(
        cls, spec: CacheSpec, backbone: str | None = None, known: str | None = None, **settings: Any
    ) -> Encoding:
        """How texts are embedded as those of a cache were. `backbone` is its backbone's folder,
        if that was a local one, and `known` where it was before, to be used if it still is there;
        `settings` are those that do not change hidden states, and `reduce`, which the spec does not
        hold. Raises SpaceliteError if the cache was imported."""
        spec.require_model()
        if backbone is None and known is not None:
            with suppress(SpaceliteError):  # it has moved
                if located(known).version == spec.backbone_version:
                    backbone = known
        precision = spec.precision
        if precision != "float32":  # else torch is not imported
            precision = precision_here(
                precision, resolve_device(settings.get("device", cls.device))
            )
        return cls(
            backbone=backbone or spec.backbone,
            revision=spec.revision if backbone is None else None,
            windows=spec.stride is not None,
            stride=spec.stride,
            max_length=spec.max_length,
            precision=precision,
            **{name: getattr(spec, name) for name in SHARED},
            **settings,
        )

    @property
    def folder(self) -> Path | None:
        """The folder of a local backbone, in full, below `random:` if its weights are; None for
        others."""
        random = RANDOM.fullmatch(self.backbone)
        name = random[2] if random else self.backbone
        if not os.path.isdir(name):  # noqa: PTH112 - Path's own raises for over-long names
            return None
        return Path(f"{self.backbone.removesuffix(name)}{Path(name).absolute()}")

    @property
    def files(self) -> BackboneFiles:
        """The backbone's files. Raises SpaceliteError if they are not found."""
        return located(self.backbone, self.revision)

    def check(self) -> None:
        """Raise SpaceliteError for a setting that is refused before anything is read."""
        stored_type(self.dtype)
        require("padding", self.padding, one_of(*PADDINGS))
        require("precision", self.precision, one_of(*PRECISIONS))
        require("stride", self.stride, optional(whole_number(1)))
        if self.stride is not None and not self.windows:
            raise SpaceliteError(
                f"stride={self.stride} has no effect without windows=True", ["stride", "windows"]
            )
        if self.windows and self.padding != "none":
            raise SpaceliteError(
                f"windows=True: padding={self.padding} would make every text one window: leave one "
                "of them out",
                ["windows", "padding"],
            )
        if self.skip_first and self.padding != "none":
            raise SpaceliteError(
                f"skip_first=True: with padding={self.padding} a text may begin with padding: "
                "leave one of them out",
                ["skip_first", "padding"],
            )
        known = self.reduce is None or self.reduce == AUTO or isinstance(self.reduce, Reduction)
        if not known and whole_number(1)(self.reduce) is not None:
            raise SpaceliteError(
                f"reduce={self.reduce}: give a whole number of at least 1, or {AUTO}", ["reduce"]
            )
        if isinstance(self.reduce, int):
            stored_type(self.dtype).row_values(self.reduce)  # which raises for some of int4
        require("tokens_per_batch", self.tokens_per_batch, optional(whole_number(1)))

    def spec(
        self,
        files: BackboneFiles | None = None,
        dataset: str = "texts",
        dataset_hash: str = "",
        label_names: Sequence[str] = (),
        task: str | None = None,
        *,
        pairs: bool = False,
    ) -> CacheSpec:
        """Everything that hidden states depend on: those of a text, or of a data set; of `pairs` of
        texts. The default max_length is lowered to what the backbone takes. Raises SpaceliteError
        if the device does not work, or for a setting that pairs cannot have."""
        for name in ("windows", "prefix"):
            if pairs and (value := getattr(self, name)):
                raise SpaceliteError(
                    f"{name}={value} is for single texts, and these are pairs: leave it out", [name]
                )
        files = files or self.files
        max_length = self.max_length
        if max_length == Encoding.max_length:
            max_length = min(max_length, longest_input(files))
        return CacheSpec(
            format=FORMAT,
            dataset=dataset,
            dataset_hash=dataset_hash,
            label_names=tuple(label_names),
            backbone=files.name,
            backbone_version=files.version,
            tokenizer_hash=files.tokenizer_hash,
            max_length=max_length,
            precision=forward_precision(resolve_device(self.device), self.precision),
            task=task,
            stride=(self.stride or max(1, max_length // 2)) if self.windows else None,
            reduce=None if self.reduce is None else str(self.reduce),
            pairs=pairs,
            **{name: getattr(self, name) for name in SHARED},
        )


def embeddings_folder(cache_dir: Path) -> Path:
    """The folder of cache files inside `cache_dir`."""
    return cache_dir / FOLDER


def slug(name: str) -> str:
    """Make a name part of a file name: letters, digits, dots and single dashes."""
    return re.sub(r"[^\w.]+", "-", name, flags=re.ASCII).strip("-.") or "unnamed"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:16] + "…"
