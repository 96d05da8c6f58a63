"""Texts -> pooled vectors, for any pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import TransformerMixin
from typing_extensions import Self

from spacelite.cache.rows import TokenRows
from spacelite.estimators.base import Encoding
from spacelite.estimators.inputs import as_value_error, read
from spacelite.heads.pooling import POOLINGS, default_pooling, known_pooling
from spacelite.progress import Progress, reporting
from spacelite.settings import require
from spacelite.training.batches import TokenSplit

Array = npt.NDArray[Any]


class FrozenEncoder(TransformerMixin, Encoding):  # type: ignore[misc]
    """A frozen backbone as a transformer: one vector per text. There is nothing to fit.

    Args:
        pooling: How the tokens become one vector: `first`, `last`, `mean`, `pooler`, or `layers`
            (the means of all layers side by side). None: the classification token.
        layer: Layer of the hidden states: -1 the last, 0 the embedding layer. `pooler` and `layers`
            do not depend on it.
        backbone: A hub name, a local folder, or `minilm`.
        revision: Commit, branch or tag of a hub backbone.
        max_length: Maximum tokens per text; the rest is cut off.
        dtype: Number type in which hidden states are stored: `float16`, `float32` or `int8`.
        padding: `none`, or `max_length` to pad every text and count padded positions as tokens.
        device: `auto`, `cpu`, `cuda`, ...
        tokens_per_batch: Maximum tokens per forward pass.
        cache_dir: Folder in which hidden states of texts are kept, so that none is embedded twice;
            None to keep nothing.
        progress: True for bars, False for none, or a function called with (phase, done, total).
    """

    def __init__(
        self,
        *,
        pooling: str | None = "mean",
        layer: int = -1,
        backbone: str = "minilm",
        revision: str | None = None,
        max_length: int = 256,
        dtype: str = "float16",
        padding: str = "none",
        device: str = "auto",
        tokens_per_batch: int | None = None,
        cache_dir: str | Path | None = "cache",
        progress: Progress = False,
    ) -> None:
        self.pooling = pooling
        self.layer = layer
        self.backbone = backbone
        self.revision = revision
        self.max_length = max_length
        self.dtype = dtype
        self.padding = padding
        self.device = device
        self.tokens_per_batch = tokens_per_batch
        self.cache_dir = cache_dir
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the texts; nothing is computed. Raises ValueError if they cannot be used."""
        self._texts(X)
        return self

    def transform(self, X: Any) -> Array:
        """The vectors of N texts, (N, d) float32; (N, layers * d) with `layers`.

        Raises:
            ValueError: A text is missing or empty, or a parameter is invalid.
            SpaceliteError: The backbone cannot be used, or disk or memory are full.
        """
        return self._vectors(self._texts(X))

    def _vectors(self, texts: list[str]) -> Array:
        with as_value_error():
            require("pooling", self.pooling or "first", known_pooling)
        with reporting(self.progress) as on_progress:
            rows = self._encoder().encode(texts, on_progress)
        pooling = self.pooling or default_pooling(rows.padding_side)
        if POOLINGS[pooling].from_backbone:
            rows.require_pooler()
        vectors: Array = TokenSplit(rows).features(pooling).float().numpy()
        return vectors

    def _texts(self, X: Any) -> list[str]:
        found = read(self, X, reset=True)
        if isinstance(found, TokenRows):
            raise ValueError("X has numbers: FrozenEncoder needs texts")
        return found

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Names of the vectors' dimensions, `frozenencoder0`, ..."""
        width = self._vectors(["a text"]).shape[1]  # which the backbone alone tells
        return np.array([f"frozenencoder{number}" for number in range(width)], object)
