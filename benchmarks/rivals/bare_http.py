"""The least that a service of events must do: HTTP, decoding, one keyed hash an event; no store.

bare_http.py PORT
"""

import hashlib
import sys
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response


class Event(msgspec.Struct):
    """What is read of an event."""

    user_id: str
    op: str
    day: str


class Envelope(msgspec.Struct):
    """One event by itself."""

    event: Event


DAY = "2026-03-01"
LINES = msgspec.json.Decoder(Event)
ENVELOPE = msgspec.json.Decoder(Envelope)
HASHER = hashlib.blake2b(key=bytes(range(32)), digest_size=8)
api = FastAPI(openapi_url=None)


def hashed(events: list[Event]) -> Response:
    """One keyed hash for each event, and an answer."""
    digests = []
    for one in events:
        hasher = HASHER.copy()
        hasher.update(one.user_id.encode())
        digests.append(hasher.digest())
    return Response(msgspec.json.encode({"ingested": len(digests)}), 202)


@api.post("/event")
async def post_event(request: Request) -> Response:
    """One event."""
    return hashed([ENVELOPE.decode(await request.body()).event])


@api.post("/events")
async def post_events(request: Request) -> Response:
    """Events, one on each line."""
    return hashed(LINES.decode_lines(await request.body()))


@api.get("/version")
async def get_version() -> dict[str, str]:
    """What it is."""
    return {"version": "bare"}


@api.get("/releases")
async def get_releases() -> dict[str, Any]:
    """A release to be read."""
    return {"releases": [{"metric": "dau", "day": DAY, "window_days": 1}]}


@api.get("/dau/{day}")
async def get_dau(day: str) -> dict[str, str]:
    """The release."""
    return {"day": day}


if __name__ == "__main__":
    uvicorn.run(api, host="127.0.0.1", port=int(sys.argv[1]), loop="uvloop", access_log=False)
