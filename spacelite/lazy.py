"""torch, numpy, pyarrow and pandas, imported when they are first used.

torch takes a second to import, and tables of saved runs do not need it: heads can be named, listed
and explained without it. Their settings, which are options of commands, need neither.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as numpy
    import pandas as pandas
    import pyarrow as pyarrow
    import torch as torch

    np = numpy
else:

    class _Module:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(importlib.import_module(self._name), attribute)
            setattr(self, attribute, value)  # the next time it costs nothing
            return value

    np, torch = _Module("numpy"), _Module("torch")
    pandas, pyarrow = _Module("pandas"), _Module("pyarrow")


@contextmanager
def importing() -> Iterator[None]:
    """Import large packages without the garbage collector: it would look at all that they define
    again and again, which takes a sixth of the time, and all of it stays."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
