"""The audit of labels: which are probably wrong, by what heads say of examples that they did not
see, and which texts are nearly the same and have different labels.

Shapes: N examples, C classes, d width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from spacelite import heads
from spacelite.cache import texts
from spacelite.cache.spec import Encoding
from spacelite.cache.store import Cache
from spacelite.data.splits import Source, joined
from spacelite.data.writers import rounded
from spacelite.document import Line, Table, decimals
from spacelite.errors import SpaceliteError
from spacelite.heads import HeadConfig
from spacelite.heads.base import Parameters, Tokens
from spacelite.progress import OnProgress
from spacelite.runs.record import read, read_fields
from spacelite.studies.cross_validation import divide, weights_outside
from spacelite.studies.study import Study
from spacelite.tasks import SINGLE_LABEL
from spacelite.types import Array

NEAR = 0.99  # cosine of the means of two texts that are nearly the same
ROWS_AT_ONCE = 1024  # of the matrix of cosines
WORDS = 5  # that are named as decisive
MOST_FINDINGS = 20  # that are printed, and that a report lists
MOST_GROUPS, MOST_MEMBERS = 5, 4  # groups of near-duplicates, and members of one, that are listed
COLUMNS = ("index", "file", "row", "label", "suggested", "probability", "own", "words", "text")


@dataclass(frozen=True)
class Finding:
    """An example whose label is probably wrong, as a person reads it."""

    index: int  # in the train split
    source: Source | None
    text: str  # or the words of its tokens, joined by spaces
    label: str
    suggested: str
    probability: float  # of the suggested label
    own: float  # the probability of its own label
    words: list[str] = field(default_factory=list)  # that spoke most for the suggested label

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
        """What `as_json` returned. Raises ValueError, KeyError or TypeError for anything else."""
        unknown = {name: math.nan for name in ("probability", "own") if content[name] is None}
        finding: Finding = read(cls, {**content, **unknown}, "finding")
        return finding


@dataclass(frozen=True)
class Audit(Study):
    """The result of an audit, most probably wrong labels first."""

    title = "Labels that are probably wrong"

    head: HeadConfig
    folds: int
    examples: int
    accuracy: float  # how often the head agrees with the labels of examples that it did not see
    findings: list[Finding]
    pairs: list[tuple[Finding, Finding, float]]  # near-duplicates with different labels; cosine

    @property
    def groups(self) -> list[list[Finding]]:
        """The examples of all pairs, those that are nearly the same together: the nearest first."""
        group: dict[int, list[Finding]] = {}
        for left, right, _ in self.pairs:
            first = group.setdefault(left.index, [left])
            second = group.setdefault(right.index, [right])
            if first is not second:
                first += second
                group.update((member.index, first) for member in second)
        return list({id(members): members for members in group.values()}.values())

    # As JSON, and as csv.

    def as_json(self) -> dict[str, Any]:
        """The audit as a JSON object."""
        return {
            "head": self.head.name,
            "settings": {"head": self.head.kind, **self.head.settings()},
            "folds": self.folds,
            "examples": self.examples,
            "accuracy": self.accuracy,
            "findings": [finding.as_json() for finding in self.findings],
            "pairs": [
                {"cosine": cosine, "examples": [first.as_json(), second.as_json()]}
                for first, second, cosine in self.pairs
            ],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Audit:
        """What `as_json` returned. Raises ValueError, KeyError or TypeError for anything else."""
        settings = dict(content["settings"])
        return cls(
            head=heads.config_from(settings.pop("head"), settings),
            **read_fields(cls, content, but=("head", "findings", "pairs")),
            findings=[Finding.from_json(finding) for finding in content["findings"]],
            pairs=[(*map(Finding.from_json, pair["examples"]), pair["cosine"])
                   for pair in content["pairs"]],
        )  # fmt: skip

    def csv_rows(self) -> list[Sequence[Any]]:
        """A row for each finding, below a row of headings."""
        return [
            COLUMNS,
            *(
                [
                    finding.index, finding.source and finding.source.file,
                    finding.source and finding.source.row, finding.label, finding.suggested,
                    rounded(finding.probability), rounded(finding.own), " ".join(finding.words),
                    finding.text,
                ]
                for finding in self.findings
            ),
        ]  # fmt: skip

    # For readers.

    def tables(self) -> list[Table]:
        """The first findings, and what is nearly the same."""
        groups = [self.groups_table()] if self.pairs else []
        lines = [
            Line.of(
                finding.where,
                finding.label,
                finding.suggested,
                decimals(finding.probability, 3),
                ", ".join(finding.words),
                " ".join(finding.text.split()),
            )
            for finding in self.findings[:MOST_FINDINGS]
        ]
        if not lines:
            return groups
        count = len(self.findings)
        first = f"The first {MOST_FINDINGS} of {count:,}, by" if count > MOST_FINDINGS else "By"
        caption = f"{first} how much more probable the suggested label is than the given one"
        columns = ["Example", "Label", "Suggested", "Prob.", "Words", "Text"]
        return [Table(caption, columns, lines, "audit"), *groups]

    def groups_table(self) -> Table:
        """The first groups of near-duplicates, a line for each of the first members."""
        lines = [
            Line.of(
                member.where,
                member.label,
                " ".join(member.text.split()),
                kind="continued" if number else "",
            )
            for group in self.groups[:MOST_GROUPS]
            for number, member in enumerate(group[:MOST_MEMBERS])
        ]
        title = "Near-duplicates with different labels"
        return Table(title, ["Example", "Label", "Text"], lines, "groups")

    @property
    def sentences(self) -> list[str]:
        """What was done, and how many labels may be wrong."""
        count, groups = len(self.findings), self.groups
        sentences = [
            f"{count:,} of {self.examples:,} training examples ({count / self.examples:.1%}) may "
            f"have another label: {self.head.name}, fitted to the other {self.folds - 1} of "
            f"{self.folds} folds, is confident of it (confident learning). Look at them before you "
            f"change anything: the head agrees with {self.accuracy:.1%} of all labels."
        ]
        if groups:
            examples = len({member.index for group in groups for member in group})
            sentences.append(
                f"{len(groups):,} groups of texts, {examples:,} in all, are nearly the same and "
                "have different labels."
            )
        return sentences


class Suspect(NamedTuple):
    """An example whose label is probably wrong, by its index in the train split; labels are
    numbers."""

    example: int
    label: int
    suggested: int
    probability: float  # of the suggested label
    own: float  # the probability of its own label


class Conflict(NamedTuple):
    """Two examples whose texts are nearly the same and whose labels differ, by their indices in the
    train split, with the cosine of the means of their hidden states."""

    first: int
    second: int
    cosine: float


def suspects(probabilities: Array, labels: Array) -> list[Suspect]:
    """The examples whose label (N,) is probably wrong, most probably wrong first, from the
    probabilities (N, C) of each by a head that did not see it: confident learning (Northcutt, Jiang
    and Chuang, Journal of Artificial Intelligence Research 70, 2021).

    Each class has a threshold: the mean probability that examples with this label have of it. The
    class of an example is the most probable of those that reach their thresholds. An example is
    suspected if it has such a class, and that is not its label. Examples are ranked by the
    probability of the label minus that of the class.
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
    """Pairs of examples with a cosine of at least `near` and different labels, (N,) or (N, C),
    nearest first. Cosines are those of the mean hidden states (N, d) less their mean: all hidden
    states of a transformer share a large part."""
    centred = means.astype(np.float32) - means.mean(axis=0, dtype=np.float64).astype(np.float32)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.maximum(norms, 1e-12)
    pairs: list[Conflict] = []
    for start in range(0, len(unit), ROWS_AT_ONCE):
        cosines = unit[start : start + ROWS_AT_ONCE] @ unit[start:].T
        for row, column in np.argwhere(cosines >= near).tolist():
            first, second = start + row, start + column
            if first < second and np.any(labels[first] != labels[second]):
                pairs.append(Conflict(first, second, float(min(cosines[row, column], 1.0))))
    return sorted(pairs, key=lambda pair: (-pair.cosine, pair.first, pair.second))


