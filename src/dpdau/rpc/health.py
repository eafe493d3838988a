"""The standard health service: of the process for "", and of the service whether it can write."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2

from dpdau.app.readiness import Readiness
from dpdau.rpc.methods import SERVICE
from dpdau.rpc.patience import Patience

WATCHERS_MAX: Final = 64
WATCH_SECONDS: Final = 5.0
_STATUS: Final = health_pb2.HealthCheckResponse
_Send = Callable[[Any], None]


class Health:
    """Answers who asks, and tells who watches when it changes; a watcher holds no thread.

    Args:
        readiness: Whether the product can write.
        patience: How long a call may take to say what it asks.
    """

    def __init__(self, readiness: Readiness, patience: Patience) -> None:
        self._readiness = readiness
        self._patience = patience
        self._lock = threading.Lock()
        self._watchers: dict[_Send, tuple[str, int | None]] = {}
        self._news = threading.Event()
        self._is_stopping = False

    def start(self) -> None:
        """Begins to tell watchers, on a thread; who does not listen holds up that thread alone."""
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
        """Tells each watcher what it has not heard yet."""
        with self._lock:
            watchers = list(self._watchers.items())
        for send, (name, heard) in watchers:
            status = self._status_of(name)
            if status == heard:
                continue
            with self._lock:
                if send not in self._watchers:
                    continue
                self._watchers[send] = (name, status)
            send(_STATUS(status=status))

    def _check(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """The health of a service."""
        asked = next(self._patience.messages(requests, context), None)
        if asked is None:
            return
        status = self._status_of(asked.service)
        if status == _STATUS.SERVICE_UNKNOWN:
            context.abort(grpc.StatusCode.NOT_FOUND, "Expected a service that is served here.")
        yield _STATUS(status=status)

    def _watch(self, requests: Iterator[Any], context: Any, send: _Send) -> None:
        """The health of a service, now and when it changes."""
        asked = next(self._patience.messages(requests, context), None)
        if asked is None:
            return
        with self._lock:
            if len(self._watchers) >= WATCHERS_MAX or self._is_stopping:
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Expected fewer watchers.")
            self._watchers[send] = (asked.service, None)
        if not context.add_callback(lambda: self._forget(send)):
            self._forget(send)
        self._news.set()

    def _forget(self, send: _Send) -> None:
        with self._lock:
            self._watchers.pop(send, None)

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
        with self._lock:
            watchers = list(self._watchers)
        for send in watchers:
            send(None)


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
