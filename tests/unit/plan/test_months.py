"""A month plan: its cost, its noise, its least-squares numbers, and its frozen description."""

import datetime as dt
import json
import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dpdau.accounting.budget import Cost, charges_left, check_claim, fits
from dpdau.accounting.calibration import rho_cap, zcdp_epsilon
from dpdau.domain import BoundedCount, ContributionBounds, Metric, Segment, Unit
from dpdau.errors import InvalidPlanError, LedgerCorruptError
from dpdau.mechanisms.matrix.lattice import GRID_BITS, LatticeMechanism, LatticeState
from dpdau.mechanisms.matrix.strategies import shipped
from dpdau.mechanisms.sampling import OpenDPNoise
from dpdau.plan import TOTAL_SHARE, MonthPlan, PrivacyTerms, budget, month, month_plan_id
from dpdau.plan.months import SEGMENTS_MAX, strategy_digest
from noise_sources import ZeroNoise

TERMS = PrivacyTerms(
    epsilon=dict.fromkeys(Metric, Fraction(1, 2)),
    cap=dict.fromkeys(Metric, Fraction(3)),
    delta=Fraction(1, 10**6),
    plan_epsilon=Fraction(3),
    plan_delta=Fraction(1, 10**6),
    mau_window_days=30,
)
FEBRUARY = shipped(28, 30)
IOS, WEB, TV = (Segment("platform", value) for value in ("ios", "web", "tv"))
BOUNDS = ContributionBounds(max_per_count=1, max_active_steps=84)
EPSILONS = st.integers(1, 80).map(lambda tenths: Fraction(tenths, 10))
DELTAS = st.sampled_from([Fraction(1, 10**k) for k in (3, 6, 9, 12)])
SHARES = st.integers(1, 99).map(lambda part: Fraction(part, 100))


def february(
    *segments: Segment, share: Fraction = TOTAL_SHARE, terms: PrivacyTerms = TERMS
) -> MonthPlan:
    """A plan for February 2026."""
    return month(
        "2026-02",
        timezone="UTC",
        terms=terms,
        strategy=FEBRUARY,
        segments=segments,
        total_share=share,
    )


def counts(rows: list[list[int]]) -> list[list[BoundedCount]]:
    """Exact counts of one day."""
    return [[BoundedCount(value, BOUNDS, Unit.USER) for value in row] for row in rows]


def test_one_charge_pays_for_the_month() -> None:
    """The charge is the exact cost of the mechanism, under the month's own budget."""
    plan = february()
    mechanism = LatticeMechanism(FEBRUARY.strategy, rho_cap(Fraction(3), Fraction(1, 10**6)))

    assert mechanism.rho == plan.event.rho
    assert plan.event is plan.charge.dp_event
    assert "plan:2026-02" == plan.charge.budget_id == plan.budget.budget_id
    assert budget("plan", "2026-02", TERMS) == plan.budget
    assert ("plan-2026-02", 28, 3, 84) == (
        plan.plan_id,
        plan.days,
        plan.releases_per_day,
        plan.to_json()["releases"],
    )
    assert "matrix_discrete_gaussian" == plan.mechanism
    assert 1 == charges_left(plan.budget, Cost(), plan.charge.dp_event)
    assert 3.0 == zcdp_epsilon(plan.event.rho, plan.delta)


def test_a_plan_says_what_it_publishes() -> None:
    """Everyone first, then each segment, each in the strategy's order of metrics and windows."""
    plan = february(WEB, IOS)

    assert (None, WEB, IOS) == plan.series
    assert (Metric.WAU, Metric.MAU, Metric.DAU) == plan.metrics
    assert {Metric.WAU: 7, Metric.MAU: 30, Metric.DAU: 1} == plan.windows
    assert (9, dt.date(2026, 2, 1)) == (plan.releases_per_day, plan.first)
    assert (Fraction(3), Fraction(1, 10**6)) == (plan.epsilon, plan.delta)


