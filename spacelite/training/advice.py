"""What to do where heads were not trained long enough: said after a training, and in the report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spacelite.errors import SpaceliteError
from spacelite.training import plan
from spacelite.training.config import TrainingConfig

FEWEST_UPDATES = 300
LAST_EPOCHS = 1 / 5  # the share of the epochs over which the cross-entropy is compared
FALL = 0.01  # by which it may still fall over them
ARGUMENTS = ("epochs", "batch_size", "learning_rate")


def few_updates(examples: int, training: TrainingConfig) -> int | None:
    """The number of updates in all epochs if there are fewer than 300; None otherwise."""
    updates = training.epochs * plan.batches(examples, training.batch_size)
    return updates if updates < FEWEST_UPDATES else None


def last_epochs(epochs: int) -> int:
    """The number of epochs that are the last fifth."""
    return math.ceil(epochs * LAST_EPOCHS)


def still_falls(cross_entropy: Sequence[float | None], epochs: int) -> float | None:
    """By which share the cross-entropy on validation fell over the last fifth of the epochs, if by
    more than 1 %; None otherwise, and for a head that was stopped early.

    Args:
        cross_entropy: The cross-entropy on validation after each epoch.
        epochs: Number of epochs that were asked for.
    """
    if len(cross_entropy) < epochs or epochs < 2:
        return None
    last, earlier = cross_entropy[-1], cross_entropy[-1 - last_epochs(epochs)]
    if last is None or not earlier or 1 - last / earlier <= FALL:
        return None
    return 1 - last / earlier


def after_training(
    examples: int, training: TrainingConfig, heads: Sequence[tuple[float, Sequence[float | None]]]
) -> SpaceliteError | None:
    """What to say after a training. It is not raised: being an error, it can name options.

    Args:
        examples: Number of training examples.
        training: Settings that the heads share.
        heads: The learning rate of each head that is trained in epochs, and its cross-entropy on
            validation after each epoch.

    Returns:
        One sentence; None if the heads were trained long enough.
    """
    if not heads:
        return None
    updates = few_updates(examples, training)
    if updates is not None:
        per_epoch = plan.batches(examples, training.batch_size)
        return SpaceliteError(
            f"the heads had only {updates} updates ({_count(training.epochs, 'epoch')} of "
            f"{_count(per_epoch, 'batch')}), too few for most data: train with {_AUTO}, which "
            "choose by the number of training examples",
            ARGUMENTS,
        )
    known = [head for head in heads if head[1] and head[1][-1] is not None]
    if not known:
        return None
    rate, cross_entropy = min(known, key=lambda head: head[1][-1] or 0.0)
    fall = still_falls(cross_entropy, training.epochs)
    if fall is None:
        return None
    size = plan.good_batch_size(examples)
    as_auto = (
        training.batch_size <= size
        and training.epochs >= plan.good_epochs(examples, training.batch_size)
        and rate >= plan.LEARNING_RATE
    )
    longer = f"for more epochs, such as epochs={2 * training.epochs}"
    return SpaceliteError(
        f"the best head still improves: over the last {last_epochs(training.epochs)} of "
        f"{training.epochs} epochs, its cross-entropy on validation fell by {fall:.1%}. Train "
        + (longer if as_auto else f"with {_AUTO}, or {longer}"),
        ARGUMENTS,
    )


_AUTO = ", ".join(f"{name}={plan.AUTO!r}" for name in ARGUMENTS[:-1])
_AUTO += f" and {ARGUMENTS[-1]}={plan.AUTO!r}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "es" if what == "batch" else "s")
