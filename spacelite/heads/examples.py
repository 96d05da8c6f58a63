"""What heads are given: the examples that they are fitted to, the tokens of which they give shares;
and what a fit returns.

Shapes: N examples, T tokens in all of them together, C classes, d hidden width.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from spacelite.lazy import torch

Array = npt.NDArray[Any]
Parameters: TypeAlias = "dict[str, torch.Tensor]"  # by name


class Examples(Protocol):
    """The examples that a head is fitted to or trained on."""

    labels: torch.Tensor  # (N,) or (N, C)
    weights: Array | None  # of the examples in the loss, (N,) float64 above 0; None if all are 1

    def features(self, pooling: str) -> torch.Tensor:
        """One vector per example, (N, d), by a pooling."""
        ...

    def token_ids(self) -> tuple[Array, Array]:
        """The token ids of all examples end to end, (T,), and their offsets, (N + 1,)."""
        ...

    def standardisation(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean of the hidden states of all tokens, (d,), and the inverse of their standard
        deviation, (d,), or 0 where it is no more than rounding."""
        ...


class Tokens(NamedTuple):
    """The tokens of N texts end to end, T in all.

    Attributes:
        hidden: Their hidden states in the cached layer, (T, d).
        ids: Their ids, (T,).
        offsets: Index of each text's first token, and at the end T, (N + 1,).
        layers: Their hidden states in all layers side by side, (T, layers * d); None where no head
            reads them.
    """

    hidden: Array
    ids: Array
    offsets: Array
    layers: Array | None = None

    def read(self, all_layers: bool) -> Array:
        """The hidden states of all layers, or of the cached one."""
        if not all_layers:
            return self.hidden
        if self.layers is None:
            raise ValueError("the hidden states of all layers are not given")
        return self.layers

    def averaged(self, values: Array) -> Array:
        """What each token adds to the mean over its text, in place: (T, C) divided by the lengths
        of the texts."""
        lengths = np.diff(self.offsets)
        values /= np.repeat(lengths, lengths)[:, None]
        return values


class Fitted(NamedTuple):
    """A head that was fitted at once.

    Attributes:
        parameters: Its parameters by name.
        cross_validated: The settings that cross-validation chose, by name.
        held: The logits of each training example by a fit that it was held out of, (N, C); None if
            the kind has none.
    """

    parameters: Parameters
    cross_validated: dict[str, float]
    held: torch.Tensor | None = None
