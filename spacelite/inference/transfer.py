"""Zero-shot transfer: a run's head on another data set, through the same frozen backbone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from spacelite.cache import texts
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.heads.base import Objective
from spacelite.inference.prediction import require_kind
from spacelite.metrics.predictions import Predictions
from spacelite.metrics.scores import Scores
from spacelite.runs.record import TransferRecord
from spacelite.runs.store import Run, find_cache
from spacelite.tasks import Task
from spacelite.tasks.base import same_name
from spacelite.training import engine
from spacelite.training.batches import TokenSplit, input_width
from spacelite.training.loop import OnProgress, Progress
from spacelite.training.memory import resident_budget
from spacelite.types import Array
from spacelite.visible import as_meant

log = logging.getLogger(__name__)

# Settings that must match, since a head only works on hidden states of the same kind.
SAME = ("backbone_version", "tokenizer_hash", "layer", "padding")


def evaluate(
    run: Run,
    cache: Cache,
    mapping: dict[str, str] | Sequence[str] | None = None,
    *,
    device: str = "cpu",
    on_progress: OnProgress = lambda done, total: None,
) -> tuple[TransferRecord, dict[str, Predictions]]:
    """Evaluate a run's head on all splits of a complete cache: the record, and the predictions of
    all splits except train. A warning says which examples the run was trained on.

    `mapping` gives the run's label name for each of the cache's, "" to leave out its examples, or
    pairs as in `parse_mapping`; by default labels are matched by name, or, which a warning says, by
    number if one side has only numbers for names.
    """
    cache.require_complete()
    cache.check_index()
    _check_hidden_states(run, cache)
    _check_reduction(run, cache)
    record = run.record
    names, task, limits = record.label_names, record.task, record.decision_thresholds
    numbers = label_numbers(run, cache.spec.dataset, cache.label_names, cache.task, mapping)
    if not mapping:
        _log_match(cache.label_names, [names[number] for number in numbers])
    objective = Objective(task, len(names))
    width = input_width(run.head, cache)
    if run.width != width and not run.head.reads_only_ids:
        raise SpaceliteError(
            f"run {run.id} was trained on hidden states of width {run.width}, cache {cache.name} "
            f"has width {width}: embed the data set with the run's backbone"
        )
    own = cache.spec.dataset_hash == record.spec.dataset_hash
    if own:
        log.warning(
            "%s is the data set that run %s was trained on: this is not a transfer, and its train "
            "split was seen in training",
            cache.spec.dataset, run.id,
        )  # fmt: skip
    parameters = {name: torch.from_numpy(value) for name, value in run.parameters.items()}
    stacks = engine.stacked({run.head: parameters}, objective, device)
    progress, scores, predictions = Progress(on_progress, cache.tokens), {}, {}
    kept: dict[str, Array] = {}  # the examples of each split whose labels the run has
    examples = np.zeros(len(names), np.int64)  # by label
    outside: list[float] = []  # labels that are not on the scale of the run's
    with engine.workers(device) as workers:
        for name in cache.splits:
            split = TokenSplit(cache.splits[name], name, device, resident_budget(device))
            stored = split.labels.cpu().numpy()
            rows, mapped = task.renumbered(stored, numbers, len(names))
            kept[name] = rows
            if not len(rows):
                continue
            every = np.zeros((len(stored), *mapped.shape[1:]), task.label_type)
            every[rows] = mapped
            split.labels = torch.from_numpy(every).to(device)
            examples += task.label_counts(mapped, len(names))
            if task.scale is not None:
                outside += mapped[np.clip(mapped, *task.scale) != mapped].tolist()
            evaluated = engine.evaluate(split, stacks, objective, workers, progress)[run.head]
            logits = evaluated.logits.numpy()[rows]
            part = Predictions(rows, mapped, logits, task, thresholds=limits)
            if len(rows) < len(stored):
                scores[name] = _scores_of(part)
            else:
                decided = engine.decided(evaluated, mapped, task, limits).scores
                scores[name] = _without_absent(decided, part)
            if name != "train":
                origin, places = (
                    None if known is None else known[rows]
                    for known in texts.files_and_rows(cache, name)
                )
                predictions[name] = replace(part, files=origin, rows=places)
            del split  # before the next one is read
    left_out = sum(len(split) - len(kept[name]) for name, split in cache.splits.items())
    if not scores:
        raise SpaceliteError(
            f"labels: no text of {cache.spec.dataset} is left: map a label to one of the run's",
            ["labels"],
        )
    if left_out:
        gone = [
            label for label, number in zip(cache.label_names, numbers, strict=True) if number < 0
        ]
        log.info(
            "%s texts of %s with the label %s are left out",
            f"{left_out:,}", cache.spec.dataset, " or ".join(map(repr, gone)),
        )  # fmt: skip
    if outside and task.scale is not None:
        log.warning(
            "%s: %s of %s labels, such as %g, are outside the scale that run %s was trained on, %g "
            "to %g: it never predicts them",
            cache.spec.dataset, f"{len(outside):,}", f"{examples.sum():,}", outside[0], run.id,
            *task.scale,
        )  # fmt: skip
    missing = [name for name, count in zip(names, examples, strict=True) if not count]
    if missing:
        of_one = task.average(len(names)) == "binary" and names[1] in missing
        log.warning(
            "%s has no example of %s: a label without examples has recall and F1 0 where it is "
            "predicted, and is left out of macro averages where it is not%s",
            cache.spec.dataset, ", ".join(map(repr, missing)),
            "; precision and recall, which are those of this label, are left out" if of_one else "",
        )  # fmt: skip
    overlaps = [
        replace(overlap, seen={name: overlap.seen[name][kept[name]] for name in scores})
        for overlap in _overlaps(run, cache)
    ]
    seen = {
        name: np.logical_or.reduce([overlap.seen[name] for overlap in overlaps])
        for name in (scores if overlaps else ())
    }
    counts = [overlap.counts for overlap in overlaps]
    result = TransferRecord(
        cache=cache.name,
        cache_key=cache.spec.cache_key(),
        dataset=cache.spec.dataset,
        examples={name: len(kept[name]) for name in scores},
        labels={
            label: names[number]
            for label, number in zip(cache.label_names, numbers, strict=True)
            if number >= 0
        },
        metrics=scores,
        seen_in_training=counts[0] if counts else None,
        seen_in_choosing=counts[1] if len(counts) > 1 else {},
        metrics_unseen=_of_unseen(predictions, seen) if seen else {},
    )
    _warn_of_seen(run, result, overlaps, seen, own)
    return result, predictions


def _overlaps(run: Run, cache: Cache) -> list[texts.Overlap]:
    """Which examples of a cache have a text that a run was trained on, and which others have one
    that something was chosen on, if it was; empty, with a warning in the log, if the run's cache is
    not there any more."""
    try:
        with Cache(find_cache(run, cache.path.parent.parent)) as training:
            overlaps = [texts.overlap(training, cache)]
            if run.record.chosen_on_validation:
                chosen = texts.overlap(training, cache, of="validation")
                others = {
                    name: seen & ~overlaps[0].seen[name] for name, seen in chosen.seen.items()
                }
                overlaps.append(replace(chosen, seen=others))
            return overlaps
    except SpaceliteError as error:
        log.warning(
            "it is not known which texts of %s run %s was trained on: %s",
            cache.spec.dataset, run.id, error,
        )  # fmt: skip
        return []


def _scores_of(predictions: Predictions) -> Scores:
    """The metrics of predictions. The loss is None: the head's penalties need hidden states."""
    return {**_without_absent(engine.metrics_of(predictions), predictions), "loss": None}


