"""The schedule: takes what is due, waits for the next day, and survives what fails."""

import datetime as dt
import sqlite3
import threading
from pathlib import Path

import pytest

from dpdau.domain import Metric
from dpdau.errors import InvalidPlanError, StoreUnavailableError
from dpdau.schedule import RETRY_SECONDS, WAKE_SECONDS_MAX, Schedule
from products import event, product, send

NOW = dt.datetime(2026, 2, 10, 12, tzinfo=dt.UTC)


def test_a_turn_opens_the_month_and_takes_every_closed_day(tmp_path: Path) -> None:
    """Under the plan policy a turn publishes all that is due; the next turn finds nothing."""
    with product(tmp_path, now=NOW, RELEASE_POLICY="plan") as app:
        send(app, [event("a", dt.date(2026, 2, 8))])
        schedule = Schedule(app)
        wait = schedule.turn()
        status = app.month("2026-02")
        released = app.series([Metric.DAU], dt.date(2026, 2, 1), dt.date(2026, 2, 28))

        assert (0, 8) == (app.take_due(), status.days_taken)
    assert [0] * 7 + [1] == [one.release.estimate for one in released]
    assert WAKE_SECONDS_MAX == wait


def test_on_demand_nothing_is_opened(tmp_path: Path) -> None:
    """Without the policy a turn charges nothing; a plan that is open goes on."""
    with product(tmp_path, now=NOW) as app:
        assert 0 == app.take_due()
        assert 0.0 == app.budget("plan").epsilon_spent
        app.open_month("2026-02")
        assert 24 == app.take_due()


def test_the_wait_ends_when_the_next_day_closes(tmp_path: Path) -> None:
    """Shortly before a day closes the wait is what is left."""
    almost = dt.datetime(2026, 2, 10, 23, 59, 30, tzinfo=dt.UTC)
    with product(tmp_path, now=almost) as app:
        assert 30.0 == Schedule(app).turn()


def test_a_failure_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that fails asks for another one soon, and does not end the thread."""
    with product(tmp_path, now=NOW, RELEASE_POLICY="plan") as app:

        def busy(*_: object, **__: object) -> None:
            raise StoreUnavailableError("busy")

        with monkeypatch.context() as patch:
            patch.setattr(app._store, "freeze", busy)
            assert RETRY_SECONDS == Schedule(app).turn()
            assert 0 == app.month("2026-02").days_taken
        Schedule(app).turn()

        assert 8 == app.month("2026-02").days_taken


@pytest.mark.parametrize(
    ("error", "wait"),
    [(sqlite3.IntegrityError("any"), RETRY_SECONDS), (InvalidPlanError("no"), WAKE_SECONDS_MAX)],
)
def test_no_error_ends_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, wait: float
) -> None:
    """An error of any kind is logged and tried again; what stays refused, less often."""
    with product(tmp_path, now=NOW) as app:

        def fail() -> int:
            raise error

        monkeypatch.setattr(app, "take_due", fail)

        assert wait == Schedule(app).turn()


def test_an_unfinished_plan_keeps_what_it_needs_from_the_purge(tmp_path: Path) -> None:
    """Activity that a plan fixed and still counts outlives its retention."""
    with product(tmp_path, now=NOW, RELEASE_POLICY="plan", RETENTION_DAYS=45) as app:
        send(app, [event("a", dt.date(2026, 1, 10))])
        assert 1 == app.release(Metric.MAU, dt.date(2026, 2, 8)).release.estimate
    later = NOW + dt.timedelta(days=22)
    with product(
        tmp_path, now=later, RELEASE_POLICY="plan", RETENTION_DAYS=45, serve_at="http://127.0.0.1"
    ) as app:
        assert 0 == app.release(Metric.MAU, dt.date(2026, 2, 9)).release.estimate
        assert dt.date(2026, 2, 10) == app.month("2026-02").next_day
        assert dt.date(2026, 1, 10) == app._store.stats().first_day
        app.take_due()
        assert 28 == app.month("2026-02").days_taken


def test_the_thread_ends_when_it_is_closed(tmp_path: Path) -> None:
    """Closing the app stops the schedule that is attached to it."""
    turned = threading.Event()

    class Counted(Schedule):
        """Says when it turned."""

        def turn(self) -> float:
            turned.set()
            return super().turn()

    with product(tmp_path, now=NOW) as app:
        schedule = Counted(app)
        app.attach(schedule)
        schedule.start()
        assert turned.wait(30)
    assert not schedule._thread.is_alive()
