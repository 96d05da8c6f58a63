"""The JSON files of runs: their records, how they are written and read, and a run's id.

Whatever is not of the type that a dataclass says is named, and what older versions did not write
takes its default.
"""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from spacelite import heads, settings
from spacelite.cache.spec import CacheSpec, slug
from spacelite.document import decimals
from spacelite.errors import SpaceliteError
from spacelite.files import canonical
from spacelite.heads import HeadConfig
from spacelite.metrics.rationales import Rationales
from spacelite.metrics.scores import Scores
from spacelite.metrics.thresholds import in_order
from spacelite.settings import Config
from spacelite.tasks import MULTI_LABEL, TASKS, Task, find_task, known_metrics
from spacelite.training.config import FitConfig, TrainingConfig
from spacelite.types import Array
from spacelite.visible import visible_name

FORMAT = 1
# What a damaged file may raise while it is read.
UNREADABLE = (OSError, ValueError, OverflowError)
WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
# The fields of a cache's spec that its token ids do not depend on.
OF_HIDDEN_STATES: dict[str, Any] = {
    "backbone": "", "backbone_version": "", "layer": -1, "dtype": "", "precision": "",
    "reduce": None,
}  # fmt: skip

C = TypeVar("C", bound=Config)


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """The search that chose a run's settings."""

    tried: int  # combinations of settings
    monitor: str  # metric of the validation split that they were compared by
    # In which they differed, each with the values that were tried; `head` for kinds of heads.
    settings: dict[str, list[Any]]

    def words(self, figure: float | None = None) -> str:
        """The search in words, with the figure of what was chosen: `chosen on validation (macro F1
        0.9123) from 18 combinations of learning rate and L`."""
        known = known_metrics().get(self.monitor)
        metric = self.monitor if known is None else known.in_words
        if figure is not None:
            metric += f" {decimals(figure, 4) if known is None else known.written(figure)}"
        symbols = {"head": "kind of head"}
        for kind in heads.KINDS.values():
            symbols |= settings.symbols(kind.config_type)
        *names, last = [symbols.get(name, name) for name in self.settings] or ["settings"]
        of = f"{', '.join(names)} and {last}" if names else last
        return f"chosen on validation ({metric}) from {self.tried:,} combinations of {of}"

    def check(self) -> None:
        """Raise ValueError if the values of a record that was read mean nothing."""
        if self.tried < 2:
            raise ValueError("search.tried is too small")
        for name, values in self.settings.items():
            if any(isinstance(value, list | dict) for value in values):
                raise ValueError(f"search.settings.{name} holds neither numbers nor text")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The contents of `run.json`; docs/formats.md describes them."""

    id: str  # `run_id`; of a copied folder, its name
    name: str | None = None  # that it was given
    head: HeadConfig
    training: FitConfig  # shared by all heads of the pass
    cache: str
    cache_key: str
    # Where that cache was if not in the same cache_dir: seen from the run's folder, and in full.
    cache_files: tuple[str, ...] = ()
    text_column: str | None = None  # of the data that it was embedded from, if known
    backbone_folder: str | None = None  # where the backbone was, if that was a local folder
    spec: CacheSpec
    label_names: tuple[str, ...]
    task: Task
    examples: dict[str, int]
    average: str  # of precision and recall: `binary` or `weighted`
    train_params: int
    metrics: dict[str, Scores]  # of the final weights, by split; older runs lack newer metrics
    # Runs of early versions lack what has a default here; their heads were trained alone.
    chosen: dict[str, str] = field(default_factory=dict)  # by the size of train: setting -> "auto"
    cross_validated: dict[str, float] = field(default_factory=dict)  # chosen on train, such as C
    search: SearchRecord | None = None
    # Chosen on validation, by label: of class 1 alone where a text has one of two labels.
    thresholds: dict[str, float] = field(default_factory=dict)
    wish: str | None = None  # what others were chosen for after the training; not saved
    checksums: dict[str, str] = field(default_factory=dict)  # CRC-32 of its files, hexadecimal
    best_epoch: int | None = None  # that of the final weights if early stopping chose it
    seconds: float  # of the training pass
    heads_in_pass: int = 1
    created: str  # in UTC
    versions: dict[str, str | None] = field(default_factory=dict)

    @property
    def system(self) -> str:
        """The head's name in tables, with the weights of its losses."""
        return self.head.system

    @property
    def is_start(self) -> bool:
        """Whether validation kept the head that this one is trained on top of, at epoch 0."""
        return self.best_epoch == 0 and self.head.start is not None

    @property
    def seed(self) -> int | None:
        """The head's seed; None for a head without one."""
        return getattr(self.head, "seed", None) if self.head.is_iterative else None

    @property
    def chosen_on_validation(self) -> bool:
        """Whether validation decided about the epoch, settings or thresholds."""
        return bool(self.thresholds) or self.search is not None or self.best_epoch is not None

    @property
    def epochs(self) -> int | None:
        """Number of training epochs; None for a head that is fitted directly."""
        return self.training.epochs if isinstance(self.training, TrainingConfig) else None

    @property
    def reads_reduced(self) -> bool:
        """Whether the head reads hidden states that were reduced."""
        return self.spec.reduce is not None and not self.head.reads_only_ids

    @property
    def decision_thresholds(self) -> Array | None:
        """The thresholds in the order of the labels, (T,), as tasks take them; None for none."""
        return in_order(self.thresholds, self.task, self.label_names)

    @property
    def probability_names(self) -> tuple[str, ...]:
        """The labels that predictions give a probability of; none of numbers."""
        return self.label_names if self.task.has_probabilities else ()

    def require_labels(self, name: str, value: Any) -> None:
        """Raise SpaceliteError for an option about labels, unless it is None, if the run predicts
        numbers."""
        if value is not None and not self.task.has_probabilities:
            raise SpaceliteError(
                f"{name}={value} has no effect on run {self.id}, which predicts numbers: they have "
                "neither labels to choose from nor a probability; leave it out",
                [name],
            )

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of the head and of its training, by name."""
        return {**self.head.settings(), **self.training.settings()}

    @property
    def split(self) -> str:
        """The split that reports show: `test` if there is one, else `validation`."""
        return shown_split(self.metrics)

    def same_but_seed(self) -> tuple[Any, ...]:
        """A key that is equal for runs that differ only in their seed; for heads that read token
        ids alone, also if the hidden states of their caches differ."""
        settings = {name: value for name, value in self.settings.items() if name != "seed"}
        cache = self.cache_key
        if self.head.reads_only_ids:
            cache = replace(self.spec, **OF_HIDDEN_STATES).cache_key()
        return (cache, self.head.kind, *sorted(settings.items()))

    def as_json(self) -> dict[str, Any]:
        """The record as the JSON object of `run.json`."""
        return {
            "format": FORMAT,
            "id": self.id,
            "name": self.name,
            "head": self.head.kind,
            "system": self.system,
            "settings": {**self.head.saved(), **self.training.saved()},
            "chosen": self.chosen,
            "cross_validated": self.cross_validated,
            "search": None if self.search is None else asdict(self.search),
            **({"thresholds": self.thresholds} if self.thresholds else {}),
            "best_epoch": self.best_epoch,
            "cache": self.cache,
            "cache_key": self.cache_key,
            "cache_files": list(self.cache_files),
            **({"text_column": self.text_column} if self.text_column is not None else {}),
            **({"backbone_folder": self.backbone_folder} if self.backbone_folder else {}),
            "spec": self.spec.as_json(),
            "label_names": list(self.label_names),
            "multilabel": self.task is MULTI_LABEL,
            **({"scale": list(self.task.scale)} if self.task.scale else {}),
            "examples": self.examples,
            "average": self.average,
            "train_params": self.train_params,
            "metrics": self.metrics,
            "seconds": self.seconds,
            "heads_in_pass": self.heads_in_pass,
            "created": self.created,
            "versions": self.versions,
            "checksums": self.checksums,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any], name: str) -> RunRecord:
        """Read a record of this or an earlier version, of the run whose folder has this name.
        Raises SpaceliteError if a later version or an extension of spacelite wrote it, and
        ValueError or OverflowError, which say why, if it is no record."""
        form = _item(int, content, "format")
        if form > FORMAT:
            raise SpaceliteError(
                f"it has format {form}, this spacelite reads {FORMAT}: upgrade spacelite"
            )
        kind = _item(str, content, "head")
        if kind not in heads.KINDS:
            raise SpaceliteError(
                f"its head is of a kind that this spacelite does not know ({kind!r}): upgrade "
                "spacelite, or import what adds this kind (spacelite --import FILE ...)"
            )
        settings = _item(dict[str, Any], content, "settings")
        head = _checked(heads.config_from(kind, settings))
        of_training = TrainingConfig if head.is_iterative else FitConfig
        training = _checked(of_training.restored(settings))
        spec = _item(dict[str, Any], content, "spec")
        read(CacheSpec, spec, "spec")
        cache_spec = CacheSpec.from_json(spec)
        several = read(bool | None, content.get("multilabel"), "multilabel")
        task = find_task(cache_spec.task, np.empty((0,) * (2 if several else 1)))
        if scale := read(tuple[float, ...], content.get("scale", []), "scale"):
            if len(scale) != 2 or not all(map(float.is_integer, scale)) or scale[0] > scale[1]:
                raise ValueError("scale is not the lowest and the highest label")
            task = task.trained_on(np.array(scale))
        computed = ("id", "head", "training", "spec", "task")
        record = cls(
            id=name,
            head=head,
            training=training,
            spec=cache_spec,
            task=task,
            **read_fields(cls, content, but=computed),
        )
        record._check()
        # A setting that was changed by hand, or by a damaged disk, would put the run into the wrong
        # row of a report.
        if read(str | None, content.get("id"), "id") not in (None, record.identity):
            raise ValueError(f"its settings are not those of the id {content['id']}")
        return record

    @property
    def identity(self) -> str:
        """The id that the run was saved under; that of a copied folder is the folder's name."""
        return run_id(self.spec, self.head, self.training)

    def _check(self) -> None:
        """Raise ValueError if values of the right types contradict each other."""
        headline = self.task.headline
        _check_scores({"train": {}, **self.metrics}, self.examples, [headline])
        if Path(self.cache).name != self.cache:
            raise ValueError("cache is no name")  # of which files' names are made
        if "\0" in "".join((self.cache, self.backbone_folder or "", *self.cache_files)):
            raise ValueError("a path holds a null character")
        if self.search is not None:
            self.search.check()
        if self.training.threshold is not None:
            wanted = self.task.threshold_labels(self.label_names)
            if not wanted or self.thresholds.keys() != set(wanted):
                raise ValueError("thresholds are not those of its labels")
        elif self.thresholds:
            raise ValueError("thresholds are there, but were not to be chosen")
        if not all(0 <= value <= 1 for value in self.thresholds.values()):
            raise ValueError("thresholds are no probabilities")
        if self.metrics[self.split][headline] is None:
            raise ValueError(f"metrics.{self.split}.{headline} is null")
        if len(self.label_names) < self.task.fewest_classes:
            raise ValueError("label_names are too few")
        if self.average == "binary" and len(self.label_names) != 2:
            raise ValueError("average is 'binary', but there are not two labels")
        counted = {
            "train_params": self.train_params,
            "seconds": self.seconds,
            "heads_in_pass": self.heads_in_pass - 1,
            "best_epoch": (self.best_epoch or 1) - 1,
        }
        for name, value in counted.items():
            if value < 0:
                raise ValueError(f"{name} is too small")


