"""The privacy parameters of a deployment, and the budgets that open under them."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from dpdau.accounting.budget import Budget, FilterName
from dpdau.domain import WAU_WINDOW_DAYS, Metric
from dpdau.errors import NotFoundError

PLAN: Final = "plan"
"""The budget of month plans: all counts of a month together, whatever their metric."""
LIVE: Final = "live"
"""The budget of the live counter of a month."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyTerms:
    """The privacy parameters of a deployment; nothing here is about speed.

    Shapes and units:
        epsilon: ε of one release of each metric; cap: ε of all its releases of one month; `delta`
        is the δ of both for WAU and MAU, and DAU has δ = 0. `plan_epsilon` and `plan_delta` are
        those of all releases of one month plan, and the cap of all plans of one month.
        `live_epsilon`, at `plan_delta`, is that of all live counts of a month; None turns them off.
    """

    epsilon: dict[Metric, Fraction]
    cap: dict[Metric, Fraction]
    delta: Fraction
    plan_epsilon: Fraction
    plan_delta: Fraction
    mau_window_days: int
    live_epsilon: Fraction | None = None


def own_windows(mau_window_days: int) -> dict[Metric, int]:
    """The days of each metric's own window."""
    return {Metric.DAU: 1, Metric.WAU: WAU_WINDOW_DAYS, Metric.MAU: mau_window_days}


def budget(metric: str, period: str, terms: PrivacyTerms) -> Budget:
    """The budget of a metric, of `plan` or of `live`, for a month, as it opens under these terms.

    Raises:
        NotFoundError: The live counter is off.
    """
    if metric == PLAN:
        return plan_budget(period, terms.plan_epsilon, terms.plan_delta)
    if metric == LIVE:
        if terms.live_epsilon is None:
            raise NotFoundError("Expected a live counter that is on; set LIVE_EPSILON.")
        return live_budget(period, terms.live_epsilon, terms.plan_delta)
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
    return _joint_budget(PLAN, period, epsilon, delta)


def live_budget(period: str, epsilon: Fraction, delta: Fraction) -> Budget:
    """The budget that the live plan of a month is charged to."""
    return _joint_budget(LIVE, period, epsilon, delta)


def _joint_budget(metric: str, period: str, epsilon: Fraction, delta: Fraction) -> Budget:
    """A budget of many releases for one charge."""
    return Budget(
        budget_id=f"{metric}:{period}",
        metric=metric,
        period=period,
        filter_name=FilterName.ZCDP,
        epsilon=epsilon,
        delta=delta,
    )
