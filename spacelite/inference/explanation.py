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

WEAK = 0.1  # words at or below this share of the strongest contribution are not marked


@dataclass(frozen=True)
class Word:
    """A word of a text.

    Attributes:
        text: The word, or a special token.
        special: Whether it is a special token.
        tokens: Indices of its tokens in the text.
        contributions: The word's share in each label's logit, (C,).
    """

    text: str
    special: bool
    tokens: list[int]
    contributions: list[float]


@dataclass(frozen=True)
class Marked:
    """A word of a highlighted text.

    Attributes:
        text: The word.
        side: `for` or `against` the label; empty for a word that hardly matters.
        weight: The size of its contribution relative to the largest one, in [0, 1].
        contribution: The word's share in the label's logit.
    """

    text: str
    side: str
    weight: float
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """A prediction and each word's share in it. Lists of length C are in the order of `labels`.

    Attributes:
        labels: The C label names.
        probabilities: Probability of each label.
        logits: Logits from the head's forward pass.
        bias: The part of each logit that belongs to no word.
        words: The text's words.
        difference: Largest difference between a logit and the sum of its bias and words.
        example: True label names if the text is a cached example, else None.
        spaces: The tokens in each label's concept space, C arrays (n, 1 to 3); empty for heads
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
        """Index of the most probable label."""
        return int(np.argmax(self.probabilities))

    def marked(self, label: int) -> list[Marked]:
        """The text's words, marked by their shares in a label's logit."""
        shares = [word.contributions[label] for word in self.words]
        return marked([word.text for word in self.words], shares)


def marked(words: Sequence[str], shares: Sequence[float]) -> list[Marked]:
    """Mark the words of a text that matter, given each word's share in a logit."""
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
    """Computes each token's share in the logits of a run's head."""

    def __init__(self, run: Run) -> None:
        """Raises SpaceliteError if the logits are not a sum over tokens."""
        require_shares(run)
        self._kind, self._config = heads.kind(run.head.kind), run.head
        self._parameters = run.parameters
        self.labels = list(run.record.label_names)
        self.task: Task = run.record.task
        self.bias: Array = self._kind.bias(self._parameters)
        # Maximum numbers per token that are in memory at once.
        self.numbers_per_token = self._kind.numbers_per_token(
            self._config, len(self.labels), run.width
        )

    def token_logits(self, hidden: Array) -> Array:
        """n times the shares (n, C) of n tokens, from `hidden` (n, d), in its number type."""
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
        run: The run.
        rows: The text's hidden states in the stored type, n rows.
        words: The text's words: spelling, whether it is a special token, and the indices of its
            tokens.
        logits: Logits from the head's forward pass, (C,).
        example: True label names if the text is a cached example.

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
        run: The run.
        text: The text.
        backbone: Folder of the run's backbone, if it was a local one.
        device: Device of the backbone.

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
        run: The run.
        cache: The run's cache, open for reading.
        location: The example's split and index, such as `test:17`.
        backbone: Folder of the run's backbone, if it was a local one: its tokenizer defines the
            words.

    Raises:
        SpaceliteError: The head's logits are not a sum over tokens, or there is no such example.
    """
    require_shares(run)
    cache.check_index()
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

    If a space has more than `most` dimensions, the tokens are projected onto their first principal
    axes; the origin stays where it is.

    Args:
        run: The run.
        hidden: The text's hidden states (n, d).
        most: Maximum dimensions of a space.

    Returns:
        C arrays (n, min(L, most)); an empty list for a head without concept spaces.
    """
    kind = heads.kind(run.head.kind)
    coordinates = kind.coordinates(run.parameters, hidden.astype(np.float64))
    if coordinates is None:
        return []
    spaces = np.split(coordinates, len(run.record.label_names), axis=1)
    return [space if space.shape[1] <= most else _principal(space, most) for space in spaces]


def _principal(points: Array, count: int) -> Array:
    """Project points (n, L) onto their first `count` principal axes, (n, count)."""
    _, _, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=len(points) < count)
    axes = axes[:count]
    # The sign of an axis is arbitrary: make its largest component positive.
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    projected: Array = points @ (axes * np.sign(largest)[:, None]).T
    return projected


@dataclass(frozen=True)
class CachedExample:
    """An example of a cache.

    Attributes:
        hidden: Hidden states in the stored type, n rows.
        token_ids: Token ids, (n,).
        pooled: The pooler's output, (d,); None without a pooler.
        labels: The example's label names.
    """

    hidden: Array
    token_ids: Array
    pooled: Array | None
    labels: list[str]


def cached_example(cache: Cache, location: str) -> CachedExample:
    """Read an example of a cache.

    Args:
        cache: The cache, open for reading.
        location: The example's split and index, such as `test:17`.

    Raises:
        SpaceliteError: There is no such example, or it is not embedded yet.
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
        hidden=split.read_examples(row, row + 1),
        token_ids=split.read_token_ids(first, last),
        pooled=split.read_pooled(row, row + 1)[0] if split.has_pooler else None,
        labels=cache.task.label_names(split.labels[row], cache.label_names),
    )
