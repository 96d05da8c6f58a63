"""Runs -> the findings of a report, whatever its form."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spacelite.cache import folder as caches
from spacelite.cache import store, texts
from spacelite.cache.split import DamagedCacheError
from spacelite.errors import SpaceliteError
from spacelite.heads.config import LOSS_WEIGHTS
from spacelite.metrics import rationales
from spacelite.metrics.rationales import Rationales
from spacelite.reports.analysis.comparisons import Analysis, EpochCurve, analyse
from spacelite.reports.analysis.examples import WordsAndMistakes, words_and_mistakes
from spacelite.reports.analysis.groups import (
    Group,
    Section,
    SeedRuns,
    bold_note,
    compared,
    grouped,
    select,
    undefined_note,
)
from spacelite.reports.analysis.published import published_sections
from spacelite.runs.record import RunRecord
from spacelite.runs.store import Run, find_cache
from spacelite.settings import one_of, optional, require
from spacelite.studies import answers
from spacelite.studies.answers import Answer
from spacelite.training import loss_terms, plan
from spacelite.training.config import TrainingConfig

log = logging.getLogger(__name__)

SPLITS = ("train", "validation")  # that a report can show beside its own
REMEDY = "train again with epochs, batch size and learning rate set to auto"


@dataclass(frozen=True)
class GroupFindings:
    """A group of systems: its table, its analysis, its words and mistakes (None if they are not
    wanted or not available), the answers to questions about its cache, and how the systems'
    explanations do against marked words."""

    section: Section
    analysis: Analysis
    examples: WordsAndMistakes | None
    answers: list[Answer] = field(default_factory=list)
    rationales: dict[str, Rationales] = field(default_factory=dict)


@dataclass(frozen=True)
class Findings:
    """The published tables with the measured figures, and every group of runs. `also` names another
    split whose figures the tables show."""

    published: list[Section]
    parts: list[GroupFindings]
    also: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The findings as JSON data: dictionaries, lists, strings and numbers."""
        return asdict(self)


