"""Events from Kafka into the store of this process, exactly once."""

import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from dpdau.app.gateway import feed_of
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.event import Decoded
from dpdau.ingest.kafka.broker import Broker
from dpdau.ingest.kafka.claims import Claims
from dpdau.ingest.kafka.members import Members
from dpdau.settings import Settings

if TYPE_CHECKING:
    from dpdau.app.product import App

__all__ = ["Consumption", "Standing", "broker_of", "coarse"]

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
    """

    report: IngestReport
    partitions: int
    lag_seconds: int
    trouble: str | None

    def to_json(self) -> dict[str, Any]:
        """All fields, the report as counts."""
        return {
            "received": self.report.received,
            **self.report.outcomes(),
            "partitions": self.partitions,
            "lag_seconds": self.lag_seconds,
            "trouble": self.trouble,
        }


class Consumption:
    """Members of the consumer group over the one store of an app.

    Args:
        app: Where events go; its directory is this process's alone.
        workers: How many members.

    Guarantee: activity and offsets are one commit, so each message is applied once, whatever dies
    when. See `Claims`.

    Raises:
        InvalidSettingError: As `broker_of`, or the library is missing.
    """

    def __init__(self, app: "App", *, workers: int = 1) -> None:
        broker = broker_of(app.settings)
        self._topic = broker.topic
        self._intake = app.intake
        self._keys = app.keys
        self._metrics = app.metrics
        self._workers = workers
        self._lock = threading.Lock()
        self._report = IngestReport()
        self._lags: dict[int, int] = {}
        self.members = Members(
            broker,
            claims=Claims(
                submit=app.intake.submit_consumed, offset=app.intake.offset, source=self._source
            ),
            rules=app.rules,
            listener=self,
            clock=app.calendar.clock,
        )

    def start(self) -> None:
        """Notes in the store that it is fed, and has the members join.

        Raises:
            InvalidSettingError: The library is missing or refuses an option.
            StoreUnavailableError: The store cannot be written.
        """
        feed = {self._keys.source_name(feed_of(self._topic)): 1}
        self._intake.submit_consumed(Decoded((), (), 0), feed).result()
        for _ in range(self._workers):
            self.members.add()

    def standing(self) -> Standing:
        """How far it is now.

        Raises:
            What ended a member.
        """
        if self.members.failure is not None:
            raise self.members.failure
        with self._lock:
            report, lag = self._report, max(self._lags.values(), default=0)
        trouble = self.members.health.trouble
        return Standing(report, self.members.claims.count, lag, trouble)

    @property
    def is_at_end(self) -> bool:
        """Whether all that the topic has is stored."""
        return self.members.claims.are_at_end

    def stored(self, report: IngestReport) -> None:
        """See `Listener.stored`."""
        with self._lock:
            self._report += replace(report, rejected=())

    def behind(self, partition: int, seconds: float) -> None:
        """See `Listener.behind`."""
        lag = coarse(seconds)
        with self._lock:
            self._lags[partition] = lag
        if self._metrics is not None:
            self._metrics.kafka_lag.labels(self._topic, str(partition)).set(lag)

    def close(self) -> None:
        """Has all members leave, when what they read is durable; may be called twice."""
        self.members.close()

    def _source(self, partition: int) -> str:
        """The name under which the offset of a partition is stored; it tells nothing of either."""
        return self._keys.source_name(f"{feed_of(self._topic)} {partition}")
