"""What a sender does in the background, without a thread or a loop of its own.

`Outbox.steps` yields what is to be done next: a request, work on the disk, or a pause. `Sender`
runs the steps in a thread and `AsyncSender` in a task, so both send in the same order, wait in the
same places and give up on the same answers.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec

from dpdau.client.calls import UNREADABLE, Call, Refusal
from dpdau.client.retry import Retry
from dpdau.client.spool import Batch, Contents, Spool
from dpdau.client.verbs import PART_BYTES_MAX, lines_call, report_of
from dpdau.errors import (
    DpdauError,
    InvalidEventError,
    InvalidSettingError,
    ServiceUnreachableError,
    SpoolUnavailableError,
    StoreCorruptError,
    TooLargeError,
)
from dpdau.ingest.batch import REJECTIONS_KEPT_MAX, IngestReport
from dpdau.ingest.event import Rejection
from dpdau.telemetry import log

__all__ = [
    "BatchSummary",
    "OnError",
    "OnRejected",
    "Outbox",
    "Pause",
    "RejectedEvent",
    "SenderLimits",
    "SenderStats",
]

_T = TypeVar("_T")
_FAULTS_OF_THE_BATCH: Final = frozenset({400, 413, 415, 422})
_SECONDS_MAX: Final = min(threading.TIMEOUT_MAX, 1e9)
_ENCODER: Final = msgspec.json.Encoder()
_LOG = log("client")
_STRANGE: Final = Refusal(
    ServiceUnreachableError("Expected the report of a batch, found another answer."),
    may_repeat=True,
)


@dataclass(frozen=True, slots=True)
class SenderLimits:
    """How much a sender holds, and how long.

    Args:
        batch_events_max: Events of one request, 1..1000; a removal counts each of its days.
        batch_bytes_max: Bytes of one request before gzip; no single event may have more.
        batch_seconds: How long an event waits for others before it is sent.
        spool_bytes_max: Bytes of all files of the spool.
        full_wait_seconds: How long `send` waits for room before it raises; 0 raises at once.
        close_seconds: How long `close`, and the end of the interpreter, wait for what is left.

    Raises:
        InvalidSettingError: One of them is out of its range.
    """

    batch_events_max: int = REJECTIONS_KEPT_MAX
    batch_bytes_max: int = 1 << 20
    batch_seconds: float = 1.0
    spool_bytes_max: int = 256 << 20
    full_wait_seconds: float = 0.0
    close_seconds: float = 5.0

    def __post_init__(self) -> None:
        # The service names the first REJECTIONS_KEPT_MAX rejections of a batch; each is told on.
        sound = (
            1 <= self.batch_events_max <= REJECTIONS_KEPT_MAX
            and 1 <= self.batch_bytes_max <= min(PART_BYTES_MAX, self.spool_bytes_max)
            and 0 < self.batch_seconds <= _SECONDS_MAX
            and 0 <= self.full_wait_seconds <= _SECONDS_MAX
            and 0 <= self.close_seconds <= _SECONDS_MAX
        )
        if not sound:
            raise InvalidSettingError(
                f"Expected batches of 1..{REJECTIONS_KEPT_MAX} events and 1..{PART_BYTES_MAX}"
                f" bytes that fit the spool, and times of 0..{_SECONDS_MAX:.0f} s."
            )


@dataclass(frozen=True, slots=True)
class BatchSummary:
    """Which batch something happened to; names no user.

    Args:
        batch_id: Its Idempotency-Key.
        events: How many it holds; 0 where that is not known.
        set_aside: The file that holds it now; None while it is in the spool and tried again.
    """

    batch_id: str
    events: int
    set_aside: Path | None = None


class RejectedEvent(NamedTuple):
    """An event that the service did not take, and why."""

    rejection: Rejection
    event: bytes

    def __repr__(self) -> str:
        return f"RejectedEvent({self.rejection.code.value}, event=<private>)"


OnError: TypeAlias = Callable[[BatchSummary, DpdauError], None]
OnRejected: TypeAlias = Callable[[BatchSummary, Sequence[RejectedEvent]], None]


@dataclass(frozen=True, slots=True)
class SenderStats:
    """What became of the events whose batches are done, and what waits.

    Args:
        set_aside: Events of batches that can never be sent, in files of the folder.
        spool_bytes: Of all files of the folder.
    """

    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    rejected: int = 0
    set_aside: int = 0
    spool_bytes: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Pause:
    """Nothing to do until something is new, or these seconds are over."""

    seconds: float | None


Step: TypeAlias = "Call | Pause | Callable[[], Any]"
Lines: TypeAlias = Sequence[tuple[bytes, int]]


class Outbox:
    """A spool, and the steps that empty it in order, one batch under way at a time."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: SenderLimits,
        retry: Retry,
        new_batch_id: Callable[[], str],
        on_error: OnError | None,
        on_rejected: OnRejected | None,
    ) -> None:
        self.limits = limits
        self.monotonic = retry.monotonic
        self._retry = retry
        self._on_error = on_error
        self._on_rejected = on_rejected
        self._counts = dict.fromkeys(("accepted", "duplicate", "late", "rejected", "set_aside"), 0)
        self._flush_to = 0
        self._is_stopping = False
        self._told: str | None = None
        self.spool = Spool(
            folder,
            bytes_max=limits.spool_bytes_max,
            batch_bytes_max=limits.batch_bytes_max,
            batch_weight_max=limits.batch_events_max,
            new_batch_id=new_batch_id,
            monotonic=retry.monotonic,
        )

    def lines(self, events: Iterable[Mapping[str, object]]) -> Lines:
        """Events as they are sent, each with what it counts for.

        Raises:
            InvalidEventError: JSON cannot hold one of them.
            TooLargeError: One is larger than a batch may be.
        """
        found = []
        for event in events:
            try:
                line = _ENCODER.encode(dict(event))
            except (TypeError, ValueError, OverflowError, RecursionError):
                line = b""
            if not line:
                raise InvalidEventError("Expected an event that JSON can hold.")
            if len(line) > self.limits.batch_bytes_max:
                raise TooLargeError(
                    f"Expected an event of at most {self.limits.batch_bytes_max} bytes as JSON."
                )
            found.append((line, _weight(event)))
        return found

    def stats(self) -> SenderStats:
        """What became of the events so far."""
        return SenderStats(**self._counts, spool_bytes=self.spool.size_bytes)

    def flush(self) -> int:
        """Asks for everything that is there to be sent now; the number of its last batch."""
        self._flush_to = max(self._flush_to, self.spool.last_number)
        return self._flush_to

    def stop(self) -> None:
        """Ends the steps after the one that is under way; what is left stays in the spool."""
        self._is_stopping = True

    def steps(self) -> Generator[Step, Any, None]:
        """What is to be done, without end until `stop`."""
        failures = 0
        while not self._is_stopping:
            batch = self.spool.head(seal_open=self._due_seconds() == 0)
            if batch is None:
                yield Pause(self._due_seconds())
                continue
            contents = yield from self._on_disk(partial(self.spool.read, batch))
            if contents is None:
                continue
            refusal = yield from self._send(batch, contents)
            if refusal is None:
                failures, self._told = 0, None
                continue
            failures += 1
            yield from self._rest(self._retry.wait_seconds(failures, refusal))

    def _due_seconds(self) -> float | None:
        """How long the batch that is being filled may still wait; None where there is none."""
        batch = self.spool.open_batch()
        if batch is None:
            return None
        if batch.number <= self._flush_to:
            return 0
        return max(0, batch.since + self.limits.batch_seconds - self.monotonic())

    def _send(self, batch: Batch, contents: Contents) -> Generator[Step, Any, Refusal | None]:
        """One attempt; the refusal where the batch has to be sent again."""
        events = contents.events
        summary = BatchSummary(contents.batch_id, len(events))
        if events:
            found = _outcome((yield lines_call(b"\n".join(events), contents.batch_id)), events)
            if isinstance(found, IngestReport):
                self._count(summary, found, events)
            elif found.http_status not in _FAULTS_OF_THE_BATCH:
                self._tell(summary, found.error)
                return found
            else:
                yield from self._leave(
                    summary, found.error, partial(self.spool.set_aside, batch, events)
                )
                return None
        if contents.is_intact:
            yield from self._on_disk(partial(self.spool.remove, batch))
        else:
            error = StoreCorruptError("Expected records that match their checksums, found others.")
            yield from self._leave(
                BatchSummary(summary.batch_id, 0), error, partial(self.spool.keep_corrupt, batch)
            )
        return None

    def _leave(
        self, summary: BatchSummary, error: DpdauError, move: Callable[[], Path]
    ) -> Generator[Step, Any, None]:
        """Moves a batch out of the way, and tells where it is."""
        path = yield from self._on_disk(move)
        if path is not None:
            self._counts["set_aside"] += summary.events
            self._told = None
            self._tell(replace(summary, set_aside=path), error)

    def _count(self, summary: BatchSummary, report: IngestReport, events: Sequence[bytes]) -> None:
        """Notes what became of a batch that was taken."""
        for outcome, number in report.outcomes().items():
            self._counts[outcome] += number
        if report.rejected and self._on_rejected is not None:
            told = [RejectedEvent(one, events[one.index]) for one in report.rejected]
            self._guarded(partial(self._on_rejected, summary, told))

    def _tell(self, summary: BatchSummary, error: DpdauError) -> None:
        """Tells of an error, but of the same one that stays only once."""
        if self._told != error.code and self._on_error is not None:
            self._guarded(partial(self._on_error, summary, error))
        self._told = error.code

    def _guarded(self, callback: Callable[[], None]) -> None:
        """Runs the application's code: what it raises does not end the sending."""
        try:
            callback()
        except Exception as error:  # noqa: BLE001
            # Its words may hold user ids.
            _LOG.error("callback_failed", error=type(error).__name__)

    def _on_disk(self, work: Callable[[], _T]) -> Generator[Step, Any, _T | None]:
        """Work on the disk, again until the disk does it; None where it was stopped before."""
        while not self._is_stopping:
            done: _T | OSError = yield partial(_or_error, work)
            if not isinstance(done, OSError):
                return done
            error = SpoolUnavailableError(f"Expected a disk that works, found: {done.strerror}.")
            self._tell(BatchSummary("", 0), error)
            yield from self._rest(self._retry.wait_seconds_max)
        return None

    def _rest(self, seconds: float) -> Generator[Step, Any, None]:
        """Waits between two attempts, and makes safe what comes in meanwhile."""
        until = self.monotonic() + seconds
        while True:
            yield partial(_or_error, self.spool.sync)
            left = until - self.monotonic()
            if left <= 0 or self._is_stopping:
                return
            yield Pause(min(left, self.limits.batch_seconds))


def _or_error(work: Callable[[], _T]) -> "_T | OSError":
    try:
        return work()
    except OSError as error:
        return error


def _outcome(found: Mapping[str, Any] | Refusal, events: Sequence[bytes]) -> IngestReport | Refusal:
    """The report of a batch; a refusal where the answer is none of this service."""
    if isinstance(found, Refusal):
        return found
    try:
        report = report_of(found)
        sound = report.received == len(events) and all(
            0 <= one.index < len(events) for one in report.rejected
        )
    except UNREADABLE:
        return _STRANGE
    return report if sound else _STRANGE


def _weight(event: Mapping[str, object]) -> int:
    """What an event counts for in a batch: the days that it touches."""
    metadata = event.get("metadata")
    days = metadata.get("days") if isinstance(metadata, Mapping) else None
    return max(1, len(days)) if isinstance(days, list | tuple) else 1
