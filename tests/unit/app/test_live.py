"""The live counter as the fronts see it: which ticks follow, and when it is due."""

import datetime as dt
from pathlib import Path

import pytest

from dpdau.app import App
from dpdau.app.live import take_each
from dpdau.errors import StoreUnavailableError
from products import ZeroNoise, event, product_settings, send

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


def test_every_task_is_done(tmp_path: Path) -> None:
    """A task that fails does not keep the others from being done, and is heard of."""

    def fails() -> int:
        raise StoreUnavailableError("busy")

    done: list[int] = []
    with pytest.raises(StoreUnavailableError):
        take_each(fails, lambda: done.append(1) or 1)

    assert ([1], 3) == (done, take_each(lambda: 1, lambda: 2))
