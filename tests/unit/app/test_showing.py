"""What readers see of budgets: courses, forecasts, prices at other terms, steps of shares."""

import datetime as dt
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from dpdau.app import App
from dpdau.app import showing as showing_module
from dpdau.app.showing import Showing
from dpdau.domain import Metric
from dpdau.errors import InvalidPlanError
from products import DAY, NOW, ZeroNoise, event, product, product_settings, send

MONTH = "2026-03"


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[tuple[App, list[dt.datetime]]]:
    """A product on demand, whose clock the test moves."""
    now = [NOW]
    app = App.open(product_settings(tmp_path), clock=lambda: now[0], noise=ZeroNoise())
    with app.closing():
        yield app, now


def test_a_course_has_each_charge_and_when_it_ends(
    moving: tuple[App, list[dt.datetime]],
) -> None:
    """Two charges in two days leave eight tenths: eight more days at this pace."""
    app, now = moving
    for day in (9, 10):
        app.release(Metric.DAU, dt.date(2026, 3, day))
        now[0] += dt.timedelta(days=1)

    course = next(one for one in Showing(app).courses(MONTH) if one.metric == "dau")

    assert [0.9, 0.8] == [round(left, 9) for _, left in course.points]
    assert (0.6, 2.4, 8) == (course.epsilon_spent, course.epsilon_remaining, course.more)
    assert now[0] + dt.timedelta(days=8) == course.ends_at
    assert "At this pace it is used up on 2026-03-25." == course.forecast


@pytest.mark.parametrize(
    ("charges", "later", "told"),
    [
        (0, dt.timedelta(0), "Nothing is charged yet."),
        (10, dt.timedelta(0), "Used up: no further charge fits."),
        (1, dt.timedelta(days=9), "At this pace it lasts past the month."),
        (1, dt.timedelta(days=30), "The month is over."),
    ],
)
def test_a_forecast_says_what_can_be_said(
    moving: tuple[App, list[dt.datetime]], charges: int, later: dt.timedelta, told: str
) -> None:
    """And no more than that."""
    app, now = moving
    for place in range(charges):
        app.release(Metric.DAU, DAY - dt.timedelta(days=place % 9), fresh=True)
    now[0] += later

    course = next(one for one in Showing(app).courses(MONTH) if one.metric == "dau")

    assert told == course.forecast
    assert course.ends_at is None or charges == 10


def test_a_long_course_is_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last charge stays, and what is left is that of all."""
    monkeypatch.setattr(showing_module, "POINTS_MAX", 3)
    with product(tmp_path, DAU_BUDGET_TOTAL=3) as app:
        for _ in range(8):
            app.release(Metric.DAU, DAY, fresh=True)
        course = next(one for one in Showing(app).courses(MONTH) if one.metric == "dau")

    assert [0.9, 0.7, 0.5, 0.3, 0.2] == [left for _, left in course.points]


def test_a_grant_changes_no_moment_before_it(moving: tuple[App, list[dt.datetime]]) -> None:
    """Of the cap that held then; the grant is a step up, and the last share is what is left."""
    app, now = moving
    app.release(Metric.DAU, dt.date(2026, 3, 9))
    now[0] += dt.timedelta(days=1)
    before = next(one for one in Showing(app).courses(MONTH) if one.metric == "dau")
    app.grant("dau", DAY, reason="an audit")
    now[0] += dt.timedelta(days=1)
    app.release(Metric.DAU, dt.date(2026, 3, 10))

    course = next(one for one in Showing(app).courses(MONTH) if one.metric == "dau")

    assert [0.9] == [left for _, left in before.points]
    assert [0.9, 0.95, 0.9] == [left for _, left in course.points]
    assert (course.points[1][0],) == course.grants
    assert (6.0, 5.4) == (course.epsilon_cap, course.epsilon_remaining)


def test_a_course_ends_with_what_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there are more charges than are read."""
    monkeypatch.setattr(showing_module, "CHARGES_READ_MAX", 1)
    monkeypatch.setattr(showing_module, "_PAGE", 1)
    with product(tmp_path) as app:
        for _ in range(4):
            app.release(Metric.DAU, DAY, fresh=True)
        course = next(one for one in Showing(app).courses(MONTH) if one.metric == "dau")

    assert [0.9, 0.6] == [left for _, left in course.points]


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    """A month that is far ahead; a store that only passes events on, which erases nobody."""
    with product(tmp_path / "own", RELEASE_POLICY="plan") as app:
        showing = Showing(app)
        assert showing.cannot_open(MONTH) is None
        assert showing.cannot_erase() is None
        assert "within 30 days" in str(showing.cannot_open("2026-06"))
        assert (3, Fraction(1, 1_000_000)) == showing.charge(MONTH)
    kafka = {
        "INGEST_MODE": "kafka",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "KAFKA_TOPIC": "events",
    }
    with product(tmp_path / "gateway", RELEASE_POLICY="plan", **kafka) as app:
        showing = Showing(app)
        assert "only passes events on" in str(showing.cannot_open(MONTH))
        assert "only passes events on" in str(showing.cannot_erase())


