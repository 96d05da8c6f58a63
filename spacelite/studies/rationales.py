"""Explanations against people: whether the words that a head's logits rest on are those that people
marked as the reason (plausibility), and whether its predictions depend on them (faithfulness), as
ERASER measures it (DeYoung et al., ACL 2020).

Shapes: N texts, W words of a text, C labels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spacelite import pipeline
from spacelite.backbones.tokenizer import held_words
from spacelite.data.columns import and_more, is_missing
from spacelite.errors import SpaceliteError
from spacelite.inference.explanation import explain_tokens, require_shares
from spacelite.inference.prediction import Predictor, warn_of_truncated
from spacelite.metrics import rationales as metrics
from spacelite.metrics.rationales import (
    FAITHFULNESS,
    FIGURES,
    PERCENT,
    PLAUSIBILITY,
    Estimate,
    Rationales,
)
from spacelite.progress import OnProgress
from spacelite.runs.store import Run
from spacelite.tasks import SINGLE_LABEL
from spacelite.types import Array

SEED = 0  # of the random order, and of the resamples
AT_ONCE = 4000  # texts to predict


# What people marked.


def words_of(text: str) -> list[tuple[int, int]]:
    """The first character of each word of a text, and the one after its last; words are separated
    by whitespace."""
    return [match.span() for match in re.finditer(r"\S+", text)]


def read_marks(
    values: Sequence[Any],
    texts: Sequence[str],
    wheres: Sequence[object],
    about: str,
    form: str = "auto",
) -> tuple[list[Array], str]:
    """Which words of N texts are marked, (W,) bool each, and the form of the marks, one of FORMS.

    A text's marks are 0 or 1 for each word, several such lists, by a person each (a word is marked
    if half of them mark it), or spans `[[start, end], ...]`, end excluded, of words or characters.
    Without marks, it has none, an empty list, or zeros alone. The `form` `auto` is `words` for
    spans if all end within the texts' words, else `characters`.

    Raises SpaceliteError, which says where, for a text whose marks do not fit its words. `about`
    names the marks in messages.
    """
    given: list[Any] = []
    problems: list[str] = []
    for value, where in zip(values, wheres, strict=True):
        given.append(read := _as_list(value))
        if read is None:
            problems.append(f"{where} has {str(value)[:40]!r}, which is no list")
    _refuse(about, problems)
    if form == "auto":
        form = _form_of(given, texts)
    marks = []
    for value, text, where in zip(given, texts, wheres, strict=True):
        marked, problem = _marked(value, text, form)
        marks.append(marked)
        if problem:
            problems.append(f"{where} has {problem}")
    _refuse(about, problems)
    return marks, form


def _refuse(about: str, problems: Sequence[str]) -> None:
    if problems:
        raise SpaceliteError(
            f"{about}: {problems[0]}{and_more(problems)}: give 0 or 1 for each word between "
            "spaces, or spans [[start, end], ...] of words or characters, as rationales_as says",
            ["rationales", "rationales_as"],
        )


def _as_list(value: Any) -> list[Any] | None:
    """A value of a column as a list, [] for a missing one; None if it is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except ValueError:
            return None
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_as_list(of) if _is_list(of) else of for of in value]
    return [] if is_missing(value) else None


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) or bool(np.ndim(value))


def _form_of(given: Sequence[list[Any]], texts: Sequence[str]) -> str:
    """The form of marks, of which not all are empty."""
    inner = [of for value in given for of in value]
    if not all(isinstance(of, list) and len(of) == 2 for of in inner):
        return "mask"
    within = all(
        _is_span(span, len(words_of(text)))
        for value, text in zip(given, texts, strict=True)
        for span in value
    )
    return "words" if within else "characters"


def _is_span(span: Any, length: int) -> bool:
    if not (isinstance(span, list) and len(span) == 2):
        return False
    start, end = span
    whole = all(isinstance(at, int) and not isinstance(at, bool) for at in span)
    return whole and 0 <= start < end <= length


def _marked(value: list[Any], text: str, form: str) -> tuple[Array, str]:
    """Which words of a text are marked (W,), and what is wrong with the marks; "" if nothing is."""
    words = words_of(text)
    none = np.zeros(len(words), bool)
    if not value:
        return none, ""
    if form == "mask":
        masks = value if all(isinstance(of, list) for of in value) else [value]
        for mask in masks:
            if not all(isinstance(of, int | float) and of in (0, 1) for of in mask):
                return none, f"{str(value)[:40]}, where a mask holds 0 and 1"
            if len(mask) != len(words):
                return none, f"a mask of {len(mask)} words, and its text has {len(words)}"
        marked: Array = np.array(masks, float).mean(axis=0) >= 0.5
        return marked, ""
    length = len(words) if form == "words" else len(text)
    for span in value:
        if not _is_span(span, length):
            return none, f"the span {str(span)[:40]}, and its text has {length} {form}"
    if form == "words":
        for start, end in value:
            none[start:end] = True
        return none, ""
    return np.array([any(start < last and first < end for start, end in value)
                     for first, last in words], bool), ""  # fmt: skip


