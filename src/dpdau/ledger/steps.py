"""The one transaction of a release: check, charge, noise and number, or nothing at all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from dpdau.accounting.budget import Budget, cost_of, fits
from dpdau.accounting.events import Charge, to_json
from dpdau.domain import Release
from dpdau.errors import BudgetExhaustedError, InvalidPlanError
from dpdau.ledger.budgets import (
    budget_id_of,
    open_budget,
    refusal_block,
    spent_of,
)
from dpdau.ledger.canonical import canonical_text, release_from_json, release_to_json
from dpdau.ledger.chain import Chain
from dpdau.ledger.tables import plans, releases

SINGLE: Final = "single"
"""The kind of a plan with a horizon of one: its charge and its only release share a transaction."""


@dataclass(frozen=True, slots=True)
class StepRequest:
    """One step of a plan, with what the plan costs.

    Args:
        plan_id: The idempotency key, made from the question; a second request replays.
        step: 0, the only step of a plan of kind `single`.
        plan_body: The frozen description of the plan, JSON-ready; kept as it was first sent.
        budget: The budget as it would open; an open budget keeps its filter and caps.
        charge: What the plan costs that budget.
    """

    plan_id: str
    step: int
    plan_body: Mapping[str, Any]
    budget: Budget
    charge: Charge


def take_step(
    chain: Chain, request: StepRequest, make_release: Callable[[], Release]
) -> tuple[Release, bool]:
    """Replays the step if it was taken; else charges it, makes the release and stores both.

    Returns:
        The release as stored, and whether it is a replay.
    """
    budget = request.budget
    assert (
        budget.budget_id == request.charge.budget_id == budget_id_of(budget.metric, budget.period)
    ), "a plan is charged to its own budget"
    if request.step != 0:
        raise InvalidPlanError(
            f"Expected step 0 of a plan with one step, found step {request.step}."
        )
    stored = _find_step(chain.connection, request)
    if stored is not None:
        return release_from_json(stored), True
    _charge(chain, request)
    # The refusal is behind us, so it cannot depend on the count that this call reads.
    body = _checked_body(make_release(), request)
    return _store(chain, body), False


def release_columns(release: Release) -> dict[str, Any]:
    """The columns by which a stored release is found; its `body` holds the same values."""
    return {
        "release_id": release.release_id,
        "plan_id": release.plan_id,
        "step": release.step,
        "metric": release.metric.value,
        "day": release.window.end.isoformat(),
        "window_days": release.window.days,
        "segment": None if release.segment is None else str(release.segment),
    }


def _find_step(connection: Connection, request: StepRequest) -> str | None:
    """The stored bytes of this step, if it was taken.

    Raises:
        InvalidPlanError: The plan exists under another budget: one id for two questions.
    """
    statement = (
        select(plans.c.budget_id, releases.c.body)
        .join_from(plans, releases, plans.c.plan_id == releases.c.plan_id)
        .where(plans.c.plan_id == request.plan_id, releases.c.step == request.step)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    if row.budget_id != request.budget.budget_id:
        raise InvalidPlanError(
            f"Expected plan {request.plan_id!r} under budget {row.budget_id}, found it under "
            f"{request.budget.budget_id}."
        )
    return str(row.body)


def _charge(chain: Chain, request: StepRequest) -> None:
    """Opens the budget if needed, and appends the plan and its charge if the charge fits.

    Raises:
        BudgetExhaustedError: It does not fit.
    """
    budget = open_budget(chain, request.budget)
    spent = spent_of(chain.connection, budget.budget_id)
    event = request.charge.dp_event
    if not fits(budget, spent, event):
        raise BudgetExhaustedError(
            f"Expected a charge that fits the budget {budget.budget_id}, found one that does not: "
            "nothing was charged.",
            budget=refusal_block(budget, spent, cost_of(event)),
        )
    chain.append(
        "plan",
        {
            "plan_id": request.plan_id,
            "kind": SINGLE,
            "body": canonical_text(dict(request.plan_body)),
            "budget_id": budget.budget_id,
            "opened_at": chain.at,
        },
    )
    chain.append(
        "charge",
        {
            "plan_id": request.plan_id,
            "budget_id": budget.budget_id,
            "dp_event": canonical_text(to_json(event)),
            "neighboring_relation": request.charge.neighboring_relation.value,
            "at": chain.at,
        },
    )


def _checked_body(release: Release, request: StepRequest) -> bytes:
    """The bytes to store for a release that is the one that was asked for."""
    assert release.plan_id == request.plan_id, "a release names its plan"
    assert release.step == request.step, "a release names its step"
    return release_to_json(release)


def _store(chain: Chain, body: bytes) -> Release:
    """Appends a release and gives back what its bytes say."""
    release = release_from_json(body)
    row = {**release_columns(release), "body": body.decode("ascii"), "at": chain.at}
    chain.append("release", row)
    return release
