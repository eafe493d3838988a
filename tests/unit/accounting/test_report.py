"""What is reported and never enforced, against exact sums."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import dpdau.accounting.report as reports
import noise_checks as checks
import noise_laws as laws
from dpdau.accounting.calibration import gaussian_sigma
from dpdau.accounting.events import (
    DiscreteGaussianEvent,
    DiscreteLaplaceEvent,
    DpEvent,
    LatticeGaussianEvent,
)
from dpdau.accounting.report import Report, advanced_epsilon, report
from dpdau.errors import InvalidPlanError

DELTA = Fraction(1, 10**6)
ORDERS = (2, 4, 8, 16, 32)


def _report(
    events: list[DpEvent], delta: Fraction = DELTA, orders: tuple[float, ...] = ORDERS
) -> Report:
    return report(events, delta=delta, rdp_orders=orders, advanced_delta=DELTA / 10)


def _laplace(epsilon: str, count: int = 1) -> DiscreteLaplaceEvent:
    return DiscreteLaplaceEvent(Fraction(epsilon), count)


def _gaussian(sigma: str, count: int = 1, sensitivity: int = 1) -> DiscreteGaussianEvent:
    return DiscreteGaussianEvent(Fraction(sigma), sensitivity, Fraction(100), DELTA, count)


def test_no_events_are_all_zeros() -> None:
    """An unused budget reports zero in every figure."""
    assert Report(rdp_curve=tuple((order, 0.0) for order in ORDERS)) == _report([])


def test_reported_bounds_hold_for_exact_losses() -> None:
    """RDP, PLD, advanced and zCDP figures bound the exact loss of discrete Laplace releases."""
    checks.report_bounds_exact_losses()


def test_a_month_of_daily_counts_at_three_tenths() -> None:
    """31 × 0.3: 9.3 by basic composition, 8.03 by loss distribution, which is optimal."""
    found = _report([_laplace("0.3")] * 31)
    assert 9.3 == found.basic_epsilon
    assert 0.0 == found.basic_delta
    assert Fraction(279, 200) == found.rho_spent
    assert 8.0305 == pytest.approx(found.pld_epsilon, abs=1e-4)
    assert (8, 8.436974) == (found.best_rdp_order, pytest.approx(found.best_rdp_epsilon, abs=1e-6))
    assert 9.4353 == pytest.approx(found.zcdp_epsilon, abs=1e-4)
    assert 9.3 == found.advanced_epsilon
    assert 1e-7 == found.advanced_delta


def test_classical_advanced_composition_would_exceed_basic() -> None:
    """For 31 × 0.3 the classical formula reads 12.0; ours takes the minimum and a smaller drift."""
    squares, drift = 31 * 0.09, 31 * 0.3 * math.expm1(0.3)
    classical = drift + math.sqrt(2 * math.log(1e6) * squares)
    assert 12.0 == pytest.approx(classical, abs=0.05)
    assert 9.3 == advanced_epsilon([(_laplace("0.3"), 31)], DELTA)


def test_advanced_composition_wins_for_many_small_releases() -> None:
    """1,000 × 0.01: far below the sum of 10, with the tanh drift to nine decimals."""
    expected = 1000 * 0.01 * math.tanh(0.005) + math.sqrt(2 * math.log(1e6) * 0.1)
    found = advanced_epsilon([(_laplace("0.01"), 1000)], DELTA)
    assert expected == pytest.approx(found, abs=2e-9)
    assert found >= expected
    assert found < 2


def test_advanced_delta_includes_the_deltas_of_the_events() -> None:
    """Gaussian releases bring their own δ: 7 × 1e-6 and the slack."""
    found = _report([_gaussian("9")] * 7)
    assert 7.1e-6 == pytest.approx(found.advanced_delta)
    assert 7e-6 == pytest.approx(found.basic_delta)


@pytest.mark.parametrize(("epsilon", "most"), [("0.3", 10), ("0.1", 46), ("0.05", 170)])
def test_how_many_laplace_releases_the_loss_distribution_allows(epsilon: str, most: int) -> None:
    """In (3, 1e-6) as many as the optimal composition theorem allows, and not one more."""
    assert _report([_laplace(epsilon, most)]).pld_epsilon <= 3.0
    assert _report([_laplace(epsilon, most + 1)]).pld_epsilon > 3.0


@pytest.mark.parametrize(("sigma", "most"), [("4.714", 9), ("10", 41), ("20", 167)])
def test_how_many_gaussian_releases_the_loss_distribution_allows(sigma: str, most: int) -> None:
    """In (3, 1e-6) as many as continuous Gaussian noise allows exactly."""
    assert _report([_gaussian(sigma, most)]).pld_epsilon <= 3.0
    assert _report([_gaussian(sigma, most + 1)]).pld_epsilon > 3.0


@pytest.mark.parametrize(
    ("event", "most"),
    [
        (_laplace("0.3"), 4),
        (_laplace("0.1"), 37),
        (_laplace("0.05"), 148),
        (_gaussian("4.714"), 8),
        (_gaussian("10"), 37),
        (_gaussian("20"), 148),
    ],
)
def test_how_many_releases_the_tight_conversion_allows(event: DpEvent, most: int) -> None:
    """In (3, 1e-6) by zCDP: the figure that is enforced for Gaussian noise."""
    assert _report([event] * most).zcdp_epsilon <= 3.0
    assert _report([event] * (most + 1)).zcdp_epsilon > 3.0


@pytest.mark.parametrize(
    ("event", "most"),
    [(_laplace("0.1"), 39), (_gaussian("4.714"), 8), (_gaussian("10"), 36)],
)
def test_how_many_releases_a_coarse_grid_of_orders_allows(event: DpEvent, most: int) -> None:
    """In (3, 1e-6) by RDP over 13 orders; continuous Laplace noise would fit 40 of 0.1."""
    orders = (1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 8, 16, 32, 64)
    assert _report([event] * most, orders=orders).best_rdp_epsilon <= 3.0
    assert _report([event] * (most + 1), orders=orders).best_rdp_epsilon > 3.0


def test_continuous_laplace_noise_would_be_reported_too_low() -> None:
    """Accounted as continuous noise, 40 of 0.1 would seem to fit in (3, 1e-6); they do not."""
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    orders = (1.25, 1.5, 1.75, 2, 2.5, 3, 4, 5, 6, 8, 16, 32, 64)
    continuous = RdpAccountant(orders).compose(dp_accounting.LaplaceDpEvent(10.0), 40)
    assert continuous.get_epsilon(1e-6) <= 3.0
    assert _report([_laplace("0.1", 40)], orders=orders).best_rdp_epsilon > 3.0


@pytest.mark.parametrize(("sigma", "sensitivity"), [(0.7, 1), (4.714, 1), (9.5, 3), (300.0, 100)])
def test_gaussian_figures_bound_the_exact_loss(sigma: float, sensitivity: int) -> None:
    """δ at the reported ε, summed over the discrete Gaussian law, is at most the promised δ."""
    found = _report([_gaussian(str(Fraction(sigma)), 1, sensitivity)])
    x, p = laws.signed(laws.gaussian_law(sigma))
    losses = ((x - sensitivity) ** 2.0 - x**2.0) / (2 * sigma**2)
    for value in (found.pld_epsilon, found.best_rdp_epsilon, found.zcdp_epsilon):
        assert laws.exact_delta(losses, p, value) <= 1e-6
    assert laws.exact_delta(losses, p, found.pld_epsilon * 0.998 - 1e-4) > 1e-6
    assert found.pld_epsilon <= found.zcdp_epsilon


@pytest.mark.parametrize("sigma", [0.7, 2.0, 9.0])
def test_gaussian_orders_are_order_times_rho(sigma: float) -> None:
    """By summation, the Rényi divergence of neighbors is at most α ρ, which the curve charges."""
    found = _report([_gaussian(str(Fraction(sigma)))])
    folded = laws.gaussian_law(sigma)
    _, p = laws.signed(np.pad(folded, (0, 1)))
    neighbor = np.roll(p, 1)
    for order, converted in found.rdp_curve:
        charged = order / (2 * sigma**2)
        constant = math.log1p(-1 / order) - math.log(1e-6 * order) / (order - 1)
        assert charged + constant == pytest.approx(converted, abs=2e-9)
        if order * 2 < sigma * 9:  # Beyond it the tilted law leaves the range that is summed.
            assert laws.renyi(p, neighbor, order) <= charged * (1 + 1e-9)


def test_mixed_releases_cost_no_more_than_their_parts() -> None:
    """A mixture is composed, not added: below the sum of the parts, above each of them."""
    laplace, gaussian = _laplace("0.3"), _gaussian("9")
    both = _report([laplace, gaussian])
    apart = [_report([laplace]), _report([gaussian])]
    for name in ("pld_epsilon", "zcdp_epsilon", "best_rdp_epsilon"):
        figures = [getattr(one, name) for one in apart]
        assert max(figures) <= getattr(both, name) <= sum(figures)
    assert sum(one.rho_spent for one in apart) == both.rho_spent


def test_reports_are_remembered_by_content() -> None:
    """Order and grouping do not matter: the very same report comes back."""
    a, b = _laplace("0.3"), _gaussian("9")
    first = _report([a, b, a, a])
    assert first is _report([_laplace("0.3", 2), b, a])
    assert first is not _report([a, b, a])


@pytest.mark.parametrize(
    ("events", "delta"),
    [
        ([_gaussian("300000")], DELTA),
        ([_gaussian("1/4")], DELTA),
        ([_gaussian("150000", 1, 10)], DELTA),
        ([_laplace("0.001", 3000)], DELTA),
        ([_laplace("0.3"), _gaussian("9")], Fraction(1, 10**13)),
    ],
)
def test_where_the_grid_is_out_of_its_depth_another_bound_stands_in(
    events: list[DpEvent], delta: Fraction
) -> None:
    """Too fine, too coarse, too many, or too small a δ: the least of the other bounds at δ."""
    found = _report(events, delta)
    bounds = [found.zcdp_epsilon, found.best_rdp_epsilon]
    if Fraction(found.basic_delta) <= delta:
        bounds.append(found.basic_epsilon)
    assert min(bounds) == found.pld_epsilon


def test_an_infinite_loss_distribution_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Infinity is never published where a finite bound is known."""

    class Infinite:
        def self_compose(self, _: int) -> Any:
            return self

        def get_epsilon_for_delta(self, _: float) -> float:
            return math.inf

    monkeypatch.setattr(reports, "_loss_distribution", lambda event: Infinite())
    reports._report.cache_clear()
    found = _report([_laplace("0.3")])
    reports._report.cache_clear()
    assert 0.3 == found.pld_epsilon


