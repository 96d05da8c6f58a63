"""torch, imported when it is first used.

It takes a second to import, and tables of saved runs do not need it: heads can be named, listed
and explained without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
else:

    class _Module:
        def __init__(self, name: str) -> None:
            self._name = name

        def __getattr__(self, attribute: str) -> Any:
            value = getattr(importlib.import_module(self._name), attribute)
            setattr(self, attribute, value)  # the next time it costs nothing
            return value

    torch = _Module("torch")
