"""Settings as they are asked for -> the heads to train, and how: presets, "auto", the lists that a
search tries, and every combination of values; and what to change where heads were not trained long
enough.

The paper's defaults are made for tens of thousands of examples: with a hundred they mean 15 updates
of the weights. The rule of "auto" was found on validation data (docs/benchmarks.md).
"""

from __future__ import annotations

import inspect
import itertools
import logging
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from spacelite import heads, settings
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.settings import LARGEST_SEED, suggestion
from spacelite.training.config import FitConfig, TrainingConfig

if TYPE_CHECKING:
    from spacelite.cache.store import Cache
    from spacelite.tasks import Task

log = logging.getLogger(__name__)

AUTO = "auto"
UPDATES = 600  # at least, over all epochs
LEARNING_RATE = 1e-3
BATCHES = 20  # per epoch
BATCH_SIZES = (16, 256)  # the smallest and the largest
EPOCHS = (15, 300)  # the fewest and the most
AUTOMATIC = ("epochs", "batch_size", "learning_rate")  # chosen by the number of examples
_AUTO = ", ".join(f"{name}={AUTO!r}" for name in AUTOMATIC[:-1])
_AUTO += f" and {AUTOMATIC[-1]}={AUTO!r}"

# Heads that had fewer updates, or still improve, were not trained long enough.
FEWEST_UPDATES = 300
LAST_EPOCHS = 1 / 5  # the share of the epochs over which the cross-entropy is compared
FALL = 0.01  # by which it may still fall over them

MAX_SEEDS = 10_000  # far more than anyone needs
MOST_HEADS = 100_000  # of a kind in a grid: more than fit into memory
_SEEDS = f"give a number of seeds, 1 to {MAX_SEEDS:,}, or a list of them"

# The last setting varies fastest: those that kinds share, the seed last of all. Tables list heads
# in this order.
_FIRST = ("inter", "intra", "scaling", "pooling", "C", "ensemble", "latent", "max_ngram", "blocks")
_LAST = ("learning_rate", "weight_decay", "seed")
# Accepted for every kind, whether it has them or not: they have defaults.
_KNOWN = (*HeadConfig.ALWAYS_HASHED, "C", "max_ngram", "ensemble", "scaling")

# Settings that are recommended together, chosen on validation splits. What a preset does may change
# with a version of the library; a run's settings are recorded.
PRESETS: dict[str, dict[str, Any]] = {
    "best": {
        "head": "additive",
        "blocks": "layers+ngrams+attention",
        "max_ngram": 3,
        "latent": 32,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "epochs": 3,
        "batch_size": 128,
        "schedule": "cosine",
        # The start, without the block `attention`, is epoch 0: it is kept if no epoch is better.
        "patience": 3,
        "monitor": "ce",
    },
}

# A head that is no better than these is not worth its training: `train` keeps them beside every
# head, fitted once for a cache.
BASELINES: tuple[HeadConfig, ...] = (
    heads.config("tfidf", C=AUTO),
    heads.config("logreg", pooling="mean", C=AUTO),
)

OF_TRAINING = {field.name for field in fields(TrainingConfig)}
OF_EPOCHS = OF_TRAINING - {field.name for field in fields(FitConfig)}
# Settings that a function does not have: cross-validation has no validation split to stop early or
# to choose thresholds by.
WITHOUT: dict[str, tuple[str, ...]] = {
    "cross_validate": ("patience", "monitor", "threshold"),
    "learning_curve": (
        "ensemble", "class_weights", "sample_weight", "patience", "monitor", "threshold",
    ),
}  # fmt: skip


def baselines(cache: Cache) -> list[HeadConfig]:
    """BASELINES, but for those that read token ids where the cache has none, which is logged."""
    wanted = [counterpart(config, cache.task) for config in BASELINES]
    left_out = [config for config in wanted if config.reads_ids and not cache.has_token_ids]
    if left_out:
        log.warning(
            "cache %s was imported without token ids: the baseline %s is left out",
            cache.name, ", ".join(config.name for config in left_out),
        )  # fmt: skip
    return [config for config in wanted if config not in left_out]


def counterpart(config: HeadConfig, task: Task) -> HeadConfig:
    """The same head, of the kind that learns the labels of a task."""
    kind = task.counterparts.get(config.kind, config.kind)
    return config if kind == config.kind else heads.config(kind, **asdict(config))


