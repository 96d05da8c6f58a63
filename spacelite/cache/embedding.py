"""Data set and backbone -> cache file: find or create it, tokenize, run the backbone, resume."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spacelite import files
from spacelite.backbones.files import BackboneFiles, locate
from spacelite.backbones.model import (
    Backbone,
    check_budget,
    default_budget,
    forward_precision,
    resolve_device,
)
from spacelite.backbones.tokenizer import special_ids
from spacelite.cache import layers as layer_means
from spacelite.cache import layout, precision, store, tokenizing, unknown
from spacelite.cache import reuse as reusing
from spacelite.cache import texts as cached_texts
from spacelite.cache.computing import Run
from spacelite.cache.dtypes import stored_type
from spacelite.cache.rounding import Rounded
from spacelite.cache.spec import CacheSpec
from spacelite.cache.speed import Speed
from spacelite.cache.tokenizing import Examples, OnProgress
from spacelite.cache.writing import Target
from spacelite.data import loading
from spacelite.data.splits import TextDataset
from spacelite.errors import SpaceliteError
from spacelite.pipeline import Clock

log = logging.getLogger(__name__)

PADDINGS = ("none", "max_length")


@dataclass(frozen=True)
class Embedded:
    """What `embed` returns.

    Attributes:
        path: The finished cache.
        hit: Whether the cache existed already.
        seconds: Duration of the call.
        speed: What took the time, if hidden states were computed.
        copied: Number of examples whose hidden states this call copied from other caches.
        rounded: How much the stored type rounds each dimension of the hidden states that this call
            computed; None if it computed none, or for types in which that is not measured.
        others: The same for further layers, in the order in which these were given.
    """

    path: Path
    hit: bool
    seconds: float
    speed: Speed | None = None
    copied: int = 0
    rounded: Rounded | None = None
    others: tuple[Embedded, ...] = ()


def embed(
    *,
    backbone: str,
    dataset: Any = None,
    cache_dir: Path,
    texts: Sequence[str] | None = None,
    labels: Sequence[Any] | None = None,
    name: str | None = None,
    max_length: int = 256,
    dtype: str = "float16",
    layer: int | Sequence[int] = -1,
    padding: str = "none",
    layers: bool | None = None,
    limit: int | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    data_dir: Path | None = None,
    labels_as: str = "auto",
    skip_empty: bool = False,
    drop_leaks: bool = False,
    reuse: bool = True,
    training: bool = True,
    check: Callable[[TextDataset], None] = lambda texts: None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Embedded:
    """Run a frozen backbone once over a data set and keep every token's hidden state.

    A finished cache with the same spec is returned at once. An unfinished one is continued, and
    ends with the same bytes as if it had never been interrupted.

    Args:
        backbone: A hub name, a local folder, or `minilm`.
        dataset: A known data set's name, a hub name, a file or a folder; a pandas DataFrame, a
            `datasets.DatasetDict`, or `{"train": (texts, labels), ...}`.
        cache_dir: Folder of caches and runs.
        texts: N texts in place of `dataset`, all of them training data.
        labels: N labels of `texts`: numbers, strings, or lists of these (multi-label).
        name: Name of data passed as objects. Default: `texts`.
        max_length: Maximum tokens per text; the rest is cut off.
        dtype: Number type in which hidden states are stored, one of DTYPES.
        layer: Layer of the hidden states: -1 the last, 0 the embedding layer. Several layers of one
            pass get a cache each.
        padding: `none`, or `max_length` to pad every text and cache padded positions as tokens.
        layers: Whether the mean of every layer over each text's tokens is kept too, in a file of
            its own. Default: yes for a new cache; an existing one stays without them, and True
            adds them in one more forward pass.
        limit: Maximum examples per split: a seeded, stratified sample.
        device: Device of the backbone: `auto`, `cpu`, `cuda`, ...
        tokens_per_batch: Maximum tokens per forward pass. Default: 1,024 on a CPU, in each of its
            threads; 65,536 on a GPU.
        revision: Commit, branch or tag of a hub backbone.
        text_column: Name of the text column. Default: recognised automatically.
        label_column: Name of the label column. Default: recognised automatically.
        data_dir: Folder of local data sets, searched by name before the hub.
        labels_as: `auto` to read labels that are all whole numbers as numbers, `text` to keep every
            label as it is written.
        skip_empty: Whether rows with an empty text are left out.
        drop_leaks: Whether training texts that also stand in validation or test are left out.
        reuse: Whether the hidden states of texts that other caches in `cache_dir` hold are copied
            from them, and texts that stand in the data set more than once are run once. Hidden
            states depend in their last bits on the batch in which they were computed, so they equal
            those of a cache without reuse to about 1e-3, not to the byte.
        training: Whether the data are to be trained on. If not, they may lack a train split, or
            have a single label or example.
        check: Called with the data set once it is read, before anything is computed; it may raise.
        on_progress: Called with the phase (`tokenize`, counted in texts, or `embed`, counted in
            tokens), the amount done and the total.

    Returns:
        The path of the finished cache, whether it existed already, and the duration.

    Raises:
        SpaceliteError: The data set, backbone or settings cannot be used, or the disk or memory is
            full: the message says what to do.
    """
    started, clock = time.perf_counter(), Clock()
    stored_type(dtype)  # refused before anything is read
    if padding not in PADDINGS:
        raise SpaceliteError(f"padding={padding}: choose {' or '.join(PADDINGS)}", ["padding"])
    read = read_layers(layer)
    check_budget(tokens_per_batch)
    with clock.measure("loading the backbone"):
        backbone_files = locate(backbone, revision)
    with clock.measure("reading"):
        found = loading.read(
            dataset,
            texts=texts,
            labels=labels,
            name=name,
            text_column=text_column,
            label_column=label_column,
            limit=limit,
            data_dir=data_dir,
            labels_as=labels_as,
            skip_empty=skip_empty,
            drop_leaks=drop_leaks,
            training=training,
        )
    check(found)
    with clock.measure("loading the backbone"):  # it imports torch
        device = resolve_device(device)
    spec = CacheSpec(
        format=store.FORMAT,
        dataset=found.name,
        dataset_hash=found.fingerprint,
        label_names=tuple(found.label_names),
        backbone=backbone_files.name,
        backbone_version=backbone_files.version,
        tokenizer_hash=backbone_files.tokenizer_hash,
        max_length=max_length,
        layer=read[0],
        padding=padding,
        dtype=dtype,
        precision=forward_precision(device),
    )
    specs = {one.path(cache_dir): one for one in (replace(spec, layer=each) for each in read)}
    first = next(iter(specs))

    def embedded(run: Run | None = None) -> Embedded:
        seconds, written = time.perf_counter() - started, {}
        if run is not None:
            written = {one.target.path: one for one in run.written}
        tokens = run.tokens if run else 0
        speed = Speed(tokens, seconds, clock.busy) if tokens else None
        each = [
            Embedded(path, False, seconds, speed, one.copied, one.rounded)
            if (one := written.get(path))
            else Embedded(path, True, seconds, speed)
            for path in specs
        ]
        return replace(each[0], others=tuple(each[1:]))

    # Looked for before anything is written: the folder may be read-only.
    unfinished = {path: one for path, one in specs.items() if not _is_finished(path, one, layers)}
    for path, one in specs.items():
        if path not in unfinished:
            _count_unknown(path, backbone_files)
            cached_texts.keep(path, one.cache_key(), found)
    if not unfinished:
        return embedded()
    files.make_folder(first.parent, "choose another cache_dir")
    with ExitStack() as stack:
        for path in sorted(unfinished):  # in an order on which all processes agree
            stack.enter_context(files.lock(path))
        locked = time.perf_counter()
        # Another process may have written some while this one waited.
        left = {
            path: one for path, one in unfinished.items() if not _is_finished(path, one, layers)
        }
        if not left:
            return embedded()
        _log_differences(*next(iter(left.items())), specs)
        with clock.measure("tokenizing"):
            examples = tokenizing.tokenize(backbone_files, found, max_length, padding, on_progress)
        keeping = {path: _keeps_layers(path, layers) for path in left}
        with clock.measure("loading the backbone"):
            here, *further = (one.layer for one in left.values())
            model = Backbone(
                backbone_files,
                layer=here,
                others=tuple(further),
                device=device,
                all_layers=any(keeping.values()),
            )
        model.check_layers(*read)
        if not model.layers and model.all_layers:
            _do_without_layers(model, required=layers is True)
        targets = _laid_out(left, keeping, model, found, examples, reuse, len(specs) > 1)
        for path in left:
            precision.keep(path, model.reading(layer=left[path].layer), examples.tokens)
        run = Run(targets, model, examples, layers is True, on_progress, clock)
        try:
            run(tokens_per_batch or default_budget(device))
        finally:
            for path in left:
                store.add_seconds(path, time.perf_counter() - locked)
        if len(specs) > 1:  # the newest cache is the one that is trained on
            with suppress(OSError):
                os.utime(first)
        return embedded(run)


def _laid_out(
    left: Mapping[Path, CacheSpec],
    keeping: Mapping[Path, bool],
    model: Backbone,
    found: TextDataset,
    examples: Examples,
    reuse: bool,
    several: bool,
) -> list[Target]:
    """Lay out the caches that are left to write, with what stands beside them."""
    splits = tokenizing.index(found, examples)
    new = {path: not path.exists() for path in left}
    for path in left:
        if not new[path]:
            layout.check_index(path, splits)
    with_layers = {path: keep and model.all_layers for path, keep in keeping.items()}
    layout.lay_out(left, with_layers, splits, model, examples.tokens.padding_side)
    counts = unknown.count(
        ((name, one.token_ids, one.offsets) for name, one in splits.items()),
        examples.tokens.special,
    )
    targets = []
    for path, spec in left.items():
        cached_texts.keep(path, spec.cache_key(), found)
        unknown.write(path, counts)
        if new[path] and reuse:
            plan = reusing.find(path, spec, examples.tokens.ids, with_layers=with_layers[path])
            if plan.reuses:
                reusing.write(path, spec.cache_key(), plan)
        else:
            plan = reusing.read(path, spec.cache_key(), len(examples.lengths))
        prefix = f"layer {spec.layer}: " if several else ""
        targets.append(Target(path, spec, plan, with_layers[path], prefix))
    return targets


def backbone_settings(spec: CacheSpec, backbone: str | None = None) -> dict[str, Any]:
    """The arguments of `embed` that embed other data in the same way as a cache.

    Args:
        spec: A cache's spec.
        backbone: The backbone's folder, if it was a local one.
    """
    kind, _, version = spec.backbone_version.partition(":")
    revision = version if kind == "revision" and backbone is None else None
    return {
        "backbone": backbone or spec.backbone,
        "revision": revision,
        **{name: getattr(spec, name) for name in ("max_length", "layer", "padding", "dtype")},
    }


def read_layers(layer: int | Sequence[int]) -> tuple[int, ...]:
    """One layer or several. Raises SpaceliteError if there is none, or one of them twice."""
    layers = (layer,) if isinstance(layer, int) else tuple(layer)
    if not layers or len(set(layers)) < len(layers):
        given = ",".join(map(str, layers)) or "[]"
        raise SpaceliteError(f"layer={given}: give one layer, or several different ones", ["layer"])
    return layers


def _is_finished(path: Path, spec: CacheSpec, layers: bool | None) -> bool:
    """Whether the cache exists and is complete, with its layer means if they are wanted. Raises
    SpaceliteError if its spec differs."""
    if not path.exists():
        return False
    with store.Cache(path) as cache:
        if cache.spec != spec:
            differences = ", ".join(cache.spec.differences(spec))
            raise SpaceliteError(
                f"{path} was created with other settings: {differences}; remove it (spacelite "
                f"cache remove {path.stem}) or choose another cache_dir",
                ["cache_dir"],
            )
        if not cache.complete or not _keeps_layers(path, layers):
            return cache.complete
        try:
            return cache.layers is not None and cache.layers.complete
        except layer_means.DamagedLayersError:
            return False


def _keeps_layers(path: Path, layers: bool | None) -> bool:
    """Whether layer means are to be completed: by default, for a new cache and for one that has a
    file of them."""
    if layers is None:
        return not path.exists() or layer_means.layers_path(path).exists()
    return layers


def _do_without_layers(model: Backbone, required: bool) -> None:
    """Leave layer means out where layers differ in width, or raise SpaceliteError."""
    if required:
        raise SpaceliteError(
            f"layers=True: the layers of {model.name} differ in width: leave layers=True out",
            ["layers"],
        )
    model.all_layers = False


def _count_unknown(path: Path, backbone_files: BackboneFiles) -> None:
    """Count the unknown tokens of a cache that has no counts: an older version wrote it."""
    if unknown.read(path) is None:
        special = special_ids(backbone_files)
        with store.Cache(path) as cache:
            splits = ((n, one.read_token_ids(), one.offsets) for n, one in cache.splits.items())
            unknown.write(path, unknown.count(splits, special))


def _log_differences(path: Path, spec: CacheSpec, asked: Collection[Path]) -> None:
    """Say why other caches of the same backbone and data set, which were not asked for, are not
    used."""
    if path.exists():
        return
    family = path.stem.rpartition("--")[0]
    for other in sorted({*path.parent.glob(f"{family}--*.h5")} - {*asked}):
        try:
            with store.Cache(other) as cache:
                differences = ", ".join(cache.spec.differences(spec))
        except SpaceliteError:
            continue  # `cache list` shows damaged files
        log.info("%s has other settings (%s): embedding into a new cache", other.stem, differences)
