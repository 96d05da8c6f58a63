"""What the functions return; each can be printed and displayed in a notebook."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from spacelite import files
from spacelite.api.arguments import NAME, NAME_OR_PATH, Kind, checked
from spacelite.api.examples import Examples
from spacelite.backbones.tokenizer import MOSTLY
from spacelite.cache import folder as caches
from spacelite.cache import texts as cached_texts
from spacelite.cache.dtypes import Rounded
from spacelite.cache.embedding import Speed
from spacelite.cache.folder import CacheState
from spacelite.cache.store import Cache, is_cache
from spacelite.cache.texts import Duplicates, UnknownTokens
from spacelite.data.splits import Text, joined, named
from spacelite.document import Bullets, Line, Paragraph, Table, decimals, of_label
from spacelite.errors import SpaceliteError
from spacelite.heads.config import system_names
from spacelite.inference.explanation import Explanation
from spacelite.lazy import pandas as pd
from spacelite.metrics import rationales, thresholds
from spacelite.metrics.rationales import Rationales
from spacelite.metrics.scores import METRICS
from spacelite.metrics.thresholds import OPTIMISTIC
from spacelite.reports.document.tables import runs_table, short_id, trained_table
from spacelite.reports.render import forms, markup, page
from spacelite.runs.record import RunRecord, TransferRecord
from spacelite.runs.store import Run
from spacelite.tasks import Task, known_metrics
from spacelite.training.config import TrainingConfig
from spacelite.types import Array
from spacelite.visible import shortened, visible, visible_name

if TYPE_CHECKING:
    from spacelite.api.runs import TrainedRun


MOST_SHOWN = 100  # characters of a text in the table of predictions
MOST_ROWS, ROWS_AT_ENDS = 60, 5  # of a notebook's table of predictions, as in pandas
MOST_LABELS = 3  # that are counted in the short form of predictions
MOST_KINDS = 4  # of heads, in the short form of runs
MOST_THRESHOLDS = 8  # runs whose decision thresholds are said


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
        shard: Which of its files the call wrote, and how many it has, if `embed` was given one.
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
    shard: tuple[int, int] | None = None

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
            labels = next(iter(cache.splits.values())).labels
            counts = cache.task.label_counts(labels, len(cache.label_names)).tolist()
            return dict(zip(cache.label_names, counts, strict=True))

    @cached_property
    def spread(self) -> str:
        """Where the labels of these examples lie, if they are numbers; "" for classes."""
        with self.open() as cache:
            return cache.task.spread(next(iter(cache.splits.values())).labels)

    @cached_property
    def unlabelled(self) -> int:
        """How many of these examples have no label."""
        with self.open() as cache:
            return cache.task.unlabelled(next(iter(cache.splits.values())).labels)

    @cached_property
    def duplicates(self) -> Duplicates:
        """How many texts occur in two splits, and how many have more than one label."""
        with self.open() as cache:
            return cached_texts.duplicates_of(cache)

    @cached_property
    def unknown(self) -> UnknownTokens:
        """How many tokens are unknown to the backbone, by split; without splits if this is not
        known, as for a cache that an older version wrote: `embed` again counts them."""
        return cached_texts.read_unknown(self.path)

    def open(self) -> Cache:
        """Open the cache for reading; use it as a context manager."""
        return Cache(self.path)

    def __getitem__(self, split: str) -> Examples:
        """The examples of a split, `train`, `validation` or `test`. Raises SpaceliteError if there
        is no such split."""
        return Examples(self.path, split)

    def __repr__(self) -> str:
        if not is_cache(self.path):
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
    "probabilities"}, with "text_pair" after "text" if it was a pair, and "thresholds" of a run that
    has decision thresholds; of numbers {"text", "value", "unknown"}.

    Attributes:
        texts: N texts, or N pairs.
        probabilities: (N, C) float64; independent per label in a multi-label run; (N, 1) of
            predicted numbers.
        unknown: The share of each text's tokens that are unknown to the backbone, (N,) float64.
        record: The run's record.
        min_probability: Labels with a lower probability are not given; None to give all.
        index: The index of the DataFrame or Series of the texts, which `to_frame` keeps.
    """

    texts: list[Text]
    probabilities: Array
    unknown: Array
    record: RunRecord
    min_probability: float | None = None
    index: Any = None

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

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame with a row per text, and the columns that `predict --out` writes: `text` (and
        `text_pair` of pairs), `label` (or `labels`, a list), `unknown`, and `probability_NAME` of
        each label; of numbers `value`, and no probabilities. Its index is that of the DataFrame or
        Series of the texts. If the names of all labels are whole numbers, or `true` and `false`,
        the labels are numbers and booleans there."""
        (column,) = self.record.task.as_json([])
        meant = meant_by(self.record.label_names)
        labels: Any = [
            self.record.task.as_json([meant.get(label, label) for label in labels])[column]
            for labels in self.labels
        ]
        if None in labels and not isinstance(next(iter(meant.values())), str):
            labels = pd.array(labels)  # Int64 or boolean, which have missing values
        chances = {
            f"probability_{name}": self.probabilities[:, index]
            for index, name in enumerate(self.record.probability_names)
        }
        written = [named(text) for text in self.texts]
        texts = {name: [row[name] for row in written] for name in written[0]}
        return pd.DataFrame(
            {**texts, column: labels, "unknown": self.unknown, **chances}, index=self.index
        )

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return self.rows[index]
        names, chances = self.record.probability_names, self.probabilities[index].tolist()
        return {
            **named(self.texts[index]),
            **self.record.task.as_json(self.labels[index]),
            "unknown": float(self.unknown[index]),
            **({"probabilities": dict(zip(names, chances, strict=True))} if names else {}),
            **({"thresholds": self.record.thresholds} if self.record.thresholds else {}),
        }

    def __len__(self) -> int:
        return len(self.texts)

    def table(self) -> Table:
        """The table as it is printed. Long texts are shortened; a column with the share of unknown
        tokens stands there if a text is mostly unknown."""
        unknown, lines = set(self.mostly_unknown), []
        for index, (row, labels) in enumerate(zip(self.rows, self.labels, strict=True)):
            chances = row.get("probabilities", {})
            values = ", ".join(decimals(chances[name], 3) for name in labels if name in chances)
            share = f"{100 * row['unknown']:.0f}%" if index in unknown else ""
            shown = [share] if unknown else []
            given = [", ".join(labels) or "–", values or "–"]
            if not self.record.probability_names:
                given = [of_label(row["value"])]
            text = shortened(joined(self.texts[index]), MOST_SHOWN)
            lines.append(Line.of(*given, *shown, text))
        columns = ["Label", "Probability"]
        if not self.record.probability_names:
            columns = [visible_name(", ".join(self.record.label_names))]
        columns += [*(["Unknown"] if unknown else []), "Text"]
        return Table("Predictions", columns, lines, "predictions")

    @cached_property
    def _in_numbers(self) -> FilePredictions:
        counts = FilePredictions(self.record, self.min_probability)
        counts.add(self)
        return counts

    @property
    def notes(self) -> list[str]:
        """What the reader should know of the table, in sentences."""
        return self._in_numbers.notes

    def __str__(self) -> str:
        return "\n".join(
            [markup.Plain().columns(self.table()), *([""] if self.notes else []), *self.notes]
        )

    def __repr__(self) -> str:
        return repr(self._in_numbers)

    def _repr_html_(self) -> str:
        table, notes = self.table(), self.notes
        if len(self) > MOST_ROWS:
            gap = Line.of("…", *([""] * (len(table.columns) - 1)))
            ends = [*table.lines[:ROWS_AT_ENDS], gap, *table.lines[-ROWS_AT_ENDS:]]
            table = replace(table, lines=ends)
            notes = [f"{len(self):,} texts; to_frame() has all of them.", *notes]
        return markup.fragment([table, *map(Paragraph, notes)])


def meant_by(names: Sequence[str]) -> dict[str, Any]:
    """Each label's name with what it stands for, if all do: a whole number, or True and False."""
    if {*names} == {"false", "true"}:
        return {name: name == "true" for name in names}
    numbers = all(re.fullmatch(r"0|-?[1-9]\d{,17}", name) for name in names)
    return {name: int(name) if numbers else name for name in names}


