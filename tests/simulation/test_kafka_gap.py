"""Topics that do not go on where they were left: nothing is passed over, and nobody comes back."""

import re
from pathlib import Path

import pytest

from components import Kafka, make_topics
from dpdau.app import App, back_up, restore_all
from dpdau.app.consuming import Consumption, Standing
from dpdau.datadir import DataDir
from dpdau.errors import TopicMismatchError
from dpdau.ingest.kafka.broker import Broker
from dpdau.telemetry import Metrics
from in_process import captured_logs, service
from kafka_topics import QUICK, delete_before, delete_topic, produce, until
from products import NOW, product, product_settings
from streams import counts, recount, stream

SEED = 20260410
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kafka")]


@pytest.fixture
def settings(kafka: Kafka, request: pytest.FixtureRequest) -> dict[str, object]:
    """Settings of a topic of this test's own, with one partition."""
    name = re.sub(r"[^a-z0-9_]", "-", request.node.name)
    make_topics(kafka.address, {name: 1})
    return {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.address,
        "KAFKA_TOPIC": name,
        "KAFKA_GROUP": name,
        "KAFKA_DEAD_LETTER_TOPIC": "",
        "KAFKA_OPTIONS": QUICK,
    }


def consumed(app: App, *, accept_gap: bool = False) -> Standing:
    """Takes all that is in the topic; raises what ended it."""
    consumption = Consumption(app, accept_gap=accept_gap)
    consumption.start()
    until(lambda: consumption.is_at_end or consumption.members.failure is not None)
    consumption.close()
    return consumption.standing()


@pytest.mark.parametrize("left", [300, 0])
def test_what_was_deleted_before_it_was_read_is_not_passed_over(
    settings: dict[str, object], kafka: Kafka, tmp_path: Path, left: int
) -> None:
    """Consuming ends until the gap is accepted; then it is counted, once, and what is left comes
    in."""
    topic, rows = str(settings["KAFKA_TOPIC"]), stream(SEED, 900)
    produce(kafka.address, topic, rows[:300])
    with product(tmp_path, **settings) as app:
        consumed(app)
    produce(kafka.address, topic, rows[300:])
    delete_before(kafka.address, topic, 900 - left)
    with product(tmp_path, **settings) as app, pytest.raises(TopicMismatchError) as refused:
        consumed(app)
    before = counts(tmp_path / "data")
    with product(tmp_path, **settings) as app:
        accepted = consumed(app, accept_gap=True)
        again = consumed(app)

    assert "--accept-gap" in refused.value.message
    assert recount(rows[:300]) == before
    assert (600 - left, left) == (accepted.lost, accepted.report.accepted)
    assert (0, 0) == (again.lost, again.report.received)
    assert recount([*rows[:300], *rows[900 - left :]]) == counts(tmp_path / "data")


def test_what_goes_from_a_partition_that_had_nothing_is_a_gap(
    settings: dict[str, object], kafka: Kafka, tmp_path: Path
) -> None:
    """Where it began was noted, so messages that came and went since are missed."""
    topic, rows = str(settings["KAFKA_TOPIC"]), stream(SEED + 6, 300)
    with product(tmp_path, **settings) as app:
        consumed(app)
    produce(kafka.address, topic, rows)
    delete_before(kafka.address, topic, 100)
    with product(tmp_path, **settings) as app, pytest.raises(TopicMismatchError, match="gap"):
        consumed(app)
    with product(tmp_path, **settings) as app:
        accepted = consumed(app, accept_gap=True)

    assert (100, 200) == (accepted.lost, accepted.report.accepted)
    assert recount(rows[100:]) == counts(tmp_path / "data")


def test_the_mark_of_a_transaction_is_no_gap(
    settings: dict[str, object], kafka: Kafka, tmp_path: Path
) -> None:
    """It has a place of its own behind the messages, which retention takes with them."""
    topic, rows = str(settings["KAFKA_TOPIC"]), stream(SEED + 7, 300)
    produce(kafka.address, topic, rows[:100], transaction=topic)
    with product(tmp_path, **settings) as app:
        consumed(app)
    delete_before(kafka.address, topic, 101)
    produce(kafka.address, topic, rows[100:])
    with product(tmp_path, **settings) as app:
        later = consumed(app)

    assert (0, 200) == (later.lost, later.report.accepted)
    assert recount(rows) == counts(tmp_path / "data")


def test_a_topic_that_is_made_again_is_refused(
    settings: dict[str, object], kafka: Kafka, tmp_path: Path
) -> None:
    """Another topic under the name is not read, though it has the next place: who was erased stays
    out. The service is alive and not ready then, and its log says why."""
    topic, rows = str(settings["KAFKA_TOPIC"]), stream(SEED + 1, 300)
    produce(kafka.address, topic, rows)
    with product(tmp_path, **settings) as app:
        consumed(app)
        app.erase("u1")
    erased = counts(tmp_path / "data")
    delete_topic(kafka.address, topic)
    make_topics(kafka.address, {topic: 1})
    produce(kafka.address, topic, [*rows, *rows])
    with product(tmp_path, **settings) as app, captured_logs() as logs, service(app) as http:
        before = http.get("/readyz").status_code
        consumption = Consumption(app)
        app.attach(consumption)
        consumption.start()
        until(lambda: consumption.members.failure is not None)
        until(lambda: http.get("/readyz").status_code != 200)
        alive = http.get("/healthz").status_code

    assert (200, 200) == (before, alive)
    assert isinstance(consumption.members.failure, TopicMismatchError)
    assert '"code": "topic_mismatch"' in logs.getvalue()
    assert "consuming ended" in logs.getvalue()
    assert erased == counts(tmp_path / "data")


