"""Each token's exact share in the logits of a head, where these are a sum over tokens."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from spacelite import heads
from spacelite.errors import SpaceliteError
from spacelite.heads.examples import Tokens
from spacelite.runs import Run
from spacelite.tasks import Task

Array = npt.NDArray[Any]


def has_shares(run: Run) -> bool:
    """Whether a head's logits are a sum over tokens whose hidden states are in the cache."""
    additive = heads.kind(run.head.kind).not_additive(run.head) is None
    return additive and not run.head.reads_layers


def require_shares(run: Run) -> None:
    """Raise SpaceliteError for a head whose logits are not a sum over tokens."""
    reason = heads.kind(run.head.kind).not_additive(run.head)
    if reason is not None:
        raise SpaceliteError(
            f"run {run.id} cannot be explained: {reason}; explain a space head, additive, tfidf, "
            "or a linear head or logreg on the mean of the tokens or on all layers"
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

    def of(self, tokens: Tokens) -> Array:
        """The shares of the tokens of several texts, (T, C)."""
        return self._kind.token_shares(self._config, self._parameters, tokens)

    def of_blocks(self, tokens: Tokens) -> dict[str, Array]:
        """The same by block of the head, (T, C) each; none if it does not consist of several."""
        found = self._kind.block_shares(self._config, self._parameters, tokens)
        return found if len(found) > 1 else {}
