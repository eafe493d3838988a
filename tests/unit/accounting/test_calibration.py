"""The tight conversion, its inverse, and the least noise for a promise."""

import math
from decimal import getcontext, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import noise_checks as checks
from dpdau.accounting.calibration import (
    EPSILON_MAX,
    EPSILON_MIN,
    analytic_gaussian_sigma,
    gaussian_sigma,
    rho_cap,
    round_epsilon_down,
    round_epsilon_up,
    zcdp_epsilon,
)
from dpdau.errors import InvalidPlanError

EPSILONS = st.integers(1, 10**6).map(lambda n: Fraction(n, 10_000))
DELTAS = st.integers(1, 20).map(lambda n: Fraction(1, 10**n))
TABLE = [
    # ε, δ, ρ tight, μ tight, μ of the analytic Gaussian.
    ("3", "1e-6", 0.18507, 0.6084, 0.6477),
    ("1", "1e-6", 0.02436, 0.2207, 0.2367),
    ("3", "1e-9", 0.12058, 0.4911, 0.5145),
]


@pytest.mark.parametrize(("epsilon", "delta", "rho", "mu", "_analytic"), TABLE)
def test_tight_caps(epsilon: str, delta: str, rho: float, mu: float, _analytic: float) -> None:
    """The tight conversion gives the known ρ, and 1/σ its square root of 2ρ."""
    found = rho_cap(Fraction(epsilon), Fraction(delta))
    assert rho == pytest.approx(float(found), abs=5e-6)
    assert mu == pytest.approx(1 / gaussian_sigma(Fraction(epsilon), Fraction(delta)), abs=5e-5)


@pytest.mark.parametrize(("epsilon", "delta", "_rho", "mu", "analytic"), TABLE)
def test_the_analytic_gaussian_is_a_little_better(
    epsilon: str, delta: str, _rho: float, mu: float, analytic: float
) -> None:
    """The continuous mechanism's least σ, shown beside ours, is 4 to 8 % smaller."""
    sigma = analytic_gaussian_sigma(Fraction(epsilon), Fraction(delta))
    assert analytic == pytest.approx(1 / sigma, abs=5e-5)
    ratio = gaussian_sigma(Fraction(epsilon), Fraction(delta)) / sigma
    assert analytic / mu == pytest.approx(ratio, abs=1e-3)
    assert 2 * sigma == analytic_gaussian_sigma(Fraction(epsilon), Fraction(delta), 2)


def test_opendp_converts_the_calibrated_noise_to_what_was_promised() -> None:
    """An independent implementation agrees: never above ε, within a millionth of it."""
    checks.conversion_matches_opendp()


def test_the_default_release_in_figures() -> None:
    """(0.5, 1e-6): σ = 8.677; the analytic Gaussian 8.058, the two classical formulas 10.6."""
    half, delta = Fraction(1, 2), Fraction(1, 10**6)
    log = math.log(1e6)
    assert 8.677 == pytest.approx(gaussian_sigma(half, delta), abs=1e-3)
    assert 8.058 == pytest.approx(analytic_gaussian_sigma(half, delta), abs=1e-3)
    standard_rho = (math.sqrt(log + 0.5) - math.sqrt(log)) ** 2
    assert 10.607 == pytest.approx(1 / math.sqrt(2 * standard_rho), abs=1e-3)
    assert 10.598 == pytest.approx(math.sqrt(2 * math.log(1.25e6)) / 0.5, abs=1e-3)


@given(epsilon=EPSILONS, delta=DELTAS)
def test_no_order_of_a_grid_does_better_by_a_rounding_error(
    epsilon: Fraction, delta: Fraction
) -> None:
    """dp-accounting's conversion at 2,000 orders neither beats ρ nor finds it invalid."""
    from dp_accounting.rdp import compute_epsilon

    rho = float(rho_cap(epsilon, delta))
    orders = [1.02 * 1.012**i for i in range(2_000)]
    found, _ = compute_epsilon(orders, [rho * order for order in orders], float(delta))
    assert found >= float(epsilon) * (1 - 1e-9) or found == 0
    if found:
        assert found <= float(epsilon) * 1.01 + 1e-6


