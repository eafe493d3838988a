"""Moments that Parquet has as INT96: read as moments, wherever a file comes from."""

import datetime as dt
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet
import pytest

from dpdau.ingest.decoded import DecodedTable, TableForm
from dpdau.ingest.event_file import EventFile, MonthSpan
from dpdau.ingest.parquet_moments import with_moments
from dpdau.ingest.rules import Rules
from dpdau.ingest.table_bodies import decode_table_body

RULES = Rules(today=dt.date(2026, 4, 2), zone=ZoneInfo("Europe/Berlin"))
AROUND = [dt.datetime(2026, 2, 1, 23, tzinfo=dt.UTC) - dt.timedelta(minutes=n) for n in (1, 0)]
"""A minute before a midnight in Berlin, and that midnight."""


def written(path: Path, *, old: bool, zone: str | None = None) -> Path:
    """Two users, one on each side of midnight."""
    columns = {"user_id": ["a", "b"], "ts": pa.array(AROUND, pa.timestamp("us", zone))}
    pa.parquet.write_table(pa.table(columns), path, use_deprecated_int96_timestamps=old)
    return path


@pytest.mark.parametrize(
    ("old", "zone", "days"),
    [(True, None, [1, 1]), (False, "UTC", [1, 1]), (False, None, [2, 0])],
)
def test_an_old_moment_falls_on_its_day_in_the_zone(
    old: bool, zone: str | None, days: list[int], tmp_path: Path
) -> None:
    """As one with a zone does, in a file and in a request; a local time is none."""
    path = written(tmp_path / "e.parquet", old=old, zone=zone)
    counted = EventFile(path, rules=RULES, span=MonthSpan("2026-02", (1,))).count()
    assert days == counted.table[:2, 0, 0].tolist()

    first = dt.date(2026, 2, 1)
    found = [day - (first - dt.date(1970, 1, 1)).days for day in days_of(path)]
    assert days == [found.count(0), found.count(1)]


def days_of(path: Path) -> list[int]:
    """The days of a file that is sent as a request."""
    body = path.read_bytes()
    decoded = decode_table_body(body, TableForm.PARQUET, rules=RULES, unpacked_bytes_max=1 << 20)
    assert isinstance(decoded, DecodedTable)
    return decoded.day.tolist()


@pytest.mark.parametrize("batched", [True, False])
def test_other_columns_stay_as_they_are(batched: bool, tmp_path: Path) -> None:
    """Of a table and of a batch; years that do not fit into nanoseconds too."""
    last = dt.datetime(9999, 12, 31, tzinfo=dt.UTC)
    late = pa.array([last, None], pa.timestamp("us"))
    rows: Any = pa.table({"user_id": ["a", "b"], "ts": late})
    pa.parquet.write_table(rows, tmp_path / "e.parquet", use_deprecated_int96_timestamps=True)
    with pa.parquet.ParquetFile(tmp_path / "e.parquet", coerce_int96_timestamp_unit="us") as file:
        read = next(file.iter_batches()) if batched else file.read()
        found = with_moments(read, file.schema)
    assert (pa.string(), pa.timestamp("us", "UTC")) == tuple(found.schema.types)
    assert [last, None] == found["ts"].to_pylist()
