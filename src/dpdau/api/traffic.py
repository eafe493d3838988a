"""What surrounds every request: rate by address, access log, latency, and the last catch.

A log line names the route's template and never the path: `/users/{user_id}` has an id in it. It
carries no client address and no query for the same reason.
"""

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpdau.api.apologies import ForPeople
from dpdau.api.auth import TRAFFIC_SCOPE_KEY, Traffic, limiter_of
from dpdau.api.problems import INTERNAL_CODE, internal_problem, problem_of
from dpdau.app.admission import RateLimiter
from dpdau.errors import RateLimitedError
from dpdau.telemetry import Metrics, log, log_line, place_of

LATENCY_SAMPLES_MAX: Final = 2048
CLIENT_CLOSED_STATUS: Final = 499
_UNLIMITED_PATHS: Final = frozenset({"/healthz"})
STREAM_PATH: Final = "/live"
PAGE_STREAM_PATH: Final = "/pages/live"
_STREAM_PATHS: Final = frozenset({STREAM_PATH, PAGE_STREAM_PATH})
"""Their answers last as long as the reader stays, which is no latency."""
READY_PATH: Final = "/readyz"
"""It tells a state with 503, which is no failure of its own."""
_LATENCY_BUCKETS_SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1, 5)
ANSWER_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # A page has a policy of its own; what is none may load and do nothing.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_LOG = log("api")
ASSETS_PATH: Final = "/assets/"
"""Files without data, each at an address of its own content."""


def _sent(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    """Headers as they are sent."""
    return tuple((name.lower().encode(), value.encode()) for name, value in headers.items())


_ANSWER_HEADERS: Final = _sent(ANSWER_HEADERS)
_POLICY: Final = b"content-security-policy"
_PAGE_HEADERS: Final = tuple(one for one in _ANSWER_HEADERS if one[0] != _POLICY)
_ASSET_HEADERS: Final = (
    *(one for one in _PAGE_HEADERS if one[0] != b"cache-control"),
    (b"cache-control", b"public, max-age=86400"),
)


def _added(path: str, own: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """What every answer has besides its own headers."""
    if any(name == _POLICY for name, _ in own):
        return _ASSET_HEADERS if path.startswith(ASSETS_PATH) else _PAGE_HEADERS
    return _ANSWER_HEADERS


class LatencyWindow:
    """The latencies of the last `LATENCY_SAMPLES_MAX` requests, as two gauges."""

    def __init__(self, metrics: Metrics) -> None:
        self._samples: deque[float] = deque(maxlen=LATENCY_SAMPLES_MAX)
        for percent in (50, 99):
            gauge = Gauge(
                f"dp_request_latency_ms_p{percent}",
                f"Latency in ms that {percent} % of the last requests did not exceed.",
                registry=metrics.registry,
            )
            gauge.set_function(partial(self.percentile, percent))

    def add(self, milliseconds: float) -> None:
        """Takes one request in; the oldest leaves."""
        self._samples.append(milliseconds)

    def percentile(self, percent: int) -> float:
        """The nearest-rank percentile in ms; 0 before the first request."""
        ranked = sorted(self._samples)
        if not ranked:
            return 0.0
        return ranked[max(math.ceil(len(ranked) * percent / 100), 1) - 1]


class TrafficMiddleware:
    """The outermost layer of the service: nothing that fails inside reaches the server's log."""

    def __init__(
        self, app: ASGIApp, *, limiters: Mapping[str, RateLimiter], metrics: Metrics
    ) -> None:
        self._app = app
        self._limiters = limiters
        self._metrics = metrics
        self._latency = LatencyWindow(metrics)
        self._counts = RequestCounts(metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request; a websocket is closed by the layer below."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        traffic = scope[TRAFFIC_SCOPE_KEY] = Traffic()
        status = 0
        started = time.perf_counter()
        answered: float | None = None

        async def send_noted(message: Message) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], time.perf_counter()
                rate = traffic.rate
                message["headers"] += _added(scope["path"], message["headers"])
                message["headers"] += rate.headers() if rate is not None else ()
            elif scope["method"] == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        shown = ForPeople(scope, send_noted)
        try:
            await self._limited(scope, receive, shown)
        except ClientDisconnect:
            status = CLIENT_CLOSED_STATUS
        except Exception as error:  # noqa: BLE001 - the outermost loop of the service.
            self._metrics.refusals.labels(INTERNAL_CODE).inc()
            status_of_bug = int(HTTPStatus.INTERNAL_SERVER_ERROR)
            _LOG.error("failed", route=route_of(scope), status=status_of_bug, **place_of(error))
            if status == 0:
                await internal_problem()(scope, receive, shown)
        finally:
            now = time.perf_counter()
            method, route = scope["method"], route_of(scope)
            self._counts.add(method, status, route, (answered or now) - started)
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR and route != READY_PATH:
                self._metrics.failures.labels("http").inc()
            milliseconds = (now - started) * 1000
            if route not in _STREAM_PATHS:
                self._latency.add(milliseconds)
            facts = {
                "method": method,
                "route": route,
                "status": status,
                "duration_ms": round(milliseconds, 3),
                "caller": traffic.caller,
            }
            log_line("api", "request", facts)

    async def _limited(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Counts the client's address before anything else is done for it."""
        if scope["path"] not in _UNLIMITED_PATHS:
            client = scope.get("client")
            traffic: Traffic = scope[TRAFFIC_SCOPE_KEY]
            limiter = limiter_of(self._limiters, scope)
            traffic.rate = limiter.take("address", client[0] if client else "local")
            try:
                traffic.rate.require()
            except RateLimitedError as error:
                self._metrics.refusals.labels(error.code).inc()
                await problem_of(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def route_of(scope: Scope) -> str:
    """The template of the route that a request met, or `none`."""
    path = getattr(scope.get("route"), "path", None)
    return "none" if path is None else str(path)


class RequestCounts:
    """Requests by route and status, and the time to the start of each answer.

    Requests and not events: a batch is one. A sender of single events turns the one count into the
    other, so `/metrics` is for operators alone. The sizes of requests and answers are not counted,
    because their sums follow the number of events however they are sent.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._requests = Counter(
            "http_requests_total",
            "Requests by method, status and route.",
            ["method", "status", "handler"],
            registry=metrics.registry,
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Time to the start of the answer, in seconds.",
            ["method", "handler"],
            buckets=_LATENCY_BUCKETS_SECONDS,
            registry=metrics.registry,
        )
        self._known: dict[tuple[str, int, str], tuple[Counter, Histogram]] = {}

    def add(self, method: str, status: int, route: str, seconds: float) -> None:
        """Counts one request."""
        known = self._known.get((method, status, route))
        if known is None:
            known = self._known[method, status, route] = (
                self._requests.labels(method, str(status), route),
                self._seconds.labels(method, route),
            )
        known[0].inc()
        known[1].observe(seconds)
