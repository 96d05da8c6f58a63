"""Which words contribute most over a whole split, and the most confident mistakes."""

from __future__ import annotations

import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import heads
from spacelite.backbones.tokenizer import Words
from spacelite.cache import folder as caches
from spacelite.cache import store
from spacelite.cache.split import CachedSplit, spans
from spacelite.data.splits import Source
from spacelite.errors import SpaceliteError
from spacelite.heads.base import Tokens
from spacelite.inference.explanation import Shares, cached_example, explain, has_shares
from spacelite.inference.prediction import backbone_files
from spacelite.metrics.predictions import Predictions
from spacelite.reports.analysis.groups import Group
from spacelite.runs import Run, find_cache

log = logging.getLogger(__name__)

MOST_WORDS = 12  # per class
MOST_MISTAKES = 10
NUMBERS_AT_ONCE = 1 << 23  # hidden states or coordinates: 32 MiB

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class WordShare:
    """A word of the split, and what it adds to a class's logit, as far as that affects the
    prediction (`Task.centred`).

    Attributes:
        word: The word.
        count: Number of its occurrences.
        mean: Sum of its shares, divided by the number of examples.
        each: Mean share of one occurrence.
    """

    word: str
    count: int
    mean: float
    each: float


@dataclass(frozen=True)
class Mistake:
    """A wrongly predicted example.

    Attributes:
        example: Location of the example, such as `test:17`.
        label: The true label(s).
        predicted: The predicted label(s).
        confidence: Probability of the prediction.
        words: The words of the text.
        shares: What each word adds to the logit of the most probable label, as in `WordShare`.
        source: Where the example comes from; None if that is not known.
    """

    example: str
    label: str
    predicted: str
    confidence: float
    words: list[str]
    shares: list[float]
    source: Source | None = None

    @property
    def place(self) -> str:
        """Location and source: `test:17 (test.csv, row 18)`."""
        return self.example if self.source is None else f"{self.example} ({self.source})"


@dataclass(frozen=True)
class Examples:
    """Words and mistakes of one head on a split.

    Attributes:
        name: Name of the system.
        run: Id of the run.
        task: Name of the labels' task.
        words: Label -> the words that contribute most to it.
        mistakes: The most confident mistakes.
    """

    name: str
    run: str
    task: str
    words: dict[str, list[WordShare]]
    mistakes: list[Mistake]


def of_group(cache_dir: Path, group: Group, backbone: str | None = None) -> Examples | None:
    """The words and mistakes of the best system whose logits are a sum over tokens, preferably a
    space head.

    Args:
        cache_dir: Folder of caches and runs.
        group: The group.
        backbone: Folder of the runs' backbone, if it was a local one.

    Returns:
        The examples; None if there is no such system, or, with a warning in the log, if cache or
            backbone cannot be used.
    """
    chosen = _chosen(group)
    if chosen is None:
        return None
    name, run, predictions = chosen
    try:
        words = Words(backbone_files(run, backbone).folder)
        with store.Cache(_cache_file(cache_dir, group, run)) as cache:
            cache.check_index(group.section.split)
            split = cache.splits[group.section.split]
            if len(split) != len(predictions.labels):
                raise SpaceliteError(
                    f"cache {cache.name} is not the one that run {run.id} was trained on: train "
                    "again"
                )
            if not split.done.all():
                raise SpaceliteError(
                    f"cache {cache.name} is unfinished: run its embed command again"
                )
            return Examples(
                name=name,
                run=run.id,
                task=predictions.task.name,
                words=_words(Shares(run), split, words),
                mistakes=_mistakes(run, cache, group.section.split, predictions, words),
            )
    except SpaceliteError as error:
        log.warning("no words for %s: %s", group.section.title, error)
        return None


def _cache_file(cache_dir: Path, group: Group, run: Run) -> Path:
    """The cache of the group's data: that of the run, or of another data set."""
    if group.section.cache == run.record.cache:
        return find_cache(run, cache_dir)
    return caches.find(cache_dir, group.section.cache, exact=True)


