"""What a client sends again, and what it must not."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from client_faults import AT_ONCE, Faulty, ManualTime, answer_of, scripted
from dpdau.app import App
from dpdau.client import AsyncClient, Client, Retry
from dpdau.domain import Metric
from dpdau.errors import (
    BudgetExhaustedError,
    OverloadedError,
    RateLimitedError,
    ServiceUnreachableError,
)
from dpdau.ingest.event import decode_objects
from in_process import transport
from products import API_KEY, DAY, event, product

TOO_FAST = {RateLimitedError, OverloadedError}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A product with one declared dimension."""
    with product(tmp_path, DIMENSIONS="platform") as opened:
        yield opened


def budget_answer() -> httpx.Response:
    """Some answer that is one of the service."""
    return httpx.Response(202, json={"erasure_id": "e", "days_touched": 0, "done_at": "2026-01-01"})


@pytest.mark.parametrize("is_async", [False, True])
def test_a_refusal_for_now_is_waited_out(is_async: bool) -> None:
    """After 429, 503 and a torn connection the request is sent again, after jittered waits."""
    time = ManualTime()
    busy = httpx.Response(429, headers={"Retry-After": "3"}, json={"code": "rate_limited"})
    away = httpx.Response(503)
    way, asked = scripted(busy, away, httpx.ReadError("torn"), budget_answer())

    if is_async:

        async def ask() -> Any:
            async with AsyncClient("http://s", retry=time.retry(), transport=way) as one:
                return await one.erase("u1")

        receipt = asyncio.run(ask())
    else:
        receipt = Client("http://s", retry=time.retry(), transport=way).erase("u1")

    assert "e" == receipt.erasure_id
    assert 4 == len(asked)
    assert [3.05, 0.1, 0.2] == time.waits


@pytest.mark.parametrize("is_async", [False, True])
def test_a_refusal_that_stays_is_raised_in_the_end(is_async: bool) -> None:
    """After the last attempt the error of the service is raised."""
    time = ManualTime()
    refusals = [answer_of(RateLimitedError("Slow.", retry_after_seconds=0)) for _ in range(3)]
    way, asked = scripted(*refusals)
    retry = time.retry(attempts_max=3)

    def ask() -> Any:
        if is_async:
            return asyncio.run(AsyncClient("http://s", retry=retry, transport=way).budget("dau"))
        return Client("http://s", retry=retry, transport=way).budget("dau")

    with pytest.raises(RateLimitedError):
        ask()

    assert 3 == len(asked)


def test_a_budget_that_is_spent_is_not_asked_again() -> None:
    """`budget_exhausted` is final, though its status is 429."""
    way, asked = scripted(answer_of(BudgetExhaustedError("Expected room, found none.")))

    with pytest.raises(BudgetExhaustedError):
        Client("http://s", retry=AT_ONCE, transport=way).release(Metric.DAU, DAY)

    assert 1 == len(asked)


@pytest.mark.parametrize("lost", [httpx.ReadError("torn"), httpx.Response(503)])
def test_a_fresh_release_is_bought_once(lost: Any) -> None:
    """Where nobody knows whether a charge was made, it is not asked for again."""
    way, asked = scripted(lost, httpx.Response(500))

    with pytest.raises(ServiceUnreachableError):
        Client("http://s", retry=AT_ONCE, transport=way).release(Metric.DAU, DAY, fresh=True)

    assert 1 == len(asked)


def test_a_batch_whose_answer_got_lost_is_taken_once(app: App) -> None:
    """The client names the batch itself: what comes again is a duplicate."""
    decoded = decode_objects([event("u1"), event("u2")], rules=app.rules())
    with transport(app) as way:
        sent: list[httpx.Request] = []

        def torn_once(request: httpx.Request) -> httpx.Response:
            sent.append(request)
            answer = way.handle_request(request)
            if len(sent) == 1:
                raise httpx.ReadError("the connection broke")
            return answer

        again = httpx.MockTransport(torn_once)
        with Client("http://127.0.0.1", API_KEY, retry=AT_ONCE, transport=again) as client:
            report = client.ingest(decoded)
            client.ingest(decoded)

    keys = [one.headers["Idempotency-Key"] for one in sent]
    assert (2, 0, 2) == (report.received, report.accepted, report.duplicate)
    assert 3 == len(keys)
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("seed", range(3))
def test_verbs_get_through_a_way_that_fails(app: App, seed: int) -> None:
    """Half of the requests fail; every verb that may be repeated gives its result in the end."""
    retry = Retry(attempts_max=50, first_wait_seconds=0, wait_seconds_max=0)
    batches = [
        decode_objects([event(f"u{number}-{one}") for one in range(5)], rules=app.rules())
        for number in range(20)
    ]
    with transport(app) as way:
        faulty = Faulty(way, seed)
        with Client("http://127.0.0.1", API_KEY, retry=retry, transport=faulty) as client:
            reports = [client.ingest(one) for one in batches]
            estimate = client.release(Metric.DAU, DAY).release.estimate
            client.erase("u0-0")

    assert 100 == sum(one.accepted + one.duplicate for one in reports) == estimate
    assert faulty.counts["torn"] > 0
