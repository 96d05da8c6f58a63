"""The number types that hidden states are stored in: one entry each in DTYPES."""

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
        dtype: numpy's name of the type that lies in the file.
        encode: Hidden states (B, n, d), float32 on any device -> what is stored, on the CPU. What
            reads them widens them to float32 again.
    """

    dtype: str
    encode: Callable[[torch.Tensor], Array]

    @property
    def numpy(self) -> np.dtype[Any]:
        """The type that lies in the file."""
        return np.dtype(self.dtype)


DTYPES: dict[str, StoredType] = {
    "float16": StoredType("float16", lambda hidden: hidden.to(torch.float16).cpu().numpy()),
    "float32": StoredType("float32", lambda hidden: hidden.to(torch.float32).cpu().numpy()),
}


def stored_type(name: str) -> StoredType:
    """The stored type of this name. Raises SpaceliteError where there is none."""
    if name not in DTYPES:
        raise SpaceliteError(f"dtype={name}: choose {' or '.join(DTYPES)}", ["dtype"])
    return DTYPES[name]
