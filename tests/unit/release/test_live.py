"""Live plans: opened by the clock, a number a tick, noise drawn once and destroyed at the end."""

import datetime as dt
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dpdau.app import App
from dpdau.domain import Figure, Metric, Release
from dpdau.errors import InvalidPlanError, NotFoundError, StoreCorruptError, StoreUnavailableError
from dpdau.mechanisms.sampling import NoiseSource
from dpdau.release import NoiseDesk
from dpdau.release.live import TICK_LATE_MAX
from products import ZeroNoise, event, product_settings, send

MORNING = dt.datetime(2026, 2, 27, 0, 0, 1, tzinfo=dt.UTC)
DAY = MORNING.date()
ON = {"LIVE_EPSILON": 1.0, "LIVE_TICKS": 4}


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: dt.datetime = MORNING) -> None:
        self.now = now

    def __call__(self) -> dt.datetime:
        """What time it is."""
        return self.now

    def set(self, hour: float, day: dt.date = DAY) -> None:
        """So many hours after the day began in UTC."""
        self.now = dt.datetime.combine(day, dt.time(), dt.UTC) + dt.timedelta(hours=hour)


@contextmanager
def running(
    root: Path, clock: Clock, *, noise: NoiseSource | None = None, **changes: Any
) -> Iterator[App]:
    """A product with a clock that moves."""
    source = ZeroNoise() if noise is None else noise
    app = App.open(
        product_settings(root, **{**ON, **changes}),
        clock=clock,
        noise=source,
        desk=NoiseDesk(source, seconds=0.0),
    )
    with app.closing():
        yield app


def ticks(app: App) -> list[Release]:
    """Every live number in the ledger, in order."""
    return [one for one in app.releases(after=None, limit=1000)[0] if one.metric is Figure.LIVE]


def test_each_tick_is_the_day_so_far(tmp_path: Path) -> None:
    """With noise off each tick is the exact count of its moment; the last is the end of the day."""
    clock = Clock()
    with running(tmp_path, clock) as app:
        taken = [app.take_due()]
        for number in range(1, 5):
            send(app, [event(f"u{number}", DAY), event("other", DAY - dt.timedelta(days=1))])
            clock.set(6 * number)
            taken += [app.take_due(), app.take_due()]
        found, block = ticks(app), app.budget("live")
        true = app.exact({Metric.DAU: 1}, DAY, DAY, reason="test")[Metric.DAU]

        assert [0, 1, 0, 1, 0, 1, 0, 1, 0] == taken
        assert [1, 2, 3, 4] == [one.estimate for one in found]
        assert 4 == int(true[0])
        assert [0, 1, 2, 3] == [one.step for one in found]
        assert {(DAY, 1, "live", "UTC", 1.0, 1e-6, "live-2026-02")} == {
            (w.window.end, w.window.days, w.status, w.timezone, w.epsilon, w.delta, w.plan_id)
            for w in found
        }
        assert all(one.lower_95 < one.estimate < one.upper_95 for one in found)
        assert (1.0, 1.0, 4, "live") == (
            block.epsilon_cap,
            block.epsilon_spent,
            block.release_count,
            block.metric,
        )
        assert [] == app.series(list(Metric), DAY, DAY)
        assert app.ledger.verify().ok


def test_a_missed_tick_is_skipped(tmp_path: Path) -> None:
    """A tick that nobody took within its minutes is left out, and the later ones go on."""
    clock = Clock()
    with running(tmp_path, clock) as app:
        app.take_due()
        taken = []
        for hour in (6.0, 12 + TICK_LATE_MAX / dt.timedelta(hours=1) + 0.001, 17.9, 18.01, 24.0):
            clock.set(hour)
            taken.append(app.take_due())

        assert [1, 0, 0, 1, 1] == taken
        assert [0, 2, 3] == [one.step for one in ticks(app)]
        assert app.ledger.verify().ok


def test_opening_does_not_depend_on_the_data(tmp_path: Path) -> None:
    """An empty store is charged as a full one, on the first turn of the month's rest, once."""
    for name in ("empty", "full"):
        clock, source = Clock(), ZeroNoise()
        with running(tmp_path / name, clock, noise=source) as app:
            if name == "full":
                send(app, [event(f"u{n}", DAY) for n in range(5)])
            app.take_due()
            app.take_due()

            assert (1.0, 8) == (app.budget("live").epsilon_spent, source.draws)


def test_off_is_off(tmp_path: Path) -> None:
    """Without LIVE_EPSILON nothing is charged or drawn, and there is no budget to show."""
    source = ZeroNoise()
    with App.open(product_settings(tmp_path), clock=Clock(), noise=source).closing() as app:
        assert 0 == app.take_due()
        with pytest.raises(NotFoundError):
            app.budget("live")
        with pytest.raises(NotFoundError):
            app.live.since(None)

        assert ([], 0) == (app.plans(after=None, limit=10)[0], source.draws)


