"""A month from files by Spark on the JVM: what Sail answers for in the contracts, asked of it."""

import datetime as dt
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet
import pytest

from components import spark_local
from dpdau.errors import NotFoundError, UnsupportedMediaError, WarehouseUnavailableError
from dpdau.ingest.event_file import MonthSpan
from dpdau.ingest.warehouse import Warehouse
from dpdau.ingest.warehouse_spark import SparkFiles, SparkTable
from warehouses import (
    ASKED,
    MONTH,
    PLAIN,
    RULES,
    SEGMENTS,
    check_same,
    in_spark,
    of_file,
    of_table,
    stream,
)

pytest.importorskip("ibis")
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("jvm")]

OPTIONS = {
    "spark.sql.shuffle.partitions": "2",
    # For a few rows, compiling costs more than it saves.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}


@pytest.fixture(scope="module")
def local() -> Iterator[str]:
    """Spark in a JVM beside this process; its master URL."""
    with spark_local() as found:
        yield found


def quick(place: SparkFiles) -> SparkFiles:
    """The same, with options for few rows."""
    return replace(place, options=OPTIONS)


def test_streams_and_moments_count_as_files_do(local: str, tmp_path: Path) -> None:
    """Event ids, segments and rows with faults; days of a zone; ids that are no text."""
    span, rows = MonthSpan(MONTH, ASKED[1], SEGMENTS), stream(6)
    file = of_file(rows.in_order(), tmp_path, RULES, span)
    check_same(file, of_table(quick(in_spark(local, tmp_path / "s", rows.shuffled())), RULES, span))

    midnight = dt.datetime(2026, 2, 2, tzinfo=ZoneInfo("Europe/Berlin")).astimezone(dt.UTC)
    moments = [midnight + dt.timedelta(microseconds=step) for step in (-1, 0, 1, 2)]
    zoned = replace(PLAIN, zone=ZoneInfo("Europe/Berlin"))
    columns = {
        "user_id": pa.array([b"a", b"a", b"\xff", b"b"], pa.binary()).view(pa.string()),
        "ts": pa.array(moments, pa.timestamp("us", "UTC")),
    }
    day = MonthSpan(MONTH, (1,))
    file = of_file(pa.table(columns), tmp_path, zoned, day)
    place = quick(in_spark(local, tmp_path / "m", pa.table(columns)))
    check_same(file, of_table(place, zoned, day, order=None))
    assert ([1, 2], 1) == (file.table[:2, 0, 0].tolist(), file.rejected_count)


def test_what_stands_in_the_way_is_told_and_a_stop_ends_it(
    local: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No file, no table, damage, a Ctrl-C: each an error of its own, and no row is quoted."""
    (tmp_path / "x.parquet").write_bytes(b"PAR1" + b"user-4711" * 100)
    day = MonthSpan(MONTH, (1,))
    with pytest.raises(WarehouseUnavailableError) as caught:
        of_table(SparkFiles.of(str(tmp_path / "x.parquet"), master=local, options={}), PLAIN, day)
    with pytest.raises(NotFoundError, match="the files at none"):
        of_table(SparkFiles.of(str(tmp_path / "none"), master=local, options={}), PLAIN, day)
    with pytest.raises(NotFoundError, match=r"the table a\.nothing"):
        of_table(SparkTable(master=local, table=("a", "nothing")), PLAIN, day)

    pyarrow.parquet.write_table(pa.table({"user_id": ["a"]}), tmp_path / "e.parquet")
    place = SparkFiles.of(str(tmp_path / "e.parquet"), master=local, options={})
    one, ended = Warehouse(place, rules=PLAIN, span=day), threading.Event()

    def asking(backend: Any) -> Any:
        thread.start()
        endless = "select count(*) from range(1000000) a cross join range(1000000) b where a.id < 0"
        return backend.raw_sql(endless).toArrow()

    def stopping() -> None:
        while not ended.wait(0.1):
            one.stop()

    thread = threading.Thread(target=stopping)
    with pytest.raises(UnsupportedMediaError, match="nothing was charged"):
        one._asked(asking)
    ended.set()
    thread.join()
    assert "4711" not in f"{caught.value}{capfd.readouterr().err}"
