"""A sender and the scripted service that it sends to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from client_faults import AT_ONCE
from dpdau.client import (
    Client,
    Sender,
    SenderLimits,
)

LONG = 600.0
WAIT = 30.0


class Service:
    """A service that is scripted: it takes each batch, or answers what it is told to."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[dict[str, Any]]]] = []
        self.refuse: Callable[[int], httpx.Response | Exception | None] = lambda _: None
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.was_asked = threading.Event()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """One request."""
        self.asked += 1
        self.was_asked.set()
        self.may_answer.wait()
        refusal = self.refuse(self.asked)
        if isinstance(refusal, Exception):
            raise refusal
        if refusal is not None:
            return refusal
        events = [json.loads(line) for line in request.content.split(b"\n")]
        self.batches.append((request.headers["Idempotency-Key"], events))
        counts = {"received": len(events), "accepted": len(events), "duplicate": 0, "late": 0}
        return httpx.Response(202, json={**counts, "rejected": [], "rejected_count": 0})

    def users(self) -> list[list[str]]:
        """The users of each batch."""
        return [[one["user_id"] for one in events] for _, events in self.batches]


@contextmanager
def sending(
    service: Service, folder: Path, *, on_error: Any = None, **limits: Any
) -> Iterator[Sender]:
    """A sender to a scripted service; batches wait long unless told otherwise."""
    way = httpx.MockTransport(service)
    chosen = SenderLimits(**{"batch_seconds": LONG, "close_seconds": WAIT, **limits})
    with (
        Client("http://service.test", retry=AT_ONCE, transport=way) as client,
        client.sender(folder, limits=chosen, on_error=on_error) as sender,
    ):
        yield sender