def test_a_topic_that_ends_before_what_is_stored_is_refused(
    settings: dict[str, object], kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where brokers do not say which topic it is, its end does: it is not read from its start."""
    monkeypatch.setattr(Broker, "topic_id", lambda _self, **_options: None)
    topic, rows = str(settings["KAFKA_TOPIC"]), stream(SEED + 2, 300)
    produce(kafka.address, topic, rows)
    with product(tmp_path, **settings) as app:
        consumed(app)
    stored = counts(tmp_path / "data")
    delete_topic(kafka.address, topic)
    make_topics(kafka.address, {topic: 1})
    produce(kafka.address, topic, stream(SEED + 3, 200))
    with (
        product(tmp_path, **settings) as app,
        pytest.raises(TopicMismatchError, match="ends before"),
    ):
        consumed(app, accept_gap=True)

    assert stored == counts(tmp_path / "data")


def test_a_restored_store_says_when_erasures_are_to_be_repeated(
    settings: dict[str, object], kafka: Kafka, tmp_path: Path
) -> None:
    """Who is erased before all is read again comes back; the log says when it is time."""
    topic, rows = str(settings["KAFKA_TOPIC"]), stream(SEED + 4, 600)
    produce(kafka.address, topic, rows[:300])
    with product(tmp_path, **settings) as app:
        consumed(app)
        back_up(DataDir(tmp_path / "data"), app.ledger, tmp_path / "copy", clock=lambda: NOW)
        produce(kafka.address, topic, rows[300:])
        consumed(app)
        app.erase("u1")
    erased = counts(tmp_path / "data")
    restored = restore_all(
        product_settings(tmp_path, **settings),
        tmp_path / "copy",
        reason="test",
        accept_older=True,
        clock=lambda: NOW,
    )
    told = []
    with product(tmp_path, **settings) as app:
        app.erase("u1")
        for _ in range(2):
            with captured_logs() as logs:
                consumed(app)
            told.append(logs.getvalue())
    back = counts(tmp_path / "data")
    with product(tmp_path, **settings) as app:
        app.erase("u1")

    assert (True, 1) == (restored.reads_again, len(restored.erasures_since))
    assert 1 == told[0].count("kafka_reads_again") == told[0].count("kafka_read_again")
    assert "_again" not in told[1]
    assert erased != back
    assert erased == counts(tmp_path / "data")


@pytest.mark.parametrize("is_raised", [True, False])
def test_a_library_that_gave_up_is_started_anew(
    settings: dict[str, object],
    kafka: Kafka,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_raised: bool,
) -> None:
    """A fatal error of the client costs a pause, and no event, whether it is raised or comes as a
    message; lags of nobody's are not told."""
    from confluent_kafka import KafkaError, KafkaException

    topic, rows = str(settings["KAFKA_TOPIC"]), stream(SEED + 5, 1_000)
    produce(kafka.address, topic, rows)
    made, own = [], Broker.consumer

    def counted(broker: Broker, on_error: object) -> object:
        made.append(own(broker, on_error))  # type: ignore[arg-type]
        return Failing(made[-1]) if len(made) == 1 else made[-1]

    class Fatal:
        """What the library gives in place of a message; it calls itself fatal by its code alone."""

        def error(self) -> KafkaError:
            return KafkaError(KafkaError._FATAL)

        def partition(self) -> int:
            return 0

    class Failing:
        """Gives one batch, then fails for good."""

        def __init__(self, consumer: object) -> None:
            self._consumer, self._given = consumer, 0

        def __getattr__(self, name: str) -> object:
            return getattr(self._consumer, name)

        def consume(self, *_limits: object) -> object:
            if self._given > 0 and is_raised:
                raise KafkaException(KafkaError(KafkaError._FATAL))
            if self._given > 0:
                return [Fatal()]
            found = self._consumer.consume(500, 1.0)  # type: ignore[attr-defined]
            self._given += len(found)
            return found

    monkeypatch.setattr(Broker, "consumer", counted)
    with product(tmp_path, **settings) as app:
        app.metrics = metrics = Metrics()
        standing = consumed(app)
        label = {"topic": topic, "partition": "0"}

    assert 2 == len(made)
    assert (1_000, 0) == (standing.report.accepted, standing.report.duplicate)
    assert metrics.registry.get_sample_value("dpdau_kafka_lag", label) is None
    assert recount(rows) == counts(tmp_path / "data")
