"""The logreg head: scikit-learn's LogisticRegression on one vector per example, a strong baseline.
It is fitted at once, not trained in epochs."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from spacelite.heads.base import Parameters
from spacelite.heads.batch import Objective
from spacelite.heads.config import HeadConfig
from spacelite.heads.linear import LinearHead
from spacelite.heads.pooled import PooledConfig
from spacelite.lazy import torch

log = logging.getLogger(__name__)

MAX_ITERATIONS = 1000  # scikit-learn's default of 100 is too few for a few hundred features

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class LogregConfig(PooledConfig):
    """scikit-learn's LogisticRegression: no seed, learning rate or weight decay."""

    kind: ClassVar[str] = "logreg"

    @override
    def settings(self) -> dict[str, Any]:
        # A seed has been hashed into its ids from the beginning, although it does not have one.
        return {"seed": 0, **super().settings()}


class LogregHead(LinearHead):
    """A linear layer fitted by LogisticRegression with its default L2 penalty, C = 1."""

    config_type: ClassVar[type[HeadConfig]] = LogregConfig

    @classmethod
    def fit(
        cls,
        config: Any,
        features: Callable[[str], torch.Tensor],
        labels: torch.Tensor,
        objective: Objective,
        class_weights: str,
    ) -> Parameters:
        """Fit the parameters of one head.

        With two classes, the difference between the two logits is scikit-learn's single logit.

        Args:
            config: Config of the head.
            features: Name of a pooling -> one vector per training example, (N, d).
            labels: Labels of the training examples, (N,) or (N, C).
            objective: Task and number of classes.
            class_weights: `none` or `balanced`.

        Returns:
            `classifier.weight` (C, d) and `classifier.bias` (C,).
        """
        inputs = features(config.pooling).cpu().numpy().astype(np.float64)
        weight = np.zeros((objective.classes, inputs.shape[1]))
        bias = np.zeros(objective.classes)
        for columns, targets in objective.task.problems(labels.cpu().numpy(), objective.classes):
            weight[columns], bias[columns] = _fit(inputs, targets, len(columns), class_weights)
        return {
            "classifier.weight": torch.from_numpy(weight).float(),
            "classifier.bias": torch.from_numpy(bias).float(),
        }


def _fit(inputs: Array, targets: Array, columns: int, class_weights: str) -> tuple[Array, Array]:
    """Weights (columns, d) and biases (columns,) of one classification problem.

    A single column means a binary problem: its class against the rest.
    """
    if columns == 1:
        positive = int(targets.sum())
        if positive in (0, len(targets)):  # nothing to separate
            log_odds = math.log((positive + 0.5) / (len(targets) - positive + 0.5))  # smoothed
            return np.zeros((1, inputs.shape[1])), np.array([log_odds])
        model = _regression(inputs, targets, class_weights)
        return model.coef_, model.intercept_
    model = _regression(inputs, targets, class_weights)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight = np.zeros((columns, inputs.shape[1]))
    # A class missing from train is practically never predicted, but its cross-entropy is finite.
    bias = np.full(columns, intercepts.min() - 20)
    weight[model.classes_], bias[model.classes_] = coefficients, intercepts
    return weight, bias


def _regression(inputs: Array, targets: Array, class_weights: str) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        max_iter=MAX_ITERATIONS, class_weight=None if class_weights == "none" else class_weights
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(inputs, targets)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        log.warning(
            "logreg did not converge within %s iterations: a longer fit might be better",
            f"{MAX_ITERATIONS:,}",
        )
    return model
