"""The configs of heads: the settings of one head, not those that heads trained together share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from typing_extensions import override

from spacelite.settings import LARGEST_SEED, Config, non_negative, positive, setting, whole_number


@dataclass(frozen=True, kw_only=True)
class HeadConfig(Config):
    """The settings of one head. Each kind of head has its own config, in its own file.

    Attributes:
        kind: Name of the kind of head.
        is_baseline: Whether reports compare other heads with it, as the simple thing to beat.
    """

    ALWAYS_HASHED = ("seed", "learning_rate", "weight_decay", "latent", "inter", "intra", "pooling")

    kind: ClassVar[str]
    is_baseline: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Name in tables, without seed and loss weights: `space L=128`, `linear (first)`."""
        return self.kind

    @property
    def description(self) -> str:
        """Name in messages, with everything that distinguishes heads trained together."""
        return self.name

    @property
    def poolings(self) -> tuple[str, ...]:
        """The poolings whose vectors the head reads."""
        return ()

    @property
    def reads_only_ids(self) -> bool:
        """Whether the head reads token ids alone, for a kind that may read hidden states too."""
        return False

    @property
    def reads_layers(self) -> bool:
        """Whether the head reads the means of all layers, besides or instead of hidden states."""
        return False

    def input_width(self, width: int, layers: int) -> int:
        """The width of what the head reads.

        Args:
            width: d, the hidden width.
            layers: Number of layers, the embedding layer included; used if `reads_layers`.
        """
        return layers * width if self.reads_layers else width


@dataclass(frozen=True, kw_only=True)
class TrainedHeadConfig(HeadConfig):
    """A head that is trained in epochs, with Adam.

    Attributes:
        seed: Seed of the initialisation and of dropout.
        learning_rate: Learning rate of Adam.
        weight_decay: L2 penalty of Adam.
    """

    seed: int = setting(0, check=whole_number(0, LARGEST_SEED))
    learning_rate: float = setting(
        2e-4, check=positive, words="learning rate {:g}", always=True, tuned=True
    )
    weight_decay: float = setting(
        0.01, check=non_negative, words="weight decay {:g}", always=True, tuned=True
    )

    @property
    @override
    def description(self) -> str:
        return f"{self.name} seed {self.seed} (learning rate {self.learning_rate:g})"
