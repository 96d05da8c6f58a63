"""scikit-learn's LogisticRegression on pooled hidden states: the honest strong baseline."""

from __future__ import annotations

import logging
import math
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

log = logging.getLogger(__name__)

MAX_ITERATIONS = 1000  # scikit-learn's 100 do not suffice for a few hundred features

Array = npt.NDArray[Any]


def fit(
    features: Array, labels: Array, classes: int, class_weights: str
) -> dict[str, torch.Tensor]:
    """The parameters `classifier.weight` (C, d) and `classifier.bias` (C,) of the linear layer
    that LogisticRegression (its default L2 penalty, C = 1) fits to `features` (N, d).

    `labels` (N,), or (N, C) for one binary regression a class. With two classes the difference of
    the two logits is scikit-learn's single one. `class_weights`: `none` or `balanced`.
    """
    features = features.astype(np.float64)
    if labels.ndim == 2:
        parts = [_binary(features, labels[:, c], class_weights) for c in range(classes)]
        weight = np.stack([weight for weight, _ in parts])
        bias = np.array([bias for _, bias in parts])
    else:
        model = _fit(features, labels, class_weights)
        coefficients, intercepts = model.coef_, model.intercept_
        if len(model.classes_) == 2:
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        weight = np.zeros((classes, features.shape[1]))
        # A class that train lacks is practically never predicted, its cross-entropy still finite.
        bias = np.full(classes, intercepts.min() - 20)
        weight[model.classes_], bias[model.classes_] = coefficients, intercepts
    return {
        "classifier.weight": torch.from_numpy(weight).float(),
        "classifier.bias": torch.from_numpy(bias).float(),
    }


def _binary(features: Array, labels: Array, class_weights: str) -> tuple[Array, float]:
    positive = int(labels.sum())
    if 0 < positive < len(labels):
        model = _fit(features, labels, class_weights)
        return model.coef_[0], float(model.intercept_[0])
    # Nothing to separate: the (smoothed) log-odds of the class.
    return np.zeros(features.shape[1]), math.log((positive + 0.5) / (len(labels) - positive + 0.5))


def _fit(features: Array, labels: Array, class_weights: str) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        max_iter=MAX_ITERATIONS, class_weight=None if class_weights == "none" else class_weights
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(features, labels)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        log.warning("logreg has not converged after %s iterations", f"{MAX_ITERATIONS:,}")
    return model
