"""Data set and backbone -> cache file: find or create it, tokenize, run the backbone, resume."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import backbones, files
from spacelite.backbones import BackboneFiles, Tokenized
from spacelite.cache import journal, store, unknown
from spacelite.cache import texts as cached_texts
from spacelite.cache.dtypes import StoredType, stored_type
from spacelite.cache.spec import CacheSpec
from spacelite.cache.split import SplitIndex
from spacelite.data import inputs
from spacelite.data.splits import TextDataset
from spacelite.errors import SpaceliteError

log = logging.getLogger(__name__)

PADDINGS = ("none", "max_length")
COMMIT_SECONDS = 2.0  # most work that can be lost if the machine loses power

Array = npt.NDArray[Any]
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Embedded:
    """What `embed` returns.

    Attributes:
        path: The finished cache.
        hit: Whether the cache existed already.
        seconds: Duration of the call.
    """

    path: Path
    hit: bool
    seconds: float


@dataclass(frozen=True)
class _Examples:
    """The examples of all splits in one sequence, in file order: the batch plan indexes this
    sequence."""

    splits: list[str]
    starts: list[int]  # index of each split's first example
    tokens: Tokenized
    lengths: Array

    def location(self, example: int) -> tuple[str, int]:
        """The split of an example and its index in that split."""
        split = int(np.searchsorted(self.starts, example, side="right")) - 1
        return self.splits[split], example - self.starts[split]


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
    layer: int = -1,
    padding: str = "none",
    limit: int | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    revision: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    data_dir: Path | None = None,
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
        layer: Layer of the hidden states: -1 the last, 0 the embedding layer.
        padding: `none`, or `max_length` to pad every text and cache padded positions as tokens.
        limit: Maximum examples per split: a seeded, stratified sample.
        device: Device of the backbone: `auto`, `cpu`, `cuda`, ...
        tokens_per_batch: Maximum tokens per forward pass. Default: 4,096 on a CPU, 65,536 on a GPU.
        revision: Commit, branch or tag of a hub backbone.
        text_column: Name of the text column. Default: recognised automatically.
        label_column: Name of the label column. Default: recognised automatically.
        data_dir: Folder of local data sets, searched by name before the hub.
        check: Called with the data set once it is read, before anything is computed; it may raise.
        on_progress: Called with the phase (`tokenize`, counted in texts, or `embed`, counted in
            tokens), the amount done and the total.

    Returns:
        The path of the finished cache, whether it existed already, and the duration.

    Raises:
        SpaceliteError: The data set, backbone or settings cannot be used, or the disk or memory is
            full: the message says what to do.
    """
    started = time.perf_counter()
    stored = stored_type(dtype)
    if padding not in PADDINGS:
        raise SpaceliteError(f"padding={padding}: choose {' or '.join(PADDINGS)}", ["padding"])
    backbones.check_budget(tokens_per_batch)
    backbone_files = backbones.locate(backbone, revision)
    found = inputs.read(
        dataset,
        texts=texts,
        labels=labels,
        name=name,
        text_column=text_column,
        label_column=label_column,
        limit=limit,
        data_dir=data_dir,
    )
    check(found)
    device = backbones.resolve_device(device)
    spec = CacheSpec(
        format=store.FORMAT,
        dataset=found.name,
        dataset_hash=found.fingerprint,
        label_names=tuple(found.label_names),
        backbone=backbone_files.name,
        backbone_version=backbone_files.version,
        tokenizer_hash=backbone_files.tokenizer_hash,
        max_length=max_length,
        layer=layer,
        padding=padding,
        dtype=dtype,
        precision=backbones.forward_precision(device),
    )
    path = spec.path(cache_dir)
    if _is_finished(path, spec):  # before anything is written: the folder may be read-only
        _count_unknown(path, backbone_files)
        cached_texts.keep(path, spec.cache_key(), found.splits)
        return Embedded(path, True, time.perf_counter() - started)
    files.make_folder(path.parent, "choose another cache_dir")
    with files.lock(path):
        locked = time.perf_counter()
        if not _is_finished(path, spec):
            _log_differences(path, spec)
            examples = _tokenize(backbone_files, found, max_length, padding, on_progress)
            model = backbones.Backbone(backbone_files, layer=layer, device=device)
            splits = _index(found, examples)
            if path.exists():
                _check_index(path, splits)
            else:
                _lay_out(path, spec, splits, model, examples.tokens.padding_side)
            cached_texts.keep(path, spec.cache_key(), found.splits)
            unknown.write(
                path,
                unknown.count(
                    ((name, one.token_ids, one.offsets) for name, one in splits.items()),
                    examples.tokens.special,
                ),
            )
            budget = tokens_per_batch or backbones.default_budget(device)
            try:
                _run(path, model, examples, stored, budget, on_progress)
            finally:
                store.add_seconds(path, time.perf_counter() - locked)
            return Embedded(path, False, time.perf_counter() - started)
    return Embedded(path, True, time.perf_counter() - started)


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


def _is_finished(path: Path, spec: CacheSpec) -> bool:
    """Whether the cache exists and is complete. Raises SpaceliteError if its spec differs."""
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
        return cache.complete


