"""Messages that cannot be taken, on their way to the topic for them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dpdau.ingest.kafka.broker import CLOSE_SECONDS, Broker, Health, library, unreachable
from dpdau.ingest.kafka.messages import Message, Poison
from dpdau.telemetry import log

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

__all__ = ["DeadLetters"]

_LOG = log("ingest")


class DeadLetters:
    """Sends poison away as it came, with the reason; for one thread.

    Args:
        broker: Where to; without a topic for them, messages are only told of.
        health: Hears of a broker that is away.

    Guarantee: when `send` returns, all in-sync replicas have the messages. One that was sent by a
    process that died before it stored the offset is sent again: each arrives at least once.
    """

    def __init__(self, broker: Broker, health: Health) -> None:
        self._broker = broker
        self._health = health
        self._producer: Producer | None = None

    def send(self, poison: Sequence[Poison]) -> None:
        """Sends messages away.

        Raises:
            BrokerUnavailableError: The broker does not have all of them.
        """
        for code in dict.fromkeys(one.code for one in poison):
            _LOG.warning("kafka_poison", reason=code, topic=self._broker.topic)
        if not self._broker.dead_letter_topic:
            return
        refused = self._sent(poison)
        if refused:
            # A broker that takes no message of that size may take its reason.
            refused = self._sent(refused, with_value=False)
        if refused:
            raise unreachable("take the dead letters", "message too large")

    def close(self) -> None:
        """Gives the connection up."""
        self._producer = None

    def _sent(self, poison: Sequence[Poison], *, with_value: bool = True) -> list[Poison]:
        """Sends messages and waits for the broker; those that are too large for it come back."""
        errors = library().KafkaError
        if self._producer is None:
            self._producer = self._broker.producer(self._health.client_failed)
        producer = self._producer
        failed: list[tuple[Poison, KafkaError]] = []

        def told(one: Poison) -> Any:
            def landed(error: "KafkaError | None", _message: object) -> None:
                if error is not None:
                    failed.append((one, error))

            return landed

        for one in poison:
            try:
                producer.produce(
                    self._broker.dead_letter_topic,
                    value=one.message.value() if with_value else None,
                    key=one.message.key(),
                    headers=_headers(one),
                    on_delivery=told(one),
                )
            except library().KafkaException as error:
                failed.append((one, error.args[0]))
            except BufferError:
                self._producer = None
                raise unreachable("take the dead letters", "too many that wait") from None
        left = producer.flush(CLOSE_SECONDS)
        large = [one for one, why in failed if why.code() == errors.MSG_SIZE_TOO_LARGE]
        if left or len(large) < len(failed):
            # What is left would be sent a second time beside the next attempt.
            self._producer = None
            why = next((why.name() for one, why in failed if one not in large), "no answer in time")
            raise unreachable("take the dead letters", why)
        return large


def _headers(poison: Poison) -> list[tuple[str, str | bytes | None]]:
    """Where a message was, and what is wrong with it."""
    message: Message = poison.message
    return [
        ("dpdau-reason", poison.code),
        ("dpdau-events", ",".join(map(str, poison.indexes))),
        ("dpdau-topic", str(message.topic())),
        ("dpdau-partition", str(message.partition())),
        ("dpdau-offset", str(message.offset())),
        ("dpdau-timestamp", str(message.timestamp()[1])),
    ]
