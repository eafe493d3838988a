"""Group commit: whoever sends events at the same time shares one durable write.

One thread writes. It takes everything that waits, makes the pseudonyms, has the store apply it in
one transaction, and only then tells each sender. What waits is bounded; beyond that a sender is
told to come again, so a burst costs time and never memory.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from dpdau.activity.store import ActivityStore, Applied
from dpdau.errors import OverloadedError, StoreUnavailableError, UnavailableError
from dpdau.ingest.batch import IngestReport, Source, build_many
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded
from dpdau.pseudonym import Pseudonymizer

__all__ = ["GroupCommit", "QueueLimits"]

RETRY_AFTER_SECONDS: Final = 1
_FAILURES_MAX: Final = 2
"""How many requests in a row may meet a store that cannot write before the others are told."""


_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much may wait, and how much is written at once. Performance only.

    Attributes:
        events_max: Events that may wait; a single request may have more, if nothing else waits.
        requests_max: Requests that may wait.
        group_events_max: Events of one commit, but at least one request.
    """

    events_max: int = 1_000_000
    requests_max: int = 10_000
    group_events_max: int = 20_000


@dataclass(slots=True)
class _Request:
    """One request that waits."""

    decoded: Decoded | DecodedTable
    batch_id: str | None
    offsets: Mapping[str, int]
    done: Future[IngestReport] = field(default_factory=Future)

    @property
    def size(self) -> int:
        """How many events it has."""
        return self.decoded.received - len(self.decoded.rejected)


@dataclass(slots=True)
class _Task:
    """Other work on the store, for which nothing else is written meanwhile."""

    work: Callable[[], Any]
    done: Future[Any] = field(default_factory=Future)
    size: int = 0