def _without_absent(scores: Scores, predictions: Predictions) -> Scores:
    """The metrics of predictions, without precision and recall if they are those of a label that
    none of the examples has."""
    average = predictions.task.average(predictions.logits.shape[1])
    if average != "binary" or (predictions.labels == 1).any():
        return scores
    return {**scores, "precision": None, "recall": None}


def _of_unseen(predictions: dict[str, Predictions], seen: Mapping[str, Array]) -> dict[str, Scores]:
    """The metrics of the examples (N,) that are not `seen`, by split, where there are others
    too."""
    unseen: dict[str, Scores] = {}
    for name, part in predictions.items():
        new = np.flatnonzero(~seen[name])
        if 0 < len(new) < len(part.index):
            unseen[name] = _scores_of(
                replace(part, labels=part.labels[new], logits=part.logits[new])
            )
    return unseen


def _warn_of_seen(
    run: Run,
    record: TransferRecord,
    overlaps: Sequence[texts.Overlap],
    seen: Mapping[str, Array],
    own: bool,
) -> None:
    """Log a warning of texts that a run was trained on, or that something was chosen on; of the
    data set that is its own not of the split that these are."""
    sentences, task = [], run.record.task
    for overlap in overlaps:
        shown = {name: of for name, of in overlap.seen.items() if not own or name != overlap.of}
        sentences.append(replace(overlap, seen=shown).sentence(record.dataset, f"run {run.id}"))
    sentence = "; ".join(filter(None, sentences))
    if of_new := record.metrics_unseen.get(record.split):
        others = int((~seen[record.split]).sum())
        figures = " and ".join(
            f"{task.metrics[name].in_words} {task.metrics[name].written(of_new[name] or 0.0)}"
            for name in (task.headline, task.second)
        )
        sentence += f"; of the other {others:,} {record.split} examples: {figures}"
    if sentence:
        log.warning("%s", sentence)