# What a head says.


def require(run: Run, against: str | None) -> int | None:
    """The number of the label `against`. Raises SpaceliteError for a run whose explanations cannot
    be compared with marks."""
    require_shares(run)
    names = run.record.label_names
    if run.record.spec.pairs:
        raise SpaceliteError(
            f"rationales: run {run.id} reads pairs of texts: marks are compared with the words of "
            "single ones",
            ["rationales"],
        )
    if run.record.task is not SINGLE_LABEL:
        raise SpaceliteError(
            f"rationales: run {run.id} has {run.record.task.phrase}: marks are compared with the "
            "explanation of one label per text",
            ["rationales"],
        )
    if against is None:
        return None
    if against not in names:
        raise SpaceliteError(
            f"against={against}: run {run.id} has the labels {', '.join(names)}", ["against"]
        )
    return names.index(against)


def compare(
    run: Run,
    texts: Sequence[str],
    marks: Sequence[Array],
    about: Mapping[str, Any],
    *,
    against: int | None = None,
    top: int,
    spread: float = 0.0,
    ngrams: Run | None = None,
    seed: int = SEED,
    backbone: str | None = None,
    device: str = "auto",
    tokens_per_batch: int | None = None,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Rationales:
    """Compare a run's explanations, those of `ngrams` (a tfidf run of the same cache) and random
    order with the `marks`, (W,) bool each, of N texts with at least one. `about` are the fields of
    the result that tell of the data."""
    predictor = Predictor(run, backbone, device=device, tokens_per_batch=tokens_per_batch)
    orders: dict[str, tuple[list[Array], list[Array]]] = {}
    count = len(texts)
    own, logits, truncated = _shares(predictor, texts, on_progress)
    warn_of_truncated(run, truncated, count)
    predicted = [int(np.argmax(of)) for of in logits]
    sources = {"run": (own, logits)}
    if ngrams is not None:
        of_ngrams = Predictor(ngrams, backbone, device=device)
        sources["ngrams"] = _shares(of_ngrams, texts, on_progress)[:2]
    for name, (shares, at) in sources.items():
        speaking_for = [
            run.record.task.centred(of)[:, label]
            for of, label in zip(shares, predicted, strict=True)
        ]
        speaking = speaking_for
        if against is not None:
            speaking = [_against(*of, against) for of in zip(shares, at, strict=True)]
        orders[name] = speaking, speaking_for
    random = np.random.default_rng(seed)
    drawn = [random.random(len(of_text)) for of_text in marks]
    orders["random"] = (drawn, drawn)
    if spread:
        for name, (speaking, speaking_for) in orders.items():
            orders[name] = (
                [metrics.spread(of, spread) for of in speaking],
                [metrics.spread(of, spread) for of in speaking_for],
            )
    several = [number for number in range(count) if len(marks[number]) > 1]
    losses = _losses(
        predictor,
        [texts[number] for number in several],
        [predicted[number] for number in several],
        {name: [faith[number] for number in several] for name, (_, faith) in orders.items()},
        top,
        on_progress,
    )
    every: dict[str, dict[str, Estimate | None]] = {}
    for name, (scores, _) in orders.items():
        figures = every[name] = dict.fromkeys(FIGURES)
        pairs = zip(scores, marks, strict=True)
        found = metrics.estimates(np.array([_agreement(*of, top) for of in pairs]), seed, _with_f1)
        figures.update(zip(PLAUSIBILITY, found, strict=True))
        if several:
            figures.update(
                zip(FAITHFULNESS, metrics.estimates(losses[name], seed), strict=True)
            )  # fmt: skip
    return Rationales(
        texts=count,
        short=count - len(several),
        top=top,
        against=None if against is None else run.record.label_names[against],
        spread=spread,
        seed=seed,
        figures=every,
        needs_ngrams=run.head.kind != "tfidf",
        **about,
    )


def _against(shares: Array, logits: Array, label: int) -> Array:
    """What words with shares (W, C) in the logits (C,) of a text add, to first order, to the
    log-odds that it has another label than this one: (W,)."""
    others = np.arange(len(logits)) != label
    odds = np.exp(logits[others] - logits[others].max())
    weight = np.full(len(logits), -1.0)
    weight[others] = odds / odds.sum()
    added: Array = shares @ weight
    return added


def _agreement(scores: Array, marks: Array, top: int) -> tuple[float, ...]:
    """AUPRC, average precision, token F1, and precision and recall of spans of one text."""
    chosen = metrics.top(scores, top)
    return (
        metrics.auprc(scores, marks),
        metrics.average_precision(scores, marks),
        metrics.token_f1(chosen, marks),
        *metrics.span_matches(chosen, marks),
    )


def _with_f1(means: Array) -> Array:
    """F1 in place of the mean precision and recall of spans, as in ERASER."""
    others, (precision, recall) = means[:, :-2], means[:, -2:].T
    return np.column_stack([others, metrics.f1(precision, recall)])


def _shares(
    predictor: Predictor, texts: Sequence[str], on_progress: OnProgress
) -> tuple[list[Array], list[Array], int]:
    """What each word of N texts adds to each logit, (W, C) each, the logits, (C,) each, and how
    many texts are cut off at the maximum length: a word beyond it adds nothing."""
    shares: list[Array] = [np.zeros(0)] * len(texts)
    logits = shares.copy()
    spec = predictor.run.record.spec
    words = held_words(predictor.files, spec.prefix, spec.skip_first)
    on_progress("explain", 0, len(texts))
    tokens = predictor.tokenize(texts)
    kept = tokens.kept
    with pipeline.reading(explain_tokens(predictor, texts, tokens)) as results:
        for done, (number, explained) in enumerate(results, 1):
            text = texts[number]
            spans = words.spans(kept[number].tolist(), text)
            if spans is None:
                raise SpaceliteError(
                    f"rationales: the tokens of {text[:40]!r} are not found in it: the backbone's "
                    "tokenizer changes texts beyond recognition",
                    ["rationales"],
                )
            bounds = words_of(text)
            word_at = np.full(len(text), -1)
            for word, (first, last) in enumerate(bounds):
                word_at[first:last] = word
            of_words = np.zeros((len(bounds), len(explained.labels)))
            for part in explained.words:
                of_tokens = [spans[token][1] for token in part.tokens]
                starts, ends = np.array(of_tokens).T - len(spec.prefix)
                (inside,) = np.nonzero(word_at[max(0, starts.min()) : max(0, ends.max())] >= 0)
                if len(inside):
                    of_words[word_at[max(0, starts.min()) + inside[0]]] += part.contributions
            shares[number], logits[number] = of_words, np.array(explained.logits)
            on_progress("explain", done, len(texts))
    return shares, logits, tokens.truncated


def _losses(
    predictor: Predictor,
    texts: Sequence[str],
    labels: Sequence[int],
    orders: Mapping[str, Sequence[Array]],
    top: int,
    on_progress: OnProgress,
) -> dict[str, Array]:
    """By order of words, what the probabilities of the `labels` of N texts lose without the first
    words, and with them alone: on average over PERCENT, and for the `top` first words, (N, 4)."""
    variants: dict[str, int] = {}  # text -> its index among all that are predicted

    def index(words: Sequence[str]) -> int:
        return variants.setdefault(" ".join(words), len(variants))

    whole: list[int] = []
    erased: dict[str, list[list[tuple[int, int]]]] = {name: [] for name in orders}
    for number, text in enumerate(texts):
        words = text.split()
        whole.append(index(words))
        counts = [max(1, -(-percent * len(words) // 100)) for percent in PERCENT]
        counts.append(min(top, len(words) - 1))
        for name, scores in orders.items():
            of_text = []
            for count in counts:
                first = metrics.top(scores[number], count)
                without = [word for word, gone in zip(words, first, strict=True) if not gone]
                alone = [word for word, kept in zip(words, first, strict=True) if kept]
                of_text.append((index(without), index(alone)))
            erased[name].append(of_text)
    every = [*variants]
    probabilities = np.empty((len(every), len(predictor.run.record.label_names)))
    for done in range(0, len(every), AT_ONCE):
        on_progress("erase", done, len(every))
        part = every[done : done + AT_ONCE]

        def advance(
            phase: str, tokens: int, total: int, before: int = done, size: int = len(part)
        ) -> None:
            if phase == "embed":
                on_progress("erase", before + size * tokens // max(1, total), len(every))

        probabilities[done : done + AT_ONCE] = predictor.predict(part, advance).probabilities
    on_progress("erase", len(every), len(every))
    if not whole:
        return {}
    of_label = np.array(labels)[:, None, None]
    losses = {
        name: probabilities[whole, labels][:, None, None]
        - probabilities[np.array(of_order), of_label]
        for name, of_order in erased.items()
    }  # (N, counts, 2)
    return {name: np.hstack([of[:, :-1].mean(axis=1), of[:, -1]]) for name, of in losses.items()}
