"""A plan for one number ties a mechanism to its cost, and a question to its answer."""

import datetime as dt
from dataclasses import replace
from fractions import Fraction

import pytest

from dpdau.accounting.budget import FilterName, cost_of
from dpdau.accounting.events import DiscreteGaussianEvent, DiscreteLaplaceEvent
from dpdau.domain import Metric, Segment
from dpdau.errors import InvalidPlanError
from dpdau.mechanisms.gaussian import DiscreteGaussian
from dpdau.plan import PrivacyTerms, Question, on_demand, question

TERMS = PrivacyTerms(
    epsilon={Metric.DAU: Fraction(3, 10), Metric.WAU: Fraction(1, 2), Metric.MAU: Fraction(1, 2)},
    cap={Metric.DAU: Fraction(3), Metric.WAU: Fraction(7, 2), Metric.MAU: Fraction(7, 2)},
    delta=Fraction(1, 10**6),
    plan_epsilon=Fraction(3),
    plan_delta=Fraction(1, 10**6),
    mau_window_days=30,
)
DAY = dt.date(2026, 2, 28)


def ask(metric: Metric = Metric.MAU, window_days: int | None = None) -> Question:
    """A question about one day."""
    return question(metric, DAY, window_days=window_days, segment=None, timezone="UTC", terms=TERMS)


@pytest.mark.parametrize(
    ("metric", "window_days", "expected"),
    [
        (Metric.DAU, None, 1),
        (Metric.DAU, 1, 1),
        (Metric.WAU, None, 7),
        (Metric.MAU, None, 30),
        (Metric.MAU, 1, 1),
        (Metric.MAU, 64, 64),
    ],
)
def test_a_metric_has_its_own_window(
    metric: Metric, window_days: int | None, expected: int
) -> None:
    """DAU and WAU have one window; MAU any of 1..64 days."""
    assert expected == ask(metric, window_days).window.days


@pytest.mark.parametrize(
    ("metric", "window_days"),
    [(Metric.DAU, 2), (Metric.WAU, 30), (Metric.MAU, 0), (Metric.MAU, 65)],
)
def test_other_windows_are_refused(metric: Metric, window_days: int) -> None:
    """A window that the metric does not have is one clear error."""
    with pytest.raises(InvalidPlanError):
        ask(metric, window_days)


@pytest.mark.parametrize("metric", list(Metric))
def test_the_charge_is_what_the_mechanism_costs(metric: Metric) -> None:
    """The event in the charge and the mechanism have the same cost, exactly."""
    plan = on_demand(ask(metric), edition=0, terms=TERMS)
    cost = cost_of(plan.charge.dp_event)

    assert plan.mechanism.rho == cost.rho
    assert plan.mechanism.epsilon == cost.epsilon == TERMS.epsilon[metric]
    assert plan.mechanism.delta == cost.delta
    assert 1 == plan.mechanism.sensitivity
    assert plan.budget.budget_id == plan.charge.budget_id == f"{metric}:2026-02"


def test_dau_is_pure_and_the_others_are_gaussian() -> None:
    """DAU takes discrete Laplace under `basic`; WAU and MAU discrete Gaussian under `zcdp`."""
    dau, mau = (on_demand(ask(one), edition=0, terms=TERMS) for one in (Metric.DAU, Metric.MAU))

    assert DiscreteLaplaceEvent(Fraction(3, 10)) == dau.charge.dp_event
    assert FilterName.BASIC is dau.budget.filter_name
    assert 0 == dau.budget.delta
    assert isinstance(mau.charge.dp_event, DiscreteGaussianEvent)
    assert isinstance(mau.mechanism, DiscreteGaussian)
    assert Fraction(mau.mechanism.sigma) == mau.charge.dp_event.sigma
    assert FilterName.ZCDP is mau.budget.filter_name


def test_the_id_is_that_of_the_question() -> None:
    """The id depends on the question and its edition, and not on the terms or the zone."""
    dearer = replace(TERMS, epsilon={metric: Fraction(1) for metric in Metric})
    first = on_demand(ask(), edition=0, terms=TERMS)
    others = [
        on_demand(ask(), edition=1, terms=TERMS),
        on_demand(ask(Metric.WAU), edition=0, terms=TERMS),
        on_demand(ask(window_days=7), edition=0, terms=TERMS),
        on_demand(replace(ask(), segment=Segment("a", "b")), edition=0, terms=TERMS),
    ]

    elsewhere = replace(ask(), timezone="Europe/Berlin")

    assert first.plan_id == on_demand(ask(), edition=0, terms=dearer).plan_id
    assert first.plan_id == on_demand(elsewhere, edition=0, terms=TERMS).plan_id
    assert 5 == len({first.plan_id, *(one.plan_id for one in others)})


def test_the_frozen_description_lets_a_reader_redo_the_arithmetic() -> None:
    """What the ledger keeps names the unit, the relation, the sensitivity and the mechanism."""
    body = on_demand(ask(), edition=2, terms=TERMS).to_json()

    assert ("user", "add_or_remove_one", 1) == (
        body["unit"],
        body["neighboring_relation"],
        body["sensitivity"],
    )
    assert ("mau", "2026-02-28", 30, 2, 1) == (
        body["metric"],
        body["window_end"],
        body["window_days"],
        body["edition"],
        body["horizon"],
    )
