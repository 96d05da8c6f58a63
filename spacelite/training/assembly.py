"""The heads that are wanted, from what was trained for them: the members of an ensemble, a part on
top of a start, or the head itself."""

from __future__ import annotations

from collections.abc import Mapping

from spacelite import heads
from spacelite.heads import HeadConfig
from spacelite.training.fits import Fits
from spacelite.training.trained import TrainedHead, mean_history


def assembled(
    config: HeadConfig, trained: Mapping[HeadConfig, TrainedHead], fits: Fits, seconds: float
) -> TrainedHead:
    """A head that is wanted.

    Args:
        config: Its config.
        trained: What was trained in epochs, by config.
        fits: Fits the head or its start, unless that has been done.
        seconds: How long the epochs took.
    """
    if not config.is_iterative:
        fitted = fits.of(config)
        return TrainedHead(
            config,
            fitted.parameters,
            cross_validated=fitted.cross_validated,
            seconds=fits.seconds[config],
        )
    members = [trained[member] for member in config.members]
    first, alone, kind = members[0], len(members) == 1, heads.kind(config.kind)
    whole = TrainedHead(
        config,
        history=first.history if alone else mean_history([one.history for one in members]),
        best_epoch=first.best_epoch if alone else None,
        stopped=next((one.stopped for one in members if one.stopped is not None), None),
        dropped=next((one.dropped for one in members if one.dropped is not None), None),
        seconds=seconds,
    )
    start = None
    if config.start is not None:
        start = fits.of(config.start)
        whole.cross_validated = start.cross_validated
        whole.seconds += fits.seconds[config.start]
    if whole.kept:
        own = first.parameters
        if not alone:
            own = kind.in_training().merged([one.parameters for one in members])
        whole.parameters = kind.joined(config, own, start.parameters if start else None)
    return whole
