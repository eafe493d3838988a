"""A growth plan: the noise of one count in each of four cells, and the price of one."""

import datetime as dt
import json
from dataclasses import replace
from fractions import Fraction

import pytest

from dpdau.accounting.budget import FilterName, cost_of
from dpdau.accounting.events import DiscreteGaussianEvent
from dpdau.domain import Metric, Window
from dpdau.plan import PrivacyTerms, growth, on_demand, question

TERMS = PrivacyTerms(
    epsilon={Metric.DAU: Fraction(3, 10), Metric.WAU: Fraction(2, 5), Metric.MAU: Fraction(1, 2)},
    cap={Metric.DAU: Fraction(3), Metric.WAU: Fraction(7, 2), Metric.MAU: Fraction(7, 2)},
    delta=Fraction(1, 10**6),
    plan_epsilon=Fraction(3),
    plan_delta=Fraction(1, 10**6),
    mau_window_days=30,
)
WINDOW = Window(dt.date(2026, 2, 28), 30)


def test_the_price_is_that_of_one_mau_release() -> None:
    """Mechanism, budget and charge are those of MAU on demand: one event, counted once."""
    asked = question(
        Metric.MAU, WINDOW.end, window_days=None, segment=None, timezone="UTC", terms=TERMS
    )
    mau = on_demand(asked, edition=0, terms=TERMS)
    plan = growth(WINDOW, edition=0, timezone="UTC", terms=TERMS)

    assert (mau.mechanism, mau.budget, mau.charge) == (plan.mechanism, plan.budget, plan.charge)
    assert isinstance(plan.charge.dp_event, DiscreteGaussianEvent)
    assert (1, 1) == (plan.charge.dp_event.count, plan.charge.dp_event.sensitivity)
    assert FilterName.ZCDP is plan.budget.filter_name


@pytest.mark.parametrize("epsilon", ["0.1", "0.5", "3"])
def test_the_charge_is_what_the_noise_costs(epsilon: str) -> None:
    """ρ of the charge is 1 / (2σ²) of the noise that each cell gets, exactly."""
    terms = replace(TERMS, epsilon={**TERMS.epsilon, Metric.MAU: Fraction(epsilon)})
    plan = growth(WINDOW, edition=0, timezone="UTC", terms=terms)

    assert 1 / (2 * plan.mechanism.sigma_exact**2) == cost_of(plan.charge.dp_event).rho


def test_the_id_is_that_of_the_question_and_its_edition() -> None:
    """Neither terms nor zone change it; window and edition do."""
    plan = growth(WINDOW, edition=0, timezone="UTC", terms=TERMS)
    other_terms = replace(TERMS, delta=Fraction(1, 10**9), mau_window_days=28)

    assert plan.plan_id == growth(WINDOW, edition=0, timezone="CET", terms=other_terms).plan_id
    others = {
        growth(WINDOW, edition=1, timezone="UTC", terms=TERMS).plan_id,
        growth(Window(WINDOW.end, 28), edition=0, timezone="UTC", terms=TERMS).plan_id,
        growth(WINDOW.before, edition=0, timezone="UTC", terms=TERMS).plan_id,
    }
    assert 4 == len({plan.plan_id, *others})


def test_the_body_says_what_the_charge_pays_for() -> None:
    """Four releases, the cells by name, and the sensitivity that the noise is for."""
    body = json.loads(json.dumps(growth(WINDOW, edition=2, timezone="UTC", terms=TERMS).to_json()))

    assert (4, 1, 2, 30) == tuple(
        body[name] for name in ("releases", "sensitivity", "edition", "window_days")
    )
    assert ["new", "retained", "resurrected", "churned"] == body["cells"]
