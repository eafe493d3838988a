"""Views made from published numbers: in order and near, or smooth, and never much worse."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from dpdau.domain import Metric
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.matrix.smoothing import consistent, smoothed
from dpdau.mechanisms.matrix.strategies import shipped

MONTH = shipped(31, 30).strategy
JOINT = MONTH.metrics
COVARIANCE = MONTH.covariance(Fraction(18507, 100_000))
ROOT = np.linalg.cholesky(COVARIANCE)
MONTHS = 12

tables = st.lists(
    st.tuples(*[st.floats(-1e6, 1e6)] * 3, *[st.floats(0.5, 20)] * 3), min_size=1, max_size=4
)


@given(rows=tables)
def test_consistent_numbers_are_in_order(rows: list[tuple[float, ...]]) -> None:
    """0 ≤ DAU ≤ WAU ≤ MAU on each day, and doing it again changes nothing but rounding."""
    table = np.array(rows)
    estimates, stddev = table[:, :3], table[:, 3:]
    found = consistent(estimates, stddev, JOINT)
    wau, mau, dau = found.T
    assert (dau >= 0).all()
    assert (dau <= wau + 1e-6).all() and (wau <= mau + 1e-6).all()
    assert np.allclose(consistent(found, stddev, JOINT), found, rtol=1e-9, atol=1e-6)


@given(rows=tables, truth=st.tuples(*[st.floats(0, 1e6)] * 3))
def test_consistent_numbers_are_no_farther_from_the_counts(
    rows: list[tuple[float, ...]], truth: tuple[float, ...]
) -> None:
    """In units of the standard deviations, every possible triple of counts comes nearer."""
    table = np.array(rows)
    estimates, stddev = table[:, :3], table[:, 3:]
    dau, wau, mau = sorted(truth)
    counts = np.array([wau, mau, dau])
    before = np.square((estimates - counts) / stddev).sum(axis=1)
    after = np.square((consistent(estimates, stddev, JOINT) - counts) / stddev).sum(axis=1)
    assert (after <= before * (1 + 1e-9) + 1e-9).all()


def test_consistent_numbers_are_the_nearest() -> None:
    """A numerical minimization under the same constraints finds the same numbers."""
    generator = np.random.default_rng(8)
    for _ in range(20):
        value, stddev = generator.normal(3, 6, (1, 3)), generator.uniform(1, 5, (1, 3))
        order = [
            {"type": "ineq", "fun": lambda x, a=a, b=b: x[b] - x[a]} for a, b in [(2, 0), (0, 1)]
        ]
        nearest = minimize(
            lambda x, y=value, s=stddev: float(np.square((x - y[0]) / s[0]).sum()),
            np.array([1.0, 2.0, 0.5]), constraints=order, bounds=[(0, None)] * 3,
            method="SLSQP", options={"ftol": 1e-12},
        )  # fmt: skip
        assert np.allclose(nearest.x, consistent(value, stddev, JOINT)[0], atol=1e-4)


def test_numbers_in_order_stay_as_they_are() -> None:
    """What is consistent already is returned bit by bit, for any of the metrics."""
    estimates = np.array([[20.0, 30.25, 3.0], [7.0, 7.0, 0.0]])
    assert np.array_equal(estimates, consistent(estimates, np.ones((2, 3)), JOINT))
    pair, names = estimates[:, [1, 2]], (Metric.MAU, Metric.DAU)
    assert np.array_equal(pair, consistent(pair, np.ones((2, 2)), names))
    assert [[0.0]] == consistent(np.array([[-2.0]]), np.ones((1, 1)), (Metric.DAU,)).tolist()


def _ratios(month: Callable[[np.random.Generator], np.ndarray], days: int = 31) -> np.ndarray:
    """(metrics,) error of the smoothed series over that of the published one, root mean square."""
    generator = np.random.default_rng(12)
    raw, better = np.zeros(3), np.zeros(3)
    for _ in range(MONTHS):
        truth = month(generator)[:days]
        published = truth + (ROOT @ generator.normal(size=93)).reshape(31, 3)[:days]
        raw += np.square(published - truth).mean(axis=0)
        better += np.square(smoothed(published, COVARIANCE, JOINT).values - truth).mean(axis=0)
    return np.asarray(np.sqrt(better / raw))


def _steady(generator: np.random.Generator) -> np.ndarray:
    """Steady growth, with a weekend in DAU."""
    day = np.arange(31)
    level = 5_000 + 20 * day
    weekend = np.isin((day + generator.integers(7)) % 7, (5, 6))
    return np.stack([1.6 * level, 2.5 * level, level * (1 + 0.15 * weekend)], axis=1)


def _walk(step: float) -> Callable[[np.random.Generator], np.ndarray]:
    return lambda generator: 10_000 + generator.normal(0, step, (31, 3)).cumsum(axis=0)


def test_a_steady_month_becomes_much_more_exact() -> None:
    """WAU and MAU lose a quarter of their error or more; DAU gains besides its week."""
    wau, mau, dau = _ratios(_steady)
    assert wau < 0.75 and mau < 0.8 and dau < 0.97


def test_a_slow_month_becomes_more_exact() -> None:
    """With steps of a few users a day every metric gains."""
    assert (_ratios(_walk(3)) < 0.95).all()


@pytest.mark.parametrize("step", [30, 300, 30_000])
def test_a_rough_month_stays_what_it_was(step: float) -> None:
    """With steps far above the noise the error is at most 1.05 times that of the raw series."""
    assert (_ratios(_walk(step)) <= 1.05).all()


def test_a_single_jump_does_little_harm() -> None:
    """A steady month with one jump of a thousand users is no worse than the raw series."""
    jump = np.where(np.arange(31) > 14, 1_000.0, 0.0)[:, None]
    assert (_ratios(lambda generator: _steady(generator) + jump) <= 1.05).all()


@pytest.mark.parametrize("days", [1, 2, 3, 5, 9])
def test_the_first_days_of_a_month_are_enough(days: int) -> None:
    """It is the published series for two days, and no worse than it from then on."""
    published = np.arange(days * 3).reshape(days, 3) * 11.0 + 500
    found = smoothed(published, COVARIANCE, JOINT)
    assert (days, 3) == found.values.shape == found.stddev.shape
    raw = np.sqrt(np.diag(COVARIANCE)).reshape(31, 3)[:days]
    assert (found.stddev <= raw * (1 + 1e-6)).all()
    if days <= 2:
        assert np.allclose(published, found.values)
        assert np.allclose(raw, found.stddev)
    assert (_ratios(_walk(20), days) <= 1.05).all()


def test_the_stated_deviation_is_about_that_of_the_error() -> None:
    """Over months that move as the model says, squared errors are 0.7 to 1.6 times the stated."""
    generator = np.random.default_rng(13)
    shares = []
    for _ in range(MONTHS):
        truth = _walk(8)(generator)
        published = truth + (ROOT @ generator.normal(size=93)).reshape(31, 3)
        found = smoothed(published, COVARIANCE, JOINT)
        shares.append(np.square((found.values - truth) / found.stddev).mean())
    assert 0.7 < np.mean(shares) < 1.6


def test_smoothing_is_a_function_of_published_numbers() -> None:
    """The same numbers give the same series; a shift of all of them shifts it."""
    published = _walk(15)(np.random.default_rng(2))
    one, two = (smoothed(published, COVARIANCE, JOINT) for _ in range(2))
    assert np.array_equal(one.values, two.values)
    moved = smoothed(published + 1_000, COVARIANCE, JOINT)
    assert np.allclose(one.values + 1_000, moved.values, atol=1e-4)


def test_tables_that_do_not_fit_are_refused() -> None:
    """Shapes, repeated metrics, deviations of 0 and too small covariances are refused."""
    good, ones = np.full((4, 3), 9.0), np.ones((4, 3))
    for estimates, stddev, metrics in [
        (good, ones[:3], JOINT),
        (good, 0 * ones, JOINT),
        (good[:, :2], ones[:, :2], JOINT),
        (good[:0], ones[:0], JOINT),
        (good[0], ones[0], JOINT),
        (good, ones, (Metric.DAU, Metric.DAU, Metric.WAU)),
        (good[:, :0], ones[:, :0], ()),
    ]:
        with pytest.raises(InvalidPlanError):
            consistent(estimates, stddev, metrics)
    for covariance in (COVARIANCE[:11, :11], COVARIANCE[:50, :]):
        with pytest.raises(InvalidPlanError, match="covariance"):
            smoothed(good, covariance, JOINT)
