"""The routes of events: every form of body, what 202 means, and too much at once."""

import asyncio
import gzip
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dpdau.activity.embedded import EmbeddedStore
from dpdau.api import ingest
from dpdau.api.bodies import BodyReader
from dpdau.app import App
from dpdau.errors import OverloadedError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.commit import GroupCommit
from dpdau.telemetry import Metrics
from in_process import service
from products import DAY, event, product

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
EVENTS = [event(f"u{number % 20}", metadata={"platform": "web"}) for number in range(50)]
WAIT_SECONDS = 20


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A product with one dimension, which counts."""
    with product(tmp_path, DIMENSIONS="platform") as opened:
        opened.metrics = Metrics()
        yield opened


def table() -> pa.Table:
    """The events as a flat table."""
    rows = [{**one, "platform": one["metadata"]["platform"]} for one in EVENTS]
    for one in rows:
        del one["metadata"]
    return pa.Table.from_pylist(rows)


def arrow() -> bytes:
    """The events as an Arrow stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table().schema) as writer:
        writer.write_table(table())
    return sink.getvalue()


def parquet() -> bytes:
    """The events as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table(), sink, compression="zstd")
    return sink.getvalue()


BODIES = {
    "application/json": json.dumps(EVENTS).encode(),
    "application/x-ndjson": "\n".join(json.dumps(one) for one in EVENTS).encode(),
    ARROW: arrow(),
    PARQUET: parquet(),
    "application/x-parquet": parquet(),
}


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_of_body(app: App, kind: str, packed: bool) -> None:
    """JSON, NDJSON, Arrow and Parquet hold the same events, compressed or not."""
    body = gzip.compress(BODIES[kind]) if packed else BODIES[kind]
    headers = {"Content-Type": kind} | ({"Content-Encoding": "gzip"} if packed else {})
    with service(app) as http:
        answer = http.post("/events", content=body, headers=headers)

    assert (202, 50, 50) == (
        answer.status_code,
        answer.json()["received"],
        answer.json()["accepted"],
    )
    counts = app._store.counts(first=DAY, last=DAY, window_days=(1,)).tolist()
    assert [[20]] == counts
    assert ("web",) == app._store.segment_values("platform")


@pytest.mark.parametrize("kind", [ARROW, PARQUET])
@pytest.mark.parametrize("body", [b"", b"PAR1", BODIES[ARROW][:60], BODIES[PARQUET][:-9]])
def test_a_broken_table_is_one_clear_error(app: App, kind: str, body: bytes) -> None:
    """A table that is cut off or none at all answers 422."""
    with service(app) as http:
        answer = http.post("/events", content=body, headers={"Content-Type": kind})

    assert (422, "invalid_event") == (answer.status_code, answer.json()["code"])


def test_a_table_over_the_limit(app: App) -> None:
    """What a table unpacks to has the limit of a body."""
    rows = pa.table({"user_id": ["x" * 50_000], "day": [DAY]})
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    with service(app, max_body_bytes=10_000) as http:
        answer = http.post("/events", content=sink.getvalue(), headers={"Content-Type": PARQUET})

    assert (413, "too_large") == (answer.status_code, answer.json()["code"])
    assert len(sink.getvalue()) < 10_000


@pytest.mark.parametrize("path", ["/event", "/events"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_other_methods_are_refused_as_elsewhere(app: App, path: str, method: str) -> None:
    """Only POST is taken; the refusal says so."""
    with service(app) as http:
        answer = http.request(method, path)

    assert (405, "POST") == (answer.status_code, answer.headers["allow"])


def test_the_counters_are_those_of_every_route(app: App) -> None:
    """Requests and durations are counted by route and status, refusals by code."""
    assert app.metrics is not None
    with service(app) as http:
        http.post("/event", json={"event": event("u")})
        http.post("/events", json={})
        http.get("/events")
    value = app.metrics.registry.get_sample_value

    for handler, method, status in (
        ("/event", "POST", "202"),
        ("/events", "POST", "422"),
        ("/events", "GET", "405"),
    ):
        labels = {"handler": handler, "method": method, "status": status}
        assert 1 == value("http_requests_total", labels)
    timed = {"handler": "/events", "method": "POST"}
    assert 1 == value("http_request_duration_seconds_count", timed)
    assert 1 == value("dpdau_refusals_total", {"code": "method_not_allowed"})


def test_a_large_body_is_decoded_beside_the_loop(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a size the event loop does something else meanwhile; the answer is the same."""
    threads: list[int] = []
    decode = app.intake.decode

    def noted(*arguments: Any, **options: Any) -> Any:
        threads.append(threading.get_ident())
        return decode(*arguments, **options)

    monkeypatch.setattr(app.intake, "decode", noted)
    with service(app) as http:
        answers = [http.post("/events", json=EVENTS)]
        monkeypatch.setattr(ingest, "LOOP_BYTES_MAX", 10)
        answers.append(http.post("/events", json=EVENTS))

    assert [50, 50] == [one.json()["accepted"] for one in answers]
    assert 2 == len(set(threads))