def build(
    cache_dir: Path,
    runs: Sequence[Run],
    *,
    with_examples: bool = True,
    backbone: str | None = None,
    cache: str | None = None,
    dataset: str | None = None,
    head: Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
    compare: Sequence[str] = (),
    split: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Findings:
    """Analyse the runs that fit the conditions (as in `select`), or only the systems that `compare`
    names (as in `compared`), without the published tables then.

    Words and mistakes need the caches' hidden states, and the folder of a local `backbone`. Tables
    also show the figures of `split`.
    """
    require("split", split, optional(one_of(*SPLITS)))
    runs = select(runs, cache=cache, dataset=dataset, head=head, where=where)
    groups = compared(runs, compare) if compare else grouped(runs)
    parts = []
    with_answers: set[str] = set()  # the caches whose answers are there already
    for number, group in enumerate(groups):
        on_progress(number, len(groups))
        analysis = analyse(cache_dir, group)
        notes = [
            *group.section.notes,
            *data_notes(cache_dir, group),
            *training_notes(group, analysis.curves),
            *loss_note(group),
            *(
                note
                for row, system in group.named
                for note in start_note(row.system, [run.record for run in system.runs])
            ),
            *bold_note(group.section.rows),
            *undefined_note(group.section.rows),
        ]
        section = replace(group.section, notes=notes)
        examples = words_and_mistakes(cache_dir, group, backbone) if with_examples else None
        known: list[Answer] = []
        for name, system in group.caches.items():
            key = system.record.cache_key
            if not (compare or system.transfers or key in with_answers):
                with_answers.add(key)
                known += [
                    answer
                    for answer in answers.of_cache(cache_dir, name, key)
                    if with_examples or answer.kind != "audit"  # which shows texts
                ]
        parts.append(GroupFindings(section, analysis, examples, known, against_people(group)))
    on_progress(len(groups), len(groups))
    return Findings([] if compare else published_sections(groups), parts, split)


def against_people(group: Group) -> dict[str, Rationales]:
    """By system, how its explanations do against the words that people marked, for those that were
    compared with them: means over the seeds for which the same was measured."""
    means = {}
    for row, system in group.named:
        found = [of.rationales for of in system.transfers or [] if of.rationales is not None]
        alike = [of for of in found if of.measured == found[0].measured]
        if alike:
            means[row.system] = rationales.mean(alike)
    return means


def data_notes(cache_dir: Path, group: Group) -> list[str]:
    """Notes on what a group's data mean for its figures: the majority baseline, texts that occur
    twice, unknown tokens, reduced hidden states. They need the labels and token ids in its caches:
    without these there are no notes. What is not the same for all caches names its own."""
    notes: dict[str, list[str]] = {}
    for name, system in group.caches.items():
        for note in _data_notes(cache_dir, group.section.split, system):
            notes.setdefault(note, []).append(name)
    return [
        note if len(names) == len(group.caches) else f"{', '.join(names)}: {note}"
        for note, names in notes.items()
    ]


def _data_notes(cache_dir: Path, split: str, system: SeedRuns) -> list[str]:
    """The notes on the data of a system's cache, and of the data set that it was evaluated on."""
    run, transfers = system.runs[0], system.transfers
    record = run.record
    try:
        with _checked(find_cache(run, cache_dir)) as cache:
            if transfers is None:
                copies = texts.duplicates_of(cache)
                baseline = majority_note(cache, split)
                clauses = [copies.leaked, copies.contradicted, _unknown(cache), _reduced(cache)]
            else:
                split, data = transfers[0].split, transfers[0].dataset
                path = caches.find(cache_dir, transfers[0].cache, exact=True)
                with _checked(path, transfers[0].cache_key) as other:
                    # Of the other data set's splits only this one counts.
                    seen = texts.overlap(cache, other, split).sentence(data, "the runs")
                    # In the run's numbering.
                    names = record.label_names
                    of = [transfers[0].labels.get(name) for name in other.label_names]
                    numbers = [-1 if name is None else names.index(name) for name in of]
                    _, labels = record.task.renumbered(
                        other.splits[split].labels, np.array(numbers), len(names)
                    )
                    most = record.task.simple_baseline(cache.splits["train"].labels, labels, names)
                    baseline = f"{most} on {split} of {data}."
                    clauses = [seen, _unknown(other, split), _reduced(other)]
    except DamagedCacheError as error:
        log.warning("%s", error)
        return []
    except (SpaceliteError, KeyError, ValueError):
        return []  # why words and mistakes are missing is said elsewhere
    return [baseline, *(f"{clause[0].upper()}{clause[1:]}." for clause in clauses if clause)]


def majority_note(cache: store.Cache, split: str) -> str:
    """What one prediction for all texts achieves on a split of a cache."""
    training, labels = cache.splits["train"].labels, cache.splits[split].labels
    return f"{cache.task.simple_baseline(training, labels, cache.label_names)} on {split}."


@contextmanager
def _checked(path: Path, key: str | None = None) -> Iterator[store.Cache]:
    """A cache, of this key if one is given, with whole labels and token ids."""
    with store.Cache(path) as cache:
        if key not in (None, cache.key):
            raise SpaceliteError(f"cache {cache.name} is not the one that the run was evaluated on")
        cache.check_index()
        yield cache


def _unknown(cache: store.Cache, split: str | None = None) -> str:
    """Where many tokens of a cache, or of one of its splits, are unknown to the backbone."""
    counts = texts.read_unknown(cache.path).splits
    chosen = {name: of_split for name, of_split in counts.items() if split in (None, name)}
    return texts.UnknownTokens(chosen).sentence


def _reduced(cache: store.Cache) -> str:
    """What the hidden states of a cache are reduced to, if they are."""
    reduction = cache.reduction
    return "" if reduction is None else f"hidden states are reduced to {reduction.words}"


def start_note(name: str, runs: Sequence[RunRecord]) -> list[str]:
    """A note if what is trained in epochs did not help in some of a system's runs: no epoch was
    better than the start."""
    starts = [run.head.start for run in runs if run.is_start]
    if not starts or starts[0] is None:
        return []
    of = f" in {len(starts)} of {len(runs)} runs" if len(starts) < len(runs) else ""
    return [
        f"{name}: training in epochs did not help{of}: on validation no epoch was better than "
        f"{starts[0].system} alone, which was kept."
    ]


def training_notes(group: Group, curves: Sequence[EpochCurve]) -> list[str]:
    """A note under a group's table if its systems were not trained long enough, by the rule that
    `train` follows."""
    trained: dict[str, tuple[RunRecord, TrainingConfig]] = {}
    for row, system in group.named:
        training = system.record.training
        if system.transfers is None and isinstance(training, TrainingConfig):
            trained[row.system] = system.record, training
    # On top of others, few updates are enough.
    alone = {name: of for name, of in trained.items() if of[0].head.start is None}
    counts = [plan.few_updates(of.examples["train"], how) for of, how in alone.values()]
    few = [count for count in counts if count is not None]
    if few:
        every = len(few) == len(trained)
        who = "The heads" if every else f"{len(few)} of the {len(group.systems)} systems"
        count_words = f"{min(few)}" if len(set(few)) == 1 else f"{min(few)} to {max(few)}"
        updates = f"{count_words} update" + ("" if max(few) == 1 else "s")
        return [f"{who} had only {updates} in training, too few for most data: {REMEDY}."]
    plain = group.systems[0].record.task.plain_loss
    entropies = {
        curve.name: curve.splits["validation"][plain][0]
        for curve in curves
        if curve.name in alone and plain in curve.splits["validation"]
    }
    if not entropies:
        return []
    best = min(entropies, key=lambda name: entropies[name][-1])
    record, training = alone[best]
    examples, epochs = record.examples["train"], training.epochs
    fall = plan.still_falls(entropies[best], epochs)
    if fall is None:
        return []
    as_auto = plan.is_as_auto(examples, training, record.settings["learning_rate"])
    remedy = "train again" if as_auto else f"{REMEDY}, or"
    may = "More epochs" if as_auto else "More epochs or a higher learning rate"
    return [
        f"{best} still improves: over the last {plan.last_epochs(epochs)} of {epochs} epochs, "
        f"its {record.task.loss_in_words} on validation fell by {fall:.1%}. {may} may give better "
        f"figures: "
        f"{remedy} for more epochs, such as {2 * epochs}."
    ]


def loss_note(group: Group) -> list[str]:
    """A note if a weighted term of the loss exceeds the cross-entropy of some systems at the end of
    training, which `train` says too."""
    large = []
    for row, system in group.named:
        head, training = system.record.head, system.record.training
        if system.transfers is not None or not any(map(head.settings().get, LOSS_WEIGHTS)):
            continue  # without reading histories
        kept = [run.record.best_epoch for run in system.runs]
        seeds = list(zip(system.histories, kept, strict=True))
        if found := loss_terms.excess(head, training, seeds):
            large.append((row.system, found))
    loss = group.systems[0].record.task.loss_in_words
    said = loss_terms.sentence(large, "systems", " ", loss)
    return [f"{said[0].upper()}{said[1:]}."] if said else []