@dataclass(frozen=True, kw_only=True)
class TransferRecord:
    """An evaluation of a run on another data set, `transfer/<cache>.json`; docs/formats.md
    describes it."""

    cache: str
    cache_key: str
    dataset: str
    examples: dict[str, int]
    labels: dict[str, str]  # the data set's label name -> the run's
    metrics: dict[str, Scores]
    # By split, how many examples have a text that the run was trained on; None if that is not
    # known, as in evaluations by older versions; how many others have one of its validation split,
    # if something was chosen on that; and the metrics of the rest, where there are both.
    seen_in_training: dict[str, int] | None = None
    seen_in_choosing: dict[str, int] = field(default_factory=dict)
    metrics_unseen: dict[str, Scores] = field(default_factory=dict)
    # How the head's explanations do against the words that people marked, if that was measured.
    rationales: Rationales | None = None
    checksums: dict[str, str] = field(default_factory=dict)  # CRC-32 of the file of predictions

    @property
    def split(self) -> str:
        """The split that reports show."""
        return shown_split(self.metrics)

    @property
    def mapping(self) -> str:
        """The labels in words: `up as positive, down as negative`; `numbers` without a name."""
        if self.labels == {"label": "label"}:
            return "numbers"
        pairs = (f"{there} as {here}" for there, here in self.labels.items())
        return visible_name(", ".join(pairs))

    @property
    def seen(self) -> str:
        """How many examples of each split the run has seen, as a sentence; "" for none."""
        parts = [
            f"{when}: {', '.join(f'{n:,} of {self.examples[name]:,} {name}' for name, n in of)}"
            for when, counts in (
                ("in training", self.seen_in_training or {}),
                ("when settings were chosen", self.seen_in_choosing),
            )
            if (of := [(name, count) for name, count in counts.items() if count])
        ]
        return f"Examples seen {'; '.join(parts)}: the metrics are too optimistic." if parts else ""

    def is_own(self, run: RunRecord) -> bool:
        """Whether the data set is the run's own, or holds nothing but its training texts."""
        seen = self.seen_in_training or {}
        return self.cache_key == run.cache_key or (
            seen.get(self.split) == self.examples[self.split]
        )

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> TransferRecord:
        """Read a record. Raises ValueError if `content` is not one."""
        record: TransferRecord = read(cls, content, "it")
        headlines = dict.fromkeys(task.headline for task in TASKS.values())
        _check_scores(record.metrics, record.examples, [*headlines])
        return record


