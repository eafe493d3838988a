"""The nouns: their own validity, and that the private ones do not show what they hold."""

import datetime as dt
import json

import numpy as np
import pytest

from dpdau.domain import (
    GROWTH,
    Answer,
    BoundedCount,
    BudgetBlock,
    ContributionBounds,
    EventBatch,
    Figure,
    GrowthAnswer,
    GrowthTotal,
    Metric,
    Release,
    Segment,
    Unit,
    Window,
    check_range,
    day_date,
    day_number,
    month_days,
    month_of,
    parse_day,
    published,
)
from dpdau.errors import InvalidPlanError

BLOCK = BudgetBlock(
    metric="mau",
    period="2026-02",
    filter="zcdp",
    epsilon_cap=3.5,
    epsilon_spent=0.5,
    epsilon_remaining=3.0,
    delta=1e-6,
    rdp_orders=(2, 4),
    rdp_curve=((2, 0.1), (4, 0.2)),
    best_rdp_epsilon=0.7,
    best_rdp_order=4,
    advanced_epsilon=0.5,
    advanced_delta=1e-7,
    pld_epsilon=0.4,
    reported_delta=1e-6,
    rho_spent="1/200",
    release_count=1,
    policy="on_demand",
)

ANSWER_FIELDS = set(
    """
    metric day window_days window_start window_end timezone segment estimate lower_95 upper_95
    noise_stddev epsilon_used delta mechanism sketch_impl released_at release_id replayed status
    budget_remaining budget version exact_value
    """.split()
)
BLOCK_FIELDS = set(
    """
    metric period filter epsilon_cap epsilon_spent epsilon_remaining delta rdp_orders rdp_curve
    best_rdp_epsilon best_rdp_order advanced_epsilon advanced_delta pld_epsilon rho_spent
    release_count policy
    """.split()
)


def release(**changes: object) -> Release:
    """A release, with some fields changed."""
    fields: dict[str, object] = {
        "release_id": "rel-1",
        "plan_id": "od-1",
        "step": 0,
        "metric": Metric.MAU,
        "window": Window(dt.date(2026, 2, 3), 30),
        "segment": Segment("platform", "ios"),
        "timezone": "UTC",
        "estimate": -3,
        "lower_95": -20,
        "upper_95": 14,
        "noise_stddev": 8.5,
        "mechanism": "discrete_gaussian",
        "sketch_impl": "exact",
        "epsilon": 0.5,
        "delta": 1e-6,
        "status": "final",
        "version": "0",
        "released_at": dt.datetime(2026, 2, 5, tzinfo=dt.UTC),
    }
    return Release(**{**fields, **changes})  # type: ignore[arg-type]


def test_day_numbers_and_dates_are_inverse() -> None:
    """A day number counts from 1970-01-01, both ways."""
    assert 0 == day_number(dt.date(1970, 1, 1))
    assert dt.date(1997, 3, 31) == day_date(day_number(dt.date(1997, 3, 31)))
    assert "1997-03" == month_of(dt.date(1997, 3, 31))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "20260102",
        "2026-W01-5",
        "2026-1-2",
        "2026-01-02T00:00:00",
        " 2026-01-02",
        "2026-02-30",
    ],
)
def test_a_day_is_written_one_way(text: str) -> None:
    """Only YYYY-MM-DD is a day; anything else could spend budget on a day nobody meant."""
    with pytest.raises(InvalidPlanError):
        parse_day(text)


@pytest.mark.parametrize("days", [0, 65, -1])
def test_a_window_has_1_to_64_days(days: int) -> None:
    """Other windows are refused."""
    with pytest.raises(InvalidPlanError):
        Window(dt.date(2026, 1, 1), days)


def test_a_window_includes_both_ends() -> None:
    """The window of 7 days that ends on the 7th starts on the 1st."""
    assert dt.date(2026, 1, 1) == Window(dt.date(2026, 1, 7), 7).start


@pytest.mark.parametrize("text", ["", "platform", "=ios", "platform="])
def test_a_segment_has_two_sides(text: str) -> None:
    """Text that is not dimension=value is refused."""
    with pytest.raises(InvalidPlanError):
        Segment.parse(text)


