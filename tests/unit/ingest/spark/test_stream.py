"""How Spark's Kafka connector is told what librdkafka is told."""

import pytest

from dpdau.ingest.kafka.broker import Broker
from dpdau.ingest.spark.stream import connector_options


def options(text: str) -> dict[str, str]:
    """The options of the connector for a KAFKA_OPTIONS, without the address."""
    broker = Broker.of(servers="b:9092", topic="t", group="g", dead_letter_topic=None, options=text)
    found = connector_options(broker)
    assert "b:9092" == found.pop("kafka.bootstrap.servers")
    return found


@pytest.mark.parametrize(
    ("mechanism", "module"),
    [("PLAIN", "plain.Plain"), ("SCRAM-SHA-256", "scram.Scram"), ("SCRAM-SHA-512", "scram.Scram")],
)
def test_a_user_and_a_password_are_put_in_the_words_of_java(mechanism: str, module: str) -> None:
    """They become one login, in which no character of a password ends it."""
    told = options(
        f"security.protocol=SASL_SSL,sasl.mechanisms={mechanism},sasl.username=ada,"
        r"""sasl.password=a"b\c\,d;e"""
    )

    assert {
        "kafka.security.protocol": "SASL_SSL",
        "kafka.sasl.mechanism": mechanism,
        "kafka.sasl.jaas.config": f"org.apache.kafka.common.security.{module}LoginModule required "
        r'username="ada" password="a\"b\\c,d;e";',
    } == told


def test_certificates_are_named_in_the_words_of_java() -> None:
    """The file of the authorities is the same one; what both call alike is passed on."""
    told = options("security.protocol=SSL,ssl.ca.location=/ca.pem,session.timeout.ms=9000")

    assert {
        "kafka.security.protocol": "SSL",
        "kafka.ssl.truststore.location": "/ca.pem",
        "kafka.ssl.truststore.type": "PEM",
        "kafka.session.timeout.ms": "9000",
    } == told
