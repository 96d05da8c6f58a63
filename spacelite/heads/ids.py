"""Heads on token ids alone: no hidden state is read, and predicting needs no backbone but its
tokenizer."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from spacelite.heads.base import Head
from spacelite.heads.batch import Batch
from spacelite.heads.examples import Tokens
from spacelite.heads.ngrams import NGrams
from spacelite.lazy import torch

Array = npt.NDArray[Any]


class IdHead(Head):
    """Heads whose logits follow from the token ids of a text."""

    @abstractmethod
    def forward(self, ids: Array, offsets: Array) -> torch.Tensor:
        """Logits (K, B, C) of B texts, from their token ids end to end (T,) and the index of each
        text's first token, and at the end T (B + 1,)."""

    @classmethod
    @abstractmethod
    def token_parts(cls, parameters: dict[str, Array], ids: Array, offsets: Array) -> Array:
        """What each token adds to the logits of its text, (T, C) float64: with the bias, they sum
        to the logits. The arguments are those of `forward`."""

    @classmethod
    @override
    def token_shares(cls, config: Any, parameters: dict[str, Array], tokens: Tokens) -> Array:
        return cls.token_parts(parameters, tokens.ids, tokens.offsets)

    def run_batch(self, ids: Array, offsets: Array, batch: Batch) -> None:
        """Run forward on the token ids of a batch."""
        self.logits = self.forward(ids, offsets)
        self.totals.add(self.logits, batch)


def ngram_logits(ngrams: NGrams, weight: torch.Tensor, ids: Array, offsets: Array) -> torch.Tensor:
    """A linear layer without bias on the TF-IDF of N texts: weights (C, M) -> (N, C)."""
    rows = ngrams.rows(ids, offsets)
    starts, columns, values = (torch.from_numpy(part).to(weight.device) for part in rows)
    return torch.nn.functional.embedding_bag(
        columns,
        weight.T.contiguous(),
        starts[:-1],
        mode="sum",
        per_sample_weights=values.to(weight.dtype),
    )


def gathered(ids: Array, offsets: Array, examples: Array) -> tuple[Array, Array]:
    """The token ids of some examples end to end, and their offsets."""
    lengths = np.diff(offsets)[examples]
    ends = np.cumsum(lengths)
    rows = np.arange(ends[-1] if len(ends) else 0)
    rows += np.repeat(offsets[:-1][examples] - ends + lengths, lengths)
    return ids[rows], np.concatenate([[0], ends])
