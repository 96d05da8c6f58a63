"""Probing: which layer, and which pooling of its tokens, a linear probe should read. The choice is
made on validation, and test is read once, after it.

Beside every probe stand a control task, which says how much of its figure a probe can learn by
heart (Hewitt & Liang, "Designing and Interpreting Probes with Control Tasks", EMNLP 2019), and the
same probe on a backbone with random weights.

Shapes: N examples of a split, p values of a vector, C classes, G groups of examples.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spacelite import heads
from spacelite.backbones.files import RANDOM
from spacelite.cache import store
from spacelite.cache.dtypes import DTYPES
from spacelite.cache.spec import CacheSpec
from spacelite.cache.split import CachedSplit, TokenRows
from spacelite.cache.store import Cache
from spacelite.data.writers import rounded
from spacelite.document import (
    Cell,
    Chart,
    Line,
    Series,
    Table,
)
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.heads.logistic import AUTO
from spacelite.metrics.rationales import LEVEL, Estimate
from spacelite.metrics.scores import Metric
from spacelite.progress import OnProgress
from spacelite.runs.record import read_fields
from spacelite.settings import LARGEST_SEED, choose_from, require, whole_number
from spacelite.studies.learning_curve import curve_metric, figure, left_out
from spacelite.studies.study import Study
from spacelite.tasks import Task, known_metrics
from spacelite.training import plan
from spacelite.types import Array

if TYPE_CHECKING:
    from spacelite.heads.base import Objective

log = logging.getLogger(__name__)

Logits = Callable[[Array], Array]  # of a fitted probe: vectors (n, p) -> logits (n, C)
LAYERS, POOLING = "layers", "pooling"  # what a sweep is over
POOLED = ("first", "last", "mean", "max")  # poolings of the cached layer
PROBE = heads.config("logreg", pooling="mean", C=AUTO)
# What a cache of random weights has to have in common with that of the backbone.
SAME = (
    "dataset_hash", "label_names", "task", "tokenizer_hash", "max_length", "layer", "padding",
    "prefix", "stride", "skip_first",
)  # fmt: skip
# What probes without hidden states read: (N, 1) of a split.
BASELINES: dict[str, Callable[[CachedSplit], Array]] = {
    "the number of tokens": lambda split: split.lengths[:, None].astype(np.float32),
    "nothing": lambda split: np.zeros((len(split), 1), np.float32),
}
ESTIMATES = ("figure", "behind", "control", "selectivity", "random", "beyond_random")


class Reading(NamedTuple):
    """What a probe reads: a pooling of the tokens of a layer, counted from 0, the embeddings."""

    layer: int
    pooling: str

    @property
    def name(self) -> str:
        """`layer 3, mean`."""
        return f"layer {self.layer}, {self.pooling}"


@dataclass(frozen=True)
class Probe:
    """How good a probe is: on validation, by which one is chosen, and with 95% intervals on the
    split that is read after the choice."""

    name: str
    layer: int | None  # None for a baseline
    pooling: str | None
    validation: float
    figure: Estimate
    behind: Estimate  # how much better the chosen one is
    control: Estimate | None = None  # None without a control task
    selectivity: Estimate | None = None  # how much better the figure is than that of it
    random: Estimate | None = None  # on random weights; None without their cache, or a baseline
    beyond_random: Estimate | None = None  # how much better the figure is than that


@dataclass(frozen=True)
class Sweep(Study):
    """Probes that differ in what they read, in the order of layers, and the one that was chosen on
    validation."""

    title = "What a probe should read"

    metric: str
    split: str  # that was read after the choice; validation itself if there is no test
    train: int  # examples, as the next two
    validation: int
    examples: int  # of `split`
    probes: list[Probe]
    chosen: int  # index of one of the probes
    baselines: list[Probe]  # probes that read the number of tokens, or nothing
    types: int  # different first tokens of training texts; 0 without a control task
    known_types: float  # the share of the texts of `split` that begin with one of these
    random: str | None  # the name of the cache of random weights
    wants_random: bool  # whether there could be one
    seed: int  # of the control task's labels
    seconds: float

    @property
    def choice(self) -> Probe:
        """The probe that was chosen."""
        return self.probes[self.chosen]

    @property
    def of(self) -> Metric:
        """The metric."""
        return known_metrics()[self.metric]

    # As JSON, and as csv.

    def as_json(self) -> dict[str, Any]:
        """The figures as a JSON object."""
        content = {**vars(self), "choice": self.choice.name}
        for name in ("probes", "baselines"):
            content[name] = [
                {
                    of: value
                    if not isinstance(value, Estimate)
                    else {"value": value.value, "interval": [value.low, value.high]}
                    for of, value in vars(probe).items()
                }
                for probe in content[name]
            ]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Sweep:
        """What `as_json` returned. Raises ValueError, KeyError or TypeError for anything else."""
        probes, baselines = (
            [
                Probe(**{**probe, **{of: _estimate_of(probe[of]) for of in ESTIMATES}})
                for probe in content[name]
            ]
            for name in ("probes", "baselines")
        )
        saved = read_fields(cls, content, but=("probes", "baselines"))
        return cls(probes=probes, baselines=baselines, **saved)

    def csv_rows(self) -> list[Sequence[Any]]:
        """A row for each probe, below a row of headings; each figure with its interval."""
        headings = ["probe", "layer", "pooling", "chosen", "validation"]
        for name in ESTIMATES:
            headings += [name, f"{name}_low", f"{name}_high"]
        rows: list[Sequence[Any]] = [headings]
        for probe in [*self.probes, *self.baselines]:
            values: list[float | None] = [probe.validation]
            for name in ESTIMATES:
                of = getattr(probe, name)
                values += (None, None, None) if of is None else astuple(of)
            shown = [None if value is None else rounded(value) for value in values]
            rows.append([
                probe.name, probe.layer, probe.pooling, probe is self.choice, *shown
            ])  # fmt: skip
        return rows

    # For readers.

    def tables(self) -> list[Table]:
        """The probes and how far they are behind the chosen one; and what stands beside them."""
        of_split = self.split.capitalize()
        behind = "Points behind the chosen"
        if not self.of.in_points:
            worse = "below" if self.of.higher_is_better else "above"
            behind = f"{self.of.short} {worse} the chosen"
        lines = [
            Line.of(
                f"{probe.name} (chosen)" if probe is self.choice else probe.name,
                Cell(self.of.written(probe.validation, 3), best=probe is self.choice),
                self._shown(probe.figure),
                "–" if probe is self.choice else self._amount(probe.behind),
            )
            for probe in [*self.probes, *self.baselines]
        ]
        columns = ["Probe reads", "Validation", f"{of_split} (95%)", behind]
        tables = [Table(f"{self.of.heading} by what a probe reads", columns, lines, "sweep")]
        beside = {
            "control": "Control task", "selectivity": "Selectivity", "random": "Random weights",
        }  # fmt: skip
        known = [name for name in beside if getattr(self.choice, name) is not None]
        if known:
            lines = [
                Line.of(probe.name, *(self._shown(getattr(probe, name)) for name in known))
                for probe in [*self.probes, *self.baselines]
            ]
            caption = f"What stands beside it: {self.of.in_words} on {self.split}"
            columns = ["Probe reads", *(beside[name] for name in known)]
            tables.append(Table(caption, columns, lines, "sweep"))
        return tables

    def chart(self) -> Chart | None:
        """The means of layers as they are drawn, with what stands beside them; None if there are
        not several."""
        means = [probe for probe in self.probes if probe.pooling == "mean"]
        layers = [probe.layer for probe in means if probe.layer is not None]
        if len(layers) < 2:
            return None
        curves: dict[str, list[Estimate | None]] = {
            "the data's labels": [probe.figure for probe in means],
            "random weights": [probe.random for probe in means],
            "control task": [probe.control for probe in means],
            **{f"reads {probe.name}": [probe.figure] * len(means) for probe in self.baselines},
        }
        series = [
            Series(
                name,
                layers,
                [math.nan if of is None else of.value for of in estimates],
                [math.nan if of is None else (of.high - of.low) / 2 for of in estimates],
            )
            for name, estimates in curves.items()
            if any(estimates)
        ]
        heading = f"{self.of.heading} on {self.split}"
        text = f"{heading} of probes on the mean of each layer; bands are 95% intervals."
        return Chart("layers", heading, text, series, "layer", logarithmic=False)

    @property
    def sentences(self) -> list[str]:
        """How the probe was chosen, what that cost, and what its figure is worth."""
        metric, choice, count = self.of.in_words, self.choice, len(self.probes)
        on_test = self.split != "validation"
        read = f"{self.split} was read once, after the choice"
        if not on_test:
            read = (
                "there is no test split, so that all figures are of the examples that it was "
                "chosen by, and that of the chosen one is too good"
            )
        intervals = (
            "Intervals: 95%, jackknife over groups of examples with Student's t, cut off at the "
            "ends of the metric's range"
        )
        if math.isnan(choice.figure.low):
            intervals = "A single example gives no intervals"
        sentences = [
            f"{count} probes, each a linear layer on one vector per text fitted to "
            f"{self.train:,} training examples, were compared by {metric} on {self.validation:,} "
            f"validation examples; {read}. {intervals}."
        ]
        if on_test:
            sentences.append(
                f"Chosen: {choice.name}. Its {metric} on validation, "
                f"{self.of.written(choice.validation, 3)}, is the best of {count} and therefore "
                f"optimistic; on {self.split} it is {self._shown(choice.figure)}, of "
                f"{self.examples:,} examples."
            )
        else:
            sentences.append(f"Chosen: {choice.name}, {metric} {self._shown(choice.figure)}.")
        others = [probe.behind for probe in self.probes if probe is not choice]
        behind = sum(of.low > 0 for of in others)
        ahead = sum(of.high < 0 for of in others)
        if others:
            sentences.append(
                f"Of the {len(others)} others, {behind} {_are(behind)} worse on {self.split} and "
                f"{ahead} {_are(ahead)} better by more than chance explains; "
                f"{len(others) - behind - ahead} cannot be told apart from it (each interval by "
                "itself)."
            )
        best = max(self.probes, key=lambda probe: self.of.sign * probe.figure.value)
        if on_test and best.figure.value != choice.figure.value:
            sentences.append(
                f"Choosing by {self.split} itself would have taken {best.name} and reported "
                f"{self.of.written(best.figure.value, 3)}, {self._amount(_negative(best.behind))}"
                f"{self.of.of_amount} better: that is what looking would have flattered it by."
            )
        elif on_test:
            sentences.append(f"It is the best on {self.split} too.")
        by_heart, control = choice.control, self.baselines[-1].control
        if by_heart is not None and control is not None:
            sentences.append(
                "Control task (Hewitt & Liang 2019): texts that begin with the same token have the "
                "same label, that of a training example drawn at random. Training texts begin with "
                f"{self.types:,} different tokens; {self.known_types:.1%} of the {self.split} "
                "texts begin with one of these. The chosen probe reaches "
                f"{self.of.written(by_heart.value, 3)} on it, and one that reads nothing "
                f"{self.of.written(control.value, 3)}: what lies between, it has learned by heart. "
                "Selectivity is how much better it is on the data's labels."
            )
        else:
            sentences.append(
                "There is no control task: token ids are not known, or all texts begin alike."
            )
        sentences += [
            f"A probe that reads {probe.name} reaches {self.of.written(probe.figure.value, 3)}; "
            f"the chosen one is {self._amount(probe.behind)}{self.of.of_amount} better."
            for probe in self.baselines
        ]
        if choice.beyond_random is not None:
            sentences.append(
                f"On random weights ({self.random}), the same probe reaches "
                f"{self.of.written(choice.random.value if choice.random else math.nan, 3)}: what "
                f"the backbone has learned is worth {self._amount(choice.beyond_random)}"
                f"{self.of.of_amount}."
            )
        elif self.wants_random:
            sentences.append(
                "There is no baseline of random weights: embed the same data with the backbone's "
                "name after random: (random:minilm) and the same settings."
            )
        sentences.append(f"The choice and all that stands beside it took {self.seconds:.0f} s.")
        return sentences

    def _shown(self, estimate: Estimate | None) -> str:
        """`0.665 (0.644 to 0.686)`."""
        if estimate is None:
            return "–"
        value, low, high = (re.sub("^-", "−", self.of.written(of, 3)) for of in astuple(estimate))
        return value if math.isnan(estimate.low) else f"{value} ({low} to {high})"

    def _amount(self, difference: Estimate) -> str:
        """`1.2 (−0.4 to 2.8)`, in points or in the unit of the labels."""
        value, low, high = map(self.of.amount, astuple(difference))
        return value if math.isnan(difference.low) else f"{value} ({low} to {high})"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _negative(estimate: Estimate) -> Estimate:
    return Estimate(-estimate.value, -estimate.high, -estimate.low)


def _estimate_of(content: Mapping[str, Any] | None) -> Estimate | None:
    if content is None:
        return None
    # null becomes NaN.
    values = (content["value"], *content["interval"])
    return Estimate(*(math.nan if value is None else float(value) for value in values))


# What probes read.


def readings(cache: Cache, over: Sequence[str]) -> list[Reading]:
    """What is compared: the means of all layers, and poolings of the cached one. Raises
    SpaceliteError if there are no layer means."""
    unknown = [name for name in over if name not in (LAYERS, POOLING)]
    if unknown or not over:
        what = "nothing"
        if unknown:
            what = f"{unknown[0] or repr('')}: {choose_from(unknown[0], (LAYERS, POOLING))}"
        raise SpaceliteError(f"a sweep is over layers, pooling, or both, not over {what}")
    found: list[Reading] = []
    if LAYERS in over:
        found += [Reading(number, "mean") for number in range(_layers(cache))]
    layer = cache.spec.layer
    if layer < 0 and cache.layers is not None:
        layer += _layers(cache)
    if POOLING in over:
        found += [
            Reading(layer, pooling)
            for pooling in POOLED
            if not (pooling == "first" and cache.spec.skip_first)
        ]
    return list(dict.fromkeys(found))


def _layers(cache: Cache) -> int:
    """The number of layers whose means there are."""
    _, layers, _ = next(iter(cache.require_layers(complete=False).splits.values())).shape
    return int(layers)


def vectors(
    cache: Cache, split: str, wanted: Sequence[Reading], over: Sequence[str]
) -> list[Array]:
    """What each probe reads of a split, and then what each of BASELINES reads, (N, p) each: after
    one pass over its tokens and one over its layer means."""
    from spacelite.training.batches import TokenSplit

    of_split = cache.splits[split]
    of_layers = [LAYERS in over and reading.pooling == "mean" for reading in wanted]
    pools = [reading.pooling for reading, mean in zip(wanted, of_layers, strict=True) if not mean]
    found: list[Array] = []
    if any(of_layers):
        means = of_split.layer_means.reshape(len(of_split), _layers(cache), -1)
        found += [means[:, layer] for layer in range(means.shape[1])]
    if pools:
        tokens = TokenSplit(of_split, split, budget=0)  # streamed: no token is needed twice
        tokens.pool(pools)
        found += [tokens.features(pooling).numpy() for pooling in pools]
    return [*found, *(of(of_split) for of in BASELINES.values())]


# The control task.


def shared_beginning(split: CachedSplit) -> int:
    """The number of tokens with which all texts of a split begin alike: special ones, and those of
    a prefix."""
    ids, starts = split.read_token_ids(), split.offsets[:-1]
    count, shortest = 0, int(split.lengths.min())
    while count < shortest and (ids[starts + count] == ids[count]).all():
        count += 1
    return count


def types_of(split: CachedSplit, beginning: int) -> Array:
    """The type of each text: the id of its first token after a shared `beginning`, (N,)."""
    at = np.minimum(beginning, split.lengths - 1)
    types: Array = split.read_token_ids()[split.offsets[:-1] + at]
    return types


def control_labels(types: Array, labels: Array, seed: int) -> Array:
    """The labels of texts in the control task, by their types (n,): each type has the label of a
    random one of the training examples, so that labels are as frequent as `labels` (N,)."""
    drawn = {
        kind: np.random.default_rng([seed, kind]).integers(len(labels))
        for kind in np.unique(types).tolist()
    }
    of_types: Array = labels[[drawn[kind] for kind in types.tolist()]]
    return of_types


# Random weights.


def random_cache(cache: Cache, over: Sequence[str]) -> Path | None:
    """The finished cache of the same data by the same backbone with random weights, those of the
    lowest seed; None if there is none beside this one."""
    found = {}
    for path in cache.path.parent.glob("random*.h5"):
        if not store.is_cache(path):
            continue
        try:
            with Cache(path) as other:
                seed = _seed_of(other.spec, cache.spec)
                if seed is not None:
                    other.require_complete()
                    if LAYERS in over:
                        other.require_layers()
                    found[seed] = path
        except SpaceliteError as error:
            log.warning("%s is left out: %s", path.stem, error)
    return found[min(found)] if found else None


def _seed_of(random: CacheSpec, spec: CacheSpec) -> int | None:
    """The seed of random weights in place of those of a backbone; None for other caches."""
    named = RANDOM.fullmatch(random.backbone)
    alike = all(getattr(random, name) == getattr(spec, name) for name in SAME)
    if named is None or not alike or not random.backbone_version.endswith(spec.backbone_version):
        return None
    return int(named[1] or 0)


# Measuring.


def measured(metric: str, task: Task, labels: Array, logits: Array) -> Array:
    """A metric of examples from logits (N, C), and below it the same without each of G groups of
    them, (1 + G,)."""
    whole = figure(metric, task, labels, logits)
    return np.concatenate([[whole], left_out(metric, task, labels, logits)])


def estimate(values: Array, of: Metric | None = None) -> Estimate:
    """A figure `of` a metric as `measured`, or a difference of two, with its interval: that of the
    jackknife over G groups (Efron & Tibshirani 1993, ch. 11), and Student's t with G - 1 degrees of
    freedom, within the metric's range; NaN of a single group."""
    from scipy.special import stdtrit

    value, without = float(values[0]), values[1:]
    groups = len(without)
    variance = (groups - 1) / groups * float(((without - without.mean()) ** 2).sum())
    half = float(stdtrit(groups - 1, (1 + LEVEL) / 2)) * math.sqrt(variance)
    if of is None or math.isnan(half):
        return Estimate(value, value - half, value + half)
    return Estimate(value, max(value - half, of.least), min(value + half, of.most))


