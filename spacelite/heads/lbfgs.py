"""The minimum of a smooth function by L-BFGS, with a rough inverse of the Hessian that the caller
knows."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

MEMORY = 10  # pairs of steps and gradients that L-BFGS keeps
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
    pairs: list[tuple[Array, Array, float]] = []
    for _ in range(MOST_STEPS):
        step = _direction(gradient, pairs, rough)
        slope, length = float(np.vdot(step, gradient)), 1.0
        new = at - step
        new_value, new_gradient = yield new
        while new_value > value - 1e-4 * length * slope and length > SHORTEST:
            length /= 2
            new = at - length * step
            new_value, new_gradient = yield new
        if new_value >= value:  # rounding hides any further decrease
            break
        change, turn = new - at, new_gradient - gradient
        product = float(np.vdot(change, turn))
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
    part = np.empty_like(step)  # fresh memory for each product takes longer than the product
    for change, turn, product in reversed(pairs):
        factors.append(float(np.vdot(change, step)) / product)
        step -= np.multiply(factors[-1], turn, out=part)
    step = rough(step)
    if pairs:
        _, turn, product = pairs[-1]
        step *= product / float(np.vdot(turn, rough(turn)))
    for (change, turn, product), factor in zip(pairs, reversed(factors), strict=True):
        step += np.multiply(factor - float(np.vdot(turn, step)) / product, change, out=part)
    return step
