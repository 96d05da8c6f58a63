"""Which words mattered: the exact share of every token in a text's logits.

A space head is a mean over tokens followed by one linear layer, so that
logit_c = b_c + sum over tokens t of (1 / n) * sum over coordinates j of V[c, j] * s_{t,j}
(notation: the README). The same holds for a linear layer on the mean of the tokens. Nothing is
approximated, and neither torch nor the backbone is needed for an example of a cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.cache.store import Cache
from spacelite.errors import SpaceliteError
from spacelite.metrics import scores as metrics
from spacelite.runs.store import Run

Array = npt.NDArray[Any]


WEAK = 0.1  # of the strongest contribution: words below it are not marked


@dataclass(frozen=True)
class Word:
    """A word of the text, or a special token, the numbers of its `tokens`, and its share in each
    label's logit (C,)."""

    text: str
    special: bool
    tokens: list[int]
    contributions: list[float]


@dataclass(frozen=True)
class Explanation:
    """A prediction taken apart. Lists of C go by `labels`: `logits`, computed as the head does, are
    `bias` + the words' contributions, to within `difference`. `example`: the cached example's
    label names, where it is one."""

    labels: list[str]
    probabilities: list[float]
    logits: list[float]
    bias: list[float]
    words: list[Word]
    difference: float
    example: list[str] | None = None

    @property
    def predicted(self) -> int:
        """The number of the most probable label."""
        return int(np.argmax(self.probabilities))

    def marked(self, label: int) -> list[Marked]:
        """The text, its words marked by their shares in a label's logit."""
        shares = [word.contributions[label] for word in self.words]
        return marked([word.text for word in self.words], shares)


@dataclass(frozen=True)
class Marked:
    """A word of a highlighted text: `side` is for, against or "", `weight` in [0, 1] how much."""

    text: str
    side: str
    weight: float
    contribution: float


def marked(words: Sequence[str], shares: Sequence[float]) -> list[Marked]:
    """A text's words with their shares in a logit, those that matter marked."""
    strongest = max(map(abs, shares), default=0.0) or 1.0
    made = []
    for word, share in zip(words, shares, strict=True):
        weight = abs(share) / strongest
        side = "" if weight <= WEAK else "for" if share > 0 else "against"
        made.append(Marked(word, side, weight, share))
    return made


def has_shares(run: Run) -> bool:
    """Whether a head's logits are a sum over tokens."""
    return run.record["head"] == "space" or (
        run.record["head"] in ("linear", "logreg") and run.settings["pooling"] == "mean"
    )


def require_shares(run: Run) -> None:
    """Raise SpaceliteError for a head whose logits are no sum over tokens."""
    if not has_shares(run):
        raise SpaceliteError(
            f"run {run.id} is {run.record['system']}: its logits are no sum over tokens; explain a "
            "space head, or a linear one or logreg on the mean"
        )


@dataclass(frozen=True)
class Shares:
    """A head whose logits are a sum over tokens: `spaces` (C L, d), or None for a linear one, and
    the classifier's `weight` (C, p) and `bias` (C,). `labels`: C names."""

    labels: list[str]
    spaces: Array | None
    weight: Array
    bias: Array

    @classmethod
    def of(cls, run: Run) -> Shares:
        """A run's head. Raises SpaceliteError where its logits are no sum over tokens."""
        require_shares(run)
        arrays = run.arrays()
        spaces = arrays.get("concept_spaces")
        return cls(
            labels=run.record["label_names"],
            spaces=None if spaces is None else spaces.reshape(-1, spaces.shape[-1]),
            weight=arrays["classifier.weight"],
            bias=arrays["classifier.bias"],
        )

    @property
    def widest(self) -> int:
        """The most numbers that a token has on the way: its hidden state, or its coordinates."""
        matrices = (self.weight, self.weight if self.spaces is None else self.spaces)
        return max(int(matrix.shape[1]) for matrix in matrices)

    def coordinates(self, hidden: Array) -> Array:
        """What is averaged over tokens, (n, p) in the type of `hidden` (n, d): concept coordinates,
        or the hidden states themselves."""
        if self.spaces is None:
            return hidden
        projected = hidden @ self.spaces.T.astype(hidden.dtype)
        made: Array = np.tanh(projected, out=projected)
        return made

    def of_tokens(self, hidden: Array) -> Array:
        """n times the shares (n, C) of a text's n tokens in its logits."""
        made: Array = self.coordinates(hidden) @ self.weight.T.astype(hidden.dtype)
        return made


