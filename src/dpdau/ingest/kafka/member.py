"""One member of the consumer group: reads, has written, and stands behind what is stored."""

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from threading import Event as Flag
from typing import TYPE_CHECKING, Any, Final, Protocol

from dpdau.domain import Clock
from dpdau.errors import (
    BrokerUnavailableError,
    DpdauError,
    OverloadedError,
    TopicMismatchError,
    UnavailableError,
)
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.kafka.broker import Broker, Health, library, unreachable
from dpdau.ingest.kafka.claims import Claims
from dpdau.ingest.kafka.dead_letters import DeadLetters
from dpdau.ingest.kafka.messages import Batch, read
from dpdau.ingest.rules import Rules
from dpdau.telemetry import log

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition

__all__ = ["Listener", "Member"]

MESSAGES_MAX: Final = 10_000
"""Messages of one batch; of a full queue that is a tenth of a second of reading."""
FETCH_SECONDS: Final = 0.1
ASK_SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 1.0
"""A commit that takes longer has the partitions paused."""
RETRY_SECONDS_MAX: Final = 30.0
_PASSING: Final = (UnavailableError, OverloadedError)
"""What another attempt may mend."""
_LOG = log("ingest")


class Listener(Protocol):
    """Who hears how it goes; from any thread."""

    def stored(self, report: IngestReport) -> None:
        """A batch is durable."""

    def behind(self, partition: int, seconds: float) -> None:
        """How old the oldest message of a partition is that is not durable; 0 for none."""

    def gone(self, partitions: Iterable[int]) -> None:
        """Partitions are not read by this member any more."""

    def lost(self, messages: int) -> None:
        """So many places of the topic were deleted before they were read, and are passed over."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A batch that is being written."""

    batch: Batch
    future: "Future[IngestReport]"


