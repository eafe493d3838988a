"""The one road out: closed days only, charged once, refused by the ledger alone."""

import datetime as dt
import sqlite3
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dpdau.domain import Metric, Segment, Window
from dpdau.errors import (
    BudgetExhaustedError,
    InvalidPlanError,
    LedgerCorruptError,
    ReleaseNotReadyError,
    StoreUnavailableError,
)
from dpdau.release import Calendar
from products import DAY, NOW, ZeroNoise, event, product, send


@pytest.mark.parametrize(
    ("zone", "grace_hours", "expected"),
    [
        ("UTC", 24, "2026-03-12T00:00:00+00:00"),
        ("UTC", 0, "2026-03-11T00:00:00+00:00"),
        ("America/Los_Angeles", 0, "2026-03-11T07:00:00+00:00"),
        ("Asia/Tokyo", 1, "2026-03-10T16:00:00+00:00"),
    ],
)
def test_a_day_closes_at_its_end_in_the_zone_plus_grace(
    zone: str, grace_hours: int, expected: str
) -> None:
    """The closing moment follows the zone and the grace hours."""
    calendar = Calendar(zone=ZoneInfo(zone), grace_hours=grace_hours, clock=lambda: NOW)

    assert expected == calendar.closes_at(DAY).isoformat()


def test_a_day_of_23_hours_closes_at_its_own_end() -> None:
    """On the day on which clocks go forward, the day ends an hour earlier in UTC."""
    calendar = Calendar(zone=ZoneInfo("Europe/Berlin"), grace_hours=0, clock=lambda: NOW)

    assert "2026-03-29T22:00:00+00:00" == calendar.closes_at(dt.date(2026, 3, 29)).isoformat()


def test_an_open_day_is_refused_until_it_closes(tmp_path: Path) -> None:
    """One second before the closing moment the day is refused; at it, released."""
    closing = dt.datetime(2026, 3, 12, tzinfo=dt.UTC)
    with product(tmp_path, now=closing - dt.timedelta(seconds=1)) as app:
        with pytest.raises(ReleaseNotReadyError) as caught:
            app.release(Metric.DAU, DAY)
        assert 0 == app.budget("dau", DAY).release_count
    assert closing.isoformat() == caught.value.facts["closes_at"]

    with product(tmp_path, now=closing) as app:
        assert 0 == app.release(Metric.DAU, DAY).release.estimate


def test_the_count_is_that_of_the_window(tmp_path: Path) -> None:
    """With noise off, each metric is the number of distinct users of its window."""
    with product(tmp_path) as app:
        send(app, [event(f"u{back}", DAY - dt.timedelta(days=back)) for back in range(40)])
        send(app, [event("u0", DAY - dt.timedelta(days=back)) for back in range(40)])

        answers = [app.release(metric, DAY).release for metric in Metric]
        wide = app.release(Metric.MAU, DAY, window_days=40).release

    assert [1, 7, 30, 40] == [one.estimate for one in (*answers, wide)]
    assert Window(DAY, 40) == wide.window
    assert all(one.lower_95 < one.estimate < one.upper_95 for one in answers)


def test_asking_again_costs_nothing_and_answers_the_same(tmp_path: Path) -> None:
    """A second question replays the first release, also after the data changed and a restart."""
    noise = ZeroNoise()
    with product(tmp_path, noise=noise) as app:
        send(app, [event("a")])
        first = app.release(Metric.DAU, DAY)
        send(app, [event("b")])
        second = app.release(Metric.DAU, DAY)
    with product(tmp_path, noise=noise) as app:
        third = app.release(Metric.DAU, DAY)

    assert first.release == second.release == third.release
    assert (False, True, True) == (first.replayed, second.replayed, third.replayed)
    assert first.budget == third.budget
    assert 1 == noise.draws


def test_a_stored_answer_is_given_whatever_the_settings_are(tmp_path: Path) -> None:
    """Neither a longer grace nor another ε changes or refuses what was released."""
    with product(tmp_path) as app:
        first = app.release(Metric.DAU, DAY)
    with product(tmp_path, GRACE_HOURS=700, EPSILON_DAU=0.2) as app:
        again = app.release(Metric.DAU, DAY)

    assert first.release == again.release


def test_a_fresh_release_is_a_new_one_with_its_own_charge(tmp_path: Path) -> None:
    """`fresh` buys a new number; from then on it is the answer."""
    with product(tmp_path) as app:
        send(app, [event("a")])
        first = app.release(Metric.DAU, DAY)
        send(app, [event("b")])
        bought = app.release(Metric.DAU, DAY, fresh=True)
        again = app.release(Metric.DAU, DAY)

    assert [1, 2, 2] == [one.release.estimate for one in (first, bought, again)]
    assert (0.6, 2) == (again.budget.epsilon_spent, again.budget.release_count)


