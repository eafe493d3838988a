"""Hundreds of random sequences of charges against an auditor of its own; soaking, a thousand."""

import os
import random
from fractions import Fraction

import pytest

from dpdau.accounting.budget import Budget
from dpdau.accounting.calibration import rho_cap
from dpdau.accounting.events import DpEvent
from dpdau.errors import BudgetExhaustedError
from dpdau.ledger import Ledger
from simulation.auditor import Auditor
from simulation.ledger_cases import (
    budget,
    folder_in_memory,
    gaussian,
    laplace,
    open_ledger,
    raw_rows,
    release,
    request,
    zcdp_budget,
)

SEQUENCES = 1_000 if "DPDAU_SOAK" in os.environ else 400
REQUESTS_MAX = 6


def play(ledger: Ledger, seed: int) -> None:
    """One sequence in a month of its own: charges of any size, replays and grants."""
    rng = random.Random(seed)
    period = f"{2000 + seed // 12}-{seed % 12 + 1:02d}"
    pure = rng.random() < 0.5
    held = budget(period=period, cap="1") if pure else zcdp_budget(period=period, cap="1")
    auditor = Auditor(Fraction(1) if pure else rho_cap(held.epsilon, held.delta))
    for number in range(rng.randint(1, REQUESTS_MAX)):
        if rng.random() < 0.1:
            ledger.grant(held.metric, period, actor="ada", reason="drawn")
            auditor.grant()
        plan_id = f"{seed}-{rng.randint(0, number)}"
        event, cost = draw(rng, pure=pure)
        expected = auditor.must_take(plan_id, cost)
        assert expected == takes(ledger, plan_id, held, event), f"play(ledger, {seed})"


def draw(rng: random.Random, *, pure: bool) -> tuple[DpEvent, Fraction]:
    """A charge and its cost, from the numbers alone; often one that fits exactly."""
    if pure:
        epsilon = Fraction(rng.randint(1, 12), rng.choice([3, 7, 10, 12]))
        return laplace(str(epsilon)), epsilon
    if rng.random() < 0.5:
        epsilon = Fraction(rng.randint(1, 30), 100)
        return laplace(str(epsilon)), epsilon * epsilon / 2
    sigma = Fraction(rng.randint(30, 120), 10)
    return gaussian(sigma=str(sigma)), 1 / (2 * sigma * sigma)


def takes(ledger: Ledger, plan_id: str, held: Budget, event: DpEvent) -> bool:
    """Whether the ledger answers."""
    try:
        ledger.step(request(plan_id, held=held, event=event), lambda: release(plan_id))
    except BudgetExhaustedError:
        return False
    return True


@pytest.mark.slow
def test_no_sequence_of_charges_passes_its_cap() -> None:
    """Every request is taken or refused as the auditor says, and the whole history is sound."""
    with folder_in_memory() as folder:
        ledger = open_ledger(folder)
        for seed in range(SEQUENCES):
            play(ledger, seed)
        report, states = ledger.verify(), ledger.states()
        ledger.close()
        stored = raw_rows(folder, "SELECT count(*) FROM charges GROUP BY budget_id")

    assert () == report.problems
    assert report.charges == report.releases == sum(len(state.events) for state in states)
    over = [
        state.budget.budget_id
        for state in states
        if state.spent.rho > state.cap.rho > 0 or state.spent.epsilon > state.cap.epsilon > 0
    ]
    assert [] == over
    assert sorted(count for (count,) in stored) == sorted(len(state.events) for state in states)
    assert len(states) > SEQUENCES // 2
