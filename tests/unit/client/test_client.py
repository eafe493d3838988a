"""The typed clients: what they send, what they raise, and what they never show."""

import asyncio
import datetime as dt
import gzip
import inspect
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_faults import AT_ONCE, Awaited
from dpdau.api.problems import problem_of
from dpdau.app import App, Verbs
from dpdau.client import AsyncClient, Client
from dpdau.client import verbs as module
from dpdau.client.calls import GZIP_BYTES_MIN, Call, Refusal
from dpdau.domain import Metric, Segment
from dpdau.errors import (
    OUTCOMES,
    DpdauError,
    NotAuthenticatedError,
    OverloadedError,
    RateLimitedError,
    ServiceUnreachableError,
)
from dpdau.ingest.event import decode_objects
from in_process import transport
from products import API_KEY, DAY, event, product, send

CANARY = "canary-user-77aa"
TOO_FAST = {RateLimitedError, OverloadedError}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A product with one declared dimension."""
    with product(tmp_path, DIMENSIONS="platform") as opened:
        yield opened


@pytest.fixture
def client(app: App) -> Iterator[Client]:
    """A client of a service over it."""
    with transport(app) as way, Client("http://127.0.0.1", API_KEY, transport=way) as one:
        yield one


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    """A client whose service is a function."""
    way = httpx.MockTransport(answer)
    return Client("http://service.test:9", API_KEY, retry=AT_ONCE, transport=way)


@pytest.mark.parametrize("leaf", sorted(OUTCOMES, key=lambda leaf: leaf.code))
def test_every_refusal_comes_back_as_its_leaf(leaf: type[DpdauError]) -> None:
    """The error has the class, message and facts of the one that the service raised."""
    facts = {"retry_after_seconds": 3} if leaf in TOO_FAST else {"day": "2026-01-01"}
    document = problem_of(leaf("Expected this, found that.", **facts))
    client = answering(lambda _: httpx.Response(document.status_code, content=document.body))

    with pytest.raises(leaf) as caught:
        client.budget("dau")

    assert leaf is type(caught.value)
    assert ("Expected this, found that.", facts) == (caught.value.message, caught.value.facts)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(502, text="<html>bad gateway"),
        httpx.Response(404, json={"detail": "Not Found"}),
        httpx.Response(200, text="welcome"),
        httpx.Response(200, json=[1]),
        httpx.Response(302, headers={"Location": "http://elsewhere.test/"}),
        httpx.Response(500, json={"code": "internal", "detail": "x"}),
    ],
)
def test_an_answer_that_is_not_of_the_service(answer: httpx.Response) -> None:
    """Anything but an answer or a problem document is a service that cannot be reached."""
    with pytest.raises(ServiceUnreachableError):
        answering(lambda _: answer).budget("dau")


@pytest.mark.parametrize("body", [{}, {"releases": 7}, {"releases": [{}]}])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_body_that_is_not_of_the_service(body: dict[str, Any], is_async: bool) -> None:
    """JSON of something else in between is an error of the product too, and repeats nothing."""
    way = httpx.MockTransport(lambda _: httpx.Response(200, json=body))

    async def ask() -> None:
        async with AsyncClient("http://s", transport=way) as client:
            await client.series([Metric.DAU], DAY, DAY)

    def ask_blocking() -> None:
        Client("http://s", transport=way).series([Metric.DAU], DAY, DAY)

    with pytest.raises(ServiceUnreachableError) as caught:
        asyncio.run(ask()) if is_async else ask_blocking()
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_facts_of_any_name_come_back() -> None:
    """Those of a later service too."""
    facts = {"message": "m", "self": 1, "setting": "X"}
    body = {"code": "invalid_setting", "detail": "No.", **facts}
    with pytest.raises(DpdauError) as caught:
        answering(lambda _: httpx.Response(422, json=body)).budget("dau")

    assert ("No.", facts) == (caught.value.message, caught.value.facts)


def test_a_redirect_does_not_get_the_key() -> None:
    """The key is sent to the service alone."""
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(307, headers={"Location": "http://elsewhere.test/"})

    with pytest.raises(ServiceUnreachableError):
        answering(answer).budget("dau")
    assert ["service.test"] == asked


def test_a_service_that_is_not_there_names_no_user() -> None:
    """A transport error tells its kind and the host, and nothing of the request."""

    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError(f"cannot connect to {request.url}")

    with pytest.raises(ServiceUnreachableError) as caught:
        answering(answer).erase(CANARY)

    error = caught.value
    assert CANARY not in f"{error}{error.facts}{error.__cause__}"
    assert "http://service.test:9" == error.facts["url"]


@pytest.mark.parametrize("url", ["not a url", "ftp://x", "", "http://[bad"])
def test_a_url_that_is_none_is_an_error_of_the_product(url: str) -> None:
    """A wrong URL never ends in a foreign exception."""
    with pytest.raises(ServiceUnreachableError):
        Client(url, API_KEY, retry=AT_ONCE).budget("dau")


def test_a_key_that_no_header_can_carry() -> None:
    """A key outside ASCII is refused in words without it."""
    with pytest.raises(ServiceUnreachableError) as caught:
        Client("http://127.0.0.1", "schlüssel")
    assert "schl" not in str(caught.value)


def test_a_wrong_key(app: App) -> None:
    """The service's refusal is raised."""
    with transport(app) as way, pytest.raises(NotAuthenticatedError):
        Client("http://127.0.0.1", "wrong", transport=way).budget("dau")


