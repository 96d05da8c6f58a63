"""Types that have no package of their own."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]  # of any type; the documentation of each says its shape
