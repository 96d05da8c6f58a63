"""Lists of trained runs, as `train` and `load_runs` return them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, overload

from spacelite.api.arguments import NAME, checked
from spacelite.document import Table
from spacelite.errors import SpaceliteError
from spacelite.metrics.scores import METRICS
from spacelite.metrics.thresholds import OPTIMISTIC
from spacelite.reports.document.tables import runs_table, short_id
from spacelite.reports.render import fragment, plain
from spacelite.runs import figure

if TYPE_CHECKING:
    from spacelite.api.runs import TrainedRun

MOST_KINDS = 4  # of heads, in the short form of runs
MOST_THRESHOLDS = 8  # runs whose decision thresholds are said


class Runs(Sequence["TrainedRun"]):
    """Runs, as `train` returns them: a sequence that prints as a table.

    Attributes:
        stopped: Descriptions of the heads that diverged and were not saved.
        baseline: What always predicting the most frequent training label achieves, in words; ""
            for runs that were not just trained.
        before: Number of baselines, the last of the runs, that an earlier training has fitted.
        search: What a search chose, and from what, in words; "" if there was none.
    """

    def __init__(
        self,
        runs: Sequence[TrainedRun] = (),
        stopped: Sequence[str] = (),
        baseline: str = "",
        before: int = 0,
        search: str = "",
    ) -> None:
        self._runs, self.stopped, self.baseline = list(runs), list(stopped), baseline
        self.before, self.search = before, search

    @overload
    def __getitem__(self, index: int) -> TrainedRun: ...
    @overload
    def __getitem__(self, index: slice) -> Runs: ...
    def __getitem__(self, index: int | slice) -> TrainedRun | Runs:
        if isinstance(index, slice):
            return Runs(self._runs[index], baseline=self.baseline)
        return self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[TrainedRun]:
        return iter(self._runs)

    def __add__(self, other: Runs | list[TrainedRun]) -> Runs:
        if not isinstance(other, Runs | list):
            return NotImplemented
        more = other if isinstance(other, Runs) else Runs(other)
        baseline = self.baseline if self.baseline == more.baseline else ""
        return Runs([*self, *more], [*self.stopped, *more.stopped], baseline)

    def __radd__(self, other: list[TrainedRun]) -> Runs:
        return Runs(other) + self if isinstance(other, list) else NotImplemented

    @property
    def thresholds(self) -> str:
        """The decision thresholds that were chosen on validation, in words; "" if there are none:
        those of each run, where labels have one each from the lowest to the highest."""
        chosen = [run.record for run in self if run.record.thresholds]
        metrics = dict.fromkeys(record.training.threshold or "" for record in chosen)
        if not chosen:
            return ""
        said = [
            f"{record.name or short_id(record.id)} {_span(record.thresholds.values())}"
            for record in chosen[:MOST_THRESHOLDS]
        ]
        names = " and ".join(METRICS[metric].in_words for metric in metrics)
        more = ", ..." if chosen[MOST_THRESHOLDS:] else ""
        return (
            f"Decision thresholds, chosen on validation for {names}: {', '.join(said)}{more}; "
            f"{OPTIMISTIC}."
        )

    @checked(metric=replace(NAME, needed="give the name of a metric"))
    def best(self, metric: str = "f1_macro") -> TrainedRun:
        """The run with the best value of a metric on the validation split.

        Args:
            metric: Name of the metric, one of METRICS.

        Raises:
            SpaceliteError: There is no such metric, or no run.
        """
        if metric not in METRICS:
            raise SpaceliteError(f"metric={metric}: choose from {', '.join(METRICS)}", ["metric"])
        values = [(figure(run.metrics.get("validation", {}), metric), run) for run in self._runs]
        known = [(value, run) for value, run in values if value is not None]
        if not self._runs:
            raise SpaceliteError("there is no run to choose from: this list of runs is empty")
        if not known:
            raise SpaceliteError(
                f"no run has a {metric} on the validation split: choose another metric", ["metric"]
            )
        choose = max if METRICS[metric].higher_is_better else min
        return choose(known, key=lambda pair: pair[0])[1]

    def table(self) -> Table:
        """The table as it is printed."""
        return runs_table([run.run for run in self._runs])

    def __str__(self) -> str:
        return plain.table(self.table()) if self._runs else "no runs"

    def __repr__(self) -> str:
        kinds = list(dict.fromkeys(run.record.system for run in self))
        shown = ", ".join(kinds[:MOST_KINDS]) + (", ..." if kinds[MOST_KINDS:] else "")
        return f"<{len(self)} run{'' if len(self) == 1 else 's'}{shown and f': {shown}'}>"

    def _repr_html_(self) -> str:
        return fragment.table(self.table()) if self._runs else "no runs"


def _span(thresholds: Collection[float]) -> str:
    low, high = f"{min(thresholds):.4f}", f"{max(thresholds):.4f}"
    return low if low == high else f"{low} to {high}"
