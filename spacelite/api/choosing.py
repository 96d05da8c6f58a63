"""Arguments -> the heads to train, and how they are trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from spacelite.api.searching import filled
from spacelite.cache import Cache
from spacelite.heads import HeadConfig
from spacelite.heads.grid import grid, listed, seed_list
from spacelite.heads.pooling import default_pooling
from spacelite.training import TrainingConfig, auto

# Arguments that a search may choose, where they are not given.
SEARCHED = ("latent", "blocks", "max_ngram", "learning_rate", "weight_decay")
OF_TRAINING = (
    "data_seed", "schedule", "clip_norm", "class_weights", "patience", "monitor", "threshold",
    "sample_weight",
)  # fmt: skip
OF_GRID = ("inter", "intra", "pooling", "C", "ensemble")


class Chosen(NamedTuple):
    """What arguments choose.

    Attributes:
        configs: The heads.
        training: The settings that they share.
        numbers: What "auto" chose by the number of training examples.
    """

    configs: list[HeadConfig]
    training: TrainingConfig
    numbers: auto.Resolved


def chosen_heads(
    cache: Cache,
    given: Mapping[str, Any],
    others: Mapping[str, Any],
    *,
    search: bool,
    arguments: Collection[str],
    examples: int | None = None,
) -> Chosen:
    """The heads of every combination of settings, and how they are trained.

    Args:
        cache: The cache to train on, open for reading.
        given: The arguments that choose heads and their training. Settings of the training that are
            not there have their defaults.
        others: Settings of kinds of heads that `train` has no argument for.
        search: Whether there is a search.
        arguments: The names of all arguments, which messages may suggest.
        examples: Number of training examples, by which "auto" chooses. Default: those of the cache.

    Raises:
        SpaceliteError: A setting is unknown or invalid.
    """
    kinds = listed("head", given["head"])
    pooling = given["pooling"]
    if pooling is None:
        pooling = default_pooling(cache.padding_side)
    tuned = {key: given[key] for key in SEARCHED if given[key] is not None}
    tuned = filled(tuned, kinds, cache, search=search)
    numbers = auto.resolve(
        len(cache.splits["train"]) if examples is None else examples,
        epochs=given["epochs"],
        batch_size=given["batch_size"],
        learning_rates=listed("learning_rate", tuned["learning_rate"]),
    )
    training = TrainingConfig(
        epochs=numbers.epochs,
        batch_size=numbers.batch_size,
        **{key: given[key] for key in OF_TRAINING if key in given},
    )
    named = {
        **{key: given[key] for key in OF_GRID},
        **tuned,
        **others,
        "pooling": pooling,
        "learning_rate": numbers.learning_rates,
        "seed": seed_list(given["seeds"]),
    }
    lists = {key: listed(key, value) for key, value in named.items()}
    return Chosen(grid(kinds, lists, arguments), training, numbers)
