"""Budgets: filters, exact sums, grants."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import noise_checks as checks
from dpdau.accounting.budget import (
    ALLOWANCES_MAX,
    Budget,
    Cost,
    FilterName,
    charges_left,
    check_claim,
    cost_of,
    epsilon_remaining,
    epsilon_spent,
    fits,
    total_cost,
)
from dpdau.accounting.calibration import gaussian_sigma, rho_cap, zcdp_epsilon
from dpdau.accounting.events import (
    DiscreteGaussianEvent,
    DiscreteLaplaceEvent,
    DpEvent,
    LatticeGaussianEvent,
)
from dpdau.errors import InvalidPlanError, UnsupportedMechanismError

DELTA = Fraction(1, 10**6)


def _budget(
    name: FilterName = FilterName.ZCDP, epsilon: str = "3.5", delta: Fraction = DELTA
) -> Budget:
    return Budget("mau/2026-01", "mau", "2026-01", name, Fraction(epsilon), delta)


def _gaussian(epsilon: Fraction, count: int = 1, sensitivity: int = 1) -> DiscreteGaussianEvent:
    sigma = Fraction(gaussian_sigma(epsilon, DELTA, sensitivity))
    return DiscreteGaussianEvent(sigma, sensitivity, epsilon, DELTA, count)


def _lattice(epsilon: Fraction, count: int = 1, parts: int = 1) -> LatticeGaussianEvent:
    scale = Fraction(gaussian_sigma(epsilon, DELTA)) * 1024
    return LatticeGaussianEvent(2**20 // parts, (scale,) * parts, epsilon, DELTA, count)


EPSILONS = st.integers(1, 300).map(lambda n: Fraction(n, 100))
EVENTS = st.one_of(
    st.builds(DiscreteLaplaceEvent, EPSILONS, st.integers(1, 4)),
    st.builds(_gaussian, EPSILONS, st.integers(1, 4), st.integers(1, 9)),
    st.builds(_lattice, EPSILONS, st.integers(1, 4), st.integers(1, 3)),
)
BUDGETS = st.builds(
    Budget,
    st.just("b"),
    st.just("dau"),
    st.just("2026-01"),
    st.sampled_from(FilterName),
    EPSILONS,
    st.sampled_from([DELTA, 5 * DELTA]),
    st.integers(1, 3),
)


@given(budget=BUDGETS, events=st.lists(EVENTS, max_size=30))
def test_what_was_taken_never_exceeds_the_cap(budget: Budget, events: list[DpEvent]) -> None:
    """Whatever is asked for, in whatever order, the exact sum of what fitted is within the cap."""
    taken: list[DpEvent] = []
    for event in events:
        if fits(budget, total_cost(taken), event):
            taken.append(event)
    spent, cap = total_cost(taken), budget.cap()
    if budget.filter_name is FilterName.BASIC:
        assert sum(e.epsilon * e.count for e in taken) == spent.epsilon <= cap.epsilon
        assert spent.delta <= cap.delta
    else:
        assert spent.rho <= cap.rho
        assert zcdp_epsilon(spent.rho, budget.delta) <= budget.guarantee()[0]


@given(events=st.lists(EVENTS, max_size=12), data=st.data())
def test_order_does_not_matter(events: list[DpEvent], data: st.DataObject) -> None:
    """Costs are exact, so every order of the same charges costs the same."""
    shuffled = data.draw(st.permutations(events))
    assert total_cost(events) == total_cost(shuffled)


@given(budget=BUDGETS, event=EVENTS)
def test_exactly_floor_of_cap_over_cost_charges_fit(budget: Budget, event: DpEvent) -> None:
    """One after the other, as many fit as divide the cap, and `charges_left` counts them down."""
    cap, cost = budget.cap(), cost_of(event)
    if budget.filter_name is FilterName.ZCDP:
        expected = cap.rho // cost.rho
    else:
        expected = cap.epsilon // cost.epsilon
        if cost.delta:
            expected = min(expected, cap.delta // cost.delta)
    assert expected == charges_left(budget, Cost(), event)
    expected = min(expected, 50)
    for taken in range(expected):
        assert fits(budget, cost * taken, event)
    if expected < 50:
        assert not fits(budget, cost * expected, event)
        assert 0 == charges_left(budget, cost * expected, event)


@given(budget=BUDGETS, event=EVENTS, events=st.lists(EVENTS, max_size=10))
def test_charges_left_agrees_with_fits(
    budget: Budget, event: DpEvent, events: list[DpEvent]
) -> None:
    """After any spending, even beyond the cap, at least one is left exactly when one fits."""
    spent = total_cost(events)
    assert fits(budget, spent, event) == (charges_left(budget, spent, event) > 0)


@given(event=EVENTS, count=st.integers(1, 50))
def test_repetitions_cost_what_single_charges_cost(event: DpEvent, count: int) -> None:
    """One event of count n costs n events of count 1."""
    once = type(event).__dataclass_fields__
    single = type(event)(**{n: 1 if n == "count" else getattr(event, n) for n in once})
    many = type(event)(**{n: count if n == "count" else getattr(event, n) for n in once})
    assert total_cost([single] * count) == cost_of(many)


def test_default_budgets_hold_what_the_settings_promise() -> None:
    """DAU 3.0 in steps of 0.3 is ten releases; MAU 3.5 in steps of (0.5, 1e-6) is 36."""
    checks.filters_hold_the_cap()


def test_calibrated_gaussians_fill_a_cap_exactly() -> None:
    """One release calibrated to the whole cap fits, and leaves room for nothing."""
    budget = _budget(epsilon="3")
    whole = _gaussian(Fraction(3))
    assert fits(budget, Cost(), whole)
    assert not fits(budget, cost_of(whole), _gaussian(Fraction(1, 10)))


def test_a_pure_budget_takes_no_delta() -> None:
    """Under basic composition with δ = 0 only pure ε fits."""
    budget = _budget(FilterName.BASIC, "3", Fraction(0))
    assert fits(budget, Cost(), DiscreteLaplaceEvent(Fraction(3)))
    assert not fits(budget, Cost(), _gaussian(Fraction(1, 2)))
    assert 0 == charges_left(budget, Cost(), _gaussian(Fraction(1, 2)))


def test_a_pure_event_costs_half_epsilon_squared() -> None:
    """Under zCDP a discrete Laplace release of 0.3 costs 9/200."""
    assert Cost(Fraction(3, 10), Fraction(0), Fraction(9, 200)) == cost_of(
        DiscreteLaplaceEvent(Fraction(3, 10))
    )


def test_an_event_that_claims_too_little_is_refused() -> None:
    """Noise that does not keep the stated (ε, δ) fits no budget, however much is left."""
    honest = _gaussian(Fraction(1))
    liar = DiscreteGaussianEvent(honest.sigma, 1, Fraction(99, 100), DELTA)
    check_claim(honest)
    for budget in (_budget(), _budget(FilterName.BASIC)):
        assert fits(budget, Cost(), honest)
        with pytest.raises(UnsupportedMechanismError, match="rho"):
            fits(budget, Cost(), liar)
        with pytest.raises(UnsupportedMechanismError, match="rho"):
            charges_left(budget, Cost(), liar)


def test_an_unknown_event_has_no_cost() -> None:
    """A kind that nothing here can account for is refused, not ignored."""

    @dataclass(frozen=True)
    class Staircase:
        count: int = 1

    event: Any = Staircase()
    with pytest.raises(UnsupportedMechanismError, match="Staircase"):
        cost_of(event)
    with pytest.raises(UnsupportedMechanismError, match="Staircase"):
        fits(_budget(), Cost(), event)


def test_a_grant_adds_one_allowance() -> None:
    """Twice the ρ, not twice the ε under zcdp; twice the ε under basic."""
    granted = _budget().granted()
    assert 2 == granted.allowances
    assert 2 * rho_cap(Fraction(7, 2), DELTA) == granted.cap().rho
    epsilon, delta = granted.guarantee()
    assert 3.5 < epsilon < 7.0
    assert 1e-6 == delta
    assert zcdp_epsilon(granted.cap().rho, DELTA) == epsilon
    basic = _budget(FilterName.BASIC, "3").granted().granted()
    assert (9.0, 3e-6) == basic.guarantee()


def test_one_allowance_guarantees_the_cap() -> None:
    """The guarantee of an ungranted budget is the promised pair itself."""
    assert (3.5, 1e-6) == _budget().guarantee()
    assert (3.0, 0.0) == _budget(FilterName.BASIC, "3", Fraction(0)).guarantee()


def test_spent_and_remaining_for_the_reader() -> None:
    """Basic amounts are exact decimals; zcdp amounts convert; both end at 0 when full."""
    basic = _budget(FilterName.BASIC, "3", Fraction(0))
    spent = total_cost([DiscreteLaplaceEvent(Fraction(3, 10))] * 3)
    assert (0.9, 2.1) == (epsilon_spent(basic, spent), epsilon_remaining(basic, spent))
    zcdp = _budget()
    one = cost_of(_gaussian(Fraction(1, 2)))
    assert (0.5, 3.0) == (epsilon_spent(zcdp, one), epsilon_remaining(zcdp, one))
    for budget in (basic, zcdp):
        assert (0.0, budget.guarantee()[0]) == (
            epsilon_spent(budget, Cost()),
            epsilon_remaining(budget, Cost()),
        )
        full = budget.cap()
        assert budget.guarantee()[0] == epsilon_spent(budget, full)
        assert 0.0 == epsilon_remaining(budget, full)
        assert 0.0 == epsilon_remaining(budget, full * 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"epsilon": Fraction(0)},
        {"epsilon": Fraction(1001)},
        {"delta": Fraction(0)},
        {"delta": Fraction(1)},
        {"delta": Fraction(-1, 10), "filter_name": FilterName.BASIC},
        {"allowances": 0},
        {"allowances": ALLOWANCES_MAX + 1},
    ],
)
def test_a_budget_out_of_range_is_refused(fields: dict[str, Any]) -> None:
    """Caps that cannot be converted, and endless grants."""
    good: dict[str, Any] = {
        "budget_id": "b",
        "metric": "mau",
        "period": "2026-01",
        "filter_name": FilterName.ZCDP,
        "epsilon": Fraction(3),
        "delta": DELTA,
    }
    with pytest.raises(InvalidPlanError):
        Budget(**(good | fields))


def test_a_lattice_event_costs_every_mechanism_that_one_user_reaches() -> None:
    """Everyone and one part are added up, and the sum must be within the claimed (ε, δ)."""
    cap = rho_cap(Fraction(3), DELTA)
    half = LatticeGaussianEvent(1, (Fraction(5),) * 2, Fraction(3), DELTA)
    twice = LatticeGaussianEvent(1, (Fraction(2),) * 2, Fraction(3), DELTA)

    assert Cost(Fraction(3), DELTA, Fraction(1, 25)) == cost_of(half)
    check_claim(half)
    assert twice.rhos[0] < cap < twice.rho
    with pytest.raises(UnsupportedMechanismError, match="Expected rho"):
        check_claim(twice)
    assert cap // Fraction(1, 25) == charges_left(_budget(epsilon="3"), Cost(), half)
