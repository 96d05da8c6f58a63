"""L_inter and L_intra, the two losses that shape concept spaces, counted over examples.

Shapes: K heads, B examples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from spacelite.lazy import torch

EPSILON = 1e-9  # keeps 1 / variance finite
Count: TypeAlias = "float | torch.Tensor"  # of all heads, or of each, (K,) float64


@dataclass
class Penalties:
    """Sums over examples, from which L_inter and L_intra of K heads are computed.

    Attributes:
        matching: Sum of 1 - s over coordinates in the spaces of an example's own classes, (K,)
            float64.
        mismatching: Sum of 1 + s over all other coordinates, (K,) float64.
        intra: Sum of 1 / (variance + EPSILON), (K,) float64.
        matching_tokens: Number of tokens times classes in `matching`.
        mismatching_tokens: Number of tokens times classes in `mismatching`.
        varying: Number of examples in `intra`: those with more than one token.

    Where each head gives examples weights of its own, these count so much, and the last three are
    (K,) float64.
    """

    matching: torch.Tensor
    mismatching: torch.Tensor
    intra: torch.Tensor
    matching_tokens: Count = 0
    mismatching_tokens: Count = 0
    varying: Count = 0

    def weighted(self, inter: torch.Tensor, intra: torch.Tensor, latent: int) -> torch.Tensor:
        """inter L_inter + intra L_intra, (K,), with weights (K,) and L = `latent`."""
        matching, mismatching = (
            total / at_least_one(tokens * latent)  # a mean of no coordinates counts as 0
            for total, tokens in (
                (self.matching, self.matching_tokens),
                (self.mismatching, self.mismatching_tokens),
            )
        )
        # A weight of 0 switches its term off, even where the term overflows.
        spread = torch.where(inter > 0, inter * (matching + mismatching) / 2, 0)
        return spread + torch.where(intra > 0, intra * self.intra / at_least_one(self.varying), 0)


def count_of(counts: torch.Tensor, shares: torch.Tensor | None) -> Count:
    """The sum of counts of examples, (B,) int64; with shares (K, B), the weighted sum of each head,
    (K,) float64 on the CPU. Counted exactly: float32 would round large sums."""
    return int(counts.sum()) if shares is None else (shares.double() @ counts.double()).cpu()


def at_least_one(count: Count) -> Count:
    """A number of terms to divide by: 1 where there are none."""
    if isinstance(count, torch.Tensor):
        return torch.where(count > 0, count, 1)
    return max(count, 1)


def by_row(value: Count, like: torch.Tensor) -> Count:
    """A number as it is; of each head, (K,), as (1, K, 1) beside `like`."""
    return value.to(like).view(1, -1, 1) if isinstance(value, torch.Tensor) else value
