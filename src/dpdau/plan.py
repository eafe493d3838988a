"""One frozen promise: what is released, how, and at what cost.

A one-off release is a plan with horizon 1. The plan is where a mechanism and its cost are tied
together, so that neither can drift from the other; it is the only maker of `Charge`.
"""

import datetime as dt
import hashlib
import json
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from dpdau.accounting.budget import Budget, FilterName
from dpdau.accounting.calibration import gaussian_sigma
from dpdau.accounting.events import Charge, DiscreteGaussianEvent, DiscreteLaplaceEvent
from dpdau.domain import (
    WAU_WINDOW_DAYS,
    Metric,
    NeighboringRelation,
    Segment,
    Unit,
    Window,
    month_of,
)
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.gaussian import DiscreteGaussian
from dpdau.mechanisms.laplace import DiscreteLaplace

ON_DEMAND: Final = "on_demand"
_SENSITIVITY: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyTerms:
    """The privacy parameters of a deployment; nothing here is about speed.

    Shapes and units:
        epsilon: ε of one release of each metric; cap: ε of all its releases of one month; `delta`
        is the δ of both for WAU and MAU, and DAU has δ = 0.
    """

    epsilon: dict[Metric, Fraction]
    cap: dict[Metric, Fraction]
    delta: Fraction
    mau_window_days: int


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: the same metric, window and segment have the same answer.

    Neither the terms nor the zone that are set by then change it; `timezone` says in which zone a
    new answer is counted.
    """

    metric: Metric
    window: Window
    segment: Segment | None
    timezone: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One frozen promise; `plan_id` is derived from the question and its edition."""

    plan_id: str
    question: Question
    edition: int
    unit: Unit
    mechanism: DiscreteLaplace | DiscreteGaussian
    budget: Budget
    charge: Charge

    def to_json(self) -> dict[str, Any]:
        """What the ledger keeps beside the charge, so that a reader can redo the arithmetic."""
        return {
            "policy": ON_DEMAND,
            **_identity(self.question, self.edition),
            "timezone": self.question.timezone,
            "horizon": 1,
            "unit": self.unit.value,
            "neighboring_relation": self.charge.neighboring_relation.value,
            "sensitivity": self.mechanism.sensitivity,
            "mechanism": self.mechanism.name,
        }


def own_windows(mau_window_days: int) -> dict[Metric, int]:
    """The days of each metric's own window."""
    return {Metric.DAU: 1, Metric.WAU: WAU_WINDOW_DAYS, Metric.MAU: mau_window_days}


def question(
    metric: Metric,
    day: dt.date,
    *,
    window_days: int | None,
    segment: Segment | None,
    timezone: str,
    terms: PrivacyTerms,
) -> Question:
    """Checks what is asked for and fills in the metric's own window.

    Raises:
        InvalidPlanError: A window that the metric does not have.
    """
    own = own_windows(terms.mau_window_days)[metric]
    if metric is not Metric.MAU and window_days not in (None, own):
        raise InvalidPlanError(
            f"Expected a window of {own} days for {metric}, found {window_days}; "
            "mau takes any window of 1..64 days.",
            window_days=window_days,
        )
    days = own if window_days is None else window_days
    return Question(metric, Window(day, days), segment, timezone)


def on_demand(asked: Question, *, edition: int, terms: PrivacyTerms) -> Plan:
    """A plan with horizon 1: one number, one charge.

    DAU takes discrete Laplace noise at (ε, 0); WAU and MAU discrete Gaussian noise, calibrated to
    (ε, δ) by the tight zCDP conversion.

    Args:
        asked: The question.
        edition: 0 for the first answer; a fresh answer to the same question has the next number.
        terms: The deployment's privacy parameters.

    Guarantee: the release is (ε, δ)-DP for adding or removing one user's entire history, because
    the count of distinct users has sensitivity 1 and the charge is derived from the same numbers
    as the noise.
    """
    epsilon = terms.epsilon[asked.metric]
    event: DiscreteLaplaceEvent | DiscreteGaussianEvent
    mechanism: DiscreteLaplace | DiscreteGaussian
    if asked.metric is Metric.DAU:
        mechanism = DiscreteLaplace(epsilon=epsilon, sensitivity=_SENSITIVITY)
        event = DiscreteLaplaceEvent(epsilon=epsilon)
    else:
        sigma = gaussian_sigma(epsilon, terms.delta, _SENSITIVITY)
        mechanism = DiscreteGaussian(
            sigma=sigma, epsilon=epsilon, delta=terms.delta, sensitivity=_SENSITIVITY
        )
        event = DiscreteGaussianEvent(
            sigma=Fraction(sigma), sensitivity=_SENSITIVITY, epsilon=epsilon, delta=terms.delta
        )
    held = budget(asked.metric, month_of(asked.window.end), terms)
    return Plan(
        plan_id=_plan_id(asked, edition),
        question=asked,
        edition=edition,
        unit=Unit.USER,
        mechanism=mechanism,
        budget=held,
        charge=Charge(held.budget_id, event, NeighboringRelation.ADD_OR_REMOVE_ONE),
    )


def budget(metric: Metric, period: str, terms: PrivacyTerms) -> Budget:
    """The budget of a metric for a month, as it opens under these terms."""
    pure = metric is Metric.DAU
    return Budget(
        budget_id=f"{metric}:{period}",
        metric=metric.value,
        period=period,
        filter_name=FilterName.BASIC if pure else FilterName.ZCDP,
        epsilon=terms.cap[metric],
        delta=Fraction(0) if pure else terms.delta,
    )


def _identity(asked: Question, edition: int) -> dict[str, Any]:
    return {
        "metric": asked.metric.value,
        "window_end": asked.window.end.isoformat(),
        "window_days": asked.window.days,
        "segment": None if asked.segment is None else str(asked.segment),
        "edition": edition,
    }


def _plan_id(asked: Question, edition: int) -> str:
    text = json.dumps([ON_DEMAND, _identity(asked, edition)], sort_keys=True)
    return f"od-{hashlib.sha256(text.encode()).hexdigest()[:32]}"
