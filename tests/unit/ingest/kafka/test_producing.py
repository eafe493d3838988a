"""Events on their way into a topic, against a small broker, and with none."""

from collections.abc import Callable, Iterator

import msgspec
import pytest

from components import free_port, kafka_protocol_broker, make_topics
from dpdau.errors import BrokerUnavailableError, OverloadedError, StoreUnavailableError
from dpdau.ingest.commit import Request
from dpdau.ingest.event import Decoded, decode_objects
from dpdau.ingest.kafka import producing
from dpdau.ingest.kafka.broker import Broker
from dpdau.ingest.kafka.producing import Producing
from dpdau.ingest.rules import Rules
from kafka_topics import messages_of
from products import DAY, NOW, event

RULES = Rules(today=NOW.date(), dimensions=("platform",))
AWAY = {"message.timeout.ms": "300", "socket.connection.setup.timeout.ms": "1000"}


def decoded(*events: dict[str, object]) -> Decoded:
    """Events as a front has read them."""
    return decode_objects(events, rules=RULES)


def named(text: str) -> str:
    """A name that shows what was named."""
    return f"<{text}>"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A small broker."""
    with kafka_protocol_broker() as found:
        yield found


@pytest.fixture
def topic(address: str, request: pytest.FixtureRequest) -> str:
    """A topic of this test's own."""
    make_topics(address, {request.node.name: 1})
    name: str = request.node.name
    return name


@pytest.fixture
def road(address: str, topic: str) -> Iterator[Producing]:
    """The road into the topic."""
    made = Producing(Broker(address, topic), named=named)
    yield made
    made.close()


@pytest.fixture
def nowhere() -> Iterator[Producing]:
    """The road to a broker that is away."""
    made = Producing(Broker(f"127.0.0.1:{free_port()}", "t", options=AWAY), named=named)
    yield made
    made.close()


def test_an_acknowledged_event_is_in_the_topic(road: Producing, address: str, topic: str) -> None:
    """What was sent is read back the same, in order; the key is a hash of the user alone."""
    sent = decoded(
        event("ada", metadata={"platform": "ios"}),
        event("bob", op="-", metadata={"days": ["2026-03-09", "2026-03-10"]}),
        event(""),
        event("ada", event_id="e-1"),
    )
    report = road.submit(sent).result(20)
    found = messages_of(address, topic)
    back = decode_objects([msgspec.json.decode(one.value()) for one in found], rules=RULES)

    assert (4, 3, 1) == (report.received, report.accepted, report.rejected_count)
    assert list(sent.events) == list(back.events)
    assert [b"<kafka user ada>", b"<kafka user bob>", b"<kafka user ada>"] == [
        one.key() for one in found
    ]


def test_a_batch_names_its_events_by_their_places(
    road: Producing, address: str, topic: str
) -> None:
    """An event without an id gets one of the batch and its place as sent; others keep theirs."""
    for _ in range(2):
        batch = decoded(event("a"), event(""), event("b", event_id="own"), event("c"))
        road.submit(batch, batch_id="b-7").result(20)
    ids = [msgspec.json.decode(one.value())["event_id"] for one in messages_of(address, topic)]

    assert ["<kafka batch b-7>.0", "own", "<kafka batch b-7>.3"] * 2 == ids


def test_requests_of_a_loop_are_all_answered(road: Producing) -> None:
    """`submit_here` answers each reply, the empty ones too."""
    futures = [road.submit(decoded()) for _ in range(2)]
    replies = [Request(decoded(event(f"u{one}")), futures[0].__class__()) for one in range(5)]
    road.submit_here(replies)

    assert [0, 0] == [one.result(1).received for one in futures]
    assert [1] * 5 == [one.reply.result(20).accepted for one in replies]  # type: ignore[attr-defined]


def test_without_a_broker_nothing_is_acknowledged(nowhere: Producing) -> None:
    """The request fails as unavailable, and so does the probe."""
    with pytest.raises(BrokerUnavailableError) as caught:
        nowhere.submit(decoded(event("ada"), event("bob"))).result(20)
    with pytest.raises(BrokerUnavailableError):
        nowhere.check_ready()

    assert "ada" not in caught.value.message


def test_a_probe_that_is_answered_ends_what_was_refused(road: Producing) -> None:
    """A road that nothing was sent by yet knows from it that the brokers have this client."""
    from confluent_kafka import KafkaError

    for code in (KafkaError._AUTHENTICATION, KafkaError._ALL_BROKERS_DOWN):
        road._health.client_failed(KafkaError(code))
    before = road._health.refusal
    road.check_ready()

    assert ("_AUTHENTICATION", None, None) == (before, road._health.refusal, road._health.trouble)


def test_what_waits_for_a_broker_is_bounded(
    nowhere: Producing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the limit a sender is told to come again, and a reply is given the same."""
    monkeypatch.setattr(producing, "EVENTS_MAX", 3)
    first = nowhere.submit(decoded(event("a"), event("b")))
    with pytest.raises(OverloadedError):
        nowhere.submit(decoded(event("c"), event("d")))
    refused = Request(decoded(event("c"), event("d")), first.__class__())
    nowhere.submit_here([refused])

    with pytest.raises(OverloadedError):
        refused.reply.result(1)  # type: ignore[attr-defined]
    assert isinstance(first.exception(20), BrokerUnavailableError)


def test_a_library_that_gave_up_is_replaced(
    address: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so by an exception; who waits is told that it failed, and what comes next is sent."""
    from confluent_kafka import KafkaError, KafkaException

    made: list[object] = []
    own = Broker.producer

    class Fenced:
        """Takes everything, and gives up."""

        def __init__(self) -> None:
            self._waiting: list[Callable[..., None]] = []

        def produce(self, *_message: object, on_delivery: Callable[..., None], **_: object) -> None:
            self._waiting.append(on_delivery)

        def poll(self, _seconds: float) -> int:
            if self._waiting:
                raise KafkaException(KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, "x", True))
            return 0

        def purge(self) -> None:
            while self._waiting:
                self._waiting.pop()(KafkaError(KafkaError._PURGE_QUEUE), None)

        def flush(self, _seconds: float) -> int:
            raise KafkaException(KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, "x", True))

    def producer(broker: Broker, on_error: Callable[..., None]) -> object:
        made.append(own(broker, on_error) if made else Fenced())
        return made[-1]

    monkeypatch.setattr(Broker, "producer", producer)
    road = Producing(Broker(address, topic), named=named)
    failed = road.submit(decoded(event("ada"))).exception(20)
    sent = road.submit(decoded(event("bob"))).result(20)
    road.close()

    assert isinstance(failed, BrokerUnavailableError)
    assert (1, 2) == (sent.accepted, len(made))


def test_a_closed_road_sends_what_waits_and_takes_nothing(address: str, topic: str) -> None:
    """`close` is a flush; afterwards events are refused."""
    road = Producing(Broker(address, topic), named=named)
    waiting = [road.submit(decoded(event(f"u{one}", DAY))) for one in range(50)]
    road.close()
    road.close()

    assert [1] * 50 == [one.result(0).accepted for one in waiting]
    with pytest.raises(StoreUnavailableError):
        road.submit(decoded(event("late")))
