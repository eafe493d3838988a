"""Events in Kafka topics for tests."""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from components import START_SECONDS

QUICK = "session.timeout.ms=3000,heartbeat.interval.ms=200"
"""A member that died is noticed soon, and one that joins waits less."""


def produce(
    address: str, topic: str, rows: Iterable[dict[str, str]], *, transaction: str | None = None
) -> None:
    """Writes events, keyed by user; as one transaction where that has a name."""
    messages = ((row["user_id"], json.dumps(row).encode()) for row in rows)
    send(address, topic, messages, transaction=transaction)


def send(
    address: str,
    topic: str,
    messages: Iterable[tuple[str | None, bytes | None]],
    *,
    transaction: str | None = None,
) -> None:
    """Writes messages with their keys, and waits for the broker."""
    named = {} if transaction is None else {"transactional.id": transaction}
    own = {"bootstrap.servers": address, "log_level": 0, "enable.idempotence": True}
    producer = Producer({**own, **named})
    if transaction is not None:
        producer.init_transactions(START_SECONDS)
        producer.begin_transaction()
    for key, value in messages:
        producer.produce(topic, key=key, value=value)
        producer.poll(0)
    if transaction is not None:
        producer.commit_transaction(START_SECONDS)
    assert 0 == producer.flush(30)


def messages_of(address: str, topic: str, partitions: int = 1) -> list[Any]:
    """All messages of a topic, in the order of each partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    found: list[Any] = []
    consumer.assign([TopicPartition(topic, one, 0) for one in range(partitions)])
    ended = 0
    while ended < partitions:
        some = consumer.consume(1000, 0.2)
        found += [one for one in some if one.error() is None]
        ended += sum(one.error() is not None for one in some)
    consumer.close()
    return found


def delete_before(address: str, topic: str, offset: int) -> None:
    """Deletes the messages of the first partition that are before a place, as retention does."""
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    for one in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
        one.result(START_SECONDS)


def delete_topic(address: str, topic: str) -> None:
    """Deletes a topic, and waits until the broker knows none of that name."""
    admin = AdminClient({"bootstrap.servers": address, "log_level": 0})
    for one in admin.delete_topics([topic]).values():
        one.result(START_SECONDS)
    until(lambda: topic not in admin.list_topics(timeout=START_SECONDS).topics)


def until(condition: Callable[[], object]) -> None:
    """Returns once a condition holds."""
    deadline = time.monotonic() + START_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)
