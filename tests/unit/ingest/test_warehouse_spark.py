"""Events that a Spark reaches: which addresses it takes, which files, and what its errors say."""

import datetime as dt
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from components import SAIL, sail_server
from dpdau.errors import (
    InvalidSettingError,
    NotFoundError,
    UnsupportedMediaError,
    WarehouseUnavailableError,
)
from dpdau.ingest.event_tables import MonthSpan
from dpdau.ingest.rules import Rules
from dpdau.ingest.warehouse import Place, TableAddress, Warehouse
from dpdau.ingest.warehouse_spark import SparkFiles, SparkTable

pytest.importorskip("ibis")
pytest.importorskip("pyspark")
pytestmark = SAIL

NOBODY = "sc://127.0.0.1:1"
SPAN = MonthSpan("2026-02", (1,))
RULES = Rules(today=dt.date(2026, 4, 2))
DAY = dt.date(2026, 2, 28)


@pytest.fixture(scope="module")
def sail() -> Iterator[str]:
    """A Sail server; its master URL."""
    with sail_server() as url:
        yield url


def events(path: Path, **columns: list[Any]) -> Path:
    """A file of events of one day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    days = pa.array([DAY] * len(columns["user_id"]), pa.date32())
    pa.parquet.write_table(pa.table({**columns, "day": days}), path)
    return path


def counting(place: Place, order: str | None = "seq") -> Warehouse:
    """A count of a place that was not begun."""
    return Warehouse(place, rules=RULES, span=SPAN, order=order)


def files(path: Path, master: str) -> SparkFiles:
    """Files that a Spark is asked about."""
    return SparkFiles.of(str(path), master=master, options={})


def test_an_address_of_a_table_is_what_ibis_reads() -> None:
    """The path is the folder of the warehouse, options are those of Spark; a master comes first."""
    text = "pyspark:///w/h%20ouse?spark.master=local[3]&spark.sql.ansi.enabled=false&table=a.b"
    address = TableAddress.parse(text)
    one = SparkTable.of(address, options={"spark.app.id": "x", "spark.sql.ansi.enabled": "true"})
    other = SparkTable.of(address, master=NOBODY, options={})
    plain = SparkTable.of(TableAddress.parse("pyspark://?table=a"), options={})

    assert ("local[3]", ("a", "b"), "the table a.b") == (one.master, one.table, one.name)
    assert {
        "spark.app.id": "x",
        "spark.sql.ansi.enabled": "false",
        "spark.sql.warehouse.dir": str(Path("w/h ouse").absolute()),
    } == dict(one.options)
    assert (NOBODY, "local[*]", {}) == (other.master, plain.master, dict(plain.options))
    assert "local[3]" not in repr(one) and "true" not in repr(one)


@pytest.mark.parametrize("master", ["", "local[x]", "http://h:1", "sc://far.example:15002"])
def test_what_is_no_master_is_refused(master: str, tmp_path: Path) -> None:
    """Before anything is connected to; so is one whose answers could be read on the way."""
    with pytest.raises(InvalidSettingError):
        files(tmp_path, master)
    with pytest.raises(InvalidSettingError):
        SparkTable.of(
            TableAddress.parse(f"pyspark://?spark.master={master}&table=a"),
            master=master,
            options={},
        )


def test_a_table_of_another_engine_has_no_spark() -> None:
    """The engine of an address and `--engine` have to go together."""
    address = TableAddress.parse("duckdb:///e.db?table=events")
    with pytest.raises(InvalidSettingError, match="found another engine"):
        SparkTable.of(address, master=NOBODY, options={})


def test_only_parquet_means_the_same_to_spark(tmp_path: Path) -> None:
    """Another format is refused by its name or its first bytes, a pattern by its signs."""
    other = tmp_path / "events.parquet"
    other.write_text("user_id,day\na,2026-02-01\n")
    with pytest.raises(UnsupportedMediaError, match="Expected Parquet"):
        files(other, NOBODY)
    with pytest.raises(UnsupportedMediaError, match="Expected Parquet"):
        SparkFiles.of("s3a://b/events", master=NOBODY, options={}, file_format="csv")
    with pytest.raises(NotFoundError, match="pattern"):
        files(tmp_path / "*.parquet", NOBODY)
    assert "s3a://b/events" == SparkFiles.of("s3a://b/events", master=NOBODY, options={}).path


def test_a_retraction_counts_in_whichever_file_it_is(sail: str, tmp_path: Path) -> None:
    """Files of an older form without an op do not hide the op of a newer one."""
    events(tmp_path / "in" / "arrived=2026-03-01" / "a.parquet", user_id=["a", "b"], seq=[1, 2])
    newer = {"user_id": ["a", "a", "c"], "op": ["+", "-", "+"], "seq": [3, 5, 4]}
    events(tmp_path / "in" / "arrived=2026-03-02" / "b.parquet", **newer)
    found = counting(files(tmp_path / "in", sail)).count()

    # The rows without an op are refused, as the reader of files does.
    assert (1, 5, 2) == (found.table[-1, 0, 0], found.received, found.rejected_count)


def test_metadata_is_refused_and_not_overlooked(sail: str, tmp_path: Path) -> None:
    """A file with that column would be read row by row, with what its metadata says."""
    path = events(tmp_path / "e.parquet", user_id=["a"], metadata=["{}"])
    with pytest.raises(UnsupportedMediaError, match="without metadata"):
        counting(files(path, sail), order=None).count()


@pytest.mark.parametrize("zone", [None, "UTC"])
def test_what_spark_does_not_read_is_told(sail: str, tmp_path: Path, zone: str | None) -> None:
    """Nanoseconds are none of its types; the error names them and a way that reads them."""
    moment = pa.array([dt.datetime(2026, 2, 1, tzinfo=dt.UTC)], pa.timestamp("ns", zone))
    pa.parquet.write_table(pa.table({"user_id": ["a"], "ts": moment}), tmp_path / "e.parquet")
    with pytest.raises(UnsupportedMediaError, match="timestamps in microseconds"):
        counting(files(tmp_path / "e.parquet", sail), order=None).count()


def test_a_folder_does_not_replace_a_column(sail: str, tmp_path: Path) -> None:
    """A day that is in the files and in the names of their folders is one too many."""
    events(tmp_path / "in" / "day=2026-02-01" / "a.parquet", user_id=["a"])
    with pytest.raises(UnsupportedMediaError, match="no column twice"):
        counting(files(tmp_path / "in", sail), order=None).count()


def test_an_error_quotes_no_row_and_no_address(sail: str, tmp_path: Path) -> None:
    """What is damaged, missing or nobody's ends in one error of the product."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.parquet").write_text("user-4711" * 100)
    with pytest.raises(WarehouseUnavailableError, match="the files at in") as caught:
        counting(files(tmp_path / "in", sail)).count()
    with pytest.raises(NotFoundError, match="Expected the table nothing"):
        counting(SparkTable(master=sail, table=("nothing",))).count()
    with pytest.raises(WarehouseUnavailableError, match="found nobody there"):
        counting(SparkTable(master=NOBODY, table=("nothing",))).count()
    assert "4711" not in str(caught.value) and caught.value.__context__ is None


def test_a_stop_ends_the_query(sail: str, tmp_path: Path) -> None:
    """Sail and Spark Connect are told to; the answer is that nothing was charged."""
    one = counting(files(events(tmp_path / "e.parquet", user_id=["a"]), sail), order=None)
    ended = threading.Event()

    def stopping() -> None:
        # As `Reading.close` does: a stop between two queries ends neither.
        while not ended.wait(0.02):
            one.stop()

    def asking(backend: Any) -> Any:
        thread.start()
        while True:
            backend.raw_sql("select count(*) from range(100000)").toArrow()

    thread = threading.Thread(target=stopping)
    with pytest.raises(UnsupportedMediaError, match="Stopped reading the files"):
        one._asked(asking)
    ended.set()
    thread.join()
