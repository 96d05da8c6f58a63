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

from spacelite.heads import lbfgs
from spacelite.settings import positive, setting
from spacelite.tasks.base import Problem

AUTO = "auto"  # C is chosen by cross-validation
FOLDS = 3
SEED = 0  # of the folds
MOST_SEARCHED = 20_000  # examples among which C is chosen; the final fit has all of them
CURVATURE = 0.2  # of the cross-entropy in a logit, p (1 - p): what the preconditioner assumes
# The last step's decrease of the loss per example, in the search for C and in the final fit.
ROUGHLY, EXACTLY = 1e-5, 1e-10

Array = npt.NDArray[Any]
# Which examples are fitted (N,), and their targets as logits have them (N, K) -> (p, K).
Scales = Callable[[Array, Array], Array]


def sparse(starts: Array, columns: Array, values: Array, width: int) -> Any:
    """A sparse matrix (N, width) for `fit`: row i has the columns and values from starts[i] to
    starts[i + 1]."""
    from scipy.sparse import csr_array

    return csr_array((values, columns, starts), shape=(len(starts) - 1, width))


def number_or_auto(value: object) -> str | None:
    """Check of a setting: a positive number, or `auto`."""
    return None if value == AUTO or positive(value) is None else "give a number above 0, or auto"


def strength(default: float | str) -> Any:
    """The setting C of a head."""
    return setting(
        default,
        check=number_or_auto,
        words="C {}",
        tuned=True,
        auto=True,
        metavar="<float|auto>",
        help="Strength(s) of the L2 penalty of logreg and tfidf: the smaller, the stronger; auto: "
        "chosen by cross-validation on train.",
        help_default="auto",
    )


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
    weights: Array | None = None,
) -> Fitted:
    """Fit all problems that make up a task.

    Args:
        inputs: Features, (N, p): a float64 array, or a sparse matrix of scipy.
        problems: The problems; each is one of several classes, or of one class against the rest.
        classes: Number of classes.
        strength: C, or `auto` to choose it.
        among: The values that it is chosen from, in ascending order.
        class_weights: `none` or `balanced`.
        weights: The weight of each example, (N,); None if all are 1.
    """
    chosen: float | str = strength
    if strength == AUTO:
        chosen = choose(inputs, problems, among, class_weights, weights)
    weight, bias = np.zeros((classes, inputs.shape[1])), np.zeros(classes)
    features = Features(inputs)
    for columns, targets in problems:
        problem = Fit(features, targets, len(columns), class_weights, weights)
        found = problem.spread(problem.optimum(float(chosen), None, EXACTLY))
        weight[columns], bias[columns] = found
    return Fitted(weight, bias, float(chosen))


def choose(
    inputs: Any,
    problems: Sequence[Problem],
    among: Sequence[float],
    class_weights: str = "none",
    weights: Array | None = None,
) -> float:
    """The C with the lowest cross-entropy in stratified cross-validation, that of all problems
    together: it depends less on which examples are held out than the accuracy does, which only
    counts whole examples.

    Each value starts from the optimum of the one before it; after the first that is worse than the
    one before, larger values are not tried. Where there are too few examples for folds, it is the
    middle value.
    """
    import scipy.linalg  # noqa: F401 - what is not loaded yet cannot be limited
    from threadpoolctl import threadpool_limits

    targets = np.stack([own for _, own in problems], axis=1)
    weights = np.ones(len(targets)) if weights is None else weights
    if len(targets) > MOST_SEARCHED:
        rows = np.sort(np.random.default_rng(SEED).permutation(len(targets))[:MOST_SEARCHED])
        inputs, targets, weights = inputs[rows], targets[rows], weights[rows]
    if len(targets) < 2 * FOLDS:
        return among[len(among) // 2]
    fold = folds(targets, FOLDS)
    columns = [own for own, _ in problems]

    def part(number: int) -> _Part:
        return _Part(inputs, targets, columns, fold == number, class_weights, weights)

    best, chosen = math.inf, among[0]
    # The folds share the cores already: more threads in each product would wait for each other.
    with threadpool_limits(1), ThreadPoolExecutor(FOLDS) as pool:
        parts = list(pool.map(part, range(FOLDS)))
        for strength in among:
            found = sum(pool.map(partial(_Part.cross_entropy, strength=strength), parts))
            if found >= best:
                break
            best, chosen = found, strength
    return chosen


def folds(targets: Array, count: int = FOLDS) -> Array:
    """The fold of each example, (N,), of `count`, seeded: each combination of `targets` (N, P) is
    spread evenly over all folds."""
    _, kinds = np.unique(targets, axis=0, return_inverse=True)
    order = np.random.default_rng(SEED).permutation(len(targets))
    order = order[np.argsort(kinds.reshape(-1)[order], kind="stable")]
    fold = np.empty(len(targets), np.int64)
    fold[order] = np.arange(len(targets)) % count
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
        weights: Array,
    ) -> None:
        features = Features(inputs[~held])
        self._problems = [
            Fit(features, own, len(of), class_weights, weights[~held])
            for own, of in zip(targets[~held].T, columns, strict=True)
        ]
        self._held, self._targets, self._weights = inputs[held], targets[held].T, weights[held]
        self._last: list[Array | None] = [None] * len(columns)

    def cross_entropy(self, strength: float) -> float:
        """The sum of the cross-entropies of the held examples, at the optimum for this C."""
        total = 0.0
        for number, problem in enumerate(self._problems):
            at = problem.optimum(strength, self._last[number], ROUGHLY)
            self._last[number] = at
            weight, bias = problem.spread(at)
            logits = self._held @ weight.T + bias
            total += cross_entropy(logits, self._targets[number], self._weights)
        return total


