"""What the functions return besides runs; each can be printed and displayed in a notebook."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from spacelite import files
from spacelite.api.arguments import FILE, NAME_OR_PATH, Kind, checked
from spacelite.backbones.tokenizer import MOSTLY
from spacelite.cache import folder as caches
from spacelite.cache import texts as cached_texts
from spacelite.cache.dtypes import Rounded
from spacelite.cache.embedding import Speed
from spacelite.cache.folder import CacheState
from spacelite.cache.store import Cache
from spacelite.cache.texts import Duplicates, UnknownTokens
from spacelite.document import Cell, Line, Paragraph, Table, decimals
from spacelite.inference.explanation import Explanation
from spacelite.metrics import thresholds
from spacelite.metrics.scores import METRICS
from spacelite.reports.render import forms, fragment, page, plain
from spacelite.runs import Run, RunRecord, TransferRecord, figure
from spacelite.visible import shortened, visible

Array = npt.NDArray[Any]

MOST_SHOWN = 100  # characters of a text in the table of predictions
MOST_LABELS = 3  # that are counted in the short form of predictions


@dataclass(frozen=True)
class EmbeddedDataset:
    """A data set's hidden states on disk.

    Attributes:
        path: The cache file.
        cache_dir: Folder of caches and runs.
        hit: Whether the cache existed already.
        seconds: Duration of the call of `embed`.
        backbone: Folder of the backbone, if `embed` was given a local folder.
        copied: Number of texts whose hidden states the call copied from other caches.
        speed: How fast the call computed hidden states, and which stage was the limit; None if it
            computed none.
        rounded: How much the stored type rounds each dimension of those hidden states; None for
            types in which that is not measured.
        others: The caches of further layers, if `embed` was given several.
    """

    path: Path
    cache_dir: Path
    hit: bool = True
    seconds: float = 0.0
    backbone: str | None = None
    copied: int = 0
    speed: Speed | None = None
    rounded: Rounded | None = None
    others: tuple[EmbeddedDataset, ...] = ()

    def __post_init__(self) -> None:
        # It stays usable when the program changes its working folder.
        for name in ("path", "cache_dir"):
            object.__setattr__(self, name, files.absolute(getattr(self, name)))

    @property
    def name(self) -> str:
        """The cache's name."""
        return self.path.stem

    @property
    def state(self) -> CacheState:
        """The state of the file: its size, its splits, and how much is done."""
        return caches.state(self.path)

    @property
    def layer(self) -> int:
        """The layer of the hidden states, as it was given to `embed`."""
        with self.open() as cache:
            return cache.spec.layer

    @checked()
    def at_layer(self, layer: int) -> EmbeddedDataset:
        """The cache of the same data and settings at another layer. Raises SpaceliteError if there
        is none."""
        path = caches.at_layer(self.path, layer)
        return self if path == self.path else EmbeddedDataset(path, self.cache_dir)

    @cached_property
    def labels(self) -> dict[str, int]:
        """How many examples of the train split have each label; of the first split there is, if the
        data are not for training."""
        with self.open() as cache:
            own = next(iter(cache.splits.values())).labels
            counts = cache.task.label_counts(own, len(cache.label_names)).tolist()
            return dict(zip(cache.label_names, counts, strict=True))

    @cached_property
    def duplicates(self) -> Duplicates:
        """How many texts stand in two splits, and how many have more than one label."""
        with self.open() as cache:
            return cached_texts.duplicates_of(cache)

    @cached_property
    def unknown(self) -> UnknownTokens:
        """How many tokens are unknown to the backbone, by split; without splits if this is not
        known, as for a cache that an older version wrote: `embed` again counts them."""
        return cached_texts.read_unknown(self.path) or UnknownTokens({})

    def open(self) -> Cache:
        """Open the cache for reading; use it as a context manager."""
        return Cache(self.path)

    def __repr__(self) -> str:
        if not self.path.is_file():
            return f"<{self.name}: removed>"
        state = self.state
        splits = ", ".join(f"{count:,} {name}" for name, count in state.splits)
        layer = "" if state.layer in (None, -1) else f"layer {state.layer}, "
        return visible(
            f"<{self.name}: {layer}{state.examples:,} examples ({splits}), {state.tokens:,} tokens>"
        )

    def _repr_html_(self) -> str:
        return f"<code>{escape(repr(self))}</code>"


