"""What every ledger promises about live plans, whatever database is behind it."""

from dataclasses import replace
from fractions import Fraction

import pytest

from dpdau.accounting.events import Charge
from dpdau.domain import Figure, NeighboringRelation, Release
from dpdau.errors import BudgetExhaustedError, InvalidPlanError, NotFoundError
from dpdau.ledger import Ledger, release_to_json
from dpdau.ledger.steps import LIVE, OpenRequest
from simulation.ledger_cases import DIGEST, day_releases, lattice, open_request, plan_budget
from simulation.ledger_cases import release as single

PLAN_ID = "live-2026-02"
BUDGET = replace(plan_budget(), budget_id="live:2026-02", metric="live")


def opening(plan_id: str = PLAN_ID, *, ticks: int = 6) -> OpenRequest:
    """A live plan of some ticks."""
    charge = Charge(BUDGET.budget_id, lattice(), NeighboringRelation.ADD_OR_REMOVE_ONE)
    return OpenRequest(plan_id, {"releases": ticks}, BUDGET, charge)


def opened(ledger: Ledger) -> Ledger:
    """A ledger with a live plan that is committed to its noise."""
    assert ledger.open_plan(opening(), LIVE)
    ledger.commit_noise(PLAN_ID, DIGEST)
    return ledger


def tick(step: int, estimate: int = 7) -> Release:
    """A number of the plan."""
    made = single(PLAN_ID, estimate=estimate)
    return replace(
        made, release_id=f"rel-{step}-{estimate}", step=step, metric=Figure.LIVE, status="live"
    )


def take(ledger: Ledger, step: int, estimate: int = 7) -> tuple[Release, bool]:
    """Takes a tick."""
    return ledger.take_tick(PLAN_ID, step, lambda: tick(step, estimate))


def test_ticks_are_taken_in_order_and_may_be_skipped(ledger: Ledger) -> None:
    """One charge; a tick that was taken is replayed, one that was skipped is never made up."""
    opened(ledger)
    again = ledger.open_plan(opening(), LIVE)
    made = [take(ledger, step) for step in (1, 2, 4)]
    replay = take(ledger, 2, estimate=99)

    assert [(tick(step), False) for step in (1, 2, 4)] == made
    assert (release_to_json(tick(2)), True) == (release_to_json(replay[0]), replay[1])
    for step in (0, 3, 6, -1):
        with pytest.raises(InvalidPlanError):
            take(ledger, step)
    stored, report = ledger.find_plan(PLAN_ID), ledger.verify()
    assert stored is not None
    assert (False, 5, "live", DIGEST) == (again, stored.steps_taken, stored.kind, stored.commitment)
    assert (1, 3, True) == (report.charges, report.releases, report.ok)
    assert () == ledger.unfinished_months()


def test_a_tick_needs_a_plan_and_a_commitment(ledger: Ledger) -> None:
    """Without the plan, the commitment or the right kind of plan nothing is made."""
    with pytest.raises(NotFoundError):
        take(ledger, 0)
    ledger.open_plan(opening(), LIVE)
    with pytest.raises(InvalidPlanError):
        take(ledger, 0)
    ledger.open_plan(open_request())
    ledger.commit_noise("plan-2026-02", DIGEST)
    with pytest.raises(InvalidPlanError):
        ledger.take_tick("plan-2026-02", 0, lambda: tick(0))
    ledger.commit_noise(PLAN_ID, DIGEST)
    with pytest.raises(InvalidPlanError):
        ledger.take_day(PLAN_ID, 0, lambda: day_releases(PLAN_ID))


def test_a_second_live_plan_of_a_month_does_not_fit(ledger: Ledger) -> None:
    """The budget of the month is the charge of one plan; kinds of plans are not mixed."""
    tight = replace(BUDGET, epsilon=Fraction(3, 4))
    first = replace(opening(), budget=tight)
    assert ledger.open_plan(first, LIVE)
    spent = ledger.budget_state(tight).spent.rho
    second = replace(opening("live-2"), budget=tight)
    with pytest.raises(BudgetExhaustedError):
        ledger.open_plan(second, LIVE)
    with pytest.raises(InvalidPlanError):
        ledger.open_plan(first)

    assert spent == lattice().rho
