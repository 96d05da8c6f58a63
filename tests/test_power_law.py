"""The power law of learning curves against scipy's curve_fit, against brute force, and on simulated
curves whose true gain is known."""

import itertools

import numpy as np
import pytest
from scipy.optimize import curve_fit

from spacelite.metrics import power_law

SIZES = np.array([16, 64, 256, 1024, 4096, 15383])


def law(sizes, floor, scale, exponent):
    return floor + scale * sizes ** -float(exponent)


def fitted(errors, deviations=None):
    return power_law.extrapolate(SIZES, errors, deviations, resamples=2).law


@pytest.mark.parametrize(
    ("floor", "scale", "exponent"),
    [(0.2, 0.9, 0.3), (0.0, 0.6, 0.1), (0.1, 3.0, 0.7), (0.3, 0.5, 0.5), (0.25, 20.0, 1.5)],
)
def test_a_curve_without_noise_is_found_again(floor, scale, exponent):
    found = fitted(law(SIZES, floor, scale, exponent))
    assert found.floor == pytest.approx(floor, abs=1e-5)
    assert found.scale == pytest.approx(scale, rel=1e-4)
    assert found.exponent == pytest.approx(exponent, rel=1e-4)
    assert found.error(30766) == pytest.approx(law(30766, floor, scale, exponent), abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_noisy_curves_as_scipy_fits_them(seed):
    random = np.random.default_rng(seed)
    deviations = 0.03 * (SIZES / 16) ** -0.35
    errors = law(SIZES, 0.25, 0.7, 0.3) + random.normal(size=6) * deviations
    found = fitted(errors, deviations)
    expected, _ = curve_fit(
        law, SIZES.astype(float), errors, p0=(0.2, 0.5, 0.4), sigma=deviations, maxfev=20_000,
        bounds=([0, 0, power_law.LEAST_EXPONENT], [1, np.inf, power_law.MOST_EXPONENT]),
        xtol=1e-14, ftol=1e-14, gtol=1e-14,
    )  # fmt: skip

    def squares(values):
        return (((errors - values) / deviations) ** 2).sum()

    assert squares(found.error(SIZES)) <= squares(law(SIZES, *expected)) * (1 + 1e-6) + 1e-12
    assert found.error(SIZES) == pytest.approx(law(SIZES, *expected), abs=2e-5)


@pytest.mark.parametrize(
    "errors",
    [
        [0.3, 0.3, 0.3, 0.3, 0.3, 0.3],
        [0.2, 0.25, 0.3, 0.35, 0.4, 0.45],  # worse with more: flat is the best there is
        [0.9, 0.4, 0.15, 0.06, 0.02, 0.001],  # a floor below 0 is not one
        [0.5, 0.5, 0.5, 0.2, 0.2, 0.2],
    ],
)
def test_bounds_against_brute_force(errors):
    errors, weights = np.array(errors), np.full(6, 1 / 6)
    floors, scales = np.linspace(0, 0.6, 61), np.concatenate([[0], np.geomspace(1e-3, 100, 200)])
    exponents = np.geomspace(0.01, 2, 60)
    least = min(
        ((errors - law(SIZES, floor, scales[:, None], exponent)) ** 2 @ weights).min()
        for floor, exponent in itertools.product(floors, exponents)
    )
    found = fitted(errors)
    assert min(found.floor, found.scale) >= 0 and 0 < found.exponent <= 2
    assert ((errors - found.error(SIZES)) ** 2 @ weights).item() <= least + 1e-12


def test_many_curves_at_once_are_those_one_by_one():
    random = np.random.default_rng(0)
    errors = law(SIZES, 0.2, 0.8, 0.3) + random.normal(size=(20, 6)) * 0.02
    weights = power_law._weights(SIZES, np.full(6, 0.02))
    together = np.array(power_law._fits(SIZES, errors, weights)[:3]).T
    for own, row in zip(errors, together, strict=True):
        one = fitted(own, np.full(6, 0.02))
        assert (one.floor, one.scale, one.exponent) == pytest.approx(tuple(row))


@pytest.mark.slow
def test_intervals_hold_the_true_gain_about_as_often_as_they_say():
    """Standard errors are estimated from 5 curves, as in a learning curve."""
    true = {"floor": 0.2, "scale": 0.9, "exponent": 0.3}
    gain = law(15383, **true) - law(30766, **true)
    random, inside, bad, times = np.random.default_rng(1), 0, 0, 120
    spread = 0.06 * (SIZES / 16) ** -0.35
    for number in range(times):
        draws = law(SIZES, **true) + spread * random.normal(size=(5, 6))
        own = power_law.smoothed(SIZES, draws.var(axis=0, ddof=1), SIZES)
        found = power_law.extrapolate(
            SIZES, draws.mean(axis=0), np.sqrt(own / 5), freedom=22,
            resamples=1000, seed=number,
        )  # fmt: skip
        low, high = found.gain.interval
        assert low <= found.gain.value * (1 + 1e-9) and low <= high
        inside += low <= gain <= high
        bad += found.p < 0.05
    assert 0.87 <= inside / times <= 1
    assert bad / times < 0.15


def test_extrapolations_are_repeatable_and_say_when_they_know_nothing():
    errors = law(SIZES, 0.2, 0.9, 0.3)
    one, other = (power_law.extrapolate(SIZES, errors, np.full(6, 0.01)) for _ in range(2))
    assert one == other and one.smallest == 16
    assert one.gain.value == pytest.approx(errors[-1] - law(30766, 0.2, 0.9, 0.3), abs=1e-6)
    assert one.p > 0.9
    unknown = power_law.extrapolate(SIZES, errors, None)
    assert np.isnan(unknown.gain.interval).all() and np.isnan(unknown.p)


def test_what_all_sizes_share_does_not_matter_to_a_gain():
    """The choice of validation examples moves a whole curve up or down: its floor takes that up."""
    errors, deviations = law(SIZES, 0.25, 0.9, 0.3), np.full(6, 0.004)

    def width(shared):
        found = power_law.extrapolate(SIZES, errors, deviations, shared=shared)
        return float(np.diff(found.gain.interval)[0])

    alone = width(None)
    assert width(np.full((6, 6), 0.01**2)) == pytest.approx(alone, rel=0.15)
    assert width(np.eye(6) * 0.01**2) > 1.5 * alone


def test_a_bad_fit_is_improbable():
    errors = np.array([0.5, 0.5, 0.5, 0.5, 0.2, 0.5])
    found = power_law.extrapolate(SIZES, errors, np.full(6, 0.01))
    assert found.p < 0.001


def test_a_variance_of_0_by_luck_does_not_count_for_all():
    random = np.random.default_rng(3)
    true = 0.01 * SIZES**-0.8
    drawn = true * random.chisquare(4, (500, 6)) / 4
    drawn[:, 2] = 0
    logs = np.array([np.log(power_law.smoothed(SIZES, own, SIZES)) for own in drawn])
    assert np.isfinite(logs).all()
    assert (np.exp(logs.mean(axis=0)) / true < 1.3).all()
    assert (np.exp(logs.mean(axis=0)) / true > 0.4).all()
    flat = power_law.smoothed(SIZES, np.array([1e-4, 4e-4, 9e-4]), SIZES[:3])
    assert flat == pytest.approx(np.full(6, 14e-4 / 3)), "a variance that rises is taken to stay"
    assert (power_law.smoothed(SIZES, np.zeros(3), SIZES[:3]) > 0).all()