def _cache(value: Any) -> EmbeddedDataset | str:
    return value if isinstance(value, EmbeddedDataset) else str(NAME_OR_PATH.read(value))


CACHE = Kind("give what embed returned, or a cache's name or path", _cache)


# Not compared by value: arrays have no single answer to ==.
@dataclass(frozen=True, eq=False, repr=False)
class TextPredictions(Sequence[dict[str, Any]]):
    """Predictions for texts: a sequence of {"text", "label" or "labels", "unknown",
    "probabilities"}, with "thresholds" of a run that has decision thresholds.

    Attributes:
        texts: N texts.
        probabilities: (N, C) float64; independent per label in a multi-label run.
        unknown: The share of each text's tokens that are unknown to the backbone, (N,) float64.
        record: The run's record.
        min_probability: Labels with a lower probability are not given; None to give all.
    """

    texts: list[str]
    probabilities: Array
    unknown: Array
    record: RunRecord
    min_probability: float | None = None

    @cached_property
    def labels(self) -> list[list[str]]:
        """The label names of each text: one, or none where its probability is below
        `min_probability`; any number in a multi-label run."""
        return self._given(self.min_probability)

    def _given(self, minimum: float | None) -> list[list[str]]:
        record = self.record
        names, limits = record.label_names, record.decision_thresholds
        return record.task.given(self.probabilities, names, minimum, limits)

    @property
    def undecided(self) -> list[int]:
        """The indices of the texts from which `min_probability` took a label."""
        pairs = enumerate(zip(self._given(None), self.labels, strict=True))
        return [index for index, (every, given) in pairs if every != given]

    @property
    def mostly_unknown(self) -> list[int]:
        """The indices of the texts whose tokens are unknown by half or more."""
        indices: list[int] = np.flatnonzero(self.unknown >= MOSTLY).tolist()
        return indices

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The items of the sequence, which `--json` prints."""
        return [self[index] for index in range(len(self))]

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return self.rows[index]
        names = self.record.label_names
        return {
            "text": self.texts[index],
            **self.record.task.as_json(self.labels[index]),
            "unknown": float(self.unknown[index]),
            "probabilities": dict(zip(names, self.probabilities[index].tolist(), strict=True)),
            **({"thresholds": self.record.thresholds} if self.record.thresholds else {}),
        }

    def __len__(self) -> int:
        return len(self.texts)

    def table(self) -> Table:
        """The table as it is printed. Long texts are shortened; a column with the share of unknown
        tokens stands there if a text is mostly unknown."""
        unknown, lines = set(self.mostly_unknown), []
        for index, (row, labels) in enumerate(zip(self.rows, self.labels, strict=True)):
            values = ", ".join(f"{row['probabilities'][name]:.3f}" for name in labels)
            share = f"{100 * row['unknown']:.0f}%" if index in unknown else ""
            cells = [", ".join(labels) or "–", values or "–", shortened(row["text"], MOST_SHOWN)]
            cells[2:2] = [share] if unknown else []
            lines.append(Line([Cell(text) for text in cells]))
        columns = ["Label", "Probability", *(["Unknown"] if unknown else []), "Text"]
        return Table("Predictions", columns, lines, "predictions")

    @property
    def notes(self) -> list[str]:
        """What the reader should know of the table, in sentences."""
        undecided, unknown = len(self.undecided), len(self.mostly_unknown)
        return notes(self.record, self.min_probability, len(self), undecided, unknown)

    def __str__(self) -> str:
        return "\n".join([plain.table(self.table()), *([""] if self.notes else []), *self.notes])

    def __repr__(self) -> str:
        counts = Counter(", ".join(labels) or "no label" for labels in self.labels)
        return visible(f"<labels of {counted(len(self))}: {said(counts)}; {self.record.id}>")

    def _repr_html_(self) -> str:
        return fragment.render([self.table(), *map(Paragraph, self.notes)])


def counted(texts: int) -> str:
    """A number of texts in words: `3 texts`."""
    return f"{texts:,} text{'' if texts == 1 else 's'}"


def said(counts: Counter[str]) -> str:
    """The most frequent labels with their numbers: `3 good, 1 bad`."""
    given = [f"{count:,} {name}" for name, count in counts.most_common(MOST_LABELS)]
    return ", ".join([*given, *(["..."] if len(counts) > MOST_LABELS else [])])


def notes(
    record: RunRecord, minimum: float | None, texts: int, undecided: int, unknown: int
) -> list[str]:
    """What the reader should know of predictions, in sentences.

    Args:
        record: The run's record.
        minimum: The minimum probability of labels that are given; None to give all.
        texts: Number of texts.
        undecided: Number of those from which `minimum` took a label.
        unknown: Number of those that are mostly unknown to the backbone.
    """
    found, of = [], f"of {counted(texts)}"
    if record.thresholds:
        found.append(thresholds.in_words(record.thresholds))
    if minimum is not None:
        be = "is" if undecided == 1 else "are"
        task = record.task
        words = task.undecided_at_threshold if record.thresholds else task.undecided
        found.append(f"{undecided:,} {of} {be} {words.format(f'{minimum:g}')}.")
    if unknown:
        found.append(
            f"Unknown: at least half of the tokens of {unknown:,} {of} are unknown to the "
            f"backbone: {'its label says' if unknown == 1 else 'their labels say'} little."
        )
    return found


@dataclass(frozen=True, eq=False, repr=False)
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
        """The text's words with their shares in the shown label's logit, relative to the other
        labels, as they are printed (`Explanation.shares`)."""
        found = self.explanation
        shares = found.shares[:, self.label].tolist()
        return [(word.text, share) for word, share in zip(found.words, shares, strict=True)]

    @checked(path=FILE)
    def save(self, path: str | Path) -> Path:
        """Write a page: the text, every word's share, and the tokens in the concept spaces.

        Args:
            path: Path of the file.

        Raises:
            SpaceliteError: The file cannot be written.
        """
        record = self.run.record
        about = f"{record.system}, trained on {record.spec.dataset}: run {self.run.id}"
        if self.example is not None:
            source = self.explanation.source
            about += f"; example {self.example}" + (f" ({source})" if source is not None else "")
        about += "."
        latent = getattr(record.head, "latent", None)
        content = page.explanation_page(self.explanation, self.label, latent, about)
        forms.save_page(Path(path), content)
        return Path(path)

    def __str__(self) -> str:
        found = self.explanation
        text = " ".join(
            f"{word.text}({word.contribution:+.2f})" if word.side else word.text
            for word in found.marked(self.label)
        )
        return visible(
            f"predicted {found.said}; words for and against {found.labels[self.label]}: {text}"
        )

    def __repr__(self) -> str:
        found = self.explanation
        words = found.text or " ".join(word.text for word in found.words)
        text = repr(shortened(words, MOST_SHOWN)) if self.example is None else self.example
        return visible(f"<words of {text} for {found.labels[self.label]}; predicted {found.said}>")

    def _repr_html_(self) -> str:
        found = self.explanation
        return (
            f"<div>Predicted <b>{escape(found.said)}</b>; words for and against "
            f"<b>{escape(found.labels[self.label])}</b>:"
            f"{fragment.marked_text(found.marked(self.label))}</div>"
        )


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        said = []
        for split, scores in self.metrics.items():
            value = figure(scores, "accuracy")
            said.append(f"{split} {'unknown' if value is None else decimals(value, 4)}")
        return visible(
            f"<run {self.run.id} evaluated on {self.record.dataset}: accuracy {', '.join(said)}>"
        )

    def _repr_html_(self) -> str:
        return fragment.table(self.table())