def _chosen(group: Group) -> tuple[str, Run, Predictions] | None:
    candidates = []
    for row, system in group.named:
        figure, predictions = row.figures["accuracy"], system.predictions[0]
        run = system.runs[0]
        if figure is not None and predictions is not None and has_shares(run):
            # Kinds of heads in the order of tables, space heads first.
            kind = -list(heads.KINDS).index(run.head.kind)
            candidates.append(((kind == 0, figure.mean), (row.name, run, predictions)))
    return max(candidates, key=lambda one: one[0])[1] if candidates else None


def _words(shares: Shares, split: CachedSplit, words: Words) -> dict[str, list[WordShare]]:
    """For each label, the words with the highest mean share."""
    total: dict[tuple[int, ...], Array] = defaultdict(lambda: np.zeros(len(shares.labels)))
    count: dict[tuple[int, ...], int] = defaultdict(int)
    parts = list(spans(split.offsets, NUMBERS_AT_ONCE // shares.numbers_per_token))
    longest = max(int(split.offsets[last] - split.offsets[first]) for first, last in parts)
    # Reused: allocating fresh memory would take longer than everything else.
    stored = np.empty((longest, split.stored.row_values(split.width)), split.dtype)
    widened = np.empty((longest, split.width), np.float32)
    for first, last in parts:
        offsets = split.offsets[first : last + 1]
        low, high = int(offsets[0]), int(offsets[-1])
        ids = split.read_token_ids(low, high)
        rows = slice(0, high - low)
        hidden = split.read_hidden(first, last, stored[rows], widened[rows])
        each = shares.task.centred(shares.of(Tokens(hidden, ids, offsets - low)))
        _add(total, count, ids, words.starts(ids, offsets - low), each)
    spelled: dict[str, tuple[int, Array]] = {}
    for tokens, summed in total.items():
        if not words.is_special(tokens[0]):
            # Different tokens may spell the same word.
            word = words.spelled(tokens)
            known, so_far = spelled.get(word, (0, np.zeros_like(summed)))
            spelled[word] = (known + count[tokens], so_far + summed)
    made = {}
    for c, label in enumerate(shares.labels):
        best = sorted(spelled.items(), key=lambda item: -item[1][1][c])[:MOST_WORDS]
        made[label] = [
            WordShare(word, times, float(summed[c] / len(split)), float(summed[c] / times))
            for word, (times, summed) in best
            if summed[c] > 0
        ]
    return made


def _add(
    total: dict[tuple[int, ...], Array],
    count: dict[tuple[int, ...], int],
    ids: Array,
    starts: Array,
    each: Array,
) -> None:
    """Add the shares of words that begin at `starts` to each word's total."""
    of_words = np.add.reduceat(each.astype(np.float64), starts, axis=0)
    lengths = np.diff([*starts, len(ids)])
    single = lengths == 1
    known, index, times = np.unique(ids[starts[single]], return_inverse=True, return_counts=True)
    summed = np.stack([np.bincount(index, column) for column in of_words[single].T], axis=1)
    for number, row, often in zip(known.tolist(), summed, times.tolist(), strict=True):
        total[(number,)] += row
        count[(number,)] += often
    listed = ids.tolist()
    for word in np.flatnonzero(~single).tolist():
        first = int(starts[word])
        tokens = tuple(listed[first : first + int(lengths[word])])
        total[tokens] += of_words[word]
        count[tokens] += 1


def _mistakes(
    run: Run, cache: store.Cache, split: str, predictions: Predictions, words: Words
) -> list[Mistake]:
    """The wrongly predicted examples with the highest confidence."""
    confidence, predicted, task = predictions.confidence, predictions.predicted, predictions.task
    wrong = np.flatnonzero(~predictions.correct)
    mistakes = []
    for number in wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_MISTAKES].tolist():
        location = f"{split}:{int(predictions.index[number])}"
        passage = cached_example(cache, location)
        names = run.record.label_names
        actual, guess = (
            ", ".join(task.label_names(one[number], names)) or "none"
            for one in (predictions.labels, predicted)
        )
        explained = explain(run, passage, words, predictions.logits[number])
        mistakes.append(
            Mistake(
                location,
                actual,
                guess,
                float(confidence[number]),
                [word.text for word in explained.words],
                explained.shares[:, explained.predicted].tolist(),
                explained.source,
            )
        )
    return mistakes
