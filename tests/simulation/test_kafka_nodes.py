"""Three nodes of Apache Kafka, one of which dies while events go in and come out."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import Kafka, kafka_nodes, make_topics
from dpdau.app import App
from dpdau.app.consuming import Consumption
from dpdau.errors import BrokerUnavailableError
from kafka_topics import QUICK, until
from products import product, send
from streams import counts, recount, stream

SEED = 20260411
PARTITIONS = 3
REQUEST = 100
REQUESTS = 60
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kafka")]


@pytest.fixture
def nodes() -> Iterator[Kafka]:
    """Three nodes; two have to have what is acknowledged."""
    with kafka_nodes(3) as found:
        yield found


def leader(kafka: Kafka, topic: str) -> int:
    """The node that leads the first partition of a topic."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": kafka.address, "log_level": 0})
    found = admin.list_topics(topic, timeout=30).topics[topic].partitions[0].leader
    return int(found)


def test_a_node_that_dies_takes_no_acknowledged_event_with_it(nodes: Kafka, tmp_path: Path) -> None:
    """What was acknowledged is stored once and in order; what was not is sent again."""
    make_topics(nodes.address, {"events": PARTITIONS}, replicas=3)
    rows = stream(SEED, REQUEST * REQUESTS)
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": nodes.address,
        "KAFKA_TOPIC": "events",
        "KAFKA_DEAD_LETTER_TOPIC": "",
        "KAFKA_OPTIONS": QUICK,
        "INGEST_MODE": "kafka",
    }
    acknowledged = threading.Semaphore(0)
    failures: list[Exception] = []

    def produce(front: App) -> None:
        """Sends each request until it is acknowledged, one after another."""
        try:
            for number in range(1, REQUESTS):
                part, is_sent = rows[number * REQUEST : (number + 1) * REQUEST], False
                while not is_sent:
                    try:
                        is_sent = send(front, part).accepted == REQUEST
                    except BrokerUnavailableError:
                        continue
                acknowledged.release()
        except Exception as error:  # noqa: BLE001 - told by the test itself.
            failures.append(error)

    with (
        product(tmp_path / "front", **settings) as front,
        product(tmp_path / "store", **settings) as store,
    ):
        consumption = Consumption(store, workers=2)
        consumption.start()
        send(front, rows[:REQUEST])
        until(lambda: consumption.standing().report.received == REQUEST)
        victim = leader(nodes, "events")
        sending = threading.Thread(target=produce, args=(front,))
        sending.start()
        for _ in range(REQUESTS // 3):
            acknowledged.acquire()
        nodes.processes[victim].send_signal(signal.SIGKILL)
        nodes.processes[victim].wait()
        is_in_time = sending.is_alive()
        sending.join()
        until(lambda: consumption.standing().report.accepted == len(rows))
        consumption.close()
        report = consumption.standing().report

    assert [] == failures
    assert is_in_time, "all was sent before the node died"
    assert len(rows) == report.accepted <= report.received
    assert recount(rows) == counts(tmp_path / "store" / "data")
