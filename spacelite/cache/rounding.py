"""How much a stored type rounds each dimension, measured while hidden states are written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spacelite.cache.dtypes import StoredType
from spacelite.errors import SpaceliteError
from spacelite.lazy import torch

log = logging.getLogger(__name__)

# Above this, embed warns: it is noise of 1% of the dimension's variance. Where steps are so coarse
# that all dimensions lose that much, the cross-entropy of heads on HateXplain and MiniLM changes by
# less than 0.001; at twice as much it is more (`tests/bench/stored_types.py steps`).
MOST = 0.1
# What deviates from its mean by less than this share of it is constant: float16 rounds off half as
# much.
CONSTANT = 1e-3
# What deviates by less than this share of the largest dimension's values is what float32 rounds off
# inside the backbone. MiniLM has three such dimensions.
NOISE = 1e-6

Array = npt.NDArray[Any]


def varies(mean: torch.Tensor, deviation: torch.Tensor) -> torch.Tensor:
    """Which dimensions differ from token to token by more than rounding, (d,) bool.

    Args:
        mean: The mean of each dimension over tokens, (d,) float64.
        deviation: Its standard deviation, (d,) float64.
    """
    noise = NOISE * torch.hypot(mean, deviation).max()
    return (deviation > CONSTANT * mean.abs()) & (deviation > noise)


class Rounded(NamedTuple):
    """The error of the dimensions: its root mean square over tokens, divided by the dimension's
    standard deviation.

    Attributes:
        errors: Of each dimension, (d,) float64; NaN for one that is constant.
        tokens: Number of tokens that were measured.
    """

    errors: Array
    tokens: int

    @property
    def median(self) -> float:
        """The median over the dimensions that are not constant."""
        return float(np.nanmedian(self.errors))

    @property
    def worst(self) -> float:
        """The largest error."""
        return float(np.nanmax(self.errors))

    @property
    def dimension(self) -> int:
        """The dimension with the largest error, from 0."""
        return int(np.nanargmax(self.errors))

    def as_json(self) -> dict[str, float | int]:
        """What `embed --json` prints."""
        return {
            "tokens": self.tokens,
            "median": self.median,
            "worst": self.worst,
            "dimension": self.dimension,
        }


def measure(stored: StoredType) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None:
    """What a forward pass measures, for `Rounding.add`; None for types in which nothing is.

    The function takes hidden states (..., d) float32 and their rows (..., d + extra), and returns
    (3, d) float64 on the same device: of each dimension the mean over tokens, the sum of squared
    deviations from it, and the sum of squared errors.
    """
    if not stored.measured:
        return None

    def sums(hidden: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        hidden, rows = (each.reshape(-1, each.shape[-1]) for each in (hidden, rows))
        memory = stored.widen(rows, torch.empty_like(hidden))
        errors = memory.sub_(hidden).square_().sum(dim=0)
        mean = hidden.mean(dim=0)
        apart = torch.sub(hidden, mean, out=memory).square_().sum(dim=0)
        return torch.stack([mean, apart, errors]).double()

    return sums


class Rounding:
    """Adds up what batches measured.

    Args:
        stored: How hidden states are stored.
    """

    def __init__(self, stored: StoredType) -> None:
        self.stored = stored
        self._tokens = 0
        self._mean, self._apart, self._errors = (np.zeros(()),) * 3

    def add(self, tokens: int, measured: Array) -> None:
        """Add a batch, with its number of tokens and what `measure` found, as Chan, Golub & LeVeque
        (1983) do."""
        mean, apart, errors = measured
        before = self._tokens
        self._tokens += tokens
        step = mean - self._mean
        self._apart = self._apart + apart + step**2 * (before * tokens / self._tokens)
        self._mean = self._mean + step * (tokens / self._tokens)
        self._errors = self._errors + errors

    def found(self) -> Rounded | None:
        """What was lost so far; None if nothing was measured, or every dimension is constant."""
        if not self._tokens:
            return None
        deviation = np.sqrt(self._apart / self._tokens)
        known = varies(torch.from_numpy(self._mean), torch.from_numpy(deviation)).numpy()
        if not known.any():
            return None
        errors = np.full(len(known), np.nan)
        errors[known] = np.sqrt(self._errors / self._tokens)[known] / deviation[known]
        return Rounded(errors, self._tokens)

    def log(self, total: int, prefix: str = "") -> Rounded | None:
        """Log what was lost, and warn if it is much.

        Args:
            prefix: What comes before the messages.
            total: Number of tokens that could have been measured, of which some may have been
                copied or written before.
        """
        found = self.found()
        if found is None:
            return None
        some = f" ({found.tokens:,} of {total:,} tokens)" if found.tokens < total else ""
        log.info(
            "%s%s: error of each dimension relative to its deviation%s: median %s, worst %s "
            "(dimension %d)",
            prefix, self.stored.dtype, some, _percent(found.median), _percent(found.worst),
            found.dimension,
        )  # fmt: skip
        self.warn(prefix)
        return found

    def warn(self, prefix: str = "") -> None:
        """Warn if the error of a dimension is larger than MOST."""
        found = self.found()
        if found is None or found.worst <= MOST:
            return
        many, of = int((found.errors > MOST).sum()), int(np.isfinite(found.errors).sum())
        remedy = SpaceliteError(
            f"{many:,} of {of:,} dimensions by more than {MOST:.0%} of their deviation, the worst "
            f"(dimension {found.dimension}) by {_percent(found.worst)}: heads may be less "
            "accurate; use dtype=float16",
            ["dtype"],
        )
        log.warning("%s%s rounds %s", prefix, self.stored.dtype, remedy)


def _percent(share: float) -> str:
    return f"{100 * share:.{1 if share < 0.1 else 0}f}%"