@given(
    user_id=st.text(min_size=1, max_size=60) | st.sampled_from([".", "..", "a/../b", "%2e", "?#"])
)
def test_any_user_id_arrives_as_it_is(user_id: str) -> None:
    """No character of an id is dropped, decoded twice or taken for the path's own."""
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.raw_path)
        receipt = {"erasure_id": "e", "days_touched": 0, "done_at": "2026-01-01T00:00:00+00:00"}
        return httpx.Response(202, json=receipt)

    encodable = "".join(one for one in user_id if not "\ud800" <= one <= "\udfff") or "x"
    answering(answer).erase(encodable)

    from urllib.parse import unquote_to_bytes

    assert b"/users/" + encodable.encode() == unquote_to_bytes(seen[0])
    assert 2 == seen[0].count(b"/")


def test_events_arrive_with_labels_ids_and_days(app: App, client: Client) -> None:
    """Everything of an event that counts is sent on: op, days, labels and event id."""
    before = DAY - dt.timedelta(days=1)
    ios = {"platform": "ios"}
    both = {"days": [DAY.isoformat(), before.isoformat()]}
    events = [
        event("u1", metadata=ios, event_id="e1"),
        event("u1", metadata=ios, event_id="e1"),
        event("u2", before),
        event("u2"),
        event("u2", op="-", metadata=both),
        event("u3", before),
    ]

    report = client.ingest(decode_objects(events, rules=app.rules()))

    assert (6, 5, 1) == (report.received, report.accepted, report.duplicate)
    assert 1 == client.release(Metric.DAU, DAY, segment=Segment("platform", "ios")).release.estimate
    assert 1 == client.release(Metric.DAU, before).release.estimate


def test_rejections_of_both_sides_keep_their_place(app: App, client: Client) -> None:
    """What this side refused and what the service refused stand under the index of the batch."""
    far = DAY + dt.timedelta(days=60)
    events = [event("u1"), event(""), event("u2", far), event("u3"), event("u4", far)]
    rules = replace(app.rules(), today=far)

    report = client.ingest(decode_objects(events, rules=rules))

    assert (5, 2, 3) == (report.received, report.accepted, report.rejected_count)
    assert [(1, "bad_user_id"), (2, "future_day"), (4, "future_day")] == [
        (one.index, one.code.value) for one in report.rejected
    ]


