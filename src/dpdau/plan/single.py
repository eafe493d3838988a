"""Plans with horizon 1: one number on demand, for one charge."""

import datetime as dt
import hashlib
import json
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from dpdau.accounting.budget import Budget
from dpdau.accounting.calibration import gaussian_sigma
from dpdau.accounting.events import Charge, DiscreteGaussianEvent, DiscreteLaplaceEvent
from dpdau.domain import (
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
from dpdau.plan.terms import PrivacyTerms, budget, own_windows

ON_DEMAND: Final = "on_demand"
_SENSITIVITY: Final = 1


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
        mechanism, event = gaussian(epsilon, terms.delta)
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


def gaussian(epsilon: Fraction, delta: Fraction) -> tuple[DiscreteGaussian, DiscreteGaussianEvent]:
    """Noise for one user's change of 1, calibrated to (ε, δ), and what it costs, from one σ."""
    sigma = gaussian_sigma(epsilon, delta, _SENSITIVITY)
    return (
        DiscreteGaussian(sigma=sigma, epsilon=epsilon, delta=delta, sensitivity=_SENSITIVITY),
        DiscreteGaussianEvent(
            sigma=Fraction(sigma), sensitivity=_SENSITIVITY, epsilon=epsilon, delta=delta
        ),
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
