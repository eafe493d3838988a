"""A topic as Spark reads it by itself: Structured Streaming, with Spark's own Kafka connector.

Spark keeps in a checkpoint how far it has read. What counts is what the store has: offsets are
stored with the activity that came from them, and messages at or before them are not taken again.
So a batch that Spark repeats, after a kill at any point, changes nothing.
"""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dpdau.activity.spark.lake import uri_of
from dpdau.activity.spark.session import errors, word_of
from dpdau.errors import (
    BrokerUnavailableError,
    InvalidSettingError,
    StoreUnavailableError,
)
from dpdau.ingest.kafka.broker import Broker
from dpdau.ingest.spark.adopting import Decoded, gap, is_gap
from dpdau.telemetry import log

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

__all__ = ["CONNECTOR", "Stream", "connector_options", "send_dead_letters"]

CONNECTOR: Final = "org.apache.spark:spark-sql-kafka-0-10_2.13"
"""The Maven coordinates of Spark's Kafka connector, without the version, which is Spark's."""
MESSAGES_MAX: Final = 2_000_000
"""Messages of one batch of Spark, all partitions together."""
_LOG = log("ingest")
_LOGIN: Final = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}
_OWN: Final = frozenset({"sasl.mechanisms", "sasl.mechanism", "sasl.username", "sasl.password"})
_HEADERS: Final = ("reason", "events", "topic", "partition", "offset", "timestamp")
"""What a dead letter says of itself."""


class Stream:
    """A query of Structured Streaming over a topic.

    Args:
        spark: A session in this process, with Spark's Kafka connector.
        broker: Where events come from.
        checkpoint: The folder in which Spark keeps how far it has read.
        take: Called with each batch, one after another, and its number; what it raises ends the
            query, and the batch comes again after the next start.
        until_end: Ends when all that the topic has now is taken.
        accept_gap: Passes over messages that were deleted before they were read; else it ends.
    """

    def __init__(
        self,
        spark: "SparkSession",
        broker: Broker,
        *,
        checkpoint: Path,
        take: "Callable[[DataFrame, int], None]",
        until_end: bool = False,
        accept_gap: bool = False,
    ) -> None:
        self._take = take
        self._turn = threading.Lock()
        self._is_stopping = False
        self._failure: Exception | None = None
        failed = ""
        try:
            self._query = self._started(
                spark, broker, checkpoint, until_end=until_end, accept_gap=accept_gap
            )
        except errors() as error:
            failed = "the connector" if _has_no_connector(error) else word_of(error)
        if failed == "the connector":
            raise InvalidSettingError(
                f"Expected a Spark with its Kafka connector, found none; set SPARK_OPTIONS="
                f"spark.jars.packages={CONNECTOR}: and the version of Spark.",
                setting="SPARK_OPTIONS",
            )
        if failed:
            raise StoreUnavailableError(f"Expected Spark to read a topic, found {failed}; retry.")

    @property
    def is_active(self) -> bool:
        """Whether it goes on."""
        return bool(self._query.isActive)

    @property
    def is_idle(self) -> bool:
        """Whether all that the topic had when Spark looked last is taken."""
        return not self._query.status["isDataAvailable"]

    def check(self) -> None:
        """Raises what ended it, if anything did.

        Raises:
            DpdauError: What `take` raised.
            TopicMismatchError: Messages are gone that were not read.
            BrokerUnavailableError: Spark could not read; a new start goes on.
        """
        if self._failure is not None:
            raise self._failure
        ended = None if self._query.isActive else self._query.exception()
        if ended is None or self._is_stopping:
            return
        if is_gap(ended):
            raise gap()
        word = word_of(ended)
        raise BrokerUnavailableError(
            f"Expected Spark to read the topic, found the error {word}; start it again.",
            reason=word,
        )

    def stop(self) -> None:
        """Ends it when the batch that is being taken is durable; may be called twice."""
        if not self._query.isActive:
            return
        self._is_stopping = True
        with self._turn:
            self._query.stop()

    def _started(
        self,
        spark: "SparkSession",
        broker: Broker,
        checkpoint: Path,
        *,
        until_end: bool,
        accept_gap: bool,
    ) -> "StreamingQuery":
        """The query, begun."""
        reader = spark.readStream.format("kafka").options(**connector_options(broker))
        found = reader.options(
            subscribe=broker.topic,
            startingOffsets="earliest",
            maxOffsetsPerTrigger=str(MESSAGES_MAX),
            failOnDataLoss=str(not accept_gap).lower(),
            **{"kafka.isolation.level": "read_committed"},
        ).load()
        columns = ("key", "value", "topic", "partition", "offset")
        messages = found.selectExpr(*columns, "unix_millis(timestamp) AS timestamp_ms")
        writer = messages.writeStream.foreachBatch(self._taken)
        writer = writer.option("checkpointLocation", uri_of(checkpoint.resolve()))
        if until_end:
            writer = writer.trigger(availableNow=True)
        return writer.start()

    def _taken(self, batch: "DataFrame", number: int) -> None:
        """One batch, unless it is to stop: then it comes again after the next start."""
        with self._turn:
            if self._is_stopping:
                raise InterruptedError
            try:
                self._take(batch, number)
            except Exception as error:
                self._failure = error
                raise


