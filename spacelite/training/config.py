"""The settings that all heads trained together share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from typing_extensions import override

from spacelite.metrics.thresholds import full_name, is_criterion
from spacelite.settings import (
    LARGEST_SEED,
    Config,
    one_of,
    optional,
    positive,
    setting,
    whole_number,
)
from spacelite.tasks import known_metrics
from spacelite.training.optimizer import SCHEDULES

CLASS_WEIGHTS = ("none", "balanced")
LOSSES = ("squared", "huber")  # the default first


@dataclass(frozen=True, kw_only=True)
class FitConfig(Config):
    """The training settings of a head that is fitted directly, without epochs."""

    ALWAYS_HASHED = (
        "epochs", "batch_size", "data_seed", "schedule", "clip_norm", "class_weights", "patience",
        "monitor",
    )  # fmt: skip

    class_weights: str = setting(
        "none",
        check=one_of(*CLASS_WEIGHTS),
        words="{} class weights",
        tuned=True,
        help="Weights of the classes in the loss: none or balanced.",
    )
    # Not `tuned`: figures on validation with and without a threshold chosen there do not compare.
    threshold: str | None = setting(
        None,
        check=optional(is_criterion),
        words="threshold for {}",
        help="Choose each head's decision threshold on validation for f1 (macro F1) or accuracy, "
        "where a text has one of two labels or any number of labels.",
        help_default="the most probable label, or those above one half",
    )
    # The column that the weights come from, or `given`, with the CRC-32 of the values.
    sample_weight: str | None = setting(
        None,
        check=optional(
            lambda value: None if isinstance(value, str) else "give what the weights are called"
        ),
        words="weights: {}",
        symbol="weights:",
        option="sample_weight_column",
        help="Column with the weight of each training example in the losses: the data that were "
        "embedded are read again.",
    )

    @override
    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "threshold", full_name(self.threshold))

    @override
    def saved(self) -> dict[str, Any]:
        """Without what came later and is not used: the records of runs without it stay the same."""
        return {
            name: value
            for name, value in super().saved().items()
            if value is not None or name in self.ALWAYS_HASHED
        }


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(FitConfig):
    """The settings that all heads trained together share. Defaults are those of the paper."""

    epochs: int = setting(
        15,
        check=whole_number(1),
        tuned=True,
        auto=True,
        metavar="<int|auto>",
        help="Passes over the training split; auto for 600 updates, in 15 to 300 passes.",
    )
    batch_size: int = setting(
        256,
        check=whole_number(1),
        words="batch {}",
        always=True,
        tuned=True,
        auto=True,
        metavar="<int|auto>",
        help="Examples per batch; auto for a twentieth of the training examples, 16 to 256.",
    )
    data_seed: int = setting(
        0,
        check=whole_number(0, LARGEST_SEED),
        words="data seed {}",
        help="Seed of the order of the examples.",
    )
    schedule: str = setting(
        "constant",
        check=lambda value: one_of(*SCHEDULES)(value),
        words="{} schedule",
        tuned=True,
        help="Schedule of the learning rate: constant or cosine.",
    )
    clip_norm: float | None = setting(
        None,
        check=optional(positive),
        words="gradients clipped at {:g}",
        tuned=True,
        help="Clip a head's gradient to this norm.",
    )
    # The weights of a head's best epoch are kept; without patience those of the last.
    patience: int | None = setting(
        None,
        check=optional(whole_number(1)),
        words="patience {}",
        tuned=True,
        help="Stop a head after this many epochs without a better {monitor}.",
    )
    monitor: str = setting(
        "f1_macro",
        check=lambda value: one_of(*known_metrics())(value),
        words="best {}",
        always=True,
        tuned=True,
        help="Validation metric that {patience} watches and {search} compares.",
        help_default="f1_macro, or rmse of numbers",
    )

    # None: the only loss of the task.
    loss: str | None = setting(
        None,
        check=optional(one_of(*LOSSES)),
        words="{} loss",
        tuned=True,
        help="Loss of labels that are numbers: squared or huber, which counts errors beyond a "
        "standard deviation of the training labels linearly.",
        help_default="squared",
    )

    @override
    def settings(self) -> dict[str, Any]:
        return {**super().settings(), **({} if self.patience is not None else {"monitor": None})}

    def for_fitting(self) -> FitConfig:
        """The settings that also apply to a head that is fitted directly."""
        return FitConfig(**{field.name: getattr(self, field.name) for field in fields(FitConfig)})
