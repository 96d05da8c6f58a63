"""Where a weighted L_inter or L_intra exceeds the cross-entropy (CE) at the end of a training, and
which weight would be small enough.

A history has the loss and CE of each epoch. Their difference is inter L_inter + intra L_intra,
unless there are class weights, which are in the loss alone. L_inter is at most 2, as coordinates
lie between -1 and 1. L_intra is large where the coordinates of a text's tokens hardly vary.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spacelite.heads import HeadConfig
from spacelite.heads.config import LOSS_WEIGHTS
from spacelite.metrics.scores import Scores
from spacelite.tasks import plain_loss
from spacelite.training.config import FitConfig, TrainingConfig

LARGEST_INTER = 2.0
EITHER = "L_inter and L_intra"
SHARE = 0.1  # of CE that a term takes with the weight that is advised


@dataclass(frozen=True)
class Excess:
    """A weighted term of a head that exceeds its cross-entropy.

    Attributes:
        term: `L_intra`, `L_inter`, or EITHER if it may be one, the other, or both.
        times: How many times the cross-entropy it is; of EITHER, how many times both together are.
        is_least: Whether it is that many times at least: the other term is between 0 and its
            bound.
        weights: Setting -> the weight with which the term, or both together, would be a tenth of
            the cross-entropy as the coordinates are now.
    """

    term: str
    times: float
    is_least: bool
    weights: dict[str, float]


def excess(
    config: HeadConfig, training: FitConfig, seeds: Sequence[tuple[Sequence[Any], int | None]]
) -> Excess | None:
    """The term that exceeds the cross-entropy on validation, a mean over `seeds`: the history of
    each, and the epoch whose weights were kept (None: the last). None if there is no such term, if
    there are class weights, or if the history lacks the figures."""
    values = config.settings()
    inter, intra = (values.get(name) or 0.0 for name in LOSS_WEIGHTS)
    if not isinstance(training, TrainingConfig) or training.class_weights != "none":
        return None
    ends = [end for history, epoch in seeds if (end := _figures(history, epoch)) is not None]
    if not ends or not (inter or intra):
        return None
    loss, ce = (statistics.fmean(of) for of in zip(*ends, strict=True))
    both, other = loss - ce, LARGEST_INTER * inter if intra else 0.0
    if ce <= 0:
        return None
    factor = SHARE * ce / both if both > 0 else 1.0
    if both - other > ce:
        name, weight = ("intra", intra) if intra else ("inter", inter)
        return Excess(f"L_{name}", (both - other) / ce, other > 0, {name: weight * factor})
    if other and both > 2 * ce:  # one of them exceeds it, if not both
        weights = {"inter": inter * factor, "intra": intra * factor}
        return Excess(EITHER, both / ce, False, weights)
    return None


def _figures(history: Sequence[Any], epoch: int | None) -> tuple[float, float] | None:
    """Loss and CE on validation after an epoch, or after the last one."""
    entries = [entry for entry in history if epoch in (None, entry["epoch"])]
    scores: Scores = entries[-1].get("validation", {}) if entries else {}
    loss, ce = scores.get("loss"), plain_loss(scores)
    return None if loss is None or ce is None else (loss, ce)


def sentence(
    found: Sequence[tuple[str, Excess]], what: str, between: str, loss: str = "cross-entropy"
) -> str:
    """How large the terms of heads or systems (`what`) are, given with their names, beside the
    plain `loss`, and what to do; "" if there are none. `between` stands between a setting and its
    value."""
    clauses = []
    for term in dict.fromkeys(excess.term for _, excess in found):
        alike = [(name, excess) for name, excess in found if excess.term == term]
        clauses.append(_clause(alike, what, between, loss))
    return "; ".join(clauses)


def _clause(alike: Sequence[tuple[str, Excess]], what: str, between: str, loss: str) -> str:
    """The same of those with the same term."""
    found = [excess for _, excess in alike]
    who, whose = (alike[0][0], "its") if len(found) == 1 else (f"{len(found)} {what}", "their")
    term = found[0].term
    times = list(dict.fromkeys(map(_shown, sorted(excess.times for excess in found))))
    if any(excess.is_least for excess in found):
        words = f"at least {times[0]}"
    else:
        words = times[0] if len(times) == 1 else f"{times[0]} to {times[-1]}"
    # The smallest weights are small enough for all.
    smallest = {name: min(excess.weights[name] for excess in found) for name in found[0].weights}
    weights = [f"{name}{between}{float(f'{weight:.1g}'):g}" for name, weight in smallest.items()]
    verb, note, it = "is", "", "it"
    if term == EITHER:
        verb, note, it = "are together", " (only their sum is recorded)", "both together"
    return (
        f"the weighted {term} of {who} {verb} {words} times {whose} {loss} on validation at "
        f"the end of training{note}: train with {' and '.join(weights)}, with which {it} would be "
        f"about a tenth of {'CE' if loss == 'cross-entropy' else 'it'}"
    )


def _shown(times: float) -> str:
    return f"{times:.3g}" if times < 10 else f"{times:,.0f}"
