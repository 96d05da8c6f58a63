"""The configs of heads: what one head is, apart from what all heads of a training share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from spacelite.settings import LARGEST_SEED, Config, non_negative, positive, setting, whole


@dataclass(frozen=True, kw_only=True)
class HeadConfig(Config):
    """What one head is. Each kind of head has a config of its own, in its own file."""

    FIRST = ("seed", "learning_rate", "weight_decay", "latent", "inter", "intra", "pooling")

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """The name in tables, without seed and losses: `space L=128`, `linear (first)`."""
        return self.kind

    @property
    def description(self) -> str:
        """The name with all that tells heads of one training apart, for messages."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class TrainedHeadConfig(HeadConfig):
    """A head that is trained in epochs, by Adam.

    Attributes:
        seed: Of its initialisation and dropout.
        learning_rate: Adam's.
        weight_decay: Adam's L2 penalty.
    """

    seed: int = setting(0, check=whole(0, LARGEST_SEED))
    learning_rate: float = setting(2e-4, check=positive, words="learning rate {:g}", always=True)
    weight_decay: float = setting(0.01, check=non_negative, words="weight decay {:g}", always=True)

    @property
    @override
    def description(self) -> str:
        return f"{self.name} seed {self.seed} (learning rate {self.learning_rate:g})"
