"""A name or path -> splits of texts and labels, checked, numbered and fingerprinted.

Known data sets carry the protocol of the published tables (arXiv:2401.16638 and its README):
`imdb` (test split 80/20 into test and validation), `hatexplain` (majority label of the
annotators) and `hatexplain:2` (hatespeech and offensive together against normal). Everything else
is read as it is: train, validation and test where they exist, 10% of train as validation where
there is none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.data import columns, sources
from spacelite.data import demo as demo_corpus
from spacelite.errors import SpaceliteError

log = logging.getLogger(__name__)

SEED = 42  # of every split and sample made here; the published protocol's

Labels = columns.Labels


@dataclass(frozen=True)
class Known:
    """A data set of the published tables: where it lies on the hub and what its labels mean."""

    hub: str
    label_names: tuple[str, ...]
    revision: str | None = None


KNOWN = {
    "imdb": Known("stanfordnlp/imdb", ("negative", "positive")),
    # Its loading script no longer runs; the hub keeps an automatic conversion of the data.
    "hatexplain": Known(
        "Hate-speech-CNERG/hatexplain",
        ("hatespeech", "normal", "offensive"),
        revision="refs/convert/parquet",
    ),
}
BY_HUB_NAME = {known.hub: name for name, known in KNOWN.items()}
TWO_LABELS = ("hateful or offensive", "normal")  # hatexplain:2


@dataclass(frozen=True)
class Split:
    """N texts and their labels: (N,) int64, 0..C-1; or (N, C) int64 of 0/1, where a text can have
    several labels or none."""

    texts: list[str]
    labels: Labels

    def take(self, rows: npt.NDArray[np.int64]) -> Split:
        """The examples at `rows`, in that order."""
        return Split([self.texts[i] for i in rows], self.labels[rows])

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class TextDataset:
    """A data set ready to embed: splits by name (train first), and the C names of the labels."""

    name: str
    splits: dict[str, Split]
    label_names: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of every split's name, texts and labels: wherever they were read from, the same
        texts and labels in the same order give the same fingerprint."""
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            digest.update(f"{name}:{len(split)}\n".encode())
            for text in split.texts:
                encoded = text.encode("utf-8", "surrogatepass")
                digest.update(len(encoded).to_bytes(8, "little"))
                digest.update(encoded)
            digest.update(split.labels.astype("<i8").tobytes())
        return digest.hexdigest()


def load(
    name: str,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    limit: int | None = None,
    data_dir: Path | None = None,
) -> TextDataset:
    """Load a data set by name or path.

    `name`: `demo`, a known data set, a csv/json/jsonl/parquet file, a folder of them, or a hub
    data set (`owner/name`, `owner/name:configuration`). `limit`: at most that many examples a
    split, a seeded sample with the labels in proportion. `data_dir`: a folder with data sets by
    name, looked into before the hub.

    Raises SpaceliteError for whatever cannot be trained on, naming the split and row.
    """
    if limit is not None and limit < 1:
        raise SpaceliteError(f"--limit {limit}: give at least one example a split")
    if name == "demo":
        made = {
            split: Split(texts, np.array(labels, np.int64))
            for split, (texts, labels) in demo_corpus.splits().items()
        }
        dataset = TextDataset("demo", made, demo_corpus.LABEL_NAMES)
    else:
        dataset = _read(_in_folder(name, data_dir), text_column, label_column)
    _check_classes(dataset)
    if limit is not None:
        dataset = TextDataset(
            dataset.name,
            {
                name: split.take(stratified_sample(split.labels, limit))
                for name, split in dataset.splits.items()
            },
            dataset.label_names,
        )
        _check_classes(dataset, f" under --limit {limit}")
    return dataset


def stratified_sample(labels: Labels, size: int) -> npt.NDArray[np.int64]:
    """Sorted indices of a random sample of `size` examples (all, where there are fewer), every
    label in proportion to within one example; where a text can have several, plainly random.
    Seeded.

    Every label gets its share rounded down; what is left goes to the largest remainders.
    scikit-learn's stratified split refuses labels that occur once and samples that leave fewer
    examples than there are classes; here both work.
    """
    random = np.random.RandomState(SEED)  # its stream is frozen across numpy versions
    if labels.ndim == 2:  # combinations of labels may be too rare to be sampled in proportion
        return np.sort(random.permutation(len(labels))[:size]).astype(np.int64)
    classes, counts = np.unique(labels, return_counts=True)
    size = min(size, len(labels))
    shares, remainders = np.divmod(counts * size, len(labels))
    shares[np.argsort(-remainders, kind="stable")[: size - shares.sum()]] += 1
    rows = [
        random.permutation(np.flatnonzero(labels == label))[:share]
        for label, share in zip(classes, shares, strict=True)
    ]
    return np.sort(np.concatenate(rows)).astype(np.int64)


def _in_folder(name: str, data_dir: Path | None) -> str:
    """The path of a data set that lies in `data_dir` by its name, else the name as it is."""
    if data_dir is None or name.startswith((".", "/", "~")):
        return name
    if not data_dir.is_dir():
        raise SpaceliteError(f"--data-dir {data_dir}: there is no such folder")
    return str(data_dir / name) if (data_dir / name.removesuffix(":2")).exists() else name


