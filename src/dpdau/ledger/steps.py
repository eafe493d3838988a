"""Plans, their charges and their steps, each in one transaction: all of it, or nothing.

A plan of kind `single` is charged in the transaction of its only release, one of kind `growth` in
that of its four. A plan of kind `month` is charged when it opens, commits to its noise, and then
releases day by day for no further charge; or all of that is one transaction.
"""

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, select

from dpdau.accounting.budget import Budget, cost_of, fits
from dpdau.accounting.events import Charge, DpEvent, from_json, to_json
from dpdau.domain import Release
from dpdau.domain import actor as who_acts
from dpdau.errors import (
    BudgetExhaustedError,
    InvalidPlanError,
    NotFoundError,
    StoreCorruptError,
)
from dpdau.ledger.budgets import (
    budget_id_of,
    open_budget,
    post_balance,
    refusal_block,
    spent_of,
)
from dpdau.ledger.canonical import canonical_text, release_from_json, release_to_json
from dpdau.ledger.chain import Chain
from dpdau.ledger.log import ABANDONED, append_audit
from dpdau.ledger.tables import audit, charges, commitments, plans, releases

SINGLE: Final = "single"
"""The kind of a plan with a horizon of one: its charge and its only release share a transaction."""
GROWTH: Final = "growth"
"""The kind of a plan whose charge and whose releases, of one day, share a transaction."""
AT_ONCE: Final = (SINGLE, GROWTH)
"""The kinds of plans that no charge is made for without all of their releases."""
MONTH: Final = "month"
"""The kind of a plan that is charged once for the releases of many days."""
LIVE: Final = "live"
"""The kind of a plan that is charged once for the ticks of many days, of which some are skipped."""
AHEAD: Final = (MONTH, LIVE)
"""The kinds of plans that are charged when they open and commit to their noise."""
DIGEST_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A plan, with what it costs.

    Args:
        plan_id: The idempotency key; a second request replays.
        plan_body: The frozen description of the plan, JSON-ready; kept as it was first sent. That
            of any but a single plan has `releases`, the number of steps that the charge pays for.
        budget: The budget as it would open; an open budget keeps its filter and caps.
        charge: What the plan costs that budget.
    """

    plan_id: str
    plan_body: Mapping[str, Any]
    budget: Budget
    charge: Charge


@dataclass(frozen=True, slots=True)
class StepRequest(OpenRequest):
    """The only step of a plan of kind `single`, with what the plan costs.

    Args:
        step: 0.
    """

    step: int


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A plan as the ledger has it.

    Args:
        body: As it was first sent.
        event: What was charged for it.
        commitment: The digest of its noise; None before it was committed to.
        steps_taken: The step after the last one that was released.
        abandoned: Whether it was given up: its charge stays, and no further step is taken.
    """

    plan_id: str
    kind: str
    body: Mapping[str, Any]
    event: DpEvent
    opened_at: dt.datetime
    commitment: str | None
    steps_taken: int
    abandoned: bool


def take_step(
    chain: Chain, request: StepRequest, make_release: Callable[[], Release]
) -> tuple[Release, bool]:
    """Replays the step if it was taken; else charges it, makes the release and stores both.

    Returns:
        The release as stored, and whether it is a replay.
    """
    if request.step != 0:
        raise InvalidPlanError(
            f"Expected step 0 of a plan with one step, found step {request.step}."
        )
    (release,), replayed = _take_at_once(chain, request, SINGLE, lambda: [make_release()])
    return release, replayed


def take_growth(
    chain: Chain, request: OpenRequest, make: Callable[[], Sequence[Release]]
) -> tuple[tuple[Release, ...], bool]:
    """Replays the steps of a growth plan if they were taken; else charges, makes and stores them.

    Returns:
        The releases as stored, and whether they are a replay.
    """
    return _take_at_once(chain, request, GROWTH, make)


def open_plan(chain: Chain, request: OpenRequest, kind: str) -> bool:
    """Charges a plan and appends it, or finds it there; says whether it was charged."""
    assert kind in AHEAD, "other plans are charged with their releases"
    assert releases_promised(kind, request.plan_body) >= 1, "a plan says what it pays for"
    return _charge(chain, request, kind)


