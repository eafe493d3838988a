"""Sending in the background: in order, once, and with nothing lost in silence."""

import asyncio
import json
import logging
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from client_faults import AT_ONCE, Faulty, answer_of
from dpdau.app import App
from dpdau.client import (
    AsyncClient,
    BatchSummary,
    Client,
    RejectedEvent,
    Sender,
    SenderLimits,
    SenderStats,
)
from dpdau.client.spool import Spool
from dpdau.domain import Metric
from dpdau.errors import (
    DpdauError,
    InvalidEventError,
    InvalidSettingError,
    SpoolFullError,
    SpoolUnavailableError,
)
from in_process import transport
from products import API_KEY, DAY, event, product
from sending import LONG, WAIT, Service, sending

CANARY = "canary-user-c0de"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A product."""
    with product(tmp_path / "product") as opened:
        yield opened


def test_events_go_in_batches_and_in_order(tmp_path: Path) -> None:
    """A batch is sent when it is full, and the rest at the flush."""
    service = Service()
    with sending(service, tmp_path / "spool", batch_events_max=2) as sender:
        for name in "abcde":
            sender.send(event(name))
        assert sender.flush(WAIT)

        assert [["a", "b"], ["c", "d"], ["e"]] == service.users()
        assert SenderStats(accepted=5) == sender.stats()
    assert 3 == len({key for key, _ in service.batches})


def test_a_batch_goes_when_it_is_old(tmp_path: Path) -> None:
    """Without a flush an event waits for `batch_seconds` at most."""
    service = Service()
    with sending(service, tmp_path / "spool", batch_seconds=0.001) as sender:
        sender.send(event("a"))
        assert service.was_asked.wait(WAIT)

    assert [["a"]] == service.users()


def test_a_removal_counts_each_of_its_days(tmp_path: Path) -> None:
    """A batch with many days is sent before it touches more than it may."""
    service = Service()
    days = [DAY.isoformat()] * 3
    with sending(service, tmp_path / "spool", batch_events_max=4) as sender:
        sender.send_many([event(one, op="-", metadata={"days": days}) for one in "ab"])

    assert [["a"], ["b"]] == service.users()


def test_close_sends_what_is_left(tmp_path: Path) -> None:
    """Leaving the client closes its senders, in order."""
    service = Service()
    limits = SenderLimits(batch_seconds=LONG)
    with Client("http://service.test", transport=httpx.MockTransport(service)) as client:
        sender = client.sender(tmp_path / "spool", limits=limits)
        sender.send(event("a"))

    assert [["a"]] == service.users()
    sender.close()
    with pytest.raises(SpoolUnavailableError, match="closed"):
        sender.send(event("b"))


@pytest.mark.parametrize(
    "refusal",
    [
        httpx.Response(429, headers={"Retry-After": "0"}, json={"code": "rate_limited"}),
        httpx.Response(503),
        httpx.Response(500),
        httpx.Response(401, json={"code": "not_authenticated", "detail": "No."}),
        httpx.Response(403),
        httpx.Response(404),
        httpx.Response(302),
        httpx.Response(200, text="welcome"),
        httpx.Response(200, json={"status": "ok"}),
        httpx.Response(
            202,
            json={
                "received": 9,
                "accepted": 9,
                "duplicate": 0,
                "late": 0,
                "rejected": [],
                "rejected_count": 0,
            },
        ),
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
    ],
)
def test_a_service_that_is_away_is_waited_for(tmp_path: Path, refusal: Any) -> None:
    """Whatever is not the fault of the batch is tried again, in order, and told once in a row."""
    service, told = Service(), []
    service.refuse = lambda turn: refusal if turn <= 4 else None

    def on_error(summary: BatchSummary, error: DpdauError) -> None:
        told.append((summary.events, summary.set_aside, error.code))

    with sending(service, tmp_path / "spool", on_error=on_error, batch_events_max=1) as sender:
        sender.send_many([event("a"), event("b")])
        assert sender.flush(WAIT)

    assert [["a"], ["b"]] == service.users()
    assert 6 == service.asked
    assert [(1, None)] == [one[:2] for one in told]


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_can_never_be_sent_is_set_aside(tmp_path: Path, status: int) -> None:
    """The batch goes to a file that can be mended, is told and counted; the next one is sent."""
    service, told = Service(), []
    service.refuse = lambda turn: httpx.Response(status) if turn == 1 else None

    def on_error(summary: BatchSummary, error: DpdauError) -> None:
        told.append((summary, error))

    with sending(service, tmp_path / "spool", on_error=on_error, batch_events_max=2) as sender:
        sender.send_many([event("a"), event("b"), event("c")])
        assert sender.flush(WAIT)
        assert SenderStats(accepted=1, set_aside=2) == sender.stats()

    ((summary, error),) = told
    assert summary.set_aside is not None
    found = [json.loads(line) for line in summary.set_aside.read_text().splitlines()]
    assert [event("a"), event("b")] == found
    assert [["c"]] == service.users()
    assert "service_unreachable" == error.code


def test_rejected_events_are_told_with_what_was_sent(app: App, tmp_path: Path) -> None:
    """What the service rejects of a batch that it takes is given back to the application."""
    told: list[tuple[BatchSummary, list[RejectedEvent]]] = []
    with (
        transport(app) as way,
        Client("http://127.0.0.1", API_KEY, transport=way) as client,
        client.sender(
            tmp_path / "spool", on_rejected=lambda *one: told.append((one[0], list(one[1])))
        ) as sender,
    ):
        sender.send_many([event("a"), {"user_id": CANARY, "op": "?"}, event("b")])
        assert sender.flush(WAIT)
        assert SenderStats(accepted=2, rejected=1) == sender.stats()

    ((summary, (rejected,)),) = told
    assert 3 == summary.events
    assert (1, "unknown_op") == (rejected.rejection.index, rejected.rejection.code.value)
    assert CANARY == json.loads(rejected.event)["user_id"]
    assert CANARY not in repr(told)


def test_a_callback_that_fails_does_not_end_the_sending(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its error is logged by its kind alone, as its words may hold an id."""
    caplog.set_level(logging.DEBUG)
    service = Service()
    service.refuse = lambda turn: httpx.Response(422) if turn == 1 else None

    def on_error(summary: BatchSummary, error: DpdauError) -> None:
        raise ValueError(CANARY)

    with sending(service, tmp_path / "spool", on_error=on_error, batch_events_max=1) as sender:
        sender.send_many([event(CANARY), event("b")])

    assert [["b"]] == service.users()
    assert CANARY not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_events_max": 0},
        {"batch_events_max": 1001},
        {"batch_bytes_max": 2 << 20, "spool_bytes_max": 1 << 20},
        {"batch_seconds": 0},
        {"close_seconds": -1},
        {"batch_seconds": math.inf},
        {"full_wait_seconds": math.inf},
        {"close_seconds": math.nan},
    ],
)
def test_limits_that_mean_nothing(wrong: dict[str, Any]) -> None:
    """Limits out of their range are refused."""
    with pytest.raises(InvalidSettingError):
        SenderLimits(**wrong)


