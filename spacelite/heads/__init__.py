"""The classifiers. In: hidden states of tokens, or one vector per example. Out: logits.

Each kind of head is one file with its config, parameters, forward pass, gradient, and each token's
share in the logits. A new kind is a new file and a line in `KINDS`; a new pooling is an entry in
`pooling.POOLINGS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spacelite.heads.additive import AdditiveHead
from spacelite.heads.base import Head, TokenHead
from spacelite.heads.config import HeadConfig, TrainedHeadConfig
from spacelite.heads.linear import LinearHead, LogregHead, MLPHead, RidgeHead
from spacelite.heads.ngrams import TfidfHead
from spacelite.heads.pooling import POOLINGS, Pooling
from spacelite.heads.space import SpaceHead
from spacelite.settings import one_of, require

__all__ = [
    "KINDS",
    "POOLINGS",
    "Head",
    "HeadConfig",
    "Pooling",
    "TokenHead",
    "TrainedHeadConfig",
    "alike",
    "config",
    "config_from",
    "kind",
]

# In the order in which tables list them.
KINDS: dict[str, type[Head]] = {
    "space": SpaceHead,
    "linear": LinearHead,
    "mlp": MLPHead,
    "additive": AdditiveHead,
    "logreg": LogregHead,
    "ridge": RidgeHead,
    "tfidf": TfidfHead,
}


def kind(name: str) -> type[Head]:
    """A kind of head by its name. Raises SpaceliteError for an unknown one."""
    require("head", name, one_of(*KINDS))
    return KINDS[name]


def alike(configs: Sequence[HeadConfig]) -> list[list[int]]:
    """The indices of the heads of each stack: those with the same `stack_key`, in the order of
    their `stack_order`."""
    stacks: dict[tuple[object, ...], list[int]] = {}
    for number, config in enumerate(configs):
        stacks.setdefault(kind(config.kind).stack_key(config), []).append(number)
    for numbers in stacks.values():
        in_stack = kind(configs[numbers[0]].kind)
        numbers.sort(key=lambda number: in_stack.stack_order(configs[number]))
    return list(stacks.values())


def config(name: str, **settings: Any) -> HeadConfig:
    """The config of a head of a kind, given the settings that differ from the default."""
    return kind(name).config_type(**settings)


def config_from(name: str, settings: Mapping[str, Any]) -> HeadConfig:
    """A head's config from saved settings, as `Config.restored` reads them."""
    return kind(name).config_type.restored(settings)
