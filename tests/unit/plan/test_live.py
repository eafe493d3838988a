"""A live plan: its cost, its days, its numbers, and its frozen description."""

import datetime as dt
import json
from dataclasses import replace
from fractions import Fraction

import pytest

from dpdau.accounting.budget import Cost, charges_left, fits
from dpdau.accounting.calibration import rho_cap
from dpdau.domain import BoundedCount, ContributionBounds, Metric, Unit
from dpdau.errors import InvalidPlanError, LedgerCorruptError, NotFoundError
from dpdau.mechanisms.matrix.lattice import GRID_BITS
from dpdau.mechanisms.matrix.live import live_strategy
from dpdau.plan import LIVE, LivePlan, PrivacyTerms, budget, live, live_plan_id
from noise_sources import ZeroNoise

TERMS = PrivacyTerms(
    epsilon=dict.fromkeys(Metric, Fraction(1, 2)),
    cap=dict.fromkeys(Metric, Fraction(3)),
    delta=Fraction(1, 10**6),
    plan_epsilon=Fraction(3),
    plan_delta=Fraction(1, 10**6),
    mau_window_days=30,
    live_epsilon=Fraction(1),
)
STRATEGY = live_strategy(4)
LATE = dt.date(2026, 2, 26)


def plan(first: dt.date = LATE, terms: PrivacyTerms = TERMS) -> LivePlan:
    """A live plan from a day on."""
    return live(first, timezone="UTC", terms=terms, strategy=STRATEGY)


def test_the_charge_is_for_the_rest_of_the_month() -> None:
    """Fewer days cost the same ρ and have less noise; the budget holds one plan."""
    whole, rest = plan(dt.date(2026, 2, 1)), plan()
    cap = rho_cap(Fraction(1), Fraction(1, 10**6))

    assert (28, 3, "live-2026-02") == (whole.days, rest.days, rest.plan_id)
    assert live_plan_id("2026-02") == rest.plan_id
    for one in (whole, rest):
        assert cap * Fraction(999999, 1000000) < one.event.rho <= cap
        assert fits(one.budget, Cost(), one.charge.dp_event)
        assert 1 == charges_left(one.budget, Cost(), one.charge.dp_event)
        assert one.budget == budget(LIVE, "2026-02", TERMS)
    for wide, narrow in zip(whole.noise_stddevs, rest.noise_stddevs, strict=True):
        assert abs(wide / narrow - (28 / 3) ** 0.5) < 1e-9


def test_without_epsilon_there_is_no_live_counter() -> None:
    """Neither a plan nor a budget."""
    off = replace(TERMS, live_epsilon=None)
    with pytest.raises(InvalidPlanError):
        plan(terms=off)
    with pytest.raises(NotFoundError):
        budget(LIVE, "2026-02", off)


def test_steps_count_the_ticks_of_all_days() -> None:
    """Step = day · ticks + tick - 1, within the plan."""
    steps = [plan().step(LATE + dt.timedelta(days=d), t) for d in range(3) for t in (1, 2, 3, 4)]

    assert list(range(12)) == steps
    for day, tick in ((LATE, 0), (LATE, 5), (LATE - dt.timedelta(1), 1), (dt.date(2026, 3, 1), 1)):
        with pytest.raises(InvalidPlanError):
            plan().step(day, tick)


def test_an_estimate_is_the_count_and_its_own_noise() -> None:
    """The noise of the step is added; without noise the number is the count."""
    one = plan()
    count = BoundedCount(7, ContributionBounds(max_per_count=1, max_active_steps=12), Unit.USER)
    noise = [0, 0, 0, 0, 0, 3 << GRID_BITS, *[0] * 6]

    assert (0,) * 12 == one.draw(ZeroNoise())
    assert [7.0, 10.0] == [one.estimate(step, count, noise) for step in (4, 5)]
    assert one.noise_stddevs[1] == one.stddev(5)
    assert one.half_width(5) == round(1.96 * one.stddev(5))
    with pytest.raises(InvalidPlanError):
        one.estimate(4, replace(count, bounds=ContributionBounds()), noise)
    with pytest.raises(InvalidPlanError):
        one.estimate(4, count, noise[1:])
    with pytest.raises(InvalidPlanError):
        one.estimate(12, count, noise)


def test_a_plan_reads_back_as_it_was_written() -> None:
    """The body holds everything: the same plan, the same noise laws, the same charge."""
    body = json.loads(json.dumps(plan().to_json()))
    again = LivePlan.from_json(body)

    assert again.to_json() == plan().to_json()
    assert (STRATEGY.matrix == again.strategy.matrix).all()
    assert (12, 10, "live") == (body["releases"], len(body["strategy"]), body["policy"])


@pytest.mark.parametrize(
    "change",
    [{"ticks": 5}, {"first": "2026-02-25"}, {"strategy": [0] * 10}, {"noise_stddevs": [1.0]}],
)
def test_a_body_that_does_not_fit_is_refused(change: dict[str, object]) -> None:
    """Parts that contradict each other, or are missing, are no plan."""
    with pytest.raises(LedgerCorruptError):
        LivePlan.from_json({**plan().to_json(), **change})
    with pytest.raises(LedgerCorruptError):
        LivePlan.from_json({})
