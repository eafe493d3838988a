"""Events from Kafka into the store of this process, exactly once."""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from dpdau.app.gateway import READS_AGAIN, feed_of
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.kafka.broker import Broker
from dpdau.ingest.kafka.claims import Claims
from dpdau.ingest.kafka.members import Members
from dpdau.ingest.kafka.messages import NOTHING
from dpdau.settings import Settings
from dpdau.telemetry import log

if TYPE_CHECKING:
    from dpdau.app.product import App

__all__ = ["Consumption", "Standing", "broker_of", "coarse"]

_LOG = log("kafka")
LAG_STEPS_SECONDS: Final = (10, 30, 60, 300, 900, 3_600, 6 * 3_600, 86_400, 7 * 86_400)
"""What is told of a lag."""


def broker_of(settings: Settings) -> Broker:
    """The broker of the settings.

    Raises:
        InvalidSettingError: `KAFKA_BOOTSTRAP_SERVERS` is not set, or an option cannot be taken.
    """
    options = settings.KAFKA_OPTIONS
    return Broker.of(
        servers=settings.KAFKA_BOOTSTRAP_SERVERS,
        topic=settings.KAFKA_TOPIC,
        group=settings.KAFKA_GROUP,
        dead_letter_topic=settings.KAFKA_DEAD_LETTER_TOPIC,
        options=None if options is None else options.get_secret_value(),
    )


def coarse(seconds: float) -> int:
    """A lag as it is told: the step that it has reached, 0 below the first.

    Guarantee: it follows no number of events. While messages are stored within ten seconds it is 0,
    however many or few there are, so no single event moves it.

    Example:
        >>> coarse(9.9), coarse(10), coarse(59), coarse(61)
        (0, 10, 30, 60)
    """
    return max((one for one in LAG_STEPS_SECONDS if one <= seconds), default=0)


@dataclass(frozen=True, slots=True)
class Standing:
    """How far consuming is; for the operator of this process, as the report of `ingest` is.

    Attributes:
        report: What was stored since the start.
        partitions: How many partitions are read here.
        lag_seconds: How far the last one is behind, coarsely.
        trouble: What is away, as a code, or None.
        lost: How many places were passed over since the start, because what was there was deleted
            before it was read.
    """

    report: IngestReport
    partitions: int
    lag_seconds: int
    trouble: str | None
    lost: int = 0

    def to_json(self) -> dict[str, Any]:
        """All fields, the report as counts."""
        return {
            "received": self.report.received,
            **self.report.outcomes(),
            "partitions": self.partitions,
            "lag_seconds": self.lag_seconds,
            "trouble": self.trouble,
            "lost": self.lost,
        }


class Consumption:
    """Members of the consumer group over the one store of an app.

    Args:
        app: Where events go; its directory is this process's alone.
        workers: How many members.
        accept_gap: Passes over messages that were deleted before they were read; else it ends.

    Guarantee: activity and offsets are one commit, so each message is applied once, whatever dies
    when. See `Claims`.

    Raises:
        InvalidSettingError: As `broker_of`, or the library is missing.
    """

    def __init__(self, app: "App", *, workers: int = 1, accept_gap: bool = False) -> None:
        broker = broker_of(app.settings)
        self._topic = broker.topic
        self._keys = app.keys
        self._metrics = app.metrics
        self._workers = workers
        self._lock = threading.Lock()
        self._report = IngestReport()
        self._lags: dict[int, int] = {}
        self._lost = 0
        self._intake = app.intake
        self._reads_again = False
        self.members = Members(
            broker,
            claims=Claims(
                submit=app.intake.submit_consumed,
                offset=app.intake.offset,
                source=self._source,
                feed=app.keys.source_name(feed_of(broker.topic)),
            ),
            rules=app.rules,
            listener=self,
            clock=app.calendar.clock,
            accept_gap=accept_gap,
        )

    def start(self) -> None:
        """Notes in the store that it is fed, and has the members join; warns of a restored store.

        Raises:
            InvalidSettingError: The library is missing or refuses an option.
            StoreUnavailableError: The store cannot be written.
        """
        self.members.claims.note_feed()
        self._intake.fed_by(self.check_ready)
        self._reads_again = self._intake.offset(READS_AGAIN) is not None
        if self._reads_again:
            _LOG.warning(
                "kafka_reads_again",
                detail="The store was restored: users of erasures since its backup come back until "
                "all is read again. Erase them then, as `dpdau restore` listed.",
            )
        for _ in range(self._workers):
            self.members.add()

    def standing(self) -> Standing:
        """How far it is now.

        Raises:
            What ended a member.
        """
        self._require_members()
        with self._lock:
            report, lag = self._report, max(self._lags.values(), default=0)
            lost = self._lost
        trouble = self.members.health.trouble
        return Standing(report, self.members.claims.count, lag, trouble, lost)

    def check_ready(self) -> None:
        """Proves that consuming goes on, or waits for brokers that are away; for `/readyz`.

        Raises:
            What ended a member; only a new start goes on.
        """
        self._require_members()

    @property
    def is_at_end(self) -> bool:
        """Whether all is stored that the topic had at the start; what comes since may not be."""
        return self.members.claims.are_at_end

    def stored(self, report: IngestReport) -> None:
        """See `Listener.stored`."""
        with self._lock:
            self._report += replace(report, rejected=())
        self._tell_read_again()

    def behind(self, partition: int, seconds: float) -> None:
        """See `Listener.behind`."""
        lag = coarse(seconds)
        with self._lock:
            self._lags[partition] = lag
            if self._metrics is not None:
                self._metrics.kafka_lag.labels(self._topic, str(partition)).set(lag)
        self._tell_read_again()

    def gone(self, partitions: Iterable[int]) -> None:
        """See `Listener.gone`."""
        with self._lock:
            known = [one for one in partitions if self._lags.pop(one, None) is not None]
            if self._metrics is not None:
                for one in known:
                    self._metrics.kafka_lag.remove(self._topic, str(one))

    def lost(self, messages: int) -> None:
        """See `Listener.lost`."""
        with self._lock:
            self._lost += messages

    def close(self) -> None:
        """Has all members leave, when what they read is durable; may be called twice."""
        self.members.close()

    def _require_members(self) -> None:
        """Raises what ended a member, a bug as what it is."""
        failure = self.members.failure
        if failure is not None:
            # Each raise of the same error would make its traceback longer.
            raise failure.with_traceback(None)

    def _tell_read_again(self) -> None:
        """Says once where a restored store has read all again that was there at the start."""
        with self._lock:
            if not (self._reads_again and self.is_at_end):
                return
            self._intake.submit_consumed(NOTHING, {READS_AGAIN: -1}).result()
            self._reads_again = False
        _LOG.warning("kafka_read_again", detail="All is read again: repeat the erasures now.")

    def _source(self, partition: int) -> str:
        """The name under which the offset of a partition is stored; it tells nothing of either."""
        return self._keys.source_name(f"{feed_of(self._topic)} {partition}")