@given(epsilon=EPSILONS, delta=DELTAS)
def test_the_two_directions_are_inverse(epsilon: Fraction, delta: Fraction) -> None:
    """All that ε affords converts back to ε, not to one unit of the last place more."""
    assert float(epsilon) == zcdp_epsilon(rho_cap(epsilon, delta), delta)


@given(rho=st.fractions(Fraction(1, 10**6), 50, max_denominator=10**9), delta=DELTAS)
def test_epsilon_affords_the_rho_it_came_from(rho: Fraction, delta: Fraction) -> None:
    """ε of ρ is rounded up: its own cap is at least ρ, and ε less two units cannot pay for ρ."""
    epsilon = Fraction(str(zcdp_epsilon(rho, delta)))
    if EPSILON_MIN <= epsilon <= EPSILON_MAX:
        assert rho_cap(epsilon, delta) >= rho - Fraction(1, 10**15)
        smaller = epsilon - Fraction(2, 10**9)
        assert smaller < EPSILON_MIN or rho_cap(smaller, delta) < rho


@given(epsilon=EPSILONS, delta=DELTAS)
def test_caps_grow_with_epsilon_and_delta(epsilon: Fraction, delta: Fraction) -> None:
    """A larger promise affords strictly more."""
    cap = rho_cap(epsilon, delta)
    assert 0 < cap < rho_cap(epsilon + Fraction(1, 1000), delta)
    assert cap < rho_cap(epsilon, delta * Fraction(11, 10))


@given(epsilon=EPSILONS, delta=DELTAS, sensitivity=st.integers(1, 1000))
def test_sigma_is_the_least_float_that_keeps_the_promise(
    epsilon: Fraction, delta: Fraction, sensitivity: int
) -> None:
    """Between exact rationals ρ(σ) ≤ cap, and the next float below would break it."""
    sigma = gaussian_sigma(epsilon, delta, sensitivity)
    cap = rho_cap(epsilon, delta)
    below = math.nextafter(sigma, 0)
    assert Fraction(sensitivity**2) / (2 * Fraction(sigma) ** 2) <= cap
    assert Fraction(sensitivity**2) / (2 * Fraction(below) ** 2) > cap


def test_the_decimal_context_of_the_caller_does_not_matter() -> None:
    """Neither the result nor the caller's context changes."""
    rho_cap.cache_clear()
    expected = rho_cap(Fraction(3), Fraction(1, 10**6))
    rho_cap.cache_clear()
    with localcontext(prec=3) as context:
        assert expected == rho_cap(Fraction(3), Fraction(1, 10**6))
        assert context is getcontext()
        assert 3 == context.prec


def test_nothing_spent_is_epsilon_zero() -> None:
    """ρ = 0 converts to exactly 0."""
    assert 0.0 == zcdp_epsilon(Fraction(0), Fraction(1, 10**6))


@pytest.mark.parametrize(
    ("epsilon", "delta"),
    [("0", "1e-6"), ("-1", "1e-6"), ("1e-5", "1e-6"), ("1001", "1e-6"), ("1", "0"), ("1", "1")],
)
def test_promises_out_of_range_are_refused(epsilon: str, delta: str) -> None:
    """ε from 0.0001 to 1000, δ from 1e-30 to below 1."""
    for calibrate in (rho_cap, gaussian_sigma):
        with pytest.raises(InvalidPlanError):
            calibrate(Fraction(epsilon), Fraction(delta))


def test_amounts_out_of_range_are_refused() -> None:
    """A negative or enormous ρ, a sensitivity of 0."""
    for rho in (Fraction(-1), Fraction(10**7)):
        with pytest.raises(InvalidPlanError):
            zcdp_epsilon(rho, Fraction(1, 10**6))
    with pytest.raises(InvalidPlanError):
        gaussian_sigma(Fraction(1), Fraction(1, 10**6), 0)


@given(value=st.fractions(0, 1000))
def test_epsilon_rounds_to_nine_decimals_in_the_direction_asked_for(value: Fraction) -> None:
    """The decimal that is printed bounds the exact value and is at most 1e-9 away."""
    up, down = Fraction(str(round_epsilon_up(value))), Fraction(str(round_epsilon_down(value)))
    assert down <= value <= up
    assert up - down <= Fraction(1, 10**9)


def test_infinity_stays_infinity() -> None:
    """What no accountant can bound is not rounded to a number."""
    assert math.inf == round_epsilon_up(math.inf)
