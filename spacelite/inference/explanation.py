"""Which words mattered: the exact share of every token in a text's logits.

Where a head's logits are a bias plus a mean over tokens (`heads.Head.token_logits`), each token's
share is exact: nothing is approximated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite import heads
from spacelite.backbones.words import Words
from spacelite.cache.dtypes import stored_type
from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.inference import prediction
from spacelite.runs import Run
from spacelite.tasks import Task

Array = npt.NDArray[Any]

WEAK = 0.1  # of the strongest contribution: words below it are not marked


@dataclass(frozen=True)
class Word:
    """A word of a text.

    Attributes:
        text: The word, or a special token.
        special: Whether it is a special token.
        tokens: The numbers of its tokens.
        contributions: Its share in each label's logit, (C,).
    """

    text: str
    special: bool
    tokens: list[int]
    contributions: list[float]


@dataclass(frozen=True)
class Marked:
    """A word of a highlighted text: `side` is for, against or "", `weight` in [0, 1] how much."""

    text: str
    side: str
    weight: float
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """A prediction and each word's share in it. Lists of C are by `labels`.

    Attributes:
        labels: The C label names.
        probabilities: Of each label.
        logits: As the head's forward pass computes them.
        bias: The part of each logit that is no word's.
        words: The text's words.
        difference: How far bias and words together are from the logits, at most.
        example: The label names of the cached example, where it is one.
        spaces: The tokens in each label's concept space, C arrays (n, 1 to 3); none for heads
            without concept spaces.
    """

    labels: list[str]
    probabilities: list[float]
    logits: list[float]
    bias: list[float]
    words: list[Word]
    difference: float
    example: list[str] | None = None
    spaces: list[Array] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The explanation as a JSON object, without the concept spaces."""
        content = asdict(replace(self, spaces=[]))
        del content["spaces"]
        return content

    @property
    def predicted(self) -> int:
        """The number of the most probable label."""
        return int(np.argmax(self.probabilities))

    def marked(self, label: int) -> list[Marked]:
        """The text, its words marked by their shares in a label's logit."""
        shares = [word.contributions[label] for word in self.words]
        return marked([word.text for word in self.words], shares)


def marked(words: Sequence[str], shares: Sequence[float]) -> list[Marked]:
    """A text's words with their shares in a logit, those that matter marked."""
    strongest = max(map(abs, shares), default=0.0) or 1.0
    text = []
    for word, share in zip(words, shares, strict=True):
        weight = abs(share) / strongest
        side = "" if weight <= WEAK else "for" if share > 0 else "against"
        text.append(Marked(word, side, weight, share))
    return text


def has_shares(run: Run) -> bool:
    """Whether a head's logits are a sum over tokens."""
    return heads.kind(run.head.kind).not_additive(run.head) is None


def require_shares(run: Run) -> None:
    """Raise SpaceliteError for a head whose logits are not a sum over tokens."""
    reason = heads.kind(run.head.kind).not_additive(run.head)
    if reason is not None:
        raise SpaceliteError(
            f"run {run.id} cannot be explained: {reason}; explain a space head, or a linear head "
            "or logreg on the mean of the tokens"
        )


class Shares:
    """A run's head, as far as each token's share in the logits needs it."""

    def __init__(self, run: Run) -> None:
        """Raises SpaceliteError where the logits are not a sum over tokens."""
        require_shares(run)
        self._kind, self._config = heads.kind(run.head.kind), run.head
        self._parameters = run.parameters
        self.labels = list(run.record.label_names)
        self.task: Task = run.record.task
        self.bias: Array = self._kind.bias(self._parameters)
        # The most numbers that are held of a token at once.
        self.numbers_per_token = self._kind.numbers_per_token(
            self._config, len(self.labels), run.width
        )

    def token_logits(self, hidden: Array) -> Array:
        """n times the shares (n, C) of a text's n tokens, from `hidden` (n, d), in its type."""
        return self._kind.token_logits(self._config, self._parameters, hidden)


def explain(
    run: Run,
    rows: Array,
    words: Sequence[tuple[str, bool, Sequence[int]]],
    logits: Array,
    example: list[str] | None = None,
) -> Explanation:
    """Split a prediction into the shares of its words.

    Args:
        run: The head.
        rows: The text's hidden states in the stored type, n rows.
        words: The text's words, each with whether it is a special token and the numbers of its
            tokens.
        logits: As the head's forward pass gave them, (C,).
        example: The label names of the cached example, where it is one.

    Raises:
        SpaceliteError: The head's logits are not a sum over tokens.
    """
    head = Shares(run)
    hidden = stored_type(run.record.spec.dtype).decode(rows).astype(np.float64)
    shares = head.token_logits(hidden) / len(hidden)
    explained = [
        Word(text, special, list(tokens), shares[list(tokens)].sum(axis=0).tolist())
        for text, special, tokens in words
    ]
    bias = head.bias.astype(np.float64)
    total = bias + np.sum([word.contributions for word in explained], axis=0)
    return Explanation(
        labels=head.labels,
        probabilities=head.task.probabilities(logits).tolist(),
        logits=np.asarray(logits, np.float64).tolist(),
        bias=bias.tolist(),
        words=explained,
        difference=float(np.abs(total - logits).max()),
        example=example,
        spaces=concept_points(run, hidden),
    )


