"""Every combination of settings, as the configs of heads that train in one pass."""

from __future__ import annotations

import itertools
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from spacelite import heads
from spacelite.errors import SpaceliteError
from spacelite.heads.config import HeadConfig
from spacelite.settings import LARGEST_SEED, suggestion

MAX_SEEDS = 10_000  # far more than anyone needs


MOST_HEADS = 100_000  # of a kind in a grid: more than fit into memory


def grid(
    kinds: Sequence[str], settings: Mapping[str, Sequence[Any]], others: Iterable[str] = ()
) -> list[HeadConfig]:
    """The configs of every kind of head with every combination of its settings.

    Args:
        kinds: Kinds of heads, from heads.KINDS.
        settings: Setting -> its values. Each kind ignores the settings that it does not have: a
            space head has no pooling, logreg has no seed and no learning rate.
        others: Arguments of the caller, which the message about an unknown setting may suggest.

    Raises:
        SpaceliteError: A kind or a setting is unknown.
    """
    configs: list[HeadConfig] = []
    used: set[str] = set()
    for name in dict.fromkeys(kinds):
        config_type = heads.kind(name).config_type
        own = {each.name for each in fields(config_type)}
        order = sorted((each for each in settings if each in own), key=_order)
        used.update(order)
        count = math.prod(len(settings[each]) for each in order)
        if count > MOST_HEADS:
            raise SpaceliteError(
                f"this grid has {count:,} {name} heads: train at most {MOST_HEADS:,} at a time"
            )
        # Settings without an effect are left out of a config: equal ones are one head.
        made = (
            config_type(**dict(zip(order, values, strict=True)))
            for values in itertools.product(*(settings[each] for each in order))
        )
        configs.extend(dict.fromkeys(made))
    unknown = [name for name in settings if name not in used and name not in _KNOWN]
    if unknown:
        meant = suggestion(unknown[0], [*others, *used])
        raise SpaceliteError(
            f"{unknown[0]}: no head of {', '.join(kinds)} has this setting"
            + (f"; did you mean {meant}?" if meant else ""),
            [unknown[0]],
        )
    return configs


def listed(name: str, value: Any) -> list[Any]:
    """One value or several of an argument as a list, without duplicates.

    Raises:
        SpaceliteError: The list is empty, or its items are lists.
    """
    if isinstance(value, str | type) or not hasattr(value, "__iter__"):
        return [value]
    values = list(value)
    if not values:
        raise SpaceliteError(f"{name}=[]: the list is empty; give one value or several", [name])
    if any(hasattr(each, "__iter__") and not isinstance(each, str) for each in values):
        raise SpaceliteError(f"{name}={value}: give a list of values, not a list of lists", [name])
    return list(dict.fromkeys(values))


# The last setting varies fastest: those that kinds share, the seed last of all. Tables list heads
# in this order.
_FIRST = ("inter", "intra", "pooling", "C", "ensemble", "latent", "max_ngram", "blocks")
_LAST = ("learning_rate", "weight_decay", "seed")


def _order(name: str) -> int:
    if name in _LAST:
        return len(_FIRST) + 1 + _LAST.index(name)
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


# Accepted for every kind, whether it has them or not.
_KNOWN = (*HeadConfig.ALWAYS_HASHED, "C", "max_ngram", "ensemble")


def seed_list(seeds: int | str | Iterable[int]) -> list[int]:
    """The seeds that a number or a list of them means: 3 means seeds 0, 1 and 2, [1, 7, 42] these.

    Args:
        seeds: A number K, for seeds 0 to K-1; a list of seeds; or either as text: `3`, `1,7,42`,
            or `7,` for a list of one.

    Raises:
        SpaceliteError: `seeds` is neither a number from 1 to MAX_SEEDS nor a list of different
            seeds.
    """
    given: Any = seeds
    if isinstance(seeds, str):
        parts = [part.strip() for part in seeds.split(",")]
        listed = len(parts) > 1
        if listed and not parts[-1]:
            parts.pop()
        wrong = [part for part in parts if not re.fullmatch(r"-?[0-9]+", part)]
        if wrong:
            raise _bad_seeds(seeds, f"{wrong[0]!r} is not a whole number; {_SEEDS}")
        given = [int(part) for part in parts] if listed else int(parts[0])
    if not isinstance(given, Iterable):
        whole = not isinstance(given, bool) and hasattr(given, "__index__")
        if not whole or not 1 <= operator.index(given) <= MAX_SEEDS:
            raise _bad_seeds(given, _SEEDS)
        return list(range(operator.index(given)))
    given = list(given)
    found: list[int] = []
    for each in given:
        whole = not isinstance(each, bool) and hasattr(each, "__index__")
        if not whole or not 0 <= operator.index(each) <= LARGEST_SEED:
            raise _bad_seeds(given, f"{each} is not a whole number from 0 to 2^63 - 1")
        found.append(operator.index(each))
    if not found:
        raise _bad_seeds([], f"the list is empty; {_SEEDS}")
    if len(set(found)) < len(found):
        twice = next(each for each in found if found.count(each) > 1)
        raise _bad_seeds(given, f"seed {twice} is listed twice: list each seed once")
    return found


_SEEDS = f"give a number of seeds, 1 to {MAX_SEEDS:,}, or a list of them"


def _bad_seeds(seeds: object, problem: str) -> SpaceliteError:
    shown = ",".join(map(str, seeds)) if isinstance(seeds, list) else seeds
    return SpaceliteError(f"seeds={shown}: {problem}", ["seeds"])
