"""Which member of this process reads which partition, and what of it is being written.

The store takes the last offset of each partition together with the activity, and a member starts
behind it. What is still being written must be durable before anybody looks at the stored offset,
and who lost a partition must not write any more of it: both is decided here, under one lock, and
rests on nothing that a broker says.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
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
        self._ended: set[int] = set()
        self._known: int | None = None

    def take(self, owner: object, partitions: Iterable[int]) -> dict[int, int | None]:
        """Gives partitions to a member.

        Returns:
            Their stored offsets, after all that was submitted of them is durable or has failed.
        """
        asked = list(partitions)
        with self._lock:
            self._owners.update(dict.fromkeys(asked, owner))
            self._ended.difference_update(asked)
            waiting = {self._in_flight[one] for one in asked if one in self._in_flight}
        wait(waiting)
        return {one: self._offset(self._source(one)) for one in asked}

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

    def pass_over(self, owner: object, partition: int, *, last: int) -> None:
        """Stores an offset of a member's partition without events; durable when it returns.

        Raises:
            DpdauError: It is not stored.
        """
        stored = self.submit(owner, Batch(NOTHING, (), {partition: last}))
        if stored is not None:
            stored.result()

    def submit(self, owner: object, batch: Batch) -> "Future[IngestReport] | None":
        """Has a batch written; None where a part of it is no longer the member's.

        Raises:
            OverloadedError: Too much waits; nothing of it was taken.
            StoreUnavailableError: The store is closed.
        """
        with self._lock:
            if any(self._owners.get(one) is not owner for one in batch.ends):
                return None
            before = [self._in_flight.get(one) for one in batch.ends]
            assert all(one is None or one.done() for one in before), "one after another"
            offsets = {self._source(one): last for one, last in batch.ends.items()}
            future = self._submit(batch.decoded, offsets)
            self._in_flight.update(dict.fromkeys(batch.ends, future))
        return future

    def end_of(self, owner: object, partitions: Iterable[int], *, known: int) -> None:
        """Notes that a member has written all there is of partitions; the topic has `known`."""
        with self._lock:
            self._known = known
            self._ended.update(one for one in partitions if self._owners.get(one) is owner)

    def goes_on(self, partitions: Iterable[int]) -> None:
        """Notes that there is more of partitions."""
        with self._lock:
            self._ended.difference_update(partitions)

    @property
    def count(self) -> int:
        """How many partitions this process has."""
        return len(self._owners)

    @property
    def are_at_end(self) -> bool:
        """Whether all there was of every partition of the topic is durable."""
        with self._lock:
            return self._known is not None and len(self._ended) >= self._known
