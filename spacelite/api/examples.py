"""The examples of a cache's split for programs of one's own: numpy arrays, tensors, and a data set
for torch's loaders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spacelite.cache import texts as cached_texts
from spacelite.cache.store import Cache
from spacelite.data.splits import Text
from spacelite.errors import SpaceliteError
from spacelite.lazy import torch
from spacelite.types import Array


class Examples:
    """N examples of a split, read from the cache when they are asked for: what a `DataLoader`
    takes, with any number of workers, with `collate_fn=Examples.collate`.

    It can be pickled, and read in several threads and after a fork: the file is read at offsets.

    Attributes:
        path: The cache.
        split: The split's name.
        label_names: The names of labels 0..C-1.
        labels: Class indexes, (N,) int64; (N, C) of 0 and 1 in multi-label data.
        offsets: Example i has the tokens offsets[i]:offsets[i+1] of the split, (N + 1,) int64.
        width: The width d of a hidden state.
    """

    def __init__(self, path: Path, split: str) -> None:
        """Raises SpaceliteError if there is no such split, or the cache is not finished."""
        self.path, self.split = path, split
        self._cache = cache = Cache(path)
        if split not in cache.splits:
            raise SpaceliteError(
                f"{cache.name} has no split {split!r}: choose from {', '.join(cache.splits)}"
            )
        cache.require_complete()
        self._split = of_cache = cache.splits[split]
        self.label_names, self.labels = cache.label_names, of_cache.labels
        self.offsets, self.width = of_cache.offsets, of_cache.width

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"<{len(self):,} examples of {self.split} in {self.path.stem}>"

    def __reduce__(self) -> tuple[type[Examples], tuple[Path, str]]:
        return Examples, (self.path, self.split)

    @property
    def texts(self) -> list[Text]:
        """The texts, N, or pairs of them, (first, second) each. Raises SpaceliteError if an older
        version wrote the cache without them."""
        texts = cached_texts.read(self._cache, self.split)
        if texts is None:
            raise SpaceliteError(
                f"{self.path.stem} was written without its texts: run its embed command again, "
                "which adds them"
            )
        return [texts.text(example) for example in range(len(self))]

    @property
    def token_ids(self) -> Array:
        """The token ids of all examples end to end, (T,) int32."""
        return self._split.read_token_ids()

    def tokens(self, example: int) -> Array:
        """The hidden states of an example, (n, d) float32. Raises SpaceliteError if they are
        damaged, and IndexError if there is no such example."""
        number = range(len(self))[example]
        stored = self._split.datasets["tokens"].read(number, number + 1)
        return self._split.stored.decode(stored)

    def __getitem__(self, example: int) -> tuple[Array, Any]:
        """The hidden states of an example, (n, d) float32, and its label: a class index, or (C,) of
        0 and 1."""
        return self.tokens(example), self.labels[example]

    def __iter__(self) -> Iterator[tuple[Array, Any]]:
        return map(self.__getitem__, range(len(self)))

    def to_numpy(self) -> tuple[Array, Array, Array]:
        """All hidden states end to end, (T, d) float32, the offsets of examples, (N + 1,), and the
        labels."""
        return self._split.read_hidden(0, len(self)), self.offsets, self.labels

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