def _read(name: str, text_column: str | None, label_column: str | None) -> TextDataset:
    two_labels = name.rpartition("/")[2] == "hatexplain:2"
    base = name.removesuffix(":2") if two_labels else name
    path = Path(os.path.expanduser(base))  # noqa: PTH111 - Path's own raises for ~nobody
    if os.path.exists(path):  # noqa: PTH110 - Path's own raises for over-long names
        base = path.resolve().stem if path.is_file() else path.resolve().name
        tables = sources.from_path(path)
    elif path.suffix.lower() in sources.SUFFIXES or base.startswith((".", "/", "~")):
        raise SpaceliteError(f"there is no file or folder {base}")
    elif base in KNOWN or (base := BY_HUB_NAME.get(base, base)) in KNOWN:
        tables = _known_from_hub(base)
    else:
        repository, _, config = base.partition(":")
        tables = sources.from_hub(repository, config or None)
        base = repository

    known = KNOWN.get(base)
    texts: dict[str, list[str]] = {}
    values: dict[str, list[Any]] = {}
    class_names = known.label_names if known else ()
    for split, table in tables.items():
        if not table.rows.num_rows:
            raise SpaceliteError(f"{table.origin} has no rows: it needs at least one text")
        text_name, label_name = columns.find(table, text_column, label_column)
        texts[split] = columns.texts(table, text_name)
        values[split] = columns.label_values(table, label_name)
        names = table.class_names.get(label_name, ())
        if names and not known and names != (class_names or names):
            raise SpaceliteError(
                f"{table.origin} numbers its labels as {names}, other splits as {class_names}: "
                "give all splits the same label names"
            )
        class_names = class_names or names
    numbers, label_names = columns.numbered(values, class_names, base)
    splits = {split: Split(texts[split], numbers[split]) for split in tables}
    if two_labels:
        if label_names != KNOWN[base].label_names:
            raise SpaceliteError(
                f"{name}: its labels are {', '.join(label_names)}, not "
                f"{', '.join(KNOWN[base].label_names)}: two labels cannot be made of them"
            )
        splits = {
            key: Split(split.texts, (split.labels == 1).astype(np.int64))
            for key, split in splits.items()
        }
        base, label_names = f"{base}:2", TWO_LABELS
    return TextDataset(base, _with_validation(base, splits), label_names)


def _known_from_hub(name: str) -> dict[str, sources.Table]:
    known = KNOWN[name]
    try:
        tables = sources.from_hub(known.hub, revision=known.revision)
    except SpaceliteError as error:
        if name != "hatexplain":
            raise
        raise SpaceliteError(
            f"{error}; or give a local folder named hatexplain with train, validation and test "
            ".parquet (or .csv, .json) of columns text and label (0 hatespeech, 1 normal, "
            "2 offensive)"
        ) from error
    if name == "hatexplain":
        tables = {split: _majority(table) for split, table in tables.items()}
    return tables


def _majority(table: sources.Table) -> sources.Table:
    """HateXplain's raw rows as text and label: tokens joined by a space, majority of annotators.

    The official splits hold no post without a majority; one that turns up is left out.
    """
    rows, left_out = [], 0
    for row in table.rows.select(["post_tokens", "annotators"]).to_pylist():
        annotators = row["annotators"]
        # One struct of lists or one list of structs, depending on who converted the data.
        votes = (
            annotators["label"]
            if isinstance(annotators, dict)
            else [annotator["label"] for annotator in annotators]
        )
        (label, count), *others = Counter(votes).most_common()
        if others and others[0][1] == count:
            left_out += 1
            continue
        rows.append({"text": " ".join(row["post_tokens"]), "label": label})
    if left_out:
        log.warning("%s: %d posts without a majority label are left out", table.origin, left_out)
    return sources.table_of(rows, table.origin)


def _with_validation(name: str, splits: dict[str, Split]) -> dict[str, Split]:
    """`splits` with a validation split and in their usual order."""
    if "validation" not in splits:
        if name == "imdb" and "test" in splits:
            from sklearn.model_selection import train_test_split

            rows = np.arange(len(splits["test"]))
            kept, validation = train_test_split(rows, test_size=0.2, random_state=SEED)
            splits = {
                **splits,
                "validation": splits["test"].take(validation),
                "test": splits["test"].take(kept),
            }
        else:
            train = splits["train"]
            validation = stratified_sample(train.labels, max(1, round(0.1 * len(train))))
            kept = np.setdiff1d(np.arange(len(train)), validation)
            if not len(kept):
                raise SpaceliteError(f"{name} has one training example: it needs at least two")
            log.warning(
                "%s has no validation split: %d of its %d training examples serve (seed %d)",
                name, len(validation), len(train), SEED,
            )  # fmt: skip
            splits = {**splits, "train": train.take(kept), "validation": train.take(validation)}
    if "test" not in splits:
        log.warning("%s has no test split: reports show validation figures", name)
    return {split: splits[split] for split in sources.SPLITS if split in splits}


def _check_classes(dataset: TextDataset, where: str = "") -> None:
    labels = dataset.splits["train"].labels
    counts = (
        np.bincount(labels, minlength=len(dataset.label_names))
        if labels.ndim == 1
        else labels.sum(axis=0)
    )
    present = [name for name, count in zip(dataset.label_names, counts, strict=True) if count]
    if len(present) < 2:
        raise SpaceliteError(
            f"the train split of {dataset.name} holds a single class ({present[0]!r}){where}: a "
            "classifier needs at least two"
        )
    if len(present) < len(dataset.label_names):
        never = sorted(set(dataset.label_names) - set(present))
        log.warning("%s: no training example has label %s", dataset.name, json.dumps(never))
