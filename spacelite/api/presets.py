"""Presets: settings that are recommended together. They were chosen on validation splits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spacelite.errors import SpaceliteError

# Name -> arguments of `train`. What a preset does may change with a version of the library; a run's
# settings are recorded.
PRESETS: dict[str, dict[str, Any]] = {
    "best": {
        "head": "additive",
        "blocks": "layers+ngrams+space",
        "max_ngram": 3,
        "latent": 32,
        "learning_rate": 2e-3,
        "weight_decay": 0.0,
        "epochs": 3,
        "batch_size": 128,
        "schedule": "cosine",
        # The start, without the block `space`, is epoch 0: it is kept if no epoch is better.
        "patience": 3,
        "monitor": "ce",
    },
}


def preset(name: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that a preset chooses.

    Args:
        name: Name of the preset; None for none.
        given: The arguments among them that the caller chose.

    Raises:
        SpaceliteError: There is no such preset, or it chooses what the caller chose too.
    """
    if name is None:
        return {}
    if name not in PRESETS:
        raise SpaceliteError(f"preset={name}: choose from {', '.join(PRESETS)}", ["preset"])
    chosen = PRESETS[name]
    twice = next((argument for argument in chosen if argument in given), None)
    if twice is not None:
        raise SpaceliteError(
            f"preset={name} chooses {twice} itself: leave {twice} or the preset out",
            ["preset", twice],
        )
    return chosen
