"""Events in Kafka topics for tests: a seeded stream with removals, and what it adds up to."""

import datetime as dt
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from dpdau.activity.embedded import EmbeddedStore
from products import NOW

FIRST = dt.date(2026, 3, 2)
DAYS = 12
ENDS = [FIRST + dt.timedelta(days=day) for day in range(DAYS + 6)]
WINDOWS = (1, 7)
QUICK = "session.timeout.ms=3000,heartbeat.interval.ms=200"
"""A member that died is noticed soon, and one that joins waits less."""


def stream(seed: int, rows: int, users: int = 150) -> list[dict[str, str]]:
    """Additions and removals of a few users, so that the order decides; each has an id."""
    seeded = random.Random(seed)
    return [
        {
            "user_id": f"u{seeded.randrange(users)}",
            "op": seeded.choice("++-"),
            "day": (FIRST + dt.timedelta(days=seeded.randrange(DAYS))).isoformat(),
            "event_id": f"e{row}",
        }
        for row in range(rows)
    ]


def produce(address: str, topic: str, rows: Iterable[dict[str, str]]) -> None:
    """Writes events, keyed by user."""
    send(address, topic, ((row["user_id"], json.dumps(row).encode()) for row in rows))


def send(address: str, topic: str, messages: Iterable[tuple[str | None, bytes | None]]) -> None:
    """Writes messages with their keys, and waits for the broker."""
    producer = Producer({"bootstrap.servers": address, "log_level": 0, "enable.idempotence": True})
    for key, value in messages:
        producer.produce(topic, key=key, value=value)
        producer.poll(0)
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


def recount(rows: Sequence[dict[str, str]]) -> list[list[int]]:
    """What the rows mean: for each user and day the last one decides."""
    last = {(row["user_id"], row["day"]): row["op"] for row in rows}
    active = {pair for pair, op in last.items() if op == "+"}
    return [
        [
            len({user for user, day in active if first <= dt.date.fromisoformat(day) <= end})
            for end in ENDS
            for first in [end - dt.timedelta(days=window - 1)]
        ]
        for window in WINDOWS
    ]


def counts(data: Path) -> list[list[int]]:
    """What the store of a data directory counts."""
    store = EmbeddedStore(data / "activity", clock=lambda: NOW, read_only=True)
    table = store.counts(first=ENDS[0], last=ENDS[-1], window_days=WINDOWS)
    store.close()
    found: list[list[int]] = table.tolist()
    return found