def audit_labels(
    cache: Cache,
    config: HeadConfig,
    *,
    folds: int = 5,
    repeats: int = 1,
    seed: int = 0,
    backbone: str | None = None,
    device: str = "cpu",
    on_progress: OnProgress = lambda phase, done, total: None,
) -> Audit:
    """Find labels of the train split of an open, complete cache that are probably wrong, by a head
    that is fitted directly and whose logits are a sum over tokens. Probabilities are averaged over
    repeats. `backbone` is its folder, if it was a local one: its tokenizer defines the words."""
    from spacelite.training.config import TrainingConfig
    from spacelite.training.loop import Member, open_train, train_weighted

    if cache.task is not SINGLE_LABEL:
        raise SpaceliteError(
            "an audit needs labels that are classes, a single one per text: cache "
            f"{cache.name} has {cache.task.phrase}"
        )
    kind = heads.kind(config.kind)
    if config.is_iterative or kind.not_additive(config) is not None or config.reads_layers:
        raise SpaceliteError(
            f"{config.name} is no head for an audit: choose tfidf, logreg on the mean, or additive "
            "with the blocks mean and ngrams",
            ["head"],
        )
    describer = _Describer(cache, backbone)
    labels = cache.splits["train"].labels
    fold = divide(
        labels, cache.task, cache.label_names, count=folds, repeats=repeats, seed=seed,
        same=texts.numbered(cache, "train"),
    )  # fmt: skip
    split = open_train(cache, [config], device)
    members = [Member(config, weights) for weights in weights_outside(fold, folds)]
    fits = train_weighted(
        cache, members, TrainingConfig(), device=device, split=split, on_progress=on_progress
    )
    probabilities = np.zeros((len(labels), len(cache.label_names)))
    for number, fit in enumerate(fits):
        held = fold[number // folds] == number % folds
        probabilities[held] += SINGLE_LABEL.probabilities(fit.logits[held]) / repeats
    findings = []
    for suspect in suspects(probabilities, labels):
        parameters = fits[int(fold[0, suspect.example])].parameters
        contributions = describer.contributions(config, parameters, suspect.example)
        decisive = contributions[:, suspect.suggested] - contributions[:, suspect.label]
        findings.append(describer.finding(suspect, decisive))
    means = split.features("mean").cpu().numpy()
    pairs = [
        (
            describer.finding(Suspect(a, int(labels[a]), int(labels[b]), math.nan, math.nan)),
            describer.finding(Suspect(b, int(labels[b]), int(labels[a]), math.nan, math.nan)),
            cosine,
        )
        for a, b, cosine in conflicts(means, labels)
    ]
    agrees = probabilities.argmax(axis=1) == labels
    return Audit(config, folds, len(labels), float(agrees.mean()), findings, pairs)


class _Describer:
    """Puts examples of the train split into words."""

    def __init__(self, cache: Cache, backbone: str | None) -> None:
        from spacelite.backbones.tokenizer import Words, WordsOfIds, held_words

        self._cache, self._split = cache, cache.splits["train"]
        self._texts = texts.read(cache, "train")
        self._ids = self._split.read_token_ids()
        if cache.spec.is_imported:
            self._words: Words = WordsOfIds()
            return
        files = Encoding.like(cache.spec, backbone, texts.recorded(cache.path, "backbone")).files
        if files.tokenizer_hash != cache.spec.tokenizer_hash:
            raise SpaceliteError(
                f"{files.folder} is not the backbone of cache {cache.name} "
                f"({cache.spec.backbone}): name its folder with backbone=FOLDER",
                ["backbone"],
            )
        self._words = held_words(files, cache.spec.prefix, cache.spec.skip_first)

    def contributions(self, config: HeadConfig, parameters: Parameters, example: int) -> Array:
        """What each of an example's n tokens adds to the logits of a head, (n, C)."""
        low, high = self._split.offsets[example : example + 2].tolist()
        hidden = self._split.read_hidden(example, example + 1).astype(np.float64)
        tokens = Tokens(hidden, self._ids[low:high], np.array([0, high - low]))
        values = {name: value.numpy() for name, value in parameters.items()}
        return heads.kind(config.kind).token_shares(config, values, tokens)

    def finding(self, suspect: Suspect, decisive: Array | None = None) -> Finding:
        """A suspect in words; `decisive` is what its tokens say for the suggested label, (n,)."""
        low, high = self._split.offsets[suspect.example : suspect.example + 2].tolist()
        text = None if self._texts is None else self._texts.text(suspect.example)
        written = None if self._cache.spec.is_imported else text  # else all of it were one word
        words = self._words.of(self._ids[low:high].tolist(), written)
        sums: dict[str, float] = {}
        if decisive is not None:
            for word, special, tokens in words:
                if not special and any(letter.isalnum() for letter in word):
                    sums[word] = sums.get(word, 0.0) + float(decisive[list(tokens)].sum())
        best = sorted(sums, key=lambda word: -sums[word])[:WORDS]
        names = self._cache.label_names
        return Finding(
            index=suspect.example,
            source=None if self._texts is None else self._texts.source(suspect.example),
            text=joined(text if text is not None else " ".join(word for word, _, _ in words)),
            label=names[suspect.label],
            suggested=names[suspect.suggested],
            probability=suspect.probability,
            own=suspect.own,
            words=[word for word in best if sums[word] > 0],
        )
