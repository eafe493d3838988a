"""The privacy parameters of a deployment, and the budgets that open under them."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from dpdau.accounting.budget import Budget, FilterName
from dpdau.domain import WAU_WINDOW_DAYS, Metric

PLAN: Final = "plan"
"""The budget of month plans: all counts of a month together, whatever their metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyTerms:
    """The privacy parameters of a deployment; nothing here is about speed.

    Shapes and units:
        epsilon: ε of one release of each metric; cap: ε of all its releases of one month; `delta`
        is the δ of both for WAU and MAU, and DAU has δ = 0. `plan_epsilon` and `plan_delta` are
        those of all releases of one month plan, and the cap of all plans of one month.
    """

    epsilon: dict[Metric, Fraction]
    cap: dict[Metric, Fraction]
    delta: Fraction
    plan_epsilon: Fraction
    plan_delta: Fraction
    mau_window_days: int


def own_windows(mau_window_days: int) -> dict[Metric, int]:
    """The days of each metric's own window."""
    return {Metric.DAU: 1, Metric.WAU: WAU_WINDOW_DAYS, Metric.MAU: mau_window_days}


def budget(metric: str, period: str, terms: PrivacyTerms) -> Budget:
    """The budget of a metric, or of `plan`, for a month, as it opens under these terms."""
    if metric == PLAN:
        return plan_budget(period, terms.plan_epsilon, terms.plan_delta)
    held = Metric(metric)
    pure = held is Metric.DAU
    return Budget(
        budget_id=f"{held}:{period}",
        metric=held.value,
        period=period,
        filter_name=FilterName.BASIC if pure else FilterName.ZCDP,
        epsilon=terms.cap[held],
        delta=Fraction(0) if pure else terms.delta,
    )


def plan_budget(period: str, epsilon: Fraction, delta: Fraction) -> Budget:
    """The budget that the plan of a month is charged to."""
    return Budget(
        budget_id=f"{PLAN}:{period}",
        metric=PLAN,
        period=period,
        filter_name=FilterName.ZCDP,
        epsilon=epsilon,
        delta=delta,
    )
