"""Watchers of health: told side by side, each with one status under way."""

import queue
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2

from dpdau.app.readiness import Readiness
from dpdau.rpc.health import SEND_SECONDS_MAX, Health
from dpdau.rpc.methods import SERVICE
from dpdau.rpc.patience import Patience
from products import product
from rpc_service import rpc_server

SECONDS_MAX = 30.0
WATCH = "/grpc.health.v1.Health/Watch"
UP, DOWN = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Caller:
    """Who watches: accepts a status when the test lets it, and may be ended."""

    def __init__(self) -> None:
        self.may_accept = threading.Event()
        self.offered: queue.Queue[Any] = queue.Queue()
        self.ended = threading.Event()
        self.cancel = self.ended.set

    def add_callback(self, _: Callable[[], None]) -> bool:
        """The call is open."""
        return True

    def send(self, message: Any) -> None:
        """What the library does: waits until the receiver takes it; None is the end."""
        self.offered.put(None if message is None else message.status)
        assert self.may_accept.wait(SECONDS_MAX)

    def next(self) -> int | None:
        """What it is offered next."""
        return cast("int | None", self.offered.get(timeout=SECONDS_MAX))


def watching(health: Health) -> Caller:
    """A new watcher of the service."""
    caller = Caller()
    behavior = health.handlers().service(SimpleNamespace(method=WATCH)).stream_stream
    behavior(iter([health_pb2.HealthCheckRequest(service=SERVICE)]), caller, caller.send)
    return caller


def test_who_accepts_nothing_holds_up_no_other() -> None:
    """Others hear each change; it is ended in time, and hears the newest status and no older."""
    state, now = SimpleNamespace(is_ready=True), SimpleNamespace(seconds=0.0)
    readiness = cast("Readiness", SimpleNamespace(check=lambda: state.is_ready))
    health = Health(readiness, Patience(), clock=lambda: now.seconds)
    slow, good = watching(health), watching(health)
    good.may_accept.set()
    health.tell()
    heard = [good.next()]
    assert UP == slow.next()
    for is_ready in (False, True, False):
        state.is_ready = is_ready
        health.tell()
        heard.append(good.next())
    assert [UP, DOWN, UP, DOWN] == heard

    now.seconds = SEND_SECONDS_MAX
    health.tell()
    assert not slow.ended.is_set()
    now.seconds += 0.1
    health.tell()
    assert slow.ended.is_set()

    slow.may_accept.set()
    health.begin_stop()
    health.tell()
    assert [DOWN, None] == [slow.next(), slow.next()]
    assert good.next() is None
    assert good.offered.empty()


@pytest.mark.parametrize("method", [WATCH, "/grpc.health.v1.Health/Check"])
def test_a_call_that_asks_nothing_is_refused(
    tmp_path_factory: pytest.TempPathFactory, method: str
) -> None:
    """A call that is closed without a message is ended with what is missing."""
    with (
        product(tmp_path_factory.mktemp("health")) as app,
        rpc_server(app) as (_, channel),
        pytest.raises(grpc.RpcError) as refused,
    ):
        list(channel.stream_stream(method)(iter(()), timeout=SECONDS_MAX))

    assert grpc.StatusCode.INVALID_ARGUMENT == refused.value.code()
    assert "grpc.health.v1.HealthCheckRequest" in refused.value.details()