@dataclass(frozen=True)
class EpochRecord:
    """An entry of `history.json`: the number of an epoch and every metric after it. Epoch 0 is the
    start of a head that is trained on top of another."""

    epoch: int
    train: Scores
    validation: Scores


def shown_split(by_split: Mapping[str, Any]) -> str:
    """The split that reports show: `test` if there is one, else `validation`."""
    return "test" if "test" in by_split else "validation"


def run_id(spec: CacheSpec, head: HeadConfig, training: FitConfig) -> str:
    """The id of a run, determined only by the cache's spec and the settings."""
    hashed = {**head.hashed(), **training.hashed()}
    identity = canonical({"cache": spec.cache_key(), "head": head.kind, **hashed})
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return "--".join([slug(spec.backbone), slug(spec.dataset), head.kind, digest[:8]])


def _item(kind: Any, content: Any, name: str) -> Any:
    """A required item of a JSON object, of a type as in `read`."""
    if name not in read(dict[str, Any], content, "it"):
        raise ValueError(f"{name} is missing")
    return read(kind, content[name], name)


def _checked(config: C) -> C:
    """The config, if all of its values are valid; ValueError otherwise."""
    for item in fields(config):
        value = getattr(config, item.name)
        if isinstance(value, list | dict):
            raise ValueError(f"settings.{item.name} is neither a number nor text")
        # A name may be that of an extension which is not imported here, such as a pooling.
        if isinstance(value, str) and str(item.type).startswith("str"):
            continue
        if (needed := item.metadata["check"](value)) is not None:
            raise ValueError(f"settings.{item.name} is {value!r}: {needed}")
    return config


