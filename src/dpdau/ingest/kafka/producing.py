"""Events on their way into a topic, in the place of a store: acknowledged when Kafka has them."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final

import msgspec

from dpdau.activity.store import Applied
from dpdau.errors import RETRY_AFTER_SECONDS, DpdauError, OverloadedError, StoreUnavailableError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.commit import Request
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded, wire_of
from dpdau.ingest.kafka.broker import CLOSE_SECONDS, Broker, Health, library, unreachable

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

__all__ = ["Producing"]

EVENTS_MAX: Final = 500_000
"""Events that may wait for the broker; a single request may have more, if nothing else waits."""
READY_SECONDS: Final = 2.0
_POLL_SECONDS: Final = 0.1
_ROOM_SECONDS: Final = 0.01
_ENCODER: Final = msgspec.json.Encoder()


class Producing:
    """The road of events into a topic; it has the doors of `GroupCommit`.

    Args:
        broker: Where to.
        named: The keyed hash of a text, the same for ever.

    Guarantee: a request is acknowledged when all in-sync replicas have every event of it; where
    one of them is refused, or not acknowledged in time, the request fails, and may be sent again.
    The key of a message is a keyed hash of the user id, so the events of one user stay in order;
    the value is the event itself, user id included. An event without an `event_id` in a batch that
    has an id gets one from that id and its place in the batch, so a batch that is sent again
    counts once.
    """

    def __init__(self, broker: Broker, *, named: Callable[[str], str]) -> None:
        library()
        self._broker = broker
        self._named = named
        self._health = Health()
        self._lock = threading.Lock()
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._waiting = 0
        self._is_closed = self._is_broken = False
        self._producer: Producer | None = None
        self._threads: list[threading.Thread] = []
        self._ends = threading.Event()

    def submit(
        self,
        decoded: Decoded | DecodedTable,
        *,
        batch_id: str | None = None,
        offsets: Mapping[str, int] | None = None,
    ) -> "Future[IngestReport]":
        """Sends what was read; the report comes once the broker has it. Offsets are not kept.

        Raises:
            OverloadedError: Too much waits; nothing of it was taken.
            StoreUnavailableError: It is closed.

        The report's future raises:
            BrokerUnavailableError: The broker does not have all of it.
        """
        report: Future[IngestReport] = Future()
        self._take(Request(decoded, report, batch_id, offsets or {}))
        return report

    def submit_here(self, requests: Sequence[Request]) -> None:
        """Sends requests; what `submit` raises is given to the reply of each."""
        for request in requests:
            try:
                self._take(request)
            except DpdauError as error:
                request.reply.set_exception(error)

    def check_ready(self) -> None:
        """Proves that the broker answers.

        Raises:
            BrokerUnavailableError: It does not.
        """
        try:
            self._connected().list_topics(self._broker.topic, timeout=READY_SECONDS)
        except library().KafkaException as error:
            why = self._health.refusal or error.args[0].name()
            raise unreachable("answer", why) from None
        self._health.answered()

    def close(self) -> None:
        """Sends what waits, then ends; may be called twice."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            self._requests.put(None)
        if not self._threads:
            return
        sending, polling = self._threads
        sending.join()
        self._ends.set()
        polling.join()
        if self._producer is not None and not self._is_flushed(self._producer):
            # Who still waits is told that it failed.
            self._producer.purge()
            self._is_flushed(self._producer)

    def _take(self, request: Request) -> None:
        """Lets a request wait for its turn; raises what `submit` does."""
        size = request.size
        if not size:
            request.reply.set_result(_report(request))
            return
        self._connected()
        with self._lock:
            if self._is_closed:
                raise StoreUnavailableError("Expected an open way to Kafka, found it closed.")
            if self._waiting and self._waiting + size > EVENTS_MAX:
                raise OverloadedError(
                    "Expected room for these events, found too many that wait for Kafka; "
                    f"retry in {RETRY_AFTER_SECONDS} s.",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            self._waiting += size
            self._requests.put(request)

    def _connected(self) -> "Producer":
        """The producer, with its threads; made by who needs it first, and anew after it broke."""
        with self._lock:
            if self._producer is None:
                self._producer = self._broker.producer(self._failed)
            if not self._threads and not self._is_closed:
                self._threads = [
                    threading.Thread(target=one, name="kafka", daemon=True)
                    for one in (self._send, self._poll)
                ]
                for thread in self._threads:
                    thread.start()
            return self._producer

    def _failed(self, error: "KafkaError") -> None:
        """Hears of an error of the producer; after a fatal one it takes nothing more."""
        self._health.client_failed(error)
        self._is_broken = self._is_broken or error.fatal()

    def _poll(self) -> None:
        """Has the library tell what became of events."""
        while not self._ends.is_set():
            producer = self._connected()
            try:
                producer.poll(_POLL_SECONDS)
            except library().KafkaException as error:
                self._failed(error.args[0])
            if self._is_broken:
                # Who still waits is told that it failed; who comes next gets another producer.
                producer.purge()
                self._is_flushed(producer)
                with self._lock:
                    self._producer, self._is_broken = None, False

    def _is_flushed(self, producer: "Producer") -> bool:
        """Waits until the library has told of every event; whether it has."""
        try:
            return not producer.flush(CLOSE_SECONDS)
        except library().KafkaException as error:
            self._failed(error.args[0])
            return False

    def _send(self) -> None:
        """Sends request after request."""
        while (request := self._requests.get()) is not None:
            if not request.reply.set_running_or_notify_cancel():
                self._settled(request.size)
                continue
            delivery = _Delivery(request, self._settled, self._health)
            producer = self._connected()
            for key, value in self._encoded(request):
                self._produce(producer, key, value, delivery)

    def _produce(
        self, producer: "Producer", key: bytes, value: bytes, delivery: "_Delivery"
    ) -> None:
        """Hands one event to the library, when it has room."""
        while True:
            try:
                producer.produce(
                    self._broker.topic, value=value, key=key, on_delivery=delivery.landed
                )
            except BufferError:
                self._ends.wait(_ROOM_SECONDS)
            except library().KafkaException as error:
                delivery.landed(error.args[0], None)
                return
            else:
                return

    def _encoded(self, request: Request) -> Iterator[tuple[bytes, bytes]]:
        """Key and value of each event."""
        decoded, batch_id = request.decoded, request.batch_id
        batch = None if batch_id is None else self._named(f"kafka batch {batch_id}")
        refused = {one.index for one in decoded.rejected}
        places = (index for index in range(decoded.received) if index not in refused)
        keys: dict[str, bytes] = {}
        for place, event in zip(places, decoded.events, strict=True):
            user = event.user_id
            if user not in keys:
                keys[user] = self._named(f"kafka user {user}").encode()
            body = wire_of(event)
            if batch is not None:
                body.setdefault("event_id", f"{batch}.{place}")
            yield keys[user], _ENCODER.encode(body)

    def _settled(self, events: int) -> None:
        """So many events do not wait any more."""
        with self._lock:
            self._waiting -= events


class _Delivery:
    """What becomes of the events of one request."""

    def __init__(self, request: Request, settled: Callable[[int], None], health: Health) -> None:
        self._request = request
        self._settled = settled
        self._health = health
        self._lock = threading.Lock()
        self._left = request.size
        self._why: str | None = None

    def landed(self, error: "KafkaError | None", _message: Any) -> None:
        """One event has reached the broker, or has not; the last one answers the request."""
        with self._lock:
            if error is not None:
                self._why = error.name()
            self._left -= 1
            if self._left:
                return
        self._settled(self._request.size)
        if self._why is None:
            self._health.answered()
            self._request.reply.set_result(_report(self._request))
        else:
            why = self._health.refusal or self._why
            self._health.failed(why)
            self._request.reply.set_exception(unreachable("acknowledge every event", why))


def _report(request: Request) -> IngestReport:
    """The report of a request that the broker has: which events count is not known yet."""
    decoded = request.decoded
    return IngestReport.of(decoded.received, Applied(request.size, 0, 0), decoded.rejected)