def take_month(
    chain: Chain, request: OpenRequest, digest: str, make: Callable[[], Sequence[Release]]
) -> tuple[tuple[Release, ...], bool]:
    """Replays all days of a month plan if they were taken; else charges it, commits it to its
    noise, and makes and stores all of them.

    Returns:
        The releases as stored, and whether they are a replay.

    Raises:
        InvalidPlanError: The plan is open, and goes on day by day.
    """
    if not _charge(chain, request, MONTH):
        stored = _stored_month(chain.connection, request.plan_id)
        if stored is None:
            raise InvalidPlanError(
                f"Expected no plan {request.plan_id}, or one whose days are all taken, found one "
                "that goes on day by day."
            )
        return stored, True
    commit_noise(chain, request.plan_id, digest)
    # The refusal is behind us, so it cannot depend on the counts that are in what this makes.
    made = make()
    assert len(made) == releases_promised(MONTH, request.plan_body), "it has what was paid for"
    return _store(chain, made, request.plan_id, first_step=0), False


def find_plan(connection: Connection, plan_id: str) -> StoredPlan | None:
    """A plan with its charge, its commitment and how far it has come."""
    following = func.coalesce(func.max(releases.c.step) + 1, 0)
    taken = select(following).where(releases.c.plan_id == plan_id)
    statement = (
        select(plans, charges.c.dp_event, commitments.c.digest, taken.scalar_subquery())
        .join_from(plans, charges, plans.c.plan_id == charges.c.plan_id)
        .outerjoin(commitments, plans.c.plan_id == commitments.c.plan_id)
        .where(plans.c.plan_id == plan_id)
    )
    row = connection.execute(statement).one_or_none()
    if row is None:
        return None
    return StoredPlan(
        plan_id=row.plan_id,
        kind=row.kind,
        body=json.loads(row.body),
        event=from_json(json.loads(row.dp_event)),
        opened_at=dt.datetime.fromisoformat(row.opened_at),
        commitment=row.digest,
        steps_taken=row[-1],
        abandoned=plan_id in _abandoned(connection),
    )


def unfinished_months(connection: Connection) -> tuple[str, ...]:
    """The months whose plan is open and has releases to come, oldest first."""
    given_up = _abandoned(connection)
    taken = func.count(releases.c.seq)
    statement = (
        select(plans.c.plan_id, plans.c.body, taken)
        .join_from(plans, releases, plans.c.plan_id == releases.c.plan_id, isouter=True)
        .where(plans.c.kind == MONTH)
        .group_by(plans.c.plan_id, plans.c.body)
    )
    found = []
    for plan_id, text, steps_taken in connection.execute(statement):
        body = json.loads(text)
        if steps_taken < releases_promised(MONTH, body) and plan_id not in given_up:
            found.append(str(body["month"]))
    return tuple(sorted(found))


def abandon(chain: Chain, plan_id: str, *, actor: str, reason: str) -> None:
    """Gives up the rest of a month plan; its charge and its releases stay.

    Raises:
        NotFoundError: The plan is not open.
        InvalidPlanError: It is no month plan, it is at its end, or it was given up before.
    """
    plan = _plan_ahead(chain.connection, plan_id, (MONTH,))
    if plan.abandoned or plan.steps_taken >= releases_promised(plan.kind, plan.body):
        raise InvalidPlanError(f"Expected a plan that goes on, found {plan_id} at its end.")
    facts = {"plan_id": plan_id, "steps_taken": plan.steps_taken, "reason": reason}
    append_audit(chain, actor=actor, action=ABANDONED, facts=facts)


def _abandoned(connection: Connection) -> frozenset[str]:
    """The plans that were given up."""
    facts = connection.execute(select(audit.c.facts).where(audit.c.action == ABANDONED)).scalars()
    return frozenset(str(json.loads(one)["plan_id"]) for one in facts)


