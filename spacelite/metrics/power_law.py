"""The power law of learning curves: error(n) = a + b n^-c, fitted and extrapolated.

Errors of classifiers fall with the number n of training examples as a power of n, down to a floor
that more labels do not lower (Cortes et al., "Learning curves", NeurIPS 1993; Hestness et al.,
arXiv:1712.00409).

Shapes: M sizes, R resamples.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spacelite.metrics.significance import LEVEL, Difference
from spacelite.types import Array

LEAST_EXPONENT, MOST_EXPONENT = 0.01, 2.0
FEWEST_SIZES = 4  # three parameters, and something to check them by
RESAMPLES = 2000
GRID = 64  # exponents that are tried, and then finer ones around the best, several times
FINER, TIMES = 9, 8
STEEPEST = 2.0  # by which power of n variances may fall
SMALLEST = 1e-6  # standard error: what never varied does not count infinitely much


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = floor + scale n^-exponent: a, b and c, at least 0, and c at most 2."""

    floor: float
    scale: float
    exponent: float

    def error(self, sizes: Array | float) -> Array:
        """The error at these sizes."""
        return self.floor + self.scale * np.asarray(sizes, float) ** -self.exponent


@dataclass(frozen=True)
class Extrapolation:
    """What a power law, fitted to sizes from `smallest` to `largest`, says of twice the largest."""

    law: PowerLaw
    smallest: int
    largest: int
    gain: Difference  # by how much the error falls up to `to`; interval NaN if not known
    p: float  # how probable so bad a fit is if errors do follow a power law; NaN if not known

    @property
    def to(self) -> int:
        """The size that was not measured."""
        return 2 * self.largest

    def as_json(self) -> dict[str, Any]:
        """The power law and what it says, as a JSON object."""
        return {
            **asdict(self.law),
            "smallest": self.smallest,
            "from": self.largest,
            "to": self.to,
            "gain": self.gain.value,
            "interval": list(self.gain.interval),
            "p": self.p,
        }


