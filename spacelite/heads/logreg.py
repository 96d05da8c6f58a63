"""The logreg head: logistic regression on one vector per example, a strong baseline.
It is fitted at once, not trained in epochs."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from typing_extensions import override

from spacelite.heads import logistic
from spacelite.heads.batch import Objective
from spacelite.heads.config import HeadConfig
from spacelite.heads.examples import Examples, Fitted
from spacelite.heads.linear import LinearHead
from spacelite.heads.pooled import PooledConfig
from spacelite.lazy import torch

log = logging.getLogger(__name__)

# Values of C among which `auto` chooses, for standardised vectors.
STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.1)
CONSTANT = 1e-6  # a dimension with a smaller deviation differs only by rounding
MAX_ITERATIONS = 1000  # scikit-learn's default of 100 is too few for a few hundred features

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class LogregConfig(PooledConfig):
    """Logistic regression: no seed, learning rate or weight decay.

    Attributes:
        C: Strength of the L2 penalty, as in scikit-learn: the smaller, the stronger. A number is
            for the vectors as they are; `auto`: chosen by cross-validation on train, on
            standardised vectors.
    """

    kind: ClassVar[str] = "logreg"
    is_baseline: ClassVar[bool] = True

    C: float | str = logistic.strength(1.0)

    @override
    def settings(self) -> dict[str, Any]:
        # A seed has been hashed into its ids from the beginning, although it does not have one.
        return {"seed": 0, **super().settings()}


class LogregHead(LinearHead):
    """A linear layer fitted by logistic regression with an L2 penalty.

    With a number C it is scikit-learn's LogisticRegression on the vectors as they are. With `auto`,
    C is chosen by cross-validation, on standardised vectors, so that the penalty treats all
    dimensions alike; the standardisation is folded into the weights.
    """

    config_type: ClassVar[type[HeadConfig]] = LogregConfig

    @classmethod
    @override
    def fit(cls, config: Any, train: Examples, objective: Objective, class_weights: str) -> Fitted:
        inputs = train.features(config.pooling).cpu().numpy().astype(np.float64)
        problems = objective.task.problems(train.labels.cpu().numpy(), objective.classes)
        chosen: dict[str, float] = {}
        if config.C == logistic.AUTO:
            scaled, mean, scale = _standardised(inputs)
            found = logistic.fit(
                scaled, problems, objective.classes, config.C, STRENGTHS, class_weights,
                train.weights,
            )  # fmt: skip
            weight = found.weight * scale
            bias, chosen = found.bias - weight @ mean, {"C": found.strength}
        else:
            weight = np.zeros((objective.classes, inputs.shape[1]))
            bias = np.zeros(objective.classes)
            for columns, targets in problems:
                weight[columns], bias[columns] = _fit(
                    inputs, targets, len(columns), class_weights, config.C, train.weights
                )
        parameters = {
            "classifier.weight": torch.from_numpy(weight).float(),
            "classifier.bias": torch.from_numpy(bias).float(),
        }
        return Fitted(parameters, chosen)


def _standardised(inputs: Array) -> tuple[Array, Array, Array]:
    """Inputs (N, d) with mean 0 and deviation 1 in each dimension, that mean, and the factor of
    each dimension; it is 0 for those that are constant but for rounding."""
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    varies = deviation > CONSTANT * (1 + np.abs(mean))
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=varies)
    return (inputs - mean) * scale, mean, scale


def _fit(
    inputs: Array,
    targets: Array,
    columns: int,
    class_weights: str,
    strength: float,
    weights: Array | None,
) -> tuple[Array, Array]:
    """Weights (columns, d) and biases (columns,) of one classification problem.

    A single column means a binary problem: its class against the rest.
    """
    if columns == 1:
        positive = int(targets.sum())
        if positive in (0, len(targets)):  # nothing to separate
            log_odds = math.log((positive + 0.5) / (len(targets) - positive + 0.5))  # smoothed
            return np.zeros((1, inputs.shape[1])), np.array([log_odds])
        model = _regression(inputs, targets, class_weights, strength, weights)
        return model.coef_, model.intercept_
    model = _regression(inputs, targets, class_weights, strength, weights)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weight = np.zeros((columns, inputs.shape[1]))
    # A class missing from train is practically never predicted, but its cross-entropy is finite.
    bias = np.full(columns, intercepts.min() - 20)
    weight[model.classes_], bias[model.classes_] = coefficients, intercepts
    return weight, bias


def _regression(
    inputs: Array, targets: Array, class_weights: str, strength: float, weights: Array | None
) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=strength,
        max_iter=MAX_ITERATIONS,
        class_weight=None if class_weights == "none" else class_weights,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(inputs, targets, weights)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        log.warning(
            "logreg did not converge within %s iterations: a longer fit might be better",
            f"{MAX_ITERATIONS:,}",
        )
    return model
