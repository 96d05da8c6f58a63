"""How well an order of a text's words agrees with the words that people marked, as ERASER measures
it (DeYoung et al., ACL 2020), and intervals over texts.

Shapes: W words of a text, N texts, M figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spacelite.document import Line, Table, decimals
from spacelite.lazy import np
from spacelite.settings import shown
from spacelite.types import Array
from spacelite.visible import visible_name

FORMS = {  # of marks
    "mask": "0 or 1 for each word",
    "words": "spans of words",
    "characters": "spans of characters",
}
PERCENT = (1, 5, 10, 20, 50)  # of a text's words, that are removed or kept
FIGURES = {
    "auprc": "AUPRC",
    "average_precision": "AP",
    "token_f1": "Token F1",
    "iou_f1": "IoU F1",
    "comprehensiveness": "Compr.",
    "sufficiency": "Suff.",
    "comprehensiveness_top": "Compr.",
    "sufficiency_top": "Suff.",
}
PLAUSIBILITY, FAITHFULNESS = [*FIGURES][:4], [*FIGURES][4:]
ORDERS = {"run": "own shares", "ngrams": "n-grams", "random": "random"}  # of words
LEAST_IOU = 0.5  # of a span of words that counts as one that people marked
RESAMPLES, LEVEL = 10_000, 0.95
COUNTS_AT_ONCE = 2_000_000  # 16 MB


@dataclass(frozen=True)
class Estimate:
    """A figure over texts, with its 95% interval."""

    value: float
    low: float
    high: float


def top(scores: Array, count: int) -> Array:
    """Which `count` words have the highest scores (W,), as (W,) bool; of equal ones the first."""
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(-scores, kind="stable")[:count]] = True
    return chosen


def spread(scores: Array, part: float) -> Array:
    """Scores (W,) of words, each with those of the other words times `part` for each word of
    distance."""
    number = np.arange(len(scores))
    spread_over: Array = part ** np.abs(number[:, None] - number) @ scores
    return spread_over


def average_precision(scores: Array, marked: Array) -> float:
    """The area below the steps of the curve of precision over recall, of scores (W,) for words of
    which at least one is `marked` (W,). Words with equal scores are taken together."""
    gained, precision = _curve(scores, marked)
    return float(gained @ precision)


def auprc(scores: Array, marked: Array) -> float:
    """The area below straight lines between the points of the same curve, which begins at a
    precision of 1, as ERASER computes it. Equal scores for all words give (1 + the share of marked
    words) / 2: straight lines are too high there (Davis & Goadrich, ICML 2006)."""
    gained, precision = _curve(scores, marked)
    before = np.concatenate([[1.0], precision[:-1]])
    return float(gained @ (before + precision) / 2)


def _curve(scores: Array, marked: Array) -> tuple[Array, Array]:
    """The recall that each group of words with equal scores adds, the highest first, and the
    precision of all words up to it."""
    _, group = np.unique(-scores, return_inverse=True)
    hits = np.bincount(group, weights=marked)
    return hits / hits.sum(), np.cumsum(hits) / np.cumsum(np.bincount(group))


def token_f1(chosen: Array, marked: Array) -> float:
    """F1 of the chosen words (W,) bool, of which the marked ones are right."""
    return float(2 * (chosen & marked).sum() / (chosen.sum() + marked.sum()))


def runs_of(mask: Array) -> list[tuple[int, int]]:
    """The first word of each run of words in a mask (W,), and the one after its last."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(first, last) for first, last in edges.reshape(-1, 2).tolist()]


def span_matches(chosen: Array, marked: Array) -> tuple[float, float]:
    """Precision and recall of the runs of chosen words: one counts if a run of marked words has an
    intersection over union of at least 0.5 with it."""
    found, wanted = runs_of(chosen), runs_of(marked)
    hits = sum(
        max(_overlap(span, other) for other in wanted) >= LEAST_IOU for span in found if wanted
    )
    return hits / max(1, len(found)), hits / max(1, len(wanted))


