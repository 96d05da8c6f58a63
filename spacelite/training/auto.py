"""What "auto" stands for: epochs, batch size and learning rate, chosen by the number of training
examples.

The paper's defaults are made for tens of thousands of examples: with a hundred they mean 15 updates
of the weights. The rule was found on validation data (docs/benchmarks.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spacelite import settings
from spacelite.errors import SpaceliteError
from spacelite.training.config import TrainingConfig

AUTO = "auto"
UPDATES = 600  # at least, over all epochs
LEARNING_RATE = 1e-3
BATCHES = 20  # per epoch
BATCH_SIZES = (16, 256)  # the smallest and the largest
EPOCHS = (15, 300)  # the fewest and the most


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


@dataclass(frozen=True)
class Resolved:
    """Settings of a training in which nothing is "auto" any more.

    Attributes:
        epochs: Number of epochs.
        batch_size: Examples per update.
        learning_rates: Learning rates.
        chosen: The settings that were "auto", with what was chosen.
    """

    epochs: int
    batch_size: int
    learning_rates: list[Any]
    chosen: dict[str, float]

    @property
    def sentence(self) -> str:
        """What was chosen, in words; "" if nothing was "auto"."""
        words = {
            "epochs": f"{self.epochs} epochs",
            "batch_size": f"batches of {self.batch_size}",
            "learning_rate": f"learning rate {LEARNING_RATE:g}",
        }
        return ", ".join(words[name] for name in self.chosen)


def resolve(
    examples: int, *, epochs: Any, batch_size: Any, learning_rates: Sequence[Any]
) -> Resolved:
    """Put numbers in place of "auto".

    Args:
        examples: Number of training examples.
        epochs: Number of epochs, or "auto".
        batch_size: Examples per update, or "auto".
        learning_rates: Learning rates, each a number or "auto".

    Raises:
        SpaceliteError: A value is another word than "auto", or the batch size is no whole number.
    """
    given = {"epochs": [epochs], "batch_size": [batch_size], "learning_rate": learning_rates}
    for name, values in given.items():
        for value in values:
            if isinstance(value, str) and value != AUTO:
                raise SpaceliteError(f"{name}={value!r}: give a number, or {AUTO!r}", [name])
    chosen: dict[str, float] = {}
    if isinstance(batch_size, str):
        batch_size = chosen["batch_size"] = good_batch_size(examples)
    if isinstance(epochs, str):
        settings.check(TrainingConfig(batch_size=batch_size))
        epochs = good_epochs(examples, batch_size)
        chosen = {"epochs": epochs, **chosen}
    if AUTO in learning_rates:
        chosen["learning_rate"] = LEARNING_RATE
    rates = [LEARNING_RATE if rate == AUTO else rate for rate in learning_rates]
    return Resolved(epochs, batch_size, list(dict.fromkeys(rates)), chosen)
