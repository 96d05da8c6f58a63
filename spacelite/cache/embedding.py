"""Data set + backbone -> cache file: plan, lay out, run, resume."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.backbones import files as checkpoints
from spacelite.backbones import model as backbones
from spacelite.cache import journal, store
from spacelite.cache import spec as specs
from spacelite.cache.spec import Spec
from spacelite.data import loading as data
from spacelite.errors import SpaceliteError, is_out_of_memory

log = logging.getLogger(__name__)

PADDINGS = ("none", "max_length")
COMMIT_SECONDS = 2.0  # at most this much work is lost when the machine loses power

Array = npt.NDArray[Any]
# Called with the phase ("tokenize", counted in texts, or "embed", counted in tokens), how much
# of it is done, and how much there is.
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Embedded:
    """The outcome of `embed`: the finished cache, and whether it was there already (`hit`)."""

    path: Path
    hit: bool
    seconds: float


@dataclass(frozen=True)
class _Examples:
    """All splits' token ids in one row, in file order: what the batch plan counts in."""

    splits: list[str]
    starts: list[int]  # where each split begins
    tokens: backbones.Tokenized
    lengths: Array

    def place(self, example: int) -> tuple[str, int]:
        """The split of an example and its number there."""
        split = int(np.searchsorted(self.starts, example, side="right")) - 1
        return self.splits[split], example - self.starts[split]


