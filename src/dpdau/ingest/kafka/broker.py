"""How Kafka is reached: the two clients with what they must be set to, and what went wrong."""

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from dpdau.errors import BrokerUnavailableError, InvalidSettingError
from dpdau.telemetry import log

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Producer

__all__ = ["Broker", "Health", "library"]

CLOSE_SECONDS: Final = 15.0
"""How long a producer may take to hand over what it still has."""
_SERVERS: Final = "KAFKA_BOOTSTRAP_SERVERS"
_OPTIONS: Final = "KAFKA_OPTIONS"
_LOG = log("ingest")

# Defaults that an operator may change.
_CONSUMER_DEFAULTS: Final = {"session.timeout.ms": 10_000, "fetch.wait.max.ms": 100}
_PRODUCER_DEFAULTS: Final = {
    "message.timeout.ms": 10_000,
    "linger.ms": 5,
    "compression.type": "lz4",
    "queue.buffering.max.messages": 1_000_000,
}
# What exactly once rests on: nobody may change it. All partitions are given up before a rebalance,
# so that nobody reads where another has not ended.
_CONSUMER_FIXED: Final = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "partition.assignment.strategy": "range,roundrobin",
    "group.protocol": "classic",
}
_PRODUCER_FIXED: Final = {
    "acks": "all",
    "enable.idempotence": True,
    # The one that other clients use: the same key, the same partition.
    "partitioner": "murmur2_random",
}
_REFUSALS: Final = {
    "_AUTHENTICATION": "that they refuse this user or password",
    "_SSL": "that the two sides do not trust each other: the wrong ssl.ca.location, or no TLS",
}
_COMMON_FIXED: Final = frozenset({"bootstrap.servers", "group.id", "log_level"})
_UNSAFE: Final = {
    # Other names of what is set here.
    "metadata.broker.list",
    "request.required.acks",
    "auto.commit.enable",
    # Without the reports of what was delivered, a request would wait for ever.
    "delivery.report.only.error",
    "transactional.id",
    # A fixed member keeps its partitions while it is away, and another one may be fenced off.
    "group.instance.id",
}
_TOPIC_ID_BITS: Final = 2**61 - 1
_TOPIC_ID_FLOOR: Final = 2**61
_NOT_OPTIONS: Final = _COMMON_FIXED | _CONSUMER_FIXED.keys() | _PRODUCER_FIXED.keys() | _UNSAFE


@dataclass(frozen=True, slots=True)
class Broker:
    """Where events come from or go to.

    Attributes:
        servers: Addresses, comma-separated.
        topic: The topic of events.
        group: The consumer group.
        dead_letter_topic: Where messages go that cannot be taken; empty for nowhere.
        options: What else librdkafka is told, secrets among it; never shown.
    """

    servers: str
    topic: str
    group: str = "dpdau"
    dead_letter_topic: str = ""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        *,
        servers: str | None,
        topic: str,
        group: str,
        dead_letter_topic: str | None,
        options: str | None,
    ) -> Self:
        """The broker of settings as they were written.

        Raises:
            InvalidSettingError: There is no address, an option is no `name=value`, or it is one
                that exactly once rests on; no value is repeated.
        """
        if not servers:
            raise InvalidSettingError(
                f"{_SERVERS} is not set; it names the brokers, as host:port,host:port.",
                setting=_SERVERS,
            )
        dead = f"{topic}-dead" if dead_letter_topic is None else dead_letter_topic
        return cls(servers, topic, group, dead, _options(options or ""))

    def consumer(self, on_error: "Callable[[KafkaError], None]") -> "Consumer":
        """A member of the group, not subscribed yet.

        Raises:
            InvalidSettingError: The library is missing or refuses an option.
        """
        config = {
            **_CONSUMER_DEFAULTS,
            **self.options,
            **_CONSUMER_FIXED,
            "group.id": self.group,
        }
        made: Consumer = self._made(library().Consumer, config, on_error)
        return made

    def producer(self, on_error: "Callable[[KafkaError], None]") -> "Producer":
        """A producer whose acknowledgment means that all in-sync replicas have it.

        Raises:
            InvalidSettingError: The library is missing or refuses an option.
        """
        config = {**_PRODUCER_DEFAULTS, **self.options, **_PRODUCER_FIXED}
        made: Producer = self._made(library().Producer, config, on_error)
        return made

    def topic_id(self, *, timeout_seconds: float) -> int | None:
        """Which topic is there under the name, as a number; None where the broker does not say.

        Guarantee: a topic that is deleted and made again has another one.

        Raises:
            BrokerUnavailableError: The broker does not answer.
        """
        kafka = library()
        admin = self._made(_admin_client(), dict(self.options), lambda _error: None)
        try:
            (told,) = admin.describe_topics(
                kafka.TopicCollection([self.topic]), request_timeout=timeout_seconds
            ).values()
            found = told.result(timeout_seconds).topic_id
        except kafka.KafkaException as error:
            if error.args[0].code() == kafka.KafkaError._UNSUPPORTED_FEATURE:
                return None
            raise unreachable("say which topic it has", error.args[0].name()) from None
        except TimeoutError:
            raise unreachable("say which topic it has", "no answer in time") from None
        if found is None:
            return None
        bits = found.get_most_significant_bits() ^ found.get_least_significant_bits()
        # Low numbers are left for notes that are no id.
        return (bits & _TOPIC_ID_BITS) | _TOPIC_ID_FLOOR if bits else None

    def partition_count(self, *, timeout_seconds: float) -> int:
        """How many partitions the topic has; it never has fewer later.

        Raises:
            BrokerUnavailableError: The broker does not answer, or has no such topic.
        """
        kafka = library()
        admin = self._made(_admin_client(), dict(self.options), lambda _error: None)
        try:
            found = admin.list_topics(self.topic, timeout=timeout_seconds).topics[self.topic]
        except kafka.KafkaException as error:
            raise unreachable("say which partitions it has", error.args[0].name()) from None
        if found.error is not None:
            raise unreachable("say which partitions it has", found.error.name())
        return len(found.partitions)

    def _made(
        self, client: Any, config: dict[str, Any], on_error: "Callable[[KafkaError], None]"
    ) -> Any:
        """A client of the library."""
        # The library's own log may carry what it was told.
        own = {"bootstrap.servers": self.servers, "log_level": 0, "error_cb": on_error}
        try:
            return client({**config, **own})
        except library().KafkaException as error:
            # Its message may carry a value, which may be a secret.
            named = set(re.findall(r"[a-z][a-z0-9._]+", str(error))) & self.options.keys()
            which = f": {', '.join(sorted(named))}" if named else ""
            raise InvalidSettingError(
                f"{_OPTIONS}: expected options that librdkafka takes, found one that it does not"
                f"{which}.",
                setting=_OPTIONS,
            ) from None


