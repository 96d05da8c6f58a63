"""The minimum of a smooth function by L-BFGS, with a rough inverse of the Hessian that the caller
knows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

MEMORY = 6  # pairs of steps and gradients that L-BFGS keeps
MOST_STEPS, SHORTEST = 500, 1e-10

Array = npt.NDArray[Any]


# Yields points, is sent the value and the gradient at each, and returns the minimum.
Search = Generator[Array, tuple[float, Array], Array]


def minimum(
    loss: Callable[[Array], tuple[float, Array]],
    rough: Callable[[Array], Array],
    start: Array,
    least: float,
) -> Array:
    """The minimum of `loss`, as in `search`."""
    (found,) = minima(lambda _, points: [loss(points[0])], [search(rough, start, least)])
    return found


def minima(
    losses: Callable[[Sequence[int], Sequence[Array]], Sequence[tuple[float, Array]]],
    searches: Sequence[Search],
) -> list[Array]:
    """The minima of several functions, whose values are computed together.

    Args:
        losses: Numbers of functions, and a point of each -> values and gradients.
        searches: The searches for the minimum of each function.
    """
    found: dict[int, Array] = {}
    points = {number: next(own) for number, own in enumerate(searches)}
    while points:
        answers = losses(list(points), list(points.values()))
        for number, answer in zip(list(points), answers, strict=True):
            try:
                points[number] = searches[number].send(answer)
            except StopIteration as end:
                found[number] = end.value
                del points[number]
    return [found[number] for number in range(len(searches))]


def search(rough: Callable[[Array], Array], start: Array, least: float) -> Search:
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

    Args:
        rough: A rough inverse of the Hessian, symmetric.
        size: How many numbers a point has.
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
        own = np.ix_(self._order, self._order)
        products, metric = np.triu(self._products[own]), self._metric[own]
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
