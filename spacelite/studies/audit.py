"""Labels that are probably wrong: what heads say of examples that they did not see, and texts that
are nearly the same and have different labels.

Shapes: N examples, C classes, d width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spacelite import backbones, heads
from spacelite.backbones.words import Words
from spacelite.cache import backbone_settings
from spacelite.cache import texts as cached_texts
from spacelite.cache.store import Cache
from spacelite.data.splits import Source
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.heads.base import Parameters, Tokens
from spacelite.progress import OnProgress
from spacelite.studies.folds import folds as divided
from spacelite.tasks import SINGLE_LABEL
from spacelite.training.weighted import fit_on, open_train

Array = npt.NDArray[Any]

NEAR = 0.99  # cosine of the means of two texts that are nearly the same
ROWS_AT_ONCE = 1024  # of the matrix of cosines
WORDS = 5  # that are named as decisive


class Suspect(NamedTuple):
    """An example whose label is probably wrong.

    Attributes:
        example: Its index in the train split.
        label: The number of its label.
        suggested: The number of the label that it probably has.
        probability: The probability of the suggested label.
        own: The probability of its own label.
    """

    example: int
    label: int
    suggested: int
    probability: float
    own: float


class Conflict(NamedTuple):
    """Two examples whose texts are nearly the same and whose labels differ.

    Attributes:
        first: Index of the one in the train split.
        second: Index of the other.
        cosine: The cosine of the means of their hidden states, centred on the mean of all.
    """

    first: int
    second: int
    cosine: float


def suspects(probabilities: Array, labels: Array) -> list[Suspect]:
    """The examples whose label is probably wrong, most probably wrong first: confident learning
    (Northcutt, Jiang and Chuang, Journal of Artificial Intelligence Research 70, 2021).

    Each class has a threshold: the mean probability that examples with this label have of it. The
    class of an example is the most probable of those that reach their thresholds. An example is
    suspected if it has such a class, and that is not its label. Examples are ranked by the
    probability of the label minus that of the class.

    Args:
        probabilities: Of each example by a head that did not see it, (N, C).
        labels: (N,).
    """
    classes = probabilities.shape[1]
    thresholds = np.full(classes, np.inf)  # a label that no example has is not suggested
    for number in np.unique(labels).tolist():
        thresholds[number] = probabilities[labels == number, number].mean()
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = reached.argmax(axis=1)
    rows = np.arange(len(labels))
    own, other = probabilities[rows, labels], probabilities[rows, suggested]
    wrong = np.flatnonzero((reached.max(axis=1) >= 0) & (suggested != labels))
    order = wrong[np.argsort((own - other)[wrong], kind="stable")]
    return [
        Suspect(row, int(labels[row]), int(suggested[row]), float(other[row]), float(own[row]))
        for row in order.tolist()
    ]


def conflicts(means: Array, labels: Array, near: float = NEAR) -> list[Conflict]:
    """Pairs of examples that are nearly the same and have different labels, nearest first.

    Args:
        means: The mean hidden state of each example, (N, d). Cosines are those of the vectors less
            their mean: all hidden states of a transformer share a large part.
        labels: (N,), or (N, C) in a multi-label task.
        near: Least cosine.
    """
    centred = means.astype(np.float32) - means.mean(axis=0, dtype=np.float64).astype(np.float32)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.maximum(norms, 1e-12)
    found: list[Conflict] = []
    for start in range(0, len(unit), ROWS_AT_ONCE):
        cosines = unit[start : start + ROWS_AT_ONCE] @ unit[start:].T
        for row, column in np.argwhere(cosines >= near).tolist():
            first, second = start + row, start + column
            if first < second and np.any(labels[first] != labels[second]):
                found.append(Conflict(first, second, float(min(cosines[row, column], 1.0))))
    return sorted(found, key=lambda one: (-one.cosine, one.first, one.second))


@dataclass(frozen=True)
class Finding:
    """A suspected example as a person reads it.

    Attributes:
        index: Its index in the train split.
        source: Where it comes from; None if that is not known.
        text: Its text, or the words of its tokens.
        label: The name of its label.
        suggested: The name of the label that it probably has.
        probability: The probability of the suggested label.
        own: The probability of its own label.
        words: The words that spoke most for the suggested label and against its own.
    """

    index: int
    source: Source | None
    text: str
    label: str
    suggested: str
    probability: float
    own: float
    words: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        """Where it comes from: a file and row, or its index in the train split."""
        return f"train:{self.index}" if self.source is None else str(self.source)

    def as_json(self) -> dict[str, Any]:
        """The finding as a JSON object; an example of a pair has no probabilities."""
        content = asdict(self)
        for name in ("probability", "own"):
            content[name] = None if math.isnan(content[name]) else content[name]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Finding:
        """What `as_json` made. Raises KeyError or TypeError for anything else."""
        source = content["source"]
        chances = {
            name: math.nan if content[name] is None else float(content[name])
            for name in ("probability", "own")
        }
        return cls(**{**content, **chances, "source": None if source is None else Source(**source)})


@dataclass(frozen=True)
class Audit:
    """What an audit of the labels of a train split found.

    Attributes:
        head: The head whose probabilities were used.
        folds: Number of folds.
        examples: N.
        accuracy: How often the head agrees with the labels of examples that it did not see.
        findings: The examples that are probably mislabelled, most probable first.
        pairs: Texts that are nearly the same and have different labels: (text, label, text, label,
            cosine).
    """

    head: HeadConfig
    folds: int
    examples: int
    accuracy: float
    findings: list[Finding]
    pairs: list[tuple[Finding, Finding, float]]

    @property
    def groups(self) -> list[list[Finding]]:
        """The examples of all pairs, those that are nearly the same together: the nearest first."""
        group: dict[int, list[Finding]] = {}
        for one, other, _ in self.pairs:
            first = group.setdefault(one.index, [one])
            second = group.setdefault(other.index, [other])
            if first is not second:
                first += second
                group.update((each.index, first) for each in second)
        return list({id(each): each for each in group.values()}.values())

    def as_json(self) -> dict[str, Any]:
        """The audit as a JSON object."""
        return {
            "head": self.head.name,
            "settings": {"head": self.head.kind, **self.head.settings()},
            "folds": self.folds,
            "examples": self.examples,
            "accuracy": self.accuracy,
            "findings": [one.as_json() for one in self.findings],
            "pairs": [
                {"cosine": cosine, "examples": [one.as_json(), other.as_json()]}
                for one, other, cosine in self.pairs
            ],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Audit:
        """What `as_json` made. Raises ValueError, KeyError or TypeError for anything else."""
        settings = dict(content["settings"])
        pairs = [
            (*map(Finding.from_json, one["examples"]), one["cosine"]) for one in content["pairs"]
        ]
        return cls(
            heads.config_from(settings.pop("head"), settings),
            int(content["folds"]), int(content["examples"]), float(content["accuracy"]),
            [Finding.from_json(one) for one in content["findings"]], pairs,
        )  # fmt: skip


def audit_labels(
    cache: Cache,
    config: HeadConfig,
    *,
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    near: float = NEAR,
    backbone: str | None = None,
    device: str = "cpu",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Audit:
    """Find labels of the train split that are probably wrong.

    Args:
        cache: An open, complete cache of a task with one label per text.
        config: A head that is fitted at once and whose logits are a sum over tokens that the cache
            holds.
        folds: Number of folds: each example is judged by a head that was fitted to the others.
        repeats: How often examples are divided anew; probabilities are averaged.
        seed: Seed of the divisions.
        near: Least cosine of texts that count as nearly the same.
        backbone: Folder of the backbone, if it was a local one: its tokenizer defines the words.
        device: `cpu` or `cuda`.
        on_progress: Called with the phase (`fit`), the number of fits done and the total.

    Raises:
        SpaceliteError: A text may have several labels, the head does not suit, or there are too few
            examples for so many folds.
    """
    if cache.task.name != SINGLE_LABEL.name:
        raise SpaceliteError("an audit needs data with one label per text")
    kind = heads.kind(config.kind)
    if config.is_iterative or kind.not_additive(config) is not None or config.reads_layers:
        raise SpaceliteError(
            f"{config.name} is no head for an audit: choose tfidf, logreg on the mean, or additive "
            "with the blocks mean and ngrams",
            ["head"],
        )
    describe = _Describer(cache, backbone)
    labels = cache.splits["train"].labels
    fold = divided(labels, cache.label_names, count=folds, repeats=repeats, seed=seed)
    seen = [np.asarray(own != number, np.float32) for own in fold for number in range(folds)]
    split = open_train(cache, [config], device)
    fits = fit_on(
        cache, config, seen, device=device, split=split,
        on_progress=lambda done, total: on_progress("fit", done, total),
    )  # fmt: skip
    probabilities = np.zeros((len(labels), len(cache.label_names)))
    for number, fit in enumerate(fits):
        held = fold[number // folds] == number % folds
        probabilities[held] += SINGLE_LABEL.probabilities(fit.logits[held]) / repeats
    found = []
    for one in suspects(probabilities, labels):
        parameters = fits[int(fold[0, one.example])].parameters
        shares = describe.shares(config, parameters, one.example)
        found.append(describe(one, shares[:, one.suggested] - shares[:, one.label]))
    means = split.features("mean").cpu().numpy()
    pairs = [
        (
            describe(Suspect(a, int(labels[a]), int(labels[b]), float("nan"), float("nan"))),
            describe(Suspect(b, int(labels[b]), int(labels[a]), float("nan"), float("nan"))),
            cosine,
        )
        for a, b, cosine in conflicts(means, labels, near)
    ]
    right = probabilities.argmax(axis=1) == labels
    return Audit(config, folds, len(labels), float(right.mean()), found, pairs)


class _Describer:
    """Puts examples of the train split into words."""

    def __init__(self, cache: Cache, backbone: str | None) -> None:
        self._cache, self._split = cache, cache.splits["train"]
        self._texts = cached_texts.read(cache, "train")
        wanted = backbone_settings(cache.spec, backbone)
        files = backbones.locate(wanted["backbone"], wanted["revision"])
        if files.tokenizer_hash != cache.spec.tokenizer_hash:
            raise SpaceliteError(
                f"{files.folder} is not the backbone of cache {cache.name} "
                f"({cache.spec.backbone}): name its folder with backbone=FOLDER",
                ["backbone"],
            )
        self._words = Words(files.folder)
        self._ids = self._split.read_token_ids()

    def shares(self, config: HeadConfig, parameters: Parameters, example: int) -> Array:
        """The shares of an example's tokens in the logits of a head, (n, C)."""
        low, high = self._split.offsets[example : example + 2].tolist()
        hidden = self._split.read_hidden(example, example + 1).astype(np.float64)
        tokens = Tokens(hidden, self._ids[low:high], np.array([0, high - low]))
        values = {name: value.numpy() for name, value in parameters.items()}
        return heads.kind(config.kind).token_shares(config, values, tokens)

    def __call__(self, one: Suspect, shares: Array | None = None) -> Finding:
        low, high = self._split.offsets[one.example : one.example + 2].tolist()
        text = None if self._texts is None else self._texts.text(one.example)
        words = self._words.of(self._ids[low:high].tolist(), text)
        decisive: Sequence[str] = []
        if shares is not None:
            sums: dict[str, float] = {}
            for word, special, tokens in words:
                if not special and any(each.isalnum() for each in word):
                    sums[word] = sums.get(word, 0.0) + float(shares[list(tokens)].sum())
            best = sorted(sums, key=lambda word: -sums[word])[:WORDS]
            decisive = [word for word in best if sums[word] > 0]
        names = self._cache.label_names
        return Finding(
            index=one.example,
            source=None if self._texts is None else self._texts.source(one.example),
            text=text if text is not None else " ".join(word for word, _, _ in words),
            label=names[one.label],
            suggested=names[one.suggested],
            probability=one.probability,
            own=one.own,
            words=list(decisive),
        )