def embed(
    *,
    backbone: str,
    dataset: str,
    cache_dir: Path,
    max_length: int = 256,
    dtype: str = "float16",
    layer: int = -1,
    padding: str = "none",
    limit: int | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    data_dir: Path | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Embedded:
    """Run a frozen backbone once over a data set and keep every token's hidden state.

    A finished cache with the same spec is returned at once; an unfinished one is gone on with, and
    ends as the same bytes as an uninterrupted run's. `tokens_per_batch` bounds tokens a forward
    pass (default 4,096 on a CPU, 65,536 on a GPU). The other arguments are `spacelite embed`'s
    options. Raises SpaceliteError for every failure that the user can mend.
    """
    started = time.perf_counter()
    if dtype not in store.DTYPES:
        raise SpaceliteError(f"--dtype {dtype}: choose {' or '.join(store.DTYPES)}")
    if padding not in PADDINGS:
        raise SpaceliteError(f"--padding {padding}: choose {' or '.join(PADDINGS)}")
    if tokens_per_batch is not None and tokens_per_batch < 1:
        raise SpaceliteError(f"--tokens-per-batch {tokens_per_batch}: give at least 1")
    files = checkpoints.locate(backbone, revision)
    texts = data.load(
        dataset,
        text_column=text_column,
        label_column=label_column,
        limit=limit,
        data_dir=data_dir,
    )
    device = backbones.resolve_device(device)
    spec: Spec = {
        "format": store.FORMAT,
        "dataset": texts.name,
        "dataset_hash": texts.fingerprint,
        "label_names": list(texts.label_names),
        "backbone": files.name,
        "backbone_version": files.version,
        "tokenizer_hash": files.tokenizer_hash,
        "max_length": max_length,
        "layer": layer,
        "padding": padding,
        "dtype": dtype,
        "precision": backbones.forward_precision(device),
    }
    path = specs.path_of(cache_dir, spec)
    if _is_finished(path, spec):  # before anything is written: the folder may be read-only
        return Embedded(path, True, time.perf_counter() - started)
    store.make_folder(path.parent)
    with store.lock(path):
        held = time.perf_counter()
        if not _is_finished(path, spec):
            _say_what_differs(path, spec)
            examples = _tokenize(files, texts, max_length, padding, on_progress)
            model = backbones.Backbone(files, layer=layer, device=device)
            splits = _index(texts, examples)
            if path.exists():
                _check_index(path, splits)
            else:
                _lay_out(path, spec, splits, model, examples.tokens.padding_side)
            budget = tokens_per_batch or default_budget(device)
            try:
                _run(path, model, examples, np.dtype(dtype), budget, on_progress)
            finally:
                store.add_seconds(path, time.perf_counter() - held)
            return Embedded(path, False, time.perf_counter() - started)
    return Embedded(path, True, time.perf_counter() - started)


def backbone_settings(spec: Spec, backbone: str | None = None) -> dict[str, Any]:
    """The arguments of `embed` that make the hidden states of another data set comparable to those
    of a cache with this spec. `backbone`: where it lies, if it was a local folder."""
    kind, _, version = str(spec["backbone_version"]).partition(":")
    revision = version if kind == "revision" and backbone is None else None
    return {
        "backbone": backbone or spec["backbone"],
        "revision": revision,
        **{name: spec[name] for name in ("max_length", "layer", "padding", "dtype")},
    }


def _is_finished(path: Path, spec: Spec) -> bool:
    """Whether the cache is there and complete; SpaceliteError where it is of another spec."""
    if not path.exists():
        return False
    with store.Cache(path) as cache:
        if cache.spec != spec:
            fields = ", ".join(specs.differing_fields(cache.spec, spec))
            raise SpaceliteError(
                f"{path} was made with other settings: {fields}; remove it (spacelite cache "
                f"remove {path.stem}) or choose another --cache-dir"
            )
        return cache.complete


def _say_what_differs(path: Path, spec: Spec) -> None:
    """Say why caches of the same backbone and data set do not serve."""
    if path.exists():
        return
    family = path.stem.rpartition("--")[0]
    for other in path.parent.glob(f"{family}--*.h5"):
        try:
            with store.Cache(other) as cache:
                fields = ", ".join(specs.differing_fields(cache.spec, spec))
        except SpaceliteError:
            continue  # `cache list` tells of damaged files; this one is not asked for
        log.info("%s has other settings: %s; a new cache is made", other.stem, fields)


def _tokenize(
    files: checkpoints.Checkpoint,
    texts: data.TextDataset,
    max_length: int,
    padding: str,
    on_progress: OnProgress,
) -> _Examples:
    everything = [text for split in texts.splits.values() for text in split.texts]
    on_progress("tokenize", 0, len(everything))
    tokens = backbones.tokenize(
        files,
        everything,
        max_length=max_length,
        padding=padding,
        on_chunk=lambda done: on_progress("tokenize", done, len(everything)),
    )
    sizes = [len(split) for split in texts.splits.values()]
    starts = np.concatenate([[0], np.cumsum(sizes[:-1])]).astype(int).tolist()
    lengths = np.array([len(ids) for ids in tokens.ids], np.int64)
    examples = _Examples(list(texts.splits), starts, tokens, lengths)
    if not lengths.all():
        split, row = examples.place(int(np.argmin(lengths)))
        raise SpaceliteError(
            f"{texts.name} {split}: text {row + 1} has no token that {files.name} knows: remove it"
        )
    if tokens.truncated:
        log.info(
            "%s of %s texts are longer than %s tokens and are cut there",
            f"{tokens.truncated:,}", f"{len(everything):,}", max_length,
        )  # fmt: skip
    return examples


def _index(texts: data.TextDataset, examples: _Examples) -> dict[str, store.SplitIndex]:
    splits = {}
    for (name, split), start in zip(texts.splits.items(), examples.starts, strict=True):
        stop = start + len(split)
        splits[name] = store.SplitIndex(
            np.concatenate([[0], np.cumsum(examples.lengths[start:stop])]).astype(np.int64),
            split.labels,
            np.concatenate(examples.tokens.ids[start:stop]),
        )
    return splits


def _check_index(path: Path, splits: dict[str, store.SplitIndex]) -> None:
    """Raise SpaceliteError where an unfinished file was laid out for other tokens than today's."""
    with store.Cache(path) as cache:
        for name, index in splits.items():
            if index.crc32 != cache.index_crc32(name) or not cache.index_is_intact(name):
                raise SpaceliteError(
                    f"{path} does not hold the tokens that {name} has now (damaged, or begun with "
                    f"another version of transformers): remove it (spacelite cache remove "
                    f"{path.stem}) and run embed again"
                )


def _lay_out(
    path: Path,
    spec: Spec,
    splits: dict[str, store.SplitIndex],
    model: backbones.Backbone,
    padding_side: str,
) -> None:
    store.timing_of(path).unlink(missing_ok=True)  # of a cache that was deleted by hand
    store.partial_of(path).unlink(missing_ok=True)  # of a process that was killed while laying out
    tokens = sum(len(index.token_ids) for index in splits.values())
    layout = {"width": model.width, "dtype": spec["dtype"], "pooled": model.has_pooler}
    size = store.file_size(splits, **layout)
    free = shutil.disk_usage(path.parent).free
    log.info(
        "%s tokens of width %s: %s, %s free", f"{tokens:,}", model.width,
        human_bytes(size), human_bytes(free),
    )  # fmt: skip
    if size > free:
        raise SpaceliteError(
            f"the cache needs {human_bytes(size)} and {path.parent} has {human_bytes(free)} free: "
            "free some space, choose another --cache-dir, or embed fewer examples (--limit)"
        )
    store.lay_out(path, spec, splits, **layout, padding_side=padding_side)


def human_bytes(count: float) -> str:
    """A number of bytes for people: `438.1 MB` (decimal units, as disks are sold)."""
    units = ("bytes", "kB", "MB", "GB", "TB")
    unit = 0
    while count >= 1000 and unit < len(units) - 1:
        count, unit = count / 1000, unit + 1
    return f"{count:.1f} {units[unit]}" if unit else f"{int(count)} bytes"


def default_budget(device: str) -> int:
    """Tokens a forward pass where none are given."""
    return 4096 if device == "cpu" else 65536


def plan_batches(lengths: Array, tokens_per_batch: int) -> Iterator[Array]:
    """Batches of example numbers, longest first, each of one length, so that none is padded.

    A function of the lengths and the budget alone: a resumed run forms the same batches, and so
    the same bytes. Equal lengths cost at most one small batch for each length, and save the
    attention mask as well as the padding.
    """
    order = np.argsort(-lengths, kind="stable")
    for run in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        size = max(1, tokens_per_batch // int(lengths[run[0]]))
        for start in range(0, len(run), size):
            yield run[start : start + size]


def _run(
    path: Path,
    model: backbones.Backbone,
    examples: _Examples,
    dtype: np.dtype[Any],
    budget: int,
    on_progress: OnProgress,
) -> None:
    """Compute every example that is not done yet."""
    with journal.Writer(path) as writer:
        done_before = np.concatenate([writer.done[split] for split in examples.splits]) == 1
        total, count = int(examples.lengths.sum()), int(examples.lengths[done_before].sum())
        if count:
            log.info("going on: %s of %s tokens are done", f"{count:,}", f"{total:,}")
        on_progress("embed", count, total)
        limit = budget
        committed = time.monotonic()
        try:
            for batch in plan_batches(examples.lengths, budget):
                if done_before[batch].all():
                    continue
                # The whole batch is computed again even where part of it is done: its examples'
                # bytes depend, in the last bit, on the batch they are computed in.
                hidden, pooled, limit = forward(model, examples.tokens, batch, dtype, limit)
                for row, example in enumerate(batch):
                    if not done_before[example]:
                        split, number = examples.place(int(example))
                        _check_finite(hidden[row], split, number, dtype)
                        writer.write(
                            split, number, hidden[row], None if pooled is None else pooled[row]
                        )
                        count += len(hidden[row])
                if time.monotonic() - committed > COMMIT_SECONDS:
                    writer.commit()
                    committed = time.monotonic()
                on_progress("embed", count, total)
        finally:
            writer.commit()


def _check_finite(rows: Array, split: str, number: int, dtype: np.dtype[Any]) -> None:
    if not np.isfinite(rows).all():
        remedy = "use --dtype float32" if dtype == np.float16 else "the backbone is not usable"
        raise SpaceliteError(
            f"{split} example {number} has hidden states beyond {dtype.name}: {remedy}"
        )


def forward(
    model: backbones.Backbone,
    tokens: backbones.Tokenized,
    batch: Array,
    dtype: np.dtype[Any],
    limit: int,
) -> tuple[Array, Array | None, int]:
    """Run a batch of texts of one length: hidden states (B, n, d) in `dtype`, pooled outputs (B, d)
    float32 where there are any, and the tokens a forward pass that memory allowed: `limit`, halved
    as often as it runs out. Raises SpaceliteError where it does not suffice for a single text."""
    import torch

    length = len(tokens.ids[batch[0]])
    while True:
        size = max(1, limit // length)
        try:
            parts = [
                _forward_once(model, tokens, batch[start : start + size], dtype)
                for start in range(0, len(batch), size)
            ]
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise SpaceliteError(
                    f"memory does not suffice for one text of {length} tokens: use a smaller "
                    "--max-length or backbone"
                ) from error
            limit = max(length, min(limit, size * length) // 2)
            log.warning("out of memory: going on with %s tokens a batch", f"{limit:,}")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        hidden = np.concatenate([hidden for hidden, _ in parts])
        pooled = [pooled for _, pooled in parts if pooled is not None]
        return hidden, np.concatenate(pooled) if pooled else None, limit


def _forward_once(
    model: backbones.Backbone, tokens: backbones.Tokenized, batch: Array, dtype: np.dtype[Any]
) -> tuple[Array, Array | None]:
    import torch

    def stacked(arrays: list[Array] | None) -> Array | None:
        return None if arrays is None else np.stack([arrays[example] for example in batch])

    hidden, pooled = model.hidden_states(
        np.stack([tokens.ids[example] for example in batch]),
        stacked(tokens.type_ids),
        stacked(tokens.masks),
    )
    stored = hidden.to(getattr(torch, dtype.name)).cpu().numpy()
    return stored, None if pooled is None else pooled.cpu().numpy()
