"""Bugs planted in the month plans of the ledger: each sets a check off, the product sets off none.

Each check plays a short month and says what is wrong, in the codes of the audit where it can.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, exc, func, select

import dpdau.ledger.ledger as ledgers
import dpdau.ledger.steps as steps
from dpdau.accounting.budget import Cost
from dpdau.domain import Release
from dpdau.errors import (
    BudgetExhaustedError,
    InvalidPlanError,
    NotFoundError,
    StoreCorruptError,
)
from dpdau.ledger import Ledger
from dpdau.ledger.chain import Chain
from dpdau.ledger.tables import grants
from simulation.ledger_cases import (
    DAY_STEPS,
    DIGEST,
    day_releases,
    folder_in_memory,
    lattice,
    open_ledger,
    open_month,
    open_request,
    plan_budget,
    raw_sql,
    take,
)

Patch = pytest.MonkeyPatch
PLAN_ID = "plan-2026-02"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder in memory."""
    with folder_in_memory() as folder:
        yield folder


def findings(ledger: Ledger) -> set[str]:
    """What the audit finds."""
    return {one.code for one in ledger.verify().findings}


def takes(ledger: Ledger, plan_id: str) -> bool:
    """Whether the ledger opens a plan of which an allowance holds one."""
    asked = open_request(plan_id, held=plan_budget(cap="1"), event=lattice("7"))
    try:
        return ledger.open_plan(asked)
    except BudgetExhaustedError:
        return False


def charge_problem(ledger: Ledger) -> set[str]:
    """A plan that was opened was charged."""
    try:
        open_month(ledger, days=1)
    except NotFoundError:
        return findings(ledger) | {"lost"}
    return findings(ledger)


def cap_problem(ledger: Ledger) -> set[str]:
    """One allowance pays for one plan, two allowances for two."""
    taken = [takes(ledger, "a"), takes(ledger, "b")]
    ledger.grant("plan", "2026-02", actor="ada", reason="more")
    taken += [takes(ledger, "b"), takes(ledger, "c")]
    return findings(ledger) | ({"taken"} if taken != [True, False, True, False] else set())


def commitment_problem(ledger: Ledger) -> set[str]:
    """Nothing is released before the noise is committed, and no noise takes its place."""
    ledger.open_plan(open_request())
    found = set()
    try:
        take(ledger, 0)
        found.add("released")
    except InvalidPlanError:
        pass
    ledger.commit_noise(PLAN_ID, DIGEST)
    try:
        ledger.commit_noise(PLAN_ID, DIGEST[::-1])
        found.add("drawn twice")
    except StoreCorruptError:
        pass
    return found | findings(ledger)


def order_problem(ledger: Ledger) -> set[str]:
    """Days are made once, in order, and no more of them than were paid for."""
    open_month(ledger, days=1)
    found = set()
    for index in (0, 2, 1, 2, 3, 4):
        made: list[int] = []

        def make(index: int = index, made: list[int] = made) -> list[Release]:
            made.append(index)
            return day_releases(index=index)

        try:
            ledger.take_day(PLAN_ID, index * DAY_STEPS, make)
        except (InvalidPlanError, exc.IntegrityError):
            found |= {f"made {one}" for one in made}
            continue
        found |= {f"made {one}" for one in made if one in (0, 4)}
    return found | findings(ledger)


CHECKS = {
    "charge": charge_problem,
    "cap": cap_problem,
    "commitment": commitment_problem,
    "order": order_problem,
}


def skipped_charge(patch: Patch) -> None:
    """The plan is appended, its charge is not."""
    append = Chain.append

    def skipping(self: Chain, kind: str, values: Any) -> int:
        return self.head.seq if kind == "charge" else append(self, kind, values)

    patch.setattr(Chain, "append", skipping)


def unchecked_charge(patch: Patch) -> None:
    """Every charge fits, for the database too."""
    patch.setattr(steps, "fits", lambda budget, spent, event: True)
    patch.setattr(steps, "post_balance", lambda *_: None)


def forgetful_grant(patch: Patch) -> None:
    """A grant gives an allowance and takes back what was spent, for the database too."""
    spent_of = steps.spent_of

    def since_grant(connection: Connection, budget_id: str) -> Cost:
        granted = connection.execute(select(func.count()).select_from(grants)).scalar_one()
        return Cost() if granted else spent_of(connection, budget_id)

    patch.setattr(steps, "spent_of", since_grant)
    patch.setattr(steps, "post_balance", lambda *_: None)


def release_before_commitment(patch: Patch) -> None:
    """A plan that is not committed to noise releases all the same."""
    found = steps.find_plan

    def committed(connection: Connection, plan_id: str) -> steps.StoredPlan | None:
        plan = found(connection, plan_id)
        return plan and replace(plan, commitment=plan.commitment or DIGEST)

    patch.setattr(steps, "find_plan", committed)


def replaced_commitment(patch: Patch) -> None:
    """Other noise may take the place of the noise that was committed to."""
    commit = steps.commit_noise

    def forgiving(chain: Chain, plan_id: str, digest: str) -> None:
        plan = steps.find_plan(chain.connection, plan_id)
        if plan is None or plan.commitment is None:
            commit(chain, plan_id, digest)

    patch.setattr(ledgers, "commit_noise", forgiving)


def any_order(patch: Patch) -> None:
    """Whatever step is asked for is made."""

    def careless(
        chain: Chain, plan_id: str, first_step: int, make: Callable[[], Sequence[Release]]
    ) -> tuple[tuple[Release, ...], bool]:
        return steps._store(chain, make(), plan_id, first_step=first_step), False

    patch.setattr(ledgers, "take_day", careless)


def endless_plan(patch: Patch) -> None:
    """A plan goes on after the last step that was paid for."""
    patch.setattr(steps, "releases_promised", lambda kind, body: 10**6)


PLANTED: dict[Callable[[Patch], None], tuple[str, str]] = {
    skipped_charge: ("charge", "plan_without_charge"),
    unchecked_charge: ("cap", "over_cap"),
    forgetful_grant: ("cap", "over_cap"),
    release_before_commitment: ("commitment", "release_without_commitment"),
    replaced_commitment: ("commitment", "drawn twice"),
    any_order: ("order", "step_out_of_order"),
    endless_plan: ("order", "step_not_paid"),
}


@pytest.mark.parametrize("check", sorted(CHECKS))
def test_the_product_sets_off_no_check(tmp_path: Path, check: str) -> None:
    """The ledger as it is charges, keeps its caps, its commitments and its order."""
    ledger = open_ledger(tmp_path)
    problem = CHECKS[check](ledger)
    ledger.close()

    assert set() == problem


@pytest.mark.parametrize("plant", PLANTED, ids=lambda one: one.__name__)
def test_each_planted_bug_is_found(
    tmp_path: Path, monkeypatch: Patch, plant: Callable[[Patch], None]
) -> None:
    """The check for it says what is wrong."""
    check, expected = PLANTED[plant]
    ledger = open_ledger(tmp_path)
    plant(monkeypatch)
    problem = CHECKS[check](ledger)
    ledger.close()

    assert expected in problem


def test_a_reset_that_deletes_charges_is_found(tmp_path: Path) -> None:
    """Rows that somebody takes out to spend again leave entries without rows."""
    ledger = open_ledger(tmp_path)
    open_month(ledger, days=1)
    raw_sql(tmp_path, "DELETE FROM charges", "DELETE FROM plans")
    found = findings(ledger)
    ledger.close()

    assert {"row_missing", "release_without_charge"} <= found
