"""Between (ε, δ), ρ and σ: the least noise that fits a promise, and the promise that noise keeps.

Everything that enforcement rests on is a bound at one explicit Rényi order, evaluated with 50
decimal digits and rounded against ourselves; an error in the search for that order would cost
tightness, never validity. Decimal arithmetic is correctly rounded everywhere, so every machine
finds the same cap, and an old charge is never judged by a different one.

No library is used for it: dp-accounting converts from a fixed grid of orders only and takes seconds
to import, OpenDP converts in one direction only. Both agree with it in the tests.
"""

import math
from collections.abc import Callable
from decimal import ROUND_FLOOR, Context, Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from typing import Final

from dpdau.errors import InvalidPlanError

EPSILON_MIN: Final = Fraction(1, 10_000)
EPSILON_MAX: Final = Fraction(1_000)
DELTA_MIN: Final = Fraction(1, 10**30)

_CONTEXT: Final = Context(prec=50)
_MARGIN: Final = Decimal("1e-36")
"""Far above what 50 digits can lose on numbers below 10⁹, far below every grid used here."""
_RHO_GRID: Final = Decimal("1e-18")
_EPSILON_GRID: Final = 10**9
_SEARCH_CONTEXT: Final = Context(prec=34)
_LOG_ORDER_RANGE: Final = (Decimal(-8), Decimal(48))
_SEARCH_POINTS: Final = 57
_SEARCH_STEPS: Final = 50
_GOLDEN: Final = Decimal("0.6180339887498948")


@lru_cache(maxsize=1024)
def rho_cap(epsilon: Fraction, delta: Fraction) -> Fraction:
    """The largest ρ whose tight conversion is at most ε at δ, rounded down to a multiple of 1e-18.

    For every order α > 1, ρ-zCDP implies (ε, δ) with
    ε = α ρ + ln(1 - 1/α) + (ln(1/δ) - ln α) / (α - 1); this solves for ρ at the best α.

    Guarantee: every ρ-zCDP mechanism with ρ ≤ the result is (ε, δ)-differentially private.

    Args:
        epsilon: `EPSILON_MIN` ≤ ε ≤ `EPSILON_MAX`.
        delta: `DELTA_MIN` ≤ δ < 1.

    Raises:
        InvalidPlanError: ε or δ is out of range.

    Source: Canonne, Kamath, Steinke 2020, Corollary 13.

    Example:
        >>> round(float(rho_cap(Fraction(3), Fraction(1, 10**6))), 5)
        0.18507
    """
    _check_delta(delta)
    if not EPSILON_MIN <= epsilon <= EPSILON_MAX:
        raise InvalidPlanError(
            f"Expected {float(EPSILON_MIN)} <= epsilon <= {float(EPSILON_MAX)}, found {epsilon}."
        )
    return _rho_cap(epsilon, delta)


@lru_cache(maxsize=4096)
def zcdp_epsilon(rho: Fraction, delta: Fraction) -> float:
    """The tight ε of ρ-zCDP at δ, rounded up to nine decimals; 0 for ρ = 0.

    The inverse of `rho_cap`: for ε of nine decimals, `zcdp_epsilon(rho_cap(ε, δ), δ)` is ε.

    Args:
        rho: 0 ≤ ρ ≤ 10⁶.
        delta: `DELTA_MIN` ≤ δ < 1.

    Raises:
        InvalidPlanError: ρ or δ is out of range.

    Source: Canonne, Kamath, Steinke 2020, Corollary 13.

    Example:
        >>> zcdp_epsilon(rho_cap(Fraction(3), Fraction(1, 10**6)), Fraction(1, 10**6))
        3.0
    """
    _check_delta(delta)
    if not 0 <= rho <= 10**6:
        raise InvalidPlanError(f"Expected 0 <= rho <= 10**6, found {rho}.")
    if rho == 0:
        return 0.0
    with localcontext(_SEARCH_CONTEXT):
        slope, log_delta = _decimal(rho), _decimal(delta).ln()
        order = _best_order(lambda order: slope * order + _offset(order, log_delta))
    with localcontext(_CONTEXT):
        exact = order * _decimal(rho) + _offset(order, _decimal(delta).ln())
        bound = Fraction(max(Decimal(0), exact) + _MARGIN)
    # The two searches stop at orders that differ in the last digits; a next smaller ε that still
    # affords ρ is a bound too.
    rounded = Fraction(math.ceil(bound * _EPSILON_GRID), _EPSILON_GRID)
    smaller = rounded - Fraction(1, _EPSILON_GRID)
    return float(smaller if smaller > 0 and rho <= _rho_cap(smaller, delta) else rounded)


