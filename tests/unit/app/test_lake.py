"""Events into a lake: files that executors read, under the keys of the product."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import SAIL, sail_server
from dpdau.app import App
from dpdau.app.lake import Adoption, ingest_path
from dpdau.app.streaming import Streaming
from dpdau.domain import Metric
from dpdau.errors import InvalidSettingError, UnsupportedMediaError
from dpdau.ingest.batch import IngestReport
from dpdau.ingest.spark.adopting import decoded_pieces
from dpdau.ingest.spark.pieces import pieces_of
from products import DAY, NOW, event, product, send

pytestmark = SAIL


@pytest.fixture(scope="module")
def sail() -> Iterator[str]:
    """A Sail server; its master URL."""
    with sail_server() as url:
        yield url


@pytest.fixture
def app(sail: str, tmp_path: Path) -> Iterator[App]:
    """A product over a lake, alone in its directory."""
    with product(tmp_path, serve_at="http://test", SPARK_MASTER=sail) as one:
        yield one


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of two files: ten users, of whom one is taken back, and a line that is no event."""
    folder = tmp_path / "events"
    folder.mkdir()
    lines = [json.dumps({**event(f"u{n}"), "event_id": f"e{n}"}) for n in range(10)]
    (folder / "1.ndjson").write_text("\n".join(lines))
    (folder / "2.ndjson").write_text(json.dumps(event("u3", op="-")) + "\n{\n")
    return folder


def active(app: App) -> int:
    """How many users the store counts on the day."""
    return int(app.exact({Metric.DAU: 1}, DAY, DAY, reason="test")[Metric.DAU][0])


def outcome(report: IngestReport) -> tuple[int, int, int, int]:
    """Received, accepted, duplicate, rejected."""
    return report.received, report.accepted, report.duplicate, report.rejected_count


def test_a_folder_is_one_batch(app: App, source: Path) -> None:
    """Its files are taken in order; under the same name once; and event ids are known again."""
    first = ingest_path(app, source, rules=app.rules(), batch_id="b")
    again = ingest_path(app, source, rules=app.rules(), batch_id="b")
    unnamed = ingest_path(app, source / "1.ndjson", rules=app.rules())

    assert (12, 11, 0, 1) == outcome(first) and [1] == [one.index for one in first.rejected]
    assert (12, 0, 11, 1) == outcome(again)
    assert (10, 0, 10, 0) == outcome(unnamed)
    assert 9 == active(app)


def test_users_are_those_of_events_that_were_sent(app: App, source: Path) -> None:
    """Somebody who was sent as an event is nobody new in a file, and can be erased."""
    send(app, [event("u1"), event("zoe")])

    ingest_path(app, source, rules=app.rules())
    found = active(app)
    app.erase("u1")

    assert (10, 9) == (found, active(app))


def test_executors_work_again_where_a_key_came_meanwhile(app: App, source: Path) -> None:
    """Nothing is written under the older key, and nobody counts under two names."""
    send(app, [event("u1"), event("u2")])
    adoption, keys = Adoption(app), []

    def decoded(recipe):  # type: ignore[no-untyped-def]
        keys.append(len(recipe.keys))
        if len(keys) == 1:
            app.keys.plan(NOW.date())
        return decoded_pieces(adoption.lake.spark, pieces_of(source), recipe)

    report = adoption(decoded, rules=app.rules())
    before = active(app)
    send(app, [event("u2"), event("u9")])

    assert [1, 2] == keys
    assert (12, 11, 0, 1) == outcome(report)
    assert (9, 9) == (before, active(app))


def test_a_damaged_file_stores_nothing(app: App, source: Path) -> None:
    """Its error comes back from the executors, and the good files before it are not stored."""
    (source / "3.parquet").write_bytes(b"PAR1 and nothing else")
    (source / "4.ndjson.gz").write_bytes(b"\x1f\x8b and nothing else")
    with pytest.raises(UnsupportedMediaError):
        ingest_path(app, source, rules=app.rules())
    (source / "3.parquet").unlink()
    with pytest.raises(UnsupportedMediaError) as caught:
        ingest_path(app, source, rules=app.rules())

    assert "4.ndjson.gz" in caught.value.message
    assert 0 == active(app)


def test_a_store_without_spark_adopts_nothing(tmp_path: Path) -> None:
    """It is told which setting is missing."""
    with product(tmp_path) as embedded, pytest.raises(InvalidSettingError) as caught:
        Adoption(embedded)

    assert "SPARK_MASTER" in caught.value.message


def test_a_server_of_spark_connect_takes_no_stream(app: App) -> None:
    """Its batches would not be taken here."""
    with pytest.raises(InvalidSettingError) as caught:
        Streaming(app)

    assert "sc://" in caught.value.message
