"""Zero-shot transfer: a run's head on another data set, through the same frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from spacelite.cache import spec as specs
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.heads import heads
from spacelite.heads.losses import Objective
from spacelite.metrics.predictions import Outputs
from spacelite.runs import store as runs
from spacelite.runs.store import Run
from spacelite.training import engine as passes
from spacelite.training import evaluation as scoring
from spacelite.training.batches import TokenSplit

# What the hidden states mean: a head is of no use on others.
SAME = ("backbone_version", "tokenizer_hash", "layer", "padding")


@dataclass(frozen=True)
class Transfer:
    """A run on another cache. `labels`: that data set's label names -> the run's;
    `metrics`: {split: metrics}."""

    cache: str
    cache_key: str
    dataset: str
    examples: dict[str, int]
    labels: dict[str, str]
    metrics: dict[str, dict[str, float]]


def transfer(
    run: Run,
    cache: Cache,
    mapping: dict[str, str] | None = None,
    *,
    device: str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Transfer, dict[str, Outputs]]:
    """Evaluate a run's head on all splits of a complete cache: the figures, and what the head gave
    for each example of all splits but train.

    `mapping`: the cache's label names -> the run's; without one labels of the same names are the
    same, and where no name is in both they are matched by their numbers.

    Raises SpaceliteError where backbone, layer or width differ, or labels do not fit.
    """
    if not cache.complete:
        raise SpaceliteError(f"cache {cache.name} is unfinished: run its embed command again")
    _check_hidden_states(run, cache)
    names: list[str] = run.record["label_names"]
    numbers = _label_numbers(run, cache, mapping)
    multilabel = bool(run.record.get("multilabel"))
    objective = Objective(len(names), multilabel=multilabel)
    parameters = run.parameters()
    first = runs.FIRST_LAYERS.get(run.record["head"], "classifier.weight")
    width = parameters[first].shape[-1]
    if width != cache.splits["train"].width:
        raise SpaceliteError(
            f"run {run.id} is of hidden states of width {width}, cache {cache.name} of "
            f"{cache.splits['train'].width}"
        )
    stacks = heads.stacked({run.head: parameters}, objective, device)
    done, scores, given = 0, {}, {}
    with passes.workers(device) as crew:
        for name in cache.splits:
            split = TokenSplit(cache, name, device)
            labels = split.labels.cpu()
            order = torch.from_numpy(numbers)
            # Several labels are columns, in the order of the cache's label names.
            mapped = labels[:, order.argsort()] if multilabel else order[labels]
            split.labels = mapped.to(device)

            def advance(tokens: int) -> None:
                nonlocal done
                done += tokens
                on_progress(done, cache.tokens)

            evaluated = scoring.evaluate(split, stacks, objective, crew, advance)[run.head]
            scores[name] = evaluated.scores
            if name != "train":
                rows = np.arange(len(mapped))
                given[name] = Outputs(rows, mapped.numpy(), evaluated.logits.numpy())
            del split  # before the next is read
    result = Transfer(
        cache=cache.name,
        cache_key=specs.key_of(cache.spec),
        dataset=cache.spec["dataset"],
        examples={name: len(split) for name, split in cache.splits.items()},
        labels={
            label: names[number] for label, number in zip(cache.label_names, numbers, strict=True)
        },
        metrics=scores,
    )
    return result, given


def _check_hidden_states(run: Run, cache: Cache) -> None:
    here, there = run.record["spec"], cache.spec
    for name in SAME:
        if here[name] != there[name]:
            what, *values = name, here[name], there[name]
            if name == "backbone_version" and here["backbone"] != there["backbone"]:
                what, *values = "backbone", here["backbone"], there["backbone"]
            raise SpaceliteError(
                f"run {run.id} is of other hidden states than cache {cache.name}: its {what} is "
                f"{values[0]}, the cache's {values[1]}; embed the data set as the run's was"
            )


def _label_numbers(run: Run, cache: Cache, mapping: dict[str, str] | None) -> Any:
    """For each of the cache's labels the number of the run's, (C,) int64."""
    there, here = cache.label_names, run.record["label_names"]
    several = cache.splits["train"].labels.ndim == 2
    if several != bool(run.record.get("multilabel")):
        kinds = ("one label a text", "several labels a text")
        raise SpaceliteError(
            f"{cache.spec['dataset']} has {kinds[several]}, run {run.id} is of {kinds[not several]}"
        )
    same = set(there) == set(here)
    if several and not same and (set(there) & set(here) or len(there) != len(here)):
        raise SpaceliteError(
            f"{cache.spec['dataset']} has the labels {', '.join(there)}, run {run.id} has "
            f"{', '.join(here)}: with several labels a text the two must have the same"
        )
    if several and mapping is not None:
        raise SpaceliteError("--map is for data with one label a text")
    if mapping is None:
        if same:
            return _places(there, here)
        if len(there) != len(here) or set(there) & set(here):
            raise SpaceliteError(
                f"{cache.spec['dataset']} has {len(there)} labels ({', '.join(there)}), run "
                f"{run.id} has {len(here)} ({', '.join(here)}): say which is which with "
                + " ".join(f"--map '{name}=...'" for name in there)
            )
        return np.arange(len(here))
    unknown = [name for name in mapping if name not in there]
    unknown += [name for name in mapping.values() if name not in here]
    missing = [name for name in there if name not in mapping]
    if unknown or missing:
        problem = f"there is no label {unknown[0]!r}" if unknown else f"{missing[0]!r} is missing"
        raise SpaceliteError(
            f"--map: {problem}; give each of {', '.join(there)} one of {', '.join(here)}"
        )
    return _places([mapping[name] for name in there], here)


def parse_map(pairs: Sequence[str], there: Sequence[str], here: Sequence[str]) -> dict[str, str]:
    """`["a=x", "b=y"]` -> {"a": "x", "b": "y"}. Where labels themselves hold a `=`, the one is
    meant that has a label of `there` before it and one of `here` after.

    Raises SpaceliteError for what is no such pair, and for a label that is mapped twice.
    """
    mapping: dict[str, str] = {}
    for pair in pairs:
        ways = [
            (pair[:place].strip(), pair[place + 1 :].strip())
            for place, character in enumerate(pair)
            if character == "="
        ]
        if not ways or not all(ways[0]):
            raise SpaceliteError(f"--map {pair}: give LABEL=LABEL, one --map for each label")
        known = [(name, other) for name, other in ways if name in there and other in here]
        name, other = (known or ways)[0]
        if name in mapping:
            raise SpaceliteError(f"--map {pair}: {name!r} is there twice")
        mapping[name] = other
    return mapping


def _places(names: list[str], among: list[str]) -> Any:
    return np.array([among.index(name) for name in names], np.int64)