def commit_noise(chain: Chain, plan_id: str, digest: str) -> None:
    """Appends what the noise of a month plan is committed to; the same digest again is fine.

    Raises:
        NotFoundError, InvalidPlanError: There is no such month plan.
        StoreCorruptError: It was committed to other noise.
    """
    assert len(digest) == DIGEST_CHARACTERS and set(digest) <= set("0123456789abcdef")
    plan = _plan_ahead(chain.connection, plan_id, AHEAD)
    if plan.commitment is None:
        chain.append("commitment", {"plan_id": plan_id, "digest": digest, "at": chain.at})
    elif plan.commitment != digest:
        raise StoreCorruptError(
            f"Expected the noise that plan {plan_id} was committed to, found other noise: it was "
            "drawn twice, and the first was lost. Put the activity store back that held it."
        )


def take_day(
    chain: Chain, plan_id: str, first_step: int, make: Callable[[], Sequence[Release]]
) -> tuple[tuple[Release, ...], bool]:
    """Replays a day of a month plan if it was taken; else makes its releases and stores them.

    Returns:
        The releases of the day as stored, and whether they are a replay.
    """
    plan = _plan_ahead(chain.connection, plan_id, (MONTH,))
    if 0 <= first_step < plan.steps_taken:
        return _stored_day(chain.connection, plan_id, first_step), True
    if first_step != plan.steps_taken:
        raise InvalidPlanError(
            f"Expected step {plan.steps_taken} of plan {plan_id}, found step {first_step}: days "
            "are taken in order."
        )
    if plan.commitment is None:
        raise InvalidPlanError(f"Expected plan {plan_id} committed to its noise, found it open.")
    if plan.abandoned:
        raise InvalidPlanError(f"Expected a plan that goes on, found {plan_id} given up.")
    promised = releases_promised(plan.kind, plan.body)
    if first_step >= promised:
        raise InvalidPlanError(
            f"Expected a step within the {promised} that plan {plan_id} paid for, found "
            f"step {first_step}."
        )
    made = make()
    assert made and first_step + len(made) <= promised, "a day has what was paid for"
    assert len({one.window.end for one in made}) == 1, "a day's releases are of one day"
    return _store(chain, made, plan_id, first_step=first_step), False


def take_tick(
    chain: Chain, plan_id: str, step: int, make: Callable[[], Release]
) -> tuple[Release, bool]:
    """Replays a tick of a live plan if it was taken; else makes its release and stores it.

    Returns:
        The release as stored, and whether it is a replay.
    """
    plan = _plan_ahead(chain.connection, plan_id, (LIVE,))
    stored = chain.connection.execute(
        select(releases.c.body).where(releases.c.plan_id == plan_id, releases.c.step == step)
    ).scalar_one_or_none()
    if stored is not None:
        return release_from_json(stored), True
    promised = releases_promised(plan.kind, plan.body)
    if not plan.steps_taken <= step < promised:
        raise InvalidPlanError(
            f"Expected a step of {plan.steps_taken}..{promised - 1} of plan {plan_id}, found step "
            f"{step}: a tick that was skipped is never made up."
        )
    if plan.commitment is None:
        raise InvalidPlanError(f"Expected plan {plan_id} committed to its noise, found it open.")
    (release,) = _store(chain, [make()], plan_id, first_step=step)
    return release, False


def releases_promised(kind: str, body: Mapping[str, Any]) -> int:
    """How many releases the charge of a plan pays for."""
    return 1 if kind == SINGLE else int(body["releases"])


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


def _take_at_once(
    chain: Chain, request: OpenRequest, kind: str, make: Callable[[], Sequence[Release]]
) -> tuple[tuple[Release, ...], bool]:
    """All steps of a plan and its charge; or its replay."""
    if not _charge(chain, request, kind):
        return _stored_day(chain.connection, request.plan_id, first_step=0), True
    # The refusal is behind us, so it cannot depend on the counts that this call reads.
    made = make()
    assert len(made) == releases_promised(kind, request.plan_body), "it has what was paid for"
    assert len({one.window.end for one in made}) == 1, "the releases are of one day"
    return _store(chain, made, request.plan_id, first_step=0), False


