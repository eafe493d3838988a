"""Group commit: whoever sends events at the same time shares one durable write.

One thread writes. It takes everything that waits, makes the pseudonyms, has the store apply it in
one transaction, and only then tells each sender. What waits is bounded; beyond that a sender is
told to come again, so a burst costs time and never memory.

An event loop that has small requests writes them itself while nothing is in the way: two threads
of one interpreter wait for each other longer than such a write takes. The writing thread lends it
the turn for a moment at a time, and keeps everything that may take long. Whoever writes takes what
waits in the order in which it came: there is one queue.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from dpdau.activity.store import ActivityStore, Applied
from dpdau.errors import (
    RETRY_AFTER_SECONDS,
    DpdauError,
    OverloadedError,
    StoreUnavailableError,
    UnavailableError,
)
from dpdau.ingest.batch import IngestReport, Source, build_many
from dpdau.ingest.decoded import DecodedTable
from dpdau.ingest.event import Decoded
from dpdau.ingest.tally import Tally
from dpdau.pseudonym import Pseudonymizer
from dpdau.telemetry import log, span

__all__ = ["GroupCommit", "QueueLimits", "Reply", "Request"]

_TENDS_MAX: Final = 64
"""How often in a row the store is tended while nothing waits."""
_FAILURES_MAX: Final = 2
"""How many requests in a row may meet a store that cannot write before the others are told."""


_Answer = TypeVar("_Answer")
_LOG: Final = log("ingest")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much may wait, and how much is written at once. Performance only.

    Attributes:
        events_max: Events that may wait; a single request may have more, if nothing else waits.
        requests_max: Requests that may wait.
        group_events_max: Events of one commit, but at least one request.
        lent_seconds: How long another thread may write before the writing one has to.
        lent_commits: How many commits it may make in that time.
        lent_rows: (user, day) pairs after which such a commit takes no further request.
        lent_rows_max: Pairs of one request that it takes at all.
        lent_wait_seconds: How long it may wait for a commit that is under way.
        lent_commit_seconds_max: Where such a commit takes longer, the turn is not lent
        not_lent_seconds: for this time.
    """

    events_max: int = 1_000_000
    requests_max: int = 10_000
    group_events_max: int = 20_000
    lent_seconds: float = 1.0
    lent_commits: int = 512
    lent_rows: int = 4_000
    lent_rows_max: int = 10_000
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
        size: How many events it has.
        rows: How many (user, day) pairs they touch.
    """

    decoded: Decoded | DecodedTable
    reply: Reply
    batch_id: str | None = None
    offsets: Mapping[str, int] = field(default_factory=dict)
    size: int = field(init=False)
    rows: int = field(init=False)
    _is_running: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        decoded = self.decoded
        self.size = self.rows = decoded.received - len(decoded.rejected)
        if isinstance(decoded, Decoded):
            self.rows += sum(len(one.days) - 1 for one in decoded.events if one.days)

    def starts(self) -> bool:
        """Whether somebody still waits for it, just before it is written; later always True."""
        self._is_running = self._is_running or self.reply.set_running_or_notify_cancel()
        return self._is_running


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
        pseudonymizer: Asked by the thread that writes just before each commit, so that no batch is
            written under a key that is older than one that was used before.
        dimensions: The declared dimensions.
        before: What has to be done from time to time, before a commit of the writing thread; its
            errors are those of the commit.
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
        self.tally = Tally()
        self._changed = threading.Condition()
        self._turn = threading.Lock()
        self._lent_until = self._not_lent_before = 0.0
        self._lent_commits = 0
        self._is_asked = False
        self._again: Callable[[], object] | None = None
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
        if not self._is_empty(request):
            self._submit(request)
        return report

    def submit_here(self, requests: Sequence[Request]) -> None:
        """Lets requests wait for the `write_here` that follows.

        What `submit` raises is given to the reply of each.
        """
        for request in requests:
            if not self._is_empty(request):
                try:
                    self._submit(request, wakes=False)
                except DpdauError as error:
                    request.reply.set_exception(error)

    def write_here(self, again: Callable[[], object]) -> bool:
        """Writes a part of what waits, in this thread, if nothing is in the way.

        Args:
            again: Called from the writing thread, after this has given False, when something waits
                and nothing is in the way any more: then call this again.

        Returns:
            Whether to call again soon, as more waits. Where it is False, nothing does, or the
            writing thread sees to it.
        """
        is_written = self._write_here()
        with self._changed:
            if not is_written:
                self._again = again
            if self._is_asked or not is_written:
                self._changed.notify()
            return is_written and bool(self._waiting)

    def _submit(self, request: Request, *, wakes: bool = True) -> None:
        """Lets a request wait, behind all others; raises what `submit` does."""
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
            if wakes:
                self._changed.notify()

    def alone(self, work: Callable[[], _Answer]) -> Future[_Answer]:
        """Has other work done on the store, when all that was submitted before is written.

        Raises:
            StoreUnavailableError: It is closed.
        """
        task = _Task(work)
        with self._changed:
            self._append(task)
            self._changed.notify()
        return task.done

    def close(self) -> None:
        """Writes what waits, then ends; may be called twice."""
        # In its turn: what another thread is writing, and may give back, is written before the end.
        with self._turn, self._changed:
            self._closed = True
            self._changed.notify()
        if self._writer is not None:
            self._writer.join()

    def _write_here(self) -> bool:
        """Writes some requests in this thread; False where that could take long, or fails."""
        started = time.monotonic()
        if started >= self._lent_until or self._lent_commits >= self._limits.lent_commits:
            return False
        if not self._turn.acquire(timeout=self._limits.lent_wait_seconds):
            self._lent_until = 0.0
            return False
        group: list[Request] = []
        try:
            # Before the store is kept: a key that is due is noted in it, maybe by another thread.
            pseudonymizer = self._pseudonymizer()
            with self._store.unless_busy(self._limits.lent_wait_seconds) as is_free:
                few = self._take_few() if is_free else None
                if few is None:
                    self._lent_until = 0.0
                    return False
                group = few
                reports = self._committed(group, pseudonymizer)
        except Exception:  # noqa: BLE001 - the writing thread meets it again, and tells the senders.
            self._give_back(group)
            self._lend_no_more()
            return False
        finally:
            self._turn.release()
        self._answer(group, reports)
        self._note_lent(started, time.monotonic())
        return True

    def _note_lent(self, started: float, ended: float) -> None:
        """Asks the writing thread to look after the store when half of what was lent is used."""
        self._lent_commits += 1
        if ended - started > self._limits.lent_commit_seconds_max:
            self._lend_no_more()
        self._is_asked = self._is_asked or (
            2 * self._lent_commits >= self._limits.lent_commits
            or 2 * (self._lent_until - ended) <= self._limits.lent_seconds
        )

    def _lend_no_more(self) -> None:
        """Has the writing thread alone write for a while: the store is slow, or it fails."""
        self._not_lent_before = time.monotonic() + self._limits.not_lent_seconds
        self._lent_until = 0.0

    def _take_few(self) -> list[Request] | None:
        """The next requests, as many as are soon written; None where something else is next."""
        limits = self._limits
        with self._changed:
            group: list[Request] = []
            rows = 0
            while self._waiting and rows < limits.lent_rows:
                first = self._waiting[0]
                if self._closed or isinstance(first, _Task) or first.rows > limits.lent_rows_max:
                    break
                group.append(first)
                rows += first.rows
                self._waiting.popleft()
            self._events -= sum(one.size for one in group)
            is_other_next = bool(self._waiting) and not group
        return None if is_other_next else [one for one in group if one.starts()]

    def _give_back(self, group: Sequence[Request]) -> None:
        """Lets requests wait again, in front of all others."""
        with self._changed:
            self._waiting.extendleft(reversed(group))
            self._events += sum(one.size for one in group)

    def _append(self, one: Request | _Task) -> None:
        """Lets one wait, behind all others; the caller holds the lock."""
        if self._closed:
            raise StoreUnavailableError("Expected an open store, found it closed.")
        if self._writer is None:
            self._writer = threading.Thread(target=self._write, name="ingest", daemon=True)
            self._writer.start()
        self._waiting.append(one)
        self._events += one.size

    def _write(self) -> None:
        """What the writing thread does: group after group, until nothing waits after `close`."""
        while self._wait():
            with self._turn:
                # Only now: what is taken out of the queue is written before what is left in it.
                group = self._take()
                if isinstance(group, _Task):
                    _do(group)
                    continue
                self._settle(group)
            # User ids are not kept until the next group comes.
            group.clear()
            self._tend()

    def _tend(self) -> None:
        """Does the upkeep that is due; another thread may write meanwhile and for a moment more."""
        self._lent_commits = 0
        if time.monotonic() >= self._not_lent_before:
            self._lent_until = math.inf
            with self._changed:
                again, self._again = self._again if self._waiting else None, None
            if again is not None:
                again()
        try:
            for _ in range(_TENDS_MAX):
                if self._store.tend() or self._waiting:
                    break
                self._lent_commits = 0
        except Exception as error:  # noqa: BLE001 - what waits is written all the same.
            _LOG.warning("upkeep failed", error=type(error).__qualname__)
        finally:
            if time.monotonic() >= self._not_lent_before:
                self._lent_until = time.monotonic() + self._limits.lent_seconds

    def _wait(self) -> bool:
        """Waits until something is to be done; False when nothing ever will be."""
        with self._changed:
            while not self._waiting and not self._is_asked:
                if self._closed:
                    return False
                self._changed.wait()
            return True

    def _take(self) -> list[Request] | _Task:
        """The next task, or the next group without those whose sender is gone.

        The group is empty where the store has to be looked after, while another thread writes.
        """
        with self._changed:
            is_lent, self._is_asked = self._is_asked and self._lent_until > 0, False
            group: list[Request] = []
            events = 0
            if is_lent:
                return group
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
        return [one for one in group if one.starts()]

    def _settle(self, group: Sequence[Request]) -> None:
        """Writes a group and tells each sender; where that fails as a whole, one by one."""
        try:
            self._before()
            reports = self._committed(group, self._pseudonymizer())
        except Exception as error:  # noqa: BLE001 - the outermost loop of the writer.
            self._lend_no_more()
            if len(group) == 1:
                group[0].reply.set_exception(error)
                return
        else:
            self._answer(group, reports)
            return
        failure: Exception | None = None
        failures = 0
        for request in group:
            if failures < _FAILURES_MAX:
                try:
                    self._before()
                    reports = self._committed([request], self._pseudonymizer())
                except Exception as error:  # noqa: BLE001 - the outermost loop of the writer.
                    failure = error
                    failures = failures + 1 if isinstance(error, UnavailableError) else 0
                else:
                    self._answer([request], reports)
                    failures = 0
                    continue
            assert failure is not None
            request.reply.set_exception(failure)

    def _answer(self, group: Sequence[Request], reports: Sequence[IngestReport]) -> None:
        """Tells each sender."""
        for request, report in zip(group, reports, strict=True):
            request.reply.set_result(report)

    def _committed(
        self, group: Sequence[Request], pseudonymizer: Pseudonymizer
    ) -> list[IngestReport]:
        """The reports of a group after one durable write."""
        if not group:
            return []
        sources = [Source(one.decoded, one.batch_id, one.offsets) for one in group]
        batches = build_many(sources, pseudonymizer, dimensions=self._dimensions)
        with span("commit"):
            applied = self._store.apply_many(batches)
        reports = [_report(request, one) for request, one in zip(group, applied, strict=True)]
        self.tally.add(reports)
        return reports

    def _is_empty(self, request: Request) -> bool:
        """Whether nothing of a request has to be stored; then it is answered."""
        if request.size or request.offsets:
            return False
        report = _report(request, Applied(0, 0, 0))
        self.tally.add([report])
        request.reply.set_result(report)
        return True


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
