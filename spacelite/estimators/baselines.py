"""The classifiers whose heads are fitted at once.

Parameters are the settings of `spacelite.train` and `spacelite.embed`, by the same names;
`random_state` is the seed.
"""

from __future__ import annotations

from pathlib import Path

from spacelite.estimators.base import TextClassifier
from spacelite.progress import Progress


class LogregClassifier(TextClassifier):
    """Logistic regression on one vector per text.

    Args:
        pooling: How the tokens become one vector: `first`, `last`, `mean`, `pooler` or `layers`.
        C: Strength of the L2 penalty, as in scikit-learn: the smaller, the stronger; "auto" chooses
            it by cross-validation, on standardised vectors.
        class_weights: `none`, or `balanced`: every class has the same total weight in the loss.
        backbone: A hub name, a local folder, or `minilm`.
        revision: Commit, branch or tag of a hub backbone.
        layer: Layer of the hidden states: -1 the last, 0 the embedding layer.
        max_length: Maximum tokens per text; the rest is cut off.
        dtype: Number type in which hidden states are stored: `float16`, `float32` or `int8`.
        padding: `none`, or `max_length` to pad every text and count padded positions as tokens.
        device: `auto`, `cpu`, `cuda`, ...
        tokens_per_batch: Maximum tokens per forward pass.
        cache_dir: Folder in which hidden states of texts are kept, so that none is embedded twice;
            None to keep nothing.
        progress: True for bars, False for none, or a function called with (phase, done, total).
    """

    kind = "logreg"

    def __init__(
        self,
        *,
        pooling: str | None = "mean",
        C: float | str = "auto",
        class_weights: str = "none",
        backbone: str = "minilm",
        revision: str | None = None,
        layer: int = -1,
        max_length: int = 256,
        dtype: str = "float16",
        padding: str = "none",
        device: str = "auto",
        tokens_per_batch: int | None = None,
        cache_dir: str | Path | None = "cache",
        progress: Progress = False,
    ) -> None:
        self.pooling = pooling
        self.C = C
        self.class_weights = class_weights
        self.backbone = backbone
        self.revision = revision
        self.layer = layer
        self.max_length = max_length
        self.dtype = dtype
        self.padding = padding
        self.device = device
        self.tokens_per_batch = tokens_per_batch
        self.cache_dir = cache_dir
        self.progress = progress


class TfidfClassifier(TextClassifier):
    """Logistic regression on TF-IDF of 1- and 2-grams of token ids. It reads token ids alone.

    Args:
        C: Strength of the L2 penalty; "auto" chooses it by cross-validation.
        class_weights: `none`, or `balanced`: every class has the same total weight in the loss.
        backbone: A hub name, a local folder, or `minilm`.
        revision: Commit, branch or tag of a hub backbone.
        layer: Layer of the hidden states: -1 the last, 0 the embedding layer.
        max_length: Maximum tokens per text; the rest is cut off.
        dtype: Number type in which hidden states are stored: `float16`, `float32` or `int8`.
        padding: `none`, or `max_length` to pad every text and count padded positions as tokens.
        device: `auto`, `cpu`, `cuda`, ...
        tokens_per_batch: Maximum tokens per forward pass.
        cache_dir: Folder in which hidden states of texts are kept, so that none is embedded twice;
            None to keep nothing.
        progress: True for bars, False for none, or a function called with (phase, done, total).
    """

    kind = "tfidf"

    def __init__(
        self,
        *,
        C: float | str = "auto",
        class_weights: str = "none",
        backbone: str = "minilm",
        revision: str | None = None,
        layer: int = -1,
        max_length: int = 256,
        dtype: str = "float16",
        padding: str = "none",
        device: str = "auto",
        tokens_per_batch: int | None = None,
        cache_dir: str | Path | None = "cache",
        progress: Progress = False,
    ) -> None:
        self.C = C
        self.class_weights = class_weights
        self.backbone = backbone
        self.revision = revision
        self.layer = layer
        self.max_length = max_length
        self.dtype = dtype
        self.padding = padding
        self.device = device
        self.tokens_per_batch = tokens_per_batch
        self.cache_dir = cache_dir
        self.progress = progress
