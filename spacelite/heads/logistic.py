"""Logistic and ridge regression, with an L2 penalty: the optima that scikit-learn's
LogisticRegression and Ridge find, found faster; the strength C of the penalty chosen by
cross-validation; logits of held-out examples.

Shapes: N examples, p features, K columns: a column per class, or a single one that tells a class
from the rest, or that is a number. Minimised is sum_i w_i L_i + |W|^2 / (2 C), where L is the
cross-entropy or half of the squared error; biases are not penalised.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from typing_extensions import override

from spacelite.heads.base import Examples, Objective
from spacelite.lazy import np
from spacelite.memory import require_address_space
from spacelite.settings import positive, setting
from spacelite.tasks.base import Problem
from spacelite.types import Array

AUTO = "auto"  # C is chosen by cross-validation
SEED = 0  # of the folds
CHOICE_FOLDS = 3  # where only C is chosen
FOLDS = 5  # where the logits of held-out examples are kept
MOST_SEARCHED = 20_000  # examples among which C is chosen; the final fit has all of them
CONSTANT = 1e-6  # a dimension with a smaller deviation differs only by rounding: its weight is 0
RANK = 1024  # eigenvectors of the Hessian that the preconditioner knows; others count as alike
CURVATURE = 0.2  # of the cross-entropy in a logit, p (1 - p): what the preconditioner assumes
# The last step's decrease of the loss per example: in the search for C, and in the final fit with
# or without logits of held-out examples.
ROUGHLY, CLOSELY, EXACTLY = 1e-5, 1e-7, 1e-10
BUFFERS = 110  # MB of address space that numpy and scipy take in a thread
MEMORY = 6  # pairs of steps and gradients that L-BFGS keeps
MOST_STEPS, SHORTEST = 500, 1e-10

# Which examples are fitted (N,), and their targets as logits have them (N, K) -> (p, K).
Scales = Callable[[Array, Array], Array]
# Yields points, is sent the value and the gradient at each, and returns the minimum.
Search = Generator[Array, tuple[float, Array], Array]


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
        "chosen by cross-validation on a head's training examples.",
        help_default="auto",
    )


def standardise(inputs: Array) -> tuple[Array, Array]:
    """Give each dimension of (N, p) mean 0 and deviation 1, in place; return the mean and the
    factor of each dimension, 0 for those that are constant but for rounding."""
    mean = inputs.mean(axis=0, dtype=np.float64)
    inputs -= mean.astype(inputs.dtype)
    deviation = np.sqrt(np.einsum("ij,ij->j", inputs, inputs, dtype=np.float64) / len(inputs))
    varies = deviation > CONSTANT * (1 + np.abs(mean))
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=varies)
    inputs *= scale.astype(inputs.dtype)
    return mean, scale


@contextmanager
def pool_of(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads, with each product on one core: on a busy machine, several threads of one
    product wait for each other, and it takes ten times as long."""
    import scipy.linalg  # noqa: F401 - what is not loaded yet cannot be limited
    from threadpoolctl import threadpool_limits

    # OpenBLAS waits for ever for a buffer that it cannot have.
    require_address_space("linear algebra in threads", BUFFERS * threads)
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        yield pool


# A task consists of problems, which are fitted together.


