"""Budgets as the ledger knows them."""

from fractions import Fraction
from pathlib import Path

import pytest

from dpdau.accounting.budget import Cost, total_cost
from dpdau.accounting.events import DpEvent
from dpdau.ledger.budgets import budget_id_of, budget_of, refusal_block, spent_of
from dpdau.ledger.engine import Database
from simulation.ledger_cases import (
    budget,
    gaussian,
    laplace,
    open_ledger,
    spend,
    url_of,
    zcdp_budget,
)


def test_no_events_cost_nothing() -> None:
    """The sum over nothing is zero in every unit."""
    assert Cost() == total_cost(())


@pytest.mark.parametrize("times", [1, 2, 7])
def test_costs_add_up_exactly(times: int) -> None:
    """A third and a seventh add up without rounding."""
    events: tuple[DpEvent, ...] = (laplace("1/3"), laplace("1/7")) * times

    assert Fraction(10, 21) * times == total_cost(events).epsilon


def test_equal_charges_are_added_up_exactly(tmp_path: Path) -> None:
    """The sum that enforces is the sum of the events, however often each came."""
    ledger = open_ledger(tmp_path)
    for number, epsilon in enumerate(["1/3", "1/7", "1/3", "1/3", "1/7", "1/9"]):
        spend(ledger, f"plan-{number}", epsilon=epsilon)
    state = ledger.budget_state(budget())
    ledger.close()
    database = Database(url_of(tmp_path), busy_timeout_seconds=1)
    enforced = database.run("spent", lambda one: spent_of(one, "dau:2026-02"), write=False)
    database.close()

    assert Fraction(88, 63) == enforced.epsilon
    assert (state.spent, total_cost(state.events)) == (enforced, enforced)


def test_a_budget_reads_back_as_it_opened() -> None:
    """The stored columns give the same budget, with one allowance."""
    row = {
        "budget_id": budget_id_of("mau", "2026-02"),
        "metric": "mau",
        "period": "2026-02",
        "filter": "zcdp",
        "epsilon": "3/1",
        "delta": "1/1000000",
    }

    assert zcdp_budget() == budget_of(row)


def test_refusal_rounds_costs_up_and_the_rest_down() -> None:
    """What a refusal shows never promises more than there is."""
    block = refusal_block(budget(cap="1"), Cost(Fraction(1, 3)), Cost(Fraction(2, 3)))

    assert {"epsilon": 0.333333334, "delta": 0.0} == block["spent"]
    assert {"epsilon": 0.666666667, "delta": 0.0} == block["requested"]
    assert {"epsilon": 0.666666666, "delta": 0.0} == block["remaining"]


def test_refusal_of_a_zcdp_budget_speaks_of_rho() -> None:
    """A block is in the units of its filter, and what is left is never negative."""
    event = gaussian(sigma="1")

    block = refusal_block(zcdp_budget(), Cost(rho=Fraction(99)), total_cost((event,)))

    assert {"rho": 0.5} == block["requested"]
    assert {"rho": 0.0} == block["remaining"]
    assert "zcdp" == block["filter"]
