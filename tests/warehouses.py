"""Events in tables of warehouses, streams of them, and what the same rows in a file add up to."""

import datetime as dt
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from dpdau.activity import turnstile
from dpdau.domain import Event, Op, Segment, day_number
from dpdau.ingest.event_file import Counted, EventFile, MonthSpan
from dpdau.ingest.rules import Rules
from dpdau.ingest.warehouse import Place, TableAddress, Warehouse
from dpdau.ingest.warehouse_spark import SparkFiles, SparkTable

STREAMS = int(os.environ.get("DPDAU_STREAMS", "15"))
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

Load = Callable[[pa.Table], Place]
"""Puts rows into a new table of one engine."""


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


def in_spark(master: str, folder: Path, rows: pa.Table) -> SparkFiles:
    """A folder of files, as they may arrive over two days, that a Spark is asked about."""
    half = len(rows) // 2
    for name, some in {"1": rows.slice(0, half), "2": rows.slice(half)}.items():
        part = folder / f"arrived=2026-03-0{name}"
        part.mkdir(parents=True)
        pa.parquet.write_table(some, part / "events.parquet")
    return SparkFiles.of(str(folder), master=master, options={})


def elsewhere(place: Place) -> Place:
    """A table that is not there, where the place is."""
    if isinstance(place, SparkFiles):
        return SparkTable(master=place.master, table=("nothing",))
    assert isinstance(place, TableAddress)
    return replace(place, table=("nothing",))


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


def of_table(place: Place, rules: Rules, span: MonthSpan, order: str | None = "seq") -> Counted:
    """What a table adds up to."""
    return Warehouse(place, rules=rules, span=span, order=order).count()


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