@dataclass(frozen=True)
class Problems:
    """The problems `each` that make up a task of so many classes. The examples may have `weights`
    (N,), the classes those of `class_weights`, as in the setting."""

    each: Sequence[Problem]
    classes: int
    class_weights: str = "none"
    weights: Array | None = None

    @classmethod
    def of(cls, train: Examples, objective: Objective, class_weights: str) -> Problems:
        """The problems of training examples."""
        classes = objective.classes
        each = objective.task.problems(train.labels.cpu().numpy(), classes)
        return cls(each, classes, class_weights, train.weights)

    @property
    def only(self) -> Array:
        """Whether an example is the only one of a label, (N,) bool."""
        only = np.zeros(len(self.sample), bool)
        for problem in self.each:
            if not problem.is_regression:
                _, label = np.unique(problem.targets, return_inverse=True)
                only |= (np.bincount(label, self.sample > 0) == 1)[label] & (self.sample > 0)
        return only

    @property
    def targets(self) -> Array:
        """The targets of all problems, (N, P)."""
        return np.stack([problem.targets for problem in self.each], axis=1)

    @property
    def sample(self) -> Array:
        """The weights of the examples, (N,), 1 where none are given."""
        return np.ones(len(self.each[0].targets)) if self.weights is None else self.weights

    def fits(
        self, features: Features, targets: Array, sample: Array, scales: Scales | None = None
    ) -> list[Fit]:
        """A fit of each problem to examples with these targets, (N, P), and weights, (N,)."""
        return [
            RidgeFit(features, goal, sample)  # scales tell classes apart
            if problem.is_regression
            else Fit(features, goal, len(problem.columns), self.class_weights, sample, scales)
            for problem, goal in zip(self.each, targets.T, strict=True)
        ]

    def features(self, inputs: Any) -> Features:
        """The features (N, p) of the examples, for `fits`."""
        return Features(inputs, 1.0 if self.each[0].is_regression else CURVATURE)

    def among(self, strengths: Sequence[float]) -> list[float]:
        """Strengths C that shrink weights as much as these do in logistic regression, whose loss is
        less curved."""
        factor = CURVATURE if self.each[0].is_regression else 1.0
        return [factor * strength for strength in strengths]

    @property
    def spread(self) -> float:
        """The unit of logits: 1, or the standard deviation of the numbers to predict."""
        targets = self.each[0].targets
        return float(targets.std()) or 1.0 if self.each[0].is_regression else 1.0

    def loss(self, problem: Problem, logits: Array, goal: Array, weights: Array) -> float:
        """The sum of a problem's losses, each times the weight of its example."""
        if problem.is_regression:
            return float((logits[:, 0] - goal) ** 2 @ weights)
        return cross_entropy(logits, goal, weights)

    def joined(self, fits: Sequence[Fit]) -> tuple[Array, Array]:
        """Weights (C, p) and biases (C,) of all problems, from the optimum of each."""
        weight, bias = np.zeros((self.classes, fits[0].features.width)), np.zeros(self.classes)
        for (columns, _), problem in zip(self.each, fits, strict=True):
            weight[columns], bias[columns] = problem.solution()
        return weight, bias


@dataclass(frozen=True)
class LinearFit:
    """Weights (C, p) and biases (C,), and the strength C of the penalty."""

    weight: Array
    bias: Array
    strength: float


@dataclass(frozen=True)
class CrossFit(LinearFit):
    """A fit, and the logits (N, C) of each example by a fit that it was held out of."""

    held: Array


def fit(
    inputs: Any, problems: Problems, strength: float | str, among: Sequence[float] = ()
) -> LinearFit:
    """Fit all problems to features (N, p), a float64 array or a sparse matrix. `strength` is C, or
    `auto` to choose it from the ascending values of `among`."""
    chosen = float(choose(inputs, problems, among) if strength == AUTO else strength)
    fits = problems.fits(problems.features(inputs), problems.targets, problems.sample)
    for problem in fits:
        optimise([problem], chosen, EXACTLY)
    return LinearFit(*problems.joined(fits), chosen)


