"""What a label is: targets, loss, decisions, metrics, and matching the labels of two data sets.

In: labels and logits. Out: targets and loss, predictions, and what metrics are computed from. Each
kind of task is one object; no other code asks whether a text has one label or several. A new kind
(regression, say) is a new file here and a line in TASKS; data sets and caches name it (`task`).
"""

from __future__ import annotations

from collections.abc import Iterable

from spacelite.errors import SpaceliteError
from spacelite.metrics.scores import Metric, Scores
from spacelite.settings import choose_from
from spacelite.tasks.base import Task as Task
from spacelite.tasks.base import majority as majority
from spacelite.tasks.multi_label import MultiLabel
from spacelite.tasks.ordinal import Ordinal
from spacelite.tasks.regression import Regression
from spacelite.tasks.single_label import SingleLabel
from spacelite.types import Array

SINGLE_LABEL, MULTI_LABEL, REGRESSION = SingleLabel(), MultiLabel(), Regression()
ORDINAL = Ordinal()
TASKS: dict[str, Task] = {
    task.name: task for task in (SINGLE_LABEL, MULTI_LABEL, REGRESSION, ORDINAL)
}


def known_metrics() -> dict[str, Metric]:
    """The metrics of all tasks by name; a name means the same in all that have it."""
    return {name: metric for task in TASKS.values() for name, metric in task.metrics.items()}


def scored_by(metrics: Iterable[str]) -> Task:
    """The task that figures of these metrics are of."""
    names = {*metrics}
    of_all = [task for task in TASKS.values() if task.headline in names]
    return next((task for task in of_all if names == task.metrics.keys()), of_all[0])


def plain_loss(scores: Scores) -> float | None:
    """The loss without weights of classes and of other terms, of a head's metrics on a split."""
    names = [task.plain_loss for task in TASKS.values() if task.plain_loss in scores]
    return scores[names[0]] if names else None


def find_task(name: str | None, labels: Array) -> Task:
    """The task that a data set or cache names. Those that name none are classification, with one
    label per text (N,) or several (N, C)."""
    if name is None:
        return SINGLE_LABEL if labels.ndim == 1 else MULTI_LABEL
    if name not in TASKS:
        raise SpaceliteError(f"task={name}: {choose_from(name, TASKS)}")
    return TASKS[name]
