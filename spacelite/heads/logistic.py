"""Logistic regression with an L2 penalty: the optimum that scikit-learn's LogisticRegression finds,
found faster, and the strength C of the penalty chosen by cross-validation.

Shapes: N examples, p features, K columns: a column per class, or a single one that tells a class
from the rest. Minimised is sum_i w_i CE_i + |W|^2 / (2 C); biases are not penalised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from spacelite.settings import positive
from spacelite.tasks.base import Problem

AUTO = "auto"  # C is chosen by cross-validation
FOLDS = 3
SEED = 0  # of the folds
MOST_SEARCHED = 20_000  # examples among which C is chosen; the final fit has all of them
CURVATURE = 0.2  # of the cross-entropy in a logit, p (1 - p): what the preconditioner assumes
MEMORY = 10  # pairs of steps and gradients that L-BFGS keeps
MOST_STEPS, SHORTEST = 500, 1e-10
# The last step's decrease of the loss per example, in the search for C and in the final fit.
ROUGHLY, EXACTLY = 1e-5, 1e-10

Array = npt.NDArray[Any]


def sparse(starts: Array, columns: Array, values: Array, width: int) -> Any:
    """A sparse matrix (N, width) for `fit`: row i has the columns and values from starts[i] to
    starts[i + 1]."""
    from scipy.sparse import csr_array

    return csr_array((values, columns, starts), shape=(len(starts) - 1, width))


def number_or_auto(value: object) -> str | None:
    """Check of a setting: a positive number, or `auto`."""
    return None if value == AUTO or positive(value) is None else "give a number above 0, or auto"


@dataclass(frozen=True)
class Fitted:
    """What `fit` returns.

    Attributes:
        weight: Weights, (C, p).
        bias: Biases, (C,).
        strength: The strength C of the penalty.
    """

    weight: Array
    bias: Array
    strength: float


def fit(
    inputs: Any,
    problems: Sequence[Problem],
    classes: int,
    strength: float | str,
    among: Sequence[float],
    class_weights: str = "none",
) -> Fitted:
    """Fit all problems that make up a task.

    Args:
        inputs: Features, (N, p): a float64 array, or a sparse matrix of scipy.
        problems: The problems; each is one of several classes, or of one class against the rest.
        classes: Number of classes.
        strength: C, or `auto` to choose it.
        among: The values that it is chosen from, in ascending order.
        class_weights: `none` or `balanced`.
    """
    chosen = choose(inputs, problems, among, class_weights) if strength == AUTO else strength
    weight, bias = np.zeros((classes, inputs.shape[1])), np.zeros(classes)
    features = _Features(inputs)
    for columns, targets in problems:
        problem = _Problem(features, targets, len(columns), class_weights)
        found = problem.spread(problem.optimum(float(chosen), None, EXACTLY))
        weight[columns], bias[columns] = found
    return Fitted(weight, bias, float(chosen))


def choose(
    inputs: Any, problems: Sequence[Problem], among: Sequence[float], class_weights: str = "none"
) -> float:
    """The C with the lowest cross-entropy in stratified cross-validation, that of all problems
    together: it depends less on which examples are held out than the accuracy does, which only
    counts whole examples.

    Each value starts from the optimum of the one before it; after the first that is worse than the
    one before, larger values are not tried. Where there are too few examples for folds, it is the
    middle value.
    """
    targets = np.stack([own for _, own in problems], axis=1)
    if len(targets) > MOST_SEARCHED:
        rows = np.random.default_rng(SEED).permutation(len(targets))[:MOST_SEARCHED]
        inputs, targets = inputs[np.sort(rows)], targets[np.sort(rows)]
    if len(targets) < 2 * FOLDS:
        return among[len(among) // 2]
    fold = folds(targets)
    parts = [
        _Part(inputs, targets, [columns for columns, _ in problems], fold == number, class_weights)
        for number in range(FOLDS)
    ]
    best = math.inf
    chosen = among[0]
    with ThreadPoolExecutor(FOLDS) as pool:
        for strength in among:
            found = sum(pool.map(partial(_Part.cross_entropy, strength=strength), parts))
            if found >= best:
                break
            best, chosen = found, strength
    return chosen


def folds(targets: Array) -> Array:
    """The fold of each example, (N,), seeded: each combination of `targets` (N, P) is spread evenly
    over all folds."""
    _, kinds = np.unique(targets, axis=0, return_inverse=True)
    order = np.random.default_rng(SEED).permutation(len(targets))
    order = order[np.argsort(kinds.reshape(-1)[order], kind="stable")]
    fold = np.empty(len(targets), np.int64)
    fold[order] = np.arange(len(targets)) % FOLDS
    return fold


class _Part:
    """One fold of the cross-validation: all problems, fitted without the held examples."""

    def __init__(
        self,
        inputs: Any,
        targets: Array,
        columns: Sequence[Sequence[int]],
        held: Array,
        class_weights: str,
    ) -> None:
        features = _Features(inputs[~held])
        self._problems = [
            _Problem(features, own, len(of), class_weights)
            for own, of in zip(targets[~held].T, columns, strict=True)
        ]
        self._held, self._targets = inputs[held], targets[held].T
        self._last: list[Array | None] = [None] * len(columns)

    def cross_entropy(self, strength: float) -> float:
        """The sum of the cross-entropies of the held examples, at the optimum for this C."""
        total = 0.0
        for number, problem in enumerate(self._problems):
            at = problem.optimum(strength, self._last[number], ROUGHLY)
            self._last[number] = at
            weight, bias = problem.spread(at)
            total += _cross_entropy(self._held @ weight.T + bias, self._targets[number])
        return total


class _Features:
    """The features of the examples of several problems, with what these share."""

    def __init__(self, inputs: Any) -> None:
        self.inputs = inputs
        self.examples, self.width = inputs.shape
        self._sparse = not isinstance(inputs, np.ndarray)
        self.turned = inputs.T.tocsr() if self._sparse else inputs.T
        # The Hessian's diagonal, or all of it, up to the curvature.
        self._squares: Array = (
            np.asarray(inputs.multiply(inputs).sum(axis=0)).reshape(-1)
            if self._sparse
            else inputs.T @ inputs
        )
        self._factor: tuple[float, Any] = (0.0, None)

    def rough_inverse(self, penalty: float, gradient: Array) -> Array:
        """A rough inverse of the Hessian times a gradient (p + 1, K)."""
        bias = gradient[-1:] / (CURVATURE * self.examples)
        if self._sparse:
            weights = gradient[:-1] / (CURVATURE * self._squares + penalty)[:, None]
        else:
            from scipy.linalg import cho_factor, cho_solve

            if self._factor[0] != penalty:
                hessian = CURVATURE * self._squares
                hessian[np.diag_indices_from(hessian)] += penalty
                self._factor = (penalty, cho_factor(hessian, lower=True, overwrite_a=True))
            weights = cho_solve(self._factor[1], gradient[:-1])
        return np.concatenate([weights, bias])


class _Problem:
    """One classification problem: the optimum for a C."""

    def __init__(
        self, features: _Features, targets: Array, columns: int, class_weights: str
    ) -> None:
        self._features, self._columns, self._targets = features, columns, targets
        self._classes, index = np.unique(targets, return_inverse=True)
        present = len(self._classes)
        self._weights = np.ones((len(targets), 1))
        if class_weights != "none" and present > 1:
            self._weights[:, 0] = (len(targets) / (present * np.bincount(index)))[index]
        # Two classes have one logit, as in scikit-learn.
        self._goal = (index[:, None] if present == 2 else np.eye(present)[index]).astype(float)

    def optimum(self, strength: float, start: Array | None, tolerance: float) -> Array:
        """The optimum (p + 1, K): weights, and below them the biases. `start` is where to begin,
        such as the optimum for another C."""
        if len(self._classes) < 2:
            return np.zeros((self._features.width + 1, 1))
        penalty = 1 / strength

        def loss(at: Array) -> tuple[float, Array]:
            return self._loss(at, penalty)

        rough = partial(self._features.rough_inverse, penalty)
        start = self._start() if start is None else start
        return _minimum(loss, rough, start, tolerance * self._features.examples)

    def _start(self) -> Array:
        """Weights of 0, and the biases that fit best with them."""
        share = (self._weights * self._goal).sum(axis=0) / self._weights.sum()
        start = np.zeros((self._features.width + 1, len(share)))
        start[-1] = np.log(share) - (np.log1p(-share) if len(share) == 1 else 0)
        return start

    def _loss(self, at: Array, penalty: float) -> tuple[float, Array]:
        """The penalised loss at (p + 1, K) weights and biases, and its gradient."""
        logits = self._features.inputs @ at[:-1] + at[-1]
        if logits.shape[1] == 1:
            losses = np.logaddexp(0, logits) - self._goal * logits
            probabilities = np.exp(-np.logaddexp(0, -logits))
        else:
            logits -= logits.max(axis=1, keepdims=True)
            powers = np.exp(logits)
            sums = powers.sum(axis=1, keepdims=True)
            losses = np.log(sums) - (self._goal * logits).sum(axis=1, keepdims=True)
            probabilities = powers / sums
        residuals = (probabilities - self._goal) * self._weights
        gradient = np.concatenate(
            [self._features.turned @ residuals + penalty * at[:-1], residuals.sum(axis=0)[None]]
        )
        value = (losses * self._weights).sum() + penalty / 2 * (at[:-1] ** 2).sum()
        return float(value), gradient

    def spread(self, found: Array) -> tuple[Array, Array]:
        """An optimum as weights (C, p) and biases (C,) of the problem's columns."""
        weights, biases = found[:-1].T, found[-1]
        if self._columns == 1:
            if len(self._classes) < 2:  # nothing to separate
                positive, count = int(self._targets.sum()), len(self._targets)
                log_odds = math.log((positive + 0.5) / (count - positive + 0.5))  # smoothed
                return weights, np.array([log_odds])
            return weights, biases
        if len(self._classes) == 2:
            weights = np.concatenate([-weights, weights]) / 2
            biases = np.concatenate([-biases, biases]) / 2
        weight = np.zeros((self._columns, weights.shape[1]))
        # A class missing from train is practically never predicted, but its cross-entropy is
        # finite.
        bias = np.full(self._columns, biases.min() - 20)
        weight[self._classes], bias[self._classes] = weights, biases
        return weight, bias