@lru_cache(maxsize=1024)
def gaussian_sigma(epsilon: Fraction, delta: Fraction, sensitivity: int = 1) -> float:
    """The least float σ whose discrete Gaussian keeps (ε, δ) through the tight zCDP conversion.

    Guarantee: sensitivity² / (2 σ²) ≤ `rho_cap(epsilon, delta)` between exact rationals.

    Args:
        epsilon: `EPSILON_MIN` ≤ ε ≤ `EPSILON_MAX`.
        delta: `DELTA_MIN` ≤ δ < 1.
        sensitivity: Largest L2 change that one user can cause, in users, at least 1.

    Returns:
        σ in users, rounded up.

    Raises:
        InvalidPlanError: A parameter is out of range.

    Example:
        >>> round(gaussian_sigma(Fraction(1, 2), Fraction(1, 10**6)), 3)
        8.677
    """
    if sensitivity < 1:
        raise InvalidPlanError(f"Expected a sensitivity of at least 1, found {sensitivity}.")
    variance = Fraction(sensitivity**2) / (2 * rho_cap(epsilon, delta))
    sigma = math.sqrt(variance)
    while Fraction(sigma) ** 2 < variance:
        sigma = math.nextafter(sigma, math.inf)
    while Fraction(below := math.nextafter(sigma, 0.0)) ** 2 >= variance:
        sigma = below
    return sigma


def analytic_gaussian_sigma(epsilon: Fraction, delta: Fraction, sensitivity: int = 1) -> float:
    """The σ that continuous Gaussian noise would need: shown for comparison, never used for noise.

    Imports dp-accounting, which takes seconds.

    Source: Balle, Wang 2018, "Improving the Gaussian Mechanism for Differential Privacy",
    Algorithm 1, as implemented by dp-accounting.
    """
    from dp_accounting import get_sigma_gaussian

    return float(get_sigma_gaussian(float(epsilon), float(delta))) * sensitivity


def round_epsilon_up(value: Fraction | float) -> float:
    """The float whose shortest decimal form is `value` rounded up to nine decimals.

    Example:
        >>> round_epsilon_up(Fraction(3, 10)), round_epsilon_up(1 / 3)
        (0.3, 0.333333334)
    """
    return _round_epsilon(value, math.ceil)


def round_epsilon_down(value: Fraction | float) -> float:
    """The float whose shortest decimal form is `value` rounded down to nine decimals.

    Example:
        >>> round_epsilon_down(Fraction(27, 10)), round_epsilon_down(Fraction(1, 3))
        (2.7, 0.333333333)
    """
    return _round_epsilon(value, math.floor)


def _rho_cap(epsilon: Fraction, delta: Fraction) -> Fraction:
    """`rho_cap` without its checks and its memory."""
    with localcontext(_SEARCH_CONTEXT):
        goal, log_delta = _decimal(epsilon), _decimal(delta).ln()
        order = _best_order(lambda order: (_offset(order, log_delta) - goal) / order)
    with localcontext(_CONTEXT):
        rho = (_decimal(epsilon) - _offset(order, _decimal(delta).ln())) / order
        rounded = (rho - _MARGIN).quantize(_RHO_GRID, rounding=ROUND_FLOOR)
    return Fraction(rounded)


def _round_epsilon(value: Fraction | float, rounding: Callable[[Fraction], int]) -> float:
    """Rounds on the grid of nine decimals; infinity stays."""
    if value == math.inf:
        return math.inf
    return float(Fraction(rounding(Fraction(value) * _EPSILON_GRID), _EPSILON_GRID))


def _check_delta(delta: Fraction) -> None:
    """Refuses a δ outside `DELTA_MIN` ≤ δ < 1."""
    if not DELTA_MIN <= delta < 1:
        raise InvalidPlanError(f"Expected {float(DELTA_MIN)} <= delta < 1, found {delta}.")


def _offset(order: Decimal, log_delta: Decimal) -> Decimal:
    """ε - α ρ at one Rényi order α, in the digits of the current decimal context."""
    log_order = order.ln()
    order_minus_1 = order - 1
    return order_minus_1.ln() - log_order - (log_delta + log_order) / order_minus_1


def _best_order(objective: Callable[[Decimal], Decimal]) -> Decimal:
    """The order α near the minimum of a function, in the digits of the current decimal context.

    A grid in ln(α - 1) finds the valley, golden sections its floor.
    """
    low, high = _LOG_ORDER_RANGE
    step = (high - low) / (_SEARCH_POINTS - 1)

    def at(log_order_minus_1: Decimal) -> Decimal:
        return objective(1 + log_order_minus_1.exp())

    best = min((low + i * step for i in range(_SEARCH_POINTS)), key=at)
    low, high = best - step, best + step
    for _ in range(_SEARCH_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if at(left) < at(right):
            high = right
        else:
            low = left
    return 1 + ((low + high) / 2).exp()


def _decimal(value: Fraction) -> Decimal:
    """A fraction in the digits of the current decimal context."""
    return Decimal(value.numerator) / Decimal(value.denominator)
