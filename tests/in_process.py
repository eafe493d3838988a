"""A service in this process: its ASGI app behind a synchronous HTTP client, without a socket."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import structlog
from anyio.from_thread import BlockingPortal, start_blocking_portal

from dpdau.api.server import create_api
from dpdau.app import App
from dpdau.domain import Scope
from dpdau.telemetry import configure_logs
from products import API_KEY


class InProcess(httpx.BaseTransport):
    """Carries requests to an ASGI app on an event loop of another thread."""

    def __init__(self, api: Any, portal: BlockingPortal) -> None:
        self._asgi = httpx.ASGITransport(api, raise_app_exceptions=True)
        self._portal = portal

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One request; what the app raises is raised here."""
        return self._portal.call(self._send, request)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        request.read()
        answer = await self._asgi.handle_async_request(request)
        body = httpx.ByteStream(await answer.aread())
        return httpx.Response(answer.status_code, headers=answer.headers, stream=body)


@contextmanager
def captured_logs() -> Iterator[io.StringIO]:
    """Everything that the product logs, as JSON lines; the tests' own HTTP client is left out."""
    root, sender = logging.getLogger(), logging.getLogger("httpx")
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logs(stream=stream, level="DEBUG")
    structlog.configure(cache_logger_on_first_use=False)
    sender.setLevel(logging.WARNING)
    yield stream
    sender.setLevel(logging.NOTSET)
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


@contextmanager
def transport(app: App, **options: Any) -> Iterator[InProcess]:
    """The way to a service over an app."""
    with start_blocking_portal() as portal:
        yield InProcess(create_api(app, **options), portal)


@contextmanager
def service(app: App, key: str | None = API_KEY, **options: Any) -> Iterator[httpx.Client]:
    """An HTTP client of a service over an app, with a key."""
    headers = {} if key is None else {"X-API-Key": key}
    with (
        transport(app, **options) as way,
        httpx.Client(base_url="http://127.0.0.1", transport=way, headers=headers) as http,
    ):
        yield http


def key_of(app: App, *scopes: Scope) -> dict[str, str]:
    """The header of a new stored key."""
    _, key = app.ledger.keys.create("tests", scopes, None, actor="tests")
    return {"X-API-Key": key}


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem document."""
    assert "application/problem+json" == answer.headers["content-type"]
    body = answer.json()
    assert {"type", "title", "status", "code", "detail"} <= set(body)
    assert answer.status_code == body["status"]
    return answer.status_code, body["code"]