class GroupCommit:
    """The one road of events into a store.

    Args:
        store: Where they go.
        pseudonymizer: Asked by the writing thread just before each commit, so that no batch is
            written under a key that is older than one that was used before.
        dimensions: The declared dimensions.
        before: What has to be done before a commit; its errors are those of the commit.
        limits: How much may wait.

    Guarantee: a report is given only when its events are durable. A request that cannot be stored
    fails alone. What was submitted before `close` is written before it returns. Whether the events
    of one user are applied depends on those events, their `event_id`s and the `batch_id` alone.
    """

    def __init__(
        self,
        store: ActivityStore,
        *,
        pseudonymizer: Callable[[], Pseudonymizer],
        dimensions: Sequence[str] = (),
        before: Callable[[], None] = lambda: None,
        limits: QueueLimits | None = None,
    ) -> None:
        self._store = store
        self._pseudonymizer = pseudonymizer
        self._dimensions = tuple(dimensions)
        self._before = before
        self._limits = QueueLimits() if limits is None else limits
        self._changed = threading.Condition()
        self._waiting: deque[_Request | _Task] = deque()
        self._events = 0
        self._closed = False
        self._writer: threading.Thread | None = None

    def submit(
        self,
        decoded: Decoded | DecodedTable,
        *,
        batch_id: str | None = None,
        offsets: Mapping[str, int] | None = None,
    ) -> Future[IngestReport]:
        """Has what was read written; the report comes once it is durable.

        Args:
            decoded: What a reader of this room made.
            batch_id: The sender's id of the batch: a second one with it changes nothing.
            offsets: Source → the last offset in the batch; stored with it.

        Raises:
            OverloadedError: Too much waits; nothing of it was taken.
            StoreUnavailableError: It is closed.

        The report's future raises, besides what the store does:
            TooLargeError: The batch touches too many (user, day) pairs.
        """
        request = _Request(decoded, batch_id, offsets or {})
        if request.size == 0 and not request.offsets:
            request.done.set_result(_report(request, Applied(0, 0, 0)))
            return request.done
        with self._changed:
            if self._waiting and (
                len(self._waiting) >= self._limits.requests_max
                or self._events + request.size > self._limits.events_max
            ):
                raise OverloadedError(
                    "Expected room for these events, found too many that wait to be written; "
                    f"retry in {RETRY_AFTER_SECONDS} s.",
                    retry_after_seconds=RETRY_AFTER_SECONDS,
                )
            self._append(request)
        return request.done

    def alone(self, work: Callable[[], _Answer]) -> Future[_Answer]:
        """Has other work done on the store, when all that was submitted before is written.

        Raises:
            StoreUnavailableError: It is closed.
        """
        task = _Task(work)
        with self._changed:
            self._append(task)
        return task.done

    def close(self) -> None:
        """Writes what waits, then ends; may be called twice."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._writer is not None:
            self._writer.join()

    def _append(self, one: _Request | _Task) -> None:
        """Lets one wait, behind all others; the caller holds the lock."""
        if self._closed:
            raise StoreUnavailableError("Expected an open store, found it closed.")
        self._waiting.append(one)
        self._events += one.size
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="ingest", daemon=True)
            self._writer.start()
        self._changed.notify()

    def _write(self) -> None:
        """What the writing thread does: group after group, until nothing waits after `close`."""
        while (group := self._take()) is not None:
            if isinstance(group, _Task):
                _do(group)
                continue
            self._settle(group)
            # User ids are not kept until the next group comes.
            group.clear()
            # A failure here is met again by the next commit, which tells its senders.
            with contextlib.suppress(Exception):
                self._store.tend()

    def _take(self) -> list[_Request] | _Task | None:
        """The next task, or the next group without those whose sender is gone; None at the end."""
        with self._changed:
            while not self._waiting:
                if self._closed:
                    return None
                self._changed.wait()
            group: list[_Request] = []
            events = 0
            while self._waiting:
                first = self._waiting[0]
                events += first.size
                if group and (isinstance(first, _Task) or events > self._limits.group_events_max):
                    break
                self._waiting.popleft()
                if isinstance(first, _Task):
                    return first
                group.append(first)
            self._events -= sum(one.size for one in group)
        return [one for one in group if one.done.set_running_or_notify_cancel()]

    def _settle(self, group: Sequence[_Request]) -> None:
        """Writes a group and tells each sender; where that fails as a whole, one by one."""
        try:
            reports = self._committed(group)
        except Exception as error:  # noqa: BLE001 - the outermost loop of the writer.
            if len(group) == 1:
                group[0].done.set_exception(error)
                return
        else:
            for request, report in zip(group, reports, strict=True):
                request.done.set_result(report)
            return
        failure: Exception | None = None
        failures = 0
        for request in group:
            if failures < _FAILURES_MAX:
                try:
                    request.done.set_result(self._committed([request])[0])
                except Exception as error:  # noqa: BLE001 - the outermost loop of the writer.
                    failure = error
                    failures = failures + 1 if isinstance(error, UnavailableError) else 0
                else:
                    failures = 0
                    continue
            assert failure is not None
            request.done.set_exception(failure)

    def _committed(self, group: Sequence[_Request]) -> list[IngestReport]:
        """The reports of a group after one durable write."""
        if not group:
            return []
        self._before()
        pseudonymizer = self._pseudonymizer()
        sources = [Source(one.decoded, one.batch_id, one.offsets) for one in group]
        batches = build_many(sources, pseudonymizer, dimensions=self._dimensions)
        applied = self._store.apply_many(batches)
        return [_report(request, one) for request, one in zip(group, applied, strict=True)]


def _do(task: _Task) -> None:
    """Does a task and tells who waits for it."""
    if not task.done.set_running_or_notify_cancel():
        return
    try:
        task.done.set_result(task.work())
    except Exception as error:  # noqa: BLE001 - the outermost loop of the writer.
        task.done.set_exception(error)


def _report(request: _Request, applied: Applied) -> IngestReport:
    """The report of one request; everything that was read is accounted for."""
    assert applied.accepted + applied.duplicate + applied.late == request.size
    return IngestReport.of(request.decoded.received, applied, request.decoded.rejected)