def _check_hidden_states(run: Run, cache: Cache) -> None:
    here, there = run.record.spec, cache.spec
    kind = "pairs of texts" if there.pairs else "single ones"
    require_kind(run, f"cache {cache.name} has {kind}", pairs=there.pairs)
    for name in SAME:
        if getattr(here, name) != getattr(there, name):
            imported = here.is_imported and there.is_imported
            if imported and name == "backbone_version" and here.backbone == there.backbone:
                log.warning(
                    "the hidden states of cache %s and of that of run %s were both imported: only "
                    "their name says that one model, %s, has computed them",
                    cache.name, run.id, here.backbone,
                )  # fmt: skip
                continue
            what, *values = name, getattr(here, name), getattr(there, name)
            if name == "backbone_version" and here.backbone != there.backbone:
                what, *values = "backbone", here.backbone, there.backbone
            raise SpaceliteError(
                f"run {run.id} and cache {cache.name} have different hidden states: the run's "
                f"{what} is {values[0]}, the cache's {values[1]}; "
                + (
                    "import it with the backbone=NAME of the run's cache"
                    if imported
                    else "embed the data set with the settings of the run's cache"
                ),
                ["backbone"],
            )


def _check_reduction(run: Run, cache: Cache) -> None:
    """Raise SpaceliteError if hidden states were not reduced alike."""
    here, there = run.reduction, cache.reduction
    if str(here) != str(there) and not run.head.reads_only_ids:
        raise SpaceliteError(
            f"run {run.id} and cache {cache.name} have different hidden states: those of the run "
            f"are {'whole' if here is None else f'reduced to {here.words}'}, those of the cache "
            f"{'whole' if there is None else f'reduced to {there.words}, of other texts'}: "
            "evaluate on dataset=..., which embeds it with the axes of the run",
            ["dataset"],
        )


def _log_match(there: Sequence[str], here: Sequence[str]) -> None:
    """Log how labels of a data set were matched with those of a run, if not by their names."""
    pairs = ", ".join(f"{theirs} = {ours}" for theirs, ours in zip(there, here, strict=True))
    if [*map(same_name, there)] != [*map(same_name, here)]:
        warning = f"no label has a name of the run's: matched by number, {pairs}: labels=... gives "
        log.warning(SpaceliteError(f"{warning}others", ["labels"]))
    elif [*there] != [*here]:
        log.info("labels are matched by name but for case and spaces: %s", pairs)


def label_numbers(
    run: Run,
    dataset: str,
    names: Sequence[str],
    task: Task,
    mapping: dict[str, str] | Sequence[str] | None,
) -> npt.NDArray[np.int64]:
    """The run's label number for each label of another data set, (C,) int64, whose label names and
    task are given; -1 for one that is left out. Texts of one label each do for a run of several."""
    here = run.record.label_names
    if mapping is not None and not isinstance(mapping, dict):
        mapping = parse_mapping(mapping, names, here) if mapping else None
    if not run.record.task.takes(task):
        raise SpaceliteError(
            f"data set {dataset} and run {run.id} do not go together: the data have {task.phrase}, "
            f"the run has {run.record.task.phrase}"
        )
    numbers = task.match(names, here, mapping)
    if isinstance(numbers, str):
        raise SpaceliteError(f"data set {dataset}: {numbers}", ["labels"])
    return numbers


def parse_mapping(
    pairs: Sequence[str], there: Sequence[str], here: Sequence[str]
) -> dict[str, str]:
    """Parse pairs of labels of a data set and a run: `["a=x", "b="]` -> `{"a": "x", "b": ""}`.

    If labels themselves contain `=`, a pair is split at the one that has a label of `there` before
    it and a label of `here` after it. Line breaks in labels may be written out, as they are shown.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        ways = [
            (as_meant(pair[:index].strip(), there), as_meant(pair[index + 1 :].strip(), here))
            for index, character in enumerate(pair)
            if character == "="
        ]
        if not ways or not ways[0][0]:
            raise SpaceliteError(
                f'labels={pair}: give "their label=the run\'s label", once for each label, or '
                '"their label=" to leave it out',
                ["labels"],
            )
        known = [(name, other) for name, other in ways if name in there and other in ("", *here)]
        if len(ways) > 1 and not known:
            raise SpaceliteError(
                f"labels={pair}: no '=' in it has a label of the data ({', '.join(there)}) before "
                f"it and a label of the run ({', '.join(here)}) after it",
                ["labels"],
            )
        name, other = (known or ways)[0]
        if name in mapping:
            raise SpaceliteError(f"labels={pair}: {name!r} is mapped twice", ["labels"])
        mapping[name] = other
    return mapping