def _check_scores(
    metrics: Mapping[str, Scores], examples: Mapping[str, int], headlines: Sequence[str]
) -> None:
    """Raise ValueError unless there are the split that reports show, a headline metric of all
    splits but train, with which predictions are compared, and the number of examples of every
    split."""
    for split in {shown_split(metrics), *metrics} - {"train"}:
        if not metrics.get(split, {}).keys() & {*headlines}:
            raise ValueError(f"metrics.{split}.{headlines[0]} is missing")
    for split in metrics:
        if examples.get(split, 0) < 1:
            raise ValueError(f"examples.{split} is missing or not above 0")


def read(kind: Any, value: Any, name: str) -> Any:
    """A JSON value as a value of a type: `str`, `int`, `float`, `bool`, `None`, a dataclass,
    `tuple[X, ...]`, `list[X]`, `dict[str, X]` or a union of these; a value of any other type is
    returned as it is. Raises ValueError, which names the value, if it is of another type."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        (kind,) = [kind for kind in inner if kind is not type(None)]
        return read(kind, value, name)
    if origin in (tuple, list):
        items = _of_type(list, value, name, "a list")
        return origin(read(inner[0], item, f"{name}[{at}]") for at, item in enumerate(items))
    if origin is dict:
        items = _of_type(dict, value, name, "an object")
        return {key: read(inner[1], item, f"{name}.{key}") for key, item in items.items()}
    if is_dataclass(kind):
        content = _of_type(dict, value, name, "an object")
        values = read_fields(kind, content, f"{name}.")
        return kind(**values)  # type: ignore[operator]
    if kind is float and type(value) is int:
        return float(value)
    return _of_type(kind, value, name, WORDS[kind]) if kind in WORDS else value


def read_fields(
    kind: Any, content: Mapping[str, Any], prefix: str = "", but: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The fields of a dataclass, by name, from a JSON object, except those in `but`. A field that
    is missing takes its default; what is no field is left out. Raises ValueError if a field without
    a default is missing, or a value is of another type; messages write `prefix` before its name."""
    values = {}
    for item in fields(kind):
        if item.name in but:
            continue
        if item.name in content:
            values[item.name] = read(
                _hints(kind)[item.name], content[item.name], prefix + item.name
            )
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ValueError(f"{prefix}{item.name} is missing")
    return values


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _of_type(kind: type, value: Any, name: str, words: str) -> Any:
    if type(value) is not kind:
        shown = json.dumps(value, ensure_ascii=False)
        shown = shown if len(shown) <= 20 else f"{shown[:19]}…"
        raise ValueError(f"{name} is {shown}, not {words}")
    return value
