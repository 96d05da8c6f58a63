"""A search in one training: of many combinations of settings the worse half is dropped after some
epochs, again and again, and validation chooses among those that are left.

Successive halving (Jamieson & Talwalkar 2016, arXiv:1502.07943). Heads do not influence each other,
so the chosen one is the same as if it had been trained alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from spacelite.errors import SpaceliteError
from spacelite.heads.config import HeadConfig
from spacelite.metrics.scores import Scores
from spacelite.tasks import known_metrics, plain_loss
from spacelite.training.config import TrainingConfig
from spacelite.training.loop import TrainedHead, best_entry, monitored

log = logging.getLogger(__name__)

PARTS = (8, 4, 2)  # candidates are compared after an eighth, a quarter and a half of the epochs

DIGITS = 9  # to which figures are compared: the rest is rounding

Candidate = tuple[HeadConfig, ...]  # the heads of one combination of settings, one for each seed
Results = Mapping[HeadConfig, TrainedHead]


def rungs(epochs: int) -> list[int]:
    """The epochs after which candidates are compared, rounded up, before the last one: 2, 4 and 8
    of 15."""
    return sorted({math.ceil(epochs / part) for part in PARTS} - {epochs})


@dataclass(frozen=True)
class Search:
    """The candidates of a search, in the order of the grid."""

    candidates: tuple[Candidate, ...]

    @classmethod
    def of(cls, configs: Iterable[HeadConfig]) -> Search:
        """The search among heads; those that differ only in their seed are one candidate. Raises
        SpaceliteError if there are not several."""
        alike: dict[HeadConfig, list[HeadConfig]] = {}
        for config in configs:
            alike.setdefault(config.with_seed(0), []).append(config)
        if len(alike) < 2:
            raise SpaceliteError(
                "search=True: these settings make a single combination, and a search chooses among "
                "several: give several values of a setting, or several kinds of heads",
                ["search"],
            )
        return cls(tuple(map(tuple, alike.values())))

    @property
    def heads(self) -> list[HeadConfig]:
        """The heads of all candidates."""
        return [head for candidate in self.candidates for head in candidate]

    def settings(self) -> dict[str, list[Any]]:
        """The settings in which candidates differ, each with the values that were tried; `head`
        for kinds of heads."""
        values: dict[str, dict[Any, None]] = {}
        for first, *_ in self.candidates:
            for name, value in {"head": first.kind, **first.settings()}.items():
                if value is not None:  # it has an effect
                    values.setdefault(name, {})[value] = None
        return {
            name: list(tried) for name, tried in values.items() if len(tried) > 1 and name != "seed"
        }

    def after_epoch(self, epoch: int, results: Results, training: TrainingConfig) -> None:
        """Mark as dropped the worse half of the candidates that train in epochs, if this epoch is
        one of the `rungs`, and whatever is left of candidates of which a seed diverged. The
        `results` of an ensemble are those of its members."""
        # An ensemble is compared by the mean over its members, as a head by that over its seeds.
        members = {
            candidate: [results[member] for head in candidate for member in head.members]
            for candidate in self.candidates
            if candidate[0].is_iterative
        }
        for of_candidate in members.values():
            if any(result.stopped is not None for result in of_candidate):
                _drop(of_candidate, epoch)
        # Of every epoch, so that a metric without a value is refused after the first.
        figures = {
            candidate: _figure([_so_far(result, training) for result in of_candidate], training)
            for candidate, of_candidate in members.items()
            if all(result.kept for result in of_candidate)
        }
        if epoch not in rungs(training.epochs) or len(figures) < 2:
            return
        # Sorting keeps the order of equal ones: the first in the grid goes on.
        ranked = sorted(
            figures, key=lambda candidate: _better(figures[candidate], training), reverse=True
        )
        direct = len(self.candidates) - len(members)
        others = f", beside {direct} that are fitted directly" if direct else ""
        half = math.ceil(len(ranked) / 2)
        going_on = {id(result) for candidate in ranked[:half] for result in members[candidate]}
        for candidate in ranked[half:]:
            # A member that another candidate has too goes on for it.
            _drop([result for result in members[candidate] if id(result) not in going_on], epoch)
        log.info(
            "search: %s of %s combinations go on after epoch %s of %s%s; their %s on validation is "
            "%.4f or better, that of the best one dropped %.4f",
            half, len(ranked), epoch, training.epochs, others,
            known_metrics()[training.monitor].in_words, figures[ranked[half - 1]][0],
            figures[ranked[half]][0],
        )  # fmt: skip

    def choose(self, results: Results, training: TrainingConfig) -> None:
        """Mark all candidates as dropped but the best one on validation; of equal ones that with
        the lowest cross-entropy, or the first. If none has come through, those that diverged stay
        marked as just that."""
        figures = {
            candidate: self._figure(candidate, results, training)
            for candidate in self.candidates
            if all(results[head].kept for head in candidate)
        }
        if not figures:
            return
        best = max(figures, key=lambda candidate: _better(figures[candidate], training))
        for candidate in self.candidates:
            if candidate is not best:
                _drop([results[head] for head in candidate], training.epochs, also_stopped=True)

    def chosen(self, results: Results) -> Candidate:
        """The heads of the candidate that was chosen; none if all diverged."""
        return tuple(head for head in self.heads if results[head].dropped is None)

    def figure(self, candidate: Candidate, results: Results, training: TrainingConfig) -> float:
        """The figure by which a trained candidate was compared: the monitored metric on validation,
        the mean over its seeds."""
        return self._figure(candidate, results, training)[0]

    def _figure(
        self, candidate: Candidate, results: Results, training: TrainingConfig
    ) -> tuple[float, float]:
        return _figure([results[head].metrics["validation"] for head in candidate], training)

    def ties(self, results: Results, training: TrainingConfig) -> int:
        """The number of candidates that were trained to the end and have the same figure as the
        chosen one."""
        chosen = self.chosen(results)
        to_the_end = [
            round(self.figure(candidate, results, training), DIGITS)
            for candidate in self.candidates
            if all("validation" in results[head].metrics for head in candidate)
            and all(results[head].stopped is None for head in candidate)
        ]
        return to_the_end.count(round(self.figure(chosen, results, training), DIGITS)) - 1

    def trained_share(self, results: Results, training: TrainingConfig) -> float | None:
        """The share of the epochs of all heads that were trained; None if there are no epochs."""
        counts = [
            sum(entry["epoch"] > 0 for entry in results[head].history)
            for head in self.heads
            if head.is_iterative
        ]
        return sum(counts) / (len(counts) * training.epochs) if counts else None


def _drop(results: Sequence[TrainedHead], epoch: int, *, also_stopped: bool = False) -> None:
    for result in results:
        if result.dropped is None and (also_stopped or result.stopped is None):
            result.drop(epoch)


def _so_far(result: TrainedHead, training: TrainingConfig) -> Scores:
    """The metrics on validation, with the weights that a head has or, with patience, those of its
    best epoch."""
    entry = result.history[-1]
    if training.patience is not None:
        entry = best_entry(result.history, training.monitor)
    scores: Scores = entry["validation"]
    return scores


def _figure(of_heads: Sequence[Scores], training: TrainingConfig) -> tuple[float, float]:
    """The monitored metric and the cross-entropy on validation, means over heads."""
    losses = [math.inf if (loss := plain_loss(scores)) is None else loss for scores in of_heads]
    return fmean(monitored(scores, training.monitor) for scores in of_heads), fmean(losses)


def _better(figure: tuple[float, float], training: TrainingConfig) -> tuple[float, float]:
    """Numbers that are the higher, the better a figure is; of equal metrics the cross-entropy
    decides."""
    metric, entropy = (round(value, DIGITS) for value in figure)
    return metric if known_metrics()[training.monitor].higher_is_better else -metric, -entropy