def test_too_much_at_once_is_told_to_come_again(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the queue full, a request answers 429 with Retry-After and its rate; nothing is lost."""

    def full(*_: Any, **__: Any) -> None:
        raise OverloadedError("Expected room, found none.", retry_after_seconds=1)

    with service(app) as http:
        with monkeypatch.context() as patch:
            patch.setattr(GroupCommit, "_submit", full)
            answer = http.post("/event", json={"event": event("u")})
        later = http.post("/event", json={"event": event("u")})

    assert (429, "overloaded", "1") == (
        answer.status_code,
        answer.json()["code"],
        answer.headers["retry-after"],
    )
    assert {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"} <= set(answer.headers)
    assert 1 == later.json()["accepted"]


def test_an_answer_waits_for_the_write(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store writes there is no answer; requests that came meanwhile share one write."""
    gate, entered = threading.Event(), threading.Semaphore(0)
    groups: list[int] = []
    apply_many = EmbeddedStore.apply_many

    def applied(self: EmbeddedStore, batches: Any) -> Any:
        entered.release()
        assert gate.wait(WAIT_SECONDS)
        groups.append(len(batches))
        return apply_many(self, batches)

    monkeypatch.setattr(EmbeddedStore, "apply_many", applied)
    answers: list[httpx.Response] = []
    with service(app) as http:

        def post(number: int) -> None:
            answers.append(http.post("/event", json={"event": event(f"u{number}")}))

        threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
        threads[0].start()
        assert entered.acquire(timeout=WAIT_SECONDS)
        for one in threads[1:]:
            one.start()
        while len(app.intake._commits._waiting) < 3:
            assert threads[1].is_alive()
        assert not answers
        gate.set()
        for one in threads:
            one.join()

    assert [202] * 4 == [one.status_code for one in answers]
    assert [1, 3] == groups


def test_bodies_that_are_held_are_bounded() -> None:
    """Bytes are held from the first one to the answer; beyond the limit a body is refused."""

    async def held() -> list[str]:
        reader = BodyReader(100, held_max=150)
        told = []

        async def take(size: int, inside: asyncio.Event | None = None) -> None:
            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": b"x" * size, "more_body": False}

            try:
                with reader.holding() as hold:
                    body = await reader.read({}, {}, receive, hold)
                    told.append(f"took {len(body)}")
                    if inside is not None:
                        await inside.wait()
            except OverloadedError as error:
                told.append(error.code)

        release = asyncio.Event()
        first = asyncio.create_task(take(100, release))
        await asyncio.sleep(0)
        await take(60)
        await take(50)
        release.set()
        await first
        await take(60)
        return told

    assert ["took 100", "overloaded", "took 50", "took 60"] == asyncio.run(held())


def test_no_report_is_left_behind(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that takes a report before its caller goes on is called again for the next one."""
    monkeypatch.setattr(ingest, "_called", lambda _loop, back: back() is None)

    async def landed() -> list[bool]:
        gathering = ingest.Gathering(app.intake)
        loop = asyncio.get_running_loop()
        gathering._begin(loop)
        waiting = [loop.create_future() for _ in range(3)]
        for one in waiting:
            await loop.run_in_executor(None, gathering.land, one, IngestReport())
        return [one.done() for one in waiting]

    assert [True] * 3 == asyncio.run(landed())
