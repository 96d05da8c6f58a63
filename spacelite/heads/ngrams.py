"""TF-IDF of n-grams of token ids, as scikit-learn's TfidfVectorizer weighs them.

Texts are token ids end to end, (T,), with offsets (N + 1,), as in a cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

LEAST_TEXTS = 2  # an n-gram that fewer training texts have is left out
PLACES = 4  # special tokens are looked for so far from either end of a text
# The key of an n-gram: of a 1-gram its id; of a 2-gram (first id + 1) << FIRST | second id; of a
# 3-gram LONGER | its ids, PLACE bits each. 3-grams with larger ids are left out: no tokenizer in
# use has so many.
FIRST, PLACE, LONGER = 32, 20, 1 << 62
LONGEST = 3

Array = npt.NDArray[Any]


class Rows(NamedTuple):
    """A sparse matrix (N, M): row i has the `columns` and `values` from starts[i] to
    starts[i + 1]."""

    starts: Array
    columns: Array
    values: Array


class Occurrences(NamedTuple):
    """The n-grams of several texts, one entry for each time that one occurs.

    Attributes:
        text: Index of the text.
        key: Key of the n-gram.
        first: Index of its first token.
        length: Number of its tokens.
    """

    text: Array
    key: Array
    first: Array
    length: Array


@dataclass(frozen=True)
class NGrams:
    """The n-grams that at least LEAST_TEXTS training texts have, M of them.

    Attributes:
        keys: Their keys in ascending order, (M,) int64.
        idf: Weights log((1 + N) / (1 + texts that have it)) + 1, (M,) float32.
        sublinear: Whether an n-gram that a text has k times counts 1 + log(k) and not k.
    """

    keys: Array
    idf: Array
    sublinear: bool = False

    @property
    def longest(self) -> int:
        """Tokens of the longest n-grams."""
        return 3 if len(self.keys) and self.keys[-1] >= LONGER else 2

    @classmethod
    def of(cls, ids: Array, offsets: Array, *, sublinear: bool = False, longest: int = 2) -> NGrams:
        """The n-grams of training texts up to the `longest`; none has a special token."""
        found = occurrences(ids, offsets, longest)
        special = np.isin(ids, special_ids(ids, offsets))
        before = np.concatenate([[0], np.cumsum(special)])  # special tokens before each token
        ordinary = before[found.first + found.length] == before[found.first]
        keys, column = np.unique(found.key[ordinary], return_inverse=True)
        texts = len(offsets) - 1
        pairs = np.unique(column * np.int64(texts) + found.text[ordinary])
        having = np.bincount(pairs // texts, minlength=len(keys))
        kept = having >= LEAST_TEXTS
        idf = np.log((1 + texts) / (1 + having[kept])) + 1
        return cls(keys[kept], idf.astype(np.float32), sublinear)

    def rows(self, ids: Array, offsets: Array) -> Rows:
        """TF-IDF of texts, each of length 1, or 0 without a known n-gram; values are float64."""
        found, column = self._known(ids, offsets)
        text, columns, values, lengths, _ = self._weighted(found, column, len(offsets) - 1)
        return Rows(np.searchsorted(text, np.arange(len(offsets))), columns, values / lengths[text])

    def parts(self, ids: Array, offsets: Array, weight: Array) -> Array:
        """What each token adds to logits: each time that an n-gram occurs it adds its weight times
        an equal part of the n-gram's TF-IDF in the text, in equal parts to its tokens.

        Args:
            ids: Token ids, (T,).
            offsets: Offsets of the texts, (N + 1,).
            weight: Weights of the n-grams, (C, M).

        Returns:
            (T, C) float64; the sum over a text's tokens is weight @ its TF-IDF.
        """
        found, column = self._known(ids, offsets)
        _, _, _, lengths, added = self._weighted(found, column, len(offsets) - 1)
        each = added / lengths[found.text]
        one = (each / found.length)[:, None] * weight.T[column].astype(np.float64)
        parts = np.zeros((len(ids), len(weight)))
        for place in range(self.longest):
            there = found.length > place
            tokens = found.first[there] + place
            for c, of_class in enumerate(one[there].T):
                parts[:, c] += np.bincount(tokens, of_class, minlength=len(ids))
        return parts

    def _weighted(
        self, found: Occurrences, column: Array, texts: int
    ) -> tuple[Array, Array, Array, Array, Array]:
        """Counts times idf: text, column and value of each, in order; the length of each text's
        values; and what each occurrence adds to its value."""
        width = max(1, len(self.keys))
        cells, cell, counts = np.unique(
            found.text * np.int64(width) + column, return_inverse=True, return_counts=True
        )
        text, columns = np.divmod(cells, width)
        weighed = 1 + np.log(counts) if self.sublinear else counts
        values = weighed * self.idf[columns].astype(np.float64)
        lengths = np.sqrt(np.bincount(text, values**2, minlength=texts))
        return text, columns, values, lengths, (values / counts)[cell]

    def _known(self, ids: Array, offsets: Array) -> tuple[Occurrences, Array]:
        """The occurrences of known n-grams, and the column of each."""
        found = occurrences(ids, offsets, self.longest)
        if not len(self.keys):
            return Occurrences(*(part[:0] for part in found)), found.key[:0]
        column = np.searchsorted(self.keys, found.key).clip(max=len(self.keys) - 1)
        known = self.keys[column] == found.key
        return Occurrences(*(part[known] for part in found)), column[known]


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
            there = ids[first + way * number]
            if (there != there[0]).any():
                break
            special.append(int(there[0]))
    return np.unique(np.array(special, np.int64))
