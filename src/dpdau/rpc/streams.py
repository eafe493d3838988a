"""Streams of batches: read, decoded and handed to the store by one thread each, in order."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Final

from dpdau.app import App
from dpdau.errors import (
    RETRY_AFTER_SECONDS,
    InvalidEventError,
    OverloadedError,
    StoreUnavailableError,
)
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded
from dpdau.rpc.events import batch_of
from dpdau.rpc.messages import parsed
from dpdau.rpc.v1 import dpdau_pb2 as v1

STREAMS_MAX: Final = 16
"""Streams at once: each has two threads."""
IN_FLIGHT_MAX: Final = 16
"""Requests of one stream that have no reply yet; beyond it, the stream is not read."""
ROOM_SECONDS_MAX: Final = 30.0
"""How long a stream waits for room in the queue of the store before it is refused."""
_LOOK_SECONDS: Final = 0.05
HELD_BYTES_MAX: Final = 64 << 20
"""Bytes of all requests that have no report yet; decoded they take a few times as much."""

_Landed = Future[IngestReport] | Exception | None


class Streams:
    """The open streams of a service.

    Args:
        app: Where events go.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._lock = threading.Lock()
        self._open: set[Stream] = set()
        self._is_stopping = False
        self._room = Room(HELD_BYTES_MAX)

    @contextmanager
    def opened(self, requests: Iterator[bytes], before: Callable[[], object]) -> "Iterator[Stream]":
        """A stream for the length of a `with` block; `before` may refuse each request.

        Raises:
            OverloadedError: Too many are open.
            StoreUnavailableError: The service stops.
        """
        stream = Stream(self._app, requests, before=before, room=self._room)
        with self._lock:
            if self._is_stopping:
                raise _stopping()
            if len(self._open) >= STREAMS_MAX:
                raise OverloadedError(
                    f"Expected at most {STREAMS_MAX} streams at once, found more; "
                    f"retry in {RETRY_AFTER_SECONDS} s.",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            self._open.add(stream)
        try:
            yield stream
        finally:
            stream.end()
            with self._lock:
                self._open.discard(stream)

    def stop(self) -> None:
        """Has every stream give the replies of what it has handed over, and end."""
        with self._lock:
            self._is_stopping = True
            for stream in self._open:
                stream.stop()


class Stream:
    """One stream: requests in, reports out, in the order of the requests.

    Guarantee: a report is given only when its events are durable, and after all reports before it.
    At most `IN_FLIGHT_MAX` requests have no reply.
    """

    def __init__(
        self, app: App, requests: Iterator[bytes], *, before: Callable[[], object], room: "Room"
    ) -> None:
        self._app = app
        self._requests = requests
        self._before = before
        self._room = room
        self._landed: queue.SimpleQueue[_Landed] = queue.SimpleQueue()
        self._places = threading.Semaphore(IN_FLIGHT_MAX - 1)
        self._ended = threading.Event()

    def reports(self) -> Iterator[IngestReport]:
        """The report of each request, once it is durable.

        Raises: What stood in the way of a request; later ones have no report.
        """
        threading.Thread(target=self._read, name="rpc-stream", daemon=True).start()
        while (landed := self._landed.get()) is not None:
            if isinstance(landed, Exception):
                raise landed
            yield landed.result()
            self._places.release()

    def stop(self) -> None:
        """Ends it after the reports of what was handed over before."""
        self._landed.put(_stopping())

    def end(self) -> None:
        """Ends it: nobody waits for a reply any more."""
        self._ended.set()
        self._places.release()
        self._landed.put(None)

    def _read(self) -> None:
        """What the thread of the stream does."""
        try:
            for request in self._requests:
                self._before()
                self._landed.put(self._submitted(request))
                del request
                self._places.acquire()
                if self._ended.is_set():
                    return
            self._landed.put(None)
        except Exception as error:  # noqa: BLE001 - the outermost loop of the stream's thread.
            self._landed.put(error)

    def _submitted(self, content: bytes) -> Future[IngestReport]:
        """Hands over the events of one request, when there is room for them."""
        size = len(content)
        self._room.take(size)
        try:
            decoded, batch_id = self._decoded(content)
            report = self._taken(decoded, batch_id)
        except BaseException:
            self._room.give(size)
            raise
        report.add_done_callback(lambda _: self._room.give(size))
        return report

    def _taken(self, decoded: Decoded | DecodedTable, batch_id: str | None) -> Future[IngestReport]:
        """Hands over events; where the queue is full the stream is slowed down, up to a limit."""
        until = time.monotonic() + ROOM_SECONDS_MAX
        while True:
            try:
                return self._app.intake.submit(decoded, batch_id=batch_id)
            except OverloadedError:
                if time.monotonic() >= until or self._ended.wait(_LOOK_SECONDS):
                    raise

    def _decoded(self, content: bytes) -> tuple[Decoded | DecodedTable, str | None]:
        """The events of one request, and the sender's id of the batch."""
        request = parsed(v1.IngestRequest, content)
        if request is None:
            raise InvalidEventError("Expected a message dpdau.v1.IngestRequest, found none.")
        return batch_of(request, rules=self._app.rules())


class Room:
    """Bounds how many bytes of requests are held at once; who needs more waits."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Holds bytes, when others have given back enough."""
        with self._changed:
            self._changed.wait_for(lambda: self._left >= size)
            self._left -= size

    def give(self, size: int) -> None:
        """Gives them back."""
        with self._changed:
            self._left += size
            self._changed.notify_all()


def _stopping() -> StoreUnavailableError:
    return StoreUnavailableError(
        "Expected a service that goes on, found it stopping; send again what has no reply."
    )