@dataclass(repr=False)
class FilePredictions:
    """What was predicted for a file, in numbers.

    Attributes:
        record: The run's record.
        min_probability: Labels with a lower probability are not given; None to give all.
        path: The file of the results; None if they were not written to one.
        texts: Number of texts.
        labels: How often each label was given; in a multi-label run, each set of labels. Empty if
            numbers were predicted.
        undecided: Number of texts from which `min_probability` took a label.
        mostly_unknown: Number of texts whose tokens are unknown to the backbone by half or more.
        values: The smallest, the largest and the mean of the predicted numbers; None for labels.
    """

    record: RunRecord
    min_probability: float | None = None
    path: Path | None = None
    texts: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    undecided: int = 0
    mostly_unknown: int = 0
    values: tuple[float, float, float] | None = None

    def add(self, batch: TextPredictions) -> None:
        """Count the predictions of a batch."""
        before = self.texts
        self.texts += len(batch)
        self.mostly_unknown += len(batch.mostly_unknown)
        if self.record.probability_names:
            self.labels.update(", ".join(labels) or "no label" for labels in batch.labels)
            self.undecided += len(batch.undecided)
            return
        numbers, (low, high, mean) = batch.probabilities, self.values or (math.inf, -math.inf, 0.0)
        total = before * mean + float(numbers.sum())
        low, high = min(low, float(numbers.min())), max(high, float(numbers.max()))
        self.values = low, high, total / self.texts

    @property
    def notes(self) -> list[str]:
        """What the reader should know of the predictions, in sentences."""
        sentences, of = [], f"of {self._count}"
        little = ("its label says", "their labels say")
        if self.values is not None:
            little = ("its number says", "their numbers say")
        if self.record.thresholds:
            sentences.append(thresholds.in_words(self.record.thresholds, self.record.wish))
        if self.min_probability is not None:
            be = "is" if self.undecided == 1 else "are"
            task = self.record.task
            words = task.undecided_at_threshold if self.record.thresholds else task.undecided
            undecided = words.format(f"{self.min_probability:g}")
            sentences.append(f"{self.undecided:,} {of} {be} {undecided}.")
        if self.mostly_unknown:
            sentences.append(
                f"Unknown: at least half of the tokens of {self.mostly_unknown:,} {of} are unknown "
                "to the backbone: "
                f"{little[self.mostly_unknown > 1]} little."
            )
        return sentences

    def as_json(self) -> dict[str, Any]:
        """The numbers as one JSON object."""
        counted = {"labels": dict(self.labels.most_common()), "undecided": self.undecided}
        if self.values is not None:
            counted = {"values": dict(zip(("least", "most", "mean"), self.values, strict=True))}
        return {
            "path": None if self.path is None else str(self.path),
            "texts": self.texts,
            **counted,
            "mostly_unknown": self.mostly_unknown,
            **({"thresholds": self.record.thresholds} if self.record.thresholds else {}),
        }

    def __str__(self) -> str:
        where = "" if self.path is None else f", written to {self.path}"
        done = f"{self._count} classified"
        if self.values is not None:
            done = f"{visible_name(self.record.label_names[0])} of {self._count}"
        line = f"{done}{where}: {self._frequent}"
        return visible("\n".join([line, *self.notes]))

    def __repr__(self) -> str:
        what = "labels" if self.values is None else self.record.label_names[0]
        return visible(f"<{what} of {self._count}: {self._frequent}; {self.record.id}>")

    @property
    def _count(self) -> str:
        return f"{self.texts:,} text{'' if self.texts == 1 else 's'}"

    @property
    def _frequent(self) -> str:
        """The most frequent labels with their counts, `3 good, 1 bad`, or where numbers lie."""
        if self.values is not None:
            return "{} to {}, mean {}".format(*map(of_label, self.values))
        given = [
            f"{count:,} {visible_name(name)}"
            for name, count in self.labels.most_common(MOST_LABELS)
        ]
        return ", ".join([*given, *(["..."] if len(self.labels) > MOST_LABELS else [])])


