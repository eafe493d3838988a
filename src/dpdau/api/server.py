"""Builds the HTTP service over an `App` and runs it until it is told to stop."""

import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from dpdau import __version__
from dpdau.api import (
    growth,
    ingest,
    live,
    openapi,
    pages,
    problems,
    routes,
    screens,
    traffic,
    visits,
)
from dpdau.api.auth import Gate
from dpdau.api.bodies import BODY_BYTES_MAX, BodyReader
from dpdau.api.protocol import BoundedHttpProtocol
from dpdau.api.readiness import ReadinessProbe
from dpdau.api.tracing import TracedRequests
from dpdau.app import App
from dpdau.app.admission import INGEST_RATE_LIMIT, RATE_LIMIT, require_loopback
from dpdau.app.reception import Reception
from dpdau.app.showing import Showing
from dpdau.errors import InvalidSettingError
from dpdau.telemetry import Metrics, log, logs_in_batches, tracing, write_logs

DRAIN_SECONDS_MAX: Final = 30
STUCK_SECONDS: Final = 1
STUCK_EXIT_CODE: Final = 5
KEEP_ALIVE_SECONDS: Final = 15
BACKLOG: Final = 1024
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_LOG = log("api")


def create_api(
    app: App,
    *,
    no_auth: bool = False,
    unsafe_debug: bool = False,
    rate_limit: str = RATE_LIMIT,
    ingest_rate_limit: str = INGEST_RATE_LIMIT,
    max_body_bytes: int = BODY_BYTES_MAX,
    reception: Reception | None = None,
    warm_up: Callable[[], None] | None = None,
) -> FastAPI:
    """The HTTP service over an app, ready for any ASGI server.

    Args:
        app: The product; stays open.
        no_auth: Asks for no key; only for a service that nothing but this machine can reach.
        unsafe_debug: Lets exact values out where the app gives them.
        rate_limit: Requests of one client address, and of one key, as `1000/second`.
        ingest_rate_limit: The same for the routes that take events, in windows of their own.
        max_body_bytes: Size of a body, as sent and decompressed.
        reception: What another front of the service shares, with limits of its own; without, one
            is made with the limits above.
        warm_up: Done once, on a thread, at the first request that is not of events.

    Guarantee: a user id that a request holds is in no refusal, log line or metric, and no metric
    follows the number of events in a batch. Requests are counted by route, so whoever may read
    `/metrics` counts the events of a sender that makes one request of each.
    """
    assert max_body_bytes > 0
    metrics = app.metrics or Metrics()
    if reception is None:
        reception = Reception.of(app, rate_limit=rate_limit, ingest_rate_limit=ingest_rate_limit)
    taking = dict.fromkeys(ingest.INGEST_PATHS, reception.taking)
    limiters = {"": reception.asking} | taking
    gate = Gate(app, limiters, no_auth=no_auth, warm_up=warm_up)
    bodies = BodyReader(max_body_bytes)
    refusals = problems.Refusals(metrics)
    api = _Api(
        title="dpdau",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # The framework's own spans and logs would carry paths, and a path may carry a user id.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    api.state.product = app
    api.state.gate = gate
    api.state.bodies = bodies
    api.state.refusals = refusals
    api.state.showing = Showing(app)
    api.state.visits = visits.Visits(app, gate, no_auth=no_auth)
    api.state.readiness = ReadinessProbe(reception.readiness)
    api.state.streams = live.Streams()
    api.state.unsafe_debug = unsafe_debug
    api.state.registry = metrics.registry
    api.include_router(routes.router)
    api.include_router(growth.router)
    api.include_router(live.router)
    api.include_router(pages.router)
    api.include_router(screens.router)
    problems.install(api, refusals)
    visits.install(api)
    openapi.install(api, declared=ingest.router.routes)
    taking_events = ingest.IngestRoutes(
        api.by_framework, product=app, gate=gate, bodies=bodies, refusals=refusals
    )
    api.front = traffic.TrafficMiddleware(taking_events, limiters=limiters, metrics=metrics)
    if (tracer := tracing()) is not None:
        api.front = TracedRequests(api.front, tracer)
    return api


class _Api(FastAPI):
    """The framework's application behind the layers that every request meets first.

    They stand in front of the framework's own layers: those cost a request of one event more than
    all that is done for it.
    """

    front: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.front(scope, receive, send)

    async def by_framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request of all routes but those of events."""
        await super().__call__(scope, receive, send)


def serve(
    app: App,
    *,
    host: str,
    port: int,
    no_auth: bool = False,
    unsafe_debug: bool = False,
    rate_limit: str = RATE_LIMIT,
    ingest_rate_limit: str = INGEST_RATE_LIMIT,
    max_body_bytes: int = BODY_BYTES_MAX,
    drain_seconds: int = DRAIN_SECONDS_MAX,
    reception: Reception | None = None,
    stopping: Callable[[], None] | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT; then closes the app.

    On the signal it stops accepting, lets requests in flight finish for at most `drain_seconds`,
    and closes the app. The caller's process goes on and ends with its own exit code. Only where a
    request is stuck beyond that limit is the process ended, with `STUCK_EXIT_CODE`: what was
    acknowledged is durable, and what was not is not. Another front over the same app hears of the
    stop by `stopping`, which must not wait, and is closed with the app.

    Raises:
        InvalidSettingError: `no_auth` or `unsafe_debug` on an address that others can reach.
    """
    require_loopback(host, no_auth=no_auth, unsafe_debug=unsafe_debug)
    api = create_api(
        app,
        no_auth=no_auth,
        unsafe_debug=unsafe_debug,
        rate_limit=rate_limit,
        ingest_rate_limit=ingest_rate_limit,
        max_body_bytes=max_body_bytes,
        reception=reception,
        warm_up=app.warm_up,
    )
    config = uvicorn.Config(
        api,
        loop="uvloop",
        http=BoundedHttpProtocol,
        ws="none",
        lifespan="off",
        workers=1,
        log_config=None,
        access_log=False,
        server_header=False,
        # The rate of an address is the rate of the peer; a header could claim any address.
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
    )
    server = _Server(config, api.state.streams, stopping)
    try:
        listener = _listen(host, port)
        _LOG.info("serving", host=host, port=listener.getsockname()[1])
        with _stop_signals_end_here(), logs_in_batches():
            # What is loaded by now stays: a collection need not look at it again and again.
            gc.collect()
            gc.freeze()
            server.run(sockets=[listener])
    finally:
        app.close()
        if server.is_stuck:
            _end_stuck()
        server.limit.cancel()
    _LOG.info("stopped")


class _Server(uvicorn.Server):
    """The server with a limit on its own stop: a thread that is stuck would hold it for ever."""

    def __init__(
        self, config: uvicorn.Config, streams: live.Streams, stopping: Callable[[], None] | None
    ) -> None:
        super().__init__(config)
        self._streams = streams
        self._stopping = stopping
        drain = config.timeout_graceful_shutdown
        assert drain is not None
        self.is_stuck = False
        self.limit = threading.Timer(drain + STUCK_SECONDS, _end_stuck)
        self.limit.daemon = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the limit, ends the streams, stops, and notes whether a request did not finish."""
        self.limit.start()
        if self._stopping is not None:
            self._stopping()
        self._streams.close()
        await super().shutdown(sockets)
        self.is_stuck = bool(self.server_state.tasks)


def _end_stuck() -> None:
    """Ends the process: a request did not finish within the limit."""
    _LOG.error("stuck", detail="requests did not finish within the limit and were cut off")
    write_logs()
    os._exit(STUCK_EXIT_CODE)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket; bound here because the server would end the process where it cannot.

    Raises:
        InvalidSettingError: The address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise InvalidSettingError(
            f"Expected an address that can be bound, found {host} port {port}: {error.strerror}.",
            host=host,
            port=port,
        ) from None


@contextmanager
def _stop_signals_end_here() -> Iterator[None]:
    """The server raises the signal that stopped it once more at its end, for its caller to see.

    Here the stop is done by then, so the second one is let pass.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in _STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