class Member:
    """One member of the group, for a thread of its own.

    Args:
        broker: Where events come from.
        claims: The partitions of this process, shared by its members.
        rules: What is taken now.
        health: Says once that something is away, shared by the members.
        listener: Hears how it goes.
        clock: What time it is.
        accept_gap: Passes over messages that were deleted before they were read.

    Guarantee: see `Claims`. At most two batches are in memory besides what the library has fetched
    ahead; while a commit takes long, or the store cannot write, nothing more is fetched. No message
    is passed over that was not read, unless that was accepted: it could be somebody's removal.

    Raises:
        InvalidSettingError: The library is missing or refuses an option.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        claims: Claims,
        rules: Callable[[], Rules],
        health: Health,
        listener: Listener,
        clock: Clock,
        accept_gap: bool = False,
    ) -> None:
        self._broker = broker
        self._claims = claims
        self._rules = rules
        self._health = health
        self._listener = listener
        self._clock = clock
        self._accept_gap = accept_gap
        self._dead_letters = DeadLetters(broker, health)
        self._consumer: Consumer = broker.consumer(health.client_failed)
        self._stop = Flag()
        self._own: list[int] = []
        self._next: dict[int, int] = {}
        self._durable: dict[int, int] = {}
        self._is_placed = True
        self._out_of_range: set[int] = set()
        self._ended: set[int] = set()
        self._held: list[Any] = []
        self._generation = 0
        self._pending: _Pending | None = None
        self._failures = 0

    def stop(self) -> None:
        """Has `run` end soon; from any thread."""
        self._stop.set()

    def run(self) -> None:
        """Reads until it is stopped; what was read by then is durable, and the group is left.

        What another attempt may mend is tried again, longer and longer apart: where the library
        gave up, with a new client.

        Raises:
            DpdauError: What another attempt does not mend.
        """
        while True:
            try:
                self._read_on()
            except library().KafkaException as error:
                self._retry_later(unreachable("go on", error.args[0].name()))
            else:
                return
            if self._stop.is_set():
                return
            self._consumer = self._broker.consumer(self._health.client_failed)

    def _read_on(self) -> None:
        """Reads with one client, until it is stopped or the library gives up."""
        consumer = self._consumer
        try:
            consumer.subscribe(
                [self._broker.topic],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_revoke,
            )
            while not self._stop.is_set():
                try:
                    self._turn()
                except _PASSING as error:
                    self._retry(error)
            try:
                self._settle()
            except _PASSING as error:
                # It is not stored, nor is its offset: the next run reads it again.
                self._health.failed(error.code)
        finally:
            consumer.close()
            self._drop_read()
            self._own, self._pending = [], None
            self._listener.gone(self._claims.drop(self))
            self._dead_letters.close()

    def _turn(self) -> None:
        """Reads some messages and has them written, while those before them are."""
        self._health.require_taken()
        if not self._is_placed:
            self._stand_again()
            self._health.answered()
        if self._out_of_range:
            self._find_gap(self._out_of_range.pop())
        messages = self._fetched()
        generation = self._generation
        if not messages:
            self._settle()
            self._note_end()
            return
        for batch in read(messages, rules=self._rules()):
            if batch.poison:
                self._dead_letters.send(batch.poison)
            self._settle()
            if self._generation != generation:
                return
            future = self._claims.submit(self, batch)
            if future is None:
                # Somebody else has a part of it: nothing is taken until the broker has told.
                self._drop_read()
                return
            self._pending = _Pending(batch, future)

    def _fetched(self) -> list[Any]:
        """The next messages, each once and in order."""
        new = self._consumer.consume(MESSAGES_MAX, FETCH_SECONDS)
        # Only now: while it consumes, it may be told to forget what it holds.
        found, self._held = [*self._held, *new], []
        fresh: list[Any] = []
        first: dict[int, int] = {}
        following = self._next
        for one in found:
            if one.error() is not None:
                self._note(one)
                continue
            partition, offset = one.partition(), one.offset()
            expected = following.get(partition)
            if expected is None or offset < expected:
                continue
            following[partition] = offset + 1
            self._ended.discard(partition)
            if partition not in first:
                first[partition] = one.timestamp()[1]
            fresh.append(one)
        if fresh:
            self._health.answered()
            now = self._clock().timestamp()
            for partition, milliseconds in first.items():
                self._listener.behind(partition, max(0.0, now - milliseconds / 1000))
        return fresh

    def _note(self, told: Any) -> None:
        """What came instead of a message: the end of a partition, a gap in it, or trouble."""
        codes, error, partition = library().KafkaError, told.error(), told.partition()
        _require_client(error)
        if error.code() not in (codes._PARTITION_EOF, codes._AUTO_OFFSET_RESET):
            self._health.client_failed(error)
        elif partition in self._next and error.code() == codes._PARTITION_EOF:
            self._ended.add(partition)
            # The marks of transactions and what compaction took are places without a message.
            self._next[partition] = max(self._next[partition], told.offset())
            self._health.answered()
        elif partition in self._next:
            self._out_of_range.add(partition)

    def _find_gap(self, partition: int) -> None:
        """Finds out why the broker does not have the next message of a partition.

        Raises:
            TopicMismatchError: It was deleted before it was read, or the topic is another one.
            UnavailableError: The broker does not say, or has it by now.
        """
        self._settle()
        place, topic = self._next.get(partition), self._broker.topic
        if place is None:
            return
        first, end = self._watermarks(partition)
        self._require_kept(partition, place, end)
        if place >= first:
            raise unreachable("hold the next message", "OFFSET_OUT_OF_RANGE")
        if not self._accept_gap:
            raise TopicMismatchError(
                f"Expected partition {partition} of {topic} to go on where it was left, found that "
                "it begins behind: messages were deleted before they were read, and nothing says "
                "whom they took out. Send them again, or go on without them by `dpdau consume "
                "--accept-gap`.",
                partition=partition,
            )
        if self._claims.pass_over(self, {partition: first - 1}):
            # How many is for the report alone: it follows the number of events.
            _LOG.error("kafka_gap", topic=topic, partition=partition)
            self._listener.lost(first - place)
        self._stand_again()

    def _require_kept(self, partition: int, place: int, end: int) -> None:
        """Refuses a partition that ends before what is stored of it.

        Raises:
            TopicMismatchError: It does.
        """
        if place > end:
            topic = self._broker.topic
            raise TopicMismatchError(
                f"Expected partition {partition} of {topic} to go on where it was left, found that "
                "it ends before: messages that were stored are gone from it, or it was made again. "
                "Nothing more is taken. Give a topic that is made again another name.",
                partition=partition,
            )

    def _watermarks(self, partition: int) -> tuple[int, int]:
        """The first place of a partition, and that behind its last one.

        Raises:
            BrokerUnavailableError: The broker does not say.
        """
        where = library().TopicPartition(self._broker.topic, partition)
        try:
            found = self._consumer.get_watermark_offsets(where, timeout=ASK_SECONDS, cached=False)
        except library().KafkaException as error:
            raise unreachable("say what it has", error.args[0].name()) from None
        if found is None:
            raise unreachable("say what it has", "no answer in time")
        return found

    def _note_end(self) -> None:
        """All that there was is durable."""
        if not self._ended:
            return
        places = {one: self._next[one] for one in self._ended}
        passed = {one: at - 1 for one, at in places.items() if at > self._durable.get(one, at)}
        if passed and not self._claims.pass_over(self, passed):
            self._drop_read()
            return
        self._durable.update(places)
        self._claims.come_to(places)
        for partition in places:
            self._listener.behind(partition, 0.0)

    def _settle(self) -> None:
        """Waits until the batch that is being written is durable.

        Raises:
            DpdauError: What stood in the way; nothing of it is stored.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        is_paused = False
        while not wait([pending.future], timeout=PATIENCE_SECONDS).done:
            is_paused = True
            self._idle(0.0)
        if is_paused:
            self._consumer.resume(self._consumer.assignment())
        self._note_stored(pending)
        self._tell_group(pending.batch)

    def _note_stored(self, pending: _Pending) -> None:
        """A batch is durable, or is not.

        Raises:
            DpdauError: What stood in the way; nothing of it is stored.
        """
        report = pending.future.result()
        self._failures = 0
        places = {one: last + 1 for one, last in pending.batch.ends.items()}
        self._durable.update(places)
        self._claims.come_to(places)
        self._listener.stored(report)

    def _idle(self, seconds: float) -> None:
        """Stays a member of the group without taking more."""
        self._consumer.pause(self._consumer.assignment())
        message = self._consumer.poll(seconds)
        if message is not None:
            _require_client(message.error())
            self._held.append(message)

    def _retry(self, error: DpdauError) -> None:
        """Waits, longer each time, and stands behind what is stored once more."""
        ends = time.monotonic() + self._patience(error)
        while not self._stop.is_set() and time.monotonic() < ends:
            self._idle(FETCH_SECONDS)
        self._is_placed = not self._own

    def _retry_later(self, error: BrokerUnavailableError) -> None:
        """Waits, longer each time, outside of the group."""
        self._stop.wait(self._patience(error))

    def _patience(self, error: DpdauError) -> float:
        """Counts a failure; so many seconds until the next attempt."""
        self._health.failed(error.code)
        self._failures += 1
        return min(RETRY_SECONDS_MAX, 0.25 * (1 << min(self._failures, 10)))

    def _stand_again(self) -> None:
        """Goes back behind what is stored.

        Raises:
            TopicMismatchError: The topic is another one.
            UnavailableError: It could not find out where that is.
        """
        self._consumer.assign(self._stand())
        self._consumer.resume(self._consumer.assignment())
        self._is_placed = True

    def _tell_group(self, batch: Batch) -> None:
        """Tells the broker how far this is, for who watches the group; nothing here reads it."""
        places = [self._place(one, last + 1) for one, last in batch.ends.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=True)
        except library().KafkaException as error:
            _LOG.debug("kafka_commit", reason=error.args[0].name())

    def _on_assign(self, _consumer: object, partitions: "Sequence[TopicPartition]") -> None:
        """Partitions are this member's; the next turn stands behind what is stored of them.

        A client that is asked or polled in one of its own callbacks loses the state that the next
        callback of that call needs, and the process ends with it.
        """
        self._own = [one.partition for one in partitions]
        self._drop_read()
        self._is_placed = False
        # Otherwise the library goes on from what the group was told.
        self._consumer.assign([])

    def _on_revoke(self, _consumer: object, _partitions: object) -> None:
        """No partition is this member's any more, when all that it had submitted is durable."""
        self._drop_read()
        pending, self._pending = self._pending, None
        if pending is not None:
            with contextlib.suppress(*_PASSING):
                self._note_stored(pending)
        self._own, self._is_placed = [], True
        self._listener.gone(self._claims.drop(self))

    def _stand(self) -> "list[TopicPartition]":
        """Where to go on, in each partition: behind the stored offset; all else is forgotten."""
        self._forget()
        topic_id = self._broker.topic_id(timeout_seconds=ASK_SECONDS)
        if topic_id is not None:
            self._claims.require_topic(topic_id)
        taken = self._claims.take(self, self._own)
        count = self._count_partitions()
        asked = [one for one, at in taken.items() if at is None or not self._claims.has_aim(one)]
        marks = {one: self._watermarks(one) for one in asked}
        # Who has read nothing yet takes what there is; what goes from now on is a gap.
        begins = {one: first for one, (first, _) in marks.items() if taken[one] is None}
        if begins:
            self._claims.begin(self, begins)
        self._next = {one: begins[one] if at is None else at for one, at in taken.items()}
        for one, (_, end) in marks.items():
            self._require_kept(one, self._next[one], end)
        self._durable = dict(self._next)
        self._claims.aim({one: end for one, (_, end) in marks.items()}, count=count)
        self._claims.come_to(self._next)
        return [self._place(one, at) for one, at in self._next.items()]

    def _forget(self) -> None:
        """Forgets what was read and not submitted; what was submitted is durable, or has failed."""
        self._drop_read()
        with contextlib.suppress(*_PASSING):
            self._settle()
        # What came while it waited was read from the old place.
        self._held = []

    def _drop_read(self) -> None:
        """Forgets what was read and not submitted."""
        self._generation += 1
        self._next, self._held = {}, []
        self._ended, self._out_of_range = set(), set()

    def _count_partitions(self) -> int:
        """How many partitions the topic has.

        Raises:
            BrokerUnavailableError: The broker does not say.
        """
        topic = self._broker.topic
        try:
            found = self._consumer.list_topics(topic, timeout=ASK_SECONDS).topics[topic]
        except library().KafkaException as error:
            raise unreachable("say what it has", error.args[0].name()) from None
        if found.error is not None:
            raise unreachable("say what it has", found.error.name())
        return len(found.partitions)

    def _place(self, partition: int, offset: int) -> "TopicPartition":
        """A place in the topic."""
        place: TopicPartition = library().TopicPartition(self._broker.topic, partition, offset)
        return place


def _require_client(error: Any) -> None:
    """Goes on unless the library gave up, as it says in place of a message.

    Raises:
        KafkaException: It did; only a new client goes on.
    """
    # What the broker said last may be behind it, or `_FATAL` alone.
    if error is not None and (error.fatal() or error.code() == library().KafkaError._FATAL):
        raise library().KafkaException(error)