@given(epsilon=EPSILONS, delta=DELTAS, share=SHARES, segmented=st.booleans())
@settings(max_examples=40)
def test_the_whole_cost_never_passes_the_cap(
    epsilon: Fraction, delta: Fraction, share: Fraction, segmented: bool
) -> None:
    """For any (ε, δ) and share, everyone and one part together cost at most ρ of (ε, δ), exactly,
    and waste less than a billionth of it.
    """
    terms = replace(TERMS, plan_epsilon=epsilon, plan_delta=delta)
    plan = february(*[IOS, WEB][: 2 * segmented], share=share, terms=terms)
    cap = rho_cap(epsilon, delta)

    assert plan.event.rho <= cap
    assert plan.event.rho > cap * (1 - Fraction(1, 10**9))
    assert 1 + segmented == len(plan.event.scales)
    assert plan.event.rhos[0] <= (share * cap if segmented else cap)
    check_claim(plan.event)
    assert fits(plan.budget, Cost(), plan.event)
    assert not fits(plan.budget, Cost(rho=plan.event.rho), plan.event)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"month": "2026-03"}, "strategy for"),
        ({"month": "2026-2"}, "month as YYYY-MM"),
        ({"terms": replace(TERMS, mau_window_days=28)}, "strategy for"),
        ({"terms": replace(TERMS, mau_window_days=7)}, "windows"),
        ({"segments": [IOS, IOS]}, "distinct"),
        ({"segments": [IOS, Segment("country", "de")]}, "distinct"),
        ({"segments": [Segment("n", str(n)) for n in range(SEGMENTS_MAX + 1)]}, "at most 100"),
        ({"total_share": Fraction(0)}, "share"),
        ({"segments": [IOS], "total_share": Fraction(1)}, "share"),
    ],
)
def test_what_cannot_be_promised_is_refused(change: dict[str, Any], said: str) -> None:
    """Another month, class, set of segments or share than the guarantee covers is an error."""
    good: dict[str, Any] = {"month": "2026-02", "timezone": "UTC", "terms": TERMS}
    asked = good | {"strategy": FEBRUARY} | change

    with pytest.raises(InvalidPlanError, match=said):
        month(asked.pop("month"), **asked)


def test_a_strategy_that_does_not_cover_erasure_is_refused() -> None:
    """Erased users leave the month early, so the class must hold them."""
    key = FEBRUARY.key
    partial = replace(key, contribution=replace(key.contribution, erasure=False))

    with pytest.raises(InvalidPlanError, match="strategy for"):
        month("2026-02", timezone="UTC", terms=TERMS, strategy=replace(FEBRUARY, key=partial))


@pytest.mark.parametrize("segments", [(), (IOS,), (IOS, WEB, TV)])
def test_a_plan_reads_back_from_its_body(segments: tuple[Segment, ...]) -> None:
    """What the ledger keeps is the whole promise: later terms and strategies do not reach it."""
    plan = february(*segments, share=Fraction(1, 3))
    body = json.loads(json.dumps(plan.to_json()))
    again = MonthPlan.from_json(body)

    assert plan == again
    assert body == again.to_json()
    assert ("2026-02", "user", "add_or_remove_one", 28) == (
        body["month"],
        body["unit"],
        body["neighboring_relation"],
        body["horizon"],
    )
    assert (FEBRUARY.key.name, strategy_digest(FEBRUARY.strategy)) == (
        body["strategy"],
        body["strategy_sha256"],
    )
    assert plan.charge == again.charge


@pytest.mark.parametrize(
    "change",
    [
        {"event": {"kind": "discrete_laplace", "epsilon": "1", "count": 1}},
        {"event": {}},
        {"month": "2026-03"},
        {"metrics": ["wau", "mau"]},
        {"metrics": ["wau", "mau", "yau"]},
        {"segments": ["platform=ios"]},
        {"noise_stddevs": []},
        {"noise_stddevs": None},
        {"windows": {}},
        {"timezone": None, "windows": 5},
    ],
)
def test_a_body_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    """A stored promise is whole, or it is none."""
    with pytest.raises(LedgerCorruptError, match="stored month plan"):
        MonthPlan.from_json(february().to_json() | change)
    with pytest.raises(LedgerCorruptError):
        MonthPlan.from_json({})


def test_noise_is_drawn_for_every_mechanism() -> None:
    """Everyone, each segment and the rest have noise of their own, of the scale that was charged,
    also from a plan that was read back.
    """
    plan = MonthPlan.from_json(february(IOS, WEB, share=Fraction(1, 3)).to_json())
    everyone, part = (float(one) for one in plan.event.scales)
    asked: list[tuple[float, int]] = []

    class Asked(ZeroNoise):
        def discrete_gaussian(self, scale: float, size: int) -> NDArray[np.int64]:
            asked.append((scale, size))
            return super().discrete_gaussian(scale, size)

    drawn = plan.draw(Asked(), FEBRUARY)

    assert [(everyone, 84), (part, 84), (part, 84), (part, 84)] == asked
    assert (0,) * (4 * 84) == drawn
    assert everyone > part > LatticeMechanism(FEBRUARY.strategy, plan.event.rho).scale


