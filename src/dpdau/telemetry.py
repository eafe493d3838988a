"""Structured logs that refuse private types, the counters of the product, and its spans.

Logs are one JSON object a line on stderr. They carry no user id and no exact count: a
`BoundedCount`, `Event` or `EventBatch` that is handed to a log call raises.
"""

import io
import logging
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, Protocol, TextIO, cast

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from dpdau.domain import BoundedCount, Event, EventBatch, PrivateValueError
from dpdau.errors import LedgerCorruptError

LOG_SECONDS: Final = 0.1
LOG_LINES_MAX: Final = 50_000
_FRAMES_MAX: Final = 12
_STAMPER: Final = structlog.processors.TimeStamper(fmt="iso", utc=True)
_BLANK: Final = logging.makeLogRecord({"levelno": logging.INFO, "levelname": "INFO"}).__dict__
_PRIVATE: Final = (BoundedCount, Event, EventBatch)
_NO_SPAN: Final = nullcontext()


def configure_logs(*, stream: TextIO | None = None, level: str = "INFO") -> None:
    """One JSON object a line on `stream` (stderr), from structlog and `logging` alike."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _STAMPER,
        refuse_private,
    ]
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        _LineFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def log_line(name: str, event: str, facts: dict[str, str | int | float | None]) -> None:
    """One line on level INFO, as `log(name).info(event, **facts)` writes it, at a quarter of the
    cost: for what is logged with every request. Only plain values, so none can be private.
    """
    logger = logging.getLogger(name)
    if not logger.isEnabledFor(logging.INFO):
        return
    line: dict[str, Any] = {**facts, "event": event, "level": "info", "logger": name}
    stamped = _STAMPER(logger, "info", line)
    logger.handle(_Line(name, msgspec.json.encode(stamped).decode()))


class _Line(logging.LogRecord):
    """A record whose message is a whole line already, and which says nothing else."""

    def __init__(self, name: str, line: str) -> None:
        # The full record looks at the clock and at the thread, as the line did.
        self.__dict__.update(_BLANK, name=name, msg=line)


class _LineFormatter(structlog.stdlib.ProcessorFormatter):
    """The formatter of all other records, which lets whole lines pass."""

    def format(self, record: logging.LogRecord) -> str:
        return str(record.msg) if type(record) is _Line else super().format(record)


@contextmanager
def logs_in_batches() -> Iterator[None]:
    """Writes log lines from a thread of their own, a few times a second, while it lasts.

    A line that is written by itself costs a system call in the middle of a request, and waits
    where the reader of the log is slow. What was logged is written before this ends.
    """
    batches = []
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            batches.append((handler, _Batched(handler.stream)))
            handler.setStream(batches[-1][1])
    try:
        yield
    finally:
        for handler, batched in batches:
            handler.setStream(batched.stream)
            batched.close()


def write_logs() -> None:
    """Writes the lines that wait; for the end of a process that does not clean up."""
    for handler in logging.getLogger().handlers:
        stream = getattr(handler, "stream", None)
        if isinstance(stream, _Batched):
            stream.drain()


class _Batched(io.TextIOBase):
    """A text stream that is written by a thread of its own."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self._lines: deque[str] = deque()
        self._any = threading.Event()
        self._end = threading.Event()
        self._drains = threading.Lock()
        self._writer = threading.Thread(target=self._write, name="log", daemon=True)
        self._writer.start()

    def write(self, text: str) -> int:
        """Keeps a line; where nobody takes them, the oldest ones are written here."""
        self._lines.append(text)
        if not self._any.is_set():
            self._any.set()
        if len(self._lines) >= LOG_LINES_MAX:
            self.drain()
        return len(text)

    def flush(self) -> None:
        """Does nothing: the thread writes."""

    def drain(self) -> None:
        """Writes what there is."""
        with self._drains:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if lines:
                self.stream.write("".join(lines))
                self.stream.flush()

    def close(self) -> None:
        """Writes what there is and ends the thread."""
        self._end.set()
        self._any.set()
        self._writer.join()
        self.drain()

    def _write(self) -> None:
        while not self._end.is_set():
            self._any.wait()
            self._end.wait(LOG_SECONDS)
            self._any.clear()
            self.drain()


def log(name: str) -> structlog.stdlib.BoundLogger:
    """The logger of one room."""
    return cast("structlog.stdlib.BoundLogger", _Logger(name))


class _Logger:
    """Logs as the process is configured; where it is not, on stderr.

    To import the product configures nothing, so it can be part of any program; and a command that
    serves nothing leaves standard output to what it prints.
    """

    def __init__(self, name: str) -> None:
        self._configured = structlog.get_logger(name)

    def __getattr__(self, method: str) -> Any:
        if structlog.is_configured():
            return getattr(self._configured, method)
        return getattr(structlog.wrap_logger(structlog.PrintLogger(sys.stderr)), method)


