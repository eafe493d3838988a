"""Named checks of noise and its accounting: each raises AssertionError where the product lies.

One function serves twice: as a test of the product, and as the alarm that must go off for each
planted bug. Every check builds what it checks when it is called, so that a patched product is what
it sees.

False alarms: 20,000 draws a law; chi-square at 1e-8, correlation and coverage at 5.6 standard
errors (2e-8), neighboring releases at 1e-7. All checks together raise one in well under 1e-6 runs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import dpdau.accounting.budget as budgets
import dpdau.accounting.calibration as calibration
import dpdau.accounting.report as reports
import noise_laws as laws
from dpdau.accounting.budget import Budget, Cost, FilterName
from dpdau.accounting.events import DiscreteGaussianEvent, DiscreteLaplaceEvent, DpEvent
from dpdau.domain import BoundedCount, ContributionBounds, Unit
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.base import interval
from dpdau.mechanisms.gaussian import DiscreteGaussian
from dpdau.mechanisms.laplace import DiscreteLaplace
from dpdau.mechanisms.sampling import NoiseSource, OpenDPNoise, opendp_measurement
from noise_sources import BulkNoise, ZeroNoise

DRAWS = 20_000
P_MIN = 1e-8
STANDARD_ERRORS = 5.6
NEIGHBORS_ALPHA = 1e-7
DELTA = Fraction(1, 10**6)
# ρ of (ε, 1e-6), from an independent floating-point minimization.
RHO = {Fraction(1, 2): 0.0066415243566605, Fraction(1): 0.0243559703595384, Fraction(3): 0.18506984}


@dataclass(frozen=True)
class Case:
    """A mechanism, the scale that its promise calls for, and its exact folded law."""

    label: str
    mechanism: DiscreteLaplace | DiscreteGaussian
    scale: float
    law: Callable[[float], laws.Floats]


def laplace(epsilon: str, sensitivity: int = 1) -> Case:
    """Discrete Laplace of a promised ε."""
    exact = Fraction(epsilon)
    return Case(
        f"laplace {epsilon}/{sensitivity}",
        DiscreteLaplace(epsilon=exact, sensitivity=sensitivity),
        float(sensitivity / exact),
        laws.laplace_law,
    )


def gaussian(epsilon: str, sensitivity: int = 1) -> Case:
    """Discrete Gaussian calibrated to a promised (ε, 1e-6)."""
    exact = Fraction(epsilon)
    sigma = calibration.gaussian_sigma(exact, DELTA, sensitivity)
    return Case(
        f"gaussian {epsilon}/{sensitivity}",
        DiscreteGaussian(sigma=sigma, epsilon=exact, delta=DELTA, sensitivity=sensitivity),
        sensitivity / math.sqrt(2 * RHO[exact]),
        laws.gaussian_law,
    )


def bounded(value: int, sensitivity: int = 1, active_steps: int = 1) -> BoundedCount:
    """A count whose bounds are these."""
    return BoundedCount(value, ContributionBounds(sensitivity, active_steps), Unit.USER)


def releases(case: Case, value: int, times: int, noise: NoiseSource | None = None) -> list[Any]:
    """Independent one-off releases of one exact count."""
    source = noise or BulkNoise(OpenDPNoise(), times)
    mechanism = case.mechanism
    count = bounded(value, mechanism.sensitivity)
    return [mechanism.step(count, mechanism.init(1), source)[0] for _ in range(times)]


def laplace_law() -> None:
    """Discrete Laplace releases follow the law of sensitivity / ε, at small and large scales."""
    for case in (laplace("2"), laplace("0.3"), laplace("1", 2), laplace("0.004")):
        _matches_law(case, releases(case, 1_000, DRAWS), 1_000)


def gaussian_law() -> None:
    """Discrete Gaussian releases follow the law of their calibrated σ, at several scales."""
    for case in (gaussian("3"), gaussian("1"), gaussian("0.5", 100)):
        _matches_law(case, releases(case, 1_000, DRAWS), 1_000)


def single_draw_law() -> None:
    """The laws hold when each release asks the sampler for one draw, as the product does."""
    for case in (laplace("0.3"), gaussian("0.5")):
        _matches_law(case, releases(case, -7, DRAWS, OpenDPNoise()), -7)


def _matches_law(case: Case, values: list[Any], exact: int) -> None:
    noise = [value - exact for value in values]
    folded = case.law(case.scale)
    p = laws.chi_square_p(noise, folded)
    assert p >= P_MIN, f"{case.label}: chi-square p = {p:.2g}"
    limit = STANDARD_ERRORS / math.sqrt(len(noise))
    correlation = laws.lag_correlation(noise)
    assert abs(correlation) <= limit, f"{case.label}: correlation {correlation:.3f}"


def releases_are_integers() -> None:
    """A release is a Python int: nothing between the count and it was a float."""
    for case in (laplace("0.3"), gaussian("1")):
        assert all(type(value) is int for value in releases(case, 5, 200))


def releases_are_fresh() -> None:
    """No draw appears twice among many of a scale where a coincidence has odds below 1e-8."""
    source = OpenDPNoise()
    wide = 2.0**39
    for draw in (source.discrete_laplace, source.discrete_gaussian):
        drawn = [int(draw(wide, 1)[0]) for _ in range(50)] + draw(wide, 50).tolist()
        assert len(set(drawn)) == len(drawn), "a draw was repeated"
    case = Case(
        "gaussian wide",
        DiscreteGaussian(sigma=wide, epsilon=Fraction(1), delta=DELTA),
        wide,
        laws.gaussian_law,
    )
    values = releases(case, 0, 50, OpenDPNoise())
    assert len(set(values)) == len(values), "a release was repeated"


def intervals_are_exact() -> None:
    """`half_width` is the least integer that covers, by summation of the exact law."""
    for coverage in (0.5, 0.8, 0.95, 0.99):
        for case in (laplace("2"), laplace("0.3"), laplace("0.004"), gaussian("3"), gaussian("1")):
            covered = np.cumsum(case.law(case.scale))
            expected = int(np.argmax(covered >= coverage))
            found = case.mechanism.half_width(coverage)
            assert expected == found, f"{case.label} at {coverage}: {expected} != {found}"


def intervals_cover() -> None:
    """The 95 % interval holds the exact count in at least 95 % of releases."""
    for case in (laplace("0.3"), gaussian("1")):
        held = 0
        for value in releases(case, 123, DRAWS):
            lower, upper = interval(case.mechanism, value)
            held += lower <= 123 <= upper
        slack = STANDARD_ERRORS * math.sqrt(0.95 * 0.05 / DRAWS)
        assert held / DRAWS >= 0.95 - slack, f"{case.label}: covered {held / DRAWS:.4f}"


def stddev_is_exact() -> None:
    """`noise_stddev` is the standard deviation of the exact law, to float accuracy."""
    for case in (laplace("2"), laplace("0.3"), gaussian("3"), gaussian("0.5")):
        expected = laws.stddev(case.law(case.scale))
        found = case.mechanism.noise_stddev
        assert abs(expected / found - 1) < 1e-6, f"{case.label}: {expected} != {found}"
    for sigma in (0.3, 0.5, 0.8, 1.7, 7.9, 8.1, 40.0):
        case = DiscreteGaussian(sigma=sigma, epsilon=Fraction(1), delta=DELTA)
        expected = laws.stddev(laws.gaussian_law(sigma))
        assert abs(expected / case.noise_stddev - 1) < 1e-12, f"σ = {sigma}"


def sensitivity_is_exact() -> None:
    """Noise off, neighbors differ by no more than the cost allows: Δ/scale ≤ ε, Δ²/2σ² ≤ ρ."""
    for case in (laplace("0.3"), laplace("1", 2), gaussian("1"), gaussian("0.5", 3)):
        mechanism = case.mechanism
        for value in (0, 1, 10, 2**61):
            for move in (-mechanism.sensitivity, mechanism.sensitivity):
                ours = releases(case, value, 1, ZeroNoise())[0]
                theirs = releases(case, value + move, 1, ZeroNoise())[0]
                moved = Fraction(abs(ours - theirs))
                if isinstance(mechanism, DiscreteLaplace):
                    assert moved / Fraction(mechanism.scale) <= mechanism.epsilon, case.label
                else:
                    assert moved**2 / (2 * Fraction(mechanism.sigma) ** 2) <= mechanism.rho
                    assert float(mechanism.rho) <= RHO[mechanism.epsilon] * (1 + 1e-6)


def wrong_bounds_are_refused() -> None:
    """A count whose bounds exceed the sensitivity is refused before anything is drawn."""
    for case in (laplace("0.3"), gaussian("1")):
        mechanism = case.mechanism
        for count in (bounded(5, 2), bounded(5, 1, 30)):
            with pytest.raises(InvalidPlanError):
                mechanism.step(count, mechanism.init(1), ZeroNoise())


def second_step_is_refused() -> None:
    """One charge pays for one step: the horizon cannot be longer, nor a step be taken twice."""
    for case in (laplace("0.3"), gaussian("1")):
        mechanism = case.mechanism
        with pytest.raises(InvalidPlanError):
            mechanism.init(2)
        _, after = mechanism.step(bounded(5), mechanism.init(1), ZeroNoise())
        with pytest.raises(InvalidPlanError):
            mechanism.step(bounded(5), after, ZeroNoise())


def neighbors_are_hidden() -> None:
    """Releases of neighbors: a black-box lower bound on the loss stays below the claim."""
    for case in (laplace("1"), laplace("0.3"), laplace("1", 2)):
        epsilon, _ = _neighbors(case)
        claim = float(case.mechanism.epsilon)
        assert epsilon <= claim, f"{case.label}: ε is at least {epsilon:.3f}, claimed {claim}"
    for case in (gaussian("3"), gaussian("3", 2)):
        _, divergence = _neighbors(case)
        claim = float(case.mechanism.rho)
        assert claim <= RHO[case.mechanism.epsilon] * (1 + 1e-6)
        assert divergence <= claim, f"{case.label}: ρ is at least {divergence:.3f}, claimed {claim}"


def _neighbors(case: Case) -> tuple[float, float]:
    ours = releases(case, 50, DRAWS)
    theirs = releases(case, 50 + case.mechanism.sensitivity, DRAWS)
    return laws.losses_lower_bound(ours, theirs, NEIGHBORS_ALPHA / 5)


def costs_match_opendp() -> None:
    """What is charged is at least what OpenDP's own privacy map states, and not much more."""
    for case in (laplace("0.3"), laplace("1", 2), laplace("0.07")):
        mechanism = case.mechanism
        stated = opendp_measurement("laplace", mechanism.scale).map(mechanism.sensitivity)
        charged = budgets.cost_of(DiscreteLaplaceEvent(mechanism.epsilon, 3)).epsilon / 3
        # OpenDP rounds its map up to a float: the next float below must not be above the charge.
        assert Fraction(math.nextafter(stated, 0)) <= charged
        assert abs(float(charged) / stated - 1) < 1e-12
    for case in (gaussian("3"), gaussian("1", 7)):
        mechanism = case.mechanism
        event = DiscreteGaussianEvent(
            Fraction(mechanism.sigma), mechanism.sensitivity, mechanism.epsilon, DELTA, 3
        )
        stated = opendp_measurement("gaussian", mechanism.sigma).map(mechanism.sensitivity)
        charged = budgets.cost_of(event).rho / 3
        assert Fraction(math.nextafter(stated, 0)) <= charged
        assert abs(float(charged) / stated - 1) < 1e-12
        assert charged == mechanism.rho