def test_noise_is_laid_out_by_mechanism_and_day() -> None:
    """`noise_of_day` gives the three numbers of a day for each mechanism."""
    plan = february(IOS)
    noise = tuple(range(3 * 84))

    assert (0, 1, 2, 84, 85, 86, 168, 169, 170) == plan.noise_of_day(noise, 0)
    assert (81, 82, 83, 165, 166, 167, 249, 250, 251) == plan.noise_of_day(noise, 27)
    days = [plan.noise_of_day(noise, day) for day in range(28)]
    assert sorted(noise) == sorted(part for day in days for part in day)


def test_the_noise_belongs_to_the_strategy_that_was_promised() -> None:
    """Another strategy, even under the same name, draws nothing."""
    part = FEBRUARY.strategy
    other = replace(FEBRUARY, strategy=replace(part, matrix=part.matrix * 2))

    for wrong in (other, shipped(28, 28)):
        with pytest.raises(InvalidPlanError, match="found another"):
            february().draw(ZeroNoise(), wrong)


def test_a_plan_without_segments_is_the_lattice_mechanism() -> None:
    """Every day gives what the mechanism's own step gives, to the last bit."""
    plan = february()
    mechanism = LatticeMechanism(FEBRUARY.strategy, plan.event.rho)
    drawn = plan.draw(OpenDPNoise(), FEBRUARY)
    state = LatticeState(drawn)
    for day in range(28):
        today = counts([[1000 + day, 3000, 400]])
        expected, state = mechanism.step(today[0], state)
        assert (expected,) == plan.estimates(day, today, plan.noise_of_day(drawn, day))


@given(data=st.data())
@settings(max_examples=50)
def test_numbers_depend_on_count_plus_noise_alone(data: st.DataObject) -> None:
    """Moving a user from any count to its noise changes no published number."""
    plan = february(IOS, WEB, share=Fraction(1, 3))
    values = data.draw(st.lists(st.integers(0, 10**9), min_size=12, max_size=12))
    noise = data.draw(st.lists(st.integers(-(2**60), 2**60), min_size=12, max_size=12))
    moved = data.draw(st.lists(st.integers(-1000, 1000), min_size=12, max_size=12))

    first, second = (
        plan.estimates(
            5,
            counts(
                np.reshape([v + k * m for v, m in zip(values, moved, strict=True)], (4, 3)).tolist()
            ),
            [part - k * (m << GRID_BITS) for part, m in zip(noise, moved, strict=True)],
        )
        for k in (0, 1)
    )
    assert first == second


def combination(plan: MonthPlan) -> NDArray[np.float64]:
    """(series, mechanisms) weights of the noisy counts in the numbers of one metric."""
    rows, unit = len(plan.series) + 1, 10**9
    columns = []
    for place in range(rows):
        table = [[unit * (row == place)] * 3 for row in range(rows)]
        found = plan.estimates(0, counts(table), [0] * (3 * rows))
        columns.append([number[0] / unit for number in found])
    return np.array(columns).T


@pytest.mark.parametrize("share", [Fraction(1, 2), Fraction(1, 5), Fraction(9, 10)])
@pytest.mark.parametrize("segments", [(IOS,), (IOS, WEB), (IOS, WEB, TV)])
def test_numbers_are_the_weighted_least_squares_solution(
    segments: tuple[Segment, ...], share: Fraction
) -> None:
    """The published numbers and their standard deviations are those of generalized least squares
    over all noisy counts, as linear algebra finds them.
    """
    plan = february(*segments, share=share)
    parts = len(segments) + 1
    design = np.vstack([np.ones(parts), np.eye(parts)])
    everyone, part = (float(one) ** 2 for one in plan.event.scales)
    precision = np.diag(1 / np.array([everyone] + [part] * parts))
    solved = np.linalg.solve(design.T @ precision @ design, design.T @ precision)
    expected = np.vstack([solved.sum(axis=0), solved[:-1]])
    found = combination(plan)

    assert np.allclose(expected, found, rtol=0, atol=2e-9)
    kinds = [
        np.square(LatticeMechanism(FEBRUARY.strategy, rho).noise_stddevs())
        for rho in plan.event.rhos
    ]
    variances = np.array([kinds[0]] + [kinds[1]] * parts)
    stddevs = np.sqrt(np.einsum("sm,mtk->stk", np.square(expected), variances))
    for place in range(len(plan.series)):
        told = [[plan.stddev(day, place, metric) for metric in plan.metrics] for day in range(28)]
        assert np.allclose(stddevs[place], told, rtol=1e-9)


