"""Discrete Laplace: its scale, spread and quantiles."""

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.laplace import DiscreteLaplace

EPSILONS = st.fractions(min_value=Fraction(1, 10_000), max_value=10, max_denominator=10**12)


@given(epsilon=EPSILONS, sensitivity=st.integers(1, 1000))
def test_the_scale_is_the_least_float_that_keeps_epsilon(
    epsilon: Fraction, sensitivity: int
) -> None:
    """sensitivity / scale ≤ ε exactly, and the next float below would break it."""
    scale = DiscreteLaplace(epsilon=epsilon, sensitivity=sensitivity).scale
    assert sensitivity / Fraction(scale) <= epsilon
    assert sensitivity / Fraction(math.nextafter(scale, 0)) > epsilon


@given(
    epsilon=EPSILONS.filter(lambda e: e <= 5),
    coverage=st.floats(0.01, 0.9999),
)
def test_half_width_is_the_least_that_covers(epsilon: Fraction, coverage: float) -> None:
    """In 60-digit arithmetic, h covers and h - 1 does not (up to the rounding of a double)."""
    mechanism = DiscreteLaplace(epsilon=epsilon)
    h = mechanism.half_width(coverage)
    assert _covered(mechanism.scale, h) >= Decimal(coverage) - Decimal("1e-13")
    assert h == 0 or _covered(mechanism.scale, h - 1) <= Decimal(coverage) + Decimal("1e-13")


@pytest.mark.parametrize(("epsilon", "expected"), [("1e-6", 2995732), ("1e-4", 29957)])
def test_half_width_at_large_scales(epsilon: str, expected: int) -> None:
    """Scale a million: the quantile is scale · ln 20, to the last user."""
    mechanism = DiscreteLaplace(epsilon=Fraction(epsilon))
    assert expected == mechanism.half_width()
    assert _covered(mechanism.scale, expected) >= Decimal("0.95")
    assert _covered(mechanism.scale, expected - 1) < Decimal("0.95")


@pytest.mark.parametrize(
    ("epsilon", "stddev", "half_width"),
    [("0.3", 4.69641, 10), ("1", 1.35696, 3), ("3", 0.33209, 1), ("10", 0.00953, 0)],
)
def test_default_figures(epsilon: str, stddev: float, half_width: int) -> None:
    """Standard deviation and 95 % half width at familiar ε."""
    mechanism = DiscreteLaplace(epsilon=Fraction(epsilon))
    assert stddev == pytest.approx(mechanism.noise_stddev, abs=1e-5)
    assert half_width == mechanism.half_width()


def test_rho_is_half_epsilon_squared() -> None:
    """The pure guarantee converts to zCDP exactly."""
    assert Fraction(9, 200) == DiscreteLaplace(epsilon=Fraction(3, 10)).rho
    assert 0 == DiscreteLaplace(epsilon=Fraction(3, 10)).delta


@pytest.mark.parametrize(
    "epsilon", [Fraction(0), Fraction(-1), Fraction(1, 10**13), Fraction(100), Fraction(10) ** -400]
)
def test_an_epsilon_out_of_range_is_refused(epsilon: Fraction) -> None:
    """Not positive, or a scale that the sampler does not draw."""
    with pytest.raises(InvalidPlanError):
        DiscreteLaplace(epsilon=epsilon)


def _covered(scale: float, h: int) -> Decimal:
    """P(|noise| ≤ h) with 60 digits."""
    with localcontext(prec=60):
        q = (-1 / Decimal(scale)).exp()
        return 1 - 2 * (q ** (h + 1)) / (1 + q)
