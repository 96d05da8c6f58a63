"""Thresholds for a wished precision, recall or accuracy: chosen on validation, measured on test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from spacelite.api.arguments import known_label
from spacelite.document import Line, Paragraph, Table, decimals
from spacelite.errors import SpaceliteError
from spacelite.metrics import thresholds
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.significance import of_proportion
from spacelite.metrics.thresholds import FEWEST, Cuts
from spacelite.reports.render import markup
from spacelite.runs.record import RunRecord
from spacelite.runs.store import Run
from spacelite.tasks import MULTI_LABEL
from spacelite.types import Array
from spacelite.visible import visible_name

METRICS = ("precision", "recall", "accuracy")


@dataclass(frozen=True, eq=False, repr=False)
class ChosenThresholds:
    """The thresholds with which a run reaches a wished precision, recall or accuracy on validation,
    and what they decide there and on test.

    Attributes:
        run: The run, whose record has no such thresholds.
        metric: `precision`, `recall` or `accuracy`.
        wish: What it should be, above 0 and at most 1.
        values: Label -> the probability above which it is given; None if the wish is not reached,
            in which case it is not given. Where texts are left without a label, there is one value,
            for the probability of the label that is predicted, under the name `any label`.
        decided: Split -> label -> what its value decides, `Cuts` of one threshold.
        coverage: Split -> the share of texts that have a label.
        record: The run's record with these thresholds in place of its own.
        min_probability: The probability below which texts are left without a label; None if none
            is.
    """

    run: Run
    metric: str
    wish: float
    values: dict[str, float | None]
    decided: dict[str, dict[str, Cuts]]
    coverage: dict[str, float]
    record: RunRecord
    min_probability: float | None

    @property
    def name(self) -> str:
        """The wish as it is given on the command line: `precision=0.9`."""
        return str(self.record.wish)

    def table(self) -> Table:
        """The table as it is printed."""
        headings, lines = ["Label", "Above", "Split", "Given to"], []
        for share in ("precision", "recall"):
            headings += [share.title(), *(["95% interval"] if share == self._share else [])]
        for label, value in self.values.items():
            first = [label, "none" if value is None else decimals(value, 4)]
            for split, of_labels in self.decided.items():
                lines.append(Line.of(*first, split, *self._cells(of_labels[label])))
                first = ["", ""]
        return Table(f"Thresholds for {self.name}", headings, lines, "thresholds")

    def _cells(self, cuts: Cuts) -> list[str]:
        figures = _figures(cuts)
        cells = [f"{figures['given']:,} of {figures['examples']:,}"]
        for share, of in (("precision", "given"), ("recall", "actual")):
            cells.append(decimals(figures[share], 4) if figures[of] else "–")
            if share == self._share:
                cells.append("{:.3f} to {:.3f}".format(*figures[f"{share}_interval"]))
        return cells

    @property
    def _share(self) -> str:
        """The share that is wished: the accuracy of the texts with a label is a precision."""
        return "recall" if self.metric == "recall" else "precision"

    @cached_property
    def notes(self) -> list[str]:
        """What the reader should know of the table, in sentences."""
        sentences = [
            "The thresholds were chosen on validation, whose figures are therefore optimistic"
            + (
                "; those on test are not."
                if "test" in self.decided
                else ", and there is no test split: expect less."
            )
        ]
        split = list(self.decided)[-1]
        if self.min_probability is not None or self.run.record.task is MULTI_LABEL:
            count = self.run.record.examples[split]
            sentences.append(
                f"{self.coverage[split]:.1%} of the {count:,} texts of {split} have a label."
            )
        short = {
            label: figures[self._share]
            for label, cuts in self.decided.get("test", {}).items()
            if (figures := _figures(cuts))[f"{self._share}_interval"][1] < self.wish
        }
        if short:
            which = ", ".join(
                f"{visible_name(label)} {decimals(value, 4)}" for label, value in short.items()
            )
            sentences.append(f"On test it falls short of the wish: {which}.")
        if missed := [label for label, value in self.values.items() if value is None]:
            sentences.append(
                f"Not reached by any threshold on {FEWEST} validation texts or more, and so not "
                f"given: {visible_name(', '.join(missed))}."
            )
        return sentences

    def as_json(self) -> dict[str, Any]:
        """The thresholds and what they decide as one JSON object."""
        return {
            "metric": self.metric,
            "wish": self.wish,
            "thresholds": self.values,
            "coverage": self.coverage,
            "splits": {
                split: {label: _figures(cuts) for label, cuts in of_labels.items()}
                for split, of_labels in self.decided.items()
            },
        }

    def __str__(self) -> str:
        return "\n".join([markup.Plain().columns(self.table()), "", *self.notes])

    def __repr__(self) -> str:
        above = ", ".join(
            f"{label} {'none' if value is None else decimals(value, 4)}"
            for label, value in self.values.items()
        )
        return visible_name(f"<thresholds for {self.name} of {self.run.id}: {above}>")

    def _repr_html_(self) -> str:
        return markup.fragment([self.table(), *map(Paragraph, self.notes)])


ANY = "any label"


def choose(run: Run, metric: str, wish: float, label: str | None = None) -> ChosenThresholds:
    """Choose a run's thresholds for a wished figure; `label` is which of two it is that of. Raises
    SpaceliteError if the run cannot have such a wish, or does not reach it."""
    record = run.record
    record.require_labels("threshold", f"{metric}={wish:g}")
    names, task = record.label_names, record.task
    decides = task.threshold_labels(names)
    if metric == "accuracy" and task is MULTI_LABEL:
        raise SpaceliteError(
            "accuracy: a text can have several labels here: give precision or recall"
        )
    if metric == "recall" and not decides:
        raise SpaceliteError(
            f"recall: with {len(names)} labels, leaving texts without a label can only lower it: "
            "give accuracy"
        )
    if label is not None and (len(decides) != 1 or metric == "accuracy"):
        raise SpaceliteError(
            f"label={label} chooses which of two labels precision or recall is that of: leave it "
            "out"
        )
    if metric == "accuracy":
        decides = []
    elif label is not None:
        decides = [known_label(label, names)]
    splits: dict[str, Predictions] = {
        split: part
        for split in ("validation", "test")
        if split in record.metrics and (part := run.predictions(split=split)) is not None
    }
    if "validation" not in splits:
        raise SpaceliteError(f"run {run.id} has no predictions for validation: train it again")
    cases = {split: _cases(part, names, decides) for split, part in splits.items()}
    share = "recall" if metric == "recall" else "precision"
    values = {
        name: thresholds.reaching(probabilities, has, share, wish)
        for name, (probabilities, has) in cases["validation"].items()
    }
    if all(value is None for value in values.values()):
        raise SpaceliteError(
            f"{metric}={wish:g} is not reached on the {record.examples['validation']:,} texts of "
            f"validation: {_best(cases['validation'], share)}"
        )
    decided = {
        split: {
            # Above 1 there is no probability: a label without a threshold is never given.
            name: Cuts.at(np.array([1.0 if values[name] is None else values[name]]), *case)
            for name, case in of_labels.items()
        }
        for split, of_labels in cases.items()
    }
    with_limits, minimum = _decides(record, values)
    coverage = {}
    for split, part in splits.items():
        given = task.given(part.probabilities, names, minimum, with_limits.decision_thresholds)
        coverage[split] = sum(map(bool, given)) / len(given)
    wished = replace(with_limits, wish=f"{metric}={wish:g}")
    return ChosenThresholds(run, metric, wish, values, decided, coverage, wished, minimum)


def _cases(
    part: Predictions, names: Sequence[str], decides: Sequence[str]
) -> dict[str, tuple[Array, Array]]:
    """The probabilities (N,) that thresholds cut, and which examples (N,) are correct above them:
    of each label that is decided on, else of the one that is predicted."""
    if not decides:
        return {ANY: (part.confidence, part.correct)}
    has = part.task.indicators(part.labels, len(names)) > 0
    numbers = [list(names).index(name) for name in decides]
    return {names[c]: (part.probabilities[:, c], has[:, c]) for c in numbers}


def _decides(record: RunRecord, values: dict[str, float | None]) -> tuple[RunRecord, float | None]:
    """The record with decision thresholds of these values, and the minimum probability."""
    if ANY in values and ANY not in record.label_names:
        return record, values[ANY]
    limits = {name: 1.0 if value is None else value for name, value in values.items()}
    (*_, last) = record.label_names
    if record.task is not MULTI_LABEL and last not in limits:
        (value,) = limits.values()  # of the first of two labels
        limits = {last: 1 - value}
    return replace(record, thresholds=limits), None


def _best(cases: dict[str, tuple[Array, Array]], share: str) -> str:
    """Why a wish is not reached."""
    if share == "recall":
        return f"fewer than {FEWEST} of them have the label"
    best = []
    for name, (probabilities, has) in cases.items():
        cuts = Cuts.at(thresholds.candidates(probabilities), probabilities, has)
        best += [(value, name) for value in cuts.precision[cuts.given >= FEWEST].tolist()]
    if not best:
        return f"they are fewer than {FEWEST}"
    return "the highest on {} texts or more is {:.4f} ({})".format(FEWEST, *max(best))


def _figures(cuts: Cuts) -> dict[str, Any]:
    """What one threshold decides, in numbers."""
    correct, given = int(cuts.correct[0]), int(cuts.given[0])
    return {
        "examples": cuts.examples,
        "actual": cuts.actual,
        "given": given,
        "correct": correct,
        "precision": float(cuts.precision[0]),
        "precision_interval": list(of_proportion(correct, given)),
        "recall": float(cuts.recall[0]),
        "recall_interval": list(of_proportion(correct, cuts.actual)),
    }


def from_text(run: Run, text: str) -> ChosenThresholds:
    """The thresholds of a run for a wish as text: `precision=0.9`, or `recall=0.95,label=spam`."""
    wish, _, rest = text.partition(",")
    metric, _, value = wish.partition("=")
    about, _, label = rest.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if metric not in METRICS or not 0 < number <= 1 or (rest and about != "label"):
        raise SpaceliteError(
            f"threshold={text}: give precision=0.9, recall=0.95 or accuracy=0.9, and for one of "
            "two labels precision=0.9,label=NAME",
            ["threshold"],
        )
    return choose(run, metric, number, label or None)
