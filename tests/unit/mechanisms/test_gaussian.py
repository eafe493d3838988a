"""Discrete Gaussian: its cost, spread and quantiles."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import noise_laws as laws
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.gaussian import DiscreteGaussian, sum_half_width

DELTA = Fraction(1, 10**6)


def _gaussian(sigma: float, sensitivity: int = 1) -> DiscreteGaussian:
    return DiscreteGaussian(sigma=sigma, epsilon=Fraction(1), delta=DELTA, sensitivity=sensitivity)


@given(sigma=st.floats(0.05, 1e9), sensitivity=st.integers(1, 1000))
def test_rho_is_exact(sigma: float, sensitivity: int) -> None:
    """ρ · 2σ² = Δ² between the rational values of the numbers."""
    mechanism = _gaussian(sigma, sensitivity)
    assert mechanism.rho * 2 * Fraction(sigma) ** 2 == sensitivity**2
    assert Fraction(sigma) == mechanism.sigma_exact


@given(sigma=st.floats(0.1, 60.0), coverage=st.floats(0.01, 0.9999))
def test_half_width_is_the_least_that_covers(sigma: float, coverage: float) -> None:
    """Against the summed law: h covers and h - 1 does not (up to the rounding of a double)."""
    h = _gaussian(sigma).half_width(coverage)
    covered = np.cumsum(laws.gaussian_law(sigma))
    assert covered[h] >= coverage - 1e-13
    assert h == 0 or covered[h - 1] <= coverage + 1e-13


@pytest.mark.parametrize("sigma", [999.5, 1000.5, 12_345.678, 1e5])
@pytest.mark.parametrize("coverage", [0.5, 0.95, 0.999])
def test_half_width_at_large_scales(sigma: float, coverage: float) -> None:
    """On both sides of the change from sum to integral, the same as the summed law."""
    covered = np.cumsum(laws.gaussian_law(sigma))
    assert int(np.argmax(covered >= coverage)) == _gaussian(sigma).half_width(coverage)


@pytest.mark.parametrize(("sigma", "expected"), [(1e6, 1_959_964), (2.0**40, 2_155_003_191_024)])
def test_half_width_at_enormous_scales(sigma: float, expected: int) -> None:
    """Scale a million and more: the normal quantile, to the last user."""
    assert expected == _gaussian(sigma).half_width()
    assert abs(expected - 1.959963984540054 * sigma) < 1.0


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.0, 3.3, 7.9, 8.1, 20.0])
@pytest.mark.parametrize("terms", [1, 2, 3, 4])
def test_the_half_width_of_a_sum_is_the_least_that_covers(sigma: float, terms: int) -> None:
    """Against the law of the sum, added up value by value, on both sides of the change."""
    integers, p = laws.signed(laws.gaussian_law(sigma))
    law = {0: 1.0}
    for _ in range(terms):
        some: dict[int, float] = {}
        for total, chance in law.items():
            for value, step in zip(integers.tolist(), p.tolist(), strict=True):
                if abs(value) <= 9 * sigma + 1:
                    some[total + value] = some.get(total + value, 0.0) + chance * step
        law = some

    def covered(h: int) -> float:
        return math.fsum(chance for value, chance in law.items() if abs(value) <= h)

    for coverage in (0.5, 0.95, 0.999):
        h = sum_half_width(sigma, terms, coverage)
        assert covered(h) >= coverage - 1e-12
        assert h == 0 or covered(h - 1) <= coverage + 1e-12


@given(sigma=st.floats(0.1, 60.0))
def test_a_sum_of_one_is_one(sigma: float) -> None:
    """One term has the half-width of the mechanism."""
    assert _gaussian(sigma).half_width() == sum_half_width(sigma, 1)


@given(sigma=st.floats(0.2, 30.0))
def test_stddev_is_that_of_the_law(sigma: float) -> None:
    """Against the summed law, also where the discrete law is narrower than σ."""
    expected = laws.stddev(laws.gaussian_law(sigma))
    assert expected == pytest.approx(_gaussian(sigma).noise_stddev, rel=1e-11)


def test_small_sigma_is_narrower_than_it_says() -> None:
    """σ is not the standard deviation: at 0.3 the law is almost always zero."""
    assert 0.0876 == pytest.approx(_gaussian(0.3).noise_stddev, abs=1e-4)
    assert 0 == _gaussian(0.3).half_width()
    assert 8.7 == _gaussian(8.7).noise_stddev


@pytest.mark.parametrize(
    "fields",
    [
        {"sigma": 0.0},
        {"sigma": -1.0},
        {"sigma": math.nan},
        {"sigma": math.inf},
        {"epsilon": Fraction(0)},
        {"delta": Fraction(0)},
        {"delta": Fraction(1)},
        {"delta": Fraction(-1, 10)},
    ],
)
def test_parameters_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    """σ finite and positive, ε > 0, 0 < δ < 1."""
    good: dict[str, Any] = {"sigma": 4.0, "epsilon": Fraction(1), "delta": DELTA}
    with pytest.raises(InvalidPlanError):
        DiscreteGaussian(**(good | fields))
