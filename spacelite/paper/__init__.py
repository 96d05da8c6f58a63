"""The published tables, and which of their rows a run can be compared with; `reproduction` measures
every row from scratch.

The figures are from the space-model README (Tytarenko & Amin, arXiv:2401.16638) and are kept in
`published_results.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.metrics.scores import Scores
from spacelite.runs.record import RunRecord
from spacelite.runs.store import Run
from spacelite.training.config import TrainingConfig

FIGURES = ("loss", "accuracy", "f1_macro", "precision", "recall", "train_params")
OF_TABLE = ("title", "backbone", "train_on", "test_on", "epochs")  # what rows of a table share
HEAD_SETTINGS = ("latent", "inter", "intra", "pooling")  # that tell the heads of the tables apart


@dataclass(frozen=True, eq=False)
class PublishedRow:
    """One row of a published table. `figures` holds loss, accuracy, f1_macro, precision, recall and
    train_params; a figure that the table lacks is None."""

    table: str
    title: str
    system: str
    head: str
    backbone: str
    train_on: str
    test_on: str
    epochs: int
    latent: int | None
    inter: float | None
    intra: float | None
    pooling: str | None
    train_examples: int
    average: str  # of precision and recall: `binary` or `weighted`
    figures: dict[str, float | None]


@dataclass(eq=False)
class RowOutcome:
    """What was measured for a published row: a run, and its test scores, per seed."""

    row: PublishedRow
    runs: list[Run] = field(default_factory=list)
    scores: list[Scores] = field(default_factory=list)
    note: str | None = None  # why there are no runs, or what differs from the published row
    error: SpaceliteError | None = None  # why the data could not be embedded

    def refused(self, error: SpaceliteError) -> None:
        """Leave the row empty, since its data could not be embedded."""
        self.runs, self.note, self.error = [], str(error), error


@cache
def _data() -> dict[str, Any]:
    content = (
        resources.files("spacelite.paper").joinpath("published_results.json").read_text("utf-8")
    )
    data: dict[str, Any] = json.loads(content)
    return data


@cache
def published() -> tuple[PublishedRow, ...]:
    """All rows of the eight published tables, in the order of the README they come from."""
    data = _data()
    return tuple(
        PublishedRow(
            table=table["id"],
            **{name: table[name] for name in OF_TABLE},
            **{name: row[name] for name in ("system", "head", *HEAD_SETTINGS)},
            train_examples=data["train_examples"][table["train_on"]],
            average=table["precision_recall_average"],
            figures={name: row[name] for name in FIGURES},
        )
        for table in data["tables"]
        for row in table["rows"]
    )


def protocol() -> dict[str, Any]:
    """The training settings that all published rows share."""
    settings: dict[str, Any] = _data()["protocol"]
    return settings


def hub_name(backbone: str) -> str:
    """The name of a published backbone on the hub. The first table says only `bert-base`, which is
    read as the cased model that the other BERT tables name."""
    return "bert-base-cased" if backbone == "bert-base" else backbone


def matching(record: RunRecord, test_on: str) -> list[PublishedRow]:
    """The published rows with the data, head, losses, epochs and optimiser of a run that was
    evaluated on `test_on`: those with the same backbone if there are any, else with others."""
    shared, training = protocol(), record.training
    # Runs are compared whatever the order of their examples.
    data_seed = training.data_seed if isinstance(training, TrainingConfig) else None
    usual = TrainingConfig(epochs=record.epochs or 1, batch_size=shared["batch_size"])
    if training.settings() != {**usual.settings(), "data_seed": data_seed}:
        return []
    settings = record.head.settings()
    if any(settings.get(name) != shared[name] for name in ("learning_rate", "weight_decay")):
        return []
    if not record.head.hashed().keys() <= {*HeadConfig.ALWAYS_HASHED}:
        return []  # an ensemble, or standardised tokens
    rows = [
        row
        for row in published()
        if (row.train_on, row.test_on) == (record.spec.dataset, test_on)
        and row.head == record.head.kind
        and row.epochs == record.epochs
        and all(getattr(row, name) == settings.get(name) for name in HEAD_SETTINGS)
    ]
    same = [row for row in rows if same_backbone(row.backbone, record.spec.backbone)]
    return same or rows


def differences(row: PublishedRow, record: RunRecord) -> dict[str, str]:
    """How a run's setup differs from that of a published row: mark -> the footnote it stands
    for."""
    notes = {}
    backbone, examples = record.spec.backbone, record.examples["train"]
    if not same_backbone(row.backbone, backbone):
        notes["*"] = f"Published with another backbone than {backbone}."
    if examples != row.train_examples:
        notes["†"] = f"Published with {row.train_examples:,} training examples, here {examples:,}."
    longest, spec = protocol()["max_length"], record.spec
    if (spec.layer, spec.max_length) != (-1, longest):
        notes["‡"] = (
            f"Published with the last layer and {longest} tokens per text, here with layer "
            f"{spec.layer} and {spec.max_length} tokens."
        )
    return notes


def same_backbone(published_name: str, name: str) -> bool:
    """Whether a backbone is the published one; an owner in its hub name is ignored."""
    return hub_name(published_name) == name.rpartition("/")[2]