@pytest.mark.parametrize(
    "arguments",
    [
        {"delta": Fraction(0)},
        {"delta": Fraction(1)},
        {"advanced_delta": Fraction(0)},
        {"rdp_orders": ()},
        {"rdp_orders": (1,)},
        {"rdp_orders": (2, math.inf)},
        {"rdp_orders": tuple(range(2, 100))},
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    """δ in range, at least one and not too many orders, all above 1; also for no events."""
    good: dict[str, Any] = {"delta": DELTA, "rdp_orders": ORDERS, "advanced_delta": DELTA}
    with pytest.raises(InvalidPlanError):
        report([], **(good | arguments))


def test_a_default_release_is_reported_below_its_calibration() -> None:
    """(0.5, 1e-6): zCDP reads exactly 0.5, the loss distribution less."""
    half = Fraction(1, 2)
    event = DiscreteGaussianEvent(Fraction(gaussian_sigma(half, DELTA)), 1, half, DELTA)
    found = _report([event])
    assert 0.5 == found.zcdp_epsilon
    assert 0.46 < found.pld_epsilon < 0.48


def test_the_figures_of_the_decision_note() -> None:
    """What 36 monthly releases of (0.5, 1e-6) read under each accountant, at a cap of 3.5."""
    half = Fraction(1, 2)
    event = DiscreteGaussianEvent(Fraction(gaussian_sigma(half, DELTA)), 1, half, DELTA)
    found = _report([event] * 36)
    assert 18.0 == found.basic_epsilon
    assert 3.4558 == pytest.approx(found.zcdp_epsilon, abs=1e-4)
    assert 3.4558 == pytest.approx(found.best_rdp_epsilon, abs=1e-4)
    assert 3.2264 == pytest.approx(found.pld_epsilon, abs=1e-4)
    assert 1.4150 == pytest.approx(_report([event] * 7).zcdp_epsilon, abs=1e-4)


def test_a_lattice_event_is_reported_by_its_rho() -> None:
    """A month plan has Rényi figures like a Gaussian release of its ρ, and no loss distribution."""
    lattice = LatticeGaussianEvent(2, (Fraction(10), Fraction(20)), Fraction(3), DELTA)
    same = DiscreteGaussianEvent(Fraction(4), 1, Fraction(3), DELTA)
    other = LatticeGaussianEvent(1, (Fraction(4),), Fraction(3), DELTA)

    found, gaussian, equal = (_report([one]) for one in (lattice, same, other))

    assert Fraction(1, 80) == found.rho_spent
    assert gaussian.rdp_curve == equal.rdp_curve
    assert gaussian.zcdp_epsilon == equal.zcdp_epsilon
    assert min(equal.zcdp_epsilon, equal.best_rdp_epsilon) == equal.pld_epsilon
    assert gaussian.pld_epsilon < equal.pld_epsilon
