"""One cache file: tokenize its texts, fit axes, lay it out, run the backbone, resume."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from spacelite import files, pipeline, ranks
from spacelite.backbones import tokenizer
from spacelite.backbones.files import BackboneFiles
from spacelite.backbones.model import (
    Backbone,
    Forward,
    Output,
    default_budget,
    instructions,
    plan_batches,
    resolve_device,
)
from spacelite.backbones.tokenizer import Tokenized, held_tokenizer, special_ids
from spacelite.cache import reuse as reusing
from spacelite.cache import store
from spacelite.cache import texts as cached_texts
from spacelite.cache.dtypes import Rounding, rounding_sums, stored_type
from spacelite.cache.hdf5 import SHARD
from spacelite.cache.reduction import SAMPLED, SEED, Moments, Reduction
from spacelite.cache.shards import Shard
from spacelite.cache.spec import CacheSpec, Encoding
from spacelite.cache.split import DamagedCacheError, SplitIndex, offsets_of
from spacelite.cache.store import Cache, DamagedLayersError, Layout, side_file
from spacelite.cache.writing import Examples, Writer, Writing, check_finite, write_missing
from spacelite.data.splits import TextDataset
from spacelite.errors import SpaceliteError, one_line
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
class Call:
    """One call of `embed`."""

    encoding: Encoding
    backbone_files: BackboneFiles
    specs: Mapping[Path, CacheSpec]
    layers: bool | None
    reuse: bool
    command: str
    on_progress: OnProgress
    clock: Clock

    @cached_property
    def model(self) -> Backbone:
        """The backbone, loaded once."""
        spec = next(iter(self.specs.values()))
        with self.clock.measure("loading the backbone"):
            model = Backbone(
                self.backbone_files,
                layer=spec.layer,
                device=ranks.device_of(resolve_device(self.encoding.device)),
                precision=spec.precision,
            )
        model.check_layers(*(spec.layer for spec in self.specs.values()))
        return model

    def layout(self, spec: CacheSpec, reduction: Reduction | None, *, layers: bool) -> Layout:
        """What is kept of each text in the cache of a layer."""
        read = self.model.reading(layer=spec.layer, all_layers=layers and self.model.layers > 0)
        return Layout.of(read, spec.dtype, reduction)


@dataclass
class Written:
    """What was written into a cache."""

    copied: int
    rounding: Rounding
    repeated: int = 0  # texts with the tokens of another one of the same file


@dataclass(frozen=True)
class Part:
    """The part of the data set that is written into a shard."""

    shard: Shard
    layers: bool | None
    wait: bool  # for another process that writes it, rather than raise LockedError
    specs: Mapping[Path, CacheSpec]  # by the paths of the shard's files, as what follows
    reductions: Mapping[Path, Reduction]
    roundings: Mapping[Path, Rounding]
    on_progress: OnProgress
    is_first: bool = False  # that this call computes: it is the one to say what is true of all

    def is_that_of(self, cache: Cache) -> bool:
        """Whether an open file is the one to be written."""
        sizes = {name: len(split) for name, split in cache.splits.items()}
        return (
            cache.spec == self.specs[cache.path]
            and cache.file.attributes[""].get(SHARD) == self.shard.label
            and (sizes, cache.tokens) == (self.shard.sizes, self.shard.tokens)
            and self.shard.crc32 in (None, cache.file.crc32)
        )

    def remove_others(self, path: Path) -> None:
        """Delete a file that is damaged, or another one, and say so."""
        try:
            with Cache(path) as cache:
                if self.is_that_of(cache):
                    return
            problem = f"{path} is not shard {self.shard.label} of its cache"
        except DamagedCacheError as error:
            problem = f"{path} is damaged ({one_line(error, 80)})"
        log.warning("%s: it is computed again", problem)
        files.clear_away(path)


# The file.


def complete(
    call: Call,
    specs: Mapping[Path, CacheSpec],
    data: TextDataset,
    part: Part | None = None,
) -> tuple[dict[Path, Written], int]:
    """Write what cache files lack that differ in the layer alone, and hold all of the data or one
    `part` of it.

    Returns what was written into each, and the number of tokens that were run through the backbone.
    """
    encoding, clock, layers = call.encoding, call.clock, call.layers
    on_progress = call.on_progress
    if part is not None:
        layers, on_progress = part.layers, part.on_progress
    with unfinished(specs, layers, part) as left, ExitStack() as stack:
        locked = time.perf_counter()
        if not left:
            return {}, 0
        spec = specs[left[0]]
        if part is None:
            _log_differences(left[0], spec, specs)
        with clock.measure("tokenizing"):
            before = {} if part is None else part.shard.before
            examples = tokenize(
                call.backbone_files, data, spec, on_progress, before,
                None if part is None else Lengths(),
            )  # fmt: skip
        with_layers = {path: keeps_layers(path, layers) for path in left}
        if not call.model.layers and any(with_layers.values()):
            if layers:
                raise SpaceliteError(
                    f"layers=True: the layers of {call.model.name} differ in width: leave "
                    "layers=True out",
                    ["layers"],
                )
            with_layers = dict.fromkeys(left, False)
        model = call.model.reading(
            layer=spec.layer,
            others=tuple(specs[path].layer for path in left[1:]),
            all_layers=any(with_layers.values()),
        )
        splits = examples.indexes
        reductions: Mapping[Path, Reduction] = {}
        if part is not None:
            reductions = part.reductions
        elif spec.reduce is not None:
            with clock.measure("fitting axes"):
                reductions = _reductions(call, {path: specs[path] for path in left}, examples)
        layouts = {
            path: call.layout(specs[path], reductions.get(path), layers=with_layers[path])
            for path in left
        }
        plans: dict[Path, reusing.Plan] = {}

        def keep_plan(path: Path) -> None:
            """What a run that continues the cache has to know."""
            if part is None:
                store.keep_maker(path, call.command)
            if call.reuse:
                key, ids = specs[path].cache_key(), examples.tokens.identities
                with_means = layouts[path].layers > 0
                plans[path] = reusing.find(path, specs[path], ids, with_layers=with_means)
                if len(plans[path].computed) < len(ids):
                    reusing.write(path, key, plans[path])

        lay_out(
            specs, layouts, splits, examples.tokens.padding_side, first=keep_plan,
            shard=None if part is None else part.shard.label,
        )  # fmt: skip
        counts = cached_texts.count_unknown(splits, examples.tokens.special)
        writings = []
        for path in left:
            key, ids, spec = specs[path].cache_key(), examples.tokens.ids, specs[path]
            cached_texts.keep(path, key, data, encoding.folder)
            cached_texts.write_unknown(path, counts)
            plan = plans[path] if path in plans else reusing.read(path, key, len(ids))
            prefix = f"layer {spec.layer}: " if len(specs) > 1 else ""
            writings.append(
                Writing(
                    path,
                    spec,
                    plan,
                    stack.enter_context(
                        Writer(
                            path, layers=layouts[path].layers > 0, layers_required=layers is True
                        )
                    ),
                    examples,
                    f"{'' if part is None else f'{part.shard.name}: '}{prefix}",
                    Rounding(stored_type(spec.dtype)) if part is None else part.roundings[path],
                )
            )
        repeated = max(len(writing.plan.repeated) for writing in writings)
        if part is None:
            say_repeated(repeated, len(examples.lengths))
        first = part is None or part.is_first
        if model.precision != "float32":
            if first and model.device == "cpu" and instructions(model.precision) is None:
                log.warning(
                    "this processor has no instructions for %s: float32 is faster here",
                    model.precision,
                )
            _keep_half_precision_error(left, model, call.backbone_files, examples.tokens)
        elif first and encoding.precision == "auto" and examples.lengths.sum() >= MANY_TOKENS:
            _compare_half_precision(model, call.backbone_files, examples.tokens)
        stored, budget = stored_type(spec.dtype), encoding.tokens_per_batch
        with_rows = any("tokens" in writing.writer.missing for writing in writings)
        forward = Forward(
            model,
            examples.tokens,
            stored.to_rows,
            budget or default_budget(model.device),
            measure=rounding_sums(stored) if with_rows else None,
            reduce=[reductions[path].on(model.device) for path in left if reductions],
            clock=clock,
        )
        try:
            tokens = write_missing(writings, forward, on_progress)
            for writing in writings:
                if part is None:
                    writing.rounding.log(writing.distinct, writing.prefix)
                if first and call.command == "embed":  # `eval` has no choice
                    writing.report_sink()
        finally:
            store.add_seconds(left, time.perf_counter() - locked)
        written = {
            writing.path: Written(writing.copied, writing.rounding, repeated)
            for writing in writings
        }
        return written, tokens


def say_repeated(texts: int, of: int, where: str = "") -> None:
    """Say how many texts are copies of an earlier one."""
    if texts:
        log.info(
            "%s of %s texts have the same tokens as another one%s and are not run again",
            f"{texts:,}", f"{of:,}", where,
        )  # fmt: skip


def complete_beside(call: Call, path: Path, spec: CacheSpec, data: TextDataset) -> None:
    """Write what a finished cache file lacks beside it: an older version wrote it."""
    if not cached_texts.read_unknown(path).splits:
        special = special_ids(held_tokenizer(call.backbone_files))
        with Cache(path) as cache:
            splits = {name: split.read_index() for name, split in cache.splits.items()}
        cached_texts.write_unknown(path, cached_texts.count_unknown(splits, special))
    cached_texts.keep(path, spec.cache_key(), data, call.encoding.folder)


# Tokens.


@dataclass
class Lengths:
    """How many texts are longer than what is run at once."""

    texts: int = 0
    windowed: int = 0
    truncated: int = 0
    pairs: bool = False

    def add(self, tokens: Tokenized, spec: CacheSpec) -> None:
        """Count some more texts."""
        self.texts += len(tokens.ids)
        self.truncated += tokens.truncated
        self.pairs = spec.pairs
        if spec.stride is not None:
            self.windowed += sum(len(ids) > spec.max_length for ids in tokens.ids)

    def log(self, longest: int) -> None:
        """Say what became of them."""
        if self.windowed:
            log.info(
                "%s of %s texts %s longer than %s tokens and run in windows of as many",
                f"{self.windowed:,}", f"{self.texts:,}", "is" if self.windowed == 1 else "are",
                longest,
            )  # fmt: skip
        if self.truncated:
            log.info(
                "%s of %s %s %s longer than %s tokens and %s cut off%s",
                f"{self.truncated:,}", f"{self.texts:,}", "pairs" if self.pairs else "texts",
                *(("is", longest, "was") if self.truncated == 1 else ("are", longest, "were")),
                ", the longer text first" if self.pairs else " there",
            )  # fmt: skip


def tokenize(
    backbone_files: BackboneFiles,
    texts: TextDataset,
    spec: CacheSpec,
    on_progress: OnProgress,
    before: Mapping[str, int] | None = None,
    counted: Lengths | None = None,
) -> Examples:
    """The token ids of a data set, or of a part of it, `before` which there are so many examples of
    each split. Raises SpaceliteError if a text has no token. That texts are cut off is said, or
    `counted`."""
    everything = [text for split in texts.splits.values() for text in split.texts]
    on_progress("tokenize", 0, len(everything))
    tokens = tokenizer.tokenize(
        backbone_files,
        everything,
        **spec.tokenizing,
        tokenizer=held_tokenizer(backbone_files),
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
    examples = Examples(starts, indexes, tokens, lengths, before or {})
    if not lengths.all():
        split, row = examples.location(int(np.argmin(lengths)))
        raise SpaceliteError(
            f"{texts.name} {split}: text {examples.before.get(split, 0) + row + 1} has no token "
            f"that {backbone_files.name} knows: remove it"
        )
    here = counted or Lengths()
    here.add(tokens, spec)
    if counted is None:
        here.log(spec.max_length)
    return examples


# Axes.


def _reductions(
    call: Call, specs: Mapping[Path, CacheSpec], examples: Examples
) -> dict[Path, Reduction]:
    """What the hidden states of caches that differ in the layer alone are reduced by: what a cache
    that was laid out holds, what was given, or the axes of a sample of train tokens."""
    reductions: dict[Path, Reduction] = {}
    for path in specs:
        if path.exists():
            with Cache(path) as cache:
                if cache.reduction is not None:
                    reductions[path] = cache.reduction
    if new := [path for path in specs if path not in reductions]:

        def sample() -> tuple[Examples, Array]:
            first = examples.splits["train"]
            of_train = examples.lengths[first : first + len(examples.indexes["train"].labels)]
            return examples, first + sampled(call, new, of_train)

        reductions |= fitted(call, new, sample)
    return {path: reductions[path] for path in specs}


def sampled(call: Call, paths: Sequence[Path], lengths: Array) -> Array:
    """The train texts, of so many tokens each, that axes are fitted on: in a seeded order, until
    they have SAMPLED tokens for each dimension."""
    widths = [call.layout(call.specs[path], None, layers=False).width for path in paths]
    order = np.random.default_rng(SEED).permutation(len(lengths))
    last = int(np.searchsorted(np.cumsum(lengths[order]), SAMPLED * max(widths)))
    chosen: Array = order[: last + 1]
    return chosen


def fitted(
    call: Call, paths: Sequence[Path], sample: Callable[[], tuple[Examples, Array]]
) -> dict[Path, Reduction]:
    """What was given, or the principal axes of the layers of some caches: of some examples, which
    `sample` gives. Raises SpaceliteError as `Moments.reduction`."""
    wanted, layers = call.encoding.reduce, [call.specs[path].layer for path in paths]
    if isinstance(wanted, Reduction):
        return dict.fromkeys(paths, wanted)
    widths = [call.model.reading(layer=layer).width for layer in layers]
    if isinstance(wanted, int) and wanted > min(widths):
        raise SpaceliteError(
            f"reduce={wanted}: the hidden states of {call.model.name} have {min(widths):,} "
            "dimensions: give a smaller number",
            ["reduce"],
        )
    model = call.model.reading(layer=layers[0], others=tuple(layers[1:]))
    examples, chosen = sample()
    lengths = np.array([len(examples.tokens.ids[example]) for example in chosen], np.int64)
    budget = call.encoding.tokens_per_batch or default_budget(model.device)
    plan = [chosen[batch] for batch in plan_batches(lengths, budget)]
    forward = Forward(model, examples.tokens, lambda hidden: hidden, budget)
    moments, exact = [Moments(width) for width in widths], stored_type("float32")
    done, total = 0, int(examples.lengths[chosen].sum())
    call.on_progress("reduce", 0, total)
    with pipeline.reading(forward.batches(plan, lambda *pair: pair)) as results:
        for batch, output in results:
            for of_layer, states in zip(moments, output.states, strict=True):
                for row, example in enumerate(batch.tolist()):
                    check_finite(states[row], exact, examples.called(example))
                of_layer.add(states.reshape(-1, states.shape[-1]))
            done += int(examples.lengths[batch].sum())
            call.on_progress("reduce", done, total)
    reductions = {}
    for path, of_layer in zip(paths, moments, strict=True):
        reductions[path] = of_layer.reduction(str(wanted))
        prefix = f"layer {call.specs[path].layer}: " if len(call.specs) > 1 else ""
        log.info("%sreduced to %s", prefix, reductions[path].words)
    return reductions


# Laying out.


def lay_out(
    specs: Mapping[Path, CacheSpec],
    layouts: Mapping[Path, Layout],
    splits: Mapping[str, SplitIndex],
    padding_side: str,
    smaller: str = SMALLER,
    first: Callable[[Path], None] = lambda path: None,
    shard: str | None = None,
) -> None:
    """Lay out what is missing of caches that differ in the layer alone, and of their files of layer
    means. Raises SpaceliteError if the disk is full, too small for all of them, or broken;
    `smaller` says how they would take less of it. `first` is called for each new cache before it is
    there: what it keeps beside the cache a killed process does not lack. `shard` says which of
    several files of their caches these are."""
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
    check_room(next(iter(layouts)).parent, sizes, smaller, say=shard is None)  # else it was said
    for path, layout in layouts.items():
        # The cache last: a process that is killed here leaves none without what is beside it.
        try:
            if path in new:
                first(path)
            if path in means:
                store.lay_out_layers(path, specs[path].cache_key(), splits, layout)
            if path in new:
                store.lay_out(path, specs[path], splits, layout, padding_side, shard)
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


def check_room(
    folder: Path,
    parts: Mapping[str, Sequence[int]],
    smaller: str,
    *,
    say: bool = True,
    refuse: bool = True,
) -> None:
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
    log.log(logging.INFO if say else logging.DEBUG, "%s, %s free", listed, files.human_bytes(free))
    if refuse and size > free:
        raise SpaceliteError(
            f"the cache needs {files.human_bytes(size)} and {folder} has "
            f"{files.human_bytes(free)} free: free some space, choose another cache_dir, {smaller}",
            ["cache_dir", "limit", "layers"],
        )


# What half precision costs and saves.


def _keep_half_precision_error(
    paths: Sequence[Path], model: Backbone, backbone_files: BackboneFiles, tokens: Tokenized
) -> None:
    """What a forward pass in half precision costs: measure the relative error of the hidden states
    against those of float32 over ERROR_TEXTS texts from all lengths (the norm of the differences
    divided by the norm of float32's), log it and keep it beside the caches, which `model` reads the
    layers of, in this order; of several files, beside their folder, by the first."""
    paths = [store.cache_of(path) for path in paths]
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
        hint = (
            f"this processor (its {found}) runs {model.name} {ratio:.1f} times as fast with "
            f"precision={precision}; embed then says how far hidden states move"
        )
        log.info(SpaceliteError(hint, ["precision"]))


# What is there already.


@contextmanager
def unfinished(
    specs: Mapping[Path, CacheSpec], layers: bool | None, part: Part | None = None
) -> Iterator[list[Path]]:
    """Those of some cache files that lack something, or their layer means if they are wanted, which
    are locked meanwhile. Raises SpaceliteError if the spec of one differs; a shard that is damaged,
    or another one, is removed."""
    # Looked for before anything is written: the folder may be read-only.
    left = [path for path in specs if not is_finished(path, specs[path], layers, part)]
    with ExitStack() as stack:
        for path in sorted(left):  # in an order on which all processes agree
            files.make_folder(path.parent, "choose another cache_dir")
            stack.enter_context(files.lock(path, wait=part is None or part.wait))
        # Another process may have written some while this one waited.
        left = [path for path in left if not is_finished(path, specs[path], layers, part)]
        if part is not None:
            for path in filter(Path.exists, left):
                part.remove_others(path)
        yield left


def is_finished(path: Path, spec: CacheSpec, layers: bool | None, part: Part | None = None) -> bool:
    """Whether a cache file exists and is complete, with its layer means if they are wanted. Raises
    SpaceliteError if its spec differs, unless it is a shard."""
    if not path.exists():
        return False
    try:
        cache = Cache(path)
    except DamagedCacheError:
        if part is None:
            raise
        return False
    with cache:
        if part is not None and not part.is_that_of(cache):
            return False
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
