"""How fast `embed` was, and what the limit was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Speed:
    """How fast hidden states were computed, and what it took.

    Attributes:
        tokens: Number of tokens whose hidden states were computed.
        seconds: Duration of the call.
        stages: How many of these seconds each stage worked, the longest first. Stages overlap, so
            these may add up to more than `seconds`.
    """

    tokens: int
    seconds: float
    stages: dict[str, float]

    @property
    def tokens_per_second(self) -> float:
        """Tokens a second, of the whole call."""
        return self.tokens / self.seconds

    @property
    def limit(self) -> str:
        """The stage that worked longest: only if it were faster, the whole would be."""
        return next(iter(self.stages))

    def as_json(self) -> dict[str, Any]:
        """What `embed --json` prints."""
        return {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
            "limit": self.limit,
            "stages": self.stages,
        }