@pytest.mark.parametrize("segments", [(IOS,), (IOS, WEB, TV)])
def test_equal_shares_give_every_series_the_same_noise(segments: tuple[Segment, ...]) -> None:
    """At the default share each series has √(2n/(n+1)) of the noise of a plan without segments."""
    plain, plan, parts = february(), february(*segments), len(segments) + 1
    factor = math.sqrt(2 * parts / (parts + 1))

    for place in range(len(plan.series)):
        for metric in plan.metrics:
            expected = plain.stddev(27, 0, metric) * factor
            assert expected == pytest.approx(plan.stddev(27, place, metric), rel=1e-9)


def test_combined_numbers_are_unbiased_and_add_up() -> None:
    """Without noise the counts come out; with it the parts still add up to the total."""
    plan = february(IOS, WEB, share=Fraction(2, 7))
    today = counts([[60, 600, 6], [30, 300, 3], [20, 200, 2], [10, 100, 1]])
    drawn = plan.draw(OpenDPNoise(), FEBRUARY)

    assert ((60.0, 600.0, 6.0), (30.0, 300.0, 3.0), (20.0, 200.0, 2.0)) == plan.estimates(
        3, today, [0] * 12
    )
    shifted = [today[place] for place in (0, 3, 2, 1)]
    rest = plan.noise_of_day(drawn, 3)
    swapped = rest[:3] + rest[9:] + rest[6:9] + rest[3:6]
    total, ios, web = plan.estimates(3, today, rest)
    same, other, _ = plan.estimates(3, shifted, swapped)
    assert total == same
    for column in range(3):
        added = math.fsum([ios[column], web[column], other[column]])
        assert total[column] == pytest.approx(added, abs=1e-6)


def test_half_widths_cover_the_noise() -> None:
    """The half width is the least integer that covers the rounded noise, from the published one."""
    plan = february(IOS, share=Fraction(3, 4))
    for place in range(2):
        for metric in plan.metrics:
            half = plan.half_width(9, place, metric)
            spread = plan.stddev(9, place, metric) * math.sqrt(2)
            assert math.erf((half + 0.5) / spread) >= 0.95 > math.erf((half - 0.5) / spread)
    assert plan.half_width(9, 0, Metric.DAU, 0.5) < plan.half_width(9, 0, Metric.DAU)
    assert plan.stddev(9, 0, Metric.DAU) < plan.stddev(9, 1, Metric.DAU)


@pytest.mark.parametrize("day", [-1, 28])
def test_days_outside_the_month_are_refused(day: int) -> None:
    """A day index is one of the month's."""
    plan = february()
    for act in (
        lambda: plan.noise_of_day((0,) * 84, day),
        lambda: plan.estimates(day, counts([[1, 2, 3]]), (0,) * 3),
        lambda: plan.half_width(day, 0, Metric.DAU),
    ):
        with pytest.raises(InvalidPlanError, match="day index"):
            act()


def test_other_counts_are_refused() -> None:
    """Counts of other bounds, or more or fewer of them, meet no noise; no message holds a count."""
    plan = february(IOS)
    good = counts([[91, 92, 93]] * 3)
    loose = BoundedCount(91, ContributionBounds(1, 1), Unit.USER)
    huge = BoundedCount(2**62, BOUNDS, Unit.USER)
    for wrong, noise in (
        ([[loose, *good[0][1:]], *good[1:]], (0,) * 9),
        ([[huge, *good[0][1:]], *good[1:]], (0,) * 9),
        (good[:2], (0,) * 9),
        ([row[:2] for row in good], (0,) * 9),
        (good, (0,) * 8),
    ):
        with pytest.raises(InvalidPlanError) as refused:
            plan.estimates(0, wrong, noise)
        assert "91" not in refused.value.message
    with pytest.raises(InvalidPlanError, match="whole month"):
        plan.noise_of_day((0,) * 84, 0)


def test_each_month_has_one_plan() -> None:
    """The id is the month's."""
    assert "plan-2026-12" == month_plan_id("2026-12")
