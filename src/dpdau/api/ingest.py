"""The two routes that take events, in front of the framework: they are asked most often.

What a request meets is the same as on every other route, in the same order: 429 for the address
(the layer around this one), 401, 429 for the key, 403, 415 and 413 for the body, 429 where too
much is being taken already, 422 for the shape. The declarations are for the OpenAPI document.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Header
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from dpdau.api.auth import Gate, require_scope
from dpdau.api.bodies import EVENT_FORMS, EVENTS_FORMS, BodyReader, form_of
from dpdau.api.openapi import BODY_STATUSES, body_of, guarded, ref
from dpdau.api.problems import Refusals
from dpdau.api.schemas import IngestShape
from dpdau.app import App
from dpdau.domain import Scope
from dpdau.errors import DpdauError, InvalidEventError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.decoded import TableForm
from dpdau.ingest.event import Form

BATCH_ID_LENGTH_MAX: Final = 256
LOOP_BYTES_MAX: Final = 256 << 10
"""A larger body is decoded beside the event loop; this many bytes take about 2 ms."""
EVENT_PATH: Final = "/event"
EVENTS_PATH: Final = "/events"
_METHOD: Final = "POST"
_NDJSON_SCHEMA: Final = {"type": "string", "description": "One event on each line."}
_TABLE_SCHEMA: Final = {
    "type": "string",
    "format": "binary",
    "description": "A flat table: user_id, op (all `+` where it is missing), day or ts, event_id, "
    "and a column for each dimension.",
}
_BatchId = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description=f"Id of the batch, 1..{BATCH_ID_LENGTH_MAX} characters: a batch that is sent "
        "again under the same id is taken once.",
    ),
]
Counting = Callable[[str, str, int, float], None]
"""(method, route, status, seconds) → counted."""
router = APIRouter()


@router.post(
    EVENT_PATH,
    status_code=202,
    response_model=IngestShape,
    summary="Take one event, or a few in an envelope; durable when it answers.",
    **guarded(
        Scope.INGEST,
        *BODY_STATUSES,
        requestBody=body_of({"application/json": ref("EventEnvelope")}),
    ),
)
async def post_event(idempotency_key: _BatchId = None) -> None:
    """Takes `{"event": {...}}` or `{"events": [...]}`."""


@router.post(
    EVENTS_PATH,
    status_code=202,
    response_model=IngestShape,
    summary="Take a batch of events; durable when it answers.",
    **guarded(
        Scope.INGEST,
        *BODY_STATUSES,
        requestBody=body_of(
            {
                "application/json": {"type": "array", "items": ref("EventShape")},
                "application/x-ndjson": _NDJSON_SCHEMA,
                "application/vnd.apache.arrow.stream": _TABLE_SCHEMA,
                "application/vnd.apache.parquet": _TABLE_SCHEMA,
            }
        ),
    ),
)
async def post_events(idempotency_key: _BatchId = None) -> None:
    """Takes a JSON array, NDJSON, an Arrow stream or Parquet; gzip or zstd by Content-Encoding."""


@dataclass(frozen=True, slots=True)
class _Route:
    """One of the routes, with its path where the framework has it."""

    path: str
    forms: Mapping[str, Form | TableForm]


_ROUTES: Final = {
    one.path: one for one in (_Route(EVENT_PATH, EVENT_FORMS), _Route(EVENTS_PATH, EVENTS_FORMS))
}
INGEST_PATHS: Final = frozenset(_ROUTES)


class Landing:
    """Hands the reports of a writing thread to requests that wait in an event loop.

    A group of reports is done at once, and wakes the loop once: waking it costs a system call.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._landed: deque[tuple[asyncio.Future[IngestReport], Future[IngestReport]]] = deque()
        self._is_called = False

    def of(self, report: Future[IngestReport]) -> asyncio.Future[IngestReport]:
        """The same report for the running loop; cancelling it cancels what has not begun."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._landed, self._is_called = loop, deque(), False
        waiting = loop.create_future()
        waiting.add_done_callback(lambda one: one.cancelled() and report.cancel())
        report.add_done_callback(lambda done: self._land(loop, waiting, done))
        return waiting

    def _land(
        self,
        loop: asyncio.AbstractEventLoop,
        waiting: asyncio.Future[IngestReport],
        done: Future[IngestReport],
    ) -> None:
        """Notes a report, in the thread that made it."""
        self._landed.append((waiting, done))
        if not self._is_called:
            self._is_called = True
            # Where the loop is closed, nobody waits any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        """Gives what has landed to those who wait, in the loop."""
        # First, so that what lands from here on calls again.
        self._is_called = False
        while self._landed:
            waiting, done = self._landed.popleft()
            if waiting.done():
                continue
            error = done.exception()
            if error is None:
                waiting.set_result(done.result())
            else:
                waiting.set_exception(error)


class IngestRoutes:
    """Serves the routes of events, and hands every other request on.

    Args:
        app: The layer for every other request.
        product: Where events go.
        gate: Who may send them.
        bodies: Reads them.
        refusals: Answers what is refused.
        count: Hears of each request, as the layer around the other routes does.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        product: App,
        gate: Gate,
        bodies: BodyReader,
        refusals: Refusals,
        count: Counting,
    ) -> None:
        self._app = app
        self._product = product
        self._gate = gate
        self._bodies = bodies
        self._refusals = refusals
        self._count = count
        self._landing = Landing()

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        route = _ROUTES.get(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        status, started = 500, time.perf_counter()
        try:
            answer = await self._answer(route, scope, receive)
            status = answer.status_code
            await answer(scope, receive, send)
        finally:
            self._count(scope["method"], route.path, status, time.perf_counter() - started)

    async def _answer(self, route: _Route, scope: ASGIScope, receive: Receive) -> Response:
        """What became of the events, or the refusal."""
        try:
            if scope["method"] == _METHOD:
                return await self._taken(route, scope, receive)
        except DpdauError as error:
            return self._refusals.of(error)
        except HTTPException as error:
            return self._refusals.of_http(error)
        return self._refusals.of_http(HTTPException(405, headers={"Allow": _METHOD}))

    async def _taken(self, route: _Route, scope: ASGIScope, receive: Receive) -> Response:
        """Takes the events of one request; durable when it answers."""
        headers = Headers(scope=scope)
        caller = await self._gate.admit(scope, headers.get("x-api-key"))
        require_scope(caller, Scope.INGEST)
        form = form_of(headers, route.forms)
        async with self._bodies.body(headers, receive) as body:
            batch_id = headers.get("idempotency-key")
            if batch_id is not None and not 1 <= len(batch_id) <= BATCH_ID_LENGTH_MAX:
                raise InvalidEventError(
                    f"Expected an Idempotency-Key of 1..{BATCH_ID_LENGTH_MAX} characters, "
                    f"found {len(batch_id)}."
                )
            intake = self._product.intake
            decode = partial(intake.decode, body, form, unpacked_bytes_max=self._bodies.bytes_max)
            if len(body) <= LOOP_BYTES_MAX and isinstance(form, Form):
                decoded = decode()
            else:
                decoded = await run_in_threadpool(decode)
            report = await self._landing.of(intake.submit(decoded, batch_id=batch_id))
        content = msgspec.json.encode(report.to_json())
        return Response(content, status_code=202, media_type="application/json")