@dataclass(frozen=True, eq=False, repr=False)
class TextExplanation:
    """A prediction and each word's exact share in it.

    Attributes:
        explanation: The prediction, with the shares in every label's logit.
        label: Index of the label that is shown; of several the most probable.
        run: The run.
        example: Location of the text in the run's cache, such as `test:17`, if it is from there.
        others: Indices of further labels that are shown: where a text can have several, all that
            are predicted, unless one was chosen.
    """

    explanation: Explanation
    label: int
    run: Run
    example: str | None = field(default=None)
    others: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, explained: Explanation, run: Run, label: str | None, example: str | None = None
    ) -> TextExplanation:
        """The explanation of a label, by default of all that are predicted."""
        names = explained.labels
        first, *others = explained.all_predicted if label is None else [names.index(label)]
        return cls(explained, first, run, example, tuple(others))

    @property
    def words(self) -> list[tuple[str, float]]:
        """The text's words with their shares in the shown label's logit, relative to the other
        labels, as they are printed (`Explanation.shares`); `words_by_label` has those of all labels
        that are shown."""
        return self.words_by_label[self.explanation.labels[self.label]]

    @property
    def words_by_label(self) -> dict[str, list[tuple[str, float]]]:
        """The words as in `words`, by the name of each label that is shown."""
        explained = self.explanation
        words = [word.text for word in explained.words]
        return {
            explained.labels[label]: list(
                zip(words, explained.shares[:, label].tolist(), strict=True)
            )
            for label in self.shown
        }

    @property
    def shown(self) -> tuple[int, ...]:
        """Indices of all labels that are shown."""
        return self.label, *self.others

    @checked()
    def save(self, path: str | Path) -> Path:
        """Write a page: the text, every word's share, and the tokens in concept spaces, if any.

        Args:
            path: Path of the file.

        Raises:
            SpaceliteError: The file cannot be written, or its name does not end in .html.
        """
        forms.check_page(Path(path))
        record = self.run.record
        about = f"{record.system}, trained on {record.spec.dataset}: run {self.run.id}"
        if self.example is not None:
            source = self.explanation.source
            about += f"; example {self.example}" + (f" ({source})" if source is not None else "")
        about += "."
        latent = getattr(record.head, "latent", None)
        content = page.explanation_page(self.explanation, self.shown, latent, about)
        forms.save_page(Path(path), content)
        return Path(path)

    def __str__(self) -> str:
        explained, of_labels = self.explanation, []
        for label in self.shown:
            text = " ".join(
                f"{word.text}({word.share(2)})" if word.side else word.text
                for word in explained.marked(label)
            )
            name = explained.named(label)
            of_labels.append(visible(f"{explained.sides} {name}: {text}"))
        return f"predicted {explained.prediction}; " + "\n".join(of_labels)

    def __repr__(self) -> str:
        explained = self.explanation
        words = joined(explained.text or " ".join(word.text for word in explained.words))
        text = repr(shortened(words, MOST_SHOWN)) if self.example is None else self.example
        labels = ", ".join(explained.labels[label] for label in self.shown)
        return visible_name(f"<words of {text} for {labels}; predicted {explained.prediction}>")

    def _repr_html_(self) -> str:
        explained = self.explanation
        of_labels = "".join(
            f"{explained.sides} <b>{escape(explained.named(label))}</b>:"
            f"{markup.marked_text(explained.marked(label))}"
            for label in self.shown
        )
        return f"<div>Predicted <b>{escape(explained.prediction)}</b>; {of_labels}</div>"


