"""Every combination of settings, as the configs of heads that train in one pass."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from spacelite import heads
from spacelite.errors import SpaceliteError
from spacelite.heads.config import HeadConfig

MAX_SEEDS = 10_000  # far more than anyone needs


def grid(kinds: Sequence[str], settings: Mapping[str, Sequence[Any]]) -> list[HeadConfig]:
    """The configs of every kind of head with every combination of its settings.

    Args:
        kinds: Kinds of heads, from heads.KINDS.
        settings: Setting -> its values. Each kind ignores the settings that it does not have: a
            space head has no pooling, logreg has no seed and no learning rate.

    Raises:
        SpaceliteError: A kind or a setting is unknown.
    """
    configs: list[HeadConfig] = []
    used: set[str] = set()
    for name in dict.fromkeys(kinds):
        config_type = heads.kind(name).config_type
        own = {each.name for each in fields(config_type)}
        # The last setting varies fastest: those that kinds share, the seed last of all. Tables
        # list heads in this order.
        order = sorted(
            (each for each in settings if each in own), key=lambda each: _LAST.get(each, 0)
        )
        used.update(order)
        configs.extend(
            config_type(**dict(zip(order, values, strict=True)))
            for values in itertools.product(*(settings[each] for each in order))
        )
    unknown = [name for name in settings if name not in used and name not in _KNOWN]
    if unknown:
        raise SpaceliteError(
            f"{unknown[0]}: no head of {', '.join(kinds)} has this setting", [unknown[0]]
        )
    return configs


_LAST = {"learning_rate": 1, "weight_decay": 2, "seed": 3}
_KNOWN = HeadConfig.ALWAYS_HASHED  # accepted for every kind, whether it has them or not


def seed_list(seeds: int | Sequence[int]) -> list[int]:
    """Seeds 0 to K-1 for a number K; a list of seeds is returned as it is.

    Raises:
        SpaceliteError: `seeds` is neither a list nor a whole number from 1 to MAX_SEEDS.
    """
    if isinstance(seeds, Iterable) and not isinstance(seeds, str):
        return list(seeds)
    whole = not isinstance(seeds, bool) and hasattr(seeds, "__index__")
    if not whole or not 1 <= operator.index(seeds) <= MAX_SEEDS:
        raise SpaceliteError(
            f"seeds={seeds}: give a number of seeds, 1 to {MAX_SEEDS:,}, or a list of them",
            ["seeds"],
        )
    return list(range(operator.index(seeds)))
