"""The heads linear, mlp (both published baselines, trained in epochs) and logreg (logistic
regression, fitted directly), on one vector per example."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

from typing_extensions import override

from spacelite.heads import logistic
from spacelite.heads.base import Examples, Fitted, Objective, Shapes
from spacelite.heads.config import HeadConfig, TrainedHeadConfig
from spacelite.heads.pooling import POOLINGS, PooledConfig, PooledHead
from spacelite.lazy import np, torch
from spacelite.tasks.base import Problem
from spacelite.types import Array

log = logging.getLogger(__name__)

# Values of C among which logreg's `auto` chooses, for standardised vectors.
STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.1)
MAX_ITERATIONS = 1000  # scikit-learn's default of 100 is too few for a few hundred features


@dataclass(frozen=True, kw_only=True)
class LinearConfig(TrainedHeadConfig, PooledConfig):
    """A linear layer on one vector per example."""

    kind: ClassVar[str] = "linear"


class LinearHead(PooledHead):
    """Linear(d, C) on one vector per example; the pooling determines the dropout rate."""

    config_type: ClassVar[type[HeadConfig]] = LinearConfig

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        return {"classifier.weight": (classes, width), "classifier.bias": (classes,)}

    @classmethod
    @override
    def not_additive(cls, config: Any) -> str | None:
        return None if POOLINGS[config.pooling].is_mean else super().not_additive(config)

    @classmethod
    @override
    def token_logits(cls, config: Any, parameters: dict[str, Array], hidden: Array) -> Array:
        """With mean pooling, each token contributes W x_t."""
        return np.asarray(hidden @ parameters["classifier.weight"].T.astype(hidden.dtype))


@dataclass(frozen=True, kw_only=True)
class MLPConfig(TrainedHeadConfig, PooledConfig):
    """Two linear layers on one vector per example."""

    kind: ClassVar[str] = "mlp"


class MLPHead(PooledHead):
    """Linear(d, d), ReLU, dropout 0.2, Linear(d, C) on one vector per example."""

    config_type = MLPConfig

    @property
    @override
    def dropout(self) -> float:
        return 0.2  # as published, whatever the pooling

    @classmethod
    @override
    def shapes(cls, config: Any, classes: int, width: int) -> Shapes:
        return {
            "pre_classifier.weight": (width, width),
            "pre_classifier.bias": (width,),
            "classifier.weight": (classes, width),
            "classifier.bias": (classes,),
        }

    @override
    def inputs(self, features: torch.Tensor) -> torch.Tensor:
        examples, width = features.shape
        weight = self.parameters["pre_classifier.weight"]
        hidden = torch.mm(features, weight.flatten(0, 1).T)
        hidden = hidden.view(examples, len(self.configs), width)
        return (hidden + self.parameters["pre_classifier.bias"]).relu_().transpose(0, 1)

    @override
    def inputs_gradients(
        self, logit_gradients: torch.Tensor, inputs: torch.Tensor, features: torch.Tensor
    ) -> None:
        back = torch.bmm(logit_gradients, self.parameters["classifier.weight"])
        # An input is 0 where dropout or ReLU set it to 0.
        back = back.div_(1 - self.dropout).masked_fill_(inputs == 0, 0)
        self.gradients["pre_classifier.bias"] = back.sum(dim=1)
        self.gradients["pre_classifier.weight"] = back.transpose(1, 2) @ features


@dataclass(frozen=True, kw_only=True)
class LogregConfig(PooledConfig):
    """Logistic regression: no seed, learning rate or weight decay. A number C is for the vectors as
    they are; `auto` is chosen on standardised vectors."""

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
        problems = logistic.Problems.of(train, objective, class_weights)
        if config.C == logistic.AUTO:
            mean, scale = logistic.standardise(inputs)
            return _folded(logistic.fit(inputs, problems, config.C, STRENGTHS), mean, scale, config)
        return cls.fit_as_they_are(config, inputs, problems)

    @classmethod
    def fit_as_they_are(cls, config: Any, inputs: Array, problems: logistic.Problems) -> Fitted:
        """Fit to vectors (N, p) that are not standardised, with the strength C of the config."""
        width = inputs.shape[1]
        weight, bias = np.zeros((problems.classes, width)), np.zeros(problems.classes)
        for problem in problems.each:
            columns = problem.columns
            weight[columns], bias[columns] = _scikit_learns(inputs, problem, problems, config.C)
        fit = logistic.LinearFit(weight, bias, config.C)
        return _folded(fit, np.zeros(width), np.ones(width), config)

    @classmethod
    @override
    def fitting_bytes(cls, config: Any, examples: int, width: int) -> int:
        # In double precision: vectors, where C is chosen also standardised ones and those of folds,
        # with random projections of the products of their dimensions.
        auto = config.C == logistic.AUTO
        return 8 * width * (4 * examples + 12 * min(width, logistic.RANK) if auto else examples)


@dataclass(frozen=True, kw_only=True)
class RidgeConfig(LogregConfig):
    """Ridge regression, for labels that are numbers; C is 1 / alpha of scikit-learn's Ridge."""

    kind: ClassVar[str] = "ridge"


class RidgeHead(LogregHead):
    """A linear layer fitted by ridge regression, with C as for logreg: a number for the vectors as
    they are, `auto` by cross-validation on standardised ones."""

    config_type: ClassVar[type[HeadConfig]] = RidgeConfig

    @classmethod
    @override
    def fit_as_they_are(cls, config: Any, inputs: Array, problems: logistic.Problems) -> Fitted:
        mean, scale = inputs.mean(axis=0), np.ones(inputs.shape[1])
        inputs -= mean  # which the bias makes up for
        return _folded(logistic.fit(inputs, problems, config.C, STRENGTHS), mean, scale, config)


def _folded(fit: logistic.LinearFit, mean: Array, scale: Array, config: Any) -> Fitted:
    """A fit to (vectors - mean) * scale as a linear layer on the vectors."""
    weight = fit.weight * scale
    parameters = {"classifier.weight": weight, "classifier.bias": fit.bias - weight @ mean}
    tensors = {name: torch.from_numpy(value).float() for name, value in parameters.items()}
    return Fitted(tensors, {"C": fit.strength} if config.C == logistic.AUTO else {})


def _scikit_learns(
    inputs: Array, problem: Problem, problems: logistic.Problems, strength: float
) -> tuple[Array, Array]:
    """Weights (columns, d) and biases (columns,) of one of the problems by scikit-learn."""
    columns, targets = len(problem.columns), problem.targets
    if columns == 1 and (targets == targets[0]).all():
        return np.zeros((1, inputs.shape[1])), logistic.log_odds(targets, np.ones(len(targets)))
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=strength,
        max_iter=MAX_ITERATIONS,
        class_weight=None if problems.class_weights == "none" else problems.class_weights,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(inputs, targets, problems.weights)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        log.warning(
            "logreg did not converge within %s iterations: a longer fit might be better",
            f"{MAX_ITERATIONS:,}",
        )
    return logistic.to_columns(model.coef_, model.intercept_, model.classes_, columns)