def send_dead_letters(batch: "DataFrame", found: Decoded, broker: Broker) -> None:
    """Sends the messages that cannot be taken away as they came, with the reason.

    Guarantee: when it returns, all in-sync replicas have them. A batch that is repeated sends them
    again: each arrives at least once.

    Raises:
        BrokerUnavailableError: The broker does not have all of them.
    """
    from pyspark.sql import functions as F  # noqa: N812

    for code in found.tally.codes:
        _LOG.warning("kafka_poison", reason=code, topic=broker.topic)
    if not (found.tally.codes and broker.dead_letter_topic):
        return
    known = ["partition", "offset"]
    poison = found.poison().toDF(*known, "reason", "events")
    letters = batch.join(F.broadcast(poison), known).withColumnRenamed("timestamp_ms", "timestamp")
    headers = [
        F.struct(
            F.lit(f"dpdau-{name}").alias("key"),
            F.col(name).cast("string").cast("binary").alias("value"),
        )
        for name in _HEADERS
    ]
    options = {**connector_options(broker), "kafka.acks": "all", "topic": broker.dead_letter_topic}
    failed = ""
    try:
        told = letters.select("key", "value", F.array(*headers).alias("headers"))
        told.write.format("kafka").options(**options).save()
    except errors() as error:
        failed = word_of(error)
    if failed:
        raise BrokerUnavailableError(
            f"Expected Kafka to take the dead letters, found {failed}; start it again.",
            reason=failed,
        )


def connector_options(broker: Broker) -> dict[str, str]:
    """How the connector reaches the brokers: the options of librdkafka in the words of Java."""
    given = broker.options
    own = {name: value for name, value in given.items() if name not in _OWN}
    mechanism = given.get("sasl.mechanism", given.get("sasl.mechanisms"))
    if mechanism is not None:
        own["sasl.mechanism"] = mechanism
        if mechanism in _LOGIN:
            own["sasl.jaas.config"] = _login(mechanism, given)
    if "ssl.ca.location" in own:
        own["ssl.truststore.location"] = own.pop("ssl.ca.location")
        own["ssl.truststore.type"] = "PEM"
    own["bootstrap.servers"] = broker.servers
    return {f"kafka.{name}": value for name, value in own.items()}


def _login(mechanism: str, given: Mapping[str, str]) -> str:
    """A user and a password as Java has them."""
    parts = (("username", "sasl.username"), ("password", "sasl.password"))
    quoted = str.maketrans({"\\": "\\\\", '"': '\\"'})
    told = " ".join(f'{word}="{given.get(name, "").translate(quoted)}"' for word, name in parts)
    return f"{_LOGIN[mechanism]} required {told};"


def _has_no_connector(error: Exception) -> bool:
    """Whether Spark does not know what Kafka is."""
    return "data source: kafka" in str(error) or "STREAMING_CONNECTOR" in word_of(error)
