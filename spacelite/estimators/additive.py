"""The classifier that adds up blocks.

Parameters are the settings of `spacelite.train` and `spacelite.embed`, by the same names;
`random_state` is the seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spacelite.estimators.base import TextClassifier
from spacelite.progress import Progress


class AdditiveClassifier(TextClassifier):
    """What is recommended: linear layers on the means of all layers and on n-grams, and, with the
    block `space`, concept spaces on top of them.

    Args:
        blocks: What is added up, joined by `+`: `layers`, `mean`, `ngrams`, `space`. Only `space`
            is trained in epochs: without it, all settings of the training have no effect.
        max_ngram: Tokens of the longest n-grams, 2 or 3.
        latent: Number of dimensions of a concept space.
        ensemble: Number of members of the block `space`, which are merged into one.
        learning_rate: Learning rate of Adam, or "auto".
        weight_decay: L2 penalty of Adam.
        epochs: Number of passes over the examples, or "auto".
        batch_size: Examples per update, or "auto".
        schedule: Schedule of the learning rate: `constant` or `cosine`.
        clip_norm: Maximum norm of the head's gradient; None for no clipping.
        class_weights: `none`, or `balanced`: every class has the same total weight in the loss.
        validation_fraction: The part of the examples, held out at random, on which the best epoch
            is chosen; None to train on all and keep the last epoch.
        patience: Stop after this many epochs without a better one.
        monitor: Metric of the held-out part by which epochs are compared.
        random_state: Seed of the head's initialisation and of the order of the examples.
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

    kind = "additive"

    def __init__(
        self,
        *,
        blocks: str = "layers+ngrams",
        max_ngram: int = 2,
        latent: int = 3,
        ensemble: int = 1,
        learning_rate: float | str = "auto",
        weight_decay: float = 0.01,
        epochs: int | str = "auto",
        batch_size: int | str = "auto",
        schedule: str = "constant",
        clip_norm: float | None = None,
        class_weights: str = "none",
        validation_fraction: float | None = None,
        patience: int | None = None,
        monitor: str = "f1_macro",
        random_state: Any = 0,
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
        self.blocks = blocks
        self.max_ngram = max_ngram
        self.latent = latent
        self.ensemble = ensemble
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.schedule = schedule
        self.clip_norm = clip_norm
        self.class_weights = class_weights
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.monitor = monitor
        self.random_state = random_state
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
