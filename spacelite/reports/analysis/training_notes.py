"""What is said under a group's table where its systems were not trained long enough."""

from __future__ import annotations

from collections.abc import Sequence

from spacelite.reports.analysis.comparisons import Curve
from spacelite.reports.analysis.groups import Group
from spacelite.training import TrainingConfig, advice

REMEDY = "train again with epochs, batch size and learning rate set to auto"


def of_group(group: Group, curves: Sequence[Curve]) -> list[str]:
    """Notes under a group's table, by the rule that `train` follows. The rows of a sweep that
    validation did not choose do not count.

    Args:
        group: The group.
        curves: Its systems' metrics by epoch.
    """
    # Systems that are trained in epochs. Of those on top of others, few updates are enough.
    settings: dict[str, TrainingConfig] = {}
    on_top = 0
    for row, system in group.named:
        record = system.runs[0].record
        if not (
            row.chosen and system.transfers is None and isinstance(record.training, TrainingConfig)
        ):
            continue
        if record.head.start is None:
            settings[row.name] = record.training
        else:
            on_top += 1
    examples = group.section.examples["train"]
    updates = [advice.few_updates(examples, one) for one in settings.values()]
    few = [count for count in updates if count is not None]
    if few:
        of = len(settings) + on_top
        who = "The heads" if len(few) == of else f"{len(few)} of {of} systems"
        count = f"{min(few)}" if len(set(few)) == 1 else f"{min(few)} to {max(few)}"
        return [f"{who} had only {count} updates in training, too few for most data: {REMEDY}."]
    entropies = {
        curve.name: own[0]
        for curve in curves
        if curve.name in settings and (own := curve.splits["validation"].get("ce"))
    }
    if not entropies:
        return []
    best = min(entropies, key=lambda name: entropies[name][-1])
    epochs = settings[best].epochs
    fall = advice.still_falls(entropies[best], epochs)
    if fall is None:
        return []
    return [
        f"{best} still improves: over the last {advice.last_epochs(epochs)} of {epochs} epochs, "
        f"its cross-entropy on validation fell by {fall:.1%}. More epochs or a higher learning "
        f"rate may give better figures: {REMEDY}, or for more epochs."
    ]