@dataclass(frozen=True, repr=False)
class Evaluation:
    """A run's metrics on another data set.

    Attributes:
        run: The run.
        record: The metrics, and the matching of the data set's labels to the run's.
        rationales: How the head's explanations do against the words that people marked; None if
            none were given.
    """

    run: Run
    record: TransferRecord
    rationales: Rationales | None = None

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """Every metric by split."""
        return deepcopy(self.record.metrics)

    @property
    def seen_in_training(self) -> dict[str, int] | None:
        """How many examples of each split have a text that the run was trained on; None if its
        training texts are not there any more."""
        return deepcopy(self.record.seen_in_training)

    @property
    def seen_in_choosing(self) -> dict[str, int]:
        """How many other examples of each split have a text of the run's validation split; empty if
        nothing was chosen on that."""
        return deepcopy(self.record.seen_in_choosing)

    @property
    def metrics_unseen(self) -> dict[str, dict[str, float | None]]:
        """Every metric but the loss of the validation and test examples whose texts the run has not
        seen, neither in training nor in choosing, for splits that have both."""
        return deepcopy(self.record.metrics_unseen)

    def table(self) -> Table:
        """The table as it is printed."""
        return metrics_table(self.metrics, self.record.examples, self.run.record.task)

    def __str__(self) -> str:
        plain = markup.Plain().columns(self.table())
        if self.rationales is None:
            return plain
        compared = map(markup.Plain().columns, rationales.tables({"": self.rationales}))
        return "\n\n".join([plain, *compared, "\n".join(self.rationales.sentences)])

    def __repr__(self) -> str:
        figures, task = [], self.run.record.task
        metric = task.metrics[task.headline]
        for split, scores in self.metrics.items():
            value = scores.get(task.headline)
            figures.append(f"{split} {'unknown' if value is None else metric.written(value)}")
        return visible(
            f"<run {self.run.id} evaluated on {self.record.dataset}: "
            f"{metric.in_words} {', '.join(figures)}>"
        )

    def _repr_html_(self) -> str:
        if self.rationales is None:
            return markup.Fragment().columns(self.table())
        about = Bullets(self.rationales.sentences)
        compared = rationales.tables({"": self.rationales})
        return markup.fragment([self.table(), *compared, about])