def explain_text(
    run: Run, text: str, *, backbone: str | None = None, device: str = "auto"
) -> Explanation:
    """Explain the prediction for a text.

    Args:
        run: The head.
        text: The text.
        backbone: Where the run's backbone lies, if it was a local folder.
        device: Where the backbone runs.

    Raises:
        SpaceliteError: The head's logits are not a sum over tokens, the text is empty, or the
            backbone is not the run's.
    """
    require_shares(run)
    files = prediction.backbone_files(run, backbone)
    hidden, ids, pooled = prediction.one_text(run, text, files, device=device)
    (logits,) = prediction.head_logits(run, hidden[None], None if pooled is None else pooled[None])
    return explain(run, hidden, Words(files.folder).of(ids.tolist()), logits)


def explain_example(
    run: Run, cache: Cache, location: str, *, backbone: str | None = None
) -> Explanation:
    """Explain the prediction for an example of the run's cache; the backbone is not run.

    Args:
        run: The head.
        cache: The run's, open.
        location: The example's split and number, as `test:17`.
        backbone: Where the run's backbone lies, if it was a local folder: its tokenizer's file
            tells the words.

    Raises:
        SpaceliteError: The head's logits are not a sum over tokens, or there is no such example.
    """
    require_shares(run)
    found = cached_example(cache, location)
    words = Words(prediction.backbone_files(run, backbone).folder)
    split, _, number = location.partition(":")
    saved = run.predictions() if split == run.record.split else None
    if saved is not None and len(saved.logits) == len(cache.splits[split]):
        logits = saved.logits[int(number)]
    else:
        pooled = None if found.pooled is None else found.pooled[None]
        (logits,) = prediction.head_logits(run, found.hidden[None], pooled)
    return explain(run, found.hidden, words.of(found.token_ids.tolist()), logits, found.labels)


def concept_points(run: Run, hidden: Array, most: int = 3) -> list[Array]:
    """A text's tokens in the concept space of each label.

    Where a space has more than `most` dimensions: the coordinates along the first principal axes of
    the text's tokens, the origin staying where it is.

    Args:
        run: The head.
        hidden: The text's hidden states (n, d).
        most: Dimensions of a space at most.

    Returns:
        C arrays (n, min(L, most)); none for a head without concept spaces.
    """
    kind = heads.kind(run.head.kind)
    coordinates = kind.coordinates(run.parameters, hidden.astype(np.float64))
    if coordinates is None:
        return []
    spaces = np.split(coordinates, len(run.record.label_names), axis=1)
    return [space if space.shape[1] <= most else _principal(space, most) for space in spaces]


def _principal(points: Array, count: int) -> Array:
    """Points (n, L) along the first `count` of their principal axes, (n, count)."""
    _, _, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=len(points) < count)
    axes = axes[:count]
    # Either direction is an axis: the one whose largest part is positive.
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    projected: Array = points @ (axes * np.sign(largest)[:, None]).T
    return projected


@dataclass(frozen=True)
class CachedExample:
    """An example of a cache: hidden states (n, d), token ids (n,), the pooler's output (d,) where
    there is one, and its label names."""

    hidden: Array
    token_ids: Array
    pooled: Array | None
    labels: list[str]


def cached_example(cache: Cache, location: str) -> CachedExample:
    """Read an example of a cache.

    Args:
        cache: Open.
        location: Its split and number, as `test:17`.

    Raises:
        SpaceliteError: There is none.
    """
    name, _, number = location.partition(":")
    split = cache.splits.get(name)
    if split is None or not number.isdecimal() or int(number) >= len(split):
        known = ", ".join(f"{key}:0 to {key}:{len(one) - 1}" for key, one in cache.splits.items())
        raise SpaceliteError(f"example={location}: give one of {known}", ["example"])
    row = int(number)
    if not split.done[row]:
        raise SpaceliteError(
            f"example={location} is not embedded in cache {cache.name}: run its embed command "
            "again",
            ["example"],
        )
    first, last = split.offsets[row : row + 2].tolist()
    return CachedExample(
        hidden=split.read_tokens(first, last),
        token_ids=split.read_token_ids(first, last),
        pooled=split.pooled[row] if split.has_pooler else None,
        labels=cache.task.label_names(split.labels[row], cache.label_names),
    )