def _rows(vectors: Array, labels: Array | None = None) -> TokenRows:
    """Vectors (N, p) as texts of one token, whose mean it is."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    rows = TokenRows(vectors, np.arange(len(vectors) + 1), DTYPES["float32"])
    return rows if labels is None else replace(rows, labels=labels)


def sweep(
    cache: Cache,
    over: Sequence[str] = (LAYERS, POOLING),
    *,
    metric: str | None = None,
    seed: int = 0,
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Sweep:
    """Fit a probe to each thing that it could read of an open, complete cache, choose one by a
    metric on validation, and measure all of them, with what stands beside them, on test. `seed` is
    that of the control task's labels. Progress is counted in fits (`fit`)."""
    from spacelite.heads.base import Objective
    from spacelite.training.batches import TokenSplit

    started = time.perf_counter()
    metric = curve_metric(metric, cache.task)
    sign = cache.task.metrics[metric].sign
    require("seed", seed, whole_number(0, LARGEST_SEED))
    cache.require_complete()
    wanted, random = readings(cache, over), random_cache(cache, over)
    task, train, validation = cache.task, cache.splits["train"], cache.splits["validation"]
    objective = Objective(task, len(cache.label_names))
    probe_head = plan.counterpart(PROBE, task)
    of_types, beginning = _control_of_train(cache, seed)
    count = len(wanted)
    total = (count + len(BASELINES)) * (1 + (of_types is not None)) + count * (random is not None)
    done = 0

    def fit(inputs: Sequence[Array], labels: Array) -> list[Logits]:
        """A probe fitted to each of several vectors (N, p)."""
        nonlocal done
        probes: list[Logits] = []
        for of_probe in inputs:
            on_progress("fit", done, total)
            examples = TokenSplit(_rows(of_probe, labels))
            fitted = heads.kind(probe_head.kind).fit(probe_head, examples, objective, "none")
            parameters = {of: value.numpy() for of, value in fitted.parameters.items()}
            probes.append(partial(_logits, probe_head, parameters, objective))
            done += 1
        return probes

    def measure(probes: Sequence[Logits], inputs: Sequence[Array], labels: Array) -> list[Array]:
        pairs = zip(probes, inputs, strict=True)
        return [measured(metric, task, labels, probe(of_probe)) for probe, of_probe in pairs]

    inputs = vectors(cache, "train", wanted, over)
    probes = fit(inputs, train.labels)
    controls = [] if of_types is None else fit(inputs, of_types)
    inputs = vectors(cache, "validation", wanted, over)
    on_validation = [
        figure(metric, task, validation.labels, probe(of_probe))
        for probe, of_probe in zip(probes, inputs, strict=True)
    ]
    if np.isnan(on_validation[:count]).all():
        raise SpaceliteError(
            f"metric={metric} has no value on validation: choose another metric", ["metric"]
        )
    chosen = int(np.nanargmax(sign * np.array(on_validation[:count])))
    # From here on nothing is chosen.
    measured_on = "test" if "test" in cache.splits else "validation"
    split = cache.splits[measured_on]
    inputs = vectors(cache, measured_on, wanted, over)
    figures = measure(probes, inputs, split.labels)
    values = {
        "figure": figures,
        "behind": [sign * (figures[chosen] - of_probe) for of_probe in figures],
    }
    types, known_types = 0, 0.0
    if of_types is not None:
        held, learned = types_of(split, beginning), np.unique(types_of(train, beginning))
        types, known_types = len(learned), float(np.isin(held, learned).mean())
        values["control"] = measure(controls, inputs, control_labels(held, train.labels, seed))
        values["selectivity"] = _ahead(sign, figures, values["control"])
    if random is not None:
        with Cache(random) as other:
            on_random = fit(vectors(other, "train", wanted, over)[:count], train.labels)
            inputs = vectors(other, measured_on, wanted, over)[:count]
        values["random"] = measure(on_random, inputs, split.labels)
        values["beyond_random"] = _ahead(sign, figures, values["random"])
    on_progress("fit", total, total)
    about: list[tuple[str, int | None, str | None]] = [
        *((reading.name, reading.layer, reading.pooling) for reading in wanted),
        *((of, None, None) for of in BASELINES),
    ]
    every = []
    # The others are differences.
    ranges = dict.fromkeys(("figure", "control", "random"), task.metrics[metric])
    for at, (of, layer, pooling) in enumerate(about):
        estimates: dict[str, Any] = {
            name: estimate(listed[at], ranges.get(name))
            for name, listed in values.items()
            if at < len(listed)
        }
        every.append(Probe(of, layer, pooling, on_validation[at], **estimates))
    return Sweep(
        metric=metric,
        split=measured_on,
        train=len(train),
        validation=len(validation),
        examples=len(split),
        probes=every[:count],
        chosen=chosen,
        baselines=every[count:],
        types=types,
        known_types=known_types,
        random=None if random is None else random.stem,
        wants_random=not cache.spec.is_imported and not RANDOM.fullmatch(cache.spec.backbone),
        seed=seed,
        seconds=time.perf_counter() - started,
    )


def _ahead(sign: int, figures: Sequence[Array], others: Sequence[Array]) -> list[Array]:
    """How much better figures are than others, as far as there are others."""
    return [sign * (own - other) for own, other in zip(figures, others, strict=False)]


def _logits(
    head: HeadConfig, parameters: Mapping[str, Array], objective: Objective, inputs: Array
) -> Array:
    """The logits (n, C) of a fitted probe for vectors (n, p)."""
    from spacelite.training import engine

    return engine.predict(head, parameters, objective, _rows(inputs))


def _control_of_train(cache: Cache, seed: int) -> tuple[Array | None, int]:
    """The labels of training texts in the control task, and with how many tokens all of them begin;
    None where token ids are not known, or the labels would be all the same."""
    if not cache.has_token_ids:
        return None, 0
    train = cache.splits["train"]
    beginning = shared_beginning(train)
    labels = control_labels(types_of(train, beginning), train.labels, seed)
    several = len(np.unique(labels, axis=0)) > 1 and cache.task.learnable(labels)
    return (labels if several else None), beginning