def _charge(chain: Chain, request: OpenRequest, kind: str) -> bool:
    """Appends a plan and its charge if it is new and fits; opens the budget if needed.

    Returns:
        False if the plan is there: then nothing is charged.

    Raises:
        BudgetExhaustedError: It does not fit.
        InvalidPlanError: The plan exists under another budget, or as one of another kind: one id
            for two questions.
    """
    wanted = request.budget
    assert (
        wanted.budget_id == request.charge.budget_id == budget_id_of(wanted.metric, wanted.period)
    ), "a plan is charged to its own budget"
    if _is_open(chain.connection, request, kind):
        return False
    budget = open_budget(chain, wanted)
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
            "kind": kind,
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
    if kind in AHEAD:
        facts = {"plan_id": request.plan_id, "budget_id": budget.budget_id}
        append_audit(chain, actor=who_acts(), action="plan_opened", facts=facts)
    post_balance(chain.connection, budget, event)
    return True


def _is_open(connection: Connection, request: OpenRequest, kind: str) -> bool:
    """Whether this plan is there."""
    statement = select(plans.c.budget_id, plans.c.kind).where(plans.c.plan_id == request.plan_id)
    row = connection.execute(statement).one_or_none()
    if row is None:
        return False
    if (row.budget_id, row.kind) != (request.budget.budget_id, kind):
        raise InvalidPlanError(
            f"Expected plan {request.plan_id!r} of kind {row.kind} under budget {row.budget_id}, "
            f"found kind {kind} under {request.budget.budget_id}."
        )
    return True


def _plan_ahead(connection: Connection, plan_id: str, kinds: Sequence[str]) -> StoredPlan:
    """A plan of one of some kinds, which must be there.

    Raises:
        NotFoundError: It is not.
        InvalidPlanError: It is of another kind.
    """
    found = find_plan(connection, plan_id)
    if found is None:
        raise NotFoundError(f"Expected an open plan {plan_id!r}, found none.")
    if found.kind not in kinds:
        expected = " or ".join(kinds)
        raise InvalidPlanError(f"Expected a plan of kind {expected}, found kind {found.kind}.")
    return found


def _stored_day(connection: Connection, plan_id: str, first_step: int) -> tuple[Release, ...]:
    """The releases of the day that begins at a step that was taken.

    Raises:
        InvalidPlanError: The step is inside a day.
    """
    of_plan = releases.c.plan_id == plan_id
    day = select(releases.c.day).where(of_plan, releases.c.step == first_step).scalar_subquery()
    statement = (
        select(releases.c.step, releases.c.body)
        .where(of_plan, releases.c.day == day)
        .order_by(releases.c.step)
    )
    rows = connection.execute(statement).all()
    assert rows, "a step that was taken is stored"
    if rows[0].step != first_step:
        raise InvalidPlanError(
            f"Expected the first step of a day, {rows[0].step}, found step {first_step}."
        )
    return tuple(release_from_json(row.body) for row in rows)


def _stored_month(connection: Connection, plan_id: str) -> tuple[Release, ...] | None:
    """The releases of a month plan, or None where some are to come."""
    plan = find_plan(connection, plan_id)
    assert plan is not None and plan.kind == MONTH, "a plan that was found is there"
    if plan.steps_taken < releases_promised(MONTH, plan.body):
        return None
    of_plan = select(releases.c.body).where(releases.c.plan_id == plan_id)
    rows = connection.execute(of_plan.order_by(releases.c.step)).scalars()
    return tuple(release_from_json(one) for one in rows)


def _store(
    chain: Chain, made: Sequence[Release], plan_id: str, *, first_step: int
) -> tuple[Release, ...]:
    """Appends the releases of a plan, step after step, and gives back what their bytes say."""
    stored = []
    for step, release in enumerate(made, start=first_step):
        assert release.plan_id == plan_id, "a release names its plan"
        assert release.step == step, "a release names its step"
        body = release_to_json(release)
        again = release_from_json(body)
        row = {**release_columns(again), "body": body.decode("ascii"), "at": chain.at}
        chain.append("release", row)
        stored.append(again)
    return tuple(stored)
