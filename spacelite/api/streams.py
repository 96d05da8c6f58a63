"""Predictions for the rows of a file, as they come: the rows with the predictions in columns."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacelite.api.results import TextPredictions, counted, notes, said
from spacelite.data import writers
from spacelite.inference.prediction import Predictor
from spacelite.progress import Progress, reporting
from spacelite.runs import RunRecord
from spacelite.visible import visible

if TYPE_CHECKING:
    import pyarrow as pa

    from spacelite.data.readers import TextRows

log = logging.getLogger(__name__)

Classify = Callable[[Iterable[str]], Iterator[TextPredictions]]


def predictions(
    predictor: Predictor,
    texts: Iterable[str],
    minimum: float | None,
    total: int | None,
    progress: Progress,
) -> Iterator[TextPredictions]:
    """The predictions of a stream of texts, batch by batch, for `TrainedRun.predict_batches`."""
    given = [texts] if isinstance(texts, str) else texts
    record = predictor.run.record
    with reporting(progress) as on_progress:
        for batch, found in predictor.predict_batches(given, total=total, on_progress=on_progress):
            yield TextPredictions(batch, found.probabilities, found.unknown, record, minimum)


@dataclass(repr=False)
class FilePredictions:
    """What was predicted for a file, in numbers."""

    record: RunRecord
    min_probability: float | None = None  # labels with a lower one are not given
    path: Path | None = None  # of the results, if they were written to a file
    texts: int = 0
    labels: Counter[str] = field(default_factory=Counter)  # or, in a multi-label run, sets of them
    undecided: int = 0  # texts from which `min_probability` took a label
    mostly_unknown: int = 0  # texts whose tokens are unknown to the backbone by half or more

    def add(self, found: TextPredictions) -> None:
        """Count the predictions of a batch."""
        self.texts += len(found)
        self.labels.update(", ".join(labels) or "no label" for labels in found.labels)
        self.undecided += len(found.undecided)
        self.mostly_unknown += len(found.mostly_unknown)

    @property
    def notes(self) -> list[str]:
        """What the reader should know of the predictions, in sentences."""
        counts = (self.texts, self.undecided, self.mostly_unknown)
        return notes(self.record, self.min_probability, *counts)

    def as_json(self) -> dict[str, Any]:
        """The numbers as one JSON object."""
        return {
            "path": None if self.path is None else str(self.path),
            "texts": self.texts,
            "labels": dict(self.labels.most_common()),
            "undecided": self.undecided,
            "mostly_unknown": self.mostly_unknown,
            **({"thresholds": self.record.thresholds} if self.record.thresholds else {}),
        }

    def __str__(self) -> str:
        where = "" if self.path is None else f", written to {self.path}"
        line = f"{counted(self.texts)} classified{where}: {said(self.labels)}"
        return visible("\n".join([line, *self.notes]))

    def __repr__(self) -> str:
        return visible(f"<labels of {counted(self.texts)}: {said(self.labels)}; {self.record.id}>")


class Columns:
    """The columns of the results: those of the file, then `label` (or labels), the share of
    `unknown` tokens and each label's probability, by names that the file does not have."""

    def __init__(self, rows: TextRows, record: RunRecord) -> None:
        self._rows, self._record = rows, record
        (usual,) = record.task.as_json([])
        wanted = [usual, "unknown", *(f"probability_{name}" for name in record.label_names)]
        taken = {name.lower() for name in rows.columns}
        names = [_free(name, taken) for name in wanted]
        self.label, self.unknown, *self.probabilities = names
        others = [f"{old!r}: {new!r}" for old, new in zip(wanted, names, strict=True) if old != new]
        if others:
            log.info(
                "%s has columns with names of the results; these have others: %s",
                rows.origin, ", ".join(others),
            )  # fmt: skip

    @property
    def names(self) -> list[str]:
        """All columns in their order."""
        return [*self._rows.columns, self.label, self.unknown, *self.probabilities]

    def schema(self) -> pa.Schema:
        """The Arrow types of all columns."""
        added: dict[str, Any] = {self.label: "string", self.unknown: "double"}
        (usual,) = self._record.task.as_json([])
        if usual == "labels":
            added[self.label] = ["string"]
        return writers.extended(
            self._rows.schema(), {**added, **dict.fromkeys(self.probabilities, "double")}
        )

    def row(self, kept: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
        """A row of the results: one of the file, and one of `TextPredictions`."""
        (label,) = (found[name] for name in ("label", "labels") if name in found)
        chances = dict(zip(self.probabilities, found["probabilities"].values(), strict=True))
        return {**kept, self.label: label, self.unknown: found["unknown"], **chances}


def _free(name: str, taken: set[str]) -> str:
    """The name, or one that no column has, whatever its letters' case."""
    tried, number = name, 1
    while tried.lower() in taken:
        tried = f"predicted_{name}" + (f"_{number}" if number > 1 else "")
        number += 1
    return tried


def with_predictions(
    rows: TextRows, classify: Classify
) -> Iterator[tuple[list[dict[str, Any]], TextPredictions]]:
    """Batches of rows, with their predictions."""
    waiting: deque[dict[str, Any]] = deque()

    def texts() -> Iterator[str]:
        for row in rows:
            waiting.append(row)
            yield row[rows.text_column]

    for found in classify(texts()):
        yield [waiting.popleft() for _ in range(len(found))], found


def write(rows: TextRows, path: Path, tally: FilePredictions, classify: Classify) -> None:
    """Write the rows of a file, with their predictions, to another, and count them in `tally`. If
    that fails there is no part of the file."""
    columns = Columns(rows, tally.record)
    with writers.writing(path, columns.names, columns.schema) as put:
        for kept, found in with_predictions(rows, classify):
            put([columns.row(row, own) for row, own in zip(kept, found, strict=True)])
            tally.add(found)
