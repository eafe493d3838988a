"""A month from files by Spark on the JVM: what Sail answers for in the contracts, asked of it."""

import datetime as dt
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet
import pytest

from components import spark_local
from dpdau.activity.spark.session import errors
from dpdau.errors import NotFoundError, UnsupportedMediaError, WarehouseUnavailableError
from dpdau.ingest.event_file import Counted, EventFile, MonthSpan
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


AROUND = [dt.datetime(2026, 2, 1, 23, tzinfo=dt.UTC) - dt.timedelta(minutes=n) for n in (1, 0)]
"""A minute before a midnight in Berlin, and that midnight."""


@pytest.fixture(scope="module")
def local() -> Iterator[str]:
    """Spark in a JVM beside this process; its master URL."""
    with spark_local() as found:
        yield found


def failing(backend: Any, *, cast: str) -> None:
    """A query that fails at a row, asked in both ways of Spark."""
    rows = backend._session.range(1).selectExpr("concat('user-', 4711 + id) as user_id")
    with pytest.raises(errors()):
        rows.select(rows.user_id.cast("int")).collect()
    backend._session.sql(f"select {cast} from values ('user-4711') as t(user_id)").collect()


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


def test_moments_of_an_old_form_count_as_files_do(local: str, tmp_path: Path) -> None:
    """What Spark writes by itself, INT96, is a moment and falls on its day in the zone."""
    columns = {"user_id": ["a", "b"], "ts": pa.array(AROUND, pa.timestamp("us"))}
    path = tmp_path / "e.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path, use_deprecated_int96_timestamps=True)
    span, zoned = MonthSpan(MONTH, (1,)), replace(PLAIN, zone=ZoneInfo("Europe/Berlin"))
    file = EventFile(path, rules=zoned, span=span).count()
    place = quick(SparkFiles.of(str(path), master=local, options={}))
    check_same(file, of_table(place, zoned, span, order=None))
    assert [1, 1] == file.table[:2, 0, 0].tolist()


def test_files_that_mean_two_things_are_refused(local: str, tmp_path: Path) -> None:
    """A day of files and of folders, a column of two types, nanoseconds: each told, not read."""
    day, span = pa.array([dt.date(2026, 2, 5)]), MonthSpan(MONTH, (1,))
    given = {
        "both/day=2026-02-01/a": pa.table({"user_id": ["a"], "day": day}),
        "folders/day=2026-02-01/a": pa.table({"user_id": ["a"]}),
        "types/a": pa.table({"user_id": ["a"], "day": day}),
        "types/b": pa.table({"user_id": [1], "day": day}),
        "nanos/a": pa.table({"user_id": ["a"], "ts": pa.array(AROUND[:1], pa.timestamp("ns"))}),
    }
    for name, rows in given.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(rows, tmp_path / f"{name}.parquet")

    def counted(name: str) -> Counted:
        place = quick(SparkFiles.of(str(tmp_path / name), master=local, options={}))
        return of_table(place, PLAIN, span, order=None)

    assert [1, 0] == counted("folders").table[:2, 0, 0].tolist()
    with pytest.raises(UnsupportedMediaError, match="the column day in the files or in the names"):
        counted("both")
    with pytest.raises(UnsupportedMediaError, match="CANNOT_MERGE_SCHEMAS"):
        counted("types")
    with pytest.raises(UnsupportedMediaError, match="PARQUET_TYPE_ILLEGAL"):
        counted("nanos")


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

    pyarrow.parquet.write_table(pa.table({"user_id": ["user-4711"]}), tmp_path / "e.parquet")
    place = SparkFiles.of(str(tmp_path / "e.parquet"), master=local, options={})
    for cast in ("cast(user_id as int)", "date(user_id)"):
        with pytest.raises(WarehouseUnavailableError):
            Warehouse(place, rules=PLAIN, span=day)._asked(partial(failing, cast=cast))
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
