"""The configs of heads: the settings of one head, not those that heads trained together share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from typing_extensions import override

from spacelite import settings
from spacelite.settings import LARGEST_SEED, Config, non_negative, positive, setting, whole_number

LOSS_WEIGHTS = ("inter", "intra")  # of the losses that shape concept spaces


@dataclass(frozen=True, kw_only=True)
class HeadConfig(Config):
    """The settings of one head. Each kind of head has its own config, in its own file."""

    ALWAYS_HASHED = ("seed", "learning_rate", "weight_decay", "latent", "inter", "intra", "pooling")

    kind: ClassVar[str]
    is_baseline: ClassVar[bool] = False  # whether reports compare other heads with it

    @property
    def name(self) -> str:
        """Name in tables, without seed and loss weights: `space L=128`, `linear (first)`."""
        return self.kind

    @property
    def system(self) -> str:
        """The name with the weights of the losses: `space L=128 + inter 0.2`."""
        values = self.settings()
        weights = (f"{key} {values[key]:g}" for key in LOSS_WEIGHTS if values.get(key))
        return " + ".join([self.name, *weights])

    @property
    def description(self) -> str:
        """Name in messages, with everything that distinguishes heads trained together."""
        return self.system

    @property
    def is_iterative(self) -> bool:
        """Whether the head is trained in epochs; others are fitted directly."""
        return False

    @property
    def start(self) -> HeadConfig | None:
        """The head, fitted directly, on top of whose logits this one is trained; None if there is
        none."""
        return None

    @property
    def members(self) -> tuple[HeadConfig, ...]:
        """The heads that are trained for this one, whose logits are averaged: itself alone, unless
        it is an ensemble."""
        return (self,)

    @property
    def without_effect(self) -> list[str]:
        """The settings that have no effect on this head, given the others."""
        return []

    def with_seed(self, seed: int) -> HeadConfig:
        """The head with another seed, if it has one."""
        return replace(self, **{"seed": seed}) if "seed" in self.__dataclass_fields__ else self

    @property
    def poolings(self) -> tuple[str, ...]:
        """The poolings whose vectors the head reads."""
        return ()

    @property
    def reads_ids(self) -> bool:
        """Whether the head reads token ids."""
        return self.reads_only_ids

    @property
    def reads_only_ids(self) -> bool:
        """Whether the head reads token ids alone, and no hidden states."""
        return False

    @property
    def reads_layers(self) -> bool:
        """Whether the head reads the means of all layers, besides or instead of hidden states."""
        return False

    def input_width(self, width: int, layers_width: int) -> int:
        """The width of what the head reads, from those of hidden states and of the means of all
        layers side by side."""
        return layers_width if self.reads_layers else width


@dataclass(frozen=True, kw_only=True)
class TrainedHeadConfig(HeadConfig):
    """A head that is trained in epochs, with Adam."""

    # Of the initialisation and of dropout.
    seed: int = setting(0, check=whole_number(0, LARGEST_SEED))
    learning_rate: float = setting(
        2e-4,
        check=positive,
        words="learning rate {:g}",
        always=True,
        tuned=True,
        search=(5e-4, 2e-3, 5e-3),
        auto=True,
        option="lr",
        help="Learning rate(s); auto means 0.001.",
        help_default="2e-4",
    )
    weight_decay: float = setting(
        0.01,
        check=non_negative,
        words="weight decay {:g}",
        always=True,
        tuned=True,
        search=(0.0, 0.01),
        help="Adam's L2 weight decay(s).",
    )

    @property
    @override
    def is_iterative(self) -> bool:
        return True

    @property
    @override
    def description(self) -> str:
        return f"{self.system} seed {self.seed} (learning rate {self.learning_rate:g})"


@dataclass(frozen=True, kw_only=True)
class EnsembleConfig(TrainedHeadConfig):
    """A head that may be an ensemble: the mean of the logits of several heads of its kind, which is
    a head of this kind too.

    The members of seed s have the seeds s * ensemble, s * ensemble + 1, ..., so that ensembles of
    different seeds have no member in common.
    """

    ensemble: int = setting(
        1,
        check=whole_number(1, 1000),
        words="ensemble of {}",
        tuned=True,
        help="Member(s) of a head that reads every token: heads with different seeds whose "
        "logits are averaged.",
    )

    @property
    @override
    def members(self) -> tuple[HeadConfig, ...]:
        first = self.seed * self.ensemble
        return tuple(
            replace(self, seed=first + number, ensemble=1) for number in range(self.ensemble)
        )


def system_names(
    heads: Sequence[HeadConfig],
    trainings: Sequence[Config] = (),
    origins: Sequence[Sequence[str]] = (),
    *,
    seeds: bool = False,
) -> list[str]:
    """The names of N systems wherever they are shown, (N,): `space L=16 + inter 0.2, learning rate
    0.001`, with the settings in which a system differs from others of the same name.

    Args:
        heads: The head of each system.
        trainings: How each was trained, if they may differ in it.
        origins: What each was trained on, in words, if they differ in it: `layer 3`.
        seeds: Whether heads that differ in their seed alone are systems of their own.
    """
    titles, values, symbols = [], [], []
    for head, training in itertools.zip_longest(heads, trainings):
        configs = [head] if training is None else [head, training]
        titles.append(head.system)
        values.append({
            name: value
            for config in configs
            for name, value in settings.effective(config).items()
            if name not in LOSS_WEIGHTS and (seeds or name != "seed")
        })  # fmt: skip
        symbols.append({k: v for config in configs for k, v in settings.symbols(config).items()})
    apart = settings.told_apart(titles, values)
    return [
        ", ".join([title, *(origin or ()), *settings.details(of_system, given, names)])
        for title, origin, given, of_system, names in itertools.zip_longest(
            titles, origins, values, symbols, apart
        )
    ]