def declared() -> dict[str, Field[Any]]:
    """Every setting of heads and of training by name, but for the seed: `seeds` are several."""
    configs = [*(head.config_type for head in heads.KINDS.values()), TrainingConfig]
    by_name: dict[str, Field[Any]] = {}
    for field in (field for config in configs for field in fields(config)):
        by_name.setdefault(field.name, field)
    del by_name["seed"]
    return by_name


def requested(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The settings among a function's arguments, with those of the preset. None where it is the
    default means that a setting is not given.

    Args:
        function: The function. What its caller gave is what differs from its defaults.
        arguments: Its arguments by name; `settings` are those of heads that it has no argument for.
        defaults: Settings where neither the caller nor the preset gives any.

    Raises:
        SpaceliteError: There is no such preset, or it chooses what the caller chose too; or no
            chosen head has a setting that the caller gave.
    """
    names = {"head", "preset", "seeds", *declared()}
    parameters = inspect.signature(function).parameters
    asked = {
        name: value
        for name, value in arguments.items()
        if name in names and not (value is None and parameters[name].default is None)
    }
    for name in WITHOUT.get(function.__name__, ()):
        if name in arguments["settings"]:
            raise SpaceliteError(f"{name}: {function.__name__} has no such argument", [name])
    given = [name for name in asked if arguments[name] is not parameters[name].default]
    asked |= arguments["settings"]
    preset = arguments["preset"]
    settings.require("preset", preset, settings.optional(settings.one_of(*PRESETS)))
    for name in PRESETS.get(preset, ()):
        if name in asked and listed(name, asked[name]) != listed(name, parameters[name].default):
            values = ",".join(map(settings.shown, listed(name, asked[name])))
            raise SpaceliteError(
                f"{name}={values}: preset={preset} chooses this itself: leave one of them out",
                ["preset", name],
            )
    asked = {**(defaults or {}), **asked, **PRESETS.get(preset, {})}
    search = bool(arguments.get("search"))
    if "monitor" in given and asked.get("patience") is None and not search:
        raise SpaceliteError(
            "monitor: only patience=... and search=True watch a metric: give one, or leave it out",
            ["monitor", "patience", "search"],
        )
    # The command line gives the default seed as a list; seeds of a learning curve are of its
    # subsets too.
    asked["seeds"] = seed_list(asked["seeds"])
    if asked["seeds"] == seed_list(parameters["seeds"].default) or defaults:
        given = [name for name in given if name != "seeds"]
    blocks = asked.get("blocks", declared()["blocks"].metadata["search"] if search else None)
    asked["head"] = listed("head", asked["head"])
    if {*asked["head"]} <= heads.KINDS.keys():  # else `grid` says what is wrong
        chosen = {name: arguments[name] for name in given} | arguments["settings"]
        _refuse_without_effect(chosen, asked["head"], blocks)
    return asked


def _refuse_without_effect(given: Mapping[str, Any], kinds: Sequence[str], blocks: Any) -> None:
    """Raise SpaceliteError if a setting is given that none of these heads uses: one of other kinds,
    of epochs for heads that have none, or of a block that is not among the blocks."""
    names = {
        kind: {field.name for field in fields(head.config_type)}
        for kind, head in heads.KINDS.items()
    }
    forms = [{}] if blocks is None else [{"blocks": form} for form in listed("blocks", blocks)]
    configs = [
        heads.config(kind, **(form if "blocks" in names[kind] else {}))
        for kind in kinds
        for form in forms
    ]
    for name, value in given.items():
        field = "seed" if name == "seeds" else name
        others = [kind for kind in names if field in names[kind]]
        if others and not {*kinds} & {*others}:
            problem = f": only {', '.join(others)} use{'s' * (len(others) == 1)} it"
        elif field in OF_EPOCHS:
            if any(config.is_iterative for config in configs):
                continue
            problem = ", trained without epochs"
        elif not others or any(
            field in names[config.kind] and field not in config.without_effect for config in configs
        ):
            continue
        else:
            problem = " with these blocks"
        values = ",".join(map(settings.shown, listed(name, value)))
        raise SpaceliteError(
            f"{name}={values} has no effect on {', '.join(kinds)}{problem}; leave it out, or "
            "add a head that uses it",
            [name, "head"],
        )


@dataclass(frozen=True)
class Plan:
    """The heads to train, and how.

    Attributes:
        configs: The heads.
        training: The settings that they share.
        chosen: The settings that were "auto", with what was chosen.
    """

    configs: list[HeadConfig]
    training: TrainingConfig
    chosen: dict[str, float]

    @property
    def sentence(self) -> str:
        """What was chosen, in words; "" if nothing was "auto"."""
        words = {
            "epochs": "{} epochs",
            "batch_size": "batches of {}",
            "learning_rate": "learning rate {:g}",
        }
        return ", ".join(words[name].format(value) for name, value in self.chosen.items())


def plan(
    asked: Mapping[str, Any],
    cache: Cache,
    *,
    search: bool = False,
    examples: int | None = None,
    arguments: Iterable[str] = (),
) -> Plan:
    """The heads of every combination of settings, and how they are trained.

    Args:
        asked: Setting -> its value, or several of a head's, as `requested`.
        cache: The cache to train on, open for reading.
        search: Whether there is a search, which has lists where nothing is given.
        examples: Number of training examples, by which "auto" chooses. Default: those of the cache.
        arguments: Arguments of the caller, which the message about an unknown setting may suggest.

    Raises:
        SpaceliteError: A setting is unknown or invalid.
    """
    kinds = listed("head", asked["head"])
    if search:
        asked = {**search_lists(kinds, asked, cache), **asked}
    if examples is None:
        examples = len(cache.splits["train"])
    task = cache.task
    asked = {**asked}
    # The metric of a preset is a default: the user has named none.
    named = None if asked.pop("preset", None) else asked.get("monitor")
    monitor = task.metric(named, asked.get("monitor", TrainingConfig.monitor), "monitor")
    training, values, chosen = resolve({**asked, "monitor": monitor}, examples)
    if training.loss is None:
        training = replace(training, loss=next(iter(task.losses), None))
    values = {
        "pooling": cache.pooling, **values, "seed": seed_list(asked["seeds"])
    }  # fmt: skip
    del values["head"], values["seeds"]
    lists = {name: listed(name, value) for name, value in values.items()}
    return Plan(grid(kinds, lists, arguments), training, chosen)


def plan_one(
    kind: str, asked: Mapping[str, Any], examples: int
) -> tuple[HeadConfig, TrainingConfig]:
    """The one head of these settings on so many examples, and how it is trained. Raises
    SpaceliteError if a setting is invalid."""
    training, values, _ = resolve(asked, examples)
    config = heads.config(kind, **values)
    settings.check(config)
    settings.check(training)
    return config, training


def resolve(
    asked: Mapping[str, Any], examples: int
) -> tuple[TrainingConfig, dict[str, Any], dict[str, float]]:
    """Put numbers in place of "auto", by the number of training examples: the settings of the
    training, the others, and those that were "auto" with what was chosen. Raises SpaceliteError if
    a value is another word than "auto", or the batch size is no whole number."""
    values = {"epochs": TrainingConfig.epochs, "batch_size": TrainingConfig.batch_size, **asked}
    rate = values.get("learning_rate")
    rates = listed("learning_rate", rate)
    for name in AUTOMATIC:
        for value in rates if name == "learning_rate" else [values[name]]:
            if isinstance(value, str) and value != AUTO:
                raise SpaceliteError(f"{name}={value!r}: give a number, or {AUTO!r}", [name])
    chosen: dict[str, float] = {}
    if isinstance(values["batch_size"], str):
        values["batch_size"] = chosen["batch_size"] = good_batch_size(examples)
    if isinstance(values["epochs"], str):
        settings.check(TrainingConfig(batch_size=values["batch_size"]))
        values["epochs"] = epochs = good_epochs(examples, values["batch_size"])
        chosen = {"epochs": epochs, **chosen}
    if AUTO in rates:
        chosen["learning_rate"] = LEARNING_RATE
        rates = [LEARNING_RATE if value == AUTO else value for value in rates]
        values["learning_rate"] = (
            LEARNING_RATE if isinstance(rate, str) else listed("learning_rate", rates)
        )
    training = TrainingConfig(**{name: values.pop(name) for name in OF_TRAINING & values.keys()})
    return training, values, chosen


def good_batch_size(examples: int) -> int:
    """The power of two nearest to a twentieth of the training examples, from 16 to 256."""
    smallest, largest = BATCH_SIZES
    power = round(math.log2(max(1, examples) / BATCHES))
    return min(largest, max(smallest, int(2**power)))


def good_epochs(examples: int, batch_size: int) -> int:
    """As many epochs as 600 updates take, but at least 15 and at most 300."""
    fewest, most = EPOCHS
    return min(most, max(fewest, math.ceil(UPDATES / batches(examples, batch_size))))


def batches(examples: int, batch_size: int) -> int:
    """The number of updates per epoch."""
    return max(1, math.ceil(examples / batch_size))


def few_updates(examples: int, training: TrainingConfig) -> int | None:
    """The number of updates in all epochs if there are fewer than 300; None otherwise."""
    updates = training.epochs * batches(examples, training.batch_size)
    return updates if updates < FEWEST_UPDATES else None


def last_epochs(epochs: int) -> int:
    """The number of epochs that are the last fifth."""
    return math.ceil(epochs * LAST_EPOCHS)


def still_falls(cross_entropy: Sequence[float | None], epochs: int) -> float | None:
    """By which share the cross-entropy on validation, given after each epoch, fell over the last
    fifth of the `epochs` that were asked for, if by more than 1 %; None otherwise, and for a head
    that was stopped early."""
    if len(cross_entropy) < epochs or epochs < 2:
        return None
    last, earlier = cross_entropy[-1], cross_entropy[-1 - last_epochs(epochs)]
    if last is None or not earlier or 1 - last / earlier <= FALL:
        return None
    return 1 - last / earlier


def after_training(
    examples: int,
    training: TrainingConfig,
    trained: Sequence[tuple[float, Sequence[float | None]]],
    loss: str = "cross-entropy",
) -> SpaceliteError | None:
    """A sentence on heads that were not trained long enough: an error, which can name options, but
    is not raised. Of each head that is trained in epochs, `trained` has the learning rate, and the
    plain loss, in words `loss`, on validation after each epoch."""
    if not trained:
        return None
    updates = few_updates(examples, training)
    if updates is not None:
        per_epoch = batches(examples, training.batch_size)
        return SpaceliteError(
            f"the heads had only {_count(updates, 'update')} "
            f"({_count(training.epochs, 'epoch')} of {_count(per_epoch, 'batch')}), too few for "
            f"most data: train with {_AUTO}, which choose by the number of training examples",
            AUTOMATIC,
        )
    known = [head for head in trained if head[1] and head[1][-1] is not None]
    if not known:
        return None
    rate, cross_entropy = min(known, key=lambda head: head[1][-1] or 0.0)
    fall = still_falls(cross_entropy, training.epochs)
    if fall is None:
        return None
    longer = f"for more epochs, such as epochs={2 * training.epochs}"
    as_auto = is_as_auto(examples, training, rate)
    return SpaceliteError(
        f"the best head still improves: over the last {last_epochs(training.epochs)} of "
        f"{training.epochs} epochs, its {loss} on validation fell by {fall:.1%}. Train "
        + (longer if as_auto else f"with {_AUTO}, or {longer}"),
        AUTOMATIC,
    )


def is_as_auto(examples: int, training: TrainingConfig, rate: float) -> bool:
    """Whether heads were trained as long, in batches as small and at a learning rate as high as
    "auto" would choose."""
    return (
        training.batch_size <= good_batch_size(examples)
        and training.epochs >= good_epochs(examples, training.batch_size)
        and rate >= LEARNING_RATE
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "es" if what == "batch" else "s")


def lacking_blocks(cache: Cache) -> dict[str, str]:
    """The blocks of additive heads that read what a cache lacks, with what to say of it."""
    lacking = {}
    if cache.layers is None or not cache.layers.complete:
        remedy = "" if cache.spec.is_imported else "; embed again with layers=True to add them"
        lacking["layers"] = f"the cache has no layer means{remedy}"
    if not cache.has_token_ids:
        lacking["ngrams"] = "the cache was imported without token ids"
    return lacking


def search_lists(kinds: Sequence[str], asked: Mapping[str, Any], cache: Cache) -> dict[str, Any]:
    """The lists of values that a search tries where nothing is asked for."""
    lists: dict[str, Sequence[Any]] = {
        field.name: field.metadata["search"]
        for kind in kinds
        for field in fields(heads.kind(kind).config_type)
        if field.metadata["search"] and field.name not in asked
    }
    if "blocks" in lists and (lacking := lacking_blocks(cache)):
        reading = [name for name in lists["blocks"] if lacking.keys() & {*name.split("+")}]
        lists["blocks"] = [name for name in lists["blocks"] if name not in reading]
        reasons = ", and ".join(lacking.values())
        left_out = SpaceliteError(
            f"the search leaves out {', '.join(reading)}: {reasons}", ["layers"]
        )
        log.warning("%s", left_out)
    return lists


def grid(
    kinds: Sequence[str], values: Mapping[str, Sequence[Any]], others: Iterable[str] = ()
) -> list[HeadConfig]:
    """The configs of every kind of head with every combination of the values of its settings.

    Each kind ignores settings that it does not have: a space head has no pooling, logreg has no
    seed. The message about an unknown setting may suggest one of `others`.
    """
    configs: list[HeadConfig] = []
    used: set[str] = set()
    for kind in dict.fromkeys(kinds):
        config_type = heads.kind(kind).config_type
        names = {field.name for field in fields(config_type)}
        order = sorted((name for name in values if name in names), key=_order)
        used.update(order)
        count = math.prod(len(values[name]) for name in order)
        if count > MOST_HEADS:
            raise SpaceliteError(
                f"this grid has {count:,} {kind} heads: train at most {MOST_HEADS:,} at a time"
            )
        # Settings without an effect are left out of a config: equal ones are one head.
        combinations = itertools.product(*(values[name] for name in order))
        configs.extend(
            dict.fromkeys(
                config_type(**dict(zip(order, combination, strict=True)))
                for combination in combinations
            )
        )
    unknown = [name for name in values if name not in used and name not in _KNOWN]
    if unknown:
        meant = suggestion(unknown[0], [*others, *used])
        raise SpaceliteError(
            f"{unknown[0]}: no head of {', '.join(kinds)} has this setting"
            + (f"; did you mean {meant}?" if meant else ""),
            [unknown[0]],
        )
    return configs


def listed(name: str, value: Any) -> list[Any]:
    """One value or several of an argument as a list, without duplicates; never an empty one."""
    if isinstance(value, str | type) or not hasattr(value, "__iter__"):
        return [value]
    values = list(value)
    if not values:
        raise SpaceliteError(f"{name}=[]: the list is empty; give one value or several", [name])
    if any(hasattr(item, "__iter__") and not isinstance(item, str) for item in values):
        raise SpaceliteError(f"{name}={value}: give a list of values, not a list of lists", [name])
    return list(dict.fromkeys(values))


def _order(name: str) -> int:
    if name in _LAST:
        return len(_FIRST) + 1 + _LAST.index(name)
    return _FIRST.index(name) if name in _FIRST else len(_FIRST)


def seed_list(seeds: int | str | Iterable[int]) -> list[int]:
    """The seeds that a number or a list of them means: 3 means seeds 0, 1 and 2, [1, 7, 42] these.
    Either may be text: `3`, `1,7,42`, or `7,` for a list of one."""
    if isinstance(seeds, str):
        parts = [part.strip() for part in seeds.split(",")]
        is_list = len(parts) > 1
        if is_list and not parts[-1]:
            parts.pop()
        wrong = [part for part in parts if not re.fullmatch(r"-?[0-9]+", part)]
        if wrong:
            raise _bad_seeds(seeds, f"{wrong[0]!r} is not a whole number; {_SEEDS}")
        seeds = [int(part) for part in parts] if is_list else int(parts[0])
    if not isinstance(seeds, Iterable):
        if not _is_whole(seeds) or not 1 <= operator.index(seeds) <= MAX_SEEDS:
            raise _bad_seeds(seeds, _SEEDS)
        return list(range(operator.index(seeds)))
    seeds = list(seeds)
    for seed in seeds:
        if not _is_whole(seed) or not 0 <= operator.index(seed) <= LARGEST_SEED:
            raise _bad_seeds(seeds, f"{seed} is not a whole number from 0 to 2^63 - 1")
    if not seeds:
        raise _bad_seeds([], f"the list is empty; {_SEEDS}")
    numbers = [operator.index(seed) for seed in seeds]
    if len(set(numbers)) < len(numbers):
        twice = next(seed for seed in numbers if numbers.count(seed) > 1)
        raise _bad_seeds(seeds, f"seed {twice} is listed twice: list each seed once")
    return numbers


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and hasattr(value, "__index__")


def _bad_seeds(seeds: object, problem: str) -> SpaceliteError:
    shown = ",".join(map(str, seeds)) if seeds and isinstance(seeds, list) else seeds
    return SpaceliteError(f"seeds={shown}: {problem}", ["seeds"])
