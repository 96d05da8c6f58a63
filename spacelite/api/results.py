"""What the functions return besides runs; each can be printed and displayed in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, overload

import numpy.typing as npt

from spacelite.cache import Cache, CacheState, Duplicates, duplicates
from spacelite.cache import folder as caches
from spacelite.inference import Explanation
from spacelite.metrics.scores import METRICS
from spacelite.reports.document.blocks import Cell, Line, Table
from spacelite.reports.document.wording import decimals
from spacelite.reports.render import explained, forms, fragment, plain
from spacelite.runs import Run, RunRecord, TransferRecord, figure

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class EmbeddedDataset:
    """A data set's hidden states on disk.

    Attributes:
        path: The cache file.
        cache_dir: Folder of caches and runs.
        hit: Whether the cache existed already.
        seconds: Duration of the call of `embed`.
        backbone: Folder of the backbone, if `embed` was given a local folder.
    """

    path: Path
    cache_dir: Path
    hit: bool = True
    seconds: float = 0.0
    backbone: str | None = None

    @property
    def name(self) -> str:
        """The cache's name."""
        return self.path.stem

    @property
    def state(self) -> CacheState:
        """The state of the file: its size, its splits, and how much is done."""
        return caches.state(self.path)

    @cached_property
    def duplicates(self) -> Duplicates:
        """How many texts stand in two splits, and how many have more than one label."""
        with self.open() as cache:
            return duplicates.find(cache.splits)

    def open(self) -> Cache:
        """Open the cache for reading; use it as a context manager."""
        return Cache(self.path)

    def __repr__(self) -> str:
        state = self.state
        splits = ", ".join(f"{count:,} {name}" for name, count in state.splits)
        return f"<{self.name}: {state.examples:,} examples ({splits}), {state.tokens:,} tokens>"

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"


@dataclass(frozen=True)
class TextPredictions(Sequence[dict[str, Any]]):
    """Predictions for texts: a sequence of {"text", "label" or "labels", "probabilities"}.

    Attributes:
        texts: N texts.
        probabilities: (N, C) float64; independent per label in a multi-label run.
        record: The run's record.
    """

    texts: list[str]
    probabilities: Array
    record: RunRecord

    @property
    def labels(self) -> list[list[str]]:
        """The predicted label names of each text: one, or any number in a multi-label run."""
        task, names = self.record.task, self.record.label_names
        return [
            task.label_names(one, names)
            for one in task.decide_from_probabilities(self.probabilities)
        ]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The items of the sequence, which `--json` prints."""
        names = self.record.label_names
        return [
            {
                "text": text,
                **self.record.task.as_json(labels),
                "probabilities": dict(zip(names, row, strict=True)),
            }
            for text, labels, row in zip(
                self.texts, self.labels, self.probabilities.tolist(), strict=True
            )
        ]

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.texts)

    def table(self) -> Table:
        """The table as it is printed."""
        lines = []
        for row, labels in zip(self.rows, self.labels, strict=True):
            values = ", ".join(f"{row['probabilities'][name]:.3f}" for name in labels)
            cells = (", ".join(labels) or "–", values or "–", row["text"])
            lines.append(Line([Cell(text) for text in cells]))
        return Table("Predictions", ["Label", "Probability", "Text"], lines, "predictions")

    def __str__(self) -> str:
        return plain.table(self.table())

    def _repr_html_(self) -> str:
        return fragment.table(self.table())


@dataclass(frozen=True)
class TextExplanation:
    """A prediction and each word's exact share in it.

    Attributes:
        explanation: The prediction, with the shares in every label's logit.
        label: Index of the label that is shown.
        run: The run.
        example: Location of the text in the run's cache, such as `test:17`, if it is from there.
    """

    explanation: Explanation
    label: int
    run: Run
    example: str | None = field(default=None)

    @property
    def words(self) -> list[tuple[str, float]]:
        """The text's words with their shares in the shown label's logit."""
        words = self.explanation.words
        return [(word.text, word.contributions[self.label]) for word in words]

    def save(self, path: str | Path) -> Path:
        """Write a page: the text, every word's share, and the tokens in the concept spaces.

        Args:
            path: Path of the file.

        Raises:
            SpaceliteError: The file cannot be written.
        """
        record = self.run.record
        about = f"{record.system}, trained on {record.spec.dataset}: run {self.run.id}"
        about += f"; example {self.example}." if self.example is not None else "."
        latent = getattr(record.head, "latent", None)
        forms.save_page(Path(path), explained.page(self.explanation, self.label, latent, about))
        return Path(path)

    def __str__(self) -> str:
        found = self.explanation
        text = " ".join(
            f"{word.text}({word.contribution:+.2f})" if word.side else word.text
            for word in found.marked(self.label)
        )
        predicted = found.labels[found.predicted]
        return f"{predicted} ({found.probabilities[found.predicted]:.3f}): {text}"

    def _repr_html_(self) -> str:
        found = self.explanation
        predicted = escape(found.labels[found.predicted])
        chance = found.probabilities[found.predicted]
        return (
            f"<div><b>{predicted}</b> ({chance:.3f}); words for and against "
            f"<b>{escape(found.labels[self.label])}</b>:"
            f"{fragment.marked_text(found.marked(self.label))}</div>"
        )


@dataclass(frozen=True)
class Evaluation:
    """A run's metrics on another data set.

    Attributes:
        run: The run.
        record: The metrics, and the matching of the data set's labels to the run's.
    """

    run: Run
    record: TransferRecord

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Every metric by split."""
        return self.record.metrics

    def table(self) -> Table:
        """The table as it is printed."""
        lines = []
        for split, scores in self.record.metrics.items():
            values = [figure(scores, name) for name in METRICS]
            figures = ["–" if value is None else decimals(value, 4) for value in values]
            cells = (split, f"{self.record.examples[split]:,}", *figures)
            lines.append(Line([Cell(text) for text in cells]))
        headings = [metric.heading for metric in METRICS.values()]
        return Table("Evaluation", ["Split", "Examples", *headings], lines, "evaluation")

    def __str__(self) -> str:
        return plain.table(self.table())

    def _repr_html_(self) -> str:
        return fragment.table(self.table())
