"""The standard health service: of the process for "", and of the service whether it can write."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2

from dpdau.app.readiness import Readiness
from dpdau.rpc.methods import SERVICE
from dpdau.rpc.patience import Patience

WATCHERS_MAX: Final = 64
WATCH_SECONDS: Final = 5.0
SEND_SECONDS_MAX: Final = 10.0
"""How long a watcher may take to accept one status; then it is ended."""
_STATUS: Final = health_pb2.HealthCheckResponse
_Send = Callable[[Any], None]


@dataclass(slots=True, eq=False)
class _Watcher:
    """A call that hears of changes: what it is to know, and what it was told."""

    name: str
    send: _Send
    end: Callable[[], None]
    wanted: int | None = None
    told: int | None = None
    sending_since: float | None = None
    is_last: bool = False


class Health:
    """Answers who asks, and tells who watches when it changes; a watcher holds no thread.

    Guarantee: each watcher has at most one status under way, and hears the newest one next; one
    that does not accept it holds up no other, and is ended after `SEND_SECONDS_MAX`.

    Args:
        readiness: Whether the product can write.
        patience: How long a call may take to say what it asks.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        readiness: Readiness,
        patience: Patience,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._readiness = readiness
        self._patience = patience
        self._clock = clock
        self._lock = threading.Lock()
        self._watchers: set[_Watcher] = set()
        # As many as may watch: a send waits for its receiver, and nobody for another's.
        self._senders = ThreadPoolExecutor(WATCHERS_MAX, thread_name_prefix="rpc-tell")
        self._news = threading.Event()
        self._is_stopping = False

    def start(self) -> None:
        """Begins to look for news, on a thread."""
        threading.Thread(target=self._follow, name="rpc-health", daemon=True).start()

    def begin_stop(self) -> None:
        """From now on nothing is serving, and nobody watches on; does not wait."""
        with self._lock:
            self._is_stopping = True
        self._news.set()

    def handlers(self) -> Any:
        """The methods as the server takes them."""
        # What the library calls a behavior that gives its thread back, and sends from elsewhere.
        watch: Any = _NonBlocking(self._watch)
        return grpc.method_handlers_generic_handler(
            health.SERVICE_NAME,
            {
                name: grpc.stream_stream_rpc_method_handler(
                    behavior,
                    health_pb2.HealthCheckRequest.FromString,
                    health_pb2.HealthCheckResponse.SerializeToString,
                )
                for name, behavior in {"Check": self._check, "Watch": watch}.items()
            },
        )

    def tell(self) -> None:
        """Has each watcher told what it has not heard yet, and ends those that are too slow."""
        with self._lock:
            is_last, watchers = self._is_stopping, list(self._watchers)
        news = {name: self._status_of(name) for name in {one.name for one in watchers}}
        slow = []
        with self._lock:
            now = self._clock()
            for one in watchers:
                one.wanted, one.is_last = news[one.name], is_last
                if one.sending_since is None and (one.told != one.wanted or is_last):
                    one.sending_since = now
                    self._senders.submit(self._send, one)
                elif one.sending_since is not None and now - one.sending_since > SEND_SECONDS_MAX:
                    slow.append(one)
        for one in slow:
            one.end()

    def _send(self, watcher: _Watcher) -> None:
        """Tells one watcher until it knows what it is to know; waits for its receiver."""
        while True:
            with self._lock:
                if watcher.told == watcher.wanted:
                    if watcher.is_last:
                        break
                    watcher.sending_since = None
                    return
                watcher.told, watcher.sending_since = watcher.wanted, self._clock()
            watcher.send(_STATUS(status=watcher.told))
        # It stays under way, so nothing is sent after the end.
        watcher.send(None)

    def _check(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """The health of a service."""
        status = self._status_of(self._asked(requests, context))
        if status == _STATUS.SERVICE_UNKNOWN:
            context.abort(grpc.StatusCode.NOT_FOUND, "Expected a service that is served here.")
        yield _STATUS(status=status)

    def _watch(self, requests: Iterator[Any], context: Any, send: _Send) -> None:
        """The health of a service, now and when it changes."""
        watcher = _Watcher(self._asked(requests, context), send, context.cancel)
        with self._lock:
            if len(self._watchers) >= WATCHERS_MAX or self._is_stopping:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Expected fewer watchers.")
            self._watchers.add(watcher)
        if not context.add_callback(lambda: self._forget(watcher)):
            self._forget(watcher)
        self._news.set()

    def _asked(self, requests: Iterator[Any], context: Any) -> str:
        """The service that a call asks for; ends a call that asks for none."""
        asked = next(self._patience.messages(requests, context), None)
        if asked is not None:
            return str(asked.service)
        name = health_pb2.HealthCheckRequest.DESCRIPTOR.full_name
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"Expected a message {name}, found none.")
        raise AssertionError("abort raises")

    def _forget(self, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.discard(watcher)

    def _status_of(self, name: str) -> int:
        if name not in ("", SERVICE):
            return int(_STATUS.SERVICE_UNKNOWN)
        is_serving = not self._is_stopping and (not name or self._readiness.check())
        return int(_STATUS.SERVING if is_serving else _STATUS.NOT_SERVING)

    def _follow(self) -> None:
        """What the thread does."""
        while not self._is_stopping:
            self._news.wait(WATCH_SECONDS)
            self._news.clear()
            self.tell()
        self.tell()
        self._senders.shutdown(wait=False)


class _NonBlocking:
    """A behavior under the mark by which the library knows that it sends from elsewhere."""

    experimental_non_blocking: Final = True

    def __init__(self, behavior: Callable[[Iterator[Any], Any, _Send], None]) -> None:
        self._behavior = behavior

    def __call__(
        self, requests: Iterator[Any], context: Any, send_response_callback: _Send
    ) -> None:
        """One call."""
        self._behavior(requests, context, send_response_callback)
