"""Streams of batches: in order, durable before the reply, bounded, and ended in good order."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from dpdau.app import App
from dpdau.domain import Metric
from dpdau.errors import OverloadedError
from dpdau.ingest.rules import Rules
from dpdau.rpc import streams
from dpdau.rpc.streams import IN_FLIGHT_MAX, Room
from dpdau.rpc.v1.dpdau_pb2_grpc import DpdauStub
from products import DAY, event, product
from rpc_service import KEY, Sender, listed, problem_of, rpc_server, rpc_service

SECONDS_MAX = 30.0


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """A product."""
    with product(tmp_path) as opened:
        yield opened


def users(app: App) -> int:
    """How many there are on the day of the tests, exactly."""
    return int(app.exact({Metric.DAU: 1}, DAY, DAY, reason="test")[Metric.DAU][0])


def test_replies_come_in_order_after_the_write(app: App) -> None:
    """Each request has its reply before the next is sent, and its events are in the store by then;
    many under way at once are answered in their order."""
    with rpc_service(app) as stub:
        sender = Sender()
        replies = stub.Ingest(iter(sender), metadata=KEY, timeout=SECONDS_MAX)
        for number in range(3):
            sender.queue.put(listed([event(f"u{number}")]))
            assert 1 == next(replies).accepted
            assert number + 1 == users(app)
        sender.queue.put(None)
        assert [] == list(replies)

        many = [listed([event(f"v{one}")] * (one + 1)) for one in range(5 * IN_FLIGHT_MAX)]
        found = stub.Ingest(iter(many), metadata=KEY, timeout=SECONDS_MAX)
        assert list(range(1, 5 * IN_FLIGHT_MAX + 1)) == [one.received for one in found]


def test_the_last_event_of_a_stream_decides(app: App) -> None:
    """Arrival order is the order of the stream."""
    with rpc_service(app) as stub:
        turns = [listed([event("u1", op="+-"[turn % 2])]) for turn in range(6)]
        assert 6 == len(list(stub.Ingest(iter(turns), metadata=KEY, timeout=SECONDS_MAX)))

    assert 0 == users(app)


def test_a_batch_that_comes_again_is_taken_once(app: App) -> None:
    """A second stream with the same batch id changes nothing."""
    with rpc_service(app) as stub:
        for expected in (1, 0):
            sent = iter([listed([event("u1")], "b:1")])
            assert expected == next(stub.Ingest(sent, metadata=KEY)).accepted


def test_a_request_that_is_none_ends_the_stream(app: App) -> None:
    """What was sent before has its reply; what comes after is not taken."""
    with rpc_server(app) as (_, channel):
        call = channel.stream_stream("/dpdau.v1.Dpdau/Ingest")
        good = listed([event("u1")]).SerializeToString()
        replies = call(iter([good, b"\xff\xff", good]), metadata=KEY, timeout=SECONDS_MAX)
        assert next(replies)
        with pytest.raises(grpc.RpcError) as refused:
            next(replies)

    assert grpc.StatusCode.INVALID_ARGUMENT == refused.value.code()
    assert "invalid_event" == problem_of(refused.value)["code"]


def test_a_stream_is_not_read_beyond_what_is_under_way(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store is held, only so many requests are taken from a stream."""
    decoded, gate, hand = [], threading.Event(), streams.batch_of
    enough = threading.Event()

    def counted(request: object, *, rules: Rules) -> object:
        decoded.append(1)
        if len(decoded) == IN_FLIGHT_MAX:
            enough.set()
        return hand(request, rules=rules)  # type: ignore[arg-type]

    monkeypatch.setattr(streams, "batch_of", counted)
    with rpc_service(app) as stub:
        holder = threading.Thread(target=lambda: app.intake.alone(gate.wait))
        holder.start()
        many = [listed([event("u1")]) for _ in range(3 * IN_FLIGHT_MAX)]
        replies = stub.Ingest(iter(many), metadata=KEY, timeout=SECONDS_MAX)
        assert enough.wait(SECONDS_MAX)
        held = len(decoded)
        gate.set()
        assert 3 * IN_FLIGHT_MAX == len(list(replies))
        holder.join()

    assert IN_FLIGHT_MAX == held


