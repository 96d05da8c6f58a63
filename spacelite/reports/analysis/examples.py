"""Which words contribute most over a whole split, and the most confident mistakes."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spacelite import heads
from spacelite.backbones.tokenizer import Words, WordsOfIds, held_words
from spacelite.cache import folder as caches
from spacelite.cache import store
from spacelite.cache.split import CachedSplit, spans
from spacelite.data.splits import Source
from spacelite.document import figure
from spacelite.errors import SpaceliteError
from spacelite.heads.base import Tokens
from spacelite.inference.explanation import (
    Marked,
    cached_example,
    explain,
    has_shares,
    marked,
)
from spacelite.inference.prediction import backbone_files
from spacelite.metrics.predictions import Predictions
from spacelite.reports.analysis.groups import Group
from spacelite.runs.store import Run, find_cache
from spacelite.types import Array
from spacelite.visible import visible_name

log = logging.getLogger(__name__)

MOST_WORDS = 12  # per class
MOST_MISTAKES = 10
NUMBERS_AT_ONCE = 1 << 23  # hidden states or coordinates: 32 MiB


@dataclass(frozen=True)
class WordShare:
    """A word of the split, and what it adds to a class's logit, as far as that affects the
    prediction (`Task.centred`)."""

    word: str
    count: int  # of its occurrences
    mean: float  # sum of what it adds, divided by the number of examples
    each: float  # mean of one occurrence


@dataclass(frozen=True)
class Mistake:
    """A wrongly predicted example."""

    example: str  # its location, such as `test:17`
    label: str  # the true label(s)
    predicted: str
    confidence: float  # probability of the prediction, or of numbers the error
    words: list[str]
    shares: list[float]  # what each adds to the logit of the most probable label
    source: Source | None = None
    of_number: bool = False

    @property
    def degree(self) -> str:
        """The confidence, or the error, as it is shown: `0.98`, or `error 1.61`."""
        return f"error {figure(self.confidence)}" if self.of_number else f"{self.confidence:.2f}"

    @property
    def marked(self) -> list[Marked]:
        """The text's words, marked by their shares."""
        return marked(self.words, self.shares, self.of_number)

    @property
    def place(self) -> str:
        """Location and source: `test:17 (test.csv, row 18)`."""
        return self.example if self.source is None else f"{self.example} ({self.source})"

    @property
    def about(self) -> str:
        """Where it is, and what was predicted: `test:17, good, predicted bad`."""
        return visible_name(f"{self.place}, {self.label}, predicted {self.predicted}")


@dataclass(frozen=True)
class WordsAndMistakes:
    """Of one head on a split: the words that contribute most, by label, and the most confident
    mistakes."""

    name: str
    run: str
    task: str
    words: dict[str, list[WordShare]]  # empty if the cache was imported without token ids
    mistakes: list[Mistake]
    better: str = ""  # the best system, where that is another one, and why it is not shown


def words_and_mistakes(
    cache_dir: Path, group: Group, backbone: str | None = None
) -> WordsAndMistakes | None:
    """The words and mistakes of the best system whose logits are a sum over tokens, preferably a
    space head. None if there is no such system, or, with a warning in the log, if the cache or the
    backbone (a folder, if it was a local one) cannot be used."""
    chosen = _chosen(group)
    if chosen is None:
        return None
    name, run, predictions, better = chosen
    section = group.section
    try:
        spec = run.record.spec
        words = (
            WordsOfIds()
            if spec.is_imported
            else held_words(backbone_files(run, backbone), spec.prefix, spec.skip_first)
        )
        # The cache of the group's data: that of the run, or of another data set.
        path = (
            find_cache(run, cache_dir)
            if group.systems[0].transfers is None
            else caches.find(cache_dir, section.cache, exact=True)
        )
        with store.Cache(path) as cache:
            cache.check_index(section.split)
            split = cache.splits[section.split]
            if len(split) != len(predictions.labels):
                raise SpaceliteError(
                    f"cache {cache.name} is not the one that run {run.id} was trained on: train "
                    "again"
                )
            cache.require_complete()
            return WordsAndMistakes(
                name=name,
                run=run.id,
                task=predictions.task.name,
                words=_words(run, split, words) if cache.has_token_ids else {},
                mistakes=_mistakes(run, cache, section.split, predictions, words),
                better=better,
            )
    except SpaceliteError as error:
        log.warning("no words for %s: %s", section.title, error)
        return None