def _count_unknown(path: Path, backbone_files: BackboneFiles) -> None:
    """Count the unknown tokens of a cache that has no counts: an older version wrote it."""
    if unknown.read(path) is None:
        special = backbones.special_ids(backbone_files)
        with store.Cache(path) as cache:
            splits = ((n, one.read_token_ids(), one.offsets) for n, one in cache.splits.items())
            unknown.write(path, unknown.count(splits, special))


def _log_differences(path: Path, spec: CacheSpec) -> None:
    """Say why other caches of the same backbone and data set are not used."""
    if path.exists():
        return
    family = path.stem.rpartition("--")[0]
    for other in path.parent.glob(f"{family}--*.h5"):
        try:
            with store.Cache(other) as cache:
                differences = ", ".join(cache.spec.differences(spec))
        except SpaceliteError:
            continue  # `cache list` shows damaged files
        log.info("%s has other settings (%s): embedding into a new cache", other.stem, differences)


def _tokenize(
    backbone_files: BackboneFiles,
    texts: TextDataset,
    max_length: int,
    padding: str,
    on_progress: OnProgress,
) -> _Examples:
    everything = [text for split in texts.splits.values() for text in split.texts]
    on_progress("tokenize", 0, len(everything))
    tokens = backbones.tokenize(
        backbone_files,
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
        split, row = examples.location(int(np.argmin(lengths)))
        raise SpaceliteError(
            f"{texts.name} {split}: text {row + 1} has no token that {backbone_files.name} "
            "knows: remove it"
        )
    if tokens.truncated:
        log.info(
            "%s of %s texts are longer than %s tokens and were cut off there",
            f"{tokens.truncated:,}", f"{len(everything):,}", max_length,
        )  # fmt: skip
    return examples


def _index(texts: TextDataset, examples: _Examples) -> dict[str, SplitIndex]:
    splits = {}
    for (name, split), start in zip(texts.splits.items(), examples.starts, strict=True):
        stop = start + len(split)
        splits[name] = SplitIndex(
            np.concatenate([[0], np.cumsum(examples.lengths[start:stop])]).astype(np.int64),
            split.labels,
            np.concatenate(examples.tokens.ids[start:stop]),
        )
    return splits


def _check_index(path: Path, splits: dict[str, SplitIndex]) -> None:
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


def _lay_out(
    path: Path,
    spec: CacheSpec,
    splits: dict[str, SplitIndex],
    model: backbones.Backbone,
    padding_side: str,
) -> None:
    # Left over from a cache that was deleted by hand, or from a process that was killed here.
    for former in (
        store.timing_path(path), store.partial_path(path), unknown.counts_path(path)
    ):  # fmt: skip
        former.unlink(missing_ok=True)
    tokens = sum(len(index.token_ids) for index in splits.values())
    size = store.file_size(splits, model.width, spec.dtype, model.has_pooler)
    free = shutil.disk_usage(path.parent).free
    log.info(
        "%s tokens of width %s: %s, %s free", f"{tokens:,}", model.width,
        files.human_bytes(size), files.human_bytes(free),
    )  # fmt: skip
    if size > free:
        raise SpaceliteError(
            f"the cache needs {files.human_bytes(size)} and {path.parent} has "
            f"{files.human_bytes(free)} free: free some space, choose another cache_dir, or embed "
            "fewer examples with limit=N",
            ["cache_dir", "limit"],
        )
    store.lay_out(
        path,
        spec,
        splits,
        width=model.width,
        pooled=model.has_pooler,
        padding_side=padding_side,
    )


def _run(
    path: Path,
    model: backbones.Backbone,
    examples: _Examples,
    stored: StoredType,
    budget: int,
    on_progress: OnProgress,
) -> None:
    """Compute the hidden states of every example that is not done yet."""
    with journal.Writer(path) as writer:
        done_before = np.concatenate([writer.done[split] for split in examples.splits]) == 1
        total, count = int(examples.lengths.sum()), int(examples.lengths[done_before].sum())
        if count:
            log.info("continuing: %s of %s tokens are done", f"{count:,}", f"{total:,}")
        on_progress("embed", count, total)
        limit = budget
        committed = time.monotonic()
        try:
            for batch in backbones.plan_batches(examples.lengths, budget):
                if done_before[batch].all():
                    continue
                # The whole batch is computed even if part of it is done: the last bit of an
                # example's numbers depends on the batch that it is computed in.
                hidden, pooled, limit = backbones.forward(
                    model, examples.tokens, batch, stored.encode, limit
                )
                for row, example in enumerate(batch):
                    if not done_before[example]:
                        split, index = examples.location(int(example))
                        _check_finite(hidden[row], split, index, stored)
                        writer.write(
                            split, index, hidden[row], None if pooled is None else pooled[row]
                        )
                        count += len(hidden[row])
                if time.monotonic() - committed > COMMIT_SECONDS:
                    writer.commit()
                    committed = time.monotonic()
                on_progress("embed", count, total)
        finally:
            writer.commit()


def _check_finite(rows: Array, split: str, index: int, stored: StoredType) -> None:
    if not np.isfinite(rows).all():
        wider = stored.dtype != "float32"
        remedy = "use dtype=float32" if wider else "choose another backbone or layer"
        raise SpaceliteError(
            f"{split} example {index} has hidden states that {stored.dtype} cannot hold: {remedy}",
            ["dtype", "backbone", "layer"],
        )
