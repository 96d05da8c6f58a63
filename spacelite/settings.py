"""What a setting is: its default, its check, and its words; dataclasses of settings are configs.

A new setting of a head or of training is one field of its config. Runs that were saved before it
existed keep their ids and are read with its default (`Config.hashed`), so a default never changes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any, ClassVar

from spacelite.errors import SpaceliteError

LARGEST_SEED = 2**63 - 1

# A value -> what is needed instead, None where it is good.
Check = Callable[[Any], str | None]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A dataclass of settings.

    Attributes:
        FIRST: The settings that have been hashed into ids from the beginning, null where a config
            has none of them. A later setting is hashed only where it is not its default: runs that
            are older than it keep their ids.
    """

    FIRST: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        # 0 and 0.0 are the same setting, and numpy's numbers are numbers: they give the same id.
        for each in fields(self):
            value, kind = getattr(self, each.name), str(each.type)
            if isinstance(value, bool | str) or value is None:
                continue
            convert: Callable[[Any], Any] = float if kind.startswith("float") else operator.index
            try:
                object.__setattr__(self, each.name, convert(value))
            except (TypeError, ValueError):
                continue  # `check` names it

    def settings(self) -> dict[str, Any]:
        """The settings by name, as they are hashed and saved; None where one plays no part."""
        return asdict(self)

    def saved(self) -> dict[str, Any]:
        """The settings as run records hold them: those of FIRST, and all others."""
        return {**dict.fromkeys(self.FIRST), **self.settings()}

    def hashed(self) -> dict[str, Any]:
        """What ids are made of: those of FIRST, and others where they are not the default."""
        default = {each.name: each.default for each in fields(self)}
        return {
            name: value
            for name, value in self.saved().items()
            if name in self.FIRST or value != default[name]
        }


def setting(
    default: Any = MISSING, *, check: Check, words: str | None = None, always: bool = False
) -> Any:
    """A field of a config.

    Args:
        default: What it is unless given; it never changes, since old runs are read with it.
        check: Says what is needed where a value is not usable.
        words: How tables mention it, with the value in braces: `batch {}`. None where it stands in
            a column or in the system's name.
        always: Whether tables mention it even where it is the default.
    """
    return field(default=default, metadata={"check": check, "words": words, "always": always})


def check(config: Config) -> None:
    """Raise SpaceliteError for a value that nothing can be trained with, naming the argument."""
    for each in fields(config):
        value = getattr(config, each.name)
        needed = each.metadata["check"](value)
        if needed is not None:
            raise SpaceliteError(f"{each.name}={_shown(each, value)}: {needed}", [each.name])


def _shown(each: Field[Any], value: Any) -> str:
    """A value in a message: 0.5; where its type is wrong as it was given, '0.5' or 2.0."""
    kind = str(each.type)
    if isinstance(value, float) and kind.startswith("float"):
        return f"{value:g}"
    return repr(value) if kind.startswith(("int", "float")) else str(value)


def words(config: Config) -> list[str]:
    """The settings that tables mention, in words: those that they always do, and those that are
    not the default."""
    said, values = [], config.settings()
    for each in fields(config):
        value = values[each.name]
        wanted = value is not None and (each.metadata["always"] or value != each.default)
        if wanted and each.metadata["words"] is not None:
            said.append(each.metadata["words"].format(value))
    return said


def one_of(*choices: str) -> Check:
    """The value is one of these names."""
    return lambda value: None if value in choices else f"choose from {', '.join(choices)}"


def whole(least: int, most: int | None = None) -> Check:
    """The value is a whole number from `least` to `most`."""

    def needed(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        if good and (most is None or value <= most):
            return None
        if most == LARGEST_SEED:
            return "give a whole number from 0 to 2^63 - 1"
        bounds = f"of at least {least:,}" if most is None else f"from {least:,} to {most:,}"
        return f"give a whole number {bounds}"

    return needed


def non_negative(value: Any) -> str | None:
    """The value is 0 or a positive number."""
    good = isinstance(value, int | float) and 0 <= value < math.inf
    return None if good else "give 0 or a positive number"


def positive(value: Any) -> str | None:
    """The value is a number above 0."""
    good = isinstance(value, int | float) and 0 < value < math.inf
    return None if good else "give a number above 0"


def optional(inner: Check) -> Check:
    """The value is None, or passes another check."""
    return lambda value: None if value is None else inner(value)
