"""Events from Kafka into a lake, exactly once, read by Spark itself."""

import secrets
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dpdau.app.consuming import Standing, broker_of, coarse
from dpdau.app.gateway import feed_of
from dpdau.app.lake import Adoption
from dpdau.datadir import DataDir
from dpdau.errors import InvalidSettingError, StoreCorruptError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.kafka.claims import Claims
from dpdau.ingest.spark.adopting import decoded_messages
from dpdau.ingest.spark.stream import Stream, send_dead_letters

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from dpdau.app.product import App
    from dpdau.ingest.spark.adopting import Decoded
    from dpdau.settings import Settings

__all__ = ["Streaming", "check_process"]

TOPIC_SECONDS: Final = 15.0
_ID: Final = "dpdau.id"
_ID_BITS: Final = 62


class Streaming:
    """A query of Spark over a topic, into the lake of an app.

    Args:
        app: Where events go; its directory is this process's alone.
        until_end: Ends when all that the topic has now is taken.
        accept_gap: Passes over messages that were deleted before they were read; else it ends.

    Guarantee: activity and offsets are one commit, and what is at or before a stored offset is not
    taken again, whoever stored it: each message is applied once, whatever dies when, and whatever
    becomes of Spark's checkpoint. One that the store has not come as far as, or never saw, as after
    a restore, is refused.

    Raises:
        InvalidSettingError: As `broker_of`; or the store is no lake, or its Spark is another
            process's.
    """

    def __init__(self, app: "App", *, until_end: bool = False, accept_gap: bool = False) -> None:
        settings = app.settings
        check_process(settings)
        self._app = app
        self._broker = broker_of(settings)
        self._adoption = Adoption(app)
        self._until_end = until_end
        self._accept_gap = accept_gap
        self._feed = feed_of(self._broker.topic)
        self._claims = Claims(
            submit=app.intake.submit_consumed,
            offset=app.intake.offset,
            source=self._source,
            feed=app.keys.source_name(self._feed),
        )
        self._lock = threading.Lock()
        self._report = IngestReport()
        self._lag = 0
        self._partitions = 0
        self._checkpoint = 0
        self._stream: Stream | None = None

    def start(self) -> None:
        """Notes in the store which topic feeds it, and begins.

        Raises:
            TopicMismatchError: It is another one than before.
            UnavailableError: The broker, Spark or the store does not do its work.
            InvalidSettingError: A library is missing, or Spark's Kafka connector.
        """
        self._claims.note_feed()
        topic_id = self._broker.topic_id(timeout_seconds=TOPIC_SECONDS)
        if topic_id is not None:
            self._claims.require_topic(topic_id)
        folder = DataDir(self._app.settings.DATA_DIR).streams
        checkpoint = folder / self._app.keys.source_name(self._feed)
        checkpoint.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._checkpoint = _id_of(checkpoint)
        self._stream = Stream(
            self._adoption.lake.spark,
            self._broker,
            checkpoint=checkpoint,
            take=self._take,
            until_end=self._until_end,
            accept_gap=self._accept_gap,
        )

    def standing(self) -> Standing:
        """How far it is now.

        Raises:
            What ended it.
        """
        assert self._stream is not None, "started first"
        self._stream.check()
        with self._lock:
            lag = 0 if self._stream.is_idle else self._lag
            return Standing(self._report, self._partitions, lag, None)

    @property
    def is_at_end(self) -> bool:
        """Whether all that the topic has is stored."""
        return self._stream is not None and not self._stream.is_active

    def close(self) -> None:
        """Ends when what was read is durable; may be called twice."""
        if self._stream is not None:
            self._stream.stop()

    def _take(self, batch: "DataFrame", number: int) -> None:
        """Takes one batch of Spark, the dead letters of it first."""
        offset, (of, noted) = self._app.intake.offset, map(self._number, ("checkpoint", "batch"))
        last = offset(noted) if offset(of) == self._checkpoint else None
        if number > (-1 if last is None else last) + 1:
            raise StoreCorruptError(
                "Expected a checkpoint of Spark that the store has come as far as, found one that"
                " is ahead, as after a restore: messages would be missed. Remove the folder"
                f" {DataDir(self._app.settings.DATA_DIR).streams}; what is stored is passed over."
            )
        # Others may have stored what this query has not seen, as `dpdau serve --consume`.
        partitions = self._broker.partition_count(timeout_seconds=TOPIC_SECONDS)
        stored = {one: offset(self._source(one)) for one in range(partitions)}
        after = {one: last for one, last in stored.items() if last is not None}

        def offsets(found: "Decoded") -> dict[str, int]:
            oldest_ms = found.tally.oldest_ms
            if oldest_ms is not None:
                now = self._app.calendar.clock().timestamp()
                with self._lock:
                    self._lag = coarse(max(0.0, now - oldest_ms / 1000))
                    self._partitions = partitions
            send_dead_letters(batch, found, self._broker)
            ends = {self._source(one): last for one, last in found.tally.ends.items()}
            return {**ends, of: self._checkpoint, noted: number}

        report = self._adoption(
            lambda recipe: decoded_messages(batch, recipe, after=after),
            rules=self._app.rules(),
            offsets=offsets,
        )
        with self._lock:
            self._report += replace(report, rejected=())

    def _source(self, partition: int) -> str:
        """The name under which the offset of a partition is stored, as `Consumption` has it."""
        return self._app.keys.source_name(f"{self._feed} {partition}")

    def _number(self, what: str) -> str:
        """The name under which a number of this topic is stored."""
        return self._app.keys.source_name(f"{self._feed} stream {what}")


def check_process(settings: "Settings") -> None:
    """Refuses a Spark whose batches another process would take.

    Raises:
        InvalidSettingError: It is one.
    """
    if (settings.SPARK_MASTER or "").startswith("sc://"):
        raise InvalidSettingError(
            "Expected a SPARK_MASTER other than sc://…, whose batches would be taken by the"
            " server: the ledger of what was taken is here. Use local[N], spark://, yarn or"
            " k8s://, or consume with SPARK_MASTER unset.",
            setting="SPARK_MASTER",
        )


def _id_of(checkpoint: Path) -> int:
    """Which checkpoint a folder holds; one that is removed and made again is another one."""
    path = checkpoint / _ID
    if not path.exists():
        draft = checkpoint / f"{_ID}.draft"
        draft.write_text(str(secrets.randbits(_ID_BITS)))
        draft.replace(path)
    return int(path.read_text())