def test_a_plan_is_paid_once_and_waits_for_days(tmp_path: Path) -> None:
    """Its course drops to nothing; the first day to come and its close are told."""
    with product(tmp_path, RELEASE_POLICY="plan") as app:
        showing = Showing(app)
        assert showing.waiting() is None
        assert showing.span() is None
        app.take_due()
        plan = showing.courses(MONTH)[0]
        waiting = showing.waiting()

        assert (dt.date(2026, 3, 1), dt.date(2026, 3, 13)) == showing.span()
    assert [0.0] == [left for _, left in plan.points]
    assert "Paid: one charge covers the whole month." == plan.forecast
    assert (dt.date(2026, 3, 14), dt.datetime(2026, 3, 16, tzinfo=dt.UTC)) == waiting


def test_a_price_at_other_terms_changes_none_of_ours(tmp_path: Path) -> None:
    """An open plan is what it is, whatever is asked for."""
    with product(tmp_path, RELEASE_POLICY="plan") as app:
        showing = Showing(app)
        dear, cheap = (showing.price(MONTH, epsilon=one) for one in ("6", "0.6"))
        app.open_month(MONTH)
        stored = showing.price(MONTH, epsilon="6", mau_window_days=28)
        with pytest.raises(InvalidPlanError, match="a window of"):
            showing.price(MONTH, mau_window_days=29)

    assert dear.lines[0].noise_stddev < cheap.lines[0].noise_stddev
    assert (False, True, 3.0) == (dear.opened, stored.opened, stored.epsilon)


@pytest.mark.parametrize(
    "asked",
    [
        {"epsilon": "0"},
        {"epsilon": "51"},
        {"epsilon": "NaN"},
        {"epsilon": "-1"},
        {"delta": "1"},
        {"delta": "0"},
        {"delta": "Infinity"},
        {"delta": "x"},
    ],
)
def test_terms_out_of_range_are_refused(tmp_path: Path, asked: dict[str, str]) -> None:
    """Before anything is computed."""
    with product(tmp_path, RELEASE_POLICY="plan") as app, pytest.raises(InvalidPlanError):
        Showing(app).price(MONTH, **asked)


def test_shares_of_events_are_steps(tmp_path: Path) -> None:
    """One event more moves nothing that is near no step; thousands are told as such."""
    with product(tmp_path) as app:
        showing = Showing(app)
        assert "none so far" == showing.intake()["received"]
        send(app, [event(f"u{one}") for one in range(1990)] + [event("")] * 10)
        told = showing.intake()
        send(app, [event("one-more")])

        assert told == showing.intake()
    assert {
        "received": "1,000 or more",
        "accepted": "over 50 %",
        "duplicate": "none",
        "late": "none",
        "rejected": "under 1 %",
    } == told


def test_budgets_of_the_live_counter_are_shown_where_it_is_on(tmp_path: Path) -> None:
    """Its budget is one of the month's, and in the sum of all."""
    with product(tmp_path, RELEASE_POLICY="plan", LIVE_EPSILON=1.0) as app:
        names = [one.metric for one in Showing(app).courses(MONTH)]
        rows = {one.budget: one.month for one in Showing(app).implied(MONTH)}

    assert ["plan", "dau", "wau", "mau", "live"] == names
    assert (1.0, 1e-6) == rows["live"]
    assert 9.32 == rows["all"][0]
