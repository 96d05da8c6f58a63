"""An estimator's parameters and data -> what is trained, and how.

Shapes: N examples, C classes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import _check_sample_weight

from spacelite import heads, settings
from spacelite.backbones.model import resolve_device
from spacelite.estimators.inputs import Labels, as_value_error, read
from spacelite.heads import HeadConfig
from spacelite.heads.base import Objective, Parameters
from spacelite.heads.pooling import default_pooling
from spacelite.progress import reporting
from spacelite.tasks import MULTI_LABEL, SINGLE_LABEL
from spacelite.training import TrainingConfig, plan
from spacelite.training.stream import ArrayData

Array = npt.NDArray[Any]


class Prepared:
    """What an estimator is fitted to.

    Args:
        estimator: The estimator; hidden states set its `n_features_in_`.
        X: N texts, or hidden states.
        y: N labels, or (N, C) of 0 and 1.
        sample_weight: The weight of each example, (N,); None if all weigh 1.
        keep_all: Whether examples of weight 0 are kept.

    Attributes:
        labels: The labels of all examples.
        rows: The indices in X of the examples that are kept.
        weights: Their weights; None if all are 1.
        encoder: How texts are embedded; None for hidden states.
        split: The examples.
        data: The same, as they are trained on.
        device: Device of the training.

    Raises:
        ValueError: X, y or a weight cannot be used.
        SpaceliteError: The backbone cannot be used, or disk or memory are full.
    """

    def __init__(
        self,
        estimator: Any,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        keep_all: bool = False,
    ) -> None:
        given = read(estimator, X, reset=True)
        self.labels = labels = Labels.of(estimator, y)
        count = len(given) if isinstance(given, list) else len(given.offsets) - 1
        check_consistent_length(range(count), labels.values)
        self.rows, self.weights = np.arange(count), None
        if sample_weight is not None:
            self._weigh(estimator, sample_weight, keep_all)
        self.encoder = estimator._encoder() if isinstance(given, list) else None
        self.device = resolve_device(estimator.device)
        task = MULTI_LABEL if labels.several else SINGLE_LABEL
        self.objective = Objective(task, len(labels.classes))
        with reporting(estimator.progress) as on_progress:
            rows = estimator._hidden_states(given, self.encoder, on_progress)
        self.padding_side = rows.padding_side
        split = replace(rows, labels=labels.values)
        if len(self.rows) < count:
            split = split.part(self.rows)
        names = [str(name) for name in labels.classes]
        self.split = split
        self.data = ArrayData({"train": split}, names, rows.layers)

    def _weigh(self, estimator: Any, sample_weight: Any, keep_all: bool) -> None:
        weights = _check_sample_weight(
            sample_weight, self.rows, dtype=np.float64, ensure_non_negative=True
        )
        if not weights.any():
            raise ValueError("sample_weight: all weights are zero")
        seen = np.flatnonzero(weights)
        kept = self.labels.values[seen]
        if not self.labels.several and len(np.unique(kept)) < 2:
            raise ValueError(
                f"{type(estimator).__name__} needs examples of at least two classes, and those "
                f"with a weight above 0 have one class: {self.labels.classes[kept[0]]}"
            )
        if not keep_all:
            self.rows, weights = seen, weights[seen]
        self.weights = None if (weights == 1).all() else weights

    def configured(self, estimator: Any, count: int) -> tuple[HeadConfig, TrainingConfig]:
        """The head that an estimator trains on so many examples, and how. Raises ValueError if a
        parameter is invalid."""
        with as_value_error():
            return configured(estimator, count, self.padding_side, self.encoder is not None)

    def divided(self, share: float, seed: int) -> tuple[Array, Array]:
        """Divide the examples into a part to train on and one to validate on, stratified."""
        values = self.data.splits["train"].labels
        stratify = None if self.labels.several else values
        kept, held = train_test_split(
            np.arange(len(values)), test_size=share, stratify=stratify, random_state=seed
        )
        return np.sort(kept), np.sort(held)

    def keep(
        self, estimator: Any, config: HeadConfig, training: TrainingConfig, parameters: Parameters
    ) -> None:
        """Set the attributes of a fitted estimator."""
        estimator.classes_, estimator.several_ = self.labels.classes, self.labels.several
        estimator.config_, estimator.training_ = config, training
        estimator.parameters_ = {name: value.cpu().numpy() for name, value in parameters.items()}
        estimator.encoder_ = self.encoder
        files = None if self.encoder is None else self.encoder.files
        estimator.backbone_ = None if files is None else (files.version, files.tokenizer_hash)


def configured(
    estimator: Any, count: int, padding_side: str, on_texts: bool
) -> tuple[HeadConfig, TrainingConfig]:
    """The head that an estimator trains on so many examples, and how.

    Args:
        estimator: The estimator.
        count: Number of training examples.
        padding_side: Side on which the tokenizer pads.
        on_texts: Whether the examples are texts.

    Raises:
        SpaceliteError: A parameter is invalid.
        ValueError: The head needs texts, or `patience` is given without `validation_fraction`.
    """
    asked = {name: getattr(estimator, name) for name in plan.declared() if hasattr(estimator, name)}
    if "pooling" in asked and asked["pooling"] is None:
        asked["pooling"] = default_pooling(padding_side)
    if hasattr(estimator, "random_state"):
        asked["seed"] = asked["data_seed"] = estimator._seed()
    # Of heads that are not trained in epochs these two have no effect.
    asked = {"epochs": 1, "batch_size": 1, **asked, "patience": None}
    config, training = plan.plan_one(estimator.kind, asked, count)
    if not on_texts and (reads_ids(config) or config.reads_layers):
        raise ValueError(
            f"{type(estimator).__name__} ({config.name}) needs texts: hidden states of one layer "
            "do not tell it which tokens or what other layers there are"
        )
    training = replace(training, patience=_patience(estimator, training.epochs))
    settings.check(training)
    return config, training


def reads_ids(config: HeadConfig) -> bool:
    """Whether a head reads token ids."""
    return issubclass(heads.kind(config.kind), heads.IdHead) or bool(
        getattr(config, "reads_ngrams", False)
    )


def _patience(estimator: Any, epochs: int) -> int | None:
    """After how many epochs without a better one training stops. Without a validation part none is
    better; with one, the best epoch is kept."""
    patience: int | None = getattr(estimator, "patience", None)
    if estimator.validation_share is None:
        if patience is not None:
            raise ValueError(
                f"patience={patience} needs a part of the examples to validate on: give "
                "validation_fraction, such as 0.1"
            )
        return None
    return epochs if patience is None else patience