class Features:
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

    def times(self, weight: Array) -> Array:
        """The features times weights (p, K), float64: (N, K)."""
        return self._product(self.inputs, weight)

    def turned_times(self, residuals: Array) -> Array:
        """The transposed features times residuals (N, K), float64: (p, K)."""
        return self._product(self.turned, residuals)

    def _product(self, matrix: Any, factor: Array) -> Array:
        # The matrix is not converted to float64: that takes longer than the product.
        return np.asarray(matrix @ factor.astype(matrix.dtype, copy=False), np.float64)

    def prepare(self, penalty: float) -> None:
        """Compute what `rough_inverse` needs for a penalty, before several threads need it."""
        if self._sparse or self._factor[0] == penalty:
            return
        from scipy.linalg import cho_factor

        hessian = CURVATURE * self._squares
        hessian[np.diag_indices_from(hessian)] += penalty
        factor = cho_factor(hessian, lower=True, overwrite_a=True, check_finite=False)
        self._factor = (penalty, factor)

    def rough_inverse(self, penalty: float, scale: Array | float, gradient: Array) -> Array:
        """A rough inverse of the Hessian times a gradient (p + 1, K); `scale` as in `Fit`."""
        bias = gradient[-1:] / (CURVATURE * self.examples)
        if self._sparse:
            squares = self._squares[:, None] * np.square(scale)
            weights = gradient[:-1] / (CURVATURE * squares + penalty)
        else:
            from scipy.linalg import cho_solve

            self.prepare(penalty)
            own = gradient[:-1].astype(self._squares.dtype)
            weights = cho_solve(self._factor[1], own, check_finite=False)
        return np.concatenate([weights, bias])


