"""Data set and backbone -> cache file: find or create it, tokenize, run the backbone, resume."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spacelite import files
from spacelite.backbones import tokenizer
from spacelite.backbones.files import BackboneFiles, locate
from spacelite.backbones.model import (
    Backbone,
    Forward,
    Output,
    default_budget,
    instructions,
    plan_batches,
    resolve_device,
)
from spacelite.backbones.tokenizer import Tokenized, load_tokenizer, special_ids
from spacelite.cache import reuse as reusing
from spacelite.cache import store
from spacelite.cache import texts as cached_texts
from spacelite.cache.dtypes import Rounded, rounding_sums, stored_type
from spacelite.cache.reduction import SAMPLED, SEED, Moments, Reduction
from spacelite.cache.spec import CacheSpec, Encoding
from spacelite.cache.split import SplitIndex, offsets_of
from spacelite.cache.store import Cache, DamagedLayersError, Layout, side_file
from spacelite.cache.writing import Examples, Writer, Writing, check_finite, write_missing
from spacelite.data.splits import TextDataset
from spacelite.errors import SpaceliteError
from spacelite.pipeline import Clock
from spacelite.progress import OnProgress
from spacelite.types import Array

log = logging.getLogger(__name__)

ERROR_TEXTS = 50  # on which the error of half precision is measured
# Bytes of the weights in float32 up to which it is measured: a second model is loaded for that.
MOST_FLOAT32 = 8 * 10**9
MANY_TOKENS = 200_000  # from which `embed` measures whether half precision would be faster
FASTER = 1.5  # times as fast, from which it is said
SMALLER = "embed fewer examples with limit=N, or leave the layer means out with layers=False"


@dataclass(frozen=True)
class Embedded:
    """What `embed` returns: the finished cache, and what the call did."""

    path: Path
    hit: bool  # whether the cache existed already
    seconds: float
    speed: Speed | None = None  # if hidden states were computed
    copied: int = 0  # examples whose hidden states were copied from other caches
    rounded: Rounded | None = None  # if it was measured for hidden states that were computed
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
    command: str = "embed",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Embedded:
    """Run a frozen backbone once over a data set and keep every token's hidden state, as
    `spacelite.embed`, which explains the arguments. `read` reads the data set, before anything is
    computed; it may raise. Each of `further_layers` has a cache of its own. `command` is `embed`,
    after which the cache counts as the newest, or `eval`, after which it is none to train on.

    A finished cache with the same spec is returned at once. An unfinished one is continued, and
    ends with the same bytes as if it had never been interrupted.
    """
    started, clock = time.perf_counter(), Clock()
    encoding.check()
    with clock.measure("loading the backbone"):
        backbone_files = locate(encoding.backbone, encoding.revision)
    with clock.measure("reading"):
        data = read()
    with clock.measure("loading the backbone"):  # it imports torch
        resolve_device(encoding.device)
    spec = encoding.spec(
        backbone_files, data.name, data.fingerprint, data.label_names, data.task_name
    )
    if spec.max_length != encoding.max_length:
        log.info("%s takes at most %d tokens: max_length is that", spec.backbone, spec.max_length)
    of_layers = [spec, *(replace(spec, layer=number) for number in further_layers)]
    specs = {spec.path(cache_dir): spec for spec in of_layers}
    written, tokens = _complete(
        specs,
        data,
        backbone_files,
        encoding,
        layers=layers,
        reuse=reuse,
        command=command,
        on_progress=on_progress,
        clock=clock,
    )
    for path in specs:
        if path not in written:
            _count_unknown(path, backbone_files)
            cached_texts.keep(path, specs[path].cache_key(), data, encoding.folder)
    if command == "embed":
        keep_maker(specs, command)
    seconds = time.perf_counter() - started
    speed = Speed(tokens, seconds, clock.busy) if tokens else None
    first, *others = (
        Embedded(path, False, seconds, speed, written[path].copied, written[path].rounded)
        if path in written
        else Embedded(path, True, seconds, speed)
        for path in specs
    )
    return replace(first, others=tuple(others))


def _complete(
    specs: Mapping[Path, CacheSpec],
    data: TextDataset,
    backbone_files: BackboneFiles,
    encoding: Encoding,
    *,
    layers: bool | None,
    reuse: bool,
    command: str,
    on_progress: OnProgress,
    clock: Clock,
) -> tuple[dict[Path, Writing], int]:
    """Write what caches lack that differ in the layer alone.

    Returns what was written into each, and the number of tokens that were run through the backbone.
    """
    with unfinished(specs, layers) as left, ExitStack() as stack:
        locked = time.perf_counter()
        if not left:
            return {}, 0
        spec = specs[left[0]]
        _log_differences(left[0], spec, specs)
        with clock.measure("tokenizing"):
            examples = tokenize(backbone_files, data, spec, on_progress)
        with_layers = {path: keeps_layers(path, layers) for path in left}
        with clock.measure("loading the backbone"):
            model = Backbone(
                backbone_files,
                layer=spec.layer,
                others=tuple(specs[path].layer for path in left[1:]),
                device=resolve_device(encoding.device),
                precision=spec.precision,
                all_layers=any(with_layers.values()),
            )
        model.check_layers(*(spec.layer for spec in specs.values()))
        if not model.layers and model.all_layers:
            if layers:
                raise SpaceliteError(
                    f"layers=True: the layers of {model.name} differ in width: leave layers=True "
                    "out",
                    ["layers"],
                )
            model.all_layers, with_layers = False, dict.fromkeys(left, False)
        splits = examples.indexes
        reductions: Mapping[Path, Reduction] = {}
        if spec.reduce is not None:
            with clock.measure("fitting axes"):
                reductions = _reductions(
                    {path: specs[path] for path in left}, encoding, model, examples, on_progress
                )
        layouts = {
            path: Layout.of(
                model.reading(layer=specs[path].layer, all_layers=with_layers[path]),
                spec.dtype,
                reductions.get(path),
            )
            for path in left
        }
        plans: dict[Path, reusing.Plan] = {}

        def keep_plan(path: Path) -> None:
            """What a run that continues the cache has to know."""
            store.keep_maker(path, command)
            if reuse:
                key, ids = specs[path].cache_key(), examples.tokens.ids
                with_means = layouts[path].layers > 0
                plans[path] = reusing.find(path, specs[path], ids, with_layers=with_means)
                if plans[path].reuses:
                    reusing.write(path, key, plans[path])

        lay_out(specs, layouts, splits, examples.tokens.padding_side, first=keep_plan)
        counts = cached_texts.count_unknown(splits, examples.tokens.special)
        written = {}
        for path in left:
            key, ids, spec = specs[path].cache_key(), examples.tokens.ids, specs[path]
            cached_texts.keep(path, key, data, encoding.folder)
            cached_texts.write_unknown(path, counts)
            plan = plans[path] if path in plans else reusing.read(path, key, len(ids))
            written[path] = Writing(
                path,
                spec,
                plan,
                stack.enter_context(
                    Writer(path, layers=layouts[path].layers > 0, layers_required=layers is True)
                ),
                examples,
                prefix=f"layer {spec.layer}: " if len(specs) > 1 else "",
            )
        if model.precision != "float32":
            if model.device == "cpu" and instructions(model.precision) is None:
                log.warning(
                    "this processor has no instructions for %s: float32 is faster here",
                    model.precision,
                )
            _keep_half_precision_error(left, model, backbone_files, examples.tokens)
        elif encoding.precision == "auto" and examples.lengths.sum() >= MANY_TOKENS:
            _compare_half_precision(model, backbone_files, examples.tokens)
        stored, budget = stored_type(spec.dtype), encoding.tokens_per_batch
        with_rows = any("tokens" in writing.writer.missing for writing in written.values())
        forward = Forward(
            model,
            examples.tokens,
            stored.to_rows,
            budget or default_budget(model.device),
            measure=rounding_sums(stored) if with_rows else None,
            reduce=[of.on(model.device) for of in reductions.values()],
            clock=clock,
        )
        try:
            tokens = write_missing(list(written.values()), forward, on_progress)
            if command == "embed":  # `eval` has no choice
                for writing in written.values():
                    writing.report_sink()
        finally:
            store.add_seconds(left, time.perf_counter() - locked)
        return written, tokens


def tokenize(
    backbone_files: BackboneFiles,
    texts: TextDataset,
    spec: CacheSpec,
    on_progress: OnProgress,
) -> Examples:
    """The token ids of a data set. Raises SpaceliteError if a text has no token."""
    everything = [text for split in texts.splits.values() for text in split.texts]
    on_progress("tokenize", 0, len(everything))
    tokens = tokenizer.tokenize(
        backbone_files,
        everything,
        **spec.tokenizing,
        on_chunk=lambda done: on_progress("tokenize", done, len(everything)),
    )
    kept = tokens.kept
    lengths = np.array([len(ids) for ids in kept], np.int64)
    starts, indexes, start = {}, {}, 0
    for name, part in texts.splits.items():
        stop = start + len(part)
        offsets = offsets_of(lengths[start:stop])
        token_ids = np.concatenate(kept[start:stop])
        starts[name], indexes[name] = start, SplitIndex(offsets, part.labels, token_ids)
        start = stop
    examples = Examples(starts, indexes, tokens, lengths)
    if not lengths.all():
        split, row = examples.location(int(np.argmin(lengths)))
        raise SpaceliteError(
            f"{texts.name} {split}: text {row + 1} has no token that {backbone_files.name} "
            "knows: remove it"
        )
    if spec.stride is not None and (
        longer := sum(len(ids) > spec.max_length for ids in tokens.ids)
    ):
        log.info(
            "%s of %s texts %s longer than %s tokens and run in windows of as many",
            f"{longer:,}", f"{len(everything):,}", "is" if longer == 1 else "are", spec.max_length,
        )  # fmt: skip
    if tokens.truncated:
        longest = spec.max_length
        log.info(
            "%s of %s texts %s longer than %s tokens and %s cut off there",
            f"{tokens.truncated:,}", f"{len(everything):,}",
            *(("is", longest, "was") if tokens.truncated == 1 else ("are", longest, "were")),
        )  # fmt: skip
    return examples


def _reductions(
    specs: Mapping[Path, CacheSpec],
    encoding: Encoding,
    model: Backbone,
    examples: Examples,
    on_progress: OnProgress,
) -> dict[Path, Reduction]:
    """What the hidden states of caches that differ in the layer alone are reduced by: what a cache
    that was laid out holds, what was given, or the axes of a sample of train tokens."""
    reductions: dict[Path, Reduction] = {}
    for path in specs:
        if path.exists():
            with Cache(path) as cache:
                if cache.reduction is not None:
                    reductions[path] = cache.reduction
        elif isinstance(encoding.reduce, Reduction):
            reductions[path] = encoding.reduce
    new = [path for path in specs if path not in reductions]
    if new:
        layers = [specs[path].layer for path in new]
        fitted = _fitted(encoding, model, layers, examples, on_progress)
        for path, reduction in zip(new, fitted, strict=True):
            prefix = f"layer {specs[path].layer}: " if len(specs) > 1 else ""
            log.info("%sreduced to %s", prefix, reduction.words)
            reductions[path] = reduction
    return {path: reductions[path] for path in specs}


def _fitted(
    encoding: Encoding,
    model: Backbone,
    layers: Sequence[int],
    examples: Examples,
    on_progress: OnProgress,
) -> list[Reduction]:
    """The principal axes of some layers: of train texts in a seeded order, until they have SAMPLED
    tokens for each dimension. Raises SpaceliteError as `Moments.reduction`."""
    widths = [model.reading(layer=layer).width for layer in layers]
    wanted = encoding.reduce
    if isinstance(wanted, int) and wanted > min(widths):
        raise SpaceliteError(
            f"reduce={wanted}: the hidden states of {model.name} have {min(widths):,} dimensions: "
            "give a smaller number",
            ["reduce"],
        )
    model = model.reading(layer=layers[0], others=tuple(layers[1:]))
    train = examples.splits["train"] + np.arange(len(examples.indexes["train"].labels))
    order = np.random.default_rng(SEED).permutation(train)
    ends = np.cumsum(examples.lengths[order])
    chosen = order[: np.searchsorted(ends, SAMPLED * max(widths)) + 1]
    lengths = np.array([len(examples.tokens.ids[example]) for example in chosen], np.int64)
    budget = encoding.tokens_per_batch or default_budget(model.device)
    plan = [chosen[batch] for batch in plan_batches(lengths, budget)]
    forward = Forward(model, examples.tokens, lambda hidden: hidden, budget)
    moments, exact = [Moments(width) for width in widths], stored_type("float32")
    done, total = 0, int(examples.lengths[chosen].sum())
    on_progress("reduce", 0, total)
    for batch, output in forward.batches(plan, lambda *pair: pair):
        for of_layer, states in zip(moments, output.states, strict=True):
            for row, example in enumerate(batch.tolist()):
                split, index = examples.location(example)
                check_finite(states[row], exact, f"{split} example {index}")
            of_layer.add(states.reshape(-1, states.shape[-1]))
        done += int(examples.lengths[batch].sum())
        on_progress("reduce", done, total)
    return [of_layer.reduction(str(wanted)) for of_layer in moments]


def lay_out(
    specs: Mapping[Path, CacheSpec],
    layouts: Mapping[Path, Layout],
    splits: Mapping[str, SplitIndex],
    padding_side: str,
    smaller: str = SMALLER,
    first: Callable[[Path], None] = lambda path: None,
) -> None:
    """Lay out what is missing of caches that differ in the layer alone, and of their files of layer
    means. Raises SpaceliteError if the disk is full, too small for all of them, or broken;
    `smaller` says how they would take less of it. `first` is called for each new cache before it is
    there: what it keeps beside the cache a killed process does not lack."""
    new = [path for path in layouts if not path.exists()]
    for path, layout in layouts.items():
        if path not in new:
            _check_laid_out(path, splits, layout)
            continue
        # Left by a cache that was deleted by hand, or a process that was killed while it laid one
        # out.
        store.clear(path)
    means = [
        path
        for path, layout in layouts.items()
        if layout.layers and not side_file(path, "layers").exists()
    ]
    tokens = sum(len(index.token_ids) for index in splits.values())
    sizes: dict[str, list[int]] = {}
    for path in new:
        part = f"{tokens:,} tokens of width {layouts[path].kept_width}"
        sizes.setdefault(part, []).append(store.file_size(splits, layouts[path].cache_shapes))
    for path in means:
        part = f"means of all {layouts[path].layers} layers"
        sizes.setdefault(part, []).append(store.file_size(splits, layouts[path].layer_shapes))
    _check_room(next(iter(layouts)).parent, sizes, smaller)
    for path, layout in layouts.items():
        # The cache last: a process that is killed here leaves none without what is beside it.
        try:
            if path in new:
                first(path)
            if path in means:
                store.lay_out_layers(path, specs[path].cache_key(), splits, layout)
            if path in new:
                store.lay_out(path, specs[path], splits, layout, padding_side)
        except BaseException:  # Ctrl-C too
            if path in new:
                files.clear_away(path)  # it is there if only its folder could not be synced
                store.clear(path)
            raise


def _check_laid_out(path: Path, splits: Mapping[str, SplitIndex], layout: Layout) -> None:
    """Raise SpaceliteError if an unfinished file was laid out for different tokens or another
    width, and delete the file of its layer means if it is damaged."""
    with Cache(path) as cache:
        remove = f"remove it (spacelite cache remove {path.stem}) and embed again"
        for name, index in splits.items():
            stored = cache.splits[name]
            if index.crc32 != stored.index_crc32 or not stored.index_is_intact():
                raise SpaceliteError(
                    f"{path} holds other tokens for {name} than the data have now (it is damaged "
                    f"or begun with another version of transformers): {remove}"
                )
            if stored.width != layout.kept_width:
                raise SpaceliteError(
                    f"{path} holds hidden states of width {stored.width} for {name}, not "
                    f"{layout.kept_width}: {remove}"
                )
        try:
            _ = cache.layers if layout.layers else None
        except DamagedLayersError:
            layers = side_file(path, "layers")
            log.warning("%s is damaged: it is rewritten", layers)
            files.clear_away(layers)


def _check_room(folder: Path, parts: Mapping[str, Sequence[int]], smaller: str) -> None:
    """Say how large what is laid out is: for each part its bytes in every cache that lacks it.
    Raises SpaceliteError if the disk is too small."""
    size, free = sum(map(sum, parts.values())), shutil.disk_usage(folder).free
    if not size:
        return
    listed = ", ".join(
        f"{part}{f' in {len(sizes)} caches' if len(sizes) > 1 else ''}: "
        f"{files.human_bytes(sum(sizes))}"
        for part, sizes in parts.items()
    )
    log.info("%s, %s free", listed, files.human_bytes(free))
    if size > free:
        raise SpaceliteError(
            f"the cache needs {files.human_bytes(size)} and {folder} has "
            f"{files.human_bytes(free)} free: free some space, choose another cache_dir, {smaller}",
            ["cache_dir", "limit", "layers"],
        )


def _keep_half_precision_error(
    paths: Sequence[Path], model: Backbone, backbone_files: BackboneFiles, tokens: Tokenized
) -> None:
    """What a forward pass in half precision costs: measure the relative error of the hidden states
    against those of float32 over ERROR_TEXTS texts from all lengths (the norm of the differences
    divided by the norm of float32's), log it and keep it beside the caches, which `model` reads the
    layers of, in this order."""
    if all(side_file(path, "precision").exists() for path in paths):
        return
    weights = 4 * sum(weight.numel() for weight in model.model.parameters())
    if weights > MOST_FLOAT32:
        log.info(
            "%s: its error is not measured, since weights in float32 would take %s",
            model.precision, files.human_bytes(weights),
        )  # fmt: skip
        return
    order = np.argsort([len(ids) for ids in tokens.ids], kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, ERROR_TEXTS).astype(np.int64))]

    def finish(batch: Array, output: Output) -> list[Array]:
        return [states.reshape(-1).astype(np.float64) for states in output.states]

    precise = Backbone(
        backbone_files,
        layer=model.layer,
        others=model.others,
        device=model.device,
        precision="float32",
    )
    half, exact = (
        [
            np.concatenate(layer)
            for layer in zip(*forward.batches(chosen[:, None], finish), strict=True)
        ]
        for forward in (
            Forward(run, tokens, lambda hidden: hidden, default_budget(model.device))
            for run in (model, precise)
        )
    )
    texts = min(ERROR_TEXTS, len(tokens.ids))
    for path, rounded, layer in zip(paths, half, exact, strict=True):
        error = float(np.linalg.norm(rounded - layer) / np.linalg.norm(layer))
        log.info(
            "%s: the hidden states of %d texts differ from float32 by %.2g of their size",
            model.precision, texts, error,
        )  # fmt: skip
        content = {"precision": model.precision, "texts": texts, "relative_error": error}
        store.keep_json(path, "precision", content)


def _compare_half_precision(
    model: Backbone, backbone_files: BackboneFiles, tokens: Tokenized
) -> None:
    """Say how much faster this processor would run a model in half precision, if it is much."""
    precision = "bfloat16"
    if model.device != "cpu" or not (found := instructions(precision)):
        return
    half = Backbone(backbone_files, layer=-1, device="cpu", precision=precision)
    budget = default_budget("cpu")
    plan = list(plan_batches(np.array([len(ids) for ids in tokens.ids], np.int64), budget))
    typical = [plan[len(plan) // 3], plan[2 * len(plan) // 3]]  # long and short texts
    seconds = {}
    for run in (half, model):
        forward = Forward(run, tokens, lambda hidden: hidden, budget)
        for batches in ([typical[0][:1]], typical):  # the first one prepares
            started = time.perf_counter()
            for _ in forward.batches(batches, lambda batch, output: None):
                pass
            seconds[run.precision] = time.perf_counter() - started
    ratio = seconds["float32"] / seconds[precision]
    if ratio > FASTER:
        log.info(
            "%s",
            SpaceliteError(
                f"this processor (its {found}) runs {model.name} {ratio:.1f} times as fast with "
                f"precision={precision}; embed then says how far hidden states move",
                ["precision"],
            ),
        )


def read_layers(layer: int | Sequence[int]) -> tuple[int, ...]:
    """One layer or several. Raises SpaceliteError if there is none, or one of them twice."""
    layers = (layer,) if isinstance(layer, int) else tuple(layer)
    if not layers or len(set(layers)) < len(layers):
        listed = ",".join(map(str, layers)) or "[]"
        raise SpaceliteError(
            f"layer={listed}: give one layer, or several different ones", ["layer"]
        )
    return layers


@contextmanager
def unfinished(specs: Mapping[Path, CacheSpec], layers: bool | None) -> Iterator[list[Path]]:
    """Those of some caches that lack something, or their layer means if they are wanted, which are
    locked meanwhile. Raises SpaceliteError if the spec of one differs."""
    # Looked for before anything is written: the folder may be read-only.
    left = [path for path in specs if not is_finished(path, specs[path], layers)]
    with ExitStack() as stack:
        for path in sorted(left):  # in an order on which all processes agree
            files.make_folder(path.parent, "choose another cache_dir")
            stack.enter_context(files.lock(path))
        # Another process may have written some while this one waited.
        yield [path for path in left if not is_finished(path, specs[path], layers)]


def keep_maker(paths: Iterable[Path], command: str) -> None:
    """Record the command that finished caches are for; the first then counts as the newest."""
    for path in paths:
        store.keep_maker(path, command)
    with suppress(OSError):  # the folder may be read-only
        os.utime(next(iter(paths)))


def is_finished(path: Path, spec: CacheSpec, layers: bool | None) -> bool:
    """Whether the cache exists and is complete, with its layer means if they are wanted. Raises
    SpaceliteError if its spec differs."""
    if not path.exists():
        return False
    with Cache(path) as cache:
        if cache.spec != spec:
            differences = ", ".join(cache.spec.differences(spec))
            raise SpaceliteError(
                f"{path} was created with other settings: {differences}; remove it (spacelite "
                f"cache remove {path.stem}) or choose another cache_dir",
                ["cache_dir"],
            )
        if not cache.complete or not keeps_layers(path, layers):
            return cache.complete
        try:
            return cache.layers is not None and cache.layers.complete
        except DamagedLayersError:
            return False


def keeps_layers(path: Path, layers: bool | None) -> bool:
    """Whether layer means are to be completed: by default, for a new cache and for one that has a
    file of them."""
    if layers is None:
        return not path.exists() or side_file(path, "layers").exists()
    return layers


def _count_unknown(path: Path, backbone_files: BackboneFiles) -> None:
    """Count the unknown tokens of a cache that has no counts: an older version wrote it."""
    if not cached_texts.read_unknown(path).splits:
        special = special_ids(load_tokenizer(backbone_files))
        with Cache(path) as cache:
            splits = {name: split.read_index() for name, split in cache.splits.items()}
        cached_texts.write_unknown(path, cached_texts.count_unknown(splits, special))


def _log_differences(path: Path, spec: CacheSpec, asked: Collection[Path]) -> None:
    """Say why other caches of the same backbone and data set, which were not asked for, are not
    used."""
    if path.exists():
        return
    family = path.stem.rpartition("--")[0]
    for other in sorted({*path.parent.glob(f"{family}--*.h5")} - {*asked}):
        try:
            with Cache(other) as cache:
                differences = ", ".join(cache.spec.differences(spec))
        except SpaceliteError:
            continue  # `cache list` shows damaged files
        log.info("%s has other settings (%s): embedding into a new cache", other.stem, differences)
