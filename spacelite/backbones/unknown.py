"""Token ids -> the share of each text's tokens that are unknown to the backbone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.backbones.tokenizer import SpecialIds

Array = npt.NDArray[Any]

MOSTLY = 0.5  # the share from which a text counts as mostly unknown


def unknown_counts(ids: Array, offsets: Array, special: SpecialIds) -> tuple[Array, Array]:
    """Count the unknown tokens of N texts. Special tokens, such as [CLS] and padding, do not count.

    Args:
        ids: The concatenated token ids of the texts, (T,).
        offsets: The index of each text's first token, and at the end T, (N+1,).
        special: The tokenizer's special ids.

    Returns:
        The number of each text's unknown tokens and of all its tokens, each (N,) int64.
    """
    ordinary = ~np.isin(ids, list(special.others))
    unknown = np.zeros(len(ids), bool) if special.unknown is None else ids == special.unknown

    def per_text(tokens: Array) -> Array:
        counts: Array = np.diff(np.concatenate([[0], np.cumsum(tokens)])[offsets])
        return counts

    return per_text(unknown), per_text(ordinary)


def unknown_shares(ids: Array, offsets: Array, special: SpecialIds) -> Array:
    """The share of each text's tokens that are unknown, (N,) float64; 1 for a text that the
    tokenizer reduces to nothing. The arguments are those of `unknown_counts`."""
    unknown, tokens = unknown_counts(ids, offsets, special)
    shares: Array = np.where(tokens > 0, unknown / np.maximum(tokens, 1), 1.0)
    return shares