@pytest.mark.parametrize("seed", range(3))
def test_every_event_is_counted_once_over_a_way_that_fails(
    app: App, tmp_path: Path, seed: int
) -> None:
    """Lost and torn requests, 429 and 503: all arrive, in order, nothing twice."""
    with transport(app) as way:
        faulty = Faulty(way, seed)
        with (
            Client("http://127.0.0.1", API_KEY, retry=AT_ONCE, transport=faulty) as client,
            client.sender(tmp_path / "spool", limits=SenderLimits(batch_events_max=7)) as sender,
        ):
            for number in range(200):
                sender.send(event(f"user-{number % 50}", op="-" if number % 2 else "+"))
            assert sender.flush(WAIT)
            stats = sender.stats()

    assert 200 == stats.accepted + stats.duplicate
    assert stats.duplicate > 0
    # The last event of a user decides: those with an even number end with a +.
    assert 25 == app.release(Metric.DAU, DAY).release.estimate


@pytest.mark.parametrize("is_async", [False, True])
def test_a_sender_without_work_sleeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    """It looks for work when there is something new, and not again and again."""
    service, looks, head = Service(), [], Spool.head

    def noted(spool: Spool, *, seal_open: bool) -> Any:
        looks.append(seal_open)
        return head(spool, seal_open=seal_open)

    async def send() -> None:
        limits = SenderLimits(batch_seconds=LONG)
        way = httpx.MockTransport(service)
        async with (
            AsyncClient("http://s", transport=way) as client,
            client.sender(tmp_path / "spool", limits=limits) as sender,
        ):
            for number in range(100):
                await sender.send(event(f"user-{number}"))
            assert await sender.flush(WAIT)

    monkeypatch.setattr(Spool, "head", noted)
    if is_async:
        asyncio.run(send())
    else:
        with sending(service, tmp_path / "spool") as sender:
            for number in range(100):
                sender.send(event(f"user-{number}"))
            assert sender.flush(WAIT)

    assert 100 == len(service.users()[0])
    assert len(looks) <= 6


