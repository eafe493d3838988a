"""`GET /live`: today's ticks, then each new one, in a bounded number of streams that end."""

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dpdau.api import live
from dpdau.api.live import Streams, events
from dpdau.app import App
from in_process import service
from products import ZeroNoise, event, product, product_settings, send

START = dt.datetime(2026, 2, 26, 0, 0, 1, tzinfo=dt.UTC)
ON = {"LIVE_EPSILON": 1.0, "LIVE_TICKS": 4}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams look again without a pause."""
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.0)


class Morning:
    """A product whose clock is set by hand, at the start of a day."""

    def __init__(self, root: Path) -> None:
        self.now = START
        settings = product_settings(root, **ON)
        self.app = App.open(settings, clock=lambda: self.now, noise=ZeroNoise())
        self.app.take_due()

    def tick(self, number: int) -> None:
        """One more user, and the next tick."""
        send(self.app, [event(f"u{number}", START.date())])
        self.now = START + dt.timedelta(hours=6 * number)
        assert 1 == self.app.take_due()


async def next_tick(stream: AsyncIterator[str]) -> dict[str, Any]:
    """The next event of a stream, past comments."""
    async for text in stream:
        if not text.startswith(":"):
            lines = dict(line.split(": ", 1) for line in text.strip().split("\n"))
            assert "tick" == lines["event"]
            body: dict[str, Any] = json.loads(lines["data"])
            assert lines["id"] == body["release_id"]
            return body
    raise AssertionError("the stream ended")


def test_a_stream_tells_todays_ticks_and_then_each_new_one(tmp_path: Path) -> None:
    """What was released before comes first, in order; then each tick when it is released."""
    morning = Morning(tmp_path)

    async def told() -> list[tuple[int, int]]:
        opened, found = Streams(), []
        stream = events(
            morning.app, opened, morning.app.live.since(None), None, heartbeat_seconds=15
        )
        for number in (0, 0, 3, 4):
            if number:
                morning.tick(number)
            body = await next_tick(stream)
            found.append((body["step"], body["estimate"]))
        opened.close()
        assert [] == [text async for text in stream]
        return found

    with morning.app.closing():
        morning.tick(1)
        morning.tick(2)

        assert [(0, 1), (1, 2), (2, 3), (3, 4)] == asyncio.run(told())


def test_a_stream_goes_on_where_it_was_cut_off(tmp_path: Path) -> None:
    """`Last-Event-ID` is answered with what was released after it, over HTTP; nothing is spent."""
    morning = Morning(tmp_path)
    with morning.app.closing():
        for number in (1, 2, 3):
            morning.tick(number)
        first = morning.app.live.since(None)[0].release_id
        with service(morning.app) as http:
            api = http._transport._asgi.app
            # The streams of this service are told to end, so each answer is what there was.
            api.state.streams = Streams(1)
            api.state.streams.close()
            answers = [http.get("/live", headers=some) for some in ({}, {"Last-Event-ID": first})]
            budget = http.get("/budget/live").json()
            log = http.get("/releases").json()["releases"]

        # An answer that ended gave its one place to the next.
        assert [200, 200] == [one.status_code for one in answers]
        assert "text/event-stream" in answers[0].headers["content-type"]
        assert "no-store" == answers[0].headers["cache-control"]
        assert [3, 2] == [one.text.count("event: tick") for one in answers]
        assert (1.0, 3, "live") == (
            budget["epsilon_spent"],
            budget["release_count"],
            budget["policy"] and budget["metric"],
        )
        assert ["live"] * 3 == [one["metric"] for one in log]


def test_a_quiet_stream_is_kept_open_by_comments(tmp_path: Path) -> None:
    """Where nothing is released a stream has heartbeats."""
    morning = Morning(tmp_path)

    async def quiet() -> list[str]:
        stream = events(morning.app, Streams(), (), None, heartbeat_seconds=0)
        found = [await anext(stream) for _ in range(3)]
        await stream.aclose()
        return found

    with morning.app.closing():
        assert [":\n\n"] * 3 == asyncio.run(quiet())


def test_a_stream_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time a stream ends by itself, so that its key is asked for again."""
    monkeypatch.setattr(live, "STREAM_SECONDS_MAX", 0.0)
    morning = Morning(tmp_path)

    async def whole() -> list[str]:
        stream = events(morning.app, Streams(), (), None, heartbeat_seconds=15)
        return [text async for text in stream]

    with morning.app.closing():
        assert [":\n\n"] == asyncio.run(whole())


def test_refusals(tmp_path: Path) -> None:
    """404 where it is off, 401 without a key, 422 for an id that is none, 429 with no room."""
    with product(tmp_path / "off") as app, service(app) as http, service(app, key=None) as nobody:
        off = http.get("/live")
        answers = [off, http.get("/budget/live"), nobody.get("/live")]
        answers.append(http.get("/live", headers={"Last-Event-ID": "x" * 65}))
    with product(tmp_path / "on", **ON) as app, service(app) as http:
        http._transport._asgi.app.state.streams = Streams(0)
        full = http.get("/live")

    assert [404, 404, 401, 422, 429] == [one.status_code for one in (*answers, full)]
    assert ("not_found", "rate_limited") == (off.json()["code"], full.json()["code"])
    assert "30" == full.headers["retry-after"]
