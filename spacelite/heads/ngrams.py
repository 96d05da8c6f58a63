"""TF-IDF of n-grams of token ids, as scikit-learn's TfidfVectorizer weighs them; and the tfidf
head, logistic regression on it, a baseline that no backbone is needed for.

Texts are token ids end to end, (T,), with offsets (N + 1,), as in a cache.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from typing_extensions import override

from spacelite.heads import logistic
from spacelite.heads.base import Batch, Examples, Fitted, Head, Objective, Shapes, Split, Tokens
from spacelite.heads.config import HeadConfig
from spacelite.lazy import np, torch
from spacelite.types import Array

LEAST_TEXTS = 2  # an n-gram that fewer training texts have is left out
PLACES = 4  # special tokens are looked for so far from either end of a text
# The key of an n-gram: of a 1-gram its id; of a 2-gram (first id + 1) << FIRST | second id; of a
# 3-gram LONGER | its ids, PLACE bits each. 3-grams with larger ids are left out: no tokenizer in
# use has so many.
FIRST, PLACE, LONGER = 32, 20, 1 << 62
LONGEST = 3
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # values of C among which tfidf's `auto` chooses


class Occurrences(NamedTuple):
    """The n-grams of several texts, one entry for each time that one occurs."""

    text: Array  # index of the text
    key: Array
    first: Array  # index of its first token
    length: Array  # number of its tokens


@dataclass(frozen=True)
class NGrams:
    """The n-grams that at least LEAST_TEXTS training texts have, M of them."""

    keys: Array  # in ascending order, (M,) int64
    idf: Array  # log((1 + N) / (1 + texts that have it)) + 1, (M,) float32
    sublinear: bool = False  # what a text has k times counts 1 + log(k) and not k

    @property
    def longest(self) -> int:
        """Tokens of the longest n-grams."""
        return 3 if len(self.keys) and self.keys[-1] >= LONGER else 2

    @classmethod
    def of(cls, ids: Array, offsets: Array, *, sublinear: bool = False, longest: int = 2) -> NGrams:
        """The n-grams of training texts up to the `longest`; none has a special token."""
        occurring = occurrences(ids, offsets, longest)
        special = np.isin(ids, special_ids(ids, offsets))
        before = np.concatenate([[0], np.cumsum(special)])  # special tokens before each token
        ordinary = before[occurring.first + occurring.length] == before[occurring.first]
        keys, column = np.unique(occurring.key[ordinary], return_inverse=True)
        texts = len(offsets) - 1
        pairs = np.unique(column * np.int64(texts) + occurring.text[ordinary])
        having = np.bincount(pairs // texts, minlength=len(keys))
        kept = having >= LEAST_TEXTS
        idf = np.log((1 + texts) / (1 + having[kept])) + 1
        return cls(keys[kept], idf.astype(np.float32), sublinear)

    @classmethod
    def from_head(cls, parameters: Mapping[str, Any], *, sublinear: bool = False) -> NGrams:
        """The n-grams of a head, from its parameters in torch or numpy."""
        keys, idf = (parameters[f"ngrams.{name}"] for name in ("keys", "idf"))
        if not isinstance(keys, np.ndarray):
            keys, idf = keys.cpu().numpy(), idf.cpu().numpy()
        return cls(keys, idf, sublinear)

    def matrix(self, ids: Array, offsets: Array) -> Any:
        """TF-IDF of texts as a sparse matrix (N, M) float64: rows of length 1, or 0 without a known
        n-gram."""
        from scipy.sparse import csr_array

        texts = len(offsets) - 1
        text, columns, values, lengths, _ = self._weighted(*self._known(ids, offsets), texts)
        starts = np.searchsorted(text, np.arange(len(offsets)))
        return csr_array((values / lengths[text], columns, starts), shape=(texts, len(self.keys)))

    def logits(self, ids: Array, offsets: Array, weight: Array) -> Array:
        """A linear layer without bias on TF-IDF, given weights (C, M): (N, C) float64."""
        texts = len(offsets) - 1
        text, columns, values, lengths, _ = self._weighted(*self._known(ids, offsets), texts)
        values /= lengths[text]
        of_classes = [np.bincount(text, values * of[columns], minlength=texts) for of in weight]
        return np.stack(of_classes, axis=1)

    def parts(self, ids: Array, offsets: Array, weight: Array) -> Array:
        """What each token adds to logits, (T, C) float64, given weights (C, M): each time that an
        n-gram occurs it adds its weight times an equal part of the n-gram's TF-IDF in the text, in
        equal parts to its tokens. The sum over a text's tokens is its row of `logits`."""
        known, column = self._known(ids, offsets)
        _, _, _, lengths, added = self._weighted(known, column, len(offsets) - 1)
        per_token = added / lengths[known.text] / known.length
        of_classes = per_token[:, None] * weight.T[column].astype(np.float64)
        parts = np.zeros((len(ids), len(weight)))
        for position in range(self.longest):
            long = known.length > position
            tokens = known.first[long] + position
            for c, of_class in enumerate(of_classes[long].T):
                parts[:, c] += np.bincount(tokens, of_class, minlength=len(ids))
        return parts

    def _weighted(
        self, known: Occurrences, column: Array, texts: int
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Counts times idf: text, column and value of each, in order; the length of each text's
        values; and what each occurrence adds to its value."""
        width = max(1, len(self.keys))
        cells, cell, counts = np.unique(
            known.text * np.int64(width) + column, return_inverse=True, return_counts=True
        )
        text, columns = np.divmod(cells, width)
        weighed = 1 + np.log(counts) if self.sublinear else counts
        values = weighed * self.idf[columns].astype(np.float64)
        lengths = np.sqrt(np.bincount(text, values**2, minlength=texts))
        return text, columns, values, lengths, (values / counts)[cell]

    def _known(self, ids: Array, offsets: Array) -> tuple[Occurrences, Array]:
        """The occurrences of known n-grams, and the column of each."""
        occurring = occurrences(ids, offsets, self.longest)
        if not len(self.keys):
            return Occurrences(*(part[:0] for part in occurring)), occurring.key[:0]
        column = np.searchsorted(self.keys, occurring.key).clip(max=len(self.keys) - 1)
        known = self.keys[column] == occurring.key
        return Occurrences(*(part[known] for part in occurring)), column[known]


def occurrences(ids: Array, offsets: Array, longest: int = 2) -> Occurrences:
    """All n-grams of texts up to the `longest`, 2 or 3."""
    text = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    ids = ids.astype(np.int64)
    pair = np.flatnonzero(text[1:] == text[:-1])
    firsts = [np.arange(len(ids)), pair]
    keys = [ids, (ids[pair] + 1) << FIRST | ids[pair + 1]]
    if longest > 2:
        triple = np.flatnonzero(text[2:] == text[:-2])
        fits = ids < 1 << PLACE
        triple = triple[fits[triple] & fits[triple + 1] & fits[triple + 2]]
        firsts.append(triple)
        three = ids[triple] << 2 * PLACE | ids[triple + 1] << PLACE | ids[triple + 2]
        keys.append(three | LONGER)
    first = np.concatenate(firsts)
    length = np.repeat(np.arange(len(firsts)) + 1, list(map(len, firsts)))
    return Occurrences(text[first], np.concatenate(keys), first, length)


def special_ids(ids: Array, offsets: Array) -> Array:
    """The ids of tokens such as [CLS] and [SEP], told by where they stand: at the same place in
    every text, counted from its beginning or from its end. And that of padding, which fills all
    texts to one length."""
    lengths = np.diff(offsets)
    if len(lengths) < 2:
        return np.zeros(0, np.int64)
    special: list[int] = []
    if (lengths == lengths[0]).all() and lengths[0] > 1:
        texts = ids.reshape(-1, lengths[0])
        for end, before in ((0, 1), (-1, -2)):
            values, counts = np.unique(texts[:, end], return_counts=True)
            often = values[counts.argmax()]
            if ((texts[:, end] == often) & (texts[:, before] == often)).any():
                special.append(int(often))
    kept = ~np.isin(ids, special)
    ends = np.concatenate([[0], np.cumsum(kept)])[offsets]
    ids, lengths, starts, stops = ids[kept], np.diff(ends), ends[:-1], ends[1:]
    for first, way in ((starts, 1), (stops - 1, -1)):
        for number in range(min(PLACES, int(lengths.min()))):
            at_position = ids[first + way * number]
            if (at_position != at_position[0]).any():
                break
            special.append(int(at_position[0]))
    return np.unique(np.array(special, np.int64))


@dataclass(frozen=True, kw_only=True)
class TfidfConfig(HeadConfig):
    """Logistic regression on TF-IDF of n-grams."""

    kind: ClassVar[str] = "tfidf"
    is_baseline: ClassVar[bool] = True

    C: float | str = logistic.strength(logistic.AUTO)

    @property
    @override
    def reads_only_ids(self) -> bool:
        return True


class TfidfHead(Head):
    """A linear layer on TF-IDF. The n-grams are those that two training texts have; others, which
    only new texts have, add nothing."""

    config_type: ClassVar[type[HeadConfig]] = TfidfConfig
    TABLES: ClassVar[tuple[str, ...]] = ("ngrams.keys", "ngrams.idf")
    ADDITIVE: ClassVar[bool] = True

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        """`width` is the number of n-grams."""
        return {
            "ngrams.keys": (width,),
            "ngrams.idf": (width,),
            "classifier.weight": (classes, width),
            "classifier.bias": (classes,),
        }

    @classmethod
    @override
    def fit(cls, config: Any, train: Examples, objective: Objective, class_weights: str) -> Fitted:
        ids, offsets = train.token_ids()
        ngrams = NGrams.of(ids, offsets)
        problems = logistic.Problems.of(train, objective, class_weights)
        fit = logistic.fit(ngrams.matrix(ids, offsets), problems, config.C, STRENGTHS)
        parameters = {
            "ngrams.keys": torch.from_numpy(ngrams.keys),
            "ngrams.idf": torch.from_numpy(ngrams.idf),
            "classifier.weight": torch.from_numpy(fit.weight).float(),
            "classifier.bias": torch.from_numpy(fit.bias).float(),
        }
        return Fitted(parameters, {"C": fit.strength} if config.C == logistic.AUTO else {})

    @classmethod
    @override
    def token_shares(cls, config: Any, parameters: dict[str, Array], tokens: Tokens) -> Array:
        ngrams, weight = NGrams.from_head(parameters), parameters["classifier.weight"]
        return ngrams.parts(tokens.ids, tokens.offsets, weight)

    @classmethod
    @override
    def logits_of_ids(
        cls, config: Any, parameters: dict[str, Array], ids: Array, offsets: Array
    ) -> Array:
        ngrams, weight = NGrams.from_head(parameters), parameters["classifier.weight"]
        logits: Array = ngrams.logits(ids, offsets, weight) + parameters["classifier.bias"]
        return logits.astype(np.float32)

    @override
    def plan(
        self, split: Split, rows: Array, batch: Batch, train: tuple[int, int] | None
    ) -> Callable[[], None]:
        ids, offsets = split.token_ids(rows)

        def run() -> None:
            self.logits = self.forward_ids(ids, offsets)
            self.totals.add(self.logits, batch)

        return run
