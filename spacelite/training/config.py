"""What all heads of one training share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from spacelite.metrics.scores import METRICS
from spacelite.settings import LARGEST_SEED, Config, one_of, optional, positive, setting, whole

SCHEDULES = ("constant", "cosine")
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True, kw_only=True)
class FitConfig(Config):
    """What a head that is fitted at once, without epochs, has of a training's settings.

    Attributes:
        class_weights: `none`, or `balanced`: every class has the same weight in the loss.
    """

    FIRST = (
        "epochs", "batch_size", "data_seed", "schedule", "clip_norm", "class_weights", "patience",
        "monitor",
    )  # fmt: skip

    class_weights: str = setting("none", check=one_of(*CLASS_WEIGHTS), words="{} class weights")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(FitConfig):
    """What all heads of one training share. The defaults are the published protocol's.

    Attributes:
        epochs: Passes over the training split.
        batch_size: Examples per update.
        data_seed: Of the order of the examples.
        schedule: Of the learning rate: `constant` or `cosine`.
        clip_norm: The largest norm of a head's gradient, None for no bound.
        patience: Stop a head after so many epochs without a better `monitor`, and keep its best
            epoch's weights; None: all epochs, the last epoch's weights.
        monitor: The validation metric that `patience` watches.
    """

    epochs: int = setting(15, check=whole(1))
    batch_size: int = setting(256, check=whole(1), words="batch {}", always=True)
    data_seed: int = setting(0, check=whole(0, LARGEST_SEED))
    schedule: str = setting("constant", check=one_of(*SCHEDULES), words="{} schedule")
    clip_norm: float | None = setting(
        None, check=optional(positive), words="gradients clipped at {:g}"
    )
    patience: int | None = setting(None, check=optional(whole(1)), words="patience {}")
    monitor: str = setting(
        "f1_macro", check=lambda value: one_of(*METRICS)(value), words="best {}", always=True
    )

    @override
    def settings(self) -> dict[str, Any]:
        return {**super().settings(), **({} if self.patience is not None else {"monitor": None})}

    def for_fitting(self) -> FitConfig:
        """What of it a head without epochs has."""
        return FitConfig(class_weights=self.class_weights)
