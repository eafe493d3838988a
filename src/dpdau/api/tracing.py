"""Requests as spans of traces; in front of a service only where traces are asked for."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dpdau.api.traffic import CLIENT_CLOSED_STATUS, route_of
from dpdau.telemetry import Tracer

_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_TRACE_HEADERS: Final = frozenset({b"traceparent"})
"""Numbers alone. `tracestate` is any text of a caller's, and would be in every span."""
_FAILED: Final = 500


class TracedRequests:
    """Makes a span of each request.

    Guarantee: it is named by the template of the route and never by the path, and has no query, no
    address, no header and no size: `/users/{user_id}` has an id in it.
    """

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = CLIENT_CLOSED_STATUS

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _TRACE_HEADERS
        }
        with self._tracer.request(headers) as note:
            try:
                await self._app(scope, receive, send_noted)
            finally:
                method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
                route = route_of(scope)
                facts: dict[str, str | int] = {
                    "http.request.method": method,
                    "http.route": route,
                    "http.response.status_code": status,
                }
                note(f"{method} {route}", facts, failed=status >= _FAILED)