def test_a_callback_does_not_wait_for_itself(tmp_path: Path) -> None:
    """What it flushes, sends or closes is done when it has returned."""
    service, found, returned = Service(), [], threading.Event()
    service.refuse = lambda turn: httpx.Response(422) if turn == 1 else None
    sender: Sender

    def on_error(summary: BatchSummary, error: DpdauError) -> None:
        sender.send(event("b"))
        found.append(sender.flush())
        with pytest.raises(SpoolFullError):
            sender.send_many([event("c")] * 100)
        found.append(sender.flush(WAIT))
        returned.set()

    limits = {"batch_events_max": 1, "spool_bytes_max": 800, "batch_bytes_max": 400}
    with sending(
        service, tmp_path / "spool", on_error=on_error, full_wait_seconds=LONG, **limits
    ) as sender:
        sender.send(event("a"))
        assert returned.wait(WAIT)

    assert [False, False] == found
    assert [["b"]] == service.users()


@pytest.mark.parametrize("index", [-1, 1, None])
def test_a_rejection_of_no_event_is_no_report(tmp_path: Path, index: int | None) -> None:
    """An answer that names an event that was not sent does not end the sending."""
    service = Service()
    one = {"index": index, "code": "bad_json", "field": None, "message": "No."}
    counts = {"received": 1, "accepted": 0, "duplicate": 0, "late": 0}
    body = {**counts, "rejected": [one], "rejected_count": 1}
    service.refuse = lambda turn: httpx.Response(202, json=body) if turn == 1 else None
    way = httpx.MockTransport(service)
    with (
        Client("http://s", retry=AT_ONCE, transport=way) as client,
        client.sender(tmp_path / "spool", on_rejected=lambda *_: None) as sender,
    ):
        sender.send(event("a"))
        assert sender.flush(WAIT)

    assert [["a"]] == service.users()


def test_no_id_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither logs nor reprs nor errors hold what is sent."""
    caplog.set_level(logging.DEBUG)
    service, told = Service(), []
    service.refuse = lambda turn: answer_of(InvalidEventError("No.")) if turn == 2 else None

    def on_error(summary: BatchSummary, error: DpdauError) -> None:
        told.append((summary, error, error.facts))

    with sending(service, tmp_path / "spool", on_error=on_error, batch_events_max=1) as sender:
        sender.send_many([event(CANARY), event(CANARY)])
        assert sender.flush(WAIT)
        assert CANARY not in f"{sender!r}{sender.stats()!r}{sender._outbox.spool!r}"

    assert 1 == len(told)
    assert CANARY not in f"{told!r}{caplog.text}"
