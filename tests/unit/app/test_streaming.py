"""A batch of Spark's own stream, taken into a lake that others write too."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from components import SAIL, sail_server
from dpdau.app import App, streaming
from dpdau.app.consuming import Consumption
from dpdau.app.streaming import Streaming
from dpdau.domain import Metric
from dpdau.errors import StoreCorruptError
from dpdau.ingest.event import decode_objects
from dpdau.ingest.kafka.broker import Broker
from products import DAY, NOW, event, product

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

pytestmark = SAIL
PARTITIONS = 2


class NoQuery:
    """A stream that never has a batch by itself."""

    def __init__(self, *_arguments: object, **_named: object) -> None:
        pass


@pytest.fixture(scope="module")
def sail() -> Iterator[str]:
    """A Sail server; its master URL."""
    with sail_server() as url:
        yield url


@pytest.fixture
def app(sail: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """A product over a lake whose topic has two partitions."""
    monkeypatch.setattr(streaming, "Stream", NoQuery)
    monkeypatch.setattr(streaming, "check_process", lambda _settings: None)
    monkeypatch.setattr(Broker, "topic_id", lambda _broker, **_named: None)
    monkeypatch.setattr(Broker, "partition_count", lambda _broker, **_named: PARTITIONS)
    named = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "KAFKA_TOPIC": "t"}
    with product(tmp_path, SPARK_MASTER=sail, **named) as one:
        yield one


def started(app: App) -> Streaming:
    """A query that is given its batches by hand."""
    one = Streaming(app)
    one.start()
    return one


def messages(app: App, partition: int, *offsets: int) -> "DataFrame":
    """Messages of a partition, each of a user called after its offset."""
    moment = int(NOW.timestamp() * 1000)
    rows = [(json.dumps(event(f"u{n}")).encode(), partition, n, moment) for n in offsets]
    spark = Streaming(app)._adoption.lake.spark
    return spark.createDataFrame(
        rows, "value BINARY, partition INT, offset BIGINT, timestamp_ms BIGINT"
    )


def active(app: App) -> int:
    """How many users the store counts on the day."""
    return int(app.exact({Metric.DAU: 1}, DAY, DAY, reason="test")[Metric.DAU][0])


def test_what_a_consumer_stored_is_not_taken_again(app: App) -> None:
    """`serve --consume` took a user who was erased since: the stream passes over the message."""
    consumed = decode_objects([event("u4"), event("u5")], rules=app.rules())
    app.intake.submit_consumed(consumed, {Consumption(app)._source(1): 5}).result()
    assert 1 == app.erase("u5").days_touched
    one = started(app)
    one._take(messages(app, 1, 4, 5, 6), 0)
    standing = one._report

    assert (1, 1) == (standing.received, standing.accepted)
    assert 2 == active(app)


def test_a_checkpoint_that_the_store_never_saw_is_refused(app: App, tmp_path: Path) -> None:
    """After a restore the number of a batch says nothing, where the checkpoint began again."""
    first = started(app)
    for number in range(3):
        first._take(messages(app, 0, number), number)
    for path in (tmp_path / "data" / "streams").rglob("dpdau.id"):
        path.unlink()
    second = started(app)
    with pytest.raises(StoreCorruptError, match="Remove the folder"):
        second._take(messages(app, 0, 9), 2)

    second._take(messages(app, 0, 2, 3), 0)
    assert 4 == active(app)
    with pytest.raises(StoreCorruptError, match="Remove the folder"):
        second._take(messages(app, 0, 9), 2)
    started(app)._take(messages(app, 0, 4), 1)
    assert 5 == active(app)