def _chosen(group: Group) -> tuple[str, Run, Predictions, str] | None:
    candidates = []
    for row, system in group.named:
        figure, predictions = row.figures[row.headline], system.predictions[0]
        run = system.runs[0]
        if figure is not None and predictions is not None and has_shares(run):
            # Kinds of heads in the order of tables, space heads first.
            kind = -list(heads.KINDS).index(run.head.kind)
            goodness = row.goodness(figure)
            candidates.append(((kind == 0, goodness), (row.system, run, predictions)))
    if not candidates:
        return None
    (_, shown), chosen = max(candidates, key=lambda pair: pair[0])
    row, system = max(group.named, key=lambda pair: pair[0].goodness(pair[0].figures[row.headline]))
    if row.goodness(row.figures[row.headline]) <= shown:
        return *chosen, ""
    head = system.record.head
    reason = "space heads come first"
    if heads.kind(head.kind).not_additive(head) is not None:
        reason = "what it predicts is not a sum over words"
    elif head.reads_layers:
        reason = "the cache has only the means of the layers that it reads; explain shows its words"
    return *chosen, f"The best system, {row.system}, is not shown: {reason}."


def _words(run: Run, split: CachedSplit, words: Words) -> dict[str, list[WordShare]]:
    """The words with the largest mean shares of each label, as `Task.word_lists` names them."""
    kind, labels = heads.kind(run.head.kind), run.record.label_names
    # By a word's tokens: the sums of what it adds to each label's logit, and its occurrences.
    total: dict[tuple[int, ...], Array] = defaultdict(lambda: np.zeros(len(labels) + 1))
    per_token = kind.numbers_per_token(run.head, len(labels), run.width)
    parts = list(spans(split.offsets, NUMBERS_AT_ONCE // per_token))
    longest = max(int(split.offsets[last] - split.offsets[first]) for first, last in parts)
    # Reused: allocating fresh memory would take longer than everything else.
    stored = split.stored.memory(longest, split.width)
    widened = np.empty((longest, split.width), np.float32)
    for first, last in parts:
        offsets = split.offsets[first : last + 1]
        low, high = int(offsets[0]), int(offsets[-1])
        ids = split.read_token_ids(low, high)
        rows = slice(0, high - low)
        hidden = split.read_hidden(first, last, stored[rows], widened[rows])
        texts = Tokens(hidden, ids, offsets - low)
        shares = run.record.task.centred(kind.token_shares(run.head, run.parameters, texts))
        _add(total, ids, words.starts(ids, offsets - low), shares)
    spelled: dict[str, Array] = {}
    for tokens, summed in total.items():
        if not words.no_text(tokens):
            word = words.spelled(tokens)  # different tokens may spell the same word
            spelled[word] = spelled.get(word, np.zeros_like(summed)) + summed
    strongest = {}
    lists = run.record.task.word_lists.items()
    for (c, label), (heading, sign) in itertools.product(enumerate(labels), lists):
        best = sorted(spelled.items(), key=lambda item: -sign * item[1][c])[:MOST_WORDS]
        strongest[heading.format(label)] = [
            WordShare(
                word, int(summed[-1]), float(summed[c] / len(split)), float(summed[c] / summed[-1])
            )
            for word, summed in best
            if sign * summed[c] > 0
        ]
    return strongest


def _add(total: dict[tuple[int, ...], Array], ids: Array, starts: Array, of_tokens: Array) -> None:
    """Add the shares of the words that begin at `starts` to each word's total."""
    of_words = np.add.reduceat(of_tokens.astype(np.float64), starts, axis=0)
    of_words = np.column_stack([of_words, np.ones(len(starts))])
    lengths = np.diff([*starts, len(ids)])
    single = lengths == 1
    known, index = np.unique(ids[starts[single]], return_inverse=True)
    summed = np.stack([np.bincount(index, column) for column in of_words[single].T], axis=1)
    for number, row in zip(known.tolist(), summed, strict=True):
        total[(number,)] += row
    listed = ids.tolist()
    for word in np.flatnonzero(~single).tolist():
        first = int(starts[word])
        total[tuple(listed[first : first + int(lengths[word])])] += of_words[word]


def _mistakes(
    run: Run, cache: store.Cache, split: str, predictions: Predictions, words: Words
) -> list[Mistake]:
    """The examples that are predicted worst (`Task.badness`)."""
    predicted, task = predictions.predicted, predictions.task
    badness = task.badness(predictions)
    order = np.argsort(-badness, kind="stable")
    mistakes = []
    for number in order[badness[order] > 0][:MOST_MISTAKES].tolist():
        location = f"{split}:{int(predictions.index[number])}"
        names = run.record.label_names
        actual = ", ".join(task.label_names(predictions.labels[number], names)) or "none"
        guess = task.in_words(predicted[number], names)
        passage = cached_example(cache, location)
        explained = explain(run, passage, words, predictions.logits[number])
        mistakes.append(
            Mistake(
                location,
                actual,
                guess,
                float(badness[number]),
                *explained.shown(explained.predicted),
                explained.source,
                task.of_numbers,
            )
        )
    return mistakes
