"""Embedding: the command of the command line, with the same options; finding what it made."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spacelite import files, ranks
from spacelite.api.arguments import (
    CHOICE,
    FILE,
    NAME,
    NAME_OR_PATH,
    SOURCE,
    STRING,
    WHOLE_NUMBERS,
    checked,
)
from spacelite.api.results import EmbeddedDataset
from spacelite.cache import folder as caches
from spacelite.cache.embedding import Embedded, read_layers
from spacelite.cache.embedding import embed as embed_into
from spacelite.cache.importing import Import, import_states
from spacelite.cache.spec import Encoding
from spacelite.cache.store import made_by
from spacelite.data import loading
from spacelite.data.columns import Reading
from spacelite.data.splits import TextDataset
from spacelite.errors import SpaceliteError
from spacelite.progress import Progress, reporting
from spacelite.runs import store as saved_runs
from spacelite.settings import among

log = logging.getLogger(__name__)


@checked(layer=WHOLE_NUMBERS, precision=CHOICE, prefix=STRING)
def embed(
    dataset: Any = None,
    *,
    backbone: str | Path = "minilm",
    texts: Sequence[Any] | None = None,
    labels: Sequence[Any] | None = None,
    name: str | None = None,
    cache_dir: str | Path | None = None,
    max_length: int = 256,
    dtype: str = "float16",
    reduce: int | str | None = None,
    layer: int | Sequence[int] = -1,
    padding: str = "none",
    prefix: str = "",
    windows: bool = False,
    stride: int | None = None,
    skip_first: bool = False,
    layers: bool | None = None,
    limit: int | None = None,
    precision: str = "auto",
    device: str = "auto",
    tokens_per_batch: int | None = None,
    revision: str | None = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    data_dir: str | Path | None = None,
    labels_as: str = "auto",
    label_separator: str | None = None,
    task: str | None = None,
    split_column: str | None = None,
    test_fraction: float | None = None,
    skip_empty: bool = False,
    quoting: str = "standard",
    drop_leaks: bool = False,
    reuse: bool = True,
    shard_size: int | str | None = None,
    shard: str | None = None,
    progress: Progress = True,
) -> EmbeddedDataset:
    """Run a frozen backbone once over a data set and keep every token's hidden state.

    A finished cache of the same texts, labels and settings is returned at once.

    Args:
        dataset: A known data set's name (`imdb`, `hatexplain`, `hatexplain:2`, `demo`), a hub name,
            a file or a folder; a pandas DataFrame, a `datasets.DatasetDict`, or
            {"train": (texts, labels), ...}.
        backbone: A hub name, a local folder, or `minilm`; `random:minilm` and the like for random
            weights, a baseline for those that were learned.
        texts: N texts in place of `dataset`, all of them training data; or N pairs of texts:
            `[(premise, hypothesis), ...]`.
        labels: N labels of `texts`: numbers, strings, or lists of these (multi-label).
        name: Name of data passed as objects. Default: `texts`.
        cache_dir: Folder of caches and runs. Default: that of the variable `SPACELITE_CACHE`, else
            `cache`.
        max_length: Maximum tokens per text; the rest is cut off.
        dtype: Number type in which hidden states are stored: `float16`, `bfloat16`, `float32`,
            `int8` or `int4`.
        reduce: K to keep hidden states on their first K principal axes: those of a seeded sample of
            train tokens, each dimension standardised. `auto` is the smallest K that keeps 99% of
            their variance. Runs keep the axes, and apply them to new texts. Layer means stay whole;
            a pooler's outputs are left out.
        layer: Layer of the hidden states: -1 the last, 0 the embedding layer. Several layers of one
            pass get a cache each; `train` chooses between them with `layer`.
        padding: `none`, or `max_length` to pad every text and cache padded positions as tokens.
        windows: Whether texts of more than `max_length` tokens are cut into overlapping windows of
            as many, rather than cut off. Each token counts once, from the window in which it has
            most context.
        stride: Tokens between the beginnings of two windows. Default: half of `max_length`.
        skip_first: Whether the first token of each text is run with the others but not kept, for
            models that make it an attention sink. It is the beginning of the text if the tokenizer
            has no special token there. A text of a single token keeps it.
        prefix: What each text is read with, such as `query: ` for E5.
        layers: Whether the mean of every layer over each text's tokens is kept too, in a file of
            its own, which the pooling `layers` needs. Default: yes for a new cache; an existing one
            stays without them, and True adds them in one more forward pass.
        limit: Maximum examples per split: a seeded, stratified sample.
        precision: Number type of the backbone's weights and forward pass: `float32`, `bfloat16`,
            `float16`, or `auto` for float32 on a CPU and half precision on a GPU. How far half
            precision moves hidden states is measured and kept beside the cache.
        device: Device of the backbone: `auto`, `cpu`, `cuda`, ...
        tokens_per_batch: Maximum tokens per forward pass. Default: 1,024 on a CPU, in each of its
            threads; 65,536 on a GPU.
        revision: Commit, branch or tag of a hub backbone.
        text_column: Name of the text column, or the names of two, which are then read as pairs, as
            a list or with a comma between them. Default: recognised automatically.
        label_column: Name of the label column. Default: recognised automatically.
        data_dir: Folder of local data sets, searched by name before the hub. Default: that of the
            variable `SPACELITE_DATA`, if it is set.
        labels_as: `auto` to read labels that are all whole numbers as numbers, `text` to keep every
            label as it is written.
        label_separator: What separates several labels in one string, such as `;` (multi-label); an
            empty string is no label then.
        task: What labels mean: `single-label`, `multi-label`, `regression` for numbers to predict,
            or `ordinal` for whole numbers whose order counts, such as stars. Default: regression if
            all labels are numbers and some are not whole, else classification.
        split_column: Name of the column of a file or DataFrame that holds the split of each row:
            `train`, `validation` (or `val`, `valid`, `dev`) or `test`. Default: `split`, if names
            of splits are all that it holds.
        test_fraction: Fraction of the training texts that become the test split, if the data have
            none. Each text alone decides where it is, so that added rows move no other.
        skip_empty: Whether rows with an empty text are left out.
        quoting: How csv and tsv files are quoted: `standard`, or `none` if quotes are ordinary
            characters.
        drop_leaks: Whether training texts that also occur in validation or test are left out; texts
            that differ at most in case, accents and spaces are the same.
        reuse: Whether the hidden states of texts that other caches in `cache_dir` hold are copied
            from them, and texts that occur in the data set more than once are run once. Copied
            hidden states equal computed ones to about 1e-3, since the last bits depend on the batch
            in which they were computed; False computes them all.
        shard_size: Size in bytes, such as `2GB`, from which a cache is divided into several files,
            and which these have at most. Default: 4 GB.
        shard: One of several files of a cache, such as `3/8`: it alone is written, by any machine
            that shares `cache_dir`. `embed` without it then writes what is missing, and finishes
            the cache.
        progress: True for bars, False for none, or a function called with (phase, done, total).

    Returns:
        The finished cache, or with `shard` the one that it is a part of; of several layers that of
        the first, with the others in `others`.

    Raises:
        SpaceliteError: The data, backbone or settings cannot be used, or the disk or memory is
            full; the message says what to do.
    """
    arguments = dict(locals())
    folder = files.cache_folder(cache_dir)
    first, *further = read_layers(layer)
    how = {**arguments, "backbone": str(backbone), "layer": first}
    encoding = Encoding(**among(how, Encoding))

    def read() -> TextDataset:
        return loading.read(
            dataset,
            texts=texts,
            labels=labels,
            name=name,
            limit=limit,
            data_dir=files.data_folder(data_dir),
            test_fraction=test_fraction,
            drop_leaks=drop_leaks,
            scratch=folder,
            **among(arguments, Reading),
        )

    with reporting(progress if ranks.rank() == 0 else False) as on_progress:
        done = embed_into(
            encoding,
            read,
            cache_dir=folder,
            further_layers=further,
            layers=layers,
            reuse=reuse,
            shard_size=None if shard_size is None else int(shard_size),  # as `checked` read both
            shard=None if shard is None else (int(shard[0]), int(shard[1])),
            on_progress=on_progress,
        )
    return _as_dataset(done, folder, None if encoding.folder is None else str(encoding.folder))


@checked(source=SOURCE, table=FILE, backbone=NAME)
def import_cache(
    source: str | Path,
    table: str | Path,
    *,
    array: str | None = None,
    file_column: str | None = None,
    bfloat16: bool = False,
    layer: int | None = None,
    causal: bool | None = None,
    backbone: str | None = None,
    dtype: str = "float16",
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    labels_as: str = "auto",
    label_separator: str | None = None,
    task: str | None = None,
    split_column: str | None = None,
    test_fraction: float | None = None,
    skip_empty: bool = False,
    quoting: str = "standard",
    cache_dir: str | Path | None = None,
    progress: Progress = True,
) -> EmbeddedDataset:
    """Make a cache of hidden states that another program computed, such as vLLM.

    Everything that reads a cache works on it, but for what needs the model: `predict`, `explain`
    and `evaluate` on new texts. Heads that read token ids need these too.

    Args:
        source: The hidden states: an npz, npy, HDF5 (h5, hdf5), safetensors or parquet file, or a
            folder with such a file (not parquet) for each text. They are (N, d), one vector a text;
            (N, n, d), with a mask (N, n) of the tokens that are no padding, or with lengths (N,) if
            padding is on the right; (T, d), all tokens end to end, with offsets (N + 1,) or lengths
            (N,); or (n, d) or (n, layers, d), an array or file for each text. Token ids, where
            there are any, have the same layout.
        table: A csv, tsv, json, jsonl or parquet file with the labels: a row for each text, in the
            same order. Its texts, if it has any, are kept as `embed` does.
        array: Name of the array, dataset, tensor or column of hidden states. Default:
            `hidden_states`, `embeddings` or another usual name, or the only one.
        file_column: For a folder, the name of the column that holds the file of each row. Default:
            `file` or another usual name. Without one, files are in natural order: 2 before 10.
        bfloat16: Whether uint16 numbers are the bits of bfloat16. An attribute of an HDF5 dataset
            with this value says so too.
        layer: Which of several layers to import, from 0. Default: all of them, a cache each. The
            means of all layers of the source, which the pooling `layers` reads, are kept with each.
        causal: Whether no token sees those after it, as in language models, so that a text's last
            token sums it up. Default: if there is a dimension of layers.
        backbone: Name of the model that computed the hidden states. Default: that of the source.
        dtype: Number type in which hidden states are stored, as for `embed`.
        text_column: Name of the text column, or the names of two. Default: `text` or another usual
            name, if there is one.
        label_column: Name of the label column. Default: recognised automatically.
        labels_as: As for `embed`.
        label_separator: As for `embed`.
        task: As for `embed`.
        split_column: Name of the column that holds the split of each row. Default: `split`. Without
            one, validation is drawn from the texts, or from what identifies them: their token ids,
            or hidden states.
        test_fraction: Fraction of the training texts that become the test split, if there is none.
        skip_empty: Whether rows with an empty text are left out.
        quoting: How csv and tsv files are quoted, as for `embed`.
        cache_dir: Folder of caches and runs. Default: that of the variable `SPACELITE_CACHE`, else
            `cache`.
        progress: True for bars, False for none, or a function called with (phase, done, total).

    Returns:
        The finished cache; of several layers that of the last, with the others in `others`.

    Raises:
        SpaceliteError: The hidden states and the labels cannot be used or do not fit together, or
            the disk is full; the message says what to do.
    """
    arguments = dict(locals())
    folder = files.cache_folder(cache_dir)
    with reporting(progress) as on_progress:
        done = import_states(
            Import(**among(arguments, Import)),
            Path(table),
            Reading(**among(arguments, Reading)),
            cache_dir=folder,
            test_fraction=test_fraction,
            on_progress=on_progress,
        )
    return _as_dataset(done, folder)


def _as_dataset(done: Embedded, folder: Path, backbone: str | None = None) -> EmbeddedDataset:
    """What a function returns; what is noteworthy about its data is logged."""

    def as_dataset(cache: Embedded) -> EmbeddedDataset:
        others = tuple(map(as_dataset, cache.others))
        return EmbeddedDataset(
            **{**vars(cache), "others": others}, cache_dir=folder, backbone=backbone
        )

    embedded = as_dataset(done)
    if embedded.shard is not None or ranks.rank() > 0:
        return embedded
    repeated = embedded.duplicates
    warnings = (repeated.leaked, repeated.contradicted, embedded.unknown.sentence)
    for warning in filter(None, warnings):
        log.warning("%s", warning)
    return embedded


def dataset_of(
    cache: EmbeddedDataset | str | Path | None,
    cache_dir: str | Path | None,
    layer: int | None = None,
) -> EmbeddedDataset:
    """The cache that a function was given, or the newest one; or the one that differs from it in
    the layer. What was not named is logged: as a warning where there are other caches."""
    found = cache if isinstance(cache, EmbeddedDataset) else find_cache(cache, cache_dir)
    if layer is not None:
        found = found.at_layer(layer)
        log.info("cache %s (layer %d)", found.name, layer)
    elif cache is None:
        others = len(caches.cache_files(found.cache_dir)) - 1
        of = f", one of {others + 1}: cache=... chooses another" if others else ""
        level = logging.WARNING if others else logging.INFO
        log.log(level, SpaceliteError(f"cache {found.name}{of}", ["cache"]))
    return found


@checked(name=replace(NAME_OR_PATH, needed="give a cache's name or its path"))
def find_cache(
    name: str | Path | None = None, cache_dir: str | Path | None = None
) -> EmbeddedDataset:
    """Find an existing cache.

    Args:
        name: The cache's name, its data set's name, a part of it, or its path. Default: the
            complete cache that was embedded last; one that `evaluate` made, or that cannot be
            trained on, if there is no other.
        cache_dir: Folder of caches and runs. Default: that of the variable `SPACELITE_CACHE`, else
            `cache`.

    Raises:
        SpaceliteError: No cache matches, or more than one.
    """
    folder = files.cache_folder(cache_dir)
    if name:
        return EmbeddedDataset(caches.find(folder, str(name)), folder)
    newest = EmbeddedDataset(caches.newest_complete(folder), folder)
    saved = saved_runs.load_all(folder)
    trained_on = {run.record.cache for run in saved}
    evaluated = {transfer.cache for run in saved for transfer in run.transfers()}
    passed_over = {
        path.stem
        for path in caches.cache_files(folder)
        if path.stem not in trained_on
        # An older version did not record it.
        and (made_by(path) or ("eval" if path.stem in evaluated else "embed")) == "eval"
    }
    can_be_trained_on = _can_be_trained_on(newest)
    if newest.name not in passed_over and can_be_trained_on:
        return newest
    for state in caches.states(folder):
        other = EmbeddedDataset(state.path, folder)
        if state.complete and state.name not in passed_over and _can_be_trained_on(other):
            way = f": cache={newest.name} chooses it" if can_be_trained_on else ""
            message = (
                f"{newest.name} is newer than {state.name}, but has only been used to evaluate a "
                f"run{way}"
            )
            log.info(SpaceliteError(message, ["cache"]))
            return other
    return newest


def _can_be_trained_on(dataset: EmbeddedDataset) -> bool:
    with dataset.open() as cache:
        try:
            cache.require_training()
        except SpaceliteError:
            return False
    return True