def test_too_many_streams_are_refused(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """One beyond the limit is told to come again; a place is free once another ended."""
    monkeypatch.setattr(streams, "STREAMS_MAX", 1)
    with rpc_service(app) as stub:
        sender = Sender()
        first = stub.Ingest(iter(sender), metadata=KEY, timeout=SECONDS_MAX)
        sender.queue.put(listed([event("u1")]))
        next(first)
        with pytest.raises(grpc.RpcError) as refused:
            next(stub.Ingest(iter([]), metadata=KEY))
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == refused.value.code()
        assert ("overloaded", 1) == (
            problem_of(refused.value)["code"],
            problem_of(refused.value)["retry_after_seconds"],
        )
        assert "1000" == dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"]
        sender.queue.put(None)
        assert [] == list(first)
        assert 1 == next(stub.Ingest(iter([listed([event("u2")])]), metadata=KEY)).accepted


def test_a_full_queue_is_told(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the queue of the store goes on to refuse ends the stream with the time to wait."""

    def refuse(*_: object, **__: object) -> None:
        raise OverloadedError("Expected room.", retry_after_seconds=7)

    monkeypatch.setattr(app.intake, "submit", refuse)
    monkeypatch.setattr(streams, "ROOM_SECONDS_MAX", 0.0)
    with rpc_service(app) as stub, pytest.raises(grpc.RpcError) as refused:
        next(stub.Ingest(iter([listed([event("u1")])]), metadata=KEY))

    assert grpc.StatusCode.RESOURCE_EXHAUSTED == refused.value.code()
    assert "7000" == dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"]


def test_a_full_queue_slows_a_stream(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """What there is no room for waits until there is some, and is taken once."""
    submit, refused = app.intake.submit, []

    def full_at_first(*given: Any, **options: Any) -> Any:
        if len(refused) < 3:
            refused.append(1)
            raise OverloadedError("Expected room.", retry_after_seconds=7)
        return submit(*given, **options)

    monkeypatch.setattr(app.intake, "submit", full_at_first)
    with rpc_service(app) as stub:
        sent = iter([listed([event("u1")]), listed([event("u2")])])
        found = [one.accepted for one in stub.Ingest(sent, metadata=KEY, timeout=SECONDS_MAX)]

    assert [1, 1] == found
    assert 3 == len(refused)


def test_a_stop_ends_streams_after_their_replies(app: App) -> None:
    """An idle stream ends as unavailable when the service stops, and does not hold it up."""
    with rpc_server(app, drain_seconds=SECONDS_MAX) as (server, channel):
        sender = Sender()
        replies = DpdauStub(channel).Ingest(iter(sender), metadata=KEY, timeout=SECONDS_MAX)
        sender.queue.put(listed([event("u1")]))
        assert 1 == next(replies).accepted
        server.begin_stop()
        with pytest.raises(grpc.RpcError) as ended:
            next(replies)
        sender.queue.put(None)

    assert grpc.StatusCode.UNAVAILABLE == ended.value.code()
    assert "store_unavailable" == problem_of(ended.value)["code"]


def test_a_deadline_ends_a_stream(app: App) -> None:
    """A stream whose time is over ends, and its place is free again."""
    with rpc_service(app) as stub:
        sender = Sender()
        replies = stub.Ingest(iter(sender), metadata=KEY, timeout=0.2)
        with pytest.raises(grpc.RpcError) as ended:
            next(replies)
        sender.queue.put(None)

    assert grpc.StatusCode.DEADLINE_EXCEEDED == ended.value.code()


def test_room_is_given_back() -> None:
    """Who needs more than is left waits until it is given back."""
    room, got = Room(10), threading.Event()
    room.take(8)

    def take() -> None:
        room.take(8)
        got.set()

    waiting = threading.Thread(target=take)
    waiting.start()
    assert not got.is_set()
    room.give(8)
    waiting.join(SECONDS_MAX)

    assert got.is_set()
