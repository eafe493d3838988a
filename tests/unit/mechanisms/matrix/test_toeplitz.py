"""The square-root Toeplitz strategy: its factor, its exact sensitivity, its known errors."""

import math

import numpy as np
import pytest

from dpdau.domain import Metric
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.matrix.classes import ToggleClass
from dpdau.mechanisms.matrix.toeplitz import alternating_bound, sqrt_toeplitz

MU = 0.6477
"""GDP μ of (3, 1e-6)."""


@pytest.mark.parametrize(
    ("horizon", "toggles", "error"),
    [
        (31, 1, 3.09), (31, 2, 3.76), (31, 3, 4.36), (31, 4, 4.74),
        (90, 1, 3.61), (90, 2, 4.49), (90, 3, 5.26), (90, 4, 5.79),
        (365, 1, 4.29), (365, 2, 5.46), (365, 3, 6.45),
    ],
)  # fmt: skip
def test_errors_are_the_published_ones(horizon: int, toggles: int, error: float) -> None:
    """The root of the mean variance, in users at (3, 1e-6), agrees with the reference table."""
    stddev = sqrt_toeplitz(horizon, Metric.MAU, toggles).normalized_stddev()
    assert math.sqrt(float(np.square(stddev).mean())) / MU == pytest.approx(error, abs=0.0051)


@pytest.mark.parametrize(("toggles", "norm"), [(2, 1.786), (3, 2.070), (4, 2.250)])
def test_sensitivities_of_a_month(toggles: int, norm: float) -> None:
    """Alternating signs make the exact maximum smaller than √w times a column."""
    strategy = sqrt_toeplitz(31, Metric.MAU, toggles)
    found = math.sqrt(strategy.sensitivity_squared) / 2**20
    assert found == pytest.approx(norm, abs=5e-4)
    one = math.sqrt(sqrt_toeplitz(31, Metric.MAU, 1).sensitivity_squared) / 2**20
    assert found < math.sqrt(toggles) * one


@pytest.mark.parametrize(("horizon", "toggles"), [(1, 1), (7, 4), (14, 3)])
def test_sensitivity_is_the_maximum_over_the_class(horizon: int, toggles: int) -> None:
    """Δ² is the largest |Āv|² over the listed class."""
    strategy = sqrt_toeplitz(horizon, Metric.DAU, toggles)
    series = ToggleClass(horizon, toggles).series().astype(np.int64)
    assert strategy.sensitivity_squared == int(np.square(series @ strategy.matrix.T).sum(1).max())


@pytest.mark.parametrize("toggles", [5, 7, 12])
def test_sensitivity_of_many_toggles_is_a_bound(toggles: int) -> None:
    """Beyond what is searched, Δ² is no less than the maximum, and at most three times it."""
    strategy = sqrt_toeplitz(12, Metric.DAU, toggles)
    series = ToggleClass(12, toggles).series().astype(np.int64)
    worst = int(np.square(series @ strategy.matrix.T).sum(axis=1).max())
    assert worst <= strategy.sensitivity_squared <= 3 * worst


def test_counts_are_the_factor_twice_applied() -> None:
    """Noise on C·d, and C times it: Ā⁻¹ = C but for rounding, as C·C sums prefixes."""
    strategy = sqrt_toeplitz(9, Metric.DAU, 2)
    sums = strategy.matrix[:, ::-1].cumsum(axis=1)[:, ::-1] / 2.0**20
    assert np.allclose(sums @ sums, np.tri(9), atol=1e-5)
    assert np.allclose(np.linalg.inv(strategy.matrix / 2.0**20), sums, atol=1e-5)


def test_a_factor_with_negative_entries_has_no_such_bound() -> None:
    """The bound is refused where its argument does not hold."""
    for factor in ([[1, 0], [-1, 1]], [[2, 0, 0], [1, 2, 0], [9, 1, 2]]):
        with pytest.raises(AssertionError):
            alternating_bound(np.array(factor), 2)


@pytest.mark.parametrize(("horizon", "toggles"), [(0, 1), (5, 0), (5, 6)])
def test_classes_out_of_range_are_refused(horizon: int, toggles: int) -> None:
    """The class says what it expects."""
    with pytest.raises(InvalidPlanError):
        sqrt_toeplitz(horizon, Metric.MAU, toggles)
