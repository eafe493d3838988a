"""The two routes that take events, in front of the framework: they are asked most often.

What a request meets is the same as on every other route, in the same order: 429 for the address
(the layer around this one), 401, 429 for the key, 403, 415 and 413 for the body, 429 where too
much is being taken already, 422 for the shape. The declarations are for the OpenAPI document.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Header
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as ASGIScope

from dpdau.api.auth import Gate
from dpdau.api.bodies import EVENT_FORMS, EVENTS_FORMS, BodyReader, form_of
from dpdau.api.openapi import BODY_STATUSES, body_of, guarded, ref
from dpdau.api.problems import Refusals
from dpdau.api.schemas import IngestShape
from dpdau.app import App
from dpdau.app.admission import require_scope
from dpdau.app.intake import Intake
from dpdau.domain import Scope
from dpdau.errors import DpdauError, InvalidEventError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.commit import Request as IngestRequest
from dpdau.ingest.decoded import DecodedTable, TableForm
from dpdau.ingest.event import BATCH_ID_LENGTH_MAX, Decoded, Form

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
_JSON_HEADER: Final = (b"content-type", b"application/json")
_Outcome = IngestReport | Exception
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


class Gathering:
    """Has the requests of an event loop written: those of one pass of it together.

    Args:
        intake: Where they wait, and are written, here where it can, else in a thread of its own.

    What a thread has written is handed over at once for all that landed meanwhile, as waking the
    loop costs a system call.
    """

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._is_called = self._writes_soon = False
        self._begin()

    async def report(self, decoded: Decoded | DecodedTable, batch_id: str | None) -> IngestReport:
        """The report of one request, once it is durable."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._begin(loop)
        waiting: asyncio.Future[IngestReport] = loop.create_future()
        # It waits in its place from now on; only the write is left for the end of this pass.
        self._intake.submit_here([IngestRequest(decoded, _Reply(self, waiting), batch_id)])
        self._write_soon()
        return await waiting

    def land(self, waiting: asyncio.Future[IngestReport], outcome: _Outcome) -> None:
        """Hands over what became of a request, from the thread that wrote it."""
        loop = waiting.get_loop()
        if loop is not self._loop:
            # Its loop is closed, and nobody waits any more.
            return
        if threading.get_ident() == self._thread:
            _hand_over(waiting, outcome)
            return
        self._landed.append((waiting, outcome))
        if not self._is_called:
            # Noted first: the loop may have received before this thread goes on.
            self._is_called = True
            if not _called(loop, self._receive):
                self._is_called = False

    def _begin(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Starts empty, for the loop of this thread."""
        self._loop = loop
        self._thread = threading.get_ident()
        self._landed: deque[tuple[asyncio.Future[IngestReport], _Outcome]] = deque()
        self._is_called = False
        self._writes_soon = False

    def _write_soon(self) -> None:
        """Has what waits written once this pass of the loop is over."""
        if not self._writes_soon:
            self._writes_soon = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        """Has a part of what waits written; where more does, others have a turn first."""
        loop = asyncio.get_running_loop()
        self._writes_soon = False
        if self._intake.write_here(lambda: _called(loop, self._write_soon)):
            self._write_soon()

    def _receive(self) -> None:
        """Gives what has landed to those who wait, in the loop."""
        # First, so that what lands from here on calls again.
        self._is_called = False
        while self._landed:
            _hand_over(*self._landed.popleft())


def _called(loop: asyncio.AbstractEventLoop, back: Callable[[], None]) -> bool:
    """Has a loop call back, from another thread; False where it is closed."""
    try:
        loop.call_soon_threadsafe(back)
    except RuntimeError:
        return False
    return True


class _Reply:
    """Where the report of one request goes: to whoever waits in the loop."""

    __slots__ = ("_gathering", "_waiting")

    def __init__(self, gathering: Gathering, waiting: asyncio.Future[IngestReport]) -> None:
        self._gathering = gathering
        self._waiting = waiting

    def set_running_or_notify_cancel(self) -> bool:
        """Whether somebody still waits."""
        return not self._waiting.cancelled()

    def set_result(self, result: IngestReport, /) -> None:
        """Takes the report."""
        self._gathering.land(self._waiting, result)

    def set_exception(self, exception: Exception, /) -> None:
        """Takes what stood in the way."""
        self._gathering.land(self._waiting, exception)


def _hand_over(waiting: asyncio.Future[IngestReport], outcome: _Outcome) -> None:
    """Gives what became of a request to who waits for it."""
    if waiting.done():
        return
    if isinstance(outcome, Exception):
        waiting.set_exception(outcome)
    else:
        waiting.set_result(outcome)


class IngestRoutes:
    """Serves the routes of events, and hands every other request on.

    Args:
        app: The layer for every other request.
        product: Where events go.
        gate: Who may send them.
        bodies: Reads them.
        refusals: Answers what is refused.
    """

    def __init__(
        self, app: ASGIApp, *, product: App, gate: Gate, bodies: BodyReader, refusals: Refusals
    ) -> None:
        self._app = app
        self._intake = product.intake
        self._gate = gate
        self._bodies = bodies
        self._refusals = refusals
        self._gathering = Gathering(product.intake)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        route = _ROUTES.get(scope["path"]) if scope["type"] == "http" else None
        if route is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        try:
            report = await self._taken(route, scope, receive)
        except DpdauError as error:
            await self._refusals.of(error)(scope, receive, send)
        except HTTPException as error:
            await self._refusals.of_http(error)(scope, receive, send)
        else:
            body = msgspec.json.encode(report.to_json())
            headers = [_JSON_HEADER, (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 202, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    async def _taken(self, route: _Route, scope: ASGIScope, receive: Receive) -> IngestReport:
        """Takes the events of one request; durable when it returns."""
        if scope["method"] != _METHOD:
            raise HTTPException(405, headers={"Allow": _METHOD})
        # Where a name comes twice, the first one counts, as on every other route.
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in reversed(scope["headers"])
        }
        caller = await self._gate.admit(scope, headers.get("x-api-key"))
        require_scope(caller, Scope.INGEST)
        form = form_of(headers, route.forms)
        with self._bodies.holding() as hold:
            body = await self._bodies.read(scope, headers, receive, hold)
            batch_id = headers.get("idempotency-key")
            if batch_id is not None and not 1 <= len(batch_id) <= BATCH_ID_LENGTH_MAX:
                raise InvalidEventError(
                    f"Expected an Idempotency-Key of 1..{BATCH_ID_LENGTH_MAX} characters, "
                    f"found {len(batch_id)}."
                )
            decode = partial(
                self._intake.decode, body, form, unpacked_bytes_max=self._bodies.bytes_max
            )
            if len(body) <= LOOP_BYTES_MAX and isinstance(form, Form):
                decoded = decode()
            else:
                decoded = await run_in_threadpool(decode)
            return await self._gathering.report(decoded, batch_id)
