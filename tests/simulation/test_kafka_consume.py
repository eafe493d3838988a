"""Events through a small Kafka-protocol broker: into the store once each, or out with a reason."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import free_port, kafka_protocol_broker, make_topics
from dpdau.app import App
from dpdau.app.consuming import Consumption, Standing, broker_of
from dpdau.errors import StoreUnavailableError, TopicMismatchError
from in_process import service
from kafka_topics import QUICK, delete_topic, messages_of, produce, send, until
from products import DAY, event, product
from streams import counts, recount, stream

PARTITIONS = 2
PATIENCE_SECONDS = 30
pytestmark = pytest.mark.xdist_group("small-kafka")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A small broker."""
    with kafka_protocol_broker() as found:
        yield found


@pytest.fixture
def settings(address: str, request: pytest.FixtureRequest) -> dict[str, object]:
    """Settings of topics of this test's own."""
    name = request.node.name
    make_topics(address, {name: PARTITIONS, f"{name}-dead": 1})
    return {
        "KAFKA_BOOTSTRAP_SERVERS": address,
        "KAFKA_TOPIC": name,
        "KAFKA_GROUP": name,
        "KAFKA_OPTIONS": QUICK,
    }


def consumed(app: App, workers: int = 1) -> Standing:
    """Takes all that is in the topic."""
    consumption = Consumption(app, workers=workers)
    consumption.start()
    until(lambda: consumption.is_at_end and consumption.standing() is not None)
    consumption.close()
    return consumption.standing()


def test_a_consumer_goes_on_where_the_one_before_it_was(
    settings: dict[str, object], address: str, tmp_path: Path
) -> None:
    """Each run takes what is new, whatever the group was told, and the counts are the recount."""
    topic = str(settings["KAFKA_TOPIC"])
    rows = stream(7, 3_000)
    found = []
    for part, group in ((rows[:2_000], "one"), (rows[2_000:], "another")):
        produce(address, topic, part)
        with product(tmp_path, **{**settings, "KAFKA_GROUP": group}) as app:
            found.append(consumed(app))

    assert [(2_000, 2_000), (1_000, 1_000)] == [
        (one.report.received, one.report.accepted) for one in found
    ]
    assert recount(rows) == counts(tmp_path / "data")


def test_poison_goes_to_its_topic_with_the_reason(
    settings: dict[str, object], address: str, tmp_path: Path
) -> None:
    """Each message that cannot be taken is there as it came, with where it was; others count."""
    topic = str(settings["KAFKA_TOPIC"])
    good = json.dumps(event("ada")).encode()
    bad = json.dumps(event("", DAY)).encode()
    mixed = b'{"events": [' + good + b", " + bad + b"]}"
    send(address, topic, [("k", one) for one in (good, b"\x00not json", bad, mixed, None)])
    with product(tmp_path, **settings) as app:
        standing = consumed(app)
    (place,) = {one.partition() for one in messages_of(address, topic, PARTITIONS)}
    letters = messages_of(address, f"{topic}-dead")
    headers = [{name: value.decode() for name, value in one.headers()} for one in letters]

    assert (6, 2, 4) == (
        standing.report.received,
        standing.report.accepted,
        standing.report.rejected_count,
    )
    assert [b"\x00not json", bad, mixed, None] == [one.value() or None for one in letters]
    assert ["bad_json", "bad_user_id", "bad_user_id", "bad_json"] == [
        one["dpdau-reason"] for one in headers
    ]
    assert ["1", "2", "3", "4"] == [one["dpdau-offset"] for one in headers]
    assert {(topic, str(place))} == {
        (one["dpdau-topic"], one["dpdau-partition"]) for one in headers
    }
    assert ["0", "0", "1", "0"] == [one["dpdau-events"] for one in headers]


def test_without_a_topic_for_it_poison_is_counted_alone(
    settings: dict[str, object], address: str, tmp_path: Path
) -> None:
    """An empty KAFKA_DEAD_LETTER_TOPIC turns dead letters off."""
    topic = str(settings["KAFKA_TOPIC"])
    send(address, topic, [("k", b"not json"), ("k", json.dumps(event("ada")).encode())])
    with product(tmp_path, **settings, KAFKA_DEAD_LETTER_TOPIC="") as app:
        standing = consumed(app)

    assert (1, 1) == (standing.report.accepted, standing.report.rejected_count)
    assert [] == messages_of(address, f"{topic}-dead")


def test_a_store_that_cannot_write_loses_nothing(
    settings: dict[str, object],
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch whose commit fails is read again from where the store is."""
    rows = stream(11, 2_000)
    produce(address, str(settings["KAFKA_TOPIC"]), rows)
    with product(tmp_path, **settings) as app:
        left, submit = [3], app.intake._commits._store.apply_many  # type: ignore[attr-defined]

        def failing(batches: object) -> object:
            left[0] -= 1
            if left[0] in (0, 1):
                raise StoreUnavailableError("no space")
            return submit(batches)

        monkeypatch.setattr(app.intake._commits._store, "apply_many", failing)
        monkeypatch.setattr("dpdau.ingest.kafka.member.MESSAGES_MAX", 500)
        standing = consumed(app)

    assert (2_000, 2_000, 0, None) == (
        standing.report.received,
        standing.report.accepted,
        standing.report.duplicate,
        standing.trouble,
    )
    assert left[0] < 0
    assert recount(rows) == counts(tmp_path / "data")


def test_a_topic_that_is_made_again_is_another_one(
    settings: dict[str, object], address: str, tmp_path: Path
) -> None:
    """The store knows which topic it was fed by, and refuses another one under its name."""
    topic = str(settings["KAFKA_TOPIC"])
    with product(tmp_path, **settings) as app:
        consumption, broker = Consumption(app), broker_of(app.settings)
        known = broker.topic_id(timeout_seconds=PATIENCE_SECONDS)
        assert known is not None
        assert PARTITIONS == broker.partition_count(timeout_seconds=PATIENCE_SECONDS)
        consumption.members.claims.require_topic(known)
        consumption.members.claims.require_topic(known)
        delete_topic(address, topic)
        make_topics(address, {topic: PARTITIONS})
        consumption.start()
        until(lambda: consumption.members.failure is not None)
        consumption.close()

    assert isinstance(consumption.members.failure, TopicMismatchError)


def test_a_broker_that_is_away_is_a_503(tmp_path: Path) -> None:
    """Nothing is acknowledged; the answer says when to come again, and the probe that it waits."""
    nowhere = {
        "INGEST_MODE": "kafka",
        "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
        "KAFKA_OPTIONS": "message.timeout.ms=300",
    }
    with product(tmp_path, **nowhere) as app, service(app) as http:
        answer = http.post("/event", json={"event": event("ada")})
        ready = http.get("/readyz")

    assert (503, "broker_unavailable") == (answer.status_code, answer.json()["code"])
    assert int(answer.headers["Retry-After"]) > 0
    assert "ada" not in answer.text
    assert 503 == ready.status_code
