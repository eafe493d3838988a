"""Rows that a table may have and a stream has not: at one place in the order, on a day that comes
again."""

import datetime as dt
import itertools
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from dpdau.domain import Segment
from dpdau.ingest.event_tables import MonthSpan
from dpdau.ingest.rules import DAYS_AHEAD_MAX, Rules
from warehouses import check_same, in_duckdb, of_file, of_table

pytest.importorskip("ibis")
# Ibis 12 reads schemas by a name that DuckDB 2 has another one for.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

TODAY = dt.date(2026, 4, 2)
DAYS = [dt.date(2026, 2, 3), dt.date(2026, 2, 5)]


def test_of_rows_with_one_id_and_one_place_one_counts(tmp_path: Path) -> None:
    """Whichever way they lie: two days of one event would be more than its user may add."""
    event = [("+", DAYS[1], "ios"), ("+", DAYS[0], "tv"), ("-", DAYS[0], "tv")]
    rows = [
        {"user_id": f"u{way}", "op": op, "day": day, "platform": label, "event_id": "e", "seq": 7}
        for way, rows in enumerate(itertools.permutations(event))
        for op, day, label in rows
    ]
    span = MonthSpan("2026-02", (30,), (Segment("platform", "ios"), Segment("platform", "tv")))
    rules = Rules(today=TODAY, dimensions=("platform",))
    found = of_table(in_duckdb(tmp_path / "events.db", table_of(rows)), rules, span)

    assert [6, 0, 6] == found.table[-1, :, 0].tolist()


def test_rows_without_an_id_all_count(tmp_path: Path) -> None:
    """At one place in the order, too; of one day a `-` is the later one."""
    rows = [
        {"user_id": user, "op": op, "day": day, "event_id": None, "seq": 7}
        for user, op, day in [
            ("ann", "+", DAYS[0]),
            ("ann", "-", DAYS[0]),
            ("bob", "+", DAYS[0]),
            ("bob", "+", DAYS[1]),
        ]
    ]
    span = MonthSpan("2026-02", (1,))
    place = in_duckdb(tmp_path / "events.db", table_of(rows))
    found = of_table(place, Rules(today=TODAY), span)

    assert [1, 1] == [int(found.table[day.day - 1, 0, 0]) for day in DAYS]
    assert 2 == found.table.sum()


@pytest.mark.parametrize(
    ("zone", "today"),
    [
        # A minute after midnight it is the evening before again.
        ("America/St_Johns", dt.date(2010, 12, 1)),
        ("America/St_Johns", dt.date(2010, 11, 6) - dt.timedelta(days=DAYS_AHEAD_MAX)),
        (None, dt.date(2010, 11, 20)),
    ],
)
def test_a_day_that_comes_again_is_counted_as_its_own(
    tmp_path: Path, zone: str | None, today: dt.date
) -> None:
    """Each half minute around the hour that comes twice, at the end of the month, and where it is
    the last day that is taken."""
    where = LastHourAgain() if zone is None else ZoneInfo(zone)
    midnight = dt.datetime(2010, 11, 1 if zone is None else 7, 2, 30, tzinfo=dt.UTC)
    moments = [midnight + dt.timedelta(minutes=step) - dt.timedelta(hours=2) for step in range(300)]
    rows = [{"user_id": f"u{number}", "ts": at, "seq": number} for number, at in enumerate(moments)]
    table = pa.Table.from_pylist(rows, pa.schema([*FIELDS, ("ts", pa.timestamp("us", "UTC"))]))
    rules = Rules(today=today, zone=where)
    for month in ("2010-10", "2010-11"):
        span = MonthSpan(month, (1, 7))
        file = of_file(table.drop(["seq"]), tmp_path, rules, span)
        check_same(file, of_table(in_duckdb(tmp_path / f"{month}.db", table), rules, span))
        assert file.received == len(moments)


class LastHourAgain(dt.tzinfo):
    """A zone whose clocks go back by an hour a minute after October 2010 has ended."""

    _turn = dt.datetime(2010, 11, 1, 2, 31, tzinfo=dt.UTC).replace(tzinfo=None)

    def utcoffset(self, at: dt.datetime | None) -> dt.timedelta:
        """Two and a half hours behind, and three and a half afterwards."""
        assert at is not None
        return dt.timedelta(hours=-2.5 if self._is_early(at) else -3.5)

    def dst(self, at: dt.datetime | None) -> dt.timedelta:
        """None is told of."""
        return dt.timedelta()

    def tzname(self, at: dt.datetime | None) -> str:
        """It has no name."""
        return ""

    def fromutc(self, at: dt.datetime) -> dt.datetime:
        """The time on the clocks."""
        early = at.replace(tzinfo=None) < self._turn
        local = at - dt.timedelta(hours=2.5 if early else 3.5)
        return local.replace(fold=0 if early else 1)

    def _is_early(self, at: dt.datetime) -> bool:
        """Whether a time on the clocks is before they go back."""
        local = at.replace(tzinfo=None, fold=0)
        back = self._turn - dt.timedelta(hours=3.5)
        return local < back or (local < back + dt.timedelta(hours=1) and not at.fold)


FIELDS = [("user_id", pa.string()), ("seq", pa.int64())]


def table_of(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of a table of events."""
    return pa.Table.from_pylist(
        rows,
        pa.schema(
            [
                *FIELDS,
                ("op", pa.string()),
                ("day", pa.date32()),
                *([("platform", pa.string())] if "platform" in rows[0] else []),
                ("event_id", pa.string()),
            ]
        ),
    )