class Note(Protocol):
    """Says at the end of a request what it was; see `Tracer.request`."""

    def __call__(self, name: str, facts: Mapping[str, str | int], *, failed: bool) -> None:
        """Names the request, and says whether it failed here."""


class Tracer(Protocol):
    """What makes spans; `app.exporting` has the one of OpenTelemetry.

    Facts name what is done, as a route, a transaction or a metric: never a user, a count, a size.
    """

    def work(self, name: str, facts: Mapping[str, str]) -> AbstractContextManager[None]:
        """A piece of work inside a trace; an error that leaves it is told by its kind alone."""

    def request(self, headers: Mapping[str, str]) -> AbstractContextManager[Note]:
        """A request from outside, in the trace that its headers name."""


class _Tracing:
    """Who makes the spans of this process; nobody, until somebody asks for traces."""

    tracer: Tracer | None = None


def trace_with(tracer: Tracer | None) -> None:
    """Has every `span` of this process made by a tracer; None turns tracing off."""
    _Tracing.tracer = tracer


def tracing() -> Tracer | None:
    """Who makes the spans of this process, if anybody."""
    return _Tracing.tracer


def span(name: str, **facts: str) -> AbstractContextManager[None]:
    """A piece of work inside a trace; see `Tracer.work`. Nothing where nobody traces."""
    return _NO_SPAN if _Tracing.tracer is None else _Tracing.tracer.work(name, facts)


def place_of(error: Exception) -> dict[str, object]:
    """Where a bug is: its type and its frames. Not its message, which may hold a private value."""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
    return {
        "error": type(error).__qualname__,
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
    }


def refuse_private(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Raises where a private noun is about to be logged.

    Raises:
        PrivateValueError: A value of the call, or an item of one, is private.
    """
    for key, value in event.items():
        items = value if isinstance(value, list | tuple | set) else (value,)
        if any(isinstance(item, _PRIVATE) for item in items):
            raise PrivateValueError(f"{key} is private and must not be logged")
    return event


class Metrics:
    """The counters of the product, on a registry of their own; whoever asks may read them.

    Guarantee: none counts events, users or bytes, because a count without noise would be an exact
    answer. The library's own registry is not used for the same reason: what it tells of the
    process (memory, garbage collections) follows the number of events. The lag of Kafka is a time
    in a few steps, 0 below ten seconds (`app.consuming.coarse`): a single event rarely moves it.
    """

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.releases = Counter(
            "dpdau_releases",
            "Releases given, by metric and whether they were replayed.",
            ["metric", "replayed"],
            registry=registry,
        )
        self.refusals = Counter(
            "dpdau_refusals", "Requests refused, by error code.", ["code"], registry=registry
        )
        self.failures = Counter(
            "dpdau_failures",
            "Requests that failed here, whoever asked: a status of 500 or more, /readyz aside.",
            ["front"],
            registry=registry,
        )
        for front in ("http", "grpc"):
            # From the start: what appears with its first failure has no rate yet.
            self.failures.labels(front)
        self.erasures = Counter("dpdau_erasures", "Users erased.", registry=registry)
        self.budget_spent = Gauge(
            "dpdau_budget_spent_ratio",
            "Share of the budget that is spent, 0..1, when the service last looked.",
            ["metric", "period"],
            registry=registry,
        )
        self.kafka_lag = Gauge(
            "dpdau_kafka_lag",
            "How far a partition is behind, in seconds, in a few steps; 0 below ten.",
            ["topic", "partition"],
            registry=registry,
        )
        self.ledger_transactions = Counter(
            "dpdau_ledger_transactions",
            "Transactions of the ledger, by name and outcome: done, or a code.",
            ["name", "outcome"],
            registry=registry,
        )
        # By itself and without a name: from the start at 0, so that the first one is an increase.
        self.ledger_corrupt = Counter(
            "dpdau_ledger_corrupt",
            "Transactions that found the ledger corrupt.",
            registry=registry,
        )
        self.ledger_seconds = Histogram(
            "dpdau_ledger_transaction_seconds",
            "What they took, with the wait for another writer.",
            ["name"],
            registry=registry,
        )

    def released(self, metric: str, *, replayed: bool) -> None:
        """Counts a release."""
        self.releases.labels(metric, str(replayed).lower()).inc()

    def transacted(self, name: str, outcome: str, seconds: float) -> None:
        """Counts and times a transaction of the ledger."""
        self.ledger_transactions.labels(name, outcome).inc()
        if outcome == LedgerCorruptError.code:
            self.ledger_corrupt.inc()
        self.ledger_seconds.labels(name).observe(seconds)

    def span(self, name: str) -> AbstractContextManager[None]:
        """See `span`; for rooms that do not load what logs and counts."""
        return span(name)
