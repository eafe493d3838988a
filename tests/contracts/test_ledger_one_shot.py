"""What every ledger promises about a month that is charged and released in one transaction."""

from collections.abc import Sequence
from fractions import Fraction

import pytest

from dpdau.domain import Release
from dpdau.errors import BudgetExhaustedError, InvalidPlanError
from dpdau.ledger import Ledger
from simulation.ledger_cases import DIGEST, day_releases, lattice, open_request, plan_budget, take


def month(days: int = 4) -> list[Release]:
    """The releases of a small month."""
    return [one for index in range(days) for one in day_releases(index=index)]


def never() -> Sequence[Release]:
    """Fails whoever makes releases where none are due."""
    raise AssertionError("nothing may be made")


def test_a_month_is_charged_committed_and_released_at_once(ledger: Ledger) -> None:
    """One call leaves a complete plan; a second one replays it and makes nothing."""
    made = ledger.take_month(open_request(), DIGEST, month)
    again = ledger.take_month(open_request(), "0" * 64, never)

    stored, report = ledger.find_plan("plan-2026-02"), ledger.verify()
    assert (tuple(month()), False) == made
    assert (tuple(month()), True) == again
    assert stored is not None and (DIGEST, 12) == (stored.commitment, stored.steps_taken)
    assert (report.ok, 1, 12) == (True, report.charges, report.releases)
    assert () == ledger.unfinished_months()


def test_what_fails_while_it_is_made_charges_nothing(ledger: Ledger) -> None:
    """Neither the plan nor its budget is there, and the next one goes through."""
    with pytest.raises(AssertionError, match="nothing may be made"):
        ledger.take_month(open_request(), DIGEST, never)
    with pytest.raises(AssertionError, match="paid for"):
        ledger.take_month(open_request(), DIGEST, lambda: month(3))

    assert ledger.find_plan("plan-2026-02") is None
    assert Fraction(0) == ledger.budget_state(plan_budget()).spent.rho
    assert not ledger.take_month(open_request(), DIGEST, month)[1]


def test_a_plan_that_goes_on_day_by_day_is_not_replaced(ledger: Ledger) -> None:
    """Open, committed or half taken, it is refused; at its end it is replayed."""
    ledger.open_plan(open_request())
    for index in range(4):
        with pytest.raises(InvalidPlanError, match="goes on day by day"):
            ledger.take_month(open_request(), DIGEST, never)
        ledger.commit_noise("plan-2026-02", DIGEST)
        take(ledger, index)
    assert ledger.take_month(open_request(), DIGEST, never) == (tuple(month()), True)


def test_a_charge_that_does_not_fit_makes_nothing(ledger: Ledger) -> None:
    """The refusal comes before the releases are asked for."""
    with pytest.raises(BudgetExhaustedError):
        ledger.take_month(open_request(event=lattice("1")), DIGEST, never)
    assert ledger.find_plan("plan-2026-02") is None
