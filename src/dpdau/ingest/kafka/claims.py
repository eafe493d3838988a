"""Which member of this process reads which partition, and what of it is being written.

The store takes the last offset of each partition together with the activity, and a member starts
behind it. What is still being written must be durable before anybody looks at the stored offset,
and who lost a partition must not write any more of it: both is decided here, under one lock, and
rests on nothing that a broker says.
"""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, wait
from typing import Final

from dpdau.errors import TopicMismatchError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded
from dpdau.ingest.kafka.messages import NOTHING, Batch

__all__ = ["Claims", "Submit"]

Submit = Callable[[Decoded | DecodedTable, Mapping[str, int]], "Future[IngestReport]"]
"""Has events written together with the last offset of each source."""

_UNKNOWN_TOPIC: Final = 1
"""Noted of a topic whose brokers do not say which one it is."""


class Claims:
    """The partitions of one topic among the members of this process.

    Args:
        submit: Has a batch written, with its offsets.
        offset: The stored offset of a source, or None.
        source: The name of a partition as a source.
        feed: The name of the topic as a source: its offset is which topic it was.

    Guarantee: of each partition, the batches that are written follow one another: each begins
    behind the stored offset, is submitted when the one before it is durable, and is one that the
    present owner has read.
    """

    def __init__(
        self,
        *,
        submit: Submit,
        offset: Callable[[str], int | None],
        source: Callable[[int], str],
        feed: str,
    ) -> None:
        self._submit = submit
        self._offset = offset
        self._source = source
        self._feed = feed
        self._lock = threading.Lock()
        self._owners: dict[int, object] = {}
        self._in_flight: dict[int, Future[IngestReport]] = {}
        self._aims: dict[int, int] = {}
        self._reached: set[int] = set()
        self._count: int | None = None

    def take(self, owner: object, partitions: Iterable[int]) -> dict[int, int | None]:
        """Gives partitions to a member.

        Returns:
            The next place of each, after all that was submitted of it is durable or has failed;
            None where it was never taken before.
        """
        asked = list(partitions)
        with self._lock:
            self._owners.update(dict.fromkeys(asked, owner))
            waiting = {self._in_flight[one] for one in asked if one in self._in_flight}
        wait(waiting)
        return {one: self._next(one) for one in asked}

    def _next(self, partition: int) -> int | None:
        """The place behind the stored offset; of a partition without one, that where it began."""
        source = self._source(partition)
        last = self._offset(source)
        return self._offset(_beginning(source)) if last is None else last + 1

    def begin(self, owner: object, places: Mapping[int, int]) -> None:
        """Notes where a member's partitions begin that were never taken; durable when it returns.

        Raises:
            DpdauError: It is not stored.
        """
        offsets = {_beginning(self._source(one)): place for one, place in places.items()}
        self._store(owner, places, offsets)

    def note_feed(self) -> None:
        """Notes in the store that it is fed, and not yet by which topic.

        Raises:
            StoreUnavailableError: The store cannot be written.
        """
        if self._offset(self._feed) is None:
            self._submit(NOTHING, {self._feed: _UNKNOWN_TOPIC}).result()

    def require_topic(self, topic_id: int) -> None:
        """Refuses another topic than the one that was consumed before.

        Offsets say nothing of a topic that was made again, and may even be there again.

        Raises:
            TopicMismatchError: It is another one.
            UnavailableError: It cannot be noted which one it is.
        """
        known = self._offset(self._feed)
        if known in (None, _UNKNOWN_TOPIC):
            self._submit(NOTHING, {self._feed: topic_id}).result()
        elif known != topic_id:
            raise TopicMismatchError(
                "Expected the topic that was consumed before, found another one under its name: it "
                "was deleted and made again, or is on other brokers. What it has is not taken, "
                "because it may be what was taken before. Name a new topic by KAFKA_TOPIC."
            )

    def drop(self, owner: object) -> list[int]:
        """Takes from a member all that it has, and names it.

        It waits until nothing of it is being written.
        """
        with self._lock:
            own = [one for one, whose in self._owners.items() if whose is owner]
            for one in own:
                del self._owners[one]
            waiting = {self._in_flight[one] for one in own if one in self._in_flight}
        wait(waiting)
        return own

    def pass_over(self, owner: object, lasts: Mapping[int, int]) -> bool:
        """Stores offsets of a member's partitions without events; durable when it returns.

        Returns:
            Whether they are stored: not where one of them is no longer the member's.

        Raises:
            DpdauError: They are not stored.
        """
        offsets = {self._source(one): last for one, last in lasts.items()}
        return self._store(owner, lasts, offsets)

    def submit(self, owner: object, batch: Batch) -> "Future[IngestReport] | None":
        """Has a batch written; None where a part of it is no longer the member's.

        Raises:
            OverloadedError: Too much waits; nothing of it was taken.
            StoreUnavailableError: The store is closed.
        """
        offsets = {self._source(one): last for one, last in batch.ends.items()}
        return self._submitted(owner, batch.ends, batch.decoded, offsets)

    def _store(
        self, owner: object, partitions: Collection[int], offsets: Mapping[str, int]
    ) -> bool:
        """Stores offsets alone, and waits; whether all partitions were the member's."""
        future = self._submitted(owner, partitions, NOTHING, offsets)
        if future is None:
            return False
        future.result()
        return True

    def _submitted(
        self,
        owner: object,
        partitions: Collection[int],
        decoded: Decoded | DecodedTable,
        offsets: Mapping[str, int],
    ) -> "Future[IngestReport] | None":
        """Has something of partitions written, if all of them are the member's."""
        with self._lock:
            if any(self._owners.get(one) is not owner for one in partitions):
                return None
            before = [self._in_flight.get(one) for one in partitions]
            assert all(one is None or one.done() for one in before), "one after another"
            future = self._submit(decoded, offsets)
            self._in_flight.update(dict.fromkeys(partitions, future))
        return future

    def has_aim(self, partition: int) -> bool:
        """Whether it is known how far a partition went when this process first took it."""
        with self._lock:
            return partition in self._aims

    def aim(self, ends: Mapping[int, int], *, count: int) -> None:
        """Notes where partitions end now, if that is not known yet; the topic has `count`."""
        with self._lock:
            self._count = count
            self._aims = {**ends, **self._aims}

    def come_to(self, places: Mapping[int, int]) -> None:
        """Notes that all before these places of partitions is durable."""
        with self._lock:
            self._reached.update(
                one for one, place in places.items() if place >= self._aims.get(one, place + 1)
            )

    @property
    def count(self) -> int:
        """How many partitions this process has."""
        return len(self._owners)

    @property
    def are_at_end(self) -> bool:
        """Whether all is durable that every partition had when this process first took it.

        What comes meanwhile does not move the end, or there were none while events come.
        """
        with self._lock:
            return self._count is not None and len(self._reached) >= self._count


def _beginning(source: str) -> str:
    """Under which name it is noted where a source began; the name of a source is a hash."""
    return f"{source} begin"