def _overlap(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Intersection over union of two spans."""
    common = max(0, min(first[1], second[1]) - max(first[0], second[0]))
    return common / (first[1] - first[0] + second[1] - second[0] - common)


def f1(precision: Array, recall: Array) -> Array:
    """Their harmonic mean, 0 where both are 0."""
    total = precision + recall
    both: Array = np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1), 0.0)
    return both


def estimates(
    values: Array, seed: int, figures: Callable[[Array], Array] = lambda means: means
) -> list[Estimate]:
    """Figures of the means over N texts of `values` (N, K), with the interval from the 2.5th to the
    97.5th percentile of 10,000 resamples of the texts. `figures` makes (R, M) of means (R, K)."""
    count, random = len(values), np.random.default_rng(seed)
    size = max(1, COUNTS_AT_ONCE // count)
    means = np.concatenate(
        [
            random.multinomial(count, np.full(count, 1 / count), min(size, RESAMPLES - done))
            @ values / count
            for done in range(0, RESAMPLES, size)
        ]
    )  # fmt: skip
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(figures(means), [tail, 100 - tail], axis=0)
    (value,) = figures(values.mean(axis=0, keepdims=True))
    return [Estimate(*map(float, of)) for of in zip(value, low, high, strict=True)]


# What is said of them.


@dataclass(frozen=True)
class Rationales:
    """How a run's explanations do against the words that people marked."""

    split: str
    texts: int  # with marks, which figures are of
    unmarked: int  # texts without any, left out
    of_against: int  # marked texts whose label is `against`, left out
    short: int  # texts of a single word, left out of comprehensiveness and sufficiency
    form: str  # one of FORMS
    top: int  # words that the F1s take, and that are removed or kept at once
    top_of: str | None  # whose texts have so many marked words on average; None: the user chose it
    against: str | None  # the label that words with marks speak against; None: for the predicted
    spread: float  # over neighbouring words, as of the function
    seed: int
    # By order of words, of ORDERS, and name of FIGURES; None without a text to measure it on. There
    # are none of n-grams if the run's cache has no tfidf run, or the run is one.
    figures: dict[str, dict[str, Estimate | None]]
    needs_ngrams: bool  # whether a tfidf run would be a baseline

    @property
    def measured(self) -> tuple[Any, ...]:
        """What figures that stand side by side have in common."""
        how = self.top, self.top_of, self.against, self.spread
        return self.split, self.texts, self.form, *how

    @property
    def sentences(self) -> list[str]:
        """What was measured, on which texts, and how."""
        left_out = [
            f"{count:,} {why}"
            for count, why in (
                (self.unmarked, "without marks"),
                (self.of_against, f"of {visible_name(self.against or '')} itself"),
            )
            if count
        ]
        left = f"; left out: {', '.join(left_out)}" if left_out else ""
        speak = (
            "for the predicted label, by their shares in its logit less the mean over all labels"
        )
        if self.against is not None:
            label = visible_name(self.against)
            speak = (
                f"against {label}, by what they add to the log-odds that a text is not {label}, to "
                "first order"
            )
        first = f"the first {self.top:,}"
        if self.top_of is not None:
            first += f", as many as are marked on average in {self.top_of}"
        sentences = [
            f"{self.texts:,} texts of {self.split} with marks, read as {FORMS[self.form]}{left}. "
            "Intervals: 95%, bootstrap over texts.",
            f"Plausibility (higher is better): words in order of how they speak {speak}. AUPRC is "
            "ERASER's and rises where words have equal shares; AP, average precision, does not. F1 "
            f"is that of {first}.",
            "Faithfulness: what the predicted label's probability loses without the first words "
            "(comprehensiveness, higher is better), and with them alone (sufficiency, lower is "
            "better), in order of how they speak for the predicted label: mean over "
            f"{', '.join(map(str, PERCENT[:-1]))} and {PERCENT[-1]}% of the words, at least one. "
            f"Of the first {self.top:,} words: all but one of shorter texts.",
        ]
        if self.spread:
            sentences.append(
                "To what orders a word, that of each other word is added, times "
                f"{shown(self.spread)} for each word of distance."
            )
        if self.short:
            texts = "text" if self.short == 1 else "texts"
            sentences[2] += f" Left out: {self.short:,} {texts} of a single word."
        if "ngrams" in self.figures:
            sentences.append(
                "N-grams: in order of the words' shares in tfidf, which reads no context."
            )
        elif self.needs_ngrams:
            sentences.append(
                "There is no baseline of n-grams: the run's cache has no tfidf run: train one."
            )
        return sentences


def mean(compared: Sequence[Rationales]) -> Rationales:
    """Means over runs that differ in their seed: of each figure, and of the bounds of its
    interval."""

    def of(order: str, name: str) -> Estimate | None:
        every = [figure for of in compared if (figure := of.figures[order][name]) is not None]
        means = np.mean([(of.value, of.low, of.high) for of in every], axis=0) if every else None
        return None if means is None else Estimate(*means.tolist())

    orders = [order for order in ORDERS if all(order in of.figures for of in compared)]
    figures = {order: {name: of(order, name) for name in FIGURES} for order in orders}
    return replace(compared[0], figures=figures)


def tables(compared: Mapping[str, Rationales]) -> list[Table]:
    """Plausibility and faithfulness, of all words and of the first, a line for each order of words
    of each head by name ("" for a single one), which are `measured` alike."""
    (top,) = {of.top for of in compared.values()}
    return [
        Table(
            caption,
            ["Order", *(FIGURES[name] for name in names)],
            [
                Line.of(
                    f"{head}, {ORDERS[order]}" if head else ORDERS[order],
                    *(_in_words(figures[name]) for name in names),
                )
                for head, of in compared.items()
                for order, figures in of.figures.items()
            ],
            "rationales",
        )
        for caption, names in (
            ("Plausibility: do words agree with those that people marked?", PLAUSIBILITY[:2]),
            (f"Plausibility of the first {top:,} words", PLAUSIBILITY[2:]),
            ("Faithfulness: does the prediction depend on them?", FAITHFULNESS[:2]),
            (f"Faithfulness of the first {top:,} words", FAITHFULNESS[2:]),
        )
    ]


def _in_words(figure: Estimate | None) -> str:
    if figure is None:
        return "–"
    value, low, high = (decimals(of, 3) for of in (figure.value, figure.low, figure.high))
    return f"{value} [{low}, {high}]"