@pytest.mark.parametrize(("limit", "value"), [("PART_BYTES_MAX", 400), ("EVENTS_MAX", 5)])
def test_a_large_batch_goes_in_parts_once(
    app: App, client: Client, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """Parts add up, keep their indexes, and are taken once however often the batch is sent."""
    monkeypatch.setattr(module, limit, value)
    events = [event(f"user-{number}") for number in range(20)] + [event("late", DAY)]
    decoded = decode_objects(events, rules=app.rules())

    first = client.ingest(decoded, batch_id="b")
    second = client.ingest(decoded, batch_id="b")

    assert (21, 21, 0) == (first.received, first.accepted, first.duplicate)
    assert (21, 0, 21) == (second.received, second.accepted, second.duplicate)


def test_a_batch_that_was_taken_here_is_known_to_the_service(app: App, client: Client) -> None:
    """A batch has the same id in the process and over HTTP."""
    decoded = decode_objects([event("u1"), event("u2")], rules=app.rules())
    app.ingest(decoded, batch_id="january:7")

    assert 2 == client.ingest(decoded, batch_id="january:7").duplicate


def test_a_part_does_not_stand_for_its_batch(
    app: App, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of which only the first part arrived is taken as a whole by another way."""
    decoded = decode_objects([event("u1"), event("u2")], rules=app.rules())
    monkeypatch.setattr(module, "EVENTS_MAX", 1)
    asked = client.attempt
    parts: list[object] = []

    def cut_off(call: Call) -> dict[str, Any] | Refusal:
        if parts:
            error = ServiceUnreachableError("Expected an answer, found none.")
            return Refusal(error, may_repeat=False)
        parts.append(call)
        return asked(call)

    monkeypatch.setattr(client, "attempt", cut_off)
    with pytest.raises(ServiceUnreachableError):
        client.ingest(decoded, batch_id="b")

    assert 2 == app.ingest(decoded, batch_id="b").accepted


def test_rejections_of_many_parts_are_counted_and_the_first_listed(
    app: App, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report is of bounded size and adds up, whichever side rejected."""
    far = DAY + dt.timedelta(days=60)
    monkeypatch.setattr(module, "EVENTS_MAX", 700)
    events = [
        event("u1"),
        *(event("") for _ in range(300)),
        *(event("u", far) for _ in range(1500)),
    ]
    decoded = decode_objects(events, rules=replace(app.rules(), today=far))

    report = client.ingest(decoded)

    assert (1801, 1, 1800) == (report.received, report.accepted, report.rejected_count)
    assert list(range(1, 1001)) == [one.index for one in report.rejected]


def test_an_empty_batch_sends_nothing(app: App) -> None:
    """There is no request for no events."""
    client = answering(lambda _: pytest.fail("a request was sent"))

    assert 0 == client.ingest(decode_objects([], rules=app.rules())).received


def test_no_log_line_has_a_user_id(
    app: App, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """The HTTP library's own request lines are kept out of the logs, at every level."""
    caplog.set_level(logging.DEBUG)
    send(app, [event(CANARY)])

    client.erase(CANARY)

    assert [] == [one.getMessage() for one in caplog.records if CANARY in one.getMessage()]


def test_a_client_closes_twice() -> None:
    """Closing again is no error."""
    client = answering(lambda _: httpx.Response(200, json={}))
    client.close()
    client.close()


def test_the_body_of_a_price_is_the_question() -> None:
    """The metric, day, window and segment of a question are sent, and nothing is bought."""
    sent = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(
            (request.method, str(request.url.raw_path, "ascii"), json.loads(request.content))
        )
        return httpx.Response(500, text="")

    with pytest.raises(ServiceUnreachableError):
        answering(answer).price(Metric.MAU, DAY, window_days=28, segment=Segment("platform", "ios"))

    body = {"metric": "mau", "day": DAY.isoformat(), "window": 28, "segment": "platform=ios"}
    assert [("POST", "/plans?dry_run=true", {**body, "fresh": False})] == sent


def test_both_clients_have_the_verbs_and_the_same_ones() -> None:
    """Names, parameters and documentation are those of `app.Verbs`, blocking and awaited."""

    def surface(kind: type) -> dict[str, Any]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {name: one for name, one in methods if not name.startswith("_")}

    def parameters(method: Any) -> list[tuple[str, Any, Any]]:
        found = list(inspect.signature(method).parameters.values())[1:]
        return [(one.name, one.kind, one.default) for one in found]

    blocking, awaited, verbs = surface(Client), surface(AsyncClient), surface(Verbs)

    assert set(blocking) == set(awaited)
    assert set(blocking) == set(verbs) | {"sender", "close", "attempt", "new_batch_id"}
    for name in verbs:
        assert parameters(verbs[name]) == parameters(blocking[name]) == parameters(awaited[name])
        assert blocking[name].__doc__ == awaited[name].__doc__
        assert blocking[name].__doc__.startswith(f"See `app.Verbs.{name}`.")
    for name in set(blocking) - {"sender"}:
        assert blocking[name].__doc__ == awaited[name].__doc__
    assert parameters(blocking["sender"]) == parameters(awaited["sender"])


def test_the_awaited_client_answers_as_the_blocking_one(app: App, client: Client) -> None:
    """Events in, a number out, and a refusal, all awaited."""
    decoded = decode_objects([event("u1"), event("u2"), event("u1")], rules=app.rules())
    ask = client.budget("dau")

    async def both() -> tuple[Any, Any, Any]:
        with transport(app) as way:
            async with AsyncClient("http://127.0.0.1", API_KEY, transport=Awaited(way)) as one:
                before = await one.budget("dau")
                report = await one.ingest(decoded)
                with pytest.raises(DpdauError) as caught:
                    await one.erase("")
                assert "invalid_event" == caught.value.code
                return before, report, await one.release(Metric.DAU, DAY)

    before, report, answer = asyncio.run(both())

    assert ask == before
    assert (3, 3) == (report.received, report.accepted)
    assert 2 == answer.release.estimate
    assert client.release(Metric.DAU, DAY).release == answer.release


@pytest.mark.parametrize(("size", "encoding"), [(10, None), (2000, "gzip")])
def test_large_bodies_are_compressed(app: App, size: int, encoding: str | None) -> None:
    """A body above the threshold is sent as gzip, a small one as it is."""
    decoded = decode_objects([event(f"user-{one}") for one in range(size)], rules=app.rules())
    with transport(app) as way:
        seen: list[httpx.Request] = []

        def pass_on(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return way.handle_request(request)

        with Client("http://127.0.0.1", API_KEY, transport=httpx.MockTransport(pass_on)) as client:
            assert size == client.ingest(decoded).accepted

    content = seen[0].content
    body = gzip.decompress(content) if encoding else content
    assert encoding == seen[0].headers.get("Content-Encoding")
    assert size == body.count(b"\n")
    assert (len(body) >= GZIP_BYTES_MIN) is (encoding is not None)


def test_a_repr_names_the_service_alone() -> None:
    """Neither the key nor the path of a request is in a repr."""
    call = Call("DELETE", f"/users/{CANARY}", content=CANARY.encode())

    assert "Client('http://service.test:9')" == repr(answering(lambda _: httpx.Response(200)))
    assert CANARY not in repr(call)
