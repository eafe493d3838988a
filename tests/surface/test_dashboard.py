"""The dashboard in a real browser: a first visit from the login to the way out."""

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

import browser
from browser import Watched
from components import free_port
from dpdau.api.server import create_api
from dpdau.app import App
from dpdau.domain import Metric
from dpdau.release import NoiseDesk
from products import API_KEY, ZeroNoise, event, product_settings, send

FIRST = dt.date(2026, 2, 1)
SEGMENTS = ("ios", "android", "web")
SERIOUS = {"serious", "critical"}
START_SECONDS = 20

pytestmark = pytest.mark.xdist_group("chromium")


def people(day: dt.date) -> Iterator[str]:
    """Who was active on a day: more each week, fewer at its end, some every day."""
    number = (day - FIRST).days
    share = 200 if day.weekday() >= 5 else 330
    for user in range(700 + 5 * number):
        if (user * 2654435761 + number * 40503 * (user % 13 + 1)) % 1000 < share:
            yield f"user-{user:04d}"


@contextmanager
def new_product(root: Path) -> Iterator[tuple[App, list[dt.datetime]]]:
    """A product with segments and a live counter, to which nothing was sent, and its clock."""
    settings = product_settings(
        root,
        RELEASE_POLICY="plan",
        DIMENSIONS="platform",
        PLAN_SEGMENTS=",".join(f"platform={one}" for one in SEGMENTS),
        LIVE_EPSILON=1.0,
    )
    now = [dt.datetime(2026, 2, 1, 9, tzinfo=dt.UTC)]
    noise = ZeroNoise()
    opened = App.open(settings, clock=lambda: now[0], noise=noise, desk=NoiseDesk(noise, seconds=0))
    with opened.closing() as app:
        yield app, now


def live_through(app: App, now: list[dt.datetime]) -> None:
    """Six weeks of published days, some releases on demand, and a live count."""
    now[0] = dt.datetime(2026, 3, 4, 9, tzinfo=dt.UTC)
    days = [FIRST + dt.timedelta(days=place) for place in range(43)]
    for day in days:
        if day > now[0].date():
            now[0] = dt.datetime(day.year, day.month, day.day, 9, tzinfo=dt.UTC)
            app.take_due()
        labels = {who: SEGMENTS[int(who[-4:]) % 3] for who in people(day)}
        send(app, [event(who, day, metadata={"platform": labels[who]}) for who in labels])
        if day == dt.date(2026, 3, 4):
            app.release(Metric.MAU, dt.date(2026, 2, 28))
        if day.month == 3 and day.day in (5, 7, 8, 9, 10, 12):
            app.release(Metric.DAU, day - dt.timedelta(days=2), fresh=True)
    now[0] = dt.datetime(2026, 3, 15, 12, 5, tzinfo=dt.UTC)
    app.take_due()


@contextmanager
def serving(app: App) -> Iterator[str]:
    """A service over an app on a port of this machine; its address."""
    port = free_port()
    config = uvicorn.Config(create_api(app), host="127.0.0.1", port=port, lifespan="off")
    config.log_config, config.access_log = None, False
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        for _ in range(START_SECONDS * 100):
            if server.started:
                break
            thread.join(0.01)
        assert server.started
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(START_SECONDS)


def accessible(seen: Watched) -> list[str]:
    """What axe finds serious or critical on a page, light and dark."""
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    found = []
    for scheme, options in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
        seen.page.emulate_media(color_scheme=scheme)
        report = axe.run(seen.page, options=options).response
        found += [
            f"{scheme}: {one['id']}: {node['html']}"
            for one in report["violations"]
            if one["impact"] in SERIOUS
            for node in one["nodes"]
        ]
    seen.page.emulate_media(color_scheme="light")
    return found


def test_a_visit(tmp_path: Path) -> None:
    """Login, the first run and what to do, events; then charts with bands, hover and keys,
    segments, a plan priced, an answer that does not come, the plan opened, its budget, an erasure
    with its receipt, logout: no error, no other host, nothing that axe finds serious, and nothing
    wider than a phone."""
    serious: dict[str, list[str]] = {}
    too_wide: dict[str, int] = {}
    with (
        new_product(tmp_path) as (app, now),
        serving(app) as base,
        browser.chromium() as chromium,
    ):
        seen = Watched(chromium, base)

        def look(name: str) -> None:
            serious[name] = accessible(seen)
            seen.page.set_viewport_size(browser.PHONE)
            too_wide[name] = seen.page.evaluate("document.documentElement.scrollWidth")
            seen.page.set_viewport_size(browser.DESKTOP)

        seen.page.goto(base)
        look("login")
        browser.log_in(seen, API_KEY)
        assert "Nothing is released yet" in seen.text(".empty h2")
        assert f"curl {base}/events" in seen.text("[data-command]")
        assert "opens the plan of its month by itself" in seen.text(".empty")
        look("first run")

        live_through(app, now)
        browser.log_in(seen, API_KEY)
        browser.read_charts(seen)
        seen.page.wait_for_function(
            "() => document.querySelector('[data-live-estimate]').innerText !== '…'"
        )
        assert "Not final yet: 14 Mar 2026 to 15 Mar 2026" in seen.text(".note")
        look("overview")

        seen.go("segments")
        shown = seen.text("[data-readout]")
        seen.page.click("text=platform=web")
        seen.drawn()
        assert "platform=web" in seen.text(".lead")
        assert shown != seen.text("[data-readout]")
        look("segments")

        assert "Open April 2026 for ε 3, δ 1e-6" == browser.open_plan(seen, "for ε 3, δ 1e-6")
        assert "2026-04" == app.month("2026-04").month
        seen.go("budget", "?month=2026-03")
        assert "used up on 2026-" in seen.page.content()
        look("budget")

        receipt = browser.erase(seen, "user-0001")
        assert receipt == app.erasure(receipt).erasure_id
        assert app.erasure(receipt).days_touched > 0
        look("erasures")

        for name in ("plans", "releases", "health", "guarantee"):
            seen.go(name)
            look(name)
        cookies = {one["name"]: one for one in seen.page.context.cookies()}
        browser.log_out(seen)

    assert {} == {name: found for name, found in serious.items() if found}
    assert {} == {name: width for name, width in too_wide.items() if width > 390}
    assert [] == seen.problems
    assert {base.removeprefix("http://")} == seen.hosts
    assert {"dpdau_form", "dpdau_session"} == set(cookies)
    for one in cookies.values():
        assert (True, "Strict") == (one["httpOnly"], one["sameSite"])
        assert API_KEY not in one["value"]