def _admin_client() -> Any:
    """The client that asks about topics."""
    from confluent_kafka.admin import AdminClient

    return AdminClient


def library() -> Any:
    """The library.

    Raises:
        InvalidSettingError: It is not installed.
    """
    try:
        import confluent_kafka
    except ImportError:
        raise InvalidSettingError(
            "Expected the library confluent-kafka, found none; install dp-dau-mau[kafka]."
        ) from None
    return confluent_kafka


def unreachable(what: str, why: str) -> BrokerUnavailableError:
    """The error of a broker that did not do what it was asked for."""
    found = _REFUSALS.get(why, why)
    return BrokerUnavailableError(f"Expected Kafka to {what}, found {found}; retry.", reason=why)


class Health:
    """Says once that something is away, and once that it is back; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._trouble: str | None = None
        self._has_answered = False
        self._refused_by_one: str | None = None
        self._refused_by_all: str | None = None

    @property
    def trouble(self) -> str | None:
        """What is wrong now, as a code; None where all is well."""
        with self._lock:
            return self._trouble

    @property
    def refusal(self) -> str | None:
        """Why no broker has this client, as a code; None once one of them had it, or all are away.

        The wrong password or certificate is a broker's last word only at the start. Later it is a
        change of them that is under way.
        """
        with self._lock:
            return self._refused_by_all

    def require_taken(self) -> None:
        """Refuses to wait for brokers that will not have this client.

        Raises:
            InvalidSettingError: See `refusal`.
        """
        refusal = self.refusal
        if refusal is not None:
            raise InvalidSettingError(
                f"{_OPTIONS}: expected a certificate and a password that go with the brokers, found"
                f" {_REFUSALS[refusal]}.",
                setting=_OPTIONS,
            )

    def client_failed(self, error: "KafkaError") -> None:
        """Hears of an error from a client, which goes on trying by itself."""
        name = error.name()
        with self._lock:
            if name in _REFUSALS:
                self._refused_by_one = name
            elif name == "_ALL_BROKERS_DOWN" and not self._has_answered:
                self._refused_by_all = self._refused_by_one
        self.failed(name)

    def failed(self, why: str) -> None:
        """Something is away; only the first one after all was well is told."""
        with self._lock:
            known, self._trouble = self._trouble, why
        if known is None:
            _LOG.warning("kafka_waits", reason=why)

    def answered(self) -> None:
        """All is well."""
        with self._lock:
            self._has_answered, self._refused_by_all = True, None
            known, self._trouble = self._trouble, None
        if known is not None:
            _LOG.info("kafka_goes_on", after=known)


def _options(text: str) -> dict[str, str]:
    """`name=value,name=value`; a comma in a value is written `\\,`."""
    found: dict[str, str] = {}
    for part in re.split(r"(?<!\\),", text):
        if not part.strip():
            continue
        name, sign, value = part.replace("\\,", ",").partition("=")
        name = name.strip()
        if not sign or not re.fullmatch(r"[a-z][a-z0-9._]*", name):
            raise InvalidSettingError(
                f"{_OPTIONS}: expected name=value,name=value, found a part that is not.",
                setting=_OPTIONS,
            )
        if name in _NOT_OPTIONS:
            raise InvalidSettingError(
                f"{_OPTIONS}: expected no {name}: exactly once rests on what is set here.",
                setting=_OPTIONS,
            )
        found[name] = value
    return found
