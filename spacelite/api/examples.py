"""The examples of a cache's split for programs of one's own: numpy arrays, tensors, and a data set
for torch's loaders."""

from __future__ import annotations

import os
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from spacelite.cache import texts as cached_texts
from spacelite.cache.dtypes import StoredType, stored_type
from spacelite.cache.split import damage
from spacelite.cache.store import Cache
from spacelite.data.splits import Text
from spacelite.errors import SpaceliteError
from spacelite.lazy import torch
from spacelite.types import Array


@dataclass(frozen=True, eq=False)
class Examples:
    """N examples of a split, read from the cache when they are asked for: what a `DataLoader`
    takes, with any number of workers, with `collate_fn=Examples.collate`.

    It can be pickled, and read in several threads and after a fork: each process opens the file for
    itself.

    Attributes:
        path: The cache.
        split: The split's name.
        label_names: The names of labels 0..C-1.
        labels: Class indexes, (N,) int64; (N, C) of 0 and 1 in multi-label data.
        offsets: Example i has the tokens offsets[i]:offsets[i+1] of the split, (N + 1,) int64.
        width: The width d of a hidden state.
    """

    path: Path
    split: str
    label_names: list[str]
    labels: Array
    offsets: Array
    width: int
    _dtype: str
    # Of each file: its path, the first example in it, and where in it the hidden states begin.
    _files: tuple[tuple[Path, int, int], ...]
    _crc32: Array  # of each example's bytes, (N,) uint32
    _open: dict[tuple[int, Path], FileIO] = field(default_factory=dict)  # of each process

    @classmethod
    def of(cls, path: Path, split: str) -> Examples:
        """The examples of a split. Raises SpaceliteError if there is no such split, or the cache is
        not finished."""
        with Cache(path) as cache:
            if split not in cache.splits:
                raise SpaceliteError(
                    f"{cache.name} has no split {split!r}: choose from {', '.join(cache.splits)}"
                )
            cache.require_complete()
            cached = cache.splits[split]
            tokens = cached.datasets["tokens"]
            return cls(
                path, split, cache.label_names, cached.labels, cached.offsets, cached.width,
                cache.spec.dtype, tokens.files, tokens.crc32,
            )  # fmt: skip

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<{len(self):,} examples of {self.split} in {self.path.stem}>"

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}

    @property
    def texts(self) -> list[Text]:
        """The texts, N, or pairs of them, (first, second) each. Raises SpaceliteError if an older
        version wrote the cache without them."""
        with Cache(self.path) as cache:
            texts = cached_texts.read(cache, self.split)
        if texts is None:
            raise SpaceliteError(
                f"{self.path.stem} was written without its texts: run its embed command again, "
                "which adds them"
            )
        return [texts.text(example) for example in range(len(self))]

    @property
    def token_ids(self) -> Array:
        """The token ids of all examples end to end, (T,) int32."""
        with Cache(self.path) as cache:
            return cache.splits[self.split].read_token_ids()

    def tokens(self, example: int) -> Array:
        """The hidden states of an example, (n, d) float32. Raises SpaceliteError if they are
        damaged, and IndexError if there is no such example."""
        number = range(len(self))[example]
        stored, (low, high) = self._stored, self.offsets[number : number + 2].tolist()
        row_bytes = stored.row_bytes(self.width)
        at = bisect_right(self._files, number, key=lambda file: file[1]) - 1
        path, first, start = self._files[at]
        offset = start + (low - int(self.offsets[first])) * row_bytes
        content = os.pread(self._file(path), (high - low) * row_bytes, offset)
        if zlib.crc32(content) != self._crc32[number]:
            raise damage(self.path.stem, self.split, number)
        rows = np.frombuffer(content, stored.numpy).reshape(high - low, -1)
        return stored.decode(rows)

    def __getitem__(self, example: int) -> tuple[Array, Any]:
        """The hidden states of an example, (n, d) float32, and its label: a class index, or (C,) of
        0 and 1."""
        return self.tokens(example), self.labels[example]

    def __iter__(self) -> Iterator[tuple[Array, Any]]:
        return map(self.__getitem__, range(len(self)))

    def to_numpy(self) -> tuple[Array, Array, Array]:
        """All hidden states end to end, (T, d) float32, the offsets of examples, (N + 1,), and the
        labels."""
        hidden = np.empty((int(self.offsets[-1]), self.width), np.float32)
        for example, (low, high) in enumerate(zip(self.offsets, self.offsets[1:], strict=False)):
            hidden[low:high] = self.tokens(example)
        return hidden, self.offsets, self.labels

    def to_torch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `to_numpy`, in tensors."""
        hidden, offsets, labels = map(torch.from_numpy, self.to_numpy())
        return hidden, offsets, labels

    @staticmethod
    def collate(
        batch: Sequence[tuple[Any, Any]],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A batch of B examples: their hidden states end to end, (n, d) float32, the number of
        tokens of each, (B,), and their labels, (B,) or (B, C)."""
        hidden = torch.from_numpy(np.concatenate([tokens for tokens, _ in batch]))
        lengths = torch.tensor([len(tokens) for tokens, _ in batch])
        return hidden, lengths, torch.from_numpy(np.stack([label for _, label in batch]))

    @property
    def _stored(self) -> StoredType:
        return stored_type(self._dtype)

    def _file(self, path: Path) -> int:
        """A file as this process opened it, which is read at an offset without moving it."""
        key = os.getpid(), path
        if key not in self._open:
            self._open[key] = path.open("rb", buffering=0)
        return self._open[key].fileno()
