"""Types that have no package of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]  # of any type; the documentation of each says its shape
else:
    Array = Any  # numpy is imported when it is first used
