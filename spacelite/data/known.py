"""Known data sets, one entry each: where they come from, their labels, and their splits.

They follow the protocol of the published tables (arXiv:2401.16638).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spacelite.data import demo
from spacelite.data.splits import SEED, Split, Table
from spacelite.lazy import pyarrow as pa

log = logging.getLogger(__name__)

Splits = dict[str, Split]


@dataclass(frozen=True, kw_only=True)
class KnownDataset:
    """A data set that is known by name, on the hub or in a local folder of that name.

    Attributes:
        label_names: The names of labels 0..C-1.
        hub: Name of the data set on the hub.
        revision: Revision on the hub; None for the latest.
        prepare: Converts a split's raw rows from the hub to columns with usual names (text, label);
            leaves other tables unchanged. None if not needed.
        validation: Creates the validation split if the data set has only train and test; None to
            draw it from train.
        make: Creates all splits of a built-in data set.
        of: Name of the known data set that this one is, with its labels merged.
        merged: New label name -> names of the original labels that are merged into it.
        task: Name of the task of a built-in data set in TASKS; None for classification.
        hint: Appended to the error if the hub cannot be used: what else the user can do.
    """

    label_names: tuple[str, ...]
    hub: str | None = None
    revision: str | None = None
    prepare: Callable[[Table], Table] | None = None
    validation: Callable[[Splits], Splits] | None = None
    make: Callable[[], Splits] | None = None
    of: str | None = None
    merged: Mapping[str, tuple[str, ...]] | None = None
    task: str | None = None
    hint: str = ""


def _demo() -> Splits:
    return {
        split: Split(texts, np.array(labels, np.int64))
        for split, (texts, labels) in demo.splits().items()
    }


def _divide_test(splits: Splits) -> Splits:
    """Divide the test split 80/20 into test and validation, as the published protocol does."""
    from sklearn.model_selection import train_test_split

    rows: npt.NDArray[np.int64] = np.arange(len(splits["test"]))
    kept, validation = train_test_split(rows, test_size=0.2, random_state=SEED)
    return {
        **splits,
        "validation": splits["test"].take(validation),
        "test": splits["test"].take(kept),
    }


def _majority(table: Table) -> Table:
    """HateXplain's raw rows as text and label: tokens joined by spaces, majority of annotators.

    The official splits hold no post without a majority; any that turns up is left out.
    """
    if "annotators" not in table.rows.column_names:
        return table
    rows, kept, left_out = [], [], 0
    columns = (table.column("post_tokens"), table.column("annotators"))
    for number, (tokens, annotators) in enumerate(zip(*columns, strict=True)):
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
        kept.append(number)
        rows.append({"text": " ".join(tokens), "label": label})
    if left_out:
        log.warning("%s: %d posts without a majority label are left out", table.origin, left_out)
    of_rows = table.source_rows.take(np.array(kept, np.int64))
    return Table(pa.Table.from_pylist(rows), {}, table.origin, of_rows)


KNOWN: dict[str, KnownDataset] = {
    "demo": KnownDataset(label_names=demo.LABEL_NAMES, make=_demo),
    "imdb": KnownDataset(
        hub="stanfordnlp/imdb", label_names=("negative", "positive"), validation=_divide_test
    ),
    "hatexplain": KnownDataset(
        hub="Hate-speech-CNERG/hatexplain",
        # Its loading script no longer runs; the hub keeps an automatic conversion of the data.
        revision="refs/convert/parquet",
        label_names=("hatespeech", "normal", "offensive"),
        prepare=_majority,
        hint=(
            "; or use a local folder named hatexplain with train, validation and test .parquet "
            "(or .csv, .json) of columns text and label (0 hatespeech, 1 normal, 2 offensive)"
        ),
    ),
    "hatexplain:2": KnownDataset(
        label_names=("hateful or offensive", "normal"),
        of="hatexplain",
        merged={"hateful or offensive": ("hatespeech", "offensive"), "normal": ("normal",)},
    ),
}


def by_hub_name(name: str) -> str:
    """The known name of a hub data set; other names are returned unchanged."""
    return next((key for key, known in KNOWN.items() if known.hub == name), name)