def metrics_table(
    metrics: dict[str, dict[str, float | None]], examples: dict[str, int], task: Task
) -> Table:
    """The number of each split's examples, and every metric: a line each, a column per split."""
    lines = [Line.of("Examples", *(f"{examples[split]:,}" for split in metrics))]
    for name, metric in task.metrics.items():
        values = [scores.get(name) for scores in metrics.values()]
        if name == "loss" and not any(value is not None for value in values):
            continue  # of a head that is fitted, or on numbers
        figures = ["–" if value is None else metric.written(value) for value in values]
        lines.append(Line.of(metric.heading, *figures))
    return Table("Evaluation", ["Metric", *metrics], lines, "evaluation")


class Runs(Sequence["TrainedRun"]):
    """Runs, as `train` returns them: a sequence that prints as a table with a line per system.

    Attributes:
        stopped: Descriptions of the heads that diverged and were not saved.
        baseline: What always predicting the most frequent training label achieves, in words; ""
            for runs that were not just trained.
        before: Number of baselines, the last of the runs, that an earlier training has fitted.
        search: What a search chose, and from what, in words; "" if there was none.
        cache_dir: The folder that was searched for runs; None for runs that were not.
    """

    def __init__(
        self,
        runs: Sequence[TrainedRun] = (),
        stopped: Sequence[str] = (),
        baseline: str = "",
        before: int = 0,
        search: str = "",
        cache_dir: Path | None = None,
    ) -> None:
        self._runs, self.stopped, self.baseline = list(runs), list(stopped), baseline
        self.before, self.search = before, search
        self.cache_dir = None if cache_dir is None else files.absolute(cache_dir)

    @overload
    def __getitem__(self, index: int) -> TrainedRun: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> TrainedRun | Runs:
        if isinstance(index, slice):
            return Runs(self._runs[index], baseline=self.baseline)
        return self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __add__(self, other: Runs | list[TrainedRun]) -> Runs:
        if not isinstance(other, Runs | list):
            return NotImplemented
        more = other if isinstance(other, Runs) else Runs(other)
        baseline = self.baseline if self.baseline == more.baseline else ""
        return Runs([*self, *more], [*self.stopped, *more.stopped], baseline)

    def __radd__(self, other: list[TrainedRun]) -> Runs:
        return Runs(other) + self if isinstance(other, list) else NotImplemented

    @property
    def thresholds(self) -> str:
        """The decision thresholds that were chosen on validation, in words; "" if there are none:
        those of each run, where labels have one each from the lowest to the highest."""
        chosen = [run.record for run in self if run.record.thresholds]
        metrics = dict.fromkeys(record.training.threshold or "" for record in chosen)
        if not chosen:
            return ""
        of_runs = []
        for record in chosen[:MOST_THRESHOLDS]:
            values = record.thresholds.values()
            ends = dict.fromkeys(decimals(end, 4) for end in (min(values), max(values)))
            of_runs.append(f"{record.name or short_id(record.id)} {' to '.join(ends)}")
        names = " and ".join(METRICS[metric].in_words for metric in metrics)
        more = ", ..." if chosen[MOST_THRESHOLDS:] else ""
        return (
            f"Decision thresholds, chosen on validation for {names}: {', '.join(of_runs)}{more}; "
            f"{OPTIMISTIC}."
        )

    @checked(metric=replace(NAME, needed="give the name of a metric"))
    def best(self, metric: str | None = None) -> TrainedRun:
        """The run with the best value of a metric on the validation split.

        Args:
            metric: Name of the metric. Default: macro F1; of numbers, the RMSE.

        Raises:
            SpaceliteError: There is no such metric, or no run.
        """
        if not self._runs:
            raise SpaceliteError("there is no run to choose from: this list of runs is empty")
        metric = self._runs[0].record.task.metric(metric, TrainingConfig.monitor)
        values = [(run.metrics.get("validation", {}).get(metric), run) for run in self._runs]
        known = [(value, run) for value, run in values if value is not None]
        if not known:
            raise SpaceliteError(
                f"no run has a {metric} on the validation split: choose another metric", ["metric"]
            )
        choose = max if known_metrics()[metric].higher_is_better else min
        return choose(known, key=lambda pair: pair[0])[1]

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame with a row per run: its `id`, `name`, `system` and `cache`, its settings, and
        its metrics, such as `test_accuracy`. Whole numbers are Int64, which has missing values: a
        head without a seed has none."""
        records = [run.record for run in self]
        names = system_names([of.head for of in records], [of.training for of in records])
        # The settings of logistic regression have a seed, for its id's sake.
        seeds = [getattr(of.head, "seed", None) for of in records]
        settings = [{**of.settings, "seed": seed} for of, seed in zip(records, seeds, strict=True)]
        frame = pd.DataFrame(
            {
                "id": run.id,
                "name": run.name,
                "system": system,
                "cache": run.record.cache,
                **of_run,
                **{
                    f"{split}_{metric}": value
                    for split, scores in run.metrics.items()
                    for metric, value in scores.items()
                },
            }
            for run, system, of_run in zip(self, names, settings, strict=True)
        )
        for name in dict.fromkeys(name for of_run in settings for name in of_run):
            values = [of_run.get(name) for of_run in settings]
            if {*map(type, values)} - {type(None)} == {int}:
                frame[name] = pd.array(values, "Int64")
        return frame

    def table(self, *, each_run: bool = False, places: int = 4) -> Table:
        """The table as it is printed, with a line per system: means over seeds, with `places`
        decimals. With `each_run`, the metrics of each run on every split; `to_frame` has more."""
        runs = [run.run for run in self._runs]
        return runs_table(runs) if each_run else trained_table(runs, places)

    def __str__(self) -> str:
        if not self._runs:
            return self._none
        table = self.table()
        return f"{table.caption}\n{markup.Plain().columns(table)}"

    def __repr__(self) -> str:
        kinds = list(dict.fromkeys(run.record.system for run in self))
        shown = ", ".join(kinds[:MOST_KINDS]) + (", ..." if kinds[MOST_KINDS:] else "")
        where = "" if self or self.cache_dir is None else visible(f" in {self.cache_dir}")
        return f"<{len(self)} run{'' if len(self) == 1 else 's'}{shown and f': {shown}'}{where}>"

    @property
    def _none(self) -> str:
        """What is shown where there is no run: `no runs in /home/me/cache`."""
        return "no runs" if self.cache_dir is None else visible(f"no runs in {self.cache_dir}")

    def _repr_html_(self) -> str:
        return markup.Fragment().table(self.table()) if self._runs else escape(self._none)
