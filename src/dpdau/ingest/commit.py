"""Group commit: whoever sends events at the same time shares one durable write.

One thread writes. It takes everything that waits, makes the pseudonyms, has the store apply it in
one transaction, and only then tells each sender. What waits is bounded; beyond that a sender is
told to come again, so a burst costs time and never memory.

An event loop that has small requests writes them itself while nothing is in the way: two threads
of one interpreter wait for each other longer than such a write takes. The writing thread lends it
the turn for a moment at a time, and keeps everything that may take long.
"""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from dpdau.activity.store import ActivityStore, Applied
from dpdau.errors import DpdauError, OverloadedError, StoreUnavailableError, UnavailableError
from dpdau.ingest.batch import IngestReport, Source, build_many
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded
from dpdau.pseudonym import Pseudonymizer

__all__ = ["GroupCommit", "QueueLimits", "Reply", "Request"]

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
        lent_seconds: How long another thread may write before the writing one has to.
        lent_commits: How many commits it may make in that time.
        lent_events_max: Events of one such commit, and of what it may take along.
        lent_wait_seconds: How long it may wait for a commit that is under way.
        lent_commit_seconds_max: Where such a commit takes longer, the turn is not lent
        not_lent_seconds: for this time.
    """

    events_max: int = 1_000_000
    requests_max: int = 10_000
    group_events_max: int = 20_000
    lent_seconds: float = 1.0
    lent_commits: int = 512
    lent_events_max: int = 10_000
    lent_wait_seconds: float = 0.02
    lent_commit_seconds_max: float = 0.1
    not_lent_seconds: float = 10.0


class Reply(Protocol):
    """Where the report of a request goes; a `concurrent.futures.Future` is one."""

    def set_running_or_notify_cancel(self) -> bool:
        """Called before its request is written; False where nobody waits any more."""

    def set_result(self, result: IngestReport, /) -> None:
        """Takes the report."""

    def set_exception(self, exception: Exception, /) -> None:
        """Takes what stood in the way."""


@dataclass(slots=True)
class Request:
    """One request.

    Attributes:
        decoded: What a reader of this room made.
        reply: Hears of the report once it is durable, in the thread that wrote it.
        batch_id: The sender's id of the batch: a second one with it changes nothing.
        offsets: Source → the last offset in the batch; stored with it.
    """

    decoded: Decoded | DecodedTable
    reply: Reply
    batch_id: str | None = None
    offsets: Mapping[str, int] = field(default_factory=dict)

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
        self._turn = threading.Lock()
        self._lent_until = self._not_lent_before = 0.0
        self._lent_commits = 0
        self._is_asked = self._is_alone = False
        self._waiting: deque[Request | _Task] = deque()
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
        report: Future[IngestReport] = Future()
        request = Request(decoded, report, batch_id, offsets or {})
        if not _is_empty(request):
            self._submit(request)
        return report

    def submit_here(self, requests: Sequence[Request]) -> None:
        """Has requests written: at once in this thread where nothing is in the way, else as usual.

        What `submit` raises is given to the reply of each.
        """
        full = [one for one in requests if not _is_empty(one)]
        if full and not self._write_here(full):
            for request in full:
                try:
                    self._submit(request)
                except DpdauError as error:
                    request.reply.set_exception(error)

    def _submit(self, request: Request) -> None:
        """Lets a request wait for the writing thread; raises what `submit` does."""
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

    def _write_here(self, requests: Sequence[Request]) -> bool:
        """Writes requests in this thread; False, and nothing is done, where that could wait."""
        started = time.monotonic()
        if (
            started >= self._lent_until
            or self._lent_commits >= self._limits.lent_commits
            or sum(one.size for one in requests) > self._limits.lent_events_max
        ):
            return False
        if self._is_alone or not self._turn.acquire(timeout=self._limits.lent_wait_seconds):
            return False
        try:
            with self._store.unless_busy(self._limits.lent_wait_seconds) as is_free:
                older = self._take_few() if is_free else None
                if older is None:
                    return False
                self._settle([one for one in (*older, *requests) if _is_wanted(one)])
        finally:
            self._turn.release()
        self._note_lent(started, time.monotonic())
        return True

    def _note_lent(self, started: float, ended: float) -> None:
        """Has the writing thread look after the store when half of what was lent is used."""
        self._lent_commits += 1
        if ended - started > self._limits.lent_commit_seconds_max:
            self._lend_no_more()
        is_half_used = (
            2 * self._lent_commits >= self._limits.lent_commits
            or 2 * (self._lent_until - ended) <= self._limits.lent_seconds
        )
        if is_half_used and not self._is_asked:
            with self._changed:
                self._is_asked = True
                self._changed.notify()

    def _lend_no_more(self) -> None:
        """Has the writing thread alone write for a while: the store is slow, or it fails."""
        self._not_lent_before = time.monotonic() + self._limits.not_lent_seconds
        self._lent_until = 0.0

    def _take_few(self) -> list[Request] | None:
        """All that waits, if that is not much; else None."""
        with self._changed:
            older = [one for one in self._waiting if isinstance(one, Request)]
            is_few = len(older) == len(self._waiting) and (
                self._events <= self._limits.lent_events_max
            )
            if self._closed or not is_few:
                return None
            self._waiting.clear()
            self._events = 0
            return older

    def _append(self, one: Request | _Task) -> None:
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
                self._is_alone = True
                with self._turn:
                    _do(group)
                self._is_alone = False
                continue
            with self._turn:
                self._settle(group, before=self._before)
            # User ids are not kept until the next group comes.
            group.clear()
            self._tend()

    def _tend(self) -> None:
        """Does the upkeep that is due; another thread may write meanwhile and for a moment more."""
        self._lent_commits = 0
        is_lent = time.monotonic() >= self._not_lent_before
        self._lent_until = math.inf if is_lent else 0.0
        try:
            # A failure here is met again by the next commit, which tells its senders.
            with contextlib.suppress(Exception):
                self._store.tend()
        finally:
            if time.monotonic() >= self._not_lent_before:
                self._lent_until = time.monotonic() + self._limits.lent_seconds

    def _take(self) -> list[Request] | _Task | None:
        """The next task, or the next group without those whose sender is gone; None at the end.

        The group is empty where nothing waits, and the store has to be looked after.
        """
        with self._changed:
            while not self._waiting and not self._is_asked:
                if self._closed:
                    return None
                self._changed.wait()
            self._is_asked = False
            group: list[Request] = []
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
        return [one for one in group if _is_wanted(one)]

    def _settle(
        self, group: Sequence[Request], *, before: Callable[[], None] = lambda: None
    ) -> None:
        """Writes a group and tells each sender; where that fails as a whole, one by one."""
        try:
            reports = self._committed(group, before)
        except Exception as error:  # noqa: BLE001 - the outermost loop of the writer.
            self._lend_no_more()
            if len(group) == 1:
                group[0].reply.set_exception(error)
                return
        else:
            for request, report in zip(group, reports, strict=True):
                request.reply.set_result(report)
            return
        failure: Exception | None = None
        failures = 0
        for request in group:
            if failures < _FAILURES_MAX:
                try:
                    request.reply.set_result(self._committed([request], before)[0])
                except Exception as error:  # noqa: BLE001 - the outermost loop of the writer.
                    failure = error
                    failures = failures + 1 if isinstance(error, UnavailableError) else 0
                else:
                    failures = 0
                    continue
            assert failure is not None
            request.reply.set_exception(failure)

    def _committed(
        self, group: Sequence[Request], before: Callable[[], None]
    ) -> list[IngestReport]:
        """The reports of a group after one durable write."""
        before()
        if not group:
            return []
        pseudonymizer = self._pseudonymizer()
        sources = [Source(one.decoded, one.batch_id, one.offsets) for one in group]
        batches = build_many(sources, pseudonymizer, dimensions=self._dimensions)
        applied = self._store.apply_many(batches)
        return [_report(request, one) for request, one in zip(group, applied, strict=True)]


def _is_empty(request: Request) -> bool:
    """Whether nothing of a request has to be stored; then it is answered."""
    if request.size or request.offsets:
        return False
    request.reply.set_result(_report(request, Applied(0, 0, 0)))
    return True


def _is_wanted(request: Request) -> bool:
    """Whether somebody still waits for a request; called once, just before it is written."""
    return request.reply.set_running_or_notify_cancel()


def _do(task: _Task) -> None:
    """Does a task and tells who waits for it."""
    if not task.done.set_running_or_notify_cancel():
        return
    try:
        task.done.set_result(task.work())
    except Exception as error:  # noqa: BLE001 - the outermost loop of the writer.
        task.done.set_exception(error)


def _report(request: Request, applied: Applied) -> IngestReport:
    """The report of one request; everything that was read is accounted for."""
    assert applied.accepted + applied.duplicate + applied.late == request.size
    return IngestReport.of(request.decoded.received, applied, request.decoded.rejected)
