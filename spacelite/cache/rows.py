"""The hidden states of some texts in memory, with what else is known of their tokens."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.cache.dtypes import StoredType
from spacelite.errors import SpaceliteError
from spacelite.heads.base import Tokens

Array = npt.NDArray[Any]

NO_NUMBERS: Array = np.empty(0, np.int64)
NO_VECTORS: Array = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class TokenRows:
    """N texts of T tokens in all; read like a split of a cache. What is not known is empty.

    Attributes:
        rows: Hidden states of all texts end to end as they are stored, (T, r).
        offsets: The rows of text i are offsets[i]:offsets[i+1], (N + 1,).
        stored: How hidden states are stored in `rows`.
        token_ids: Token ids of all texts end to end, (T,).
        pooled: The pooler's outputs, (N, d) float32.
        layer_means: Means of all layers side by side, (N, layers * d).
        layer_states: Hidden states of all layers side by side, (T, layers * d).
        labels: Labels, (N,) or (N, C) int64.
        padding_side: Side on which the tokenizer pads, `left` or `right`.
    """

    rows: Array
    offsets: Array
    stored: StoredType
    token_ids: Array = field(default_factory=lambda: NO_NUMBERS)
    pooled: Array = field(default_factory=lambda: NO_VECTORS)
    layer_means: Array = field(default_factory=lambda: NO_VECTORS)
    layer_states: Array = field(default_factory=lambda: NO_VECTORS)
    labels: Array = field(default_factory=lambda: NO_NUMBERS)
    padding_side: str = "right"

    @classmethod
    def of_batch(
        cls,
        stored: StoredType,
        hidden: Array,
        pooled: Array | None = None,
        means: Array | None = None,
        token_ids: Array | None = None,
    ) -> TokenRows:
        """B texts of n tokens each: hidden states (B, n, r) as they are stored,
        the pooler's outputs (B, d), layer means (B, layers, d) and token ids (B, n)."""
        count, length, values = hidden.shape
        return cls(
            hidden.reshape(-1, values),
            np.arange(0, (count + 1) * length, length),
            stored,
            NO_NUMBERS if token_ids is None else token_ids.reshape(-1),
            NO_VECTORS if pooled is None else pooled,
            NO_VECTORS if means is None else means.reshape(count, -1),
        )

    @property
    def tokens(self) -> int:
        """Number of tokens, T."""
        return len(self.rows)

    @property
    def width(self) -> int:
        """Hidden width, d."""
        return self.stored.hidden_width(self.rows.shape[1])

    @property
    def dtype(self) -> Any:
        """Dtype of the stored values."""
        return self.rows.dtype

    @property
    def layers(self) -> int:
        """Number of layers whose means are known, the embedding layer included."""
        return int(self.layer_means.shape[1]) // max(1, self.width)

    @property
    def lengths(self) -> Array:
        """Tokens of each text, (N,)."""
        return np.diff(self.offsets)

    def require_pooler(self) -> None:
        """Raise SpaceliteError if there are no outputs of a pooler."""
        if not self.pooled.shape[1]:
            raise SpaceliteError(
                "pooling=pooler: these hidden states come without a pooler's outputs: choose "
                "another pooling",
                ["pooling"],
            )

    def read_token_ids(self) -> Array:
        """The token ids, (T,)."""
        return self.token_ids

    def read_examples(self, first: int, last: int, into: Array | None = None) -> Array:
        """Rows of texts first:last; `into` is ignored."""
        return self.rows[self.offsets[first] : self.offsets[last]]

    def decoded(self) -> Tokens:
        """The tokens as heads split a prediction into their shares, float64."""
        states = self.layer_states.astype(np.float64) if len(self.layer_states) else None
        hidden = self.stored.decode(self.rows).astype(np.float64)
        return Tokens(hidden, self.token_ids, self.offsets, states)

    def part(self, examples: Array) -> TokenRows:
        """Some of the texts, (n,) indices, copied."""
        index = tokens_of(self.offsets, examples)

        def some(values: Array, at: Array) -> Array:
            return values[at] if len(values) else values

        return replace(
            self,
            rows=self.rows[index],
            offsets=offsets_of(self.lengths[examples]),
            token_ids=some(self.token_ids, index),
            pooled=some(self.pooled, examples),
            layer_means=some(self.layer_means, examples),
            layer_states=some(self.layer_states, index),
            labels=some(self.labels, examples),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1


def offsets_of(lengths: Array) -> Array:
    """The index of each text's first token, and at the end T, (N + 1,) int64."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def tokens_of(offsets: Array, examples: Array) -> Array:
    """The rows of the tokens of some examples end to end, (n,)."""
    lengths = np.diff(offsets)[examples]
    ends = np.cumsum(lengths)
    first = offsets[:-1][examples] - (ends - lengths)
    return np.repeat(first, lengths) + np.arange(int(lengths.sum()))