def test_a_refusal_charges_nothing_and_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of budget, the exact count is never read and the ledger does not change."""
    with product(tmp_path, DAU_BUDGET_TOTAL=0.5) as app:
        app.release(Metric.DAU, DAY)
        before = app.budget("dau", DAY)
        monkeypatch.setattr("dpdau.aggregates.distinct_users", _must_not_be_called)
        with pytest.raises(BudgetExhaustedError) as caught:
            app.release(Metric.DAU, DAY - dt.timedelta(days=1))

        assert before == app.budget("dau", DAY)
        assert app.ledger.verify().ok
    assert caught.value.facts["budget"]


def test_a_fresh_release_asks_for_a_closed_day_too(tmp_path: Path) -> None:
    """A longer grace keeps a day open for `fresh`, although an answer is stored."""
    with product(tmp_path) as app:
        app.release(Metric.DAU, DAY)
    with product(tmp_path, GRACE_HOURS=700) as app, pytest.raises(ReleaseNotReadyError):
        app.release(Metric.DAU, DAY, fresh=True)


def test_a_purged_window_is_refused(tmp_path: Path) -> None:
    """A window that reaches into purged days is refused, not released too low; replays stay."""
    with product(tmp_path) as app:
        send(app, [event("a", DAY - dt.timedelta(days=29))])
        first = app.release(Metric.MAU, DAY)
    with product(tmp_path, RETENTION_DAYS=33) as app:
        again = app.release(Metric.MAU, DAY)
        with pytest.raises(InvalidPlanError, match="RETENTION_DAYS"):
            app.release(Metric.MAU, DAY, fresh=True)
        assert app.release(Metric.WAU, DAY).release.estimate == 0

    assert first.release == again.release


def test_a_busy_store_charges_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process writes the store a new release is refused whole; a replay is not."""
    monkeypatch.setattr("dpdau.app.wiring.WRITER_WAIT_SECONDS", 0.05)
    with product(tmp_path) as app, product(tmp_path) as other:
        stored = app.release(Metric.DAU, DAY)
        before = app.budget("mau", DAY)
        with pytest.raises(StoreUnavailableError):
            other.release(Metric.MAU, DAY)

        assert before == app.budget("mau", DAY)
        assert stored.release == other.release(Metric.DAU, DAY).release


def test_an_older_ledger_put_in_place_under_way_is_refused(tmp_path: Path) -> None:
    """Copying a backup over the open ledger refunds nothing: the next call stops."""
    ledger = tmp_path / "data" / "ledgers" / "ledger.sqlite"
    with product(tmp_path) as app:
        app.release(Metric.DAU, DAY)
        app.ledger.backup(tmp_path / "older.sqlite")
        app.release(Metric.DAU, DAY, fresh=True)
    with product(tmp_path) as app:
        app.release(Metric.DAU, DAY)
        with sqlite3.connect(tmp_path / "older.sqlite") as old, sqlite3.connect(ledger) as now:
            old.backup(now)
        old.close()
        now.close()
        for fresh in (True, False):
            with pytest.raises(LedgerCorruptError):
                app.release(Metric.DAU, DAY, fresh=fresh)


def test_a_failed_count_leaves_no_charge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the count cannot be read, the charge is rolled back with it."""
    with product(tmp_path) as app:
        with monkeypatch.context() as patch:
            patch.setattr("dpdau.aggregates.distinct_users", _must_not_be_called)
            with pytest.raises(AssertionError):
                app.release(Metric.MAU, DAY)

        assert 0 == app.budget("mau", DAY).release_count
        assert 0 == app.release(Metric.MAU, DAY).release.estimate


def test_a_released_day_makes_its_later_events_late(tmp_path: Path) -> None:
    """After a release of a day, events for that day count as late and still correct the store."""
    with product(tmp_path) as app:
        send(app, [event("a")])
        app.release(Metric.DAU, DAY)
        report = send(app, [event("b"), event("b", DAY - dt.timedelta(days=1))])
        fresh = app.release(Metric.DAU, DAY, fresh=True)

    assert (1, 1) == (report.late, report.accepted)
    assert 2 == fresh.release.estimate


def test_a_segment_counts_its_own_users(tmp_path: Path) -> None:
    """A segment release counts the users first seen in it that month, under its own charge."""
    with product(tmp_path, DIMENSIONS=["platform"]) as app:
        send(
            app,
            [
                event("a", metadata={"platform": "ios"}),
                event("a", metadata={"platform": "web"}),
                event("b", metadata={"platform": "web"}),
                event("c"),
            ],
        )
        ios, web, tv = (
            app.release(Metric.DAU, DAY, segment=Segment("platform", value))
            for value in ("ios", "web", "tv")
        )
        with pytest.raises(InvalidPlanError, match="declared"):
            app.release(Metric.DAU, DAY, segment=Segment("country", "de"))

    assert [1, 1, 0] == [one.release.estimate for one in (ios, web, tv)]
    assert 3 == tv.budget.release_count


def test_the_exact_value_is_hidden_unless_asked_for_by_name(tmp_path: Path) -> None:
    """`exact_value` is None in a product that was not opened for debugging."""
    with product(tmp_path) as app:
        send(app, [event("a")])
        assert app.release(Metric.DAU, DAY).to_json()["exact_value"] is None
    with product(tmp_path, unsafe_debug=True) as app:
        body = app.release(Metric.DAU, DAY).to_json()

    assert (1, True) == (body["exact_value"], body["unsafe"])


def _must_not_be_called(*_: Any, **__: Any) -> None:
    raise AssertionError("a count was read")