def extrapolate(
    sizes: Array,
    errors: Array,
    deviations: Array | None,
    *,
    shared: Array | None = None,
    freedom: float = np.inf,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Extrapolation:
    """Fit a power law to the mean errors (M,) at FEWEST_SIZES or more sizes, in ascending order,
    and say by how much the error falls from the largest size to twice that. The law has the least
    weighted sum of squares: over a grid of exponents, then finer ones; for each, floor and scale in
    closed form, neither below 0.

    The interval is that of a parametric bootstrap: errors are drawn around the fitted ones, with
    the standard errors and the covariance of the measured ones, and fitted again.

    Standard errors `deviations` (M,) weigh the errors in the fit; if they are not known, there is
    no interval. With finite degrees of `freedom`, draws are Student's t, since variances that were
    estimated from few values may be too small. `shared` is the covariance (M, M) of what else the
    errors at all sizes vary by.
    """
    weights, errors = _weights(sizes, deviations), np.asarray(errors, float)
    (floor,), (scale,), (exponent,), (squares,) = _fits(sizes, errors[None], weights)
    law = PowerLaw(float(floor), float(scale), float(exponent))
    smallest, at = int(sizes[0]), int(sizes[-1])
    gain = float(law.error(at) - law.error(2 * at))
    if deviations is None:
        return Extrapolation(law, smallest, at, Difference(gain, (np.nan, np.nan)), np.nan)
    random = np.random.default_rng(seed)
    noise = random.normal(size=(resamples, len(sizes))) * deviations
    if np.isfinite(freedom):
        noise /= np.sqrt(random.chisquare(freedom, resamples) / freedom)[:, None]
    drawn = law.error(sizes) + noise
    if shared is not None:
        zero = np.zeros(len(sizes))
        drawn += random.multivariate_normal(zero, shared, resamples, method="eigh")
    _, scales, exponents, of_drawn = _fits(sizes, drawn, weights)
    gains = scales * (float(at) ** -exponents - float(2 * at) ** -exponents)
    low, high = np.quantile(gains, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    p = float((1 + (of_drawn >= squares).sum()) / (1 + resamples))
    return Extrapolation(law, smallest, at, Difference(gain, (low, high)), p)


def smoothed(sizes: Array, variances: Array, among: Array) -> Array:
    """Variances at all sizes (M,), from `variances` (m,) that were measured `among` some of them
    (m,): a power of the size that falls or stays, by maximum likelihood. A measured variance of few
    values is a poor one: one that is 0 by luck would count for all others.

    For variances s^2 of as many values each, proportional to chi-squared variables around
    v n^-g, log v is, given g, the logarithm of the mean of s^2 n^g.
    """
    powers = np.linspace(0, STEEPEST, 201)
    logs = np.log(np.asarray(among, float))
    centre = logs.mean()
    levels = (variances * np.exp(powers[:, None] * (logs - centre))).mean(axis=1)
    if not levels.max() > 0:
        return np.full(len(sizes), SMALLEST**2)
    # Minus the log-likelihood per size, but for a constant; the logarithms are centred.
    best = int(np.log(levels).argmin())
    smooth: Array = levels[best] * np.exp(
        -powers[best] * (np.log(np.asarray(sizes, float)) - centre)
    )
    return np.maximum(smooth, SMALLEST**2)


def _weights(sizes: Array, deviations: Array | None) -> Array:
    """The weights of the squares, (M,)."""
    errors = np.ones(len(sizes)) if deviations is None else np.asarray(deviations, float)
    weights = 1 / np.maximum(errors, SMALLEST) ** 2
    normed: Array = weights / weights.sum()
    return normed


def _fits(sizes: Array, errors: Array, weights: Array) -> tuple[Array, Array, Array, Array]:
    """Power laws fitted to many curves, from errors (R, M) and weights of the squares (M,): floors,
    scales, exponents and weighted sums of squares, (R,) each."""
    logs = np.log(np.asarray(sizes, float))
    centre = logs.mean()  # sizes in units of their geometric mean
    trials = np.linspace(np.log(LEAST_EXPONENT), np.log(MOST_EXPONENT), GRID)
    tried = np.broadcast_to(trials, (len(errors), GRID))
    rows = np.arange(len(errors))
    width = trials[1] - trials[0]
    for number in range(TIMES + 1):
        exponents = np.exp(tried)
        floors, scales, squares = _linear(
            np.exp(-exponents[:, :, None] * (logs - centre)), errors, weights
        )
        best = squares.argmin(axis=1)
        if number < TIMES:
            middle = tried[rows, best][:, None]
            tried = np.clip(middle + np.linspace(-width, width, FINER), trials[0], trials[-1])
            width *= 2 / (FINER - 1)
    exponents = exponents[rows, best]
    return (
        floors[rows, best],
        scales[rows, best] * np.exp(exponents * centre),
        exponents,
        squares[rows, best],
    )


def _linear(powers: Array, errors: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Least squares of errors (R, M) = floor + scale powers (R, T, M), neither below 0: floors,
    scales and weighted sums of squares, (R, T) each. Weights sum up to 1."""
    errors = errors[:, None]
    mean, height = powers @ weights, errors @ weights
    apart = powers - mean[:, :, None]
    scale = (apart * errors) @ weights / np.maximum(apart**2 @ weights, 1e-300)
    floor = height - scale * mean
    inside = (floor >= 0) & (scale >= 0)
    through_origin = np.maximum((powers * errors) @ weights / (powers**2 @ weights), 0)
    flat = np.broadcast_to(np.maximum(height, 0), mean.shape)
    zero = np.zeros_like(mean)
    lines = [(floor, scale), (zero, through_origin), (flat, zero)]
    squares = [
        (errors - low[:, :, None] - high[:, :, None] * powers) ** 2 @ weights for low, high in lines
    ]
    squares[0] = np.where(inside, squares[0], np.inf)
    best = np.argmin(squares, axis=0)
    floors = np.choose(best, [low for low, _ in lines])
    scales = np.choose(best, [high for _, high in lines])
    return floors, scales, np.choose(best, squares)
