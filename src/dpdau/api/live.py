"""`GET /live`: today's counter as Server-Sent Events.

A stream looks at what this process released, twice a second, and reads neither the store nor the
ledger for it. It ends at shutdown, and after an hour, so that a key that was revoked is noticed:
clients come back by themselves and say with `Last-Event-ID` where they were.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from dpdau.api.openapi import guarded
from dpdau.api.routes import product
from dpdau.api.traffic import STREAM_PATH
from dpdau.app import App
from dpdau.domain import Release, Scope
from dpdau.errors import RateLimitedError

STREAMS_MAX: Final = 64
STREAM_SECONDS_MAX: Final = 3600.0
HEARTBEAT_SECONDS: Final = 15.0
LOOK_SECONDS: Final = 0.5
_RETRY_AFTER_SECONDS: Final = 30
_ID_LENGTH_MAX: Final = 64
_HEARTBEAT: Final = ":\n\n"
_MEDIA_TYPE: Final = "text/event-stream"
_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The ticks of today so far, then each one as it is released: events of type "
        "`tick` with a release as JSON; comments in between keep the connection open.",
        "content": {_MEDIA_TYPE: {"schema": {"type": "string"}}},
    }
}
_OPTIONS: Final = guarded(Scope.READ, 404, 422)
router = APIRouter()


class Streams:
    """The streams that are open, at most `STREAMS_MAX`, until `close`; used by the event loop."""

    def __init__(self, limit: int = STREAMS_MAX) -> None:
        self._limit = limit
        self._open = 0
        self.is_closed = False

    def take(self) -> None:
        """Takes a place for one more stream.

        Raises:
            RateLimitedError: As many as may be are open.
        """
        if self._open >= self._limit:
            raise RateLimitedError(
                f"Expected at most {self._limit} live streams at once; retry in "
                f"{_RETRY_AFTER_SECONDS} s.",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            )
        self._open += 1

    def give_back(self) -> None:
        """Frees the place of a stream that ended."""
        self._open -= 1

    def close(self) -> None:
        """Ends every stream at its next look."""
        self.is_closed = True


class StreamResponse(StreamingResponse):
    """The answer that holds a place, and gives it back however it ends."""

    media_type = _MEDIA_TYPE

    def __init__(self, content: AsyncIterator[str], opened: Streams) -> None:
        # A proxy that buffers would hold ticks back.
        super().__init__(content, headers={"X-Accel-Buffering": "no"})
        self._opened = opened

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Sends the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._opened.give_back()


async def streams(request: Request) -> Streams:
    """The open streams of this service."""
    found: Streams = request.app.state.streams
    return found


@router.get(
    STREAM_PATH,
    response_class=StreamingResponse,
    summary="Today's live counter, as Server-Sent Events.",
    **{**_OPTIONS, "responses": {**_RESPONSE, **_OPTIONS["responses"]}},
)
async def get_live(
    app: Annotated[App, Depends(product)],
    opened: Annotated[Streams, Depends(streams)],
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            description="Where a stream was cut off: what was released after that event follows.",
            max_length=_ID_LENGTH_MAX,
        ),
    ] = None,
) -> StreamResponse:
    """Today's ticks so far, then each one as it is released."""
    # What can be refused is refused before the answer begins, and before it takes a place.
    first = await run_in_threadpool(app.live.since, last_event_id)
    opened.take()
    texts = events(app, opened, first, last_event_id, heartbeat_seconds=HEARTBEAT_SECONDS)
    return StreamResponse(texts, opened)


async def events(
    app: App,
    opened: Streams,
    first: tuple[Release, ...],
    last_id: str | None,
    *,
    heartbeat_seconds: float,
) -> AsyncIterator[str]:
    """The text of one stream."""
    ticks, started = first, time.monotonic()
    spoken = started
    yield _HEARTBEAT
    while True:
        for tick in ticks:
            last_id, spoken = tick.release_id, time.monotonic()
            yield f"id: {last_id}\nevent: tick\ndata: {json.dumps(tick.to_json())}\n\n"
        if opened.is_closed or time.monotonic() - started >= STREAM_SECONDS_MAX:
            return
        if time.monotonic() - spoken >= heartbeat_seconds:
            spoken = time.monotonic()
            yield _HEARTBEAT
        await asyncio.sleep(LOOK_SECONDS)
        ticks = await run_in_threadpool(app.live.since, last_id)
