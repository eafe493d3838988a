"""One frozen promise: what is released, how, and at what cost.

A one-off release is a plan with horizon 1; a month plan pays once for every day of a month. The
plan is where a mechanism and its cost are tied together, so that neither can drift from the other;
it is the only maker of `Charge`.
"""

from dpdau.plan.growth import GrowthPlan, growth
from dpdau.plan.live import LivePlan, live, live_plan_id
from dpdau.plan.months import TOTAL_SHARE, MonthPlan, month, month_plan_id
from dpdau.plan.single import Plan, Question, on_demand, question
from dpdau.plan.terms import LIVE, PLAN, PrivacyTerms, budget, own_windows

__all__ = [
    "LIVE",
    "PLAN",
    "TOTAL_SHARE",
    "GrowthPlan",
    "LivePlan",
    "MonthPlan",
    "Plan",
    "PrivacyTerms",
    "Question",
    "budget",
    "growth",
    "live",
    "live_plan_id",
    "month",
    "month_plan_id",
    "on_demand",
    "own_windows",
    "question",
]