def conversion_matches_opendp() -> None:
    """OpenDP converts the calibrated σ to the promised ε at δ: never above, hardly below."""
    from opendp.combinators import make_zCDP_to_approxDP

    for epsilon, delta in ((3, 6), (1, 6), (3, 9), (Fraction(1, 2), 6), (Fraction(1, 10), 8)):
        promised = Fraction(epsilon)
        exact_delta = Fraction(1, 10**delta)
        sigma = calibration.gaussian_sigma(promised, exact_delta)
        profile = make_zCDP_to_approxDP(opendp_measurement("gaussian", sigma)).map(1)
        stated = profile.epsilon(delta=float(exact_delta))
        assert stated <= float(promised) * (1 + 1e-9), f"ε = {stated}, promised {promised}"
        assert stated >= float(promised) * (1 - 1e-6), f"ε = {stated}: σ is larger than needed"
        rho = Fraction(1) / (2 * Fraction(sigma) ** 2)
        assert abs(calibration.zcdp_epsilon(rho, exact_delta) / stated - 1) < 1e-6


def filters_hold_the_cap() -> None:
    """Charges taken while they fit never exceed the cap, and exactly floor(cap / cost) fit."""
    gaussian_event = DiscreteGaussianEvent(
        Fraction(calibration.gaussian_sigma(Fraction(1, 2), DELTA)), 1, Fraction(1, 2), DELTA
    )
    laplace_event = DiscreteLaplaceEvent(Fraction(3, 10))
    pair = DiscreteLaplaceEvent(Fraction(3, 10), 2)
    rows: list[tuple[FilterName, str, Fraction, DpEvent, int]] = [
        (FilterName.BASIC, "3", Fraction(0), laplace_event, 10),
        (FilterName.BASIC, "3", Fraction(0), pair, 5),
        (FilterName.BASIC, "3.5", DELTA, gaussian_event, 1),
        (FilterName.BASIC, "3.5", 10 * DELTA, gaussian_event, 7),
        (FilterName.ZCDP, "3", DELTA, laplace_event, 4),
        (FilterName.ZCDP, "3.5", DELTA, gaussian_event, 36),
    ]
    for name, cap, delta, event, expected in rows:
        budget = Budget("b", "m", "2026-01", name, Fraction(cap), delta)
        spent, taken = Cost(), 0
        while budgets.fits(budget, spent, event) and taken < 200:
            spent, taken = spent + budgets.cost_of(event), taken + 1
        assert expected == taken, f"{name} {cap}: {taken} charges fit, expected {expected}"
        limit = budget.cap()
        if name is FilterName.BASIC:
            assert spent.epsilon <= limit.epsilon
            assert spent.delta <= limit.delta
        else:
            assert spent.rho <= limit.rho


