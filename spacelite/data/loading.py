"""A name, a path or tables -> a data set: splits, samples, checks.

Known data sets follow their protocol (`known`). Other data sets keep their splits; if there is no
validation split, 10% of train is used as one.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.data import columns, labels, sources
from spacelite.data.columns import Reading
from spacelite.data.known import KNOWN, KnownDataset, by_hub_name
from spacelite.data.sources import Table
from spacelite.data.splits import (
    SEED,
    Sources,
    Split,
    TextDataset,
    stratified_sample,
    without_leaks,
)
from spacelite.errors import SpaceliteError
from spacelite.tasks import task_of

LABELS_NAMED = 5  # in a message

log = logging.getLogger(__name__)


def load(
    name: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    data_dir: Path | None = None,
    labels_as: str = "auto",
    skip_empty: bool = False,
    drop_leaks: bool = False,
    training: bool = True,
) -> TextDataset:
    """Load a data set by name or path.

    Args:
        name: A known data set; a csv, tsv, json, jsonl or parquet file, or a folder of them; a hub
            data set (`owner/name`, `owner/name:configuration`).
        text_column: Name of the text column. Default: recognised automatically.
        label_column: Name of the label column. Default: recognised automatically.
        limit: Maximum examples per split: a seeded, stratified sample.
        data_dir: Folder of local data sets, searched by name before the hub.
        labels_as: `auto` to read labels that are all whole numbers as numbers, `text` to keep every
            label as it is written.
        skip_empty: Whether rows with an empty text are left out.
        drop_leaks: Whether training texts that also stand in validation or test are left out.
        training: Whether the data are to be trained on. If not, they may lack a train split, or
            have a single label or example (which is then the test split).

    Returns:
        The data set, with the splits train, validation and, if there is one, test.

    Raises:
        SpaceliteError: The data cannot be read or trained on; the message says where and why.
    """
    _check_limit(limit)
    reading = _reading(text_column, label_column, labels_as, skip_empty)
    known = KNOWN.get(name)
    if known is not None and known.make is not None:
        made = {
            split: replace(own, sources=Sources.of_files([(f"{name} ({split})", len(own))]))
            for split, own in known.make().items()
        }
        dataset = TextDataset(name, made, known.label_names)
    else:
        dataset = _read(_in_folder(name, data_dir), reading, training)
    return _finished(dataset, limit, drop_leaks, training)


def from_tables(
    name: str,
    tables: Mapping[str, Table],
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    labels_as: str = "auto",
    skip_empty: bool = False,
    drop_leaks: bool = False,
    training: bool = True,
) -> TextDataset:
    """Create a data set from tables in memory.

    Args:
        name: Name of the data set.
        tables: Split name (train, validation, test) -> its table.
        text_column: Name of the text column. Default: recognised automatically.
        label_column: Name of the label column. Default: recognised automatically.
        limit: Maximum examples per split: a seeded, stratified sample.
        labels_as: `auto` to read labels that are all whole numbers as numbers, `text` to keep every
            label as it is written.
        skip_empty: Whether rows with an empty text are left out.
        drop_leaks: Whether training texts that also stand in validation or test are left out.
        training: Whether the data are to be trained on, as in `load`.

    Returns:
        The data set, with the splits train, validation and, if there is one, test.

    Raises:
        SpaceliteError: The data cannot be trained on; the message says where and why.
    """
    _check_limit(limit)
    reading = _reading(text_column, label_column, labels_as, skip_empty)
    splits, label_names = _numbered(name, tables, (), reading)
    splits = _completed(name, splits, None, training)
    return _finished(TextDataset(name, splits, label_names), limit, drop_leaks, training)


def _reading(text: str | None, label: str | None, labels_as: str, skip_empty: bool) -> Reading:
    return Reading(text_column=text, label_column=label, labels_as=labels_as, skip_empty=skip_empty)


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise SpaceliteError(f"limit={limit}: give at least one example per split", ["limit"])


def _finished(
    dataset: TextDataset, limit: int | None, drop_leaks: bool, training: bool
) -> TextDataset:
    """Leave out leaks if that is wanted, check the classes for training, and sample each split if
    there is a limit."""
    if drop_leaks:
        dataset = without_leaks(dataset)
    if training:
        _check_classes(dataset, warn=limit is None)
    if limit is None:
        return dataset
    sample = replace(
        dataset,
        splits={
            name: split.take(stratified_sample(split.labels, limit))
            for name, split in dataset.splits.items()
        },
    )
    if training:
        _check_classes(sample, limit, warn=True)
    return sample


def _in_folder(name: str, data_dir: Path | None) -> str:
    """The path of a data set in `data_dir`; the name unchanged if it is not there."""
    if data_dir is None or name.startswith((".", "/", "~")):
        return name
    if not data_dir.is_dir():
        raise SpaceliteError(f"data_dir={data_dir}: there is no such folder", ["data_dir"])
    return str(data_dir / name) if (data_dir / _split_name(name)[0]).exists() else name


def _split_name(name: str) -> tuple[str, KnownDataset | None]:
    """Split a name such as `folder/hatexplain:2` into the data set to read, `folder/hatexplain`,
    and the known data set that merges its labels; other names are returned unchanged, with None."""
    last = name.rpartition("/")[2]
    known = KNOWN.get(last)
    if known is None or known.of is None:
        return name, None
    return name.removesuffix(last) + known.of, known


def _read(name: str, reading: Reading, training: bool) -> TextDataset:
    base, merging = _split_name(name)
    found = None
    path = Path(os.path.expanduser(base))  # noqa: PTH111 - Path's own raises for ~nobody
    if os.path.exists(path):  # noqa: PTH110 - Path's own raises for over-long names
        found = str(path.resolve())
        base = path.resolve().stem if path.is_file() else path.resolve().name
        tables = sources.from_path(path, training=training)
    elif path.suffix.lower() in sources.SUFFIXES or base.startswith((".", "/", "~")):
        raise SpaceliteError(f"there is no file or folder {base}")
    elif (base := by_hub_name(base)) in KNOWN:
        tables = _from_hub(KNOWN[base], training)
    else:
        repository, _, config = base.partition(":")
        tables = sources.from_hub(repository, config or None, training=training)
        base = repository
    known = KNOWN.get(base)
    if known is not None and known.prepare is not None:
        tables = {split: known.prepare(table) for split, table in tables.items()}
    class_names = known.label_names if known else ()
    splits, label_names = _numbered(base, tables, class_names, reading)
    if merging is not None:
        if known is None or label_names != known.label_names:
            raise SpaceliteError(
                f"{name}: its labels are {', '.join(label_names)}, not {', '.join(class_names)}: "
                "they cannot be merged"
            )
        splits = _merged(splits, label_names, merging)
        label_names = merging.label_names
    dataset = name.rpartition("/")[2] if merging is not None else base
    return TextDataset(dataset, _completed(base, splits, known, training), label_names, found)


def _from_hub(known: KnownDataset, training: bool) -> dict[str, Table]:
    try:
        return sources.from_hub(str(known.hub), revision=known.revision, training=training)
    except SpaceliteError as error:
        raise SpaceliteError(f"{error}{known.hint}", error.arguments) from error


def _numbered(
    name: str,
    tables: Mapping[str, Table],
    class_names: tuple[str, ...],
    reading: Reading,
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """Each split's texts and numbered labels, and the label names; `class_names` are the names of
    labels 0..C-1 if they are known, else empty."""
    known = bool(class_names)
    texts: dict[str, list[str]] = {}
    rows: dict[str, npt.NDArray[np.int64]] = {}
    values: dict[str, list[Any]] = {}
    for split, table in tables.items():
        if not table.rows.num_rows:
            raise SpaceliteError(f"{table.origin} has no rows: it needs at least one text")
        text_name, label_name = columns.find(table, reading.text_column, reading.label_column)
        texts[split], rows[split] = columns.texts(table, text_name, reading.skip_empty)
        values[split] = columns.label_values(table, label_name, rows[split])
        names = table.class_names.get(label_name, ())
        if names and not known and names != (class_names or names):
            raise SpaceliteError(
                f"{table.origin} names its labels {names}, other splits {class_names}: "
                "give all splits the same label names"
            )
        class_names = class_names or names
    if reading.text_column is None or reading.label_column is None:
        every = [value for split in values.values() for value in split]
        there = table.rows.column_names
        named = reading.label_column is not None
        columns.say_choice(name, there, text_name, label_name, every, named)
    if reading.labels_as == "text":
        values = labels.as_text(values, named=bool(class_names))
    else:
        labels.refuse_joined(values, name)
        values = labels.as_numbers(values, name)
    numbers, label_names = labels.numbered(values, class_names, name, rows)
    labels.warn_of_similar(label_names, name)
    return {
        split: Split(texts[split], numbers[split], table.source_rows.take(rows[split]))
        for split, table in tables.items()
    }, label_names


def _merged(
    splits: dict[str, Split], label_names: tuple[str, ...], merging: KnownDataset
) -> dict[str, Split]:
    merged = merging.merged or {}
    number = np.array(
        [
            next(new for new, olds in enumerate(merged.values()) if label in olds)
            for label in label_names
        ],
        np.int64,
    )
    return {
        key: Split(split.texts, number[split.labels], split.sources)
        for key, split in splits.items()
    }


def _completed(
    name: str, splits: dict[str, Split], known: KnownDataset | None, training: bool
) -> dict[str, Split]:
    """Add a validation split if there is none, and put the splits in the usual order. Data that
    are not for training keep their splits if a validation split cannot be taken from train."""
    if not training and len(splits.get("train", ())) < 2:
        if list(splits) == ["train"]:
            return {"test": splits["train"]}
        return {split: splits[split] for split in sources.SPLITS if split in splits}
    if "validation" not in splits:
        if known is not None and known.validation is not None and "test" in splits:
            splits = known.validation(splits)
        else:
            train = splits["train"]
            validation = stratified_sample(train.labels, max(1, round(0.1 * len(train))))
            kept = np.setdiff1d(np.arange(len(train)), validation)
            if not len(kept):
                raise SpaceliteError(f"{name} has one training example: it needs at least two")
            log.warning(
                "%s has no validation split: %d of its %d training examples are used as one "
                "(seed %d)",
                name, len(validation), len(train), SEED,
            )  # fmt: skip
            splits = {**splits, "train": train.take(kept), "validation": train.take(validation)}
    if "test" not in splits:
        log.warning("%s has no test split: reports show validation metrics", name)
    return {split: splits[split] for split in sources.SPLITS if split in splits}


def _check_classes(dataset: TextDataset, limit: int | None = None, *, warn: bool) -> None:
    """Refuse training data of a single class; warn of labels that are too rare to be learned."""
    own = dataset.splits["train"].labels
    counts = task_of(own).label_counts(own, len(dataset.label_names)).tolist()
    present = [name for name, count in zip(dataset.label_names, counts, strict=True) if count]
    if len(present) < 2:
        sampled = "" if limit is None else f" with limit={limit}"
        raise SpaceliteError(
            f"the train split of {dataset.name} holds a single class ({present[0]!r}){sampled}: a "
            "classifier needs at least two",
            [] if limit is None else ["limit"],
        )
    if not warn:
        return
    if len(present) < len(dataset.label_names):
        never = sorted(set(dataset.label_names) - set(present))
        log.warning("%s: no training example has label %s", dataset.name, json.dumps(never))
    single = [name for name, count in zip(dataset.label_names, counts, strict=True) if count == 1]
    if single:
        named = [*map(repr, single[:LABELS_NAMED])]
        named += [f"{len(single) - LABELS_NAMED:,} more"] if single[LABELS_NAMED:] else []
        labels, have = ("label", "has") if len(single) == 1 else ("labels", "have")
        log.warning(
            "%s: the %s %s %s a single training example%s: too few to learn from; add more if you "
            "can",
            dataset.name, labels, _joined(named), have, "" if len(single) == 1 else " each",
        )  # fmt: skip


def _joined(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