def choose(inputs: Any, problems: Problems, among: Sequence[float]) -> float:
    """The C with the lowest cross-entropy in stratified cross-validation, that of all problems
    together: it depends less on which examples are held out than the accuracy does, which only
    counts whole examples.

    Each value starts from the optimum of the one before it; after the first that is worse than the
    one before, larger values are not tried. Where there are too few examples for folds, it is the
    middle value.
    """
    among = problems.among(among)
    targets, weights = problems.targets, problems.sample
    if len(targets) > MOST_SEARCHED:
        rows = np.sort(np.random.default_rng(SEED).permutation(len(targets))[:MOST_SEARCHED])
        inputs, targets, weights = inputs[rows], targets[rows], weights[rows]
    if len(targets) < 2 * CHOICE_FOLDS:
        return among[len(among) // 2]
    fold = folds(targets, CHOICE_FOLDS)
    held = [fold == number for number in range(CHOICE_FOLDS)]

    def fits_without(rows: Array) -> list[Fit]:
        return problems.fits(problems.features(inputs[~rows]), targets[~rows], weights[~rows])

    def loss_on_held(fits: Sequence[Fit], examples: Any, rows: Array, strength: float) -> float:
        total = 0.0
        for problem, fit, goal in zip(problems.each, fits, targets[rows].T, strict=True):
            optimise([fit], strength, ROUGHLY)
            weight, bias = fit.solution()
            total += problems.loss(problem, examples @ weight.T + bias, goal, weights[rows])
        return total

    with pool_of(CHOICE_FOLDS) as pool:
        fits = list(pool.map(fits_without, held))
        examples = [inputs[rows] for rows in held]

        def loss(number: int) -> float:
            strengths = itertools.repeat(among[number])
            return sum(pool.map(loss_on_held, fits, examples, held, strengths))

        return among[_lowest(loss, 0, len(among))]


def cross_fit(
    inputs: Any, problems: Problems, among: Sequence[float], scales: Scales | None = None
) -> CrossFit:
    """Fit all problems as `fit` does, with the C that has the lowest cross-entropy in
    cross-validation, and keep the logits of held-out examples.

    The search for C begins in the middle of `among` and continues, first to larger values and then
    to smaller ones, for as long as it helps. Sparse features may have `scales`, computed from the
    examples that are fitted: the penalty is |W / scales|^2 / (2 C).
    """
    features, middle, among = problems.features(inputs), len(among) // 2, problems.among(among)
    targets, weights = problems.targets, problems.sample
    whole = problems.fits(features, targets, weights, scales)
    if len(targets) < 2 * FOLDS:  # too few to hold any out
        optimise(whole, among[middle], CLOSELY)
        weight, bias = problems.joined(whole)
        return CrossFit(weight, bias, among[middle], features.times(weight.T) + bias)
    # The only example of a label is never left out: a fit without it would learn that its label
    # does not occur, and what is stacked on that, to trust the opposite.
    fold, only = folds(targets, FOLDS), problems.only
    parts = [
        problems.fits(features, targets, weights * (only | (fold != number)), scales)
        for number in range(FOLDS)
    ]

    @functools.cache
    def attempt(number: int) -> tuple[float, Array]:
        """The loss with a C, and the logits of held-out examples."""
        optimise([problem for part in parts for problem in part], among[number], ROUGHLY)
        of_folds = [problems.joined(part) for part in parts]
        side_by_side = np.concatenate([weight.T for weight, _ in of_folds], axis=1)
        logits = features.times(side_by_side).reshape(len(targets), FOLDS, problems.classes)
        logits = logits + np.array([bias for _, bias in of_folds])
        held = logits[np.arange(len(targets)), fold]
        losses = (
            problems.loss(problem, held[:, problem.columns], problem.targets, weights)
            for problem in problems.each
        )
        return sum(losses), held

    best = _lowest(lambda number: attempt(number)[0], middle, len(among))
    for problem, without_first_fold in zip(whole, parts[0], strict=True):
        problem.at = without_first_fold.at
    optimise(whole, among[best], CLOSELY)
    return CrossFit(*problems.joined(whole), among[best], attempt(best)[1])


def _lowest(loss: Callable[[int], float], start: int, count: int) -> int:
    """The number below `count` with the lowest loss, from `start` on first upwards and then, if
    that does not help, downwards, for as long as the loss falls."""
    best, least = start, loss(start)
    for way in (1, -1):
        while 0 <= best + way < count and (value := loss(best + way)) < least:
            best, least = best + way, value
        if best != start:
            break
    return best


def folds(targets: Array, count: int = CHOICE_FOLDS) -> Array:
    """The fold of each example, (N,), of `count`, seeded: each combination of `targets` (N, P) is
    spread evenly over all folds."""
    _, kinds = np.unique(targets, axis=0, return_inverse=True)
    order = np.random.default_rng(SEED).permutation(len(targets))
    order = order[np.argsort(kinds.reshape(-1)[order], kind="stable")]
    fold = np.empty(len(targets), np.int64)
    fold[order] = np.arange(len(targets)) % count
    return fold


def cross_entropy(logits: Array, labels: Array, weights: Array) -> float:
    """The sum of the examples' cross-entropies, each times its weight."""
    if logits.shape[1] == 1:
        return float((np.logaddexp(0, logits[:, 0]) - labels * logits[:, 0]) @ weights)
    logits = logits - logits.max(axis=1, keepdims=True)
    sums = np.log(np.exp(logits).sum(axis=1))
    return float((sums - logits[np.arange(len(labels)), labels]) @ weights)


# One problem.


class Features:
    """The features of the examples of several problems, with what these share."""

    def __init__(self, inputs: Any, curvature: float = CURVATURE) -> None:
        self.inputs, self.curvature = inputs, curvature  # of the loss in a logit
        self.examples, self.width = inputs.shape
        self._sparse = not isinstance(inputs, np.ndarray)
        self.transposed = inputs.T.tocsr() if self._sparse else inputs.T
        # Of the Hessian up to the curvature: its diagonal, or its largest eigenvalues (r,), their
        # eigenvectors (p, r), and the mean of the other eigenvalues.
        self._values: Array
        if self._sparse:
            self._values = np.asarray(inputs.multiply(inputs).sum(axis=0)).reshape(-1)
        else:
            self._values, self._vectors, self._other = principal(inputs)

    def times(self, factor: Array, *, transposed: bool = False) -> Array:
        """The features times weights (p, K), float64: (N, K); `transposed`, times residuals (N, K):
        (p, K)."""
        matrix = self.transposed if transposed else self.inputs
        # The matrix is not converted to float64: that takes longer than the product.
        return np.asarray(matrix @ factor.astype(matrix.dtype, copy=False), np.float64)

    def rough_inverse(self, penalty: float, scale: Array | float, gradient: Array) -> Array:
        """A rough inverse of the Hessian times a gradient (p + 1, K); `scale` as in `Fit`."""
        bias = gradient[-1:] / (self.curvature * self.examples)
        if self._sparse:
            squares = self._values[:, None] * np.square(scale)
            weights = gradient[:-1] / (self.curvature * squares + penalty)
        else:
            right = gradient[:-1].astype(self._vectors.dtype)
            other = 1 / (self.curvature * self._other + penalty)
            beyond = 1 / (self.curvature * self._values + penalty) - other
            weights = other * right + self._vectors @ (beyond[:, None] * (self._vectors.T @ right))
        return np.concatenate([weights, bias])


def principal(inputs: Array) -> tuple[Array, Array, float]:
    """The largest RANK eigenvalues of the products of features (N, p) with each other, the
    eigenvectors (p, r), both nearly, and the mean of the other eigenvalues: by random projection
    (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.3)."""
    width, rank = inputs.shape[1], min(inputs.shape[1], RANK)
    sketch = np.random.default_rng(SEED).standard_normal((width, rank), np.float32)
    basis, _ = np.linalg.qr(inputs.T @ (inputs @ sketch.astype(inputs.dtype)))
    projected = inputs @ basis
    values, vectors = np.linalg.eigh(projected.T @ projected)
    others = float(np.einsum("ij,ij->", inputs, inputs, dtype=np.float64)) - float(values.sum())
    return values.clip(min=0), basis @ vectors, max(others, 0.0) / max(width - rank, 1)


class Fit:
    """One classification problem. `at` is the optimum for the last C that it was searched for,
    where the next search begins: weights and below them the biases, (p + 1, K).

    Its `targets` (N,) belong to examples with the weights `sample` (N,): 0 for one that is not
    fitted; the penalty is |W / scales|^2 / (2 C), with scales only for sparse features.
    """

    def __init__(
        self,
        features: Features,
        targets: Array,
        columns: int,
        class_weights: str,
        sample: Array,
        scales: Scales | None = None,
    ) -> None:
        self.features, self._columns = features, columns
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
        # There is nothing to search for where all examples have the same class.
        self.settled = present < 2
        self.at = np.zeros((features.width + 1, 1 if self.settled else 0))

    def search(self, penalty: float, tolerance: float) -> Search:
        """The search for the optimum, from that of the last search on."""
        rough = partial(self.features.rough_inverse, penalty, self._scale)
        start = self.at
        if start.shape[1] != self._goal.shape[1]:
            # Weights of 0, and the biases that fit best with them.
            share = (self._weights * self._goal).sum(axis=0) / self._weights.sum()
            start = np.zeros((self.features.width + 1, len(share)))
            start[-1] = self._biases(share)
        # Of the loss per example of average weight.
        least = tolerance * self._of_loss * self.features.examples * float(self._sample.mean())
        return lbfgs(rough, start, least)

    _of_loss = 1.0  # what a step's decrease of the loss is a share of

    def _biases(self, share: Array) -> Array:
        """The best biases where all weights are 0, from the weighted mean of the targets."""
        return np.asarray(np.log(share) - (np.log1p(-share) if len(share) == 1 else 0))

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

    def gradient(self, at: Array, residuals: Array, products: Array, penalty: float) -> Array:
        """The gradient at a point, (p + 1, K), from that in the logits; `products` are those of the
        transposed features and that gradient, (p, K)."""
        weights = products * self._scale + penalty * at[:-1]
        return np.concatenate([weights, residuals.sum(axis=0)[None]])

    def solution(self) -> tuple[Array, Array]:
        """The optimum as weights (columns, p) and biases (columns,)."""
        weights, biases = self.scaled(self.at).T, self.at[-1]
        if self._columns == 1 and self.settled:
            return weights, log_odds(self._targets, self._sample)
        return to_columns(weights, biases, self._classes, self._columns)


class RidgeFit(Fit):
    """One problem of ridge regression, with half of the squared error as loss."""

    def __init__(self, features: Features, targets: Array, sample: Array) -> None:
        self.features, self.settled, self._scale = features, False, 1.0
        fitted = sample > 0
        self._sample = sample[fitted]
        self._weights, self._goal = sample[:, None].astype(float), targets[:, None]
        # Targets have a unit, so the decrease of their squared error is one of its share.
        self._of_loss = float(targets[fitted].var()) or 1.0
        self.at = np.zeros((features.width + 1, 0))

    @override
    def _biases(self, share: Array) -> Array:
        return share

    @override
    def value(self, at: Array, products: Array, penalty: float) -> tuple[float, Array]:
        residuals = products + at[-1] - self._goal
        value = (residuals**2 * self._weights).sum() / 2 + penalty / 2 * (at[:-1] ** 2).sum()
        return float(value), residuals * self._weights

    @override
    def solution(self) -> tuple[Array, Array]:
        return self.scaled(self.at).T, self.at[-1]


def log_odds(targets: Array, weights: Array) -> Array:
    """The bias (1,) of a binary problem in which there is nothing to separate, smoothed."""
    positive, count = float(weights @ targets), float(weights.sum())
    return np.array([math.log((positive + 0.5) / (count - positive + 0.5))])


def to_columns(weights: Array, biases: Array, present: Array, columns: int) -> tuple[Array, Array]:
    """Weights (columns, p) and biases (columns,), from those of the classes that are `present`, of
    which two have one logit."""
    if columns == 1:
        return weights, biases
    if len(present) == 2:
        weights = np.concatenate([-weights, weights]) / 2
        biases = np.concatenate([-biases, biases]) / 2
    weight = np.zeros((columns, weights.shape[1]))
    # A class missing from train is practically never predicted, but its cross-entropy is finite.
    bias = np.full(columns, biases.min() - 20)
    weight[present], bias[present] = weights, biases
    return weight, bias


def optimise(fits: Sequence[Fit], strength: float, tolerance: float) -> None:
    """Search for the optima of several fits to the same features, together: the features are read
    once for all of them, which takes longer than to calculate. Each search ends with a step that
    decreases the loss per example by less than `tolerance`."""
    penalty = 1 / strength
    unsettled = [fit for fit in fits if not fit.settled]

    def losses(numbers: Sequence[int], points: Sequence[Array]) -> list[tuple[float, Array]]:
        active = [unsettled[number] for number in numbers]
        features = active[0].features
        cuts = np.cumsum([point.shape[1] for point in points])[:-1]
        weights = [fit.scaled(point) for fit, point in zip(active, points, strict=True)]
        products = np.split(features.times(np.concatenate(weights, axis=1)), cuts, axis=1)
        values = [
            fit.value(point, product, penalty)
            for fit, point, product in zip(active, points, products, strict=True)
        ]
        residuals = [residual for _, residual in values]
        by_feature = features.times(np.concatenate(residuals, axis=1), transposed=True)
        return [
            (value, fit.gradient(point, residual, product, penalty))
            for fit, point, (value, residual), product in zip(
                active, points, values, np.split(by_feature, cuts, axis=1), strict=True
            )
        ]

    searches = [fit.search(penalty, tolerance) for fit in unsettled]
    for fit, at in zip(unsettled, minima(losses, searches), strict=True):
        fit.at = at


# The minimum of a smooth function.


def minima(
    losses: Callable[[Sequence[int], Sequence[Array]], Sequence[tuple[float, Array]]],
    searches: Sequence[Search],
) -> list[Array]:
    """The minima of several functions, whose values are computed together: `losses` is given the
    numbers of functions and a point of each, and returns values and gradients."""
    minimum: dict[int, Array] = {}
    points = {number: next(search) for number, search in enumerate(searches)}
    while points:
        answers = losses(list(points), list(points.values()))
        for number, answer in zip(list(points), answers, strict=True):
            try:
                points[number] = searches[number].send(answer)
            except StopIteration as end:
                minimum[number] = end.value
                del points[number]
    return [minimum[number] for number in range(len(searches))]


def lbfgs(rough: Callable[[Array], Array], start: Array, least: float) -> Search:
    """A search for a minimum from `start` on, by L-BFGS with a rough inverse of the Hessian
    (Nocedal & Wright, Numerical Optimization, algorithm 7.4), until a step decreases the function
    by less than `least`."""
    at = start
    value, gradient = yield at
    pairs = _Pairs(rough, start.size)
    for _ in range(MOST_STEPS):
        step = pairs.direction(gradient)
        slope, length = float(np.vdot(step, gradient)), 1.0
        new = at - step
        new_value, new_gradient = yield new
        while new_value > value - 1e-4 * length * slope and length > SHORTEST:
            length /= 2
            new = at - length * step
            new_value, new_gradient = yield new
        if new_value >= value:  # rounding hides any further decrease
            break
        pairs.add(new - at, new_gradient - gradient)
        decrease = value - new_value
        at, value, gradient = new, new_value, new_gradient
        if decrease < least:
            break
    return at


class _Pairs:
    """The last steps s of a search and the changes y of the gradient, of which L-BFGS's inverse of
    the Hessian is made, in the compact form of Byrd, Nocedal & Schnabel (1994), theorem 2.2: it
    reads each vector twice. In single precision: a step need not be exact, the losses are.
    `rough` is a symmetric rough inverse of the Hessian; a point has `size` numbers.
    """

    def __init__(self, rough: Callable[[Array], Array], size: int) -> None:
        self._rough = rough
        # Rows are overwritten in turn; `_order` has those in use, the oldest first.
        self._steps, self._changes, self._roughs = np.zeros((3, MEMORY, size), np.float32)
        self._order: list[int] = []
        self._products = np.zeros((MEMORY, MEMORY))  # s_i . y_j
        self._metric = np.zeros((MEMORY, MEMORY))  # y_i . rough(y_j)

    def add(self, step: Array, change: Array) -> None:
        """Add a pair, unless the function curves downwards along the step."""
        product = float(np.vdot(step, change))
        if product <= 0:
            return
        row = len(self._order) if len(self._order) < MEMORY else self._order.pop(0)
        self._order.append(row)
        rough = self._rough(change)
        self._steps[row], self._changes[row] = step.ravel(), change.ravel()
        self._roughs[row] = rough.ravel()
        used = self._order
        self._products[used, row] = (self._steps @ self._changes[row])[used]
        self._products[row, row] = product
        inner = (self._roughs @ self._changes[row])[used]
        self._metric[used, row] = self._metric[row, used] = inner
        self._metric[row, row] = float(np.vdot(change, rough))

    def direction(self, gradient: Array) -> Array:
        """The gradient times the inverse of the Hessian."""
        step = self._rough(gradient)
        if not self._order:
            return step
        used = np.ix_(self._order, self._order)
        products, metric = np.triu(self._products[used]), self._metric[used]
        scale = products[-1, -1] / metric[-1, -1]  # of the rough inverse
        flat = gradient.ravel().astype(np.float32)
        along = (self._steps @ flat)[self._order].astype(np.float64)
        across = scale * (self._roughs @ flat)[self._order]
        first = np.linalg.solve(products, along)
        inner = np.diag(products) * first + scale * (metric @ first) - across
        of_steps, of_roughs = np.zeros((2, MEMORY), np.float32)
        of_steps[self._order] = np.linalg.solve(products.T, inner)
        of_roughs[self._order] = scale * first
        step *= scale
        step += (of_steps @ self._steps - of_roughs @ self._roughs).reshape(step.shape)
        return step