def _minimum(
    loss: Callable[[Array], tuple[float, Array]],
    rough: Callable[[Array], Array],
    start: Array,
    least: float,
) -> Array:
    """The minimum of `loss`, by L-BFGS with a rough inverse of the Hessian (Nocedal & Wright,
    Numerical Optimization, algorithm 7.4), once a step decreases it by less than `least`."""
    at = start
    value, gradient = loss(at)
    pairs: list[tuple[Array, Array, float]] = []
    for _ in range(MOST_STEPS):
        step = _direction(gradient, pairs, rough)
        slope, length = float((step * gradient).sum()), 1.0
        new = at - step
        new_value, new_gradient = loss(new)
        while new_value > value - 1e-4 * length * slope and length > SHORTEST:
            length /= 2
            new = at - length * step
            new_value, new_gradient = loss(new)
        if new_value >= value:  # rounding hides any further decrease
            break
        change, turn = new - at, new_gradient - gradient
        product = float((change * turn).sum())
        if product > 0:
            pairs = [*pairs[1 - MEMORY :], (change, turn, product)]
        decrease = value - new_value
        at, value, gradient = new, new_value, new_gradient
        if decrease < least:
            break
    return at


def _direction(
    gradient: Array, pairs: Sequence[tuple[Array, Array, float]], rough: Callable[[Array], Array]
) -> Array:
    """The gradient times L-BFGS's inverse of the Hessian."""
    step, factors = gradient.copy(), []
    for change, turn, product in reversed(pairs):
        factors.append(float((change * step).sum()) / product)
        step -= factors[-1] * turn
    step = rough(step)
    if pairs:
        _, turn, product = pairs[-1]
        step *= product / float((turn * rough(turn)).sum())
    for (change, turn, product), factor in zip(pairs, reversed(factors), strict=True):
        step += (factor - float((turn * step).sum()) / product) * change
    return step


def _cross_entropy(logits: Array, labels: Array) -> float:
    """The sum of the examples' cross-entropies."""
    if logits.shape[1] == 1:
        return float((np.logaddexp(0, logits[:, 0]) - labels * logits[:, 0]).sum())
    logits = logits - logits.max(axis=1, keepdims=True)
    sums = np.log(np.exp(logits).sum(axis=1))
    return float((sums - logits[np.arange(len(labels)), labels]).sum())