def contributions(run: Run, hidden: Array) -> tuple[Array, Array, Array]:
    """Shares (n, C) of a text's tokens in its logits, from `hidden` (n, d); the bias (C,); and the
    logits (C,) as the head computes them, from the mean over tokens. All float64.

    Raises SpaceliteError for a head whose logits are no sum over tokens.
    """
    head, features = Shares.of(run), hidden.astype(np.float64)
    weight, bias = head.weight.astype(np.float64), head.bias.astype(np.float64)
    means = head.coordinates(features).mean(axis=0)
    return head.of_tokens(features) / len(features), bias, weight @ means + bias


def explain(
    run: Run,
    hidden: Array,
    words: Sequence[tuple[str, bool, Sequence[int]]],
    example: list[str] | None = None,
) -> Explanation:
    """Take a prediction apart: `hidden` (n, d), and the text's words, each with whether it is a
    special token and the numbers of its tokens."""
    shares, bias, logits = contributions(run, hidden)
    made = [
        Word(text, special, list(tokens), shares[list(tokens)].sum(axis=0).tolist())
        for text, special, tokens in words
    ]
    added = bias + np.sum([word.contributions for word in made], axis=0)
    return Explanation(
        labels=run.record["label_names"],
        probabilities=metrics.probabilities(logits, bool(run.record.get("multilabel"))).tolist(),
        logits=logits.tolist(),
        bias=bias.tolist(),
        words=made,
        difference=float(np.abs(added - logits).max()),
        example=example,
    )


def concept_points(run: Run, hidden: Array, most: int = 3) -> list[Array]:
    """A text's tokens in the concept space of each label: C arrays (n, min(L, `most`)), of the
    hidden states `hidden` (n, d); none for a head without concept spaces.

    Where L is larger: the coordinates along the first principal axes of the text's tokens, the
    origin staying where it is.
    """
    head = Shares.of(run)
    if head.spaces is None:
        return []
    coordinates = head.coordinates(hidden.astype(np.float64))
    spaces = np.split(coordinates, len(head.labels), axis=1)
    return [space if space.shape[1] <= most else _principal(space, most) for space in spaces]


def _principal(points: Array, count: int) -> Array:
    """Points (n, L) along the first `count` of their principal axes, (n, count)."""
    _, _, axes = np.linalg.svd(points - points.mean(axis=0), full_matrices=len(points) < count)
    axes = axes[:count]
    # Either direction is an axis: the one whose largest part is positive.
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    made: Array = points @ (axes * np.sign(largest)[:, None]).T
    return made


def cached_example(cache: Cache, place: str) -> tuple[Array, Array, list[str]]:
    """Hidden states (n, d), token ids (n,) and label names of an example, named as `test:17`.
    Raises SpaceliteError where there is none."""
    name, _, number = place.partition(":")
    split = cache.splits.get(name)
    if split is None or not number.isdecimal() or int(number) >= len(split):
        known = ", ".join(f"{key}:0 to {key}:{len(one) - 1}" for key, one in cache.splits.items())
        raise SpaceliteError(f"--example {place}: give one of {known}")
    if not split.done[int(number)]:
        raise SpaceliteError(
            f"--example {place} is not embedded in cache {cache.name}: run its embed command again"
        )
    first, last = split.offsets[int(number) : int(number) + 2].tolist()
    label = split.labels[int(number)]
    chosen = [label] if label.ndim == 0 else np.flatnonzero(label)
    names = [cache.label_names[int(each)] for each in chosen]
    return split.read_tokens(first, last), split.read_token_ids(first, last), names