def test_private_nouns_show_nothing() -> None:
    """Neither a bounded count nor a batch shows what it holds."""
    count = BoundedCount(48_271, ContributionBounds(), Unit.USER)
    batch = EventBatch(
        events=1,
        pseudonym=np.array([0xDEADBEEF], np.uint64),
        day=np.array([3], np.int32),
        add=np.array([True]),
        event_index=np.array([0], np.int32),
        event_id=np.array([0], np.uint64),
        aliases=np.empty((0, 1), np.uint64),
    )

    for text in (repr(count), str(count), f"{count}", repr(batch), str(batch)):
        assert "48271" not in text
        assert str(0xDEADBEEF) not in text
    with pytest.raises(TypeError):
        json.dumps(count)


def test_a_release_survives_its_json() -> None:
    """What is written is read back, with and without a segment."""
    for one in (release(), release(segment=None)):
        assert one == Release.from_json(json.loads(json.dumps(one.to_json())))


def test_an_answer_survives_its_json() -> None:
    """An answer read back equals the one that was written."""
    answer = Answer(release(), True, BLOCK)

    assert answer == Answer.from_json(json.loads(json.dumps(answer.to_json())))
    assert "unsafe" not in answer.to_json()
    assert Answer(release(), True, BLOCK, exact_value=5).to_json()["unsafe"] is True


def growth_answer(current: int = 96) -> GrowthAnswer:
    """Four cells of 32 users each and their totals."""
    numbers = {"estimate": 32, "lower_95": 15, "upper_95": 49, "plan_id": "growth-1"}
    cells = tuple(release(metric=figure, segment=None, **numbers) for figure in GROWTH)
    window = cells[0].window
    return GrowthAnswer(
        cells=cells,
        current=GrowthTotal(window, current, 29, 15.1),
        previous=GrowthTotal(window.before, 64, 24, 12.2),
        replayed=False,
        budget=BLOCK,
    )


def test_a_growth_answer_survives_its_json() -> None:
    """Cells and totals read back equal those that were written; each cell has its name."""
    answer = growth_answer()
    body = json.loads(json.dumps(answer.to_json()))

    assert answer == GrowthAnswer.from_json(body)
    assert {figure.value for figure in GROWTH} < set(body)
    assert (67, 125, 29) == tuple(
        body["current"][name] for name in ("lower_95", "upper_95", "half_width_95")
    )


def test_growth_totals_are_sums_of_what_is_published() -> None:
    """A total that is not the sum of its cells is a bug."""
    with pytest.raises(AssertionError):
        growth_answer(current=97)


def test_the_window_before_ends_where_a_window_starts() -> None:
    """Two neighboring windows have the same length and no day in common."""
    window = Window(dt.date(2026, 3, 10), 30)

    assert Window(dt.date(2026, 2, 8), 30) == window.before
    assert window.start - dt.timedelta(days=1) == window.before.end
    with pytest.raises(InvalidPlanError):
        _ = Window(dt.date(1900, 1, 1), 1).before


def test_a_range_of_days_is_neither_empty_nor_endless() -> None:
    """One day to ten years; backwards is refused."""
    day = dt.date(2026, 3, 10)
    check_range(day, day)
    check_range(day, day + dt.timedelta(days=3659))
    for days in (-1, 3660):
        with pytest.raises(InvalidPlanError):
            check_range(day, day + dt.timedelta(days=days))


def test_an_answer_has_the_fields_of_the_contract() -> None:
    """No field of the contract is missing."""
    body = Answer(release(), False, BLOCK).to_json()

    assert set() == ANSWER_FIELDS - set(body)
    assert BLOCK_FIELDS | {"reported_delta"} == set(body["budget"])
    assert body["exact_value"] is None


def test_an_estimate_lies_in_its_interval() -> None:
    """A release whose interval misses its estimate is a bug."""
    with pytest.raises(AssertionError):
        release(estimate=50)


def test_a_month_has_its_first_and_last_day() -> None:
    """Months end on their own last day; what is no month is refused."""
    assert (dt.date(2024, 2, 1), dt.date(2024, 2, 29)) == month_days("2024-02")
    assert (dt.date(2025, 12, 1), dt.date(2025, 12, 31)) == month_days("2025-12")
    for text in ("2024-13", "2024-2", "february", "2024-02-01", "9999-12", ""):
        with pytest.raises(InvalidPlanError):
            month_days(text)


def test_published_names_are_metrics_or_figures() -> None:
    """Each name has one meaning, and an unknown one none."""
    assert (Metric.DAU, Figure.LIVE) == (published("dau"), published("live"))
    assert set() == {one.value for one in Metric} & {one.value for one in Figure}
    with pytest.raises(ValueError, match="yau"):
        published("yau")
