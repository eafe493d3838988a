"""The privacy parameters of a deployment and the budgets under them."""

from fractions import Fraction

import pytest

from dpdau.accounting.budget import FilterName
from dpdau.domain import Metric
from dpdau.plan import PLAN, PrivacyTerms, budget, own_windows

TERMS = PrivacyTerms(
    epsilon=dict.fromkeys(Metric, Fraction(1, 2)),
    cap={Metric.DAU: Fraction(3), Metric.WAU: Fraction(7, 2), Metric.MAU: Fraction(4)},
    delta=Fraction(1, 10**6),
    plan_epsilon=Fraction(2),
    plan_delta=Fraction(1, 10**7),
    mau_window_days=28,
)


@pytest.mark.parametrize(
    ("metric", "filter_name", "epsilon", "delta"),
    [
        (Metric.DAU, FilterName.BASIC, Fraction(3), Fraction(0)),
        (Metric.WAU, FilterName.ZCDP, Fraction(7, 2), Fraction(1, 10**6)),
        ("mau", FilterName.ZCDP, Fraction(4), Fraction(1, 10**6)),
        (PLAN, FilterName.ZCDP, Fraction(2), Fraction(1, 10**7)),
    ],
)
def test_a_budget_opens_at_its_own_cap(
    metric: str, filter_name: FilterName, epsilon: Fraction, delta: Fraction
) -> None:
    """Each month of each metric, and of plans, has one budget at its own cap."""
    held = budget(metric, "2026-02", TERMS)

    assert (f"{metric}:2026-02", str(metric), "2026-02") == (
        held.budget_id,
        held.metric,
        held.period,
    )
    assert (filter_name, epsilon, delta) == (held.filter_name, held.epsilon, held.delta)


def test_windows_of_the_metrics() -> None:
    """DAU looks at a day, WAU at a week, MAU at what is set."""
    assert {Metric.DAU: 1, Metric.WAU: 7, Metric.MAU: 28} == own_windows(28)
