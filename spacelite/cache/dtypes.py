"""The number types in which hidden states are stored, one entry each in DTYPES.

A different type, such as int8 with a scale per token, is one more entry: `extra` makes room for the
scale after the d values of a row, `encode` writes both, and `decode` reads both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.errors import SpaceliteError
from spacelite.lazy import torch

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class StoredType:
    """How hidden states are stored.

    Attributes:
        dtype: numpy's name of the number type in the file.
        encode: Hidden states (..., d), float32 on any device -> rows (..., d + extra) of `dtype`.
        decode: Rows (..., d + extra) of `dtype` -> hidden states (..., d), float32.
        extra: Number of values in a row besides the d of its hidden state.
    """

    dtype: str
    encode: Callable[[torch.Tensor], Array]
    decode: Callable[[Array], Array]
    extra: int = 0

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


def _float32(rows: Array) -> Array:
    return rows.astype(np.float32)


DTYPES: dict[str, StoredType] = {
    "float16": StoredType(
        "float16", lambda hidden: hidden.to(torch.float16).cpu().numpy(), _float32
    ),
    "float32": StoredType(
        "float32", lambda hidden: hidden.to(torch.float32).cpu().numpy(), _float32
    ),
}


def stored_type(name: str) -> StoredType:
    """The stored type of this name.

    Raises:
        SpaceliteError: There is no such type.
    """
    if name not in DTYPES:
        raise SpaceliteError(f"dtype={name}: choose {' or '.join(DTYPES)}", ["dtype"])
    return DTYPES[name]
