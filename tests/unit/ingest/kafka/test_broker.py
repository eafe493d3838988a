"""The settings of Kafka: what may be told to the library, and that no secret is shown."""

import sys

import pytest

from dpdau.errors import BrokerUnavailableError, InvalidSettingError
from dpdau.ingest.kafka.broker import Broker, Health

confluent_kafka = pytest.importorskip("confluent_kafka")
SECRET = "hunter2-hunter2"


def broker(options: str | None = None, dead: str | None = None) -> Broker:
    """A broker that nobody listens as."""
    return Broker.of(
        servers="127.0.0.1:1", topic="t", group="g", dead_letter_topic=dead, options=options
    )


def test_options_are_read_with_commas_in_values() -> None:
    """A comma in a value is written with a backslash; the repr shows none of them."""
    made = broker(rf"sasl.password={SECRET}\,x, security.protocol=SASL_SSL,")

    assert {"sasl.password": f"{SECRET},x", "security.protocol": "SASL_SSL"} == made.options
    assert SECRET not in repr(made)


@pytest.mark.parametrize(
    "options",
    [
        *(SECRET, f"={SECRET}", f"Pass Word={SECRET}", f"acks={SECRET}"),
        *(f"enable.auto.commit={SECRET}", f"group.instance.id={SECRET}"),
    ],
)
def test_options_that_cannot_be_taken_are_refused_without_their_value(options: str) -> None:
    """What is no name=value, or what exactly once rests on, is refused."""
    with pytest.raises(InvalidSettingError) as caught:
        broker(options)

    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (f"no.such.option={SECRET}", "no.such.option"),
        (f"sasl.mechanisms={SECRET}", "KAFKA_OPTIONS"),
        (f"ssl.key.pem={SECRET}", "KAFKA_OPTIONS"),
    ],
)
def test_what_the_library_refuses_is_told_without_its_value(option: str, told: str) -> None:
    """The name of the option is told where the library says it, its value never."""
    with pytest.raises(InvalidSettingError) as caught:
        broker(f"security.protocol=sasl_ssl,{option}").producer(lambda _: None)

    assert told in caught.value.message
    assert SECRET not in caught.value.message


def test_an_address_is_required() -> None:
    """Without KAFKA_BOOTSTRAP_SERVERS nothing is tried."""
    with pytest.raises(InvalidSettingError, match="KAFKA_BOOTSTRAP_SERVERS"):
        Broker.of(servers=None, topic="t", group="g", dead_letter_topic=None, options=None)


@pytest.mark.parametrize(("dead", "expected"), [(None, "t-dead"), ("x", "x"), ("", "")])
def test_dead_letters_have_a_topic_unless_turned_off(dead: str | None, expected: str) -> None:
    """The default is the topic with -dead behind it; an empty name is none."""
    assert expected == broker(dead=dead).dead_letter_topic


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not installed it is told how."""
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)

    with pytest.raises(InvalidSettingError, match=r"dp-dau-mau\[kafka\]"):
        broker().consumer(lambda _: None)


def test_trouble_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """Health remembers what is wrong until something answers."""
    health = Health()
    health.answered()
    none = health.trouble
    health.failed("_TRANSPORT")
    health.failed("_ALL_BROKERS_DOWN")
    last = health.trouble
    health.answered()

    assert (None, "_ALL_BROKERS_DOWN", None) == (none, last, health.trouble)


@pytest.mark.parametrize("refusal", ["_AUTHENTICATION", "_SSL"])
def test_brokers_that_refuse_are_not_waited_for_at_the_start(refusal: str) -> None:
    """Only when all are down and one of them refused; once one answered, it is waited for."""
    codes = confluent_kafka.KafkaError
    refused, down = (codes(getattr(codes, one)) for one in (refusal, "_ALL_BROKERS_DOWN"))
    away, asked, known = Health(), Health(), Health()
    away.client_failed(down)
    for health in (asked, known):
        health.client_failed(refused)
    before = asked.refusal
    asked.client_failed(down)
    known.answered()
    known.client_failed(refused)
    known.client_failed(down)

    assert (None, None, refusal, None) == (
        away.refusal,
        before,
        asked.refusal,
        known.refusal,
    )
    asked_again = Health()
    asked_again.client_failed(refused)
    asked_again.client_failed(down)
    asked_again.answered()
    for health in (away, known, asked_again):
        health.require_taken()
    with pytest.raises(InvalidSettingError, match="KAFKA_OPTIONS"):
        asked.require_taken()


def test_partitions_of_a_broker_that_is_away_are_unknown() -> None:
    """No number is made up: who asks tries again."""
    with pytest.raises(BrokerUnavailableError, match="which partitions"):
        broker().partition_count(timeout_seconds=0.1)
