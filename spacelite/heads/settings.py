"""What a head is and how it is trained: the settings of one head, those that a pass over the data
shares, and which of them are refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from spacelite.errors import SpaceliteError
from spacelite.metrics.scores import METRICS

KINDS = ("space", "linear", "mlp", "logreg")
POOLINGS = ("first", "last", "mean", "pooler")
SCHEDULES = ("constant", "cosine")
CLASS_WEIGHTS = ("none", "balanced")
MOST_LATENT = 10_000  # far beyond use: a slip of the finger, not a setting
MOST_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """What one head is and how it is trained, but for what a pass shares.

    `logreg` is scikit-learn's LogisticRegression: it has no seed, learning rate or weight decay.
    """

    kind: str
    seed: int = 0
    learning_rate: float | None = 2e-4
    weight_decay: float | None = 0.01
    latent: int | None = None  # space only, and so are
    inter: float | None = None  # the weights of the two
    intra: float | None = None  # additional losses
    pooling: str | None = None  # all others

    @property
    def system(self) -> str:
        """The head's name without its seed: `space`, `space L=128`, `linear (first)`."""
        if self.kind == "space":
            return "space" if self.latent == 3 else f"space L={self.latent}"
        return f"{self.kind} ({self.pooling})"

    @property
    def description(self) -> str:
        """The name with all that tells heads of one pass apart, for messages."""
        weights = f" inter {self.inter:g} intra {self.intra:g}" if self.kind == "space" else ""
        rate = "" if self.learning_rate is None else f" (learning rate {self.learning_rate:g})"
        return f"{self.system}{weights} seed {self.seed}{rate}"

    @property
    def shape(self) -> tuple[object, ...]:
        """What heads of one stack have in common: kind, shapes, inputs."""
        return (self.kind, self.latent, self.pooling)


@dataclass(frozen=True, kw_only=True)
class PassSettings:
    """What all heads of one training pass share. The defaults are the published protocol's.

    `data_seed` orders the examples. `clip_norm`: the largest norm of a head's gradient. With
    `patience`, a head ends after so many epochs without a better validation figure of `monitor`,
    and its best epoch's weights are kept; without, the last epoch's.
    """

    epochs: int = 15
    batch_size: int = 256
    data_seed: int = 0
    schedule: str = "constant"
    clip_norm: float | None = None
    class_weights: str = "none"
    patience: int | None = None
    monitor: str = "f1_macro"


def check(settings: Sequence[HeadSettings], shared: PassSettings) -> None:
    """Raise SpaceliteError for settings that nothing can be trained with."""
    counts = (
        ("epochs", shared.epochs),
        ("batch-size", shared.batch_size),
        ("patience", shared.patience),
    )
    for option, value in counts:
        if value is not None and value < 1:
            raise SpaceliteError(f"--{option} {value}: give at least 1")
    if not 0 <= shared.data_seed <= MOST_SEED:
        raise SpaceliteError(f"--data-seed {shared.data_seed}: give a number from 0 to 2^63 - 1")
    _check_number("clip-norm", shared.clip_norm, positive=True)
    _check_choice("schedule", shared.schedule, SCHEDULES)
    _check_choice("class-weights", shared.class_weights, CLASS_WEIGHTS)
    _check_choice("monitor", shared.monitor, METRICS)
    if not settings:
        raise SpaceliteError(f"no head to train: choose --head from {', '.join(KINDS)}")
    if len(set(settings)) < len(settings):
        raise SpaceliteError("a head is listed twice: give each combination of settings once")
    for head in settings:
        _check_head(head)


def _check_head(head: HeadSettings) -> None:
    _check_choice("head", head.kind, KINDS)
    of_space = (head.latent, head.inter, head.intra)
    of_adam = (head.learning_rate, head.weight_decay)
    if (
        any(value is None for value in of_space) == (head.kind == "space")
        or any(value is not None for value in of_space) != (head.kind == "space")
        or (head.pooling is None) != (head.kind == "space")
        or any((value is None) != (head.kind == "logreg") for value in of_adam)
    ):
        raise ValueError(f"{head}: space needs latent, inter and intra, all others pooling, and "
                         "all but logreg a learning rate and weight decay")  # fmt: skip
    if head.pooling is not None:
        _check_choice("pooling", head.pooling, POOLINGS)
    if head.latent is not None and not 1 <= head.latent <= MOST_LATENT:
        raise SpaceliteError(f"--latent {head.latent}: give 1 to {MOST_LATENT:,}")
    if not 0 <= head.seed <= MOST_SEED:
        raise SpaceliteError(f"seed {head.seed}: give a number from 0 to 2^63 - 1")
    _check_number("inter", head.inter)
    _check_number("intra", head.intra)
    _check_number("weight-decay", head.weight_decay)
    _check_number("lr", head.learning_rate, positive=True)


def _check_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise SpaceliteError(f"--{option} {value}: choose from {', '.join(choices)}")


def _check_number(option: str, value: float | None, *, positive: bool = False) -> None:
    least = math.nextafter(0, 1) if positive else 0.0
    if value is not None and not least <= value < math.inf:
        needed = "a number above 0" if positive else "0 or a positive number"
        raise SpaceliteError(f"--{option} {value:g}: give {needed}")
