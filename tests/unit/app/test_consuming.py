"""What is told of consuming: coarse lags, and settings as a broker."""

from pathlib import Path

import pytest

from dpdau.app.consuming import Consumption, broker_of, coarse
from dpdau.app.gateway import READS_AGAIN
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.kafka.messages import NOTHING
from dpdau.settings import rows
from dpdau.telemetry import Metrics
from in_process import captured_logs
from products import product, product_settings

SECRET = "hunter2-hunter2"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.0, 0), (9.99, 0), (10.0, 10), (299.0, 60), (1e5, 86_400), (1e9, 604_800)],
)
def test_a_lag_is_told_in_steps(seconds: float, told: int) -> None:
    """Below ten seconds there is none; above, the step that was reached."""
    assert told == coarse(seconds)


def test_the_options_of_kafka_are_hidden(tmp_path: Path) -> None:
    """`KAFKA_OPTIONS` reaches the library and no table of settings."""
    options = {"KAFKA_BOOTSTRAP_SERVERS": "b:1", "KAFKA_OPTIONS": f"sasl.password={SECRET}"}
    settings = product_settings(tmp_path, **options)
    shown = "".join(f"{one.name}={one.value}" for one in rows(settings))

    assert SECRET not in shown and "KAFKA_OPTIONS=set (hidden)" in shown
    assert {"sasl.password": SECRET} == broker_of(settings).options
    assert "dpdau-events-dead" == broker_of(settings).dead_letter_topic


def test_the_gauge_is_as_coarse(tmp_path: Path) -> None:
    """The gauge and the standing tell the same lag, the worst one of the partitions read here."""
    pytest.importorskip("confluent_kafka")
    with product(tmp_path, KAFKA_BOOTSTRAP_SERVERS="b:1") as app:
        app.metrics = metrics = Metrics()
        consumption = Consumption(app)
        consumption.behind(0, 61.0)
        consumption.behind(1, 3.0)
        labels = [{"topic": "dpdau-events", "partition": part} for part in "01"]

        assert [60, 0] == [
            metrics.registry.get_sample_value("dpdau_kafka_lag", one) for one in labels
        ]
        assert 60 == consumption.standing().lag_seconds
        consumption.gone([0, 5])
        assert [None, 0] == [
            metrics.registry.get_sample_value("dpdau_kafka_lag", one) for one in labels
        ]
        assert 0 == consumption.standing().lag_seconds
        assert 0 == consumption.standing().to_json()["received"]


def test_all_is_read_again_though_more_comes(tmp_path: Path) -> None:
    """A restored store has read again what was there at its start, however far behind it is."""
    pytest.importorskip("confluent_kafka")
    with product(tmp_path, KAFKA_BOOTSTRAP_SERVERS="b:1") as app, captured_logs() as logs:
        app.intake.submit_consumed(NOTHING, {READS_AGAIN: 1}).result()
        consumption = Consumption(app, workers=0)
        consumption.start()
        claims = consumption.members.claims
        claims.aim({0: 5}, count=1)
        told = []
        for place in (4, 5, 6):
            claims.come_to({0: place})
            consumption.behind(0, 61.0)
            consumption.stored(IngestReport())
            told.append(logs.getvalue().count("kafka_read_again"))
        noted = app.intake.offset(READS_AGAIN)

    assert [0, 1, 1] == told
    assert noted is None


def test_what_ended_consuming_is_told_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is no broker that is away; an error that is told again and again does not grow."""
    pytest.importorskip("confluent_kafka")
    with product(tmp_path, KAFKA_BOOTSTRAP_SERVERS="b:1") as app:
        consumption = Consumption(app)
        monkeypatch.setattr(consumption.members, "_failure", ZeroDivisionError("a bug"))
        lengths = set()
        for ask in (consumption.check_ready, consumption.standing) * 2:
            with pytest.raises(ZeroDivisionError) as caught:
                ask()
            lengths.add(len(caught.traceback))

    assert 1 == len(lengths)
