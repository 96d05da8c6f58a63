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

from spacelite import metrics
from spacelite.errors import SpaceliteError
from spacelite.runs import Run
from spacelite.store import Cache

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Word:
    """A word of the text, or a special token, and its share in each label's logit (C,)."""

    text: str
    special: bool
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


def require_shares(run: Run) -> None:
    """Raise SpaceliteError for a head whose logits are no sum over tokens."""
    additive = run.record["head"] == "space" or (
        run.record["head"] in ("linear", "logreg") and run.settings["pooling"] == "mean"
    )
    if not additive:
        raise SpaceliteError(
            f"run {run.id} is {run.record['system']}: its logits are no sum over tokens; explain a "
            "space head, or a linear one or logreg on the mean"
        )


def contributions(run: Run, hidden: Array) -> tuple[Array, Array, Array]:
    """Shares (n, C) of a text's tokens in its logits, from `hidden` (n, d); the bias (C,); and the
    logits (C,) as the head computes them, from the mean over tokens. All float64.

    Raises SpaceliteError for a head whose logits are no sum over tokens.
    """
    require_shares(run)
    arrays = {name: value.astype(np.float64) for name, value in run.arrays().items()}
    features = hidden.astype(np.float64)
    if run.record["head"] == "space":
        spaces = arrays["concept_spaces"]
        features = np.tanh(features @ spaces.reshape(-1, spaces.shape[-1]).T)
    weight, bias = arrays["classifier.weight"], arrays["classifier.bias"]
    return features @ weight.T / len(features), bias, weight @ features.mean(axis=0) + bias


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
        Word(text, special, shares[list(tokens)].sum(axis=0).tolist())
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


def cached_example(cache: Cache, place: str) -> tuple[Array, Array, list[str]]:
    """Hidden states (n, d), token ids (n,) and label names of an example, named as `test:17`.
    Raises SpaceliteError where there is none."""
    name, _, number = place.partition(":")
    split = cache.splits.get(name)
    if split is None or not number.isdecimal() or int(number) >= len(split):
        known = ", ".join(f"{key}:0 to {key}:{len(one) - 1}" for key, one in cache.splits.items())
        raise SpaceliteError(f"--example {place}: give one of {known}")
    first, last = split.offsets[int(number) : int(number) + 2].tolist()
    label = split.labels[int(number)]
    chosen = [label] if label.ndim == 0 else np.flatnonzero(label)
    names = [cache.label_names[int(each)] for each in chosen]
    return split.read_tokens(first, last), split.token_ids[first:last], names