def test_erased_and_removed_users_stay_out_of_the_day(tmp_path: Path) -> None:
    """Who leaves the day by a `-` or an erasure and comes back counts again tomorrow only."""
    clock, tomorrow = Clock(), DAY + dt.timedelta(days=1)
    with running(tmp_path, clock) as app:
        app.take_due()
        send(app, [event(name, DAY) for name in ("a", "b", "c")])
        clock.set(6)
        app.take_due()
        app.erase("a")
        send(app, [event("b", DAY, "-")])
        send(app, [event("a", DAY), event("b", DAY)])
        for hour in (12, 24):
            clock.set(hour)
            app.take_due()
        send(app, [event(name, tomorrow) for name in ("a", "b", "c")])
        clock.set(30)
        app.take_due()

        assert [3, 1, 1, 3] == [one.estimate for one in ticks(app)]


def test_the_noise_is_gone_with_the_month(tmp_path: Path) -> None:
    """After the last tick of the month the secret is destroyed and the next plan is opened."""
    clock, last, first = Clock(), dt.date(2026, 2, 28), dt.date(2026, 3, 1)
    with running(tmp_path, clock) as app:
        app.take_due()
        live = app._store.live
        kept = live.secret("2026-02")
        clock.set(0.001, last)
        app.take_due()
        clock.set(24, last)
        taken = app.take_due()
        after = live.secret("2026-02"), live.secret("2026-03") is not None
        with pytest.raises(InvalidPlanError):
            live.open("2026-02")

        assert (True, 1, (None, True)) == (kept is not None, taken, after)
        assert [3, 7] == [one.step for one in ticks(app)]
        assert 1.0 == app.budget("live", first).epsilon_spent
        assert app.ledger.verify().ok


def test_a_crash_between_the_charge_and_the_noise_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stops between any two writes of an opening goes on later, with one charge."""
    for number, broken in enumerate(("open_plan", "put_secret", "commit_noise")):
        clock = Clock()
        with running(tmp_path / str(number), clock) as app:
            target = app._store.live if broken == "put_secret" else app.ledger
            real = getattr(target, broken)

            def fail(*some: Any, real: Any = real, broken: str = broken) -> None:
                if broken != "put_secret":
                    real(*some)
                raise StoreUnavailableError("stopped here")

            with monkeypatch.context() as patch:
                patch.setattr(target, broken, fail)
                with pytest.raises(StoreUnavailableError):
                    app.take_due()
            clock.set(6)
            taken = [app.take_due(), app.take_due()]

            assert ([1, 0], broken) == (taken, broken)
            assert 1.0 == app.budget("live").epsilon_spent
            assert app.ledger.verify().ok


def test_noise_that_is_gone_is_never_drawn_anew(tmp_path: Path) -> None:
    """A store that does not hold the noise of the plan is refused at the tick."""
    clock, source = Clock(), ZeroNoise()
    with running(tmp_path, clock, noise=source) as app:
        app.take_due()
        with app._store._access.writing() as (manifest, _upkeep), manifest.writing():
            manifest._db.execute("UPDATE live_months SET secret = NULL")
        clock.set(6)
        with pytest.raises(StoreCorruptError):
            app.take_due()

        assert (8, []) == (source.draws, ticks(app))


def test_ticks_follow_the_zone_and_its_clock_changes(tmp_path: Path) -> None:
    """A day of 23 hours has all its ticks, evenly, and the last one is its end."""
    clock = Clock(dt.datetime(2026, 3, 28, 23, 0, 1, tzinfo=dt.UTC))
    with running(tmp_path, clock, TIMEZONE="Europe/Berlin", GRACE_HOURS=48) as app:
        app.take_due()
        moments = []
        for _ in range(4):
            clock.now = app.next_due()
            moments.append(clock.now)
            app.take_due()

        gaps = {later - one for one, later in itertools.pairwise(moments)}
        assert {dt.timedelta(hours=5.75)} == gaps
        assert dt.datetime(2026, 3, 29, 22, tzinfo=dt.UTC) == moments[-1]
        assert [(dt.date(2026, 3, 29), step) for step in (4, 5, 6, 7)] == [
            (one.window.end, one.step + 4) for one in ticks(app)
        ]


def test_a_failure_of_the_counter_does_not_stop_the_month_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The days of the month plan are taken although a live plan cannot be opened."""
    clock = Clock()
    with running(tmp_path, clock, RELEASE_POLICY="plan") as app:

        def busy(_month: str) -> None:
            raise StoreUnavailableError("busy")

        monkeypatch.setattr(app._store.live, "open", busy)
        with pytest.raises(StoreUnavailableError):
            app.take_due()

        assert 25 == app.month("2026-02").days_taken


def test_turned_off_within_a_month(tmp_path: Path) -> None:
    """Who turns it off keeps seeing what was spent; the day that was live is forgotten."""
    clock, tomorrow = Clock(), DAY + dt.timedelta(days=1)
    with running(tmp_path, clock) as app:
        app.take_due()
        send(app, [event("a", DAY)])
        app.erase("a")
    source = ZeroNoise()
    settings = product_settings(tmp_path)
    clock.set(1, tomorrow)
    with App.open(settings, clock=clock, noise=source).closing() as app:
        app.take_due()
        with pytest.raises(InvalidPlanError):
            app._store.live.count(DAY)
        with pytest.raises(NotFoundError):
            app.live.since(None)
        with pytest.raises(NotFoundError):
            app.budget("live", dt.date(2026, 4, 1))

        assert (1.0, 0) == (app.budget("live").epsilon_spent, source.draws)
