"""Budgets as the ledger knows them: opened, granted, spent."""

import datetime as dt
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from dpdau.accounting.budget import Budget, Cost, FilterName, cost_of, total_cost
from dpdau.accounting.calibration import round_epsilon_down, round_epsilon_up
from dpdau.accounting.events import DpEvent, from_json
from dpdau.ledger.canonical import fraction_text
from dpdau.ledger.chain import Chain
from dpdau.ledger.tables import PARTS, balances, budgets, charges, grants, plans, releases


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget and what became of it.

    Args:
        budget: As it opened, or as it would open, with every allowance that was granted.
        opened_at: None while nothing was charged.
        events: What was charged, in order.
        spent: The exact sum of the events, in the units of both filters.
        cap: The most that may be spent, in the filter's own units; 0 in the others.
        remaining: cap − spent in the filter's own units; 0 in the others.
        release_count: Numbers that were released under this budget.
    """

    budget: Budget
    opened_at: dt.datetime | None
    events: tuple[DpEvent, ...]
    spent: Cost
    cap: Cost
    remaining: Cost
    release_count: int

    @property
    def allowances(self) -> int:
        """1 and one more for each grant."""
        return self.budget.allowances


def budget_id_of(metric: str, period: str) -> str:
    """The key of a budget.

    Example:
        >>> budget_id_of("dau", "2026-02")
        'dau:2026-02'
    """
    return f"{metric}:{period}"


def open_budget(chain: Chain, wanted: Budget) -> Budget:
    """The open budget; opens it as wanted if it is not. Later settings do not change it."""
    found = _find(chain.connection, wanted.budget_id)
    if found is None:
        chain.append(
            "budget",
            {
                "budget_id": wanted.budget_id,
                "metric": wanted.metric,
                "period": wanted.period,
                "filter": wanted.filter_name.value,
                "epsilon": fraction_text(wanted.epsilon),
                "delta": fraction_text(wanted.delta),
                "opened_at": chain.at,
            },
        )
        found = _find(chain.connection, wanted.budget_id)
        assert found is not None, "a budget that was opened is open"
    allowances = count_allowances(chain.connection, wanted.budget_id)
    return replace(budget_of(found), allowances=allowances)


def budget_of(row: dict[str, Any]) -> Budget:
    """A budget as it opened, with one allowance."""
    return Budget(
        budget_id=row["budget_id"],
        metric=row["metric"],
        period=row["period"],
        filter_name=FilterName(row["filter"]),
        epsilon=Fraction(row["epsilon"]),
        delta=Fraction(row["delta"]),
    )


def count_allowances(connection: Connection, budget_id: str) -> int:
    """1 and one more for each grant."""
    count = select(func.count()).select_from(grants).where(grants.c.budget_id == budget_id)
    return 1 + connection.execute(count).scalar_one()


def events_of(connection: Connection, budget_id: str) -> tuple[DpEvent, ...]:
    """Everything that was charged to a budget, in order."""
    statement = (
        select(charges.c.dp_event).where(charges.c.budget_id == budget_id).order_by(charges.c.seq)
    )
    return tuple(from_json(json.loads(one)) for one in connection.execute(statement).scalars())


def spent_of(connection: Connection, budget_id: str) -> Cost:
    """The exact sum of what was charged to a budget; equal events are read once."""
    statement = (
        select(charges.c.dp_event, func.count())
        .where(charges.c.budget_id == budget_id)
        .group_by(charges.c.dp_event)
    )
    groups = connection.execute(statement).all()
    return sum((cost_of(from_json(json.loads(text))) * times for text, times in groups), Cost())


def post_balance(connection: Connection, budget: Budget, event: DpEvent) -> None:
    """Adds a charge, which is appended already, to the sum that the database keeps of its budget.

    Guarantee: the addition is the database's own and under its CHECK, so the budget is not
    overspent even where what was read before was old. A ledger of an earlier version gets its sum
    with its next charge.
    """
    held = balances.c.budget_id == budget.budget_id
    more = {"allowances": budget.allowances, "spent": balances.c.spent + _parts(budget, event)}
    if connection.execute(update(balances).where(held).values(more)).rowcount:
        return
    spent = sum(_parts(budget, one) for one in events_of(connection, budget.budget_id))
    row = {"budget_id": budget.budget_id, "allowances": budget.allowances, "spent": spent}
    connection.execute(insert(balances), row)


def state_of(connection: Connection, wanted: Budget) -> BudgetState:
    """The state of a budget that is open, or would open as wanted."""
    row = _find(connection, wanted.budget_id)
    opened = wanted if row is None else budget_of(row)
    budget = replace(opened, allowances=count_allowances(connection, wanted.budget_id))
    events = events_of(connection, wanted.budget_id)
    spent, cap = total_cost(events), budget.cap()
    count = (
        select(func.count())
        .select_from(releases.join(plans, plans.c.plan_id == releases.c.plan_id))
        .where(plans.c.budget_id == wanted.budget_id)
    )
    return BudgetState(
        budget=budget,
        opened_at=None if row is None else dt.datetime.fromisoformat(row["opened_at"]),
        events=events,
        spent=spent,
        cap=cap,
        remaining=_remaining(cap, spent),
        release_count=connection.execute(count).scalar_one(),
    )


def open_budgets(connection: Connection, period: str | None) -> tuple[Budget, ...]:
    """Every open budget, by period and metric."""
    statement = select(budgets).order_by(budgets.c.period, budgets.c.metric)
    if period is not None:
        statement = statement.where(budgets.c.period == period)
    return tuple(budget_of(row._asdict()) for row in connection.execute(statement))


def refusal_block(budget: Budget, spent: Cost, requested: Cost) -> dict[str, object]:
    """The budget block of a refusal: JSON-ready, costs rounded up and what is left down."""
    cap = budget.cap()
    return {
        "metric": budget.metric,
        "period": budget.period,
        "filter": budget.filter_name.value,
        "allowances": budget.allowances,
        "cap": _in_units(budget, cap, round_epsilon_down),
        "spent": _in_units(budget, spent, round_epsilon_up),
        "remaining": _in_units(budget, _remaining(cap, spent), round_epsilon_down),
        "requested": _in_units(budget, requested, round_epsilon_up),
    }


def _find(connection: Connection, budget_id: str) -> dict[str, Any] | None:
    """The row of an open budget."""
    statement = select(budgets).where(budgets.c.budget_id == budget_id)
    row = connection.execute(statement).one_or_none()
    return None if row is None else row._asdict()


def _parts(budget: Budget, event: DpEvent) -> int:
    """The share of one allowance that an event costs, in `PARTS`, rounded down."""
    cost, cap = cost_of(event), replace(budget, allowances=1).cap()
    share = cost.rho / cap.rho if cap.rho else cost.epsilon / cap.epsilon
    return int(share * PARTS)


def _remaining(cap: Cost, spent: Cost) -> Cost:
    """cap − spent, at least 0, unit by unit."""
    zero = Fraction(0)
    return Cost(
        epsilon=max(zero, cap.epsilon - spent.epsilon),
        delta=max(zero, cap.delta - spent.delta),
        rho=max(zero, cap.rho - spent.rho),
    )


def _in_units(
    budget: Budget, cost: Cost, rounded: Callable[[Fraction | float], float]
) -> dict[str, float]:
    """A cost in the units that the budget's filter adds up; δ is the nearest float."""
    if budget.filter_name is FilterName.BASIC:
        return {"epsilon": rounded(cost.epsilon), "delta": float(cost.delta)}
    return {"rho": rounded(cost.rho)}
