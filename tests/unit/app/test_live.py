"""The live counter as the fronts see it: which ticks follow, and when it is due."""

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpdau.app import App
from dpdau.errors import InvalidPlanError, StoreCorruptError, StoreUnavailableError
from products import ZeroNoise, event, product, product_settings, send

START = dt.datetime(2026, 2, 26, 0, 0, 1, tzinfo=dt.UTC)


def test_what_follows_a_tick(tmp_path: Path) -> None:
    """Today's ticks at first, then what is new; after a tick of yesterday, all since then."""
    now = [START]
    settings = product_settings(tmp_path, LIVE_EPSILON=1.0, LIVE_TICKS=2)

    def opened() -> App:
        return App.open(settings, clock=lambda: now[0], noise=ZeroNoise())

    def told(app: App, after: str | None = None) -> list[int]:
        return [one.step for one in app.live.since(after)]

    with opened().closing() as app:
        app.take_due()
        seen = [told(app)]
        due = app.next_due()
        for hours in (12, 24, 36):
            now[0] = START + dt.timedelta(hours=hours)
            send(app, [event(f"u{hours}", now[0].date())])
            app.take_due()
            seen.append(told(app))
        first = app.releases(after=None, limit=1)[0][0].release_id
        seen += [told(app, first), told(app, "rel-unknown")]
    # What another process released is read from the ledger.
    with opened().closing() as app:
        seen += [told(app), told(app, first)]

    assert dt.datetime(2026, 2, 26, 12, tzinfo=dt.UTC) == due
    assert [[], [0], [], [2], [1, 2], [2], [2], [1, 2]] == seen


@pytest.fixture
def ticking(tmp_path: Path) -> Iterator[tuple[App, list[dt.datetime]]]:
    """An app with two ticks a day, opened at the start of a day, and its clock."""
    now = [START]
    settings = product_settings(tmp_path, LIVE_EPSILON=1.0, LIVE_TICKS=2)
    with App.open(settings, clock=lambda: now[0], noise=ZeroNoise()).closing() as app:
        app.take_due()
        yield app, now


def test_a_tick_of_a_turn_that_failed_is_told(
    ticking: tuple[App, list[dt.datetime]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was released before the failure is in the stream, once."""
    app, now = ticking
    assert () == app.live.since(None)
    now[0] = START + dt.timedelta(hours=12)

    def busy(_before: dt.date) -> None:
        raise StoreUnavailableError("a reader holds the log")

    with monkeypatch.context() as patch:
        patch.setattr(app._store.live, "end", busy)
        with pytest.raises(StoreUnavailableError):
            app.take_due()

    told = app.live.since(None)
    assert [0] == [one.step for one in told]
    assert () == app.live.since(told[0].release_id)


def test_a_tick_is_told_once_whoever_looks_meanwhile(
    ticking: tuple[App, list[dt.datetime]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader who comes between the release and the end of the turn sees nothing twice."""
    app, now = ticking
    now[0] = START + dt.timedelta(hours=12)
    real, seen = app._store.live.end, []

    def looked(before: dt.date) -> None:
        seen.extend(app.live.since(None))
        real(before)

    monkeypatch.setattr(app._store.live, "end", looked)
    app.take_due()

    assert [0] == [one.step for one in seen]
    assert () == app.live.since(seen[0].release_id)


def test_no_failure_of_the_counter_stops_the_plans(
    ticking: tuple[App, list[dt.datetime]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Days are taken although the live counter fails in any way, and the failure is heard of."""
    app, now = ticking
    app.open_month("2026-02")
    now[0] = START + dt.timedelta(hours=12)

    def broken(_day: dt.date) -> int:
        raise AssertionError("a bug")

    monkeypatch.setattr(app._store.live, "count", broken)
    with pytest.raises(AssertionError):
        app.take_due()

    assert 24 == app.month("2026-02").days_taken


def test_an_older_copy_of_the_store_is_refused(tmp_path: Path) -> None:
    """Who left the day since the copy was made would be let in again."""
    now = [START]
    settings = product_settings(tmp_path, LIVE_EPSILON=1.0, LIVE_TICKS=4)

    def turn(*hours: int) -> None:
        with App.open(settings, clock=lambda: now[0], noise=ZeroNoise()).closing() as app:
            for one in hours:
                now[0] = START + dt.timedelta(hours=one)
                app.take_due()

    turn(0, 6)
    activity, copy = settings.DATA_DIR / "activity", tmp_path / "copy"
    shutil.copytree(activity, copy)
    turn(12)
    shutil.rmtree(activity)
    shutil.copytree(copy, activity)
    with pytest.raises(StoreCorruptError, match="older copy"):
        turn(18)


def test_another_zone_is_refused(tmp_path: Path) -> None:
    """The ticks of an open plan are those of the zone that it was opened with."""
    with product(tmp_path, now=START, LIVE_EPSILON=1.0) as app:
        app.take_due()
    later = START + dt.timedelta(hours=2)
    with (
        product(tmp_path, now=later, LIVE_EPSILON=1.0, TIMEZONE="Asia/Tokyo") as app,
        pytest.raises(InvalidPlanError, match="TIMEZONE=UTC"),
    ):
        app.take_due()
