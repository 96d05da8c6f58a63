"""Cache -> ragged batches: the tokens of some examples end to end, never padded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spacelite.store import Cache

POOLINGS = ("first", "last", "mean", "pooler")
TOKENS_PER_GROUP = 2048  # hidden states that are worked on at a time: they fit the CPU's cache
RESIDENT_SHARE = 0.6  # of the free memory; a larger split is read from the file as it is needed

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Tokens:
    """The tokens of B examples end to end: `hidden` (n, d) float, `lengths` (B,) int64 with sum n,
    `labels` (B,) int64."""

    hidden: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor


class TokenSplit:
    """A split's hidden states where training can reach them, in their stored dtype.

    `tokens` (T, d), `lengths` and `labels` (N,).
    """

    def __init__(self, cache: Cache, name: str, device: str = "cpu") -> None:
        """Read the split into memory where it fits, else map it from the file."""
        split = cache.splits[name]
        self.name = name
        self.device = device
        self.offsets = split.offsets
        self.lengths = split.lengths
        self.labels = split.labels
        self._split = split  # for its pooled rows, read when a head asks for them
        self._features: dict[str, torch.Tensor] = {}
        size = split.tokens * split.width * split.dtype.itemsize
        self.resident = size <= RESIDENT_SHARE * _free_memory(device)
        if self.resident:
            self.tokens = torch.from_numpy(split.read_tokens(0, split.tokens)).to(device)
        else:
            self.tokens = torch.from_numpy(split.map_tokens(cache.path))

    def __len__(self) -> int:
        return len(self.labels)

    def gather(self, examples: Array) -> Tokens:
        """The tokens of `examples`, widened to float32."""
        lengths = self.lengths[examples]
        hidden = torch.empty(int(lengths.sum()), self.tokens.shape[1], device=self.device)
        end = 0
        for start, length in zip(self.offsets[examples].tolist(), lengths.tolist(), strict=True):
            begin, end = end, end + length
            hidden[begin:end] = self.tokens[start : start + length]
        return Tokens(
            hidden,
            torch.from_numpy(lengths).to(self.device),
            torch.from_numpy(self.labels[examples]).to(self.device),
        )

    def groups(self, examples: Array) -> Iterator[Array]:
        """`examples` in runs of about TOKENS_PER_GROUP tokens, none of them cut."""
        ends = np.cumsum(self.lengths[examples])
        cuts = np.flatnonzero(np.diff((ends - 1) // TOKENS_PER_GROUP)) + 1
        yield from np.split(examples, cuts)

    def features(self, pooling: str) -> torch.Tensor:
        """One vector an example, (N, d) float32: its `first` or `last` token, the `mean` of its
        tokens, or the backbone's `pooler` output. Computed once. Raises SpaceliteError where there
        is no pooler."""
        if pooling not in self._features:
            self._features[pooling] = self._pool(pooling)
        return self._features[pooling]

    def _pool(self, pooling: str) -> torch.Tensor:
        if pooling == "pooler":
            return torch.from_numpy(self._split.pooled).to(self.device)
        if pooling in ("first", "last"):
            rows = self.offsets[:-1] if pooling == "first" else self.offsets[1:] - 1
            return self.tokens[torch.from_numpy(rows).to(self.tokens.device)].float()
        parts = [self.gather(group) for group in self.groups(np.arange(len(self)))]
        return torch.cat([segment_mean(part.hidden, part.lengths) for part in parts])


def segment_mean(values: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """Means of consecutive runs of rows: (n, p) values, (B,) lengths with sum n -> (B, p)."""
    return torch.segment_reduce(values, "mean", lengths=lengths, axis=0)


def _free_memory(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
