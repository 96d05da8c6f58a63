"""Names and modules that are imported when they are first used.

torch takes a second to import, and tables of saved runs do not need it: heads can be named, listed
and explained without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
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


def exports(package: str, names: dict[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__`, which imports its public names, each from the module that `names`
    says, when they are first used."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{names[name]}"), name)

    return find
