"""A split that is too large for memory: read from the file window by window, in shuffled blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spacelite.cache.dtypes import StoredType
from spacelite.cache.rows import TokenRows
from spacelite.cache.split import CachedSplit
from spacelite.errors import SpaceliteError
from spacelite.heads.base import Scratch

# Bytes of one window of a streamed split; the windows that a batch's examples are in are held,
# usually one or two. Fixed, because the order of the examples depends on it and must not depend on
# the free memory.
WINDOW = 2**29
BLOCKS_PER_WINDOW = 64  # more blocks mix the examples better, but make each read shorter

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ArrayData:
    """Examples that heads are trained on as on a cache, in memory or, where a split is too large,
    in a cache.

    Attributes:
        splits: The splits by name: train and, if there is one, validation.
        label_names: The names of labels 0..C-1.
        layers: Number of layers whose means are there, the embedding layer included; 0 for none.
    """

    splits: Mapping[str, CachedSplit | TokenRows]
    label_names: list[str]
    layers: int = 0

    @property
    def tokens(self) -> int:
        """Number of tokens in all splits."""
        return sum(split.tokens for split in self.splits.values())

    def layer_count(self) -> int:
        """Number of layers. Raises SpaceliteError if there are no layer means."""
        if not self.layers:
            raise SpaceliteError("these hidden states come without the means of all layers")
        return self.layers


class Stream:
    """A split that is read from the file window by window; a window consists of several blocks."""

    def __init__(self, split: CachedSplit | TokenRows, device: str) -> None:
        self._split = split
        self._device = device
        self._offsets = split.offsets
        rows = max(1, WINDOW // split.stored.row_bytes(split.width))
        blocks = math.ceil(split.tokens / max(1, rows // BLOCKS_PER_WINDOW))
        cuts = np.searchsorted(self._offsets, np.arange(blocks + 1) * split.tokens / blocks)
        self._blocks = np.unique(cuts)  # examples blocks[i]:blocks[i+1] are block i
        self._block_of = np.repeat(np.arange(len(self._blocks) - 1), np.diff(self._blocks))
        self._shift = np.zeros(len(split), np.int64)  # row in the window - row in the file
        self._loaded: dict[int, torch.Tensor] = {}
        self.in_order()

    def in_order(self) -> None:
        """Plan the windows in the order of the file."""
        self._plan(np.arange(len(self._blocks) - 1))

    def shuffled(self, random: np.random.Generator) -> Array:
        """Plan windows of shuffled blocks; return the examples in the order of the pass."""
        self._plan(random.permutation(len(self._blocks) - 1))
        return np.concatenate([random.permutation(self._examples(w)) for w in self._windows])

    def _plan(self, order: Array) -> None:
        cuts = range(BLOCKS_PER_WINDOW, len(order), BLOCKS_PER_WINDOW)
        self._windows = [np.sort(blocks) for blocks in np.split(order, cuts)]
        window_of_block = np.empty(len(order), np.int64)
        for number, blocks in enumerate(self._windows):
            window_of_block[blocks] = number
        self._window_of = window_of_block[self._block_of]
        self.release()

    def release(self) -> None:
        """Free all windows."""
        self._loaded.clear()

    def _examples(self, blocks: Array) -> Array:
        return np.concatenate(
            [np.arange(self._blocks[b], self._blocks[b + 1]) for b in blocks.tolist()]
        )

    def load(self, examples: Array) -> None:
        """Hold the windows that the examples are in, and no others."""
        needed = np.unique(self._window_of[examples]).tolist()
        for number in [number for number in self._loaded if number not in needed]:
            del self._loaded[number]
        for number in needed:
            if number not in self._loaded:
                self._loaded[number] = self._read(self._windows[number])

    def _read(self, blocks: Array) -> torch.Tensor:
        parts = [(int(self._blocks[b]), int(self._blocks[b + 1])) for b in blocks]
        total = sum(int(self._offsets[last] - self._offsets[first]) for first, last in parts)
        values = self._split.stored.row_values(self._split.width)
        memory = np.empty((total, values), self._split.dtype)
        end = 0
        for first, last in parts:
            start, stop = int(self._offsets[first]), int(self._offsets[last])
            begin, end = end, end + stop - start
            self._split.read_examples(first, last, memory[begin:end])
            self._shift[first:last] = begin - start
        return torch.from_numpy(memory).to(self._device)

    def rows(
        self, examples: Array, starts: Array, lengths: Array, scratch: Scratch
    ) -> torch.Tensor:
        """As `TokenSplit._rows`."""
        windows, starts = self._window_of[examples], starts + self._shift[examples]
        cuts = np.flatnonzero(np.diff(windows)) + 1
        if not len(cuts):
            tokens = self._loaded[int(windows[0])]
            return take(tokens, starts, lengths, scratch, self._split.stored)
        pieces = zip(*(np.split(part, cuts) for part in (windows, starts, lengths)), strict=True)
        return torch.cat(
            [
                take(self._loaded[int(window[0])], first, length, Scratch(), self._split.stored)
                for window, first, length in pieces
            ]
        )


def take(
    tokens: torch.Tensor, starts: Array, lengths: Array, scratch: Scratch, stored: StoredType
) -> torch.Tensor:
    """The rows starts[i] : starts[i] + lengths[i] of `tokens` for all i, float32."""
    return _to_float32(_read(tokens, starts, lengths, scratch), scratch, stored)


def _read(tokens: torch.Tensor, starts: Array, lengths: Array, scratch: Scratch) -> torch.Tensor:
    before = np.cumsum(lengths) - lengths
    total = int(before[-1] + lengths[-1])
    index = torch.from_numpy(np.repeat(starts - before, lengths) + np.arange(total))
    rows = scratch.tensor("stored", (total, tokens.shape[1]), tokens.device, tokens.dtype)
    return torch.index_select(tokens, 0, index.to(tokens.device), out=rows)


def _to_float32(rows: torch.Tensor, scratch: Scratch, stored: StoredType) -> torch.Tensor:
    if stored.plain and rows.dtype == torch.float32:
        return rows
    shape = (len(rows), stored.hidden_width(rows.shape[1]))
    return stored.widen(rows, scratch.tensor("hidden", shape, rows.device, torch.float32))