def report_bounds_exact_losses() -> None:
    """Each reported ε is at least the exact one, by summation, for discrete Laplace releases."""
    for epsilon, times in (("0.3", 1), ("0.3", 10), ("0.3", 31), ("1", 3), ("0.05", 100)):
        loss = float(Fraction(epsilon))
        events = [DiscreteLaplaceEvent(Fraction(epsilon))] * times
        found = reports.report(
            events, delta=DELTA, rdp_orders=(2, 4, 8, 16, 32), advanced_delta=DELTA / 10
        )
        heads = np.arange(times + 1)
        keep = 1 / (1 + math.exp(-loss))
        chances = np.array(
            [math.comb(times, h) * keep**h * (1 - keep) ** (times - h) for h in heads]
        )
        losses = (2 * heads - times) * loss
        for name, value, delta in (
            ("pld", found.pld_epsilon, DELTA),
            ("rdp", found.best_rdp_epsilon, DELTA),
            ("advanced", found.advanced_epsilon, DELTA / 10),
            ("zcdp", found.zcdp_epsilon, DELTA),
        ):
            exact = laws.exact_delta(losses, chances, value)
            assert exact <= float(delta) * (1 + 1e-6), f"{name}, {times} × {epsilon}: δ = {exact}"
        assert found.advanced_epsilon <= found.basic_epsilon
        integers, p = laws.signed(laws.laplace_law(1 / loss))
        neighbor = np.exp(-loss * np.abs(integers - 1)) * math.tanh(loss / 2)
        for order, converted in found.rdp_curve:
            divergence = laws.renyi(p, neighbor, order) * times
            expected = (
                divergence + math.log1p(-1 / order) - math.log(float(DELTA) * order) / (order - 1)
            )
            assert abs(max(0.0, expected) - converted) < 1e-6, f"order {order}: {expected}"
