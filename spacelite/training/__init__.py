"""Training. In: a cache and the configs of heads. Out: trained heads, their metrics and logits."""

from typing import TYPE_CHECKING

from spacelite.lazy import exports
from spacelite.training.config import FitConfig, TrainingConfig

if TYPE_CHECKING:
    from spacelite.training.loop import train
    from spacelite.training.trained import TrainedHead

__all__ = ["FitConfig", "TrainedHead", "TrainingConfig", "train"]

__getattr__ = exports(__name__, {"TrainedHead": "trained", "train": "loop"})