class Fit:
    """One classification problem: the optimum for a C.

    Args:
        features: Features of N examples.
        targets: Their targets, (N,).
        columns: Number of the problem's columns.
        class_weights: `none` or `balanced`.
        sample: The weight of each example, (N,): 0 for one that is not fitted. Default: 1 for all.
        scales: How large each weight may be; the penalty is |W / scales|^2 / (2 C). Only for sparse
            features.
    """

    def __init__(
        self,
        features: Features,
        targets: Array,
        columns: int,
        class_weights: str,
        sample: Array | None = None,
        scales: Scales | None = None,
    ) -> None:
        self.features, self._columns = features, columns
        sample = np.ones(len(targets)) if sample is None else sample
        fitted = sample > 0
        self._targets, self._sample = targets[fitted], sample[fitted]
        self._classes = np.unique(self._targets)
        present = len(self._classes)
        index = np.searchsorted(self._classes, targets).clip(max=present - 1)
        self._weights = sample[:, None].astype(float)
        if class_weights != "none" and present > 1:
            totals = np.bincount(index[fitted], self._sample, minlength=present)
            self._weights[:, 0] *= (self._sample.sum() / (present * totals))[index]
        # Two classes have one logit, as in scikit-learn.
        self._goal = (index[:, None] if present == 2 else np.eye(present)[index]).astype(float)
        self._scale = 1.0 if scales is None or present < 2 else scales(sample, self._goal)

    def optimum(self, strength: float, start: Array | None, tolerance: float) -> Array:
        """The optimum (p + 1, K): weights, and below them the biases. `start` is where to begin,
        such as the optimum for another C."""
        (found,) = optima([self], strength, [start], tolerance)
        return found

    @property
    def settled(self) -> bool:
        """Whether there is nothing to search for: all examples have the same class."""
        return len(self._classes) < 2

    def search(self, penalty: float, start: Array | None, tolerance: float) -> lbfgs.Search:
        """The search for the optimum; `start` as in `optimum`."""
        rough = partial(self.features.rough_inverse, penalty, self._scale)
        known = start is not None and start.shape[1] == self._goal.shape[1]
        first = start if start is not None and known else self._start()
        # Of the loss per example of average weight.
        least = tolerance * self.features.examples * float(self._sample.mean())
        return lbfgs.search(rough, first, least)

    def _start(self) -> Array:
        """Weights of 0, and the biases that fit best with them."""
        share = (self._weights * self._goal).sum(axis=0) / self._weights.sum()
        start = np.zeros((self.features.width + 1, len(share)))
        start[-1] = np.log(share) - (np.log1p(-share) if len(share) == 1 else 0)
        return start

    def scaled(self, at: Array) -> Array:
        """The weights (p, K) at a point of the search, (p + 1, K)."""
        return np.asarray(at[:-1] * self._scale)

    def value(self, at: Array, products: Array, penalty: float) -> tuple[float, Array]:
        """The penalised loss at a point, and its gradient in the logits, (N, K); `products` are
        those of the features and the weights, (N, K)."""
        logits = products + at[-1]
        if logits.shape[1] == 1:
            losses = np.logaddexp(0, logits) - self._goal * logits
            probabilities = np.exp(-np.logaddexp(0, -logits))
        else:
            logits -= logits.max(axis=1, keepdims=True)
            powers = np.exp(logits)
            sums = powers.sum(axis=1, keepdims=True)
            losses = np.log(sums) - (self._goal * logits).sum(axis=1, keepdims=True)
            probabilities = powers / sums
        value = (losses * self._weights).sum() + penalty / 2 * (at[:-1] ** 2).sum()
        return float(value), (probabilities - self._goal) * self._weights

    def gradient(self, at: Array, residuals: Array, turned: Array, penalty: float) -> Array:
        """The gradient at a point, (p + 1, K), from that in the logits; `turned` are the products
        of the features and that gradient, (p, K)."""
        weights = turned * self._scale + penalty * at[:-1]
        return np.concatenate([weights, residuals.sum(axis=0)[None]])

    def spread(self, found: Array) -> tuple[Array, Array]:
        """An optimum as weights (C, p) and biases (C,) of the problem's columns."""
        weights, biases = (found[:-1] * self._scale).T, found[-1]
        if self._columns == 1:
            if len(self._classes) < 2:  # nothing to separate
                positive, count = float(self._sample @ self._targets), float(self._sample.sum())
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


def optima(
    fits: Sequence[Fit], strength: float, starts: Sequence[Array | None], tolerance: float
) -> list[Array]:
    """The optimum of several fits to the same features, (p + 1, K) each. They are searched for
    together: the features are read once for all of them, which takes longer than to calculate.

    Args:
        fits: The fits.
        strength: C.
        starts: Where to begin each, such as the optimum for another C; None for the beginning.
        tolerance: A search ends with a step that decreases the loss per example by less.
    """
    penalty = 1 / strength
    unsettled = [number for number, one in enumerate(fits) if not one.settled]

    def losses(numbers: Sequence[int], points: Sequence[Array]) -> list[tuple[float, Array]]:
        own = [fits[unsettled[number]] for number in numbers]
        features = own[0].features
        cuts = np.cumsum([point.shape[1] for point in points])[:-1]
        weights = [one.scaled(point) for one, point in zip(own, points, strict=True)]
        products = np.split(features.times(np.concatenate(weights, axis=1)), cuts, axis=1)
        values = [
            one.value(point, product, penalty)
            for one, point, product in zip(own, points, products, strict=True)
        ]
        residuals = [residual for _, residual in values]
        turned = features.turned_times(np.concatenate(residuals, axis=1))
        gradients = [
            one.gradient(point, residual, part, penalty)
            for one, point, residual, part in zip(
                own, points, residuals, np.split(turned, cuts, axis=1), strict=True
            )
        ]
        return [(value, one) for (value, _), one in zip(values, gradients, strict=True)]

    searches = [fits[number].search(penalty, starts[number], tolerance) for number in unsettled]
    found: list[Array] = [np.zeros((one.features.width + 1, 1)) for one in fits]
    for number, at in zip(unsettled, lbfgs.minima(losses, searches), strict=True):
        found[number] = at
    return found


def cross_entropy(logits: Array, labels: Array, weights: Array) -> float:
    """The sum of the examples' cross-entropies, each times its weight."""
    if logits.shape[1] == 1:
        return float((np.logaddexp(0, logits[:, 0]) - labels * logits[:, 0]) @ weights)
    logits = logits - logits.max(axis=1, keepdims=True)
    sums = np.log(np.exp(logits).sum(axis=1))
    return float((sums - logits[np.arange(len(labels)), labels]) @ weights)
