"""The number types in which hidden states are stored, one entry each in DTYPES."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.errors import SpaceliteError
from spacelite.lazy import torch

LARGEST = 127  # of int8; -128 is not used, so that the steps on both sides are the same
# Smaller scales would be inexact, and 127 times a larger one is more than float32 holds.
SCALES = (2.0**-126, 2.6793883e36)
SCALE = 4  # int8 values that hold a token's scale: the bytes of a float32, little-endian

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StoredType:
    """How hidden states are stored.

    Attributes:
        dtype: numpy's name of the number type in the file.
        to_rows: Hidden states (..., d), float32 on any device -> rows (..., d + extra) of `dtype`
            on the same device. A token with a value that the type cannot hold must read back as one
            that is not finite.
        widen: Rows (n, d + extra) and memory (n, d) float32 on the same device -> that memory, with
            the hidden states in it. Training does this for every group of tokens.
        read: The same for numpy arrays of any shape.
        extra: Number of values in a row besides the d of its hidden state.
        measured: Whether `embed` measures how much the type rounds each dimension: it rounds the
            small values of a token as coarsely as the large ones.
    """

    dtype: str
    to_rows: Callable[[torch.Tensor], torch.Tensor]
    widen: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    read: Callable[[Array, Array], Array]
    extra: int = 0
    measured: bool = False

    @property
    def numpy(self) -> np.dtype[Any]:
        """The number type in the file."""
        return np.dtype(self.dtype)

    @property
    def plain(self) -> bool:
        """Whether the stored values are the hidden states themselves, as floating-point numbers."""
        return self.extra == 0 and self.numpy.kind == "f"

    def row_values(self, width: int) -> int:
        """Number of stored values per token, for hidden states of this width."""
        return width + self.extra

    def row_bytes(self, width: int) -> int:
        """Number of stored bytes per token, for hidden states of this width."""
        return self.row_values(width) * self.numpy.itemsize

    def encode(self, hidden: torch.Tensor) -> Array:
        """Hidden states (..., d), float32 on any device, as rows (..., d + extra)."""
        rows: Array = self.to_rows(hidden).cpu().numpy()
        return rows

    def decode(self, rows: Array, into: Array | None = None) -> Array:
        """The hidden states (..., d) float32 of rows (..., d + extra).

        Args:
            rows: The rows.
            into: Memory for the hidden states; by default new.
        """
        if into is None:
            into = np.empty((*rows.shape[:-1], rows.shape[-1] - self.extra), np.float32)
        return self.read(rows, into)

    def is_finite(self, rows: Array) -> bool:
        """Whether all hidden states of these rows are finite."""
        return is_finite(rows if self.plain else self.decode(rows))


def is_finite(values: Array) -> bool:
    """Whether all values, float16 or float32, are finite. Their exponents say it: numpy would
    widen every float16 first, which takes twenty times as long."""
    kind = np.finfo(values.dtype)
    whole = values.view(f"i{values.itemsize}")
    exponent = whole.dtype.type(((1 << kind.nexp) - 1) << kind.nmant)
    return not values.size or bool((whole & exponent).max() < exponent)


def _copied(rows: Array, into: Array) -> Array:
    np.copyto(into, rows)
    return into


def _to_int8(hidden: torch.Tensor) -> torch.Tensor:
    """Each token's values in steps of its scale, the largest absolute value / 127, rounded to
    nearest (ties to even), and behind them the scale. That of zeros is 0, and that of a token whose
    values are not all finite is NaN."""
    largest = hidden.abs().amax(dim=-1, keepdim=True)
    scale = (largest / LARGEST).clamp_(*SCALES)
    scale = torch.where(largest.isfinite(), scale * (largest > 0), torch.nan)
    whole = (hidden / scale).nan_to_num_(0.0).round_().to(torch.int8)
    return torch.cat([whole, scale.contiguous().view(torch.int8)], dim=-1)


def _widen_int8(rows: torch.Tensor, into: torch.Tensor) -> torch.Tensor:
    scale = rows[:, -SCALE:].clone(memory_format=torch.contiguous_format).view(torch.float32)
    return into.copy_(rows[:, :-SCALE]).mul_(scale)


def _read_int8(rows: Array, into: Array) -> Array:
    scale = np.ascontiguousarray(rows[..., -SCALE:]).view("<f4")
    np.multiply(rows[..., :-SCALE], scale, out=into)
    return into


DTYPES: dict[str, StoredType] = {
    "float16": StoredType(
        "float16",
        to_rows=lambda hidden: hidden.to(torch.float16),
        widen=lambda rows, into: into.copy_(rows),
        read=_copied,
    ),
    "float32": StoredType(
        "float32",
        to_rows=lambda hidden: hidden.to(torch.float32),
        widen=lambda rows, into: into.copy_(rows),
        read=_copied,
    ),
    "int8": StoredType(
        "int8", _to_int8, widen=_widen_int8, read=_read_int8, extra=SCALE, measured=True
    ),
}


def stored_type(name: str) -> StoredType:
    """The stored type of this name.

    Raises:
        SpaceliteError: There is no such type.
    """
    if name not in DTYPES:
        *others, last = DTYPES
        raise SpaceliteError(f"dtype={name}: choose {', '.join(others)} or {last}", ["dtype"])
    return DTYPES[name]
